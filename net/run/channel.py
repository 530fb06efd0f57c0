"""A connection that the loop drives: a session on a non-blocking socket.

Nothing in here waits, and each turn does a bounded amount of work, so that one loop carries many
hundreds of connections, and a peer that floods its own does not hold up the others. All of it runs
in the loop's thread unless stated otherwise.
"""
from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Deque, Optional, Protocol, Sequence

from ..errors import Address, NetError, PeerLost, PeerUnreachable, ProtocolError
from ..link.base import RETRY, Carrier, Deadline, Endpoint
from ..link.destination import destination
from ..link.streams import Stream
from ..link.tcp import TcpCarrier
from ..log import CONNECTIONS, RateLimitedLog
from ..wire.frames import CHUNK, FIRST, Buffer, EndOfStream, Frame, NotAFrame
from ..wire.messages import decode_reply, encode_refusal
from ..wire.session import Unknown
from .loop import READ, WRITE, Loop, Timer
from .old_peers import leave_no_trace

if TYPE_CHECKING:
    from ..link.tls import ClientHandshake, Credentials

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# Of one connection in one turn of the loop: events that are given to its receiver, receives, and
# bytes that are sent. The other connections have their turn after it.
MAX_EVENTS = 100
MAX_RECEIVES = 4
MAX_SENT = 2 ** 20

# Seconds in which the end of a connection must be received on which nothing can be sent any more.
LAST_WORDS_TIME = 1.0
# Seconds for another process to accept, secure and greet a connection.
DIAL_TIME = 3.0


#: See :func:`dial`.
Greeting = Callable[[Optional[Address]], Sequence[Buffer]]


class Session(Protocol):
    """The state machine of one connection, such as :class:`net.wire.session.Session`."""

    def receive(self, data: bytes) -> Any:
        """Take what was received, and return the next event; None while none is whole. It is called
        again with no bytes after an event, and at the end of the connection."""


class Receiver:
    """The user of a channel. Every method is called in the loop's thread and must not wait; one
    that raises ends its channel."""

    def connected(self, channel: Channel) -> None:
        """The other side has accepted a connection that was dialled; nothing else is known yet."""

    def received(self, channel: Channel, event: Any) -> None:
        """An event of the session has come. For a channel that was dialled, the first one is what
        the other side greets with; nothing may be sent before it."""
        raise NotImplementedError

    def drained(self, channel: Channel) -> None:
        """What the socket did not take at once has been sent."""

    def ended(self, channel: Channel, problem: NetError) -> None:
        """The channel has ended and is closed. Called once, and not after :meth:`Channel.close`.

        :param problem: ``PeerLost`` when the connection ended or broke, ``ProtocolError`` when the
            other side broke the rules, ``MessageTooLarge`` when it sends too much. For a channel
            that was dialled and has received no event, see :func:`dial`.
        """
        raise NotImplementedError


