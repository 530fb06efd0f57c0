"""A connected socket as both ends use it."""
from __future__ import annotations

import io
import select
import socket
import struct
import sys
from typing import Any, Callable, List, Optional, Sequence

from ..wire.frames import Buffer, CHUNK, EndOfStream, FIRST
from .addresses import host_port
from .base import Deadline, LONGEST
from .tcp import is_own_address, tune

__all__ = ["DONT_WAIT", "Deadline", "LONGEST", "NO_SIGNAL", "Stream", "Timed", "fill", "gathered",
           "host_port", "is_own_address", "reset_at_end", "tune"]

# A peer that dies must not kill an application that gave SIGPIPE its default action. PyPy does not
# name the flag; Linux has it all the same.
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0x4000 if sys.platform == "linux" else 0)
WAIT_ALL = getattr(socket, "MSG_WAITALL", 0)
DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
# Bytes to wait for, or to send, at a time, so that progress can be observed.
AT_A_TIME = 2 ** 20
# Bytes that a connection asks for first before any message has had more. Python makes room for them
# before they come, also where nothing comes for minutes.
LEAST = 1024
# Bytes up to which joining what has come with the rest takes less time than filling one object.
SHORT = 128 * 1024
# Whether closing a socket waits or resets, and for how many seconds.
_LINGER = struct.Struct("hh" if sys.platform == "win32" else "ii")

# Bytes that are received into one object. In CPython it takes memory only as it is filled; PyPy
# clears all of it first, and a length that was only declared must not take memory.
AT_ONCE = sys.maxsize if sys.implementation.name == "cpython" else CHUNK
# Of what is longer than this, a part has to have come before room is made for all of it: memory
# that is never used still counts where the address space is limited (ulimit -v).
LONG, PART = 4 * 2 ** 20, 16


class Stream:
    """A connected socket. One thread at a time reads, one writes.

    ``recv(size)`` gives up to ``size`` bytes, none at the end; ``poll(milliseconds)`` tells whether
    there is something to receive by then, the end included. A socket without a timeout spares a
    poll in each receive and send, so a timeout is set only for a call that asks for one. On a
    non-blocking socket only :meth:`recv_some` and :meth:`send_some` are used.

    :ivar moved: bytes of large pieces so far, received or sent; they show whether one that takes
        long makes progress.
    :ivar begun: monotonic time at which a part of something has come that cannot be read before it
        is whole; 0 while there is no such part.
    :ivar first: bytes that :meth:`recv_first` asks for.
    :ivar resets: whether :meth:`reset_at_end` was set.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.moved = 0
        self.begun = 0.0
        self.resets = False
        self.recv = sock.recv
        self.poll = poller(sock)
        self._room = poller(sock, write=True)
        self.first = self._usual = LEAST

    def recv_first(self) -> bytes:
        """The beginning of a message, or all of it; no bytes at the end. Asks for more once
        messages come that are longer than usual, as long as they are not large."""
        data = self.recv(self.first)
        if len(data) < self._usual:
            self.first = self._usual
        else:
            self._usual = FIRST
            self.first = FIRST if len(data) < FIRST else SHORT
        return data

    def recv_exactly(self, size: int, prefix: bytes = b"") -> bytes:
        """``prefix`` and what follows it, ``size`` bytes in all, as one object; a large one is
        filled without copying.

        :raises EndOfStream: less came.
        """
        if size <= SHORT:
            rest = self.sock.recv(size - len(prefix), WAIT_ALL)
            self.moved += len(rest)
            prefix += rest
            if len(prefix) == size:
                return prefix
        else:
            self.first = FIRST
        return fill(self.recv_into, size, prefix)

    def recv_into(self, view: memoryview) -> int:
        """Fill a buffer, as far as the platform can in one go. Returns the number of bytes, 0 at
        the end."""
        size = self.sock.recv_into(view, min(len(view), AT_A_TIME), WAIT_ALL)
        self.moved += size
        return size

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Send all pieces. Small ones are joined; joining large ones would copy them."""
        if len(pieces) == 1:
            self.sock.sendall(pieces[0], NO_SIGNAL)
            return
        for piece in gathered(pieces):
            if len(piece) <= AT_A_TIME:
                self.sock.sendall(piece, NO_SIGNAL)
                self.moved += len(piece)
                continue
            with memoryview(piece) as whole:
                for start in range(0, len(whole), AT_A_TIME):
                    part = whole[start:start + AT_A_TIME]
                    self.sock.sendall(part, NO_SIGNAL)
                    self.moved += len(part)

    def send_some(self, piece: Buffer) -> int:
        """Send what a non-blocking socket takes of a piece. Returns the number of bytes. The rest,
        or the same piece after 0, has to follow before anything else."""
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

    def group(self, claimed: Optional[str]) -> Optional[str]:
        """The group of the other side: what it claims, unless a certificate says it."""
        return claimed

    @property
    def proves_address(self) -> bool:
        """Whether a certificate proves that the other side is at the address that was called."""
        return False

    @property
    def holds_data(self) -> bool:
        """Whether data was received that a selector does not see, because it waits in here."""
        return False

    def has_ended(self) -> bool:
        """Whether the other side has closed the connection; not seen while something that it sent
        before was not received yet. Never waits; any thread may call."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | DONT_WAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def is_readable(self, within: float = 0.0) -> bool:
        """Whether there is something to receive, the end included, within so many seconds."""
        return bool(self.poll(within * 1000))

    def is_writable(self) -> bool:
        """Whether something small can be sent without waiting."""
        return bool(self._room(0))

    def reset_at_end(self, reset: bool) -> None:
        """See :func:`reset_at_end`."""
        reset_at_end(self.sock, reset)
        self.resets = reset

    def abort(self) -> None:
        """End both directions; any thread may call. A thread that waits on the stream goes on."""
        try:
            # Ending what is sent as well would give the other side an end of stream.
            self.sock.shutdown(socket.SHUT_RD if self.resets else socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first

    def stop_reading(self) -> None:
        """Let reading end after what has come already; any thread may call."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the other side was first

    def close(self) -> None:
        """Close the socket. What was sent still arrives."""
        self.sock.close()


