"""One call to a peer: a connection from the pool, one request, one reply.

A connection carries one call at a time. Any thread may call; calls at the same time take several
connections. A connection that was not left in perfect order is closed, never pooled: no call may
get another one's reply.
"""
from __future__ import annotations

import itertools
import socket
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Set,
                    Tuple, Union)

from ..clock import uptime
from ..context import Context, current
from ..errors import (Address, CallCancelled, CallTimeout, MessageTooLarge, NetError, PeerLost,
                      PeerUnreachable, ProtocolError, RemoteError, ValueNotSupported)
from ..identity import Flag, PeerArgument, address_of
from ..link import local, security
from ..link.base import LONGEST, Endpoint
from ..link.carriers import Carriers
from ..link.destination import destination
from ..link.streams import Deadline, Stream, Timed
from ..settings import Settings
from ..wire.frames import (ASK, FAILURE, FLAG, HEADER, MAX_NUMBER, PING, RESULT, Buffer,
                           EndOfStream, Fields, Frame, NotAFrame)
from ..wire.frames import pack as pack_frame
from ..wire.limits import Limits
from ..wire.messages import decode_reply, encode_call
from ..wire.session import Hello, Session, caller_session, encode_preface
from .lending import Lender
from .loop import Loop
from .old_peers import OldPeer, dialect_behind, leave_no_trace
from .reading import next_event, rest_of_event
from .streaming import (STREAMED, Begun, RemoteIterator, is_goodbye, is_refusal,
                        says_goodbye)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from ..link.tls import Credentials

# Seconds to wait for a connection. The operating system would try for two minutes.
CONNECT_TIME = 3.0
# Seconds from the connection to HELLO, a TLS handshake included. Before HELLO nothing has run.
GREETING_TIME = 3.0
# Seconds that an idle connection stays in the pool. Servers keep it for 300, so it is always the
# client that closes it, and no request runs into a closing connection.
IDLE_TIME = 60.0
# Seconds between two checks for connections that were idle for so long.
LOOK_TIME = 5.0
# Seconds after which an idle connection is checked before a call uses it, and seconds for that
# check: the peer's host may have slept, moved or restarted meanwhile, silently.
TRUST_TIME = 5.0
TRIAL_TIME = 1.0
# Seconds for a peer that has stopped reading to say why. One that is gone is noticed at once.
REFUSAL_TIME = 1.0
# Seconds after the direct way to a peer has failed in which the other way is taken at once.
BLOCKED_TIME = 10.0
NEVER = float("inf")
# Seconds after which a call that waits for a free connection checks for itself: one that an
# interrupt dropped is not announced.
WAIT_TIME = 1.0
# Arguments that are remembered; one entry is some 200 bytes.
MAX_ARGUMENTS = 4096

#: What a flag becomes on the calling side: ``handler(flag, tag, peer)``.
FlagHandler = Callable[[Flag, bytes, Any], Any]


def numbers() -> Iterator[int]:
    """The numbers of requests, from 1 on, and from 1 again when they are used up. No Python
    function makes each: every call takes one."""
    return itertools.chain.from_iterable(itertools.repeat(range(1, MAX_NUMBER + 1)))


