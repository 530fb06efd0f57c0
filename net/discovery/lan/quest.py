"""A search of this host and of the LAN.

It begins with datagrams to the peers of this host and to all of the LAN. These also fill the
neighbour table; a moment later its hosts are divided among THREAD_LIMIT threads, which ask over TCP
those that have not answered by datagram: peers of the old dialect, and those behind a firewall that
blocks datagrams.
"""
from __future__ import annotations

import math
import threading
from random import random
from time import monotonic
from typing import Callable, Iterable, List, Optional, Sequence, Set, Tuple

from ...errors import Address
from ...link import interfaces
from ...link.addresses import is_link_local
from ...link.local import named_loopback
from ...peer import route_address
from ...process import process
from ...settings import is_loopback, settings
from ..answers import Answer
from ..membership import Heard
from ..probes import TICK, Candidate, Sweep
from ..finder import Search
from ..merging import better_address
from . import neighbours
from .asker import Asker, Place, lan_places, this_host
from .datagrams import EVERYWHERE_6, Seal
from .echo import Echo
from .node import Node
from .rounds import Rounds

# All times are seconds from the start of the search, if they do not say otherwise.
#
# For the peers of this host to answer by datagram, before all its ports are asked over TCP. For
# each other process that searches at the same time HOST_PER_OTHER more, up to HOST_LAST: answers
# take longer then, and connections would only delay them further.
HOST_SECONDS, HOST_PER_OTHER, HOST_LAST = 0.005, 0.005, 0.15
# When the addresses of this host's networks are asked one by one: after the first have answered, so
# that they need not answer again, and with the second question, which must not wait for them.
SWEEP_AT = 0.026
# Seconds that this waits for the ports of this host to show whether there are old programs; for
# those that have accepted a connection it waits longer.
OLD_SECONDS = 0.06
# From the last of these datagrams to reading the neighbour table: hosts answer within a millisecond
# or two. Those that were asleep are found by later readings.
SETTLE_SECONDS = 0.02
LATER_LOOKS = (0.03, 0.2, 0.5)
# How many processes may search at the same time and still ask these addresses. If more did, each
# host would get as many questions for the same dead addresses, and those that share a kernel, as
# containers do, would fill its neighbour table, so that none of them is answered any more. So they
# ask once the others have ended. A process that nobody has answered asks during its search, but not
# at once with all others: SWEEP_LATE seconds after its start and some moment later, within
# SWEEP_PER_OTHER for each of the others, and before SWEEP_LAST.
FEW, SWEEP_LATE, SWEEP_PER_OTHER, SWEEP_LAST = 3, 0.5, 0.02, 2.5
# How many hosts may have answered by datagram and still be asked at their other ports. If there are
# more, a process that keeps a list asks these later, too: five connections to each would take
# longer than all the rest of the search.
MANY = 100
# Seconds between looks, until then, at whether somebody has answered; and at whether what reads a
# neighbour table has ended.
LOOK_AGAIN = 0.03
# When all hosts are asked to show themselves, if nothing is swept and nobody has answered until
# then: broadcasts may be lost here. Each that does takes room in the neighbour tables of IPv6.
PING_AT = 0.1

# How often a search that has had its answers asks those that have started meanwhile. Where many
# processes start together, each of the first would end without the last.
NEWCOMERS = 2

# Hosts of the neighbour table that are asked, those of this host's networks first. A larger table
# is not a LAN's, or was filled on purpose.
MAX_HOSTS = 2048


