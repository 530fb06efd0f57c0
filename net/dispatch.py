"""A request and the registry in, a reply out. No socket and no thread of its own."""
from __future__ import annotations

import inspect
import logging
import threading
import traceback
from collections import defaultdict
from functools import partial
from heapq import nlargest
from math import frexp
from time import monotonic, perf_counter
from types import (AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType)
from typing import (TYPE_CHECKING, Any, Callable, DefaultDict, Dict, FrozenSet, Iterable, List,
                    NamedTuple, Optional, Tuple, Union)

from .context import Context, Overdue, current
from .errors import (AuthenticationError, CallCancelled, CallTimeout, NetError, PeerBusy,
                     ProtocolError, RemoteError, ValueNotSupported)
from .identity import (Flag, encode_text, old_tag_of_function, place_text, tag_name,
                       tag_of_function, tag_of_old_peer)
from .log import CALLS, RateLimitedLog
from .settings import settings
from .wire import messages
from .wire.failures import from_the_function
from .wire.frames import Buffer, Fields
from .wire.memo import Memo
from .wire.legacy import PLAIN, LegacySession, is_marked, unmarked

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .executors import ExecutorOrLoop, Run

note = RateLimitedLog(logging.getLogger(CALLS))

INVALID_CONNECTION = encode_text("INVALID_CONNECTION")
#: What runs a function for several arguments: ``several(tag, list of arguments)``.
SEVERAL = encode_text("net.several")

# Bytes of JSON from which on a request has to reserve memory for its values. Smaller ones may
# together take some hundreds of MiB over all connections.
LARGE = 64 * 1024

# Tags that are compared to find names near a wrong one; each takes some microseconds.
MAX_COMPARED = 1000
# How similar the last parts of two names must be for one to count as a misspelling of the other.
ALIKE = 0.8
# Names that are compared letter by letter, which takes some 30 microseconds each. Any caller can
# send wrong tags.
MAX_LIKELY = 10


class Count:
    """What is counted for one tag.

    :ivar errors: calls that failed.
    :ivar seconds: how long all calls took together.
    :ivar latencies: a histogram, ``exponent -> calls that took less than 2 ** exponent seconds and
        at least half of that``.
    """

    __slots__ = "errors", "seconds", "latencies"

    def __init__(self) -> None:
        self.errors = 0
        self.seconds = 0.0
        self.latencies: DefaultDict[int, int] = defaultdict(int)

    @property
    def calls(self) -> int:
        return sum(list(self.latencies.values()))

    def merge(self, other: Count) -> None:
        self.errors += other.errors
        self.seconds += other.seconds
        for exponent, count in list(other.latencies.items()):
            self.latencies[exponent] += count


class Tally:
    """Calls, errors, seconds and latencies for each tag. One thread writes, any may read.

    :ivar by_tag: tag -> its :class:`Count`.
    """

    def __init__(self) -> None:
        self.by_tag: DefaultDict[bytes, Count] = defaultdict(Count)

    def add(self, tag: bytes, failed: bool, seconds: float) -> None:
        count = self.by_tag[tag]
        count.seconds += seconds
        count.latencies[frexp(seconds)[1]] += 1
        if failed:
            count.errors += 1

    def merge(self, other: "Tally") -> None:
        for tag, count in list(other.by_tag.items()):
            self.by_tag[tag].merge(count)


class MemoryBudget:
    """Memory for the values of large messages. JSON becomes up to 50 times its size in memory, so
    the limits of single messages alone do not protect the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _taken
        self._taken = 0

    @property
    def taken(self) -> int:
        """Bytes that are reserved now."""
        return self._taken

    def reserve(self, size: int, own: int = 0) -> bool:
        """Take some bytes; False if there is no room. A message that is the only one always finds
        room.

        :param size: bytes; less than 0 to give them back.
        :param own: bytes that the message has taken already.
        """
        with self._lock:
            if size > 0 and self._taken > own and self._taken + size > settings.max_memory:
                return False
            self._taken += size
            return True


class NoRoom(PeerBusy):
    """No memory is left for the values of a message."""

    def __init__(self) -> None:
        super().__init__(None, "no room for another large request (NET_MAX_MEMORY)")


class Room:
    """What one message takes of a budget, while its values are in use.

    :ivar size: bytes that it has taken.
    :ivar wanted: bytes that it would have taken in all when there was no room; 0 if there always
        was.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = self.wanted = 0

    def take(self, size: int) -> bool:
        """Take so many more bytes, or give some back if below 0. Returns whether there was
        room."""
        if not self._budget.reserve(size, self.size):
            return False
        self.size += size
        return True

    def charge(self, size: int) -> None:
        """As :meth:`take`, for use while the message is read.

        :raises NoRoom: there is none.
        """
        if not self.take(size):
            self.wanted = self.size + size
            raise NoRoom()

    def free(self) -> None:
        """Give all of it back."""
        self.take(-self.size)


