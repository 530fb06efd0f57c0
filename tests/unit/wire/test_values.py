"""Type-true JSON: what goes in comes out, and what cannot travel says where it is."""
from __future__ import annotations

import collections
import json
import math
import socket
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import net
import travel
from net.settings import MIB
from net.errors import MessageTooLarge, ProtocolError, ValueNotSupported
from net.wire import values
from net.wire.limits import Limits
from net.wire.values import LONG, check_depth, encode_plain, is_plain, pack, unpack
from each import each
from memory import Peak
from times import patience
from travel import as_arguments, as_result, assert_same


def nested(value: Any, levels: int, wrap: Any = lambda inner: [inner]) -> Any:
    for _ in range(levels):
        value = wrap(value)
    return value


# ------------------------------------------------------------------------------ the promise


@given(travel.values)
def test_every_value_comes_out_as_it_went_in(value):
    assert_same(as_result(value), value)


@given(st.lists(travel.values, max_size=3), st.dictionaries(travel.any_text, travel.values,
                                                            max_size=3))
@example([{1}], {"!tuple": [1]})
@example([], {"peer": 1, "timeout": 2, "self": 3})
def test_arguments_come_out_as_they_went_in(args, kwargs):
    assert_same(as_arguments(*args, **kwargs), (args, kwargs))


@given(travel.plain_values)
def test_plain_values_travel_as_plain_json(value):
    packed = pack(value, "result")
    assert_same(json.loads(packed.text), value)
    assert_same(as_result(value), value)


@given(travel.values)
def test_a_value_that_went_twice_is_still_the_same(value):
    assert_same(as_result(as_result(value)), value)


@each("value", [
    None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, "", [], {}, (), set(), frozenset(), b"",
    float("nan"), float("inf"), float("-inf"), 1e-320, sys.float_info.max, 0.1,
    [[]], [()], ((),), {"": ""}, {"a": {}}, [None], {None: None}, {(): ()}, {1: 1, "1": 2, 1.5: 3},
    {True: "yes"}, {"b": 1, "a": 2}, {0.0: 1}, {-0.0: 1}, [1, True, 1.0], [0, False, 0.0, -0.0],
    {"!tuple": [1]}, {"!tuple": [1], "b": 2}, {"!": None}, {"!unknown": {"!str": 0}},
    [{"!dict": [1, 2]}, (1,)], {"class": "travel.Point", "x": 1, "y": 2}, {"!value": {"class": 1}},
    {"raised": 1}, {"flag": "TlVMTA==", "details": None}, {"raw": 1},
    {"payload": "error", "traceback": "x"}, "TlVMTA==", b"TlVMTA==",
    "\ud83d\ude00", "\ud83d", ["\ud83d", "\ude00"], {"\ud800": "\udfff"}, "\U0001f600",
    "\0\x7f\x80",
    "x" * (LONG - 1), "x" * LONG, "\ud800" * LONG, b"x" * (LONG - 1), b"x" * LONG,
    ["x" * LONG, b"y" * LONG, "x" * LONG], 10 ** 4000, -10 ** 4000, 10 ** 4299, 10 ** 4300,
    10 ** 20000, 1 << 2048, (1 << 2048) - 1, -(1 << 2048), [10 ** 1000, "1" * 1000], "7" * 1000,
    {10 ** 700: 10 ** 700}, complex(-0.0, -0.0), complex("nan"),
], ids=lambda value: f"{type(value).__name__}-{value!r:.20}" if not isinstance(value, int)
   or abs(value) < 1000 else "large")
def test_edge_values_come_out_as_they_went_in(value):
    assert_same(as_result(value), value)
    assert_same(as_result([value]), [value])
    assert_same(as_result((value,)), (value,))
    assert_same(as_result({"key": value}), {"key": value})
    assert_same(as_result({1: [(value, {2})]}), {1: [(value, {2})]})
    assert_same(as_arguments(value, key=value), ([value], {"key": value}))


