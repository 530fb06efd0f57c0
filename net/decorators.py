"""The decorators: connect, flag and value."""
from __future__ import annotations

import functools
import inspect
import types
import weakref
from typing import Any, Callable, FrozenSet, Iterable, Optional, Protocol, TypeVar, Union, overload

from .identity import Flag, PeerArgument, address_of, encode_text, make_tag, tag_name
from .peer import _Peer, handle_flag, launch_by_decorator, warn
from .wire import registered
from .run import client

T = TypeVar("T")
R = TypeVar("R", covariant=True)


class _Here:
    """Where a function runs that is called without ``peer``."""

    def __repr__(self) -> str:
        return "here"


HERE: Any = _Here()

#: What register() made of functions.
_connected: "weakref.WeakSet[Any]" = weakref.WeakSet()


class Connected(Protocol[R]):
    """What :func:`connect` makes of a function.

    :ivar tag: base64 tag under which peers know it.
    """

    tag: bytes

    def __call__(self, *args: Any, peer: PeerArgument = ..., **kwargs: Any) -> R:
        """Run it here, or on a peer."""

    def on(self, peer: PeerArgument, timeout: Optional[float] = None) -> Callable[..., R]:
        """A callable of the function's own signature that runs it on a peer.

        :param timeout: seconds for the whole call; None for ``NET_TIMEOUT``, or no limit.
        :raises InvalidPeer: not a peer id or an address.
        :raises ValueError: a timeout that is not above 0.
        """


@overload
def connect(tag: Optional[str] = None, *, groups: Optional[Iterable[str]] = None) \
        -> Callable[[Callable[..., R]], Connected[R]]: ...


@overload
def connect(tag: Callable[..., R], *, groups: Optional[Iterable[str]] = None) -> Connected[R]: ...


def connect(tag: Union[None, str, Callable[..., Any]] = None, *,
            groups: Optional[Iterable[str]] = None) -> Any:
    """Register a function as a connection, callable from other peers.

    Used as ``@net.connect``, ``@net.connect()`` or ``@net.connect("Tag")``. The first use launches
    the peer of this process. The function gets a keyword ``peer``: without it the call is a plain
    local one; with it, a peer id, ``(host, port)`` or ``"host:port"``, the function of the same tag
    runs there, and its value is returned or its error raised here.
    ``function.on(peer, timeout=2.0)`` gives a callable of exactly the function's signature, for a
    timeout in seconds or for a function that has a ``peer`` of its own.

    :param tag: text that names the connection between code bases; by default module and name of the
        function. Two functions with one tag: the later one counts, with a warning.
    :param groups: only peers of these groups may call it; others get an AuthenticationError. It
        keeps nobody out by itself: in open mode a caller says of which group it is, and may lie.
    :raises TypeError: not a function or another callable, or one whose result could never travel
        (a coroutine function or a generator); or groups that are not names.
    """
    allowed = None if groups is None else _checked_groups(groups)
    if tag is None or isinstance(tag, str):
        return lambda function: _connect(function, tag, allowed)
    return _connect(tag, None, allowed)


def _checked_groups(groups: Iterable[str]) -> FrozenSet[str]:
    names = [] if isinstance(groups, str) else list(groups)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"groups is a list of names, as in groups=['render'], not {groups!r}")
    return frozenset(names)


def _connect(function: Any, tag: Optional[str], groups: Optional[FrozenSet[str]]) -> Any:
    connected = register(function, tag, groups)
    launch_by_decorator()
    return connected


