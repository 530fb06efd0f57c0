"""How often everybody is asked, and how long answers are waited for."""
from __future__ import annotations

import math
from random import Random

import pytest

from net.discovery.lan.rounds import END, MAX_ROUNDS, NOBODY, NOBODY_QUICK, Rounds
from each import each


def run(answers, seed=1, step=0.001, born=None, says_age=True, **options):
    """Ask until it is over: ``answers(round, now)`` gives ``(delay, address)`` pairs.

    Gives the seconds that it took, the number of questions and the addresses that have answered.

    :param born: when peers began to hear questions, by address, if not before the first.
    :param says_age: whether they say so.
    """
    born = born or {}
    random = Random(seed)
    rounds, now, coming, number = Rounds(0.0, random, **options), 0.0, [], 0
    while not rounds.over(now):
        for when, nonce, address, age in [one for one in coming if one[0] <= now]:
            rounds.heard(nonce, address, when, age=age if says_age else math.inf)
        coming = [one for one in coming if one[0] > now]
        if now >= rounds.due:
            nonce = rounds.ask(now)
            known = set(rounds.answered)
            coming += [(now + delay, nonce, address, now + delay / 2 - born.get(address, -math.inf))
                       for delay, address in answers(number, random)
                       if address not in known and born.get(address, 0.0) <= now + delay / 2]
            number += 1
        now += step
    return now, number, set(rounds.answered)


def peers(count, delay=0.002, jitter=0.002, loss=0.0):
    """Answers of a number of peers; datagrams are lost and late, each way, as given."""
    def answers(_number, random):
        return [(delay + jitter * (random.random() + random.random()), (f"10.0.0.{n}", 3010))
                for n in range(count) if random.random() >= loss and random.random() >= loss]
    return answers


def test_a_calm_network_takes_less_than_a_tenth_of_a_second_and_three_questions():
    seconds, number, found = run(peers(20))
    assert seconds < 0.1 and number <= 3 and len(found) == 20


@each("delay, jitter, loss, limit", [
    (0.002, 0.002, 0.05, 1), (0.002, 0.002, 0.2, 3), (0.2, 0, 0, 1), (0.4, 0, 0, 2),
    (0.6, 0, 0, 2), (0.0, 0.1, 0, 1), (0.2, 0.0, 0.2, 4)])
def test_on_a_bad_network_nobody_is_missed_and_the_time_is_bounded(delay, jitter, loss, limit):
    missed, slow = 0, 0
    for seed in range(30):
        seconds, _, found = run(peers(20, delay, jitter, loss), seed, 0.005)
        missed += 20 - len(found)
        slow += seconds > limit
    assert missed <= 1 and slow <= 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_peers_are_hardly_ever_missed_either(count):
    missed = sum(count - len(run(peers(count, loss=0.2), seed, 0.01)[2]) for seed in range(300))
    assert missed <= 12


@each("count, loss, seconds", [(1, 0, 0.6), (1, 0.2, 1.5), (2, 0, 0.4), (10, 0, 0.3),
                               (10, 0.05, 0.4), (10, 0.2, 1.2)])
