"""The old dialects: recorded bytes of old programs in both roles, pieces, limits and errors."""
from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import processes
from net.errors import (MessageTooLarge, NetError, PeerBusy, ProtocolError, RemoteError,
                        ValueNotSupported)
from net.identity import Flag, PeerId, encode_text, make_id
from net.wire import legacy
from net.wire.frames import NotAFrame
from net.wire.legacy import BASE64, LegacySession, PLAIN, Reply
from net.wire.messages import Call
from each import each
from travel import assert_same

TAG = encode_text("app.multiply")
PEER = "192.0.2.1:3010"
BOTH = pytest.mark.parametrize("dialect", [BASE64, PLAIN])


def coded(value: Any, dialect: str = BASE64) -> bytes:
    """As an old program writes it."""
    text = json.dumps(value).encode("ascii")
    return base64.b64encode(text) if dialect == BASE64 else text


def uncoded(data: bytes, dialect: str = BASE64) -> Any:
    """As an old program reads it."""
    return json.loads(base64.b64decode(data) if dialect == BASE64 else data)


def old_reply(data: bytes, dialect: str = BASE64) -> Any:
    return Reply(dialect, data).value(PEER, TAG)


def old_error(text: str, dialect: str = BASE64) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        old_reply(coded({"payload": "error", "traceback": text}, dialect), dialect)
    return caught.value


def server(request: bytes) -> LegacySession:
    """A server's session that has this request."""
    session = LegacySession()
    assert session.receive(request) is session.request is not None
    return session


def asked(request: bytes) -> Call:
    call = server(request).request
    assert call is not None
    return call


class Trouble(Exception):
    pass


# ------------------------------------------------------------------------- recorded bytes


class Record(NamedTuple):
    """One exchange with a real old program. See tests/support/old_peers.json."""

    version: str
    role: str
    what: str
    request: bytes
    reply: bytes
    outcome: str

    @property
    def dialect(self) -> str:
        return PLAIN if self.version.startswith("0.6") else BASE64

    def content(self) -> Dict[str, Any]:
        """The object of the request."""
        content: Dict[str, Any] = uncoded(self.request, self.dialect)
        return content


def recorded() -> List[Record]:
    with open(Path(processes.__file__).with_name("old_peers.json"), encoding="ascii") as file:
        found = json.load(file)
    return [Record(one["version"], one["role"], one["what"], one["request"].encode("latin-1"),
                   one["reply"].encode("latin-1"), one.get("outcome", ""))
            for one in found["records"]]


RECORDS = recorded()


def records(role: str, *beginnings: str, without: Tuple[str, ...] = ()) -> Any:
    """A parameter: the records of a role whose name begins like this.

    :param without: ``version: name`` of those that are left out.
    """
    found = [one for one in RECORDS if one.role == role and one.what.startswith(beginnings)
             and not f"{one.version}: {one.what}".startswith(without or ("no",))]
    assert found
    return each("record", found, ids=[f"{one.version}: {one.what}" for one in found])


#: What old clients call, as a modern one would: tag, args, kwargs.
CALLS: Dict[str, Tuple[str, List[Any], Dict[str, Any]]] = {
    "a call with args and kwargs": (
        "app.render", ["shot", 10], {"quality": [3.5, None], "preview": True}),
    "a call with peer=<net.Peer object>": (
        "app.render", ["shot", 10], {"quality": [3.5, None], "preview": True}),
    "a call as a method": (
        "app.render", ["shot", 10], {"quality": [3.5, None], "preview": True}),
    "a call under an own tag": ("Tagged", ["x"], {}),
    "a call with unicode text": ("app.echo", ["caf\u00e9 \u2713 \U0001f600"], {}),
    "a call of null": ("net.defaults.handlers.null", [], {}),
    "the scan's info request": ("net.defaults.handlers.info", [], {"time_out": 0.1}),
    "subscribe": ("net.defaults.handlers.subscription_handler",
                  ["tick", make_id(3010, "10.0.0.11").decode(), "X19tYWluX18ub25fdGljaw=="], {}),
    "an event's delivery": ("app.on_tick", [7], {"what": "caf\u00e9"}),
}


