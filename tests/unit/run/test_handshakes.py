"""Handshakes are shared out by source: clients that prove nothing hold up nobody else."""
from __future__ import annotations

from typing import Any, List

import pytest

from net.run import handshakes
from net.run.handshakes import (AT_ONCE, FEW, FORGIVEN, MAX_WAIT, MOST, MOST_IN_ALL, PATIENCE,
                                Handshakes)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(handshakes, "monotonic", made)
    return made


@pytest.fixture
def all_(clock: Clock) -> Handshakes:
    return Handshakes()


class Client:
    def __init__(self, source: str) -> None:
        self.source = source


def wait(all_: Handshakes, source: str, number: int = 1) -> List[Any]:
    """The handshakes of a number of clients, which may wait."""
    clients = [Client(source) for _ in range(number)]
    return [one for one in clients if all_.wait(one, "rest")]  # type: ignore[arg-type]


def begin(all_: Handshakes) -> Any:
    found = all_.next()
    assert found is None or found[1] == "rest"
    return found and found[0]


def begun(all_: Handshakes) -> List[Any]:
    """All that may begin, each with its first step done."""
    found = []
    one = begin(all_)
    while one:
        found.append(one)
        all_.worked(one)
        one = begin(all_)
    return found


def test_a_bounded_number_works_at_once(all_):
    clients = wait(all_, "a", AT_ONCE + 1)
    assert [begin(all_) for _ in range(AT_ONCE)] == clients[:AT_ONCE]
    assert begin(all_) is None
    assert all_.worked(clients[0])
    assert begin(all_) is clients[AT_ONCE]
    assert not all_.worked(clients[1])


def test_a_source_that_proves_nothing_has_a_bounded_number(all_, clock):
    clients = wait(all_, "a", 2 * MOST)
    assert begun(all_) == clients[:MOST]
    for one in clients[:MOST]:
        all_.over(one)
        all_.over(one)  # counts once
    assert begun(all_) == []
    clock.now += 1
    assert len(begun(all_)) == FORGIVEN


def test_a_newcomer_that_proves_something_makes_room_at_once(all_):
    clients = wait(all_, "a", 3 * MOST)
    seen = []
    while True:
        some = begun(all_)
        if not some:
            break
        for one in some:
            all_.proved(one)
            all_.over(one)
        seen += some
    assert seen == clients


def test_the_source_with_the_fewest_that_prove_nothing_goes_first(all_):
    flood = wait(all_, "flood", 50)
    for one in flood[:20]:
        assert begin(all_) is one
        all_.worked(one)
        all_.over(one)
    honest = wait(all_, "honest", 3)
    assert begun(all_)[:3] == honest


def test_another_source_may_begin_when_one_has_had_its_share(all_):
    wait(all_, "flood", 2 * MOST)
    begun(all_)
    honest = wait(all_, "honest")
    assert begun(all_) == honest


def test_many_sources_together_have_a_bounded_number_and_others_a_few(all_):
    for number in range(20):
        wait(all_, f"flood {number}", MOST)
    assert len(begun(all_)) == MOST_IN_ALL
    honest = wait(all_, "honest", 2 * FEW)
    assert begun(all_) == honest[:FEW]


def test_a_newcomer_that_waits_because_its_source_proves_nothing_is_late_soon(all_, clock):
    clients = wait(all_, "flood", MOST + 5)
    begun(all_)
    assert all_.late() == []
    clock.now += PATIENCE + 0.01
    assert all_.late() == clients[MOST:]


def test_a_newcomer_that_would_wait_in_vain_is_told_at_once(all_, clock):
    assert len(wait(all_, "flood", 2 * MOST)) == 2 * MOST
    begun(all_)
    clock.now += PATIENCE + 0.01
    for one in all_.late():
        all_.over(one)
    begun(all_)
    assert len(wait(all_, "flood", 2 * MOST)) == FORGIVEN * PATIENCE
    assert len(wait(all_, "honest", 2 * MOST)) == 2 * MOST


def test_a_newcomer_that_waits_though_its_source_proves_something_has_more_time(all_, clock):
    clients = wait(all_, "busy", MOST + 5)
    some = begun(all_)
    clock.now += PATIENCE + 0.01
    all_.proved(some[0])
    wait(all_, "other", 1)
    begun(all_)
    assert all_.late() == []
    clock.now = 1000.0 + MAX_WAIT + 0.01
    assert all_.late() == clients[MOST + 1:]


def test_what_has_gone_while_it_waited_is_not_begun_and_owes_nothing(all_):
    first, second = wait(all_, "a", 2)
    assert all_.over(first)
    assert begin(all_) is second
    assert not all_.proved(second)
    all_.late()
    assert all_._shares == {}


def test_sources_that_owe_nothing_any_more_are_forgotten(all_, clock):
    for number in range(100):
        one, = wait(all_, str(number))
        begun(all_)
        all_.over(one)
    clock.now += 1
    assert all_.late() == []
    assert all_._shares == {} == all_._open == all_._working
