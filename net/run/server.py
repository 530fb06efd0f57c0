"""The threaded server: the loop accepts and watches the time, a thread serves each connection."""
from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Callable, DefaultDict, Dict, Optional, Sequence, Tuple

from ..dispatch import Count, Dispatch, Tally
from ..errors import Address, AuthenticationError, NetError, PeerBusy
from ..link import security
from ..link.base import ClosedOnError, Listener
from ..link.streams import Stream, host_port
from ..log import CONNECTIONS, RateLimitedLog
from ..settings import Settings
from . import access
from .handshakes import Handshakes
from .loop import READ, Loop, Timer
from .newcomers import Newcomer, Rest
from .parked import LoopWatch
from .refusals import MAX_REFUSED, RefusedClients
from .served import ServedConnections
from .server_connection import NEVER, Handover, ServerConnection, Terms
from .starter import Starter
from .turns import Turns

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# Seconds between checks of the clock while there are connections.
TICK = 0.25
# Seconds without accepting after an error that another attempt would only meet again.
PAUSE = 0.25
# Seconds for the thread of a connection that was evicted to end, and to give its descriptor back.
END_TIME = 0.02
# Seconds by which a check of the clock may be late before the whole process counts as held up, and
# seconds that its connections then get to catch up: what waits in their sockets arrived in time.
LATE = 1.0
# Seconds between checks whether the last calls have ended.
DRAIN_LOOK = 0.02
# What callers are told meanwhile.
ENDING = "it is ending, and takes no new call"
# What they are told where a TLS handshake has to wait for too long.
TOO_MANY = "too many TLS handshakes come at once"
TOO_MANY_CONNECTIONS = "too many connections come at once"
# Seconds for which accepted connections are taken on in one go; then other sockets have their turn.
TURN = 0.02
# Accepted connections that may wait for that, if there are no more free places than that. The
# kernel's queue knows no sources, so it is emptied at once into one that does. Each that waits
# costs a descriptor, and those that are served or wait must leave some to the application.
MAX_WAITING = 64
# Connections that are accepted in one go.
AT_ONCE = 512
# Evicted connections still waiting to read the refusal; one thread each.
MAX_EVICTED = 64

