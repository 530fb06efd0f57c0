"""The threaded TCP server: one thread accepts and watches the time, one serves each connection."""
from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
from time import monotonic
from typing import Any, Callable, Dict, Optional, Set

from ..dispatch import Dispatch, Tally, caller
from ..settings import settings
from ..errors import Address, AuthenticationError, NetError, NoFreePort, PeerBusy
from ..link import security
from . import access
from .refusals import RefusedClients
from ..log import CONNECTIONS, RateLimitedLog
from .server_connection import Handover, ServerConnection, Terms
from ..link.streams import Stream, host_port, tune

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# Seconds between looks at the clock while there are connections.
TICK = 0.25
# Seconds without accepting when descriptors have run out: trying again at once would keep a core
# busy for nothing.
PAUSE = 0.25
# Seconds by which a look at the clock may be late before the whole process counts as held up, and
# seconds that its connections get then to catch up: what waits in their sockets came in time.
LATE = 1.0
# Seconds without a request after which a connection may be closed to make room. Callers let go of
# theirs after 60, so that none of them is about to be used.
STALE_TIME = 90.0
# Connections that were given up and still get a moment to read why. Each has a thread.
MAX_DISMISSED = 64

_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})


class Server:
    """Serves a dispatch on the first free port of a range.

    :param host: numeric address to bind; every address with ``0.0.0.0`` or ``::``.
    :param ports: tried in order.
    :param any_port: take any port of the operating system's if all are taken.
    :param instance: the random id of this process.
    :ivar hand_over: takes connections on which subscribers want their events; None where there are
        no events.
    :raises NoFreePort: all are taken.
    :raises SettingError: the secret or the certificates cannot be used.
    :raises OSError: the address cannot be bound at all, or no thread can be started.
    """

    def __init__(self, dispatch: Dispatch, host: str, ports: range, any_port: bool = False,
                 instance: str = "") -> None:
        self._dispatch = dispatch
        self._instance = instance
        self.hand_over: Optional[Callable[[Handover], None]] = None
        self._revision = settings.revision
        self._known = security.credentials()
        self._listener = _listen(host, ports, any_port)
        self.address: Address = self._listener.getsockname()[:2]
        # Guards _served, _dismissed, _finished and ServerConnection.admitted.
        self._lock = threading.Lock()
        self._served: Set[ServerConnection] = set()
        self._dismissed: Dict[ServerConnection, None] = {}
        self._finished = Tally()
        self._closed = False
        self._misconfigured: Optional[str] = None
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, self._nothing)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._doorstep = RefusedClients(self._selector)
        self._listening = True
        self._resume = self._patient_until = 0.0
        try:
            threading.Thread(target=self._run, name=f"net-server-{self.address[1]}",
                             daemon=True).start()
        except RuntimeError as problem:
            self.abandon()  # nobody would ever accept on that port
            raise OSError(errno.EAGAIN, str(problem)) from problem

    def close(self) -> None:
        """Stop listening and end every connection. May be called again, and from a handler."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            served = [*self._served, *self._dismissed]
        self._listener.close()
        for connection in served:
            connection.stream.abort()
        try:
            self._wake.send(b"x")
        except OSError:
            pass

    def abandon(self) -> None:
        """Close the copies of our sockets in a forked child, where no thread serves them."""
        self._closed = True
        for connection in [*self._served, *self._dismissed]:
            if not connection.handed_over:
                connection.stream.close()
            if caller.ended is not None:
                caller.ended()
        self._doorstep.abandon()
        for sock in (self._listener, self._wake, self._woken, self._selector):
            sock.close()

    def tally(self) -> Dict[bytes, Any]:
        """``tag -> [calls, errors, seconds]`` since the start."""
        total = Tally()
        with self._lock:
            total.merge(self._finished)
            for connection in (*self._served, *self._dismissed):
                total.merge(connection.tally)
        return total.by_tag

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._served)

    # ------------------------------------------------------------ the thread that accepts

    def _run(self) -> None:
        looked = monotonic()
        while not self._closed:
            try:
                self._round(looked)
            except Exception:  # without this thread nobody would be served any more
                if not self._closed:
                    note(logging.ERROR, "the server goes on after an error")
                    self._pause()
            looked = monotonic()
        self._doorstep.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _round(self, looked: float) -> None:
        busy = self._served or self._dismissed or not self._listening or not self._doorstep.empty
        timeout = TICK if busy else None
        for key, _ in self._selector.select(timeout):
            if self._closed:
                return
            key.data()
        now = monotonic()
        if timeout is not None and now - looked > timeout + LATE:
            self._patient_until = now + LATE
        if not self._listening and now >= self._resume:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._listening = True
        self._follow_settings()
        if now >= self._patient_until:
            self._close_overdue(now)
        self._doorstep.close_overdue()

    def _nothing(self) -> None:
        """Woken up; what for is seen in the next round."""

    def _accept(self) -> None:
        """Accept what waits."""
        for _ in range(settings.backlog):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if self._closed:
                    return
                note(logging.WARNING, "cannot accept: %s", problem)
                if problem.errno in _OUT_OF:
                    self._evict_one()
                    self._pause()
                return
            self._start(sock, host_port(address))

    def _pause(self) -> None:
        if self._listening:
            self._selector.unregister(self._listener)
            self._listening = False
        self._resume = monotonic() + PAUSE

    def _start(self, sock: socket.socket, address: Optional[Address]) -> None:
        self._follow_settings()  # nothing else may have happened since they changed
        try:
            problem = self._why_not(sock, address)
            sock.setblocking(True)
            tune(sock)
        except OSError:  # it has gone already
            sock.close()
            return
        if problem is None:
            connection = ServerConnection(Stream(sock), address, Terms(
                self._instance, self._known, self._admit, self.hand_over))
            problem = self._start_thread(connection)
        if problem is not None:
            self._doorstep.refuse(sock, problem)

    def _why_not(self, sock: socket.socket, address: Optional[Address]) -> Optional[NetError]:
        """The reason to refuse a client for what it is, or for how things are here."""
        if self._misconfigured is not None:
            return PeerBusy(None, self._misconfigured)
        if self._known is not None:
            return None
        refusal = access.refusal(address, host_port(sock.getsockname()))
        if refusal is None:
            return None
        note(logging.WARNING, "refused %s", refusal)
        return AuthenticationError(None, refusal)

    def _start_thread(self, connection: ServerConnection) -> Optional[NetError]:
        """Give a connection its place and its thread, or say why there is none."""
        with self._lock:
            full = len(self._served) >= settings.max_connections
        if full and not self._evict_one():
            return PeerBusy(None, f"{settings.max_connections} connections are open there "
                                  f"(NET_MAX_CONNECTIONS)")
        with self._lock:
            self._served.add(connection)
        try:
            threading.Thread(target=self._serve, args=(connection,), daemon=True,
                             name=f"net-{self.address[1]}").start()
        except (RuntimeError, MemoryError) as problem:  # can't start new thread
            with self._lock:
                self._served.discard(connection)
            return PeerBusy(None, str(problem) or "no memory for a thread")
        return None

    def _evict_one(self) -> bool:
        """Make room: end a connection that has not brought a whole request yet, or that nobody has
        used for long. False if there is none. One that works is never touched."""
        with self._lock:
            connection = self._eviction_candidate()
            if connection is None:
                return False
            self._served.discard(connection)
            self._dismissed[connection] = None
            first = next(iter(self._dismissed)) if len(self._dismissed) > MAX_DISMISSED else None
        if connection.admitted:
            connection.stream.abort()
        else:
            connection.dismiss(PeerBusy(None, "too many connections come at once"))
        if first is not None:
            first.stream.abort()
        return True

    def _eviction_candidate(self) -> Optional[ServerConnection]:
        unfinished = [one for one in self._served if not one.admitted]
        if unfinished:
            # Those that have not even begun like one of ours go first, the oldest of them.
            return min(unfinished, key=lambda one: (one.greeted, one.since))
        stale = monotonic() - STALE_TIME
        return min((one for one in self._served if one.idle_since() < stale),
                   key=lambda one: one.deadline, default=None)

    def _close_overdue(self, now: float) -> None:
        with self._lock:
            overdue = [one for one in (*self._served, *self._dismissed) if one.deadline < now]
        for connection in overdue:
            connection.stream.abort()

    def _follow_settings(self) -> None:
        """When the settings have changed, who connected under others has to come again."""
        if self._revision == settings.revision:
            return
        self._revision = settings.revision
        before = self._known
        try:
            self._known = security.credentials()
            self._misconfigured = None
        except NetError as problem:
            note(logging.ERROR, "nobody is served any more: %s", problem)
            self._misconfigured = "its settings for security cannot be used"
        if before is self._known and self._misconfigured is None:
            return
        with self._lock:
            served = list(self._served)
        for connection in served:
            connection.stream.abort()

    # --------------------------------------------------------- the thread of a connection

    def _serve(self, connection: ServerConnection) -> None:
        caller.address = connection.address
        caller.server = self
        try:
            connection.run(self._dispatch)
        except Exception:
            if not self._closed:
                note(logging.ERROR, "a connection failed")
        finally:
            with self._lock:
                self._served.discard(connection)
                self._dismissed.pop(connection, None)
                self._finished.merge(connection.tally)
            if not connection.handed_over:
                connection.stream.close()
            if caller.ended is not None:
                caller.ended()

    def _admit(self, connection: ServerConnection) -> bool:
        with self._lock:
            connection.admitted = connection in self._served
            return connection.admitted


def _listen(host: str, ports: range, any_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (*ports, 0) if any_port else ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                # A closed port stays in TIME_WAIT for a minute; without this a restart fails.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                # On Windows the same option would let two peers share a port.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            listener.bind((host, port))
            listener.listen(settings.backlog)
            listener.setblocking(False)
            return listener
        except OSError as problem:
            listener.close()
            if problem.errno not in _TAKEN:
                raise
        except BaseException:
            listener.close()
            raise
    raise NoFreePort(host, ports)
