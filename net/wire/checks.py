"""Checks of what arrived, before it is used.

Tagged objects are made from the innermost outwards. So where a list, a number or a text is
expected, there may already be a range, a deque or an array, which unrolls to any size. Therefore
each place takes exactly the JSON type that our own side writes.
"""
from __future__ import annotations

import binascii
import json
from types import FrameType
from typing import Any, Dict, FrozenSet, List, Optional


_WHOLE = frozenset({int})


class Malformed(ValueError):
    """What arrived is not something that app-net sends."""


class Lacking(Exception):
    """What arrived is valid, but this process lacks what it needs.

    The text is ``before``, on which side it is, and ``after``.
    """

    def __init__(self, before: str, after: str = "") -> None:
        super().__init__(before, after)
        self.before = before
        self.after = after


def a_list(content: Any, least: int = 0, most: Optional[int] = None) -> List[Any]:
    """The content, if it is a list of ``least`` to ``most`` items.

    :raises Malformed: it is not; likewise for all that follow.
    """
    if type(content) is not list or len(content) < least \
            or most is not None and len(content) > most:
        raise Malformed("not a list of the right length")
    return content


def an_object(content: Any) -> Dict[str, Any]:
    """The content, if it is a JSON object."""
    if type(content) is not dict:
        raise Malformed("not an object")
    return content


def a_text(content: Any) -> str:
    """The content, if it is a text."""
    if type(content) is not str:
        raise Malformed("not text")
    return content


def a_whole(content: Any) -> int:
    """The content, if it is a whole number, and no truth value."""
    if type(content) is not int:
        raise Malformed("not a whole number")
    return content


def wholes(content: Any, least: int = 0, most: Optional[int] = None) -> List[int]:
    """The content, if it is a list of ``least`` to ``most`` whole numbers."""
    numbers = a_list(content, least, most)
    if not _WHOLE.issuperset(map(type, numbers)):
        raise Malformed("not whole numbers")
    return numbers


#: What Python raises for content that makes no sense.
_OF_THE_DATA = frozenset({
    Malformed, ValueError, TypeError, OverflowError, IndexError, KeyError, StopIteration,
    json.JSONDecodeError, UnicodeDecodeError, UnicodeEncodeError, binascii.Error})

#: The packages where it is raised: this one, parts of the standard library that are written in
#: Python, and libraries.
_MODULES = frozenset({__name__.partition(".")[0], "abc", "base64", "datetime", "_pydatetime",
                      "decimal", "_pydecimal", "fractions", "json", "pathlib", "uuid", "numpy",
                      "pydantic"})
#: The files of the code that dataclasses and attrs write, and the functions of it that run for a
#: key.
_GENERATED = ("<string>", "<attrs generated")
_FOR_KEYS = frozenset({"__hash__", "__eq__"})


def is_of_the_data(problem: Exception) -> bool:
    """Whether an exception says that what arrived makes no sense.

    Anything else is the application's own: raised by its signal handler while a value is made, say,
    or by a class of its own that is a key of a dict, unless only the parts of that have no hash.
    """
    if type(problem) not in _OF_THE_DATA:
        return False
    frame = _innermost(problem)
    if frame is not None and frame.f_code.co_name in _FOR_KEYS \
            and frame.f_code.co_filename.startswith(_GENERATED):
        return True
    return is_raised_in(problem, _MODULES)


def is_raised_in(problem: Exception, packages: FrozenSet[str]) -> bool:
    """Whether an exception comes from code of these packages, or from C code that it calls."""
    frame = _innermost(problem)
    if frame is None:
        return False
    module: str = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in packages


def _innermost(problem: Exception) -> Optional[FrameType]:
    found = problem.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return None if found is None else found.tb_frame
