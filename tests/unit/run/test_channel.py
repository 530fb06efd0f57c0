"""Channels over pairs of sockets, and dialling over the carrier in memory."""
from __future__ import annotations

import errno
import logging
import queue
import select
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Iterator, List, Optional

import pytest

from net.errors import (AuthenticationError, MessageTooLarge, NetError, PeerBusy, PeerLost,
                        PeerUnreachable, ProtocolError)
from net.link.base import Endpoint
from net.link.memory import MemoryCarrier
from net.link.streams import Stream
from net.link.tcp import TcpCarrier
from net.run import channel as module
from net.run.channel import Channel, MAX_EVENTS, Receiver, dial
from net.run.loop import Loop
from net.wire.frames import (CALL, CHUNK, EVENT, FAILURE, Frame, NotAFrame, PUBLISHER_OPEN, RESULT,
                             SUBSCRIBER_OPEN, TAKEN, pack)
from net.wire.limits import Limits
from net.wire.messages import encode_refusal
from net.wire.session import (Hello, PrefaceParser, caller_session, encode_hello, encode_preface,
                              server_session)
from service import until
from times import patience

# Seconds that something may take which happens at once on an idle machine.
PATIENCE = patience(10)

NAME = "net-test-channel"
LIMITS = Limits(2 ** 20, 2 ** 26)
ADDRESS = ("studio", 3010)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop, whose thread ends once the test has closed its channels."""
    made = Loop(NAME)
    yield made
    until(lambda: NAME not in [one.name for one in threading.enumerate()], PATIENCE)


class Recorder(Receiver):
    """Puts what it hears into a queue, and does what a test adds to that."""

    def __init__(self) -> None:
        self.heard: queue.Queue[Any] = queue.Queue()
        self.on_event: Callable[[Channel, Any], object] = lambda channel, event: None

    def connected(self, channel: Channel) -> None:
        self.heard.put("connected")

    def received(self, channel: Channel, event: Any) -> None:
        self.heard.put(event)
        self.on_event(channel, event)

    def drained(self, channel: Channel) -> None:
        self.heard.put("drained")

    def ended(self, channel: Channel, problem: NetError) -> None:
        self.heard.put(problem)

    def next(self) -> Any:
        return self.heard.get(timeout=PATIENCE)

    def silent(self) -> bool:
        return self.heard.empty()


class Wire:
    """A channel of a publisher's role, and the bare stream at its other end."""

    def __init__(self, loop: Loop) -> None:
        ours, theirs = socket.socketpair()
        self.loop = loop
        self.recorder = Recorder()
        self.other = Stream(theirs)
        self.session = server_session(LIMITS, PUBLISHER_OPEN)
        self.channel = Channel(loop, Stream(ours), self.session, self.recorder, ADDRESS)

    def run(self, function: Callable[[], Any]) -> Any:
        return run(self.loop, function)

    def close(self) -> None:
        run(self.loop, self.channel.close)
        self.other.close()


@pytest.fixture
def wire(loop) -> Iterator[Wire]:
    made = Wire(loop)
    yield made
    made.close()


def run(loop: Loop, function: Callable[[], Any]) -> Any:
    """What a function gives in the thread of the loop."""
    results: queue.Queue[Any] = queue.Queue()

    def call() -> None:
        try:
            results.put((function(), None))
        except Exception as problem:
            results.put((None, problem))

    loop.call_soon(call)
    value, problem = results.get(timeout=PATIENCE)
    if problem is not None:
        raise problem
    return value


def taken(number: int, text: bytes = b"{}") -> bytes:
    return b"".join(bytes(piece) for piece in pack(TAKEN, number, text))


# ------------------------------------------------------------------ receiving

def test_events_come_in_order_however_their_bytes_arrive(wire):
    data = b"".join(taken(number, b"x" * number) for number in range(1, 40))
    for start in range(0, len(data), 7):
        wire.other.send([data[start:start + 7]])
    for number in range(1, 40):
        assert wire.recorder.next()[:4] == (TAKEN, number, False, b"x" * number)