class Channel:
    """A connection that both sides may send on at any time.

    Any thread may make one; it starts with the next turn of the loop.

    :param stream: of a connected socket, which belongs to the channel unless this raises.
    :param session: what it has received so far goes to the receiver first.
    :param address: ``(host, port)`` of the other side, for errors; None if it has none.
    :raises OSError: the loop cannot start.
    :ivar queued: bytes that the socket has not taken yet.
    :ivar closed: whether it has ended.
    """

    def __init__(self, loop: Loop, stream: Stream, session: Session, receiver: Receiver,
                 address: Optional[Address] = None) -> None:
        self._prepare(loop, session, receiver, address)
        stream.sock.setblocking(False)
        self._stream: Optional[Stream] = stream
        loop.call_soon(self._start)

    def _prepare(self, loop: Loop, session: Session, receiver: Receiver,
                 address: Optional[Address]) -> None:
        self.loop = loop
        self.session = session
        self.receiver = receiver
        self.address = address
        self.queued = 0
        self.closed = False
        # What is to be sent, and what is left of the piece that is being sent.
        self._queue: Deque[Buffer] = deque()
        self._part: Buffer = b""
        # What the loop waits for; None before it was asked to wait.
        self._waits_for: Optional[int] = None
        self._paused = False
        # What is sent within a turn is gathered, and leaves at its end.
        self._in_turn = False
        # Whether the session may hold an event that the receiver was not given yet.
        self._more = False
        self._left = 0
        self._size = FIRST
        self._broken: Optional[OSError] = None
        # Ends it when the other side does not do so in time.
        self._timer: Optional[Timer] = None
        self._receive: Callable[[Channel, Any], object] = receiver.received

    # ------------------------------------------------------------------ for its user

    @property
    def stream(self) -> Optional[Stream]:
        """The stream, None before the socket is there and after the end."""
        return self._stream

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Send a message, as much of it as the socket takes now and the rest later. Large pieces
        are not copied and must not change until :attr:`queued` is 0. A closed channel sends
        nothing."""
        if self.closed or self._broken is not None:
            return
        self._queue.extend(filter(len, pieces))
        self.queued += sum(map(len, pieces))
        if not self._in_turn and not len(self._part):
            self._write()

    def pause(self) -> None:
        """Receive nothing until :meth:`resume`: sooner or later the other side has to wait. Nor is
        its end noticed, unless something is sent."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """Receive again."""
        if self._paused and not self.closed:
            self._paused = False
            self._watch()
            if self._more and not self._in_turn:
                self.loop.call_soon(self._turn)

    def close(self) -> None:
        """Close the connection; what is queued is lost. The receiver is not called."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self._part, self.queued = b"", 0
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self.loop.unregister(self._stream.sock)
        self._close_stream()

    def detach(self) -> Stream:
        """Stop driving the connection, and return its stream, which is blocking again. Nothing may
        be queued; events that the receiver was not given yet stay in the session."""
        assert self._stream is not None and not self.queued
        self.closed = True
        stream, self._stream = self._stream, None
        self.loop.unregister(stream.sock)
        stream.sock.setblocking(True)
        return stream

    def abandon(self) -> None:
        """Close our copy of the socket in a forked child, after :meth:`Loop.abandon`."""
        self.closed = True
        self._close_stream()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError:
                pass  # some other code closed its descriptor

    # ------------------------------------------------------------------ turns of the loop

    def _start(self) -> None:
        self._waits_for = 0
        self._watch()
        self._more = True
        self._turn()

    def _watch(self) -> None:
        """Let the loop wait for what there is to do."""
        if self.closed or self._waits_for is None or self._stream is None:
            return
        events = (0 if self._paused else READ) | (WRITE if self.queued else 0)
        before, self._waits_for = self._waits_for, events
        if events == before:
            return
        try:
            if not before:
                self.loop.register(self._stream.sock, events, self._ready)
            elif events:
                self.loop.modify(self._stream.sock, events)
            else:
                self.loop.unregister(self._stream.sock)
        except OSError as problem:
            self._fail_soon(problem)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._write()
            if not self.queued and not self.closed:
                try:
                    self.receiver.drained(self)
                except BaseException as problem:
                    self._fail(problem)
        if mask & READ and not self._more:
            self._turn()

    def _turn(self) -> None:
        """Receive, and give the receiver the events that are whole."""
        if self.closed:
            return
        self._in_turn = True
        self._left = MAX_EVENTS
        try:
            self._take_turn()
        except BaseException as problem:
            self._fail(problem)
        finally:
            self._in_turn = False
        if self._queue and not len(self._part):
            self._write()

    def _take_turn(self) -> None:
        stream = self._stream
        assert stream is not None
        if self._more:
            self._give(b"")
        for _ in range(MAX_RECEIVES):
            if self._more or self._paused or self.closed:
                return
            data = stream.recv_some(self._size)
            if data is None:
                return
            if not data:
                self._give(b"")
                raise EndOfStream(getattr(self.session, "held", 0))
            full = len(data) == self._size
            self._size = CHUNK if full else FIRST
            self._give(data)
            if not full and not stream.holds_data:
                return
        if stream.holds_data and not self._more:
            self._more = True
            self.loop.call_soon(self._turn)

    def _give(self, data: bytes) -> None:
        """Give the receiver the events that received bytes make whole, as many as are left for this
        turn."""
        receive = self.session.receive
        event = receive(data)
        self._more = False
        while event is not None:
            if type(event) is Unknown:
                self._refuse(event)
            else:
                self._receive(self, event)
            self._left -= 1
            if self._left <= 0 or self._paused or self.closed:
                self._more = not self.closed
                if self._more and not self._paused:
                    self.loop.call_soon(self._turn)
                return
            event = receive(b"")

    def _refuse(self, event: Unknown) -> None:
        if self.queued > MAX_SENT:
            raise ProtocolError(None, "it asks for what is unknown, and takes no answers")
        self.send(encode_refusal(event.number, ProtocolError(
            None, f"frames of kind {event.kind} are not known there")))

    def _write(self) -> None:
        """Send what the socket takes, some of it in one turn."""
        stream, left = self._stream, MAX_SENT
        if stream is None:
            return
        try:
            while left > 0 and self.queued:
                if not len(self._part):
                    self._part = self._next_part()
                sent = stream.send_some(self._part)
                left -= sent
                self.queued -= sent
                if sent < len(self._part):
                    self._part = memoryview(self._part)[sent:]
                    break
                self._part = b""
        except OSError as problem:
            self._stop_sending(problem)
        self._watch()

    def _next_part(self) -> Buffer:
        """The first piece of the queue, joined with those that follow if they are small: several
        sends would wake the other side up several times."""
        queue = self._queue
        piece = queue.popleft()
        size = len(piece)
        if not queue or size + len(queue[0]) > CHUNK:
            return piece
        pieces = [piece]
        while queue and size + len(queue[0]) <= CHUNK:
            size += len(queue[0])
            pieces.append(queue.popleft())
        return b"".join(pieces)

    def _stop_sending(self, problem: OSError) -> None:
        """Sending failed. What the other side said before it closed can still be received."""
        self._broken = problem
        self._queue.clear()
        self._part, self.queued = b"", 0
        self._fail_soon(problem, LAST_WORDS_TIME)

    # ------------------------------------------------------------------ its end

    def _fail_soon(self, problem: BaseException, seconds: float = 0) -> None:
        """End the channel, but not within a call of its user's."""
        self._timer = self.loop.call_later(seconds, partial(self._fail, problem))

    def _fail(self, problem: BaseException) -> None:
        """End the channel and tell the receiver."""
        if self.closed:
            return
        if not isinstance(problem, (NetError, OSError, EndOfStream)):
            note(logging.ERROR, "the receiver of a channel failed")
        if isinstance(problem, NotAFrame) and self._stream is not None:
            leave_no_trace(self._stream)
        self.close()
        self.receiver.ended(self, self._meaning(problem))

    def _meaning(self, problem: BaseException) -> NetError:
        """What a problem means to the receiver."""
        if isinstance(problem, ProtocolError) and not isinstance(problem, NotAFrame):
            return ProtocolError(self.address, problem.reason, problem.ran)
        if isinstance(problem, NetError):
            return problem
        lost = self._lost(self._reason(problem))
        lost.__cause__ = problem
        return lost

    def _reason(self, problem: BaseException) -> str:
        if isinstance(problem, EndOfStream):
            return "it closed the connection" + (" within a message" if problem.received else "")
        if isinstance(problem, OSError):
            return str(self._broken or problem)
        return f"an error on this side: {problem!r}"

    def _lost(self, reason: str) -> NetError:
        return PeerLost(self.address, reason)


