"""The list of known peers: what fills it, keeps it true, and learns of its changes."""
from __future__ import annotations

import logging
import math
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from time import monotonic
from typing import (TYPE_CHECKING, Callable, Dict, Hashable, Iterable, Iterator, List, NamedTuple,
                    Optional, Set, Tuple)

from ..errors import Address, CallCancelled, NetError
from ..identity import PeerId
from ..log import DISCOVERY, RateLimitedLog
from ..process import Process
from ..settings import is_loopback
from .answers import Answer
from .finder import Finder

if TYPE_CHECKING:
    from ..executors import Place
    from .listing import Peers
    from .report import Report

note = RateLimitedLog(logging.getLogger(DISCOVERY), burst=10)

#: Called with ``"came"`` or ``"left"`` and the peer.
Callback = Callable[[str, PeerId], object]

# Peers that are listed, and bytes of their descriptions as they arrived; in memory these take some
# ten times as much. For one host the limits are lower: a stranger must not fill the list.
MAX_PEERS, MAX_BYTES = 2048, 8 * 2**20
MAX_HOST_PEERS, MAX_HOST_BYTES = 128, 512 * 1024

# Seconds after the last call of net.peers() for which the list is kept true. The next call after
# that searches again.
USED_SECONDS = 60.0

# Seconds for which the end of a watch waits for its callback.
STOP_SECONDS = 1.0


class Known(NamedTuple):
    """A listed peer, the answer that says so, and what it has in common with its other addresses.
    """

    peer: PeerId
    answer: Answer
    identity: Hashable


class Entries:
    """The listed peers by address, and how much they take. For one thread at a time."""

    def __init__(self) -> None:
        self.known: Dict[Address, Known] = {}
        self._places: Dict[Hashable, Address] = {}
        self._hosts: Dict[str, List[int]] = {}
        self._bytes = 0

    def place(self, identity: Hashable) -> Optional[Address]:
        """The address under which a peer is listed."""
        return self._places.get(identity)

    def add(self, one: Known) -> bool:
        """List a peer; return whether there was room for it."""
        host, size = one.answer.address[0], one.answer.size
        number, total = self._hosts.setdefault(host, [0, 0])
        if len(self.known) >= MAX_PEERS or self._bytes + size > MAX_BYTES \
                or number >= MAX_HOST_PEERS or total + size > MAX_HOST_BYTES:
            if not number:
                del self._hosts[host]
            return False
        self._hosts[host] = [number + 1, total + size]
        self._bytes += size
        self.known[one.answer.address] = one
        self._places[one.identity] = one.answer.address
        return True

    def remove(self, address: Address) -> Optional[Known]:
        """Take a peer off the list; return it, or None if it was not listed."""
        one = self.known.pop(address, None)
        if one is not None:
            number, total = self._hosts.pop(address[0])
            if number > 1:
                self._hosts[address[0]] = [number - 1, total - one.answer.size]
            self._bytes -= one.answer.size
            if self._places.get(one.identity) == address:
                del self._places[one.identity]
        return one


