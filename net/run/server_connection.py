"""One connection that is served: from its first bytes to its end, in a thread of its own."""
from __future__ import annotations

import logging
import socket
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Tuple

from ..context import Caller, Context, enter
from ..dispatch import Came, Dispatch, Running, Tally
from ..errors import (Address, AuthenticationError, MessageTooLarge, NetError, PeerBusy,
                      ProtocolError)
from ..identity import printable
from ..link.destination import check_destination
from ..link.streams import DONT_WAIT, NO_SIGNAL, Stream
from ..log import CONNECTIONS, RateLimitedLog
from ..settings import settings
from ..wire.frames import (CALL, CHUNK, LENT_OPEN, PING, RESULT, SERVER_OPEN, STREAMED_OPEN,
                           SUBSCRIBE, TAKEN, Buffer, EndOfStream, Frame, NotAFrame)
from ..wire.frames import pack as pack_frame
from ..wire.legacy import LegacySession
from ..wire.messages import encode_refusal
from ..wire.session import Preface, PrefaceParser, Session, encode_hello, server_session
from .access import share_of
from .lending import Borrower
from .loop import Loop
from .parked import Parked
from .producing import send_items
from .reading import rest_of_event
from .refusals import REFUSAL_TIME
from .streaming import ItemSender

if TYPE_CHECKING:
    from ..link.tls import Credentials

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# Seconds for the preface of a connection, a TLS handshake before it included.
GREETING_TIME = 3.0
# Bytes of a reply for which a socket has room if it can be written to at all.
SMALL = 4096
# Bytes a second at which a large request, or a reply, has all the time that it takes.
SLOWEST = 64 * 1024
NEVER = float("inf")


class Handover(NamedTuple):
    """A connection that leaves its thread, because a subscriber wants its events on it.

    :ivar address: of the subscriber; None for a Unix socket.
    :ivar group: of the subscriber.
    :ivar revision: of the settings under which it has connected.
    :ivar first: the frame that asked for the events.
    """

    stream: Stream
    session: Session
    address: Optional[Address]
    group: Optional[str]
    revision: int
    first: Frame


class Terms(NamedTuple):
    """What a server hands to each of its connections.

    :ivar instance: the random id of this process.
    :ivar known: credentials of this process where connections are TLS, else None.
    :ivar revision: of the settings that the credentials were made of.
    :ivar admit: called when the first request is whole, and a later one that came in parts; False
        if the connection was given up meanwhile, and the request must not run.
    :ivar hand_over: takes a connection on which a subscriber wants its events, as
        :class:`Handover`; None where there are no events.
    :ivar loop: sends streamed results.
    :ivar shaken: called with the connection and False when the first step of a TLS handshake is
        done, and with True once the client has proved that it belongs to us.
    """

    instance: str
    known: Optional[Credentials]
    revision: int
    admit: Callable[[ServerConnection], bool]
    hand_over: Optional[Callable[[Handover], None]] = None
    loop: Optional[Loop] = None
    shaken: Optional[Callable[[ServerConnection, bool], object]] = None


