"""What waits for one subscriber, with the time in the test's hands."""
from __future__ import annotations

import pytest

from net.errors import ProtocolError
from net.events.feeds import (MAX_BURST, MAX_BYTES, MAX_EVENTS, MAX_IN_FLIGHT, NO_PROGRESS,
                              OVERHEAD, PATIENCE, SLOWEST, Feed)
from net.identity import make_id
from net.wire.deliveries import Events, MAX_JOINED

SUBSCRIBER = make_id(3010, "127.0.0.1")


@pytest.fixture
def feed() -> Feed:
    return Feed(SUBSCRIBER)


def events(count: int = 1, size: int = 20, name: str = "done", tagged: bool = False) -> Events:
    return Events(name, count, b"", tagged, (), size)


def take(feed: Feed, now: float, *dropped: object) -> list[Events]:
    """The subscriber has taken the first frame that is on its way."""
    return feed.acknowledged(feed.sent - len(feed.in_flight) + 1, now, *dropped)


def counts(feed: Feed, name: str = "done") -> tuple[int, int, int]:
    count = feed.counts[name]
    return count.sent, count.queued, count.dropped


def test_events_leave_in_order_and_are_counted(feed):
    first, second = events(3), events(2)
    feed.put(first, 0.0)
    feed.put(second, 0.0)
    assert feed.next_events() == [first, second]
    assert counts(feed) == (0, 5, 0)
    assert feed.waiting == 5
    take(feed, 1.0)
    assert counts(feed) == (5, 0, 0)
    assert feed.waiting == 0
    assert feed.next_events() == []


