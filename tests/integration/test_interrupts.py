"""Ctrl-C at moments at which nobody waits for it: no command shows a traceback."""
from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from processes import INTERRUPTED, environment
from times import patience

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Interrupts its own process at the given moment: an audit event and its first argument.
SITE = """
import atexit, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def look(event, arguments, moment=os.environ.pop("MOMENT", "").split()):
    if moment and moment in ([event], [event, *map(str, arguments[:1])]):
        moment.clear()
        interrupt()

if os.environ.pop("AT_EXIT", ""):
    atexit.register(interrupt)
sys.addaudithook(look)
"""
SCRIPT = "import sys\nfrom net.cli import program\nsys.exit(program())\n"
IMPORTS = ["import net.context", "import net.cli.top"]


@pytest.fixture
def interrupted(program, tmp_path: Path):
    """Start a command that is interrupted at a moment; its process."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "app-net").write_text(SCRIPT)
    (tmp_path / "app.py").write_text("import sitecustomize\nsitecustomize.interrupt()\n")
    path = os.pathsep.join((environment()["PYTHONPATH"], str(tmp_path)))

    def start(words, command=(str(tmp_path / "app-net"),), **moment):
        return program(*command, *words.split(), cwd=tmp_path, PYTHONPATH=path, **moment)
    return start


def look_at(process) -> None:
    """It has ended by the interrupt, and shows nothing of itself."""
    _, errors = process.communicate(timeout=patience(15))
    assert process.returncode in INTERRUPTED and not errors, (process.returncode, errors)


def test_while_it_is_imported(interrupted):
    for process in [interrupted("peers", MOMENT=moment) for moment in IMPORTS]:
        look_at(process)


@pytest.mark.skipif(not hasattr(sys, "orig_argv"), reason="Python does not tell what it imports")
def test_while_it_is_imported_as_a_module(interrupted):
    for process in [interrupted("peers", ("-m", "net"), MOMENT=moment) for moment in IMPORTS]:
        look_at(process)


def test_while_it_starts(interrupted):
    for process in [interrupted(words, MOMENT=moment) for words, moment in [
            ("serve app", ""), ("listen x", "socket.bind"), ("peers", "socket.sendto"),
            ("demo", "socket.bind"), ("demo", "subprocess.Popen")]]:
        look_at(process)


def test_while_python_ends(interrupted):
    process = interrupted("secret", AT_EXIT=1)
    said, errors = process.communicate(timeout=patience(15))
    assert process.returncode == -signal.SIGINT and said and not errors
