"""Datagrams: a peer answers who asks, says hello when it starts and goodbye when it ends.

All four kinds are 24 bytes: magic, version, kind, the TCP port of the sender (0 in questions) and
a nonce. They say that a peer is there and nothing else: what it is called and what it can do it
tells over TCP, where it may ask who wants to know.

A datagram is only ever a hint. Its source can be forged, so whoever hears a hello first asks that
address, with a nonce made for it, and only an answer with the same nonce is worth a connection.
"""
from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections import deque
from typing import Deque, Dict, Iterable, List, NamedTuple, Optional, Protocol, Set, Tuple

from ...settings import is_loopback, settings
from ...errors import Address
from ...log import SafeLog

log = SafeLog(__name__)

MAGIC = b"\xabnet"
VERSION = 1
WHO, HERE, HELLO, GOODBYE = 1, 2, 3, 4

PACKET = struct.Struct("!4sBBH16s")
NONCE_BYTES = 16

# Datagrams to one source in any second. A search asks a port three times at most, so this serves
# six searches a second from one host; whoever forges a victim's address gains nothing.
REPLIES_PER_SECOND = 20

# Sources of one second that are remembered, some 500 KiB. On a LAN with more, a stranger floods us
# from forged addresses; the rest of that second nobody new is answered.
MAX_SOURCES = 1024

# A larger datagram is not ours; Windows reports an error when one does not fit.
MAX_DATAGRAM = 2048

# Seconds that closing waits for the thread, which has at most one datagram in its hands.
CLOSE_SECONDS = 0.5

Reply = Tuple[bytes, Address]


class Message(NamedTuple):
    kind: int
    port: int
    nonce: bytes


def encode(kind: int, port: int = 0, nonce: bytes = bytes(NONCE_BYTES)) -> bytes:
    """The datagram of one message."""
    return PACKET.pack(MAGIC, VERSION, kind, port, nonce)


def decode(datagram: bytes) -> Optional[Message]:
    """The message of a datagram; None if it is none of ours. Later versions may be longer."""
    if len(datagram) < PACKET.size:
        return None
    magic, version, kind, port, nonce = PACKET.unpack_from(datagram)
    if magic != MAGIC or version != VERSION:
        return None
    return Message(kind, port, nonce)


class Rate:
    """Allows each source REPLIES_PER_SECOND in any second. For one thread."""

    def __init__(self) -> None:
        self._times: Dict[str, Deque[float]] = {}
        self._full_until = 0.0

    def allows(self, source: str, now: float) -> bool:
        """Whether one more is allowed now (seconds, monotonic); it is counted if so."""
        times = self._times.get(source)
        if times is None:
            if len(self._times) >= MAX_SOURCES and not self._forget(now):
                return False
            times = self._times[source] = deque(maxlen=REPLIES_PER_SECOND)
        if len(times) == REPLIES_PER_SECOND and now - times[0] < 1:
            return False
        times.append(now)
        return True

    def _forget(self, now: float) -> bool:
        """Drop the sources that have been quiet for a second; whether there is room then."""
        if now < self._full_until:
            return False
        self._times = {
            source: times for source, times in self._times.items() if now - times[-1] < 1
        }
        # In a flood, going through all of them for each datagram would be the flood's success.
        self._full_until = now + 0.1
        return len(self._times) < MAX_SOURCES


class PeerListener(Protocol):
    """Who keeps the list of known peers, as a responder sees it. Called from its thread."""

    def in_use(self) -> bool:
        """Whether anybody has asked for peers yet, so that news matter."""

    def knows(self, address: Address) -> bool:
        """Whether a peer of this address is listed."""

    def look_at(self, address: Address) -> None:
        """Find out what is at this address now; returns at once."""


