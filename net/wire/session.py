"""One connection of the modern wire, as a state machine: bytes in, events out, in both roles.

Nothing in here knows a socket, a thread or a clock. What identifies a connection is its session.

The caller sends a preface and nothing else; the server answers it at once with HELLO, or with a
refusal. Only then does the caller send its first request. So a caller that has received no HELLO
knows that nothing ran there.
"""
from __future__ import annotations

import json
import struct
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Tuple, Union

from ..errors import Address, ProtocolError
from .frames import (CALLER_GREETING, CALLER_OPEN, FAILURE, HELLO, KNOWN, SERVER_OPEN, Buffer,
                     Frame, FrameParser, NotAFrame, pack)
from .limits import Limits
from .memo import Memo

# The first byte is no ASCII and no UTF-8: no text protocol, TLS hello or base64 starts like this.
MAGIC = b"\xabnet"
VERSION = 1
#: Magic, version, a zero, and the bytes of the JSON object that follows.
PREFACE = struct.Struct("!4sBBH")
# Bytes of the fields of a preface. An old peer reads 1,024 bytes in all; if we sent more, its
# answer could be lost.
MAX_FIELDS = 768
#: What a peer says to a caller that speaks a version of the wire other than its own.
OTHER_VERSION = "version {} of the protocol was asked for, this peer speaks version {}"
# Bytes of JSON in a HELLO, and in what is answered to a preface instead.
MAX_HELLO = 16 * 1024
# Characters of a group.
MAX_GROUP = 64


class Preface(NamedTuple):
    """What a caller says about itself before anything else.

    :ivar version: of the wire that it speaks.
    :ivar features: bits of what it can do beyond this version.
    :ivar group: that it claims; None for none.
    :ivar instance: the random id of its process, as it claims; None if it does not say.
    :ivar to: the address that it means to have reached; None if it does not say.
    """

    version: int
    features: int = 0
    group: Optional[str] = None
    instance: Optional[str] = None
    to: Optional[Address] = None


class Hello(NamedTuple):
    """What a server answers to a preface.

    :ivar instance: the random id of its process.
    :ivar features: bits of what it can do beyond this version.
    :ivar limits: ``text`` and ``buffers``, in bytes, of one message that it accepts.
    """

    version: int
    instance: str
    features: int = 0
    limits: Optional[Dict[str, Any]] = None


class Unknown(NamedTuple):
    """A frame of a kind that this version does not have: to be answered with a refusal."""

    kind: int
    number: int


#: What :meth:`Session.receive` gives.
Event = Union[Frame, Hello, Unknown]


def encode_preface(group: Optional[str] = None, features: int = 0,
                   instance: Optional[str] = None, to: Optional[Address] = None) -> bytes:
    """The bytes that a caller begins a connection with."""
    preface: bytes = _prefaces[group, features, instance, to]
    return preface


def _make_preface(what: Tuple[Optional[str], int, Optional[str], Optional[Address]]) -> bytes:
    group, features, instance, to = what
    # Escaped, a group of 64 characters could take more than the limit.
    fields: Dict[str, Any] = {"features": features, "group": group}
    if instance is not None:
        fields["instance"] = instance
    if to is not None:
        fields["to"] = to
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return PREFACE.pack(MAGIC, VERSION, 0, len(text)) + text


# They are the same for one connection after another.
_prefaces = Memo(_make_preface, 64)


class PrefaceParser:
    """The server's side of a connection before the preface. Bytes in, a preface out.

    :ivar rest: what came after the preface.
    """

    def __init__(self) -> None:
        self.rest = b""

    def receive(self, data: bytes) -> Optional[Preface]:
        """Take what was received; None while the preface is not whole.

        :raises NotAFrame: nothing of app-net's begins like this; its ``data`` is all that has come.
        :raises ProtocolError: another version, or fields that make no sense.
        """
        data = self.rest = self.rest + data
        if not MAGIC.startswith(data[:len(MAGIC)]):
            raise NotAFrame(data)
        if len(data) < PREFACE.size:
            return None
        _, version, zero, size = PREFACE.unpack_from(data)
        if version != VERSION:
            raise ProtocolError(None, OTHER_VERSION.format(version, VERSION))
        if zero or size > MAX_FIELDS:
            raise NotAFrame(data)
        end = PREFACE.size + size
        if len(data) < end:
            return None
        self.rest = data[end:]
        return _read_preface(version, _fields(data[PREFACE.size:end], "a preface"))


