"""A connection to a publisher: subscriptions go out, events come in. In the loop's thread."""
from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple

from ..dispatch import MemoryBudget, NoRoom, Room
from ..errors import Address, NetError, PeerLost, ProtocolError
from ..identity import PeerId, make_id, make_tag, place_text, printable, tag_name, without_zone
from ..link.addresses import host_port
from ..link.carriers import Carriers
from ..log import EVENTS, RateLimitedLog
from ..run.channel import Channel, Receiver, dial
from ..run.loop import Loop, Timer
from ..settings import KIB, Settings
from ..wire.deliveries import (MAX_FAILURES, Entry, Pair, Subscribe, encode_failed,
                               encode_subscribe, encode_taken, encode_unsubscribe, read_events,
                               read_subscribed)
from ..wire.frames import EVENT, FAILURE, RESULT, SUBSCRIBER_OPEN, Frame
from ..wire.messages import decode_reply, encode_call
from ..wire.session import Hello, caller_session, encode_preface
from .handlers import Handler
from .runner import Hearer, Job, Runner, make_job
from .subscription import Item, Subscription
from .workers import Workers

# This many failures of handlers in ten seconds are logged, each with its traceback.
note = RateLimitedLog(logging.getLogger(EVENTS), burst=10)

INFO = make_tag("net.defaults.handlers", "info")

# Seconds for a publisher to answer a request.
REPLY_TIME = 8.0
# Seconds to connect to a publisher that may have moved.
DOUBT_TIME = 1.0
# Seconds between two times that a publisher is told of failures.
TELL_TIME = 1.0
# Bytes of a frame with events up to which the loop itself reads it. What is larger, or runs code of
# the application's, is read in another thread, so that no other connection waits for it.
MAX_READ = 128 * KIB
# Seconds between attempts to find memory for the values of a large frame. Handlers free it.
ROOM_TIME = 0.1
# Bytes of what a publisher says about itself.
MAX_FACTS = 64 * KIB

#: Why nothing is read: the queue of the handlers is full, or a large frame is being read.
QUEUE, DECODER = "queue", "decoder"


class Services(NamedTuple):
    """What all connections to publishers use.

    :ivar carriers: lead to publishers.
    :ivar handler: the handler of an event and a tag, None if there is none.
    :ivar decoder: does work that is too long for the loop.
    :ivar when_room: takes a callback for when the handlers' queue has room again.
    :ivar memory: the budget that the values of large frames share with those of large requests.
    """

    loop: Loop
    settings: Settings
    carriers: Carriers
    runner: Runner
    decoder: Workers
    handler: Callable[[Pair], Optional[Handler]]
    when_room: Callable[[Callable[[], None]], None]
    memory: MemoryBudget


class Owner(Protocol):
    """The owner of a connection, to which it reports.

    :ivar subscription: what is heard of that publisher.
    """

    address: Address
    subscription: Subscription

    def opened(self, instance: str) -> None:
        """The process of this random id has greeted us."""

    def answered(self) -> None:
        """It has answered something."""

    def lost(self, connection: PublisherConnection, problem: NetError) -> None:
        """The connection has ended."""


