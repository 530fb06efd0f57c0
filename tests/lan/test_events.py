"""Events on a LAN whose cables come out and go in again."""
from __future__ import annotations

import time
from shutil import which
from typing import Any, Iterator

import pytest

from hearing import (PUBLISHER, SUBSCRIBER, ask, until, wait_for_subscribers, wait_until_heard)
from virtual_lan import VirtualLan
from times import patience

ALL_PEERS = SUBSCRIBER.format(options="")


@pytest.fixture
def lan(build) -> Iterator[VirtualLan]:
    with build(3) as made:
        yield made


def connected(process: Any) -> int:
    """How many other publishers' events come to this process."""
    return ask(process, "sum(bool(target.subscription.pairs) for address, target in "
                        "__import__('net.events').events.own_events().subscriber._targets.items() "
                        "if address != net.Peer().id.address)")


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last))


def test_a_subscriber_of_all_peers_hears_the_whole_lan_and_peers_that_come_later(lan):
    here, there, later = lan.hosts
    process = here.peer(ALL_PEERS)
    publishers = [here.peer(PUBLISHER), there.peer(PUBLISHER)]
    for publisher in publishers:
        wait_for_subscribers(publisher, 1)
        publisher.execute("many(0, 1000)")
    assert sorted(wait_until_heard(process, 2000)) == sorted(2 * numbers(0, 1000))
    process.execute("heard.clear()")
    publisher = later.peer(PUBLISHER)
    began = time.monotonic()
    wait_for_subscribers(publisher, 1)
    assert time.monotonic() - began < patience(5.0)
    publisher.execute("many(0, 10)")
    assert wait_until_heard(process, 10) == numbers(0, 10)


def test_a_host_that_was_cut_off_hears_again_and_knows_what_it_missed(lan):
    publisher = lan.hosts[0].peer(PUBLISHER)
    lost, other = lan.hosts[1].peer(ALL_PEERS), lan.hosts[2].peer(ALL_PEERS)
    wait_for_subscribers(publisher, 2)
    publisher.execute("many(0, 100)")
    assert wait_until_heard(lost, 100) == numbers(0, 100)
    lan.hosts[1].ip("link set eth0 down")
    assert ask(publisher, "many(100, 200)") < 0.5
    assert wait_until_heard(other, 200) == numbers(0, 200)
    # It takes nothing for ten seconds.
    wait_for_subscribers(publisher, 1, 20)
    until(lambda: "cut off the subscriber" in publisher.errors())
    publisher.execute("many(200, 300)")
    lan.hosts[1].ip("link set eth0 up")
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS['number'])") == 2, 60)
    publisher.execute("many(300, 400)")
    until(lambda: ask(lost, "heard[-1]") == 399)
    heard = ask(lost, "heard")
    # What was on its way when it was cut off may still have come.
    place = [type(value) for value in heard].index(tuple)
    gap = ("gap", "number", publisher.address[1], 300 - place)
    assert place >= 100
    assert heard == [*numbers(0, place), gap, *numbers(300, 400)]
    assert wait_until_heard(other, 400) == numbers(0, 400)


def test_a_cut_of_some_seconds_loses_nothing(lan):
    publisher, process = lan.hosts[0].peer(PUBLISHER), lan.hosts[1].peer(ALL_PEERS)
    wait_for_subscribers(publisher, 1)
    lan.hosts[1].ip("link set eth0 down")
    publisher.execute("many(0, 500)")
    time.sleep(3)
    lan.hosts[1].ip("link set eth0 up")
    assert wait_until_heard(process, 500, 20) == numbers(0, 500)


def test_a_silent_publisher_that_was_cut_off_is_subscribed_to_again(lan):
    publisher, process = lan.hosts[0].peer(PUBLISHER), lan.hosts[1].peer(ALL_PEERS)
    wait_for_subscribers(publisher, 1)
    lan.hosts[0].ip("link set eth0 down")
    # Without a byte to send, both sides notice by asking whether the other is there.
    until(lambda: not connected(process), 30)
    lan.hosts[0].ip("link set eth0 up")
    until(lambda: connected(process), 60)
    publisher.execute("many(0, 10)")
    assert wait_until_heard(process, 10)[-10:] == numbers(0, 10)


@pytest.mark.skipif(not which("nft"), reason="needs nft")
def test_only_the_publisher_has_to_be_reachable(lan):
    publisher = lan.hosts[0].peer(PUBLISHER)
    # As behind a NAT, or a firewall that lets out and not in.
    lan.hosts[1].run("nft", "-f", "-", text="""
        table ip nobody_gets_in {
            chain input {
                type filter hook input priority 0;
                iif != lo tcp flags & (syn | ack) == syn drop
            }
        }""")
    process = lan.hosts[1].peer(SUBSCRIBER.format(options=f"{publisher.id!r}, "))
    wait_for_subscribers(publisher, 1)
    publisher.execute("many(0, 100)")
    assert wait_until_heard(process, 100) == numbers(0, 100)


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.stress)])
def test_hosts_that_vanished_delay_no_other(lan, seconds):
    """One that is there again after a while is heard within seconds."""
    publisher, process = lan.hosts[0].peer(PUBLISHER), lan.hosts[1].peer(
        SUBSCRIBER.format(options="[*[f'10.77.5.{host}:3010' for host in range(100, 200)], "
                                  "'10.77.5.1:3010'], "))
    wait_for_subscribers(publisher, 1, 5.0)
    lan.hosts[0].ip("link set eth0 down")
    until(lambda: not connected(process), 30)
    time.sleep(seconds)
    lan.hosts[0].ip("link set eth0 up")
    began = time.monotonic()
    until(lambda: connected(process), 10)
    assert time.monotonic() - began < patience(5.0)
    publisher.execute("many(0, 10)")
    assert wait_until_heard(process, 10)[-10:] == numbers(0, 10)


def test_nobody_can_have_events_sent_to_another_host(lan):
    publisher = lan.hosts[0].peer(PUBLISHER)
    victim = lan.hosts[1].peer()
    printed = lan.hosts[2].python(f"""
import net
try:
    net.subscription_handler("number", {victim.id.decode()!r}, "dGFn", peer={publisher.id!r})
except net.RemoteError as problem:
    print(problem)
""")
    assert "a subscription for 10.77.5.2 came from 10.77.5.3" in printed
    assert ask(publisher, "net.Peer().SUBSCRIPTIONS") == {}