class Client:
    """The calls of this process to others. Any thread may call.

    :param loop: closes idle connections.
    """

    def __init__(self, settings: Settings, loop: Loop) -> None:
        self.settings = settings
        #: The random id of this process; None before it has one.
        self.instance: Optional[str] = None
        #: What leads to addresses.
        self.carriers = Carriers(settings, lambda: Loop("net-engine-loop"))
        self._loop = loop
        self._looking = False
        self._pools: Dict[Address, Pool] = {}
        # The pool of a ``peer=`` argument, so that an id is decoded once.
        self._by_argument: Dict[Any, Pool] = {}
        self._numbers = numbers()
        #: Called with the address of a peer that nobody could connect to. Any thread calls.
        self.missed: Callable[[Address], None] = lambda address: None
        #: Called with the address of a peer that has just answered in our dialect. Likewise.
        self.answered: Callable[[Address], None] = lambda address: None
        #: Gives another address of a peer that cannot be reached at this one; None for none.
        self.other_way: Callable[[Address], Optional[Address]] = lambda address: None
        #: Gives the tag that old programs have for a function of this process.
        self.old_tag: Callable[[bytes], bytes] = lambda tag: tag
        #: Gives the client that calls for the running function, where a test has several peers in
        #: this process; None elsewhere.
        self._chosen: Optional[Callable[[], Client]] = None
        #: The asyncio loop of started calls; None until there is one.
        self.own_loop: Optional[AbstractEventLoop] = None
        #: Its tasks, which the loop itself does not hold.
        self.started: Set[Task[Any]] = set()
        #: The pools of each asyncio loop, see :mod:`net.calls.aio`.
        self.by_loop: weakref.WeakKeyDictionary[AbstractEventLoop, Any] = \
            weakref.WeakKeyDictionary()

    def preface(self, to: Optional[Address] = None) -> bytes:
        """What a connection of this process begins with.

        :param to: the address that it leads to, if that is to be checked there; else None.
        """
        return encode_preface(self.settings.group, instance=self.instance, to=to)

    def next_number(self) -> int:
        """A number for a request, which its reply will carry."""
        return next(self._numbers)

    def call(self, peer: PeerArgument, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
             timeout: Optional[float] = None) -> Any:
        """Run one function on another peer, as :meth:`run`.

        :returns: what the function returned there; a Flag if it returned one.
        """
        return self.run(None, peer, tag, args, kwargs, timeout)

    def run(self, handle_flag: Optional[FlagHandler], peer: PeerArgument, tag: bytes,
            args: Tuple[Any, ...], kwargs: Dict[str, Any], timeout: Optional[float]) -> Any:
        """Run one function on another peer.

        :param handle_flag: makes the result of a Flag; None to return the Flag.
        :param timeout: seconds for the whole call; None for ``NET_TIMEOUT``, or no limit.
        :raises InvalidPeer: not a peer. Nothing was sent.
        :raises ValueNotSupported: an argument cannot travel, and nothing was sent; or the result
            cannot be read here.
        :raises NetError: as the tree in errors.py says.
        """
        try:
            pool = self._by_argument[peer]
        except (KeyError, TypeError):
            pool = self._find_pool(peer)
        context = current()
        settings = self.settings
        limits = settings.limits
        if timeout is None:
            timeout = settings.timeout
        deadline = None if timeout is None and context is None else \
            deadline_within(context, timeout, pool.address)
        reply: Any = pool.old
        if reply is None or reply.is_gone(deadline):
            number = next(self._numbers)
            seconds = None if deadline is None or deadline.seconds > LONGEST else deadline.seconds
            lender = None
            try:
                message = encode_call(number, tag, args, kwargs, limits, seconds)
            except ValueNotSupported:  # but perhaps it can be lent
                lender = Lender(limits, pool.address, seconds)
                message = encode_call(number, tag, args, kwargs, limits, seconds, lender)
            reply = pool.exchange(message, number, deadline, context, lender)
        if type(reply) is tuple or type(reply) is Frame:
            result = pool.decode(reply, peer, tag, limits)
        elif type(reply) is Begun:
            return RemoteIterator(reply, peer, tag, limits)
        else:
            result = reply.call(peer, tag, args, kwargs, deadline)
        return result if type(result) is not Flag or handle_flag is None else \
            handle_flag(result, tag, peer)

    def stream(self, peer: PeerArgument, tag: bytes, args: Tuple[Any, ...],
               kwargs: Dict[str, Any], timeout: Optional[float] = None) -> RemoteIterator:
        """The items of a generator function on another peer. Nothing is sent before the first one
        is asked for.

        :param timeout: seconds for all of it.
        :raises InvalidPeer: not a peer.
        """
        address_of(peer)

        def begin() -> Begun:
            found = self.call(peer, tag, args, kwargs, timeout)
            if type(found) is not RemoteIterator:
                raise ProtocolError(address_of(peer), "the function there is no generator",
                                    "maybe")
            return found.begun()
        return RemoteIterator(begin, peer, tag, self.settings.limits)

    def _find_pool(self, peer: Any) -> Pool:
        acting = self.acting()
        pool = acting.pool(address_of(peer))
        if acting is self and self._chosen is None and isinstance(peer, (bytes, str, tuple)):
            # Not a peer itself: net.Peer() may move to another port.
            if len(self._by_argument) >= MAX_ARGUMENTS:
                self._by_argument.clear()
            self._by_argument[peer] = pool
        return pool

    def pool(self, address: Address) -> Pool:
        """The connections of this client to an address."""
        found = self._pools.get(address)
        return self._pools.setdefault(address, Pool(self, address)) if found is None else found

    def acting(self) -> Client:
        """The client that calls for the running function: this one, except in a test that has
        several peers in this process."""
        return self if self._chosen is None else self._chosen()

    def choose(self, chosen: Optional[Callable[[], Client]]) -> Optional[Callable[[], Client]]:
        """Have a function give the client that calls for the running function; None for this
        client always.

        :returns: the function that was set before.
        """
        before, self._chosen = self._chosen, chosen
        self._by_argument.clear()  # so that each call asks that function
        return before

    def dialect(self, address: Address) -> str:
        """The old dialect that was last heard from an address; empty for none."""
        pool = self._pools.get(address)
        return "" if pool is None or pool.old is None else pool.old.dialect

    def old_peer(self, address: Address, dialect: str) -> OldPeer:
        """The object by which to call an old program that has just called from an address."""
        self.saw(address, dialect)
        return self._pools[address].old_peer(dialect)

    def saw(self, address: Address, dialect: str) -> None:
        """Note that an address has just answered in an old dialect; in ours if that is empty."""
        pool = self._pools.get(address)
        if dialect and pool is None:
            pool = self._pools.setdefault(address, Pool(self, address))
        if pool is not None:
            pool.saw(dialect)
        if not dialect:
            self.answered(address)

    def connect(self, address: Address, timeout: float) -> Optional[Connection]:
        """A connection of its own, in no pool; None if an old peer is there.

        :param timeout: seconds for connecting and for greeting each other.
        :raises NetError: as the tree in errors.py says.
        """
        opened = Pool(self, address).open(Deadline(timeout))
        return None if isinstance(opened, OldPeer) else opened

    def close_old(self, now: float) -> None:
        """Close the connections, to any peer, that were idle for long."""
        for pool in list(self._pools.values()):
            pool.close_old(now - IDLE_TIME)

    def look_later(self) -> None:
        """Make sure that idle connections will be closed. Called for each new connection."""
        if not self._looking:
            self._looking = True
            try:
                self._loop.call_later(LOOK_TIME, self._look)
            except OSError:
                self._looking = False  # the next connection tries again

    def _look(self) -> None:
        self.close_old(uptime())
        self._looking = False
        if any(pool.connections for pool in list(self._pools.values())):
            self.look_later()

    def close_idle(self) -> None:
        """Close all connections that wait for a call. A program that ends leaves none open."""
        self.close_old(NEVER)

    def forget(self) -> None:
        """Close every connection and empty the pools, in a forked child: they are the parent's."""
        for pool in self._pools.values():
            pool.abandon()
        self._pools.clear()
        self._by_argument.clear()
        self.carriers.forget()
        self._looking = False
        for pools in list(self.by_loop.values()):
            pools.abandon()
        self.by_loop.clear()


