"""A call and its three replies, as frames and as values.

The tag is the first field of a call, so that a server finds the function before it makes any value
from the rest.
"""
from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import (Address, NetError, ProtocolError, ValueNotSupported, from_refusal,
                      to_refusal)
from ..identity import Flag, address_of, printable
from .checks import a_text, an_object, is_of_the_data
from .failures import describe, rebuild, throw
from .frames import (ANSWER, ASK, CALL, CHUNK, END, FAILURE, FLAG, HEADER, ITEM, RESULT, TAKEN,
                     Buffer, Fields, Frame)
from .frames import pack as pack_frame
from .limits import Limits
from .memo import Memo
from .values import (BITS, DIGITS, LONG, LONG_TEXT, SCALARS, UNBOUNDED, Packed, Packer,
                     are_named_scalars, are_scalars, encode_plain, fits, lay_out, only_text, pack,
                     plain_text, scalar, unpack)


class Call(NamedTuple):
    """A request to run the function of a tag.

    :ivar seconds: how long the caller will wait; None for no limit.
    """

    tag: bytes
    args: List[Any]
    kwargs: Dict[str, Any]
    seconds: Optional[float] = None


#: The ``args``, ``kwargs`` and ``seconds`` of a :class:`Call`, of which a server has the tag.
Arguments = Tuple[List[Any], Dict[str, Any], Optional[float]]


def _message(kind: int, number: int, text: str, tagged: bool = False,
             buffers: Sequence[Buffer] = ()) -> List[Buffer]:
    data = text.encode("utf-8", "surrogatepass")
    if not buffers and len(data) < CHUNK:
        return [HEADER.pack(kind, tagged, 0, number, len(data)) + data]  # nearly every message
    return pack_frame(kind, number, data, tagged, buffers)


#: Tag -> the text of a call up to its arguments.
_beginnings = Memo(
    lambda tag: f'{{"tag":{encode_plain(tag.decode("ascii"))},"args":', 1024)
#: Tag -> the whole text of a call whose only argument is a text beside the JSON.
_calls_of_a_text = Memo(
    lambda tag: f'{_beginnings[tag]}[{{"!str":0}}],"kwargs":{{}}}}'.encode("ascii"), 1024)


# Characters from which on a text that is the only argument, or the result, travels beside the JSON.
# Among other values only longer texts do, since that takes more steps.
ALONE = 256


def encode_call(number: int, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
                limits: Limits = Limits(), seconds: Optional[float] = None,
                packer: Optional[Packer] = None) -> List[Buffer]:
    """The bytes of a call: a frame up to its buffers, then each buffer.

    :param number: of the call, which its reply will carry.
    :param seconds: how long the caller will wait; None, or more than a billion, for no limit.
    :param packer: for arguments of which some are lent; None if none is.
    :raises ValueNotSupported: an argument cannot travel; the error says where it is.
    :raises MessageTooLarge: over a limit.
    """
    end = "}"
    if seconds is not None:
        if seconds > MAX_SECONDS:
            seconds = None
        else:
            end = f',"seconds":{seconds!r}}}'
    if packer is not None:
        return _encode_tagged_call(number, tag, args, kwargs, packer, seconds)
    if len(args) == 1 and not kwargs and type(args[0]) is str and len(args[0]) >= ALONE:
        return _encode_text(number, tag, args, limits, seconds)
    if are_scalars(args) and (not kwargs or are_named_scalars(kwargs)):
        # The common small call: no containers to check.
        try:
            named = encode_plain(kwargs) if kwargs else "{}"
            text = f'{_beginnings[tag]}{encode_plain(args)},"kwargs":{named}{end}'
            if len(text) < DIGITS:
                data = text.encode("utf-8", "surrogatepass")
                return [HEADER.pack(CALL, 0, 0, number, len(data)) + data]
            if fits(text, limits):
                return _message(CALL, number, text)
        except ValueError:
            pass  # an int of more digits than Python converts
    return _encode_quickly(number, tag, args, kwargs, limits, end) or \
        _encode_tagged_call(number, tag, args, kwargs, Packer(limits), seconds)