class Stream(NamedTuple):
    """In place of a reply: a generator, whose items are to be sent as they come.

    :ivar number: of the call; ``tag``: of its function.
    :ivar executor: where its items are made; None for the thread of the connection.
    :ivar loop: gives the event loop of an async generator.
    """

    number: int
    tag: bytes
    generator: Any
    executor: Optional[ExecutorOrLoop]
    loop: Callable[[], AbstractEventLoop]


class Running(NamedTuple):
    """In place of a reply: a coroutine that runs. See :meth:`Dispatch.reply_of`.

    :ivar number: of the call; ``tag``: of its function.
    :ivar started: when, by :func:`time.perf_counter`.
    :ivar run: that of the coroutine, as :class:`~.executors.Run`.
    """

    number: int
    tag: bytes
    started: float
    run: Run


class Came(NamedTuple):
    """In place of a reply: the loop has sent it, and the replies to some calls that followed. What
    comes next is not for the loop.

    :ivar data: what was received of that; perhaps nothing yet.
    """

    data: bytes


#: Callables of which the flags of their code say for certain whether calling them runs nothing yet.
_FUNCTIONS = frozenset((FunctionType, MethodType))

#: The types of results that are sent item by item.
_STREAMED = frozenset((GeneratorType, AsyncGeneratorType))


#: What becomes of a call: pieces to send, or what gives them.
Reply = Union[List[Buffer], Stream, Running, Came]


