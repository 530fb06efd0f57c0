"""A publishing process as its subscribers know it: what they hear, and what they missed."""
from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..identity import PeerId
from ..wire.deliveries import entries

#: Event and tag of a handler.
Pair = Tuple[str, bytes]


class News(NamedTuple):
    """Something for a handler: an event, or that it missed some.

    :ivar args: None for a gap; ``kwargs`` is then the number of events missed, or None if that
        cannot be told.
    """

    pair: Pair
    args: Optional[List[Any]]
    kwargs: Any


class Delivery:
    """The TCP connection that a source's events come over.

    :param lost: called with this when it has ended.
    """

    def __init__(self, source: Source, lost: Callable[[Delivery], None]) -> None:
        self.source = source
        self._lost = lost

    def ended(self) -> None:
        self._lost(self)


class Source:
    """One publishing process.

    :ivar instance: its random id; None for an old peer.
    :ivar facts: what it says of itself.
    :ivar subscribed: what we are subscribed to there.
    :ivar failures: ``[event, tag, text]`` of handlers that raised, for the publisher to be told.
    :ivar unsaid: failures beyond those.
    :ivar told_at: monotonic time at which it was last told.
    :ivar visiting: held while we subscribe there.
    :ivar lock: guards what follows, and is held until its events are queued, so that they stay in
        order.
    :ivar delivery: None while there is no connection.
    """

    def __init__(self, instance: Optional[str], peer: PeerId, facts: Dict[str, Any]) -> None:
        self.instance = instance
        self.peer = peer
        self.facts = facts
        self.subscribed: Set[Pair] = set()
        self.failures: List[List[str]] = []
        self.unsaid = 0
        self.told_at = 0.0
        self.visiting = threading.Lock()
        self.lock = threading.Lock()
        self.delivery: Optional[Delivery] = None
        # Over this connection: event -> who hears it, and the number of the last one.
        self._hearing: Dict[str, List[Pair]] = {}
        self._heard: Dict[str, int] = {}
        # Where a handler stopped to hear when a connection ended; None when a process ended, and
        # nobody knows what it triggered since.
        self._broken: Dict[Pair, Optional[int]] = {}

    def begin(self, delivery: Optional[Delivery]) -> None:
        """Events come over another connection from here on, or over none."""
        for event, pairs in self._hearing.items():
            self._broken.update({pair: self._heard[event] for pair in pairs})
        if delivery is None:
            # It may have ended before the first word of a subscription.
            for pair in list(self.subscribed):
                self._broken.setdefault(pair, None)
        self._hearing.clear()
        self._heard.clear()
        self.delivery = delivery

    def follow(self, earlier: Source) -> None:
        """This process has taken the place of another one."""
        for pair in {*earlier._broken, *earlier.subscribed}:
            self._broken.setdefault(pair, None)

    def read(self, values: Sequence[Any]) -> List[News]:
        """What a delivery holds for the handlers.

        :raises ProtocolError: not what a publisher sends.
        """
        news: List[News] = []
        for name, sequence, args, kwargs in entries(values):
            if args is None:
                self._begin_pair((name, kwargs.encode("ascii", "replace")), sequence, news)
                continue
            last = self._heard.get(name)
            # Events that were on their way when the subscription began are not part of it.
            if last is None or sequence <= last:
                continue
            self._heard[name] = sequence
            for pair in self._hearing[name]:
                if sequence != last + 1:
                    news.append(News(pair, None, sequence - last - 1))
                news.append(News(pair, args, kwargs))
        return news

    def _begin_pair(self, pair: Pair, sequence: int, news: List[News]) -> None:
        event = pair[0]
        pairs = self._hearing.setdefault(event, [])
        if pair in pairs:
            return
        pairs.append(pair)
        self._heard[event] = sequence
        self.subscribed.add(pair)
        last = self._broken.pop(pair, sequence)
        if last != sequence:
            news.append(News(pair, None, None if last is None else sequence - last))

    def drop(self, pair: Pair) -> None:
        """A handler hears an event no more."""
        self.subscribed.discard(pair)
        with self.lock:
            self._broken.pop(pair, None)
            if pair in self._hearing.get(pair[0], ()):
                self._hearing[pair[0]].remove(pair)
