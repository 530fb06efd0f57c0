"""Who does what, when workers join, leave, are slow, rest and are lost, in any order."""
from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.calls.spread import FIRST_REST, MAX_LOSSES, MAX_REST, PATIENCE, Spread, Task

NAMES = st.sampled_from("abcd")
STEPS = st.lists(st.one_of(
    st.tuples(st.just("add"), st.integers(1, 5)),
    st.tuples(st.just("workers"), st.sets(NAMES)),
    st.tuples(st.just("take"), NAMES, st.integers(1, 3)),
    st.tuples(st.just("done"), st.integers(0, 10)),
    st.tuples(st.just("lost"), st.integers(0, 10), st.integers(0, 2),
              st.sampled_from(["no", "maybe", "yes"])),
    st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
    st.tuples(st.just("strand")),
    st.tuples(st.just("cancel")),
), max_size=80)


class Play:
    """Does steps, and notes what came of each task."""

    def __init__(self, at_a_time: int, repeatable: bool) -> None:
        self.now = 100.0
        self.at_a_time = at_a_time
        self.spread: Spread[str] = Spread(at_a_time, repeatable, self.now)
        self.repeatable = repeatable
        self.added = 0
        self.taken: List[Tuple[str, List[Task]]] = []
        #: Task -> how often it may have run, for those that may.
        self.may_have_run: Counter[int] = Counter()
        self.ended: Dict[int, str] = {}
        self.first_takes: List[int] = []

    def do(self, step: Tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])
        waiting = self.spread.waiting
        assert waiting + sum(len(tasks) for _, tasks in self.taken) + len(self.ended) == self.added
        assert self.spread.running == len(self.taken)
        for name, count in Counter(name for name, _ in self.taken).items():
            assert count <= self.at_a_time

    def add(self, count: int) -> None:
        for _ in range(count):
            self.spread.add([Task(self.added)], self.now)
            self.added += 1

    def workers(self, names: Any) -> None:
        self.spread.set_workers(names)
        assert set(self.spread.workers) == names

    def take(self, name: str, most: int) -> None:
        may = self.spread.has(name) and not self.spread.rest(name, self.now)
        tasks = self.spread.take(name, self.now, most)
        assert may or not tasks
        assert len(tasks) <= most
        for task in tasks:
            assert self.repeatable or not self.may_have_run[task.work]
            assert self.may_have_run[task.work] < MAX_LOSSES
            if task.work not in self.first_takes:
                self.first_takes.append(task.work)
        if tasks:
            self.taken.append((name, tasks))

    def done(self, which: int) -> None:
        if self.taken:
            name, tasks = self.taken.pop(which % len(self.taken))
            self.spread.done(name, tasks[0])
            self._end(tasks, "done")

    def lost(self, which: int, place: int, ran: str) -> None:
        if not self.taken:
            return
        name, tasks = self.taken.pop(which % len(self.taken))
        place %= len(tasks)
        self._end(tasks[:place], "done")
        if ran != "no":
            self.may_have_run[tasks[place].work] += 1
        again = self.spread.may_run_again(tasks[place], ran)
        if not again:
            assert ran != "no"
            self._end([tasks[place]], "failed")
        self.spread.lost(name, tasks[0], self.now)
        self.spread.put_back(tasks[place if again else place + 1:])
        assert not self.spread.has(name) or \
            FIRST_REST * 0.99 <= self.spread.rest(name, self.now) <= MAX_REST

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def strand(self) -> None:
        self._end(self.spread.stranded(self.now), "stranded")

    def cancel(self) -> None:
        self._end(self.spread.clear(), "cancelled")
        assert self.spread.waiting == 0

    def _end(self, tasks: List[Task], how: str) -> None:
        for task in tasks:
            assert task.work not in self.ended
            self.ended[task.work] = how

    def finish(self) -> None:
        """One worker comes that can do everything."""
        while self.taken:
            self.do(("done", 0))
        self.workers({"z"})
        while self.spread.waiting:
            self.do(("take", "z", 1))
            self.do(("done", 0))


@given(steps=STEPS, at_a_time=st.integers(1, 3), repeatable=st.booleans())
def test_each_task_ends_once_and_only_what_is_repeatable_may_run_twice(steps, at_a_time,
                                                                       repeatable):
    play = Play(at_a_time, repeatable)
    for step in steps:
        play.do(step)
    play.finish()
    assert sorted(play.ended) == list(range(play.added))
    assert play.spread.running == 0
    # The first worker there gets the first task.
    assert play.first_takes == sorted(play.first_takes)


def test_a_worker_that_is_twice_as_fast_does_twice_as_much():
    spread: Spread[str] = Spread(1, False, 0.0)
    spread.set_workers("ab")
    for number in range(30):
        spread.add([Task(number)], 0.0)
    share, running = Counter(), {}
    for tick in range(100):
        for name, ticks in (("a", 2), ("b", 1)):
            if name in running and tick >= running[name][1]:
                spread.done(name, running.pop(name)[0])
                share[name] += 1
            if name not in running:
                tasks = spread.take(name, float(tick))
                if tasks:
                    running[name] = (tasks[0], tick + ticks)
    assert share == {"a": 10, "b": 20}


def test_a_worker_rests_longer_each_time_and_is_tried_with_one_task():
    spread: Spread[str] = Spread(2, False, 0.0)
    spread.set_workers("a")
    for number in range(4):
        spread.add([Task(number)], 0.0)
    rests = []
    now = 0.0
    for _ in range(8):
        task, = spread.take("a", now)
        assert rests == [] or not spread.take("a", now)
        assert spread.may_run_again(task, "no")
        spread.lost("a", task, now)
        spread.put_back([task])
        rests.append(spread.rest("a", now))
        now += rests[-1] + 0.001
    assert rests[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert rests[-1] == MAX_REST
    task, = spread.take("a", now)
    spread.done("a", task)
    assert spread.free("a", now) == 2


def test_what_waits_fails_when_no_worker_has_been_able_for_long():
    spread: Spread[str] = Spread(1, False, 0.0)
    spread.add([Task("x")], 0.0)
    assert spread.stranded(PATIENCE - 0.1) == []
    assert [task.work for task in spread.stranded(PATIENCE)] == ["x"]
    # Time without work counts for nothing.
    spread.add([Task("y")], 100.0)
    assert spread.stranded(101.0) == []


def test_what_waits_is_not_given_up_while_a_worker_is_at_work_or_able():
    spread: Spread[str] = Spread(1, False, 0.0)
    spread.set_workers("a")
    for number in range(3):
        spread.add([Task(number)], 0.0)
    task, = spread.take("a", 0.0)
    assert spread.stranded(1000.0) == []
    spread.lost("a", task, 1000.0)
    spread.put_back([task])
    task, = spread.take("a", 1001.0)
    assert spread.stranded(2000.0) == []  # it runs
    spread.lost("a", task, 2000.0)
    assert len(spread.stranded(2000.0)) == 2
