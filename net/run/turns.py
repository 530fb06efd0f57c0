"""A queue in which the sources take turns."""
from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by source: one of each in turn, so that a source that brings many delays only
    itself. For one thread."""

    def __init__(self) -> None:
        self._waiting: Dict[str, Deque[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, source: str, one: T) -> None:
        """Let something of a source wait."""
        self._waiting.setdefault(source, deque()).append(one)
        self._length += 1

    def take(self) -> T:
        """The one whose turn it is.

        :raises StopIteration: none waits.
        """
        source = next(iter(self._waiting))
        waiting = self._waiting.pop(source)
        one = waiting.popleft()
        if waiting:
            self._waiting[source] = waiting  # at the end of the queue
        self._length -= 1
        return one

    def drop(self) -> T:
        """The oldest one of the source that has the most, to be given up.

        :raises ValueError: none waits.
        """
        source = max(self._waiting, key=lambda source: len(self._waiting[source]))
        waiting = self._waiting[source]
        one = waiting.popleft()
        if not waiting:
            del self._waiting[source]
        self._length -= 1
        return one
