"""The finder of an engine: whom it asks, and what it tells the list."""
from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import pytest

from hearing import until
from net.discovery import engine as module
from net.discovery.answers import Answer
from net.discovery.engine import FOUND, Engine
from net.discovery.lan.datagrams import ANSWER, SECURED, Message, Seal, decode, encode
from net.discovery.probes import Findings
from net.discovery.report import Report
from net.link.zenoh import PRESENCE, Presence
from net.process import process
from net.run.loop import Loop
from net.settings import settings
from times import patience

A, B, C = "a" * 32, "b" * 32, "c" * 32
KEY = b"k" * 32


def at(instance, port=3010):
    return instance + ".zenoh", port


def answer(address, instance=A):
    return Answer(address, {"instance": instance, "group": None}, FOUND, 0.01, 0.0)


class Listing:
    """A fake list of peers."""

    def __init__(self):
        self.known = set()

    def knows(self, address):
        return address in self.known

    def learn(self, answers):
        self.known |= {answer.address for answer in answers}

    def drop(self, address):
        self.known.discard(address)


class Network:
    """The finder, with a fake engine.

    :ivar answers: the addresses that answer.
    :ivar asked: which were asked, together.
    :ivar told: the addresses that answer a sealed question.
    :ivar questions: the instances that each of these was for.
    """

    def __init__(self):
        self.answers, self.asked = set(), []
        self.listing = Listing()
        self.ready, self.changes = True, 0
        self.present = Presence()
        self.engine = SimpleNamespace(
            present=self.present, problem="it is off", wait=lambda seconds: self.ready,
            reached=lambda: ["router"] if self.ready else [], changed=self.change, ask=self.ask,
            shut_out="")
        self.questions, self.told = [], set()
        self.carriers = SimpleNamespace(engine=self.engine, why_none="")
        self.finder = Engine(Loop("test-loop"), self.listing, self.carriers)

    def change(self):
        self.changes += 1

    def ask(self, question, instances, heard):
        self.questions.append(instances)
        nonce = decode(question, Seal(KEY)).nonce
        for host, port in self.told:
            heard(encode(Message(ANSWER, SECURED, port, nonce, bytes.fromhex(host[:32]), b"{}"),
                         Seal(KEY)))

    def look_at(self, addresses, seconds, how):
        self.asked.append(set(addresses))
        found = Findings()
        found.answers = [answer(one) for one in addresses if one in self.answers]
        return found

    def put(self, instance, port=3010):
        self.present.change(instance, port, "0", True)

    def take(self, instance, port=3010):
        self.present.change(instance, port, "0", False)

    def search(self, on_host=False):
        made = SimpleNamespace(on_host=on_host, started=0.0, report=Report(), hints=[])
        made.hint = lambda address, found: made.hints.append(address)
        made.answers = []
        made.found = lambda answer: made.answers.append(answer.address)
        return made, self.finder.search(made)


@pytest.fixture
def network(monkeypatch):
    made = Network()
    monkeypatch.setattr("net.discovery.probes.look_at", made.look_at)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    monkeypatch.setitem(settings.__dict__, "engine", "zenoh")
    monkeypatch.setitem(settings.__dict__, "router", ("tls/hub.example:7447",))
    yield made
    made.answers |= {address for asked in made.asked for address in asked}
    until(lambda: {"test-loop", "net-engine-asks"}.isdisjoint(
        [thread.name for thread in threading.enumerate()]))


@pytest.fixture
def secret(monkeypatch):
    pytest.importorskip("cryptography", reason="a secret needs it")
    monkeypatch.setattr(module, "make_seal", lambda: Seal(KEY))


def test_under_a_secret_one_question_finds_all_and_connects_to_nobody(network, secret):
    network.told |= {at(A), at(B), at(process.instance)}
    for instance in (A, B, process.instance):
        network.put(instance)
    search, quest = network.search()
    quest.step(0.0)
    assert not quest.over(0.0) and quest.due < 0.1
    quest.step(0.01)
    assert quest.over(0.01) and quest.due == math.inf
    assert set(search.answers) == {at(A), at(B)} and not search.hints
    assert network.questions == [[]]


def test_a_peer_that_does_not_answer_the_question_in_time_is_asked_on_a_connection(network, secret):
    network.told.add(at(A))
    network.put(A)
    network.put(B)
    search, quest = network.search()
    quest.step(0.0)
    quest.step(module.ANSWER_SECONDS - 0.01)
    assert not quest.over(0.0)
    quest.step(module.ANSWER_SECONDS)
    assert quest.over(0.0) and search.answers == [at(A)] and search.hints == [at(B)]


def test_with_nobody_there_nothing_is_asked(network, secret):
    search, quest = network.search()
    quest.step(0.0)
    assert quest.over(0.0) and not network.questions


def test_a_newcomer_is_asked_by_a_question_and_others_are_not(network, secret):
    network.told |= {at(A), at(B)}
    network.put(A)
    network.finder.watch(math.inf)
    until(lambda: network.listing.known == {at(A)})
    network.put(B)
    until(lambda: network.listing.known == {at(A), at(B)})
    assert network.questions == [[A], [B]] and not network.asked
    network.answers.add(at(C))
    network.finder.watch(math.inf)  # who is listed is not asked again
    kept = threading.Event()
    network.finder._loop.call_soon(kept.set)
    assert kept.wait(patience(10))
    network.put(C)
    until(lambda: at(C) in network.listing.known)
    assert network.questions == [[A], [B], [C]] and network.asked == [{at(C)}]


