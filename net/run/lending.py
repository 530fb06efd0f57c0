"""What a call lends: functions and iterators of the caller that the served function uses.

They stay where they are. The served function gets stand-ins. Using one asks the caller over the
connection of the call (ASK, ANSWER), and the thread there that waits for the call does the work.
When the call has ended, the stand-ins raise.
"""
from __future__ import annotations

import inspect
import io
import threading
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ..context import Caller, Context, current, enter
from ..errors import (Address, CallCancelled, NetError, PeerLost, ProtocolError,
                      ValueNotSupported)
from ..identity import printable
from ..link.streams import Stream
from ..settings import Settings
from ..wire.checks import Malformed, a_list, a_text, a_whole
from ..wire.failures import describe
from ..wire.frames import ANSWER, Buffer, Frame
from ..wire.limits import Limits
from ..wire.messages import (Ask, decode_answer, decode_ask, encode_answer, encode_ask)
from ..wire.session import Session
from ..wire.values import Packer
from .reading import next_event

# What one call may lend.
MAX_LENT = 1000
# Items that are asked for at a time. Those of an iterator over what is there already come together,
# those of a generator one by one, since its next item may take long.
ITEMS = 64
# Bytes of items after which no more come with them.
LARGE = 2 ** 20
_SIZED = frozenset((str, bytes, bytearray))
# Seconds between checks that the caller is still there, for threads that wait for another one to
# read.
LOOK = 0.25
_EXAMPLES: Tuple[Any, ...] = ([], (), {}, {}.items(), {}.values(), range(0), "", set())
_READY: Tuple[Any, ...] = tuple(type(iter(one)) for one in _EXAMPLES)


def _is_ready(iterator: Any) -> bool:
    """Whether all items are there already. The next line of a pipe or a terminal may take long."""
    if isinstance(iterator, io.IOBase):
        return iterator.seekable()
    return isinstance(iterator, _READY)


class _Taken:
    """What was taken of a lent iterator, and not sent yet.

    :ivar problem: what it has raised after the items; None for nothing.
    :ivar ended: whether there is nothing after them.
    """

    def __init__(self) -> None:
        self.items: List[Any] = []
        self.problem: Optional[Exception] = None
        self.ended = False

    def take(self, iterator: Any, most: int) -> None:
        size = 0
        try:
            many = min(most, ITEMS) if _is_ready(iterator) else 1
            while not self.ended and len(self.items) < many and size < LARGE:
                item = next(iterator)
                self.items.append(item)
                size += _size_of(item)
        except StopIteration:
            self.ended = True
        except Exception as problem:
            self.problem = problem


