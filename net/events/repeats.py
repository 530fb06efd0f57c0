"""Which calls of old publishers bring an event once more. No socket, thread or clock."""
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

    :ivar ran: whether it has run the handler.
    :ivar until: monotonic time until which another one can be for the same event.
    """

    __slots__ = "ran", "until"

    def __init__(self, ran: bool, until: float) -> None:
        self.ran = ran
        self.until = until

    def end(self, now: float) -> None:
        """It has ended."""
        self.until = now + SAME_EVENT


class Repeats:
    """The calls of one handler by old publishers. Any thread may call.

    They call it by the tag of our subscription, and by its own if an old program at this address
    had subscribed it: nothing makes them forget that. A call by its own tag can also be one that
    an application makes, and has the same bytes. But what comes for an old subscription comes for
    ours, too, with the same arguments.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        # By host and arguments: by the handler's own tag, and by that of a subscription.
        self._plain: Dict[int, Call] = {}
        self._marked: Dict[int, Call] = {}
        # The hosts from which events come twice -> how many came once since.
        self._twice: Dict[str, int] = {}

    def begin(self, host: str, marked: bool, args: Any, kwargs: Any,
              now: float) -> Optional[Call]:
        """A call has come.

        :param host: that it comes from.
        :param marked: whether by the tag of a subscription.
        :returns: what is to be told of its end; None if it must not run, since another one has.
        """
        key = hash((host, json.dumps([args, kwargs], sort_keys=True)))
        with self._lock:
            return (self._begin_marked if marked else self._begin_plain)(host, key, now)

    def _begin_plain(self, host: str, key: int, now: float) -> Optional[Call]:
        if self._take(self._marked, key, now, keep=True) is not None:
            self._twice[host] = 0
            return None
        before = self._take(self._plain, key, now)
        runs = host not in self._twice
        call = Call(runs or before is not None and before.ran,
                    RUNNING if runs else now + SAME_EVENT)
        self._remember(self._plain, key, call)
        return call if runs else None

    def _begin_marked(self, host: str, key: int, now: float) -> Optional[Call]:
        before = self._take(self._plain, key, now)
        if before is not None:
            self._twice[host] = 0
            if before.ran:
                return None
        elif host in self._twice:
            self._twice[host] += 1
            if self._twice[host] > CERTAIN:
                del self._twice[host]
        call = Call(True, RUNNING)
        self._remember(self._marked, key, call)
        return call

    def _take(self, calls: Dict[int, Call], key: int, now: float,
              keep: bool = False) -> Optional[Call]:
        call = calls.get(key) if keep else calls.pop(key, None)
        return call if call is not None and call.until >= now else None

    def _remember(self, calls: Dict[int, Call], key: int, call: Call) -> None:
        calls.pop(key, None)
        calls[key] = call
        if len(calls) > MAX_CALLS:
            del calls[next(iter(calls))]
