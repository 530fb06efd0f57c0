"""A request in, a reply out: without a socket or a thread."""
from __future__ import annotations

import asyncio
import base64
import dataclasses
import difflib
import io
import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, AsyncIterator, Dict, Iterator, List, Optional

import pytest

import net
import travel
from each import each
from net import dispatch as dispatch_module
from net import executors
from net.context import Caller, Context, enter
from net.dispatch import Dispatch, MemoryBudget, NoRoom, Room, Tally
from net.errors import (InvalidConnection, MessageTooLarge, NetError, PeerBusy, PeerLost,
                        ProtocolError, RemoteError, ValueNotSupported)
from net.identity import Flag, encode_text, public_module
from net.log import CALLS, RateLimitedLog
from net.settings import MIB
from net.wire import legacy, messages
from net.wire.failures import rebuild
from net.wire.legacy import LegacySession
from net.wire.frames import CALL, Frame
from net.wire.memory import size_of
from travel import joined, read_frame
from times import patience

REGISTRY: dict[bytes, Any] = {}


def connection(function: Any) -> Any:
    REGISTRY[encode_text(function.__name__)] = function
    return function


@connection
def multiply(a: Any, b: Any = 2) -> Any:
    return a * b


@connection
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@connection
def unsendable() -> Any:
    return {"x": [threading.Lock()]}


@connection
def endless() -> Any:
    value: list = []
    value.append(value)
    return value


@connection
def deep() -> Any:
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


@connection
def bomb() -> Any:
    value: list = [0]
    for _ in range(60):
        value = [value, value]
    return value


@connection
def large() -> Any:
    return ["x" * 4000] * 5000


@connection
def leave() -> Any:
    sys.exit(3)


@connection
def interrupt() -> Any:
    raise KeyboardInterrupt


@connection
def divide(a: Any, b: Any) -> Any:
    return a / b


@connection
def recurse() -> Any:
    return recurse()


@connection
def special() -> Any:
    return net.Peer().get_flag("NULL")


@connection
def large_error() -> Any:
    raise ValueError([10 ** 9] * 10_000)


class Shy(Exception):
    @property
    def __dict__(self) -> Any:
        raise RuntimeError("do not look")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("nor here")


@connection
def shy() -> Any:
    raise Shy("x")


@connection
def changing() -> Any:
    class Keys(dict):
        pass

    return Keys(a=1)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch(REGISTRY)


def context(group: Optional[str] = None) -> Context:
    """That of a connection from a peer of a group."""
    return Context(Caller(("192.0.2.1", 40000), group))


def ask(dispatch: Dispatch, tally: Tally, name: str, *args: Any, group: Optional[str] = None,
        **kwargs: Any) -> Any:
    tag = encode_text(name)
    request = read_frame(joined(messages.encode_call(5, tag, args, kwargs)))
    answer = read_frame(joined(dispatch.answer(request, context(group), tally)))
    assert answer.number == 5
    return messages.decode_reply(answer, ("192.0.2.1", 1), "192.0.2.1:1", tag)


def ask_raw(dispatch: Dispatch, tally: Tally, text: Any, tagged: bool = False) -> Any:
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    answer = read_frame(joined(dispatch.answer(Frame(CALL, 5, tagged, data), context(), tally)))
    return messages.decode_reply(answer, ("192.0.2.1", 1), "192.0.2.1:1", b"")


def ask_old(dispatch: Dispatch, tally: Tally, name: str, *args: Any,
            dialect: str = legacy.BASE64, **kwargs: Any) -> Any:
    session = LegacySession()
    session.receive(LegacySession(dialect).call(encode_text(name), args, kwargs))
    data = dispatch.answer_legacy(session, context(), tally)
    assert len(data) <= 1024
    return data


def test_a_call_that_arrives_overdue_never_runs(tally):
    ran = []

    async def wait() -> None:
        ran.append("coroutine")

    def items() -> Any:
        ran.append("generator")
        yield 1
    tags = [encode_text(name) for name in ("plain", "coroutine", "generator", "executor")]
    with ThreadPoolExecutor(1) as executor:
        made = Dispatch(dict(zip(tags, (lambda: ran.append("plain"), wait, items,
                                        lambda: ran.append("executor")))),
                        executors={tags[3]: executor})
        for tag in tags:
            with pytest.raises(net.CallTimeout) as caught:
                ask_raw(made, tally, {"tag": tag.decode(), "args": [], "kwargs": {}, "seconds": 0})
            assert caught.value.ran == "no"
    assert ran == [] and tally.by_tag == {}


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


def items() -> Iterator[int]:
    yield 1


async def async_items() -> AsyncIterator[int]:
    yield 1


@each("function", [plain, coroutine, items, async_items])
def test_what_waits_in_an_executor_until_its_time_is_over_did_not_run(tally, function):
    held, tag = threading.Event(), encode_text("it")
    loop = asyncio.new_event_loop()  # it never runs
    with ThreadPoolExecutor(1) as executor:
        executor.submit(held.wait, 60)
        for where in (executor, loop):
            made = Dispatch({tag: function}, executors={tag: where})
            with pytest.raises(net.CallTimeout) as caught:
                ask_raw(made, tally, {"tag": tag.decode(), "args": [], "kwargs": {},
                                      "seconds": 0.05})
            assert caught.value.ran == "no" and not isinstance(caught.value, net.RemoteError)
        held.set()
    loop.close()


