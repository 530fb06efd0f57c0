"""Who is alive: simulated processes on a simulated LAN, in simulated time.

Large networks, long times and many seeds are in tests/integration/test_simulated_lans.py.
"""
from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from net.discovery.lan.datagrams import (ANSWER, ASK, BEAT, DOUBT, GOODBYE, HELLO, LIST, REPLY,
                                         WATCHING, Entry, Message, encode, encode_hello,
                                         encode_list, encode_said, read_list)
from net.discovery.membership import Heard, Member, RoundTrips, Timers
from simulated_lan import Network, Node, Stranger, lan, left, listing, settled, without, wrong


# ----------------------------------------------------------------------------- nothing happens

def test_one_watcher_among_many_that_do_not_watch_sees_all_of_them():
    network = Network()
    nodes = lan(network, 20)
    network.run(1.0)
    watcher = nodes[0]
    watcher.membership.watch(True, network.now)
    watcher.search()
    network.run(5.0)
    assert len(watcher.listed) == 19
    nodes[7].kill()
    network.run(3.0)
    assert nodes[7].address not in watcher.listed and len(left([watcher])) == 1


def test_the_secret_changes_nothing():
    pytest.importorskip("cryptography")
    nodes = lan(Network(), 8, True, seal=b"k" * 32)
    network = nodes[0].network
    for node in nodes:
        node.search()
    network.run(5.0)
    assert not wrong(nodes)
    nodes[3].kill()
    network.run(3.0)
    assert not wrong(nodes)


def test_those_of_another_secret_are_not_listed():
    pytest.importorskip("cryptography")
    network = Network()
    ours, theirs = lan(network, 3, True, seal=b"k" * 32), []
    theirs = [Node(network, f"10.77.1.{n}", 3010, True, b"x" * 32) for n in range(3)]
    opened = [Node(network, f"10.77.2.{n}", 3010, True) for n in range(3)]
    for node in [*ours, *theirs, *opened]:
        node.search()
    network.run(5.0)
    for group in (ours, theirs, opened):
        for node in group:
            assert set(node.listed) == {one.address for one in group if one is not node}


# ----------------------------------------------------------------------------- peers go

def test_doubts_about_one_that_was_heard_just_before_it_died_are_looked_after():
    """What notices the death at once is a connection, of a subscriber or a call."""
    nodes = settled(5, 5.0)
    network, victim, *others = nodes[0].network, *nodes[1:]
    for node in others:
        node.membership.members[victim.address].heard = network.now
    victim.kill()
    others[0].membership.doubt(victim.address, network.now, tell=True)
    others[0].wake()
    network.run(0.8)
    assert not wrong(nodes)


def test_one_that_would_be_asked_later_anyway_is_noticed_no_later():
    nodes = settled(10)
    network, victim = nodes[0].network, nodes[3]
    for node in without(nodes, victim):
        node.membership._check(victim.address, network.now, 15.0)
    network.cut.add(victim.address[0])
    network.run(5.0)
    assert listing(victim, nodes) == 0


def test_all_others_killed_are_noticed():
    nodes = settled(6)
    for node in nodes[1:]:
        node.kill()
    nodes[0].network.run(4.0)
    assert not nodes[0].listed


def test_a_goodbye_is_noticed_at_once():
    nodes = settled(20)
    nodes[1].close()
    nodes[0].network.run(0.4)
    assert not wrong(nodes)


def test_a_peer_that_is_frozen_for_long_is_gone_and_comes_back_when_it_goes_on():
    nodes = settled(10)
    network = nodes[0].network
    nodes[3].freeze()
    network.run(10.0)
    assert listing(nodes[3], nodes) == 9
    network.run(4.0)
    assert listing(nodes[3], nodes) == 0
    nodes[3].thaw()
    network.run(1.0)
    assert not wrong(nodes)


# ----------------------------------------------------------------------------- peers come

