"""How much is measured."""
from __future__ import annotations

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Plan:
    """Counts for all works.

    :ivar rounds: those of the quick works; works that take long have fewer.
    :ivar calls: small calls in one sample.
    :ivar seconds: those of one sample of a rate.
    :ivar largest: bytes of the largest text.
    :ivar share: the part of the awaited calls, items, callbacks and spread tasks that is measured.
    :ivar cpu: the core to which latency is pinned; ``None`` where a process can't be pinned.
    """

    rounds: int = 9
    calls: int = 1000
    seconds: float = 1.0
    rows: int = 100_000
    typed: int = 10_000
    largest: int = 100_000_000
    threads: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    idle: int = 1000
    brief: int = 1000
    events: int = 2000
    subscribers: tuple[int, ...] = (1, 10, 50)
    share: float = 1.0
    cpu: Optional[int] = None

    def at_most(self, rounds: int) -> int:
        return min(rounds, self.rounds)


FULL = Plan()
QUICK = Plan(
    rounds=3, calls=200, seconds=0.2, largest=1_000_000, threads=(1, 8, 64), subscribers=(1, 10),
    share=0.1,
)
