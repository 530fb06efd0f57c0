"""A whole search, as far as it can be made without a network."""
from __future__ import annotations

import errno
import inspect
import json
import math
import re
import threading
from time import monotonic
from types import SimpleNamespace

import pytest

import net
from net.discovery import search as search_module
from net.discovery.answers import Answer
from net.discovery.lan import neighbours, quest
from net.link import interfaces
from net.discovery import known_peers
from net.discovery.lan.node import BETTER_SECONDS, Node
from net.discovery.lan.quest import (HOST_LAST, HOST_PER_OTHER, HOST_SECONDS, LOOK_AGAIN,
                                     MAX_HOSTS, LanQuest)
from net.discovery.lan.rounds import Rounds
from net.discovery.membership import Heard
from net.discovery.probes import Findings, Sweep
from net.discovery.search import END, LONGEST_TICK, Searching
from net.settings import settings
from strangers import Stranger, peer, says, silence
from times import patience


@pytest.fixture
def ports(port_range, monkeypatch):
    """A port range of this test's own, on loopback, with nothing else set."""
    monkeypatch.setitem(settings.__dict__, "port_start", port_range.start)
    monkeypatch.setitem(settings.__dict__, "peers", ())
    return port_range


@pytest.fixture
def listening(ports):
    started = []

    def start(number, treat, host="127.0.0.1"):
        started.append(Stranger(ports[number], treat, host))
        return started[-1].address

    yield start
    for one in started:
        one.stop()


def introduction(port, instance="i"):
    return peer({"instance": instance, "host": "127.0.0.1", "port": port, "group": None})


def search(on_host=False, known=()):
    """Search with the finders of this process, whose peer is left out."""
    return search_module.search(known_peers().finders, on_host, known)


def addresses(outcome):
    return sorted(answer.address for answer in outcome.answers)


def test_every_port_of_the_range_is_searched_both_ends_included(listening, ports):
    ends = [listening(0, introduction(ports[0])), listening(5, introduction(ports[5], "j"))]
    outcome = search(on_host=True)
    assert addresses(outcome) == ends
    assert set(outcome.report.outcomes) == {("127.0.0.1", port) for port in ports}


def test_the_report_counts_each_address_that_was_asked_over_tcp_and_no_other(listening, ports):
    listening(0, introduction(ports[0]))
    searching = search_module.Searching(known_peers().finders, True, [])
    # One that answers by datagram is not asked; one that is still asked at the end is given up.
    said = {"instance": "x", "group": None}
    searching.found(Answer(("127.0.0.1", 9), said, "datagram", 0.0, 0.0, ""))
    searching.tried.add(("127.0.0.1", 10))
    report = searching.run().report
    assert set(report.asked) == searching.tried and ("127.0.0.1", 9) not in report.asked
    assert report.outcomes["127.0.0.1", 9] == "peer" and report.asked["127.0.0.1", 10] == "given up"
    counts = [int(one.split()[0]) for one in re.findall(
        r"TCP: .*? asked: (.*?)(?:;.*)?$", str(report), re.MULTILINE)[0].split(", ")]
    assert sum(counts) == len(report.asked)


def test_a_silent_listener_costs_its_time_limit_and_hides_nobody(listening, ports):
    listening(0, silence)
    good = listening(1, introduction(ports[1]))
    started = monotonic()
    outcome = search()
    assert addresses(outcome) == [good] and monotonic() - started < END
    assert outcome.report.strangers == [(("127.0.0.1", ports[0]), "accepts, but does not answer")]


def test_named_peers_are_asked_at_their_port_or_at_all(listening, ports, monkeypatch):
    elsewhere = listening(5, introduction(ports[5]), "127.0.0.7")
    monkeypatch.setitem(settings.__dict__, "peers", ("127.0.0.7",))
    assert addresses(search()) == [elsewhere]
    monkeypatch.setitem(settings.__dict__, "peers", (f"127.0.0.7:{ports[5]}",))
    outcome = search()
    assert addresses(outcome) == [elsewhere] and outcome.answers[0].found == "NET_PEERS"
    assert ("127.0.0.7", ports[0]) not in outcome.report.outcomes
    assert search(on_host=True).answers == []


