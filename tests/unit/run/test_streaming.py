"""Streams against the bytes of strangers: consumers that break the rules, and producers that do."""
from __future__ import annotations

import gc
import json
import select
import socket
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Iterator, List, Optional

import pytest

import net
from each import each
from net.context import cancelled
from net.dispatch import Dispatch
from net.identity import Flag, encode_text
from net.run import streaming
from net.run.client import Client
from net.run.loop import Loop
from net.run.streaming import TELL, WINDOW_BYTES, WINDOW_ITEMS, RemoteIterator
from net.settings import settings
from net.wire.frames import (ANSWER, CALL, END, FAILURE, HEADER, ITEM, PING, RESULT, TAKEN,
                             EndOfStream, Frame, pack)
from net.wire.messages import decode_reply, encode_call
from loops import end_timers
from service import Raw, Service, greeted, request, serve, until
from strangers import NONSENSE, Producer
from times import patience

TAG = encode_text("stream")
NUMBER = 1


def frame(kind: int, text: bytes = b"{}", number: int = NUMBER, **more: Any) -> bytes:
    return b"".join(pack(kind, number, text, **more))


class Generators:
    """What the service streams.

    :ivar made: how many items each generator has made so far.
    :ivar closed: set when the last one has ended.
    """

    def __init__(self) -> None:
        self.made: List[int] = []
        self.closed = threading.Event()

    def count(self, last: int = 10 ** 9, item: Any = None) -> Iterator[Any]:
        number = len(self.made)
        self.made.append(0)
        self.closed.clear()
        try:
            for at in range(last):
                self.made[number] = at + 1
                yield at if item is None else item
            return "end"
        finally:
            self.closed.set()

    def stuck(self) -> Iterator[Any]:
        """Makes one item, and the next one when nobody wants it any more."""
        try:
            yield 1
            until(cancelled)
            yield 2
        finally:
            self.closed.set()


@pytest.fixture
def made() -> Generators:
    return Generators()


@pytest.fixture
def service(made: Generators) -> Iterator[Service]:
    with Service(count=made.count, stuck=made.stuck) as served:
        yield served
        served.server.close()
        until(lambda: served.server.connections == 0)


def event(raw: Raw) -> Any:
    return raw._event()


def items_of(raw: Raw, count: int) -> List[Any]:
    """A number of items, as they come."""
    found: List[Any] = []
    while len(found) < count:
        one = event(raw)
        assert (one.kind, one.number) == (ITEM, NUMBER), one
        found += json.loads(one.text)
    return found


def is_quiet(raw: Raw, seconds: float = 0.2) -> bool:
    return not raw._session.held and not select.select([raw.sock], [], [], seconds)[0]


def is_ended(raw: Raw) -> bool:
    """Whether the server has ended the connection, after any number of items."""
    try:
        while event(raw).kind == ITEM:
            pass
    except (EndOfStream, ConnectionError):
        return True
    return False


