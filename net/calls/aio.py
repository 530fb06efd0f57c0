"""Awaited calls: on the application's own event loop, with connections of that loop's own.

Nothing here blocks the loop. A thread is taken only to call a peer of the old dialect, to look up a
name, and, on the loop of started calls, to run what a caller has lent.
"""
from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from collections import deque
from collections.abc import AsyncGenerator
from typing import (TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Deque, Dict, List,
                    NoReturn, Optional, Sequence, Tuple, TypeVar)

from ..clock import uptime
from ..context import Context, current
from ..errors import (Address, CallTimeout, NetError, PeerLost, PeerUnreachable, ProtocolError,
                      RemoteError, ValueNotSupported)
from ..identity import PeerArgument, address_of
from ..link import local, security
from ..link.base import LONGEST, RETRY, Deadline, Endpoint
from ..link.destination import destination
from ..link.streams import NO_SIGNAL, poller, reset_at_end
from ..run.client import (CONNECT_TIME, GREETING_TIME, IDLE_TIME, MAX_ARGUMENTS, REFUSAL_TIME,
                          Client, deadline_within)
from ..run.lending import Lender
from ..run.streaming import (STREAMED, TELL, is_goodbye, is_refusal, meaning, raise_failure,
                             says_goodbye, thrown)
from ..wire.frames import (ASK, CHUNK, END, FAILURE, ITEM, PING, REPLIES, Buffer, EndOfStream,
                           Frame, NotAFrame, pack)
from ..wire.messages import decode_end, decode_items, decode_reply, encode_call, encode_taken
from ..wire.legacy import likely_dialect
from ..wire.limits import Limits
from ..wire.session import Hello, Session, caller_session

if TYPE_CHECKING:
    from ..link.tls import Credentials, Handshake
    from ..link.tls import Session as TlsSession

T = TypeVar("T")

# Bytes of pieces that are joined for one send.
JOINED = 256 * 1024


async def within(seconds: Optional[float], work: Awaitable[T]) -> T:
    """Await something for some seconds at most; None for no limit.

    :func:`asyncio.wait_for` of Python 3.11 and before loses a cancellation that comes just as
    the work ends, and with it the time limit of another one around it.

    :raises asyncio.TimeoutError: the time is over, and the work was cancelled.
    """
    if seconds is None:
        return await work
    task = asyncio.current_task()
    assert task is not None
    expired, before = False, getattr(task, "cancelling", int)()

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()
    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await work
    except asyncio.CancelledError:
        if not expired or getattr(task, "uncancel", int)() > before:
            raise  # something else has cancelled it
        raise asyncio.TimeoutError from None
    finally:
        timer.cancel()


async def call(client: Client, peer: PeerArgument, tag: bytes, args: Tuple[Any, ...],
               kwargs: Dict[str, Any], timeout: Optional[float] = None) -> Any:
    """Run a function on another peer, as :meth:`Client.call` does. Cancelling the task that awaits
    this cancels the call there."""
    pool = _pools(client).pool(peer)
    if timeout is None:
        timeout = client.settings.timeout
    context = current()
    if context is not None:
        deadline = deadline_within(context, timeout, pool.address)
        timeout = None if deadline is None else deadline.seconds
    sent: List[int] = []
    if timeout is None or timeout > LONGEST:
        return await _call(client, pool, peer, tag, args, kwargs, None, sent)
    try:
        return await within(timeout, _call(client, pool, peer, tag, args, kwargs, timeout, sent))
    except asyncio.TimeoutError:
        raise CallTimeout(pool.address, timeout, "maybe" if sent else "no") from None


