"""The decorators: connect, flag and value."""
from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from typing import (TYPE_CHECKING, Any, Callable, Coroutine, FrozenSet, Generic, Iterable, Mapping,
                    Optional, Type, TypeVar, Union, overload)

from .calls.ways import Way, way_of
from .handles import Handle, methods_of
from .log import warn
from .settings import is_address
from .errors import RemoteError
from .identity import (Flag, PeerArgument, address_of, encode_text, module_of, remember_program,
                       tag_name, tag_of_function)
from .peer import _Peer, functions_changed, handle_flag, launch_by_decorator
from .process import process
from .spreading import OnPeers, make_target, start_there
from .wire import registered

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    from .calls.many import AllPeers, AnyPeer, Target
    from .calls.start import Call
    from .executors import ExecutorOrLoop

    P = ParamSpec("P")
else:
    # Python 3.9 has none, and needs none: only type checkers read it.
    P = getattr(typing, "ParamSpec", TypeVar)("P")

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F_co = TypeVar("F_co", bound=Callable[..., Any], covariant=True)
# The first arguments by position.
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


class _Here:
    """This process: where a function runs that is called without ``peer``."""

    def __repr__(self) -> str:
        return "here"


HERE: Any = _Here()


def _copy_names(function: Any, copy: Any) -> None:
    """What ``functools.wraps`` does, annotations included: from Python 3.14 on it leaves these to
    be evaluated when they are asked for, but an object gives those of its class then."""
    functools.update_wrapper(copy, function)
    if sys.version_info >= (3, 14) and hasattr(function, "__annotate__"):
        try:
            copy.__annotations__ = function.__annotations__
        except NameError:  # of names that are defined later
            import annotationlib

            copy.__annotations__ = annotationlib.get_annotations(
                function, format=annotationlib.Format.FORWARDREF)


class _Signature(Generic[F_co]):
    """For type checkers: called like a function of type F. A keyword beside a ParamSpec cannot be
    declared, so of a call with ``peer`` up to five positional arguments are checked; ``on()``
    checks all."""


