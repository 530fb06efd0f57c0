"""Every error that app-net raises, in one tree.

::

    NetError
    |-- PeerUnreachable      ConnectionError   nobody answers there            did not run
    |-- PeerBusy             ConnectionError   the peer is at its limit        did not run
    |-- AuthenticationError  ConnectionError   secrets do not match            did not run
    |-- PeerLost             ConnectionError   broke after the request left    may have run
    |-- CallTimeout          TimeoutError      no whole reply in time          may have run
    |-- ProtocolError        ConnectionError   not our wire                    did not run
    |-- InvalidPeer          ValueError        not a peer id or address        did not run
    |-- InvalidConnection    LookupError       that peer has no such tag       did not run
    |-- ValueNotSupported    TypeError         a value cannot travel           see ``ran``
    |-- MessageTooLarge      ValueError        over a limit                    see ``ran``
    |-- NoFreePort           OSError           every port of the range taken
    `-- RemoteError          the remote class  the function raised             ran

Each keeps its facts as attributes; the text is made of them. ``ran`` says what is known about the
call: ``"no"``, ``"maybe"`` or ``"yes"``.
"""
from __future__ import annotations

from typing import Any, Optional, Tuple

Address = Tuple[str, int]


def _restore(cls: type, args: Tuple[Any, ...], facts: dict) -> BaseException:
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


def _place(address: Optional[Address]) -> str:
    if address is None:
        return "the peer"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class PeerUnreachable(NetError, ConnectionError):
    """Nobody answers at that address. The call did not run.

    :ivar address: ``(host, port)``.
    :ivar reason: what the operating system said.
    """

    def __init__(self, address: Optional[Address], reason: str) -> None:
        super().__init__(f"no peer answers at {_place(address)}: {reason}; the call did not run")
        self.address = address
        self.reason = reason


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
    """Secrets or certificates do not match, or only one side has them; or the peer takes such a
    call from others only. The call did not run.

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
    :ivar timeout: seconds that the call was given.
    :ivar ran: ``"no"`` when the time ran out before the request left, else ``"maybe"``.
    """

    ran = "maybe"

    def __init__(self, address: Optional[Address], timeout: float, ran: str = "maybe") -> None:
        outcome = "may have run" if ran == "maybe" else "did not run"
        super().__init__(
            f"no whole reply from {_place(address)} within {timeout:g} s; the call {outcome}")
        self.address = address
        self.timeout = timeout
        self.ran = ran


class ProtocolError(NetError, ConnectionError):
    """The other side does not speak our wire, or broke its rules.

    :ivar address: ``(host, port)``, None where it is not known.
    :ivar reason: what was wrong.
    :ivar ran: ``"no"``, or ``"maybe"`` when the rules were broken within a reply.
    """

    def __init__(self, address: Optional[Address], reason: str, ran: str = "no") -> None:
        outcome = {"no": "did not run", "maybe": "may have run"}[ran]
        super().__init__(f"{_place(address)} does not follow the protocol: {reason}; "
                         f"the call {outcome}")
        self.address = address
        self.reason = reason
        self.ran = ran


class InvalidPeer(NetError, ValueError):
    """What was given as a peer is not a peer id or an address. Nothing was sent.

    :ivar peer: what was given.
    """

    def __init__(self, peer: object, reason: str) -> None:
        super().__init__(f"{_short(peer)} is not a peer: {reason}. Use a peer id (bytes or str), "
                         f"(host, port) or 'host:port'")
        self.peer = peer


class InvalidConnection(NetError, LookupError):
    """That peer has no connection of this tag. The call did not run.

    :ivar tag: the base64 tag that was asked for.
    :ivar name: the tag as text.
    :ivar peer: the peer that was asked, as it was given; None for this process.
    :ivar near: names of tags of that peer that look alike, at most three.
    """

    def __init__(self, tag: bytes, name: str, peer: object = None,
                 near: Tuple[str, ...] = ()) -> None:
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else \
            "; does the application there define it under the same module and name, or tag?"
        where = "this process" if peer is None else _short(peer)
        super().__init__(f"{where} has no connection {name!r}{hint}")
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
