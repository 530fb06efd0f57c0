"""Which peers hear which event here, within which limits. No socket, thread or clock; callers hold
the lock."""
from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ..errors import Address, PeerBusy
from ..identity import PeerId, without_zone
from ..wire.deliveries import Pair
from .feeds import Feed
from .shares import Shares

# Each is some hundred bytes here and an entry in every event; an application has a few.
MAX_SUBSCRIPTIONS = 10_000
MAX_SUBSCRIPTIONS_OF_A_PEER = 256

#: event -> peer id -> tags
Subscriptions = Dict[str, Dict[bytes, Any]]


class Registry:
    """The subscriptions of other peers to events of this process.

    :param shown: the public registry, in which applications see who has subscribed. They may change
        it, which changes nothing here.
    :ivar feeds: all feeds, each with the address of its connection; None for an old peer's.
    """

    def __init__(self, shown: Subscriptions) -> None:
        self.feeds: Dict[Feed, Optional[Address]] = {}
        self._shown = shown
        self._by_address: Dict[Address, Feed] = {}
        self._hearers: Dict[str, Dict[Feed, None]] = {}
        self._shares = Shares(MAX_SUBSCRIPTIONS)

    def hearers(self, name: str) -> Sequence[Feed]:
        """The feeds of the subscribers of an event."""
        return list(self._hearers.get(name, ()))

    def is_heard(self, name: str) -> bool:
        """Whether an event has subscribers."""
        return name in self._hearers

    def add(self, feed: Feed, address: Optional[Address]) -> None:
        """Take up a feed.

        :param address: the address from which its connection comes; None for an old peer's.
        """
        if address is not None:
            # As the other side names it.
            address = without_zone(address[0]), address[1]
        self.feeds[feed] = address
        if address is not None:
            self._by_address[address] = feed

    def remove(self, feed: Feed) -> bool:
        """Forget a feed and what it hears. False if it was forgotten before."""
        if feed not in self.feeds:
            return False
        for name, tags in list(feed.tags.items()):
            for tag in list(tags):
                self.unsubscribe(feed, (name, tag))
        address = self.feeds.pop(feed)
        if address is not None and self._by_address.get(address) is feed:
            del self._by_address[address]
        return True

    def hears(self, places: List[Address], pair: Pair) -> bool:
        """Whether a handler hears an event through a connection that comes from one of some
        addresses."""
        feeds = [self._by_address[place] for place in places if place in self._by_address]
        return any([pair[1] in feed.tags.get(pair[0], ()) for feed in feeds])

    def subscribe(self, feed: Feed, pair: Pair) -> None:
        """Let a handler of a subscriber hear an event. Nothing happens if it already does.

        :raises PeerBusy: too many subscriptions.
        """
        name, tag = pair
        if tag in feed.tags.get(name, ()):
            return
        if sum(map(len, feed.tags.values())) >= MAX_SUBSCRIPTIONS_OF_A_PEER:
            raise PeerBusy(None, f"a peer may have {MAX_SUBSCRIPTIONS_OF_A_PEER} subscriptions")
        if not self._shares.take(feed.source):
            raise PeerBusy(None, f"of the {MAX_SUBSCRIPTIONS:,} subscriptions that there may be, "
                                 f"none is left for {feed.source or 'this host'}")
        feed.tags.setdefault(name, []).append(tag)
        self._hearers.setdefault(name, {})[feed] = None
        self._shown.setdefault(name, {}).setdefault(feed.subscriber, []).append(tag)

    def unsubscribe(self, feed: Feed, pair: Pair) -> None:
        """Let a handler no longer hear an event. Nothing happens if it does not."""
        name, tag = pair
        tags = feed.tags.get(name, [])
        if tag not in tags:
            return
        tags.remove(tag)
        if not tags:
            del feed.tags[name], self._hearers[name][feed]
            if not self._hearers[name]:
                del self._hearers[name]
        self._shares.give_back(feed.source)
        self._show_no_more(name, feed.subscriber, tag)

    def _show_no_more(self, name: str, subscriber: PeerId, tag: bytes) -> None:
        peers = self._shown.get(name, {})
        if tag in peers.get(subscriber, ()):  # an application may have changed it
            peers[subscriber].remove(tag)
        if not peers.get(subscriber, True):
            del peers[subscriber]
        if not peers:
            self._shown.pop(name, None)

    def clear(self) -> None:
        """Forget all subscribers."""
        self._shown.clear()
        self.__init__(self._shown)  # type: ignore[misc]