def test_what_a_function_gives_for_a_loop_that_never_runs_may_have_run(tally):
    tag, loop = encode_text("it"), asyncio.new_event_loop()
    made = Dispatch({tag: lambda: coroutine()}, coroutines=lambda: loop)
    with pytest.raises(net.CallTimeout) as caught:
        ask_raw(made, tally, {"tag": tag.decode(), "args": [], "kwargs": {}, "seconds": 0.05})
    assert caught.value.ran == "maybe" and not isinstance(caught.value, net.RemoteError)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_an_executor_that_is_free_too_late_runs_nothing():
    over = context()
    over.seconds, over.deadline = 0.0, monotonic()
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(net.CallTimeout) as caught:
            executor.submit(executors._begin, over, pytest.fail, (), {}).result(patience(60))
    assert caught.value.ran == "no"


def test_what_outlasts_its_call_in_an_executor_stays_cancelled_when_the_next_call_has_come(tally):
    go_on, found = threading.Event(), []

    def outlast() -> None:
        go_on.wait(patience(60))
        found.append((net.cancelled(), net.remaining()))
    tags = [encode_text("outlast"), encode_text("next")]
    within = context()
    with ThreadPoolExecutor(1) as executor:
        made = Dispatch({tags[0]: outlast, tags[1]: net.remaining}, executors={tags[0]: executor})

        def call(tag: bytes, seconds: Optional[float]) -> Any:
            request = joined(messages.encode_call(3, tag, (), {}, seconds=seconds))
            enter(within)
            try:
                reply = joined(made.answer(read_frame(request), within, tally))
            finally:
                enter(None)
            return messages.decode_reply(read_frame(reply), None, None, tag)
        with pytest.raises(net.CallTimeout):
            call(tags[0], 0.2)
        assert call(tags[1], None) is None
        go_on.set()
    assert found in ([(True, 0.0)], [])  # or it never began, on a machine that is too slow


@pytest.mark.parametrize("value, is_small", [
    (5, True), (None, True), ("ä" * 1000, True), ([1, "x"], True), ({"x": 1.5}, True),
    ((1, 2), True), ("x" * 5000, False), (list(range(17)), False), ([[1]], False), ({1, 2}, False),
    ({str(number): number for number in range(17)}, False)])
@pytest.mark.parametrize("sends", [True, False])
def test_a_small_result_of_a_coroutine_is_sent_from_its_loop(
        tally, asyncio_loop, value, is_small, sends):
    async def give() -> Any:
        return value

    sent, tag = [], encode_text("give")

    def send_at_once(reply: List[Any]) -> bool:
        sent.append((joined(reply), threading.get_ident(), tally.by_tag[tag].calls))
        return sends
    within = context()
    within.send_at_once = send_at_once
    made = Dispatch({tag: give}, coroutines=lambda: asyncio_loop)
    left = made.answer(read_frame(joined(messages.encode_call(3, tag, (), {}))), within, tally)
    reply = sent[0][0] if is_small and sends else joined(left)
    assert messages.decode_reply(read_frame(reply), None, None, tag) == value
    assert read_frame(reply).number == 3
    assert bool(sent) == is_small and (left == []) == (is_small and sends)
    if sent:  # counted before anybody can ask for it
        assert sent[0][1] != threading.get_ident() and sent[0][2] == 1
    assert tally.by_tag[tag].calls == 1 and tally.by_tag[tag].errors == 0


def test_a_call_is_answered_with_its_result(dispatch, tally):
    assert ask(dispatch, tally, "multiply", 5, b=10) == 50
    assert ask(dispatch, tally, "multiply", (1,)) == (1, 1)
    assert ask(dispatch, tally, "echo", 1, x={2}) == ((1,), {"x": {2}})


def test_an_error_is_answered_with_the_matching_one(dispatch, tally):
    with pytest.raises(ZeroDivisionError) as caught:
        ask(dispatch, tally, "divide", 1, 0)
    assert isinstance(caught.value, RemoteError)
    assert "return a / b" in caught.value.traceback
    assert "in _run" not in caught.value.traceback


@pytest.mark.parametrize("args, kwargs, text", [
    ((), {}, "missing 1 required positional argument"), ((1, 2, 3), {}, "takes from 1 to 2"),
    ((1,), {"c": 5}, "unexpected keyword argument 'c'"), ((1,), {"a": 5}, "multiple values"),
    ((1,), {"peer": "x"}, "unexpected keyword argument 'peer'"),
])
def test_wrong_arguments_are_the_type_error_that_they_are_here(dispatch, tally, args, kwargs, text):
    with pytest.raises(TypeError, match=text) as caught:
        ask(dispatch, tally, "multiply", *args, **kwargs)
    with pytest.raises(TypeError) as local:
        multiply(*args, **kwargs)
    assert str(caught.value) == str(local.value)


def test_keywords_that_are_no_text_are_refused(dispatch, tally):
    tag = encode_text("echo").decode()
    with pytest.raises(TypeError):
        ask_raw(dispatch, tally,
                f'{{"tag":"{tag}","args":[],"kwargs":{{"!dict":[1,2]}}}}'.encode(),
                tagged=True)


@pytest.mark.parametrize("name", ["leave", "interrupt"])
def test_what_would_end_a_program_becomes_a_plain_remote_error(dispatch, tally, name):
    with pytest.raises(RemoteError) as caught:
        ask(dispatch, tally, name)
    assert type(caught.value) is RemoteError


