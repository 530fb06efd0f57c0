"""The four messages, byte for byte, and what becomes of those without sense."""
from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import travel
from net.settings import MIB
from net.errors import (AuthenticationError, InvalidConnection, MessageTooLarge, NetError, PeerBusy,
                        ProtocolError, RemoteError, ValueNotSupported)
from net.identity import Flag, encode_text
from net.wire import messages
from net.wire.frames import ANSWER, CALL, FAILURE, FLAG, Frame, RESULT
from net.wire.limits import Limits
from net.wire.messages import decode_call, encode_call, encode_result
from net.wire.values import Packer, unpack
from each import each
from memory import Peak
from travel import as_arguments, assert_same, joined, read_call, read_frame

ADDRESS = ("192.0.2.1", 3010)
TAG = encode_text("multiply")


def reply(data: bytes):
    return messages.decode_reply(read_frame(data), ADDRESS, "192.0.2.1:3010", TAG)


def failing_reply(kind: int, content: object, tagged: bool = False) -> NetError:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(NetError) as caught:
        messages.decode_reply(Frame(kind, 7, tagged, text), ADDRESS, "192.0.2.1:3010", TAG)
    return caught.value


# ---------------------------------------------------------------------------------- calls


def test_a_call_is_the_documented_object():
    data = joined(messages.encode_call(7, TAG, (5, "a"), {"some_kwarg": 10}))
    text = b'{"tag":"bXVsdGlwbHk=","args":[5,"a"],"kwargs":{"some_kwarg":10}}'
    assert data == b"\x01\0\0\0\0\0\0\7" + len(text).to_bytes(4, "big") + text
    assert joined(messages.encode_call(7, TAG, (), {}))[12:] == \
        b'{"tag":"bXVsdGlwbHk=","args":[],"kwargs":{}}'


def test_a_tagged_call_says_so():
    frame = read_frame(joined(messages.encode_call(7, TAG, ((1,), b"x" * 5000), {"k": {2}})))
    assert frame.kind == CALL and frame.tagged
    assert json.loads(frame.text) == {
        "tag": TAG.decode(), "args": [{"!tuple": [1]}, {"!bytes": 0}],
        "kwargs": {"k": {"!set": [2]}}}
    assert list(frame.buffers) == [b"x" * 5000]


@given(st.lists(travel.plain_values, max_size=3), st.dictionaries(travel.any_text,
                                                                  travel.plain_values, max_size=2))
def test_plain_calls_are_read_by_anybody_who_reads_json(args, kwargs):
    message = messages.encode_call(7, TAG, tuple(args), kwargs)
    frame = read_frame(joined(message))
    if not frame.tagged:
        assert_same(json.loads(frame.text.decode("utf-8", "surrogatepass")),
                    {"tag": TAG.decode(), "args": args, "kwargs": kwargs})
    assert_same(list(read_call(frame)), [TAG, args, kwargs, None])


def test_large_buffers_are_sent_as_they_are():
    large = bytes(MIB)
    message = messages.encode_call(7, TAG, (large, 1), {})
    assert message[1] is large


@each("args", [(1,), ("x",), (None, True, 1.5, -3), ([1, [2]],), ({"a": [1]},),
               ("é\ud800",), (10 ** 300,)], ids=str)
def test_plain_arguments_need_no_tags(args):
    assert not read_frame(joined(messages.encode_call(7, TAG, args, {}))).tagged


def test_keyword_arguments_of_every_name_arrive():
    names = ["peer", "self", "args", "tag", "!tuple", "", "a b", "é", "\ud800", "class",
             "x" * 5000]
    for name in names:
        assert as_arguments(**{name: 1}) == ([], {name: 1})
        assert as_arguments(**{name: (1,)}) == ([], {name: (1,)})
    assert as_arguments(**dict.fromkeys(names, {1})) == ([], dict.fromkeys(names, {1}))


def test_the_order_of_keyword_arguments_stays():
    assert list(as_arguments(**{"z": 1, "a": (2,), "m": 3})[1]) == ["z", "a", "m"]


