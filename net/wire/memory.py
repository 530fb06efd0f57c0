"""How much memory the values of a message take.

The values that JSON itself has are estimated from the text, before anything is made of it. Tagged
objects are weighed once they have been made: of two sets with nearly the same text, one may take
four times as much as the other, and of a time zone nothing stays. So a text with tagged objects is
estimated piece by piece, as it is parsed: then the estimate is wrong for one piece at most.
"""
from __future__ import annotations

import datetime
import enum
import itertools
import operator
import re
import sys
from collections import deque
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from . import fast, pieces
from .memo import Memo

# Bytes of text that are looked at together: the parts that they are split into take several times
# their memory.
PIECE = 16 * 1024
# In a long text, one piece of so many is looked at, but at least so many in all: looking at each
# would take longer than reading the values.
MOST, LEAST = 8, 16
# Keys of objects that are remembered: the parser makes one string of equal ones. And texts of a
# piece that are searched for keys; which ones cannot be known beforehand.
MAX_KEYS = 4096
SAMPLE = 256
# Bytes for each different key besides its text, in the parser's own table.
KEY = 100
# Keys up to which the sizes of dicts are known one by one.
MAX_SIZES = 8192

_SLOT = 8


def _size_in_cpython(value: Any) -> int:
    """Roughly the bytes that an object takes in CPython, for a Python that does not say, such as
    PyPy."""
    if isinstance(value, str):
        return 49 + len(value) if value.isascii() else 74 + 4 * len(value)
    if isinstance(value, (bytes, bytearray)):
        return 33 + len(value)
    if isinstance(value, int):
        return 28 + value.bit_length() // 30 * 4
    if isinstance(value, float):
        return 24
    if isinstance(value, (set, frozenset)):
        return 216 + 4 * 16 * len(value)
    if isinstance(value, dict):
        return 64 + 4 * _SLOT * len(value)
    if isinstance(value, (list, tuple, deque)):
        return 56 + _SLOT * len(value)
    return 64


if sys.implementation.name == "cpython":
    size_of: Callable[[Any], int] = sys.getsizeof
    # The same without what the garbage collection keeps for a container, in a third of the time.
    _own_size_of: Callable[[Any], int] = operator.methodcaller("__sizeof__")
    # Bytes that the garbage collection keeps for each container.
    _COLLECTED = sys.getsizeof(()) - ().__sizeof__()
else:
    size_of = _own_size_of = _size_in_cpython
    _COLLECTED = 0

_TEXT, _LIST, _DICT = size_of(""), size_of([]), size_of({})
_NUMBER = size_of(1000)
# Bytes for the attributes of an instance, besides a slot for each.
_INSTANCE = 100 if sys.version_info < (3, 11) else 40

#: Whether Python keeps the hashes of fractions. Then fractions with the same hash have to be
#: counted, and their parts are remembered while the message is read.
KEEPS_FRACTIONS = sys.version_info >= (3, 12) and sys.implementation.name == "cpython"

# Everything that numbers consist of becomes 0, anything else a comma.
_AS_NUMBERS = bytes(ord("0") if byte in b"0123456789.+-eE" else ord(",") for byte in range(256))
# Stands between texts that are looked at together; within a text, JSON has it only escaped.
_BETWEEN = b"\1"
_CONTINUATIONS = bytes(range(0x80, 0xc0))
_FOUR_BYTES = rb"[\xf0-\xff]"
_TWO_BYTES = rb"[\xc4-\xef]"
_TAGS = rb'\{"![a-z]+":(\[\]?|\{)?'
# Small negative numbers for which Python makes a new object each time.
_NEGATIVE = (b"-6,", b"-7,", b"-8,", b"-9,")
# Characters up to which a number is an object of the usual size.
_LONG = 20


def estimate(text: bytes) -> int:
    """Bytes of memory that are needed to read a text without tagged objects.

    Right within a factor of 1.5 where the values are all of a kind.
    """
    codec = fast.codec()
    size = _count(text, len(text), codec, False)
    if codec is not None and fast.LARGE <= len(text) <= pieces.PIECE:  # it reads the bytes
        return size
    return size_of_reading(text, size)


