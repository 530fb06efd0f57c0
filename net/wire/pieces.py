"""Large JSON read in pieces, so that other threads run in between.

Python's parser lets no other thread run until it has finished, which takes seconds for the largest
messages. So a text is cut at commas. Each piece is completed with the brackets that it lacks: in
front for the containers that it continues, and behind for those that it leaves open. What the
parser makes of it is put into the containers that earlier pieces left open.
"""
from __future__ import annotations

import itertools
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple

from .checks import Malformed

# Bytes that are parsed in one step: some milliseconds.
PIECE = 128 * 1024
# Levels of containers up to which it does not matter how many there are.
FEW = 32
# Bytes of a piece that are searched for a comma at a time.
WINDOW = 4 * 1024
# Bytes of brackets and quotes that are split at a time.
STEP = 64 * 1024
# Innermost levels that are taken away before the others are counted.
TURNS = 6

_SPACE = b" \t\n\r"
# A step of one level deeper, or back, as a signed byte.
_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))


class _Open(NamedTuple):
    """A container that the pieces so far have left open.

    :ivar key: its place in the one around it.
    """

    container: Any
    key: Any


def read(text: bytes, parse: Callable[[bytes], Any], close: Callable[[Dict[str, Any]], Any],
         check: Callable[[int], None]) -> Any:
    """The value of a JSON text.

    :param parse: makes a value from a text.
    :param close: makes the value from an object that is whole. ``parse`` does the same with objects
        within a piece, and leaves any with two keys, or with a key of 32 characters, as it is.
    :param check: called before a piece is parsed with the levels of containers in it and around
        it, unless these are few; raises if they are too many.
    :raises ValueError: it is no JSON, or what ``parse`` and ``check`` raise.
    """
    reader = _Reader(parse, close, check)
    start = 0
    while True:
        end = _cut(text, start)
        if end == len(text):
            return reader.last(text[start:])
        reader.add(text[start:end])
        start = end + 1


