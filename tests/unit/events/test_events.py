"""subscribe, event and the rest, within one process."""
from __future__ import annotations

import asyncio
import base64
import functools
import signal
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Callable, Iterator, List, Optional

import pytest

import net
from net import events
from net.context import Caller, Context, enter
from net.events import publishing
from net.events.feeds import MAX_BYTES, MAX_EVENTS
from net.events.old import OldFeed
from net.identity import Flag, make_id
from net.peer import _Peer
from net.process import process
from net.wire.deliveries import Events
from net.wire.legacy import BASE64, INVALID_CONNECTION
from each import each
from hearing import until
from times import patience


class Heard:
    """Subscribes functions to events of this very process, and takes it all back at the end."""

    def __init__(self) -> None:
        self.values: List[Any] = []
        self._subscribed: List[Any] = []
        self._connections = dict(_Peer.CONNECTIONS)

    def subscribe(self, event: str, function: Callable[..., Any], **options: Any) -> Any:
        connected = net.subscribe(event, net.Peer().id, **options)(function)
        self._subscribed.append((event, connected))
        return connected

    def add(self, value: Any) -> None:
        self.values.append(value)

    def close(self) -> None:
        for event, connected in self._subscribed:
            try:
                net.unsubscribe(event, connected)
            except LookupError:
                pass
        until(lambda: not _Peer.SUBSCRIPTIONS and not events.own_events().subscriber._targets)
        _Peer.CONNECTIONS.clear()
        _Peer.CONNECTIONS.update(self._connections)


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    yield made
    made.close()


