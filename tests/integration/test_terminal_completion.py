"""Completion of the words of ``app-net`` by shells."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import farm
import net.testing
from net import cli
from processes import environment
from terminal import run_net


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


@pytest.mark.parametrize("shell, ask", [
    ("bash", "source <(app-net completion bash); COMP_WORDS=(app-net pi); COMP_CWORD=1; _app_net; "
             "echo \"${COMPREPLY[@]}\""),
    ("zsh", "autoload -U compinit; compinit -D; source <(app-net completion zsh); "
            "compadd() { shift; print -r -- $@ }; words=(app-net pi); CURRENT=2; _app_net"),
    ("fish", "app-net completion fish | source; complete -C 'app-net pi'")])
def test_the_shells_take_what_is_printed_for_them(program, shell, ask):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    path = os.pathsep.join((str(program), os.environ["PATH"]))
    done = subprocess.run([shell, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment(PATH=path, HOME=str(program)))
    assert done.stdout.split() == ["ping"] and not done.stderr, done
