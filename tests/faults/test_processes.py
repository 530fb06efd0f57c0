"""Peers that are killed, frozen, restarted or held up: the promised error within its time."""
from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import net
from net.identity import encode_text
from net.process import process
from net.run import client
from processes import environment, run_python
from service import until
from times import patience

SECRET = "correct horse battery"

APPLICATION = """
import threading, time
import net
ran = []
@net.connect("add")
def add(a, b):
    ran.append(1)
    return a + b
@net.connect("ran")
def count():
    return len(ran)
@net.connect("wait")
def wait(seconds):
    ran.append(1)
    time.sleep(seconds)
@net.connect("hold")
def hold(seconds):
    # One long step in C that keeps the interpreter's lock, as some extensions do.
    import ctypes
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
"""

#: Has less time for a greeting than usual.
IMPATIENT = APPLICATION + """
from net.run import server_connection
server_connection.GREETING_TIME = 1.0
"""

MODES = pytest.mark.parametrize("mode", [{}, {"NET_SECRET": SECRET}], ids=["open", "secret"])


def call(address: tuple, name: str, *args: Any, timeout: float = 15) -> Any:
    return process.client.call(address, encode_text(name), args, {}, timeout)


class Later(threading.Thread):
    """A call in a thread of its own; ``outcome`` is its value or its error."""

    def __init__(self, *call: Any, **more: Any) -> None:
        super().__init__()
        self._call, self._more = call, more
        self.start()

    def run(self) -> None:
        try:
            self.outcome = call(*self._call, **self._more)
        except net.NetError as problem:
            self.outcome = problem
        self.ended = time.monotonic()


@MODES
def test_a_peer_killed_in_a_call_is_an_error_within_two_seconds(peer_process, configure, mode):
    configure(secret=mode.get("NET_SECRET"))
    peer = peer_process(APPLICATION, **mode)
    later = Later(peer.address, "wait", 20)
    until(lambda: call(peer.address, "ran") == 1)
    killed = time.monotonic()
    peer.kill()
    later.join(patience(5))
    assert isinstance(later.outcome, net.PeerLost) and later.outcome.ran == "maybe"
    assert later.ended - killed < 2
    with pytest.raises(net.PeerUnreachable) as caught:
        call(peer.address, "add", 2, 3)
    assert caught.value.ran == "no"


@MODES
def test_a_restarted_peer_takes_the_same_port_and_the_next_call_is_right(
        peer_process, configure, mode):
    configure(secret=mode.get("NET_SECRET"))
    peer = peer_process(APPLICATION, **mode)
    assert call(peer.address, "add", 2, 3) == 5
    peer.kill()
    again = peer_process(APPLICATION, **mode)
    assert again.address == peer.address
    assert call(again.address, "add", 2, 3) == 5
    assert call(again.address, "ran") == 1


def test_a_restarted_peer_may_have_another_tier_than_the_pooled_connection(
        peer_process, configure):
    peer = peer_process(APPLICATION)
    assert call(peer.address, "add", 2, 3) == 5
    peer.kill()
    again = peer_process(APPLICATION, NET_SECRET=SECRET)
    assert again.address == peer.address
    with pytest.raises(net.AuthenticationError):
        call(again.address, "add", 2, 3)
    configure(secret=SECRET)
    assert call(again.address, "ran") == 0


@MODES
def test_a_frozen_peer_costs_the_timeout_and_is_usable_afterwards(peer_process, configure, mode):
    configure(secret=mode.get("NET_SECRET"))
    peer = peer_process(APPLICATION, **mode)
    assert call(peer.address, "add", 2, 3) == 5
    peer.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(2):  # over the pooled connection, then over a new one
        with pytest.raises(net.CallTimeout):
            call(peer.address, "add", 2, 3, timeout=0.4)
    assert time.monotonic() - started < patience(2)
    peer.signal(signal.SIGCONT)
    assert call(peer.address, "add", 4, 5) == 9
    until(lambda: call(peer.address, "ran") <= 4)
    assert call(peer.address, "ran") <= 4  # each at most once


@pytest.fixture
def patient(monkeypatch) -> None:
    """A caller that waits for a greeting for longer than this machine may be busy."""
    monkeypatch.setattr(client, "GREETING_TIME", patience(15))


def test_a_peer_frozen_for_longer_than_a_greeting_may_take_loses_nobody(peer_process, patient):
    """What arrived while the process stood still arrived in time."""
    peer = peer_process(IMPATIENT)
    peer.signal(signal.SIGSTOP)
    later = Later(peer.address, "add", 2, 3)
    time.sleep(1.5)
    peer.signal(signal.SIGCONT)
    later.join(patience(15))
    assert later.outcome == 5


