"""Threads that bring tasks to peers."""
from __future__ import annotations

import logging
import threading
from collections import Counter
from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..context import Context
from ..errors import (AuthenticationError, InvalidConnection, NetError, PeerBusy, PeerLost,
                      PeerUnreachable, ProtocolError, TooFewPeers)
from ..log import CALLS, RateLimitedLog
from .spread import Spread, Task

note = RateLimitedLog(logging.getLogger(CALLS))

#: Errors after which another peer may do better.
ELSEWHERE = (PeerUnreachable, PeerBusy, PeerLost, InvalidConnection, AuthenticationError,
             ProtocolError)

# Seconds between checks of which peers there are. A check is answered from memory.
LOOK_TIME = 0.5
# Seconds that a thread waits for more work.
IDLE_TIME = 5.0
# Threads of one map or executor: more peers than that are not used at the same time.
MAX_THREADS = 256

#: The peers that have the function now.
Find = Callable[[], Sequence[Any]]
#: Does a task on a peer: ``run(peer, work)``.
Run = Callable[[Any, Any], Any]
#: A task, and its value or what it raised.
Outcome = Tuple[Task, Any, Optional[BaseException]]
#: A task that a peer could not do, and why.
_Failed = Tuple[Task, NetError]


class Together(NamedTuple):
    """Does several tasks of a peer in one call.

    :ivar run: ``run(peer, works)`` gives what came of the first ones; the others did not run. None
        if they have to be done one by one.
    :ivar outcome: ``outcome(peer, one)`` gives the value of what came of one, or raises.
    """

    run: Callable[[Any, List[Any]], Optional[List[Any]]]
    outcome: Callable[[Any, Any], Any]


