"""All of the old dialects, as one state machine in both roles: bytes in, events out.

Programs of app-net before 1.0 open a connection for each request, receive once, 1,024 bytes at
most, answer once and close. No length precedes a message: an object is whole as soon as it is
complete, anything else when the connection ends. There are two dialects:

* ``"0.4"``, of 0.3 and 0.4: base64 of a JSON object; tags and flags are base64, too.
* ``"0.6"``, of 0.6: the JSON itself; tags and flags are plain text.

The rest of app-net sees nothing of this: a request in either dialect becomes a :class:`Call` with
the tag and the arguments that a modern one has.
"""
from __future__ import annotations

import ast
import base64
import binascii
import builtins
import json
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Union

from ..errors import MessageTooLarge, NetError, ProtocolError, RemoteError, ValueNotSupported
from ..identity import Flag, PeerId, decode_text, encode_text, make_id, make_tag, printable
from .failures import rebuild
from .frames import NotAFrame
from .limits import Limits
from .messages import Call, arguments_of
from .values import ENVELOPE, brackets_of, check_depth

#: The two dialects.
BASE64, PLAIN = "0.4", "0.6"

#: What an old program receives at most, in bytes.
MAX_MESSAGE = 1024
# Characters of a flag's name.
MAX_FLAG = 64
# Bytes of a message that are taken from an old program; more than any of them sends.
MAX_RECEIVED = 64 * 1024

#: The first byte of a request tells its dialect: base64 of a JSON object, or the object itself.
FIRST_BYTES = {b"e": BASE64, b"{": PLAIN}

INFO = make_tag("net.defaults.handlers", "info")
CONNECTIONS = make_tag("net.defaults.handlers", "connections")
SUBSCRIBE = make_tag("net.defaults.handlers", "subscription_handler")
INVALID_CONNECTION = encode_text("INVALID_CONNECTION")

#: What a search of old programs needs in an info; it breaks off where one of these is missing. If
#: the whole would be too long for them, all else may be left out: the facts of the application
#: first, then the rest from its end.
NEEDED = {BASE64: ("group", "host", "port", "hub", "executable", "user"),
          PLAIN: ("tag", "host", "port", "user", "executable", "group", "hub", "connections",
                  "subscriptions", "flags")}
# A flag of either dialect, or the beginning of one: base64 of at most MAX_FLAG characters.
_FLAG = rb"[A-Za-z0-9+/]{1,88}={0,2}"
# Facts that they cannot use, and that would only displace the rest.
NEEDLESS = frozenset({"functions", "more_functions"})
# Characters of what the user of a process chose, such as the path of the interpreter.
MAX_FACT = 100

_MARKED = r"(?s)(.+)~[0-9a-f]{12}"
#: What 0.3 and 0.4 on Python 3 make of bytes: ``str(b"MTI3")``.
_QUOTED = r"b'([A-Za-z0-9+/=]*)'"
# Tokens of the repr of a dict, which 0.6 sends as a request when ``peer=`` is one of its own
# objects: texts, such an object, and what JSON writes differently.
_TOKEN = (r"""(?s)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|<net\.Peer h:.*? s:\d+ f:\d+>"""
          r"""|\b(?:True|False|None|nan|inf)\b|,?\)|\(""")
_IN_JSON = {"True": "true", "False": "false", "None": "null", "nan": "NaN", "inf": "Infinity",
            "(": "[", ")": "]", ",)": "]"}


class Reply(NamedTuple):
    """A whole reply, as it came."""

    dialect: str
    data: bytes

    def value(self, peer: object, tag: bytes, limits: Limits = Limits()) -> Any:
        """What it holds: the value, or a Flag.

        :param peer: that was called, for errors; ``tag``: likewise.
        :raises RemoteError: the function raised there.
        :raises ProtocolError: not a reply of this dialect.
        """
        decode = _decode_plain if self.dialect == PLAIN else _decode_base64
        found = decode(self.data, limits)
        if type(found) is not dict:
            return found
        if found.get("payload") == "error":
            raise _remote_error(found.get("traceback"), peer, tag)
        if tag == INFO and found.get("group") == "None":
            found["group"] = None
        return found["raw"] if self.dialect == BASE64 and set(found) == {"raw"} else found


