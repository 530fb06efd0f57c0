"""``python3 -m net demo`` and the commands' frame, as a newcomer runs them."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from processes import INTERRUPTED, environment, run_python

from net import cli


def start_demo(stdout=subprocess.PIPE):
    return subprocess.Popen([sys.executable, "-m", "net", "demo"], env=environment(), text=True,
                            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                            start_new_session=True)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not our child; the test's time limit ends it."""
    while is_running(pid):
        time.sleep(0.01)


def pid_in(line: str) -> int:
    return int(line.rpartition(" ")[2])


def test_the_demo_shows_each_thing_and_exits_with_0():
    done = run_python("-m", "net", "demo")
    said = done.stdout
    for shown in ("found 1 peer", "multiply(5, some_kwarg=10, peer=peer)   ->  50",
                  "raises ZeroDivisionError: division by zero", "| ZeroDivisionError",
                  "in divide", "who are you", "heard  frame 3", "16 MB there and back",
                  "That is all"):
        assert shown in said
    assert "ALTERED" not in said
    # But for the lines of a traceback, which has paths.
    assert max(len(line) for line in said.splitlines() if line[:7] != "      |") <= 80
    assert not done.stderr
    second = next(line for line in said.splitlines() if line.startswith("1. "))
    wait_until_gone(pid_in(second))


@pytest.mark.parametrize("group", [True, False])
def test_the_demo_leaves_no_process_behind_when_it_is_interrupted(group):
    demo = start_demo()
    second = pid_in(next(line for line in demo.stdout if line.startswith("1. ")).strip())
    # A terminal sends it to the whole group, a program to one process.
    (os.killpg if group else os.kill)(demo.pid, signal.SIGINT)
    said, errors = demo.communicate()
    assert demo.returncode in INTERRUPTED
    assert "Traceback" not in errors
    wait_until_gone(second)


def test_the_demo_leaves_no_process_behind_when_it_is_killed():
    demo = start_demo()
    second = pid_in(next(line for line in demo.stdout if line.startswith("1. ")).strip())
    demo.kill()
    demo.communicate()
    wait_until_gone(second)


def test_a_wrong_command_lists_those_there_are(capsys):
    assert cli.main(["nonsense\x1b[31m"]) == 2
    errors = capsys.readouterr().err
    assert "\x1b" not in errors
    assert all(f"  {name} " in errors for name in cli.COMMANDS)


def test_no_command_and_help_print_the_usage(capsys):
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    written = capsys.readouterr()
    assert written.out.count("usage:") == written.err.count("usage:") == 1


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert not ended.value.code
    assert f"usage: {cli._program()} {name}" in capsys.readouterr().out


def test_a_program_explains_its_commands():
    assert "usage: python3 -m net peers" in run_python("-m", "net", "peers", "--help").stdout


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    demo = start_demo(stdout=writing)
    os.close(writing)
    _, errors = demo.communicate()
    assert demo.returncode == 0
    assert not errors