@records("client", *CALLS)
def test_what_an_old_client_asks_is_understood(record):
    tag, args, kwargs = next(call for what, call in CALLS.items() if record.what.startswith(what))
    session = server(record.request)
    assert session.request == (encode_text(tag), args, kwargs, None)
    assert session.dialect == record.dialect
    assert session.searches == (record.what == "the scan's info request")


@pytest.mark.parametrize("step", [1, 7, 1000])
@records("client", *CALLS)
def test_it_is_understood_in_whatever_pieces_it_comes(record, step):
    session = LegacySession()
    pieces = [record.request[at:at + step] for at in range(0, len(record.request), step)]
    found = [session.receive(piece) for piece in pieces]
    assert found[:-1] == [None] * (len(pieces) - 1)
    assert found[-1] == asked(record.request)


@records("client", "a call ", "subscribe", "an event's")
def test_the_reply_to_an_old_client_is_the_one_that_it_understands(record):
    if record.outcome == "RETURNED 'NULL'":
        # A flag that a function returned is a text to 0.6, as its own servers send it.
        expected = record.reply if record.dialect == BASE64 else b'"NULL"'
        assert server(record.request).reply(Flag(encode_text("NULL"))) == expected
        return
    content = uncoded(record.reply, record.dialect)
    value = content if record.dialect == PLAIN else content["raw"]
    assert server(record.request).reply(value) == record.reply


GOOD = ("a good call", "an own tag", "an unknown tag", "null", "a flag of", "an error raised",
        "wrong arguments", "info", "pass_through of", "connections", "subscription_handler",
        "a call that triggers")


# Plain texts in a subscription are what 0.3 would not understand, so we send none.
@records("server", *GOOD, without=tuple(
    f"{one.version}: subscription_handler, plain texts" for one in RECORDS))
def test_our_request_is_byte_for_byte_that_of_an_old_client(record):
    content = record.content()
    tag = content["connection"] if record.dialect == BASE64 else \
        base64.b64encode(content["connection"].encode()).decode()
    args = content["args"]
    if record.what.startswith("subscription_handler"):
        args = ["tick" if args[0] == "tick" else "tock", make_id(3020, "10.0.0.12").decode(),
                encode_text("app.on_tick").decode()]
    caller = LegacySession(record.dialect)
    assert caller.call(tag.encode(), args, content["kwargs"]) == record.request


@records("server", "a good call", "an own tag, wrapped", "pass_through of", "connections", "info",
         "a call that triggers", "subscription_handler", "a good request, then half-close",
         without=("0.3.5/py3.6: connections", "0.3.5/py3.6: subscription_handler, plain",
                  "0.6.2/py3.6: connections"))
def test_the_reply_of_an_old_server_is_understood(record):
    found = Reply(record.dialect, record.reply).value(PEER, TAG)
    content = uncoded(record.reply, record.dialect)
    bare = record.dialect == PLAIN or set(content) != {"raw"}
    expected = content if bare else content["raw"]
    if type(expected) is str and record.dialect == PLAIN:
        # It may be a flag; where there is none of this name, it is the text.
        assert type(found) is Flag and found == encode_text(expected) or found == expected
        found = getattr(found, "text", found)
    assert_same(found, expected)


@records("server", "an unknown tag", "an own tag, plain", "null", "a flag of", "an empty object",
         "nothing, half-close")
def test_the_flag_of_an_old_server_is_understood(record):
    name = {"an unknown tag": "INVALID_CONNECTION", "an own tag, plain base64":
            "INVALID_CONNECTION", "a flag of the application": "BUSY"}.get(record.what, "NULL")
    found = Reply(record.dialect, record.reply).value(PEER, TAG)
    assert type(found) is Flag and found == encode_text(name)