async def _call(client: Client, pool: _Pool, peer: PeerArgument, tag: bytes,
                args: Tuple[Any, ...], kwargs: Dict[str, Any], seconds: Optional[float],
                sent: List[int]) -> Any:
    """Make the call. Its number is put into ``sent`` before anything of it leaves."""
    number, limits = client.next_number(), client.settings.limits
    deadline = None if seconds is None else Deadline(seconds)
    lender = None
    try:
        message = encode_call(number, tag, args, kwargs, limits, seconds)
    except ValueNotSupported:  # but perhaps it can be lent
        lender = Lender(limits, pool.address, seconds)
        message = encode_call(number, tag, args, kwargs, limits, seconds, lender)
    while True:
        connection = await pool.take()
        sent.append(number)
        if connection is None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                None, lambda: client.call(peer, tag, args, kwargs, seconds))
        try:
            frame = await connection.exchange(message, number, lender)
            if frame is not None:
                if frame[0] not in STREAMED and _is_last(frame, connection):
                    pool.discard(connection)
                break
        except BaseException:  # a cancelled task too: closing it cancels the call there
            pool.discard(connection)
            raise
        sent.clear()
        pool.discard(connection)
    if frame.kind in STREAMED:
        begun = _Begun(pool, connection, number, frame, lender, deadline)
        return AsyncRemoteIterator(begun, peer, tag, client)
    return _value(frame, pool, connection, peer, tag, limits)


def _value(frame: Frame, pool: _Pool, connection: _Connection, peer: object, tag: bytes,
           limits: Limits) -> Any:
    """What a reply holds; its connection is left to other calls unless something is wrong."""
    try:
        return decode_reply(frame, pool.address, peer, tag, limits)
    except ProtocolError as problem:
        if not isinstance(problem, RemoteError):  # whatever comes next from such a peer
            pool.discard(connection)
        raise
    finally:
        if frame.kind == FAILURE and b'"refused"' in frame.text:
            pool.discard(connection)
        pool.give_back(connection)


def _is_last(frame: Any, connection: _Connection) -> bool:
    """Whether no further call can be made on the connection of a reply.

    :raises ProtocolError: the frame is no reply, or more than one has come.
    """
    if frame[0] not in REPLIES:
        raise ProtocolError(connection.address, f"a frame of kind {frame[0]} is no reply", "maybe")
    if not connection.session.rest:
        return False
    if not says_goodbye(connection.session):
        raise ProtocolError(connection.address, "more than one reply", "maybe")
    return True


async def connect(client: Client, peer: PeerArgument) -> None:
    """Open a connection for the next call, unless there is one.

    :raises NetError: there is none; nothing ran.
    """
    pool = _pools(client).pool(peer)
    connection = None if pool.is_connected else await pool.take()
    if connection is None:
        return
    try:
        # A server gives up a connection on which nothing is asked.
        number, in_order = client.next_number(), False
        frame = await connection.exchange(pack(PING, number, b""), number, None)
        in_order = frame is not None and not is_refusal(frame) and not _is_last(frame, connection)
    finally:
        if not in_order:
            pool.discard(connection)
    pool.give_back(connection)


def stream(client: Client, peer: PeerArgument, tag: bytes, args: Tuple[Any, ...],
           kwargs: Dict[str, Any], timeout: Optional[float] = None) -> AsyncRemoteIterator:
    """The items of an async generator function on another peer. Nothing is sent before the first
    one is asked for.

    :param timeout: seconds for all of it.
    :raises InvalidPeer: not a peer.
    """
    address_of(peer)

    async def begin() -> _Begun:
        found = await call(client, peer, tag, args, kwargs, timeout)
        if type(found) is not AsyncRemoteIterator:
            raise ProtocolError(address_of(peer), "the function there is no generator", "maybe")
        return found.begun()
    return AsyncRemoteIterator(begin, peer, tag, client)