def test_what_the_session_had_received_already_comes_first(loop):
    ours, theirs = socket.socketpair()
    session = server_session(LIMITS, PUBLISHER_OPEN)
    assert session.receive(taken(1) + taken(2)) is not None
    recorder = Recorder()
    theirs.sendall(taken(3))
    channel = Channel(loop, Stream(ours), session, recorder)
    assert [recorder.next().number for _ in range(2)] == [2, 3]
    run(loop, channel.close)
    theirs.close()


def test_a_large_message_is_received_over_many_turns(wire):
    whole = b"y" * 5_000_000
    sender = threading.Thread(target=wire.other.send, args=(
        pack(TAKEN, 7, b"{}", False, [whole]),))
    sender.start()
    event = wire.recorder.next()
    assert event.number == 7 and event.buffers == [whole]
    sender.join()


def test_a_peer_that_floods_does_not_hold_up_another(loop):
    """In each turn it is given a bounded number of events, and then the others have theirs."""
    flood, other = Wire(loop), Wire(loop)
    order: List[Any] = []
    flood.recorder.on_event = lambda channel, event: order.append("flood")
    other.recorder.on_event = lambda channel, event: order.append("other")
    many = 5 * MAX_EVENTS
    loop_free = threading.Event()
    loop.call_soon(lambda: loop_free.wait(PATIENCE))
    flood.other.send([b"".join(taken(number) for number in range(1, many + 1))])
    other.other.send([taken(1)])
    loop_free.set()
    until(lambda: len(order) == many + 1, PATIENCE)
    assert order.index("other") <= 2 * MAX_EVENTS
    flood.close()
    other.close()


def test_while_it_is_paused_nothing_comes(wire):
    wire.other.send([taken(1)])
    assert wire.recorder.next().number == 1
    wire.run(wire.channel.pause)
    wire.other.send([taken(2)])
    wire.run(lambda: None)
    assert wire.recorder.silent()
    wire.run(wire.channel.resume)
    assert wire.recorder.next().number == 2


def test_a_receiver_can_pause_in_the_middle_of_what_came(wire):
    wire.recorder.on_event = lambda channel, event: channel.pause()
    wire.other.send([taken(1) + taken(2) + taken(3)])
    for number in (1, 2, 3):
        assert wire.recorder.next().number == number
        wire.run(lambda: None)
        assert wire.recorder.silent()
        wire.run(wire.channel.resume)


def test_a_receiver_can_pause_and_resume_within_an_event(wire):
    wire.recorder.on_event = lambda channel, event: (channel.pause(), channel.resume())
    wire.other.send([taken(1) + taken(2) + taken(3)])
    assert [wire.recorder.next().number for _ in range(3)] == [1, 2, 3]


def test_a_frame_of_an_unknown_kind_is_refused_and_the_connection_goes_on(wire):
    wire.other.send([*pack(77, 5, b"{}"), taken(6)])
    assert wire.recorder.next().number == 6
    refusal = caller_session(LIMITS, SUBSCRIBER_OPEN)
    refusal.receive(b"".join(encode_hello("instance", LIMITS)))
    event = refusal.receive(wire.other.recv(1000))
    assert event.kind == FAILURE and event.number == 5 and b"kind 77" in event.text


def test_a_peer_that_asks_for_the_unknown_and_takes_no_answers_is_cut_off(wire, monkeypatch):
    monkeypatch.setattr("net.run.channel.MAX_SENT", 2 ** 16)
    many = b"".join(b"".join(pack(77, number, b"{}")) for number in range(1, 1000))

    def ask() -> None:
        try:
            while True:
                wire.other.send([many])
        except OSError:
            pass

    asker = threading.Thread(target=ask)
    asker.start()
    problem = wire.recorder.next()
    assert isinstance(problem, ProtocolError) and "takes no answers" in problem.reason
    asker.join()


# ------------------------------------------------------------------ sending

def test_what_is_sent_arrives_in_order_small_and_large(wire):
    pieces = [b"a", b"b" * 100, b"c" * 3_000_000, b"d", b"", b"e" * 70_000]
    wire.run(lambda: [wire.channel.send([piece]) for piece in pieces])
    assert wire.other.recv_exactly(sum(map(len, pieces))) == b"".join(pieces)
    assert wire.recorder.next() == "drained"
    assert wire.run(lambda: wire.channel.queued) == 0


