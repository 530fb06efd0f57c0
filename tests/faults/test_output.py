"""Log lines and warnings that cannot be written: calls and events go on, on both sides."""
from __future__ import annotations

from typing import Any

import pytest

from hearing import ask, until
from processes import PeerProcess, run_python
from service import Raw, greeted, request
from times import patience

#: What is wrong with where an application writes.
TROUBLES = {
    "a full disk": "handler = logging.FileHandler('/dev/full')",
    "a handler that raises": """
class Broken(logging.Handler):
    def emit(self, record): raise OSError(28, "No space left on device")
handler = Broken()""",
    "a closed sys.stderr": "handler = logging.StreamHandler(); sys.stderr.close()",
    "no sys.stderr": "handler = logging.StreamHandler(); sys.stderr = None",
    "a closed descriptor": "handler = logging.StreamHandler(); os.close(2)",
}

APPLICATION = """
import logging, os, sys
import threading
import net
{trouble}
logging.getLogger().addHandler(handler)
logging.getLogger("net").setLevel(logging.DEBUG)
# Threads that an error ended.
ended = []
threading.excepthook = lambda arguments: ended.append(repr(arguments.exc_value))

@net.connect("double")
def double(number): return 2 * number

@net.event("number")
def number(value): return (value,), {{}}

heard = []
{hear}
"""

HEAR = """
@net.subscribe("number", peers={peers!r})
def hear(value):
    heard.append(value)
    if value == "raise": raise ValueError(value)
"""


def application(trouble: str, *publishers: bytes) -> str:
    hear = HEAR.format(peers=list(publishers)) if publishers else ""
    return APPLICATION.format(trouble=TROUBLES[trouble], hear=hear)


def calls(one: PeerProcess, other: PeerProcess) -> int:
    return ask(one, f"double.on({other.address!r}, timeout={patience(5)})(21)")


def subscribers(publisher: PeerProcess) -> int:
    return ask(publisher, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))")


@pytest.mark.parametrize("trouble", TROUBLES)
def test_where_nothing_can_be_written_calls_and_events_go_on(peer_process: Any, trouble: str):
    publisher = peer_process(application(trouble))
    script = application(trouble, publisher.id)
    hearer, passing = peer_process(script), peer_process(script)
    until(lambda: subscribers(publisher) == 2)

    # Each of these is a log line of one side or of both.
    with Raw(publisher.address, b"GET / HTTP/1.1\r\n\r\n") as raw:
        assert raw.rest() == b""
    with Raw(publisher.address, greeted(request("double", 2)), b"\xff" * 50) as raw:
        raw.rest()
    passing.kill()
    ask(publisher, "number('raise')")
    until(lambda: subscribers(publisher) == 1)
    until(lambda: ask(hearer, "heard") == ["raise"])
    publisher.kill()
    publisher = peer_process(application(trouble))
    until(lambda: subscribers(publisher) == 1)

    for value in range(3):
        ask(publisher, f"number({value})")
    assert until(lambda: ask(hearer, "heard[3:] and heard")) == ["raise", 0, 1, 2]
    assert calls(publisher, hearer) == calls(hearer, publisher) == 42
    assert ask(hearer, "ended") == ask(publisher, "ended") == []


WARNED = """
import sys
import net
{trouble}
for _ in range(2):
    @net.connect("same")
    def function(): return 1
print(net.Peer().launched, function())
"""


@pytest.mark.parametrize("trouble", ["sys.stderr.close()", "sys.stderr = None"])
def test_a_warning_that_cannot_be_written_stops_no_application(port_range: range, trouble: str):
    done = run_python("-c", WARNED.format(trouble=trouble), NET_PORT_START=str(port_range.start))
    assert done.stdout == "True 1\n"
