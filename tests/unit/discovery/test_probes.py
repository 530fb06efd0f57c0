"""Probes: real peers are found whatever else listens, in time, and nothing is left open."""
from __future__ import annotations

import errno
import itertools
import os
import re
import socket
import threading
from time import monotonic

import pytest

import strangers
from hearing import until
from net.discovery import probes as sweep
from net.discovery.probes import STRANGER_SECONDS, Candidate, Sweep, describe, window
from net.wire import legacy
from net.wire.frames import FLAG, HEADER, LENGTH, RESULT, pack
from net.wire.messages import encode_failure, encode_refusal, encode_result
from net.wire.session import encode_preface
from net.errors import PeerBusy
from net.run.client import Client
from net.settings import settings
from strangers import Stranger, greeted, reply, says
from times import patience

FACTS = {"instance": "a" * 32, "host": "127.0.0.1", "port": 1, "group": None}


@pytest.fixture
def stranger(port_range):
    """Start listeners on the ports of the test's range, one after the other."""
    ports = iter(port_range)
    started = []

    def start(treat):
        started.append(Stranger(next(ports), treat))
        return started[-1].address

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def run(monkeypatch):
    """Probe addresses and give what was found, and how long it took."""
    monkeypatch.setattr(sweep, "PEER_SECONDS", patience(STRANGER_SECONDS))

    def probe(*addresses, seconds=patience(STRANGER_SECONDS), window=100, end=patience(5)):
        one = Sweep(window, monotonic() + end, set())
        for address in addresses:
            one.add(Candidate(address, "test", seconds))
        started = monotonic()
        one.run()
        return one.findings, monotonic() - started
    return probe


def test_a_peer_introduces_itself_once_it_has_said_hello(stranger, run):
    asked = []

    def peer(sock):
        asked.append(sock.recv(4096))
        sock.sendall(strangers.HELLO)
        asked.append(sock.recv(4096))
        sock.sendall(reply(FACTS))

    findings, _ = run(stranger(peer), seconds=5)
    answer, = findings.answers
    assert answer.facts == FACTS and not answer.old and answer.found == "test"
    assert 0 < answer.seconds < 5
    assert asked == [encode_preface(settings.group), sweep.QUESTION]


def test_a_reply_in_many_pieces_is_put_together(stranger, run):
    findings, _ = run(stranger(strangers.drips((strangers.HELLO + reply(FACTS))[:40])), seconds=0.3)
    assert findings.answers == []

    def pieces(sock):
        sock.recv(4096)
        for byte in strangers.HELLO:
            sock.sendall(bytes((byte,)))
        sock.recv(4096)
        for byte in reply(FACTS):
            sock.sendall(bytes((byte,)))

    findings, _ = run(stranger(pieces), seconds=5)
    assert findings.answers[0].facts == FACTS


class Waiting:
    """A probe of an address by a clock that only the test moves.

    :ivar asked: set once the address has received a number of messages.
    """

    def __init__(self, stranger, monkeypatch, messages):
        self.now, self.asked, self._go = 0.0, threading.Event(), threading.Event()
        monkeypatch.setattr(sweep, "monotonic", lambda: self.now)
        self.sweep = Sweep(1, 100.0, set())
        self.address = stranger(self._treat)
        self._messages = messages
        self.sweep.add(Candidate(self.address, "test"))
        until(lambda: self.sweep.step(0.01) or self.asked.is_set())

    def _treat(self, sock):
        for number in range(2):
            sock.recv(4096)
            if self._messages == number + 1:
                self.asked.set()
                self._go.wait(patience(10))
            sock.sendall(reply(FACTS) if number else strangers.HELLO)

    def pass_time(self, seconds, at_a_time=0.02):
        ends = self.now + seconds
        while self.now < ends:
            self.now += at_a_time
            self.sweep.step(0)

    def found(self):
        """What the probe finds if the address goes on."""
        self._go.set()
        until(lambda: self.sweep.step(0.01) or self.sweep.idle)
        self.sweep.close()
        return self.sweep.findings


def test_a_peer_that_has_greeted_has_time_to_describe_itself(stranger, monkeypatch):
    waiting = Waiting(stranger, monkeypatch, 2)
    waiting.pass_time(sweep.PEER_SECONDS - 0.1)
    assert waiting.found().answers[0].facts == FACTS