def test_small_pieces_leave_together(wire, monkeypatch):
    sent: List[int] = []
    send_some = Stream.send_some
    monkeypatch.setattr(Stream, "send_some", lambda stream, piece: (
        sent.append(len(piece)), send_some(stream, piece))[1])
    wire.run(lambda: wire.channel.send([b"x" * 10] * 50))
    assert sent == [500]
    wire.recorder.on_event = lambda channel, event: channel.send([b"x" * 10])
    wire.run(lambda: wire.channel.pause())
    wire.other.send([b"".join(taken(number) for number in range(1, 11))])
    wire.run(wire.channel.resume)
    assert wire.other.recv_exactly(600) == b"x" * 600
    assert sent == [500, 100]


def test_a_peer_that_does_not_read_fills_the_queue_and_not_the_loop(wire):
    wire.run(lambda: wire.channel.send([bytes(50_000_000)]))
    assert wire.run(lambda: wire.channel.queued) > 20_000_000
    wire.other.send([taken(1)])
    assert wire.recorder.next().number == 1
    wire.run(lambda: wire.channel.send([b"end"]))
    assert wire.other.recv_exactly(50_000_003)[-3:] == b"end"
    assert wire.recorder.next() == "drained"


def test_a_peer_that_takes_all_does_not_hold_up_another(wire, monkeypatch):
    """In each turn a bounded number of bytes is sent."""
    sent: List[int] = []
    monkeypatch.setattr(Stream, "send_some", lambda stream, piece: (
        sent.append(len(piece)), len(piece))[1])
    piece = bytes(module.MAX_SENT)
    assert wire.run(lambda: (wire.channel.send([piece] * 5), len(sent))[1]) == 1
    assert wire.recorder.next() == "drained"
    assert sent == [len(piece)] * 5


def test_a_paused_channel_still_sends(wire):
    wire.run(wire.channel.pause)
    wire.run(lambda: wire.channel.send([b"x" * 5_000_000]))
    assert len(wire.other.recv_exactly(5_000_000)) == 5_000_000


# ------------------------------------------------------------------ its end

def test_the_end_of_the_connection_is_reported_once_after_all_that_came(wire):
    wire.other.send([taken(1) + taken(2)])
    wire.other.close()
    assert [wire.recorder.next().number for _ in range(2)] == [1, 2]
    problem = wire.recorder.next()
    assert type(problem) is PeerLost and problem.address == ADDRESS
    assert problem.reason == "it closed the connection"
    assert wire.channel.closed
    wire.run(lambda: wire.channel.send([b"x"]))
    wire.run(wire.channel.resume)
    assert wire.recorder.silent()


def test_an_end_within_a_message_is_reported_as_such(wire):
    wire.other.send([taken(1)[:5]])
    wire.other.close()
    assert wire.recorder.next().reason == "it closed the connection within a message"


def test_closing_a_connection_is_reported_to_nobody_on_this_side(wire):
    wire.run(wire.channel.close)
    assert wire.other.recv(10) == b""
    wire.run(wire.channel.close)
    wire.run(lambda: None)
    assert wire.recorder.silent() and wire.channel.stream is None


def test_a_receiver_can_close_in_the_middle_of_what_came(wire):
    wire.recorder.on_event = lambda channel, event: (channel.send([b"last"]), channel.close())
    wire.other.send([taken(1) + taken(2)])
    assert wire.recorder.next().number == 1
    assert wire.other.recv(10) == b""  # what was queued is lost
    wire.run(lambda: None)
    assert wire.recorder.silent()


@pytest.mark.parametrize("sent, kind", [
    (b"HTTP/1.1 200 OK\r\n\r\n", ProtocolError),
    (b"".join(pack(RESULT, 1, b"1")), ProtocolError),
    (pack(TAKEN, 1, b"x" * (LIMITS.text + 1))[0], MessageTooLarge),
])
def test_a_peer_that_breaks_the_rules_is_the_end(wire, sent, kind):
    wire.other.send([taken(1) + sent])
    assert wire.recorder.next().number == 1
    problem = wire.recorder.next()
    assert isinstance(problem, kind)
    assert wire.other.recv(10) == b""


