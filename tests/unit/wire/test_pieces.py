"""Large JSON is read in pieces, as if it were read at once."""
from __future__ import annotations

import json
import random
from typing import Any, Callable, Dict, List

import pytest

from each import each
from memory import Peak
from net.errors import ProtocolError, ValueNotSupported
from net.wire import pieces, values
from net.wire.limits import Limits
from net.wire.values import pack, unpack
from steps import counts_steps, steps_of

SPICE = [1, -2.5, None, True, "", "a", "x,y", "[", "]{", '"', "\\", '\\"', "\u20ac", "\ud800",
         "a\\\\", ",", '["', 10 ** 30, [], {}]
#: What a byte is replaced by, or put before it.
CHANGES = [b",", b"[", b"]", b"{", b"}", b'"', b"\\", b":", b"1", b" ", b""]


def any_value(source: random.Random, depth: int, tuples: bool) -> Any:
    kind = source.randrange(12) if depth else 0
    inside = [any_value(source, depth - 1, tuples) for _ in range(source.randrange(5) * (kind > 4))]
    if kind < 5:
        return source.choice(SPICE)
    if kind < 8:
        return inside
    if kind < 9 and tuples:
        return tuple(inside)
    return {source.choice(["a", ",", "[", '\\"', f"k{len(inside)}"]): one for one in inside}


def read(text: bytes, tagged: bool, size: int, monkeypatch: Any) -> str:
    """What comes of a text in pieces of a size, or how it fails."""
    monkeypatch.setattr(pieces, "PIECE", size)
    try:
        return repr(values._unpack(text, tagged, [], Limits(), "it", "here", None, None))
    except (ProtocolError, ValueNotSupported) as problem:
        return type(problem).__name__


@pytest.mark.parametrize("tagged", [False, True])
def test_pieces_of_any_size_give_what_the_whole_gives(tagged, monkeypatch):
    source = random.Random(1)
    good = 0
    for turn in range(100):
        value = [any_value(source, 5, tagged) for _ in range(4)]
        text = (pack(value, "it").text if tagged else json.dumps(
            value, ensure_ascii=turn % 2 == 0, indent=1 if turn % 3 == 0 else None)).encode(
                "utf-8", "surrogatepass")
        if turn % 2:  # one byte is wrong
            place = source.randrange(len(text))
            text = text[:place] + source.choice(CHANGES) + text[place + source.randrange(2):]
        whole = read(text, tagged, 10 ** 9, monkeypatch)
        good += not whole.endswith(("Error", "Supported"))
        for size in (1, 2, source.randrange(3, 60)):
            assert read(text, tagged, size, monkeypatch) == whole, (text, size)
    assert 50 < good < 100


@each("text", ['{"a":[1,2],"a":[3,4,[5,6]],"b":0}', '{"a":[1,{"x":2,"x":[3,4]}],"a":5}',
               '{"":[1,{"":2,"c":[1,2]},3],"":{"":[1,2]}}',
               '[{"a":{"a":{"a":[1,2],"b":3}},"b":{}},4]'])
def test_of_keys_of_one_name_the_last_one_counts_wherever_it_is_cut(text, monkeypatch):
    for size in range(1, len(text)):
        assert read(text.encode(), False, size, monkeypatch) == repr(json.loads(text))


@each("text", ["[1,]", "[,1]", "[1,,2]", '{"a":1,}', '{"a":1,,"b":2}', "1,2", "[1,2],3", "[1,2]]",
               "[[1,2]", "[1,2}", '{"a":1,"b":2]', '{"a",1}', '{"a":,1}', "[1 ,2] ", " [1,2]",
               '["a,b]', "[1,2,\x00]", '{"a":1,2}', '["a":1,2]', "[1,\xff]"])
def test_what_is_no_json_is_none_wherever_it_is_cut(text, monkeypatch):
    for size in range(1, len(text) + 2):
        assert read(text.encode("latin-1"), False, size, monkeypatch) == "ProtocolError"