class Lender(Packer):
    """The caller's side: packs arguments, lends what cannot travel, and does what is asked.

    :param address: of the peer that is called.
    :param seconds: how long the caller will wait from now on; None for no limit.
    """

    def __init__(self, limits: Limits, address: Optional[Address] = None,
                 seconds: Optional[float] = None) -> None:
        super().__init__(limits)
        self._lent: List[Any] = []
        self._taken: Dict[int, _Taken] = {}
        self._caller = Caller(address, None)
        self._revision = Settings.revision
        self._deadline = None if seconds is None else monotonic() + seconds

    def lend(self, value: Any) -> Optional[List[Any]]:
        if hasattr(type(value), "__next__"):
            kind = "iterator"
        elif inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
            raise ValueNotSupported("", "a function that is lent cannot be async: its value is "
                                        "waited for, not awaited")
        elif callable(value):
            kind = "function"
        else:
            return None
        if len(self._lent) >= MAX_LENT:
            raise ValueNotSupported("", f"a call lends at most {MAX_LENT} functions and iterators")
        self._lent.append(value)
        name = str(getattr(value, "__qualname__", type(value).__qualname__))
        return [len(self._lent) - 1, kind, printable(name)]

    def answer(self, frame: Frame) -> List[Buffer]:
        """Do what an ASK wants. What a lent function raises travels; Ctrl-C does not.

        :raises PeerLost: the settings have changed since the call began.
        :raises ProtocolError: the frame makes no sense.
        """
        self._check_settings()
        message = self._answer(frame)
        self._check_settings()  # what was asked for may have taken long
        return message

    def _check_settings(self) -> None:
        """Refuse to go on after a change of settings: what was lent in open mode is not for that
        peer any more once there is a secret."""
        if self._revision != Settings.revision:
            raise PeerLost(self._caller.address, "the settings have changed")

    def _answer(self, frame: Frame) -> List[Buffer]:
        number = frame.number
        ask = decode_ask(frame, self._limits)
        if not 0 <= ask.lent < len(self._lent):
            raise ProtocolError(None, "something was asked for that the call has not lent")
        # It works for that peer, as long as the call lasts, and the served one that makes it.
        context = Context(self._caller)
        context.deadline = self._deadline
        within = current()
        if within is not None:
            within.add_ending(context.cancel)
        enter(context)
        try:
            if ask.items is None:
                value = self._lent[ask.lent](*ask.args, **ask.kwargs)
                return encode_answer(number, "value", value, self._limits)
            return self._items(number, ask.lent, ask.items)
        except Exception as problem:
            return self._raised(number, problem)
        finally:
            enter(within)
            if within is not None:
                within.remove_ending(context.cancel)

    def _items(self, number: int, lent: int, most: int) -> List[Buffer]:
        taken = self._taken.setdefault(lent, _Taken())
        if not taken.items:
            taken.take(self._lent[lent], most)
        if not taken.items and taken.problem is not None:
            problem, taken.problem = taken.problem, None
            raise problem
        count = len(taken.items)
        while True:
            name = "last" if taken.ended and count == len(taken.items) else "items"
            try:
                message = encode_answer(number, name, taken.items[:count], self._limits)
            except NetError:
                if count <= 1:
                    del taken.items[:1]
                    raise
                count //= 2  # they are too much together, or one of them cannot travel
            else:
                del taken.items[:count]
                return message

    def _raised(self, number: int, problem: Exception) -> List[Buffer]:
        try:
            described = describe(problem, limits=self._limits)
            return encode_answer(number, "raised", described, self._limits)
        except NetError:
            described = describe(problem, brief=True, limits=self._limits)
            return encode_answer(number, "raised", described, self._limits)


def _size_of(item: Any) -> int:
    """The bytes of an item of a kind that can be large by itself, roughly; 0 for any other."""
    size = getattr(item, "nbytes", None) if type(item) not in _SIZED else len(item)
    return size if type(size) is int else 0