@net.event("unit test")
def trigger(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def at_module_level(value: Any) -> str:
    return f"heard {value}"


def test_an_event_is_heard_and_returned(heard):
    heard.subscribe("unit test", heard.add)
    assert trigger(1) == ((1,), {})
    until(lambda: heard.values == [1])
    assert _Peer.SUBSCRIPTIONS["unit test"].keys() == {net.Peer().id}
    (tag,), = _Peer.SUBSCRIPTIONS["unit test"].values()
    assert _Peer.CONNECTIONS[tag] == heard.add


def test_without_subscribers_it_is_a_plain_function():
    assert trigger(1, a=2) == ((1,), {"a": 2})
    assert net.flush(1) == {}
    assert net.stats()["events"]["unit test"]["triggered"] >= 1


def test_a_handler_is_a_connection_and_a_plain_function(heard):
    connected = heard.subscribe("unit test", at_module_level)
    assert connected(1) == connected(1, peer=net.Peer().id) == "heard 1"
    assert base64.b64decode(connected.tag).decode().endswith(".at_module_level")
    assert connected.__name__ == "at_module_level"


def test_a_connected_function_keeps_its_tag(heard):
    connected = net.connect("my own tag")(at_module_level)
    subscribed = heard.subscribe("unit test", connected)
    assert subscribed is connected
    assert _Peer.SUBSCRIPTIONS["unit test"] == {net.Peer().id: [base64.b64encode(b"my own tag")]}


def test_a_connected_function_whose_tag_another_has_taken_is_not_connected_again(heard):
    connected = net.connect("a shared tag")(at_module_level)
    with pytest.warns(RuntimeWarning, match="a shared tag"):
        net.connect("a shared tag")(trigger)
    assert heard.subscribe("unit test", connected) is connected
    net.unsubscribe("unit test", connected)


def test_nested_functions_of_one_name_are_all_heard(heard):
    for number in range(3):
        heard.subscribe("unit test", lambda value, number=number: heard.add((number, value)))
    trigger("x")
    until(lambda: len(heard.values) == 3)
    assert sorted(heard.values) == [(0, "x"), (1, "x"), (2, "x")]


def test_methods_of_two_objects_are_both_heard_and_each_once(heard):
    other: List[Any] = []
    heard.subscribe("unit test", heard.add)
    heard.subscribe("unit test", heard.add)
    heard.subscribe("unit test", other.append)
    trigger(1), trigger(2)
    until(lambda: (heard.values, other) == ([1, 2], [1, 2]))


def test_a_function_defined_anew_takes_the_place_of_the_old_one(heard):
    space = {"net": net, "__name__": "notebook", "heard": heard}
    cell = "def hear(value):\n    heard.add(({}, value))"
    exec(cell.format(1), space)
    heard.subscribe("unit test", space["hear"])
    exec(cell.format(2), space)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heard.subscribe("unit test", space["hear"])
    trigger("x"), trigger("y")
    until(lambda: heard.values == [(2, "x"), (2, "y")])


def test_a_decorated_handler_keeps_its_decorations(heard):
    def shout(function: Any) -> Any:
        @functools.wraps(function)
        def louder(value: Any) -> Any:
            return function(f"{value}!")
        return louder

    handler = shout(heard.add)
    heard.subscribe("unit test", handler)
    trigger("x")
    until(lambda: heard.values == ["x!"])
    net.unsubscribe("unit test", handler)


def test_a_static_method_can_hear(heard):
    class Application:
        @staticmethod
        def hear(value: Any) -> None:
            heard.add(value)

    wrapped = net.subscribe("unit test", net.Peer().id)(Application.__dict__["hear"])
    assert isinstance(wrapped, staticmethod)
    trigger(3)
    until(lambda: heard.values == [3])
    net.unsubscribe("unit test", wrapped.__func__)


def test_handlers_run_one_after_the_other_in_one_thread(heard):
    running = threading.Lock()

    def slow(value: Any) -> None:
        assert running.acquire(blocking=False)
        heard.add((value, threading.get_ident()))
        running.release()

    heard.subscribe("unit test", slow)
    heard.subscribe("unit test", lambda value: slow(value))
    for number in range(500):
        trigger(number)
    until(lambda: len(heard.values) == 1000)
    assert len({thread for _, thread in heard.values}) == 1
    assert [value for value, _ in heard.values[::2]] == list(range(500))


def test_a_handler_may_trigger_and_unsubscribe(heard):
    def once(value: Any) -> None:
        heard.add(value)
        net.unsubscribe("unit test", connected)
        trigger("from a handler")

    connected = heard.subscribe("unit test", once)
    other = heard.subscribe("unit test", heard.add)
    trigger(1)
    until(lambda: heard.values == [1, 1, "from a handler"])
    net.unsubscribe("unit test", other)


def test_an_error_of_ours_is_a_gap(heard, monkeypatch, caplog):
    gaps: List[Any] = []
    heard.subscribe("unit test", heard.add, on_gap=lambda *gap: gaps.append(gap))
    failed = threading.Event()

    def fail(triggered: Any) -> Any:
        failed.set()
        raise ValueError("ours")

    with monkeypatch.context() as broken:
        broken.setattr(publishing, "join", fail)
        trigger("lost")
        assert failed.wait(patience(5))
    trigger("heard")
    until(lambda: heard.values == ["heard"])
    assert gaps == [("unit test", net.Peer().id, 1)]


def test_events_of_a_signal_handler_come_once_each(heard):
    """A handler of a signal interrupts the thread anywhere while that triggers, too."""
    count = 3000
    done: List[int] = []

    def interrupt(number: int, frame: Any) -> None:
        trigger("signal")
        done.append(number)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        heard.subscribe("unit test", heard.add)
        for number in range(count):
            trigger(number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert net.flush(10) == {}
    # Events from before the subscription are not heard.
    until(lambda: count - 1 in heard.values)
    until(lambda: net.stats()["events"]["unit test"]["subscribers"][net.Peer().id]["queued"] == 0)
    assert [value for value in heard.values if value != "signal"] == list(range(count))
    assert 0 < heard.values.count("signal") <= len(done)


def test_unsubscribing_a_handler_that_is_not_subscribed_is_an_error():
    with pytest.raises(LookupError, match="not subscribed to the event 'unit test'"):
        net.unsubscribe("unit test", at_module_level)


def test_a_peer_that_is_not_there_is_no_error(heard, port_range):
    heard.subscribe("unit test", heard.add)
    net.subscribe("unit test", ("127.0.0.1", port_range[0]))(heard.add)
    trigger(1)
    until(lambda: heard.values == [1])


@each("peers", ["nonsense", b"nonsense", 5, [("127.0.0.1", 0)], [None]])
def test_what_is_no_peer_is_an_error(peers):
    with pytest.raises((net.InvalidPeer, TypeError)):
        net.subscribe("unit test", peers)


@each("name", [None, b"bytes", "", 5])
def test_an_event_has_a_name(name):
    with pytest.raises(TypeError, match="an event has a name"):
        net.event(name)
    with pytest.raises(TypeError, match="an event has a name"):
        net.subscribe(name)


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "\x1b[31m"])
def test_the_name_of_an_event_can_be_shown(name):
    with pytest.raises(ValueError, match="printable"):
        net.event(name)


