"""The question who is there, and whose answers are believed; all on loopback."""
from __future__ import annotations

import errno
import json
import math
import socket
from time import monotonic
from typing import Any, Iterator, List

import pytest

from net.discovery.lan import asker as module
from net.discovery.lan.asker import NO_ROOM, Asker, Place, lan_places, this_host
from net.discovery.lan.datagrams import (ANSWER, ANSWER_BYTES, ASK, MAX_FACTS, SECURED, Message,
                                         decode, digest, encode, encode_said, read_question)
from net.link.interfaces import Interface
from net.discovery.lan.rounds import Rounds
from net.discovery.lan.sockets import open_at
from times import patience

LOOPBACK = Interface("lo", "127.0.0.1", 8)
# As if its broadcasts reached a socket of this host.
HERE_ONLY = Place(Interface("eth0", "127.0.0.2", 8), "127.0.0.1")
# The system refuses to send there from a loopback address (TEST-NET-1).
ELSEWHERE = "192.0.2.1"
INSTANCE = b"p" * 16
FACTS = json.dumps({"host": "127.0.0.1"}).encode()


class Question:
    """An asker, and a peer that hears it."""

    def __init__(self, ports: range, *places: Place, **options: Any) -> None:
        self.heard: List[Any] = []
        self.hints: List[Any] = []
        self.receivers: List[Any] = []
        self.ports = ports
        self.clock = monotonic
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.settimeout(patience(5))
        self.peer.bind(("127.0.0.1", ports.start))
        self.asker = Asker(places or [HERE_ONLY], ports, b"m" * 16, self.listen, self.heard.append,
                           self.hints.append, Rounds(monotonic()), lambda: self.clock(), **options)

    def listen(self, sock: socket.socket, receive: Any) -> None:
        self.receivers.append(lambda: receive(sock))

    def ask(self) -> None:
        self.asker.step(self.asker.rounds.due)

    def receive(self) -> None:
        for receive in self.receivers:
            receive()

    def asked(self) -> Any:
        """The next question that the peer gets, and who asks."""
        datagram, source = self.peer.recvfrom(2000)
        return decode(datagram), source

    def close(self) -> None:
        self.asker.close()
        self.peer.close()


@pytest.fixture
def question(port_range: range) -> Iterator[Question]:
    made = Question(port_range)
    yield made
    made.close()


def answer(question: Question, message: Message, body: bytes = b"", **changes: Any) -> bytes:
    said = Message(ANSWER, 0, question.ports.start, message.nonce, INSTANCE,
                   body or encode_said(FACTS, bytes(8), len(FACTS)))
    return encode(said._replace(**changes))


def test_a_peer_that_answers_the_question_is_heard_once_with_what_it_says(question):
    question.ask()
    message, source = question.asked()
    assert (message.kind, message.port, message.instance) == (ASK, 0, b"m" * 16)
    for _ in range(2):
        question.peer.sendto(answer(question, message), source)
    question.receive()
    heard, = question.heard
    assert heard.address == ("127.0.0.1", question.ports.start)
    assert (heard.instance, heard.facts) == (INSTANCE, FACTS) and 0 < heard.seconds < 5
    assert question.asker.answered == [heard.address]


def test_peers_that_have_answered_are_named_in_the_next_question(question):
    question.ask()
    message, source = question.asked()
    question.peer.sendto(answer(question, message), source)
    question.receive()
    question.ask()
    again, _ = question.asked()
    assert again.nonce != message.nonce
    assert read_question(again.body).knows(digest(INSTANCE, again.nonce))
    assert not read_question(message.body).knows(digest(INSTANCE, message.nonce))


@pytest.mark.parametrize("age, lost", [(math.inf, 2), (0.0, 0)])
def test_questions_from_before_a_peer_was_there_are_not_lost(question, age, lost):
    for _ in range(3):
        asked_at = question.asker.rounds.due
        question.ask()
        message, source = question.asked()
        question.receive()  # the other ports refuse
    question.clock = lambda: asked_at + 0.01
    question.peer.sendto(answer(question, message, age=age), source)
    question.receive()
    assert question.heard and question.asker.rounds.loss == lost / 3


@pytest.mark.parametrize("changes", [
    {"nonce": bytes(8)}, {"kind": ASK}, {"port": 1}, {"body": b"x"}])
