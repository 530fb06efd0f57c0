"""Remembering what a function made, without a lock."""
from __future__ import annotations

from typing import Any, Callable, Dict


class Memo(Dict[Any, Any]):
    """What a function makes of each key: ``memo[key]``. Any thread may look something up.

    ``functools.lru_cache`` cannot be used: PyPy's has a lock, and in a child that was forked while
    another thread held it, the next call would wait for ever.

    :param make: called with a key that is not remembered, perhaps by two threads at once.
    :param most: keys that are remembered; when one more comes, all others are forgotten.
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
