"""The publishing half: what is sent to each subscriber, on the connection that it has opened.

Triggering an event only encodes it and puts it into the inbox. The loop hands it to the feed of
each subscriber and writes to their connections, none of which it ever waits for.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from time import monotonic
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from ..errors import NetError, PeerBusy, ProtocolError
from ..identity import PeerId, make_id, printable, tag_name
from ..log import EVENTS, RateLimitedLog
from ..run.channel import Channel, Receiver
from ..run.loop import Loop, Timer
from ..run.server_connection import Handover
from ..settings import KIB, MIB, Settings
from ..wire.deliveries import (MAX_REQUEST, Events, Pair, Triggered, encode_events,
                               encode_subscribed, join, pack_arguments, read_failed,
                               read_subscribe, read_taken, read_unsubscribe, size_of)
from ..wire.frames import FAILED, PUBLISHER_OPEN, SUBSCRIBE, TAKEN, UNSUBSCRIBE, Frame
from ..wire.limits import Limits
from ..wire.messages import encode_refusal
from ..wire.values import Packed
from .feeds import Count, Feed
from .registry import Registry, Subscriptions
from .shares import Shares, source_of

note = RateLimitedLog(logging.getLogger(EVENTS), burst=10)

# Events and bytes that may wait for the loop. A thread that triggers more at once gives way to the
# loop, which would get no turn otherwise; the loop itself never waits for the network.
MAX_INBOX = 5000
MAX_INBOX_BYTES = 8 * MIB
# Seconds after which a thread that gives way goes on all the same.
GIVE_WAY = 1.0
# Events that are handed to the feeds in one go. No thread can trigger meanwhile.
AT_ONCE = 500
# Seconds between checks of the clock and the settings: while events wait for a subscriber, and
# while none wait.
TICK = 0.25
IDLE_TICK = 1.0
# Subscribers that are gone and still counted.
MAX_HISTORY = 1000

# Bytes that a subscriber may say at once, and per second, besides that it has taken events. All
# subscriptions that it may have fit in, and as many failures of handlers as it reports. One that
# says more is read more slowly, and after some seconds of that not at all: while it is not read,
# its end would not be noticed either.
MAX_SAID = 512 * KIB
SAID_PER_SECOND = 128 * KIB
MAX_SLOWED = 5.0
# Bytes that each frame counts besides its text: what it costs to look at it.
FRAME_COST = 256
# Failures of one frame that are looked at one by one. The log takes no more, and what does not get
# there costs as much time.
MAX_LOGGED = 10


class Publisher:
    """Sends events to subscribers. Any thread may call, except where it says "in the loop".

    :param subscriptions: the public registry, in which applications see who has subscribed.
    :param places: those that connections for events may take, shared with the other half.
    """

    def __init__(self, subscriptions: Subscriptions, loop: Loop, settings: Settings,
                 places: Shares) -> None:
        self.loop = loop
        self.settings = settings
        self.registry = Registry(subscriptions)
        #: Called with the port that a new subscriber serves at.
        self.arrived: Callable[[int], None] = lambda port: None
        self._places = places
        self._begin()

    def _begin(self) -> None:
        # Guards all that follows, the registry and the places. Reentrant: a signal handler may
        # trigger, too.
        self.lock = threading.RLock()
        # Notified when the inbox was emptied, when subscribers received events, and when feeds
        # ended.
        self.changed = threading.Condition(self.lock)
        # Events that have no number yet, and whether a thread is giving them theirs.
        self._triggered: Deque[Tuple[str, Packed]] = deque()
        self._numbering = False
        self._sequences: Dict[str, int] = {}
        self._inbox: Deque[Triggered] = deque()
        self._inbox_bytes = 0
        self._handed_out = 0
        self._turn_is_due = False
        self._look: Optional[Timer] = None
        self._connections: Dict[Feed, SubscriberConnection] = {}
        self._gone: Dict[Tuple[str, bytes], Count] = {}
        self._cut_off = 0

    # --------------------------------------------------------------------- triggering

    def publish(self, name: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> None:
        """Send an event to everyone who has subscribed to it. Never waits for the network.

        :raises ValueNotSupported: a value cannot travel; says where it is.
        :raises MessageTooLarge: over a limit.
        """
        self._triggered.append((name, pack_arguments(args, kwargs, self.settings.limits)))
        with self.lock:
            # A signal handler may interrupt this thread anywhere in here and trigger, too. Its
            # event then gets its number from the thread that it has interrupted.
            while self._triggered and not self._numbering:
                self._numbering = True
                try:
                    while self._triggered:
                        self._number(*self._triggered.popleft())
                finally:
                    self._numbering = False
            if not (self._has_room() or self._numbering or self.loop.in_loop()):
                self.changed.wait_for(self._has_room, GIVE_WAY)

    def _number(self, name: str, values: Packed) -> None:
        sequence = self._sequences[name] = self._sequences.get(name, 0) + 1
        if self.registry.is_heard(name):
            self._inbox.append((name, sequence, values))
            self._inbox_bytes += size_of(values)
            if not self._turn_is_due:
                self._call_turn()

    def _has_room(self) -> bool:
        return len(self._inbox) < MAX_INBOX and self._inbox_bytes < MAX_INBOX_BYTES

    def _call_turn(self) -> None:
        try:
            self.loop.call_soon(self._turn)
            self._turn_is_due = True
        except OSError as problem:  # no thread to be had; the next event tries again
            note(logging.WARNING, "events have to wait: %s", problem)

    def _turn(self) -> None:
        """Hand out what the inbox holds, in the loop."""
        with self.lock:
            self._turn_is_due = False
            feeds = self._empty_inbox(monotonic())
            if self._inbox:
                self._call_turn()
            self.changed.notify_all()
            connections = [self._connections[feed] for feed in feeds if feed in self._connections]
        for connection in connections:
            connection.send_events()

    def _empty_inbox(self, now: float) -> List[Feed]:
        """Give events to the feeds; return those that got any."""
        taken = [self._inbox.popleft() for _ in range(min(AT_ONCE, len(self._inbox)))]
        self._inbox_bytes -= sum([size_of(values) for _, _, values in taken])
        self._handed_out += len(taken)
        feeds: Dict[Feed, None] = {}
        for events in join(taken):
            for feed in self.registry.hearers(events.name):
                feed.put(events, now)
                feeds[feed] = None
                if feed.overflows:
                    self.end(feed, feed.falls_behind(now), cut_off=True)
        return list(feeds)

    # -------------------------------------------------------------------- subscribers

    def adopt(self, handover: Handover, owner: object = None) -> None:
        """Take over the connection of a subscriber from the thread that has served it.

        :param owner: what :meth:`close` will name.
        :raises PeerBusy: there are too many such connections.
        """
        source = source_of(handover.address)
        with self.lock:
            if not self._places.take(source):
                raise PeerBusy(None, f"of the {self._places.limit:,} connections for events that "
                                     f"there may be, none is left for {source or 'this host'}")
        try:
            connection = SubscriberConnection(self, handover, source, owner)
            self.loop.call_soon(connection.start)
        except BaseException as problem:
            self.give_back(source)
            if isinstance(problem, OSError):  # no thread to be had
                raise PeerBusy(None, str(problem)) from None
            raise

    def give_back(self, source: str) -> None:
        """The place of a connection is free."""
        with self.lock:
            self._places.give_back(source)

    def add(self, feed: Feed, connection: Optional[SubscriberConnection] = None) -> None:
        """Take up a feed: that of a connection, or, without one, that of an old peer."""
        with self.lock:
            self.registry.add(feed, None if connection is None else connection.address)
            if connection is not None:
                self._connections[feed] = connection
            if self._look is None:
                self._look = self.loop.call_later(IDLE_TICK, self._look_around)

    def subscribe(self, feed: Feed, pair: Pair) -> int:
        """Let a handler of a subscriber hear an event.

        :returns: the number of the last event that it does not hear.
        :raises PeerBusy: too many subscriptions.
        """
        with self.lock:
            self.registry.subscribe(feed, pair)
            return self._sequences.get(pair[0], 0)

    def end(self, feed: Feed, reason: str, cut_off: bool = False) -> None:
        """Forget a subscriber."""
        with self.lock:
            if not self.registry.remove(feed):
                return
            feed.end(reason, cut_off)
            self._cut_off += cut_off
            connection = self._connections.pop(feed, None)
            if not self.registry.feeds and self._look is not None:
                self._look.cancel()
                self._look = None
            for name, count in feed.counts.items():
                self._gone.setdefault((name, feed.subscriber), Count()).add(count)
            while len(self._gone) > MAX_HISTORY:
                del self._gone[next(iter(self._gone))]
            self.changed.notify_all()
        if connection is not None:
            self.loop.call_soon(connection.close)
        note(logging.WARNING if feed.lost or cut_off else logging.INFO,
             f"{'cut off' if cut_off else 'ended'} the subscriber %s, %d events dropped: %s",
             feed.subscriber, feed.lost, printable(reason))

    def _look_around(self) -> None:
        """Cut off subscribers that lag, and end those that connected under other settings. In the
        loop."""
        now = monotonic()
        with self.lock:
            for feed in list(self.registry.feeds):
                reason = feed.falls_behind(now)
                if reason:
                    self.end(feed, reason, cut_off=True)
            for connection in list(self._connections.values()):
                connection.check_settings()
            if self.registry.feeds:
                busy = any([feed.busy for feed in self.registry.feeds])
                self._look = self.loop.call_later(TICK if busy else IDLE_TICK, self._look_around)

    # ------------------------------------------------------------------- and the rest

    def flush(self, timeout: Optional[float]) -> Dict[bytes, Dict[str, int]]:
        """Wait until the subscribers' processes have received every event triggered so far.

        :param timeout: seconds, None for no limit.
        :returns: peer id -> event -> how many were not taken. Empty if all were.
        """
        end = None if timeout is None else monotonic() + timeout
        with self.changed:
            triggered = self._handed_out + len(self._inbox)
            self.changed.wait_for(lambda: self._handed_out >= triggered, timeout)
            awaited = [(feed, feed.accepted) for feed in self.registry.feeds]
            self.changed.wait_for(
                lambda: all([feed.finished >= until or feed.ended for feed, until in awaited]),
                None if end is None else end - monotonic())
            left: Dict[bytes, Dict[str, int]] = {}
            for feed, until in awaited:
                for name, count in feed.left(until).items():
                    counts = left.setdefault(feed.subscriber, {})
                    counts[name] = counts.get(name, 0) + count
            return left

    def stats(self) -> Dict[str, Any]:
        """What became of the events: ``{"events": {name: {"triggered": int, "subscribers":
        {peer id: {"sent": int, "queued": int, "dropped": int}}}}, "cut off": int}``."""
        with self.lock:
            events: Dict[str, Any] = {name: {"triggered": sequence, "subscribers": {}}
                                      for name, sequence in list(self._sequences.items())}
            found = [(name, subscriber, count)
                     for (name, subscriber), count in list(self._gone.items())]
            found += [(name, feed.subscriber, count) for feed in list(self.registry.feeds)
                      for name, count in list(feed.counts.items())]
            for name, subscriber, count in found:
                events[name]["subscribers"].setdefault(subscriber, Count()).add(count)
            for facts in events.values():
                facts["subscribers"] = {subscriber: count.as_dict()
                                        for subscriber, count in facts["subscribers"].items()}
            return {"events": events, "cut off": self._cut_off}

    def close(self, owner: object, timeout: float) -> None:
        """Give the events ``timeout`` seconds to leave, then end the subscribers of an owner, and
        all old peers."""
        self.flush(timeout)
        with self.lock:
            for feed in list(self.registry.feeds):
                connection = self._connections.get(feed)
                if connection is None or connection.owner is owner:
                    self.end(feed, "this peer closes")

    def forget(self) -> None:
        """Start afresh in a forked child: subscribers and connections are the parent's."""
        for connection in self._connections.values():
            connection.abandon()
        self.registry.clear()
        self._begin()


