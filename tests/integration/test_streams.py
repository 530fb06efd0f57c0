"""Generators of another process: the items as they are made, and their end."""
from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any, List

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forms
import net
from net.process import process as here
from service import memory, until
from times import patience
from travel import assert_same


def trace_of(iterator: Any, steps: List[str]) -> List[Any]:
    """What a consumer sees that does these steps with a generator."""
    seen: List[Any] = []
    for step in steps:
        try:
            if step == "next":
                seen.append(("item", next(iterator)))
            elif step == "close":
                seen.append(("closed", iterator.close()))
            elif step == "send":
                seen.append(("item", iterator.send(None)))
            else:
                seen.append(("rest", list(iterator)))
        except StopIteration as end:
            seen.append(("end", end.value))
        except BaseException as problem:
            seen.append(("raised", *kind_of(problem), problem.args))
    return seen


def kind_of(problem: BaseException) -> List[str]:
    """The class that a function raised, here or there."""
    names = [cls.__name__ for cls in type(problem).__mro__ if cls.__module__ == "builtins"]
    return names[:1]


async def async_trace_of(iterator: Any, steps: List[str]) -> List[Any]:
    seen: List[Any] = []
    for step in steps:
        try:
            if step == "close":
                seen.append(("closed", await iterator.aclose()))
            elif step == "rest":
                seen.append(("rest", [item async for item in iterator]))
            else:
                seen.append(("item", await iterator.__anext__()))
        except StopAsyncIteration:
            seen.append(("end",))
        except BaseException as problem:
            seen.append(("raised", *kind_of(problem), problem.args))
    return seen


values = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.binary(max_size=3),
                   st.just(b"x" * 5000), st.tuples(st.integers(), st.booleans()),
                   st.sets(st.integers(), max_size=3),
                   st.dictionaries(st.integers(0, 9), st.floats(allow_nan=False), max_size=2))
errors = st.tuples(st.just("raise"), st.sampled_from(["ValueError", "KeyError", "OSError"]),
                   st.text(max_size=3))
yields = st.tuples(st.just("yield"), values)
endings = st.one_of(errors, st.tuples(st.just("return"), values))
inner = st.lists(yields, max_size=3)
programs = st.builds(
    lambda steps, ending: steps + ending,
    st.lists(st.one_of(yields, yields, st.tuples(st.just("from"), inner)), max_size=6),
    st.lists(endings, max_size=1))
consumers = st.lists(st.sampled_from(["next", "next", "next", "next", "send", "close", "rest"]),
                     max_size=10)


@hypothesis.settings(max_examples=150, deadline=None)
@given(program=programs, steps=consumers)
def test_a_consumer_sees_there_what_it_sees_here(far, program, steps):
    key = uuid.uuid4().hex
    there = forms.play(program, key, peer=far.id)
    assert_same(trace_of(there, steps), trace_of(forms.play(program), steps))
    there.close()
    if set(steps) - {"close"} and steps[:1] != ["close"]:  # it has begun there
        assert len(forms.noted(key, peer=far.id)) == 1
    assert_idle_and_in_order()


@hypothesis.settings(max_examples=50, deadline=None)
@given(program=programs, steps=consumers)
def test_a_generator_of_a_generator_over_two_hops_is_the_same(hops, program, steps):
    key = uuid.uuid4().hex
    there = forms.relay(hops[1].id, program, key, peer=hops[0].id)
    assert_same(trace_of(there, steps), trace_of(forms.play(program), steps))
    there.close()
    if set(steps) - {"close"} and steps[:1] != ["close"]:
        assert forms.noted(key, peer=hops[0].id) == ["relay ended"]
        assert len(forms.noted(key, peer=hops[1].id)) == 1


@hypothesis.settings(max_examples=100, deadline=None)
@given(program=st.builds(lambda steps, ending: steps + ending,
                         st.lists(st.one_of(yields, st.just(("sleep", 0.0))), max_size=6),
                         st.lists(errors, max_size=1)), steps=consumers)
def test_an_async_generator_is_consumed_there_as_it_is_here(far, program, steps):
    key = uuid.uuid4().hex

    async def both() -> List[Any]:
        traces = []
        for iterator in (forms.play_async(program, key, peer=far.id), forms.play_async(program)):
            traces.append(await async_trace_of(iterator, steps))
            await iterator.aclose()
        return traces
    there, local = asyncio.run(both())
    assert_same(there, local)
    if set(steps) - {"close"} and steps[:1] != ["close"]:
        assert len(forms.noted(key, peer=far.id)) == 1


