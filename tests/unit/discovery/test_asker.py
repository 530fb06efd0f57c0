"""The question who is there, and whose answers are believed; all on loopback."""
from __future__ import annotations

import socket
from typing import Any, Iterator, List

import pytest

from net.discovery.lan import asker as module
from net.discovery.lan.asker import Asker
from net.discovery.lan.beacon import HERE, WHO, decode, encode
from net.discovery.lan.interfaces import Interface


class Loopback(Interface):
    """An interface whose broadcasts reach one socket of this host."""

    broadcast = "127.0.0.1"  # type: ignore[assignment]


HERE_ONLY = Loopback("lo", "127.0.0.1", 8)
# The system refuses to send there from a loopback address (TEST-NET-1).
ELSEWHERE = "192.0.2.1"


class Question:
    """An asker, and a peer that hears it."""

    def __init__(self, ports: range) -> None:
        self.heard: List[Any] = []
        self.receive: Any = None
        self.ports = ports
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.settimeout(5)
        self.peer.bind(("127.0.0.1", ports.start))
        self.asker = Asker([HERE_ONLY], ports, self.listen, self.heard.append)

    def listen(self, sock: socket.socket, receive: Any) -> None:
        self.receive = lambda: receive(sock)

    def asked(self) -> Any:
        """The next question that the peer gets, and who asks."""
        datagram, source = self.peer.recvfrom(100)
        return decode(datagram), source


@pytest.fixture
def question(port_range: range) -> Iterator[Question]:
    made = Question(port_range)
    yield made
    made.asker.close()
    made.peer.close()


def answer(question: Question, datagram: bytes, sender: Any = None) -> None:
    question.asker.broadcast()
    _, source = question.asked()
    (sender or question.peer).sendto(datagram, source)
    question.receive()


def test_who_answers_the_question_is_heard_once(question):
    question.asker.broadcast()
    (kind, port, nonce), source = question.asked()
    assert (kind, port) == (WHO, 0)
    for _ in range(2):
        question.peer.sendto(encode(HERE, question.ports.start, nonce), source)
    question.receive()
    assert question.heard == [("127.0.0.1", question.ports.start)]
    assert question.asker.answered == 1


def test_an_answer_with_another_nonce_or_of_another_kind_is_not_believed(question):
    nonce = question.asker._nonce
    for datagram in (encode(HERE, 1, bytes(16)), encode(WHO, 1, nonce), b"x", b""):
        answer(question, datagram)
    assert question.heard == []


def test_an_answer_from_a_port_that_peers_do_not_use_is_not_believed(question):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        answer(question, encode(HERE, question.ports.start, question.asker._nonce), elsewhere)
    assert question.heard == []


def test_an_answer_from_another_network_is_not_believed(question, monkeypatch):
    elsewhere = Loopback("eth0", "192.0.2.1", 24)
    for sock in question.asker._sockets:
        question.asker._sockets[sock] = elsewhere
    answer(question, encode(HERE, question.ports.start, question.asker._nonce))
    assert question.heard == []


def test_there_are_never_more_answers_than_a_lan_has_hosts(question, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWERS", 0)
    answer(question, encode(HERE, question.ports.start, question.asker._nonce))
    assert question.heard == []


def test_hosts_are_asked_one_by_one_and_those_that_cannot_be_are_given_back(question, monkeypatch):
    monkeypatch.setattr(module, "PRIMED_PER_SOCKET", 2)
    hosts = ["127.0.0.1", "127.0.0.2", ELSEWHERE, "127.0.0.1"]
    assert list(question.asker.prime(HERE_ONLY, hosts)) == [[], [ELSEWHERE]]
    assert [question.asked()[0].kind for _ in range(2)] == [WHO, WHO]
    assert any("sending failed" in note for note in question.asker.notes)


def test_an_interface_that_is_gone_is_noted_and_costs_no_more(question):
    gone = Loopback("eth9", "192.0.2.77", 24)
    other = Asker([gone], question.ports, question.listen, question.heard.append)
    other.broadcast()
    assert list(other.prime(gone, ["192.0.2.1", "192.0.2.2"])) == [["192.0.2.1", "192.0.2.2"]]
    notes = sorted(other.notes)
    assert len(notes) == 2 and all("eth9 192.0.2.77/24: " in note for note in notes)
    assert "no datagrams" in notes[0] and "not swept" in notes[1]
    other.close()


def test_a_broadcast_that_fails_is_noted(question):
    class Deaf(Loopback):
        broadcast = ELSEWHERE  # type: ignore[assignment]

    deaf = Asker([Deaf("lo", "127.0.0.1", 8)], question.ports, question.listen, print)
    deaf.broadcast()
    assert [note for note in deaf.notes if "broadcast failed" in note]
    deaf.close()
