"""Where functions run: in the connection's thread, in an executor, on an event loop."""
from __future__ import annotations

import contextvars
import sys
import threading
import types
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Deque, Optional, Union

from .context import Caller, Context, Overdue, current, enter
from .errors import CallCancelled, PeerBusy

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from typing_extensions import TypeIs

#: Where functions can run: what ``executor=`` takes.
ExecutorOrLoop = Union[Executor, "AbstractEventLoop"]

# Seconds that a lock can wait for at most.
LONGEST = threading.TIMEOUT_MAX


class NotTaken(PeerBusy):
    """The executor or event loop took no function; it did not run."""


class MainThread(Executor):
    """Runs functions in the thread that calls :meth:`run_pending`: the main one, as GUIs and
    drivers of instruments demand.

    Give it as ``executor=``. Its work is done by :func:`net.serve`, or by :meth:`run_pending` from
    a timer of the application's own loop.
    """

    def __init__(self) -> None:
        # Guards the queue; notified when something is queued. An RLock inside: a signal handler may
        # submit.
        self._changed = threading.Condition()
        self._queue: Deque[Any] = deque()
        #: Called, from any thread, when there is something to run.
        self.on_submit: Optional[Callable[[], object]] = None

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call. Any thread may submit."""
        future: Future[Any] = Future()
        with self._changed:
            self._queue.append((future, function, args, kwargs))
            self._changed.notify()
            told = self.on_submit
        if told is not None:
            told()
        return future

    def run_pending(self, timeout: float = 0.0) -> int:
        """Run what is queued, in this thread, and return how many calls that was.

        :param timeout: seconds to wait for a first one.
        """
        with self._changed:
            if not self._queue and timeout > 0:
                self._changed.wait(timeout)
            waiting = len(self._queue)
        for _ in range(waiting):  # what these queue in turn waits for the next time
            future, function, args, kwargs = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as problem:
                future.set_exception(problem)
                if isinstance(problem, KeyboardInterrupt):
                    raise
        return waiting

    def wake(self) -> None:
        """Make a :meth:`run_pending` that waits return at once. Any thread may call."""
        with self._changed:
            self._changed.notify_all()

    def __repr__(self) -> str:
        return "net.main_thread"


class Coroutines:
    """An asyncio loop in a thread of its own, started by the first coroutine, for functions that
    name no loop of the application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _loop
        self._loop: Optional[AbstractEventLoop] = None

    def loop(self) -> AbstractEventLoop:
        """The loop.

        :raises PeerBusy: no thread can be started.
        """
        import asyncio  # few need it

        with self._lock:
            if self._loop is None or self._loop.is_closed():
                try:
                    loop = asyncio.new_event_loop()
                except OSError as problem:  # no descriptor for it
                    raise NotTaken(None, f"no event loop there: {problem.strerror}") from None
                try:
                    threading.Thread(target=self._run, args=(loop,), name="net-coroutines",
                                     daemon=True).start()
                except RuntimeError as problem:
                    loop.close()
                    raise NotTaken(None, str(problem)) from None
                self._loop = loop
            return self._loop

    @staticmethod
    def _run(loop: AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    def close(self) -> None:
        """End the thread, and the coroutines that are left."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


def is_event_loop(executor: object) -> TypeIs[AbstractEventLoop]:
    """Whether it is an asyncio loop rather than a :class:`concurrent.futures.Executor`."""
    return hasattr(executor, "call_soon_threadsafe")


def check_executor(executor: object) -> None:
    """Refuse what functions cannot run in.

    :raises TypeError: neither an executor nor an event loop, or one of other processes.
    """
    processes = sys.modules.get("concurrent.futures.process")
    if processes is not None and isinstance(executor, processes.ProcessPoolExecutor):
        raise TypeError("a function runs in the process that it is connected in, so its executor "
                        "cannot be a ProcessPoolExecutor; the function itself can use one")
    if executor is not None and not is_event_loop(executor) \
            and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"an executor is a concurrent.futures.Executor, an asyncio loop or "
                        f"net.main_thread, not {executor!r}")


def run_in(executor: ExecutorOrLoop, context: Optional[Context], function: Callable[..., Any],
           args: Any, kwargs: Any, name: object = None) -> Any:
    """Run a function in an executor, and wait for what it returns or raises.

    A call that was given up before it began never runs.

    :param name: how errors name the function; by default by its own name.
    :raises NotTaken: the executor takes nothing; the function did not run.
    :raises CallCancelled: its caller no longer waits.
    :raises CallTimeout: its time is over.
    """
    if context is not None and context is current():
        # The function may still run when nobody waits for it, and its connection has another call.
        own = context.of_one_call()
        context.add_ending(own.cancel)
        try:
            return _run_in(executor, own, partial(_within, own, function), args, kwargs,
                           name or function)
        finally:
            context.remove_ending(own.cancel)
    return _run_in(executor, context, function, args, kwargs, name or function)


def submit(executor: ExecutorOrLoop, context: Context, function: Callable[..., Any],
           *args: Any) -> None:
    """Have a function run in an executor and in a context, without waiting for it.

    :raises NotTaken: the executor takes nothing; the function will not run.
    """
    _submit(executor, None, partial(_within, context, function), args, {}, function)


def _within(context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    enter(context)
    return function(*args, **kwargs)


def _run_in(executor: ExecutorOrLoop, context: Optional[Context], function: Callable[..., Any],
            args: Any, kwargs: Any, name: object) -> Any:
    return wait_for(_submit(executor, context, function, args, kwargs, name), context)


def _submit(executor: ExecutorOrLoop, context: Optional[Context], function: Callable[..., Any],
            args: Any, kwargs: Any, name: object) -> Future[Any]:
    run = contextvars.copy_context().run
    try:
        if is_event_loop(executor):
            return _submit_to_loop(executor, run, context, function, args, kwargs)
        return executor.submit(run, _begin, context, function, args, kwargs)
    except RuntimeError as problem:  # it was shut down, or its loop is closed
        raise NotTaken(None, f"the executor of {_name(name)} takes no calls: {problem}") from None


def _submit_to_loop(loop: AbstractEventLoop, run: Callable[..., Any], context: Optional[Context],
                    function: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
    future: Future[Any] = Future()

    def step() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(run(_begin, context, function, args, kwargs))
            except BaseException as problem:
                future.set_exception(problem)
    loop.call_soon_threadsafe(step)
    return future


def _begin(context: Optional[Context], function: Callable[..., Any], args: Any,
           kwargs: Any) -> Any:
    if context is not None and context.is_over():
        if not context.cancelled:
            raise Overdue(None, context.seconds or 0.0, "no")
        raise CallCancelled("its caller stopped waiting before its executor was free", "no")
    return function(*args, **kwargs)


def run_coroutine(loop: AbstractEventLoop, context: Optional[Context],
                  coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop, and wait for what it returns or raises. Cancelling the call
    cancels it.

    :raises NotTaken: the loop is closed; the coroutine did not run.
    :raises CallCancelled: its caller no longer waits.
    :raises CallTimeout: its time is over.
    """
    return begin_coroutine(loop, coroutine).wait(context)


def begin_coroutine(loop: AbstractEventLoop, coroutine: Coroutine[Any, Any, Any],
                    finish: Optional[Callable[[Any], Any]] = None,
                    keep: Optional[Callable[[Run], bool]] = None) -> Run:
    """As :func:`run_coroutine`, but without waiting for it; see :class:`Run`.

    :raises NotTaken: the loop is closed; the coroutine did not run.
    """
    run = Run(loop, coroutine, finish, keep)
    try:
        loop.call_soon_threadsafe(run.begin)
    except RuntimeError:
        coroutine.close()
        raise NotTaken(None, "the event loop of that function is closed") from None
    return run


class Run:
    """A coroutine that runs on a loop, and for which a thread waits. Two futures in a chain, as
    :func:`asyncio.run_coroutine_threadsafe` has, would take twice the time.

    :param finish: makes the result from what the coroutine returns. It is called in the loop, when
        the coroutine can no longer be cancelled; not at all if it was.
    :param keep: called when the coroutine has ended, in the thread that has ended it. If it returns
        True, the thread that waits sleeps on until :meth:`release`.
    :ivar value: what the coroutine has returned, as ``finish`` has left it; None if it has returned
        nothing.
    """

    def __init__(self, loop: AbstractEventLoop, coroutine: Coroutine[Any, Any, Any],
                 finish: Optional[Callable[[Any], Any]],
                 keep: Optional[Callable[[Run], bool]] = None) -> None:
        self.loop = loop
        self.value: Any = None
        self._coroutine = coroutine
        self._finish = finish
        self._keep = keep
        self._task: Optional[Task[Any]] = None
        self._problem: Optional[BaseException] = None
        # Popped, which is atomic, by whatever decides how the coroutine ends.
        self._undecided = [True]
        self._ended = threading.Lock()  # free when it has
        self._ended.acquire()

    def begin(self) -> None:
        """Start it, in the loop."""
        if not self._undecided:
            self._coroutine.close()  # it was given up before
            return
        self._task = self.loop.create_task(self._work())
        self._task.add_done_callback(self._is_done)

    async def _work(self) -> None:
        if self._task is not None:
            # It has begun, so it says itself how it ends; the callback would take another round.
            self._task.remove_done_callback(self._is_done)
        try:
            value = await self._coroutine
        except BaseException as problem:  # SystemExit too: it must not end the loop
            self._fail(problem)
            return
        if self._decide():
            try:
                self.value = value if self._finish is None else self._finish(value)
            except BaseException as problem:
                self._problem = problem
            self._end()

    def _is_done(self, task: Task[Any]) -> None:
        self._coroutine.close()  # it was cancelled before its first step
        self._fail(CancelledError())

    def _decide(self) -> bool:
        try:
            return self._undecided.pop()
        except IndexError:
            return False

    def _fail(self, problem: BaseException) -> None:
        if self._decide():
            self._problem = problem
            self._end()

    def _end(self) -> None:
        if self._keep is None or not self._keep(self):
            self._ended.release()

    def release(self, value: Any) -> None:
        """Let the thread that waits go on with another value. Any thread may call, once."""
        self.value = value
        self._ended.release()

    def expire(self, seconds: Optional[float]) -> None:
        """End it, unless it has ended: its time is over. Any thread may call."""
        self._fail(Overdue(None, seconds or 0.0))
        self._cancel_task()

    def cancel(self) -> None:
        """End it, unless it has ended. Any thread may call."""
        self._fail(CancelledError())
        self._cancel_task()

    def _cancel_task(self) -> None:
        try:
            self.loop.call_soon_threadsafe(lambda: self._task is None or self._task.cancel())
        except RuntimeError:
            pass  # the loop is closed

    def wait(self, context: Optional[Context]) -> Any:
        """What it returns or raises, as long as its caller waits. Cancelling the call cancels it.

        :raises CallCancelled: its caller no longer waits.
        :raises CallTimeout: its time is over.
        """
        if context is None:
            return self._result(None)
        context.add_ending(self.cancel)
        try:
            return self._result(context)
        finally:
            context.remove_ending(self.cancel)

    def _result(self, context: Optional[Context]) -> Any:
        left = None if context is None else context.remaining()
        if not self._ended.acquire(True, -1 if left is None else min(left, LONGEST)):
            self.expire(None if context is None else context.seconds)
            self._ended.acquire()
        problem, self._problem = self._problem, None  # or they would hold each other
        if problem is None:
            return self.value
        if _is_cancellation(problem):
            raise CallCancelled("its caller no longer waits", "maybe") from None
        raise problem


def _is_cancellation(problem: BaseException) -> bool:
    import asyncio

    return isinstance(problem, (CancelledError, asyncio.CancelledError))


class Place:
    """Runs functions of the application for something in this process that waits for them, one call
    at a time.

    :param executor: where they run; None for the calling thread.
    :param loop: gives the loop for coroutines, where the executor is not an event loop.
    :ivar thread: the thread in which a function ran last; None before the first one.
    :ivar lane: the same object for all places whose functions run one after the other.
    """

    def __init__(self, executor: Optional[ExecutorOrLoop],
                 loop: Callable[[], AbstractEventLoop]) -> None:
        self.thread: Optional[threading.Thread] = None
        self.lane: object = Coroutines if executor is None else executor
        self._executor = executor
        self._loop = loop
        self._scope = Context(Caller(None, None))

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function, and the coroutine if it returns one, and wait for the result.

        :raises NotTaken: the executor takes nothing; the function did not run.
        :raises CallCancelled: it was ended before the function began.
        """
        if self._executor is None:
            result = self._begin(function, args, kwargs)
        else:
            result = run_in(self._executor, self._scope, self._begin, (function, args, kwargs), {},
                            function)
        if type(result) is types.CoroutineType:
            loop = self._executor if is_event_loop(self._executor) else self._loop()
            result = run_coroutine(loop, None, self._await(result))
        return result

    def _begin(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self.thread = threading.current_thread()
        return function(*args, **kwargs)

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self.thread = threading.current_thread()
        return await coroutine

    def end(self) -> None:
        """Let what has not begun never run, and wake the threads that wait for it."""
        self._scope.cancel()


def wait_for(future: Future[Any], context: Optional[Context]) -> Any:
    """The result of a future, as long as the caller waits.

    :raises CallCancelled: its caller no longer waits.
    :raises CallTimeout: its time is over.
    """
    if context is None:
        return future.result()
    context.add_ending(future.cancel)
    try:
        return future.result(context.remaining())
    except CancelledError:
        raise CallCancelled("its caller no longer waits", "maybe") from None
    except FutureTimeout:
        if future.done():  # it is what the function raised
            raise
        ran = "no" if future.cancel() else "maybe"
        raise Overdue(None, context.seconds or 0.0, ran) from None
    finally:
        context.remove_ending(future.cancel)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))
