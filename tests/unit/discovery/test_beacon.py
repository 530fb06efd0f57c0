"""The beacon and the node of a process: real datagrams and the loop, on loopback."""
from __future__ import annotations

import json
import socket
import threading
from time import monotonic
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest

from hearing import until
from net.discovery.lan import beacon as module
from net.discovery.lan.beacon import announcements
from net.discovery.lan.datagrams import (ANSWER, ASK, ASK_BYTES, GOODBYE, HELLO, Message, decode,
                                         encode, encode_question, read_said)
from net.discovery.lan.finder import Lan, read_facts
from net.discovery.lan.sockets import open_socket
from net.discovery.membership import Heard
from net.link import interfaces
from net.link.interfaces import GROUP, Interface
from net.process import process
from net.run.loop import Loop
from each import each
from times import patience

HERE = "127.0.0.1"


class FakePeer:
    """What a beacon needs of a launched peer."""

    bound = [HERE]

    def __init__(self, port: int, facts: Dict[str, Any]) -> None:
        self.server = SimpleNamespace(address=(HERE, port))
        self.friendly_id = {"host": HERE, "port": port, "group": None, "instance": "x", **facts}


class Listing:
    """A list of peers that does what the cache does, and writes it down."""

    def __init__(self) -> None:
        self.known: Dict[Any, Any] = {}
        self.finder: Any = None

    def learn(self, answers):
        for answer in answers:
            self.known[answer.address] = answer
        self.finder.listed(list(answers), [])

    def drop(self, address):
        self.known.pop(address, None)
        self.finder.listed([], [address])


@pytest.fixture
def make():
    """Make processes: each has a loop, a list and peers of its own. Closed with the test."""
    made: List[Any] = []

    def make(watching=True):
        loop, listing = Loop("test"), Listing()
        lan = Lan(SimpleNamespace(loop=loop, client=process.client,
                                  instance=f"{len(made) + 1:02}" * 16), listing)
        listing.finder = lan
        closers: List[Any] = []

        def launch(port, **facts):
            closers.append(lan.announce(FakePeer(port, facts)))
            return closers[-1]
        lan.launch, lan.list = launch, listing
        lan.watch(float("inf") if watching else 0.0)
        made.append((lan, closers))
        return lan

    yield make
    for lan, closers in made:
        lan.watch(0.0)
        for close in closers:
            close()
        until(lambda: not lan.node.beacons and not lan.node._timer)


@pytest.fixture
def ports(port_range, monkeypatch):
    from net.settings import settings

    monkeypatch.setitem(settings.__dict__, "port_start", port_range.start)
    return port_range


def ask(port, data=None):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience(5))
        sock.bind((HERE, 0))
        sock.sendto(data or encode(Message(ASK, 0, 0, b"12345678", b"z" * 16,
                                           encode_question(size=ASK_BYTES))), (HERE, port))
        return sock.recvfrom(2048)


def test_a_running_beacon_answers_from_its_port_with_what_its_peer_says(make, ports):
    began = monotonic()
    make().launch(ports[0], group="render")
    datagram, source = ask(ports[0])
    message = decode(datagram)
    assert (message.kind, message.port, message.nonce) == (ANSWER, ports[0], b"12345678")
    assert source == (HERE, ports[0])
    facts = json.loads(read_said(message.body).facts)
    assert facts == {"host": HERE, "port": ports[0], "group": "render"}
    assert message.instance == b"\x01" * 16
    assert min(message.age, 3.9) <= monotonic() - began


@pytest.mark.parametrize("change", ["setting", "name", "told"])
def test_a_peer_is_described_anew_only_when_something_has_changed(ports, monkeypatch, change):
    from net.settings import Settings

    monkeypatch.setattr(module, "SELF_SECONDS", 0.0)
    peer = FakePeer(ports[0], {})
    beacon = module.Beacon(peer, [HERE], ports[0], b"a" * 16, lambda: (0, 0), None, None)
    try:
        first = beacon._describe()
        peer.friendly_id = {**peer.friendly_id, "group": "render"}
        assert beacon._describe() == first
        if change == "setting":
            monkeypatch.setattr(Settings, "changes", Settings.changes + 1)
        elif change == "name":
            monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
        else:
            beacon.forget_facts()
        assert json.loads(beacon._describe().facts)["group"] == "render"
    finally:
        beacon.sockets.close()


