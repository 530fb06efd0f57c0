"""The client and its pool, against peers that are scripted byte by byte."""
from __future__ import annotations

import gc
import itertools
import socket
import sys
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest

import net
from net.context import Caller, Context, enter
from net.identity import make_tag
from net.link import local
from net.link.streams import Deadline, reset_at_end
from net.link.tcp import TcpCarrier
from net.run import client as module
from net.run.client import Client
from net.run.loop import Loop
from net.settings import settings
from net.wire import legacy
from net.wire.frames import (ASK, CALL, FAILURE, FLAG, HEADER, HELLO, MAX_NUMBER, PING, RESULT,
                             pack)
from net.wire.limits import Limits
from net.wire.messages import Call, encode_call, encode_refusal
from net.wire.session import encode_hello, encode_preface
from loops import end_timers
from service import until
import memory
from times import patience

TAG = make_tag("unit", "function")
#: The number of every request in these tests, unless one says otherwise.
NUMBER = 7
GREETING = b"".join(encode_hello("scripted", Limits()))


def frame(kind: int, text: bytes, number: int = NUMBER, **more: Any) -> bytes:
    return b"".join(pack(kind, number, text, **more))


FIVE = frame(RESULT, b"5")
GOODBYE = b"".join(encode_refusal(0, net.PeerBusy(None, "it ends")))