def _cut(text: bytes, start: int) -> int:
    """Where a piece ends: at the last comma in it that is outside of strings, or at the end of the
    text. A piece is longer than others only if it has no such comma."""
    inside = False
    while start + PIECE < len(text):
        piece = text[start:start + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # the character that it escapes, too
            piece = text[start:start + PIECE + 1]
        start += len(piece)
        piece = _without_escapes(piece)
        ends_inside = inside ^ (piece.count(b'"') % 2 == 1)
        comma = _last_comma(piece, ends_inside)
        if comma >= 0:
            return start - len(piece) + comma
        inside = ends_inside
    return len(text)


def _last_comma(piece: bytes, inside: bool) -> int:
    """The place of the last comma outside of strings; -1 if there is none.

    :param inside: whether the piece ends within a string.
    """
    end = len(piece)
    while end > 0:
        start = max(0, end - WINDOW)
        parts = piece[start:end].split(b'"')
        inside ^= len(parts) % 2 == 0  # now of where the window begins
        outside = parts[inside::2]
        if b"," in b"".join(outside):
            last = max(number for number, part in enumerate(outside) if b"," in part)
            before = parts[:2 * last + inside]
            return start + sum(map(len, before)) + len(before) + outside[last].rfind(b",")
        end = start
    return -1


def _without_escapes(piece: bytes) -> bytes:
    """The piece with other bytes in place of escapes, so that each quote begins or ends a
    string."""
    if b"\\" not in piece:
        return piece
    return piece.replace(b"\\\\", b"xx").replace(b'\\"', b"xx")


def brackets_of(text: bytes) -> bytes:
    """The brackets of JSON outside of its strings."""
    found = _without_escapes(text).translate(None, _OTHERS)
    if 2 * found.count(b'""') == found.count(b'"'):  # no string holds any
        return found.translate(None, b'"')
    # Taking out two quotes side by side moves no bracket into or out of a string, and leaves only
    # those strings that hold brackets.
    found = found.replace(b'""', b"")
    outside, inside = [], False
    for start in range(0, len(found), STEP):  # its parts take 17 times its memory
        parts = found[start:start + STEP].split(b'"')
        outside.append(b"".join(parts[inside::2]))
        inside ^= len(parts) % 2 == 0
    return b"".join(outside)


def _shallow(brackets: bytes) -> bytes:
    """The brackets without the innermost levels; each turn takes away one or two."""
    before = -1
    turns = TURNS
    while len(brackets) != before and turns:
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        turns -= 1
    return brackets


def levels_of(brackets: bytes) -> List[int]:
    """How many more containers are open than at the start: before each bracket, and after the
    last."""
    steps = memoryview(brackets.translate(_TO_STEPS)).cast("b")
    return list(itertools.accumulate(steps, initial=0))


def _unmatched(brackets: bytes, levels: List[int]) -> bytes:
    """The brackets that close what was opened before, followed by those that stay open. Whether the
    others match is left to the parser."""
    lowest, last = min(levels), levels[-1]
    found = [brackets[place - 1] for place in _firsts(levels, range(-1, lowest - 1, -1))]
    back = levels[::-1]
    opening = [brackets[-place] for place in _firsts(back, range(last - 1, lowest - 1, -1))]
    return bytes(found + opening[::-1])


def _firsts(levels: List[int], wanted: Iterable[int]) -> Iterator[int]:
    """The first place of each wanted level; the levels are reached in this order."""
    place = 0
    for level in wanted:
        place = levels.index(level, place)
        yield place


class _Reader:
    """Puts the pieces of a text together.

    :ivar _mark: a string that cannot be known beforehand, and so is not in the text.
    """

    def __init__(self, parse: Callable[[bytes], Any], close: Callable[[Dict[str, Any]], Any],
                 check: Callable[[int], None]) -> None:
        self._parse = parse
        self._close = close
        self._check = check
        self._mark = os.urandom(16).hex()
        self._stack: List[_Open] = []

    def add(self, piece: bytes) -> None:
        """Read the next piece, which is followed by a comma."""
        if not piece or piece[-1:] in b"[{" or piece[-1:] in _SPACE \
                and piece.rstrip(_SPACE)[-1:] in b"[{":
            raise Malformed("a comma before a value")
        self._read(piece)
        if not self._stack:
            raise Malformed("a comma after the value")

    def last(self, piece: bytes) -> Any:
        """Read what is left, and return the value."""
        value = self._read(piece)
        if self._stack:
            raise Malformed("not all brackets are closed")
        return value

    def _read(self, piece: bytes) -> Any:
        """Add a piece. Returns the whole value if that ends here."""
        brackets = brackets_of(piece)
        left = _shallow(brackets)
        if len(self._stack) + 2 * TURNS + len(left) > FEW:
            levels = levels_of(brackets)
            self._check(len(self._stack) + max(levels))
            left = _unmatched(brackets, levels)
        opening = left.lstrip(b"]}").decode()
        count = len(left) - len(opening)
        stack = self._stack
        if opening.strip("[{") or count > len(stack):
            raise Malformed("brackets that do not match")
        if stack and piece.lstrip(_SPACE)[:1] in (b"]", b"}"):
            raise Malformed("a comma after all values")
        # The containers that the piece closes, and the one around them, which gets what follows.
        touched = stack[max(0, len(stack) - count - 1):]
        ends = count == len(stack) and bool(stack)
        behind = "".join([f',"{self._mark}"]' if one == "[" else f',"{self._mark}":0}}'
                          for one in reversed(opening)])
        if touched and not ends:
            behind += "]" if type(touched[0].container) is list else "}"
        made = self._parse(b"%b%b%b" % (self._in_front(touched).encode(), piece, behind.encode()))
        if not touched:
            if opening:
                self._stack = [self._unmark(made, None)]
                self._find_open(opening[1:])
            return made
        self._merge(made, touched)
        value = self._close_all(touched, ends)
        del stack[len(stack) - count:]
        self._find_open(opening)
        return value

    def _in_front(self, touched: List[_Open]) -> str:
        """The opening brackets of containers, each as the first within the one before."""
        kinds = ["[" if type(one.container) is list else "{" for one in touched]
        return "".join([kind if kind == "[" or place == len(kinds) - 1 else f'{{"{self._mark}":'
                        for place, kind in enumerate(kinds)])

    def _merge(self, made: Any, touched: List[_Open]) -> None:
        """Put what is new into the open containers, from the outermost on."""
        for number, (container, _) in enumerate(touched):
            goes_on = number < len(touched) - 1
            if type(container) is list:
                inner = made[0] if goes_on else None
                container += made[1:] if goes_on else made
            else:
                inner = made.pop(self._mark) if goes_on else None
                container.update(made)
            made = inner

    def _close_all(self, touched: List[_Open], ends: bool) -> Any:
        """Close the containers that are whole now, the innermost first. Returns the whole value if
        it ends here."""
        for number in range(len(touched) - 1, -1 if ends else 0, -1):
            container, key = touched[number]
            value = self._close(container) if type(container) is dict else container
            if number == 0:
                return value
            around = touched[number - 1].container
            if value is not container and around[key] is container:  # else a later key was the same
                around[key] = value
        return None

    def _find_open(self, opening: str) -> None:
        """Find the containers that a piece leaves open, from the outermost on."""
        for _ in opening:
            around = self._stack[-1].container
            key = len(around) - 1 if type(around) is list else next(
                key for key in reversed(around) if self._is_marked(around[key]))
            self._stack.append(self._unmark(around[key], key))

    def _is_marked(self, value: Any) -> bool:
        if type(value) is dict:
            return self._mark in value
        return type(value) is list and bool(value) and type(value[-1]) is str \
            and value[-1] == self._mark

    def _unmark(self, container: Any, key: Any) -> _Open:
        if type(container) is list:
            container.pop()
        else:
            del container[self._mark]
        return _Open(container, key)
