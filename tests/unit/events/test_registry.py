"""Who hears which event, within which limits."""
from __future__ import annotations

from typing import Any, Dict, List

import pytest

from net.errors import PeerBusy
from net.events import registry as module
from net.events.feeds import Feed
from net.events.registry import Registry
from net.identity import make_id

PAIR = ("done", b"dGFn")


@pytest.fixture
def shown() -> Dict[str, Any]:
    return {}


@pytest.fixture
def registry(shown) -> Registry:
    return Registry(shown)


def feed(registry: Registry, port: int = 3010, source: str = "") -> Feed:
    made = Feed(make_id(port, "198.51.100.7"), source)
    registry.add(made, ("198.51.100.7", 40_000 + port))
    return made


def test_subscribers_are_shown_and_hear(registry, shown):
    one, other = feed(registry), feed(registry, 3011)
    assert not registry.is_heard("done")
    registry.subscribe(one, PAIR)
    registry.subscribe(one, ("done", b"bW9yZQ=="))
    registry.subscribe(other, PAIR)
    assert registry.is_heard("done") and registry.hearers("done") == [one, other]
    assert shown == {"done": {one.subscriber: [b"dGFn", b"bW9yZQ=="], other.subscriber: [b"dGFn"]}}
    registry.unsubscribe(one, PAIR)
    assert registry.hearers("done") == [one, other]
    registry.remove(one)
    assert registry.hearers("done") == [other] and list(shown["done"]) == [other.subscriber]
    registry.unsubscribe(other, PAIR)
    assert not registry.is_heard("done") and shown == {} and registry.hearers("done") == []
    assert registry.remove(other) and not registry.remove(other)


def test_a_subscription_made_twice_counts_once(registry, shown):
    one = feed(registry)
    registry.subscribe(one, PAIR)
    registry.subscribe(one, PAIR)
    assert shown == {"done": {one.subscriber: [b"dGFn"]}}
    registry.unsubscribe(one, PAIR)
    registry.unsubscribe(one, PAIR)
    assert shown == {}


def test_two_connections_of_one_name_do_not_end_each_other(registry, shown):
    honest, stranger = feed(registry), Feed(make_id(3010, "198.51.100.7"))
    registry.add(stranger, ("198.51.100.7", 5))
    registry.subscribe(honest, PAIR)
    registry.subscribe(stranger, PAIR)
    registry.remove(stranger)
    assert registry.hearers("done") == [honest]
    assert shown == {"done": {honest.subscriber: [b"dGFn"]}}


def test_what_an_application_does_to_the_registry_harms_nothing(registry, shown):
    one = feed(registry)
    registry.subscribe(one, PAIR)
    shown.clear()
    registry.unsubscribe(one, PAIR)
    assert not registry.is_heard("done")


def test_it_knows_subscribers_that_hear_through_another_connection(registry):
    one = feed(registry, 1)
    registry.subscribe(one, PAIR)
    places: List[Any] = [("198.51.100.9", 1), ("198.51.100.7", 40_001)]
    assert registry.hears(places, PAIR)
    assert not registry.hears(places, ("other", b"dGFn"))
    assert not registry.hears(places[:1], PAIR) and not registry.hears([], PAIR)
    registry.remove(one)
    assert not registry.hears(places, PAIR)


def test_a_peer_has_256_subscriptions_at_most(registry):
    one, other = feed(registry), feed(registry, 3011)
    for number in range(256):
        registry.subscribe(one, (f"event {number}", b"dGFn"))
    with pytest.raises(PeerBusy, match="256"):
        registry.subscribe(one, PAIR)
    registry.subscribe(other, PAIR)


def test_no_source_takes_all_of_the_subscriptions_that_there_may_be(monkeypatch, shown):
    monkeypatch.setattr(module, "MAX_SUBSCRIPTIONS", 1000)
    registry = Registry(shown)

    def fill(source: str) -> int:
        for taken in range(1001):
            try:
                if not taken % 250:
                    one = feed(registry, source=source)
                registry.subscribe(one, (f"event {taken}", b"dGFn"))
            except PeerBusy as problem:
                assert "of the 1,000 subscriptions" in str(problem)
                return taken
        return -1

    assert fill("198.51.100.7") == 500
    assert fill("198.51.100.8") == 250
    for one in list(registry.feeds):
        if one.source == "198.51.100.7":
            registry.remove(one)
    assert fill("") == 750


def test_it_can_be_cleared(registry, shown):
    registry.subscribe(feed(registry), PAIR)
    registry.clear()
    assert shown == {} and not registry.feeds and not registry.is_heard("done")