class ScriptedPeer:
    """A listener that says HELLO and then answers each request with the next of some replies.

    A reply is bytes to send, or a function of the connected socket. One that gives True, and the
    end of the replies, closes the connection.

    :ivar greetings: what prefaces are answered with, likewise; HELLO when it is empty.
    :ivar prefaces: what was received before each greeting.
    :ivar requests: what was received before each reply.
    :ivar connections: how many connections were made.
    """

    def __init__(self, listener: Optional[socket.socket] = None) -> None:
        self.greetings: List[Any] = []
        self.replies: List[Any] = []
        self.prefaces: List[bytes] = []
        self.requests: List[bytes] = []
        self.connections = 0
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        # Daemons: one that a failed test leaves behind does not keep the run from ending.
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._open: List[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                if self._answer(sock, self.prefaces, lambda: self.greetings or [GREETING]):
                    while self._answer(sock, self.requests, lambda: self.replies):
                        pass
            except OSError:
                pass

    @staticmethod
    def _answer(sock: socket.socket, received: List[bytes],
                replies: Callable[[], List[Any]]) -> bool:
        request = sock.recv(1_000_000)
        if not request or not replies():
            return False
        received.append(request)
        reply = replies().pop(0)
        if callable(reply):
            return not reply(sock)
        sock.sendall(reply)
        return True

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    scripted = ScriptedPeer()
    yield scripted
    scripted.close()


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop of a client end soon after its last connection."""
    monkeypatch.setattr(module, "LOOK_TIME", 0.05)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of the test's own, all of whose requests have one number."""
    made = Client(settings, Loop("net-test"))
    made._numbers = itertools.repeat(NUMBER)
    yield made
    made.close_idle()
    end_timers(made._loop)


@pytest.fixture
def call(client: Client, peer: ScriptedPeer) -> Callable[..., Any]:
    """Call a function of a peer, of the scripted one unless ``at`` names another."""
    def call(*args: Any, timeout: Optional[float] = None, at: Any = None) -> Any:
        return client.call(at or peer.address, TAG, args, {}, timeout)
    return call


@pytest.fixture
def pool(client: Client, peer: ScriptedPeer) -> module.Pool:
    """The connections to the scripted peer."""
    return client._find_pool(peer.address)


def sends(*pieces: bytes, close: bool = True, pause: float = 0.0) -> Callable[[Any], bool]:
    def reply(sock: socket.socket) -> bool:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        return close
    return reply


# --------------------------------------------------------------------------------- one connection

def test_a_connection_is_greeted_once_and_requests_follow(call, peer):
    peer.replies = [FIVE] * 3
    assert [call(1), call(2), call(3)] == [5, 5, 5]
    assert peer.connections == 1
    assert peer.prefaces == [encode_preface(settings.group)]
    assert peer.requests == [b"".join(encode_call(NUMBER, TAG, (number,), {}))
                             for number in (1, 2, 3)]


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
@pytest.mark.parametrize("lent, timeout", [((), None), ((), 30.0), ((print,), None)])
def test_what_was_sent_is_not_kept_while_its_call_runs(call, peer, lent, timeout):
    text, size = "x" * 2 ** 22, 2 ** 22

    def reply(sock: socket.socket) -> None:
        left = size - len(peer.requests.pop())
        while left > 0:
            left -= len(sock.recv(65536)) or left
        until(lambda: memory.in_use() < size // 2)
        sock.sendall(FIVE)

    peer.replies = [FIVE, reply]
    assert call() == 5
    with memory.Peak():
        assert call(text, *lent, timeout=timeout) == 5


def test_nothing_but_the_preface_is_sent_before_hello(call, peer):
    seen = []

    def wait_first(sock: socket.socket) -> bool:
        sock.settimeout(0.05)
        try:
            seen.append(sock.recv(1000))
        except socket.timeout:
            pass
        sock.settimeout(None)
        sock.sendall(GREETING)
        return False

    peer.greetings, peer.replies = [wait_first], [FIVE]
    assert call("x" * 5000) == 5
    assert not seen and len(peer.prefaces[0]) < 1024


def test_each_request_has_a_number_of_its_own(peer):
    client = Client(settings, Loop("net-test"))

    def answer(sock: socket.socket) -> bool:
        number = HEADER.unpack_from(peer.requests[-1])[3]
        sock.sendall(frame(RESULT, b"%d" % number, number))
        return False

    peer.replies = [answer] * 3
    numbers = [client.call(peer.address, TAG, (), {}) for _ in range(3)]
    assert len(set(numbers)) == 3 and 0 not in numbers
    client.close_idle()


def test_the_numbers_of_requests_begin_anew_when_they_are_used_up(monkeypatch):
    assert MAX_NUMBER == 2 ** 32 - 1
    monkeypatch.setattr(module, "MAX_NUMBER", 3)
    assert list(itertools.islice(module.numbers(), 7)) == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_hello_may_come_in_pieces(call, peer, size):
    pieces = [GREETING[start:start + size] for start in range(0, len(GREETING), size)]
    peer.greetings, peer.replies = [sends(*pieces, close=False)], [FIVE]
    assert call() == 5


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_reply_may_come_in_pieces(call, peer, size):
    reply = frame(RESULT, b'{"!tuple":[1,{"!bytes":0}]}', tagged=True, buffers=[b"z" * 5])
    pieces = [reply[start:start + size] for start in range(0, len(reply), size)]
    peer.replies = [sends(*pieces, close=False, pause=0.001), FIVE]
    assert call() == (1, b"z" * 5)
    assert call(timeout=patience(5)) == 5
    assert peer.connections == 1


def test_calls_one_after_the_other_take_one_connection_and_at_once_several(call, peer, pool):
    peer.replies = [FIVE] * 20
    for _ in range(4):
        assert call() == 5
    assert peer.connections == len(pool._idle) == 1
    both = threading.Barrier(2)

    def wait_for_the_other(sock: socket.socket) -> bool:
        both.wait(timeout=patience(5))
        sock.sendall(FIVE)
        return False

    peer.replies = [wait_for_the_other, wait_for_the_other]
    caller = threading.Thread(target=call)
    caller.start()
    assert call() == 5
    caller.join()
    assert peer.connections == len(pool._idle) == 2


# --------------------------------------------------- what is not in perfect order is never pooled

def test_a_connection_that_the_peer_closed_meanwhile_is_replaced_before_use(call, peer, pool):
    peer.replies = [sends(FIVE), FIVE]
    assert call() == 5
    until(lambda: pool._idle[0].stream.is_readable())
    assert call() == 5
    assert (peer.connections, len(peer.requests)) == (2, 2)


@pytest.mark.parametrize("tail", [b"x", FIVE, FIVE + b"x"])
def test_a_second_reply_is_given_to_nobody(call, peer, pool, tail):
    # Within the same bytes it is an error of that call; later, the connection is left.
    peer.replies = [FIVE + tail, FIVE, sends(FIVE, tail, close=False, pause=0.05), FIVE]
    with pytest.raises(net.ProtocolError) as caught:
        call()
    assert caught.value.ran == "maybe"
    assert call() == 5
    assert call() == 5
    until(lambda: pool._idle[0].stream.is_readable())
    assert call() == 5
    assert peer.connections == 3


def test_a_goodbye_behind_a_reply_ends_the_connection_and_not_the_call(call, peer):
    peer.replies = [FIVE + GOODBYE, FIVE]
    assert call() == 5
    assert call() == 5
    assert peer.connections == 2


def test_a_goodbye_in_place_of_a_reply_tells_that_nothing_ran(call, peer):
    peer.replies = [GOODBYE, FIVE]
    with pytest.raises(net.PeerBusy) as caught:
        call()
    assert caught.value.ran == "no"
    assert call() == 5
    assert peer.connections == 2


ASKED = frame(ASK, b'{"lent": 0, "items": null, "args": [], "kwargs": {}}')


def asks_and_leaves(sock: socket.socket) -> None:
    sock.sendall(ASKED)
    sock.recv(65536)
    sock.sendall(GOODBYE)


@pytest.mark.parametrize("lent, timeout", [((), None), ((), 30.0), ((print,), None)])
def test_a_goodbye_in_place_of_a_later_reply_has_another_connection_tried(
        call, peer, lent, timeout):
    peer.replies = [FIVE, GOODBYE, FIVE]
    assert call() == 5
    assert call(1, *lent, timeout=timeout) == 5
    assert peer.connections == 2
    assert peer.requests[1] == peer.requests[2] != peer.requests[0]


def test_a_peer_that_takes_no_request_over_any_connection_is_busy(call, peer):
    peer.replies = [FIVE, GOODBYE, GOODBYE, FIVE]
    assert call() == 5
    with pytest.raises(net.PeerBusy) as caught:
        call()
    assert (caught.value.ran, peer.connections) == ("no", 2)


@pytest.mark.parametrize("leave, args", [
    (b"".join(encode_refusal(0, net.MessageTooLarge("text", 5, 1, None))), ()),  # it is of no use
    (asks_and_leaves, (print,)),  # it has begun
    (GOODBYE, (b"x" * 100_000,)),  # it was not kept
], ids=["too large", "begun", "large"])
def test_no_other_request_is_sent_again(call, peer, leave, args):
    peer.replies = [FIVE, leave]
    assert call() == 5
    with pytest.raises(net.NetError):
        call(*args)
    assert peer.connections == 1


@pytest.fixture
def local_peer(peer: ScriptedPeer) -> Iterator[ScriptedPeer]:
    """What is reached in place of the scripted peer, because it is on this host."""
    if sys.platform != "linux":
        pytest.skip("no abstract Unix sockets here")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + local.endpoints_of(peer.address)[0].host[1:])
    listener.listen(5)
    scripted = ScriptedPeer(listener)
    yield scripted
    scripted.close()


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("leave", [b"", GOODBYE], ids=["silent", "with a goodbye"])
def test_a_process_of_this_host_that_has_gone_is_noticed_without_a_look(
        call, peer, local_peer, pool, leave, timeout):
    def answer_and_leave(sock: socket.socket) -> bool:
        sock.sendall(FIVE)
        until(lambda: pool._idle)
        sock.sendall(leave)
        return True

    local_peer.replies = [answer_and_leave, FIVE, FIVE]
    assert call() == 5
    connection, = pool._idle
    until(lambda: connection.stream.is_readable())
    looks: List[float] = []
    connection.stream.poll = lambda time: looks.append(time) or True
    assert call(1, timeout=timeout) == 5
    assert (local_peer.connections, peer.connections) == (2, 0)
    assert not looks and len(local_peer.requests) == 2


def test_before_a_large_request_a_look_tells_whether_a_process_has_gone(call, local_peer, pool):
    local_peer.replies = [sends(FIVE), lambda sock: sock.sendall(FIVE)]
    assert call() == 5
    until(lambda: pool._idle[0].stream.is_readable())
    assert call(b"x" * 100_000) == 5
    assert local_peer.connections == 2


@pytest.mark.parametrize("number", [0, NUMBER - 1, NUMBER + 1, 2 ** 32 - 1])
@pytest.mark.parametrize("kind, text", [(RESULT, b"5"), (FLAG, b'{"flag": "eA==", "details": 0}'),
                                        (FAILURE, b'{"raised": {"types": [["builtins", '
                                                  b'"KeyError"]], "text": "x"}}')])
def test_a_reply_to_another_request_is_given_to_nobody(call, peer, pool, number, kind, text):
    peer.replies = [frame(kind, text, number), FIVE] * 2
    for timeout in (None, 5):
        with pytest.raises(net.ProtocolError, match="a reply to another request") as caught:
            call(timeout=timeout)
        assert caught.value.ran == "maybe" and not pool._idle
        assert call() == 5
    assert peer.connections == 3


def test_after_a_timeout_the_late_reply_is_given_to_nobody(call, peer, pool):
    late = threading.Event()

    def reply_late(sock: socket.socket) -> bool:
        late.wait(patience(5))
        sock.sendall(frame(RESULT, b'"late"'))
        return False

    peer.replies = [reply_late, FIVE]
    with pytest.raises(net.CallTimeout):
        call(timeout=patience(0.1))
    assert len(pool._idle) == 0
    late.set()
    assert call() == 5
    assert peer.connections == 2


def test_after_a_timeout_within_a_reply_the_rest_is_given_to_nobody(call, peer):
    peer.replies = [sends(FIVE[:-1], close=False), FIVE]
    with pytest.raises(net.CallTimeout):
        call(timeout=patience(0.1))
    assert call() == 5
    assert peer.connections == 2


def test_a_timeout_covers_the_whole_reply(call, peer):
    reply = frame(RESULT, b'"' + b"x" * 100 + b'"')
    pieces = [reply[start:start + 1] for start in range(len(reply))]
    peer.replies = [sends(*pieces, pause=0.02)]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout):
        call(timeout=0.2)
    assert 0.19 <= time.monotonic() - start < patience(1)


