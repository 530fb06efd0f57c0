"""A signal at each moment of a function."""
from __future__ import annotations

import signal
import sys
# That of the module signal looks for the handler among the members of an enumeration.
from _signal import getsignal
from typing import Any, Callable


def interrupt_everywhere(function: Callable[[], Any], number: int, lines: int) -> None:
    """Call a function that takes a signal and is ended by it: once for each of the first ``lines``
    lines that run, in itself and in what it calls, with the signal at that line."""
    before = getsignal(number)

    def interrupted_at(line: int) -> None:
        left = line

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left
            # Before that, it would end the tests.
            left -= event == "line" and getsignal(number) is not before
            if not left:
                left = -1
                sys.settrace(None)
                signal.raise_signal(number)
            return trace
        sys.settrace(trace)
        try:
            function()
        finally:
            sys.settrace(None)

    for line in range(1, lines):
        interrupted_at(line)
