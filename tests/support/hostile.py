"""Subscribers, publishers and searchers that say what none of ours would, in a few lines each.
Callers are ``Raw`` of service.py, peers that answer wrongly those of strangers.py."""
from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from typing import Any, Callable, Iterator, Optional, Tuple

from net.discovery.lan.datagrams import (ANSWER, ANSWER_BYTES, ASK, ASK_BYTES, HELLO, MAX_FACTS,
                                         Message, decode, encode, encode_question, encode_said,
                                         facts_digest)
from net.wire.deliveries import encode_subscribed, encode_taken
from net.wire.frames import CALL, EVENT, SUBSCRIBE, Frame, FrameParser, KNOWN, pack
from net.wire.limits import Limits
from net.wire.messages import encode_result
from net.wire.session import MAGIC, encode_hello
from service import Raw
from strangers import Stranger
from times import patience


def message(kind: int, number: int, content: Any) -> bytes:
    """A frame of plain JSON."""
    return b"".join(pack(kind, number, json.dumps(content).encode()))


def tls_hello() -> bytes:
    """A whole TLS hello, of a client that proves nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


class Searcher:
    """A socket for datagrams, as of a process that searches or says that it serves. In ``with``.

    :param host: loopback address that it sends from.
    :param port: likewise; 0 for any.
    :ivar instance: the id that it claims.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, instance: bytes = b"") -> None:
        self.instance = instance or os.urandom(16)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.address: Tuple[str, int] = self.sock.getsockname()
        self._thread: Optional[threading.Thread] = None

    def say(self, kind: int, to: Any, body: bytes = b"", port: Optional[int] = None,
            nonce: bytes = b"") -> None:
        """Send a datagram.

        :param port: the one at which it claims to serve; by default the one from which it sends.
        """
        port = self.address[1] if port is None else port
        self.sock.sendto(encode(Message(kind, 0, port, nonce or os.urandom(8), self.instance,
                                        body)), to)

    def ask(self, to: Any, seconds: float = patience(0.5)) -> Optional[Message]:
        """Ask a peer what it is; None if no answer comes."""
        nonce = os.urandom(8)
        self.say(ASK, to, encode_question(size=ASK_BYTES), 0, nonce)
        self.sock.settimeout(seconds)
        try:
            while True:
                found = decode(self.sock.recv(2000))
                if found is not None and found.nonce == nonce:
                    return found
        except socket.timeout:
            return None

    def pretend(self, to: Any, facts: bytes = b"{}") -> None:
        """Say hello, and answer all questions, as if a peer were there, until it is closed."""
        self.say(HELLO, to, encode_said(facts, facts_digest(facts), 0))
        self.sock.settimeout(None)
        self._thread = threading.Thread(target=self._answer, args=(facts[:MAX_FACTS],))
        self._thread.start()

    def _answer(self, facts: bytes) -> None:
        while True:
            data, source = self.sock.recvfrom(2000)
            if not data:
                return
            asked = decode(data)
            if asked is not None and asked.kind == ASK:
                self.say(ANSWER, source, encode_said(facts, bytes(8), len(data) - ANSWER_BYTES),
                         nonce=asked.nonce)

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"", self.address)
            self._thread.join()
        self.sock.close()


class Subscriber(Raw):
    """A connection that has asked for events. In ``with``.

    :ivar reply: the frame that came back.
    """

    def __init__(self, address: Any, event: str = "number", **fields: Any) -> None:
        super().__init__(address)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.greet()
        self._session.allow(KNOWN, Limits())
        self.reply = self.ask(event, **fields)

    def ask(self, event: str, number: int = 1, **fields: Any) -> Frame:
        """Subscribe to an event; return the reply."""
        self.say(SUBSCRIBE, number, {"event": event, "tag": "dGFn", **fields})
        return self.frame()

    def say(self, kind: int, number: int, content: Any) -> None:
        """Send a frame."""
        self.send(message(kind, number, content))

    def frame(self) -> Frame:
        """The next frame that comes."""
        return self._event()

    def take(self, number: int, problem: Optional[str] = None) -> None:
        """Say that an EVENT frame was taken."""
        self.send(b"".join(encode_taken(number, problem)))


class Publisher(Stranger):
    """Listens, greets, and treats its subscribers in its own way.

    :param talk: called for each subscriber, in a thread of its own, once it has subscribed.
    :param instance: the id that it claims.
    """

    def __init__(self, port: int, talk: Callable[[Talk], None], instance: str = "hostile",
                 info: Any = None, host: str = "127.0.0.1") -> None:
        self._talk = talk
        self._hello = b"".join(encode_hello(instance, Limits()))
        self._info = {"group": None, "hub": False} if info is None else info
        super().__init__(port, self._greet, host)

    def _greet(self, sock: socket.socket) -> None:
        data = sock.recv(4096)
        if not data.startswith(MAGIC):
            return
        sock.sendall(self._hello)
        talk = Talk(sock)
        for frame in talk.frames():
            if frame.kind == CALL:
                talk.send(*encode_result(frame.number, self._info))
            elif frame.kind == SUBSCRIBE:
                talk.first = frame
                self._talk(talk)


class Talk:
    """A connection from a subscriber, as its publisher has it.

    :ivar first: its first SUBSCRIBE frame.
    """

    first: Frame

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._parser = FrameParser(Limits(), KNOWN)
        self._number = 0

    def frames(self) -> Iterator[Frame]:
        """What comes, to its end."""
        while True:
            data = self.sock.recv(64 * 1024)
            if not data:
                return
            frame = self._parser.receive(data)
            while frame is not None:
                yield frame
                frame = self._parser.receive(b"")

    def send(self, *pieces: Any) -> None:
        self.sock.sendall(b"".join(pieces))

    def accept(self, sequence: Optional[int] = 0, frame: Optional[Frame] = None) -> None:
        """Say that a subscription begins after an event."""
        self.send(*encode_subscribed((frame or self.first).number, sequence))

    def events(self, *values: Any, number: Optional[int] = None) -> None:
        """Send an EVENT frame: name, number, args and kwargs of each."""
        self._number += 1
        self.send(message(EVENT, self._number if number is None else number, list(values)))
