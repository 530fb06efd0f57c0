"""No peer takes all places."""
from __future__ import annotations

import pytest

from net.events import shares as module
from net.events.shares import Places, Shares, source_of
from net.settings import Settings
from each import each


def fill(shares: Shares, source: str) -> int:
    """How many places a source can take."""
    taken = 0
    while shares.take(source):
        taken += 1
    return taken


def test_each_source_has_half_of_what_the_others_leave():
    shares = Shares(100)
    assert [fill(shares, source) for source in "abcdefgh"] == [50, 25, 12, 6, 3, 2, 1, 0]
    shares.give_back("a", 50)
    assert fill(shares, "h") == 25


def test_this_host_may_have_all_that_is_left():
    shares = Shares(100)
    assert fill(shares, "a") == 50
    assert fill(shares, "") == 50
    shares.give_back("a")
    assert shares.take("") and not shares.take("a")


def test_nothing_is_kept_of_a_source_that_has_no_places():
    shares = Shares(2)
    for number in range(100):
        source = str(number)
        assert shares.take(source) and not shares.take(source)
        shares.give_back(source)
    assert fill(shares, "a") == 1
    assert not Shares(0).take("a")
    assert len(shares._taken) == 1


@each("host, source", [
    ("198.51.100.7", "198.51.100.7"), ("127.0.0.1", ""), ("127.1.2.3", ""), ("::1", ""),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::1"), ("fe80::2", "fe80::2"), ("name", "name"),
])
def test_a_source_is_a_host_or_a_network_of_ipv6(host, source):
    assert source_of((host, 3010)) == source


def test_a_connection_without_an_address_is_of_this_host():
    assert source_of(None) == ""


@pytest.mark.parametrize("descriptors, served, left", [
    (1024, 512, 384), (1024, 2000, 64), (100, 512, 64), (10 ** 6, 512, 4096),
    (module.resource.RLIM_INFINITY, 512, 4096)])
def test_descriptors_are_left_to_calls_and_to_the_application(monkeypatch, descriptors, served,
                                                              left):
    settings = Settings()
    settings.set("max_connections", served)
    monkeypatch.setattr(module.resource, "getrlimit", lambda which: (descriptors, descriptors))
    assert fill(Places(settings), "") == left


def test_where_sockets_are_no_descriptors_there_are_enough_places(monkeypatch):
    monkeypatch.setattr(module, "resource", None)
    assert fill(Places(Settings()), "a") == 2048
