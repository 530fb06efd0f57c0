"""any, all, map and the executor, with peers that are functions of the test."""
from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import io
import gc
import itertools
import threading
import time
from typing import Any, Callable, Dict, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import net
from net import context
from net.calls import many, spread, start, ways, workers
from net.calls.start import Call
from net.discovery import functions
from net.run.balance import MOST, Balance
from each import each
from times import patience

A, B, C = (("127.0.0.1", port) for port in (1, 2, 3))


class Fake:
    """A connected function whose peers are simulated here: ``behave(peer, *args)``."""

    def __init__(self, behave: Callable[..., Any], peers: List[Any],
                 repeatable: bool = False) -> None:
        self.behave = behave
        self.there = list(peers)
        self.asked: List[Any] = []
        self.missed: List[Any] = []
        self.together: Any = 3
        self.target = many.Target(
            "f", b"f", ways.PLAIN, repeatable, lambda groups: list(self.there), self.call,
            self.call, self.call_async, self.several, lambda peer, one: one(), self.start,
            Balance(), self.missed.append)

    def _target(self) -> many.Target:
        return self.target

    def call(self, peer: Any, args: Any, kwargs: Any, timeout: Any) -> Any:
        self.asked.append(peer)
        return self.behave(peer, *args, **kwargs)

    def several(self, peer: Any, works: Any) -> Any:
        """Run some of the works, in one call."""
        if self.together is None:
            return None
        return [self._ended(peer, work) for work in works[:self.together]]

    def _ended(self, peer: Any, work: Any) -> Callable[[], Any]:
        future: "concurrent.futures.Future[Any]" = concurrent.futures.Future()
        try:
            future.set_result(self.call(peer, work, {}, None))
        except BaseException as problem:
            if isinstance(problem, net.PeerLost):
                raise
            future.set_exception(problem)
        return future.result

    async def call_async(self, peer: Any, args: Any, kwargs: Any, timeout: Any) -> Any:
        return self.call(peer, args, kwargs, timeout)

    def start(self, peers: Any, args: Any, kwargs: Any, timeout: Any) -> List[Call]:
        return [self._started(peer, args, kwargs, timeout) for peer in peers]

    def _started(self, peer: Any, args: Any, kwargs: Any, timeout: Any) -> Call:
        call = Call(peer)

        def run() -> None:
            try:
                result = self.call(peer, args, kwargs, timeout)
            except BaseException as problem:
                call.set_exception(problem)
            else:
                if not call.cancelled():
                    call.set_result(result)
        threading.Thread(target=run, daemon=True).start()
        return call

    any = property(lambda self: many.AnyPeer(self.target))
    all = property(lambda self: many.AllPeers(self.target))
    map = property(lambda self: many.OverPeers(self.target))


def failing(**problems: Exception) -> Callable[..., Any]:
    by_port = {int(name[1:]): problem for name, problem in problems.items()}

    def behave(peer: Any, *args: Any) -> Any:
        if peer[1] in by_port:
            raise by_port[peer[1]]
        return (peer, *args)
    return behave


GONE = net.PeerUnreachable(A, "gone")
LOST = net.PeerLost(A, "lost")


# ---------------------------------------------------------------------- any


def test_any_takes_peers_by_turns():
    f = Fake(lambda peer: peer, [A, B, C])
    assert sorted(f.any() for _ in range(6)) == [A, A, B, B, C, C]


def test_any_prefers_the_peer_with_the_fewest_calls_in_flight():
    balance = Balance()
    assert [balance.take([A, B]) for _ in range(4)] == [A, B, A, B]
    balance.give_back(B)
    assert balance.take([A, B]) == B
    balance.give_back(A)
    balance.give_back(A)
    assert [balance.take([A, B]) for _ in range(2)] == [A, A]
    assert balance.take([]) is None


@given(steps=st.lists(st.one_of(st.sets(st.sampled_from([A, B, C])), st.integers(0, 9))))
def test_calls_in_flight_are_counted_in_any_order(steps):
    """A set is a choice among its peers, a number the end of a call."""
    balance, running = Balance(), []
    for step in steps:
        if isinstance(step, set):
            chosen = balance.take(step)
            if step:
                running.append(chosen)
                assert running.count(chosen) - 1 == min(
                    (running[:-1].count(peer) for peer in step))
        elif running:
            balance.give_back(running.pop(step % len(running)))
        assert [balance.in_flight(peer) for peer in (A, B, C)] == \
            [running.count(peer) for peer in (A, B, C)]


