"""Named tuples as typing has them, made in a fifth of the time: nobody asks what their annotations
mean, but for type checkers."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    # What reads the field at a place is the same in every class.
    _PLACES = [vars(cls)[name] for cls in [namedtuple("_", [f"at_{n}" for n in range(16)])]
               for name in cls._fields]

    class _Tuple(tuple):
        __slots__ = ()

        def __repr__(self):
            fields = map("{}={!r}".format, self._fields, self)
            return f"{type(self).__name__}({', '.join(fields)})"

        def __getnewargs__(self):
            return tuple(self)

        def _asdict(self):
            return dict(zip(self._fields, self))

        def _replace(self, **changes):
            return type(self)(**{**self._asdict(), **changes})

    class _Maker(type):
        def __new__(meta, name, bases, body):
            if not bases:
                return super().__new__(meta, name, bases, body)
            fields = tuple(body["__annotations__"])
            names = ", ".join(fields)
            new = eval(f"lambda _cls, {names}: _new(_cls, ({names},))", {"_new": tuple.__new__})
            new.__qualname__ = f"{name}.__new__"
            new.__defaults__ = tuple(body[field] for field in fields if field in body)
            return type(name, (_Tuple,), {
                **body, **dict(zip(fields, _PLACES)), "__slots__": (), "__new__": new,
                "__match_args__": fields, "_fields": fields})

    class NamedTuple(metaclass=_Maker):
        """The base of a class whose annotations are its fields."""