@each("content", [
    "text", 5, [], None, True, {}, {"args": [], "kwargs": {}}, {"tag": "eA=="},
    {"tag": "eA==", "args": [], "other": {}}, {"connection": "eA==", "args": [], "kwargs": {}},
    {"tag": None, "args": [], "kwargs": {}}, {"tag": ["eA=="], "args": [], "kwargs": {}},
    {"tag": 5, "args": [], "kwargs": {}}, {"tag": {}, "args": [], "kwargs": {}},
    {"tag": "eA==", "args": {}, "kwargs": {}}, {"tag": "eA==", "args": [], "kwargs": []},
    {"tag": "eA==", "args": "ab", "kwargs": {}}, {"tag": "eA==", "args": 5, "kwargs": {}},
    {"tag": "eA==", "args": None, "kwargs": {}}, {"tag": "eA==", "args": [], "kwargs": "a"},
    {"tag": "eA==", "args": [], "kwargs": None},
], ids=lambda content: json.dumps(content))
def test_calls_of_another_form_are_refused(content):
    for tagged in (False, True):
        with pytest.raises(ProtocolError) as caught:
            read_call(Frame(CALL, 7, tagged, json.dumps(content).encode()))
        assert caught.value.ran == "no"


@each("text", [
    '{"tag":"eA==","args":{"!tuple":[]},"kwargs":{}}',
    '{"tag":"eA==","args":[],"kwargs":{"!ordered":[]}}',
    '{"tag":{"!bytes":"eA=="},"args":[],"kwargs":{}}',
    '{"!dict":["tag","eA==","args",[]]}',
    '{"!ordered":["tag","eA==","args",[],"kwargs",{}]}',
])
def test_calls_of_tagged_objects_in_the_wrong_places_are_refused(text):
    with pytest.raises(ProtocolError):
        read_call(Frame(CALL, 7, True, text.encode()))


LONG = "x\u00e9\ud800" * 2000


ARGUMENTS = dict(enumerate([
    (LONG,), (LONG, "short", 5, None, LONG + LONG, 1.5), (2 ** 2048, LONG),
    (2 ** 40000, LONG), (LONG, float("nan")), ("y" * 4000, LONG), ("\\\"!str", LONG),
    ("!str", LONG), (LONG, True), (LONG, LONG)]))


@each("number", list(ARGUMENTS))
@each("seconds", [None, 2.5])
def test_long_texts_among_arguments_are_sent_as_any_others_and_arrive(number, seconds):
    args = ARGUMENTS[number]
    sent = encode_call(7, b"YQ==", args, {}, seconds=seconds)
    assert b"".join(sent) == b"".join(encode_call(7, b"YQ==", args, {}, seconds=seconds,
                                                  packer=Packer()))
    frame = read_frame(b"".join(sent))
    assert_same(decode_call(frame), (list(args), {}, seconds))


SHORTER = "x\u00e9\ud800\"\\" * 60


@each("args, kwargs, beside", [
    ((SHORTER,), {}, True), ((SHORTER[:255],), {}, False), ((SHORTER, 1), {}, False),
    (([SHORTER],), {}, False), ((SHORTER,), {"a": 1}, False), ((), {"a": SHORTER}, False)])
@each("seconds", [None, 2.5])
def test_a_text_that_is_the_only_argument_travels_beside_the_json(args, kwargs, beside, seconds):
    frame = read_frame(joined(encode_call(7, b"YQ==", args, kwargs, seconds=seconds)))
    assert (frame.tagged, len(frame.buffers)) == (beside, beside)
    assert messages.is_plain_call(frame) is (seconds is None or not beside)
    assert_same(decode_call(frame), (list(args), kwargs, seconds))


@each("value, beside", [(SHORTER, True), (SHORTER[:255], False), ([SHORTER], False)])
def test_a_text_that_is_the_result_travels_beside_the_json(value, beside):
    frame = read_frame(joined(encode_result(7, value)))
    assert (frame.tagged, len(frame.buffers)) == (beside, beside)
    assert_same(messages.decode_reply(frame, None, None, b""), value)


@each("text", [
    '{"tag":"YQ==","a":1,"b","args":[{"!str":0}],"kwargs":{}}',
    '{"tag":"\\u0059Q==","args":[{"!str":0}],"kwargs":{}}',
    '["tag":"YQ==","args":[{"!str":0}],"kwargs":{}}',
    '{"tag":"YQ==","args":[{"!bytes":0}],"kwargs":{}}',
    '{"tag":"YQ==","args":[{"!str":0},{"!str":0}],"kwargs":{}}'])
