"""The clock of things that are idle: it goes on while the computer sleeps, and nobody sets it."""
from __future__ import annotations

import time
from functools import partial
from typing import Callable

# Of Linux; elsewhere, and where there is none, the monotonic clock has to do.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

#: Seconds since some moment, those of a suspended computer included. No Python function of its
#: own: each call asks it twice.
uptime: Callable[[], float] = time.monotonic if _BOOTTIME is None \
    else partial(time.clock_gettime, _BOOTTIME)
