"""What app-net sets itself, and whether a run shows it."""
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


def to_baseline(name: str) -> Callable[[Results], Optional[float]]:
    return lambda results: results[name].ratio("app-net") if name in results else None


def to_best_other(name: str) -> Callable[[Results], Optional[float]]:
    """The ratio to the best of the systems that someone could use instead."""
    def measure(results: Results) -> Optional[float]:
        if name not in results:
            return None
        others = [system for system in results[name].ranked()
                  if not system.startswith("app-net") and system not in MEASURES]
        return results[name].ratio("app-net", others[0]) if others else None
    return measure


def itself(name: str) -> Callable[[Results], Optional[float]]:
    def measure(results: Results) -> Optional[float]:
        taken = name in results and "app-net" in results[name].samples
        return results[name].median("app-net") if taken else None
    return measure


def at_most(limit: float) -> Callable[[float], bool]:
    return lambda measured: measured <= limit


def at_least(limit: float) -> Callable[[float], bool]:
    return lambda measured: measured >= limit


GOALS = (
    Goal("one small call, pinned", "at most 0.90 of the floor",
         to_baseline("small"), at_most(0.90)),
    Goal("one small call, pinned", "below the best other",
         to_best_other("small"), at_most(1.0)),
    Goal("decorated function, called locally", "at most 150 ns over the bare call",
         itself("local"), at_most(150)),
    Goal("1 MB text echo", "at least the best other",
         to_best_other("text"), at_least(1.0)),
    Goal("16 MB bytes echo", "1.2 times the best other",
         to_best_other("bytes"), at_least(1.2)),
    Goal("list of 100,000 dicts", "at most 1.3 times JSON over the floor's socket",
         to_baseline("rows"), at_most(1.3)),
    Goal("10,000 typed values", "at most 1.5 times pickle by multiprocessing.connection",
         to_baseline("typed"), at_most(1.5)),
    Goal("8 client threads", "at least 0.9 of the floor's rate",
         to_baseline("threads-8"), at_least(0.9)),
    Goal("4 client processes", "at least 0.9 of the floor's rate",
         to_baseline("processes-4"), at_least(0.9)),
    Goal("1,000 idle connections", "at most 60 MB more",
         itself("idle-memory"), at_most(60)),
    Goal("1,000 idle connections", "at least 0.7 of the rate",
         itself("idle-rate"), at_least(0.7)),
    Goal("small events to one subscriber", "at least 20,000 a second",
         itself("events-1"), at_least(20_000)),
    Goal("one event to 1 subscriber", "at most 100 µs of the caller's",
         itself("event-cost-1"), at_most(100)),
    Goal("one event to 50 subscribers", "at most 100 µs of the caller's",
         itself("event-cost-50"), at_most(100)),
)
