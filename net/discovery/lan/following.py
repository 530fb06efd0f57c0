"""Notices that the addresses of this host change: another network, a cable, a new lease."""
from __future__ import annotations

import socket
from typing import Callable, FrozenSet, Optional, Tuple

from ...link import interfaces, netlink
from ...link.interfaces import Interface
from ...run.loop import READ, Loop, Timer

# Seconds from the first change that the kernel reports to the last: an interface comes up, then
# gets its address, then its routes.
SETTLE_SECONDS = 0.1
# Seconds between checks where the kernel reports no changes. One takes less than a millisecond.
LOOK_SECONDS = 2.0

State = Tuple[FrozenSet[Tuple[Interface, bool]], Optional[str]]


class Following:
    """Calls a function when interfaces have come, gone or changed. In the loop's thread."""

    def __init__(self, loop: Loop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._state = state()
        self._timer: Optional[Timer] = None
        self._news: Optional[socket.socket] = None
        try:
            self._news = netlink.changes()
            loop.register(self._news, READ, self._told)
        except OSError:
            self._timer = loop.call_later(LOOK_SECONDS, self._look)

    def _told(self, _mask: int) -> None:
        assert self._news is not None
        try:
            while self._news.recv(netlink.MAX_PIECE):
                pass
        except OSError:
            pass  # all taken; or some were lost, which matters as little
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None if self._news is not None else \
            self._loop.call_later(LOOK_SECONDS, self._look)
        before, self._state = self._state, state()
        if self._state != before:
            self._changed()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._news is not None:
            self._loop.unregister(self._news)
        self.abandon()

    def abandon(self) -> None:
        """Let go of what a forked child has inherited."""
        if self._news is not None:
            self._news.close()
            self._news = None


def state() -> State:
    """The addresses of this host and whether something can be sent from each, and the address of
    the way out, by which others know this host."""
    return (frozenset((one, netlink.is_up(one.name)) for one in interfaces.read()[0]),
            interfaces.way_out())
