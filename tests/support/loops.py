"""Loops of a test's own."""
from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Callable, Iterator, Tuple

from net.run.loop import Loop


def end_timers(loop: Loop) -> None:
    """Let a loop that has nothing but timers left end now, and not when the last one is due: each
    test waits for its threads to end."""
    for _when, _number, timer in list(loop._timers):
        timer.cancel()


def start_asyncio() -> Tuple[asyncio.AbstractEventLoop, Callable[[], None]]:
    """An asyncio loop that runs in a thread, and what stops it and waits for the thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def stop() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    return loop, stop


@contextlib.contextmanager
def running_asyncio() -> Iterator[asyncio.AbstractEventLoop]:
    """An asyncio loop that runs in a thread, and is closed at the end."""
    loop, stop = start_asyncio()
    yield loop
    stop()
    loop.close()
