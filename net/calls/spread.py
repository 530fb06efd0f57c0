"""Which worker does which task: the bookkeeping for tasks that are spread over peers. No thread,
socket or clock."""
from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, Generic, Hashable, Iterable, List, Set, TypeVar

W = TypeVar("W", bound=Hashable)

# Seconds that a worker rests after it could not do a task: doubled each time until it does one.
FIRST_REST, MAX_REST = 0.1, 5.0
# Seconds that tasks wait while no worker is able to do any. Peers that restart need one or two.
PATIENCE = 5.0
# Workers that may be lost with one task that may run again: it may well be what ends them.
MAX_LOSSES = 3


class Task:
    """One piece of work.

    :ivar losses: how many workers were lost with it.
    """

    __slots__ = ("work", "losses")

    def __init__(self, work: Any) -> None:
        self.work = work
        self.losses = 0


class _Worker:
    """What is known of a worker.

    :ivar present: whether it may be given tasks.
    :ivar failures: how often in a row it could not do one.
    """

    __slots__ = ("tasks", "present", "failures", "rests_until")

    def __init__(self) -> None:
        self.tasks: Set[Task] = set()
        self.present = True
        self.failures = 0
        self.rests_until = 0.0


class Spread(Generic[W]):
    """Gives tasks to workers as they get free, in the order in which they were added.

    A task that did not run goes to another worker; one that may have run does so only if it is
    repeatable. All times are of one clock, in seconds.

    :param at_a_time: tasks that a worker is given at a time.
    :param repeatable: whether a task may run twice.
    :param now: the time.
    """

    def __init__(self, at_a_time: int, repeatable: bool, now: float) -> None:
        self._at_a_time = at_a_time
        self._repeatable = repeatable
        self._waiting: Deque[Task] = deque()
        self._workers: Dict[W, _Worker] = {}
        self._able_at = now

    @property
    def waiting(self) -> int:
        """How many tasks wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many tasks workers have."""
        return sum(len(worker.tasks) for worker in self._workers.values())

    @property
    def workers(self) -> List[W]:
        """Those that may be given tasks, resting or not."""
        return [name for name, worker in self._workers.items() if worker.present]

    def has(self, name: W) -> bool:
        """Whether a worker may be given tasks."""
        return name in self._workers and self._workers[name].present

    def add(self, tasks: List[Task], now: float) -> None:
        """Add tasks."""
        if not self._waiting:
            self._able_at = max(self._able_at, now)
        self._waiting.extend(tasks)

    def set_workers(self, wanted: Iterable[W]) -> None:
        """Let these be the workers. One that is gone keeps the tasks that it has until they end."""
        names = set(wanted)
        for name in names:
            self._workers.setdefault(name, _Worker()).present = True
        for name, worker in list(self._workers.items()):
            worker.present = name in names
            self._forget_if_gone(name, worker)

    def _forget_if_gone(self, name: W, worker: _Worker) -> None:
        if not worker.present and not worker.tasks:
            del self._workers[name]

    def free(self, name: W, now: float) -> int:
        """How many tasks a worker can be given now, were there any."""
        worker = self._workers.get(name)
        if worker is None or not worker.present or now < worker.rests_until:
            return 0
        # One that has failed is tried with a single task.
        return (1 if worker.failures else self._at_a_time) - len(worker.tasks)

    def rest(self, name: W, now: float) -> float:
        """Seconds that a worker still rests; 0 if it does not."""
        worker = self._workers.get(name)
        return 0.0 if worker is None else max(0.0, worker.rests_until - now)

    def take(self, name: W, now: float, most: int = 1) -> List[Task]:
        """The next tasks of a worker; none while it has enough. Several together count as one. What
        a worker was lost with is taken alone, so that no other task is lost with it again."""
        if self.free(name, now) <= 0 or not self._waiting:
            return []
        worker = self._workers[name]
        taken = [self._waiting.popleft()]
        while len(taken) < most and self._waiting \
                and not taken[0].losses and not self._waiting[0].losses:
            taken.append(self._waiting.popleft())
        worker.tasks.add(taken[0])
        return taken

    def done(self, name: W, task: Task) -> None:
        """A worker has done what it took; ``task`` is the first of it."""
        worker = self._end(name, task)
        worker.failures, worker.rests_until = 0, 0.0

    def may_run_again(self, task: Task, ran: str) -> bool:
        """Whether another worker may do a task that one could not do.

        :param ran: ``"no"`` if it certainly did not run, ``"maybe"``, or ``"yes"``.
        """
        task.losses += ran != "no"
        return ran == "no" or ran == "maybe" and self._repeatable and task.losses < MAX_LOSSES

    def lost(self, name: W, task: Task, now: float) -> None:
        """A worker could not do what it took, and rests for a while; ``task`` is the first of it.
        """
        worker = self._end(name, task)
        worker.rests_until = now + min(MAX_REST, FIRST_REST * 2 ** min(worker.failures, 10))
        worker.failures += 1

    def _end(self, name: W, task: Task) -> _Worker:
        worker = self._workers[name]
        worker.tasks.remove(task)
        self._forget_if_gone(name, worker)
        return worker

    def put_back(self, tasks: List[Task]) -> None:
        """Let these be the next tasks: the worker that took them has not done them."""
        self._waiting.extendleft(reversed(tasks))

    def clear(self) -> List[Task]:
        """Take out all tasks that no worker has."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def stranded(self, now: float) -> List[Task]:
        """Take out the tasks that wait, if for too long no worker has been able to do any."""
        if any(worker.present and not worker.failures for worker in self._workers.values()):
            self._able_at = now
        if self.running or now - self._able_at < PATIENCE:
            return []
        return self.clear()
