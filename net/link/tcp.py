"""The carrier of TCP, over IPv4 and IPv6."""
from __future__ import annotations

import errno
import os
import socket
from typing import Any, List, Optional, Tuple

from ..errors import Address
from .addresses import handle, host_port, is_link_local, socket_address
from .base import ClosedOnError, Deadline, Endpoint, Listener

# A host that vanished is noticed after 9 s of silence and three probes 3 s apart; data that is not
# acknowledged for 18 s counts the same.
KEEP_ALIVE = (("TCP_KEEPIDLE", 9), ("TCP_KEEPALIVE", 9), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3),
              ("TCP_USER_TIMEOUT", 18_000))

# What is set, as far as the platform has it. macOS has SO_NOSIGPIPE instead of MSG_NOSIGNAL.
_OPTIONS = [
    (level, getattr(socket, name), value) for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1), (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        *((socket.IPPROTO_TCP, name, value) for name, value in KEEP_ALIVE),
        (socket.SOL_SOCKET, "SO_NOSIGPIPE", 1)) if hasattr(socket, name)]

# The error code of a non-blocking connect that goes on in the background. Windows has its own.
_STARTED = frozenset({0, errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)})


class TcpCarrier:
    """Connections over TCP. See :class:`~net.link.base.Carrier` for the contract.

    A host is a numeric address, a link-local one with its zone (``fe80::1%eth0``), or a name, whose
    addresses are tried in turn.
    """

    name = "tcp"

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        places = _places(endpoint)
        for left, (family, place) in zip(range(len(places), 0, -1), places):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                # A silent address of a name must leave time for the next one.
                sock.settimeout(deadline.remaining() / left)
                sock.connect(place)
                sock.settimeout(None)
                tune(sock)
                return sock
            except BaseException as problem:
                sock.close()
                if left == 1 or not isinstance(problem, OSError):
                    raise
        raise AssertionError("getaddrinfo gives an address or raises")

    def start(self, endpoint: Endpoint) -> socket.socket:
        family, place = _places(endpoint, socket.AI_NUMERICHOST)[0]
        with ClosedOnError(socket.socket(family, socket.SOCK_STREAM)) as sock:
            sock.setblocking(False)
            tune(sock)
            code = sock.connect_ex(place)
            if code not in _STARTED:
                raise OSError(code, os.strerror(code))
        return sock

    def listen(self, endpoint: Endpoint, backlog: int) -> Listener:
        family, place = _places(endpoint, socket.AI_NUMERICHOST)[0]
        with ClosedOnError(socket.socket(family, socket.SOCK_STREAM)) as sock:
            if os.name == "posix":
                # A closed port stays in TIME_WAIT for a minute; without this a restart fails.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                # On Windows the same option would let two peers share a port.
                option = socket.SO_EXCLUSIVEADDRUSE  # type: ignore[attr-defined]
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6 and hasattr(socket, "IPV6_V6ONLY"):
                # Whatever the system's default is: a listener for IPv4 may have the same port.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place)
            sock.listen(backlog)
            sock.setblocking(False)
            return TcpListener(sock)


class TcpListener:
    """See :class:`~net.link.base.Listener`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.endpoint = Endpoint("tcp", *(host_port(sock.getsockname()) or ("", 0)))
        self.fileno = sock.fileno
        self.close = sock.close

    def accept(self) -> Tuple[socket.socket, Optional[Address]]:
        sock, address = self._sock.accept()
        try:
            sock.setblocking(True)
            tune(sock)
        except OSError as problem:
            sock.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, str(problem)) from problem
        return sock, host_port(address)


def tune(sock: socket.socket) -> None:
    """Set what both ends want of a TCP socket, as far as the platform has it."""
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)


def is_own_address(host: str) -> bool:
    """Whether a numeric address belongs to this host. Sends nothing and resolves no name."""
    if host in ("0.0.0.0", "::"):
        return False
    try:
        family, place = socket_address((_with_zone(host), 0))
        with handle(family) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def _with_zone(host: str) -> str:
    """A numeric address with the zone that it needs, if there is only one that it can have.

    :raises OSError: there are several, or none.
    """
    if not is_link_local(host) or "%" in host:
        return host
    from . import interfaces  # hardly ever

    return f"{host}%{interfaces.zone_of(host)}"


def _places(endpoint: Endpoint, flags: int = 0) -> List[Tuple[int, Any]]:
    """The address family and socket address of each address of a host.

    :raises OSError: it has none.
    """
    host, port = endpoint.address
    if ":" in host:
        return [socket_address((_with_zone(host), port))]
    try:
        return [socket_address(endpoint.address)]
    except OSError:
        pass
    try:
        # A str would load the codec of international names here and now.
        encoded = host.encode("ascii")
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!a} is no host") from None
    found = socket.getaddrinfo(encoded, port, 0, socket.SOCK_STREAM, 0, flags)
    return [(family, place) for family, _, _, _, place in found]
