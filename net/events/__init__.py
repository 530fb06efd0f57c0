"""Events: subscribe once, hear everything, never slow down a publisher."""
from __future__ import annotations

import functools
import inspect
from itertools import count
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterable, Optional, Set, Tuple, TypeVar,
                    Union)

from .. import discovery
from ..calls.ways import place_of
from ..context import caller, current
from ..decorators import Connected, P, R, is_connected, register
from ..errors import Address
from ..identity import PeerArgument, PeerId, address_of, decode_text, group_named, tag_name
from ..link.tcp import is_own_address
from ..peer import _Peer, called_peer, launch_by_decorator
from ..process import Process, process
from ..run.server_connection import Handover
from ..settings import is_loopback
from ..wire.deliveries import MAX_NAME
from .handlers import Handler
from .old import OldSubscribers
from .publishing import Publisher
from .shares import Places
from .subscribing import Subscriber

if TYPE_CHECKING:
    from ..executors import ExecutorOrLoop

F = TypeVar("F", bound=Callable[..., Tuple[Any, Dict[str, Any]]])

# Seconds in which events have to leave when the process ends.
EXIT_TIME = 2.0


class Events:
    """The events of a process: what it publishes, and what it hears.

    :ivar places: the connections for events that it may have.
    """

    def __init__(self, process: Process) -> None:
        def watch(callback: Callable[[str, PeerId], None]) -> Callable[[], None]:
            return process.once(discovery.cache_of).watch(callback, None).stop

        self.places = Places(process.settings)
        self.publisher = Publisher(_Peer.SUBSCRIPTIONS, process.loop, process.settings,
                                   self.places)
        self.subscriber = Subscriber(watch, process.loop, process.settings, self.places,
                                     process.client, _Peer.CONNECTIONS, lambda: process.memory)
        self.old_subscribers = OldSubscribers(self.publisher, process.client)

    def forget(self) -> None:
        """Start afresh in a forked child."""
        self.publisher.forget()
        self.subscriber.forget()
        self.old_subscribers.forget()
        self.places.clear()


def own_events() -> Events:
    """The events of this process."""
    return process.once(Events)


def event(name: str) -> Callable[[F], F]:
    """Make an event of a function that returns ``(args, kwargs)``.

    Calling the function sends these to every subscriber of the event, and returns them. It never
    waits for the network: another thread sends them to the subscribers, in order. A subscriber that
    does not keep up is cut off; see :func:`net.stats`.

    The call raises :exc:`net.ValueNotSupported` or :exc:`net.MessageTooLarge` if the values cannot
    travel, subscribers or not, and TypeError if the function returned something else.

    :param name: text by which subscribers know the event, at most 200 printable characters.
    """
    _check_name(name)

    def define(function: F) -> F:
        @functools.wraps(function)
        def trigger(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            publisher_of(called_peer()).publish(name, *_arguments(function, result))
            return result

        launch_by_decorator()
        return trigger  # type: ignore[return-value]
    return define


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"an event has a name, as in @net.event('done'), not {name!r}")
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"the name of an event is at most {MAX_NAME} printable characters")


def _arguments(function: Callable[..., Any], result: Any) -> Tuple[Any, Dict[str, Any]]:
    if type(result) is tuple and len(result) == 2 and isinstance(result[0], (tuple, list)) \
            and isinstance(result[1], dict) and all([type(key) is str for key in result[1]]):
        return result
    raise TypeError(f"{getattr(function, '__qualname__', function)} is an event and returns "
                    f"(args, kwargs), such as ((1, 2), {{'name': 3}}), not {result!r:.200}")


