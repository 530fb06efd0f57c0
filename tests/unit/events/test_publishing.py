"""What subscribers get, and what they may say, over pairs of sockets."""
from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import Any, Dict, Iterator, List, Optional

import pytest

from net.errors import PeerBusy
from net.events import publishing as module
from net.events.publishing import Publisher
from net.events.shares import Shares
from net.identity import make_id
from net.link.streams import Stream
from net.run.loop import Loop
from net.run.server_connection import Handover
from net.settings import Settings
from net.wire.deliveries import (Subscribe, encode_failed, encode_subscribe, encode_taken,
                                 encode_unsubscribe, read_events, read_subscribed)
from net.wire.frames import (CALL, EVENT, FAILURE, KNOWN, RESULT, SUBSCRIBE, TAKEN, Frame,
                             FrameParser, pack)
from net.wire.limits import Limits
from net.wire.session import server_session
from hearing import until
from times import patience

TAG = b"dGFn"
DONE = ("done", TAG)


class Subscriber:
    """A process that has subscribed, by hand."""

    numbers = iter(range(40_000, 10 ** 6))

    def __init__(self, hub: Hub, event: str = "done", host: str = "198.51.100.7",
                 port: Optional[int] = 3011, places: Any = ()) -> None:
        self.hub = hub
        self.address = (host, next(self.numbers))
        self.sock, other = socket.socketpair()
        self.sock.settimeout(patience(10))
        hub.subscribers.append(self)
        first = self._frame(encode_subscribe(1, Subscribe((event, TAG), port, list(places))))
        try:
            hub.publisher.adopt(Handover(Stream(other), server_session(Limits()), self.address,
                                         "blue", hub.settings.revision, first))
        except BaseException:
            other.close()
            raise
        self._parser = FrameParser(Limits(), KNOWN)
        self.first = self.frame()

    @staticmethod
    def _frame(pieces: Any) -> Frame:
        found = FrameParser(Limits(), KNOWN).receive(b"".join(pieces))
        assert found is not None
        return found

    def frame(self) -> Frame:
        """The next frame that comes."""
        found = self._parser.receive(b"")
        while found is None:
            data = self.sock.recv(64 * 1024)
            if not data:
                raise ConnectionResetError("the publisher closed it")
            found = self._parser.receive(data)
        return found

    def events(self) -> List[Any]:
        """What the next EVENT frame holds: name, number and first argument of each."""
        frame = self.frame()
        assert frame.kind == EVENT, frame
        self.number = frame.number
        return [(name, number, args[0]) for name, number, args, _ in read_events(frame)]

    def say(self, pieces: Any) -> None:
        try:
            self.sock.sendall(b"".join(pieces))
        except BrokenPipeError:
            pass  # the publisher has closed it already

    def hears(self, count: int) -> List[Any]:
        """Take a number of events; return their arguments."""
        heard: List[Any] = []
        while len(heard) < count:
            heard.extend([value for _, _, value in self.events()])
            self.say(encode_taken(self.number))
        return heard

    @property
    def is_closed(self) -> bool:
        """Whether the publisher ends the connection, whatever it says before."""
        try:
            while self.sock.recv(64 * 1024):
                pass
        except ConnectionResetError:
            pass
        return True


