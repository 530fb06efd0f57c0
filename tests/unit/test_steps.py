"""What a warm call takes: instructions of the interpreter, which no other process changes, and
memory. So a change that makes every call slower is noticed on any machine."""
from __future__ import annotations

import sys
import threading
import tracemalloc
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

import net
from net.decorators import register
from net.identity import encode_text
from net.link.streams import LEAST
from net.peer import _Peer
from net.process import process
from each import each
from hearing import until

#: Calls that are counted, after some that are not. Of memory the least of them counts.
CALLS, BEFORE = 10, 5
#: What the figures may be exceeded by. Patch releases of Python compile a little differently.
TOLERANCE = 0.03
#: Bytes of memory for a small call: what both sides receive into, and a little. The server may have
#: made room for the next request before a call is looked at, or only then.
MEMORY = 2 * LEAST + 4_000

#: Instructions of the caller and of the server for one call, by the version of Python.
STEPS: Dict[Tuple[int, int], Dict[str, Tuple[int, int]]] = {
    (3, 9): {"numbers": (537, 531), "a text": (634, 553), "two values": (746, 549),
             "a dict": (990, 1003), "keywords": (619, 529)},
    (3, 10): {"numbers": (537, 530), "a text": (634, 552), "two values": (748, 548),
              "a dict": (990, 1002), "keywords": (621, 528)},
    (3, 11): {"numbers": (553, 569), "a text": (644, 585), "two values": (778, 588),
              "a dict": (1061, 1098), "keywords": (656, 566)},
    (3, 12): {"numbers": (498, 511), "a text": (631, 580), "two values": (711, 562),
              "a dict": (946, 978), "keywords": (591, 509)},
    (3, 13): {"numbers": (488, 427), "a text": (555, 522), "two values": (679, 514),
              "a dict": (931, 960), "keywords": (587, 498)},
    (3, 14): {"numbers": (515, 452), "a text": (644, 604), "two values": (735, 580),
              "a dict": (971, 1000), "keywords": (625, 527)},
    (3, 15): {"numbers": (515, 452), "a text": (644, 604), "two values": (735, 580),
              "a dict": (972, 1001), "keywords": (625, 527)},
}

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="instructions of CPython"),
    pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces already")]

CASES = {
    "numbers": lambda call: call(5, 10),
    "a text": lambda call: call("x" * 1000),
    "two values": lambda call: call("x" * 1000, 1),
    "a dict": lambda call: call({"a": [1, 2.5, None]}, 1),
    "keywords": lambda call: call(a=5, b="x"),
}


@pytest.fixture
def function() -> Iterator[Any]:
    def multiply(a: Any, b: Any = 1) -> Any:
        return a * b if type(a) is int and type(b) is int else a

    connected: Any = register(multiply, "steps.multiply")
    yield connected
    del _Peer.CONNECTIONS[encode_text("steps.multiply")]


def call_of(function: Any, case: str, peer: Any) -> Callable[[], Any]:
    made, arguments = [], CASES[case]
    arguments(lambda *args, **kwargs: made.append((args, kwargs)))
    (args, kwargs), = made
    return lambda: function(*args, **kwargs) if peer is None else \
        function(*args, peer=peer, **kwargs)


def steps_of(call: Callable[[], Any]) -> Tuple[float, float]:
    """Instructions for one call, of this thread and of that of the connection there."""
    here = threading.get_ident()
    count = {True: 0, False: 0}
    counts: List[Tuple[int, int]] = []

    def trace(frame: Any, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count[threading.get_ident() == here] += 1
        return trace

    threading.settrace(trace)
    try:
        process.client.close_idle()
        # What waits there for the next connection is a thread that is not traced: another serves.
        server: Any = net.Peer().server
        until(lambda: server._spare_waits)
        server._spare_waits = False
        call()
        server._spare_waits = True
        sys.settrace(trace)
        for _ in range(BEFORE + CALLS):
            count[True] = count[False] = 0
            call()
            counts.append((count[True], count[False]))
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    ours, theirs = zip(*counts[BEFORE:])
    return median(ours), median(theirs)


@each("case", list(CASES))
def test_a_call_takes_no_more_steps_than_it_did(function, case):
    recorded = STEPS.get(sys.version_info[:2])
    if recorded is None:
        pytest.skip("the steps are not recorded for this version of Python")
    found = steps_of(call_of(function, case, (net.Peer().host, net.Peer().port)))
    assert all(found), "one side has run without being counted"
    steps = recorded.get(case, (0, 0))
    more = [f"{side} takes {now:.0f} instructions, recorded are {before}"
            for side, now, before in zip(("the caller", "the server"), found, steps)
            if now > before * (1 + TOLERANCE)]
    assert not more, f"a call with {case} takes more steps than it did: {', '.join(more)}. If " \
        f"what it does now is worth them, STEPS of {__file__} gets {case!r}: " \
        f"({found[0]:.0f}, {found[1]:.0f}) for Python {sys.version_info[0]}.{sys.version_info[1]}"


def test_a_local_call_takes_few_steps(function):
    steps, _ = steps_of(call_of(function, "numbers", None))
    bare, _ = steps_of(call_of(function.__wrapped__, "numbers", None))
    # From 3.14 on Python has an instruction more behind each branch that is not taken.
    assert steps - bare <= (22 if sys.version_info >= (3, 14) else 20)


def test_a_call_takes_little_memory_and_leaves_none(function):
    call = call_of(function, "numbers", (net.Peer().host, net.Peer().port))
    for _ in range(BEFORE):
        call()
    peaks, left = [], []
    tracemalloc.start()
    try:
        call()
        for _ in range(CALLS):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            call()
            after, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - before)
            left.append(after - before)
    finally:
        tracemalloc.stop()
    assert min(peaks) < MEMORY, f"a small call takes {min(peaks):,} bytes at once"
    assert min(left) < 500, f"a small call leaves {min(left):,} bytes"