def test_the_comparison_of_these_tests_sees_what_equality_does_not():
    for one, other in [(1, True), (1, 1.0), (0.0, -0.0), ((), []), ({1: 2}, {1.0: 2}),
                       ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (b"", bytearray()), ({1}, {True}),
                       ({1}, frozenset({1})), ({}, collections.OrderedDict()), ([0.0], [-0.0]),
                       (collections.deque([], 1), collections.deque([]))]:
        assert travel.difference(one, other), (one, other)
    assert not travel.difference([math.nan], [float("nan")])


@each("value, text", [
    ((1, 2), '{"!tuple":[1,2]}'),
    ({1: "a"}, '{"!dict":[1,"a"]}'),
    ({"!x": 1}, None),
    ([{"!x": 1}, ()], '[{"!dict":["!x",1]},{"!tuple":[]}]'),
    (1 << 2048, '{"!int":"0x1' + "0" * 512 + '"}'),
    (b"ab", '{"!bytes":"YWI="}'),
    (b"x" * LONG, '{"!bytes":0}'),
    ("x" * LONG, '{"!str":0}'),
    (["x" * LONG, bytearray(LONG)], '[{"!str":0},{"!bytearray":1}]'),
    (float("nan"), "NaN"),
    (-0.0, "-0.0"),
    ("\ud800", '"\ud800"'),
])
def test_what_travels_looks_as_documented(value, text):
    packed = pack(value, "result")
    if text is None:
        assert packed == ('{"!x":1}', False, ())
    else:
        assert packed.text == text
        assert packed.tagged == ("!" in text)


# ------------------------------------------------------------------------- what cannot travel


class Text(str):
    pass


@each("value, path, reason", [
    (object(), "", "object cannot travel"),
    ([0, [socket.socket]], "[1][0]", "type cannot travel"),
    ({"a": ({"b": len},)}, "['a'][0]['b']", "cannot travel"),
    ({1: object()}, "[1]", "object cannot travel"),
    ({(1, 2): object()}, "[(1, 2)]", "object cannot travel"),
    ({object: 1}, "[<class 'object'>]", "type cannot travel"),
    ([Text("x")], "[0]", "Text cannot travel; a plain str can"),
    ({"k" * 100: object()}, "['" + "k" * 36 + "...]", "object cannot travel"),
    (travel.Point(1, [object()]), ".y[0]", "object cannot travel"),
    (collections.defaultdict(list), "", "collections.defaultdict cannot travel; a plain dict can"),
    (memoryview(b"abcd").cast("I"), "", "a memoryview of anything but bytes cannot travel"),
    (threading.Lock(), "", "lock cannot travel"),
    ((value for value in ()), "", "generator cannot travel"),
    (collections.OrderedDict(a=[len]), "['a'][0]", "cannot travel"),
    (collections.deque([1, len]), "[1]", "cannot travel"),
])
def test_a_value_that_cannot_travel_says_where_it_is(value, path, reason):
    for send, prefix in [(as_result, "result"), (lambda value: as_arguments(1, value), "args[1]"),
                         (lambda value: as_arguments(key=value), "kwargs['key']")]:
        with pytest.raises(ValueNotSupported) as caught:
            send(value)
        assert caught.value.path == prefix + path
        assert reason in caught.value.reason
        assert str(caught.value) == f"{prefix}{path}: {caught.value.reason}"
        assert isinstance(caught.value, TypeError)


def test_the_documented_path_of_a_value_that_cannot_travel():
    with socket.socket() as sock, pytest.raises(ValueNotSupported) as caught:
        as_arguments(1, {"x": [0, 1, 2, sock]})
    assert str(caught.value) == "args[1]['x'][3]: socket.socket cannot travel"


@each("wrap", [
    lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner},
    lambda inner: {1: inner}, lambda inner: collections.deque([inner]),
    lambda inner: collections.OrderedDict(k=inner), travel.Point, lambda inner: {"!k": inner},
    lambda inner: travel.Pair(0, inner),
], ids=["list", "tuple", "dict", "keys", "deque", "ordered", "dataclass", "like a tag", "named"])
@each("core", [0, "x" * LONG, travel.Color.RED, 10 ** 5000, b"b"],
      ids=["int", "text", "enum", "long int", "bytes"])
