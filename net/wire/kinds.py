"""The classes that JSON would alter or refuse, and how each travels as a tagged object.

One entry of :data:`KINDS` is one class: its name on the wire, how a value is taken apart into JSON
values, and how it is put together again. To let another class travel, add an entry.
"""
from __future__ import annotations

import collections
import datetime
import itertools
import os
import re
import sys
from typing import (TYPE_CHECKING, Any, Callable, Counter, Deque, Dict, Iterable,
                    NamedTuple, Optional, Set, Tuple, Union)

from ..errors import InvalidPeer, ValueNotSupported
from ..identity import PeerId, make_id, without_zone
from . import arrays, columns, libraries, registered, zones
from .checks import Malformed, a_list, a_text, a_whole, an_object, wholes
from .memo import Memo

if TYPE_CHECKING:
    # Few programs send such values: their modules are loaded with the first.
    import decimal
    import fractions
    import pathlib
    import uuid


class Kind(NamedTuple):
    """How values of one class travel.

    ``take_apart(packer, value, depth)`` gives JSON values; ``put_together(restorer, content)``
    takes them, with everything inside already put together. It checks each part (checks.py) and
    makes the value by its validating constructor: a ValueError or the like of that means that the
    content makes no sense.

    :ivar cls: the class, or ``module.Name`` of one whose module is loaded where it is used.
    """

    cls: Union[type, str]
    name: str
    take_apart: Callable[[Any, Any, int], Any]
    put_together: Callable[[Any, Any], Any]


def _pairs(restorer: Any, content: Any) -> Iterable[Tuple[Any, Any]]:
    """Pairs of key and value, of a list in which they alternate."""
    if len(a_list(content)) % 2:
        raise Malformed("not pairs")
    return zip(restorer.keys(content[::2]), content[1::2])


def _memoryview(packer: Any, value: memoryview, depth: int) -> Any:
    if value.format != "B" or value.ndim != 1:
        raise ValueNotSupported("", "a memoryview of anything but bytes cannot travel")
    return packer.bytes(value.tobytes())


def _zone(packer: Any, value: Any, depth: int) -> Any:
    return None if value is None else packer.tag(value, depth)


def _put_zone(content: Any) -> Optional[datetime.tzinfo]:
    if content is not None and not isinstance(content, datetime.tzinfo):
        raise Malformed("not a time zone")
    return content


def _take_datetime(packer: Any, value: datetime.datetime, depth: int) -> Any:
    zone = value.tzinfo
    if zone is None and not value.fold:
        return value.isoformat()
    return [value.year, value.month, value.day, value.hour, value.minute, value.second,
            value.microsecond, value.fold, _zone(packer, zone, depth)]


def _put_datetime(restorer: Any, content: Any) -> datetime.datetime:
    if type(content) is str:
        value = datetime.datetime.fromisoformat(content) if len(content) in columns.TIMES \
            else None
        if value is None or value.tzinfo is not None:
            raise Malformed("not a date and time without a zone")
        return value
    a_list(content, 9, 9)
    # Checked, because bytes as the first argument would be taken for the state of a pickled one.
    year, month, day, hour, minute, second, microsecond, fold = wholes(content[:8])
    return datetime.datetime(year, month, day, hour, minute, second, microsecond,
                             _put_zone(content[8]), fold=fold)


def _put_date(restorer: Any, content: Any) -> datetime.date:
    # Checked, because bytes would be taken for the state of a pickled one.
    return datetime.date(*wholes(content, 3, 3))


def _take_time(packer: Any, value: datetime.time, depth: int) -> Any:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold,
            _zone(packer, value.tzinfo, depth)]


def _put_time(restorer: Any, content: Any) -> datetime.time:
    a_list(content, 6, 6)
    hour, minute, second, microsecond, fold = wholes(content[:5])
    return datetime.time(hour, minute, second, microsecond, _put_zone(content[5]), fold=fold)


def _put_timedelta(restorer: Any, content: Any) -> datetime.timedelta:
    return datetime.timedelta(*wholes(content, 3, 3))


