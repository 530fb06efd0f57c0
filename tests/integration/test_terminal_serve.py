"""``app-net serve``: modules as peers, reloading, several processes, and how they end."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import net
from hearing import until
from processes import environment
from terminal import Terminal, run_net
from times import patience

STUDIO = """
import net

class Scope:
    def read(self, channel=1):
        return channel * 10

    def _secret(self):
        return "secret"

scope = Scope()

@net.connect
def multiply(a, b):
    return a * b

def public(x):
    return x + 1

def _private():
    return "private"

class Shape:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "studio.py").write_text(STUDIO)
    return tmp_path


@pytest.fixture
def serve(folder, port_range, monkeypatch):
    """Start ``app-net serve``: a terminal, and the function that calls what is served."""
    monkeypatch.chdir(folder)
    started = []

    def start(*words, **settings):
        terminal = Terminal("serve", *words, columns=200, NET_PORT_START=port_range.start,
                            **settings)
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.__exit__()


def served(terminal: Terminal) -> str:
    """Where it serves, once it does."""
    terminal.wait_for("Ctrl-C ends it")
    found = re.findall(r"serving at (\S+?): ", terminal.text)
    return found[-1]


def call(name: str, peer: str, *args):
    return net.remote(name)(*args, peer=peer)


def test_a_module_is_served_without_a_line_of_code(serve):
    terminal = serve("studio")
    peer = served(terminal)
    assert call("studio.multiply", peer, 6, 7) == 42
    assert list(net.describe(peer=peer)) == ["studio.multiply"]
    terminal.signal(signal.SIGINT)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text


def test_objects_files_and_public_functions_are_served_on_demand(serve, folder):
    (folder / "tools").mkdir()
    (folder / "tools" / "render.py").write_text("def draw(x):\n    return x\n")
    peer = served(serve("studio:scope", "studio:public", "tools/render.py", "--all"))
    assert list(net.describe(peer=peer)) == [
        "render.draw", "scope.read", "studio.multiply", "studio.public"]
    assert call("scope.read", peer, 3) == 30


SLOW = """
import net, pathlib, time

@net.connect
def slow(path):
    pathlib.Path(path, "began").touch()
    while not pathlib.Path(path, "go on").exists():
        time.sleep(0.01)
    return "done"
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_running_calls_end_before_it_does(serve, folder, number):
    (folder / "slow.py").write_text(SLOW)
    terminal = serve("slow", NET_GRACE=60)
    running = net.remote("slow.slow").start(str(folder), peer=served(terminal))
    until(lambda: (folder / "began").exists())
    terminal.signal(number)
    (folder / "go on").touch()
    assert running.result(patience(30)) == "done"
    assert terminal.end() == 0 and "Traceback" not in terminal.text


def test_it_starts_again_when_a_file_changes(serve, folder):
    (folder / "helper.py").write_text("VALUE = 1\n")
    (folder / "app.py").write_text(
        "import net, helper\n@net.connect\ndef value():\n    return helper.VALUE\n")
    terminal = serve("app", "--reload")
    assert call("app.value", served(terminal)) == 1
    change(folder / "helper.py", "VALUE = 2 +\n")
    terminal.wait_for("SyntaxError")
    terminal.wait_for("waiting for a change")
    assert terminal.text.count("Ctrl-C ends it") == 1
    change(folder / "helper.py", "VALUE = 2\n")
    terminal.wait_for("helper.py has changed")
    until(lambda: terminal._read(time.monotonic() + 30)
          and terminal.text.count("Ctrl-C ends it") == 2, 30)
    assert call("app.value", served(terminal)) == 2
    terminal.signal(signal.SIGINT)
    assert terminal.end() == 0


def change(path: Path, text: str) -> None:
    """Write a file anew, with another time than before, whatever the file system counts in."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 2_000_000_000, before + 2_000_000_000))