def test_a_hundred_levels_travel_and_one_more_does_not(wrap, core):
    value, other = nested(core, 100, wrap), nested(core, 100, wrap)
    assert_same(as_result(value), other)
    args, kwargs = as_arguments(value, key=other)
    assert_same(args[0], kwargs["key"])
    for send in (as_result, as_arguments):
        with pytest.raises(ValueNotSupported, match="nested deeper than 100"):
            send(wrap(value))


@each("core", [
    __import__("fractions").Fraction(1, 10 ** 700), range(10 ** 700), travel.Access.RUN,
    __import__("datetime").datetime(2020, 1, 1, tzinfo=__import__("datetime").timezone.utc),
    complex(1, 2), net.PeerId(b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==")],
    ids=lambda core: str(type(core)))
def test_what_holds_nothing_travels_in_the_deepest_container(core):
    value = nested(core, 100, lambda inner: (inner,))
    assert_same(as_result(value), value)
    assert_same(as_arguments(key=value)[1]["key"], value)


def test_sets_count_as_levels_too():
    value = nested(1, 100, lambda inner: frozenset([inner]))
    assert_same(as_result(value), value)
    with pytest.raises(ValueNotSupported):
        as_result(frozenset([value]))


@each("wrap", [
    lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner},
    lambda inner: {1: inner}, travel.Point], ids=["list", "tuple", "dict", "keys", "dataclass"])
def test_tens_of_thousands_of_levels_are_refused(wrap):
    value = nested(None, 30_000, wrap)
    with pytest.raises(ValueNotSupported, match="nested deeper than 100"):
        as_result(value)
    with pytest.raises(ValueNotSupported, match=r"^args\[0\]"):
        as_arguments(value)
    while value is not None:  # or the interpreter itself takes a level of its stack for each
        value = value.x if isinstance(value, travel.Point) else \
            next(iter(value.values())) if isinstance(value, dict) else value[0]


def test_values_that_contain_themselves_are_refused():
    a_list: list = [1]
    a_list.append(a_list)
    a_dict: dict = {}
    a_dict["me"] = {"inner": [a_dict]}
    keyed: dict = {}
    keyed[1] = keyed
    mutual: list = [(a_list,)]
    point = travel.Point(1)
    point.y = [point]
    queue: collections.deque = collections.deque()
    queue.append(queue)
    for value in (a_list, a_dict, keyed, mutual, point, queue):
        with pytest.raises(ValueNotSupported, match="contains itself"):
            as_result(value)
        with pytest.raises(ValueNotSupported, match="contains itself"):
            as_arguments(1, key=value)


def bomb(wrap: Any) -> Any:
    value = wrap("leaf", "leaf")
    for _ in range(60):
        value = wrap(value, value)
    return value


@each("wrap", [
    lambda one, other: [one, other],
    lambda one, other: (one, other),
    lambda one, other: {"a": one, "b": other},
    lambda one, other: {1: one, 2: other},
    lambda one, other: collections.OrderedDict(a=one, b=other),
    lambda one, other: collections.deque([one, other]),
    lambda one, other: frozenset([(one, 1), (other, 2)]),
    travel.Point,
    lambda one, other: [one, (other,)],
    lambda one, other: [[one], {"k": other}],
], ids=["list", "tuple", "dict", "keys", "ordered", "deque", "sets", "dataclass", "mixed",
        "deeper"])
def test_lists_that_hold_each_other_many_times_are_refused_quickly(
        wrap, kept_settings, monkeypatch):
    monkeypatch.setattr(values, "MANY", 1000)
    kept_settings.set("max_text", MIB)
    value = bomb(wrap)
    started = time.thread_time()
    with pytest.raises((MessageTooLarge, ValueNotSupported)):  # whichever is found first
        as_result(value)
    assert time.thread_time() - started < patience(5)  # it would be days


def test_arguments_that_hold_each_other_many_times_are_refused_quickly(monkeypatch):
    monkeypatch.setattr(values, "MANY", 1000)
    value = bomb(lambda one, other: [one, other])
    for args, kwargs in [((value,), {}), ((), {"key": value}), (({1}, value), {})]:
        with pytest.raises(MessageTooLarge):
            as_arguments(*args, **kwargs)


@each("value", [
    ["x" * 4000] * 5000,
    [{"k" * 4000: 1}] * 5000,
    [("x" * 4000,)] * 5000,
    [[["x" * 4000] * 75] * 75],
], ids=["text", "keys", "tuples", "lists"])
def test_one_text_many_times_is_refused_before_it_is_written_out(value, monkeypatch):
    monkeypatch.setattr(values, "MANY", 1000)
    with Peak() as peak, pytest.raises(MessageTooLarge, match="NET_MAX_TEXT") as caught:
        as_result(value)
    assert peak.bytes < 2 * MIB  # it would be 20
    assert caught.value.limit == 16 * MIB
    assert isinstance(caught.value, ValueError)


@each("value", [
    [[1]] * 1100, [{"a": 1}] * 1100, [(1,)] * 1100, ["text"] * 1100, list(range(1100)),
], ids=["lists", "dicts", "tuples", "text", "ints"])
def test_what_repeats_but_fits_travels(value, monkeypatch):
    monkeypatch.setattr(values, "MANY", 1000)
    assert as_result(value) == value


# --------------------------------------------------------------------------------- the limits


def test_text_up_to_the_limit_travels_and_one_byte_more_does_not(kept_settings):
    kept_settings.set("max_text", 2000)
    fitting = ["x" * 1996]
    assert as_result(fitting) == fitting
    with pytest.raises(MessageTooLarge, match="the limit is 2,000; NET_MAX_TEXT") as caught:
        as_result(["x" * 1997])
    assert (caught.value.size, caught.value.limit, caught.value.setting, caught.value.ran) == \
        (2001, 2000, "NET_MAX_TEXT", "no")
    call = '{"tag":"dGFn","args":[[""]],"kwargs":{}}'
    assert as_arguments(["x" * (2000 - len(call))])
    with pytest.raises(MessageTooLarge):
        as_arguments(["x" * (2001 - len(call))])
    with pytest.raises(MessageTooLarge):
        as_arguments({1}, "x" * 2000)


def test_buffers_up_to_the_limit_travel_and_one_byte_more_do_not(kept_settings):
    kept_settings.set("max_buffers", 10_000)
    assert as_result([bytes(5000), bytes(5000)])
    with pytest.raises(MessageTooLarge, match="NET_MAX_BUFFERS") as caught:
        as_result([bytes(5000), "x" * 5001])
    assert (caught.value.size, caught.value.limit) == (10_001, 10_000)


def test_more_buffers_than_a_frame_has_room_for_are_refused():
    limits = Limits(text=2 ** 30, buffers=2 ** 40)
    long = bytes(LONG)
    with pytest.raises(MessageTooLarge, match="65,535"):
        pack([long] * 65_536, "result", limits)
    assert len(pack([long] * 65_535, "result", limits).buffers) == 65_535


def test_a_large_message_of_small_bytes_is_not_copied_into_json():
    packed = pack(bytes(MIB), "result")
    assert len(packed.text) < 20
    assert packed.buffers[0] is not None and len(packed.buffers[0]) == MIB


def test_depth_is_a_setting(kept_settings):
    kept_settings.set("max_depth", 3)
    assert as_result([[[1]]]) == [[[1]]]
    with pytest.raises(ValueNotSupported, match="deeper than 3"):
        as_result([[[[1]]]])


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="no limit in this Python")
@pytest.mark.parametrize("limit", [640, 0])
def test_long_ints_travel_whatever_python_is_told_of_digits(limit):
    before = sys.get_int_max_str_digits()
    values_sent = [10 ** 639, 10 ** 641, 10 ** 3000, 10 ** 5000, {"a": 10 ** 700}]
    messages_sent = [pack(value, "result") for value in values_sent]
    try:
        sys.set_int_max_str_digits(limit)
        for packed, value in zip(messages_sent, values_sent):
            assert unpack(packed.text.encode(), packed.tagged) == value
        assert as_arguments(10 ** 5000, key=10 ** 3000) == ([10 ** 5000], {"key": 10 ** 3000})
    finally:
        sys.set_int_max_str_digits(before)


