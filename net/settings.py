"""The settings: ``NET_*`` variables, :func:`net.configure` and assignment to ``net.NAME``.

A variable is read at the first use of its setting; a value that is set by :func:`net.configure` or
by assignment counts from the next use on. Limits have their unit and reason beside them.
"""
from __future__ import annotations

import json
import operator
import os
import re
import socket
from typing import Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar

from .errors import SettingError
from .identity import usual_host
from .log import warn
from .wire.limits import Limits

T = TypeVar("T")

KIB = 2 ** 10
MIB = 2 ** 20
GIB = 2 ** 30

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise ValueError("must be true or false")


def _boolean_or_none(value: Any) -> Optional[bool]:
    return None if value is None else _boolean(value)


def _whole(lowest: int, highest: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool):
            raise ValueError("must be a whole number")
        try:
            number = int(value) if isinstance(value, str) else operator.index(value)
        except (TypeError, ValueError):
            raise ValueError("must be a whole number") from None
        if not lowest <= number <= highest:
            raise ValueError(f"must be from {lowest} to {highest}")
        return number
    return parse


def _seconds(value: Any) -> Optional[float]:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a number of seconds") from None
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return number


def _needed_seconds(value: Any) -> float:
    number = _seconds(value)
    if number is None:
        raise ValueError("must be a number of seconds above 0")
    return number


def _text(value: Any) -> Optional[str]:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be text")
    if any(not character.isprintable() for character in value):
        raise ValueError("must not hold control characters")
    return value.strip() or None


def parse_group(value: Any) -> Optional[str]:
    """A group's name, None for no group.

    :raises ValueError: it could not be told apart in a peer id, or is too long for one.
    """
    group = _text(value)
    if group is not None and len(group) > 64:
        # An id is sent with every search; a longer name is a mistake.
        raise ValueError("must be at most 64 characters")
    if group == "None":
        raise ValueError("must not be 'None', which stands for no group in a peer id")
    return group


def _parse_host(value: Any) -> Optional[str]:
    """The numeric address to bind, from one or from a name that stands for it.

    :raises ValueError: anything else. A mistake in 127.0.0.1 must not open a process to the LAN.
    """
    if value is None:
        return None
    host = _text(value) or ""
    if host.lower() == "localhost":
        return "localhost"
    # 127.1 is an address, too, and inet_aton takes anything after a space.
    if is_address(host) or is_loopback(host) and " " not in host:
        return host
    address = _address_of_interface(host) if host else None
    if address is None:
        raise ValueError("must be a numeric address, localhost or a network interface of this host")
    return address


def is_address(host: str) -> bool:
    """Whether a text is a numeric IPv4 or IPv6 address."""
    for family, text in ((socket.AF_INET, host), (socket.AF_INET6, host.partition("%")[0])):
        try:
            socket.inet_pton(family, text)
            return True
        except OSError:
            pass
    return False


def _address_of_interface(name: str) -> Optional[str]:
    try:
        import ifaddr  # only a name needs it

        found = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips
                 if name in (adapter.name, adapter.nice_name, ip.nice_name)]
    except (ImportError, OSError):
        return None
    four = [str(ip.ip) for ip in found if ip.is_IPv4]
    # Those that change for privacy come before the one that they belong to.
    six: List[Any] = [ip.ip for ip in reversed(found) if not ip.is_IPv4]
    # An address that means the same on all hosts, if it has one.
    six.sort(key=lambda ip: bool(ip[2]))
    return next(iter(four + [ip[0] if not ip[2] else f"{ip[0].partition('%')[0]}%{ip[2]}"
                             for ip in six]), None)


def _name(value: Any) -> Optional[str]:
    name = _text(value)
    if name is not None and len(name) > 64:
        # It is sent with every search, and stands in a column of a table.
        raise ValueError("must be at most 64 characters")
    return name


def _words(value: Any) -> Tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(",")
    try:
        words = tuple(_text(word) for word in value)
    except TypeError:
        raise ValueError("must be texts") from None
    return tuple(word for word in words if word)


