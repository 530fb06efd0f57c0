"""A publisher as its subscribers see it: order, gaps, and what goes to whom."""
from __future__ import annotations

from typing import Any, List, Optional

import pytest

from net.errors import ProtocolError
from net.events.subscription import Item, Subscription
from each import each

A, B = ("done", b"QQ=="), ("done", b"Qg==")
OTHER = ("other", b"QQ==")


def subscription(*starts: Any, instance: str = "abc") -> Subscription:
    """A subscription that is connected, with handlers and the numbers after which they begin."""
    made = Subscription()
    made.begin(instance)
    for pair, sequence in starts:
        assert subscribe(made, pair, sequence) == []
    return made


def subscribe(to: Subscription, pair: Any, sequence: Optional[int]) -> List[Item]:
    return to.answered(to.ask(pair), sequence)


def event(sequence: int, name: str = "done") -> Any:
    return name, sequence, [sequence], {}


def heard(pair: Any, sequence: int) -> Item:
    return Item(pair, [sequence], {})


def gap(pair: Any, missed: Optional[int]) -> Item:
    return Item(pair, None, missed)


def test_a_handler_hears_what_comes_after_its_beginning():
    assert subscription((A, 4)).read([event(5), event(6)]) == [heard(A, 5), heard(A, 6)]


def test_an_event_from_before_the_beginning_is_not_part_of_it():
    assert subscription((A, 4)).read([event(3), event(4), event(5)]) == [heard(A, 5)]


def test_a_second_handler_begins_where_it_begins():
    made = subscription((A, 4))
    assert made.read([event(5)]) == [heard(A, 5)]
    subscribe(made, B, 6)
    assert made.read([event(6), event(7)]) == [heard(A, 6), heard(A, 7), heard(B, 7)]


def test_a_missing_number_is_a_gap_for_all_handlers_that_heard_before_it():
    made = subscription((A, 4))
    assert made.read([event(5), event(8)]) == [heard(A, 5), gap(A, 2), heard(A, 8)]
    subscribe(made, B, 9)
    assert made.read([event(11)]) == [gap(A, 2), gap(B, 1), heard(A, 11), heard(B, 11)]


def test_what_is_dropped_hears_no_more_and_begins_anew():
    made = subscription((A, 4), (B, 4))
    assert made.pairs == {A, B}
    assert made.keep({B}) == [A] and made.keep({B}) == []
    assert made.read([event(5)]) == [heard(B, 5)]
    assert made.keep(set()) == [B]
    assert subscribe(made, A, 8) == []
    assert made.read([event(8), event(9)]) == [heard(A, 9)]


def test_another_connection_tells_how_many_were_missed():
    made = subscription((A, 4))
    made.read([event(5)])
    made.end()
    assert made.pairs == set()
    made.begin("abc")
    assert subscribe(made, A, 8) == [gap(A, 3)]
    assert made.read([event(9)]) == [heard(A, 9)]


def test_a_connection_that_brought_nothing_counts_from_its_beginning():
    made = subscription((A, 4))
    for sequence, missed in ((6, 2), (6, None), (9, 3)):
        made.end()
        made.begin("abc")
        assert subscribe(made, A, sequence) == ([gap(A, missed)] if missed else [])


def test_a_process_in_the_place_of_another_leaves_a_gap_of_unknown_size():
    made = subscription((A, 4))
    made.end()
    made.begin("def")
    assert subscribe(made, A, 0) == [gap(A, None)]
    assert subscribe(made, B, 0) == []


def test_a_process_that_counts_back_has_missed_an_unknown_number():
    made = subscription((A, 4))
    made.end()
    made.begin("abc")
    assert subscribe(made, A, 3) == [gap(A, None)]


def test_a_handler_that_is_dropped_while_there_is_no_connection_misses_nothing():
    made = subscription((A, 4))
    made.end()
    assert made.keep(set()) == []
    made.begin("abc")
    assert subscribe(made, A, 8) == []


