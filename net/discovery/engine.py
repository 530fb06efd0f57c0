"""The peers beyond the networks of this host, that an engine reaches."""
from __future__ import annotations

import logging
import math
import threading
from functools import partial
from time import monotonic
from typing import Callable, Dict, Iterable, List, Optional, Set

from ..errors import Address, NetError
from ..link.carriers import Carriers
from ..log import DISCOVERY, RateLimitedLog
from ..peer import _Peer
from ..process import process
from ..run.loop import Loop
from ..settings import ENGINE_SUFFIX, settings
from .answers import Answer
from .finder import Listing, Search

note = RateLimitedLog(logging.getLogger(DISCOVERY))

#: How peers were found that the engine knows of.
FOUND = "engine"
# Seconds for a peer to identify itself, TLS handshake included.
EXPECTED_SECONDS = 2.0
# Seconds that a search waits for a router that has never been reached, and between its looks.
START_SECONDS, LOOK_SECONDS = 0.5, 0.005
# Peers whose other address is remembered.
MAX_DIRECT = 4096
# Seconds until a peer is asked again that did not identify itself, although the engine knows it.
AGAIN_SECONDS = 2.0


class Engine:
    """Asks the peers that the engine knows of. See :class:`~net.discovery.finder.Finder`.

    Who is there the routers tell; what a peer says of itself comes on a connection to it, secured
    from end to end. All but the searches in the loop's thread, and a thread that asks.
    """

    def __init__(self, loop: Loop, listing: Listing, carriers: Carriers) -> None:
        self._loop = loop
        self._listing = listing
        self._carriers = carriers
        self._until = 0.0
        self._asking = False
        self._wanted: Set[Address] = set()
        # The instances of peers that were listed at another address: a peer that is on the LAN and
        # beyond is reached directly.
        self._direct: Dict[Address, str] = {}

    # ------------------------------------------------------------------ the contract

    def search(self, search: Search) -> EngineQuest:
        reached = {instance for address, instance in list(self._direct.items())
                   if self._listing.knows(address)}
        return EngineQuest(search, self._carriers, reached | {process.instance})

    def other_way(self, address: Address) -> Optional[Address]:
        """The address at the engine of a peer that was found at another one; None if the engine
        does not know it. Any thread may call."""
        instance = self._direct.get(address)
        engine = self._carriers.engine if instance else None
        return None if engine is None else next(
            ((other + ENGINE_SUFFIX, port) for other, port in engine.present.served()
             if other == instance), None)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        return lambda: None  # its server listens at the engine, which tells that

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
            for instance, port in engine.present.served():
                self._news(instance, port, True)

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
            answers = look_at(addresses, EXPECTED_SECONDS, FOUND).answers
            self._listing.learn(answers)
        except (NetError, OSError) as problem:
            note(logging.INFO, "peers of the engine cannot be asked: %s", problem)
        finally:
            silent = addresses - {answer.address for answer in answers}
            self._soon(partial(self._asked, silent))

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
        self._given_up = search.started + START_SECONDS
        self._asked = self._engine is None
        self.due = math.inf if self._asked else search.started

    def step(self, now: float) -> None:
        engine = self._engine
        if self._asked or engine is None:
            return
        if engine.wait(0) or now >= self._given_up:
            self._asked, self.due = True, math.inf
            for instance, port in engine.present.served():
                if instance not in self._but:
                    self._search.hint((instance + ENGINE_SUFFIX, port), FOUND)
        else:
            self.due = now + LOOK_SECONDS

    def over(self, now: float) -> bool:
        return self._asked

    def close(self) -> None:
        engine = self._engine
        if engine is not None and not engine.reached():
            reason = engine.problem or ("the connection was lost" if engine.wait(0) else
                                        f"no answer within {START_SECONDS:g} s")
            self._search.report.notes.append(f"engine: no router is reached ({reason})")