def _needed_words(value: Any) -> Tuple[str, ...]:
    words = _words(value)
    if isinstance(value, str) and not words:
        # Set but empty is a mistake in a script, and must not mean all.
        raise ValueError("must be names or addresses, separated by commas")
    return words


# A name of a host: labels of letters, digits, "-" and, as in compose files, "_".
_HOST_NAME = r"(?!-)[\w-]{1,63}(?<!-)(?:\.(?!-)[\w-]{1,63}(?<!-))*\.?"
# The limit of the domain name system.
MAX_HOST_NAME = 253


def parse_named(entry: str) -> Tuple[str, Optional[int]]:
    """The host and the port of ``host[:port]``; None for no port. Resolves nothing.

    :raises ValueError: neither an address nor a name, or not a port; the text says which.
    """
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        if not bracket or ":" not in host or port and not port.startswith(":"):
            raise ValueError("is no IPv6 address in brackets")
        port = port[1:] or port
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    host = "127.0.0.1" if host.lower() == "localhost" else host
    if not is_address(host) and not is_host_name(host):
        raise ValueError("is neither an IP address nor a name")
    if host != entry and entry.endswith(":") \
            or port and not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError("has no port from 1 to 65535")
    return usual_host(host), int(port) if port else None


def is_host_name(text: str) -> bool:
    """Whether a text may be a name of a host, and is not meant as an address."""
    return len(text) <= MAX_HOST_NAME and re.fullmatch(_HOST_NAME, text) is not None \
        and not text.rstrip(".").rpartition(".")[2].isdecimal()


def _named(value: Any) -> Tuple[str, ...]:
    words = _words(value)
    for word in words:
        try:
            parse_named(word)
        except ValueError as problem:
            raise ValueError(f"must be hosts, such as 10.1.2.3, 10.1.2.3:3010, [fd00::1]:3010 or "
                             f"render.example, separated by commas ({word!r:.100} {problem})"
                             ) from None
    return words


def _advertised(value: Any) -> Optional[Tuple[str, Optional[int]]]:
    if value is None:
        return None
    import ipaddress  # few set it

    try:
        host, port = value if isinstance(value, tuple) else parse_named(_text(value) or "")
        address = ipaddress.ip_address(str(host))
        if address.is_unspecified or address.is_multicast or port is not None \
                and not 1 <= operator.index(port) <= 65535:
            raise ValueError("no address of a peer")
    except (TypeError, ValueError):
        # A name would have to be resolved by every peer that calls.
        raise ValueError("must be the numeric address at which other hosts reach this peer, and "
                         "its port there if it is another one, such as 192.0.2.7:3010") from None
    return str(address), port


def _networks(value: Any) -> Tuple[Any, ...]:
    import ipaddress  # few set it

    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in _words(value))
    except ValueError as problem:
        raise ValueError(f"must be networks such as 192.0.2.0/24, separated by "
                         f"commas ({problem})") from None


def _path(value: Any) -> Optional[str]:
    if value is None:
        return None
    path = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if path is None:
        # Set but empty is a mistake in a script, and must not switch protection off.
        raise ValueError("must name a file")
    return path


