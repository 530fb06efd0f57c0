"""The clock of things that are idle: it goes on while the computer sleeps, and nobody sets it."""
from __future__ import annotations

import time
from typing import Callable

# Of Linux; elsewhere, and where there is none, the monotonic clock has to do.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def _find() -> Callable[[], float]:
    if _BOOTTIME is None:
        return time.monotonic
    clock = _BOOTTIME

    def uptime() -> float:
        return time.clock_gettime(clock)
    return uptime


#: Seconds since some moment, those of a suspended computer included.
uptime = _find()
