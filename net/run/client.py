"""One call to a peer: a connection from the pool, one request, one reply.

A connection carries one call at a time. Any thread may call; calls at the same time take several
connections. One that was not left in perfect order is closed, never pooled: nobody may get
another call's reply.
"""
from __future__ import annotations

import itertools
import socket
import threading
import weakref
from time import monotonic
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from ..dispatch import caller
from ..errors import (Address, CallTimeout, MessageTooLarge, NetError, PeerLost, PeerUnreachable,
                      ProtocolError, RemoteError)
from ..identity import PeerArgument, address_of
from ..link import security
from ..link.streams import Deadline, Stream, Timed, tune
from ..settings import Settings, is_loopback
from ..wire import legacy
from ..wire.frames import (FAILURE, FIRST, HEADER, MAX_NUMBER, Buffer, EndOfStream, Frame,
                           NotAFrame)
from ..wire.messages import Call, decode_reply, encode_call
from ..wire.session import Hello, Session, caller_session, encode_preface
from .reading import next_event, rest_of_event

# Seconds to wait for a connection. The operating system would try for two minutes.
CONNECT_TIME = 3.0
# Seconds from there to HELLO, a TLS handshake included. Nothing has run before it.
GREETING_TIME = 3.0
# Seconds that an idle connection stays in the pool. Servers keep it for 300, so that it is always
# the client that lets go and no request runs into a closing connection.
IDLE_TIME = 60.0
# Seconds from one look for such connections to the next. Calls do it in passing.
LOOK_TIME = 5.0
NEVER = float("inf")
# Seconds after which a call that waits for a free connection looks for itself: nobody tells of one
# that an interrupt dropped.
WAIT_TIME = 1.0
# Seconds for the rest of an old peer's answer to our preface, once it began.
LEGACY_ANSWER_TIME = 1.0
# Arguments that are remembered; one entry is some 200 bytes.
MAX_ARGUMENTS = 4096


class Client:
    """The calls of this process to others. Any thread may call.

    :ivar next_look: monotonic time of the next look for connections that nobody uses.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.next_look = 0.0
        self._pools: Dict[Address, Pool] = {}
        # The pool of a ``peer=`` argument, so that an id is decoded once.
        self._by_argument: Dict[Any, Pool] = {}
        self._numbers = itertools.count()

    def call(self, peer: PeerArgument, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
             timeout: Optional[float] = None) -> Any:
        """Run one function on another peer.

        :param timeout: seconds for the whole call; None takes ``NET_TIMEOUT``, or no limit.
        :returns: what the function returned there; a Flag if it returned one.
        :raises InvalidPeer: nothing was sent.
        :raises ValueNotSupported: nothing was sent.
        :raises NetError: as the tree in errors.py says.
        """
        try:
            pool = self._by_argument[peer]
        except (KeyError, TypeError):
            pool = self._find_pool(peer)
        if timeout is None:
            timeout = self.settings.timeout
        deadline = None if timeout is None else Deadline(timeout)
        if not pool.legacy:
            number = next(self._numbers) % MAX_NUMBER + 1
            frame = pool.exchange(
                encode_call(number, tag, args, kwargs, self.settings.limits), number, deadline)
            if frame is not None:
                try:
                    return decode_reply(frame, pool.address, peer, tag, self.settings.limits)
                except ProtocolError:  # whatever comes next from such a peer
                    pool.close_old(NEVER)
                    raise
        message = legacy.encode_call(Call(tag, list(args), kwargs), self.settings.limits)
        data = pool.exchange_legacy(message, deadline)
        return legacy.decode_reply(data, peer, tag, self.settings.limits)

    def _find_pool(self, peer: Any) -> Pool:
        address = address_of(peer)
        if len(self._by_argument) >= MAX_ARGUMENTS:
            self._by_argument.clear()
        pool = self._pools.setdefault(address, Pool(self, address))
        if isinstance(peer, (bytes, str, tuple)):  # net.Peer() may move to another port
            self._by_argument[peer] = pool
        return pool

    def connect(self, address: Address, timeout: float) -> Optional[Connection]:
        """A connection of one's own, in no pool; None if an old peer is there.

        :raises NetError: as the tree in errors.py says.
        """
        return Pool(self, address).open(Deadline(timeout))

    def close_old(self, now: float) -> None:
        """Close the connections to any peer that nobody has used for long."""
        self.next_look = now + LOOK_TIME
        for pool in list(self._pools.values()):
            pool.close_old(now - IDLE_TIME)

    def close_idle(self) -> None:
        """Close all connections that wait for a call. A program that ends leaves none open."""
        self.close_old(NEVER)

    def forget(self) -> None:
        """Close every connection and empty the pools, in a forked child: they are the parent's."""
        for pool in self._pools.values():
            pool.abandon()
        self._pools.clear()
        self._by_argument.clear()


