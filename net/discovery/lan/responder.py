"""What a peer answers by datagram, and to whom it sends beats. No socket, no clock.

Every answer is at most as long as its question, so that a peer cannot be used to flood another
host, and goes to neighbours only, which the socket ensures. What a question costs is bounded by its
source, by the number of sources, and in all.
"""
from __future__ import annotations

import math
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ...errors import Address
from ...settings import is_loopback
from .datagrams import (ANSWER, ANSWER_BYTES, BEAT, Message, NONCE_BYTES, SEALED, SEAL_BYTES,
                        SECURED, SUM, Question, Seal, digest, encode, encode_said, read_question)

# Answers to one host: at once, and in each second after that. A search asks a port some four
# times, so this serves all the searches that the peers of a host make at the same time.
BURST, PER_SECOND = 60, 40
# Hosts that are answered for the first time, in any second. A datagram to an unused address stays
# in the socket for three seconds, so this many use a third of it at most.
NEW_PER_SECOND = 128
# Hosts that are remembered, some 200 KiB.
MAX_HOSTS = 1024
# Seconds after which a host may be forgotten.
HOST_SECONDS = 10.0

# Watchers that a peer sends beats to at a time. There is one; a few more while they change.
MAX_WATCHERS = 16
# Seconds between beats, at least, and of a lease, at most.
MIN_PERIOD, MAX_LEASE = 0.5, 180

# Seconds over which searching hosts are counted.
CROWD_SECONDS = 1.0
# At most this many searching hosts are counted.
MAX_CROWD = 1024

Reply = Tuple[bytes, Address]


class Self(NamedTuple):
    """What a peer says about itself.

    :ivar flags: see :mod:`.datagrams`.
    :ivar facts: what it says to ``info``, as JSON.
    :ivar since: when it began to hear questions.
    """

    instance: bytes
    port: int
    flags: int
    facts: bytes
    since: float = -math.inf


class Bucket:
    """Allows ``burst`` at once, and ``rate`` in each second after that."""

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = burst
        self.used = now

    def take(self, now: float) -> bool:
        """Whether one more is allowed now; it is counted if so."""
        self._left = min(self._burst, self._left + (now - self.used) * self._rate)
        self.used = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Rate:
    """What may be sent to whom. For one thread."""

    def __init__(self) -> None:
        self._hosts: Dict[str, Bucket] = {}
        self._new = Bucket(NEW_PER_SECOND, NEW_PER_SECOND, 0.0)

    def allows(self, host: str, now: float) -> bool:
        """Whether one more may be sent to a host now (seconds, monotonic)."""
        bucket = self._hosts.get(host)
        if bucket is None:
            if not self._new.take(now):
                return False
            if len(self._hosts) >= MAX_HOSTS:
                self._forget(now)
            bucket = self._hosts[host] = Bucket(BURST, PER_SECOND, now)
        return bucket.take(now)

    def _forget(self, now: float) -> None:
        self._hosts = {host: bucket for host, bucket in self._hosts.items()
                       if now - bucket.used < HOST_SECONDS}
        if len(self._hosts) >= MAX_HOSTS:
            # A flood from forged addresses; those forgotten are new again.
            self._hosts.clear()


class Watcher:
    """A process that is sent beats.

    :ivar due: when the next one has to be sent.
    :ivar sent: how many have been sent.
    """

    def __init__(self, nonce: bytes, period: float, until: float, due: float) -> None:
        self.sent = 0
        self.nonce = nonce
        self.period = period
        self.until = until
        self.due = due


class Responder:
    """Answers questions, and sends beats to those that asked for them. For one thread.

    :param describe: gives what this peer says about itself now.
    :param listed: gives count and sum of the peers that this process lists, for beats.
    :param local: whether the peer keeps to this host, and ignores what comes from others.
    """

    def __init__(self, describe: Callable[[], Self], listed: Callable[[], Tuple[int, int]],
                 local: bool, seal: Optional[Seal] = None) -> None:
        self._describe = describe
        self._listed = listed
        self._local = local
        self.seal = seal
        self._rate = Rate()
        self._key = os.urandom(16)
        self.watchers: Dict[Address, Watcher] = {}
        self._searching: Dict[Address, float] = {}

    def permit(self, address: Address) -> bytes:
        """What proves that answers reach this address. Nothing has to be remembered for it."""
        from _blake2 import blake2b  # hashlib would load OpenSSL

        text = f"{address[0]} {address[1]}".encode()
        return blake2b(text, key=self._key, digest_size=NONCE_BYTES).digest()

    def takes(self, source: Address) -> bool:
        """Whether anything from this source is looked at."""
        return source[1] != 0 and (not self._local or is_loopback(source[0]))

    def answer(self, message: Message, source: Address, now: float,
               first: bytes = b"") -> Optional[bytes]:
        """What to send to the sender of an ASK; None for nothing.

        :param first: the nonce of an earlier question of the same sender, which is answered now.
        """
        me = self._describe()
        if not me.port:
            return None
        if me.flags & SECURED and self.seal is not None and not message.body:
            # The question of a stranger, or one that is not sealed: it learns that a peer is there.
            hint = encode(Message(ANSWER, SECURED, me.port, message.nonce))
            allowed = message.size >= len(hint) and self._rate.allows(source[0], now)
            return hint if allowed else None
        asked = read_question(message.body)
        if source[1] != message.port and message.instance != me.instance:
            self._count(source, now)
        if asked is None or not self._rate.allows(source[0], now):
            return None
        if asked.known and asked.knows(digest(me.instance, message.nonce)):
            return None
        permit = self.permit(source)
        if asked.permit == permit:
            self._lease(asked, message.nonce, source, now)
            first = message.nonce  # that of the beats
        room = message.size - ANSWER_BYTES - (SEAL_BYTES if message.flags & SEALED else 0)
        return encode(Message(ANSWER, me.flags, me.port, first or message.nonce, me.instance,
                              encode_said(me.facts, permit, room), age=now - me.since), self.seal)

    # ------------------------------------------------------------------ many who ask

    def _count(self, source: Address, now: float) -> None:
        if len(self._searching) >= MAX_CROWD:
            self._searching.clear()
        self._searching[source] = now

    def crowd(self, now: float) -> int:
        """How many others have searched just now. Any thread may call."""
        return sum([now - at < CROWD_SECONDS for at in list(self._searching.values())])

    # ------------------------------------------------------------------ beats

    def _lease(self, asked: Question, nonce: bytes, source: Address, now: float) -> None:
        if not asked.lease:
            self.watchers.pop(source, None)
        elif source in self.watchers or len(self.watchers) < MAX_WATCHERS:
            period = max(MIN_PERIOD, asked.period)
            self.watchers[source] = Watcher(nonce, period, now + min(asked.lease, MAX_LEASE),
                                            now + period)

    @property
    def due(self) -> float:
        """When the next beat has to be sent; infinity if no process watches."""
        return min([watcher.due for watcher in self.watchers.values()], default=float("inf"))

    def beats(self, now: float) -> List[Reply]:
        """The beats that are due now."""
        me = self._describe()
        found: List[Reply] = []
        for address, watcher in list(self.watchers.items()):
            if watcher.due > now:
                continue
            if now >= watcher.until:
                del self.watchers[address]
                continue
            watcher.due = max(watcher.due + watcher.period, now + watcher.period / 2)
            found.append((encode(Message(BEAT, me.flags, me.port, watcher.nonce, me.instance,
                                         SUM.pack(*self._listed(), watcher.sent)), self.seal),
                          address))
            watcher.sent += 1
        return found