def test_a_receiver_that_raises_ends_its_channel_and_no_other(loop, caplog):
    wire, other = Wire(loop), Wire(loop)
    wire.recorder.on_event = lambda channel, event: 1 / 0
    with caplog.at_level(logging.ERROR, "net.run.channel"):
        wire.other.send([taken(1) + taken(2)])
        assert wire.recorder.next().number == 1
        problem = wire.recorder.next()
    assert type(problem) is PeerLost and "ZeroDivisionError" in problem.reason
    assert "ZeroDivisionError" in caplog.text
    other.other.send([taken(1)])
    assert other.recorder.next().number == 1
    wire.close()
    other.close()


def test_the_last_words_of_a_peer_are_heard_though_nothing_can_be_sent(wire):
    """As of one that refuses and closes, before it has read all of the request."""
    wire.run(wire.channel.pause)
    wire.other.send([taken(1)])
    wire.other.close()
    wire.run(lambda: [wire.channel.send([b"x"]) for _ in range(3)])
    wire.run(wire.channel.resume)
    assert wire.recorder.next().number == 1
    problem = wire.recorder.next()
    assert type(problem) is PeerLost and problem.reason == "it closed the connection"


def test_a_peer_that_reads_no_more_but_stays_is_lost_after_a_moment(wire, monkeypatch):
    monkeypatch.setattr(module, "LAST_WORDS_TIME", 0.05)
    wire.other.sock.shutdown(socket.SHUT_RD)
    wire.run(lambda: wire.channel.send([b"x"]))
    assert type(wire.recorder.next()) is PeerLost


def test_a_socket_that_other_code_has_closed_is_the_end(wire, monkeypatch):
    monkeypatch.setattr(module, "LAST_WORDS_TIME", 0.05)
    wire.run(lambda: wire.channel.stream.sock.close())
    wire.run(lambda: wire.channel.send([b"x"]))
    assert type(wire.recorder.next()) is PeerLost


# ------------------------------------------------------------------ dialling

class Far:
    """Something to dial: a listener in memory, served by the test."""

    def __init__(self, backlog: int = 5) -> None:
        self.carrier = MemoryCarrier()
        self.listener = self.carrier.listen(Endpoint("memory", "studio", 0), backlog)
        self._opened = ExitStack()
        self._opened.callback(self.listener.close)

    def accept(self) -> Stream:
        until(lambda: select.select([self.listener], [], [], 0)[0], PATIENCE)
        stream = Stream(self.listener.accept()[0])
        stream.sock.settimeout(PATIENCE)
        self._opened.callback(stream.close)
        return stream

    def greeted(self) -> Stream:
        """Accept, and read the preface."""
        stream = self.accept()
        self.read_preface(stream)
        return stream

    @staticmethod
    def read_preface(stream: Stream) -> None:
        parser = PrefaceParser()
        preface = None
        while preface is None:
            preface = parser.receive(stream.recv(1000))
        assert preface.group == "render" and parser.rest == b""

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.close()


class Dialed:
    def __init__(self, loop: Loop, far: Far, credentials: Any = None, timeout: float = PATIENCE,
                 endpoint: Optional[Endpoint] = None) -> None:
        self.recorder = Recorder()
        self.endpoint = endpoint or far.listener.endpoint
        self.channel = dial(loop, self.endpoint, lambda to: [encode_preface("render")],
                            caller_session(LIMITS, SUBSCRIBER_OPEN), self.recorder, credentials,
                            timeout, far.carrier)


def test_a_peer_is_dialled_greeted_and_talked_to(loop, far):
    dialed = Dialed(loop, far)
    assert dialed.recorder.next() == "connected"
    stream = far.greeted()
    stream.send(encode_hello("an instance", LIMITS))
    hello = dialed.recorder.next()
    assert type(hello) is Hello and hello.instance == "an instance"
    run(loop, lambda: dialed.channel.send(pack(CALL, 1, b"{}")))
    assert server_session(LIMITS).receive(stream.recv(1000)) == Frame(CALL, 1, False, b"{}")
    stream.send(pack(EVENT, 0, b"{}"))
    assert dialed.recorder.next().kind == EVENT
    stream.close()
    assert type(dialed.recorder.next()) is PeerLost