def test_named_peers_beyond_a_loopback_host_are_dropped_and_reported(ports, monkeypatch):
    monkeypatch.setattr("net.discovery.names.resolved", lambda name: pytest.fail("looked up"))
    monkeypatch.setitem(settings.__dict__, "peers", ("192.0.2.1", "192.0.2.1:3010", "nas.lan"))
    report = search(known=[("192.0.2.7", 3010)]).report
    assert {host for host, _ in report.outcomes} == {"127.0.0.1"}
    assert [note for note in report.notes if "is dropped" in note and "192.0.2.1" in note]
    assert [note for note in report.notes if "'nas.lan' is dropped" in note]


def test_peers_that_were_known_are_asked_over_tcp_when_no_more_answers_come(ports, monkeypatch):
    state = search_module.Searching([], True, [("127.0.0.1", port) for port in ports])
    now = state.started
    monkeypatch.setattr(search_module, "monotonic", lambda: now)
    state._ask_known()
    for number, port in enumerate(ports[:3]):
        now = state.started + 0.09 * (number + 1)
        state.found(Answer(("127.0.0.1", port), {}, "datagram", 0.01, now))
        state._do_what_is_due(now)
        assert state.sweep.idle
    now += 0.11
    state._do_what_is_due(now)
    assert {one.address[1] for one in state.sweep._urgent} == set(ports[3:])
    state._close()


def test_peers_that_were_known_are_not_asked_over_tcp_while_answers_are_expected(
        ports, monkeypatch):
    class Quest:
        due = float("inf")
        waits = True

        def over(self, now):
            return not self.waits

        def close(self):
            pass

    state = search_module.Searching([], True, [("127.0.0.1", ports[0])])
    quest = Quest()
    state._quests.append(quest)
    now = state.started + 0.3
    monkeypatch.setattr(search_module, "monotonic", lambda: now)
    state._ask_known()
    assert state.sweep.idle and not state._done(now)
    quest.waits, now = False, now + 0.1
    state._do_what_is_due(now)
    assert [one.address for one in state.sweep._urgent] == [("127.0.0.1", ports[0])]
    state._close()


def test_a_loopback_host_searches_no_network(ports, monkeypatch):
    for module, name in ((interfaces, "read"), (neighbours, "read"), (neighbours, "read_at_once")):
        monkeypatch.setattr(module, name, lambda *args: pytest.fail("looked beyond loopback"))
    report = search().report
    assert not report.searched_lan and report.own == ["127.0.0.1"]
    assert "the LAN was not searched" in str(report)


