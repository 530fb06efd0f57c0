"""The contract of a finder, run against each of them: peers that are found, come, change and go."""
from __future__ import annotations

import importlib.util
from typing import Any, Callable, Dict, Iterator, NamedTuple

import pytest

from routers import APPLICATION, SECRET, Router, says
from times import patience


class Site(NamedTuple):
    """A process that searches, and a way to start peers that it finds by one finder alone.

    :ivar host: how the host of such a peer begins or ends.
    """

    searcher: Any
    start: Callable[..., Any]
    host: str


def lan(peer_process: Any, ports: range, _more: Any) -> Site:
    def start(**settings: object) -> Any:
        return peer_process(APPLICATION, NET_PORT_START=ports.start, NET_PORT_RANGE=1, **settings)
    return Site(start(), start, "127.0.0.1")


def static(peer_process: Any, ports: range, _more: Any) -> Site:
    # Neither searches a port of the other's.
    def start(**settings: object) -> Any:
        return peer_process(APPLICATION, NET_PORT_START=ports[1], NET_PORT_RANGE=0, **settings)
    searcher = peer_process(APPLICATION, NET_PORT_START=ports[0], NET_PORT_RANGE=0,
                            NET_PEERS=f"127.0.0.1:{ports[1]}")
    return Site(searcher, start, "127.0.0.1")


def engine(peer_process: Any, ports: range, more: Dict[str, object]) -> Site:
    def start(number: int = 1, **settings: object) -> Any:
        return peer_process(APPLICATION, NET_PORT_START=ports[number], NET_PORT_RANGE=0,
                            **more, **settings)
    return Site(start(0), start, ".zenoh")


def until(site: Site, fact: str) -> None:
    """Wait for a fact in the process that searches."""
    assert says(site.searcher, f"until(lambda: {fact})") == "None"


@pytest.fixture(params=[lan, static, engine], ids=lambda made: made.__name__)
def site(request, peer_process, port_range) -> Iterator[Site]:
    if request.param is not engine:
        yield request.param(peer_process, port_range, {})
        return
    if importlib.util.find_spec("zenoh") is None:
        pytest.skip("eclipse-zenoh is not installed")
    pytest.importorskip("cryptography", reason="a secret needs it")
    router = Router(f"tls/127.0.0.1:{port_range[-1]}")
    try:
        yield engine(peer_process, port_range, {
            "NET_ENGINE": "zenoh", "NET_ROUTER": router.place, "NET_SECRET": SECRET})
    finally:
        router.end()


def test_a_search_finds_all_that_are_there_with_what_they_say_and_not_itself(site):
    searcher = site.searcher
    assert says(searcher, "len(net.peers())") == "0"
    other = site.start(NET_GROUP="farm", NET_IS_HUB=1, NET_NAME="seven")
    until(site, "net.peers(refresh=True)")
    searcher.execute("peer, = net.peers()")
    assert site.host in says(searcher, "peer.address[0]")
    assert says(searcher, "peer.group, peer.hub, peer.info['label'], peer.info['instance']") \
        == f"('farm', True, 'seven', {says(other, 'net.Peer().instance')})"
    assert says(searcher, "net.peers('farm', hubs_only=True) == (peer,), net.peers('x') == ()") \
        == "(True, True)"
    assert says(searcher, "double(21, peer=peer)") == "42"
    # What it says about itself changes.
    before = says(searcher, "peer.info['digest']")
    other.execute("fresh = net.connect('fresh')(lambda: 5)")
    until(site, f"[one.info['digest'] for one in net.peers(refresh=True)] not in ([], [{before}])")
    assert says(searcher, "net.remote('fresh')(peer=peer)") == "5"
    assert other.close(patience(5)) == 0
    until(site, "not net.peers(refresh=True)")


def test_a_watch_is_told_who_comes_and_who_goes_once_each(site):
    searcher = site.searcher
    searcher.execute("net.watch(lambda *change: news.append(change[0]))")
    other = site.start()
    until(site, "news == ['came']")
    assert other.close(patience(5)) == 0
    until(site, "news == ['came', 'left']")
    other = site.start()
    until(site, "news == ['came', 'left', 'came']")
    searcher.execute("peer, = net.peers()")
    other.kill()
    # Whether a call or the finder notices first.
    assert says(searcher, "ran(double, 1, peer=peer)") == "('PeerUnreachable', 'no')"
    until(site, "news == ['came', 'left', 'came', 'left']")
    assert says(searcher, "net.peers(refresh=True) == ()") == "True"
