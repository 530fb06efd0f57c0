"""Frames: cut out of a stream whole, byte by byte, and with bytes of the next behind."""
from __future__ import annotations

import io
import os
from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.errors import MessageTooLarge, ProtocolError
from net.wire import frames
from net.wire.frames import (CALL, CHUNK, EndOfStream, FAILURE, FLAG, Frame, FrameReader,
                             MAX_BUFFERS, NotAFrame, PREFACE, RESULT, TAGGED, pack)

KINDS = frozenset((CALL, RESULT, FAILURE, FLAG))
MIB = 2 ** 20


class Stream:
    """A stream that gives what it has in pieces of at most ``step`` bytes."""

    def __init__(self, data: bytes, step: int = 10 ** 9) -> None:
        self._file = io.BytesIO(data)
        self._step = step
        self.asked: List[int] = []

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        return self._file.read(min(size, self._step))

    def recv_into(self, view: Any) -> int:
        self.asked.append(len(view))
        data = self._file.read(min(len(view), self._step))
        view[:len(data)] = data
        return len(data)


def reader(data: bytes, step: int = 10 ** 9, limits: tuple = (MIB, MIB), kinds: frozenset = KINDS,
           waiting: Any = lambda: None) -> FrameReader:
    stream = Stream(data, step)
    return FrameReader(stream.recv, stream.recv_into, kinds, limits, waiting)


def all_frames(data: bytes, step: int = 10 ** 9) -> Iterator[Frame]:
    source = reader(data, step)
    while True:
        try:
            frame = source.frame()
        except EndOfStream as end:
            assert end.received == 0
            return
        yield frame._replace(buffers=tuple(frame.buffers))


def on_the_wire(frame: Frame) -> bytes:
    head = pack(frame.kind, frame.text, frame.buffers, frame.tagged)
    return head + b"".join(frame.buffers)


# A call with args 1 and 2, and the result (1, b"x" * 4096).
GOLDEN = bytes.fromhex("01000000 00000036") + \
    b'{"connection":"bXVsdGlwbHk=","args":[1,2],"kwargs":{}}'
GOLDEN_BUFFERS = bytes.fromhex("02010001 0000001b 0000000000001000") + \
    b'{"!tuple":[1,{"!bytes":0}]}' + b"x" * 4096

FRAMES = [
    Frame(CALL, False, b"[]"),
    Frame(RESULT, True, b'{"!bytes":0}', (b"abc",)),
    Frame(FAILURE, False, b""),
    Frame(FLAG, True, b"x" * 300, (b"", b"a" * 9, b"")),
    Frame(RESULT, False, b"y" * (CHUNK + 5)),
    Frame(RESULT, True, b"1", (os.urandom(CHUNK * 2), b"z", os.urandom(CHUNK - 1))),
    Frame(CALL, True, b"2", tuple([b"q"] * 500)),
]
STREAM = b"".join(map(on_the_wire, FRAMES))


def test_the_preface_is_the_documented_one():
    assert PREFACE == b"\xabnet\x01\0\0\0"
    assert PREFACE[0] > 127  # no ASCII, and not how UTF-8 begins
    with pytest.raises(UnicodeDecodeError):
        PREFACE.decode()


def test_a_frame_looks_as_documented():
    assert pack(CALL, b"[1]") == b"\x01\0\0\0\0\0\0\x03[1]"
    assert pack(RESULT, b"[1]", [b"ab", b""], True) == \
        b"\x02\x01\0\x02\0\0\0\x03" + b"\0" * 7 + b"\x02" + b"\0" * 8 + b"[1]"
    assert on_the_wire(Frame(RESULT, True, GOLDEN_BUFFERS[16:43], (b"x" * 4096,))) == GOLDEN_BUFFERS
    assert pack(CALL, GOLDEN[8:]) == GOLDEN
    assert (CALL, RESULT, FAILURE, FLAG) == (1, 2, 3, 4)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 8, 9, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 10 ** 9])
def test_frames_survive_any_split(step):
    data = STREAM if step > 3 else b"".join(map(on_the_wire, FRAMES[:4]))
    wanted = FRAMES if step > 3 else FRAMES[:4]
    assert list(all_frames(data, step)) == wanted


@given(st.lists(st.builds(
    Frame, st.sampled_from(sorted(KINDS)), st.booleans(), st.binary(max_size=40),
    st.lists(st.binary(max_size=40), max_size=4).map(tuple)), max_size=4), st.integers(1, 50))
def test_any_frames_in_any_pieces_come_out_as_they_went_in(several, step):
    assert list(all_frames(b"".join(map(on_the_wire, several)), step)) == several


@pytest.mark.parametrize("frame", FRAMES[:4], ids=lambda frame: str(frame.kind))
def test_bytes_of_the_next_frame_stay_for_it(frame):
    data = on_the_wire(frame)
    for tail in (b"\x01", data[:5], data, b"\xff" * 20):
        source = reader(data + tail)
        assert tuple(source.frame().buffers) == frame.buffers
        assert source.rest == tail


@pytest.mark.parametrize("end", [*range(1, 40), 100, 1000, 4000])
def test_the_end_within_a_frame_is_told_from_the_end_before_one(end):
    for data in (GOLDEN, GOLDEN_BUFFERS):
        if end >= len(data):
            continue
        for step in (1, 10 ** 9):
            with pytest.raises(EndOfStream) as caught:
                reader(data[:end], step).frame()
            assert caught.value.received > 0
    with pytest.raises(EndOfStream) as caught:
        reader(b"").frame()
    assert caught.value.received == 0