def test_once_it_is_greeted_a_channel_has_all_the_time(loop, far):
    dialed = Dialed(loop, far, timeout=0.2)
    stream = far.greeted()
    stream.send(encode_hello("an instance", LIMITS))
    assert [type(dialed.recorder.next()) for _ in range(2)] == [str, Hello]
    passed = threading.Event()
    loop.call_later(0.25, passed.set)
    assert passed.wait(PATIENCE)
    stream.send(pack(EVENT, 1, b"{}"))
    assert dialed.recorder.next().kind == EVENT
    run(loop, dialed.channel.close)


def test_a_greeting_that_comes_with_more_gives_it_all(loop, far):
    dialed = Dialed(loop, far)
    stream = far.greeted()
    stream.send([b"".join(encode_hello("an instance", LIMITS) + pack(EVENT, 1, b"{}"))])
    assert [type(dialed.recorder.next()) for _ in range(3)] == [str, Hello, Frame]
    run(loop, dialed.channel.close)


def test_where_nobody_listens_nothing_is_reached(loop, far):
    far.listener.close()
    problem = Dialed(loop, far).recorder.next()
    assert type(problem) is PeerUnreachable
    assert problem.address == far.listener.endpoint.address and problem.ran == "no"
    assert problem.__cause__.errno == errno.ECONNREFUSED


def test_a_refused_tcp_connection_is_reported_with_its_error(loop, far):
    far.carrier = TcpCarrier()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dialed = Dialed(loop, far, endpoint=Endpoint.of(closed.getsockname()))
        problem = dialed.recorder.next()
    assert type(problem) is PeerUnreachable and problem.__cause__.errno == errno.ECONNREFUSED


def test_a_peer_over_tcp_is_dialled_by_number_and_by_name(loop, far, monkeypatch):
    far.listener.close()
    far.carrier = TcpCarrier()
    far.listener = far.carrier.listen(Endpoint("tcp", "127.0.0.1", 0), 5)
    port = far.listener.endpoint.port
    for host in ("127.0.0.1", "localhost"):
        dialed = Dialed(loop, far, endpoint=Endpoint("tcp", host, port))
        assert dialed.recorder.next() == "connected"
        far.greeted().send(encode_hello("an instance", LIMITS))
        assert type(dialed.recorder.next()) is Hello
        run(loop, dialed.channel.close)
    far.listener.close()
    problem = Dialed(loop, far, endpoint=Endpoint("tcp", "localhost", port)).recorder.next()
    assert type(problem) is PeerUnreachable and problem.__cause__.errno == errno.ECONNREFUSED


def test_a_silent_listener_is_given_up_in_time(loop, far):
    start = time.monotonic()
    dialed = Dialed(loop, far, timeout=0.1)
    assert dialed.recorder.next() == "connected"
    problem = dialed.recorder.next()
    assert type(problem) is PeerUnreachable
    assert problem.reason == "it accepts connections, but did not answer within 0.1 s"
    assert 0.09 < time.monotonic() - start < PATIENCE
    assert far.greeted().recv(10) == b""


def test_a_full_queue_is_tried_again_until_it_is_too_late(loop):
    far = Far(backlog=1)
    first = Dialed(loop, far)
    assert first.recorder.next() == "connected"
    late, second = Dialed(loop, far, timeout=0.1), Dialed(loop, far)
    problem = late.recorder.next()
    assert type(problem) is PeerUnreachable and problem.reason == "no answer within 0.1 s"
    far.greeted()
    assert second.recorder.next() == "connected"
    for dialed in (first, second):
        run(loop, dialed.channel.close)
    far.close()


def test_a_refusal_arrives_as_its_error(loop, far):
    dialed = Dialed(loop, far)
    stream = far.greeted()
    stream.send(encode_refusal(0, PeerBusy(None, "64 connections are open there")))
    assert dialed.recorder.next() == "connected"
    problem = dialed.recorder.next()
    assert type(problem) is PeerBusy and problem.address == dialed.endpoint.address
    assert stream.recv(10) == b""


