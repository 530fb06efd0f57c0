"""What words of a terminal stand for."""
from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from net.cli.calling import arguments_of, value_of
from net.cli.screen import Usage, as_json, plain
from each import each


@each("word, value", [
    ("5", 5), ("-5", -5), ("1.5", 1.5), ("1e3", 1000.0), ("true", True), ("True", True),
    ("null", None), ("None", None), ("(1, 2)", (1, 2)), ("[1, null]", [1, None]),
    ("{'a': b'x'}", {"a": b"x"}), ('{"a": false}', {"a": False}), ("b'x'", b"x"),
    ("{1, 2}", {1, 2}),
    ('"5"', "5"), ("'a=b'", "a=b"), ("sc01", "sc01"), ("two words", "two words"), ("", ""),
    ("NaN", "NaN"), ("1 +", "1 +"), ("a.b()", "a.b()"), ("/tmp/x", "/tmp/x"), ("2+3j", 2 + 3j),
    ("0x10", 16), ("é", "é")])
def test_a_word_is_json_or_a_python_literal_or_text(word, value):
    found = value_of(word)
    assert found == value and type(found) is type(value)


@each("word", ["[1", "{a}", "(", "'x", '"x', "[f(1)]", "[" * 100_000])
def test_what_begins_like_a_literal_and_is_none_is_no_text(word):
    with pytest.raises(Usage, match="quotation marks"):
        value_of(word)


def test_words_with_a_name_are_arguments_by_name():
    assert arguments_of(["1", "x=2", "y=", "a-b=3", "if=4", "=5"]) \
        == ((1, "a-b=3", "if=4", "=5"), {"x": 2, "y": ""})
    with pytest.raises(Usage, match="twice"):
        arguments_of(["x=1", "x=2"])


@pytest.mark.parametrize("data, value", [
    (b"[1, 2]\n", [1, 2]), (b"line 1\nline 2\n", "line 1\nline 2\n"), (b"\xff\x00", b"\xff\x00"),
    (b"[INFO] started", "[INFO] started"), (b"", "")])
def test_a_dash_is_standard_input(monkeypatch, data, value):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert arguments_of(["1", "data=-"]) == ((1,), {"data": value})


def test_standard_input_is_read_once():
    with pytest.raises(Usage, match="one argument"):
        arguments_of(["-", "x=-"])


def test_every_value_has_json():
    numpy = pytest.importorskip("numpy")
    value = {"t": (1, {2}), 3: b"\xff", "n": float("nan"), "a": numpy.arange(2), "s": "\ud800",
             "f": numpy.float32(0.5), "o": 1j, "i": 10 ** 400, (1, 2): None, "b": True}
    assert plain(value) == {"t": [1, [2]], "3": "/w==", "n": None, "a": [0, 1], "s": "\\ud800",
                            "f": 0.5, "o": "1j", "i": 10 ** 400, "(1, 2)": None, "b": True}
    nested: list = []
    nested.append(nested)
    assert as_json(nested).startswith("[[[")
