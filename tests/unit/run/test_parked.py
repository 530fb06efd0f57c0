"""Connections that the loop of coroutines keeps between calls, against raw sockets."""
from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any, Iterator, List

import pytest

import memory
import net
from each import each
from loops import running_asyncio, start_asyncio
from net.context import current
from net.dispatch import Dispatch
from net.errors import CallTimeout, PeerBusy
from net.identity import encode_text
from net.run import server as server_module
from net.run.server import Server
from net.settings import settings
from net.wire.frames import CALL, END, ITEM, PING, SUBSCRIBE, EndOfStream, pack
from net.wire.messages import encode_call
from service import PREFACE, Raw, request, serve, until
from times import patience

variable: ContextVar[int] = ContextVar("variable", default=0)


class Functions:
    """What the server has, and what became of it.

    :ivar prepared: tags of the calls that the loop has taken itself.
    """

    def __init__(self, loop: Any, other: Any) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()
        self.go = threading.Event()
        self.prepared: List[str] = []
        functions = {name[1:]: getattr(self, name) for name in dir(self) if name[:1] == "_"
                     and name[1:2] != "_"}
        functions["local"] = lambda value: value
        self.dispatch = _Noting(
            {encode_text(name): function for name, function in functions.items()},
            {encode_text("grouped"): frozenset({"them"})}, {encode_text("elsewhere"): other},
            coroutines=lambda: loop)
        self.dispatch.noted = self.prepared

    @staticmethod
    async def _echo(value: Any = None) -> Any:
        return value

    @staticmethod
    async def _context() -> List[Any]:
        before = variable.get()
        variable.set(before + 1)
        context = current()
        assert context is not None and context.caller.address is not None
        await asyncio.sleep(0)
        return [before, context.remaining(), threading.get_ident(), variable.get()]

    @staticmethod
    async def _size(value: bytes) -> int:
        return len(value)

    @staticmethod
    async def _pause() -> None:
        await asyncio.sleep(0.01)

    @staticmethod
    async def _fail(text: str) -> None:
        await asyncio.sleep(0)
        raise KeyError(text)

    @staticmethod
    async def _items() -> Iterator[int]:
        return iter_of(3)

    @staticmethod
    def _later(value: Any) -> Any:
        return Functions._echo(value)

    @staticmethod
    async def _grouped() -> int:
        return 1

    @staticmethod
    async def _elsewhere() -> int:
        return threading.get_ident()

    async def _endless(self) -> None:
        self.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _block(self) -> bool:
        self.began.set()
        return self.go.wait(patience(20))

    def _wait(self) -> bool:
        self.began.set()
        return self.go.wait(patience(20))


class _Noting(Dispatch):
    noted: List[str]

    def prepare(self, frame: Any, *args: Any) -> Any:
        found = super().prepare(frame, *args)
        if found is not None:
            self.noted.append(net.identity.tag_name(found.tag))
        return found


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    with running_asyncio() as loop:
        yield loop


@pytest.fixture
def functions(asyncio_loop, other_loop) -> Iterator[Functions]:
    found = Functions(asyncio_loop, other_loop)
    yield found
    found.go.set()