def assert_idle_and_in_order() -> None:
    """All connections of this process wait for a call, and nothing is on its way in them."""
    for pool in here.client._pools.values():
        assert not pool._waiting
        for connection in pool._idle:
            assert not connection.session.held and not connection.stream.is_readable()


# ----------------------------------------------------------------------------- one after another

def test_the_first_item_is_there_before_the_second_is_computed(far, key):
    seen = []
    for number in forms.paced(key, 5, peer=far.id):
        seen.append(number)
        forms.note(key, peer=far.id)
    assert seen == list(range(5))


def test_nothing_runs_there_before_the_first_item_is_asked_for(far, key):
    there = forms.play([("yield", 1)], key, peer=far.id)
    assert forms.noted(key, 1, 0.1, peer=far.id) == []
    there.close()
    with pytest.raises(StopIteration):
        next(there)
    assert forms.noted(key, 1, 0.1, peer=far.id) == []


def test_what_it_returns_is_the_value_of_its_end(far):
    def delegate() -> Any:
        found = yield from forms.play([("yield", 1), ("return", (2, {3}))], peer=far.id)
        yield found
    assert list(delegate()) == [1, (2, {3})]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1023, 1024, 1025, 5000])
def test_every_number_of_items_arrives_in_order(far, count):
    assert list(forms.count_to(count, peer=far.id)) == list(range(count))
    assert_idle_and_in_order()


def test_items_keep_their_types(far):
    items = [1, "x", b"y", (1, 2), {1: (2,)}, [None, True], 1.5, b"z" * 10_000, "ä" * 10_000,
             {frozenset({1})}, 10 ** 700, [[[]]]]
    assert_same(list(forms.play([("yield", item) for item in items], peer=far.id)), items)


def test_arrays_arrive_as_they_are(far):
    numpy = pytest.importorskip("numpy")
    found = list(forms.arrays(20, 2 ** 20, peer=far.id))
    assert [one.shape for one in found] == [(2 ** 20,)] * 20
    assert all(numpy.all(one == number) for number, one in enumerate(found))


def test_an_item_larger_than_the_window_travels_alone(far):
    items = [bytes(9 * 2 ** 20), b"x", bytes(5 * 2 ** 20)]
    assert list(forms.play([("yield", item) for item in items], peer=far.id)) == items


def test_a_hundred_thousand_items(far):
    started = time.monotonic()
    assert sum(forms.count_to(100_000, peer=far.id)) == sum(range(100_000))
    seconds = time.monotonic() - started
    print(f"{100_000 / seconds:,.0f} items a second")
    assert seconds < patience(20)


def test_many_generators_at_once_share_the_peer(far):
    iterators = [forms.count_to(3000, peer=far.id) for _ in range(20)]
    assert [list(items) for items in zip(*iterators)] == [[number] * 20 for number in range(3000)]
    del iterators
    assert_idle_and_in_order()


