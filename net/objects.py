"""Functions and objects that are only on other peers, by their names; and disconnecting."""
from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, overload

from .decorators import way_to
from .handles import Handle, connected_by
from .identity import PeerArgument, address_of, encode_text
from .peer import _Peer, functions_changed
from .spreading import OnPeers, make_target, start_there

if TYPE_CHECKING:
    from .calls.many import Target
    from .decorators import Connected, P, R


class Remote(OnPeers):
    """A function, or an object with functions, of another peer by its name. It registers nothing.

    ``remote("scope.read")(1, peer=p)`` calls the function with that tag there;
    ``remote("scope").read(1, peer=p)`` is the same. A name that the handle uses itself is reached
    as ``handle["map"]``. As a decorator, ``@net.remote("scope.read")`` above a stub gives the
    function the stub's signature and kind: a coroutine function is awaited, a generator iterated.

    :ivar tag: base64 tag of the function.
    """

    def __init__(self, name: str, stub: Optional[Callable[..., Any]] = None) -> None:
        self._name = name
        self._stub = stub
        self._way = way_to(stub)
        self.tag = encode_text(name)
        if stub is not None:
            functools.update_wrapper(self, stub)  # type: ignore[arg-type]  # called in two ways

    # What it gives for a stub is a Remote, which is used as a connected function is, with a peer.
    @overload
    def __call__(self, stub: Callable[P, R], /) -> Connected[P, R]: ...

    @overload
    def __call__(self, /, *args: Any, peer: PeerArgument, **kwargs: Any) -> Any: ...

    def __call__(self, /, *args: Any, peer: Any = None, **kwargs: Any) -> Any:
        if peer is None:
            if len(args) == 1 and not kwargs and self._stub is None and inspect.isfunction(args[0]):
                return Remote(self._name, args[0])
            raise TypeError(f"{self._name} is a function of other peers: call it with peer=")
        if self._stub is not None:
            inspect.signature(self._stub).bind(*args, **kwargs)
        return self._way(peer, self.tag, args, kwargs, None)

    def on(self, peer: PeerArgument, timeout: Optional[float] = None) -> RemoteOnPeer:
        """The same, bound to a peer: it is called without ``peer``.

        :param timeout: seconds for each call; None for ``NET_TIMEOUT``, or no limit.
        :raises InvalidPeer: not a peer id or an address.
        :raises ValueError: a timeout that is not above 0.
        """
        address_of(peer)
        if timeout is not None and not 0 < timeout:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
        return RemoteOnPeer(self, peer, timeout)

    def start(self, /, *args: Any, peer: PeerArgument, **kwargs: Any) -> Any:
        """Start the function and return a :class:`net.Call` at once.

        :raises InvalidPeer: not a peer id or an address.
        :raises PeerBusy: no thread can be started.
        """
        return start_there(self.tag, peer, args, kwargs, None)

    def _target(self) -> Target:
        return make_target(self.tag, self._stub, self._way, False)

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Remote:
        if not isinstance(name, str) or not name.isidentifier():
            raise KeyError(name)
        return Remote(f"{self._name}.{name}")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self!r} is not iterable")

    def __reduce__(self) -> Any:
        return Remote, (self._name, self._stub)

    def __repr__(self) -> str:
        return f"<net.remote({self._name!r})>"


class RemoteOnPeer:
    """A :class:`Remote` that is bound to a peer."""

    def __init__(self, remote: Remote, peer: PeerArgument, timeout: Optional[float]) -> None:
        self._remote = remote
        self._peer = peer
        self._timeout = timeout

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        remote = self._remote
        return remote._way(self._peer, remote.tag, args, kwargs, self._timeout)

    def start(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start it there and return a :class:`net.Call` at once."""
        return start_there(self._remote.tag, self._peer, args, kwargs, self._timeout)

    def __getattr__(self, name: str) -> RemoteOnPeer:
        return RemoteOnPeer(getattr(self._remote, name), self._peer, self._timeout)

    def __getitem__(self, name: str) -> RemoteOnPeer:
        return RemoteOnPeer(self._remote[name], self._peer, self._timeout)

    def __repr__(self) -> str:
        return f"<{self._remote!r} on {self._peer!r}>"


def remote(name: str) -> Remote:
    """A handle on a function or an object of other peers, by the name it is connected under.

    :raises TypeError: not a name.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"a function of other peers has a name, as in net.remote('scope.read'), "
                        f"not {name!r}")
    return Remote(name)


def disconnect(function: Any) -> None:
    """Remove a connected function or object from the registry: other peers get InvalidConnection
    from now on. Here it works as before.

    :raises LookupError: it is not connected, or another function has taken its tag.
    """
    if isinstance(function, Handle):
        for method in connected_by(function):
            disconnect(method)
        return
    tag = getattr(function, "tag", None)
    known = _Peer.CONNECTIONS.get(tag) if isinstance(tag, bytes) else None
    if known is None or known != getattr(function, "__wrapped__", None):
        raise LookupError(f"{function!r} is not connected")
    assert isinstance(tag, bytes)
    del _Peer.CONNECTIONS[tag]
    _Peer.GROUPS.pop(tag, None)
    _Peer.EXECUTORS.pop(tag, None)
    functions_changed()
