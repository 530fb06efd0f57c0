"""``app-net top``: in a terminal emulator, and as lines."""
from __future__ import annotations

import os
import re
import threading

import pytest

import farm
import net
import net.testing
from processes import environment
from terminal import Emulated, Terminal, run_net


@pytest.fixture
def network():
    with net.testing.peers(2, app="farm") as found:
        yield found


def settings_of(network):
    first = min(peer.address[1] for peer in network)
    return {"NET_PORT_START": first, "NET_PORT_RANGE": 5}


@pytest.fixture
def busy(network):
    """Somebody calls the first of the two all the time."""
    stop = threading.Event()

    def work():
        while not stop.wait(0.01):
            farm.render("x", peer=network[0])
    thread = threading.Thread(target=work)
    thread.start()
    yield network
    stop.set()
    thread.join()


def test_it_tells_scripts_what_peers_do(busy):
    done = run_net("top", "-n", "2", "--every", "0.5", "--json", **settings_of(busy))
    assert done.code == 0 and len(done.lines) == 2
    for rows in done.lines:
        by_peer = {row["peer"]: row for row in rows}
        a, b = (by_peer[f"127.0.0.1:{peer.address[1]}"] for peer in busy)
        assert a["rate"] > 1 and a["p99"] >= a["p50"] > 0 and b["rate"] < a["rate"]
        assert "farm.render" in [one["name"] for one in a["functions"] if one["rate"] > 0]


def test_it_prints_tables_into_a_pipe(network):
    done = run_net("top", "-n", "1", "--every", "0.1", "--timeout", "0.5",
                   **settings_of(network))
    lines = done.out.splitlines()
    assert done.code == 0 and lines[0].split()[:2] == ["peer", "calls/s"]
    assert any(f"127.0.0.1:{network[0].address[1]}" in line for line in lines)


@pytest.fixture(params=["rich", "plain"])
def view(request, tmp_path):
    """What shows it, as an environment: rich, or what there is where rich is not installed."""
    if request.param == "rich":
        pytest.importorskip("rich")
        return {}
    (tmp_path / "rich.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])}


@pytest.mark.parametrize("columns", [80, 200])
def test_it_lives_in_a_terminal(busy, view, columns):
    pytest.importorskip("pyte")
    a, b = (f"127.0.0.1:{peer.address[1]}" for peer in busy)
    with Terminal("top", "--every", "0.2", columns=columns, **settings_of(busy),
                  **view) as terminal:
        shown = Emulated(terminal, columns)
        # The last line is drawn last.
        lines = shown.wait_for(
            lambda lines: a in lines[2] and b in lines[3] and "x: end" in lines[23])
        assert lines[0].startswith("app-net top") and "by calls" in lines[0]
        for title in ("calls/s", "err/s", "p50 ms", "p99 ms", "runs", "load", "ev/s", "queued"):
            assert title in lines[1]
        if not view and columns == 200:  # the sparkline of its calls
            shown.wait_for(lambda lines: set("\u2587\u2588") & set(lines[2]))
        # No events are triggered, so ordering by events keeps the order of the addresses.
        terminal.type("v")
        shown.wait_for(lambda lines: "by events" in lines[0])
        first, second = sorted((a, b))
        terminal.type("k")
        shown.wait_for(lambda lines: lines[2].startswith(">") and first in lines[2])
        assert shown.screen.buffer[2][5].reverse and not shown.screen.buffer[3][5].reverse
        terminal.type("\x1b[B")
        shown.wait_for(lambda lines: lines[3].startswith(">") and second in lines[3])
        terminal.type("k")
        shown.wait_for(lambda lines: lines[2].startswith(">"))
        terminal.type("\r")
        lines = shown.wait_for(lambda lines: "Enter: back" in lines[23] and any(
            line.startswith("function") for line in lines))
        assert first in lines[1] and "events/s" in lines[3] and "queued" in lines[3]
        terminal.type("\r")
        shown.wait_for(lambda lines: lines[2].startswith(">"))
        terminal.type("x")
        assert terminal.end() == 0
    assert terminal.text.endswith("\x1b[?25h\x1b[?1049l") and "Traceback" not in terminal.text


def test_no_colour_is_no_colour_with_rich_too(network):
    with Terminal("top", **settings_of(network), NO_COLOR="1") as terminal:
        terminal.wait_for("p99 ms")
        terminal.type("x")
        assert terminal.end() == 0
    assert not re.search("\x1b\\[[0-9;]*m", terminal.text)


def test_a_peer_that_does_not_answer_is_named(network):
    port = network[1].address[1]
    network[1].cut()
    done = run_net("top", f"127.0.0.1:{port}", "-n", "1", "--every", "0.1",
                   **settings_of(network))
    assert done.code == 1 and done.out.splitlines()[1].startswith(f"!  127.0.0.1:{port}")
    assert "PeerUnreachable" in done.out or "PeerLost" in done.out


def test_ctrl_c_leaves_the_terminal_as_it_was(network):
    with Terminal("top", **settings_of(network)) as terminal:
        terminal.wait_for("app-net top")
        terminal.signal()
        assert terminal.end() == 0
    assert terminal.text.endswith("\x1b[?25h\x1b[?1049l") and "Traceback" not in terminal.text


def test_without_peers_there_is_nothing_to_see(port_range):
    done = run_net("top", NET_PORT_START=port_range.start)
    assert done.code == 1 and not done.out and "no peers" in done.err
