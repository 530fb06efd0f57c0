"""Large plain JSON by msgspec: nothing but its speed is different."""
from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any, Iterator
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import travel
from each import each
from net.wire import fast, values
from net.wire.memory import estimate
from net.wire.values import is_plain, pack, unpack
from travel import as_arguments, as_result, assert_same

msgspec = pytest.importorskip("msgspec")


@contextlib.contextmanager
def reading(by_msgspec: bool) -> Iterator[None]:
    """All that is plain goes by msgspec, or by the standard library, whatever its size."""
    found = fast.codec() if by_msgspec else None
    with mock.patch.multiple(fast, MANY=0, LARGE=0, codec=lambda: found):
        yield


def outcome(text: bytes, by_msgspec: bool) -> Any:
    """The value of a text, or why there is none."""
    with reading(by_msgspec):
        try:
            return unpack(text)
        except values.ProtocolError as problem:
            return str(problem)


def test_the_installed_msgspec_is_used():
    assert fast.codec() is not None


@given(travel.plain_values)
@example([math.nan, 1.0])
@example({"a": [[-math.inf]], "b": math.inf})
@example([1.7e308, 1.7e308])
@example(["\ud800", "\udfff"])
@example({"\udfff": [1]})
@example([10 ** 616, -10 ** 616, 2 ** 64, -2 ** 63 - 1, 0, True])
@example([10 ** 5000])
@example([-0.0, 5e-324, 2.2250738585072014e-308, 1e22, 1e23, 0.1 + 0.2, 123456789012345680.0])
def test_both_write_what_the_other_reads(value):
    with reading(True):
        written = pack([value], "result")
    with reading(False):
        plainly = pack([value], "result")
        assert written.tagged == plainly.tagged
        data = written.text.encode("utf-8", "surrogatepass")
        assert_same(unpack(data, written.tagged), [value])
    with reading(True):
        data = plainly.text.encode("utf-8", "surrogatepass")
        assert_same(unpack(data, plainly.tagged), [value])


@given(st.lists(st.floats(), min_size=1))
def test_floats_keep_every_bit(floats):
    with reading(True):
        assert_same(as_result(floats), floats)
        assert_same(as_arguments(floats, key=floats), ([floats], {"key": floats}))


json_like = st.lists(st.sampled_from([
    "[", "]", "{", "}", ",", ":", '"', " ", "\n", "\t", "\x0b", "\\", "u", "d800", "0", "-", "+",
    "1", ".", "e", "E", "5", "true", "false", "null", "NaN", "Infinity", "-Infinity", '"a"', '"a":',
    '"\\ud800"', '"\\ud83d\\ude00"', "\ud800", "\x00", "\x7f", "\ufeff", "é", "1e999", "9" * 30]),
    max_size=12).map("".join)


def same_to_both(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert_same(outcome(data, True), outcome(data, False))


@given(json_like)
def test_any_text_means_the_same_to_both_sense_or_not(text):
    same_to_both(text)


@each("text", [
    "", " 1", "1 ", "\n[1]", "[1]\t", "[1 , 2]", "-0", "-0.0", "1E400", "-1e999", "NaN", "[NaN]",
    "-Infinity", '"\\ud800"', '"\\ud83d\\ude00"', '"a\x01"', "\ud800", '"\ud800"', '{"a":1,"a":2}',
    "01", "1.", ".5", "+1", "tru", "[1,]", '{"a":1,}', '"\\x"', '"\\/"', '"\\u12"', "\ufeff1", "1e",
    "1e+5", "-", "[1 2]", "9" * 20, "9" * 3999, "9" * 4001, "9" * 5000, "1" * 400 + ".5",
    "0." + "1" * 800, "[1]x", '{1:2}', "{\"a\"}", "[" * 60 + "]" * 60, '"\xff'])
def test_texts_at_the_edge_mean_the_same_to_both(text):
    same_to_both(text)


@given(st.binary(max_size=20))
@example(b'"\xff"')
@example(b'"\xed\xa0\x80"')
@example(b'["\xf4\x90\x80\x80"]')
def test_bytes_mean_the_same_to_both(data):
    assert_same(outcome(data, True), outcome(data, False))


@each("value", [(1, 2), [(1,)], {1: 2}, [{"a": {1}}], [b"a"], [1j]])
def test_what_it_would_bend_goes_another_way(value):
    assert fast.codec() is not None and is_plain([value]) is None
    with reading(True):
        assert_same(as_result(value), value)


@each("value", [(1, None), (1, math.nan), [{1.5}, {math.inf}], ("null",), ("\ud800", b"a"),
                {1: 2 ** 70, "a": (10 ** 5000,)}, [travel.Point(1, -0.0), travel.Point(None, "b")]])
def test_typed_values_are_written_by_it_and_stay_the_same(value):
    with reading(True):
        assert_same(as_result(value), value)


@pytest.mark.parametrize("flaw", [
    lambda text: text.replace(b"1e300", b"1e301"), lambda text: text.replace(b"true", b"1"),
    lambda text: text.replace(b"-0.0", b"0.0"), lambda text: b"x" + text])
def test_a_version_that_alters_values_is_not_used(flaw, monkeypatch):
    class Encoder:
        def encode(self, value: Any) -> bytes:
            return flaw(json.dumps(value, ensure_ascii=False).replace("1e+300", "1e300").encode())

    monkeypatch.setattr(msgspec.json, "Encoder", Encoder)
    assert fast._find(None) is None


def test_without_it_the_standard_library_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert fast._find(None) is None
    monkeypatch.setattr(fast, "codec", lambda: None)
    table = [{"id": number, "value": number / 2} for number in range(1000)]
    assert_same(as_result(table), table)


def test_texts_and_keys_are_counted_as_they_will_be_made():
    """msgspec has one text of a short key, but neither of a letter nor of a long key."""
    def sizes(value: Any) -> Any:
        text = json.dumps([value] * 1000).encode()
        for by_msgspec in (False, True):
            with reading(by_msgspec):
                # The standard library makes a text of the bytes first.
                yield estimate(text) - (0 if by_msgspec else len(text))

    for value, more in [("a", sys.getsizeof("a")), ({"k" * 40: 1}, sys.getsizeof("k" * 40)),
                        ({"key": 1}, 0), ("ab", 0)]:
        plainly, by_msgspec = sizes(value)
        assert abs(by_msgspec - plainly - 1000 * more) < 5000, value
