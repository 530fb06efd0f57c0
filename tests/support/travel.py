"""Values on their way: strategies for all that travels, and a comparison that nothing escapes."""
from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import struct
from typing import Any, Callable, Sequence

from hypothesis import strategies as st

import net
from net.settings import settings
from net.wire import messages
from net.wire.frames import Frame, FrameParser, KNOWN
from net.wire.limits import Limits


def read_frame(data: bytes) -> Frame:
    """The single frame that bytes are."""
    parser = FrameParser(Limits(buffers=2 ** 40), KNOWN)
    frame = parser.receive(data)
    assert frame is not None and not parser.held
    return frame


def read_call(frame: Frame, limits: Limits = Limits()) -> messages.Call:
    """The call of a frame, as a server reads it."""
    return messages.Call(messages.tag_of(frame.text), *messages.decode_call(frame, limits))


def joined(message: Sequence[Any]) -> bytes:
    """What a message looks like on the wire."""
    return b"".join(message)


def as_result(value: Any) -> Any:
    """A value after its way as the result of a call."""
    frame = read_frame(joined(messages.encode_result(1, value, settings.limits)))
    return messages.decode_reply(frame, ("127.0.0.1", 1), "127.0.0.1:1", b"dGFn",
                                 settings.limits)


def as_arguments(*args: Any, **kwargs: Any) -> tuple[list, dict]:
    """Arguments after their way in a call."""
    message = messages.encode_call(1, b"dGFn", args, kwargs, settings.limits)
    call = read_call(read_frame(joined(message)), settings.limits)
    assert call.tag == b"dGFn"
    return call.args, call.kwargs


def raised(error: BaseException, detail: str = "full") -> net.NetError:
    """What a caller gets when a function raises this."""
    def function() -> None:
        raise error

    try:
        function()
    except BaseException as caught:
        message = messages.encode_failure(1, caught, detail, settings.limits)
    try:
        messages.decode_reply(read_frame(joined(message)), ("127.0.0.1", 1), "127.0.0.1:1",
                              b"dGFn")
    except net.NetError as arrived:
        return arrived
    raise AssertionError("nothing was raised")


# --------------------------------------------------------------------------- what is the same


def difference(one: Any, other: Any, path: str = "it") -> str:
    """Where two values differ in type or content at any depth, and how; empty if they do not."""
    if type(one) is not type(other):
        return f"{path}: {type(one)} and {type(other)}"
    compare = _COMPARE.get(type(one), _compare_others)
    return compare(one, other, path)


def assert_same(one: Any, other: Any) -> None:
    """Fail unless two values are the same in type and content at every depth."""
    found = difference(one, other)
    assert not found, found


def _equal(key: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, Any, str], str]:
    def compare(one: Any, other: Any, path: str) -> str:
        return "" if key(one) == key(other) else f"{path}: {one!r:.80} and {other!r:.80}"
    return compare


def _float_bits(number: float) -> bytes:
    # All not-a-numbers are one: JSON has one name for them.
    return b"nan" if math.isnan(number) else struct.pack("!d", number)


def _compare_items(one: Any, other: Any, path: str) -> str:
    if len(one) != len(other):
        return f"{path}: {len(one)} and {len(other)} items"
    found = (difference(*pair, f"{path}[{index}]") for index, pair in enumerate(zip(one, other)))
    return next(filter(None, found), "")


def _compare_deques(one: Any, other: Any, path: str) -> str:
    return f"{path}: maxlen" if one.maxlen != other.maxlen else _compare_items(one, other, path)


def _compare_dicts(one: Any, other: Any, path: str) -> str:
    return _compare_items(list(one), list(other), f"{path} keys") or \
        _compare_items(list(one.values()), list(other.values()), f"{path} values")


def _compare_sets(one: Any, other: Any, path: str) -> str:
    left = list(other)
    for value in one:
        match = next((index for index, candidate in enumerate(left)
                      if not difference(value, candidate)), None)
        if match is None:
            return f"{path}: {value!r:.80} is missing"
        left.pop(match)
    return f"{path}: {left!r:.80} too many" if left else ""


def _zone(zone: Any) -> Any:
    if zone is None:
        return None
    if isinstance(zone, datetime.timezone):
        return type(zone), zone.utcoffset(None), zone.tzname(None)
    return type(zone), zone.key


def _compare_others(one: Any, other: Any, path: str) -> str:
    if isinstance(one, enum.Enum):
        return "" if one is other else f"{path}: {one!r} and {other!r}"
    if dataclasses.is_dataclass(one):
        parts = [[getattr(value, field.name) for field in dataclasses.fields(one)]
                 for value in (one, other)]
        return _compare_items(*parts, path)
    if isinstance(one, tuple):
        return _compare_items(one, other, path)
    if hasattr(one, "dtype"):
        return _compare_arrays(one, other, path)
    if isinstance(one, datetime.tzinfo):
        return _equal(_zone)(one, other, path)
    return _equal()(one, other, path)


def _compare_arrays(one: Any, other: Any, path: str) -> str:
    for what in ("dtype", "shape"):
        if repr(getattr(one, what)) != repr(getattr(other, what)):
            return f"{path}: {what} {getattr(one, what)!r} and {getattr(other, what)!r}"
    if not hasattr(one, "flags") or one.tobytes() != other.tobytes():
        return f"{path}: {one!r} and {other!r}"
    contiguous = [(array.flags.c_contiguous, array.flags.f_contiguous) for array in (one, other)]
    if all(map(any, contiguous)) and contiguous[0] != contiguous[1]:
        return f"{path}: order"
    return ""


