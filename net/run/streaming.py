"""Streamed results: the items of a generator that runs on another peer, as they are made.

The producer sends items as long as its window has room, which the consumer gives back as it takes
them: a slow consumer slows the producer, and neither side holds more than a window.
"""
from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Generator
from typing import Any, Callable, Deque, List, NamedTuple, NoReturn, Optional, Union

from ..context import Context, Overdue
from ..errors import (Address, CallCancelled, CallTimeout, MessageTooLarge, NetError, PeerBusy,
                      PeerLost, ProtocolError, RemoteError)
from ..link.base import Deadline
from ..link.streams import Stream, Timed
from ..wire.frames import ANSWER, ASK, END, FAILURE, ITEM, TAKEN, Buffer, EndOfStream, Frame
from ..wire.limits import Limits
from ..wire.messages import (decode_count, decode_end, decode_items, decode_reply, encode_items,
                             encode_taken)
from ..wire.session import Session
from ..wire.values import Packed, pack
from .channel import Channel, Receiver
from .lending import Lender
from .loop import Loop
from .reading import next_event

# Items and bytes that may be on their way, or wait for the consumer. More items would not make
# small ones faster; what is larger than the bytes travels alone.
WINDOW_ITEMS = 1024
WINDOW_BYTES = 4 * 2 ** 20
# Items after which the producer is told that they were taken.
TELL = 256


#: The kinds of frame that a streamed reply is made of, besides a failure at its end.
STREAMED = frozenset((ITEM, END))


class Begun(NamedTuple):
    """A call whose reply is a stream.

    :ivar leave: called when the stream has ended: True if another call can have the connection.
    :ivar number: of the call.
    :ivar deadline: of the whole stream; None for no limit.
    :ivar first: the first frame of the reply.
    :ivar lender: does what is asked of the caller meanwhile; None if nothing is lent.
    """

    address: Address
    stream: Stream
    session: Session
    leave: Callable[[bool], object]
    number: int
    deadline: Optional[Deadline]
    first: Frame
    lender: Optional[Lender] = None


class RemoteIterator(Generator):  # type: ignore[type-arg]
    """The items of a generator on another peer. For one thread at a time.

    It behaves like a generator: nothing runs there before the first item is asked for; what the
    generator raises is raised here after the items before it; what it returns is the value of
    StopIteration. Closing this object, or letting go of it, closes the generator there.

    :param begin: the call, or what makes it when the first item is asked for.
    """

    def __init__(self, begin: Union[Begun, Callable[[], Begun]], peer: object, tag: bytes,
                 limits: Limits) -> None:
        self._begin = begin
        self._peer = peer
        self._tag = tag
        self._limits = limits
        self._flow = _Flow(begin, limits) if isinstance(begin, Begun) else None
        self._ended = False

    def begun(self) -> Begun:
        """The call, for another iterator to go on with."""
        assert isinstance(self._begin, Begun)
        self._flow = None
        self._ended = True
        return self._begin

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """The next item; nothing can be sent into a generator of another peer."""
        if value is not None:
            raise TypeError("a generator on another peer takes no values")
        if self._ended:
            raise StopIteration
        try:
            if self._flow is None:
                assert not isinstance(self._begin, Begun)
                self._flow = _Flow(self._begin(), self._limits)
            return self._flow.next_item(self._peer, self._tag)
        except BaseException:
            self.close()
            raise

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """End it; nothing can be thrown into a generator of another peer."""
        self.close()
        raise thrown(kind, value, traceback)

    def close(self) -> None:
        """End it here and there."""
        self._ended = True
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.close()

    def __del__(self) -> None:
        if not self._ended:
            self.close()

    def __repr__(self) -> str:
        return f"<generator on {self._peer!r}>"


def thrown(kind: Any, value: Any, traceback: Any) -> BaseException:
    """The exception that the arguments of a generator's ``throw`` stand for."""
    if isinstance(kind, BaseException):
        error = kind
    elif isinstance(value, BaseException):
        error = value
    else:
        error = kind() if value is None else kind(value)
    return error if traceback is None else BaseException.with_traceback(error, traceback)


