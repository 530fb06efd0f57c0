"""What a peer answers, to whom, and how much."""
from __future__ import annotations

import itertools
import json
import math

import pytest

from net.discovery.lan.datagrams import (ANSWER, ASK, ASK_BYTES, BEAT, NOBODY, SECURED, Message,
                                         Question, Seal, decode, digest, encode, encode_question,
                                         read_said, read_sum)
from net.discovery.lan.responder import (BURST, MAX_HOSTS, MAX_WATCHERS, MIN_PERIOD,
                                         NEW_PER_SECOND, PER_SECOND, Bucket, Rate, Responder, Self)
from each import each

NONCE, ME, OTHER = bytes(range(8)), b"m" * 16, b"o" * 16
ASKER = ("192.168.1.20", 40000)
FACTS = json.dumps({"group": "render", "host": "192.168.1.10"}).encode()


def question(asked=Question(), size=ASK_BYTES, port=0, seal=None, instance=OTHER, nonce=NONCE):
    data = encode(Message(ASK, 0, port, nonce, instance,
                          encode_question(asked, size, seal is not None)), seal)
    return decode(data, seal)


@pytest.fixture
def make():
    def make(facts=FACTS, flags=0, local=False, seal=None, port=3010):
        return Responder(lambda: Self(ME, port, flags, facts), lambda: (3, 77), local, seal)
    return make


def test_an_answer_repeats_the_nonce_and_says_what_the_peer_says_of_itself(make):
    found = decode(make().answer(question(), ASKER, 0))
    assert (found.kind, found.port, found.nonce, found.instance) == (ANSWER, 3010, NONCE, ME)
    assert read_said(found.body).facts == FACTS


def test_an_answer_says_for_how_long_questions_have_been_heard():
    peer = Responder(lambda: Self(ME, 3010, 0, FACTS, 7.0), lambda: (0, 0), False)
    assert [decode(peer.answer(question(), ASKER, now)).age for now in (7.0, 7.5, 9.25, 99.0)] \
        == [0.0, 0.5, 2.25, math.inf]


@each("size, length", itertools.product([0, 60, 100, 200, 512, 1400], [0, 10, 300, 1200, 5000]))
def test_an_answer_is_never_longer_than_its_question(make, size, length):
    asked = question(size=size)
    answer = make(facts=b"f" * length).answer(asked, ASKER, 0)
    assert len(answer) <= asked.size
    said = read_said(decode(answer).body)
    assert said.size == length and said.facts in (None, b"f" * length)


def test_a_peer_that_has_answered_already_need_not_do_so_again(make):
    known = digest(OTHER, NONCE) + digest(ME, NONCE)
    assert make().answer(question(Question(known)), ASKER, 0) is None
    assert make().answer(question(Question(digest(OTHER, NONCE))), ASKER, 0)


def test_a_stranger_learns_from_a_sealed_peer_only_that_it_is_there(make):
    pytest.importorskip("cryptography")
    seal = Seal(b"k" * 32)
    peer = make(flags=SECURED, seal=seal)
    for stranger in (None, Seal(b"x" * 32)):
        data = encode(Message(ASK, 0, 0, NONCE, OTHER, encode_question(size=ASK_BYTES)), stranger)
        answer = peer.answer(decode(data, seal), ASKER, 0)
        found = decode(answer)
        assert (found.flags, found.port, found.nonce) == (SECURED, 3010, NONCE)
        assert found.instance == NOBODY and not found.body and len(answer) < len(data)
    found = decode(peer.answer(question(seal=Seal(b"k" * 32)), ASKER, 0), Seal(b"k" * 32))
    assert found.instance == ME and read_said(found.body).facts == FACTS


def test_a_process_without_a_peer_answers_nobody(make):
    assert make(port=0).answer(question(), ASKER, 0) is None


def test_a_peer_that_keeps_to_this_host_knows_no_other(make):
    local = make(local=True)
    assert not local.takes(ASKER) and local.takes(("127.0.0.1", 5))
    assert make().takes(ASKER) and not make().takes(("192.168.1.20", 0))


# ----------------------------------------------------------------------------- how much

def test_one_host_gets_a_burst_and_then_a_bounded_number_a_second(make):
    peer = make()
    times = [number / 1000 for number in range(5000)]
    answered = [now for now in times if peer.answer(question(), (ASKER[0], 1), now)]
    assert BURST + 4 * PER_SECOND <= len(answered) <= BURST + 5 * PER_SECOND


