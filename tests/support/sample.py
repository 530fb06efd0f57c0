"""The application that the integration tests and their second processes both run.

A function that is not pure shows by a process id where it ran.
"""
from __future__ import annotations

import builtins
import os
import threading
import time
from typing import Any, Dict, List, Tuple

import net


class Refused(Exception):
    """An application's own error. Its __init__ takes other arguments than the exception keeps."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"refused with code {code}")
        self.code = code
        self.detail = detail
        made.append(code)


#: Codes of all Refused errors whose __init__ ran in this process.
made: List[int] = []

_counts: Dict[str, int] = {}
_lock = threading.Lock()  # guards _counts


@net.connect
def multiply(some_arg, some_kwarg=5):
    return some_arg * some_kwarg


@net.connect
def echo(value):
    return value


@net.connect
def some_bytes(count: int) -> bytes:
    return bytes(count)


@net.connect
def where() -> int:
    return os.getpid()


@net.connect
def wait(seconds, value=None):
    time.sleep(seconds)
    return value


@net.connect
def hang(seconds=60):
    """Tell the test that the call runs, then go on running."""
    os.write(1, b"running\n")  # at once and whole, unlike print
    time.sleep(seconds)


@net.connect
def count(name: str, seconds: float = 0) -> int:
    """How often this was called with a name, this call included."""
    with _lock:
        _counts[name] = _counts.get(name, 0) + 1
        number = _counts[name]
    time.sleep(seconds)
    return number


@net.connect
def counted(name: str) -> int:
    return _counts.get(name, 0)


@net.connect
def threads() -> Tuple[int, int]:
    """The threads of this process, and its open descriptors (0 where the system cannot tell)."""
    folder = "/proc/self/fd"
    return threading.active_count(), len(os.listdir(folder)) if os.path.isdir(folder) else 0


@net.connect
def connections_open() -> int:
    """How many connections to the peer of this process are open."""
    server = net.Peer().server
    return server.connections if server else 0


@net.connect
def fail(name: str, *args: Any) -> None:
    raise getattr(builtins, name)(*args)


@net.connect
def refuse(code, detail):
    raise Refused(code, detail=detail)


@net.connect
def made_here() -> List[int]:
    return made


@net.connect
def relay(hops: List[bytes], name: str, *args: Any) -> Any:
    """Call a function of this module through a chain of peers."""
    if hops:
        return relay(hops[1:], name, *args, peer=hops[0])
    return globals()[name](*args)


@net.connect
def bounce(depth: int, here: bytes, there: bytes) -> List[int]:
    """Call each other to a depth; the process ids on the way down."""
    return [os.getpid()] + (bounce(depth - 1, there, here, peer=there) if depth else [])


@net.connect
def with_own_peer(value, peer="mine"):
    """It has a parameter of the name by which calls say where they run."""
    return value, peer


@net.connect("sample tag of its own")
def renamed(value):
    return ["renamed", value]


@net.connect
def flagged(name):
    return net.Peer().get_flag(name)


@net.flag("SAMPLE")
def sample_flag(connection, peer):
    return "handled", connection, peer, os.getpid()


shout = net.connect("sample upper")(str.upper)
increased = net.connect("sample lambda")(lambda number: number + 1)


class Tools:
    @net.connect
    @staticmethod
    def below(value):
        return value - 1

    @staticmethod
    @net.connect
    def above(value):
        return value + 1