def test_peers_that_were_chosen_long_ago_are_forgotten():
    balance = Balance()
    for port in range(3 * MOST):
        balance.give_back(balance.take([("127.0.0.1", port)]))
    assert len(balance._chosen) == MOST


@each("problem", [
    GONE, net.PeerBusy(A, "full"), net.InvalidConnection(b"f", "f"),
    net.AuthenticationError(A, "no"), net.ProtocolError(A, "silent")])
def test_any_goes_to_another_peer_if_one_did_not_run_it(problem):
    f = Fake(failing(p1=problem, p2=problem), [A, B, C])
    assert f.any(5) == (C, 5)
    assert f.asked == [A, B, C]
    assert f.target.balance.in_flight(A) == 0


def test_any_says_that_none_could_run_it_and_why():
    f = Fake(failing(p1=GONE, p2=GONE), [A, B])
    with pytest.raises(net.TooFewPeers, match="0 of 1 peers that can run f: 2 could not") as caught:
        f.any()
    assert caught.value.__cause__ is GONE and caught.value.ran == "no"
    f.there = []
    with pytest.raises(net.TooFewPeers, match="no peer has it"):
        f.any()


def test_any_never_runs_twice_what_may_have_run_unless_it_is_repeatable():
    f = Fake(failing(p1=LOST), [A, B])
    with pytest.raises(net.PeerLost):
        f.any()
    assert f.asked == [A]
    assert f.any.on(repeatable=True, peers=[A, B])() == (B,)
    g = Fake(failing(p1=LOST), [A, B], repeatable=True)
    assert g.any() == (B,)


@each("awaited", [False, True])
@each("then", [GONE, net.MessageTooLarge("text", 2, 1, None), net.CallTimeout(B, 1.0, "no")])
def test_any_says_that_it_may_have_run_where_one_was_lost_before(then, awaited):
    f = Fake(failing(p1=LOST, p2=copy.copy(then)), [A, B], repeatable=True)
    if awaited:
        f.target = f.target._replace(kind=ways.COROUTINE)

    async def main() -> Any:
        return await f.any()

    with pytest.raises(net.NetError) as caught:
        asyncio.run(main()) if awaited else f.any()
    assert caught.value.ran == "maybe" and f.asked == [A, B]
    assert isinstance(caught.value, net.TooFewPeers if then is GONE else type(then))


def test_the_time_of_any_says_that_it_may_have_run_where_one_was_lost_before():
    def behave(peer):
        time.sleep(0.05)
        raise LOST
    f = Fake(behave, [A, B, C], repeatable=True)
    with pytest.raises(net.CallTimeout, match="may have run") as caught:
        f.any.on(timeout=0.04)()
    assert caught.value.ran == "maybe" and f.asked == [A]


def test_any_does_not_go_on_when_the_function_itself_fails():
    f = Fake(failing(p1=ValueError("x")), [A, B])
    with pytest.raises(ValueError):
        f.any()
    # A peer that another peer could not reach: the function ran.
    f.behave = failing(p1=GONE, p2=GONE)
    ran = net.PeerUnreachable(B, "its own call")
    ran.ran = "yes"
    f.behave = failing(p1=ran, p2=ran)
    with pytest.raises(net.PeerUnreachable):
        f.any()
    assert len(f.asked) == 2


def test_the_timeout_of_any_is_for_all_peers_together():
    def behave(peer):
        time.sleep(0.05)
        raise GONE
    f = Fake(behave, [A, B, C])
    with pytest.raises(net.CallTimeout) as caught:
        f.any.on(timeout=0.04)()
    assert caught.value.ran == "no" and f.asked == [A]


