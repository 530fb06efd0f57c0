"""The sockets of discovery, for IPv4 and for IPv6: all datagrams are sent and received here."""
from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

from ...errors import Address
from ...link.addresses import host_port, socket_address
from ...link.base import ClosedOnError
from ...link.interfaces import GROUP, Interface
from ...settings import is_loopback
from .datagrams import MAX_DATAGRAM

# Datagrams read from a socket at a time, so that a flood delays nothing else.
MAX_AT_ONCE = 256
# Bytes of answers that may wait to be read, if the system allows: some 500 of them.
RECEIVE_BYTES = 2 ** 20

# Linux's option to send from an address that stays, and not from one that changes for privacy:
# others list this peer at the address that it answers from.
_PREFERENCES, _PUBLIC = 72, 2
# And by family, to report what it drops for want of room; without it, that counts as sent.
_REPORT = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}


class Sockets:
    """The sockets of one port: one for each family of addresses. For one thread.

    :param hosts: what they are bound to: loopback addresses, or any others, which stand for all of
        their family: a socket that is bound to one address of the LAN gets no broadcasts on Linux.
        After the first, those that this host cannot have are left out.
    :param port: 0 for any.
    :raises OSError: the port is taken for UDP.
    """

    def __init__(self, hosts: Sequence[str], port: int) -> None:
        self.all: List[socket.socket] = []
        for host in hosts:
            try:
                self.all.append(open_socket(host, port))
            except OSError:
                if not self.all:
                    raise
        # The first of each; to ask a socket for its family takes longer than to look it up.
        self._by_family: Dict[int, socket.socket] = {
            sock.family: sock for sock in reversed(self.all)}

    def receive(self) -> Iterator[Tuple[bytes, Address]]:
        """What has come, and from where."""
        for sock in self.all:
            yield from received(sock)

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram.

        :raises OSError: it cannot be sent, now or at all.
        """
        family, place = socket_address(address)
        sock = self._by_family.get(family)
        if sock is None:
            raise OSError("no socket for such addresses")
        sock.sendto(data, place)

    def send_from(self, source: Interface, data: bytes, target: str, ports: Iterable[int]) -> None:
        """Send a datagram to each port of a target, from a socket that is bound to the source.

        Bound, because 255.255.255.255 goes out where the bound address is, and because the receiver
        takes the source for the address of the peer.

        :raises OSError: a datagram cannot be sent, now or at all.
        """
        with open_at(source) as sock:
            for port in ports:
                send(sock, data, (target, port))

    def join(self, interfaces: Iterable[Interface]) -> None:
        """Hear what is sent to all peers at these interfaces, too. One of them may be new."""
        for sock in self.all:
            if sock.family == socket.AF_INET6 and not is_loopback(sock.getsockname()[0]):
                for number in {one.number for one in interfaces if one.is_six}:
                    join(sock, number)

    def close(self) -> None:
        for sock in self.all:
            sock.close()


def send(sock: socket.socket, data: bytes, address: Address) -> None:
    """Send a datagram.

    :raises OSError: it cannot be sent, now or at all.
    """
    sock.sendto(data, socket_address(address)[1])


def received(sock: socket.socket) -> Iterator[Tuple[bytes, Address]]:
    """What has come to a socket that does not wait, some at a time, and from where."""
    for _ in range(MAX_AT_ONCE):
        try:
            data, source = sock.recvfrom(MAX_DATAGRAM + 1)
        except BlockingIOError:
            return
        except OSError:
            continue  # on Windows, the echo of a datagram that was not received
        yield data, host_port(source) or ("", 0)


def join(sock: socket.socket, number: int) -> None:
    """Hear what is sent to all peers at an interface. It may have been joined, or have gone."""
    group = socket.inet_pton(socket.AF_INET6, GROUP) + number.to_bytes(4, sys.byteorder)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError:
        pass


def opened(family: int, protocol: int = 0) -> ClosedOnError:
    """A socket that does not wait, to be prepared in a ``with`` statement.

    :raises OSError: there are too many open files, or no such addresses or protocol for this user.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    sock.setblocking(False)
    return ClosedOnError(sock)


def open_socket(host: str, port: int) -> socket.socket:
    """The socket of a beacon, which can send to neighbours only.

    :param host: as for :class:`Sockets`.
    :raises OSError: the port is taken for UDP.
    """
    six = ":" in host
    with opened(socket.AF_INET6 if six else socket.AF_INET) as sock:
        if os.name == "posix" and port:
            # A peer that keeps to this host may have the same number, at 127.0.0.1 alone. On
            # Windows the option would let others take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A sender beyond this host's networks gets no answer, whatever address it claims: the first
        # option keeps to networks of the interfaces, the second ends at the first router.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.IPPROTO_IPV6, _PREFERENCES, _PUBLIC)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        make_room(sock)
        every = "::" if six else ""
        sock.bind((host.partition("%")[0] if is_loopback(host) else every, port))
    return sock


def open_at(interface: Interface) -> socket.socket:
    """A socket at one address of this host, for questions and announcements: bound, so that they
    leave there, come from an address that stands for a peer, and answers come back to this network.

    :raises OSError: there is no such address any more.
    """
    family, place = socket_address((interface.address, 0))
    with opened(family) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if interface.number:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.number)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(place)
    return sock


@contextmanager
def reporting_drops(sock: socket.socket) -> Iterator[None]:
    """Make sending fail with ENOBUFS where Linux drops a datagram because its neighbour table or
    the queue of the interface is full. Only for a while, because what other hosts refuse is
    reported then, too."""
    option = _REPORT[sock.family] if sys.platform == "linux" else None
    if option is not None:
        sock.setsockopt(*option, 1)
    try:
        yield
    finally:
        if option is not None:
            sock.setsockopt(*option, 0)


def make_room(sock: socket.socket) -> None:
    """Let many datagrams wait in a socket, as far as the system allows."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BYTES)
        except OSError:
            pass  # some systems refuse what is too much, others give what they can
