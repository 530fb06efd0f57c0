"""Keeps the known peers: searches when asked to, follows announcements, tells who watches."""
from __future__ import annotations

import logging
import os
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Callable, Deque, Dict, Iterable, List, Optional, Set, Tuple

from ..settings import is_loopback
from ..errors import Address, NetError
from ..identity import PeerId
from ..peer import own_instance
from ..log import SafeLog

if TYPE_CHECKING:
    from .listing import Peers
    from .report import Report

log = SafeLog(__name__)

#: Called with ``"came"`` or ``"left"`` and the peer.
Callback = Callable[[str, PeerId], None]

# Seconds between looks at the known peers while somebody watches: a peer that is killed says no
# goodbye.
WATCH_SECONDS = 10.0
# After so many looks comes a whole search: where datagrams are blocked, nobody hears a hello.
LOOKS_PER_SEARCH = 6

# Seconds for a peer that was announced to answer, and for one that is known: it may be busy with
# something else, and nobody waits for it.
LOOK_SECONDS = 1.0
KNOWN_SECONDS = 3.0

# Announced addresses that wait for a look; more are a flood, and the next search finds them.
MAX_PENDING = 1024


class PeerCache:
    """The known peers of this process. Any thread may call."""

    def __init__(self) -> None:
        # One search at a time. Held while searching: whoever wants the same waits for it.
        self._searching = threading.Lock()
        self._searched_at = 0.0
        self._lock = threading.Lock()  # guards what follows
        self._peers: Dict[Address, PeerId] = {}
        self._own: Set[str] = set()
        self._report: Optional[Report] = None
        # What has been searched: "", "host" for this host, or "all".
        self._scope = ""
        self._pending: Deque[Address] = deque(maxlen=MAX_PENDING)
        self._looking = False
        self._watches: List[Watch] = []
        self._looked_at = 0.0
        self._looks = 0

    def forget(self) -> None:
        """Start anew, in a forked child: it is another peer, and no thread of ours lives there."""
        self.__init__()  # type: ignore[misc]

    # ------------------------------------------------------------------ for net.peers

    def peers(self, refresh: bool = False, on_host: bool = False) -> Peers:
        """The known peers; searches if nobody has yet, or to refresh."""
        scope = "host" if on_host else "all"
        called = monotonic()
        if refresh or not self._has(scope):
            with self._searching:
                # Another thread may have searched while this one waited.
                if not self._has(scope) or refresh and self._searched_at < called:
                    self._search(scope)
        return self._listing(on_host)

    def _has(self, scope: str) -> bool:
        return self._scope in (scope, "all")

    def _search(self, scope: str) -> None:
        from .merging import merge_answers  # all that searching needs is loaded by the first one
        from .search import search

        started = monotonic()
        known = list(self._peers)
        outcome = search(scope == "host", known)
        found = merge_answers(outcome.answers, own_instance(), outcome.own)
        outcome.report.dropped = found.dropped
        outcome.report.peers = len(found.peers)
        claims = {_claims(peer) for peer in found.peers}
        with self._lock:
            # A peer that has come during the search may have come too late for it.
            kept = [peer for peer in self._peers.values()
                    if scope == "host" and not _is_here(peer, outcome.own)
                    or peer.address not in known and _claims(peer) not in claims]
            self._own, self._report = outcome.own, outcome.report
            self._scope = "all" if self._scope == "all" else scope
            self._replace([*found.peers, *kept])
        self._searched_at = started

    def _listing(self, on_host: bool) -> Peers:
        from .merging import in_order
        from .listing import Peers

        with self._lock:
            peers = sorted(self._peers.values(), key=in_order)
            own, report = self._own, self._report
        return Peers([peer for peer in peers if not on_host or _is_here(peer, own)], report)

    def _replace(self, peers: Iterable[PeerId]) -> None:
        """Let these be the known peers, and tell the watches what that changes."""
        before = {_who(peer): peer for peer in self._peers.values()}
        self._peers = {peer.address: peer for peer in peers}
        after = {_who(peer): peer for peer in self._peers.values()}
        for watch in self._watches:
            watch.tell("left", [before[who] for who in before if who not in after])
            watch.tell("came", [after[who] for who in after if who not in before])

    # ------------------------------------------------------------------ for the beacon

    def in_use(self) -> bool:
        """Whether anybody has asked for peers yet, so that news matter."""
        return bool(self._scope) or self._searching.locked()

    def knows(self, address: Address) -> bool:
        """Whether a peer of this address is listed."""
        return address in self._peers

    def look_at(self, address: Address) -> None:
        """Find out what is at this address now; returns at once."""
        with self._lock:
            if address not in self._pending:
                self._pending.append(address)
            if self._looking:
                return
            try:
                threading.Thread(target=self._look, name="net-keeper", daemon=True).start()
                self._looking = True
            except RuntimeError as problem:
                # No thread to be had, or the program is ending; the next news tries again.
                log(logging.INFO, "news of %d peers have to wait: %s", len(self._pending), problem)

    def _look(self) -> None:
        while True:
            with self._lock:
                addresses = set(self._pending)
                self._pending.clear()
                if not addresses:
                    self._looking = False
                    return
            self._check(addresses, LOOK_SECONDS)

    def _check(self, addresses: Set[Address], seconds: float) -> None:
        """Ask these addresses again, and list what is there now."""
        from .merging import merge_answers
        from .search import look_at

        answers = look_at(addresses, seconds)
        with self._lock:
            kept = [peer for peer in self._peers.values() if peer.address not in addresses]
            known = {who: peer for who, peer in zip(map(_claims, kept), kept)}
            found = merge_answers(answers, own_instance(), self._own).peers
            # A peer that is listed under another of its addresses stays under that.
            self._replace([*kept, *(peer for peer in found if _claims(peer) not in known)])

    # ------------------------------------------------------------------ for net.watch

    def watch(self, callback: Callback) -> Watch:
        """Start to tell a function about peers that come and go."""
        return Watch(self, callback)

    def join(self, watch: Watch) -> None:
        """Tell a watch who is known now, and from now on what changes."""
        with self._lock:
            self._watches.append(watch)
            watch.tell("came", list(self._peers.values()))

    def leave(self, watch: Watch) -> None:
        """Tell a watch no more."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def look_around(self) -> None:
        """Look whether the known peers are there, now and then whether there are others."""
        now = monotonic()
        with self._lock:
            # Several watches share the looks.
            if now - self._looked_at < WATCH_SECONDS / 2:
                return
            self._looked_at = now
            self._looks += 1
            addresses = set(self._peers)
        if self._looks % LOOKS_PER_SEARCH == 0:
            self.peers(refresh=True)
        elif addresses:
            self._check(addresses, KNOWN_SECONDS)


class Watch:
    """One function that is told about peers, in a daemon thread of its own."""

    def __init__(self, keeper: PeerCache, callback: Callback) -> None:
        self._keeper = keeper
        self._callback = callback
        self._news: SimpleQueue[Optional[Tuple[str, PeerId]]] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="net-watch", daemon=True)
        self._thread.start()

    def tell(self, change: str, peers: Iterable[PeerId]) -> None:
        """Queue news."""
        for peer in peers:
            self._news.put((change, peer))

    def stop(self) -> None:
        """Call the function no more. It may be called from the function itself, and twice."""
        self._stopped = True
        self._news.put(None)
        self._keeper.leave(self)
        if threading.current_thread() is not self._thread:
            self._thread.join(LOOK_SECONDS)

    def _run(self) -> None:
        try:
            self._attempt(self._keeper.peers)
            if not self._stopped:
                self._keeper.join(self)
            while not self._stopped:
                try:
                    news = self._news.get(timeout=WATCH_SECONDS)
                except Empty:
                    self._attempt(self._keeper.look_around)
                    continue
                if news is not None and not self._stopped:
                    self._attempt(self._callback, *news)
        finally:
            self._keeper.leave(self)

    def _attempt(self, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except (NetError, OSError) as exc:
            # What goes wrong with a search is no error; in the application's callback it is one.
            ours = function is not self._callback
            log(logging.WARNING if ours else logging.ERROR, "watching peers: %s", exc,
                exc_info=not ours)
        except Exception:
            log(logging.ERROR, "watching peers: %r failed", function, exc_info=True)


def _is_here(peer: PeerId, own: Set[str]) -> bool:
    return is_loopback(peer.host) or peer.host in own


def _claims(peer: PeerId) -> Tuple[object, ...]:
    """What two addresses of one peer have in common."""
    if "instance" not in peer.info:
        return (peer,)
    return tuple(repr(peer.info.get(name)) for name in ("instance", "host", "port"))


def _who(peer: PeerId) -> Tuple[object, ...]:
    """What differs when a peer ends and another takes its address."""
    return (peer, peer.info.get("instance"))


#: That of this process.
known_peers = PeerCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=known_peers.forget)