@pytest.mark.parametrize("name, error, ran", [
    ("unsendable", ValueNotSupported, "yes"), ("endless", ValueNotSupported, "yes"),
    ("deep", ValueNotSupported, "yes"), ("bomb", MessageTooLarge, "yes"),
    ("large", MessageTooLarge, "yes"), ("changing", ValueNotSupported, "yes"),
])
def test_a_result_that_cannot_travel_is_an_error_that_says_that_it_ran(dispatch, tally, name, error,
                                                                       ran):
    with pytest.raises(error) as caught:
        ask(dispatch, tally, name)
    assert caught.value.ran == ran and not isinstance(caught.value, RemoteError)
    if name == "unsendable":
        assert caught.value.path == "result['x'][0]"


def test_a_function_without_end_is_a_recursion_error(dispatch, tally):
    with pytest.raises(RecursionError):
        ask(dispatch, tally, "recurse")


def test_an_exception_with_more_than_a_message_holds_keeps_its_class(dispatch, tally,
                                                                     kept_settings):
    kept_settings.set("max_text", 100_000)
    with pytest.raises(ValueError) as caught:
        ask(dispatch, tally, "large_error")
    assert isinstance(caught.value, RemoteError)
    assert caught.value.traceback and caught.value.args == ()


def test_whatever_an_exception_is_like_there_is_a_reply(dispatch, tally):
    with pytest.raises(RemoteError) as caught:
        ask(dispatch, tally, "shy")
    assert (type(caught.value).__name__, str(caught.value)) == ("Shy", "x")
    assert base64.b64decode(ask_old(dispatch, tally, "shy")).startswith(b'{"payload": "error"')


@dataclasses.dataclass(frozen=True)
class Final(Exception):
    """Python itself cannot set an attribute of it."""

    code: int


@connection
def final() -> Any:
    raise Final(5)


def test_an_error_of_a_frozen_dataclass_is_answered_and_lets_go_of_its_frames(dispatch, tally):
    with pytest.raises(Final) as caught:
        ask(dispatch, tally, "final")
    assert caught.value.code == 5
    raised = Final(6)
    try:
        raise raised
    except Final:
        dispatch_module.encode_error(1, b"dGFn", raised)
    assert raised.__traceback__ is None


def test_an_unknown_tag_is_a_flag_with_names_like_it(dispatch, tally):
    answer = ask(dispatch, tally, "multiplied")
    assert type(answer) is Flag and answer == b"SU5WQUxJRF9DT05ORUNUSU9O"
    assert answer.details == ["multiply"]
    assert ask(dispatch, tally, "zzz").details == []
    assert not tally.by_tag


def test_names_near_an_unknown_tag_have_the_same_last_part_first(tally):
    registry = {encode_text(name): len for name in (
        "studio.render", "studio.rendered", "farm.nodes.render", "__main__.run", "studio.reader")}
    dispatch = Dispatch(registry)
    assert set(ask(dispatch, tally, "__main__.render").details[:2]) == {"studio.render",
                                                                        "farm.nodes.render"}
    assert ask(dispatch, tally, "app.rendr").details[:1] == ["studio.render"]
    assert ask(dispatch, tally, "studio.run").details[0] == "__main__.run"


def test_names_near_an_unknown_tag_do_not_tell_how_old_publishers_call_a_handler(tally):
    handler = encode_text("app.hear")
    dispatch = Dispatch({handler: print, legacy.marked(handler, "0123456789ab"): print})
    for wrong in ("app.hear~", "hear", "app.hear~0123456789ac"):
        assert set(ask(dispatch, tally, wrong).details) <= {"app.hear"}


