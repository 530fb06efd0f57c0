"""Handlers run one after the other in a thread of their own."""
from __future__ import annotations

import threading
from typing import Any, Iterator, List

import pytest

from net.context import caller
from net.events import runner as module
from net.events.runner import Hearer, Job, Runner
from hearing import until
from times import patience

ADDRESS = ("198.51.100.1", 3010)


@pytest.fixture
def rooms() -> List[str]:
    """The threads in which the runner has said that there is room again."""
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
        self.begun = threading.Event()
        self.open = threading.Event()
        self.open.set()

    @property
    def hearer(self) -> Hearer:
        return Hearer(self.hear, b"tag", self.failures.append)

    def job(self, *args: Any, **kwargs: Any) -> Job:
        return Job([self.hearer], args, kwargs, ADDRESS)

    def hear(self, *args: Any, **kwargs: Any) -> None:
        self.begun.set()
        assert self.open.wait(patience(10))
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


# ------------------------------------------------------------------------------ in executors


class Elsewhere(Application):
    """An application whose function runs in an executor of its own, and counts what it missed."""

    def __init__(self, executor: object) -> None:
        super().__init__()
        self.executor = executor
        self.open.clear()

    @property
    def hearer(self) -> Hearer:
        return Hearer(self.hear, b"elsewhere", self.failures.append, self.executor,
                      lambda missed: self.calls.append(missed))


def test_an_executor_that_never_runs_holds_up_no_other_handler(runner):
    here, stuck, free = Application(), Elsewhere(object()), Elsewhere(object())
    free.open.set()
    hearers = [stuck.hearer, here.hearer, free.hearer]
    for number in range(20):
        runner.put([Job(hearers, (number,), {}, ADDRESS)], 10)
    for other in (here, free):
        until(lambda: [call[0] for call in other.calls] == [(number,) for number in range(20)])
    assert stuck.calls == []
    stuck.open.set()
    until(lambda: [call[0] for call in stuck.calls] == [(number,) for number in range(20)])
    until(lambda: runner.tally.by_tag[b"elsewhere"].calls == 40)


def test_handlers_of_one_executor_run_one_after_the_other(runner):
    application = Elsewhere(object())
    application.open.set()
    for number in range(5):
        runner.put([Job([application.hearer] * 2, (number,), {}, ADDRESS)], 10)
    until(lambda: len(application.calls) == 10)
    assert [call[0] for call in application.calls] == [(number // 2,) for number in range(10)]


def test_values_are_freed_when_the_last_handler_is_done(runner):
    freed: List[int] = []
    here, there = Application(), Elsewhere(object())
    runner.put([Job([here.hearer, there.hearer], (1,), {}, ADDRESS)], 10, lambda: freed.append(1))
    runner.put([here.job(2)], 10, lambda: freed.append(2))
    until(lambda: len(here.calls) == 2 and freed == [2])
    there.open.set()
    until(lambda: freed == [2, 1])


@pytest.mark.parametrize("limit, size", [("MAX_EVENTS", 0), ("MAX_BYTES", 10)])
def test_what_waits_for_an_executor_that_does_nothing_is_given_up_and_counted(
        runner, monkeypatch, limit, size):
    monkeypatch.setattr(module, limit, 5 if limit == "MAX_EVENTS" else 50)
    monkeypatch.setattr(module, "STUCK_TIME", 3600.0)
    freed: List[int] = []
    here, stuck = Application(), Elsewhere(object())
    hearers = [stuck.hearer, here.hearer]
    put = lambda number: runner.put(  # noqa: E731
        [Job(hearers, (number,), {}, ADDRESS)], size, lambda: freed.append(number))
    assert [put(number) for number in range(5)] == [True] * 4 + [False]
    until(lambda: len(here.calls) == 5 and stuck.begun.is_set())
    runner.make_room()
    assert not runner.has_room and freed == []  # it may only be slow
    monkeypatch.setattr(module, "STUCK_TIME", -1.0)
    runner.make_room()
    assert runner.has_room and freed == [1, 2, 3, 4]  # the first has been taken by its executor
    for number in range(5, 9):
        put(number)
    until(lambda: len(here.calls) == 9)
    runner.make_room()
    assert put(9)
    until(lambda: len(here.calls) == 10)
    stuck.open.set()
    until(lambda: len(stuck.calls) == 3)
    assert [stuck.calls[0][0], stuck.calls[1], stuck.calls[2][0]] == [(0,), 8, (9,)]
    until(lambda: sorted(freed) == list(range(10)))


def test_a_gap_is_not_given_up(runner, monkeypatch):
    monkeypatch.setattr(module, "MAX_EVENTS", 1)
    monkeypatch.setattr(module, "STUCK_TIME", -1.0)
    stuck = Elsewhere(object())
    runner.put([stuck.job(1)], 0)
    until(stuck.begun.is_set)  # what waits is given up
    runner.put([Job([stuck.hearer._replace(missed=None)], ("gap",), {}, ADDRESS)], 0)
    until(lambda: any(lane.queue for lane in list(runner._lanes.values())))
    runner.make_room()
    stuck.open.set()
    until(lambda: [call[0] for call in stuck.calls] == [(1,), ("gap",)])


def test_the_thread_of_an_executor_ends_and_comes_again(runner, monkeypatch):
    monkeypatch.setattr(module, "IDLE_TIME", 0.0)
    application = Elsewhere(object())
    application.open.set()
    for number in range(3):
        runner.put([application.job(number)], 0)
        until(lambda: len(application.calls) == number + 1)
        until(lambda: not runner._lanes)
