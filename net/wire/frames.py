"""Frames: how messages are told apart in the stream of bytes.

A frame is a header of 12 bytes (kind, flags, number of buffers, number of the request, bytes of
JSON), the length of each buffer (8 bytes), the JSON text, and the buffers. All numbers are
big-endian.
"""
from __future__ import annotations

import functools
import struct
from collections import deque
from typing import Any, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import MessageTooLarge, ProtocolError
from .limits import Limits
from .memo import Memo

HEADER = struct.Struct("!BBHII")
HEAD = HEADER.size
# The same header as three numbers. Without flags and buffers, the first one is the kind, shifted.
QUICK_HEADER = struct.Struct("!III")
KIND = 24  # bits that the kind is shifted by
LENGTH = struct.Struct("!Q")
# The header of a frame with one buffer, with the length of that.
HEADER_OF_ONE = struct.Struct("!BBHIIQ")
LENGTHENED = HEADER_OF_ONE.size

#: The kinds of frame. A frame of another kind is answered with a refusal, and the connection goes
#: on: so the wire can grow.
(CALL, RESULT, FAILURE, FLAG, HELLO, ITEM, END, ASK, ANSWER, CANCEL, SUBSCRIBE, UNSUBSCRIBE, EVENT,
 TAKEN, FAILED, PING) = KINDS = range(1, 17)
KNOWN = frozenset(KINDS)
REPLIES = frozenset((RESULT, FAILURE, FLAG))

#: What may come when. Which kinds a role takes differs between the greeting and the open
#: connection; on an open one, a kind of a later version may come at any time, and is refused.
CALLER_GREETING = frozenset((HELLO, FAILURE))
CALLER_OPEN = REPLIES | {ITEM, END, ASK}
SUBSCRIBER_OPEN = REPLIES | {EVENT}
SERVER_OPEN = frozenset((CALL, SUBSCRIBE, TAKEN, PING))
#: What may come while a call runs whose caller lends something, and while a result is streamed.
LENT_OPEN = frozenset((ANSWER, TAKEN))
STREAMED_OPEN = frozenset((TAKEN, ANSWER, CALL))
PUBLISHER_OPEN = frozenset((SUBSCRIBE, UNSUBSCRIBE, TAKEN, FAILED, CALL))

#: Flag bit: the JSON holds tagged objects or refers to buffers (see values.py).
TAGGED = 1

# The first number of the quick header of a tagged frame with one buffer, without its kind.
ONE_BUFFER = TAGGED << 16 | 1

# Bytes that a receive asks for, and that the first one of a frame does, unless frames before it
# were longer: small messages come whole in one. Larger receives make malloc trim on every call,
# which is about 5 % of a small one.
CHUNK = 64 * 1024
FIRST = 16 * 1024
# The number of buffers is a u16.
MAX_BUFFERS = 65535
# The number of a request is a u32; 0 is for what is no reply to a request.
MAX_NUMBER = 2 ** 32 - 1

Buffer = Union[bytes, bytearray, memoryview]


class Frame(NamedTuple):
    """One message as it travels.

    :ivar number: of the request that it is, or belongs to.
    """

    kind: int
    number: int
    tagged: bool
    text: bytes
    buffers: Sequence[bytes] = ()


#: What a frame holds, also as a plain tuple, which takes a fifth of the time to make and to read.
Fields = Tuple[int, int, bool, bytes, Sequence[bytes]]

#: ``Frame._make`` without the Python function, which takes as long as all the rest of a frame.
make_frame = functools.partial(tuple.__new__, Frame)


class EndOfStream(Exception):
    """The stream ended inside a frame (``received`` > 0) or before one (0)."""

    def __init__(self, received: int) -> None:
        super().__init__(f"the stream ended after {received} bytes of a frame")
        self.received = received