def test_peers_that_start_during_a_search_prolong_it_by_little(count, loss, seconds):
    took = missed = 0
    for seed in range(30):
        random = Random(seed)
        addresses = [address for _, address in peers(count)(0, random)]
        # The first half was there before.
        born = {one: random.uniform(0, 0.3) for one in addresses[count // 2:]}
        spent, _, found = run(peers(count, loss=loss), seed, 0.005, born)
        took += spent
        missed += len(set(addresses) - set(born) - found)
    assert took / 30 < seconds and missed <= 2


def test_an_empty_network_costs_less_where_it_is_known_to_be_quick():
    assert run(peers(0))[0] == pytest.approx(NOBODY, abs=0.01)
    assert run(peers(0), expected=False)[0] == pytest.approx(NOBODY_QUICK, abs=0.01)
    rounds = Rounds(0.0)
    rounds.quick = True
    assert rounds.over(NOBODY_QUICK)


def test_where_many_search_everything_takes_longer_and_nothing_is_asked_more_often():
    seconds, number, _ = run(peers(0), crowd=50)
    assert seconds > 1.5 * NOBODY and number <= 5
    rounds = Rounds(0.0, crowd=0)
    rounds.ask(0.0)
    alone = rounds.due
    rounds = Rounds(0.0, crowd=50)
    rounds.ask(0.0)
    assert rounds.due > 1.5 * alone


def test_it_ends_whatever_answers():
    count = iter(range(10**6))

    def strangers(_number, random):
        return [(random.random(), (f"10.0.{n // 250}.{n % 250}", next(count) % 9 + 1))
                for n in range(20) if random.random() < 0.5]
    seconds, number, _ = run(strangers, step=0.01)
    assert seconds <= END + 0.02 and number <= MAX_ROUNDS


def test_an_answer_that_was_overtaken_is_no_loss():
    rounds = Rounds(0.0, Random(1))
    first = rounds.ask(0.0)
    second = rounds.ask(0.1)
    rounds.heard(second, ("a", 1), 0.2)
    assert rounds.loss == 0.5
    rounds.heard(first, ("a", 1), 0.25)
    assert rounds.loss == 0 and len(list(rounds.answered)) == 1


@each("age, loss", [(0.2, 2 / 3), (0.15, 1 / 2), (0.05, 0.0), (0.0, 0.0), (math.inf, 2 / 3)])
def test_what_was_asked_before_a_peer_was_there_is_not_lost(age, loss):
    rounds = Rounds(0.0, Random(1))
    first, second, third = [rounds.ask(now) for now in (0.05, 0.1, 0.2)]
    rounds.heard(third, ("a", 1), 0.22, age=age)
    assert rounds.loss == loss
    rounds.heard(second, ("a", 1), 0.23, age=age + 0.01)
    rounds.heard(first, ("a", 1), 0.24, age=age + 0.02)
    assert rounds.loss == 0.0 and len(list(rounds.answered)) == 1


def test_what_answers_another_question_or_is_on_this_host_says_nothing_of_the_network():
    rounds = Rounds(0.0, Random(1))
    nonce = rounds.ask(0.0)
    assert rounds.heard(bytes(8), ("a", 1), 0.1) is None
    assert rounds.heard(nonce, ("127.0.0.1", 1), 0.001, near=True) == 0.001
    assert not list(rounds.answered) and rounds.wait == NOBODY


def test_a_question_is_due_again_only_as_long_as_somebody_may_be_missed():
    rounds = Rounds(0.0, Random(1))
    assert rounds.due == 0.0
    now = 0.0
    for n in range(30):
        if math.isinf(rounds.due):
            break
        now = rounds.due
        nonce = rounds.ask(now)
        rounds.heard(nonce, ("a", 1), now + 0.001)
    assert 2 <= n <= 8
    assert now < rounds.ends < math.inf


def test_an_answer_may_take_longer_than_the_slowest_and_longer_yet_where_many_search():
    rounds = Rounds(0.0, Random(1))
    nonce = rounds.ask(0.0)
    for number in range(50):
        rounds.heard(nonce, ("10.0.0.1", number), 0.5 if number == 0 else 0.1)
    assert rounds.wait > 0.5
    rounds.heard(nonce, ("10.0.0.2", 1), 1.9)
    alone, rounds.crowd = rounds.wait, 50
    assert rounds.wait > 1.9 > alone


def test_a_question_that_has_not_left_this_host_is_asked_again_and_counts_for_nothing():
    rounds = Rounds(0.0, Random(1))
    now = 0.0
    for _ in range(4):
        first = rounds.ask(now)
        rounds.dropped()
        assert now < rounds.due < now + 0.2 and not rounds.over(now + NOBODY)
        assert rounds.heard(first, ("127.0.0.1", 1), now + 0.001, near=True) is not None
        now = rounds.due
    nonce = rounds.ask(now)
    assert rounds.ends == pytest.approx(now + NOBODY)
    rounds.heard(nonce, ("10.0.0.1", 1), now + 0.001)
    assert rounds.loss == 0.0


def test_a_question_that_has_not_left_to_all_may_be_answered_by_one_that_was_asked_alone():
    rounds = Rounds(0.0, Random(1))
    nonce = rounds.ask(0.0)
    rounds.dropped()
    assert rounds.heard(nonce, ("10.0.0.1", 1), 0.01) == 0.01
    assert 0.0 < rounds.due < 0.5 and rounds.ends == END
    rounds.ask(rounds.due)
    assert list(rounds.answered) == [("10.0.0.1", 1)]


def test_a_search_none_of_whose_questions_leave_this_host_ends_all_the_same():
    rounds, now = Rounds(0.0, Random(1)), 0.0
    while not rounds.over(now):
        rounds.ask(now)
        rounds.dropped()
        now = rounds.due
    assert now == pytest.approx(END, abs=0.2)


def test_a_question_to_newcomers_is_waited_for_and_prolongs_no_search_beyond_its_end():
    rounds = Rounds(0.0, Random(1))
    while not rounds.over(0.2):
        nonce = rounds.ask(min(0.05, max(0.0, rounds.due)))
        for number in range(20):
            rounds.heard(nonce, (f"10.0.0.{number}", 1), 0.06)
    number = len(rounds._times)
    nonce = rounds.ask_some(0.2)
    assert not rounds.over(0.2) and rounds.due == math.inf and len(rounds._times) == number
    assert rounds.heard(nonce, ("10.0.1.1", 1), 0.21, age=0.1) == pytest.approx(0.01)
    assert rounds.loss == 0.0 and rounds.over(0.2 + rounds.wait)
    rounds.ask_some(END - 0.001)
    assert rounds.over(END)


def test_where_nobody_has_answered_newcomers_are_not_waited_for_as_long_as_anybody():
    rounds = Rounds(0.0, Random(1))
    rounds.ask_some(NOBODY)
    assert not rounds.over(NOBODY) and rounds.over(NOBODY + NOBODY_QUICK)
