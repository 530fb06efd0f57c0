"""Awaited calls and async generators, against the bytes of strangers."""
from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Iterator, List

import pytest

import memory
import net
from net.calls import aio, start
from net.calls.aio import AsyncRemoteIterator
from net.executors import Coroutines
from net.identity import encode_text
from net.run.client import Client
from net.run.loop import Loop
from net.settings import settings
from net.wire.frames import ASK, END, FAILURE, ITEM, RESULT, pack
from service import Service, until
from strangers import (NONSENSE, Producer, Stranger, close, greeted, http, reset, says,
                       silence)
from times import patience

TAG = encode_text("awaited")


@pytest.fixture
def producer() -> Iterator[Producer]:
    one = Producer()
    yield one
    one.close()


@pytest.fixture
def client() -> Client:
    return Client(settings, Loop("net-test"))


def frame(kind: int, text: bytes, number: int) -> bytes:
    return b"".join(pack(kind, number, text))


def pool_of(client: Client, producer: Producer) -> Any:
    return aio._pools(client).pool(producer.address)


async def call(client: Client, producer: Producer, *args: Any, timeout: Any = 5) -> Any:
    return await aio.call(client, producer.address, TAG, args, {}, timeout)


# --------------------------------------------------------------------------------------- streams

@pytest.mark.parametrize("before", [[], [(ITEM, b"[1,2]")]], ids=["first", "later"])
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_ends_a_stream_with_a_typed_error_that_says_it_may_have_run(
        client, producer, what, before):
    async def consume() -> None:
        producer.script = [[*before, *NONSENSE[what]], [(RESULT, b"5")]]
        iterator, seen = aio.stream(client, producer.address, TAG, (), {}, 5), []
        with pytest.raises(net.NetError) as caught:
            async for item in iterator:
                seen.append(item)
        assert seen == ([1, 2] if before else [])
        assert caught.value.ran != "no", caught.value
        with pytest.raises(StopAsyncIteration):
            await iterator.__anext__()
        if what != "a result" or before:
            assert not pool_of(client, producer)._idle
        assert await call(client, producer) == 5
        assert len(pool_of(client, producer)._open) == 1
        assert not pool_of(client, producer)._places
    asyncio.run(consume())


def test_a_good_stream_leaves_its_connection_and_one_with_more_after_its_end_does_not(
        client, producer):
    def burst(sock: Any) -> None:
        number = producer.requests[-1].number
        sock.sendall(frame(ITEM, b"[1]", number) + frame(END, b"null", number)
                     + frame(ITEM, b"[2]", number))

    async def consume() -> None:
        producer.script = [[(ITEM, b"[1,2]"), (ITEM, b"[3]"), (END, b"null")], [burst]]
        for expected, left in (([1, 2, 3], 1), ([1], 0)):
            iterator = aio.stream(client, producer.address, TAG, (), {}, 5)
            assert [item async for item in iterator] == expected
            assert len(pool_of(client, producer)._idle) == left
    asyncio.run(consume())


def test_an_iterator_that_is_forgotten_gives_its_place_back(client, producer):
    async def consume() -> None:
        producer.script = [[(ITEM, b"[1]")]] * 5
        for _ in range(5):
            iterator = aio.stream(client, producer.address, TAG, (), {}, 5)
            assert await iterator.__anext__() == 1
            del iterator
            gc.collect()
            await asyncio.sleep(0.01)
        assert not pool_of(client, producer)._open and not pool_of(client, producer)._places
    asyncio.run(consume())


def test_an_iterator_that_outlives_its_loop_closes_its_connection(client, producer):
    found: List[Any] = []

    async def begin() -> None:
        producer.script = [[(ITEM, b"[1]")]]
        found.append(aio.stream(client, producer.address, TAG, (), {}, 5))
        assert await found[0].__anext__() == 1
    asyncio.run(begin())
    found.clear()
    gc.collect()
    assert producer.ended.wait(patience(5))


