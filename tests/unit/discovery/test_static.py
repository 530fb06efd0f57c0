"""The peers of NET_PEERS."""
from __future__ import annotations

import math
import threading

import pytest

from hearing import until
from net.discovery import static
from net.discovery.probes import Findings
from net.discovery.search import search
from net.discovery.names import Found
from net.discovery.static import MAX_NAMED, Static
from net.run.loop import Loop
from net.settings import parse_named, settings
from each import each
from strangers import Stranger, peer, silence
from times import patience


@each("entry, expected", [
    ("10.1.2.3", ("10.1.2.3", None)), ("10.1.2.3:4000", ("10.1.2.3", 4000)),
    ("[fd00::1]:3010", ("fd00::1", 3010)), ("[fd00::1]", ("fd00::1", None)),
    ("fd00::1", ("fd00::1", None)), ("localhost:3011", ("127.0.0.1", 3011)),
    ("nas.lan", ("nas.lan", None)), ("render_1:3010", ("render_1", 3010)),
    ("a.b.", ("a.b.", None)),
    ("peers.default.svc.cluster.local:3010", ("peers.default.svc.cluster.local", 3010)),
])
def test_an_entry_of_net_peers_is_a_host_and_perhaps_a_port(entry, expected):
    assert parse_named(entry) == expected


@each("entry", [
    "10.1.2", "10.1.2.300", "10.1.2.3:0", "10.1.2.3:70000", "10.1.2.3:x", "", ":3010", "nas:",
    "[fd00::1", "[nas]:3010", "10.1.2.3:²", "10.1.2.3 10.1.2.4", "-nas", "nas-.lan", "a..b",
    "nas/1", "http://nas", "a" * 64, ".".join(["a" * 60] * 5),
])
def test_an_entry_without_sense_is_refused(entry):
    with pytest.raises(ValueError):
        parse_named(entry)


@pytest.fixture
def named(monkeypatch):
    """Set NET_PEERS, and gives what one search asks, in its order, without connecting."""
    finder = Static(None, None)

    def run(*entries):
        monkeypatch.setitem(settings.__dict__, "peers", entries)
        asked = []
        monkeypatch.setattr("net.discovery.probes.Sweep.add_host",
                            lambda self, host, ports, *more: asked.append((host, list(ports))))
        outcome = search([finder])
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


@pytest.fixture
def resolver(monkeypatch):
    """A resolver that knows what a test tells it, and waits for the test before it answers for
    ``slow``."""
    class Resolver:
        places, asked, go_on = {}, [], threading.Event()

        def resolved(self, name):
            self.asked.append(name)
            if name == "slow":
                self.go_on.wait(patience(20))
            return Found(name, self.places.get(name, ()),
                         "" if name in self.places else "no such name")

    made = Resolver()
    made.asked, made.go_on = [], threading.Event()
    monkeypatch.setattr("net.discovery.names.resolved", made.resolved)
    yield made
    made.go_on.set()
    until(lambda: all([thread.name != "net-names" for thread in threading.enumerate()]))


def test_a_name_is_asked_at_each_of_its_addresses_which_are_looked_up_by_each_search(
        named, resolver, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    resolver.places = {"peers": ("10.1.2.3", "10.1.2.4")}
    assert sorted(named("peers:4000", "peers:4001")[0]) == [
        ("10.1.2.3", [4000, 4001]), ("10.1.2.4", [4000, 4001])]
    resolver.places = {"peers": ("10.1.2.5",)}
    asked, notes = named("peers", "gone.lan:3010", "10.1.2.6:3010")
    assert sorted(asked) == [("10.1.2.5", list(settings.ports)), ("10.1.2.6", [3010])]
    assert notes == ["NET_PEERS: 'gone.lan' cannot be resolved, no such name"]
    assert resolver.asked.count("peers") == 2


def test_a_resolver_that_does_not_answer_holds_no_search_and_is_asked_once(
        named, resolver, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    monkeypatch.setattr(static, "NAME_SECONDS", 0.05)
    resolver.places = {"quick": ("10.1.2.3",), "slow": ("10.1.2.4",)}
    for _ in range(3):
        asked, notes = named("slow:3010", "quick:3010")
        assert asked == [("10.1.2.3", [3010])]
        assert notes == ["NET_PEERS: 'slow' was not resolved within 0.05 s"]
    assert resolver.asked.count("slow") == 1


def test_only_a_name_is_looked_up(named, resolver, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    named("10.1.2.3", "[fd00::1]:3010", "localhost")
    assert resolver.asked == []


def test_all_that_answer_are_found_among_more_silent_ones_than_there_are_sockets(
        port_range, monkeypatch):
    monkeypatch.setattr("net.discovery.probes.MAX_SOCKETS", 4)
    # Each takes its share of the time; on a busy machine, shorter ones could be too short.
    monkeypatch.setattr(static, "SHARED_SECONDS", min(2.0, patience(0.6)))
    quiet = [Stranger(port_range[0], silence, f"127.0.1.{number + 1}") for number in range(9)]
    good = Stranger(port_range[0], peer({"instance": "i", "host": "127.0.1.77", "port": 1,
                                         "group": None}), "127.0.1.77")
    named = [f"{one.address[0]}:{one.address[1]}" for one in [*quiet, good]]
    monkeypatch.setitem(settings.__dict__, "peers", tuple(named))
    monkeypatch.setitem(settings.__dict__, "port_start", port_range.start)
    try:
        outcome = search([Static(None, None)])
    finally:
        for one in [*quiet, good]:
            one.stop()
    assert [answer.address for answer in outcome.answers] == [good.address]
    assert sum(what == "stranger" for what in outcome.report.outcomes.values()) == 9


def test_there_is_a_limit_that_is_named(named, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", None)
    asked, notes = named(*[f"10.{n // 250}.{n % 250}.1" for n in range(MAX_NAMED + 5)])
    assert len(asked) == MAX_NAMED and "only the first 1024 entries" in notes[0]


class Listing:
    """A fake list of peers."""

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


def test_while_a_list_is_kept_names_are_looked_up_now_and_then(
        monkeypatch, asked, watching, resolver):
    monkeypatch.setitem(settings.__dict__, "peers", ("peers:3010",))
    monkeypatch.setitem(settings.__dict__, "host", None)
    resolver.places = {"peers": ("10.1.0.1",)}
    watching.watch(math.inf)
    until(lambda: [("10.1.0.1", 3010)] in asked)
    monkeypatch.setattr(static, "NAME_AGAIN", 0.0)
    resolver.places = {"peers": ("10.1.0.2",)}
    until(lambda: [("10.1.0.2", 3010)] in asked)
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
