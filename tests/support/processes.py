"""Real second Python processes for the tests."""
from __future__ import annotations

import atexit
import base64
import functools
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import deque
from pathlib import Path
from typing import Optional, Sequence

from ports import lone_port
from times import patience

READY = "app-net is ready:"

# What a command that was interrupted ends with; a shell shows 130 for both. Python itself ends by
# the signal where the interrupt came while it ran code from text, as dataclasses and named tuples
# do, even if the interrupt was caught.
INTERRUPTED = (130, -signal.SIGINT)

# Seconds until a peer must have said that it is ready: a slow interpreter on a busy machine.
START_LIMIT = 15.0

# Appended to every application: it says that its peer is up, then does what the test sends,
# line by line, and ends when the test closes its standard input or is gone.
_FOOTER = f"""

import ast as _ast, sys as _sys, net as _net
print({READY!r}, _net.Peer().id.decode(), flush=True)
for _line in _sys.stdin:
    exec(_ast.literal_eval(_line))
"""


def environment(**settings: object) -> dict[str, str]:
    """The environment of a test's process: loopback only, this same net, no other NET_*.

    Without a NET_PORT_START among the settings its ports are nobody else's: at the default ports
    it would meet the peers of whatever else runs on this host, other tests among them.

    :param settings: variables to set; None removes one.
    """
    if "NET_PORT_START" not in settings:
        settings["NET_PORT_START"] = lone_port()
    variables = {key: text for key, text in os.environ.items()
                 if not key.startswith("NET_") or key == "NET_TEST_FACTOR"}
    variables.update(
        NET_HOST="127.0.0.1",
        # tests/support has the application that second processes run.
        PYTHONPATH=os.pathsep.join((str(_folder_of_net()), str(Path(__file__).parent))),
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",
    )
    if sys.dont_write_bytecode:
        # Nothing is written beside the sources; but each of a thousand processes would compile
        # the whole package, which is more than half of what it takes to start.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        variables["PYTHONPYCACHEPREFIX"] = _compiled()
    for key, value in settings.items():
        variables.pop(key, None)
        if value is not None:
            variables[key] = str(value)
    return variables


@functools.lru_cache(maxsize=None)
def _compiled() -> str:
    """A folder where the processes of this run share what they have compiled."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _folder_of_net() -> Path:
    # Found, not imported: the plain interpreter in a bare checkout has to find the same one.
    found = importlib.util.find_spec("net")
    assert found is not None and found.origin is not None
    return Path(found.origin).resolve().parent.parent


def run_python(
    *arguments: str, timeout: float = 15.0, **settings: object
) -> "subprocess.CompletedProcess[str]":
    """Run this interpreter to its end; its output is text. Raises where it exits non-zero.

    :param arguments: its command line, e.g. "-c", "import net".
    :param settings: environment variables, as for environment().
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=patience(timeout))
        except BaseException:
            _kill_group(process.pid)  # with what it has forked
            raise
    if process.returncode:
        raise AssertionError(f"exit code {process.returncode}\n{output}\n{errors}")
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class PeerProcess:
    """A second Python process that runs an application and its peer.

    :ivar bytes id: its peer id.
    :ivar address: its ``(host, port)``.
    :ivar int pid: its process id.
    :ivar process: the Popen object; its stdin and stdout are unbuffered pipes.
    """

    def __init__(
        self, script: str, folder: Path, settings: dict[str, object], prefix: Sequence[str] = ()
    ) -> None:
        """Start it and wait until it is ready.

        :param script: Python source text, run as a program of its own (``__main__``).
        :param folder: an empty folder for its source and its standard error.
        :param prefix: the command that starts the interpreter elsewhere, e.g. in a namespace.
        """
        self._errors = folder / "stderr.txt"
        self._unread = b""
        self._early: deque[str] = deque()
        source = folder / "application.py"
        source.write_text(textwrap.dedent(script) + _FOOTER)
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(source)],
                env=environment(**settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                # A group of its own: Ctrl-C in the terminal is ours, and stop() reaches
                # whatever the application has started.
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.stdin = self.process.stdin
        self.stdout = self.process.stdout
        try:
            self.id = self._wait_until_ready()
            host, port = base64.b64decode(self.id).decode().split(" -> ")[0].rsplit(":", 1)
            self.address = (host, int(port))
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> bytes:
        deadline = time.monotonic() + patience(START_LIMIT)
        while True:
            line = self._next_line(deadline)
            if line.startswith(READY):
                return line[len(READY):].strip().encode("ascii")
            self._early.append(line)

    def execute(self, code: str) -> None:
        """Run a piece of Python in that process, as if its user typed it there."""
        assert self.stdin is not None
        self.stdin.write(repr(textwrap.dedent(code)).encode() + b"\n")

    def read_line(self, timeout: float = 5.0) -> str:
        """The next line that it printed, without its end; AssertionError after `timeout` s."""
        if self._early:
            return self._early.popleft()
        return self._next_line(time.monotonic() + patience(timeout))

    def _next_line(self, deadline: float) -> str:
        assert self.stdout is not None
        while b"\n" not in self._unread:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self.stdout], [], [], remaining)[0]:
                raise AssertionError(f"process {self.pid} printed no line\n{self.errors()}")
            chunk = self.stdout.read(65536)
            if not chunk:
                raise AssertionError(f"process {self.pid} has ended\n{self.errors()}")
            self._unread += chunk
        line, _end, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def errors(self) -> str:
        """What it wrote to its standard error so far."""
        return self._errors.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal. After SIGSTOP it accepts connections but never answers.

        All of its threads have stopped when this returns; SIGCONT lets them go on.
        """
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            _pid, status = os.waitpid(self.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), f"process {self.pid} has ended\n{self.errors()}"

    def kill(self) -> None:
        """End it at once and wait for it: the peer of a machine that lost its power."""
        self.process.kill()
        self.process.wait()

    def close(self, timeout: float = 2.0) -> Optional[int]:
        """Let it end by itself (end of input); its exit code, or None if it runs on."""
        assert self.stdin is not None
        self.stdin.close()
        return self._ended(timeout)

    def stop(self, grace: float = 2.0) -> None:
        """End it for certain, with all that it started, and release its pipes.

        :param grace: seconds that it has to end by itself, and again after SIGTERM.
        """
        self.signal(signal.SIGCONT)  # a stopped process would not see its end of input
        try:
            if self.close(grace) is None:
                self.process.terminate()
                self._ended(grace)
        finally:
            _kill_group(self.pid)
            self.process.wait()
            assert self.stdout is not None
            self.stdout.close()

    def _ended(self, timeout: float) -> Optional[int]:
        try:
            return self.process.wait(patience(timeout))
        except subprocess.TimeoutExpired:
            return None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nobody is left in it
        pass
