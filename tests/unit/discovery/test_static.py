"""The peers of NET_PEERS."""
from __future__ import annotations

from time import monotonic

import pytest

from net.discovery.search import search
from net.discovery.static import MAX_NAMED, Static, parse_named
from net.settings import settings
from each import each


@each("entry, expected", [
    ("10.1.2.3", ("10.1.2.3", None)), ("10.1.2.3:4000", ("10.1.2.3", 4000)),
    ("[fd00::1]:3010", ("fd00::1", 3010)), ("[fd00::1]", ("fd00::1", None)),
    ("fd00::1", ("fd00::1", None)), ("localhost:3011", ("127.0.0.1", 3011)),
])
def test_an_entry_of_net_peers_is_an_address_and_perhaps_a_port(entry, expected):
    assert parse_named(entry) == expected


@each("entry", [
    "nas.lan", "nas.lan:3010", "10.1.2", "10.1.2.3:0", "10.1.2.3:70000", "10.1.2.3:x", "", ":3010",
    "[fd00::1", "[nas]:3010", "10.1.2.3:²",
])
def test_a_name_or_a_wrong_entry_is_refused_without_resolving(entry):
    with pytest.raises(ValueError):
        parse_named(entry)


@pytest.fixture
def named(monkeypatch):
    """Set NET_PEERS, and gives what one search asks, in its order, without connecting."""
    def run(*entries):
        monkeypatch.setitem(settings.__dict__, "peers", entries)
        asked = []
        monkeypatch.setattr("net.discovery.probes.Sweep.add_host",
                            lambda self, host, ports, *more: asked.append((host, list(ports))))
        outcome = search([Static()])
        return asked, outcome.report.notes
    return run


def test_an_entry_is_asked_at_its_port_or_at_all(named, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    asked, notes = named("10.1.2.3", "10.1.2.4:4000", "[fd00::1]:3010")
    assert sorted(asked) == [("10.1.2.3", list(settings.ports)), ("10.1.2.4", [4000]),
                             ("fd00::1", [3010])]
    assert notes == []


def test_each_search_begins_with_another_entry_so_that_silent_ones_hide_nobody_for_ever(
        named, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    entries = [f"10.1.2.{number}" for number in range(100)]
    first = {named(*entries)[0][0][0] for _ in range(20)}
    assert len(first) > 5
    asked, _ = named(*entries)
    assert sorted(host for host, _ in asked) == sorted(entries)


def test_there_is_a_limit_that_is_named(named, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    asked, notes = named(*[f"10.{n // 250}.{n % 250}.1" for n in range(MAX_NAMED + 5)])
    assert len(asked) == MAX_NAMED and "only the first 1024 entries" in notes[0]


def test_it_tells_and_watches_nobody_of_its_own_accord():
    one = Static()
    one.announce(None)()
    one.watch(monotonic() + 1)
    one.listed([], [])
    one.doubt(("10.1.2.3", 3010))
    one.forget()
