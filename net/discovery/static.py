"""The peers of ``NET_PEERS``: hosts that no search of a network finds."""
from __future__ import annotations

import math
import threading
from random import randrange
from time import monotonic
from typing import (TYPE_CHECKING, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence,
                    Set)

from ..errors import Address
from ..peer import _Peer
from ..run.loop import Loop, Timer
from ..settings import is_address, is_loopback, parse_named, settings
from .answers import Answer
from .finder import Listing, Search
from .names import Names

if TYPE_CHECKING:
    from .probes import Sweep

# Seconds for a named address, which may be at the far end of a VPN, as long as all of them can be
# asked at the same time. If there are more, they are asked in turns, which share the second number,
# so that silent ones hide nobody.
EXPECTED_SECONDS, SHARED_SECONDS = 0.8, 0.6
# Seconds from the start of a search that the resolver may take.
NAME_SECONDS = 0.8
# Entries of NET_PEERS that are asked.
MAX_NAMED = 1024
# Addresses whose probes are begun before the search looks at what else there is.
AT_A_TIME = 64


# While a list is kept: seconds between two looks at named addresses that are not listed, and how
# many are asked in each: of those that were listed in the last ten minutes, and of all, in turn.
LOOK_SECONDS, LOST_SECONDS = 2.0, 600.0
LOST_AT_ONCE, AT_ONCE = 16, 4
# Seconds until a name is looked up again meanwhile.
NAME_AGAIN = 6.0


class Named(NamedTuple):
    """A host of NET_PEERS, by address or name, and its ports."""

    host: str
    ports: Sequence[int]

    @property
    def is_name(self) -> bool:
        return not is_address(self.host)


class Static:
    """Asks the named hosts over TCP. See :class:`~net.discovery.finder.Finder`.

    A search runs in the thread that searches, a look in a thread of its own, and the rest in the
    loop's thread.
    """

    def __init__(self, loop: Loop, listing: Listing) -> None:
        self._loop = loop
        self._listing = listing
        self._names = Names()
        # When each name was looked up while the list was kept.
        self._looked_up: Dict[str, float] = {}
        self._until = 0.0
        self._timer: Optional[Timer] = None
        self._asking = False
        # Named addresses that were listed, and when they were taken off the list.
        self._lost: Dict[Address, float] = {}
        # The named address that the next look begins with, by its number.
        self._turn = 0

    def search(self, search: Search) -> StaticQuest:
        return StaticQuest(search, self._names)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        return lambda: None  # a process that names this one asks it

    def watch(self, until: float) -> None:
        self._until = until
        if settings.peers:
            self._soon(self._plan)

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        if settings.peers:
            now = monotonic()
            self._lost.update((address, now) for address in gone)

    def _soon(self, action: Callable[[], None]) -> None:
        try:
            self._loop.call_soon(action)
        except OSError:
            pass  # the program ends, or there is no thread to be had; the next search asks

    def _plan(self) -> None:
        if self._timer is None and not self._asking and monotonic() < self._until:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        addresses = self._missing(monotonic()) if monotonic() < self._until else []
        if addresses:
            try:
                threading.Thread(target=self._ask, args=(addresses,), name="net-named",
                                 daemon=True).start()
                self._asking = True
                return
            except RuntimeError:
                pass  # no thread to be had; the next look tries again
        self._plan()

    def _missing(self, now: float) -> List[Address]:
        """The named addresses to ask now: some of those that are not listed."""
        hosts = named_hosts([])
        self._look_up({one.host for one in hosts if one.is_name}, now)
        named = [(host, port) for one in hosts for port in one.ports
                 for host in (self._names.last(one.host) if one.is_name else (one.host,))]
        wanted = set(named)
        self._lost = {address: at for address, at in self._lost.items()
                      if address in wanted and now - at < LOST_SECONDS
                      and not self._listing.knows(address)}
        lost = sorted(self._lost, key=self._lost.__getitem__)[-LOST_AT_ONCE:]
        turn = self._turn % max(1, len(named))
        others = [address for address in named[turn:] + named[:turn]
                  if not self._listing.knows(address)][:AT_ONCE]
        self._turn = turn + AT_ONCE
        return list(dict.fromkeys(lost + others))

    def _look_up(self, names: Set[str], now: float) -> None:
        """Look up some of the names, those looked up longest ago first, for the next look."""
        before = {name: self._looked_up.get(name, -math.inf) for name in names}
        old = sorted([name for name, at in before.items() if now - at >= NAME_AGAIN],
                     key=before.__getitem__)[:LOST_AT_ONCE]
        self._names.look_up(old)
        self._looked_up = {**before, **dict.fromkeys(old, now)}

    def _ask(self, addresses: List[Address]) -> None:
        """In a thread of its own."""
        from .probes import look_at  # with all that searching needs

        try:
            self._listing.learn(look_at(addresses, EXPECTED_SECONDS, "NET_PEERS").answers)
        finally:
            self._soon(self._asked)

    def _asked(self) -> None:
        self._asking = False
        self._plan()

    def doubt(self, address: Address) -> None:
        pass

    def other_way(self, address: Address) -> Optional[Address]:
        return None

    def changed(self) -> None:
        pass

    def forget(self) -> None:
        self.__init__(self._loop, self._listing)  # type: ignore[misc]


