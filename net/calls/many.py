"""One call, many peers: ``f.any()``, ``f.all()``, ``f.map()`` and :class:`net.Executor`."""
from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import (AuthenticationError, CallTimeout, InvalidConnection, NetError, PeerBusy,
                      PeerLost, PeerUnreachable)
from ..identity import PeerId, printable
from .spread import AT_A_TIME, Spread, Task
from .start import Call

#: What says that a peer could not do it, so that another one may.
ELSEWHERE = (PeerUnreachable, PeerBusy, PeerLost, InvalidConnection, AuthenticationError)

# Seconds between looks which peers there are.
LOOK = 0.5
# Seconds without any peer after which work that waits fails.
WITHOUT_PEERS = 5.0
# Threads of one map or executor.
MAX_THREADS = 64

#: Starts the function on a peer: ``start(peer, args, kwargs, timeout)``.
Start = Callable[[PeerId, Tuple[Any, ...], Dict[str, Any], Optional[float]], Call]
#: Runs the function on a peer and gives its value.
Run = Callable[[PeerId, Tuple[Any, ...], Dict[str, Any], Optional[float]], Any]
#: The peers that have the function now.
FindPeers = Callable[[], Sequence[PeerId]]


class NoPeers(PeerUnreachable):
    """No peer has the function, or none of those that do could be asked."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(None, reason)
        self.args = (f"no peer runs {name}: {reason}; the call did not run",)


class Balance:
    """Which peer is next: the one with the fewest calls of ours in flight, by turns among equals.
    Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._flying: Counter[bytes] = Counter()
        self._last: Dict[bytes, int] = {}
        self._turn = 0

    def take(self, peers: Iterable[PeerId]) -> Optional[PeerId]:
        """Choose one, and count a call for it; None if there is none."""
        with self._lock:
            peer = min(peers, key=lambda one: (self._flying[one], self._last.get(one, 0)),
                       default=None)
            if peer is not None:
                self._turn += 1
                self._flying[peer] += 1
                self._last[peer] = self._turn
            return peer

    def give_back(self, peer: PeerId) -> None:
        """A call has ended."""
        with self._lock:
            self._flying[peer] -= 1
            if self._flying[peer] <= 0:
                del self._flying[peer]


def run_any(name: str, find: FindPeers, run: Run, start: Start, balance: Balance,
            args: Tuple[Any, ...], kwargs: Dict[str, Any], timeout: Optional[float] = None,
            repeatable: bool = False, first: int = 1) -> Any:
    """Run a function on one peer that has it; on another one if that did not run it.

    :param repeatable: also if it may have run.
    :param first: start it on so many, take the first result, and cancel the others.
    :raises NoPeers: there is none, or none could be asked; the last reason is its cause.
    """
    tried: List[PeerId] = []
    problem: Optional[NetError] = None
    while True:
        left = [peer for peer in find() if peer not in tried]
        chosen = [peer for peer in (balance.take(left) for _ in range(min(first, len(left))))
                  if peer is not None]
        chosen = list(dict.fromkeys(chosen))
        if not chosen:
            raise NoPeers(name, "nobody has it" if problem is None else
                          f"the last of {len(tried)} said: {problem}") from problem
        tried += chosen
        try:
            if len(chosen) == 1:
                return run(chosen[0], args, kwargs, timeout)
            return _fastest([start(peer, args, kwargs, timeout) for peer in chosen])
        except ELSEWHERE as failure:
            if failure.ran == "yes" or failure.ran == "maybe" and not repeatable:
                raise
            problem = failure
        finally:
            for peer in chosen:
                balance.give_back(peer)


def _fastest(calls: List[Call]) -> Any:
    """The first result; an error only if all fail."""
    pending = set(calls)
    try:
        while True:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)  # type: ignore[assignment]
            good = [call for call in done if call.exception() is None]
            if good:
                return good[0].result()
            if not pending:
                return next(iter(done)).result()
    finally:
        for call in pending:
            call.cancel()