@each("result", [None, 5, (1, 2), ((), {}, 3), [(), {}], ("ab", {}),
                 ((), {1: 2})])
def test_an_event_returns_args_and_kwargs(result):
    @net.event("unit test")
    def wrong() -> Any:
        return result

    with pytest.raises(TypeError, match="wrong is an event and returns .args, kwargs."):
        wrong()


def test_generators_cannot_hear():
    def hear(value: Any) -> Iterator[Any]:
        yield value

    async def hear_async(value: Any) -> Any:
        yield value

    for function in (hear, hear_async):
        with pytest.raises(TypeError, match="generator"):
            net.subscribe("unit test", net.Peer().id)(function)


# ------------------------------------------------------------------------------ where handlers run


@pytest.fixture
def one_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="one") as executor:
        yield executor


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="application")
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def note_thread(heard: Heard) -> Callable[..., None]:
    return lambda value: heard.add((value, threading.current_thread().name, net.caller().address))


def test_a_handler_runs_in_its_executor_in_order(heard, one_thread):
    heard.subscribe("unit test", note_thread(heard), executor=one_thread)
    for number in range(20):
        trigger(number)
    until(lambda: len(heard.values) == 20)
    assert heard.values == [(number, "one_0", net.Peer().id.address) for number in range(20)]


def test_a_handler_runs_where_it_runs_when_it_is_called(heard, one_thread):
    where = net.connect("where it runs", executor=one_thread)(
        lambda value: heard.add(threading.current_thread().name))
    heard.subscribe("unit test", where)
    trigger(1)
    until(lambda: heard.values == ["one_0"])
    subscribed = heard.subscribe("unit test", note_thread(heard), executor=one_thread)
    subscribed(2, peer=net.Peer().id)
    assert heard.values[1][:2] == (2, "one_0")


def test_a_handler_in_the_main_thread_runs_when_that_has_time(heard):
    heard.subscribe("unit test", note_thread(heard), executor=net.main_thread)
    for number in range(3):
        trigger(number)
    until(lambda: net.main_thread._queue)
    assert heard.values == []
    until(lambda: net.main_thread.run_pending(0.1) and len(heard.values) == 3)
    assert [value[:2] for value in heard.values] == [
        (number, threading.current_thread().name) for number in range(3)]


def test_a_handler_runs_on_the_loop_of_the_application(heard, loop):
    async def hear(value: Any) -> None:
        await asyncio.sleep(0)
        note_thread(heard)(value)

    heard.subscribe("unit test", hear, executor=loop)
    heard.subscribe("unit test", note_thread(heard), executor=loop)
    trigger(1)
    until(lambda: len(heard.values) == 2)
    assert heard.values == [(1, "application", net.Peer().id.address)] * 2


def test_coroutine_functions_are_awaited_one_after_the_other(heard):
    async def hear(value: int) -> None:
        await asyncio.sleep(0.02 if value == 0 else 0)
        note_thread(heard)(value)

    heard.subscribe("unit test", hear)
    for number in range(3):
        trigger(number)
    until(lambda: len(heard.values) == 3)
    assert heard.values == [(number, "net-coroutines", net.Peer().id.address)
                            for number in range(3)]


def test_what_a_handler_raises_where_it_runs_is_logged(heard, one_thread, caplog):
    async def fail_async(value: Any) -> None:
        raise KeyError("raised in a coroutine")

    def fail(value: Any) -> None:
        raise KeyError("raised in an executor")

    gone = ThreadPoolExecutor(1)
    gone.shutdown()
    heard.subscribe("unit test", fail_async)
    heard.subscribe("unit test", fail, executor=one_thread)
    heard.subscribe("unit test", lambda value: heard.add("never"), executor=gone)
    heard.subscribe("unit test", heard.add)
    trigger(1)
    until(lambda: heard.values == [1])
    until(lambda: caplog.text.count("raised on the event") == 3)
    assert "raised in a coroutine" in caplog.text and "raised in an executor" in caplog.text
    assert "takes no calls: cannot schedule new futures after shutdown" in caplog.text


