"""A switch in user space that loses, delays, doubles and reorders what it forwards. Linux, root.

Where the kernel has no netem this stands in for it: each interface is a TAP device in the namespace
of its host, and one process reads and writes the frames of all. Run as a program, it is that
process: it takes a line of JSON at a time and prints an empty one when it has done what it says.
"""
from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple, Tuple

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# Bytes of the largest frame.
FRAME = 2048
# Frames of one interface that are taken at a time.
AT_ONCE = 64


class Weather(NamedTuple):
    """What becomes of frames on their way to each interface; a broadcast is one frame to each.

    :ivar loss: the share that is lost.
    :ivar delay: seconds that each takes.
    :ivar jitter: seconds that are added at random, so that they overtake each other.
    :ivar twice: the share that comes twice.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    twice: float = 0.0


CALM = Weather()


class Forwarder:
    """The process of a switch, seen from the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True)

    def plug(self, pid: int, name: str) -> None:
        """Make an interface of this name in the namespace of a process."""
        self._tell({"pid": pid, "name": name})

    def weather(self, weather: Weather) -> None:
        """From now on, this happens to frames."""
        self._tell({"weather": weather})

    def _tell(self, what: Dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), "the forwarder has ended"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Switch:
    """The switch itself, in its process: learns which hardware address is behind which
    interface."""

    def __init__(self) -> None:
        self._weather = CALM
        self._taps: List[int] = []
        self._places: Dict[bytes, int] = {}
        self._waiting: List[Tuple[float, int, int, bytes]] = []
        self._number = 0
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)

    def run(self) -> None:
        while True:
            wait = None if not self._waiting else \
                max(0.0, self._waiting[0][0] - time.monotonic()) * 1000
            for fd, _ in self._poll.poll(wait):
                if fd != sys.stdin.fileno():
                    self._take(fd)
                else:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._do(json.loads(line))
                    print(flush=True)
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                _, _, target, frame = heapq.heappop(self._waiting)
                self._write(target, frame)

    def _do(self, what: Dict[str, Any]) -> None:
        if "weather" in what:
            self._weather = Weather(*what["weather"])
        else:
            tap = open_tap(what["pid"], what["name"])
            self._taps.append(tap)
            self._poll.register(tap, select.POLLIN)

    def _take(self, tap: int) -> None:
        for _ in range(AT_ONCE):
            try:
                frame = os.read(tap, FRAME)
            except OSError:
                return  # nothing more, or the interface is down
            self._places[frame[6:12]] = tap
            target = None if frame[0] & 1 else self._places.get(frame[:6])
            for one in self._taps if target is None else (target,):
                if one != tap:
                    self._forward(one, frame)

    def _forward(self, target: int, frame: bytes) -> None:
        weather = self._weather
        for _ in range(2 if weather.twice and random.random() < weather.twice else 1):
            if weather.loss and random.random() < weather.loss:
                continue
            if not weather.delay and not weather.jitter:
                self._write(target, frame)
                continue
            self._number += 1
            due = time.monotonic() + weather.delay + random.random() * weather.jitter
            heapq.heappush(self._waiting, (due, self._number, target, frame))

    @staticmethod
    def _write(target: int, frame: bytes) -> None:
        try:
            os.write(target, frame)
        except OSError:
            pass  # the interface is down, or full


def open_tap(pid: int, name: str) -> int:
    """A new TAP device in the network namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(there, 0):
            raise OSError(ctypes.get_errno(), "setns")
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
        return tap
    finally:
        libc.setns(home, 0)
        os.close(there)
        os.close(home)


if __name__ == "__main__":
    # Or frames would wait whenever the processor is busy with the hosts.
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    Switch().run()
