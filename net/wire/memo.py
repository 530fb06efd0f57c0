"""Remembers what a function made, without a lock."""
from __future__ import annotations

from typing import Any, Callable, Dict


class Memo(Dict[Any, Any]):
    """What a function makes of a key: ``remembered[key]``. Any thread may look.

    ``functools.lru_cache`` cannot be used: PyPy's has a lock, and in a child that was forked while
    another thread held it, the next call would wait for ever.

    :param make: called with a key that is not remembered; by two threads at once perhaps.
    :param most: keys that are remembered; when there are as many, all are forgotten.
    """

    def __init__(self, make: Callable[[Any], Any], most: int) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: Any) -> Any:
        value = self._make(key)
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value
