"""Second processes that trigger and hear events, and what the tests ask of them."""
from __future__ import annotations

import ast
import time
from typing import Any, Callable

from processes import PeerProcess
from times import patience

#: An application with an event; ``many(first, last)`` triggers it with each number in between.
PUBLISHER = """
import logging, net, os, time, threading
logging.basicConfig()

@net.event("number")
def number(value):
    return (value,), {}

def many(first, last):
    began = time.perf_counter()
    for value in range(first, last):
        number(value)
    return time.perf_counter() - began
"""

#: An application that keeps what it hears, gaps included; ``{options}`` follow the event's name.
SUBSCRIBER = """
import logging, net, os, time, threading
logging.basicConfig()
heard = []

def gap(event, peer, missed):
    heard.append(("gap", event, peer.port, missed))

@net.subscribe("number", {options}on_gap=gap)
def hear(value):
    heard.append(value)
"""


def subscriber(*publishers: PeerProcess, more: str = "") -> str:
    """The script of an application that hears these publishers, or all peers."""
    peers = f"peers={[process.id for process in publishers]!r}, " if publishers else ""
    return SUBSCRIBER.format(options=peers + more)


def ask(process: PeerProcess, expression: str, timeout: float = 10.0) -> Any:
    """The value of an expression in that process, as a literal."""
    process.execute(f"print(repr(({expression})), flush=True)")
    return ast.literal_eval(process.read_line(timeout))


def until(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What ``check()`` gives as soon as it is true."""
    deadline = time.monotonic() + patience(seconds)
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds:g} s"
        time.sleep(0.02)


def wait_for_subscribers(publisher: PeerProcess, count: int, seconds: float = 10.0) -> None:
    """Return when this many peers are subscribed to its event."""
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))") == count,
          seconds)


def wait_until_heard(process: PeerProcess, count: int, seconds: float = 10.0) -> list[Any]:
    """What the process has heard, as soon as it has heard this many."""
    until(lambda: ask(process, "len(heard)") >= count, seconds)
    return ask(process, "heard")
