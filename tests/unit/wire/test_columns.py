"""Long lists of values of one form: columns keep all that single tagged objects keep."""
from __future__ import annotations

import datetime
import json
from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

import travel
from each import each
from memory import Peak, tracemalloc
from net.errors import ProtocolError, ValueNotSupported
from net.wire import columns, fast
from net.wire.values import pack, unpack
from steps import counts_steps, steps_of
from travel import as_arguments, as_result, assert_same

NOON = datetime.datetime(2026, 11, 26, 12)
UTC = datetime.timezone.utc


@pytest.fixture(autouse=True, scope="module")
def of_all_lengths() -> Iterator[None]:
    """Shorter lists, too, which are quicker to try."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MANY", 2)
        yield


@pytest.fixture(params=["msgspec", "json"])
def either_codec(request: Any, monkeypatch: Any) -> None:
    found = fast.codec() if request.param == "msgspec" else None
    for name, value in [("MANY", 0), ("LARGE", 0), ("codec", lambda: found)]:
        monkeypatch.setattr(fast, name, value)


def text_of(value: Any) -> str:
    return pack(value, "result").text


@given(st.lists(st.one_of(
    travel.values, st.builds(travel.Point, travel.scalars, travel.scalars), st.datetimes(),
    st.tuples(travel.scalars, travel.scalars), st.fixed_dictionaries({"a": travel.scalars})),
    min_size=2, max_size=8))
def test_lists_of_all_that_travels_come_out_as_they_went_in(values):
    assert_same(as_result(values), values)
    assert_same(as_arguments(tuple(values)), ([tuple(values)], {}))


@each("value, text", [
    ([(1, "a"), (2, "b")], '{"!columns":["",["tuple",[],[1,2],["a","b"]]]}'),
    ([NOON, NOON], '{"!columns":["",["datetime",[],["2026-11-26T12:00:00",'
     '"2026-11-26T12:00:00"]]]}'),
    ([{"a": (1,), "b": 0}, {"a": (2,), "b": 0}], '{"!columns":["",["dict",["a","b"],'
     '{"!columns":["",["tuple",[],[1,2]]]},[0,0]]]}'),
    ([{"a": (1,)}, {"a": (2,)}], '[{"a":{"!tuple":[1]}},{"a":{"!tuple":[2]}}]'),
    ([((1,),), ((2,),)], '[{"!tuple":[{"!tuple":[1]}]},{"!tuple":[{"!tuple":[2]}]}]'),
    ([travel.Frozen(1), travel.Frozen(2)],
     '{"!columns":["",["value",["travel.Frozen","name"],[1,2]]]}'),
    ([(1,), 5, (2,), "x", NOON], '{"!columns":["acacb",["tuple",[],[1,2]],'
     '["datetime",[],["2026-11-26T12:00:00"]],["any",[],[5,"x"]]]}'),
    ({(1, 2)}, '{"!set":[{"!tuple":[1,2]}]}'),
    ([(), ()], '[{"!tuple":[]},{"!tuple":[]}]'),
    ([(1,), (1, 2)], '[{"!tuple":[1]},{"!tuple":[1,2]}]'),
    ([travel.Color.RED] * 2, '[{"!value":{"class":"travel.Color","name":"RED"}},'
     '{"!value":{"class":"travel.Color","name":"RED"}}]'),
    ([1, 2, (3,)], '[1,2,{"!tuple":[3]}]'),
])
def test_what_travels_looks_as_documented(value, text):
    assert text_of(value) == text
    assert_same(unpack(text.encode(), True), value)


@each("group", ['["tuple",[],@]', '["dict",["a"],@]',
                '["value",["travel.Frozen","name"],@]'])
def test_columns_within_columns_stand_for_no_more_than_they_may(group):
    """Twenty tuples around each of a million numbers took 490 bytes for each of the message."""
    text = f"[{','.join('1' * 5000)}]"
    for _ in range(20):
        text = '{"!columns":["",%s]}' % group.replace("@", text)
    with Peak() as peak, pytest.raises(ProtocolError, match="a single column"):
        unpack(text.encode(), True)
    assert peak.bytes < 100 * len(text)


@each("values", [
    [(float("nan"), None), (0.0, True), (-0.0, 1)], [{"a": 1, "b": ()}, {"b": (), "a": 1}],
    [{"!tuple": 1}, {"!tuple": ()}], [{1: 2}, {1: 2}], [{}, {}, ()], [NOON, NOON.replace(fold=1)],
    [NOON, NOON.replace(tzinfo=UTC)], [NOON.replace(microsecond=7), NOON], [travel.Pair(1, ())] * 3,
    [travel.Point(2 ** 3000, "x" * 5000), travel.Point("\ud800", b"x" * 5000)],
    [travel.Point(travel.Point(1, 2), NOON)] * 5, [travel.Frozen(travel.Color.RED)] * 2,
    [("x",)] * 20 + [("y",)], [True, (1,), 1.0, (2,)], [[(1,)] * 3] * 3,
])
def test_edge_values_come_out_as_they_went_in(values, either_codec):
    assert_same(as_result(values), values)
    assert_same(as_result({"key": tuple(values)}), {"key": tuple(values)})


def test_classes_beyond_the_last_letter_travel(monkeypatch):
    values = [(1,), NOON, {"a": 1, "b": 2}, 5, travel.Frozen(1)] * 3
    monkeypatch.setattr(columns, "ascii_letters", "abcd")
    text = text_of(values)
    assert text.startswith('{"!columns":["abcdd') and text.count('"datetime"') == 1
    assert_same(unpack(text.encode(), True), values)


@each("values, path", [
    ([travel.Point(1, 2), travel.Point(1, [object()])], "[1].y[0]"),
    ([(1, 2), NOON, (1, object())], "[2][1]"),
    ([{"a": ()}, {"a": {1: object()}}], "[1]['a'][1]"),
    ([(1,), (2,), object()], "[2]"),
])
def test_a_value_that_cannot_travel_says_where_it_is(values, path):
    with pytest.raises(ValueNotSupported) as caught:
        pack(values, "result")
    assert caught.value.path == "result" + path


LOST = '{"!value":{"class":"app.Lost","x":1}}'


@each("text, path", [
    ('{"!columns":["",["tuple",[],[1,2],[1,@]]]}', "[1][1]"),
    ('{"!columns":["abab",["any",[],[1,2]],["dict",["a","b"],[1,2],[3,@]]]}', "[3]['b']"),
    ('{"!columns":["bab",["any",[],[@]],["value",["travel.Frozen","name"],[1,2]]]}', "[1]"),
    ('{"!columns":["",["value",["travel.Point","y","x"],[1,[2,@]],[3,4]]]}', "[1].y[1]"),
    ('[{"!columns":["",["tuple",[],{"!columns":["",["tuple",[],[1,@]]]}]]}]', "[0][1][0][0]"),
    ('{"a":{"!columns":["",["value",["app.Lost","x"],[1]]]}}', "['a']"),
])
def test_a_class_that_is_not_there_is_named_with_its_place(text, path):
    with pytest.raises(ValueNotSupported, match="app.Lost arrived") as caught:
        unpack(text.replace("@", LOST).encode(), True, path="result")
    assert caught.value.path == "result" + path


@each("content", [
    '[]', '[""]', '"a"', '["a",[]]', '["a",["any",[]]]', '["aa",["any",[],[1]]]',
    '["a",["any",[],[1,2]]]', '["ab",["any",[],[1,2]],["any",[],[]]]', '["ac",["any",[],[1,2]]]',
    '["aab",["any",[],[1]],["any",[],[2,3]]]', '["",["any",[],[1]],["any",[],[2]]]',
    '["",["any",[],[1],[2]]]', '["",["any",["a"],[1]]]', '["",["tuple",["a"],[1]]]',
    '["",["tuple",[],[1],[2,3]]]', '["",["tuple",[],[]]]', '["",["dict",["a"],[1],[2]]]',
    '["",["dict",["a","a"],[1],[2]]]', '["",["dict",["a","b"],[1]]]', '["",["dict",[1],[1]]]',
    '["",["value",[],[1]]]', '["",["value",["travel.Point","x"],[1]]]',
    '["",["value",["travel.Frozen","name"],[1],[2]]]',
    '["",["value",["travel.Frozen","name","name"],[1],[2]]]',
    '["",["value",["travel.Frozen","other"],[1]]]',
    '["",["value",["travel.Color","name"],["RED"]]]',
    '["",["datetime",[],["2026"]]]', '["",["datetime",[],[5]]]', '["",["datetime",["a"],[]]]',
    '["",["datetime",[],["2026-11-26T12:00+01:00"]]]', '["",["set",[],[1]]]', '[1,["any",[],[1]]]',
    '["\\ud800",["any",[],[1]]]',
])
def test_columns_without_sense_are_refused(content):
    with pytest.raises((ProtocolError, ValueNotSupported)):
        unpack(b'{"!columns":' + content.encode() + b"}", True)


@pytest.mark.skipif(tracemalloc is None, reason="this Python cannot tell")
@each("group", ['["dict",["a","b"],[@],[@]]', '["tuple",[],[@]]',
                '["value",["travel.Frozen","name"],[@]]'])
def test_values_are_charged_before_they_are_made(group):
    """A character of a column may stand for a dict."""
    count = 10_000
    text = f'{{"!columns":["",{group}]}}'.replace("@", ",".join("1" * count)).encode()
    told: List[int] = []

    def charge(size: int) -> None:
        told.append(size)
        if sum(told) > 56 * count:
            raise LookupError("enough")

    with Peak() as peak, pytest.raises(LookupError, match="enough"):
        unpack(text, True, charge=charge)
    assert peak.bytes < 30 * count * group.count("@")


@counts_steps
@each("group", ['["dict",["a","b"],[@],[@]]', '["tuple",[],[@],[@]]',
                '["value",["travel.Frozen","name"],[@]]',
                '["value",["travel.Point","x","y"],[@],[@]]'])
def test_no_code_in_python_runs_for_each_value_of_a_group(group):
    def steps(count: int) -> int:
        text = f'{{"!columns":["",{group}]}}'.replace("@", ",".join("1" * count)).encode()
        return steps_of(lambda: unpack(text, True))

    steps(10)  # what is found once
    assert steps(1000) - steps(10) < 990


def test_long_lists_are_smaller_as_columns(monkeypatch):
    values = [travel.Point(number, (number, NOON)) for number in range(100)]
    small = len(text_of(values))
    monkeypatch.setattr(columns, "MANY", 1000)
    assert small < len(text_of(values)) / 2
    assert json.loads(text_of(values))[0]["!value"]["class"] == "travel.Point"


SHORT = '{"!columns":["",["tuple",[],[0]]]}'
OF_ONE_FORM = '{"!columns":["ab",["any",[],[0]],["any",[],[0]]]}'


@each("odd", [SHORT, OF_ONE_FORM])
def test_few_columns_may_be_shorter_than_ours_or_in_more_groups(odd, monkeypatch):
    """They take three times as long as lists of our own, for what they take."""
    assert len(unpack(f"[{','.join([odd] * 1000)}]".encode(), True)) == 1000
    with pytest.raises(ValueNotSupported, match="more lists in columns arrived than can be made"):
        unpack(f"[{','.join([odd] * 1001)}]".encode(), True)


def test_columns_of_our_own_are_never_too_many(monkeypatch):
    monkeypatch.setattr("net.wire.values.MAX_ODD_COLUMNS", 100)
    mixed = [(1,), (2,), {"a": 1, "b": 2}, {"a": 3, "b": 4}, NOON, NOON, 5,
             travel.Point(1, 2), travel.Point(3, 4), travel.Frozen("a"), travel.Frozen("b")]
    sent = pack([mixed] * 200, "result")
    assert sent.text.count("!columns") == 200
    assert len(unpack(sent.text.encode(), True)) == 200