def test_a_peer_that_has_greeted_is_not_waited_for_without_end(stranger, monkeypatch):
    waiting = Waiting(stranger, monkeypatch, 2)
    waiting.pass_time(sweep.PEER_SECONDS + 0.1)
    assert waiting.found().strangers == [(waiting.address, "a reply that does not end")]


def test_an_address_that_has_shown_in_another_way_that_it_is_a_peer_has_more_time(
        stranger, monkeypatch):
    waiting = Waiting(stranger, monkeypatch, 1)
    waiting.pass_time(STRANGER_SECONDS - 0.1)
    waiting.sweep.prolong(waiting.address, 0.8)
    waiting.pass_time(0.7)
    assert waiting.found().answers[0].facts == FACTS


def test_time_in_which_this_process_stands_still_does_not_count(stranger, monkeypatch):
    waiting = Waiting(stranger, monkeypatch, 1)
    waiting.pass_time(10.0, at_a_time=5.0)
    waiting.pass_time(STRANGER_SECONDS / 2)
    assert waiting.found().answers[0].facts == FACTS


OLD_FACTS = {"group": "old", "hub": True}
BOTH = pytest.mark.parametrize("dialect", [legacy.BASE64, legacy.PLAIN])


@pytest.fixture
def client(monkeypatch):
    """What this process knows of who speaks which dialect: nothing yet."""
    client = Client(settings, sweep.process.loop)
    monkeypatch.setattr(sweep.process, "client", client)
    return client


@BOTH
def test_an_old_peer_is_asked_again_in_its_own_dialect(stranger, run, client, dialect):
    asked: list = []
    address = stranger(strangers.old_peer(OLD_FACTS, dialect, asked))
    findings, _ = run(address, seconds=5)
    answer, = findings.answers
    assert answer.dialect == dialect and answer.old and answer.facts == OLD_FACTS
    # And from then on only in that one.
    assert client.dialect(address) == dialect
    assert len(asked) == 2 and asked[0].startswith(b"\xabnet")
    findings, _ = run(address, seconds=5)
    assert findings.answers[0].facts == OLD_FACTS and len(asked) == 3


def test_hosts_that_may_not_be_there_are_looked_for_at_all_ports_without_a_known_peer(
        port_range, client, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "port_start", port_range.start)
    old = strangers.Stranger(port_range[2], strangers.old_peer(OLD_FACTS, legacy.BASE64, []),
                             "127.0.0.5")
    try:
        known = {("127.0.0.5", port_range[0]), *(("127.0.0.6", port) for port in port_range)}
        findings = sweep.look_for(["127.0.0.4", "127.0.0.5", "127.0.0.6"], known.__contains__)
    finally:
        old.stop()
    assert [(one.address, one.old) for one in findings.answers] == [(old.address, True)]
    assert list(findings.outcomes.values()).count("refused") == 2 * len(port_range) - 2
    assert not known & findings.outcomes.keys()


@BOTH
def test_a_newer_peer_that_has_taken_its_place_is_asked_as_such(stranger, run, client, dialect):
    calls = itertools.count()

    def serves_both(sock):
        if next(calls):
            strangers.peer(FACTS)(sock)
        else:
            strangers.old_peer({**OLD_FACTS, "instance": "f" * 32}, dialect)(sock)

    address = stranger(serves_both)
    client.saw(address, dialect)
    findings, _ = run(address, seconds=5)
    assert not findings.answers[0].old and findings.answers[0].facts == FACTS
    assert client.dialect(address) == ""


@BOTH
def test_so_is_one_that_resets_what_old_programs_ask(stranger, run, client, dialect):
    treats = itertools.chain([strangers.reset], itertools.repeat(strangers.peer(FACTS)))
    address = stranger(lambda sock: next(treats)(sock))
    client.saw(address, dialect)
    findings, _ = run(address, seconds=5)
    assert findings.answers[0].facts == FACTS and client.dialect(address) == ""


@BOTH
def test_an_old_peer_of_the_other_dialect_that_has_taken_its_place_is_asked_in_that(
        stranger, run, client, dialect):
    other = legacy.PLAIN if dialect == legacy.BASE64 else legacy.BASE64
    address = stranger(strangers.old_peer(OLD_FACTS, other))
    client.saw(address, dialect)
    findings, _ = run(address, seconds=5)
    assert findings.answers[0].dialect == other == client.dialect(address)


