"""The goals that app-net sets itself, and whether a run meets them."""
from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from .measure import Result

Results = dict[str, Result]

#: Not other systems but measures: they carry no calls of a user's.
MEASURES = ("raw", "floor")


class Goal(NamedTuple):
    """``measure`` gives the number, or ``None`` when the run does not tell."""

    work: str
    aim: str
    measure: Callable[[Results], Optional[float]]
    met: Callable[[float], bool]


def between(name: str, ours: str, other: str) -> Callable[[Results], Optional[float]]:
    """The ratio of two systems."""
    return lambda results: results[name].ratio(ours, other) if name in results else None


def to_best_other(name: str) -> Callable[[Results], Optional[float]]:
    """The ratio to the best of the systems that someone could use instead."""
    def measure(results: Results) -> Optional[float]:
        if name not in results:
            return None
        others = [system for system in results[name].ranked()
                  if not system.startswith("app-net") and system not in MEASURES]
        return results[name].ratio("app-net", others[0]) if others else None
    return measure


def itself(name: str, system: str = "app-net") -> Callable[[Results], Optional[float]]:
    def measure(results: Results) -> Optional[float]:
        taken = name in results and system in results[name].samples
        return results[name].median(system) if taken else None
    return measure


def at_most(limit: float) -> Callable[[float], bool]:
    return lambda measured: measured <= limit


def at_least(limit: float) -> Callable[[float], bool]:
    return lambda measured: measured >= limit


def first(work: str, name: str) -> Goal:
    """To be the best of all that carries values, in a work of which more is better."""
    return Goal(work, "at least the best other", to_best_other(name), at_least(1.0))


GOALS = (
    Goal("one small call, over TCP", "at most 0.95 of multiprocessing.connection",
         between("small", "app-net-tcp", "connection"), at_most(0.95)),
    Goal("one small call, on one host", "at most 0.85 of multiprocessing.connection",
         between("small", "app-net", "connection"), at_most(0.85)),
    first("small calls, each side on any core", "threads-1"),
    Goal("decorated function, called locally", "at most 100 ns over the bare call",
         itself("local"), at_most(100)),
    first("1 KB text echo", "text-1000"),
    first("10 KB text echo", "text-10000"),
    first("100 KB text echo", "text-100000"),
    first("1 MB text echo", "text"),
    Goal("16 MB bytes echo, on one host", "2 times the best other",
         to_best_other("bytes"), at_least(2.0)),
    Goal("8 MB numpy array, on one host", "1.5 times the best other",
         to_best_other("array"), at_least(1.5)),
    Goal("list of 100,000 dicts", "at most 0.95 times JSON over the floor's socket",
         between("rows", "app-net", "floor"), at_most(0.95)),
    Goal("the same with the extra fast", "at most 0.55 times JSON over the floor's socket",
         between("rows", "app-net-fast", "floor"), at_most(0.55)),
    Goal("10,000 typed values", "at most 1.5 of multiprocessing.connection",
         between("typed", "app-net", "connection"), at_most(1.5)),
    Goal("the same with the extra fast", "at most that of multiprocessing.connection",
         between("typed", "app-net-fast", "connection"), at_most(1.0)),
    first("8 client threads", "threads-8"),
    first("64 client threads", "threads-64"),
    first("4 client processes", "processes-4"),
    first("connections of one call", "brief"),
    Goal("the same under a secret, on one host", "at least 0.5 of the open ones",
         between("brief", "app-net-secret", "app-net"), at_least(0.5)),
    Goal("one small call under a secret, on one host", "at most 1.3 times the open one",
         between("small", "app-net-secret", "app-net"), at_most(1.3)),
    *[Goal(f"{what} under a secret, on one host", "at least 0.6 of the open rate",
           between(name, "app-net-secret", "app-net"), at_least(0.6))
      for what, name in (("1 MB text", "text"), ("16 MB bytes", "bytes"),
                         ("8 MB numpy array", "array"))],
    Goal("1,000 idle connections", "at most the floor's memory",
         between("idle-memory", "app-net", "floor"), at_most(1.0)),
    Goal("the same under a secret, on one host", "at most 40 MB",
         itself("idle-memory", "app-net-secret"), at_most(40)),
    Goal("1,000 idle connections", "at least 0.95 of the rate without them",
         itself("idle-rate"), at_least(0.95)),
    *[first(f"events to {count} subscriber{'s' * (count > 1)}", f"events-{count}")
      for count in (1, 10, 50)],
    Goal("small events to one subscriber", "at least 20,000 a second",
         itself("events-1"), at_least(20_000)),
    Goal("one event to 1 subscriber", "at most 100 µs of the caller's",
         itself("event-cost-1"), at_most(100)),
    Goal("one event to 50 subscribers", "at most 100 µs of the caller's",
         itself("event-cost-50"), at_most(100)),
    Goal("time to import", "at most 19 ms over the modules that it loads",
         itself("import-own"), at_most(19)),
    Goal("search of 20 hosts, all found", "at most 100 ms",
         itself("discovery-all"), at_most(100)),
)