def subscribe(event: str, peers: Union[None, PeerArgument, Iterable[PeerArgument]] = None,
              groups: Union[None, str, Iterable[str]] = None, hubs_only: bool = False,
              on_host: bool = False, on_gap: Optional[Callable[[str, PeerId, Optional[int]], Any]]
              = None, executor: Optional[ExecutorOrLoop] = None
              ) -> Callable[[Callable[P, R]], Connected[P, R]]:
    """Have a function called with every event of a name that a peer triggers with
    :func:`net.event`.

    The function is connected, too, as with :func:`net.connect`. Events of one peer come in order
    and once. The functions that hear events run one after the other, in one thread; those that have
    an executor, or are coroutine functions, run one after the other there. What they raise is
    logged here and by the publisher, and the next event is heard all the same. A function
    subscribed to the same event twice hears it once.

    :param peers: a peer, several, or what :func:`net.peers` gave; their processes may start later
        or restart. None means all peers, also those that start later, and this process.
    :param groups: only peers of this group, or of one of these; ``"None"`` is no group. This
        process is heard, too, if it is of such a group.
    :param hubs_only: only hubs.
    :param on_host: only peers on this host.
    :param on_gap: called as ``on_gap(event, peer_id, missed)`` where the function runs, in between
        the events, when some were missed: this process was cut off, the network was, or the peer
        was restarted (``missed`` is None then: the number is not known).
    :param executor: where the function and ``on_gap`` run: a :class:`concurrent.futures.Executor`,
        an asyncio loop, or :data:`net.main_thread`; by default as its
        ``@net.connect(executor=...)`` says. Handlers of one executor run one after the other, and
        others do not wait for them.
    :raises InvalidPeer: one of ``peers`` is not a peer.
    :raises TypeError: the function gives a generator, or ``executor`` is not one.
    :raises ValueError: the name is not one that an event can have.
    """
    _check_name(event)
    if executor is not None:
        from ..executors import check_executor

        check_executor(executor)
    addresses = _addresses(peers)
    names = [groups] if isinstance(groups, str) else groups
    group_names = None if names is None else set(map(group_named, names))

    def define(function: Any) -> Any:
        if isinstance(function, staticmethod):
            return staticmethod(define(function.__func__))
        _check(function)
        connected = function if is_connected(function) else _connected(function, executor)
        launch_by_decorator()
        own = _Peer.EXECUTORS.get(connected.tag) if executor is None else executor
        place = place_of(process, connected.__wrapped__, own)
        own_events().subscriber.add(
            Handler(event, connected.tag, connected.__wrapped__, addresses, group_names, hubs_only,
                    on_host, on_gap, place))
        return connected
    return define


def _check(function: Any) -> None:
    """Refuse functions that make generators, which would never be iterated.

    :raises TypeError: it makes a generator.
    """
    if is_connected(function):
        function = function.__wrapped__
    if any(makes(function) or makes(getattr(type(function), "__call__", None)) for makes in (
            inspect.isgeneratorfunction, inspect.isasyncgenfunction)):
        raise TypeError(f"{function!r} gives a generator, never iterated; an event is "
                        f"heard by a function or a coroutine function")


def _addresses(peers: Any) -> Optional[Set[Address]]:
    if peers is None:
        return None
    one = isinstance(peers, (str, bytes)) or (
        isinstance(peers, tuple) and len(peers) == 2 and isinstance(peers[1], int))
    return {address_of(peer) for peer in ([peers] if one else peers)}


def _connected(function: Any, executor: Optional[ExecutorOrLoop]) -> Any:
    """Register a function. What has no name of its own in its module (a method, a nested function,
    a lambda) gets a number: those of one name would take each other's place."""
    name = getattr(function, "__qualname__", "")
    if name.isidentifier():
        return register(function, executor=executor)
    known = {tag_name(tag): one for tag, one in list(_Peer.CONNECTIONS.items())}
    tags = (f"{getattr(function, '__module__', '')}.{name}#{number}" for number in count(1))
    tag = next(tag for tag in tags if known.get(tag, function) == function)
    # A method is another object each time that it is looked up.
    return register(known.get(tag, function), tag, executor=executor)


def unsubscribe(event: str, handler: Callable[..., Any]) -> None:
    """Stop a function from hearing an event. It is not called after this, unless it is running now.

    :raises LookupError: it is not subscribed to that event.
    """
    function = handler.__wrapped__ if is_connected(handler) else handler  # type: ignore
    if not own_events().subscriber.remove(event, function):
        raise LookupError(f"{handler!r} is not subscribed to the event {event!r}")


