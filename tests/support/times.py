"""The unit of time in tests: what a test waits for at most is scaled by NET_TEST_FACTOR.

That factor is 1 on a machine that does nothing else, and more where several interpreters run the
tests at the same time, or a slow one does. It makes nothing slower but a failure.
"""
from __future__ import annotations

import os

FACTOR = float(os.environ.get("NET_TEST_FACTOR", "1"))


def patience(seconds: float) -> float:
    """How many seconds to wait, on this machine, for a fact that takes at most ``seconds`` on a
    calm one."""
    return seconds * FACTOR
