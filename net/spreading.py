"""What a connected function offers for calling it on many peers."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, Optional, Union

from .calls.ways import Way, kind_of
from .dispatch import SEVERAL
from .errors import MessageTooLarge, ValueNotSupported
from .identity import Flag, PeerArgument, tag_name
from .peer import handle_flag
from .process import process
from .wire.messages import decode_outcome

if TYPE_CHECKING:
    from .calls.many import AllPeers, AnyPeer, OverPeers, Target
    from .calls.start import Call
    from .discovery.listing import Peers


# From so many peers on, they are connected to before they are called: connecting to many at once
# takes longer than the call.
MANY = 16


class OnPeers:
    """The attributes of a function that many peers have. What they need is loaded at their first
    use.

    :ivar tag: base64 tag of the function.
    """

    tag: bytes

    def _target(self) -> Target:
        raise NotImplementedError

    def peers(self, groups: Union[None, str, Iterable[str]] = None, hubs_only: bool = False,
              on_host: bool = False, at_least: int = 0,
              timeout: Optional[float] = None) -> Peers:
        """The known peers that have this function; those of other applications are not among them.
        Searches at the first use in the process, as :func:`net.peers` does.

        Peers that speak the old protocol do not say what they have, and are left out. A program
        that waits for many peers is about to call them: with ``at_least`` 16 or more, a connection
        to each is opened already, for the first ``f.all()``.

        :param groups: only peers of this group, or of one of these.
        :param hubs_only: only hubs.
        :param on_host: only peers on this host.
        :param at_least: wait until there are at least so many.
        :param timeout: seconds to wait for them; None for ``NET_TIMEOUT``, or no limit.
        :raises TooFewPeers: there are fewer when the time is over.
        """
        from .discovery import functions

        if at_least:
            # Load what calling them takes now, not when they are called.
            from .calls import many  # noqa: F401

        found = functions.peers_with(self.tag, groups, hubs_only, on_host, at_least, timeout)
        if at_least >= MANY:
            from .calls import start

            start.connect(process.client, process.coroutines, found)
        return found

    @property
    def any(self) -> AnyPeer[..., Any]:
        """Runs it on one peer that has it: ``f.any(x)``; on another one if the first did not run
        it."""
        from .calls.many import AnyPeer

        return AnyPeer(self._target())

    @property
    def all(self) -> AllPeers[...]:
        """Runs it on all peers that have it: ``f.all(x)`` maps each to its value."""
        from .calls.many import AllPeers

        return AllPeers(self._target())

    @property
    def map(self) -> OverPeers:
        """Spreads calls over the peers that have it: ``f.map(items)``, as ``map(f, items)``."""
        from .calls.many import OverPeers

        return OverPeers(self._target())


def make_target(tag: bytes, function: Optional[Callable[..., Any]], there: Way,
                repeatable: bool) -> Target:
    """What calling a function on many peers takes."""
    from .calls import aio, many
    from .discovery import functions

    def call(peer: Any, args: Any, kwargs: Any, timeout: Optional[float]) -> Any:
        result = process.client.call(peer, tag, args, kwargs, timeout)
        return result if type(result) is not Flag else handle_flag(result, tag, peer)

    async def call_async(peer: Any, args: Any, kwargs: Any, timeout: Optional[float]) -> Any:
        result = await aio.call(process.client, peer, tag, args, kwargs, timeout)
        return result if type(result) is not Flag else handle_flag(result, tag, peer)

    def several(peer: Any, works: List[Any]) -> Optional[List[Any]]:
        timeout = process.settings.timeout
        try:
            found = process.client.call(peer, SEVERAL, (tag.decode("ascii"), works), {},
                                        None if timeout is None else timeout * len(works))
        except (ValueNotSupported, MessageTooLarge) as problem:
            if problem.ran == "no":
                return None  # one of them, or all together
            raise
        return found if type(found) is list else None

    def outcome(peer: Any, content: Any) -> Any:
        result = decode_outcome(content, peer, tag)
        return result if type(result) is not Flag else handle_flag(result, tag, peer)
    return many.Target(
        name=tag_name(tag), tag=tag, kind=kind_of(function), repeatable=repeatable,
        find=functools.partial(functions.peers_with, tag),
        there=lambda peer, *rest: there(peer, tag, *rest), call=call, call_async=call_async,
        several=several, outcome=outcome,
        start=functools.partial(start_on_each, tag), balance=process.balance,
        missed=functions.look_again)


def start_there(tag: bytes, peer: PeerArgument, args: Any, kwargs: Any,
                timeout: Optional[float]) -> Call[Any]:
    """Start the function of a tag on a peer."""
    return start_on_each(tag, (peer,), args, kwargs, timeout)[0]


def start_on_each(tag: bytes, peers: Iterable[PeerArgument], args: Any, kwargs: Any,
                  timeout: Optional[float]) -> List[Call[Any]]:
    """Start the function of a tag on each of some peers."""
    from .calls import start

    def finish(peer: PeerArgument, result: Any) -> Any:
        return result if type(result) is not Flag else handle_flag(result, tag, peer)
    return start.start(process.client, process.coroutines, peers, tag, args, kwargs, timeout,
                       finish)