class Workers:
    """Threads that send tasks to peers, ``at_a_time`` for each peer, as long as there are tasks.

    :param name: of the function, for errors.
    :param find: which peers there are.
    :param run: does a task.
    :param finish: takes outcomes, in the thread of a worker.
    :param chunk: tasks that a thread takes together.
    :param missed: called with a peer that does not answer.
    :param scope: cancelled when it is closed.
    :param together: does what a thread has taken; None to do it one by one.
    """

    def __init__(self, name: str, find: Find, run: Run,
                 finish: Callable[[List[Outcome]], object], at_a_time: int, repeatable: bool,
                 chunk: int = 1, missed: Optional[Callable[[Any], object]] = None,
                 scope: Optional[Context] = None, together: Optional[Together] = None) -> None:
        self._name = name
        self._find = find
        self._run = run
        self._finish = finish
        self._at_a_time = at_a_time
        self._chunk = chunk
        self._missed = missed
        self._scope = scope
        self._together = together
        self._let_go: Optional[Callable[[], object]] = None
        #: Tasks that run at the same time, with the peers that are there.
        self.slots = at_a_time
        self._lock = threading.Lock()  # guards what follows
        self._spread: Spread[Any] = Spread(at_a_time, repeatable, monotonic())
        self._threads: Counter[Any] = Counter()
        self._count = 0
        # Numbers of those that work.
        self._own: Set[int] = set()
        # What wakes a thread that waits for a task, and its peer.
        self._idle: Dict[threading.Condition, Any] = {}
        # Notified when nothing is left to do, and at the end.
        self._ended = threading.Condition(self._lock)
        self._watching = self._closed = False
        self._problem: Optional[BaseException] = None

    def add(self, tasks: List[Task]) -> None:
        """Have tasks done, which one thread may take together. Looks for peers if that was not done
        lately.

        :raises RuntimeError: it was closed, or no thread can be started.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._spread.add(tasks, monotonic())
            if not self._wake_one() and self._count < self.slots:
                self._start_threads(self._spread.workers)  # some were idle for long, and ended
            begin, self._watching = not self._watching, True
            look = begin or not self._count
        if look:
            self._look()
        if begin:
            self._start_watching()

    def close(self, keep: Callable[[Task], bool] = lambda task: False) -> List[Task]:
        """Take no more tasks, give back those that wait, and cancel the scope.

        :param keep: called under the lock with each task that waits; True if it is to be done all
            the same.
        """
        with self._lock:
            self._closed = True
            waiting = self._spread.clear()
            kept = list(filter(keep, waiting))
            self._spread.put_back(kept)
            self._wake_all()
        if self._scope is not None:
            self._scope.cancel()
        return [task for task in waiting if task not in kept]

    def finish_up(self) -> None:
        """Take no more tasks. Threads end when all are done."""
        with self._lock:
            self._closed = True
            self._wake_all()

    def let_go(self, end: Callable[[], object]) -> None:
        """Have ``close`` or ``finish_up`` called soon. For the garbage collector, which may run in
        a thread that holds the lock."""
        self._let_go = end
        if self._lock.acquire(blocking=False):
            self._ended.notify_all()
            self._lock.release()

    def join(self) -> None:
        """Wait until all tasks are done.

        :raises RuntimeError: called in a thread that does a task.
        """
        with self._ended:
            if threading.get_ident() in self._own:
                raise RuntimeError("a callback cannot wait for the end of what it belongs to")
            self._ended.wait_for(lambda: not self._is_busy())

    def _is_busy(self) -> bool:
        return bool(self._spread.waiting or self._spread.running)

    def _wake_one(self) -> bool:
        """Wake a thread that can take a task, if one waits."""
        now = monotonic()
        for more, peer in self._idle.items():
            if self._spread.free(peer, now) > 0:
                del self._idle[more]  # the next task wakes another one
                more.notify()
                return True
        return False

    def _wake_all(self) -> None:
        for more in self._idle:
            more.notify()
        self._ended.notify_all()

    # ------------------------------------------------------------------ which peers there are

    def _start_watching(self) -> None:
        try:
            threading.Thread(target=self._watch, name="net-many", daemon=True).start()
        except RuntimeError:
            self._watching = False
            raise

    def _watch(self) -> None:
        """Follow which peers there are, as long as there is work."""
        busy_at = monotonic()
        while True:
            with self._lock:
                if self._let_go is None:
                    self._ended.wait(LOOK_TIME)
                let_go, self._let_go = self._let_go, None
            if let_go is not None:
                let_go()
            with self._lock:
                busy, now = self._is_busy(), monotonic()
                if not busy and (self._closed or now - busy_at > IDLE_TIME):
                    self._watching = False
                    return
            if busy:
                busy_at = now
                self._look()

    def _look(self) -> None:
        try:
            peers = list(self._find())
        except (NetError, OSError) as problem:
            note(logging.INFO, "looking for peers that have %s: %s", self._name, problem)
            peers, self._problem = [], problem
        with self._lock:
            self._spread.set_workers(peers)
            self.slots = min(MAX_THREADS, max(1, len(peers)) * self._at_a_time)
            stranded = self._spread.stranded(monotonic())
            self._start_threads(peers)
            for _ in range(min(self._spread.waiting, len(self._idle))):
                self._wake_one()
        if stranded:
            self._finish([(task, None, self._too_few(task)) for task in stranded])

    def _too_few(self, task: Task) -> TooFewPeers:
        why = "no peer has it" if self._problem is None else f"the last one: {self._problem}"
        found = TooFewPeers(self._name, 0, 1, why, "maybe" if task.losses else "no")
        found.__cause__ = self._problem
        return found

    def _start_threads(self, peers: Sequence[Any]) -> None:
        for peer in peers:
            for _ in range(min(MAX_THREADS - self._count,
                               self._at_a_time - self._threads[peer])):
                try:
                    threading.Thread(target=self._work, args=(peer,), name="net-many",
                                     daemon=True).start()
                except RuntimeError as problem:
                    note(logging.INFO, "no thread for another peer: %s", problem)
                    return
                self._threads[peer] += 1
                self._count += 1

    # ------------------------------------------------------------------ in their threads

    def _work(self, peer: Any) -> None:
        more = threading.Condition(self._lock)
        with self._lock:
            self._own.add(threading.get_ident())
        while True:
            with self._lock:
                tasks = self._next(peer, more)
                if not tasks:
                    self._own.discard(threading.get_ident())
                    self._count -= 1
                    self._threads[peer] -= 1
                    if not self._threads[peer]:
                        del self._threads[peer]
                    return
            self._do(peer, tasks)

    def _next(self, peer: Any, more: threading.Condition) -> List[Task]:
        """The next tasks for a thread; none if it is to end. Waits."""
        started = monotonic()
        while self._spread.has(peer):
            now = monotonic()
            tasks = self._spread.take(peer, now, self._chunk)
            if tasks or self._closed and not self._is_busy() or now - started > IDLE_TIME:
                return tasks
            self._idle[more] = peer
            woken = more.wait(self._spread.rest(peer, now) or IDLE_TIME)
            self._idle.pop(more, None)
            if woken and self._spread.waiting and self._spread.free(peer, monotonic()) <= 0:
                self._wake_one()  # another thread of this peer was faster, and it has enough now
        return []

    def _do(self, peer: Any, tasks: List[Task]) -> None:
        outcomes, failed = self._attempt(peer, tasks)
        problem = failed[-1][1] if failed else None
        outcomes += [(task, None, why) for task, why in failed
                     if not self._spread.may_run_again(task, why.ran)]
        for task, _, why in outcomes:
            if task.losses and isinstance(why, NetError) and why.ran == "no":
                why.ran = "maybe"  # an earlier worker may have run it
        settled = {task for task, _, _ in outcomes}
        # Before it counts as done, so that a thread that waits for the end finds the results.
        if outcomes:
            self._finish(outcomes)
        with self._lock:
            if problem is None:
                self._spread.done(peer, tasks[0])
            else:
                self._problem = problem
                self._spread.lost(peer, tasks[0], monotonic())
                self._spread.put_back([task for task in tasks if task not in settled])
            if self._spread.waiting and self._idle:
                self._wake_one()
            elif self._closed and not self._is_busy():
                self._wake_all()
        if isinstance(problem, (PeerUnreachable, PeerLost)) and self._missed is not None:
            self._missed(peer)

    def _attempt(self, peer: Any, tasks: List[Task]) -> Tuple[List[Outcome], List[_Failed]]:
        """The outcomes of tasks one after the other; and what the peer could not do, and why. What
        is in neither did not run."""
        outcomes: List[Outcome] = []
        failed: List[_Failed] = []
        rest = tasks
        while rest and not failed:
            several = self._start_several(peer, rest, outcomes, failed)
            if several is None:
                break
            if several:
                for task, one in zip(rest, several):
                    self._keep(task, self._together.outcome, peer, one,  # type: ignore
                               outcomes, failed)
            else:
                self._keep(rest[0], self._run, peer, rest[0].work, outcomes, failed)
            rest = rest[max(1, len(several)):]
        return outcomes, failed

    def _start_several(self, peer: Any, tasks: List[Task], outcomes: List[Outcome],
                       failed: List[_Failed]) -> Optional[List[Any]]:
        """What came of the first of some tasks; nothing if they have to be done one by one, and
        None if all of them have failed."""
        if self._together is None or len(tasks) == 1:
            return []
        try:
            return self._together.run(peer, [task.work for task in tasks]) or []
        except ELSEWHERE as problem:
            if problem.ran != "yes":
                failed += [(task, problem) for task in tasks]
            else:
                outcomes += [(task, None, problem) for task in tasks]
        except BaseException as problem:
            outcomes += [(task, None, problem) for task in tasks]
        return None

    @staticmethod
    def _keep(task: Task, run: Run, peer: Any, what: Any, outcomes: List[Outcome],
              failed: List[_Failed]) -> None:
        """Keep what comes of one task."""
        try:
            outcomes.append((task, run(peer, what), None))
        except ELSEWHERE as problem:
            if problem.ran != "yes":
                failed.append((task, problem))
            else:
                outcomes.append((task, None, problem))
        except BaseException as problem:
            outcomes.append((task, None, problem))