def test_something_tagged_that_is_cut_is_put_together_when_it_is_whole(monkeypatch):
    text = (b'[{"!tuple":[1,{"!set":[2,3]},{"!dict":[[1,2],{"!tuple":[3,4]}]}]},'
            b'{"!columns":["",["tuple",[],[1,2],[3,4]]]}]')
    for size in range(1, len(text)):
        monkeypatch.setattr(pieces, "PIECE", size)
        with pytest.raises(ProtocolError, match="unhashable"):
            unpack(text, True)
        assert unpack(text.replace(b"[1,2],{", b"1,{", 1), True) == \
            [(1, {2, 3}, {1: (3, 4)}), [(1, 3), (2, 4)]]


def test_where_something_is_lacking_is_said_wherever_it_is_cut(monkeypatch):
    text = b'[1,{"!tuple":[{"a":[1,2,{"!zone":"Mars/Phobos"},3]},{"!tuple":[]}]},{"!tuple":[4,5]}]'
    for size in range(1, len(text)):
        monkeypatch.setattr(pieces, "PIECE", size)
        with pytest.raises(ValueNotSupported) as caught:
            unpack(text, True, path="result")
        assert caught.value.path == "result[1][0]['a'][2]"


@each("unit", ["[],", '{"a":1},', '"some text",', "1.5,", '"\\\\,",', "[[[[[[]]]]]],"])
@each("around", ["[@0]", '{"tag":"","args":[[@0]],"kwargs":{}}', '[[[{"a":[@0,[@0]]}]],0]'])
def test_no_step_of_the_parser_is_long(unit, around, monkeypatch):
    """It took seconds, in which no other thread ran."""
    monkeypatch.setattr(pieces, "PIECE", 8 * 1024)
    text = around.replace("@", unit * (20_000 // len(unit))).encode()
    steps: List[int] = []
    decode: Callable[[str], Any] = values._decode_plain
    monkeypatch.setattr(values.fast, "codec", lambda: None)
    monkeypatch.setattr(values, "_decode_plain",
                        lambda piece: steps.append(len(piece)) or decode(piece))
    assert unpack(text) == json.loads(text)
    assert len(steps) > 2 and max(steps) < pieces.PIECE + 1000


def test_depth_is_counted_from_the_outermost_container(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 16)
    deep = b"[0," * 95 + b"1" + b"]" * 95
    assert repr(unpack(deep)) == repr(json.loads(deep))
    for bad in (b"[0," * 200 + b"1" + b"]" * 200, b"[0,0,0,0," + b"[" * 200 + b"]" * 200 + b"]"):
        with pytest.raises(ProtocolError, match="nested deeper"):
            unpack(bad)


def test_a_string_longer_than_a_piece_is_read_at_once(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 10)
    for value in (["x,[" * 50, "y"], {"a": "," * 99, "b" * 70: ['"' * 30, 1]}, "z," * 50):
        found: Dict[str, Any] = unpack(json.dumps(value).encode())
        assert found == value


@counts_steps
@each("text", [b'","' * 200_000, b'[","' * 150_000])
def test_commas_within_strings_are_passed_over_without_a_step_for_each(text):
    """There was one, backwards from the end of a piece that became longer and longer."""
    def refuse() -> None:
        with pytest.raises(ProtocolError):
            unpack(text)

    values.fast.codec()  # which is found once
    assert steps_of(refuse) < 50_000


@counts_steps
def test_deep_nesting_takes_no_more_steps_than_other_brackets(monkeypatch):
    """A turn through the whole piece took away one level of it."""
    def steps(depth: int) -> int:
        text = b"[%b]" % b",".join([b"[" * depth + b"]" * depth] * (40_000 // depth))
        return steps_of(lambda: unpack(text))

    monkeypatch.setattr(pieces, "PIECE", 16 * 1024)
    steps(50)  # what is found once
    assert steps(90) < 1.5 * steps(24)


def test_brackets_in_strings_are_found_at_little_memory():
    text = b'["]"]' * 100_000
    with Peak() as peak:
        found = pieces.brackets_of(text)
    assert found == b"[]" * 100_000 and peak.bytes < 4 * len(text) + 2 ** 19
