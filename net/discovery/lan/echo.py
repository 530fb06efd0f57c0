"""One request to all hosts of a link to show that they are there: an ICMPv6 echo, or ping.

It finds hosts that no datagram of ours gets into, and leaves nothing in the neighbour table of
IPv4. Linux lets the groups of ``net.ipv4.ping_group_range`` send it, which are all on most systems;
macOS lets everybody.
"""
from __future__ import annotations

import socket
from typing import Callable, Iterable, List, Set

from ...link.interfaces import Interface
from .sockets import make_room, opened, received, send

# All hosts of one link.
ALL_NODES = "ff02::1"
# Hosts that are believed to have answered. Any link has fewer; more come from a stranger that
# answers under many names.
MAX_ANSWERS = 2048
# Its type, and the number of the request; the system fills in the rest.
REQUEST = bytes((128, 0, 0, 0, 0, 0, 0, 1))


class Echo:
    """A ping to all hosts of some links, and which of them have answered. For one thread.

    :param interfaces: where hosts are asked; those with link-local addresses.
    :param listen: called with the socket and the function to call when it has something.
    :ivar hosts: those that have answered, by their link-local addresses.
    :raises OSError: this user may not send such requests, or this host has no IPv6.
    """

    def __init__(self, interfaces: Iterable[Interface],
                 listen: Callable[[socket.socket, Callable[[socket.socket], None]], None]) -> None:
        self.hosts: Set[str] = set()
        self._interfaces: List[Interface] = list(interfaces)
        with opened(socket.AF_INET6, socket.IPPROTO_ICMPV6) as self._sock:
            make_room(self._sock)
            listen(self._sock, self._receive)

    def send(self) -> None:
        """Ask all hosts."""
        for one in self._interfaces:
            try:
                zone = one.address.partition("%")[2]
                send(self._sock, REQUEST, (f"{ALL_NODES}%{zone}", 0))
            except OSError:
                pass  # that interface has just gone, or a firewall of this host forbids it

    def _receive(self, sock: socket.socket) -> None:
        own = [one.address for one in self._interfaces]
        for _, (host, _) in received(sock):
            if host not in own and len(self.hosts) < MAX_ANSWERS \
                    and any([one.holds(host) for one in self._interfaces]):
                self.hosts.add(host)

    def close(self) -> None:
        self._sock.close()
