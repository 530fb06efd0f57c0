"""The blocking reader: what it asks a stream for, and what it makes of the end."""
from __future__ import annotations

import io
import os
from typing import Any, List

import pytest

from net.errors import MessageTooLarge
from net.link.streams import AT_ONCE, fill
from net.run.reading import next_event, rest_of_event
from net.wire import frames
from net.wire.frames import CALL, CHUNK, EndOfStream, FIRST, TAGGED, pack
from net.wire.limits import Limits
from net.wire.session import Session, server_session
from each import each

MIB = 2 ** 20


class Stream:
    """A stream that gives what it has in pieces of at most ``step`` bytes.

    :ivar asked: how much each receive has asked for.
    """

    def __init__(self, data: bytes, step: int = 10 ** 9) -> None:
        self._file = io.BytesIO(data)
        self._step = step
        self.asked: List[int] = []

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        return self._file.read(min(size, self._step))

    def recv_first(self) -> bytes:
        return self.recv(FIRST)

    def recv_into(self, view: Any) -> int:
        self.asked.append(len(view))
        data = self._file.read(min(len(view), self._step))
        view[:len(data)] = data
        return len(data)

    def recv_exactly(self, size: int, prefix: bytes = b"") -> bytes:
        return fill(self.recv_into, size, prefix)


def session() -> Session:
    return server_session(Limits(MIB, MIB))


def message(number: int, size: int, *buffers: bytes) -> bytes:
    return b"".join(pack(CALL, number, b"x" * size, bool(buffers), buffers))


SEVERAL = [message(1, 5), message(2, 300, b"", b"abc"), message(3, CHUNK + 5),
           message(4, 1, os.urandom(CHUNK * 2), b"z", os.urandom(CHUNK - 1)),
           message(5, CHUNK * 3, b"v" * (CHUNK * 3), b""), message(6, 0)]


@each("step", [7, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 10 ** 9])
def test_events_survive_any_split(step):
    one, stream = session(), Stream(b"".join(SEVERAL), step)
    for number, data in enumerate(SEVERAL, 1):
        event: Any = next_event(stream, one)
        assert event.number == number
        assert b"".join(pack(CALL, number, event.text, event.tagged, event.buffers)) == data
        assert all(type(buffer) is bytes for buffer in event.buffers)
    assert one.held == 0


def test_a_small_frame_takes_one_receive():
    stream = Stream(SEVERAL[0])
    next_event(stream, session())
    assert stream.asked == [FIRST]


def test_what_was_received_before_is_given_without_a_receive():
    one, stream = session(), Stream(SEVERAL[0] * 3)
    for _ in range(3):
        next_event(stream, one)
    assert stream.asked == [FIRST]


def test_all_of_a_large_part_is_asked_for_at_once():
    data = message(1, 5, bytes(MIB))
    stream = Stream(data)
    event: Any = next_event(stream, session())
    assert len(event.buffers[0]) == MIB
    if AT_ONCE >= len(data):
        assert stream.asked == [FIRST, len(data) - FIRST]
    else:  # this Python would take the memory of a length that was only declared
        assert max(stream.asked) <= AT_ONCE and len(stream.asked) <= len(data) // AT_ONCE + 2


@each("end", [*range(1, 40), 100, 1000, 4000, CHUNK, 2 * CHUNK])
def test_the_end_within_a_frame_is_told_from_the_end_before_one(end):
    for data in SEVERAL:
        if end >= len(data):
            continue
        for step in (1, 10 ** 9) if end < 5000 else (10 ** 9,):
            with pytest.raises(EndOfStream) as caught:
                next_event(Stream(data[:end], step), session())
            assert caught.value.received > 0
    with pytest.raises(EndOfStream) as caught:
        next_event(Stream(b""), session())
    assert caught.value.received == 0


@each("lengths", [[2 ** 63], [2 ** 64 - 1] * 3, [MIB + 1], [MIB, 1]])
def test_forged_lengths_ask_for_no_memory(lengths):
    head = frames.HEADER.pack(CALL, TAGGED, len(lengths), 1, 1) + \
        b"".join(frames.LENGTH.pack(length) for length in lengths) + b"1"
    stream = Stream(head + b"x" * 100)
    with pytest.raises(MessageTooLarge):
        next_event(stream, session())
    assert max(stream.asked) <= CHUNK


def test_what_a_receive_raises_goes_on_to_the_caller_and_nothing_is_lost():
    pieces: List[Any] = [SEVERAL[0][:1], InterruptedError(), SEVERAL[0][1:]]

    class Interrupted(Stream):
        def recv(self, size: int) -> bytes:
            piece = pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            return piece

    one, stream = session(), Interrupted(b"")
    with pytest.raises(InterruptedError):
        next_event(stream, one)
    assert rest_of_event(stream, one).number == 1