def _take_timezone(packer: Any, value: datetime.timezone, depth: int) -> Any:
    offset = value.utcoffset(None)
    name = value.tzname(None)
    named = [] if name == datetime.timezone(offset).tzname(None) else [name]
    return [offset.days, offset.seconds, offset.microseconds, *named]


def _put_timezone(restorer: Any, content: Any) -> datetime.timezone:
    offset = datetime.timedelta(*wholes(a_list(content, 3, 4)[:3]))
    if len(content) == 4:
        return datetime.timezone(offset, a_text(content[3]))
    return datetime.timezone(offset) if offset else datetime.timezone.utc


def _take_range(packer: Any, value: range, depth: int) -> Any:
    # int(): range(True, 5) keeps its True.
    start, stop, step = int(value.start), int(value.stop), int(value.step)
    packer.division(stop - start, step)
    return [packer.tag(end, depth) for end in (start, stop, step)]


def _put_range(restorer: Any, content: Any) -> range:
    start, stop, step = wholes(content, 3, 3)
    restorer.division(stop - start, step)
    return range(start, stop, step)


def _put_complex(restorer: Any, content: Any) -> complex:
    real, imaginary = a_list(content, 2, 2)
    if type(real) is not float or type(imaginary) is not float:
        raise Malformed("not two floating-point numbers")
    return complex(real, imaginary)


def _put_deque(restorer: Any, content: Any) -> Deque[Any]:
    most, *items = a_list(content, 1)
    if most is not None and a_whole(most) < len(items):
        raise Malformed("a deque with more than it may hold")
    return collections.deque(items, most)


def _put_counter(restorer: Any, content: Any) -> Counter[Any]:
    # Not by its constructor, which would count, in Python.
    counter = collections.Counter.__new__(collections.Counter)
    dict.update(counter, _pairs(restorer, content))
    return counter


_is_decimal = re.compile(
    r"[-+]?(Infinity|s?NaN[0-9]*|([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?)\Z").match
_is_uuid = re.compile(r"[0-9a-f]{32}\Z").match
_is_hexadecimal = re.compile(r"-?0x[0-9a-f]+\Z").match


def _make_strict(_key: None) -> decimal.Context:
    import decimal

    # So that the application's context makes no difference.
    return decimal.Context(traps=[decimal.InvalidOperation])


_strict = Memo(_make_strict, 1)


def _put_decimal(restorer: Any, content: Any) -> decimal.Decimal:
    import decimal

    # Checked, because the application's context may let a text without sense become not-a-number.
    if not _is_decimal(a_text(content)):
        raise Malformed("not a decimal number")
    try:
        return decimal.Decimal(content, _strict[None])
    except decimal.InvalidOperation:
        raise Malformed("a decimal number beyond what there is") from None


def _take_fraction(packer: Any, value: fractions.Fraction, depth: int) -> Any:
    packer.division(value.numerator, value.denominator)
    return [packer.tag(value.numerator, depth), packer.tag(value.denominator, depth)]


def _put_fraction(restorer: Any, content: Any) -> fractions.Fraction:
    import fractions

    numerator, denominator = wholes(content, 2, 2)
    if denominator < 1:
        raise Malformed("not a fraction")
    restorer.division(numerator, denominator)
    restorer.fraction(numerator, denominator)
    return fractions.Fraction(numerator, denominator)


def _put_uuid(restorer: Any, content: Any) -> uuid.UUID:
    import uuid

    if not _is_uuid(a_text(content)):
        raise Malformed("not a UUID")
    return uuid.UUID(int=int(content, 16))


def _put_int(restorer: Any, content: Any) -> int:
    if not _is_hexadecimal(a_text(content)):
        raise Malformed("not a hexadecimal number")
    return int(content, 16)


def _take_peer(packer: Any, value: PeerId, depth: int) -> Any:
    host = without_zone(value.host)
    told = value if host == value.host else make_id(value.port, host, value.group)
    text = told.decode("ascii")
    return [text, packer.tag(value.info, depth)] if value.info else [text]


def _put_peer(restorer: Any, content: Any) -> PeerId:
    encoded, *info = a_list(content, 1, 2)
    try:
        return PeerId(a_text(encoded).encode("ascii"), *map(an_object, info))
    except InvalidPeer:
        raise Malformed("not a peer id") from None


