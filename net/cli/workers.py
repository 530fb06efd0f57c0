"""``app-net serve --workers N``: processes that are peers, and one that supervises them."""
from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
from time import monotonic
from typing import Any, Dict, List

from ..settings import settings
from .screen import RED, Screen, Usage

# Seconds between looks at the processes, and from the start of one to that of the next in its
# place.
LOOK, PAUSE = 0.1, 1.0
# Seconds that processes have to end beyond what their calls are given.
ENDING = 3.0
# Exit codes of a process that cannot serve and has said why; a new one could not, either.
HOPELESS = (1, 2)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Keep so many processes running until a signal ends this one.

    :raises Usage: there is no room for so many peers on this host.
    """
    room = len(settings.ports)
    if options.workers > room:
        raise Usage(f"there is room for {room} peers on a host; "
                    f"NET_PORT_RANGE={options.workers - 1}, set alike for all processes on all "
                    f"hosts, makes it {options.workers}")
    stop = threading.Event()
    before: Dict[int, Any] = {number: signal.signal(number, lambda *_: stop.set())
                              for number in (signal.SIGINT, signal.SIGTERM)}
    workers = [_Worker(_command(options)) for _ in range(options.workers)]
    code = 0
    try:
        while not code and not stop.wait(LOOK):
            code = max(worker.look(screen) for worker in workers)
    finally:
        _end(workers)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _command(options: argparse.Namespace) -> List[str]:
    words = [sys.executable, "-m", __name__.partition(".")[0], "serve", "--with-parent"]
    words += ["--all"] if options.all else []
    words += ["--reload"] if options.reload else []
    return [*words, "--", *options.module]


class _Worker:
    """One of the processes."""

    def __init__(self, command: List[str]) -> None:
        self._command = command
        self._start()

    def _start(self) -> None:
        self._started = monotonic()
        # When this process is gone, however it ended, the other one reads the end of its input.
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def look(self, screen: Screen) -> int:
        """Start it again if it has ended; its exit code if a new one would fail too, or 0."""
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

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, ends: float) -> None:
        """Wait until it has ended; kill it after that time."""
        try:
            self._process.wait(max(0.1, ends - monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_input()

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _end(workers: List[_Worker]) -> None:
    for worker in workers:
        worker.terminate()
    ends = monotonic() + settings.grace + ENDING
    for worker in workers:
        worker.wait(ends)