class PublisherConnection(Receiver):
    """A connection to a publisher.

    :ivar is_open: whether it was greeted.
    :ivar facts: what the publisher says about itself; None until it has.
    :ivar refused: the subscriptions that it has refused.
    """

    def __init__(self, owner: Owner, services: Services, credentials: Any) -> None:
        self.is_open = False
        self.facts: Optional[Dict[str, Any]] = None
        self.refused: Set[Pair] = set()
        self._owner = owner
        self._subscription = owner.subscription
        self._services = services
        self._revision = services.settings.revision
        self._facts_request = 0
        self._silence: Optional[Timer] = None
        # While there is doubt whether it is still there; the number of the request that finds out.
        self._doubt: Optional[Timer] = None
        self._asked_after: Optional[int] = None
        self._holds: Set[str] = set()
        # The last frame with events, while it is not acknowledged yet.
        self._taken: Optional[int] = None
        self._failures: List[Tuple[str, str, str]] = []
        self._more_failures = 0
        self._told = 0.0
        self._telling: Optional[Timer] = None
        self._ended = False
        settings = services.settings
        carrier, endpoint = services.carriers.to(owner.address)
        self._channel = dial(
            services.loop, endpoint, lambda to: [encode_preface(settings.group, to=to)],
            caller_session(settings.limits, SUBSCRIBER_OPEN), self, credentials, carrier=carrier)

    @property
    def place(self) -> Optional[Address]:
        """Our end of the connection; None while there is none."""
        stream = self._channel.stream
        return None if stream is None else host_port(stream.sock.getsockname())

    @property
    def peer(self) -> PeerId:
        """The id of the publisher, as handlers get it."""
        host, port = self._owner.address
        return make_id(port, host, (self.facts or {}).get("group"))

    def doubt(self) -> None:
        """It may have moved: end this unless something comes from there soon."""
        if self._doubt is None:
            self._asked_after = self._subscription.next_number()
            self._channel.send(encode_call(self._asked_after, INFO, (), {}))
            self._doubt = self._services.loop.call_later(DOUBT_TIME, self._gone)

    def _gone(self) -> None:
        self._end(PeerLost(self._owner.address, "it is elsewhere now"))

    def check_settings(self) -> bool:
        """Whether the connection was made under the present settings; ends it if not."""
        if self._revision != self._services.settings.revision and not self._ended:
            self._end(PeerLost(self._owner.address, "the settings have changed"))
        return not self._ended

    def close(self) -> None:
        """Close the connection, if it is still open."""
        if not self._ended:
            self._ended = True
            self.is_open = False
            for timer in (self._silence, self._telling, self._doubt):
                if timer is not None:
                    timer.cancel()
            self._channel.close()

    def abandon(self) -> None:
        """Close our copy of the socket, in a forked child."""
        self._channel.abandon()

    # -------------------------------------------------------------- what the publisher sends

    def received(self, channel: Channel, event: Any) -> None:
        """The publisher has said something."""
        if self._ended or not self.check_settings():
            return
        try:
            self._handle(event)
        except NetError as problem:
            self._end(problem)
        except RuntimeError as problem:  # no thread to be had for the handlers
            self._end(PeerLost(self._owner.address, str(problem)))

    def ended(self, channel: Channel, problem: NetError) -> None:
        """The connection has ended, or could not be made."""
        self._end(problem)

    def _end(self, problem: NetError) -> None:
        if not self._ended:
            self.close()
            self._owner.lost(self, problem)

    def _handle(self, event: Any) -> None:
        if type(event) is Hello:
            self._greeted(event)
        elif event.kind == EVENT:
            self._take(event)
        else:
            self._read_reply(event)

    def _greeted(self, hello: Hello) -> None:
        self.is_open = True
        self._owner.opened(hello.instance)
        self._facts_request = self._subscription.next_number()
        self._ask(encode_call(self._facts_request, INFO, (), {}))
        self._owner.answered()

    def _ask(self, message: Any) -> None:
        self._channel.send(message)
        if self._silence is None:
            self._silence = self._services.loop.call_later(REPLY_TIME, self._give_up)

    def _give_up(self) -> None:
        self._silence = None
        self._end(PeerLost(self._owner.address, f"no reply within {REPLY_TIME:g} s"))

    def _read_reply(self, frame: Frame) -> None:
        if frame.number == self._facts_request and self.facts is None:
            self.facts = self._read_facts(frame)
        elif frame.number == self._asked_after and self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        elif frame.kind == RESULT:
            self._deliver(self._subscription.answered(frame.number, read_subscribed(frame)), 0)
        elif frame.kind == FAILURE and frame.number:
            pair = self._subscription.refused(frame.number)
            self.refused.add(pair)
            self._note_refusal(pair, frame)
        else:  # all of the connection is refused
            decode_reply(frame, self._owner.address, self._owner.address, b"")
            raise ProtocolError(self._owner.address, "a reply to nothing")
        if self._silence is not None and self.facts is not None and not self._subscription.pending:
            self._silence.cancel()
            self._silence = None
        self._owner.answered()

    def _read_facts(self, frame: Frame) -> Dict[str, Any]:
        facts: Any = None
        if frame.kind == RESULT and not frame.tagged and len(frame.text) <= MAX_FACTS:
            facts = decode_reply(frame, self._owner.address, self._owner.address, INFO)
        found = {name: facts.get(name) for name in ("group", "hub")} if type(facts) is dict else {}
        if type(found.get("group")) is not str:
            found["group"] = None
        stream = self._channel.stream
        assert stream is not None
        found["group"] = stream.group(found["group"])
        return found

    def _note_refusal(self, pair: Pair, frame: Frame) -> None:
        address = self._owner.address
        try:
            decode_reply(frame, address, address, b"")
        except NetError as problem:
            note(logging.WARNING, "%s refuses the event %r: %s", place_text(address),
                 pair[0], printable(str(problem), 500))

    # -------------------------------------------------------------------- requests to it

    def subscribe(self, pair: Pair, port: Optional[int], places: List[Address]) -> None:
        """Ask for an event for a handler.

        :param places: our ends of other connections to what claims to be the same process.
        """
        number = self._subscription.ask(pair)
        told = [(without_zone(host), own_port) for host, own_port in places]
        self._ask(encode_subscribe(number, Subscribe(pair, port, told)))

    def unsubscribe(self, pair: Pair) -> None:
        """Tell the publisher that a handler hears an event no more."""
        self._channel.send(encode_unsubscribe(pair))

    # ---------------------------------------------------------------------------- events

    def _take(self, frame: Frame) -> None:
        self._subscription.check_frame(frame.number)
        size = len(frame.text) + sum(map(len, frame.buffers))
        if size > MAX_READ or frame.tagged and b'"!value"' in frame.text:
            self._hold(DECODER)
            self._services.decoder.do(partial(self._decode_elsewhere, frame, size))
        else:
            self._taken_as(frame, size, *_decode(frame, self._services.settings))

    def _find_room(self, frame: Frame, size: int, wanted: int) -> None:
        """Have a frame read in another thread, as soon as there is memory for it."""
        if self._ended:
            return
        room = Room(self._services.memory)
        if room.take(wanted):
            room.free()
            self._services.decoder.do(partial(self._decode_elsewhere, frame, size))
        else:
            again = partial(self._find_room, frame, size, wanted)
            self._services.loop.call_later(ROOM_TIME, again)

    def _decode_elsewhere(self, frame: Frame, size: int) -> None:
        room = Room(self._services.memory)
        try:
            found, problem = _decode(frame, self._services.settings, room.charge)
        except NoRoom:
            # What it takes in the end is not known before it is read, if there is anything tagged.
            wanted = room.wanted * (2 if frame.tagged else 1)
            room.free()
            self._services.loop.call_soon(partial(self._find_room, frame, size, wanted))
            return
        self._services.loop.call_soon(partial(self._decoded, frame, size, room, found, problem))

    def _decoded(self, frame: Frame, size: int, room: Room, found: Sequence[Entry],
                 problem: Optional[str]) -> None:
        free = room.free
        is_queued = False
        try:
            if not self._ended:
                is_queued = self._taken_as(frame, size, found, problem, free)
                self._release(DECODER)
        except NetError as error:
            self._end(error)
        except RuntimeError as error:  # no thread to be had for the handlers
            self._end(PeerLost(self._owner.address, str(error)))
        finally:
            if not is_queued:
                free()

    def _taken_as(self, frame: Frame, size: int, found: Sequence[Entry], problem: Optional[str],
                  free: Optional[Callable[[], None]] = None) -> bool:
        """Queue the events of a frame, and acknowledge it. Return whether there was anything to
        queue; then ``free`` is called once that is done."""
        if problem is not None:
            self._taken = None
            self._channel.send(encode_taken(frame.number, problem))
            return False
        is_queued = self._deliver(self._subscription.read(found), size, free)
        if self._taken is None:
            # Once for all frames that are received in one go.
            self._services.loop.call_soon(self._acknowledge)
        self._taken = frame.number
        return is_queued

    def _acknowledge(self) -> None:
        number, self._taken = self._taken, None
        if number is not None and not self._ended:
            self._channel.send(encode_taken(number))

    def _deliver(self, items: List[Item], size: int,
                 free: Optional[Callable[[], None]] = None) -> bool:
        jobs: List[Job] = []
        address = self._owner.address
        hearers: Dict[Pair, Optional[Hearer]] = {}
        last: Any = None
        for pair, args, kwargs in items:
            if args is None:
                hearer = self._hearer(pair, gap=True)
                if hearer is not None:
                    jobs.append(Job([hearer], (self.peer, kwargs), {}, address))
                continue
            if pair not in hearers:
                hearers[pair] = self._hearer(pair)
            hearer = hearers[pair]
            if hearer is None:
                continue
            if args is last:
                jobs[-1].hearers.append(hearer)
            else:
                last = args
                jobs.append(make_job(([hearer], args, kwargs, address)))
        if jobs and not self._services.runner.put(jobs, size, free):
            self._hold(QUEUE)
            self._services.when_room(partial(self._release, QUEUE))
        return bool(jobs)

    def _hearer(self, pair: Pair, gap: bool = False) -> Optional[Hearer]:
        """How to call a handler; None if it was unsubscribed."""
        handler = self._services.handler(pair)
        if handler is None:
            return None
        failed = partial(self._on_failure, pair)
        if handler.place is None:
            return Hearer(handler.run_gap if gap else handler.run, pair[1], failed)
        if gap:
            return Hearer(handler.run_gap, pair[1], failed, handler.place.lane)
        return Hearer(handler.run, pair[1], failed, handler.place.lane,
                      partial(handler.run_gap, self.peer))

    def _hold(self, reason: str) -> None:
        self._holds.add(reason)
        self._channel.pause()

    def _release(self, reason: str) -> None:
        self._holds.discard(reason)
        if not self._holds and not self._ended:
            self._channel.resume()

    # -------------------------------------------------------------------------- failures

    def _on_failure(self, pair: Pair, problem: BaseException) -> None:
        """A handler has raised. Called by the runner, in its thread."""
        text = _describe(problem)
        note(logging.ERROR, "the handler %s raised on the event %r of %s", tag_name(pair[1]),
             pair[0], self.peer, exc_info=problem)
        self._services.loop.call_soon(partial(self._add_failure, (pair[0], pair[1].decode(), text)))

    def _add_failure(self, failure: Tuple[str, str, str]) -> None:
        if self._ended:
            return
        if len(self._failures) < MAX_FAILURES:
            self._failures.append(failure)
        else:
            self._more_failures += 1
        if self._telling is None:
            delay = max(0.0, self._told + TELL_TIME - monotonic())
            self._telling = self._services.loop.call_later(delay, self._tell_failures)

    def _tell_failures(self) -> None:
        self._telling = None
        self._told = monotonic()
        failures, self._failures = self._failures, []
        more, self._more_failures = self._more_failures, 0
        self._channel.send(encode_failed(failures, more))


def _decode(frame: Frame, settings: Settings, charge: Optional[Callable[[int], None]] = None) \
        -> Tuple[Sequence[Entry], Optional[str]]:
    """The events of a frame, or the reason for which they cannot be read.

    :raises NoRoom: ``charge`` has no memory left for them.
    """
    try:
        return list(read_events(frame, settings.limits, charge)), None
    except NoRoom:
        raise
    except BaseException as problem:  # a class of the application's may raise anything
        return (), _describe(problem)


def _describe(problem: BaseException) -> str:
    try:
        return printable(f"{type(problem).__name__}: {problem}", 500)
    except BaseException:  # its __str__ may be as wrong as the handler
        return printable(type(problem).__name__)
