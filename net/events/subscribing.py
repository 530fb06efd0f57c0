"""The subscribing half: which handlers hear what, and where we are subscribed for them.

A subscription lives as long as the TCP connection that the publisher's events come over. When that
ends, however it ends, we subscribe again, at once and then less and less often.
"""
from __future__ import annotations

import copy
import functools
import logging
import threading
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Set

from ..context import current
from ..dispatch import INVALID_CONNECTION
from ..settings import is_loopback
from ..errors import Address, NetError, PeerLost, ProtocolError
from ..identity import Flag, PeerId, encode_text, make_id, make_tag, printable, tag_name
from ..process import process
from ..log import SafeLog
from ..link.streams import is_own_address
from .runner import Job, Runner
from .schedule import Schedule, jitter
from .publishers import Delivery, News, Pair, Source

log = SafeLog(__name__)

INFO = make_tag("net.defaults.handlers", "info")
SUBSCRIBE = make_tag("net.defaults.handlers", "subscription_handler")
UNSUBSCRIBE = encode_text("net.events.unsubscribe")
FAILED = encode_text("net.events.failed")

# Seconds for one call of a publisher. To subscribe us, it connects to us meanwhile.
CALL_TIME = 8.0
# Seconds before a publisher that was lost is tried again: at first, doubled each time, and at most.
# A process takes some tenths to start again.
FIRST_RETRY = 0.1
LAST_RETRY = 30.0
# Seconds after which a publisher that was found, not named, is given up. When it is back it is
# found again.
GIVE_UP = 600.0
# Seconds between looks at an old peer, whose end no connection tells.
OLD_LOOK = 30.0
# Seconds that subscribing to named peers waits for them.
SUBSCRIBE_TIME = 3.0
# Failures of handlers that a publisher is told of at once, and the seconds between two times.
MAX_FAILURES = 100
TELL_TIME = 1.0

#: ``watch(callback)`` calls ``callback("came", peer_id)`` for each peer that is there or comes, and
#: returns what ends that.
Watch = Callable[[Callable[[str, PeerId], None]], Callable[[], None]]


class Handler:
    """A function that hears an event.

    :ivar addresses: of the peers that it hears; None for all peers.
    :ivar groups: of those peers; None for any.
    """

    def __init__(self, event: str, tag: bytes, function: Callable[..., Any],
                 addresses: Optional[Set[Address]] = None,
                 groups: Optional[Set[Optional[str]]] = None,
                 hubs_only: bool = False, on_host: bool = False,
                 on_gap: Optional[Callable[..., Any]] = None) -> None:
        self.pair: Pair = (event, tag)
        self.function = function
        self.addresses = addresses
        self.groups = groups
        self.hubs_only = hubs_only
        self.on_host = on_host
        self.on_gap = on_gap
        self.active = True

    def wants(self, address: Address, facts: Dict[str, Any]) -> bool:
        """Whether it is to hear the peer that says this of itself."""
        if self.groups is not None and facts.get("group") not in self.groups:
            return False
        if self.hubs_only and facts.get("hub") is not True:
            return False
        return not self.on_host or is_loopback(address[0]) or is_own_address(address[0])

    def run(self, *args: Any, **kwargs: Any) -> None:
        if self.active:
            self.function(*args, **kwargs)

    def run_gap(self, peer: PeerId, missed: Optional[int]) -> None:
        if self.active and self.on_gap is not None:
            self.on_gap(self.pair[0], peer, missed)


