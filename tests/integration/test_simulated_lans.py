"""Who is alive on large or bad networks, under attack or after minutes: in simulated time."""
from __future__ import annotations

from typing import List

import pytest

from net.discovery.lan.datagrams import GOODBYE, HELLO, WATCHING, Message, encode, encode_said
from net.discovery.membership import MAX_CHECKS
from each import each
from simulated_lan import Network, Node, Stranger, lan, left, listing, settled, without, wrong

#: For large or long simulations: arithmetic, the same on each interpreter.
LARGE = pytest.mark.once


@LARGE
@pytest.mark.parametrize("count, limit", [(2, 200), (10, 700), (40, 2800), (50, 2800), (100, 2800)])
def test_watching_costs_little_however_many_watch(count, limit):
    nodes = settled(count, 4.0)
    network = nodes[0].network
    sent = network.sent
    network.run(20)
    assert (network.sent - sent) * 3 <= limit
    assert not wrong(nodes) and not left(nodes)


def test_a_peer_that_watches_nobody_sends_nothing():
    nodes = lan(Network(), 30)
    network = nodes[0].network
    network.run(2.0)
    sent = network.sent
    network.run(600)
    assert network.sent == sent


def test_when_the_last_watcher_stops_it_becomes_silent():
    nodes = settled(10)
    network = nodes[0].network
    for node in nodes:
        node.membership.watch(False, network.now)
        node.wake()
    network.run(200)  # until what was asked for has ended
    sent = network.sent
    network.run(100)
    assert network.sent == sent


@LARGE
@pytest.mark.parametrize("loss, jitter", [(0.05, 0.0), (0.05, 0.1), (0.2, 0.0)])
def test_on_a_bad_network_no_living_peer_is_reported_as_gone(loss, jitter):
    nodes = settled(15, 40, loss=loss, jitter=jitter, twice=0.1)
    assert not left(nodes) and not wrong(nodes)


@each("count", [2, 10])
def test_a_peer_whose_hardware_address_is_asked_for_once_more_is_not_reported_as_gone(count):
    """A question for it that was lost is repeated after a second; until then all waits."""
    for seed in range(3):
        nodes = settled(count, 5.0, seed)
        network, victim, other = nodes[0].network, *nodes[:2]
        network.waiting[victim.address[0]] = network.now + 1.0
        other.membership.doubt(victim.address, network.now, tell=True)
        other.wake()
        network.run(5.0)
        assert not left(nodes) and not wrong(nodes)


@LARGE
@each("count", [2, 3, 10, 50])
def test_a_killed_peer_is_noticed_by_all_within_three_seconds(count):
    for seed in range(1 if count == 50 else 3):
        nodes = settled(count, 5.0, seed)
        nodes[1].kill()
        nodes[0].network.run(3.0)
        assert not wrong(nodes)


def test_several_that_are_killed_at_once_are_noticed_as_soon():
    nodes = settled(30, 5.0)
    for node in nodes[10:16]:
        node.kill()
    nodes[0].network.run(3.0)
    assert not wrong(nodes)


@each("count, seed", [(60, 1), (60, 2), (100, 1)])
def test_nearly_all_that_are_killed_at_once_are_noticed_by_those_that_stay(count, seed):
    """One after the other, each stands between a watcher and the next one on the ring."""
    nodes = settled(count, 5.0, seed)
    for node in nodes[2:]:
        node.kill()
    nodes[0].network.run(4.0)
    assert not wrong(nodes[:2])


@LARGE
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_host_that_vanishes_is_noticed_by_all(loss):
    for seed in range(8 if loss else 2):
        nodes = settled(30, seed=seed, loss=loss)
        network = nodes[0].network
        network.cut.add(nodes[4].address[0])
        network.run(5.0)
        assert listing(nodes[4], nodes) == 0 and not nodes[4].listed
        assert {change[2] for change in left(without(nodes, nodes[4]))} == {nodes[4].address}


@LARGE
@pytest.mark.parametrize("count", [70, 100])
def test_a_host_that_is_cut_off_is_noticed_by_all_within_four_seconds_among_many(count):
    nodes = settled(count, 4.0)
    network, victim = nodes[0].network, nodes[4]
    beaten = next(iter(victim.responder.watchers.values()))
    network.run(beaten.due - network.now + 0.01)  # so that it is missed as late as can be
    network.cut.add(victim.address[0])
    network.run(4.0)
    assert listing(victim, nodes) == 0
    assert {change[2] for change in left(without(nodes, victim))} == {victim.address}


