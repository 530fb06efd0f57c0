"""The classes that JSON would bend or refuse, and how each travels as a tagged object.

One entry of :data:`KINDS` is one class: its name on the wire, how a value is taken apart into JSON
values, and how it is put together again. To let another class travel, add an entry.
"""
from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import itertools
import pathlib
import sys
import uuid
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..errors import ValueNotSupported
from ..identity import PeerId
from . import arrays, registered


class Kind(NamedTuple):
    """How values of one class travel.

    ``take_apart(packer, value, depth)`` gives JSON values; ``put_together(restorer, content)``
    takes them, with everything inside already put together, and may raise anything when they make
    no sense.
    """

    cls: type
    name: str
    take_apart: Callable[[Any, Any, int], Any]
    put_together: Callable[[Any, Any], Any]


def _items(content: Any) -> List[Any]:
    if type(content) is not list:
        raise ValueError("not a list")
    return content


def _whole(content: Any) -> List[int]:
    if set(map(type, _items(content))) != {int}:
        raise ValueError("not whole numbers")
    return content


def _text(content: Any) -> str:
    if type(content) is not str:
        raise ValueError("not text")
    return content


def pairs(content: Any) -> Any:
    """Key and value by turns, as :func:`zip` gives them."""
    if len(_items(content)) % 2:
        raise ValueError("not pairs")
    return zip(content[::2], content[1::2])


def _memoryview(packer: Any, value: memoryview, depth: int) -> Any:
    if value.format != "B" or value.ndim != 1:
        raise ValueNotSupported("", "a memoryview of anything but bytes cannot travel")
    return packer.bytes(value.tobytes())


def _zone(packer: Any, value: Any, depth: int) -> Any:
    return None if value is None else packer.tag(value, depth)


def _take_datetime(packer: Any, value: datetime.datetime, depth: int) -> Any:
    return [value.year, value.month, value.day, value.hour, value.minute, value.second,
            value.microsecond, value.fold, _zone(packer, value.tzinfo, depth)]


def _put_datetime(restorer: Any, content: Any) -> datetime.datetime:
    *parts, fold, zone = _items(content)
    return datetime.datetime(*parts, fold=fold, tzinfo=zone)


def _take_time(packer: Any, value: datetime.time, depth: int) -> Any:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold,
            _zone(packer, value.tzinfo, depth)]


def _put_time(restorer: Any, content: Any) -> datetime.time:
    *parts, fold, zone = _items(content)
    return datetime.time(*parts, fold=fold, tzinfo=zone)


def _take_timezone(packer: Any, value: datetime.timezone, depth: int) -> Any:
    offset = value.utcoffset(None)
    name = value.tzname(None)
    named = [] if name == datetime.timezone(offset).tzname(None) else [name]
    return [offset.days, offset.seconds, offset.microseconds, *named]


def _put_timezone(restorer: Any, content: Any) -> datetime.timezone:
    days, seconds, microseconds, *name = _items(content)
    offset = datetime.timedelta(days, seconds, microseconds)
    if not offset and not name:
        return datetime.timezone.utc
    return datetime.timezone(offset, *map(_text, name))


def _take_range(packer: Any, value: range, depth: int) -> Any:
    # int(): range(True, 5) keeps its True.
    return [packer.tag(int(end), depth) for end in (value.start, value.stop, value.step)]


def _put_complex(restorer: Any, content: Any) -> complex:
    real, imaginary = _items(content)
    return complex(real, imaginary)


def _put_fraction(restorer: Any, content: Any) -> fractions.Fraction:
    numerator, denominator = _whole(content)
    return fractions.Fraction(numerator, denominator)


def _take_peer(packer: Any, value: PeerId, depth: int) -> Any:
    text = value.decode("ascii")
    return [text, packer.tag(value.info, depth)] if value.info else [text]


def _put_peer(restorer: Any, content: Any) -> PeerId:
    encoded, *info = _items(content)
    if info and type(info[0]) is not dict:
        raise ValueError("not what is known of a peer")
    return PeerId(_text(encoded).encode("ascii"), *info)


KINDS: Tuple[Kind, ...] = (
    Kind(tuple, "!tuple", lambda packer, value, depth: packer.items(value, depth),
         lambda restorer, content: tuple(_items(content))),
    Kind(set, "!set", lambda packer, value, depth: packer.items(list(value), depth),
         lambda restorer, content: set(_items(content))),
    Kind(frozenset, "!frozenset", lambda packer, value, depth: packer.items(list(value), depth),
         lambda restorer, content: frozenset(_items(content))),
    Kind(collections.deque, "!deque",
         lambda packer, value, depth: [value.maxlen, *packer.items(list(value), depth)],
         lambda restorer, content: collections.deque(content[1:], _items(content)[0])),
    Kind(collections.OrderedDict, "!ordered",
         lambda packer, value, depth: packer.pairs(value, depth),
         lambda restorer, content: collections.OrderedDict(pairs(content))),
    Kind(collections.Counter, "!counter",
         lambda packer, value, depth: packer.pairs(value, depth),
         lambda restorer, content: collections.Counter(dict(pairs(content)))),
    Kind(range, "!range", _take_range, lambda restorer, content: range(*_whole(content))),
    Kind(complex, "!complex", lambda packer, value, depth: [value.real, value.imag], _put_complex),
    Kind(bytes, "!bytes", lambda packer, value, depth: packer.bytes(value),
         lambda restorer, content: restorer.bytes(content)),
    Kind(bytearray, "!bytearray", lambda packer, value, depth: packer.bytes(value),
         lambda restorer, content: bytearray(restorer.bytes(content))),
    Kind(memoryview, "!memoryview", _memoryview,
         lambda restorer, content: memoryview(restorer.bytes(content))),
    Kind(datetime.datetime, "!datetime", _take_datetime, _put_datetime),
    Kind(datetime.date, "!date", lambda packer, value, depth: [value.year, value.month, value.day],
         lambda restorer, content: datetime.date(*_items(content))),
    Kind(datetime.time, "!time", _take_time, _put_time),
    Kind(datetime.timedelta, "!timedelta",
         lambda packer, value, depth: [value.days, value.seconds, value.microseconds],
         lambda restorer, content: datetime.timedelta(*_whole(content))),
    Kind(datetime.timezone, "!timezone", _take_timezone, _put_timezone),
    Kind(decimal.Decimal, "!decimal", lambda packer, value, depth: str(value),
         lambda restorer, content: decimal.Decimal(_text(content))),
    Kind(fractions.Fraction, "!fraction",
         lambda packer, value, depth: [packer.tag(value.numerator, depth),
                                       packer.tag(value.denominator, depth)],
         _put_fraction),
    Kind(uuid.UUID, "!uuid", lambda packer, value, depth: value.hex,
         lambda restorer, content: uuid.UUID(hex=_text(content))),
    Kind(PeerId, "!peer", _take_peer, _put_peer),
)