def test_what_is_not_quite_a_call_with_one_text_is_not_taken_for_one(text):
    assert not messages.is_plain_call(Frame(CALL, 7, True, text.encode(), [b"a"]))
    exact = b'{"tag":"YQ==","args":[{"!str":0}],"kwargs":{}}'
    call = Frame(CALL, 7, True, exact, [b"a"])
    assert messages.is_plain_call(call) and decode_call(call) == (["a"], {}, None)
    for buffers in ([], ()):
        with pytest.raises(ProtocolError):
            decode_call(Frame(CALL, 7, True, exact, buffers))


def test_long_texts_among_arguments_are_refused_over_the_limits():
    for limits in (Limits(buffers=5000), Limits(text=1024)):
        with pytest.raises(MessageTooLarge):
            encode_call(7, b"YQ==", (LONG, "y" * 2000), {}, limits)
    with pytest.raises(MessageTooLarge):
        encode_result(7, LONG, Limits(buffers=5000))


TEXTS = ['{"!str":0}', '{"!str":1}', '{"!str":false}', '{"!str":0.0}', '{"!str":"0"}',
         '{"!str":2}', '{ "!str":0}', '{"\\u0021str":0}', '{"!str":0,"!str":0}',
         '{"!str":0,"a":1}', '{"!bytes":0}',
         '{"!tuple":[{"!str":0}]}', '"!str"', '{"!none":0}', '5', '[{"!str":0}]', '{}', '{"a":{}}']


@each("one", TEXTS)
@each("other", TEXTS)
def test_what_is_taken_for_long_texts_alone_means_what_it_means_among_others(one, other):
    def outcome(text, kind):
        try:
            return repr(unpack(text.encode(), True, kind((b"a" * 9, b"\xc3\xa9"))))
        except (ProtocolError, ValueNotSupported) as problem:
            return str(problem)

    for text in (one, f'{{"tag":"YQ==","args":[{one},{other}],"kwargs":{{}}}}',
                 f'{{"tag":"YQ==","args":[{one}],"kwargs":{{"k":{other}}}}}',
                 f'{{"tag":"YQ==","args":[{one}],"args":[{other}]}}', f'{{"args":{one}}}'):
        # Only a list of buffers, as frames have, is taken so.
        assert outcome(text, list) == outcome(text, tuple)


def test_a_long_text_that_is_no_utf_8_is_refused():
    for text in (b'{"!str":0}', b'{"tag":"YQ==","args":[{"!str":0}],"kwargs":{}}'):
        with pytest.raises(ProtocolError):
            unpack(text, True, [b"\xff"])
    with pytest.raises(ProtocolError):
        decode_call(Frame(CALL, 7, True, text, [b"\xff"]))


def test_fields_of_a_call_that_this_version_does_not_know_are_ignored():
    for tagged in (False, True):
        call = read_call(Frame(
            CALL, 7, tagged, b'{"tag":"eA==","left":1.5,"args":[1],"kwargs":{},"more":[{}]}'))
        assert call == (b"eA==", [1], {}, None)


@each("text", [
    b'{"tag":"bXVsdGlwbHk=","args":[],"kwargs":{}}', b'{"tag":"bXVsdGlwbHk="}',
    b'{"tag":"bXVsdGlwbHk=",[[[[no JSON any more', b'{"tag": "bXVsdGlwbHk=", "args": []}',
    b'{\n\t"tag" :\r\n "bXVsdGlwbHk="\n}',
])
def test_the_tag_of_a_call_is_known_before_anything_else_is_read(text):
    assert messages.tag_of(text) == TAG


@each("text", [
    b"", b"{}", b'{"tag"', b'{"tag":"eA==', b'{"tag":null}', b'{"tag":["eA=="]}',
    b' {"tag":"eA=="}', b'{"args":[],"tag":"eA=="}', b'{"connection":"eA=="}',
    b'{"tag":"' + b"A" * 4097 + b'"}', b'[{"tag":"eA=="}]',
], ids=lambda text: repr(text[:30]))
def test_a_call_that_does_not_begin_with_its_tag_is_refused(text):
    with pytest.raises(ProtocolError, match="first field is its base64 tag") as caught:
        messages.tag_of(text)
    assert caught.value.ran == "no"


