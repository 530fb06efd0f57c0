"""The events that wait for one subscriber, and whether it keeps up. No socket and no thread."""
from __future__ import annotations

from collections import Counter, deque
from itertools import chain
from typing import Deque, Dict, List, Optional, Sequence

from ..errors import ProtocolError
from ..identity import PeerId
from ..settings import MIB
from ..wire.deliveries import Events, MAX_JOINED
from ..wire.frames import MAX_NUMBER

# Events and bytes that may wait for a subscriber, and the seconds for which there may be more. A
# burst is over before that; a subscriber that needs longer would only fall behind further.
MAX_EVENTS = 1000
MAX_BYTES = 8 * MIB
PATIENCE = 2.0
# Bytes that may wait at any time, besides the event whose turn it is: the publisher's memory. An
# event is in memory once, however many wait for it.
MAX_BURST = 64 * MIB
# Bytes that a waiting event takes besides its text.
OVERHEAD = 200
# Seconds in which a subscriber must take something while events wait for it, and the bytes per
# second by which it gets more time for large ones: those of a slow Wi-Fi.
NO_PROGRESS = 10.0
SLOWEST = MIB
# Frames that may be in flight to a subscriber. While they are, further events gather and then share
# a frame: the busier a subscriber is, the less each event costs it.
MAX_IN_FLIGHT = 16


class Count:
    """The counts of one event for one subscriber.

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
    """The events that wait for one subscriber. It has one connection, and so has its feed.

    :ivar subscriber: its peer id.
    :ivar source: the host or network that it comes from, among which places are shared out.
    :ivar tags: event -> the handlers there that hear it.
    :ivar in_flight: for each frame on its way, the events in it.
    :ivar counts: event -> what became of its events.
    :ivar accepted: how many events were ever put in.
    :ivar finished: how many of them wait no more.
    :ivar ended: why it has ended; empty before.
    :ivar cut_off: whether that is because it was too slow.
    :ivar lost: how many events were still queued then.
    """

    def __init__(self, subscriber: PeerId, source: str = "") -> None:
        self.subscriber = subscriber
        self.source = source
        self.tags: Dict[str, List[bytes]] = {}
        self.counts: Dict[str, Count] = {}
        self.accepted = self.finished = 0
        self.ended = ""
        self.cut_off = False
        self.lost = 0
        self.in_flight: Deque[List[Events]] = deque()
        # The number of the last frame that was acknowledged.
        self._taken = 0
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
        """Whether anything waits."""
        return bool(self._times)

    def put(self, events: Events, now: float) -> None:
        """Queue events. ``now`` is monotonic time in seconds, here and below."""
        if not self._times:
            self._progress = now
        self._queue.append(events)
        self._times.append(now)
        self._bytes += events.size + OVERHEAD
        self.accepted += events.total
        self._count(events.name).queued += events.total

    @property
    def overflows(self) -> bool:
        """Whether more waits than there is memory for, however short the time."""
        return self._bytes > MAX_BURST and self._bytes - self._first_size > MAX_BURST

    def falls_behind(self, now: float) -> str:
        """The reason to cut the subscriber off; empty if there is none."""
        if not self._times:
            return ""
        over = self.waiting > MAX_EVENTS or self._bytes > MAX_BYTES and len(self._times) > 1
        if over and now - self._times[0] > PATIENCE or self.overflows:
            return (f"{self.waiting:,} events of {self._bytes:,} bytes wait for it, the first for "
                    f"{now - self._times[0]:.1f} s")
        if now - self._progress > NO_PROGRESS + self._bytes / SLOWEST:
            return f"it has taken nothing for {now - self._progress:.0f} s"
        return ""

    @property
    def _first_size(self) -> int:
        return next(chain(*self.in_flight, self._queue)).size

    @property
    def sent(self) -> int:
        """The number of the last frame that was sent."""
        return (self._taken + len(self.in_flight)) & MAX_NUMBER

    def next_events(self) -> List[Events]:
        """What goes into the next frame; empty if there is nothing, or enough is on its way."""
        if not self._queue or len(self.in_flight) >= MAX_IN_FLIGHT:
            return []
        frame = [self._queue.popleft()]
        room = MAX_JOINED - frame[0].size
        while frame[0].joinable and self._queue and self._queue[0].joinable:
            room -= self._queue[0].size
            if room < 0:
                break
            frame.append(self._queue.popleft())
        self.in_flight.append(frame)
        return frame

    def acknowledged(self, number: int, now: float,
                     dropped: Optional[Sequence[int]] = ()) -> List[Events]:
        """A frame was taken, and those before it that are still on their way.

        :param dropped: for each of what was in that frame, how many events the subscriber could not
            take; empty if it took all, None if it took none.
        :returns: what was in that frame.
        :raises ProtocolError: it is not on its way.
        """
        count = (number - self._taken) & MAX_NUMBER
        if not 0 < count <= len(self.in_flight):
            raise ProtocolError(None, f"EVENT frame {number} is acknowledged, which is not on its "
                                      f"way")
        self._progress = now
        self._taken = number
        for _ in range(count - 1):
            self._finish(self.in_flight.popleft(), ())
        frame = self.in_flight.popleft()
        self._finish(frame, dropped)
        return frame

    def _finish(self, frame: List[Events], dropped: Optional[Sequence[int]]) -> None:
        for place, events in enumerate(frame):
            self._times.popleft()
            self._bytes -= events.size + OVERHEAD
            self.finished += events.total
            lost = events.total if dropped is None else \
                min(dropped[place], events.total) if dropped else 0
            count = self._count(events.name)
            count.queued -= events.total
            count.sent += events.total - lost
            count.dropped += lost

    def end(self, reason: str, cut_off: bool) -> None:
        """Stop sending; what is queued is lost."""
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
        for events in chain(chain.from_iterable(self.in_flight), self._queue):
            found[events.name] += max(0, min(events.total, room))
            room -= events.total
        return {name: count for name, count in found.items() if count}

    def _count(self, name: str) -> Count:
        count = self.counts.get(name)
        if count is None:
            count = self.counts[name] = Count()
        return count
