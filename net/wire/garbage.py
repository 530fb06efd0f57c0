"""Python's garbage collection while a large message is read.

Code that makes many objects is interrupted again and again by the collection, which each time looks
at all of them, though none is garbage: that took up to three quarters of the time. So while a
message is read, the collection looks at new objects only when there are more of them than the
message can account for.
"""
from __future__ import annotations

import gc
import threading
from typing import Any, Callable, Optional, Tuple

from ..forking import forks

# The largest number of objects that Python takes there.
MOST = 2 ** 31 - 1


class Collection:
    """The garbage collection of this process. It is made rarer for one message at a time; others
    that are read meanwhile benefit, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usual: Tuple[int, ...] = ()
        self._rare: Optional[Tuple[int, ...]] = None

    def rarer(self, objects: int, work: Callable[[], Any]) -> Any:
        """Do some work that makes up to so many objects, none of which becomes garbage meanwhile.
        Returns its result."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            return work()
        try:
            self._begin(objects)
            return work()
        finally:
            self._end()
            lock.release()

    def _begin(self, objects: int) -> None:
        usual = gc.get_threshold() if hasattr(gc, "get_threshold") else (0,)  # PyPy has no such
        if usual[0]:  # else there is none, as the application wants it
            self._usual = usual
            self._rare = (min(MOST, usual[0] + objects), *usual[1:])
            gc.set_threshold(*self._rare)

    def _end(self) -> None:
        if self._rare is not None and gc.get_threshold() == self._rare:
            gc.set_threshold(*self._usual)  # else the application has changed it meanwhile
        self._rare = None

    def renew(self) -> None:
        """Begin anew in a forked child, where no thread goes on reading."""
        self._lock = threading.Lock()
        self._end()


collection = Collection()
forks.in_child.append(collection.renew)
