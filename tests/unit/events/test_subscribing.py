"""Where a process subscribes, when, and how often, with fake peers."""
from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from net.dispatch import INVALID_CONNECTION, MemoryBudget, Room
from net.errors import PeerBusy, PeerLost, PeerUnreachable
from net.events import publisher_connection, subscribing as module
from net.events import old as old_module
from net.events.handlers import Handler
from net.events.old import INFO, SUBSCRIBE as OLD_SUBSCRIBE
from net.events.shares import Shares
from net.events.subscribing import Subscriber
from net.identity import Flag, encode_text, make_id
from net.link.carriers import Carriers
from net.run.loop import Loop
from net.settings import Settings, settings
from net.wire.deliveries import (encode_events, encode_subscribed, join, pack_arguments,
                                 read_failed, read_subscribe, read_taken, read_unsubscribe)
from net.wire.frames import (CALL, FAILED, KNOWN, SUBSCRIBE, TAKEN, UNSUBSCRIBE, FrameParser,
                             NotAFrame)
from net.wire.legacy import is_marked, unmarked
from net.wire.limits import Limits
from net.wire.messages import encode_refusal, encode_result
from net.wire.session import encode_hello
from hearing import until
from times import patience

OWN_ID = make_id(3010, "127.0.0.1")
A, B = ("198.51.100.1", 3010), ("198.51.100.2", 3010)
TAG = b"dGFn"


class Peer:
    """A fake publisher.

    :ivar answer: what it does with a request to subscribe.
    :ivar open: its connections.
    """

    def __init__(self, instance: Optional[str], **info: Any) -> None:
        self.instance = instance
        self.info = {"group": None, "hub": False, **info}
        self.answer: Callable[[Connection, Any], None] = Peer.accept
        self.sequence = 0
        self.open: List[Connection] = []
        self.asked: List[Any] = []
        self.unasked: List[Any] = []
        self.taken: List[Any] = []
        self.failed: List[Any] = []

    def accept(self, connection: Connection, frame: Any) -> None:
        request = read_subscribe(frame)
        places = [other.place for other in self.open if other is not connection]
        elsewhere = any([place in places for place in request.places])
        connection.say(encode_subscribed(frame.number, None if elsewhere else self.sequence))

    def trigger(self, *values: Any, name: str = "done") -> None:
        """Send events to all that are connected."""
        if self.open:
            # On the loop: behind the answer to a request, which it may be about to give.
            done = threading.Event()
            self.open[0].network.loop.call_soon(lambda: (self._send(values, name), done.set()))
            assert done.wait(patience(5))
        else:
            self.sequence += len(values)

    def _send(self, values: Any, name: str) -> None:
        first = self.sequence + 1
        self.sequence += len(values)
        events = list(join([(name, number, pack_arguments((value,), {}))
                            for number, value in enumerate(values, first)]))
        for connection in self.open:
            connection.sent += 1
            connection.say(encode_events(connection.sent, events))

    @property
    def port(self) -> Any:
        return read_subscribe(self.asked[-1]).port


class Connection:
    """A channel to a fake publisher."""

    numbers = iter(range(40_000, 10 ** 6))

    def __init__(self, network: Network, peer: Peer, session: Any, receiver: Any) -> None:
        self.place = ("198.51.100.9", next(self.numbers))
        self.stream = SimpleNamespace(sock=SimpleNamespace(getsockname=lambda: self.place),
                                      group=lambda claimed: claimed)
        self.closed = False
        self.sent = 0
        self.paused = False
        self._waiting: List[Any] = []
        self.network = network
        self._peer = peer
        self._session = session
        self._receiver = receiver
        self._parser = FrameParser(Limits(), KNOWN)
        network.loop.call_soon(self._greet)

    def _greet(self) -> None:
        if not self.closed:
            self._peer.open.append(self)
            assert self._peer.instance is not None
            self.say(encode_hello(self._peer.instance, Limits()))

    def say(self, pieces: Any) -> None:
        """Have the other side receive something."""
        event = self._session.receive(b"".join(pieces))
        while event is not None:
            self.network.loop.call_soon(lambda event=event: self._deliver(event))
            event = self._session.receive(b"")

    def _deliver(self, event: Any) -> None:
        if self.paused:
            self._waiting.append(event)
        elif not self.closed:
            self._receiver.received(self, event)

    def cut(self) -> None:
        """End it from the publisher's side."""
        self.network.loop.call_soon(self._cut)

    def _cut(self) -> None:
        if not self.closed:
            self.close()
            self._receiver.ended(self, PeerLost(None, "cut"))

    # ------------------------------------------------------------ as channels have it

    def send(self, pieces: Any) -> None:
        frame = self._parser.receive(b"".join(pieces))
        peer = self._peer
        assert frame is not None and not self.closed
        if frame.kind == CALL:
            self.say(encode_result(frame.number, peer.info))
        elif frame.kind == SUBSCRIBE:
            peer.asked.append(frame)
            peer.answer(self, frame) if peer.answer is not Peer.accept else \
                peer.accept(self, frame)
        else:
            kept, read = {UNSUBSCRIBE: (peer.unasked, read_unsubscribe),
                          TAKEN: (peer.taken, read_taken),
                          FAILED: (peer.failed, read_failed)}[frame.kind]
            kept.append((frame.number, read(frame)) if frame.kind == TAKEN else read(frame))

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        while self._waiting and not self.paused:
            self._deliver(self._waiting.pop(0))

    def close(self) -> None:
        self.closed = True
        if self in self._peer.open:
            self._peer.open.remove(self)

    abandon = close