class _Pools:
    """The pools of one event loop. They are closed when that loop shuts down, as
    :func:`asyncio.run` does at its end."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pools: Dict[Address, _Pool] = {}
        # The pool of a ``peer=`` argument, so that an id is decoded once.
        self._by_argument: Dict[Any, _Pool] = {}
        self._guard: Any = None

    def pool(self, peer: PeerArgument) -> _Pool:
        """The pool of a peer.

        :raises InvalidPeer: it is none.
        """
        try:
            return self._by_argument[peer]
        except (KeyError, TypeError):
            address = address_of(peer)
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(self._client, self, address)
        if isinstance(peer, (bytes, str, tuple)):  # net.Peer() may move to another port
            if len(self._by_argument) >= MAX_ARGUMENTS:
                self._by_argument.clear()
            self._by_argument[peer] = pool
        return pool

    async def watch_loop(self) -> None:
        """See to it that everything is closed when the loop ends: it then closes async generators
        that have begun, and this begins one."""
        if self._guard is None:
            self._guard = self._until_the_end()
            await self._guard.__anext__()

    async def _until_the_end(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._guard = None
            self.close()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._forget()

    def abandon(self) -> None:
        """Close our copies of all sockets, in a forked child. The loop is left alone: it is the
        parent's, which goes on with its own sockets."""
        for pool in self._pools.values():
            pool.abandon()
        self._forget()

    def _forget(self) -> None:
        self._pools.clear()
        self._by_argument.clear()


def _pools(client: Client) -> _Pools:
    loop, client = asyncio.get_running_loop(), client.acting()
    pools = client.by_loop.get(loop)
    if pools is None:
        pools = client.by_loop[loop] = _Pools(client)
    found: _Pools = pools
    return found


class _Places:
    """Bounds how many calls run at once: those of the program itself, or those that one served call
    makes. Each served call has its own bound, since it takes up a place of its caller's meanwhile:
    two peers could otherwise wait for each other."""

    def __init__(self, context: Optional[Context]) -> None:
        self.context = context
        self.taken = 0
        self.waiting: Deque[asyncio.Future[None]] = deque()

    async def take(self, most: int) -> None:
        if self.taken < most:
            self.taken += 1
            return
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.free()  # for the next one
            raise

    def free(self) -> None:
        """Give a place to the call that has waited longest."""
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1


