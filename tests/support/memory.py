"""What something takes of memory at its peak."""
from __future__ import annotations

from types import ModuleType
from typing import Any, Optional

tracemalloc: Optional[ModuleType]
try:
    import tracemalloc
except ImportError:  # PyPy cannot tell
    tracemalloc = None


def in_use() -> int:
    """Bytes that were taken within a :class:`Peak` so far and not given back."""
    assert tracemalloc is not None
    return int(tracemalloc.get_traced_memory()[0])


class Peak:
    """``with Peak() as peak: ...``, and ``peak.bytes`` is what was taken within; 0 on a Python that
    cannot tell."""

    bytes = 0

    def __enter__(self) -> Peak:
        if tracemalloc is not None:
            tracemalloc.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if tracemalloc is not None:
            self.bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
