"""Which peer gets the next call."""
from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Dict, Iterable, Optional


# Peers whose last turn is remembered: many may come and go in the life of a process.
MOST = 1024


class Balance:
    """Chooses the peer with the fewest calls of this process in flight, in turn among equals. Any
    thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._in_flight: Counter[Any] = Counter()
        # When each was chosen last, counted in turns; in this order.
        self._chosen: Dict[Any, int] = {}
        self._turn = 0

    def take(self, peers: Iterable[Any]) -> Optional[Any]:
        """Choose a peer, and count a call for it; None if there is none."""
        with self._lock:
            peer = min(peers, default=None,
                       key=lambda one: (self._in_flight[one], self._chosen.get(one, 0)))
            if peer is not None:
                self._turn += 1
                self._in_flight[peer] += 1
                self._chosen.pop(peer, None)
                self._chosen[peer] = self._turn
                if len(self._chosen) > MOST:
                    del self._chosen[next(iter(self._chosen))]
            return peer

    def give_back(self, peer: Any) -> None:
        """Count a call as ended."""
        with self._lock:
            self._in_flight[peer] -= 1
            if self._in_flight[peer] <= 0:
                del self._in_flight[peer]

    def in_flight(self, peer: Any) -> int:
        """How many calls of this process a peer has."""
        with self._lock:
            return self._in_flight.get(peer, 0)
