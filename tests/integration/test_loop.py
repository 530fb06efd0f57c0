"""The selector loop in a process whose descriptors others close, and in one that forks."""
from __future__ import annotations

import os

import pytest

from processes import run_python


@pytest.mark.skipif(os.name != "posix", reason="sockets are no descriptors here")
@pytest.mark.parametrize("what, where", [
    ("selector", "a callback"), ("selector", "another thread"), ("everything", "a callback"),
    ("everything", "another thread"), ("waker", "another thread")])
def test_a_loop_whose_descriptors_are_closed_goes_on_with_new_ones(what, where):
    """In a process of its own, where other code takes the descriptors for its own."""
    done = run_python("-c", CLOSED, what, where, NET_LAUNCH="0")
    lost = ["Bad file descriptor"] if what == "everything" else []
    assert done.stdout.split("\n") == [*lost, "served", "quiet", "ended", ""]


CLOSED = """
import os, socket, sys, threading, time
from net.run import loop as module

module.PAUSE = 0.01
loop = module.Loop("loop")
what, where = sys.argv[1:]
ours, theirs = socket.socketpair()
ours.setblocking(False)
served, lost = threading.Event(), threading.Event()

def ready(mask):
    try:
        ours.recv(100)
        served.set()
    except OSError as problem:
        print(problem.strerror, flush=True)
        lost.set()
    loop.unregister(ours)

def close():
    if what == "everything":
        os.closerange(3, 200)
    else:
        os.close(getattr(loop, "_" + what).fileno())

loop.call_soon(lambda: loop.register(ours, module.READ, ready))
timer = loop.call_later(1000, lambda: None)
while not loop._asleep:
    time.sleep(0.001)
if where == "a callback":
    loop.call_soon(close)
else:
    close()
called = threading.Event()
loop.call_soon(called.set)
assert called.wait(10)
if what == "everything":
    assert lost.wait(10)
    ours.detach(), theirs.detach()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop.call_soon(lambda: loop.register(ours, module.READ, ready))
theirs.send(b"x")
assert served.wait(10)
print("served")
used = time.process_time()
time.sleep(0.2)
print("quiet" if time.process_time() - used < 0.1 else "busy")
timer.cancel()
while loop._current:
    time.sleep(0.001)
print("ended", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_with_a_loop_of_its_own():
    assert run_python("-c", FORKED, NET_LAUNCH="0").stdout.split("\n") == \
        ["child: only", "parent: waited for", ""]


FORKED = """
import os, socket, threading, warnings
from net.run.loop import Loop, READ

warnings.simplefilter("ignore", DeprecationWarning)  # it has threads, that is the point
loop = Loop("loop")
ours, theirs = socket.socketpair()
received = threading.Event()
ready = threading.Event()
loop.call_soon(lambda: loop.register(ours, READ, lambda mask: (loop.unregister(ours),
                                                               received.set())))
loop.call_soon(ready.set)
assert ready.wait(10)
with loop._lock:  # as another thread could hold it at this moment
    child = os.fork()
if not child:
    loop.abandon()
    called = threading.Event()
    loop.call_soon(called.set)
    assert called.wait(10) and not received.is_set()
    print("child: only", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
theirs.send(b"x")
assert received.wait(10)
print("parent: waited for")
"""
