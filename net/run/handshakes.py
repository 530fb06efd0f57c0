"""Which TLS handshake is next. Each takes milliseconds of work before the client has proved
anything, so they are shared out by source. No socket, no thread; callers lock."""
from __future__ import annotations

from operator import itemgetter
from time import monotonic
from typing import Any, Dict, List, Optional, Tuple

from .server_connection import ServerConnection

# First steps that are done at the same time; they are the work of a handshake.
AT_ONCE = 2
# Handshakes that one source may have begun without having proved anything by them, and how many
# failed ones are forgiven in a second.
MOST, FORGIVEN = 64, 8
# The same for all sources together; beyond that, each source may have begun only a few.
MOST_IN_ALL, FEW = 256, 4
# Seconds that a handshake may wait whose source has used all of that and proves nothing, and that
# any may wait.
PATIENCE, MAX_WAIT = 1.5, 2.5


class _Share:
    """The handshakes of one source.

    :ivar waiting: connections in the order in which they came, with the time, and what to go on
        with.
    :ivar open: how many have begun, and have neither failed nor proved anything.
    :ivar failed: how many have failed, without those that were forgiven until ``at``.
    :ivar proved: monotonic time at which one has last proved something; before that, when the first
        one came.
    """

    def __init__(self, now: float) -> None:
        self.waiting: Dict[ServerConnection, Tuple[float, Any]] = {}
        self.open = 0
        self.failed = 0.0
        self.at = self.proved = now

    def debt(self, now: float) -> float:
        self.failed = max(0.0, self.failed - (now - self.at) * FORGIVEN)
        self.at = now
        return self.open + self.failed

    def is_hopeless(self, now: float) -> bool:
        return self.debt(now) >= MOST and now - self.proved > PATIENCE


class Handshakes:
    """The handshakes of a server's clients, by source. First comes the source with the fewest
    handshakes that have proved nothing."""

    def __init__(self) -> None:
        self._shares: Dict[str, _Share] = {}
        self._working: Dict[ServerConnection, None] = {}
        self._open: Dict[ServerConnection, None] = {}

    def wait(self, connection: ServerConnection, rest: Any) -> bool:
        """Let the handshake of a client wait for its turn; False if it would wait in vain.

        :param rest: what :meth:`next` gives with it.
        """
        now = monotonic()
        share = self._shares.get(connection.source)
        if share is None:
            share = self._shares[connection.source] = _Share(now)
        if len(share.waiting) >= FORGIVEN * PATIENCE and share.is_hopeless(now):
            return False
        share.waiting[connection] = now, rest
        return True

    def next(self) -> Optional[Tuple[ServerConnection, Any]]:
        """The handshake to go on with now; None if there is none, or none may. Call :meth:`over` at
        its end."""
        if len(self._working) >= AT_ONCE:
            return None
        now = monotonic()
        debts = [(share.debt(now), share) for share in self._shares.values()]
        debt, share = min((one for one in debts if one[1].waiting), default=(MOST, None),
                          key=itemgetter(0))
        in_all = sum(debt for debt, _ in debts)
        if share is None or debt >= (MOST if in_all < MOST_IN_ALL else FEW):
            return None
        connection = next(iter(share.waiting))
        _, rest = share.waiting.pop(connection)
        share.open += 1
        self._working[connection] = self._open[connection] = None
        return connection, rest

    def worked(self, connection: ServerConnection) -> bool:
        """Note that the first step of a handshake is done. Returns whether another may be next."""
        self._working.pop(connection, None)
        return self._any_waits()

    def proved(self, connection: ServerConnection) -> bool:
        """Note that the client has proved that it belongs to us; otherwise as :meth:`worked`."""
        if connection in self._open:
            del self._open[connection]
            share = self._shares[connection.source]
            share.open -= 1
            share.proved = monotonic()
        return self.worked(connection)

    def over(self, connection: ServerConnection) -> bool:
        """Note that a connection has ended, whatever became of its handshake; may be called again.
        Otherwise as :meth:`worked`."""
        share = self._shares.get(connection.source)
        if share is not None:
            share.waiting.pop(connection, None)
            if connection in self._open:
                del self._open[connection]
                share.debt(monotonic())
                share.open -= 1
                share.failed += 1
        return self.worked(connection)

    def late(self) -> List[ServerConnection]:
        """The connections that have waited for too long. Forgets shares that are not needed."""
        now = monotonic()
        found: List[ServerConnection] = []
        for source, share in list(self._shares.items()):
            patience = PATIENCE if share.is_hopeless(now) else MAX_WAIT
            found += (one for one, (since, _) in share.waiting.items() if now - since > patience)
            if not share.waiting and not share.debt(now):
                del self._shares[source]
        return found

    def _any_waits(self) -> bool:
        return any(share.waiting for share in self._shares.values())
