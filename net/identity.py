"""Peer ids, addresses, tags and flags: names as they are on the wire."""
from __future__ import annotations

import base64
import binascii
import os
import socket
import sys
from typing import Any, Dict, Iterable, Mapping, Optional, Protocol, Tuple, Union

from .errors import Address, InvalidPeer
from .errors import place_text as place_text  # the ground floor has to have these two
from .errors import printable as printable


class HasId(Protocol):
    """An object with a peer id, such as ``net.Peer()``."""

    @property
    def id(self) -> PeerId:
        """The peer id."""
        ...


#: What ``peer=`` takes: a peer id, ``(host, port)``, ``"host:port"`` or ``net.Peer()``.
PeerArgument = Union[bytes, str, Tuple[str, int], HasId]

# The longest name that the domain name system allows; ids and tags need no more.
MAX_HOST = 253
# Bytes of a base64 id. Host, port and a group of 64 characters fit in many times over.
MAX_ID = 2048
_NOT_IN_HOSTS = frozenset(" /[]")


class _ByName:
    """Gives host, port and group by name, too, as in ``peer["host"]``: programs that were written
    for 0.3 and 0.4 read them so in handlers of flags."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        if type(key) is not str:
            return super().__getitem__(key)  # type: ignore[misc]
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    @staticmethod
    def keys() -> Tuple[str, ...]:
        """The names."""
        return "host", "port", "group"


class PeerId(_ByName, bytes):
    """The documented peer id: base64 of ``host:port -> group``, as bytes. An IPv6 address stands in
    brackets: ``[fd00::1]:3010 -> group``.

    It equals the plain bytes and can be used wherever they can. ``peer["host"]`` is ``peer.host``.

    :raises InvalidPeer: not a peer id.
    :ivar host: str
    :ivar port: int
    :ivar group: str, or None
    :ivar info: what the peer says about itself and how it was found; empty unless the id comes from
        :func:`net.peers`.
    """

    host: str
    port: int
    group: Optional[str]
    info: Dict[str, Any]

    def __new__(cls, encoded: bytes, info: Optional[Dict[str, Any]] = None) -> "PeerId":
        if not isinstance(encoded, bytes):
            raise InvalidPeer(encoded, f"{type(encoded).__name__} is no peer id")
        self = super().__new__(cls, encoded)
        self.host, self.port, self.group = _parse_id(self)
        self.info = {} if info is None else info
        return self

    @property
    def hub(self) -> bool:
        """Whether the peer says that it is a hub."""
        return self.info.get("hub") is True

    @property
    def address(self) -> Address:
        """``(host, port)``."""
        return self.host, self.port

    def __repr__(self) -> str:
        return f"PeerId({self} -> {printable(str(self.group))})"

    def __str__(self) -> str:
        # As peer= takes it.
        return place_text(self.address)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> Any:
        return PeerId, (bytes(self), self.info)


class Place(_ByName, Tuple[str, int]):
    """``(host, port)`` with the attributes and the names of an id; its group is None."""

    group = None

    @property
    def host(self) -> str:
        return self[0]

    @property
    def port(self) -> int:
        return self[1]


def by_name(peer: Any) -> Any:
    """A ``peer=`` argument in a form that has its host and port by name, if it is an id or ``(host,
    port)``; such a form equals the bytes or the tuple that was given. Any other argument is
    returned as it is."""
    if type(peer) is tuple:
        return Place(peer)
    if type(peer) is str and ":" not in peer:
        peer = peer.encode("ascii")
    return PeerId(peer) if type(peer) is bytes else peer


class Flag(bytes):
    """What a function returns to have a flag handled on the calling side.

    Only an object of this class is a flag; equal bytes or text are just values.

    :ivar details: JSON value that goes to the flag's handler.
    :ivar text: the result of the call where no flag of this name is defined, None for an error:
        some old peers do not tell flags from texts.
    """

    details: Any = None
    text: Optional[str] = None

    def __new__(cls, encoded: bytes, details: Any = None, text: Optional[str] = None) -> "Flag":
        self = super().__new__(cls, encoded)
        self.details = details
        self.text = text
        return self


def encode_text(text: str) -> bytes:
    """Base64 of a text, the form of tags, flags and ids."""
    return base64.b64encode(text.encode("utf-8", "surrogatepass"))


def decode_text(encoded: Union[bytes, str]) -> str:
    """The text of a tag, flag or id.

    :raises ValueError: not base64 of UTF-8.
    """
    if isinstance(encoded, str):
        encoded = encoded.encode("ascii")
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "surrogatepass")
    except binascii.Error as problem:
        raise ValueError(f"not base64: {problem}") from None


def make_tag(module: str, name: str) -> bytes:
    """The tag of a function that was not given one.

    :param module: as :func:`public_module` gives it.
    :param name: with the classes around it, as in ``Scope.read``.
    """
    return encode_text(f"{module}.{name}")


def functions_digest(names: Iterable[str]) -> str:
    """The digest of a set of functions: 16 hexadecimal digits that are the same in all peers with
    the same functions."""
    from _blake2 import blake2b  # hashlib would load OpenSSL

    text = "\n".join(sorted(names)).encode("utf-8", "surrogatepass")
    return str(blake2b(text, digest_size=8).hexdigest())


#: Python's name for the main program, and for the parent's in a spawned child of multiprocessing.
MAIN = ("__main__", "__mp_main__")

#: The variables of main programs in which a decorator was used, by the name that others know the
#: program by. A profiler or a debugger may run one that ``sys.modules`` does not have, and a
#: process may run several. Filled by the decorators, never by the wire.
PROGRAMS: Dict[str, Mapping[str, Any]] = {}


def remember_program(namespace: Mapping[str, Any]) -> None:
    """Keep the variables of a main program, so that its classes are known as its own; does nothing
    for any other module."""
    if namespace.get("__name__") in MAIN:
        PROGRAMS[public_module("__main__", namespace)] = namespace


def program_of(qualified: str, cls: type) -> Optional[Mapping[str, Any]]:
    """The variables of the main program that has this class under this name; None if none has."""
    first, *rest = qualified.split(".")
    for namespace in list(PROGRAMS.values()):
        found = namespace.get(first)
        for part in rest:
            found = vars(type)["__dict__"].__get__(found).get(part) \
                if issubclass(type(found), type) else None
        if found is cls:
            return namespace
    return None


def main_program() -> str:
    """The name by which others know the main program: the first one in which a decorator was used,
    otherwise the one that Python has."""
    return next(iter(PROGRAMS), "") or public_module("__main__")


def public_module(name: str, namespace: Optional[Mapping[str, Any]] = None) -> str:
    """The name by which other processes know a module, so that a file that is run meets the same
    file imported: ``python dir/studio.py`` is ``studio``, ``python -m pkg.app`` is ``pkg.app``.

    Any other module is known by its own name, and ``__main__`` stays for a main program that cannot
    be imported: a REPL, a notebook, ``-c``.

    :param namespace: the variables of the module, if they are at hand; of code that runs as a main
        program there may be several.
    """
    if name not in MAIN:
        return name
    if namespace is None:
        namespace = vars(sys.modules.get(name) or sys.modules["__main__"])
    imported_as = getattr(namespace.get("__spec__"), "name", None)
    if imported_as is not None and imported_as not in MAIN:
        return str(imported_as)
    # The loader's is still there when Python has come to the end of the file.
    path = namespace.get("__file__") or getattr(namespace.get("__loader__"), "path", None)
    if path is None and getattr(sys, "frozen", False):
        path = sys.executable
    return _module_of_file(path) if isinstance(path, str) else "__main__"


def _module_of_file(path: str) -> str:
    name = os.path.splitext(os.path.basename(path))[0]
    if name == "__main__":  # of a zip archive or a folder that is run
        name = os.path.splitext(os.path.basename(os.path.dirname(os.path.abspath(path))))[0]
    return "__main__" if not name or name.startswith("<") else name


def module_of(function: Any) -> Optional[str]:
    """The name by which others know the module of a function; None if it has none."""
    module = getattr(function, "__module__", None)
    return public_module(module, getattr(function, "__globals__", None)) \
        if isinstance(module, str) else None


def tag_of_function(function: Any) -> Optional[bytes]:
    """The tag of a function that was given none; None if it has no name. A nested function is known
    by its own name, one in a class by the names of both."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if not isinstance(name, str):
        return None
    return make_tag(module_of(function) or "builtins", name.rpartition("<locals>.")[2])


