"""Good bytes, changed at random with fixed seeds: a value or a typed error, and nothing else.

No socket: the frame reader, the decoders of both dialects and the dispatch get the bytes directly.
"""
from __future__ import annotations

import random
import traceback
from typing import Any, Callable, List

import pytest

import travel
from net.context import Caller, Context
from net.dispatch import Dispatch, Tally
from net.errors import MessageTooLarge, NetError, ProtocolError
from net.identity import Flag, encode_text
from net.wire import legacy, messages
from net.wire.frames import CALL, FAILURE, FLAG, Frame, FrameParser, RESULT, TAGGED
from net.wire.limits import Limits
from travel import read_call

SEEDS = range(8)
ROUNDS = 150
KINDS = frozenset((CALL, RESULT, FAILURE, FLAG))
LIMITS = Limits(2 ** 20, 2 ** 20)
CALLER = Caller(("192.0.2.1", 40000), None)

VALUES: List[Any] = [
    None, 1.5, "text \ud800", [1, [2, {"a": None}]], {"!tuple": [1]}, (1, b"x", {2,
                                                                                 frozenset({3})}),
    {1: (2,), None: 10 ** 700}, b"x" * 5000, ["y" * 5000, bytearray(5000)], travel.Point(1, (2,)),
    travel.Color.RED, travel.Access.READ | travel.Access.RUN, travel.Pair(1, [2]),
]
ERRORS: List[BaseException] = [
    ValueError("x", (1,)), UnicodeDecodeError("utf-8", b"a\xffb", 1, 2, "why"), SystemExit(3),
    OSError(2, "gone", "file"), KeyError({"k": (1,)}), SyntaxError("bad", ("f", 1, 2, "x\n")),
]
TAG = encode_text("echo")

CALLS = [b"".join(messages.encode_call(1, TAG, (value,), {"k": value})) for value in VALUES]
REPLIES = [b"".join(messages.encode_result(1, value)) for value in VALUES] \
    + [b"".join(messages.encode_failure(1, error)) for error in ERRORS] \
    + [b"".join(messages.encode_result(1, Flag(encode_text("INVALID_CONNECTION"), ("near",)))),
       b"".join(messages.encode_refusal(0, MessageTooLarge("text", 2, 1, "NET_MAX_TEXT")))]
OLD = [legacy.encode_call(messages.Call(TAG, [1, {"a": "}"}], {"k": []})),
       legacy.encode_result({"a": [1]}), legacy.encode_result("text"), encode_text("NULL"),
       legacy.encode_error("Traceback (most recent call last):\nValueError: x"),
       legacy.encode_call(messages.Call(TAG, [1, {"a": "}"}], {"k": []}), dialect=legacy.PLAIN),
       legacy.encode_result([1, "two", None], dialect=legacy.PLAIN),
       b"{'connection': 'app.f', 'args': ('x', 1), 'kwargs': {'peer': <net.Peer h:a s:0 f:2>}}"]

# What breaks parsers: lengths at the edges, brackets, quotes, tags of ours, other encodings.
TOKENS = [b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"[" * 300, b"]", b"{", b"}", b'"', b"\\",
          b"\\u",
          b'{"!tuple":', b'{"!bytes":0}', b'{"!bytearray":1}', b'{"!value":{"class":"os"}}',
          b'{"!dict":[[],1]}', b'{"!int":"0x', b"1e999", b"-", b"9" * 700, b"NaN", b"null",
          b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"start":-999999999999', b'"types"', b"__class__"]


def changed(data: bytes, source: random.Random) -> bytes:
    """The bytes after one to four random changes."""
    found = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(found) + 1)
        end = min(len(found), at + source.choice((1, 1, 2, 8, 60)))
        kind = source.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            found[at:end] = b""
        elif kind == 2:
            found[at:at] = source.choice(TOKENS)
        elif kind == 3:
            found[at:end] = bytes(source.randrange(256) for _ in range(end - at))
        elif kind == 4:
            found[at:at] = found[at:end]
        else:
            del found[at:]
    return bytes(found)