# ------------------------------------------------------------------------------- and back again


@each("text", [
    b"", b" ", b"\n", b"[1] ", b" [1]", b"[1]]", b"[1][", b"[1]\0", b"1 2", b"nul", b"None", b"{",
    b"[", b'"', b'"\\', b"[1,]", b"{'a':1}", b'{"a" 1}', b"'a'", b"+1", b"01", b"0x1", b"-", b"1.",
    b".5", b"undefined", b"[1;2]", b"\xef\xbb\xbf[1]", "[1]".encode("utf-16"),
    "[1]".encode("utf-16-le"), "[1]".encode("utf-32"), b'"\xff"', b'"\xc3"', b'"\xe2\x82"',
    b'"a\nb"', b'"\0"', b'"\\x41"', b'"\\u12"', b"\xff", b"9" * 5000 if sys.implementation.name ==
    "cpython" and hasattr(sys, "get_int_max_str_digits") else b"",
])
def test_what_is_not_json_is_refused(text):
    for tagged in (False, True):
        with pytest.raises(ProtocolError):
            unpack(text, tagged)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_give_a_value_or_a_typed_error(text, tagged):
    try:
        unpack(text, tagged)
    except (ProtocolError, ValueNotSupported):
        pass


@each("text", [
    '{"!unknown":1}', '{"!tuple":1}', '{"!tuple":{}}', '{"!set":[[]]}', '{"!dict":[1]}',
    '{"!dict":[[],1]}', '{"!dict":"ab"}', '{"!int":1}', '{"!int":"zz"}', '{"!int":""}',
    '{"!str":0}', '{"!str":"gA=="}', '{"!str":true}', '{"!bytes":0}', '{"!bytes":-1}',
    '{"!bytes":1.0}', '{"!bytes":true}', '{"!bytes":"?"}', '{"!bytes":"YQ"}',
    '{"!bytes":"YQ==\\n"}',
    '{"!bytes":null}', '{"!complex":[1]}', '{"!complex":["1","2"]}', '{"!range":[1,2,0]}',
    '{"!range":[1.0,2,3]}', '{"!range":[]}', '{"!deque":[]}', '{"!deque":["a",1]}',
    '{"!deque":[-1]}', '{"!datetime":""}', '{"!datetime":"2020-02-30T00:00:00"}',
    '{"!datetime":"2020-01-01"}', '{"!datetime":"2020-01-01T00:00+01:00"}',
    '{"!datetime":"2020-01-01T00:00:00Z"}', '{"!datetime":"2020-01-01T00:00:00.000+02:00"}',
    '{"!datetime":"2020-01-01T00:00:+1"}', '{"!datetime":[]}', '{"!datetime":[1,2,3]}',
    '{"!datetime":[2020,13,1,0,0,0,0,0,null]}', '{"!datetime":[2020,1,1,0,0,0,0,0,"utc"]}',
    '{"!datetime":[2020.0,1,1,0,0,0,0,0,null]}', '{"!date":[2020,2,30]}', '{"!date":"x"}',
    '{"!time":[25,0,0,0,0,null]}', '{"!timedelta":[1e999,0,0]}', '{"!timedelta":[1.5,0,0]}',
    '{"!timezone":[1,0,0]}', '{"!timezone":[0,0,0,5]}', '{"!timezone":[0,0,0,"a","b"]}',
    '{"!zone":"../../etc/passwd"}', '{"!zone":"/etc/passwd"}', '{"!zone":""}', '{"!zone":5}',
    '{"!decimal":1}', '{"!decimal":"x"}', '{"!fraction":[1,0]}', '{"!fraction":[1.5,2]}',
    '{"!uuid":"x"}', '{"!uuid":5}', '{"!path":"x"}', '{"!path":["posix"]}', '{"!path":["os","x"]}',
    '{"!path":["posix",5]}', '{"!peer":"x"}', '{"!peer":["x",{}]}', '{"!peer":["",5]}',
    '{"!peer":["\\u00e9",{}]}', '{"!value":1}', '{"!value":{}}', '{"!value":{"class":1}}',
    '{"!counter":[[],1]}', '{"!ordered":[1]}', '{"!memoryview":5}', '{"!array":1}',
    '{"!scalar":[]}',
    '{"!fraction":[{"!int":"0x1"},0]}', '{"!timezone":[99999999999,0,0]}', '{"!date":[1e999,1,1]}',
])
def test_tagged_objects_without_sense_are_refused(text):
    with pytest.raises((ProtocolError, ValueNotSupported)):
        unpack(text.encode(), True)
    # Without the flag bit it is the application's own dict.
    assert unpack(text.encode()) == json.loads(text)