def test_a_connection_closed_without_an_answer_is_no_peer_that_is_reached(loop, far):
    dialed = Dialed(loop, far)
    assert dialed.recorder.next() == "connected"
    far.greeted().close()
    problem = dialed.recorder.next()
    assert type(problem) is PeerUnreachable
    assert problem.reason == "it closed the connection without an answer"


def test_what_is_no_peer_is_reported_with_what_it_said(loop, far):
    dialed = Dialed(loop, far)
    assert dialed.recorder.next() == "connected"
    far.accept().send([b"SSH-2.0-OpenSSH\r\n"])
    problem = dialed.recorder.next()
    assert type(problem) is NotAFrame and problem.data == b"SSH-2.0-OpenSSH\r\n"


def test_a_peer_that_greets_wrongly_breaks_the_rules_at_an_address(loop, far):
    dialed = Dialed(loop, far)
    assert dialed.recorder.next() == "connected"
    far.greeted().send(pack(8, 0, b"no hello"))
    problem = dialed.recorder.next()
    assert isinstance(problem, ProtocolError) and problem.ran == "no"


def test_a_dialled_channel_can_be_closed_at_any_moment(loop, far):
    at_once = Dialed(loop, far)
    run(loop, at_once.channel.close)
    when_connected = Dialed(loop, far)
    while when_connected.recorder.next() != "connected":
        pass
    run(loop, when_connected.channel.close)
    assert far.accept().recv(1) in (b"", b"\xab")
    for dialed in (at_once, when_connected):
        assert dialed.recorder.silent() or dialed.recorder.next() == "connected"
        assert dialed.recorder.silent()


def test_a_receiver_may_close_when_it_hears_that_it_is_connected(loop, far):
    class Closes(Recorder):
        def connected(self, channel: Channel) -> None:
            channel.close()
            self.heard.put("closed")

    recorder = Closes()
    dial(loop, far.listener.endpoint, lambda to: [b"greeting"], caller_session(LIMITS), recorder,
         carrier=far.carrier)
    assert recorder.next() == "closed"
    assert far.accept().recv(10) == b""


def test_a_session_whose_answer_ends_with_the_connection_is_told_of_the_end(loop, far):
    """As that of the old dialect is."""
    class Old:
        data = b""

        def receive(self, data: bytes) -> Optional[bytes]:
            self.data += data
            return None if data else self.data

    recorder = Recorder()
    recorder.on_event = lambda channel, event: channel.close()
    dial(loop, far.listener.endpoint, lambda to: [b"request"], Old(), recorder,
         carrier=far.carrier)
    stream = far.accept()
    assert stream.recv(10) == b"request"
    stream.send([b"SU5WQUxJ"])
    stream.send([b"RA=="])
    stream.close()
    assert recorder.next() == "connected"
    assert recorder.next() == b"SU5WQUxJRA=="
    assert recorder.silent()


def test_many_are_dialled_at_once(loop):
    far = Far(backlog=400)
    dialed = [Dialed(loop, far) for _ in range(300)]
    for _ in dialed:
        far.greeted().send(encode_hello("an instance", LIMITS))
    for one in dialed:
        assert one.recorder.next() == "connected"
        assert type(one.recorder.next()) is Hello
    run(loop, lambda: [one.channel.close() for one in dialed])
    far.close()


# ------------------------------------------------------------------ TLS

@pytest.fixture(scope="module")
def credentials(tmp_path_factory) -> Any:
    from certificates import Authority  # skips where its library is missing
    from net.link import tls

    authority = Authority(tmp_path_factory.mktemp("authority"))
    return tls.from_files(*authority.issue("peer", (tls.PEER_NAME,)))


@pytest.fixture(scope="module")
def other_credentials(tmp_path_factory) -> Any:
    from certificates import Authority
    from net.link import tls

    authority = Authority(tmp_path_factory.mktemp("other"), "other")
    return tls.from_files(*authority.issue("peer", (tls.PEER_NAME,)))


def secured(far: Far, credentials: Any) -> Stream:
    """Accept, shake hands and read the preface."""
    from net.link import tls

    stream = far.accept()
    secured = tls.accept(stream, credentials, None, stream.recv(65536))
    far.read_preface(secured)
    return secured


