"""The peers of ``NET_PEERS``: hosts that no search can know."""
from __future__ import annotations

import math
import threading
from ipaddress import ip_address
from random import randrange
from time import monotonic
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from ..errors import Address
from ..peer import _Peer
from ..run.loop import Loop, Timer
from ..settings import is_loopback, settings
from .answers import Answer
from .finder import Listing, Search

# Time for a named address, which may be at the far end of a VPN.
EXPECTED_SECONDS = 0.8
# Entries of NET_PEERS.
MAX_NAMED = 1024


# While a list is kept: seconds between two looks at named addresses that are not listed, and how
# many are asked in each: of those that were listed in the last ten minutes, and of all, in turn.
LOOK_SECONDS, LOST_SECONDS = 2.0, 600.0
LOST_AT_ONCE, AT_ONCE = 16, 4


class Static:
    """Asks the named addresses over TCP. See :class:`~net.discovery.finder.Finder`.

    All but the searches in the loop's thread, and a thread for each look.
    """

    def __init__(self, loop: Loop, listing: Listing) -> None:
        self._loop = loop
        self._listing = listing
        self._until = 0.0
        self._timer: Optional[Timer] = None
        self._asking = False
        # Named addresses that were listed, and when they were no more.
        self._lost: Dict[Address, float] = {}
        # The named address that the next look begins with, by its number.
        self._turn = 0

    def search(self, search: Search) -> StaticQuest:
        return StaticQuest(search)

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
        """Named addresses to ask now, which are not listed."""
        named = [(host, port) for host, ports in named_hosts([]) for port in ports]
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

    def changed(self) -> None:
        pass

    def forget(self) -> None:
        self.__init__(self._loop, self._listing)  # type: ignore[misc]


class StaticQuest:
    """One search of the named addresses."""

    def __init__(self, search: Search) -> None:
        named = [] if search.on_host else named_hosts(search.report.notes)
        # Silent addresses hold their sockets for long. Each search begins at another entry, so that
        # they do not hide the same others every time.
        first = randrange(len(named)) if named else 0
        for host, ports in named[first:] + named[:first]:
            search.sweep.add_host(host, ports, "NET_PEERS", EXPECTED_SECONDS)

    due = math.inf

    def step(self, now: float) -> None:
        pass

    def over(self, now: float) -> bool:
        return True  # the sweep has its own end

    def close(self) -> None:
        pass


def named_hosts(notes: List[str]) -> List[Tuple[str, Iterable[int]]]:
    """The hosts of NET_PEERS with their ports, and notes on what cannot be asked."""
    named: List[Tuple[str, Iterable[int]]] = []
    if len(settings.peers) > MAX_NAMED:
        notes.append(f"NET_PEERS: only the first {MAX_NAMED} entries are asked")
    for entry in settings.peers[:MAX_NAMED]:
        try:
            host, port = parse_named(entry)
        except ValueError as exc:
            notes.append(f"NET_PEERS: {entry!r} {exc}")
            continue
        if settings.loopback_only and not is_loopback(host):
            notes.append(f"NET_PEERS: {entry!r} is dropped, NET_HOST={settings.host} "
                         f"keeps to this host")
            continue
        named.append((host, settings.ports if port is None else (port,)))
    return named


def parse_named(entry: str) -> Tuple[str, Optional[int]]:
    """Host and port of an entry of NET_PEERS; None for all ports. Resolves nothing.

    :raises ValueError: no address; the text says why.
    """
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        host = host if bracket else entry
        port = port[1:] if port.startswith(":") else port
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ip_address(host)
    except ValueError:
        raise ValueError("is no IP address, and names are not resolved") from None
    if not port:
        return host, None
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("has no port from 1 to 65535")
    return host, int(port)
