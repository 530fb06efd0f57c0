"""The functions of this process that hear events, and which peers they hear."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Set

from ..errors import Address, CallCancelled
from ..identity import PeerId
from ..link.streams import is_own_address
from ..settings import is_loopback
from ..wire.deliveries import Pair

if TYPE_CHECKING:
    from ..executors import Place


class Handler:
    """A function that hears an event.

    :ivar addresses: those of the peers that it hears; None for all peers.
    :ivar groups: those of which a peer must have one; None for any.
    :ivar place: where it runs; None for the thread of all handlers.
    """

    def __init__(self, event: str, tag: bytes, function: Callable[..., Any],
                 addresses: Optional[Set[Address]] = None,
                 groups: Optional[Set[Optional[str]]] = None,
                 hubs_only: bool = False, on_host: bool = False,
                 on_gap: Optional[Callable[..., Any]] = None,
                 place: Optional[Place] = None) -> None:
        self.pair: Pair = (event, tag)
        self.function = function
        self.addresses = addresses
        self.groups = groups
        self.hubs_only = hubs_only
        self.on_host = on_host
        self.on_gap = on_gap
        self.place = place
        self.active = True

    def hears(self, address: Address, found: bool) -> bool:
        """Whether it is to hear what is at an address, as far as can be told without asking there.

        :param found: whether a search has found a peer there, so that it is one of all peers.
        """
        wanted = found if self.addresses is None else address in self.addresses
        return wanted and (not self.on_host or is_loopback(address[0])
                           or is_own_address(address[0]))

    @property
    def asks(self) -> bool:
        """Whether it depends on what a peer says about itself."""
        return self.groups is not None or self.hubs_only

    def accepts(self, facts: Dict[str, Any]) -> bool:
        """Whether it is to hear a peer that describes itself so."""
        return (self.groups is None or facts.get("group") in self.groups) \
            and (not self.hubs_only or facts.get("hub") is True)

    def end(self) -> None:
        """The handler was unsubscribed. Calls of it that wait for its executor never run."""
        self.active = False
        if self.place is not None:
            self.place.end()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function where this one is to run, and wait for it."""
        if self.place is None:
            return function(*args, **kwargs)
        try:
            return self.place.run(function, *args, **kwargs)
        except CallCancelled:
            if self.active:
                raise

    def run(self, *args: Any, **kwargs: Any) -> None:
        if self.active:
            self.call(self.function, *args, **kwargs)

    def run_gap(self, peer: PeerId, missed: Optional[int]) -> None:
        if self.active and self.on_gap is not None:
            self.call(self.on_gap, self.pair[0], peer, missed)