def register(function: Any, tag: Optional[str] = None,
             groups: Optional[FrozenSet[str]] = None) -> Any:
    """What :func:`connect` does, without launching."""
    if isinstance(function, staticmethod):
        # In a class body the decorator may stand above @staticmethod.
        return staticmethod(register(function.__func__, tag, groups))
    if is_connected(function):
        # One function under two tags. Through our own wrapper a caller's keyword ``peer`` would
        # make this peer call another one.
        function = function.__wrapped__
    _check(function)
    encoded = _tag_of(function, tag)
    known = _Peer.CONNECTIONS.get(encoded)
    if known is not None and known is not function:
        warn(f"the connection {tag_name(encoded)!r} is registered again; from now on "
             f"{function!r} answers instead of {known!r}")
    # In an order in which nobody can call a function that is not for him, not even now.
    if groups is not None:
        _Peer.GROUPS[encoded] = groups
    _Peer.CONNECTIONS[encoded] = function
    if groups is None:
        _Peer.GROUPS.pop(encoded, None)
    return _wrap(function, encoded)


_UNABLE = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)


def _check(function: Any) -> None:
    if isinstance(function, type):
        raise TypeError(f"{function!r} is a class; connect a function that makes one")
    if isinstance(function, classmethod) or not callable(function):
        raise TypeError(f"net.connect takes a function, not {function!r}")
    if any(makes(function) or makes(type(function).__call__) for makes in _UNABLE):
        raise TypeError(f"{function!r} gives a coroutine or a generator, which cannot travel; "
                        f"connect a function that returns the values")


def _tag_of(function: Any, tag: Optional[str]) -> bytes:
    if tag is not None:
        if not tag:
            raise TypeError("a tag must not be empty")
        return encode_text(tag)
    name = getattr(function, "__name__", None)
    module = getattr(function, "__module__", None) or "builtins"
    if not isinstance(name, str):
        raise TypeError(f"{function!r} has no __name__; give it a tag: net.connect('Tag')")
    return make_tag(module, name)


def _wrap(function: Any, tag: bytes) -> Any:
    run = client.call

    @functools.wraps(function)
    def connected(*args: Any, peer: Any = HERE, **kwargs: Any) -> Any:
        result = function(*args, **kwargs) if peer is HERE else run(peer, tag, args, kwargs)
        if type(result) is not Flag:
            return result
        return handle_flag(result, tag, None if peer is HERE else peer)

    def on(peer: PeerArgument, timeout: Optional[float] = None) -> Callable[..., Any]:
        address_of(peer)
        if timeout is not None and not 0 < timeout:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")

        @functools.wraps(function)
        def there(*args: Any, **kwargs: Any) -> Any:
            result = run(peer, tag, args, kwargs, timeout)
            return result if type(result) is not Flag else handle_flag(result, tag, peer)
        return there

    connected.on = on  # type: ignore[attr-defined]
    connected.tag = tag  # type: ignore[attr-defined]
    _connected.add(connected)
    return connected


def is_connected(function: Any) -> bool:
    """Whether :func:`register` made it."""
    return isinstance(function, types.FunctionType) and function in _connected


def flag(name: str) -> Callable[[T], T]:
    """Define a flag: its handler runs on the calling side when a connection returns
    ``net.Peer().get_flag(name)``, and what it returns is the result of the call.

    The handler takes up to three arguments: the tag that was called, the peer as it was given
    (None for a local call), and the details that came with the flag (a JSON value, mostly None).

    :raises TypeError: the name is not text, or the handler cannot be called.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"a flag has a name, as in @net.flag('DONE'), not {name!r}")

    def define(handler: T) -> T:
        if not callable(handler):
            raise TypeError(f"the handler of a flag is a function, not {handler!r}")
        _Peer.FLAGS[encode_text(name)] = handler
        return handler
    return define


@overload
def value(cls: Optional[str] = None) -> Callable[[type[T]], type[T]]: ...


@overload
def value(cls: type[T]) -> type[T]: ...


def value(cls: Any = None) -> Any:
    """Let values of a dataclass, an enum or a named tuple travel.

    Used as ``@net.value``, ``@net.value()`` or ``@net.value("Name")``, on both sides. The class is
    found there by this name, ``module.qualified name`` by default, among those registered; its
    fields are set as they were, its ``__init__`` does not run.

    :raises TypeError: another kind of class, or the name is taken by another class.
    """
    if cls is None or isinstance(cls, str):
        return functools.partial(registered.register, name=cls)
    return registered.register(cls, None)
