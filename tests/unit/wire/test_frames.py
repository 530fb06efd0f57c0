"""Frames: cut out of received bytes whole, byte by byte, and with bytes of the next behind."""
from __future__ import annotations

import os
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.errors import MessageTooLarge, ProtocolError
from net.wire import frames
from net.wire.frames import (CALL, CHUNK, EndOfStream, FAILURE, FLAG, Frame, FrameParser, HEAD,
                             MAX_BUFFERS, MAX_NUMBER, NotAFrame, RESULT, TAGGED, pack)
from net.wire.limits import Limits
from each import each
from memory import Peak

KINDS = frozenset((CALL, RESULT, FAILURE, FLAG))
MIB = 2 ** 20


def make(text: int = MIB, buffers: int = MIB, kinds: frozenset = KINDS) -> FrameParser:
    return FrameParser(Limits(text, buffers), kinds)


def fed(parser: FrameParser, data: bytes, step: int = 10 ** 9) -> List[Frame]:
    """All frames that come out while data goes in, in pieces of at most ``step`` bytes."""
    found = []
    for start in range(0, len(data), step):
        frame = parser.receive(data[start:start + step])
        while frame is not None:
            found.append(frame._replace(buffers=tuple(frame.buffers)))
            frame = parser.receive(b"")
    return found


def filled(parser: FrameParser, data: bytes, step: int) -> List[Frame]:
    """The same, by a reader that receives long parts into one object."""
    found: List[Frame] = []
    while data:
        missing = parser.missing
        if missing is None:
            found += fed(parser, data[:step])
            data = data[step:]
            continue
        begun, size = missing
        whole, data = begun + data[:size - len(begun)], data[size - len(begun):]
        frame = parser.fill(whole)
        if frame is not None:
            found.append(frame._replace(buffers=tuple(frame.buffers)))
    return found


def on_the_wire(frame: Frame) -> bytes:
    return b"".join(pack(frame.kind, frame.number, frame.text, frame.tagged, frame.buffers))


# Call 7 with args 1 and 2, and the result (1, b"x" * 4096) of it.
GOLDEN = bytes.fromhex("01 00 0000 00000007 0000002f") + \
    b'{"tag":"bXVsdGlwbHk=","args":[1,2],"kwargs":{}}'
GOLDEN_BUFFERS = bytes.fromhex("02 01 0001 00000007 0000001b 0000000000001000") + \
    b'{"!tuple":[1,{"!bytes":0}]}' + b"x" * 4096

FRAMES = [
    Frame(CALL, 1, False, b"[]"),
    Frame(RESULT, MAX_NUMBER, True, b'{"!bytes":0}', (b"abc",)),
    Frame(FAILURE, 0, False, b""),
    Frame(FLAG, 256, True, b"x" * 300, (b"", b"a" * 9, b"")),
    Frame(RESULT, 5, True, b"5"),
    Frame(RESULT, 6, False, b"y" * (CHUNK + 5)),
    Frame(RESULT, 7, True, b"1", (os.urandom(CHUNK * 2), b"z", os.urandom(CHUNK - 1))),
    Frame(RESULT, 8, True, b"u" * (CHUNK * 3), (b"v" * (CHUNK * 3), b"")),
    Frame(CALL, 9, True, b"2", tuple([b"q"] * 500)),
]


@each("frame", FRAMES)
def test_the_fields_of_a_frame_are_the_same_as_the_frame(frame):
    data = on_the_wire(frame)
    fields = make().receive_fields(data)
    quick = not frame.tagged and not frame.buffers or frame.tagged and len(frame.buffers) == 1
    assert type(fields) is (tuple if quick else Frame)
    assert Frame(*fields)._replace(buffers=tuple(fields[4])) == frame == fed(make(), data)[0]
    parser = make()
    assert parser.receive_fields(data[:5]) is None
    assert fed(parser, data[5:]) == [frame]


@each("frame", FRAMES)
def test_a_call_that_is_alone_and_whole_is_read_without_keeping_anything(frame):
    data = on_the_wire(frame)
    parser = make()
    found = parser.whole_call(data)
    alone = frame.kind == CALL and frame.tagged == bool(frame.buffers) and len(frame.buffers) < 2
    assert (found is not None) == alone
    assert found is None or Frame(*found)._replace(buffers=tuple(found[4])) == frame
    assert parser.whole_call(data[:-1]) is parser.whole_call(data + b"x") is None
    assert fed(parser, data) == [frame]


SMALL = FRAMES[:5]


def test_a_frame_looks_as_documented():
    assert pack(CALL, 0x01020304, b"[1]") == [b"\x01\0\0\0\x01\x02\x03\x04\0\0\0\x03[1]"]
    assert b"".join(pack(RESULT, 1, b"[1]", True, [b"ab", b""])) == \
        b"\x02\x01\0\x02\0\0\0\x01\0\0\0\x03" + b"\0" * 7 + b"\x02" + b"\0" * 8 + b"[1]ab"
    assert on_the_wire(Frame(RESULT, 7, True, GOLDEN_BUFFERS[20:47], (b"x" * 4096,))) \
        == GOLDEN_BUFFERS
    assert pack(CALL, 7, GOLDEN[12:]) == [GOLDEN]
    assert HEAD == 12


