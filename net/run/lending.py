"""What a call lends: functions and iterators of the caller that the served function uses.

They stay where they are. The served function gets stand-ins, and using one asks the caller over
the connection of the call (ASK, ANSWER), where the thread that waits for the call does the work.
When the call has ended, the stand-ins raise.
"""
from __future__ import annotations

import io
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..context import Context
from ..errors import CallCancelled, NetError, ProtocolError, ValueNotSupported
from ..identity import printable
from ..link.streams import Stream
from ..wire.checks import Malformed, a_list, a_text, a_whole
from ..wire.failures import describe
from ..wire.frames import Buffer, Frame
from ..wire.limits import Limits
from ..wire.messages import (Ask, decode_answer, decode_ask, encode_answer, encode_ask)
from ..wire.session import Session
from ..wire.values import Packer
from .reading import next_event

# What one call may lend.
MAX_LENT = 1000
# Items that are asked for at a time. Of iterators over what is there already they come together;
# of a generator one by one, since its next item may take long.
ITEMS = 64
# Seconds between looks whether the caller is still there, for those who wait for others to read.
LOOK = 0.25
_EXAMPLES: Tuple[Any, ...] = ([], (), {}, {}.items(), {}.values(), range(0), "", set())
_READY: Tuple[Any, ...] = (*(type(iter(one)) for one in _EXAMPLES), io.IOBase)


class Lender(Packer):
    """The caller's side: packs arguments, lends what cannot travel, and does what is asked."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._lent: List[Any] = []

    def lend(self, value: Any) -> Optional[List[Any]]:
        if hasattr(type(value), "__next__"):
            kind = "iterator"
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
        """Do what an ASK wants. What a lent function raises travels; Ctrl-C does not."""
        number = frame.number
        ask = decode_ask(frame, self._limits)
        if not 0 <= ask.lent < len(self._lent):
            raise ProtocolError(None, "something was asked for that the call has not lent")
        value = self._lent[ask.lent]
        try:
            if ask.items is None:
                return encode_answer(number, "value", value(*ask.args, **ask.kwargs),
                                     self._limits)
            return self._items(number, value, ask.items)
        except Exception as problem:
            return self._raised(number, problem)

    def _items(self, number: int, iterator: Any, most: int) -> List[Buffer]:
        many = min(most, ITEMS) if isinstance(iterator, _READY) else 1
        items: List[Any] = []
        for item in iterator:
            items.append(item)
            if len(items) >= many:
                return encode_answer(number, "items", items, self._limits)
        return encode_answer(number, "last", items, self._limits)

    def _raised(self, number: int, problem: Exception) -> List[Buffer]:
        try:
            return encode_answer(number, "raised", describe(problem), self._limits)
        except NetError:
            return encode_answer(number, "raised", describe(problem, brief=True), self._limits)


class Borrower:
    """The server's side of one call: makes stand-ins, and asks for them. Any thread may ask.

    :param context: of the call, which is cancelled when the caller has gone.
    """

    def __init__(self, stream: Stream, session: Session, context: Context, limits: Limits) -> None:
        self._stream = stream
        self._session = session
        self._context = context
        self._limits = limits
        # Guards what follows, and sending; told when an answer has come.
        self._changed = threading.Condition()
        self._asked = 0
        self._answers: Dict[int, Frame] = {}
        self._reading = False
        self._over = False
        # While the result is streamed the loop reads, and sends what we ask.
        self._through: Optional[Callable[[List[Buffer]], None]] = None

    def borrow(self, content: Any) -> Any:
        """What stands here for something that is lent.

        :raises Malformed: no description of such a thing.
        """
        number, kind, name = a_list(content, 3, 3)
        number, kind, name = a_whole(number), a_text(kind), printable(a_text(name))
        if kind == "iterator":
            return BorrowedIterator(self, number, name)
        if kind != "function":
            raise Malformed("a function or an iterator is lent")
        return BorrowedFunction(self, number, name)

    def go_through(self, send: Callable[[List[Buffer]], None]) -> None:
        """Ask by a function from now on, and wait for :meth:`answered`."""
        with self._changed:
            self._through = send

    def answered(self, frame: Frame) -> None:
        """An answer has come. What was not asked for ends the call.

        :raises ProtocolError: it was not.
        """
        with self._changed:
            if not 0 < frame.number <= self._asked or frame.number in self._answers:
                raise ProtocolError(None, "an answer to nothing")
            self._answers[frame.number] = frame
            self._changed.notify_all()

    def ask(self, ask: Ask) -> Any:
        """Ask the caller, and wait for what it says.

        :raises CallCancelled: the call is over, or its caller has gone.
        """
        with self._changed:
            self._check()
            self._asked += 1
            number = self._asked
            message = encode_ask(number, ask, self._limits)
            try:
                (self._through or self._stream.send)(message)
            except OSError:
                self._lost()
        return decode_answer(self._wait(number), self._limits)

    def _wait(self, number: int) -> Frame:
        """Of several threads that wait for answers, one reads for all."""
        with self._changed:
            while number not in self._answers:
                self._check()
                if self._reading or self._through is not None:
                    self._changed.wait(LOOK)
                    continue
                self._reading = True
                self._changed.release()
                try:
                    frame = self._read()
                finally:
                    self._changed.acquire()
                    self._reading = False
                    self._changed.notify_all()
                if frame is not None:
                    self._answers[frame.number] = frame
            return self._answers.pop(number)

    def _read(self) -> Optional[Frame]:
        try:
            event: Any = next_event(self._stream, self._session)
        except Exception:  # the connection broke, or what came makes no sense
            event = None
        if type(event) is not Frame or not 0 < event.number <= self._asked \
                or event.number in self._answers:
            self._lost()
        return event  # type: ignore[no-any-return]

    def _lost(self) -> None:
        self._context.cancel()
        self._stream.abort()
        raise CallCancelled("its caller has gone")

    def _check(self) -> None:
        if self._over:
            raise CallCancelled("what was lent can be used only while the call runs", "no")
        if self._context.cancelled:
            raise CallCancelled("its caller has gone")

    def close(self) -> None:
        """The call has ended: nothing can be asked any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class BorrowedFunction:
    """Stands for a function of the caller's while a call runs. Any thread may call it.

    It raises what that function raises, and :exc:`net.CallCancelled` when the call is over.
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


#: Makes what stands for an argument that is lent.
Borrow = Callable[[Any], Any]
