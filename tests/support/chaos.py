"""A TCP proxy that does to a connection what a bad network does: cut, delay, dribble, change."""
from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import Callable, NamedTuple, Optional

PIECE = 64 * 1024


class Way(NamedTuple):
    """What happens to one direction of each connection.

    :ivar cut: the connection ends after this many bytes of this direction.
    :ivar reset: whether it ends by a reset instead of an orderly end.
    :ivar stays: whether it stays open instead, and the rest is lost.
    :ivar delay: seconds before each piece.
    :ivar dribble: seconds between single bytes; None for whole pieces.
    :ivar change: makes other bytes out of a piece, given its offset and its bytes.
    """

    cut: Optional[int] = None
    reset: bool = False
    stays: bool = False
    delay: float = 0.0
    dribble: Optional[float] = None
    change: Callable[[int, bytes], bytes] = lambda offset, data: data


class Proxy:
    """Listens on loopback and passes everything on to a target, more or less. For a ``with``
    statement."""

    def __init__(self, target: tuple, request: Way = Way(), reply: Way = Way()) -> None:
        self._target = target
        self._ways = request, reply
        self._lock = threading.Lock()  # guards _sockets and _threads
        self._sockets: list = []
        self._threads: list = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.accepted = 0
        self._start(self._accept)

    def _start(self, work: Callable, *values: object) -> None:
        thread = threading.Thread(target=work, args=values, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            self._start(self._carry, client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what comes, both ways, in one thread: it alone may close the two, so that a
        reset is one."""
        ways = {client: [server, self._ways[0], 0], server: [client, self._ways[1], 0]}
        with client, server:
            try:
                while ways:
                    for source in select.select(list(ways), [], [])[0]:
                        if not self._carry_some(source, ways):
                            return
            except (OSError, ValueError):
                pass  # a side has gone, or the proxy closes

    def _carry_some(self, source: socket.socket, ways: dict) -> bool:
        sink, way, offset = ways[source]
        data = source.recv(PIECE)
        if not data:
            sink.shutdown(socket.SHUT_WR)
            del ways[source]
            return True
        data = way.change(offset, data)
        if way.cut is not None:
            data = data[:max(0, way.cut - offset)]
        self._send(sink, data, way)
        ways[source][2] += len(data)
        if ways[source][2] != way.cut or way.stays:
            return True
        if way.reset:
            for sock in (source, sink):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    @staticmethod
    def _send(sink: socket.socket, data: bytes, way: Way) -> None:
        time.sleep(way.delay)
        if way.dribble is None:
            sink.sendall(data)
            return
        for position in range(len(data)):
            sink.sendall(data[position:position + 1])
            time.sleep(way.dribble)

    def cut(self) -> None:
        """End the connections that there are; new ones are still taken."""
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def close(self) -> None:
        """End everything and wait for it."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(5)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