KINDS: Tuple[Kind, ...] = (
    Kind(tuple, "!tuple", lambda packer, value, depth: packer.series(value, depth),
         lambda restorer, content: tuple(a_list(content))),
    Kind(set, "!set", lambda packer, value, depth: packer.series(list(value), depth),
         lambda restorer, content: set(restorer.keys(a_list(content)))),
    Kind(frozenset, "!frozenset", lambda packer, value, depth: packer.series(list(value), depth),
         lambda restorer, content: frozenset(restorer.keys(a_list(content)))),
    Kind(collections.deque, "!deque",
         lambda packer, value, depth: [value.maxlen, *packer.items(list(value), depth)],
         _put_deque),
    Kind(collections.OrderedDict, "!ordered",
         lambda packer, value, depth: packer.pairs(value, depth),
         lambda restorer, content: collections.OrderedDict(_pairs(restorer, content))),
    Kind(collections.Counter, "!counter",
         lambda packer, value, depth: packer.pairs(value, depth),
         _put_counter),
    Kind(range, "!range", _take_range, _put_range),
    Kind(complex, "!complex", lambda packer, value, depth: [value.real, value.imag], _put_complex),
    Kind(bytes, "!bytes", lambda packer, value, depth: packer.bytes(value),
         lambda restorer, content: restorer.bytes(content)),
    Kind(bytearray, "!bytearray", lambda packer, value, depth: packer.bytes(value),
         lambda restorer, content: bytearray(restorer.bytes(content))),
    Kind(memoryview, "!memoryview", _memoryview,
         lambda restorer, content: memoryview(restorer.bytes(content))),
    Kind(datetime.datetime, "!datetime", _take_datetime, _put_datetime),
    Kind(datetime.date, "!date", lambda packer, value, depth: [value.year, value.month, value.day],
         _put_date),
    Kind(datetime.time, "!time", _take_time, _put_time),
    Kind(datetime.timedelta, "!timedelta",
         lambda packer, value, depth: [value.days, value.seconds, value.microseconds],
         _put_timedelta),
    Kind(datetime.timezone, "!timezone", _take_timezone, _put_timezone),
    Kind("decimal.Decimal", "!decimal", lambda packer, value, depth: str(value), _put_decimal),
    Kind("fractions.Fraction", "!fraction", _take_fraction, _put_fraction),
    Kind("uuid.UUID", "!uuid", lambda packer, value, depth: value.hex, _put_uuid),
    Kind(PeerId, "!peer", _take_peer, _put_peer),
)

#: Class -> how its values travel; and those that are found when the first of them is sent.
TAKE_APART: Dict[type, Kind] = {kind.cls: kind for kind in KINDS if isinstance(kind.cls, type)}
_LATER = {kind.cls.partition(".")[2]: kind for kind in KINDS if isinstance(kind.cls, str)}

_SERIES: Set[type] = {list, tuple, set, frozenset, collections.deque}
_MAPPINGS = frozenset({dict, collections.OrderedDict, collections.Counter})


def let_travel_as_tuple(cls: type) -> None:
    """Let values of a subclass of tuple travel, and arrive as plain tuples. For the floors
    above."""
    TAKE_APART[cls] = TAKE_APART[tuple]
    _SERIES.add(cls)


def look_inside(value: Any) -> Any:
    """The values that a container holds, keys included; None for what is no container."""
    cls = type(value)
    if cls in _SERIES:
        return value
    if cls in _MAPPINGS:
        return itertools.chain(value, value.values())
    if cls in registered.registry.names and cls not in registered.registry.packed:
        return registered.take_apart(value).values()
    return None


#: The classes of paths by their names on the wire.
PATHS = {"posix": "PosixPath", "windows": "WindowsPath",
         "pure posix": "PurePosixPath", "pure windows": "PureWindowsPath"}
_PATH_NAMES = {cls: name for name, cls in PATHS.items()}
# Paths of the other family have no file system here.
_FOREIGN = "windows" if os.name == "posix" else "posix"