def estimate_piece(piece: bytes, total: int) -> int:
    """Bytes of memory for what a piece with tagged objects holds, besides these objects.

    :param total: bytes of the whole text.
    """
    return _count(piece, total, None, True)


def size_of_reading(text: bytes, size: int = 0) -> int:
    """Bytes of memory that a text takes while it is read, together with its values.

    :param size: bytes of memory of the values.
    """
    if len(text) > pieces.PIECE:
        return size + 3 * pieces.PIECE  # of a piece: its bytes, completed ones, and its text
    if text.isascii():
        return len(text) + size
    characters = len(text.translate(None, _CONTINUATIONS))
    width = 4 if re.search(_FOUR_BYTES, text) else 2 if re.search(_TWO_BYTES, text) else 1
    # Python begins to decode it as ASCII, and then makes room for as many characters as bytes.
    return max(len(text) * (1 + width), characters * width + size)


def _count(text: bytes, total: int, codec: Optional[fast.Codec], tagged: bool) -> int:
    """Bytes of memory for what a text holds, which may be a piece of a longer one."""
    counts = _Counts(codec)
    every = max(1, min(MOST, total // (LEAST * PIECE), len(text) // PIECE))
    secret = hash(text[-PIECE:])  # no sender can know which pieces it chooses
    chosen = 0
    start, inside = 0, False
    for number in itertools.count():
        piece = text[start:_end(text, start)]
        if number % every == 0:
            chosen = number + hash((secret, number)) % every
        if number == chosen:
            inside = counts.add(piece, inside, tagged)
        else:
            inside ^= _without_escapes(piece).count(b'"') % 2 == 1
        start += len(piece)
        if start >= len(text):
            break
    return counts.size(len(text))


def _end(text: bytes, start: int) -> int:
    """Where the piece ends that begins at ``start``: not within an escape."""
    end = start + PIECE
    escape = text.rfind(b"\\", max(start, end - 5), end)
    if escape >= 0:
        before = text[start:escape + 1]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            return max(end, escape + (6 if text[escape + 1:escape + 2] == b"u" else 2))
    return end


class _Counts:
    """Counts what there is in the pieces of a text.

    :param codec: what will read it; None for the standard library.
    """

    def __init__(self, codec: Optional[fast.Codec]) -> None:
        self._size = 0
        self._codec = codec
        self._keys: Set[bytes] = set()
        # The keys that msgspec makes one string of, where that is what will read the text.
        self._shared: Set[bytes] = set()
        # Items and keys of containers that began in an earlier piece.
        self._open_items = self._open_keys = 0
        self._seen = 0

    def size(self, total: int) -> int:
        """Bytes of memory for the values of a text of ``total`` bytes, to which the counted pieces
        belong."""
        def whole(counted: int) -> int:
            return counted * total // max(1, self._seen)

        items, keys = whole(self._open_items), whole(self._open_keys)
        return whole(self._size) + _slots(items) * _SLOT \
            + (_size_of_dict(keys) - _DICT if keys else 0)

    def add(self, piece: bytes, inside: bool, tagged: bool) -> bool:
        """Count what is in the next piece.

        :param inside: whether it begins within a text.
        :returns: whether it ends within one.
        """
        tags = re.findall(_TAGS, piece) if tagged else []
        self._seen += len(piece)
        parts = _without_escapes(piece).split(b'"')
        self._add_texts(parts[not inside::2], parts[1 + (not inside)::2])
        around = b"".join(parts[inside::2])
        self._add_numbers(around)
        self._add_containers(around, tags)
        return inside ^ (len(parts) % 2 == 0)

    def _add_texts(self, texts: List[bytes], following: List[bytes]) -> None:
        if not texts:
            return
        # Of shorter ones there is one object each: but msgspec makes a new one for each letter.
        least = 2 if self._codec is None else 1
        self._size += _size_of_texts(texts, least)
        looked_at = min(len(texts), SAMPLE)
        start = hash(texts[-1]) % (len(texts) - looked_at + 1)
        end = start + looked_at
        keys = [text for text, after in zip(texts[start:end], following[start:end])
                if after[:1] == b":"]
        new = set(keys) - self._keys
        if self._codec is not None:
            if new:
                self._shared |= self._codec.shared(self._keys | new)
            keys = [key for key in keys if key in self._shared]
        if keys:
            # Among those that were not looked at, as many are new as in the second half of these.
            half = len(keys) // 2
            late = set(keys[half:]) - self._keys - set(keys[:half])
            self._size -= _size_of_texts(keys, least) * len(texts) // looked_at \
                - _size_of_keys(new.intersection(keys), least) \
                - _size_of_keys(late, least) * 2 * (len(texts) - looked_at) // looked_at
        if len(self._keys) < MAX_KEYS:
            self._keys |= new

    def _add_numbers(self, around: bytes) -> None:
        numbers = b"," + around.translate(_AS_NUMBERS)
        large = numbers.count(b",000")
        self._size += _NUMBER * (large + sum(map(around.count, _NEGATIVE)))
        self._size += max(0, numbers.count(b"0") - _LONG * numbers.count(b",0")) * 4 // 9

    def _add_containers(self, around: bytes, tags: List[bytes]) -> None:
        """Count lists and dicts, except those that tagged objects are made of, which do not
        stay."""
        of_lists, of_empty, of_dicts = map(tags.count, (b"[", b"[]", b"{"))
        lists, empty_lists = around.count(b"["), around.count(b"[]")
        dicts, empty_dicts = max(0, around.count(b"{") - len(tags)), around.count(b"{}")
        keys = max(0, around.count(b":") - len(tags))
        filled_lists, filled_dicts = lists - empty_lists, max(0, dicts - empty_dicts)
        items = max(0, around.count(b",") + filled_lists + filled_dicts - keys)
        if filled_dicts:
            self._size += max(0, filled_dicts - of_dicts) \
                * _size_of_dict(-(-keys // filled_dicts))
        else:
            self._open_keys += keys
        if filled_lists:
            self._size += max(0, filled_lists - of_lists) \
                * _slots(-(-items // filled_lists)) * _SLOT
        else:
            self._open_items += items
        self._size += empty_dicts * _DICT + max(0, lists - of_lists - of_empty) * _LIST


def _without_escapes(piece: bytes) -> bytes:
    """A piece in which each quote begins or ends a text."""
    if b"\\" not in piece:
        return piece
    return piece.replace(b"\\\\", b"x").replace(b'\\"', b"x")


def _size_of_texts(texts: List[bytes], least: int) -> int:
    """Bytes of memory of texts.

    :param least: characters from which on each text is an object of its own; of equal shorter ones
        there is only one, which counts for nothing.
    """
    together = _BETWEEN.join(texts)
    if together.isascii() and b"\\" not in together:
        sizes = list(map(len, texts))
        short = sum(map(sizes.count, range(least)))
        between = max(0, len(texts) - 1) * len(_BETWEEN)
        return len(together) - between + _TEXT * (len(texts) - short)
    read = together.decode("utf-8", "replace")
    if b"\\" in together:
        try:
            read = scanstring(read + '"', 0, False)[0]
        except ValueError:  # cut into pieces, or not JSON
            pass
    parts = read.split(_BETWEEN.decode())
    if len(parts) != len(texts):  # one of them contains the separator
        return _TEXT * len(texts) + 4 * len(together)
    return sum(map(size_of, [part for part in parts if len(part) >= least]))


def _size_of_keys(keys: Set[bytes], least: int) -> int:
    """Bytes of memory of different keys, and of the parser's own table of them."""
    return _size_of_texts(list(keys), least) + KEY * len(keys)


def _slots(items: int) -> int:
    """How many items a list has room for after so many have been appended to it."""
    if items > 100:
        return items + (items >> 3)
    slots = 0
    while slots < items:
        slots = slots + (slots + 1 >> 3) + 7 & ~3
    return slots


def _make_sizes(_key: None) -> List[int]:
    found: Dict[str, None] = {}
    sizes = [_DICT]
    for number in range(MAX_SIZES):
        found[str(number)] = None
        sizes.append(size_of(found))
    return sizes


_sizes = Memo(_make_sizes, 1)


def _size_of_dict(keys: int) -> int:
    times = 1
    while keys > MAX_SIZES:  # twice as many take twice as much
        keys, times = keys // 2, times * 2
    size: int = _sizes[None][keys]
    return size * times


# ------------------------------------------------------------------------------ tagged objects

#: Bytes that an object keeps besides those that it gives itself: for its parts, and its dict.
_FRACTION = 200 if KEEPS_FRACTIONS else 0
_RANGE, _UUID, _PATH, _PEER, _ARRAY, _MEMORYVIEW, _TIMEZONE, _LENT = \
    16, 44, 120, 400, 350, 80, 40, 40
#: Further bytes of a path with a drive.
_OF_WINDOWS = 100
_DATE, _DELTA = size_of(datetime.date(1, 1, 1)), size_of(datetime.timedelta())


def _weigh_shared(value: Any, content: Any) -> int:
    """Of a container of which there is one object that is empty."""
    return _own_size_of(value) + _COLLECTED if value else 0


def _weigh_container(value: Any, content: Any) -> int:
    return _own_size_of(value) + _COLLECTED


def _weigh_data(value: Any, content: Any) -> int:
    """Of bytes and texts, of which there is one object that is empty."""
    return (_own_size_of(value) if value else 0) - _size_of_data(content)


def _weigh_of_text(value: Any, content: Any) -> int:
    return _own_size_of(value) - _size_of_string(content)


def _weigh_datetime(value: Any, content: Any) -> int:
    if type(content) is str:
        return _own_size_of(value) - _size_of_string(content)
    numbers: int = (value.year >= 100) + (value.microsecond >= 100)
    return _own_size_of(value) - _NUMBER * numbers


def _weigh_timezone(value: Any, content: Any) -> int:
    size = 0 if value is datetime.timezone.utc else _own_size_of(value) + _TIMEZONE
    numbers: int = (content[1] >= 100) + (content[2] >= 100)  # there is less than a day
    return size - _NUMBER * numbers


def _weigh_array(value: Any, content: Any) -> int:
    size: int = value.nbytes
    return size + _own_size_of(value) + _ARRAY - _size_of_texts_in(content)


def _weigh_path(value: Any, content: Any) -> int:
    return _own_size_of(value) + _COLLECTED + _PATH - _size_of_texts_in(content) \
        + (_OF_WINDOWS if "windows" in content[0] else 0)


def _weigh_registered(value: Any, content: Any) -> int:
    if issubclass(type(value), enum.Enum):
        return -_size_of_texts_in((content["class"], content.get("name", "")))
    return _weigh_instance(value, len(content)) - _size_of_string(content["class"])


#: Name of a tagged object -> bytes that it takes, less those of the texts and numbers that it was
#: made of: a function of the value, and of its content as it came, with everything inside already
#: put together. See :func:`weight_of` for others.
WEIGHTS: Dict[str, Callable[[Any, Any], int]] = {
    "!tuple": _weigh_shared, "!frozenset": _weigh_shared,
    **dict.fromkeys(("!set", "!deque", "!ordered", "!counter", "!dict"), _weigh_container),
    "!bytes": _weigh_data, "!str": _weigh_data,
    "!bytearray": lambda value, content: _own_size_of(value) - _size_of_data(content),
    "!value": _weigh_registered,
    "!columns": lambda value, content: 0,  # they were weighed before they were made
    # It is made of arrays and buffers, which were weighed.
    "!library": lambda value, content: -_size_of_texts_in(content[:2]),
    "!datetime": _weigh_datetime,
    "!date": lambda value, content: _DATE - (_NUMBER if value.year >= 100 else 0),
    "!time": lambda value, content:
        _own_size_of(value) - (_NUMBER if value.microsecond >= 100 else 0),
    "!timedelta": lambda value, content: _DELTA - _size_of_numbers(content),
    "!timezone": _weigh_timezone,
    "!zone": lambda value, content: -_size_of_string(content),
    "!decimal": _weigh_of_text, "!int": _weigh_of_text,
    "!uuid": lambda value, content: _weigh_of_text(value, content) + _UUID,
    "!fraction": lambda value, content:
        _own_size_of(value) + _COLLECTED + _FRACTION,
    "!range": lambda value, content: _own_size_of(value) + _RANGE,
    "!complex": lambda value, content: _own_size_of(value) - 2 * _NUMBER,
    "!peer": lambda value, content: _own_size_of(value) + _PEER - _size_of_texts_in(content),
    "!path": _weigh_path,
    "!array": _weigh_array,
    "!scalar": lambda value, content: _own_size_of(value) - _size_of_texts_in(content),
    "!memoryview": lambda value, content:
        size_of(value) + _MEMORYVIEW + value.nbytes - _size_of_data(content),
    "!lent": lambda value, content: size_of(value) + _LENT,
}


def weight_of(name: str) -> Callable[[Any, Any], int]:
    """The function that weighs a tagged object of this name: by its own size, if nothing else is
    known of it."""
    return WEIGHTS.get(name, lambda value, content: size_of(value))


def weigh_group(form: str, one: Any, columns: Sequence[List[Any]]) -> int:
    """Bytes that values take which are made of columns.

    :param form: its name in columns.py.
    :param one: one of the values, all of which take the same.
    """
    if form == "any":
        return 0
    return len(columns[0]) * (
        _weigh_instance(one, len(columns)) if form == "value" else size_of(one))


def weigh_columns(form: str, columns: Sequence[List[Any]]) -> int:
    """Bytes of lists and texts that are no longer needed once values have been made of them."""
    texts = sum(map(_size_of_string, columns[0])) if form == "datetime" else 0
    return texts + sum(map(size_of, columns))


def _size_of_data(content: Any) -> int:
    """Bytes that were counted for what stood for data: a text, or the number of a buffer."""
    return _size_of_string(content) if type(content) is str else _NUMBER * _is_object(content)


def _size_of_numbers(numbers: Sequence[int]) -> int:
    """Bytes that were counted for numbers that do not stay."""
    size = 0
    for number in numbers:
        if not -6 < number < 100:
            size += _NUMBER
    return size


def _size_of_texts_in(content: Sequence[Any]) -> int:
    """Bytes that were counted for texts that do not stay. In a description of numpy data, arrays.py
    counts what is not a text."""
    size = 0
    for part in content:
        if type(part) is str and len(part) > 1:
            size += _own_size_of(part)
    return size


def size_of_parts(parts: List[Any]) -> int:
    """Bytes of a list, and of the lists, texts and numbers in it."""
    return size_of(parts) + sum([
        size_of_parts(part) if type(part) is list else
        _size_of_string(part) if type(part) is str else
        _NUMBER * _is_object(part) for part in parts])


def _weigh_instance(value: Any, parts: int) -> int:
    if sys.implementation.name != "cpython":
        return 64 + _INSTANCE + _SLOT * parts
    # As sys.getsizeof does, without an application's __sizeof__.
    if issubclass(type(value), tuple):
        return tuple.__sizeof__(value) + _COLLECTED
    size = object.__sizeof__(value) + _COLLECTED
    if type(value).__dictoffset__:
        size += _INSTANCE + _SLOT * parts
    return size


def _size_of_string(text: str) -> int:
    return _own_size_of(text) if len(text) > 1 else 0


def _is_object(number: Any) -> bool:
    """Whether a number was counted, as an object of its own."""
    return type(number) is float or type(number) is int and not -6 < number < 100
