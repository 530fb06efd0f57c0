"""The LAN as one process takes part in it: its beacons and its membership, on the loop."""
from __future__ import annotations

import logging
import math
import socket
import threading
from functools import partial
from random import random
from time import monotonic
from typing import Callable, Dict, Iterable, List, Optional, Set, Tuple

from ...errors import Address
from ...link import interfaces
from ...link.carriers import Carriers
from ...link.tcp import is_own_address
from ...log import DISCOVERY, RateLimitedLog
from ...peer import EVERYWHERE, bind_hosts
from ...process import Process
from ...run.loop import READ, WRITE, Loop, Timer
from ...settings import is_loopback, settings
from ..answers import Answer
from ..finder import Listing
from ..membership import ACCEPTED, REFUSED, SILENT, Heard, Membership
from .beacon import Beacon, make_seal
from .datagrams import ASK, HELLO, Message, Seal, decode, encode
from .following import Following
from .responder import CROWD_SECONDS
from .sockets import Sockets

note = RateLimitedLog(logging.getLogger(DISCOVERY))

# Seconds after a peer was launched at which it says hello. A datagram may be lost, and the other
# peers may get more at a time than they can take.
HELLOS = (0.0, 0.15, 0.5)
# Seconds in which functions may be registered, from the first on, before all are told of it.
CHANGE_SECONDS = 0.1
# Seconds of a connection attempt that only finds out whether a port is open, and when another one
# is begun: the kernel repeats a lost packet after a second.
KNOCK_SECONDS, KNOCKS = 1.0, (0.0, 0.3, 0.6)
# Seconds for which this host's networks are remembered, unless they are known to have changed.
NETWORKS_SECONDS = 5.0
# Each of the processes that search at the same time sweeps later, at some moment within this many
# seconds for each of them.
SWEEP_LATER = 0.5
# Addresses that may wait to be asked over TCP; more are a flood, and the next search finds them.
MAX_PROBES = 256
# Seconds that such an address may take to answer.
PROBE_SECONDS = 1.0
# Seconds after which a peer is listed by the address that it has answered at, if nothing comes from
# the one that it names.
BETTER_SECONDS = 1.0


