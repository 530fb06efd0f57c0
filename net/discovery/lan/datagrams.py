"""The datagrams of discovery: bytes to messages and back. No socket, no clock.

Every datagram begins with the same 18 bytes: magic, version, kind, flags, the age of the sender,
its TCP port (0 if it serves none) and a nonce; then come the instance of the sender and what the
kind needs. Under a secret all but the first 18 bytes is sealed: encrypted and authenticated by a
key that is made from the secret, the first 18 bytes included. So a stranger learns that a peer is
there, and nothing else.

A datagram is believed only as far as it answers: an answer repeats the nonce of its question, and
one that was asked of a single address proves that this address is where it comes from.
"""
from __future__ import annotations

import math
import os
import socket
import struct
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ...errors import Address
from ...identity import without_zone
from ...link.addresses import is_link_local

MAGIC = b"\xabnet"
VERSION = 2

#: Who is there? Answered with ANSWER, and with BEAT for as long as it asks for.
ASK = 1
#: What a peer says about itself, to the asker.
ANSWER = 2
#: The same unasked, when a peer starts, comes back or changes; and when it ends.
HELLO = 3
GOODBYE = 4
#: "I am alive", to a watcher that asked for it.
BEAT = 5
#: To another watcher: the peers that the sender lists (LIST); those that may be gone or new
#: (DOUBT).
LIST = 6
DOUBT = 7
KINDS = range(ASK, DOUBT + 1)

#: Flags: what follows the head is sealed; the sender watches others; it serves at every address of
#: its host, and in IPv6; it is secured, so that only TLS tells more; it wants a LIST back; what
#: follows are addresses of IPv6.
SEALED, WATCHING, EVERYWHERE, SECURED, REPLY, EVERYWHERE_6, SIX = 1, 2, 4, 8, 16, 32, 64

HEAD = struct.Struct("!4sBBBBH8s")
NONCE_BYTES = 8
INSTANCE_BYTES = 16
NOBODY = bytes(INSTANCE_BYTES)

#: Of a question: how many digests follow, seconds that it asks beats for, tenths of a second
#: between them, and the permit that the asked peer gave.
QUESTION = struct.Struct("!HBB8s")
#: Of an answer: bytes of facts that there are, which follow if the question was as long, and the
#: permit for the asker.
SAID = struct.Struct("!H8s")
#: Of a beat: how many peers its sender lists, the sum of their instances, and how many beats there
#: were before for the same question, so that a recorded one is worth nothing.
SUM = struct.Struct("!HQI")

# The bytes of an answer before its facts.
ANSWER_BYTES = HEAD.size + INSTANCE_BYTES + SAID.size
# Steps of the age in the head: in a second, and at most. Older than any question of a search makes
# no difference.
AGE_STEPS, MAX_AGE = 64, 255
# Salt of the sender, nonce and tag of the cipher.
SEAL_BYTES = 16 + 12 + 16

# This fits into an Ethernet frame with room for a tunnel's headers. A larger datagram would travel
# in fragments, all of which have to arrive. Larger ones are not read: Windows reports an error for
# them.
MAX_DATAGRAM = 1400
MAX_FACTS = MAX_DATAGRAM - ANSWER_BYTES - SEAL_BYTES
# A broadcast question leaves room for usual facts in its answers, which are never longer than it.
ASK_BYTES = 512
# Bytes of the digest of a peer that has answered. One in four thousand million is mistaken for
# another's, and the next question has other digests.
DIGEST_BYTES = 4
MAX_DIGESTS = (MAX_DATAGRAM - SEAL_BYTES - HEAD.size - INSTANCE_BYTES - QUESTION.size) \
    // DIGEST_BYTES

# Keys of senders that are kept, one for each process that has sent something; some 200 KiB.
MAX_KEYS = 1024


class Message(NamedTuple):
    """What one datagram says.

    :ivar instance: that of the sender; zeros in the answer of one that may not tell it.
    :ivar body: what follows, by kind.
    :ivar size: bytes of the datagram that it came in.
    :ivar age: seconds for which the sender of an ANSWER has heard questions, rounded down; infinity
        for long, or if it does not say.
    """

    kind: int
    flags: int = 0
    port: int = 0
    nonce: bytes = bytes(NONCE_BYTES)
    instance: bytes = NOBODY
    body: bytes = b""
    size: int = 0
    age: float = math.inf


class Question(NamedTuple):
    """The body of an ASK.

    :ivar known: digests of the peers that need not answer, one after the other.
    :ivar lease: seconds that the asker wants beats for; 0 for none from now on.
    :ivar period: seconds between them.
    :ivar permit: what the asked peer has given the asker; without it there are no beats.
    """

    known: bytes = b""
    lease: int = 0
    period: float = 0.0
    permit: bytes = bytes(NONCE_BYTES)

    def knows(self, one: bytes) -> bool:
        """Whether a digest is among those that need not answer."""
        at = self.known.find(one)
        while at > 0 and at % DIGEST_BYTES:  # parts of two others
            at = self.known.find(one, at + 1)
        return at >= 0