class Steps(Executor):
    """Runs a number of steps, at once, and no more: :attr:`left` are those that it was given
    besides."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.left: List[Any] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: "Future[Any]" = Future()
        self.left.append((future, partial(function, *args, **kwargs)))
        if self.count > 0:
            self.count -= 1
            self.run()
        return future

    def run(self) -> None:
        """Do what is left."""
        while self.left:
            future, step = self.left.pop(0)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(step())
                except BaseException as problem:
                    future.set_exception(problem)


@pytest.mark.parametrize("steps, end", [
    (0, "deadline"), (1, "deadline"), (3, "deadline"), (0, "gone"), (1, "gone"), (3, "gone")])
def test_an_executor_that_runs_no_further_step_holds_up_no_connection(made, steps, end):
    executor = Steps(steps)
    served = serve(Dispatch({TAG: made.count}, executors={TAG: executor}))
    seconds = patience(0.5) if end == "deadline" else None
    call = b"".join(encode_call(NUMBER, TAG, (), {}, seconds=seconds))
    with Raw(served.address, greeted(call)) as raw:
        raw.hello = event(raw)
        if steps:  # the first one makes the generator
            items_of(raw, steps - 1)
        if end == "deadline":
            with pytest.raises(net.CallTimeout) as caught:
                decode_reply(event(raw), None, None, TAG)
            assert caught.value.ran == ("maybe" if steps else "no")
            assert not isinstance(caught.value, net.RemoteError)
            raw.send(request("none"))
            assert type(raw.reply()) is Flag  # the next call is right
    until(lambda: not served.connections)
    # The generator is closed where it runs, once that goes on.
    assert not made.closed.is_set()
    executor.run()
    assert made.closed.is_set() == (steps > 1)
    served.close()


def test_a_step_that_ends_too_late_closes_its_generator_where_it_runs(made):
    with ThreadPoolExecutor(4, "those") as executor:
        served = serve(Dispatch({TAG: made.stuck}, executors={TAG: executor}))
        call = b"".join(encode_call(NUMBER, TAG, (), {}, seconds=patience(0.5)))
        with Raw(served.address, greeted(call)) as raw:
            raw.hello = event(raw)
            assert items_of(raw, 1) == [1]
            with pytest.raises(net.CallTimeout):
                decode_reply(event(raw), None, None, TAG)
            assert made.closed.wait(patience(5))
        served.close()


# ------------------------------------------------------------------------ consumers, byte by byte

def test_items_and_their_end_look_as_documented(service, made):
    with Raw(service.address, greeted(request("count", 3))) as raw:
        raw.hello = event(raw)
        assert items_of(raw, 3) == [0, 1, 2]
        assert event(raw) == Frame(END, NUMBER, False, b'"end"')
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5
    assert made.closed.is_set()


def test_a_stream_counts_as_a_call_that_runs_until_its_end(service):
    with Raw(service.address, greeted(request("count", WINDOW_ITEMS + 1))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        assert service.server.running == 1
        raw.send(frame(TAKEN, b"%d" % WINDOW_ITEMS))
        items_of(raw, 1)
        assert event(raw).kind == END
        until(lambda: service.server.running == 0)


def test_no_more_than_a_window_is_sent_before_something_is_taken(service, made):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        assert is_quiet(raw)
        assert made.made[-1] == WINDOW_ITEMS + 1
        raw.send(frame(TAKEN, b"500"))
        assert items_of(raw, 500)[-1] == WINDOW_ITEMS + 499
        assert is_quiet(raw)
        raw.send(frame(TAKEN, b"100") + frame(TAKEN, b"500"))  # old news
        assert is_quiet(raw)
        raw.send(frame(TAKEN, b"%d" % (WINDOW_ITEMS + 500)))
        items_of(raw, WINDOW_ITEMS)
        assert is_quiet(raw)
    assert made.closed.wait(patience(5))


def test_large_items_are_bounded_by_their_bytes(service, made):
    size = WINDOW_BYTES // 4
    with Raw(service.address, greeted(request("count", 1000, None))) as raw:
        raw.hello = event(raw)
        items_of(raw, 1000)
        assert event(raw).kind == END
        raw.send(request("count", 1000, "x" * size))
        for _ in range(4):
            one = event(raw)
            assert one.kind == ITEM and len(one.buffers[0]) == size
        assert is_quiet(raw)
        raw.send(frame(TAKEN, b"1"))
        assert event(raw).kind == ITEM
        assert is_quiet(raw)
    assert made.closed.wait(patience(5))


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b'"x"', b"[1]", b"null", b"9" * 30, b"1e3",
                                  b" 1", b"\xd9\xa1", b"{}"])
def test_what_is_no_number_of_items_ends_the_stream(service, made, text):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, 1)
        raw.send(frame(TAKEN, text))
        assert is_ended(raw)
    assert made.closed.wait(patience(5))
    assert service.call("add", 1, 2) == 3


def test_to_take_more_than_was_sent_ends_the_stream(service, made):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, 100)
        raw.send(frame(TAKEN, b"%d" % (WINDOW_ITEMS * 2)))
        assert is_ended(raw)
    assert made.closed.wait(patience(5))


def test_what_was_taken_of_another_stream_is_of_no_meaning(service, made):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        raw.send(frame(TAKEN, b"100000", 99))
        assert is_quiet(raw)
        raw.send(frame(TAKEN, b"1"))
        items_of(raw, 1)
    assert made.closed.wait(patience(5))


@pytest.mark.parametrize("data", [
    request("add", 1, 2), frame(ANSWER, b'{"value":1}'), frame(PING, b""), frame(RESULT, b"1"),
    frame(ITEM, b"[1]"), frame(END, b"null"), HEADER.pack(CALL, 0, 0, 1, 0xffffffff), b"\xff" * 40],
    ids=["a call", "an answer", "a ping", "a result", "an item", "an end", "too large", "noise"])
def test_what_may_not_come_within_a_stream_ends_it(service, made, data):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, 1)
        raw.send(data)
        try:
            raw.rest()
        except OSError:
            pass
    assert made.closed.wait(patience(5))
    assert [name for name, _ in service.ran] == ["count"]
    assert service.call("add", 1, 2) == 3


def test_a_kind_of_later_versions_is_refused_within_a_stream_which_goes_on(service):
    with Raw(service.address, greeted(request("count", 5000))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        raw.send(frame(99, b"what", 7))
        one = event(raw)
        assert (one.kind, one.number) == (FAILURE, 7)
        raw.send(frame(TAKEN, b"1024"))
        items_of(raw, WINDOW_ITEMS)


def test_a_late_taken_is_of_no_meaning(service):
    with Raw(service.address, greeted(request("count", 2))) as raw:
        raw.hello = event(raw)
        items_of(raw, 2)
        assert event(raw).kind == END
        raw.send(frame(TAKEN, b"2") + request("add", 2, 3))
        assert raw.reply() == 5


def test_the_next_request_may_come_as_soon_as_the_end_was_sent(service):
    with Raw(service.address, greeted(request("count", 2))) as raw:
        raw.hello = event(raw)
        for _ in range(50):
            while event(raw).kind != END:
                pass
            raw.send(request("count", 2))
        while event(raw).kind != END:
            pass
        raw.send(request("add", 2, 3) + request("add", 2, 4))
        assert (raw.reply(), raw.reply()) == (5, 6)


@pytest.mark.parametrize("name", ["count", "stuck"])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_consumer_that_goes_closes_the_generator(service, made, name, how):
    raw = Raw(service.address, greeted(request(name)))
    raw.hello = event(raw)
    items_of(raw, 1)
    if how == "half":
        raw.sock.shutdown(socket.SHUT_WR)
    elif how == "reset":
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.sock.close()
    else:
        raw.sock.close()
    started = time.monotonic()
    assert made.closed.wait(patience(5))
    assert time.monotonic() - started < patience(1)
    raw.sock.close()


def test_a_consumer_that_never_reads_holds_a_window_only(service, made):
    with Raw(service.address, greeted(request("count", 10 ** 9, "x" * 100_000))) as raw:
        until(lambda: made.made and made.made[0] > 10)
        time.sleep(0.2)
        assert made.made[0] <= WINDOW_BYTES // 100_000 + 2
        assert service.call("add", 1, 2) == 3
        raw.sock.settimeout(patience(5))
    assert made.closed.wait(patience(5))


def test_closing_the_server_closes_the_generators(service, made):
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        service.server.close()
        assert made.closed.wait(patience(5))
        until(lambda: service.server.connections == 0)


def test_a_consumer_that_takes_all_the_time_it_likes_is_not_idle(service, made, monkeypatch):
    from net.run import server as server_module

    monkeypatch.setitem(vars(settings), "idle_time", 0.1)
    monkeypatch.setitem(vars(settings), "request_time", 0.1)
    monkeypatch.setattr(server_module, "TICK", 0.02)
    with Raw(service.address, greeted(request("count"))) as raw:
        raw.hello = event(raw)
        items_of(raw, WINDOW_ITEMS)
        time.sleep(0.4)
        raw.send(frame(TAKEN, b"1024"))
        items_of(raw, WINDOW_ITEMS)


# ----------------------------------------------------------------------- producers, byte by byte

@pytest.fixture
def producer() -> Iterator[Producer]:
    one = Producer()
    yield one
    one.close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    from net.run import client as module

    monkeypatch.setattr(module, "LOOK_TIME", 0.05)
    made = Client(settings, Loop("net-test"))
    yield made
    made.close_idle()
    end_timers(made._loop)


def consume(client: Client, producer: Producer, timeout: Optional[float] = 5) -> RemoteIterator:
    return client.stream(producer.address, TAG, (), {}, timeout)


def in_order(client: Client, producer: Producer) -> bool:
    """Whether a connection was left for the next call."""
    return bool(client._find_pool(producer.address)._idle)


def test_a_good_stream_leaves_its_connection(client, producer):
    producer.script = [[(ITEM, b"[1,2]"), (ITEM, b"[3]"), (END, b"null")], [(RESULT, b"5")]]
    assert list(consume(client, producer)) == [1, 2, 3] and in_order(client, producer)
    assert client.call(producer.address, TAG, (), {}, 5) == 5


@pytest.mark.parametrize("before", [[], [(ITEM, b"[1,2]")]], ids=["first", "later"])
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_ends_the_stream_with_a_typed_error_that_says_it_may_have_run(
        client, producer, what, before):
    producer.script = [[*before, *NONSENSE[what]], [(RESULT, b"5")]]
    iterator, seen = consume(client, producer), []
    with pytest.raises(net.NetError) as caught:
        for item in iterator:
            seen.append(item)
    assert seen == ([1, 2] if before else [])
    assert caught.value.ran != "no", caught.value
    with pytest.raises(StopIteration):
        next(iterator)
    if what != "a result" or before:  # that one is a good reply to a call
        assert not in_order(client, producer)
        assert producer.ended.wait(patience(5))
    assert client.call(producer.address, TAG, (), {}, 5) == 5


def test_an_item_of_a_class_that_is_not_known_here_is_a_typed_error(client, producer):
    unknown = b'[{"!value":{"class":"app.Missing"}}]'
    for kind, text in ((ITEM, unknown), (END, unknown[1:-1])):
        producer.script = [[(ITEM, b"[1]"),
                            lambda sock, kind=kind, text=text: sock.sendall(frame(
                                kind, text, producer.requests[-1].number, tagged=True))]]
        iterator = consume(client, producer)
        assert next(iterator) == 1
        with pytest.raises(net.ValueNotSupported, match="app.Missing") as caught:
            next(iterator)
        assert caught.value.ran == "yes"


def test_what_comes_after_the_end_costs_the_connection_only(client, producer):
    for more in ((ITEM, b"[4]"), (END, b"null"), (RESULT, b"5"), (FAILURE, b"{}")):
        def burst(sock: socket.socket) -> None:
            number = producer.requests[-1].number
            sock.sendall(frame(ITEM, b"[1]", number) + frame(END, b"null", number)
                         + frame(*more, number))
        producer.script = [[burst]]
        assert list(consume(client, producer)) == [1]
        assert not in_order(client, producer)


def test_what_comes_after_the_end_in_a_later_packet_is_no_answer_to_the_next_call(client, producer):
    producer.script = [[(ITEM, b"[1]"), (END, b"null"), (ITEM, b"[2]")], [(RESULT, b"5")],
                       [(RESULT, b"6")]]
    assert list(consume(client, producer)) == [1]
    time.sleep(0.1)
    assert client.call(producer.address, TAG, (), {}, 5) == 5


def test_items_that_nobody_asked_for_are_no_result(client, producer):
    producer.script = [[(ITEM, b"[1]")], [(RESULT, b"5")]]
    found = client.call(producer.address, TAG, (), {}, 5)
    assert isinstance(found, RemoteIterator)  # as a function that returns a generator does
    del found
    gc.collect()  # PyPy does not count references
    assert producer.ended.wait(patience(5))
    assert client.call(producer.address, TAG, (), {}, 5) == 5


def test_a_result_where_items_are_due_is_a_typed_error(client, producer):
    producer.script = [[(RESULT, b"5")]]
    with pytest.raises(net.ProtocolError, match="no generator") as caught:
        next(consume(client, producer))
    assert caught.value.ran == "maybe"


def test_more_items_than_are_asked_for_come_through_in_bounded_memory(client, producer):
    from service import memory

    text = b"[" + b",".join([b"[]"] * 10_000) + b"]"

    def flood(sock: socket.socket) -> None:
        number = producer.requests[-1].number
        for _ in range(25):  # whatever was taken: it does not ask
            sock.sendall(frame(ITEM, text, number))
        sock.sendall(frame(END, b"null", number))
    producer.script = [[flood]]
    before, count = memory(), 0
    for item in consume(client, producer, 60):
        count += item == []
        if count == 20_000:
            time.sleep(0.3)
            assert memory() - before < 10 * 2 ** 20  # all of them take 16
    assert count == 250_000


def test_a_stream_that_never_ends_is_left_by_closing_it(client, producer):
    stopped = threading.Event()

    def flood(sock: socket.socket) -> None:
        number = producer.requests[-1].number
        try:
            while True:
                sock.sendall(frame(ITEM, b"[0]", number) * 1000)
        except OSError:
            stopped.set()
            raise
    producer.script = [[flood]]
    iterator = consume(client, producer, None)
    assert next(iterator) == 0
    iterator.close()
    assert stopped.wait(patience(5))


def test_a_producer_that_falls_silent_is_waited_for_until_the_deadline(client, producer):
    producer.script = [[(ITEM, b"[1]")]]
    iterator = consume(client, producer, 0.3)
    assert next(iterator) == 1
    started = time.monotonic()
    with pytest.raises(net.CallTimeout) as caught:
        next(iterator)
    assert time.monotonic() - started < patience(1) and caught.value.ran == "maybe"
    assert producer.ended.wait(patience(5))


@each("cut", range(33))
def test_a_stream_that_breaks_anywhere_is_a_lost_peer(client, producer, cut):
    def part(sock: socket.socket) -> None:
        number = producer.requests[-1].number
        data = frame(ITEM, b"[1,2]", number) + frame(END, b"null", number)
        assert cut < len(data)
        sock.sendall(data[:cut])
        sock.shutdown(socket.SHUT_RDWR)
    producer.script = [[part]]
    seen = []
    with pytest.raises(net.PeerLost) as caught:
        for item in consume(client, producer):
            seen.append(item)
    assert caught.value.ran == "maybe" and seen in ([], [1, 2])


def test_what_was_taken_is_acknowledged_now_and_then(client, producer):
    text = b"[" + b",".join([b"0"] * 100) + b"]"
    producer.script = [[(ITEM, text)] * 20 + [(END, b"null")]]
    assert len(list(consume(client, producer))) == 2000
    until(lambda: sum(one.kind == TAKEN for one in producer.requests) >= 2000 // TELL - 1)
    told = [int(one.text) for one in producer.requests if one.kind == TAKEN]
    assert told == sorted(told) and len(told) >= 2000 // TELL - 1 and told[-1] <= 2000


def test_letting_go_of_an_iterator_that_never_began_sends_nothing(client, producer):
    iterator = consume(client, producer)
    del iterator
    other = consume(client, producer)
    other.close()
    assert producer.requests == [] and not client._find_pool(producer.address)._open


def test_the_window_is_wider_than_what_is_acknowledged_at_a_time():
    assert TELL < WINDOW_ITEMS and streaming.JOINED < WINDOW_BYTES


def test_a_generator_on_another_peer_says_so(client, producer):
    text = repr(consume(client, producer))
    assert "generator on" in text and producer.address[0] in text