def test_the_first_of_several_wins_and_the_others_are_cancelled():
    go = threading.Event()

    def behave(peer):
        if peer == A:
            go.wait(patience(5))
        return peer
    f = Fake(behave, [A, B, C])
    assert f.any.on(first=2)() == B
    go.set()
    assert sorted(f.asked) == [A, B]
    g = Fake(failing(p1=ValueError("x")), [A, B])
    assert g.any.on(first=2)() == (B,)
    g.behave = failing(p1=GONE, p2=ValueError("x"))
    with pytest.raises(ValueError):  # what ran counts, not what was not there
        g.any.on(first=2)()


def test_any_awaited_goes_to_another_peer_too():
    f = Fake(failing(p1=GONE), [A, B])
    f.target = f.target._replace(kind=ways.COROUTINE)

    async def main() -> Any:
        return await f.any(1), await f.any.on(first=2)(2)
    assert asyncio.run(main()) == ((B, 1), (B, 2))


@pytest.mark.parametrize("terms, error", [
    ({"timeout": 0}, ValueError), ({"first": 0}, ValueError), ({"peers": [None]}, net.InvalidPeer)])
def test_terms_are_checked_at_once(terms, error):
    with pytest.raises(error):
        Fake(lambda peer: 1, [A]).any.on(**terms)


# ---------------------------------------------------------------------- all


def test_all_maps_each_peer_to_its_value_in_the_order_of_completion():
    gates: Dict[Any, threading.Event] = {peer: threading.Event() for peer in (A, B, C)}

    def behave(peer):
        gates[peer].wait(patience(5))
        return peer[1]
    results = Fake(behave, [A, B, C]).all()
    order = iter(results)
    for peer in (B, C, A):
        gates[peer].set()
        assert next(order) == peer
    assert list(results.items()) == [(B, 2), (C, 3), (A, 1)]
    assert list(results.values()) == [2, 3, 1]
    assert len(results) == 3 and A in results and ("127.0.0.1", 9) not in results


def test_errors_of_all_are_kept_and_raised_when_they_are_looked_at():
    results = Fake(failing(p2=ValueError("two")), [A, B]).all(5)
    assert results[A] == (A, 5)
    with pytest.raises(ValueError):
        results[B]
    with pytest.raises(ValueError):
        list(results.values())
    assert list(results.errors) == [B] and results.good == {A: (A, 5)}
    text = repr(results)
    assert "ValueError: two" in text and "failed" in text
    assert "<table" in results._repr_html_()


def test_all_shows_what_runs_and_what_was_cancelled():
    go = threading.Event()
    results = Fake(lambda peer: go.wait(patience(5)), [A]).all()
    assert "running" in repr(results)
    results.cancel()
    assert "cancelled" in repr(results)
    assert list(results.errors) == [A]
    go.set()
    assert repr(Fake(failing(), []).all()) == "no peers"


def test_awaiting_all_waits_for_all():
    f = Fake(failing(p2=ValueError("two")), [A, B])

    async def main() -> Any:
        results = await f.all(1)
        return results.good, [peer async for peer in f.all(1)]
    good, peers = asyncio.run(main())
    assert good == {A: (A, 1)} and sorted(peers) == [A, B]


def test_cancelling_the_task_that_awaits_all_cancels_the_calls():
    go = threading.Event()
    f = Fake(lambda peer: go.wait(patience(5)), [A, B])

    async def main() -> Any:
        results = f.all()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(results, 0.05)
        return results
    results = asyncio.run(main())
    go.set()
    assert all(call.cancelled() for call in results.calls.values())


# ---------------------------------------------------------------------- map


def test_map_gives_values_in_the_order_of_the_items():
    def behave(peer, number, other):
        time.sleep(0.002 if number % 3 else 0)
        return number * other
    f = Fake(behave, [A, B, C])
    assert list(f.map(range(20), range(100))) == [number * number for number in range(20)]
    assert sorted(f.map(range(20), range(100), in_order=False, chunk=4)) == \
        [number * number for number in range(20)]
    assert set(f.asked) == {A, B, C}
    assert list(f.map([])) == []


def test_map_reads_an_endless_input_only_as_far_as_it_is_needed():
    read = []
    f = Fake(lambda peer, number: number, [A, B])
    source = (read.append(number) or number for number in itertools.count())
    mapped = f.map(source)
    assert [next(mapped) for _ in range(5)] == list(range(5))
    mapped.close()
    assert len(read) <= 5 + many.LOOK_AHEAD * 2
    assert list(mapped) == []