def test_of_many_functions_few_are_compared_with_a_wrong_tag_letter_by_letter(tally, monkeypatch):
    """Among a thousand, each wrong tag cost 20 ms."""
    registry = {encode_text(f"studio.tasks{number % 7}.render_{number:04}"): len
                for number in range(900)}
    dispatch = Dispatch({**registry, encode_text("farm.lights.bake"): len})
    compared, compare = [], difflib.get_close_matches

    def counting(word: str, possibilities: Any, *options: Any) -> Any:
        compared.append(len(possibilities))
        return compare(word, possibilities, *options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    assert ask(dispatch, tally, "app.baked").details[0] == "farm.lights.bake"
    assert "studio.tasks0.render_0007" in ask(dispatch, tally, "studio.tasks0.rendr_0007").details
    assert compared and max(compared) <= dispatch_module.MAX_LIKELY


@pytest.mark.parametrize("tag",
                         ["os.system", "builtins.eval", "net.peer._process", "", "\0", "x" * 10_000,
                          "b3Muc3lzdGVt", "multiply", "__class__", "é", "\ud800", 'a"b', "e\n="])
def test_only_what_was_registered_can_be_called(dispatch, tally, tag):
    request = {"tag": tag, "args": ["true"], "kwargs": {}}
    if len(tag) < 4097:
        answer = ask_raw(dispatch, tally, request)
        assert type(answer) is Flag and answer == encode_text("INVALID_CONNECTION")
    else:
        with pytest.raises(ProtocolError, match="base64 tag"):
            ask_raw(dispatch, tally, request)
    assert not tally.by_tag


#: As the name of the field with the tag is in the old dialect.
MALFORMED = [
    "text", 5, 1.5, [], [1, 2], None, True, {}, {"args": [], "kwargs": {}},
    {"connection": None, "args": [], "kwargs": {}}, {"connection": ["eA=="], "args": [],
                                                     "kwargs": {}},
    {"connection": 5, "args": [], "kwargs": {}},
    {"connection": "ZWNobw==", "args": {}, "kwargs": {}},
    {"connection": "ZWNobw==", "args": [], "kwargs": []},
    {"connection": "ZWNobw==", "args": 5, "kwargs": {}},
    {"connection": "ZWNobw==", "args": [], "kwargs": "x"}, {"connection": "ZWNobw==", "args": []},
]


def renamed(content: Any) -> Any:
    """The same with the field's name in the modern dialect."""
    if not isinstance(content, dict):
        return content
    return {"tag" if name == "connection" else name: value for name, value in content.items()}


@pytest.mark.parametrize("content", [*map(renamed, MALFORMED), {"connection": "ZWNobw==",
                                                                "args": [], "kwargs": {}},
                                     {"args": [], "kwargs": {}, "tag": "ZWNobw=="}],
                         ids=json.dumps)
def test_a_call_of_another_form_is_refused_and_runs_nothing(dispatch, tally, content):
    for tagged in (False, True):
        with pytest.raises(ProtocolError) as caught:
            ask_raw(dispatch, tally, content, tagged)
        assert caught.value.ran == "no"
    assert not tally.by_tag


def test_fields_of_a_call_that_are_not_known_here_are_ignored(dispatch, tally):
    tag = encode_text("multiply").decode()
    assert ask_raw(dispatch, tally, {"tag": tag, "left": 5.0, "args": [5], "kwargs": {},
                                     "more": [{}]}) == 10


@pytest.mark.parametrize("rest", [b"", b',"args":[' + b"[" * 500, b',"args":[{"!value":5}]}'])
def test_nothing_of_a_call_to_an_unknown_tag_is_read(dispatch, tally, rest):
    answer = ask_raw(dispatch, tally, b'{"tag":"eA=="' + (rest or b"}"), tagged=True)
    assert type(answer) is Flag and answer == encode_text("INVALID_CONNECTION")


def test_nothing_of_a_call_of_another_group_is_read(tally):
    dispatch = Dispatch(REGISTRY, {encode_text("echo"): frozenset({"render"})})
    with pytest.raises(net.AuthenticationError):
        ask_raw(dispatch, tally, b'{"tag":"ZWNobw==","args":[' + b"[" * 500)


@pytest.mark.parametrize("text", [
    b"", b"{", b"[1] ", b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 100_000,
    b'{"a":' * 100_000, b'"' + b"[" * 1000, b"nothing", b"9" * 5000,
], ids=lambda text: repr(text[:12]))
def test_what_is_no_json_is_refused(dispatch, tally, text):
    for tagged in (False, True):
        with pytest.raises(ProtocolError) as caught:
            ask_raw(dispatch, tally, text, tagged)
        assert caught.value.ran == "no"


def test_an_argument_of_a_class_that_is_not_registered_is_refused(dispatch, tally):
    tag = encode_text("echo").decode()
    with pytest.raises(ValueNotSupported, match="app.Job") as caught:
        ask_raw(dispatch, tally,
                f'{{"tag":"{tag}","args":[{{"!value":{{"class":"app.Job"}}}}],'
                f'"kwargs":{{}}}}'.encode(), tagged=True)
    assert caught.value.ran == "no" and not tally.by_tag


@pytest.mark.parametrize("error", [Exception("own"), ValueError("own"), SystemExit(3),
                                   PeerLost(None, "own")], ids=repr)
def test_what_a_class_raises_while_arguments_are_read_is_answered(dispatch, tally, monkeypatch,
                                                                  error, caplog, fresh_log):
    """It once cut the connection without a word."""
    def fail(self: Any) -> int:
        raise error

    monkeypatch.setattr(travel.Frozen, "__hash__", fail)
    text = b'{"tag":"%b","args":[{"!set":[{"!value":{"class":"travel.Frozen","name":1}}]}],' \
           b'"kwargs":{}}' % encode_text("echo")
    with pytest.raises(ValueNotSupported, match=f"{type(error).__name__} was raised at the peer") \
            as caught:
        ask_raw(dispatch, tally, text, tagged=True)
    assert caught.value.ran == "no" and not tally.by_tag
    assert "echo, called by" in caplog.text and type(error).__name__ in caplog.text


def test_a_request_for_which_there_is_no_memory_is_refused(dispatch, tally, monkeypatch):
    def unpack(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(messages, "unpack", unpack)
    request = read_frame(joined(messages.encode_call(5, encode_text("echo"), (), {})))
    answer = read_frame(joined(dispatch.answer(request, context(), tally)))
    assert json.loads(answer.text) == {"refused": "PeerBusy", "ran": "no",
                                       "reason": "no memory for the arguments there"}


SETS = b'{"tag":"%b","args":[[%b]],"kwargs":{}}' % (
    encode_text("echo"), b",".join([b'{"!set":[]}'] * 20_000))  # 4.5 MiB in memory


def test_values_of_a_large_call_are_counted_as_they_are_made_and_freed(tally):
    memory, taken = MemoryBudget(), []
    dispatch = Dispatch({encode_text("echo"): lambda sets: taken.append(memory.taken)},
                        memory=memory)
    assert ask_raw(dispatch, tally, SETS, tagged=True) is None
    real = 20_000 * (size_of(set()) + 8) + len(SETS)
    assert real / 1.5 < taken[0] < real * 1.5
    assert memory.taken == 0


def test_a_large_call_that_finds_no_room_while_it_is_read_runs_nothing(tally, kept_settings):
    net.configure(max_memory=3 * MIB)
    memory, ran = MemoryBudget(), []
    dispatch = Dispatch({encode_text("echo"): ran.append}, memory=memory)
    other = Room(memory)
    assert other.take(MIB // 2)
    with pytest.raises(PeerBusy, match="NET_MAX_MEMORY") as caught:
        ask_raw(dispatch, tally, SETS, tagged=True)
    assert caught.value.ran == "no" and not ran and memory.taken == MIB // 2
    other.free()
    ask_raw(dispatch, tally, SETS, tagged=True)  # one alone always finds it
    assert len(ran) == 1 and memory.taken == 0


def test_a_budget_of_memory_lets_one_alone_take_more(kept_settings):
    net.configure(max_memory=MIB)
    memory = MemoryBudget()
    one, two = Room(memory), Room(memory)
    assert one.take(5 * MIB) and one.take(MIB) and not two.take(1) and one.take(1)
    assert one.take(-6 * MIB) and two.take(MIB // 2) and not one.take(MIB)
    with pytest.raises(NoRoom):
        one.charge(MIB)
    one.free(), two.free()
    assert (one.size, two.size, memory.taken) == (0, 0, 0)


def test_calls_errors_and_seconds_are_counted(dispatch, tally):
    for _ in range(3):
        ask(dispatch, tally, "multiply", 1)
    for name in ("divide", "leave"):
        with pytest.raises((ZeroDivisionError, RemoteError)):
            ask(dispatch, tally, name, *([1, 0] if name == "divide" else []))
    ask_old(dispatch, tally, "multiply", 2)
    count = tally.by_tag[encode_text("multiply")]
    assert (count.calls, count.errors) == (4, 0) and 0 <= count.seconds < 5
    for name in ("divide", "leave"):
        count = tally.by_tag[encode_text(name)]
        assert (count.calls, count.errors) == (1, 1)
    total = Tally()
    total.merge(tally)
    total.merge(tally)
    assert total.by_tag[encode_text("multiply")].calls == 8
    assert total.by_tag[encode_text("divide")].errors == 2
    assert tally.by_tag[encode_text("multiply")].calls == 4


def test_the_registry_is_looked_at_anew_for_each_call(tally):
    registry: dict[bytes, Any] = {}
    dispatch = Dispatch(registry)
    assert type(ask(dispatch, tally, "later")) is Flag
    registry[encode_text("later")] = lambda: 7
    assert ask(dispatch, tally, "later") == 7


def test_nobody_has_called_a_local_function():
    assert net.caller() is None and net.remaining() is None and not net.cancelled()


@pytest.fixture
def fresh_log(monkeypatch) -> None:
    """Nothing has been logged yet, so that nothing is left out."""
    monkeypatch.setattr(dispatch_module, "note", RateLimitedLog(logging.getLogger(CALLS)))


def test_a_function_that_fails_leaves_a_line_with_its_traceback(dispatch, tally, fresh_log, caplog,
                                                                monkeypatch):
    monkeypatch.setattr(dispatch_module, "current",
                        lambda: Context(Caller(("192.0.2.9", 4000), None)))
    for ask_it in (ask, ask, ask_old):
        try:
            ask_it(dispatch, tally, "divide", 1, 0)
        except ZeroDivisionError:
            pass
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("net.calls", "ERROR")
    assert record.getMessage() == "divide, called by 192.0.2.9:4000, raised"
    assert record.exc_info[0] is ZeroDivisionError


def test_each_function_and_each_error_has_lines_of_its_own(dispatch, tally, fresh_log, caplog):
    for name, args in [("divide", (1, 0)), ("divide", (1, "x")), ("leave", ()), ("divide", (1, 0)),
                       ("unsendable", ())]:
        with pytest.raises(Exception):
            ask(dispatch, tally, name, *args)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "divide", "divide", "leave", "unsendable"]
    assert [record.exc_info[0].__name__ for record in caplog.records] == [
        "ZeroDivisionError", "TypeError", "SystemExit", "ValueNotSupported"]


def test_errors_that_another_peer_has_raised_are_one_kind_of_line(tally, fresh_log, caplog):
    """That peer chooses the names of their classes, and each had a line with a traceback."""
    numbers = iter(range(2000))

    def call_another_peer() -> None:
        raise rebuild({"types": [["elsewhere", f"E{next(numbers)}"], ["builtins", "ValueError"]],
                       "text": "x"})

    dispatch = Dispatch({encode_text("relay"): call_another_peer})
    for _ in range(50):
        with pytest.raises(ValueError):
            ask(dispatch, tally, "relay")
    assert len(caplog.records) == 1 and caplog.records[0].exc_info[0].__name__ == "E0"


@pytest.mark.parametrize("error", [net.CallCancelled("over"), net.CallTimeout(None, 1.0)])
def test_what_was_given_up_leaves_no_error(tally, fresh_log, caplog, monkeypatch, error):
    def give_up() -> None:
        raise error

    dispatch = Dispatch({encode_text("give up"): give_up})
    caller = Context(Caller(None, None))
    monkeypatch.setattr(dispatch_module, "current", lambda: caller)
    with caplog.at_level(logging.INFO):
        with pytest.raises(net.NetError):
            ask(dispatch, tally, "give up")
        caller.cancel()
        with pytest.raises(net.NetError):
            ask(dispatch, tally, "give up")
    # In a call whose caller still waits, it is an error like any other.
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "give up, called by a process of this host, raised"),
        ("INFO", "give up was given up by its caller")]


def test_a_call_that_did_not_run_leaves_no_line(dispatch, tally, fresh_log, caplog):
    ask(dispatch, tally, "unknown")
    ask(dispatch, tally, "multiply", 1)
    assert not caplog.records


def test_large_requests_share_a_memory_of_limited_size(tally, kept_settings):
    kept_settings.set("max_memory", 3 * 2 ** 19)
    numbers = [0] * 100_000  # of which each takes 10 bytes, its text included

    def again(value: Any, times: int) -> Any:
        return ask(dispatch, tally, "again", value, times - 1) if times else "ran"

    dispatch = Dispatch({encode_text("again"): again})
    for _ in range(3):  # what one has taken is there for the next
        assert ask(dispatch, tally, "again", numbers, 0) == "ran"
    with pytest.raises(PeerBusy, match="NET_MAX_MEMORY"):
        ask(dispatch, tally, "again", numbers, 1)
    assert ask(dispatch, tally, "again", numbers, 0) == "ran"
    assert ask(dispatch, tally, "again", "small", 3) == "ran"


def test_an_error_does_not_keep_the_arguments_alive(dispatch, tally, monkeypatch):
    # What the test itself captures of the log would.
    monkeypatch.setattr(dispatch_module, "note", lambda *values, kind_of: None)
    import gc
    import weakref

    class Large:
        pass

    kept = []

    def hold() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise problem

    problem = ValueError("kept by the application")
    dispatch = Dispatch({encode_text("hold"): hold})
    with pytest.raises(ValueError):
        ask(dispatch, tally, "hold")
    gc.collect()
    assert kept[0]() is None and problem.__traceback__ is None


@pytest.mark.parametrize("detail", ["full", "type", "none"])
def test_the_setting_decides_what_an_error_tells(dispatch, tally, kept_settings, detail):
    kept_settings.set("traceback", detail)
    with pytest.raises(ZeroDivisionError) as caught:
        ask(dispatch, tally, "divide", 1, 0)
    assert bool(caught.value.traceback) == (detail == "full")  # type: ignore[attr-defined]
    assert ("division by zero" in str(caught.value)) == (detail != "none")
    old = json.loads(base64.b64decode(ask_old(dispatch, tally, "divide", 1, 0)))["traceback"]
    assert ("return a / b" in old) == (detail == "full")
    assert ("division by zero" in old) == (detail != "none")
    assert "ZeroDivisionError" in old


# --------------------------------------------------------------------------- the old dialect


def test_an_old_call_is_answered_in_its_dialect(dispatch, tally):
    assert ask_old(dispatch, tally, "multiply", 5, b=10) == b"eyJyYXciOiA1MH0="
    assert ask_old(dispatch, tally, "special") == b"TlVMTA=="
    assert ask_old(dispatch, tally, "unknown") == b"SU5WQUxJRF9DT05ORUNUSU9O"


def test_an_old_peer_may_call_the_main_program_main(tally):
    main = public_module("__main__")
    dispatch = Dispatch({encode_text(f"{main}.echo"): echo})
    assert main != "__main__"
    answer = ask_old(dispatch, tally, f"{main}.echo", 5)
    assert ask_old(dispatch, tally, "__main__.echo", 5) == answer != ask_old(dispatch, tally, "x")


@pytest.mark.parametrize("name, last", [
    ("divide", "ZeroDivisionError: division by zero"), ("leave", "SystemExit: 3"),
    ("interrupt", "KeyboardInterrupt"),
])
def test_an_old_peer_gets_the_traceback(dispatch, tally, name, last):
    args = [1, 0] if name == "divide" else []
    reply = json.loads(base64.b64decode(ask_old(dispatch, tally, name, *args)))
    assert reply["payload"] == "error"
    assert reply["traceback"].startswith("Traceback (most recent call last):\n")
    assert reply["traceback"].rstrip().splitlines()[-1] == last


@pytest.mark.parametrize("name", ["unsendable", "endless", "deep", "bomb", "large", "recurse",
                                  "large_error"])
def test_an_old_peer_gets_an_error_that_it_can_receive(dispatch, tally, name):
    reply = json.loads(base64.b64decode(ask_old(dispatch, tally, name)))
    assert reply["payload"] == "error" and reply["traceback"]


def test_a_result_that_changes_while_it_is_read_is_an_error(dispatch, tally):
    class Moving(dict):
        def values(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

        def items(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    dispatch = Dispatch({encode_text("moving"): lambda: Moving(a=1)})
    reply = json.loads(base64.b64decode(ask_old(dispatch, tally, "moving")))
    assert "changed size" in reply["traceback"]


def test_an_event_for_a_subscription_that_is_over_is_no_error(dispatch, tally):
    name = "app.hear~0123456789ab"
    assert ask_old(dispatch, tally, name, 5) == b"eyJyYXciOiBudWxsfQ=="
    assert ask_old(dispatch, tally, "app.hear", 5) == encode_text("INVALID_CONNECTION")
    assert not tally.by_tag


class Box:
    """Has a static method, whose tag in old programs is without the name of the class."""

    @staticmethod
    def lift(x: Any) -> Any:
        return ["lifted", x]


class Crate:
    @staticmethod
    def lift(x: Any) -> Any:
        return ["another", x]


def registry_of(*functions: Any, **own: Any) -> Dict[bytes, Any]:
    return {**{encode_text(f"{__name__}.{one.__qualname__}"): one for one in functions},
            **{encode_text(tag): one for tag, one in own.items()}}


def value_of(answer: bytes, dialect: str) -> Any:
    found = legacy.Reply(dialect, answer).value("peer", b"")
    return "INVALID_CONNECTION" if found == dispatch_module.INVALID_CONNECTION else found


@pytest.mark.parametrize("dialect", [legacy.BASE64, legacy.PLAIN])
def test_an_old_program_names_a_static_method_without_its_class(tally, dialect):
    def ask(dispatch: Dispatch) -> Any:
        return value_of(ask_old(dispatch, tally, f"{__name__}.lift", 5, dialect=dialect), dialect)

    assert ask(Dispatch(registry_of(Box.lift))) == ["lifted", 5]
    assert tally.by_tag[encode_text(f"{__name__}.Box.lift")].calls == 1
    # Which of two is meant cannot be known; a function of that very name is.
    both = registry_of(Box.lift, Crate.lift)
    assert ask(Dispatch(both)) == "INVALID_CONNECTION"
    assert ask(Dispatch({**both, encode_text(f"{__name__}.lift"): lambda x: x})) == 5
    # For some groups only, it is so under each of its names.
    tag = encode_text(f"{__name__}.Box.lift")
    refused = Dispatch(registry_of(Box.lift), {tag: frozenset({"render"})})
    with pytest.raises(RemoteError, match="for peers of the group render"):
        ask(refused)
    assert tally.by_tag[tag].calls == 1


def test_what_has_a_tag_of_its_own_has_that_of_its_name_in_0_6_only(tally):
    dispatch = Dispatch({**registry_of(own=Box.lift, again=Box.lift),
                         legacy.marked(encode_text("own"), "0" * 12): Crate.lift})
    for dialect, expected in ((legacy.PLAIN, ["lifted", 5]),
                              (legacy.BASE64, "INVALID_CONNECTION")):
        found = ask_old(dispatch, tally, f"{__name__}.lift", 5, dialect=dialect)
        assert value_of(found, dialect) == expected
        assert value_of(ask_old(dispatch, tally, "own", 5, dialect=dialect), dialect) \
            == ["lifted", 5]


def test_the_search_of_0_6_is_told_both_names(tally):
    dispatch = Dispatch({**registry_of(own=Box.lift), legacy.INFO: lambda **kwargs: {
        "host": "192.0.2.1", "port": 3010}})
    found = ask_old(dispatch, tally, "net.defaults.handlers.info", dialect=legacy.PLAIN)
    names = json.loads(found)["connections"]
    assert f"{__name__}.lift" in names and "own" in names
    assert f"c:{len(names)} " in json.loads(found)["tag"]


def test_no_answer_to_a_search_is_better_than_another_one(tally):
    def fails() -> None:
        raise ValueError("x")

    for answer in (fails, lambda: "text", lambda: None):
        dispatch = Dispatch({legacy.INFO: answer})
        assert ask_old(dispatch, tally, "net.defaults.handlers.info", time_out=0.1) == b""
    assert ask_old(Dispatch({}), tally, "net.defaults.handlers.info") == b""


def test_a_result_that_cannot_be_read_is_an_error_of_the_function(dispatch, tally, monkeypatch):
    """Another thread may change it meanwhile."""
    def encode_result(number: int, value: Any, limits: Any) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(messages, "encode_result", encode_result)
    with pytest.raises(RuntimeError, match="changed size") as caught:
        ask(dispatch, tally, "multiply", 1)
    assert isinstance(caught.value, RemoteError) and caught.value.ran == "yes"


# ---------------------------------------------------------------------------------- groups


def test_only_a_group_may_call_what_is_for_that_group(tally):
    dispatch = Dispatch(REGISTRY, {encode_text("multiply"): frozenset({"render"})})
    with pytest.raises(net.AuthenticationError):
        ask(dispatch, tally, "multiply", 1)
    assert ask(dispatch, tally, "multiply", 1, group="render") == 2
    with pytest.raises(net.AuthenticationError):
        ask(dispatch, tally, "multiply", 1, group="other")
    assert b"AuthenticationError" in base64.b64decode(ask_old(dispatch, tally, "multiply", 1))
    assert tally.by_tag[encode_text("multiply")].calls == 1


def test_a_call_of_an_old_program_runs_unless_it_must_not(tally):
    told: list[Any] = []

    def begin(*call: Any) -> Any:
        told.append(call)
        return None if call[2] == [7] else lambda: told.append("ended")

    dispatch = Dispatch(REGISTRY, begin_old_call=begin)
    assert base64.b64decode(ask_old(dispatch, tally, "multiply", 7)) == b'{"raw": null}'
    assert base64.b64decode(ask_old(dispatch, tally, "multiply", 5, b=2)) == b'{"raw": 10}'
    ask_old(dispatch, tally, "multiply", None)  # which raises
    tag, where = encode_text("multiply"), context().caller.address
    assert told == [(where, tag, [7], {}), (where, tag, [5], {"b": 2}), "ended",
                    (where, tag, [None], {}), "ended"]
    assert tally.by_tag[tag].calls == 2


def test_a_reply_is_ready_to_send():
    reply = Dispatch(REGISTRY).answer(read_frame(joined(messages.encode_call(
        1, encode_text("echo"), (bytes(100_000),), {}))), context(), Tally())
    stream = io.BytesIO()
    for piece in reply:
        stream.write(piece)
    assert len(stream.getvalue()) > 100_000 and len(reply) == 2


def test_nothing_of_ours_is_printed(capfd, dispatch, tally):
    for name in ("leave", "interrupt", "unsendable", "endless"):
        with pytest.raises(NetError):
            ask(dispatch, tally, name)
    assert capfd.readouterr() == ("", "")


def test_the_error_of_an_unknown_connection_is_a_lookup_error():
    assert issubclass(InvalidConnection, LookupError)
    assert legacy.is_flag(encode_text("INVALID_CONNECTION"))


# ------------------------------------------------------------------------------------ several

def ask_several(dispatch: Dispatch, tally: Tally, *args: Any, group: Optional[str] = None,
                where: Optional[Context] = None) -> Any:
    tag = dispatch_module.SEVERAL
    request = read_frame(joined(messages.encode_call(5, tag, args, {})))
    answer = read_frame(joined(dispatch.answer(request, where or context(group), tally)))
    return messages.decode_reply(answer, ("192.0.2.1", 1), "192.0.2.1:1", tag)


def outcomes(found: Any) -> Any:
    seen: List[Any] = []
    for one in found:
        try:
            seen.append(messages.decode_outcome(one, ("192.0.2.1", 1), b"eA=="))
        except Exception as problem:
            seen.append(problem)
    return seen


def tag_text(name: str) -> str:
    return encode_text(name).decode()


def test_several_run_one_after_the_other_and_each_has_its_outcome(dispatch, tally):
    found = outcomes(ask_several(dispatch, tally, tag_text("divide"),
                                 [[6, 3], [1, 0], [6, 2], [1]]))
    assert found[0] == 2.0 and found[2] == 3.0
    assert isinstance(found[1], ZeroDivisionError) and isinstance(found[3], TypeError)
    count = tally.by_tag[encode_text("divide")]
    assert (count.calls, count.errors) == (4, 2)
    assert dispatch_module.SEVERAL not in tally.by_tag


@pytest.mark.parametrize("value", [None, 5, "text", [1, [2]], {"value": 1}, {"raised": {}},
                                   (1, 2), b"bytes", {"!tag": 1}, {1: 2}])
def test_of_several_any_value_is_itself(tally, value):
    dispatch = Dispatch({encode_text("echo"): lambda given: given})
    assert outcomes(ask_several(dispatch, tally, tag_text("echo"), [[value]] * 3)) == [value] * 3


def test_several_that_give_streams_are_asked_for_one_by_one(tally):
    def items(number: int) -> Any:
        yield number

    async def async_items(number: int) -> Any:
        yield number

    dispatch = Dispatch({encode_text("items"): items, encode_text("async"): async_items})
    for name in ("items", "async"):
        assert ask_several(dispatch, tally, tag_text(name), [[1], [2]]) is None


def test_of_several_flags_and_what_cannot_travel_keep_to_themselves(dispatch, tally):
    assert [type(one) for one in outcomes(
        ask_several(dispatch, tally, tag_text("special"), [[], []]))] == [Flag] * 2
    for name, error in [("unsendable", net.ValueNotSupported), ("leave", net.RemoteError),
                        ("shy", net.RemoteError)]:
        one, other = outcomes(ask_several(dispatch, tally, tag_text(name), [[], []]))
        assert isinstance(one, error) and isinstance(other, error) and one.ran == "yes"


def test_of_several_those_after_much_did_not_run(tally):
    ran: List[int] = []

    def much(number: int) -> str:
        ran.append(number)
        return "x" * (dispatch_module.LARGE // 2)

    dispatch = Dispatch({encode_text("much"): much})
    assert len(ask_several(dispatch, tally, tag_text("much"), [[1], [2], [3]])) == 2
    assert ran == [1, 2]


@pytest.mark.parametrize("error", [None, KeyError("no"), net.ValueNotSupported("x", "no")])
def test_of_very_many_only_the_first_run_at_a_time(tally, error):
    ran: List[None] = []

    def run() -> None:
        ran.append(None)
        if error is not None:
            raise error

    dispatch = Dispatch({encode_text("run"): run})
    found = ask_several(dispatch, tally, tag_text("run"), [[]] * 10_000)
    assert len(found) == len(ran) <= dispatch_module.LARGE // messages.LEAST_SIZE + 1


def test_of_several_none_runs_any_more_when_the_caller_has_gone(tally):
    where = context()

    def run(number: int) -> int:
        where.cancel()
        return number

    dispatch = Dispatch({encode_text("run"): run})
    assert outcomes(ask_several(dispatch, tally, tag_text("run"), [[1], [2]], where=where)) == [1]


def test_several_of_what_is_not_there_are_none_and_strangers_are_refused(dispatch, tally):
    assert ask_several(dispatch, tally, tag_text("unknown"), [[]]) is None
    ours = Dispatch({encode_text("ours"): lambda: 5}, {encode_text("ours"): frozenset({"us"})})
    assert outcomes(ask_several(ours, tally, tag_text("ours"), [[]], group="us")) == [5]
    with pytest.raises(net.AuthenticationError) as caught:
        ask_several(ours, tally, tag_text("ours"), [[]], group="them")
    assert caught.value.ran == "no"


@pytest.mark.parametrize("args", [(), (5, []), ("x",), ("x", 5), ("x", [5]), ("x", [{}]),
                                  ("\xe4", [[]]), ("x", [[]], 1)])
def test_several_without_sense_are_refused(dispatch, tally, args):
    with pytest.raises(net.ProtocolError) as caught:
        ask_several(dispatch, tally, *args)
    assert caught.value.ran == "no"


@pytest.mark.parametrize("content", [None, 5, [], {}, {"raised": 5}, {"refused": 1}, {"flag": 1},
                                     {"flag": "x"}, {"refused": "PeerBusy"}])
def test_an_outcome_without_sense_is_a_typed_error(content):
    (found,) = outcomes([content])
    assert isinstance(found, net.ProtocolError) and found.ran == "maybe"


def test_of_several_an_executor_that_takes_nothing_runs_nothing(tally):
    gone = ThreadPoolExecutor(1)
    gone.shutdown()
    tag = encode_text("gone")
    dispatch = Dispatch({tag: lambda: 5}, executors={tag: gone})
    found = outcomes(ask_several(dispatch, tally, tag_text("gone"), [[], []]))
    assert [(type(one), one.ran) for one in found] == [(net.PeerBusy, "no")] * 2