def test_other_hosts_are_answered_meanwhile(make):
    peer = make()
    for _ in range(1000):
        peer.answer(question(), ASKER, 0)
    assert peer.answer(question(), ("192.168.1.21", 1), 0)


def test_hosts_that_ask_for_the_first_time_are_bounded_in_number():
    rate = Rate()
    allowed = [rate.allows(f"host {number}", number / 2000) for number in range(20000)]
    assert NEW_PER_SECOND * 10 <= sum(allowed) <= NEW_PER_SECOND * 11.1
    assert len(rate._hosts) <= MAX_HOSTS


def test_known_peers_are_answered_while_strangers_flood():
    rate = Rate()
    assert rate.allows("known", 0)
    for number in range(500):
        rate.allows(f"host {number}", 0.2)
    assert rate.allows("known", 0.2) and not rate.allows("late", 0.2)


def test_a_bucket_fills_again():
    bucket = Bucket(2, 10, 0)
    assert [bucket.take(0) for _ in range(3)] == [True, True, False]
    assert bucket.take(0.11) and not bucket.take(0.12)
    assert [bucket.take(100) for _ in range(3)] == [True, True, False]


def test_processes_that_search_are_counted_for_a_second(make):
    peer = make()
    for number in range(5):
        peer.answer(question(), (f"10.0.0.{number}", 40000), 10.0)
    peer.answer(question(port=3011), ("10.0.0.9", 3011), 10.0)
    peer.answer(question(instance=ME), ("10.0.0.8", 40000), 10.0)
    assert peer.crowd(10.5) == 5, "neither who watches nor its own search"
    assert peer.crowd(11.5) == 0
    for number in range(5000):
        peer.answer(question(), (f"10.1.{number // 250}.{number % 250}", 1), 12.0)
    assert len(peer._searching) <= 1024


# ----------------------------------------------------------------------------- beats

def permit(peer, source=ASKER, now=0):
    return read_said(decode(peer.answer(question(), source, now)).body).permit


def lease(peer, seconds=60, period=1.0, source=ASKER, now=0.0, given=None):
    given = permit(peer, source, now) if given is None else given
    peer.answer(question(Question(b"", seconds, period, given)), source, now)


def test_beats_come_as_often_as_they_were_asked_for_until_the_lease_ends(make):
    peer = make()
    lease(peer, 10, 2.0)
    sent = []
    for step in range(300):
        now = step / 10
        if peer.due <= now:
            sent += [(now, data, address) for data, address in peer.beats(now)]
    assert [now for now, _, _ in sent] == pytest.approx([2, 4, 6, 8], abs=0.11)
    assert peer.due == float("inf") and not peer.watchers
    beat = decode(sent[0][1])
    assert (beat.kind, beat.nonce, beat.instance) == (BEAT, NONCE, ME)
    assert sent[0][2] == ASKER and read_sum(beat.body) == (3, 77, 0)


def test_nobody_has_beats_sent_to_an_address_where_answers_do_not_arrive(make):
    peer = make()
    other = permit(peer, ("192.168.1.66", 40000))
    for given in (bytes(8), b"x" * 8, other):
        lease(peer, given=given)
    assert not peer.watchers


def test_an_answer_is_to_the_first_of_several_questions_but_a_lease_to_its_own(make):
    peer, first = make(), b"f" * 8
    assert decode(peer.answer(question(), ASKER, 0, first)).nonce == first
    asked = question(Question(b"", 60, 1.0, permit(peer)))
    assert decode(peer.answer(asked, ASKER, 0, first)).nonce == NONCE
    assert decode(peer.beats(1.0)[0][0]).nonce == NONCE


def test_a_lease_is_renewed_and_given_back(make):
    peer = make()
    lease(peer, 10, 1.0)
    lease(peer, 10, 1.0, now=9.0)
    assert peer.beats(10.0) and peer.watchers
    lease(peer, 0, 0.0, now=11.0)
    assert not peer.watchers


def test_beats_are_bounded_in_number_and_time(make):
    peer = make()
    for number in range(100):
        lease(peer, 255, 0.1, (f"10.0.0.{number}", 3010))
    assert len(peer.watchers) == MAX_WATCHERS
    assert {watcher.period for watcher in peer.watchers.values()} == {MIN_PERIOD}
    assert max(watcher.until for watcher in peer.watchers.values()) <= 180


def test_what_was_missed_while_the_process_slept_is_not_made_up_for(make):
    peer = make()
    lease(peer, 60, 1.0)
    assert len(peer.beats(30.0)) == 1 and not peer.beats(30.1)
