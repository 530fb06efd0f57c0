"""One connection as a state machine: what may come when, in both roles, in any pieces."""
from __future__ import annotations

import json
import struct
from typing import Any, List

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from net.errors import MessageTooLarge, PeerBusy, ProtocolError
from net.wire import frames, session
from net.wire.frames import FAILURE, HELLO, Frame, KNOWN, NotAFrame, REPLIES, RESULT, pack
from net.wire.limits import Limits
from net.wire.messages import encode_call, encode_refusal, encode_result
from net.wire.session import (Hello, MAGIC, MAX_FIELDS, MAX_HELLO, Preface, PrefaceParser, Session,
                              Unknown, caller_session, encode_hello, encode_preface,
                              server_session)
from each import each

KIB = 1024
LIMITS = Limits(64 * KIB, 64 * KIB)
INSTANCE = "0123456789abcdef" * 2
STEPS = [1, 7, 10 ** 6]


def joined(message: Any) -> bytes:
    return b"".join(message)


def events(one: Session, data: bytes, step: int = 10 ** 6) -> List[Any]:
    """What comes out of a session while data goes in."""
    found = []
    for start in range(0, len(data), step):
        event = one.receive(data[start:start + step])
        while event is not None:
            found.append(plain(event))
            event = one.receive()
    return found


def plain(event: Any) -> Any:
    """An event, comparable: no buffers are no buffers, however a frame has come."""
    return event._replace(buffers=tuple(event.buffers)) if type(event) is Frame else event


def frame(kind: int, content: Any = None, number: int = 1) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return joined(pack(kind, number, text))


GREETING = joined(encode_hello(INSTANCE, LIMITS))


def opened(**more: Any) -> Session:
    """A caller's session after HELLO."""
    one = caller_session(LIMITS, **more)
    assert type(one.receive(GREETING)) is Hello
    return one


# ------------------------------------------------------------------------------------ the preface


def test_the_preface_is_the_documented_one():
    assert encode_preface() == b'\xabnet\x01\0\0\x1b{"features":0,"group":null}'
    assert encode_preface("render", 3) == b'\xabnet\x01\0\0\x1f{"features":3,"group":"render"}'
    assert MAGIC[0] > 127  # no ASCII, and not how UTF-8 begins
    with pytest.raises(UnicodeDecodeError):
        encode_preface().decode()


def test_the_longest_preface_fits_into_what_an_old_peer_reads():
    for letter in "\U0001f600\1\"é":
        longest = encode_preface(letter * 64, 2 ** 64, "f" * 64, ("f" * 64, 65535))
        assert len(longest) <= session.PREFACE.size + MAX_FIELDS <= 1024
        assert PrefaceParser().receive(longest).group == letter * 64


def test_what_is_no_text_in_a_group_is_replaced():
    assert PrefaceParser().receive(encode_preface("a\udcff")).group == "a?"


@each("step", STEPS)
@each("tail", [b"", b"x", frame(1)])
def test_a_preface_in_pieces_is_read_and_what_follows_is_kept(step, tail):
    data = encode_preface("render") + tail
    parser = PrefaceParser()
    for start in range(0, len(data), step):
        preface = parser.receive(data[start:start + step])
        if preface is not None:
            break
    assert preface == Preface(1, 0, "render")
    assert parser.rest + data[start + step:] == tail