def test_a_buffer_can_be_used_once_only():
    text = b'[{"!bytearray":0},{"!bytearray":1}]'
    assert unpack(text, True, [b"a", b"b"]) == [bytearray(b"a"), bytearray(b"b")]
    with pytest.raises(ProtocolError, match="used twice"):
        unpack(b'[{"!bytearray":0},{"!bytearray":0}]', True, [b"a", b"b"])


def test_infinite_and_tiny_numbers_are_what_python_makes_of_them():
    assert unpack(b"1e999") == math.inf
    assert unpack(b"-Infinity") == -math.inf
    assert math.isnan(unpack(b"NaN"))
    assert math.copysign(1, unpack(b"-0.0")) == -1
    assert unpack(b'{"a":1,"a":2}') == {"a": 2}


def test_a_class_that_is_not_registered_here_is_named():
    with pytest.raises(ValueNotSupported, match="app.Unknown arrived, but is not registered"):
        unpack(b'[{"!value":{"class":"app.Unknown","x":1}}]', True)


# -------------------------------------------------------------------------------- the depth


def slow_depth(text: bytes) -> int:
    """How many containers are in each other, one character after the other."""
    depth = deepest = 0
    inside = escaped = False
    for character in text.decode("utf-8", "surrogatepass"):
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


tricky = st.text(alphabet='[]{}"\\,: a\ud800é\n', max_size=12)
deep_json = st.recursive(
    st.none() | st.integers() | tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=30)


