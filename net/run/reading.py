"""The blocking reader: pulls from a stream what a session needs for its next event."""
from __future__ import annotations

from typing import Optional, Union

from ..link.streams import Stream, Timed
from ..wire.frames import CHUNK, EndOfStream
from ..wire.session import Event, Session


def next_event(stream: Union[Stream, Timed], session: Session) -> Event:
    """Wait for the next event of a session.

    :raises EndOfStream: there is none, or only its beginning.
    :raises NetError: what :meth:`Session.receive` raises.
    """
    event = session.receive(b"" if session.rest else stream.recv_first())
    return rest_of_event(stream, session) if event is None else event


def rest_of_event(stream: Union[Stream, Timed], session: Session) -> Event:
    """Wait for the rest of an event of which something has come.

    :raises EndOfStream: there is no more.
    :raises NetError: what :meth:`Session.receive` raises.
    """
    while True:
        missing = session.missing
        if missing is not None:
            prefix, size = missing
            event: Optional[Event] = session.fill(stream.recv_exactly(size, prefix))
        else:
            data = stream.recv(CHUNK)
            if not data:
                raise EndOfStream(session.held)
            event = session.receive(data)
        if event is not None:
            return event
