"""Questions to all peers of an engine: whose answers are believed."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from net.discovery import sealed as module
from net.discovery.lan.datagrams import (ANSWER, ASK, HELLO, SECURED, Message, Seal, decode, encode,
                                         encode_question)
from net.discovery.sealed import Answering, Question
from net.process import process

KEY = b"k" * 32
ME, OTHER = bytes.fromhex(process.instance), b"o" * 16
pytest.importorskip("cryptography", reason="a secret needs it")


class Asked:
    """A question that was sent, and a way to answer it."""

    def __init__(self):
        self.question = Question(self.ask, Seal(KEY), ["one"], "engine")

    def ask(self, data, instances, heard):
        self.data, self.instances, self.heard = data, instances, heard

    @property
    def nonce(self):
        return decode(self.data, Seal(KEY)).nonce

    def answer(self, seal=Seal(KEY), kind=ANSWER, port=3010, nonce=None, body=b"{}",
               instance=OTHER):
        self.heard(encode(Message(kind, SECURED, port, nonce or self.nonce, instance, body), seal))


def test_a_question_is_sealed_and_its_answers_are_read():
    asked = Asked()
    message = decode(asked.data, Seal(KEY))
    assert message.kind == ASK and message.instance == ME and asked.instances == ["one"]
    assert not decode(asked.data, Seal(b"x" * 32)).body
    assert asked.question.read() == []
    asked.answer(body=json.dumps({"group": "farm", "instance": "somebody else's"}).encode())
    answer, = asked.question.read()
    assert answer.address == (OTHER.hex() + ".zenoh", 3010)
    assert answer.facts == {"group": "farm", "instance": OTHER.hex()}
    assert answer.found == "engine" and answer.size > 20
    assert asked.question.read() == []


@pytest.mark.parametrize("lie", [
    {"seal": None}, {"seal": Seal(b"x" * 32)}, {"kind": HELLO}, {"kind": ASK}, {"port": 0},
    {"nonce": b"another!"}, {"body": b""}, {"body": b"[]"}, {"body": b"{"},
    {"body": b"[" * 30_000}, {"body": b" " * module.MAX_ANSWER + b"{}"},
], ids=range(11))
def test_what_does_not_prove_itself_or_makes_no_sense_is_no_answer(lie):
    asked = Asked()
    asked.answer(**lie)
    asked.heard(b"")
    assert asked.question.read() == []


def test_what_was_recorded_of_another_question_is_no_answer():
    before, asked = Asked(), Asked()
    recorded = encode(Message(ANSWER, SECURED, 3010, before.nonce, OTHER, b"{}"), Seal(KEY))
    asked.heard(recorded)
    # Nor with the new nonce in its head, which is sealed, too.
    asked.heard(recorded[:10] + asked.nonce + recorded[18:])
    assert asked.question.read() == []
    before.heard(recorded)
    assert len(before.question.read()) == 1


def test_a_bounded_number_of_answers_waits_to_be_read(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    asked = Asked()
    for number in range(1, 10):
        asked.answer(port=number)
    assert len(asked.question.read()) == 3


def test_waiting_ends_with_the_last_answer_or_in_time():
    asked = Asked()
    asked.answer(port=1)
    asked.answer(port=2)
    there = [(OTHER.hex() + ".zenoh", port) for port in (1, 2)]
    assert [one.address for one in asked.question.wait(there, 60)] == there
    assert asked.question.wait(there, 0.01) == []


# ------------------------------------------------------------------ the other side

@pytest.fixture
def answering(monkeypatch):
    monkeypatch.setattr(module, "make_seal", lambda: Seal(KEY))
    made = Answering()
    made.facts = {"group": "farm", "name": "\u00e4"}
    made.one = SimpleNamespace(server=SimpleNamespace(address=("0.0.0.0", 3012)),
                               friendly_id=made.facts)
    made.add(made.one)
    return made


def ask(seal=Seal(KEY), kind=ASK, body=encode_question(), sender=OTHER):
    return encode(Message(kind, 0, 0, b"12345678", sender, body), seal)


def test_a_peer_says_of_itself_what_it_says_to_info(answering):
    told, = answering.answer(ask())
    message = decode(told, Seal(KEY), module.MAX_ANSWER)
    assert (message.kind, message.nonce, message.port, message.instance) \
        == (ANSWER, b"12345678", 3012, ME)
    assert json.loads(message.body) == answering.facts
    assert "farm".encode() not in told


@pytest.mark.parametrize("question", [b"", b"x" * 100, ask(Seal(b"x" * 32)), ask(None),
                                      ask(kind=HELLO), ask(body=b"?")], ids=range(6))
def test_a_stranger_is_told_nothing(answering, question):
    assert answering.answer(question) == []


def test_a_host_that_asks_without_end_is_answered_a_bounded_number_of_times(answering):
    assert sum(len(answering.answer(ask())) for _ in range(1000)) < 200
    assert len(answering.answer(ask(sender=b"n" * 16))) == 1


def test_facts_that_are_too_long_are_left_to_a_connection(answering):
    answering.facts["facts"] = "x" * module.MAX_ANSWER
    assert answering.answer(ask()) == []


def test_a_peer_that_has_closed_is_silent(answering):
    answering.one.server = None
    assert answering.answer(ask()) == []
    answering.remove(answering.one)
    answering.remove(answering.one)
    assert answering.answer(ask()) == []


def test_without_a_secret_nothing_is_answered(monkeypatch, answering):
    monkeypatch.setattr(module, "make_seal", lambda: None)
    assert answering.answer(ask()) == []