class Dispatch:
    """Answers requests from a registry of functions.

    :param connections: tag -> function. Looked up again for each request.
    :param groups: tag -> the groups that alone may call it.
    :param executors: tag -> where the function runs; the connection's thread where there is none.
    :param memory: the memory for large requests; shared by all servers of a process.
    :param coroutines: gives the loop for coroutines whose function names none.
    :param begin_old_call: called before a call of an old program runs, with the address of the
        caller, the tag, args and kwargs. Gives what is to be called when that call has ended, or
        None if it must not run.
    """

    def __init__(self, connections: Dict[bytes, Callable[..., Any]],
                 groups: Optional[Dict[bytes, FrozenSet[str]]] = None,
                 executors: Optional[Dict[bytes, ExecutorOrLoop]] = None,
                 memory: Optional[MemoryBudget] = None,
                 coroutines: Optional[Callable[[], AbstractEventLoop]] = None,
                 begin_old_call: Optional[Callable[..., Any]] = None) -> None:
        self._connections = connections
        self._groups = {} if groups is None else groups
        self._executors = {} if executors is None else executors
        self._memory = MemoryBudget() if memory is None else memory
        self._coroutines = coroutines
        self._begin_old_call = begin_old_call or (lambda *call: lambda: None)

    def answer(self, frame: Fields, context: Context, tally: Tally,
               charge: Optional[Callable[[int], None]] = None) -> Reply:
        """The reply to a call, ready to send; an empty list if it was sent already. Whatever the
        function raises becomes a reply too.

        :param context: of the calls of this connection, one at a time.
        :param charge: called with the bytes of memory that a large request takes.
        """
        _, number, _, text, _ = frame
        tag = b""
        try:
            # Before anything else of the request is read: the tag may be unknown.
            tag = messages.tag_of(text)
            function = self._connections.get(tag)
            if function is None and tag != SEVERAL:
                return messages.encode_result(number, self._unknown(tag))
            if tag in self._groups and context.caller.group not in self._groups[tag]:
                return messages.encode_refusal(number, self._stranger(tag, context))
            if len(text) >= LARGE and charge is None:
                return self._answer_large(frame, context, tally)
            if function is None:
                return self._answer_several(frame, context, tally, charge)
            args, kwargs, seconds = messages.decode_call(frame, settings.limits, context.borrow,
                                                         charge)
            context.seconds = seconds
            context.deadline = None if seconds is None else _deadline(seconds)
        except BaseException as problem:
            return messages.encode_refusal(number, _unreadable(tag, problem))
        started = perf_counter()
        try:
            result = function(*args, **kwargs) if tag not in self._executors else \
                self._run_elsewhere(tag, function, context, args, kwargs)
            if type(result) is CoroutineType:
                return self._answer_coroutine(number, tag, result, context, tally, started, charge)
        except BaseException as error:  # SystemExit too: it must not end this thread
            tally.add(tag, True, perf_counter() - started)
            return encode_error(number, tag, error)
        tally.add(tag, False, perf_counter() - started)
        return self._reply(number, tag, result)

    def _answer_coroutine(self, number: int, tag: bytes, coroutine: Any, context: Context,
                          tally: Tally, started: float,
                          charge: Optional[Callable[[int], None]]) -> Reply:
        """What is still to be sent of the reply of a coroutine function, or :class:`Running`."""
        keep = None
        if context.keeper is not None and charge is None and tag not in self._executors:
            keep = context.keeper()
        run = self._begin(tag, coroutine, partial(
            _reply_at_once, number, tag, context, tally, started), keep)
        running = Running(number, tag, started, run)
        return self.reply_of(running, context, tally) if keep is None else running

    def reply_of(self, running: Running, context: Context, tally: Tally) -> Reply:
        """Wait for a coroutine: what is still to be sent of its reply, or :class:`Came`."""
        number, tag, started, run = running
        try:
            result: Any = run.wait(context)
        except BaseException as error:
            tally.add(tag, True, perf_counter() - started)
            return encode_error(number, tag, error)
        if type(result) is Running:  # a later call, which the loop leaves to us
            return self.reply_of(result, context, tally)
        if type(result) is Came:
            return result
        if type(result) is Replied:
            return result.left
        tally.add(tag, False, perf_counter() - started)
        return self._reply(number, tag, result)

    def prepare(self, frame: Fields, context: Context, tally: Tally, loop: AbstractEventLoop,
                keep: Callable[[Run], bool]) -> Optional[Running]:
        """Prepare a call that has come in the common loop, over the connection of one that was
        answered there. It runs once the ``run`` of what is returned is begun. None if it is not for
        the loop; then nothing of it has run.
        """
        _, number, _, text, _ = frame
        if not messages.is_plain_call(frame):
            return None
        try:
            tag = messages.tag_of(text)
            function = self._connections[tag]
            if type(function) not in _FUNCTIONS or tag in self._executors or tag in self._groups \
                    or not function.__code__.co_flags & inspect.CO_COROUTINE:
                return None
            args, kwargs, seconds = messages.decode_call(frame, settings.limits)
            context.seconds = seconds
            context.deadline = None if seconds is None else _deadline(seconds)
            started = perf_counter()
            coroutine = function(*args, **kwargs)
        except Exception:
            return None  # its thread finds the same, and answers
        finish = partial(_reply_at_once, number, tag, context, tally, started)
        from .executors import Run

        return Running(number, tag, started, Run(loop, coroutine, finish, keep))

    def _reply(self, number: int, tag: bytes, result: Any) -> Reply:
        """The reply with what a function has returned."""
        if type(result) in _STREAMED:
            return Stream(number, tag, result, self._executors.get(tag), partial(self._loop, tag))
        try:
            return messages.encode_result(number, result, settings.limits)
        except NetError as problem:
            problem.ran = "yes"
            log_failure(tag, problem)
            return messages.encode_refusal(number, problem)
        except Exception as error:  # changed by another thread while it was read
            return encode_error(number, tag, error)

    def _answer_large(self, frame: Fields, context: Context, tally: Tally) -> Reply:
        room = Room(self._memory)
        try:
            return self.answer(frame, context, tally, room.charge)
        finally:
            room.free()

    def _answer_several(self, frame: Fields, context: Context, tally: Tally,
                        charge: Optional[Callable[[int], None]]) -> List[Buffer]:
        """Run a function for each of several arguments, one after the other. The result is a list
        of outcomes; arguments that have none did not run. It is null if there is no such function,
        or if its results are streams, each of which takes a connection."""
        number, tag = frame[1], SEVERAL
        try:
            args, _, seconds = messages.decode_call(frame, settings.limits, context.borrow, charge)
            context.seconds = seconds
            context.deadline = None if seconds is None else _deadline(seconds)
            tag, works = _several(args)
        except BaseException as problem:
            return messages.encode_refusal(number, _unreadable(tag, problem))
        known = self._connections.get(tag)
        if known is None or inspect.isgeneratorfunction(known) \
                or inspect.isasyncgenfunction(known):
            return messages.encode_result(number, None)
        if tag in self._groups and context.caller.group not in self._groups[tag]:
            return messages.encode_refusal(number, self._stranger(tag, context))
        return self._outcomes(number, tag, known, context, works, tally)

    def _outcomes(self, number: int, tag: bytes, known: Callable[..., Any], context: Context,
                  works: List[List[Any]], tally: Tally) -> List[Buffer]:
        outcomes: List[messages.Outcome] = []
        size = 0
        for work in works:
            if size > LARGE or context.is_over():
                break
            outcome = self._outcome(tag, known, context, work, tally)
            outcomes.append(outcome)
            size += outcome.size
        try:
            return messages.encode_outcomes(number, outcomes, settings.limits)
        except NetError as problem:  # they are too much together
            problem.ran = "yes"
            return messages.encode_refusal(number, problem)
        except Exception as error:  # changed by another thread meanwhile
            return encode_error(number, tag, error)

    def _outcome(self, tag: bytes, function: Callable[..., Any], context: Context,
                 args: List[Any], tally: Tally) -> messages.Outcome:
        """What comes of one of several arguments."""
        started = perf_counter()
        try:
            result = function(*args) if tag not in self._executors else \
                self._run_elsewhere(tag, function, context, args, {})
            if type(result) is CoroutineType:
                result = self._begin(tag, result).wait(context)
        except BaseException as error:
            tally.add(tag, True, perf_counter() - started)
            return _outcome_of(tag, error)
        tally.add(tag, False, perf_counter() - started)
        try:
            return messages.outcome_of_value(result, settings.limits)
        except NetError as problem:
            problem.ran = "yes"
            log_failure(tag, problem)
            return messages.outcome_of_refusal(problem)
        except Exception as error:  # changed by another thread while it was read
            return _outcome_of(tag, error)

    def _run_elsewhere(self, tag: bytes, function: Callable[..., Any], context: Context,
                       args: Any, kwargs: Any) -> Any:
        """Run a function in the executor that it asks for."""
        from . import executors  # few need it

        return executors.run_in(self._executors[tag], context, function, args, kwargs)

    def _begin(self, tag: bytes, coroutine: Any, finish: Optional[Callable[[Any], Any]] = None,
               keep: Optional[Callable[[Run], bool]] = None) -> Run:
        """Begin a coroutine on the loop of its function, or on the common one; see
        :func:`~.executors.begin_coroutine`."""
        from . import executors

        try:
            loop = self._loop(tag)
        except PeerBusy:
            coroutine.close()
            raise
        return executors.begin_coroutine(loop, coroutine, finish, keep)

    def _loop(self, tag: bytes) -> AbstractEventLoop:
        """The event loop of a function: its executor, or the common one.

        :raises PeerBusy: there is none.
        """
        from . import executors

        loop = self._executors.get(tag)
        if loop is not None and executors.is_event_loop(loop):
            return loop
        if self._coroutines is None:
            raise executors.NotTaken(None, "no event loop for coroutines there")
        return self._coroutines()

    def answer_legacy(self, session: LegacySession, context: Context, tally: Tally) -> bytes:
        """The reply to the request of an old program; no bytes where the connection is to be reset
        instead."""
        assert session.request is not None
        tag, args, kwargs, _ = session.request
        if tag not in self._connections:
            tag = self._meant(tag, session.dialect)
        function = self._connections.get(tag)
        if function is None:
            # An event for a subscription that has ended is no error for its publisher.
            return session.reply(None) if is_marked(tag) else session.unknown()
        if tag in self._groups:  # old programs do not say which group they belong to
            return session.refuse(self._stranger(tag, context))
        end = self._begin_old_call(context.caller.address, tag, args, kwargs)
        if end is None:
            return session.reply(None)
        try:
            return self._run_legacy(session, tag, function, context, tally)
        finally:
            end()

    def _run_legacy(self, session: LegacySession, tag: bytes, function: Callable[..., Any],
                    context: Context, tally: Tally) -> bytes:
        assert session.request is not None
        _, args, kwargs, _ = session.request
        counted = unmarked(tag)
        started = perf_counter()
        try:
            result = function(*args, **kwargs) if tag not in self._executors else \
                self._run_elsewhere(tag, function, context, args, kwargs)
            if type(result) is CoroutineType:
                result = self._begin(tag, result).wait(context)
        except BaseException as error:
            tally.add(counted, True, perf_counter() - started)
            log_failure(counted, error)
            return session.fail(_legacy_traceback(error))
        tally.add(counted, False, perf_counter() - started)
        try:
            if not session.searches or session.dialect != PLAIN:
                return session.reply(result)
            return session.reply(result, [*self._connections, *self._old_tags(PLAIN)])
        except Exception as error:  # changed by another thread while it was read
            log_failure(tag, error)
            return session.fail(_legacy_traceback(error))

    def _meant(self, tag: bytes, dialect: str) -> bytes:
        """The tag that is registered here for the function that an old program means by a tag that
        is not."""
        tag = tag_of_old_peer(tag)
        if tag in self._connections:
            return tag
        return self._old_tags(dialect, tag_name(tag).rpartition(".")[2]).get(tag, tag)

    def _old_tags(self, dialect: str, name: Optional[str] = None) -> Dict[bytes, bytes]:
        """The tags of old programs for functions that have another tag here: theirs -> ours.

        Theirs leave out the class of a static method. In 0.6 a function with a tag of its own also
        has the one made of its name, in 0.3 and 0.4 it has not. A tag that several functions would
        share is left out: it would be a matter of luck which one runs.

        :param name: only functions of this name.
        """
        found: Dict[bytes, bytes] = {}
        several = set()
        for tag, function in list(self._connections.items()):
            if name is not None and getattr(function, "__name__", None) != name:
                continue
            old = None if is_marked(tag) else old_tag_of_function(function)
            if old is None or old in self._connections \
                    or dialect != PLAIN and tag != tag_of_function(function):
                continue
            if self._connections.get(found.setdefault(old, tag)) is not function:
                several.add(old)
        return {old: tag for old, tag in found.items() if old not in several}

    def _stranger(self, tag: bytes, context: Context) -> AuthenticationError:
        allowed, own = ", ".join(sorted(self._groups[tag])), context.caller.group
        other = "has none" if own is None else f"is of {own}"
        return AuthenticationError(None, f"{tag_name(tag)!r} is for peers of the group {allowed}, "
                                         f"and the caller {other}; see NET_GROUP")

    def _unknown(self, tag: bytes) -> Flag:
        return Flag(INVALID_CONNECTION, self._near(tag))

    def _near(self, tag: bytes) -> List[str]:
        import difflib  # only a wrong tag needs it

        wanted = tag_name(tag)
        names = [_names[known] for known in list(self._connections)[:MAX_COMPARED]]
        # The same function in another module first, then in another module and misspelt.
        last_parts: Dict[str, List[str]] = {}
        for name in names:
            last_parts.setdefault(name.rpartition(".")[2], []).append(name)
        near = [wanted.rpartition(".")[2]]
        near += difflib.get_close_matches(near[0], _likely(near[0], last_parts), 3, ALIKE)
        found = [name for last in near for name in last_parts.get(last, ())]
        found += difflib.get_close_matches(wanted, _likely(wanted, names), 3)
        return list(dict.fromkeys(found))[:3]


