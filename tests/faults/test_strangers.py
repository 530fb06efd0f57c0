"""What an attacker once got through, tried again against real processes, each in a few lines."""
from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until, wait_for_subscribers
from hostile import Publisher, Searcher, Subscriber, Talk
from net.discovery.lan.datagrams import GOODBYE, HELLO
from net.wire.frames import CALL, HEADER
from service import Raw, greeted, memory, request
from strangers import Stranger, silence

SECRET = "correct horse battery"

SERVES = """
import net, threading

@net.connect("echo")
def echo(value):
    return value

@net.connect("wait")
def wait():
    threading.Event().wait(20)
"""

WATCHES = """
import net
changes = []
net.watch(lambda change, peer: changes.append((change, peer.address)))
echo = net.remote("echo")

def outcome(peer):
    try:
        return echo(5, peer=peer)
    except net.NetError as problem:
        return type(problem).__name__, problem.ran
"""


def hoard(opened: contextlib.ExitStack, address: Any, number: int, *calls: bytes,
          source: str = "127.0.0.9") -> list:
    """Connections that have called."""
    return [opened.enter_context(Raw(address, greeted(*calls), source=source))
            for _ in range(number)]


# ------------------------------------------------------------------------------ connections

def test_a_caller_that_holds_the_places_of_a_peer_keeps_them_from_nobody_else(peer_process):
    peer = peer_process(SERVES, NET_MAX_CONNECTIONS=32)
    with contextlib.ExitStack() as opened:
        held = hoard(opened, peer.address, 40, request("echo", 1))
        for raw in held:
            raw.sock.recv(1)  # it is served, or refused
        for number in range(2, 5):
            with Raw(peer.address, greeted(request("echo", 5)), source=f"127.0.0.{number}") as raw:
                assert raw.reply() == 5


def test_a_refusal_comes_soon_whoever_waits(peer_process):
    peer = peer_process(SERVES, NET_MAX_CONNECTIONS=8)
    caller = peer_process(WATCHES, NET_UNIX="0")
    with contextlib.ExitStack() as opened:
        hoard(opened, peer.address, 8, request("wait"))
        hoard(opened, peer.address, 8, request("wait"), source="127.0.0.1")
        until(lambda: ask(caller, f"outcome({peer.id!r})") == ("PeerBusy", "no"))
        took = ask(caller, f"[__import__('time').monotonic(), outcome({peer.id!r}), "
                           f"__import__('time').monotonic()]")
        assert took[1] == ("PeerBusy", "no") and took[2] - took[0] < 3.0