def test_a_generator_in_each_of_many_threads(far):
    found: List[Any] = []

    def run() -> None:
        found.append(sum(forms.count_to(2000, peer=far.id)))
    running = [threading.Thread(target=run) for _ in range(20)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert found == [sum(range(2000))] * 20


def test_a_stream_leaves_its_connection_to_the_next_call(far):
    forms.where(peer=far.id)
    pool = here.client._find_pool(far.id)
    before = len(pool._idle)
    for _ in range(10):
        assert list(forms.count_to(3, peer=far.id)) == [0, 1, 2]
        with pytest.raises(ValueError):
            list(forms.play([("raise", "ValueError")], peer=far.id))
        assert len(pool._idle) == before
    assert forms.where(peer=far.id) == far.pid


# --------------------------------------------------------------------------------------- its end

def test_an_error_after_some_items_arrives_after_them(far):
    program = [("yield", number) for number in range(700)] + [("raise", "KeyError", "key")]
    seen = []
    with pytest.raises(KeyError) as caught:
        for item in forms.play(program, peer=far.id):
            seen.append(item)
    assert seen == list(range(700)) and caught.value.args == ("key",)
    assert isinstance(caught.value, net.RemoteError) and caught.value.ran == "yes"


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_what_must_not_end_that_process_is_an_error_here(far, name):
    with pytest.raises(net.RemoteError):
        list(forms.play([("yield", 1), ("raise", name, 3)], peer=far.id))
    assert forms.where(peer=far.id) == far.pid


def test_an_item_that_cannot_travel_ends_the_stream_with_a_typed_error(far, key):
    iterator = forms.locks(key, peer=far.id)
    assert next(iterator) == 1
    with pytest.raises(net.ValueNotSupported, match="item") as caught:
        next(iterator)
    assert caught.value.ran == "yes"
    assert forms.noted(key, peer=far.id) == ["ended"]
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.parametrize("how", ["break", "close", "forget", "error"])
def test_a_consumer_that_stops_closes_the_generator_there_within_a_second(far, key, how):
    there = forms.endless(key, peer=far.id)
    if how == "break":
        for number in there:
            if number == 3:
                break
        del there
    elif how == "close":
        assert next(there) == 1
        there.close()
    elif how == "forget":
        assert next(there) == 1
        del there
    else:
        with pytest.raises(ZeroDivisionError):
            for number in there:
                number / 0
        del there
    gc.collect()
    started = time.monotonic()
    (made,) = forms.noted(key, peer=far.id)
    assert time.monotonic() - started < patience(1)
    assert made <= 1024 + 1024 + 2


def test_a_thrown_error_closes_it_there_and_is_raised_here(far, key):
    there = forms.endless(key, peer=far.id)
    assert next(there) == 1
    with pytest.raises(KeyError, match="mine"):
        there.throw(KeyError("mine"))
    assert forms.noted(key, peer=far.id)
    with pytest.raises(TypeError, match="takes no values"):
        forms.endless(key, peer=far.id).send(5)


@pytest.mark.parametrize("arguments, expected", [
    ((KeyError("mine"),), ("mine",)), ((KeyError, "mine"), ("mine",)),
    ((KeyError, KeyError("mine")), ("mine",)), ((KeyError,), ()),
], ids=["an error", "class and value", "class and error", "class"])
@pytest.mark.filterwarnings("ignore:the .* signature of:DeprecationWarning")
def test_what_is_thrown_is_what_a_generator_here_would_raise(far, key, arguments, expected):
    for peer in {}, {"peer": far.id}:
        there = forms.endless(key, **peer)
        assert next(there) == 1
        with pytest.raises(KeyError) as caught:
            there.throw(*arguments)
        assert caught.value.args == expected


def test_an_async_generator_there_has_the_methods_of_one_here(far, key):
    async def use(there: Any) -> List[Any]:
        assert isinstance(there, AsyncGenerator)
        found = [await there.asend(None), await there.asend(None)]
        with pytest.raises(KeyError, match="mine"):
            await there.athrow(KeyError("mine"))
        with pytest.raises(StopAsyncIteration):
            await there.asend(None)
        return found
    assert asyncio.run(use(forms.endless_async(key))) == [1, 2]
    forms.notes.get(key, 1, 5)
    assert asyncio.run(use(forms.endless_async(key, peer=far.id))) == [1, 2]
    assert forms.noted(key, peer=far.id)

    async def send() -> None:
        with pytest.raises(TypeError, match="takes no values"):
            await forms.endless_async(key, peer=far.id).asend(5)
    asyncio.run(send())


@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
def test_an_async_consumer_that_stops_closes_it_there(far, key, how):
    async def consume() -> None:
        there = forms.endless_async(key, peer=far.id)
        if how == "break":
            async for number in there:
                if number == 3:
                    break
            await there.aclose()
        elif how == "aclose":
            assert await there.__anext__() == 1
            await there.aclose()
        else:
            async def all_of_it() -> None:
                async for number in there:
                    await asyncio.sleep(0)
            task = asyncio.ensure_future(all_of_it())
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    asyncio.run(consume())
    assert len(forms.noted(key, peer=far.id)) == 1


def test_a_consumer_that_was_killed_closes_it_there(forms_process, far, key):
    consumer = forms_process(f"""
import itertools
for _ in itertools.islice(endless({key!r}, peer={far.id!r}), 10):
    pass
iterator = endless({key!r}, peer={far.id!r})
next(iterator)
""")
    assert len(forms.noted(key, 1, peer=far.id)) == 1
    consumer.kill()
    started = time.monotonic()
    assert len(forms.noted(key, 2, peer=far.id)) == 2
    assert time.monotonic() - started < patience(1.5)


def test_a_generator_that_computes_when_its_consumer_goes_is_told(far, key):
    with pytest.raises(net.CallTimeout):
        next(forms.slow_start.on(far.id, timeout=patience(0.3))(key))
    assert forms.noted(key, 2, peer=far.id) == ["cancelled", "ended"]


def test_a_producer_that_was_killed_is_a_lost_peer(forms_process, key):
    process = forms_process()
    there = forms.endless(key, peer=process.id)
    assert next(there) == 1
    process.kill()
    with pytest.raises(net.PeerLost) as caught:
        for _ in there:
            pass
    assert caught.value.ran == "maybe"
    with pytest.raises(StopIteration):
        next(there)


def test_a_producer_that_is_closed_in_order_is_a_lost_peer(forms_process, key):
    process = forms_process()
    there = forms.endless(key, peer=process.id)
    assert next(there) == 1
    process.execute("net.Peer().close()")
    with pytest.raises(net.PeerLost):
        for _ in there:
            pass


# ------------------------------------------------------------------------------------ slow ones

@pytest.mark.parametrize("size", [1, 100_000])
def test_a_slow_consumer_slows_the_producer_and_memory_stays_bounded(far, key, size):
    item = b"x" * size
    there = forms.endless(key, item, peer=far.id)
    next(there)
    time.sleep(0.3)
    before, there_before = memory(), forms.memory_in_use(peer=far.id)
    time.sleep(1.0)
    for _ in itertools.islice(there, 20):
        time.sleep(0.02)
    assert memory() - before < 30 * 2 ** 20
    assert forms.memory_in_use(peer=far.id) - there_before < 30 * 2 ** 20
    there.close()
    (made,) = forms.noted(key, peer=far.id)
    # A window there, one more at the most that was taken, and what lies in the sockets.
    assert made < 3000 if size == 1 else made < 150


def test_a_slow_async_consumer_slows_the_producer(far, key):
    async def consume() -> None:
        there = forms.endless_async(key, b"x" * 50_000, peer=far.id)
        async for _ in there:
            await asyncio.sleep(0.5)
            break
        await there.aclose()
    asyncio.run(consume())
    (made,) = forms.noted(key, peer=far.id)
    assert made < 300


def test_a_consumer_that_waits_longer_than_an_idle_connection_goes_on(forms_process, key):
    process = forms_process("net.configure(idle_time=0.6, request_time=0.6)")
    there = forms.count_to(3000, peer=process.id)
    seen = [next(there)]
    time.sleep(1.5)
    seen += there
    assert seen == list(range(3000))
    assert forms.where(peer=process.id) == process.pid


def test_a_stopped_consumer_holds_up_nobody_else(forms_process, far, key):
    consumer = forms_process(f"""
iterator = endless({key!r}, b"x" * 1000, peer={far.id!r})
next(iterator)
""")
    consumer.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(3):
        assert sum(forms.count_to(2000, peer=far.id)) == sum(range(2000))
    assert time.monotonic() - started < patience(3)
    consumer.signal(signal.SIGCONT)
    consumer.kill()
    assert len(forms.noted(key, peer=far.id)) == 1


# ------------------------------------------------------------------------------------- deadlines

def test_the_time_of_a_call_is_for_all_of_its_items(far, key):
    timed = forms.endless.on(far.id, timeout=patience(0.4))
    started = time.monotonic()
    with pytest.raises(net.NetError) as caught:
        for _ in timed(key):
            pass
    assert isinstance(caught.value, (net.CallTimeout, net.CallCancelled))
    assert 0.3 < time.monotonic() - started < patience(2)
    assert len(forms.noted(key, peer=far.id)) == 1


def test_within_a_function_that_is_given_up_a_stream_ends(hops, key):
    timed = forms.relay.on(hops[0].id, timeout=patience(5))
    program = [("yield", number) for number in range(5)]
    assert list(timed(hops[1].id, program, key)) == list(range(5))


# ----------------------------------------------------------------------------- nothing left over

def test_streams_leave_no_thread_and_no_connection_there(forms_process):
    process = forms_process()
    assert forms.where(peer=process.id) == process.pid
    before = forms.threads(peer=process.id)
    for _ in range(30):
        there = forms.count_to(10_000, peer=process.id)
        next(there)
        there.close()
    until(lambda: len(forms.threads(peer=process.id)) <= len(before) + 1, patience(5))


def test_the_program_ends_though_a_stream_is_open(forms_process, key):
    process = forms_process()
    from processes import run_python

    started = time.monotonic()
    run_python("-c", f"""
import forms
iterator = forms.endless({key!r}, peer={process.id!r})
assert next(iterator) == 1
""")
    assert time.monotonic() - started < patience(10)
    assert len(forms.noted(key, peer=process.id)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.15 raises it
def test_a_forked_child_leaves_the_stream_of_its_parent_alone(far):
    there = forms.count_to(3000, peer=far.id)
    assert next(there) == 0
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if forms.where(peer=far.id) == far.pid else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert list(there) == list(range(1, 3000))