_CLOSED = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class Connection:
    """An open connection to a peer, for one call at a time.

    :ivar hello: what the peer has answered to our preface.
    """

    def __init__(self, address: Address, stream: Stream, session: Session, hello: Hello,
                 revision: int) -> None:
        self.address = address
        self.stream = stream
        self.session = session
        self.hello = hello
        # Which settings this one was opened under, see Settings.revision.
        self.revision = revision
        self.idle_since = 0.0  # until a call has left it to another
        # Whether it leads straight to the other process, so that a send fails once that has gone.
        self.is_direct = local.leads_to_process(stream.sock)

    def exchange(self, message: List[Buffer], number: int,
                 deadline: Optional[Deadline]) -> Optional[Fields]:
        """Send a request and receive its reply.

        :returns: the reply. None if the request has to be sent over another connection: the peer
            takes no more over this one, and has not run it. Only for a small request, which
            ``message`` still holds then, and on a connection that has carried others.
        """
        if deadline is not None:
            return self._exchange_timed(message, number, deadline)
        stream, session = self.stream, self.session
        try:
            stream.send(message)
        except _CLOSED:
            if self._is_worth_another(message):
                return None
            self._look_for_reply()
        if len(message) > 1:
            message.clear()
        event: Any = session.receive_fields(stream.recv_first())
        if event is None:
            event = rest_of_event(stream, session)
        return event if event[1] == number else self._stray(event, message)

    def _exchange_timed(self, message: List[Buffer], number: int,
                        deadline: Deadline) -> Optional[Frame]:
        timed = Timed(self.stream, deadline)
        if not self._send(message, timed):
            return None
        event: Any = next_event(timed, self.session)
        self.stream.sock.settimeout(None)
        return event if event[1] == number else self._stray(event, message)

    def exchange_lending(self, message: List[Buffer], number: int,
                         deadline: Optional[Deadline], lender: Lender) -> Optional[Frame]:
        """Send a request that lends something, and do what is asked until its reply comes; see
        :meth:`exchange`."""
        stream = self.stream if deadline is None else Timed(self.stream, deadline)
        if not self._send(message, stream):
            return None
        event: Any = next_event(stream, self.session)
        while event[0] == ASK:
            message.clear()  # it runs
            stream.send(lender.answer(event))
            event = next_event(stream, self.session)
        self.stream.sock.settimeout(None)
        return event if event[1] == number else self._stray(event, message)

    def _stray(self, event: Any, message: List[Buffer]) -> Optional[Frame]:
        """Take a reply that carries another number, which only a refusal of the whole connection
        may: then the request has not run. Returns what :meth:`exchange` does.

        :raises ProtocolError: it is no refusal.
        """
        if not is_refusal(event):
            raise ProtocolError(self.address, "a reply to another request", "maybe")
        return None if self._is_worth_another(message) and is_goodbye(event) else event

    def _is_worth_another(self, message: List[Buffer]) -> bool:
        """Whether a request that did not run is to be sent over another connection: if it was small
        enough to be kept, and this connection has carried others. A peer that refuses everything
        would otherwise be asked for ever."""
        return self.idle_since > 0 and len(message) == 1

    def _send(self, message: List[Buffer], stream: Union[Stream, Timed]) -> bool:
        """Send a request; False where :meth:`exchange` gives None."""
        try:
            stream.send(message)
        except _CLOSED:
            # The peer runs no request that was not sent whole.
            if self._is_worth_another(message):
                return False
            self._look_for_reply()
        if len(message) > 1:
            message.clear()
        return True

    def _look_for_reply(self) -> None:
        """Raise the error of a send that is being handled, unless a reply comes: a peer that
        refuses a request may close before it has read all of it, and its reply can still be
        received."""
        if not self.stream.is_readable(REFUSAL_TIME):
            raise

    def close(self) -> None:
        self.stream.close()


