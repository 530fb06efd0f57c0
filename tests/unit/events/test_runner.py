"""Handlers run one after the other in a thread of their own."""
from __future__ import annotations

import threading
from typing import Any, Iterator, List

import pytest

from net.context import caller
from net.events import runner as module
from net.events.runner import Job, Runner
from hearing import until

ADDRESS = ("198.51.100.1", 3010)


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.stop()


class Application:
    """Keeps what its function is called with."""

    def __init__(self) -> None:
        self.calls: List[Any] = []
        self.failures: List[BaseException] = []
        self.open = threading.Event()
        self.open.set()

    def job(self, *args: Any, **kwargs: Any) -> Job:
        return Job(self.hear, args, kwargs, b"tag", ADDRESS, self.failures.append)

    def hear(self, *args: Any, **kwargs: Any) -> None:
        assert self.open.wait(10)
        self.calls.append((args, kwargs, threading.current_thread().name, caller().address))
        if "error" in kwargs:
            raise kwargs["error"]


def test_jobs_run_in_order_in_one_thread_that_knows_the_publisher(runner):
    application = Application()
    runner.put([application.job(1), application.job(2, a=3)], 10)
    runner.put([application.job(4)], 10)
    until(lambda: len(application.calls) == 3)
    assert application.calls == [((1,), {}, "net-handlers", ADDRESS),
                                 ((2,), {"a": 3}, "net-handlers", ADDRESS),
                                 ((4,), {}, "net-handlers", ADDRESS)]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_what_a_handler_raises_is_reported_and_the_next_one_runs(runner, error):
    application = Application()
    runner.put([application.job(error=error), application.job(2)], 10)
    until(lambda: len(application.calls) == 2)
    assert application.failures == [error]
    until(lambda: runner.tally.by_tag[b"tag"][0] == 2)
    assert runner.tally.by_tag[b"tag"][1] == 1


@pytest.mark.parametrize("limit, size", [("MAX_EVENTS", 0), ("MAX_BYTES", 10)])
def test_a_full_queue_makes_the_deliveries_wait(runner, monkeypatch, limit, size):
    monkeypatch.setattr(module, limit, 3 if limit == "MAX_EVENTS" else 30)
    application = Application()
    application.open.clear()
    for number in range(3):
        runner.put([application.job(number)], size)
    waiting = threading.Thread(target=runner.put, args=([application.job(3)], size))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    application.open.set()
    waiting.join(5)
    assert not waiting.is_alive()
    until(lambda: len(application.calls) == 4)


def test_it_ends_when_asked_to_and_starts_again_when_needed(runner):
    application = Application()
    application.open.clear()
    runner.put([application.job(1)], 0)
    runner.stop()
    application.open.set()
    names = [thread.name for thread in threading.enumerate()]
    until(lambda: "net-handlers" not in [thread.name for thread in threading.enumerate()])
    assert names.count("net-handlers") == 1 and len(application.calls) == 1
    runner.put([application.job(2)], 0)
    until(lambda: len(application.calls) == 2)
