"""Streams and calls with lent arguments whose connection breaks at any byte, or has one changed."""
from __future__ import annotations

import asyncio
import threading
from typing import Any, Callable, Iterator, List, NamedTuple, Tuple

import pytest

import net
from chaos import Proxy, Way
from net.calls import aio
from net.identity import encode_text
from net.process import process
from net.wire.limits import Limits
from net.wire.session import encode_hello
from service import Service, until

ITEMS = [0, "one"]
#: What both sides say before a call; other tests break that.
PREFACE, HELLO = len(process.client.preface()), len(b"".join(encode_hello("service", Limits())))


class Made:
    """What runs at the peer: how often, and how many of those have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the numbers
        self.begun = self.ended = 0

    def begin(self) -> None:
        with self._lock:
            self.begun += 1

    def end(self) -> None:
        with self._lock:
            self.ended += 1

    def items(self, used: Any = ()) -> Iterator[Any]:
        self.begin()
        try:
            yield from ITEMS
            yield from used
        finally:
            self.end()

    async def items_async(self) -> Any:
        self.begin()
        try:
            for item in ITEMS:
                yield item
        finally:
            self.end()

    def use(self, function: Callable[[Any], Any], iterator: Iterator[Any]) -> List[Any]:
        self.begin()
        try:
            return [function(item) for item in iterator]
        finally:
            self.end()


class Form(NamedTuple):
    """A kind of call.

    :ivar run: makes it at an address, and appends what comes to a list.
    :ivar all: what comes if nothing breaks.
    """

    run: Callable[[Tuple[str, int], float, List[Any]], None]
    all: List[Any]


def stream(at: Any, timeout: float, seen: List[Any]) -> None:
    for item in process.client.stream(at, encode_text("items"), (), {}, timeout):
        seen.append(item)


def stream_of_lent(at: Any, timeout: float, seen: List[Any]) -> None:
    for item in process.client.stream(at, encode_text("items"), (iter("a"),), {}, timeout):
        seen.append(item)


def lent(at: Any, timeout: float, seen: List[Any]) -> None:
    seen.append(process.client.call(at, encode_text("use"), (repr_of, iter(ITEMS)), {}, timeout))


def repr_of(value: Any) -> str:
    return repr(value)


def awaited_stream(at: Any, timeout: float, seen: List[Any]) -> None:
    async def run() -> None:
        async for item in aio.stream(process.client, at, encode_text("items_async"), (), {},
                                     timeout):
            seen.append(item)
    asyncio.run(run())


def awaited_lent(at: Any, timeout: float, seen: List[Any]) -> None:
    async def run() -> None:
        seen.append(await aio.call(process.client, at, encode_text("use"),
                                   (repr_of, iter(ITEMS)), {}, timeout))
    asyncio.run(run())


FORMS = {"a stream": Form(stream, ITEMS),
         "a stream of what is lent": Form(stream_of_lent, [*ITEMS, "a"]),
         "a call that lends": Form(lent, [list(map(repr, ITEMS))]),
         "an awaited stream": Form(awaited_stream, ITEMS),
         "an awaited call that lends": Form(awaited_lent, [list(map(repr, ITEMS))])}


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def service(made: Made) -> Iterator[Service]:
    with Service(items=made.items, items_async=made.items_async, use=made.use) as served:
        yield served


class Count:
    """Counts the bytes of one direction."""

    def __init__(self) -> None:
        self.bytes = 0

    def change(self, offset: int, data: bytes) -> bytes:
        self.bytes = offset + len(data)
        return data


def sizes(service: Service, form: Form) -> Tuple[int, int]:
    """Bytes of a connection that nothing happens to: of its request, and of its reply."""
    counts = Count(), Count()
    ways = [Way(change=count.change) for count in counts]
    seen: List[Any] = []
    with Proxy(service.address, *ways) as proxy:
        form.run(proxy.address, 10, seen)
        assert seen == form.all
    return counts[0].bytes, counts[1].bytes


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
@pytest.mark.parametrize("name", FORMS)
def test_a_connection_cut_at_any_byte_is_a_lost_peer_and_nothing_runs_on(
        service, made, name, reset):
    form = FORMS[name]
    asked, told = sizes(service, form)
    ways = [(Way(cut=size, reset=reset), Way()) for size in range(PREFACE, asked)]
    ways += [(Way(), Way(cut=size, reset=reset)) for size in range(HELLO, told)]
    for request_way, reply_way in ways:
        made.begun = made.ended = 0
        service.ran.clear()
        seen: List[Any] = []
        with Proxy(service.address, request_way, reply_way) as proxy:
            try:
                form.run(proxy.address, 10, seen)
                assert seen == form.all
            except net.CallTimeout:
                raise  # its end was not noticed
            except net.NetError as problem:
                assert isinstance(problem, (net.PeerLost, net.PeerUnreachable))
                assert seen == form.all[:len(seen)]
                assert problem.ran != "no" or not service.ran
        until(lambda: service.server.connections == 0 and made.ended == made.begun)
        assert made.begun <= 1 and len(service.ran) <= 1
    assert service.call("add", 2, 3) == 5


@pytest.mark.parametrize("name", FORMS)
def test_a_flipped_bit_is_an_error_or_a_value_but_never_a_hang(service, made, name):
    form = FORMS[name]
    asked, told = sizes(service, form)
    begins = {0: (PREFACE, asked), 1: (HELLO, told)}
    for direction, (begin, end) in begins.items():
        for offset in range(begin, end):
            def flip(start: int, piece: bytes, at: int = offset) -> bytes:
                changed = bytearray(piece)
                if start <= at < start + len(piece):
                    changed[at - start] ^= 1 << at % 8
                return bytes(changed)
            ways = [Way(), Way()]
            ways[direction] = Way(change=flip)
            made.begun = made.ended = 0
            service.ran.clear()
            with Proxy(service.address, *ways) as proxy:
                try:
                    form.run(proxy.address, 0.03, [])
                except net.NetError as problem:
                    assert problem.ran != "no" or not made.begun
                except Exception as problem:  # what the function there raised, for such a value
                    assert made.begun, problem
            until(lambda: service.server.connections == 0 and made.ended == made.begun)
            assert made.begun <= 1
    assert service.call("add", 2, 3) == 5
