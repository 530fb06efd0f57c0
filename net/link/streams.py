"""A connected socket as both ends use it."""
from __future__ import annotations

import select
import socket
import sys
from time import monotonic
from typing import Any, Callable, Optional, Sequence

from ..errors import Address
from ..wire.frames import Buffer, CHUNK

# A peer that dies must not kill an application that gave SIGPIPE its default action. PyPy does not
# name the flag; Linux has it all the same.
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0x4000 if sys.platform == "linux" else 0)
WAIT_ALL = getattr(socket, "MSG_WAITALL", 0)

# A host that vanished is noticed after 9 s of silence and three probes 3 s apart; data that is not
# taken for 18 s counts the same.
KEEP_ALIVE = (("TCP_KEEPIDLE", 9), ("TCP_KEEPALIVE", 9), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3),
              ("TCP_USER_TIMEOUT", 18_000))

# Seconds, 11 days. A socket refuses a timeout of more milliseconds than a C int holds; what waits
# longer than this without a byte ends early.
LONGEST = 1e6


class Deadline:
    """A timeout that was turned into a point in time, once, and is handed down.

    :param seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left.

        :raises socket.timeout: none.
        """
        left = self._end - monotonic()
        if left <= 0:
            raise socket.timeout("deadline passed")
        return min(left, LONGEST)


def tune(sock: socket.socket) -> None:
    """Set what both ends want of a TCP socket, as far as the platform has it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    no_signal = getattr(socket, "SO_NOSIGPIPE", None)  # macOS has this instead of MSG_NOSIGNAL
    if no_signal is not None:
        sock.setsockopt(socket.SOL_SOCKET, no_signal, 1)


class Stream:
    """A connected, blocking socket. One thread at a time reads, one writes.

    ``recv(size)`` gives up to ``size`` bytes, none at the end; ``recv_into(view)`` fills a buffer
    and waits until it is full where the platform can. A socket without timeout spares a poll for
    each of them, so one is only set for a call that asks for it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.recv = sock.recv
        self._poll = poller(sock)

    def recv_into(self, view: memoryview) -> int:
        return self.sock.recv_into(view, 0, WAIT_ALL)

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Send each piece as it is; joining them would copy large ones."""
        if len(pieces) == 1:
            self.sock.sendall(pieces[0], NO_SIGNAL)
            return
        for piece in gathered(pieces):
            self.sock.sendall(piece, NO_SIGNAL)

    def send_some(self, piece: Buffer) -> int:
        """Send what a non-blocking socket takes of a piece; how many bytes that was. The rest, or
        the same piece after 0, has to follow before anything else."""
        try:
            return self.sock.send(piece, NO_SIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0

    def recv_some(self, size: int) -> Optional[bytes]:
        """What a non-blocking socket has received: None for nothing yet, no bytes at the end."""
        try:
            return self.recv(size)
        except (BlockingIOError, InterruptedError):
            return None

    def is_readable(self) -> bool:
        """Whether there is something to receive, the end included, without waiting."""
        return bool(self._poll(0))

    def abort(self) -> None:
        """End both directions, from any thread; whoever waits on the stream goes on."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first

    def close(self) -> None:
        self.sock.close()


def gathered(pieces: Sequence[Buffer]) -> Sequence[Buffer]:
    """The pieces, in one if the other side can receive them at once. It would wake up for the
    first of several, and sleep again until the next."""
    return (b"".join(pieces),) if sum(map(len, pieces)) <= CHUNK else pieces


if hasattr(select, "poll"):
    def poller(sock: socket.socket) -> Callable[[float], Any]:
        """``poll(milliseconds)``: whether a socket has something to receive by then."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return poll.poll
else:
    def poller(sock: socket.socket) -> Callable[[float], Any]:
        """``poll(milliseconds)``: whether a socket has something to receive by then."""
        return lambda milliseconds: select.select([sock], [], [], milliseconds / 1000)[0]


# What is sent at once of a large buffer under a deadline, which is looked at in between.
TIMED_PIECE = 2 ** 20


class Timed:
    """A stream under a deadline, in place of its ``recv``, ``recv_into`` and ``send``."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        self._stream.sock.settimeout(self._deadline.remaining())
        return self._stream.recv(size)

    def recv_into(self, view: memoryview) -> int:
        # A socket with a timeout gives what there is, whatever it is asked to wait for.
        self._stream.sock.settimeout(self._deadline.remaining())
        return self._stream.recv_into(view)

    def send(self, pieces: Sequence[Buffer]) -> None:
        for piece in gathered(pieces):
            with memoryview(piece) as whole:
                for start in range(0, len(whole), TIMED_PIECE):
                    self._stream.sock.settimeout(self._deadline.remaining())
                    self._stream.send((whole[start:start + TIMED_PIECE],))


def host_port(address: Any) -> Optional[Address]:
    """``(host, port)`` of a socket address, IPv4 in IPv6 unwrapped; None when it has none."""
    if not isinstance(address, tuple) or len(address) < 2:
        return None
    host, port = address[:2]
    return (host[7:] if host.startswith("::ffff:") else host.partition("%")[0]), port


def is_own_address(host: str) -> bool:
    """Whether a numeric address belongs to this host. Sends nothing and resolves no name."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.inet_pton(family, host)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return host not in ("0.0.0.0", "::")