def _likely(wanted: str, names: Iterable[str]) -> List[str]:
    """The names that have most pairs of letters with a wanted one in common."""
    pairs = _pairs_in(wanted)
    return nlargest(MAX_LIKELY, names, lambda name: len(pairs & _pairs[name]))


def _pairs_in(name: str) -> FrozenSet[str]:
    return frozenset(map(str.__add__, name, name[1:]))


#: For the functions that are registered: the name of a tag, and the pairs of letters in a name. A
#: name leaves out the mark of a tag: a peer that knows the mark can speak for the publisher.
_names = Memo(lambda tag: tag_name(unmarked(tag)), 2 * MAX_COMPARED)
_pairs = Memo(_pairs_in, 4 * MAX_COMPARED)


class Replied(NamedTuple):
    """In place of what a coroutine has returned: its reply was made.

    :ivar left: what is still to be sent of it.
    """

    left: List[Buffer]


def _reply_at_once(number: int, tag: bytes, context: Context, tally: Tally, started: float,
                   value: Any) -> Any:
    """Called in the loop of a coroutine with what it has returned: send that, if it takes next to
    no time. Waking the thread of its connection first would take longer.

    :returns: :class:`Replied`, or the value.
    """
    if context.send_at_once is None or not messages.is_small(value):
        return value
    reply = messages.encode_result(number, value, settings.limits)
    tally.add(tag, False, perf_counter() - started)  # before anybody can ask for it
    return Replied([] if context.send_at_once(reply) else reply)


