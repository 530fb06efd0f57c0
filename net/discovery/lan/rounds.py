"""When a question to everybody is asked again, and when it has been asked often enough.

No socket, no clock. The number of peers is not known, so a search can only adapt to the answers: it
waits as long as they have taken so far, and asks as often as their loss makes necessary. Peers that
have answered are named in the next question, and do not answer again. So on a calm network the
second and third question cost next to nothing, and on a bad one nobody is missed.
"""
from __future__ import annotations

import math
from bisect import bisect_left
from random import Random
from typing import Dict, Iterable, List, Optional, Tuple

from ...errors import Address
from .datagrams import NONCE_BYTES

# Seconds from one question to the next: at first and at most. In between, each is GROWTH times the
# one before, which carries them over a moment in which everything is lost. Never less than answers
# take.
FIRST_PAUSE, GROWTH, LAST_PAUSE = 0.02, 1.3, 0.3
# When questions are asked while nobody has answered, in seconds from the start: the first may have
# been lost, or the network is slow, or the peers are busy with the questions of others.
UNANSWERED = (0.0, 0.1, 0.25, 0.45, 0.7)
# Seconds that a search waits for the first answer: where the network is known to be quick, because
# hosts on it have shown that in another way, and where nothing is known of it.
NOBODY_QUICK, NOBODY = 0.25, 0.9
# How much longer all this takes for each other process that searches at the same time.
PER_OTHER = 0.02
# Seconds that an answer may take after others have come.
MIN_WAIT, MAX_WAIT = 0.02, 1.0
# How much longer than the slowest answer so far the next one may take.
SLOWER = 1.25
# Questions in all: at least, and at most. In between, as many as leave this risk of missing a peer
# that loses as many datagrams as those that have answered.
MIN_ROUNDS, MAX_ROUNDS, RISK = 2, 24, 0.002
# Losses that are added to those that were seen: some eighty answers without one are enough to ask
# no third time.
UNSEEN = 0.4
# Seconds after which a question is asked again that has not left this host.
DROPPED_PAUSE = 0.1
# Seconds that a search asks at all.
END = 3.5