def test_noise_does_not_stop_a_beacon(make, ports):
    make().launch(ports[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for size in (0, 1, 24, 2000, 20000):
            sock.sendto(b"\xab" * size, (HERE, ports[0]))
        for kind in range(10):
            sock.sendto(encode(Message(1, 0, 0))[:5] + bytes((kind,)) + bytes(60), (HERE, ports[0]))
    assert ask(ports[0])


def test_several_questions_of_one_host_that_were_read_late_get_one_answer(make, ports):
    lan = make()
    lan.launch(ports[0])
    ask(ports[0])
    stopped, go_on = threading.Event(), threading.Event()
    lan._loop.call_soon(lambda: (stopped.set(), go_on.wait(patience(5))))
    assert stopped.wait(patience(5))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience(0.3))
        for number in range(5):
            sock.sendto(encode(Message(ASK, 0, 0, bytes((number,)) * 8, b"z" * 16,
                                       encode_question(size=ASK_BYTES))), (HERE, ports[0]))
        go_on.set()
        # To the first question: the others were not lost.
        assert decode(sock.recv(2048)).nonce == b"\x00" * 8
        with pytest.raises(socket.timeout):
            sock.recv(2048)


def test_a_newcomer_is_listed_by_all_that_watch_and_gone_when_it_says_goodbye(make, ports):
    one, other = make(), make(watching=False)
    one.launch(ports[0])
    close = other.launch(ports[1], group="render")
    until(lambda: (HERE, ports[1]) in one.list.known)
    answer = one.list.known[HERE, ports[1]]
    assert answer.facts["group"] == "render" and answer.facts["instance"] == "02" * 16
    close()
    until(lambda: not one.list.known)


def test_a_peer_whose_facts_are_long_is_asked_with_room_for_them(make, ports):
    one, other = make(), make(watching=False)
    one.launch(ports[0])
    other.launch(ports[1], facts={"much": "x" * 1000})
    until(lambda: (HERE, ports[1]) in one.list.known)
    assert one.list.known[HERE, ports[1]].facts["facts"] == {"much": "x" * 1000}


def test_nobody_follows_announcements_before_anybody_has_searched(make, ports):
    one, other = make(watching=False), make(watching=False)
    one.launch(ports[0])
    ask(ports[0])
    other.launch(ports[1])
    ask(ports[1])
    assert not one.list.known and not one.node.membership._checks


def test_a_process_without_a_peer_watches_from_a_socket_of_its_own(make, ports):
    watcher, other = make(), make(watching=False)
    close = other.launch(ports[0])
    facts = {"host": HERE, "port": ports[0]}
    watcher.list.learn([read_facts(Heard((HERE, ports[0]), b"\x02" * 16, 0,
                                         json.dumps(facts).encode(), 0.001))])
    until(lambda: other.node.beacons and other.node.beacons[0].responder.watchers)
    # As if it were killed: it says nothing.
    other.node.beacons[0].goodbye = lambda: None
    close()
    until(lambda: not watcher.list.known)


def test_a_closed_beacon_frees_its_port_and_says_goodbye(make, ports):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((HERE, ports[1]))
        listener.settimeout(patience(5))
        close = make(watching=False).launch(ports[0])
        kinds = [decode(listener.recv(2048)).kind]
        close()
        while kinds[-1] != GOODBYE:
            kinds.append(decode(listener.recv(2048)).kind)
        assert set(kinds[:-1]) == {HELLO}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, ports[0]))


def test_goodbye_is_said_when_no_hello_can_follow(make, ports):
    lan = make(watching=False)
    close = lan.launch(ports[0])
    until(lambda: lan.node.beacons)
    (beacon,) = lan.node.beacons
    greeting: List[bool] = []
    beacon.goodbye = lambda: greeting.append(beacon in lan.node.beacons)
    close()
    assert greeting == [False]


