"""The selector loop: one thread that waits for any number of sockets and points in time.

Callbacks run in it one after the other, so they must not wait for anything themselves.
"""
from __future__ import annotations

import errno
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
from collections import deque
from functools import partial
from time import monotonic, sleep
from typing import Any, Callable, Deque, Dict, List, Optional, Protocol, Tuple

from ..link.base import LONGEST
from ..log import CONNECTIONS, RateLimitedLog

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Seconds without looking at a socket whose callback raised, and before the next attempt to wait
# after one that failed: trying again at once would keep a core busy for nothing.
PAUSE = 0.25
# Cancelled timers that may stay in the queue until their time has come.
MAX_CANCELLED = 64


class HasDescriptor(Protocol):
    """What a selector can wait for, such as a socket or a listener."""

    def fileno(self) -> int:
        """Its descriptor."""


class Timer:
    """A callback that is called at its time."""

    __slots__ = ("when", "callback", "_loop")

    def __init__(self, loop: Loop, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Optional[Callable[[], object]] = callback
        self._loop = loop

    def cancel(self) -> None:
        """Do not call it. Any thread may cancel, also when its time has come; only at that very
        moment may it be too late, unless this is the loop's thread."""
        if self.callback is not None:
            self.callback = None
            self._loop.timer_cancelled(self)


class _Watch:
    """A socket that the loop waits for.

    :ivar active: whether the selector has it; not so for a moment after its callback raised.
    """

    __slots__ = ("sock", "number", "events", "callback", "active")

    def __init__(self, sock: HasDescriptor, events: int, callback: Callable[[int], object]) -> None:
        self.sock = sock
        self.number = sock.fileno()
        self.events = events
        self.callback = callback
        self.active = False


class Loop:
    """Waits for sockets and points in time in one daemon thread, and calls back.

    The thread is started when there is something to do, and ends when no call, timer or socket is
    left. Only this thread may register sockets; others do so in a callback of :meth:`call_soon`. A
    callback that raises, ``sys.exit()`` included, is logged and harms no other one; if it was that
    of a socket, the socket is not looked at for a moment.

    :param name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()

    def _reset(self) -> None:
        # Guards what other threads share: the queue of timers, and the start, the sleep and the end
        # of the thread. Reentrant: a signal handler may call, too.
        self._lock = threading.RLock()
        self._calls: Deque[Callable[[], object]] = deque()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        # The number of the current thread, 0 for none, and of the last one that was started.
        self._current = self._started = 0
        self._identity: Optional[int] = None
        # Whether the thread has to be woken up to see what is new.
        self._asleep = False
        self._watches: Dict[HasDescriptor, _Watch] = {}
        # Selectors whose descriptor other code has closed. They are kept: one that is collected
        # would close its number, which may belong to something else by then.
        self._lost: List[selectors.BaseSelector] = []

    # ------------------------------------------------------------------ from any thread

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call back in the loop's thread. Calls keep their order.

        :raises OSError: no thread or descriptor could be had; it will not be called.
        """
        with self._lock:
            self._calls.append(callback)
            try:
                self._wake()
            except BaseException:
                self._calls.remove(callback)
                raise

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back in the loop's thread after some seconds, unless the timer is cancelled.

        :raises OSError: no thread or descriptor could be had; it will not be called.
        """
        timer = Timer(self, monotonic() + seconds, callback)
        with self._lock:
            heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
            try:
                if not self._current or self._timers[0][2] is timer:
                    self._wake()
            except BaseException:
                timer.callback = None
                self._cancelled += 1
                raise
        return timer

    def timer_cancelled(self, timer: Timer) -> None:
        """Note that a timer was cancelled. If that was all there was to wait for, the thread can
        end."""
        with self._lock:
            self._cancelled += 1
            if self._asleep and self._timers and self._timers[0][2] is timer:
                self._wake()

    def in_loop(self) -> bool:
        """Whether this is the loop's thread."""
        return threading.get_ident() == self._identity

    def abandon(self) -> None:
        """Start afresh in a forked child, which lacks the thread: forget all that was to be done.
        Sockets that were registered are not closed; that is left to what registered them."""
        if self._current:
            self._close()
        self._reset()

    def _wake(self) -> None:
        """Make sure that the thread sees what is new. Under the lock."""
        if not self._current:
            self._open()
            try:
                self._start(False)
            except BaseException:
                self._close()
                raise
        elif self._asleep:
            self._asleep = False
            try:
                self._waker.send(b"x")
            except BlockingIOError:
                pass  # more than enough has been sent
            except OSError:
                # Some other code closed our descriptors, and nothing wakes that thread any more.
                self._start(True)

    def _start(self, broken: bool) -> None:
        """Start a thread, in place of any before it. Under the lock.

        :param broken: whether it has to take new descriptors first.
        """
        before = self._current
        self._started += 1
        self._current = self._started
        try:
            threading.Thread(target=self._run, args=(self._current, broken), name=self._name,
                             daemon=True).start()
        except BaseException as problem:
            self._current = before
            if isinstance(problem, RuntimeError):  # can't start new thread
                raise OSError(errno.EAGAIN, str(problem)) from problem
            raise

    def _open(self) -> None:
        selector = selectors.DefaultSelector()
        try:
            woken, waker = socket.socketpair()
        except BaseException:
            selector.close()
            raise
        woken.setblocking(False)
        waker.setblocking(False)
        selector.register(woken, READ)
        self._selector, self._woken, self._waker = selector, woken, waker

    def _close(self) -> None:
        for one in (self._selector, self._woken, self._waker):
            try:
                one.close()
            except OSError:
                pass  # it was closed under us

    # ------------------------------------------------------------------ in the loop's thread

    def register(self, sock: HasDescriptor, events: int, callback: Callable[[int], object]) -> None:
        """Call back with what a socket is ready for, for as long as it is ready.

        :param events: ``READ``, ``WRITE`` or both.
        :raises OSError: it is closed, or the selector can take no more.
        """
        assert self.in_loop() and sock not in self._watches
        watch = _Watch(sock, events, callback)
        self._activate(watch)
        self._watches[sock] = watch

    def modify(self, sock: HasDescriptor, events: int) -> None:
        """Wait for something else of a socket.

        :raises OSError: it was closed.
        """
        assert self.in_loop()
        watch = self._watches[sock]
        if watch.events != events:
            watch.events = events
            if watch.active:
                self._selector.modify(watch.number, events, watch)

    def unregister(self, sock: HasDescriptor) -> None:
        """Stop waiting for a socket. It may be closed already, or not be registered at all."""
        assert self.in_loop()
        watch = self._watches.pop(sock, None)
        if watch is not None:
            self._deactivate(watch)

    def _activate(self, watch: _Watch) -> None:
        try:
            self._selector.register(watch.number, watch.events, watch)
        except KeyError:
            # One with this number was closed without our knowledge; the number is this one's now.
            self.unregister(self._selector.get_key(watch.number).data.sock)
            self._selector.register(watch.number, watch.events, watch)
        except ValueError:
            raise OSError(errno.EBADF, "the socket is closed") from None
        watch.active = True

    def _deactivate(self, watch: _Watch) -> None:
        if watch.active:
            watch.active = False
            try:
                self._selector.unregister(watch.number)
            except (KeyError, OSError):
                pass  # it was closed under us

    def _run(self, number: int, broken: bool) -> None:
        self._identity = threading.get_ident()
        going_on = True
        while going_on:
            try:
                if broken:
                    self._repair()
                    broken = False
                going_on = self._round(number)
            except Exception:
                self._note("goes on after an error")
                sleep(PAUSE)

    def _round(self, number: int) -> bool:
        """Wait, and call back; False when nothing is left or another thread has taken over."""
        with self._lock:
            self._drop_cancelled()
            if not (self._calls or self._timers or self._watches):
                self._current, self._identity = 0, None
                self._close()
                return False
            seconds = self._seconds_to_wait()
            self._asleep = seconds != 0
        try:
            ready: Optional[List[Any]] = self._selector.select(seconds)
        except (OSError, ValueError):  # it was closed under us
            ready = None
        with self._lock:
            if number != self._current:
                return False
            self._asleep = False
        if ready is None:
            self._repair()
        else:
            self._call_watches(ready)
        self._call_timers()
        for _ in range(len(self._calls)):
            self._call(self._calls.popleft())
        return True

    def _seconds_to_wait(self) -> Optional[float]:
        if self._calls:
            return 0
        if not self._timers:
            return None
        return max(0, min(LONGEST, self._timers[0][0] - monotonic()))

    def _drop_cancelled(self) -> None:
        timers = self._timers
        if self._cancelled > max(MAX_CANCELLED, len(timers) // 2):
            timers[:] = [entry for entry in timers if entry[2].callback is not None]
            heapq.heapify(timers)
            self._cancelled = 0
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
            self._cancelled -= 1

    def _call_watches(self, ready: List[Any]) -> None:
        for key, mask in ready:
            watch = key.data
            if watch is None:
                self._take_wakes()
            elif watch.active:  # and not unregistered by a callback before this one
                try:
                    watch.callback(mask)
                except BaseException:
                    self._note("has a callback that failed")
                    self._rest(watch)

    def _rest(self, watch: _Watch) -> None:
        """Ignore a socket for a moment."""
        if watch.active:
            self._deactivate(watch)
            self.call_later(PAUSE, lambda: self._wake_up(watch))

    def _wake_up(self, watch: _Watch) -> None:
        if self._watches.get(watch.sock) is watch and not watch.active:
            self._activate(watch)

    def _call_timers(self) -> None:
        timers = self._timers
        if not timers or timers[0][0] > monotonic():
            return
        now, due = monotonic(), []
        with self._lock:
            while timers and timers[0][0] <= now:
                due.append(heapq.heappop(timers)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except BaseException:
            self._note("has a callback that failed")

    def _take_wakes(self) -> None:
        try:
            if self._woken.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._repair()

    def _repair(self) -> None:
        """Take new descriptors: some other code closed ours."""
        self._note("begins anew: its descriptors were closed", logging.WARNING)
        sleep(PAUSE)
        for watch in list(self._watches.values()):
            try:
                os.fstat(watch.number)
            except OSError:
                # Tell its owner now, before something else is given that number.
                self._call(partial(watch.callback, READ | WRITE))
                self.unregister(watch.sock)
        with self._lock:
            # They are closed, or their numbers belong to something else, which closing could hit.
            self._woken.detach()
            self._waker.detach()
            self._lost.append(self._selector)
            self._open()
        for watch in self._watches.values():
            if watch.active:
                self._activate(watch)

    def _note(self, what: str, level: int = logging.ERROR) -> None:
        note(level, f"the loop %s {what}", self._name)
