"""The LAN as a finder: searches, and the node through which peers are announced and watched."""
from __future__ import annotations

import json
import logging
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Optional

from ...errors import Address
from ...identity import without_zone
from ...log import DISCOVERY, RateLimitedLog
from ...peer import _Peer
from ...process import Process
from ...settings import ENGINE_SUFFIX
from ..answers import Answer
from ..finder import Listing, Search
from ..membership import Heard
from .beacon import Beacon, make_seal
from .datagrams import EVERYWHERE
from .node import Node

if TYPE_CHECKING:
    from .quest import LanQuest

note = RateLimitedLog(logging.getLogger(DISCOVERY))


# Seconds that closing waits for the loop, which runs at most one callback.
CLOSE_SECONDS = 0.5


class Lan:
    """Peers on this host and on the LAN. See :class:`~net.discovery.finder.Finder`."""

    def __init__(self, process: Process, listing: Listing) -> None:
        self._process = process
        self._loop = process.loop
        self._listing = listing
        self._looking_around = False
        self._start()

    def _start(self) -> None:
        self.node = Node(self._process, self._listing, self._instance(), read_facts,
                         self._look_around)

    def _instance(self) -> bytes:
        return bytes.fromhex(self._process.instance)

    def forget(self) -> None:
        self.node.abandon()
        self._looking_around = False
        self._start()

    def search(self, search: Search) -> LanQuest:
        from .quest import LanQuest  # with all that only a search needs

        return LanQuest(search, self.node, self._instance(), make_seal(), read_facts)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        if peer.server is None:
            return lambda: None
        port = peer.server.address[1]
        node = self.node
        try:
            beacon = Beacon(peer, peer.bound, port, self._instance(),
                            node.membership.sum, node.received, node.membership.asked)
            self._loop.call_soon(partial(node.add, beacon))
        except OSError as exc:
            note(logging.DEBUG, "no datagrams at port %d: %s", port, exc)
            return lambda: None

        def close() -> None:
            closed = threading.Event()

            def remove() -> None:
                node.remove(beacon)
                closed.set()

            self._soon(remove)
            if not self._loop.in_loop():
                closed.wait(CLOSE_SECONDS)
            # Once the loop says no hello for it any more; and after the server, so that a peer that
            # checks finds the port closed.
            beacon.goodbye()
        return close

    def _soon(self, action: Callable[[], None]) -> None:
        try:
            self._loop.call_soon(action)
        except OSError as exc:
            note(logging.INFO, "peers cannot be watched: %s", exc)

    def watch(self, until: float) -> None:
        self._soon(partial(self.node.watch, until))

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        # What an engine reaches has no datagrams, and the engine knows whether it is there.
        changed = partial(self.node.listed, [one for one in answers if _is_near(one.address)],
                          list(filter(_is_near, gone)))
        changed() if self._loop.in_loop() else self._soon(changed)

    def doubt(self, address: Address) -> None:
        if _is_near(address):
            self._soon(partial(self.node.doubt, address))

    def other_way(self, address: Address) -> Optional[Address]:
        return None

    def changed(self) -> None:
        self._soon(self.node.changed)

    def _look_around(self) -> None:
        """Ask all peers to answer, in the background. In the loop's thread."""
        from .around import Around

        if not self._looking_around:
            self._looking_around = True
            Around(self._loop, self._instance(), make_seal(),
                   list(self.node.membership.digests), self.node.found, self._looked_around)

    def _looked_around(self) -> None:
        self._looking_around = False


def _is_near(address: Address) -> bool:
    return not address[0].endswith(ENGINE_SUFFIX)


def read_facts(heard: Heard) -> Optional[Answer]:
    """What a datagram says, as an answer; None if TCP has to tell."""
    try:
        # As text: of bytes, json would look for other encodings each time.
        facts: Dict[str, Any] = json.loads(str(heard.facts or b"", "utf-8"))
    except (ValueError, RecursionError):
        return None
    if type(facts) is not dict:
        return None
    if not heard.flags & EVERYWHERE and facts.get("host") != without_zone(heard.address[0]):
        # It serves at another address than its datagrams come from, or than another peer knows it
        # by.
        return None
    facts["instance"] = heard.instance.hex()
    return Answer(heard.address, facts, "datagram", heard.seconds, monotonic(), "", heard,
                  len(heard.facts or b""))
