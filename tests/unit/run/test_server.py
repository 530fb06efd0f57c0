"""The server, against raw sockets."""
from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, List

import pytest

import net
from net.context import caller
from net.errors import ProtocolError
from net.dispatch import Dispatch, Tally
from net.settings import settings
from net.identity import encode_text
from net.wire import frames, legacy
from net.link.base import listen_in_range
from net.link.streams import Stream
from net.link.tcp import TcpCarrier
from net.log import RateLimitedLog
from net.process import process
from net.run import loop as loop_module
from net.run import served as served_module
from net.run import server as server_module
from net.run import server_connection
from net.run.reading import next_event
from net.run.server import Server
from net.wire.frames import (CALL, CANCEL, FAILURE, FLAG, HEADER, HELLO, ITEM, PING, RESULT,
                             SUBSCRIBE, Frame, pack)
from net.wire.limits import Limits
from net.wire.session import MAGIC, Hello, caller_session, encode_preface
from net.wire.values import unpack
from service import after_hello, serve
import memory
from times import patience

PREFACE = encode_preface()


@pytest.fixture
def functions() -> Dict[bytes, Callable[..., Any]]:
    """The registry of the server under test."""
    def fail() -> None:
        raise KeyError("x")

    found = {"echo": lambda value: value, "add": lambda a, b=1: a + b, "fail": fail,
             "where": lambda: list(caller().address or ()), "exit": lambda: exit(3)}
    return {encode_text(name): function for name, function in found.items()}


@pytest.fixture
def server(functions) -> Iterator[Server]:
    served = serve(Dispatch(functions), instance="abc")
    yield served
    served.close()