@given(deep_json, st.integers(0, 12), st.booleans())
def test_the_depth_of_any_json_is_found_out(value, limit, spaces):
    text = json.dumps(value, ensure_ascii=False, indent=1 if spaces else None) \
        .encode("utf-8", "surrogatepass")
    if slow_depth(text) <= limit:
        check_depth(text, limit)
    else:
        with pytest.raises(ProtocolError, match="nested deeper"):
            check_depth(text, limit)


@given(st.text(alphabet='[]{}"\\a', max_size=30), st.integers(0, 6))
def test_what_is_no_json_is_never_taken_for_shallower_than_a_parser_goes(text, limit):
    try:
        check_depth(text.encode(), limit)
    except ProtocolError:
        return
    # A parser reads on until the first thing that is wrong.
    good = max((end for end in range(len(text) + 1) if _may_begin_json(text[:end])), default=0)
    assert slow_depth(text[:good].encode()) <= limit


def _may_begin_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError as problem:
        return problem.pos >= len(text) or problem.msg.startswith("Unterminated")
    return True


@each("text", [
    b"[" * 30_000, b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 30_000, b"[{" * 15_000,
    b'["' + b"[" * 1000 + b'",' + b"[" * 1000, b'{"\\"":' * 5000 + b"1" + b"}" * 5000,
    b'["a\\\\",' * 5000 + b"1" + b"]" * 5000, b'[""' + b"[" * 5000, b"[" * 2 ** 18,
    b"[" * 2 ** 17 + b"]" * 2 ** 17, b"[" + b"[]" * 2 ** 17 + b"[" * 2 ** 17,
])
def test_deep_json_is_refused_before_it_is_parsed(text):
    started = time.thread_time()
    for tagged in (False, True):
        with pytest.raises(ProtocolError):
            unpack(text, tagged)
    assert time.thread_time() - started < patience(5)


def test_the_levels_of_json_around_the_values_of_a_message_are_not_the_values():
    assert unpack(b"[" * 103 + b"]" * 103)
    with pytest.raises(ProtocolError):
        unpack(b"[" * 104 + b"]" * 104)
    assert unpack(b"[" * 206 + b"]" * 206, True)
    with pytest.raises(ProtocolError):
        unpack(b"[" * 207 + b"]" * 207, True)