class Refused:
    """A channel to where nobody is, or an old peer."""

    closed = False
    stream = None

    def __init__(self, network: Network, receiver: Any, problem: Any) -> None:
        network.loop.call_soon(lambda: self.closed or receiver.ended(self, problem))

    def close(self) -> None:
        self.closed = True


class Network:
    """Peers by address."""

    def __init__(self) -> None:
        self.loop = Loop("test-loop")
        self.settings = Settings()
        self.settings.set("host", "198.51.100.9")
        self.peers: Dict[Any, Peer] = {}
        self.dialled: List[Any] = []
        self.carriers = Carriers(self.settings, lambda: None)
        self.called: List[Any] = []
        self.connections: Dict[bytes, Any] = {}
        # The old dialect of each peer, as far as known.
        self.dialects: Dict[Any, str] = {}
        self.memory = MemoryBudget()
        self.subscriber = Subscriber(
            self.watch, self.loop, self.settings, Shares(100), self,  # type: ignore[arg-type]
            self.connections, lambda: self.memory)
        self.watching: Optional[Callable[[str, Any], None]] = None
        self.heard: List[Any] = []
        self.gaps: List[Any] = []

    def watch(self, callback: Callable[[str, Any], None]) -> Callable[[], None]:
        self.watching = callback
        return lambda: setattr(self, "watching", None)

    def dial(self, loop: Any, endpoint: Any, greeting: Any, session: Any, receiver: Any,
             credentials: Any, carrier: Any) -> Any:
        peer = self.peers.get(endpoint.address)
        if endpoint.address != OWN_ID.address:
            self.dialled.append(endpoint.address)
        if peer is None:
            return Refused(self, receiver, PeerUnreachable(endpoint.address, "nobody there"))
        if peer.instance is None:
            return Refused(self, receiver, NotAFrame(b"e30="))
        return Connection(self, peer, session, receiver)

    def dialect(self, address: Any) -> str:
        return self.dialects.get(address, "")

    def saw(self, address: Any, dialect: str) -> None:
        self.dialects[address] = dialect

    def call(self, address: Any, tag: bytes, args: Any, kwargs: Any, timeout: float) -> Any:
        """As the client does, for old peers."""
        if address not in self.peers:
            self.dialects.pop(address, None)
            raise PeerUnreachable(address, "nobody there")
        if tag == INFO:
            return self.peers[address].info
        self.called.append((address, tag, args))
        return self.peers[address].answer if type(self.peers[address].answer) is Flag else True

    def add(self, *addresses: Any, event: str = "done", **options: Any) -> Handler:
        handler = Handler(event, TAG, self.hear, set(addresses) if addresses else None,
                          on_gap=lambda *gap: self.gaps.append(gap), **options)
        self.subscriber.add(handler)
        return handler

    def hears(self, address: Any) -> bool:
        """Whether anything is subscribed at an address."""
        target = self.subscriber._targets.get(address)
        return target is not None and bool(target.subscription.pairs)

    def hear(self, value: Any = None) -> None:
        self.heard.append(value)

    def close(self) -> None:
        for handler in list(self.subscriber._handlers.values()):
            self.subscriber.remove(handler.pair[0], handler.function)
        self.subscriber.pause()
        until(lambda: not self.subscriber._targets)
        until(lambda: {"test-loop", "net-handlers", "net-subscriber"}.isdisjoint(
            [thread.name for thread in threading.enumerate()]))


@pytest.fixture
def network(monkeypatch) -> Iterator[Network]:
    made = Network()
    monkeypatch.setattr(publisher_connection, "dial", made.dial)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(module, "LAST_RETRY", 0.02)
    made.subscriber.serve(OWN_ID)
    yield made
    made.close()


def asked(peer: Peer) -> List[Any]:
    return [read_subscribe(frame).pair[0] for frame in list(peer.asked)]


