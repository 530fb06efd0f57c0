"""Deliveries: the call that brings events to a subscriber.

An event is turned into text once, whoever will get it: ``,"name",7,[...],{...}`` with its place in
the sequence of all events of that name. A delivery is a call of :data:`DELIVER` whose arguments
are the publisher, a size, and the texts of one or more events side by side, four arguments each.
With None as args, and a tag in place of kwargs, the four say that the handler of that tag hears
the event from here on, or rather from the number after this one.
"""
from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import MessageTooLarge, ProtocolError
from ..identity import encode_text
from .frames import Buffer, CALL
from .frames import pack as pack_frame
from .limits import Limits
from .values import DIGITS, Packed, Packer, encode_plain, fits, is_plain, unpack

DELIVER = encode_text("net.events.deliver")

# Bytes of the text of several events in one call. More would not make it cheaper, and a subscriber
# would get them later.
MAX_JOINED = 64 * 1024
# Bytes of JSON that a delivery has besides its events' arguments: tag, publisher, a long name.
ROOM = 1024

_HEAD = f'{{"tag":{encode_plain(DELIVER.decode("ascii"))},"args":['
_TAIL = b'],"kwargs":{}}'


class Events(NamedTuple):
    """Events of one name, or the beginning of a subscription, ready to be sent to anyone.

    :ivar total: how many; 0 for the beginning of a subscription.
    :ivar size: bytes, of text and buffers.
    """

    name: str
    total: int
    text: bytes
    tagged: bool = False
    buffers: Sequence[bytes] = ()
    size: int = 0

    @property
    def joinable(self) -> bool:
        """Whether others may share their call. An event that a subscriber may fail to read travels
        alone."""
        return not self.tagged and not self.buffers


#: Name, sequence, args and kwargs of an event; or None and a tag in place of the latter two.
Entry = Tuple[str, int, Optional[List[Any]], Any]
#: An event that is not yet text: name, sequence, and what :func:`pack_arguments` gave.
Triggered = Tuple[str, int, Packed]


def pack_arguments(args: Sequence[Any], kwargs: Dict[str, Any],
                   limits: Limits = Limits()) -> Packed:
    """The values of an event as text, ``[...],{...}``, with buffers of their own.

    What it gives does not change when the values do.

    :raises ValueNotSupported: something in it cannot travel; says where.
    :raises MessageTooLarge: over the limit of JSON text or of buffers.
    """
    packed = _pack_plain(args, kwargs, limits)
    if packed is None:
        packer = Packer(limits)
        # Depth -1: args and kwargs are not containers of the caller's.
        tree = [packer.under("args", lambda: packer.items(args, -1)),
                packer.under("kwargs", lambda: packer.named(kwargs, -1))]
        text, _, buffers = packer.packed(tree, "the event")
        packed = Packed(text[1:-1], True, [bytes(buffer) for buffer in buffers])
    if len(packed.text) + ROOM > limits.text:
        raise MessageTooLarge("JSON text of an event, in bytes", len(packed.text),
                              limits.text - ROOM, "NET_MAX_TEXT")
    return packed


def _pack_plain(args: Sequence[Any], kwargs: Dict[str, Any],
                limits: Limits) -> Optional[Packed]:
    if not is_plain(args, limits) or not is_plain(kwargs, limits):
        return None
    try:
        text = f"{encode_plain(args)},{encode_plain(kwargs)}"
    except ValueError:
        return None  # an int of more digits than Python converts
    return Packed(text) if len(text) < DIGITS or fits(text, limits) else None


def size_of(values: Packed) -> int:
    """Bytes of text and buffers, about."""
    return len(values.text) + sum(map(len, values.buffers))


def join(triggered: Iterable[Triggered]) -> Iterator[Events]:
    """Events as they are sent: those of one name that follow each other are joined."""
    texts: List[str] = []
    name, room = "", 0
    for event, sequence, values in triggered:
        size = size_of(values)
        if texts and (event != name or values.tagged or size > room):
            yield _joined(name, texts)
            texts = []
        if not texts:
            name, room = event, MAX_JOINED
        texts.append(f",{encode_plain(event)},{sequence},{values.text}")
        room -= size
        if values.tagged:
            yield _joined(name, texts, True, [bytes(buffer) for buffer in values.buffers])
            texts = []
    if texts:
        yield _joined(name, texts)


def _joined(name: str, texts: List[str], tagged: bool = False,
            buffers: Sequence[bytes] = ()) -> Events:
    text = "".join(texts).encode("utf-8", "surrogatepass")
    return Events(name, len(texts), text, tagged, buffers, len(text) + sum(map(len, buffers)))


def make_beginning(name: str, sequence: int, tag: bytes) -> Events:
    """What tells a subscriber that the handler of a tag hears what comes after ``sequence``."""
    text = f',{encode_plain(name)},{sequence},null,"{tag.decode("ascii")}"'.encode("utf-8")
    return Events(name, 0, text, size=len(text))


def encode_delivery(publisher: str, events: Sequence[Events] = ()) -> List[Buffer]:
    """The bytes of a call with events: any joinable ones, or one that is not, or none at all.

    :param publisher: the random id of the publisher's process.
    """
    size = sum([some.size for some in events])
    head = f'{_HEAD}"{publisher}",{size}'.encode("ascii")
    text = b"".join([head, *[some.text for some in events], _TAIL])
    buffers = events[0].buffers if len(events) == 1 else ()
    return pack_frame(CALL, 0, text, len(events) == 1 and events[0].tagged, buffers)


def entries(values: Sequence[Any]) -> Iterator[Entry]:
    """The events of a delivery, from the arguments after publisher and size.

    :raises ProtocolError: not what :func:`encode_delivery` makes.
    """
    if len(values) % 4:
        raise ProtocolError(None, "an event is a name, a number, args and kwargs")
    parts = iter(values)
    for name, sequence, args, kwargs in zip(parts, parts, parts, parts):
        if type(name) is not str or type(sequence) is not int:
            raise ProtocolError(None, "an event has a name and a number")
        if type(kwargs) is not (str if args is None else dict) \
                or args is not None and type(args) is not list:
            raise ProtocolError(None, "an event's args are a list and its kwargs an object")
        yield name, sequence, args, kwargs


def values_of(events: Events, limits: Limits = Limits()) -> List[Entry]:
    """The events one by one, for a peer that is called with each."""
    return list(entries(unpack(b"[" + events.text[1:] + b"]", events.tagged, events.buffers,
                               limits)))