class StaticQuest:
    """One search of the named hosts."""

    due = math.inf

    def __init__(self, search: Search, names: Names) -> None:
        self._search = search
        named = [] if search.on_host else named_hosts(search.report.notes)
        # Each search begins at another entry, so that on a machine that is too busy to ask all of
        # them, it is not always the same ones that are left out.
        first = randrange(len(named)) if named else 0
        named = named[first:] + named[:first]
        self._hosts = 0
        self._ports: Dict[str, List[int]] = {}
        for one in named:
            if one.is_name:
                self._ports.setdefault(one.host, []).extend(one.ports)
        self._found = names.look_up(self._ports) if self._ports else None
        self._sweep: Optional[Sweep] = search.sweep_beside() if named else None
        self._add([one for one in named if not one.is_name])
        self.step(search.started)

    def _add(self, hosts: List[Named]) -> None:
        if self._sweep is not None and hosts:
            self._hosts += len(hosts)
            turns = math.ceil((self._hosts + len(self._ports)) / self._sweep.window)
            seconds = EXPECTED_SECONDS if turns == 1 else SHARED_SECONDS / turns
            for host, ports in hosts:
                self._sweep.add_host(host, ports, "NET_PEERS", seconds)

    def step(self, now: float) -> None:
        if self._sweep is None:
            return
        while self._found is not None and not self._found.empty():
            found = self._found.get()
            ports = sorted(set(self._ports.pop(found.name)))
            self._add([Named(host, ports) for host in found.addresses
                       if is_loopback(host) or not settings.loopback_only])
            if found.problem:
                self._search.report.notes.append(
                    f"NET_PEERS: {found.name!r} cannot be resolved, {found.problem}")
        while self._sweep.start(AT_A_TIME):
            self._search.sweep.step(0)
        self._sweep.expire(now)

    def over(self, now: float) -> bool:
        if self._ports and now < self._search.started + NAME_SECONDS:
            return False
        return self._sweep is None or self._sweep.idle

    def close(self) -> None:
        notes = self._search.report.notes
        notes += [f"NET_PEERS: {name!r} was not resolved within {NAME_SECONDS} s"
                  for name in self._ports]
        if self._sweep is not None:
            self._sweep.close()
            if self._sweep.findings.left:
                notes.append(f"NET_PEERS: {self._sweep.findings.left:,} addresses were not asked "
                             f"in time; with its port, an entry is one address instead of "
                             f"{len(settings.ports)}")


def named_hosts(notes: List[str]) -> List[Named]:
    """The hosts of NET_PEERS with their ports, and notes on what is not asked."""
    named: List[Named] = []
    if len(settings.peers) > MAX_NAMED:
        notes.append(f"NET_PEERS: only the first {MAX_NAMED} entries are asked")
    for entry in settings.peers[:MAX_NAMED]:
        host, port = parse_named(entry)
        if settings.loopback_only and not is_loopback(host):
            notes.append(f"NET_PEERS: {entry!r} is dropped, NET_HOST={settings.host} "
                         f"keeps to this host")
            continue
        named.append(Named(host, settings.ports if port is None else (port,)))
    return named