class _Pool:
    """The connections of one loop to one address."""

    def __init__(self, client: Client, pools: _Pools, address: Address) -> None:
        self.address = address
        self.client = client
        self._pools = pools
        self._loop = asyncio.get_running_loop()
        # In the order of use.
        self._idle: List[_Connection] = []
        # The timer that closes idle ones; None while there are none.
        self._timer: Optional[asyncio.TimerHandle] = None
        # All that are open, and the places of those in use; None once they are given back.
        self._open: Dict[_Connection, Optional[_Places]] = {}
        self._places: Dict[Optional[Context], _Places] = {}

    async def take(self) -> Optional[_Connection]:
        """A connection for one call; None if an old peer is there. Waits while there are as many
        as there may be."""
        context = current()
        places = self._places.get(context)
        if places is None:
            places = self._places[context] = _Places(context)
        await places.take(self.client.settings.max_calls)
        connection = None
        try:
            connection = self._take_idle()
            if connection is None and not self.client.dialect(self.address):
                connection = await self._connect()
        finally:
            if connection is None:
                self._free(places)
        if connection is not None:
            self._open[connection] = places
        return connection

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, in use or not."""
        return bool(self._open)

    def _take_idle(self) -> Optional[_Connection]:
        now, revision = uptime(), self.client.settings.revision
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < IDLE_TIME and connection.revision == revision \
                    and not connection.has_ended():
                return connection
            self.discard(connection)
        return None

    async def _connect(self) -> Optional[_Connection]:
        await self._pools.watch_loop()
        return await _open(self.client, self.address)

    def give_back(self, connection: _Connection) -> None:
        """Let another call have it, unless it was discarded."""
        if connection not in self._open:
            return
        connection.idle_since = uptime()
        self._idle.append(connection)
        self._look_later(IDLE_TIME)
        self._leave(connection)

    def _look_later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._close_old)

    def _close_old(self) -> None:
        self._timer = None
        now = uptime()
        while self._idle and now - self._idle[0].idle_since >= IDLE_TIME:
            self.discard(self._idle.pop(0))
        if self._idle:
            self._look_later(IDLE_TIME - (now - self._idle[0].idle_since))

    def discard(self, connection: _Connection) -> None:
        """Close a connection that no other call can have."""
        connection.close()
        self._leave(connection)
        self._open.pop(connection, None)

    def _leave(self, connection: _Connection) -> None:
        places = self._open.get(connection)
        if places is not None:
            self._open[connection] = None
            self._free(places)

    def _free(self, places: _Places) -> None:
        places.free()
        if not places.taken:
            del self._places[places.context]

    def let_go(self, connection: _Connection) -> None:
        """:meth:`discard` a connection that no call holds any longer. Any thread may call."""
        try:
            self._loop.call_soon_threadsafe(self.discard, connection)
        except RuntimeError:  # the loop has ended
            connection.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()

    def abandon(self) -> None:
        for connection in self._open:
            connection.sock.close()


class _Connection:
    """An open connection, for one call at a time."""

    def __init__(self, address: Address, sock: socket.socket, session: Session,
                 tls: Optional[TlsSession], revision: int, in_thread: bool) -> None:
        self.address = address
        self.sock = sock
        self.session = session
        self.revision = revision
        self.idle_since = 0.0
        self._tls = tls
        self._in_thread = in_thread
        self._loop = asyncio.get_running_loop()
        # By its number: asyncio would describe a socket object in text each time it is new to it.
        self._number = sock.fileno()
        self._poll = poller(sock)
        # Whether the loop looks for what comes, and the future that waits for it.
        self._is_looking = False
        self._waiter: Optional[asyncio.Future[bytes]] = None

    async def send(self, pieces: Sequence[Buffer]) -> None:
        """Send all pieces."""
        if self._tls is not None:
            for piece in pieces:
                self._tls.write(piece)
            pieces = [self._tls.output()]
        elif len(pieces) > 1 and sum(map(len, pieces)) <= JOINED:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            sent = self._send_some(piece)
            if sent < len(piece):
                await self._loop.sock_sendall(self.sock, memoryview(piece)[sent:])

    def _send_some(self, piece: Buffer) -> int:
        try:
            return self.sock.send(piece, NO_SIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0

    async def event(self) -> Any:
        """The next event of the session.

        :raises EndOfStream: there is none.
        """
        event = self.session.receive(b"") if self.session.rest else None
        while event is None:
            data = await self._receive()
            if not data:
                raise EndOfStream(self.session.held)
            if self._tls is not None:
                data = self._tls.feed(data)
            event = self.session.receive(data) if data else None
        return event

    async def _receive(self) -> bytes:
        """What has come, or comes next; no bytes at the end."""
        try:
            return self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            pass
        if not self._is_looking:
            self._loop.add_reader(self._number, self._readable)
            self._is_looking = True
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _readable(self) -> None:
        """Something has come. If nobody waits for it, it stays where it is, and the loop looks no
        more until somebody does: beginning and ending to look for each call would take longer."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.look_no_more()
            return
        try:
            waiter.set_result(self.sock.recv(CHUNK))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as problem:
            waiter.set_exception(problem)

    def look_no_more(self) -> None:
        """Have the loop forget the socket, so that it may be closed."""
        if self._is_looking and not self._loop.is_closed():
            self._loop.remove_reader(self._number)
        self._is_looking = False

    async def exchange(self, message: List[Buffer], number: int,
                       lender: Optional[Lender]) -> Optional[Frame]:
        """Send a request, receive its reply, and do what is asked meanwhile.

        :returns: the reply; None if the request has to be sent over another connection, as for
            :meth:`~net.run.client.Connection.exchange`.
        """
        is_worth_another = self.idle_since > 0 and len(message) == 1 and lender is None
        try:
            try:
                await self.send(message)
            except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError) as problem:
                return None if is_worth_another else await self._refusal(number, problem)
            if not is_worth_another:
                message.clear()
            frame = await self.reply(number, lender)
            return None if is_worth_another and is_refusal(frame) and is_goodbye(frame) else frame
        except EndOfStream as problem:
            how = "within its reply" if problem.received else "without a reply"
            raise PeerLost(self.address, f"the peer closed the connection {how}") from None
        except Exception as problem:
            failure = meaning(problem, self.address)
            if failure is problem:
                raise
            raise failure from None

    async def _refusal(self, number: int, problem: OSError) -> Frame:
        """The refusal of a peer that has stopped reading; raises the problem if it sends none."""
        try:
            return await within(REFUSAL_TIME, self.reply(number, None))
        except asyncio.TimeoutError:
            raise problem from None

    async def reply(self, number: int, lender: Optional[Lender]) -> Frame:
        """The next frame that belongs to a request."""
        event = await self.event()
        while event[0] == ASK and lender is not None:
            await self.send(await _answered(lender, event, self._in_thread))
            event = await self.event()
        if event[1] != number and not is_refusal(event):
            raise ProtocolError(self.address, "a reply to another request", "maybe")
        return event  # type: ignore[no-any-return]

    def has_ended(self) -> bool:
        """Whether an idle connection can no longer be used: nothing was asked, so anything to
        receive is its end."""
        return bool(self._poll(0))

    def close(self) -> None:
        self.look_no_more()
        self.sock.close()


