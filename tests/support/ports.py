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
_STARTS = range(20000, 32000, _BLOCK)

# Neighbouring tests get neighbouring blocks; two processes start at different places.
_order = itertools.count(random.SystemRandom().randrange(len(_STARTS)))


class PortRange:
    """Six free consecutive ports that nobody else's test is given before close()."""

    def __init__(self) -> None:
        for _attempt in _STARTS:
            self.ports = _next_ports()
            guard = _guard(self.ports)
            if guard is not None:
                self._guard = guard
                return
        raise RuntimeError("no free range of ports between 20000 and 32000")

    def close(self) -> None:
        """Give the range back."""
        self._guard.close()


def lone_port() -> int:
    """The first port of a range for a process that is to meet no other."""
    held = PortRange()
    held.close()
    return held.ports.start


def _next_ports() -> range:
    start = _STARTS[next(_order) % len(_STARTS)]
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
