"""Which connections are served, and which of them gives way when there are too many. No socket, no
thread; callers lock."""
from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Dict, Iterator, Optional, Set, Tuple

from .server_connection import ServerConnection

# Places that are kept for sources with few connections: one source alone never fills them all. An
# eighth, and at most so many.
MAX_RESERVED = 64
# Seconds that a connection must have been idle to give way to a newcomer. A caller that is about to
# use it again may lose its call then, without knowing whether it ran.
IDLE_GRACE = 1.0


class ServedConnections:
    """The connections of a server, by source."""

    def __init__(self) -> None:
        self._all: Set[ServerConnection] = set()
        self._counts: Counter[str] = Counter()
        # Those that have not brought a whole request yet, of each source in the order in which they
        # came. A flood makes us choose among them hundreds of times a second.
        self._unfinished: Dict[str, Dict[ServerConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def add(self, connection: ServerConnection) -> None:
        """Give a connection its place."""
        self._all.add(connection)
        self._counts[connection.source] += 1
        self._unfinished.setdefault(connection.source, {})[connection] = None

    def discard(self, connection: ServerConnection) -> bool:
        """Take its place back; False if it has none."""
        if connection not in self._all:
            return False
        self._all.remove(connection)
        self._finish(connection)
        self._counts[connection.source] -= 1
        if not self._counts[connection.source]:
            del self._counts[connection.source]
        return True

    def admit(self, connection: ServerConnection) -> bool:
        """It has brought a whole request; False if it was given up before that."""
        if connection not in self._all:
            return False
        self._finish(connection)
        return True

    def _finish(self, connection: ServerConnection) -> None:
        unfinished = self._unfinished.get(connection.source, {})
        if unfinished.pop(connection, self) is not self and not unfinished:
            del self._unfinished[connection.source]

    def has_room(self, source: str, most: int) -> bool:
        """Whether there is a place for one more of a source.

        :param most: places in all.
        """
        reserved = min(most // 8, MAX_RESERVED)
        if len(self._all) < most - reserved:
            return True
        return len(self._all) < most and self._counts.get(source, 0) < reserved

    def eviction_candidate(self, newcomer: Optional[str]) -> Optional[ServerConnection]:
        """The connection to evict: one that has not sent a whole request yet, or that is idle, of
        the source that has most. None if all of them have a running call.

        :param newcomer: the source that needs the place; None if something else than places is
            short.
        """
        if self._unfinished:
            # Of the source with most of them; those without a valid preface first, oldest first.
            pending = max(self._unfinished.values(), key=_urgency)
            return next((one for one in pending if not one.greeted), next(iter(pending)))
        idle_before = monotonic() - IDLE_GRACE
        counts = self._counts
        own = counts.get(newcomer or "", 0)
        idle = [one for one in self._all
                if counts[one.source] >= own and one.idle_since() < idle_before]
        return min(idle, key=lambda one: (-counts[one.source], one.deadline), default=None)


def _urgency(pending: Dict[ServerConnection, None]) -> Tuple[int, bool, float]:
    first = next(iter(pending))
    return len(pending), not first.greeted, -first.since