def test_the_time_of_a_call_is_for_all_of_its_items(client, producer):
    async def consume() -> None:
        producer.script = [[(ITEM, b"[1]")]]  # and nothing more
        iterator = aio.stream(client, producer.address, TAG, (), {}, 0.3)
        assert await iterator.__anext__() == 1
        started = time.monotonic()
        with pytest.raises(net.CallTimeout) as caught:
            await iterator.__anext__()
        assert time.monotonic() - started < patience(2) and caught.value.ran == "maybe"
    asyncio.run(consume())
    assert producer.ended.wait(patience(5))


# ----------------------------------------------------------------------------------------- calls

@pytest.mark.parametrize("script, ran", [
    ([(RESULT, b"5", 77)], "maybe"), ([(RESULT, b"[")], "maybe"), ([(99, b"{}")], "maybe"),
    ([(FAILURE, b"{}")], "maybe"), ([(FAILURE, b"[", 0)], "maybe"),
    ([(ASK, b'{"lent":0,"items":null,"args":[],"kwargs":{}}', 1)], "maybe"),
    ([lambda sock: sock.sendall(b"\xff" * 40)], "maybe"),
    ([lambda sock: sock.shutdown(2)], "maybe"),
], ids=range(8))
def test_a_reply_of_nonsense_is_a_typed_error_and_the_next_call_is_right(
        client, producer, script, ran):
    async def some() -> None:
        producer.script = [script, [(RESULT, b"5")]]
        with pytest.raises(net.NetError) as caught:
            await call(client, producer)
        assert caught.value.ran == ran
        assert await call(client, producer) == 5
    asyncio.run(some())


def test_more_than_one_reply_is_none(client, producer):
    def burst(sock: Any) -> None:
        number = producer.requests[-1].number
        sock.sendall(frame(RESULT, b"5", number) + frame(RESULT, b"6", number + 1))

    async def some() -> None:
        producer.script = [[burst], [(RESULT, b"7")]]
        with pytest.raises(net.ProtocolError, match="more than one reply"):
            await call(client, producer)
        assert await call(client, producer) == 7
    asyncio.run(some())


def test_a_loop_looks_no_more_at_an_idle_connection_that_has_ended(client, producer):
    async def some() -> None:
        pool = pool_of(client, producer)
        producer.script = [[lambda sock: until(lambda: any(one._is_looking for one in pool._open)),
                            (RESULT, b"5"), lambda sock: sock.shutdown(2)], [(RESULT, b"6")]]
        assert await call(client, producer) == 5
        connection, = pool._idle
        while connection._is_looking:  # its end would be reported again and again
            await asyncio.sleep(0.01)
        assert await call(client, producer) == 6
        assert connection not in pool._open
    asyncio.run(some())


def test_a_request_that_the_socket_does_not_take_at_once_arrives_whole(client, producer):
    async def some() -> None:
        producer.script = [[(RESULT, b"5")]]
        data = bytes(range(256)) * 2 ** 15
        assert await call(client, producer, data) == 5
        assert [bytes(one) for one in producer.requests[0].buffers] == [data]
    asyncio.run(some())


