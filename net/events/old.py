"""Events to and from programs before 1.0: each event is a call of its own.

They do not keep a connection, so all of this makes blocking calls, in threads of its own.
"""
from __future__ import annotations

import os
import re
import threading
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ..dispatch import INVALID_CONNECTION
from ..errors import Address, NetError, PeerBusy, PeerUnreachable, ProtocolError, RemoteError
from ..identity import Flag, PeerId, tag_name
from ..run.client import Client
from ..run.loop import Loop
from ..run.old_peers import OldPeer
from ..wire.deliveries import Events, Pair, values_of
from ..wire.legacy import CONNECTIONS, INFO, SUBSCRIBE, marked, unmarked
from .feeds import MAX_BYTES, MAX_EVENTS, Feed
from .handlers import Handler
from .publishing import Publisher, log_failure, log_refused
from .repeats import Repeats
from .shares import Shares, source_of
from .workers import Workers

# Old peers that hear us at a time; each has a thread.
MAX_OLD = 64
# Seconds for one call of an old publisher.
CALL_TIME = 8.0
# Seconds between checks of one: no connection shows that it has ended.
LOOK_TIME = 30.0
# How 0.4 describes a function of its own: by where it lies in memory, which is another place in
# each process.
_PLACE = re.compile(r"<function info at (0x[0-9A-Fa-f]+)>")


class OldFeed(Feed):
    """The events that an old peer is still to be called with. Its handler may take any time; events
    for which there is no room meanwhile are dropped, and it is never cut off.

    :param old: the way to call it.
    :ivar requests: how often it has subscribed.
    """

    def __init__(self, subscriber: PeerId, old: OldPeer) -> None:
        super().__init__(subscriber, source_of(subscriber.address))
        self.old = old
        self.requests = 0

    def put(self, events: Events, now: float) -> None:
        if self.waiting >= MAX_EVENTS or self._bytes >= MAX_BYTES:
            self._count(events.name).dropped += events.total
        else:
            super().put(events, now)

    @property
    def overflows(self) -> bool:
        return False

    def falls_behind(self, now: float) -> str:
        return ""


