"""How a function is called, by what kind of function it is."""
from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from ..identity import Flag, PeerArgument
from ..process import Process
from ..run.client import FlagHandler

if TYPE_CHECKING:
    from ..executors import ExecutorOrLoop, Place

#: Runs a function of a tag on a peer: ``way(peer, tag, args, kwargs, timeout)``.
Way = Callable[[PeerArgument, bytes, Tuple[Any, ...], Dict[str, Any], Optional[float]], Any]
#: The kinds of functions.
PLAIN, COROUTINE, GENERATOR, ASYNC_GENERATOR = "function", "coroutine", "generator", "async"


def kind_of(function: Optional[Callable[..., Any]]) -> str:
    """The kind of a function, which decides what calling it gives."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)):
        return COROUTINE
    if inspect.isasyncgenfunction(function):
        return ASYNC_GENERATOR
    return GENERATOR if inspect.isgeneratorfunction(function) else PLAIN


def way_of(process: Process, function: Any, handle_flag: FlagHandler) -> Way:
    """How a function like this one is called on a peer, so that the caller gets what a local call
    gives: a value, a coroutine, a generator or an async generator."""
    kind = kind_of(function)
    if kind in (COROUTINE, ASYNC_GENERATOR):
        # Now rather than at its first call: a thread of ours may lack the descriptors then, and
        # what Python has failed to load once it does not always load again.
        import asyncio  # noqa: F401

        from .. import executors  # noqa: F401
    if kind == COROUTINE:
        return _awaited(process, handle_flag)
    if kind == ASYNC_GENERATOR:
        def stream_async(peer: PeerArgument, tag: bytes, args: Tuple[Any, ...],
                         kwargs: Dict[str, Any], timeout: Optional[float]) -> Any:
            from . import aio

            return aio.stream(process.client, peer, tag, args, kwargs, timeout)
        return stream_async
    if kind == GENERATOR:
        return process.client.stream
    # No Python function around it: every call takes this way.
    return functools.partial(process.client.run, handle_flag)


def place_of(process: Process, function: Callable[..., Any],
             executor: Optional[ExecutorOrLoop]) -> Optional[Place]:
    """Where this process runs a function of the application that it calls itself, such as a
    handler; None for the thread that calls it.

    :raises TypeError: neither an executor nor an event loop.
    """
    if executor is None and kind_of(function) != COROUTINE:
        return None
    from .. import executors  # few need it

    executors.check_executor(executor)
    return executors.Place(executor, process.event_loop)


def _awaited(process: Process, handle_flag: FlagHandler) -> Way:
    call: Any = None

    async def await_there(peer: PeerArgument, tag: bytes, args: Tuple[Any, ...],
                          kwargs: Dict[str, Any], timeout: Optional[float]) -> Any:
        nonlocal call
        if call is None:  # an import statement would take microseconds of each call
            from . import aio  # asyncio is loaded only by programs that await

            call = aio.call
        result = await call(process.client, peer, tag, args, kwargs, timeout)
        return result if type(result) is not Flag else handle_flag(result, tag, peer)
    return await_there