def test_a_newcomer_whose_hellos_nobody_hears_becomes_known_by_what_the_others_say():
    nodes = settled(10)
    network = nodes[0].network
    newcomer = Node(network, "10.77.9.9", watching=True)
    newcomer.hello = lambda: None
    newcomer.found(heard_of(nodes[0]))
    newcomer.wake()
    network.run(20.0)
    assert not wrong([*nodes, newcomer])


def heard_of(node):
    from net.discovery.membership import Heard

    return Heard(node.address, node.instance, WATCHING, b"{}", 0.001)


def test_one_that_started_after_the_last_question_of_a_search_is_known_when_watching_begins():
    network = Network()
    node = Node(network, "10.77.0.1")
    node.search()
    network.run_until(lambda: node.rounds is not None and math.isinf(node.rounds.due), 1.0)
    late = Node(network, "10.77.0.3", hellos=(0.0,))
    network.run_until(lambda: node.searched, 1.0)
    assert not node.listed
    node.membership.watch(True, network.now)
    node.wake()
    network.run(0.2)
    assert set(node.listed) == {late.address}


def test_a_peer_that_was_started_anew_at_its_address_is_another_one():
    nodes = settled(10)
    network = nodes[0].network
    address = nodes[3].address
    nodes[3].kill()
    again = Node(network, *address, watching=True)
    again.search()
    network.run(2.0)
    living = [*without(nodes, nodes[3]), again]
    assert not wrong(living)
    assert all(one.listed[address] == again.instance for one in living if one is not again)


# ----------------------------------------------------------------------------- strangers

@pytest.fixture
def stranger():
    return Stranger(settled(10))


def test_a_goodbye_in_the_name_of_another_changes_nothing(stranger):
    victim = stranger.nodes[3]
    for node in without(stranger.nodes, victim):
        stranger.send(Message(GOODBYE, 0, 3010, bytes(8), victim.instance), node.address,
                      (victim.address[0], 40000))
    stranger.network.run(5.0)
    assert not left(stranger.nodes) and not wrong(stranger.nodes)


def test_a_goodbye_in_the_name_of_one_that_is_busy_changes_nothing_either(stranger):
    victim = stranger.nodes[3]
    victim.freeze()
    for node in without(stranger.nodes, victim):
        stranger.send(Message(GOODBYE, 0, 3010, bytes(8), victim.instance), node.address,
                      (victim.address[0], 40000))
    stranger.network.run(2.0)
    victim.thaw()
    stranger.network.run(2.0)
    assert not left(stranger.nodes)


def test_doubts_and_lists_of_strangers_are_not_looked_at(stranger):
    entries = [Entry((f"10.77.8.{n}", 3010), b"abcd") for n in range(100)]
    node, sent = stranger.nodes[0], stranger.nodes[0].sent
    for _, body in encode_list(entries):
        for kind in (DOUBT, LIST):
            for source in (stranger.address, stranger.nodes[1].address):
                stranger.send(Message(kind, WATCHING, source[1], b"x" * 8, b"s" * 16, body),
                              node.address, source)
    assert node.sent - sent <= 4 and not left(stranger.nodes)


def test_doubts_in_the_name_of_a_watcher_only_have_it_asked_and_not_without_limit(stranger):
    node, liar = stranger.nodes[0], stranger.nodes[1]
    everybody = encode_list([Entry(one.address, one.instance) for one in stranger.nodes])
    sent = stranger.network.sent
    for _ in range(50):
        for _, body in everybody:
            stranger.send(Message(DOUBT, WATCHING, 3010, bytes(8), liar.instance, body),
                          node.address, (liar.address[0], 40000))
    assert not left(stranger.nodes) and stranger.network.sent - sent < 400


def test_beats_and_answers_of_others_keep_no_dead_peer_alive(stranger):
    victim = stranger.nodes[3]
    victim.kill()
    for _ in range(40):
        for node in stranger.nodes:
            if not node.dead:
                for kind in (BEAT, ANSWER, HELLO):
                    body = encode_said(b"{}", bytes(8), 9)
                    stranger.network.send(encode(Message(kind, WATCHING, 3010, b"guessed!",
                                                         victim.instance, body)),
                                          victim.address, node.address)
        stranger.network.run(0.1)
    assert not wrong(stranger.nodes)