def test_a_peer_that_is_twice_as_fast_does_twice_as_much():
    done = {A: 0, B: 0}
    changed = threading.Condition()

    def behave(peer, number):
        with changed:  # A takes as long as B for two
            assert changed.wait_for(
                lambda: (done[B] >= 2 * done[A] + 2) == (peer == A), patience(5))
            done[peer] += 1
            changed.notify_all()
    list(Fake(behave, [A, B]).map(range(30)))
    assert done == {A: 10, B: 20}


def test_a_progress_bar_follows_a_map(monkeypatch):
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # no thread of its own
    shown = io.StringIO()
    mapped = tqdm(Fake(lambda peer, number: number, [A, B]).map(range(5)), total=5, file=shown)
    assert list(mapped) == list(range(5))
    assert "5/5" in shown.getvalue()


@settings(max_examples=30, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.sampled_from(["ok", "slow", "no", "maybe"]), max_size=25),
       there=st.lists(st.sets(st.sampled_from([A, B, C]), min_size=1), max_size=5),
       count=st.integers(1, 20), chunk=st.integers(1, 3), at_a_time=st.integers(1, 2),
       wanted=st.one_of(st.none(), st.integers(0, 20)),
       repeatable=st.booleans(), in_order=st.booleans())
def test_peers_that_join_leave_are_slow_or_lost_in_any_order_bend_no_result(
        monkeypatch, fates, there, count, chunk, at_a_time, wanted, repeatable, in_order):
    """``fates`` are what happens to the calls, ``there`` is who is there at each look, and after
    ``wanted`` values the map is closed."""
    monkeypatch.setattr(workers, "LOOK_TIME", 0.002)
    monkeypatch.setattr(spread, "FIRST_REST", 0.001)
    monkeypatch.setattr(spread, "MAX_REST", 0.004)
    left, looks, lock = list(fates), list(there), threading.Lock()
    ran: Dict[int, int] = dict.fromkeys(range(count), 0)

    def behave(peer, number):
        with lock:
            fate = left.pop() if left else "ok"
            ran[number] += fate != "no"
        if fate == "slow":
            time.sleep(0.003)
        if fate in ("no", "maybe"):
            raise GONE if fate == "no" else LOST
        return number
    f = Fake(behave, [A, B, C])
    f.target = f.target._replace(find=lambda groups: looks.pop() if looks else [A, B, C])
    mapped = f.map.on(repeatable=repeatable, at_a_time=at_a_time)(
        range(count), chunk=chunk, in_order=in_order)
    values, lost = [], False
    try:
        for value in itertools.islice(mapped, wanted):
            values.append(value)
    except net.PeerLost:
        lost = True
    mapped.close()
    assert sorted(set(values)) == sorted(values)
    assert values == list(range(len(values))) or not in_order
    assert all(ran[value] for value in values)
    assert len(values) == (count if wanted is None else min(wanted, count)) or lost
    assert not lost or "maybe" in fates
    assert repeatable or max(ran.values()) <= 1
    assert max(ran.values()) <= spread.MAX_LOSSES
    for thread in threading.enumerate():
        if thread.name == "net-many":
            thread.join(patience(5))


def test_letting_go_of_a_map_ends_its_threads_and_cancels_what_runs():
    cancelled = threading.Event()

    def behave(peer, number):
        context = many.current()
        context.add_ending(cancelled.set)
        if number:
            cancelled.wait(patience(5))
        return number
    for _ in Fake(behave, [A]).map(range(5)):
        break
    del _
    gc.collect()  # where objects without users are not noticed at once
    assert cancelled.wait(patience(5))


