"""Completion of the words of ``app-net`` by shells."""
from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import farm
import net.testing
from net import cli
from terminal import Emulated, Terminal, run_net


def words(*given, **settings):
    return run_net("completion", "words", "--", *given, **settings).out.splitlines()


def test_commands_and_options_are_completed():
    assert words("p") == ["peers", "ping"]
    assert set(cli.COMMANDS) <= set(words(""))
    assert words("ping", "--") == ["--help", "--json", "--timeout"]
    assert words("serve", "--wor") == ["--workers"] and "--with-parent" not in words("serve", "--")
    assert words("completion", "") == ["bash", "fish", "zsh"]
    assert words("nonsense", "") == words("secret", "x") == []


def test_peers_and_functions_are_completed():
    with net.testing.peers(1, app="farm", name="workstation 7") as [a]:
        place = {"NET_PORT_START": a.address[1], "NET_PORT_RANGE": 0}
        address = f"127.0.0.1:{a.address[1]}"
        assert words("call", "", **place) == [address, "all", "any", "workstation 7"]
        for peer in ("any", address, "workstation 7"):
            assert words("--json", "call", peer, "farm.r", **place) == ["farm.render"]
        assert words("call", "nobody", "f", **place) == []
        assert words("functions", "any", "farm.p", **place) == ["farm.pid"]
    assert farm.pid() == os.getpid()


@pytest.fixture
def program(tmp_path: Path):
    """A folder with the script ``app-net``, as it is installed."""
    script = tmp_path / "app-net"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -m net \"$@\"\n")
    script.chmod(0o755)
    return tmp_path


# Takes the pseudo-terminal as its own, and becomes a shell.
SHELL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
STARTS = {
    "bash": (["--noprofile", "--norc", "-i"], "source <(app-net completion bash)"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -D; source <(app-net completion zsh)"),
    "fish": (["--no-config", "-i"], "app-net completion fish | source"),
}
# What is typed before the Tab key, and the end of the line behind it.
PRESSES = [
    ("app-net call 127.0.0.1:PO", "RT"),
    ("app-net --timeout 5 functions wor", "kstation\\ 7"),
    ("app-net call \"wor", "kstation 7\""),
    ("app-net ping --timeout 5 wor", "kstation\\ 7"),
    ("app-net call workstation\\ 7 farm.re", "nder"),
    ("app-net serve tools/ren", "der.py"),
]


@pytest.mark.parametrize("shell", STARTS)
def test_the_tab_key_completes_in_a_shell(program, shell):
    pytest.importorskip("pyte")
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    (program / "tools").mkdir()
    (program / "tools" / "render.py").touch()
    options, setup = STARTS[shell]
    with net.testing.peers(1, app="farm", name="workstation 7") as [a]:
        port = str(a.address[1])
        settings = {"NET_PORT_START": port, "NET_PORT_RANGE": 0, "HOME": program, "PS1": "$ ",
                    "PATH": os.pathsep.join((str(program), os.environ["PATH"]))}
        with Terminal(shell, *options, columns=100, program=("-c", SHELL), folder=program,
                      **settings) as terminal:
            shown = Emulated(terminal, 100)
            terminal.type(f"{setup}; echo rea''dy\r")
            shown.wait_for(lambda lines: "ready" in lines)
            for typed, more in PRESSES:
                typed = typed.replace("PO", port[:2])
                terminal.type(typed + "\t")
                whole = typed + more.replace("RT", port[2:])
                shown.wait_for(lambda lines: any(line.endswith(whole) for line in lines))
                terminal.type("\x15")  # takes the line away
