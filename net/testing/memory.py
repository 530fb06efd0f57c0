"""A network within this process: peers in memory, and what finds them."""
from __future__ import annotations

import copy
import json
import os
import threading
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from .. import events
from ..context import current
from ..discovery import known_peers
from ..discovery.answers import Answer
from ..discovery.finder import Listing, Search
from ..errors import Address
from ..events.publishing import Publisher
from ..link.base import Endpoint, Listener
from ..link.memory import HOST
from ..peer import FriendlyId, _Peer, existing_peer
from ..process import process
from ..run.client import Client
from ..run.loop import Loop, Timer
from ..settings import settings
from ..wire.session import encode_preface
from .faults import FaultyCarrier, FaultyPeer, Faults

# Seconds until a killed peer is missed without a call to it; on a LAN that takes up to three.
MISSED_SECONDS = 1.0
# Seconds that a search waits for answers that are late; as long as on this host's network.
PATIENCE = 0.25


class MemoryPeer(FaultyPeer):
    """A peer within this process that stands for a process of its own: it has its own instance,
    description and subscribers. Functions, variables and settings are those of this process.

    :param values: the settings that it has for itself.
    :param instance: its random id; for the peer that stands for the test that of this process.
    """

    source = HOST, 1

    def __init__(self, values: Dict[str, Any], instance: str) -> None:
        super().__init__(launch=False, test=True, group=values.get("group"))
        self._values = values
        self.instance = instance
        #: The servers that it has had so far.
        self.servers: List[Any] = []
        #: Makes the calls of the functions that are called through it.
        self.client = process.client
        if instance != process.instance:
            self.client = _Deputy(self)
            self.SUBSCRIPTIONS = {}
            self.publisher = Publisher(self.SUBSCRIPTIONS, process.loop, settings,
                                       events.own_events().places)

    def launch(self) -> _Peer:
        super().launch()
        self.servers.append(self.server)
        return self

    def _endpoints(self) -> List[Listener]:
        self.bound = [HOST]
        carrier = process.client.carriers.memory
        return [carrier.listen(Endpoint(carrier.name, HOST, 0), settings.backlog)]

    @property
    def hub(self) -> bool:
        return bool(self._values.get("is_hub", False))

    @property
    def friendly_id(self) -> FriendlyId:
        found = super().friendly_id
        found["facts"] = self._values.get("facts", {})
        if self._values.get("name") is not None:
            found["label"] = self._values["name"]
        return found

    def close_connections(self) -> None:
        """End all connections, those to it and its own, and leave none for another call."""
        self.faults.end_connections()
        self.client.close_idle()
        for loop, pools in list(self.client.by_loop.items()):
            try:
                loop.call_soon_threadsafe(pools.close)
            except RuntimeError:
                pass  # it has ended, and has closed them

    def abandon(self) -> None:
        super().abandon()
        if self.client is not process.client:
            self.client.forget()
        if self.publisher is not None:
            self.publisher.forget()


class _Deputy(Client):
    """Makes the calls of the functions that are called through a peer, by the network of that
    peer."""

    def __init__(self, peer: MemoryPeer) -> None:
        super().__init__(settings, process.loop)
        everybodys = process.client
        self._peer = peer
        self.instance = peer.instance
        self.missed, self.other_way = everybodys.missed, everybodys.other_way
        self.old_tag = everybodys.old_tag
        everybodys.carriers.memory  # so that the copy has the same one
        self.carriers = copy.copy(everybodys.carriers)
        self.carriers.through = partial(FaultyCarrier, peer.faults)

    def preface(self, to: Optional[Address] = None) -> bytes:
        return encode_preface(self._peer.group, instance=self.instance, to=to)


def _acting() -> Client:
    """The client that makes the calls of the running function: that of the peer which it was called
    through, even if that was killed, or that of this process."""
    context = current()
    if context is not None and context.server is not None:
        for peer in list(process.peers):
            if isinstance(peer, MemoryPeer) and context.server in peer.servers:
                peer.client.own_loop = process.client.own_loop
                return peer.client
    return process.client