class Results(Mapping):  # type: ignore[type-arg]
    """What :meth:`f.all` gives: peer id -> value, in the order of completion.

    It is there at once; iterating waits for the next result, and what a peer raised is raised when
    its value is looked at. Awaiting it waits for all. ``str()`` is a table.

    :ivar calls: peer id -> the :class:`net.Call`.
    """

    def __init__(self, calls: Dict[PeerId, Call]) -> None:
        self.calls = calls
        self._order: List[PeerId] = []
        self._done = threading.Condition()  # guards _order
        for peer, call in calls.items():
            call.add_done_callback(partial(self._note, peer))

    def _note(self, peer: PeerId, call: Any) -> None:
        with self._done:
            self._order.append(peer)
            self._done.notify_all()

    def __getitem__(self, peer: Any) -> Any:
        return self.calls[peer].result()

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[PeerId]:
        for place in range(len(self.calls)):
            with self._done:
                self._done.wait_for(lambda: len(self._order) > place)
                peer = self._order[place]
            yield peer

    @property
    def errors(self) -> Dict[PeerId, BaseException]:
        """Peer id -> what it raised, of those that did; waits for all."""
        found = {}
        for peer in self:
            call = self.calls[peer]
            problem = None if call.cancelled() else call.exception()
            if problem is not None:
                found[peer] = problem
        return found

    def cancel(self) -> None:
        """Cancel what still runs."""
        for call in self.calls.values():
            call.cancel()

    def __await__(self) -> Any:
        import asyncio

        async def all_done() -> Results:
            await asyncio.wait([asyncio.wrap_future(call) for call in self.calls.values()]) \
                if self.calls else None
            return self
        return all_done().__await__()

    async def __aiter__(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        iterator = iter(self)
        for _ in self.calls:
            yield await loop.run_in_executor(None, next, iterator)

    def _rows(self) -> List[Tuple[str, str]]:
        with self._done:
            order = list(self._order)
        rows = []
        for peer in [*order, *(one for one in self.calls if one not in order)]:
            call = self.calls[peer]
            if not call.done():
                text = "..."
            elif call.cancelled():
                text = "cancelled"
            else:
                problem = call.exception()
                text = repr(call.result()) if problem is None else \
                    f"{type(problem).__name__}: {problem}"
            rows.append((f"{peer.host}:{peer.port}", printable(text, 100)))
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        width = max((len(peer) for peer, _ in rows), default=0)
        return "\n".join([f"{len(rows)} peers",
                          *(f"  {peer:{width}}  {text}" for peer, text in rows)])

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><td>{escape(peer)}</td><td><code>{escape(text)}</code></td></tr>"
                       for peer, text in self._rows())
        return f"<table><tr><th>peer</th><th>result</th></tr>{rows}</table>"


class Job(Task):
    """A call that some peer is to make."""

    __slots__ = ("future",)

    def __init__(self, payload: Callable[[PeerId], Any]) -> None:
        super().__init__(payload)
        self.future: Future[Any] = Future()


