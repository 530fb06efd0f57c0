"""The question "who is there?": one datagram to many, asked again as long as answers may be lost.

It goes to the broadcast address of each network, in IPv6 to the group that peers hear, for every
port that a peer may have; and in IPv4 once to each address of a network one by one, for the first
port only. The latter is also what fills the neighbour table: before a host can be sent anything,
the kernel has to find out its hardware address, and that needs no privilege.
"""
from __future__ import annotations

import errno
import socket
from contextlib import nullcontext
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from ...errors import Address
from ...link.base import ClosedOnError
from ...link.interfaces import Interface
from ...settings import is_loopback
from ..membership import Heard
from .datagrams import (ANSWER, ANSWER_BYTES, ASK, ASK_BYTES, MAX_DATAGRAM, MAX_FACTS, NOBODY,
                        SEAL_BYTES, SECURED, Message, Question, Seal, decode, digest, encode,
                        encode_question, read_said)
from .rounds import Rounds
from .sockets import make_room, open_at, received, reporting_drops, send

# Datagrams from one socket to addresses that may be dead. The kernel holds each until it has
# looked for the host, and a socket may hold some 200 KiB, about 250 of them on Linux.
PRIMED_PER_SOCKET = 128

# Addresses that are believed to have answered one question. Any LAN has fewer; more come from a
# stranger that answers under many names.
MAX_ANSWERS = 4096

# Peers that have come since the last question to all and are asked at a time.
MAX_NEWCOMERS = 128

#: The note where a question has not left this host.
NO_ROOM = "a question was dropped by this host, whose neighbour table or queue was full"

# Seconds from the question in IPv4 to the first one in IPv6, and to that from link-local addresses:
# peers that have answered are named in it, so that one that has several addresses answers once.
LATER = 0.008


class Place(NamedTuple):
    """Where a question is asked: from one of this host's addresses, to one address.

    :ivar interface: whose network answers may come from.
    :ivar target: the broadcast address or, for the peers of this host, its own. These are asked by
        datagram once; TCP finds those that do not answer.
    :ivar later: seconds after the others at which it is first asked.
    """

    interface: Interface
    target: str
    later: float = 0.0

    @property
    def here(self) -> bool:
        """Whether it is this host, where nothing is lost."""
        return self.target == self.interface.address


