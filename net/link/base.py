"""The contract of a carrier: how two processes get a connected socket between them."""
from __future__ import annotations

import errno
import socket
from time import monotonic, sleep
from typing import List, NamedTuple, Optional, Protocol, Sequence, Tuple

from ..errors import Address, NoFreePort

# Seconds: 11 days. A socket refuses a timeout of more milliseconds than a C int holds; whatever is
# to wait longer than this without a byte ends early.
LONGEST = 1e6
# Seconds between attempts to connect to a listener whose queue is full.
RETRY = 0.01

# A port below 1024 that this user may not bind counts as taken.
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})


class Endpoint(NamedTuple):
    """A place where a peer can be reached.

    :ivar carrier: the ``name`` of the carrier that leads there.
    :ivar host: what that carrier calls a host: a numeric address or a name for TCP, a path for a
        Unix socket, any name in memory.
    :ivar port: 0 where the carrier has no ports; for listening any that is free.
    """

    carrier: str
    host: str
    port: int

    @classmethod
    def of(cls, address: Address) -> Endpoint:
        """The TCP endpoint of ``(host, port)``."""
        return cls("tcp", *address)

    @property
    def address(self) -> Address:
        """``(host, port)``, as errors and peer ids have it."""
        return self.host, self.port


class ClosedOnError:
    """For a ``with`` statement: closes a socket if anything in the block is raised."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __enter__(self) -> socket.socket:
        return self._sock

    def __exit__(self, problem: object, *_: object) -> None:
        if problem is not None:
            self._sock.close()


class Deadline:
    """A timeout that was turned into a point in time once, and is handed down.

    :param seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left.

        :raises socket.timeout: none.
        """
        left = self._end - monotonic()
        if left <= 0:
            raise socket.timeout("deadline passed")
        return min(left, LONGEST)


class Listener(Protocol):
    """What accepts connections at an endpoint. A selector can wait for it to be readable.

    :ivar endpoint: where it listens, with the port that it got.
    """

    endpoint: Endpoint

    def fileno(self) -> int:
        """The descriptor to wait for; -1 once closed."""

    def accept(self) -> Tuple[socket.socket, Optional[Address]]:
        """A connected, blocking socket, and the ``(host, port)`` that it comes from; None where the
        carrier has no addresses, and so is only for this host. Never waits.

        :raises BlockingIOError: no connection waits to be accepted.
        :raises ConnectionAbortedError: the connection that waited has gone.
        :raises OSError: as the operating system says, such as out of descriptors. The listener is
            still good, unless it was closed.
        """

    def close(self) -> None:
        """Stop listening. Any thread may call, more than once. Accepted sockets stay open."""


class Carrier(Protocol):
    """A way for bytes to travel. Any thread may call.

    Its currency is a connected stream socket, which behaves as one of TCP does: either all bytes
    arrive, in order, or the connection breaks; closing one end gives the other an end of stream
    after all that was sent; it has a descriptor to wait for. All else (TLS, limits, the pool,
    events) works on such a socket and does not know the carrier. A carrier without sockets of its
    own, such as an engine for networks beyond this one, ends its circuits in socket pairs.

    When a method raises, it leaves nothing open.

    :ivar name: the ``carrier`` of its endpoints.
    """

    name: str

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        """A connected, blocking socket without a timeout.

        :raises socket.timeout: there was no answer by the deadline.
        :raises ConnectionRefusedError: there is no listener.
        :raises OSError: it cannot be reached, or the endpoint makes no sense.
        """

    def start(self, endpoint: Endpoint) -> socket.socket:
        """A non-blocking socket that is being connected. It becomes writable when that has ended,
        and its ``SO_ERROR`` then says how. Never waits.

        :raises BlockingIOError: not possible right now; try again a little later.
        :raises OSError: as for :meth:`connect`. A host that is a name is not looked up.
        """

    def listen(self, endpoint: Endpoint, backlog: int) -> Listener:
        """Listen at an endpoint, on exactly the port it names unless that is 0.

        :param backlog: connections that may wait to be accepted; some systems take a few more.
        :raises OSError: ``errno.EADDRINUSE``: the address is in use; or it is not an address of
            this host.
        """


def connect_patiently(carrier: Carrier, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    """:meth:`Carrier.connect` for a carrier that connects at once, unless a queue is full."""
    while True:
        left = deadline.remaining()
        try:
            sock = carrier.start(endpoint)
        except BlockingIOError:
            sleep(min(RETRY, left))
        else:
            sock.setblocking(True)
            return sock


def listen_in_range(carrier: Carrier, host: str, ports: range, backlog: int,
                    any_port: bool = False) -> Listener:
    """:func:`listen_at` a single host."""
    return listen_at(carrier, [host], ports, backlog, any_port)[0]


def listen_at(carrier: Carrier, hosts: Sequence[str], ports: range, backlog: int,
              any_port: bool = False) -> List[Listener]:
    """Listen on the first port of a range that is free at all these hosts.

    :param hosts: numeric addresses of this host; ``0.0.0.0`` for every address of IPv4, ``::`` of
        IPv6. The first one is needed; of the others, those that are impossible are left out: this
        host may have no IPv6.
    :param ports: tried in order.
    :param any_port: if all are taken, take one that the operating system chooses.
    :raises NoFreePort: all are taken.
    :raises OSError: it is impossible to listen at the first host.
    """
    for port in (*ports, 0) if any_port else ports:
        try:
            return _listen(carrier, hosts, port, backlog)
        except OSError as problem:
            if problem.errno not in _TAKEN:
                raise
    raise NoFreePort(hosts[0], ports)


def _listen(carrier: Carrier, hosts: Sequence[str], port: int, backlog: int) -> List[Listener]:
    """Listen at several addresses and one port.

    :raises OSError: the port is taken at one of them, or listening at the first is impossible.
    """
    found: List[Listener] = []
    for host in hosts:
        try:
            found.append(carrier.listen(Endpoint(carrier.name, host, port), backlog))
        except OSError as problem:
            if found and problem.errno not in _TAKEN:
                continue
            for listener in found:
                listener.close()
            raise
        port = found[0].endpoint.port
    return found