@each("args, kwargs", [((1,), {}), (([1],), {"a": 2}), (((1,),), {}),
                       ((b"x" * 5000,), {}), (tuple(range(50)), {})], ids=str)
def test_every_call_begins_with_its_tag_and_carries_its_number(args, kwargs):
    for number in (1, 2 ** 32 - 1):
        frame = read_frame(joined(messages.encode_call(number, TAG, args, kwargs)))
        assert messages.tag_of(frame.text) == TAG and frame.number == number


def test_every_reply_carries_the_number_of_its_call():
    for message in (messages.encode_result(9, 5), messages.encode_result(9, {1}),
                    messages.encode_result(9, Flag(b"TlVMTA==")),
                    messages.encode_failure(9, ValueError("x")),
                    messages.encode_refusal(9, PeerBusy(None, "full"))):
        assert read_frame(joined(message)).number == 9


# --------------------------------------------------------------------------------- results


@each("value, data", [
    (50, b"\x02\0\0\0\0\0\0\7\0\0\0\x0250"),
    (None, b"\x02\0\0\0\0\0\0\7\0\0\0\x04null"),
    ("TlVMTA==", b'\x02\0\0\0\0\0\0\7\0\0\0\x0a"TlVMTA=="'),
    ((1,), b'\x02\x01\0\0\0\0\0\7\0\0\0\x0e{"!tuple":[1]}'),
    (Flag(b"TlVMTA=="), b'\x04\0\0\0\0\0\0\7\0\0\0\x22{"flag":"TlVMTA==","details":null}'),
])
def test_a_result_looks_as_documented(value, data):
    assert joined(messages.encode_result(7, value)) == data
    assert_same(reply(data), value)


@pytest.mark.parametrize("values, plain", [
    ([0.1, True, None, 2, -(2 ** 2047), "a\ud800\n", float("inf"), -0.0], True), ([], True),
    ([1, 2 ** 2048], False), ([1, 4096 * "a"], False), (["a", {"b": [1]}, (2,)], False)])
def test_plain_outcomes_arrive_as_any_others_do_and_are_not_looked_at_again(
        monkeypatch, values, plain):
    outcomes = [messages.outcome_of_value(value) for value in values]
    checked = []
    monkeypatch.setattr(messages, "pack",
                        lambda *args, pack=messages.pack: checked.append(args) or pack(*args))
    found = joined(messages.encode_outcomes(7, outcomes))
    assert bool(checked) is not plain
    arrived = messages.decode_reply(read_frame(found), None, b"", b"")
    assert repr(arrived) == repr([{"value": value} for value in values])


def test_plain_outcomes_that_are_too_much_together_are_refused():
    outcomes = [messages.outcome_of_value("a" * 100)] * 20
    with pytest.raises(MessageTooLarge):
        messages.encode_outcomes(7, outcomes, Limits(text=1000))


def test_a_flag_comes_back_with_its_details():
    flag = Flag(encode_text("DONE"), {"near": ("a", "b")})
    arrived = reply(joined(messages.encode_result(7, flag)))
    assert type(arrived) is Flag and arrived == flag and arrived.details == flag.details


def test_only_a_flag_is_a_flag():
    for value in ("TlVMTA==", b"TlVMTA==", {"flag": "TlVMTA==", "details": None}, ["TlVMTA=="]):
        assert type(reply(joined(messages.encode_result(7, value)))) is type(value)
    with pytest.raises(ValueNotSupported, match=r"result\[0\]"):
        messages.encode_result(7, [Flag(b"TlVMTA==")])


# -------------------------------------------------------------------------------- refusals


@each("refused", [
    ProtocolError(None, "no sense"), ProtocolError(ADDRESS, "none", "maybe"),
    PeerBusy(None, "full (NET_MAX_CONNECTIONS)"), AuthenticationError(ADDRESS, "no secret"),
    ValueNotSupported("args[0]", "object cannot travel"), ValueNotSupported("result", "x", "yes"),
    MessageTooLarge("text", 11, 10, "NET_MAX_TEXT"), MessageTooLarge("text", None, 10, None, "yes"),
], ids=lambda error: f"{type(error).__name__} {error.ran}")
def test_a_refusal_is_raised_as_it_was(refused):
    with pytest.raises(type(refused)) as caught:
        reply(joined(messages.encode_refusal(7, refused)))
    assert not isinstance(caught.value, RemoteError)
    mine, theirs = dict(vars(caught.value)), dict(vars(refused))
    if "address" in theirs:
        assert mine.pop("address") == ADDRESS and "192.0.2.1:3010" in str(caught.value)
        theirs.pop("address")
    assert mine == theirs
    assert caught.value.ran == refused.ran