class Client:
    """A bare socket that speaks frames."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.create_connection(server.address, timeout=patience(5))
        self.session = caller_session(Limits())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: Any) -> None:
        self.sock.close()

    def reply(self) -> Any:
        """``(kind, content)`` of the next reply, past the HELLO."""
        frame = self.event()
        if type(frame) is Hello:
            frame = self.event()
        return frame.kind, unpack(frame.text, frame.tagged, frame.buffers)

    def event(self) -> Any:
        """HELLO, or the next reply."""
        return next_event(Stream(self.sock), self.session)

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.sock.sendall(request(name, *args, **kwargs))
        return self.reply()

    def rest(self) -> bytes:
        """What still comes until the server closes, past the HELLO."""
        assert not self.session.held
        received = b""
        while True:
            try:
                piece = self.sock.recv(100_000)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return received if self.session.hello else after_hello(received)
            received += piece


def frame(kind: int, text: bytes, number: int = 1, **more: Any) -> bytes:
    return b"".join(pack(kind, number, text, **more))


def request(name: str, *args: Any, **kwargs: Any) -> bytes:
    tag = encode_text(name).decode()
    return frame(CALL, json.dumps({"tag": tag, "args": args, "kwargs": kwargs}).encode())


@pytest.fixture
def client(server) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def in_loop(server: Server, callback: Callable[[], Any]) -> None:
    """Have something done in the loop of a server, and wait for that."""
    done = threading.Event()
    server._loop.call_soon(callback)
    server._loop.call_soon(done.set)
    assert done.wait(patience(5))


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
def test_an_idle_connection_keeps_neither_its_last_request_nor_the_reply(client):
    client.sock.sendall(PREFACE)
    assert client.ask("add", 2) == (RESULT, 3)
    large = request("echo", "x" * 2 ** 22)
    with memory.Peak():
        client.sock.sendall(large)
        assert client.event().kind == RESULT
        until(lambda: memory.in_use() < 2 ** 21)


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
def test_a_request_is_not_kept_while_its_stream_runs(client, functions):
    go_on = threading.Event()

    def stream(value: str) -> Iterator[int]:
        del value
        yield 1
        go_on.wait()

    functions[encode_text("stream")] = stream
    client.sock.sendall(PREFACE)
    assert client.ask("add", 2) == (RESULT, 3)
    large = request("stream", "x" * 2 ** 22)
    with memory.Peak():
        try:
            client.sock.sendall(large)
            assert client.event().kind == ITEM
            until(lambda: memory.in_use() < 2 ** 21)
        finally:
            go_on.set()


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
def test_idle_connections_do_not_keep_their_first_requests(server):
    count, values = 20, ["x" * 3000] * 16
    first = PREFACE + request("echo", values)

    def held() -> int:  # of what was cut out of received bytes
        cut = memory.tracemalloc.Filter(True, frames.__file__)
        return sum(trace.size for trace in memory.tracemalloc.take_snapshot().filter_traces(
            [cut]).traces)

    with memory.Peak():
        with ExitStack() as clients:
            for _ in range(count):
                client = clients.enter_context(Client(server))
                client.sock.sendall(first)
                assert client.reply() == (RESULT, values)
            until(lambda: held() < count * len(first) // 2)


def test_replies_of_coroutines_come_in_order_to_a_caller_that_reads_late(asyncio_loop):
    async def repeat(number: int) -> str:
        return str(number) * 1000

    count = 1000  # more than fits into the buffers of both ends
    served = serve(Dispatch({encode_text("repeat"): repeat}, coroutines=lambda: asyncio_loop))
    try:
        with Client(served) as client:
            sending = threading.Thread(target=client.sock.sendall, args=(
                PREFACE + b"".join(request("repeat", number) for number in range(count)),))
            sending.start()
            time.sleep(0.1)
            for number in range(count):
                assert client.reply() == (RESULT, str(number) * 1000)
            sending.join()
            # The loop of the application waits for nobody.
            assert asyncio.run_coroutine_threadsafe(repeat(7), asyncio_loop).result(patience(5))
    finally:
        served.close()


# ------------------------------------------------------------------------------------- greeting

@pytest.mark.parametrize("step", [1, 7, 1000])
def test_hello_comes_as_soon_as_the_preface_is_whole(client, server, step):
    for start in range(0, len(PREFACE), step):
        client.sock.sendall(PREFACE[start:start + step])
    hello = client.event()
    assert hello == Hello(1, "abc", 0, {"text": settings.max_text, "buffers": settings.max_buffers})
    assert not server.tally()


def test_the_group_of_a_preface_is_that_of_the_caller(server, functions):
    functions[encode_text("group")] = lambda: caller().group
    for group in ("render", None, "\U0001f600" * 64):
        with Client(server) as client:
            client.sock.sendall(encode_preface(group) + request("group"))
            assert client.reply() == (RESULT, group)


def test_a_caller_may_say_which_process_it_is(server, functions):
    functions[encode_text("instance")] = lambda: caller().instance
    for instance in ("9f" * 16, None):
        with Client(server) as client:
            client.sock.sendall(encode_preface(instance=instance) + request("instance"))
            assert client.reply() == (RESULT, instance)
    assert process.client.call(server.address, encode_text("instance"), (), {}) == process.instance


@pytest.mark.parametrize("fields", [b"", b"{", b"5", b'{"group":5}', b'{"instance":5}',
                                    b'{"instance":"%s"}' % (b"x" * 65), b'{"features":"x"}',
                                    b'{"group":"%s"}' % (b"x" * 65), b"[" * 700])
def test_a_preface_without_sense_is_refused(client, server, fields):
    client.sock.sendall(MAGIC + b"\1\0" + len(fields).to_bytes(2, "big") + fields
                        + request("add", 1))
    kind, content = client.reply()
    assert kind == FAILURE and content["refused"] == "ProtocolError" and content["ran"] == "no"
    assert client.rest() == b""
    assert client.session.hello is None and not server.tally()


# ------------------------------------------------------------------------------------- requests

def test_requests_are_answered_in_order_on_one_connection(client, server):
    client.sock.sendall(PREFACE)
    for number in range(3):
        assert client.ask("add", number, b=10) == (RESULT, number + 10)
    assert server.connections == 1


def test_several_requests_in_one_piece_are_all_answered(client):
    client.sock.sendall(PREFACE + b"".join(request("add", number) for number in range(5)))
    assert [client.reply() for _ in range(5)] == [(RESULT, number + 1) for number in range(5)]


@pytest.mark.parametrize("step", [1, 3, 7])
def test_preface_and_requests_may_come_in_pieces(client, step):
    data = PREFACE + request("echo", "in pieces") + request("add", 41)
    for start in range(0, len(data), step):
        client.sock.sendall(data[start:start + step])
        time.sleep(0.0005)
    assert client.reply() == (RESULT, "in pieces")
    assert client.reply() == (RESULT, 42)


def test_a_reply_carries_the_number_of_its_request(client):
    client.sock.sendall(PREFACE)
    assert type(client.event()) is Hello
    add = b'{"tag":"%s","args":[1],"kwargs":{}}' % encode_text("add")
    for number in (0, 1, 1, 77, 2 ** 32 - 1):
        for kind, text, answer in ((CALL, add, RESULT), (CALL, b'{"tag":"eA=="}', FLAG),
                                   (CALL, b"[", FAILURE), (CALL, add[:-15] + b"}", FAILURE),
                                   (99, b"", FAILURE)):
            client.sock.sendall(frame(kind, text, number))
            event = client.event()
            assert (event.kind, event.number) == (answer, number)


def test_a_kind_of_later_versions_is_refused_and_the_connection_goes_on(client, server):
    client.sock.sendall(PREFACE)
    for kind in (0, 17, 255):
        for more in ({}, {"buffers": [b"x" * 100, b""], "tagged": True}):
            client.sock.sendall(frame(kind, b"anything", 5, **more))
            answer, content = client.reply()
            assert answer == FAILURE and content["refused"] == "ProtocolError"
            assert content["ran"] == "no" and f"kind {kind}" in content["reason"]
    assert client.ask("add", 1) == (RESULT, 2)


def test_whether_it_is_alive_can_be_asked_at_any_time(client, server):
    client.sock.sendall(PREFACE)
    assert client.ask("add", 1) == (RESULT, 2)
    for number in (1, 77, 2 ** 32 - 1):
        client.sock.sendall(frame(PING, b"", number))
        assert client.event() == Frame(RESULT, number, False, b"null")
    assert client.ask("add", 1) == (RESULT, 2)
    assert list(server.tally()) == [encode_text("add")]


@pytest.mark.parametrize("kind", [RESULT, FAILURE, FLAG, HELLO, CANCEL, 15])
def test_a_kind_that_no_caller_may_send_ends_the_connection(client, server, kind):
    client.sock.sendall(PREFACE + frame(kind, b"{}", 5) + request("add", 1))
    assert type(client.event()) is Hello
    event = client.event()
    content = json.loads(event.text)
    assert (event.kind, event.number, content["refused"]) == (FAILURE, 0, "ProtocolError")
    assert f"kind {kind} may not come now" in content["reason"]
    assert client.rest() == b""
    assert not server.tally()


def test_a_server_without_events_refuses_subscriptions_and_goes_on(client):
    client.sock.sendall(PREFACE + frame(SUBSCRIBE, b'{"event":"done","tag":"eA=="}', 3))
    kind, content = client.reply()
    assert kind == FAILURE and content["refused"] == "ProtocolError"
    assert client.ask("add", 1) == (RESULT, 2)


def test_a_subscription_hands_its_connection_over(server, functions):
    handed = []
    server._hand_over = handed.append
    with Client(server) as client:
        client.sock.sendall(encode_preface("render") + request("add", 1))
        assert client.reply() == (RESULT, 2)
        rest = frame(SUBSCRIBE, b"2", 10)
        client.sock.sendall(frame(SUBSCRIBE, b"1", 9) + rest)
        until(lambda: handed and server.connections == 0)
        (taken,) = handed
        assert (taken.first.number, taken.first.text, taken.group) == (9, b"1", "render")
        assert taken.address == client.sock.getsockname()
        assert next_event(taken.stream, taken.session).number == 10
        taken.stream.send([b"".join(pack(RESULT, 9, b"0"))])
        assert client.reply() == (RESULT, 0)
        taken.stream.close()
        assert client.rest() == b""


def test_a_connection_that_is_handed_over_is_not_watched_as_one_in_a_call(
        server, functions, monkeypatch):
    watching: List[bool] = []
    called, release = threading.Event(), threading.Event()
    functions[encode_text("wait")] = lambda: called.set() or release.wait(patience(5))

    def look_twice() -> None:
        server._ticking.cancel()
        server._tick()
        server._ticking.cancel()
        server._tick()

    def hand_over(handover: Any) -> None:
        in_loop(server, look_twice)
        watching.append(handover.stream.sock in server._loop._watches)
        handover.stream.close()

    # The loop may come to it only when the thread has read what came.
    monkeypatch.setattr(server, "_look", lambda *args: None)
    monkeypatch.setattr(server, "_hand_over", hand_over)
    with Client(server) as client:
        client.sock.sendall(PREFACE + request("wait"))
        assert called.wait(patience(5))
        in_loop(server, look_twice)
        (sock,) = [one.stream.sock for one in server._served]
        assert sock in server._loop._watches
        release.set()
        assert client.reply() == (RESULT, True)
        client.sock.sendall(frame(SUBSCRIBE, b"1", 9))
        until(lambda: watching)
    assert watching == [False]


def test_a_reply_is_delivered_after_the_client_has_ended_its_half(client):
    client.sock.sendall(PREFACE + request("add", 1))
    client.sock.shutdown(socket.SHUT_WR)
    assert client.reply() == (RESULT, 2)
    assert client.rest() == b""


def test_an_error_and_an_unknown_tag_leave_the_connection(client):
    client.sock.sendall(PREFACE)
    kind, content = client.ask("fail")
    assert kind == FAILURE and content["raised"]["types"][0] == ["builtins", "KeyError"]
    kind, content = client.ask("exit")
    assert kind == FAILURE and content["raised"]["types"][0] == ["builtins", "SystemExit"]
    kind, content = client.ask("ad")
    assert kind == FLAG and content["flag"] == "SU5WQUxJRF9DT05ORUNUSU9O"
    assert client.ask("add", 1) == (RESULT, 2)


def test_a_call_without_sense_gets_a_refusal_and_the_connection_goes_on(client):
    client.sock.sendall(PREFACE)
    tag = encode_text("add")
    for text in (b"5", b"[", b"{}", b'{"tag": 5, "args": [], "kwargs": {}}', b"\xff",
                 b'{"tag":"%s", "args": {}, "kwargs": {}}' % tag, b"[" * 3000 + b"]" * 3000,
                 b'{"tag":"%s","args":' % tag + b"[" * 3000 + b"]" * 3000 + b"}",
                 b'{"connection": "%s", "args": [], "kwargs": {}}' % tag):
        client.sock.sendall(frame(CALL, text))
        kind, content = client.reply()
        assert kind == FAILURE and content["refused"] == "ProtocolError"
        assert content["ran"] == "no"
    assert client.ask("add", 1) == (RESULT, 2)


def test_the_function_knows_where_its_caller_is(client):
    client.sock.sendall(PREFACE)
    assert client.ask("where") == (RESULT, list(client.sock.getsockname()))
    assert caller() is None


def test_a_registry_is_looked_up_anew_for_each_request(client, functions):
    client.sock.sendall(PREFACE)
    assert client.ask("late")[0] == FLAG
    functions[encode_text("late")] = lambda: "now"
    assert client.ask("late") == (RESULT, "now")
    functions[encode_text("late")] = lambda: "another"
    assert client.ask("late") == (RESULT, "another")


# -------------------------------------------------------------------------------- what is not ours

@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n",
    b"\x00", b"\xff" * 100, MAGIC[:2] + b"xx", b"\xabnex\x01\0\0\0" + request("add", 1),
    PREFACE + PREFACE, PREFACE + b"\x01\xff" + bytes(10), MAGIC + b"\1\1\0\0",
    MAGIC + b"\1\0\xff\xff",
])
def test_anything_else_is_closed_at_once_without_a_reply(client, server, data):
    client.sock.sendall(data)
    assert client.rest() == b""
    until(lambda: server.connections == 0)
    assert not server.tally()


def test_a_request_behind_something_else_is_never_looked_at(client, server):
    client.sock.sendall(b"POST / HTTP/1.1\r\n\r\n" + PREFACE + request("add", 1))
    assert client.rest() == b""
    assert not server.tally()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_by_a_frame_that_names_both(client, version):
    client.sock.sendall(MAGIC + bytes((version, 0, 0, 0)) + request("add", 1))
    kind, content = client.reply()
    assert kind == FAILURE and content["refused"] == "ProtocolError"
    assert client.session.hello is None
    assert f"version {version} " in content["reason"] and "version 1" in content["reason"]
    assert client.rest() == b""


def test_a_frame_over_the_limit_is_refused_before_it_has_come(client, server):
    client.sock.sendall(PREFACE + HEADER.pack(CALL, 0, 0, 1, 0xffffffff))
    kind, content = client.reply()
    assert kind == FAILURE and content["refused"] == "MessageTooLarge"
    assert content["setting"] == "NET_MAX_TEXT"
    assert client.rest() == b""


# -------------------------------------------------------------------------------------------- time

@pytest.mark.parametrize("data", [b"", b"\xab", PREFACE[:7], PREFACE[:-1], PREFACE,
                                  PREFACE + request("add", 1)[:-1]])
def test_a_connection_that_does_not_begin_is_closed(functions, monkeypatch, data):
    monkeypatch.setattr(server_connection, "GREETING_TIME", 0.05)
    # For the first request, from the HELLO on.
    monkeypatch.setitem(vars(settings), "request_time", 0.05)
    monkeypatch.setattr(server_module, "TICK", 0.02)
    served = serve(Dispatch(functions))
    with Client(served) as client:
        client.sock.sendall(data)
        if data.startswith(PREFACE):  # a peer is told why
            kind, content = client.reply()
            assert kind == FAILURE and "NET_REQUEST_TIME" in str(content)
        assert client.rest() == b""
    served.close()


def test_a_connection_without_requests_is_closed_and_one_in_a_call_is_not(functions, monkeypatch):
    monkeypatch.setitem(vars(settings), "idle_time", 0.1)
    monkeypatch.setattr(server_module, "TICK", 0.02)
    release = threading.Event()
    functions[encode_text("wait")] = lambda: release.wait(patience(5))
    served = serve(Dispatch(functions))
    with Client(served) as idle, Client(served) as busy:
        busy.sock.sendall(PREFACE + request("wait"))
        idle.sock.sendall(PREFACE)
        assert idle.ask("add", 1) == (RESULT, 2)
        assert idle.rest() == b""
        release.set()
        assert busy.reply() == (RESULT, True)
        assert busy.rest() == b""
    served.close()


def test_a_request_that_drips_is_closed_at_its_time(functions, monkeypatch):
    monkeypatch.setitem(vars(settings), "request_time", 0.2)
    monkeypatch.setattr(server_module, "TICK", 0.02)
    served = serve(Dispatch(functions))
    with Client(served) as client:
        client.sock.sendall(PREFACE)
        start = time.monotonic()
        try:
            for byte in request("echo", "x" * 1000):
                client.sock.sendall(bytes((byte,)))
                time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            pass
        kind, content = client.reply()
        assert kind == FAILURE and "NET_REQUEST_TIME" in str(content)
        assert time.monotonic() - start < patience(3)
    assert not served.tally()
    served.close()


def test_a_client_that_reads_no_replies_holds_up_nobody_when_its_time_is_over(server):
    with Client(server) as client:
        client.sock.sendall(PREFACE)
        assert client.ask("add", 1) == (RESULT, 2)
        (connection,) = server._served
        client.sock.sendall(request("echo", "x")[:-1])
        with pytest.raises(BlockingIOError):
            while True:  # as replies that it does not read
                connection.stream.sock.send(b"x" * 2 ** 16, socket.MSG_DONTWAIT)
        in_loop(server, lambda: server._end_early(connection, ProtocolError(None, "too late")))


# ---------------------------------------------------------------------------------------- counting

def test_calls_errors_and_seconds_are_counted_for_each_tag(server):
    with Client(server) as client:
        client.sock.sendall(PREFACE)
        for _ in range(3):
            client.ask("add", 1)
        client.ask("fail")
        client.ask("unknown")
        counted = server.tally()
    with socket.create_connection(server.address, timeout=patience(5)) as old:
        old.sendall(legacy.LegacySession(legacy.BASE64).call(encode_text("add"), [1], {}))
        old.recv(1024)
    until(lambda: server.connections == 0)
    found = [counted[encode_text(name)] for name in ("add", "fail")]
    assert [(count.calls, count.errors) for count in found] == [(3, 0), (1, 1)]
    after = server.tally()
    assert after[encode_text("add")].calls == 4
    assert set(after) == {encode_text("add"), encode_text("fail")}
    assert all(0 <= count.seconds < 5 for count in after.values())


# ----------------------------------------------------------------------------------- begin and end

def test_ports_are_tried_in_order(functions, port_range):
    servers = [serve(Dispatch(functions), port_range, any_port=False) for _ in port_range]
    assert [one.address[1] for one in servers] == list(port_range)
    with pytest.raises(net.NoFreePort) as caught:
        serve(Dispatch(functions), port_range, any_port=False)
    assert caught.value.ports == port_range
    extra = serve(Dispatch(functions), port_range)
    assert extra.address[1] not in port_range
    servers[2].close()
    again = serve(Dispatch(functions), port_range, any_port=False)
    assert again.address[1] == port_range[2]
    for one in (*servers, extra, again):
        one.close()


def test_a_port_is_free_again_at_once_after_calls(functions, port_range):
    ports = port_range[:1]
    for _ in range(5):
        served = serve(Dispatch(functions), ports, any_port=False)
        with Client(served) as client:
            client.sock.sendall(PREFACE)
            assert client.ask("add", 1) == (RESULT, 2)
            # The server closes first, so that the connection stays in TIME_WAIT on its side.
            served.close()
            assert client.rest() == b""


def test_an_address_that_is_not_of_this_host_is_an_error(functions):
    with pytest.raises(OSError) as caught:
        serve(Dispatch(functions), range(20000, 20006), host="192.0.2.1")
    assert not isinstance(caught.value, net.NoFreePort)


def test_without_a_thread_the_port_is_left_free(functions, port_range, monkeypatch):
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(OSError, match="can't start new thread"):
            serve(Dispatch(functions), port_range, any_port=False)
    served = serve(Dispatch(functions), port_range, any_port=False)
    assert served.address[1] == port_range[0]
    served.close()


def test_one_thread_serves_connections_that_come_one_after_the_other_and_ends(functions):
    seen: ContextVar[int] = ContextVar("seen", default=0)

    def note(number: int) -> List[int]:
        before = seen.get()
        seen.set(number)
        return [threading.get_ident(), before]

    functions[encode_text("note")] = note
    before = threading.enumerate()
    served = serve(Dispatch(functions))
    idents = set()
    for number in (1, 2, 3):
        with Client(served) as client:
            client.sock.sendall(PREFACE)
            _, (ident, already) = client.ask("note", number)
            assert already == 0, "what one connection's function sets is not the next one's"
            assert client.ask("note", number)[1] == [ident, number]
            idents.add(ident)
            with Client(served) as other:  # which takes a thread of its own
                other.sock.sendall(PREFACE)
                assert other.ask("note", 0)[1][0] != ident
        until(lambda: served._spare_waits)
    assert len(idents) == 1
    served.close()
    until(lambda: not [one for one in threading.enumerate() if one not in before])


def test_nobody_waits_until_the_thread_of_another_connection_runs(server, monkeypatch):
    real, go, tried = threading.Thread.start, threading.Event(), threading.Event()

    def start(thread: threading.Thread) -> None:
        if thread.name == f"net-{server.address[1]}":
            tried.set()
            assert go.wait(patience(20))
        real(thread)

    with Client(server) as first, Client(server) as second, Client(server) as third:
        first.sock.sendall(PREFACE)
        assert first.ask("add", 1) == (RESULT, 2)  # in the thread that is always there
        monkeypatch.setattr(threading.Thread, "start", start)
        second.sock.sendall(PREFACE + request("add", 2))
        try:
            assert tried.wait(patience(5))
            third.sock.sendall(PREFACE)
            assert type(third.event()) is Hello
            assert first.ask("add", 3) == (RESULT, 4)
        finally:
            go.set()
        assert second.reply() == (RESULT, 3)
        assert third.ask("add", 4) == (RESULT, 5)


def test_closing_ends_idle_and_working_connections(functions):
    release = threading.Event()
    started = threading.Event()

    def wait() -> None:
        started.set()
        release.wait(patience(5))

    functions[encode_text("wait")] = wait
    served = serve(Dispatch(functions))
    with Client(served) as idle, Client(served) as busy:
        idle.sock.sendall(PREFACE)
        idle.ask("add", 1)
        busy.sock.sendall(PREFACE + request("wait"))
        assert started.wait(patience(5))
        served.close()
        served.close()
        assert (idle.rest(), busy.rest()) == (b"", b"")
        release.set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(served.address)


def in_time(function: Callable[[], Any]) -> Any:
    """What a function gives that may not wait for ever."""
    given: List[Any] = []
    thread = threading.Thread(target=lambda: given.append(function()), daemon=True)
    thread.start()
    thread.join(patience(5))
    assert not thread.is_alive()
    return given[0]


def test_a_signal_handler_may_close_a_server_whatever_its_thread_does(functions, monkeypatch):
    served = serve(Dispatch(functions))
    monkeypatch.setattr(Tally, "merge", lambda *args: served.close())
    assert in_time(served.tally) == {}


def test_a_forked_child_waits_for_no_thread_of_its_parent(functions):
    served = serve(Dispatch(functions))
    served.close()
    until(lambda: served._spare is None)  # a child has no thread that would close it, too
    with served._lock:
        served.abandon()
        assert in_time(lambda: served.running) == 0


class EndsWhenUsed:
    """A listener whose server is ended at the moment when the loop uses it.

    :param step: ``fileno``, as the loop begins to wait for it, or ``accept``.
    """

    def __init__(self, step: str, end: Callable[[], None]) -> None:
        self._listener = listen_in_range(TcpCarrier(), "127.0.0.1", range(0), 5, True)
        self._step, self._end = step, end
        self.used = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name == self._step and not self.used.is_set():
            self._end()
            self.used.set()
        return getattr(self._listener, name)


@pytest.mark.parametrize("end", [Server.close, lambda server: server.drain(0)],
                         ids=["close", "drain"])
@pytest.mark.parametrize("step", ["fileno", "accept"])
def test_an_end_at_the_moment_when_the_loop_uses_a_listener_is_no_error(
        functions, monkeypatch, caplog, step, end):
    monkeypatch.setattr(loop_module, "note", RateLimitedLog(loop_module.note._log._logger))
    monkeypatch.setattr(server_module, "note", RateLimitedLog(server_module.note._log._logger))
    loop, made = loop_module.Loop("net-test"), threading.Event()
    listener = EndsWhenUsed(step, lambda: end(served))
    loop.call_soon(lambda: made.wait(patience(5)))
    served = Server(Dispatch(functions), [listener], loop, settings, "abc")
    made.set()
    if step == "accept":
        socket.create_connection(served.address).close()
    assert listener.used.wait(patience(5))
    served.close()
    until(lambda: not loop._current)
    assert not caplog.records


def test_no_call_is_accepted_at_the_moment_when_the_server_closes(functions, monkeypatch):
    loop, sent, ran = loop_module.Loop("net-test"), threading.Event(), []
    functions[encode_text("run")] = lambda: ran.append(1)

    def close_before_it_has_a_place(connection: Any) -> Any:
        served.close()
        return give_place(connection)

    loop.call_soon(lambda: sent.wait(patience(5)))
    listener = listen_in_range(TcpCarrier(), "127.0.0.1", range(0), 5, True)
    served = Server(Dispatch(functions), [listener], loop, settings, "abc")
    give_place = served._give_place
    monkeypatch.setattr(served, "_give_place", close_before_it_has_a_place)
    with Client(served) as client:
        client.sock.sendall(PREFACE + request("run"))
        sent.set()
        refusal = client.event()
        assert (refusal.kind, json.loads(refusal.text)["refused"]) == (FAILURE, "PeerBusy")
        assert client.rest() == b""
    until(lambda: not loop._current)
    assert not ran and not served.connections


def test_a_connection_that_ends_by_itself_while_it_is_evicted_is_forgotten(
        functions, monkeypatch):
    served = serve(Dispatch(functions))
    with Client(served) as client:
        client.sock.sendall(PREFACE)
        assert client.ask("add", 1) == (RESULT, 2)
        end_early = served._end_early

        def end_late(*args: Any) -> None:
            client.sock.close()
            until(lambda: not served._evicted)
            end_early(*args)

        monkeypatch.setattr(served_module, "IDLE_GRACE", -1.0)
        monkeypatch.setattr(served, "_end_early", end_late)
        in_loop(served, lambda: served._evict_one(None))
    assert not served._evicted
    (count,) = served.tally().values()
    assert count.calls == 1
    served.close()
    until(lambda: not served._loop._current)


class Crowded:
    """A listener without a descriptor for another client while as many connections are open."""

    def __init__(self, served: Server, most: int, clients: int) -> None:
        self._served, self._most = served, most
        self._listener = listen_in_range(TcpCarrier(), "127.0.0.1", range(0), clients, True)
        self.clients = [socket.create_connection(self._listener.endpoint.address, patience(5))
                        for _ in range(clients)]

    def accept(self) -> Any:
        if self._served.connections + len(self._served._refused) >= self._most:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def close(self) -> None:
        self._listener.close()
        for client in self.clients:
            client.close()


def test_without_descriptors_silent_connections_give_way_at_once(server, monkeypatch):
    pauses: List[float] = []
    monkeypatch.setattr(server, "_pause", pauses.append)
    crowded = Crowded(server, 3, 10)
    crowded.clients[-1].sendall(PREFACE)
    for _ in range(20):  # as the loop does while clients wait
        in_loop(server, lambda: server._accept(crowded, 0))
    assert crowded.clients[-1].recv(1)  # it has its place: HELLO
    assert set(pauses) == {0} and len(pauses) < 10
    crowded.close()


def test_without_descriptors_a_connection_that_was_told_why_has_to_end(functions, monkeypatch):
    served = serve(Dispatch(functions))
    pauses: List[float] = []
    monkeypatch.setattr(served, "_pause", pauses.append)
    with Client(served) as client:
        # A request so large that a thread receives it.
        client.sock.sendall(PREFACE + request("echo", "x" * 300_000)[:-1])
        until(lambda: served.connections == 1 and not served._newcomers)
        crowded = Crowded(served, 0, 1)
        for _ in range(2):
            in_loop(served, lambda: served._accept(crowded, 0))
        assert pauses == [server_module.END_TIME] * 2
        until(lambda: not served._evicted)  # although the client does not end
        assert client.event() and client.event().kind == FAILURE
    crowded.close()
    served.close()
    until(lambda: not served._loop._current)


def test_nothing_is_watched_that_its_thread_closes_at_that_moment(functions, monkeypatch):
    served = serve(Dispatch(functions))
    watched: List[Any] = []
    functions[encode_text("me")] = lambda: watched.extend(served._served)
    close = Stream.close

    def close_after_it_was_watched(stream: Stream) -> None:
        if watched and stream is watched[0].stream:
            in_loop(served, lambda: served._watch(watched[0], 1))
            watched.append(True)
        close(stream)

    monkeypatch.setattr(Stream, "close", close_after_it_was_watched)
    with Client(served) as client:
        client.sock.sendall(PREFACE)
        assert client.ask("me") == (RESULT, None)
    until(lambda: len(watched) == 2)
    served.close()
    until(lambda: not served._loop._current)


@pytest.fixture
def draining(functions) -> Iterator[Any]:
    """A server that drains because of one call, the client of that call, and what lets it end; an
    idle client, and one that has only greeted."""
    release, started = threading.Event(), threading.Event()

    def wait() -> str:
        started.set()
        return str(release.wait(patience(5)))

    functions[encode_text("wait")] = wait
    served = serve(Dispatch(functions))
    with Client(served) as busy, Client(served) as idle, Client(served) as new:
        idle.sock.sendall(PREFACE)
        idle.ask("add", 1)
        new.sock.sendall(PREFACE)
        assert type(new.event()) is Hello
        busy.sock.sendall(PREFACE + request("wait"))
        assert started.wait(patience(5))
        thread = threading.Thread(target=served.drain, args=(patience(5),))
        thread.start()
        # All are told, in no certain order.
        until(lambda: all(one.ending is not None for one in list(served._served)))
        yield busy, release, idle, new
        release.set()
        thread.join()
        served.close()


def test_a_server_that_drains_refuses_further_requests_and_lets_running_calls_end(draining):
    busy, release, idle, new = draining
    for client in (idle, new):
        refusal = client.event()  # unasked, so that the next request has its answer already
        assert (refusal.kind, refusal.number) == (FAILURE, 0)
        assert json.loads(refusal.text)["refused"] == "PeerBusy"
    release.set()
    assert busy.reply() == (RESULT, "True")
    assert busy.event().number == 0


def test_a_client_that_never_pauses_is_refused_while_a_server_drains(draining, functions):
    busy, release, _, _ = draining
    ran = []
    functions[encode_text("late")] = lambda: ran.append(1)
    busy.sock.sendall(request("late"))
    release.set()
    assert busy.reply() == (RESULT, "True")
    refusal = busy.event()
    assert (refusal.kind, refusal.number) == (FAILURE, 0) and not ran


def test_a_function_may_close_the_server_that_it_is_called_through(functions):
    served = serve(Dispatch(functions))
    functions[encode_text("close")] = served.close
    with Client(served) as client:
        client.sock.sendall(PREFACE + request("close"))
        assert client.rest() == b""
    until(lambda: served.connections == 0)


def test_many_clients_at_once_are_all_served(server):
    results: List[Any] = []

    def ask(number: int) -> None:
        with Client(server) as client:
            client.sock.sendall(PREFACE)
            results.append(client.ask("add", number) == (RESULT, number + 1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 50
    until(lambda: server.connections == 0)


def connected(server: Server, source: str) -> socket.socket:
    """A connection from a loopback address that has asked for something."""
    sock = socket.create_connection(server.address, patience(10), (source, 0))
    sock.sendall(PREFACE + request("add", 1))
    return sock


@pytest.fixture
def held_up(functions, monkeypatch) -> Iterator[Any]:
    """A server whose loop has not accepted anything yet; what lets it go on; and from where it has
    taken connections then, in that order."""
    loop, go, order = loop_module.Loop("net-test"), threading.Event(), []
    listener = listen_in_range(TcpCarrier(), "127.0.0.1", range(0), 50, True)
    loop.call_soon(lambda: go.wait(patience(10)))
    served = Server(Dispatch(functions), [listener], loop, settings, "abc")
    take = served._take
    monkeypatch.setattr(served, "_take", lambda sock, address: (
        order.append(address[0]), take(sock, address)))
    yield served, go, order
    go.set()
    served.close()
    until(lambda: not loop._current)


def rest_of(sock: socket.socket) -> bytes:
    """What a connection still brings, with which nothing more is asked."""
    found = b""
    try:
        sock.shutdown(socket.SHUT_WR)
        while True:
            data = sock.recv(10_000)
            if not data:
                return found
            found += data
    except OSError:  # it was reset
        return found


def test_sources_take_turns_when_many_connections_have_come(held_up):
    served, go, order = held_up
    with ExitStack() as opened:
        many = [opened.enter_context(connected(served, "127.0.0.9")) for _ in range(5)]
        few = [opened.enter_context(connected(served, "127.0.0.5")) for _ in range(2)]
        go.set()
        assert all(after_hello(rest_of(sock)).endswith(b"2") for sock in (*few, *many))
    assert [host[-1] for host in order] == list("9595999")


@pytest.mark.parametrize("taken, most", [(0, 1), (4, 4), (100, 4)])
def test_the_excess_of_the_source_that_has_most_connections_is_refused(
        held_up, monkeypatch, taken, most):
    monkeypatch.setattr(server_module, "MAX_WAITING", most)
    monkeypatch.setattr("net.run.served.ServedConnections.__len__", lambda self: taken)
    monkeypatch.setitem(held_up[0]._settings.__dict__, "max_connections", 4)
    monkeypatch.setattr(server_module, "TURN", -1.0)  # one in each turn
    served, go, order = held_up
    with ExitStack() as opened:
        many = [opened.enter_context(connected(served, "127.0.0.9")) for _ in range(6)]
        few = [opened.enter_context(connected(served, "127.0.0.5")) for _ in range(2)]
        go.set()
        assert all(after_hello(rest_of(sock)).endswith(b"2") for sock in few)
        replies = [rest_of(sock) for sock in many]
    refused = [reply for reply in replies if b"PeerBusy" in reply]
    assert 2 <= len(refused) <= 5
    assert len(order) == 8 - len(refused)


def test_closing_ends_what_has_been_accepted_and_waits_for_its_turn(held_up, monkeypatch):
    monkeypatch.setattr(server_module, "TURN", -1.0)
    served, go, order = held_up
    with ExitStack() as opened:
        socks = [opened.enter_context(connected(served, "127.0.0.9")) for _ in range(3)]
        monkeypatch.setattr(served, "_start", lambda sock, address: (sock.close(), served.close()))
        go.set()
        assert [rest_of(sock) for sock in socks] == [b""] * 3


@pytest.mark.parametrize("where", ["_give_place", "_start_thread"])
def test_an_error_of_ours_in_the_loop_is_logged_and_it_goes_on(
        server, monkeypatch, caplog, where):
    failed = threading.Event()

    def fail(*args: Any) -> None:
        failed.set()
        raise RuntimeError("ours")

    with monkeypatch.context() as patched:
        patched.setattr(loop_module, "note", RateLimitedLog(loop_module.note._log._logger))
        patched.setattr(server, where, fail)
        with Client(server) as client:
            client.sock.sendall(PREFACE + request("add", 1))
            assert failed.wait(patience(5))
            until(lambda: any(one.exc_info and "ours" in str(one.exc_info[1])
                              for one in caplog.records))
            assert client.rest() == b""
    with Client(server) as client:
        client.sock.sendall(PREFACE)
        assert client.ask("add", 2, b=3) == (RESULT, 5)


def test_an_error_of_ours_with_one_connection_is_not_the_end_of_others(held_up, monkeypatch):
    served, go, order = held_up
    give_place, failing = served._give_place, [RuntimeError("ours")]

    def fail_once(connection: Any) -> Any:
        if failing:
            raise failing.pop()
        return give_place(connection)

    monkeypatch.setattr(served, "_give_place", fail_once)
    with connected(served, "127.0.0.9") as one, connected(served, "127.0.0.5") as other:
        go.set()
        assert rest_of(one) == b""
        assert after_hello(rest_of(other)).endswith(b"2")


def test_an_error_of_ours_in_a_connection_ends_that_one_alone(server, client, monkeypatch, caplog):
    client.sock.sendall(PREFACE)
    assert client.ask("add", 1) == (RESULT, 2)

    def fail(*of_the_connection: object) -> None:
        raise RuntimeError("ours")

    with monkeypatch.context() as patched:
        patched.setattr(server_connection.ServerConnection, "run", fail)
        with Client(server) as other:
            other.sock.sendall(PREFACE + request("add", 1))
            assert other.rest() == b""
    assert "a connection failed" in caplog.text
    assert client.ask("add", 2, b=3) == (RESULT, 5)
    until(lambda: server.connections == 1)
