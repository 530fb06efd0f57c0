"""The publishing half: who has subscribed, and the thread that brings them the events.

Whoever triggers an event only encodes it and puts it into the inbox. One thread hands it to the
feed of each subscriber and writes to their connections, none of which it ever waits for.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from time import monotonic
from typing import Any, Callable, Deque, Dict, Optional, Sequence, Set, Tuple

from ..dispatch import INVALID_CONNECTION
from ..settings import MIB, settings
from ..errors import (MessageTooLarge, NetError, PeerBusy, PeerLost, ProtocolError, RemoteError,
                      ValueNotSupported)
from ..identity import Flag, PeerId, printable, tag_name
from ..wire.deliveries import (DELIVER, Events, Triggered, encode_delivery, join, make_beginning,
                               pack_arguments, size_of, values_of)
from ..wire.frames import EndOfStream, Frame, RESULT
from ..wire.messages import decode_reply
from ..process import process
from ..run.client import Connection
from ..link.streams import Deadline
from ..log import SafeLog
from ..run.pipelines import Pipeline, Pipelines
from .feeds import NO_PROGRESS, Count, Feed

log = SafeLog(__name__)

# Each is some hundred bytes here and an entry in every event; an application has a few.
MAX_SUBSCRIPTIONS = 10_000
MAX_SUBSCRIPTIONS_OF_A_PEER = 256
# Events, and bytes, that wait for the thread. It never waits for the network, so that whoever
# triggers more at once only gives way to it; without that it would get no turn.
MAX_INBOX = 5000
MAX_INBOX_BYTES = 8 * MIB
# Seconds after which whoever triggers goes on all the same.
GIVE_WAY = 1.0
# Events that are handed to the feeds in one go. Meanwhile nobody can trigger.
AT_ONCE = 500
# Seconds for a subscriber to accept the connection that its events will come over.
OPEN_TIME = 5.0
# Seconds between looks at the clock while events wait for somebody.
TICK = 0.25
# Seconds of silence after which a subscriber gets a delivery of nothing; its server closes
# connections that are idle for 300.
SILENCE = 60.0
# Subscribers that are gone and still counted.
MAX_HISTORY = 1000

#: event -> peer id -> tags
Subscriptions = Dict[str, Dict[bytes, Any]]


class Publisher:
    """Brings events to subscribers. Any thread may call.

    :param subscriptions: the registry, which shows who has subscribed.
    :param instance: gives the random id of this process.
    """

    def __init__(self, subscriptions: Subscriptions, instance: Callable[[], str]) -> None:
        self._subscriptions = subscriptions
        self._instance = instance
        # Guards all that follows, and the registry. Reentrant: a signal handler may trigger, too.
        self._lock = threading.RLock()
        # Told when the inbox was emptied, when subscribers took events, and when feeds ended.
        self._changed = threading.Condition(self._lock)
        self._sequences: Dict[str, int] = {}
        self._inbox: Deque[Triggered] = deque()
        self._inbox_bytes = 0
        self._handed_out = 0
        self._feeds: Dict[bytes, Feed] = {}
        # Feeds that the thread is to take up, and those that it is to let go.
        self._arrived: Deque[Feed] = deque()
        self._departed: Deque[Feed] = deque()
        # There is a thread as long as there are feeds.
        self._thread: Optional[threading.Thread] = None
        self._pipelines: Optional[Pipelines] = None
        self._asleep = False
        self._gone: Dict[Tuple[str, bytes], Count] = {}
        self._cut_off = 0

    # --------------------------------------------------------------------- triggering

    def publish(self, name: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> None:
        """Send an event to everyone who has subscribed to it. Never waits for the network.

        :raises ValueNotSupported: a value cannot travel; says where it is.
        :raises MessageTooLarge: over a limit.
        """
        values = pack_arguments(args, kwargs, settings.limits)
        with self._lock:
            sequence = self._sequences[name] = self._sequences.get(name, 0) + 1
            if not self._feeds or name not in self._subscriptions:
                return
            self._inbox.append((name, sequence, values))
            self._inbox_bytes += size_of(values)
            self._wake()
            if self._has_room() or threading.current_thread() is self._thread:
                return
            self._changed.wait_for(self._has_room, GIVE_WAY)

    def _has_room(self) -> bool:
        return len(self._inbox) < MAX_INBOX and self._inbox_bytes < MAX_INBOX_BYTES

    def _wake(self) -> None:
        if self._asleep and self._pipelines is not None:
            self._asleep = False
            self._pipelines.wake()

    # -------------------------------------------------------------------- subscribers

    def subscribe(self, name: str, subscriber: PeerId, tag: bytes) -> int:
        """Let a peer's handler hear an event, and connect to that peer if we are not.

        Whoever subscribes to what it has subscribed to already is a new process at the same
        address, or has lost its connection: it starts anew.

        :returns: the number of the last event that it does not hear.
        :raises PeerBusy: too many subscriptions.
        :raises NetError: that peer cannot be reached, or does not want events.
        """
        with self._lock:
            feed = self._feeds.get(subscriber)
            if feed is not None and tag in self._subscriptions.get(name, {}).get(subscriber, ()):
                self._end(feed, "it subscribes anew")
                feed = None
            self._check_limits(feed)
            opened = feed
            if feed is None:
                feed = self._feeds[subscriber] = Feed(subscriber)
            feed.subscriptions += 1
            self._subscriptions.setdefault(name, {}).setdefault(subscriber, []).append(tag)
            sequence = self._sequences.get(name, 0)
            feed.put(make_beginning(name, sequence, tag), monotonic())
            self._wake()
        if opened is None:
            self._open(feed)
        return sequence

    def _check_limits(self, feed: Optional[Feed]) -> None:
        if feed is not None and feed.subscriptions >= MAX_SUBSCRIPTIONS_OF_A_PEER:
            raise PeerBusy(None, f"a peer may have {MAX_SUBSCRIPTIONS_OF_A_PEER} subscriptions")
        if sum([one.subscriptions for one in self._feeds.values()]) >= MAX_SUBSCRIPTIONS:
            raise PeerBusy(None, f"there are {MAX_SUBSCRIPTIONS:,} subscriptions already")

    def _open(self, feed: Feed) -> None:
        connection = None
        try:
            connection = process.client.connect(feed.subscriber.address, OPEN_TIME)
            if connection is not None:
                frame = connection.exchange(encode_delivery(self._instance()), 0,
                                            Deadline(OPEN_TIME))
                decode_reply(frame, feed.subscriber.address, feed.subscriber, DELIVER)
            self._take_up(feed, connection)
        except BaseException as problem:
            if connection is not None:
                connection.close()
            self._end(feed, f"it cannot be reached: {problem}")
            raise

    def _take_up(self, feed: Feed, connection: Optional[Connection]) -> None:
        """Start to send; without a connection in the way of old peers."""
        with self._lock:
            if feed.ended:
                raise PeerLost(feed.subscriber.address, feed.ended)
            try:
                if self._thread is None:
                    self._begin()
                if connection is None:
                    threading.Thread(target=self._serve_old, args=(feed,), name="net-events-old",
                                     daemon=True).start()
            except RuntimeError as problem:  # can't start new thread
                raise PeerBusy(None, str(problem)) from None
            if connection is not None:
                feed.pipeline = Pipeline(connection, feed)
                self._arrived.append(feed)
                self._wake()

    def _begin(self) -> None:
        """Start the thread; RuntimeError if there is none to be had, and the next one tries."""
        self._pipelines = Pipelines()
        thread = threading.Thread(target=self._run, args=(self._pipelines,), name="net-events",
                                  daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._pipelines.close()
            self._pipelines = None
            raise
        self._thread = thread

    def unsubscribe(self, name: str, subscriber: PeerId, tag: bytes) -> None:
        """Let a peer's handler no longer hear an event. Nothing happens if it does not."""
        with self._lock:
            feed = self._feeds.get(subscriber)
            tags = self._subscriptions.get(name, {}).get(subscriber, [])
            if feed is None or tag not in tags:
                return
            tags.remove(tag)
            feed.subscriptions -= 1
            self._tidy(name, subscriber)
            if not feed.subscriptions:
                self._end(feed, "it has unsubscribed")

    def _tidy(self, name: str, subscriber: bytes) -> None:
        peers = self._subscriptions.get(name, {})
        if not peers.get(subscriber, True):
            del peers[subscriber]
        if not peers:
            self._subscriptions.pop(name, None)

    def _end(self, feed: Feed, reason: str, cut_off: bool = False) -> None:
        """Forget a subscriber. Any thread may call; its connection is closed by ours."""
        with self._lock:
            if feed.ended:
                return
            feed.end(reason, cut_off)
            self._cut_off += cut_off
            del self._feeds[feed.subscriber]
            for name in list(self._subscriptions):
                if self._subscriptions[name].pop(feed.subscriber, None) is not None:
                    self._tidy(name, feed.subscriber)
            for name, count in feed.counts.items():
                self._gone.setdefault((name, feed.subscriber), Count()).add(count)
            while len(self._gone) > MAX_HISTORY:
                del self._gone[next(iter(self._gone))]
            if self._thread is not None:
                self._departed.append(feed)
                self._wake()
            self._changed.notify_all()

    # --------------------------------------------------------------------- the thread

    def _run(self, pipelines: Pipelines) -> None:
        served: Set[Feed] = set()
        try:
            while self._hand_out(pipelines, served):
                now = monotonic()
                for feed in served:
                    self._send(feed, now)
                writing = [feed.pipeline for feed in served if feed.pipeline.writing]
                for pipeline in pipelines.wait(self._fall_asleep(), writing):
                    self._receive(pipeline.owner)
        except Exception:
            log(logging.ERROR, "events cannot be sent any more", exc_info=True)
            with self._lock:
                for feed in list(self._feeds.values()):
                    self._end(feed, "an error")
                served.update(self._arrived)
                self._arrived.clear()
                self._stop()
        finally:
            # What has arrived since belongs to another thread.
            for feed in served:
                feed.pipeline.close()
            pipelines.close()

    def _hand_out(self, pipelines: Pipelines, served: Set[Feed]) -> bool:
        """Take up and let go feeds, and give them what the inbox holds. False if none is left."""
        with self._lock:
            while self._arrived:
                feed = self._arrived.popleft()
                served.add(feed)
                pipelines.add(feed.pipeline)
            departed = list(self._departed)
            self._departed.clear()
            if self._feeds:
                self._empty_inbox(monotonic())
            else:
                self._stop()
            self._changed.notify_all()
            running = self._thread is not None
        for feed in departed:
            if feed in served:
                served.remove(feed)
                pipelines.remove(feed.pipeline)
                feed.pipeline.close()
            log(logging.WARNING if feed.lost or feed.cut_off else logging.INFO,
                "%s the subscriber %s, %d events dropped: %s",
                "cut off" if feed.cut_off else "ended", feed.subscriber, feed.lost,
                printable(feed.ended))
        return running

    def _stop(self) -> None:
        self._handed_out += len(self._inbox)
        self._inbox.clear()
        self._inbox_bytes = 0
        self._pipelines = self._thread = None

    def _empty_inbox(self, now: float) -> None:
        taken = [self._inbox.popleft() for _ in range(min(AT_ONCE, len(self._inbox)))]
        self._inbox_bytes -= sum([size_of(values) for _, _, values in taken])
        self._handed_out += len(taken)
        for events in join(taken):
            for subscriber in self._subscriptions.get(events.name, ()):
                feed = self._feeds.get(subscriber)
                if feed is not None:
                    feed.put(events, now)
        for feed in list(self._feeds.values()):
            reason = feed.falls_behind(now)
            if reason:
                self._end(feed, reason, cut_off=True)

    def _fall_asleep(self) -> float:
        """The seconds to wait for the next thing to do."""
        with self._lock:
            if self._inbox or self._arrived or self._departed:
                return 0
            self._asleep = True
            busy = any([feed.busy for feed in self._feeds.values()])
            return TICK if busy else _silence()

    def _send(self, feed: Feed, now: float) -> None:
        try:
            while not feed.pipeline.writing:
                with self._lock:
                    events = feed.next_events()
                    if feed.ended or not events and not feed.is_due(now, _silence()):
                        return
                feed.pipeline.send(encode_delivery(self._instance(), events))
        except OSError as problem:
            self._end(feed, str(problem))

    def _receive(self, feed: Feed) -> None:
        try:
            for frame in feed.pipeline.replies():
                self._landed(feed, frame)
            feed.pipeline.write()
        except EndOfStream:
            self._end(feed, "it closed the connection")
        except (OSError, ProtocolError) as problem:
            self._end(feed, str(problem))

    def _landed(self, feed: Feed, frame: Frame) -> None:
        with self._lock:
            if not feed.flights:
                raise ProtocolError(feed.subscriber.address, "more replies than deliveries")
            flight = feed.landed(monotonic(), () if frame.kind == RESULT else None)
        if frame.kind == RESULT:
            return
        try:
            decode_reply(frame, feed.subscriber.address, feed.subscriber, DELIVER)
            reason = "a flag"
        except NetError as problem:
            reason = str(problem)
        for events in flight:
            self._warn_refused(feed, events, reason)

    @staticmethod
    def _warn_refused(feed: Feed, events: Events, reason: str) -> None:
        log(logging.WARNING, "the subscriber %s cannot take %d events %r: %s", feed.subscriber,
            events.total, events.name, printable(reason))

    # ---------------------------------------------------------------------- old peers

    def _serve_old(self, feed: Feed) -> None:
        """Call an old peer's handlers, with one event after the other."""
        while True:
            with self._changed:
                flight = feed.next_events()
                while not flight and not feed.ended:
                    self._changed.wait()
                    flight = feed.next_events()
            try:
                dropped = [self._call_old(feed, events) if events.total else 0 for events in flight]
                with self._lock:
                    if feed.ended:
                        return
                    feed.landed(monotonic(), dropped)
            except NetError as problem:
                self._end(feed, str(problem))

    def _call_old(self, feed: Feed, events: Events) -> int:
        """Call with events of one name; the number of those that the old dialect cannot carry."""
        dropped = 0
        for name, _, args, kwargs in values_of(events, settings.limits):
            for tag in list(self._subscriptions.get(name, {}).get(feed.subscriber, ())):
                try:
                    result = process.client.call(feed.subscriber, tag, tuple(args or ()),
                                                 kwargs, NO_PROGRESS)
                except RemoteError as problem:
                    self.log_failure(feed.subscriber, tag, name, str(problem))
                except (ValueNotSupported, MessageTooLarge) as problem:
                    dropped += 1
                    self._warn_refused(feed, events._replace(total=1), str(problem))
                else:
                    if type(result) is Flag and result == INVALID_CONNECTION:
                        self.unsubscribe(name, feed.subscriber, tag)
        return dropped

    @staticmethod
    def log_failure(subscriber: object, tag: bytes, name: str, problem: str) -> None:
        """Say that a subscriber's handler raised."""
        log(logging.WARNING, "the handler %s of the subscriber %s raised on an event %r: %s",
            tag_name(tag), subscriber, printable(name), printable(problem))

    # ------------------------------------------------------------------- and the rest

    def flush(self, timeout: Optional[float]) -> Dict[bytes, Dict[str, int]]:
        """Wait until every event triggered so far was taken by its subscribers' processes.

        :param timeout: seconds, None for no limit.
        :returns: peer id -> event -> how many were not taken. Empty if all were.
        """
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            triggered = self._handed_out + len(self._inbox)
            self._changed.wait_for(lambda: self._handed_out >= triggered, timeout)
            awaited = [(feed, feed.accepted) for feed in self._feeds.values()]
            self._changed.wait_for(
                lambda: all([feed.finished >= until or feed.ended for feed, until in awaited]),
                None if end is None else end - monotonic())
            left = {feed.subscriber: feed.left(until) for feed, until in awaited}
            return {subscriber: counts for subscriber, counts in left.items() if counts}

    def stats(self) -> Dict[str, Any]:
        """What became of the events: ``{"events": {name: {"triggered": int, "subscribers":
        {peer id: {"sent": int, "queued": int, "dropped": int}}}}, "cut off": int}``."""
        with self._lock:
            total: Dict[str, Dict[bytes, Count]] = {name: {} for name in self._sequences}
            for (name, subscriber), count in self._gone.items():
                total[name].setdefault(subscriber, Count()).add(count)
            for feed in self._feeds.values():
                for name, count in feed.counts.items():
                    total[name].setdefault(feed.subscriber, Count()).add(count)
            events = {
                name: {"triggered": self._sequences[name],
                       "subscribers": {peer: count.as_dict() for peer, count in peers.items()}}
                for name, peers in total.items()}
            return {"events": events, "cut off": self._cut_off}

    def close(self, timeout: float) -> None:
        """Give the events some seconds to leave, and let every subscriber go."""
        self.flush(timeout)
        with self._lock:
            for feed in list(self._feeds.values()):
                self._end(feed, "this peer closes")

    def forget(self) -> None:
        """Start anew, in a forked child: subscribers and connections are the parent's."""
        if self._pipelines is not None:
            self._pipelines.close()
        self._subscriptions.clear()
        self.__init__(self._subscriptions, self._instance)  # type: ignore[misc]


def _silence() -> float:
    return min(SILENCE, settings.idle_time / 3)