def test_a_secured_peer_is_dialled_and_talked_to(loop, far, credentials):
    dialed = Dialed(loop, far, credentials)
    stream = secured(far, credentials)
    # More than one record, and more than one turn takes.
    stream.send(encode_hello("an instance", LIMITS) + pack(EVENT, 1, b"{}", False, [bytes(10 ** 6)])
                + pack(EVENT, 2, b"{}"))
    heard = [dialed.recorder.next() for _ in range(4)]
    assert [type(one) for one in heard] == [str, Hello, Frame, Frame]
    assert heard[2].buffers == [bytes(10 ** 6)] and heard[3].number == 2
    reader = threading.Thread(target=lambda: stream.recv_exactly(3_000_000))
    reader.start()
    run(loop, lambda: dialed.channel.send([bytes(3_000_000)]))
    reader.join(PATIENCE)
    assert not reader.is_alive()
    stream.close()
    while not isinstance(dialed.recorder.next(), PeerLost):
        pass


def test_many_events_in_one_record_are_all_given(loop, far, credentials):
    dialed = Dialed(loop, far, credentials)
    stream = secured(far, credentials)
    many = 5 * MAX_EVENTS
    stream.send([b"".join(encode_hello("an instance", LIMITS)) + b"".join(
        b"".join(pack(EVENT, number, b"{}")) for number in range(1, many + 1))])
    assert dialed.recorder.next() == "connected"
    assert type(dialed.recorder.next()) is Hello
    assert [dialed.recorder.next().number for _ in range(many)] == list(range(1, many + 1))
    run(loop, dialed.channel.close)


def test_many_records_that_come_at_once_are_all_given(loop, far, credentials):
    """Though no selector knows of those that were received with the first."""
    dialed = Dialed(loop, far, credentials)
    stream = secured(far, credentials)
    stream.send(encode_hello("an instance", LIMITS))
    assert [type(dialed.recorder.next()) for _ in range(2)] == [str, Hello]
    all_sent = threading.Event()
    loop.call_soon(lambda: all_sent.wait(PATIENCE))
    for number in range(50):
        stream.send(pack(EVENT, number, b"{}"))
    all_sent.set()
    assert [dialed.recorder.next().number for _ in range(50)] == list(range(50))
    run(loop, dialed.channel.close)


def test_a_peer_under_another_authority_is_no_peer(loop, far, credentials, other_credentials):
    dialed = Dialed(loop, far, credentials)
    with pytest.raises(AuthenticationError):
        secured(far, other_credentials)
    assert dialed.recorder.next() == "connected"
    assert type(dialed.recorder.next()) is AuthenticationError


def test_an_open_peer_is_no_secured_one(loop, far, credentials):
    dialed = Dialed(loop, far, credentials)
    stream = far.accept()
    assert stream.recv(CHUNK)  # all of it, or closing would reset the connection
    stream.close()
    assert dialed.recorder.next() == "connected"
    problem = dialed.recorder.next()
    assert type(problem) is AuthenticationError and "instead of speaking TLS" in problem.reason


@pytest.mark.parametrize("step", [3, 1000])
def test_a_secured_peer_without_room_says_so_in_the_clear(loop, far, credentials, step):
    dialed = Dialed(loop, far, credentials)
    stream = far.accept()
    data = b"".join(encode_refusal(0, PeerBusy(None, "64 connections are open there")))
    for start in range(0, len(data), step):
        stream.send([data[start:start + step]])
    assert dialed.recorder.next() == "connected"
    assert type(dialed.recorder.next()) is PeerBusy


def test_nothing_else_is_believed_in_the_clear(loop, far, credentials):
    for said in (encode_refusal(0, ProtocolError(None, "anything")), [b"\x03"],
                 encode_hello("an instance", LIMITS)):
        dialed = Dialed(loop, far, credentials)
        stream = far.accept()
        assert stream.recv(CHUNK)
        stream.send([b"".join(said)])
        stream.close()
        assert dialed.recorder.next() == "connected"
        assert type(dialed.recorder.next()) is AuthenticationError


def test_a_handshake_that_does_not_end_is_given_up_in_time(loop, far, credentials):
    dialed = Dialed(loop, far, credentials, timeout=0.1)
    assert dialed.recorder.next() == "connected"
    assert type(dialed.recorder.next()) is PeerUnreachable