class LegacySession:
    """One connection of an old dialect: one request, one reply.

    A server is made without a dialect, which it learns from the request: :meth:`receive` gives the
    :class:`Call`, and :meth:`reply`, :meth:`unknown`, :meth:`fail` or :meth:`refuse` the bytes of
    its one reply. They must leave in one piece, because old programs receive once; then the
    connection is closed. No bytes mean that any reply would do harm: the connection is to be reset,
    which old programs take for an address without a peer.

    A caller is made with the dialect: :meth:`call` gives the bytes of the request, :meth:`receive`
    the :class:`Reply`.

    :ivar dialect: of the connection; empty while a server does not know it yet.
    :ivar request: the call that came; None before.
    """

    def __init__(self, dialect: str = "", limits: Limits = Limits()) -> None:
        self.dialect = dialect
        self._limits = limits
        self.request: Optional[Call] = None
        self._serves = not dialect
        self._data = b""

    # ------------------------------------------------------------------------- both roles

    def receive(self, data: bytes) -> Union[Call, Reply, None]:
        """Take what was received; for a caller also the end of the connection, as no bytes.

        :returns: the call or the reply; None as long as something of it is missing.
        :raises NotAFrame: for a server, what can never become a request.
        :raises ProtocolError: for a server, an object that is no call, which :meth:`refuse` can
            answer; for a caller, a reply that is too long.
        """
        self._data += data
        if self._serves:
            return self._receive_request()
        if len(self._data) > MAX_RECEIVED:
            raise ProtocolError(None, f"more than {MAX_RECEIVED:,} bytes in the old dialect",
                                "maybe")
        # Only the end of the connection completes what is no object, such as a flag.
        whole = not data or self._data[-1:] in b"=9}" and self._is_object()
        return Reply(self.dialect, self._data) if whole else None

    def _is_object(self) -> bool:
        try:
            return read_object(self._data, self._limits, self.dialect) is not None
        except ProtocolError:
            return False

    # --------------------------------------------------------------------------- a server

    def _receive_request(self) -> Optional[Call]:
        self.dialect = FIRST_BYTES.get(self._data[:1], "")
        if not self.dialect:
            raise NotAFrame(self._data)
        try:
            content = read_object(self._data, self._limits, self.dialect)
        except ProtocolError:  # over a limit: no old program sends that
            raise NotAFrame(self._data) from None
        if content is None:
            return None
        self.request = decode_call(content, self.dialect)
        return self.request

    @property
    def searches(self) -> bool:
        """Whether the request is the question of a search, ``info``. The search of an old program
        takes no answer but an info: any other one ends it, and it does not find the peers that it
        would have asked after this one."""
        return self.request is not None and self.request.tag == INFO

    def reply(self, value: Any, tags: Iterable[bytes] = ()) -> bytes:
        """The bytes of a reply with what the function returned.

        In place of a reply that is too long for an old program, it is a short error.

        :param tags: of the functions that are served; an info for 0.6 lists them.
        """
        if self.searches:
            return encode_info(value, tags, self.dialect) if isinstance(value, dict) else b""
        return encode_result(value, self._limits, self.dialect)

    def unknown(self) -> bytes:
        """The bytes of the reply which says that there is no function of this tag."""
        if self.searches:
            return b""
        return INVALID_CONNECTION if self.dialect == BASE64 else b"INVALID_CONNECTION"

    def fail(self, text: str) -> bytes:
        """The bytes of a reply with the traceback of what the function raised."""
        return b"" if self.searches else encode_error(text, self.dialect)

    def refuse(self, problem: NetError) -> bytes:
        """The bytes of a reply in which the peer itself, rather than a function, gives an error."""
        return self.fail(f"{type(problem).__name__}: {getattr(problem, 'reason', problem)}")

    # --------------------------------------------------------------------------- a caller

    def call(self, tag: bytes, args: Iterable[Any], kwargs: Dict[str, Any]) -> bytes:
        """The bytes of a request.

        :raises ValueNotSupported: an argument that JSON does not have.
        :raises MessageTooLarge: more than old programs receive.
        """
        return encode_call(Call(tag, list(args), kwargs), self._limits, self.dialect)


# ------------------------------------------------------------------- how dialects are recognised


def dialect_of(answer: bytes) -> str:
    """The dialect of what a server answered to our preface before it closed the connection; empty
    if it is none.

    No old program can read the preface. It runs nothing, and answers with an error or a flag.
    """
    if is_flag(answer):
        return BASE64
    if answer in (b"INVALID_CONNECTION", b"NULL"):
        return PLAIN
    dialect = FIRST_BYTES.get(answer[:1], "")
    try:
        content = read_object(answer, dialect=dialect) if dialect else None
    except ProtocolError:
        return ""
    is_one = content is not None and (dialect == BASE64 or content.get("payload") == "error")
    return dialect if is_one else ""


