"""The peers of NET_PEERS."""
from __future__ import annotations

import math
import threading

import pytest

from hearing import until
from net.discovery import static
from net.discovery.probes import Findings
from net.discovery.search import search
from net.discovery.static import MAX_NAMED, Static, parse_named
from net.run.loop import Loop
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
        outcome = search([Static(None, None)])
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


class Listing:
    """A list that is made up."""

    def __init__(self, *known):
        self.known = set(known)
        self.learned = []

    def knows(self, address):
        return address in self.known

    def learn(self, answers):
        self.learned += answers


@pytest.fixture
def asked(monkeypatch):
    """Which addresses the looks ask; nobody answers."""
    found = []

    def look_at(addresses, seconds, how):
        found.append(list(addresses))
        return Findings()

    monkeypatch.setattr("net.discovery.probes.look_at", look_at)
    monkeypatch.setattr(static, "LOOK_SECONDS", 0.01)
    return found


@pytest.fixture
def watching():
    """Static with a loop of its own, which ends with the test."""
    made = Static(Loop("test-loop"), Listing())
    yield made
    made.watch(0.0)
    until(lambda: all([thread.name not in ("test-loop", "net-named")
                       for thread in threading.enumerate()]))


def test_while_a_list_is_kept_those_that_are_missing_are_asked_in_turn(
        monkeypatch, asked, watching):
    names = [f"10.1.0.{n}:3010" for n in range(1, 11)]
    monkeypatch.setitem(settings.__dict__, "peers", tuple(names))
    monkeypatch.setitem(settings.__dict__, "host", None)
    watching._listing.known.add(("10.1.0.4", 3010))
    watching.watch(math.inf)
    until(lambda: len({address for some in asked for address in some}) == 9)
    assert all([len(some) <= static.AT_ONCE for some in asked])
    assert ("10.1.0.4", 3010) not in {address for some in asked for address in some}
    # One that was lost is asked each time.
    lost = ("10.1.0.4", 3010)
    watching._listing.known.clear()
    watching.listed([], [lost, ("10.9.9.9", 3010)])
    count = len(asked)
    until(lambda: len(asked) > count + 5)
    assert all([lost in some for some in asked[count + 2:count + 5]])
    watching.watch(0.0)


def test_without_named_peers_nothing_is_done(monkeypatch, asked, watching):
    monkeypatch.setitem(settings.__dict__, "peers", ())
    watching.watch(math.inf)
    watching.listed([], [("10.1.2.3", 3010)])
    watching.announce(None)()
    watching.doubt(("10.1.2.3", 3010))
    watching.changed()
    watching.forget()
    assert not asked and not watching._lost