def test_large_parts_are_packed_as_they_are():
    text, buffer = b"x" * CHUNK, bytes(MIB)
    pieces = pack(RESULT, 1, text, True, [buffer])
    assert pieces[1] is text and pieces[2] is buffer
    pieces = pack(RESULT, 1, b"5", True, [buffer])
    assert len(pieces) == 2 and pieces[1] is buffer


@each("step", [1, 2, 3, 7, 11, 12, 13, 4096, CHUNK - 1, CHUNK, CHUNK + 1,
               10 ** 9])
def test_frames_survive_any_split(step):
    wanted = FRAMES if step >= 4096 else SMALL + [Frame(CALL, 9, True, b"2", (b"q",) * 50)]
    data = b"".join(map(on_the_wire, wanted))
    parser = make()
    assert fed(parser, data, step) == wanted
    assert parser.held == 0 and not parser.rest
    assert filled(make(), data, step) == wanted


def test_all_pieces_that_have_come_begin_what_is_missing():
    data, parser = on_the_wire(Frame(RESULT, 7, False, b"abc" * CHUNK)), make()
    for start in (0, 20, 40):
        assert parser.receive(data[start:start + 20]) is None
    assert parser.missing == (data[HEAD:60], 3 * CHUNK)


@given(st.lists(st.builds(
    Frame, st.sampled_from(sorted(KINDS)), st.integers(0, MAX_NUMBER), st.booleans(),
    st.binary(max_size=40), st.lists(st.binary(max_size=40), max_size=4).map(tuple)), max_size=4),
    st.integers(1, 50))
def test_any_frames_in_any_pieces_come_out_as_they_went_in(several, step):
    assert fed(make(), b"".join(map(on_the_wire, several)), step) == several


@each("frame", SMALL, ids=lambda frame: str(frame.kind))
@each("step", [1, 10 ** 9])
def test_bytes_of_the_next_frame_stay_for_it(frame, step):
    data = on_the_wire(frame)
    for tail in (b"\x01", data[:5], data[:-1] or b"\x01"):
        parser = make()
        found = fed(parser, data, step) if step == 1 else [parser.receive(data + tail)]
        if step == 1:
            assert parser.receive(tail) is None
        assert tuple(found[0].buffers) == frame.buffers and len(found) == 1
        assert parser.held == len(tail)
        # What was held is the beginning of the next one.
        assert fed(parser, data[len(tail):]) == [frame] or tail == b"\x01"


def test_several_frames_in_one_piece_are_given_one_by_one():
    data = b"".join(map(on_the_wire, FRAMES))
    parser = make()
    found = [parser.receive(data)]
    while parser.rest:
        found.append(parser.receive(b""))
    assert [frame._replace(buffers=tuple(frame.buffers)) for frame in found] == FRAMES


@each("end", [*range(1, 50), 100, 1000, 4000])
def test_how_much_of_a_frame_is_held_is_known(end):
    for data in (GOLDEN, GOLDEN_BUFFERS):
        if end >= len(data):
            continue
        for step in (1, 10 ** 9):
            parser = make()
            assert fed(parser, data[:end], step) == []
            assert parser.held == end
    assert make().held == 0
    assert str(EndOfStream(5)) == "the stream ended after 5 bytes of a frame"


@each("data", [
    b"\xff" * 12, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
    b"SSH-2.0-OpenSSH\r\n", b"\xabnet\x01\0\0\x1c{\"fea", b"eyJjb25uZWN0",
    b"\x01\x02" + bytes(10), b"\x01\x80\0\0\0\0\0\0\0\0\0\x02[]", b"\x01\xff" + bytes(10),
], ids=repr)
def test_what_starts_no_frame_is_refused_with_all_that_came(data):
    for step in (1, 10 ** 9):
        parser = make()
        with pytest.raises(NotAFrame) as caught:
            fed(parser, data, step)
        assert data.startswith(caught.value.data) and len(caught.value.data) >= HEAD
        assert isinstance(caught.value, ProtocolError)


def test_what_starts_no_frame_is_shown_without_the_frames_before():
    parser = make()
    assert parser.receive(GOLDEN + b"GET / HTTP/1.1\r\n") is not None
    with pytest.raises(NotAFrame) as caught:
        parser.receive(b"")
    assert caught.value.data == b"GET / HTTP/1.1\r\n"