class Connected(_Signature[Callable[P, R_co]], OnPeers, Generic[P, R_co]):
    """What :func:`connect` makes of a function: called without ``peer`` it runs here, with ``peer``
    on that peer. It has the function's name, signature and attributes, and is pickled by its name
    as functions are.

    :ivar tag: base64 tag under which peers know it.
    """

    tag: bytes
    #: How it is called on a peer.
    there: Way
    #: Whether it may run twice, where a call is given to another peer.
    repeatable: bool
    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R_co]
    # The function once more: a slot is read faster than the dict that holds ``__wrapped__``.
    __slots__ = ("_function",)

    def __init__(self, function: Callable[P, R_co], tag: bytes, repeatable: bool = False) -> None:
        _copy_names(function, self)
        self._function: Callable[..., Any] = function
        self.tag = tag
        self.repeatable = repeatable
        self.there = way_of(process, function, handle_flag)
        name = getattr(function, "__name__", "it")
        told = f"Connected with app-net as {tag_name(tag)!r}: {name}(..., peer=p) and " \
               f"{name}.on(p, timeout=None)(...) run it on a peer."
        own = getattr(function, "__doc__", None)
        self.__doc__ = f"{inspect.cleandoc(own)}\n\n{told}" if isinstance(own, str) else told

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __call__(self, *, peer: PeerArgument, **kwargs: Any) -> R_co: ...

    @overload
    def __call__(self: _Signature[Callable[Concatenate[A, ...], R]], a: A, /, *,
                 peer: PeerArgument, **kwargs: Any) -> R: ...

    @overload
    def __call__(self: _Signature[Callable[Concatenate[A, B, ...], R]], a: A, b: B, /, *,
                 peer: PeerArgument, **kwargs: Any) -> R: ...

    @overload
    def __call__(self: _Signature[Callable[Concatenate[A, B, C, ...], R]], a: A, b: B, c: C, /,
                 *, peer: PeerArgument, **kwargs: Any) -> R: ...

    @overload
    def __call__(self: _Signature[Callable[Concatenate[A, B, C, D, ...], R]], a: A, b: B, c: C,
                 d: D, /, *, peer: PeerArgument, **kwargs: Any) -> R: ...

    @overload
    def __call__(self: _Signature[Callable[Concatenate[A, B, C, D, E, ...], R]], a: A, b: B,
                 c: C, d: D, e: E, /, *, peer: PeerArgument, **kwargs: Any) -> R: ...

    @overload
    def __call__(self, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, /, *args: Any,
                 peer: PeerArgument, **kwargs: Any) -> R_co: ...

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        """Run it here, or on a peer."""
        if not kwargs:
            # Passing them on copies them, even if there are none.
            result = self._function(*args)
        elif "peer" in kwargs:
            peer = kwargs.pop("peer")
            try:
                return self.there(peer, self.tag, args, kwargs, None)
            except TypeError as error:
                self._hint_at_timeout(error, peer, kwargs)
                raise
        else:
            result = self._function(*args, **kwargs)
        return result if type(result) is not Flag else handle_flag(result, self.tag, None)

    @overload
    def start(self: Connected[P, Coroutine[Any, Any, T]], /, *args: P.args,
              **kwargs: P.kwargs) -> Call[T]: ...

    @overload
    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]: ...

    @overload
    def start(self: Connected[P, Coroutine[Any, Any, T]], /, *args: Any, peer: PeerArgument,
              **kwargs: Any) -> Call[T]: ...

    @overload
    def start(self, /, *args: Any, peer: PeerArgument, **kwargs: Any) -> Call[R_co]: ...

    def start(self, /, *args: Any, peer: Any = HERE, **kwargs: Any) -> Any:
        """Start the function here (in a thread) or on a peer (without one), and return at once.

        :returns: a :class:`net.Call`, a future that can also be awaited and cancelled.
        :raises InvalidPeer: not a peer id or an address.
        :raises PeerBusy: no thread can be started.
        """
        return _start(self, peer, args, kwargs, None)

    def _hint_at_timeout(self, error: TypeError, peer: Any, kwargs: Any) -> None:
        for name in ("timeout", "time_out"):
            text = str(error)
            if name in kwargs and isinstance(error, RemoteError) \
                    and f"unexpected keyword argument '{name}'" in text:
                # Directly, since a class of the application may have an ``args`` of its own.
                BaseException.args.__set__(error, (  # type: ignore[attr-defined]
                    f"{text}; a time limit for the call is given by {self.__name__}.on("
                    f"{peer!r}, timeout={kwargs[name]!r})(...)",))

    def on(self, peer: PeerArgument, timeout: Optional[float] = None) -> ConnectedOnPeer[P, R_co]:
        """A callable of the function's own signature that runs it on a peer. It can be pickled.

        :param timeout: seconds for the whole call; None for ``NET_TIMEOUT``, or no limit.
        :raises InvalidPeer: not a peer id or an address.
        :raises ValueError: a timeout that is not above 0.
        """
        address_of(peer)
        if timeout is not None:
            _check_timeout(timeout)
        return ConnectedOnPeer(self, peer, timeout)

    if TYPE_CHECKING:
        @property
        def any(self) -> AnyPeer[P, R_co]: ...

        @property
        def all(self) -> AllPeers[P]: ...

    def _target(self) -> Target:
        return make_target(self.tag, self.__wrapped__, self.there, self.repeatable)

    if not TYPE_CHECKING:  # it would hide the signatures of class members
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            # It becomes a method as a function does.
            return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        return getattr(self, "__qualname__", repr(self))

    def __repr__(self) -> str:
        name = getattr(self, "__name__", "it")
        return f"<connected function {tag_name(self.tag)!r}: {name}(..., peer=p) or " \
               f"{name}.on(p)(...) runs it on a peer>"


