"""Loops of a test's own."""
from __future__ import annotations

from net.run.loop import Loop


def end_timers(loop: Loop) -> None:
    """Let a loop that has nothing but timers left end now, and not when the last one is due: each
    test waits for its threads to end."""
    for _when, _number, timer in list(loop._timers):
        timer.cancel()