class Responder:
    """Decides what to send for a datagram that came. No socket, no clock; for one thread.

    :param port: the TCP port of the peer it speaks for.
    :param local: whether that peer keeps to this host, and other sources do not exist for it.
    """

    def __init__(self, port: int, local: bool, keeper: PeerListener) -> None:
        self._port = port
        self._local = local
        self._keeper = keeper
        self._rate = Rate()
        self._key = os.urandom(NONCE_BYTES)
        # Tells own announcements, which a broadcast brings back, from those of others.
        self.mark = os.urandom(NONCE_BYTES)

    def reply(self, datagram: bytes, source: Address, now: float) -> Optional[Reply]:
        """What to send and where, or None. Never longer than what came."""
        message = decode(datagram)
        if message is None or self._local and not is_loopback(source[0]):
            return None
        if message.kind == WHO:
            return self._limited(encode(HERE, self._port, message.nonce), source, now)
        if message.kind == HERE:
            if message.nonce == self._nonce(source):
                self._keeper.look_at(source)
        elif message.port and message.nonce != self.mark:
            return self._news(message, (source[0], message.port), now)
        return None

    def _news(self, message: Message, peer: Address, now: float) -> Optional[Reply]:
        if message.kind == GOODBYE and self._keeper.knows(peer):
            self._keeper.look_at(peer)
        if message.kind == HELLO and self._keeper.in_use():
            return self._limited(encode(WHO, 0, self._nonce(peer)), peer, now)
        return None

    def _limited(self, datagram: bytes, address: Address, now: float) -> Optional[Reply]:
        return (datagram, address) if self._rate.allows(address[0], now) else None

    def _nonce(self, address: Address) -> bytes:
        # Made from the address, so that nothing has to be remembered until the answer comes.
        from hashlib import blake2b  # loads OpenSSL; few processes get this far

        text = f"{address[0]} {address[1]}".encode()
        return blake2b(text, key=self._key, digest_size=NONCE_BYTES).digest()


class Beacon:
    """The UDP side of one running peer: a socket and a daemon thread.

    :param host: the address that the peer's server is bound to.
    :param ports: the ports that peers use; announcements go to all of them.
    :raises OSError: the port is taken for UDP, or there is no thread to be had.
    """

    def __init__(self, host: str, port: int, ports: range, keeper: PeerListener) -> None:
        self._address = (host, port)
        self._ports = ports
        self._responder = Responder(port, is_loopback(host), keeper)
        self._closing = False
        self._socket = open_socket(host, port)
        _open.add(self)
        self._thread = threading.Thread(target=self._run, name="net-beacon", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as problem:  # can't start new thread
            _open.discard(self)
            self._socket.close()
            raise OSError(str(problem)) from problem

    def _run(self) -> None:
        self._announce(HELLO)
        while not self._closing:
            try:
                datagram, source = self._socket.recvfrom(MAX_DATAGRAM)
                reply = self._responder.reply(datagram, source, time.monotonic())
                if reply is not None:
                    self._socket.sendto(*reply)
            except OSError as exc:
                # Off-link or unreachable, or on Windows the echo of an earlier send. A pause, so
                # that a socket which fails for good costs nothing.
                if not self._closing:
                    log(logging.DEBUG, "beacon: %s", exc)
                    time.sleep(0.01)

    def _announce(self, kind: int) -> None:
        datagram = encode(kind, self._address[1], self._responder.mark)
        host = self._address[0]
        # Twice, since a datagram may be lost and nobody confirms it.
        for source, target in announcements(host) * 2:
            try:
                send_from(source, datagram, target, self._ports)
            except OSError as exc:
                log(logging.DEBUG, "no announcement from %s to %s: %s", source, target, exc)

    def close(self) -> None:
        """Say goodbye and stop; the port is free afterwards."""
        if self._closing:
            return
        self._closing = True
        _open.discard(self)
        self._announce(GOODBYE)
        self._wake()
        self._thread.join(CLOSE_SECONDS)
        self._socket.close()

    def _wake(self) -> None:
        """Make the thread's receive return, on every system."""
        host, port = self._address
        for end in (
            lambda: self._socket.shutdown(socket.SHUT_RD),  # Linux; it also says "not connected"
            lambda: self._socket.sendto(b"", ("127.0.0.1" if host == "0.0.0.0" else host, port)),
        ):
            try:
                end()
            except OSError:
                pass

    def abandon(self) -> None:
        """Let go of the socket that a forked child has inherited, without a word."""
        self._closing = True
        self._socket.close()


def open_socket(host: str, port: int) -> socket.socket:
    """The socket of a beacon, which can send to neighbours only.

    :raises OSError: the port is taken for UDP.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if os.name == "posix":
            # A peer that keeps to this host may have the same number, at 127.0.0.1 alone. On
            # Windows the option would let others take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Whoever asks from beyond the own networks gets nothing, whatever address he claims: the
        # first keeps to networks that the interfaces are on, the second ends at the first router.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
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
    from . import interfaces  # loads ifaddr; only a peer on all interfaces needs it

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


# The beacons of this process, for its forked children.
_open: Set[Beacon] = set()


def _abandon_all() -> None:
    for beacon in _open:
        beacon.abandon()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