class MemoryFinder:
    """Finds the peers in memory of one network. See :class:`~net.discovery.finder.Finder`.

    A peer that comes is listed at once, and dropped when it goes, as by the announcements of a LAN.
    A search asks each, and waits for as long as the faults of that peer make it.
    """

    def __init__(self, loop: Loop, listing: Listing) -> None:
        self._loop = loop
        self._listing = listing
        self._lock = threading.Lock()  # guards changes of what follows
        # Replaced, never changed: any thread may look.
        self.members: Dict[Address, FaultyPeer] = {}
        self._missed: List[Timer] = []

    def search(self, search: Search) -> MemoryQuest:
        search.own.append(HOST)
        return MemoryQuest(search, self.members)

    def announce(self, peer: _Peer) -> Callable[[], None]:
        if peer is process.peer or peer.place is None or not isinstance(peer, FaultyPeer):
            return lambda: None  # a search does not find its own process
        with self._lock:
            self.members = {**self.members, peer.place: peer}
        self._listing.learn([answer_of(peer, peer.place)])
        return partial(self._leave, peer.place, peer.faults)

    def _leave(self, place: Address, faults: Faults) -> None:
        with self._lock:
            self.members = {one: peer for one, peer in self.members.items() if one != place}
        if not faults.cut:
            self._listing.drop(place)
        else:
            # Its goodbye does not get through.
            self._missed.append(self._loop.call_later(
                MISSED_SECONDS, partial(self._listing.drop, place)))

    def close(self) -> None:
        """Stop waiting for peers to be missed."""
        for timer in self._missed:
            timer.cancel()

    def watch(self, until: float) -> None:
        pass  # the list is always kept true

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        pass

    def doubt(self, address: Address) -> None:
        if address not in self.members:
            self._listing.drop(address)

    def other_way(self, address: Address) -> Optional[Address]:
        return None

    def changed(self) -> None:
        self._listing.learn([answer_of(peer, place) for place, peer in self.members.items()
                             if peer.launched])

    def forget(self) -> None:
        self.__init__(self._loop, self._listing)  # type: ignore[misc]


class MemoryQuest:
    """One search of the peers in memory."""

    def __init__(self, search: Search, members: Dict[Address, FaultyPeer]) -> None:
        self._search = search
        self._members = members
        # When the answer of each arrives: after a question and an answer were on their way.
        self._coming: List[Tuple[float, Address]] = []
        for place, peer in members.items():
            late = peer.faults.lateness() + peer.faults.lateness()
            if peer.faults.passes_datagrams and late < PATIENCE:
                self._coming.append((search.started + late, place))
        self._coming.sort()

    @property
    def due(self) -> float:
        return self._coming[0][0] if self._coming else float("inf")

    def step(self, now: float) -> None:
        while self.due <= now:
            _, place = self._coming.pop(0)
            peer = self._members[place]
            if peer.launched and peer.faults.passes_datagrams:
                self._search.found(answer_of(peer, place, now - self._search.started))

    def over(self, now: float) -> bool:
        return not self._coming

    def close(self) -> None:
        pass


def answer_of(peer: FaultyPeer, place: Address, seconds: float = 0.0) -> Answer:
    """What a peer says about itself, as others read it."""
    text = json.dumps(peer.friendly_id)
    return Answer(place, json.loads(text), "memory", seconds, monotonic(), size=len(text))


@contextmanager
def memory_network() -> Iterator[Callable[[Dict[str, Any]], MemoryPeer]]:
    """A network in memory, with this process in it and in no other. Gives a function that makes a
    peer there, from the settings that are its own."""
    process.load()
    finder = MemoryFinder(process.loop, known_peers())
    own = MemoryPeer({}, process.instance)
    with process.lock:
        before, process.peer = existing_peer(), own
    chosen = process.client.choose(_acting)
    try:
        with known_peers().elsewhere(lambda address: address in finder.members, [finder]):
            own.launch()
            events.own_events().subscriber.leave_network()
            try:
                yield lambda values: MemoryPeer(values, os.urandom(16).hex())
            finally:
                own.close()
    finally:
        finder.close()
        process.client.choose(chosen)
        with process.lock:
            process.peer = before
            process.peers.remove(own)
        if before is not None and before.launched:
            events.own_events().subscriber.serve(before.id, before.place)
        events.own_events().subscriber.leave_network()
        process.client.close_idle()  # connections to peers that have gone