# ------------------------------------------------------------------------------ connecting


def test_named_peers_are_subscribed_to_before_it_returns(network):
    network.peers = {A: Peer("a"), B: Peer("b")}
    network.add(A, B)
    for peer in network.peers.values():
        assert asked(peer) == ["done"] and peer.port == 3010
        assert read_subscribe(peer.asked[0]).pair == ("done", TAG)


def test_one_that_is_not_there_is_tried_until_it_is(network, caplog):
    network.add(A)
    assert network.dialled
    network.peers[A] = Peer("a")
    until(lambda: asked(network.peers[A]))
    assert caplog.text.count("cannot subscribe at 198.51.100.1:3010") == 1


def test_it_is_tried_less_and_less_often_but_soon_after_a_minute(network, monkeypatch):
    delays: List[float] = []
    monkeypatch.setattr(module, "jitter", lambda seconds: delays.append(seconds) or 0.0)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(module, "LAST_RETRY", 0.05)
    network.add(A)
    until(lambda: len(delays) > 20)
    assert delays[:4] == [0.001, 0.002, 0.004, 0.008]
    assert max(delays) == 0.05
    network.peers[A] = Peer("a")
    until(lambda: asked(network.peers[A]))


@pytest.mark.parametrize("absent, longest", [(0, 1.6), (60, 1.6), (600, 15), (10 ** 5, 30)])
def test_what_was_away_for_long_is_heard_after_a_small_part_of_that(network, monkeypatch, absent,
                                                                    longest):
    delays: List[float] = []
    monkeypatch.setattr(module, "jitter", lambda seconds: delays.append(seconds) or 0.001)
    monkeypatch.setattr(module, "LAST_RETRY", 1.6)
    network.add(A)
    target = network.subscriber._targets[A]
    target._failing_since -= absent
    until(lambda: len(delays) > 12)
    assert longest - 0.1 < max(delays) < longest + 0.1


def test_waiting_for_an_answer_in_vain_is_a_part_of_the_delay(network):
    waited: List[float] = []
    target = module.Target(network.subscriber, A)
    target._retry_after = waited.append
    target._failures, target._failing_since = 20, module.monotonic() - 60
    target._dialled = module.monotonic() - 3.0
    target._fail(PeerUnreachable(A, "no answer within 3 s"))
    assert waited == [module.FIRST_RETRY]