def test_many_brackets_side_by_side_or_in_text_are_not_deep():
    assert unpack(b"[" + b"[]," * 5000 + b"[]]") == [[]] * 5001
    text = json.dumps(["[" * 5000, "{\"[\\" * 100])
    assert unpack(text.encode()) == json.loads(text)


def test_deep_json_does_not_overflow_the_stack_of_a_small_thread():
    deep = nested(0, 20_000)  # Python itself needs much stack to let go of it
    found = []

    def run() -> None:
        for send in (lambda: unpack(b"[" * 20_000 + b"]" * 20_000),
                     lambda: unpack(b'{"!tuple":[' * 20_000 + b"]}" * 20_000, True),
                     lambda: as_result(deep)):
            try:
                send()
            except net.NetError as problem:
                found.append(type(problem))
        for wrap in (lambda inner: [inner], lambda inner: (inner,), travel.Point):
            value = nested(0, 100, wrap)
            found.append(travel.difference(as_result(value), value))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found == [ProtocolError, ProtocolError, ValueNotSupported, "", "", ""]


# ------------------------------------------------------------------------------- the hot path


@given(travel.plain_values)
def test_plain_values_are_known_to_be_plain(value):
    assert is_plain([value])
    assert is_plain({"key": value})


@each("value", [(), {1: 2}, {None: 1}, set(), b"", object(), 1j, Text(),
                {Text("a"): 1}, [Text()], ["x" * LONG]])
def test_other_values_are_known_not_to_be_plain(value):
    assert not is_plain([value])
    assert not is_plain([[[value]]])
    assert not is_plain({"a": {"b": value}})


def test_the_encoder_of_the_hot_path_says_what_json_says():
    for value in ({"a": [1, 2.5, None, True, "é\n\"\\\u2028"]}, [[], {}], -1, "x", 1e100):
        assert encode_plain(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_numbers_that_need_another_form_are_found_by_their_digits():
    assert values.fits(encode_plain([1] * 1000), Limits())
    assert not values.fits("9" * 617, Limits())
    for shift in range(700):
        assert not values.fits("x" * shift + "9" * 617 + "x" * 50, Limits())


# -------------------------------------------------------------- where there is no C in json


@pytest.fixture
def without_c(monkeypatch):
    """What PyPy's json gives, or one that was built without its C part."""
    monkeypatch.setattr(json.encoder, "c_make_encoder", None, raising=False)
    monkeypatch.setattr(json.scanner, "c_make_scanner", None)


@given(value=travel.plain_values)
def test_an_encoder_in_python_writes_the_same_text(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json.encoder, "c_make_encoder", None, raising=False)
        text = values._make_encode()(value)
    assert text == encode_plain(value)


@pytest.mark.parametrize("hook", [None, lambda found: ("object", sorted(found))])
def test_a_decoder_in_python_reads_the_same_and_refuses_the_same(without_c, hook):
    decode = values._make_decode(hook)
    for text in ('{"a":[1,2.5,null]}', '"x"', "[]", "-0.0", "NaN"):
        expected = json.loads(text, object_hook=hook)
        assert repr(decode(text)) == repr(expected)
    for text in (" 1", "1 ", "[1]\n", "[1]x", "{", "", "[1,]"):
        with pytest.raises(ValueError):
            decode(text)


def test_what_is_not_plain_is_not_encoded_as_such():
    with pytest.raises(TypeError, match="set"):
        encode_plain([{1}])


def test_more_values_than_characters_may_be_sent_are_refused():
    for value in ([0] * 1025, {str(number): 0 for number in range(1025)}):
        with pytest.raises(MessageTooLarge):
            pack(value, "result", Limits(text=1024))


def test_many_values_of_other_classes_travel(monkeypatch):
    """Their weight is found when they are taken apart."""
    monkeypatch.setattr(values, "MANY", 1000)
    sent = [1j] * (values.MANY + 1)
    assert_same(as_result(sent), sent)