class LanQuest:
    """One search of this host and, unless that is all that is asked for, of the LAN.

    :param answer: makes an answer of what was heard; None if TCP has to tell.
    """

    def __init__(self, search: Search, node: Node, instance: bytes, seal: Optional[Seal],
                 answer: Callable[[Heard], Optional[Answer]]) -> None:
        self._search = search
        self._report = search.report
        self._decode = answer
        self._node = node
        self._crowd = node.crowd()
        self._on_host = search.on_host or settings.loopback_only
        self._workers: List[Tuple[threading.Thread, Sweep]] = []
        # Neighbour tables on their way, those that have come, and the hosts taken from them.
        self._readers: List[threading.Thread] = []
        self._tables: List[Tuple[neighbours.Table, str, List[neighbours.Addresses]]] = []
        self._hosts: Set[str] = set()
        # Addresses to be primed on each interface, and those of them that nothing could be sent to.
        self._swept: interfaces.Targets = []
        self._primed: List[str] = []
        self._unsent: List[str] = []
        # Addresses that need not be primed: they have answered, and are asked over TCP at once.
        self._passed_by: Set[str] = set()
        self._interfaces: List[interfaces.Interface] = []
        self._chosen: List[interfaces.Interface] = []
        self._heard_beyond: Set[Address] = set()
        # Addresses that peers name, which have answered at others only so far.
        self._better: Set[Address] = set()
        # Own addresses that are not asked, and ports of this host at which no other peer can be in
        # IPv6.
        self._passed: Set[str] = set()
        self._known_by = ""
        self._taken: Set[int] = set()
        # Readings of the neighbour table since the last datagrams that fill it.
        self._looks = 0
        self._probed_own = False
        self._old_until = 0.0
        # Whether those that have answered are put into the neighbour table, as a sweep would do:
        # programs with an older app-net find hosts nowhere else, and answers put none there.
        self._touching = False
        # Its turn among many that sweep, from 0 to 1.
        self._share = random()
        # Whether it is not known yet what to sweep; and what is left to be swept after the search.
        self._undecided = False
        self._owed: List[str] = []
        # Hosts that have answered, whose other ports are asked after it, too.
        self._answered: List[str] = []
        # Asks the hosts of each link to show themselves where nothing is swept; whether it is still
        # to begin.
        self._echo: Optional[Echo] = None
        self._pinging = False
        # How often peers that said hello during the search were asked.
        self._asked_newcomers = 0
        places = self._own_places() + self._lan_places()
        rounds = Rounds(search.started, crowd=self._crowd, expected=bool(self._chosen))
        self.asker = Asker(places, search.ports, instance, search.sweep.listen, self._heard,
                           self._hint, rounds, monotonic, seal, (), search.own)
        # When it stops waiting for answers to it; infinity from then on.
        self._ends = rounds.ends
        self.asker.step(search.started)
        search.later(search.started + HOST_SECONDS, self._probe_own)

    # ------------------------------------------------------------------ where

    def _own_places(self) -> List[Place]:
        named = named_loopback()
        if settings.loopback_only:
            host = "127.0.0.1" if settings.host == "localhost" else str(settings.host)
            self._known_by = host
            self._search.own = list(dict.fromkeys(("127.0.0.1", host, *named)))
        else:
            self._interfaces, note = interfaces.read()
            addresses = [one.address for one in self._interfaces
                         if one.is_six or not is_loopback(one.address)]
            self._known_by = route_address()
            self._search.own = list(dict.fromkeys(
                ("127.0.0.1", self._known_by, *named, *addresses)))
            # A peer that serves at one of these alone is asked at none that is only for a time, or
            # for the containers of this host.
            self._passed = {one.address for one in self._interfaces if one.is_six
                            and not is_loopback(one.address) and one.address != self._known_by
                            and (one.passing or interfaces.why_not_swept(one))}
            if note:
                self._report.notes.append(note)
        return this_host([host for host in self._search.own if host not in self._passed],
                         self._known_by)

    def _lan_places(self) -> List[Place]:
        if self._on_host:
            return []
        plan = interfaces.plan(self._interfaces, settings.interfaces,
                               settings.sweep is not False)
        self._report.searched_lan = True
        self._report.interfaces = [str(interface) for interface in plan.asked]
        self._report.notes += plan.notes
        self._chosen = plan.asked
        self._swept, notes = interfaces.targets(plan.swept, self._search.own)
        self._report.notes += notes
        return lan_places(plan.asked)

    # ------------------------------------------------------------------ who

    def _heard(self, heard: Heard) -> None:
        answer = self._decode(heard)
        if answer is None:
            self._hint(heard.address)
            return
        if heard.address[0] not in self._search.own:
            self._heard_beyond.add(heard.address)
            better = better_address(answer)
            if better is not None:
                self._better.add(better)
        elif heard.flags & EVERYWHERE_6:
            self._taken.add(heard.address[1])
        self._search.found(answer)

    def _hint(self, address: Address) -> None:
        beyond = address[0] not in self._search.own
        if beyond:
            self._heard_beyond.add(address)
        self._search.hint(address, "datagram" if beyond else "this host")

    def _ask_better(self) -> None:
        """Ask the addresses that peers name and from which no answer has come: each peer is listed
        by the one that it names, here as everywhere, if it answers there, too."""
        for address in self._better:
            if not self._search.has(address) and address[1] in self._search.ports \
                    and address[0] not in self._search.own and is_in(address[0], self._chosen):
                self._search.hint(address, "datagram")
        self._better.clear()

    def _probe_own(self) -> None:
        """Ask over TCP at the ports of this host that no peer has answered from."""
        wait = min(HOST_LAST, HOST_SECONDS + self._node.crowd() * HOST_PER_OTHER)
        if monotonic() < self._search.started + wait:
            self._search.later(self._search.started + wait, self._probe_own)
            return
        self._probed_own = True
        for host in self._search.own:
            for port in self._search.ports:
                if not self._search.has((host, port)) and host not in self._passed \
                        and not (":" in host and port in self._taken and host != self._known_by):
                    self._search.sweep.add(Candidate((host, port), "this host"))
        if self._chosen:
            now = monotonic()
            self._old_until = now + OLD_SECONDS
            self._undecided = True
            self._search.later(max(self._search.started + SWEEP_AT, now + TICK), self._prime)

    # ------------------------------------------------------------------ the neighbour table

    def _prime(self) -> None:
        now = monotonic()
        if self._swept:
            wait, reason = self._why_not_swept(now)
            if wait:
                self._search.later(now + wait, self._prime)
                return
            if reason:
                self._report.notes.append(f"not swept: {reason}")
                self._swept = []
        self._undecided = False
        if not (self._swept or self._heard_beyond or self._crowd) and settings.sweep is not False:
            self._pinging = True
            self._search.later(self._search.started + PING_AT, self._ping)
        if not self._crowd:
            self._passed_by = {host for host, _ in self._heard_beyond if ":" not in host
                               and (not settings.interfaces or is_in(host, self._chosen))}
            # They are there for certain: their other ports need not wait for the table.
            self._fill(self._search.sweep, self._newcomers(self._passed_by))
        self.asker.step(now)
        for interface, swept in self._swept:
            hosts = [host for host in swept if host not in self._passed_by]
            for unsent in self.asker.prime(interface, hosts):
                self._unsent += unsent
                self._search.sweep.step(0)
                self.asker.step(monotonic())
            self._primed += hosts
            self._report.primed += len(hosts)
        self._report.primed -= len(self._unsent)
        if self._primed:
            self._looks = 0
        if self._primed or not self._crowd and not self._looks:
            self._search.later(monotonic() + SETTLE_SECONDS, self._read_table)

    def _why_not_swept(self, now: float) -> Tuple[float, str]:
        """Seconds until it can be decided, or the reason not to sweep. Without either, sweep
        now."""
        if settings.sweep is None and not neighbours.may_forget():
            self._touching = True
            return 0.0, ("this user may not take addresses without a host out of the neighbour "
                         "table again, and searches of an older app-net here would ask each; if "
                         "one on another host is missing, name its host in NET_PEERS, or set "
                         "NET_SWEEP=1")
        if self._may_show_an_old_one(now):
            return TICK, ""
        if self._has_an_old_one():
            # Its searches ask each row of the neighbour table, also of hosts that are not there.
            self._touching = True
            return 0.0, ("a program with an older app-net is on this host, and its own searches "
                         "would take very long")
        if self._crowd > FEW:
            if self._heard_beyond:
                self._owed = [host for _, hosts in self._swept for host in hosts]
                return 0.0, f"{self._crowd} others search at the moment; this is done later"
            late = min(SWEEP_LAST - SWEEP_LATE, self._crowd * SWEEP_PER_OTHER) * self._share
            wait = self._search.started + SWEEP_LATE + late - now
            return max(0.0, min(LOOK_AGAIN, wait)), ""
        return 0.0, ""

    def _ping(self) -> None:
        self._pinging = False
        links = [one for one in self._chosen if is_link_local(one.address)]
        if self._heard_beyond or self._crowd or not links:
            return
        try:
            self._echo = Echo(links, self._search.sweep.listen)
        except OSError as exc:
            self._report.notes.append(f"hosts were not asked to answer a ping of IPv6: "
                                      f"{exc.strerror}")
            return
        self._echo.send()
        self._looks = 0
        self._search.later(monotonic() + SETTLE_SECONDS, self._read_table)

    def _may_show_an_old_one(self, now: float) -> bool:
        """Whether a program on this host may be about to show that it is an old one."""
        if now < self._old_until:
            return not self._search.sweep.idle
        # One that is busy takes longer; each has its time limit.
        return self._search.sweep.unsure and now < self._search.started + SWEEP_LATE

    def _has_an_old_one(self) -> bool:
        """Whether an old program is on this host, by its answer now or to an earlier search."""
        findings = self._search.sweep.findings
        if any([answer.old and answer.address[0] in self._search.own
                for answer in findings.answers]):
            return True
        return any([process.client.dialect((host, port))
                    and findings.outcomes.get((host, port)) not in ("refused", "peer")
                    and not self._search.has((host, port))
                    for host in self._search.own for port in self._search.ports])

    def _read_table(self) -> None:
        """Read the neighbour table; in a thread where it takes a command, which may hang."""
        if self._has_looked and self.asker.over(monotonic()):
            return
        if self._looks < len(LATER_LOOKS):
            self._search.later(monotonic() + LATER_LOOKS[self._looks], self._read_table)
        self._looks += 1
        if self._echo is not None and self._looks > 1 and not self._heard_beyond:
            self._echo.send()  # once more: the one before may have been lost
        table = neighbours.read_at_once()
        if table is not None:
            self._take_table(table, *self._read_six(neighbours.SOURCES_SIX[:1]))
            return
        reader = threading.Thread(target=self._read, name="net-neighbours", daemon=True)
        try:
            reader.start()
            self._readers.append(reader)
        except RuntimeError:  # can't start new thread
            self._read()

    def _read(self) -> None:
        self._tables.append((neighbours.read(), *self._read_six(neighbours.SOURCES_SIX)))

    def _read_six(self, sources: Sequence[neighbours.SourceSix]
                  ) -> Tuple[str, List[neighbours.Addresses]]:
        """The neighbours in IPv6, if they are asked."""
        if not any([one.is_six for one in self._chosen]):
            return "", []
        return neighbours.read_six(sources)

    def _take_table(self, table: neighbours.Table, source: str = "",
                    in_six: Iterable[neighbours.Addresses] = ()) -> None:
        """Divide the hosts of the neighbour tables among threads, and those that could not be
        primed.

        :param source: of ``in_six``, the neighbours in IPv6.
        """
        self._report.neighbour_source = ", ".join(filter(None, (table.source, source)))
        self._report.notes += [note for note in table.notes if note not in self._report.notes]
        echoed = self._echo.hosts if self._echo and not self._heard_beyond else set()
        # A host that has answered at one of its addresses is not asked at others.
        heard = {host for host, _ in self._heard_beyond} | echoed
        six = {addresses[0] for addresses in in_six if not heard.intersection(addresses)}
        hosts = (echoed | six).union(table.hosts).difference(self._search.own)
        hosts |= self._passed_by
        if settings.interfaces:
            hosts = {host for host in hosts if is_in(host, self._chosen)}
        self._report.neighbours = max(self._report.neighbours, len(hosts))
        shares = self._newcomers(hosts)
        # A connection attempt finds out the hardware address as well as a datagram does. A host
        # that shows no life then is either gone, or in the table at the second reading.
        others = self._unsent if table.source or self._undecided else [
            host for _, swept in self._swept for host in swept]
        shares += [(host, False) for host in others if host not in hosts]
        self._unsent = []
        if not self._undecided:
            self._swept = []
        if self._workers:
            self._fill(self._search.sweep, shares)
        else:
            self._divide(shares)

    def _newcomers(self, hosts: Set[str]) -> List[Tuple[str, bool]]:
        """Those of some hosts that have not been asked yet."""
        shares = [(host, True) for host in self._nearest(hosts - self._hosts)]
        self._hosts |= hosts
        return shares

    def _nearest(self, hosts: Set[str]) -> List[str]:
        room = max(0, MAX_HOSTS - len(self._hosts))
        if len(hosts) <= room:
            return list(hosts)
        self._report.notes.append(f"{len(hosts):,} hosts in the neighbour table, {room:,} asked")
        return sorted(hosts, key=lambda host: not is_in(host, self._interfaces))[:room]

    def _divide(self, shares: List[Tuple[str, bool]]) -> None:
        """Start a thread for each share of the hosts; without threads, take them all here."""
        threads = min(self._search.threads, len(shares))
        for number in range(threads):
            share = shares[number::threads]
            worker = self._search.new_sweep()
            self._fill(worker, share)
            thread = threading.Thread(target=worker.run, name=f"net-sweep-{number}", daemon=True)
            try:
                thread.start()
                self._workers.append((thread, worker))
                self._search.sweeps.append(worker)
            except RuntimeError:  # can't start new thread
                worker.close()
                self._fill(self._search.sweep, share)
        if not threads:
            self._fill(self._search.sweep, shares)

    def _fill(self, sweep: Sweep, shares: List[Tuple[str, bool]]) -> None:
        heard = {host for host, _ in self._heard_beyond}
        later = len(heard) > MANY and self._node.membership.port
        for host, exists in shares:
            if host in heard and self._crowd:
                continue
            if host in heard and later:
                self._answered.append(host)
                continue
            # Peers that have answered by datagram need not be asked again.
            ports = [port for port in self._search.ports if not self._search.has((host, port))]
            if ports:
                sweep.add_host(host, ports, "neighbour table" if exists else "sweep",
                               exists=exists)

    # ------------------------------------------------------------------ the clock

    @property
    def _has_looked(self) -> bool:
        """Whether the neighbour table has been read often enough, even if it is late: where nobody
        answers datagrams, once more after the first time, which may have come too soon."""
        return self._looks >= (1 if self._heard_beyond else 2)

    @property
    def due(self) -> float:
        due = min(self.asker.due, self._ends)
        if any([thread.is_alive() for thread in self._readers]):
            due = min(due, monotonic() + LOOK_AGAIN)
        return due

    def step(self, now: float) -> None:
        self._crowd = self.asker.rounds.crowd = max(self._crowd, self._node.crowd())
        self.asker.step(now)
        if self.asker.over(now) and self._asked_newcomers < NEWCOMERS and self._chosen:
            newcomers = self._node.newcomers(self._search.started)
            self._asked_newcomers += self.asker.ask_newcomers(newcomers, now)
        if self._better and self.asker.over(now):
            self._ask_better()
        if self._crowd and not self._looks and self._chosen and self.asker.over(now):
            # Peers that have answered by now need not be asked for.
            self._read_table()
        while self._tables:
            self._take_table(*self._tables.pop(0))
        if not self.asker.rounds.quick and self._chosen:
            self.asker.rounds.quick = self._lan_is_quick()
        ends = self.asker.rounds.ends
        self._ends = ends if ends > now else math.inf  # the rest is waited for without it

    def _lan_is_quick(self) -> bool:
        """Whether some other host has answered a connection attempt, which takes a round trip."""
        return any(outcome in ("refused", "stranger", "peer") and host not in self._search.own
                   for sweep in self._search.sweeps
                   for (host, _), outcome in list(sweep.findings.outcomes.items()))

    def over(self, now: float) -> bool:
        if self._tables or any(thread.is_alive() for thread in self._readers):
            return False
        if any(thread.is_alive() for thread, _ in self._workers):
            return False
        if not self._chosen:
            # Each port of this host has answered, refused or had its time.
            return self._probed_own
        return self._has_looked and not (self._undecided or self._pinging) \
            and self.asker.over(now)

    def close(self) -> None:
        for _, worker in self._workers:
            worker.stop()
        for thread, _ in self._workers:
            thread.join()
        left = neighbours.forget(self._primed) if self._primed else 0
        if left:
            self._report.notes.append(f"{left} addresses without a host stay in the neighbour "
                                      f"table, and a program with an older app-net here would ask "
                                      f"each: this user may not take them out, and without "
                                      f"NET_SWEEP=1 there would be none")
        if self._touching:
            self.asker.touch({host for host, _ in self._heard_beyond
                              if ":" not in host and host not in self._hosts})
        asked = {host for host, _ in self._heard_beyond} | self._hosts
        owed = [host for host in self._owed if host not in asked] + self._answered
        if owed:
            self._node.sweep_later(owed, self._crowd)
        if self._answered:
            self._report.notes.append(f"{len(self._answered)} hosts have answered by datagram: "
                                      f"their other ports are asked later")
        self.asker.close()
        if self._echo is not None:
            self._echo.close()
            self._report.notes.append(f"all hosts of each link were asked to answer a ping of "
                                      f"IPv6: {len(self._echo.hosts)} did")
        self._report.heard = len(self._heard_beyond)
        self._report.loss = self.asker.rounds.loss
        self._node.searched(len(self.asker.answered), self._report.loss)
        self._report.round_trip = self.asker.rounds.mean
        self._report.notes += sorted(self.asker.notes)


def is_in(host: str, chosen: Iterable[interfaces.Interface]) -> bool:
    """Whether a host is in the network of one of these interfaces."""
    return any(interface.holds(host) for interface in chosen)
