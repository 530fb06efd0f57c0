"""Runs the handlers of this process: one after the other in a thread of their own, and those that
run elsewhere beside them, one after the other for each executor."""
from __future__ import annotations

import copy
import functools
import threading
from collections import deque
from time import monotonic, perf_counter
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple

from ..context import Caller, Context, enter
from ..dispatch import Tally
from ..errors import Address
from ..settings import MIB

# Events and bytes that wait for the handlers. With more, no further ones are received, and then the
# queues of the publishers fill.
MAX_EVENTS = 1000
MAX_BYTES = 8 * MIB
# Seconds in which an executor has to do something. If it does nothing, what waits for it is given
# up when there is no room left: the other handlers must not starve.
STUCK_TIME = 10.0
# Seconds that the thread of an executor waits for more.
IDLE_TIME = 5.0


class Hearer(NamedTuple):
    """A handler that is to be called.

    :ivar tag: the tag under which its calls are counted.
    :ivar failed: called with what it raised.
    :ivar executor: the executor that it runs in; None for the thread of all handlers.
    :ivar missed: called with a number of events that were given up, where it would have run; None
        for what is never given up.
    """

    function: Callable[..., Any]
    tag: bytes
    failed: Callable[[BaseException], None]
    executor: object = None
    missed: Optional[Callable[[int], Any]] = None


class Job(NamedTuple):
    """An event, or a gap, for all that hear it.

    :ivar address: that of the publisher.
    """

    hearers: List[Hearer]
    args: Any
    kwargs: Any
    address: Address


#: ``Job._make`` without its function in Python.
make_job: Callable[[Any], Job] = functools.partial(tuple.__new__, Job)


class _Frame:
    """The jobs of one frame.

    :ivar left: how many threads are not done with it yet.
    """

    __slots__ = ("jobs", "events", "size", "done", "left")

    def __init__(self, jobs: List[Job], size: int, done: Optional[Callable[[], None]]) -> None:
        self.jobs = jobs
        self.events = len(jobs)
        self.size = size
        self.done = done
        self.left = 1


class _Part(NamedTuple):
    """What one hearer is called with, of a frame; None for a number of events that it missed."""

    frame: Optional[_Frame]
    hearer: Hearer
    args: Any
    kwargs: Any
    address: Address


class _Lane:
    """What waits for one executor.

    :ivar since: monotonic time at which its thread last went on.
    :ivar missed: tag and publisher -> the part in the queue that stands for the events that were
        given up.
    """

    def __init__(self) -> None:
        self.queue: Deque[_Part] = deque()
        self.since = monotonic()
        self.missed: Dict[Tuple[bytes, Address], _Part] = {}