def test_an_error_ends_a_map():
    f = Fake(lambda peer, number: 1 // number, [A])
    mapped = f.map([1, 0, 1])
    assert next(mapped) == 1
    with pytest.raises(ZeroDivisionError):
        next(mapped)
    assert list(mapped) == []
    with pytest.raises(TypeError):
        f.map()
    with pytest.raises(ValueError):
        f.map([1], chunk=0)

    def broken():
        yield 1
        raise KeyError("input")
    with pytest.raises(KeyError):
        list(f.map(broken()))


def test_a_peer_that_joins_gets_work_and_one_that_leaves_none(monkeypatch):
    monkeypatch.setattr(workers, "LOOK_TIME", 0.01)
    f = Fake(lambda peer, number: time.sleep(0.005) or peer, [A])
    mapped = f.map(itertools.count())
    assert next(mapped) == A
    f.there = [A, B]
    for peer in mapped:
        if peer == B:
            break
    f.there = [B]
    in_a_row = 0
    for peer in mapped:
        in_a_row = in_a_row + 1 if peer == B else 0
        if in_a_row == 100:
            break
    mapped.close()


def once_a_failed(problem: Exception) -> Fake:
    """A fails, and B works when it has."""
    failed = threading.Event()

    def behave(peer: Any, number: int) -> Any:
        if peer == A:
            failed.set()
            raise problem
        assert failed.wait(patience(5))
        return (peer, number)
    return Fake(behave, [A, B])


def test_what_a_lost_peer_did_not_run_goes_to_others():
    f = once_a_failed(GONE)
    assert list(f.map(range(20))) == [(B, number) for number in range(20)]
    assert A in f.asked


def test_a_peer_that_does_not_answer_is_looked_at_again():
    f = Fake(failing(p1=GONE), [A], repeatable=True)
    missed = threading.Event()
    f.target = f.target._replace(missed=lambda peer: missed.set())
    mapped = f.map([1])
    threading.Thread(target=lambda: missed.wait(patience(5)) and f.there.append(B)).start()
    assert next(mapped) == (B, 1)
    mapped.close()


def test_what_may_have_run_runs_again_only_if_repeatable():
    f = once_a_failed(LOST)
    with pytest.raises(net.PeerLost):
        list(f.map(range(20)))
    assert list(f.map.on(repeatable=True)(range(20))) == [(B, number) for number in range(20)]


def test_what_ends_every_peer_is_given_up_after_some():
    f = Fake(failing(p1=LOST, p2=LOST, p3=LOST), [A, B, C], repeatable=True)
    with pytest.raises(net.PeerLost):
        list(f.map([1]))
    assert len(f.asked) == spread.MAX_LOSSES


def test_items_of_a_chunk_go_in_one_call_as_far_as_that_does_them():
    fake = Fake(lambda peer, item: item * 2, [A])
    calls: List[int] = []
    several = fake.several
    fake.target = fake.target._replace(
        several=lambda peer, works: calls.append(len(works)) or several(peer, works))
    assert list(fake.map(range(10), chunk=5)) == [item * 2 for item in range(10)]
    assert calls == [5, 2, 5, 2]  # three of five at a time
    fake.together = None
    assert list(fake.map(range(10), chunk=5)) == [item * 2 for item in range(10)]


def test_each_item_of_a_chunk_fails_for_itself():
    def behave(peer: Any, item: int) -> int:
        if item == 2:
            raise KeyError("no")
        if item == 3:
            raise net.ValueNotSupported("result", "no", "yes")
        return item

    fake = Fake(behave, [A])
    items = fake.map(range(6), chunk=6)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(KeyError):
        next(items)


def test_what_of_a_chunk_was_refused_goes_elsewhere_and_the_rest_is_done_once():
    ran: List[Any] = []

    def behave(peer: Any, item: int) -> int:
        if item == 1 and peer == A and not ran.count("refused"):
            ran.append("refused")
            raise net.PeerBusy(A, "no")
        ran.append(item)
        return item

    fake = Fake(behave, [A])
    assert list(fake.map(range(6), chunk=3)) == list(range(6))
    assert sorted(one for one in ran if one != "refused") == list(range(6))


def test_a_lost_chunk_is_repeated_one_by_one_if_it_is_repeatable():
    lost: List[int] = []

    def behave(peer: Any, item: int) -> int:
        if item == 4 and len(lost) < 2:
            lost.append(item)
            raise LOST
        return item

    fake = Fake(behave, [A, B, C], repeatable=True)
    fake.together = 100
    assert list(fake.map(range(8), chunk=4)) == list(range(8))
    assert len(lost) == 2
    with pytest.raises(net.PeerLost):
        list(Fake(failing(_1=LOST), [A]).map(range(4), chunk=4))


def test_a_worker_is_given_alone_what_one_was_lost_with():
    spreader: spread.Spread[Any] = spread.Spread(1, True, 0.0)
    spreader.set_workers([A])
    tasks = [spread.Task(number) for number in range(5)]
    tasks[2].losses = 1
    spreader.add(tasks, 0.0)
    taken = []
    while spreader.waiting:
        found = spreader.take(A, 0.0, 3)
        spreader.done(A, found[0])
        taken.append([task.work for task in found])
    assert taken == [[0, 1], [2], [3, 4]]


def test_work_without_any_peer_fails_with_the_reason(monkeypatch):
    monkeypatch.setattr(workers, "LOOK_TIME", 0.01)
    monkeypatch.setattr(spread, "PATIENCE", 0.05)
    with pytest.raises(net.TooFewPeers, match="no peer has it"):
        list(Fake(failing(), []).map([1]))
    with pytest.raises(net.TooFewPeers, match="gone") as caught:
        list(Fake(failing(p1=GONE), [A]).map([1]))
    assert caught.value.ran == "no"


@each("then", [GONE, net.MessageTooLarge("text", 2, 1, None)])
def test_work_that_was_lost_before_it_failed_may_have_run(monkeypatch, then):
    monkeypatch.setattr(workers, "LOOK_TIME", 0.01)
    monkeypatch.setattr(spread, "PATIENCE", 0.2)
    problems = [LOST]

    def behave(peer, *args):
        raise problems.pop() if problems else copy.copy(then)

    with pytest.raises(net.NetError) as caught:
        list(Fake(behave, [A], repeatable=True).map([1]))
    assert caught.value.ran == "maybe"
    assert isinstance(caught.value, net.TooFewPeers if then is GONE else type(then))


def test_the_timeout_of_a_map_is_for_all_of_it():
    go = threading.Event()
    f = Fake(lambda peer, number: go.wait(patience(5)), [A])
    started = time.monotonic()
    with pytest.raises(net.CallTimeout):
        list(f.map.on(timeout=0.05)(range(3)))
    assert time.monotonic() - started < patience(2)
    go.set()


def test_a_map_ends_with_the_served_call_that_makes_it():
    served = context.Context(context.Caller(None, None))
    served.deadline = time.monotonic() + 60
    begun = threading.Event()

    def behave(peer, number):
        mine = context.current()
        assert mine.deadline == served.deadline
        over = threading.Event()
        mine.add_ending(over.set)
        begun.set()
        assert over.wait(patience(5))
        raise net.CallCancelled("over")
    context.enter(served)
    try:
        mapped = Fake(behave, [A]).map([1])
        threading.Thread(target=lambda: begun.wait(patience(5)) and served.cancel()).start()
        with pytest.raises(net.CallCancelled):
            next(mapped)
    finally:
        context.enter(None)
    assert not served._endings


def test_threads_that_ended_are_started_again(monkeypatch):
    monkeypatch.setattr(workers, "IDLE_TIME", 0.01)
    f = Fake(lambda peer, number: number, [A, B])
    mapped = f.map(itertools.count())
    assert next(mapped) == 0
    made = mapped._workers
    deadline = time.monotonic() + patience(5)
    while made._count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made._count == 0
    assert list(itertools.islice(mapped, 50)) == list(range(1, 51))
    mapped.close()


def test_a_map_can_be_iterated_by_coroutines():
    f = Fake(lambda peer, number: number * 2, [A, B])

    async def main() -> List[Any]:
        return [value async for value in f.map(range(10))]
    assert asyncio.run(main()) == list(range(0, 20, 2))

    async def failing_one() -> List[Any]:
        return [value async for value in Fake(failing(p1=ValueError("x")), [A]).map([1])]
    with pytest.raises(ValueError):
        asyncio.run(failing_one())


# ---------------------------------------------------------------------- executor


@pytest.fixture
def executor():
    with net.Executor() as made:
        yield made


def test_an_executor_runs_what_is_submitted(executor):
    f = Fake(lambda peer, a, b=1: a * b, [A, B])
    assert executor.submit(f, 3, b=4).result(patience(5)) == 12
    assert list(executor.map(f, range(10), range(10))) == [n * n for n in range(10)]
    done, left = concurrent.futures.wait([executor.submit(f, n) for n in range(5)], patience(5))
    assert len(done) == 5 and not left
    called = []
    executor.submit(f, 3).add_done_callback(called.append)
    executor.shutdown()
    assert called[0].result() == 3


def test_an_executor_says_what_it_cannot_run(executor):
    f = Fake(lambda peer: peer, [A])
    for what in (len, f.any, functools.partial(f.call, A), None):
        with pytest.raises(TypeError, match="connected functions"):
            executor.submit(what, [])


def test_an_executor_takes_nothing_after_its_end():
    executor = net.Executor()
    f = Fake(lambda peer: time.sleep(0.02) or peer, [A])
    futures = [executor.submit(f) for _ in range(3)]
    executor.shutdown(wait=True)
    assert all(future.done() and future.result() == A for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(f)
    executor.shutdown()


def test_a_callback_that_would_wait_for_its_own_end_fails():
    executor = net.Executor()
    seen: List[Any] = []

    def end(future: Any) -> None:
        try:
            executor.shutdown()
        except BaseException as problem:
            seen.append(problem)
    go = threading.Event()
    f = Fake(lambda peer: go.wait(patience(5)) and peer, [A])
    future = executor.submit(f)
    future.add_done_callback(end)  # in the thread that has the value
    go.set()
    assert future.result(patience(5)) == A
    executor.shutdown()
    assert [type(problem) for problem in seen] == [RuntimeError]


def test_an_executor_cancels_what_waits():
    go = threading.Event()
    executor = net.Executor()
    f = Fake(lambda peer, n: go.wait(patience(5)) and n, [A])
    futures = [executor.submit(f, n) for n in range(4)]
    while not futures[0].running():
        time.sleep(0.001)
    assert futures[2].cancel() and not futures[0].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True, True]
    go.set()
    executor.shutdown()
    assert futures[0].result(patience(5)) == 0
    concurrent.futures.wait(futures, patience(5))


def test_an_executor_that_cancels_what_waits_goes_on_with_what_a_lost_peer_had_begun():
    begun, lost = threading.Event(), threading.Event()

    def behave(peer: Any, n: int) -> Any:
        if peer == A:
            begun.set()
            lost.wait(patience(5))
            f.there = []
            raise LOST
        return n
    f = Fake(behave, [A], repeatable=True)
    executor = net.Executor()
    futures = [executor.submit(f, n) for n in range(3)]
    assert begun.wait(patience(5))
    lost.set()
    while f.missed != [A]:  # then its task waits for another peer
        time.sleep(0.001)
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True]
    f.there = [B]
    executor.shutdown()
    assert futures[0].result(patience(5)) == 0
    assert not concurrent.futures.wait(futures, patience(5)).not_done


