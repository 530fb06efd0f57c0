"""What a call lends, against the bytes of strangers: callers and peers that break the rules."""
from __future__ import annotations

import json
import threading
import time
from typing import Any, Iterator, List

import pytest

import net
from each import each
from net.identity import encode_text
from net.run.client import Client
from net.run.lending import ITEMS, MAX_LENT, Lender
from net.run.loop import Loop
from net.settings import settings
from net.wire.frames import (ANSWER, ASK, CALL, END, FAILURE, ITEM, PING, RESULT, TAKEN,
                             EndOfStream, Frame, pack)
from net.wire.limits import Limits
from net.wire.messages import encode_call
from loops import end_timers
from service import Raw, Service, greeted, request, until
from strangers import Producer
from times import patience

TAG = encode_text("lend")


def frame(kind: int, text: bytes = b"{}", number: int = 1, **more: Any) -> bytes:
    return b"".join(pack(kind, number, text, **more))


def lending(name: str, *args: Any, number: int = 1, lent: bytes = b"") -> bytes:
    """The call of a function with arguments of which some are lent.

    :param lent: a wrong description of the first one, in place of the right one.
    """
    data = b"".join(map(bytes, encode_call(number, encode_text(name), args, {},
                                           packer=Lender(Limits()))))
    if lent:
        start, end = data.index(b'{"!lent":'), data.index(b"]}", data.index(b'{"!lent":')) + 2
        data = frame(CALL, data[12:start] + lent + data[end:], tagged=True)
    return data