class _Flow:
    """A stream that has begun, on a connection of its own until it ends."""

    def __init__(self, begun: Begun, limits: Limits) -> None:
        self._address, stream, self._session, self._leave, self._number, deadline, first, \
            self._lender = begun
        self._deadline = deadline
        self._limits = limits
        self._stream = stream if deadline is None else Timed(stream, deadline)
        self._items: Deque[Any] = deque()
        self._next: Optional[Frame] = first
        # Items that were given out, and how many of them the producer knows about.
        self._taken = self._told = 0
        self._in_order = False

    def next_item(self, peer: object, tag: bytes) -> Any:
        if self._taken - self._told >= TELL:
            self._tell()
        while not self._items:
            self._tell()
            frame = self._next if self._next is not None else self._receive()
            self._next = None
            if frame.kind != ITEM:
                self._end(frame, peer, tag)
            self._items.extend(decode_items(frame, self._limits, self._address))
        self._taken += 1
        return self._items.popleft()

    def _end(self, frame: Frame, peer: object, tag: bytes) -> NoReturn:
        """Raise what ends a stream."""
        address = self._address
        if frame.kind == END:
            value = decode_end(frame, self._limits, address)
            self._in_order = not self._session.rest
            raise StopIteration(value)
        raise_failure(frame, address, peer, tag, self._limits, self._leave_in_order)

    def _leave_in_order(self) -> None:
        self._in_order = not self._session.rest

    def _receive(self) -> Frame:
        try:
            event: Any = next_event(self._stream, self._session)
            while event[0] == ASK and self._lender is not None:
                self._stream.send(self._lender.answer(event))
                event = next_event(self._stream, self._session)
        except socket.timeout:
            assert self._deadline is not None
            raise CallTimeout(self._address, self._deadline.seconds) from None
        except Exception as problem:
            failure = meaning(problem, self._address)
            if failure is problem:
                raise
            raise failure from None
        if event[1] != self._number and not is_refusal(event):
            raise ProtocolError(self._address, "a reply to another request", "maybe")
        return event  # type: ignore[no-any-return]

    def _tell(self) -> None:
        """Tell the producer what was taken, so that it goes on."""
        if self._taken == self._told:
            return
        self._told = self._taken
        try:
            self._stream.send(encode_taken(self._number, self._taken))
        except OSError:
            pass  # its end, or the reason, is received next

    def close(self) -> None:
        # If it has not ended in order, the end of its connection ends the generator there.
        self._leave(self._in_order)


def is_refusal(event: Any) -> bool:
    """Whether an event is the refusal of a whole connection."""
    return isinstance(event, tuple) and event[:2] == (FAILURE, 0) and b'"refused"' in event[3]


def is_goodbye(refusal: Any) -> bool:
    """Whether the refusal of a whole connection says only that the peer takes no further request,
    and has run none that it did not answer; not that something is wrong with the request."""
    try:
        decode_reply(refusal, None, None, b"")
    except PeerBusy as problem:
        return problem.ran == "no"
    except NetError:
        pass
    return False


def says_goodbye(session: Session) -> bool:
    """Whether what has come behind a reply only says that the peer takes no further request."""
    return is_refusal(session.receive(b""))


def raise_failure(frame: Any, address: Address, peer: object, tag: bytes, limits: Limits,
                  leave_in_order: Callable[[], None]) -> NoReturn:
    """Raise what has ended a stream, where that is not its regular end.

    :param leave_in_order: called if the function itself raised, so that another call can have the
        connection.
    """
    if frame[0] != FAILURE:
        raise ProtocolError(address, f"a frame of kind {frame[0]} is no part of a stream", "maybe")
    try:
        decode_reply(frame, address, peer, tag, limits)
    except RemoteError:
        if b'"refused"' not in frame.text:
            leave_in_order()
        raise
    except NetError as problem:
        if problem.ran == "no":  # some of it did, or there would be no stream
            problem.ran = "maybe"
        raise
    raise AssertionError("a failure raises")


def meaning(problem: Exception, address: Address) -> Exception:
    """What a problem within a stream means to its consumer."""
    if isinstance(problem, ProtocolError):
        return ProtocolError(address, problem.reason, "maybe")
    if isinstance(problem, MessageTooLarge):
        problem.ran = "yes"  # it is an item, or what was returned
    elif isinstance(problem, EndOfStream):
        return PeerLost(address, "the peer closed the connection within a stream")
    elif isinstance(problem, OSError) and not isinstance(problem, NetError):
        return PeerLost(address, str(problem))
    return problem


# ------------------------------------------------------------------------ where the generator runs

# Bytes of items that share a frame.
JOINED = 64 * 1024


