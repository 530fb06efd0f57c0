"""Does with a value what an application may do with any that it was given."""
from __future__ import annotations

import collections
import copy
import datetime
import decimal
import fractions
import pickle
import sys
import traceback
from typing import Any, Callable, Dict, List

# Values within one that are used.
MANY = 25
# Digits and bytes from which on what Python does with a value takes its time.
LARGE = 10_000

_DAY = datetime.timedelta(1)

_EVERY: List[Callable[[Any], Any]] = [
    repr, str, hash, bool, copy.copy, copy.deepcopy, lambda one: one == one,
    lambda one: one in (one, 1), lambda one: pickle.loads(pickle.dumps(one)),
    lambda one: f"{one}", sys.getsizeof]
_CLOCK: List[Callable[[Any], Any]] = [
    lambda one: one.isoformat(), lambda one: one.utcoffset(), lambda one: one.tzname(),
    lambda one: one.dst(), lambda one: one.replace(fold=1 - one.fold),
    lambda one: one.strftime("%H:%M:%S.%f %z %Z"), lambda one: one < one]
_CALENDAR: List[Callable[[Any], Any]] = [
    lambda one: one.ctime(), lambda one: one.isoformat(), lambda one: one.isocalendar(),
    lambda one: one.timetuple(), lambda one: one.weekday(), lambda one: one.toordinal(),
    lambda one: one.strftime("%a %d %b %Y %j %U"), lambda one: one + _DAY, lambda one: one - _DAY,
    lambda one: one - one, lambda one: one.replace(day=1), lambda one: one < one]
_NUMBER: List[Callable[[Any], Any]] = [
    lambda one: one + 1, lambda one: one * one, lambda one: one - one, lambda one: -one, abs,
    lambda one: one / 3, float]
_SERIES: List[Callable[[Any], Any]] = [
    len, lambda one: list(one)[:3], lambda one: 1 in one, lambda one: one + one]

_USES: Dict[type, List[Callable[[Any], Any]]] = {
    datetime.date: _CALENDAR,
    datetime.datetime: [*_CALENDAR, *_CLOCK, lambda one: one.timestamp(),
                        lambda one: one.utctimetuple(), lambda one: one.astimezone(),
                        lambda one: one.astimezone(datetime.timezone.utc)],
    datetime.time: _CLOCK,
    datetime.timedelta: [*_NUMBER, lambda one: one.total_seconds(), lambda one: one // _DAY],
    datetime.timezone: [lambda one: one.utcoffset(None), lambda one: one.tzname(None),
                        lambda one: one.fromutc(datetime.datetime(2020, 1, 1, tzinfo=one))],
    complex: _NUMBER, float: _NUMBER, int: [*_NUMBER, lambda one: one % 7],
    decimal.Decimal: [*_NUMBER, lambda one: one.as_tuple(), lambda one: one.sqrt()],
    fractions.Fraction: [*_NUMBER, int, round],
    range: [len, lambda one: one[0], lambda one: one[-1], lambda one: 5 in one,
            lambda one: one[::-2], lambda one: one.count(5)],
    list: _SERIES, tuple: _SERIES, collections.deque: _SERIES,
    bytes: [*_SERIES, lambda one: one.hex()], bytearray: [*_SERIES, lambda one: one.extend(b"x")],
    memoryview: [lambda one: one.tobytes(), lambda one: one[:1], lambda one: one.hex()],
    str: [lambda one: one.encode("utf-8", "surrogatepass"), lambda one: one.upper(), ascii],
    set: [lambda one: one | {1}, lambda one: one & one, lambda one: sorted(one)],
    frozenset: [lambda one: one | {1}, lambda one: {one: 1}],
    dict: [lambda one: {**one}, lambda one: list(one.items()), lambda one: one.get("x")],
    collections.OrderedDict: [lambda one: list(reversed(one)),
                              lambda one: one.move_to_end(next(iter(one)))],
    collections.Counter: [lambda one: one.most_common(2), lambda one: one + one],
}
_OF_ARRAYS: List[Callable[[Any], Any]] = [
    lambda one: one.tolist(), lambda one: one + one, lambda one: one.sum(), lambda one: one.shape,
    lambda one: one.tobytes(), lambda one: one == one, lambda one: one.astype("U"),
    lambda one: one.copy(), lambda one: one.flat[0], lambda one: one[()]]


def use(root: Any) -> None:
    """Do with a value, and with what is in it, what people do. That may raise; it must not crash,
    nor take long."""
    left, used = [root], 0
    while left and used < MANY:
        value = left.pop()
        used += 1
        if _is_large(value):
            continue
        for do in [*_EVERY, *_USES.get(type(value), ()),
                   *(_OF_ARRAYS if type(value).__module__ == "numpy" else ())]:
            try:
                do(value)
            except Exception:
                pass  # such as no hash, no order, no day before the first
        left.extend(_inside(value))
    if isinstance(root, BaseException):
        _show(root)


def _is_large(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() > LARGE
    if isinstance(value, decimal.Decimal):
        return len(value.as_tuple().digits) + abs(value.adjusted()) > LARGE
    if isinstance(value, fractions.Fraction):
        return value.numerator.bit_length() + value.denominator.bit_length() > LARGE
    return isinstance(value, range) and max(map(
        int.bit_length, (value.start, value.stop, value.step))) > LARGE


def _inside(value: Any) -> List[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()][:MANY]
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return list(value)[:MANY]
    if isinstance(value, BaseException):
        return [*value.args, value.__cause__, value.__context__, *vars(value).values()][:MANY]
    return list(getattr(value, "__dict__", {}).values())[:MANY]


def _show(error: BaseException) -> None:
    """An error is shown, and nothing of that may fail."""
    "".join(traceback.format_exception(type(error), error, error.__traceback__))
    str(error), repr(error), copy.copy(error)