async def _answered(lender: Lender, frame: Frame, in_thread: bool) -> List[Buffer]:
    """Do what is asked of the caller.

    :param in_thread: do it in a thread, since other calls need this loop.
    """
    if in_thread:
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(None, run, lender.answer, frame)
    return lender.answer(frame)


async def _open(client: Client, address: Address) -> Optional[_Connection]:
    """A new connection; None if the peer speaks the old dialect.

    :raises NetError: nothing ran.
    """
    settings = client.settings
    client.carriers.check(address)
    revision = settings.revision
    # Made first: it may take longer than the peer waits for the first bytes of a connection.
    known = security.credentials()
    try:
        return await _open_by(client, address, revision, known, settings.unix)
    except local.NotProved:
        return await _open_by(client, address, revision, known, False)


async def _open_by(client: Client, address: Address, revision: int, known: Optional[Credentials],
                   locally: bool) -> Optional[_Connection]:
    """As :func:`_open`.

    :param locally: whether the shorter way to a peer of this host may be taken.
    """
    sock, led_to = await _connect_any(client, address, locally)
    try:
        connection = await _in_time(
            _greet(client, address, sock, revision, known, led_to), GREETING_TIME, address)
        client.saw(address, "")
        return connection
    except _Legacy as found:
        reset_at_end(sock, True)  # as leave_no_trace() does
        sock.close()
        client.saw(address, found.dialect)
        return None
    except BaseException as problem:
        sock.close()
        if isinstance(problem, PeerUnreachable):
            client.missed(address)  # it may just have ended
        raise


async def _in_time(work: Awaitable[T], seconds: float, address: Address) -> T:
    try:
        return await within(seconds, work)
    except asyncio.TimeoutError:
        raise PeerUnreachable(address, f"no answer within {seconds:g} s") from None
    except EndOfStream:
        raise PeerUnreachable(address, "it closed the connection without an answer") from None
    except (NetError, _Legacy, local.NotProved):
        raise
    except OSError as problem:
        raise PeerUnreachable(address, str(problem)) from None


async def _connect_any(client: Client, address: Address,
                       locally: bool) -> Tuple[socket.socket, Address]:
    """A connection, by way of another address of the peer if need be; and where it leads to."""
    try:
        return await _in_time(_connect(client, address, locally), CONNECT_TIME, address), address
    except PeerUnreachable:
        client.missed(address)
        other = client.other_way(address)
        if other is None:
            raise
        return await _in_time(_connect(client, other, locally), CONNECT_TIME, address), other


