"""Hosts whose addresses and networks come, go and change while their peers run."""
from __future__ import annotations

import signal
import time
from typing import Any, Iterator

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until
from virtual_lan import VirtualLan

WATCHER = PUBLISHER + SUBSCRIBER.format(options="") + """
told = []
net.watch(lambda change, peer: told.append((change, peer.host)))
"""
# Seconds until everybody must know: it was a minute before, and 3 s are promised on a calm machine.
SOON = 8.0


@pytest.fixture
def lan(build: Any) -> Iterator[VirtualLan]:
    with build(3) as made:
        yield made


def hosts(process: Any) -> list[str]:
    return ask(process, "sorted(peer.host for peer in net.peers())")


def lists(process: Any, *addresses: str, within: float = SOON) -> None:
    until(lambda: hosts(process) == sorted(addresses) or None, within)


def hears(publisher: Any, subscriber: Any, number: int, within: float = SOON) -> None:
    """Wait until what one triggers from now on comes to the other."""
    def heard() -> bool:
        publisher.execute(f"many({number}, {number + 1})")
        return ask(subscriber, f"{number} in heard")

    until(heard, within)


@pytest.fixture
def pair(lan: VirtualLan) -> tuple[Any, Any]:
    """Watchers on the first two hosts that know each other."""
    here, there = lan.peers(*lan.hosts[:2], script=WATCHER)
    lists(here, "10.77.5.2")
    lists(there, "10.77.5.1")
    return here, there


def test_a_host_with_a_new_address_is_known_there_and_nowhere_else(lan, pair):
    here, there = pair
    lan.hosts[1].ip("addr del 10.77.5.2/24 dev eth0",
                    "addr add 10.77.5.102/24 broadcast + dev eth0")
    lists(here, "10.77.5.102")
    lists(there, "10.77.5.1")
    assert ask(there, "net.Peer().host") == "10.77.5.102"
    assert ask(here, "net.pass_through(5, peer=net.peers()[0])") == 5
    hears(there, here, 1000)
    hears(there, there, 1001)
    hears(here, there, 1002)


def test_a_peer_that_started_before_its_network_is_part_of_it_once_that_is_up(lan, pair):
    here, _ = pair
    lan.hosts[2].ip("link set eth0 down", "addr flush dev eth0")
    early = lan.hosts[2].peer(WATCHER)
    assert ask(early, "net.Peer().host, len(net.peers())") == ("127.0.0.1", 0)
    lan.hosts[2].ip("link set eth0 up", "addr add 10.77.5.3/24 broadcast + dev eth0")
    lists(here, "10.77.5.2", "10.77.5.3")
    lists(early, "10.77.5.1", "10.77.5.2")
    hears(early, here, 1000)
    hears(here, early, 1001)


def test_a_peer_in_two_networks_is_reached_in_each_and_stays_in_the_one_that_is_left(lan, search):
    client, both, far = lan.hosts
    both.join("10.88.0", "eth1")
    far.ip("addr flush dev eth0")
    far.join("10.88.0", "eth1")
    peer = both.peer(WATCHER)
    assert search(client)["peers"] == ["10.77.5.2:3010"]
    assert search(far)["peers"] == ["10.88.0.2:3010"]
    watcher = client.peer(WATCHER)
    client.join("10.88.0", "eth1")
    # One peer, whatever it is known by.
    until(lambda: len(hosts(watcher)) == 1)
    both.ip("addr del 10.77.5.2/24 dev eth0")
    lists(watcher, "10.88.0.2")
    assert ask(peer, "net.Peer().host") == "10.88.0.2"


def test_a_bridge_to_containers_that_was_there_first_hides_no_peer(lan, search):
    client, host, _ = lan.hosts
    host.ip("addr flush dev eth0", "link add docker0 type bridge", "link set docker0 up",
            "addr add 172.17.0.1/16 broadcast + dev docker0",
            "addr add 10.77.5.2/24 broadcast + dev eth0")
    peer = host.peer()
    assert peer.address == ("10.77.5.2", 3010)
    assert search(client)["peers"] == ["10.77.5.2:3010"]


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=pytest.mark.stress)])
def test_a_cable_that_was_out_brings_everything_back_at_once(lan, pair, seconds):
    here, there = pair
    hears(there, here, 1000)
    lan.hosts[1].ip("link set eth0 down")
    lists(here, within=30)
    time.sleep(seconds - 3)
    lan.hosts[1].ip("link set eth0 up")
    lists(here, "10.77.5.2")
    lists(there, "10.77.5.1")
    hears(there, here, 1001)
    hears(here, there, 1002)


@pytest.mark.stress
def test_a_host_that_slept_for_a_minute_is_back_at_once(lan, pair):
    here, there = pair
    hears(there, here, 1000)
    there.signal(signal.SIGSTOP)
    lists(here, within=30)
    time.sleep(50)
    there.signal(signal.SIGCONT)
    lists(here, "10.77.5.2")
    hears(there, here, 1001)
    hears(here, there, 1002)
    assert ask(there, "told.count(('left', '10.77.5.1'))") == 0


def test_it_takes_the_address_of_an_interface_by_name(lan, search):
    lan.hosts[1].join("10.88.0", "eth1")
    peer = lan.hosts[1].peer(NET_HOST="eth1")
    assert peer.address == ("10.88.0.2", 3010)
    assert search(lan.hosts[0])["peers"] == []