def _encode_text(number: int, tag: bytes, args: Tuple[Any, ...], limits: Limits,
                 seconds: Optional[float]) -> List[Buffer]:
    """A call with one text and nothing else."""
    data = args[0].encode("utf-8", "surrogatepass")
    if len(data) > limits.buffers:
        return _encode_tagged_call(number, tag, args, {}, Packer(limits), seconds)
    text = _calls_of_a_text[tag]
    if seconds is not None:
        text = b'%b,"seconds":%b}' % (text[:-1], repr(seconds).encode("ascii"))
    return pack_frame(CALL, number, text, True, [data])


def _encode_quickly(number: int, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
                    limits: Limits, end: str) -> Optional[List[Buffer]]:
    """A call whose arguments are plain JSON, or, in part, long texts; None for any other, and for
    one that is too long."""
    laid_out = lay_out(args, limits) if not kwargs and SCALARS.issuperset(map(type, args)) else None
    if laid_out is not None:
        text = f'{_beginnings[tag]}{laid_out.text},"kwargs":{{}}{end}'
        if len(text) <= limits.text:
            return _message(CALL, number, text, True, laid_out.buffers)
    of_args = plain_text(args, args, limits)
    if of_args is None:
        return None
    of_kwargs = plain_text(kwargs, kwargs, limits) if kwargs else "{}"
    if of_kwargs is None:
        return None
    text = f'{_beginnings[tag]}{of_args},"kwargs":{of_kwargs}{end}'
    return _message(CALL, number, text) if len(text) < DIGITS or fits(text, limits) else None


def _encode_tagged_call(number: int, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
                        packer: Packer, seconds: Optional[float]) -> List[Buffer]:
    # Depth -1: args and kwargs are not containers of the caller's.
    tree: Dict[str, Any] = {
        "tag": tag.decode("ascii"),
        "args": packer.under("args", lambda: packer.items(args, -1)),
        "kwargs": packer.under("kwargs", lambda: packer.named(kwargs, -1))}
    if seconds is not None:
        tree["seconds"] = seconds
    return _message(CALL, number, *packer.packed(tree, "the arguments"))


# What a call begins with, as we send it, and with the white space that JSON allows; and bytes of
# its tag at most.
_BEGINNING = b'{"tag":"'
_SPACED = rb'\{[ \t\n\r]*"tag"[ \t\n\r]*:[ \t\n\r]*"([^"]{0,4096})"'
MAX_TAG = 4096
# Longest timeout that is sent, in seconds; more counts as none.
MAX_SECONDS = 1e9


def tag_of(text: bytes) -> bytes:
    """The tag of a call, before the rest of its text is read.

    :raises ProtocolError: it does not begin as calls do.
    """
    if text[:8] == _BEGINNING:
        end = text.find(b'"', 8, MAX_TAG)
        if end > 0:
            return text[8:end]
    found = re.match(_SPACED, text)
    if found is None:
        raise ProtocolError(None, "a call is an object whose first field is its base64 tag")
    return found[1]


def decode_call(frame: Fields, limits: Limits = Limits(),
                borrow: Optional[Callable[[Any], Any]] = None,
                charge: Optional[Callable[[int], None]] = None) -> Arguments:
    """What the call of a frame holds besides its tag. Fields that this version does not know are
    ignored.

    :param borrow: makes the stand-in for an argument that the caller lends.
    :param charge: called with bytes of memory, as :func:`~.values.unpack` does.
    :raises ProtocolError: the text is no JSON, or not of the form that calls have.
    :raises ValueNotSupported: an argument of a class or library that this process lacks.
    """
    _, _, tagged, text, buffers = frame
    if tagged and _has_only_a_text(text):
        only = only_text(buffers)
        if only is not None:
            return [only], {}, None
    content = unpack(text, tagged, buffers, limits, "", "at the peer", borrow, charge)
    if type(content) is not dict:
        raise ProtocolError(None, "a call is an object of tag, args and kwargs")
    return arguments_of(content)


# What a call ends with whose only argument is a text beside the JSON, and how many quotes the whole
# call has.
_ONLY_TEXT = b'","args":[{"!str":0}],"kwargs":{}}'
_QUOTES = 10


def _has_only_a_text(text: bytes) -> bool:
    """Whether this is the text of such a call, with nothing else in it but its tag."""
    return text.endswith(_ONLY_TEXT) and text.startswith(_BEGINNING) \
        and text.count(b'"') == _QUOTES and b"\\" not in text


