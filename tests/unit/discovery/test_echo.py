"""The ping that hosts of a link show themselves by. Nothing is sent: its socket is a fake one."""
from __future__ import annotations

import socket

import pytest

from net.discovery.lan import echo
from net.discovery.lan.echo import ALL_NODES, REQUEST, Echo
from net.link.interfaces import Interface

# The loopback interface is the only one that each machine has.
NAME = socket.if_indextoname(1)
LINK = Interface(NAME, f"fe80::1%{NAME}", 64, 1)
GONE = Interface("gone9", "fe80::1%gone9", 64, 99)


class FakeSocket:
    """Keeps what is sent, and gives what is to come."""

    def __init__(self, *kind):
        self.kind, self.sent, self.closed = kind, [], False
        self.come = []

    def setblocking(self, waits):
        assert not waits

    def setsockopt(self, *option):
        pass

    def sendto(self, data, place):
        self.sent.append((data, place))

    def recvfrom(self, size):
        if not self.come:
            raise BlockingIOError
        return self.come.pop(0)

    def close(self):
        self.closed = True


@pytest.fixture
def listening(monkeypatch):
    monkeypatch.setattr(echo.socket, "socket", FakeSocket)
    return []


def test_all_hosts_of_a_link_are_asked_and_those_of_it_heard(listening):
    asked = Echo([GONE, LINK], lambda *what: listening.append(what))
    (sock, receive), = listening
    assert sock.kind == (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    asked.send()
    assert sock.sent == [(REQUEST, (ALL_NODES, 0, 0, 1))], "what has gone hides nobody"
    sock.come = [(b"", (host, 0, 0, number)) for host, number in (
        ("fe80::7", 1), ("fe80::7", 1), ("fe80::8", 0), ("fe80::1", 1), ("2001:db8::7", 0))]
    receive(sock)
    assert asked.hosts == {f"fe80::7%{NAME}"}
    asked.close()
    assert sock.closed


def test_a_stranger_that_answers_under_many_names_fills_no_memory(listening, monkeypatch):
    monkeypatch.setattr(echo, "MAX_ANSWERS", 3)
    asked = Echo([LINK], lambda *what: listening.append(what))
    (sock, receive), = listening
    sock.come = [(b"", (f"fe80::{number:x}", 0, 0, 1)) for number in range(7, 17)]
    receive(sock)
    assert len(asked.hosts) == 3 and not sock.come


def test_a_ping_that_cannot_listen_leaves_no_socket_open(listening):
    def full(*what):
        listening.append(what)
        raise OSError("no descriptor")

    with pytest.raises(OSError):
        Echo([LINK], full)
    assert listening[0][0].closed
