"""Frames: how messages are cut out of the stream of bytes.

A connection starts with the preface of 8 bytes, sent by the caller together with its first frame.
A frame is a header of 8 bytes (kind, flags, number of buffers, bytes of JSON), the length of each
buffer (8 bytes), the JSON text, and the buffers. All numbers are big-endian.
"""
from __future__ import annotations

import functools
import io
import struct
import sys
from typing import Any, Callable, List, NamedTuple, Sequence, Tuple, Union

from ..errors import MessageTooLarge, ProtocolError

# The first byte is no ASCII and no UTF-8: no text protocol, TLS hello or base64 starts like this.
MAGIC = b"\xabnet"
VERSION = 1
PREFACE = MAGIC + bytes((VERSION, 0, 0, 0))
# Bytes of the caller's group, whose length is in the last two bytes of a preface that it follows:
# 64 characters.
MAX_GROUP = 256

HEADER = struct.Struct("!BBHI")
LENGTH = struct.Struct("!Q")

CALL, RESULT, FAILURE, FLAG = 1, 2, 3, 4
REPLIES = frozenset((RESULT, FAILURE, FLAG))

#: Flag bit: the JSON holds tagged objects or refers to buffers (see values.py).
TAGGED = 1

# What one receive asks for, and the first of a frame: small messages come whole in one. For more, C
# takes so much memory and gives it back that it tidies up each time, a twentieth of a small call.
CHUNK = 64 * 1024
FIRST = 16 * 1024
# The number of buffers is a u16.
MAX_BUFFERS = 65535

# Bytes that are received into one object. CPython takes its memory as it fills; PyPy clears all of
# it first, and a length that was only declared must not take any.
AT_ONCE = sys.maxsize if sys.implementation.name == "cpython" else CHUNK

Buffer = Union[bytes, bytearray, memoryview]


class Frame(NamedTuple):
    """One message as it travels."""

    kind: int
    tagged: bool
    text: bytes
    buffers: Sequence[bytes] = ()


#: ``Frame._make`` without its function in Python, which takes as long as all the rest of a frame.
make_frame = functools.partial(tuple.__new__, Frame)


class EndOfStream(Exception):
    """The stream ended inside a frame (``received`` > 0) or before one (0)."""

    def __init__(self, received: int) -> None:
        super().__init__(f"the stream ended after {received} bytes of a frame")
        self.received = received


