"""Events to and from peers of the documented old dialect, which these tests play by hand."""
from __future__ import annotations

import base64
import json
import socket
import threading
from typing import Any, Callable, Dict, Iterator, List

import pytest

import net
from hearing import PUBLISHER, SUBSCRIBER, ask, until, wait_for_subscribers, wait_until_heard
from times import patience

SUBSCRIPTION_HANDLER = "net.defaults.handlers.subscription_handler"


def text_to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def old_encode(value: Any) -> bytes:
    return base64.b64encode(json.dumps(value).encode())


class OldPeer:
    """An old peer: it receives 1,024 bytes once, answers, and closes.

    :ivar functions: name -> function.
    :ivar subscriptions: event -> peer id -> tags, as it is documented.
    """

    def __init__(self, port: int = 0) -> None:
        self.functions: Dict[str, Callable[..., Any]] = {
            SUBSCRIPTION_HANDLER: self._subscribe,
            "net.defaults.handlers.info": lambda: {"group": None, "hub": False},
        }
        self.subscriptions: Dict[str, Dict[str, List[str]]] = {}
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.id = text_to_base64(f"127.0.0.1:{self.port} -> None")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _subscribe(self, event: str, peer_id: str, tag: str) -> None:
        # Bytes, as Python 3 writes them.
        peer_id, tag = peer_id.split("'")[1], tag.split("'")[1]
        self.subscriptions.setdefault(event, {}).setdefault(peer_id, []).append(tag)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self._answer(connection.recv(1024)))
                except ConnectionError:
                    pass

    def _answer(self, data: bytes) -> bytes:
        try:
            request = json.loads(base64.b64decode(data))
            name = base64.b64decode(request["connection"]).decode()
            if name not in self.functions:
                return base64.b64encode(b"INVALID_CONNECTION")
            return old_encode({"raw": self.functions[name](*request["args"], **request["kwargs"])})
        except Exception as problem:
            text = f"Traceback (most recent call last):\n{type(problem).__name__}: {problem}"
            return old_encode({"payload": "error", "traceback": text})

    def call(self, address: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        with socket.create_connection(address, timeout=patience(10)) as connection:
            connection.sendall(old_encode(
                {"connection": text_to_base64(name), "args": args, "kwargs": kwargs}))
            return json.loads(base64.b64decode(connection.recv(1024)))

    def trigger(self, event: str, *args: Any, **kwargs: Any) -> List[Any]:
        return [self.call(base64.b64decode(peer).decode().split(" -> ")[0].split(":"),
                          base64.b64decode(tag).decode(), *args, **kwargs)
                for peer, tags in self.subscriptions[event].items() for tag in tags]


@pytest.fixture
def old_peer() -> Iterator[OldPeer]:
    peer = OldPeer()
    yield peer
    peer.close()


@pytest.fixture
def publisher(peer_process):
    return peer_process(PUBLISHER)


def subscribe(old_peer: OldPeer, publisher: Any, name: str, function: Callable[..., Any]) -> Any:
    old_peer.functions[name] = function
    return old_peer.call(publisher.address, SUBSCRIPTION_HANDLER, "number", old_peer.id,
                         text_to_base64(name))


def counts(publisher: Any) -> List[Dict[str, int]]:
    return ask(publisher, "list(net.stats()['events']['number']['subscribers'].values())")


def test_an_old_peer_hears_our_events_in_its_dialect(publisher, old_peer):
    heard: List[Any] = []
    assert subscribe(old_peer, publisher, "app.hear", heard.append) == {"raw": True}
    publisher.execute("many(0, 200), number((1, [2, {'x': None}]))")
    until(lambda: len(heard) == 201)
    assert heard == [*range(200), [1, [2, {"x": None}]]]
    until(lambda: counts(publisher) == [{"sent": 201, "queued": 0, "dropped": 0}])


def test_what_the_old_dialect_cannot_carry_is_dropped_and_the_rest_goes_on(publisher, old_peer):
    heard: List[Any] = []
    subscribe(old_peer, publisher, "app.hear", heard.append)
    publisher.execute("number(1), number(b'bytes'), number('x' * 2000), number(4)")
    until(lambda: heard[-1:] == [4])
    assert heard == [1, 4]
    until(lambda: publisher.errors().count("cannot take") == 2)
    until(lambda: counts(publisher) == [{"sent": 2, "queued": 0, "dropped": 2}])


def test_an_old_handler_that_raises_is_logged_and_hears_on(publisher, old_peer):
    heard: List[Any] = []

    def hear(value: Any) -> None:
        heard.append(value)
        raise ValueError("old and tired")

    subscribe(old_peer, publisher, "app.hear", hear)
    publisher.execute("many(0, 3)")
    until(lambda: len(heard) == 3)
    until(lambda: publisher.errors().count("old and tired") == 3)
    assert "app.hear" in publisher.errors()


def test_an_old_peer_that_is_gone_is_forgotten(publisher):
    peer = OldPeer()
    heard: List[Any] = []
    subscribe(peer, publisher, "app.hear", heard.append)
    publisher.execute("number(1)")
    until(lambda: heard)
    peer.close()
    publisher.execute("number(2)")
    wait_for_subscribers(publisher, 0)


def test_an_old_handler_that_is_not_there_loses_events_and_hears_on_when_it_is(
        publisher, old_peer):
    # A program that was started again serves before it has all of its functions.
    heard: List[Any] = []
    subscribe(old_peer, publisher, "app.hear", heard.append)
    function = old_peer.functions.pop("app.hear")
    publisher.execute("number(1)")
    until(lambda: counts(publisher) == [{"sent": 0, "queued": 0, "dropped": 1}])
    old_peer.functions["app.hear"] = function
    publisher.execute("number(2)")
    until(lambda: heard == [2])
    until(lambda: counts(publisher) == [{"sent": 1, "queued": 0, "dropped": 1}])


def test_an_old_peer_that_subscribes_again_hears_once(publisher, old_peer):
    heard: List[Any] = []
    for _ in range(3):
        subscribe(old_peer, publisher, "app.hear", heard.append)
    publisher.execute("many(0, 20)")
    until(lambda: len(heard) >= 20)
    assert heard == list(range(20))


def test_we_hear_the_events_of_an_old_peer(old_peer, peer_process):
    process = peer_process(SUBSCRIBER.format(options=f"peers=('127.0.0.1', {old_peer.port}), "))
    assert list(old_peer.subscriptions["number"]) == [process.id.decode()]
    for value in range(20):
        assert old_peer.trigger("number", value) == [{"raw": None}]
    assert wait_until_heard(process, 20) == list(range(20))


def test_an_old_peer_that_is_not_there_yet_is_subscribed_to_when_it_is(peer_process, port_range):
    port = port_range[-1]
    process = peer_process(SUBSCRIBER.format(options=f"peers='127.0.0.1:{port}', "))
    peer = OldPeer(port)
    try:
        until(lambda: "number" in peer.subscriptions)
        peer.trigger("number", 5)
        assert wait_until_heard(process, 1) == [5]
        assert [len(tags) for tags in peer.subscriptions["number"].values()] == [1]
    finally:
        peer.close()


def test_an_old_peer_is_told_when_our_handler_raises(old_peer, peer_process):
    peer_process(f"""
import net
@net.subscribe("number", ("127.0.0.1", {old_peer.port}))
def broken(value):
    return 1 / value
""")
    reply, = old_peer.trigger("number", 0)
    assert reply["payload"] == "error" and "ZeroDivisionError" in reply["traceback"]
    assert old_peer.trigger("number", 2) == [{"raw": 0.5}]


def test_a_handler_is_called_by_others_only_as_its_own_groups_say(old_peer, peer_process):
    """It is a connected function, too, which old programs call by its name; its events, an old
    publisher's as well, come whatever its groups are."""
    process = peer_process(f"""
import net
heard = []
@net.subscribe("number", ("127.0.0.1", {old_peer.port}))
def free(value):
    heard.append(("free", value))
@net.subscribe("number", ("127.0.0.1", {old_peer.port}))
@net.connect(groups=["nobody"])
def guarded(value):
    heard.append(("guarded", value))
""")
    assert old_peer.call(process.address, "application.free", "called") == {"raw": None}
    net.remote("application.free")("called", peer=process.id)
    refused = old_peer.call(process.address, "application.guarded", "called")
    assert refused["payload"] == "error" and "guarded" in refused["traceback"]
    with pytest.raises(net.AuthenticationError):
        net.remote("application.guarded")("called", peer=process.id)
    old_peer.trigger("number", "event")
    assert sorted(ask(process, "heard")) == [
        ("free", "called"), ("free", "called"), ("free", "event"), ("guarded", "event")]