def may_be_old(answer: bytes) -> bool:
    """Whether this is, or may begin, an old program's answer to what it cannot read."""
    if re.fullmatch(_FLAG, answer):
        return True
    if answer[:1] not in FIRST_BYTES:
        return b"INVALID_CONNECTION".startswith(answer)
    try:
        read_object(answer, dialect=FIRST_BYTES[answer[:1]])
        return True
    except ProtocolError:
        return False


def likely_dialect(answer: bytes) -> str:
    """As :func:`dialect_of`, but for an answer of which perhaps only the beginning has come."""
    if not may_be_old(answer):
        return ""
    return dialect_of(answer) or FIRST_BYTES.get(answer[:1], BASE64)


def is_whole(message: bytes) -> bool:
    """Whether a message of either dialect is a whole object, to which nothing can be added."""
    dialect = FIRST_BYTES.get(message[:1])
    try:
        return dialect is not None and read_object(message, dialect=dialect) is not None
    except ProtocolError:
        return False


def wrapped(tag: bytes) -> bytes:
    """The form that 0.4 gives to a tag of the application's own: base64 of ``{"raw": tag}``."""
    return encode_text(json.dumps({"raw": decode_text(tag)}))


def marked(tag: bytes, mark: str) -> bytes:
    """The tag of a handler for one subscription at an old publisher.

    Old publishers keep every subscription that was ever made from an address, and call each with
    every event. As each has a tag of its own, one that is over can be told from one that is not.

    :param mark: twelve hexadecimal digits.
    """
    return encode_text(f"{decode_text(tag)}~{mark}")


def unmarked(tag: bytes) -> bytes:
    """The tag of the handler, of what :func:`marked` gave; any other tag is returned as it is."""
    try:
        found = re.fullmatch(_MARKED, decode_text(tag))
    except ValueError:
        return tag
    return tag if found is None else encode_text(found[1])


def is_marked(tag: bytes) -> bool:
    """Whether this is what :func:`marked` gave, here or in an earlier process at this address."""
    return unmarked(tag) != tag


# ----------------------------------------------------------------------------- whole objects


def read_object(data: bytes, limits: Limits = Limits(),
                dialect: str = BASE64) -> Optional[Dict[str, Any]]:
    """The object that a message is; None while it is not whole.

    :raises NotAFrame: it cannot become one.
    :raises ProtocolError: it is over a limit.
    """
    data = data.rstrip(b"\r\n")
    if len(data) > MAX_RECEIVED:
        raise ProtocolError(None, f"more than {MAX_RECEIVED:,} bytes in the old dialect")
    text = _base64_so_far(data) if dialect == BASE64 else data
    if text[:1] not in (b"", b"{"):
        raise NotAFrame(data)
    if dialect == BASE64 and len(data) % 4 or not text.endswith(b"}"):
        return None
    is_repr = dialect == PLAIN and text.startswith(b"{'")
    if is_repr:
        text = _json_of_repr(text)
    brackets = brackets_of(text)
    if brackets.count(b"[") > brackets.count(b"]"):
        return None
    check_depth(text, limits.depth + ENVELOPE)
    try:
        # What starts like an object and has no bracket open is one, or never becomes one.
        content: Dict[str, Any] = json.loads(text.decode("utf-8", "surrogatepass"))
        return content
    except ValueError:
        if is_repr:
            return None  # perhaps a text in it has not ended yet
        raise NotAFrame(data) from None


