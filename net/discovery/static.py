"""The peers of ``NET_PEERS``: hosts that no search can know."""
from __future__ import annotations

import math
from ipaddress import ip_address
from random import randrange
from typing import Callable, Iterable, List, Optional, Tuple

from ..errors import Address
from ..peer import _Peer
from ..settings import is_loopback, settings
from .answers import Answer
from .finder import Search

# Time for a named address, which may be at the far end of a VPN.
EXPECTED_SECONDS = 0.8
# Entries of NET_PEERS.
MAX_NAMED = 1024


class Static:
    """Asks the named addresses over TCP. See :class:`~net.discovery.finder.Finder`."""

    def search(self, search: Search) -> StaticQuest:
        return StaticQuest(search)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        return lambda: None  # a process that names this one asks it

    def watch(self, until: float) -> None:
        pass

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        pass

    def doubt(self, address: Address) -> None:
        pass

    def changed(self) -> None:
        pass

    def forget(self) -> None:
        pass


class StaticQuest:
    """One search of the named addresses."""

    def __init__(self, search: Search) -> None:
        notes = search.report.notes
        named: List[Tuple[str, Iterable[int]]] = []
        if not search.on_host:
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