@pytest.fixture
def heard(stranger, monkeypatch):
    """Every datagram that arrives somewhere: its bytes, source and target."""
    found = []
    real = Node.receive

    def receive(node, data, source, target):
        found.append((data, source, target))
        real(node, data, source, target)

    monkeypatch.setattr(Node, "receive", receive)
    return found


def of_kind(kind, heard):
    return [one for one in heard if one[0][5] == kind]


def test_recorded_beats_keep_no_dead_peer_alive(stranger, heard):
    network, victim = stranger.network, stranger.nodes[3]
    network.run(6.0)
    beats = [one for one in of_kind(BEAT, heard) if one[1] == victim.address]
    assert beats
    victim.kill()
    for _ in range(50):
        for recorded in beats:
            network.send(*recorded)
        network.run(0.1)
    assert not wrong(stranger.nodes)


def test_a_recorded_list_is_answered_now_and_then_only(stranger, heard):
    network, (node, other, *_) = stranger.network, stranger.nodes
    permit = node.responder.permit(other.address)
    network.run(1.0)
    heard.clear()
    _, body = encode_list([])[0]
    for _ in range(200):
        network.send(encode(Message(LIST, WATCHING | REPLY, 3010, permit, other.instance, body)),
                     other.address, node.address)
        network.run(0.01)
    sent_back = [one for one in of_kind(LIST, heard) if one[1] == node.address]
    assert len(sent_back) <= 6


def test_a_peer_that_only_one_of_them_was_made_to_believe_in_is_gone_soon(stranger):
    from net.discovery.membership import Heard

    node = stranger.nodes[0]
    node.found(Heard(("10.77.7.7", 3010), b"f" * 16, WATCHING, b"{}", 0.001))
    stranger.network.run(8.0)
    assert not wrong(stranger.nodes)


def test_a_network_is_lossy_until_many_in_a_row_have_come():
    trips = RoundTrips()
    trips.searched(60, 0.0)
    assert not trips.lossy
    trips.measured(0.01, 2)
    assert trips.lossy
    for _ in range(60):
        trips.measured(0.01, 1)
    assert not trips.lossy
    trips.searched(100, 0.01)
    assert trips.lossy
    # A beat that is missing, by its number.
    nodes = settled(3)
    network = nodes[0].network
    node = next(one for one in nodes if any(two.watched for two in one.membership.members.values()))
    member = next(one for one in node.membership.members.values() if one.watched)
    node.membership.round_trips.searched(60, 0.0)
    beaten = next(one for one in nodes if one.address == member.address)
    next(iter(beaten.responder.watchers.values())).sent += 1
    network.run(1.5)
    assert node.membership.round_trips.lossy
    # One that was taken for gone, and is there.
    node.membership.round_trips.searched(60, 0.0)
    network.cut.add(beaten.address[0])
    network.run_until(lambda: member.address not in node.listed, 10.0)
    assert not node.membership.round_trips.lossy
    network.cut.clear()
    network.run_until(lambda: member.address in node.listed, 10.0)
    assert node.membership.round_trips.lossy


def test_a_watcher_that_does_not_do_what_it_says_hides_nothing_for_long():
    nodes = settled(10)
    network = nodes[0].network
    order = sorted(nodes, key=lambda node: node.instance)
    hostile, victim = order[5], order[4]
    # It watches its predecessor, and would never say a word.
    hostile.lost = lambda address: None
    hostile.membership._tell = lambda *args, **kwargs: None
    victim.kill()
    assert network.run_until(lambda: not listing(victim, without(nodes, hostile)), 41.0)


