"""One call, many peers: what ``f.any``, ``f.all`` and ``f.map`` are, and :class:`net.Executor`."""
from __future__ import annotations

import threading
import typing
from collections.abc import Mapping
from concurrent.futures import CancelledError, FIRST_COMPLETED, Future, wait
from concurrent.futures import Executor as BaseExecutor
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import (TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, Generator, Generic, Iterable,
                    Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, TypeVar, Union)

from ..context import Caller, Context, current, enter
from ..errors import CallTimeout, NetError, TooFewPeers, printable
from ..identity import PeerArgument, address_of
from ..run.balance import Balance
from .spread import Task
from .start import Call
from .ways import ASYNC_GENERATOR, COROUTINE, GENERATOR
from .workers import ELSEWHERE, Outcome, Together, Workers

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
else:
    # Python 3.9 has none, and needs none: only type checkers read it.
    P = getattr(typing, "ParamSpec", TypeVar)("P")

R_co = TypeVar("R_co", covariant=True)

# Tasks that a map reads ahead for each that can run: enough if one takes longer than others.
LOOK_AHEAD = 8
# What is known about a call, the more likely to have run the later.
_OUTCOMES = ("no", "maybe", "yes")

Groups = Union[None, str, Iterable[str]]
Peers = Optional[Iterable[PeerArgument]]
#: Runs it: ``way(peer, args, kwargs, timeout)``.
Way = Callable[[Any, Tuple[Any, ...], Dict[str, Any], Optional[float]], Any]


class Target(NamedTuple):
    """A function that many peers have.

    :ivar find: the peers of these groups that have it.
    :ivar there: what calling it with ``peer=`` gives.
    :ivar call: its value, for a thread that waits.
    :ivar call_async: its value, awaited.
    :ivar several: the outcomes for the first ones of a list of arguments, for a thread that waits;
        None if the peer or the arguments do not allow it.
    :ivar outcome: makes the value of one of them.
    :ivar start: a :class:`net.Call` on each of some peers, ``start(peers, args, kwargs, timeout)``.
    :ivar missed: called with a peer that does not answer.
    """

    name: str
    tag: bytes
    kind: str
    repeatable: bool
    find: Callable[[Groups], Sequence[Any]]
    there: Way
    call: Way
    call_async: Way
    several: Callable[[Any, List[Any]], Optional[List[Any]]]
    outcome: Callable[[Any, Any], Any]
    start: Callable[[Iterable[Any], Tuple[Any, ...], Dict[str, Any], Optional[float]],
                    List[Call[Any]]]
    balance: Balance
    missed: Callable[[Any], object]


def _finder(target: Target, peers: Peers, groups: Groups) -> Callable[[], Sequence[Any]]:
    """A function that gives the peers to choose from.

    :raises InvalidPeer: one of those given is no peer.
    """
    if peers is None:
        return partial(target.find, groups)
    given = tuple(peers)
    for peer in given:
        address_of(peer)
    return lambda: given


def _check(timeout: Optional[float], **counts: int) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is a number from 1, not {count!r}")


# ---------------------------------------------------------------------- any