def test_what_a_refusal_says_is_made_safe_to_print():
    error = failing_reply(FAILURE, {"refused": "PeerBusy", "ran": "no",
                                    "reason": "\x1b[31m\n" + "x" * 5000})
    assert str(error).isprintable() and len(str(error)) < 500


def test_a_refusal_never_names_a_class_by_itself():
    for name in ("os.system", "SystemExit", "ValueError", "_Fact", ""):
        error = failing_reply(FAILURE, {"refused": name, "ran": "no", "reason": "x"})
        assert type(error) is NetError and f"refused with {name}: x" in str(error)
    for name in (None, 5, [], {}):
        error = failing_reply(FAILURE, {"refused": name, "ran": "no", "reason": "x"})
        assert type(error) is ProtocolError


@each("kind, content", [
    (FLAG, "TlVMTA=="), (FLAG, {}), (FLAG, {"flag": "TlVMTA=="}), (FLAG, {"flag": 5, "details": 1}),
    (FLAG, {"flag": "é", "details": None}), (FLAG, []), (FLAG, None),
    (FAILURE, {}), (FAILURE, []), (FAILURE, "raised"), (FAILURE, 5), (FAILURE, None),
    (FAILURE, {"raised": None}), (FAILURE, {"raised": {}}), (FAILURE, {"raised": {"types": []}}),
    (FAILURE, {"raised": {"types": [], "text": "x"}}), (FAILURE, {"raised": {"types": 5,
                                                                             "text": ""}}),
    (FAILURE, {"raised": {"types": [["a"]], "text": ""}}),
    (FAILURE, {"raised": {"types": [[1, 2]], "text": ""}}),
    (FAILURE, {"raised": {"types": [["builtins", "ValueError"]]}}),
    (FAILURE, {"raised": {"types": [["builtins", "ValueError"]], "text": "", "args": 5}}),
    (FAILURE, {"raised": {"types": [["builtins", "ValueError"]], "text": "", "members": 5}}),
    (FAILURE, {"raised": {"types": [["builtins", "ValueError"]], "text": "", "attributes": [1]}}),
    (FAILURE, {"refused": "PeerBusy"}), (FAILURE, {"refused": "PeerBusy", "ran": "no"}),
    (FAILURE, {"refused": "PeerBusy", "ran": "no", "reason": 5}),
    (FAILURE, {"refused": "MessageTooLarge", "ran": "no", "what": "x", "size": 1}),
    (FAILURE, {"refused": "MessageTooLarge", "ran": "no", "what": "x", "size": float("inf"),
               "limit": 1, "setting": None}),
    (FAILURE, {"refused": "MessageTooLarge", "ran": "no", "what": 5, "size": 1, "limit": 1,
               "setting": None}),
    (FAILURE, {"refused": "ValueNotSupported", "ran": [], "path": "", "reason": None}),
    (RESULT, b"nothing"), (RESULT, b""), (RESULT, b"[" * 500), (FLAG, b"{"), (FAILURE, b"\xff"),
], ids=repr)
def test_replies_without_sense_say_that_the_call_may_have_run(kind, content):
    error = failing_reply(kind, content)
    assert type(error) is ProtocolError
    assert (error.address, error.ran) == (ADDRESS, "maybe")
    assert str(error).isprintable()


@each("content", ['{"!tuple":5}', '{"!peer":["x"]}', '{"!unknown":1}',
                  '{"raised":{"!tuple":[]}}'])
def test_tagged_replies_without_sense_say_that_the_call_may_have_run(content):
    error = failing_reply(FAILURE, content.encode(), tagged=True)
    assert type(error) is ProtocolError and error.ran == "maybe"


def test_a_result_of_a_class_that_is_not_registered_here_did_run():
    error = failing_reply(RESULT, b'{"!value":{"class":"app.Job"}}', tagged=True)
    assert type(error) is ValueNotSupported
    assert error.ran == "yes" and "result: app.Job arrived" in str(error)


