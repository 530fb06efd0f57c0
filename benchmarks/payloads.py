"""The values that are sent, the same in every run, and how a reply is compared with them."""
from __future__ import annotations

import dataclasses
import datetime
import functools
import random
from typing import Any

WORDS = "peer call reply event group hub address request the of and a to in is that for it".split()


def text(size: int) -> str:
    """English-looking lines: nothing that a compressor or a run of one letter would flatter."""
    source = random.Random(size)
    lines = []
    length = 0
    while length < size:
        line = " ".join(source.choices(WORDS, k=12)) + "\n"
        lines.append(line)
        length += len(line)
        if length > 65536:
            break
    block = "".join(lines)
    return (block * (size // len(block) + 1))[:size]


def binary(size: int) -> bytes:
    """Bytes without a pattern, repeated every mebibyte."""
    block = random.Random(size).getrandbits(8 * 2 ** 20).to_bytes(2 ** 20, "little")
    return (block * (size // len(block) + 1))[:size]


def rows(size: int) -> list[dict[str, Any]]:
    """A table as a list of dicts: five plain fields each."""
    return [
        {"id": i, "name": f"sensor-{i}", "value": i * 0.5, "ok": i % 3 == 0, "unit": None}
        for i in range(size)
    ]


@dataclasses.dataclass
class Reading:
    """A value of the application's own class."""

    id: int
    name: str
    value: float


def typed(size: int) -> list[Any]:
    """By turns a dataclass, a tuple and a datetime."""
    start = datetime.datetime(2026, 1, 1)
    make = (lambda i: Reading(i, f"sensor-{i}", i * 0.5), lambda i: (i, f"sensor-{i}"),
            lambda i: start + datetime.timedelta(seconds=i))
    return [make[i % 3](i) for i in range(size)]


def array(size: int) -> Any:
    """A numpy array of float64, ``size`` bytes."""
    import numpy

    return numpy.arange(size // 8, dtype="float64")


KINDS = {"text": text, "bytes": binary, "rows": rows, "typed": typed, "array": array}


@functools.lru_cache(maxsize=None)
def make(kind: str, size: int) -> Any:
    return KINDS[kind](size)


def check(sent: Any, got: Any) -> None:
    """:raises ValueError: the reply is not what was sent, or never left this process."""
    if got is sent and len(sent):
        raise ValueError("came back as the same object: it did not travel")
    if type(got) is not type(sent):
        raise ValueError(f"altered: {type(sent).__name__} became {type(got).__name__}")
    same = got == sent
    if not (same if isinstance(same, bool) else same.all()):
        raise ValueError("altered")