def test_another_loopback_address_of_net_host_is_searched_too(listening, ports, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", "127.0.0.9")
    there = listening(2, introduction(ports[2]), "127.0.0.9")
    assert addresses(search()) == [there]


def test_low_limits_of_descriptors_find_everybody(listening, ports, monkeypatch):
    monkeypatch.setattr("net.discovery.probes.descriptors", lambda: 4)
    expected = [listening(n, introduction(ports[n], str(n))) for n in range(6)]
    assert addresses(search()) == expected


def test_an_interrupt_closes_everything_and_comes_through(ports, listening, monkeypatch):
    listening(0, silence)

    def interrupt(self, now):
        raise KeyboardInterrupt

    monkeypatch.setattr(Searching, "_done", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search()


def test_a_search_that_waits_for_nothing_but_time_ends_in_time(ports):
    state = Searching([], True, [])
    assert state._until_next(state.started) == LONGEST_TICK
    assert state._until_next(state.started + END - 0.01) == pytest.approx(0.01)
    state.sweep.close()


def test_a_second_without_a_turn_hides_nobody(ports, listening, monkeypatch):
    # As if this process, on a busy machine, had its turn only a second after the search began.
    late = iter([1.0])
    monkeypatch.setattr(search_module, "monotonic", lambda: monotonic() - next(late, 0.0))
    monkeypatch.setattr(search_module, "LAST_START", patience(30.0))
    monkeypatch.setattr(search_module, "END", patience(30.0))
    there = [listening(number, introduction(ports[number], str(number))) for number in range(2)]
    state = Searching(known_peers().finders, True, [])
    state.sweep.add_host("127.0.0.1", ports, "neighbour table")
    assert addresses(state.run()) == there and state.report.left == 0


def test_what_is_known_is_not_asked_that_late(ports, monkeypatch):
    late = iter([1.0])
    monkeypatch.setattr(search_module, "monotonic", lambda: monotonic() - next(late, 0.0))
    state = Searching([], True, [("127.0.0.1", ports[0])])
    assert state.run().silent == {("127.0.0.1", ports[0])} and not state.tried


def test_the_report_tells_what_was_done(listening, ports):
    listening(0, introduction(ports[0]))
    listening(1, says(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    text = str(search().report)
    assert f"no peer: 127.0.0.1:{ports[1]}: an HTTP server" in text
    assert "TCP: 6 addresses asked: 1 peer, 4 refused, 1 stranger" in text
    assert "time: asking" in text


class FakeLan(LanQuest):
    """A search of a LAN that sends nothing: what would be started is only written down."""

    def __init__(self, own, monkeypatch):
        monkeypatch.setattr(interfaces, "read", lambda: (own, ""))
        monkeypatch.setitem(settings.__dict__, "host", None)
        monkeypatch.setattr("net.discovery.lan.asker.Asker.step", lambda self, now: None)
        self.search = Searching([], False, [])
        self.search.threads = 0
        self.started = []
        super().__init__(self.search, known_peers().finders[0].node, b"m" * 16, None,
                         lambda heard: None)

    def _fill(self, sweep, shares):
        self.started += shares


LAN = interfaces.Interface("eth0", "192.168.1.10", 24)


@pytest.fixture
def fake(monkeypatch):
    made = FakeLan([LAN], monkeypatch)
    yield made
    made.close()
    made.search.sweep.close()


def test_of_ten_thousand_neighbours_those_of_this_hosts_network_come_first(fake):
    near = {f"192.168.1.{number}" for number in range(20, 40)}
    hosts = [f"10.{n // 250}.{n % 250}.7" for n in range(10_000)] + sorted(near)
    fake._take_table(neighbours.Table("arp", hosts, []))
    asked = [host for host, _ in fake.started]
    assert set(asked[:len(near)]) == near and len(asked) == MAX_HOSTS
    assert any("10,020 hosts in the neighbour table, 2,048 asked" in n for n in fake._report.notes)


def test_a_second_look_adds_only_what_is_new(fake):
    fake._take_table(neighbours.Table("arp", ["192.168.1.20"], []))
    fake._take_table(neighbours.Table("arp", ["192.168.1.20", "192.168.1.21"], []))
    assert fake.started == [("192.168.1.20", True), ("192.168.1.21", True)]


@pytest.mark.parametrize("heard, looks", [([("192.168.1.20", 3010)], 1), ([], 2)])
def test_where_nobody_answers_datagrams_the_table_is_read_twice_however_late_it_is(
        fake, monkeypatch, heard, looks):
    read = []
    monkeypatch.setattr(neighbours, "read_at_once",
                        lambda: read.append(1) or neighbours.Table("arp", [], []))
    monkeypatch.setattr(fake.asker, "over", lambda now: True)
    fake._heard_beyond.update(heard)
    fake._undecided = False
    while not fake.over(monotonic()) and len(read) < 3:
        fake._read_table()
    fake._read_table()
    assert len(read) == looks


def test_a_search_does_not_turn_round_while_it_waits_for_others_after_its_question(
        fake, monkeypatch):
    monkeypatch.setattr(Rounds, "due", math.inf)
    assert fake.due == fake.asker.rounds.ends
    fake.step(fake.due + 0.1)
    assert fake.due == math.inf


def test_a_search_looks_again_and_again_whether_the_neighbour_table_has_been_read(
        fake, monkeypatch):
    monkeypatch.setattr(fake, "_ends", math.inf)
    monkeypatch.setattr(Rounds, "due", math.inf)
    reader = SimpleNamespace(is_alive=lambda: True)
    fake._readers.append(reader)
    assert fake.due <= monotonic() + LOOK_AGAIN
    reader.is_alive = lambda: False
    assert fake.due == math.inf


@pytest.mark.parametrize("others, seconds", [
    (0, HOST_SECONDS), (10, HOST_SECONDS + 10 * HOST_PER_OTHER), (100, HOST_LAST)])
def test_the_peers_of_this_host_get_longer_to_answer_by_datagram_the_more_search(
        fake, monkeypatch, others, seconds):
    started = fake.search.started
    for late, asked in ((-0.001, False), (0.001, True)):
        monkeypatch.setattr(fake._node, "crowd", lambda: others)
        monkeypatch.setattr(quest, "monotonic", lambda: started + seconds + late)
        fake._probe_own()
        assert fake._probed_own is asked


@pytest.mark.parametrize("named, asked", [
    ("192.168.1.31", [("192.168.1.31", 3010)]),
    ("192.168.1.32", []), ("192.168.1.30", []), ("192.168.1.10", []), ("10.0.0.1", [])],
    ids=["elsewhere", "heard", "here", "own", "no way there"])
def test_a_peer_that_names_another_address_is_asked_there_once_no_more_answers_come(
        fake, monkeypatch, named, asked):
    hinted = []
    monkeypatch.setattr(fake._search, "ports", range(3010, 3016))
    fake._decode = lambda heard: Answer(heard.address, json.loads(heard.facts), "", 0.0, 0.0)
    monkeypatch.setattr(fake._search, "hint", lambda address, found: hinted.append(address))
    monkeypatch.setattr(fake, "_read_table", lambda: None)
    fake._heard(heard_from("192.168.1.30", named))
    fake._heard(heard_from("192.168.1.32", "192.168.1.32"))
    fake.step(monotonic())
    assert not hinted
    monkeypatch.setattr(fake.asker, "over", lambda now: True)
    fake.step(monotonic())
    fake.step(monotonic())
    assert hinted == asked


def test_hosts_that_could_not_be_primed_are_probed_at_once(fake):
    fake._unsent = ["192.168.1.20", "192.168.1.30"]
    fake._take_table(neighbours.Table("arp", ["192.168.1.20"], []))
    fake._take_table(neighbours.Table("arp", ["192.168.1.20"], []))
    assert fake.started == [("192.168.1.20", True), ("192.168.1.30", False)]


def test_without_a_neighbour_table_the_network_of_this_host_is_probed(fake):
    fake._swept = [(LAN, ["192.168.1.20", "192.168.1.30"])]
    fake._take_table(neighbours.Table("", [], ["arp: not found (0 ms)"]))
    assert fake.started == [("192.168.1.20", False), ("192.168.1.30", False)]
    assert "arp: not found (0 ms)" in fake._report.notes


@pytest.fixture
def primed(fake, monkeypatch):
    """What one look at whether to sweep has swept, or ``"later"``; by a user who may take rows out
    of the neighbour table."""
    monkeypatch.setattr(neighbours, "may_forget", lambda: True)
    monkeypatch.setattr(fake, "_read_table", lambda: None)

    def prime():
        asked, later = [], []
        monkeypatch.setattr(fake.asker, "prime", lambda _, hosts: asked.append(hosts) or iter(()))
        monkeypatch.setattr(fake.search, "later", lambda when, what: later.append(what))
        fake._swept = [(LAN, ["192.168.1.20"])]
        fake._prime()
        fake._primed.clear()
        return "later" if later == [fake._prime] else asked
    return prime


@pytest.mark.parametrize("outcome, swept", [
    (None, []), ("silent", []), ("stranger", []), ("refused", [["192.168.1.20"]]),
    ("peer", [["192.168.1.20"]])])
def test_nothing_is_swept_beside_an_old_program_that_is_known_unless_it_is_gone(
        fake, primed, monkeypatch, outcome, swept):
    old = ("192.168.1.10", fake.search.ports[1])
    monkeypatch.setattr("net.process.process.client.dialect",
                        lambda address: "old" if address == old else "")
    if outcome:
        fake.search.sweep.findings.outcomes[old] = outcome
    assert primed() == swept
    assert any("older app-net" in note for note in fake._report.notes) == (not swept)


def test_an_old_program_elsewhere_keeps_nothing_from_being_swept(fake, primed):
    there = Answer(("192.168.1.77", 3010), {"group": None}, "known before", 0.1, 0.0, "old")
    fake.search.sweep.findings.answers.append(there)
    assert primed() == [["192.168.1.20"]]
    fake.search.sweep.findings.answers.append(there._replace(address=("192.168.1.10", 3010)))
    assert primed() == []


def test_a_program_on_this_host_that_has_accepted_may_take_its_time_to_answer(
        fake, primed, monkeypatch):
    class Busy(Sweep):
        unsure = True

    fake.search.sweep.__class__ = Busy
    fake._old_until = 0.0
    assert primed() == "later"
    fake.search.started -= 1.0
    assert primed() == [["192.168.1.20"]]


def test_a_host_that_has_answered_is_not_swept_but_asked_at_its_other_ports(fake, primed):
    fake._heard_beyond.update([("192.168.1.20", 3010), ("fe80::1%eth0", 3010)])
    assert primed() == [[]] and fake._report.primed == 0
    assert fake.started == [("192.168.1.20", True)], "without waiting for the table"
    fake._take_table(neighbours.Table("arp", ["192.168.1.20", "192.168.1.21"], []))
    assert fake.started == [("192.168.1.20", True), ("192.168.1.21", True)]


@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_few_others_that_search_keep_nothing_from_being_swept(fake, primed, others):
    fake._crowd = others
    fake._heard_beyond.add(("192.168.1.30", 3010))
    assert primed() == [["192.168.1.20"]]


def test_beside_many_others_that_search_it_is_swept_later_without_those_that_were_found(
        fake, primed, monkeypatch):
    owed = []
    monkeypatch.setattr(fake._node, "sweep_later", lambda *what: owed.append(what), raising=False)
    fake._crowd = 4
    assert primed() == "later", "nobody has answered yet"
    fake._heard_beyond.add(("192.168.1.20", 3010))
    assert primed() == []
    fake._owed += ["192.168.1.21", "192.168.1.22"]
    fake._hosts.add("192.168.1.22")
    fake.close()
    assert owed == [(["192.168.1.21"], 4)]
    assert any("4 others search" in note for note in fake._report.notes)


@pytest.mark.parametrize("hosts, port, crowd, asked, later", [
    (100, 3010, 0, 101, 0), (101, 3010, 0, 1, 101), (101, 0, 0, 102, 0), (101, 3010, 1, 1, 0)],
    ids=["few", "many", "without a list", "beside others"])
def test_where_many_have_answered_their_other_ports_are_asked_later_while_a_list_is_kept(
        fake, monkeypatch, hosts, port, crowd, asked, later):
    heard = [f"192.168.1.{number}" for number in range(100, 100 + hosts)]
    fake._heard_beyond.update((host, 3010) for host in heard)
    fake._crowd = crowd
    now, owed = [], []
    node = SimpleNamespace(membership=SimpleNamespace(port=port),
                           sweep_later=lambda some, others: owed.extend(some),
                           searched=lambda answers, loss: None)
    monkeypatch.setattr(fake, "_node", node)
    sweep = SimpleNamespace(add_host=lambda host, *rest, **more: now.append(host))
    LanQuest._fill(fake, sweep, [(host, True) for host in [*heard, "192.168.1.30"]])
    fake.close()
    assert len(now) == asked and "192.168.1.30" in now
    assert owed == heard[:later]
    assert any("asked later" in note for note in fake._report.notes) == bool(later)


def test_what_a_search_has_learnt_of_losses_is_told_to_who_watches(fake, monkeypatch):
    told = []
    monkeypatch.setattr(fake._node, "searched", lambda *facts: told.append(facts), raising=False)
    rounds = fake.asker.rounds
    first, second = rounds.ask(1.0), rounds.ask(2.0)
    for nonce, host in ((first, "192.168.1.100"), (second, "192.168.1.101")):
        rounds.heard(nonce, (host, 3010), 2.1)
    fake.close()
    assert told == [(2, 1 / 3)]


@pytest.mark.parametrize("others, share, seconds", [
    (100, 1.0, 2.5), (100, 0.5, 1.5), (100, 0.0, 0.5), (10, 1.0, 0.7), (1000, 1.0, 2.5)])
def test_many_that_nobody_answers_sweep_each_at_another_moment(
        fake, monkeypatch, others, share, seconds):
    monkeypatch.setattr(neighbours, "may_forget", lambda: True)
    fake._crowd, fake._share = others, share
    then = fake.search.started + seconds
    wait, _ = fake._why_not_swept(then - 0.02)
    assert 0.0 < wait < 0.021
    assert fake._why_not_swept(then + 0.001) == (0.0, "")
    assert fake._why_not_swept(fake.search.started + 0.1)[0] < 0.1, "it looks for answers meanwhile"


class FakeLoop:
    """Does at once what is to be done soon, and keeps what is to be done later."""

    def __init__(self):
        self.later = []

    def call_soon(self, action):
        action()

    def call_later(self, seconds, action):
        self.later.append((seconds, action))
        return action


@pytest.fixture
def node():
    """One that decodes facts to an answer, and what it has learned."""
    learned = []
    listing = SimpleNamespace(learn=learned.extend)
    made = Node(SimpleNamespace(loop=FakeLoop()), listing, b"m" * 16,
                lambda heard: Answer(heard.address, json.loads(heard.facts), "datagram", 0.0, 0.0),
                lambda: None)
    made.learned = learned
    made.asked = []
    made.send = lambda message, address: made.asked.append(address)
    made.reaches = lambda address: address[0].startswith("fd77:5:")
    return made


def heard_from(host, named):
    facts = json.dumps({"host": named, "port": 3010}).encode()
    return Heard((host, 3010), b"t" * 16, 0, facts, 0.0)


def test_a_peer_that_names_another_address_of_this_lan_is_asked_there_first(node):
    node.found(heard_from("fe80::2%eth0", "fd77:5::2"))
    assert node.asked == [("fd77:5::2", 3010)] and not node.learned
    # Nothing has come from there.
    dict(node._loop.later)[BETTER_SECONDS]()
    assert [answer.address[0] for answer in node.learned] == ["fe80::2%eth0"]


@pytest.mark.parametrize("host, named", [
    ("fd77:5::2", "fd77:5::2"), ("fe80::2%eth0", "10.0.0.2"), ("fe80::3%eth0", "fd77:5::2"),
    ("fe80::2%eth0", "fd77:5::3")])
def test_a_peer_is_listed_at_once_if_that_leads_nowhere_or_is_known(node, host, named):
    for known in ("fe80::3%eth0", "fd77:5::3"):
        node.membership.add(Heard((known, 3010), b"k" * 16, 0, b"", 0.0), 0.0)
    node.found(heard_from(host, named))
    assert len(node.learned) == 1 and not node.asked


@pytest.mark.parametrize("watching", [True, False])
def test_a_sweep_that_was_put_off_lists_what_it_finds_while_the_list_is_kept(
        monkeypatch, watching):
    learned, forgotten = [], threading.Event()

    class Listing:
        def learn(self, answers):
            learned.extend(answers)

        def knows(self, address):
            return False

    loop = FakeLoop()
    node = Node(SimpleNamespace(loop=loop), Listing(), b"m" * 16, lambda heard: None, lambda: None)
    node.membership.watching = watching
    found = Findings()
    found.answers.append("an answer")
    monkeypatch.setattr("net.discovery.probes.look_for",
                        lambda hosts, knows: found if hosts == ["192.168.1.20"] else None)
    monkeypatch.setattr(neighbours, "forget", lambda hosts: forgotten.set())
    node.sweep_later(["192.168.1.20"], 10)
    node.sweep_later(["192.168.1.21"], 10)
    (seconds, sweep), = loop.later
    assert 1.0 <= seconds <= 6.0, "spread over a time that grows with those who search"
    sweep()
    if watching:
        assert forgotten.wait(patience(5)) and learned == ["an answer"]
    else:
        assert not [one for one in threading.enumerate() if one.name == "net-keeper"]
    node.sweep_later(["192.168.1.20"], 10)
    assert len(loop.later) == 2


@pytest.mark.parametrize("sweep, swept", [(None, []), (True, [["192.168.1.20"]])])
def test_a_user_who_may_take_no_row_out_sweeps_only_if_told_to(
        fake, primed, monkeypatch, sweep, swept):
    monkeypatch.setattr(neighbours, "may_forget", lambda: False)
    monkeypatch.setitem(settings.__dict__, "sweep", sweep)
    fake._heard_beyond.add(("192.168.1.31", 3010))
    touched = []
    monkeypatch.setattr(fake.asker, "touch", touched.extend)
    assert primed() == swept
    assert fake.started == [("192.168.1.31", True)], "its connections put it into the table"
    fake._heard_beyond.add(("192.168.1.30", 3010))
    fake.close()
    assert touched == ([] if swept else ["192.168.1.30"]), "old programs here find it in the table"
    assert any("NET_SWEEP=1" in note for note in fake._report.notes) == (not swept)


class FakeEcho:
    """Counts how often all hosts were asked, and knows who has answered."""

    def __init__(self, interfaces, listen):
        self.interfaces, self.sent, self.hosts, self.closed = interfaces, 0, set(), False

    def send(self):
        self.sent += 1

    def close(self):
        self.closed = True


SIX = interfaces.Interface("eth0", "fe80::10%eth0", 64, 2)


@pytest.fixture
def ping(fake, monkeypatch):
    """Begins a search of a user who may take no row out, and does what that leaves for later, the
    readings of tables aside. Answers of hosts to a ping are up to the test."""
    later = []
    monkeypatch.setattr("net.discovery.lan.quest.Echo", FakeEcho)
    monkeypatch.setattr(neighbours, "may_forget", lambda: False)
    monkeypatch.setattr(neighbours, "read_at_once", lambda: neighbours.Table("arp", [], []))
    monkeypatch.setattr(fake, "_read_six", lambda sources: ("six", [["fd00::20", "fe80::20%eth0"]]))
    monkeypatch.setattr(fake.search, "later", lambda when, what: later.append(what))
    fake._swept, fake._chosen = [(LAN, ["192.168.1.20"])], [LAN, SIX]

    def begin():
        fake._prime()
        while fake._ping in later:
            fake._looks = 2
            assert not fake.over(fake.search.started + END), "all hosts are still to be asked"
            later.remove(fake._ping)
            fake._ping()
    return begin


def test_a_user_who_may_take_no_row_out_asks_hosts_to_show_themselves(fake, ping):
    ping()
    assert fake._echo.interfaces == [SIX] and fake._echo.sent == 1 and not fake._primed
    assert not fake._looks, "the tables are read anew"
    fake._echo.hosts = {"fe80::20%eth0", "fe80::30%eth0"}
    fake._read_table()
    assert sorted(fake.started) == [("fe80::20%eth0", True), ("fe80::30%eth0", True)], \
        "each at one address"
    assert fake._report.neighbours == 2 and fake._echo.sent == 1
    fake._read_table()
    assert fake._echo.sent == 2, "the first may have been lost"
    fake.close()
    assert fake._echo.closed
    assert any(note.endswith("ping of IPv6: 2 did") for note in fake._report.notes)


@pytest.mark.parametrize("heard, crowd, sweep", [
    ([("192.168.1.20", 3010)], 0, None), ([], 1, None), ([], 0, False), ([], 0, True)])
def test_no_ping_where_somebody_answers_or_is_asked_otherwise(
        fake, ping, monkeypatch, heard, crowd, sweep):
    monkeypatch.setitem(settings.__dict__, "sweep", sweep)
    monkeypatch.setattr(fake.asker, "prime", lambda interface, hosts: iter(()))
    fake._heard_beyond.update(heard)
    fake._crowd = crowd
    fake._swept = [] if sweep is False else fake._swept
    ping()
    assert fake._echo is None


def test_no_ping_where_somebody_answers_before_it_is_time(fake, ping):
    fake._prime()
    fake._heard_beyond.add(("192.168.1.20", 3010))
    fake._ping()
    assert fake._echo is None and not fake._pinging


def test_an_answer_ends_the_pings_and_their_answers_count_no_more(fake, ping):
    ping()
    fake._echo.hosts = {"fe80::30%eth0"}
    fake._heard_beyond.update([("192.168.1.20", 3010), ("fd00::20", 3010)])
    for _ in range(2):
        fake._read_table()
    assert fake._echo.sent == 1 and not fake.started, "those that peers answer from are enough"


def test_a_user_who_may_not_ping_either_searches_without(fake, ping, monkeypatch):
    def refuse(*what):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("net.discovery.lan.quest.Echo", refuse)
    ping()
    assert fake._echo is None
    assert any(note.endswith("ping of IPv6: Permission denied") for note in fake._report.notes)


def test_where_no_thread_can_start_the_search_goes_on_in_this_one(fake, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    fake.search.threads = 5
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(neighbours, "read_at_once", lambda: None)
    monkeypatch.setattr(neighbours, "read", lambda: neighbours.Table("arp", ["10.0.0.9"], []))
    fake._read_table()
    fake.step(monotonic())
    assert ("10.0.0.9", True) in fake.started and fake._workers == []


def test_the_signature_is_the_documented_one():
    assert list(inspect.signature(net.peers).parameters) == [
        "refresh", "groups", "on_host", "hubs_only", "at_least", "timeout"]
    assert net.get_peers is net.peers


@pytest.fixture
def asked(monkeypatch):
    """What net.peers asks of the cache and of the filter."""
    calls = []
    monkeypatch.setattr(known_peers(), "peers",
                        lambda refresh, on_host: calls.append((refresh, on_host)) or "all")
    monkeypatch.setattr("net.discovery.listing.filtered",
                        lambda peers, groups, hubs: calls.append((groups, hubs)) or "some")
    return calls


@pytest.mark.parametrize("args, kwargs, expected", [
    ((), {}, [(False, False)]),
    ((True,), {}, [(True, False)]),
    (("group1",), {"refresh": True}, [(True, False), ("group1", False)]),
    ((["group1", "group2"],), {}, [(False, False), (["group1", "group2"], False)]),
    ((False, "group1"), {}, [(False, False), ("group1", False)]),
    ((), {"groups": ["a"], "on_host": True}, [(False, True), (["a"], False)]),
    ((), {"hubs_only": True}, [(False, False), (None, True)]),
])
def test_groups_may_come_first_as_the_documentation_shows(asked, args, kwargs, expected):
    net.peers(*args, **kwargs)
    assert asked == expected


@pytest.mark.parametrize("args, kwargs", [
    (("a", True), {}), (("a",), {"groups": "b"}), ((), {"unknown": 1})])
def test_contradictory_arguments_are_an_error(asked, args, kwargs):
    with pytest.raises(TypeError):
        net.peers(*args, **kwargs)
    assert asked == []


def test_errors_of_the_network_are_in_the_report_not_raised(ports, monkeypatch):
    def unreachable(self, address):
        return errno.ENETUNREACH

    monkeypatch.setattr("socket.socket.connect_ex", unreachable)
    report = search().report
    assert set(report.outcomes.values()) == {"unreachable"} and report.notes
