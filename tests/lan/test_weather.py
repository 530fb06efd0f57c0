"""Networks that lose, delay, double and reorder what they carry."""
from __future__ import annotations

import time
from typing import Any, Iterator

import pytest

from forwarder import CALM, Weather
from hearing import ask, until
from virtual_lan import VirtualLan, hosts_in_turn, why_no_six, why_no_weather

# Packets are lost or come late at random: now and then more of them than any number of attempts
# bears.
RANDOM = pytest.mark.flaky(reruns=1)

PEERS = 20

#: What has the figures of each, python3 -m benchmarks.networks, tells how long it takes.
WEATHERS = {
    "calm": CALM,
    "5 % lost": Weather(loss=0.05),
    "20 % lost": Weather(loss=0.2),
    "round trip 200 ms": Weather(delay=0.1),
    "round trip 400 ms": Weather(delay=0.2),
    "round trip 600 ms": Weather(delay=0.3),
    "jitter": Weather(jitter=0.1),
    "20 % lost, round trip 100 ms": Weather(loss=0.2, delay=0.05),
    "doubled and overtaken": Weather(jitter=0.02, twice=0.5),
}


def weathers(*names: str) -> list[Any]:
    """Some kinds of weather, for a test to run in each."""
    return [pytest.param(WEATHERS[name], id=name, marks=() if name == "calm" else RANDOM)
            for name in names]


WATCHER = """
import time
import net
told = []
net.watch(lambda change, peer: told.append((change, str(peer.host), time.monotonic())))
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_weather() -> None:
    reason = why_no_weather()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def twenty(build: Any) -> Iterator[VirtualLan]:
    """Twenty peers on ten hosts, and a host without one."""
    with build(11, weather=True) as lan:
        lan.peers(*hosts_in_turn(lan.hosts[1:], PEERS))
        yield lan


@pytest.fixture(scope="module")
def twenty_six(build: Any) -> Iterator[VirtualLan]:
    """The same where there is nothing but IPv6."""
    reason = why_no_six()
    if reason:
        pytest.skip(reason)
    with build(11, weather=True, four=False, six="fd77:5::") as lan:
        lan.peers(*hosts_in_turn(lan.hosts[1:], PEERS))
        yield lan


@pytest.fixture
def watched(build: Any) -> Iterator[tuple[VirtualLan, list[Any]]]:
    """Six watchers that know each other."""
    with build(6, weather=True) as lan:
        watchers = lan.peers(*lan.hosts, script=WATCHER)
        for watcher in watchers:
            until(lambda: ask(watcher, "len(net.peers())") == 5)
        yield lan, watchers


@pytest.mark.parametrize("weather", weathers(*WEATHERS))
def test_all_are_found_whatever_the_network_does(twenty, search, weather):
    twenty.weather(weather)
    twenty.hosts[0].forget_neighbours()
    assert len(search(twenty.hosts[0])["peers"]) == PEERS


@RANDOM
def test_the_doctor_names_a_network_that_loses_frames(twenty):
    twenty.weather(WEATHERS["20 % lost"])
    told = twenty.hosts[0].python("from net.cli import main; main(['doctor'])")
    assert "the network loses what it carries" in told


@pytest.mark.parametrize("weather", weathers("calm", "5 % lost", "20 % lost", "round trip 400 ms"))
def test_all_are_found_by_ipv6_whatever_the_network_does(twenty_six, search, weather):
    twenty_six.weather(weather)
    twenty_six.hosts[0].forget_neighbours()
    # By the unique local address, or where its answer was lost, by the link-local one.
    assert len(search(twenty_six.hosts[0])["peers"]) == PEERS


@pytest.mark.stress
@pytest.mark.parametrize("weather", weathers(*WEATHERS))
def test_all_are_found_each_time(twenty, search, weather):
    twenty.weather(weather)
    for _ in range(10):
        twenty.hosts[0].forget_neighbours()
        assert len(search(twenty.hosts[0])["peers"]) == PEERS


def lists(process: Any) -> set[str]:
    return set(ask(process, "[peer.host for peer in net.peers()]"))


@RANDOM
def test_where_frames_are_lost_no_living_peer_is_reported_as_left_and_a_killed_one_is(watched):
    lan, watchers = watched
    lan.weather(Weather(loss=0.05))
    time.sleep(8)  # in which each asks and is asked some dozens of times
    for watcher in watchers:
        assert not ask(watcher, "[one for one in told if one[0] == 'left']")
    watchers[2].kill()
    others = [one for one in watchers if one is not watchers[2]]
    for watcher in others:
        left = until(lambda: ask(watcher, "[one[1] for one in told if one[0] == 'left']"))
        assert left == [lan.hosts[2].address] and lan.hosts[2].address not in lists(watcher)


@RANDOM
@pytest.mark.stress
@pytest.mark.parametrize("weather", [Weather(loss=0.05), Weather(loss=0.2),
                                     Weather(0.05, 0.05, 0.1, 0.1)])
def test_no_living_peer_is_reported_as_left_for_minutes(watched, weather):
    lan, watchers = watched
    lan.weather(weather)
    time.sleep(120)
    for watcher in watchers:
        assert not ask(watcher, "[one for one in told if one[0] == 'left']")
        assert len(lists(watcher)) == 5
