"""Where a process subscribes, when, and how often, with other peers that are made up."""
from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from net.errors import PeerBusy, PeerUnreachable, ProtocolError
from net.events import subscribing as module
from net.events.subscribing import FAILED, INFO, SUBSCRIBE, UNSUBSCRIBE, Handler, Subscriber
from net.identity import Flag, make_id
from net.context import Caller, Context, current, enter
from net.dispatch import INVALID_CONNECTION
from hearing import until

OWN_ID = make_id(3010, "127.0.0.1")
A, B = ("198.51.100.1", 3010), ("198.51.100.2", 3010)


def enter_call() -> Context:
    """Serve a call in this thread, as that of a connection does."""
    context = Context(Caller(None, None))
    enter(context)
    return context


@pytest.fixture(autouse=True)
def no_call() -> Iterator[None]:
    """Serve no call in this thread any more."""
    yield
    enter(None)


class Network:
    """Peers by address, and the calls that they got. A modern one delivers as soon as it is
    subscribed to, in a thread that stands for its connection."""

    def __init__(self) -> None:
        self.peers: Dict[Tuple[str, int], Dict[str, Any]] = {}
        self.calls: List[Any] = []
        self.subscriber = Subscriber(self.watch)
        self.watching: Optional[Callable[[str, Any], None]] = None
        self.problem: Optional[Exception] = None
        self.answer: Any = True
        self._ends: Dict[str, threading.Event] = {}

    def watch(self, callback: Callable[[str, Any], None]) -> Callable[[], None]:
        self.watching = callback
        return lambda: setattr(self, "watching", None)

    def call(self, address: Any, tag: bytes, args: Any, kwargs: Any, timeout: float) -> Any:
        if address not in self.peers:
            raise PeerUnreachable(address, "nobody there")
        if tag == INFO:
            return self.peers[address]
        if self.problem is not None:
            raise self.problem
        self.calls.append((address, {SUBSCRIBE: "subscribe", UNSUBSCRIBE: "unsubscribe",
                                     FAILED: "failed"}[tag], args))
        if tag == SUBSCRIBE and self.answer is True:
            self._deliver(address, args)
        return self.answer

    def _deliver(self, address: Any, args: Any) -> None:
        instance = self.peers[address].get("instance")
        if instance is None or instance in self._ends:
            return
        begun, self._ends[instance] = threading.Event(), threading.Event()

        def connection(end: threading.Event = self._ends[instance]) -> None:
            serving = enter_call()
            self.subscriber.deliver(instance, 0, args[0], 0, None, args[2])
            begun.set()
            end.wait(10)
            serving.cancel()

        threading.Thread(target=connection).start()
        assert begun.wait(5)

    def cut(self, instance: str) -> None:
        """End the connection of a publisher."""
        self._ends.pop(instance).set()

    def close(self) -> None:
        for handler in list(self.subscriber._handlers.values()):
            self.subscriber.remove(handler.pair[0], handler.function)
        self.subscriber.pause()
        for instance in list(self._ends):
            self.cut(instance)
        until(lambda: not self.subscriber._schedule._threads)

    def whom(self, what: str) -> List[Any]:
        return [address for address, kind, _ in list(self.calls) if kind == what]


@pytest.fixture
def network(monkeypatch) -> Iterator[Network]:
    made = Network()
    monkeypatch.setattr(module.process.client, "call", made.call)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    made.subscriber.serve(OWN_ID)
    yield made
    made.close()


def hear(*args: Any) -> None:
    pass


def handler(*addresses: Any, event: str = "done", **options: Any) -> Handler:
    return Handler(event, b"dGFn", hear, set(addresses) if addresses else None, **options)


def modern(instance: str, **facts: Any) -> Dict[str, Any]:
    return {"instance": instance, "group": None, "hub": False, **facts}


def test_named_peers_are_subscribed_to_before_it_returns(network):
    network.peers = {A: modern("a"), B: modern("b")}
    network.subscriber.add(handler(A, B))
    assert sorted(network.whom("subscribe")) == [A, B]
    assert network.calls[0][2] == ("done", OWN_ID.decode(), "dGFn")


