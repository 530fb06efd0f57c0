"""The carrier within one process: socket pairs, and a table of listeners by name."""
from __future__ import annotations

import errno
import itertools
import socket
import threading
from collections import deque
from typing import Callable, Deque, Dict, Optional, Tuple

from ..errors import Address
from .base import ClosedOnError, Deadline, Endpoint, Listener, connect_patiently

#: The host that peers in memory are at: a loopback address that stands for this process alone.
HOST = "127.77.77.77"
# The first port that is given to listeners that ask for any; those of TCP mostly begin there, too.
FIRST_FREE_PORT = 32768


class MemoryCarrier:
    """Connections within this process. See :class:`~net.link.base.Carrier` for the contract.

    One object is one network: what listens through it can be connected to only through it. Hosts
    are any names, ports any numbers.
    """

    name = "memory"

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _listeners
        self._listeners: Dict[Address, QueueListener] = {}
        # As with TCP, a port that has just got free is not given to the next one.
        self._ports = itertools.cycle(range(FIRST_FREE_PORT, 2 ** 16))

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        return connect_patiently(self, endpoint, deadline)

    def start(self, endpoint: Endpoint) -> socket.socket:
        listener = self._listeners.get(endpoint.address)
        if listener is None:
            raise _refused()
        ours, theirs = socket.socketpair()
        with ClosedOnError(ours), ClosedOnError(theirs):
            listener.put(theirs)
            ours.setblocking(False)
        return ours

    def listen(self, endpoint: Endpoint, backlog: int) -> Listener:
        with self._lock:
            if not endpoint.port:
                endpoint = endpoint._replace(port=next(
                    port for port in self._ports
                    if (endpoint.host, port) not in self._listeners))
            if endpoint.address in self._listeners:
                raise OSError(errno.EADDRINUSE, f"{endpoint} is listened at already")
            listener = self._listeners[endpoint.address] = \
                QueueListener(self._forget, endpoint, max(1, backlog))
            return listener

    def abandon(self) -> None:
        """Close our copies of the sockets in a forked child. The threads that may hold a lock are
        missing there."""
        self._lock = threading.Lock()
        for listener in list(self._listeners.values()):
            listener.abandon()
        self._listeners.clear()

    def _forget(self, listener: QueueListener) -> None:
        """Take a listener out of the table."""
        with self._lock:
            if self._listeners.get(listener.endpoint.address) is listener:
                del self._listeners[listener.endpoint.address]


class QueueListener:
    """A listener that is given its connections, see :class:`~net.link.base.Listener`. For each that
    is to be accepted, a byte waits in a socket pair.

    :param forget: called with the listener when it closes, perhaps more than once.
    """

    def __init__(self, forget: Callable[[QueueListener], None], endpoint: Endpoint,
                 backlog: int) -> None:
        self.endpoint = endpoint
        self._forget = forget
        self._backlog = backlog
        self._lock = threading.Lock()  # guards _waiting, and what is sent and received here
        self._waiting: Deque[Tuple[socket.socket, Optional[Address]]] = deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self.fileno = self._woken.fileno

    def put(self, sock: socket.socket, address: Optional[Address] = None) -> None:
        """Let a socket wait to be accepted.

        :param address: ``(host, port)`` that it comes from; None for this host.
        :raises BlockingIOError: too many wait already.
        :raises ConnectionRefusedError: the listener is closed.
        """
        with self._lock:
            if self._wake.fileno() < 0:
                raise _refused()
            if len(self._waiting) >= self._backlog:
                raise BlockingIOError(errno.EAGAIN, "too many connections wait to be accepted")
            self._wake.send(b"x")
            self._waiting.append((sock, address))

    def accept(self) -> Tuple[socket.socket, Optional[Address]]:
        with self._lock:
            self._woken.recv(1)
            return self._waiting.popleft()

    def close(self) -> None:
        self._forget(self)
        with self._lock:
            self._woken.close()
            self._wake.close()
            while self._waiting:
                self._waiting.popleft()[0].close()

    def abandon(self) -> None:
        """As :meth:`MemoryCarrier.abandon`."""
        self._lock = threading.Lock()
        self._forget = _nobody
        self.close()


def _nobody(_listener: QueueListener) -> None:
    pass


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