@pytest.mark.skipif(memory.tracemalloc is None, reason="memory cannot be told here")
@pytest.mark.parametrize("lent", [(), (print,)], ids=["plain", "lends"])
def test_what_was_sent_is_not_kept_while_its_call_runs(client, producer, lent):
    text, size = "x" * 2 ** 22, 2 ** 22

    def wait(sock: Any) -> None:
        number = producer.requests.pop().number
        until(lambda: memory.in_use() < size // 2)
        sock.sendall(frame(RESULT, b"6", number))

    async def some() -> None:
        producer.script = [[(RESULT, b"5")], [wait]]
        assert await call(client, producer) == 5
        with memory.Peak():
            assert await call(client, producer, text, *lent) == 6
    asyncio.run(some())


def test_a_goodbye_behind_a_reply_ends_the_connection_and_not_the_call(client, producer):
    def burst(sock: Any) -> None:
        number = producer.requests[-1].number
        sock.sendall(frame(RESULT, b"5", number)
                     + frame(FAILURE, b'{"refused":"PeerBusy","ran":"no","reason":"x"}', 0))

    async def some() -> None:
        producer.script = [[burst], [(RESULT, b"6")]]
        assert await call(client, producer) == 5
        assert await call(client, producer) == 6
    asyncio.run(some())
    assert producer.ended.wait(patience(5))


GOODBYE = (FAILURE, b'{"refused":"PeerBusy","ran":"no","reason":"x"}', 0)


def test_a_goodbye_in_place_of_a_later_reply_has_another_connection_tried(client, producer):
    async def some() -> None:
        producer.script = [[(RESULT, b"5")], [GOODBYE], [(RESULT, b"6")], [GOODBYE], [GOODBYE]]
        assert await call(client, producer) == 5
        assert await call(client, producer) == 6
        with pytest.raises(net.PeerBusy) as caught:
            await call(client, producer)  # over one that nobody has used, too
        assert caught.value.ran == "no" and not pool_of(client, producer)._open
    asyncio.run(some())


@pytest.mark.parametrize("treat, error", [
    (close, net.PeerUnreachable), (reset, net.PeerUnreachable), (http, net.ProtocolError),
    (silence, net.PeerUnreachable), (says(b"\x05"), net.PeerUnreachable),
    (says(frame(RESULT, b"5", 0)), net.ProtocolError),
    (says(frame(FAILURE, b'{"refused":"PeerBusy","ran":"yes","reason":"x"}', 0)), net.PeerBusy),
    (says(frame(FAILURE, b'{"raised":{"types":[["builtins","KeyError"]],"text":"x"}}', 0)),
     net.ProtocolError)])
def test_what_greets_senselessly_has_run_nothing(client, treat, error, monkeypatch):
    monkeypatch.setattr(aio, "GREETING_TIME", 0.3)
    stranger = Stranger(0, treat)
    looked_for: List[Any] = []
    client.missed = looked_for.append

    async def some() -> None:
        with pytest.raises(error) as caught:
            await aio.call(client, stranger.address[:2], TAG, (), {}, 5)
        assert caught.value.ran == "no"
    asyncio.run(some())
    # It may be a peer that has just ended.
    assert bool(looked_for) == (error is net.PeerUnreachable)
    stranger.stop()


@pytest.mark.parametrize("answer", [silence, http])
def test_a_connection_that_was_given_up_while_it_greets_harms_not_the_next(
        client, producer, answer):
    came = threading.Event()

    def treat(sock: Any) -> None:
        sock.recv(4096, socket.MSG_PEEK)
        came.set()
        answer(sock)
    stranger = Stranger(0, treat)

    async def some() -> None:
        task = asyncio.ensure_future(aio.call(client, stranger.address[:2], TAG, (), {}, 60))
        while not came.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)  # it waits for the answer now
        if answer is silence:
            task.cancel()
        with pytest.raises((asyncio.CancelledError, net.ProtocolError)):
            await task
        # Its socket has the number of the other one, as a rule.
        producer.script = [[(RESULT, b"5")]]
        assert await call(client, producer, timeout=60) == 5
    try:
        asyncio.run(some())
    finally:
        stranger.stop()


# ----------------------------------------------------------------------------- connecting before

@pytest.fixture
def coroutines(client) -> Iterator[Coroutines]:
    one = Coroutines()

    async def close_all() -> None:
        aio._pools(client).close()
    yield one
    asyncio.run_coroutine_threadsafe(close_all(), one.loop()).result(patience(5))
    one.close()


def test_a_call_takes_the_connection_that_was_made_for_it(client, coroutines):
    with Service() as service:
        # Neither one that nobody serves nor a second attempt makes another.
        nobody = socket.create_server(("127.0.0.1", 0))
        gone = nobody.getsockname()
        nobody.close()
        for _ in range(2):
            start.connect(client, coroutines, [gone, service.address])
        assert service.server.connections == 1
        made, = start.start(client, coroutines, [service.address], encode_text("add"), (2, 3), {})
        assert made.result(patience(5)) == 5
        assert service.server.connections == 1 and service.ran == [("add", (2, 3))]


