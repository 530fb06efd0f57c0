"""Which connections are served, and which of them gives way when there are too many. No socket, no
thread; callers lock."""
from __future__ import annotations

from heapq import nsmallest
from operator import itemgetter
from time import monotonic
from typing import Dict, Iterator, List, Optional, Set, Tuple

from .server_connection import ServerConnection

# Places that are kept for sources with few connections, so that no single source fills all places:
# an eighth of them, and at most so many.
MAX_RESERVED = 64
# Seconds that a connection must have been idle to give way to a newcomer. A caller that is just
# using it again may lose its call, without knowing whether that ran.
IDLE_GRACE = 1.0
# Idle connections of a source that are picked in one look at all of its connections.
AT_ONCE = 32
# How many times its age a connection counts for that has not brought a valid preface: a flood of
# prefaces must not push out clients that have only just connected.
UNGREETED = 4


class _Share:
    """The connections of one source.

    :ivar unfinished: those that have not brought a whole request yet, in the order in which they
        came. In a flood, one of them has to be chosen hundreds of times a second.
    :ivar idle: some that were idle at the last look, the last of them for longest.
    :ivar busy_until: monotonic time before which no other can have been idle for long enough.
    """

    def __init__(self) -> None:
        self.connections: Dict[ServerConnection, None] = {}
        self.unfinished: Dict[ServerConnection, None] = {}
        self.idle: List[Tuple[float, ServerConnection]] = []
        self.busy_until = 0.0

    def candidate(self, now: float) -> Optional[ServerConnection]:
        """The connection that is best evicted; None if all have a running call, or had one a moment
        ago."""
        if self.unfinished:
            first = next(iter(self.unfinished))
            silent = next((one for one in self.unfinished if not one.greeted), first)
            return silent if UNGREETED * (now - silent.since) > now - first.since else first
        if not self.idle and now >= self.busy_until:
            self._look(now)
        while self.idle:
            since, one = self.idle.pop()
            if one in self.connections and one.idle_since() == since:
                return one
        return None

    def _look(self, now: float) -> None:
        idle = [(one.idle_since(), one) for one in self.connections]
        self.busy_until = min(now, *(since for since, _ in idle)) + IDLE_GRACE
        self.idle = nsmallest(AT_ONCE, (pair for pair in idle if pair[0] < now - IDLE_GRACE),
                              key=itemgetter(0))[::-1]


class ServedConnections:
    """The connections of a server, by source."""

    def __init__(self) -> None:
        self._all: Set[ServerConnection] = set()
        self._shares: Dict[str, _Share] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def add(self, connection: ServerConnection) -> None:
        """Give a connection its place."""
        self._all.add(connection)
        share = self._shares.setdefault(connection.source, _Share())
        share.connections[connection] = share.unfinished[connection] = None

    def discard(self, connection: ServerConnection) -> bool:
        """Take the place of a connection back; False if it has none."""
        if connection not in self._all:
            return False
        self._all.remove(connection)
        share = self._shares[connection.source]
        del share.connections[connection]
        share.unfinished.pop(connection, None)
        if not share.connections:
            del self._shares[connection.source]
        return True

    def admit(self, connection: ServerConnection) -> bool:
        """Note that a connection has brought a whole request; False if it was given up before
        that."""
        if connection not in self._all:
            return False
        self._shares[connection.source].unfinished.pop(connection, None)
        return True

    def has_room(self, source: str, most: int) -> bool:
        """Whether there is a place for one more of a source.

        :param most: places in all.
        """
        reserved = min(most // 8, MAX_RESERVED)
        if len(self._all) < most - reserved:
            return True
        return len(self._all) < most and self._count(source) < reserved

    def _count(self, source: str) -> int:
        share = self._shares.get(source)
        return 0 if share is None else len(share.connections)

    def eviction_candidate(self, newcomer: Optional[str]) -> Optional[ServerConnection]:
        """The connection to evict: of the source with the most connections, one that has not sent a
        whole request yet, or else one that is idle. None if there is none of a source that has at
        least as many connections as the newcomer's.

        :param newcomer: the source that needs the place; None if something other than places is
            short.
        """
        now = monotonic()
        own = 0 if newcomer is None else self._count(newcomer)
        shares = [share for share in self._shares.values() if len(share.connections) >= own]
        shares.sort(key=lambda share: -len(share.connections))
        return next(filter(None, (share.candidate(now) for share in shares)), None)
