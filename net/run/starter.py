"""Starts threads for those who cannot wait until they run."""
from __future__ import annotations

import threading
from typing import Callable, NamedTuple

from .turns import Turns

# Seconds after its last work for which the thread that starts others stays.
STAYS = 1.0


class _Work(NamedTuple):
    run: Callable[[], object]
    failed: Callable[[BaseException], object]


class Starter:
    """Starts a thread for each piece of work, in a thread of its own. ``Thread.start`` waits until
    the new one runs, which on a busy machine takes a tenth of a second: the loop would be held up
    for all its connections. Any thread may call.

    :param name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Guards what follows. Reentrant: a signal handler may close.
        self._changed = threading.Condition()
        self._waiting: Turns[_Work] = Turns()
        self._runs = self._closed = False

    def start(self, source: str, run: Callable[[], object],
              failed: Callable[[BaseException], object]) -> None:
        """Run something in a new thread, after what waits longer in the turns of the sources.

        :param failed: called instead, in any thread, with the error that there is no thread.
        """
        with self._changed:
            self._waiting.put(source, _Work(run, failed))
            if self._runs:
                self._changed.notify()
                return
            self._runs = True
        try:
            threading.Thread(target=self._run, daemon=True, name=f"{self._name}-starter").start()
        except (RuntimeError, MemoryError) as problem:  # can't start new thread
            self._give_up(problem)

    def close(self) -> None:
        """Start what waits, and end soon."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait(STAYS)
                if not self._waiting:
                    self._runs = False
                    return
                work = self._waiting.take()
            try:
                threading.Thread(target=work.run, daemon=True, name=self._name).start()
            except (RuntimeError, MemoryError) as problem:
                work.failed(problem)
            del work  # the next one may be long in coming

    def _give_up(self, problem: BaseException) -> None:
        with self._changed:
            self._runs = False
            given_up = [self._waiting.take() for _ in range(len(self._waiting))]
        for work in given_up:
            work.failed(problem)
