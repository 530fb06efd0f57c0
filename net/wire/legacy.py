"""The documented old dialect: base64 of a JSON object, one request for each connection.

No length goes ahead of a message, so it is whole as soon as it is an object. Old peers take and
give at most 1,024 bytes; they receive once and close.
"""
from __future__ import annotations

import base64
import binascii
import builtins
import json
from typing import Any, Dict, Optional

from ..errors import MessageTooLarge, ProtocolError, RemoteError, ValueNotSupported
from ..identity import Flag, printable
from .failures import rebuild
from .frames import NotAFrame
from .limits import Limits
from .messages import Call, checked_call
from .values import ENVELOPE, brackets_of, check_depth

#: What an old peer receives at most, in bytes.
MAX_MESSAGE = 1024
# Characters of a flag's name.
MAX_FLAG = 64
# What we take from one; more than any old peer sends.
MAX_RECEIVED = 64 * 1024

#: The first byte of base64 of a JSON object: how the dialects are told apart.
FIRST_BYTE = b"e"


def encode(value: Any) -> bytes:
    """Base64 of a text, or of the JSON text of any other value."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.b64encode(text.encode("utf-8", "surrogatepass"))


def read_object(data: bytes, limits: Limits = Limits()) -> Optional[Dict[str, Any]]:
    """The JSON object that the base64 stands for, None while it is not whole.

    :raises NotAFrame: it cannot become one.
    :raises ProtocolError: it is over a limit.
    """
    data = data.rstrip(b"\r\n")
    if len(data) > MAX_RECEIVED:
        raise ProtocolError(None, f"more than {MAX_RECEIVED:,} bytes in the old dialect")
    try:
        # All but the last incomplete group of four must be base64 already.
        text = base64.b64decode(data[:len(data) // 4 * 4], validate=True)
    except binascii.Error:
        raise NotAFrame(data) from None
    if text[:1] not in (b"", b"{"):
        raise NotAFrame(data)
    if len(data) % 4 or not text.endswith(b"}"):
        return None
    brackets = brackets_of(text)
    if brackets.count(b"[") > brackets.count(b"]"):
        return None
    check_depth(text, limits.depth + ENVELOPE)
    try:
        # What starts like an object and has no bracket open is one, or never becomes one.
        content: Dict[str, Any] = json.loads(text.decode("utf-8", "surrogatepass"))
        return content
    except ValueError:
        raise NotAFrame(data) from None


def decode_call(content: Dict[str, Any]) -> Call:
    """The call of an object.

    :raises ProtocolError: not of the form that calls have.
    """
    return checked_call(content)


def encode_call(call: Call, limits: Limits = Limits()) -> bytes:
    """The bytes of a call.

    :raises ValueNotSupported: an argument that JSON does not have.
    :raises MessageTooLarge: more than old peers receive.
    """
    content = {"connection": call.tag.decode("ascii"), "args": call.args, "kwargs": call.kwargs}
    try:
        _check_shape(content, limits.depth)
        data = encode(content)
    except MessageTooLarge:
        raise
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueNotSupported("args", f"{problem}; this peer speaks the old dialect, which "
                                        f"carries JSON only") from None
    if len(data) > MAX_MESSAGE:
        raise MessageTooLarge("request in the old dialect, in bytes", len(data), MAX_MESSAGE, None)
    return data


def encode_result(value: Any, limits: Limits = Limits()) -> bytes:
    """The documented reply: a flag bare, a dict as it is, anything else under ``raw``.

    A reply that an old peer could not receive whole becomes an error that it can.
    """
    if type(value) is Flag:
        return bytes(value)
    content = value if isinstance(value, dict) else {"raw": value}
    try:
        _check_shape(content, limits.depth)
        data = encode(content)
    except MessageTooLarge as problem:
        return encode_error(f"MessageTooLarge: {problem}")
    except (TypeError, ValueError, RecursionError) as problem:
        return encode_error(f"ValueNotSupported: result: {problem}")
    if len(data) > MAX_MESSAGE:
        return encode_error(f"MessageTooLarge: the reply has {len(data):,} bytes, the old dialect "
                            f"carries {MAX_MESSAGE:,}")
    return data


def _check_shape(content: Any, depth: int) -> None:
    """Refuse what the encoder must not even begin with.

    :raises ValueError: nested deeper than the limit: it could overflow the stack.
    :raises MessageTooLarge: more values than bytes in a message, in whatever few lists.
    """
    level = [content]
    for _ in range(depth + ENVELOPE):
        level = [inside for value in level if isinstance(value, (dict, list, tuple))
                 for inside in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return
        if len(level) > MAX_MESSAGE:
            raise MessageTooLarge("values side by side in the old dialect", len(level),
                                  MAX_MESSAGE, None)
    raise ValueError(f"nested deeper than {depth} (NET_MAX_DEPTH), or contains itself")


def encode_error(text: str) -> bytes:
    """The documented error reply. Of a long traceback the end stays, which says most."""
    while True:
        data = encode({"payload": "error", "traceback": text})
        if len(data) <= MAX_MESSAGE:
            return data
        text = text[len(text) // 8 + 1:]


def is_flag(data: bytes) -> bool:
    """Whether a reply is a bare flag rather than an object: base64 of a name."""
    try:
        name = base64.b64decode(data, validate=True).decode("ascii")
    except ValueError:
        return False
    return name[:1].isalnum() and name.isprintable() and len(name) <= MAX_FLAG


def decode_reply(data: bytes, peer: object, tag: bytes, limits: Limits = Limits()) -> Any:
    """What a whole reply holds: the value, or a Flag.

    :raises RemoteError: the function raised there.
    :raises ProtocolError: not a reply of the old dialect.
    """
    if is_flag(data):
        return Flag(data)
    try:
        content = read_object(data, limits)
    except ProtocolError as problem:
        raise ProtocolError(None, problem.reason, "maybe") from None
    if content is None:
        raise ProtocolError(None, "an incomplete reply in the old dialect", "maybe")
    if content.get("payload") == "error":
        raise _remote_error(content.get("traceback"), peer, tag)
    return content["raw"] if set(content) == {"raw"} else content


def _remote_error(text: Any, peer: object, tag: bytes) -> RemoteError:
    """The matching error, as far as the last line of a traceback tells."""
    whole = text if isinstance(text, str) else str(text)
    last = (whole.strip().splitlines() or [""])[-1]
    name, _, message = last.partition(": ")
    if not _may_name_exception(name):
        name, message = "Exception", printable(last)
    # Python writes those of its own and of the main module without a module.
    module, _, short = name.rpartition(".")
    module = module or ("builtins" if hasattr(builtins, name) else "__main__")
    return rebuild({"types": [[module, short], ["builtins", "Exception"]], "text": message,
                    "traceback": whole, "args": [message] if message else []}, peer, tag)


def _may_name_exception(name: str) -> bool:
    known = vars(builtins).get(name, Exception)
    return name.replace(".", "").isidentifier() and isinstance(known, type) \
        and issubclass(known, Exception)
