"""A LAN that is simulated: hundreds of nodes, their datagrams and their clock, in milliseconds.

Each node has what decides in a real process (Responder, Membership, Rounds); sockets, threads and
time are those of the simulation. The same seed gives the same run.
"""
from __future__ import annotations

import heapq
import json
from itertools import count
from random import Random
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from net.discovery.lan.datagrams import (ANSWER, ASK, ASK_BYTES, GOODBYE, HELLO, NOBODY, Message,
                                         Question, Seal, decode, digest, encode, encode_question,
                                         encode_hello, read_said)
from net.discovery.lan.responder import Responder, Self
from net.discovery.lan.rounds import Rounds
from net.discovery.membership import ACCEPTED, REFUSED, SILENT, Heard, Membership

Address = Tuple[str, int]
PORTS = range(3010, 3016)
# Seconds after the start of a process at which it says hello.
HELLOS = (0.0, 0.15, 0.5)


class Network:
    """What happens to datagrams between hosts.

    :param loss: the share of datagrams that is lost, each way.
    :param delay: seconds each way.
    :param jitter: seconds that are added at random, each way.
    :param twice: the share of datagrams that comes twice.
    :param cost: seconds of processor time for each datagram that a node takes; ``cores`` share it.
    """

    def __init__(self, seed: int = 1, loss: float = 0.0, delay: float = 0.0002,
                 jitter: float = 0.0, twice: float = 0.0, cost: float = 0.0,
                 cores: int = 2) -> None:
        self.random = Random(seed)
        self.loss, self.delay, self.jitter, self.twice = loss, delay, jitter, twice
        self.cost = cost
        self.now = 0.0
        self.nodes: Dict[Address, Node] = {}
        self.sent = 0
        self.cut: Set[str] = set()
        #: Until when what is sent to and from a host waits for its hardware address.
        self.waiting: Dict[str, float] = {}
        #: Whether what one host sends can reach another one.
        self.filter: Callable[[str, str], bool] = lambda source, target: True
        self._cores = [0.0] * cores
        self._events: List[Tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), action))

    def run(self, seconds: float) -> None:
        """Let this much time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            when, _, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: float) -> float:
        """Let time pass until a condition holds; return the seconds that it took."""
        began = self.now
        while not condition():
            assert self.now - began < limit, f"not within {limit} s"
            self.run(0.01)
        return self.now - began

    def passes(self, source: str, target: str) -> bool:
        if source == target:
            return True
        if source in self.cut or target in self.cut or not self.filter(source, target):
            return False
        return self.random.random() >= self.loss

    def travel(self, source: str, target: str) -> float:
        return 0.0 if source == target else self.delay + self.random.random() * self.jitter

    def resolved(self, source: str, target: str) -> float:
        """Seconds that what is sent waits for hardware addresses."""
        until = max([self.waiting.get(host, 0.0) for host in (source, target)])
        return 0.0 if source == target else max(0.0, until - self.now)

    def send(self, data: bytes, source: Address, target: Address) -> None:
        self.sent += 1
        self._deliver(data, source, target)

    def broadcast(self, data: bytes, source: Address) -> None:
        """To all ports of all hosts."""
        self.sent += len(PORTS)
        for target in list(self.nodes):
            self._deliver(data, source, target)

    def _deliver(self, data: bytes, source: Address, target: Address) -> None:
        for _ in range(2 if self.twice and self.random.random() < self.twice else 1):
            if self.passes(source[0], target[0]):
                wait = self.resolved(source[0], target[0])
                self.at(self.now + wait + self.travel(source[0], target[0]),
                        lambda: self._arrive(data, source, target))

    def _arrive(self, data: bytes, source: Address, target: Address) -> None:
        node = self.nodes.get(target) or self.nodes.get(self.owner(target))
        if node is None:
            return
        if not self.cost:
            node.receive(data, source, target)
            return
        core = min(range(len(self._cores)), key=self._cores.__getitem__)
        self._cores[core] = max(self._cores[core], self.now) + self.cost
        self.at(self._cores[core], lambda: node.receive(data, source, target))

    @staticmethod
    def owner(address: Address) -> Address:
        """The address of the peer that a searching socket belongs to: 40,000 less."""
        return address[0], address[1] - 40000

    def knock(self, node: Node, address: Address) -> None:
        """Connect: three attempts of the kernel in the time that a knock has, a second."""
        host = address[0]
        wait = self.resolved(node.address[0], host)
        trip = self.travel(node.address[0], host) + self.travel(host, node.address[0])
        for attempt in (0.0, 0.3, 0.6):
            if wait + attempt + trip < 1.0 and self.passes(node.address[0], host) \
                    and self.passes(host, node.address[0]):
                break
        else:
            self.at(self.now + 1.0, lambda: node.knocked(address, SILENT))
            return
        outcome = ACCEPTED if address in self.nodes else REFUSED
        self.at(self.now + wait + attempt + trip, lambda: node.knocked(address, outcome))


class Node:
    """One process with a peer.

    :ivar listed: the instances of the peers that it lists, by address.
    :ivar changes: ``(time, "came" or "left", address)`` of each change.
    """

    def __init__(self, network: Network, host: str, port: int = 3010, watching: bool = False,
                 seal: Optional[bytes] = None, facts: Optional[Dict[str, Any]] = None,
                 hellos: Tuple[float, ...] = HELLOS) -> None:
        self.network = network
        self.address = host, port
        self.born = network.now
        self.instance = network.random.getrandbits(128).to_bytes(16, "big")
        self.seal = Seal(seal) if seal else None
        self.facts = json.dumps({"host": host, "port": port, **(facts or {})}).encode()
        self.listed: Dict[Address, bytes] = {}
        self.changes: List[Tuple[float, str, Address]] = []
        self.sent = 0
        self.frozen = False
        self.dead = False
        self._backlog: List[Tuple[bytes, Address, Address]] = []
        self.membership = Membership(self.instance, port, self, self._permit, bool(seal),
                                     network.random)
        self.responder = Responder(self._self, self.membership.sum, False, self.seal)
        self.rounds: Optional[Rounds] = None
        self.searched: Optional[Tuple[float, int]] = None
        self._waking = float("inf")
        network.nodes[self.address] = self
        if watching:
            self.membership.watch(True, network.now)
        for when in hellos:
            network.at(network.now + when, lambda: self.dead or self.hello())

    def _self(self) -> Self:
        return Self(self.instance, self.address[1], int(self.membership.watching) * 2, self.facts,
                    self.born)

    def _permit(self, address: Address) -> bytes:
        return self.responder.permit(address)

    # ------------------------------------------------------------------ time and datagrams

    def wake(self) -> None:
        """See to it that what is due next is run then."""
        due = min(self.membership.timers.due, self.responder.due)
        if due < self._waking:
            self._waking = due
            self.network.at(due, lambda: self._run(due))

    def _run(self, due: float) -> None:
        # If something had to be done earlier, that has set another time.
        if self.dead or self.frozen or due != self._waking:
            return
        self._waking = float("inf")
        now = self.network.now
        self.membership.tick(now)
        for data, address in self.responder.beats(now):
            self._send(data, address)
        self.wake()

    def receive(self, data: bytes, source: Address, target: Address) -> None:
        if self.dead:
            return
        if self.frozen:
            self._backlog.append((data, source, target))
            return
        now = self.network.now
        message = decode(data, self.seal)
        if message is None or source == self.address:
            return
        if message.kind == ASK:
            reply = self.responder.answer(message, source, now)
            if reply is not None:
                self._send(reply, source)
                self.membership.asked(message, source, now)
        elif target[1] > 40000:
            self._searched(message, source, now)
        else:
            self.membership.received(message, source, now)
        self.wake()

    def _send(self, data: bytes, address: Address) -> None:
        self.sent += 1
        self.network.send(data, self.address, address)

    # ------------------------------------------------------------------ searching

    def search(self) -> None:
        """Ask everybody who is there."""
        self.rounds = Rounds(self.network.now, self.network.random)
        self.searched = None
        self._ask_all()

    def _ask_all(self) -> None:
        rounds, now = self.rounds, self.network.now
        if rounds is None or self.dead or self.frozen:
            return
        if rounds.over(now):
            self.rounds = None
            self.searched = now, len(self.listed)
            return
        if now >= rounds.due:
            nonce = rounds.ask(now)
            known = b"".join([digest(self.listed[one], nonce) for one in rounds.answered
                              if one in self.listed])
            data = encode(Message(ASK, 0, 0, nonce, self.instance,
                                  encode_question(Question(known), ASK_BYTES, bool(self.seal))),
                          self.seal)
            self.sent += len(PORTS)
            self.network.broadcast(data, (self.address[0], self.address[1] + 40000))
        self.network.at(now + 0.005, self._ask_all)

    def _searched(self, message: Message, source: Address, now: float) -> None:
        if self.rounds is None or message.kind != ANSWER or message.instance == NOBODY:
            return
        seconds = self.rounds.heard(message.nonce, source, now, age=message.age)
        said = read_said(message.body)
        if seconds is None or said is None or source == self.address:
            return
        self.found(Heard(source, message.instance, message.flags, said.facts, seconds))

    # ------------------------------------------------------------------ what a membership does

    def send(self, message: Message, address: Address) -> None:
        self._send(encode(message, self.seal), address)

    def hello(self, kind: int = HELLO) -> None:
        me = self._self()
        body = encode_hello(me.facts) if kind == HELLO else b""
        self.sent += len(PORTS)
        self.network.broadcast(
            encode(Message(kind, me.flags, me.port, bytes(8), me.instance, body), self.seal),
            (self.address[0], 50000))

    def tell_all(self, message: Message) -> None:
        self.sent += len(PORTS)
        self.network.broadcast(encode(message, self.seal), (self.address[0], 50000))

    def look_around(self) -> None:
        if self.rounds is None:
            self.search()

    def knock(self, address: Address) -> None:
        self.network.knock(self, address)

    def knocked(self, address: Address, outcome: str) -> None:
        if not self.dead and not self.frozen:
            self.membership.knocked(address, outcome, self.network.now)
            self.wake()

    def probe(self, address: Address) -> None:
        pass

    def reaches(self, address: Address) -> bool:
        return address[1] in PORTS and address != self.address \
            and address[0].startswith(("10.", "fd", "fe80:"))

    def found(self, heard: Heard) -> None:
        if heard.address == self.address:
            return
        if self.listed.get(heard.address) != heard.instance:
            self.changes.append((self.network.now, "came", heard.address))
        self.listed[heard.address] = heard.instance
        self.membership.add(heard, self.network.now)

    def lost(self, address: Address) -> None:
        self.listed.pop(address, None)
        self.changes.append((self.network.now, "left", address))

    # ------------------------------------------------------------------ what befalls it

    def kill(self) -> None:
        self.dead = True
        del self.network.nodes[self.address]

    def close(self) -> None:
        """An orderly end."""
        self.kill()
        self.hello(GOODBYE)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for data, source, target in backlog:
            self.receive(data, source, target)
        self._waking = float("inf")
        self._run(self._waking)


def lan(network: Network, nodes: int, watching: bool = False, per_host: int = 1,
        **more: Any) -> List[Node]:
    """A number of nodes that know nothing of each other yet."""
    return [Node(network, f"10.77.{n // per_host // 250}.{n // per_host % 250 + 1}",
                 PORTS[n % per_host], watching, **more) for n in range(nodes)]


def know_each_other(nodes: List[Node]) -> None:
    """Let all list all, as after searches."""
    for one in nodes:
        for other in nodes:
            if one is not other:
                one.found(Heard(other.address, other.instance, 2, b"{}", 0.001))
        one.membership.round_trips.searched(len(nodes) - 1, float(bool(one.network.loss)))
        one.changes.clear()
        one.wake()


def wrong(nodes: List[Node]) -> int:
    """How many entries of all lists are missing or too many."""
    truth = {node.address: node.instance for node in nodes if not node.dead}
    found = 0
    for node in nodes:
        if not node.dead:
            expected = {address: one for address, one in truth.items() if address != node.address}
            found += len(set(expected.items()) ^ set(node.listed.items()))
    return found


def settled(count: int, seconds: float = 8.0, seed: int = 1, **options: Any) -> List[Node]:
    """A number of watchers that know each other, after a while."""
    nodes = lan(Network(seed, **options), count, watching=True, hellos=())
    know_each_other(nodes)
    nodes[0].network.run(seconds)
    return nodes


def without(nodes: List[Node], *gone: Node) -> List[Node]:
    return [node for node in nodes if node not in gone]


def listing(node: Node, nodes: List[Node]) -> int:
    """How many of these list a node."""
    return sum(node.address in one.listed for one in nodes if one is not node and not one.dead)


def left(nodes: List[Node]) -> List[Tuple[float, str, Address]]:
    """Each report of a node that another one is gone."""
    return [change for node in nodes for change in node.changes if change[1] == "left"]


class Stranger:
    """A host that is none of the nodes and may send them what it likes."""

    address = ("10.77.5.66", 3010)

    def __init__(self, nodes: List[Node]) -> None:
        self.nodes = nodes
        self.network = nodes[0].network

    def send(self, message: Message, target: Address, source: Optional[Address] = None) -> None:
        self.network.send(encode(message), source or self.address, target)
        self.network.run(0.01)
