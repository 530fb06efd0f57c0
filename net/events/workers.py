"""Does what the loop must not wait for, in a few threads that end when nothing is left."""
from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable, Deque

from ..log import EVENTS, RateLimitedLog

note = RateLimitedLog(logging.getLogger(EVENTS))

# Threads at most. What they do can take seconds, where a host is gone.
THREADS = 4


class Workers:
    """A queue of work. Any thread may call.

    :param name: the name of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # guards what follows
        self._queue: Deque[Callable[[], None]] = deque()
        self._threads = 0

    def do(self, work: Callable[[], None]) -> None:
        """Have something done soon."""
        with self._lock:
            self._queue.append(work)
            if self._threads < THREADS:
                try:
                    threading.Thread(target=self._run, name=self._name, daemon=True).start()
                    self._threads += 1
                except RuntimeError as problem:  # can't start new thread; the next one tries again
                    note(logging.WARNING, "work for the threads %s has to wait: %s",
                         self._name, problem)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                work = self._queue.popleft()
            try:
                work()
            except BaseException:
                note(logging.ERROR, "the threads %s go on after an error", self._name)