@pytest.fixture
def server(functions, monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(server_module, "TICK", 0.02)
    served = serve(functions.dispatch)
    yield served
    functions.go.set()
    served.close()
    until(lambda: not served.connections)
    until(lambda: not threads_of(served))


def threads_of(server: Server) -> List[Any]:
    return [one for one in threading.enumerate() if one.name == f"net-{server.address[1]}"]


@pytest.fixture
def client(server) -> Iterator[Raw]:
    """A connection that the loop keeps."""
    with Raw(server.address, PREFACE) as client:
        park(server, client)
        yield client


def park(server: Server, client: Raw) -> None:
    client.send(request("echo", 1))
    assert client.reply() == 1
    until(lambda: [one for one in server._served if one.parked and one.parked.is_idle])


def only(server: Server) -> Any:
    [connection] = server._served
    return connection


def ask(client: Raw, name: str, *args: Any, **kwargs: Any) -> Any:
    client.send(request(name, *args, **kwargs))
    return client.reply()


def test_calls_that_follow_are_those_of_the_loop_and_are_counted(server, client, functions):
    for value in (None, "x" * 1000, [1, 2.5], {"a": 1}):
        assert ask(client, "echo", value) == value
    assert functions.prepared == ["echo"] * 4
    count = server.tally()[encode_text("echo")]
    assert (count.calls, count.errors) == (5, 0)
    # A reply may come before the loop has ended its call.
    until(lambda: only(server).call == 0 and only(server).idle_since() < float("inf"))


def test_each_has_the_context_of_its_own(client, functions):
    first, second = ask(client, "context"), ask(client, "context")
    assert first == second and first[0] == 0 and first[1] is None and first[3] == 1
    client.send(b"".join(encode_call(1, encode_text("context"), (), {}, seconds=50)))
    left = client.reply()[1]
    assert 0 < left <= 50
    assert ask(client, "context")[1] is None
    assert functions.prepared == ["context"] * 4
    assert ask(client, "local", 1) == 1  # so that the next one is begun by the thread
    assert [ask(client, "context")[0] for _ in range(3)] == [0] * 3


@each("call", [("echo", "x" * 5000), ("echo", {1, 2}), ("echo", b"x" * 100_000), ("local", 5),
               ("later", 5), ("local", {"x": (1, 2)}), ("echo", [[1], [2]])])
def test_what_is_not_for_the_loop_is_answered_by_the_thread_and_it_goes_on(
        server, client, functions, call):
    name, value = call
    for _ in range(2):
        assert ask(client, name, value) == value
        park(server, client)
    assert ask(client, "echo", 3) == 3
    assert functions.prepared[-1] == "echo"


@each("call", [("fail", "it"), ("echo", 1, 2), ("grouped",), ("unknown",), ("local",)])
def test_errors_are_those_of_the_thread(server, client, functions, call):
    with Raw(server.address, PREFACE) as plain:
        plain.send(request(*call))
        try:
            expected: Any = plain.reply()
        except Exception as problem:
            expected = type(problem), str(problem)
    client.send(request(*call))
    try:
        found: Any = client.reply()
    except Exception as problem:
        found = type(problem), str(problem)
    assert found == expected
    assert ask(client, "echo", 3) == 3


def test_a_stream_of_a_coroutine_is_sent_by_the_thread(server, client):
    client.send(request("items"))
    kinds = [client._event().kind]
    while kinds[-1] != END:
        kinds.append(client._event().kind)
    assert set(kinds[:-1]) == {ITEM}
    park(server, client)


@each("cut", [1, 11, 12, 30, -1])
def test_a_call_may_come_in_parts(server, client, cut):
    call = request("echo", 7)
    client.send(call[:cut])
    until(lambda: not only(server).parked.is_idle)
    client.send(call[cut:])
    assert client.reply() == 7
    park(server, client)


def test_several_in_one_piece_are_answered_in_order(server, client):
    client.send(b"".join(request("echo", number) for number in range(50)))
    assert [client.reply() for _ in range(50)] == list(range(50))
    park(server, client)


def test_what_comes_while_a_call_runs_is_answered_behind_it(server, client, functions):
    client.send(request("block"))
    assert functions.began.wait(patience(5))
    client.send(request("local", 2))
    client.send(request("echo", 3))
    functions.go.set()
    assert [client.reply() for _ in range(3)] == [True, 2, 3]
    park(server, client)


def test_other_frames_than_calls_wake_the_thread(server, client):
    client.send(b"".join(pack(PING, 1, b"")))
    assert client.reply() is None
    park(server, client)
    client.send(b"".join(pack(SUBSCRIBE, 1, b"{}")))
    with pytest.raises(net.NetError, match="no events there"):
        client.reply()
    park(server, client)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.rest()
    until(lambda: not server.connections)


@each("kind", [kind for kind in range(24) if kind != CALL])
def test_whatever_frame_comes_to_the_loop_is_answered_or_ends_the_connection(server, kind):
    for running in (False, True):
        with Raw(server.address, PREFACE) as client:
            park(server, client)
            if running:
                client.send(request("pause"))
            client.send(b"".join(pack(kind, 5, b"{}") + pack(PING, 6, b"")))
            kinds = []
            try:
                while client._event().number != 6:
                    kinds.append(kind)
            except EndOfStream:
                assert kinds  # why it has ended
        until(lambda: not server.connections)


def test_a_caller_that_goes_cancels_the_call_of_the_loop(server, client, functions):
    client.send(request("endless"))
    assert functions.began.wait(patience(5))
    assert functions.prepared == ["endless"]
    client.sock.close()
    assert functions.cancelled.wait(patience(5))
    until(lambda: not server.connections)


def test_a_call_of_the_loop_ends_at_its_deadline(server, client, functions):
    client.send(b"".join(encode_call(1, encode_text("endless"), (), {}, seconds=0.1)))
    with pytest.raises(CallTimeout):
        client.reply()
    assert functions.cancelled.wait(patience(5))
    assert functions.prepared == ["endless"]
    assert ask(client, "echo", 3) == 3
    assert server.tally()[encode_text("endless")].errors == 1


def test_a_connection_that_ends_leaves_its_loop_and_its_thread(server, client, asyncio_loop):
    number = only(server).stream.sock.fileno()
    client.sock.close()
    until(lambda: not server.connections)
    assert not is_read(asyncio_loop, number)


def is_read(loop: Any, number: int) -> bool:
    """Whether a loop looks at a socket; no more from then on."""
    async def remove() -> Any:
        return loop.remove_reader(number)
    found: bool = asyncio.run_coroutine_threadsafe(remove(), loop).result(patience(5))
    return found


def test_a_server_that_drains_takes_no_further_call(server, client, functions):
    with Raw(server.address, PREFACE) as busy:
        busy.send(request("wait"))
        assert functions.began.wait(patience(5))
        thread = threading.Thread(target=server.drain, args=(patience(5),))
        thread.start()
        try:
            with pytest.raises(PeerBusy, match="takes no new call"):
                client.reply()
        finally:
            functions.go.set()
            thread.join()


def test_a_call_of_the_loop_ends_before_a_server_that_drains_does(server, client, functions):
    client.send(request("block"))
    assert functions.began.wait(patience(5))
    assert server.running == 1
    thread = threading.Thread(target=server.drain, args=(patience(5),))
    thread.start()
    until(lambda: only(server).ending)
    client.send(request("echo", 1))  # a caller that never pauses
    functions.go.set()
    assert client.reply() is True
    with pytest.raises(PeerBusy, match="takes no new call"):
        client.reply()
    thread.join()
    assert functions.prepared == ["block"]


def test_an_idle_connection_ends_at_its_time(server, functions, kept_settings):
    settings.idle_time = 0.2
    with Raw(server.address, PREFACE) as client:
        park(server, client)
        assert ask(client, "echo", 1) == 1
        assert client.rest() == b""
    until(lambda: not server.connections)


def test_a_part_of_a_call_has_the_time_of_a_request(server, client, kept_settings):
    settings.request_time = 0.1
    client.send(request("echo", 1)[:20])
    with pytest.raises(net.NetError, match="NET_REQUEST_TIME"):
        client.reply()


def test_a_loop_that_is_held_up_holds_up_no_plain_call(server, client, functions):
    with Raw(server.address, PREFACE) as other:
        other.send(request("block"))
        assert functions.began.wait(patience(5))
        assert ask(client, "local", 5) == 5
        functions.go.set()
        assert other.reply() is True
    park(server, client)


def test_a_connection_may_end_while_its_loop_is_held_up(server, client, functions, asyncio_loop):
    number = only(server).stream.sock.fileno()
    with Raw(server.address, PREFACE) as other:
        other.send(request("block"))
        assert functions.began.wait(patience(5))
        client.sock.close()
        until(lambda: not only_idle(server))
        functions.go.set()
        assert other.reply() is True
        until(lambda: server.connections == 1)
        assert not is_read(asyncio_loop, number)
        other.sock.close()
        until(lambda: not server.connections)
        with Raw(server.address, PREFACE) as next_one:
            park(server, next_one)


def only_idle(server: Server) -> List[Any]:
    return [one for one in server._served if one.parked is not None and one.parked.is_idle]


def test_a_server_may_close_while_its_loop_is_held_up(server, client, functions):
    with Raw(server.address, PREFACE) as other:
        other.send(request("block"))
        assert functions.began.wait(patience(5))
        server.close()
        assert client.rest() == b""
        functions.go.set()


def test_a_server_may_close_after_its_loop(functions, monkeypatch):
    monkeypatch.setattr(server_module, "TICK", 60)  # it does not find that out before
    loop, stop = start_asyncio()
    functions.dispatch._coroutines = lambda: loop
    served = serve(functions.dispatch)
    with Raw(served.address, PREFACE) as client:
        park(served, client)
        stop()
        loop.close()
        served.close()
        until(lambda: not threads_of(served))


def test_a_loop_that_has_ended_holds_up_nothing(functions, monkeypatch, other_loop):
    monkeypatch.setattr(server_module, "TICK", 0.02)
    loop, stop = start_asyncio()
    functions.dispatch._coroutines = lambda: loop
    served = serve(functions.dispatch)
    with Raw(served.address, PREFACE) as client:
        park(served, client)
        stop()
        assert ask(client, "local", 5) == 5
        loop.close()
        with pytest.raises(PeerBusy, match="the event loop of that function is closed"):
            ask(client, "echo", 5)
        functions.dispatch._coroutines = lambda: other_loop
        park(served, client)
        assert ask(client, "echo", 5) == 5
    served.close()
    until(lambda: not threads_of(served))


def test_functions_of_a_loop_of_the_application_run_there(server, client, functions, other_loop):
    here = ask(client, "context")[2]
    there = ask(client, "elsewhere")
    assert there != here
    park(server, client)
    assert ask(client, "context")[2] == here
    assert functions.prepared == ["context"] * 2


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
def test_an_idle_connection_keeps_no_large_message(server, client):
    large = request("size", b"x" * 2 ** 22)
    with memory.Peak():
        client.send(large)
        assert client.reply() == 2 ** 22
        until(lambda: only(server).parked.is_idle)
        until(lambda: memory.in_use() < 2 ** 21)
