"""Events as they travel: what a subscriber asks for, and the frames that bring it.

An event is encoded once for all its subscribers, as ``"name",7,[...],{...}``: the number is its
place in the sequence of all events of that name. An EVENT frame holds the texts of one or more
events side by side, four values each, in a JSON array.
"""
from __future__ import annotations

from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence,
                    Tuple)

from ..errors import Address, MessageTooLarge, ProtocolError
from .frames import EVENT, FAILED, RESULT, SUBSCRIBE, TAKEN, UNSUBSCRIBE, Buffer, Frame
from .frames import pack as pack_frame
from .limits import Limits
from .values import (DIGITS, Packed, Packer, are_named_scalars, are_scalars, encode_plain, fits,
                     plain_text, unpack)

# Bytes of the text of several events in one frame. More would make it no cheaper, and subscribers
# would get them later.
MAX_JOINED = 64 * 1024
# Bytes of JSON that an EVENT frame may need besides the arguments of an event: for a long name.
ROOM = 1024
# Characters of an event's name, which travels with each event.
MAX_NAME = 200
# Characters of a handler's tag, base64 of a module and a qualified name.
MAX_TAG = 1024
# Largest number of an event.
MAX_SEQUENCE = 2 ** 63 - 1
# Bytes of JSON in a frame that a subscriber sends. The largest one lists failures of handlers: at
# most so many, of some hundred characters each.
MAX_REQUEST = 256 * 1024
MAX_FAILURES = 100
# Places where a subscriber may be connected already, in one SUBSCRIBE frame.
MAX_PLACES = 16

#: Event and tag of a handler.
Pair = Tuple[str, bytes]
#: Name, sequence, args and kwargs of an event.
Entry = Tuple[str, int, List[Any], Dict[str, Any]]
#: An event that is not yet text: name, sequence, and what :func:`pack_arguments` gave.
Triggered = Tuple[str, int, Packed]


class Events(NamedTuple):
    """Events of one name that follow each other, ready to be sent to any subscriber.

    :ivar total: how many there are.
    :ivar size: bytes of text and buffers.
    """

    name: str
    total: int
    text: bytes
    tagged: bool = False
    buffers: Sequence[bytes] = ()
    size: int = 0

    @property
    def joinable(self) -> bool:
        """Whether other events may share their frame. An event that a subscriber may be unable to
        read travels alone."""
        return not self.tagged and not self.buffers


class Subscribe(NamedTuple):
    """What a SUBSCRIBE frame asks for.

    :ivar port: the port on which the subscriber serves; None if it does not. People know it by
        that.
    :ivar places: the subscriber's ends of its other connections to what claims to be the same
        process.
    """

    pair: Pair
    port: Optional[int]
    places: List[Address]


# ------------------------------------------------------------------- values become frames