_COMPARE: dict[type, Callable[[Any, Any, str], str]] = {
    float: _equal(_float_bits),
    complex: _equal(lambda number: (_float_bits(number.real), _float_bits(number.imag))),
    list: _compare_items,
    tuple: _compare_items,
    collections.deque: _compare_deques,
    dict: _compare_dicts,
    collections.OrderedDict: _compare_dicts,
    collections.Counter: _compare_dicts,
    set: _compare_sets,
    frozenset: _compare_sets,
    memoryview: _equal(lambda view: (view.tobytes(), view.format, view.shape)),
    decimal.Decimal: _equal(lambda number: number.as_tuple()),
    range: _equal(lambda value: (value.start, value.stop, value.step)),
    datetime.datetime: _equal(lambda value: (value.replace(tzinfo=None), value.fold,
                                             _zone(value.tzinfo))),
    datetime.time: _equal(lambda value: (value.replace(tzinfo=None), value.fold,
                                         _zone(value.tzinfo))),
    net.PeerId: _equal(lambda value: (bytes(value), value.info)),
}


# ------------------------------------------------------------------------- all that travels


@net.value
@dataclasses.dataclass
class Point:
    """A class of an application."""

    x: Any
    y: Any = None


@net.value
@dataclasses.dataclass(frozen=True)
class Frozen:
    """A class whose objects can be keys of a dict."""

    name: Any


@net.value
class Color(enum.Enum):
    """An enum whose values could not travel themselves."""

    RED = object()
    BLUE = object()


@net.value
class Access(enum.Flag):
    """A flag, whose combinations have no name."""

    READ = 1
    WRITE = 2
    RUN = 4


@net.value
class Level(enum.IntEnum):
    """An enum whose members are ints, too."""

    LOW = 1
    HIGH = 2


Pair = net.value(collections.namedtuple("Pair", "left right"))

# Every code point, surrogates too, which st.text() leaves out.
short_text = st.text(max_size=50) | st.lists(st.integers(0, 0x10ffff).map(chr),
                                             max_size=8).map("".join) \
    | st.sampled_from(["\ud83d\ude00", "\ud800", "\0", "\u2028", '"\\', "!tuple"])
# Around the length at which buffers begin.
long = st.integers(4094, 4097)
any_text = short_text | long.map(lambda length: "x" * length) | \
    long.map(lambda length: "\ud800" * length)
# Short ones as base64, long ones as buffers.
any_bytes = st.binary(max_size=50) | long.map(bytes)
integers = st.integers() | st.builds(
    # Python does not print the longest ones, so they are not to be seen in a strategy.
    lambda exponent, less: 2 ** exponent - less,
    st.sampled_from([53, 63, 64, 2000, 2048, 14_000, 20_000]), st.integers(-1, 1))
zones = st.none() | st.just(datetime.timezone.utc) | st.builds(
    datetime.timezone, st.timedeltas(min_value=datetime.timedelta(hours=-23),
                                     max_value=datetime.timedelta(hours=23))) | st.builds(
    datetime.timezone, st.just(datetime.timedelta(hours=2)), st.text(max_size=5))
folds = st.integers(0, 1)
decimals = st.decimals() | st.sampled_from(
    [decimal.Decimal(text) for text in ("sNaN123", "-NaN", "-0", "0E+9", "1E-999999", "Infinity")])

hashable_scalars = st.one_of(
    st.none(), st.booleans(), integers, st.floats(), any_text, any_bytes, st.complex_numbers(),
    st.dates(), st.timedeltas(), st.uuids(), st.fractions(), decimals.filter(
        lambda number: not number.is_snan()),
    st.builds(lambda value, fold: value.replace(fold=fold), st.datetimes(timezones=zones), folds),
    st.builds(lambda value, fold: value.replace(fold=fold), st.times(timezones=zones), folds),
    st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
    zones, st.sampled_from(list(Color) + list(Access) + list(Level)),
    st.just(Access.READ | Access.RUN),
    st.sampled_from([pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\x"),
                     pathlib.Path("."), net.PeerId(b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==",
                                                   {"hub": True})]),
)
scalars = hashable_scalars | decimals | any_bytes.map(bytearray) | any_bytes.map(memoryview)


def _hashable_containers(inner: Any) -> Any:
    return st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | \
        st.builds(Pair, inner, inner) | st.builds(Frozen, inner)


keys = st.recursive(hashable_scalars, _hashable_containers, max_leaves=4)


def _containers(inner: Any) -> Any:
    lists = st.lists(inner, max_size=4)
    dicts = st.dictionaries(keys, inner, max_size=3)
    named = st.dictionaries(any_text, inner, max_size=3)
    like_tags = st.builds(lambda key, value: {key: value}, st.sampled_from(
        ["!tuple", "!dict", "!value", "!int", "!", "!unknown"]), inner)
    return st.one_of(
        lists, lists.map(tuple), dicts, named, like_tags, dicts.map(collections.OrderedDict),
        st.builds(collections.deque, lists, st.sampled_from([None, 3, 10])),
        st.dictionaries(keys, st.integers(), max_size=3).map(collections.Counter),
        st.sets(keys, max_size=3), st.frozensets(keys, max_size=3),
        st.builds(Point, inner, inner), st.builds(Pair, inner, inner), st.builds(
            lambda value: {"class": value}, inner))


#: All that travels, in all mixtures.
values = st.recursive(scalars, _containers, max_leaves=8)

#: What JSON keeps as it is.
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | short_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short_text, inner, max_size=4),
    max_leaves=12)