def _unreadable(tag: bytes, problem: BaseException) -> NetError:
    """The error that says why no function ran, made of what was raised while its arguments were
    read; that may be anything, where they are of an application's classes. Called while it is
    handled.
    """
    if type(problem) in _OF_READING:
        assert isinstance(problem, NetError)
        return problem
    if type(problem) is MemoryError:
        return PeerBusy(None, "no memory for the arguments there")
    log_failure(tag, problem)
    return ValueNotSupported(
        "the arguments", f"{type(problem).__name__} was raised at the peer when they were read, by "
                         f"a class of the application; its log says more")


_OF_READING = frozenset({ProtocolError, ValueNotSupported, NoRoom, Overdue})


def _deadline(seconds: float) -> float:
    """The monotonic time from which nobody waits any more for a call that has just come.

    :raises Overdue: it is over already.
    """
    if seconds > 0:
        return monotonic() + seconds
    raise Overdue(None, seconds, "no")


def _several(args: List[Any]) -> Tuple[bytes, List[List[Any]]]:
    """The tag and the list of arguments in a call of :data:`SEVERAL`.

    :raises ProtocolError: the arguments of the call are something else.
    """
    if len(args) == 2 and type(args[0]) is str and args[0].isascii() and type(args[1]) is list \
            and all(type(work) is list for work in args[1]):
        return args[0].encode("ascii"), args[1]
    raise ProtocolError(None, "several calls are a tag and a list of lists of arguments")


