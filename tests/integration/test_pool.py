"""Connections between two peers: kept, shared, replaced, let go of."""
from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

import net
import net.testing
import sample
from net.clock import uptime
from net.process import process as here
from net.testing import LocalPeer
from processes import run_python
from times import patience


def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def at_once(count: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> List[Any]:
    """What some calls at the same time gave or raised."""
    results: List[Any] = []

    def run() -> None:
        try:
            results.append(call(*args, **kwargs))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ------------------------------------------------------------------------------------------ reuse

@pytest.fixture
def peer() -> Iterator[LocalPeer]:
    with net.testing.peers(1, processes=False) as [peer]:
        yield peer


def test_calls_one_after_the_other_share_a_connection(peer):
    assert [sample.connections_open(peer=peer) for _ in range(20)] == [1] * 20


def test_calls_at_once_take_as_many_and_later_calls_share_them(peer):
    assert at_once(5, sample.wait, 0.2, "x", peer=peer) == ["x"] * 5
    assert sample.connections_open(peer=peer) == 5
    assert at_once(5, sample.wait, 0.1, "y", peer=peer) == ["y"] * 5
    for _ in range(20):
        assert sample.connections_open(peer=peer) == 5


def test_errors_of_functions_keep_the_connection(peer):
    for _ in range(5):
        with pytest.raises(KeyError):
            sample.fail("KeyError", "x", peer=peer)
        assert sample.connections_open(peer=peer) == 1


def test_a_caller_that_ends_leaves_no_connection_behind(sample_process):
    process = sample_process()
    run_python("-c", f"import sample; assert sample.where(peer={process.id!r}) == {process.pid}")
    until(lambda: sample.connections_open(peer=process.id) == 1)


def test_a_call_that_timed_out_leaves_no_connection_behind(peer):
    for _ in range(3):
        with pytest.raises(net.CallTimeout):
            sample.wait.on(peer, timeout=0.02)(0.1)
    until(lambda: sample.connections_open(peer=peer) == 1)


# --------------------------------------------------------------------------------------- restarts

@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_restarted_peer_is_called_without_an_error_and_once(sample_process, end, connections):
    first = sample_process()
    assert at_once(connections, sample.wait, 0.1, peer=first.id) == [None] * connections
    assert sample.count("restarted", peer=first.id) == 1
    getattr(first, end)()
    second = sample_process()
    assert second.address == first.address and second.pid != first.pid
    # With whatever waits in the pool from before.
    for number in range(1, 5):
        assert sample.count("restarted", peer=first.id) == number
    assert at_once(4, sample.where, peer=first.id) == [second.pid] * 4
    assert sample.counted("restarted", peer=second.id) == 4


# A program serves from its first decorator on: for a moment it does not have the later ones yet.
ENDED = (net.PeerLost, net.PeerUnreachable, net.InvalidConnection)


def test_a_peer_that_restarts_again_and_again_runs_each_call_once_at_most(sample_process):
    # Calls go on all the while. Each ends with its own number or a typed error, and what ran
    # without an error ran once.
    process = sample_process()
    stop = threading.Event()
    outcomes: List[Any] = []

    def call_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                outcomes.append(sample.echo(number, peer=process.id) == number)
            except ENDED as error:
                outcomes.append(type(error))
                stop.wait(0.01)

    callers = [threading.Thread(target=call_on) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(3):
            until(lambda: outcomes and outcomes[-1] is True)
            process.kill()
            until(lambda: outcomes[-1] is net.PeerUnreachable)
            process = sample_process()
    finally:
        until(lambda: outcomes[-1] is True)
        stop.set()
        for caller in callers:
            caller.join()
    assert set(outcomes) <= {True, *ENDED}


def test_a_connection_that_the_peer_let_go_of_is_replaced():
    with net.testing.peers(1, processes=False, idle_time=0.1) as [peer]:
        before = sample.count("idle", peer=peer)
        (connection,) = here.client._pools[peer.address]._idle
        until(connection.stream.is_readable)
        assert sample.count("idle", peer=peer) == before + 1


def test_a_peer_of_another_application_at_the_same_port_says_so(sample_process, peer_process):
    first = sample_process()
    assert sample.where(peer=first.id) == first.pid
    first.close()
    second = peer_process("import net")
    assert second.address == first.address
    with pytest.raises(net.InvalidConnection):
        sample.where(peer=first.id)
    assert net.info(peer=first.id)["pid"] == second.pid


# ------------------------------------------------------------------------------------ interruptions

INTERRUPTED = """
import gc, os, signal, threading, time
import sample

peer, count = {peer!r}, 300
armed = False
sent = threading.Event()

def interrupt(*given):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def send():
    # At any moment of a call, also between two of its steps.
    for number in range(count):
        time.sleep(0.0005 + number % 7 * 0.0003)
        os.kill(os.getpid(), signal.SIGINT)
    sent.set()

signal.signal(signal.SIGINT, interrupt)
threading.Thread(target=send).start()
wrong = interrupted = number = 0
while not sent.is_set():
    number += 1
    value = [number, "x" * 3000]
    try:
        armed = True
        wrong += sample.echo(value, peer=peer) != value
        armed = False
    except KeyboardInterrupt:
        interrupted += 1
assert sample.echo("after", peer=peer) == "after"
deadline = time.monotonic() + 5
while sample.connections_open(peer=peer) > 1 and time.monotonic() < deadline:
    gc.collect()
# Its own connection, of course, and the descriptors that every process has.
print(wrong, interrupted > count // 3, sample.connections_open(peer=peer),
      len(os.listdir("/proc/self/fd")) < 12)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_interrupts_at_any_moment_leave_right_replies_and_no_descriptors(sample_process):
    process = sample_process()
    done = run_python("-W", "ignore", "-c", INTERRUPTED.format(peer=process.id), NET_LAUNCH=0)
    assert done.stdout == "0 True 1 True\n", done.stderr


def test_a_stopped_callers_connection_is_still_right_when_it_goes_on(sample_process, other):
    process = sample_process()
    process.execute(f"print(echo('before', peer={other.id!r}), flush=True)")
    assert process.read_line() == "before"
    process.execute(f"print(wait(0.3, 'after', peer={other.id!r}), flush=True)")
    process.signal(signal.SIGSTOP)
    time.sleep(0.4)
    process.signal(signal.SIGCONT)
    assert process.read_line() == "after"


# ------------------------------------------------------------------------------------- many peers

def test_a_caller_keeps_few_descriptors_for_peers_that_come_and_go(sample_process):
    # Peers of one process: what counts is the caller's side.
    def sockets() -> int:
        return sum(len(pool._idle) for pool in here.client._pools.values())

    before = sockets()
    for _ in range(20):
        peer = net.peer._Peer(test=True)
        assert sample.where(peer=peer.id) == os.getpid()
        peer.close()
    assert sockets() - before <= 20
    for pool in here.client._pools.values():
        for connection in pool._idle:
            connection.idle_since -= 61
    here.client.close_old(uptime())
    other = sample_process()
    assert sample.where(peer=other.id) == other.pid
    assert sockets() == 1


def test_a_listener_that_never_accepts_is_a_timeout(sample_process):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        start = time.monotonic()
        with pytest.raises(net.CallTimeout):
            sample.where.on(listener.getsockname(), timeout=0.2)()
        assert time.monotonic() - start < patience(1)
