"""What docs/protocol.rst prints is what the code sends, byte for byte."""
from __future__ import annotations

import json
import pathlib
import re

from net.dispatch import INVALID_CONNECTION
from net.errors import PeerBusy
from net.identity import Flag, encode_text
from net.run import lending, server_connection, streaming
from net.wire import frames, session
from net.wire.deliveries import (Subscribe, encode_events, encode_subscribe, encode_subscribed,
                                 encode_taken, join, pack_arguments)
from net.wire.kinds import PUT_TOGETHER
from net.wire.limits import Limits
from net.wire.messages import (Ask, decode_answer, decode_ask, decode_items, encode_answer,
                               encode_ask, encode_call, encode_end, encode_items, encode_refusal,
                               encode_result)
from net.wire.session import Hello, PrefaceParser, caller_session, encode_hello, encode_preface
from net.wire.values import pack
from each import each
from travel import read_call, read_frame

PAGE = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "protocol.rst").read_text("utf-8")

_LINE = re.compile(r"    ([0-9a-f]{4})  ([0-9a-f ]{48}) (.{1,16})$")


def dumps() -> "list[tuple[bytes, str]]":
    """The bytes of each hex dump on the page, and the text beside them."""
    found: "list[tuple[bytes, str]]" = []
    for line in PAGE.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        if match[1] == "0000":
            found.append((b"", ""))
        data, text = found[-1]
        assert int(match[1], 16) == len(data), line
        found[-1] = data + bytes.fromhex(match[2]), text + match[3]
    return found


def joined(message: "list[bytes]") -> bytes:
    return b"".join(message)


SENT = {
    "a preface": encode_preface("render"),
    "HELLO": joined(encode_hello("9f" * 16, Limits())),
    "a call": joined(encode_call(1, encode_text("app.multiply"), (5, 10), {})),
    "its reply": joined(encode_result(1, 50)),
    "the reply where there is no such function": joined(encode_result(
        4, Flag(INVALID_CONNECTION, ["app.multiply"]))),
    "a refusal": joined(encode_refusal(
        9, PeerBusy(None, "no memory for the arguments there"))),
    "a result with a buffer": joined(encode_result(2, (1, b"x" * 4096)))[:-4096],
    "items": joined(encode_items(3, [pack(item, "item") for item in (1, 2)])),
    "their end": joined(encode_end(3, None)),
    "a question": joined(encode_ask(1, Ask(0, [5], {}))),
    "its answer": joined(encode_answer(1, "value", 10)),
    "a subscription": joined(encode_subscribe(2, Subscribe(("done", b"dGFn"), None, []))),
    "the reply to it": joined(encode_subscribed(2, 6)),
    "events": joined(encode_events(1, list(join([
        ("done", 7, pack_arguments((1,), {})), ("done", 8, pack_arguments((2,), {"of": 8}))])))),
    "that they were taken": joined(encode_taken(1)),
}


def test_every_dump_of_the_page_is_known_here():
    assert len(dumps()) == len(SENT)


@each("number, what", list(enumerate(SENT)), ids=list(SENT))
def test_what_the_page_prints_is_what_is_sent(number, what):
    data, text = dumps()[number]
    assert data == SENT[what]
    assert text == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def test_what_the_page_prints_can_be_read():
    pages = dict(zip(SENT, [data for data, _ in dumps()]))
    preface, hello, call, reply = [pages[one] for one in (
        "a preface", "HELLO", "a call", "its reply")]
    items, end, ask, answer = [pages[one] for one in (
        "items", "their end", "a question", "its answer")]
    assert PrefaceParser().receive(preface) == (1, 0, "render", None, None)
    secured = PAGE[PAGE.index('{"features": 0, "group": null, "to"'):].splitlines()[0]
    assert json.loads(secured) == json.loads(encode_preface(to=("10.0.0.5", 3010))[8:])
    assert caller_session(Limits()).receive(hello) == Hello(
        1, "9f" * 16, 0, {"text": 16 * 2 ** 20, "buffers": 2 ** 30})
    assert read_call(read_frame(call)) == (encode_text("app.multiply"), [5, 10], {}, None)
    assert read_frame(reply)[:4] == (frames.RESULT, 1, False, b"50")
    assert decode_items(read_frame(items)) == [1, 2]
    assert read_frame(end)[:4] == (frames.END, 3, False, b"null")
    assert decode_ask(read_frame(ask)) == (0, [5], {}, None)
    assert decode_answer(read_frame(answer)) == ("value", 10)


def test_the_kinds_of_frames_are_those_of_the_page():
    table = PAGE[PAGE.index("Kind   Name"):PAGE.index("A kind that is not in this table")]
    documented = re.findall(r"^(\d+) +([A-Z]+) ", table, re.M)
    assert [int(number) for number, _name in documented] == sorted(frames.KNOWN)
    for number, name in documented:
        assert getattr(frames, name) == int(number)


def test_the_page_names_every_tagged_object():
    assert not [name for name in PUT_TOGETHER if f"``{name}``" not in PAGE]
    # By letters, tagged objects are counted in a text (wire/memory.py).
    assert not [name for name in PUT_TOGETHER if not re.fullmatch("![a-z]+", name)]


def test_the_page_names_every_limit():
    assert f"at most {session.MAX_FIELDS} bytes" in PAGE
    assert f"at most {session.MAX_GROUP} characters" in PAGE
    assert f"At most {streaming.WINDOW_ITEMS:,} items and {streaming.WINDOW_BYTES // 2 ** 20} MiB" \
        in PAGE
    assert f"lends at most {lending.MAX_LENT:,} things" in PAGE
    assert f"each {server_connection.SLOWEST // 1024} KiB of them" in PAGE
    assert f"at most {session.MAX_HELLO // 1024} KiB of text" in PAGE
