"""The peers beyond the networks of this host, which an engine reaches."""
from __future__ import annotations

import logging
import math
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Optional, Set

from ..errors import Address, NetError
from ..link.carriers import Carriers
from ..log import DISCOVERY, RateLimitedLog
from ..peer import _Peer
from ..process import process
from ..run.loop import Loop
from ..settings import ENGINE_SUFFIX, settings
from .answers import Answer
from .finder import Listing, Search
from .sealed import Answering, Question, make_seal

if TYPE_CHECKING:
    from ..link.zenoh import ZenohCarrier

note = RateLimitedLog(logging.getLogger(DISCOVERY))

#: How peers were found that the engine knows of.
FOUND = "engine"
# Seconds for a peer to identify itself, TLS handshake included.
EXPECTED_SECONDS = 2.0
# Seconds for the answers to a question; a peer without one by then is asked on a connection. And
# seconds from the start of a search after which that begins at the latest.
ANSWER_SECONDS, LAST_START = 0.3, 0.55
# Peers that are asked one by one; with more of them, all are.
ONE_BY_ONE = 8
# Seconds that a search waits for a router that has never been reached, and between its looks.
START_SECONDS, LOOK_SECONDS = 0.5, 0.005
# Peers whose other address is remembered.
MAX_DIRECT = 4096
# Seconds until a peer is asked again that did not identify itself, although the engine knows it.
AGAIN_SECONDS = 2.0


class Engine:
    """Asks the peers that the engine knows of. See :class:`~net.discovery.finder.Finder`.

    The routers tell which peers there are. What a peer says about itself is sealed with the secret;
    under certificates, and where an answer is missing, the peer is asked on a connection, which is
    secured from end to end. A search runs in the thread that searches, other questions in a thread
    of their own, and the rest in the loop's thread.
    """

    def __init__(self, loop: Loop, listing: Listing, carriers: Carriers) -> None:
        self._loop = loop
        self._listing = listing
        self._carriers = carriers
        self._until = 0.0
        self._asking = False
        self._wanted: Set[Address] = set()
        self._answering = Answering()
        # The instances of peers that were listed at another address: a peer that is on the LAN and
        # beyond is reached directly.
        self._direct: Dict[Address, str] = {}

    # ------------------------------------------------------------------ the contract

    def search(self, search: Search) -> EngineQuest:
        return EngineQuest(search, self._carriers, self._reached())

    def _reached(self) -> Set[str]:
        """The instances that need not be asked: this process, and those that are reached directly.
        """
        return {process.instance, *(instance for address, instance in list(self._direct.items())
                                    if self._listing.knows(address))}

    def other_way(self, address: Address) -> Optional[Address]:
        """The address at the engine of a peer that was found at another one; None if the engine
        does not know it. Any thread may call."""
        instance = self._direct.get(address)
        engine = self._carriers.engine if instance else None
        return None if engine is None else next(
            ((other + ENGINE_SUFFIX, port) for other, port in engine.present.served()
             if other == instance), None)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        # The engine itself makes the peer known, since its server listens there.
        engine = self._carriers.engine
        if engine is None:
            return lambda: None
        self._answering.add(peer)
        engine.answer = self._answering.answer
        return partial(self._answering.remove, peer)

    def watch(self, until: float) -> None:
        if settings.has_engine:
            self._soon(partial(self._keep, until))

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        if settings.has_engine:
            self._soon(partial(self._follow, list(answers), list(gone)))

    def doubt(self, address: Address) -> None:
        pass  # a router tells if it is gone

    def changed(self) -> None:
        engine = self._carriers.engine
        if engine is not None:
            engine.changed()

    def forget(self) -> None:
        self.__init__(self._loop, self._listing, self._carriers)  # type: ignore[misc]

    # ------------------------------------------------------------------ in the loop's thread

    def _soon(self, action: Callable[[], None]) -> None:
        try:
            self._loop.call_soon(action)
        except OSError as problem:
            note(logging.INFO, "peers of the engine cannot be watched: %s", problem)

    def _keep(self, until: float) -> None:
        self._until = until
        engine = self._carriers.engine
        if engine is not None and monotonic() < until:
            engine.present.heard = self._heard
            reached = self._reached()
            there = {(instance + ENGINE_SUFFIX, port)
                     for instance, port in engine.present.served() if instance not in reached}
            self._wanted |= {one for one in there if not self._listing.knows(one)}
            self._ask_wanted()

    def _heard(self, instance: str, port: int, came: bool) -> None:
        """In a thread of the engine."""
        if port:
            self._soon(partial(self._news, instance, port, came))

    def _news(self, instance: str, port: int, came: bool) -> None:
        address = instance + ENGINE_SUFFIX, port
        if not came:
            self._wanted.discard(address)
            if self._listing.knows(address):
                self._listing.drop(address)
        elif monotonic() < self._until and instance != process.instance:
            self._wanted.add(address)
            self._ask_wanted()

    def _follow(self, answers: List[Answer], gone: List[Address]) -> None:
        """The list has changed."""
        for answer in answers:
            if not answer.address[0].endswith(ENGINE_SUFFIX) and type(answer.facts) is dict:
                self._direct.pop(answer.address, None)
                self._direct[answer.address] = str(answer.facts.get("instance", ""))
        while len(self._direct) > MAX_DIRECT:
            del self._direct[next(iter(self._direct))]
        for address in gone:
            other = self.other_way(address)
            if other is not None:  # the direct way is gone, this one is not
                self._wanted.add(other)
        self._ask_wanted()

    # ------------------------------------------------------------------ asking

    def _ask_wanted(self) -> None:
        if self._asking or not self._wanted:
            return
        wanted, self._wanted = self._wanted, set()
        try:
            threading.Thread(target=self._ask, args=(wanted,), name="net-engine-asks",
                             daemon=True).start()
            self._asking = True
        except RuntimeError as problem:  # can't start new thread
            note(logging.INFO, "peers of the engine cannot be asked: %s", problem)

    def _ask(self, addresses: Set[Address]) -> None:
        """In a thread of its own."""
        from .probes import look_at  # with all that searching needs

        answers: List[Answer] = []
        try:
            answers = self._answers_of(addresses)
            silent = addresses - {answer.address for answer in answers}
            if silent:
                answers += look_at(silent, EXPECTED_SECONDS, FOUND).answers
            self._listing.learn(answers)
        except (NetError, OSError) as problem:
            note(logging.INFO, "peers of the engine cannot be asked: %s", problem)
        finally:
            silent = addresses - {answer.address for answer in answers}
            self._soon(partial(self._asked, silent))

    def _answers_of(self, addresses: Set[Address]) -> List[Answer]:
        """The answers of these to a question; there are none of those that stay silent."""
        engine, seal = self._carriers.engine, make_seal()
        if engine is None or seal is None:
            return []
        asked = sorted({host[:-len(ENGINE_SUFFIX)] for host, _ in addresses})
        question = Question(engine.ask, seal, asked if len(asked) <= ONE_BY_ONE else [], FOUND)
        found = question.wait(addresses, ANSWER_SECONDS)
        return [answer for answer in found if answer.address in addresses]

    def _asked(self, silent: Set[Address]) -> None:
        self._asking = False
        if silent:
            self._loop.call_later(AGAIN_SECONDS, partial(self._again, silent))
        self._ask_wanted()

    def _again(self, silent: Set[Address]) -> None:
        engine = self._carriers.engine
        for instance, port in engine.present.served() if engine is not None else ():
            if (instance + ENGINE_SUFFIX, port) in silent:
                self._news(instance, port, True)