def pack_arguments(args: Sequence[Any], kwargs: Dict[str, Any],
                   limits: Limits = Limits()) -> Packed:
    """The values of an event as text, ``[...],{...}``, with buffers of their own.

    What this returns does not change when the values do.

    :raises ValueNotSupported: something in it cannot travel; the error says where.
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
    of_args = _container(args, are_scalars(args), limits)
    of_kwargs = None if of_args is None else "{}" if not kwargs else \
        _container(kwargs, are_named_scalars(kwargs), limits)
    if of_args is None or of_kwargs is None:
        return None
    text = f"{of_args},{of_kwargs}"
    return Packed(text) if len(text) < DIGITS or fits(text, limits) else None


def _container(values: Any, scalars: bool, limits: Limits) -> Optional[str]:
    if not scalars:
        return plain_text(values, values, limits)
    try:  # the common small event: no containers to check
        return encode_plain(values)
    except ValueError:
        return None  # an int of more digits than Python converts


def size_of(values: Packed) -> int:
    """Roughly the bytes of text and buffers."""
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
        texts.append(f"{encode_plain(event)},{sequence},{values.text}")
        room -= size
        if values.tagged:
            yield _joined(name, texts, True, [bytes(buffer) for buffer in values.buffers])
            texts = []
    if texts:
        yield _joined(name, texts)


def _joined(name: str, texts: List[str], tagged: bool = False,
            buffers: Sequence[bytes] = ()) -> Events:
    text = ",".join(texts).encode("utf-8", "surrogatepass")
    return Events(name, len(texts), text, tagged, buffers, len(text) + sum(map(len, buffers)))


def encode_events(number: int, events: Sequence[Events]) -> List[Buffer]:
    """The bytes of an EVENT frame: of any joinable events, or of one that is not.

    :param number: of the frame, among those of its connection.
    """
    first = events[0]
    text = b"[%b]" % b",".join([some.text for some in events])
    return pack_frame(EVENT, number, text, first.tagged, first.buffers)


def encode_subscribe(number: int, request: Subscribe) -> List[Buffer]:
    """The bytes of a SUBSCRIBE frame."""
    event, tag = request.pair
    fields: Dict[str, Any] = {"event": event, "tag": tag.decode("ascii")}
    if request.port is not None:
        fields["port"] = request.port
    if request.places:
        fields["places"] = request.places[:MAX_PLACES]
    return _plain(SUBSCRIBE, number, fields)


def encode_subscribed(number: int, sequence: Optional[int]) -> List[Buffer]:
    """The bytes of the reply to a SUBSCRIBE frame.

    :param sequence: the number of the last event that the handler does not hear; None if it is
        subscribed over another connection already.
    """
    return _plain(RESULT, number, sequence)


def encode_unsubscribe(pair: Pair) -> List[Buffer]:
    """The bytes of an UNSUBSCRIBE frame, which has no reply."""
    return _plain(UNSUBSCRIBE, 0, {"event": pair[0], "tag": pair[1].decode("ascii")})


def encode_taken(number: int, problem: Optional[str] = None) -> List[Buffer]:
    """The bytes of a TAKEN frame.

    :param number: of the last EVENT frame that was taken.
    :param problem: why the events of that frame could not be read; None if they could.
    """
    return _plain(TAKEN, number, problem)


def encode_failed(failures: Sequence[Sequence[str]], more: int) -> List[Buffer]:
    """The bytes of a FAILED frame.

    :param failures: the event, the tag and the text of each.
    :param more: how many more there were.
    """
    return _plain(FAILED, 0, {"failures": failures, "more": more})


def _plain(kind: int, number: int, content: Any) -> List[Buffer]:
    return pack_frame(kind, number, encode_plain(content).encode("utf-8", "surrogatepass"))


# ------------------------------------------------------------------- frames become values


def read_events(frame: Frame, limits: Limits = Limits(),
                charge: Optional[Callable[[int], None]] = None) -> Iterator[Entry]:
    """The events of an EVENT frame.

    :param charge: called with bytes of memory, as :func:`~.values.unpack` does.
    :raises ProtocolError: not what :func:`encode_events` makes.
    :raises ValueNotSupported: an argument of a class or library that this process lacks.
    """
    return entries(unpack(frame.text, frame.tagged, frame.buffers, limits, charge=charge))


def entries(values: Any) -> Iterator[Entry]:
    """The events of a list that has four values for each.

    :raises ProtocolError: the list is not like that.
    """
    if type(values) is not list or len(values) % 4:
        raise ProtocolError(None, "events are a list: name, number, args and kwargs of each")
    parts = iter(values)
    for name, sequence, args, kwargs in zip(parts, parts, parts, parts):
        if type(name) is not str or type(sequence) is not int or sequence > MAX_SEQUENCE:
            raise ProtocolError(None, "an event has a name and a number")
        if type(args) is not list or type(kwargs) is not dict:
            raise ProtocolError(None, "an event's args are a list and its kwargs an object")
        yield name, sequence, args, kwargs


def values_of(events: Events, limits: Limits = Limits()) -> List[Entry]:
    """The events one by one, for a peer that is called with each."""
    return list(entries(unpack(b"[%b]" % events.text, events.tagged, events.buffers, limits)))


def read_subscribe(frame: Frame) -> Subscribe:
    """What a SUBSCRIBE frame asks for.

    :raises ProtocolError: not what :func:`encode_subscribe` makes.
    """
    content = _read(frame)
    pair = _read_pair(content)
    port, places = content.get("port"), content.get("places", [])
    if port is not None and (type(port) is not int or not 0 < port < 2 ** 16):
        raise ProtocolError(None, "the port of a subscriber is a number up to 65,535")
    if type(places) is not list or len(places) > MAX_PLACES:
        raise ProtocolError(None, f"the places of a subscription are at most {MAX_PLACES}")
    return Subscribe(pair, port, [_read_place(place) for place in places])


def _read_place(place: Any) -> Address:
    if type(place) is list and len(place) == 2 and type(place[0]) is str \
            and type(place[1]) is int:
        return place[0], place[1]
    raise ProtocolError(None, "a place is a host and a port")


def read_subscribed(frame: Frame) -> Optional[int]:
    """The sequence number of the reply to a SUBSCRIBE frame.

    :raises ProtocolError: not what :func:`encode_subscribed` makes.
    """
    sequence = _read(frame)
    if sequence is None or type(sequence) is int and 0 <= sequence <= MAX_SEQUENCE:
        return sequence
    raise ProtocolError(None, "a subscription begins after the number of an event")


def read_unsubscribe(frame: Frame) -> Pair:
    """The event and the handler of an UNSUBSCRIBE frame.

    :raises ProtocolError: not what :func:`encode_unsubscribe` makes.
    """
    return _read_pair(_read(frame))


def read_taken(frame: Frame) -> Optional[str]:
    """Why the last events that were taken could not be read; None if they could.

    :raises ProtocolError: not what :func:`encode_taken` makes.
    """
    problem = _read(frame)
    if problem is None or type(problem) is str:
        return problem
    raise ProtocolError(None, "the acknowledgement of events is a text or nothing")


def read_failed(frame: Frame) -> Tuple[List[Tuple[Pair, str]], int]:
    """The failures of a FAILED frame, and how many more there were.

    :raises ProtocolError: not what :func:`encode_failed` makes.
    """
    content = _read(frame)
    failures = content.get("failures") if type(content) is dict else None
    more = content.get("more", 0) if failures is not None else None
    if type(failures) is not list or len(failures) > MAX_FAILURES \
            or type(more) is not int or not 0 <= more <= MAX_SEQUENCE:
        raise ProtocolError(None, f"failures are at most {MAX_FAILURES} and the number of more")
    return [_read_failure(failure) for failure in failures], more


def _read_failure(failure: Any) -> Tuple[Pair, str]:
    if type(failure) is not list or len(failure) != 3 or set(map(type, failure)) != {str}:
        raise ProtocolError(None, "a failure is an event, a tag and a text")
    return _read_pair({"event": failure[0], "tag": failure[1]}), failure[2]


def _read(frame: Frame) -> Any:
    """The plain value of a frame."""
    if frame.tagged or frame.buffers:
        raise ProtocolError(None, "a subscriber and its publisher talk in plain JSON")
    return unpack(frame.text, False, ())


def _read_pair(content: Any) -> Pair:
    if type(content) is not dict:
        raise ProtocolError(None, "a subscription is an object of event and tag")
    event, tag = content.get("event"), content.get("tag")
    if type(event) is not str or not event.isprintable() or not 0 < len(event) <= MAX_NAME:
        raise ProtocolError(None, f"the name of an event is 1 to {MAX_NAME} printable characters")
    if type(tag) is not str or not tag.isascii() or not 0 < len(tag) <= MAX_TAG:
        raise ProtocolError(None, f"a tag is base64 of at most {MAX_TAG} characters")
    return event, tag.encode("ascii")
