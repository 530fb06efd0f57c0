"""Events to and from programs before 1.0: each event is a call of its own.

They cannot be kept a connection to, so all of this waits for them, in threads of its own.
"""
from __future__ import annotations

import threading
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

from ..dispatch import INVALID_CONNECTION
from ..errors import (Address, MessageTooLarge, NetError, PeerBusy, ProtocolError, RemoteError,
                      ValueNotSupported)
from ..identity import Flag, PeerId, make_tag
from ..run.client import Client
from ..run.loop import Loop
from ..wire.deliveries import Events, Pair, values_of
from .feeds import NO_PROGRESS, Feed
from .handlers import Handler
from .publishing import Publisher, log_failure, log_refused
from .shares import Shares, source_of
from .workers import Workers

INFO = make_tag("net.defaults.handlers", "info")
SUBSCRIBE = make_tag("net.defaults.handlers", "subscription_handler")

# Old peers that hear us at a time; each has a thread.
MAX_OLD = 64
# Seconds for an old peer to accept a connection.
OPEN_TIME = 5.0
# Seconds for one call of an old publisher.
CALL_TIME = 8.0
# Seconds between looks at one, whose end no connection tells.
LOOK_TIME = 30.0


class OldSubscribers:
    """Old peers that hear events of this process. Any thread may call."""

    def __init__(self, publisher: Publisher, client: Client) -> None:
        self._publisher = publisher
        self._client = client
        self._begin()

    def _begin(self) -> None:
        self._feeds: Dict[bytes, Feed] = {}
        self._threads = Shares(MAX_OLD)

    forget = _begin

    def subscribe(self, subscriber: PeerId, pair: Pair) -> None:
        """Let a handler of an old peer hear an event.

        One that subscribes to what it has subscribed to already is a new process at the same
        address, and starts anew.

        :raises PeerBusy: too many subscriptions.
        :raises NetError: that peer cannot be reached, or is no old one.
        """
        with self._publisher.lock:
            feed = self._feeds.get(subscriber)
            if feed is not None and pair[1] in feed.tags.get(pair[0], ()):
                self._publisher.end(feed, "it subscribes anew")
            if self._add(subscriber, pair):
                return
        connection = self._client.connect(subscriber.address, OPEN_TIME)
        if connection is not None:
            connection.close()
            raise NetError(f"{subscriber} is no old peer: it subscribes on its own connection, by "
                           f"net.subscribe there")
        with self._publisher.lock:
            if not self._add(subscriber, pair):
                self._start(Feed(subscriber, source_of(subscriber.address)), pair)

    def _add(self, subscriber: PeerId, pair: Pair) -> bool:
        """Let one hear that hears us already; False if it does not."""
        feed = self._feeds.get(subscriber)
        if feed is None or feed.ended:
            return False
        self._publisher.subscribe(feed, pair)
        return True

    def _start(self, feed: Feed, pair: Pair) -> None:
        if not self._threads.take(feed.source):
            raise PeerBusy(None, f"of the {MAX_OLD} places for old peers none is left for "
                                 f"{feed.source or 'this host'}")
        self._publisher.add(feed)
        try:
            self._publisher.subscribe(feed, pair)
            threading.Thread(target=self._serve, args=(feed,), name="net-events-old",
                             daemon=True).start()
            self._feeds[feed.subscriber] = feed
        except BaseException as problem:
            self._publisher.end(feed, f"it cannot be served: {problem}")
            self._threads.give_back(feed.source)
            if isinstance(problem, RuntimeError):  # can't start new thread
                raise PeerBusy(None, str(problem)) from None
            raise

    def _serve(self, feed: Feed) -> None:
        """Call an old peer's handlers, with one event after the other."""
        try:
            while self._serve_frame(feed):
                pass
        finally:
            with self._publisher.lock:
                if self._feeds.get(feed.subscriber) is feed:
                    del self._feeds[feed.subscriber]
            self._threads.give_back(feed.source)

    def _serve_frame(self, feed: Feed) -> bool:
        publisher = self._publisher
        with publisher.changed:
            publisher.changed.wait_for(lambda: feed.ended or feed.busy)
            frame = [] if feed.ended else feed.next_events()
        try:
            dropped = [self._call(feed, events) for events in frame]
        except NetError as problem:
            publisher.end(feed, str(problem))
        with publisher.changed:
            if feed.ended:
                return False
            feed.acknowledged(feed.sent, monotonic(), dropped)
            publisher.changed.notify_all()
            return True

    def _call(self, feed: Feed, events: Events) -> int:
        """Call with events of one name; the number of those that the old dialect cannot carry."""
        dropped = 0
        for name, _, args, kwargs in values_of(events, self._publisher.settings.limits):
            for tag in list(feed.tags.get(name, ())):
                try:
                    result = self._client.call(feed.subscriber, tag, tuple(args), kwargs,
                                               NO_PROGRESS)
                except RemoteError as problem:
                    log_failure(feed.subscriber, (name, tag), str(problem))
                except (ValueNotSupported, MessageTooLarge) as problem:
                    dropped += 1
                    log_refused(feed.subscriber, events._replace(total=1), str(problem))
                else:
                    if type(result) is Flag and result == INVALID_CONNECTION:
                        with self._publisher.lock:
                            self._publisher.registry.unsubscribe(feed, (name, tag))
        if not feed.tags:
            self._publisher.end(feed, "its handlers are gone")
        return dropped


class Visit(NamedTuple):
    """What is to be done at an old publisher.

    :ivar own_id: where it is to call us.
    :ivar subscribed: what it has been asked for already; the visit adds to it.
    :ivar done: called in the loop with the problem that there was, None if there was none.
    """

    address: Address
    own_id: PeerId
    handlers: List[Handler]
    subscribed: Set[Pair]
    done: Callable[[Optional[NetError]], None]


class OldPublishers:
    """Old peers that this process hears."""

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client = client
        self._loop = loop
        self._workers = Workers("net-subscriber")

    def visit(self, visit: Visit) -> None:
        """See to it that we are subscribed at an old peer."""
        self._workers.do(partial(self._visit, visit))

    def _visit(self, visit: Visit) -> None:
        problem: Optional[NetError] = None
        try:
            self._subscribe(visit)
        except NetError as error:
            problem = error
        self._loop.call_soon(partial(visit.done, problem))

    def _subscribe(self, visit: Visit) -> None:
        facts = self._call(visit.address, INFO)
        if type(facts) is not dict or "instance" in facts:
            raise ProtocolError(visit.address, "it is no old peer any more")
        for handler in visit.handlers:
            if handler.pair not in visit.subscribed and handler.accepts(facts):
                event, tag = handler.pair
                self._call(visit.address, SUBSCRIBE, event, visit.own_id.decode(), tag.decode())
                visit.subscribed.add(handler.pair)

    def _call(self, address: Address, tag: bytes, *args: Any) -> Any:
        result = self._client.call(address, tag, args, {}, CALL_TIME)
        if type(result) is Flag and result == INVALID_CONNECTION:
            raise ProtocolError(address, "it knows no events")
        return result