def _read_preface(version: int, fields: Dict[str, Any]) -> Preface:
    group, features = fields.get("group"), fields.get("features", 0)
    if group is not None and (type(group) is not str or not 0 < len(group) <= MAX_GROUP):
        raise ProtocolError(None, f"a group is a text of at most {MAX_GROUP} characters")
    if type(features) is not int:
        raise ProtocolError(None, "features are a number of bits")
    instance = fields.get("instance")
    if instance is not None and (type(instance) is not str or len(instance) > MAX_GROUP):
        raise ProtocolError(None, f"an instance is a text of at most {MAX_GROUP} characters")
    to = fields.get("to")
    if to is not None:
        if type(to) is not list or list(map(type, to)) != [str, int] or len(to[0]) > MAX_GROUP:
            raise ProtocolError(None, f"an address is a host of at most {MAX_GROUP} characters and "
                                      f"a port")
        to = to[0], to[1]
    return Preface(version, features, group, instance, to)


def _fields(text: bytes, what: str) -> Dict[str, Any]:
    """The named fields of a greeting.

    :raises ProtocolError: it is no JSON object, or might be deeply nested.
    """
    try:
        if text.count(b"{") + text.count(b"[") > 64:
            raise ValueError("nested")
        found = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ProtocolError(None, f"{what} holds no JSON object") from None
    if type(found) is not dict:
        raise ProtocolError(None, f"{what} holds no JSON object")
    return found


class Session(FrameParser):
    """One role of an open connection, or that of a caller that waits for HELLO.

    :meth:`receive` takes bytes and returns the next event: a :class:`Hello`, an :class:`Unknown` or
    a frame; see :class:`~net.wire.frames.FrameParser`. While it waits for HELLO it raises
    :class:`~net.wire.frames.NotAFrame`, whose ``data`` is all that came, for anything that is not
    of this wire. Make one with :func:`caller_session` or :func:`server_session`.

    :ivar hello: what the server has said; None before that, and in the server's role.
    """

    def __init__(self, limits: Limits, kinds: FrozenSet[int],
                 opened: FrozenSet[int] = frozenset()) -> None:
        super().__init__(limits, kinds)
        self.hello: Optional[Hello] = None
        # The limits and kinds that count once HELLO has come.
        self._opened = (limits.text, limits.buffers, opened)
        self._greeting = bool(opened)
        if self._greeting:
            self._max_text, self._max_buffers = MAX_HELLO, 0

    def _cut(self, data: bytes) -> Optional[Frame]:
        if self._greeting and self._partial is None:
            # A wrong first byte is refused at once; waiting for eleven more could take for ever.
            come = self.rest[self._at:] + data
            if come and come[0] not in CALLER_GREETING:
                raise NotAFrame(come)
        return super()._cut(data)

    def allow(self, kinds: FrozenSet[int], limits: Optional[Limits] = None) -> None:
        """Let other kinds come from now on, as where a connection begins to carry events.

        :param limits: of one message, from now on; None to leave them as they are.
        """
        self._expect(kinds)
        if limits is not None:
            self._max_text, self._max_buffers = limits.text, limits.buffers

    def other(self, frame: Frame) -> Any:
        if self._greeting and frame.kind == HELLO:
            return self._open(frame)
        if frame.kind not in KNOWN and not self._greeting:
            return Unknown(frame.kind, frame.number)
        raise ProtocolError(None, f"a frame of kind {frame.kind} may not come now")

    def _open(self, frame: Frame) -> Hello:
        fields = _fields(frame.text, "HELLO")
        version, instance = fields.get("version"), fields.get("instance")
        features, limits = fields.get("features", 0), fields.get("limits")
        if type(version) is not int or type(instance) is not str or type(features) is not int \
                or len(instance) > MAX_GROUP:
            raise ProtocolError(None, "HELLO tells a version, an instance and features")
        self._greeting = False
        self._max_text, self._max_buffers, opened = self._opened
        self._expect(opened)
        self.hello = Hello(version, instance, features, limits if type(limits) is dict else None)
        return self.hello


def caller_session(limits: Limits, kinds: FrozenSet[int] = CALLER_OPEN) -> Session:
    """The caller's side of a connection, which waits for HELLO.

    :param kinds: of the frames that may come once it is open.
    """
    return Session(limits, frozenset((FAILURE,)), kinds)


def server_session(limits: Limits, kinds: FrozenSet[int] = SERVER_OPEN) -> Session:
    """The server's side of a connection, once its preface has come."""
    return Session(limits, kinds)


def encode_hello(instance: str, limits: Limits, features: int = 0) -> List[Buffer]:
    """The frame that answers a preface, with what one message to this peer may hold."""
    return pack(HELLO, 0, _hellos[instance, limits, features])


def _make_hello(what: Tuple[str, Limits, int]) -> bytes:
    instance, limits, features = what
    content = json.dumps({
        "version": VERSION, "instance": instance, "features": features,
        "limits": {"text": limits.text, "buffers": limits.buffers}}, separators=(",", ":"))
    return content.encode("ascii")


_hellos = Memo(_make_hello, 16)
