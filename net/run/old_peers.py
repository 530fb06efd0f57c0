"""Old programs as the caller knows them: a connection for each call, in the dialect of an address.

The answer of an old program to our preface, which it cannot read, shows its dialect. This is
remembered, because each preface makes the program print an error on its console.
"""
from __future__ import annotations

import socket
from time import monotonic
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, final

from ..errors import Address, CallTimeout, NetError, PeerLost, PeerUnreachable, ProtocolError
from ..identity import Flag, tag_for_old_peer
from ..link.streams import Deadline, Stream, Timed
from ..settings import Settings
from ..wire import legacy
from ..wire.frames import CHUNK
from ..wire.legacy import BASE64, INFO, INVALID_CONNECTION, LegacySession, Reply

# Seconds after which a call checks whether a newer program is at the address by now. It asks in the
# old dialect, so that an old program is not disturbed.
OLD_TIME = 45.0
# Seconds for the answer.
LOOK_TIME = 3.0
# Seconds for the rest of the answer to our preface, once it has begun.
ANSWER_TIME = 1.0


@final
class OldPeer:
    """An old program at an address. Any thread may call.

    :param connect: gives a new connection to it.
    :param old_tag: gives the tag that old programs have for a function of this process.
    :ivar dialect: that it speaks.
    :ivar doubted: whether a newer program has seemed to be there since the last check.
    """

    def __init__(self, address: Address, dialect: str, settings: Settings,
                 connect: Callable[[Optional[Deadline]], Stream],
                 old_tag: Callable[[bytes], bytes] = lambda tag: tag) -> None:
        self.address = address
        self.dialect = dialect
        self._settings = settings
        self._connect = connect
        self._old_tag = old_tag
        self._look_at = monotonic() + OLD_TIME
        self.doubted = False

    def doubt(self) -> None:
        """Note that a newer program seems to be there: the next call checks that first."""
        self.doubted = True

    def seen(self, dialect: str) -> None:
        """Note that it has just answered in this dialect."""
        self.dialect = dialect
        self._look_at = monotonic() + OLD_TIME

    def is_gone(self, deadline: Optional[Deadline]) -> bool:
        """Whether a newer program may have taken its place. Asks the program now and then, and when
        there is doubt; nothing but its ``info`` runs there.

        :raises PeerUnreachable: no peer answers there.
        """
        if self._settings.secured:
            return True  # what is sent now is only for peers with the secret
        # Before it is asked: another thread may doubt meanwhile.
        doubted, self.doubted = self.doubted, False
        if monotonic() < self._look_at and not doubted:
            return False
        self._look_at = monotonic() + OLD_TIME
        try:
            seconds = LOOK_TIME if deadline is None else min(LOOK_TIME, deadline.remaining())
            info = self._ask(self.address, INFO, (), {}, Deadline(seconds), True)
        except (socket.timeout, CallTimeout):
            self.doubted |= doubted
            return False  # the call itself will say so
        except PeerUnreachable:
            raise
        except PeerLost:
            return True  # as newer programs end what they do not answer
        except NetError:
            return False  # it answers, although with nonsense
        # No old program has such a member.
        return isinstance(info, dict) and "instance" in info

    def call(self, peer: object, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
             deadline: Optional[Deadline]) -> Any:
        """Run a function on it.

        :returns: what it returned; a Flag if it returned one.
        :raises ValueNotSupported, MessageTooLarge: nothing was sent.
        :raises NetError: as the tree in errors.py says.
        """
        for other in (tag, *self._other_tags(tag)):
            value = self._ask(peer, other, args, kwargs, deadline, True)
            if type(value) is not Flag or value != INVALID_CONNECTION:
                break  # else nothing ran
        return value

    def _other_tags(self, tag: bytes) -> Iterator[bytes]:
        """The other tags by which it may know a function."""
        old = self._old_tag(tag)
        if old == tag and self.dialect == BASE64:
            yield legacy.wrapped(tag)
        for other in dict.fromkeys((old, tag_for_old_peer(old))):
            if other != tag:
                yield other

    def _ask(self, peer: object, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
             deadline: Optional[Deadline], again: bool) -> Any:
        limits = self._settings.limits
        session = LegacySession(self.dialect, limits)
        reply = self._exchange(session, session.call(tag, args, kwargs), deadline)
        try:
            return reply.value(peer, tag, limits)
        except ProtocolError as problem:
            dialect = legacy.dialect_of(reply.data)
            if not again or dialect in ("", session.dialect):
                raise ProtocolError(self.address, problem.reason, "maybe") from None
        # A program of the other dialect has taken its place. It could not read the request.
        self.seen(dialect)
        return self._ask(peer, tag, args, kwargs, deadline, False)

    def _exchange(self, session: LegacySession, request: bytes,
                  deadline: Optional[Deadline]) -> Reply:
        stream = self._connect(deadline)
        try:
            stream.sock.settimeout(None)
            timed = stream if deadline is None else Timed(stream, deadline)
            timed.send([request])
            reply: Any = None
            while reply is None:
                reply = session.receive(timed.recv(CHUNK))
            leave_no_trace(stream)
        except socket.timeout:
            assert deadline is not None
            raise CallTimeout(self.address, deadline.seconds) from None
        except OSError as problem:
            self._look_at = 0.0
            raise PeerLost(self.address, str(problem)) from problem
        finally:
            stream.close()
        if not reply.data:
            self._look_at = 0.0
            raise PeerLost(self.address, "the peer closed the connection without a reply")
        return reply  # type: ignore[no-any-return]


def leave_no_trace(stream: Stream) -> None:
    """Have a connection whose reply has come end with a reset. An old program ends each connection
    itself, so its port would be taken for another minute, and it would move to another one when it
    is restarted."""
    stream.reset_at_end(True)


def dialect_behind(stream: Stream, data: bytes, deadline: Deadline) -> str:
    """The dialect of an old program whose answer to our preface begins with ``data``; empty if it
    is no old program."""
    try:
        timed = Timed(stream, Deadline(min(ANSWER_TIME, deadline.remaining())))
        # Most answers are objects, which are whole by themselves.
        while legacy.may_be_old(data) and not legacy.is_whole(data):
            piece = timed.recv(CHUNK)
            if not piece:
                break
            data += piece
    except OSError:
        pass  # old programs reset a connection of which they have not read all
    return legacy.dialect_of(data)