class ConnectedOnPeer(Generic[P, R_co]):
    """A connected function that is bound to a peer."""

    def __init__(self, connected: Any, peer: PeerArgument, timeout: Optional[float]) -> None:
        _copy_names(connected.__wrapped__, self)
        self._connected = connected
        self._peer = peer
        self._timeout = timeout

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        connected = self._connected
        return connected.there(  # type: ignore[no-any-return]
            self._peer, connected.tag, args, kwargs, self._timeout)

    @overload
    def start(self: ConnectedOnPeer[P, Coroutine[Any, Any, T]], /, *args: P.args,
              **kwargs: P.kwargs) -> Call[T]: ...

    @overload
    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]: ...

    def start(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start it there and return a :class:`net.Call` at once."""
        return _start(self._connected, self._peer, args, kwargs, self._timeout)

    def __reduce__(self) -> Any:
        return ConnectedOnPeer, (self._connected, self._peer, self._timeout)

    def __repr__(self) -> str:
        return f"<{tag_name(self._connected.tag)!r} on {self._peer!r}>"


def _start(connected: Any, peer: Any, args: Any, kwargs: Any,
           timeout: Optional[float]) -> Call[Any]:
    if peer is not HERE:
        return start_there(connected.tag, peer, args, kwargs, timeout)
    from .calls import start  # with asyncio, which few need

    return start.start_here(process.coroutines, connected, args, kwargs)


def way_to(stub: Optional[Callable[..., Any]]) -> Way:
    """How to call a function that only other peers have; ``stub``, if given, shows its kind."""
    return way_of(process, stub, handle_flag)


@overload
def connect(tag: None = None, *, groups: Optional[Iterable[str]] = None,
            executor: Optional[ExecutorOrLoop] = None,
            repeatable: bool = False) -> Callable[[Callable[P, R]], Connected[P, R]]: ...


@overload
def connect(tag: str, *, groups: Optional[Iterable[str]] = None,
            executor: Optional[ExecutorOrLoop] = None,
            repeatable: bool = False) -> _Decorator: ...


@overload
def connect(tag: Callable[P, R], *, groups: Optional[Iterable[str]] = None,
            executor: Optional[ExecutorOrLoop] = None,
            repeatable: bool = False) -> Connected[P, R]: ...


def connect(tag: Union[None, str, Callable[..., Any]] = None, *,
            groups: Optional[Iterable[str]] = None, executor: Optional[ExecutorOrLoop] = None,
            repeatable: bool = False) -> Any:
    """Register a function, so that other peers can call it.

    Used as ``@net.connect``, ``@net.connect()`` or ``@net.connect("Tag")``. The first use launches
    the peer of this process. The function gets a keyword ``peer``: without it the call is a plain
    local one; with it, a peer id, ``(host, port)`` or ``"host:port"``, the function of the same tag
    runs there, and its value is returned or its error raised here.
    ``function.on(peer, timeout=2.0)`` gives a callable of exactly the function's signature, for a
    timeout in seconds or for a function that has a ``peer`` of its own.

    :param tag: text that names the function between code bases; by default its module and name. If
        another function has the tag already, this one replaces it, with a warning.
    :param groups: only peers of these groups may call it; others get an AuthenticationError. By
        itself this keeps no attacker out: in open mode a caller claims its group, and may lie.
    :param executor: where it runs when a peer calls it: a :class:`concurrent.futures.Executor`, an
        asyncio loop, or :data:`net.main_thread`. By default it runs in the thread of the caller's
        connection, a coroutine on a loop that net runs. A local call runs where it is made.
    :param repeatable: whether running it twice does no harm. Then its ``any`` and ``map``, and
        :class:`net.Executor`, give a call to another peer even if it may have run already.
    :returns: a :class:`net.decorators.Connected`; for an object that cannot be called, a handle on
        its public methods, which are connected as ``tag.method``.
    :raises TypeError: what was given is no function, no groups or no executor, or the tag is empty.
    :raises ValueError: the tag is the address of a peer, as if this opened a connection.
    """
    allowed = None if groups is None else _checked_groups(groups)
    if executor is not None:
        from .executors import check_executor  # few need it

        check_executor(executor)
    if tag is None or isinstance(tag, str):
        return _Decorator(tag, allowed, executor, repeatable)
    return _connect(tag, None, allowed, executor, repeatable)


class _Decorator:
    """Connects a function under a tag."""

    def __init__(self, tag: Optional[str], groups: Optional[FrozenSet[str]],
                 executor: Optional[ExecutorOrLoop], repeatable: bool) -> None:
        host, _, port = (tag or "").rpartition(":")
        if port.isdecimal() and is_address(host):
            raise ValueError(f"net.connect gives a function a tag and opens no connection; "
                             f"function(..., peer={tag!r}) calls that peer")
        self._tag = tag
        self._groups = groups
        self._executor = executor
        self._repeatable = repeatable

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a function is an object, too
            self, function: Callable[P, R]) -> Connected[P, R]: ...

    @overload
    def __call__(self, function: object) -> Handle: ...

    def __call__(self, function: Any) -> Any:
        return _connect(function, self._tag, self._groups, self._executor, self._repeatable)

    def __repr__(self) -> str:
        named = "its own name" if self._tag is None else f"the tag {self._tag!r}"
        return f"<decorator that connects a function under {named}; it has called no peer>"


def _check_timeout(timeout: Any) -> None:
    try:
        positive = 0 < timeout
    except TypeError:
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r}") from None
    if not positive:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")


def _checked_groups(groups: Iterable[str]) -> FrozenSet[str]:
    names = [] if isinstance(groups, str) else list(groups)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"groups is a list of names, as in groups=['render'], not {groups!r}")
    return frozenset(names)


def _connect(function: Any, tag: Optional[str], groups: Optional[FrozenSet[str]],
             executor: Optional[ExecutorOrLoop], repeatable: bool) -> Any:
    if _is_object(function, tag):
        connected: Any = Handle(str(tag), function, {
            name: register(method, f"{tag}.{name}", groups, executor, repeatable)
            for name, method in methods_of(function).items()})
    else:
        connected = register(function, tag, groups, executor, repeatable)
    launch_by_decorator()
    return connected


def _is_object(function: Any, tag: Optional[str]) -> bool:
    """Whether it is an object with methods rather than a function."""
    return tag is not None and not callable(function) and not isinstance(
        function, (staticmethod, classmethod, property, bytes, tuple, str, int, float, list, dict,
                   _Peer, type(None)))


def register(function: Callable[P, R], tag: Optional[str] = None,
             groups: Optional[FrozenSet[str]] = None, executor: Optional[ExecutorOrLoop] = None,
             repeatable: bool = False) -> Connected[P, R]:
    """What :func:`connect` does, without launching."""
    if isinstance(function, staticmethod):
        # In a class body the decorator may stand above @staticmethod.
        return staticmethod(register(  # type: ignore
            function.__func__, tag, groups, executor, repeatable))
    if is_connected(function):
        # One function under two tags. Through our own wrapper a caller's keyword ``peer`` would
        # make this peer call another one.
        function = function.__wrapped__  # type: ignore[attr-defined]
    _check(function)
    # On PyPy that of a method of a built-in type is None.
    remember_program(getattr(function, "__globals__", None) or {})
    encoded = _tag_of(function, tag)
    known = _Peer.CONNECTIONS.get(encoded)
    if known is not None and not _is_defined_again(known, function):
        warn(f"the function {tag_name(encoded)!r} is registered again; from now on {function!r} "
             f"answers instead of {known!r}. Tags of their own keep them apart: net.connect('Tag')")
    # Set the groups first, so that no caller slips in between.
    if groups is not None:
        _Peer.GROUPS[encoded] = groups
    if executor is not None:
        _Peer.EXECUTORS[encoded] = executor
    else:
        _Peer.EXECUTORS.pop(encoded, None)
    _Peer.CONNECTIONS[encoded] = function
    if groups is None:
        _Peer.GROUPS.pop(encoded, None)
    functions_changed()
    return Connected(function, encoded, repeatable)


def _check(function: Any) -> None:
    if isinstance(function, type):
        raise TypeError(f"{function!r} is a class; connect a function that makes one")
    if isinstance(function, (bytes, tuple, _Peer)):
        raise TypeError(f"net.connect takes a function, and opens no connection; "
                        f"function(..., peer={function!r}) calls a peer")
    if isinstance(function, classmethod) or not callable(function):
        raise TypeError(f"net.connect takes a function, not {function!r}")
    if _is_method(function):
        raise TypeError(f"{function.__qualname__} is a method, and a call from another peer has no "
                        f"{next(iter(inspect.signature(function).parameters))}; connect the "
                        f"methods of an object, net.connect('tool')(tool), one of them, "
                        f"net.connect(tool.{function.__name__}), or a @staticmethod")


def _is_method(function: Any) -> bool:
    """Whether it is defined in a class and takes the object or the class first."""
    if not isinstance(function, types.FunctionType) or not hasattr(function.__code__, "co_code"):
        return False  # on PyPy those of built-in types, such as str.upper, are functions too
    within = function.__qualname__.rpartition(".")[0]
    first = function.__code__.co_varnames[:min(1, function.__code__.co_argcount)]
    return within != "" and not within.endswith("<locals>") and first in (("self",), ("cls",))


def _tag_of(function: Any, tag: Optional[str]) -> bytes:
    if tag is not None:
        if not tag:
            raise TypeError("a tag must not be empty")
        return encode_text(tag)
    found = tag_of_function(function)
    if found is None:
        raise TypeError(f"{function!r} has no __name__; give it a tag: net.connect('Tag')")
    return found


def _is_defined_again(known: Any, function: Any) -> bool:
    """Whether two functions are one that was defined again, as when a notebook cell is run again or
    a module is reloaded. Closures and lambdas of one name are usually different functions."""
    if known is function:
        return True
    if isinstance(known, types.MethodType):
        return bool(known == function)  # the same one of the same object
    name = getattr(known, "__qualname__", "<")
    return isinstance(function, types.FunctionType) and "<" not in name \
        and (module_of(known), name) == (module_of(function), function.__qualname__)


def is_connected(function: Any) -> bool:
    """Whether :func:`register` made it."""
    return isinstance(function, Connected)


def flag(name: str) -> Callable[[T], T]:
    """Define a flag: its handler runs on the calling side when a function returns
    ``net.Peer().get_flag(name)``, and the handler's return value is the result of the call.

    The handler takes up to three arguments: the tag that was called, the peer as it was given, and
    the details that came with the flag (a JSON value, usually None). A peer that was given as an id
    or ``(host, port)`` has ``peer.host`` and ``peer["host"]``, and likewise the port. After a local
    call it is the :attr:`~net.peer._Peer.friendly_id` of this process, which has them too.

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
def value(cls: Optional[str] = None, *, pack: Optional[Callable[[Any], Any]] = None,
          unpack: Optional[Callable[[Any], Any]] = None) -> Callable[[Type[T]], Type[T]]: ...


@overload
def value(cls: Type[T], *, pack: Optional[Callable[[T], Any]] = None,
          unpack: Optional[Callable[[Any], T]] = None) -> Type[T]: ...


def value(cls: Any = None, *, pack: Any = None, unpack: Any = None) -> Any:
    """Let values of a class travel: a dataclass, an enum, a named tuple, a class of attrs or a
    model of pydantic 2, or any other with ``pack`` and ``unpack``.

    Used as ``@net.value``, ``@net.value()`` or ``@net.value("Name")``, on both sides. The other
    side finds the class by this name, ``module.qualified name`` by default, among those registered
    there. It sets the fields to what they were; ``__init__`` does not run.

    :param pack: makes a value that can travel, such as a tuple of its parts, from an instance.
    :param unpack: makes an instance from such a value. It is given whatever another peer sends.
    :raises TypeError: another kind of class, or the name is taken by another class.
    """
    namespace = sys._getframe(1).f_globals
    remember_program(namespace)
    if cls is None or isinstance(cls, str):
        return functools.partial(_register_value, name=cls, namespace=namespace, pack=pack,
                                 unpack=unpack)
    return _register_value(cls, None, namespace, pack, unpack)


def _register_value(cls: Any, name: Optional[str], namespace: Mapping[str, Any], pack: Any,
                    unpack: Any) -> Any:
    at_hand = getattr(cls, "__module__", None) == namespace.get("__name__")
    return registered.register(cls, name, namespace if at_hand else None, pack, unpack)
