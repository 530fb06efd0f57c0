"""The documented old dialect: every reply byte for byte, pieces, limits and errors."""
from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.errors import MessageTooLarge, NetError, ProtocolError, RemoteError, ValueNotSupported
from net.identity import Flag, encode_text
from net.wire import legacy
from net.wire.frames import NotAFrame
from net.wire.messages import Call
from travel import assert_same

TAG = encode_text("app.multiply")


def coded(value: Any) -> bytes:
    """As an old peer writes it."""
    return base64.b64encode(json.dumps(value).encode("ascii"))


def old_reply(data: bytes) -> Any:
    return legacy.decode_reply(data, "192.0.2.1:3010", TAG)


def old_error(text: str) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        old_reply(coded({"payload": "error", "traceback": text}))
    return caught.value


class Trouble(Exception):
    pass


# ----------------------------------------------------------------------------- the replies


@pytest.mark.parametrize("value, data", [
    (50, b"eyJyYXciOiA1MH0="),
    (None, b"eyJyYXciOiBudWxsfQ=="),
    ("text", b"eyJyYXciOiAidGV4dCJ9"),
    ([1, [2]], coded({"raw": [1, [2]]})),
    ((1, 2), coded({"raw": [1, 2]})),
    (True, coded({"raw": True})),
    ("", coded({"raw": ""})),
    ("é\ud800", coded({"raw": "é\ud800"})),
    ({}, b"e30="),
    ({"a": 1}, b"eyJhIjogMX0="),
    ({"raw": 1}, coded({"raw": 1})),
    ({1: 2}, b"eyIxIjogMn0="),
    (Flag(b"TlVMTA=="), b"TlVMTA=="),
    (Flag(b"SU5WQUxJRF9DT05ORUNUSU9O", ("near",)), b"SU5WQUxJRF9DT05ORUNUSU9O"),
    ("TlVMTA==", coded({"raw": "TlVMTA=="})),
    (float("nan"), coded({"raw": float("nan")})),
    (10 ** 300, coded({"raw": 10 ** 300})),
], ids=repr)
def test_every_reply_is_the_documented_one_byte_for_byte(value, data):
    assert legacy.encode_result(value) == data


def test_an_error_reply_is_the_documented_one():
    text = 'Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero\n'
    assert legacy.encode_error(text) == coded({"payload": "error", "traceback": text})


@pytest.mark.parametrize("value, about", [
    (b"bytes", "bytes is not JSON serializable"), ({1, 2}, "set is not JSON serializable"),
    (object(), "object is not JSON serializable"), ([Flag(b"TlVMTA==")], "not JSON serializable"),
    ({(1, 2): 3}, "keys must be"), ({b"k": 1}, "keys must be"),
], ids=["bytes", "set", "object", "flag inside", "tuple key", "bytes key"])
def test_a_result_that_json_does_not_have_becomes_an_error(value, about):
    reply = json.loads(base64.b64decode(legacy.encode_result(value)))
    assert reply["payload"] == "error"
    assert reply["traceback"].startswith("ValueNotSupported: result: ")
    assert about in reply["traceback"]