def fields(content: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return session.PREFACE.pack(MAGIC, 1, 0, len(text)) + text


@each("content, preface", [
    ({}, Preface(1)), ({"group": None}, Preface(1)), ({"features": 5}, Preface(1, 5)),
    ({"group": "a", "color": ["blue", {}], "features": 0}, Preface(1, 0, "a")),
    (b'  {"group" : "\xc3\xa9"}\n', Preface(1, 0, "é")),
    ({"to": ["fd00::1", 3010]}, Preface(1, to=("fd00::1", 3010))), ({"to": None}, Preface(1)),
], ids=repr)
def test_fields_of_a_preface_may_be_missing_or_unknown(content, preface):
    assert PrefaceParser().receive(fields(content)) == preface


@each("content", [
    b"", b"5", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 700, b'{"a":' + b"[" * 600, b"{} {}",
    {"group": 5}, {"group": ""}, {"group": "x" * 65}, {"group": ["a"]}, {"group": True},
    {"to": "10.0.0.5"}, {"to": []}, {"to": ["10.0.0.5"]}, {"to": ["10.0.0.5", "3010"]},
    {"to": [5, 5]}, {"to": ["x" * 65, 1]}, {"to": ["10.0.0.5", True]}, {"to": {"host": 1}},
    {"features": "1"}, {"features": None}, {"features": 1.0}, {"features": True},
], ids=repr)
def test_a_preface_without_sense_is_refused(content):
    with pytest.raises(ProtocolError) as caught:
        PrefaceParser().receive(fields(content))
    assert not isinstance(caught.value, NotAFrame) and caught.value.ran == "no"


@each("data", [
    b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"e", b"\x00", b"\xabn", b"\xabnex", b"\xff" * 8,
    b"\xabnet\x01\x01\0\0", b"\xabnet\x01\0" + struct.pack("!H", MAX_FIELDS + 1),
    b"\xabnet\x01\0\xff\xff",
], ids=repr)
@each("step", STEPS)
def test_what_is_no_preface_is_shown_with_all_that_came(data, step):
    parser = PrefaceParser()
    taken = b""
    if data == b"\xabn":  # it may become one
        assert parser.receive(data) is None
        return
    with pytest.raises(NotAFrame) as caught:
        for start in range(0, len(data), step):
            taken += data[start:start + step]
            parser.receive(data[start:start + step])
    assert caught.value.data == taken
    if data[:1] != MAGIC[:1]:
        assert len(taken) == min(step, len(data))  # a wrong first byte is known at once


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_by_a_text_that_names_both(version):
    with pytest.raises(ProtocolError, match=f"version {version} .* version 1") as caught:
        PrefaceParser().receive(MAGIC + bytes((version, 0, 0, 0)))
    assert not isinstance(caught.value, NotAFrame)


@given(st.binary(max_size=40))
def test_any_first_bytes_are_a_preface_or_a_typed_error(data):
    for start in (b"", MAGIC, MAGIC + b"\1\0", MAGIC + b"\1\0\0\4"):
        try:
            found = PrefaceParser().receive(start + data)
        except ProtocolError:
            continue
        assert found is None or type(found) is Preface


# -------------------------------------------------------------------------- the caller is greeted


def test_a_hello_looks_as_documented():
    text = (b'{"version":1,"instance":"abc","features":0,'
            b'"limits":{"text":16777216,"buffers":1073741824}}')
    assert joined(encode_hello("abc", Limits())) == \
        b"\x05\0\0\0\0\0\0\0" + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize("step", STEPS)
def test_hello_opens_the_session_and_replies_follow(step):
    one = caller_session(LIMITS)
    assert one.hello is None
    found = events(one, GREETING + joined(encode_result(7, 50)) + joined(encode_result(8, "x")),
                   step)
    assert found[0] == one.hello == Hello(1, INSTANCE, 0, {"text": 64 * KIB, "buffers": 64 * KIB})
    assert found[1:] == [Frame(RESULT, 7, False, b"50"), Frame(RESULT, 8, False, b'"x"')]
    assert one.held == 0


@each("content, hello", [
    ({"version": 1, "instance": "a"}, Hello(1, "a")),
    ({"version": 2, "instance": "", "features": 6}, Hello(2, "", 6)),
    ({"version": 1, "instance": "a", "limits": 5}, Hello(1, "a")),
    ({"version": 1, "instance": "a", "limits": {"text": None, "more": 1}},
     Hello(1, "a", 0, {"text": None, "more": 1})),
    ({"color": {"x": []}, "instance": "a", "version": 1}, Hello(1, "a")),
], ids=repr)
def test_fields_of_a_hello_may_be_missing_or_unknown(content, hello):
    assert caller_session(LIMITS).receive(frame(HELLO, content, 0)) == hello


@each("content", [
    b"", b"null", b"[]", b"{", b"\xff", b"[" * 5000, b'{"a":' * 3000, {}, {"version": 1},
    {"instance": "a"}, {"version": "1", "instance": "a"}, {"version": True, "instance": "a"},
    {"version": 1, "instance": 5}, {"version": 1, "instance": "x" * 65},
    {"version": 1, "instance": "a", "features": "x"},
], ids=lambda content: repr(content)[:40])
def test_a_hello_without_sense_is_an_error(content):
    one = caller_session(LIMITS)
    with pytest.raises(ProtocolError) as caught:
        one.receive(frame(HELLO, content, 0))
    assert not isinstance(caught.value, NotAFrame) and one.hello is None


def test_a_refusal_may_come_instead_of_hello():
    refusal = joined(encode_refusal(0, PeerBusy(None, "full")))
    for step in STEPS:
        (event,) = events(caller_session(LIMITS), refusal, step)
        assert (event.kind, event.number) == (FAILURE, 0) and b'"PeerBusy"' in event.text


@each("data", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46", b"eyJyYXciOiA1MH0=", b"TlVMTA==", b"\x00", b"\x06", b"\xab",
    encode_preface(),
    joined(encode_result(1, 5)), joined(encode_call(1, b"eA==", (), {})),
    b"\x05\x02" + bytes(10), b"\x03\xff" + bytes(10),
], ids=repr)
def test_garbage_instead_of_hello_is_shown_with_all_of_it(data):
    for step in (10 ** 6, 12, 1):
        one, fed = caller_session(LIMITS), b""
        with pytest.raises(NotAFrame) as caught:
            for start in range(0, len(data), step):
                fed += data[start:start + step]
                one.receive(data[start:start + step])
        assert caught.value.data == fed
        if data[0] not in (HELLO, FAILURE):
            assert len(fed) == min(step, len(data))