def flush(timeout: Optional[float] = None) -> Dict[bytes, Dict[str, int]]:
    """Wait until the subscribers' processes have received all events triggered so far.

    Their handlers may still have to run. At the end of a process its events have two seconds to
    leave, without this.

    :param timeout: seconds, None for no limit; a subscriber that receives nothing is cut off after
        some ten seconds.
    :returns: what was not taken: ``{peer id: {event: count}}``, empty if everything was.
    """
    return publisher_of(called_peer()).flush(timeout)


# -------------------------------------------------------- what programs before 1.0 call for events


def accept(event: str, peer_id: PeerArgument, tag: Union[str, bytes]) -> bool:
    """See :func:`net.subscription_handler`."""
    _check_name(event)
    given: Any = peer_id.encode("ascii") if isinstance(peer_id, str) else peer_id
    peer = PeerId(given)
    _check_caller(peer)
    encoded = tag.encode("ascii") if isinstance(tag, str) else bytes(tag)
    if len(decode_text(encoded)) > MAX_NAME:
        raise ValueError(f"a tag of more than {MAX_NAME} characters")
    context = current()
    own_events().old_subscribers.subscribe(
        peer, (event, encoded), "" if context is None else context.dialect)
    return True


def _check_caller(peer: PeerId) -> None:
    # Events go only to the host from which the subscription came, so that they cannot be aimed at
    # others.
    found = caller()
    address = None if found is None else found.address
    if address is None or address[0] == peer.host:
        return
    if _is_here(address[0]) and _is_here(peer.host):
        return
    raise PermissionError(f"a subscription for {peer.host} came from {address[0]}; events "
                          f"only go to the address that they were asked for from")


def _is_here(host: str) -> bool:
    return is_loopback(host) or is_own_address(host)


# ----------------------------------------------------------------------------- the process


def publisher_of(peer: Optional[_Peer]) -> Publisher:
    """The publisher of a peer's events: that of its process, unless the peer has its own."""
    if peer is None:
        return own_events().publisher
    found: Optional[Publisher] = peer.publisher
    return peer.process.once(Events).publisher if found is None else found


def adopt(handover: Handover, owner: _Peer) -> None:
    """Take over the connection of a subscriber that has connected to a peer."""
    publisher_of(owner).adopt(handover, owner)


def serve_events(peer: _Peer) -> Callable[[], None]:
    subscriber = peer.process.once(Events).subscriber
    hears = not peer.test or peer is peer.process.peer
    if hears:
        subscriber.serve(peer.id, peer.place)

    def close() -> None:
        if hears:
            subscriber.pause()
        publisher_of(peer).close(peer, EXIT_TIME)
    return close


def answered(process: Process, address: Address) -> None:
    """A peer has just answered in our dialect, where an old program may have been."""
    own = process.once(Events)
    own.subscriber.answered(address)
    own.old_subscribers.doubt(address[1], address[0])


def begin_old_call(process: Process, caller: Optional[Address], tag: bytes, args: Any,
                   kwargs: Any) -> Optional[Callable[[], None]]:
    """An old program calls; see :meth:`~net.events.old.OldPublishers.begin`."""
    host = "" if caller is None else caller[0]
    return process.once(Events).subscriber.old.begin(host, tag, args, kwargs)


def flush_at_exit(process: Process) -> None:
    """Give events time to leave before the process ends."""
    process.once(Events).publisher.flush(EXIT_TIME)


def forget(process: Process) -> None:
    """Start afresh in a forked child."""
    process.once(Events).forget()


def move(process: Process) -> None:
    """Hear this process at its new address, and have old programs call us there."""
    subscriber = process.once(Events).subscriber
    subscriber.moved()
    peer = process.peer
    if isinstance(peer, _Peer) and peer.launched and subscriber.own_id is not None \
            and (subscriber.own_id, subscriber.own_place) != (peer.id, peer.place):
        subscriber.serve(peer.id, peer.place)