class NotAFrame(ProtocolError):
    """Bytes that start no frame of the kinds that are expected.

    :ivar data: all bytes received so far.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(None, f"what came starts with {bytes(data[:12])!r}")
        self.data = data


def pack(kind: int, text: bytes, buffers: Sequence[Buffer] = (), tagged: bool = False) -> bytes:
    """The bytes of a frame up to its first buffer; the buffers follow as they are."""
    return pack_head(kind, len(text), buffers, tagged) + text


def pack_head(kind: int, size: int, buffers: Sequence[Buffer], tagged: bool) -> bytes:
    """The bytes of a frame up to its text of ``size`` bytes."""
    head = HEADER.pack(kind, tagged, len(buffers), size)
    if buffers:
        head += b"".join([LENGTH.pack(len(buffer)) for buffer in buffers])
    return head


def measure(data: bytes) -> int:
    """How many bytes the frame has that starts here; less than is needed to tell if it cannot be
    told yet."""
    if len(data) < 8:
        return 8
    _, _, count, size = HEADER.unpack_from(data)
    start = 8 + 8 * count
    if len(data) < start:
        return start
    return start + size + sum(LENGTH.unpack_from(data, at)[0] for at in range(8, start, 8))


class FrameReader:
    """Reads frames from a stream.

    :param recv: ``recv(size)`` gives 1 to ``size`` bytes, or none at the end of the stream.
    :param recv_into: ``recv_into(view)`` fills a memoryview and gives the number of bytes, 0 at
        the end of the stream; it may wait for all of them.
    :param kinds: the kinds of frame that may come; any other ends the reading.
    :param limits: ``(bytes of JSON, bytes of buffers)`` of one frame.
    :param waiting: called once for each frame that did not arrive whole at the first receive.
    """

    def __init__(self, recv: Callable[[int], bytes], recv_into: Callable[[Any], int],
                 kinds: frozenset, limits: Tuple[int, int],
                 waiting: Callable[[], None] = lambda: None) -> None:
        self.recv = recv
        self.recv_into = recv_into
        self.rest = b""
        self._kinds = kinds
        self._max_text, self._max_buffers = limits
        self._waiting = waiting
        self._waits = False

    def frame(self) -> Frame:
        """The next frame.

        :raises EndOfStream: there is none, or only its beginning.
        :raises NotAFrame: the bytes start no frame that may come here.
        :raises MessageTooLarge: it declares more than the limits allow; nothing was allocated.
        """
        data = self.rest or self.recv(FIRST)
        # Nearly every message is small and comes whole.
        if len(data) >= 8:
            kind, flags, count, size = HEADER.unpack_from(data)
            if len(data) == 8 + size and not count and not flags \
                    and kind in self._kinds and size <= self._max_text:
                self.rest = b""
                return make_frame((kind, False, data[8:], ()))
        return self._frame_in_pieces(data)

    def _frame_in_pieces(self, data: bytes) -> Frame:
        self._waits = False
        if len(data) < 8:
            self._check_start(data)
            self._wait()
            data = self._extend(data, 8)
        kind, flags, count, size = HEADER.unpack_from(data)
        if kind not in self._kinds or flags & ~TAGGED:
            raise NotAFrame(data)
        if size > self._max_text:
            raise MessageTooLarge("JSON text of a message, in bytes", size, self._max_text,
                                  "NET_MAX_TEXT")
        start = 8 + 8 * count
        if len(data) < start + size:
            self._wait()
        data = self._extend(data, start)
        lengths = [LENGTH.unpack_from(data, offset)[0] for offset in range(8, start, 8)]
        total = sum(lengths)
        if total > self._max_buffers:
            raise MessageTooLarge("buffers of a message, in bytes", total, self._max_buffers,
                                  "NET_MAX_BUFFERS")
        # A long text comes alone, and then neither line copies it.
        data = self._extend(data[start:], size)
        text, self.rest = data[:size], data[size:]
        if total > len(self.rest):
            self._wait()
        return Frame(kind, bool(flags & TAGGED), text, [self._buffer(size) for size in lengths])

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._waiting()

    def _check_start(self, data: bytes) -> None:
        if not data:
            raise EndOfStream(0)
        # A wrong first byte is known at once; waiting for seven more could take for ever.
        if data[0] not in self._kinds:
            raise NotAFrame(data)

    def _extend(self, data: bytes, size: int) -> bytes:
        """``data`` and what follows, ``size`` bytes or more."""
        while len(data) < size:
            if size - len(data) >= CHUNK:
                return self._whole(data, size)
            piece = self.recv(CHUNK)
            if not piece:
                raise EndOfStream(max(1, len(data)))
            data += piece
        return data

    def _buffer(self, size: int) -> bytes:
        rest = self.rest
        if len(rest) >= size:
            self.rest = rest[size:]
            return rest[:size]
        self.rest = b""
        return self._whole(rest, size)

    def _whole(self, data: bytes, size: int) -> bytes:
        """``data`` and what follows, ``size`` bytes."""
        # With a buffer of 1 byte it asks the source for all that is missing at once.
        source = io.BufferedReader(_Source(data, self.recv_into), 1)
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

    That fills one bytes object in several goes, and takes its memory as it fills. Joining pieces
    would copy them all and take the memory twice.
    """

    def __init__(self, data: bytes, recv_into: Callable[[Any], int]) -> None:
        self._data = data
        self._recv_into = recv_into

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any) -> int:
        size = len(self._data)
        if not size:
            return self._recv_into(view)
        view[:size] = self._data
        self._data = b""
        return size
