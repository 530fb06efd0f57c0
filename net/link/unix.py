"""The carrier of Unix sockets: connections between processes of one host."""
from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import Any, NamedTuple, Optional, Tuple

from ..errors import Address
from .base import ClosedOnError, Deadline, Endpoint, Listener, connect_patiently

# struct ucred of Linux.
_CREDENTIALS = struct.Struct("3i")


class PeerCredentials(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel knows it."""

    pid: int
    user: int
    group: int


class UnixCarrier:
    """Connections over Unix sockets. See :class:`~net.link.base.Carrier` for the contract.

    A host is the path of a socket file, or ``@name`` in the abstract namespace of Linux, which
    leaves no file behind; the port is 0. The directory of the file, and the umask, say who may
    connect.
    """

    name = "unix"

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        return connect_patiently(self, endpoint, deadline)

    def start(self, endpoint: Endpoint) -> socket.socket:
        try:
            with ClosedOnError(_new_socket()) as sock:
                sock.setblocking(False)
                sock.connect(_place(endpoint))
            return sock
        except FileNotFoundError as problem:
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(problem)) from None

    def listen(self, endpoint: Endpoint, backlog: int) -> Listener:
        with ClosedOnError(_new_socket()) as sock:
            self._remove_stale(endpoint)
            sock.bind(_place(endpoint))
            sock.listen(backlog)
            sock.setblocking(False)
            return UnixListener(sock, endpoint)

    def _remove_stale(self, endpoint: Endpoint) -> None:
        """Remove the file that a process left behind when it ended, so that the path can be bound
        again. Two processes that do so at the same moment are not kept apart: one may take the new
        file of the other for the stale one."""
        if endpoint.host.startswith("@") or not _is_socket(endpoint.host):
            return
        try:
            self.start(endpoint).close()
        except ConnectionRefusedError:
            _remove(endpoint.host)
        except OSError:
            pass  # another process listens there: binding will say so


class UnixListener:
    """See :class:`~net.link.base.Listener`. Removes its file when it is closed."""

    def __init__(self, sock: socket.socket, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.fileno = sock.fileno
        self._sock = sock
        self._file = _identity(endpoint.host)

    def accept(self) -> Tuple[socket.socket, Optional[Address]]:
        sock, _ = self._sock.accept()
        sock.setblocking(True)
        return sock, None

    def close(self) -> None:
        self._sock.close()
        # Another process may have put its own file in place of ours.
        if self._file is not None and _identity(self.endpoint.host) == self._file:
            self._file = None
            _remove(self.endpoint.host)


def peer_credentials(sock: socket.socket) -> Optional[PeerCredentials]:
    """The process at the other end: the one that connected, or that began to listen. None where
    the system does not say, or for a socket of another kind."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None or sock.family != socket.AF_UNIX:
        return None
    return PeerCredentials(*_CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)))


def _new_socket() -> socket.socket:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    return socket.socket(family, socket.SOCK_STREAM)


def _place(endpoint: Endpoint) -> str:
    host = endpoint.host
    return "\0" + host[1:] if host.startswith("@") else host


def _identity(path: str) -> Any:
    """What tells a file from another one at the same path; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # another process was first
