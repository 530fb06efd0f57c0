"""app-net: call functions of other Python processes on this host and on the LAN.

Decorate a function with :func:`net.connect`; every process that runs the same application can then
call it with ``peer=``, an id from the function's ``peers()`` or from :func:`net.peers`::

    import net

    @net.connect
    def multiply(a, b):
        return a * b

    multiply(5, 10)                                                   # runs here
    [multiply(5, 10, peer=peer_id) for peer_id in multiply.peers()]   # runs there
"""
from __future__ import annotations

from . import interrupts as _interrupts

if _interrupts.is_program():  # which may be interrupted while it imports the rest
    _interrupts.leave_to_system()

import logging
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union

from .context import cancelled, caller, remaining
from .decorators import connect, flag, value
from .defaults import (connections, describe, info, invalid_connection, null, null_response,
                       pass_through, subscription_handler)
from .settings import TABLE
from .settings import settings as _settings
from .errors import (AuthenticationError, CallCancelled, CallTimeout, InvalidConnection,
                     InvalidPeer, MessageTooLarge, NetError, NoFreePort, PeerBusy, PeerLost,
                     PeerUnreachable, ProtocolError, RemoteError, SettingError, TooFewPeers,
                     ValueNotSupported)
from .identity import PeerId
from .peer import Peer
from .wiring import wire as _wire

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack  # every type checker brings it along

    from .calls.many import Executor
    from . import metrics as metrics  # noqa: F401
    from . import testing as testing  # noqa: F401
    from .calls.start import Call
    from .discovery import get_peers, peer_group, peers, watch
    from .events import event, flush, subscribe, unsubscribe
    from .objects import disconnect, remote
    from .parallel import register_joblib
    from .serving import main_thread, serve, serve_async
    from .settings import Secret
    from .statistics import stats

    # Each setting takes the forms that its variable takes, and more.
    _Values = TypedDict("_Values", {
        "thread_limit": Any, "port_start": Any, "port_range": Any, "group": Any, "is_hub": Any,
        "host": Any, "launch": Any, "timeout": Any, "name": Any, "facts": Any, "peers": Any,
        "advertise": Any, "sweep": Any, "interfaces": Any, "engine": Any, "router": Any,
        "allow": Any, "secret": Any, "secret_file": Any, "tls_cert": Any, "tls_key": Any,
        "tls_ca": Any, "traceback": Any, "describe": Any, "max_text": Any, "max_buffers": Any,
        "max_depth": Any, "max_memory": Any, "max_connections": Any, "max_calls": Any,
        "request_time": Any, "idle_time": Any, "unix": Any, "grace": Any, "backlog": Any},
        total=False)

#: What is loaded at its first use: public name -> module.
_LATER = {"Call": "calls.start", "Executor": "calls.many", "disconnect": "objects",
          "event": "events", "flush": "events", "get_peers": "discovery",
          "main_thread": "serving", "peer_group": "discovery", "peers": "discovery",
          "register_joblib": "parallel", "remote": "objects", "serve": "serving",
          "serve_async": "serving", "stats": "statistics", "subscribe": "events",
          "unsubscribe": "events", "watch": "discovery"}

#: Public modules that few programs need, loaded at their first use.
_MODULES = ("metrics", "testing")

__version__ = "1.0.0"

__all__ = [
    "AuthenticationError", "Call", "CallCancelled", "CallTimeout", "Executor", "InvalidConnection",
    "InvalidPeer", "LOGGER", "MessageTooLarge", "NetError", "NoFreePort", "Peer", "PeerBusy",
    "PeerId", "PeerLost", "PeerUnreachable", "ProtocolError", "RemoteError", "SettingError",
    "TooFewPeers", "ValueNotSupported", "caller", "cancelled", "configure", "connect",
    "connections", "describe", "disconnect", "event", "flag", "flush", "get_peers", "info",
    "invalid_connection", "main_thread", "null", "null_response", "pass_through", "peer_group",
    "peers", "register_joblib", "remaining", "remote", "serve", "serve_async", "stats",
    "subscribe", "subscription_handler", "unsubscribe", "value", "watch",
]

#: The logger of app-net, under which all of its modules log.
LOGGER = logging.getLogger(__name__)
_wire()

# The settings, for type checkers; net/settings.py has their defaults and limits. More types can be
# assigned than are read.
THREAD_LIMIT: int
PORT_START: int
PORT_RANGE: int
GROUP: Optional[str]
IS_HUB: bool
HOST: Optional[str]
LAUNCH: bool
TIMEOUT: Optional[float]
NAME: Optional[str]
FACTS: Dict[str, Any]
PEERS: Sequence[str]
ADVERTISE: Union[str, Tuple[str, Optional[int]], None]
SWEEP: Optional[bool]
INTERFACES: Sequence[str]
ENGINE: Optional[str]
ROUTER: Sequence[str]
ALLOW: Sequence[Any]
SECRET: Union[str, Secret, None]
SECRET_FILE: Union[str, "os.PathLike[str]", None]
TLS_CERT: Union[str, "os.PathLike[str]", None]
TLS_KEY: Union[str, "os.PathLike[str]", None]
TLS_CA: Union[str, "os.PathLike[str]", None]
TRACEBACK: str
DESCRIBE: str
MAX_TEXT: int
MAX_BUFFERS: int
MAX_DEPTH: int
MAX_MEMORY: int
MAX_CONNECTIONS: int
MAX_CALLS: int
REQUEST_TIME: float
IDLE_TIME: float
UNIX: bool
GRACE: float
BACKLOG: int


def configure(**values: Unpack[_Values]) -> None:
    """Set settings by name, such as ``net.configure(timeout=5, facts={"gpus": 2})``.

    They take effect at their next use; the address of a running peer stays until it is launched
    again. Assigning to ``net.TIMEOUT`` does the same.

    :raises SettingError: no such setting, or a value that it cannot take.
    """
    for name, given in values.items():
        _settings.set(name, given)


class _Module(ModuleType):
    """This module, with the settings as attributes in upper case."""

    def __getattr__(self, name: str) -> Any:
        if name.isupper() and name.lower() in TABLE:
            return getattr(_settings, name.lower())
        if name in _MODULES:
            return import_module(f"{self.__name__}.{name}")
        if name in _LATER:
            found = getattr(import_module(f"{self.__name__}.{_LATER[name]}"), name)
            self.__dict__[name] = found
            return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, given: Any) -> None:
        if name.isupper() and name not in self.__dict__:
            _settings.set(name.lower(), given)
        else:
            super().__setattr__(name, given)

    def __dir__(self) -> List[str]:
        return sorted([*__all__, *map(str.upper, TABLE)])


sys.modules[__name__].__class__ = _Module
