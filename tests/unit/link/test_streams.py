"""Streams and deadlines on a pair of connected sockets."""
from __future__ import annotations

import os
import socket
import threading
import time
from typing import Iterator, Tuple

import pytest

from net.link.streams import Deadline, LONGEST, Stream, Timed, host_port, tune


@pytest.fixture
def ends() -> Iterator[Tuple[Stream, socket.socket]]:
    """A stream, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    yield Stream(ours), theirs
    ours.close()
    theirs.close()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that monotonic() gives; set ``clock.now``."""
    class Clock:
        now = 1000.0
    monkeypatch.setattr("net.link.streams.monotonic", lambda: Clock.now)
    return Clock


def test_a_deadline_counts_down_from_when_it_was_made(clock):
    deadline = Deadline(5)
    assert deadline.remaining() == 5
    clock.now += 3
    assert deadline.remaining() == 2
    assert deadline.seconds == 5


@pytest.mark.parametrize("late", [0, 0.001, 100])
def test_a_deadline_that_has_passed_is_a_timeout(clock, late):
    deadline = Deadline(5)
    clock.now += 5 + late
    with pytest.raises(socket.timeout):
        deadline.remaining()


@pytest.mark.parametrize("seconds", [10.0 ** 7, 10.0 ** 12, float("inf")])
def test_a_socket_takes_what_remains_of_the_longest_deadline(ends, seconds):
    stream, _ = ends
    stream.sock.settimeout(Deadline(seconds).remaining())
    assert stream.sock.gettimeout() == LONGEST


def test_pieces_arrive_one_after_the_other_whatever_they_are_made_of(ends):
    stream, theirs = ends
    stream.send([b"one ", bytearray(b"two "), memoryview(b"three"), b""])
    assert theirs.recv(100) == b"one two three"


def test_a_buffer_is_filled_as_the_bytes_come(ends):
    stream, theirs = ends
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=theirs.sendall, args=(data,))
    sender.start()
    received = bytearray(len(data))
    count = 0
    with memoryview(received) as view:
        while count < len(data):
            count += stream.recv_into(view[count:])
    sender.join()
    assert received == data


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
    reader.join(timeout=5)
    assert received == [b""]
    stream.abort()
    stream.close()
    stream.abort()


def test_sending_to_who_has_gone_is_an_error_and_no_signal(ends):
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
    assert 0.04 <= time.monotonic() - start < 1


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
        while True:
            timed.recv_into(memoryview(bytearray(10)))
    assert 0.19 <= time.monotonic() - start < 1
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
    assert 0.19 <= time.monotonic() - start < 1
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
    Timed(stream, Deadline(10)).send([b"head", data])
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


def test_a_tcp_socket_is_tuned_for_small_messages_and_lost_hosts():
    with socket.socket() as sock:
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle, interval, count = (
                sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"))
            assert idle + interval * count <= 20  # seconds until a vanished host is noticed


@pytest.mark.parametrize("address, expected", [
    (("192.0.2.1", 80), ("192.0.2.1", 80)),
    (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
    (("fe80::1%eth0", 80, 0, 2), ("fe80::1", 80)),
    (("::1", 80, 0, 0), ("::1", 80)),
    ("/a/unix/socket", None),
    ("", None),
    ((), None),
])
def test_the_host_and_port_of_any_socket_address(address, expected):
    assert host_port(address) == expected
