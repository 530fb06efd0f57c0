"""One connection that is served: from its first bytes to its end, in a thread of its own."""
from __future__ import annotations

import logging
import socket
import struct
from time import monotonic
from typing import Any, Callable, Optional

from ..dispatch import Dispatch, Tally, caller
from ..settings import settings
from ..errors import (Address, AuthenticationError, MessageTooLarge, NetError, PeerBusy,
                      ProtocolError)
from ..identity import printable
from ..wire.frames import (CALL, CHUNK, EndOfStream, FrameReader, MAGIC, MAX_GROUP, NotAFrame,
                           PREFACE, VERSION)
from ..wire.legacy import FIRST_BYTES, LegacySession
from ..wire.messages import encode_refusal
from .refusals import REFUSAL_TIME
from ..log import RateLimitedLog
from ..link.streams import Stream

note = RateLimitedLog(logging.getLogger(__name__))

# Seconds for the first 8 bytes of a connection, a TLS handshake before them included.
GREETING_TIME = 3.0
NEVER = float("inf")

# To look at what has come and leave it there, without waiting.
PEEK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)

GROUP_LENGTH = struct.Struct("!H")


class ServerConnection:
    """A connection that is being served.

    :param known: credentials of this process where connections are TLS, else None.
    :param admit: called once, when the first request is whole; False if the connection was given
        up meanwhile, and the request must not run.
    :ivar deadline: monotonic time at which it is closed; NEVER while its function runs.
    :ivar greeted: whether it began as a client of ours does.
    :ivar admitted: whether it has brought a whole request.
    """

    def __init__(self, stream: Stream, address: Optional[Address], known: Any,
                 admit: Callable[["ServerConnection"], bool]) -> None:
        self.stream = stream
        self.address = address
        self.known = known
        self.since = monotonic()
        self.deadline = self.since + GREETING_TIME
        self.greeted = self.admitted = False
        self.tally = Tally()
        self._admit = admit
        self._request_deadline = 0.0

    def idle_since(self) -> float:
        """Monotonic time of the last reply; NEVER in the middle of a request or a call."""
        deadline = self.deadline
        if not self.admitted or deadline == NEVER or deadline == self._request_deadline:
            return NEVER
        return deadline - settings.idle_time

    def wait_for_request(self) -> None:
        """A part of a request has come; give the whole its time."""
        if self.deadline != self._request_deadline:
            self._request_deadline = monotonic() + settings.request_time
            self.deadline = self._request_deadline

    def run(self, dispatch: Dispatch) -> None:
        """Serve it to its end. Closing it is left to who made it."""
        try:
            self._greet(dispatch)
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

    def _greet(self, dispatch: Dispatch) -> None:
        """Tell the dialects apart by the first bytes, and serve the one that it is."""
        data = self.stream.recv(CHUNK)
        if self.known is not None:
            data = self._secured(data)
        elif data[:1] in FIRST_BYTES:
            self._serve_legacy(dispatch, data)
            return
        data = self._extended(data, len(PREFACE))
        if data[4] != VERSION:
            raise ProtocolError(None, f"version {data[4]} of the protocol was asked for, this "
                                      f"peer speaks version {VERSION}")
        end = len(PREFACE) + GROUP_LENGTH.unpack_from(data, 6)[0]
        if end > len(PREFACE) + MAX_GROUP:
            raise NotAFrame(data)
        data = self._extended(data, end)
        self.greeted = True
        if self.known is None:
            # What a stranger says of himself; a certificate is what counts where there is one.
            caller.group = data[len(PREFACE):end].decode("utf-8", "replace") or None
        self._serve_frames(dispatch, data[end:])

    def _secured(self, data: bytes) -> bytes:
        """The first bytes within TLS, once the client has proved that it belongs to us."""
        from ..link import tls

        if not data:
            raise EndOfStream(0)
        if data[0] == MAGIC[0]:
            problem = AuthenticationError(None, tls.CALLER_IS_OPEN)
            self._refuse(problem)
            raise problem
        if data[0] != tls.HELLO:
            self.stream.reset_at_end(data[:1] in FIRST_BYTES)
            raise NotAFrame(data)
        self.greeted = True
        stream = tls.accept(self.stream, self.known, self.address, data)
        self.stream = stream
        caller.group = stream.group
        return stream.recv(CHUNK)

    def _extended(self, data: bytes, size: int) -> bytes:
        """The beginning of the connection, ``size`` bytes or more."""
        while True:
            if not MAGIC.startswith(data[:len(MAGIC)]):
                raise NotAFrame(data)
            if len(data) >= size:
                return data
            more = self.stream.recv(CHUNK)
            if not more:
                raise EndOfStream(len(data))
            data += more

    def _serve_frames(self, dispatch: Dispatch, rest: bytes) -> None:
        stream = self.stream
        reader = FrameReader(stream.recv, stream.recv_into, frozenset((CALL,)),
                             (settings.max_text, settings.max_buffers), self.wait_for_request)
        reader.rest = rest
        answer, tally = dispatch.answer, self.tally
        idle_time = settings.idle_time
        frame: Any = reader.frame()
        if not self._admit(self):
            return
        while True:
            self.deadline = NEVER
            reply: Any = answer(frame, tally)
            self.deadline = monotonic() + idle_time
            stream.send(reply)
            # An idle connection must not hold the last, perhaps large, messages.
            frame = reply = None
            frame = reader.frame()

    def _serve_legacy(self, dispatch: Dispatch, data: bytes) -> None:
        self.greeted = True
        # An end without a reply is the result "" to old programs, and the end of their search.
        self.stream.reset_at_end(True)
        self.wait_for_request()
        session = LegacySession(limits=settings.limits)
        try:
            request = session.receive(data)
            while request is None:
                data = self.stream.recv(CHUNK)
                if not data:
                    return
                request = session.receive(data)
            if not self._admit(self):
                return
            self.deadline = NEVER
            reply = dispatch.answer_legacy(session, self.tally)
        except NotAFrame:
            raise
        except ProtocolError as problem:
            reply = session.refuse(problem)
        if reply:
            self.deadline = monotonic() + GREETING_TIME
            self.stream.reset_at_end(False)
            self.stream.send([reply])

    def _refuse(self, problem: NetError) -> None:
        """Say why the connection ends."""
        try:
            self.stream.send(encode_refusal(problem))
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

    def _is_old(self) -> bool:
        """Whether it began as old programs do, read or not."""
        try:
            if self.stream.is_readable() and self.stream.sock.recv(1, PEEK) in FIRST_BYTES:
                self.stream.reset_at_end(True)
        except OSError:
            pass  # its own thread was first
        return self.stream.resets

    def dismiss(self, problem: NetError) -> None:
        """End it from another thread, before its first request was whole."""
        if self.greeted and self.known is not None or self._is_old():
            self.stream.abort()  # its TLS, or its reply, belongs to its own thread
            return
        self.deadline = monotonic() + REFUSAL_TIME
        self._refuse(problem)
        try:
            self.stream.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
