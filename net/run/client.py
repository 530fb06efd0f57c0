"""One call to a peer: a connection from the pool, one request, one reply.

A connection carries one call at a time. Any thread may call; calls at the same time take several
connections. One that was not left in perfect order is closed, never pooled: nobody may get
another call's reply.
"""
from __future__ import annotations

import atexit
import socket
import weakref
from time import monotonic
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from ..settings import is_loopback, settings
from ..errors import (Address, CallTimeout, MessageTooLarge, NetError, PeerLost, PeerUnreachable,
                      ProtocolError)
from ..identity import PeerArgument, address_of, make_tag
from ..wire import legacy
from ..wire.frames import (Buffer, EndOfStream, FAILURE, Frame, FrameReader, MAGIC, MAX_GROUP,
                           NotAFrame, PREFACE, REPLIES, VERSION)
from ..wire.messages import Call, decode_reply, encode_call
from ..link import security
from ..link.streams import Deadline, Stream, Timed, tune

# Seconds to wait for a connection. The operating system would try for two minutes.
CONNECT_TIME = 3.0
# Seconds for a TLS handshake. A peer may be busy in one long step of its own; one that is gone is
# noticed after this time, too, by other means.
HANDSHAKE_TIME = 20.0
# Seconds that an idle connection stays in the pool. Servers keep it for 300, so that it is always
# the client that lets go and no request runs into a closing connection.
IDLE_TIME = 60.0
# Seconds from one look for such connections to the next. Calls do it in passing.
LOOK_TIME = 5.0
NEVER = float("inf")
# Seconds for the rest of an old peer's answer to our preface, once it began.
LEGACY_ANSWER_TIME = 1.0

# A first request of this many bytes would not be read whole by an old peer, whose answer could
# then be lost; such a peer is first asked something short.
SHORT = legacy.MAX_MESSAGE - len(PREFACE) - MAX_GROUP
_NULL = make_tag("net.defaults.handlers", "null")

#: Every connection of this process, also those in use: a forked child closes its copies.
#: Weak, so that one that an interrupt took out of all hands closes.
_open: "weakref.WeakSet[Connection]" = weakref.WeakSet()
_pools: Dict[Address, "Pool"] = {}
#: The pool of a ``peer=`` argument, so that an id is decoded once.
_by_argument: Dict[Any, "Pool"] = {}
# Arguments that are remembered; one entry is some 200 bytes.
MAX_ARGUMENTS = 4096


def call(peer: PeerArgument, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
         timeout: Optional[float] = None) -> Any:
    """Run one connection on another peer.

    :param timeout: seconds for the whole call; None takes ``NET_TIMEOUT``, or no limit.
    :returns: what the function returned there; a Flag if it returned one.
    :raises InvalidPeer: nothing was sent.
    :raises ValueNotSupported: nothing was sent.
    :raises NetError: as the tree in errors.py says.
    """
    try:
        pool = _by_argument[peer]
    except (KeyError, TypeError):
        pool = _find_pool(peer)
    if timeout is None:
        timeout = settings.timeout
    deadline = None if timeout is None else Deadline(timeout)
    if not pool.legacy:
        frame = pool.exchange(encode_call(tag, args, kwargs, settings.limits), deadline)
        if frame is not None:
            try:
                return decode_reply(frame, pool.address, peer, tag, settings.limits)
            except ProtocolError:  # whatever comes next from such a peer
                pool.close_old(NEVER)
                raise
    message = legacy.encode_call(Call(tag, list(args), kwargs), settings.limits)
    data = pool.exchange_legacy(message, deadline)
    return legacy.decode_reply(data, peer, tag, settings.limits)


def _find_pool(peer: Any) -> "Pool":
    address = address_of(peer)
    if len(_by_argument) >= MAX_ARGUMENTS:
        _by_argument.clear()
    pool = _pools.setdefault(address, Pool(address))
    _by_argument[peer] = pool
    return pool


def open_connection(address: Address, message: Sequence[Buffer], timeout: float) \
        -> Tuple[Optional["Connection"], Optional[Frame]]:
    """A connection for the caller alone, on which a first request was answered; and the reply.

    :returns: twice None if an old peer answered; no connection if the peer refuses and closes it.
    :raises NetError: as the tree in errors.py says.
    """
    pool = Pool(address)
    frame = pool.exchange(message, Deadline(timeout))
    return pool.pop(), frame