def test_what_was_not_answered_is_asked_for_again_on_the_next_connection():
    made = subscription()
    number = made.ask(A)
    assert made.pending == {A}
    made.end()
    assert made.pending == set()
    made.begin("abc")
    with pytest.raises(ProtocolError, match="not sent"):
        made.answered(number, 4)


def test_what_was_refused_is_not_heard():
    made = subscription()
    assert made.refused(made.ask(A)) == A
    assert (made.pairs, made.pending) == (set(), set())


def test_a_reply_is_taken_once():
    made = subscription()
    number = made.ask(A)
    made.answered(number, 4)
    with pytest.raises(ProtocolError, match="not sent"):
        made.answered(number, 9)
    assert made.read([event(5)]) == [heard(A, 5)]


# ----------------------------------------------------- one process at more than one address


def test_what_is_heard_elsewhere_is_heard_here_when_that_ends():
    there, here = subscription((A, 4)), subscription()
    assert subscribe(here, A, None) == []
    assert here.elsewhere == {A} and here.pairs == set()
    there.read([event(5)])
    here.end()
    there.end()
    assert here.follow(there) and not here.follow(there)
    assert here.elsewhere == set()
    here.begin("abc", [there])
    assert subscribe(here, A, 9) == [gap(A, 4)]
    # And the other way round, when the first address is back.
    there.begin("abc", [here])
    assert subscribe(there, A, None) == []
    assert there.elsewhere == {A}


def test_what_another_connection_ended_before_an_answer_to_is_asked_for_here():
    there, here = subscription(), subscription()
    there.ask(A)
    # The publisher has taken it there, and its answer is lost on the way.
    subscribe(here, A, None)
    there.end()
    assert here.follow(there) and not here.elsewhere
    assert subscribe(here, A, 7) == []


def test_a_process_that_is_found_at_another_address_is_known_again():
    there, here = subscription((A, 4)), Subscription()
    there.end()
    here.begin("abc", [there])
    assert subscribe(here, A, 6) == [gap(A, 2)]


def test_a_peer_that_says_it_is_another_process_takes_nothing_from_it():
    honest, liar = subscription((A, 4)), Subscription()
    honest.end()
    liar.begin("abc", [honest])
    subscribe(liar, A, 1000)
    liar.read([event(1001)])
    honest.begin("abc", [liar])
    assert subscribe(honest, A, 6) == [gap(A, 2)]
    assert honest.read([event(7)]) == [heard(A, 7)]


def test_processes_of_different_ids_know_nothing_of_each_other():
    there, here = subscription((A, 4)), Subscription()
    there.end()
    here.begin("def", [there])
    assert subscribe(here, A, 6) == []


# -------------------------------------------------------------------- what no publisher does


@each("entries", [[event(5, "never asked for")], [event(5), event(5)],
                  [event(6), event(5)], [event(0)], [event(-1)]])
def test_events_that_were_not_asked_for_or_come_twice_break_the_rules(entries):
    with pytest.raises(ProtocolError, match="not asked for, or not in its order"):
        subscription((A, 4)).read(entries)


def test_events_of_a_dropped_handler_may_still_come():
    made = subscription((A, 4), (OTHER, 0))
    made.keep({OTHER})
    assert made.read([event(5), event(1, "other")]) == [heard(OTHER, 1)]


def test_frames_are_counted_on_each_connection():
    made = subscription((A, 4))
    made.check_frame(1)
    made.check_frame(2)
    made.end()
    made.begin("abc")
    made.check_frame(1)


@each("number", [0, 1, 3, 2 ** 32 - 1])
def test_a_frame_that_is_not_the_next_one_breaks_the_rules(number):
    made = subscription((A, 4))
    made.check_frame(1)
    with pytest.raises(ProtocolError, match="in the place of 2"):
        made.check_frame(number)


def test_numbers_of_frames_begin_again_after_the_last():
    made = subscription((A, 4))
    made._frames = 2 ** 32 - 2
    made.check_frame(2 ** 32 - 1)
    made.check_frame(0)
    made.check_frame(1)
