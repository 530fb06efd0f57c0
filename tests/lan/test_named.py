"""Hosts of NET_PEERS: many of them, by name, and behind a NAT."""
from __future__ import annotations

from typing import Any, Iterator

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until
from virtual_lan import Host, find


@pytest.fixture(scope="module")
def routed(build: Any) -> Iterator[tuple[Host, Host, Host]]:
    """A client, a router, and beyond it a host with six peers."""
    with build(2) as lan:
        client, router = lan.hosts
        far = lan.add_host()
        router.join("10.88.0", "eth1")
        far.join("10.88.0", "eth0")
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        client.ip("route add default via 10.77.5.2")
        far.ip("route add default via 10.88.0.2")
        # One address for each peer; what is sent to the others is dropped there.
        router.ip("route add 10.99.0.0/16 via 10.88.0.3")
        far.ip(*(f"addr add 10.99.{number}.9/32 dev lo" for number in range(6)))
        lan.peers(*[far] * 6)
        yield client, router, far


def entries(silent: int, port: str = "") -> str:
    """The six live ones, spread among a number of silent ones."""
    found = [f"10.99.{6 + number // 200}.{number % 200 + 1}{port}" for number in range(silent)]
    for number in range(6):
        found.insert((number + 1) * silent // 7, f"10.99.{number}.9:{3010 + number}")
    return ",".join(found)


# As many files as most systems let a process open; some let it open a million.
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


@pytest.mark.parametrize("port", [":3010", ""])
def test_all_that_live_are_found_among_a_thousand_that_are_silent(routed, search, port):
    client, *_ = routed
    result = search(client, before=FEW_FILES, NET_PEERS=entries(994, port), NET_SWEEP=0)
    assert result["peers"] == [f"10.99.{number}.9:{3010 + number}" for number in range(6)]
    assert set(result["how"]) == {"NET_PEERS"}
    # Every host was asked at one port at least.
    assert any("not asked in time" in note for note in result["notes"]) is (port == "")


# Port 4000 of the router is the peer of the inner host, also for the inner hosts themselves.
NAT = """
table ip nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        ip daddr 10.77.5.2 tcp dport 4000 dnat to 10.88.0.3:3010
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        masquerade
    }
}
"""
BOTH = PUBLISHER + SUBSCRIBER.format(options="")


@pytest.fixture(scope="module")
def hidden(build: Any) -> Iterator[tuple[Any, Host, Host]]:
    """A LAN whose second host is the router of a network behind it, with two hosts in that."""
    if find("nft") is None:
        pytest.skip("needs nft")
    with build(2) as lan:
        _, router = lan.hosts
        inner, sibling = lan.add_host(), lan.add_host()
        router.join("10.88.0", "eth1")
        for host in (inner, sibling):
            host.join("10.88.0", "eth0")
            host.ip("route add default via 10.88.0.2")
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        router.run("nft", "-f", "-", text=NAT)
        yield lan, inner, sibling


@pytest.fixture
def start() -> Iterator[Any]:
    """Start a peer on a host, which ends with the test."""
    started = []

    def launch(host: Host, **settings: Any) -> Any:
        started.append(host.peer(BOTH, **settings))
        return started[-1]

    yield launch
    for one in started:
        one.stop()


def test_a_peer_behind_a_nat_is_reached_where_it_says(hidden, search, start):
    lan, inner, sibling = hidden
    outside = start(lan.hosts[0], NET_PEERS="10.77.5.2:4000")
    behind = start(inner, NET_PEERS="10.77.5.1,10.77.5.2:4000", NET_ADVERTISE="10.77.5.2:4000")
    listed = "[(str(peer), peer.info['host'], peer.info['port']) for peer in net.peers()]"
    place = ("10.77.5.2:4000", "10.77.5.2", 4000)
    until(lambda: ask(outside, listed) == [place])
    # It does not list itself, though it is asked at its outer address.
    until(lambda: [one[0] for one in ask(behind, listed)] == ["10.77.5.1:3010"])
    assert ask(outside, "bytes(net.peers()[0])") == ask(behind, "bytes(net.Peer().id)")
    # Calls and events, of its own as well, in both directions.
    assert ask(outside, "net.info(peer=net.peers()[0])['pid']") == behind.pid
    assert ask(behind, "net.info(peer=net.peers()[0])['pid']") == outside.pid
    for one, first in ((outside, 0), (behind, 100)):
        def hears(first=first, one=one):
            one.execute(f"many({first}, {first + 1})")
            return all([ask(each, f"{first} in heard") for each in (outside, behind)])
        until(hears)
    # A process that reaches it both ways lists it once, at the address that it names.
    both = search(sibling, NET_PEERS="10.77.5.2:4000")["peers"]
    assert both == ["10.77.5.2:4000"]
    assert search(sibling)["peers"] == ["10.88.0.3:3010"]


def test_the_doctor_knows_that_others_know_this_host_by_another_address_and_cannot_call_it(
        hidden, start):
    lan, inner, _ = hidden
    start(lan.hosts[0])
    start(inner)
    told = " ".join(inner.python("from net.cli import main; main(['doctor'])",
                                 NET_PEERS="10.77.5.1:3010").split())
    assert "10.77.5.1:3010 sees it as 10.77.5.2, and cannot connect to port 3010" in told
    assert "other peers see this host as 10.77.5.2, which is none of its addresses" in told
    assert "1 of 1 peers that were asked cannot connect to a peer of this host" in told


def test_under_a_secret_a_call_runs_only_where_it_was_meant_to(hidden, start):
    """What leads connections elsewhere is a NAT here, and could be anybody."""
    pytest.importorskip("cryptography", reason="a secret needs it")
    lan, inner, _ = hidden
    secret = {"NET_SECRET": "correct horse battery"}
    outside = start(lan.hosts[0], **secret)
    behind = start(inner, **secret)
    call = "net.info(peer=('10.77.5.2', 4000))['pid']"
    outside.execute(f"""
try:
    {call}
except net.NetError as problem:
    kind, ran, text = type(problem).__name__, problem.ran, str(problem)
""")
    assert ask(outside, "(kind, ran)") == ("AuthenticationError", "no")
    assert "set NET_ADVERTISE=10.77.5.2:4000 at this peer" in ask(outside, "text")
    behind.stop()
    behind = start(inner, NET_ADVERTISE="10.77.5.2:4000", **secret)
    assert ask(outside, call) == behind.pid
