"""Refused clients learn why in the dialect that they speak."""
from __future__ import annotations

import socket
import threading
from typing import Any, Callable, Iterator, List

import pytest

from net.errors import PeerBusy, RemoteError
from net.identity import encode_text
from net.run import refusals
from net.run.loop import Loop
from net.run.refusals import RefusedClients
from net.wire import legacy
from net.wire.legacy import BASE64, INFO, PLAIN, LegacySession, Reply
from service import until
from times import patience

TAG = encode_text("app.f")
FULL = PeerBusy(None, "full")


class Door:
    """The refused clients of a loop."""

    def __init__(self) -> None:
        self.loop = Loop("net-test")
        self.clients = RefusedClients(self.loop)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.opened: List[socket.socket] = []

    def refuse(self, *data: bytes) -> socket.socket:
        """A client that has sent this when it is refused."""
        client = socket.create_connection(self.listener.getsockname(), patience(5))
        self.opened.append(client)
        for piece in data:
            client.sendall(piece)
        accepted, _ = self.listener.accept()
        self.do(lambda: self.clients.refuse(accepted, FULL))
        return client

    def do(self, step: Callable[[], None]) -> None:
        """Have something done in the loop."""
        done = threading.Event()
        self.loop.call_soon(lambda: (step(), done.set()))
        assert done.wait(patience(5))

    @property
    def empty(self) -> bool:
        """Whether none is left."""
        return not self.clients._waiting

    def close(self) -> None:
        self.do(self.clients.close)
        for sock in (self.listener, *self.opened):
            sock.close()


@pytest.fixture
def door() -> Iterator[Door]:
    one = Door()
    yield one
    one.close()


def test_a_client_that_speaks_our_wire_gets_a_frame(door):
    client = door.refuse(b"\xabnet\x01\0\0\0")
    assert b'"refused"' in client.recv(4096) and client.recv(1) == b""
    client.close()
    until(lambda: door.empty)


@pytest.mark.parametrize("dialect", [BASE64, PLAIN])
def test_an_old_program_gets_an_error_in_its_dialect(door, dialect):
    client = door.refuse(LegacySession(dialect).call(TAG, [1], {}))
    with pytest.raises(RemoteError, match="full"):
        Reply(dialect, client.recv(1024)).value(None, TAG)
    assert client.recv(1) == b""


@pytest.mark.parametrize("dialect", [BASE64, PLAIN])
def test_it_may_come_in_pieces(door, dialect):
    request = LegacySession(dialect).call(TAG, [1], {})
    client = door.refuse(request[:10])
    client.sendall(request[10:])
    assert Reply(dialect, client.recv(1024)).dialect == dialect


@pytest.mark.parametrize("data", [
    LegacySession(BASE64).call(INFO, [], {"time_out": 0.1}),
    LegacySession(PLAIN).call(INFO, [], {"time_out": 0.1}), b"eyJ!", b'{"a"]}', b"e" * 70_000,
], ids=["a search of 0.4", "a search of 0.6", "broken base64", "broken JSON", "too long"])
def test_what_an_old_program_could_not_bear_is_a_reset(door, data):
    client = door.refuse(data[:60_000], data[60_000:])
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    until(lambda: door.empty)


def test_a_request_that_does_not_end_is_reset_in_time(door, monkeypatch):
    monkeypatch.setattr(refusals, "REFUSAL_TIME", 0.2)
    client = door.refuse(b"eyJj")
    assert not door.empty
    with pytest.raises(ConnectionResetError):
        client.recv(1024)


def test_a_client_that_says_nothing_is_refused_in_the_end(door, monkeypatch):
    monkeypatch.setattr(refusals, "REFUSAL_TIME", 0.2)
    client = door.refuse()
    assert b'"refused"' in client.recv(4096)
    until(lambda: door.empty)


def test_of_too_many_the_first_are_refused_and_closed(door, monkeypatch):
    monkeypatch.setattr(refusals, "MAX_REFUSED", 2)
    clients: List[Any] = [door.refuse() for _ in range(3)]
    assert b'"refused"' in clients[0].recv(4096) and clients[0].recv(1) == b""
    assert not door.empty
    clients[1].sendall(legacy.LegacySession(BASE64).call(TAG, [], {}))
    assert legacy.dialect_of(clients[1].recv(1024)) == BASE64
