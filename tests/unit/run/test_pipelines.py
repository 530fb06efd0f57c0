"""Requests one after the other on one connection, without waiting for the replies."""
from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Iterator, List, Tuple

import pytest

from net.errors import ProtocolError
from net.link.streams import Stream
from net.run import pipelines as module
from net.run.client import Connection
from net.run.pipelines import Pipeline, Pipelines
from net.run.reading import next_event
from net.wire.frames import CALL, CHUNK, EndOfStream, HEADER, NotAFrame, RESULT, pack
from net.wire.limits import Limits
from net.wire.messages import encode_call, encode_failure, encode_result
from net.wire.session import caller_session, encode_hello, server_session

LIMITS = Limits(text=100_000, buffers=10 ** 7)


@pytest.fixture
def ends() -> Iterator[Tuple[Pipeline, socket.socket]]:
    """A pipeline, and the socket of the peer that it leads to."""
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        theirs.settimeout(10)
        session = caller_session(LIMITS)
        hello = session.receive(b"".join(encode_hello("abc", LIMITS)))
        pipeline = Pipeline(Connection(("127.0.0.1", 3010), Stream(ours), session, hello, 0),
                            "owner")
        stack.callback(pipeline.close)
        yield pipeline, theirs


@pytest.fixture
def pipelines() -> Iterator[Pipelines]:
    made = Pipelines()
    yield made
    made.close()


def call(number: int) -> List[bytes]:
    return encode_call(number, b"dGFn", (number,), {})


def test_requests_leave_at_once_and_replies_are_found_later(ends):
    pipeline, peer = ends
    for number in range(3):
        pipeline.send(call(number))
    assert not pipeline.writing
    assert peer.recv(CHUNK) == b"".join(b"".join(call(number)) for number in range(3))
    assert pipeline.replies() == []
    peer.sendall(b"".join(encode_result(0, 1)) + b"".join(encode_result(1, "two")))
    assert [(frame.number, frame.text) for frame in pipeline.replies()] == [
        (0, b"1"), (1, b'"two"')]


@pytest.mark.parametrize("step", [1, 7, 10 ** 6])
def test_replies_survive_any_split(ends, step):
    pipeline, peer = ends
    replies = [encode_result(1, None), encode_result(2, "x" * 9000),
               encode_failure(3, ValueError("no"))]
    data = b"".join(b"".join(reply) for reply in replies)
    found = []
    for start in range(0, len(data), step):
        peer.sendall(data[start:start + step])
        found += pipeline.replies()
    assert [frame.kind for frame in found] == [2, 2, 3]
    assert found[1].buffers == [b"x" * 9000]


def test_what_the_peer_does_not_take_waits_and_nobody_else_does(ends):
    pipeline, peer = ends
    message = pack(CALL, 1, b"{}", True, [b"x" * 5_000_000])
    began = time.monotonic()
    pipeline.send(message)
    assert pipeline.writing
    pipeline.send(message)
    assert time.monotonic() - began < 1.0
    session, stream = server_session(LIMITS), Stream(peer)
    frames = []
    receiving = threading.Thread(
        target=lambda: frames.extend(next_event(stream, session) for _ in range(2)))
    receiving.start()
    while pipeline.writing:
        pipeline.write()
    receiving.join(10)
    assert [frame.buffers for frame in frames] == [[b"x" * 5_000_000]] * 2


def test_the_end_of_the_connection_is_told(ends):
    pipeline, peer = ends
    peer.close()
    with pytest.raises(EndOfStream):
        pipeline.replies()


def test_what_is_no_reply_is_refused(ends):
    pipeline, peer = ends
    peer.sendall(b"HTTP/1.1 400")
    with pytest.raises(NotAFrame):
        pipeline.replies()


@pytest.mark.parametrize("kind", [CALL, 99])
def test_what_is_another_kind_of_frame_is_refused(ends, kind):
    pipeline, peer = ends
    peer.sendall(b"".join(pack(kind, 1, b"{}")))
    with pytest.raises(ProtocolError):
        pipeline.replies()


@pytest.mark.parametrize("size", [LIMITS.text + 1, 2 ** 31])
def test_a_reply_over_the_limits_is_refused_before_it_comes(ends, size):
    pipeline, peer = ends
    peer.sendall(HEADER.pack(RESULT, 0, 0, 1, size))
    with pytest.raises(ProtocolError, match="NET_MAX_TEXT"):
        pipeline.replies()


def test_a_reply_of_absurd_size_is_refused_before_it_has_come(ends, monkeypatch):
    pipeline, peer = ends
    monkeypatch.setattr(module, "MAX_REPLY", 1000)
    peer.sendall(b"".join(encode_result(1, "x" * 2000))[:1100])
    with pytest.raises(ProtocolError, match="a reply of more than 1,000 bytes"):
        pipeline.replies()


def test_a_request_to_a_peer_that_is_gone_is_an_error(ends):
    pipeline, peer = ends
    peer.close()
    with pytest.raises(OSError):
        for number in range(10):
            pipeline.send(call(number))


def test_waiting_ends_when_a_reply_comes(ends, pipelines):
    pipeline, peer = ends
    pipelines.add(pipeline)
    assert pipelines.wait(0, []) == []
    peer.sendall(b"x")
    assert pipelines.wait(10, []) == [pipeline]
    pipelines.remove(pipeline)
    assert pipelines.wait(0, []) == []


def test_waiting_ends_when_more_can_be_written(ends, pipelines):
    pipeline, peer = ends
    pipelines.add(pipeline)
    assert pipelines.wait(0, [pipeline]) == [pipeline]
    pipeline.send([b"x" * 5_000_000])
    assert pipelines.wait(0, [pipeline]) == []
    while pipeline.writing:
        peer.recv(CHUNK)
        pipelines.wait(0, [pipeline])
        pipeline.write()


def test_waiting_ends_when_it_is_woken(pipelines):
    for _ in range(3):
        pipelines.wake()
    assert pipelines.wait(10, []) == []
    timer = threading.Timer(0.05, pipelines.wake)
    timer.start()
    began = time.monotonic()
    assert pipelines.wait(10, []) == []
    assert time.monotonic() - began < 5
    timer.join()


def test_waking_what_is_closed_does_nothing():
    closed = Pipelines()
    closed.close()
    closed.wake()