class Borrowing:
    """Functions that use what is lent, and note what came of it.

    :ivar outcomes: value or error of each use.
    """

    def __init__(self) -> None:
        self.outcomes: List[Any] = []
        self.kept: List[Any] = []
        self.go = threading.Event()

    def use(self, function: Any, *args: Any) -> Any:
        return self._noted(lambda: function(*args))

    def gather(self, items: Any) -> Any:
        return self._noted(lambda: list(items))

    def ignore(self, *lent: Any) -> int:
        self.kept.extend(lent)
        return len(lent)

    def wait(self, *lent: Any) -> bool:
        return self.go.wait(patience(10))

    def stream(self, items: Any) -> Iterator[Any]:
        for item in items:
            yield item

    def in_threads(self, function: Any, count: int) -> int:
        def use(number: int) -> None:
            try:
                self.use(function, number)
            except net.CallCancelled:
                pass
        threads = [threading.Thread(target=use, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count

    def _noted(self, use: Any) -> Any:
        try:
            found = use()
        except BaseException as problem:
            self.outcomes.append(problem)
            raise
        self.outcomes.append(found)
        return found


@pytest.fixture
def borrowing() -> Borrowing:
    return Borrowing()


@pytest.fixture
def service(borrowing: Borrowing) -> Iterator[Service]:
    with Service(use=borrowing.use, gather=borrowing.gather, ignore=borrowing.ignore,
                 hold=borrowing.wait, stream=borrowing.stream,
                 in_threads=borrowing.in_threads) as served:
        yield served
        borrowing.go.set()
        served.server.close()
        until(lambda: served.server.connections == 0)


def event(raw: Raw) -> Any:
    return raw._event()


def connected(service: Service, *data: bytes) -> Raw:
    raw = Raw(service.address, greeted(*data))
    raw.hello = event(raw)
    return raw


def is_ended(raw: Raw) -> bool:
    """Whether the server has ended the connection, with a refusal or without."""
    try:
        while True:
            one = event(raw)
            if one.kind == FAILURE and not one.number:
                assert json.loads(one.text)["refused"] == "ProtocolError"
    except (EndOfStream, ConnectionError):
        return True


# -------------------------------------------------------------------------- callers, byte by byte

@pytest.mark.parametrize("lend", ["an iterator", "a function"])
def test_nothing_more_is_lent_when_the_settings_of_security_have_changed(service, borrowing, lend):
    used = []

    def change(number: int = 0) -> int:
        used.append(number)
        settings.set("group", "another")  # as a secret does
        return number

    def items() -> Iterator[int]:
        yield 1
        yield change(2)

    try:
        with pytest.raises(net.PeerLost, match="the settings have changed"):
            if lend == "an iterator":
                service.call("gather", items())
            else:
                service.call("in_threads", change, 1)
    finally:
        settings.reset()
    assert len(used) == 1
    assert service.call("ignore", 5) == 1


def test_questions_and_answers_look_as_documented(service):
    with connected(service, lending("use", len, 5, (1,))) as raw:
        one = event(raw)
        assert (one.kind, one.number) == (ASK, 1)
        assert json.loads(one.text) == {"lent": 0, "items": None, "args": [5, {"!tuple": [1]}],
                                        "kwargs": {}}
        raw.send(frame(ANSWER, b'{"value":{"!tuple":[7]}}', tagged=True))
        assert event(raw) == Frame(RESULT, 1, True, b'{"!tuple":[7]}')
    with connected(service, lending("gather", iter("ab"))) as raw:
        assert json.loads(event(raw).text) == {"lent": 0, "items": ITEMS, "args": [], "kwargs": {}}
        raw.send(frame(ANSWER, b'{"items":[1,2]}'))
        assert event(raw).number == 2
        raw.send(frame(ANSWER, b'{"last":[3]}', 2))
        assert event(raw) == Frame(RESULT, 1, False, b"[1,2,3]")
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5


NONSENSE = [b"", b"5", b"null", b"[]", b"{}", b'{"value":1,"more":2}', b'{"other":1}',
            b'{"items":5}', b'{"items":{}}', b'{"last":null}', b'{"raised":5}', b'{"raised":{}}',
            b'{"raised":{"types":[["builtins","SystemExit"]],"text":5}}', b'{"value":', b"\xff"]


@pytest.mark.parametrize("name", ["use", "gather"])
@pytest.mark.parametrize("text", NONSENSE)
def test_an_answer_of_nonsense_is_an_error_of_that_call(service, borrowing, name, text):
    with connected(service, lending(name, len if name == "use" else iter("a"))) as raw:
        assert event(raw).kind == ASK
        raw.send(frame(ANSWER, text))
        one = event(raw)
        assert (one.kind, one.number) == (FAILURE, 1)
        assert isinstance(borrowing.outcomes[0], Exception)
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5


@pytest.mark.parametrize("text", [b'{"items":[1]}', b'{"last":[]}'])
def test_a_function_is_not_answered_with_items_nor_an_iterator_with_a_value(
        service, borrowing, text):
    with connected(service, lending("use", len)) as raw:
        event(raw)
        raw.send(frame(ANSWER, text))
        assert event(raw).kind == FAILURE
    with connected(service, lending("gather", iter("a"))) as raw:
        event(raw)
        raw.send(frame(ANSWER, b'{"value":[1]}'))
        assert event(raw).kind == FAILURE
    assert [type(one) for one in borrowing.outcomes] == [net.ProtocolError] * 2


def test_an_iterator_that_gives_nothing_for_ever_is_an_error(service, borrowing):
    with connected(service, lending("gather", iter("a"))) as raw:
        event(raw)
        raw.send(frame(ANSWER, b'{"items":[]}'))
        assert event(raw).kind == FAILURE
    assert isinstance(borrowing.outcomes[0], net.ProtocolError)


def test_an_answer_that_lends_something_is_refused(service, borrowing):
    with connected(service, lending("use", len)) as raw:
        event(raw)
        raw.send(frame(ANSWER, b'{"value":{"!lent":[0,"function","f"]}}', tagged=True))
        assert event(raw).kind == FAILURE
    assert isinstance(borrowing.outcomes[0], net.ValueNotSupported)


STRAY = {"another number": frame(ANSWER, b'{"value":1}', 2), "no number": frame(ANSWER, b"{}", 0),
         "a call": request("add", 1, 2), "a ping": frame(PING, b""), "noise": b"\xff" * 40,
         "a result": frame(RESULT, b"1"), "a question": frame(ASK, b"{}"),
         "items": frame(ITEM, b"[1]"), "an end": frame(END, b"1"),
         "something taken": frame(TAKEN, b"1")}


@pytest.mark.parametrize("what", STRAY)
def test_what_is_no_answer_ends_the_call_and_the_connection(service, borrowing, what):
    with connected(service, lending("use", len)) as raw:
        event(raw)
        raw.send(STRAY[what])
        assert is_ended(raw)
    until(lambda: borrowing.outcomes)
    assert isinstance(borrowing.outcomes[0], net.CallCancelled)
    assert [name for name, _ in service.ran] == ["use"]
    assert service.call("add", 1, 2) == 3


def test_a_caller_that_goes_ends_what_asks_it(service, borrowing):
    raw = connected(service, lending("use", len))
    event(raw)
    raw.sock.close()
    until(lambda: borrowing.outcomes, 1)
    assert isinstance(borrowing.outcomes[0], net.CallCancelled)


def test_a_caller_that_stalls_within_an_answer_is_waited_for_but_not_beyond_its_end(
        service, borrowing):
    with connected(service, lending("use", len)) as raw:
        event(raw)
        raw.send(frame(ANSWER, b'{"value":1}')[:-3])
        time.sleep(0.1)
        assert not borrowing.outcomes
    until(lambda: borrowing.outcomes)
    assert isinstance(borrowing.outcomes[0], net.CallCancelled)


def test_an_answer_to_nothing_before_the_reply_costs_the_connection_only(service, borrowing):
    with connected(service, lending("ignore", len)) as raw:
        assert event(raw) == Frame(RESULT, 1, False, b"1")
        raw.send(frame(ANSWER, b'{"value":1}'))
        assert is_ended(raw)
    assert service.call("add", 1, 2) == 3


def test_many_answers_in_any_order_reach_those_that_asked(service, borrowing):
    with connected(service, lending("in_threads", len, 5)) as raw:
        asked = [event(raw) for _ in range(5)]
        assert sorted(one.number for one in asked) == [1, 2, 3, 4, 5]
        for one in reversed(asked):
            number = json.loads(one.text)["args"][0]
            raw.send(frame(ANSWER, b'{"value":%d}' % (number * 10), one.number))
        assert event(raw) == Frame(RESULT, 1, False, b"5")
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5
    assert sorted(borrowing.outcomes) == [0, 10, 20, 30, 40]


def test_the_same_answer_twice_ends_the_connection(service, borrowing):
    with connected(service, lending("in_threads", len, 2)) as raw:
        first, _ = event(raw), event(raw)
        raw.send(frame(ANSWER, b'{"value":1}', first.number) * 2)
        assert is_ended(raw)
    until(lambda: len(borrowing.outcomes) == 2)
    assert any(isinstance(one, net.CallCancelled) for one in borrowing.outcomes)


def test_within_a_stream_questions_and_items_share_the_connection(service):
    with connected(service, lending("stream", iter("ab"))) as raw:
        assert event(raw).kind == ASK
        raw.send(frame(ANSWER, b'{"items":[1,2]}'))
        kinds, items = [], []
        while len(kinds) < 2 or kinds[-1] != ASK:
            one = event(raw)
            kinds.append(one.kind)
            items += json.loads(one.text) if one.kind == ITEM else []
        assert items == [1, 2]
        raw.send(frame(ANSWER, b'{"last":[3]}', 2))
        assert json.loads(event(raw).text) == [3]
        assert event(raw).kind == END
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5


@pytest.mark.parametrize("what", STRAY)
def test_what_is_no_answer_within_a_stream_ends_it(service, what):
    if what == "something taken":
        pytest.skip("may come")
    with connected(service, lending("stream", iter("ab"))) as raw:
        assert event(raw).kind == ASK
        raw.send(STRAY[what])
        assert is_ended(raw)
    assert service.call("add", 1, 2) == 3


@pytest.mark.parametrize("lent", [
    b'{"!lent":5}', b'{"!lent":[]}', b'{"!lent":[0]}', b'{"!lent":[0,"function"]}',
    b'{"!lent":["0","function","f"]}', b'{"!lent":[0,"class","f"]}', b'{"!lent":[0,"function",5]}',
    b'{"!lent":[0,"function","f",1]}', b'{"!lent":{"!lent":[0,"iterator","f"]}}',
    b'{"!lent":[true,"function","f"]}', b'{"!lent":null}', b'{"!lent":[1.5,"function","f"]}'])
def test_what_is_lent_without_sense_is_refused_before_anything_runs(service, lent):
    with connected(service, lending("ignore", len, lent=lent)) as raw:
        one = event(raw)
        assert (one.kind, json.loads(one.text)["ran"]) == (FAILURE, "no")
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5
    assert [name for name, _ in service.ran] == ["add"]


def test_a_name_of_what_is_lent_is_shown_printably(service, borrowing):
    shown = b'{"!lent":[0,"function","a\\u001b[2J"]}'
    with connected(service, lending("ignore", len, lent=shown)) as raw:
        assert event(raw).kind == RESULT
    assert "\x1b" not in repr(borrowing.kept[0]) and "lent by the caller" in repr(borrowing.kept[0])


def test_what_was_lent_raises_after_the_call_and_when_it_is_pickled(service, borrowing):
    import pickle

    with connected(service, lending("ignore", len, iter("a"))) as raw:
        assert event(raw).kind == RESULT
        function, iterator = borrowing.kept
        for use in (function, lambda: next(iterator), lambda: list(iterator)):
            with pytest.raises(net.CallCancelled, match="only while the call runs") as caught:
                use()
            assert caught.value.ran == "no"
        for lent in (function, iterator):
            with pytest.raises(TypeError, match="beyond the call"):
                pickle.dumps(lent)
        raw.send(request("add", 2, 3))
        assert raw.reply() == 5


def test_in_what_is_lent_numbers_beyond_those_that_were_lent_are_for_the_caller_to_refuse(service):
    with connected(service, lending("use", len, lent=b'{"!lent":[-7,"function","f"]}')) as raw:
        assert json.loads(event(raw).text)["lent"] == -7


# ---------------------------------------------------------------------------- peers, byte by byte

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


def ask(lent: Any = 0, items: Any = None, number: int = 1, args: Any = (), **more: Any) -> Any:
    content = {"lent": lent, "items": items, "args": list(args), "kwargs": {}, **more}
    return (ASK, json.dumps(content).encode(), number)


def answers(producer: Producer) -> List[Any]:
    return [json.loads(one.text) for one in producer.requests if one.kind == ANSWER]


def test_a_lent_function_is_called_as_often_as_is_asked(client, producer):
    seen: List[Any] = []
    producer.script = [[ask(args=[number]) for number in range(3)] + [(RESULT, b"5")]]
    assert client.call(producer.address, TAG, (seen.append,), {}, 5) == 5
    assert seen == [0, 1, 2]
    until(lambda: answers(producer) == [{"value": None}] * 3)


@pytest.mark.parametrize("lent", [-1, 1, 10 ** 6, 1.5, True, None, "0", [0]])
def test_what_was_not_lent_cannot_be_asked_for(client, producer, lent):
    called: List[Any] = []
    producer.script = [[ask(lent), (RESULT, b"5")], [(RESULT, b"6")]]
    with pytest.raises(net.ProtocolError) as caught:
        client.call(producer.address, TAG, (called.append,), {}, 5)
    assert caught.value.ran == "maybe" and not called
    assert producer.ended.wait(patience(5))
    assert client.call(producer.address, TAG, (), {}, 5) == 6


@pytest.mark.parametrize("text", [b"", b"5", b"[]", b"{}", b'{"lent":0}', b'{"lent":0,"args":[]}',
                                  b'{"lent":0,"args":{},"kwargs":{}}',
                                  b'{"lent":0,"args":[],"kwargs":[]}',
                                  b'{"lent":0,"args":[],"kwargs":{},"items":"x"}'])
def test_a_question_of_nonsense_ends_the_call_with_a_typed_error(client, producer, text):
    producer.script = [[(ASK, text, 1), (RESULT, b"5")], [(RESULT, b"6")]]
    with pytest.raises(net.ProtocolError) as caught:
        client.call(producer.address, TAG, (len,), {}, 5)
    assert caught.value.ran == "maybe"
    assert client.call(producer.address, TAG, (), {}, 5) == 6


def test_a_caller_that_lends_nothing_is_asked_for_nothing(client, producer):
    producer.script = [[ask(), (RESULT, b"5")], [(RESULT, b"6")]]
    with pytest.raises(net.ProtocolError) as caught:
        client.call(producer.address, TAG, (), {}, 5)
    assert caught.value.ran == "maybe"
    assert producer.ended.wait(patience(5))
    assert client.call(producer.address, TAG, (), {}, 5) == 6


def test_a_function_has_no_items_and_an_iterator_is_not_called(client, producer):
    producer.script = [[ask(0, 5), ask(1, args=[1]), ask(1, 5), (RESULT, b"5")]]
    assert client.call(producer.address, TAG, (len, iter("ab")), {}, 5) == 5
    until(lambda: len(answers(producer)) == 3)
    first, second, third = answers(producer)
    assert [one["raised"]["types"][0][1] for one in (first, second)] == ["TypeError"] * 2
    assert third == {"last": ["a", "b"]}


@pytest.mark.parametrize("items", [0, -5, 1, 10 ** 9])
def test_whatever_number_of_items_is_asked_for_few_are_taken_at_a_time(client, producer, items):
    producer.script = [[ask(0, items), (RESULT, b"5")]]
    assert client.call(producer.address, TAG, (iter(range(1000)),), {}, 5) == 5
    until(lambda: answers(producer))
    (answer,) = answers(producer)
    assert len(answer.get("items", [])) <= ITEMS


def test_a_question_after_the_reply_is_no_answer_to_the_next_call(client, producer):
    def burst(sock: Any) -> None:
        number = producer.requests[-1].number
        sock.sendall(frame(RESULT, b"5", number) + frame(*ask()[:2]))
    called: List[Any] = []
    producer.script = [[burst], [(RESULT, b"6")]]
    with pytest.raises(net.ProtocolError, match="more than one reply"):
        client.call(producer.address, TAG, (called.append,), {}, 5)
    assert not called
    assert client.call(producer.address, TAG, (), {}, 5) == 6


def test_a_peer_that_asks_for_ever_is_asked_to_stop_by_the_deadline(client, producer):
    def flood(sock: Any) -> None:
        end = time.monotonic() + 5
        number = 0
        try:
            while time.monotonic() < end:
                number += 1
                sock.sendall(frame(*ask(number=number)))
                time.sleep(0.001)
        except OSError:
            pass
    producer.script = [[flood]]
    called: List[Any] = []
    started = time.monotonic()
    with pytest.raises(net.CallTimeout) as caught:
        client.call(producer.address, TAG, (lambda: called.append(1),), {}, 0.3)
    assert time.monotonic() - started < patience(2) and caught.value.ran == "maybe" and called


@each("cut", range(len(frame(*ask()))))
def test_a_call_that_breaks_within_a_question_is_a_lost_peer(client, producer, cut):
    def part(sock: Any) -> None:
        sock.sendall(frame(*ask())[:cut])
        sock.shutdown(2)
    producer.script = [[part]]
    with pytest.raises(net.PeerLost) as caught:
        client.call(producer.address, TAG, (len,), {}, 5)
    assert caught.value.ran == "maybe"


def test_a_lender_counts_what_it_lends():
    lender = Lender(Limits())
    for number in range(MAX_LENT):
        assert lender.lend(len) == [number, "function", "len"]
    with pytest.raises(net.ValueNotSupported):
        lender.lend(len)
    assert Lender(Limits()).lend(5) is None and Lender(Limits()).lend(iter("a"))[1] == "iterator"


async def awaited() -> None:
    pass


async def awaited_items() -> Any:
    yield 1


@pytest.mark.parametrize("function", [awaited, awaited_items])
def test_a_function_that_would_have_to_be_awaited_is_not_lent(function):
    with pytest.raises(net.ValueNotSupported, match="async") as caught:
        encode_call(1, TAG, (1, [function]), {}, packer=Lender(Limits()))
    assert "args[1][0]" in str(caught.value)


def test_only_what_cannot_travel_is_lent():
    # A class that is registered, a value with a __call__ that travels: they stay what they are.
    message = encode_call(1, TAG, ([1], (2,), net.PeerId(b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==")), {},
                          packer=Lender(Limits()))
    assert b"!lent" not in b"".join(message)