def reset_at_end(sock: socket.socket, reset: bool) -> None:
    """Set whether the connection is to end with a reset: then the other side gets no end of stream,
    and what it has not received yet is lost."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(reset, 0))


def gathered(pieces: Sequence[Buffer]) -> Sequence[Buffer]:
    """The pieces, joined if they are short together: several small sends would wake the other side
    up several times."""
    return (b"".join(pieces),) if 0 < sum(map(len, pieces)) <= SHORT else pieces


def fill(recv_into: Callable[[Any], int], size: int, prefix: bytes) -> bytes:
    """``prefix`` and what ``recv_into`` gives, ``size`` bytes in all.

    :raises EndOfStream: less came.
    """
    if size > LONG and len(prefix) < size // PART:
        prefix = fill(recv_into, size // PART, prefix)
    # With a buffer of 1 byte the reader asks the source for all that is missing at once.
    source = io.BufferedReader(_Source(prefix, recv_into), 1)
    pieces: List[bytes] = []
    missing = size
    while missing:
        pieces.append(source.read(min(missing, AT_ONCE)))
        missing -= len(pieces[-1])
        if not pieces[-1]:
            raise EndOfStream(size - missing + 1)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Source(io.RawIOBase):
    """What has come and what follows, to be read by a BufferedReader.

    A BufferedReader fills one bytes object in several goes, and its memory is taken as it is
    filled. Joining pieces would copy them all and take the memory twice.
    """

    def __init__(self, data: bytes, recv_into: Callable[[Any], int]) -> None:
        self._data = data
        self._recv_into = recv_into

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any) -> int:
        if not self._data:
            return self._recv_into(view)
        size = min(len(self._data), len(view))
        view[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


if hasattr(select, "poll"):
    def poller(sock: socket.socket, write: bool = False) -> Callable[[float], Any]:
        """``poll(milliseconds)``: whether a socket has something to receive by then, or room for
        what is sent."""
        poll = select.poll()
        poll.register(sock, select.POLLOUT if write else select.POLLIN)
        return poll.poll
else:
    def poller(sock: socket.socket, write: bool = False) -> Callable[[float], Any]:
        """``poll(milliseconds)``: whether a socket has something to receive by then, or room for
        what is sent."""
        return lambda milliseconds: any(select.select(
            [sock][write:], [sock][:write], [], milliseconds / 1000))


# Bytes of a large buffer that are sent at a time under a deadline, which is checked in between.
TIMED_PIECE = 2 ** 20


class Timed:
    """A stream under a deadline: use its methods in place of the stream's to receive and send. They
    raise ``socket.timeout`` once the deadline has passed."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        self._stream.sock.settimeout(self._deadline.remaining())
        return self._stream.recv(size)

    def recv_first(self) -> bytes:
        self._stream.sock.settimeout(self._deadline.remaining())
        return self._stream.recv_first()

    def recv_exactly(self, size: int, prefix: bytes = b"") -> bytes:
        if size > SHORT:
            self._stream.first = FIRST
        return fill(self.recv_into, size, prefix)

    def recv_into(self, view: memoryview) -> int:
        # A socket with a timeout gives what there is, even if it is asked to wait for all.
        self._stream.sock.settimeout(self._deadline.remaining())
        return self._stream.recv_into(view)

    def send(self, pieces: Sequence[Buffer]) -> None:
        for piece in gathered(pieces):
            with memoryview(piece) as whole:
                for start in range(0, len(whole), TIMED_PIECE):
                    self._stream.sock.settimeout(self._deadline.remaining())
                    self._stream.send((whole[start:start + TIMED_PIECE],))