def encode_error(number: int, tag: bytes, error: BaseException) -> List[Buffer]:
    """The reply for a function that raised; called while its exception is handled."""
    failed: List[Buffer] = _explained(
        tag, error, partial(messages.encode_refusal, number),
        partial(messages.encode_failure, number))
    return failed


def _outcome_of(tag: bytes, error: BaseException) -> messages.Outcome:
    """As :func:`encode_error`, as one of several outcomes."""
    failed: messages.Outcome = _explained(tag, error, messages.outcome_of_refusal,
                                          messages.outcome_of_error)
    return failed


def _explained(tag: bytes, error: BaseException, refuse: Callable[..., Any],
               fail: Callable[..., Any]) -> Any:
    """What a caller is told of an error, made by ``refuse`` if the function did not run or its
    time was over, else by ``fail``."""
    if issubclass(type(error), PeerBusy):  # the class itself: an instance may lie, or raise
        from .executors import NotTaken

        if type(error) is NotTaken:
            return refuse(PeerBusy(None, error.reason))
    log_failure(tag, error)
    try:
        if type(error) is Overdue:
            return refuse(error)
        return fail(error, settings.traceback, settings.limits)
    except BaseException as problem:  # its class may do anything when it is looked at
        return fail(RuntimeError(
            f"{type(error).__name__}, which cannot be described because of "
            f"{type(problem).__name__}"), "type")
    finally:
        # The traceback holds the frames of the function, and they hold its arguments. The class may
        # forbid setting attributes, as a frozen dataclass does.
        BaseException.with_traceback(error, None)


def log_failure(tag: bytes, error: BaseException) -> None:
    """Log a function that failed; called while its exception is handled."""
    name = tag_name(tag)
    try:
        # The name of a class that came from another peer is that peer's to choose.
        cls = RemoteError if isinstance(error, RemoteError) else type(error)
        kind = f"{name} {cls.__name__}"
        context = current()
        if type(error) in _GIVEN_UP and context is not None and context.is_over():
            note(logging.INFO, "%s was given up by its caller", name)
            return
        address = None if context is None else context.caller.address
        place = "a process of this host" if address is None else place_text(address)
        note(logging.ERROR, "%s, called by %s, raised", name, place, kind_of=kind)
    except BaseException:  # its class may do anything when it is looked at
        pass


#: What ends a function for which nobody waits any more.
_GIVEN_UP = frozenset({CallCancelled, CallTimeout, Overdue})


def _legacy_traceback(error: BaseException) -> str:
    if settings.traceback == "none":
        return type(error).__name__
    shown = from_the_function(error.__traceback__) if settings.traceback == "full" else None
    try:
        return "".join(traceback.format_exception(type(error), error, shown))
    except BaseException:  # its class may do anything when it is looked at
        return type(error).__name__
