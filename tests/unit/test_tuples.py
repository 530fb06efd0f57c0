"""Named tuples of the package are what those of typing are."""
from __future__ import annotations

import copy
import pickle
import typing

import pytest

from each import each
from net.tuples import NamedTuple


class Ours(NamedTuple):
    """Two fields."""

    cls: int
    second: str = "b"

    @property
    def both(self) -> str:
        return f"{self.cls}{self.second}"


class Theirs(typing.NamedTuple):
    """Two fields."""

    cls: int
    second: str = "b"

    @property
    def both(self) -> str:
        return f"{self.cls}{self.second}"


@each("show", [
    lambda cls: cls(1) == (1, "b") and cls(second="c", cls=2),
    lambda cls: (cls(1).cls, cls(1).second, cls(1).both),
    lambda cls: repr(cls(1)).replace(cls.__name__, "It"),
    lambda cls: cls(1)._replace(second=3),
    lambda cls: cls(1)._asdict(),
    lambda cls: (cls._fields, cls.__doc__, cls.__mro__[-2:], type(cls)),
    lambda cls: pickle.loads(pickle.dumps(cls(1))),
    lambda cls: copy.deepcopy(cls([1])),
    lambda cls: hash(cls(1)),
])
def test_it_does_what_one_of_typing_does(show):
    assert show(Ours) == show(Theirs)


@each("arguments", [(), (1, 2, 3)])
def test_wrong_arguments_are_refused_by_its_name(arguments):
    with pytest.raises(TypeError, match="argument"):
        Ours(*arguments)


def test_its_fields_cannot_be_set():
    with pytest.raises(AttributeError):
        Ours(1).cls = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ours(1).third = 2  # type: ignore[attr-defined]