def old_tag_of_function(function: Any) -> Optional[bytes]:
    """The tag that peers of the old dialects give to it: they leave out the class around it."""
    name = getattr(function, "__name__", None)
    return make_tag(module_of(function) or "builtins", name) if isinstance(name, str) else None


def tag_of_old_peer(tag: bytes) -> bytes:
    """The tag that a peer of the old dialect means: it calls any main program ``__main__``."""
    return _moved(tag, "__main__", main_program())


def tag_for_old_peer(tag: bytes) -> bytes:
    """The tag by which a peer of the old dialect knows a function of its main program, if it runs
    the program that this process runs."""
    return _moved(tag, main_program(), "__main__")


def _moved(tag: bytes, module: str, to: str) -> bytes:
    try:
        name = decode_text(tag)
    except ValueError:
        return tag
    return make_tag(to, name[len(module) + 1:]) if name.startswith(module + ".") else tag


def tag_name(tag: Union[bytes, str]) -> str:
    """A tag as readable text, safe to print even if it is not base64."""
    try:
        return printable(decode_text(tag))
    except ValueError:
        return printable(tag.decode("ascii", "replace") if isinstance(tag, bytes) else tag)


def printable_block(text: str, limit: int = 20_000, of_a_line: int = 1000) -> str:
    """Foreign text of several lines made safe for a terminal; keeps its end when cut.

    :param limit: characters in all.
    """
    cut = text if len(text) <= limit else "...\n" + text[-limit:]
    return "\n".join(printable(line, of_a_line) for line in cut.split("\n"))


