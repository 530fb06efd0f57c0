"""The subscribing half: which handlers hear what, and where we are subscribed for them.

A subscription lives on a TCP connection to the publisher, which brings the events. When that ends,
however it ends, we connect again, at once and then less and less often. All of this is done in the
loop, which waits for no peer; a thread of its own runs the handlers.
"""
from __future__ import annotations

import logging
import os
import threading
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Set

from ..dispatch import MemoryBudget
from ..errors import Address, NetError, PeerBusy, PeerLost
from ..identity import PeerId, place_text, printable
from ..link import security
from ..link.tcp import is_own_address
from ..log import EVENTS, RateLimitedLog
from ..run.client import Client
from ..run.loop import Loop, Timer
from ..settings import Settings
from ..wire.deliveries import Pair
from ..wire.frames import NotAFrame
from ..wire.legacy import likely_dialect
from .handlers import Handler
from .old import LOOK_TIME as OLD_LOOK_TIME
from .old import OldPublishers, Visit
from .publisher_connection import PublisherConnection, Services
from .runner import Runner
from .shares import Shares, source_of
from .subscription import Subscription
from .workers import Workers

note = RateLimitedLog(logging.getLogger(EVENTS), burst=10)

# Seconds before a publisher that was lost is tried again: at first, doubled each time, and at most.
# A process takes some tenths to start again. A publisher that has been away for long is tried less
# often: every fortieth of that time, at most.
FIRST_RETRY = 0.1
LAST_RETRY = 1.6
RAREST_RETRY = 30.0
PART_OF_ABSENCE = 40
# Seconds after which a publisher that was found, not named, is given up. When it is back it is
# found again.
GIVE_UP = 600.0
# Publishers that were found and are tried, and given-up ones of which it is known what was missed.
MAX_FOUND = 1000
MAX_GIVEN_UP = 1000
# Seconds after which a publisher is asked whether it is still no hub, or of none of the groups,
# that the handlers want.
UNLIKELY = 15.0
# Seconds that a handler waits for another connection to what claims to be the same process, which
# may be about to bring it the same events.
SAME_PROCESS_TIME = 1.0
# Seconds that subscribing to named peers waits for them.
SUBSCRIBE_TIME = 3.0
# Seconds between checks of the settings, while there are connections.
LOOK_TIME = 1.0

#: ``watch(callback)`` calls ``callback("came", peer_id)`` for each peer that is there or comes, and
#: returns what ends that.
Watch = Callable[[Callable[[str, PeerId], None]], Callable[[], None]]


