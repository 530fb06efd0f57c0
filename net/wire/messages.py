"""A call and its three replies, as frames and as values.

The tag is the first field of a call, so that a server can tell whom it is for before it makes any
value of it.
"""
from __future__ import annotations

import functools
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import (Address, NetError, ProtocolError, ValueNotSupported, from_refusal,
                      to_refusal)
from ..identity import Flag, printable
from .failures import describe, rebuild
from .frames import CALL, CHUNK, FAILURE, FLAG, HEADER, RESULT, Buffer, Frame
from .frames import pack as pack_frame
from .limits import Limits
from .memo import Memo
from .values import DIGITS, FEW, Packer, encode_plain, fits, is_plain, pack, scalar, unpack


class Call(NamedTuple):
    """A request to run the connection of a tag."""

    tag: bytes
    args: List[Any]
    kwargs: Dict[str, Any]


#: ``Call._make`` without its function in Python.
make_call: Callable[[Any], Call] = functools.partial(tuple.__new__, Call)


def _message(kind: int, number: int, text: str, tagged: bool = False,
             buffers: Sequence[Buffer] = ()) -> List[Buffer]:
    data = text.encode("utf-8", "surrogatepass")
    if not buffers and len(data) < CHUNK:
        return [HEADER.pack(kind, tagged, 0, number, len(data)) + data]  # nearly every message
    return pack_frame(kind, number, data, tagged, buffers)


#: The text of a call up to its arguments, by its tag.
_beginnings = Memo(
    lambda tag: f'{{"tag":{encode_plain(tag.decode("ascii"))},"args":', 1024)


def encode_call(number: int, tag: bytes, args: Tuple[Any, ...], kwargs: Dict[str, Any],
                limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a call: a frame up to its buffers, then each buffer.

    :param number: which its reply will carry.
    :raises ValueNotSupported: an argument cannot travel; says where it is.
    :raises MessageTooLarge: over a limit.
    """
    text = None
    if not kwargs and len(args) <= FEW:
        # The common small call: no container to look into.
        texts = list(map(scalar, args))
        if None not in texts:
            text = f'{_beginnings[tag]}[{",".join(texts)}],"kwargs":{{}}}}'
    if text is None and is_plain(args) and (not kwargs or is_plain(kwargs)):
        try:
            text = f'{_beginnings[tag]}{encode_plain(args)},"kwargs":{encode_plain(kwargs)}}}'
        except ValueError:
            pass  # an int of more digits than Python converts
    if text is not None and (len(text) < DIGITS or fits(text, limits)):
        return _message(CALL, number, text)
    return _encode_tagged_call(number, tag, args, kwargs, limits)


def _encode_tagged_call(number: int, tag: bytes, args: Tuple[Any, ...],
                        kwargs: Dict[str, Any], limits: Limits) -> List[Buffer]:
    packer = Packer(limits)
    # Depth -1: args and kwargs are not containers of the caller's.
    tree = {"tag": tag.decode("ascii"),
            "args": packer.under("args", lambda: packer.items(args, -1)),
            "kwargs": packer.under("kwargs", lambda: packer.named(kwargs, -1))}
    return _message(CALL, number, *packer.packed(tree, "the arguments"))


# With the white space that JSON allows: some libraries write it.
_TAG = re.compile(rb'\{[ \t\n\r]*"tag"[ \t\n\r]*:[ \t\n\r]*"([A-Za-z0-9+/=]{0,4096})"'
                  rb'[ \t\n\r]*[,}]')


def tag_of(frame: Frame) -> bytes:
    """The tag of a call, before anything else of it is read.

    :raises ProtocolError: it does not begin as calls do.
    """
    found = _TAG.match(frame.text)
    if found is None:
        raise ProtocolError(None, "a call is an object whose first field is its base64 tag")
    return found[1]


def decode_call(frame: Frame, limits: Limits = Limits()) -> Call:
    """The call of a frame. Fields that this version does not know are ignored.

    :raises ProtocolError: it is none, or not of the form that calls have.
    :raises ValueNotSupported: an argument of a class or library that is not there here.
    """
    content = unpack(frame.text, frame.tagged, frame.buffers, limits)
    if type(content) is not dict:
        raise ProtocolError(None, "a call is an object of tag, args and kwargs")
    return checked_call(content, "tag")


def checked_call(content: Dict[str, Any], name: str) -> Call:
    """A call from its parts, of either dialect.

    :param name: of the field that holds the tag.
    :raises ProtocolError: not of the form that calls have.
    """
    tag, args, kwargs = content.get(name), content.get("args"), content.get("kwargs")
    if type(tag) is not str or not tag.isascii():
        raise ProtocolError(None, f"a call's {name} is base64")
    if type(args) is not list or type(kwargs) is not dict:
        raise ProtocolError(None, "a call's args are a list and its kwargs an object")
    return make_call((tag.encode("ascii"), args, kwargs))


def encode_result(number: int, value: Any, limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a reply with what a function returned; a flag becomes a flag reply.

    :param number: of the call.
    :raises ValueNotSupported: it cannot travel; says where.
    :raises MessageTooLarge: over a limit.
    """
    text = scalar(value)
    if text is not None:
        return _message(RESULT, number, text)
    if type(value) is Flag:
        content = {"flag": value.decode("ascii"), "details": value.details}
        return _message(FLAG, number, *pack(content, "flag", limits))
    return _message(RESULT, number, *pack(value, "result", limits))


def encode_failure(number: int, error: BaseException, detail: str = "full",
                   limits: Limits = Limits()) -> List[Buffer]:
    """The bytes of a reply with what a function raised."""
    try:
        packed = pack({"raised": describe(error, detail)}, "exception", limits)
    except NetError:  # it holds more than a message may
        packed = pack({"raised": describe(error, detail, brief=True)}, "exception", limits)
    return _message(FAILURE, number, *packed)


def encode_refusal(number: int, error: NetError) -> List[Buffer]:
    """The bytes of a reply of the peer itself, rather than of a function.

    :param number: of the call; 0 if it is the whole connection that is refused.
    """
    return _message(FAILURE, number, *pack(to_refusal(error), "refusal"))


def decode_reply(frame: Frame, address: Optional[Address], peer: object, tag: bytes,
                 limits: Limits = Limits()) -> Any:
    """What a reply holds: the value, or a Flag.

    :raises RemoteError: the function raised.
    :raises NetError: the peer refused, or its reply cannot be read.
    """
    try:
        content = unpack(frame.text, frame.tagged, frame.buffers, limits)
        if frame.kind == RESULT:
            return content
        if frame.kind == FLAG:
            return Flag(content["flag"].encode("ascii"), content["details"])
        if "raised" in content:
            error: NetError = rebuild(content["raised"], peer, tag)
        else:
            error = from_refusal(content["refused"], content, address)
    except ProtocolError as problem:
        raise ProtocolError(address, problem.reason, "maybe") from None
    except ValueNotSupported as problem:
        raise ValueNotSupported("result" + (f" ({problem.path})" if problem.path else ""),
                                problem.reason, "yes") from None
    except (MemoryError, RecursionError):
        raise
    except Exception as problem:  # a reply can be wrong in more ways than a list could name
        raise ProtocolError(address, f"a reply without sense: {printable(repr(problem))}",
                            "maybe") from None
    raise error