def fuzz(samples: List[bytes], seed: int, feed: Callable[[bytes, random.Random], None]) -> None:
    source = random.Random(seed)
    for turn in range(ROUNDS):
        data = changed(source.choice(samples), source)
        try:
            feed(data, source)
        except Exception as problem:
            raise AssertionError(f"seed {seed}, turn {turn}, bytes {data!r:.500}") from problem


def frames_of(data: bytes, source: random.Random) -> List[Frame]:
    """All frames that a stream of these bytes gives, in pieces of random length."""
    parser, found, at = FrameParser(LIMITS, KINDS), [], 0
    try:
        while at < len(data):
            size = source.choice((1, 7, 100, 10 ** 6))
            frame = parser.receive(data[at:at + size])
            at += size
            while frame is not None:
                found.append(frame)
                frame = parser.receive(b"")
    except (ProtocolError, MessageTooLarge):
        pass
    return found


def feed_call(data: bytes, source: random.Random) -> None:
    dispatch = Dispatch({TAG: lambda *args, **kwargs: (args, kwargs)})
    for frame in frames_of(data, source):
        answer = dispatch.answer(frame, Context(CALLER), Tally())
        reply = frames_of(b"".join(answer), random.Random(0))
        assert len(reply) == 1 and reply[0].kind != CALL
        feed_frame(reply[0])


def feed_reply(data: bytes, source: random.Random) -> None:
    for frame in frames_of(data, source):
        feed_frame(frame)


def feed_frame(frame: Frame) -> None:
    try:
        messages.decode_reply(frame, ("192.0.2.1", 1), None, TAG)
    except NetError as error:
        assert isinstance(str(error), str)
        traceback.format_exception(type(error), error, error.__traceback__)


def feed_old(data: bytes, source: random.Random) -> None:
    dispatch = Dispatch({TAG: lambda *args, **kwargs: (args, kwargs)})
    try:
        legacy.Reply(source.choice((legacy.BASE64, legacy.PLAIN)), data).value(None, TAG)
    except NetError:
        pass
    session = legacy.LegacySession()
    try:
        request = session.receive(data)
    except ProtocolError:
        return
    if request is not None:
        answer = dispatch.answer_legacy(session, Context(CALLER), Tally())
        assert len(answer) <= legacy.MAX_MESSAGE
        if not session.searches:
            assert legacy.Reply(session.dialect, answer)
            assert legacy.LegacySession(session.dialect).receive(answer) or \
                legacy.is_flag(answer) or session.dialect == legacy.PLAIN


@pytest.mark.parametrize("seed", SEEDS)
def test_a_changed_call_gets_one_reply_or_ends_the_stream(seed):
    fuzz(CALLS, seed, feed_call)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_changed_reply_gives_a_value_or_a_typed_error(seed):
    fuzz(REPLIES, seed, feed_reply)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_text_of_a_reply_may_be_anything(seed):
    """Behind a good header, so that it is not the lengths that refuse it."""
    texts = [frame.text for data in REPLIES for frame in frames_of(data, random.Random(0))]

    def feed(text: bytes, source: random.Random) -> None:
        buffers = [bytes(source.randrange(20)) for _ in range(2)]
        feed_frame(Frame(source.choice((RESULT, FAILURE, FLAG)), 1, source.random() < 0.7, text,
                         buffers))

    fuzz(texts, seed, feed)


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_bytes_of_the_old_dialect_give_a_value_or_a_typed_error(seed):
    fuzz(OLD, seed, feed_old)


def test_the_samples_themselves_are_good():
    for data in CALLS + REPLIES:
        (frame,) = frames_of(data, random.Random(0))
        assert frame.tagged in (False, bool(TAGGED))
    for data in CALLS:
        read_call(frames_of(data, random.Random(0))[0])
    for data in OLD:
        assert legacy.is_flag(data) or data.startswith(b"[") or legacy.read_object(
            data, dialect=legacy.FIRST_BYTES[data[:1]]) is not None
