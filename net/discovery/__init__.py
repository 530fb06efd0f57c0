"""Finding peers on this host and on the LAN."""
from __future__ import annotations

import functools
import time
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Iterable, Optional, Protocol, Union, overload

from ..calls.ways import place_of
from ..errors import Address, TooFewPeers
from ..peer import _Peer, called_peer
from ..process import Process, process
from ..settings import settings
from .cache import Callback, PeerCache
from .engine import Engine
from .lan.finder import Lan
from .static import Static

if TYPE_CHECKING:
    from ..executors import ExecutorOrLoop
    from .listing import Peers

Groups = Union[None, str, Iterable[str]]


class _Search(Protocol):
    """The ways in which :func:`peers` can be called."""

    @overload
    def __call__(self, refresh: bool = ..., groups: Groups = ..., on_host: bool = ...,
                 hubs_only: bool = ..., at_least: int = ...,
                 timeout: Optional[float] = ...) -> Peers: ...

    @overload
    def __call__(self, groups: Union[str, Iterable[str]], /, *, refresh: bool = ...,
                 on_host: bool = ..., hubs_only: bool = ..., at_least: int = ...,
                 timeout: Optional[float] = ...) -> Peers: ...


def _groups_may_come_first(function: Callable[..., Peers]) -> _Search:
    """Let ``peers("group1", refresh=True)`` mean the groups, as the documentation shows it.

    A wrapper, since ``refresh`` is the first of the documented parameters and is given twice then.
    """

    @functools.wraps(function)
    def peers(*args: Any, **kwargs: Any) -> Peers:
        if args and args[0] is not None and not isinstance(args[0], (bool, int)):
            if len(args) > 1:
                raise TypeError("what follows the groups goes by name, as in refresh=True")
            return function(groups=args[0], **kwargs)
        return function(*args, **kwargs)
    return peers


def cache_of(process: Process) -> PeerCache:
    """Make the list of the peers that a process knows, with its finders. A new way to find peers is
    one more finder here."""
    found = PeerCache(process)
    found.finders += [Lan(process, found), Static(process.loop, found),
                      Engine(process.loop, found, process.client.carriers)]
    return found


def known_peers() -> PeerCache:
    """What this process knows of peers."""
    return process.once(cache_of)


# Seconds between two looks at the list by a caller that waits for peers. A look costs nothing; a
# search of the LAN does, so there is one after FIRST_SEARCH seconds, and then after twice as many
# each time, up to MAX_SEARCH.
LOOK_TIME = 0.1
FIRST_SEARCH, MAX_SEARCH = 1.0, 8.0


def wait_for_peers(look: Callable[[bool], Peers], name: str, on_host: bool, at_least: int,
                   timeout: Optional[float]) -> Peers:
    """Look until there are enough peers.

    :param look: returns the peers that there are; searches for them if its argument is true.
    :param name: the function that they must have, for the error; empty for none.
    :param on_host: whether only peers on this host count, for the error.
    :param timeout: seconds; None for ``NET_TIMEOUT``, or no limit.
    :raises TooFewPeers: there are fewer when the time is over.
    """
    found = look(False)
    if len(found) >= at_least:
        return found
    timeout = settings.timeout if timeout is None else timeout
    started = searched = monotonic()
    pause = FIRST_SEARCH
    while len(found) < at_least:
        if timeout is not None and monotonic() - started >= timeout:
            raise TooFewPeers(name, len(found), at_least, _what_is_missing(name, found, on_host))
        time.sleep(LOOK_TIME)
        search = monotonic() - searched >= pause
        found = look(search)
        if search:
            searched, pause = monotonic(), min(2 * pause, MAX_SEARCH)
    return found


def _what_is_missing(name: str, found: Peers, on_host: bool) -> str:
    """Say why there are no more peers than these: how many others are known, and what the last
    search did."""
    others = len(known_peers().peers(on_host=on_host)) - len(found)
    if others <= 0:
        return str(found.report)
    what = "do not have it, or were not asked for" if name else "were not asked for"
    return f"others are known that {what}: {others}; the last search {found.report}"