def test_a_clone_with_the_same_instance_harms_nobody():
    nodes = settled(6)
    network = nodes[0].network
    clone = Node(network, "10.77.3.3", watching=True)
    clone.instance = nodes[2].instance
    clone.membership._instance = nodes[2].instance
    clone.search()
    network.run(5.0)
    for node in without(nodes, nodes[2]):
        assert {nodes[2].address, clone.address} <= set(node.listed)


# ----------------------------------------------------------------------------- the parts

def test_timers_run_in_order_and_not_after_they_were_cancelled():
    timers, done = Timers(), []
    assert timers.due == float("inf")
    timers.at(2.0, done.append)
    timers.at(1.0, lambda now: done.append(-now))
    timers.at(1.5, done.append).cancel()
    assert timers.due == 1.0
    timers.run(1.7)
    assert done == [-1.7] and timers.due == 2.0
    timers.run(5.0)
    assert done == [-1.7, 5.0]


def test_round_trips_set_how_long_and_how_often_is_asked():
    trips = RoundTrips()
    assert trips.tries == 4 and trips.doubtful == 2
    for _ in range(100):
        trips.measured(0.2, 1)
    assert 0.2 < trips.wait < 0.3 and trips.tries == 4
    for _ in range(100):
        trips.measured(0.2, 2)
    assert trips.loss > 0.4 and trips.tries == 12 and trips.doubtful > 4
    for _ in range(100):
        trips.measured(30.0, 1)
    assert trips.wait == 1.0


def test_what_made_answers_slow_for_a_while_is_forgotten_by_what_comes_in_time():
    trips = RoundTrips()
    trips.calm()
    trips.measured(0.01, 1)
    for _ in range(20):
        trips.measured(0.8, 1)
    assert trips.wait > 0.8
    for _ in range(6):
        trips.calm()
    assert trips.wait < 0.1
    for _ in range(10):
        trips.measured(0.01, 1)
    assert trips.wait == 0.05


def test_beats_that_come_in_time_shorten_the_wait_for_answers():
    nodes = settled(4)
    for node in nodes:
        node.membership.round_trips.measured(5.0, 1)
        assert node.membership.round_trips.wait == 1.0
    nodes[0].network.run(12.0)
    watching = [node for node in nodes
                if any(member.watched for member in node.membership.members.values())]
    assert watching and all(node.membership.round_trips.wait < 0.2 for node in watching)


def test_one_that_was_heard_just_now_and_is_busy_is_not_connected_to_at_once():
    nodes = settled(3)
    network, node, busy = nodes[0].network, nodes[0], nodes[1]
    knocks = []
    node.knock = knocks.append
    busy.frozen = True
    node.membership.members[busy.address].heard = network.now
    node.membership._check(busy.address, network.now)
    node.wake()
    network.run(0.07)
    assert node.membership._checks[busy.address].tries == 2 and not knocks
    network.run(0.2)
    assert knocks == [busy.address]


def test_nobody_is_told_of_doubts_about_a_peer_that_is_only_busy():
    nodes = settled(6)
    network, busy = nodes[0].network, nodes[1]
    told = []
    for node in without(nodes, busy):
        node.membership._tell = lambda entry, now: told.append(entry)
    busy.freeze()
    network.run(2.0)
    assert not told
    network.run(3.0)
    assert told and told[0].address == busy.address
    busy.thaw()
    network.run(1.0)
    assert not wrong(nodes)


def test_one_that_began_to_watch_after_it_answered_is_known_to_watch():
    """As all do that search at the same time: each would ask the others' share for beats, too."""
    network = Network()
    node, other, third = lan(network, 3, hellos=())
    for one in (other, third):
        one.membership.watch(True, network.now)
        one.hello()
    network.run(0.1)
    third.membership.watch(False, network.now)
    third.hello()
    network.run(0.1)
    for one in (other, third):
        node.found(Heard(one.address, one.instance, 0, one.facts, 0.05))
    assert node.membership.members[other.address].flags & WATCHING
    assert not node.membership.members[third.address].flags & WATCHING
    # What was said long ago counts less than the answer.
    network.run(10.0)
    late = lan(network, 1, hellos=())[0]
    late.membership._greeted.update(node.membership._greeted)
    late.found(Heard(other.address, other.instance, 0, other.facts, 0.05))
    assert not late.membership.members[other.address].flags & WATCHING