class Borrower:
    """The server's side of one call: makes stand-ins, and asks the caller on their behalf. Any
    thread may ask.

    :param context: of the call; it is cancelled when the caller has gone.
    """

    def __init__(self, stream: Stream, session: Session, context: Context, limits: Limits) -> None:
        self._stream = stream
        self._session = session
        self._context = context
        self._limits = limits
        # Guards what follows, and sending; notified when an answer has come.
        self._changed = threading.Condition()
        self._asked = 0
        self._unanswered: Set[int] = set()
        self._answers: Dict[int, Frame] = {}
        self._reading = False
        self._over = False
        # While the result is streamed the loop reads, and sends what we ask.
        self._through: Optional[Callable[[List[Buffer]], None]] = None

    def borrow(self, content: Any) -> Any:
        """The stand-in for something that is lent.

        :raises Malformed: the content does not describe such a thing.
        """
        number, kind, name = a_list(content, 3, 3)
        number, kind, name = a_whole(number), a_text(kind), printable(a_text(name))
        if kind == "iterator":
            return BorrowedIterator(self, number, name)
        if kind != "function":
            raise Malformed("a function or an iterator is lent")
        return BorrowedFunction(self, number, name)

    def hand_over(self, make: Callable[[], Any]) -> Any:
        """Make the object that reads from the connection from now on, once no thread does, and ask
        through it.

        :returns: what was made. Its ``send`` is called for what is asked, and it calls its
            ``answered`` for each answer.
        """
        with self._changed:
            self._settle()
            made = make()
            made.answered = self.answered
            self._through = made.send
            # Only the loop notices the end of the connection now: no thread reads.
            self._context.add_ending(self._tell)
            return made

    def _tell(self) -> None:
        """Let the threads that wait look again."""
        with self._changed:
            self._changed.notify_all()

    def answered(self, frame: Frame) -> None:
        """Take an answer. One that was not asked for ends the call.

        :raises ProtocolError: it was not asked for.
        """
        with self._changed:
            if frame.number not in self._unanswered:
                raise ProtocolError(None, "an answer to nothing")
            self._take(frame)

    def ask(self, ask: Ask) -> Any:
        """Ask the caller, and wait for what it says.

        :raises CallCancelled: the call is over, or its caller has gone.
        """
        with self._changed:
            if self._over:
                raise CallCancelled("what was lent can be used only while the call runs", "no")
            self._check()
            number = self._asked + 1
            message = encode_ask(number, ask, self._limits)
            self._asked = number
            self._unanswered.add(number)
            try:
                (self._through or self._stream.send)(message)
            except OSError:
                self._lost()
        return decode_answer(self._wait(number), self._limits)

    def _wait(self, number: int) -> Frame:
        with self._changed:
            while number not in self._answers:
                self._check()
                self._read_or_wait()
            return self._answers.pop(number)

    def _read_or_wait(self) -> None:
        """Read, or wait for the thread that does: of several that wait for answers, one reads for
        all. With the lock held."""
        if self._reading or self._through is not None:
            self._changed.wait(LOOK)
            return
        self._reading = True
        self._changed.release()
        try:
            event: Any = next_event(self._stream, self._session)
        except Exception:  # the connection broke, or what came makes no sense
            event = None
        finally:
            self._changed.acquire()
            self._reading = False
            self._changed.notify_all()
        if not isinstance(event, Frame) or event.kind != ANSWER \
                or event.number not in self._unanswered:
            self._lost()
        self._take(event)

    def _take(self, frame: Frame) -> None:
        self._unanswered.remove(frame.number)
        self._answers[frame.number] = frame
        self._changed.notify_all()

    def _lost(self) -> None:
        self._context.cancel()
        self._stream.abort()
        raise CallCancelled("its caller has gone")

    def _check(self) -> None:
        if self._context.cancelled:
            raise CallCancelled("its caller has gone")

    def stop(self) -> None:
        """Let nothing be asked any more: the call has ended."""
        with self._changed:
            self._over = True

    def close(self) -> None:
        """Wait until all that was asked is answered, so that nothing is on its way when the
        connection gets its next call, and no thread reads from it. This does not make the caller
        wait longer: it answers before it reads the result."""
        with self._changed:
            self._over = True
            self._through = None
            self._settle()
        self._context.remove_ending(self._tell)

    def _settle(self) -> None:
        """Wait until nothing is in flight, and no thread reads."""
        try:
            while self._unanswered or self._reading:
                self._check()
                self._read_or_wait()
        except CallCancelled:
            pass  # the connection is lost, as its next user finds out


class BorrowedFunction:
    """Stands for a function of the caller's while a call runs. Any thread may call it.

    It raises what that function raises, and :exc:`net.CallCancelled` once the call is over.
    """

    def __init__(self, borrower: Borrower, number: int, name: str) -> None:
        self._borrower = borrower
        self._number = number
        self.__name__ = self.__qualname__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name, value = self._borrower.ask(Ask(self._number, list(args), kwargs))
        if name == "raised":
            raise value
        if name != "value":
            raise ProtocolError(None, "a function was answered with items", "maybe")
        return value

    def __repr__(self) -> str:
        return f"<{self.__name__}, lent by the caller>"

    def __reduce__(self) -> Any:
        raise TypeError("what a caller lends cannot be kept beyond the call")


class BorrowedIterator:
    """Stands for an iterator of the caller's while a call runs. One thread at a time."""

    def __init__(self, borrower: Borrower, number: int, name: str) -> None:
        self._borrower = borrower
        self._number = number
        self._name = name
        self._items: List[Any] = []
        self._ended = False

    def __iter__(self) -> BorrowedIterator:
        return self

    def __next__(self) -> Any:
        while not self._items:
            if self._ended:
                raise StopIteration
            name, value = self._borrower.ask(Ask(self._number, [], {}, ITEMS))
            self._ended = name != "items"
            if name == "raised":
                raise value
            if name == "value" or not value and not self._ended:
                raise ProtocolError(None, "an iterator was answered without items", "maybe")
            self._items = value[::-1]
        return self._items.pop()

    def __repr__(self) -> str:
        return f"<{self._name}, lent by the caller>"

    def __reduce__(self) -> Any:
        raise TypeError("what a caller lends cannot be kept beyond the call")