@records("server", "an error raised", "wrong arguments")
def test_the_error_of_an_old_server_is_the_matching_one(record):
    cls, text = {"an error raised: ValueError": (ValueError, "no such frame: 7"),
                 "an error raised: KeyError": (KeyError, "'no such frame: 7'"),
                 "wrong arguments": (TypeError, "missing 1 required")}[record.what]
    with pytest.raises(cls) as caught:
        Reply(record.dialect, record.reply).value(PEER, TAG)
    assert isinstance(caught.value, RemoteError) and text in str(caught.value)
    assert "/srv/app/app.py" in caught.value.traceback or record.what == "wrong arguments"


@pytest.mark.parametrize("step", [1, 7, 10 ** 6])
@records("server", *GOOD, "an empty object", "garbage", "a request of the other")
def test_a_reply_is_whole_exactly_where_it_ends(record, step):
    caller = LegacySession(record.dialect)
    for at in range(0, len(record.reply), step):
        found = caller.receive(record.reply[at:at + step])
        if at + step < len(record.reply):
            assert found is None
    is_object = record.reply.startswith((b"eyJ", b"{")) and record.what != "no object"
    # An object is whole by itself; all else where the connection ends.
    assert (found is not None) == is_object
    assert (found or caller.receive(b"")) == (record.dialect, record.reply)


@records("server", "the modern preface")
def test_the_answer_to_our_preface_tells_the_dialect(record):
    assert legacy.dialect_of(record.reply) == record.dialect
    for end in range(1, len(record.reply) + 1):
        assert legacy.may_be_old(record.reply[:end])


@records("server", "garbage", "a request of the other", "a good request in two")
def test_so_does_the_answer_to_whatever_they_cannot_read(record):
    assert legacy.dialect_of(record.reply) == record.dialect


@records("server", "an own tag, wrapped as its own client sends it")
def test_a_tag_of_its_own_has_the_form_that_old_programs_give_it(record):
    assert legacy.wrapped(encode_text("Tagged")).decode() == record.content()["connection"]
    assert asked(record.request).tag == encode_text("Tagged")
    caller = LegacySession(BASE64)
    assert caller.call(legacy.wrapped(encode_text("Tagged")), ["x"], {}) == record.request


@records("server", "info")
def test_an_info_has_what_old_programs_have_in_theirs(record):
    facts = {"group": None, "host": "10.0.0.11", "port": 3010, "hub": False, "instance": "f" * 32,
             "executable": "/opt/python/bin/python", "user": "root", "facts": {"gpus": 2}}
    tags = [encode_text(name) for name in ("net.defaults.handlers.info", "app.echo")]
    ours = uncoded(server(record.request).reply(facts, tags), record.dialect)
    theirs = uncoded(record.reply, record.dialect)
    assert set(theirs) <= set(ours)
    same = {"group", "host", "port", "hub", "executable", "user"} & set(theirs)
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["facts"] == {"gpus": 2}
    if record.dialect == PLAIN:
        assert ours["connections"] == ["app.echo", "net.defaults.handlers.info"]
        assert ours["tag"] == "<net.Peer h:10.0.0.11 p:3010 g:None c:2 s:0 f:2>"
        assert ours["flags"] == ["INVALID_CONNECTION", "NULL"] and ours["subscriptions"] == []


@records("server", "info")
def test_no_group_is_none_and_not_a_text(record):
    facts = Reply(record.dialect, record.reply).value(PEER, legacy.INFO)
    assert facts["group"] is None and facts["port"] == 3010


@records("server", "garbage", "the modern preface and")
def test_garbage_gets_no_answer(record):
    with pytest.raises(NotAFrame):
        LegacySession().receive(record.request)


# ------------------------------------------------------------------------------ an info


FACTS = {"group": "render", "host": "10.0.0.11", "port": 3010, "hub": True, "executable": "/py",
         "user": "me", "instance": "f" * 32, "name": "studio1", "pid": 7, "version": "1.0.0"}