def _base64_so_far(data: bytes) -> bytes:
    try:
        # All but an incomplete last group of four has to be base64 already.
        return base64.b64decode(data[:len(data) // 4 * 4], validate=True)
    except binascii.Error:
        raise NotAFrame(data) from None


def _json_of_repr(text: bytes) -> bytes:
    """The JSON of what ``repr`` made of a dict. Of it, only single texts are evaluated."""
    def in_json(found: "re.Match[str]") -> str:
        token = found[0]
        if token[0] in "'\"":
            return json.dumps(ast.literal_eval(token))
        return "null" if token[0] == "<" else _IN_JSON[token]

    try:
        return re.sub(_TOKEN, in_json, text.decode("utf-8")).encode("ascii", "replace")
    except (ValueError, SyntaxError, MemoryError):
        raise NotAFrame(text) from None


# --------------------------------------------------------------------------------- requests


def decode_call(content: Dict[str, Any], dialect: str = BASE64) -> Call:
    """The call of an object, with a tag and arguments as modern ones have them.

    :raises ProtocolError: not of the form that calls have.
    """
    tag = content.get("connection")
    if type(tag) is str:
        tag = encode_text(tag).decode("ascii") if dialect == PLAIN else plain_tag(_unquoted(tag))
    if type(tag) is not str or not tag.isascii():
        raise ProtocolError(None, "a call's connection is a base64 tag")
    call = Call(tag.encode("ascii"), *arguments_of(content))
    if call.tag == SUBSCRIBE:
        call = call._replace(args=_modern_subscription(call.args, dialect))
    return call if dialect == BASE64 else _without_peer(call)


def _modern_subscription(args: List[Any], dialect: str) -> List[Any]:
    """Event, peer id and tag of a subscription. What makes no sense is left to the handler."""
    if dialect == BASE64:
        return [*args[:1], *map(_unquoted, args[1:])]
    try:
        event, host, port, tag = args
        return [event, make_id(port, host).decode("ascii"), encode_text(tag).decode("ascii")]
    except (NetError, ValueError, AttributeError):
        return args


def _without_peer(call: Call) -> Call:
    """A call without the ``peer`` that 0.6 leaves in the keywords that it sends. No function there
    can have a ``peer`` of its own."""
    peer = call.kwargs.get("peer", ())
    if peer is None or type(peer) is list and len(peer) == 2 and type(peer[1]) is int:
        kwargs = {name: value for name, value in call.kwargs.items() if name != "peer"}
        return call._replace(kwargs=kwargs)
    return call


def _unquoted(text: Any) -> Any:
    found = re.fullmatch(_QUOTED, text) if type(text) is str else None
    return text if found is None else found[1]


def plain_tag(tag: str) -> str:
    """A tag as it is known here, from the form that 0.4 may have given it: see :func:`wrapped`."""
    if not tag.startswith("eyJyYXci"):  # {"raw"
        return tag
    try:
        content = json.loads(decode_text(tag))
        return encode_text(content["raw"]).decode("ascii") if set(content) == {"raw"} else tag
    except (ValueError, AttributeError, RecursionError):
        return tag


def encode_call(call: Call, limits: Limits = Limits(), dialect: str = BASE64) -> bytes:
    """The bytes of a call.

    :raises ValueNotSupported: an argument that JSON does not have.
    :raises MessageTooLarge: more than old programs receive.
    """
    tag = call.tag.decode("ascii") if dialect == BASE64 else decode_text(call.tag)
    args = _old_subscription(call.args, dialect) if call.tag == SUBSCRIBE else call.args
    content = {"connection": tag, "args": args, "kwargs": call.kwargs}
    try:
        _check_shape(content, limits.depth)
        data = _encode(content, dialect)
    except MessageTooLarge:
        raise
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueNotSupported("args", f"{problem}; this peer speaks the old dialect, which "
                                        f"carries JSON only") from None
    if len(data) > MAX_MESSAGE:
        raise MessageTooLarge("request in the old dialect, in bytes", len(data), MAX_MESSAGE, None)
    return data


def _old_subscription(args: List[Any], dialect: str) -> List[Any]:
    """Event, id and tag of a subscription in the form that all versions of a dialect take: 0.3
    takes id and tag only as Python 3 writes bytes."""
    event, peer_id, tag = args
    if dialect == BASE64:
        return [event, f"b'{peer_id}'", f"b'{tag}'"]
    peer = PeerId(peer_id.encode("ascii"))
    return [event, peer.host, peer.port, decode_text(tag)]


# ---------------------------------------------------------------------------------- replies


def encode_result(value: Any, limits: Limits = Limits(), dialect: str = BASE64) -> bytes:
    """The reply with a value. In 0.4 a flag stands alone, a dict as it is, anything else under
    ``raw``. Of a dict with a member ``raw`` it would take that alone, so such a dict goes under
    ``raw``, too.

    In place of a reply that an old program could not receive whole, it is a short error.
    """
    content = value
    if type(value) is Flag:
        if dialect == BASE64:
            return bytes(value)
        content = decode_text(value)
    elif dialect == BASE64 and (not isinstance(value, dict) or "raw" in value):
        content = {"raw": value}
    try:
        _check_shape(content, limits.depth)
        data = _encode(content, dialect)
    except MessageTooLarge as problem:
        return encode_error(f"MessageTooLarge: {problem}", dialect)
    except (TypeError, ValueError, RecursionError) as problem:
        return encode_error(f"ValueNotSupported: result: {problem}", dialect)
    if len(data) > MAX_MESSAGE:
        return encode_error(f"MessageTooLarge: the reply has {len(data):,} bytes, the old dialect "
                            f"carries {MAX_MESSAGE:,}", dialect)
    return data


def encode_error(text: str, dialect: str = BASE64) -> bytes:
    """The error reply. Of a long traceback only the end stays, which says the most."""
    while True:
        data = _encode({"payload": "error", "traceback": text}, dialect)
        if len(data) <= MAX_MESSAGE:
            return data
        text = text[len(text) // 8 + 1:]


def encode_info(facts: Dict[str, Any], tags: Iterable[bytes], dialect: str) -> bytes:
    """The reply to ``info``: what old programs need, and of the rest as much as they can receive.
    To them, no group is the text ``None``. No bytes if even what they need is too long."""
    needed = {name: facts.get(name) for name in ("host", "port", "hub", "executable", "user")}
    needed["executable"] = str(needed["executable"] or "")[-MAX_FACT:]
    needed["user"] = str(needed["user"] or "")[:MAX_FACT]
    needed["group"] = "None" if facts.get("group") is None else facts["group"]
    # Those of the application first: these are what people may want to call.
    names = sorted(dict.fromkeys(decode_text(unmarked(tag)) for tag in tags),
                   key=lambda name: name.startswith("net."))
    needed.update(subscriptions=[], flags=["INVALID_CONNECTION", "NULL"],
                  tag=f"<net.Peer h:{needed['host']} p:{needed['port']} g:{needed['group']} "
                      f"c:{len(names)} s:0 f:2>")
    # No name has less than two quotes, a comma and a space around it.
    del names[MAX_MESSAGE // 5:]
    needed["connections"] = names
    content = {name: needed[name] for name in NEEDED[dialect]}
    more = sorted(((name, value) for name, value in facts.items()
                   if name not in content and name not in NEEDLESS),
                  key=lambda one: one[0] == "facts")
    while True:
        try:
            data = _encode({**content, **dict(more)}, dialect)
        except (TypeError, ValueError, RecursionError):  # facts can be anything
            data = b""
        if 0 < len(data) <= MAX_MESSAGE:
            return data
        if not more and not names:
            return b""
        (more or names).pop()


def _encode(content: Any, dialect: str) -> bytes:
    text = json.dumps(content).encode("ascii")
    return base64.b64encode(text) if dialect == BASE64 else text


def _check_shape(content: Any, depth: int) -> None:
    """Refuse what the encoder must not even begin with.

    :raises ValueError: nested deeper than the limit: it could overflow the stack.
    :raises MessageTooLarge: more values at one level than a message has bytes.
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


def _is_name(text: str) -> bool:
    return text[:1].isalnum() and text.isprintable() and len(text) <= MAX_FLAG


def is_flag(data: bytes) -> bool:
    """Whether a reply of 0.4 is a bare flag rather than an object: base64 of a name."""
    try:
        return _is_name(base64.b64decode(data, validate=True).decode("ascii"))
    except ValueError:
        return False


def _decode_base64(data: bytes, limits: Limits) -> Any:
    if is_flag(data):
        return Flag(data)
    try:
        content = read_object(data, limits)
    except ProtocolError as problem:
        raise ProtocolError(None, problem.reason, "maybe") from None
    if content is None:
        raise ProtocolError(None, "an incomplete reply in the old dialect", "maybe")
    return content


def _decode_plain(data: bytes, limits: Limits) -> Any:
    try:
        check_depth(data, limits.depth + ENVELOPE)
        text = data.decode("ascii").strip()
        try:
            value = json.loads(text)
        except ValueError:
            if _is_name(text) and text.replace("_", "").isupper():
                return Flag(encode_text(text))
            raise
    except ProtocolError as problem:
        raise ProtocolError(None, problem.reason, "maybe") from None
    except (ValueError, RecursionError):
        raise ProtocolError(None, f"a reply in the old dialect that starts with {data[:12]!r}",
                            "maybe") from None
    if type(value) is str and _is_name(value):
        # A flag of an application cannot be told from its name as a text.
        return Flag(encode_text(value), text=value)
    return value


def _remote_error(text: Any, peer: object, tag: bytes) -> RemoteError:
    """The matching error, as far as the last line of a traceback tells."""
    whole = text if isinstance(text, str) else str(text)
    last = (whole.strip().splitlines() or [""])[-1]
    name, _, message = last.partition(": ")
    if not _may_name_exception(name):
        name, message = "Exception", printable(last)
    # For its own exceptions and those of the main module, Python writes no module.
    module, _, short = name.rpartition(".")
    module = module or ("builtins" if hasattr(builtins, name) else "__main__")
    return rebuild({"types": [[module, short], ["builtins", "Exception"]], "text": message,
                    "traceback": whole, "args": [message] if message else []}, peer, tag)


def _may_name_exception(name: str) -> bool:
    known = vars(builtins).get(name, Exception)
    return name.replace(".", "").isidentifier() and isinstance(known, type) \
        and issubclass(known, Exception)