@LARGE
def test_a_living_host_that_is_cut_off_for_a_second_is_not_told_as_left_among_many():
    """As long as it takes until a question for its hardware address that was lost is repeated."""
    nodes = settled(100, 4.0)
    network, victim = nodes[0].network, nodes[4]
    beaten = next(iter(victim.responder.watchers.values()))
    network.run(beaten.due - network.now - 0.05)
    network.cut.add(victim.address[0])
    network.run(1.05)
    network.cut.clear()
    network.run(3.0)
    assert not left(nodes)


@LARGE
def test_a_host_that_is_cut_off_for_a_moment_takes_nobody_for_gone():
    nodes = settled(100, 4.0)
    network, victim = nodes[0].network, nodes[4]
    watched, = [one for one in victim.membership.members.values() if one.watched]
    network.run(watched.due - network.now - 0.05)
    network.cut.add(victim.address[0])
    network.run(0.9)
    network.cut.clear()
    network.run(3.0)
    assert not left([victim])


def test_a_peer_that_does_nothing_for_two_seconds_is_there_all_the_same():
    for seed in range(5):
        nodes = settled(10, 8.0 + seed / 5)
        nodes[3].freeze()
        nodes[0].network.run(2.0)
        nodes[3].thaw()
        nodes[0].network.run(5.0)
        assert not left(without(nodes, nodes[3])) and not left([nodes[3]]) and not wrong(nodes)


def test_a_process_that_has_slept_holds_nothing_against_the_others():
    nodes = settled(10)
    network = nodes[0].network
    nodes[3].freeze()
    network.run(60.0)
    nodes[3].thaw()
    network.run(3.0)
    assert not left([nodes[3]]) and not wrong(nodes)


def test_a_newcomer_is_known_to_all_and_knows_all_within_a_second():
    nodes = settled(30, 5.0)
    newcomer = Node(nodes[0].network, "10.77.9.9", watching=True)
    newcomer.search()
    nodes[0].network.run(1.0)
    assert not wrong([*nodes, newcomer])


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_a_newcomer_becomes_known_to_all_where_hellos_are_lost(loss):
    nodes = settled(20, loss=loss)
    newcomer = Node(nodes[0].network, "10.77.9.9", watching=True)
    newcomer.search()
    nodes[0].network.run(8.0)
    assert not wrong([*nodes, newcomer])


@LARGE
def test_many_that_start_at_once_know_each_other_within_a_second():
    network = Network(3)
    nodes: List[Node] = []

    def start(number):
        nodes.append(Node(network, f"10.77.0.{number // 6 + 1}", 3010 + number % 6, watching=True))
        nodes[-1].search()
    for number in range(24):
        network.at(network.random.random() * 0.3, lambda number=number: start(number))
    network.run(1.3)
    assert len(nodes) == 24 and not wrong(nodes)


def test_one_that_starts_while_another_searches_in_vain_prolongs_that_search_by_little():
    for seed in range(20):
        network = Network(seed)
        first = Node(network, "10.77.0.1", watching=True)
        first.search()
        network.run(network.random.uniform(0.1, 0.65))
        second = Node(network, "10.77.0.2", watching=True)
        second.search()
        network.run(0.6)
        assert first.searched and second.searched and not wrong([first, second])


@LARGE
@pytest.mark.parametrize("seconds", [5, 30])
def test_a_host_that_was_cut_off_is_back_within_three_seconds(seconds):
    nodes = settled(20)
    network = nodes[0].network
    network.cut.add(nodes[4].address[0])
    network.run(seconds)
    assert listing(nodes[4], nodes) == 0
    network.cut.clear()
    network.run(3.0)
    assert not wrong(nodes)


@LARGE
def test_two_halves_that_were_cut_off_from_each_other_find_together():
    nodes = settled(16)
    network = nodes[0].network
    half = {node.address[0] for node in nodes[:8]}
    network.filter = lambda source, target: (source in half) == (target in half)
    network.run(15.0)
    assert {len(node.listed) for node in nodes} == {7}
    network.filter = lambda source, target: True
    network.run(8.0)
    assert not wrong(nodes)


