"""Runs the handlers of this process, one after the other, in a thread of their own."""
from __future__ import annotations

import threading
from collections import deque
from time import perf_counter
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Tuple

from ..context import Caller, Context, enter
from ..dispatch import Tally
from ..settings import MIB
from ..errors import Address

# Events and bytes that wait for the handlers. With more, the publishers' deliveries wait, and then
# their queues fill.
MAX_EVENTS = 1000
MAX_BYTES = 8 * MIB


class Job(NamedTuple):
    """A handler and what to call it with.

    :ivar tag: under which it is counted.
    :ivar address: of the publisher.
    :ivar failed: called with what it raised.
    """

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    tag: bytes
    address: Address
    failed: Callable[[BaseException], None]


class Runner:
    """A queue of jobs and a thread that does them. Any thread may call.

    :ivar tally: calls, errors and seconds of each tag.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        # Guards what follows, and is told when any of it changes.
        self._changed = threading.Condition()
        self._queue: Deque[Tuple[List[Job], int]] = deque()
        self._events = self._bytes = 0
        self._thread: Optional[threading.Thread] = None
        self._stopping = False

    def put(self, jobs: List[Job], size: int) -> None:
        """Queue the jobs of one delivery; waits while the queue is full.

        :param size: bytes of the delivery.
        :raises RuntimeError: no thread can be started.
        """
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._stopping = False
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="net-handlers", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.append((jobs, size))
            self._events += len(jobs)
            self._bytes += size
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._events < MAX_EVENTS and self._bytes < MAX_BYTES

    def stop(self) -> None:
        """Let the thread end when the queue is empty. The next job starts another."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    self._thread = None
                    return
                jobs, size = self._queue.popleft()
            for job in jobs:
                self._do(job)
            with self._changed:
                self._events -= len(jobs)
                self._bytes -= size
                self._changed.notify_all()

    def _do(self, job: Job) -> None:
        enter(Context(Caller(job.address, None)))
        began = perf_counter()
        try:
            job.function(*job.args, **job.kwargs)
        except BaseException as problem:  # SystemExit too: it must not end this thread
            self.tally.add(job.tag, True, perf_counter() - began)
            job.failed(problem)
        else:
            self.tally.add(job.tag, False, perf_counter() - began)