class Subscriber:
    """The handlers of this process and what they hear. Any thread may call, except where it says
    "in the loop".

    :param places: those that connections for events may take, shared with the other half.
    :param connections: the registry of functions, for old publishers, which call the handlers.
    :param memory: gives the budget for the values of large messages.
    :ivar own_id: the id of this process's peer; None while it does not serve.
    """

    def __init__(self, watch: Watch, loop: Loop, settings: Settings, places: Shares,
                 client: Client, connections: Dict[bytes, Callable[..., Any]],
                 memory: Callable[[], MemoryBudget]) -> None:
        self.loop = loop
        self.settings = settings
        self._client = client
        self._connections = connections
        self._memory = memory
        self._places = places
        self._watch = watch
        self._begin()

    def _begin(self) -> None:
        self.runner = Runner(lambda: self._call_soon(self._read_on))
        self.services = Services(
            self.loop, self.settings, self._client.carriers, self.runner, Workers("net-decoder"),
            lambda pair: self._handlers.get(pair), lambda call: self._paused.append(call),
            self._memory())
        self.old = OldPublishers(self._client, self.loop, self._connections,
                                 lambda pair: self._handlers.get(pair), self.hears)
        # Guards the handlers, whether we serve, and what targets report.
        self.lock = threading.Lock()
        self.told = threading.Condition(self.lock)
        self.own_id: Optional[PeerId] = None
        self.own_place: Optional[Address] = None
        self._handlers: Dict[Pair, Handler] = {}
        self._stop_watching: Optional[Callable[[], None]] = None
        self._targets: Dict[Address, Target] = {}
        # Used in the loop only.
        self._own_address: Optional[Address] = None
        self._finds = Shares(MAX_FOUND)
        self._given_up: Dict[Address, None] = {}
        self._paused: List[Callable[[], None]] = []
        self._waiting: Dict[Target, None] = {}
        self._look: Optional[Timer] = None

    # ----------------------------------------------------------------------- handlers

    def add(self, handler: Handler) -> None:
        """Subscribe a handler. Waits a moment for the peers that it names."""
        with self.lock:
            earlier = self._handlers.get(handler.pair)
            if earlier is not None:
                earlier.end()
                if earlier.function == handler.function and handler.addresses is not None:
                    # Subscribed to one peer after the other, it hears them all.
                    handler.addresses = earlier.addresses and handler.addresses | earlier.addresses
            self._handlers[handler.pair] = handler
            for address in handler.addresses or ():
                target = self._targets.setdefault(address, Target(self, address))
                target.problem = None
        self._change()
        if not self.loop.in_loop():
            with self.told:
                self.told.wait_for(lambda: self._is_seen_to(handler), SUBSCRIBE_TIME)

    def _is_seen_to(self, handler: Handler) -> bool:
        if self.own_id is None or not handler.active:
            return True
        targets = [self._targets.get(address) for address in handler.addresses or ()]
        return all([target is None or target.problem is not None or handler in target.seen_to
                    or not handler.hears(target.address, target.found) for target in targets])

    def remove(self, event: str, function: Callable[..., Any]) -> bool:
        """Unsubscribe a function; False if it was not subscribed."""
        with self.lock:
            handlers = [one for one in self._handlers.values()
                        if one.pair[0] == event and one.function == function]
            for handler in handlers:
                handler.end()
                del self._handlers[handler.pair]
        self._change()
        return bool(handlers)

    def hears(self, tag: bytes) -> bool:
        """Whether the function of a tag is a handler of any event."""
        return any([pair[1] == tag for pair in list(self._handlers)])

    def handlers_at(self, target: Target) -> List[Handler]:
        """The handlers that are to hear what is at a target, as far as can be told."""
        with self.lock:
            # A handler that has heard it by name, and now hears all peers, has found it already.
            return [one for one in self._handlers.values() if one.hears(
                target.address, target.found or target.subscription.knows(one.pair))]

    def is_named(self, address: Address) -> bool:
        """Whether a handler names this address."""
        with self.lock:
            return any([address in (one.addresses or ()) for one in self._handlers.values()])

    # -------------------------------------------------------------------- being there

    def serve(self, own_id: PeerId, place: Optional[Address] = None) -> None:
        """This process has a peer from now on, and its handlers hear.

        :param place: where it is reached on this host, if it advertises another address.
        """
        self.own_id, self.own_place = own_id, place or own_id.address
        self._change()

    def pause(self) -> None:
        """This process has no peer any more. The handlers stay."""
        self.own_id = None
        self._change()

    def leave_network(self) -> None:
        """This process has gone to another network: the peers that it has found are not there."""
        self._call_soon(self._forget_found)

    def forget(self) -> None:
        """Start afresh in a forked child: the handlers are the parent's."""
        for target in self._targets.values():
            target.abandon()
        self._begin()

    def _change(self) -> None:
        """Schedule what the handlers, as they are now, ask for."""
        with self.lock:
            watching = self.own_id is not None \
                and any([one.addresses is None for one in self._handlers.values()])
            stop = None
            if watching and self._stop_watching is None:
                self._stop_watching = self._watch(self._on_change)
            elif not watching:
                stop, self._stop_watching = self._stop_watching, None
            if not self._handlers:
                self.runner.stop()
        if stop is not None:
            stop()
        self._call_soon(self._sync_all)

    def _call_soon(self, callback: Callable[[], object]) -> None:
        try:
            self.loop.call_soon(callback)
        except OSError as problem:  # no thread to be had; the next change tries again
            note(logging.WARNING, "subscriptions have to wait: %s", problem)

    def _on_change(self, change: str, peer: PeerId) -> None:
        """Connect to a peer that comes. That a peer goes is noticed on its connection, unless the
        same process is known to be elsewhere now."""
        self._call_soon(partial(self._found, peer) if change == "came"
                        else partial(self._missed, peer.address))

    # -------------------------------------------------------------------- in the loop

    def _found(self, peer: PeerId) -> None:
        address = peer.address
        with self.lock:
            target = self._targets.setdefault(address, Target(self, address))
        if not target.found and not self._finds.take(source_of(address)):
            note(logging.WARNING, "%s is not heard: too many peers are found there",
                 place_text(address))
            self._forget(target)
            return
        target.found = True
        target.missed = False
        target.said = peer.info
        self._given_up.pop(address, None)
        target.sync(at_once=True)

    def _missed(self, address: Address) -> None:
        target = self._targets.get(address)
        if target is not None:
            target.missed = True
            self.look_for_moved(target.subscription.instance)

    def look_for_moved(self, instance: Optional[str]) -> None:
        """Find out whether a process is still where discovery misses it, if it is at another
        address, too.
        """
        same = [one for one in self._targets.values() if one.subscription.instance == instance]
        if instance is not None and any([one.subscription.elsewhere for one in same]):
            for target in same:
                if target.missed:
                    target.doubt()

    def answered(self, address: Address) -> None:
        """A peer has just answered in our dialect. Any thread may call."""
        target = self._targets.get(address)
        if target is not None and target.is_old:
            self._call_soon(target.modernise)

    def moved(self) -> None:
        """Addresses of this host have gone: what was connected from there will never be heard."""
        for target in list(self._targets.values()):
            if target.place is not None and not is_own_address(target.place[0]):
                target.leave("the address of this host has changed")

    def give_up(self, target: Target) -> None:
        """A publisher that was found has been away for too long. What was missed there is not
        forgotten yet."""
        self._lose(target)
        self._given_up[target.address] = None
        while len(self._given_up) > MAX_GIVEN_UP:
            address = next(iter(self._given_up))
            del self._given_up[address]
            if address in self._targets:
                self._forget(self._targets[address])

    def _lose(self, target: Target) -> None:
        if target.found:
            target.found = False
            self._finds.give_back(source_of(target.address))

    def _forget(self, target: Target) -> None:
        """Forget a target that no handler names and no search has found."""
        if not target.found and not self.is_named(target.address):
            target.suspend()
            self._targets.pop(target.address, None)

    def _forget_found(self) -> None:
        self._given_up.clear()
        for target in list(self._targets.values()):
            if target.address != self._own_address:
                self._lose(target)
                self._forget(target)

    def _find_own(self) -> None:
        """Handlers of all peers hear this process, too, which no search finds."""
        own = None if self.own_id is None else self.own_place
        with self.lock:
            before = None if self._own_address in (None, own) \
                else self._targets.get(self._own_address)
            hears_all = any([one.addresses is None for one in self._handlers.values()])
            target = self._targets.setdefault(own, Target(self, own)) \
                if own is not None and hears_all else None
            self._own_address = own
        if before is not None:
            self._lose(before)
        if target is not None and not target.found:
            target.found = self._finds.take(source_of(target.address))

    def _sync_all(self) -> None:
        self._find_own()
        for target in list(self._targets.values()):
            if self.own_id is None:
                target.suspend()
            else:
                target.sync(at_once=True)

    def let_go(self, target: Target) -> None:
        """No handler wants this target now. What was missed there can matter again as long as there
        are handlers."""
        with self.lock:
            if self._handlers:
                return
            self._targets.pop(target.address, None)
        self._lose(target)

    def take_place(self, target: Target) -> bool:
        """Take a place for a connection. Without one, the target is told when there may be one."""
        if self._places.take(source_of(target.address)):
            return True
        self._waiting[target] = None
        return False

    def give_back_place(self, target: Target) -> None:
        """A connection has ended."""
        self._places.give_back(source_of(target.address))
        waiting, self._waiting = list(self._waiting), {}
        for other in waiting:
            other.sync()

    def same_process(self, target: Target) -> List[Target]:
        """The other targets that have a connection to what claims to be the same process."""
        instance = target.subscription.instance
        return [one for one in self._targets.values() if one is not target and one.is_open
                and one.subscription.instance == instance]

    def subscriptions(self) -> List[Subscription]:
        """What is known of all publishers."""
        return [target.subscription for target in self._targets.values()]

    def opened(self) -> None:
        """A target has a connection now."""
        if self._look is None:
            self._look = self.loop.call_later(LOOK_TIME, self._look_around)

    def closed(self, target: Target) -> None:
        """The connection of a target has ended. What was heard there, and is wanted at another
        address of the same process, is asked for there."""
        for other in list(self._targets.values()):
            if other is not target and other.subscription.follow(target.subscription):
                other.sync(at_once=True)

        if self._look is not None and not self._is_connected():
            self._look.cancel()
            self._look = None

    def _is_connected(self) -> bool:
        return any([target.is_open for target in self._targets.values()])

    def _read_on(self) -> None:
        paused, self._paused = self._paused, []
        for resume in paused:
            resume()

    def _look_around(self) -> None:
        """End connections made under other settings, and resume reading where a call to do so was
        missed."""
        self._look = None
        self.runner.make_room()
        if self.runner.has_room:
            self._read_on()
        for target in list(self._targets.values()):
            target.check_settings()
        if self._is_connected():
            self._look = self.loop.call_later(LOOK_TIME, self._look_around)


