"""Starts threads for code that cannot wait until they run."""
from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import Callable, NamedTuple, Optional, Tuple

from .turns import Turns

# Seconds that the thread which starts others stays after its last work.
STAYS = 1.0


class _Work(NamedTuple):
    run: Callable[[], object]
    failed: Callable[[BaseException], object]


class Starter:
    """Starts a thread for each piece of work, in a thread of its own. ``Thread.start`` waits until
    the new one runs, which on a busy machine takes a tenth of a second: the loop would be held up
    for all its connections.

    :param name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # No lock: a thread that holds one may lose the processor, and the loop would wait for it.
        self._coming: SimpleQueue[Optional[Tuple[str, _Work]]] = SimpleQueue()
        self._runs = self._closed = False

    def start(self, source: str, run: Callable[[], object],
              failed: Callable[[BaseException], object]) -> None:
        """Run something in a new thread when it is its turn: those that wait are started by source,
        in turn. One thread at a time may call.

        :param failed: called instead, in any thread, with the error if no thread can be started.
        """
        self._coming.put((source, _Work(run, failed)))
        if self._runs:
            return
        self._runs = True
        try:
            threading.Thread(target=self._run, daemon=True, name=f"{self._name}-starter").start()
        except (RuntimeError, MemoryError) as problem:  # can't start new thread
            self._runs = False
            waiting: Turns[_Work] = Turns()
            self._receive(waiting)
            while waiting:
                waiting.take().failed(problem)

    def close(self) -> None:
        """Start what waits, and end soon. Any thread may call."""
        self._closed = True
        self._coming.put(None)

    def _run(self) -> None:
        waiting: Turns[_Work] = Turns()
        while True:
            self._receive(waiting, 0 if self._closed else STAYS)
            if waiting:
                self._start(waiting.take())
                continue
            self._runs = False
            if self._coming.empty():
                return
            # Something came at that very moment. If another thread was started for it, both go on.
            self._runs = True

    def _receive(self, waiting: Turns[_Work], seconds: float = 0) -> None:
        """Take what has come.

        :param seconds: for which something is waited for if nothing waits to be started.
        """
        try:
            while True:
                one = self._coming.get(timeout=seconds) if seconds > 0 and not waiting \
                    else self._coming.get_nowait()
                if one is None:
                    return
                waiting.put(*one)
        except Empty:
            pass

    def _start(self, work: _Work) -> None:
        try:
            threading.Thread(target=work.run, daemon=True, name=self._name).start()
        except (RuntimeError, MemoryError) as problem:
            work.failed(problem)
