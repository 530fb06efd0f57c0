"""The processor time that messages of strangers take to read."""
from __future__ import annotations

import contextlib
import sys
import time
from typing import Callable, Iterator, Tuple

import pytest

import travel  # noqa: F401  (the messages name its classes)
from net.errors import ProtocolError, ValueNotSupported
from net.wire.values import unpack

PRIME = 2 ** 61 - 1  # of two ints that differ by it, the hashes are equal
MIB = 2 ** 20


def filled(item: Callable[[int], str], around: str = "[{}]", size: int = MIB) -> bytes:
    """Items side by side, of a size together."""
    items = []
    while size > 0:
        items.append(item(len(items) + 1))
        size -= len(items[-1]) + 1
    return around.format(",".join(items)).encode()


def costly() -> Iterator[Tuple[str, Callable[[], bytes]]]:
    """What makes a MiB of the worst of each kind; most took between 3 and 38 seconds."""
    def many(item: Callable[[int], str], around: str = "[{}]") -> Callable[[], bytes]:
        return lambda: filled(item, around)

    keys = {"ints": str, "decimals": '{{"!decimal":"{}"}}'.format,
            "fractions": '{{"!fraction":[{},1]}}'.format, "tuples": '{{"!tuple":[{}]}}'.format,
            "uuids": '{{"!uuid":"{:032x}"}}'.format, "ranges": '{{"!range":[{0},{0},1]}}'.format,
            "dataclasses": '{{"!value":{{"class":"travel.Frozen","name":{}}}}}'.format,
            "complex": '{{"!complex":[{}.0,0.0]}}'.format}
    for name, form in keys.items():
        yield f"set of {name}", many(
            lambda number, form=form: form(number * PRIME), '{{"!set":[{}]}}')
    for tag in ("dict", "ordered", "counter"):
        yield tag, many(lambda number: f"{number * PRIME},1", f'{{{{"!{tag}":[{{}}]}}}}')
    for count in (16, 90, 500):
        yield f"sets of {count} fractions", many(lambda number, count=count: '{"!set":[' + ",".join(
            f'{{"!fraction":[{(number * count + one) * PRIME},1]}}' for one in range(count)) + "]}")
    yield "set of long tuples", many(
        lambda number: '{"!tuple":[' + "1," * 5000 + f"{number * PRIME}]}}", '{{"!set":[{}]}}')
    long = '{{"!int":"0x{}"}}'.format
    yield "fraction", lambda: (
        f'{{"!fraction":[{long("f1" * 250_000)},{long("e3" * 250_000)}]}}'.encode())
    yield "fractions", many(
        lambda number: f'{{"!fraction":[{long("f1" * 9000)},{long("e3" * 9000)}]}}')
    yield "range", lambda: (
        f'{{"!range":[0,{long("f1" * 330_000)},{long("e3" * 165_000)}]}}'.encode())
    if sys.implementation.name == "cpython":  # PyPy's own decimals take 6 s
        yield "decimal", lambda: b'{"!decimal":"' + b"7" * MIB + b'"}'
    yield "int", lambda: b"7" * MIB
    within = '[9,false,[["a",0,' * 60 + '"<i4"' + ",[]]]]" * 60
    yield "structures in structures", many(
        lambda number: f'{{"!array":[{within},[0],"C",""]}}')
    yield "what is lacking at the end", many(lambda number: "[]", '[{},{{"!zone":"Mars/Phobos"}}]')


def cost(text: bytes, tagged: bool = False) -> float:
    """Seconds that this thread computes for a message."""
    started = time.thread_time()
    with contextlib.suppress(ProtocolError, ValueNotSupported):
        unpack(text, tagged)
    return time.thread_time() - started


@pytest.fixture(scope="module")
def usual() -> float:
    """What a MiB of small tuples costs: about 0.1 s."""
    harmless = filled('{{"!tuple":[{}]}}'.format)
    return max(cost(harmless, True) for _ in range(3))


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in costly()])
def test_no_message_takes_much_time_for_its_size(make, usual):
    """The costliest were 40 to 500 times the usual; now it is 7 at most."""
    text = make()
    assert len(text) > 0.9 * MIB
    before = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else None
    if before is not None:
        sys.set_int_max_str_digits(0)  # as some applications do
    try:
        assert cost(text, True) < 20 * usual
        assert cost(text) < 20 * usual
    finally:
        if before is not None:
            sys.set_int_max_str_digits(before)