def test_what_is_no_answer_to_this_question_is_not_believed(question, changes):
    question.ask()
    message, source = question.asked()
    for datagram in (answer(question, message, **changes), b"x", b""):
        question.peer.sendto(datagram, source)
    question.receive()
    assert question.heard == [] and (question.hints == [] or "body" in changes)


def test_of_newcomers_those_that_have_not_answered_are_asked_once_each(question):
    question.ask()
    message, source = question.asked()
    question.receive()  # that its other ports have refused the question
    peer = "127.0.0.1", question.ports.start
    assert not question.asker.ask_newcomers([(("192.0.2.7", question.ports.start), b"f" * 16),
                                             (("127.0.0.1", question.ports.stop), b"w" * 16)], 1.0)
    assert question.asker.ask_newcomers([(peer, INSTANCE)], monotonic())
    again, source = question.asked()
    assert again.nonce != message.nonce and read_question(again.body) is not None
    assert not question.asker.ask_newcomers([(peer, INSTANCE)], monotonic())
    question.peer.sendto(answer(question, again), source)
    question.receive()
    assert [heard.address for heard in question.heard] == [peer]
    moved = "127.0.0.3", question.ports.start
    assert not question.asker.ask_newcomers([(moved, INSTANCE)], monotonic())


def test_a_peer_of_this_host_that_is_new_gets_one_question(port_range):
    eth0 = Interface("eth0", "127.0.0.2", 8)
    question = Question(port_range, *this_host(["127.0.0.1"]), Place(eth0, "127.0.0.9"))
    question.ask()
    question.asked()
    assert question.asker.ask_newcomers([(("127.0.0.1", port_range.start), INSTANCE)], monotonic())
    question.asked()
    question.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        question.asked()
    question.close()


def test_an_answer_from_a_port_that_peers_do_not_use_is_not_believed(question):
    question.ask()
    message, source = question.asked()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.sendto(answer(question, message, port=elsewhere.getsockname()[1]), source)
    question.receive()
    assert question.heard == []


def test_an_answer_from_another_network_is_not_believed(question):
    question.ask()
    message, source = question.asked()
    for sock in question.asker._sockets:
        question.asker._sockets[sock] = Interface("eth0", "192.0.2.1", 24)
    question.peer.sendto(answer(question, message), source)
    question.receive()
    assert question.heard == []


