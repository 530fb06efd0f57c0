"""The program ``app-net`` in a terminal, and for scripts."""
from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from processes import environment
from times import patience


class Done(NamedTuple):
    """The outcome of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its data: one value of JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> List[Any]:
        """Its data: a value of JSON in each line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run_net(*arguments: str, stdin: str = "", **settings: object) -> Done:
    """Run ``python -m net`` to its end, with pipes."""
    done = subprocess.run([sys.executable, "-m", "net", *arguments], env=environment(**settings),
                          input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=patience(15), start_new_session=True)
    return Done(done.returncode, done.stdout, done.stderr)


class Terminal:
    """``python -m net`` in a pseudo-terminal of ``columns`` columns. For a ``with`` statement.

    :param program: what the interpreter runs instead.
    :param folder: the folder in which it starts.
    :ivar text: what it has shown so far.
    """

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24,
                 program: Sequence[str] = ("-m", "net"), folder: Optional[Path] = None,
                 **settings: object) -> None:
        self.text = ""
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        settings.setdefault("COLUMNS", None)
        settings.setdefault("NO_COLOR", None)
        settings.setdefault("TERM", "xterm-256color")
        self._process = subprocess.Popen(
            [sys.executable, *program, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment(**settings), start_new_session=True, cwd=folder)
        os.close(theirs)

    def _read(self, ends: float) -> bool:
        """Read some; False at the end."""
        while time.monotonic() < ends:
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    data = os.read(self._ours, 65536)
                except OSError:  # nobody has it open on the other side any more
                    return False
                self.text += data.decode(errors="replace").replace("\r\n", "\n")
                return bool(data)
        raise AssertionError(f"no more than this: {self.text!r}")

    def wait_for(self, text: str, seconds: float = 10.0) -> None:
        """Read until a text was shown."""
        ends = time.monotonic() + patience(seconds)
        while text not in self.text:
            assert self._read(ends), f"it has ended: {self.text!r}"

    def wait_for_pattern(self, pattern: str, seconds: float = 10.0) -> None:
        """Read until what was shown, but for colours and movements, matches."""
        ends = time.monotonic() + patience(seconds)
        while not re.search(pattern, self.plain):
            assert self._read(ends), f"it has ended: {self.text!r}"

    @property
    def plain(self) -> str:
        """What it has shown so far, without colours and movements."""
        return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", self.text)

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._ours, text.encode())

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send a signal, Ctrl-C by default."""
        self._process.send_signal(number)

    def end(self, seconds: float = 15.0) -> int:
        """Read to the end; return the exit code."""
        ends = time.monotonic() + patience(seconds)
        while self._read(ends):
            pass
        return self._process.wait(patience(5))

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc: Optional[object]) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)


class Emulated:
    """What a terminal emulator shows of a terminal; needs pyte."""

    def __init__(self, terminal: Terminal, columns: int) -> None:
        import pyte

        self._terminal = terminal
        self.screen = pyte.Screen(columns, 24)
        self._stream = pyte.Stream(self.screen)
        self._seen = 0

    def lines(self) -> List[str]:
        """The lines of the screen, without the space behind them."""
        text = self._terminal.text
        self._stream.feed(text[self._seen:].replace("\n", "\r\n"))
        self._seen = len(text)
        return [line.rstrip() for line in self.screen.display]

    def wait_for(self, check: Callable[[List[str]], object]) -> List[str]:
        """Read until the lines pass a check; return them."""
        ends = time.monotonic() + patience(20)
        while True:
            lines = self.lines()
            if check(lines):
                return lines
            assert self._terminal._read(ends), lines
