"""Accepted connections until their first request has come. The loop reads them, so that clients
that only connect, greet or dawdle, hundreds in a second, cost no thread."""
from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional

from ..dispatch import Dispatch
from ..errors import AuthenticationError, NetError, ProtocolError
from ..identity import printable
from ..link.local import NotProved, process_behind
from ..log import CONNECTIONS, RateLimitedLog
from ..settings import settings
from ..wire.frames import CHUNK, NotAFrame
from ..wire.legacy import FIRST_BYTES, LegacySession
from ..wire.session import MAGIC, PrefaceParser, Session, encode_hello, server_session
from .loop import READ, Loop
from .refusals import RefusedClients
from .server_connection import ServerConnection

if TYPE_CHECKING:
    from ..link.proof import ServerProof

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# A TLS record: its header, which ends with its length, and what it holds at most.
RECORD, MAX_RECORD = 5, 2 ** 14

#: What the thread of a connection goes on with.
Rest = Callable[[Dispatch], None]


class Newcomer:
    """A connection whose first request has not come yet. In the loop's thread only.

    :param ready: called when the connection needs a thread: with the connection, what the thread
        goes on with, and whether the first request is whole.
    :param ended: called with the connection when it has ended without needing one.
    """

    def __init__(self, loop: Loop, connection: ServerConnection, refused: RefusedClients,
                 ready: Callable[[ServerConnection, Rest, bool], None],
                 ended: Callable[[ServerConnection], None]) -> None:
        self._loop = loop
        self._connection = connection
        self._refused = refused
        self._ready = ready
        self._ended = ended
        self._sock = connection.stream.sock
        # Takes what has come; gives what the thread goes on with once that is known.
        self._read: Optional[Callable[[bytes], Optional[Rest]]] = None
        self._data = b""
        self._parser = PrefaceParser()
        self._session: Session
        self._proof: ServerProof
        self._old: Optional[LegacySession] = None
        self._is_whole = False

    def begin(self) -> None:
        """Wait for what the client says; most clients have said something already.

        :raises OSError: the loop cannot wait for it.
        """
        self._sock.setblocking(False)
        self._loop.register(self._sock, READ, self._receive)
        self._receive()

    def _receive(self, mask: int = READ) -> None:
        connection = self._connection
        rest: Optional[Rest] = None
        problem: Optional[NetError] = None
        try:
            data = connection.stream.recv_some(CHUNK)
            if data is None:
                return
            if data:
                self._read = self._read or self._tell_apart(data)
                rest = self._read(data)
                if rest is None:
                    return
        except NotAFrame as error:
            note(logging.INFO, "closed %s: %s", connection.address, printable(error.reason))
        except NetError as error:
            level = logging.WARNING if isinstance(error, AuthenticationError) else logging.INFO
            note(level, "refused %s: %s", connection.address, printable(str(error)))
            problem = error
        except OSError as error:
            note(logging.DEBUG, "connection from %s ended: %s", connection.address, error)
        if rest is not None:
            self._go_on(rest)
            return
        self._ended(connection)
        if problem is not None:
            self.refuse(problem)
        else:
            self.close()

    def _go_on(self, rest: Rest) -> None:
        self.leave()
        try:
            self._sock.setblocking(True)
            self._ready(self._connection, rest, self._is_whole)
        except BaseException:  # an error of ours: it would never be served
            self._ended(self._connection)
            self.close()
            raise

    def leave(self) -> None:
        """Stop waiting for what the client says."""
        self._loop.unregister(self._sock)

    def close(self) -> None:
        """End the connection without a reply."""
        self.leave()
        self._connection.stream.close()

    def refuse(self, problem: NetError) -> None:
        """Tell the client why the connection ends, and end it."""
        self.leave()
        self._refused.refuse(self._sock, problem, self._read is not None, self._old)

    # ------------------------------------------------------------------ what the client says

    def _tell_apart(self, data: bytes) -> Callable[[bytes], Optional[Rest]]:
        """How to read what begins like this.

        :raises NetError: the client is not let in.
        """
        connection = self._connection
        known = connection.terms.known
        if known is not None:
            from ..link import proof, tls  # loaded already, with the credentials

            if data[:1] == proof.FIRST:
                client = process_behind(self._sock)
                if client is not None and known.proof_key is not None:
                    self._proof = proof.ServerProof(known.proof_key, client)
                    return self._read_nonce
            if data[0] == MAGIC[0]:
                self._read = self._read_tls  # it has begun in our dialect
                raise AuthenticationError(None, tls.CALLER_IS_OPEN)
            if data[0] != tls.HELLO:
                connection.stream.reset_at_end(data[:1] in FIRST_BYTES)
                raise NotAFrame(data)
            connection.greeted = True
            return self._read_tls
        if data[:1] not in FIRST_BYTES:
            return self._read_preface
        connection.greeted = True
        # An end without a reply is the result "" to old programs, and the end of their search.
        connection.stream.reset_at_end(True)
        connection.wait_for_request()
        self._old = LegacySession(limits=settings.limits)
        return self._read_old

    def _read_tls(self, data: bytes) -> Optional[Rest]:
        """Collect the hello of a handshake. Once that is whole, a thread does the handshake, which
        takes milliseconds of work."""
        self._data += data
        if len(self._data) < RECORD:
            return None
        size = int.from_bytes(self._data[3:RECORD], "big")
        if size > MAX_RECORD:
            raise NotAFrame(self._data)
        if len(self._data) < RECORD + size:
            return None
        return partial(self._connection.serve_secured, self._data)

    def _read_nonce(self, data: bytes) -> Optional[Rest]:
        output = self._proof.output(data)
        if not output:
            return None
        self._send(output)
        self._read = self._read_proof
        return self._read_proof(b"")

    def _read_proof(self, data: bytes) -> Optional[Rest]:
        try:
            if not self._proof.receive(data):
                return None
        except NotProved:
            raise NotAFrame(data) from None  # it goes on under TLS, which tells why
        self._connection.is_plain = True
        self._read = self._read_preface
        return self._read_preface(self._proof.rest)

    def _send(self, data: bytes) -> None:
        if self._connection.stream.send_some(data) < len(data):
            raise OSError("it takes no bytes")

    def _read_old(self, data: bytes) -> Optional[Rest]:
        assert self._old is not None
        problem: Optional[ProtocolError] = None
        try:
            if self._old.receive(data) is None:
                return None
        except NotAFrame:
            raise
        except ProtocolError as error:
            problem = error
        self._is_whole = True
        return partial(self._connection.serve_old, self._old, problem)

    def _read_preface(self, data: bytes) -> Optional[Rest]:
        preface = self._parser.receive(data)
        if preface is None:
            return None
        connection = self._connection
        connection.greet(preface)
        self._send(b"".join(encode_hello(connection.terms.instance, settings.limits)))
        self._session = server_session(settings.limits)
        self._session.rest = self._parser.rest
        self._read = self._read_request
        return self._read_request(b"")

    def _read_request(self, data: bytes) -> Optional[Rest]:
        session = self._session
        event = session.receive(data)
        # A large request is received in one piece, by a thread.
        if event is None and session.held < CHUNK:
            return None
        self._is_whole = event is not None
        return partial(self._connection.serve_open, session, [] if event is None else [event])