class Rounds:
    """The rounds of one question. For one thread.

    :param now: seconds, monotonic, like all times here.
    :param crowd: how many others ask at the same time. Answers take longer then.
    :param expected: whether it is worth waiting for the first answer.
    :ivar crowd: may be set anew at any time.
    :ivar quick: whether the network is known to be quick.
    """

    def __init__(self, now: float, random: Optional[Random] = None, crowd: int = 0,
                 expected: bool = True) -> None:
        # Each address that has answered: the first question that it answered, and how many before
        # that one it did not answer.
        self._first: Dict[Address, Tuple[int, int]] = {}
        self.quick = not expected
        self.crowd = crowd
        self._random = random or Random()
        self._began = now
        self._end = now + END
        # The questions, by nonce: the number of each, and when it was asked.
        self._asked: Dict[bytes, Tuple[int, float]] = {}
        self._times: List[float] = []
        self._mean = self._deviation = self._slowest = 0.0
        # Questions to addresses that have answered, from when they were there until their answer:
        # how many were in vain, and how many there were.
        self._vain = self._tries = 0
        # When the next question is due; None for not yet planned since something was heard.
        self._due: Optional[float] = now
        # Until when answers to the last question to some are waited for.
        self._some_until = now

    def ask(self, now: float) -> bytes:
        """The nonce of a question that is sent now."""
        nonce = self._new_nonce(now)
        self._times.append(now)
        self._due = None
        return nonce

    def ask_some(self, now: float) -> bytes:
        """The nonce of a question to some that have come since the last one to all. Their answers
        are waited for as well."""
        nonce = self._new_nonce(now)
        wait = self.wait
        if not self._first:
            wait = min(wait, NOBODY_QUICK * (1 + self.crowd * PER_OTHER))
        self._some_until = min(self._end, now + wait)
        return nonce

    def _new_nonce(self, now: float) -> bytes:
        nonce = self._random.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        self._asked[nonce] = len(self._times), now
        return nonce

    def dropped(self) -> None:
        """The question to all that was asked last has not left this host: it does not count, and
        is asked again. Peers of this host may answer it, and those that are asked one by one."""
        self._due = self._times.pop() + DROPPED_PAUSE
        if not self._times:
            self._began = self._due

    def heard(self, nonce: bytes, address: Address, now: float,
              near: bool = False, age: float = math.inf) -> Optional[float]:
        """An address has answered; return the seconds that it took, or None if it was not asked.

        :param near: whether its answer says nothing about the network, as on this host.
        :param age: seconds for which it has been there. What was asked before that does not count
            as lost.
        """
        number, asked = self._asked.get(nonce, (-1, 0.0))
        if number < 0:
            return None
        seconds = now - asked
        if near:
            return seconds
        before = self._first.get(address)
        if before is None:
            if not self._first:
                self._mean, self._deviation = seconds, seconds / 2
            else:
                self._deviation += (abs(seconds - self._mean) - self._deviation) / 4
                self._mean += (seconds - self._mean) / 8
        elif number >= before[0]:
            return seconds
        else:
            # Overtaken, not lost.
            self._vain -= before[1]
            self._tries -= before[1] + 1
        vain = max(0, number - bisect_left(self._times, now - age))
        self._first[address] = number, vain
        self._slowest = max(self._slowest, seconds)
        self._vain += vain
        self._tries += vain + 1
        self._due = None
        return seconds

    @property
    def answered(self) -> Iterable[Address]:
        """The addresses that have answered."""
        return self._first

    @property
    def mean(self) -> float:
        """Seconds that an answer takes on average; 0 before the first."""
        return self._mean

    @property
    def loss(self) -> float:
        """The share of questions that came to nothing, to addresses that have answered in the
        end."""
        return self._vain / self._tries if self._tries else 0.0

    @property
    def wait(self) -> float:
        """Seconds that an answer may take."""
        if not self._first:
            return (NOBODY_QUICK if self.quick else NOBODY) * (1 + self.crowd * PER_OTHER)
        return min(MAX_WAIT * (1 + self.crowd * PER_OTHER),
                   max(MIN_WAIT, self._mean + 4 * self._deviation, SLOWER * self._slowest))

    @property
    def _needed(self) -> int:
        """Questions after which nobody is missed any more."""
        count = len(self._first)
        if not count:
            return len(UNANSWERED)
        # Few answers say little about loss, so a part of one is added to what they say.
        loss = min(0.9, (self._vain + UNSEEN) / (self._tries + UNSEEN))
        # Where many ask, each question costs everybody: a slip is mended by the peers themselves.
        risk = RISK * (1 + self.crowd / 8) / count
        return min(MAX_ROUNDS, max(MIN_ROUNDS, math.ceil(math.log(risk) / math.log(loss))))

    @property
    def due(self) -> float:
        """When the next question is due; infinity for none."""
        # Planned when it is asked for, once for many answers that come together.
        if self._due is None:
            self._due = self._plan()
        return self._due

    def _plan(self) -> float:
        number = len(self._times)
        if not self._first:
            if number >= len(UNANSWERED):
                return math.inf
            return self._began + UNANSWERED[number] * (1 + self.crowd * PER_OTHER)
        if number >= self._needed:
            return math.inf
        pause = min(LAST_PAUSE, FIRST_PAUSE * GROWTH ** (number - 1))
        pause = max(pause, min(MAX_WAIT, self._mean)) * (1 + self._random.random() / 4)
        return (self._times[-1] if self._times else self._began) + pause

    @property
    def ends(self) -> float:
        """When nobody else is coming, if nobody comes until then."""
        if not self._first:
            return max(self._some_until, min(self._end, self._began + self.wait))
        needed = self._needed
        return self._end if len(self._times) < needed \
            else max(self._some_until, min(self._end, self._times[needed - 1] + self.wait))

    def over(self, now: float) -> bool:
        """Whether nobody else is coming."""
        return now >= self.ends
