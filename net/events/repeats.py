"""Which calls of old publishers bring an event a second time. No socket, thread or clock."""
from __future__ import annotations

import json
import threading
from typing import Any, Dict, Optional

# Seconds after a call in which another one with the same arguments can be for the same event: an
# old publisher calls for all subscriptions at once, or for one as soon as the other has ended.
SAME_EVENT = 5.0
# Events in a row that come once, after which a publisher is known to have been started again.
CERTAIN = 3
# Calls that are remembered.
MAX_CALLS = 1000
RUNNING = float("inf")


class Call:
    """A call of a handler.

    :ivar until: monotonic time until which another one can be for the same event.
    """

    __slots__ = "until",

    def __init__(self, until: float = RUNNING) -> None:
        self.until = until

    def end(self, now: float) -> None:
        """It has ended."""
        self.until = now + SAME_EVENT


class Repeats:
    """The calls of one handler by old publishers. Any thread may call.

    They call it by the tag of our subscription, and by its own if an old program at this address
    had subscribed it: nothing makes them forget that. A call by its own tag can also be one that
    an application makes, and has the same bytes. But what comes for an old subscription comes for
    ours, too, with the same arguments. So the first of both runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        # By host and arguments: by the handler's own tag, and by that of a subscription.
        self._plain: Dict[int, Call] = {}
        self._marked: Dict[int, Call] = {}
        # The hosts from which events come twice, or may -> how many came once since.
        self._twice: Dict[str, int] = {}

    def expect(self, host: str) -> None:
        """We subscribe at a publisher of a host. Until its first event comes, nobody knows how
        often an old program had subscribed there."""
        with self._lock:
            self._twice.setdefault(host, CERTAIN)

    def begin(self, host: str, marked: bool, subscribed: bool, args: Any, kwargs: Any,
              now: float) -> Optional[Call]:
        """A call has come.

        :param host: the host from which it comes.
        :param marked: whether it is by the tag of a subscription.
        :param subscribed: whether the handler still hears an event.
        :returns: the call, whose end is to be reported to it; None if it must not run, since
            another one has.
        """
        key = hash((host, json.dumps([args, kwargs], sort_keys=True)))
        with self._lock:
            if marked:
                return self._begin_marked(host, key, now)
            if not subscribed and self._twice.get(host, CERTAIN) < CERTAIN:
                return None
            return self._begin_plain(host, key, now)

    def _begin_plain(self, host: str, key: int, now: float) -> Optional[Call]:
        if _is_near(self._marked.get(key), now):
            self._twice[host] = 0
            return None
        if host in self._twice and _is_near(self._plain.get(key), now):
            return None  # an old program has subscribed more than once
        return _remember(self._plain, key, Call())

    def _begin_marked(self, host: str, key: int, now: float) -> Optional[Call]:
        if _is_near(self._plain.pop(key, None), now):
            self._twice[host] = 0
            _remember(self._marked, key, Call(now + SAME_EVENT))
            return None
        if host in self._twice:
            self._twice[host] += 1
            if self._twice[host] > CERTAIN:
                del self._twice[host]
        return _remember(self._marked, key, Call())


def _is_near(call: Optional[Call], now: float) -> bool:
    return call is not None and call.until >= now


def _remember(calls: Dict[int, Call], key: int, call: Call) -> Call:
    calls.pop(key, None)
    calls[key] = call
    if len(calls) > MAX_CALLS:
        del calls[next(iter(calls))]
    return call