def test_workers_are_as_many_peers_and_one_that_dies_is_replaced(serve, folder, port_range):
    (folder / "app.py").write_text(
        "import net, os\n@net.connect\ndef pid():\n    return os.getpid()\n")
    terminal = serve("app", "--workers", "2")
    ports = port_range[0], port_range[1]

    def pids():
        try:
            return [call("app.pid", f"127.0.0.1:{port}") for port in ports]
        except net.NetError:
            return None
    first = until(pids, 30)
    assert len(set(first)) == 2
    time.sleep(1.1)  # one that ends within its first second waits for it
    os.kill(first[0], signal.SIGKILL)
    until(lambda: first[0] not in (pids() or first), 30)
    terminal.wait_for("another one takes its place")
    last = until(pids)
    terminal.signal(signal.SIGTERM)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    for pid in last:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_ctrl_c_in_a_terminal_lets_the_calls_of_workers_end(serve, folder, again):
    (folder / "slow.py").write_text(SLOW)
    terminal = serve("slow", "--workers", "2", NET_GRACE=60)
    peer = served(terminal)
    running = net.remote("slow.slow").start(str(folder), peer=peer)
    until(lambda: (folder / "began").exists())
    os.killpg(terminal._process.pid, signal.SIGINT)
    until(lambda: not answers(peer))
    if again:
        # Once: another one could come when the program has ended all it had to.
        os.killpg(terminal._process.pid, signal.SIGINT)
        with pytest.raises(net.PeerLost):
            running.result(patience(30))
    else:
        (folder / "go on").touch()
        assert running.result(patience(30)) == "done"
    assert terminal.end() == 0 and "Traceback" not in terminal.text


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_workers_that_are_still_starting_end_without_a_word(serve, folder, number, code):
    (folder / "app.py").write_text("import pathlib, time\npathlib.Path('began').touch()\n"
                                   "time.sleep(3600)\n")
    terminal = serve("app", "--workers", "2")
    until(lambda: (folder / "began").exists(), 30)
    os.killpg(terminal._process.pid, number)
    assert terminal.end() == code and not terminal.text  # all that had it open have ended


def test_workers_that_wait_for_a_change_end_with_the_process_that_started_them(serve, folder):
    (folder / "app.py").write_text("1 / 0\n")
    terminal = serve("app", "--workers", "2", "--reload")
    terminal.wait_for("waiting for a change", 30)
    terminal.signal(signal.SIGKILL)
    assert terminal.end() == -signal.SIGKILL


def test_workers_end_with_the_process_that_started_them(serve, folder, port_range):
    terminal = serve("studio", "--workers", "2")
    peers = [f"127.0.0.1:{port}" for port in port_range[:2]]
    until(lambda: all(map(answers, peers)), 30)
    terminal.signal(signal.SIGKILL)
    until(lambda: not any(map(answers, peers)), 30)


# What a container runtime does, without one: the program is the first process of a namespace.
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def contained(folder, port_range):
    """Start ``app-net serve`` as the first process of a namespace; ``unshare``, and its pid."""
    try:
        subprocess.run([*CONTAINER, "true"], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to make a namespace of processes, and unshare")
    started = []

    def start(*words, **settings):
        process = subprocess.Popen(
            [*CONTAINER, sys.executable, "-m", "net", "serve", *words], cwd=folder, text=True,
            env=environment(NET_PORT_START=port_range.start, **settings), stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, start_new_session=True)
        started.append(process)
        assert "Ctrl-C ends it" in process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return process, int(children)

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_a_container_that_is_stopped_lets_calls_end_and_is_not_ready(
        contained, folder, port_range, more):
    (folder / "slow.py").write_text(SLOW)
    process, first = contained("slow", *more, NET_GRACE=60)
    peers = [f"127.0.0.1:{port}" for port in port_range]
    peer = until(lambda: next(filter(answers, peers), None), 30)
    probe = ["ping", peer, "-n", "1"]
    assert run_net(*probe, NET_PORT_START=port_range.start).code == 0
    running = net.remote("slow.slow").start(str(folder), peer=peer)
    until(lambda: (folder / "began").exists())
    os.kill(first, signal.SIGTERM)
    until(lambda: not answers(peer))
    assert run_net(*probe, NET_PORT_START=port_range.start).code == 1
    (folder / "go on").touch()
    assert running.result(patience(30)) == "done"
    assert process.wait(patience(15)) == 0


def answers(peer: str) -> bool:
    try:
        return net.null(peer=peer) == "NULL"
    except net.NetError:
        return False


@pytest.mark.parametrize("words, code, told", [
    (["nonsense"], 2, "no module 'nonsense'"),
    (["studio:nothing"], 2, "studio has no nothing"),
    (["studio:Shape"], 2, "a function or an object"),
    (["empty"], 1, "--all serves public functions"),
    (["broken"], 1, "ZeroDivisionError"),
    (["needs"], 1, "No module named 'not_there'"),
    (["no name"], 2, "neither the name of a module nor"),
    (["broken", "--workers", "2"], 1, "ZeroDivisionError"),
    (["studio", "--workers", "100"], 2, "NET_PORT_RANGE=99"),
    (["studio", "--workers", "0"], 2, "a number from 1")])
def test_what_cannot_be_served_is_explained(folder, monkeypatch, port_range, words, code, told):
    (folder / "empty.py").write_text("VALUE = 1\n")
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "needs.py").write_text("import not_there\n")
    monkeypatch.chdir(folder)
    done = run_net("serve", *words, NET_PORT_START=port_range.start)
    assert done.code == code and not done.out and told in done.err, done