class OldSubscribers:
    """Old peers that hear events of this process. Any thread may call."""

    def __init__(self, publisher: Publisher, client: Client) -> None:
        self._publisher = publisher
        self._client = client
        publisher.arrived = self.doubt
        self._begin()

    def _begin(self) -> None:
        self._feeds: Dict[bytes, OldFeed] = {}
        self._threads = Shares(MAX_OLD)

    forget = _begin

    def subscribe(self, subscriber: PeerId, pair: Pair, dialect: str) -> None:
        """Let a handler of an old peer hear an event. Nothing changes if it already does.

        :param dialect: the one in which it has asked; empty for ours.
        :raises PeerBusy: too many subscriptions.
        :raises NetError: it is not an old peer.
        """
        if not dialect:
            raise NetError(f"{subscriber} is not an old peer: it subscribes on its own connection, "
                           f"by net.subscribe there")
        with self._publisher.lock:
            feed = self._feeds.get(subscriber)
            if feed is None or feed.ended:
                self._start(OldFeed(subscriber, self._client.old_peer(subscriber.address, dialect)),
                            pair)
            else:
                self._publisher.subscribe(feed, pair)
                feed.old.seen(dialect)
                feed.requests += 1

    def doubt(self, port: int, host: Optional[str] = None) -> None:
        """A newer program is at a port now. Old peers that were there are looked at, at once and
        before they get another event.

        :param host: the host of the port; None for any, since a host has more names than we can
            tell.
        """
        if not self._feeds:
            return
        with self._publisher.changed:
            for feed in self._feeds.values():
                address = feed.subscriber.address
                if address[1] == port and host in (None, address[0]):
                    feed.old.doubt()
            self._publisher.changed.notify_all()

    def _start(self, feed: OldFeed, pair: Pair) -> None:
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

    def _serve(self, feed: OldFeed) -> None:
        """Call an old peer's handlers, with one event after the other."""
        try:
            while self._serve_frame(feed):
                pass
        finally:
            with self._publisher.lock:
                if self._feeds.get(feed.subscriber) is feed:
                    del self._feeds[feed.subscriber]
            self._threads.give_back(feed.source)

    def _serve_frame(self, feed: OldFeed) -> bool:
        publisher = self._publisher
        with publisher.changed:
            publisher.changed.wait_for(lambda: feed.ended or feed.busy or feed.old.doubted)
            frame = [] if feed.ended else feed.next_events()
        try:
            if not frame:
                self._reach(feed, lambda: None)
            dropped = [self._bring(feed, events) for events in frame]
        except NetError as problem:
            publisher.end(feed, str(problem))
        with publisher.changed:
            if feed.ended:
                return False
            if frame:
                feed.acknowledged(feed.sent, monotonic(), dropped)
                publisher.changed.notify_all()
            return True

    def _bring(self, feed: OldFeed, events: Events) -> int:
        """Call an old peer with events of one name; return how many did not arrive."""
        dropped = 0
        for name, _, args, kwargs in values_of(events, self._publisher.settings.limits):
            for tag in list(feed.tags.get(name, ())):
                problem = self._reach(feed, lambda: self._call(
                    feed, (name, tag), tuple(args), kwargs))
                if problem is not None:
                    dropped += 1
                    log_refused(feed.subscriber, events._replace(total=1), problem)
        return dropped

    def _reach(self, feed: OldFeed, do: Callable[[], Optional[str]]) -> Optional[str]:
        """Do something with an old peer, once it is sure to be there; return what was wrong, None
        if nothing was. A feed whose peer is gone ends."""
        requests = feed.requests
        try:
            while not feed.ended:
                if feed.old.is_gone(None):
                    raise PeerUnreachable(feed.subscriber.address, "a newer program is there")
                if not feed.old.doubted:  # else it has not answered
                    return do()
        except PeerUnreachable as problem:
            with self._publisher.lock:
                # One that has started again meanwhile may have subscribed already.
                if feed.requests == requests:
                    self._publisher.end(feed, str(problem))
        return "nobody answers"

    def _call(self, feed: OldFeed, pair: Pair, args: Tuple[Any, ...],
              kwargs: Dict[str, Any]) -> Optional[str]:
        try:
            result = feed.old.call(feed.subscriber, pair[1], args, kwargs, None)
        except PeerUnreachable:
            raise
        except RemoteError as problem:
            log_failure(feed.subscriber, pair, str(problem))
        except NetError as problem:  # it cannot carry that, or the connection broke
            return str(problem)
        else:
            if type(result) is Flag and result == INVALID_CONNECTION:
                # A program that has just started there: it subscribes once it has the function.
                return f"it has no function {tag_name(pair[1])} now"
        return None


class Visit(NamedTuple):
    """What is to be done at an old publisher.

    :ivar own_id: where it is to call us.
    :ivar subscribed: what it has been asked for already; the visit adds to it.
    :ivar done: called in the loop at the end, with what went wrong; None if nothing did.
    """

    address: Address
    own_id: PeerId
    handlers: List[Handler]
    subscribed: Set[Pair]
    done: Callable[[Optional[NetError]], None]


