"""Clients that were refused before they got a thread, until they have read why."""
from __future__ import annotations

import selectors
import socket
from time import monotonic
from typing import Dict

from ..errors import NetError
from ..wire.frames import CHUNK
from ..wire.messages import encode_refusal
from ..link.streams import NO_SIGNAL

# Seconds for a client to take a refusal before the connection is closed under it.
REFUSAL_TIME = 1.0
# Refused clients that are given this time; each costs a descriptor. Of more, the first ones are
# closed at once, and may see a reset instead of the reason.
MAX_REFUSED = 64


class RefusedClients:
    """Refused sockets of one thread. Closing one with unread bytes would reset the connection and
    could lose the refusal, so what the client still sends is taken and thrown away.

    :param selector: of that thread; the data of each key is called when there is something to read.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._waiting: Dict[socket.socket, float] = {}

    def refuse(self, sock: socket.socket, problem: NetError) -> None:
        """Tell a client why it is refused. The socket belongs to us from now on."""
        try:
            sock.setblocking(False)
            # A few hundred bytes: they fit into the buffer of any new connection.
            sock.send(b"".join(encode_refusal(problem)), NO_SIGNAL)
            sock.shutdown(socket.SHUT_WR)
            while len(self._waiting) >= MAX_REFUSED:
                self._close(next(iter(self._waiting)))
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._discard(sock))
            self._waiting[sock] = monotonic() + REFUSAL_TIME
        except OSError:
            sock.close()

    @property
    def empty(self) -> bool:
        return not self._waiting

    def close_overdue(self) -> None:
        now = monotonic()
        for sock in [one for one, deadline in self._waiting.items() if deadline < now]:
            self._close(sock)

    def close(self) -> None:
        """Close them all."""
        for sock in list(self._waiting):
            self._close(sock)

    def abandon(self) -> None:
        """Close our copies in a forked child; the parent still uses its own."""
        for sock in self._waiting:
            sock.close()

    def _discard(self, sock: socket.socket) -> None:
        try:
            if sock.recv(CHUNK):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        if self._waiting.pop(sock, None) is not None:
            self._selector.unregister(sock)
            sock.close()