def test_a_peer_at_its_limit_is_not_said_to_have_left(peer_process):
    peer = peer_process(SERVES, NET_MAX_CONNECTIONS=4)
    watcher = peer_process(WATCHES, NET_UNIX="0")
    until(lambda: ask(watcher, "changes") == [("came", peer.address)])
    with contextlib.ExitStack() as opened:
        hoard(opened, peer.address, 4, request("wait"))
        hoard(opened, peer.address, 4, request("wait"), source="127.0.0.1")
        until(lambda: ask(watcher, f"outcome({peer.id!r})") == ("PeerBusy", "no"))
        with Searcher() as stranger:
            stranger.say(GOODBYE, watcher.address, port=peer.address[1])
        for _ in range(3):
            ask(watcher, f"outcome({peer.id!r})")
            assert ask(watcher, "[peer.address for peer in net.peers(refresh=True)]") == \
                [peer.address]
    assert ask(watcher, "changes") == [("came", peer.address)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limited address space")
def test_declared_lengths_leave_the_address_space_to_others(peer_process):
    peer = peer_process("""
import resource
resource.setrlimit(resource.RLIMIT_AS, (1500 * 2 ** 20, 1500 * 2 ** 20))
""" + SERVES)
    text = b'{"tag":"x","args":[1],"kwargs":{}}'
    lies = HEADER.pack(CALL, 1, 1, 1, len(text)) + (2 ** 30).to_bytes(8, "big") + text
    with contextlib.ExitStack() as opened:
        for raw in hoard(opened, peer.address, 32, lies):
            raw.send(b"x" * 100_000)
        with Raw(peer.address, greeted(request("echo", 5)), source="127.0.0.2") as raw:
            assert raw.reply() == 5


def test_a_new_secret_ends_what_strangers_have_opened(peer_process):
    pytest.importorskip("cryptography")
    peer = peer_process(SERVES + PUBLISHER)
    with Raw(peer.address, greeted(request("echo", 1))) as caller, \
            Raw(peer.address, greeted()) as greeted_only, Subscriber(peer.address) as hears:
        assert caller.reply() == 1
        ask(peer, f"net.configure(secret={SECRET!r})")
        assert b"" == caller.rest() == greeted_only.rest() == hears.rest()


# ------------------------------------------------------------------------------ events

def test_what_waits_for_slow_handlers_is_counted_by_what_it_is(peer_process):
    sent = [0]

    def flood(one: Talk) -> None:
        one.accept()
        for number in range(1, 3000):
            one.events("number", number, ["x" * 100_000], {})
            sent[0] += 100_000

    fake = Publisher(0, flood, host="127.0.0.9")
    try:
        process = peer_process(f"""
import net, threading
from net.process import process
from net.events import Events

@net.subscribe("number", {fake.address!r})
def hear(value):
    threading.Event().wait()
""")
        before = memory(process.pid)
        until(lambda: not ask(process, "process.once(Events).subscriber.runner.has_room"), 20)
        until(lambda: sent[0] > 8 * 2 ** 20 or memory(process.pid) > before + 8 * 2 ** 20)
        # 300 MB are on offer. Beside the queue the sockets hold some.
        assert memory(process.pid) < before + 60 * 2 ** 20
        assert sent[0] < 60 * 2 ** 20
    finally:
        fake.stop()


def test_fakes_that_answer_a_search_and_then_stall_delay_no_honest_publisher(peer_process):
    publisher = peer_process(PUBLISHER)
    with contextlib.ExitStack() as opened:
        for number in range(2, 6):
            port = publisher.address[1] + number
            opened.callback(Stranger(port, silence).stop)
            facts = json.dumps({"host": "127.0.0.1", "group": None, "hub": False}).encode()
            fake = opened.enter_context(Searcher(port=port))
            fake.pretend(publisher.address, facts)
        process = peer_process(SUBSCRIBER.format(options=""), NET_PORT_START=publisher.address[1])
        wait_for_subscribers(publisher, 1)
        ask(publisher, "many(0, 10)")
        until(lambda: set(range(10)) <= set(ask(process, "heard")))


def test_what_strangers_say_of_failures_is_logged_a_few_times(peer_process):
    publisher = peer_process(PUBLISHER)
    failures = [["e", "dGFn", "text"]] * 100
    for said in (["MTI3LjAuMC4xOjkgLT4gTm9uZQ==", failures, 0],
                 ["MTI3LjAuMC4xOjkgLT4gTm9uZQ==", [], "text"], [5], [None, {}, []]):
        with Raw(publisher.address, greeted(*[request("net.events.failed", *said)] * 50)) as raw:
            with contextlib.suppress(Exception):
                raw.reply()
    ask(publisher, "many(0, 1)")
    assert len(publisher.errors().splitlines()) < 60


# ------------------------------------------------------------------------------ discovery

def test_peers_that_are_not_there_are_gone_soon(peer_process):
    peer = peer_process(SERVES)
    watcher = peer_process(WATCHES)
    until(lambda: ask(watcher, "changes") == [("came", peer.address)])
    ports = range(max(peer.address[1], watcher.address[1]) + 1, peer.address[1] + 6)
    facts = json.dumps({"host": "127.0.0.1", "group": None, "hub": False,
                        "junk": "y" * 900}).encode()
    with contextlib.ExitStack() as opened:
        fakes = [opened.enter_context(Searcher(port=port)) for port in ports]
        for fake in fakes:
            fake.pretend(watcher.address, facts)
        until(lambda: ask(watcher, "len(net.peers())") > 1)
        for number in range(500):  # nobody answers for these
            fakes[0].instance = number.to_bytes(16, "big")
            fakes[0].say(HELLO, watcher.address, bytes(10), port=20000 + number)
        assert ask(watcher, "len(net.peers())") <= 1 + len(fakes)
    until(lambda: ask(watcher, "[peer.address for peer in net.peers()]") == [peer.address])
    assert ask(watcher, "[one for one in changes if one[1] == changes[0][1]]") == \
        [("came", peer.address)]


def test_a_recorded_answer_opens_no_connections(peer_process):
    peer = peer_process(SERVES)
    watcher = peer_process(WATCHES)
    until(lambda: ask(watcher, "changes") == [("came", peer.address)])
    opened = [0]

    def count(sock: Any) -> None:
        opened[0] += 1

    with Searcher() as asker:
        answer = asker.ask(peer.address)
        assert answer is not None
    port = max(peer.address[1], watcher.address[1]) + 1
    stranger = Stranger(port, count)
    try:
        with Searcher(instance=answer.instance) as replays:
            for number in range(1000):
                for kind, place in ((answer.kind, port), (GOODBYE, peer.address[1])):
                    replays.say(kind, watcher.address, answer.body, place, answer.nonce)
            began = time.monotonic()
            until(lambda: ask(watcher, f"outcome({peer.id!r})") == 5)
        assert opened[0] <= 4 + time.monotonic() - began
    finally:
        stranger.stop()
    assert ask(watcher, "changes") == [("came", peer.address)]
