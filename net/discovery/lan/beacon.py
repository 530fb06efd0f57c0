"""The UDP side of one running peer: its sockets on the loop, and its announcements."""
from __future__ import annotations

import json
import logging
import os
import socket
from time import monotonic
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ...errors import Address
from ...log import DISCOVERY, RateLimitedLog
from ...link.interfaces import Interface
from ...link.local import EVERY_ADDRESS, EVERY_ADDRESS_6
from ...peer import EVERYWHERE as EVERYWHERE_HOSTS
from ...peer import _Peer
from ...settings import is_loopback, settings
from .datagrams import (ASK, EVERYWHERE, EVERYWHERE_6, GOODBYE, HELLO, SECURED, WATCHING, Message,
                        NONCE_BYTES, Seal, decode, encode, encode_hello)
from .responder import Responder, Self
from .sockets import Sockets

note = RateLimitedLog(logging.getLogger(DISCOVERY))

# Seconds between checks of this host's name: no system reports that it has changed.
SELF_SECONDS = 1.0

#: Called with each datagram that is not a question, and with each question that was answered.
Received = Callable[[Message, Address, float], None]


class Beacon:
    """Answers questions on the UDP port of a peer's TCP port, and says hello and goodbye.

    :param hosts: what the peer is bound to.
    :param listed: gives count and sum of the peers that this process lists, for beats.
    :param received: is given all datagrams that are not answered here.
    :param asked: is given the questions that were answered.
    :raises OSError: the port is taken for UDP.
    """

    def __init__(self, peer: _Peer, hosts: Sequence[str], port: int, instance: bytes,
                 listed: Callable[[], Tuple[int, int]], received: Received,
                 asked: Received) -> None:
        self.peer = peer
        self._hosts = hosts
        self.port = port
        self.local = is_loopback(hosts[0])
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
        # What the facts were made with, and until when that is not looked at again.
        self._made_with: Optional[Tuple[int, str]] = None
        self._facts_until = 0.0
        self.sockets = Sockets(hosts, port)
        self.join()
        self._since = monotonic()

    def join(self) -> None:
        """Hear what is sent to all peers at the interfaces that there are now."""
        if not self.local and any([":" in host for host in self._hosts]):
            from ...link import interfaces  # only a peer on the LAN needs it

            self.sockets.join(interfaces.read()[0])

    def _describe(self) -> Self:
        now = monotonic()
        if now >= self._facts_until:
            made_with = settings.changes, socket.gethostname()
            if made_with != self._made_with:
                self._make_facts()
            self._made_with, self._facts_until = made_with, now + SELF_SECONDS
        flags = self._flags | (WATCHING if self.watching else 0)
        return Self(self._instance, self.port, flags, self._facts, self._since)

    def _make_facts(self) -> None:
        """Describe the peer. This takes most of a millisecond. Where one question reaches many
        peers on one machine, it would be what a search takes longest for."""
        facts = dict(self.peer.friendly_id)
        facts.pop("instance", None)
        self._facts = b"" if settings.secured and self.seal is None else json.dumps(
            facts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        self._flags = EVERYWHERE if self._hosts[0] in EVERYWHERE_HOSTS else 0
        self._flags |= EVERYWHERE_6 if EVERY_ADDRESS_6 in self._hosts else 0
        self._flags |= SECURED if settings.secured else 0

    def forget_facts(self) -> None:
        """What the peer says about itself has changed: its functions, or the addresses of its
        host."""
        self._made_with, self._facts_until = None, 0.0

    def receive(self, _mask: int = 0) -> None:
        """Take what has come."""
        received = list(self.sockets.receive())
        # After reading: what was asked after a secret was set is answered under it.
        if self._revision != settings.revision:
            self._revision = settings.revision
            self.seal = self.responder.seal = make_seal()
            self.forget_facts()
        now = monotonic()
        questions: Dict[Address, Tuple[Message, bytes]] = {}
        for data, source in received:
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
            self.sockets.send(data, address)
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
        for source, target in announcements(self._hosts):
            try:
                self.sockets.send_from(source, datagram, target, settings.ports)
            except OSError as exc:
                note(logging.DEBUG, "no announcement from %s to %s: %s", source.address, target,
                     exc)

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


def announcements(hosts: Sequence[str]) -> List[Tuple[Interface, str]]:
    """Where a peer that is bound to these hosts makes itself known: from which address, and to
    which. Of each interface only the best address of IPv6 is announced."""
    found: List[Tuple[Interface, str]] = []
    for host in hosts:
        if is_loopback(host):
            found.append((Interface("lo", host, 128), "::1" if ":" in host else "127.0.0.1"))
    every = [host for host in hosts if host in EVERYWHERE_HOSTS]
    others = [host for host in hosts if host not in every and not is_loopback(host)]
    found += [(Interface("", host, 32), "255.255.255.255") for host in others if ":" not in host]
    if not every and not any([":" in host for host in others]):
        return found
    from ...link import interfaces  # few others need it

    read = interfaces.read()[0]
    found += [(one, str(one.broadcast)) for one in read if one.is_six and one.address in others]
    named = set()
    for one in interfaces.plan(read, settings.interfaces).asked:
        if not one.is_six and EVERY_ADDRESS in every:
            found.append((one, str(one.broadcast)))
        elif one.is_six and EVERY_ADDRESS_6 in every and one.name not in named:
            named.add(one.name)
            found.append((one, str(one.broadcast)))
    return found