class Said(NamedTuple):
    """The body of an ANSWER or a HELLO.

    :ivar size: bytes of facts that there are.
    :ivar permit: for the asker to give back; it proves that answers reach the asker. In a HELLO,
        the digest of the facts.
    :ivar facts: None if the question was too short for them.
    """

    size: int
    permit: bytes
    facts: Optional[bytes]


class Entry(NamedTuple):
    """One peer on a list. ``instance`` may be only the beginning of it."""

    address: Address
    instance: bytes


class Seal:
    """Encrypts and authenticates datagrams. For one thread.

    :param key: the same wherever the secret is known.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Each process has its own key, by its salt, so random nonces never collide.
        self._salt = os.urandom(16)
        self._ciphers: Dict[bytes, Any] = {}

    def _cipher(self, salt: bytes) -> Any:
        cipher = self._ciphers.get(salt)
        if cipher is None:
            # Loaded already, with the credentials. Open mode needs no OpenSSL.
            import hmac

            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            if len(self._ciphers) >= MAX_KEYS:
                self._ciphers.clear()
            cipher = AESGCM(hmac.new(self._key, salt, "sha256").digest())
            self._ciphers[salt] = cipher
        return cipher

    def close(self, head: bytes, text: bytes) -> bytes:
        """What is sent in place of the text after this head."""
        nonce = os.urandom(12)
        sealed: bytes = self._cipher(self._salt).encrypt(nonce, text, head)
        return self._salt + nonce + sealed

    def open(self, head: bytes, data: bytes) -> Optional[bytes]:
        """The text; None if it was not sealed with this key."""
        if len(data) < SEAL_BYTES:
            return None
        try:
            text: bytes = self._cipher(data[:16]).decrypt(data[16:28], data[28:], head)
        except Exception:  # InvalidTag, whose module need not be loaded to know it
            return None
        return text


def encode(message: Message, seal: Optional[Seal] = None) -> bytes:
    """The datagram of a message."""
    flags = message.flags if seal is None else message.flags | SEALED
    steps = message.age * AGE_STEPS
    age = 1 + int(steps) if steps < MAX_AGE else 0
    head = HEAD.pack(MAGIC, VERSION, message.kind, flags, age, message.port, message.nonce)
    text = message.instance + message.body
    return head + (text if seal is None else seal.close(head, text))


def decode(data: bytes, seal: Optional[Seal] = None,
           most: int = MAX_DATAGRAM) -> Optional[Message]:
    """The message of a datagram; None if it is not one of ours.

    A datagram that is secured otherwise than this process is read as far as its head: its instance
    is NOBODY and it has no body.

    :param most: bytes that it may have; what an engine carries is no datagram.
    """
    if len(data) < HEAD.size or len(data) > most:
        return None
    magic, version, kind, flags, steps, port, nonce = HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or kind not in KINDS:
        return None
    text: Optional[bytes] = data[HEAD.size:]
    if flags & SEALED:
        text = seal.open(data[:HEAD.size], data[HEAD.size:]) if seal is not None else None
    elif seal is not None:
        text = None
    if text is None:
        return Message(kind, flags, port, nonce, size=len(data))
    if len(text) < INSTANCE_BYTES:
        return None
    age = (steps - 1) / AGE_STEPS if steps else math.inf
    return Message(kind, flags, port, nonce, text[:INSTANCE_BYTES], text[INSTANCE_BYTES:],
                   len(data), age)


def digest(instance: bytes, nonce: bytes) -> bytes:
    """What stands for a peer in a question that this peer need not answer."""
    from _blake2 import blake2b  # hashlib would load OpenSSL

    return blake2b(instance, key=nonce, digest_size=DIGEST_BYTES).digest()


def encode_question(asked: Question = Question(), size: int = 0, sealed: bool = False) -> bytes:
    """The body of an ASK.

    :param size: bytes that the whole datagram has at least, so that the answer may be as long.
    """
    digests = asked.known[:MAX_DIGESTS * DIGEST_BYTES]
    body = QUESTION.pack(len(digests) // DIGEST_BYTES, asked.lease, round(asked.period * 10),
                         asked.permit) + digests
    head = HEAD.size + INSTANCE_BYTES + (SEAL_BYTES if sealed else 0)
    return body + bytes(max(0, min(size, MAX_DATAGRAM) - head - len(body)))


def read_question(body: bytes) -> Optional[Question]:
    """What an ASK asks; None if it is malformed."""
    if len(body) < QUESTION.size:
        return None
    count, lease, period, permit = QUESTION.unpack_from(body)
    end = QUESTION.size + count * DIGEST_BYTES
    if len(body) < end or lease and not period:
        return None
    return Question(body[QUESTION.size:end], lease, period / 10, permit)


def encode_said(facts: bytes, permit: bytes, room: int) -> bytes:
    """The body of an ANSWER or a HELLO, with the facts if they take no more than ``room`` bytes."""
    return SAID.pack(min(len(facts), 0xFFFF), permit) + (facts if len(facts) <= room else b"")


def encode_hello(facts: bytes) -> bytes:
    """The body of a HELLO. The digest of the facts tells those that list the sender whether the
    facts have changed."""
    return encode_said(facts, facts_digest(facts), 0)


def facts_digest(facts: Optional[bytes]) -> bytes:
    """The digest of facts in a HELLO."""
    from _blake2 import blake2b  # hashlib would load OpenSSL

    return blake2b(facts or b"", digest_size=NONCE_BYTES).digest()


def read_said(body: bytes) -> Optional[Said]:
    """What an ANSWER or a HELLO says; None if it is malformed."""
    if len(body) < SAID.size:
        return None
    size, permit = SAID.unpack_from(body)
    facts = body[SAID.size:SAID.size + size]
    if facts and len(facts) < size:
        return None
    return Said(size, permit, facts or None)


def read_sum(body: bytes) -> Optional[Tuple[int, int, int]]:
    """Count, sum and number of a BEAT; None if it is malformed."""
    return SUM.unpack_from(body) if len(body) >= SUM.size else None


class Family(NamedTuple):
    """How addresses of one family stand in a LIST or DOUBT.

    :ivar sockets: what sockets call it.
    :ivar bounds: two addresses: all that the sender lists from the first up to the second follows.
    :ivar flags: those that a datagram with such addresses has.
    :ivar entry: a peer: address, port, beginning of its instance.
    """

    sockets: int
    flags: int
    bounds: struct.Struct
    entry: struct.Struct

    @property
    def most(self) -> int:
        """Entries of one datagram."""
        return (MAX_DATAGRAM - SEAL_BYTES - HEAD.size - INSTANCE_BYTES - self.bounds.size) \
            // self.entry.size

    def place(self, address: Address) -> bytes:
        """An address as bytes that sort like it. Zones are not sent."""
        return socket.inet_pton(self.sockets, without_zone(address[0])) \
            + address[1].to_bytes(2, "big")

    @property
    def last(self) -> bytes:
        """What sorts behind all addresses."""
        return b"\xff" * (self.bounds.size // 2)


FOUR_LIST = Family(socket.AF_INET, 0, struct.Struct("!6s6s"), struct.Struct("!4sH4s"))
SIX_LIST = Family(socket.AF_INET6, SIX, struct.Struct("!18s18s"), struct.Struct("!16sH4s"))


def family_of(address: Address) -> Family:
    """How an address stands in a list."""
    return SIX_LIST if ":" in address[0] else FOUR_LIST


def encode_list(entries: Iterable[Entry]) -> List[Tuple[int, bytes]]:
    """Flags and bodies of LISTs that together hold these and no others of their families."""
    places: Dict[Family, List[Tuple[bytes, bytes]]] = {}
    for entry in entries:
        family = family_of(entry.address)
        places.setdefault(family, []).append((family.place(entry.address), entry.instance[:4]))
    bodies = []
    for family, found in (places or {FOUR_LIST: []}).items():
        found.sort()
        starts = range(0, len(found), family.most) or (0,)
        ends = [found[start][0] for start in starts[1:]] + [family.last]
        lower = bytes(len(family.last))
        for start, upper in zip(starts, ends):
            bodies.append((family.flags, family.bounds.pack(lower, upper) + b"".join(
                place + instance for place, instance in found[start:start + family.most])))
            lower = upper
    return bodies


class Listed(NamedTuple):
    """The body of a LIST: what its sender lists from one address up to, not including, another."""

    entries: List[Entry]
    family: Family
    lower: bytes
    upper: bytes

    def covers(self, address: Address) -> bool:
        """Whether the sender would have listed this peer here."""
        return family_of(address) is self.family \
            and self.lower <= self.family.place(address) < self.upper

    @property
    def is_first(self) -> bool:
        """Whether it begins a list."""
        return not any(self.lower)


def read_list(message: Message, source: Address) -> Optional[Listed]:
    """What a LIST or DOUBT lists; None if it is malformed.

    :param source: where it came from. Link-local addresses are of the same link.
    """
    family = SIX_LIST if message.flags & SIX else FOUR_LIST
    body = message.body
    if len(body) < family.bounds.size:
        return None
    lower, upper = family.bounds.unpack_from(body)
    zone = "".join(source[0].partition("%")[1:])
    found = []
    for at in range(family.bounds.size, len(body) - family.entry.size + 1, family.entry.size):
        packed, port, instance = family.entry.unpack_from(body, at)
        host = socket.inet_ntop(family.sockets, packed)
        if port:
            found.append(Entry((host + zone if is_link_local(host) else host, port), instance))
    return Listed(found[:family.most], family, lower, upper)