def take_apart_rare(packer: Any, value: Any, depth: int) -> Dict[str, Any]:
    """The tagged object of a value whose class is known only at run time.

    :raises ValueNotSupported: it cannot travel.
    """
    cls = type(value)
    kind = _LATER.get(cls.__name__)
    if kind is not None and _is_in(str(kind.cls).partition(".")[0], cls):
        TAKE_APART[cls] = kind
        return {kind.name: kind.take_apart(packer, value, depth)}
    if cls in registered.registry.names:
        parts = registered.take_apart(value)
        if not registered.is_enum(cls):
            parts = packer.parts(parts, depth)
        return {"!value": {"class": registered.registry.names[cls], **parts}}
    if cls.__name__ in _PATH_NAMES and _is_in("pathlib", cls):
        return {"!path": [_PATH_NAMES[cls.__name__], str(value)]}
    if arrays.loaded() is not None and cls is arrays.loaded().ndarray:
        described, data = arrays.take_apart_array(value)
        return {"!array": [*described, packer.bytes(data)]}
    if arrays.loaded() is not None and arrays.is_scalar(value):
        described, data = arrays.take_apart_scalar(value)
        return {"!scalar": [described, packer.bytes(data)]}
    if cls.__name__ == "ZoneInfo" and _is_in("zoneinfo", cls) and value.key:
        return {"!zone": value.key}
    library = libraries.find(value)
    if library is not None:
        content = packer.items(libraries.take_apart(library, value), depth)
        return {"!library": [library.module, library.name, content]}
    lent = packer.lend(value)
    if lent is not None:
        return {"!lent": lent}
    raise ValueNotSupported("", _why_not(cls))


def _is_in(module: str, cls: type) -> bool:
    """Whether a class is the one that a module has under its name; not if that is not loaded."""
    return cls is getattr(sys.modules.get(module), cls.__name__, None)


def _why_not(cls: type) -> str:
    name = cls.__qualname__ if cls.__module__ == "builtins" else \
        f"{cls.__module__}.{cls.__qualname__}"
    if hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__members__") \
            or hasattr(cls, "_fields"):
        return f"{name} cannot travel until it is registered with @net.value on both sides"
    if hasattr(cls, "__attrs_attrs__") or hasattr(cls, "__pydantic_fields__"):
        return f"{name} cannot travel until it is registered with @net.value on both sides"
    for base in (dict, list, tuple, str, int, float, bytes):
        if issubclass(cls, base):
            return f"{name} cannot travel; a plain {base.__name__} can"
    return f"{name} cannot travel"


def _put_value(restorer: Any, content: Any) -> Any:
    return registered.put_together(an_object(content), restorer.combinations)


def _put_path(restorer: Any, content: Any) -> pathlib.PurePath:
    name, text = a_list(content, 2, 2)
    made: pathlib.PurePath = _path_classes[a_text(name)](a_text(text))
    return made


def _find_path_class(name: str) -> type:
    if name not in PATHS:
        raise Malformed("not a kind of path")
    import pathlib

    found: type = getattr(pathlib, PATHS["pure " + name if name == _FOREIGN else name])
    return found


_path_classes = Memo(_find_path_class, len(PATHS))


def _put_array(restorer: Any, content: Any) -> Any:
    described, shape, order, data = a_list(content, 4, 4)
    return arrays.put_together_array(restorer.types, described, shape, order, restorer.bytes(data))


def _put_scalar(restorer: Any, content: Any) -> Any:
    described, data = a_list(content, 2, 2)
    return arrays.put_together_scalar(restorer.types, described, restorer.bytes(data))


def _put_library(restorer: Any, content: Any) -> Any:
    return libraries.put_together(restorer, *a_list(content, 3, 3))


PUT_TOGETHER: Dict[str, Callable[[Any, Any], Any]] = {
    **{kind.name: kind.put_together for kind in KINDS},
    "!dict": lambda restorer, content: dict(_pairs(restorer, content)),
    "!int": _put_int,
    "!str": lambda restorer, content: restorer.bytes(content).decode("utf-8", "surrogatepass"),
    "!value": _put_value,
    "!columns": columns.put_together,
    "!path": _put_path,
    "!array": _put_array,
    "!scalar": _put_scalar,
    "!library": _put_library,
    "!zone": lambda restorer, content: zones.named(a_text(content)),
    "!lent": lambda restorer, content: restorer.lent(content),
}