@pytest.mark.parametrize("where", ["_take", "exchange"])
def test_an_interrupt_leaves_no_connection_behind(
        call, peer, pool, monkeypatch, where, only_what_is_new):
    peer.replies = [FIVE] * 3
    assert call() == 5
    (connection,) = pool._idle

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    # The first is in the moment between taking a connection out of the pool and using it.
    target = connection.stream if where == "_take" else connection.session
    monkeypatch.setattr(target, "poll" if where == "_take" else "receive_fields", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert not pool._idle
    monkeypatch.undo()
    if where == "_take":
        # The interpreter closes an unreferenced socket, with a warning.
        connection.stream.close()
    assert connection.stream.sock.fileno() == -1
    del connection, target
    gc.collect()
    assert not pool._open
    assert call() == 5
    assert peer.connections == 2


def refusal(number: int) -> bytes:
    return b"".join(encode_refusal(number, net.PeerBusy(None, "512 connections are open there")))


def test_a_refusal_ends_the_connection(call, peer):
    peer.replies = [refusal(0), FIVE, refusal(NUMBER), FIVE]
    for number in (1, 2):
        with pytest.raises(net.PeerBusy, match="512 connections") as caught:
            call()
        assert (caught.value.address, caught.value.ran) == (peer.address, "no")
        assert call() == 5
        assert peer.connections == number + 1


def test_a_refusal_that_comes_before_the_preface_is_sent_is_raised(monkeypatch):
    def refuse() -> None:
        sock, _ = listener.accept()
        connected.wait(patience(5))
        sock.sendall(refusal(0))
        reset_at_end(sock, True)
        sock.close()

    def preface(to: Any) -> bytes:
        connected.set()
        thread.join()  # by now it has closed the connection
        return encode_preface()

    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        client = Client(settings, Loop("net-test"))
        monkeypatch.setattr(client, "preface", preface)
        with pytest.raises(net.PeerBusy, match="512 connections") as caught:
            client.call(listener.getsockname(), TAG, (), {}, patience(5))
    assert caught.value.ran == "no"


def test_a_refusal_instead_of_hello_is_raised_and_nothing_was_sent(call, peer, pool):
    peer.greetings, peer.replies = [refusal(0), GREETING], [FIVE]
    with pytest.raises(net.PeerBusy, match="512 connections") as caught:
        call()
    assert (caught.value.address, caught.value.ran) == (peer.address, "no")
    assert not peer.requests and not pool._open
    assert call() == 5


def test_an_error_of_the_function_leaves_the_connection(call, peer):
    raised = frame(FAILURE, b'{"raised": {"types": [["builtins", "KeyError"]], "args": ["x"], '
                            b'"text": "\'x\'"}}')
    peer.replies = [raised, FIVE]
    with pytest.raises(KeyError):
        call()
    assert call() == 5
    assert peer.connections == 1


# ------------------------------------------------------------------------ what else may come back

@pytest.mark.parametrize("reply, error, ran", [
    (b"", net.PeerLost, "maybe"),
    (FIVE[:1], net.PeerLost, "maybe"),
    (FIVE[:-1], net.PeerLost, "maybe"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", net.ProtocolError, "maybe"),
    (frame(CALL, b"5"), net.ProtocolError, "maybe"),
    (frame(9, b"5"), net.ProtocolError, "maybe"),
    (frame(99, b"5"), net.ProtocolError, "maybe"),
    (frame(99, b"5", 0), net.ProtocolError, "maybe"),
    (GREETING, net.ProtocolError, "maybe"),
    (frame(RESULT, b"[5"), net.ProtocolError, "maybe"),
    (frame(RESULT, b"5 6"), net.ProtocolError, "maybe"),
    (frame(RESULT, b'{"!none":1}', tagged=True), net.ProtocolError, "maybe"),
    (frame(RESULT, b"[" * 5000 + b"]" * 5000), net.ProtocolError, "maybe"),
    (frame(RESULT, b'{"!bytes":7}', tagged=True), net.ProtocolError, "maybe"),
    (frame(FAILURE, b"{}"), net.ProtocolError, "maybe"),
    (frame(FAILURE, b'{"raised": 5}'), net.ProtocolError, "maybe"),
    (frame(FAILURE, b'{"refused": "os.system", "ran": "no", "reason": "x"}'), net.NetError,
     "no"),
    (frame(FLAG, b"5"), net.ProtocolError, "maybe"),
    (HEADER.pack(RESULT, 0, 0, NUMBER, 0xffffffff), net.MessageTooLarge, "yes"),
    (HEADER.pack(RESULT, 1, 1, NUMBER, 1) + b"\xff" * 8 + b"5", net.MessageTooLarge, "yes"),
])
def test_a_senseless_reply_is_a_typed_error_and_the_next_call_is_right(
        call, peer, reply, error, ran):
    peer.replies = [sends(reply), FIVE]
    with pytest.raises(error) as caught:
        call()
    assert caught.value.ran == ran
    assert call() == 5
    assert peer.connections == 2


@pytest.mark.parametrize("greeting, error", [
    (b"", net.PeerUnreachable),
    (GREETING[:1], net.PeerUnreachable),
    (GREETING[:-1], net.PeerUnreachable),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", net.ProtocolError),
    (b"\x15\x03\x01\x00\x02\x02\x46", net.ProtocolError),
    (FIVE, net.ProtocolError),
    (frame(FAILURE, b"{}", 0), net.ProtocolError),
    (frame(FAILURE, b"[", 0), net.ProtocolError),
    (frame(FAILURE, b'{"raised": {"types": [["builtins", "KeyError"]], "text": "x"}}', 0),
     net.ProtocolError),
    (frame(FAILURE, b'{"refused": "PeerBusy", "ran": "yes", "reason": "x"}', 0), net.PeerBusy),
    (frame(99, b"{}", 0), net.ProtocolError),
    (frame(HELLO, b"{}", 0), net.ProtocolError),
    (frame(HELLO, b"[" * 9000, 0), net.ProtocolError),
    (HEADER.pack(HELLO, 0, 0, 0, 0xffffffff), net.NetError),
])
def test_what_greets_senselessly_has_run_nothing(call, peer, pool, greeting, error):
    peer.greetings, peer.replies = [sends(greeting), GREETING], [FIVE]
    with pytest.raises(error) as caught:
        call()
    assert caught.value.ran == "no" and not peer.requests and not pool._open
    assert call() == 5
    assert peer.connections == 2


def test_what_a_peer_takes_is_known_before_it_is_sent(call, peer, pool):
    small = b"".join(encode_hello("scripted", Limits(text=70_000, buffers=70_000)))
    size = sum(map(len, encode_call(1, TAG, (bytes(70_000),), {})))

    def when_whole(sock):
        """Such a request may come in parts."""
        while sum(map(len, peer.requests)) < size:
            peer.requests.append(sock.recv(size))
        sock.sendall(FIVE)

    peer.greetings, peer.replies = [small], [when_whole, FIVE]
    for argument, what in ((list(range(20_000)), "NET_MAX_TEXT"),
                           (bytes(70_001), "NET_MAX_BUFFERS")):
        with pytest.raises(net.MessageTooLarge, match=what) as caught:
            call(argument)
        assert caught.value.ran == "no" and not peer.requests
    assert call(bytes(70_000)) == 5
    assert call() == 5
    assert peer.connections == 1 == len(pool._idle)


def test_a_reply_is_a_flag_only_if_the_frame_says_so(call, peer):
    peer.replies = [frame(FLAG, b'{"flag": "TlVMTA==", "details": [1]}'),
                    frame(RESULT, b'"TlVMTA=="')]
    found = call()
    assert (found, type(found).__name__, found.details) == (b"TlVMTA==", "Flag", [1])
    assert call() == "TlVMTA=="


# ------------------------------------------------------------------------------------ no answer

def test_a_port_without_a_listener_is_unreachable_and_nothing_ran(call):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(net.PeerUnreachable) as caught:
            call(at=bound.getsockname())
    assert caught.value.ran == "no"


@pytest.mark.parametrize("end", [b"", GREETING[:5], None])
def test_a_peer_that_ends_before_it_has_said_hello_is_looked_for(call, client, peer, end):
    looked_for: List[Any] = []
    client.missed = looked_for.append
    if end is None:
        peer.close()
    peer.greetings = [sends(end or b"")]
    with pytest.raises(net.PeerUnreachable):
        call()
    assert looked_for == [peer.address]


def test_a_host_that_does_not_answer_is_given_up_in_time(call, monkeypatch):
    given: List[float] = []

    def never(carrier: Any, endpoint: Any, deadline: Any) -> None:
        given.append(deadline.seconds)
        raise socket.timeout("timed out")

    monkeypatch.setattr(TcpCarrier, "connect", never)
    with pytest.raises(net.PeerUnreachable) as caught:
        call(at=("127.0.0.1", 9))
    assert caught.value.ran == "no" and given == [module.CONNECT_TIME]
    with pytest.raises(net.PeerUnreachable):
        call(at=("127.0.0.1", 9), timeout=20)
    with pytest.raises(net.CallTimeout) as timed:
        call(at=("127.0.0.1", 9), timeout=0.5)
    assert timed.value.ran == "no" and given[-1] <= 0.5


@pytest.mark.parametrize("greeting", [b"", GREETING[:1], GREETING[:-1]])
def test_a_listener_that_says_no_hello_is_unreachable_and_nothing_ran(
        call, peer, pool, monkeypatch, greeting):
    monkeypatch.setattr(module, "GREETING_TIME", 0.1)
    peer.greetings = [sends(greeting, close=False)] * 2  # the peer may be late with the first one
    for timeout in (None, 5):
        started = time.monotonic()
        with pytest.raises(net.PeerUnreachable, match="no answer within 0.1 s") as caught:
            call(timeout=timeout)
        assert caught.value.ran == "no" and 0.09 < time.monotonic() - started < patience(2)
    assert not peer.requests and not pool._open


def test_a_hello_that_drips_is_given_up_in_time(call, peer, monkeypatch):
    monkeypatch.setattr(module, "GREETING_TIME", 0.2)
    pieces = [GREETING[start:start + 1] for start in range(len(GREETING))]
    peer.greetings = [sends(*pieces, pause=0.02)]
    started = time.monotonic()
    with pytest.raises(net.PeerUnreachable):
        call()
    assert time.monotonic() - started < patience(1)


def test_a_call_of_less_time_than_a_greeting_may_take_is_a_timeout_and_nothing_ran(call, peer):
    peer.greetings = [sends(b"", close=False)]
    with pytest.raises(net.CallTimeout) as caught:
        call(timeout=patience(0.1))
    assert (caught.value.ran, caught.value.timeout) == ("no", patience(0.1))
    assert not peer.requests


# --------------------------------------------------------------------- so many at once, no more

class Gate:
    """Replies that wait until the test lets them go."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)

    def __call__(self, sock: socket.socket) -> bool:
        assert self._go.acquire(timeout=patience(10))
        sock.sendall(FIVE)
        return False

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            self._go.release()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open(50)


def in_threads(count: int, call: Callable[[], Any]) -> "tuple[list, list[threading.Thread]]":
    found: list = []

    def run() -> None:
        try:
            found.append(call())
        except net.NetError as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return found, threads


def test_calls_beyond_the_limit_wait_for_one_to_end(call, peer, pool, gate, kept_settings):
    kept_settings.set("max_calls", 3)
    peer.replies = [gate] * 8
    found, threads = in_threads(8, call)
    until(lambda: len(peer.requests) == 3 and pool._waiting == 5)
    for number in range(1, 6):
        gate.open()
        until(lambda: len(peer.requests) == 3 + number)
        assert peer.connections == 3 and len(found) <= number
    gate.open(3)
    for thread in threads:
        thread.join(patience(5))
    assert found == [5] * 8
    assert peer.connections == len(pool._idle) == 3 and not pool._waiting


def test_a_call_that_waits_for_others_too_long_has_run_nothing(call, peer, pool, gate,
                                                               kept_settings):
    kept_settings.set("max_calls", 1)
    peer.replies = [gate] * 2
    found, threads = in_threads(1, call)
    until(lambda: peer.requests)
    with pytest.raises(net.CallTimeout) as caught:
        call(timeout=patience(0.1))
    assert (caught.value.ran, caught.value.timeout) == ("no", patience(0.1))
    gate.open(2)
    threads[0].join(patience(5))
    assert found == [5] and call() == 5
    assert peer.connections == 1 and not pool._waiting


def test_a_call_that_fails_leaves_its_place_to_one_that_waits(call, peer, pool, gate,
                                                              kept_settings):
    kept_settings.set("max_calls", 1)

    def fail(sock: socket.socket) -> bool:
        gate(sock)
        return True

    peer.replies = [fail, FIVE]
    ended, (first,) = in_threads(1, lambda: call(timeout=patience(0.3)))
    until(lambda: peer.requests)
    found, (second,) = in_threads(1, call)
    until(lambda: pool._waiting)
    first.join(patience(5))
    second.join(patience(5))
    assert isinstance(ended[0], net.CallTimeout) and found == [5]
    assert peer.connections == 2


def test_a_peer_that_goes_away_leaves_nobody_waiting(call, peer, pool, gate, kept_settings):
    kept_settings.set("max_calls", 1)
    peer.replies = [gate]
    found, threads = in_threads(4, call)
    until(lambda: peer.requests and pool._waiting == 3)
    gate.open()
    peer.close()
    for thread in threads:
        thread.join(patience(5))
    assert len(found) == 4 and not pool._waiting and not pool._opening
    assert all(one == 5 or isinstance(one, net.NetError) for one in found)


# What an interrupt drops is closed by the interpreter, with a warning.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_interrupt_at_any_moment_leaves_the_place_to_the_next_call(call, peer, pool,
                                                                      kept_settings):
    kept_settings.set("max_calls", 1)
    steps = {"_take", "_take_place", "_open_at", "_close", "_give_back", "exchange", "open"}

    def interrupt_at(number: int) -> bool:
        """Call, with an interrupt at some line of ours; False if there are not so many."""
        left = iter(range(number))

        def trace(frame: Any, event: str, arg: Any) -> Any:
            if frame.f_code.co_name not in steps or frame.f_code.co_filename != module.__file__:
                return None
            if event == "line" and next(left, None) is None:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            call(timeout=patience(5))
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    before = sys.gettrace()
    number = 0
    peer.replies = [FIVE] * 200
    while interrupt_at(number):
        number += 1
        pool.close_old(float("inf"))
        gc.collect()
        assert (len(pool._open), len(pool._opening), pool._waiting) == (0, 0, 0), number
    assert number > 20


def test_calls_that_a_served_call_makes_do_not_wait(call, peer, pool, gate, kept_settings):
    # It holds a place elsewhere, and two peers could wait for each other.
    kept_settings.set("max_calls", 1)
    peer.replies = [gate, FIVE]
    found, threads = in_threads(1, call)
    until(lambda: peer.requests)
    enter(Context(Caller(("127.0.0.1", 1), None)))
    try:
        assert call(timeout=patience(5)) == 5
    finally:
        enter(None)
    gate.open()
    threads[0].join(patience(5))
    assert found == [5] and peer.connections == 2


def test_the_limit_is_of_each_peer(call, peer, gate, kept_settings):
    kept_settings.set("max_calls", 1)
    other = ScriptedPeer()
    peer.replies, other.replies = [gate], [FIVE]
    found, threads = in_threads(1, call)
    until(lambda: peer.requests)
    assert call(at=other.address) == 5
    gate.open()
    threads[0].join(patience(5))
    other.close()


# -------------------------------------------------------------------------- connections grow old

@pytest.mark.parametrize("name", ["host", "group"])
def test_a_connection_from_before_a_setting_that_matters_is_replaced(call, peer, name):
    # One to another host must not be used any more once NET_HOST keeps everything on this one.
    peer.replies = [FIVE, FIVE]
    assert call() == 5
    setattr(net, name.upper(), getattr(net, name.upper()))
    assert call() == 5
    assert peer.connections == 2


def test_a_connection_that_was_idle_for_long_is_replaced(call, peer, pool):
    peer.replies = [FIVE, FIVE]
    assert call() == 5
    pool._idle[0].idle_since -= module.IDLE_TIME + 1
    assert call() == 5
    assert peer.connections == 2


def test_what_was_idle_for_long_is_closed_though_nobody_calls(call, client, peer, pool):
    other = ScriptedPeer()
    peer.replies, other.replies = [FIVE], [FIVE]
    assert call() == call(at=other.address) == 5
    (old,) = pool._idle
    time.sleep(0.2)
    assert old.stream.sock.fileno() > 0
    old.idle_since -= module.IDLE_TIME + 1
    until(lambda: old.stream.sock.fileno() == -1 and not pool._idle and not pool._open)
    assert (len(client._find_pool(other.address)._idle), other.connections) == (1, 1)
    client.close_idle()
    until(lambda: not client._loop._current)  # nothing is left to look at
    other.close()


@pytest.mark.parametrize("answer, connections", [
    (frame(RESULT, b"null"), 1), (b"", 2), (frame(FAILURE, b"{}"), 1), (frame(RESULT, b"5", 99), 2),
    (None, 2)])
def test_a_connection_that_was_idle_for_some_seconds_is_tried_first(
        call, peer, pool, monkeypatch, answer, connections):
    monkeypatch.setattr(module, "TRIAL_TIME", 0.1)
    trial = sends(b"", close=False) if answer is None else sends(answer, close=not answer)
    peer.replies = [FIVE, trial, FIVE]
    assert call() == 5
    pool._idle[0].idle_since -= module.TRUST_TIME + 1
    assert call() == 5
    assert peer.connections == connections
    assert [HEADER.unpack_from(request)[0] for request in peer.requests] == [CALL, PING, CALL]


def test_connections_that_were_idle_for_longer_than_a_dead_one_are_closed_with_it(
        call, peer, pool, gate):
    peer.replies = [gate, FIVE, sends(b""), FIVE]
    found, threads = in_threads(1, call)
    until(lambda: peer.requests)
    assert call() == 5
    gate.open()
    threads[0].join(patience(5))
    assert len(pool._idle) == 2
    for age, connection in zip((30, 20), pool._idle):
        connection.idle_since -= age
    assert call() == 5
    assert len(pool._idle) == 1 and peer.connections == 3


def test_only_the_old_ones_of_a_pool_are_closed(peer, pool):
    connections = [pool.open(Deadline(patience(5))) for _ in range(4)]
    for age, connection in zip((90, 70, 50, 0), connections):
        connection.idle_since = 1000.0 - age
    pool._idle = list(connections)
    pool.close_old(1000.0 - 60)
    assert pool._idle == connections[2:]
    pool.close_old(float("inf"))
    assert pool._idle == []
    assert [one.stream.sock.fileno() for one in connections] == [-1] * 4


def test_the_pool_can_be_closed_while_it_is_used(call, client, peer, pool):
    peer.replies = [FIVE] * 2
    assert call() == 5
    client.close_idle()
    assert not pool._idle
    assert call() == 5
    assert peer.connections == 2


def test_a_forgotten_pool_closes_also_what_is_in_use(call, client, peer, pool):
    peer.replies = [sends(b"", close=False)]
    errors, (caller,) = in_threads(1, call)
    until(lambda: peer.requests)
    (connection,) = pool._open
    client.forget()
    assert client._pools == {} and client._by_argument == {}
    assert connection.stream.sock.fileno() == -1
    # In a forked child that thread is gone; here it needs the other end to let it go.
    peer.close()
    caller.join()
    assert len(errors) == 1


# ------------------------------------------------------------------------------------- old peers

OLD_ERROR = legacy.encode_error("Traceback ...\nValueError: what is this?")


def test_an_old_peer_is_found_by_its_answer_in_the_time_of_the_call(call, peer):
    def slow(reply: bytes) -> Callable[[Any], bool]:
        def answer(sock: socket.socket) -> bool:
            time.sleep(0.2)
            sock.sendall(reply)
            return True
        return answer

    peer.greetings = [slow(OLD_ERROR), slow(legacy.encode_result(5))]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout) as caught:
        call(timeout=0.3)
    assert time.monotonic() - start < patience(1)
    assert caught.value.timeout == 0.3


def test_an_old_peer_that_does_not_close_is_waited_for_until_the_deadline_only(call, peer):
    peer.greetings = [sends(b"TlVMTA==", close=False)]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout):
        call(timeout=0.3)
    assert time.monotonic() - start < patience(0.8)


def test_an_old_peer_that_resets_the_connection_after_its_answer_is_found(call, peer):
    def answer_and_reset(sock: socket.socket) -> bool:
        sock.sendall(OLD_ERROR)
        time.sleep(0.05)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return True

    peer.greetings = [answer_and_reset, sends(legacy.encode_result(5))]
    assert call() == 5


def test_an_old_answer_on_a_used_connection_does_not_make_an_old_peer(
        call, peer):
    # The call may have run: it must not be sent again.
    peer.replies = [FIVE, sends(OLD_ERROR)]
    assert call() == 5
    with pytest.raises(net.ProtocolError) as caught:
        call()
    assert caught.value.ran == "maybe"
    assert len(peer.requests) == 2 and peer.connections == 1


def test_a_new_peer_at_the_address_of_an_old_one_is_called_in_the_modern_dialect(call, peer, pool):
    peer.greetings = [sends(OLD_ERROR), sends(legacy.encode_result(5))]
    assert call() == 5
    assert pool.old is not None and pool.old.dialect == legacy.BASE64
    peer.close()
    with pytest.raises(net.PeerUnreachable):
        call()
    assert pool.old is None


def test_nothing_that_an_old_peer_could_not_read_whole_is_sent_to_it(call, peer, pool):
    peer.greetings = [sends(OLD_ERROR), sends(legacy.encode_result(5))]
    with pytest.raises(net.MessageTooLarge) as caught:
        call("x" * 2000)
    assert caught.value.ran == "no" and pool.old is not None
    assert call("x") == 5
    assert [len(sent) < 1024 for sent in peer.prefaces] == [True, True]
    assert peer.prefaces == [encode_preface(settings.group),
                             legacy.encode_call(Call(TAG, ["x"], {}))]


# -------------------------------------------------------------------------------------- the rest

def test_every_form_of_one_peer_shares_its_pool(call, client, peer):
    peer.replies = [FIVE] * 4
    host, port = peer.address
    identity = net.Peer().generate_id(port, host)
    for form in (peer.address, f"{host}:{port}", identity, bytes(identity).decode()):
        assert call(at=form) == 5
    assert peer.connections == 1


def test_the_memory_for_forms_of_peers_is_bounded(call, client, peer, monkeypatch):
    monkeypatch.setattr(module, "MAX_ARGUMENTS", 3)
    host, port = peer.address
    peer.replies = [FIVE] * 8
    for number in range(8):
        identity = net.Peer().generate_id(port, host, f"group {number}")
        assert call(at=identity) == 5
        assert len(client._by_argument) <= 3
    assert peer.connections == 1


def test_a_connection_of_ones_own_is_in_no_pool(client, peer):
    peer.replies = [FIVE]
    connection = client.connect(peer.address, 5)
    assert connection is not None and connection.hello.instance == "scripted"
    reply = connection.exchange(encode_call(1, TAG, (), {}), NUMBER, Deadline(patience(5)))
    assert reply.text == b"5"
    assert peer.address not in client._pools
    connection.close()
    peer.greetings = [sends(OLD_ERROR)]
    assert client.connect(peer.address, 5) is None
    with pytest.raises(socket.timeout):
        Deadline(-1).remaining()
