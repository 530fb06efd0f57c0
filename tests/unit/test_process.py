"""Two processes in one: each has what there is once in a process for itself."""
from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, Iterator

import pytest

import net
from net import wiring
from net.discovery import cache_of
from net.events import Events
from net.events.handlers import Handler
from net.identity import encode_text
from net.peer import _Peer
from net.process import Process, process
from service import until

TAG = encode_text("app.who")


@pytest.fixture
def make(kept_settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], _Peer]]:
    """Makes a process and gives its peer, which serves. Ended with the test."""
    # Its loop ends as soon as it has looked at idle connections and found none.
    monkeypatch.setattr("net.run.client.LOOK_TIME", 0.02)
    with ExitStack() as stack:
        def make() -> _Peer:
            other = Process(kept_settings)
            wiring.join(other)
            of_other: Any = type("_Peer", (_Peer,), {"process": other, "CONNECTIONS": {}})
            peer: _Peer = of_other(launch=False, test=True)
            other.peer = peer
            peer.launch()
            stack.callback(other.client.close_idle)
            stack.callback(peer.close)
            return peer
        yield make


def address(peer: _Peer) -> Any:
    return peer.host, peer.port


def test_they_call_each_other_as_two_peers(make):
    peers = [make(), make()]
    for peer in peers:
        peer.CONNECTIONS[TAG] = lambda given, own=peer: (own.instance, net.caller().instance, given)
    one, two = peers
    assert one.process.client.call(address(two), TAG, (1,), {}) == (two.instance, one.instance, 1)
    assert two.process.client.call(address(one), TAG, (2,), {}) == (one.instance, two.instance, 2)
    assert len({one.instance, two.instance, process.instance}) == 3
    assert one not in process.peers and one.process.peers == [one]


def test_one_hears_the_events_of_the_other(make):
    one, two, heard = make(), make(), []
    handler = Handler("done", TAG, heard.append, {address(one)})
    subscriber = two.process.once(Events).subscriber
    subscriber.add(handler)
    one.process.once(Events).publisher.publish("done", (1,), {})
    until(lambda: heard == [1])
    subscriber.remove("done", heard.append)
    until(lambda: not subscriber._targets and not _Peer.SUBSCRIPTIONS)
    assert two.process.once(Events).publisher.stats()["events"] == {}


def test_what_one_knows_of_peers_is_not_what_the_other_does(make):
    one, two = make(), make()
    caches = [peer.process.once(cache_of) for peer in (one, two)]
    assert caches[0] is not caches[1] and caches[0] is one.process.once(cache_of)
    assert not {id(finder) for finder in caches[0].finders} & {
        id(finder) for finder in caches[1].finders}
