"""Coroutines that run on a loop for a thread that waits for them."""
from __future__ import annotations

import asyncio
import errno
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List

import pytest

import net
from net.context import Caller, Context
from net.executors import Coroutines, NotTaken, begin_coroutine, run_coroutine

#: Seconds that are never over.
LONG = 60


@pytest.fixture
def context() -> Context:
    return Context(Caller(None, None))


class Endless:
    """A coroutine function that waits for ever, and notes what becomes of it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.began.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def value() -> Any:
    await asyncio.sleep(0)
    return [5]


@pytest.mark.parametrize("finish", [None, lambda found: (found, threading.get_ident())])
def test_it_gives_what_the_coroutine_returns(asyncio_loop, context, finish):
    found = begin_coroutine(asyncio_loop, value(), finish).wait(context)
    assert found == [5] if finish is None else found[0] == [5] and found[1] != threading.get_ident()
    assert run_coroutine(asyncio_loop, None, value()) == [5]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.TimeoutError])
def test_it_raises_what_the_coroutine_raises_and_the_loop_goes_on(asyncio_loop, context, error):
    async def fail() -> None:
        raise error("it")

    def finish(found: Any) -> None:
        raise error("it")
    with pytest.raises(error, match="it"):
        begin_coroutine(asyncio_loop, fail(), finish).wait(context)
    with pytest.raises(error, match="it"):
        begin_coroutine(asyncio_loop, value(), finish).wait(context)
    assert run_coroutine(asyncio_loop, context, value()) == [5]


def test_what_was_raised_holds_nothing_once_it_is_forgotten(asyncio_loop, context):
    class Held:
        pass
    held = Held()
    seen = weakref.ref(held)

    async def fail(argument: Any) -> None:
        raise ValueError(5)
    coroutine = fail(held)
    del held
    gc.disable()
    try:
        with pytest.raises(ValueError) as caught:
            run_coroutine(asyncio_loop, context, coroutine)
        caught.value.with_traceback(None)
        del caught, coroutine
        run_coroutine(asyncio_loop, context, value())  # the loop has let go of it, too
        assert seen() is None
    finally:
        gc.enable()


def test_a_call_that_is_given_up_ends_its_coroutine_and_finishes_nothing(asyncio_loop, context):
    endless, finished = Endless(), []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(begin_coroutine(asyncio_loop, endless(), finished.append).wait,
                              context)
        assert endless.began.wait(LONG)
        context.cancel()
        assert isinstance(waiting.exception(LONG), net.CallCancelled)
    assert endless.cancelled.wait(LONG) and finished == []


def test_when_its_time_is_over_the_coroutine_is_cancelled(asyncio_loop, context):
    endless = Endless()
    context.seconds, context.deadline = 0.2, time.monotonic() + 0.2
    with pytest.raises(net.CallTimeout, match="0.2 s") as caught:
        run_coroutine(asyncio_loop, context, endless())
    assert caught.value.ran == "maybe"
    if endless.began.is_set():  # as long as the machine is not too slow for that
        assert endless.cancelled.wait(LONG)


def test_neither_waits_for_a_loop_that_never_runs(context):
    stopped = asyncio.new_event_loop()
    endless = Endless()
    context.seconds, context.deadline = 0.05, time.monotonic() + 0.05
    with pytest.raises(net.CallTimeout):
        run_coroutine(stopped, context, endless())
    other = Context(Caller(None, None))
    other.cancel()
    with pytest.raises(net.CallCancelled):
        run_coroutine(stopped, other, endless())
    stopped.run_until_complete(asyncio.sleep(0))
    stopped.close()
    assert not endless.began.is_set()


def test_a_closed_loop_takes_nothing(context):
    closed = asyncio.new_event_loop()
    closed.close()
    with pytest.raises(NotTaken):
        run_coroutine(closed, context, Endless()())


def test_without_descriptors_for_a_loop_nothing_runs(monkeypatch):
    def lacks() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", lacks)
    with pytest.raises(NotTaken, match="Too many open files"):
        Coroutines().loop()


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(LONG)


async def _is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("coroutine", [_cancels_itself, _is_cancelled])
def test_a_coroutine_that_is_cancelled_by_its_own_side_is_an_error(
        asyncio_loop, context, coroutine):
    with pytest.raises(net.CallCancelled):
        run_coroutine(asyncio_loop, context, coroutine())


def test_a_task_that_is_cancelled_before_its_first_step_is_an_error(context):
    made: List[Any] = []

    class Loop:
        """Cancels each task at once, as a program that ends does."""

        def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
            real.call_soon_threadsafe(function)

        def create_task(self, coroutine: Any) -> Any:
            made.append(real.create_task(coroutine))
            made[0].cancel()
            return made[0]
    real = asyncio.new_event_loop()
    endless = Endless()
    thread = threading.Thread(target=real.run_forever)
    thread.start()
    with pytest.raises(net.CallCancelled):
        run_coroutine(Loop(), context, endless())
    real.call_soon_threadsafe(real.stop)
    thread.join()
    real.close()
    assert not endless.began.is_set()


def test_it_may_end_and_be_given_up_at_the_same_time(asyncio_loop):
    """One of the two counts."""
    with ThreadPoolExecutor(1) as pool:
        for _ in range(200):
            context, finished = Context(Caller(None, None)), []
            run = begin_coroutine(asyncio_loop, value(),
                                  lambda found: finished.append(found) or "finished")
            waiting = pool.submit(run.wait, context)
            context.cancel()
            error = waiting.exception(LONG)
            assert isinstance(error, net.CallCancelled) if error is not None else \
                waiting.result() == "finished"
            assert len(finished) == (error is None)