def test_unsubscribing_what_waits_for_its_executor_lets_the_others_hear(heard):
    waits = heard.subscribe("unit test", note_thread(heard), executor=net.main_thread)
    heard.subscribe("unit test", heard.add)
    trigger(1)
    until(lambda: net.main_thread._queue)
    net.unsubscribe("unit test", waits)
    until(lambda: heard.values == [1])
    net.main_thread.run_pending()
    assert heard.values == [1]


def test_an_executor_that_never_runs_holds_up_no_other_handler(heard, one_thread):
    waits = heard.subscribe("unit test", note_thread(heard), executor=net.main_thread)
    heard.subscribe("unit test", note_thread(heard), executor=one_thread)
    heard.subscribe("unit test", heard.add)
    for number in range(3):
        trigger(number)
    until(lambda: len(heard.values) == 6)
    assert [one for one in heard.values if type(one) is int] == [0, 1, 2]
    assert [one[:2] for one in heard.values if type(one) is tuple] == [
        (number, "one_0") for number in range(3)]
    net.unsubscribe("unit test", waits)
    net.main_thread.run_pending()


def test_what_is_no_executor_is_refused_at_once():
    with pytest.raises(TypeError, match="an executor is"):
        net.subscribe("unit test", executor=5)
    with pytest.raises(TypeError, match="an executor is"):
        net.watch(print, executor=5)


def test_a_pool_of_processes_is_refused_with_what_to_do():
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match="the function itself can use one"):
            net.subscribe("unit test", executor=pool)
        with pytest.raises(TypeError, match="the function itself can use one"):
            net.connect(executor=pool)


# ------------------------------------------------------------- what other peers ask of this one


def call_from(host: str) -> None:
    """Let the test be a call of an old peer."""
    context = Context(Caller((host, 40000), None))
    context.dialect = BASE64
    enter(context)


@pytest.fixture
def from_elsewhere() -> Iterator[None]:
    call_from("198.51.100.7")
    yield
    enter(None)


TAG = base64.b64encode(b"app.hear").decode()


class OldPeers:
    """A client of old peers.

    :ivar known: addresses of those that it was to call.
    :ivar called: whom it has called, with what.
    :ivar problems: what calls raise, one after the other; what is no exception is done.
    :ivar gone: whether a newer program has taken their places; None if nothing tells.
    :ivar looks: how often they were looked at.
    :ivar doubts: how often that was asked for.
    """

    def __init__(self) -> None:
        self.known: List[Any] = []
        self.called: List[Any] = []
        self.problems: List[Any] = []
        self.gone: Optional[bool] = False
        self.looks = self.doubts = 0
        self.doubted = False

    def old_peer(self, address: Any, dialect: str) -> Any:
        assert dialect == BASE64
        self.known.append(address)
        return self

    def seen(self, dialect: str) -> None:
        assert dialect == BASE64

    def doubt(self) -> None:
        self.doubts += 1
        self.doubted = True

    def is_gone(self, deadline: Any) -> bool:
        self.looks += 1
        if self.gone is None:
            time.sleep(0.01)
            return False
        self.doubted = False
        return self.gone

    def call(self, peer: Any, tag: bytes, args: Any, kwargs: Any, deadline: Any) -> Any:
        assert deadline is None  # however long its handler takes
        self.called.append((peer, tag, args, kwargs))
        if self.problems:
            problem = self.problems.pop(0)
            if isinstance(problem, Exception):
                raise problem
            return problem()


@pytest.fixture
def old_peers(monkeypatch) -> Iterator[OldPeers]:
    made = OldPeers()
    monkeypatch.setattr(events.own_events().old_subscribers, "_client", made)
    yield made
    for feed in list(events.own_events().old_subscribers._feeds.values()):
        events.own_events().publisher.end(feed, "the test is over")
    until(lambda: not events.own_events().old_subscribers._feeds)


def ids(count: int, host: str = "198.51.100.7") -> List[str]:
    return [make_id(port, host).decode() for port in range(1, count + 1)]


def test_events_only_go_to_the_address_that_asked_for_them(from_elsewhere, old_peers):
    for host in ("198.51.100.8", "127.0.0.1", "example.com"):
        with pytest.raises(PermissionError, match="came from 198.51.100.7"):
            net.subscription_handler("unit test", make_id(22, host), TAG)
    assert old_peers.known == []
    assert net.subscription_handler("unit test", ids(1)[0], TAG) is True
    assert old_peers.known == [("198.51.100.7", 1)]