class Connection:
    """An open connection to a peer, for one call at a time.

    :ivar hello: what the peer has said of itself.
    """

    def __init__(self, address: Address, stream: Stream, session: Session, hello: Hello,
                 revision: int) -> None:
        self.address = address
        self.stream = stream
        self.session = session
        self.hello = hello
        # What connections were secured with, and as whom, when this one was opened.
        self.revision = revision
        self.idle_since = 0.0

    def exchange(self, message: List[Buffer], number: int, deadline: Optional[Deadline]) -> Frame:
        """Send a request and receive its reply."""
        stream = self.stream
        if deadline is not None:
            return self._exchange_timed(message, number, deadline)
        self._send(message, stream)
        message.clear()
        session = self.session
        event = session.receive(stream.recv(FIRST))
        if event is None:
            event = rest_of_event(stream, session)
        return event if event[1] == number else self._stray(event)

    def _exchange_timed(self, message: List[Buffer], number: int, deadline: Deadline) -> Frame:
        timed = Timed(self.stream, deadline)
        self._send(message, timed)
        message.clear()
        event = next_event(timed, self.session)
        self.stream.sock.settimeout(None)
        return event if event[1] == number else self._stray(event)

    def _stray(self, event: Any) -> Frame:
        """A reply that carries another number: only a refusal of the whole connection may."""
        if type(event) is Frame and event.kind == FAILURE and not event.number \
                and b'"refused"' in event.text:
            return event
        raise ProtocolError(self.address, "a reply to another request", "maybe")

    def _send(self, message: Sequence[Buffer], stream: Union[Stream, Timed]) -> None:
        try:
            stream.send(message)
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError):
            # A peer that refuses a request may close before it has read it all. Its reply, if it
            # sent one, can still be received.
            if not self.stream.is_readable():
                raise

    def close(self) -> None:
        self.stream.close()


def _within(deadline: Optional[Deadline], seconds: float) -> float:
    return seconds if deadline is None else min(seconds, deadline.remaining())


class _Place:
    """Stands for a connection that is being opened."""