class Asker:
    """Asks the question of one search. For one thread.

    :param places: where it is asked.
    :param instance: that of this process.
    :param listen: called with each socket and the function to call when it has something.
    :param heard: called with each peer that has answered.
    :param hint: called with each address that has answered without identifying itself.
    :param known: instances of those that need not answer.
    :param own: addresses of this host.
    :ivar blocked: whether the last question could not leave this host, for want of room.
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
        self._began = 0.0
        # Places that have not been asked yet; the others were, this long or longer after
        # ``_began``.
        self._waiting: List[Tuple[socket.socket, Place]] = []
        self._size = ASK_BYTES
        self._sockets: Dict[socket.socket, Interface] = {}
        self._places: List[Tuple[socket.socket, Place]] = []
        self._instances: Dict[Address, bytes] = {}
        self._seen: Set[bytes] = set()
        self._known = list(known)
        self._hinted: Set[Address] = set()
        self._newcomers: Set[Address] = set()
        self.notes: Set[str] = set()
        self.blocked = False
        for place in places:
            try:
                self._places.append((self._open(place.interface), place))
            except OSError as exc:
                self.notes.add(f"{place.interface}: no datagrams, {exc.strerror}")

    def _open(self, interface: Interface) -> socket.socket:
        with ClosedOnError(open_at(interface)) as sock:
            make_room(sock)
            self._listen(sock, self._receive)
        self._sockets[sock] = interface
        return sock

    def step(self, now: float) -> None:
        """Ask once more, or for the first time at a further place, if it is time."""
        first = not self._nonce
        if not first:
            self._ask_waiting(now)
        if now >= self.rounds.due:
            self._nonce = self.rounds.ask(now)
            if first:
                self._began, self._waiting = now, list(self._places)
                self._ask_waiting(now)
            else:
                self._ask([one for one in self._places
                           if not one[1].here and one not in self._waiting])
            if self.blocked:
                self.rounds.dropped()

    def _ask_waiting(self, now: float) -> None:
        """Ask at the places whose turn has come for the first time."""
        ready = [one for one in self._waiting if self._began + one[1].later <= now]
        if ready:
            self._waiting = [one for one in self._waiting if one not in ready]
            self._ask(ready)

    def _ask(self, places: Iterable[Tuple[socket.socket, Place]]) -> None:
        question = self._question(self._size)
        dropped = left = 0
        for sock, place in places:
            with nullcontext() if place.here else reporting_drops(sock):
                for port in self._ports:
                    problem = self._send(sock, question, (place.target, port), place.interface)
                    dropped += problem == errno.ENOBUFS
                    left += not (problem or place.here)
        self.blocked = dropped > 0 and not left
        if self.blocked:
            self.notes.add(NO_ROOM)

    def ask_newcomers(self, newcomers: Iterable[Tuple[Address, bytes]], now: float) -> bool:
        """Ask those of these, by address and instance, that have not answered; whether there are
        any. They have come since the last question to all."""
        asked: List[Tuple[Address, socket.socket, Place]] = []
        for address, instance in newcomers:
            if address[1] in self._ports and instance not in self._seen \
                    and address not in self._hinted and address not in self._newcomers:
                asked += [(address, *one) for one in self._places
                          if self._is_near(address[0], one[0])][:1]
        if not asked:
            return False
        self._nonce = self.rounds.ask_some(now)
        question = self._question(self._size)
        for address, sock, place in asked[:MAX_NEWCOMERS]:
            self._newcomers.add(address)
            self._send(sock, question, address, place.interface)
        return True

    @property
    def due(self) -> float:
        """When there is something to ask."""
        waiting = [place.later for _, place in self._waiting]
        return min([self.rounds.due] + [self._began + later for later in waiting])

    def _question(self, size: int) -> bytes:
        known = b"".join([digest(one, self._nonce)
                          for one in (*self._instances.values(), *self._known)])
        return encode(Message(ASK, 0, 0, self._nonce, self._instance, encode_question(
            Question(known), size, self._seal is not None)), self._seal)

    def _send(self, sock: socket.socket, data: bytes, address: Address,
              interface: Interface) -> int:
        """Send a datagram; return the number of the error, 0 for none."""
        try:
            send(sock, data, address)
            return 0
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.notes.add(f"{interface}: sending failed, {exc.strerror}")
            return exc.errno or errno.EIO

    def prime(self, interface: Interface, hosts: List[str]) -> Iterator[List[str]]:
        """Ask each of these hosts, some at a time; yield those to which nothing could be sent."""
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
                   if self._send(sock, question, (host, self._ports.start), interface)]

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
        for datagram, source in received(sock):
            message = decode(datagram, self._seal)
            # Any host on the network can see the nonce, so the source may still be forged: what is
            # listed is proved later. It is an address of the network that was asked, though.
            if message is not None and message.kind == ANSWER and source[1] == message.port \
                    and self._is_near(source[0], sock) and source[1] in self._ports:
                self._answer(sock, message, source, now)

    def _is_near(self, host: str, sock: socket.socket) -> bool:
        return self._sockets[sock].holds(host)

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
            self._seen.add(message.instance)
            self._heard(Heard(source, message.instance, message.flags, said.facts, seconds))

    def _taken(self, message: Message, source: Address, now: float) -> Optional[float]:
        # A second answer of the same process tells nothing new about the network.
        known = source not in self._instances and message.instance in self._seen
        return self.rounds.heard(message.nonce, source, now, known or source[0] in self._own,
                                 message.age)

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


def this_host(hosts: Iterable[str], known_by: str = "") -> List[Place]:
    """Where the peers of this host are asked: at each of its addresses. Peers that serve at all of
    them have answered by the time most IPv6 addresses are asked.

    :param known_by: the address that such peers give.
    """
    return [Place(Interface("lo", host, prefix_of(host)), host,
                  LATER if ":" in host and host != known_by else 0.0) for host in hosts]


def prefix_of(host: str) -> int:
    """How many bits an address that answers has in common with the address of this host that was
    asked."""
    return 128 if ":" in host else 8 if is_loopback(host) else 32


def lan_places(asked: Iterable[Interface]) -> List[Place]:
    """Where all peers of the LAN are asked, from these addresses."""
    asked = list(asked)
    ranks = sorted({one.rank for one in asked})
    return [Place(one, str(one.broadcast), LATER * ranks.index(one.rank)) for one in asked]
