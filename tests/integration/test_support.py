"""What the other tests rely on: leaks are seen, ports are ours, processes end."""
from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading

import pytest

from leaks import Snapshot
from ports import PortRange


def test_an_open_socket_is_a_leak_until_it_is_closed():
    before = Snapshot()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (leak,) = before.leaks(grace=0)
        assert str(server.getsockname()[1]) in leak
    assert before.leaks(grace=0) == []


def test_a_running_thread_is_a_leak_until_it_ends():
    before = Snapshot()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="waits", daemon=True)
    thread.start()
    (leak,) = before.leaks(grace=0)
    assert "waits" in leak
    release.set()
    assert before.leaks() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are read from /proc")
def test_a_child_process_is_a_leak_until_it_is_waited_for():
    before = Snapshot()
    wait = "import sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE)
    (leak,) = before.leaks(grace=0)
    assert str(child.pid) in leak
    child.communicate()
    assert before.leaks(grace=0) == []


def test_a_port_range_is_free_and_nobody_else_is_given_it():
    first, second = PortRange(), PortRange()
    assert not set(first.ports) & set(second.ports)
    for port in first.ports:
        socket.create_server(("127.0.0.1", port)).close()
    first.close()
    second.close()


def test_a_peer_process_runs_its_script_and_then_what_it_is_told(peer_process, port_range):
    process = peer_process("print('hello')\nnumber = 6")
    assert process.read_line() == "hello"
    process.execute("print(number * 7)")
    assert process.read_line() == "42"
    assert process.address[1] in port_range
    assert process.close() == 0


def test_a_peer_process_that_fails_shows_why(peer_process):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        peer_process("1 / 0")


def test_a_peer_process_that_does_not_react_is_ended_all_the_same(peer_process):
    process = peer_process("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.execute("time.sleep(60)")
    process.stop(grace=0.1)
    assert process.process.returncode == -signal.SIGKILL