class Pool:
    """The connections to one address.

    :ivar legacy: whether the peer there speaks the old dialect.
    """

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.legacy = False
        self._client = client
        self._settings = client.settings
        # Append and pop are atomic; the last one used, likely still warm, is taken first.
        self._idle: List[Connection] = []
        # Guards what follows; told when a connection is free, or gone.
        self._freed = threading.Condition()
        # All that are open, those in use too, and the places of those that are being opened. Weak
        # references: what an interrupt dropped is closed by the collector and counts no more.
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._opening: weakref.WeakSet[_Place] = weakref.WeakSet()
        self._waiting = 0

    def exchange(self, message: List[Buffer], number: int,
                 deadline: Optional[Deadline]) -> Optional[Frame]:
        """One request and its reply; None if an old peer is there, which did not run it."""
        connection = self._take(deadline)
        if connection is None:
            return None
        if len(message) > 1:
            self._check_size(connection, message)
        try:
            frame = connection.exchange(message, number, deadline)
            if connection.session.rest:
                raise ProtocolError(self.address, "more than one reply", "maybe")
        except BaseException as problem:  # KeyboardInterrupt too: the reply may be half read
            self._close(connection)
            failure = self._failure(problem, deadline)
            if failure is problem:
                raise
            raise failure from None
        if frame.kind == FAILURE and b'"refused"' in frame.text:
            # A peer that could not read a request, or is at its limit, closes after its reply.
            self._close(connection)
            return frame
        self._give_back(connection)
        return frame

    def _check_size(self, connection: Connection, message: Sequence[Buffer]) -> None:
        """Refuse a request that the peer would refuse, before it is sent.

        :raises MessageTooLarge: over a limit that the peer has told.
        """
        limits = connection.hello.limits or {}
        _, _, count, _, size = HEADER.unpack_from(message[0])
        buffers = sum(map(len, message[len(message) - count:])) if count else 0
        for what, number, limit, setting in (
                ("JSON text of a message, in bytes", size, limits.get("text"), "NET_MAX_TEXT"),
                ("buffers of a message, in bytes", buffers, limits.get("buffers"),
                 "NET_MAX_BUFFERS")):
            if type(limit) is int and number > limit:
                self._give_back(connection)
                raise MessageTooLarge(what, number, limit, setting)

    def _give_back(self, connection: Connection) -> None:
        connection.idle_since = monotonic()
        self._idle.append(connection)
        if self._waiting:
            self._wake()

    def _failure(self, problem: BaseException, deadline: Optional[Deadline]) -> BaseException:
        """What a problem within an exchange means to the caller."""
        if isinstance(problem, MessageTooLarge):
            problem.ran = "yes"  # it is the reply that is too large
        if isinstance(problem, ProtocolError):
            return ProtocolError(self.address, problem.reason, "maybe")
        if isinstance(problem, (OSError, EndOfStream)) and not isinstance(problem, NetError):
            lost = self._lost(problem, deadline)
            lost.__cause__ = problem
            return lost
        return problem

    def _lost(self, problem: Exception, deadline: Optional[Deadline]) -> NetError:
        if isinstance(problem, socket.timeout) and deadline is not None:
            return CallTimeout(self.address, deadline.seconds)
        if isinstance(problem, EndOfStream):
            how = "within its reply" if problem.received else "without a reply"
            return PeerLost(self.address, f"the peer closed the connection {how}")
        return PeerLost(self.address, str(problem))

    # ------------------------------------------------------------------ taking one

    def _take(self, deadline: Optional[Deadline]) -> Optional[Connection]:
        now = monotonic()
        if now >= self._client.next_look:
            self._client.close_old(now)
        revision = self._settings.revision
        while True:
            while self._idle:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    break  # another thread took the last one
                # Nobody has asked anything, so what can be received is the end of the connection.
                if now - connection.idle_since < IDLE_TIME and connection.revision == revision \
                        and not connection.stream.is_readable():
                    return connection
                self._close(connection)
            place = self._take_place(deadline)
            if place is not None:
                return self._open_at(place, deadline)

    def _take_place(self, deadline: Optional[Deadline]) -> Optional[_Place]:
        """A place for one more connection. Waits while there are enough of them; None if one may
        have got free meanwhile."""
        place = _Place()
        # Calls that a served call makes do not wait: that one holds a place elsewhere, and two
        # peers could wait for each other.
        most = self._settings.max_calls if caller.address is None else NEVER
        with self._freed:
            if len(self._open) + len(self._opening) >= most:
                self._waiting += 1
                try:
                    if not self._idle:
                        self._freed.wait(self._patience(deadline))
                finally:
                    self._waiting -= 1
                return None
            self._opening.add(place)
            return place

    def _patience(self, deadline: Optional[Deadline]) -> float:
        try:
            return _within(deadline, WAIT_TIME)
        except socket.timeout:
            assert deadline is not None
            raise CallTimeout(self.address, deadline.seconds, "no") from None

    def _open_at(self, place: _Place, deadline: Optional[Deadline]) -> Optional[Connection]:
        try:
            connection = self.open(deadline)
            if connection is not None:
                self._open.add(connection)
            return connection
        finally:
            with self._freed:
                self._opening.discard(place)
                self._freed.notify()

    def _wake(self) -> None:
        with self._freed:
            self._freed.notify()

    def _close(self, connection: Connection) -> None:
        connection.close()
        with self._freed:
            self._open.discard(connection)
            self._freed.notify()

    def close_old(self, oldest: float) -> None:
        """Close what nobody has used since a monotonic time; the list is in the order of use."""
        try:
            while self._idle[0].idle_since < oldest:
                connection = self._idle.pop(0)
                if connection.idle_since < oldest:
                    self._close(connection)
                else:
                    self._idle.append(connection)  # another thread took the old one
        except IndexError:
            pass  # none is left

    def abandon(self) -> None:
        """Close our copies of all sockets, in a forked child."""
        for connection in list(self._open):
            connection.close()

    def reset(self) -> None:
        """Forget what is known of the peer there: another may come to this address."""
        self.legacy = False

    # ------------------------------------------------------------------ opening one

    def open(self, deadline: Optional[Deadline]) -> Optional[Connection]:
        """A new connection; None if the peer speaks the old dialect.

        :raises NetError: nothing ran.
        """
        revision = self._settings.revision
        stream = self._connect(deadline)
        try:
            patience = Deadline(_within(deadline, GREETING_TIME))
            known = security.credentials()
            if known is not None:
                from ..link import tls  # loaded already, with the credentials

                stream = tls.connect(stream, known, self.address, patience)
            session = caller_session(self._settings.limits)
            hello = self._greet(stream, session, patience)
            if hello is not None:
                stream.sock.settimeout(None)
                self.legacy = False
                return Connection(self.address, stream, session, hello, revision)
        except BaseException as problem:
            stream.close()
            if isinstance(problem, NetError) or not isinstance(problem, (OSError, EndOfStream)):
                raise
            raise self._unreachable(problem, deadline, GREETING_TIME) from None
        stream.close()
        self.legacy = True
        return None

    def _connect(self, deadline: Optional[Deadline]) -> Stream:
        host, port = self.address
        if self._settings.loopback_only and not is_loopback(host):
            raise PeerUnreachable(self.address, f"NET_HOST={self._settings.host} keeps this "
                                                f"process on its own host")
        try:
            # Text would load the codec of international names, here and now.
            sock = socket.create_connection((host.encode("ascii"), port),
                                            _within(deadline, CONNECT_TIME))
        except (OSError, UnicodeError) as problem:
            self.reset()
            raise self._unreachable(problem, deadline, CONNECT_TIME) from None
        tune(sock)
        return Stream(sock)

    def _unreachable(self, problem: Exception, deadline: Optional[Deadline],
                     patience: float) -> NetError:
        """What a problem before the first request means: nothing ran."""
        if isinstance(problem, socket.timeout):
            if deadline is not None and deadline.seconds <= patience:
                return CallTimeout(self.address, deadline.seconds, "no")
            return PeerUnreachable(self.address, f"no answer within {patience:g} s")
        if isinstance(problem, EndOfStream):
            return PeerUnreachable(self.address, "it closed the connection without an answer")
        return PeerUnreachable(self.address, str(problem))

    def _greet(self, stream: Stream, session: Session, deadline: Deadline) -> Optional[Hello]:
        """Send the preface and wait for HELLO; None if an old peer answers.

        :raises NetError: the peer refuses the connection, or is none.
        """
        timed = Timed(stream, deadline)
        timed.send([encode_preface(self._settings.group)])
        try:
            event: Any = next_event(timed, session)
        except NotAFrame as problem:
            if not self._settings.secured and _is_legacy(stream, problem.data, deadline):
                return None
            raise ProtocolError(self.address, problem.reason) from None
        except ProtocolError as problem:
            raise ProtocolError(self.address, problem.reason) from None
        if type(event) is Hello:
            return event
        try:
            decode_reply(event, self.address, self.address, b"")
        except RemoteError:
            pass
        except NetError as problem:
            problem.ran = "no"  # whatever it says: it was asked nothing
            raise
        raise ProtocolError(self.address, "it answers a preface with a reply")

    # ------------------------------------------------------------------ the old dialect

    def exchange_legacy(self, message: bytes, deadline: Optional[Deadline]) -> bytes:
        """One request and its reply in the old dialect, on a connection of its own."""
        stream = self._connect(deadline)
        try:
            stream.sock.settimeout(None if deadline is None else deadline.remaining())
            stream.send([message])
            data = bytearray()
            _read_to_end(stream, data, deadline)
        except OSError as problem:
            raise self._lost(problem, deadline) from problem
        finally:
            stream.close()
        if not data:
            raise PeerLost(self.address, "the peer closed the connection without a reply")
        return bytes(data)


def _is_legacy(stream: Stream, data: bytes, deadline: Deadline) -> bool:
    """Whether what answered our preface is an old peer's reply that it could not read it."""
    received = bytearray(data)
    try:
        _read_to_end(stream, received, Deadline(_within(deadline, LEGACY_ANSWER_TIME)))
    except OSError:
        pass  # old peers reset the connection when they have not read all of the request
    data = bytes(received)
    if legacy.is_flag(data):
        return True
    try:
        return legacy.read_object(data) is not None
    except ProtocolError:
        return False


def _read_to_end(stream: Stream, data: bytearray, deadline: Optional[Deadline]) -> None:
    """Append what comes until the other side closes, or has sent a whole object of the old
    dialect."""
    recv = stream.recv if deadline is None else Timed(stream, deadline).recv
    while len(data) <= legacy.MAX_RECEIVED and not _is_whole(data):
        piece = recv(64 * 1024)
        if not piece:
            return
        data += piece


def _is_whole(data: bytearray) -> bool:
    try:
        # Base64 of what ends with "}" ends so; decoding each piece would take quadratic time.
        return data.endswith((b"=", b"9")) and legacy.read_object(bytes(data)) is not None
    except ProtocolError:
        return False  # such as a flag, which only the end of the connection completes