class SubscriberConnection(Receiver):
    """The connection of a subscriber: what it says, and the frames that it gets. In the loop.

    :ivar owner: the peer that it has connected to.
    """

    def __init__(self, publisher: Publisher, handover: Handover, source: str,
                 owner: object) -> None:
        self.address = handover.address
        self.owner = owner
        self._publisher = publisher
        self._handover = handover
        self._channel: Optional[Channel] = None
        self._source = source
        self._feed: Optional[Feed] = None
        # What it may still say now, and since when.
        self._may_say = float(MAX_SAID)
        self._since = monotonic()
        # Seconds for which it had to wait since it last said little.
        self._slowed = 0.0

    def start(self) -> None:
        """Begin with the frame that has asked for events."""
        handover = self._handover
        # It may still be watched for a call that came over it before.
        self._publisher.loop.unregister(handover.stream.sock)
        handover.session.allow(PUBLISHER_OPEN, Limits(text=MAX_REQUEST, buffers=0))
        self._channel = Channel(self._publisher.loop, handover.stream, handover.session, self,
                                self.address)
        self.received(self._channel, handover.first)

    def received(self, channel: Channel, event: Any) -> None:
        """A frame of the subscriber has arrived."""
        if self._channel is None or self._feed is not None and self._feed.ended:
            return
        try:
            self._handle(channel, event)
        except NetError as problem:
            channel.send(encode_refusal(0, problem))
            self._end(str(problem))

    def ended(self, channel: Channel, problem: NetError) -> None:
        """The connection has ended."""
        self._end(getattr(problem, "reason", str(problem)))

    def _end(self, reason: str) -> None:
        if self._feed is None:
            self.close()
        else:
            self._publisher.end(self._feed, reason)

    def close(self) -> None:
        """Close the connection, if it is still open."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._publisher.give_back(self._source)

    def abandon(self) -> None:
        """Close our copy of the socket, in a forked child."""
        if self._channel is not None:
            self._channel.abandon()

    def check_settings(self) -> None:
        """End the connection if it was opened under other settings of security."""
        if self._handover.revision != self._publisher.settings.revision:
            self._end("the settings have changed")

    # ------------------------------------------------------------------- what it says

    def _handle(self, channel: Channel, event: Frame) -> None:
        if event.kind == TAKEN:
            self._take(channel, event)
        else:
            self._charge(channel, len(event.text))
            if event.kind == SUBSCRIBE:
                self._subscribe(channel, event)
            elif self._feed is not None and event.kind == UNSUBSCRIBE:
                with self._publisher.lock:
                    self._publisher.registry.unsubscribe(self._feed, read_unsubscribe(event))
            elif self._feed is not None and event.kind == FAILED:
                self._log_failures(self._feed, event)
            else:
                channel.send(encode_refusal(event.number, ProtocolError(
                    None, "this connection carries events, and nothing else")))

    def _charge(self, channel: Channel, size: int) -> None:
        """Pause reading if it sends too much."""
        now = monotonic()
        may_say = self._may_say + (now - self._since) * SAID_PER_SECOND
        if may_say >= MAX_SAID:
            may_say, self._slowed = MAX_SAID, 0.0
        self._may_say = may_say - size - FRAME_COST
        self._since = now
        if self._may_say < 0:
            delay = -self._may_say / SAID_PER_SECOND
            self._slowed += delay
            if self._slowed > MAX_SLOWED:
                raise ProtocolError(None, "it says too much")
            channel.pause()
            self._publisher.loop.call_later(delay, self._read_on)

    def _read_on(self) -> None:
        if self._channel is not None:
            self._channel.resume()

    def _subscribe(self, channel: Channel, frame: Frame) -> None:
        request = read_subscribe(frame)
        if self._feed is None:
            self._feed = Feed(self._subscriber_id(request.port), self._source)
            self._publisher.add(self._feed, self)
            self._publisher.arrived(self._feed.subscriber.address[1])
        try:
            with self._publisher.lock:
                heard = self._publisher.registry.hears(request.places, request.pair)
                sequence = None if heard else self._publisher.subscribe(self._feed, request.pair)
        except PeerBusy as problem:
            channel.send(encode_refusal(frame.number, problem))
        else:
            channel.send(encode_subscribed(frame.number, sequence))

    def _subscriber_id(self, port: Optional[int]) -> PeerId:
        """The id under which it is shown: the host is known, the port is the one that it gives."""
        host, own_port = self.address or ("127.0.0.1", 1)
        return make_id(port or own_port, host, self._handover.group)

    def _take(self, channel: Channel, frame: Frame) -> None:
        problem = read_taken(frame)
        feed, publisher = self._feed, self._publisher
        assert feed is not None
        with publisher.lock:
            if feed.ended:
                return
            refused = feed.acknowledged(frame.number, monotonic(), () if problem is None else None)
            publisher.changed.notify_all()
        self.send_events()
        if problem is not None:
            self._charge(channel, len(frame.text))
            for events in refused:
                log_refused(feed.subscriber, events, problem)

    def _log_failures(self, feed: Feed, frame: Frame) -> None:
        failures, more = read_failed(frame)
        for pair, problem in failures[:MAX_LOGGED]:
            log_failure(feed.subscriber, pair, problem)
        more += len(failures[MAX_LOGGED:])
        if more:
            note(logging.WARNING, "handlers of the subscriber %s raised %d times more",
                 feed.subscriber, more)

    # ------------------------------------------------------------------- what it gets

    def send_events(self) -> None:
        """Send what waits, until enough is on its way."""
        self.check_settings()
        while self._feed is not None and self._channel is not None:
            with self._publisher.lock:
                events = [] if self._feed.ended else self._feed.next_events()
            if not events:
                return
            self._channel.send(encode_events(self._feed.sent, events))


def log_failure(subscriber: PeerId, pair: Pair, problem: str) -> None:
    """Log that a subscriber's handler raised."""
    note(logging.WARNING, "the handler %s of the subscriber %s raised on an event %r: %s",
         tag_name(pair[1]), subscriber, printable(pair[0]), printable(problem))


def log_refused(subscriber: PeerId, events: Events, reason: str) -> None:
    """Log that a subscriber cannot read events."""
    note(logging.WARNING, "the subscriber %s cannot take %d events %r: %s", subscriber,
         events.total, events.name, printable(reason))
