"""Who does what: the bookkeeping of work that is spread over peers. No thread, socket or clock."""
from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, Generic, Hashable, Iterable, List, Optional, Set, TypeVar

W = TypeVar("W", bound=Hashable)

# Pieces of work that one worker may be given at a time: the next one waits there already when the
# first is done.
AT_A_TIME = 2


class Task:
    """One piece of work.

    :ivar refused: workers that did not run it.
    """

    __slots__ = ("payload", "refused")

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.refused: Set[Any] = set()


class Spread(Generic[W]):
    """Gives tasks to workers as they get free, each to one at a time.

    A task that a worker did not run goes to another. One that may have run goes to another only if
    it is repeatable, else it has failed.

    :param at_a_time: tasks of one worker.
    :param repeatable: whether a task may run twice.
    """

    def __init__(self, at_a_time: int = AT_A_TIME, repeatable: bool = False) -> None:
        self._at_a_time = at_a_time
        self._repeatable = repeatable
        self._waiting: Deque[Task] = deque()
        self._running: Dict[W, List[Task]] = {}

    @property
    def workers(self) -> List[W]:
        """Those that may be given work."""
        return list(self._running)

    @property
    def waiting(self) -> int:
        """Tasks that no worker has."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Tasks that workers have."""
        return sum(map(len, self._running.values()))

    def add(self, task: Task) -> None:
        """There is more to do."""
        self._waiting.append(task)

    def set_workers(self, workers: Iterable[W]) -> None:
        """Let these be the workers. What one that is gone has runs on; its end is told as ever."""
        wanted = list(workers)
        for worker in wanted:
            self._running.setdefault(worker, [])
        for worker in list(self._running):
            if worker not in wanted and not self._running[worker]:
                del self._running[worker]

    def is_idle(self, worker: W) -> bool:
        """Whether a worker has nothing to do."""
        return not self._running.get(worker)

    def take(self, worker: W) -> Optional[Task]:
        """The next task of a worker; None while it has enough, or there is none for it."""
        running = self._running.get(worker)
        if running is None or len(running) >= self._at_a_time:
            return None
        for task in self._waiting:
            if worker not in task.refused:
                self._waiting.remove(task)
                running.append(task)
                return task
        return None

    def done(self, worker: W, task: Task) -> None:
        """A worker has done it, or has failed for good."""
        self._running[worker].remove(task)

    def lost(self, worker: W, task: Task, ran: str) -> bool:
        """A worker has not done it. Whether another one will.

        :param ran: ``"no"`` if it certainly did not run, ``"maybe"``, or ``"yes"``.
        """
        self._running[worker].remove(task)
        if ran == "yes" or ran == "maybe" and not self._repeatable:
            return False
        task.refused.add(worker)
        self._waiting.appendleft(task)
        return True

    def drop(self, worker: W) -> None:
        """Give a worker nothing more. It may come back by :meth:`set_workers`."""
        running = self._running.get(worker)
        if running is not None and not running:
            del self._running[worker]

    def hopeless(self) -> List[Task]:
        """Take out the tasks that every worker has refused."""
        hopeless = [task for task in self._waiting if task.refused.issuperset(self._running)]
        for task in hopeless:
            self._waiting.remove(task)
        return hopeless
