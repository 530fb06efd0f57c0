"""Routers of an engine, and the application whose processes meet through them."""
from __future__ import annotations

import re
import select
import signal
import subprocess
import sys
from typing import Sequence

from processes import PeerProcess, environment
from times import patience

SECRET = "a secret of two sites"

APPLICATION = """
import socket, threading, time
import net, net.process

heard, held, gaps, news = [], [], [], []

@net.connect
def double(x):
    return 2 * x

@net.connect
def fail():
    raise KeyError("lost")

@net.connect
def count(number):
    yield from range(number)

@net.connect
def each(function, items):
    return [function(item) for item in items]

@net.connect
def patient():
    held.append(net.remaining())
    while not net.cancelled():
        time.sleep(0.01)
    news.append("cancelled")

@net.connect
def hold(seconds=60):
    held.append(seconds)
    time.sleep(seconds)

@net.event("tick")
def tick(number):
    return (number,), {}

def ran(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except KeyError as problem:
        return "KeyError", problem.args[0]
    except net.NetError as problem:
        return type(problem).__name__, problem.ran

def engine():
    return net.process.process.client.carriers.engine

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) // 1024

def closed(address):
    try:
        socket.create_connection(address).close()
    except OSError:
        return True
    return False

def subscribe(peer):
    net.subscribe("tick", peers=[peer], on_gap=lambda event, one, missed: gaps.append(missed))(
        heard.append)

def until(fact, seconds=WAIT):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, (heard, held, gaps, news)
        time.sleep(0.01)

""".replace("WAIT", str(patience(15)))


class Router:
    """``app-net router`` in a process of its own.

    :param prefix: the command that starts the interpreter elsewhere, e.g. in a namespace.
    :ivar said: the last line that was read of what it says.
    """

    def __init__(self, place: str, *words: str, prefix: Sequence[str] = (),
                 **settings: object) -> None:
        self.place = place
        self._words = words
        self._prefix = prefix
        self._settings = {"NET_SECRET": SECRET, **settings}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "net", "router", "--listen", self.place,
             *self._words], env=environment(**self._settings), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        self.said = self.line()

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stderr is not None
        assert select.select([self.process.stderr], [], [], patience(15))[0]
        return self.process.stderr.readline().decode()

    def wait_until(self, status: str) -> None:
        """Wait until its status holds a text."""
        while status not in self.said:
            self.said = self.line()

    def resident(self) -> int:
        """MiB of memory that it holds."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file
                        if line.startswith("VmRSS")) // 1024

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(patience(10))
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def says(process: PeerProcess, code: str) -> str:
    process.execute(f"print(repr(({code})))")
    return process.read_line(patience(20))


def meet(process: PeerProcess) -> None:
    """Have a process find the one peer that there is beyond its site."""
    process.execute("peer, = double.peers(at_least=1, timeout=%r)" % patience(15))
    assert re.fullmatch(r"[0-9a-f]{32}\.zenoh:\d+", says(process, "str(peer)")[1:-1])
