"""Questions to all peers of an engine, and their answers, without a connection to each.

They are the messages that datagrams have on a LAN, sealed with a key of their own that is made from
the secret. An answer repeats the nonce of its question, which is sealed, too: so it comes from a
process that knows the secret, and was not recorded earlier.
"""
from __future__ import annotations

import json
import os
import threading
from collections import deque
from time import monotonic
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional

from ..errors import Address
from ..link import security
from ..peer import _Peer
from ..process import process
from ..settings import ENGINE_SUFFIX, settings
from .answers import Answer
from .lan.datagrams import (ANSWER, ASK, NONCE_BYTES, SECURED, Message, Seal, decode, encode,
                            encode_question, read_question)
from .lan.responder import Rate

# What the key is derived with, so that nothing that is sent on a LAN is an answer here.
ENGINE = b"app-net engine 1"
# Bytes of an answer, and answers that may wait to be read. A peer with more to say is
# asked on a connection.
MAX_ANSWER, MAX_WAITING = 64 * 1024, 4096

#: Sends a question to these instances, or to all if none are given, and calls the function with
#: each answer, in any thread.
Ask = Callable[[bytes, List[str], Callable[[bytes], None]], None]


def make_seal() -> Optional[Seal]:
    """What questions and answers are sealed with; None in the open and under certificates."""
    credentials = security.credentials()
    if credentials is None or credentials.datagram_key is None:
        return None
    import hmac  # loaded already, with the credentials; it loads OpenSSL

    return Seal(hmac.new(credentials.datagram_key, ENGINE, "sha256").digest())


class Question:
    """One question and its answers. For one thread; the engine's threads only hand the answers
    over.

    :param seal: see :func:`make_seal`.
    :param instances: the processes that are asked; all if none are given.
    :param found: how the peers are found, for people.
    """

    def __init__(self, ask: Ask, seal: Seal, instances: List[str], found: str) -> None:
        self._seal = seal
        self._found = found
        self._nonce = os.urandom(NONCE_BYTES)
        self._came: Deque[bytes] = deque(maxlen=MAX_WAITING)
        self._news = threading.Event()
        self._began = monotonic()
        me = bytes.fromhex(process.instance)
        ask(encode(Message(ASK, 0, 0, self._nonce, me, encode_question()), seal), instances,
            self._answered)

    def _answered(self, data: bytes) -> None:
        """In a thread of the engine."""
        if len(data) <= MAX_ANSWER:
            self._came.append(data)
            self._news.set()

    def read(self) -> List[Answer]:
        """The answers that have come since the last time, from processes that have proved
        themselves."""
        found: List[Answer] = []
        for _ in range(len(self._came)):
            data = self._came.popleft()
            message = decode(data, self._seal, MAX_ANSWER)
            if message is None or message.kind != ANSWER or message.nonce != self._nonce \
                    or not message.body or not message.port:
                continue
            facts = _facts(message.body)
            if facts is not None:
                now = monotonic()
                facts["instance"] = message.instance.hex()
                found.append(Answer((facts["instance"] + ENGINE_SUFFIX, message.port), facts,
                                    self._found, now - self._began, now, size=len(message.body)))
        return found

    def wait(self, addresses: Iterable[Address], seconds: float) -> List[Answer]:
        """All answers that come until these addresses have answered, or the time is over."""
        missing, found = set(addresses), []
        until = monotonic() + seconds
        while missing:
            left = until - monotonic()
            if left <= 0 or not self._news.wait(left):
                break
            self._news.clear()
            some = self.read()
            missing -= {answer.address for answer in some}
            found += some
        return found


def _facts(body: bytes) -> Optional[Dict[str, Any]]:
    try:
        facts = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return facts if type(facts) is dict else None


class Answering:
    """Answers the questions of others for the peers of this process. For one thread, except
    :meth:`add` and :meth:`remove`.
    """

    def __init__(self) -> None:
        self._peers: List[_Peer] = []
        self._revision = -1
        self._seal: Optional[Seal] = None
        self._rate = Rate()

    def add(self, peer: _Peer) -> None:
        """Answer for a peer from now on."""
        self._peers.append(peer)

    def remove(self, peer: _Peer) -> None:
        """Stop answering for a peer."""
        if peer in self._peers:
            self._peers.remove(peer)

    def answer(self, data: bytes) -> List[bytes]:
        """The answers to a question; none for a stranger, or for a process that asks too often."""
        if self._revision != settings.revision:
            self._seal, self._revision = make_seal(), settings.revision
        seal = self._seal
        message = decode(data, seal) if seal is not None else None
        if message is None or message.kind != ASK or read_question(message.body) is None \
                or not self._rate.allows(message.instance.hex(), monotonic()):
            return []
        told = []
        for peer in list(self._peers):
            server = peer.server
            if server is not None:
                facts = json.dumps(peer.friendly_id, ensure_ascii=False, separators=(",", ":"))
                told.append(encode(Message(
                    ANSWER, SECURED, server.address[1], message.nonce,
                    bytes.fromhex(process.instance), facts.encode("utf-8", "replace")), seal))
        return [one for one in told if len(one) <= MAX_ANSWER]
