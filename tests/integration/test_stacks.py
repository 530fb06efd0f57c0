"""Nesting on the stacks of small threads: as deep as they bear, and no crash beyond."""
from __future__ import annotations

import sys

import pytest

from net.wire import stacks
from processes import run_python

#: What runs in a process of its own, which a full stack ends.
NESTED = """
import sys, threading
import travel
from net.errors import NetError
from net.settings import settings
from net.wire import messages, values
from net.wire.limits import Limits
from net.wire.stacks import levels_here

WRAPS = {
    "list": ("[", "]"), "dict": ('{"a":', "}"), "tuple": ('{"!tuple":[', "]}"),
    "deque": ('{"!deque":[null,', "]}"), "ordered": ('{"!ordered":["a",', "]}"),
    "counter": ('{"!counter":["a",', "]}"), "pairs": ('{"!dict":[1,', "]}"),
    "frozenset": ('{"!frozenset":[', "]}"), "pair": (
        '{"!value":{"class":"travel.Pair","left":1,"right":', "}}"),
    "point": ('{"!value":{"class":"travel.Point","x":1,"y":', "}}"),
    "peer": ('{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==",{"a":', "}]}"),
}
LIMITS = Limits(depth=200)
deepest = {}


def echo(name, depth):
    before, after = WRAPS[name]
    text = (before * depth + "1" + after * depth).encode()
    try:
        made = values.unpack(text, name not in ("list", "dict"), [], LIMITS)
        packed = values.pack(made, "result", LIMITS)
        repr(made), values.unpack(packed.text.encode(), packed.tagged, [], LIMITS)
        messages.encode_failure(1, ValueError(made), "type", LIMITS)
        deepest[name] = depth
    except NetError as problem:
        assert "stack" in str(problem) or "NET_MAX_DEPTH" in str(problem) or "JSON" in str(problem)


def all_of_them():
    for name in WRAPS:
        for depth in (3, 5, 8, 12, 17, 25, 32, 44, 60, 88, 100, 150, 200):
            echo(name, depth)
        echo(name, levels_here(name in ("list", "dict")))


try:
    threading.stack_size(int(sys.argv[1]))
except ValueError:  # less than this Python allows
    sys.exit(print({}))
thread = threading.Thread(target=all_of_them)
thread.start()
threading.stack_size(0)  # for others; it is the thread's own that counts
thread.join()
print(deepest)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others notice it themselves")
@pytest.mark.parametrize("size", [32, 48, 64, 96, 128, 256, 512])
def test_no_nesting_overflows_a_stack_of_any_size(size):
    done = run_python("-c", NESTED, str(size * stacks.KIB))
    assert done.returncode == 0, done.stderr[-500:]
    deepest = eval(done.stdout)
    levels = max(0, size * stacks.KIB - stacks.BESIDES) // stacks.LEVEL
    for name, depth in deepest.items():
        each = 2 if name == "peer" else 1  # two levels
        assert each * depth >= min(levels, 100) * 0.8 - 2, (name, depth)


ONE_THREAD = """
import threading
from net.wire.stacks import levels_here

threading.stack_size(96 * 1024)
thread = threading.Thread(target=lambda: print(levels_here(), levels_here(plain=True)))
thread.start()
threading.stack_size(0)
thread.join()
print(levels_here() > 200)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others are not asked")
def test_the_stack_that_counts_is_that_of_the_thread():
    # In a process without other threads, whose stacks the C library could give to this one.
    room = 96 * stacks.KIB - stacks.BESIDES
    assert run_python("-c", ONE_THREAD).stdout == \
        f"{room // stacks.LEVEL} {room // stacks.PLAIN_LEVEL}\nTrue\n"
