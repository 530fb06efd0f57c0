"""Calls of old publishers that come by both tags of a handler."""
from __future__ import annotations

from typing import Any, List, Tuple

import pytest

from net.events import repeats
from net.events.repeats import Repeats

HERE = "198.51.100.7"


class Handler:
    """A handler that old publishers call.

    :ivar ran: the arguments of each time that it has run.
    :ivar subscribed: whether it still hears an event.
    """

    def __init__(self) -> None:
        self.ran: List[Any] = []
        self.subscribed = True
        self.now = 0.0
        self._repeats = Repeats()
        self.expect = self._repeats.expect

    def begin(self, tag: str, value: Any, host: str = HERE) -> Any:
        call = self._repeats.begin(host, tag == "marked", self.subscribed, [value],
                                   {"a": {"b": 1}}, self.now)
        if call is not None:
            self.ran.append(value)
        return call

    def call(self, tag: str, value: Any, seconds: float = 0.0, host: str = HERE) -> bool:
        """Whether it has run."""
        call = self.begin(tag, value, host)
        if call is not None:
            self.now += seconds
            call.end(self.now)
        return call is not None


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.mark.parametrize("tags", [("plain", "marked"), ("marked", "plain"),
                                  ("marked", "plain", "plain")], ids="-".join)
@pytest.mark.parametrize("values", [(1, 2, 3), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("seconds", [0.0, 0.1, 60.0])
def test_an_event_that_comes_by_both_tags_is_heard_once(
        handler: Handler, tags: Tuple[str, ...], values: Tuple[int, ...], seconds: float) -> None:
    for value in values:
        for tag in tags:
            handler.call(tag, value, seconds)
        handler.now += 0.1
    assert handler.ran == list(values)


@pytest.mark.parametrize("first, second", [("plain", "marked"), ("marked", "plain")])
def test_so_is_one_whose_calls_overlap(handler: Handler, first: str, second: str) -> None:
    running = handler.begin(first, 1)
    handler.now += 100
    assert handler.begin(second, 1) is None
    running.end(handler.now)
    assert handler.ran == [1]


@pytest.mark.parametrize("tags", [("plain", "plain", "marked"), ("plain", "marked", "plain"),
                                  ("marked", "plain", "plain")], ids="-".join)
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_so_is_one_that_comes_for_two_old_subscriptions(
        handler: Handler, tags: Tuple[str, ...], seconds: float) -> None:
    handler.expect(HERE)
    for value in (1, 2, 3, 3):
        for tag in tags:
            handler.call(tag, value, seconds)
    assert handler.ran == [1, 2, 3, 3]


def test_after_an_event_that_comes_once_the_same_call_may_come_twice(handler: Handler) -> None:
    handler.expect(HERE)
    assert handler.call("plain", 0) and not handler.call("plain", 0)
    assert handler.call("marked", 1)
    assert handler.call("plain", 2) and handler.call("plain", 2)


def test_calls_of_an_application_run(handler: Handler) -> None:
    assert handler.call("plain", 1) and handler.call("plain", 1)
    handler.now += repeats.SAME_EVENT + 1
    assert handler.call("marked", 1) and handler.call("marked", 2)
    assert handler.call("plain", 3)
    assert handler.call("plain", 1, host="198.51.100.8")


def test_so_do_those_from_a_host_from_which_events_come_twice(handler: Handler) -> None:
    assert handler.call("plain", 1) and not handler.call("marked", 1)
    assert handler.call("plain", 2)
    assert not handler.call("plain", 2)
    handler.now += repeats.SAME_EVENT + 1
    assert handler.call("plain", 2)


def test_a_handler_that_hears_no_more_does_not_run_for_such_a_host(handler: Handler) -> None:
    handler.subscribed = False
    handler.expect(HERE)
    assert handler.call("plain", 0)
    assert handler.call("plain", 1) and not handler.call("marked", 1)
    assert not handler.call("plain", 2) and handler.call("plain", 2, host="198.51.100.8")


def test_a_publisher_that_has_started_again_is_noticed(handler: Handler) -> None:
    handler.call("plain", 1)
    assert not handler.call("marked", 1)
    for value in range(10, 10 + repeats.CERTAIN + 1):
        assert handler.call("marked", value)
        handler.now += 60
    assert handler.call("plain", 2) and handler.call("plain", 2)


def test_one_whose_calls_overtake_each_other_is_not_taken_for_one(handler: Handler) -> None:
    for value in range(20):
        handler.call("marked", value)
        handler.call("plain", value)
    for value in range(20, 40):
        handler.call("marked", value)
    for value in range(20, 40):
        handler.call("plain", value)
    assert handler.ran == list(range(40))


def test_a_bounded_number_of_calls_is_remembered(handler: Handler, monkeypatch: Any) -> None:
    monkeypatch.setattr(repeats, "MAX_CALLS", 10)
    for value in range(100):
        handler.call("plain", value)
    assert not handler.call("marked", 99) and handler.call("marked", 50)
