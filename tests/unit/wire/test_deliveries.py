"""Events as text: made once, joined, and read again."""
from __future__ import annotations

import json
import threading
from typing import Any, List

import pytest

from net.errors import MessageTooLarge, ProtocolError, ValueNotSupported
from net.wire import deliveries
from net.wire.deliveries import (encode_delivery, entries, join, make_beginning, pack_arguments,
                                 values_of)
from net.wire.limits import Limits
from net.wire.values import unpack
from travel import joined, read_call, read_frame


def delivered(pieces: List[Any]) -> List[Any]:
    """The arguments of a delivery, as its receiver gets them."""
    call = read_call(read_frame(joined(pieces)))
    assert call.tag == deliveries.DELIVER and call.kwargs == {}
    return call.args


def triggered(*values: Any, name: str = "done", first: int = 1) -> List[Any]:
    return [(name, number, pack_arguments((value,), {"of": number}))
            for number, value in enumerate(values, first)]


def test_events_of_a_name_are_joined_and_come_apart_again():
    events, = join(triggered(1, "two", [3.5, None], {"four": True}))
    assert events.total == 4
    publisher, size, *rest = delivered(encode_delivery("abc", [events]))
    assert (publisher, size) == ("abc", events.size)
    assert list(entries(rest)) == [
        ("done", 1, [1], {"of": 1}), ("done", 2, ["two"], {"of": 2}),
        ("done", 3, [[3.5, None]], {"of": 3}), ("done", 4, [{"four": True}], {"of": 4})]
    assert values_of(events) == list(entries(rest))


def test_the_text_of_a_delivery_is_the_documented_one():
    pieces = encode_delivery("abc", [make_beginning("done", 6, b"dGFn"),
                                     *join(triggered(1, first=7))])
    assert json.loads(b"".join(pieces)[12:]) == {
        "tag": "bmV0LmV2ZW50cy5kZWxpdmVy",
        "args": ["abc", 43, "done", 6, None, "dGFn", "done", 7, [1], {"of": 7}], "kwargs": {}}


def test_a_delivery_of_nothing_is_a_call_too():
    assert delivered(encode_delivery("abc")) == ["abc", 0]


def test_events_of_other_names_keep_their_place():
    mixed = triggered(1) + triggered(2, name="other") + triggered(3, first=2)
    assert [(events.name, events.total) for events in join(mixed)] == \
        [("done", 1), ("other", 1), ("done", 1)]


def test_values_that_json_would_bend_travel_alone_and_true():
    value = {"shot": (1, {2}), "data": b"x" * 10_000}
    plain, tagged, after = join(triggered(1, value, 3))
    assert plain.joinable and after.joinable and not tagged.joinable
    args = delivered(encode_delivery("abc", [tagged]))
    assert list(entries(args[2:])) == [("done", 2, [value], {"of": 2})]
    assert values_of(tagged) == [("done", 2, [value], {"of": 2})]
    assert tagged.size > 10_000


def test_joined_text_stays_below_its_limit(monkeypatch):
    monkeypatch.setattr(deliveries, "MAX_JOINED", 1000)
    joined = list(join(triggered(*["x" * 300] * 10)))
    assert sum(events.total for events in joined) == 10
    assert max(events.total for events in joined) == 3
    assert [events.total for events in join(triggered("x" * 3000, "y"))] == [1, 1]


def test_a_value_may_be_as_deep_as_in_a_call():
    value: Any = []
    for _ in range(Limits().depth - 1):
        value = [value]
    args = delivered(encode_delivery("abc", list(join(triggered(value)))))
    assert list(entries(args[2:]))[0][2] == [value]
    with pytest.raises(ValueNotSupported, match="deeper"):
        pack_arguments(([value],), {})


def test_what_is_sent_does_not_change_with_the_values():
    data = bytearray(b"x" * 10_000)
    events, = join([("done", 1, pack_arguments((data,), {}))])
    data[:] = b"y" * 10_000
    assert values_of(events)[0][2] == [bytearray(b"x" * 10_000)]


def test_an_error_says_where_the_value_is():
    with pytest.raises(ValueNotSupported) as caught:
        pack_arguments((1, {"a": [threading.Lock()]}), {})
    assert caught.value.path == "args[1]['a'][0]"
    with pytest.raises(ValueNotSupported) as caught:
        pack_arguments((), {"key": threading.Lock()})
    assert caught.value.path == "kwargs['key']"


def test_an_event_over_the_limit_fails_before_it_is_sent():
    limits = Limits(text=10_000)
    many = [0] * 4600
    with pytest.raises(MessageTooLarge, match="NET_MAX_TEXT"):
        pack_arguments((many,), {}, limits)
    events, = join([("n" * 200, 1, pack_arguments((many[:4400],), {}, limits))])
    assert len(b"".join(encode_delivery("a" * 32, [events]))) < 10_000


def test_an_integer_of_any_size_travels():
    events, = join(triggered(7 ** 9000))
    assert values_of(events)[0][2] == [7 ** 9000]


@pytest.mark.parametrize("values", [
    ["done"], ["done", 1, [], {}, "done"], [None, 1, [], {}], ["done", "1", [], {}],
    ["done", True, [], {}], ["done", 1, {}, {}], ["done", 1, [], []], ["done", 1, [], None],
    ["done", 1, None, {}], ["done", 1, None, None], ["done", 1, "text", {}],
])
def test_what_no_publisher_sends_is_refused(values):
    with pytest.raises(ProtocolError):
        list(entries(values))


def test_an_event_with_a_long_int_is_read_by_a_peer_that_converts_few_digits():
    packed = deliveries.pack_arguments((10 ** 1000,), {"k": 5})
    assert packed.tagged and "!int" in packed.text


def test_keywords_of_an_event_that_look_like_a_tag_stay_keywords():
    packed = deliveries.pack_arguments(({1},), {"!tuple": [2]})
    assert unpack(f"[{packed.text}]".encode(), True) == [[{1}], {"!tuple": [2]}]