def test_a_found_peer_that_stays_away_is_given_up_until_it_is_found_again(network, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP", 0.0)
    network.add()
    peer = make_id(A[1], A[0])
    network.watching("came", peer)
    until(lambda: A in network.subscriber._targets and not network.subscriber._targets[A].found)
    network.peers[A] = Peer("a")
    network.watching("came", peer)
    until(lambda: asked(network.peers[A]))


def test_of_given_up_peers_some_are_remembered_with_what_was_missed(network, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP", 0.0)
    monkeypatch.setattr(module, "MAX_GIVEN_UP", 2)
    peer = network.peers[A] = Peer("a")
    network.add()
    network.watching("came", make_id(A[1], A[0]))
    until(lambda: network.hears(A))
    del network.peers[A]
    peer.sequence = 7
    peer.open[0].cut()
    targets = network.subscriber._targets
    until(lambda: not targets[A].found)
    network.watching("came", make_id(1, B[0]))
    until(lambda: (B[0], 1) in targets and not targets[B[0], 1].found)
    network.peers[A] = peer
    network.watching("came", make_id(A[1], A[0]))
    until(lambda: [missed for _, _, missed in network.gaps] == [7])
    for port in (2, 3, 4):
        network.watching("came", make_id(port, B[0]))
        until(lambda port=port: (B[0], port) in targets and not targets[B[0], port].found)
    assert sorted(port for host, port in targets if host == B[0]) == [3, 4]


def test_no_host_takes_all_places_for_peers_that_are_found(network, caplog):
    network.subscriber._finds.limit = 20
    network.add()
    for port in range(1, 100):
        network.watching("came", make_id(port, A[0]))
    peer = network.peers[B] = Peer("b")
    network.watching("came", make_id(B[1], B[0]))
    until(lambda: asked(peer) == ["done"])
    assert len([address for address in network.subscriber._targets if address[0] == A[0]]) == 9
    assert "too many peers are found there" in caplog.text


def test_a_lost_connection_is_made_again_and_the_gap_is_reported(network):
    peer = network.peers[A] = Peer("a", group="blue")
    network.add(A)
    peer.trigger(1)
    until(lambda: network.heard == [1])
    peer.sequence += 5
    peer.open[0].cut()
    until(lambda: len(peer.asked) == 2 and network.hears(A))
    peer.trigger(2)
    until(lambda: network.heard == [1, 2])
    assert network.gaps == [("done", make_id(A[1], A[0], "blue"), 5)]


def test_many_that_are_silent_delay_no_other(network, monkeypatch):
    monkeypatch.setattr(module, "SUBSCRIBE_TIME", 0.1)
    silent = Peer("silent")
    silent.answer = lambda connection, frame: None
    addresses = [("198.51.100.7", port) for port in range(1, 101)]
    network.peers = {**dict.fromkeys(addresses, silent), A: Peer("a")}
    threading.Thread(target=network.add, args=(*addresses, A)).start()
    until(lambda: asked(network.peers[A]), 5.0)
    # Not even all of these at once, since they are of one host.
    assert len(silent.open) <= 50


def test_what_has_no_place_is_connected_when_there_is_one(network):
    network.subscriber._places.limit = 2
    network.peers = {A: Peer("a"), ("198.51.100.1", 5): Peer("b")}
    network.add(A)
    handler = Handler("other", TAG, network.hear, {("198.51.100.1", 5)})
    threading.Thread(target=network.subscriber.add, args=(handler,)).start()
    until(lambda: network.subscriber._waiting)
    network.subscriber.remove("done", network.hear)
    network.subscriber.add(handler)
    until(lambda: asked(network.peers[("198.51.100.1", 5)]) == ["other"])


# --------------------------------------------------------------------------- what is asked for


def test_only_new_handlers_are_subscribed(network):
    peer = network.peers[A] = Peer("a")
    for event in ("one", "two", "three"):
        network.add(A, event=event)
    assert asked(peer) == ["one", "two", "three"]
    assert network.dialled == [A]


def test_groups_and_hubs_are_chosen_by_what_peers_say(network):
    a, b = network.peers[A], network.peers[B] = Peer("a", group="blue", hub=True), \
        Peer("b", group="red")
    network.add(A, B, groups={"red"})
    assert (asked(a), asked(b)) == ([], ["done"])
    network.add(A, B, event="hub", hubs_only=True)
    assert (asked(a), asked(b)) == (["hub"], ["done"])
    network.add(A, B, event="host", on_host=True)
    assert (asked(a), asked(b)) == (["hub"], ["done"])


@pytest.mark.parametrize("wanted, likely", [({"hubs_only": True}, {"hub": True}),
                                            ({"groups": {"red"}}, {"group": "red"})])
def test_those_that_are_found_to_be_wanted_are_asked_before_the_others(network, wanted, likely):
    network.peers[A] = Peer("a", **likely)
    network.peers[B] = Peer("b", **likely)  # by now, though not when it was found
    network.add(**wanted)
    for place, info in ((B, {"hub": False, "group": "blue"}), (A, likely)):
        found = make_id(place[1], place[0])
        found.info = {"instance": "x", **info}
        network.watching("came", found)
    until(lambda: asked(network.peers[A]) == ["done"])
    assert network.dialled == [A]
    # Later on, what was found does not count any more.
    other = network.subscriber._targets[B]
    network.loop.call_soon(lambda: (other._cancel_retry(), other._try_again()))
    until(lambda: asked(network.peers[B]) == ["done"])


@pytest.mark.parametrize("attested, says, hears", [("red", "blue", True), ("blue", "red", False),
                                                   (None, "red", False)])
def test_a_certificate_tells_the_group(network, monkeypatch, attested, says, hears):
    peer = network.peers[A] = Peer("a", group=says)
    greet = Connection._greet

    def secured(connection: Any) -> None:
        connection.stream.group = lambda claimed: attested
        greet(connection)

    monkeypatch.setattr(Connection, "_greet", secured)
    network.add(A, groups={"red"})
    assert asked(peer) == (["done"] if hears else [])


@pytest.mark.parametrize("info", [None, "text", [], {"group": 5}, {}])
def test_a_publisher_that_says_nonsense_of_itself_is_heard_without_a_group(network, info):
    peer = network.peers[A] = Peer("a")
    peer.info = info
    network.add(A)
    peer.trigger(1)
    until(lambda: network.heard == [1])


def test_a_refusal_is_tried_again_and_harms_no_other_subscription(network, monkeypatch, caplog):
    monkeypatch.setattr(module, "jitter", lambda seconds: 0.01)
    peer = network.peers[A] = Peer("a")
    network.add(A)
    peer.answer = lambda connection, frame: connection.say(
        encode_refusal(frame.number, PeerBusy(None, "too many subscriptions")))
    network.add(A, event="other")
    assert "too many subscriptions" in caplog.text
    peer.trigger(1)
    until(lambda: network.heard == [1])
    peer.answer = Peer.accept
    until(lambda: not network.subscriber._targets[A]._connection.refused)
    assert network.dialled == [A]


def test_a_refused_connection_is_made_again(network):
    peer = network.peers[A] = Peer("a")
    peer.answer = lambda connection, frame: connection.say(
        encode_refusal(0, PeerBusy(None, "no room")))
    network.add(A)
    assert type(network.subscriber._targets[A].problem) is PeerBusy
    peer.answer = Peer.accept
    until(lambda: network.hears(A))


def test_a_publisher_that_does_not_answer_is_left_and_tried_again(network, monkeypatch):
    monkeypatch.setattr(publisher_connection, "REPLY_TIME", 0.05)
    peer = network.peers[A] = Peer("a")
    peer.answer = lambda connection, frame: None
    network.add(A)
    until(lambda: len(network.dialled) > 2)
    assert "no reply within" in str(network.subscriber._targets[A].problem)
    peer.answer = Peer.accept
    until(lambda: network.hears(A))


def test_unsubscribing_tells_the_publisher_and_the_last_one_closes(network):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    network.add(A, event="other")
    assert network.subscriber.remove("other", network.hear)
    until(lambda: peer.unasked == [("other", TAG)])
    assert peer.open
    assert network.subscriber.remove("done", network.hear)
    until(lambda: not peer.open)
    assert not network.subscriber.remove("done", network.hear)


def test_nobody_is_watched_for_handlers_of_named_peers(network):
    network.peers[A] = Peer("a")
    network.add(A)
    assert network.watching is None
    network.add(event="all")
    assert network.watching is not None
    network.subscriber.remove("all", network.hear)
    assert network.watching is None


def test_nothing_is_asked_of_anyone_while_this_process_serves_no_peer(network):
    network.subscriber.pause()
    peer = network.peers[A] = Peer("a")
    network.add(A)
    network.add(event="all")
    assert network.dialled == [] and network.watching is None
    network.subscriber.serve(OWN_ID)
    until(lambda: asked(peer) == ["done"])
    assert network.watching is not None
    network.subscriber.pause()
    until(lambda: not peer.open)
    network.subscriber.serve(OWN_ID)
    until(lambda: asked(peer) == ["done", "done"])


def test_what_was_connected_under_other_settings_is_connected_anew(network, monkeypatch):
    monkeypatch.setattr(module, "LOOK_TIME", 0.02)
    peer = network.peers[A] = Peer("a")
    network.add(A)
    connection, = peer.open
    network.settings.set("group", "other")
    until(lambda: len(peer.asked) == 2)
    assert connection.closed


def test_events_under_other_settings_are_not_heard(network):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    network.settings.set("group", "other")
    peer.trigger("too late")
    until(lambda: len(peer.asked) == 2)
    peer.trigger("heard")
    until(lambda: network.heard)
    assert network.heard == ["heard"]


# ------------------------------------------------------------- one process at two addresses


def test_a_peer_with_two_addresses_is_heard_once(network):
    peer = network.peers[A] = network.peers[B] = Peer("same")
    network.add(A, B)
    peer.trigger(1, 2)
    until(lambda: network.heard == [1, 2])
    until(lambda: len(peer.open) == 1)


def test_one_address_takes_over_from_the_other(network):
    peer = network.peers[A] = network.peers[B] = Peer("same")
    network.add(A, B)
    until(lambda: len(peer.open) == 1)
    place = {target.place: address for address, target in network.subscriber._targets.items()}
    address = place[peer.open[0].place]
    other = B if address == A else A
    del network.peers[address]
    peer.sequence = 3
    peer.open[0].cut()
    until(lambda: network.hears(other))
    peer.trigger("heard")
    until(lambda: network.heard == ["heard"])
    assert [missed for _, _, missed in network.gaps] == [3]
    network.peers[address] = peer
    until(lambda: address in network.dialled[-1:] and len(peer.open) == 1)
    peer.trigger("again")
    until(lambda: network.heard == ["heard", "again"])
    assert len(network.gaps) == 1


def found_at_both(network: Network) -> Peer:
    """A process that is heard at A, and also known to be at B."""
    peer = network.peers[A] = network.peers[B] = Peer("same")
    network.add()
    network.watching("came", make_id(A[1], A[0]))
    until(lambda: network.hears(A))
    network.watching("came", make_id(B[1], B[0]))
    until(lambda: B in network.dialled and len(peer.open) == 1)
    return peer


@pytest.mark.parametrize("first", ["came", "left"])
def test_a_process_that_has_moved_is_heard_where_it_is_now(network, monkeypatch, first):
    monkeypatch.setattr(publisher_connection, "DOUBT_TIME", 0.05)
    peer = network.peers[A] = network.peers[B] = Peer("same")
    network.add()
    network.watching("came", make_id(A[1], A[0]))
    until(lambda: network.hears(A))
    # Nothing that is sent there arrives any more.
    peer.open[0].send = lambda pieces: None
    del network.peers[A]
    for change, place in sorted([("came", B), ("left", A)], key=lambda one: one[0] != first):
        network.watching(change, make_id(place[1], place[0]))
        until(lambda: change == "left" or B in network.dialled)
    until(lambda: network.hears(B))
    peer.trigger("heard")
    until(lambda: network.heard == ["heard"])


def test_a_process_that_still_answers_where_it_is_missed_is_heard_there(network, monkeypatch):
    monkeypatch.setattr(publisher_connection, "DOUBT_TIME", 0.05)
    peer = found_at_both(network)
    connection, = peer.open
    connection.asked = []
    send, connection.send = connection.send, lambda pieces: (connection.asked.append(1),
                                                             send(pieces))
    network.watching("left", make_id(A[1], A[0]))
    until(lambda: connection.asked)
    target = network.subscriber._targets[A]
    until(lambda: target._connection._doubt is None)
    assert peer.open == [connection] and network.hears(A)


def test_what_was_connected_from_an_address_that_has_gone_is_connected_anew(network):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    before, = peer.open  # from an address that is not this host's
    network.loop.call_soon(network.subscriber.moved)
    until(lambda: len(peer.asked) == 2 and peer.open and peer.open != [before])
    peer.trigger("heard")
    until(lambda: network.heard == ["heard"])


def test_a_peer_that_claims_to_be_another_process_takes_nothing_from_it(network):
    network.peers = {A: Peer("same"), B: Peer("same")}
    network.add(A, B)
    until(lambda: all([peer.open for peer in network.peers.values()]))
    until(lambda: network.hears(A) and network.hears(B))
    network.peers[A].trigger("of A")
    network.peers[B].trigger("of B")
    until(lambda: sorted(network.heard) == ["of A", "of B"])


def test_a_silent_peer_that_claims_to_be_another_delays_it_a_second(network, monkeypatch):
    monkeypatch.setattr(module, "SAME_PROCESS_TIME", 0.1)
    monkeypatch.setattr(module, "SUBSCRIBE_TIME", 0.1)
    fake = network.peers[B] = Peer("same")
    fake.answer = lambda connection, frame: None
    threading.Thread(target=network.add, args=(A, B)).start()
    until(lambda: fake.asked)
    honest = network.peers[A] = Peer("same")
    until(lambda: honest.asked, 5.0)
    honest.trigger("heard")
    until(lambda: network.heard == ["heard"])


# ----------------------------------------------------------------------------------- events


def test_events_are_acknowledged_when_they_are_queued(network):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    for number in range(5):
        peer.trigger(number)
    until(lambda: network.heard == [0, 1, 2, 3, 4])
    until(lambda: peer.taken and peer.taken[-1] == (5, None))
    assert all(problem is None for _, problem in peer.taken)


def test_a_full_queue_stops_reading_until_there_is_room(network, monkeypatch):
    monkeypatch.setattr(module.Runner, "has_room", property(lambda runner: runner._events < 3))
    peer = network.peers[A] = Peer("a")
    entered, release = threading.Event(), threading.Event()

    def slow(value: Any) -> None:
        entered.set()
        assert release.wait(patience(10))
        network.heard.append(value)

    network.subscriber.add(Handler("done", TAG, slow, {A}))
    peer.trigger(1)
    assert entered.wait(patience(5))
    connection, = peer.open
    assert not connection.paused
    peer.trigger(2, 3)
    until(lambda: connection.paused)
    release.set()
    until(lambda: not connection.paused)
    until(lambda: network.heard == [1, 2, 3])


def test_events_that_cannot_be_read_are_a_gap_and_reported(network):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    peer.trigger(1)
    text = b'["done",2,[{"!value":{"class":"nobody.knows","value":1}}],{}]'
    peer.sequence += 1
    peer.open[0].sent += 1
    peer.open[0].say(publisher_frame(2, text, True))
    peer.trigger(3)
    until(lambda: network.heard == [1, 3])
    assert [missed for _, _, missed in network.gaps] == [1]
    until(lambda: peer.taken[-1:] == [(3, None)])
    problems = [problem for number, problem in peer.taken if number == 2]
    assert len(problems) == 1 and "nobody.knows" in problems[0]


def publisher_frame(number: int, text: bytes, tagged: bool = False) -> Any:
    from net.wire.frames import EVENT, pack

    return pack(EVENT, number, text, tagged)


def test_large_events_are_read_in_another_thread_and_keep_their_order(network, monkeypatch):
    threads: List[str] = []
    decode = publisher_connection._decode

    def watched(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*args)

    monkeypatch.setattr(publisher_connection, "_decode", watched)
    monkeypatch.setattr(publisher_connection, "MAX_READ", 1000)
    peer = network.peers[A] = Peer("a")
    network.add(A)
    large = ["x" * 100] * 50
    peer.trigger("small")
    until(lambda: network.heard)
    peer.trigger(large)
    until(lambda: len(network.heard) == 2)
    peer.trigger("small")
    until(lambda: network.heard == ["small", large, "small"])
    assert threads == ["test-loop", "net-decoder", "test-loop"]
    until(lambda: "net-decoder" not in [thread.name for thread in threading.enumerate()])


def test_large_events_wait_for_memory_and_free_it(network, monkeypatch):
    monkeypatch.setattr(publisher_connection, "MAX_READ", 1000)
    monkeypatch.setattr(publisher_connection, "ROOM_TIME", 0.01)
    peer = network.peers[A] = Peer("a")
    network.add(A)
    large = ["x" * 100] * 50
    room = Room(network.memory)
    assert room.take(2 ** 40)  # as a large request does
    peer.trigger(large, large)
    time.sleep(0.1)
    assert network.heard == []
    room.free()
    until(lambda: network.heard == [large, large])
    until(lambda: not network.memory._taken)
    # An event without a handler, or that cannot be read, frees it as well.
    network.subscriber._handlers.clear()
    peer.trigger(large)
    until(lambda: len(peer.taken) == 2)
    peer.open[0].sent += 1
    peer.open[0].say(publisher_frame(3, b"[" + b" " * 2000))
    until(lambda: len(peer.taken) == 3 and not network.memory._taken)
    network.add(A)


def test_large_events_that_take_more_than_their_text_says_wait_for_that(network, monkeypatch):
    read: List[int] = []
    decode = publisher_connection._decode

    def counting(*arguments: Any) -> Any:
        read.append(network.memory.taken)
        return decode(*arguments)

    monkeypatch.setattr(publisher_connection, "_decode", counting)
    monkeypatch.setattr(publisher_connection, "ROOM_TIME", 0.01)
    peer = network.peers[A] = Peer("a")
    network.add(A)
    room = Room(network.memory)
    # The text finds room, and its 4.5 MiB of sets do not.
    assert room.take(settings.max_memory - 2 ** 21)
    peer.trigger([set()] * 20_000)
    until(lambda: len(read) == 1 and network.memory.taken == room.size)
    assert network.heard == []
    room.free()
    until(lambda: network.heard == [[set()] * 20_000] and not network.memory.taken)
    assert len(read) == 2


@pytest.mark.parametrize("text, number", [
    (b'["never asked for",1,[],{}]', 1), (b'["done",0,[],{}]', 1), (b'["done",1,[],{}]', 2)])
def test_a_publisher_that_breaks_the_rules_is_left(network, text, number):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    connection, = peer.open
    connection.say(publisher_frame(number, text))
    until(lambda: connection.closed)
    until(lambda: len(peer.asked) == 2)
    assert network.heard == []


def test_without_a_thread_for_the_handlers_the_connection_is_made_again(network, monkeypatch):
    peer = network.peers[A] = Peer("a")
    network.add(A)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "net-handlers":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        peer.trigger("lost")
        until(lambda: len(peer.asked) == 2)
    peer.trigger("heard")
    until(lambda: network.heard == ["heard"])


# --------------------------------------------------------------------------------- failures


def test_failures_are_reported_together_and_not_too_often(network, monkeypatch, caplog):
    monkeypatch.setattr(publisher_connection, "TELL_TIME", 0.2)
    monkeypatch.setattr(publisher_connection, "MAX_FAILURES", 10)
    peer = network.peers[A] = Peer("a")

    def fail(value: Any) -> None:
        raise ValueError(value)

    network.subscriber.add(Handler("done", TAG, fail, {A}))
    peer.trigger(*range(50))
    until(lambda: sum(len(failures) + more for failures, more in peer.failed) == 50)
    assert len(peer.failed) <= 3
    assert peer.failed[0][0][0] == (("done", TAG), "ValueError: 0")
    assert caplog.text.count("Traceback") <= 10


@pytest.mark.parametrize("error", [RuntimeError("no text"), SystemExit(1)])
def test_an_error_that_cannot_be_shown_is_reported_by_its_class(network, monkeypatch, error):
    monkeypatch.setattr(publisher_connection, "TELL_TIME", 0.0)

    class Silent(Exception):
        def __str__(self) -> str:
            raise error

    def fail(value: Any) -> None:
        network.heard.append(value)
        raise Silent

    peer = network.peers[A] = Peer("a")
    network.subscriber.add(Handler("done", TAG, fail, {A}))
    peer.trigger(1, 2)
    until(lambda: network.heard == [1, 2])
    until(lambda: [text for failures, _ in peer.failed for _, text in failures]
          == ["Silent", "Silent"])


# -------------------------------------------------------------------------------- old peers


def test_an_old_peer_is_subscribed_to_once_and_looked_at(network, monkeypatch):
    monkeypatch.setattr(module, "OLD_LOOK_TIME", 0.01)
    network.peers[A] = Peer(None, group="red")
    looked: List[Any] = []
    call = network.call
    monkeypatch.setattr(network, "call",
                        lambda *args: looked.append(args[1] == INFO) or call(*args))
    network.add(A)
    until(lambda: len(looked) > 5)
    first, = marks(network)
    assert network.called == [(A, OLD_SUBSCRIBE, ("done", OWN_ID.decode(), first.decode()))]
    # It was away, and may have forgotten us, or not.
    peer = network.peers.pop(A)
    until(lambda: network.subscriber._targets[A].problem)
    network.peers[A] = peer
    until(lambda: len(network.called) == 2)
    until(lambda: first not in network.connections)
    assert len(marks(network)) == 1


def marks(network: Network) -> List[bytes]:
    """The tags under which old peers may call our handler now."""
    assert all(is_marked(tag) and unmarked(tag) == TAG for tag in network.connections)
    return list(network.connections)


def test_an_old_peer_calls_the_handler_that_has_the_tag_by_then(network):
    network.peers[A] = Peer(None)
    handler = network.add(A)
    until(lambda: network.called)
    mark, = marks(network)
    assert network.connections[mark](5) is None and network.heard == [5]
    again: List[Any] = []
    network.subscriber.add(Handler("done", TAG, again.append, {A}))
    network.connections[mark](6)
    network.subscriber.remove("done", again.append)
    network.connections[mark](7)
    assert network.heard == [5] and again == [6] and not handler.active


def test_a_subscription_that_an_old_peer_refuses_leaves_no_tag_behind(network):
    network.peers[A] = Peer(None)
    network.peers[A].answer = Flag(INVALID_CONNECTION)
    network.add(A)
    until(lambda: network.called and not network.connections)


def test_a_known_old_peer_is_asked_in_its_dialect_and_never_in_ours(network):
    network.peers[A] = Peer(None)
    network.dialects[A] = "0.6"
    network.add(A)
    until(lambda: network.called)
    assert network.dialled == [] and network.dialects[A] == "0.6"


def test_an_old_peer_is_known_by_its_answer(network):
    network.peers[A] = Peer(None)
    network.add(A)
    until(lambda: network.called)
    assert network.dialled == [A] and network.dialects[A] == "0.4"


def test_an_old_peer_is_chosen_by_what_it_says(network):
    network.peers[A] = Peer(None, group="red")
    network.add(A, groups={"blue"})
    assert network.called == []
    network.add(A, event="other", groups={"red"})
    until(lambda: [args[0] for _, _, args in network.called] == ["other"])


def test_an_old_peer_that_is_a_modern_one_now_is_heard_as_such(network, monkeypatch):
    monkeypatch.setattr(module, "OLD_LOOK_TIME", 0.01)
    network.peers[A] = Peer(None)
    network.add(A)
    until(lambda: network.called)
    peer = network.peers[A] = Peer("a")
    peer.info["instance"] = "a"
    until(lambda: asked(peer) == ["done"])
    assert network.dialects[A] == ""


def test_it_is_so_at_once_when_it_answers_anything_else(network):
    network.peers[A] = Peer(None)
    network.add(A)
    until(lambda: network.called)
    peer = network.peers[A] = Peer("a")
    peer.info["instance"] = "a"
    network.dialects[A] = ""
    network.subscriber.answered(A)
    until(lambda: asked(peer) == ["done"])
    calls = len(network.called)
    network.subscriber.answered(A)
    network.subscriber.answered(B)
    assert asked(peer) == ["done"] and len(network.called) == calls


def test_what_knows_no_events_is_tried_again(network, caplog):
    caplog.set_level(logging.INFO)
    network.peers[A] = Peer(None)
    network.peers[A].answer = Flag(INVALID_CONNECTION)
    network.add(A)
    until(lambda: len(network.called) > 2)
    assert "it knows no events" in caplog.text


def test_it_says_what_a_tag_is():
    assert INFO == encode_text("net.defaults.handlers.info") and old_module.LOOK_TIME == 30.0


# -------------------------------------------------------------------------------- and the rest


@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_a_delay_varies_by_half(seconds):
    delays = [module.jitter(seconds) for _ in range(200)]
    assert 0.5 * seconds <= min(delays) < max(delays) < 1.5 * seconds
    assert max(delays) - min(delays) > 0.5 * seconds
