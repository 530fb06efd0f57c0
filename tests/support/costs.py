"""What a message costs, compared with what its size allows."""
from __future__ import annotations

import time
from types import ModuleType
from typing import Any, Callable, Optional, Tuple

from net.wire.values import unpack

tracemalloc: Optional[ModuleType]
try:
    import tracemalloc
except ImportError:  # PyPy cannot tell
    tracemalloc = None

MIB = 2 ** 20
# Times the cost of small tuples that as many bytes of a message may take.
TIMES = 20
# Bytes of memory that each byte of a message may take: empty tagged objects take up to 50.
GROWTH = 100
# A message may always cost as much as this many bytes more: classes are made, names are compared.
ALWAYS = 64 * 1024
# Bytes of memory that it may always take.
ALWAYS_MEMORY = MIB
# How many times something that seems to cost too much is measured again: other work on the machine,
# and what is loaded once, can only add.
AGAIN = 4


class TooCostly(AssertionError):
    """Bytes cost more than their share."""


class Cost:
    """What work on some bytes takes of this thread's time, and of memory at its peak.

    ``with Cost() as cost: cost.check(work, data)``.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._is_tracing = False

    def __enter__(self) -> Cost:
        if tracemalloc is not None and not tracemalloc.is_tracing():
            tracemalloc.start()
            self._is_tracing = True
        text = b"[" + b",".join([b'{"!tuple":[1]}'] * (ALWAYS // 15)) + b"]"
        self._rate = max(_measured(lambda data: unpack(data, True), text)[0]
                         for _ in range(3)) / len(text)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._is_tracing and tracemalloc is not None:
            tracemalloc.stop()

    def check(self, work: Callable[[bytes], Any], data: bytes) -> None:
        """Do some work on bytes.

        :raises TooCostly: each time it took more than its share.
        :raises BaseException: what the work raised.
        """
        seconds, memory, problem = _measured(work, data)
        found = self._excess(seconds, memory, len(data))
        for _ in range(AGAIN):
            if found:
                found = self._excess(*_measured(work, data)[:2], len(data))
        if found:
            raise TooCostly(found)
        if problem is not None:
            raise problem

    def _excess(self, seconds: float, memory: int, size: int) -> str:
        allowed = TIMES * self._rate * (size + ALWAYS)
        if seconds > allowed:
            return f"{seconds:.3f} s for {size} bytes, where {allowed:.3f} s are allowed"
        if memory > GROWTH * size + ALWAYS_MEMORY:
            return f"{memory:,} bytes of memory for {size} bytes"
        return ""


def _measured(work: Callable[[bytes], Any], data: bytes) \
        -> Tuple[float, int, Optional[BaseException]]:
    """Seconds, bytes of memory, and what was raised."""
    before = 0
    if tracemalloc is not None:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    problem = None
    started = time.thread_time()
    try:
        work(data)
    except BaseException as caught:
        problem = caught
    seconds = time.thread_time() - started
    peak = 0 if tracemalloc is None else tracemalloc.get_traced_memory()[1]
    return seconds, peak - before, problem
