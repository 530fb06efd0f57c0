"""The client and its pool, against peers that are scripted byte by byte."""
from __future__ import annotations

import gc
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest

import net
from net.identity import make_tag
from net.wire import legacy
from net.wire.frames import FAILURE, FLAG, PREFACE, RESULT, pack
from net.wire.messages import encode_refusal
from net.run import client
from net.link.streams import Deadline

TAG = make_tag("unit", "function")
FIVE = pack(RESULT, b"5")


class ScriptedPeer:
    """A listener that answers each request with the next of some replies.

    A reply is bytes to send, or a function of the connected socket. One that gives True, and the
    end of the replies, closes the connection.

    :ivar requests: what was received before each reply.
    :ivar connections: how many connections were made.
    """

    def __init__(self) -> None:
        self.replies: List[Any] = []
        self.requests: List[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._accept)]
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
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                while self._answer(sock):
                    pass
            except OSError:
                pass

    def _answer(self, sock: socket.socket) -> bool:
        request = sock.recv(1_000_000)
        if not request or not self.replies:
            return False
        self.requests.append(request)
        reply = self.replies.pop(0)
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


def call(peer: ScriptedPeer, *args: Any, timeout: Optional[float] = None) -> Any:
    return client.call(peer.address, TAG, args, {}, timeout)


def sends(*pieces: bytes, close: bool = True, pause: float = 0.0) -> Callable[[Any], bool]:
    def reply(sock: socket.socket) -> bool:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        return close
    return reply


def idle(peer: ScriptedPeer) -> int:
    """How many connections to a peer wait in the pool."""
    return len(client._pools[peer.address]._idle)


# --------------------------------------------------------------------------------- one connection

def test_the_preface_is_sent_once_together_with_the_first_request(peer):
    peer.replies = [FIVE] * 3
    assert [call(peer, 1), call(peer, 2), call(peer, 3)] == [5, 5, 5]
    assert peer.connections == 1
    first, second, third = peer.requests
    assert first.startswith(PREFACE)
    assert first[len(PREFACE):] == second.replace(b"[2]", b"[1]") == third.replace(b"[3]", b"[1]")


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_reply_may_come_in_pieces(peer, size):
    reply = pack(RESULT, b'{"!tuple":[1,{"!bytes":0}]}', [b"z" * 5], tagged=True) + b"z" * 5
    pieces = [reply[start:start + size] for start in range(0, len(reply), size)]
    peer.replies = [sends(*pieces, close=False, pause=0.001), FIVE]
    assert call(peer) == (1, b"z" * 5)
    assert call(peer, timeout=5) == 5
    assert peer.connections == 1


def test_calls_one_after_the_other_take_one_connection_and_at_once_several(peer):
    peer.replies = [FIVE] * 20
    for _ in range(4):
        assert call(peer) == 5
    assert peer.connections == idle(peer) == 1
    both = threading.Barrier(2)

    def wait_for_the_other(sock: socket.socket) -> bool:
        both.wait(timeout=5)
        sock.sendall(FIVE)
        return False

    peer.replies = [wait_for_the_other, wait_for_the_other]
    caller = threading.Thread(target=call, args=(peer,))
    caller.start()
    assert call(peer) == 5
    caller.join()
    assert peer.connections == idle(peer) == 2


# --------------------------------------------------- what is not in perfect order is never pooled

def test_a_connection_that_the_peer_closed_meanwhile_is_replaced_before_use(peer):
    peer.replies = [sends(FIVE), FIVE]
    assert call(peer) == 5
    deadline = time.monotonic() + 5
    while not client._pools[peer.address]._idle[0].stream.is_readable():
        assert time.monotonic() < deadline
    assert call(peer) == 5
    assert (peer.connections, len(peer.requests)) == (2, 2)


@pytest.mark.parametrize("tail", [b"x", FIVE, FIVE + b"x"])
def test_a_second_reply_is_given_to_nobody(peer, tail):
    # Within the same bytes it is an error of that call; later, the connection is left.
    peer.replies = [FIVE + tail, FIVE, sends(FIVE, tail, close=False, pause=0.05), FIVE]
    with pytest.raises(net.ProtocolError) as caught:
        call(peer)
    assert caught.value.ran == "maybe"
    assert call(peer) == 5
    assert call(peer) == 5
    deadline = time.monotonic() + 5
    while not client._pools[peer.address]._idle[0].stream.is_readable():
        assert time.monotonic() < deadline
    assert call(peer) == 5
    assert peer.connections == 3


