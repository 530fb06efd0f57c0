"""The unit of time in tests: what a test waits for at most is scaled by NET_TEST_FACTOR.

It is 1 on a machine of one's own that does nothing else, and more where several interpreters run
the tests at the same time, or a slow one does. Nothing gets slower by it but a failure.
"""
from __future__ import annotations

import os

FACTOR = float(os.environ.get("NET_TEST_FACTOR", "1"))


def patience(seconds: float) -> float:
    """Seconds to wait for a fact on this machine, that take at most so many on a calm one."""
    return seconds * FACTOR