def info(facts: Dict[str, Any], dialect: str, names: Any = ()) -> Dict[str, Any]:
    """What a search of an old program receives."""
    request = LegacySession(dialect).call(legacy.INFO, [], {"time_out": 0.1})
    data = server(request).reply(facts, [encode_text(name) for name in names])
    assert len(data) <= 1024
    content: Dict[str, Any] = uncoded(data, dialect)
    return content


@BOTH
@pytest.mark.parametrize("facts", [
    {"a": "x" * 2000}, {"raw": b"bytes"}, {"x": {1, 2}}, {(1, 2): 3}, {"many": list(range(1000))},
], ids=["long", "bytes", "set", "keys", "many"])
def test_an_info_leaves_out_what_an_old_program_could_not_receive(dialect, facts):
    found = info({**FACTS, "facts": facts}, dialect)
    assert "facts" not in found
    assert found["version"] == "1.0.0" and found["group"] == "render" and found["hub"] is True


@BOTH
def test_an_info_leaves_out_facts_first_and_never_what_a_search_needs(dialect):
    facts = {**FACTS, "facts": {"x": "y" * 800}, "digest": "d" * 16, "label": "Anna"}
    found = info(facts, dialect)
    assert found["digest"] == "d" * 16 and found["label"] == "Anna" and "facts" not in found
    facts = {**FACTS, "program": "p" * 400, "facts": {}, "python": "q" * 400}
    found = info(facts, dialect, [f"app.function_{number}" for number in range(1000)])
    assert set(found) >= set(legacy.NEEDED[dialect])
    assert "facts" not in found and "python" not in found
    huge = info({**FACTS, "executable": "/x" * 2000, "user": "u" * 2000}, dialect)
    assert len(huge["executable"]) == len(huge["user"]) == 100


@BOTH
def test_an_info_of_many_functions_still_has_what_tells_a_newer_program(dialect):
    names = [f"app.function_{number}" for number in range(300)]
    found = info({**FACTS, "functions": names, "more_functions": 9}, dialect)
    assert found["instance"] == "f" * 32 and "functions" not in found


def test_of_many_functions_0_6_is_told_as_many_as_fit_those_of_the_application_first():
    names = ["net.events.failed", *(f"app.function_{number}" for number in range(1000))]
    found = info({**FACTS, "facts": {"gpus": 2}}, PLAIN, names)
    assert found["connections"][0] == "app.function_0" and len(found["connections"]) > 20
    assert "c:1001 " in found["tag"]


@BOTH
def test_a_search_is_never_answered_with_anything_but_an_info(dialect):
    session = server(LegacySession(dialect).call(legacy.INFO, [], {"time_out": 0.1}))
    assert session.searches
    # No bytes: the connection is reset.
    assert session.refuse(PeerBusy(None, "full")) == session.fail("ValueError: x") == b""
    assert session.reply("no info") == session.reply(None) == b""
    other = server(LegacySession(dialect).call(TAG, [], {}))
    assert not other.searches
    with pytest.raises(RemoteError, match="full") as caught:
        old_reply(other.refuse(PeerBusy(None, "full")), dialect)
    assert caught.value.traceback == "PeerBusy: full"


# ------------------------------------------------------------------------- 0.6, by itself


@each("value", [None, 0, 1.5, [], [1, {"a": None}], {}, {"a": 1}, {"raw": 1},
                {"raw": 1, "b": 2}, "a line\nand another", "x" * 65, "", " x",
                -5, True, 10 ** 30], ids=repr)
def test_what_a_0_6_server_answers_is_the_value(value):
    assert_same(old_reply(coded(value, PLAIN), PLAIN), value)
    request = LegacySession(PLAIN).call(TAG, [value], {})
    assert_same(old_reply(server(request).reply(value), PLAIN), value)


@each("text", ["text", "NULL", "Not yet", "a b"])
def test_a_text_of_0_6_may_be_a_flag(text):
    found = old_reply(coded(text, PLAIN), PLAIN)
    assert type(found) is Flag and found == encode_text(text) and found.text == text