def test_own_addresses_stand_for_each_other(old_peers):
    call_from("127.0.0.1")
    try:
        assert net.subscription_handler("unit test", make_id(3010, "127.0.0.2"), TAG)
    finally:
        enter(None)
    assert old_peers.known == [("127.0.0.2", 3010)]


def test_an_old_peer_is_called_with_each_event(from_elsewhere, old_peers):
    peer, = ids(1)
    net.subscription_handler("unit test", peer, TAG)
    trigger(1, a=2)
    trigger(3)
    until(lambda: len(old_peers.called) == 2)
    assert old_peers.called == [(peer.encode(), TAG.encode(), (1,), {"a": 2}),
                                (peer.encode(), TAG.encode(), (3,), {})]
    until(lambda: net.flush(1) == {})


def test_a_modern_peer_is_not_dialled_back(session_peer):
    with pytest.raises(net.NetError, match="on its own connection"):
        net.subscription_handler("unit test", session_peer.id, TAG)
    assert "unit test" not in _Peer.SUBSCRIPTIONS


def test_old_peers_have_64_threads_at_most_and_one_host_half_of_them(from_elsewhere, old_peers):
    for peer in ids(32):
        net.subscription_handler("unit test", peer, TAG)
    with pytest.raises(net.PeerBusy, match="64"):
        net.subscription_handler("unit test", ids(33)[-1], TAG)
    call_from("198.51.100.8")
    assert net.subscription_handler("unit test", ids(1, "198.51.100.8")[0], TAG)


def test_an_old_peer_that_subscribes_anew_takes_its_own_place(from_elsewhere, old_peers):
    peer, = ids(1)
    for _ in range(3):
        net.subscription_handler("unit test", peer, TAG)
        net.subscription_handler("another", peer, TAG)
    assert _Peer.SUBSCRIPTIONS["unit test"] == {peer.encode(): [TAG.encode()]}
    trigger(1)
    until(lambda: old_peers.called)
    until(lambda: net.flush(1) == {})
    assert len(old_peers.called) == 1


@pytest.mark.parametrize("problem", [
    net.PeerLost(None, "reset"), net.ProtocolError(None, "garbage", "maybe"),
    net.MessageTooLarge("request", 2000, 1024, None), net.ValueNotSupported("args", "bytes"),
    lambda: Flag(INVALID_CONNECTION),
], ids=lambda problem: type(problem).__name__)
def test_an_event_that_does_not_arrive_at_an_old_peer_is_dropped_and_the_next_one_sent(
        from_elsewhere, old_peers, problem):
    peer, = ids(1)
    trigger(0)
    before = dropped(peer)
    net.subscription_handler("unit test", peer, TAG)
    old_peers.problems.append(problem)
    trigger(1)
    trigger(2)
    until(lambda: [args for _, _, args, _ in old_peers.called] == [(1,), (2,)])
    until(lambda: net.flush(1) == {})
    assert dropped(peer) == before + 1


def dropped(peer: str) -> int:
    counts = net.stats()["events"]["unit test"]["subscribers"].get(peer.encode(), {})
    return int(counts.get("dropped", 0))


def test_an_old_peer_that_subscribes_anew_loses_nothing_that_waits(from_elsewhere, old_peers):
    peer, = ids(1)
    net.subscription_handler("unit test", peer, TAG)
    trigger(0)
    until(lambda: net.flush(1) == {})
    before, go_on = dropped(peer), threading.Event()
    old_peers.problems.append(go_on.wait)
    for value in range(1, 4):
        trigger(value)
    until(lambda: len(old_peers.called) == 2)
    net.subscription_handler("unit test", peer, TAG)
    go_on.set()
    until(lambda: [args for _, _, args, _ in old_peers.called] == [(0,), (1,), (2,), (3,)])
    until(lambda: net.flush(1) == {})
    assert dropped(peer) == before