class Secret:
    """A text that is never shown: not in ``repr``, ``str`` or any error."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


# Characters of a secret. A host that can connect can try guesses offline, at 80 ms each, and no
# limit of ours slows that down.
MIN_SECRET = 16


def parse_secret(value: Any) -> Optional[Secret]:
    """A secret from text.

    :raises ValueError: it is too short, or no text.
    """
    if value is None or isinstance(value, Secret):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if len(text) < MIN_SECRET:
        # Set but empty, too: a mistake in a script must not switch protection off.
        raise ValueError(f"must be a text of {MIN_SECRET} characters or more; "
                         f"python3 -m net secret makes one")
    return Secret(text)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)
    return parse


# Bytes of the facts as JSON. A search reads 64 KiB of what a peer says about itself, and takes it
# for a stranger if there is more.
MAX_FACTS = 32 * KIB


def _facts(value: Any) -> Dict[str, Any]:
    if value is None or value == "":
        return {}
    try:
        facts = json.loads(value if isinstance(value, str) else json.dumps(value))
        text = json.dumps(facts, ensure_ascii=False)  # as it travels
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be a JSON object") from None
    if not isinstance(facts, dict):
        raise ValueError("must be a JSON object")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FACTS:
        raise ValueError(f"must be at most {MAX_FACTS // KIB} KiB of JSON, which every search of "
                         f"others reads: NET_FACTS or net.configure(facts=...) has {size:,} bytes")
    return facts


def _engine(value: Any) -> Optional[str]:
    if value in (None, "", "zenoh"):
        return value or None
    raise ValueError("must be zenoh, or empty for none")


def _routers(value: Any) -> Tuple[str, ...]:
    words = _needed_words(value)
    for word in words:
        protocol, host, _ = parse_router(word)
        if not is_reachable(protocol, host):
            raise ValueError(NAME_OF_ROUTER)
    return words


def parse_router(text: str) -> Tuple[str, str, int]:
    """Protocol, host and port of a router. Resolves nothing.

    :raises ValueError: no router; the text says how one is written.
    """
    protocol, slash, place = text.partition("/")
    host, colon, port = place.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # which of its colons begins the port is a guess
    if protocol not in ("tcp", "tls") or not host or not port.isdecimal() or not port.isascii() \
            or not 1 <= int(port) <= 65535:
        raise ValueError("must be routers such as tls/hub.example:7447, separated by commas")
    return protocol, host, int(port)


#: What is wrong where Zenoh does not connect to a router.
NAME_OF_ROUTER = "must name a tls/ router by a host name or an IPv4 address; by an IPv6 address " \
                 "only tcp/ is reached"


def is_reachable(protocol: str, host: str) -> bool:
    """Whether Zenoh connects to a router that is named like this. Where TLS is spoken at an IPv6
    address, Zenoh 1.10 never does, although it listens there."""
    return protocol != "tls" or ":" not in host


class Setting(Generic[T]):
    """How one setting is read: an attribute of :class:`Settings` until it has a value there.

    :ivar parse: makes its value of what was given, or raises a ValueError that says what it must
        be.
    :ivar variables: that it is read from, the first one that is set; by default ``NET_`` and its
        name.
    """

    def __init__(self, default: T, parse: Callable[[Any], T],
                 variables: Tuple[str, ...] = ()) -> None:
        self.default = default
        self.parse = parse
        self.variables = variables

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.variables = self.variables or ("NET_" + name.upper(),)

    def __get__(self, settings: "Settings", owner: type) -> T:
        # Only reached while the setting has no value yet.
        settings.check_variables()
        value = settings.__dict__[self.name] = self.find()
        return value

    def find(self) -> T:
        """The value of its variable, or the default."""
        for variable in self.variables:
            if variable in os.environ:
                return self.read(variable, os.environ[variable])
        return self.default

    def read(self, label: str, value: Any) -> T:
        """A value, as text or typed, in the setting's own type.

        :raises SettingError: it cannot be understood; the text begins with the ``label``.
        """
        try:
            return self.parse(value)
        except ValueError as problem:
            if self.parse is parse_secret:
                raise SettingError(f"{label} {problem}") from None
            raise SettingError(f"{label} {problem}, not {value!r:.200}") from None


class _MessageLimits:
    """The limits of a message: an attribute of :class:`Settings` until one of them is set."""

    def __get__(self, settings: "Settings", owner: type) -> Limits:
        while True:
            limits = Limits(settings.max_text, settings.max_buffers, settings.max_depth)
            settings.__dict__["limits"] = limits
            # Unless another thread has set one of them meanwhile.
            if limits == (settings.max_text, settings.max_buffers, settings.max_depth):
                return limits


#: What the host of a peer ends with if it is reached through an engine.
ENGINE_SUFFIX = ".zenoh"

#: The settings that decide how connections are secured.
SECURITY = frozenset({"secret", "secret_file", "tls_cert", "tls_key", "tls_ca"})


class Settings:
    """All settings as attributes, such as ``settings.thread_limit``. Safe from any thread.

    :func:`net.configure` takes these names; net has them in upper case, declared for type checkers
    in ``net/__init__.py``.

    :cvar revision: changes with the terms that connections are opened under: how they are secured,
        the group, or whether they may leave this host.
    :cvar changes: how often any setting was set.
    """

    revision = changes = 0

    thread_limit = Setting(5, _whole(0, 1024))
    port_start = Setting(3010, _whole(1, 65535), ("NET_PORT_START", "NET_PORT"))
    port_range = Setting(5, _whole(0, 1024))
    group = Setting(None, parse_group)
    is_hub = Setting(False, _boolean)
    host = Setting(None, _parse_host)
    launch = Setting(True, _boolean)
    timeout = Setting(None, _seconds)
    name = Setting(None, _name)
    facts: Setting[Dict[str, Any]] = Setting({}, _facts)
    peers: Setting[Tuple[str, ...]] = Setting((), _named)
    # Where others reach the peer of this process, if not where it listens; no port: the same one.
    advertise: Setting[Optional[Tuple[str, Optional[int]]]] = Setting(None, _advertised)
    # None: only where the entries that a sweep adds to the neighbour table can be removed again.
    sweep: Setting[Optional[bool]] = Setting(None, _boolean_or_none)
    interfaces: Setting[Tuple[str, ...]] = Setting((), _needed_words)
    # What carries connections beyond the networks of this host, and its routers: one is enough.
    engine = Setting(None, _engine)
    router: Setting[Tuple[str, ...]] = Setting((), _routers)
    allow: Setting[Tuple[Any, ...]] = Setting((), _networks)
    secret = Setting(None, parse_secret)
    secret_file = Setting(None, _path)
    tls_cert = Setting(None, _path)
    tls_key = Setting(None, _path)
    tls_ca = Setting(None, _path)
    traceback = Setting("full", _one_of("full", "type", "none"))
    # How much other peers learn about the functions here.
    describe = Setting("full", _one_of("full", "signatures", "names"))
    # What one message may hold; Limits says in which units, and why.
    max_text = Setting(Limits().text, _whole(KIB, 2 * GIB))
    max_buffers = Setting(Limits().buffers, _whole(0, 2 ** 40))
    max_depth = Setting(Limits().depth, _whole(1, 200))
    #: The three as one value.
    limits = _MessageLimits()
    # Bytes that the values of large requests may take in this process at once, by a rough count.
    # 16 MiB of JSON can become 750 MiB.
    max_memory = Setting(GIB, _whole(MIB, 2 ** 40))
    # Connections a peer serves at once, each with a thread.
    max_connections = Setting(512, _whole(1, 65535))
    # Connections to one peer, and so calls to it at once; further calls wait here. The threads of a
    # peer are for all its callers.
    max_calls = Setting(64, _whole(1, 65535))
    # Seconds from the first byte of a request to its last.
    request_time = Setting(30.0, _needed_seconds)
    # Seconds that a server keeps an idle connection. Callers close theirs after 60.
    idle_time = Setting(300.0, _needed_seconds)
    # Whether peers of this host and user are reached over Unix sockets, where there are such names.
    unix = Setting(True, _boolean)
    # Seconds that running calls have to end when net.serve() ends.
    grace = Setting(5.0, _needed_seconds)
    # Connections that wait to be accepted; fewer make callers wait a second when many come at once.
    backlog = Setting(128, _whole(1, 65535))

    def check_variables(self) -> None:
        """Check once, at the first use of a setting, that all variables can be understood: no call
        may fail half-way because of one that is read late. A variable that looks like a misspelt
        setting may belong to another program, so it only causes a warning.

        :raises SettingError: one cannot be understood, or looks like a setting that protects.
        """
        if "_checked" in self.__dict__:
            return
        for name, setting in TABLE.items():
            if name not in self.__dict__:
                setting.find()
        known = {variable for setting in TABLE.values() for variable in setting.variables}
        unknown = [variable for variable in os.environ
                   if variable.startswith("NET_") and variable not in known]
        for variable in unknown:
            import difflib  # hardly ever

            near = difflib.get_close_matches(variable, known, 1, ALIKE)
            text = f"{variable} is no setting of app-net; is {' or '.join(near)} meant?"
            if PROTECTING.intersection(near):
                raise SettingError(text)
            if near:
                warn(text)
        self.__dict__["_checked"] = True

    def set(self, name: str, value: Any) -> None:
        """Give a setting a value, as text or typed.

        :raises SettingError: no such setting, or not a value for it.
        """
        setting = TABLE.get(name)
        if setting is None:
            raise SettingError(f"no setting {name!r}{_meant(name)}; there are {', '.join(TABLE)}")
        self.__dict__[name] = setting.read(name.upper(), value)
        self.__dict__.pop("limits", None)
        Settings.changes += 1
        if name in SECURITY or name in ("group", "host"):
            Settings.revision += 1

    def reset(self) -> None:
        """Forget all values: the next use reads the environment again."""
        self.__dict__.clear()
        Settings.changes += 1
        Settings.revision += 1

    @property
    def ports(self) -> range:
        """The ports that peers bind and search, both ends included."""
        stop = self.port_start + self.port_range
        if stop > 65535:
            raise SettingError(f"NET_PORT_START + NET_PORT_RANGE must be at most 65535, not {stop}")
        return range(self.port_start, stop + 1)

    @property
    def secured(self) -> bool:
        """Whether connections are TLS: there is a secret, or there are certificates."""
        return any(getattr(self, name) is not None for name in SECURITY)

    @property
    def has_engine(self) -> bool:
        """Whether there is a way beyond the networks of this host.

        :raises SettingError: one of two settings for it is missing.
        """
        if self.engine is None and self.router:
            raise SettingError("NET_ROUTER is for an engine: set NET_ENGINE=zenoh, too")
        if self.engine is not None and not self.router:
            raise SettingError(f"NET_ENGINE={self.engine} needs a router: set NET_ROUTER to one or "
                               f"several such as tls/hub.example:7447; app-net router runs one")
        return self.engine is not None

    @property
    def loopback_only(self) -> bool:
        """Whether everything stays on this host, because NET_HOST is a loopback address."""
        return self.host is not None and is_loopback(self.host)


# How similar two names must be, by the measure of difflib, for one to be taken for a misspelling of
# the other: one letter more, less or exchanged in the shortest of them.
ALIKE = 0.87
#: Variables that protect. A variable that looks like one of them must not be ignored.
PROTECTING = frozenset({"NET_HOST", "NET_ALLOW", "NET_SECRET", "NET_SECRET_FILE", "NET_TLS_CERT",
                        "NET_TLS_KEY", "NET_TLS_CA"})


def _meant(name: str) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, TABLE, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


#: The settings by name.
TABLE: Dict[str, Setting[Any]] = {name: setting for name, setting in vars(Settings).items()
                                  if isinstance(setting, Setting)}

_LOOPBACK_6 = bytes(15) + b"\x01"
_MAPPED_127 = bytes(10) + b"\xff\xff\x7f"


def is_loopback(host: str) -> bool:
    """Whether a host, as text, is a loopback address. Resolves nothing."""
    if host.lower() == "localhost":
        return True
    try:
        # As connect and bind read numbers: 127.1 is one, and 127.0.0.999 is a name to resolve.
        return socket.inet_aton(host)[0] == 127
    except OSError:
        pass
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return packed == _LOOPBACK_6 or packed.startswith(_MAPPED_127)


settings = Settings()