class Node:
    """What one process sends and answers on the LAN. For the loop's thread, unless stated
    otherwise.

    :param instance: that of this process.
    :param decode_facts: makes an answer of what was heard; None if TCP has to tell.
    :param look_around: asks all peers to answer, in the background.
    :ivar membership: what it knows of the listed peers.
    """

    def __init__(self, process: Process, listing: Listing, instance: bytes,
                 decode_facts: Callable[[Heard], Optional[Answer]],
                 look_around: Callable[[], None]) -> None:
        self._process = process
        self._loop = process.loop
        self._listing = listing
        self._instance = instance
        self._decode_facts = decode_facts
        self._look_around = look_around
        self.beacons: List[Beacon] = []
        self._home: Optional[Beacon] = None
        self._observing: Optional[Sockets] = None
        self._following: Optional[Following] = None
        self.membership = Membership(instance, 0, self, self._permit)
        self._seal: Optional[Seal] = None
        self._timer: Optional[Timer] = None
        self._resting: Optional[Timer] = None
        self._telling: Optional[Timer] = None
        self._sweeping: Optional[Timer] = None
        self._waking = math.inf
        self._knocks: Dict[Address, Knock] = {}
        self._networks: List[interfaces.Interface] = []
        self._networks_until = 0.0
        self._lock = threading.Lock()  # guards the next two
        self._probes: Set[Address] = set()
        self._probing = False

    # ------------------------------------------------------------------ the peers of this process

    def add(self, beacon: Beacon) -> None:
        """A peer was launched."""
        self.beacons.append(beacon)
        for sock in beacon.sockets.all:
            self._loop.register(sock, READ, partial(self._receive, beacon))
        self._settle()
        self._greet(beacon)

    def remove(self, beacon: Beacon) -> None:
        """A peer has stopped serving."""
        if beacon in self.beacons:
            self.beacons.remove(beacon)
            self._close(beacon.sockets)
            self._settle()

    def _close(self, sockets: Sockets) -> None:
        for sock in sockets.all:
            self._loop.unregister(sock)
        sockets.close()

    def _greet(self, beacon: Beacon) -> None:
        beacon.forget_facts()
        for seconds in HELLOS:
            self._loop.call_later(seconds, partial(self._announce, beacon))

    def changed(self) -> None:
        """What our peers say about themselves has changed, and may soon change again."""
        for beacon in self.beacons:
            beacon.forget_facts()
        if self._telling is None and self.beacons:
            self._telling = self._loop.call_later(CHANGE_SECONDS, self._tell_changes)

    def _tell_changes(self) -> None:
        self._telling = None
        for beacon in self.beacons:
            self._greet(beacon)

    def _announce(self, beacon: Beacon) -> None:
        if beacon in self.beacons:
            beacon.announce(HELLO)

    def _settle(self) -> None:
        """Send from the first peer's socket; without one, from a separate socket if need be."""
        before = self._home
        self._home = self.beacons[0] if self.beacons else None
        needed = self._home is None and self.membership.watching
        if needed and self._observing is None:
            self._observe()
        elif not needed and self._observing is not None:
            self._close(self._observing)
            self._observing = None
        self._follow()
        if self._home is not before:
            self.membership.moved(self._home.port if self._home else 0, monotonic())
        self._settle_flags()
        self._schedule()

    def _follow(self) -> None:
        """Follow the addresses of this host for as long as they matter."""
        needed = any([not beacon.local for beacon in self.beacons]) if self.beacons \
            else self.membership.watching and not settings.loopback_only
        if needed and self._following is None:
            self._following = Following(self._loop, self._moved)
        elif not needed and self._following is not None:
            self._following.close()
            self._following = None

    def _moved(self) -> None:
        """Addresses of this host have come or gone: be known at the new ones, and look anew."""
        note(logging.INFO, "the addresses of this host have changed")
        self._networks_until = 0.0
        for beacon in self.beacons:
            beacon.join()
            self._greet(beacon)
        now = monotonic()
        if self.membership.knows_anybody:
            self.membership.awake(now)
        # From an address that has gone nothing is answered any more, and what waits for it hangs.
        self._process.client.close_idle()
        for moved in self._process.moved:
            moved()
        self._schedule()

    def _settle_flags(self) -> None:
        for beacon in self.beacons:
            beacon.watching = self.membership.watching and beacon is self._home

    def _observe(self) -> None:
        try:
            self._observing = Sockets(bind_hosts() if settings.loopback_only else EVERYWHERE, 0)
            for sock in self._observing.all:
                self._loop.register(sock, READ, self._receive_observing)
        except OSError as exc:
            note(logging.INFO, "peers cannot be watched: %s", exc)
            return
        self._seal = make_seal()

    def abandon(self) -> None:
        """Close the sockets that a forked child has inherited, without a goodbye."""
        for beacon in self.beacons:
            beacon.sockets.close()
        for knock in self._knocks.values():
            knock.abandon()
        if self._observing is not None:
            self._observing.close()
        if self._following is not None:
            self._following.abandon()

    # ------------------------------------------------------------------ time and datagrams

    def _receive(self, beacon: Beacon, mask: int) -> None:
        beacon.receive(mask)
        self._schedule()

    def received(self, message: Message, source: Address, now: float) -> None:
        """A datagram came to one of our peers."""
        self.membership.received(message, source, now)

    def _receive_observing(self, _mask: int) -> None:
        now = monotonic()
        assert self._observing is not None
        for data, source in self._observing.receive():
            message = decode(data, self._seal)
            if message is not None and message.kind != ASK:
                self.membership.received(message, source, now)
        self._schedule()

    def _schedule(self) -> None:
        """Schedule the next step."""
        due = min([self.membership.timers.due] + [one.responder.due for one in self.beacons])
        if due < self._waking or self._timer is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._waking = due
            if due < math.inf:
                self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._step)

    def _step(self) -> None:
        self._timer = None
        self._waking = math.inf
        # Datagrams that have arrived count before deadlines that have passed.
        for beacon in list(self.beacons):
            beacon.receive()
        if self._observing is not None:
            self._receive_observing(0)
        now = monotonic()
        self.membership.tick(now)
        for beacon in self.beacons:
            watched = bool(beacon.responder.watchers)
            for data, address in beacon.responder.beats(now):
                beacon.send(data, address)
            if watched and not beacon.responder.watchers:
                # This process no longer watches it: if others rely on that, they find out now.
                beacon.announce(HELLO)
        self._schedule()

    # ------------------------------------------------------------------ what the cache says

    def watch(self, until: float) -> None:
        """Take part in watching the listed peers until then."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        now = monotonic()
        if now < until < math.inf:
            self._resting = self._loop.call_later(until - now, partial(self.watch, 0.0))
        self.membership.watch(until > now, now)
        self._settle()

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        """The list has changed."""
        now = monotonic()
        for address in gone:
            self.membership.drop(address, now)
        for answer in answers:
            heard = answer.heard
            if heard is None:
                heard = Heard(answer.address, instance_of(answer), 0, None, answer.seconds)
            self.membership.add(heard, now, answer.heard is not None)
        self._schedule()

    def doubt(self, address: Address) -> None:
        """A call could not reach a listed peer."""
        self.membership.doubt(address, monotonic(), tell=True)
        self._schedule()

    def crowd(self) -> int:
        """How many others have searched in the last second. Any thread may call."""
        home = self._home
        return home.responder.crowd(monotonic()) if home is not None else 0

    def newcomers(self, since: float) -> List[Tuple[Address, bytes]]:
        """Address and instance of those that have said hello since then and are not listed. Any
        thread."""
        return self.membership.newcomers(since)

    def searched(self, answers: int, loss: float) -> None:
        """A search had so many answers, and this share of its questions was lost. Any thread."""
        if self.membership.port:
            self._soon(partial(self.membership.round_trips.searched, answers, loss))

    # ------------------------------------------------------------------ what a membership does

    def _permit(self, address: Address) -> bytes:
        return self._home.responder.permit(address) if self._home is not None else b""

    def send(self, message: Message, address: Address) -> None:
        if self._home is not None:
            self._home.send(encode(message, self._home.seal), address)
        elif self._observing is not None:
            try:
                self._observing.send(encode(message, self._seal), address)
            except OSError as exc:
                note(logging.DEBUG, "nothing sent to %s: %s", address, exc)

    def tell_all(self, message: Message) -> None:
        if self._home is not None:
            self._home.broadcast(encode(message, self._home.seal))

    def hello(self) -> None:
        self._settle_flags()
        for beacon in self.beacons:
            beacon.announce(HELLO)

    def look_around(self) -> None:
        self._look_around()

    def knock(self, address: Address) -> None:
        if address not in self._knocks:
            self._knocks[address] = Knock(self._loop, address, self._knocked,
                                          self._process.client.carriers)

    def _knocked(self, address: Address, outcome: str) -> None:
        del self._knocks[address]
        self.membership.knocked(address, outcome, monotonic())
        self._schedule()

    def reaches(self, address: Address) -> bool:
        if address[1] not in settings.ports or self._is_own(address):
            return False
        if settings.loopback_only or is_loopback(address[0]):
            return is_loopback(address[0])
        now = monotonic()
        if now >= self._networks_until:
            self._networks = interfaces.read()[0]
            self._networks_until = now + NETWORKS_SECONDS
        return any([one.holds(address[0]) for one in self._networks])

    def _is_own(self, address: Address) -> bool:
        return any([address[1] == beacon.port for beacon in self.beacons]) \
            and is_own_address(address[0])

    def found(self, heard: Heard) -> None:
        answer = self._decode_facts(heard)
        if answer is None:
            self.probe(heard.address)
            return
        from ..merging import better_address  # only lists of peers need it

        better = better_address(answer)
        if better is None or heard.address in self.membership.members \
                or better in self.membership.members or not self.reaches(better):
            self._listing.learn([answer])
            return
        # It is listed by the address that it names, here as everywhere, if it answers there, too.
        self.membership.look_at(better, monotonic())
        self._loop.call_later(BETTER_SECONDS, partial(self._listing.learn, [answer]))

    def lost(self, address: Address) -> None:
        self._listing.drop(address)

    def probe(self, address: Address) -> None:
        with self._lock:
            if len(self._probes) < MAX_PROBES:
                self._probes.add(address)
            if self._probing:
                return
            try:
                threading.Thread(target=self._probe_all, name="net-keeper", daemon=True).start()
                self._probing = True
            except RuntimeError as problem:
                # No thread can be started, or the program is ending; the next probe tries again.
                note(logging.INFO, "news of %d peers have to wait: %s", len(self._probes),
                     problem)

    def _probe_all(self) -> None:
        """In a thread of its own."""
        from ..probes import look_at  # with all that a search needs

        while True:
            with self._lock:
                addresses = set(self._probes)
                self._probes.clear()
                if not addresses:
                    self._probing = False
                    return
            findings = look_at(addresses, PROBE_SECONDS)
            self._listing.learn(findings.answers)
            instances = {answer.address: instance_of(answer) for answer in findings.answers}
            for address in addresses:
                outcome = findings.outcomes.get(address, "")
                known = REFUSED if outcome == "refused" else \
                    ACCEPTED if outcome == "stranger" else SILENT
                self._tell(address, known, instances.get(address, b""))

    def sweep_later(self, hosts: List[str], crowd: int) -> None:
        """Ask hosts over TCP, at ports where no peer is listed, once the others that search now
        have had their time: old programs answer nothing else. Any thread may call."""
        def schedule() -> None:
            if self._sweeping is None:
                seconds = CROWD_SECONDS + SWEEP_LATER * crowd * random()
                self._sweeping = self._loop.call_later(seconds, partial(self._sweep, hosts))

        self._soon(schedule)

    def _sweep(self, hosts: List[str]) -> None:
        self._sweeping = None
        if not self.membership.watching:
            return  # nobody asks for the list any more; the next search sweeps

        def sweep() -> None:
            from ..probes import look_for
            from .neighbours import forget

            self._listing.learn(look_for(hosts, self._listing.knows).answers)
            forget(hosts)

        try:
            threading.Thread(target=sweep, name="net-keeper", daemon=True).start()
        except RuntimeError as problem:
            note(logging.INFO, "not swept: %s", problem)

    def _tell(self, address: Address, outcome: str, instance: bytes) -> None:
        def probed() -> None:
            self.membership.probed(address, outcome, instance, monotonic())
            self._schedule()

        self._soon(probed)

    def _soon(self, action: Callable[[], None]) -> None:
        try:
            self._loop.call_soon(action)
        except OSError as exc:
            note(logging.INFO, "peers cannot be watched: %s", exc)


class Knock:
    """Finds out whether a port is open: a few connection attempts, the first that ends counts."""

    def __init__(self, loop: Loop, address: Address,
                 ended: Callable[[Address, str], None], carriers: Carriers) -> None:
        self._loop = loop
        self._carriers = carriers
        self._address = address
        self._ended = ended
        self._sockets: List[socket.socket] = []
        self._timers = [loop.call_later(seconds, self._try) for seconds in KNOCKS]
        self._timers.append(loop.call_later(KNOCK_SECONDS, partial(self._end, SILENT)))

    def _try(self) -> None:
        try:
            carrier, endpoint = self._carriers.to(self._address)
            sock = carrier.start(endpoint)
        except OSError:
            return  # out of descriptors, or no way there at the moment; the deadline tells
        self._sockets.append(sock)
        self._loop.register(sock, WRITE, partial(self._connected, sock))

    def _connected(self, sock: socket.socket, _mask: int) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            self._end(ACCEPTED)
        elif OSError(code, "").__class__ is ConnectionRefusedError:
            self._end(REFUSED)
        else:
            self._loop.unregister(sock)
            self._sockets.remove(sock)
            sock.close()

    def _end(self, outcome: str) -> None:
        for timer in self._timers:
            timer.cancel()
        for sock in self._sockets:
            self._loop.unregister(sock)
        self.abandon()
        self._ended(self._address, outcome)

    def abandon(self) -> None:
        """Close what is open."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()


def instance_of(answer: Answer) -> bytes:
    """What stands for a peer on the ring: its instance, or what is made from its address."""
    facts = answer.facts
    instance = facts.get("instance") if isinstance(facts, dict) else None
    try:
        found = bytes.fromhex(instance or "")
    except ValueError:
        found = b""
    if len(found) == 16:
        return found
    from _blake2 import blake2b

    return blake2b(repr((instance, answer.address)).encode(), digest_size=16).digest()
