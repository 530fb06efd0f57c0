"""Handlers run one after the other in a thread of their own."""
from __future__ import annotations

import threading
from typing import Any, Iterator, List

import pytest

from net.context import caller
from net.events import runner as module
from net.events.runner import Hearer, Job, Runner
from hearing import until

ADDRESS = ("198.51.100.1", 3010)


@pytest.fixture
def rooms() -> List[str]:
    """The threads in which it was said that there is room again."""
    return []


@pytest.fixture
def runner(rooms) -> Iterator[Runner]:
    made = Runner(lambda: rooms.append(threading.current_thread().name))
    yield made
    made.stop()


class Application:
    """Keeps what its function is called with."""

    def __init__(self) -> None:
        self.calls: List[Any] = []
        self.failures: List[BaseException] = []
        self.open = threading.Event()
        self.open.set()

    @property
    def hearer(self) -> Hearer:
        return Hearer(self.hear, b"tag", self.failures.append)

    def job(self, *args: Any, **kwargs: Any) -> Job:
        return Job([self.hearer], args, kwargs, ADDRESS)

    def hear(self, *args: Any, **kwargs: Any) -> None:
        assert self.open.wait(10)
        self.calls.append((args, kwargs, threading.current_thread().name, caller().address))
        if "error" in kwargs:
            raise kwargs["error"]


def test_jobs_run_in_order_in_one_thread_that_knows_the_publisher(runner):
    application = Application()
    assert runner.put([application.job(1), application.job(2, a=3)], 10)
    assert runner.put([application.job(4)], 10)
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
    until(lambda: runner.tally.by_tag[b"tag"].calls == 2)
    assert runner.tally.by_tag[b"tag"].errors == 1


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)])
def test_an_error_that_cannot_be_reported_ends_nothing(runner, error):
    def report(problem: BaseException) -> None:
        raise error

    application = Application()
    runner.put([Job([Hearer(lambda: 1 / 0, b"tag", report)], (), {}, ADDRESS),
                application.job(2)], 10)
    until(lambda: len(application.calls) == 1)


def test_several_handlers_of_an_event_get_values_of_their_own(runner):
    heard: List[Any] = []

    def change(value: List[int]) -> None:
        heard.append(list(value))
        value.clear()

    hearer = Hearer(change, b"tag", heard.append)
    runner.put([Job([hearer, hearer, hearer], ([1],), {}, ADDRESS)], 10)
    until(lambda: len(heard) == 3)
    assert heard == [[1], [1], [1]]


def test_values_that_cannot_be_copied_are_a_failure_of_the_second_handler(runner):
    application = Application()
    runner.put([Job([application.hearer] * 2, (threading.Lock(),), {}, ADDRESS),
                application.job(2)], 10)
    until(lambda: len(application.calls) == 2)
    assert [type(problem) for problem in application.failures] == [TypeError]


@pytest.mark.parametrize("limit, size", [("MAX_EVENTS", 0), ("MAX_BYTES", 10)])
def test_a_full_queue_says_so_and_when_there_is_room(runner, rooms, monkeypatch, limit, size):
    monkeypatch.setattr(module, limit, 3 if limit == "MAX_EVENTS" else 30)
    application = Application()
    application.open.clear()
    assert [runner.put([application.job(number)], size) for number in range(4)] == \
        [True, True, False, False]
    assert rooms == []
    application.open.set()
    until(lambda: rooms == ["net-handlers"])
    until(lambda: len(application.calls) == 4)
    assert runner.put([application.job(4)], size)
    until(lambda: len(application.calls) == 5)
    assert len(rooms) == 1


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