@given(st.binary(max_size=80), st.sampled_from([RESULT, FAILURE, FLAG]), st.booleans())
def test_any_reply_gives_a_value_or_a_typed_error(text, kind, tagged):
    try:
        messages.decode_reply(Frame(kind, 7, tagged, text), ADDRESS, None, TAG)
    except NetError:
        pass


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["PeerBusy", "MessageTooLarge", "builtins", "ValueError", "OSError", "no"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([
        "raised", "refused", "types", "text", "args", "members", "attributes", "exceptions",
        "traceback", "ran", "reason", "path", "what", "size", "limit", "setting", "flag", "details",
        "filename", "start", "end", "object", "value", "!tuple", "!dict", "!value"]), inner,
        max_size=6), max_leaves=10)


@given(junk, st.sampled_from([FAILURE, FLAG]), st.booleans())
def test_any_reply_of_known_words_gives_a_typed_error(content, kind, tagged):
    try:
        messages.decode_reply(Frame(kind, 7, tagged, json.dumps(content).encode()), ADDRESS,
                              None, TAG)
    except NetError:
        pass


@given(st.dictionaries(st.sampled_from(["args", "members", "attributes", "exceptions",
                                        "traceback"]),
                       junk, max_size=4),
       st.sampled_from([["builtins", "UnicodeDecodeError"], ["builtins", "OSError"],
                        ["builtins", "SyntaxError"], ["builtins", "ImportError"],
                        ["builtins", "ExceptionGroup"], ["builtins", "UnicodeEncodeError"],
                        ["net.errors", "CallTimeout"], ["json.decoder", "JSONDecodeError"]]))
def test_any_description_of_an_exception_gives_one_that_can_be_shown(parts, name):
    import traceback

    content = {"raised": {"types": [name, ["builtins", "Exception"]], "text": "x", **parts}}
    try:
        messages.decode_reply(Frame(FAILURE, 7, False, json.dumps(content).encode()), ADDRESS, None,
                              TAG)
    except NetError as error:
        assert str(error)
        assert "".join(traceback.format_exception(type(error), error, error.__traceback__))


def test_the_tag_in_a_call_is_the_one_that_was_given():
    tag = base64.b64encode(b"app.module.function")
    assert read_call(read_frame(joined(messages.encode_call(7, tag, (), {})))).tag == tag


def test_an_unknown_connection_is_a_flag_with_near_names():
    flag = Flag(encode_text("INVALID_CONNECTION"), ("near",))
    assert reply(joined(messages.encode_result(7, flag))).details == ("near",)
    assert issubclass(InvalidConnection, LookupError)


class Own(Exception):
    """An application's."""