def test_a_greeting_has_limits_of_its_own():
    for kind in (HELLO, FAILURE):
        with pytest.raises(MessageTooLarge):
            caller_session(Limits()).receive(frames.HEADER.pack(kind, 0, 0, 0, MAX_HELLO + 1))
        with pytest.raises(MessageTooLarge):
            caller_session(Limits()).receive(
                frames.HEADER.pack(kind, 1, 1, 0, 2) + frames.LENGTH.pack(1))
    # Afterwards those count that the session was made with.
    large = joined(encode_result(1, ["x"] * 10_000))
    assert len(large) > MAX_HELLO
    (reply,) = events(opened(), large)
    assert len(reply.text) > MAX_HELLO


# ----------------------------------------------------------------------------- what may come when

#: Kinds that each role takes in each state; every other known one is against the rules there.
TABLE = {
    "caller, greeting": (lambda: caller_session(LIMITS), {HELLO, FAILURE}),
    "caller, open": (opened, REPLIES | {frames.ITEM, frames.END, frames.ASK}),
    "server, open": (lambda: server_session(LIMITS),
                     {frames.CALL, frames.SUBSCRIBE, frames.TAKEN, frames.PING}),
    "server, while something is lent": (lambda: server_session(LIMITS, frames.LENT_OPEN),
                                        {frames.ANSWER, frames.TAKEN}),
    "server, while it sends a stream": (lambda: server_session(LIMITS, frames.STREAMED_OPEN),
                                        {frames.CALL, frames.ANSWER, frames.TAKEN}),
    "subscriber, open": (lambda: opened(kinds=frames.SUBSCRIBER_OPEN), REPLIES | {frames.EVENT}),
    "publisher, open": (lambda: server_session(LIMITS, frames.PUBLISHER_OPEN),
                        {frames.CALL, frames.SUBSCRIBE, frames.UNSUBSCRIBE, frames.TAKEN,
                         frames.FAILED}),
}


