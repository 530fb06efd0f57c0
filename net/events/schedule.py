"""Does things when their time has come, in a few threads that end when nothing is left."""
from __future__ import annotations

import logging
import os
import threading
from time import monotonic
from typing import Any, Callable, Dict

from ..log import SafeLog

log = SafeLog(__name__)

# Threads at most. What they do waits for other peers, for seconds where a host is gone.
THREADS = 4


class Schedule:
    """Calls a function with each item that was put in, after its delay. Any thread may call.

    :param work: takes the item, and may put it in again.
    """

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work = work
        # Guards what follows, and is told when something was put in.
        self._changed = threading.Condition()
        self._due: Dict[Any, float] = {}
        self._threads = self._waiting = 0

    def put(self, item: Any, delay: float) -> None:
        """Have something done after some seconds, unless it will be earlier anyway."""
        when = monotonic() + delay
        with self._changed:
            self._due[item] = min(when, self._due.get(item, when))
            if not self._waiting and self._threads < THREADS:
                self._start()
            self._changed.notify()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="net-subscriber", daemon=True).start()
            self._threads += 1
        except RuntimeError as problem:  # can't start new thread; the next put tries again
            log(logging.INFO, "subscriptions have to wait: %s", problem)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._wait():
                    self._threads -= 1
                    return
                item = min(self._due, key=self._due.__getitem__)
                del self._due[item]
            try:
                self._work(item)
            except Exception:
                log(logging.ERROR, "%r failed", item, exc_info=True)

    def _wait(self) -> bool:
        """Wait until something is due; False if there is nothing left."""
        while self._due:
            delay = min(self._due.values()) - monotonic()
            if delay <= 0:
                return True
            self._waiting += 1
            self._changed.wait(delay)
            self._waiting -= 1
        return False


def jitter(seconds: float) -> float:
    """Half to one and a half times as long, by chance: peers that lost the same hub at the same
    time must not all return at the same time."""
    # The random module would take longer to load than all of this package.
    return seconds * (0.5 + int.from_bytes(os.urandom(2), "big") / 65536)