def test_many_that_come_at_once_are_asked_by_one_question(network, secret):
    for number in range(module.ONE_BY_ONE + 1):
        network.put(f"{number:032x}")
        network.told.add(at(f"{number:032x}"))
    network.finder.watch(math.inf)
    until(lambda: network.listing.known == network.told)
    assert network.questions == [[]]


def test_a_search_asks_all_that_are_served_but_itself(network):
    for instance in (A, B, process.instance):
        network.put(instance, PRESENCE)
        network.put(instance)
    search, quest = network.search()
    assert not quest.over(0.0)
    quest.step(0.0)
    assert quest.over(0.0) and quest.due == math.inf
    assert search.hints == [at(A), at(B)]
    quest.close()
    assert not search.report.notes


def test_a_search_asks_no_peer_twice_that_is_reached_directly(network):
    network.put(A)
    network.put(B)
    direct = ("10.0.0.5", 3010)
    network.listing.known.add(direct)
    network.finder.listed([answer(direct, A)], [])
    until(lambda: network.finder.other_way(direct) == at(A))
    search, quest = network.search()
    quest.step(0.0)
    assert search.hints == [at(B)]
    quest.close()


def test_a_search_waits_a_moment_for_a_router_and_says_when_there_is_none(network):
    network.ready = False
    search, quest = network.search()
    quest.step(0.0)
    assert not quest.over(0.0) and 0.0 < quest.due < module.START_SECONDS
    quest.step(module.START_SECONDS)
    assert quest.over(0.0) and not search.hints
    quest.close()
    network.engine.problem = ""
    network.search()[1].close()
    network.finder.search(search).close()
    assert search.report.notes == ["engine: no router is reached (it is off)",
                                   "engine: no router is reached (no answer within 0.5 s)"]


def test_a_search_says_when_a_router_passes_nothing_on(network):
    network.engine.shut_out = "an access list"
    search, quest = network.search()
    quest.step(0.0)
    quest.close()
    assert search.report.notes == ["engine: an access list"]


def test_a_search_of_this_host_does_not_use_it(network):
    network.put(A)
    search, quest = network.search(on_host=True)
    assert quest.over(0.0)
    quest.step(0.0)
    quest.close()
    assert not search.hints and not search.report.notes


def test_a_forked_process_says_why_it_has_none(network):
    network.carriers.engine, network.carriers.why_none = None, "this process was forked"
    search, quest = network.search()
    assert quest.over(0.0)
    quest.close()
    assert search.report.notes == ["engine: this process was forked"]


def test_while_the_list_is_kept_newcomers_are_asked_and_peers_that_go_are_dropped(network):
    network.answers |= {at(A), at(B)}
    network.put(A)
    network.finder.watch(math.inf)
    until(lambda: network.listing.known == {at(A)})
    network.put(B)
    until(lambda: network.listing.known == {at(A), at(B)})
    network.take(A)
    until(lambda: network.listing.known == {at(B)})


def test_a_peer_that_is_there_and_does_not_answer_is_asked_again(network):
    network.put(A)
    network.finder.watch(math.inf)
    until(lambda: len(network.asked) > 2)
    network.answers.add(at(A))
    until(lambda: network.listing.known == {at(A)})


def test_a_peer_no_longer_listed_at_another_address_is_listed_at_that_of_the_engine(network):
    network.answers.add(at(A))
    direct = ("10.0.0.5", 3010)
    network.finder.listed([answer(direct, A)], [])
    network.finder.listed([], [direct])
    network.put(A)
    assert not network.listing.known
    network.finder.listed([], [direct])
    until(lambda: network.listing.known == {at(A)})
    assert network.finder.other_way(direct) == at(A)
    network.take(A)
    assert network.finder.other_way(direct) is None
    assert network.finder.other_way(("10.0.0.6", 3010)) is None


def test_a_bounded_number_of_other_addresses_is_remembered(network, monkeypatch):
    monkeypatch.setattr(module, "MAX_DIRECT", 2)
    network.put(A)
    for number in range(4):
        network.finder.listed([answer(("10.0.0.5", number + 1), A)], [])
    until(lambda: network.finder.other_way(("10.0.0.5", 4)))
    assert len(network.finder._direct) == 2


def test_what_this_process_says_about_itself_is_announced_anew(network):
    network.finder.changed()
    assert network.changes == 1


def test_without_an_engine_nothing_is_done(network, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "engine", None)
    monkeypatch.setitem(settings.__dict__, "router", ())
    network.carriers.engine = None
    network.put(A)
    network.finder.watch(math.inf)
    network.finder.listed([answer(("10.0.0.5", 3010), A)], [])
    network.finder.announce(None)()
    network.finder.doubt(at(A))
    network.finder.changed()
    network.finder.forget()
    assert network.search()[1].over(0.0)
    assert not network.asked and not network.finder._direct and not network.changes
