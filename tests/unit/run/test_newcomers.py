"""Accepted connections before their first request: they cost no thread, and few give way."""
from __future__ import annotations

import threading
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

import net
from net.run.access import share_of
from net.run.served import ServedConnections
from net.wire.legacy import LegacySession
from service import PREFACE, Raw, Service, greeted, request, until

ADD = request("add", 2, 3)
OLD = LegacySession("base64").call(b"YWRk", [2, 3], {})


@pytest.fixture
def service():
    with Service() as made:
        yield made


BEGINNINGS = {
    "silent": b"", "a part of a preface": PREFACE[:5], "a preface": PREFACE,
    "a part of a request": greeted(ADD)[:-1], "a part of an old request": OLD[:-3],
}


def threads_of(service: Service) -> int:
    return sum(one.name == f"net-{service.address[1]}" for one in threading.enumerate())


@pytest.mark.parametrize("data", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_has_not_asked_for_anything_yet_has_no_thread(service, data):
    with ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(Raw(service.address, data))
        until(lambda: service.server.connections == 20)
        assert service.call("add", 2, 3) == 5
        assert threads_of(service) == 1
    until(lambda: service.server.connections == 1)


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("data, expected", [(greeted(ADD), 5), (greeted(ADD, ADD), 5), (OLD, None)],
                         ids=["a request", "two at once", "an old request"])
def test_a_request_in_pieces_of_any_size_is_answered(service, data, expected, step):
    with Raw(service.address) as raw:
        for start in range(0, len(data), step):
            raw.send(data[start:start + step])
        if expected is None:
            assert raw.sock.recv(1000)
        else:
            assert raw.reply() == expected


def test_a_large_first_request_gets_a_thread_before_it_is_whole(service):
    data = greeted(request("echo", "x" * 300_000))
    with Raw(service.address, data[:-1]) as raw:
        until(lambda: threads_of(service) == 1)
        raw.send(data[-1:])
        assert raw.reply() == "x" * 300_000


def test_a_refused_preface_is_answered_and_ended(service):
    with Raw(service.address, PREFACE.replace(b"\xabnet\x01", b"\xabnet\x09")) as raw:
        with pytest.raises(net.ProtocolError, match="version 9"):
            raw.reply()
        assert raw.rest() == b""
    until(lambda: service.server.connections == 0)


def test_closing_the_server_ends_them(service):
    with Raw(service.address, PREFACE) as raw:
        raw._event()
        service.server.close()
        assert raw.rest() == b""


# -------------------------------------------------------------------------------- eviction

class One:
    """A connection, as far as it matters where places are shared out."""

    def __init__(self, source: str, since: float, greeted: bool = False,
                 idle: float = float("inf")) -> None:
        self.source, self.since, self.greeted, self.deadline = source, since, greeted, since
        self.idle_since = lambda: idle


def served(*connections: Any) -> ServedConnections:
    found = ServedConnections()
    for one in connections:
        found.add(one)
    return found


def test_of_the_source_with_most_the_oldest_that_has_not_begun_goes_first():
    flood = [One("a", 1, True), One("a", 2), One("a", 3)]
    found = served(One("b", 0), *flood)
    order = []
    for _ in range(3):
        order.append(found.eviction_candidate("b"))
        found.discard(order[-1])
    assert order[0] is flood[1] and order[1] is flood[2]
    assert order[2].source == "b"  # as many as the other, and it has not begun


def test_a_working_connection_gives_way_to_nobody_and_an_idle_one_does():
    works, idle = One("a", 1), One("a", 2, idle=0.0)
    found = served(works, idle)
    assert found.admit(works) and found.admit(idle)
    assert found.eviction_candidate("b") is idle
    found.discard(idle)
    assert found.eviction_candidate("b") is None
    assert not found.admit(idle) and not found.discard(idle)


def test_a_flood_of_prefaces_does_not_push_out_a_client_that_has_just_connected():
    now = monotonic()
    flood = [One("a", now - 0.8, True), One("a", now - 0.7, True)]
    assert served(*flood, One("a", now - 0.1)).eviction_candidate("a") is flood[0]
    silent = One("a", now - 0.3)
    assert served(*flood, silent).eviction_candidate("a") is silent


def test_only_a_source_with_as_many_gives_way_to_a_newcomer():
    fresh, works, idle = One("b", 1), One("a", 1), One("a", 2, idle=0.0)
    found = served(fresh, works, idle)
    found.admit(works), found.admit(idle)
    assert found.eviction_candidate("a") is found.eviction_candidate(None) is idle
    found.discard(idle)
    idle.idle_since = monotonic  # it has just had a call
    found.add(idle)
    found.admit(idle)
    assert found.eviction_candidate("a") is None
    assert found.eviction_candidate("c") is found.eviction_candidate(None) is fresh


def test_idle_connections_are_looked_at_in_one_go_and_again_when_one_was_used_meanwhile():
    looks = []
    flood = [One("a", n, idle=float(n)) for n in range(5)]
    for one in flood:
        one.idle_since = lambda one=one: looks.append(one) or one.deadline  # type: ignore
    found = served(*flood)
    for one in flood:
        found.admit(one)
    for one in flood[:3]:
        assert found.eviction_candidate("a") is one
        found.discard(one)
    assert len(looks) == 8
    flood[3].deadline = monotonic()
    assert found.eviction_candidate("a") is flood[4]
    found.discard(flood[4])
    for _ in range(3):
        assert found.eviction_candidate("a") is None
    assert len(looks) == 11


def test_one_source_leaves_some_places_to_others():
    found = served(*[One("a", n) for n in range(7)])
    assert not found.has_room("a", 8) and found.has_room("b", 8)
    found.add(One("b", 9))
    assert not found.has_room("c", 8)


@pytest.mark.parametrize("host, share", [
    ("192.168.1.5", "192.168.1.5"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"),
    ("2001:db8::1", "2001:db8::/64"), ("2001:db8::ffff:1", "2001:db8::/64"), ("::1", "::1"),
    ("no:address", "no:address")])
def test_a_host_of_ipv6_has_one_share_whatever_addresses_it_takes(host, share):
    assert share_of(host) == share
