"""Clients that were refused before they got a thread, until they have read why."""
from __future__ import annotations

import socket
from functools import partial
from typing import Dict, Optional

from ..errors import NetError, ProtocolError
from ..link.streams import NO_SIGNAL, reset_at_end
from ..wire.frames import CHUNK
from ..wire.legacy import FIRST_BYTES, LegacySession
from ..wire.messages import encode_refusal
from .loop import READ, Loop, Timer

# Seconds for a client to take a refusal before the connection is closed under it.
REFUSAL_TIME = 1.0
# Refused clients that are given this time; each costs a descriptor. If there are more, the oldest
# are closed at once, and may see a reset instead of the reason.
MAX_REFUSED = 64


class RefusedClient:
    """A refused client: its first bytes decide the dialect of the refusal.

    :param old: what it has said so far in an old dialect.
    :ivar timer: closes it when its time is over.
    """

    def __init__(self, sock: socket.socket, problem: NetError, timer: Timer,
                 old: Optional[LegacySession] = None) -> None:
        self.sock = sock
        self.timer = timer
        self._problem = problem
        self._told = False
        self._old = old

    def begun(self) -> None:
        """Go on with a client whose first bytes were received already."""
        if self._old is None:
            self._tell(b"".join(encode_refusal(0, self._problem)))
        elif self._old.request is not None:
            self._tell(self._old.refuse(self._problem))

    def receive(self) -> bool:
        """Take what has come; False if the connection is over."""
        try:
            data = self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not data:
            return False
        # Closing with unread bytes would reset the connection and could lose the refusal, so what
        # the client still sends is received and discarded.
        if self._told:
            return True
        if self._old is None and data[:1] in FIRST_BYTES:
            self._old = LegacySession()
        if self._old is None:
            self._tell(b"".join(encode_refusal(0, self._problem)))
            return True
        return self._receive_old(self._old, data)

    def _receive_old(self, session: LegacySession, data: bytes) -> bool:
        try:
            if session.receive(data) is None:
                return True
            reply = session.refuse(self._problem)
        except ProtocolError:
            reply = b""
        if reply:
            self._tell(reply)
        return bool(reply)

    def _tell(self, refusal: bytes) -> None:
        """Send a few hundred bytes, which fit into the buffer of any new connection."""
        self._told = True
        try:
            self.sock.send(refusal, NO_SIGNAL)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the end of the connection is noticed when it is read

    def close(self) -> None:
        """End the connection; with a reset if it is that of an old program that has no reply: to
        it, an end of stream would be the result of its call."""
        try:
            if self._old is not None and not self._told:
                reset_at_end(self.sock, True)
            elif not self._told:
                self._tell(b"".join(encode_refusal(0, self._problem)))
        except OSError:
            pass  # it has ended already
        self.sock.close()


class RefusedClients:
    """The clients that are being refused. In the loop's thread only."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: Dict[socket.socket, RefusedClient] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def refuse(self, sock: socket.socket, problem: NetError, begun: bool = False,
               old: Optional[LegacySession] = None) -> None:
        """Tell a client why it is refused. The socket belongs to this object from now on.

        :param begun: whether some of what the client says was received already.
        :param old: what that was, in an old dialect; None in ours.
        """
        try:
            sock.setblocking(False)
            while len(self._waiting) >= MAX_REFUSED:
                self._close(next(iter(self._waiting)))
            self._loop.register(sock, READ, partial(self._receive, sock))
            timer = self._loop.call_later(REFUSAL_TIME, partial(self._close, sock))
        except OSError:
            self._loop.unregister(sock)
            sock.close()
            return
        client = self._waiting[sock] = RefusedClient(sock, problem, timer, old)
        if begun:
            client.begun()
        self._receive(sock)  # most clients have sent something already

    def close(self) -> None:
        """Close them all."""
        for sock in list(self._waiting):
            self._close(sock)

    def abandon(self) -> None:
        """Close our copies in a forked child; the parent still uses its own."""
        for sock in self._waiting:
            sock.close()
        self._waiting.clear()

    def _receive(self, sock: socket.socket, mask: int = READ) -> None:
        client = self._waiting.get(sock)  # another one may have taken its place meanwhile
        if client is not None and not client.receive():
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        client = self._waiting.pop(sock, None)
        if client is not None:
            client.timer.cancel()
            self._loop.unregister(sock)
            client.close()