class Hub:
    """A publisher with a loop of its own."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.shown: Dict[str, Any] = {}
        self.loop = Loop("test-loop")
        self.places = Shares(100)
        self.publisher = Publisher(self.shown, self.loop, self.settings, self.places)
        self.subscribers: List[Subscriber] = []

    def trigger(self, *values: Any, name: str = "done") -> None:
        for value in values:
            self.publisher.publish(name, (value,), {})

    def counts(self, name: str = "done") -> Any:
        found = self.publisher.stats()["events"][name]["subscribers"]
        return list(found.values())[0] if found else None

    def close(self) -> None:
        self.publisher.close(None, 0)
        for subscriber in self.subscribers:
            subscriber.sock.close()
        until(lambda: "test-loop" not in [thread.name for thread in threading.enumerate()])
        assert self.shown == {} and not self.publisher.registry.feeds
        assert self.places._total == 0


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


def test_a_subscriber_gets_events_in_order_and_is_counted(hub):
    hub.trigger("before")
    one = Subscriber(hub)
    assert (one.first.kind, one.first.number, read_subscribed(one.first)) == (RESULT, 1, 1)
    assert hub.shown == {"done": {make_id(3011, "198.51.100.7", "blue"): [TAG]}}
    hub.trigger(1, 2, 3)
    assert one.hears(3) == [1, 2, 3]
    assert hub.publisher.flush(5) == {}
    assert hub.counts() == {"sent": 3, "queued": 0, "dropped": 0}
    assert hub.publisher.stats()["events"]["done"]["triggered"] == 4


def test_a_subscriber_that_serves_nothing_is_known_by_where_it_comes_from(hub):
    one = Subscriber(hub, port=None)
    assert list(hub.shown["done"]) == [make_id(one.address[1], "198.51.100.7", "blue")]


def test_events_gather_while_enough_is_on_its_way(hub):
    one = Subscriber(hub)
    for number in range(100):
        hub.trigger(number)
        while hub.publisher._inbox:
            time.sleep(0.0005)
    heard: List[Any] = []
    frames = 0
    for _ in range(16):
        heard += one.events()
        frames += 1
    one.say(encode_taken(one.number))
    while len(heard) < 100:
        heard += one.events()
        frames += 1
    assert [value for _, _, value in heard] == list(range(100))
    assert frames < 30
    one.say(encode_taken(one.number))
    assert hub.publisher.flush(5) == {}


def test_a_second_event_and_its_end(hub):
    one = Subscriber(hub)
    one.say(encode_subscribe(2, Subscribe(("other", TAG), 3011, [])))
    assert read_subscribed(one.frame()) == 0
    hub.trigger(1)
    hub.trigger(2, name="other")
    assert sorted(one.hears(2)) == [1, 2]
    one.say(encode_unsubscribe(("other", TAG)))
    one.say(encode_unsubscribe(("never asked for", TAG)))
    until(lambda: list(hub.shown) == ["done"])
    hub.trigger(3, name="other")
    hub.trigger(4)
    assert one.hears(1) == [4]


def test_a_subscriber_that_hears_through_another_connection_is_told_so(hub):
    one = Subscriber(hub)
    two = Subscriber(hub, places=[("198.51.100.9", 1), one.address])
    assert (two.first.kind, read_subscribed(two.first)) == (RESULT, None)
    hub.trigger(1)
    assert one.hears(1) == [1]
    # What is claimed to be another connection, and is not one of ours, changes nothing.
    three = Subscriber(hub, places=[("198.51.100.7", 5)])
    assert read_subscribed(three.first) == 1
    other_event = Subscriber(hub, "other", places=[one.address])
    assert read_subscribed(other_event.first) == 0


def test_a_subscriber_that_leaves_is_forgotten(hub, caplog):
    caplog.set_level(logging.INFO)
    one = Subscriber(hub)
    one.sock.close()
    until(lambda: not hub.publisher.registry.feeds)
    assert hub.shown == {}
    assert "ended the subscriber" in caplog.text and "it closed the connection" in caplog.text


def test_what_is_not_acknowledged_is_dropped_when_it_leaves(hub):
    one = Subscriber(hub)
    hub.trigger(1, 2)
    one.events()
    one.sock.close()
    until(lambda: hub.counts() == {"sent": 0, "queued": 0, "dropped": 2})


def test_events_that_cannot_be_read_are_counted_and_logged(hub, caplog):
    one = Subscriber(hub)
    hub.trigger(1)
    one.events()
    one.say(encode_taken(1, "no such \x1b class"))
    until(lambda: hub.counts() == {"sent": 0, "queued": 0, "dropped": 1})
    until(lambda: "cannot take 1 events 'done': no such \\x1b class" in caplog.text)


def test_settings_of_security_end_it_before_the_next_event(hub, tmp_path):
    one = Subscriber(hub)
    hub.settings.set("secret", "correct horse battery staple")
    hub.trigger("secret")
    data = b""
    while True:
        piece = one.sock.recv(1024)
        if not piece:
            break
        data += piece
    assert b"secret" not in data
    assert hub.shown == {}


def test_settings_of_security_end_it_without_an_event_too(hub, monkeypatch):
    monkeypatch.setattr(module, "IDLE_TICK", 0.02)
    one = Subscriber(hub)
    hub.settings.set("secret", "correct horse battery staple")
    assert one.is_closed


# -------------------------------------------------------------------------- what strangers do


@pytest.mark.parametrize("said", [
    pack(TAKEN, 1, b"null"), pack(TAKEN, 0, b"null"), pack(TAKEN, 1, b"nonsense"),
    pack(EVENT, 1, b"[]"), pack(RESULT, 1, b"null"), pack(SUBSCRIBE, 2, b"nonsense"),
    pack(SUBSCRIBE, 2, b'{"event":"done"}'), pack(SUBSCRIBE, 2, b'"' + b"x" * 300_000 + b'"'),
    pack(SUBSCRIBE, 2, b"{}", False, [b"buffer"]), encode_failed([["done", "dGFn", "x"]] * 101, 0),
    [b"GET / HTTP/1.1\r\n"],
])
def test_nonsense_ends_the_connection(hub, said):
    one, honest = Subscriber(hub), Subscriber(hub)
    one.say(said)
    assert one.is_closed
    hub.trigger(1)
    assert honest.hears(1) == [1]


def test_a_first_frame_of_nonsense_leaves_nothing(hub):
    one = Subscriber(hub, "")
    assert (one.first.kind, one.first.number) == (FAILURE, 0)
    assert one.is_closed
    until(lambda: hub.places._total == 0)


def test_a_call_needs_another_connection(hub):
    one = Subscriber(hub)
    one.say(pack(CALL, 7, b'{"tag":"dGFn","args":[],"kwargs":{}}'))
    reply = one.frame()
    assert (reply.kind, reply.number) == (FAILURE, 7) and b"carries events" in reply.text
    hub.trigger(1)
    assert one.hears(1) == [1]


def test_a_flood_is_read_slowly_and_disturbs_nobody(hub):
    flood, honest = Subscriber(hub), Subscriber(hub)
    flood.sock.setblocking(False)
    more = b"".join(encode_failed([["done", "dGFn", "x"]], 0)) * 100
    began = time.monotonic()
    sent = 0
    heard: List[Any] = []
    while len(heard) < 20 or time.monotonic() - began < 1.0:
        try:
            sent += flood.sock.send(more)
        except BlockingIOError:
            time.sleep(0.005)
        if len(heard) < 20:
            hub.trigger(len(heard))
            heard += honest.hears(1)
    assert heard == list(range(20))
    lasted = time.monotonic() - began
    buffered = 2 ** 21  # what sockets hold
    assert sent < buffered + module.MAX_SAID + module.SAID_PER_SECOND * lasted


def test_a_publisher_that_says_too_much_for_long_is_left(hub, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "MAX_SLOWED", 0.1)
    flood = Subscriber(hub)
    more = b"".join(encode_failed([["done", "dGFn", "x"]] * 100, 0))
    with contextlib.suppress(OSError):
        while True:
            flood.sock.sendall(more)
    assert flood.is_closed
    until(lambda: "it says too much" in caplog.text)


def test_failures_are_logged_a_few_at_a_time(hub, caplog, monkeypatch):
    log_failure, looked_at = module.log_failure, []
    monkeypatch.setattr(module, "log_failure", lambda *args: (
        looked_at.append(args), log_failure(*args)))
    one = Subscriber(hub)
    for _ in range(30):
        one.say(encode_failed([["done", "dGFn", "ValueError: \x1b"]] * 100, 7))
    until(lambda: "raised 97 times more" in caplog.text)
    until(lambda: caplog.text.count("ValueError") == 10)
    time.sleep(0.1)
    assert len(caplog.records) <= 20
    assert len(looked_at) <= 30 * 10
    assert "\x1b" not in caplog.text and "the handler tag of the subscriber" in caplog.text


def test_subscriptions_are_limited_for_each_source(hub):
    one = Subscriber(hub)
    for number in range(2, 300):
        one.say(encode_subscribe(number, Subscribe((f"event {number}", TAG), None, [])))
    kinds = [one.frame().kind for _ in range(2, 300)]
    assert kinds.count(RESULT) == 255 and kinds[-1] == FAILURE
    hub.trigger(1)
    assert one.hears(1) == [1]


def test_connections_are_limited_for_each_source(hub):
    for _ in range(50):
        Subscriber(hub)
    with pytest.raises(PeerBusy, match="none is left for 198.51.100.7"):
        Subscriber(hub)
    Subscriber(hub, host="198.51.100.8")
    Subscriber(hub, host="127.0.0.1")


def test_without_a_thread_a_subscriber_is_refused_and_the_next_one_heard(hub, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(PeerBusy, match="new thread"):
            Subscriber(hub)
    assert hub.places._total == 0
    one = Subscriber(hub)
    hub.trigger(1)
    assert one.hears(1) == [1]


# ------------------------------------------------------------------------------ limits and ends


def test_one_that_falls_behind_is_cut_off_and_the_others_are_not(hub, monkeypatch, caplog):
    monkeypatch.setattr("net.events.feeds.PATIENCE", 0.2)
    monkeypatch.setattr(module, "IDLE_TICK", 0.1)
    monkeypatch.setattr("net.events.feeds.MAX_EVENTS", 50)
    slow, honest = Subscriber(hub, port=1), Subscriber(hub, port=2)
    hub.trigger(*range(100))
    assert honest.hears(100) == list(range(100))
    assert slow.is_closed
    assert hub.publisher.stats()["cut off"] == 1
    assert "cut off the subscriber" in caplog.text
    hub.trigger("more")
    assert honest.hears(1) == ["more"]


def test_more_than_memory_for_cuts_off_at_once(hub, monkeypatch):
    monkeypatch.setattr("net.events.feeds.MAX_BURST", 100_000)
    slow = Subscriber(hub)
    hub.trigger(*[["x" * 100] * 100] * 20)
    assert slow.is_closed
    assert hub.publisher.stats()["cut off"] == 1


def test_a_thread_that_triggers_too_fast_gives_way(hub, monkeypatch):
    monkeypatch.setattr(module, "MAX_INBOX", 3)
    one = Subscriber(hub)
    hub.trigger(*range(100))
    assert one.hears(100) == list(range(100))


def test_flush_says_what_was_not_taken(hub):
    one = Subscriber(hub)
    hub.trigger(1, 2)
    began = time.monotonic()
    assert hub.publisher.flush(0.1) == {make_id(3011, "198.51.100.7", "blue"): {"done": 2}}
    assert time.monotonic() - began < patience(2)
    one.hears(2)
    assert hub.publisher.flush(5) == {}


def test_closing_ends_the_connections_of_its_owner_only(hub):
    one = Subscriber(hub)
    hub.publisher.close("somebody else", 0)
    hub.trigger(1)
    assert one.hears(1) == [1]
    hub.publisher.close(None, 0)
    assert one.is_closed
