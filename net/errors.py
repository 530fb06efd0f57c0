"""Every error that app-net raises, in one tree.

::

    NetError
    |-- PeerUnreachable      ConnectionError   no peer answers there           did not run
    |-- TooFewPeers          ConnectionError   fewer peers than are needed     see ``ran``
    |-- PeerBusy             ConnectionError   the peer is at its limit        did not run
    |-- AuthenticationError  ConnectionError   secrets do not match            did not run
    |-- PeerLost             ConnectionError   broke after the request left    may have run
    |-- CallTimeout          TimeoutError      no whole reply in time          see ``ran``
    |-- CallCancelled        Exception         its caller no longer waits      see ``ran``
    |-- ProtocolError        ConnectionError   not our protocol                see ``ran``
    |-- InvalidPeer          ValueError        not a peer id or address        did not run
    |-- InvalidConnection    LookupError       that peer has no such tag       did not run
    |-- ValueNotSupported    TypeError         a value cannot travel           see ``ran``
    |-- MessageTooLarge      ValueError        over a limit                    see ``ran``
    |-- NoFreePort           OSError           every port of the range taken
    |-- SettingError         ValueError        a setting cannot be understood  did not run
    `-- RemoteError          Exception         the function raised             ran

A RemoteError is also of the class that the function raised, or of its nearest known base. Each
error keeps its facts as attributes; its text is made of them. ``ran`` says what is known about the
call: ``"no"``, ``"maybe"`` or ``"yes"``. A new error goes here, into the table ``_REFUSALS`` at the
end and into ``net.__all__``.
"""
from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple, Type

Address = Tuple[str, int]


def _restore(cls: Type[NetError], args: Tuple[Any, ...], facts: Dict[str, Any]) -> NetError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


class NetError(Exception):
    """The root of all errors of app-net."""

    #: What is known about the call: ``"no"`` (it did not run), ``"maybe"`` or ``"yes"``.
    ran: str = "no"

    def __reduce__(self) -> Any:
        # Facts are set by __init__ from arguments that args no longer holds.
        return _restore, (type(self), self.args, self.__dict__.copy())


