"""Strangers that subscribe or publish: whatever they do, honest peers get every event."""
from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from hearing import (PUBLISHER, SUBSCRIBER, ask, subscriber, until, wait_for_subscribers,
                     wait_until_heard)
from hostile import Publisher, Subscriber, Talk, message
from net.wire.frames import EVENT, FAILED, FAILURE, RESULT, SUBSCRIBE, TAKEN, UNSUBSCRIBE
from processes import PeerProcess
from strangers import Stranger, silence
from times import patience

SECRET = "correct horse battery"


@pytest.fixture
def publisher(peer_process) -> PeerProcess:
    return peer_process(PUBLISHER)


@contextlib.contextmanager
def flooding(address: Any, data: bytes, connections: int = 4) -> Iterator[List[int]]:
    """Subscribe some times and say the same again and again. Gives the bytes that were taken."""
    stop = threading.Event()
    taken = [0]

    def flood() -> None:
        while not stop.is_set():
            with Subscriber(address, "never triggered") as stranger:
                stranger.sock.settimeout(0.1)
                with contextlib.suppress(OSError):
                    while not stop.is_set():
                        with contextlib.suppress(socket.timeout):
                            taken[0] += stranger.sock.send(data)

    threads = [threading.Thread(target=flood) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        stop.set()
        for thread in threads:
            thread.join()


FLOODS = {
    "failures": message(FAILED, 0, {"failures": [["e", "dGFn", "text"]] * 100}) * 10,
    "subscriptions": b"".join([message(SUBSCRIBE, number, {"event": f"e{number}", "tag": "dGFn"})
                               for number in range(2, 1000)]),
    "to and fro": (message(SUBSCRIBE, 2, {"event": "to", "tag": "dGFn"})
                   + message(UNSUBSCRIBE, 0, {"event": "to", "tag": "dGFn"})) * 100,
    "unknown kinds": message(99, 7, None) * 1000,
    "what was not sent": message(TAKEN, 1, None) * 1000,
    "calls": message(1, 7, {"tag": "dGFn", "args": [], "kwargs": {}}) * 1000,
    "no frames": b"GET / HTTP/1.1\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_holds_up_nobody(publisher, peer_process, data):
    honest = peer_process(subscriber(publisher))
    with flooding(publisher.address, data) as taken:
        until(lambda: taken[0])
        for first in range(0, 300, 100):
            began = time.monotonic()
            publisher.execute(f"many({first}, {first + 100})")
            assert wait_until_heard(honest, first + 100) == list(range(first + 100))
            assert time.monotonic() - began < patience(3.0)
    until(lambda: ask(publisher, "list(net.Peer().SUBSCRIPTIONS)") == ["number"], 20)
    # Each kind of line ten times in ten seconds.
    assert len(publisher.errors().splitlines()) < 60


def test_a_subscriber_that_says_too_much_is_read_slowly(publisher):
    with flooding(publisher.address, FLOODS["failures"], 1) as taken:
        until(lambda: taken[0])
        time.sleep(2.0)
        # 512 KiB at once and 128 a second, and what the sockets hold.
        assert taken[0] < 8 * 2 ** 20


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
"""


def test_connections_for_events_leave_descriptors_to_all_else(peer_process):
    publisher = peer_process(LIMITED + PUBLISHER, NET_MAX_CONNECTIONS=64)
    with contextlib.ExitStack() as open_:
        kinds = []
        for _ in range(100):
            with contextlib.suppress(ConnectionError):
                kinds.append(open_.enter_context(Subscriber(publisher.address)).reply.kind)
        assert kinds.count(RESULT) == 64 and set(kinds[64:]) == {FAILURE}
        assert ask(publisher, "len([open(os.devnull) for _ in range(60)])") == 60
        assert ask(publisher, "len(net.peers(refresh=True))") == 0
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS)") == 0)
    with Subscriber(publisher.address) as again:
        assert again.reply.kind == RESULT


def test_many_that_stall_delay_no_honest_publisher(publisher, peer_process):
    with contextlib.ExitStack() as open_:
        fakes = [Stranger(0, silence, f"127.0.0.{host}") for host in range(2, 102)]
        for fake in fakes:
            open_.callback(fake.stop)
        peers = [*[fake.address for fake in fakes], publisher.id]
        process = peer_process(f"PEERS = {peers!r}" + SUBSCRIBER.format(options="PEERS, "))
        # It has waited three seconds for all of them; that one was not as slow.
        wait_for_subscribers(publisher, 1, 1.0)
        publisher.execute("many(0, 10)")
        assert wait_until_heard(process, 10) == list(range(10))
        publisher.kill()
        again = peer_process(PUBLISHER, NET_PORT_START=publisher.address[1], NET_PORT_RANGE=0)
        wait_for_subscribers(again, 1, 5.0)


def hears_of(process: PeerProcess, *values: Any) -> None:
    until(lambda: set(values) <= {value for value in ask(process, "heard")
                                  if type(value) is not tuple})


def test_a_peer_that_claims_to_be_another_does_not_silence_it(publisher, peer_process):
    def talk(one: Talk) -> None:
        one.accept(10 ** 6)
        one.events("number", 10 ** 6 + 1, ["forged"], {})

    instance = ask(publisher, "net.Peer().instance")
    fake = Publisher(0, talk, instance, host="127.0.0.9")
    try:
        process = peer_process(f"FAKE = {fake.address!r}" + SUBSCRIBER.format(
            options=f"[FAKE, {publisher.id!r}], "))
        hears_of(process, "forged")
        wait_for_subscribers(publisher, 1)
        publisher.execute("many(0, 10)")
        hears_of(process, *range(10))
        # What is forged is heard as of the one that said it.
        assert [gap for gap in ask(process, "heard") if type(gap) is tuple] == []
    finally:
        fake.stop()


@pytest.mark.parametrize("data", [
    message(EVENT, 1, ["number", 1, ["forged"], {}]),
    message(1, 7, {"tag": "bmV0LmV2ZW50cy5kZWxpdmVy", "args": ["a", 5, "number", 1, ["forged"], {}],
                   "kwargs": {}}),
], ids=["an event", "a call"])
def test_nobody_brings_events_to_a_process_that_has_not_subscribed(publisher, peer_process, data):
    process = peer_process(subscriber(publisher))
    with Subscriber(process.address) as stranger:
        stranger.send(data)
        publisher.execute("number('true')")
        assert wait_until_heard(process, 1) == ["true"]


def flood_of_events(name: str, value: Any) -> Callable[[Talk], None]:
    """Bring events as fast as they are taken."""
    text = json.dumps(value)

    def talk(one: Talk) -> None:
        one.accept()
        one.sock.settimeout(0.5)
        number = 0
        with contextlib.suppress(OSError):
            while True:
                number += 1
                data = f'["{name}",{number},[{text}],{{}}]'.encode()
                head = message(EVENT, number, None)[:8] + len(data).to_bytes(4, "big")
                one.sock.sendall(head + data)

    return talk


@pytest.mark.parametrize("name, value", [
    ("number", "x"), ("number", "x" * 100_000), ("number", [[1, 2, 3]] * 200_000),
    ("never asked for", "x" * 10_000)], ids=["small", "text", "lists", "another name"])
def test_a_publisher_that_floods_holds_up_no_other(publisher, peer_process, name, value):
    fake = Publisher(0, flood_of_events(name, value), host="127.0.0.9")
    try:
        process = peer_process(f"""
import net, threading, logging
logging.basicConfig()
heard, flood = [], [0]

@net.subscribe("number", {fake.address!r})
def flooded(value):
    flood[0] += 1

@net.subscribe("number", {publisher.id!r})
def hear(value):
    heard.append(value)
""")
        wait_for_subscribers(publisher, 1)
        if name == "number":
            until(lambda: ask(process, "flood[0]"))
        began = time.monotonic()
        publisher.execute("many(0, 20)")
        assert wait_until_heard(process, 20) == list(range(20))
        assert time.monotonic() - began < patience(5.0)
    finally:
        fake.stop()


def test_a_new_secret_ends_events_in_the_clear(publisher, peer_process):
    pytest.importorskip("cryptography")
    process = peer_process(subscriber(publisher))
    with Subscriber(publisher.address) as stranger:
        publisher.execute("number('open')")
        assert b"open" in stranger.frame().text
        publisher.execute(f"net.configure(secret={SECRET!r}); number('secret')")
        assert b"secret" not in stranger.rest()
    assert wait_until_heard(process, 1) == ["open"]
    process.execute(f"net.configure(secret={SECRET!r})")
    wait_for_subscribers(publisher, 1)
    publisher.execute("number('more')")
    assert wait_until_heard(process, 3) == [
        "open", ("gap", "number", publisher.address[1], 1), "more"]


def test_a_new_secret_of_a_subscriber_ends_what_it_hears_in_the_clear(publisher, peer_process):
    pytest.importorskip("cryptography")
    process = peer_process(subscriber(publisher))
    publisher.execute("number('open')")
    assert wait_until_heard(process, 1) == ["open"]
    process.execute(f"net.configure(secret={SECRET!r})")
    assert ask(process, "heard") == ["open"]  # by then it has the secret
    publisher.execute("number('in the clear')")
    wait_for_subscribers(publisher, 0)
    assert ask(process, "heard") == ["open"]


def test_an_error_that_cannot_be_shown_ends_no_handler(publisher, peer_process):
    process = peer_process(subscriber(publisher) + f"""
class Hostile(Exception):
    def __str__(self):
        raise SystemExit
    __repr__ = __str__

@net.subscribe("number", {publisher.id!r})
def broken(value):
    raise Hostile(value)
""")
    publisher.execute("many(0, 5)")
    assert wait_until_heard(process, 5) == list(range(5))
    until(lambda: "raised on an event" in publisher.errors())
    assert ask(process, "[facts['errors'] for name, facts in net.stats()['connections'].items() "
                        "if 'broken' in name]") == [5]