_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server:
    """Serves a dispatch at one or more listeners.

    :param listeners: belong to the server from here on; the first one is at its address.
    :param instance: the random id of this process.
    :param hand_over: takes connections on which subscribers want their events; None where there are
        no events.
    :ivar address: ``(host, port)`` that the first one listens at.
    :raises SettingError: the secret or the certificates cannot be used.
    :raises OSError: no thread can be started.
    """

    def __init__(self, dispatch: Dispatch, listeners: Sequence[Listener], loop: Loop,
                 settings: Settings, instance: str,
                 hand_over: Optional[Callable[[Handover], None]] = None) -> None:
        self._dispatch = dispatch
        self._listeners = listeners
        self._loop = loop
        self._settings = settings
        self._instance = instance
        self.address: Address = listeners[0].endpoint.address
        self._hand_over = hand_over
        # Guards what follows, and ServerConnection.admitted. Reentrant: a signal handler may close.
        self._lock = threading.RLock()
        self._served = ServedConnections()
        self._evicted: Dict[ServerConnection, None] = {}
        self._handshakes = Handshakes()
        self._finished = Tally()
        self._closed = False
        self._accepting = True
        # A spare thread that is there for the next connection: starting one is a quarter of all
        # that the first call over a connection takes. Whether it waits, and what it is given.
        self._spare_waits = False
        self._for_spare: SimpleQueue[Optional[Tuple[ServerConnection, Rest]]] = SimpleQueue()
        self._starter = Starter(f"net-{self.address[1]}")
        # All that follows belongs to the loop's thread.
        self._accepted: Turns[Tuple[socket.socket, Optional[Address]]] = Turns()
        self._newcomers: Dict[ServerConnection, Newcomer] = {}
        self._refused = RefusedClients(loop)
        self._loops = LoopWatch()
        self._misconfigured: Optional[str] = None
        self._busy: Optional[str] = None
        self._listening = False
        self._ticking: Optional[Timer] = None
        self._ticked = self._patient_until = 0.0
        self._networks = access.HostNetworks()
        # A spare descriptor: closed for a moment when there are none left, to tell a client so.
        self._spare = _open_spare()
        try:
            self._revision = settings.revision
            self._known = security.credentials()
            self._start_spare()
            loop.call_soon(self._listen)
        except BaseException:
            self.abandon()  # connections to that port would never be accepted
            raise

    def close(self) -> None:
        """Stop listening and end every connection. May be called again, and from a handler."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._for_spare.put(None)
            served = [*self._served, *self._evicted]
        self._starter.close()
        self._close_listeners()
        for connection in served:
            connection.stream.abort()
            if connection.parked is not None:
                connection.parked.take_back()  # its loop may be held up
        try:
            self._loop.call_soon(self._end)
        except OSError:
            pass  # the loop has ended, and so has all that it knew of us

    def drain(self, seconds: float) -> None:
        """Take no new call, and let those that run end, for some seconds at most. Not to be called
        from a function that is called through this server: it would wait for that one."""
        end = monotonic() + seconds
        self._close_listeners()
        self._busy = ENDING
        while self._served and monotonic() < end and not self._closed:
            try:
                self._loop.call_soon(self._refuse_further)
            except OSError:
                return  # the loop has ended: nothing is accepted any more, and nothing refused
            sleep(DRAIN_LOOK)

    def _refuse_further(self) -> None:
        """Take no further call on any connection. In the loop, until all have ended."""
        problem = PeerBusy(None, ENDING)
        with self._lock:
            served = list(self._served)
        for connection in served:
            newcomer = self._newcomers.get(connection)
            if newcomer is not None:
                self._drop(connection)
                newcomer.refuse(problem)
            else:
                connection.take_no_more(problem)

    def refuse_all(self, reason: Optional[str]) -> None:
        """Refuse all callers, and end idle connections. Any thread may call.

        :param reason: what callers are told; None to serve again.
        """
        self._busy = reason
        if reason is not None:
            with self._lock:
                served = list(self._served)
            for connection in served:
                if not connection.call:
                    connection.stream.abort()

    def abandon(self) -> None:
        """Close the copies of our sockets in a forked child, where no thread serves them."""
        self._lock = threading.RLock()  # another thread of the parent's may have held it
        self._closed = True
        self._for_spare.put(None)
        self._close_listeners()
        for connection in [*self._served, *self._evicted]:
            connection.stream.close()
        self._close_accepted()
        self._newcomers.clear()
        self._refused.abandon()
        self._close_spare()

    def adopt(self, sock: socket.socket, address: Optional[Address]) -> None:
        """Serve a socket that is connected already, as a carrier gives it. Any thread may call; the
        socket belongs to the server from here on.

        :param address: ``(host, port)`` that it comes from; None where the carrier gives none.
        """
        self._loop.call_soon(partial(self._start, sock, address))

    def tally(self) -> DefaultDict[bytes, Count]:
        """What was counted for each tag since the start."""
        total = Tally()
        with self._lock:
            total.merge(self._finished)
            for connection in (*self._served, *self._evicted):
                total.merge(connection.tally)
        return total.by_tag

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._served)

    @property
    def running(self) -> int:
        """How many calls run."""
        with self._lock:
            return sum(connection.is_working for connection in (*self._served, *self._evicted))

    # ------------------------------------------------------------ accepting, in the loop

    def _listen(self) -> None:
        if self._listening or not self._accepting:
            return
        try:
            for listener in self._listeners:
                self._loop.register(listener, READ, partial(self._accept, listener))
            self._listening = True
        except OSError:
            if self._accepting:  # another thread may have closed them meanwhile
                raise

    def _pause(self, seconds: float) -> None:
        if self._listening and seconds:
            for listener in self._listeners:
                self._loop.unregister(listener)
            self._listening = False
            self._loop.call_later(seconds, self._listen)

    def _end(self) -> None:
        for listener in self._listeners:
            self._loop.unregister(listener)
        self._close_accepted()
        for connection, newcomer in list(self._newcomers.items()):
            self._drop(connection)
            newcomer.close()
        self._refused.close()
        if self._ticking is not None:
            self._ticking.cancel()
        self._close_spare()

    def _close_accepted(self) -> None:
        while self._accepted:
            self._accepted.take()[0].close()

    def _close_listeners(self) -> None:
        self._accepting = False  # first: the loop may be about to use them
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: Listener, mask: int) -> None:
        """Accept all connections that wait, for :meth:`_take_turns`."""
        if not self._accepted:
            self._loop.call_soon(self._take_turns)
        most = max(MAX_WAITING, self._settings.max_connections - len(self._served))
        for _ in range(AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                # Without descriptors, this does not show whether another client waits.
                if self._accepting and not self._accepted:
                    note(logging.WARNING, "cannot accept: %s", problem)
                    self._pause(self._make_room(listener, problem) if problem.errno in _OUT_OF
                                else PAUSE)
                return
            self._accepted.put("" if address is None else access.share_of(address[0]),
                               (sock, address))
            if len(self._accepted) > most:
                self._refuse_excess()

    def _refuse_excess(self) -> None:
        """Refuse one accepted connection that cannot wait, of the source that has the most."""
        sock, _ = self._accepted.drop()
        if len(self._refused) < MAX_REFUSED:
            self._refused.refuse(sock, PeerBusy(None, TOO_MANY_CONNECTIONS))
        else:
            sock.close()

    def _take_turns(self) -> None:
        """Go on with the accepted connections, their sources in turn."""
        end = monotonic() + TURN
        try:
            while self._accepted:
                self._start(*self._accepted.take())
                if monotonic() > end:
                    break
        finally:
            if self._accepted:
                self._loop.call_soon(self._take_turns)

    def _make_room(self, listener: Listener, problem: OSError) -> float:
        """Give up a connection because no descriptors are left, or at least tell one client so.
        Returns the seconds until another attempt makes sense."""
        with self._lock:
            ending = next((one for one in self._evicted if not one.is_working), None)
        if ending is not None:
            ending.stream.abort()  # it has been told, and has to end now
            return END_TIME
        if not self._refused:
            newcomers = len(self._newcomers)
            if not self._evict_one(None):
                return self._refuse_one(listener, problem)
            if len(self._newcomers) == newcomers:
                return END_TIME
        self._refused.close()  # their descriptors are needed at once
        return 0

    def _refuse_one(self, listener: Listener, problem: OSError) -> float:
        """Tell one client, by the spare descriptor. Returns seconds as :meth:`_make_room` does."""
        if self._spare is None:
            return PAUSE
        self._close_spare()
        try:
            sock, _ = listener.accept()
        except OSError:
            return PAUSE
        else:
            try:
                sock.setblocking(False)
                self._refused.refuse(sock, PeerBusy(None, f"{problem.strerror} there"))
                self._refused.close()  # its descriptor is needed again at once
            finally:
                sock.close()
            return 0
        finally:
            self._spare = _open_spare()

    def _close_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _start(self, sock: socket.socket, address: Optional[Address]) -> None:
        with ClosedOnError(sock):  # an error of ours: it would never be served
            self._take(sock, address)

    def _take(self, sock: socket.socket, address: Optional[Address]) -> None:
        if self._closed:
            sock.close()
            return
        self._follow_settings()  # nothing else may have happened since they changed
        try:
            problem = self._why_not(sock, address)
        except OSError:  # it has gone already
            sock.close()
            return
        if problem is None:
            connection = ServerConnection(Stream(sock), address, Terms(
                self._instance, self._known, self._revision, self._admit, self._hand_over,
                self._loop, self._shaken), self)
            problem = self._give_place(connection)
        if problem is not None:
            self._refused.refuse(sock, problem)
            return
        if self._ticking is None:
            self._ticked = monotonic()
            self._ticking = self._loop.call_later(TICK, self._tick)
        newcomer = self._newcomers[connection] = Newcomer(
            self._loop, connection, self._refused, self._go_on, self._drop)
        try:
            newcomer.begin()
        except OSError:  # it has gone already, or the selector can take no more
            self._drop(connection)
            newcomer.close()

    def _why_not(self, sock: socket.socket, address: Optional[Address]) -> Optional[NetError]:
        """The reason to refuse a client, for where it comes from or for the state of this server;
        None to let it in.

        :raises OSError: the client has gone.
        """
        reason = self._misconfigured or self._busy
        if reason is not None:
            return PeerBusy(None, reason)
        if self._known is not None:
            return None
        refusal = access.refusal(address, lambda: host_port(sock.getsockname()), self._networks)
        if refusal is None:
            return None
        note(logging.WARNING, "refused %s", refusal)
        return AuthenticationError(None, refusal)

    def _give_place(self, connection: ServerConnection) -> Optional[NetError]:
        """Give a connection its place, or say why there is none."""
        most = self._settings.max_connections
        with self._lock:
            has_room = self._served.has_room(connection.source, most)
        if not has_room and not self._evict_one(connection.source):
            return PeerBusy(None, f"{most} connections are open there (NET_MAX_CONNECTIONS)")
        with self._lock:
            if self._closed:  # since it was accepted; close() will not see this one
                return PeerBusy(None, ENDING)
            self._served.add(connection)
        return None

    def _go_on(self, connection: ServerConnection, rest: Rest, whole: bool) -> None:
        """Start a thread for a connection that needs one, as :meth:`_start_thread`; for a TLS
        handshake only when it is its turn."""
        if connection.is_plain:
            self._start_thread(connection, rest, whole)
            return
        with self._lock:
            waits = self._handshakes.wait(connection, rest)
        if waits:
            self._shake_hands()
        else:
            newcomer = self._newcomers[connection]
            self._drop(connection)
            newcomer.refuse(PeerBusy(None, TOO_MANY))

    def _shake_hands(self) -> None:
        """Go on with the handshakes whose turn it is."""
        while not self._closed:
            with self._lock:
                found = self._handshakes.next()
            if found is None:
                return
            connection, rest = found
            if connection.stream.has_ended():
                newcomer = self._newcomers[connection]
                self._drop(connection)
                newcomer.close()
            else:
                self._start_thread(connection, rest, False)

    def _shaken(self, connection: ServerConnection, proved: bool) -> None:
        """Note that a handshake has made a step, see :class:`Terms`. In its thread."""
        with self._lock:
            others = (self._handshakes.proved if proved else self._handshakes.worked)(connection)
        if others:
            self._call_for_handshakes()

    def _call_for_handshakes(self) -> None:
        try:
            self._loop.call_soon(self._shake_hands)
        except OSError:
            pass  # there is no loop any more; or no thread to be had, and the next tick does it

    def _start_thread(self, connection: ServerConnection, rest: Rest, whole: bool) -> None:
        """Let a thread go on with a connection.

        :param whole: whether its first request has come; it is not evicted then.
        """
        newcomer = self._newcomers.pop(connection)
        if whole:
            self._admit(connection)
        with self._lock:
            if self._spare_waits and not self._closed:
                self._spare_waits = False
                self._for_spare.put((connection, rest))
                return
        self._starter.start(connection.source, partial(self._serve, connection, rest),
                            partial(self._call_without_thread, connection, newcomer))

    def _call_without_thread(self, connection: ServerConnection, newcomer: Newcomer,
                             problem: BaseException) -> None:
        try:
            self._loop.call_soon(partial(self._without_thread, connection, newcomer, problem))
        except OSError:  # there is no loop any more, or no thread for it either
            self._drop(connection)
            connection.stream.close()

    def _without_thread(self, connection: ServerConnection, newcomer: Newcomer,
                        problem: BaseException) -> None:
        """Give up a connection for which no thread can be started. In the loop."""
        with self._lock:
            is_ended = self._closed or connection in self._evicted
            self._evicted.pop(connection, None)
        self._drop(connection)
        if is_ended:
            newcomer.close()
            return
        self._evict_one(connection.source)  # for the next one, when its thread has ended
        newcomer.refuse(PeerBusy(None, str(problem) or "no memory for a thread"))

    def _drop(self, connection: ServerConnection) -> None:
        """Take back the place of a connection that has no thread."""
        with self._lock:
            self._served.discard(connection)
            self._handshakes.over(connection)
        self._newcomers.pop(connection, None)

    def _evict_one(self, source: Optional[str]) -> bool:
        """Evict a connection that has not sent a whole request yet, or that is idle, of the source
        that has the most. False if there is none. One with a running call is never evicted.

        :param source: that needs the place; None if something other than places is short.
        """
        with self._lock:
            connection = self._served.eviction_candidate(source)
            if connection is None:
                return False
            self._take_back(connection)
            problem = None if connection.admitted else \
                PeerBusy(None, TOO_MANY_CONNECTIONS)
        self._end_early(connection, problem)
        return True

    def _take_back(self, connection: ServerConnection) -> None:
        """Take back the place of a connection that is about to be ended. Under the lock: its thread
        may end at any time, and forgets it then."""
        if not self._served.discard(connection):
            return
        if connection in self._newcomers:
            self._handshakes.over(connection)
        else:
            self._evicted[connection] = None

    def _end_early(self, connection: ServerConnection, problem: Optional[NetError]) -> None:
        """End a connection whose place was taken back, so that no request of it runs any more.

        :param problem: what its client is told; None if one of its requests may have run.
        """
        newcomer = self._newcomers.pop(connection, None)
        if newcomer is not None:
            newcomer.close() if problem is None else newcomer.refuse(problem)
            return
        with self._lock:
            first = next(iter(self._evicted)) if len(self._evicted) > MAX_EVICTED else None
        if problem is None:
            connection.stream.abort()
        else:
            connection.refuse(problem)
        if first is not None:
            first.stream.abort()

    # ------------------------------------------------------------ the clock, in the loop

    def _tick(self) -> None:
        now = monotonic()
        if now - self._ticked > TICK + LATE:
            self._patient_until = now + LATE
        self._ticked = now
        self._follow_settings()
        self._refuse_late_handshakes()
        with self._lock:
            connections = [*self._served, *self._evicted]
        for connection in connections:
            if now >= self._patient_until and connection.is_overdue(now):
                with self._lock:
                    self._take_back(connection)
                    problem = connection.overdue()
                self._end_early(connection, problem)
            elif connection.call and not connection.watched:
                # A call that takes longer than a tick.
                if connection.call == connection.seen:
                    self._watch(connection, connection.call)
                connection.seen = connection.call
        self._loops.look([one.parked for one in connections if one.parked is not None])
        self._ticking = self._loop.call_later(TICK, self._tick) if connections else None

    def _refuse_late_handshakes(self) -> None:
        with self._lock:
            late = self._handshakes.late()
            for connection in late:
                self._take_back(connection)
        for connection in late:
            self._end_early(connection, PeerBusy(None, TOO_MANY))
        self._shake_hands()

    def _watch(self, connection: ServerConnection, call: int) -> None:
        """Notice when the caller of a call that takes long has gone."""
        with self._lock:
            if connection not in self._served and connection not in self._evicted:
                return  # its thread closes it, perhaps right now
            connection.watched = True
        try:
            self._loop.register(connection.stream.sock, READ,
                                partial(self._look, connection, call))
        except OSError:
            pass  # its thread has closed it

    def _look(self, connection: ServerConnection, call: int, mask: int) -> None:
        self._loop.unregister(connection.stream.sock)
        connection.watched = False
        if connection.call == call and connection.stream.has_ended():
            connection.context.cancel()

    def _follow_settings(self) -> None:
        """If the settings for security have changed, end the connections that were made under the
        old ones."""
        settings = self._settings
        if self._revision == settings.revision:
            return
        self._revision = settings.revision
        before = self._known
        try:
            self._known = security.credentials()
            self._misconfigured = None
        except NetError as problem:
            note(logging.ERROR, "no caller is served any more: %s", problem)
            self._misconfigured = "its settings for security cannot be used"
        if before is self._known and self._misconfigured is None:
            return
        with self._lock:
            served = list(self._served)
        for connection in served:
            newcomer = self._newcomers.get(connection)
            if newcomer is None:
                connection.stream.abort()
            else:
                self._drop(connection)
                newcomer.close()

    # --------------------------------------------------------- the thread of a connection

    def _start_spare(self) -> None:
        self._spare_waits = True
        try:
            threading.Thread(target=self._serve_as_they_come, daemon=True,
                             name=f"net-{self.address[1]}").start()
        except BaseException as problem:
            self._spare_waits = False
            if not isinstance(problem, RuntimeError):  # can't start new thread
                raise

    def _serve_as_they_come(self) -> None:
        while True:
            work = self._for_spare.get()
            if work is None:
                return
            # Context variables that its functions set are not the next connection's.
            Context().run(self._serve, *work)
            work = None
            with self._lock:
                if self._closed:
                    return
                self._spare_waits = True

    def _serve(self, connection: ServerConnection, rest: Rest) -> None:
        try:
            connection.run(self._dispatch, rest)
        except Exception:
            if not self._closed:
                note(logging.ERROR, "a connection failed")
        finally:
            with self._lock:
                self._served.discard(connection)
                self._evicted.pop(connection, None)
                self._finished.merge(connection.tally)
                others = self._handshakes.over(connection)
            if others:
                self._call_for_handshakes()
            connection.context.cancel()
            if not connection.handed_over:
                self._close(connection)

    def _close(self, connection: ServerConnection) -> None:
        if connection.watched:
            # The selector must not keep its number, which will be another socket's.
            try:
                self._loop.call_soon(partial(self._unwatch, connection))
                return
            except OSError:
                pass
        connection.stream.close()

    def _unwatch(self, connection: ServerConnection) -> None:
        self._loop.unregister(connection.stream.sock)
        connection.stream.close()

    def _admit(self, connection: ServerConnection) -> bool:
        with self._lock:
            connection.admitted = self._served.admit(connection)
            if connection.admitted:
                connection.deadline = NEVER
            return connection.admitted


def _open_spare() -> Optional[int]:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
