"""Endpoints and deadlines, and listening on the first free port of a range."""
from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from net.errors import NoFreePort
from net.link.base import Deadline, Endpoint, LONGEST, listen_at, listen_in_range
from net.link.memory import MemoryCarrier


@pytest.fixture
def clock(monkeypatch):
    """Seconds that monotonic() gives; set ``clock.now``."""
    class Clock:
        now = 1000.0
    monkeypatch.setattr("net.link.base.monotonic", lambda: Clock.now)
    return Clock


def test_a_deadline_counts_down_from_when_it_was_made(clock):
    deadline = Deadline(5)
    assert deadline.remaining() == 5
    clock.now += 3
    assert deadline.remaining() == 2
    assert deadline.seconds == 5


@pytest.mark.parametrize("late", [0, 0.001, 100])
def test_a_deadline_that_has_passed_is_a_timeout(clock, late):
    deadline = Deadline(5)
    clock.now += 5 + late
    with pytest.raises(socket.timeout):
        deadline.remaining()


@pytest.mark.parametrize("seconds", [10.0 ** 7, 10.0 ** 12, float("inf")])
def test_a_socket_takes_what_remains_of_the_longest_deadline(seconds):
    with socket.socket() as sock:
        sock.settimeout(Deadline(seconds).remaining())
        assert sock.gettimeout() == LONGEST


def test_an_endpoint_is_a_value_with_an_address():
    endpoint = Endpoint.of(("192.0.2.1", 3010))
    assert endpoint == Endpoint("tcp", "192.0.2.1", 3010)
    assert endpoint.address == ("192.0.2.1", 3010)
    assert len({endpoint, Endpoint.of(("192.0.2.1", 3010)), Endpoint.of(("192.0.2.1", 3011))}) == 2


def test_the_first_free_port_of_a_range_is_listened_on():
    carrier = MemoryCarrier()
    listeners = [listen_in_range(carrier, "a", range(10, 13), 5) for _ in range(3)]
    assert [one.endpoint.port for one in listeners] == [10, 11, 12]
    with pytest.raises(NoFreePort):
        listen_in_range(carrier, "a", range(10, 13), 5)
    listeners[1].close()
    again = listen_in_range(carrier, "a", range(10, 13), 5)
    assert again.endpoint.port == 11
    beyond = listen_in_range(carrier, "a", range(10, 13), 5, any_port=True)
    assert beyond.endpoint.port not in range(10, 13)
    for one in [*listeners, again, beyond]:
        one.close()


def test_a_port_is_free_that_is_free_at_all_addresses():
    carrier = MemoryCarrier()
    taken = [carrier.listen(Endpoint("memory", host, port), 5)
             for host, port in (("a", 10), ("b", 11))]
    found = listen_at(carrier, ["a", "b"], range(10, 14), 5)
    assert [one.endpoint.address for one in found] == [("a", 12), ("b", 12)]
    # What was tried is free again.
    more = [carrier.listen(Endpoint("memory", "a", 11), 5)]
    for one in [*taken, *found, *more]:
        one.close()


def test_an_address_that_this_host_cannot_have_is_left_out_unless_it_is_the_first():
    class WithoutSix(MemoryCarrier):
        def listen(self, endpoint: Endpoint, backlog: int) -> Any:
            if endpoint.host == "::":
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            return super().listen(endpoint, backlog)

    found = listen_at(WithoutSix(), ["0.0.0.0", "::"], range(10, 12), 5)
    assert [one.endpoint.address for one in found] == [("0.0.0.0", 10)]
    found[0].close()
    with pytest.raises(OSError, match="no IPv6"):
        listen_at(WithoutSix(), ["::", "0.0.0.0"], range(10, 12), 5)


def test_what_is_no_taken_port_ends_the_look_for_a_free_one():
    class Broken:
        name = "broken"
        calls = 0

        def listen(self, endpoint: Endpoint, backlog: int) -> None:
            self.calls += 1
            raise OSError(errno.EADDRNOTAVAIL, "not an address of this host")

    carrier = Broken()
    with pytest.raises(OSError, match="not an address"):
        listen_in_range(carrier, "a", range(10, 13), 5)
    assert carrier.calls == 1