TAKE_APART: Dict[type, Kind] = {kind.cls: kind for kind in KINDS}

_SERIES = {list, tuple, set, frozenset, collections.deque}
_MAPPINGS = frozenset({dict, collections.OrderedDict, collections.Counter})


def let_travel_as_tuple(cls: type) -> None:
    """Let values of a kind of tuple travel, and arrive as a plain one. For the floors above."""
    TAKE_APART[cls] = TAKE_APART[tuple]
    _SERIES.add(cls)


def look_inside(value: Any) -> Optional[Iterable[Any]]:
    """The values that a container holds, keys included; None for anything else."""
    cls = type(value)
    if cls in _SERIES:
        return value
    if cls in _MAPPINGS:
        return itertools.chain(value, value.values())
    if cls in registered.NAMES:
        return registered.take_apart(value).values()
    return None


PATHS: Dict[str, type] = {
    "posix": pathlib.PosixPath, "windows": pathlib.WindowsPath,
    "pure posix": pathlib.PurePosixPath, "pure windows": pathlib.PureWindowsPath,
}
_PATH_NAMES = {cls: name for name, cls in PATHS.items()}


def take_apart_rare(packer: Any, value: Any, depth: int) -> Dict[str, Any]:
    """The tagged object of a value whose class is known only at run time.

    :raises ValueNotSupported: it cannot travel.
    """
    cls = type(value)
    if cls in registered.NAMES:
        parts = registered.take_apart(value)
        if not registered.is_enum(cls):
            parts = packer.parts(parts, depth)
        return {"!value": {"class": registered.NAMES[cls], **parts}}
    if cls in _PATH_NAMES:
        return {"!path": [_PATH_NAMES[cls], str(value)]}
    if arrays.loaded() is not None:
        if cls is arrays.loaded().ndarray:
            described, data = arrays.take_apart_array(value)
            return {"!array": [*described, packer.bytes(data)]}
        if arrays.is_scalar(value):
            described, data = arrays.take_apart_scalar(value)
            return {"!scalar": [described, packer.bytes(data)]}
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is not None and cls is zoneinfo.ZoneInfo and value.key:
        return {"!zone": value.key}
    raise ValueNotSupported("", _why_not(cls))


def _why_not(cls: type) -> str:
    name = cls.__qualname__ if cls.__module__ == "builtins" else \
        f"{cls.__module__}.{cls.__qualname__}"
    if hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__members__") \
            or hasattr(cls, "_fields"):
        return f"{name} cannot travel until it is registered with @net.value on both sides"
    for base in (dict, list, tuple, str, int, float, bytes):
        if issubclass(cls, base):
            return f"{name} cannot travel; a plain {base.__name__} can"
    return f"{name} cannot travel"


def _put_value(restorer: Any, content: Dict[str, Any]) -> Any:
    return registered.put_together(_text(content.pop("class")), content)


def _put_path(restorer: Any, content: Any) -> pathlib.PurePath:
    name, text = _items(content)
    # A path of the other family has no file system here; it arrives as the pure one.
    foreign = name in ("posix", "windows") and not isinstance(pathlib.Path(), PATHS[name])
    return PATHS["pure " + name if foreign else name](_text(text))


def _put_array(restorer: Any, content: Any) -> Any:
    described, shape, order, data = _items(content)
    return arrays.put_together_array(described, shape, order, restorer.bytes(data))


def _put_scalar(restorer: Any, content: Any) -> Any:
    described, data = _items(content)
    return arrays.put_together_scalar(described, restorer.bytes(data))


def _put_zone(restorer: Any, content: Any) -> datetime.tzinfo:
    import zoneinfo  # 10 ms that only those need who send one
    return zoneinfo.ZoneInfo(_text(content))


PUT_TOGETHER: Dict[str, Callable[[Any, Any], Any]] = {
    **{kind.name: kind.put_together for kind in KINDS},
    "!dict": lambda restorer, content: dict(pairs(content)),
    "!int": lambda restorer, content: int(_text(content), 16),
    "!str": lambda restorer, content: restorer.bytes(content).decode("utf-8", "surrogatepass"),
    "!value": _put_value,
    "!path": _put_path,
    "!array": _put_array,
    "!scalar": _put_scalar,
    "!zone": _put_zone,
}
