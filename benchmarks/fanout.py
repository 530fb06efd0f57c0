"""Event fan-out, seen from the process that measures."""
from __future__ import annotations

import contextlib
import functools
import time
from typing import Iterator

from .measure import Result, interleave
from .plan import Plan
from .processes import Refused, Worker

#: Seconds until every subscriber must have heard a first event, and all of them the last.
GREETING = 30.0
HEARING = 60.0


class Audience:
    """A publisher and its subscribers, each in a process of its own."""

    def __init__(self, name: str, subscribers: int) -> None:
        self.publisher = Worker("publish", name)
        self.subscribers: list[Worker] = []
        try:
            for _ in range(subscribers):
                self.subscribers.append(Worker("subscribe", name, self.publisher.port))
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        """Publish until everyone has heard something: ZeroMQ doesn't say who has subscribed."""
        deadline = time.monotonic() + GREETING
        waiting = list(self.subscribers)
        while waiting:
            self.publisher.ask("greet")
            waiting = [worker for worker in waiting if not worker.ask("greeted", seconds=0.05)]
            if time.monotonic() > deadline:
                raise Refused(f"{len(waiting)} subscribers heard nothing")

    def publish(self, count: int) -> tuple[float, float]:
        """Events per second to every subscriber, and the publisher's seconds for one event."""
        for worker in self.subscribers:
            worker.ask("expect", count=count)
        began, handing_over = self.publisher.ask("publish", count=count)
        last = max(worker.ask("finished", seconds=HEARING) for worker in self.subscribers)
        return count / (last - began), handing_over / count

    def close(self) -> None:
        for worker in (*self.subscribers, self.publisher):
            worker.close()


def run(plan: Plan, names: list[str]) -> Iterator[Result]:
    for subscribers in plan.subscribers:
        yield from measure(plan, names, subscribers)


def measure(plan: Plan, names: list[str], subscribers: int) -> tuple[Result, Result]:
    noun = "subscriber" if subscribers == 1 else "subscribers"
    rate = Result(f"events-{subscribers}", f"Events to each of {subscribers} {noun}",
                  "events/s", True, "zeromq")
    cost = Result(f"event-cost-{subscribers}",
                  f"Publisher's own time for one event to {subscribers} {noun}", "µs",
                  baseline="zeromq")
    with contextlib.ExitStack() as stack:
        audiences = start(names, subscribers, rate, stack)

        def sample(name: str) -> float:
            per_second, seconds = audiences[name].publish(plan.events)
            cost.samples.setdefault(name, []).append(seconds * 1e6)
            return per_second

        candidates = {name: functools.partial(sample, name) for name in audiences}
        interleave(rate, candidates, plan.at_most(5))
    cost.refusals = dict(rate.refusals)
    for name in cost.refusals:
        cost.samples.pop(name, None)
    return rate, cost


def start(names: list[str], subscribers: int, result: Result,
          stack: contextlib.ExitStack) -> dict[str, Audience]:
    """An audience for each system that can have one; they end with ``stack``."""
    audiences = {}
    for name in names:
        try:
            audiences[name] = Audience(name, subscribers)
            stack.callback(audiences[name].close)
        except Refused as problem:
            result.refusals[name] = str(problem)
    return audiences