@each("data", [b"", b"hello", b"{", b'{"a": 1', b"\xff", b"[1", b"Busy", b"-ERR",
               b"[" * 500, b"[" * 500 + b"]" * 500, b"eyJyYXciOiA1MH0=",
               b'"x', b"HTTP/1.1 400 Bad Request\r\n"], ids=repr)
def test_a_reply_of_0_6_without_sense_may_have_run(data):
    with pytest.raises(ProtocolError) as caught:
        old_reply(data, PLAIN)
    assert caught.value.ran == "maybe"


@pytest.mark.parametrize("data, call", [
    (b"{'connection': 'app.f', 'args': (), 'kwargs': {'peer': <net.Peer h:1.2.3.4 p:3010 g:a>b c:0 "
     b"s:0 f:2>}}", ("app.f", [], {})),
    (b"{'connection': 'app.f', 'args': (1, (2,), [None, True, False, nan]), 'kwargs': {}}",
     ("app.f", [1, [2], [None, True, False, float("nan")]], {})),
    (b"""{'connection': 'app.f', 'args': ("it's", '}', '\\'"', '\\\\', 'None', '(', '\xc3\xa9'), """
     b"""'kwargs': {'a': {'b': '<net.Peer h:x s:1 f:2>'}}}""",
     ("app.f", ["it's", "}", "'\"", "\\", "None", "(", "\xe9"],
      {"a": {"b": "<net.Peer h:x s:1 f:2>"}})),
])
def test_the_repr_of_a_dict_is_a_request_of_0_6_too(data, call):
    session = LegacySession()
    for at in range(len(data) - 1):
        assert session.receive(data[at:at + 1]) is None
    found = session.receive(data[-1:])
    tag, args, kwargs = call
    assert_same(list(found), [encode_text(tag), args, kwargs, None])


@each("data", [
    b"{'connection': __import__('os'), 'args': (), 'kwargs': {}}",
    b"{'connection': 'app.f', 'args': (b'x',), 'kwargs': {}}",
    b"{'" + b"[" * 300 + b"}", b"{'a': '\\N{no such name}'}", b"{'a': '\\x1'}", b"{'a': 1 + 1}",
], ids=repr)
def test_a_repr_that_holds_anything_but_values_is_no_request(data):
    session = LegacySession()
    try:
        assert session.receive(data) is None
    except ProtocolError:
        pass


@each("kwargs, left", [
    ({"peer": ["10.0.0.12", 3010], "a": 1}, {"a": 1}), ({"peer": None}, {}),
    ({"peer": "mine"}, {"peer": "mine"}), ({"peer": [1]}, {"peer": [1]}), ({"a": 1}, {"a": 1}),
])
def test_the_peer_that_0_6_leaves_in_its_keywords_is_taken_out(kwargs, left):
    content = {"connection": "app.f", "args": [], "kwargs": kwargs}
    assert asked(coded(content, PLAIN)).kwargs == left
    old = {"connection": TAG.decode(), "args": [], "kwargs": kwargs}
    assert asked(coded(old)).kwargs == kwargs


def test_a_tag_of_0_6_may_have_any_characters():
    assert asked(coded({"connection": "T\u00e4g", "args": [], "kwargs": {}}, PLAIN)).tag == \
        encode_text("T\u00e4g")
    assert uncoded(LegacySession(PLAIN).call(encode_text("T\u00e4g"), [], {}), PLAIN) == {
        "connection": "T\u00e4g", "args": [], "kwargs": {}}


@pytest.mark.parametrize("args", [[], ["tick"], ["tick", 5, None, 7], ["tick", "h", 99999, "tag"],
                                  ["tick", "h", 3010, None], ["tick", "a", "b", "c", "d"]])
@BOTH
def test_a_subscription_without_sense_is_left_to_the_handler(dialect, args):
    name = "net.defaults.handlers.subscription_handler"
    tag = name if dialect == PLAIN else encode_text(name).decode()
    content = {"connection": tag, "args": args, "kwargs": {}}
    assert_same(asked(coded(content, dialect)).args, args)


