"""The clock for idle times: it goes on while the computer sleeps, and cannot be set."""
from __future__ import annotations

import time
from functools import partial
from typing import Callable

# Linux only; elsewhere the monotonic clock has to do.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

#: Seconds since some moment, those of a suspended computer included. No Python function around it:
# each call reads it twice.
uptime: Callable[[], float] = time.monotonic if _BOOTTIME is None \
    else partial(time.clock_gettime, _BOOTTIME)