def test_one_that_is_not_there_is_tried_until_it_is(network, caplog):
    network.subscriber.add(handler(A))
    assert network.whom("subscribe") == []
    network.peers[A] = modern("a")
    until(lambda: network.whom("subscribe") == [A])
    assert caplog.text.count("cannot subscribe at 198.51.100.1:3010") == 1


def test_it_is_tried_less_and_less_often(network, monkeypatch):
    delays: List[float] = []
    monkeypatch.setattr(module, "jitter", lambda seconds: delays.append(seconds) or 0.0)
    network.subscriber.add(handler(A))
    until(lambda: len(delays) > 20)
    assert delays[:4] == [0.02, 0.04, 0.08, 0.16]
    assert max(delays) == module.LAST_RETRY
    network.peers[A] = modern("a")
    until(lambda: network.whom("subscribe"))


def test_a_found_peer_that_stays_away_is_given_up_until_it_is_found_again(network, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP", 0.0)
    network.subscriber.add(handler())
    peer = make_id(A[1], A[0])
    network.watching("came", peer)
    until(lambda: not network.subscriber._schedule._threads)
    network.peers[A] = modern("a")
    network.watching("came", peer)
    until(lambda: network.whom("subscribe") == [A])


def test_a_lost_connection_is_made_again(network):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    network.cut("a")
    until(lambda: network.whom("subscribe") == [A, A])


def test_a_peer_with_two_addresses_is_subscribed_to_once(network):
    network.peers = {A: modern("same"), B: modern("same")}
    network.subscriber.add(handler(A, B))
    assert len(network.whom("subscribe")) == 1


def test_only_new_handlers_are_subscribed(network):
    network.peers = {A: modern("a")}
    for event in ("one", "two", "three"):
        network.subscriber.add(handler(A, event=event))
    assert [args[0] for _, _, args in network.calls] == ["one", "two", "three"]


def test_groups_and_hubs_are_chosen_by_what_peers_say(network):
    network.peers = {A: modern("a", group="blue", hub=True), B: modern("b", group="red")}
    network.subscriber.add(handler(A, B, groups={"red"}))
    assert network.whom("subscribe") == [B]
    network.subscriber.add(handler(A, B, event="hub", hubs_only=True))
    assert network.whom("subscribe") == [B, A]
    network.subscriber.add(handler(A, B, event="host", on_host=True))
    assert network.whom("subscribe") == [B, A]


def test_a_refusal_is_tried_again(network):
    network.peers = {A: modern("a")}
    network.problem = PeerBusy(A, "too many subscriptions")
    network.subscriber.add(handler(A))
    network.problem = None
    until(lambda: network.whom("subscribe") == [A])


def test_a_peer_without_events_is_tried_again(network):
    network.peers = {A: {}}
    network.answer = Flag(INVALID_CONNECTION)
    network.subscriber.add(handler(A))
    count = len(network.calls)
    until(lambda: len(network.calls) > count)


def test_an_old_peer_is_subscribed_to_once_and_looked_at(network, monkeypatch):
    monkeypatch.setattr(module, "OLD_LOOK", 0.01)
    network.peers = {A: {"group": None}}
    network.subscriber.add(handler(A))
    looked = []
    monkeypatch.setattr(network, "peers", LoggedPeers(network.peers, looked))
    until(lambda: len(looked) > 5)
    assert network.whom("subscribe") == [A]
    facts = network.peers.pop(A)
    until(lambda: network.subscriber._links[A].failures)
    network.peers[A] = facts
    until(lambda: network.whom("subscribe") == [A, A])


class LoggedPeers(Dict[Any, Any]):
    def __init__(self, peers: Any, looked: List[Any]) -> None:
        super().__init__(peers)
        self._looked = looked

    def __getitem__(self, address: Any) -> Any:
        self._looked.append(address)
        return super().__getitem__(address)


def test_unsubscribing_tells_the_publisher(network):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    assert network.subscriber.remove("done", hear)
    until(lambda: network.whom("unsubscribe") == [A])
    assert not network.subscriber.remove("done", hear)


def test_nobody_is_watched_for_handlers_of_named_peers(network):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    assert network.watching is None
    network.subscriber.add(handler(event="all"))
    assert network.watching is not None
    network.subscriber.remove("all", hear)
    assert network.watching is None


def test_nothing_is_asked_of_anyone_while_this_process_serves_no_peer(network):
    network.subscriber.pause()
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    network.subscriber.add(handler(event="all"))
    assert network.calls == [] and network.watching is None
    network.subscriber.serve(OWN_ID)
    until(lambda: network.whom("subscribe") == [A])
    assert network.watching is not None


def test_a_second_connection_takes_the_place_of_the_first(network):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    serving = enter_call()
    network.subscriber.deliver("a", 0, "done", 0, None, "dGFn")
    source = network.subscriber._sources["a"]
    taken_over = source.delivery
    network.cut("a")  # the end of the first one means nothing now
    assert source.delivery is taken_over
    serving.cancel()
    assert source.delivery is None
    until(lambda: network.whom("subscribe")[1:])


def test_deliveries_over_an_earlier_connection_are_refused(network):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    outcomes: List[Any] = []

    def deliver() -> None:
        if current() is None:
            enter_call()
        try:
            network.subscriber.deliver("a", 0, "done", 0, None, "dGFn")
            outcomes.append(current().cancel)
        except ConnectionError as problem:
            outcomes.append(problem)

    deliver()
    later = threading.Thread(target=deliver)
    later.start()
    later.join(5)
    deliver()
    assert isinstance(outcomes[2], ConnectionError)
    outcomes[1]()


@pytest.mark.parametrize("size", [-1, True, None, "x", 1.5])
def test_a_delivery_says_its_size(network, size):
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    with pytest.raises(ProtocolError, match="number of bytes"):
        network.subscriber.deliver("a", size)


def test_an_error_of_ours_is_logged_and_the_peer_tried_again(network, caplog):
    network.peers = {A: modern("a")}
    network.problem = RuntimeError("ours")
    network.subscriber.add(handler(A))
    assert "subscribing at 198.51.100.1:3010 failed" in caplog.text
    network.problem = None
    until(lambda: network.whom("subscribe"))


def test_a_peer_that_says_yes_and_never_connects_is_asked_again(network, caplog):
    network.peers = {A: modern("a")}
    network.answer = "yes, but no connection comes"
    caplog.set_level(logging.INFO)
    network.subscriber.add(handler(A))
    until(lambda: "the connection that it made to this peer ended" in caplog.text)
    network.answer = True
    until(lambda: network.subscriber._sources["a"].delivery is not None)


def test_an_error_that_cannot_be_shown_is_told_by_its_class(network, monkeypatch):
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    monkeypatch.setattr(module, "TELL_TIME", 0.0)
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    source = network.subscriber._sources["a"]
    network.subscriber._on_failure(source, ("done", b"dGFn"), Silent())
    until(lambda: [args[1] for _, what, args in network.calls if what == "failed"]
          == [[["done", "dGFn", "Silent"]]])


def test_failures_are_told_together_and_not_too_often(network, monkeypatch):
    monkeypatch.setattr(module, "TELL_TIME", 0.2)
    monkeypatch.setattr(module, "MAX_FAILURES", 10)
    network.peers = {A: modern("a")}
    network.subscriber.add(handler(A))
    source = network.subscriber._sources["a"]
    for number in range(50):
        network.subscriber._on_failure(source, ("done", b"dGFn"), ValueError(number))
    until(lambda: sum(len(args[1]) + args[2] for _, what, args in network.calls
                      if what == "failed") == 50)
    told = [args for _, what, args in network.calls if what == "failed"]
    assert len(told) <= 3
    assert told[0][1][0] == ["done", "dGFn", "ValueError: 0"]
