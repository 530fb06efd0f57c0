"""Connections on which requests follow each other without waiting for the replies.

One thread looks after any number of them; nothing in here waits for a single peer.
"""
from __future__ import annotations

import selectors
import socket
from collections import deque
from typing import Any, Deque, List, Optional, Sequence

from ..errors import MessageTooLarge, ProtocolError
from ..wire.frames import Buffer, EndOfStream, Frame
from .client import Connection

# Bytes of one reply. Nobody waits for these, so there is no use for more than an error.
MAX_REPLY = 256 * 1024
CHUNK = 64 * 1024


class Pipeline:
    """A connection to a peer for many requests at once. For one thread.

    :param connection: belongs to the pipeline from here on.
    :param owner: whatever the user wants to find again.
    """

    def __init__(self, connection: Connection, owner: Any = None) -> None:
        self.owner = owner
        self._connection = connection
        self._stream = connection.stream
        self._stream.sock.setblocking(False)
        self._outgoing: Deque[memoryview] = deque()

    def fileno(self) -> int:
        return self._stream.sock.fileno()

    @property
    def writing(self) -> bool:
        """Whether something is left that the socket did not take yet."""
        return bool(self._outgoing)

    def send(self, message: Sequence[Buffer]) -> None:
        """Send a request; what the socket does not take now goes with :meth:`write`.

        :raises OSError: the connection broke.
        """
        self._outgoing.extend(map(memoryview, message))
        self.write()

    def write(self) -> None:
        """Go on sending.

        :raises OSError: the connection broke.
        """
        while self._outgoing:
            piece = self._outgoing[0]
            sent = self._stream.send_some(piece)
            if not sent:
                return
            if sent < len(piece):
                self._outgoing[0] = piece[sent:]
            else:
                self._outgoing.popleft()

    def replies(self) -> List[Frame]:
        """The replies that have come since, in the order of the requests.

        :raises EndOfStream: the peer has closed the connection.
        :raises OSError: the connection broke.
        :raises ProtocolError: what came is no reply.
        """
        found: List[Frame] = []
        while True:
            data = self._stream.recv_some(CHUNK)
            if data is None:
                return found
            if not data:
                raise EndOfStream(self._connection.session.held)
            try:
                self._take(data, found)
            except MessageTooLarge as problem:
                raise ProtocolError(None, str(problem)) from None

    def _take(self, data: bytes, found: List[Frame]) -> None:
        session = self._connection.session
        event: Any = session.receive(data)
        while event is not None:
            if type(event) is not Frame:
                raise ProtocolError(None, "an unknown kind of reply")
            found.append(event)
            event = session.receive(b"")
        if session.held > MAX_REPLY:
            raise ProtocolError(None, f"a reply of more than {MAX_REPLY:,} bytes")

    def close(self) -> None:
        """Close the connection; what was not sent is lost."""
        self._outgoing.clear()
        self._connection.close()


class Pipelines:
    """Waits for any of many pipelines. For one thread, but for :meth:`wake`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._awake, self._waker = socket.socketpair()
        for sock in (self._awake, self._waker):
            sock.setblocking(False)
        self._selector.register(self._awake, selectors.EVENT_READ)

    def add(self, pipeline: Pipeline) -> None:
        self._selector.register(pipeline, selectors.EVENT_READ, pipeline)

    def remove(self, pipeline: Pipeline) -> None:
        """Wait for this one no more. It must not be closed yet."""
        self._selector.unregister(pipeline)

    def wait(self, timeout: Optional[float], writing: Sequence[Pipeline]) -> List[Pipeline]:
        """Those that can go on reading or writing.

        :param timeout: seconds, None for ever. :meth:`wake` ends the wait, too.
        :param writing: those that have something left to send.
        """
        for pipeline in writing:
            self._selector.modify(pipeline, selectors.EVENT_READ | selectors.EVENT_WRITE, pipeline)
        ready = [key.data for key, _ in self._selector.select(timeout)]
        for pipeline in writing:
            self._selector.modify(pipeline, selectors.EVENT_READ, pipeline)
        if None in ready:
            ready.remove(None)
            self._sleep_again()
        return ready

    def wake(self) -> None:
        """Let the waiting thread go on. Any thread may call."""
        try:
            self._waker.send(b"x")
        except OSError:
            pass  # it is awake already, or closed

    def _sleep_again(self) -> None:
        try:
            self._awake.recv(CHUNK)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop waiting. The pipelines are not closed."""
        self._selector.close()
        self._awake.close()
        self._waker.close()
