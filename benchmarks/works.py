"""The works that every system does: a server process, client processes, calls."""
from __future__ import annotations

import dataclasses
from typing import Any, Callable, Iterator, Optional

from .measure import Result, interleave
from .plan import Plan
from .processes import Pair, Refused, pairs
from .systems import SYSTEMS, System

Sampler = Callable[[Pair], float]


@dataclasses.dataclass(frozen=True)
class Work:
    """One work. ``factor`` turns what is sampled into the unit of the result."""

    result: Result
    sample: Sampler
    rounds: int
    factor: float = 1.0


def asking(work: str, **settings: Any) -> Sampler:
    return lambda pair: pair.client.ask(work, **settings)


def echoing(kind: str, size: int, count: int) -> Sampler:
    """Megabytes per second, both ways added."""
    def sample(pair: Pair) -> float:
        return 2 * size / pair.client.ask("echo", kind=kind, size=size, count=count) / 1e6
    return sample


def together(work: str, **settings: Any) -> Sampler:
    """What all client processes reach together."""
    def sample(pair: Pair) -> float:
        for client in pair.clients:
            client.tell(work, **settings)
        return sum(client.told() for client in pair.clients)
    return sample


def latency(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """One call at a time. Client and server share one core: on two, the scheduler's choice of
    where to wake the other side outweighs everything that the systems do differently."""
    works = [
        Work(Result("small", "One small call", "µs"),
             asking("small", count=plan.calls), plan.rounds, 1e6),
        Work(Result("text", "Echo of 1 MB of text", "MB/s", True),
             echoing("text", 1_000_000, 5), plan.rounds),
        Work(Result("bytes", "Echo of 16 MB of bytes", "MB/s", True, "raw"),
             echoing("bytes", 16_000_000, 3), plan.at_most(7)),
        Work(Result("array", "Echo of a numpy array of 8 MB", "MB/s", True, "raw"),
             echoing("array", 8_000_000, 3), plan.at_most(7)),
        Work(Result("rows", f"Echo of a list of {plan.rows:,} dicts", "ms"),
             asking("echo", kind="rows", size=plan.rows, count=1), plan.at_most(5), 1e3),
        Work(Result("typed", f"Echo of {plan.typed:,} dataclasses, tuples and datetimes", "ms",
                    baseline="connection"),
             asking("echo", kind="typed", size=plan.typed, count=1), plan.at_most(5), 1e3),
    ]
    return run(works, systems, 1, plan.cpu, sittings=min(3, plan.rounds))


def growth(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """From 10 bytes up, pinned like the above."""
    works = []
    size = 10
    while size <= plan.largest:
        count = max(3, min(50, 1_000_000 // size)) if size < 10_000_000 else 1
        works.append(Work(
            Result(f"text-{size}", f"Echo of {size:,} bytes of text", "MB/s", True),
            echoing("text", size, count), plan.at_most(3),
        ))
        size *= 10
    return run(works, systems, 1, plan.cpu)


def rates(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """Many callers at once, on all cores."""
    works = [
        Work(Result(f"threads-{count}", f"Calls by {count} client threads", "calls/s", True),
             asking("threads", count=count, seconds=plan.seconds), plan.at_most(7))
        for count in plan.threads
    ]
    works.append(Work(
        Result("processes-4", "Calls by 4 client processes", "calls/s", True),
        together("threads", count=1, seconds=plan.seconds), plan.at_most(7),
    ))
    works.append(Work(
        Result("brief", f"{plan.brief:,} connections of one call each", "connections/s", True),
        asking("brief", count=plan.brief), plan.at_most(3),
    ))
    return run(works, systems, 4, None)


def run(works: list[Work], systems: list[System], clients: int, cpu: Optional[int],
        sittings: int = 1) -> Iterator[Result]:
    """Do works in order, in fresh processes for every sitting: where a process happens to have its
    memory makes it faster or slower by some percent for all its life."""
    systems = [system for system in systems
               if any(system.does(work.result.name) for work in works)]
    for sitting in range(sittings):
        refusals: dict[str, str] = {}
        with pairs(systems, clients, cpu, refusals) as started:
            for work in works:
                work.result.refusals.update(refusals)
                candidates = {
                    name: (lambda pair=pair, sample=work.sample: sample(pair))
                    for name, pair in started.items()
                    if name not in work.result.settled and SYSTEMS[name].does(work.result.name)
                }
                interleave(work.result, candidates, -(-work.rounds // sittings), work.factor)
                revive(started, clients, cpu, refusals)
    for work in works:
        yield work.result


def revive(started: dict[str, Pair], clients: int, cpu: Optional[int],
           refusals: dict[str, str]) -> None:
    """Give systems that the last work broke fresh processes for the next one."""
    for name, pair in list(started.items()):
        if pair.alive:
            continue
        pair.close()
        try:
            started[name] = Pair(SYSTEMS[name], clients, cpu)
        except Refused as problem:
            refusals[name] = str(problem)
            del started[name]


def idle(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """What connections cost that are open and silent: memory of the server, and its rate."""
    memory = Result("idle-memory", f"Server's memory for {plan.idle:,} idle connections", "MB")
    rate = Result("idle-rate", f"Rate with {plan.idle:,} idle connections, to that without",
                  "", True, None)

    def sample(system: System) -> float:
        pair = Pair(system, clients=2)
        try:
            busy, idle = pair.clients
            before = busy.ask("threads", count=8, seconds=plan.seconds)
            empty = pair.server.resident()
            idle.ask("hold", count=plan.idle)
            growth = pair.server.resident() - empty
            meanwhile = busy.ask("threads", count=8, seconds=plan.seconds)
            idle.ask("release")
            after = busy.ask("threads", count=8, seconds=plan.seconds)
        finally:
            pair.close()
        rate.samples.setdefault(system.name, []).append(2 * meanwhile / (before + after))
        return growth

    candidates = {system.name: (lambda system=system: sample(system))
                  for system in systems if system.does(memory.name)}
    interleave(memory, candidates, max(1, plan.at_most(9) // 3), 1e-6)
    rate.refusals = dict(memory.refusals)
    yield from (memory, rate)
