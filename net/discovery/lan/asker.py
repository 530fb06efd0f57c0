"""The question "who is there?": one datagram to many, and the answers of those who heard it.

It goes to the broadcast address of each network, for every port a peer may have, and to each
address of a network one by one, for the first port only. The latter is also what fills the
neighbour table: before a host can be sent anything, the kernel has to find out its hardware
address, and that needs no privilege.
"""
from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address
from typing import Callable, Dict, Iterable, Iterator, List, Set, Tuple

from ...errors import Address
from .beacon import HERE, MAX_DATAGRAM, NONCE_BYTES, WHO, decode, encode
from .interfaces import Interface

# Datagrams from one socket to addresses that may be dead. The kernel holds each until it has
# looked for the host, and a socket may hold some 200 KiB, about 250 of them on Linux.
PRIMED_PER_SOCKET = 128

# Datagrams taken from a socket at a time, so that a flood delays nothing else.
MAX_AT_ONCE = 256

# Addresses that are believed to have answered one question. There are fewer on any LAN; more are
# a stranger's who answers under many names.
MAX_ANSWERS = 4096


class Asker:
    """Asks one search's question. For one thread.

    :param listen: called with each socket and the function to call when it has something.
    :param heard: called with the address of each peer that answered, once.
    """

    def __init__(self, interfaces: Iterable[Interface], ports: range,
                 listen: Callable[[socket.socket, Callable[[socket.socket], None]], None],
                 heard: Callable[[Address], None]) -> None:
        self._ports = ports
        self._listen = listen
        self._heard = heard
        self._nonce = os.urandom(NONCE_BYTES)
        self._question = encode(WHO, 0, self._nonce)
        self._sockets: Dict[socket.socket, Interface] = {}
        self._broadcast: List[Tuple[socket.socket, Interface]] = []
        self._answered: Set[Address] = set()
        self.notes: Set[str] = set()
        for interface in interfaces:
            try:
                self._broadcast.append((self._open(interface), interface))
            except OSError as exc:
                self.notes.add(f"{interface}: no datagrams, {exc.strerror}")

    def _open(self, interface: Interface) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            # Bound, so that the question leaves here and answers come back to this network.
            sock.bind((interface.address, 0))
            self._listen(sock, self._receive)
        except BaseException:
            sock.close()
            raise
        self._sockets[sock] = interface
        return sock

    def broadcast(self) -> None:
        """Ask everybody on each network."""
        for sock, interface in self._broadcast:
            for port in self._ports:
                try:
                    sock.sendto(self._question, (interface.broadcast, port))
                except OSError as exc:
                    self.notes.add(f"{interface}: broadcast failed, {exc.strerror}")

    def prime(self, interface: Interface, hosts: List[str]) -> Iterator[List[str]]:
        """Ask each of these hosts, some at a time; gives those that could not be sent to."""
        for start in range(0, len(hosts), PRIMED_PER_SOCKET):
            some = hosts[start:start + PRIMED_PER_SOCKET]
            try:
                sock = self._open(interface)
            except OSError as exc:
                self.notes.add(f"{interface}: not swept, {exc.strerror}")
                yield some
                continue
            yield [host for host in some if not self._prime_one(sock, interface, host)]

    def _prime_one(self, sock: socket.socket, interface: Interface, host: str) -> bool:
        try:
            sock.sendto(self._question, (host, self._ports.start))
            return True
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.notes.add(f"{interface}: sending failed, {exc.strerror}")
            return False

    def _receive(self, sock: socket.socket) -> None:
        network = self._sockets[sock].network
        for _ in range(MAX_AT_ONCE):
            try:
                datagram, source = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # on Windows, the echo of a datagram that nobody took
            message = decode(datagram)
            if message is None or message.kind != HERE or message.nonce != self._nonce:
                continue
            # Everybody on the network can see the nonce, so the source may still be forged. What
            # is dialled is an address of the network that was asked, and a port of ours.
            address = (source[0], source[1])
            if address in self._answered or len(self._answered) >= MAX_ANSWERS:
                continue
            if address[1] in self._ports and IPv4Address(address[0]) in network:
                self._answered.add(address)
                self._heard(address)

    @property
    def answered(self) -> int:
        """How many addresses have answered."""
        return len(self._answered)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