def test_an_old_peer_that_has_started_again_while_nobody_answered_is_kept(
        from_elsewhere, old_peers):
    peer, = ids(1)

    def start_again() -> None:
        call_from("198.51.100.7")
        net.subscription_handler("unit test", peer, TAG)
        enter(None)
        raise net.PeerUnreachable(None, "refused")

    net.subscription_handler("unit test", peer, TAG)
    old_peers.problems.append(start_again)
    trigger(1)
    trigger(2)
    until(lambda: [args for _, _, args, _ in old_peers.called] == [(1,), (2,)])
    assert list(_Peer.SUBSCRIPTIONS["unit test"]) == [peer.encode()]


def test_an_old_peer_that_does_not_answer_any_more_is_forgotten(from_elsewhere, old_peers):
    net.subscription_handler("unit test", ids(1)[0], TAG)
    old_peers.problems.append(net.PeerUnreachable(None, "refused"))
    trigger(1)
    until(lambda: "unit test" not in _Peer.SUBSCRIPTIONS)


def test_so_is_one_whose_place_a_newer_program_has_taken(from_elsewhere, old_peers):
    net.subscription_handler("unit test", ids(1)[0], TAG)
    old_peers.gone = True
    trigger(1)
    until(lambda: "unit test" not in _Peer.SUBSCRIPTIONS)
    assert old_peers.called == []


def test_it_is_so_at_once_when_one_shows(from_elsewhere, old_peers):
    publisher = events.own_events().publisher
    for show in (lambda: publisher.arrived(1),
                 lambda: events.answered(process, ("198.51.100.7", 1))):
        old_peers.gone = False
        net.subscription_handler("unit test", ids(1)[0], TAG)
        old_peers.gone = True
        show()
        until(lambda: "unit test" not in _Peer.SUBSCRIPTIONS)


def test_another_newer_program_changes_nothing(from_elsewhere, old_peers):
    net.subscription_handler("unit test", ids(1)[0], TAG)
    events.own_events().publisher.arrived(2)
    events.answered(process, ("198.51.100.8", 1))
    assert old_peers.doubts == 0


def test_nothing_is_sent_before_a_doubt_is_over(from_elsewhere, old_peers):
    net.subscription_handler("unit test", ids(1)[0], TAG)
    old_peers.gone = None
    events.own_events().publisher.arrived(1)
    trigger(1)
    until(lambda: old_peers.looks > 5)
    assert old_peers.called == []
    old_peers.gone = False
    until(lambda: [args for _, _, args, _ in old_peers.called] == [(1,)])


def test_an_old_peer_is_never_cut_off_and_loses_what_finds_no_room():
    feed = OldFeed(make_id(1, "198.51.100.7"), None)  # type: ignore[arg-type]
    events = Events("done", MAX_EVENTS, b"")
    feed.put(events, 0.0)
    feed.put(events._replace(total=5), 1.0)
    assert not feed.falls_behind(1000.0) and not feed.overflows
    assert feed.counts["done"].as_dict() == {"sent": 0, "queued": MAX_EVENTS, "dropped": 5}
    assert feed.accepted == MAX_EVENTS  # nobody waits for those that were dropped
    feed.next_events()
    feed.acknowledged(1, 1000.0, [2])
    feed.put(events._replace(size=MAX_BYTES), 1000.0)
    feed.put(events._replace(total=1), 1000.0)
    assert feed.counts["done"].as_dict() == {"sent": MAX_EVENTS - 2, "queued": MAX_EVENTS,
                                             "dropped": 8}


@pytest.mark.parametrize("arguments", [
    (5, ids(1)[0], TAG), ("", ids(1)[0], TAG), ("a\nb", ids(1)[0], TAG), ("e", "nonsense", TAG),
    ("e", 5, TAG), ("e", ids(1)[0], "not base64!"), ("e", ids(1)[0], None),
    ("e", ids(1)[0], base64.b64encode(b"x" * 300).decode()),
])
def test_a_subscription_of_nonsense_is_refused(from_elsewhere, old_peers, arguments):
    with pytest.raises((TypeError, ValueError)):
        net.subscription_handler(*arguments)
    assert old_peers.known == [] and _Peer.SUBSCRIPTIONS == {}


def test_what_is_told_of_failures_is_made_safe(caplog):
    for _ in range(50):
        publishing.log_failure(make_id(1, "198.51.100.7"), ("e\x1b[31m", b"dGFn"), "x\n" * 1000)
    assert 0 < len(caplog.records) <= 10
    assert all("\x1b" not in record.getMessage() and "\n" not in record.getMessage()
               and len(record.getMessage()) < 500 for record in caplog.records)
