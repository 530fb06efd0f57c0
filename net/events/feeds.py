"""What one subscriber is still to be sent, and whether it keeps up. No socket and no thread."""
from __future__ import annotations

from collections import Counter, deque
from itertools import chain
from typing import Any, Deque, Dict, List, Optional, Sequence

from ..settings import MIB
from ..identity import PeerId
from ..wire.deliveries import Events, MAX_JOINED

# Events and bytes that may wait for a subscriber, and the seconds for which there may be more. A
# burst is over before that; whoever needs longer is too slow and would only fall behind further.
MAX_EVENTS = 1000
MAX_BYTES = 8 * MIB
PATIENCE = 2.0
# Bytes that may wait at any time, besides the event whose turn it is: the publisher's memory. An
# event is in memory once, however many wait for it.
MAX_BURST = 64 * MIB
# Bytes that a waiting event takes besides its text.
OVERHEAD = 200
# Seconds in which a subscriber must take something while events wait for it, and the bytes per
# second that it may need more for large ones: a slow Wi-Fi.
NO_PROGRESS = 10.0
SLOWEST = MIB
# Calls that may be on their way to a subscriber. While they are, further events gather and then
# share a call: the busier a subscriber is, the less each event costs it.
MAX_FLIGHTS = 16


class Count:
    """What became of the events of one name for one subscriber.

    :ivar sent: taken by the subscriber's process.
    :ivar queued: waiting, or on their way.
    :ivar dropped: lost, because the subscriber was cut off, is gone, or cannot read them.
    """

    def __init__(self) -> None:
        self.sent = self.queued = self.dropped = 0

    def add(self, other: Count) -> None:
        self.sent += other.sent
        self.queued += other.queued
        self.dropped += other.dropped

    def as_dict(self) -> Dict[str, int]:
        return dict(vars(self))


class Feed:
    """The events that wait for one subscriber.

    :ivar subscriber: its peer id.
    :ivar subscriptions: how many it has.
    :ivar pipeline: its connection; None until it is there, and for old peers.
    :ivar flights: for each call on its way, the events in it.
    :ivar counts: event name -> what became of its events.
    :ivar accepted: events that were ever put in; ``finished``: those that wait no more.
    :ivar ended: why nothing is sent any more; empty while it is.
    :ivar cut_off: whether that is because it was too slow.
    :ivar lost: events that were queued then.
    """

    def __init__(self, subscriber: PeerId) -> None:
        self.subscriber = subscriber
        self.subscriptions = 0
        self.pipeline: Any = None
        self.counts: Dict[str, Count] = {}
        self.accepted = self.finished = 0
        self.ended = ""
        self.cut_off = False
        self.lost = 0
        self.flights: Deque[List[Events]] = deque()
        self._queue: Deque[Events] = deque()
        # When each of what waits was put in.
        self._times: Deque[float] = deque()
        self._bytes = 0
        self._progress = 0.0

    @property
    def waiting(self) -> int:
        """Events that the subscriber has not taken yet."""
        return self.accepted - self.finished

    @property
    def busy(self) -> bool:
        """Whether anything waits, the beginning of a subscription included."""
        return bool(self._times)

    def put(self, events: Events, now: float) -> None:
        """Queue events. ``now`` is monotonic time in seconds, here and below."""
        if not self._times:
            self._progress = now
        self._queue.append(events)
        self._times.append(now)
        self._bytes += events.size + OVERHEAD
        self.accepted += events.total
        if events.total:
            self._count(events).queued += events.total

    def falls_behind(self, now: float) -> str:
        """The reason to cut the subscriber off; empty if there is none."""
        if not self._times:
            return ""
        over = self.waiting > MAX_EVENTS or self._bytes > MAX_BYTES and len(self._times) > 1
        if over and now - self._times[0] > PATIENCE or self._bytes - self._first_size > MAX_BURST:
            return (f"{self.waiting:,} events of {self._bytes:,} bytes wait for it, the first for "
                    f"{now - self._times[0]:.1f} s")
        if now - self._progress > NO_PROGRESS + self._bytes / SLOWEST:
            return f"it has taken nothing for {now - self._progress:.0f} s"
        return ""

    @property
    def _first_size(self) -> int:
        return next(chain(*self.flights, self._queue)).size

    def next_events(self) -> List[Events]:
        """What goes into the next call; empty if there is nothing, or enough is on its way."""
        if not self._queue or len(self.flights) >= MAX_FLIGHTS:
            return []
        flight = [self._queue.popleft()]
        room = MAX_JOINED - flight[0].size
        while flight[0].joinable and self._queue and self._queue[0].joinable:
            room -= self._queue[0].size
            if room < 0:
                break
            flight.append(self._queue.popleft())
        self.flights.append(flight)
        return flight

    def is_due(self, now: float, silence: float) -> bool:
        """Whether there was nothing for so many seconds, and a call without events should show that
        both sides are there. It counts as sent."""
        if self._times or self.flights or now - self._progress < silence:
            return False
        self.flights.append([])
        return True

    def landed(self, now: float, dropped: Optional[Sequence[int]] = ()) -> List[Events]:
        """The oldest call on its way was answered.

        :param dropped: for each of what was in it, how many events the subscriber could not take;
            empty if it took all, None if it took none.
        :returns: what was in it.
        """
        self._progress = now
        flight = self.flights.popleft()
        for place, events in enumerate(flight):
            self._times.popleft()
            self._bytes -= events.size + OVERHEAD
            self.finished += events.total
            if events.total:
                lost = events.total if dropped is None else \
                    min(dropped[place], events.total) if dropped else 0
                count = self._count(events)
                count.queued -= events.total
                count.sent += events.total - lost
                count.dropped += lost
        return flight

    def end(self, reason: str, cut_off: bool) -> None:
        """Send nothing any more; what is queued is lost."""
        self.ended = reason
        self.cut_off = cut_off
        for count in self.counts.values():
            self.lost += count.queued
            count.dropped += count.queued
            count.queued = 0

    def left(self, until: int) -> Dict[str, int]:
        """Event name -> how many are waiting, or were lost waiting, of the first ``until`` that
        were ever put in."""
        found: Counter[str] = Counter()
        room = until - self.finished
        for events in chain(chain.from_iterable(self.flights), self._queue):
            found[events.name] += max(0, min(events.total, room))
            room -= events.total
        return {name: count for name, count in found.items() if count}

    def _count(self, events: Events) -> Count:
        count = self.counts.get(events.name)
        if count is None:
            count = self.counts[events.name] = Count()
        return count