@_groups_may_come_first
def peers(refresh: bool = False, groups: Groups = None, on_host: bool = False,
          hubs_only: bool = False, at_least: int = 0, timeout: Optional[float] = None) -> Peers:
    """Get the other peers: on this host, on the LAN, and where ``NET_PEERS`` or an engine reaches.

    The first call searches; later ones answer from a list that is kept up to date. The result is a
    tuple of peer ids, each with ``.host``, ``.port``, ``.group``, ``.hub`` and ``.info``; indexing
    it with ``["group1"]`` gives the peers of that group, and ``.report`` says what was tried. Any
    thread may call.

    :param refresh: search again.
    :param groups: a group or several, also as the first argument: ``net.peers("group1")``. None
        means all peers, the text ``"None"`` those without a group.
    :param on_host: only those on this host; searches no network.
    :param hubs_only: only those that are hubs.
    :param at_least: wait until there are at least this many.
    :param timeout: seconds to wait for them; None for ``NET_TIMEOUT``, or no limit.
    :raises TooFewPeers: there are fewer when the time is over.
    :raises SettingError: a setting has a value that it cannot take.
    """
    def look(search: bool) -> Peers:
        found = known_peers().peers(search, on_host)
        called = called_peer()
        if called is not None and called.instance != process.instance:
            own = called.instance  # a test's peer, which stands for a process
            found = found.only(lambda peer: peer.info.get("instance") != own)
        if groups is None and not hubs_only:
            return found
        from .listing import filtered

        return filtered(found, groups, hubs_only)
    found = look(refresh)
    return found if len(found) >= at_least else wait_for_peers(look, "", on_host, at_least, timeout)


#: The name that the documentation's first example uses.
get_peers = peers


def peer_group(name: Optional[str] = None, hubs_only: bool = False, on_host: bool = False) -> Peers:
    """Get the peers of one group, as :func:`peers` does.

    :param name: the group, by default that of this process; ``"None"`` for the peers without one.
    :param hubs_only: only those that are hubs.
    :param on_host: only those on this host; searches no network.
    :raises SettingError: a setting has a value that it cannot take.
    """
    group = settings.group if name is None else name
    return peers(groups=str(group), on_host=on_host, hubs_only=hubs_only)


def watch(callback: Callback,
          executor: Optional[ExecutorOrLoop] = None) -> Callable[[], None]:
    """Call a function for each peer that comes or goes.

    ``callback("came", peer_id)`` is called for each peer that is there already and for each that
    comes, ``callback("left", peer_id)`` for each that goes: at once when it says goodbye, within
    some three seconds when it was killed or its host was cut off. The calls come one after the
    other from a thread of their own; what they raise is logged. A coroutine function is awaited.

    :param executor: where it is called instead: a :class:`concurrent.futures.Executor`, an asyncio
        loop, or :data:`net.main_thread`.
    :returns: a function that ends the watch.
    :raises TypeError: ``executor`` is none of these.
    """
    return known_peers().watch(callback, place_of(process, callback, executor)).stop


# ------------------------------------------------------------------ what the floors below tell


def doubt(process: Process, address: Address) -> None:
    """Find out whether a peer that could not be reached is gone. Any thread may call."""
    known = process.once(cache_of)
    if known.knows(address):
        known.doubt(address)


def other_way(process: Process, address: Address) -> Optional[Address]:
    """Another address of a peer that cannot be reached at this one, None if none is known. Any
    thread may call."""
    found = (finder.other_way(address) for finder in process.once(cache_of).finders)
    return next((other for other in found if other is not None), None)


def changed(process: Process) -> None:
    """What the peer of a process says about itself has changed."""
    process.once(cache_of).changed()


def forget(process: Process) -> None:
    """Start afresh in a forked child."""
    process.once(cache_of).forget()


def announce(peer: _Peer) -> Callable[[], None]:
    """Let others find a peer that was launched."""
    closers = [finder.announce(peer) for finder in peer.process.once(cache_of).finders]

    def close() -> None:
        for end in closers:
            end()
    return close
