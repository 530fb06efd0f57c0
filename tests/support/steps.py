"""How much Python runs for something, in instructions: no other process changes that number."""
from __future__ import annotations

import gc
import sys
from typing import Any, Callable

import pytest

#: For tests that count instructions.
counts_steps = pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.gettrace() is not None,
    reason="instructions of CPython, where nothing else traces")


def steps_of(work: Callable[[], Any]) -> int:
    """Instructions of this thread while it works. Garbage is not collected meanwhile: whatever
    takes notice of that, as hypothesis does, would be counted."""
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
        gc.enable()
    return count