def close_old(now: float) -> None:
    """Close the connections to any peer that nobody has used for long."""
    Pool.next_look = now + LOOK_TIME
    for pool in list(_pools.values()):
        pool.close_old(now - IDLE_TIME)


@atexit.register
def close_idle() -> None:
    """Close all connections that wait for a call. A program that ends leaves none open."""
    close_old(NEVER)


def forget_connections() -> None:
    """Close every connection and empty the pool, in a forked child: they are the parent's."""
    for connection in list(_open):
        connection.close()
    _pools.clear()
    _by_argument.clear()


def greeting() -> bytes:
    """The preface, with the own group, which says nothing in a secured connection."""
    group = settings.group
    if group is None:
        return PREFACE
    encoded = group.encode("utf-8", "replace")
    return MAGIC + bytes((VERSION, 0)) + len(encoded).to_bytes(2, "big") + encoded


class Connection:
    """A connection to a peer, for one call at a time."""

    def __init__(self, address: Address, stream: Stream) -> None:
        self.address = address
        self.stream = stream
        self.reader = FrameReader(stream.recv, stream.recv_into, REPLIES,
                                  (settings.max_text, settings.max_buffers))
        # The preface goes with the first request: no round trip is spent on greetings.
        self.fresh = True
        # What connections were secured with, and as whom, when this one was opened.
        self.revision = settings.revision
        self.idle_since = 0.0
        _open.add(self)

    def exchange(self, message: Sequence[Buffer], deadline: Optional[Deadline]) -> Frame:
        """Send a request and receive its reply."""
        if self.fresh:
            self.fresh = False
            message = [greeting() + message[0], *message[1:]]
        if deadline is not None:
            return self._exchange_timed(message, deadline)
        self._send(message, self.stream)
        message.clear()
        return self.reader.frame()

    def _exchange_timed(self, message: Sequence[Buffer], deadline: Deadline) -> Frame:
        timed = Timed(self.stream, deadline)
        self.reader.recv, self.reader.recv_into = timed.recv, timed.recv_into
        self._send(message, timed)
        frame = self.reader.frame()
        self.stream.sock.settimeout(None)
        self.reader.recv, self.reader.recv_into = self.stream.recv, self.stream.recv_into
        return frame

    def _send(self, message: Sequence[Buffer], stream: Union[Stream, Timed]) -> None:
        try:
            stream.send(message)
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError):
            # A peer that refuses a request may close before it has read it all. Its reply, if it
            # sent one, can still be received.
            if not self.stream.is_readable():
                raise

    def close(self) -> None:
        _open.discard(self)
        self.stream.close()


def _within(deadline: Optional[Deadline], seconds: float) -> float:
    return seconds if deadline is None else min(seconds, deadline.remaining())


