"""Keeping a process up that serves, and ending it in order."""
from __future__ import annotations

import signal
import threading
from typing import Any, Callable, Dict, List, Optional

from .executors import MainThread
from .peer import Peer
from .settings import settings

#: Give it as ``executor=``: functions run in the main thread, by :func:`serve` or ``run_pending``.
main_thread = MainThread()

# Seconds between checks of the clock. Signals interrupt the wait on POSIX, not on Windows.
LOOK = 0.5
# Seconds between checks whether the peer has closed.
LAST_LOOK = 0.05


def serve(grace: Optional[float] = None) -> None:
    """Serve until Ctrl-C or SIGTERM, and run what is given to :data:`net.main_thread` meanwhile.

    Then no new call is accepted, running ones have some seconds to end, the peer says goodbye, and
    this returns. A second Ctrl-C does not wait for running calls. Call it in the main thread; in
    another one no signal ends it, only closing the peer does.

    :param grace: seconds for running calls; None for ``NET_GRACE``.
    :raises NoFreePort: every port of the range is taken.
    """
    run(grace, lambda: None)


def run(grace: Optional[float], tell: Callable[[], None]) -> None:
    """Do what :func:`serve` does.

    :param tell: called once the peer serves and signals are caught.
    """
    peer = Peer()
    # No event: a second signal that came while the first one sets it would wait for ever.
    signals: List[int] = []

    def end(number: int, _frame: Any) -> None:
        signals.append(number)
        main_thread.wake()

    before = _take_signals(end)
    try:
        peer.launch()
        tell()
        try:
            while not signals and peer.launched:
                main_thread.run_pending(LOOK)
        except KeyboardInterrupt:
            pass
        if before:  # SIGTERM changes nothing now: it may follow the Ctrl-C of a terminal
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _close(peer, settings.grace if grace is None else grace)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close(peer: Any, grace: float) -> None:
    """Close a peer, and let calls that run in this thread end meanwhile."""
    closing = threading.Thread(target=peer.close, args=(grace,), name="net-close")
    try:
        closing.start()
        while closing.is_alive():
            main_thread.run_pending(LAST_LOOK)
    except KeyboardInterrupt:
        peer.close()
    closing.join()


def _take_signals(end: Any) -> Dict[int, Any]:
    """Have a function called by the signals that end a program; returns the previous handlers. In
    any thread but the main one nothing is changed, and there are none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}


async def serve_async(grace: Optional[float] = None) -> None:
    """Serve until SIGTERM, Ctrl-C or the cancellation of the task, for an application with an
    asyncio loop. What is given to :data:`net.main_thread` runs on that loop meanwhile. A second
    Ctrl-C does not wait for running calls.

    :param grace: seconds for running calls; None for ``NET_GRACE``.
    :raises NoFreePort: every port of the range is taken.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    peer = Peer()
    peer.launch()
    stop = asyncio.Event()
    taken = []

    def end(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            loop.run_in_executor(None, peer.close)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, end, number)
            taken.append(number)
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # Windows, or not the main thread: the task is cancelled then
    main_thread.on_submit = lambda: loop.call_soon_threadsafe(main_thread.run_pending)
    try:
        main_thread.run_pending()
        await stop.wait()
    finally:
        stop.set()
        try:
            await loop.run_in_executor(None, peer.close,
                                       settings.grace if grace is None else grace)
        finally:
            main_thread.on_submit = None
            for number in taken:
                loop.remove_signal_handler(number)
