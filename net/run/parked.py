"""Connections that the loop of coroutines keeps between calls, while their threads sleep.

Waking a thread to read a call, handing the call to the loop, and waking the thread again when it
was answered would take longer than the rest of a small call. So once the loop has answered a call,
it looks for the next one itself. It runs plain calls of coroutine functions; anything else that
comes wakes the thread, which goes on with it.
"""
from __future__ import annotations

import threading
from collections import defaultdict
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, DefaultDict, Iterable, List, Optional, Protocol, Set

from ..context import Context
from ..dispatch import Came, Dispatch, Replied, Running, Tally
from ..errors import NetError
from ..link.streams import DONT_WAIT, Stream
from ..wire.frames import FIRST
from ..wire.session import Session

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from ..executors import Run

# Bytes of a call that the loop reads itself.
SMALL = 4096
# Seconds between checks that a loop which was asked for something is still there.
LOOK = 0.5


class Connection(Protocol):
    """What is needed of a connection to keep it, see
    :class:`~.server_connection.ServerConnection`."""

    stream: Stream
    context: Context
    tally: Tally
    ending: Optional[NetError]

    def begin_call(self, call: int) -> None:
        """Note that the call with this number runs now."""

    def end_call(self) -> None:
        """Note that its call has ended."""


class Parked:
    """Keeps one connection in a loop. It is made in the connection's thread; all else happens in
    the loop's, unless stated otherwise.

    :ivar loop: the one that has kept the connection last; None before.
    """

    def __init__(self, connection: Connection, session: Session, dispatch: Dispatch) -> None:
        self.loop: Any = None
        self._connection = connection
        self._session = session
        self._dispatch = dispatch
        self._number = connection.stream.sock.fileno()
        # The context variables that a coroutine sets are not the next call's.
        self._home = copy_context()
        # Whether the loop looks for what comes.
        self._is_looking = False
        # The run for which the thread sleeps, while nothing else runs. Popped, which is atomic, by
        # what goes on: the loop with a call, or the thread.
        self._idle: List[Run] = []
        # That run while a call runs, the call, and the timer of its deadline.
        self._first: Optional[Run] = None
        self._running: Optional[Running] = None
        self._timer: Optional[TimerHandle] = None

    def keep(self, run: Run) -> bool:
        """Whether the loop keeps the connection after the end of a coroutine that the thread has
        begun; the ``keep`` of :class:`~net.executors.Run`. In any thread."""
        return _was_answered(run) and not self._session.rest and self._wait(run)

    def _wait(self, first: Run) -> bool:
        """Wait for the next call; False if that is left to the thread."""
        connection = self._connection
        if first.loop is not self.loop:
            self.loop, self._is_looking = first.loop, False
            connection.context.add_ending(self._cancel)
        if not self._is_looking:
            try:
                self._home.run(self.loop.add_reader, self._number, self._read)
            except Exception:  # not every loop can look at sockets
                return False
            self._is_looking = True
        connection.end_call()
        self._idle.append(first)
        return True

    def _read(self) -> None:
        try:
            first = self._idle.pop()
        except IndexError:
            self._look_no_more()  # something runs, or the thread has it
            return
        try:
            data = self._connection.stream.sock.recv(FIRST, DONT_WAIT)
        except (BlockingIOError, InterruptedError):
            self._idle.append(first)
            return
        except OSError:
            data = b""  # as the thread finds out
        if not self._run(first, data):
            self._wake(first, Came(data))

    def _run(self, first: Run, data: bytes) -> bool:
        """Begin the call that has come; False if that is left to the thread."""
        connection = self._connection
        context = connection.context
        frame = self._session.whole_call(data) if len(data) <= SMALL else None
        if frame is None or connection.ending is not None or context.cancelled:
            return False
        running = self._dispatch.prepare(frame, context, connection.tally, self.loop, self._end)
        if running is None:
            return False
        connection.begin_call(running.number)
        self._first, self._running = first, running
        running.run.begin()
        if context.deadline is not None:
            self._timer = self.loop.call_later(context.remaining(), running.run.expire,
                                               context.seconds)
        return True

    def _end(self, run: Run) -> bool:
        """Go on after the end of a call that the loop has begun."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first, running = self._first, self._running
        self._first = self._running = None
        assert first is not None
        if not _was_answered(run):
            self._wake(first, running)
        elif not self._wait(first):
            self._wake(first, Came(b""))
        return False

    def _wake(self, first: Run, value: Any) -> None:
        self._look_no_more()
        first.release(value)

    def _look_no_more(self) -> None:
        if self._is_looking:
            self._is_looking = False
            self.loop.remove_reader(self._number)

    def _cancel(self) -> None:
        """End the call that runs; any thread may call."""
        try:
            self.loop.call_soon_threadsafe(self._cancel_running)
        except RuntimeError:
            pass  # the loop is closed

    def _cancel_running(self) -> None:
        if self._running is not None:
            self._running.run.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether the loop waits for the next call."""
        return bool(self._idle)

    def take_back(self) -> None:
        """Let the thread read the next call, whatever the loop does. Any thread may call."""
        try:
            first = self._idle.pop()
        except IndexError:
            return  # it has it, or something runs
        first.release(Came(b""))

    def leave(self) -> None:
        """Wait until the loop has forgotten the socket. The connection's thread calls."""
        left = threading.Event()

        def leave() -> None:
            self._look_no_more()
            left.set()
        if self._is_looking:
            try:
                self.loop.call_soon_threadsafe(leave)
            except RuntimeError:
                return  # it is closed
            while not left.wait(LOOK) and not self.loop.is_closed():
                pass


def _was_answered(run: Run) -> bool:
    """Whether the reply of a coroutine that has ended was sent, with nothing left of it."""
    return type(run.value) is Replied and not run.value.left


class LoopWatch:
    """Finds loops that are held up or have ended, and has the threads of the connections that they
    keep go on."""

    def __init__(self) -> None:
        # Loops that have not answered since they were asked.
        self._silent: Set[AbstractEventLoop] = set()

    def look(self, connections: Iterable[Parked]) -> None:
        """Ask each loop for a sign of life; where it gives none until the next look, the threads of
        its connections take over. Called now and then."""
        by_loop: DefaultDict[AbstractEventLoop, List[Parked]] = defaultdict(list)
        for parked in connections:
            if parked.is_idle:
                by_loop[parked.loop].append(parked)
        for loop, kept in by_loop.items():
            if not self._answers(loop):
                for parked in kept:
                    parked.take_back()

    def _answers(self, loop: AbstractEventLoop) -> bool:
        if loop in self._silent:
            return False
        self._silent.add(loop)
        try:
            loop.call_soon_threadsafe(self._silent.discard, loop)
        except RuntimeError:  # it is closed
            self._silent.discard(loop)
            return False
        return True
