"""Streams on a pair of connected sockets."""
from __future__ import annotations

import os
import socket
import threading
import time
from typing import Iterator, Tuple

import pytest

from net.link.base import Deadline
from net.link.streams import LEAST, SHORT, Stream, Timed, fill, gathered
from net.wire.frames import FIRST, EndOfStream
from memory import Peak
from times import patience


@pytest.fixture
def ends() -> Iterator[Tuple[Stream, socket.socket]]:
    """A stream, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    yield Stream(ours), theirs
    ours.close()
    theirs.close()


def test_pieces_arrive_one_after_the_other_whatever_they_are_made_of(ends):
    stream, theirs = ends
    stream.send([b"one ", bytearray(b"two "), memoryview(b"three"), b""])
    assert theirs.recv(100) == b"one two three"


def test_nothing_is_sent_for_no_pieces_and_what_is_full_takes_no_more(ends):
    stream, theirs = ends
    stream.send([])
    assert stream.is_writable() and not Stream(theirs).is_readable()
    stream.sock.setblocking(False)
    try:
        while True:
            stream.sock.send(b"x" * 4096)
    except BlockingIOError:
        pass
    assert not stream.is_writable()


@pytest.mark.parametrize("prefix", [0, 1, 100_000, 3_000_000])
def test_exactly_as_many_bytes_are_received_as_are_asked_for(ends, prefix):
    stream, theirs = ends
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=theirs.sendall, args=(data[prefix:] + b"rest",))
    sender.start()
    assert stream.recv_exactly(len(data), data[:prefix]) == data
    assert stream.recv(10) == b"rest"
    sender.join()


def test_a_large_object_is_received_in_the_memory_of_one(ends):
    stream, theirs = ends
    size = 30_000_000
    sender = threading.Thread(target=theirs.sendall, args=(bytes(size),))
    sender.start()
    with Peak() as peak:
        received = stream.recv_exactly(size, b"\0" * 10)
    sender.join()
    assert len(received) == size
    assert peak.bytes < 1.1 * size


def test_room_for_what_is_long_is_made_when_a_part_of_it_has_come():
    """Address space may be limited, and counts whether it is used or not."""
    size, asked = 64 * 2 ** 20, []

    def nothing(view):
        asked.append(len(view))
        return 0

    with pytest.raises(EndOfStream):
        fill(nothing, size, b"x" * 1000)
    assert max(asked) <= size // 16
    came = [0]

    def all_of_it(view):
        came[0] += len(view)
        return len(view)

    assert len(fill(all_of_it, size, b"x" * 1000)) == size
    assert came[0] == size - 1000


def test_less_than_was_asked_for_is_the_end_of_the_stream(ends):
    stream, theirs = ends
    theirs.sendall(b"abc")
    theirs.close()
    with pytest.raises(EndOfStream) as caught:
        stream.recv_exactly(10, b"12")
    assert caught.value.received


def test_a_stream_is_readable_when_something_came_or_it_ended(ends):
    stream, theirs = ends
    assert not stream.is_readable()
    theirs.sendall(b"x")
    assert stream.is_readable()
    assert stream.recv(10) == b"x"
    assert not stream.is_readable()
    theirs.close()
    assert stream.is_readable()
    assert stream.recv(10) == b""


def test_an_aborted_stream_lets_its_reader_go_on(ends):
    stream, _ = ends
    received = []
    reader = threading.Thread(target=lambda: received.append(stream.recv(10)))
    reader.start()
    stream.abort()
    reader.join(timeout=patience(5))
    assert received == [b""]
    stream.abort()
    stream.close()
    stream.abort()


def test_sending_to_a_peer_that_has_gone_is_an_error_and_no_signal(ends):
    stream, theirs = ends
    theirs.close()
    with pytest.raises(OSError):
        for _ in range(3):
            stream.send([b"x"])


def test_nothing_that_comes_is_a_timeout_at_the_deadline(ends):
    stream, _ = ends
    start = time.monotonic()
    timed = Timed(stream, Deadline(0.05))
    with pytest.raises(socket.timeout):
        timed.recv(10)
    assert 0.04 <= time.monotonic() - start < patience(1)


def test_bytes_that_drip_do_not_move_the_deadline(ends):
    stream, theirs = ends
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            theirs.sendall(b"x")

    dripper = threading.Thread(target=drip)
    dripper.start()
    start = time.monotonic()
    timed = Timed(stream, Deadline(0.2))
    with pytest.raises(socket.timeout):
        timed.recv_exactly(1000)
    assert 0.19 <= time.monotonic() - start < patience(10)
    stop.set()
    dripper.join()


def test_a_reader_that_takes_little_does_not_move_the_deadline_of_the_sender(ends):
    stream, theirs = ends
    stop = threading.Event()

    def take() -> None:
        while not stop.wait(0.02):
            theirs.recv(20_000)

    taker = threading.Thread(target=take)
    taker.start()
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        Timed(stream, Deadline(0.2)).send([bytes(100_000)] * 1000)
    assert 0.19 <= time.monotonic() - start < patience(10)
    stop.set()
    taker.join()


def test_a_timed_stream_carries_everything_in_time(ends):
    stream, theirs = ends
    data = os.urandom(3_000_000)
    received = bytearray()

    def take() -> None:
        while len(received) < len(data) + 4:
            received.extend(theirs.recv(100_000))

    taker = threading.Thread(target=take)
    taker.start()
    Timed(stream, Deadline(patience(10))).send([b"head", data])
    taker.join()
    assert received == b"head" + data


def test_what_a_non_blocking_stream_cannot_do_now_it_says(ends):
    stream, theirs = ends
    stream.sock.setblocking(False)
    assert stream.recv_some(10) is None
    theirs.sendall(b"x")
    assert stream.recv_some(10) == b"x"
    sent = 0
    while True:
        count = stream.send_some(bytes(100_000))
        if not count:
            break
        sent += count
    assert sent > 0
    theirs.close()
    with pytest.raises(OSError):
        stream.send_some(b"x")


@pytest.mark.parametrize("timed", [False, True])
def test_short_messages_that_follow_each_other_come_whole_in_one_receive(ends, timed):
    stream, other = ends
    reader = Timed(stream, Deadline(patience(5))) if timed else stream
    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 ** 20)

    def first_of(size: int) -> int:
        other.sendall(bytes(size))
        found = reader.recv_first()
        rest = reader.recv_exactly(size, found) if len(found) < size else found
        assert len(rest) == size
        return len(found)

    assert [first_of(size) for size in (10, 5_000, 10, 5_000)] == [10, LEAST, 10, 5_000]
    assert [first_of(size) for size in (10, 30_000, 30_000, 60_000, 10, 30_000)] == \
        [10, FIRST, 30_000, 60_000, 10, FIRST]
    # What is long comes in pieces in any case.
    assert first_of(SHORT + 1) == SHORT and first_of(SHORT + 1) == FIRST


def test_pieces_that_the_other_side_receives_at_once_leave_in_one():
    """The first of several would wake it up for nothing."""
    head, rest = b"head", bytes(SHORT - 4)
    assert gathered([head, rest]) == (head + rest,)
    longer = [head, rest + b"x"]
    assert gathered(longer) is longer