@LARGE
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_under_churn_all_lists_are_right_after_three_seconds(loss):
    errors = pairs = 0
    for seed in (6, 7, 8):  # of one in twelve, a list is late more often than that
        nodes = settled(20, 4.0, loss=loss, seed=seed)
        network, number = nodes[0].network, 0
        for _ in range(4):
            for node in network.random.sample([one for one in nodes if not one.dead], 4):
                node.kill()
            for _ in range(4):
                number += 1
                newcomer = Node(network, f"10.78.0.{number}", watching=True)
                nodes.append(newcomer)
                network.at(network.now + 0.05, newcomer.search)
            network.run(3.0)
            errors += wrong(nodes)
            pairs += 20 * 19
            network.run(2.0)
        gone = {node.address for node in nodes if node.dead}
        assert all(address in gone for _, _, address in left(nodes))
    assert errors <= pairs * (0.01 if not loss else 0.02)


@pytest.fixture
def stranger():
    return Stranger(settled(10))


def test_addresses_that_strangers_tell_of_are_asked_a_bounded_number_of_times(stranger):
    node = stranger.nodes[0]
    sent = node.sent
    for number in range(1500):
        stranger.network.send(encode(Message(HELLO, WATCHING, 3010 + number % 6, bytes(8),
                                             number.to_bytes(16, "big"),
                                             encode_said(b"x", bytes(8), 0))),
                              (f"10.77.66.{number % 20}", 40000), node.address)
        if number % 10 == 0:
            stranger.network.run(0.01)
    assert len(node.membership._checks) <= MAX_CHECKS
    stranger.network.run(10.0)
    assert node.sent - sent < 20000 and not node.membership._checks
    assert not wrong(stranger.nodes)


def test_goodbyes_in_the_name_of_others_cost_few_connections(stranger, monkeypatch):
    network, knocks = stranger.network, []
    real = network.knock
    monkeypatch.setattr(network, "knock", lambda node, address: knocks.append(address)
                        or real(node, address))
    for _ in range(500):
        for node in stranger.nodes:
            network.send(encode(Message(GOODBYE, 0, node.address[1], bytes(8), node.instance)),
                         (node.address[0], 40000), stranger.nodes[0].address)
        network.run(0.01)
    # Once a second for each peer.
    assert 0 < len(knocks) <= 7 * len(stranger.nodes)
    assert not left(stranger.nodes) and not wrong(stranger.nodes)


@LARGE
@pytest.mark.timeout(90)
def test_a_sender_that_forges_a_thousand_addresses_has_the_share_of_a_few(stranger):
    network, node = stranger.network, stranger.nodes[0]
    before = node.sent
    for number in range(3000):
        network.send(encode(Message(HELLO, WATCHING, 3010 + number % 6, bytes(8),
                                    number.to_bytes(16, "big"), encode_said(b"x", bytes(8), 0))),
                     (f"10.{number % 100 + 100}.{number // 100}.1", 40000), node.address)
        if number % 10 == 0:
            network.run(0.01)
    network.run(5.0)
    asked = node.sent - before
    # 1,024 at once and 128 a second for eight seconds, four times each; all would be 12,000.
    assert asked < 4 * (1024 + 128 * 8)
    assert not wrong(stranger.nodes)


@LARGE
def test_neighbours_on_the_ring_that_keep_silent_together_hide_nothing_for_ever():
    nodes = settled(12)
    network = nodes[0].network
    *hostile, = sorted(nodes, key=lambda node: node.instance)[5:9]
    victim = hostile.pop(0)
    for node in hostile:
        node.lost = lambda address: None
        node.membership._tell = lambda *args, **kwargs: None
    victim.kill()
    network.run(300.0)
    assert not listing(victim, without(nodes, *hostile))


@LARGE
def test_peers_that_come_together_move_what_is_watched_once():
    nodes = settled(40, 4.0)
    network, node = nodes[0].network, nodes[0]
    moves = []
    assign = node.membership._assign
    node.membership._assign = lambda now: (moves.append(now), assign(now))
    for number in range(10):
        newcomer = Node(network, f"10.78.0.{number}", watching=True)
        network.at(network.now + 0.01 * number, newcomer.search)
    network.run(1.0)
    assert 1 <= len(moves) <= 6
    network.run(3.0)
    assert not wrong(network.nodes.values())