class Runner:
    """A queue of jobs and a thread that does them. Any thread may call.

    What runs in an executor is handed to a thread for that executor, which waits for it.

    :param on_room: called in such a thread when there is room again after :meth:`put` said that
        there was none left.
    :ivar tally: calls, errors and seconds of each tag.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.tally = Tally()
        self._on_room = on_room
        # Guards what follows and the tally, and is notified when any of it changes.
        self._changed = threading.Condition()
        self._queue: Deque[_Frame] = deque()
        # By the identity of an executor.
        self._lanes: Dict[int, _Lane] = {}
        self._events = self._bytes = 0
        self._full = False
        self._thread: Optional[threading.Thread] = None
        self._stopping = False

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
            self._queue.append(_Frame(jobs, size, done))
            self._events += len(jobs)
            self._bytes += size
            self._full = not self.has_room
            self._changed.notify_all()
            return not self._full

    @property
    def has_room(self) -> bool:
        """Whether more may be put in."""
        return self._events < MAX_EVENTS and self._bytes < MAX_BYTES

    def make_room(self) -> None:
        """If there is no room, give up what waits for executors that do nothing."""
        now, given_up = monotonic(), []
        with self._changed:
            if not self.has_room:
                for lane in self._lanes.values():
                    if now - lane.since > STUCK_TIME:
                        given_up += self._give_up(lane)
        for frame in given_up:
            self._finish(frame)

    def _give_up(self, lane: _Lane) -> List[_Frame]:
        """Count what waits for an executor as missed."""
        waiting, frames = list(lane.queue), []
        lane.queue.clear()
        for part in waiting:
            frame, hearer, args, kwargs, address = part
            if frame is None or hearer.missed is None:
                lane.queue.append(part)
                continue
            frames.append(frame)
            key = hearer.tag, address
            if key not in lane.missed:
                lane.missed[key] = _Part(None, hearer, [0], {}, address)
                lane.queue.append(lane.missed[key])
            lane.missed[key].args[0] += 1
        return frames

    def stop(self) -> None:
        """Let the threads end when nothing is queued. The next job starts others."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    # ------------------------------------------------------------------ in the thread of all

    def _run(self) -> None:
        publisher: Optional[Address] = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    self._thread = None
                    return
                frame = self._queue.popleft()
            for job in frame.jobs:
                if job.address != publisher:
                    publisher = job.address
                    enter(Context(Caller(publisher, None)))
                self._do(frame, job)
            frame.jobs = job = None  # type: ignore[assignment]
            self._finish(frame)

    def _finish(self, frame: _Frame) -> None:
        """A thread is done with what it had of a frame."""
        with self._changed:
            frame.left -= 1
            if frame.left:
                return
        if frame.done is not None:
            frame.done()
        with self._changed:
            self._events -= frame.events
            self._bytes -= frame.size
            has_room = self._full and self.has_room
            if has_room:
                self._full = False
        if has_room:
            self._on_room()

    def _do(self, frame: _Frame, job: Job) -> None:
        hearers, args, kwargs, address = job
        # A handler's changes to its arguments must not reach the next one.
        parts = [(hearers[0], (args, kwargs))]
        parts += [(hearer, self._copy(hearer, job)) for hearer in hearers[1:]]
        for hearer, arguments in parts:
            if hearer.executor is not None and arguments is not None:
                self._hand_over(_Part(frame, hearer, *arguments, address))
        for hearer, arguments in parts:
            if hearer.executor is None and arguments is not None:
                self._call(hearer, *arguments)

    def _copy(self, hearer: Hearer, job: Job) -> Any:
        try:
            return copy.deepcopy((job.args, job.kwargs))
        except BaseException as problem:
            self._report(hearer, problem)
            return None

    def _hand_over(self, part: _Part) -> None:
        """Have a part done by the thread for its executor."""
        executor, frame = part.hearer.executor, part.frame
        assert frame is not None
        problem: Optional[BaseException] = None
        with self._changed:
            lane = self._lanes.get(id(executor)) or _Lane()
            if not lane.queue:
                lane.since = monotonic()
            if id(executor) not in self._lanes:
                try:
                    threading.Thread(target=self._run_lane, args=(executor, lane),
                                     name="net-handlers", daemon=True).start()
                except RuntimeError as error:  # can't start new thread
                    problem = error
                else:
                    self._lanes[id(executor)] = lane
            if problem is None:
                frame.left += 1
                lane.queue.append(part)
                self._changed.notify_all()
        if problem is not None:
            self._report(part.hearer, problem)

    # ------------------------------------------------------------------ in that of an executor

    def _run_lane(self, executor: object, lane: _Lane) -> None:
        publisher: Optional[Address] = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: lane.queue or self._stopping, IDLE_TIME)
                if not lane.queue:
                    del self._lanes[id(executor)]
                    return
                part = lane.queue.popleft()
                if part.frame is None:
                    del lane.missed[part.hearer.tag, part.address]
            frame, hearer, args, kwargs, address = part
            if address != publisher:
                publisher = address
                enter(Context(Caller(address, None)))
            if frame is not None:
                self._call(hearer, args, kwargs)
            elif hearer.missed is not None:
                self._call(hearer._replace(function=hearer.missed), args, kwargs)
            part = args = kwargs = None  # type: ignore[assignment]
            with self._changed:
                lane.since = monotonic()
            if frame is not None:
                self._finish(frame)

    # ------------------------------------------------------------------ in both

    def _call(self, hearer: Hearer, args: Any, kwargs: Any) -> None:
        problem: Optional[BaseException] = None
        began = perf_counter()
        try:
            hearer.function(*args, **kwargs)
        except BaseException as error:  # SystemExit too: it must not end this thread
            problem = error
        seconds = perf_counter() - began
        with self._changed:
            self.tally.add(hearer.tag, problem is not None, seconds)
        if problem is not None:
            self._report(hearer, problem)

    @staticmethod
    def _report(hearer: Hearer, problem: BaseException) -> None:
        try:
            hearer.failed(problem)
        except BaseException:
            pass  # what was raised may do anything when it is looked at
