"""Events as text: made once, joined, and read again."""
from __future__ import annotations

import json
import threading
from typing import Any, List

import pytest

from net.errors import MessageTooLarge, ProtocolError, ValueNotSupported
from net.wire import deliveries
from net.wire.deliveries import (MAX_FAILURES, MAX_NAME, MAX_PLACES, MAX_SEQUENCE, MAX_TAG,
                                 Subscribe, encode_events, encode_failed, encode_subscribe,
                                 encode_subscribed, encode_taken, encode_unsubscribe, entries,
                                 join, pack_arguments, read_events, read_failed, read_subscribe,
                                 read_subscribed, read_taken, read_unsubscribe, values_of)
from net.wire.frames import (EVENT, FAILED, HEAD, KNOWN, RESULT, SUBSCRIBE, TAKEN, UNSUBSCRIBE,
                             Frame, FrameParser)
from net.wire.limits import Limits
from net.wire.values import unpack
from each import each

PAIR = ("done", b"dGFn")


def travelled(pieces: List[Any]) -> Frame:
    """A frame, as its receiver gets it."""
    frame = FrameParser(Limits(), KNOWN).receive(b"".join(pieces))
    assert frame is not None
    return frame


def triggered(*values: Any, name: str = "done", first: int = 1) -> List[Any]:
    return [(name, number, pack_arguments((value,), {"of": number}))
            for number, value in enumerate(values, first)]


def test_events_of_a_name_are_joined_and_come_apart_again():
    events, = join(triggered(1, "two", [3.5, None], {"four": True}))
    assert events.total == 4
    frame = travelled(encode_events(7, [events]))
    assert (frame.kind, frame.number) == (EVENT, 7)
    assert list(read_events(frame)) == [
        ("done", 1, [1], {"of": 1}), ("done", 2, ["two"], {"of": 2}),
        ("done", 3, [[3.5, None]], {"of": 3}), ("done", 4, [{"four": True}], {"of": 4})]
    assert values_of(events) == list(read_events(frame))
    assert events.size == len(frame.text) - 2


def test_the_text_of_a_frame_is_the_documented_one():
    pieces = encode_events(1, [*join(triggered(1, first=7)), *join(triggered(2, name="other"))])
    data = b"".join(pieces)
    assert data[:HEAD] == bytes([EVENT, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 46])
    assert json.loads(data[HEAD:]) == ["done", 7, [1], {"of": 7}, "other", 1, [2], {"of": 1}]


def test_events_of_other_names_keep_their_place():
    mixed = triggered(1) + triggered(2, name="other") + triggered(3, first=2)
    assert [(events.name, events.total) for events in join(mixed)] == \
        [("done", 1), ("other", 1), ("done", 1)]


def test_values_that_json_would_bend_travel_alone_and_true():
    value = {"shot": (1, {2}), "data": b"x" * 10_000}
    plain, tagged, after = join(triggered(1, value, 3))
    assert plain.joinable and after.joinable and not tagged.joinable
    assert list(read_events(travelled(encode_events(1, [tagged])))) == \
        [("done", 2, [value], {"of": 2})]
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
    frame = travelled(encode_events(1, list(join(triggered(value)))))
    assert list(read_events(frame))[0][2] == [value]
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
    assert len(b"".join(encode_events(1, [events]))) < 10_000


def test_an_integer_of_any_size_travels():
    events, = join(triggered(7 ** 9000))
    assert values_of(events)[0][2] == [7 ** 9000]