class Pool:
    """The connections to one address.

    :ivar legacy: whether the peer there speaks the old dialect.
    """

    #: Monotonic time of the next look for connections that nobody uses, of all pools.
    next_look = 0.0

    def __init__(self, address: Address) -> None:
        self.address = address
        self.legacy = False
        # Append and pop are atomic; the last one used, likely still warm, is taken first.
        self._idle: List[Connection] = []
        self._known = False

    def exchange(self, message: Sequence[Buffer],
                 deadline: Optional[Deadline]) -> Optional[Frame]:
        """One request and its reply; None if an old peer answered, which did not run it."""
        if not self._known and sum(map(len, message)) > SHORT:
            if self._exchange_once(encode_call(_NULL, (), {}), deadline) is None:
                return None
        return self._exchange_once(message, deadline)

    def _exchange_once(self, message: Sequence[Buffer],
                       deadline: Optional[Deadline]) -> Optional[Frame]:
        connection = self._take(deadline)
        fresh = connection.fresh
        try:
            frame = connection.exchange(message, deadline)
            if connection.reader.rest:
                raise ProtocolError(self.address, "more than one reply", "maybe")
        except NotAFrame as problem:
            old = fresh and not settings.secured and \
                self._is_legacy(connection, problem.data, deadline)
            connection.close()
            if old:
                self.legacy = True
                return None
            raise ProtocolError(self.address, problem.reason, "no" if fresh else "maybe") from None
        except BaseException as problem:  # KeyboardInterrupt too: the reply may be half read
            connection.close()
            if isinstance(problem, MessageTooLarge):
                problem.ran = "yes"  # it is the reply that is too large
            if isinstance(problem, (OSError, EndOfStream)) and not isinstance(problem, NetError):
                raise self._lost(problem, deadline) from problem
            raise
        self._known = True
        if frame.kind == FAILURE and b'"refused"' in frame.text:
            # A peer that could not read a request, or is at its limit, closes after its reply.
            connection.close()
            return frame
        connection.idle_since = monotonic()
        self._idle.append(connection)
        return frame

    def pop(self) -> Optional[Connection]:
        """Take the connection used last out of the pool, None if there is none."""
        return self._idle.pop() if self._idle else None

    def _lost(self, problem: Exception, deadline: Optional[Deadline]) -> NetError:
        if isinstance(problem, socket.timeout) and deadline is not None:
            return CallTimeout(self.address, deadline.seconds)
        if isinstance(problem, EndOfStream):
            how = "within its reply" if problem.received else "without a reply"
            return PeerLost(self.address, f"the peer closed the connection {how}")
        return PeerLost(self.address, str(problem))

    def _take(self, deadline: Optional[Deadline]) -> Connection:
        now = monotonic()
        if now >= Pool.next_look:
            close_old(now)
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break  # another thread took the last one
            # Nobody has asked anything, so what can be received is the end of the connection.
            if now - connection.idle_since < IDLE_TIME \
                    and connection.revision == settings.revision \
                    and not connection.stream.is_readable():
                return connection
            connection.close()
        return Connection(self.address, self._connect(deadline))

    def close_old(self, oldest: float) -> None:
        """Close what nobody has used since a monotonic time; the list is in the order of use."""
        try:
            while self._idle[0].idle_since < oldest:
                connection = self._idle.pop(0)
                if connection.idle_since < oldest:
                    connection.close()
                else:
                    self._idle.append(connection)  # another thread took the old one
        except IndexError:
            pass  # none is left

    def _connect(self, deadline: Optional[Deadline]) -> Stream:
        host, port = self.address
        if settings.loopback_only and not is_loopback(host):
            raise PeerUnreachable(self.address, f"NET_HOST={settings.host} keeps this process on "
                                                f"its own host")
        patience = CONNECT_TIME
        try:
            # Text would load the codec of international names, here and now.
            sock = socket.create_connection((host.encode("ascii"), port),
                                            _within(deadline, patience))
            patience = HANDSHAKE_TIME
            return self._prepared(sock, deadline)
        except NetError:
            self._reset()
            raise
        except socket.timeout:
            self._reset()
            if deadline is not None and deadline.seconds <= patience:
                raise CallTimeout(self.address, deadline.seconds, "no") from None
            raise PeerUnreachable(self.address, f"no answer within {patience:g} s") from None
        except (OSError, UnicodeError) as problem:
            self._reset()
            raise PeerUnreachable(self.address, str(problem)) from problem

    def _prepared(self, sock: socket.socket, deadline: Optional[Deadline]) -> Stream:
        try:
            tune(sock)
            known = security.credentials()
            if known is not None:
                from ..link import tls  # loaded already, with the credentials

                return tls.connect(Stream(sock), known, self.address,
                                   Deadline(_within(deadline, HANDSHAKE_TIME)))
            sock.settimeout(None)
            return Stream(sock)
        except BaseException:
            sock.close()
            raise

    def _reset(self) -> None:
        # Whoever comes back at this address may be another, newer peer.
        self.legacy = self._known = False

    @staticmethod
    def _is_legacy(connection: Connection, data: bytes, deadline: Optional[Deadline]) -> bool:
        """Whether what answered our preface is an old peer's reply that it could not read it."""
        received = bytearray(data)
        try:
            _read_to_end(connection.stream, received,
                         Deadline(_within(deadline, LEGACY_ANSWER_TIME)))
        except OSError:
            pass  # old peers reset the connection when they have not read all of the request
        data = bytes(received)
        if legacy.is_flag(data):
            return True
        try:
            return legacy.read_object(data) is not None
        except ProtocolError:
            return False

    def exchange_legacy(self, message: bytes, deadline: Optional[Deadline]) -> bytes:
        """One request and its reply in the old dialect, on a connection of its own."""
        connection = Connection(self.address, self._connect(deadline))
        try:
            stream = connection.stream
            if deadline is not None:
                stream.sock.settimeout(deadline.remaining())
            stream.send([message])
            data = bytearray()
            _read_to_end(stream, data, deadline)
        except OSError as problem:
            raise self._lost(problem, deadline) from problem
        finally:
            connection.close()
        if not data:
            raise PeerLost(self.address, "the peer closed the connection without a reply")
        return bytes(data)


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
