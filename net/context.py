"""The running call: which peer made it, how much time it has, and whether its caller is still
waiting."""
from __future__ import annotations

import threading
from contextvars import ContextVar
from time import monotonic
from typing import Any, Callable, List, NamedTuple, Optional

from .errors import Address, CallTimeout


class Caller(NamedTuple):
    """The peer that made the running call.

    :ivar address: ``(host, port)`` that the call came from; not where that peer serves. None where
        it came from a process of this host over a Unix socket.
    :ivar group: the group that the caller claims, or, under certificates, that of its certificate;
        None for no group.
    :ivar instance: the random id that the calling process gives of itself, the same as in its
        ``net.info``; None if it gives none, and for the publisher of an event.
    """

    address: Optional[Address]
    group: Optional[str]
    instance: Optional[str] = None


class Overdue(CallTimeout):
    """The time of a call is over, as this side has noticed: it was not raised by a function."""


class Context:
    """The call that a thread, a coroutine or a generator works for, and what ends it.

    :ivar caller: the peer that made it.
    :ivar server: the server that it came to.
    :ivar dialect: the old dialect that it came in; empty for ours.
    :ivar seconds: the time limit of its caller; None for no limit.
    :ivar deadline: monotonic time after which its caller no longer waits; None for no limit.
    :ivar cancelled: whether the caller has given it up.
    :ivar borrow: makes the stand-in for an argument that the caller lends; None where lending is
        impossible.
    :ivar send_at_once: sends a reply from a thread other than the one that serves the call, if the
        reply is small and can leave without waiting; returns whether it did. None where that is
        impossible.
    :ivar keeper: gives a function that lets the loop of a coroutine keep the connection after it
        has answered the call: the ``keep`` of :class:`~.executors.Run`. None where that is
        impossible.
    """

    def __init__(self, caller: Caller, server: object = None) -> None:
        self.caller = caller
        self.server = server
        self.dialect = ""
        self.seconds: Optional[float] = None
        self.deadline: Optional[float] = None
        self.cancelled = False
        self.borrow: Optional[Callable[[Any], Any]] = None
        self.send_at_once: Optional[Callable[[Any], bool]] = None
        self.keeper: Optional[Callable[[], Callable[[Any], bool]]] = None
        self._lock = threading.Lock()  # guards cancelled and _endings
        self._endings: List[Callable[[], object]] = []

    def of_one_call(self) -> Context:
        """A context for the running call alone, whose function may outlast it: this one goes on
        to the next call of the connection. Cancelling this one does not cancel the new one."""
        one = Context(self.caller, self.server)
        one.dialect, one.seconds, one.deadline = self.dialect, self.seconds, self.deadline
        return one

    def cancel(self) -> None:
        """Mark the call as given up by its caller, and end whatever it waits for. Any thread may
        call."""
        with self._lock:
            if self.cancelled:
                return
            self.cancelled = True
            endings, self._endings = self._endings, []
        for end in endings:
            end()

    def add_ending(self, end: Callable[[], object]) -> None:
        """Have a function called, from any thread, when the call is cancelled; at once if it
        already was."""
        with self._lock:
            if not self.cancelled:
                self._endings.append(end)
                return
        end()

    def remove_ending(self, end: Callable[[], object]) -> None:
        """Undo :meth:`add_ending`; does nothing if the function was called meanwhile."""
        with self._lock:
            if end in self._endings:
                self._endings.remove(end)

    def remaining(self) -> Optional[float]:
        """Seconds until the deadline; 0 once it has passed, None for no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def is_over(self) -> bool:
        """Whether the caller no longer waits for the result."""
        return self.cancelled or self.deadline is not None and monotonic() >= self.deadline


_current: ContextVar[Optional[Context]] = ContextVar("net_call", default=None)

#: The context of the running code; None where no call is served.
current: Callable[[], Optional[Context]] = _current.get
#: Put the running thread or coroutine into the context of a call or, with None, of none.
enter: Callable[[Optional[Context]], object] = _current.set


def caller() -> Optional[Caller]:
    """The peer that made the running call; None if it was made in this process.

    It is known in a served function, coroutine or generator, and in the handler of an event, where
    it is the publisher. A thread that such a function starts belongs to no call.
    """
    context = _current.get()
    return None if context is None else context.caller


def remaining() -> Optional[float]:
    """Seconds that the caller will still wait for the running call: None if there is no limit or
    the call was made in this process, 0.0 once its time is over."""
    context = _current.get()
    return None if context is None else context.remaining()


def cancelled() -> bool:
    """Whether the caller no longer waits for the running call: it was cancelled, its time is over,
    or its caller has gone. A function that takes long should check this now and then. False in a
    local call.

    A caller that has gone is noticed within half a second.
    """
    context = _current.get()
    return context is not None and context.is_over()