def deadline_within(context: Optional[Context], timeout: Optional[float],
                    address: Address) -> Optional[Deadline]:
    """When a call has to be over: after its own time, or that of the served call that makes it if
    that is less. None for no limit.

    :raises CallCancelled: the served call was cancelled.
    :raises CallTimeout: the time of the served call is over.
    """
    if context is not None:
        if context.cancelled:
            raise CallCancelled("the call that makes it was cancelled", "no")
        left = context.remaining()
        if left is not None:
            if not left:
                raise CallTimeout(address, 0.0, "no")
            timeout = left if timeout is None else min(left, timeout)
    return None if timeout is None else Deadline(timeout)


def _within(deadline: Optional[Deadline], seconds: float) -> float:
    return seconds if deadline is None else min(seconds, deadline.remaining())


def _exchange_within(context: Optional[Context], connection: Connection, message: List[Buffer],
                     number: int, deadline: Optional[Deadline],
                     lender: Optional[Lender]) -> Optional[Fields]:
    """An exchange that ends when the served call that makes it, if there is one, is cancelled."""
    if context is not None:
        context.add_ending(connection.stream.abort)
    try:
        if lender is None:
            return connection.exchange(message, number, deadline)
        return connection.exchange_lending(message, number, deadline, lender)
    finally:
        if context is not None:
            context.remove_ending(connection.stream.abort)