def test_after_a_timeout_the_late_reply_is_given_to_nobody(peer):
    late = threading.Event()

    def reply_late(sock: socket.socket) -> bool:
        late.wait(5)
        sock.sendall(pack(RESULT, b'"late"'))
        return False

    peer.replies = [reply_late, FIVE]
    with pytest.raises(net.CallTimeout):
        call(peer, timeout=0.05)
    assert idle(peer) == 0
    late.set()
    assert call(peer) == 5
    assert peer.connections == 2


def test_after_a_timeout_within_a_reply_the_rest_is_given_to_nobody(peer):
    peer.replies = [sends(FIVE[:-1], close=False), FIVE]
    with pytest.raises(net.CallTimeout):
        call(peer, timeout=0.05)
    assert call(peer) == 5
    assert peer.connections == 2


def test_a_timeout_covers_the_whole_reply(peer):
    reply = pack(RESULT, b'"' + b"x" * 100 + b'"')
    pieces = [reply[start:start + 1] for start in range(len(reply))]
    peer.replies = [sends(*pieces, pause=0.02)]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout):
        call(peer, timeout=0.2)
    assert 0.19 <= time.monotonic() - start < 1


@pytest.mark.parametrize("where", ["_take", "exchange"])
def test_an_interrupt_leaves_no_connection_behind(peer, monkeypatch, where):
    peer.replies = [FIVE] * 3
    assert call(peer) == 5
    (connection,) = client._pools[peer.address]._idle

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    # The first is in the moment between taking a connection out of the pool and using it.
    target = connection.stream if where == "_take" else connection.reader
    monkeypatch.setattr(target, "is_readable" if where == "_take" else "frame", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(peer)
    assert idle(peer) == 0
    monkeypatch.undo()
    if where == "_take":
        # What nobody holds is closed by the interpreter, with a warning.
        connection.stream.close()
    assert connection.stream.sock.fileno() == -1
    del connection, target
    gc.collect()
    assert not [one for one in client._open if one.address == peer.address]
    assert call(peer) == 5
    assert peer.connections == 2


def test_a_refusal_ends_the_connection(peer):
    refusal = b"".join(encode_refusal(net.PeerBusy(None, "512 connections are open there")))
    peer.replies = [refusal, FIVE]
    with pytest.raises(net.PeerBusy, match="512 connections") as caught:
        call(peer)
    assert (caught.value.address, caught.value.ran) == (peer.address, "no")
    assert call(peer) == 5
    assert peer.connections == 2


def test_an_error_of_the_function_leaves_the_connection(peer):
    raised = pack(FAILURE, b'{"raised": {"types": [["builtins", "KeyError"]], "args": ["x"], '
                           b'"text": "\'x\'"}}')
    peer.replies = [raised, FIVE]
    with pytest.raises(KeyError):
        call(peer)
    assert call(peer) == 5
    assert peer.connections == 1


# ------------------------------------------------------------------------ what else may come back

@pytest.mark.parametrize("reply, error, ran", [
    (b"", net.PeerLost, "maybe"),
    (FIVE[:1], net.PeerLost, "maybe"),
    (FIVE[:-1], net.PeerLost, "maybe"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", net.ProtocolError, "no"),
    (b"\x01" + FIVE[1:], net.ProtocolError, "no"),
    (pack(9, b"5"), net.ProtocolError, "no"),
    (pack(RESULT, b"[5"), net.ProtocolError, "maybe"),
    (pack(RESULT, b"5 6"), net.ProtocolError, "maybe"),
    (pack(RESULT, b'{"!none":1}', tagged=True), net.ProtocolError, "maybe"),
    (pack(RESULT, b"[" * 5000 + b"]" * 5000), net.ProtocolError, "maybe"),
    (pack(RESULT, b'{"!bytes":7}', tagged=True), net.ProtocolError, "maybe"),
    (pack(FAILURE, b"{}"), net.ProtocolError, "maybe"),
    (pack(FAILURE, b'{"raised": 5}'), net.ProtocolError, "maybe"),
    (pack(FAILURE, b'{"refused": "os.system", "ran": "no", "reason": "x"}'), net.NetError, "no"),
    (pack(FLAG, b"5"), net.ProtocolError, "maybe"),
    (b"\x02\x00\x00\x00\xff\xff\xff\xff", net.MessageTooLarge, "yes"),
    (b"\x02\x01\x00\x01\x00\x00\x00\x01" + b"\xff" * 8 + b"5", net.MessageTooLarge, "yes"),
])
def test_a_senseless_reply_is_a_typed_error_and_the_next_call_is_right(peer, reply, error, ran):
    peer.replies = [sends(reply), FIVE]
    with pytest.raises(error) as caught:
        call(peer)
    assert caught.value.ran == ran
    assert call(peer) == 5
    assert peer.connections == 2


def test_a_reply_is_a_flag_only_if_the_frame_says_so(peer):
    peer.replies = [pack(FLAG, b'{"flag": "TlVMTA==", "details": [1]}'),
                    pack(RESULT, b'"TlVMTA=="')]
    found = call(peer)
    assert (found, type(found).__name__, found.details) == (b"TlVMTA==", "Flag", [1])
    assert call(peer) == "TlVMTA=="


# ------------------------------------------------------------------------------- nobody answers

def test_a_port_without_a_listener_is_unreachable_and_nothing_ran(peer):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(net.PeerUnreachable) as caught:
            client.call(bound.getsockname(), TAG, (), {})
    assert caught.value.ran == "no"


def test_a_host_that_does_not_answer_is_given_up_in_time(monkeypatch):
    given: List[float] = []

    def never(address: Any, timeout: float) -> None:
        given.append(timeout)
        raise socket.timeout("timed out")

    monkeypatch.setattr(client.socket, "create_connection", never)
    with pytest.raises(net.PeerUnreachable) as caught:
        client.call(("127.0.0.1", 9), TAG, (), {})
    assert caught.value.ran == "no" and given == [client.CONNECT_TIME]
    with pytest.raises(net.PeerUnreachable):
        client.call(("127.0.0.1", 9), TAG, (), {}, 20)
    with pytest.raises(net.CallTimeout) as timed:
        client.call(("127.0.0.1", 9), TAG, (), {}, 0.5)
    assert timed.value.ran == "no" and given[-1] <= 0.5


# -------------------------------------------------------------------------- connections grow old

@pytest.mark.parametrize("name", ["host", "group"])
def test_a_connection_from_before_a_setting_that_matters_is_replaced(peer, name):
    # One to another host must not be used any more once NET_HOST keeps everything on this one.
    peer.replies = [FIVE, FIVE]
    assert call(peer) == 5
    setattr(net, name.upper(), getattr(net, name.upper()))
    assert call(peer) == 5
    assert peer.connections == 2


def test_a_connection_that_was_idle_for_long_is_replaced(peer):
    peer.replies = [FIVE, FIVE]
    assert call(peer) == 5
    client._pools[peer.address]._idle[0].idle_since -= client.IDLE_TIME + 1
    assert call(peer) == 5
    assert peer.connections == 2


def test_a_call_to_anybody_closes_what_was_idle_for_long(peer, monkeypatch):
    # Callers that never pause, or never come back to a peer, let go of their connections, too.
    other = ScriptedPeer()
    peer.replies, other.replies = [FIVE], [FIVE] * 2
    assert call(peer) == call(other) == 5
    (old,) = client._pools[peer.address]._idle
    old.idle_since -= client.IDLE_TIME + 1
    monkeypatch.setattr(client.Pool, "next_look", 0.0)
    assert call(other) == 5
    assert idle(peer) == 0 and old.stream.sock.fileno() == -1
    assert (idle(other), other.connections) == (1, 1)
    # The next look is not due for a while.
    assert client.Pool.next_look > time.monotonic()
    other.close()


def test_only_the_old_ones_of_a_pool_are_closed(peer):
    pool = client.Pool(peer.address)
    connections = [client.Connection(peer.address, pool._connect(None)) for _ in range(4)]
    for age, connection in zip((90, 70, 50, 0), connections):
        connection.idle_since = 1000.0 - age
    pool._idle = list(connections)
    pool.close_old(1000.0 - 60)
    assert pool._idle == connections[2:]
    pool.close_old(float("inf"))
    assert pool._idle == []
    assert [one.stream.sock.fileno() for one in connections] == [-1] * 4


def test_the_pool_can_be_closed_while_it_is_used(peer):
    peer.replies = [FIVE] * 2
    assert call(peer) == 5
    look = client.Pool.next_look
    try:
        client.close_idle()
        assert idle(peer) == 0
        assert call(peer) == 5
    finally:
        client.Pool.next_look = look


def test_a_forgotten_pool_closes_also_what_is_in_use(peer):
    peer.replies = [sends(b"", close=False)]
    errors: List[BaseException] = []

    def call_and_catch() -> None:
        try:
            call(peer)
        except BaseException as error:
            errors.append(error)

    caller = threading.Thread(target=call_and_catch)
    caller.start()
    deadline = time.monotonic() + 5
    while not peer.requests:
        assert time.monotonic() < deadline
    (connection,) = [one for one in client._open if one.address == peer.address]
    pools, arguments = dict(client._pools), dict(client._by_argument)
    others = [one for one in client._open if one is not connection]
    try:
        for one in others:
            client._open.discard(one)
        client.forget_connections()
        assert client._pools == {} and client._by_argument == {}
        assert connection.stream.sock.fileno() == -1
    finally:
        client._pools.update(pools)
        client._by_argument.update(arguments)
        for one in others:
            client._open.add(one)
    # In a forked child that thread is gone; here it needs the other end to let it go.
    peer.close()
    caller.join()
    assert len(errors) == 1


# ------------------------------------------------------------------------------------- old peers

OLD_ERROR = legacy.encode_error("Traceback ...\nValueError: what is this?")


def test_an_old_peer_is_found_by_its_answer_in_the_time_of_the_call(peer):
    def slow(reply: bytes) -> Callable[[Any], bool]:
        def answer(sock: socket.socket) -> bool:
            time.sleep(0.2)
            sock.sendall(reply)
            return True
        return answer

    peer.replies = [slow(OLD_ERROR), slow(legacy.encode_result(5))]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout) as caught:
        call(peer, timeout=0.3)
    assert time.monotonic() - start < 0.39
    assert caught.value.timeout == 0.3


def test_an_old_peer_that_does_not_close_is_waited_for_until_the_deadline_only(peer):
    peer.replies = [sends(b"TlVMTA==", close=False)]
    start = time.monotonic()
    with pytest.raises(net.CallTimeout):
        call(peer, timeout=0.3)
    assert time.monotonic() - start < 0.8


def test_an_old_peer_that_resets_the_connection_after_its_answer_is_found(peer):
    def answer_and_reset(sock: socket.socket) -> bool:
        sock.sendall(OLD_ERROR)
        time.sleep(0.05)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return True

    peer.replies = [answer_and_reset, sends(legacy.encode_result(5))]
    assert call(peer) == 5


def test_who_answers_in_the_old_dialect_on_a_used_connection_is_not_taken_for_an_old_peer(peer):
    # The call may have run: it must not be sent again.
    peer.replies = [FIVE, sends(OLD_ERROR)]
    assert call(peer) == 5
    with pytest.raises(net.ProtocolError) as caught:
        call(peer)
    assert caught.value.ran == "maybe"
    assert len(peer.requests) == 2


def test_a_new_peer_at_the_address_of_an_old_one_is_called_in_the_modern_dialect(peer):
    peer.replies = [sends(OLD_ERROR), sends(legacy.encode_result(5))]
    assert call(peer) == 5
    assert client._pools[peer.address].legacy
    peer.close()
    with pytest.raises(net.PeerUnreachable):
        call(peer)
    assert not client._pools[peer.address].legacy


def test_a_long_first_request_is_preceded_by_a_short_one(peer):
    peer.replies = [FIVE, FIVE, FIVE]
    assert call(peer, "x" * 2000) == 5
    short, long = peer.requests
    assert len(short) < 1024 and b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLm51bGw=" in short
    assert len(long) > 2000
    assert call(peer, "x" * 2000) == 5
    assert len(peer.requests) == 3


# -------------------------------------------------------------------------------------- the rest

def test_every_form_of_one_peer_shares_its_pool(peer):
    peer.replies = [FIVE] * 4
    host, port = peer.address
    identity = net.Peer().generate_id(port, host)
    for form in (peer.address, f"{host}:{port}", identity, bytes(identity).decode()):
        assert client.call(form, TAG, (), {}) == 5
    assert peer.connections == 1


def test_the_memory_for_forms_of_peers_is_bounded(peer, monkeypatch):
    monkeypatch.setattr(client, "MAX_ARGUMENTS", 3)
    monkeypatch.setattr(client, "_by_argument", {})
    host, port = peer.address
    peer.replies = [FIVE] * 8
    for number in range(8):
        identity = net.Peer().generate_id(port, host, f"group {number}")
        assert client.call(identity, TAG, (), {}) == 5
        assert len(client._by_argument) <= 3
    assert peer.connections == 1


def test_a_connection_of_ones_own_is_in_no_pool(peer):
    from net.wire.messages import encode_call

    peer.replies = [FIVE]
    connection, frame = client.open_connection(peer.address, encode_call(TAG, (), {}), 5)
    assert connection is not None and frame is not None
    assert frame.text == b"5"
    assert peer.address not in client._pools
    connection.close()
    with pytest.raises(socket.timeout):
        Deadline(-1).remaining()
