"""What the loop must not wait for."""
from __future__ import annotations

import threading
from functools import partial
from typing import List

import pytest

from net.events import workers as module
from net.events.workers import Workers
from hearing import until
from times import patience


def no_workers() -> bool:
    return "test-workers" not in [thread.name for thread in threading.enumerate()]


def test_work_is_done_and_the_threads_end():
    done: List[int] = []
    workers = Workers("test-workers")
    for number in range(20):
        workers.do(partial(done.append, number))
    until(lambda: sorted(done) == list(range(20)))
    until(no_workers)
    workers.do(partial(done.append, 20))
    until(lambda: done[-1] == 20)


def test_what_waits_for_others_delays_a_bounded_number(monkeypatch):
    monkeypatch.setattr(module, "THREADS", 3)
    release = threading.Event()
    began: List[int] = []

    def work(item: int) -> None:
        began.append(item)
        assert release.wait(patience(10))

    workers = Workers("test-workers")
    for item in range(5):
        workers.do(partial(work, item))
    until(lambda: len(began) == 3)
    release.set()
    until(lambda: len(began) == 5)


def test_without_a_thread_work_is_done_with_the_next_one(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: List[str] = []
    workers = Workers("test-workers")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.do(partial(done.append, "one"))
    workers.do(partial(done.append, "two"))
    until(lambda: sorted(done) == ["one", "two"])


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_an_error_is_logged_and_the_next_work_done(caplog, error):
    def fail() -> None:
        raise error("oh no")

    done: List[str] = []
    workers = Workers("test-workers")
    for _ in range(10):
        workers.do(fail)
    workers.do(partial(done.append, "good"))
    until(lambda: done == ["good"])
    until(no_workers)