class Workers:
    """Threads that bring jobs to peers, some for each peer, as long as there are jobs.

    :param find: which peers there are.
    :param name: of the function, for errors.
    """

    def __init__(self, find: FindPeers, name: str, repeatable: bool, at_a_time: int) -> None:
        self._find = find
        self._name = name
        # Guards what follows; told when there is work, or its end.
        self._changed = threading.Condition()
        self._spread: Spread[PeerId] = Spread(at_a_time, repeatable)
        self._at_a_time = at_a_time
        self._threads: Counter[PeerId] = Counter()
        self._looked = 0.0
        self._peers_seen = monotonic()
        self._looking = self._closed = False
        self._last_problem: Optional[BaseException] = None

    @property
    def slots(self) -> int:
        """Jobs that can run at a time now."""
        with self._changed:
            return max(1, len(self._spread.workers)) * self._at_a_time

    def submit(self, payload: Callable[[PeerId], Any]) -> Future[Any]:
        """Have a call made on some peer.

        :raises RuntimeError: it was closed.
        """
        job = Job(payload)
        with self._changed:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._spread.add(job)
            self._changed.notify()
            begin, self._looking = not self._looking, True
        if begin:
            self._look()
            self._start_thread(self._watch, "net-many")
        return job.future

    def close(self, cancel: bool) -> None:
        """Take no more jobs; the threads end when the last one is done.

        :param cancel: also those that wait.
        """
        with self._changed:
            self._closed = True
            waiting = []
            if cancel:
                while self._spread.waiting:
                    waiting.append(self._spread._waiting.popleft())
            self._changed.notify_all()
        for job in waiting:
            job.future.cancel()

    def join(self) -> None:
        """Wait until all jobs are done."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._spread.waiting or self._spread.running
                                                or self._looking))

    def _start_thread(self, target: Callable[[], None], name: str) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    def _watch(self) -> None:
        """Follow who is there, as long as there is work."""
        while True:
            with self._changed:
                if self._closed and not self._spread.waiting and not self._spread.running:
                    self._looking = False
                    self._changed.notify_all()
                    return
                self._changed.wait(LOOK)
                idle = not self._spread.waiting
            if not idle:
                self._look()

    def _look(self) -> None:
        peers = list(self._find())
        now = monotonic()
        hopeless: List[Task] = []
        with self._changed:
            self._spread.set_workers(peers)
            if peers:
                self._peers_seen = now
            if now - self._peers_seen > WITHOUT_PEERS or peers:
                hopeless = self._spread.hopeless()
            new = [peer for peer in peers for _ in range(self._at_a_time - self._threads[peer])]
            room = MAX_THREADS - sum(self._threads.values())
            for peer in new[:room]:
                self._threads[peer] += 1
                self._start_thread(partial(self._work, peer), "net-many")
        for job in hopeless:
            assert isinstance(job, Job)
            problem = NoPeers(self._name, "nobody has it" if self._last_problem is None
                              else f"the last one said: {self._last_problem}")
            job.future.set_exception(problem)

    def _work(self, peer: PeerId) -> None:
        while True:
            with self._changed:
                job = self._spread.take(peer)
                while job is None:
                    if self._closed and not self._spread.waiting \
                            or peer not in self._spread.workers or not self._changed.wait(60.0):
                        self._threads[peer] -= 1
                        return
                    job = self._spread.take(peer)
            assert isinstance(job, Job)
            self._do(peer, job)

    def _do(self, peer: PeerId, job: Job) -> None:
        if job.future.cancelled() or not (job.future.running()
                                          or job.future.set_running_or_notify_cancel()):
            self._finish(peer, job)
            return
        try:
            result = job.payload(peer)
        except ELSEWHERE as problem:
            with self._changed:
                self._last_problem = problem
                again = self._spread.lost(peer, job, problem.ran)
                self._changed.notify_all()
            if not again:
                job.future.set_exception(problem)
        except BaseException as problem:
            self._finish(peer, job)
            job.future.set_exception(problem)
        else:
            self._finish(peer, job)
            job.future.set_result(result)

    def _finish(self, peer: PeerId, job: Job) -> None:
        with self._changed:
            self._spread.done(peer, job)
            self._changed.notify_all()


def run_map(workers: Workers, run: Callable[[PeerId, Sequence[Tuple[Any, ...]]], List[Any]],
            tuples: Iterable[Tuple[Any, ...]], chunk: int, in_order: bool,
            timeout: Optional[float]) -> Iterator[Any]:
    """The values of a function for each tuple of arguments, as peers get free.

    The input is read ahead only as far as there is somebody to work on it.

    :param chunk: tuples that one peer is given at a time.
    :param timeout: seconds for all of it, from now; None for no limit.
    :raises CallTimeout: the time is over.
    """
    end = None if timeout is None else monotonic() + timeout
    source = iter(tuples)
    flying: Deque[Future[List[Any]]] = deque()
    try:
        exhausted = False
        while True:
            while not exhausted and len(flying) < 2 * workers.slots:
                some = list(islice(source, chunk))
                if not some:
                    exhausted = True
                    break
                flying.append(workers.submit(lambda peer, some=some: run(peer, some)))
            if not flying:
                return
            left = None if end is None else max(0.0, end - monotonic())
            done = wait([flying[0]] if in_order else flying, left, FIRST_COMPLETED).done
            if not done:
                raise CallTimeout(None, timeout or 0.0)
            for future in [one for one in flying if one in done]:
                flying.remove(future)
                yield from future.result()
    finally:
        for future in flying:
            future.cancel()
        workers.close(cancel=True)


class Executor(BaseExecutor):
    """A :class:`concurrent.futures.Executor` whose work is done by peers, for connected functions.

    :param find: which peers there are for a function.
    :param repeatable: whether work that may have run is given to another peer, too.
    :param at_a_time: calls that one peer is given at a time.
    """

    def __init__(self, find: Callable[[Any], Sequence[PeerId]], repeatable: bool = False,
                 at_a_time: int = AT_A_TIME) -> None:
        self._find = find
        self._repeatable = repeatable
        self._at_a_time = at_a_time
        self._lock = threading.Lock()  # guards what follows
        self._workers: Dict[bytes, Workers] = {}
        self._closed = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have some peer run a connected function.

        :raises TypeError: the function is not connected.
        :raises RuntimeError: the executor was shut down.
        """
        if not isinstance(getattr(fn, "tag", None), bytes) or not hasattr(fn, "on"):
            raise TypeError(f"peers can run connected functions only, not {fn!r}; see net.connect")
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            workers = self._workers.get(fn.tag)
            if workers is None:
                workers = self._workers[fn.tag] = Workers(
                    partial(self._find, fn), str(getattr(fn, "__name__", fn)), self._repeatable,
                    self._at_a_time)
        return workers.submit(lambda peer: fn.on(peer)(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; see :meth:`concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._closed = True
            all_workers = list(self._workers.values())
        for workers in all_workers:
            workers.close(cancel_futures)
        if wait:
            for workers in all_workers:
                workers.join()