def nested(levels: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = wrap(value)
    return value


def bomb() -> Any:
    value: Any = [0, 0]
    for _ in range(60):
        value = [value, value]
    return value


def endless() -> Any:
    value: dict = {}
    value["me"] = [value]
    return value


@pytest.mark.parametrize("value, name", [
    (nested(100_000), "ValueNotSupported"), (nested(5000, lambda inner: {"k": inner}),
                                             "ValueNotSupported"),
    (nested(5000, lambda inner: (inner,)), "ValueNotSupported"), (endless(), "ValueNotSupported"),
    (bomb(), "MessageTooLarge"), ([0] * 100_000, "MessageTooLarge"), ("x" * 5000,
                                                                      "MessageTooLarge"),
    ({"a": "x" * 800}, "MessageTooLarge"), ({str(key): 0 for key in range(2000)},
                                            "MessageTooLarge"),
], ids=["deep", "deep dicts", "deep tuples", "endless", "bomb", "many", "long", "dict", "keys"])
def test_a_result_that_an_old_peer_cannot_take_becomes_an_error_that_it_can(value, name):
    data = legacy.encode_result(value)
    assert len(data) <= 1024
    reply = json.loads(base64.b64decode(data))
    assert reply["payload"] == "error" and reply["traceback"].startswith(name)
    with pytest.raises((ValueNotSupported, MessageTooLarge)) as caught:
        legacy.encode_call(Call(TAG, [value], {}))
    assert type(caught.value).__name__ == name and caught.value.ran == "no"


def test_a_reply_of_1024_bytes_is_sent_and_one_more_is_not():
    room = 1024 // 4 * 3 - len('{"raw": ""}')
    assert len(legacy.encode_result("x" * room)) == 1024
    assert old_reply(legacy.encode_result("x" * room)) == "x" * room
    too_long = old_reply_error(legacy.encode_result("x" * (room + 1)))
    assert "1,028 bytes" in str(too_long) and "1,024" in str(too_long)


def old_reply_error(data: bytes) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        old_reply(data)
    return caught.value


@pytest.mark.parametrize("text", ["x" * 5000 + " the end", "\n" * 3000 + " the end",
                                  "🙂" * 2000 + " the end", '"\\' * 3000 + " the end", "\ud800" * 999
                                  + " the end", "the end"], ids=lambda text: repr(text[:3]))
def test_of_a_long_traceback_the_end_stays(text):
    data = legacy.encode_error(text)
    assert len(data) <= 1024
    assert json.loads(base64.b64decode(data))["traceback"].endswith("the end")
    assert len(text) < 100 or len(data) > 800


# ----------------------------------------------------------------------------- the requests


def test_a_request_is_the_documented_one_byte_for_byte():
    assert legacy.encode_call(Call(b"YXBwLm11bHRpcGx5", [5, 10], {})) == (
        b"eyJjb25uZWN0aW9uIjogIllYQndMbTExYkhScGNHeDUiLCAiYXJncyI6IFs1LCAxMF0sICJrd2FyZ3MiOiB7fX0=")


def test_a_request_of_1024_bytes_is_sent_and_one_more_is_refused():
    empty = len(base64.b64decode(legacy.encode_call(Call(TAG, [""], {}))))
    room = 1024 // 4 * 3 - empty
    assert len(legacy.encode_call(Call(TAG, ["x" * room], {}))) == 1024
    with pytest.raises(MessageTooLarge) as caught:
        legacy.encode_call(Call(TAG, ["x" * (room + 1)], {}))
    assert (caught.value.size, caught.value.limit, caught.value.ran) == (1028, 1024, "no")


@pytest.mark.parametrize("value", [b"x", {1}, object(), 1j, [b"x"], {b"k": 1}])
def test_an_argument_that_json_does_not_have_is_refused_before_it_is_sent(value):
    for call in (Call(TAG, [value], {}), Call(TAG, [], {"k": value})):
        with pytest.raises(ValueNotSupported, match="old dialect") as caught:
            legacy.encode_call(call)
        assert caught.value.ran == "no"


# A pair of lone surrogates becomes one character: so the JSON of old peers has it.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3), max_leaves=10)


@given(st.lists(json_values, max_size=3), st.dictionaries(st.text(max_size=9), json_values,
                                                          max_size=3))
def test_every_request_that_fits_comes_out_as_it_went_in(args, kwargs):
    try:
        data = legacy.encode_call(Call(TAG, args, kwargs))
    except MessageTooLarge:
        return
    content = legacy.read_object(data)
    assert content is not None
    assert_same(list(legacy.decode_call(content)), [TAG, args, kwargs])


many_brackets = {"connection": TAG.decode(), "kwargs": {"a": {}, "}": "{"},
                 "args": [{} for _ in range(60)] + [[] for _ in range(60)] + ["}}[[{{\"}", "a\\"]}


@pytest.mark.parametrize("content", [
    {"connection": TAG.decode(), "args": [1, {"a": {}}], "kwargs": {"b": "}"}}, many_brackets,
    {"connection": TAG.decode(), "args": ["{" * 200], "kwargs": {}}, {},
], ids=["usual", "many brackets", "brackets in text", "empty"])
def test_a_request_in_pieces_is_whole_exactly_at_its_end(content):
    data = coded(content)
    for end in range(len(data)):
        assert legacy.read_object(data[:end]) is None
    assert legacy.read_object(data) == content
    for tail in (b"\n", b"\r\n", b"\r\n\n"):
        assert legacy.read_object(data + tail) == content


@pytest.mark.parametrize("data", [
    b"eyJ?", b"e30=e30=", b"GET / HTTP/1.1\r\n\r\n", b"W10=", b"NQ==", b"bnVsbA==",
    b"Imh0dHAi", b"\xff\xfe\xff\xfe", b"e30\ne30=", b"e30-", base64.b64encode(b"\xef\xbb\xbf{}"),
    base64.b64encode("{}".encode("utf-16")), base64.b64encode(b" {}"),
    base64.b64encode(b'{"a" 5}'), base64.b64encode(b'{}{"a":1}'), base64.b64encode(b"{a}"),
    base64.b64encode(b'{"a":\xff}'), base64.b64encode(b'{"a":"\xff"}'),
    base64.b64encode(b'{"a": "x" "y"}'), base64.b64encode(b"{'a':1}"), base64.b64encode(b"{]}"),
    base64.b64encode(b'{"a":1}}'),
], ids=repr)
def test_what_can_never_become_an_object_is_refused_at_once(data):
    with pytest.raises(NotAFrame):
        legacy.read_object(data)


@pytest.mark.parametrize("text", [
    b"{" + b'"a":[' * 200 + b"]" * 200 + b"}", b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
])
def test_a_deep_object_is_refused_before_it_is_parsed(text):
    with pytest.raises(ProtocolError):
        legacy.read_object(base64.b64encode(text))


def test_more_than_any_old_peer_sends_is_refused():
    with pytest.raises(ProtocolError, match="more than 65,536 bytes"):
        legacy.read_object(b"e" * 65_537)
    assert legacy.read_object(base64.b64encode(b'{"' + b"x" * 3000)) is None


@given(st.binary(max_size=40) | st.text(alphabet='{}[]"\\:,a1', max_size=30).map(
    lambda text: base64.b64encode(text.encode())))
def test_any_bytes_are_an_object_or_unfinished_or_refused(data):
    try:
        content = legacy.read_object(data)
    except ProtocolError:
        return
    assert content is None or isinstance(content, dict)


@pytest.mark.parametrize("content", [
    {}, {"connection": TAG.decode()}, {"connection": None, "args": [], "kwargs": {}},
    {"connection": 5, "args": [], "kwargs": {}}, {"connection": [], "args": [], "kwargs": {}},
    {"connection": "é", "args": [], "kwargs": {}}, {"connection": "eA==", "args": {}, "kwargs": {}},
    {"connection": "eA==", "args": [], "kwargs": []}, {"connection": "eA==", "args": [],
                                                       "kwargs": None},
    {"connection": "eA==", "args": "ab", "kwargs": {}}, {"args": [], "kwargs": {}},
], ids=json.dumps)
def test_an_object_that_is_no_call_is_refused(content):
    with pytest.raises(ProtocolError):
        legacy.decode_call(content)


def test_more_members_than_documented_are_let_be():
    # Old peers may have added their own, such as time_out.
    call = legacy.decode_call({"connection": "eA==", "args": [1], "kwargs": {}, "time_out": 5})
    assert call == (b"eA==", [1], {})


# ---------------------------------------------------------------- what an old peer answers


@pytest.mark.parametrize("value", [None, 0, 1.5, "", "text", "é\ud800", [], [1, {"a": None}], {},
                                   {"a": 1}, {"raw": 1, "b": 2}, {"payload": "data"}, "TlVMTA==",
                                   {"payload": {"error": 1}}], ids=repr)
def test_what_an_old_peer_answers_is_the_value(value):
    data = coded(value if isinstance(value, dict) else {"raw": value})
    assert_same(old_reply(data), value)
    assert_same(old_reply(legacy.encode_result(value)), value)


@pytest.mark.parametrize("name", ["NULL", "INVALID_CONNECTION", "done", "Not yet", "retry-later",
                                  "A", "x" * 64, "V2"])
def test_a_bare_name_is_a_flag(name):
    found = old_reply(encode_text(name))
    assert type(found) is Flag and found == encode_text(name) and found.details is None
    assert legacy.is_flag(legacy.encode_result(Flag(encode_text(name))))


@pytest.mark.parametrize("data",
                         [b"", b"e30=", coded({"raw": 1}), encode_text(""), encode_text("é"),
                          encode_text("a\nb"), encode_text("\x1b[0m"),
                          encode_text("x" * 65),
                          encode_text(" x"), b"HTTP/1.1 400", b"true", b"\xff", b"QQ"],
                         ids=repr)
def test_other_answers_are_no_flags(data):
    assert not legacy.is_flag(data)


@pytest.mark.parametrize("data",
                         [b"", b"e3", coded({"raw": 1})[:-4], b"W10=", b"HTTP/1.1 400 Bad\r\n",
                          b"\xff", coded([1]), coded("text"), b"=",
                          coded({"raw": 1}) + b"x"],
                         ids=repr)
def test_a_reply_without_sense_may_have_run(data):
    with pytest.raises(ProtocolError) as caught:
        old_reply(data)
    assert caught.value.ran == "maybe"


@pytest.mark.parametrize("last, cls, text", [
    ("ZeroDivisionError: division by zero", ZeroDivisionError, "division by zero"),
    ("KeyError: 'key'", KeyError, "'key'"),
    ("ValueError", ValueError, ""),
    ("ValueError: a: b: c", ValueError, "a: b: c"),
    ("FileNotFoundError: [Errno 2] No such file: 'x'", FileNotFoundError,
     "[Errno 2] No such file: 'x'"),
    ("UnicodeDecodeError: 'utf-8' codec can't", UnicodeDecodeError, "'utf-8' codec can't"),
    ("json.decoder.JSONDecodeError: Expecting value", json.JSONDecodeError, "Expecting value"),
    (f"{__name__}.Trouble: at home", Trouble, "at home"),
    ("app.unknown.Error: what", Exception, "what"),
    ("Unknown: what", Exception, "what"),
    ("SystemExit: 3", Exception, "SystemExit: 3"),
    ("KeyboardInterrupt", Exception, "KeyboardInterrupt"),
    ("int: 5", Exception, "int: 5"),
    ("print: 5", Exception, "print: 5"),
    ("os.system: x", Exception, "x"),
    ("no exception at all", Exception, "no exception at all"),
    ("", Exception, ""),
], ids=repr)
def test_the_last_line_of_a_traceback_gives_the_matching_error(last, cls, text):
    error = old_error(f"Traceback (most recent call last):\n  File...\n{last}\n" if last else "")
    assert isinstance(error, cls) and isinstance(error, RemoteError)
    assert not isinstance(error, (SystemExit, KeyboardInterrupt))
    assert str(error) == text
    assert error.ran == "yes" and error.peer == "192.0.2.1:3010" and error.tag == TAG
    assert last in error.traceback


def test_an_exception_of_the_main_module_has_no_module_in_a_traceback(monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["__main__"], "MainTrouble", Trouble, raising=False)
    assert isinstance(old_error("MainTrouble: x"), Trouble)


@pytest.mark.parametrize("text", [5, None, ["a"], {"a": 1}])
def test_a_traceback_that_is_no_text_is_shown_as_it_is(text):
    with pytest.raises(RemoteError) as caught:
        old_reply(coded({"payload": "error", "traceback": text}))
    assert str(text) in str(caught.value)
    with pytest.raises(RemoteError):
        old_reply(coded({"payload": "error"}))


def test_a_foreign_traceback_is_made_safe_to_print():
    error = old_error("Traceback\n\x1b[2J\nValueError: \x1b[31mred")
    assert "\x1b" not in error.traceback


@given(st.recursive(st.none() | st.integers() | st.text(max_size=10), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["raw", "payload", "traceback", "a"]),
                                         inner,
                                         max_size=3), max_leaves=6))
def test_any_object_is_a_value_or_a_typed_error(content):
    try:
        old_reply(coded(content))
    except NetError:
        pass


# -------------------------------------------------------------- the codec of the documentation


@pytest.mark.parametrize("value, data", [
    ("text", b"dGV4dA=="), ({"a": 1}, b"eyJhIjogMX0="), ([1], b"WzFd"), (5, b"NQ=="), (None,
                                                                                       b"bnVsbA=="),
])
def test_encode_is_base64_of_text_or_of_json(value, data):
    assert legacy.encode(value) == data


def test_the_first_byte_tells_the_dialects_apart():
    assert legacy.encode_call(Call(TAG, [], {})).startswith(legacy.FIRST_BYTE)
    assert coded({}).startswith(legacy.FIRST_BYTE)