class EngineQuest:
    """The engine's part in one search.

    :param but: the instances that it need not ask.
    """

    def __init__(self, search: Search, carriers: Carriers, but: Set[str]) -> None:
        self._search = search
        self._engine = None if search.on_host else carriers.engine
        self._but = but
        if carriers.why_none:
            search.report.notes.append(f"engine: {carriers.why_none}")
        # Until when it waits for a router, and then for answers.
        self._until = search.started + START_SECONDS
        self._seal = make_seal() if self._engine is not None else None
        self._question: Optional[Question] = None
        self._missing: Set[Address] = set()
        self._done = self._engine is None
        self.due = math.inf if self._done else search.started

    def step(self, now: float) -> None:
        engine = self._engine
        if engine is None:
            return
        if self._question is not None:
            self._read()
        elif not self._done and (engine.wait(0) or now >= self._until):
            self._ask(engine, now)
        if not self._done and self._question is not None and (
                not self._missing or now >= self._until):
            self._connect()
        self.due = math.inf if self._done else now + LOOK_SECONDS

    def _ask(self, engine: ZenohCarrier, now: float) -> None:
        self._missing = {(instance + ENGINE_SUFFIX, port)
                         for instance, port in engine.present.served() if instance not in self._but}
        if self._seal is None or not self._missing:
            self._connect()
            return
        self._until = min(now + ANSWER_SECONDS, self._search.started + LAST_START)
        self._question = Question(engine.ask, self._seal, [], FOUND)

    def _read(self) -> None:
        """Take the answers that have come, also from peers that are asked on a connection
        meanwhile."""
        assert self._question is not None
        for answer in self._question.read():
            if answer.facts["instance"] not in self._but:
                self._missing.discard(answer.address)
                self._search.found(answer)

    def _connect(self) -> None:
        """Have the peers that have not answered asked on a connection."""
        self._done = True
        for address in sorted(self._missing):
            self._search.hint(address, FOUND)

    def over(self, now: float) -> bool:
        return self._done

    def close(self) -> None:
        engine = self._engine
        if engine is not None and not engine.reached():
            reason = engine.problem or ("the connection was lost" if engine.wait(0) else
                                        f"no answer within {START_SECONDS:g} s")
            self._search.report.notes.append(f"engine: no router is reached ({reason})")
        elif engine is not None and engine.shut_out:
            self._search.report.notes.append(f"engine: {engine.shut_out}")