class OldPublishers:
    """Old peers that this process hears.

    :param connections: the registry of functions, for the tags by which they call our handlers.
    :param find: gives the handler of a pair, None if there is none.
    :param hears: whether the handler of a tag hears any event.
    """

    def __init__(self, client: Client, loop: Loop, connections: Dict[bytes, Callable[..., Any]],
                 find: Callable[[Pair], Optional[Handler]],
                 hears: Callable[[bytes], bool]) -> None:
        self._client = client
        self._loop = loop
        self._connections = connections
        self._find = find
        self._hears = hears
        self._workers = Workers("net-subscriber")
        # By the tag of each handler that an old peer was ever asked to call.
        self._repeats: Dict[bytes, Repeats] = {}
        # The tag of each subscription. Only visits touch it, one at an address at a time.
        self._marks: Dict[Tuple[Address, Pair], bytes] = {}
        # By what each process at an address is known again: likewise.
        self._processes: Dict[Address, str] = {}

    def knows(self, address: Address) -> bool:
        """Whether an old peer is at an address, as far as is known."""
        return bool(self._client.dialect(address))

    def saw(self, address: Address, dialect: str) -> None:
        """A peer has just answered there, in an old dialect or, where it is empty, in ours."""
        self._client.saw(address, dialect)

    def visit(self, visit: Visit) -> None:
        """Make sure that we are subscribed at an old peer."""
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
            self._client.saw(visit.address, "")
            raise ProtocolError(visit.address, "it is not an old peer any more")
        visit.subscribed.difference_update(self._forgotten(visit, facts))
        for handler in visit.handlers:
            if handler.pair not in visit.subscribed and handler.accepts(facts):
                self._subscribe_marked(visit, handler.pair)
                visit.subscribed.add(handler.pair)

    def _forgotten(self, visit: Visit, facts: Dict[str, Any]) -> List[Pair]:
        """The subscriptions that a process does not have, because it was started after they were
        made, as far as its version shows that.
        """
        events = facts.get("subscriptions")
        if isinstance(events, (list, dict)):  # 0.6 names those that anybody has subscribed to
            return [pair for pair in visit.subscribed if pair[0] not in events]
        if "executable" not in facts:
            return []  # 0.3, in which nothing shows that
        before = self._processes.get(visit.address)
        try:
            found = _PLACE.search(str(self._call(visit.address, CONNECTIONS)))
        except (ProtocolError, RemoteError):
            found = None  # it does not have that function
        if found is None:
            return []
        self._processes[visit.address] = found.group(1)
        return [] if before in (None, found.group(1)) else list(visit.subscribed)

    def _subscribe_marked(self, visit: Visit, pair: Pair) -> None:
        """Have an old peer call a handler, under a tag of this one subscription. An old peer has no
        way to unsubscribe, and calls for each subscription that there ever was."""
        mark = marked(pair[1], os.urandom(6).hex())
        self._repeats.setdefault(pair[1], Repeats()).expect(visit.address[0])
        self._connections[mark] = partial(self._run, pair)
        try:
            self._call(visit.address, SUBSCRIBE, pair[0], visit.own_id.decode(), mark.decode())
        except BaseException:
            del self._connections[mark]
            raise
        self._connections.pop(self._marks.pop((visit.address, pair), b""), None)
        self._marks[visit.address, pair] = mark

    def begin(self, host: str, tag: bytes, args: Any, kwargs: Any) -> Optional[Callable[[], None]]:
        """An old program calls one of our functions.

        :param host: the host from which the call comes.
        :returns: what is to be called at its end; None if it must not run, because it brings an
            event a second time.
        """
        handler = unmarked(tag)
        repeats = self._repeats.get(handler)
        if repeats is None:
            return _nothing
        call = repeats.begin(host, tag != handler, self._hears(handler), args, kwargs, monotonic())
        return None if call is None else lambda: call.end(monotonic())

    def _run(self, pair: Pair, *args: Any, **kwargs: Any) -> Any:
        """Run a handler in the thread of the call; an old peer gets what it returns."""
        handler = self._find(pair)
        return None if handler is None else handler.call(
            handler.function, *args, **kwargs)

    def _call(self, address: Address, tag: bytes, *args: Any) -> Any:
        result = self._client.call(address, tag, args, {}, CALL_TIME)
        if type(result) is Flag and result == INVALID_CONNECTION:
            raise ProtocolError(address, "it knows no events")
        return result


def _nothing() -> None:
    """What is called at the end of most calls."""