def test_our_subscription_has_the_form_that_each_dialect_takes():
    peer = make_id(3010, "192.0.2.7", "render")
    args = ["tick", peer.decode(), TAG.decode()]
    assert uncoded(LegacySession(BASE64).call(legacy.SUBSCRIBE, args, {}))["args"] == [
        "tick", f"b'{peer.decode()}'", "b'YXBwLm11bHRpcGx5'"]
    assert uncoded(LegacySession(PLAIN).call(legacy.SUBSCRIBE, args, {}), PLAIN)["args"] == [
        "tick", "192.0.2.7", 3010, "app.multiply"]
    # And comes out as it went in, but for the group, which 0.6 does not tell.
    assert asked(LegacySession(BASE64).call(legacy.SUBSCRIBE, args, {})).args == args
    found = asked(LegacySession(PLAIN).call(legacy.SUBSCRIBE, args, {})).args
    assert PeerId(found[1].encode()).address == peer.address and found[2] == args[2]


@each("tag, known", [
    ("eyJyYXciOiAiVGFnZ2VkIn0=", "Tagged"), ("b'eyJyYXciOiAiVGFnZ2VkIn0='", "Tagged"),
    (base64.b64encode(b'{"raw": "a", "b": 1}').decode(), '{"raw": "a", "b": 1}'),
    (base64.b64encode(b'{"raw": 5}').decode(), '{"raw": 5}'),
    (base64.b64encode(b'{"raw').decode(), '{"raw'), ("b'YQ=='", "a"),
])
def test_tags_in_the_forms_of_0_4_are_known(tag, known):
    assert asked(coded({"connection": tag, "args": [], "kwargs": {}})).tag == encode_text(known)


@each("answer, dialect", [
    (b"NULL", PLAIN), (b"INVALID_CONNECTION", PLAIN), (b"TlVMTA==", BASE64),
    (b"SU5WQUxJRF9DT05ORUNUSU9O", BASE64), (b"eyJyYXciOiBudWxsfQ==", BASE64),
    (b'{"payload": "error", "traceback": ""}', PLAIN), (b'{"error": "bad request"}', ""),
    (b"{}", ""), (b"", ""), (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""), (b"-ERR\r\n", ""),
    (b"220 example.org ESMTP\r\n", ""), (b"\x15\x03\x01", ""), (b"null", ""), (b"e", ""),
    (b"OK", ""), (b"eyJ", ""), (b"Tk8gRkxBRw!", ""),
], ids=repr)
def test_only_what_an_old_program_says_is_taken_for_one(answer, dialect):
    assert legacy.dialect_of(answer) == dialect


def test_a_session_takes_no_more_than_any_old_program_sends():
    for data in (b"e" * 65_537, b"{" * 65_537, coded([[]] * 99_999), b'{"a":' * 200 + b"1" +
                 b"}" * 200):
        with pytest.raises(NotAFrame):
            LegacySession().receive(data)
    with pytest.raises(ProtocolError, match="more than 65,536 bytes"):
        LegacySession(BASE64).receive(b"A" * 65_537)


@BOTH
def test_an_object_that_is_no_call_can_be_answered(dialect):
    session = LegacySession()
    with pytest.raises(ProtocolError) as caught:
        session.receive(coded({"connection": 5}, dialect))
    assert not isinstance(caught.value, NotAFrame)
    with pytest.raises(RemoteError, match="connection is a base64 tag"):
        old_reply(session.refuse(caught.value), dialect)


def test_the_tag_of_one_subscription_is_known_as_such():
    tag = legacy.marked(TAG, "0123456789ab")
    assert tag == encode_text("app.multiply~0123456789ab") and legacy.is_marked(tag)
    assert legacy.unmarked(tag) == TAG
    for other in (TAG, encode_text("app~x"), encode_text("~0123456789ab"), b"?", b"\xff"):
        assert not legacy.is_marked(other) and legacy.unmarked(other) == other
    names = ["app.f", "app.f~0123456789ab", "app.f~0123456789ac"]
    assert info(FACTS, PLAIN, names)["connections"] == ["app.f"]


