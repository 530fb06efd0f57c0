"""What docs/protocol.rst prints is what the code sends, byte for byte."""
from __future__ import annotations

import pathlib
import re

import pytest

from net.identity import encode_text
from net.wire import frames, session
from net.wire.limits import Limits
from net.wire.messages import decode_call, encode_call, encode_result
from net.wire.session import Hello, PrefaceParser, caller_session, encode_hello, encode_preface
from travel import read_frame

PAGE = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "protocol.rst").read_text("utf-8")

_LINE = re.compile(r"    ([0-9a-f]{4})  ((?:[0-9a-f]{2} ?){1,16}) +(.{1,16})$")


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
    "a result with a buffer": joined(encode_result(2, (1, b"x" * 4096)))[:-4096],
}


def test_every_dump_of_the_page_is_known_here():
    assert len(dumps()) == len(SENT)


@pytest.mark.parametrize("number, what", list(enumerate(SENT)), ids=list(SENT))
def test_what_the_page_prints_is_what_is_sent(number, what):
    data, text = dumps()[number]
    assert data == SENT[what]
    assert text == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def test_what_the_page_prints_can_be_read():
    preface, hello, call, reply, _ = [data for data, _ in dumps()]
    assert PrefaceParser().receive(preface) == (1, 0, "render")
    assert caller_session(Limits()).receive(hello) == Hello(
        1, "9f" * 16, 0, {"text": 16 * 2 ** 20, "buffers": 2 ** 30})
    assert decode_call(read_frame(call)) == (encode_text("app.multiply"), [5, 10], {})
    assert read_frame(reply)[:4] == (frames.RESULT, 1, False, b"50")


def test_the_page_names_every_kind_and_limit():
    table = PAGE[PAGE.index("Kind   Name"):PAGE.index("A kind that is not in this table")]
    for name in ("CALL", "RESULT", "FAILURE", "FLAG", "HELLO", "ITEM", "END", "ASK", "ANSWER",
                 "CANCEL", "SUBSCRIBE", "UNSUBSCRIBE", "EVENT", "TAKEN", "FAILED"):
        assert re.search(rf"\b{name}\b", table), name
        assert re.search(rf"\b{getattr(frames, name)}\b", table), name
    assert f"at most {session.MAX_FIELDS} bytes" in PAGE
    assert f"at most {session.MAX_GROUP} characters" in PAGE
    assert f"at most {session.MAX_HELLO // 1024} KiB of text" in PAGE
