"""Things are done at their time, in few threads."""
from __future__ import annotations

import threading
import time
from typing import Any, List

import pytest

from net.events import schedule as module
from net.events.schedule import Schedule, jitter
from hearing import until


def test_items_are_done_at_their_time():
    done: List[Any] = []
    schedule = Schedule(lambda item: done.append((item, time.monotonic())))
    began = time.monotonic()
    for item, delay in (("late", 0.2), ("early", 0.05), ("now", 0.0)):
        schedule.put(item, delay)
    until(lambda: len(done) == 3)
    assert [item for item, _ in done] == ["now", "early", "late"]
    for (_, when), delay in zip(done, (0.0, 0.05, 0.2)):
        assert delay <= when - began < delay + 2


def test_an_item_put_in_twice_is_done_once_at_the_earlier_time():
    done: List[str] = []
    schedule = Schedule(done.append)
    schedule.put("one", 60)
    schedule.put("one", 0.01)
    schedule.put("two", 0.05)
    until(lambda: done == ["one", "two"])
    until(lambda: "net-subscriber" not in [thread.name for thread in threading.enumerate()])


def test_work_may_put_its_item_in_again():
    done: List[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item:
            schedule.put(item - 1, 0)

    schedule = Schedule(work)
    schedule.put(5, 0)
    until(lambda: done == [5, 4, 3, 2, 1, 0])


def test_without_a_thread_an_item_is_done_with_the_next_one(monkeypatch):
    done: List[str] = []
    schedule = Schedule(done.append)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        schedule.put("one", 0)
    schedule.put("two", 0.01)
    until(lambda: done == ["one", "two"])


def test_what_waits_for_others_delays_only_so_many(monkeypatch):
    monkeypatch.setattr(module, "THREADS", 3)
    release = threading.Event()
    began: List[int] = []

    def work(item: int) -> None:
        began.append(item)
        assert release.wait(10)

    schedule = Schedule(work)
    for item in range(5):
        schedule.put(item, 0)
    until(lambda: len(began) == 3)
    release.set()
    until(lambda: len(began) == 5)


def test_an_error_is_logged_and_the_next_item_done(caplog):
    done: List[str] = []

    def work(item: str) -> None:
        if item == "bad":
            raise ValueError("oh no")
        done.append(item)

    schedule = Schedule(work)
    schedule.put("bad", 0)
    schedule.put("good", 0.01)
    until(lambda: done == ["good"])
    # Another thread may have done it while the first one still writes its line.
    until(lambda: "oh no" in caplog.text)


@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_a_delay_varies_by_half(seconds):
    delays = [jitter(seconds) for _ in range(200)]
    assert 0.5 * seconds <= min(delays) < max(delays) < 1.5 * seconds
    assert max(delays) - min(delays) > 0.5 * seconds