async def _connect(client: Client, address: Address, locally: bool) -> socket.socket:
    loop = asyncio.get_running_loop()
    if locally:
        endpoints = local.endpoints_of(address)
        try:
            nearby = await _begun(lambda: local.start(endpoints), local.QUEUE_TIME)
        except socket.timeout:
            nearby = None
        if nearby is not None:
            return nearby
    carrier, endpoint = client.carriers.to(address)
    try:
        sock = await _begun(lambda: carrier.start(endpoint))
    except socket.gaierror:  # a name: looking it up may take long
        places = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
        sock = carrier.start(Endpoint.of((str(places[0][4][0]), address[1])))
    try:
        await _writable(loop, sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return sock
    except BaseException:
        sock.close()
        raise


async def _begun(start: Callable[[], T], seconds: float = LONGEST) -> T:
    """What a function gives that raises BlockingIOError while it cannot give it yet.

    :raises socket.timeout: it did so for all of these seconds.
    """
    patience = Deadline(seconds)
    while True:
        try:
            return start()
        except BlockingIOError:
            await asyncio.sleep(min(RETRY, patience.remaining()))


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    if poller(sock, write=True)(0):
        return  # within a host the other side has answered already
    number = sock.fileno()
    ready = asyncio.Event()
    loop.add_writer(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(number)


class _Legacy(Exception):
    """The address has answered our preface in an old dialect."""

    def __init__(self, dialect: str) -> None:
        super().__init__(dialect)
        self.dialect = dialect


async def _secure(known: Credentials, address: Address,
                  sock: socket.socket) -> Optional[TlsSession]:
    """Let both sides prove who they are. Returns the TLS that secures the connection from then on;
    None where it needs none.

    :raises NotProved: they could not; connect by TCP instead.
    """
    from ..link import proof, tls  # loaded already, with the credentials

    server = local.process_behind(sock)
    if server is None or known.proof_key is None:
        return await _shake_hands(sock, tls.ClientHandshake(known, address))
    try:
        return await within(proof.PROOF_TIME,
                            _shake_hands(sock, proof.ClientProof(known.proof_key, server)))
    except (ConnectionError, asyncio.TimeoutError):
        raise local.NotProved from None


async def _shake_hands(sock: socket.socket, handshake: Handshake) -> Optional[TlsSession]:
    loop, ended = asyncio.get_running_loop(), False
    await loop.sock_sendall(sock, handshake.output())
    while not ended:
        data = await loop.sock_recv(sock, CHUNK)
        try:
            ended = handshake.receive(data)
        finally:  # in the end the other side is told if it failed
            output = handshake.output()
            try:
                if output:
                    await loop.sock_sendall(sock, output)
            except ConnectionError:
                pass  # what the other side said before it closed can still be received
    return handshake.session


async def _begin(connection: _Connection, preface: bytes) -> None:
    try:
        await connection.send([preface])
    except ConnectionError:
        pass  # why the peer takes no more is received next


async def _greet(client: Client, address: Address, sock: socket.socket, revision: int,
                 known: Optional[Credentials], led_to: Address) -> _Connection:
    session = caller_session(client.settings.limits)
    tls: Optional[TlsSession] = None
    to: Optional[Address] = None
    if known is not None:
        tls = await _secure(known, address, sock)
        to = None if tls is not None and tls.proves_address else destination(sock, led_to)
    connection = _Connection(address, sock, session, tls, revision,
                             asyncio.get_running_loop() is client.own_loop)
    try:
        await _begin(connection, client.preface(to))
        await _hear_hello(connection, address, known is None)
    except BaseException:
        connection.look_no_more()  # or the loop would take the next socket of this number for it
        raise
    return connection


async def _hear_hello(connection: _Connection, address: Address, is_open: bool) -> None:
    try:
        event = await connection.event()
    except NotAFrame as problem:
        dialect = likely_dialect(problem.data) if is_open else ""
        if dialect:
            raise _Legacy(dialect) from None
        raise ProtocolError(address, problem.reason) from None
    except ProtocolError as problem:
        raise ProtocolError(address, problem.reason) from None
    if type(event) is Hello:
        return
    try:
        decode_reply(event, address, address, b"")
    except RemoteError:
        pass
    except NetError as problem:
        problem.ran = "no"  # whatever it says, nothing was asked
        raise
    raise ProtocolError(address, "it answers a preface with a reply")


class _Begun:
    """A call whose reply is a stream, on a connection of its own until it ends."""

    def __init__(self, pool: _Pool, connection: _Connection, number: int, first: Frame,
                 lender: Optional[Lender], deadline: Optional[Deadline]) -> None:
        self.deadline = deadline
        self.pool = pool
        self.connection = connection
        self.number = number
        self.next: Optional[Frame] = first
        self.lender = lender
        self.items: Deque[Any] = deque()
        self.taken = self.told = 0
        self.in_order = False

    def leave_in_order(self) -> None:
        """Let its connection have another call, unless more has come over it."""
        self.in_order = not self.connection.session.rest


class AsyncRemoteIterator(AsyncGenerator):  # type: ignore[type-arg]
    """The items of a generator on another peer, for ``async for``. See
    :class:`~net.run.streaming.RemoteIterator`."""

    def __init__(self, begin: Any, peer: object, tag: bytes, client: Client) -> None:
        self._begin = begin
        self._flow: Optional[_Begun] = begin if isinstance(begin, _Begun) else None
        self._peer = peer
        self._tag = tag
        self._limits = client.settings.limits
        self._ended = False

    def begun(self) -> _Begun:
        """The call, for another iterator to go on with."""
        assert self._flow is not None
        flow, self._flow, self._ended = self._flow, None, True
        return flow

    def __aiter__(self) -> AsyncRemoteIterator:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        try:
            if self._flow is None:
                self._flow = await self._begin()
            return await self._next(self._flow)
        except BaseException:
            await self.aclose()
            raise

    async def asend(self, value: Any) -> Any:
        """The next item; nothing can be sent into a generator of another peer."""
        if value is not None:
            raise TypeError("a generator on another peer takes no values")
        return await self.__anext__()

    async def athrow(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """End it; nothing can be thrown into a generator of another peer."""
        await self.aclose()
        raise thrown(kind, value, traceback)

    async def _next(self, flow: _Begun) -> Any:
        if flow.taken - flow.told >= TELL:
            await self._tell(flow)
        while not flow.items:
            await self._tell(flow)
            frame = flow.next
            flow.next = None
            if frame is None:
                frame = await self._receive(flow)
            if frame[0] != ITEM:
                self._end(flow, frame)
            flow.items.extend(decode_items(frame, self._limits, flow.pool.address))
        flow.taken += 1
        return flow.items.popleft()

    def _end(self, flow: _Begun, frame: Frame) -> NoReturn:
        """Raise what ends a stream."""
        address = flow.pool.address
        if frame[0] == END:
            decode_end(frame, self._limits, address)  # None, as async generators return
            flow.leave_in_order()
            raise StopAsyncIteration
        raise_failure(frame, address, self._peer, self._tag, self._limits, flow.leave_in_order)

    async def _receive(self, flow: _Begun) -> Frame:
        reply, deadline = flow.connection.reply(flow.number, flow.lender), flow.deadline
        try:
            return await (reply if deadline is None else
                          within(deadline.remaining(), reply))
        except (asyncio.TimeoutError, socket.timeout):  # one class, or two
            reply.close()
            assert deadline is not None
            raise CallTimeout(flow.pool.address, deadline.seconds) from None
        except Exception as problem:
            failure = meaning(problem, flow.pool.address)
            if failure is problem:
                raise
            raise failure from None

    async def _tell(self, flow: _Begun) -> None:
        if flow.taken != flow.told:
            flow.told = flow.taken
            try:
                await flow.connection.send(encode_taken(flow.number, flow.taken))
            except OSError:
                pass  # its end, or the reason, is received next

    async def aclose(self) -> None:
        """End it here and there."""
        self._ended = True
        flow, self._flow = self._flow, None
        if flow is not None:
            if flow.in_order:
                flow.pool.give_back(flow.connection)
            else:
                flow.pool.discard(flow.connection)

    def __del__(self) -> None:
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.pool.let_go(flow.connection)
