"""Which peers have a function: who is asked for it, how often, and what is believed."""
from __future__ import annotations

import threading
from typing import Any

import pytest

from net.discovery import functions
from net.discovery.functions import CONNECTIONS, FIRST_WAIT, INFO, MAX_WAIT, FunctionCache
from net.discovery.listing import Peers
from net.errors import PeerUnreachable
from net.identity import functions_digest, make_id


class Network:
    """Peers that have functions, and count how often they are asked."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 100.0
        monkeypatch.setattr(functions, "monotonic", lambda: self.now)
        self.has: dict[str, Any] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.cache = FunctionCache(self.ask)

    def add(self, number: int, *names: str, **info: Any) -> Any:
        peer = make_id(3010, f"192.0.2.{number}")
        peer.info.update({"instance": f"{number:032}", "digest": functions_digest(names), **info})
        self.has[peer.host] = list(names)
        return peer

    def ask(self, peer: Any, tag: bytes) -> Any:
        self.asked.append((peer.host[-1], tag))
        names = self.has[peer.host]
        if not isinstance(names, list):
            if isinstance(names, Exception):
                raise names
            return names
        if tag == CONNECTIONS:
            return {name: "(a)" for name in ["net.defaults.handlers.info", *names]}
        return {"digest": functions_digest(names), "functions": names[:10],
                **({"more_functions": len(names) - 10} if len(names) > 10 else {})}

    def having(self, name: str, *peers: Any) -> str:
        return "".join(peer.host[-1] for peer in self.cache.having(Peers(peers), name))


@pytest.fixture
def network(monkeypatch):
    return Network(monkeypatch)


def test_one_peer_of_each_application_is_asked(network):
    peers = [network.add(1, "app.f", "app.g"), network.add(2, "app.f", "app.g"),
             network.add(3, "other.f"), network.add(4, "app.f", "app.g")]
    assert network.having("app.f", *peers) == "124"
    assert sorted(network.asked) == [("3", INFO), ("4", INFO)]
    assert network.having("app.g", *peers) == "124" and len(network.asked) == 2
    assert network.having("other.f", *peers) == "3"


def test_peers_with_the_functions_of_this_process_are_not_asked(network, monkeypatch):
    monkeypatch.setattr(functions, "function_names", lambda: ["app.f", "app.g"])
    peers = [network.add(number, "app.f", "app.g") for number in (1, 2)]
    assert network.having("app.f", *peers) == "12"
    assert network.asked == []


def test_a_peer_that_registers_more_functions_later_is_found_after_a_second(network):
    peer = network.add(1, "app.f")
    assert network.having("app.g", peer) == ""
    network.has[peer.host] = ["app.f", "app.g"]
    assert network.having("app.g", peer) == "" and len(network.asked) == 1
    network.now += FIRST_WAIT
    assert network.having("app.g", peer) == "1"
    assert network.having("app.f", peer) == "1" and len(network.asked) == 2


def test_a_list_that_has_not_changed_is_read_once_while_nobody_can_be_asked_again(
        network, monkeypatch):
    read: list[str] = []
    count = functions._listed
    monkeypatch.setattr(functions, "_listed", lambda peer: read.append(peer.host) or count(peer))
    old = make_id(3010, "192.0.2.9")
    found = Peers([network.add(1, "app.f"), network.add(2, "app.g"), old])
    for _ in range(2):
        first = network.cache.having(found, "app.f")
    del read[:]
    assert network.cache.having(found, "app.f") is first and not read
    network.has[found[1].host] = ["app.f"]
    network.now += FIRST_WAIT
    assert len(network.cache.having(found, "app.f")) == 2
    assert len(network.cache.having(Peers(found[:1]), "app.f")) == 1


def test_a_listing_that_says_otherwise_is_followed_at_once(network):
    peer = network.add(1, "app.f")
    assert network.having("app.g", peer) == ""
    assert network.having("app.g", network.add(1, "app.g")) == "1"


def test_a_peer_without_the_function_is_asked_less_and_less(network):
    peer = network.add(1, "other.f")
    for _ in range(300):
        assert network.having("app.f", peer) == ""
        network.now += 1.0
    asked = len(network.asked)
    assert 5 <= asked <= 10 + 300 / MAX_WAIT
    network.now += MAX_WAIT
    assert network.having("app.f", peer) == "" and len(network.asked) == asked + 1


def test_more_functions_than_info_lists_are_asked_for(network):
    names = [f"app.f{number:02}" for number in range(20)]
    peers = [network.add(1, *names), network.add(2, *names)]
    assert network.having("app.f19", *peers) == "12"
    assert [tag for _, tag in network.asked] == [INFO, CONNECTIONS]


def test_what_a_peer_says_falsely_counts_for_itself_alone(network):
    liar, honest = network.add(2, "app.f"), network.add(1, "app.f")
    network.has[liar.host] = {"digest": functions_digest(["app.f"]), "functions": ["bait.f"]}
    assert network.having("app.f", honest, liar) == "1"
    assert network.having("bait.f", honest, liar) == "2"


@pytest.mark.parametrize("said", [
    PeerUnreachable(("192.0.2.1", 3010), "refused"), {}, {"functions": 5}, {"functions": [5]},
    {"functions": ["x" * 200_000]}, {"digest": [], "functions": ["app.f", None]},
    {"functions": ["app.f"], "more_functions": -1, "digest": {}},
], ids=lambda said: repr(said)[:40])
def test_a_peer_that_makes_no_sense_has_nothing_and_hurts_nobody(network, said):
    strange, honest = network.add(2, "strange.f", digest=[1]), network.add(1, "app.f")
    network.has[strange.host] = said
    assert network.having("app.f", honest, strange) == "1"
    assert network.having("app.f", honest, strange) == "1"


def test_peers_that_do_not_tell_are_left_out(network):
    old = network.add(1, "app.f")
    del old.info["digest"]
    assert network.having("app.f", old) == "" and network.asked == []


def test_peers_that_do_not_answer_hold_up_the_others_of_their_host_at_most(network):
    silent = [network.add(1, f"app.f{number}", instance=f"{number:032}") for number in range(100)]
    honest = network.add(2, "other.f")
    answers, lock = network.cache._ask, threading.Lock()

    def ask(peer: Any, tag: bytes) -> Any:
        if peer is honest:
            return answers(peer, tag)
        with lock:
            network.asked.append(("1", tag))
            network.now += 1.0
        raise PeerUnreachable(peer.address, "no answer within 1 s")

    network.cache._ask = ask
    assert network.having("other.f", *silent, honest) == "2"
    # Each thread may have been about to ask one more when the time was over.
    assert len(network.asked) <= functions.TOTAL_SECONDS + functions.MAX_THREADS + 1
    before = len(network.asked)
    assert network.having("other.f", *silent, honest) == "2"
    assert len(network.asked) > before  # the others come next


def test_what_every_peer_has_is_not_asked_for(network):
    assert network.having("net.defaults.handlers.info", network.add(1), network.add(2)) == "12"
    assert network.asked == []


def test_many_are_asked_at_the_same_time_and_what_is_remembered_is_bounded(network, monkeypatch):
    monkeypatch.setattr(functions, "MAX_SETS", 20)
    monkeypatch.setattr(functions, "MAX_LOOKS", 20)
    peers = [network.add(number, f"app{number}.f") for number in range(100)]
    assert network.having("app7.f", *peers[:15]) == "7"
    assert network.having("none.f", *peers) == ""
    assert len(network.cache._sets) <= 21 and len(network.cache._looks) <= 20


@pytest.mark.parametrize("answer, facts", [({"app.f": 1}, {"app.f": 1}), (None, {}), (["x"], {})])
def test_a_peer_is_asked_by_a_call_of_this_process(monkeypatch, answer, facts):
    asked = []

    def call(*given: Any) -> Any:
        asked.append(given)
        return answer

    monkeypatch.setattr(functions.process.client, "call", call)
    peer = make_id(3010, "192.0.2.1")
    assert functions._call(functions.process, peer, functions.CONNECTIONS) == facts
    assert asked == [(peer, functions.CONNECTIONS, (), {}, functions.ASK_SECONDS)]