def test_there_are_never_more_answers_than_a_lan_has_hosts(question, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWERS", 0)
    question.ask()
    message, source = question.asked()
    question.peer.sendto(answer(question, message), source)
    question.receive()
    assert question.heard == []


def test_a_peer_with_more_to_say_than_fits_is_asked_again_with_room_for_it(question):
    question.ask()
    message, source = question.asked()
    question.peer.sendto(answer(question, message, encode_said(b"f" * 900, bytes(8), 0)), source)
    question.receive()
    longer, source = question.asked()
    while longer.size < ANSWER_BYTES + 900:
        longer, source = question.asked()  # the other ports'
    assert question.heard == [] and longer.nonce == message.nonce
    question.peer.sendto(answer(question, longer, encode_said(b"f" * 900, bytes(8), 900)), source)
    question.receive()
    assert question.heard[0].facts == b"f" * 900


@pytest.mark.parametrize("changes", [
    {"flags": SECURED, "instance": bytes(16), "body": b""},
    {"flags": SECURED}, {"body": encode_said(b"f" * (MAX_FACTS + 1), bytes(8), 0)}])
def test_a_peer_that_may_not_or_cannot_say_it_by_datagram_is_a_hint_for_tcp(question, changes):
    question.ask()
    message, source = question.asked()
    for _ in range(2):
        question.peer.sendto(answer(question, message, **changes), source)
    question.receive()
    assert question.heard == [] and question.hints == [("127.0.0.1", question.ports.start)]


def test_hosts_are_asked_one_by_one_and_those_that_cannot_be_are_given_back(question, monkeypatch):
    monkeypatch.setattr(module, "PRIMED_PER_SOCKET", 2)
    hosts = ["127.0.0.1", "127.0.0.2", ELSEWHERE, "127.0.0.1"]
    assert list(question.asker.prime(LOOPBACK, hosts)) == [[], [ELSEWHERE]]
    assert [question.asked()[0].kind for _ in range(2)] == [ASK, ASK]
    assert any("sending failed" in note for note in question.asker.notes)


def test_an_interface_that_is_gone_is_noted_and_costs_no_more(port_range):
    gone = Interface("eth9", "192.0.2.77", 24)
    question = Question(port_range, Place(gone, "192.0.2.255"))
    question.ask()
    assert list(question.asker.prime(gone, ["192.0.2.1", "192.0.2.2"])) == [
        ["192.0.2.1", "192.0.2.2"]]
    notes = sorted(question.asker.notes)
    assert len(notes) == 2 and all("eth9 192.0.2.77/24: " in note for note in notes)
    assert "no datagrams" in notes[0] and "not swept" in notes[1]
    assert question.asker.over(monotonic()), "there is nobody to wait for"
    question.close()


def test_a_broadcast_that_fails_is_noted(port_range):
    question = Question(port_range, Place(LOOPBACK, ELSEWHERE))
    question.ask()
    assert [note for note in question.asker.notes if "sending failed" in note]
    question.close()


class Full(socket.socket):
    """A socket whose first datagrams find no room in the kernel."""

    left = 0

    def sendto(self, *what):
        if self.left:
            self.left -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().sendto(*what)


def test_a_question_that_this_host_drops_is_asked_again_and_noted(port_range, monkeypatch):
    monkeypatch.setattr(Full, "left", len(port_range))
    monkeypatch.setattr(module, "open_at", lambda interface: Full(
        fileno=open_at(interface).detach()))
    question = Question(port_range, HERE_ONLY)
    question.ask()
    assert question.asker.blocked and question.asker.notes == {NO_ROOM}
    due = question.asker.due
    assert monotonic() < due < monotonic() + 1.0
    assert not question.asker.over(due + 0.5), "it has not been asked yet"
    question.ask()
    assert question.asked()[0].kind == ASK and not question.asker.blocked
    question.close()


def test_a_question_of_which_a_part_has_left_this_host_was_asked(port_range, monkeypatch):
    monkeypatch.setattr(Full, "left", len(port_range) - 1)
    monkeypatch.setattr(module, "open_at", lambda interface: Full(
        fileno=open_at(interface).detach()))
    question = Question(port_range, HERE_ONLY)
    question.ask()
    assert not question.asker.blocked and question.asker.notes == set()
    question.close()


def test_the_peers_of_this_host_are_asked_once_and_say_nothing_of_the_network(port_range):
    question = Question(port_range, *this_host(["127.0.0.1"]), own=["127.0.0.1"])
    question.ask()
    message, source = question.asked()
    question.peer.sendto(answer(question, message), source)
    question.receive()
    assert len(question.heard) == 1 and question.asker.answered == []
    question.ask()
    question.peer.settimeout(0.1)
    with pytest.raises(socket.timeout):
        question.asked()
    question.close()


def test_peers_are_asked_in_ipv6_a_moment_later_so_that_some_need_not_answer_twice(port_range):
    now = [monotonic()]
    later = Place(LOOPBACK, "127.0.0.1", 0.05)
    question = Question(port_range, HERE_ONLY, later)
    question.asker._clock = lambda: now[0]
    try:
        begun = question.asker.rounds.due
        question.asker.step(begun)
        message, source = question.asked()
        question.peer.sendto(answer(question, message), source)
        question.receive()
        assert question.asker.due <= begun + 0.05
        question.asker.step(begun + 0.01)  # too early
        question.asker.step(begun + 0.05)
        again, other = question.asked()
        # The same question, from the other place.
        assert again.nonce == message.nonce and other != source
        assert read_question(again.body).knows(digest(INSTANCE, again.nonce))
    finally:
        question.close()


def test_the_places_of_a_lan_are_asked_in_the_order_of_their_ranks():
    four, six, link = (Interface("eth0", "192.0.2.5", 24), Interface("eth0", "fd00::5", 64, 2),
                       Interface("eth0", "fe80::5%eth0", 64, 2))
    later = module.LATER
    assert [place.later for place in lan_places([four, six, link])] == [0, later, 2 * later]
    assert [place.later for place in lan_places([six, link])] == [0, later]
    assert [place.later for place in lan_places([link])] == [0]
    assert [place.later for place in this_host(["127.0.0.1", "::1", "fd00::5"], "fd00::5")] == \
        [0, later, 0]


def test_a_second_address_of_a_peer_says_nothing_about_the_network(question):
    question.ask()
    message, source = question.asked()
    question.peer.sendto(answer(question, message), source)
    question.receive()
    question.ask()
    again, _ = question.asked()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.3", question.ports.start))
        other.sendto(answer(question, again), source)
        question.receive()
    assert len(question.heard) == 2 and question.asker.rounds.loss == 0
