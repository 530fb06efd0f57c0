"""Runs a generator whose items are streamed: in the connection's thread, an executor or a loop."""
from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Callable, List, Tuple

from ..context import Context, Overdue, cancelled
from ..dispatch import Stream, encode_error, log_failure
from ..errors import MessageTooLarge, NetError, PeerBusy, ValueNotSupported
from ..settings import settings
from ..wire.frames import Buffer
from ..wire.messages import encode_end, encode_refusal
from .streaming import ItemSender

if TYPE_CHECKING:
    from ..executors import ExecutorOrLoop


def send_items(sender: ItemSender, stream: Stream, context: Context) -> List[Buffer]:
    """Send all items of a generator, and return the frame that ends the stream.

    When the consumer takes no more, the generator is closed, and its ``finally`` runs.
    """
    try:
        if inspect.isasyncgen(stream.generator):
            _send_async(sender, stream, context)
            value = None
        else:
            value = _send(sender, stream, context)
        return encode_end(stream.number, value, settings.limits)
    except _Unsent as unsent:
        return encode_refusal(stream.number, unsent.problem)
    except Overdue as problem:
        problem.ran = "maybe"  # if this step did not, those before it did
        return encode_error(stream.number, stream.tag, problem)
    except (ValueNotSupported, MessageTooLarge) as problem:  # what it returned
        problem.ran = "yes"
        return encode_refusal(stream.number, problem)
    except BaseException as error:  # SystemExit too: it must not end this thread
        return encode_error(stream.number, stream.tag, error)


class _Unsent(Exception):
    """An item cannot travel."""

    def __init__(self, problem: NetError) -> None:
        super().__init__()
        problem.ran = "yes"
        self.problem = problem


def _send(sender: ItemSender, stream: Stream, context: Context) -> Any:
    generator, executor = stream.generator, stream.executor
    try:
        while True:
            if executor is None:
                there_is, item = _step(generator)
            else:
                from ..executors import run_in

                there_is, item = run_in(executor, context, _step_elsewhere, (generator,), {})
            if not there_is:
                return item
            try:
                sender.put(item)
            except (ValueNotSupported, MessageTooLarge) as problem:
                raise _Unsent(problem) from None
    finally:
        if executor is None:
            generator.close()
        elif generator.gi_frame is not None and not generator.gi_running:
            _close_in(executor, stream, context)


def _close_in(executor: ExecutorOrLoop, stream: Stream, context: Context) -> None:
    """Let the ``finally`` of a generator run where the rest of it does. An executor may never get
    to that, so this does not wait for it."""
    from ..executors import submit

    own = context.of_one_call()
    own.cancel()
    try:
        submit(executor, own, _close, stream)
    except PeerBusy:  # it was shut down meanwhile
        _close(stream)


def _close(stream: Stream) -> None:
    try:
        stream.generator.close()
    except BaseException as error:
        log_failure(stream.tag, error)


def _step(generator: Any) -> Tuple[bool, Any]:
    """Whether there is another item; and that item, or what the generator returned."""
    try:
        return True, next(generator)
    except StopIteration as end:
        return False, end.value


def _step_elsewhere(generator: Any) -> Tuple[bool, Any]:
    found = _step(generator)
    if cancelled():  # nobody waits for this step any more
        generator.close()
    return found


def _put(sender: ItemSender, item: Any, listener: Callable[[], object]) -> bool:
    try:
        return sender.put_if_room(item, listener)
    except (ValueNotSupported, MessageTooLarge) as problem:
        raise _Unsent(problem) from None


def _send_async(sender: ItemSender, stream: Stream, context: Context) -> None:
    import asyncio

    from ..executors import run_coroutine

    async def send() -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        try:
            async for item in stream.generator:
                while not _put(sender, item, lambda: loop.call_soon_threadsafe(room.set)):
                    await room.wait()
                    room.clear()
        finally:
            await stream.generator.aclose()
    run_coroutine(stream.loop(), context, send())
