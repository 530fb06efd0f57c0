"""The selector loop on pairs of sockets."""
from __future__ import annotations

import errno
import gc
import logging
import os
import queue
import selectors
import socket
import sys
import threading
import time
import weakref
from typing import Any, Callable, Iterator, Tuple

import pytest

from net.run import loop as module
from net.run.loop import Loop, READ, WRITE
from service import until
from times import patience

# Seconds that something may take which happens at once on an idle machine.
PATIENCE = patience(10)

NAME = "net-test-loop"


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == NAME]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop, whose thread ends once the test has let go of all it asked for."""
    made = Loop(NAME)
    yield made
    until(lambda: not threads(), PATIENCE)


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def run(loop: Loop, function: Callable[[], Any]) -> Any:
    """What a function gives or raises in the thread of the loop."""
    results: queue.Queue[Any] = queue.Queue()

    def call() -> None:
        try:
            results.put((function(), None))
        except Exception as problem:
            results.put((None, problem))

    loop.call_soon(call)
    value, problem = results.get(timeout=PATIENCE)
    if problem is not None:
        raise problem
    return value


# ------------------------------------------------------------------ calls and the thread

def test_calls_come_in_order_in_one_thread_of_its_own(loop):
    called: queue.Queue[Any] = queue.Queue()
    for number in range(100):
        loop.call_soon(lambda number=number: called.put((number, threading.current_thread())))
    found = [called.get(timeout=PATIENCE) for _ in range(100)]
    assert [number for number, _ in found] == list(range(100))
    assert all(thread.name == NAME and thread.daemon for _, thread in found)


def test_there_is_a_thread_only_while_there_is_something_to_do(loop):
    assert not threads()
    assert run(loop, lambda: len(threads())) == 1
    until(lambda: not threads(), PATIENCE)
    timer = loop.call_later(1000, lambda: None)
    assert len(threads()) == 1
    timer.cancel()
    until(lambda: not threads(), PATIENCE)


def test_no_call_is_lost_while_the_thread_ends_and_starts(loop):
    called: queue.Queue[int] = queue.Queue()

    def call(first: int) -> None:
        for number in range(first, first + 150):
            loop.call_soon(lambda: called.put(number))
            assert number >= first and called.get(timeout=PATIENCE) >= 0

    callers = [threading.Thread(target=call, args=(1000 * one,)) for one in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert called.empty()


def test_only_its_own_thread_is_the_loop(loop, pair):
    assert not loop.in_loop()
    assert run(loop, loop.in_loop)
    with pytest.raises(AssertionError):
        loop.unregister(pair[0])


def test_a_callback_that_raises_harms_no_other(loop, caplog):
    with caplog.at_level(logging.ERROR, "net.connections"):
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(sys.exit)
        loop.call_later(0, lambda: 1 / 0)
        assert run(loop, lambda: "still here") == "still here"
        until(lambda: not threads(), PATIENCE)
    assert "ZeroDivisionError" in caplog.text


def test_calls_that_make_more_of_their_kind_leave_time_for_others(loop, pair):
    ours, theirs = pair
    done = threading.Event()

    def again() -> None:
        if not done.is_set():
            loop.call_soon(again)

    def received(_mask: int) -> None:
        loop.unregister(ours)
        loop.call_later(0.001, done.set)

    loop.call_soon(again)
    loop.call_soon(lambda: loop.register(ours, READ, received))
    theirs.sendall(b"x")
    assert done.wait(PATIENCE)


def test_what_a_callback_held_is_free_once_it_was_called(loop, pair):
    class Large:
        pass

    ours, _ = pair
    run(loop, lambda: loop.register(ours, READ, lambda mask: None))  # keeps the thread
    held = [Large(), Large()]
    watched = [weakref.ref(one) for one in held]
    loop.call_soon(lambda one=held.pop(): None)
    loop.call_later(0, lambda one=held.pop(): None)
    run(loop, lambda: None)
    until(lambda: gc.collect() or not any(one() for one in watched), PATIENCE)
    run(loop, lambda: loop.unregister(ours))


# ------------------------------------------------------------------ timers

def test_timers_come_when_they_are_due_the_earliest_first(loop):
    called: queue.Queue[Any] = queue.Queue()
    start = time.monotonic()

    def make() -> None:  # in the loop, where none can come due in between
        for seconds in (0.06, 0.02, 0.04, 0.02):
            loop.call_later(seconds, lambda seconds=seconds: called.put(
                (seconds, time.monotonic() - start)))

    run(loop, make)
    found = [called.get(timeout=PATIENCE) for _ in range(4)]
    assert [seconds for seconds, _ in found] == [0.02, 0.02, 0.04, 0.06]
    assert all(passed >= seconds for seconds, passed in found)


def test_an_earlier_timer_is_not_held_up_by_a_later_one(loop):
    late = loop.call_later(1000, lambda: None)
    until(lambda: loop._asleep, PATIENCE)
    early = threading.Event()
    loop.call_later(0.01, early.set)
    assert early.wait(PATIENCE)
    late.cancel()


def test_a_cancelled_timer_is_not_called(loop):
    called: list[str] = []

    def make() -> None:
        for timer in [loop.call_later(0.01, lambda: called.append("cancelled"))
                      for _ in range(3)]:
            timer.cancel()
            timer.cancel()

    run(loop, make)
    done = threading.Event()
    loop.call_later(0.03, done.set)
    assert done.wait(PATIENCE)
    assert called == []


def test_a_timer_may_cancel_another_that_is_due_with_it(loop):
    called: list[str] = []

    def make() -> None:
        def first() -> None:
            called.append("first")
            second.cancel()

        loop.call_later(0, first)
        second = loop.call_later(0, lambda: called.append("second"))
        time.sleep(0.002)

    run(loop, make)
    until(lambda: not threads(), PATIENCE)
    assert called == ["first"]


def test_cancelled_timers_do_not_pile_up(loop):
    kept = loop.call_later(1000, lambda: None)
    for _ in range(50):
        for timer in [loop.call_later(2000, lambda: None) for _ in range(20)]:
            timer.cancel()
        run(loop, lambda: None)
    until(lambda: len(loop._timers) < 200, PATIENCE)
    kept.cancel()


# ------------------------------------------------------------------ sockets

def test_a_socket_is_called_back_for_as_long_as_it_is_registered(loop, pair):
    ours, theirs = pair
    received: queue.Queue[Any] = queue.Queue()
    loop.call_soon(lambda: loop.register(
        ours, READ, lambda mask: received.put((mask, ours.recv(100)))))
    for data in (b"one", b"two"):
        theirs.sendall(data)
        assert received.get(timeout=PATIENCE) == (READ, data)
    run(loop, lambda: loop.unregister(ours))
    run(loop, lambda: loop.unregister(ours))
    theirs.sendall(b"three")
    run(loop, lambda: None)
    assert received.empty()


def test_what_is_waited_for_can_change(loop, pair):
    ours, theirs = pair
    masks: queue.Queue[int] = queue.Queue()

    def ready(mask: int) -> None:
        masks.put(mask)
        if mask & WRITE:
            loop.modify(ours, READ)
        else:
            loop.unregister(ours)

    loop.call_soon(lambda: loop.register(ours, READ | WRITE, ready))
    assert masks.get(timeout=PATIENCE) == WRITE
    until(lambda: loop._asleep, PATIENCE)
    theirs.sendall(b"x")
    assert masks.get(timeout=PATIENCE) == READ
    assert masks.empty()


def test_a_socket_that_was_unregistered_a_moment_ago_is_not_called_back(loop):
    pairs = [socket.socketpair() for _ in range(5)]
    called: list[int] = []

    def ready(_mask: int) -> None:
        called.append(1)
        for ours, _ in pairs:
            loop.unregister(ours)

    for _, theirs in pairs:
        theirs.sendall(b"x")
    run(loop, lambda: [loop.register(ours, READ, ready) for ours, _ in pairs])
    until(lambda: not threads(), PATIENCE)
    assert called == [1]
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_socket_whose_callback_raises_rests_and_is_called_again(loop, pair, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.05)
    ours, theirs = pair
    times: list[float] = []
    done = threading.Event()

    def ready(_mask: int) -> None:
        times.append(time.monotonic())
        if len(times) < 3:
            raise ValueError("a mistake")
        loop.unregister(ours)
        done.set()

    theirs.sendall(b"x")
    loop.call_soon(lambda: loop.register(ours, READ, ready))
    assert done.wait(PATIENCE)
    assert all(later - earlier >= 0.045 for earlier, later in zip(times, times[1:]))


def test_a_socket_that_rests_can_be_changed_and_let_go(loop, pair):
    ours, theirs = pair
    failed = threading.Event()

    def ready(_mask: int) -> None:
        failed.set()
        raise ValueError("a mistake")

    theirs.sendall(b"x")
    run(loop, lambda: loop.register(ours, READ, ready))
    assert failed.wait(PATIENCE)
    run(loop, lambda: loop.modify(ours, READ | WRITE))
    run(loop, lambda: loop.unregister(ours))
    done = threading.Event()
    run(loop, lambda: loop.register(ours, READ, lambda mask: (loop.unregister(ours), done.set())))
    assert done.wait(PATIENCE)


def test_a_closed_socket_cannot_be_registered(loop, pair):
    ours, _ = pair
    ours.close()
    with pytest.raises(OSError):
        run(loop, lambda: loop.register(ours, READ, lambda mask: None))


def test_a_socket_that_was_closed_without_a_word_gives_its_number_to_the_next(loop, pair):
    ours, theirs = pair
    lost, other = socket.socketpair()
    run(loop, lambda: loop.register(lost, READ, lambda mask: None))
    number = lost.fileno()
    lost.close()
    os.dup2(ours.fileno(), number)
    with socket.socket(fileno=number) as successor:
        done = threading.Event()
        run(loop, lambda: loop.register(successor, READ, lambda mask: (
            loop.unregister(successor), done.set())))
        theirs.sendall(b"x")
        assert done.wait(PATIENCE)
    run(loop, lambda: loop.unregister(lost))
    other.close()


# ------------------------------------------------------------------ when things go wrong

def test_without_descriptors_a_call_is_refused_and_the_next_one_is_served(loop, monkeypatch):
    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    called: list[str] = []
    for name, owner in (("DefaultSelector", selectors), ("socketpair", socket)):
        with monkeypatch.context() as context:
            context.setattr(owner, name, fail)
            with pytest.raises(OSError, match="Too many"):
                loop.call_soon(lambda: called.append("refused"))
            with pytest.raises(OSError, match="Too many"):
                loop.call_later(0, lambda: called.append("refused"))
    run(loop, lambda: called.append("served"))
    until(lambda: not threads(), PATIENCE)
    assert called == ["served"]


def test_without_threads_a_call_is_refused(loop, monkeypatch):
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", fail)
        with pytest.raises(OSError, match="can't start new thread"):
            loop.call_soon(lambda: None)
    assert run(loop, lambda: "served") == "served"
