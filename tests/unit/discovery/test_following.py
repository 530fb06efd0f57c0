"""Noticing that the addresses of this host change."""
from __future__ import annotations

import socket
import sys

import pytest

from hearing import until
from net.discovery.lan import following as module
from net.discovery.lan.following import Following
from net.link import netlink
from net.link.interfaces import Interface
from net.run.loop import Loop

HERE = frozenset({(Interface("eth0", "10.0.0.5", 24), True)})
HOME = HERE, "10.0.0.5"
AWAY = frozenset({(Interface("eth0", "10.0.0.6", 24), True)}), "10.0.0.6"
OUT = frozenset({(Interface("eth0", "10.0.0.5", 24), False)}), "10.0.0.5"
# The same addresses, and what goes out takes another one.
OTHERWISE = HERE, "10.1.0.5"


class System:
    """The interfaces of a fake host.

    :ivar changes: how often it was told that they have changed.
    """

    def __init__(self) -> None:
        self.state = HOME
        self.looks = self.changes = 0
        self.loop = Loop("test-loop")
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)

    def look(self):
        self.looks += 1
        return self.state

    def changed(self) -> None:
        self.changes += 1

    def follow(self) -> None:
        self.loop.call_soon(lambda: setattr(self, "following", Following(self.loop, self.changed)))
        until(lambda: hasattr(self, "following"))

    def end(self) -> None:
        ended = []
        self.loop.call_soon(lambda: ended.append(self.following.close()))
        until(lambda: ended)
        self.there.close()
        self.here.close()


@pytest.fixture
def system(monkeypatch):
    made = System()
    monkeypatch.setattr(module, "state", made.look)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(netlink, "changes", lambda: made.here)
    yield made
    made.end()


@pytest.mark.parametrize("state", [AWAY, OUT, OTHERWISE, (frozenset(), None)])
def test_a_change_is_reported_once_however_much_news_it_makes(system, state):
    system.follow()
    system.state = state
    for _ in range(5):
        system.there.send(b"news")
    until(lambda: system.changes)
    looks = system.looks
    system.there.send(b"news")
    until(lambda: system.looks > looks)
    assert system.changes == 1


def test_news_of_what_does_not_matter_is_no_change(system):
    system.follow()
    system.there.send(b"news")
    until(lambda: system.looks > 1)
    assert not system.changes


def test_where_the_kernel_tells_nothing_it_looks_by_itself(system, monkeypatch):
    def refuse():
        raise OSError("no netlink")

    monkeypatch.setattr(netlink, "changes", refuse)
    system.follow()
    until(lambda: system.looks > 3)
    system.state = AWAY
    until(lambda: system.changes == 1)


def test_another_way_out_is_another_state(monkeypatch):
    found = [Interface("eth0", "10.0.0.5", 24), Interface("eth1", "10.1.0.5", 24)]
    monkeypatch.setattr(module.interfaces, "read", lambda: (found, ""))
    states = []
    for way in ("10.0.0.5", "10.1.0.5", None, "10.0.0.5"):
        monkeypatch.setattr(module.interfaces, "way_out", lambda: way)
        states.append(module.state())
    assert len(set(states)) == 3 and states[0] == states[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_loopback_is_up_and_what_is_not_there_may_be():
    assert netlink.is_up("lo") and netlink.is_up("none") and netlink.is_up("n" * 99)
    netlink.changes().close()