class PeerCache:
    """The known peers of this process. Any thread may call."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # One search at a time. Held while searching: other threads that want the same wait for it.
        self._searching = threading.Lock()
        self._searched_at = 0.0
        self._lock = threading.RLock()  # guards what follows
        self._entries = Entries()
        self._own: Set[str] = set()
        self._report: Optional[Report] = None
        # What was given last, for all networks and for this host.
        self._listed: Dict[bool, Peers] = {}
        # What has been searched: "", "host" for this host, or "all".
        self._scope = ""
        self._watches: List[Watch] = []
        # Until when the finders keep the list true: monotonic; infinity, or 0 for not at all.
        self._kept_until = 0.0
        if not hasattr(self, "finders"):
            self.finders: List[Finder] = []
            # Whether a peer of an address may be listed.
            self._holds: Callable[[Address], bool] = _anybody

    def forget(self) -> None:
        """Start afresh in a forked child: it is another peer, and has none of our threads."""
        self.__init__(self._process)  # type: ignore[misc]
        for finder in self.finders:
            finder.forget()

    # ------------------------------------------------------------------ for net.peers

    def peers(self, refresh: bool = False, on_host: bool = False) -> Peers:
        """The known peers; searches if there was no search yet, or to refresh."""
        scope = "host" if on_host else "all"
        called = monotonic()
        if refresh or not self._has(scope):
            with self._searching:
                # Another thread may have searched while this one waited.
                if not self._has(scope) or refresh and self._searched_at < called:
                    self._search(scope)
        self._use()
        return self._listing(on_host)

    def _has(self, scope: str) -> bool:
        return self._scope in (scope, "all") and not self._is_stale

    def _search(self, scope: str) -> None:
        # All that searching needs is loaded by the first one, before its clock runs.
        from .lan.quest import LanQuest  # noqa: F401
        from .search import search

        started = monotonic()
        with self._lock:
            known = [address for address in self._entries.known
                     if scope == "all" or _is_here(address[0], self._own)]
        outcome = search(self.finders, scope == "host", known)
        with self._lock:
            self._own, self._report = outcome.own, outcome.report
            self._scope = "all" if self._scope == "all" else scope
            # A peer that only did not answer is asked again, while something keeps the list.
            kept = self._kept_until > monotonic()
            gone = outcome.gone if kept else outcome.gone | outcome.silent
            outcome.report.dropped += self._change(outcome.answers, gone)
            outcome.report.peers = len(self._entries.known)
        for address in outcome.silent - gone:
            self.doubt(address)
        self._searched_at = started

    def _listing(self, on_host: bool) -> Peers:
        from .listing import Peers
        from .merging import in_order

        with self._lock:
            if on_host not in self._listed:
                peers = sorted([one.peer for one in self._entries.known.values()
                                if not on_host or _is_here(one.peer.host, self._own)],
                               key=in_order)
                self._listed[on_host] = Peers(peers, self._report)
            return self._listed[on_host]

    # ------------------------------------------------------------------ changes

    def learn(self, answers: Iterable[Answer]) -> None:
        """List the peers that have answered."""
        with self._lock:
            self._change(list(answers), set())

    def drop(self, address: Address) -> None:
        """Take a peer off the list: it is gone."""
        with self._lock:
            self._change([], {address})

    @contextmanager
    def elsewhere(self, holds: Callable[[Address], bool],
                  finders: Optional[List[Finder]] = None) -> Iterator[None]:
        """Put this process into another network for a while. What was known before is forgotten; so
        is, at the end, what was found there.

        :param holds: whether an address belongs to that network; no others are listed.
        :param finders: those of that network; None for the present ones.
        """
        before = self._holds, self.finders
        self._go(holds, self.finders if finders is None else finders)
        try:
            yield
        finally:
            self._go(*before)

    def _go(self, holds: Callable[[Address], bool], finders: List[Finder]) -> None:
        with self._searching, self._lock:
            self._change([], list(self._entries.known))
            self._holds, self.finders, self._scope = holds, finders, ""

    def doubt(self, address: Address) -> None:
        """Find out whether a peer that could not be reached is gone."""
        for finder in self.finders:
            finder.doubt(address)

    def changed(self) -> None:
        """What the peer of this process says about itself has changed."""
        for finder in self.finders:
            finder.changed()

    def knows(self, address: Address) -> bool:
        """Whether a peer of this address is listed."""
        return address in self._entries.known

    def _change(self, answers: List[Answer], gone: Iterable[Address]) -> List[Tuple[Address, str]]:
        """Change the list and tell everybody; return ``(address, why)`` of what is not listed.

        Under the lock, so that all watches learn of changes in the order in which they happen.
        """
        from .merging import is_claimed, merge_answers, peer_id

        self._listed.clear()
        left: Dict[Address, Known] = {}
        for address in gone:
            self._remove(address, left)
        came: List[Known] = []
        merged = merge_answers([answer for answer in answers if self._holds(answer.address)],
                               self._process.instance, self._own)
        dropped = merged.dropped
        for identity, answer in merged.answers.items():
            one = Known(peer_id(answer), answer, identity)
            place = self._entries.place(one.identity)
            if place not in (None, answer.address):
                if not is_claimed(answer):
                    # It stays under the address that it is listed under, and under no other.
                    before = self._entries.known.get(answer.address)
                    if before is not None and _who(before.peer)[1] == _who(one.peer)[1]:
                        self._remove(answer.address, left)
                    continue
                self._remove(place, left)
            self._remove(answer.address, left)
            if self._entries.add(one):
                came.append(one)
                self._process.client.saw(answer.address, answer.dialect)
            else:
                dropped.append((answer.address, "too many peers, or too much that they say"))
        self._tell(left, came)
        return dropped

    def _remove(self, address: Optional[Address], left: Dict[Address, Known]) -> None:
        one = self._entries.remove(address) if address is not None else None
        if one is not None:
            left[one.answer.address] = one

    def _tell(self, left: Dict[Address, Known], came: List[Known]) -> None:
        """Tell watches and finders; a peer that was only replaced by itself has neither left nor
        come.
        """
        before = {_who(one.peer) for one in left.values()}
        after = {_who(one.peer) for one in came}
        for watch in self._watches:
            watch.tell("left", [one.peer for one in left.values() if _who(one.peer) not in after])
            watch.tell("came", [one.peer for one in came if _who(one.peer) not in before])
        here = {one.answer.address for one in came}
        if left or came:
            for finder in self.finders:
                finder.listed([one.answer for one in came],
                              [address for address in left if address not in here])

    # ------------------------------------------------------------------ being kept true

    def _use(self) -> None:
        """The application has asked for peers: keep the list true for a while.

        A process that serves no peer has to be asked to, by a watch.
        """
        now = monotonic()
        peer = self._process.peer
        if self._kept_until < now + USED_SECONDS / 2 and peer is not None and peer.launched:
            with self._lock:
                self._keep(max(self._kept_until, now + USED_SECONDS))

    def _keep(self, until: float) -> None:
        """Have the finders keep the list true until then. Under the lock."""
        if until != self._kept_until:
            self._kept_until = until
            for finder in self.finders:
                finder.watch(until)

    @property
    def _is_stale(self) -> bool:
        """Whether the list was kept true and no longer is."""
        return 0 < self._kept_until < monotonic()

    # ------------------------------------------------------------------ for net.watch

    def watch(self, callback: Callback, place: Optional[Place] = None) -> Watch:
        """Start to tell a function about peers that come and go.

        :param place: where it runs; None for a thread of its own.
        """
        return Watch(self, callback, place)

    def join(self, watch: Watch) -> None:
        """Tell a watch which peers are known now, and of each change from now on."""
        with self._lock:
            self._watches.append(watch)
            watch.tell("came", [one.peer for one in self._entries.known.values()])
            self._keep(math.inf)

    def leave(self, watch: Watch) -> None:
        """End a watch."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)
                if not self._watches:
                    self._keep(0.0)
                    self._use()


