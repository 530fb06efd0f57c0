"""Old programs as processes: see old_program.py, which they run."""
from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from processes import START_LIMIT, environment
from times import patience

SCRIPT = Path(__file__).with_name("old_program.py")
#: The core of it, in few lines: it calls and is called, subscribes and publishes.
SMALL = Path(__file__).with_name("small_old_program.py")


class OldProgram:
    """A process that does what 0.3, 0.4 or 0.6 does.

    :ivar address: its ``(host, port)``.
    """

    def __init__(self, dialect: str, port: int, python: str = sys.executable,
                 host: str = "127.0.0.1", prefix: Sequence[str] = (),
                 script: Path = SCRIPT) -> None:
        """Start it and wait until it serves.

        :param prefix: the command that starts it elsewhere, e.g. in a namespace.
        """
        self.address: Tuple[str, int] = (host, port)
        self.dialect = dialect
        self._unread = b""
        self.process = subprocess.Popen(
            [*prefix, python, str(script), dialect, host, str(port)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=environment(), bufsize=0, start_new_session=True)
        try:
            line = self._line(START_LIMIT)
            assert line == f"ready {port}", line
        except BaseException:
            self.stop()
            raise

    def do(self, command: str, *arguments: Any, timeout: float = 10.0) -> Any:
        """What a command gives.

        :raises OldError: what it raised."""
        self.send(command, *arguments)
        return self.result(timeout)

    def send(self, command: str, *arguments: Any) -> None:
        """Give a command without waiting for what it gives."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")

    def result(self, timeout: float = 10.0) -> Any:
        """What the command gives that was sent before."""
        how, *found = json.loads(self._line(timeout))
        if how == "raised":
            raise OldError(*found)
        return found[0]

    def call(self, address: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a peer, as its application does."""
        return self.do("call", *address, name, args, kwargs)

    @property
    def heard(self) -> List[Any]:
        """The first argument of each event that it has heard, in order."""
        return [one[1][0] for one in self.state()["heard"]]

    @property
    def requests(self) -> List[bytes]:
        """What each connection to it has brought."""
        return [request.encode("latin-1") for request in self.state()["requests"]]

    def state(self) -> Dict[str, Any]:
        """What it has seen and heard."""
        found: Dict[str, Any] = self.do("state")
        return found

    def _line(self, timeout: float) -> str:
        assert self.process.stdout is not None
        end = time.monotonic() + patience(timeout)
        while b"\n" not in self._unread:
            left = max(0.0, end - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError("the old program says nothing")
            piece = self.process.stdout.read(65536)
            if not piece:
                raise AssertionError("the old program has ended")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def stop(self) -> None:
        """End it and wait for it. May be called again."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class OldError(Exception):
    """What an old program raised.

    :ivar name: the name of its class.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def old_python(version: str) -> Optional[str]:
    """The interpreter of an old version of Python, None where it is not installed."""
    for name in (f"python{version}", *map(str, sorted(
            Path.home().glob(f".pyenv/versions/{version}*/bin/python")))):
        path = shutil.which(name)
        if path is not None and _runs(path):
            return path
    return None


def _runs(path: str) -> bool:
    # A name may lead to a script that only says that there is no such version.
    return subprocess.run([path, "-c", ""], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0