class _Dialed(Channel):
    """A channel that is being connected. It becomes a plain one with the first event."""

    def __init__(self, loop: Loop, endpoint: Endpoint, greeting: Greeting,
                 session: Session, receiver: Receiver, credentials: Optional[Credentials],
                 timeout: float, carrier: Carrier) -> None:
        self._prepare(loop, session, receiver, endpoint.address)
        self._stream = None
        self._endpoint = endpoint
        self._greeting = greeting
        self._credentials = credentials
        self._timeout = timeout
        self._carrier = carrier
        self._is_connected = self._greeted = False
        self._handshake: Optional[ClientHandshake] = None
        self._receive = self._take_first
        loop.call_soon(self._begin)

    def _begin(self) -> None:
        if not self.closed:
            self._timer = self.loop.call_later(self._timeout, self._give_up)
            self._connect()

    def _connect(self) -> None:
        if self.closed:
            return
        try:
            sock = self._carrier.start(self._endpoint)
            self._stream = Stream(sock)
            self.loop.register(sock, WRITE, self._connect_ended)
        except BlockingIOError:  # its queue is full
            self.loop.call_later(RETRY, self._connect)
        except socket.gaierror:
            self._connect_by_name()
        except OSError as problem:
            self._fail(problem)

    def _connect_by_name(self) -> None:
        """Connect in a thread of its own: looking up a name can wait for long."""
        try:
            threading.Thread(target=self._look_up, name="net-connect", daemon=True).start()
        except RuntimeError as problem:  # can't start new thread
            self._fail(OSError(str(problem)))

    def _look_up(self) -> None:
        try:
            sock = self._carrier.connect(self._endpoint, Deadline(self._timeout))
        except OSError as problem:
            self.loop.call_soon(partial(self._fail, problem))
            return
        try:
            self.loop.call_soon(partial(self._take_connected, sock))
        except OSError:  # the channel is closed, or its timer would keep the loop
            sock.close()

    def _take_connected(self, sock: socket.socket) -> None:
        if self.closed:
            sock.close()
            return
        sock.setblocking(False)
        self._stream = Stream(sock)
        self._connected()

    def _connect_ended(self, _mask: int) -> None:
        assert self._stream is not None
        sock = self._stream.sock
        self.loop.unregister(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(OSError(code, os.strerror(code)))
        else:
            self._connected()

    def _connected(self) -> None:
        assert self._stream is not None
        self._is_connected = True
        try:
            self.receiver.connected(self)
            if self.closed:
                return
            if self._credentials is None:
                self._open(self._stream)
                return
            from ..link import tls  # loaded already, with the credentials

            self._handshake = tls.ClientHandshake(self._credentials,
                                                  self._endpoint.address)
            self.loop.register(self._stream.sock, READ, self._shake_hands)
            self._send_handshake()
        except BaseException as problem:
            self._fail(problem)

    def _shake_hands(self, _mask: int) -> None:
        assert self._stream is not None and self._handshake is not None
        try:
            data = self._stream.recv_some(CHUNK)
            if data is None:
                return
            try:
                ended = self._handshake.receive(data)
            finally:
                self._send_handshake()
            if ended:
                self.loop.unregister(self._stream.sock)
                self._open(self._handshake.secured(self._stream))
        except BaseException as problem:
            self._fail(problem)

    def _send_handshake(self) -> None:
        """Send what the handshake wants to. It is little, and always fits into the buffer of a new
        connection."""
        assert self._stream is not None and self._handshake is not None
        output = self._handshake.output()
        if output:
            try:
                self._stream.send_some(output)
            except ConnectionError:
                pass  # what the other side said before it closed can still be received

    def _open(self, stream: Stream) -> None:
        """Send the greeting and wait for the answer."""
        self._stream = stream
        self._waits_for = 0
        tells = self._credentials is not None and not stream.proves_address
        self.send(self._greeting(
            destination(stream.sock, self._endpoint.address) if tells else None))
        self._watch()
        if stream.holds_data:
            self._turn()

    def _take_first(self, _channel: Channel, event: Any) -> None:
        if type(event) is Frame and getattr(self.session, "hello", self) is None:
            decode_reply(event, self.address, self.address, b"")  # raises what it refuses with
        assert self._timer is not None
        self._timer.cancel()
        self._greeted = True
        self._receive = self.receiver.received
        self._receive(self, event)

    def _give_up(self) -> None:
        what = "it accepts connections, but did not answer" if self._is_connected else "no answer"
        self._fail(socket.timeout(f"{what} within {self._timeout:g} s"))

    def _lost(self, reason: str) -> NetError:
        return (PeerLost if self._greeted else PeerUnreachable)(self.address, reason)

    def _reason(self, problem: BaseException) -> str:
        if isinstance(problem, EndOfStream) and not self._greeted and not problem.received:
            return "it closed the connection without an answer"
        return super()._reason(problem)


def dial(loop: Loop, endpoint: Endpoint, greeting: Greeting, session: Session,
         receiver: Receiver, credentials: Optional[Credentials] = None,
         timeout: float = DIAL_TIME, carrier: Carrier = TcpCarrier()) -> Channel:
    """Connect to a peer without waiting for it. Any thread may call.

    :param greeting: called with the address that the connection leads to, if that is to be checked
        there, else with None. It gives what is sent first: a preface, or a whole request of the old
        dialect.
    :param session: of a caller, which takes the answer to the greeting. One of the old dialect
        gives a single event; then the receiver closes the channel.
    :param receiver: hears ``connected``, then ``received`` with the first event, or ``ended``.
    :param credentials: of this process where connections are TLS, else None.
    :param timeout: seconds from now to the first event.
    :returns: the channel, which can be closed at once. Send nothing before the first event.
    :raises OSError: the loop cannot start.

    Until the first event nothing has run there, and ``ended`` gets one of

    * :class:`PeerUnreachable`: no process accepts there, or not in time, or the connection was
        closed without an answer; its cause is the error of the operating system, if there is one;
    * :class:`PeerBusy`, or another error with which the peer refuses the connection;
    * :class:`AuthenticationError`: the two sides do not match;
    * :class:`NotAFrame`: something other than a peer answered; its ``data`` is what that said;
    * :class:`ProtocolError`: it answered like a peer, and then broke the rules.
    """
    return _Dialed(loop, endpoint, greeting, session, receiver, credentials, timeout, carrier)