class Watch:
    """One function that is told about peers, by a daemon thread of its own."""

    def __init__(self, cache: PeerCache, callback: Callback, place: Optional[Place]) -> None:
        self._cache = cache
        self._callback = callback
        self._place = place
        self._news: SimpleQueue[Optional[Tuple[str, PeerId]]] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="net-watch", daemon=True)
        self._thread.start()

    def tell(self, change: str, peers: Iterable[PeerId]) -> None:
        """Queue news."""
        for peer in peers:
            self._news.put((change, peer))

    def stop(self) -> None:
        """Stop calling the function, which may itself call this. A second call does nothing."""
        self._stopped = True
        self._news.put(None)
        self._cache.leave(self)
        runs_in = None
        if self._place is not None:
            self._place.end()
            runs_in = self._place.thread
        # In a thread where it runs there is nothing to wait for.
        if threading.current_thread() not in (self._thread, runs_in):
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._attempt(self._cache.peers)
            if not self._stopped:
                self._cache.join(self)
            while not self._stopped:
                news = self._news.get()
                if news is not None and not self._stopped:
                    self._attempt(self._call, *news)
        finally:
            self._cache.leave(self)

    def _call(self, *news: object) -> None:
        if self._place is None:
            self._callback(*news)  # type: ignore[arg-type]
            return
        try:
            self._place.run(self._callback, *news)
        except CallCancelled:
            if not self._stopped:
                raise

    def _attempt(self, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except (NetError, OSError) as exc:
            # A failed search is worth a warning; a failed callback of the application, an error.
            ours = function != self._call
            note(logging.WARNING if ours else logging.ERROR, "watching peers: %s", exc,
                 exc_info=not ours)
        except BaseException:
            # SystemExit, too: the thread is ours, and still reports the next peer.
            note(logging.ERROR, "watching peers: %r failed",
                 self._callback if function == self._call else function, exc_info=True)


def _anybody(_address: Address) -> bool:
    return True


def _is_here(host: str, own: Set[str]) -> bool:
    return is_loopback(host) or host in own


def _who(peer: PeerId) -> Tuple[object, ...]:
    """What differs when a peer ends and another takes its address."""
    return (peer, peer.info.get("instance"))
