"""The program that each process of :func:`net.testing.peers` runs."""
from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any, TextIO

from ..process import process
from ..settings import settings
from .faults import LanPeer


def main() -> None:
    """Serve an application until standard input ends. Each line of that is a fault to begin."""
    given = json.loads(sys.argv[1])
    said = _take_stdout()
    sys.path[:] = given["path"]
    for name, value in given["settings"].items():
        settings.set(name, value)
    peer = LanPeer(launch=False)
    process.peer = peer  # before the first decorated function makes another one
    if given["app"] is not None:
        import_module(given["app"])
    peer.launch()
    _say(said, peer.id.decode("ascii"))
    for line in sys.stdin:
        peer.apply(*json.loads(line))
        _say(said, "done")
    peer.close()


def _take_stdout() -> TextIO:
    """Standard output, for what is said to the test. From here on, what the application prints goes
    to standard error."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return said


def _say(said: Any, text: str) -> None:
    print(text, file=said, flush=True)


if __name__ == "__main__":
    main()
