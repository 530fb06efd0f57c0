"""What this process hears of one publisher, and what it missed. No socket, thread or clock."""
from __future__ import annotations

import functools
import itertools
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Set

from ..errors import ProtocolError
from ..wire.deliveries import Entry, Pair
from ..wire.frames import MAX_NUMBER


class Item(NamedTuple):
    """Something for a handler: an event, or that it missed some.

    :ivar args: None for a gap; ``kwargs`` is then the number of events missed, or None if that
        cannot be told.
    """

    pair: Pair
    args: Optional[List[Any]]
    kwargs: Any


#: ``Item._make`` without its function in Python.
make_item: Callable[[Any], Item] = functools.partial(tuple.__new__, Item)


class Subscription:
    """What is heard at one address, over one connection after the other.

    :ivar instance: the random id of the process that was there last; None before the first.
    :ivar elsewhere: what is heard over another connection to the same process.
    """

    def __init__(self) -> None:
        self.instance: Optional[str] = None
        self.elsewhere: Set[Pair] = set()
        # The last event that a handler heard before a connection ended; None when the process
        # ended, so that nobody knows what it triggered since.
        self._stopped: Dict[Pair, Optional[int]] = {}
        self._requests = itertools.count(1)
        self._pending: Dict[int, Pair] = {}
        # Requests to which the last connection brought no answer before it ended.
        self._unanswered: Set[Pair] = set()
        # For this connection: event -> handler -> the number of the last event that it does not
        # hear.
        self._heard: Dict[str, Dict[Pair, int]] = {}
        # Event -> the number of the last one that came, for each that was ever asked for here.
        self._last: Dict[str, int] = {}
        self._frames = 0

    # --------------------------------------------------------------------- connections

    def begin(self, instance: str, others: Iterable[Subscription] = ()) -> None:
        """There is a connection to a process at this address now.

        :param instance: the random id that the process gives.
        :param others: those of other addresses, at which the same process may have been heard.
        """
        if self.instance != instance:
            self._stopped = dict.fromkeys(self._stopped)
        for other in others:
            if other.instance == instance and other is not self:
                # A copy, since anybody can tell this id: if it was not the same process, the other
                # one still knows what was missed there.
                for pair, number in other._stopped.items():
                    self._stopped.setdefault(pair, number)
        self.instance = instance
        self.elsewhere.clear()

    def follow(self, other: Subscription) -> bool:
        """The connection of another address has ended; return whether something that is wanted
        here, too, was heard there, or about to be."""
        heard = self.elsewhere & other._stopped.keys()
        missing = heard | self.elsewhere & other._unanswered
        self._stopped.update({pair: other._stopped[pair] for pair in heard})
        self.elsewhere -= missing
        return bool(missing)

    def end(self) -> None:
        """The connection has ended."""
        for event, starts in self._heard.items():
            last = self._last[event]
            self._stopped.update({pair: max(last, start) for pair, start in starts.items()})
        self._unanswered = set(self._pending.values())
        self._pending.clear()
        self._heard.clear()
        self._last.clear()
        self._frames = 0

    # ------------------------------------------------------------------- subscriptions

    @property
    def pairs(self) -> Set[Pair]:
        """What is heard over this connection."""
        return {pair for starts in self._heard.values() for pair in starts}

    @property
    def pending(self) -> Set[Pair]:
        """What has been asked for, but not answered yet."""
        return set(self._pending.values())

    def knows(self, pair: Pair) -> bool:
        """Whether a handler hears an event here, or did."""
        return pair in self._heard.get(pair[0], ()) or pair in self._stopped \
            or pair in self.elsewhere or pair in self._pending.values()

    def next_number(self) -> int:
        """The number for a request."""
        return next(self._requests) & MAX_NUMBER

    def ask(self, pair: Pair) -> int:
        """The number for a request that has a handler hear an event."""
        number = self.next_number()
        self._pending[number] = pair
        self._last.setdefault(pair[0], 0)
        return number

    def answered(self, number: int, sequence: Optional[int]) -> List[Item]:
        """A request was answered.

        :param sequence: the number of the last event that the handler does not hear; None if it
            hears them over another connection to the same process.
        :returns: the gap before it, if there is one.
        :raises ProtocolError: no request has this number.
        """
        pair = self.refused(number)
        last = self._stopped.pop(pair, sequence)
        if sequence is None:
            self.elsewhere.add(pair)
            return []
        self._heard.setdefault(pair[0], {})[pair] = sequence
        if last == sequence:
            return []
        # A process whose numbers go down is not the one that it claims to be.
        missed = sequence - last if last is not None and last < sequence else None
        return [Item(pair, None, missed)]

    def refused(self, number: int) -> Pair:
        """A request was refused.

        :returns: what it asked for.
        :raises ProtocolError: no request has this number.
        """
        pair = self._pending.pop(number, None)
        if pair is None:
            raise ProtocolError(None, "a reply to a request that was not sent")
        return pair

    def keep(self, pairs: Set[Pair]) -> List[Pair]:
        """Only these are wanted from here on; the others hear no more and miss nothing.

        :returns: the others, of which the publisher has to be told.
        """
        self.elsewhere &= pairs
        for pair in self._stopped.keys() - pairs:
            del self._stopped[pair]
        dropped = self.pairs - pairs
        for pair in dropped:
            del self._heard[pair[0]][pair]
        return sorted(dropped)

    # -------------------------------------------------------------------------- events

    def check_frame(self, number: int) -> None:
        """An EVENT frame has come.

        :raises ProtocolError: it is not the next one.
        """
        self._frames = (self._frames + 1) & MAX_NUMBER
        if number != self._frames:
            raise ProtocolError(None, f"EVENT frame {number} comes in the place of {self._frames}")

    def read(self, entries: Iterable[Entry]) -> List[Item]:
        """What an EVENT frame holds for the handlers.

        :raises ProtocolError: not what a publisher sends.
        """
        items: List[Item] = []
        for name, sequence, args, kwargs in entries:
            last = self._last.get(name)
            if last is None or sequence <= last:
                raise ProtocolError(None, "an event that was not asked for, or not in its order")
            self._last[name] = sequence
            starts = self._heard.get(name, {})
            if sequence != last + 1:
                for pair, start in starts.items():
                    before = max(last, start)
                    if before < sequence - 1:
                        items.append(make_item((pair, None, sequence - before - 1)))
            for pair, start in starts.items():
                # Events that were on their way when a subscription began are not part of it.
                if start < sequence:
                    items.append(make_item((pair, args, kwargs)))
        return items
