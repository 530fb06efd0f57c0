"""A server with a few functions inside the test's process, and raw connections to any server."""
from __future__ import annotations

import resource
import socket
import threading
import time
from typing import Any, Optional

import pytest

from net.dispatch import Dispatch
from net.identity import encode_text
from net.link.base import listen_in_range
from net.link.streams import Stream
from net.link.tcp import TcpCarrier
from net.process import process
from net.run.loop import Loop
from net.run.reading import next_event
from net.run.server import Server
from net.settings import settings
from net.wire.frames import FrameParser, HELLO, KNOWN
from net.wire.limits import Limits
from net.wire.messages import decode_reply, encode_call
from net.wire.session import Hello, caller_session, encode_preface
from times import patience

#: What a caller without a group begins a connection with.
PREFACE = encode_preface()


def serve(dispatch: Dispatch, ports: range = range(0), any_port: bool = True,
          instance: str = "service", host: str = "127.0.0.1") -> Server:
    """A server on a loop of its own."""
    listener = listen_in_range(TcpCarrier(), host, ports, settings.backlog, any_port)
    return Server(dispatch, [listener], Loop("net-test"), settings, instance)


class Service:
    """Serves ``echo``, ``add``, ``fail`` and ``wait`` on loopback.

    :ivar ran: name and arguments of each call that was executed.
    :ivar go: what ``wait`` waits for.
    """

    def __init__(self, **more: Any) -> None:
        self.ran: list = []
        self.go = threading.Event()
        functions = {"echo": lambda *args: args[0] if len(args) == 1 else args,
                     "add": lambda a, b: a + b, "fail": self._fail,
                     "wait": lambda: self.go.wait(patience(20)), **more}
        registry = {encode_text(name): self._counted(name, function)
                    for name, function in functions.items()}
        self.server = serve(Dispatch(registry, coroutines=process.event_loop))
        self.address = self.server.address

    def _counted(self, name: str, function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.ran.append((name, args))
            return function(*args, **kwargs)
        return run

    @staticmethod
    def _fail(kind: str = "ValueError") -> None:
        raise {"ValueError": ValueError, "SystemExit": SystemExit,
               "KeyboardInterrupt": KeyboardInterrupt}[kind]("on purpose")

    def call(self, name: str, *args: Any, at: Optional[tuple] = None,
             timeout: float = patience(10)) -> Any:
        """Call a function here, or through what listens at another address."""
        return process.client.call(at or self.address, encode_text(name), args, {}, timeout)

    def close(self) -> None:
        self.go.set()
        self.server.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def request(name: str, *args: Any, **kwargs: Any) -> bytes:
    """The bytes of the call with number 1, without the preface."""
    return b"".join(bytes(piece) for piece in encode_call(1, encode_text(name), args, kwargs))


class Raw:
    """A plain TCP connection, for bytes that a client of ours would never send. In ``with``.

    :param source: loopback address that it comes from.

    :ivar hello: what the server has said, once its first event was read.
    """

    def __init__(self, address: tuple, *data: bytes, timeout: float = patience(10),
                 source: Optional[str] = None) -> None:
        self.sock = socket.create_connection(address, timeout, (source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started = time.monotonic()
        self.hello: Optional[Hello] = None
        self._session = caller_session(Limits())
        for piece in data:
            self.send(piece)

    def send(self, data: bytes) -> None:
        """Send, unless the other side has closed already."""
        try:
            self.sock.sendall(data)
        except ConnectionError:
            pass

    def greet(self, group: Optional[str] = None) -> Hello:
        """Send a preface and receive the HELLO, as callers do before their first request."""
        self.send(encode_preface(group))
        self.hello = self._event()
        assert type(self.hello) is Hello, self.hello
        return self.hello

    def reply(self) -> Any:
        """The value of the next reply; raises what a caller would raise."""
        event = self._event()
        if type(event) is Hello:
            self.hello = event
            event = self._event()
        return decode_reply(event, None, None, b"")

    def _event(self) -> Any:
        return next_event(Stream(self.sock), self._session)

    def rest(self) -> bytes:
        """All that comes until the other side ends the connection, after its HELLO."""
        held = self._session.held
        found = self._session.rest[-held:] if held else b""
        while True:
            try:
                data = self.sock.recv(64 * 1024)
            except ConnectionError:
                data = b""
            if not data:
                return found if self.hello else after_hello(found)
            found += data

    @property
    def seconds(self) -> float:
        """Seconds since it connected."""
        return time.monotonic() - self.started

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


def greeted(*messages: bytes) -> bytes:
    """The first bytes of a connection of ours."""
    return PREFACE + b"".join(messages)


def after_hello(data: bytes) -> bytes:
    """What follows the HELLO at the beginning of a server's bytes; all of them if there is none."""
    parser = FrameParser(Limits(), KNOWN)
    if data[:1] != bytes((HELLO,)) or parser.receive(data) is None:
        return data
    return data[len(data) - parser.held:]


def until(fact: Any, seconds: float = 5.0) -> None:
    """Return as soon as a function returns something true; AssertionError after ``seconds``."""
    deadline = time.monotonic() + patience(seconds)
    while not fact():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.005)


def memory(pid: Any = "self") -> int:
    """Bytes of memory that a process has in use now; the test is skipped where none can tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        pytest.skip("needs /proc")