def test_every_question_has_an_end():
    nodes = settled(3)
    network = nodes[0].network
    for number in range(50):
        nodes[0].membership._hint(("10.77.44.4", 3010 + number % 6), "teller", network.now)
    network.run(10.0)
    assert not nodes[0].membership._checks and not nodes[0].membership._asked


def test_a_message_that_makes_no_sense_changes_nothing():
    nodes = settled(3)
    network = nodes[0].network
    for kind in range(ASK, DOUBT + 1):
        for body in (b"", b"x", bytes(50), b"\xff" * 50):
            for source in (nodes[1], None):
                network.send(encode(Message(kind, 0xFE, 3010, bytes(8),
                                            source.instance if source else b"z" * 16, body)),
                             source.address if source else ("10.77.1.1", 3010), nodes[0].address)
    network.run(5.0)
    assert not wrong(nodes) and not left(nodes)


# ----------------------------------------------------------------------------- what peers say

def test_what_a_peer_says_anew_about_itself_is_known_to_all_within_a_second():
    nodes = settled(20)
    network = nodes[0].network
    told = {}
    for node in nodes:
        found = node.found
        node.found = lambda heard, node=node, found=found: (
            told.__setitem__(node.address, heard.facts), found(heard))
    nodes[3].facts = b'{"digest": "another"}'
    sent = network.sent
    nodes[3].hello()
    network.run(1.0)
    assert told == {node.address: nodes[3].facts for node in nodes if node is not nodes[3]}
    # A peer that knows it does not ask again.
    nodes[3].hello()
    network.run(1.0)
    assert network.sent - sent < 200 and not left(nodes)


def test_a_process_with_another_address_is_asked_for_at_the_one_before():
    nodes = settled(10)
    network = nodes[0].network
    moved = nodes[4]
    before = moved.address
    del network.nodes[before]
    moved.address = "10.77.9.9", before[1]
    network.nodes[moved.address] = moved
    moved.hello()
    network.run(3.0)
    for node in without(nodes, moved):
        assert moved.address in node.listed and before not in node.listed


# ------------------------------------------------------------------------------ two families

def test_a_hello_that_comes_from_several_addresses_has_one_of_them_asked(stranger):
    membership, now = stranger.nodes[0].membership, stranger.network.now
    four, six, link = ("10.77.5.66", 3010), ("fd00::66", 3010), ("fe80::66%eth0", 3010)

    def says(address, seconds):
        hello = Message(HELLO, 0, 3010, bytes(8), b"s" * 16, encode_hello(b""))
        membership.received(hello, address, now + seconds)
        return [one for one in (four, six, link) if one in membership._checks]

    assert says(six, 0) == [six]
    assert says(link, 0.001) == [six]
    # What is asked first counts, whatever came before.
    assert says(four, 0.002) == [four, six]
    # A second later it may have lost the other address.
    assert says(link, 1.0) == [four, six, link]


def test_a_link_local_address_is_passed_on_on_its_own_link_only(stranger):
    membership, now = stranger.nodes[0].membership, stranger.network.now
    sent = []
    membership._outlet = SimpleNamespace(send=lambda message, address: sent.append(message))
    for host in ("fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth1", "fd00::4"):
        membership.members[host, 3010] = Member((host, 3010), host.encode(), 0, True, now)
    for target, told in (("fe80::1%eth0", 3), ("fe80::3%eth1", 2), ("fd00::4", 1)):
        sent.clear()
        membership._send_list(membership.members[target, 3010], 0)
        listed = [read_list(message, (target, 40000)) for message in sent]
        assert len([one for found in listed for one in found.entries if ":" in one.address[0]]) \
            == told
    for host in ("fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth1", "fd00::4"):
        del membership.members[host, 3010]