@given(st.binary(max_size=40) | st.text(alphabet="{}[]()'\"\\:,a1<>", max_size=30).map(
    lambda text: b"{'" + text.encode()))
def test_any_bytes_are_a_request_or_unfinished_or_refused(data):
    try:
        found = LegacySession().receive(data)
    except ProtocolError:
        return
    assert found is None or isinstance(found, Call)


# ----------------------------------------------------------------------------- the replies


@each("value, data", [
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
    # Otherwise 0.4 would take them for what is in them.
    ({"raw": 1}, coded({"raw": {"raw": 1}})),
    ({"raw": 1, "b": 2}, coded({"raw": {"raw": 1, "b": 2}})),
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


@each("value, about", [
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


@each("value, name", [
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


@each("text", ["x" * 5000 + " the end", "\n" * 3000 + " the end",
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


@each("value", [b"x", {1}, object(), 1j, [b"x"], {b"k": 1}])
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
    assert_same(list(legacy.decode_call(content)), [TAG, args, kwargs, None])


many_brackets = {"connection": TAG.decode(), "kwargs": {"a": {}, "}": "{"},
                 "args": [{} for _ in range(60)] + [[] for _ in range(60)] + ["}}[[{{\"}", "a\\"]}


@each("content", [
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


@each("data", [
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


@each("content", [
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
    assert call == (b"eA==", [1], {}, None)


# ---------------------------------------------------------------- what an old peer answers


@each("value", [None, 0, 1.5, "", "text", "é\ud800", [], [1, {"a": None}], {},
                {"a": 1}, {"raw": 1, "b": 2}, {"raw": 1}, {"payload": "data"}, "TlVMTA==",
                {"payload": {"error": 1}}], ids=repr)
def test_what_an_old_peer_answers_is_the_value(value):
    data = coded(value if isinstance(value, dict) else {"raw": value})
    if value != {"raw": 1}:  # they send a number in the same way
        assert_same(old_reply(data), value)
    assert_same(old_reply(legacy.encode_result(value)), value)


@each("name", ["NULL", "INVALID_CONNECTION", "done", "Not yet", "retry-later",
               "A", "x" * 64, "V2"])
def test_a_bare_name_is_a_flag(name):
    found = old_reply(encode_text(name))
    assert type(found) is Flag and found == encode_text(name) and found.details is None
    assert legacy.is_flag(legacy.encode_result(Flag(encode_text(name))))


@each("data",
      [b"", b"e30=", coded({"raw": 1}), encode_text(""), encode_text("é"),
       encode_text("a\nb"), encode_text("\x1b[0m"),
       encode_text("x" * 65),
       encode_text(" x"), b"HTTP/1.1 400", b"true", b"\xff", b"QQ"],
      ids=repr)
def test_other_answers_are_no_flags(data):
    assert not legacy.is_flag(data)


@each("data",
      [b"", b"e3", coded({"raw": 1})[:-4], b"W10=", b"HTTP/1.1 400 Bad\r\n",
       b"\xff", coded([1]), coded("text"), b"=",
       coded({"raw": 1}) + b"x"],
      ids=repr)
def test_a_reply_without_sense_may_have_run(data):
    with pytest.raises(ProtocolError) as caught:
        old_reply(data)
    assert caught.value.ran == "maybe"


@each("last, cls, text", [
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


@each("text", [5, None, ["a"], {"a": 1}])
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


@BOTH
def test_the_first_byte_tells_the_dialects_apart(dialect):
    assert legacy.FIRST_BYTES[legacy.encode_call(Call(TAG, [], {}), dialect=dialect)[:1]] == dialect
    assert legacy.FIRST_BYTES[coded({}, dialect)[:1]] == dialect
