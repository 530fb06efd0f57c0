"""Free port ranges, so that tests on one machine do not meet each other's peers."""
from __future__ import annotations

import itertools
import random
import socket
from typing import Iterator, Optional

# Ports per range: NET_PORT_START to NET_PORT_START + NET_PORT_RANGE, both included.
SIZE = 6

# One block holds a range and its guard. The blocks lie below the ports that systems hand
# out themselves (Linux: from 32768) and above the documented default, 3010 to 3015.
_BLOCK = 8
# A section holds the blocks of one process that runs tests.
_SECTION = 400 * _BLOCK
_SECTIONS = range(12800, 32000, _SECTION)


def _claim() -> tuple[range, Optional[socket.socket]]:
    """The blocks of a section that no other process has, and what keeps them from others: the
    section's first port, bound as long as this process lives. None if all are taken."""
    sections = random.SystemRandom().sample(_SECTIONS, len(_SECTIONS))
    keeper = None
    for start in sections:
        keeper = _bound(socket.SOCK_STREAM, start)
        if keeper is not None:
            break
    return range(start + _BLOCK, start + _SECTION, _BLOCK), keeper


class PortRange:
    """Six free consecutive ports that nobody else's test is given before close()."""

    def __init__(self) -> None:
        for _attempt in _starts:
            self.ports = _next_ports()
            guard = _guard(self.ports)
            if guard is not None:
                self._guard = guard
                return
        raise RuntimeError(f"no free range of ports from {_starts.start} to {_starts.stop}")

    def close(self) -> None:
        """Give the range back."""
        self._guard.close()


def lone_port() -> int:
    """The first port of a range for a process that is to meet no other."""
    held = PortRange()
    held.close()
    return held.ports.start


def _next_ports() -> range:
    start = _starts[next(_order) % len(_starts)]
    return range(start, start + SIZE)


def _guard(ports: range) -> Optional[socket.socket]:
    """Hold the block by binding the port after its range; None when somebody else has it.

    The guard is never listening. It makes the claim hold between processes from the check
    until the test ends, while the ports themselves stay free for the test.
    """
    guard = _bound(socket.SOCK_STREAM, ports.stop)
    if guard is None:
        return None
    if all(_is_free(kind, port) for kind, port in _both_kinds(ports)):
        return guard
    guard.close()
    return None


def _both_kinds(ports: range) -> Iterator[tuple[int, int]]:
    return itertools.product((socket.SOCK_STREAM, socket.SOCK_DGRAM), ports)


def _is_free(kind: int, port: int) -> bool:
    sock = _bound(kind, port)
    if sock is None:
        return False
    sock.close()
    return True


def _bound(kind: int, port: int) -> Optional[socket.socket]:
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.bind(("0.0.0.0", port))
    except OSError:
        sock.close()
        return None
    return sock


# Now, so that no test has it as a socket of its own. The next range is one that was free longest.
_starts, _keeper = _claim()
_order = itertools.count()