class Target:
    """A place where a publisher may be: whether and when to connect, and what to ask for. Used in
    the loop.

    :ivar found: whether a search has found it; otherwise it is only named.
    :ivar missed: whether it is gone, as far as discovery can tell.
    :ivar said: what it said about itself when a search found it; empty if that is not known.
    :ivar subscription: what is heard there.
    :ivar seen_to: the handlers that hear it, or do not want to.
    :ivar problem: why it could not be reached lately, None if it could.
    """

    def __init__(self, subscriber: Subscriber, address: Address) -> None:
        self.address = address
        self.found = self.missed = False
        self.said: Dict[str, Any] = {}
        self.subscription = Subscription()
        self.seen_to: List[Handler] = []
        self.problem: Optional[BaseException] = None
        self._subscriber = subscriber
        self._connection: Optional[PublisherConnection] = None
        # What an old peer there has been asked for; None while no old peer is there.
        self._old: Optional[Set[Pair]] = None
        # Whether another thread subscribes at it just now, and has to do so once more.
        self._is_visited = self._visit_again = False
        self._retry: Optional[Timer] = None
        self._failures = 0
        self._failing_since = self._dialled = 0.0
        # While it waits for another connection to the same process, and whether it has.
        self._patience: Optional[Timer] = None
        self._has_waited = False

    def __repr__(self) -> str:
        return f"subscribing at {self.address[0]}:{self.address[1]}"

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that was greeted."""
        return self._connection is not None and self._connection.is_open

    @property
    def is_old(self) -> bool:
        """Whether an old peer is there, as far as is known. Any thread may ask."""
        return self._old is not None

    @property
    def place(self) -> Optional[Address]:
        """Our end of the connection, as the other side sees it."""
        return None if self._connection is None else self._connection.place

    def sync(self, at_once: bool = False) -> None:
        """Subscribe here to what is wanted, and unsubscribe from all else.

        :param at_once: do not wait until the next attempt to connect is due.
        """
        if self._subscriber.own_id is None:
            return
        handlers = self._subscriber.handlers_at(self)
        if at_once:
            self._cancel_retry()
        if self.is_open:
            self._ask(handlers)
        elif self._learn_old():
            assert self._old is not None
            self._visit(self._old, handlers)
        elif self._connection is None and self._retry is None:
            self.subscription.keep({one.pair for one in handlers})
            if {one.pair for one in handlers} <= self.subscription.elsewhere:
                self._tell(handlers)
                self._subscriber.let_go(self)
            elif self.said and not any([not one.asks or one.accepts(self.said)
                                        for one in handlers]):
                # Those that are wanted come first: where many start together, each would have to
                # wait for all others.
                self._tell(handlers)
                self._retry_after(jitter(UNLIKELY))
            else:
                self._dial()

    def _learn_old(self) -> bool:
        """Find out whether an old peer is there, before it is sent what it cannot read: it prints
        an error for that."""
        subscriber = self._subscriber
        idle = self._old is None and self._connection is None and self._retry is None
        if idle and not subscriber.settings.secured and subscriber.old.knows(self.address):
            self._old = set()
        return self.is_old

    def modernise(self) -> None:
        """A newer program has taken the place of an old one."""
        if self.is_old:
            self._old = None
            self.sync(at_once=True)

    def suspend(self) -> None:
        """Stop hearing for now."""
        self._cancel_retry()
        self._close()
        self._old = None
        self._subscriber.let_go(self)

    def abandon(self) -> None:
        """Close our copy of the socket, in a forked child."""
        if self._connection is not None:
            self._connection.abandon()

    def check_settings(self) -> None:
        """Connect again if the settings have changed."""
        if self._connection is not None:
            self._connection.check_settings()

    def _tell(self, handlers: List[Handler], problem: Optional[BaseException] = None) -> None:
        """Wake the threads that wait in :meth:`Subscriber.add`."""
        with self._subscriber.told:
            self.seen_to, self.problem = handlers, problem
            self._subscriber.told.notify_all()

    # ----------------------------------------------------------------------- connecting

    def _dial(self) -> None:
        services = self._subscriber.services
        if not self._subscriber.take_place(self):
            return
        self._dialled = monotonic()
        try:
            services.carriers.check(self.address)
            self._connection = PublisherConnection(self, services, security.credentials())
        except (NetError, OSError) as problem:
            self._subscriber.give_back_place(self)
            self._fail(problem)

    def opened(self, instance: str) -> None:
        """A process has greeted us."""
        self._subscriber.old.saw(self.address, "")
        self.subscription.begin(instance, self._subscriber.subscriptions())
        self._subscriber.opened()

    def answered(self) -> None:
        """It has answered something."""
        self.sync()
        for other in self._subscriber.same_process(self):
            other.sync()
        if self.subscription.elsewhere:
            self._subscriber.look_for_moved(self.subscription.instance)

    def doubt(self) -> None:
        """End the connection unless it still answers."""
        if self._connection is not None and self.is_open:
            self._connection.doubt()

    def leave(self, reason: str) -> None:
        """End the connection, and begin anew."""
        if self._connection is not None:
            self.lost(self._connection, PeerLost(self.address, reason))

    def lost(self, connection: PublisherConnection, problem: BaseException) -> None:
        """The connection has ended, or could not be made."""
        if connection is self._connection:
            if self.subscription.pairs:
                self._failures = 0  # the connection worked
            self._close()
            dialect = ""
            if type(problem) is NotAFrame and not self._subscriber.settings.secured:
                dialect = likely_dialect(problem.data)
            if dialect:
                self._subscriber.old.saw(self.address, dialect)
                self._old = set()
                self.sync()
            else:
                self._fail(problem)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if self._patience is not None:
                self._patience.cancel()
            self._patience, self._has_waited = None, False
            self.subscription.end()
            self._subscriber.closed(self)
            self._subscriber.give_back_place(self)

    def _fail(self, problem: BaseException) -> None:
        """Try again after a while."""
        now = monotonic()
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
            note(logging.WARNING if self.subscription.instance is None else logging.INFO,
                 "cannot subscribe at %s, trying again: %s", place_text(self.address),
                 printable(str(problem), 500))
        self._tell([], problem)
        absence = now - self._failing_since
        if absence > GIVE_UP and not self._subscriber.is_named(self.address):
            self._subscriber.give_up(self)
            return
        delay = min(max(LAST_RETRY, absence / PART_OF_ABSENCE), RAREST_RETRY,
                    FIRST_RETRY * 2 ** min(self._failures - 1, 20))
        # The time that was spent waiting for an answer counts towards it.
        self._retry_after(max(FIRST_RETRY, jitter(delay) - (now - self._dialled)))

    def _retry_after(self, seconds: float) -> None:
        self._cancel_retry()
        self._retry = self._subscriber.loop.call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.said = {}  # it may have changed, and what it says over a connection counts
        if self._connection is not None:
            self._connection.refused.clear()
        self.sync()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _visit(self, subscribed: Set[Pair], handlers: List[Handler]) -> None:
        """Subscribe at an old peer, in another thread, and look again after a while."""
        own_id = self._subscriber.own_id
        if self._is_visited:
            self._visit_again = True
        elif own_id is not None and handlers:
            self._is_visited = True
            self._subscriber.old.visit(Visit(self.address, own_id, handlers, subscribed,
                                             partial(self._visited, subscribed, handlers)))

    def _visited(self, subscribed: Set[Pair], handlers: List[Handler],
                 problem: Optional[NetError]) -> None:
        again, self._is_visited, self._visit_again = self._visit_again, False, False
        if subscribed is not self._old:
            self.sync()
            return
        if problem is not None:
            self._old = None
            self._fail(problem)
        else:
            self._failures = 0
            self._tell(handlers)
            self._retry_after(0 if again else OLD_LOOK_TIME)

    # ----------------------------------------------------------------------- subscribing

    def _ask(self, handlers: List[Handler]) -> None:
        """Ask for what is wanted, over the open connection."""
        connection, subscription = self._connection, self.subscription
        assert connection is not None
        facts = connection.facts
        # Without an answer yet, those wait that depend on it.
        known = [one for one in handlers if facts is not None or not one.asks]
        wanted = {one.pair for one in known if not one.asks or one.accepts(facts or {})}
        for pair in subscription.keep(wanted):
            connection.unsubscribe(pair)
        missing = wanted - subscription.pairs - subscription.pending - subscription.elsewhere \
            - connection.refused
        others = self._subscriber.same_process(self)
        if missing and not self._must_wait(others):
            places = [other.place for other in others if other.place is not None]
            for pair in sorted(missing):
                connection.subscribe(pair, self._port, places)
            missing = set()
        if facts is not None and not missing and not subscription.pending:
            self._complete(handlers)

    @property
    def _port(self) -> Optional[int]:
        own_id = self._subscriber.own_id
        return None if own_id is None else own_id.port

    def _must_wait(self, others: List[Target]) -> bool:
        """Whether to wait a moment for the answers on another connection to the same process."""
        if self._has_waited or not any([other.subscription.pending for other in others]):
            return False
        if self._patience is None:
            self._patience = self._subscriber.loop.call_later(SAME_PROCESS_TIME, self._stop_waiting)
        return True

    def _stop_waiting(self) -> None:
        self._has_waited = True
        self.sync()

    def _complete(self, handlers: List[Handler]) -> None:
        """All that was asked for is answered."""
        assert self._connection is not None
        problem = PeerBusy(self.address, "it refuses a subscription") \
            if self._connection.refused else None
        if not self.subscription.pairs:
            self._close()
            self._subscriber.let_go(self)
            if problem is not None:
                self._fail(problem)
                return
        if problem is None:
            self._failures = 0
        elif self._retry is None:
            self._failures += 1
            self._retry_after(jitter(min(RAREST_RETRY, 2 ** min(self._failures, 20))))
        self._tell(handlers, problem)


def jitter(seconds: float) -> float:
    """Half to one and a half times as long, by chance: peers that lost the same hub at the same
    time must not all return at the same time."""
    # The random module would take longer to load than all of this package.
    return seconds * (0.5 + int.from_bytes(os.urandom(2), "big") / 65536)
