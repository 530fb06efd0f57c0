"""Refused clients learn why in the dialect that they speak."""
from __future__ import annotations

import selectors
import socket
from typing import Any, Iterator, List

import pytest

from net.errors import PeerBusy, RemoteError
from net.identity import encode_text
from net.run import refusals
from net.run.refusals import RefusedClients
from net.wire import legacy
from net.wire.legacy import BASE64, INFO, PLAIN, LegacySession, Reply

TAG = encode_text("app.f")
FULL = PeerBusy(None, "full")


class Door:
    """The refused clients of a thread, which is this one."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients = RefusedClients(self.selector)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.opened: List[socket.socket] = []

    def refuse(self, *data: bytes) -> socket.socket:
        """A client that has sent this when it is refused."""
        client = socket.create_connection(self.listener.getsockname(), 5)
        self.opened.append(client)
        for piece in data:
            client.sendall(piece)
        accepted, _ = self.listener.accept()
        self.clients.refuse(accepted, FULL)
        self.turn()
        return client

    def turn(self) -> None:
        for key, _ in self.selector.select(0.05):
            key.data()

    def close(self) -> None:
        self.clients.close()
        self.selector.close()
        for sock in (self.listener, *self.opened):
            sock.close()


@pytest.fixture
def door() -> Iterator[Door]:
    one = Door()
    yield one
    one.close()


def test_who_speaks_our_wire_gets_a_frame(door):
    client = door.refuse(b"\xabnet\x01\0\0\0")
    assert b'"refused"' in client.recv(4096) and client.recv(1) == b""
    client.close()
    door.turn()
    assert door.clients.empty


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
    door.turn()
    assert Reply(dialect, client.recv(1024)).dialect == dialect


@pytest.mark.parametrize("data", [
    LegacySession(BASE64).call(INFO, [], {"time_out": 0.1}),
    LegacySession(PLAIN).call(INFO, [], {"time_out": 0.1}), b"eyJ!", b'{"a"]}', b"e" * 70_000,
], ids=["a search of 0.4", "a search of 0.6", "broken base64", "broken JSON", "too long"])
def test_what_an_old_program_could_not_bear_is_a_reset(door, data):
    client = door.refuse(data[:60_000], data[60_000:])
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    assert door.clients.empty


def test_a_request_that_does_not_end_is_reset_in_time(door, monkeypatch):
    client = door.refuse(b"eyJj")
    assert not door.clients.empty
    later = refusals.monotonic() + 2 * refusals.REFUSAL_TIME
    monkeypatch.setattr(refusals, "monotonic", lambda: later)
    door.clients.close_overdue()
    with pytest.raises(ConnectionResetError):
        client.recv(1024)


def test_who_says_nothing_is_told_in_the_end(door, monkeypatch):
    client = door.refuse()
    later = refusals.monotonic() + 2 * refusals.REFUSAL_TIME
    monkeypatch.setattr(refusals, "monotonic", lambda: later)
    door.clients.close_overdue()
    assert b'"refused"' in client.recv(4096) and door.clients.empty


def test_of_too_many_the_first_are_told_and_closed(door, monkeypatch):
    monkeypatch.setattr(refusals, "MAX_REFUSED", 2)
    clients: List[Any] = [door.refuse() for _ in range(3)]
    assert b'"refused"' in clients[0].recv(4096) and clients[0].recv(1) == b""
    assert not door.clients.empty
    clients[1].sendall(legacy.LegacySession(BASE64).call(TAG, [], {}))
    door.turn()
    assert legacy.dialect_of(clients[1].recv(1024)) == BASE64