@pytest.mark.parametrize("treat", [silence, greeted(silence)], ids=["no HELLO", "no reply"])
def test_one_that_does_not_answer_holds_connecting_up_for_its_time_only(
        client, coroutines, treat, monkeypatch):
    monkeypatch.setattr(start, "CONNECT_TIME", 0.05)
    stranger = Stranger(0, treat)
    try:
        with Service() as service:
            start.connect(client, coroutines, [stranger.address[:2], service.address])
            until(lambda: service.server.connections == 1)
            assert client.started, "it goes on"
    finally:
        stranger.stop()
    until(lambda: not client.started)


@pytest.mark.parametrize("answer", [
    close, says(frame(RESULT, b"null", 77)), says(frame(99, b"{}", 1)),
    says(frame(RESULT, b"null", 1) * 2),
    says(frame(FAILURE, b'{"refused":"PeerBusy","ran":"no","reason":"x"}', 0))])
def test_nonsense_or_a_refusal_instead_of_a_sign_of_life_leaves_no_connection(client, answer):
    stranger = Stranger(0, greeted(answer))

    async def some() -> None:
        with suppress(net.NetError):
            await aio.connect(client, stranger.address[:2])
        pool = aio._pools(client).pool(stranger.address[:2])
        assert not pool.is_connected and not pool._places
    try:
        asyncio.run(some())
    finally:
        stranger.stop()


def test_connecting_from_a_coroutine_does_not_wait(client, coroutines):
    async def some() -> None:
        start.connect(client, coroutines, [service.address])
    with Service() as service:
        asyncio.run_coroutine_threadsafe(some(), coroutines.loop()).result(patience(5))
        until(lambda: service.server.connections == 1)


def test_a_place_is_handed_on_in_the_order_of_asking(client, producer, kept_settings):
    kept_settings.set("max_calls", 1)

    async def some() -> None:
        producer.script = [[(RESULT, b"%d" % number)] for number in range(10)]
        order: List[int] = []

        async def one() -> None:
            order.append(await call(client, producer))
        pool = pool_of(client, producer)
        taken = await pool.take()
        tasks = [asyncio.ensure_future(one()) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[3:6]:
            task.cancel()
        pool.give_back(taken)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == list(range(7))
        assert len(pool_of(client, producer)._open) == 1
    asyncio.run(some())


def test_a_time_limit_is_one_and_loses_no_cancellation():
    async def run() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await aio.within(0.01, asyncio.sleep(10))
        assert await aio.within(10, asyncio.sleep(0, "done")) == "done"
        assert await aio.within(None, asyncio.sleep(0, "done")) == "done"
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        ended = loop.create_future()

        def end_both() -> None:
            ended.set_result(None)
            task.cancel()
        loop.call_soon(end_both)
        with pytest.raises(asyncio.CancelledError):
            await aio.within(10, ended)
        if hasattr(task, "uncancel"):
            task.uncancel()
        with pytest.raises(asyncio.TimeoutError):
            await aio.within(0.01, aio.within(10, asyncio.sleep(10)))
        await asyncio.sleep(0)
    asyncio.run(run())


def test_a_call_that_was_not_sent_in_time_did_not_run(client, producer, kept_settings):
    kept_settings.set("max_calls", 1)

    async def some() -> None:
        producer.script = [[]]
        first = asyncio.ensure_future(call(client, producer, timeout=patience(0.5)))
        await asyncio.sleep(0.1)
        with pytest.raises(net.CallTimeout) as caught:
            await call(client, producer, timeout=0.1)
        assert caught.value.ran == "no"
        with pytest.raises(net.CallTimeout) as caught:
            await first
        assert caught.value.ran == "maybe"
    asyncio.run(some())


def test_it_is_awaited_or_iterated_and_says_so(client, producer):
    iterator = aio.stream(client, producer.address, TAG, (), {}, 5)
    assert isinstance(iterator, AsyncRemoteIterator) and iterator.__aiter__() is iterator
    with pytest.raises(net.InvalidPeer):
        aio.stream(client, "nonsense", TAG, (), {}, 5)
    assert producer.requests == []
