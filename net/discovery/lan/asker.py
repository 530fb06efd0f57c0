"""The question "who is there?": one datagram to many, asked again as long as answers may be lost.

It goes to the broadcast address of each network, for every port that a peer may have, and once to
each address of a network one by one, for the first port only. The latter is also what fills the
neighbour table: before a host can be sent anything, the kernel has to find out its hardware
address, and that needs no privilege.
"""
from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from ...errors import Address
from ...link.interfaces import Interface
from ...settings import is_loopback
from ..membership import Heard
from .datagrams import (ANSWER, ANSWER_BYTES, ASK, ASK_BYTES, MAX_DATAGRAM, MAX_FACTS, NOBODY,
                        SEAL_BYTES, SECURED, Message, Question, Seal, decode, digest, encode,
                        encode_question, read_said)
from .rounds import Rounds

# Datagrams from one socket to addresses that may be dead. The kernel holds each until it has
# looked for the host, and a socket may hold some 200 KiB, about 250 of them on Linux.
PRIMED_PER_SOCKET = 128

# Datagrams read from a socket at a time, so that a flood delays nothing else.
MAX_AT_ONCE = 256

# Addresses that are believed to have answered one question. Any LAN has fewer; more come from a
# stranger that answers under many names.
MAX_ANSWERS = 4096

# How often the peers of this host are asked by datagram; TCP finds those that do not answer.
HERE_ROUNDS = 1

# Bytes of answers that may wait to be read, if the system allows: some 500 of them.
RECEIVE_BYTES = 2 ** 20


class Place(NamedTuple):
    """Where a question is asked: from one of this host's addresses, to one address.

    :ivar interface: whose network answers may come from.
    :ivar target: the broadcast address or, for the peers of this host, its own.
    """

    interface: Interface
    target: str

    @property
    def here(self) -> bool:
        """Whether it is this host, where nothing is lost."""
        return self.target == self.interface.address