@pytest.mark.parametrize("data", [
    b"\x00\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0", b"\xff" * 8, b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n", b"\xabnet\x01\0\0\0", b"eyJjb24=", b"{}",
    b"\x01\x02\0\0\0\0\0\0", b"\x01\x80\0\0\0\0\0\x02[]", b"\x01\xff\0\0\0\0\0\0",
], ids=repr)
def test_what_starts_no_frame_is_refused_with_all_that_came(data):
    for step in (1, 10 ** 9):
        with pytest.raises(NotAFrame) as caught:
            reader(data, step).frame()
        assert data.startswith(caught.value.data) and caught.value.data
    assert isinstance(caught.value, ProtocolError)


@pytest.mark.parametrize("first", [0, 2, 5, 255, ord("G"), ord("e"), 0xab])
def test_a_wrong_first_byte_is_refused_at_once(first):
    stream = Stream(bytes([first]))
    source = FrameReader(stream.recv, stream.recv_into, frozenset((CALL,)), (MIB, MIB))
    with pytest.raises(NotAFrame):
        source.frame()
    assert len(stream.asked) == 1


def test_a_kind_that_may_not_come_here_is_refused():
    for kinds in (frozenset((CALL,)), frames.REPLIES):
        for kind in KINDS:
            source = reader(pack(kind, b"[]"), kinds=kinds)
            if kind in kinds:
                assert source.frame().kind == kind
            else:
                with pytest.raises(NotAFrame):
                    source.frame()


def test_text_up_to_the_limit_is_taken_and_one_byte_more_is_not():
    assert reader(pack(CALL, b"x" * 100), limits=(100, 0)).frame().text == b"x" * 100
    stream = Stream(pack(CALL, b"x" * 101)[:20])
    source = FrameReader(stream.recv, stream.recv_into, KINDS, (100, 0))
    with pytest.raises(MessageTooLarge, match="NET_MAX_TEXT") as caught:
        source.frame()
    assert (caught.value.size, caught.value.limit) == (101, 100)
    assert len(stream.asked) == 1


def test_buffers_up_to_the_limit_are_taken_and_one_byte_more_is_not():
    def data(*lengths: int) -> bytes:
        buffers = [bytes(length) for length in lengths]
        return pack(CALL, b"1", buffers, True) + b"".join(buffers)

    assert len(reader(data(60, 40), limits=(10, 100)).frame().buffers) == 2
    with pytest.raises(MessageTooLarge, match="NET_MAX_BUFFERS") as caught:
        reader(data(60, 41), limits=(10, 100)).frame()
    assert (caught.value.size, caught.value.limit) == (101, 100)


@pytest.mark.parametrize("lengths", [[2 ** 63], [2 ** 64 - 1], [2 ** 64 - 1] * 3, [MIB + 1],
                                     [MIB, 1]])
def test_forged_lengths_ask_for_no_memory(lengths):
    head = frames.HEADER.pack(CALL, TAGGED, len(lengths), 1) + \
        b"".join(frames.LENGTH.pack(length) for length in lengths) + b"1"
    stream = Stream(head + b"x" * 100)
    with pytest.raises(MessageTooLarge):
        FrameReader(stream.recv, stream.recv_into, KINDS, (MIB, MIB)).frame()
    assert max(stream.asked) <= CHUNK


def test_a_declared_text_of_four_gib_asks_for_no_memory():
    stream = Stream(frames.HEADER.pack(CALL, 0, 0, 0xffffffff) + b"x")
    with pytest.raises(MessageTooLarge):
        FrameReader(stream.recv, stream.recv_into, KINDS, (16 * MIB, MIB)).frame()


def test_as_many_buffers_as_the_header_can_say():
    buffers = [b"ab"] * MAX_BUFFERS
    data = pack(RESULT, b"1", buffers, True) + b"".join(buffers)
    assert list(reader(data).frame().buffers) == buffers
    assert list(reader(data, step=5000).frame().buffers) == buffers


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(len(frame.text)))
def test_waiting_is_told_once_for_a_frame_in_pieces_and_never_for_a_whole_one(frame):
    data = on_the_wire(frame)
    for step in (1, 10, 10 ** 9):
        if step == 1 and len(data) > 5000:
            continue
        told: List[int] = []
        source = reader(data * 2, step, waiting=lambda: told.append(1))
        source.frame()
        assert len(told) == (0 if len(data) <= min(step, CHUNK) else 1)
        source.frame()
        assert len(told) <= 2


def test_an_empty_stream_is_not_told_as_waiting():
    told: List[int] = []
    with pytest.raises(EndOfStream):
        reader(b"", waiting=lambda: told.append(1)).frame()
    assert not told


def test_a_small_frame_takes_one_receive():
    stream = Stream(GOLDEN)
    FrameReader(stream.recv, stream.recv_into, KINDS, (MIB, MIB)).frame()
    assert stream.asked == [frames.FIRST]


def test_a_large_buffer_is_one_object_of_its_size():
    data = os.urandom(3 * CHUNK)
    frame = reader(pack(RESULT, b"1", [data], True) + data, step=10_000).frame()
    assert frame.buffers[0] == data and type(frame.buffers[0]) is bytes
    assert type(frame.text) is bytes


def test_measure_says_how_much_of_a_frame_is_still_to_come():
    for frame in FRAMES:
        data = on_the_wire(frame)
        for end in [*range(min(60, len(data))), len(data)]:
            needed = frames.measure(data[:end])
            assert end < needed <= len(data) or end == needed == len(data)
        assert frames.measure(data + b"more") == len(data)


def test_what_a_receive_raises_goes_on_to_the_caller():
    pieces = [b"\x01", InterruptedError(), b"\0\0\0\0\0\0\x02[]"]

    def recv(size: int) -> bytes:
        piece = pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    with pytest.raises(InterruptedError):
        FrameReader(recv, lambda view: 0, KINDS, (MIB, MIB)).frame()