def test_a_taken_port_leaves_a_peer_without_datagrams_and_nothing_open(make, ports):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, ports[0]))
        lan = make(watching=False)
        close = lan.launch(ports[0])
        assert not lan.node.beacons
        close()


def test_what_cannot_be_sent_delays_nothing_and_hurts_nobody(make, ports):
    lan = make()
    lan.launch(ports[0])
    ask(ports[0])
    began = monotonic()
    for address in (("192.0.2.1", 9), ("127.0.0.1", 0), ("255.255.255.255", 9)):
        lan.node.beacons[0].send(b"x" * 100, address)
    assert monotonic() - began < patience(1) and ask(ports[0])


def test_the_secret_that_was_just_set_counts_for_the_next_question(make, ports, monkeypatch):
    pytest.importorskip("cryptography")
    make().launch(ports[0])
    assert read_said(decode(ask(ports[0])[0]).body).facts
    from net.discovery.lan.datagrams import Seal

    seal = Seal(b"k" * 32)
    monkeypatch.setattr(module, "make_seal", lambda: seal)
    monkeypatch.setattr("net.settings.Settings.secured", True)
    monkeypatch.setattr("net.settings.Settings.revision", module.settings.revision + 1)
    assert not decode(ask(ports[0])[0]).body
    question = encode(Message(ASK, 0, 0, b"12345678", b"z" * 16,
                              encode_question(size=ASK_BYTES, sealed=True)), seal)
    datagram, _ = ask(ports[0], question)
    assert decode(datagram).body == b"" and read_said(decode(datagram, seal).body).facts


def told(hosts):
    return [(source.address, target) for source, target in announcements(hosts)]


def test_announcements_of_a_loopback_peer_go_to_loopback_only():
    assert told(["127.0.0.1"]) == [("127.0.0.1", "127.0.0.1")]
    assert told(["127.0.0.5"]) == [("127.0.0.5", "127.0.0.1")]
    assert told(["::1"]) == [("::1", "::1")]
    assert told(["192.168.1.10"]) == [("192.168.1.10", "255.255.255.255")]


def test_a_peer_says_once_on_each_network_and_in_each_family_that_it_is_there(monkeypatch):
    every = [Interface("lo", "::1", 128, 1), Interface("eth0", "192.168.1.10", 24),
             Interface("eth0", "fe80::5%eth0", 64, 2), Interface("eth0", "fd00::77", 64, 2, True),
             Interface("eth0", "fd00::5", 64, 2), Interface("wlan0", "fe80::6%wlan0", 64, 3),
             Interface("docker0", "172.17.0.1", 16), Interface("docker0", "fd00:d::1", 64, 4)]
    monkeypatch.setattr(interfaces, "read", lambda: (every, ""))
    four = [("192.168.1.10", "192.168.1.255"), ("172.17.0.1", "172.17.255.255")]
    six = [("fd00::5", GROUP), ("fe80::6%wlan0", GROUP)]
    assert told(["0.0.0.0", "::"]) == four + six
    assert told(["0.0.0.0"]) == four
    assert told(["fe80::5%eth0"]) == [("fe80::5%eth0", GROUP)]
    assert [source.number for source, _ in announcements(["fd00::5"])] == [2]


def test_a_socket_that_cannot_be_bound_is_closed():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, 0))
        with pytest.raises(OSError):
            open_socket(HERE, sock.getsockname()[1])


@each("facts", [b"", b"[]", b"nonsense", b'{"host": "192.0.2.1"}', b"[" * 1000])
def test_what_a_datagram_cannot_tell_is_left_to_tcp(facts):
    assert read_facts(Heard((HERE, 3010), b"i" * 16, 0, facts, 0.1)) is None


def test_a_peer_at_every_address_of_its_host_may_be_known_by_another_than_it_says():
    from net.discovery.lan.datagrams import EVERYWHERE

    answer = read_facts(Heard((HERE, 3010), b"i" * 16, EVERYWHERE, b'{"host": "10.0.0.1"}', 0.1))
    assert answer.facts == {"host": "10.0.0.1", "instance": (b"i" * 16).hex()}