def place_text(address: Address) -> str:
    """An address as text, as ``peer=`` takes it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _place(address: Optional[Address]) -> str:
    return "the peer" if address is None else place_text(address)


class PeerUnreachable(NetError, ConnectionError):
    """No peer answers at that address. The call did not run.

    :ivar address: ``(host, port)``.
    :ivar reason: what happened, in the words of the operating system if it has reported an error.
    """

    def __init__(self, address: Optional[Address], reason: str) -> None:
        super().__init__(f"no peer answers at {_place(address)}: {reason}; the call did not run")
        self.address = address
        self.reason = reason


class TooFewPeers(NetError, ConnectionError):
    """Fewer peers have a function than are needed, or none of those that have it could be asked.

    :ivar name: of the function; empty for peers of any kind.
    :ivar found: how many peers there are.
    :ivar wanted: how many are needed.
    :ivar reason: why there are no more, or why those that were tried could not run it.
    :ivar ran: ``"maybe"`` when a peer was lost with a call that may be repeated, else ``"no"``.
    """

    def __init__(self, name: str, found: int, wanted: int, reason: str, ran: str = "no") -> None:
        what = f"that can run {name}" if name else "were found"
        outcome = "" if ran == "no" else "; one that was lost may have run it"
        super().__init__(f"{found} of {wanted} peers {what}: {reason}{outcome}")
        self.name = name
        self.found = found
        self.wanted = wanted
        self.reason = reason
        self.ran = ran


class PeerBusy(NetError, ConnectionError):
    """The peer is at its limit of connections or threads. The call did not run; try again later.

    :ivar address: ``(host, port)``, None where the peer itself raises it.
    :ivar reason: which limit, and the setting that raises it.
    """

    def __init__(self, address: Optional[Address], reason: str) -> None:
        super().__init__(f"{_place(address)} is busy: {reason}; the call did not run")
        self.address = address
        self.reason = reason


class AuthenticationError(NetError, ConnectionError):
    """Secrets or certificates do not match, or only one side has them; or the peer accepts such a
    call only from others. The call did not run.

    :ivar address: ``(host, port)``.
    :ivar reason: what did not match and how to mend it.
    """

    def __init__(self, address: Optional[Address], reason: str) -> None:
        super().__init__(f"{_place(address)}: {reason}; the call did not run")
        self.address = address
        self.reason = reason


class PeerLost(NetError, ConnectionError):
    """The connection broke after the request may have left. The call may have run.

    :ivar address: ``(host, port)``.
    :ivar reason: how the connection ended.
    """

    ran = "maybe"

    def __init__(self, address: Optional[Address], reason: str) -> None:
        super().__init__(
            f"lost {_place(address)} before its reply: {reason}; the call may have run")
        self.address = address
        self.reason = reason


class CallTimeout(NetError, TimeoutError):
    """No whole reply came in time.

    :ivar address: ``(host, port)``.
    :ivar timeout: seconds that the call had.
    :ivar ran: ``"no"`` when the time ran out before the request left, or before the executor of the
        function there was free, else ``"maybe"``.
    """

    ran = "maybe"

    def __init__(self, address: Optional[Address], timeout: float, ran: str = "maybe") -> None:
        outcome = {"no": "did not run", "yes": "ran"}.get(ran, "may have run")
        super().__init__(
            f"no whole reply from {_place(address)} within {timeout:g} s; the call {outcome}")
        self.address = address
        self.timeout = timeout
        self.ran = ran


class CallCancelled(NetError):
    """The caller no longer waits for the call: it was cancelled, or the call that made it was.

    :ivar reason: what ended it.
    :ivar ran: ``"no"`` when it had not begun, else ``"maybe"``.
    """

    def __init__(self, reason: str, ran: str = "maybe") -> None:
        outcome = "may have run" if ran == "maybe" else "did not run"
        super().__init__(f"the call was cancelled: {reason}; it {outcome}")
        self.reason = reason
        self.ran = ran


class ProtocolError(NetError, ConnectionError):
    """The other side does not speak the protocol, or broke its rules.

    :ivar address: ``(host, port)``, None where it is not known.
    :ivar reason: what was wrong.
    :ivar ran: ``"no"``, or ``"maybe"`` when the rules were broken within a reply.
    """

    def __init__(self, address: Optional[Address], reason: str, ran: str = "no") -> None:
        outcome = {"no": "did not run", "yes": "ran"}.get(ran, "may have run")
        super().__init__(f"{_place(address)} does not follow the protocol: {reason}; "
                         f"the call {outcome}")
        self.address = address
        self.reason = reason
        self.ran = ran


class InvalidPeer(NetError, ValueError):
    """What was given as a peer is not a peer id or an address. Nothing was sent.

    :ivar peer: what was given.
    :ivar reason: what is wrong with it.
    """

    def __init__(self, peer: object, reason: str) -> None:
        super().__init__(f"{_short(peer)} is not a peer: {reason}. Use a peer id (bytes or str), "
                         f"(host, port) or 'host:port'")
        self.peer = peer
        self.reason = reason


class InvalidConnection(NetError, LookupError):
    """That peer has no function of this tag. The call did not run.

    :ivar tag: the base64 tag that was asked for.
    :ivar name: the tag as text.
    :ivar peer: the peer that was asked, as it was given; None for this process.
    :ivar near: similar names of tags of that peer, at most three.
    """

    def __init__(self, tag: bytes, name: str, peer: object = None,
                 near: Tuple[str, ...] = ()) -> None:
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else \
            "; does the application there define it under the same module and name, or tag?"
        where = "this process" if peer is None else _short(peer)
        super().__init__(f"Peer does not have the connection you are requesting: {where} has no "
                         f"function {name!r}{hint}")
        self.tag = tag
        self.name = name
        self.peer = peer
        self.near = near


class ValueNotSupported(NetError, TypeError):
    """A value cannot travel to another peer.

    :ivar path: where it is, such as ``args[1]['x'][3]`` or ``result``.
    :ivar reason: its type, or why it cannot travel.
    :ivar ran: ``"no"`` for an argument, ``"yes"`` for a result.
    """

    def __init__(self, path: str, reason: str, ran: str = "no") -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.ran = ran

    def inside(self, step: str) -> "ValueNotSupported":
        """The same error as seen from the container around it; ``step`` leads to the value."""
        return ValueNotSupported(step + self.path, self.reason, self.ran)


class MessageTooLarge(NetError, ValueError):
    """A request or a reply is over a limit.

    :ivar what: which part is too large.
    :ivar size: its size, in the limit's unit; None where counting stopped at the limit.
    :ivar limit: the limit.
    :ivar setting: the ``NET_*`` setting that raises it, None when it is fixed.
    :ivar ran: ``"no"`` for a request, ``"yes"`` for a reply.
    """

    def __init__(self, what: str, size: Optional[int], limit: int, setting: Optional[str],
                 ran: str = "no") -> None:
        amount = f"{size:,}" if size is not None else f"more than {limit:,}"
        advice = f"; {setting} raises it, on both sides" if setting else ""
        super().__init__(f"{what}: {amount}, the limit is {limit:,}{advice}")
        self.what = what
        self.size = size
        self.limit = limit
        self.setting = setting
        self.ran = ran


class NoFreePort(NetError, OSError):
    """Every port of the range is taken on this host.

    :ivar host: the address that was to be bound.
    :ivar ports: the range that was tried.
    """

    def __init__(self, host: str, ports: range) -> None:
        super().__init__(
            f"no free port on {host} from {ports.start} to {ports.stop - 1}; end a peer, or set "
            f"NET_PORT_START or NET_PORT_RANGE")
        self.host = host
        self.ports = ports


class RemoteError(NetError):
    """The function raised on the other peer. The call ran.

    What is raised is a subclass of this and of the remote exception's own class, or of its nearest
    known base: ``except ValueError`` and ``except net.RemoteError`` both catch it.

    :ivar traceback: the remote traceback as text, over all hops; empty if the peer withholds it.
    :ivar peer: the peer that was called, as it was given.
    :ivar tag: the base64 tag that was called.
    """

    ran = "yes"
    traceback: str = ""
    peer: object = None
    tag: bytes = b""


class SettingError(NetError, ValueError):
    """A setting has a value that it cannot take; the text names the variable."""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else _short(value)


def printable(text: str, limit: int = 200) -> str:
    """Foreign text made safe for a log or a terminal: control characters escaped, and cut after
    ``limit`` characters."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


