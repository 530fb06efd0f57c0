"""Runs the handlers of this process, one after the other, in a thread of their own."""
from __future__ import annotations

import copy
import functools
import threading
from collections import deque
from time import perf_counter
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Tuple

from ..context import Caller, Context, enter
from ..dispatch import Tally
from ..errors import Address
from ..settings import MIB

# Events and bytes that wait for the handlers. With more, no further ones are received, and then the
# queues of the publishers fill.
MAX_EVENTS = 1000
MAX_BYTES = 8 * MIB


class Hearer(NamedTuple):
    """A handler that is to be called.

    :ivar tag: under which it is counted.
    :ivar failed: called with what it raised.
    """

    function: Callable[..., Any]
    tag: bytes
    failed: Callable[[BaseException], None]


class Job(NamedTuple):
    """An event, or a gap, for all that hear it.

    :ivar address: of the publisher.
    """

    hearers: List[Hearer]
    args: Any
    kwargs: Any
    address: Address


#: ``Job._make`` without its function in Python.
make_job: Callable[[Any], Job] = functools.partial(tuple.__new__, Job)


class Runner:
    """A queue of jobs and a thread that does them. Any thread may call.

    :param on_room: called in that thread when there is room again after :meth:`put` said that there
        was none left.
    :ivar tally: calls, errors and seconds of each tag.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.tally = Tally()
        self._on_room = on_room
        # Guards what follows, and is notified when any of it changes.
        self._changed = threading.Condition()
        self._queue: Deque[Tuple[List[Job], int, Optional[Callable[[], None]]]] = deque()
        self._events = self._bytes = 0
        self._full = False
        self._thread: Optional[threading.Thread] = None
        self._stopping = False
        # The publisher of the event that the thread works on.
        self._publisher: Optional[Address] = None

    def put(self, jobs: List[Job], size: int, done: Optional[Callable[[], None]] = None) -> bool:
        """Queue the jobs of one frame. Never waits.

        :param size: bytes of the frame.
        :param done: called when they are done and their values are freed.
        :returns: whether there is room for more.
        :raises RuntimeError: no thread can be started.
        """
        with self._changed:
            self._stopping = False
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="net-handlers", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.append((jobs, size, done))
            self._events += len(jobs)
            self._bytes += size
            self._full = not self.has_room
            self._changed.notify_all()
            return not self._full

    @property
    def has_room(self) -> bool:
        """Whether more may be put in."""
        return self._events < MAX_EVENTS and self._bytes < MAX_BYTES

    def stop(self) -> None:
        """Let the thread end when the queue is empty. The next job starts another."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _run(self) -> None:
        self._publisher = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    self._thread = None
                    return
                jobs, size, done = self._queue.popleft()
            count = len(jobs)
            for job in jobs:
                self._do(job)
            jobs = job = None  # type: ignore[assignment]
            if done is not None:
                done()
            with self._changed:
                self._events -= count
                self._bytes -= size
                has_room = self._full and self.has_room
                if has_room:
                    self._full = False
            if has_room:
                self._on_room()

    def _do(self, job: Job) -> None:
        hearers, args, kwargs, address = job
        if address != self._publisher:
            self._publisher = address
            enter(Context(Caller(address, None)))
        # A handler's changes to its arguments must not reach the next one.
        others = [(hearer, self._copy(hearer, job)) for hearer in hearers[1:]] \
            if len(hearers) > 1 else ()
        self._call(hearers[0], args, kwargs)
        for hearer, arguments in others:
            if arguments is not None:
                self._call(hearer, *arguments)

    def _copy(self, hearer: Hearer, job: Job) -> Any:
        try:
            return copy.deepcopy((job.args, job.kwargs))
        except BaseException as problem:
            self._report(hearer, problem)
            return None

    def _call(self, hearer: Hearer, args: Any, kwargs: Any) -> None:
        function, tag, _ = hearer
        began = perf_counter()
        try:
            function(*args, **kwargs)
        except BaseException as problem:  # SystemExit too: it must not end this thread
            self.tally.add(tag, True, perf_counter() - began)
            self._report(hearer, problem)
        else:
            self.tally.add(tag, False, perf_counter() - began)

    @staticmethod
    def _report(hearer: Hearer, problem: BaseException) -> None:
        try:
            hearer.failed(problem)
        except BaseException:
            pass  # it may do anything when it is looked at