class Asker:
    """Asks one search's question. For one thread.

    :param places: where it is asked.
    :param instance: of this process.
    :param listen: called with each socket and the function to call when it has something.
    :param heard: called with each peer that has answered.
    :param hint: called with each address that has answered without identifying itself.
    :param known: instances of those that need not answer.
    :param own: addresses of this host.
    """

    def __init__(self, places: Iterable[Place], ports: range, instance: bytes,
                 listen: Callable[[socket.socket, Callable[[socket.socket], None]], None],
                 heard: Callable[[Heard], None], hint: Callable[[Address], None],
                 rounds: Rounds, clock: Callable[[], float], seal: Optional[Seal] = None,
                 known: Iterable[bytes] = (), own: Iterable[str] = ()) -> None:
        self._ports = ports
        self._own = set(own)
        self._instance = instance
        self._listen = listen
        self._heard = heard
        self._hint = hint
        self.rounds = rounds
        self._clock = clock
        self._seal = seal
        self._nonce = b""
        self._asked_here = 0
        self._size = ASK_BYTES
        self._sockets: Dict[socket.socket, Interface] = {}
        self._places: List[Tuple[socket.socket, Place]] = []
        self._instances: Dict[Address, bytes] = {}
        self._known = list(known)
        self._hinted: Set[Address] = set()
        self.notes: Set[str] = set()
        for place in places:
            try:
                self._places.append((self._open(place.interface), place))
            except OSError as exc:
                self.notes.add(f"{place.interface}: no datagrams, {exc.strerror}")

    def _open(self, interface: Interface) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            make_room(sock)
            # Bound, so that the question leaves here and answers come back to this network.
            sock.bind((interface.address, 0))
            self._listen(sock, self._receive)
        except BaseException:
            sock.close()
            raise
        self._sockets[sock] = interface
        return sock

    def step(self, now: float) -> None:
        """Ask once more if it is time."""
        if now >= self.rounds.due:
            self._nonce = self.rounds.ask(now)
            self._asked_here += 1
            question = self._question(self._size)
            for sock, place in self._places:
                if place.here and self._asked_here > HERE_ROUNDS:
                    continue
                for port in self._ports:
                    self._send(sock, question, (place.target, port), place.interface)

    def _question(self, size: int) -> bytes:
        known = b"".join([digest(one, self._nonce)
                          for one in (*self._instances.values(), *self._known)])
        return encode(Message(ASK, 0, 0, self._nonce, self._instance, encode_question(
            Question(known), size, self._seal is not None)), self._seal)

    def _send(self, sock: socket.socket, data: bytes, address: Address,
              interface: Interface) -> bool:
        try:
            sock.sendto(data, address)
            return True
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.notes.add(f"{interface}: sending failed, {exc.strerror}")
            return False

    def prime(self, interface: Interface, hosts: List[str]) -> Iterator[List[str]]:
        """Ask each of these hosts, some at a time; gives those that could not be sent to."""
        question = self._question(0)
        for start in range(0, len(hosts), PRIMED_PER_SOCKET):
            some = hosts[start:start + PRIMED_PER_SOCKET]
            try:
                sock = self._open(interface)
            except OSError as exc:
                self.notes.add(f"{interface}: not swept, {exc.strerror}")
                yield some
                continue
            yield [host for host in some
                   if not self._send(sock, question, (host, self._ports.start), interface)]

    def touch(self, hosts: Iterable[str]) -> None:
        """Send something to each of these hosts that have answered, so that the kernel looks up
        their hardware addresses. It names them, so they do not answer."""
        question = self._question(0)
        for sock, place in self._places:
            for host in hosts:
                if self._is_near(host, sock) and not place.here:
                    self._send(sock, question, (host, self._ports.start), place.interface)

    def _receive(self, sock: socket.socket) -> None:
        now = self._clock()
        for _ in range(MAX_AT_ONCE):
            try:
                datagram, source = sock.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # on Windows, the echo of a datagram that was not received
            message = decode(datagram, self._seal)
            # Any host on the network can see the nonce, so the source may still be forged: what is
            # listed is proved later. It is an address of the network that was asked, though.
            if message is not None and message.kind == ANSWER and source[1] == message.port \
                    and self._is_near(source[0], sock) and source[1] in self._ports:
                self._answer(sock, message, (source[0], source[1]), now)

    def _is_near(self, host: str, sock: socket.socket) -> bool:
        interface = self._sockets[sock]
        return IPv4Address(host) in interface.network

    def _answer(self, sock: socket.socket, message: Message, source: Address, now: float) -> None:
        said = read_said(message.body)
        if source not in self._instances and len(self._instances) + len(self._hinted) \
                >= MAX_ANSWERS:
            return
        if said is None or message.instance == NOBODY or said.size > MAX_FACTS \
                or message.flags & SECURED and self._seal is None:
            # Secured otherwise, or with more facts than a datagram holds.
            if self._taken(message, source, now) is not None and source not in self._hinted:
                self._hinted.add(source)
                self._hint(source)
            return
        if said.facts is None:
            self._size = max(self._size, ANSWER_BYTES + said.size + SEAL_BYTES)
            self._send(sock, self._question(min(self._size, MAX_DATAGRAM)), source,
                       self._sockets[sock])
            return
        seconds = self._taken(message, source, now)
        if seconds is not None and self._instances.get(source) != message.instance:
            self._instances[source] = message.instance
            self._heard(Heard(source, message.instance, message.flags, said.facts, seconds))

    def _taken(self, message: Message, source: Address, now: float) -> Optional[float]:
        return self.rounds.heard(message.nonce, source, now, source[0] in self._own)

    @property
    def usable(self) -> bool:
        """Whether any place can be asked at all."""
        return bool(self._places)

    @property
    def answered(self) -> List[Address]:
        """The addresses that have answered."""
        return list(self.rounds.answered)

    def over(self, now: float) -> bool:
        """Whether no more answers are expected."""
        return not self._places or self.rounds.over(now)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def make_room(sock: socket.socket) -> None:
    """Let many datagrams wait in a socket, as far as the system allows."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BYTES)
        except OSError:
            pass  # some systems refuse what is too much, others give what they can


def this_host(hosts: Iterable[str]) -> List[Place]:
    """Where the peers of this host are asked: at each of its addresses."""
    return [Place(Interface("lo", host, 8 if is_loopback(host) else 32), host) for host in hosts]