class ServerConnection:
    """A connection that is being served.

    :ivar source: where it comes from, as places are shared out; empty for a Unix socket.
    :ivar context: of the calls that come over it.
    :ivar deadline: monotonic time at which it is closed; NEVER while a function runs.
    :ivar is_plain: whether it needs no TLS: in open mode, and once a process of this user has
        proved that it knows the secret.
    :ivar greeted: whether it has brought a valid preface.
    :ivar admitted: whether it has brought a whole request.
    :ivar handed_over: whether the loop has it now, and will close it.
    :ivar ending: why it takes no further request; None while it takes them.
    :ivar call: number of the call that runs, 0 for none. ``seen``: the number that the server saw
        at its last look. ``watched``: whether the loop looks for the end of the connection during
        the call.
    :ivar parked: what lets the loop of coroutines read it; None before the first coroutine.
    """

    def __init__(self, stream: Stream, address: Optional[Address], terms: Terms,
                 server: object = None) -> None:
        self.stream = stream
        self.address = address
        self.source = "" if address is None else share_of(address[0])
        self.context = Context(Caller(address, None), server)
        self.terms = terms
        self.since = monotonic()
        self.deadline = self.since + GREETING_TIME
        self.is_plain = terms.known is None
        self.greeted = self.admitted = self.handed_over = self.watched = False
        self.call = self.seen = 0
        self.ending: Optional[NetError] = None
        self.tally = Tally()
        self.parked: Optional[Parked] = None
        self._borrower: Optional[Borrower] = None
        # Of a request that is on its way, or a large reply: when it has to be over, and what the
        # stream had moved before it. Both have more time as long as they make progress.
        self._request_deadline = self._reply_deadline = 0.0
        self._moved_before = 0

    def idle_since(self) -> float:
        """Monotonic time of the last reply; NEVER in the middle of a request, a call or a reply."""
        deadline = self.deadline
        if not self.admitted or self.stream.begun \
                or deadline in (NEVER, self._request_deadline, self._reply_deadline):
            return NEVER
        return deadline - settings.idle_time

    def begin_call(self, call: int) -> None:
        """Note that the call with this number runs now."""
        self.deadline = NEVER
        self.call = call

    def end_call(self) -> None:
        """Note that its call has ended: it is idle from now on."""
        self.deadline = monotonic() + settings.idle_time
        self.call = 0

    def wait_for_request(self) -> None:
        """Note that a part of a request has come, and give the whole its time."""
        if self.deadline != self._request_deadline:
            self._moved_before = self.stream.moved
            self._request_deadline = monotonic() + settings.request_time
            self.deadline = self._request_deadline

    def is_overdue(self, now: float) -> bool:
        """Whether it has to end now."""
        deadline = self.deadline
        begun = self.stream.begun
        if deadline < now and deadline in (self._request_deadline, self._reply_deadline):
            deadline += (self.stream.moved - self._moved_before) / SLOWEST
        elif begun and deadline != NEVER:
            deadline = min(deadline, begun + settings.request_time)
        return deadline < now

    def overdue(self) -> Optional[NetError]:
        """Why it ends now that its time is over; None if there is nothing to tell."""
        if not self.greeted or self.deadline != self._request_deadline and not self.stream.begun:
            return None
        return ProtocolError(None, f"no whole request within {settings.request_time:g} s there "
                                   f"(NET_REQUEST_TIME), nor {SLOWEST:,} bytes a second of it")

    @property
    def is_working(self) -> bool:
        """Whether a request that has come is running, or its reply is being sent."""
        return self.call != 0 or self.deadline == NEVER

    def take_no_more(self, problem: NetError) -> None:
        """Let no further request run. Any thread may call. Where one is running, call again later:
        reading ends only when none runs.

        :param problem: what the caller of a later request is told.
        """
        if self.ending is None:
            self.ending = problem
        if not self.is_working:
            self.stream.stop_reading()

    def run(self, dispatch: Dispatch, rest: Callable[[Dispatch], None]) -> None:
        """Serve it to its end. Closing it is left to the server.

        :param rest: called with ``dispatch``: serves it from where the loop has left off.
        """
        enter(self.context)
        try:
            rest(dispatch)
        except EndOfStream:
            pass
        except NotAFrame as problem:
            note(logging.INFO, "closed %s: %s", self.address, printable(problem.reason))
        except AuthenticationError as problem:
            note(logging.WARNING, "refused %s: %s", self.address, printable(problem.reason))
            self._linger()
        except (MessageTooLarge, ProtocolError, PeerBusy) as problem:
            note(logging.INFO, "refused %s: %s", self.address, printable(str(problem)))
            self._refuse(problem)
            self._linger()
        except OSError as problem:
            note(logging.DEBUG, "connection from %s ended: %s", self.address, problem)
        finally:
            if self.parked is not None:
                self.parked.leave()  # before its socket may be closed

    def greet(self, preface: Preface) -> None:
        """Note that it has brought a valid preface, and what that says of the caller."""
        self.greeted = True
        self.context.caller = Caller(self.address, self.stream.group(preface.group),
                                     instance=preface.instance)
        self.wait_for_request()

    def serve_secured(self, data: bytes, dispatch: Dispatch) -> None:
        """Let the client prove by a TLS handshake that it belongs to us, and then serve it.

        :param data: the beginning of its handshake.
        """
        from ..link import tls

        # A Unix socket has no address. Over TCP this client would come from the address that it
        # calls, since it is on this host.
        address = self.address or getattr(self.context.server, "address", None)
        known, shaken = self.terms.known, self.terms.shaken
        assert known is not None and shaken is not None
        stream = tls.accept(self.stream, known, address, data,
                            partial(shaken, self, False))
        shaken(self, True)
        self.stream = stream
        parser = PrefaceParser()
        preface: Optional[Preface] = None
        while preface is None:
            data = stream.recv(CHUNK)
            if not data:
                raise EndOfStream(len(parser.rest))
            preface = parser.receive(data)
        self.greet(preface)
        try:
            check_destination(preface.to, stream.sock, self.terms.instance)
        except AuthenticationError as problem:
            self._refuse(problem)
            raise
        stream.send(encode_hello(self.terms.instance, settings.limits))
        session = server_session(settings.limits)
        session.rest = parser.rest
        event = session.receive()
        self.serve_open(session, [] if event is None else [event], dispatch)

    def serve_open(self, session: Session, first: List[Any], dispatch: Dispatch) -> None:
        """Serve it from its first request on.

        :param first: a list that holds that request, and is emptied; or an empty one, if only a
            part of the request has come.
        """
        try:
            self._serve_requests(session, first, dispatch)
        except EndOfStream:
            if self.ending is None:
                raise
            # The caller of a request that comes now learns that it does not run.
            self._refuse(self.ending)
            self._linger()

    def _serve_requests(self, session: Session, first: List[Any], dispatch: Dispatch) -> None:
        stream, context, tally = self.stream, self.context, self.tally
        recv_first, receive = stream.recv_first, session.receive_fields
        answer = dispatch.answer
        idle_time = settings.idle_time
        self._let_calls(session, dispatch)
        event = first.pop() if first else self._rest_of_request(session)
        if not self.terms.admit(self):
            return
        while self.ending is None:
            self.deadline = NEVER
            self.call = event[1]
            reply: Any = answer(event, context, tally) if event[0] == CALL \
                else self._other(session, event)
            if type(reply) is not list:
                event = None  # it may be large
                reply, event = self._finish(session, reply, dispatch)
                if reply is None:
                    return
                if event is not None:
                    continue
            self.deadline = monotonic() + idle_time
            if self._borrower is not None or len(reply) > 1:
                self._send_in_time(session, reply)
            else:
                stream.send(reply)
            self.call = 0
            # An idle connection must not hold the last, perhaps large, messages.
            event = reply = None
            event = receive(b"" if session.rest else recv_first())
            if event is None:
                self.wait_for_request()
                event = self._rest_of_request(session)
                if not self.terms.admit(self):
                    return
        raise EndOfStream(0)  # for serve_open(): a request that has come does not run

    def _let_calls(self, session: Session, dispatch: Dispatch) -> None:
        """Give the context what calls over this connection can do."""
        context = self.context
        context.borrow = partial(self._borrow, session)
        context.send_at_once = self._send_at_once
        if self.is_plain:
            context.keeper = partial(self._keeper, session, dispatch)

    def _send_at_once(self, reply: List[Buffer]) -> bool:
        """Send a small reply from another thread, while ours waits for it."""
        if self._borrower is not None or len(reply) > 1 or len(reply[0]) > SMALL \
                or not self.stream.is_writable():
            return False
        try:
            self.stream.send(reply)
        except OSError:
            pass  # the caller has gone, as our thread finds out
        return True

    def _keeper(self, session: Session, dispatch: Dispatch) -> Callable[[Any], bool]:
        if self.parked is None:
            self.parked = Parked(self, session, dispatch)
        return self.parked.keep

    def _rest_of_request(self, session: Session) -> Any:
        try:
            return rest_of_event(self.stream, session)
        except MemoryError:
            raise PeerBusy(None, "no memory for so large a request there") from None

    def _send_in_time(self, session: Session, reply: Any) -> None:
        """Send a reply that may take long. The connection is idle from its end on."""
        if self._borrower is not None:
            self._end_borrowing(session)
        self._moved_before = self.stream.moved
        self.deadline = self._reply_deadline = monotonic() + settings.idle_time
        self.stream.send(reply)
        self.deadline = monotonic() + settings.idle_time

    def _other(self, session: Session, event: Any) -> Any:
        """The reply to a frame that is no call; None if the connection was handed over."""
        if event[0] == PING:
            return pack_frame(RESULT, event[1], b"null")
        if event[0] == TAKEN:  # of a stream that has ended meanwhile
            return []
        if event[0] != SUBSCRIBE:
            return encode_refusal(event[1], ProtocolError(
                None, f"frames of kind {event[0]} are not known there"))
        if self.terms.hand_over is None:
            return encode_refusal(event[1], ProtocolError(None, "no events there"))
        self.call = 0  # so that the server does not watch it
        if self.parked is not None:
            self.parked.leave()
        if self.terms.loop is not None:
            self.terms.loop.call_soon(self._unwatch)  # before the loop drives it
        self.terms.hand_over(Handover(self.stream, session, self.address,
                                      self.context.caller.group, self.terms.revision,
                                      Frame(*event)))
        self.handed_over = True
        return None

    def _finish(self, session: Session, reply: Any, dispatch: Dispatch) -> Tuple[Any, Any]:
        """Wait for a coroutine, or send a streamed reply. Returns what is still to be sent, and the
        next request if it has come already; None and None if the connection has ended, or was
        handed over."""
        if type(reply) is Running:
            reply = dispatch.reply_of(reply, self.context, self.tally)
        if type(reply) is list:
            return reply, None
        if type(reply) is Came:
            return self._read_on(session, reply.data)
        if reply is None or self.terms.loop is None:
            return None, None
        self.call = 0  # the loop looks at the connection itself now
        session.allow(STREAMED_OPEN)
        make = partial(ItemSender, self.terms.loop, self.stream, session, reply.number,
                       self.context, settings.limits, self._unwatch)
        sender = make() if self._borrower is None else self._borrower.hand_over(make)
        last = send_items(sender, reply, self.context)
        if self._borrower is not None:
            self._borrower.stop()  # what is asked now would come after the end
        goes_on = sender.finish(last)
        if self._borrower is not None:
            self.deadline = monotonic() + settings.idle_time
            self._end_borrowing(session)
        session.allow(SERVER_OPEN)
        return ([], sender.early) if goes_on else (None, None)

    def _read_on(self, session: Session, data: bytes) -> Tuple[Any, Any]:
        """Go on with what the loop of coroutines has received. Returns what :meth:`_finish`
        does."""
        if not data:
            return [], None
        event = session.receive_fields(data)
        if event is None:
            self.wait_for_request()
            event = self._rest_of_request(session)
            if not self.terms.admit(self):
                return None, None
        return [], event

    def _unwatch(self) -> None:
        assert self.terms.loop is not None
        self.terms.loop.unregister(self.stream.sock)
        self.watched = False

    def _borrow(self, session: Session, content: Any) -> Any:
        """The stand-in for an argument of the call that its caller lends."""
        if self._borrower is None:
            session.allow(LENT_OPEN)
            self._borrower = Borrower(self.stream, session, self.context, settings.limits)
        return self._borrower.borrow(content)

    def _end_borrowing(self, session: Session) -> None:
        assert self._borrower is not None
        self._borrower.close()
        self._borrower = None
        session.allow(SERVER_OPEN)

    def serve_old(self, session: LegacySession, problem: Optional[ProtocolError],
                  dispatch: Dispatch) -> None:
        """Answer the one request of an old program.

        :param problem: why the request cannot be read; None if it can.
        """
        if not self.terms.admit(self):
            return
        self.deadline = NEVER
        self.context.dialect = session.dialect
        reply = dispatch.answer_legacy(session, self.context, self.tally) if problem is None \
            else session.refuse(problem)
        if reply:
            self.deadline = monotonic() + GREETING_TIME
            self.stream.reset_at_end(False)
            self.stream.send([reply])

    def _refuse(self, problem: NetError) -> None:
        """Say why the connection ends."""
        try:
            self.stream.send(encode_refusal(0, problem))
        except OSError:
            pass

    def _linger(self) -> None:
        """Give the client time to read what it was told."""
        self.deadline = monotonic() + REFUSAL_TIME
        sock = self.stream.sock
        try:
            sock.shutdown(socket.SHUT_WR)
            # Closing with unread bytes would reset the connection and could lose what was sent.
            while sock.recv(CHUNK):
                pass
        except OSError:
            pass

    def refuse(self, problem: NetError) -> None:
        """Say why the connection ends, and end it, before a request was whole. Any thread may call,
        and never waits."""
        if not self.is_plain:
            self.stream.abort()  # its TLS belongs to its own thread
            return
        self.deadline = monotonic() + REFUSAL_TIME
        try:
            # A client that has left its replies unread has no room for this one, and gets none.
            self.stream.sock.send(b"".join(encode_refusal(0, problem)), NO_SIGNAL | DONT_WAIT)
        except OSError:
            pass
        try:
            self.stream.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