@pytest.mark.parametrize("answer, again", [
    (legacy.encode_error("x"), b'{"payload": "error", "traceback": ""}'),
    (b'{"payload": "error", "traceback": ""}', legacy.encode_error("x")),
    (b"TlVMTA==", b"NULL"), (b"TlVMTA==", b"TlVMTA=="),
])
def test_nobody_is_asked_more_than_twice(stranger, run, answer, again):
    calls = itertools.count()

    def treat(sock):
        sock.recv(1024)
        sock.sendall(again if next(calls) else answer)

    findings, _ = run(stranger(treat), seconds=5)
    assert next(calls) == 2 and not any(isinstance(one.facts, dict) for one in findings.answers)


def test_a_peer_that_closes_at_what_it_cannot_read_is_asked_in_the_old_dialect(stranger, run):
    calls = itertools.count()

    def closes_first(sock):
        sock.recv(1024)
        if next(calls):
            sock.sendall(legacy.encode_result({"group": None}))

    findings, _ = run(stranger(closes_first), seconds=5)
    assert findings.answers[0].old


refusal = b"".join(encode_refusal(0, PeerBusy(None, "512 connections are open there")))


@pytest.mark.parametrize("treat, what", [
    (strangers.silence, "accepts, but does not answer"),
    (strangers.close, "closes without an answer"),
    (strangers.reset, "closes without an answer"),
    (strangers.http, "an HTTP server"),
    (strangers.says(b"SSH-2.0-OpenSSH_9.2\r\n", then_wait=True), "an SSH server"),
    (strangers.says(b"\x15\x03\x01\x00\x02\x02\x46"), "TLS"),
    # Others may begin as what we would wait for the rest of.
    (strangers.says(bytes(range(0x80, 0xa0)), then_wait=True), "something else"),
    (strangers.says(b"\x1b[2J\x07\r\n"), "something else"),
    (strangers.says(b"HT", then_wait=True), "a reply that does not end"),
    (strangers.says(b"eyJyYXciOiA", then_wait=True), "a reply that does not end"),
    (strangers.says(strangers.HELLO[:-1]), "an incomplete reply"),
    (strangers.says(strangers.HELLO[:3], then_wait=True), "a reply that does not end"),
    (strangers.says(strangers.HELLO[:20], then_wait=True), "a reply that does not end"),
    (strangers.drips(strangers.HELLO), "a reply that does not end"),
    (strangers.endless(strangers.HELLO[:12]), "without a usable|talks without end"),
    (strangers.endless(strangers.HELLO), "something else|without a usable|talks without end"),
    (strangers.says(refusal), "without a usable answer: 512 connections"),
    (strangers.says(HEADER.pack(5, 0, 0, 0, 2 ** 20), then_wait=True), "announces more"),
    (strangers.says(reply(FACTS)), "something else"),
    (greeted(strangers.silence), "a reply that does not end"),
    (greeted(strangers.reset), "an incomplete reply"),
    (greeted(says(b"")), "an incomplete reply"),
    (greeted(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")), "something else"),
    (greeted(says(reply(FACTS)[:-1])), "an incomplete reply"),
    (greeted(says(reply(FACTS)[:3], then_wait=True)), "a reply that does not end"),
    (greeted(says(reply(FACTS)[:20], then_wait=True)), "a reply that does not end"),
    # Of these it depends on how much comes at once.
    (greeted(strangers.endless(reply(FACTS)[:12])), "without a usable|talks without end"),
    (strangers.endless(b"eyJyYXciOiA"), "something else|talks without end"),
    (strangers.endless(b""), "something else|talks without end"),
    (greeted(says(reply(FACTS)[:12] + b" " * 100)), "without a usable"),
    (greeted(strangers.endless(HEADER.pack(RESULT, 1, 1, 1, 40000) + LENGTH.pack(60000))),
     "talks without end"),
    (greeted(says(strangers.HUGE_HEADER, then_wait=True)), "announces more"),
    (greeted(says(strangers.TOO_LONG, then_wait=True)), "announces more|talks without end"),
    (greeted(says(pack(RESULT, 1, b"[" * 5000)[0])), "without a usable"),
    (greeted(says(pack(RESULT, 1, b"\xff\xfe")[0])), "without a usable"),
    (greeted(says(pack(RESULT, 1, b'{"!range":[0,1,0]}', True)[0])), "without a usable"),
    (greeted(says(pack(FLAG, 1, b"{}")[0])), "without a usable"),
    (greeted(says(b"".join(encode_result(2, FACTS)))), "reply to another request"),
    (greeted(says(refusal)), "without a usable answer: 512 connections"),
    (greeted(says(b"".join(encode_failure(1, SystemExit("\x1b[2J"))))), "its info raises an error"),
    (greeted(strangers.drips(reply(FACTS))), "a reply that does not end"),
])
def test_a_stranger_is_told_apart_and_does_not_hide_a_peer(stranger, run, treat, what):
    odd = stranger(treat)
    good = stranger(strangers.peer(FACTS))
    findings, seconds = run(odd, good)
    assert [answer.address for answer in findings.answers] == [good]
    (address, described), = findings.strangers
    assert address == odd and re.search(what, described) and described.isprintable()
    assert seconds < patience(STRANGER_SECONDS + 1)


def test_a_closed_port_is_no_stranger(port_range, run):
    findings, seconds = run(*(("127.0.0.1", port) for port in port_range))
    assert list(findings.outcomes.values()) == ["refused"] * len(port_range)
    assert findings.strangers == []
    assert seconds < patience(1)


def test_the_window_bounds_the_sockets_in_flight(stranger, port_range, monkeypatch):
    address = stranger(strangers.silence)
    opened = []
    real = socket.socket

    class Counted(real):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append(self)
            assert sum(one.fileno() != -1 for one in opened) <= 4

    monkeypatch.setattr(sweep.socket, "socket", Counted)
    one = Sweep(4, monotonic() + 5, set())
    for number in range(30):
        one.add_host(f"127.0.0.{number + 2}", [address[1]], "test", 0.01)
    one.run()
    assert len(opened) == 30 and all(sock.fileno() == -1 for sock in opened)


def test_without_descriptors_the_sweep_goes_on_when_there_are_some_again(
        stranger, run, monkeypatch):
    good = stranger(strangers.peer(FACTS))
    real, calls = socket.socket, itertools.count()

    def scarce(*args, **kwargs):
        if next(calls) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args, **kwargs)

    monkeypatch.setattr(sweep.socket, "socket", scarce)
    findings, _ = run(good)
    assert len(findings.answers) == 1
    assert findings.notes == {"fewer probes at a time: Too many open files"}


def test_without_any_descriptor_the_sweep_ends_in_time(run, monkeypatch):
    def none_left(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sweep.socket, "socket", none_left)
    findings, seconds = run(("127.0.0.1", 1), end=0.2)
    assert seconds < patience(1) and findings.left == 1


def test_what_the_deadline_leaves_over_is_counted(run):
    findings, seconds = run(*(("127.0.0.1", port) for port in range(1, 50)), end=-1)
    assert findings.left == 49 and findings.outcomes == {} and seconds < patience(1)


def test_a_host_that_shows_life_has_all_its_ports_probed(stranger, port_range):
    stranger(strangers.silence)
    good = stranger(strangers.peer(FACTS))
    one = Sweep(100, monotonic() + 5, set())
    one.add_host("127.0.0.1", port_range, "test")
    one.run()
    assert [answer.address for answer in one.findings.answers] == [good]
    assert len(one.findings.outcomes) == len(port_range)


@pytest.fixture
def unanswered():
    """A port whose backlog is full: to a newcomer it is as silent as a host that is gone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.socket() as first, socket.socket() as second:
            for sock in (first, second):
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]


@pytest.mark.skipif(os.name != "posix", reason="a full backlog refuses on Windows")
@pytest.mark.parametrize("exists, found", [(True, 1), (False, 0)])
def test_the_other_ports_of_a_silent_host_are_tried_if_it_exists(
        stranger, unanswered, exists, found):
    good = stranger(strangers.peer(FACTS))
    one = Sweep(100, monotonic() + 5, set())
    one.add_host("127.0.0.1", [unanswered, good[1]], "test", exists=exists)
    started = monotonic()
    one.run()
    assert len(one.findings.answers) == found
    assert one.findings.outcomes["127.0.0.1", unanswered] == ("silent" if exists else "nobody")
    assert monotonic() - started < patience(1)


@pytest.mark.skipif(os.name != "posix", reason="a full backlog refuses on Windows")
def test_after_some_time_only_hosts_that_show_life_are_asked_further(
        stranger, unanswered, port_range, monkeypatch):
    good = stranger(strangers.peer(FACTS))
    one = Sweep(2, monotonic() + 1e6, set(), seconds=1000.0)
    for ports in ([unanswered, 1], [port_range[1], good[1]], [port_range[2], port_range[3]]):
        one.add_host("127.0.0.1", ports, "test")
    one.start()
    monkeypatch.setattr(sweep, "monotonic", lambda: monotonic() + 2000.0)
    one.run()
    assert [answer.address for answer in one.findings.answers] == [good]
    assert one.findings.left == 2 and ("127.0.0.1", port_range[2]) not in one.findings.outcomes


def test_hosts_without_a_way_to_them_are_tried_once_each_and_not_for_ever(monkeypatch):
    tried = []

    def no_way(carrier, endpoint):
        tried.append(endpoint.address)
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("net.link.tcp.TcpCarrier.start", no_way)
    one = Sweep(10, monotonic() + patience(30), set(), seconds=patience(30))
    for number in range(20):
        one.add_host(f"127.0.0.{number}", [1, 2, 3], "test")
    one.run()
    assert len(tried) == 20 and set(one.findings.outcomes.values()) == {"unreachable"}
    now = itertools.count()
    monkeypatch.setattr(sweep, "monotonic", lambda: next(now))
    two = Sweep(10, 5.0, set())
    for number in range(20):
        two.add_host(f"127.0.0.{number}", [1, 2, 3], "test")
    two.run()
    assert len(tried) < 30 and two.findings.left > 10


def test_hosts_that_are_added_late_have_their_time(port_range):
    one = Sweep(2, monotonic() + patience(30), set(), seconds=0.0)
    for port in port_range[:3]:
        one.add_host("127.0.0.1", [port], "test")
        while not one.idle:
            one.step(0.01)
    one.close()
    assert len(one.findings.outcomes) == 3 and not one.findings.left


def test_what_has_come_in_time_counts_however_late_it_is_seen(stranger, monkeypatch):
    good = stranger(strangers.peer(FACTS))
    late = 0.0
    one = Sweep(10, monotonic() + 60, set())
    select = one._selector.select

    def select_late(seconds):
        # As if this thread, on a busy machine, had its turn only when much later.
        nonlocal late
        found = select(patience(5))
        late += 2 * STRANGER_SECONDS
        return found

    monkeypatch.setattr(sweep, "monotonic", lambda: monotonic() + late)
    monkeypatch.setattr(one._selector, "select", select_late)
    one.add(Candidate(good, "test"))
    one.run()
    assert [answer.address for answer in one.findings.answers] == [good]


def test_an_address_is_probed_once_in_all_sweeps_of_a_search(stranger):
    address = stranger(strangers.peer(FACTS))
    tried = set()
    first, second = (Sweep(10, monotonic() + 5, tried) for _ in range(2))
    for one in (first, second):
        one.add(Candidate(address, "test"))
        one.run()
    assert len(first.findings.answers) == 1 and second.findings.answers == []


def test_stopping_closes_everything_soon(stranger, run):
    one = Sweep(10, monotonic() + 60, set())
    one.add(Candidate(stranger(strangers.silence), "test", 60.0))
    one.step(0.01)
    one.stop()
    one.run()
    assert one.idle


def test_no_name_is_resolved(stranger, run, monkeypatch):
    def resolve(*args):
        raise AssertionError(f"resolved {args}")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo", "getfqdn"):
        monkeypatch.setattr(socket, name, resolve)
    findings, _ = run(stranger(strangers.peer(FACTS)))
    assert len(findings.answers) == 1


@pytest.mark.parametrize("data, name", [
    (b"HTTP/1.0 400 Bad", "an HTTP server"), (b"-ERR unknown", "something else, it says '-ERR"),
])
def test_what_is_not_a_peer_is_named(data, name):
    assert describe(data).startswith(name)


@pytest.mark.parametrize("limit, threads, expected", [
    (256, 6, 10), (256, 1, 64), (1024, 6, 42), (20000, 1, 512), (20000, 6, 85), (3, 6, 1)])
def test_the_window_leaves_most_descriptors_to_the_application(
        monkeypatch, limit, threads, expected):
    monkeypatch.setattr(sweep, "descriptors", lambda: limit)
    monkeypatch.setattr(sweep, "MAX_SOCKETS", 512)
    assert window(threads) == expected
