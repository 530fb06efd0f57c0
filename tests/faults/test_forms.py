"""Streams and calls with lent arguments whose connection breaks at any byte, or has one changed."""
from __future__ import annotations

import asyncio
import threading
from collections import Counter
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
from times import patience

# Each makes hundreds of connections, and waits for none of them without a limit: on a busy machine
# they take long together.
pytestmark = pytest.mark.timeout(patience(120))

ITEMS = [0, "one"]
#: What both sides say before a call; other tests break that.
PREFACE, HELLO = len(process.client.preface()), len(b"".join(encode_hello("service", Limits())))


class Made:
    """What runs at the peer, by the key of a call: how often it has begun and ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the numbers
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def count(self, numbers: Counter[str], key: str) -> None:
        with self._lock:
            numbers[key] += 1

    def items(self, key: str, used: Any = ()) -> Iterator[Any]:
        self.count(self.begun, key)
        try:
            yield from ITEMS
            yield from used
        finally:
            self.count(self.ended, key)

    async def items_async(self, key: str) -> Any:
        self.count(self.begun, key)
        try:
            for item in ITEMS:
                yield item
        finally:
            self.count(self.ended, key)

    def use(self, key: str, function: Callable[[Any], Any], iterator: Iterator[Any]) -> List[Any]:
        self.count(self.begun, key)
        try:
            return [function(item) for item in iterator]
        finally:
            self.count(self.ended, key)


class Form(NamedTuple):
    """A kind of call.

    :ivar run: makes it at an address, with a key, and appends what comes to a list.
    :ivar all: what comes if nothing breaks.
    """

    run: Callable[[Tuple[str, int], str, float, List[Any]], None]
    all: List[Any]


def stream(at: Any, key: str, timeout: float, seen: List[Any]) -> None:
    for item in process.client.stream(at, encode_text("items"), (key,), {}, timeout):
        seen.append(item)


def stream_of_lent(at: Any, key: str, timeout: float, seen: List[Any]) -> None:
    args = key, iter("a")
    for item in process.client.stream(at, encode_text("items"), args, {}, timeout):
        seen.append(item)


def lent(at: Any, key: str, timeout: float, seen: List[Any]) -> None:
    args = key, repr_of, iter(ITEMS)
    seen.append(process.client.call(at, encode_text("use"), args, {}, timeout))


def repr_of(value: Any) -> str:
    return repr(value)


def awaited_stream(at: Any, key: str, timeout: float, seen: List[Any]) -> None:
    async def run() -> None:
        async for item in aio.stream(process.client, at, encode_text("items_async"), (key,), {},
                                     timeout):
            seen.append(item)
    asyncio.run(run())


def awaited_lent(at: Any, key: str, timeout: float, seen: List[Any]) -> None:
    async def run() -> None:
        seen.append(await aio.call(process.client, at, encode_text("use"),
                                   (key, repr_of, iter(ITEMS)), {}, timeout))
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


def sizes(service: Service, form: Form, width: int) -> Tuple[int, int]:
    """Bytes of a connection that nothing happens to: of its request, and of its reply.

    :param width: of the key.
    """
    counts = Count(), Count()
    ways = [Way(change=count.change) for count in counts]
    seen: List[Any] = []
    with Proxy(service.address, *ways) as proxy:
        form.run(proxy.address, "sizes..."[:width], patience(10), seen)
        assert seen == form.all
    return counts[0].bytes, counts[1].bytes


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
@pytest.mark.parametrize("name", FORMS)
def test_a_connection_cut_at_any_byte_is_a_lost_peer_and_nothing_runs_on(
        service, made, name, reset):
    form = FORMS[name]
    asked, told = sizes(service, form, 3)
    ways = [(Way(cut=size, reset=reset), Way()) for size in range(PREFACE, asked)]
    ways += [(Way(), Way(cut=size, reset=reset)) for size in range(HELLO, told)]
    for number, (request_way, reply_way) in enumerate(ways):
        key = f"{number:03}"
        seen: List[Any] = []
        with Proxy(service.address, request_way, reply_way) as proxy:
            try:
                form.run(proxy.address, key, patience(10), seen)
                assert seen == form.all
            except net.CallTimeout:
                raise  # its end was not noticed
            except net.NetError as problem:
                assert isinstance(problem, (net.PeerLost, net.PeerUnreachable))
                assert seen == form.all[:len(seen)]
                assert problem.ran != "no" or not made.begun[key]
    until(lambda: service.server.connections == 0 and made.ended == made.begun)
    assert set(made.begun.values()) == {1}
    assert service.call("add", 2, 3) == 5


@pytest.mark.parametrize("name", FORMS)
def test_a_flipped_bit_is_an_error_or_a_value_but_never_a_hang(service, made, name):
    form = FORMS[name]
    asked, told = sizes(service, form, 8)
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
            key = f"{direction}{offset:03}" * 2  # which no flip makes of another one
            with Proxy(service.address, *ways) as proxy:
                try:
                    form.run(proxy.address, key, 0.03, [])
                except net.NetError as problem:
                    assert problem.ran != "no" or not made.begun[key]
                except Exception as problem:  # what the function there raised, for such a value
                    assert type(problem) in (TypeError, ValueError), problem
    until(lambda: service.server.connections == 0 and made.ended == made.begun)
    assert set(made.begun.values()) == {1}
    assert service.call("add", 2, 3) == 5
