"""One search: all finders at once, in the calling thread, by one clock.

A finder yields two things: answers, which are peers already, and addresses that still have to be
asked over TCP. The latter go through one sweep, so that all finders together stay within the number
of sockets that a process may use.
"""
from __future__ import annotations

import logging
import math
from time import monotonic
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..errors import Address
from ..link import security
from ..log import SafeLog
from ..process import process
from ..settings import settings
from .answers import Answer
from .finder import Finder, Quest
from .probes import Candidate, Findings, Sweep, TICK, window
from .report import Report

log = SafeLog(__name__)

# Seconds from the start of the search after which nothing new is asked over TCP: on a machine that
# is busy with other things, this process may get its turn as late as that. And how long the search
# takes at the most, on a network that loses and delays what it carries.
LAST_START, END = 3.2, 4.0
# Seconds in which hosts that have not shown life are asked, from when they were named on; and from
# the start of the search, in which peers that were known before are.
HOSTS_SECONDS = 0.6
# Seconds between looks at whether the peers that were known before have answered, and between turns
# of a search that has nothing else to do: of many on one machine, each turn costs all of them time.
LONG_TICK, LONGEST_TICK = 0.03, 0.25
# Seconds for an address that is known to be a peer's, or most likely is.
EXPECTED_SECONDS = 0.8
# Seconds for the peers that were known before to answer the question to all, from the last answer
# on; where many search at once, until no more answers are expected.
KNOWN_LATER = 0.1


class Outcome(NamedTuple):
    """What a search found.

    :ivar own: the addresses of this host.
    :ivar gone: addresses that were known before, and refuse to answer or are no peers any more.
    :ivar silent: those that were known before and did not answer, for whatever reason.
    """

    answers: List[Answer]
    own: Set[str]
    report: Report
    gone: Set[Address] = set()
    silent: Set[Address] = set()


def search(finders: Iterable[Finder], on_host: bool = False,
           known: Iterable[Address] = ()) -> Outcome:
    """Look for peers.

    :param on_host: on this host only.
    :param known: addresses to ask besides those that the search finds.
    """
    security.credentials()  # made before the clock runs: where there is a secret, it takes 0.1 s
    return Searching(finders, on_host, list(known)).run()