@MODES
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="no ctypes.PyDLL")
def test_a_function_that_holds_the_interpreter_delays_others_but_loses_none(
        peer_process, configure, patient, mode):
    configure(secret=mode.get("NET_SECRET"))
    peer = peer_process(IMPATIENT, **mode)
    assert call(peer.address, "add", 1, 1) == 2
    holding = Later(peer.address, "hold", 1.5)
    time.sleep(0.3)
    others = [Later(peer.address, "add", number, 1) for number in range(4)]
    for number, other in enumerate(others):
        other.join(patience(12))
        assert other.outcome == number + 1
    holding.join(patience(12))
    assert holding.outcome is None


FORKED = """
import os, sys, threading
import net
@net.connect("add")
def add(a, b): return a + b
address = (sys.argv[1], int(sys.argv[2]))
wrong = []
def calls():
    for number in range(300):
        if add(number, 1, peer=address) != number + 1: wrong.append(number)
threads = [threading.Thread(target=calls) for _ in range(4)]
for thread in threads: thread.start()
children = []
for number in range(8):
    pid = os.fork()
    if not pid:
        os._exit(0 if add(number, 2, peer=address) == number + 2 else 1)
    children.append(pid)
for thread in threads: thread.join()
codes = [os.waitpid(pid, 0)[1] for pid in children]
print(wrong, codes)
"""


@MODES
def test_a_fork_while_calls_are_in_flight_disturbs_none(peer_process, mode):
    peer = peer_process(APPLICATION, **mode)
    host, port = peer.address
    done = run_python("-W", "ignore", "-c", FORKED, host, str(port), NET_LAUNCH="0", **mode)
    assert done.stdout == f"[] {[0] * 8}\n"


SIGPIPE = """
import signal, sys, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
import net
@net.connect("add")
def add(a, b): return a + b
@net.connect("wait")
def wait(seconds): pass
address = (sys.argv[1], int(sys.argv[2]))
print(add(1, 2, peer=address), flush=True)
sys.stdin.readline()
for _ in range(3):
    try: add.on(address, timeout=2)(b"x" * 5_000_000, b"y")
    except net.NetError as problem: print(type(problem).__name__, flush=True)
"""


@MODES
def test_the_default_of_sigpipe_kills_nobody(peer_process, mode, tmp_path):
    peer = peer_process(APPLICATION, **mode)
    host, port = peer.address
    with subprocess.Popen([sys.executable, "-c", SIGPIPE, host, str(port)], text=True,
                          env=environment(NET_LAUNCH="0", **mode), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == "3\n"
        peer.kill()
        rest, _ = program.communicate("\n", timeout=patience(15))
    assert program.returncode == 0
    assert len(rest.split()) == 3


SMALL_STACK = """
import sys, threading
threading.stack_size({stack})
import net
from net.settings import settings
from net.peer import _Peer
from net.wire.frames import HEADER
from service import PREFACE, Raw

@net.connect("echo")
def echo(value): return value

peer = _Peer(test=True)
address = peer.host, peer.port

def nested(depth):
    value = 1
    for _ in range(depth): value = [value] if depth % 2 else dict(a=value)
    return value

def work():
    assert echo(nested(100), peer=address) == nested(100)
    assert echo(tuple([nested(99)]), peer=address) == (nested(99),)
    for depth in (101, 300):  # to free much deeper ones kills small threads, without any net
        try: echo(nested(depth), peer=address)
        except net.ValueNotSupported: pass
        else: raise SystemExit("too deep was sent")
    call = b'{{"tag":"%s","args":' % net.identity.encode_text("echo")
    for text in (b"[" * 100_000, b'{{"a":' * 100_000, b'["",' * 50_000, b'{{"!tuple":[' * 100_000):
        text = call + text
        for flags in (0, 1):
            with Raw(address, PREFACE + HEADER.pack(1, flags, 0, 1, len(text)) + text) as raw:
                try: raw.reply()
                except net.ProtocolError: pass
                else: raise SystemExit("too deep was read")
    try: echo("x", 10 ** 5000, peer=address)
    except TypeError: pass
    assert echo(10 ** 5000, peer=address) == 10 ** 5000
    print("fine")

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("stack", [256, 512])
def test_nested_json_never_hurts_a_thread_with_a_small_stack(stack: int):
    from pathlib import Path

    support = str(Path(__file__).resolve().parents[1] / "support")
    script = f"import sys; sys.path.insert(0, {support!r})\n" + \
        SMALL_STACK.format(stack=stack * 1024)
    assert run_python("-c", script, timeout=19).stdout == "fine\n"