@pytest.mark.parametrize("problem", [MemoryError, RecursionError, KeyboardInterrupt, Own,
                                     TimeoutError, ValueError], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("kind, step", [
    (RESULT, "unpack"), (FLAG, "an_object"), (FAILURE, "rebuild")])
def test_what_goes_wrong_here_is_no_fault_of_the_reply(monkeypatch, problem, kind, step):
    """Such as what a signal handler of the application raises."""
    def fail(*arguments: object) -> object:
        raise problem

    monkeypatch.setattr(messages, step, fail)
    with pytest.raises(problem) as caught:
        messages.decode_reply(Frame(kind, 7, False, b'{"raised":{},"flag":"eA=="}'), ADDRESS,
                              "192.0.2.1:3010", TAG)
    assert type(caught.value) is problem


@pytest.mark.parametrize("problem", [MemoryError, Own, ValueError], ids=lambda cls: cls.__name__)
def test_what_goes_wrong_here_is_no_fault_of_an_answer(monkeypatch, problem):
    def fail(*arguments: object) -> object:
        raise problem

    monkeypatch.setattr(messages, "rebuild", fail)
    with pytest.raises(problem) as caught:
        messages.decode_answer(Frame(ANSWER, 7, False, b'{"raised":{}}'))
    assert type(caught.value) is problem


def test_what_a_class_of_the_application_raises_is_its_own(monkeypatch):
    def fail(self: object) -> int:
        raise ValueError("of the application")

    monkeypatch.setattr(travel.Frozen, "__hash__", fail)
    key = b'{"!set":[{"!value":{"class":"travel.Frozen","name":1}}]}'
    for kind, text in ((RESULT, key), (FLAG, b'{"flag":"eA==","details":%b}' % key)):
        with pytest.raises(ValueError) as caught:
            messages.decode_reply(Frame(kind, 7, True, text), ADDRESS, None, TAG)
        assert str(caught.value) == "of the application"


@pytest.mark.parametrize("refusal", [
    {"refused": "NoFreePort", "host": "x", "ports": {"!range": [0, 10 ** 12, 1]}},
    {"refused": "InvalidConnection", "tag": "eA==", "name": "x",
     "near": {"!range": [0, 10 ** 12, 1]}},
    {"refused": "InvalidConnection", "tag": "eA==", "name": "x", "near": ["x"] * 1000},
    {"refused": "InvalidConnection", "tag": 5, "name": "x", "near": []},
    {"refused": "MessageTooLarge", "what": "x", "size": {"!int": "0x" + "f" * 50_000}, "limit": 1,
     "setting": None},
    {"refused": {"!value": {"class": "travel.Pair", "left": 1, "right": 2}}},
], ids=str)
def test_what_a_refusal_says_unrolls_to_nothing(refusal):
    with Peak() as peak:
        error = failing_reply(FAILURE, {**refusal, "ran": {"!tuple": ["no"]}}, tagged=True)
    assert type(error) is ProtocolError and peak.bytes < 300_000


def test_a_refusal_of_a_class_that_is_not_known_here_is_one_all_the_same():
    error = failing_reply(FAILURE, {"refused": "Newer", "ran": {"!tuple": ["no"]},
                                    "reason": {"!range": [0, 10 ** 12, 1]}, "text": "why"}, True)
    assert type(error) is NetError and str(error).endswith("refused with Newer: why")
    assert error.ran == "maybe"


def test_what_is_lacking_in_a_reply_says_where_and_on_which_side():
    gone = '{"!value":{"class":"app.Gone"}}'
    for kind, text, path in ((RESULT, f"[1,{gone}]", "result[1]"), (RESULT, gone, "result"),
                             (FLAG, f'{{"flag":"eA==","details":[{gone}]}}', "flag['details'][0]")):
        error = failing_reply(kind, text.encode(), tagged=True)
        assert type(error) is ValueNotSupported and error.path == path
        assert error.reason.endswith("not registered with @net.value in this process")


def test_what_is_lacking_in_a_call_says_that_it_is_lacking_at_the_peer():
    with pytest.raises(ValueNotSupported, match="@net.value at the peer"):
        read_call(Frame(CALL, 7, True, b'{"tag":"eA==","args":[{"!value":{"class":"app.Gone"}}],'
                                       b'"kwargs":{}}'))


def test_the_limits_of_the_settings_count_for_arguments():
    deep: list = []
    for _ in range(5):
        deep = [deep]
    for args, kwargs in (((deep,), {}), ((), {"a": deep})):
        with pytest.raises(ValueNotSupported, match=r"deeper than 3 \(NET_MAX_DEPTH\)"):
            messages.encode_call(7, TAG, args, kwargs, Limits(depth=3))
        messages.encode_call(7, TAG, args, kwargs, Limits(depth=9))


def test_the_limits_of_the_settings_count_for_errors():
    deep: list = []
    for _ in range(40):
        deep = [deep]
    kept = failing_reply(FAILURE, read_frame(joined(messages.encode_failure(
        7, ValueError(deep), "type"))).text)
    assert kept.args == (deep,)
    shown = failing_reply(FAILURE, read_frame(joined(messages.encode_failure(
        7, ValueError(deep), "type", Limits(depth=20)))).text)
    assert shown.args == (repr(deep),) and isinstance(shown, ValueError)


def test_an_error_is_raised_with_the_context_that_it_had_there():
    def fail() -> None:
        try:
            {}["there"]
        except KeyError:
            raise ValueError("there")

    with pytest.raises(ValueError) as caught:
        fail()
    data = joined(messages.encode_failure(7, caught.value))
    with pytest.raises(ValueError) as arrived:
        try:
            1 / 0
        except ZeroDivisionError:
            reply(data)
    there = arrived.value.__context__
    assert isinstance(there, KeyError) and type(there.__context__) is ZeroDivisionError
