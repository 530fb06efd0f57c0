"""Listeners that are not peers, or are bad ones: what a search meets on real networks."""
from __future__ import annotations

import socket
import struct
import threading
from typing import Callable, List, Optional

from net.link.streams import Stream
from net.run.reading import next_event
from net.wire import legacy
from net.wire.frames import (ANSWER, CALL, END, FAILURE, FLAG, HEADER, ITEM, KNOWN, RESULT,
                             FrameParser, pack)
from net.wire.limits import Limits
from net.wire.messages import encode_result
from net.wire.session import encode_hello

HELLO = b"".join(encode_hello("stranger", Limits()))


def reply(value: object) -> bytes:
    """The reply of a peer whose ``info`` gives this value."""
    return b"".join(encode_result(1, value))


def greeted(treat: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Say HELLO as a peer does, and treat the request in another way."""
    def greet(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(HELLO)
        treat(sock)
    return greet


def peer(info: object) -> Callable[[socket.socket], None]:
    """A peer whose ``info`` gives this value."""
    return greeted(says(reply(info)))


def silence(sock: socket.socket) -> None:
    """Accept, read and never answer."""
    while sock.recv(4096):
        pass


def close(sock: socket.socket) -> None:
    """Close at once."""


def reset(sock: socket.socket) -> None:
    """Reset the connection once something came."""
    sock.recv(4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def http(sock: socket.socket) -> None:
    """What a web server says to bytes that are not HTTP."""
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def says(data: bytes, *, then_wait: bool = False) -> Callable[[socket.socket], None]:
    """Answer with these bytes, then close or stay."""
    def answer(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(data)
        if then_wait:
            silence(sock)
    return answer


def endless(start: bytes) -> Callable[[socket.socket], None]:
    """Begin like this and never end."""
    def talk(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(start)
        while True:
            sock.sendall(b" " * 65536)
    return talk


def drips(data: bytes) -> Callable[[socket.socket], None]:
    """Answer byte by byte, one each 50 ms."""
    def drip(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.settimeout(0.05)
        for byte in data:
            sock.sendall(bytes((byte,)))
            try:
                if not sock.recv(1):
                    return
            except socket.timeout:
                pass
    return drip


def old_peer(info: object, dialect: str = legacy.BASE64,
             asked: Optional[List[bytes]] = None) -> Callable[[socket.socket], None]:
    """A peer that speaks only an old dialect, and receives once.

    :param asked: what it receives is put into this.
    """
    def answer(sock: socket.socket) -> None:
        data = sock.recv(1024)
        if asked is not None:
            asked.append(data)
        try:
            content = legacy.read_object(data, dialect=dialect)
        except Exception:
            content = None
        if content is None:
            sock.sendall(legacy.encode_error("Error: cannot read that", dialect))
        else:
            sock.sendall(legacy.encode_result(info, dialect=dialect))
    return answer


HUGE_HEADER = HEADER.pack(RESULT, 0, 0, 1, 0xFFFFFFFF)
TOO_LONG = b"".join(pack(RESULT, 1, b'"' + b"x" * 100_000 + b'"'))


class Stranger:
    """A listener on loopback that treats each connection in its own way."""

    def __init__(self, port: int, treat: Callable[[socket.socket], None],
                 host: str = "127.0.0.1") -> None:
        self._treat = treat
        self._listener = socket.create_server((host, port))
        self.address = self._listener.getsockname()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, sock: socket.socket) -> None:
        try:
            self._treat(sock)
        except OSError:
            pass
        finally:
            sock.close()

    def stop(self) -> None:
        """Close the listener and every connection."""
        for sock in (self._listener, *self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._listener.close()
        for thread in self._threads:
            thread.join()


class Producer:
    """A stranger that answers requests with any frames.

    :ivar script: for each call, what it is answered with: ``(kind, text)`` with the number of the
        call, ``(kind, text, number)``, or a function of the socket.
    :ivar requests: all frames that came.
    :ivar ended: set when a connection has ended.
    """

    def __init__(self) -> None:
        self.script: list = []
        self.requests: list = []
        self.ended = threading.Event()
        self._stranger = Stranger(0, self._treat)
        self.address = self._stranger.address[:2]

    def _treat(self, sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(HELLO)
        session = FrameParser(Limits(), KNOWN)
        stream = Stream(sock)
        while True:
            try:
                self.requests.append(next_event(stream, session))  # type: ignore[arg-type]
            except Exception:
                self.ended.set()
                return
            if self.requests[-1].kind != CALL:
                continue
            number = self.requests[-1].number
            for step in self.script.pop(0) if self.script else ():
                if callable(step):
                    step(sock)
                else:
                    kind, text, *more = step
                    sock.sendall(b"".join(pack(kind, *(more or [number]), text)))

    def close(self) -> None:
        self._stranger.stop()


#: What a stream does not go on or end with, by what it is; see :class:`Producer`.
NONSENSE = {
    "no list": [(ITEM, b"5")], "an object": [(ITEM, b"{}")], "no items": [(ITEM, b"[]")],
    "no JSON": [(ITEM, b"[1,")], "nothing": [(ITEM, b"")], "an end without JSON": [(END, b"")],
    "a result": [(RESULT, b"5")], "a flag": [(FLAG, b"{}")], "an answer": [(ANSWER, b"{}")],
    "a failure of nothing": [(FAILURE, b"{}")], "a kind of later versions": [(99, b"{}")],
    "items of another call": [(ITEM, b"[1]", 77)], "an end of another call": [(END, b"null", 77)],
    "an error of another call": [(FAILURE, b'{"raised":{}}', 77)],
    "noise": [lambda sock: sock.sendall(b"\xff" * 40)],
    "too much": [lambda sock: sock.sendall(HEADER.pack(ITEM, 0, 0, 1, 0xffffffff))],
}
