"""What all commands of ``app-net`` have in common, in a terminal and for scripts."""
from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import net
from processes import environment
from terminal import Terminal, run_net

RENDER = """
    import net

    @net.connect
    def render(shot):
        return shot
"""


@pytest.fixture
def peer(peer_process, port_range):
    return peer_process(RENDER, NET_NAME="workstation 7", NET_GROUP="farm")


def test_data_goes_to_stdout_and_words_to_stderr(peer, port_range):
    found = run_net("peers", NET_PORT_START=port_range.start)
    assert found.code == 0 and not found.err and str(peer.address[1]) in found.out
    none = run_net("peers", "nobody", NET_PORT_START=port_range.start)
    assert none.code == 1 and not none.out and "doctor" in none.err


def test_json_is_for_scripts(peer, port_range):
    found = run_net("peers", "--json", NET_PORT_START=port_range.start).json
    assert [(one["port"], one["group"], one["label"]) for one in found] \
        == [(peer.address[1], "farm", "workstation 7")]
    assert run_net("peers", "nobody", "--json", NET_PORT_START=port_range.start).json == []
    examined = run_net("--json", "doctor", NET_PORT_START=port_range.start).json
    assert len(examined["peers"]) == 1 and examined["causes"][0]["remedy"]


def test_nothing_is_cut_where_nobody_looks(peer, port_range):
    table = run_net("peers", NET_PORT_START=port_range.start, COLUMNS=None).out
    assert "workstation 7" in table and "~" not in table


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_terminal(peer, port_range, columns):
    for command in ("peers", "doctor"):
        with Terminal(command, columns=columns, NET_PORT_START=port_range.start) as terminal:
            assert terminal.end() == 0
        shown = re.sub(r"\x1b\[\d+m", "", terminal.text)
        assert max(map(len, shown.split("\n"))) <= columns
        assert columns < 80 or f"127.0.0.1:{peer.address[1]}" in shown


def test_colour_is_for_terminals_without_no_color(peer, port_range):
    with Terminal("peers", NET_PORT_START=port_range.start) as terminal:
        assert terminal.end() == 0
    assert terminal.text.startswith("\x1b[1maddress")
    for settings in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with Terminal("peers", NET_PORT_START=port_range.start, **settings) as terminal:
            assert terminal.end() == 0
        assert "\x1b" not in terminal.text
    assert "\x1b" not in run_net("peers", NET_PORT_START=port_range.start).out


@pytest.mark.parametrize("words", [
    ["peers", "--nonsense"], ["nonsense"], ["peers", "--timeout", "0"], ["peers", "--timeout", "x"],
    ["listen"], ["--timeout", "1"], ["secret", "--timeout", "1"]])
def test_words_that_make_no_sense_give_2_and_no_data(words):
    done = run_net(*words)
    assert done.code == 2 and not done.out and "usage:" in done.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("unbuffered, words", [
    ("", ["--help"]), ("", ["ping", "--help"]), ("1", ["ping", "--help"]), ("", ["--version"]),
    ("", ["completion", "bash"])])
def test_a_reader_that_has_gone_and_a_full_disk_leave_no_traceback(unbuffered, words):
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, os.fdopen(writing, "wb") as gone:
        for stream, code, told in ((full, 1, "the output cannot be written: "), (gone, 0, "")):
            done = subprocess.run([sys.executable, "-m", "net", *words], stdout=stream, text=True,
                                  stderr=subprocess.PIPE,
                                  env=environment(PYTHONUNBUFFERED=unbuffered))
            assert done.returncode == code and done.stderr.startswith(told), done
            assert done.stderr.count("\n") == code


def test_version():
    assert run_net("--version").out == f"app-net {net.__version__}\n"


def test_settings_that_make_no_sense_give_2(port_range):
    done = run_net("peers", NET_PORT_START="x")
    assert done.code == 2 and not done.out and "NET_PORT_START" in done.err