class Searching:
    """The state of one search; see :class:`~net.discovery.finder.Search`. For one thread, which may
    start others."""

    def __init__(self, finders: Iterable[Finder], on_host: bool, known: List[Address]) -> None:
        self.on_host = on_host
        self.ports = settings.ports
        self.report = Report()
        self.own: List[str] = []
        self.tried: Set[Address] = set()
        self.started = self._step_started = monotonic()
        self.threads = 0 if on_host or settings.loopback_only else settings.thread_limit
        self.window = window(self.threads + 1)
        self.sweep = self.new_sweep()
        self.sweeps: List[Sweep] = [self.sweep]
        self._finders = finders
        may_reach = process.client.carriers.may_reach
        self._known = [one for one in known if may_reach(one[0])]
        self._quests: List[Quest] = []
        self._answers: Dict[Address, Answer] = {}
        self._answered = self.started
        self._hinted: Set[Address] = set()
        # What is to be done later: (monotonic time, function).
        self._schedule: List[Tuple[float, Callable[[], None]]] = []

    def run(self) -> Outcome:
        try:
            for finder in self._finders:
                self._quests.append(finder.search(self))
            self.step("asking")
            self._ask_known()
            now = monotonic()
            while not self._done(now):
                # Before the sockets are looked at: what has come by a deadline counts, however late
                # this thread gets to see it.
                now = monotonic()
                self.sweep.step(self._until_next(now))
                self._do_what_is_due(now)
                for quest in self._quests:
                    quest.step(now)
            self.step("answers")
        finally:
            self._close()
        self.report.own = self.own
        return self._collect()

    # ------------------------------------------------------------------ for the finders

    def new_sweep(self) -> Sweep:
        return self._new_sweep(self.window)

    def _new_sweep(self, window: int, beside: Optional[Sweep] = None) -> Sweep:
        return Sweep(window, self.started + LAST_START, self.tried, beside,
                     HOSTS_SECONDS)

    def sweep_beside(self) -> Sweep:
        sweep = self._new_sweep(window(1), self.sweep)
        self.sweeps.append(sweep)
        return sweep

    def found(self, answer: Answer) -> None:
        if answer.address not in self._answers:
            self._answers[answer.address] = answer
            self._answered = monotonic()

    def has(self, address: Address) -> bool:
        return address in self._answers

    def hint(self, address: Address, found: str) -> None:
        self._hinted.add(address)
        if address not in self.tried:
            self.sweep.add(Candidate(address, found, EXPECTED_SECONDS))
        else:
            self.sweep.prolong(address, EXPECTED_SECONDS)

    def later(self, when: float, action: Callable[[], None]) -> None:
        self._schedule.append((when, action))

    def step(self, name: str) -> None:
        """A step of the search has ended; the report names it."""
        now = monotonic()
        self.report.steps.append((name, now - self._step_started))
        self._step_started = now

    # ------------------------------------------------------------------ the clock

    def _ask_known(self) -> None:
        now = monotonic()
        when = self._answered + KNOWN_LATER
        if now >= when and not all(quest.over(now) for quest in self._quests):
            when = now + LONG_TICK
        if now < when:
            if any(address not in self._answers for address in self._known):
                self.later(when, self._ask_known)
            return
        if now >= self.started + HOSTS_SECONDS:
            return
        for address in self._known:
            if address not in self._answers and address not in self.tried:
                self.sweep.add(Candidate(address, "known before", EXPECTED_SECONDS))

    def _do_what_is_due(self, now: float) -> None:
        due = [action for when, action in self._schedule if when <= now]
        self._schedule = [(when, action) for when, action in self._schedule if when > now]
        for action in due:
            action()

    def _until_next(self, now: float) -> float:
        """Seconds until there is something to do, unless a socket announces it."""
        most = LONGEST_TICK if self.sweep.idle and len(self.sweeps) == 1 else TICK
        due = min([when for when, _ in self._schedule] + [one.due for one in self._quests],
                  default=math.inf)
        due = min(due, self.started + END)
        return min(most, max(0.0, due - now))

    def _done(self, now: float) -> bool:
        if now >= self.started + END:
            return True
        # Known addresses are asked again only if the search takes that long; it does not wait for
        # them.
        if self._schedule and any(address not in self._answers for address in self._known):
            return False
        return self.sweep.idle and all(quest.over(now) for quest in self._quests)

    # ------------------------------------------------------------------ the end

    def _close(self) -> None:
        for quest in self._quests:
            quest.close()
        self.sweep.close()

    def _collect(self) -> Outcome:
        total = Findings()
        for sweep in self.sweeps:
            total.merge(sweep.findings)
        report = self.report
        report.asked = {address: total.outcomes.get(address, "given up") for address in self.tried}
        for address in self._answers:
            # Whatever the outcome of the probe, it has answered.
            total.outcomes[address] = "peer"
        answers = [*self._answers.values(),
                   *(one for one in total.answers if one.address not in self._answers)]
        report.outcomes, report.left = total.outcomes, total.left
        if answers:
            report.first = min(answer.at for answer in answers) - self.started
        report.strangers = [one for one in total.strangers if one[0] not in self._answers]
        report.notes += sorted(total.notes)
        report.silent_peers = sorted(address for address in self._hinted
                                     if total.outcomes.get(address) not in ("peer", "stranger"))
        log(logging.DEBUG, "search: %s", report)
        missing = {address for address in self._known if total.outcomes.get(address) != "peer"}
        gone = {address for address in missing
                if total.outcomes.get(address) in ("refused", "stranger", "unreachable")}
        return Outcome(answers, set(self.own), report, gone, missing - gone)
