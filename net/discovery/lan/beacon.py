"""The UDP side of one running peer: its socket on the loop, and its announcements."""
from __future__ import annotations

import json
import logging
import os
import socket
from time import monotonic
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from ...errors import Address
from ...log import DISCOVERY, RateLimitedLog
from ...peer import _Peer
from ...settings import is_loopback, settings
from .asker import MAX_AT_ONCE, make_room
from .datagrams import (ASK, EVERYWHERE, GOODBYE, HELLO, MAX_DATAGRAM, SECURED, WATCHING, Message,
                        NONCE_BYTES, Seal, decode, encode, encode_hello)
from .responder import Responder, Self

note = RateLimitedLog(logging.getLogger(DISCOVERY))

# Seconds for which the description of a peer is kept. Making it takes some 50 microseconds.
SELF_SECONDS = 1.0

#: Called with each datagram that is not a question, and with each question that was answered.
Received = Callable[[Message, Address, float], None]


class Beacon:
    """Answers questions on the UDP port of a peer's TCP port, and says hello and goodbye.

    :param received: is given all that is not answered here.
    :param asked: is given the questions that were answered.
    :raises OSError: the port is taken for UDP.
    """

    def __init__(self, peer: _Peer, host: str, port: int, instance: bytes,
                 listed: Callable[[], Tuple[int, int]], received: Received,
                 asked: Received) -> None:
        self.peer = peer
        self.host = host
        self.port = port
        self.local = is_loopback(host)
        self.watching = False
        #: Tells its own announcements, which a broadcast brings back, from those of others.
        self.mark = os.urandom(NONCE_BYTES)
        self._instance = instance
        self._received = received
        self._asked = asked
        self._revision = settings.revision
        self.seal = make_seal()
        self.responder = Responder(self._describe, listed, self.local, self.seal)
        self._facts = b""
        self._flags = 0
        self._facts_until = 0.0
        self.socket = open_socket(host, port)

    def _describe(self) -> Self:
        now = monotonic()
        if now >= self._facts_until:
            facts = dict(self.peer.friendly_id)
            facts.pop("instance", None)
            self._facts = b"" if settings.secured and self.seal is None else json.dumps(
                facts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            self._flags = EVERYWHERE if self.host == "0.0.0.0" else 0
            self._flags |= SECURED if settings.secured else 0
            self._facts_until = now + SELF_SECONDS
        flags = self._flags | (WATCHING if self.watching else 0)
        return Self(self._instance, self.port, flags, self._facts)

    def forget_facts(self) -> None:
        """What it says of itself has changed."""
        self._facts_until = 0.0

    def receive(self, _mask: int = 0) -> None:
        """Take what has come."""
        if self._revision != settings.revision:
            self._revision = settings.revision
            self.seal = self.responder.seal = make_seal()
            self.forget_facts()
        now = monotonic()
        questions: Dict[Address, Tuple[Message, bytes]] = {}
        for _ in range(MAX_AT_ONCE):
            try:
                data, source = self.socket.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                break
            except OSError:
                continue  # on Windows, the echo of a datagram that was not received
            if not self.responder.takes(source):
                continue
            message = decode(data, self.seal)
            if message is None or message.nonce == self.mark:
                continue
            if message.kind == ASK:
                # An address that asked several times meanwhile gets one answer: to its last
                # question, and to its first one, so that it knows that none was lost.
                first = questions.pop(source, (message, message.nonce))[1]
                questions[source] = message, first
            else:
                self._received(message, source, now)
        for source, (message, first) in questions.items():
            self._answer(message, first, source, now)

    def _answer(self, message: Message, first: bytes, source: Address, now: float) -> None:
        reply = self.responder.answer(message, source, now, first)
        if reply is not None:
            self.send(reply, source)
            self._asked(message, source, now)

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram, if it can be sent now. One that cannot is lost, as any may be."""
        try:
            self.socket.sendto(data, address)
        except OSError as exc:
            # Off-link or unreachable, or the socket is full of datagrams to hosts that are gone.
            note(logging.DEBUG, "beacon: nothing sent to %s: %s", address, exc)

    def announce(self, kind: int) -> None:
        """Broadcast a hello or goodbye."""
        me = self._describe()
        body = encode_hello(me.facts) if kind == HELLO else b""
        self.broadcast(encode(Message(kind, me.flags, self.port, self.mark, me.instance, body),
                              self.seal))

    def broadcast(self, datagram: bytes) -> None:
        """Broadcast a datagram from the address of this peer."""
        for source, target in announcements(self.host):
            try:
                send_from(source, datagram, target, settings.ports)
            except OSError as exc:
                note(logging.DEBUG, "no announcement from %s to %s: %s", source, target, exc)

    def goodbye(self) -> None:
        """Say goodbye; twice, since a datagram may be lost and is not acknowledged."""
        for _ in range(2):
            self.announce(GOODBYE)


def make_seal() -> Optional[Seal]:
    """What datagrams are sealed with; None in the open and under certificates."""
    from ...link import security

    credentials = security.credentials()
    if credentials is None or credentials.datagram_key is None:
        return None
    return Seal(credentials.datagram_key)


def open_socket(host: str, port: int) -> socket.socket:
    """The socket of a beacon, which can send to neighbours only.

    :raises OSError: the port is taken for UDP.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if os.name == "posix" and port:
            # A peer that keeps to this host may have the same number, at 127.0.0.1 alone. On
            # Windows the option would let others take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A sender beyond this host's networks gets no answer, whatever address it claims: the first
        # option keeps to networks of the interfaces, the second ends at the first router.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        make_room(sock)
        # A socket that is bound to one address of the LAN gets no broadcasts on Linux.
        sock.bind((host if is_loopback(host) else "", port))
    except OSError:
        sock.close()
        raise
    return sock


def announcements(host: str) -> List[Tuple[str, str]]:
    """Where a peer that is bound to this host makes itself known: pairs of source and target."""
    if is_loopback(host):
        return [(host, "127.0.0.1")]
    if host != "0.0.0.0":
        return [(host, "255.255.255.255")]
    from ...link import interfaces  # only a peer on all interfaces needs it

    plan = interfaces.plan(interfaces.read()[0], settings.interfaces)
    return [(found.address, str(found.broadcast)) for found in plan.asked]


def send_from(source: str, datagram: bytes, target: str, ports: Iterable[int]) -> None:
    """Send one datagram to each port of a target, from a socket that is bound to the source.

    Bound, because 255.255.255.255 goes out where the bound address is, and because the receiver
    takes the source for the address of the peer.

    :raises OSError: the network refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((source, 0))
        for port in ports:
            sock.sendto(datagram, (target, port))