class NotAFrame(ProtocolError):
    """Bytes that do not begin like anything of app-net's.

    :ivar data: all bytes received so far.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(None, f"what came starts with {bytes(data[:12])!r}")
        self.data = data


def pack(kind: int, number: int, text: bytes, tagged: bool = False,
         buffers: Sequence[Buffer] = ()) -> List[Buffer]:
    """The bytes of a frame, in pieces: large ones stay as they are, since joining would copy
    them."""
    size = len(text)
    if len(buffers) == 1:
        long = len(buffers[0])
        head = HEADER_OF_ONE.pack(kind, tagged, 1, number, size, long)
    else:
        sizes = list(map(len, buffers))
        long = sum(sizes)
        head = HEADER.pack(kind, tagged, len(sizes), number, size) + b"".join(
            map(LENGTH.pack, sizes))
    if size + long < CHUNK:
        return [b"".join((head, text, *buffers))]
    return [head + text, *buffers] if size < CHUNK else [head, text, *buffers]


#: Kinds -> what the quick headers of their frames start with: plain ones, and ones with one buffer.
_starts = Memo(lambda plain: frozenset([kind << KIND for kind in plain]), 64)
_starts_of_one = Memo(
    lambda plain: frozenset([kind << KIND | ONE_BUFFER for kind in plain]), 64)


class FrameParser:
    """Cuts frames out of received bytes. Bytes in, frames out; no socket.

    :param plain: the kinds that are returned as they are; all others go through :meth:`other`.
    :ivar rest: what was received and not cut yet, perhaps with cut frames before it. While it is
        not empty, ``receive(b"")`` may give a frame.
    """

    def __init__(self, limits: Limits, plain: FrozenSet[int]) -> None:
        self._max_text = limits.text
        self._max_buffers = limits.buffers
        self._expect(plain)
        self.rest = b""
        self._at = 0  # where in it the next frame begins
        self._partial: Optional[_Partial] = None

    def _expect(self, plain: FrozenSet[int]) -> None:
        self._plain = plain
        self._starts = _starts[plain]
        self._starts_of_one = _starts_of_one[plain]

    def receive(self, data: bytes = b"") -> Any:
        """Take what was received; return the next frame, or what :meth:`other` makes of it; None
        while it is not whole.

        Bytes may hold several frames: call again with no bytes until this returns None.

        :raises MessageTooLarge: a frame declares more than the limits allow; nothing was allocated.
        :raises ProtocolError: the bytes start no frame, or one that may not come now.
        """
        found = self.receive_fields(data)
        return make_frame(found) if type(found) is tuple else found

    def receive_fields(self, data: bytes) -> Any:
        """As :meth:`receive`, for plain calls, which have to be as quick as possible: a frame that
        comes whole and alone, as nearly all small ones do, is a plain tuple of its fields."""
        size = len(data) - HEAD
        if size >= 0 and not self.rest and self._partial is None:
            start, number, declared = QUICK_HEADER.unpack_from(data)
            if declared == size <= self._max_text and start in self._starts:
                return start >> KIND, number, False, data[HEAD:], ()
            if start in self._starts_of_one and size >= 8:
                found = self._with_one_buffer(start >> KIND, number, declared, data)
                if found is not None:
                    return found
        frame = self._cut(data)
        return frame if frame is None or frame.kind in self._plain else self.other(frame)

    def whole_call(self, data: bytes) -> Optional[Fields]:
        """The fields of a call, if the received data is just one whole call with at most one
        buffer. None for anything else, which is not taken."""
        size = len(data) - HEAD
        if size >= 0:
            start, number, declared = QUICK_HEADER.unpack_from(data)
            if start == CALL << KIND and declared == size <= self._max_text:
                return CALL, number, False, data[HEAD:], ()
            if start == CALL << KIND | ONE_BUFFER and size >= 8:
                return self._with_one_buffer(CALL, number, declared, data)
        return None

    def _with_one_buffer(self, kind: int, number: int, declared: int,
                         data: bytes) -> Optional[Fields]:
        length, = LENGTH.unpack_from(data, HEAD)
        end = LENGTHENED + declared
        if end + length == len(data) and declared <= self._max_text \
                and length <= self._max_buffers:
            return kind, number, True, data[LENGTHENED:end], [data[end:]]
        return None

    def other(self, frame: Frame) -> Any:
        """What to return for a frame that is not of the plain kinds.

        :raises ProtocolError: it may not come now.
        """
        raise ProtocolError(None, f"a frame of kind {frame.kind} may not come now")

    @property
    def held(self) -> int:
        """Bytes that were received of a frame that is not whole, or of frames that were not
        returned yet."""
        partial = 0 if self._partial is None else self._partial.received
        return partial + len(self.rest) - self._at

    @property
    def missing(self) -> Optional[Tuple[bytes, int]]:
        """What has come of a long text or buffer, and the bytes that it has in all; None while
        nothing long is on its way. If a reader can receive the whole into one object, :meth:`fill`
        saves a copy."""
        return None if self._partial is None else self._partial.missing

    def fill(self, whole: bytes) -> Any:
        """Take the whole of what :attr:`missing` named, in place of :meth:`receive`."""
        assert self._partial is not None
        self._partial.add(whole)
        return self.receive(b"")

    def _cut(self, data: bytes) -> Optional[Frame]:
        if self._partial is not None:
            data = self._partial.take(data)
            if self._partial.sizes:
                return None
            frame, self._partial = self._partial.frame(), None
            self.rest, self._at = data, 0
            return frame
        if data:
            self.rest = self.rest[self._at:] + data
            self._at = 0
        if len(self.rest) - self._at < HEAD:
            return None
        return self._begin(*HEADER.unpack_from(self.rest, self._at))

    def _begin(self, kind: int, flags: int, count: int, number: int, size: int) \
            -> Optional[Frame]:
        """Go on with a frame whose header has come; None while the frame is not whole."""
        if flags & ~TAGGED:
            raise NotAFrame(self.rest[self._at:])
        if size > self._max_text:
            raise MessageTooLarge("JSON text of a message, in bytes", size, self._max_text,
                                  "NET_MAX_TEXT")
        data, start = self.rest, self._at + HEAD + 8 * count
        if not count and len(data) >= start + size:  # a small one among others
            self._advance(start + size)
            return make_frame((kind, number, bool(flags), data[start:start + size], ()))
        if len(data) < start:
            return None
        sizes = [LENGTH.unpack_from(data, at)[0] for at in range(self._at + HEAD, start, 8)]
        if sum(sizes) > self._max_buffers:
            raise MessageTooLarge("buffers of a message, in bytes", sum(sizes), self._max_buffers,
                                  "NET_MAX_BUFFERS")
        partial = _Partial(kind, number, bool(flags & TAGGED), [size, *sizes])
        left = len(data) - start
        if left < size + sum(sizes):
            if kind not in KNOWN and size + sum(sizes) > CHUNK:
                raise ProtocolError(None, f"a large frame of the unknown kind {kind}")
            self._partial = partial
            self.rest, self._at = b"", 0
            return self._cut(data[start:])
        for part in partial.sizes:
            partial.parts.append(data[start:start + part])
            start += part
        self._advance(start)
        return partial.frame()

    def _advance(self, to: int) -> None:
        if to == len(self.rest):
            self.rest, self._at = b"", 0
        else:
            self._at = to


class _Partial:
    """A frame of which something is still missing.

    :ivar sizes: bytes of each part that is not whole yet: the text, then the buffers.
    :ivar parts: the parts that are whole.
    """

    def __init__(self, kind: int, number: int, tagged: bool, sizes: List[int]) -> None:
        self.sizes = deque(sizes)
        self.parts: List[bytes] = []
        self._head = (kind, number, tagged)
        self._start = HEAD + LENGTH.size * (len(sizes) - 1)
        self._pieces: List[bytes] = []
        self._got = 0

    @property
    def received(self) -> int:
        """Bytes that have come, header and lengths included."""
        return self._start + sum(map(len, self.parts)) + self._got

    @property
    def missing(self) -> Optional[Tuple[bytes, int]]:
        """See :attr:`FrameParser.missing`."""
        if not self.sizes or self.sizes[0] - self._got < CHUNK:
            return None
        return b"".join(self._pieces), self.sizes[0]

    def add(self, whole: bytes) -> None:
        """Take the next part, in one piece."""
        self.sizes.popleft()
        self._pieces, self._got = [], 0
        self.parts.append(whole)

    def take(self, data: bytes) -> bytes:
        """Take received bytes; return those that follow the frame."""
        at = 0
        while self.sizes:
            lacking = self.sizes[0] - self._got
            if len(data) - at < lacking:
                if at < len(data):
                    self._pieces.append(data[at:])
                    self._got += len(data) - at
                return b""
            self._pieces.append(data[at:at + lacking])
            at += lacking
            self.add(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        return data[at:]

    def frame(self) -> Frame:
        """The frame, once all parts are there."""
        text, *buffers = self.parts
        return make_frame((*self._head, text, buffers))