def test_an_executor_serves_an_event_loop(executor):
    f = Fake(lambda peer, n: n + 1, [A])

    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, f, 1)
    assert asyncio.run(main()) == 2


def test_an_executor_keeps_errors_and_retries_what_did_not_run():
    with net.Executor(peers=[A, B]) as executor:
        f = Fake(failing(p1=GONE), [])
        assert executor.submit(f, 1).result(patience(5)) == (B, 1)
        g = Fake(failing(p1=ValueError("x"), p2=ValueError("x")), [])
        g.target = g.target._replace(tag=b"g")
        with pytest.raises(ValueError):
            executor.submit(g).result(patience(5))
    with pytest.raises(net.InvalidPeer):
        net.Executor(peers=["nobody"])


def test_letting_go_of_an_executor_ends_its_threads():
    f = Fake(lambda peer: peer, [A])
    assert net.Executor().submit(f).result(patience(5)) == A


# ----------------------------------------------------------------------------------- waiting for

@pytest.mark.parametrize("at_least, connected", [(0, []), (15, []), (16, [[A, B]])])
def test_a_caller_that_waits_for_many_is_connected_to_them(monkeypatch, at_least, connected):
    seen: List[Any] = []
    monkeypatch.setattr(functions, "peers_with", lambda *args: [A, B])
    monkeypatch.setattr(start, "connect", lambda client, coroutines, peers: seen.append(peers))
    assert net.remote("many").peers(at_least=at_least) == [A, B]
    assert seen == connected