def make_id(port: int, host: str, group: Optional[str] = None) -> PeerId:
    """The peer id of an address and a group.

    :raises InvalidPeer: not a host or a port.
    """
    address = check_address(host, port, (host, port))
    encoded = encode_text(f"{place_text(address)} -> {group}")
    if len(encoded) > MAX_ID:
        raise InvalidPeer(encoded, f"an id of {len(encoded):,} bytes")
    # Without reading what was just written: a search makes hundreds.
    made = bytes.__new__(PeerId, encoded)
    made.host, made.port = address
    made.group, made.info = group_named(str(group)), {}
    return made


def _parse_id(encoded: bytes, given: object = None) -> Tuple[str, int, Optional[str]]:
    given = bytes(encoded) if given is None else given
    if len(encoded) > MAX_ID:
        raise InvalidPeer(given, f"an id of {len(encoded):,} bytes")
    try:
        text = decode_text(encoded)
    except ValueError:
        raise InvalidPeer(given, "not base64 of 'host:port -> group'") from None
    place, arrow, group = text.partition(" -> ")
    if not arrow or ":" not in place:
        raise InvalidPeer(given, "not base64 of 'host:port -> group'")
    return (*_read_place(place, given), group_named(group))


def _read_place(place: str, given: object) -> Address:
    """The address of ``host:port`` or ``[address]:port``."""
    host, _, port = place.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidPeer(given, "an IPv6 address needs brackets, as in [::1]:3010")
    return check_address(host, port, given)


def group_named(name: Optional[str]) -> Optional[str]:
    """The group of a name. That of no group is the text ``None`` in ids, and to old programs."""
    return None if name == "None" else name


def check_address(host: Any, port: Any, given: object) -> Address:
    """A host and a port, the port as int, an IPv6 address as it is usually written. ``given`` is
    what an error shows.

    :raises InvalidPeer: empty, too long or unprintable host, or a port outside 1 to 65535.
    """
    if not isinstance(host, str) or not host or len(host) > MAX_HOST:
        raise InvalidPeer(given, "no host")
    if not host.isascii() or not host.isprintable() or not _NOT_IN_HOSTS.isdisjoint(host):
        raise InvalidPeer(given, "a host has no such characters")
    if isinstance(port, str) and port.isdecimal() and port.isascii() and len(port) <= 5:
        port = int(port)
    if type(port) is not int or not 1 <= port <= 65535:
        raise InvalidPeer(given, "no port from 1 to 65535")
    try:
        return usual_host(host), port
    except ValueError:
        raise InvalidPeer(given, "no IPv6 address") from None


def usual_host(host: str) -> str:
    """A host; an IPv6 address in the usual spelling, so that one peer has one id.

    :raises ValueError: not such an address, although it has a colon.
    """
    if ":" not in host:
        return host
    host, percent, zone = host.partition("%")
    try:
        packed = socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        raise ValueError(f"{host!r:.100} is no IPv6 address") from None
    return socket.inet_ntop(socket.AF_INET6, packed) + (percent + zone if zone else "")


def without_zone(host: str) -> str:
    """A host as others are told it: the zone of a link-local address means nothing to them."""
    return host.partition("%")[0] if ":" in host else host


def address_of(peer: PeerArgument) -> Address:
    """The address that a ``peer=`` argument names. Resolves nothing.

    :raises InvalidPeer: it names none.
    """
    if isinstance(peer, PeerId):
        return peer.address
    if isinstance(peer, bytes):
        return _parse_id(peer)[:2]
    if isinstance(peer, str):
        return _address_of_text(peer)
    if isinstance(peer, tuple) and len(peer) == 2:
        return check_address(peer[0], peer[1], peer)
    if peer is None:
        raise InvalidPeer(peer, "leave peer out to run the function in this process")
    if not isinstance(peer, type):
        named = getattr(peer, "id", None)
        if isinstance(named, PeerId):
            return named.address
    raise InvalidPeer(peer, f"{type(peer).__name__} cannot name one")


def _address_of_text(peer: str) -> Address:
    if ":" in peer:
        return _read_place(peer, peer)
    try:
        return _parse_id(peer.encode("ascii"), peer)[:2]
    except (UnicodeEncodeError, InvalidPeer):
        # A longer text was meant as an id.
        host = peer if 0 < len(peer) <= 60 and peer.isprintable() else "host"
        raise InvalidPeer(peer, f"no id, and an address needs a port, as in "
                                f"'{host}:3010'") from None