@each("state", TABLE)
@each("kind", sorted(KNOWN))
def test_what_may_come_when(state, kind):
    make, kinds = TABLE[state]
    for step in STEPS:
        content = {"version": 1, "instance": "a"} if kind == HELLO else {}
        data = frame(kind, content)
        if kind in kinds:
            (event,) = events(make(), data, step)
            assert event == Frame(kind, 1, False, data[12:]) or kind == HELLO
            continue
        with pytest.raises(ProtocolError):
            events(make(), data, step)


@each("state", [state for state in TABLE if "open" in state])
@each("kind", [0, max(frames.KNOWN) + 1, 99, 255])
def test_a_kind_of_later_versions_is_given_by_its_number_and_the_session_goes_on(state, kind):
    make, kinds = TABLE[state]
    good = frame(min(kinds), {}, 3)
    for step in STEPS:
        found = events(make(), frame(kind, b"what", 2) + good, step)
        assert found == [Unknown(kind, 2), Frame(min(kinds), 3, False, b"{}")]


def test_a_later_kind_with_buffers_is_skipped_whole_and_a_large_one_is_refused():
    good = joined(encode_result(3, 5))
    later = joined(pack(99, 2, b"{}", True, [b"x" * 500, b"y"]))
    for step in STEPS:
        assert events(opened(), later + good, step) == [Unknown(99, 2),
                                                        Frame(RESULT, 3, False, b"5")]
    for large in (frames.HEADER.pack(99, 0, 0, 2, frames.CHUNK + 1),
                  frames.HEADER.pack(99, 1, 1, 2, 2) + frames.LENGTH.pack(frames.CHUNK)):
        with pytest.raises(ProtocolError, match="large frame of the unknown kind 99"):
            caller = caller_session(Limits())
            caller.receive(GREETING)
            caller.receive(large)


def test_hello_comes_once():
    one = opened()
    with pytest.raises(ProtocolError, match="kind 5 may not come now"):
        one.receive(GREETING)


def test_a_session_can_be_allowed_other_kinds_later():
    one = opened()
    one.allow(frames.SUBSCRIBER_OPEN, LIMITS)
    assert one.receive(frame(frames.EVENT, {})).kind == frames.EVENT
    other = server_session(LIMITS)
    with pytest.raises(ProtocolError):
        other.receive(frame(frames.FAILED, {}))
    other = server_session(LIMITS)
    other.allow(frames.PUBLISHER_OPEN, Limits(text=10, buffers=0))
    assert other.receive(frame(frames.FAILED, {})).kind == frames.FAILED
    with pytest.raises(MessageTooLarge):
        other.receive(frame(frames.FAILED, {"more": "than ten"}))


def test_a_server_takes_what_the_preface_brought_along():
    parser = PrefaceParser()
    call = joined(encode_call(4, b"eA==", (1,), {}))
    assert parser.receive(encode_preface() + call + call) is not None
    one = server_session(LIMITS)
    one.rest = parser.rest
    assert [event.number for event in (one.receive(), one.receive())] == [4, 4]
    assert one.receive() is None and not one.rest


@each("state", TABLE)
def test_what_starts_no_frame_is_against_the_rules_in_every_state(state):
    make, _ = TABLE[state]
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x02\xff" + bytes(10), b"\xff" * 12):
        with pytest.raises(NotAFrame):
            events(make(), data)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.binary(max_size=20)),
                max_size=4), st.integers(1, 30), st.sampled_from(sorted(TABLE)))
@example([(frames.FAILURE, 0, b""), (0, 0, b"")], 1, "caller, greeting")
def test_any_frames_give_events_or_typed_errors_however_they_are_cut(several, step, state):
    data = b"".join(joined(pack(kind, number, text)) for kind, number, text in several)

    def run(size: int) -> Any:
        found = []
        try:
            one = TABLE[state][0]()
            for start in range(0, len(data), size):
                event = one.receive(data[start:start + size])
                while event is not None:
                    found.append(plain(event))
                    event = one.receive()
        except NotAFrame:
            return found, "NotAFrame"
        except (ProtocolError, MessageTooLarge) as problem:
            return found, str(problem)
        return found, ""

    assert run(step) == run(10 ** 6)