class _Place:
    """The place of a connection that is being opened."""


class Pool:
    """The connections to one address.

    :ivar old: the old program there; None where there is none, as far as is known.
    """

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.old: Optional[OldPeer] = None
        self._client = client
        self._settings = client.settings
        # Append and pop are atomic; the last one used, likely still warm, is taken first.
        self._idle: List[Connection] = []
        # Guards what follows; notified when a connection is free, or gone.
        self._freed = threading.Condition()
        # All that are open, those in use too, and the places of those that are being opened. Weak
        # references: a connection dropped by an interrupt is closed by the collector, and no longer
        # counts.
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._opening: weakref.WeakSet[_Place] = weakref.WeakSet()
        self._waiting = 0
        # Where the peer also listens if it is one of this host's.
        self._local: List[Endpoint] = []
        # Until when another way is taken at once: the direct one may take seconds to fail.
        self._blocked_until = 0.0
        self._knows_local = False

    def exchange(self, message: List[Buffer], number: int, deadline: Optional[Deadline],
                 context: Optional[Context], lender: Optional[Lender] = None) \
            -> Union[Fields, Begun, OldPeer]:
        """Send one request and receive its reply.

        :param context: of the served call that makes this one; None if there is none.
        :param lender: does what is asked of the caller meanwhile; None if nothing is lent.
        :returns: the reply, or the beginning of a streamed one; if an old program is there, the
            object by which to call it: then nothing has run.
        """
        connection = self._take(deadline, context) if len(message) == 1 \
            else self._take_for_large(message, deadline, context)
        if type(connection) is OldPeer:
            return connection
        try:
            if lender is None and context is None:
                frame = connection.exchange(message, number, deadline)
            else:
                frame = _exchange_within(context, connection, message, number, deadline, lender)
            if connection.session.rest and frame is not None and frame[0] not in STREAMED:
                self._end_after_reply(connection)
                return frame
        except BaseException as problem:  # KeyboardInterrupt too: the reply may be half read
            self.discard(connection)
            failure = self._failure(problem, deadline, context)
            if failure is problem:
                raise
            raise failure from None
        if frame is None:
            return self._over_another(connection, message, number, deadline, context, lender)
        if frame[0] != RESULT and frame[0] != FLAG and not self._is_final(connection, frame):
            return frame if frame[0] == FAILURE else \
                Begun(self.address, connection.stream, connection.session,
                      partial(self._leave, connection), number, deadline, Frame(*frame), lender)
        connection.idle_since = uptime()
        self._idle.append(connection)
        if self._waiting:
            self._wake()
        return frame

    def _over_another(self, connection: Connection, message: List[Buffer], number: int,
                      deadline: Optional[Deadline], context: Optional[Context],
                      lender: Optional[Lender]) -> Union[Fields, Begun, OldPeer]:
        """Send a request over another connection, since the peer takes no more over this one, and
        receive its reply. Those that were idle for longer are closed too: they are as dead."""
        self.discard(connection)
        self.close_old(connection.idle_since)
        if context is not None and context.cancelled:
            raise CallCancelled("the call that makes it was cancelled", "no")
        return self.exchange(message, number, deadline, context, lender)

    def _end_after_reply(self, connection: Connection) -> None:
        """Give up a connection on which something has come behind a reply: that the peer takes no
        more calls, or nonsense.

        :raises ProtocolError: it was nonsense.
        """
        if not says_goodbye(connection.session):
            raise ProtocolError(self.address, "more than one reply", "maybe")
        self.discard(connection)

    def _is_final(self, connection: Connection, frame: Fields) -> bool:
        """Whether a frame that is no result ends its call and leaves the connection in order."""
        kind = frame[0]
        if kind == FAILURE and b'"refused"' in frame[3]:
            # A peer that could not read a request, or is at its limit, closes after its reply.
            self.discard(connection)
            return False
        if kind != FAILURE and kind not in STREAMED:
            # Such as what asks for something that was not lent.
            self.discard(connection)
            raise ProtocolError(self.address, f"a frame of kind {kind} is no reply", "maybe")
        return kind == FAILURE

    def _check_size(self, connection: Connection, message: Sequence[Buffer]) -> None:
        """Refuse a request that the peer would refuse, before it is sent.

        :raises MessageTooLarge: over a limit that the peer has given in its HELLO.
        """
        limits = connection.hello.limits or {}
        _, _, count, _, size = HEADER.unpack_from(message[0])
        buffers = sum(map(len, message[len(message) - count:])) if count else 0
        for what, number, limit, setting in (
                ("JSON text of a message, in bytes", size, limits.get("text"), "NET_MAX_TEXT"),
                ("buffers of a message, in bytes", buffers, limits.get("buffers"),
                 "NET_MAX_BUFFERS")):
            if type(limit) is int and number > limit:
                self.give_back(connection)
                raise MessageTooLarge(what, number, limit, setting)

    def _leave(self, connection: Connection, in_order: bool) -> None:
        """End what a connection was in use for."""
        if in_order:
            connection.stream.sock.settimeout(None)
            self.give_back(connection)
        else:
            self.discard(connection)

    def give_back(self, connection: Connection) -> None:
        """Let another call have a connection that was left in perfect order."""
        connection.idle_since = uptime()
        self._idle.append(connection)
        if self._waiting:
            self._wake()

    def _failure(self, problem: BaseException, deadline: Optional[Deadline],
                 context: Optional[Context]) -> BaseException:
        """What a problem within an exchange means to the caller."""
        if context is not None and context.cancelled and isinstance(problem, Exception):
            return CallCancelled("the call that made it was cancelled")
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

    def decode(self, frame: Fields, peer: object, tag: bytes, limits: Limits) -> Any:
        """What a reply holds, as :func:`~net.wire.messages.decode_reply` gives it."""
        try:
            return decode_reply(frame, self.address, peer, tag, limits)
        except ProtocolError:  # whatever comes next from such a peer
            self.close_old(NEVER)
            raise

    # ------------------------------------------------------------------ taking one

    def _take_for_large(self, message: Sequence[Buffer], deadline: Optional[Deadline],
                        context: Optional[Context]) -> Union[Connection, OldPeer]:
        """A connection for a request that is not kept to be sent again."""
        connection = self._take(deadline, context, True)
        if type(connection) is not OldPeer:
            self._check_size(connection, message)
        return connection

    def _take(self, deadline: Optional[Deadline], context: Optional[Context],
              looks: bool = False) -> Union[Connection, OldPeer]:
        """A connection for a request.

        :param looks: whether to look first, in any case, if the peer has ended it.
        """
        now = uptime()
        while True:
            while self._idle:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    break  # another thread took the last one
                idle = now - connection.idle_since
                # Nothing was asked, so anything to receive is the end of the connection. To look
                # for it takes the interpreter's lock once more, for which other threads wait.
                if connection.revision == self._settings.revision and idle < IDLE_TIME \
                        and (connection.is_direct and not looks or not connection.stream.poll(0)) \
                        and (idle < TRUST_TIME or self._is_alive(connection, deadline)):
                    return connection
                self.discard(connection)
            place = self._take_place(deadline, context is not None)
            if place is not None:
                return self._open_at(place, deadline)

    def _is_alive(self, connection: Connection, deadline: Optional[Deadline]) -> bool:
        """Try a connection that was idle for long. If it is dead, those that were idle for longer
        are closed too."""
        number = self._client.next_number()
        try:
            patience = Deadline(_within(deadline, TRIAL_TIME))
            reply = connection.exchange(pack_frame(PING, number, b""), number, patience)
            if reply is not None and not is_refusal(reply):
                return True
        except (OSError, EndOfStream, NetError):
            pass
        self.close_old(connection.idle_since)
        return False

    @property
    def connections(self) -> int:
        """How many are open, those in use included."""
        return len(self._open)

    def _take_place(self, deadline: Optional[Deadline], nested: bool) -> Optional[_Place]:
        """A place for one more connection. While there are as many as there may be, it waits, and
        then gives None: one may have got free.

        :param nested: whether a served call makes this one. Such a call does not wait: the served
            one holds a place elsewhere, and two peers could wait for each other.
        """
        place = _Place()
        most = NEVER if nested else self._settings.max_calls
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

    def _open_at(self, place: _Place,
                 deadline: Optional[Deadline]) -> Union[Connection, OldPeer]:
        try:
            opened = self.open(deadline)
            if isinstance(opened, Connection):
                self._open.add(opened)
                self._client.look_later()
            return opened
        finally:
            with self._freed:
                self._opening.discard(place)
                self._freed.notify()

    def _wake(self) -> None:
        with self._freed:
            self._freed.notify()

    def discard(self, connection: Connection) -> None:
        """Close a connection that no other call can have."""
        connection.close()
        with self._freed:
            self._open.discard(connection)
            self._freed.notify()

    def close_old(self, oldest: float) -> None:
        """Close connections that were not used since a time of :func:`~net.clock.uptime`; the list
        is in the order of use."""
        try:
            while self._idle[0].idle_since < oldest:
                connection = self._idle.pop(0)
                if connection.idle_since < oldest:
                    self.discard(connection)
                else:
                    self._idle.append(connection)  # another thread took the old one
        except IndexError:
            pass  # none is left

    def abandon(self) -> None:
        """Close our copies of all sockets, in a forked child."""
        for connection in list(self._open):
            connection.close()

    def reset(self) -> None:
        """Forget what is known of the peer there: another one may come to this address."""
        self.old = None
        self._knows_local = False

    def saw(self, dialect: str) -> None:
        """Note that the peer has just answered in an old dialect; in ours if that is empty."""
        if not dialect:
            self.old = None
        elif self.old is None:
            self.old = self.old_peer(dialect)
        else:
            self.old.seen(dialect)

    def old_peer(self, dialect: str) -> OldPeer:
        """The object by which to call the old program there."""
        return OldPeer(self.address, dialect, self._settings,
                       lambda deadline: self._connect(deadline, False)[0],
                       self._client.old_tag)

    # ------------------------------------------------------------------ opening one

    def open(self, deadline: Optional[Deadline]) -> Union[Connection, OldPeer]:
        """A new connection; if an old program is there, the object by which to call it.

        :raises NetError: there is no connection; nothing ran.
        """
        revision = self._settings.revision
        # Made first: it may take longer than the peer waits for the first bytes of a connection.
        known = security.credentials()
        stream, led_to = self._connect(deadline, self._settings.unix)
        to = None
        try:
            patience = Deadline(_within(deadline, GREETING_TIME))
            if known is not None:
                stream, led_to = self._secure(known, stream, led_to, deadline, patience)
                to = None if stream.proves_address else destination(stream.sock, led_to)
            session = caller_session(self._settings.limits)
            answer = self._greet(stream, session, patience, to)
            if isinstance(answer, Hello):
                stream.sock.settimeout(None)
                self._client.saw(self.address, "")
                return Connection(self.address, stream, session, answer, revision)
        except BaseException as problem:
            stream.close()
            if isinstance(problem, NetError) or not isinstance(problem, (OSError, EndOfStream)):
                raise
            self._client.missed(self.address)  # it may just have ended
            raise self._unreachable(problem, deadline, GREETING_TIME) from None
        leave_no_trace(stream)
        stream.close()
        self.old = old = self.old_peer(answer)
        return old

    def _secure(self, known: Credentials, stream: Stream, led_to: Address,
                deadline: Optional[Deadline], patience: Deadline) -> Tuple[Stream, Address]:
        """A connection over which both sides have proved who they are, and where it leads to."""
        from ..link import proof, tls  # loaded already, with the credentials

        server = local.process_behind(stream.sock)
        if server is not None and known.proof_key is not None:
            try:
                tls.shake_hands(stream, proof.ClientProof(known.proof_key, server),
                                Deadline(min(proof.PROOF_TIME, patience.remaining())))
                return stream, led_to
            except (local.NotProved, ConnectionError, socket.timeout):
                stream.close()
            stream, led_to = self._connect(deadline, False)
        try:
            return tls.connect(stream, known, self.address, patience), led_to
        except BaseException:
            stream.close()
            raise

    def _connect(self, deadline: Optional[Deadline], locally: bool) -> Tuple[Stream, Address]:
        """A connection on which nothing was said yet, and the address that it leads to.

        :param locally: whether the shorter way to a peer of this host may be taken.
        """
        self._client.carriers.check(self.address)
        try:
            return Stream(self._connect_directly(deadline, locally)), self.address
        except OSError as problem:
            self.reset()
            self._client.missed(self.address)
            found = self._connect_otherwise(deadline)
            if found is None:
                raise self._unreachable(problem, deadline, CONNECT_TIME) from None
            return found

    def _connect_directly(self, deadline: Optional[Deadline], locally: bool) -> socket.socket:
        if uptime() < self._blocked_until:
            raise ConnectionRefusedError("it could not be reached a moment ago")
        patience = Deadline(_within(deadline, CONNECT_TIME))
        sock = self._connect_locally(patience) if locally else None
        if sock is None:
            carrier, endpoint = self._client.carriers.to(self.address)
            sock = carrier.connect(endpoint, patience)
        return sock

    def _connect_otherwise(self,
                           deadline: Optional[Deadline]) -> Optional[Tuple[Stream, Address]]:
        """A connection by way of another address of the peer, and that address; None if there is
        none."""
        other = self._client.other_way(self.address)
        if other is None:
            return None
        try:
            carrier, endpoint = self._client.carriers.to(other)
            sock = carrier.connect(endpoint, Deadline(_within(deadline, CONNECT_TIME)))
        except OSError:
            return None
        if uptime() >= self._blocked_until:
            self._blocked_until = uptime() + BLOCKED_TIME
        return Stream(sock), other

    def _connect_locally(self, deadline: Deadline) -> Optional[socket.socket]:
        """A connection by the shorter way to a peer of this host; None if there is none."""
        if not self._knows_local:
            self._knows_local = True
            self._local = local.endpoints_of(self.address)
        return local.connect(self._local, deadline)

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

    def _greet(self, stream: Stream, session: Session, deadline: Deadline,
               to: Optional[Address]) -> Union[Hello, str]:
        """Send the preface and wait for HELLO; if an old program answers, its dialect.

        :raises NetError: the peer refuses the connection, or is none.
        """
        timed = Timed(stream, deadline)
        with suppress(*_CLOSED):  # why it takes no more may have come
            timed.send([self._client.preface(to)])
        try:
            event: Any = next_event(timed, session)
        except NotAFrame as problem:
            dialect = "" if self._settings.secured else \
                dialect_behind(stream, problem.data, deadline)
            if dialect:
                return dialect
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
            problem.ran = "no"  # whatever it says, nothing was asked
            raise
        raise ProtocolError(self.address, "it answers a preface with a reply")