def is_plain_call(frame: Fields) -> bool:
    """Whether the arguments of a call are plain JSON, or one text: then reading them runs no code
    of an application."""
    return not frame[2] or _has_only_a_text(frame[3])


def arguments_of(content: Dict[str, Any]) -> Arguments:
    """What a call of any dialect holds besides its tag.

    :raises ProtocolError: not of the form that calls have.
    """
    get = content.get
    args, kwargs, seconds = get("args"), get("kwargs"), get("seconds")
    if type(args) is not list or type(kwargs) is not dict:
        raise ProtocolError(None, "a call's args are a list and its kwargs an object")
    if seconds is not None and not (
            type(seconds) in (float, int) and 0 <= seconds <= MAX_SECONDS):
        raise ProtocolError(None, "a call's seconds are a number from 0 to a billion")
    return args, kwargs, seconds


# Values side by side that are encoded in next to no time.
SOME = 16


def is_small(value: Any) -> bool:
    """Whether a result takes next to no time to encode: a number, a short text or the like, or some
    of them."""
    kind = type(value)
    if kind is dict:
        return len(value) <= SOME and are_named_scalars(value)
    if kind is list or kind is tuple:
        return len(value) <= SOME and are_scalars(value)
    return are_scalars((value,))


def encode_result(number: int, value: Any, limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a reply with what a function returned; a flag becomes a flag reply.

    :param number: of the call.
    :raises ValueNotSupported: something in it cannot travel; the error says where.
    :raises MessageTooLarge: over a limit.
    """
    if type(value) is str and len(value) >= ALONE:
        data = value.encode("utf-8", "surrogatepass")
        if len(data) <= limits.buffers:
            return pack_frame(RESULT, number, LONG_TEXT, True, [data])
    text = scalar(value)
    if text is not None:
        data = text.encode("utf-8", "surrogatepass")
        return [HEADER.pack(RESULT, 0, 0, number, len(data)) + data]
    if type(value) is Flag:
        content = {"flag": value.decode("ascii"), "details": value.details}
        return _message(FLAG, number, *pack(content, "flag", limits))
    return _message(RESULT, number, *pack(value, "result", limits))


def encode_failure(number: int, error: BaseException, detail: str = "full",
                   limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a reply with what a function raised."""
    return _message(FAILURE, number, *_pack_failure(error, detail, limits)[1])


def _pack_failure(error: BaseException, detail: str, limits: Limits) -> Tuple[Any, Packed]:
    """What a function raised, described and packed."""
    try:
        content = {"raised": describe(error, detail, limits=limits)}
        return content, pack(content, "exception", limits)
    except NetError:  # over the limits of a message
        content = {"raised": describe(error, detail, True, limits)}
        return content, pack(content, "exception", limits)


def encode_refusal(number: int, error: NetError) -> List[Buffer]:
    """The bytes of a reply of the peer itself, rather than of a function.

    :param number: of the call; 0 if it is the whole connection that is refused.
    """
    return _message(FAILURE, number, *pack(to_refusal(error), "refusal"))


def decode_reply(frame: Fields, address: Optional[Address], peer: object, tag: bytes,
                 limits: Limits = Limits()) -> Any:
    """What a reply holds: the value, or a Flag.

    :param address: of the peer, for errors; None if it has none.
    :param peer: that was called, as it was given, for errors.
    :param tag: that was called, for errors.
    :raises RemoteError: the function raised.
    :raises NetError: the peer refused, or its reply cannot be read.
    """
    kind, _, tagged, text, buffers = frame
    try:
        content = unpack(text, tagged, buffers, limits, _NAMES[kind], HERE)
    except (ProtocolError, ValueNotSupported) as problem:
        raise _in_reply(problem, address) from None
    return content if kind == RESULT else \
        _decode_other(content, kind == FLAG, address, peer, tag)


def _decode_other(content: Any, is_flag: bool, address: Optional[Address], peer: object,
                  tag: bytes) -> Any:
    """The Flag that a reply without a result holds; raises the error if it holds one."""
    try:
        an_object(content)
        if is_flag:
            return Flag(a_text(content["flag"]).encode("ascii"), content["details"])
        if "raised" in content:
            error: NetError = rebuild(content["raised"], peer, tag)
        else:
            error = from_refusal(a_text(content["refused"]), content, address)
    except Exception as problem:  # malformed replies raise many kinds of error
        if not is_of_the_data(problem):
            raise
        raise ProtocolError(address, f"a reply that makes no sense: {printable(repr(problem))}",
                            "maybe") from None
    throw(error)


# Bytes that an outcome counts for at least: a request has room for millions of calls without
# arguments, and must not keep its thread for that long.
LEAST_SIZE = 32


class Outcome(NamedTuple):
    """The reply for one of several arguments, as a part of a result.

    :ivar size: bytes that it takes there, roughly.
    :ivar plain: whether it is known to be plain JSON.
    """

    content: Any
    size: int
    plain: bool = False


def outcome_of_value(value: Any, limits: Limits = Limits()) -> Outcome:
    """The outcome with what a function has returned.

    :raises ValueNotSupported: something in it cannot travel; the error says where.
    :raises MessageTooLarge: over a limit.
    """
    kind = type(value)
    if kind in UNBOUNDED:
        return Outcome({"value": value}, LEAST_SIZE, True)
    if kind is int and value.bit_length() <= BITS:
        return Outcome({"value": value}, LEAST_SIZE + value.bit_length() // 3, True)
    if kind is str and len(value) < LONG:
        return Outcome({"value": value}, LEAST_SIZE + len(value), True)
    content = {"flag": value.decode("ascii"), "details": value.details} if type(value) is Flag \
        else {"value": value}
    packed = pack(content, "result", limits)
    return Outcome(content, LEAST_SIZE + len(packed.text) + sum(map(len, packed.buffers)))


def outcome_of_error(error: BaseException, detail: str = "full",
                     limits: Limits = Limits()) -> Outcome:
    """The outcome with what a function raised."""
    content, packed = _pack_failure(error, detail, limits)
    return Outcome(content, LEAST_SIZE + len(packed.text))


def outcome_of_refusal(error: NetError) -> Outcome:
    """The outcome with an error of the peer itself."""
    return Outcome(to_refusal(error), LEAST_SIZE)


def encode_outcomes(number: int, outcomes: Sequence[Outcome],
                    limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a reply with the outcomes for several arguments.

    :raises MessageTooLarge: together they are over a limit.
    """
    contents = [outcome.content for outcome in outcomes]
    if all([outcome.plain for outcome in outcomes]):
        text = encode_plain(contents)
        if len(text) <= limits.text:
            return _message(RESULT, number, text)
    return encode_result(number, contents, limits)


def decode_outcome(content: Any, peer: Any, tag: bytes) -> Any:
    """The value of one of several outcomes, or a Flag; raises as :func:`decode_reply` does."""
    if type(content) is dict and "value" in content:
        return content["value"]
    return _decode_other(content, type(content) is dict and "flag" in content, address_of(peer),
                         peer, tag)


#: How errors name the content of a reply, and this process.
_NAMES = {RESULT: "result", FLAG: "flag", FAILURE: "exception"}
HERE = "in this process"


# ------------------------------------------------------------------ streams and what is lent


def encode_items(number: int, packed: Sequence[Packed]) -> List[Buffer]:
    """The bytes of a frame with items of a stream.

    :param number: of the call.
    :param packed: a single item, or several without buffers that are all tagged or all plain.
    """
    text = ",".join([one.text for one in packed])
    return _message(ITEM, number, f"[{text}]", packed[0].tagged, packed[0].buffers)


def decode_items(frame: Frame, limits: Limits = Limits(),
                 address: Optional[Address] = None) -> List[Any]:
    """The items of a frame.

    :raises ProtocolError: it holds none.
    :raises ValueNotSupported: an item of a class or library that this process lacks.
    """
    items = _decode_part(frame, limits, address, "item")
    if type(items) is not list or not items:
        raise ProtocolError(address, "a frame of items is a list of them", "maybe")
    return items


def decode_end(frame: Frame, limits: Limits = Limits(), address: Optional[Address] = None) -> Any:
    """What the generator of a stream has returned.

    :raises NetError: as :func:`decode_items` does.
    """
    return _decode_part(frame, limits, address, "result")


def _decode_part(frame: Frame, limits: Limits, address: Optional[Address], what: str) -> Any:
    try:
        return unpack(frame.text, frame.tagged, frame.buffers, limits, what, HERE)
    except (ProtocolError, ValueNotSupported) as problem:
        raise _in_reply(problem, address) from None


def _in_reply(problem: Union[ProtocolError, ValueNotSupported],
              address: Optional[Address]) -> NetError:
    """The error that a problem with reading a reply becomes for the caller."""
    if isinstance(problem, ProtocolError):
        return ProtocolError(address, problem.reason, "maybe")
    return ValueNotSupported(problem.path, problem.reason, "yes")


def encode_end(number: int, value: Any, limits: Limits = Limits()) -> List[Buffer]:
    """The bytes that end a stream, with what its generator returned.

    :raises ValueNotSupported: something in that cannot travel; the error says where.
    :raises MessageTooLarge: over a limit.
    """
    return _message(END, number, *pack(value, "result", limits))


def encode_taken(number: int, count: int) -> List[Buffer]:
    """The bytes that say how many items of a stream were taken so far."""
    return _message(TAKEN, number, str(count))


def decode_count(frame: Frame) -> int:
    """The whole number that a frame holds.

    :raises ProtocolError: it holds none.
    """
    if not frame.text.isdigit() or len(frame.text) > 18:
        raise ProtocolError(None, "this kind of frame holds a whole number")
    return int(frame.text)


class Ask(NamedTuple):
    """What a served call asks of something that its caller lends.

    :ivar lent: the number of that thing among what is lent.
    :ivar items: how many items of an iterator are wanted; None to call a function.
    """

    lent: int
    args: List[Any]
    kwargs: Dict[str, Any]
    items: Optional[int] = None


def encode_ask(number: int, ask: Ask, limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of an ASK frame.

    :param number: which its answer will carry.
    :raises ValueNotSupported: an argument cannot travel; the error says where it is.
    """
    packer = Packer(limits)
    tree = {"lent": ask.lent, "items": ask.items,
            "args": packer.under("args", lambda: packer.items(ask.args, -1)),
            "kwargs": packer.under("kwargs", lambda: packer.named(ask.kwargs, -1))}
    return _message(ASK, number, *packer.packed(tree, "the arguments"))


def decode_ask(frame: Frame, limits: Limits = Limits()) -> Ask:
    """What an ASK frame asks.

    :raises ProtocolError: not of the form that it has.
    """
    content = unpack(frame.text, frame.tagged, frame.buffers, limits, "", "at the caller")
    if type(content) is not dict:
        raise ProtocolError(None, "what is asked of the caller is an object")
    lent, args, kwargs, items = map(content.get, ("lent", "args", "kwargs", "items"))
    if type(lent) is not int or type(args) is not list or type(kwargs) is not dict \
            or items is not None and type(items) is not int:
        raise ProtocolError(None, "what is asked of the caller has lent, args, kwargs and items")
    return Ask(lent, args, kwargs, items)


def encode_answer(number: int, name: str, value: Any, limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of an ANSWER frame.

    :param name: ``value``, ``items``, ``last`` (the items before the end of an iterator), or
        ``raised`` with a description of the error.
    :raises ValueNotSupported: something in the value cannot travel; the error says where.
    """
    packer = Packer(limits)
    tree = {name: packer.under("answer", lambda: packer.tag(value, 0))}
    return _message(ANSWER, number, *packer.packed(tree, "answer"))


def decode_answer(frame: Frame, limits: Limits = Limits()) -> Tuple[str, Any]:
    """The name and the value of an answer; that of an error is an exception.

    :raises ProtocolError: not of the form that answers have.
    """
    content = unpack(frame.text, frame.tagged, frame.buffers, limits, "answer", "at the peer")
    if type(content) is not dict or len(content) != 1:
        raise ProtocolError(None, "an answer is an object with one field")
    (name, value), = content.items()
    if name == "raised":
        try:
            return name, rebuild(value)
        except Exception as problem:
            if not is_of_the_data(problem):
                raise
            raise ProtocolError(None, "an answer describes no error") from None
    if name not in ("value", "items", "last") or name != "value" and type(value) is not list:
        raise ProtocolError(None, "an answer has a value, items or an error")
    return name, value