class ItemSender(Receiver):
    """Sends the items of one generator. A thread puts them in, the loop sends them and hears what
    the consumer has taken; while the loop is behind, they gather.

    :param begin: called in the loop, before it drives the connection.
    :ivar answered: takes the answers to what was asked of the caller; None if it lends nothing.
    :ivar early: the next request of this connection, if it came before the stream had ended here.
    """

    def __init__(self, loop: Loop, stream: Stream, session: Session, number: int,
                 context: Context, limits: Limits, begin: Callable[[], None]) -> None:
        self._loop = loop
        self._number = number
        self._context = context
        self._limits = limits
        self.answered: Optional[Callable[[Frame], None]] = None
        self.early: Optional[Frame] = None
        # Guards what follows; notified when there is room, and at the end.
        self._changed = threading.Condition()
        self._gathered: List[Packed] = []
        self._flushing = False
        # Bytes of each item that was not taken yet, and how many were.
        self._sizes: Deque[int] = deque()
        self._bytes = 0
        self._taken = 0
        self._gone = self._last = self._finished = False
        self._listeners: List[Callable[[], object]] = []
        self._channel: Optional[Channel] = None

        def start() -> None:
            begin()
            self._channel = Channel(loop, stream, session, self, context.caller.address)
        loop.call_soon(start)

    # ------------------------------------------------------------------ for the producer

    def put(self, item: Any) -> None:
        """Send an item; waits while the window is full.

        :raises CallCancelled: the consumer takes no more.
        :raises CallTimeout: the time of the call is over.
        :raises ValueNotSupported: the item cannot travel; the error says which part of it.
        """
        packed = pack(item, "item", self._limits)
        with self._changed:
            while not self._has_room() and not self._context.is_over():
                self._changed.wait(self._context.remaining())
            self._add(packed)

    def put_if_room(self, item: Any, listener: Callable[[], object]) -> bool:
        """Send an item if the window has room. If it has none, ``listener`` is called once when it
        may have, from another thread.

        :returns: whether it was sent.

        :raises CallCancelled, CallTimeout, ValueNotSupported: as :meth:`put` does.
        """
        packed = pack(item, "item", self._limits)
        with self._changed:
            if not self._has_room() and not self._context.is_over():
                self._listeners.append(listener)
                return False
            self._add(packed)
            return True

    def _has_room(self) -> bool:
        return self._gone or not self._sizes or \
            len(self._sizes) < WINDOW_ITEMS and self._bytes < WINDOW_BYTES

    def _add(self, packed: Packed) -> None:
        context = self._context
        if self._gone or context.cancelled:
            raise CallCancelled("its consumer takes no more items")
        if context.is_over():
            raise Overdue(None, context.seconds or 0.0)
        size = len(packed.text) + sum(map(len, packed.buffers))
        self._gathered.append(packed)
        self._sizes.append(size)
        self._bytes += size
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def finish(self, last: List[Buffer]) -> bool:
        """Send what is left and the last frame, and wait until that has left. Returns whether the
        connection is in order, and can be used again."""
        self._loop.call_soon(lambda: self._send_last(last))
        with self._changed:
            self._changed.wait_for(lambda: self._gone or self._finished)
            return not self._gone

    # ------------------------------------------------------------------ in the loop

    def send(self, pieces: List[Buffer]) -> None:
        """Send a frame that is no item on this connection. Any thread may call."""
        def step() -> None:
            self._flush()
            if self._channel is not None:
                self._channel.send(pieces)
        self._loop.call_soon(step)

    def _flush(self) -> None:
        with self._changed:
            gathered, self._gathered = self._gathered, []
            self._flushing = False
        channel = self._channel
        if channel is None or channel.closed:
            return
        batch: List[Packed] = []
        size = 0
        for packed in gathered:
            if batch and (packed.buffers or packed.tagged != batch[0].tagged or size > JOINED):
                channel.send(encode_items(self._number, batch))
                batch, size = [], 0
            batch.append(packed)
            size += len(packed.text)
            if packed.buffers:
                channel.send(encode_items(self._number, batch))
                batch, size = [], 0
        if batch:
            channel.send(encode_items(self._number, batch))

    def _send_last(self, last: List[Buffer]) -> None:
        self._flush()
        channel = self._channel
        if channel is None or channel.closed:
            return
        self._last = True
        channel.send(last)
        if not channel.queued:
            self.drained(channel)

    def drained(self, channel: Channel) -> None:
        if self._last and not channel.closed:
            channel.detach()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def received(self, channel: Channel, event: Any) -> None:
        kind = event[0]
        if kind == TAKEN:
            count = decode_count(event)
            if event[1] == self._number:  # and not of a stream before
                self._note_taken(count)
        elif kind == ANSWER and self.answered is not None:
            self.answered(event)
        elif self._last and self.early is None:
            self.early = event
            channel.pause()
        else:
            raise ProtocolError(None, "a request within a stream")

    def _note_taken(self, count: int) -> None:
        with self._changed:
            if count - self._taken > len(self._sizes):
                raise ProtocolError(None, "more items were taken than sent")
            for _ in range(count - self._taken):
                self._bytes -= self._sizes.popleft()
            self._taken = max(self._taken, count)
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def ended(self, channel: Channel, problem: NetError) -> None:
        self._context.cancel()
        with self._changed:
            self._gone = True
            self._tell()
