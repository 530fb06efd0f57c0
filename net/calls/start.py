"""Started calls: futures. They run on an event loop of their own, without a thread for each."""
from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Callable, Dict, Generator, Iterable, List, Optional, Tuple, TypeVar

from ..context import Context, current
from ..errors import NetError
from ..executors import Coroutines
from ..identity import PeerArgument, address_of
from ..log import SafeLog
from ..run.client import Client
from . import aio

log = SafeLog("net.calls")

T = TypeVar("T")

# Seconds to wait for connections that no call needs yet.
CONNECT_TIME = 1.0


class Call(Future[T]):
    """A call that was started: a :class:`concurrent.futures.Future`, which can also be awaited.

    As long as its result has not come, ``cancel()`` cancels the call there, and the future at once;
    it is not known then whether the function has run. A failure whose result is never asked for is
    logged.

    :ivar peer: that was called, as it was given; None for this process.
    """

    def __init__(self, peer: Optional[PeerArgument],
                 loop: Optional[asyncio.AbstractEventLoop] = None) -> None:
        super().__init__()
        self.peer = peer
        self._loop = loop
        self._observed = False

    def check_wait(self) -> None:
        """Refuse to wait where nothing else could go on.

        :raises RuntimeError: a coroutine would block the very loop that the call needs.
        """
        if not self.done() and self._loop is not None \
                and asyncio._get_running_loop() is self._loop:
            raise RuntimeError("a coroutine that net runs has to await a started call: to wait "
                               "for it would block the loop that both need")

    def result(self, timeout: Optional[float] = None) -> T:
        """The value, or what the function raised; waits for it, at most ``timeout`` seconds."""
        self._observed = True
        self.check_wait()
        return super().result(timeout)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """What the function raised, None if it has a value; waits as :meth:`result` does."""
        self._observed = True
        self.check_wait()
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Have a function called with the call when it has ended, from any thread."""
        self._observed = True
        super().add_done_callback(fn)

    def watch(self, fn: Callable[[Any], Any]) -> None:
        """:meth:`add_done_callback` for callers that do not read the result."""
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()

    def __del__(self) -> None:
        if self._observed or not self.done() or self.cancelled():
            return
        problem = super().exception(0)
        if problem is not None:
            log(logging.ERROR, "a started call failed, and nobody has asked for its result: %s",
                self.peer, exc_info=problem)

    def __repr__(self) -> str:
        return f"<net.Call on {self.peer!r}: {self._state.lower()}>"


def start(client: Client, coroutines: Coroutines, peers: Iterable[PeerArgument], tag: bytes,
          args: Tuple[Any, ...], kwargs: Dict[str, Any],
          timeout: Optional[float] = None,
          finish: Optional[Callable[[Any, Any], Any]] = None) -> List[Call[Any]]:
    """Start a call on each of some peers and return at once.

    :param finish: makes the result from the peer and its reply, as the handler of a flag does.
    :raises InvalidPeer: not a peer. Nothing was started.
    :raises PeerBusy: no thread can be started.
    """
    asked = list(peers)
    for peer in asked:
        address_of(peer)
    loop = client.own_loop = coroutines.loop()
    calls: List[Call[Any]] = [Call(peer, loop) for peer in asked]
    for call in calls:
        call.watch(_tell_those_that_wait)
    context = current()
    if context is not None:
        for call in calls:
            _end_with(context, call)
    tasks = client.started

    def begin() -> None:
        for call in calls:
            if not call.cancelled():
                task = loop.create_task(_run(loop, call, (client, call.peer, tag, args, kwargs,
                                                          timeout), finish))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    loop.call_soon_threadsafe(begin)  # waking it for each would take longer
    return calls


def connect(client: Client, coroutines: Coroutines, peers: Iterable[PeerArgument]) -> None:
    """Open a connection to each of some peers, for calls that are started next. Waits for them,
    about a second at most, unless that would block an event loop. Nothing is raised for a peer that
    cannot be reached: its call will say so."""
    loop = client.own_loop = coroutines.loop()
    tasks = client.started

    async def one(peer: PeerArgument) -> None:
        with suppress(NetError, OSError):
            await aio.connect(client, peer)

    async def all_of_them() -> None:
        made = [loop.create_task(one(peer)) for peer in peers]
        for task in made:  # they go on when the time is over
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if made:
            await asyncio.wait(made, timeout=CONNECT_TIME)

    connecting = asyncio.run_coroutine_threadsafe(all_of_them(), loop)
    if asyncio._get_running_loop() is None:
        wait([connecting], 2 * CONNECT_TIME)  # or less, if that loop ends


def _tell_those_that_wait(call: Call[Any]) -> None:
    """A call has ended. If it was cancelled, tell :func:`concurrent.futures.wait` and
    :func:`~concurrent.futures.as_completed`, as the executor of a future has to."""
    if call.cancelled():
        call.set_running_or_notify_cancel()


def _end_with(context: Context, call: Call[Any]) -> None:
    """Cancel a call when the served call is cancelled that makes it."""
    context.add_ending(call.cancel)
    call.watch(lambda done: context.remove_ending(call.cancel))


async def _run(loop: asyncio.AbstractEventLoop, call: Call[Any], what: Tuple[Any, ...],
               finish: Optional[Callable[[Any, Any], Any]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    call.watch(lambda done: done.cancelled() and loop.call_soon_threadsafe(task.cancel))
    try:
        result = await aio.call(*what)
        result = result if finish is None else finish(call.peer, result)
    except asyncio.CancelledError:
        call.cancel()
        raise
    except BaseException as problem:
        _settle(call.set_exception, problem)
    else:
        _settle(call.set_result, result)


def start_here(coroutines: Coroutines, function: Callable[..., Any], args: Tuple[Any, ...],
               kwargs: Dict[str, Any]) -> Call[Any]:
    """Start a local call, in a thread of the loop's.

    :raises PeerBusy: no thread can be started.
    """
    loop = coroutines.loop()
    call: Call[Any] = Call(None, loop)

    def run() -> None:
        if not call.set_running_or_notify_cancel():
            return
        try:
            result = function(*args, **kwargs)
            if asyncio.iscoroutine(result):
                result = asyncio.run_coroutine_threadsafe(result, loop).result()
        except BaseException as problem:
            call.set_exception(problem)
        else:
            call.set_result(result)
    loop.call_soon_threadsafe(lambda: loop.run_in_executor(None, run))
    return call


def _settle(put: Callable[[Any], None], value: Any) -> None:
    try:
        put(value)
    except Exception:
        pass  # it was cancelled at this very moment