class Link:
    """An address that we want to be subscribed at.

    :ivar lock: held during a visit.
    :ivar found: whether it was found, so that handlers of all peers want it.
    :ivar source: who was last met there.
    :ivar settled: handlers that the last visit has seen to.
    :ivar problem: why it failed, None if it did not.
    :ivar failures: visits that failed since one went well, the first of them at ``failing_since``.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lock = threading.Lock()
        self.found = False
        self.source: Optional[Source] = None
        self.settled: List[Handler] = []
        self.problem: Optional[BaseException] = None
        self.failures = 0
        self.failing_since = 0.0

    def __repr__(self) -> str:
        return f"subscribing at {self.address[0]}:{self.address[1]}"


class Subscriber:
    """The handlers of this process and its subscriptions. Any thread may call."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._here = threading.local()  # the delivery that this thread serves
        self.runner = Runner()
        self._schedule = Schedule(self._visit)
        self._lock = threading.Lock()  # guards what follows, and what links and sources hold
        self._visited = threading.Condition(self._lock)
        self._own_id: Optional[PeerId] = None
        self._own_address: Optional[Address] = None
        self._handlers: Dict[Pair, Handler] = {}
        self._links: Dict[Address, Link] = {}
        self._sources: Dict[str, Source] = {}
        self._stop_watching: Optional[Callable[[], None]] = None

    # ----------------------------------------------------------------------- handlers

    def add(self, handler: Handler) -> None:
        """Subscribe a handler. Waits a moment for the peers that it names."""
        with self._lock:
            known = self._handlers.get(handler.pair)
            if known is not None:
                known.active = False
                if known.function == handler.function and handler.addresses is not None:
                    # Subscribed to one peer after the other, it hears them all.
                    handler.addresses = known.addresses and handler.addresses | known.addresses
            self._handlers[handler.pair] = handler
        self._tend()
        with self._visited:
            self._visited.wait_for(lambda: self._is_settled(handler), SUBSCRIBE_TIME)

    def _is_settled(self, handler: Handler) -> bool:
        if self._own_id is None or handler.addresses is None:
            return True
        links = [self._links.get(address) for address in handler.addresses]
        return all([link is None or link.problem is not None or handler in link.settled
                    for link in links])

    def remove(self, event: str, function: Callable[..., Any]) -> bool:
        """Unsubscribe a function; False if it was not subscribed."""
        with self._lock:
            handlers = [one for one in self._handlers.values()
                        if one.pair[0] == event and one.function == function]
            for handler in handlers:
                handler.active = False
                del self._handlers[handler.pair]
        self._tend()
        return bool(handlers)

    # -------------------------------------------------------------------- being there

    def serve(self, own_id: PeerId) -> None:
        """Events can be delivered to this process under this id from now on."""
        self._own_id = own_id
        self._tend()

    def pause(self) -> None:
        """Events can be delivered to this process no more. The handlers stay."""
        self._own_id = None
        self._tend()

    def forget(self) -> None:
        """Start anew, in a forked child: the handlers are the parent's."""
        self.__init__(self._watch)  # type: ignore[misc]

    def _tend(self) -> None:
        """Do what the handlers ask for, as they are now."""
        with self._lock:
            handlers = list(self._handlers.values())
            for handler in handlers:
                for address in handler.addresses or ():
                    self._links.setdefault(address, Link(address))
            watching = self._own_id is not None \
                and any([handler.addresses is None for handler in handlers])
            self._find_own(self._own_id if watching else None)
            links = list(self._links.values())
            for link in links:
                link.problem = None
            stop = None
            if watching and self._stop_watching is None:
                self._stop_watching = self._watch(self._on_change)
            elif not watching:
                stop, self._stop_watching = self._stop_watching, None
        if stop is not None:
            stop()
        if self._own_id is not None:
            for link in links:
                self._schedule.put(link, 0)
        if not handlers:
            self.runner.stop()

    def _find_own(self, own_id: Optional[PeerId]) -> None:
        """Handlers of all peers hear this process, too, which no search finds."""
        own = None if own_id is None else own_id.address
        if self._own_address not in (None, own):
            self._links[self._own_address].found = False
        if own is not None:
            self._links.setdefault(own, Link(own)).found = True
        self._own_address = own

    def _on_change(self, change: str, peer: PeerId) -> None:
        """Visit whoever comes. That one goes is noticed by its connection."""
        if change != "came":
            return
        with self._lock:
            link = self._links.setdefault(peer.address, Link(peer.address))
            link.found = True
            link.failures = 0
        self._schedule.put(link, 0)

    # ------------------------------------------------------------------------- visits

    def _visit(self, link: Link) -> None:
        """See to it that we are subscribed at an address to what is wanted, and nothing else."""
        with link.lock:
            with self._lock:
                own_id = self._own_id
                handlers = [one for one in self._handlers.values()
                            if (link.found if one.addresses is None
                                else link.address in one.addresses)]
            problem: Optional[BaseException] = None
            if own_id is None:
                return
            try:
                self._settle(link, handlers, own_id)
            except Exception as error:
                problem = error
                if not isinstance(error, NetError):
                    log(logging.ERROR, "%r failed", link, exc_info=True)
            with self._visited:
                link.settled = handlers
                link.problem = problem
                if problem is None:
                    link.failures = 0
                elif link.source is not None and link.source.delivery is None:
                    link.source.subscribed.clear()
                self._visited.notify_all()
            if problem is not None:
                self._retry(link, problem)

    def _settle(self, link: Link, handlers: List[Handler], own_id: PeerId) -> None:
        source = link.source
        if source is None or source.delivery is None:
            if not handlers:
                self._let_go(link)
                return
            source = self._meet(link)
        # Its other addresses may be visited at the same time.
        with source.visiting:
            self._reconcile(link, source, handlers, own_id)

    def _reconcile(self, link: Link, source: Source, handlers: List[Handler],
                   own_id: PeerId) -> None:
        for handler in handlers:
            if handler.pair not in source.subscribed and handler.wants(link.address, source.facts):
                self._call(link, SUBSCRIBE, handler.pair, own_id)
                source.subscribed.add(handler.pair)
        if source.instance is None:
            self._schedule.put(link, OLD_LOOK)
        elif source.subscribed and source.delivery is None:
            raise PeerLost(link.address, "the connection that it made to this peer ended")
        for pair in list(source.subscribed):
            if pair not in self._handlers:
                source.drop(pair)
                if source.instance is not None:
                    self._call(link, UNSUBSCRIBE, pair, own_id)
        self._tell_failures(link, source, own_id)

    def _meet(self, link: Link) -> Source:
        """Ask who is there now."""
        facts = process.client.call(link.address, INFO, (), {}, CALL_TIME)
        facts = facts if type(facts) is dict else {}
        group, instance = facts.get("group"), facts.get("instance")
        peer = make_id(link.address[1], link.address[0], group if type(group) is str else None)
        with self._lock:
            earlier = link.source
            if type(instance) is not str:  # an old peer
                if earlier is None or earlier.instance is not None:
                    link.source = Source(None, peer, facts)
            else:
                link.source = self._sources.setdefault(instance, Source(instance, peer, facts))
                link.source.facts = facts
            assert link.source is not None
            if earlier is not None and earlier is not link.source:
                link.source.follow(earlier)
                self._forget_source(earlier)
            return link.source

    def _let_go(self, link: Link) -> None:
        """Nobody wants this address now. What was missed there can matter again, though, as long
        as there are handlers."""
        with self._lock:
            if not self._handlers:
                self._links.pop(link.address, None)
                if link.source is not None:
                    self._forget_source(link.source)

    def _forget_source(self, source: Source) -> None:
        used = any([link.source is source for link in self._links.values()])
        if not used and source.instance is not None:
            self._sources.pop(source.instance, None)

    @staticmethod
    def _call(link: Link, tag: bytes, pair: Pair, own_id: PeerId) -> None:
        event, handler = pair
        result = process.client.call(
            link.address, tag, (event, own_id.decode(), handler.decode()), {}, CALL_TIME)
        if type(result) is Flag and result == INVALID_CONNECTION:
            raise ProtocolError(link.address, "it knows no events")

    def _retry(self, link: Link, problem: BaseException) -> None:
        now = monotonic()
        with self._lock:
            link.failures += 1
            if link.failures == 1:
                link.failing_since = now
            named = any([link.address in one.addresses for one in self._handlers.values()
                         if one.addresses is not None])
            if not named and now - link.failing_since > GIVE_UP:
                link.found = False
                return
        if link.failures == 1:
            log(logging.WARNING if link.source is None else logging.INFO,
                "cannot subscribe at %s:%d, trying again: %s", *link.address,
                printable(str(problem), 500))
        delay = FIRST_RETRY * 2 ** min(link.failures, 20)
        self._schedule.put(link, jitter(min(LAST_RETRY, delay)))

    # --------------------------------------------------------------------- deliveries

    def deliver(self, instance: str, size: int, *values: Any) -> None:
        """Take events; called by their publisher, in the thread that serves its connection.

        It returns when the events are queued for the handlers, and waits while that queue is full.

        :param instance: the random id of the publisher's process.
        :param size: bytes of the events, about.
        :raises LookupError: we have not subscribed there.
        :raises ConnectionError: its events come over another connection by now.
        """
        source = self._sources.get(instance)
        if source is None:
            raise LookupError("this peer has not subscribed there")
        if type(size) is not int or size < 0:
            raise ProtocolError(None, "a size is a number of bytes")
        with source.lock:
            self._check_delivery(source)
            jobs = self._jobs(source, source.read(values))
            if jobs:
                self.runner.put(jobs, size)

    def _check_delivery(self, source: Source) -> None:
        delivery: Optional[Delivery] = getattr(self._here, "delivery", None)
        if delivery is None or delivery.source is not source:
            delivery = self._here.delivery = Delivery(source, self._on_end)
            context = current()
            if context is not None:
                context.add_ending(delivery.ended)
            source.begin(delivery)
        elif source.delivery is not delivery:
            raise ConnectionError("another connection has taken its place")

    def _jobs(self, source: Source, news: List[News]) -> List[Job]:
        jobs: List[Job] = []
        address = source.peer.address
        last: Any = None
        for pair, args, kwargs in news:
            handler = self._handlers.get(pair)
            if handler is None:
                continue
            failed = functools.partial(self._on_failure, source, pair)
            if args is None:
                arguments = (source.peer, kwargs)
                jobs.append(Job(handler.run_gap, arguments, {}, pair[1], address, failed))
                continue
            if args is last:
                # What one handler changes in its arguments is not for the next one to see.
                args, kwargs = copy.deepcopy((args, kwargs))
            else:
                last = args
            jobs.append(Job(handler.run, args, kwargs, pair[1], address, failed))
        return jobs

    def _on_end(self, delivery: Delivery) -> None:
        source = delivery.source
        with source.lock:
            if source.delivery is not delivery:
                return
            source.begin(None)
        with self._lock:
            source.subscribed.clear()
            links = [link for link in self._links.values() if link.source is source]
        for link in links:
            self._schedule.put(link, jitter(FIRST_RETRY))

    # ----------------------------------------------------------------------- failures

    def _on_failure(self, source: Source, pair: Pair, problem: BaseException) -> None:
        """Remember that a handler raised, for its publisher. Called by the runner."""
        with self._lock:
            told = len(source.failures) < MAX_FAILURES
            if told:
                source.failures.append([pair[0], pair[1].decode("ascii"), _describe(problem)])
            else:
                source.unsaid += 1
            links = [link for link in self._links.values() if link.source is source]
        if told:
            log(logging.ERROR, "the handler %s raised on the event %r of %s", tag_name(pair[1]),
                pair[0], source.peer, exc_info=problem)
        for link in links[:1]:
            self._schedule.put(link, max(0.0, source.told_at + TELL_TIME - monotonic()))

    def _tell_failures(self, link: Link, source: Source, own_id: PeerId) -> None:
        with self._lock:
            failures, source.failures = source.failures, []
            unsaid, source.unsaid = source.unsaid, 0
        if failures:
            source.told_at = monotonic()
            process.client.call(link.address, FAILED, (own_id.decode(), failures, unsaid), {},
                                CALL_TIME)


def _describe(problem: BaseException) -> str:
    try:
        return printable(f"{type(problem).__name__}: {problem}", 500)
    except Exception:  # its __str__ may be as wrong as the handler
        return type(problem).__name__
