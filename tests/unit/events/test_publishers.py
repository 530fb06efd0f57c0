"""A publisher as its subscribers see it: order, gaps, and what goes to whom."""
from __future__ import annotations

from typing import Any, List

import pytest

from net.errors import ProtocolError
from net.events.publishers import Delivery, News, Source
from net.identity import make_id

PEER = make_id(3010, "127.0.0.1")
A, B = ("done", b"QQ=="), ("done", b"Qg==")


def source() -> Source:
    made = Source("abc", PEER, {})
    made.begin(delivery(made))
    return made


def delivery(source: Source) -> Delivery:
    return Delivery(source, lambda ended: None)


def begin(pair: Any, sequence: int) -> List[Any]:
    return [pair[0], sequence, None, pair[1].decode()]


def event(sequence: int, name: str = "done") -> List[Any]:
    return [name, sequence, [sequence], {}]


def heard(pair: Any, sequence: int) -> News:
    return News(pair, [sequence], {})


def test_a_handler_hears_what_comes_after_its_beginning():
    assert source().read([*begin(A, 4), *event(5), *event(6)]) == [heard(A, 5), heard(A, 6)]


def test_events_that_nobody_hears_are_left_out():
    assert source().read([*event(1), *begin(A, 4), *event(9, "other")]) == []


def test_an_event_from_before_the_beginning_is_not_part_of_it():
    assert source().read([*begin(A, 4), *event(3), *event(4), *event(5)]) == [heard(A, 5)]


def test_a_second_handler_begins_where_it_begins():
    news = source().read([*begin(A, 4), *event(5), *begin(B, 5), *event(6)])
    assert news == [heard(A, 5), heard(A, 6), heard(B, 6)]


def test_a_missing_number_is_a_gap():
    news = source().read([*begin(A, 4), *event(5), *event(8)])
    assert news == [heard(A, 5), News(A, None, 2), heard(A, 8)]


def test_another_connection_tells_how_many_were_missed():
    one = source()
    one.read([*begin(A, 4), *event(5)])
    one.begin(None)
    one.begin(delivery(one))
    assert one.read([*begin(A, 9), *event(10)]) == [News(A, None, 4), heard(A, 10)]


def test_another_connection_without_a_miss_is_no_gap():
    one = source()
    one.read([*begin(A, 4), *event(5)])
    one.begin(delivery(one))
    assert one.read([*begin(A, 5), *event(6)]) == [heard(A, 6)]


def test_only_who_heard_before_has_a_gap():
    one = source()
    one.read([*begin(A, 4)])
    one.begin(delivery(one))
    assert one.read([*begin(B, 9), *begin(A, 9)]) == [News(A, None, 5)]


def test_a_process_in_the_place_of_another_is_a_gap_of_unknown_size():
    one = source()
    one.read(begin(A, 4))
    one.begin(None)
    other = source()
    other.follow(one)
    assert other.read([*begin(A, 0), *event(1)]) == [News(A, None, None), heard(A, 1)]
    other.begin(delivery(other))
    assert other.read([*begin(A, 1)]) == []


def test_who_unsubscribed_has_no_gap_later():
    one = source()
    one.read(begin(A, 4))
    one.drop(A)
    assert one.read(event(5)) == []
    one.begin(delivery(one))
    assert one.read(begin(A, 9)) == []


def test_a_connection_that_ends_before_the_beginning_leaves_a_gap_of_unknown_size():
    one, other = source(), source()
    one.subscribed.add(A)
    one.begin(None)
    other.follow(one)
    assert other.read(begin(A, 7)) == [News(A, None, None)]


def test_the_same_beginning_again_changes_nothing():
    assert source().read([*begin(A, 4), *event(5), *begin(A, 5), *event(6)]) == \
        [heard(A, 5), heard(A, 6)]


def test_nonsense_is_refused():
    with pytest.raises(ProtocolError):
        source().read(["done", 1])