def test_a_frame_holds_what_fits_into_it(feed):
    for _ in range(4):
        feed.put(events(size=MAX_JOINED // 3), 0.0)
    assert len(feed.next_events()) == 3
    assert len(feed.next_events()) == 1


def test_a_large_event_leaves_all_the_same(feed):
    large = events(size=10 * MAX_JOINED)
    feed.put(large, 0.0)
    assert feed.next_events() == [large]


def test_events_that_may_fail_to_be_read_travel_alone(feed):
    for tagged in (False, True, True, False, False):
        feed.put(events(tagged=tagged), 0.0)
    assert [len(feed.next_events()) for _ in range(4)] == [1, 1, 1, 2]


def test_with_enough_frames_on_their_way_events_gather(feed):
    for _ in range(MAX_IN_FLIGHT):
        feed.put(events(), 0.0)
        assert feed.next_events()
    for _ in range(10):
        feed.put(events(), 0.0)
    assert feed.next_events() == []
    take(feed, 0.1)
    assert len(feed.next_events()) == 10


def test_a_burst_is_no_reason_to_cut_off(feed):
    feed.put(events(50 * MAX_EVENTS), 0.0)
    assert not feed.falls_behind(PATIENCE)
    assert "50,000 events" in feed.falls_behind(PATIENCE + 0.1)


def test_a_full_queue_that_moves_is_no_reason_either(feed):
    # Always two thousand behind, but none of them for long.
    for tenth in range(100):
        feed.put(events(1000), tenth / 10)
        feed.next_events()
        if tenth > 1:
            take(feed, tenth / 10)
        assert not feed.falls_behind(tenth / 10)


def test_few_events_may_wait_as_long_as_any_is_taken(feed):
    for _ in range(100):
        feed.put(events(tagged=True), 0.0)
    for second in range(100):
        feed.next_events()
        take(feed, second * NO_PROGRESS)
        assert not feed.falls_behind((second + 1) * NO_PROGRESS)


def test_a_subscriber_that_takes_nothing_is_cut_off(feed):
    feed.put(events(), 100.0)
    feed.next_events()
    assert not feed.falls_behind(100.0 + NO_PROGRESS)
    assert "taken nothing for 11 s" in feed.falls_behind(101.0 + NO_PROGRESS)


def test_the_time_without_events_does_not_count(feed):
    feed.put(events(), 0.0)
    feed.next_events()
    take(feed, 0.1)
    feed.put(events(), 1000.0)
    assert not feed.falls_behind(1000.1)


def test_a_large_event_has_the_time_that_it_needs(feed):
    feed.put(events(size=100 * SLOWEST), 0.0)
    feed.next_events()
    assert not feed.falls_behind(100 + NO_PROGRESS)
    assert feed.falls_behind(101 + NO_PROGRESS)


def test_bytes_are_limited_like_events(feed):
    feed.put(events(size=MAX_BYTES), 0.0)
    feed.put(events(), 0.0)
    assert not feed.falls_behind(PATIENCE)
    assert "bytes" in feed.falls_behind(PATIENCE + 0.1)


def test_the_memory_of_a_burst_is_limited_at_once(feed):
    feed.put(events(size=10 * MAX_BURST), 0.0)  # the one whose turn it is may be of any size
    assert not feed.falls_behind(0.0)
    feed.put(events(size=MAX_BURST - 2 * OVERHEAD), 0.0)
    assert not feed.falls_behind(0.0)
    feed.put(events(), 0.0)
    assert feed.falls_behind(0.0)


def test_a_frame_stands_for_those_before_it(feed):
    for count in (1, 2, 3, 4):
        feed.put(events(count, tagged=True), 0.0)
        feed.next_events()
    assert feed.sent == 4
    assert [one.total for one in feed.acknowledged(3, 1.0, None)] == [3]
    assert counts(feed) == (3, 4, 3)
    assert feed.sent == 4
    assert take(feed, 1.0) and not feed.busy


@pytest.mark.parametrize("number", [0, 3, 1000, 2 ** 32 - 1])
def test_what_is_not_on_its_way_cannot_be_taken(feed, number):
    for _ in range(2):
        feed.put(events(tagged=True), 0.0)
        feed.next_events()
    with pytest.raises(ProtocolError, match="not on its way"):
        feed.acknowledged(number, 0.0)
    feed.acknowledged(2, 0.0)
    with pytest.raises(ProtocolError, match="not on its way"):
        feed.acknowledged(2, 0.0)


def test_numbers_of_frames_begin_again_after_the_last(feed):
    feed._taken = 2 ** 32 - 2
    for number in (2 ** 32 - 1, 0, 1):
        feed.put(events(), 0.0)
        feed.next_events()
        assert feed.sent == number
        feed.acknowledged(number, 0.0)


def test_what_a_subscriber_cannot_read_is_dropped_and_counted(feed):
    feed.put(events(3), 0.0)
    feed.next_events()
    take(feed, 0.0, None)
    assert counts(feed) == (0, 0, 3)
    # Two that left together: what was wrong with one is not counted for the other.
    feed.put(events(5), 0.0)
    feed.put(events(2), 0.0)
    assert len(feed.next_events()) == 2
    take(feed, 0.0, [2, 0])
    assert counts(feed) == (5, 0, 5)


def test_what_waits_at_the_end_is_lost(feed):
    feed.put(events(3), 0.0)
    feed.next_events()
    feed.put(events(4, name="other"), 0.0)
    feed.end("it is gone", False)
    assert feed.lost == 7
    assert counts(feed) == (0, 0, 3) and counts(feed, "other") == (0, 0, 4)
    assert feed.ended == "it is gone" and not feed.cut_off


def test_it_tells_what_is_left_of_what_was_there(feed):
    feed.put(events(3), 0.0)
    feed.next_events()
    feed.put(events(4, name="other"), 0.0)
    until = feed.accepted
    feed.put(events(5), 0.0)
    assert feed.left(until) == {"done": 3, "other": 4}
    take(feed, 0.0)
    assert feed.left(until) == {"other": 4}
    feed.end("cut off", True)
    assert feed.left(until) == {"other": 4}
