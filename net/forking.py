"""What happens when this process forks: the only fork hook of the package."""
from __future__ import annotations

import os
import sys
import threading
import time
from importlib import _bootstrap
from types import FrameType
from typing import Callable, List, Optional

#: Seconds that a fork waits for imports: one that an application's function began may never end.
IMPORT_TIME = 1.0


class Forks:
    """What a fork of this process waits for, and what its children do first.

    :ivar lock: held while TLS is loaded and credentials are made (about 0.1 s), and for each step
        of a handshake (about 1 ms). A fork in between would leave the child waiting for ever for
        the locks of Python's import system and of OpenSSL.
    :ivar in_child: functions that are called, in this order, in every child. Of the threads only
        the one that forked goes on there.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_child: List[Callable[[], object]] = []


forks = Forks()


def _prepare() -> None:
    # Python takes the lock of its import system along, and the locks of the modules that other
    # threads are importing stay locked in the child for ever (CPython 3.9 to 3.13). What the
    # application imports by itself is its own affair.
    forks.lock.acquire()
    end = time.monotonic() + IMPORT_TIME
    while _importing() and time.monotonic() < end:
        time.sleep(0.001)


def _importing() -> bool:
    """Whether one of our threads, or one of the application's in a call of ours, is importing a
    module right now."""
    locks = [reference() for reference in list(getattr(_bootstrap, "_module_locks", {}).values())]
    owners = {getattr(lock, "owner", None) for lock in locks} - {None, threading.get_ident()}
    return bool(owners) and any(thread in owners and _runs_ours(frame)
                                for thread, frame in sys._current_frames().items())


def _runs_ours(frame: Optional[FrameType]) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
            return True
        frame = frame.f_back
    return False


def _begin_in_child() -> None:
    forks.lock.release()
    for forget in forks.in_child:
        forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_prepare, after_in_parent=forks.lock.release,
                        after_in_child=_begin_in_child)
