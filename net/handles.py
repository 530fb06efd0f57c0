"""The handle on a connected object: its public methods."""
from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, Optional

from .identity import PeerArgument


class Handle:
    """The public methods of an object, each connected as ``name.method``; see :func:`net.connect`.

    Without ``peer`` a method runs here, with it the method of the same name there. Properties are
    left out. A method with a name that the handle uses itself is reached as ``handle["name"]``.
    """

    def __init__(self, name: str, obj: Any, methods: Dict[str, Any]) -> None:
        self._name = name
        self._object = obj
        self._methods = methods

    def on(self, peer: PeerArgument, timeout: Optional[float] = None) -> HandleOnPeer:
        """The same methods bound to a peer: they are called without ``peer``.

        :param timeout: seconds for each call; None for ``NET_TIMEOUT``, or no limit.
        :raises InvalidPeer: not a peer id or an address.
        :raises ValueError: a timeout that is not above 0.
        """
        return HandleOnPeer(self._name, {name: method.on(peer, timeout)
                                         for name, method in self._methods.items()})

    def __getattr__(self, name: str) -> Any:
        return _look_up(self, name)

    def __getitem__(self, name: str) -> Any:
        return self._methods[name]

    def __dir__(self) -> List[str]:
        return sorted({*self._methods, "on"})

    def __repr__(self) -> str:
        return f"<{type(self._object).__qualname__} connected as {self._name!r}: " \
               f"{', '.join(self._methods)}>"


class HandleOnPeer:
    """The methods of an object, bound to a peer."""

    def __init__(self, name: str, methods: Dict[str, Any]) -> None:
        self._name = name
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return _look_up(self, name)

    def __getitem__(self, name: str) -> Any:
        return self._methods[name]

    def __dir__(self) -> List[str]:
        return sorted(self._methods)

    def __repr__(self) -> str:
        return f"<{self._name!r} on a peer: {', '.join(self._methods)}>"


def _look_up(handle: Any, name: str) -> Any:
    methods = handle.__dict__.get("_methods", {})
    if name not in methods:
        raise AttributeError(f"{handle!r} has no public method {name!r}; properties and private "
                             f"names are not connected")
    return methods[name]


def connected_by(handle: Handle) -> List[Any]:
    """The connected functions of a handle."""
    return list(handle._methods.values())


def methods_of(obj: Any) -> Dict[str, Callable[..., Any]]:
    """The public methods of an object by name. No property is evaluated.

    :raises TypeError: it has none.
    """
    found = {}
    for name in dir(type(obj)):
        if not name.startswith("_"):
            attribute = inspect.getattr_static(obj, name)
            if inspect.isroutine(attribute) or isinstance(attribute, (staticmethod, classmethod)):
                found[name] = getattr(obj, name)
    if not found:
        raise TypeError(f"{obj!r} is neither a function nor an object with public methods")
    return found