# What travels in a refusal: a peer's reply that says why it did not run a function, or could not
# send what the function returned. Each fact has one way of writing and one of reading.

class _Fact(NamedTuple):
    """How one fact of an error travels. ``read`` raises ValueError or TypeError for anything that
    ``write`` does not give."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"not {' or '.join(kind.__name__ for kind in kinds)}")
        # What a frame can announce has 80 bits at most; to write out more could take long.
        if type(value) is int and value.bit_length() > 80:
            raise ValueError("not a size or a port")
        return printable(value) if type(value) is str else value
    return read


def _list_of(kind: type, most: int) -> Callable[[Any], Any]:
    # Of a list alone: a range would unroll to any size.
    def read(value: Any) -> Any:
        if type(value) is not list or len(value) > most:
            raise TypeError(f"not a list of {most} at most")
        return list(map(_exactly(kind), value))
    return read


def _read_tag(value: Any) -> bytes:
    if type(value) is not str:
        raise TypeError("not a tag")
    return value.encode("ascii")


def _read_ran(value: Any) -> Any:
    return value if type(value) is str and value in ("no", "maybe", "yes") else "maybe"


# Names that are near an unknown one: a peer gives three.
MAX_NEAR = 10

_TEXT = _Fact(str, _exactly(str))
_OPTIONAL_TEXT = _Fact(lambda value: value, _exactly(str, type(None)))
_WHOLE = _Fact(int, _exactly(int))
_OPTIONAL_WHOLE = _Fact(lambda value: value, _exactly(int, type(None)))
_RAN = _Fact(str, _read_ran)

#: Class -> what its constructor takes, in order: the name of an attribute and how it travels. None
# stands for the address of the refusing peer, which the caller knows; ``text`` for the text of the
# error.
_REFUSALS: Dict[Type[NetError], Dict[str, Optional[_Fact]]] = {
    NetError: {"text": _TEXT},
    PeerUnreachable: {"address": None, "reason": _TEXT},
    TooFewPeers: {"name": _TEXT, "found": _WHOLE, "wanted": _WHOLE, "reason": _TEXT, "ran": _RAN},
    PeerBusy: {"address": None, "reason": _TEXT},
    AuthenticationError: {"address": None, "reason": _TEXT},
    PeerLost: {"address": None, "reason": _TEXT},
    CallTimeout: {"address": None, "timeout": _Fact(float, _exactly(float, int)), "ran": _RAN},
    CallCancelled: {"reason": _TEXT, "ran": _RAN},
    ProtocolError: {"address": None, "reason": _TEXT, "ran": _RAN},
    InvalidPeer: {"peer": _Fact(_as_text, _exactly(str)), "reason": _TEXT},
    InvalidConnection: {
        "tag": _Fact(lambda tag: tag.decode("ascii"), _read_tag),
        "name": _TEXT,
        "peer": None,
        "near": _Fact(list, lambda names: tuple(_list_of(str, MAX_NEAR)(names)))},
    ValueNotSupported: {"path": _TEXT, "reason": _TEXT, "ran": _RAN},
    MessageTooLarge: {"what": _TEXT, "size": _OPTIONAL_WHOLE, "limit": _WHOLE,
                      "setting": _OPTIONAL_TEXT, "ran": _RAN},
    NoFreePort: {"host": _TEXT, "ports": _Fact(lambda ports: [ports.start, ports.stop],
                                               lambda ends: range(*_list_of(int, 2)(ends)))},
    SettingError: {"text": _TEXT},
    RemoteError: {"text": _TEXT},
}


def to_refusal(error: NetError) -> Dict[str, Any]:
    """An error as JSON values: its class as ``refused``, ``ran``, and its facts.

    A class that is not of the tree travels as its nearest base in it.
    """
    cls = next(base for base in type(error).__mro__ if base in _REFUSALS)
    refusal = {"refused": cls.__name__, "ran": error.ran}
    for name, fact in _REFUSALS[cls].items():
        if fact is not None:
            refusal[name] = fact.write(str(error) if name == "text" else getattr(error, name))
    return refusal


def from_refusal(name: str, facts: Mapping[str, Any], address: Optional[Address]) -> NetError:
    """The error of a refusal. Its class comes from the tree, never from the wire.

    :param name: its class, as the peer said. One that is not known here, of a newer peer, becomes
        a NetError.
    :param facts: as the peer said; those that are not known here are ignored.
    :param address: of the peer.
    :raises ValueError, TypeError, LookupError, AttributeError: a fact is missing, or not of its
        kind.
    """
    cls = _BY_NAME.get(name)
    if cls is None:
        reason = next((printable(text) for text in map(facts.get, ("reason", "text"))
                       if type(text) is str and text), "no reason")
        error = NetError(f"{_place(address)} refused with {printable(name)}: {reason}")
    else:
        error = cls(*[address if fact is None else fact.read(facts[fact_name])
                      for fact_name, fact in _REFUSALS[cls].items()])
    ran = _read_ran(facts.get("ran"))
    if error.ran != ran:
        error.ran = ran
    return error


_BY_NAME = {cls.__name__: cls for cls in _REFUSALS}
