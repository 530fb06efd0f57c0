"""Interleaved rounds, and what is made of them."""
from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from typing import Any, Callable, Optional

from .processes import Refused

#: Seconds of one sample from which a system is measured once only: its place is clear by then.
SLOW = 3.0


@dataclasses.dataclass
class Result:
    """One work: what each system took in each round, or why it took no part.

    :ivar unit: of the samples as they are shown.
    :ivar more_is_better: whether a rate or a time.
    :ivar baseline: the system that the ratios are to, ``None`` where there is none.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool = False
    baseline: Optional[str] = "floor"
    samples: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    refusals: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Systems that need not be measured again.
    settled: list[str] = dataclasses.field(default_factory=list)

    def median(self, system: str) -> float:
        return statistics.median(self.samples[system])

    def spread(self, system: str) -> float:
        """Half the distance of the quartiles, as a part of the median."""
        samples = self.samples[system]
        if len(samples) < 2 or not self.median(system):
            return 0.0
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        return (high - low) / 2 / abs(self.median(system))

    def ratio(self, system: str, other: Optional[str] = None) -> Optional[float]:
        """The median of the ratios of each round; ``None`` when there is nothing to compare."""
        other = other or self.baseline
        if not other or not self.samples.get(other) or not self.samples.get(system):
            return None
        pairs = zip(self.samples[system], self.samples[other])
        return statistics.median(a / b if b else float("inf") for a, b in pairs)

    def ranked(self) -> list[str]:
        """The systems that took part, the best first."""
        return sorted(self.samples, key=self.median, reverse=self.more_is_better)

    def as_json(self) -> dict[str, Any]:
        facts = dataclasses.asdict(self)
        facts["medians"] = {system: self.median(system) for system in self.samples}
        facts["ratios"] = {system: self.ratio(system) for system in self.samples}
        return facts


def result_from_json(facts: dict[str, Any]) -> Result:
    return Result(**{field.name: facts[field.name] for field in dataclasses.fields(Result)})


def note(text: str) -> None:
    """Progress on standard error; the report is on standard output."""
    print(f"  {text}", file=sys.stderr, flush=True)


def interleave(
    result: Result, candidates: dict[str, Callable[[], float]], rounds: int, factor: float = 1.0
) -> Result:
    """Fill a result: each round takes one sample of every system, one after the other.

    What slows the machine for a while then slows all of them, and the ratios hold.
    """
    waiting = dict(candidates)
    for _ in range(rounds):
        for system, sample in list(waiting.items()):
            start = time.perf_counter()
            try:
                value = sample() * factor
            except Refused as problem:
                result.refusals[system] = str(problem)
                result.samples.pop(system, None)
                result.settled.append(system)
                del waiting[system]
                continue
            result.samples.setdefault(system, []).append(value)
            slow = time.perf_counter() - start > SLOW
            if slow and system not in ("app-net", result.baseline):
                result.settled.append(system)
                del waiting[system]
    note(result.title)
    return result
