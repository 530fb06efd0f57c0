"""Sites that are joined by routers alone: two networks, no way from one to the other but these."""
from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from typing import Iterator

import pytest

from routers import APPLICATION, SECRET, Router, meet, says
from times import patience
from virtual_lan import Host, VirtualLan, why_no_six

if importlib.util.find_spec("zenoh") is None:
    pytest.skip("eclipse-zenoh is not installed", allow_module_level=True)
pytest.importorskip("cryptography", reason="a secret needs it")

WEST, EAST, BETWEEN, SOUTH = "10.78.1", "10.78.2", "10.78.3", "10.78.4"


class Sites:
    """Two sites: a host in each, and between them a router in each or one for both.

    :ivar west: a host of one site; ``east``, one of the other.
    """

    def __init__(self, lan: VirtualLan, opened: ExitStack) -> None:
        self._lan = lan
        self._opened = opened
        self.west, self.east = self.host(WEST), self.host(EAST)

    def host(self, *networks: str) -> Host:
        made = self._lan.add_host()
        for number, network in enumerate(networks):
            made.join(network, f"eth{number}")
        return made

    def router(self, host: Host, *words: str) -> Router:
        made = Router("tls/0.0.0.0:7447", *words, prefix=host.prefix, NET_HOST=None)
        self._opened.callback(made.end)
        return made

    def peer(self, host: Host, router: str, **settings: object):
        return host.peer(APPLICATION, NET_ENGINE="zenoh", NET_SECRET=SECRET,
                         NET_ROUTER=f"tls/{router}:7447", **settings)


@pytest.fixture
def sites(build) -> Iterator[Sites]:
    with build(0) as lan, ExitStack() as opened:
        yield Sites(lan, opened)


def test_two_sites_meet_at_one_router(sites):
    between = sites.host(WEST, EAST)
    sites.router(between)
    other = sites.peer(sites.east, f"{EAST}.{between.number}", NET_GROUP="farm", NET_IS_HUB=1)
    process = sites.peer(sites.west, f"{WEST}.{between.number}")
    meet(process)
    assert says(process, "[peer.host for peer in net.peers('farm', hubs_only=True)] "
                         "== [peer.host]") == "True"
    assert says(process, "double(21, peer=peer)") == "42"
    assert says(process, "ran(fail, peer=peer)") == "('KeyError', 'lost')"
    assert says(process, "sum(count(1000, peer=peer))") == "499500"
    assert says(process, "each(lambda x: x + 1, iter([1, 2]), peer=peer)") == "[2, 3]"
    assert says(other, "net.connect('for others', groups=['studio'])(lambda: 1)()") == "1"
    assert says(process, "ran(net.remote('for others'), peer=peer)") \
        == "('AuthenticationError', 'no')"
    assert says(process, "subscribe(peer)") == "None"
    other.execute("for number in range(100): tick(number)")
    process.execute("until(lambda: len(heard) == 100)")
    assert says(process, "heard == list(range(100))") == "True"


def test_a_router_with_ipv6_alone_is_reached_by_its_name(build):
    """Of the peers, which are at ports of their own on one host, each finds the other by it."""
    reason = why_no_six()
    if reason:
        pytest.skip(reason)
    with build(2, four=False, six="fd77:5::") as lan, ExitStack() as opened:
        here, there = lan.hosts
        router = Router("tls/[::]:7447", prefix=there.prefix, NET_HOST=None)
        opened.callback(router.end)
        here.name("fd77:5::2 hub.example\n")
        other, process = (here.peer(
            APPLICATION, NET_ENGINE="zenoh", NET_SECRET=SECRET, NET_ROUTER="tls/hub.example:7447",
            NET_PORT_START=port, NET_PORT_RANGE=0) for port in (4010, 4020))
        router.wait_until("router at tls/[::]:7447: 2 processes")
        meet(process)
        assert says(process, "double(21, peer=peer)") == "42"


def test_sites_that_are_cut_off_from_each_other_and_joined_again(sites):
    west, east = sites.host(WEST, BETWEEN), sites.host(EAST, BETWEEN)
    sites.router(west)
    joined = sites.router(east, "--connect", f"tls/{BETWEEN}.{west.number}:7447")
    joined.wait_until("connected to 1 other router")
    other = sites.peer(sites.east, f"{EAST}.{east.number}")
    process = sites.peer(sites.west, f"{WEST}.{west.number}")
    # A neighbour on the same LAN, which is reached directly all the time.
    near = sites.peer(sites.host(WEST), f"{WEST}.{west.number}")
    process.execute(f"until(lambda: len(double.peers()) == 2, {patience(15)})")
    process.execute("peer, = [one for one in net.peers() if one.host.endswith('.zenoh')]")
    process.execute("near, = [one for one in net.peers() if not one.host.endswith('.zenoh')]")
    assert says(process, "near.host") == repr(near.address[0])
    process.execute("net.watch(lambda change, one: one == peer and news.append(change))")
    process.execute("until(lambda: news == ['came']); call = hold.start(peer=peer)")
    assert says(other, "until(lambda: held)") == "None"
    east.ip("link set eth1 down")  # the cable between the routers
    assert says(process, "ran(call.result)") == "('PeerLost', 'maybe')"
    process.execute("until(lambda: news == ['came', 'left'])")
    assert says(process, "ran(double, 1, peer=peer)") == "('PeerUnreachable', 'no')"
    assert says(process, "double(4, peer=near)") == "8"
    east.ip("link set eth1 up")
    process.execute("until(lambda: news == ['came', 'left', 'came'])")
    assert says(process, "double(3, peer=peer)") == "6"


def test_three_sites_with_a_router_each_are_one_network(sites):
    routers = {site: sites.host(site, BETWEEN) for site in (WEST, EAST, SOUTH)}
    hub = f"tls/{BETWEEN}.{routers[WEST].number}:7447"
    sites.router(routers[WEST])
    joined = {site: sites.router(routers[site], "--connect", hub) for site in (EAST, SOUTH)}
    for one in joined.values():
        one.wait_until("connected to 1 other router")
    hosts = {WEST: sites.west, EAST: sites.east, SOUTH: sites.host(SOUTH)}
    peers = {site: sites.peer(host, f"{site}.{routers[site].number}", NET_NAME=site)
             for site, host in hosts.items()}
    for one in peers.values():
        one.execute(f"until(lambda: len(double.peers()) == 2, {patience(15)})")
        assert says(one, "[double(number, peer=peer) for number, peer in enumerate(net.peers())]") \
            == "[0, 2]"
    # East and south, whose routers meet in the west only.
    peers[EAST].execute("south, = [one for one in net.peers() if one.info['label'] == %r]" % SOUTH)
    peers[EAST].execute("net.watch(lambda change, one: one == south and news.append(change))")
    assert says(peers[EAST], "until(lambda: news == ['came'])") == "None"
    assert says(peers[EAST], "subscribe(south)") == "None"
    peers[SOUTH].execute("for number in range(100): tick(number)")
    assert says(peers[EAST], "until(lambda: heard == list(range(100)))") == "None"
    # One site is cut off; the other two go on.
    routers[SOUTH].ip("link set eth1 down")
    assert says(peers[EAST], "until(lambda: news == ['came', 'left'])") == "None"
    assert says(peers[EAST], "[double(1, peer=peer) for peer in net.peers()]") == "[2]"
    routers[SOUTH].ip("link set eth1 up")
    assert says(peers[EAST], "until(lambda: news == ['came', 'left', 'came'])") == "None"
    assert says(peers[EAST], "double(3, peer=south)") == "6"
