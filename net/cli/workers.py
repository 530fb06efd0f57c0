"""``app-net serve --workers N``: processes that are peers, and one that supervises them."""
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Dict, List, Optional

from ..settings import settings
from .screen import RED, Screen, Usage

# Seconds between looks at the processes, and at least from the start of one to that of the next in
# its place.
LOOK, PAUSE = 0.1, 1.0
# Seconds between looks at whether they have ended.
LAST_LOOK = 0.02
# Seconds in which processes have to end, beyond those that their calls are given.
ENDING = 3.0
# Exit codes of a process that cannot serve and has said why; a new one could not, either.
HOPELESS = (1, 2)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Keep a number of processes running until a signal ends this one.

    :raises Usage: there is no room for that many peers on this host.
    """
    room = len(settings.ports)
    if options.workers > room:
        raise Usage(f"there is room for {room} peers on a host; "
                    f"NET_PORT_RANGE={options.workers - 1}, set alike for all processes on all "
                    f"hosts, makes it {options.workers}")
    # A signal handler that sets a threading.Event would wait for ever if it interrupted the wait
    # for that.
    told: SimpleQueue[int] = SimpleQueue()
    before: Dict[int, Any] = {number: signal.signal(number, lambda number, _: told.put(number))
                              for number in (signal.SIGINT, signal.SIGTERM)}
    workers: List[_Worker] = []
    code = 0
    try:
        for _ in range(options.workers):
            workers.append(_Worker(_command(options)))
        while not code and _signal(told, LOOK) is None:
            code = max(worker.look(screen) for worker in workers)
    finally:
        _end(workers, told)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _signal(told: SimpleQueue[int], seconds: float) -> Optional[int]:
    """The next signal that comes within this many seconds; None if none does."""
    try:
        return told.get(timeout=seconds)
    except Empty:
        return None


def _command(options: argparse.Namespace) -> List[str]:
    words = [sys.executable, "-m", __name__.partition(".")[0], "serve", "--with-parent"]
    words += ["--all"] if options.all else []
    words += ["--reload"] if options.reload else []
    words += ["--json"] if options.json else []
    words += ["--timeout", str(options.timeout)] if options.timeout is not None else []
    return [*words, "--", *options.module]


class _Worker:
    """One of the processes."""

    def __init__(self, command: List[str]) -> None:
        self._command = command
        self._start()

    def _start(self) -> None:
        self._started = monotonic()
        # When this process is gone, however it ended, the other one reads the end of its input.
        # Ctrl-C in the terminal is for this process alone, which ends the others in order: one that
        # is still starting would print a traceback.
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE,
                                         start_new_session=True)

    def look(self, screen: Screen) -> int:
        """Start it again if it has ended; return its exit code if a new one would fail, too,
        otherwise 0."""
        code = self._process.poll()
        if code is None:
            return 0
        if code in HOPELESS:
            return code
        if monotonic() - self._started >= PAUSE:
            screen.say(f"the process {self._process.pid} has ended with {code}; another one takes "
                       f"its place", RED)
            self._close_input()
            self._start()
        return 0

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send the process a signal, if it runs."""
        if self.runs:
            self._process.send_signal(number)

    def end(self) -> None:
        """Kill the process if it still runs, and clear up."""
        if self.runs:
            self._process.kill()
        self._process.wait()
        self._close_input()

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _end(workers: List[_Worker], told: SimpleQueue[int]) -> None:
    """End the processes: by SIGTERM, at a second Ctrl-C by SIGINT as well, and what still runs in
    the end by force."""
    for worker in workers:
        worker.signal(signal.SIGTERM)
    ends = monotonic() + settings.grace + ENDING
    while any(worker.runs for worker in workers) and monotonic() < ends:
        if _signal(told, LAST_LOOK) == signal.SIGINT and os.name == "posix":
            for worker in workers:
                worker.signal(signal.SIGINT)
    for worker in workers:
        worker.end()
