"""What a test may leave behind: no thread, no socket, no child process."""
from __future__ import annotations

import gc
import os
import socket
import stat
import sys
import threading
import time
import traceback
from pathlib import Path

from times import patience

# Seconds for threads to notice that their connection closed and for children to be reaped,
# on a busy machine; a clean test does not wait at all.
GRACE = 5.0

# Seconds until what is left may be garbage that nobody has collected.
BEFORE_COLLECTING = 0.5

_TASKS = "/proc/self/task"


class Snapshot:
    """The threads, sockets and child processes of this process at one moment."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.sockets = open_sockets()
        self.children = child_processes()

    def leaks(self, grace: float = GRACE) -> list[str]:
        """Describe what has come since and does not go within the grace time (seconds)."""
        began = time.monotonic()
        deadline = began + patience(grace)
        pause = 0.005
        while self._newer():
            # PyPy closes forgotten sockets at a collection only; on CPython a socket freed
            # here has warned, and warnings are errors. It takes a tenth of a second, and most
            # that is left are threads that end by themselves before.
            if time.monotonic() - began > BEFORE_COLLECTING:
                gc.collect()
            if time.monotonic() > deadline:
                return self._newer()
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        return []

    def _newer(self) -> list[str]:
        threads = [thread for thread in threading.enumerate() if thread not in self.threads]
        sockets = open_sockets() - self.sockets
        children = child_processes() - self.children
        return (
            [_describe_thread(thread) for thread in threads]
            + [_describe_socket(number) for number, _inode in sorted(sockets)]
            + [_describe_process(pid) for pid in sorted(children)]
        )


def open_sockets() -> set[tuple[int, int]]:
    """The sockets of this process as (file descriptor, inode)."""
    found = set()
    for number in _descriptors():
        try:
            status = os.fstat(number)
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.add((number, status.st_ino))
    return found


def child_processes() -> set[int]:
    """The process ids of our children, ended but not waited for included.

    Empty where the system has no /proc. The helpers that multiprocessing keeps for the life
    of the process are left out. Linux leaves out some others while one of them ends, so it is
    asked until it says the same twice.
    """
    if _has_no_child():
        return set()
    before, found = None, _listed_children()
    while found != before:
        before, found = found, _listed_children()
    return found - _multiprocessing_helpers()


def _has_no_child() -> bool:
    """Whether there is certainly none. Most often that is so, and asking is quicker than reading
    all lists."""
    if hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
    return False


def _listed_children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir(_TASKS) if os.path.isdir(_TASKS) else ():
        try:
            with open(f"{_TASKS}/{thread}/children", "rb") as listing:
                found.update(map(int, listing.read().split()))
        except OSError:  # that thread has just ended
            continue
    return found


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(256))


def _multiprocessing_helpers() -> set[int]:
    helpers = set()
    for module, keeper, attribute in (
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ):
        owner = getattr(sys.modules.get(module), keeper, None)
        helpers.add(getattr(owner, attribute, None))
    return helpers - {None}


def _describe_thread(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame else ""
    return f"thread {thread.name}\n{stack}".rstrip()


def _describe_socket(number: int) -> str:
    try:
        with socket.socket(fileno=os.dup(number)) as duplicate:
            name = duplicate.getsockname()
            try:
                return f"socket {number}: {name} connected to {duplicate.getpeername()}"
            except OSError:
                return f"socket {number}: {name}, not connected"
    except OSError as error:
        return f"socket {number}: {error}"


def _describe_process(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = ""
    return f"child process {pid}: {command or 'ended, but nobody waited for it'}"