def test_a_kind_that_may_not_come_here_is_refused():
    for kinds in (frozenset((CALL,)), frames.REPLIES):
        for kind in (*KINDS, 0, 5, 15, 16, 255):
            parser = make(kinds=kinds)
            if kind in kinds:
                assert parser.receive(b"".join(pack(kind, 1, b"[]"))).kind == kind
            else:
                with pytest.raises(ProtocolError, match=f"kind {kind} may not come now"):
                    parser.receive(b"".join(pack(kind, 1, b"[]")))


def test_a_subclass_says_what_becomes_of_other_kinds():
    class Counting(FrameParser):
        def other(self, frame: Frame) -> Any:
            return "other", frame.kind

    parser = Counting(Limits(), frozenset((CALL,)))
    data = on_the_wire(FRAMES[0]) + on_the_wire(FRAMES[1])
    assert [frame[0] for frame in (parser.receive(data), parser.receive(b""))] == [CALL, "other"]
    (whole, size) = b"", 2 * CHUNK
    assert parser.receive(frames.HEADER.pack(RESULT, 0, 0, 1, size)) is None
    assert parser.missing == (whole, size)
    assert parser.fill(bytes(size)) == ("other", RESULT)
    # ... and a plain one after it is given as it is.
    assert parser.receive(on_the_wire(FRAMES[0])) == FRAMES[0]


def test_text_up_to_the_limit_is_taken_and_one_byte_more_is_not():
    assert make(100, 0).receive(pack(CALL, 1, b"x" * 100)[0]).text == b"x" * 100
    with pytest.raises(MessageTooLarge, match="NET_MAX_TEXT") as caught:
        make(100, 0).receive(pack(CALL, 1, b"x" * 101)[0][:20])
    assert (caught.value.size, caught.value.limit) == (101, 100)
    with pytest.raises(MessageTooLarge):
        make(100, 0).receive(pack(CALL, 1, b"x" * 101)[0])


def test_buffers_up_to_the_limit_are_taken_and_one_byte_more_is_not():
    def data(*lengths: int) -> bytes:
        return b"".join(pack(CALL, 1, b"1", True, [bytes(length) for length in lengths]))

    assert len(make(10, 100).receive(data(60, 40)).buffers) == 2
    with pytest.raises(MessageTooLarge, match="NET_MAX_BUFFERS") as caught:
        make(10, 100).receive(data(60, 41))
    assert (caught.value.size, caught.value.limit) == (101, 100)


@each("lengths", [[2 ** 63], [2 ** 64 - 1], [2 ** 64 - 1] * 3, [MIB + 1],
                  [MIB, 1]])
def test_forged_lengths_are_refused_before_anything_of_them_has_come(lengths):
    head = frames.HEADER.pack(CALL, TAGGED, len(lengths), 1, 1) + \
        b"".join(frames.LENGTH.pack(length) for length in lengths)
    for step in (1, 10 ** 9):
        with pytest.raises(MessageTooLarge):
            fed(make(), head, step)


def test_a_declared_text_of_four_gib_is_refused_at_its_header():
    head = frames.HEADER.pack(CALL, 0, 0, 1, 0xffffffff)
    for step in (1, 10 ** 9):
        parser = make(16 * MIB)
        with pytest.raises(MessageTooLarge):
            fed(parser, head, step)


def test_what_was_declared_takes_no_memory_before_it_comes(monkeypatch):
    parser = make(512 * MIB, 512 * MIB)
    with Peak() as peak:
        parser.receive(frames.HEADER.pack(CALL, 0, 0, 1, 256 * MIB) + b"x")
    assert peak.bytes < MIB
    assert parser.missing == (b"x", 256 * MIB)


def test_as_many_buffers_as_the_header_can_say():
    buffers = (b"ab",) * MAX_BUFFERS
    data = b"".join(pack(RESULT, 1, b"1", True, buffers))
    for step in (5000, 200_000, 10 ** 9):
        (frame,) = fed(make(), data, step)
        assert frame.buffers == buffers


def test_a_small_frame_is_not_waited_for_in_one_object():
    parser = make()
    parser.receive(GOLDEN[:20])
    assert parser.missing is None and parser.held == 20
    assert parser.receive(GOLDEN[20:]).text == GOLDEN[12:]


def test_a_large_buffer_is_one_object_that_is_not_copied():
    data = os.urandom(3 * CHUNK)
    parser = make()
    assert parser.receive(pack(RESULT, 1, b"1", True, [data])[0] + data[:5]) is None
    assert parser.missing == (data[:5], 3 * CHUNK)
    frame = parser.fill(data)
    assert frame.buffers[0] is data and frame.text == b"1"
    # The parts of a frame that came at once are bytes as well.
    frame = make().receive(b"".join(pack(RESULT, 1, b"1", True, [data])))
    assert type(frame.text) is bytes and type(frame.buffers[0]) is bytes


def test_a_large_frame_of_an_unknown_kind_is_refused_before_it_comes():
    parser = make()
    with pytest.raises(ProtocolError, match="a large frame of the unknown kind 99"):
        parser.receive(frames.HEADER.pack(99, 0, 0, 1, CHUNK + 1))