class AnyPeer(Generic[P, R_co]):
    """``f.any``: runs the function on one peer that has it, see :meth:`on`."""

    def __init__(self, target: Target, timeout: Optional[float] = None,
                 repeatable: Optional[bool] = None, first: int = 1, peers: Peers = None,
                 groups: Groups = None) -> None:
        _check(timeout, first=first)
        if first > 1 and target.kind in (GENERATOR, ASYNC_GENERATOR):
            raise TypeError(f"{target.name} is a generator function: its items come from one peer")
        self._target = target
        self._timeout = timeout
        self._repeatable = first > 1 or \
            (target.repeatable if repeatable is None else repeatable)
        self._first = first
        self._find = _finder(target, peers, groups)

    def on(self, *, timeout: Optional[float] = None, repeatable: Optional[bool] = None,
           first: int = 1, peers: Peers = None, groups: Groups = None) -> AnyPeer[P, R_co]:
        """The same with other terms.

        :param timeout: seconds for all peers that are tried, together; None for ``NET_TIMEOUT`` for
            each of them, or no limit.
        :param repeatable: whether another peer takes over when the first one may have run it; by
            default as ``@net.connect(repeatable=...)`` says.
        :param first: start it on so many peers, take the first value, and cancel the others.
        :param peers: choose from these; by default from those that have the function.
        :param groups: choose from the peers of these groups.
        """
        return AnyPeer(self._target, timeout, repeatable, first, peers, groups)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it on the peer with the fewest calls of this process, or on another one if that did
        not run it.

        :raises TooFewPeers: no peer has it, or none of those that have it could run it.
        """
        run: Any = {COROUTINE: self._run_async, GENERATOR: self._iterate,
                    ASYNC_GENERATOR: self._iterate_async}.get(self._target.kind, self._run)
        return run(args, kwargs)  # type: ignore[no-any-return]

    def _run(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        trial = self._trial()
        while True:
            chosen = trial.choose(self._find())
            try:
                if len(chosen) == 1:
                    return self._target.call(chosen[0], args, kwargs, trial.left())
                return _fastest(self._start(chosen, args, kwargs, trial))
            except NetError as problem:
                if not trial.goes_on(problem):
                    raise
            finally:
                trial.give_back(chosen)

    async def _run_async(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        import asyncio

        trial, loop = self._trial(), asyncio.get_running_loop()
        while True:
            # In a thread, since it may search.
            chosen = trial.choose(await loop.run_in_executor(None, self._find))
            try:
                if len(chosen) == 1:
                    return await self._target.call_async(chosen[0], args, kwargs, trial.left())
                return await _fastest_async(self._start(chosen, args, kwargs, trial))
            except NetError as problem:
                if not trial.goes_on(problem):
                    raise
            finally:
                trial.give_back(chosen)

    def _iterate(self, args: Tuple[Any, ...],
                 kwargs: Dict[str, Any]) -> Generator[Any, Any, Any]:
        return (yield from self._run(args, kwargs))

    async def _iterate_async(self, args: Tuple[Any, ...],
                             kwargs: Dict[str, Any]) -> AsyncIterator[Any]:
        items = await self._run_async(args, kwargs)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    def _start(self, peers: List[Any], args: Tuple[Any, ...], kwargs: Dict[str, Any],
               trial: _Trial) -> List[Call[Any]]:
        return self._target.start(peers, args, kwargs, trial.left())

    def _trial(self) -> _Trial:
        return _Trial(self._target, self._repeatable, self._first, self._timeout)

    def __repr__(self) -> str:
        return f"<{self._target.name} on any peer>"


class _Trial:
    """The peers that were tried for one call."""

    def __init__(self, target: Target, repeatable: bool, first: int,
                 timeout: Optional[float]) -> None:
        self._target = target
        self._repeatable = repeatable
        self._first = first
        self._timeout = timeout
        self._end = None if timeout is None else monotonic() + timeout
        self._tried: Set[Any] = set()
        self._problem: Optional[NetError] = None
        # Whether one of them may have run it.
        self._ran = "no"

    def choose(self, peers: Iterable[Any]) -> List[Any]:
        """The next peers to try.

        :raises TooFewPeers: none is left.
        """
        chosen: List[Any] = []
        for _ in range(self._first):
            peer = self._target.balance.take(
                [one for one in peers if one not in self._tried])
            if peer is None:
                break
            self._tried.add(peer)
            chosen.append(peer)
        if not chosen:
            why = "no peer has it" if self._problem is None else \
                f"{len(self._tried)} could not run it, the last one: {self._problem}"
            raise TooFewPeers(self._target.name, 0, 1, why, self._ran) from self._problem
        return chosen

    def left(self) -> Optional[float]:
        """Seconds that are left for all of it.

        :raises CallTimeout: none.
        """
        if self._end is None:
            return None
        left = self._end - monotonic()
        if left <= 0:
            raise CallTimeout(None, self._timeout or 0.0, self._ran)
        return left

    def goes_on(self, problem: NetError) -> bool:
        """Whether another peer may run what one could not. If not, the problem then says what is
        known about all that were tried."""
        self._problem = problem
        if isinstance(problem, ELSEWHERE) \
                and (problem.ran == "no" or problem.ran == "maybe" and self._repeatable):
            self._ran = max(self._ran, problem.ran, key=_OUTCOMES.index)
            return True
        problem.ran = max(self._ran, problem.ran, key=_OUTCOMES.index)
        return False

    def give_back(self, peers: List[Any]) -> None:
        for peer in peers:
            self._target.balance.give_back(peer)


def _fastest(calls: List[Call[Any]]) -> Any:
    """The first value; an error only if all fail."""
    pending: Set[Any] = set(calls)
    try:
        calls[0].check_wait()
        while True:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            good = [call for call in done if call.exception() is None]
            if good or not pending:
                return (good or [_worst(calls)])[0].result()
    finally:
        for call in pending:
            call.cancel()


async def _fastest_async(calls: List[Call[Any]]) -> Any:
    import asyncio

    pending: Set[Any] = {asyncio.wrap_future(call) for call in calls}
    try:
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            good = [call for call in done if call.exception() is None]
            if good or not pending:
                return good[0].result() if good else _worst(calls).result()
    finally:
        for future in pending:
            future.cancel()


def _worst(calls: List[Call[Any]]) -> Call[Any]:
    """The failed call that is the most likely to have run."""
    return max(calls, key=lambda call: _OUTCOMES.index(getattr(call.exception(), "ran", "yes")))


# ---------------------------------------------------------------------- all


class AllPeers(Generic[P]):
    """``f.all``: runs the function on all peers that have it, see :meth:`on`."""

    def __init__(self, target: Target, timeout: Optional[float] = None, peers: Peers = None,
                 groups: Groups = None) -> None:
        _check(timeout)
        self._target = target
        self._timeout = timeout
        self._find = _finder(target, peers, groups)

    def on(self, *, timeout: Optional[float] = None, peers: Peers = None,
           groups: Groups = None) -> AllPeers[P]:
        """The same with other terms.

        :param timeout: seconds for each peer; None for ``NET_TIMEOUT``, or no limit.
        :param peers: these peers; by default those that have the function.
        :param groups: the peers of these groups.
        """
        return AllPeers(self._target, timeout, peers, groups)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Results:
        """Start it on all of them at once. Does not wait for the results."""
        target, peers = self._target, dict.fromkeys(self._find())
        if target.kind in (GENERATOR, ASYNC_GENERATOR):
            return Results({peer: _done(peer, target.there(peer, args, kwargs, self._timeout))
                            for peer in peers})
        return Results(dict(zip(peers, target.start(peers, args, kwargs, self._timeout))))

    def __repr__(self) -> str:
        return f"<{self._target.name} on all peers>"


def _done(peer: Any, value: Any) -> Call[Any]:
    call: Call[Any] = Call(peer)
    call.set_result(value)
    return call


class Results(Mapping):  # type: ignore[type-arg]
    """What ``f.all()`` gives: peer -> value, in the order of completion.

    It is returned at once. Iterating waits for the next result, looking up a peer waits for that
    peer's; an error of a peer is raised when its value is accessed. Awaiting it waits for all
    results, and gives the mapping itself. Its ``repr`` is a table of the results so far.

    :ivar calls: peer -> its :class:`net.Call`.
    """

    def __init__(self, calls: Dict[Any, Call[Any]]) -> None:
        self.calls = calls
        self._order: List[Any] = []
        self._ended = threading.Condition()  # guards _order; notified when a call ends
        for peer, call in calls.items():
            call.watch(partial(self._note, peer))

    def _note(self, peer: Any, call: Any) -> None:
        with self._ended:
            self._order.append(peer)
            self._ended.notify_all()

    def __getitem__(self, peer: Any) -> Any:
        return self.calls[peer].result()

    def __len__(self) -> int:
        return len(self.calls)

    def __contains__(self, peer: Any) -> bool:
        return peer in self.calls

    def __iter__(self) -> Iterator[Any]:
        for call in self.calls.values():
            call.check_wait()
        for place in range(len(self.calls)):
            with self._ended:
                while len(self._order) <= place:
                    self._ended.wait()
                peer = self._order[place]
            yield peer

    @property
    def errors(self) -> Dict[Any, BaseException]:
        """Peer -> what it raised, for those that raised something. Waits for all."""
        return {peer: problem for peer in self
                for problem in [_problem_of(self.calls[peer])] if problem is not None}

    @property
    def good(self) -> Dict[Any, Any]:
        """Peer -> value, for those that raised nothing. Waits for all."""
        return {peer: self.calls[peer].result() for peer in self
                if _problem_of(self.calls[peer]) is None}

    def cancel(self) -> None:
        """Cancel the calls that still run."""
        for call in self.calls.values():
            call.cancel()

    def __await__(self) -> Any:
        return self._all_ended().__await__()

    async def _all_ended(self) -> Results:
        async for _ in self:
            pass
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        import asyncio

        pending = {asyncio.ensure_future(_ended(peer, call)) for peer, call in self.calls.items()}
        try:
            for peer in asyncio.as_completed(pending):
                yield await peer
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            for task in pending:
                task.cancel()

    def __repr__(self) -> str:
        from ..tables import as_text, terminal_width

        if not self.calls:
            return "no peers"
        return as_text(_head(), self._rows(), terminal_width())

    def _repr_html_(self) -> str:
        from ..tables import as_html

        return as_html(_head(), self._rows())

    def _rows(self) -> List[List[str]]:
        return [[str(peer), *_outcome(call)] for peer, call in self.calls.items()]


def _head() -> Any:
    from ..tables import Column

    return [Column("peer", 12), Column("state", 9), Column("value", 20)]


def _outcome(call: Call[Any]) -> List[str]:
    """State and value of a call, for people."""
    if not call.done():
        return ["running", ""]
    if call.cancelled():
        return ["cancelled", ""]
    problem = call.exception()
    if problem is None:
        return ["done", printable(repr(call.result()), 100)]
    return ["failed", printable(f"{type(problem).__name__}: {problem}", 100)]


def _problem_of(call: Call[Any]) -> Optional[BaseException]:
    try:
        return call.exception()
    except CancelledError as problem:
        return problem


async def _ended(peer: Any, call: Call[Any]) -> Any:
    import asyncio

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def tell(done: Any) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))
        except RuntimeError:
            pass  # the loop was closed: no task waits any more
    call.watch(tell)
    await future
    return peer


# ---------------------------------------------------------------------- map


class OverPeers:
    """``f.map``: spreads calls over the peers that have the function, see :meth:`on`."""

    def __init__(self, target: Target, timeout: Optional[float] = None,
                 repeatable: Optional[bool] = None, at_a_time: int = 1, peers: Peers = None,
                 groups: Groups = None) -> None:
        _check(timeout, at_a_time=at_a_time)
        self._target = target
        self._timeout = timeout
        self._repeatable = target.repeatable if repeatable is None else repeatable
        self._at_a_time = at_a_time
        self._find = _finder(target, peers, groups)

    def on(self, *, timeout: Optional[float] = None, repeatable: Optional[bool] = None,
           at_a_time: int = 1, peers: Peers = None, groups: Groups = None) -> OverPeers:
        """The same with other terms.

        :param timeout: seconds for all items together, from the call on; None for no limit.
            ``NET_TIMEOUT`` holds for each item besides.
        :param repeatable: whether another peer takes over a call that may have run; by default as
            ``@net.connect(repeatable=...)`` says.
        :param at_a_time: calls that each peer is given at the same time.
        :param peers: use these; by default those that have the function, and those that join.
        :param groups: use the peers of these groups.
        """
        return OverPeers(self._target, timeout, repeatable, at_a_time, peers, groups)

    def __call__(self, /, *iterables: Iterable[Any], chunk: int = 1,
                 in_order: bool = True) -> Mapped:
        """The value for each item, as ``map()`` gives them; a peer gets the next item when it is
        done with one. The input is read as it is needed.

        :param chunk: items that a peer is given in one call, for functions that take next to no
            time.
        :param in_order: True for the values in the order of the items, False as they come.
        """
        if not iterables:
            raise TypeError(f"{self._target.name}.map() takes at least one iterable")
        _check(None, chunk=chunk)
        target = self._target
        if target.kind == ASYNC_GENERATOR:
            # Each begins in the loop that asks for its items, on the peer that is free then.
            begin: Any = AnyPeer(target._replace(find=lambda groups: self._find()), self._timeout)
            target = target._replace(call=lambda peer, args, kwargs, timeout: begin(*args))
        return Mapped(target, self._find, zip(*iterables), self._at_a_time,
                      self._repeatable, chunk, in_order, self._timeout)

    def __repr__(self) -> str:
        return f"<{self._target.name} over peers>"


class _Arrivals:
    """Outcomes on their way from the threads of workers to the consumer."""

    def __init__(self) -> None:
        self.outcomes: SimpleQueue[List[Outcome]] = SimpleQueue()
        #: Called, from any thread, when there are more.
        self.wake: Optional[Callable[[], object]] = None

    def put(self, outcomes: List[Outcome]) -> None:
        self.outcomes.put(outcomes)
        wake = self.wake
        if wake is not None:
            wake()


class Mapped:
    """What ``f.map()`` gives: an iterator, and an async iterator. For one thread at a time.

    Closing it, an error that it raises, or letting go of it cancels what runs.
    """

    def __init__(self, target: Target, find: Callable[[], Sequence[Any]],
                 source: Iterator[Tuple[Any, ...]], at_a_time: int, repeatable: bool, chunk: int,
                 in_order: bool, timeout: Optional[float]) -> None:
        self._source = source
        self._chunk = chunk
        self._in_order = in_order
        self._timeout = timeout
        self._scope = scope = _scope(timeout)
        self._arrivals = _Arrivals()
        self._results: Dict[int, Outcome] = {}
        self._read = self._given = 0
        self._exhausted = self._closed = False

        def run(peer: Any, work: Tuple[int, Tuple[Any, ...]]) -> Any:
            enter(scope)
            return target.call(peer, work[1], {}, None)

        def run_several(peer: Any, works: List[Any]) -> Any:
            enter(scope)
            return target.several(peer, [list(arguments) for _, arguments in works])
        together = None if target.kind in (GENERATOR, ASYNC_GENERATOR) else \
            Together(run_several, target.outcome)
        self._workers = Workers(target.name, find, run, self._arrivals.put, at_a_time, repeatable,
                                chunk, target.missed, scope, together)

    def __iter__(self) -> Mapped:
        return self

    def __next__(self) -> Any:
        try:
            while True:
                self._read_ahead()
                outcome = self._pop()
                if outcome is not None:
                    break
                if self._given == self._read:
                    raise StopIteration
                self._keep(self._arrivals.outcomes.get(timeout=self._left()))
            if outcome[2] is not None:
                raise outcome[2]
            return outcome[1]
        except Empty:
            self.close()
            raise CallTimeout(None, self._timeout or 0.0) from None
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Mapped:
        return self

    async def __anext__(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        self._arrivals.wake = lambda: loop.call_soon_threadsafe(came.set)
        try:
            while True:
                if self._read:
                    self._read_ahead()
                else:  # in a thread, since it may search
                    await loop.run_in_executor(None, self._read_ahead)
                outcome = self._pop()
                if outcome is not None or self._given == self._read:
                    break
                await self._arrived(came)
            if outcome is None:
                raise StopAsyncIteration
            if outcome[2] is not None:
                raise outcome[2]
            return outcome[1]
        except BaseException:
            self.close()
            raise
        finally:
            self._arrivals.wake = None

    async def _arrived(self, came: Any) -> None:
        import asyncio

        from .aio import within

        came.clear()
        while self._arrivals.outcomes.empty():
            try:
                await within(self._left(), came.wait())
            except asyncio.TimeoutError:
                raise CallTimeout(None, self._timeout or 0.0) from None
            came.clear()
        self._keep(self._arrivals.outcomes.get())

    def _left(self) -> Optional[float]:
        return self._scope.remaining()

    def _read_ahead(self) -> None:
        """Hand out as much as the present peers will take soon."""
        chunk = self._chunk
        while not self._exhausted and \
                self._read - self._given <= (LOOK_AHEAD * self._workers.slots - 1) * chunk:
            tasks = [Task(work) for work in
                     zip(range(self._read, self._read + chunk), self._source)]
            self._exhausted = len(tasks) < chunk
            if tasks:
                self._read += len(tasks)
                self._workers.add(tasks)

    def _keep(self, outcomes: List[Outcome]) -> None:
        for outcome in outcomes:
            self._results[outcome[0].work[0]] = outcome

    def _pop(self) -> Optional[Outcome]:
        number = self._given if self._in_order else next(iter(self._results), -1)
        outcome = self._results.pop(number, None)
        if outcome is not None:
            self._given += 1
        return outcome

    def close(self) -> None:
        """Cancel the running calls, and end."""
        if not self._closed:
            self._closed = self._exhausted = True
            self._results.clear()
            self._given = self._read
            self._workers.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._workers.let_go(self._workers.close)


def _scope(timeout: Optional[float]) -> Context:
    """The context of the calls of a map, so that they end together, and with the served call that
    makes them."""
    parent = current()
    scope = Context(Caller(None, None) if parent is None else parent.caller)
    if timeout is not None:
        scope.deadline = monotonic() + timeout
    if parent is not None:
        if parent.deadline is not None:
            scope.deadline = min(parent.deadline, scope.deadline or parent.deadline)
        parent.add_ending(scope.cancel)
        scope.add_ending(lambda: parent.remove_ending(scope.cancel))
    return scope


# ---------------------------------------------------------------------- executor


class _Job(NamedTuple):
    future: Future[Any]
    context: Optional[Context]
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any]


class Executor(BaseExecutor):
    """A :class:`concurrent.futures.Executor` whose work is done by peers, for connected functions.

    What is submitted goes to the next peer that is free; to another one if that did not run it. A
    future that runs cannot be cancelled, as in the standard library's executors.

    :param peers: use these; by default those that have the function, and those that join.
    :param groups: use the peers of these groups.
    :param repeatable: whether another peer takes over a call that may have run; by default as
        ``@net.connect(repeatable=...)`` of the function says.
    :param at_a_time: calls of one function that each peer is given at the same time.
    :raises InvalidPeer: one of ``peers`` is no peer.
    """

    def __init__(self, peers: Peers = None, groups: Groups = None,
                 repeatable: Optional[bool] = None, at_a_time: int = 1) -> None:
        _check(None, at_a_time=at_a_time)
        self._peers = None if peers is None else tuple(peers)
        for peer in self._peers or ():
            address_of(peer)
        self._groups = groups
        self._repeatable = repeatable
        self._at_a_time = at_a_time
        self._lock = threading.Lock()  # guards what follows
        self._workers: Dict[bytes, Workers] = {}
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a peer run a connected function.

        :raises TypeError: the function is not connected.
        :raises RuntimeError: the executor was shut down, or no thread can be started.
        """
        target_of = getattr(fn, "_target", None)
        if not callable(target_of):  # of ``f.any`` it is no function
            raise TypeError(f"peers run connected functions, not {fn!r}; see net.connect")
        job = _Job(Future(), current(), args, kwargs)
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            target = target_of()
            workers = self._workers.get(target.tag)
            if workers is None:
                workers = self._workers[target.tag] = self._workers_of(target)
        workers.add([Task(job)])
        return job.future

    def _workers_of(self, target: Target) -> Workers:
        def run(peer: Any, job: _Job) -> Any:
            # It counts as running already if another peer had it and did not run it.
            if not job.future.running() and not job.future.set_running_or_notify_cancel():
                return None
            enter(job.context)
            return target.call(peer, job.args, job.kwargs, None)
        repeatable = target.repeatable if self._repeatable is None else self._repeatable
        return Workers(target.name, _finder(target, self._peers, self._groups), run, _settle,
                       self._at_a_time, repeatable, missed=target.missed)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work, as :meth:`concurrent.futures.Executor.shutdown` says.

        :raises RuntimeError: called in a callback of one of its futures, which would wait for its
            own end.
        """
        with self._lock:
            self._closed = True
            all_workers = list(self._workers.values())
        for workers in all_workers:
            if not cancel_futures:
                workers.finish_up()
                continue
            # What was begun on a peer that is lost goes on, as all that runs does.
            for task in workers.close(lambda task: task.work.future.running()):
                task.work.future.cancel()
                task.work.future.set_running_or_notify_cancel()
        if wait:
            for workers in all_workers:
                workers.join()

    def __del__(self) -> None:
        for workers in getattr(self, "_workers", {}).values():
            workers.let_go(workers.finish_up)


def _settle(outcomes: List[Outcome]) -> None:
    for task, value, problem in outcomes:
        future = task.work.future
        if future.cancelled():
            continue
        if not future.running():
            # It never began, and can still be cancelled at this very moment.
            if not future.set_running_or_notify_cancel():
                continue
        if problem is None:
            future.set_result(value)
        else:
            future.set_exception(problem)