@each("values", [
    ["done"], ["done", 1, [], {}, "done"], [None, 1, [], {}], ["done", "1", [], {}],
    ["done", True, [], {}], ["done", 1, {}, {}], ["done", 1, [], []], ["done", 1, [], None],
    ["done", 1, None, {}], ["done", 1, None, "tag"], ["done", MAX_SEQUENCE + 1, [], {}],
    {"done": 1}, None, "four",
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


# ------------------------------------------------------------------ what a subscriber sends


@pytest.mark.parametrize("request_", [
    Subscribe(PAIR, None, []),
    Subscribe(("d\u00f6ne", b"dGFn"), 3010, [("198.51.100.7", 3010), ("::1", 5)]),
])
def test_a_request_for_events_comes_as_it_was(request_):
    frame = travelled(encode_subscribe(5, request_))
    assert (frame.kind, frame.number) == (SUBSCRIBE, 5)
    assert read_subscribe(frame) == request_
    assert "places" in json.loads(frame.text) or not request_.places


def test_the_rest_of_the_talk_comes_as_it_was():
    frame = travelled(encode_subscribed(5, 41))
    assert (frame.kind, frame.number, read_subscribed(frame)) == (RESULT, 5, 41)
    assert read_subscribed(travelled(encode_subscribed(5, None))) is None
    frame = travelled(encode_unsubscribe(PAIR))
    assert (frame.kind, frame.number, read_unsubscribe(frame)) == (UNSUBSCRIBE, 0, PAIR)
    frame = travelled(encode_taken(7))
    assert (frame.kind, frame.number, read_taken(frame)) == (TAKEN, 7, None)
    assert read_taken(travelled(encode_taken(7, "no such class"))) == "no such class"
    frame = travelled(encode_failed([["done", "dGFn", "ValueError: 5"]], 3))
    assert (frame.kind, frame.number) == (FAILED, 0)
    assert read_failed(frame) == ([(PAIR, "ValueError: 5")], 3)


def test_fields_of_later_versions_are_ignored():
    assert read_subscribe(plain({"event": "done", "tag": "dGFn", "colour": 5})).pair == PAIR
    assert read_failed(plain({"failures": [], "colour": 5})) == ([], 0)


def plain(content: Any) -> Frame:
    return Frame(SUBSCRIBE, 1, False, json.dumps(content).encode())


PAIRS: List[Any] = [
    None, [], "done", {}, {"event": "done"}, {"event": 5, "tag": "dGFn"},
    {"event": "", "tag": "dGFn"}, {"event": "a\nb", "tag": "dGFn"},
    {"event": "x" * (MAX_NAME + 1), "tag": "dGFn"}, {"event": "done", "tag": ""},
    {"event": "done", "tag": None}, {"event": "done", "tag": "d\u00f6ne"},
    {"event": "done", "tag": "x" * (MAX_TAG + 1)}]
SOUND = {"event": "done", "tag": "dGFn"}
FAILURE = ["done", "dGFn", "text"]


@each("read, content", [
    *[(read_unsubscribe, content) for content in PAIRS],
    *[(read_subscribe, content) for content in PAIRS],
    *[(read_subscribe, {**SOUND, **more}) for more in (
        {"port": 0}, {"port": "5"}, {"port": 2 ** 16}, {"port": True},
        {"places": None}, {"places": {}},
        {"places": [["::1", 5]] * (MAX_PLACES + 1)}, {"places": ["::1"]},
        {"places": [["::1", "5"]]}, {"places": [[5, 5]]}, {"places": [["::1", 5, 0]]})],
    *[(read_subscribed, content) for content in (-1, 1.5, True, "5", [], MAX_SEQUENCE + 1)],
    *[(read_taken, content) for content in (5, [], {}, False)],
    *[(read_failed, content) for content in (
        None, [], {}, {"failures": None}, {"failures": {}}, {"failures": [], "more": "text"},
        {"failures": [], "more": -1}, {"failures": [], "more": True},
        {"failures": [], "more": 10 ** 30}, {"failures": [FAILURE] * (MAX_FAILURES + 1)},
        {"failures": [None]}, {"failures": [["done", "dGFn"]]},
        {"failures": [["done", "dGFn", 5]]}, {"failures": [["a\nb", "dGFn", "text"]]})],
])
def test_what_nobody_of_ours_says_breaks_the_rules(read, content):
    with pytest.raises(ProtocolError):
        read(plain(content))


@each("read", [read_subscribe, read_subscribed, read_taken, read_failed])
@each("frame", [
    Frame(SUBSCRIBE, 1, False, b"nonsense"), Frame(SUBSCRIBE, 1, False, b"[" * 1000),
    Frame(SUBSCRIBE, 1, False, b"9" * 10_000), Frame(SUBSCRIBE, 1, True, b"null"),
    Frame(SUBSCRIBE, 1, False, b"null", [b"buffer"]), Frame(SUBSCRIBE, 1, False, b"\xff"),
], ids=["no JSON", "deep", "a long number", "tagged", "a buffer", "no UTF-8"])
def test_the_talk_is_plain_json(read, frame):
    with pytest.raises(ProtocolError):
        read(frame)
