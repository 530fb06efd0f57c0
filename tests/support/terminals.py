"""A real terminal with a real shell, which plays the sessions that the documentation prints."""
from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Optional, Sequence

from processes import environment
from times import patience

# What a shell and Python print where they wait for a line.
PROMPTS = ("$ ", ">>> ", "... ")
CTRL_C = "^C"
# Stands for any number of lines.
DOTS = "..."

# Seconds without a new line until a line of the page counts as missing.
LINE_LIMIT = 20.0

_COLOUR = re.compile("\x1b\\[[0-9;]*m")

# Makes the pseudo-terminal the one that Ctrl-C comes from, then becomes the shell.
_SHELL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp("bash", ["bash", "--noprofile", "--norc", "-i"])
"""


class Terminal:
    """A terminal of 40 lines and 400 columns, in a folder.

    :param folder: where the shell starts.
    :param adapted: turns a line of the page into what is typed or shown here, such as another port.
    :param prefix: the command that starts its shell, such as on a host of a virtual LAN.
    :param settings: environment variables, as for processes.environment().
    """

    def __init__(
        self, folder: Path, adapted: Callable[[str], str] = str, prefix: Sequence[str] = (),
        **settings: object
    ) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._adapted = adapted
        self._unread = ""
        # Lines of the page that must be shown before anything else is typed.
        self._expected: list[str] = []
        self._master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 400, 0, 0))
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", _SHELL], cwd=folder,
                stdin=slave, stdout=slave, stderr=slave,
                # A dumb terminal gets text and no escape sequences; so does the plain prompt.
                env=environment(**{"PS1": "$ ", "TERM": "dumb", "PYTHON_BASIC_REPL": "1",
                                   "HISTFILE": None, **settings}))
        finally:
            os.close(slave)

    def play(self, session: str) -> None:
        """Type what a session of a page has after its prompts, and compare what is shown.

        A line of dots stands for any lines, dots within a line for any text of it.
        """
        before = ""
        for line in map(self._adapted, session.splitlines()):
            prompt = _prompt(line, before)
            if line == CTRL_C:
                self._compare()
                os.write(self._master, b"\x03")
                # What a program has printed since the last line of the page is of no interest.
                self._read_until(r"(?s:.*?)\^C")
            elif prompt:
                self._compare(prompt)
                typed = line[len(prompt):]
                os.write(self._master, typed.encode() + b"\n")
                self._read_until(re.escape(typed) + r"[ \t]*\n")
            else:
                self._expected.append(line)
            before = prompt
        if self._expected[-1:] != [DOTS]:  # how many lines these are, only what follows can tell
            self._compare()

    def _compare(self, prompt: Optional[str] = None) -> None:
        # Python ends with a line of its own where it was interrupted; the shell may, too.
        pattern = "".join(map(_pattern, self._expected))
        if prompt is not None:
            pattern += r"\s*" + re.escape(prompt) + r"\Z"
        self._read_until(r"\s*" + pattern)
        self._expected = []

    def _read_until(self, pattern: str) -> None:
        """Wait until what is shown begins like a pattern, and take that part; AssertionError if it
        does not come."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + patience(LINE_LIMIT)
        while True:
            found = compiled.match(self._unread)
            if found:
                self._unread = self._unread[found.end():]
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._master], [], [], remaining)[0]:
                raise AssertionError(
                    f"the page has\n{pattern}\nbut the terminal shows\n{self._unread}")
            shown = os.read(self._master, 65536).decode(errors="replace").replace("\r", "")
            self._unread += _COLOUR.sub("", shown)
            # A program that goes on printing is slow, not stuck.
            deadline = time.monotonic() + patience(LINE_LIMIT)

    def close(self) -> None:
        """End the shell and all that was started in it."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            for pid in _session(self.process.pid):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
        self.process.wait()
        os.close(self._master)


def path_with_python3(folder: Path) -> str:
    """A PATH on which ``python3`` is this Python.

    :param folder: a new folder for it.
    """
    folder.mkdir()
    # No link: a virtual environment is known by the path that it is called by.
    python3 = folder / "python3"
    python3.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python3.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def _prompt(line: str, before: str) -> str:
    """The prompt that a line begins with, or nothing.

    :param before: that of the line before: dots continue what was typed, and else stand for lines.
    """
    return next((one for one in PROMPTS if (line + " ").startswith(one)
                 and (one != "... " or before in (">>> ", "... "))), "")


def _pattern(line: str) -> str:
    """A regular expression for a line: any amount of space for space, anything for dots."""
    if line.strip() == DOTS:
        return r"(?:.*\n)*?"
    words = [".*?".join(map(re.escape, word.split("..."))) for word in line.split()]
    return r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n"


def _session(leader: int) -> list[int]:
    """The processes of a terminal session; only its leader where that cannot be found out."""
    found = [leader]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # Behind the name in parentheses: state, parent, group, session.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and int(entry.name) != leader:
            found.append(int(entry.name))
    return found
