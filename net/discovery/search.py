"""One search: this host, NET_PEERS and the LAN, all at once and against one clock.

What is known at once is asked at once: the ports of this host, the peers of NET_PEERS, and by
datagram everybody on the LAN. The datagrams fill the neighbour table meanwhile; a moment later its
hosts are divided among THREAD_LIMIT threads. Whatever answers a datagram is only a candidate: what
counts is an answer to ``info`` over TCP.
"""
from __future__ import annotations

import logging
import threading
from ipaddress import IPv4Address, ip_address
from time import monotonic
from typing import Callable, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..settings import is_loopback, settings
from ..errors import Address
from ..peer import route_address
from ..link import security
from ..link.local import named_loopback
from ..log import SafeLog
from .lan import interfaces, neighbours
from .lan.asker import Asker
from .report import Report
from .probes import Answer, Candidate, Findings, Sweep, TICK, window

log = SafeLog(__name__)

# All times are seconds from the start of the search, if they do not say otherwise.
#
# When the search ends at the latest, and when strangers are no longer asked, so that their last
# answers can still come.
END = 0.9
LAST_START = 0.4
# For whoever is known to be a peer, or named by NET_PEERS, perhaps at the far end of a VPN.
EXPECTED_SECONDS = 0.8

# For the peers of this host to answer, before the question wakes up the whole LAN.
LEAD_SECONDS = 0.003

# For a program on this host that has accepted to say whether it is an old one.
OLD_SECONDS = 0.05

# From the last priming datagram to the look at the neighbour table: hosts answer within a
# millisecond or two. Who was asleep is found by a second look.
SETTLE_SECONDS = 0.02
SECOND_LOOK_SECONDS = 0.1

# The broadcast is repeated once, since Wi-Fi loses some. After this long without a new answer
# nobody else is coming.
ASK_AGAIN = 0.08
QUIET_SECONDS = 0.15
ASK_END = 0.4

# Hosts of the neighbour table that are asked, those of the own networks first. A table of more is
# no LAN, or somebody fills it.
MAX_HOSTS = 2048
# Entries of NET_PEERS.
MAX_NAMED = 1024


class Outcome(NamedTuple):
    """What a search found. ``own`` are the addresses of this host."""

    answers: List[Answer]
    own: Set[str]
    report: Report


def search(on_host: bool = False, known: Iterable[Address] = ()) -> Outcome:
    """Look for peers.

    :param on_host: on this host only.
    :param known: addresses to ask beside those that the search finds.
    """
    security.credentials()  # made before the clock runs: where there is a secret, it takes 0.1 s
    return _Search(on_host, list(known)).run()


def look_at(addresses: Iterable[Address], seconds: float) -> List[Answer]:
    """Ask just these addresses; gives the answers."""
    security.credentials()
    end = monotonic() + seconds
    sweep = Sweep(window(1), end, set())
    for address in addresses:
        sweep.add(Candidate(address, "announcement", seconds))
    sweep.run()
    return sweep.findings.answers


class _Search:
    """The state of one search. For one thread, which may start others."""

    def __init__(self, on_host: bool, known: List[Address]) -> None:
        self._on_host = on_host or settings.loopback_only
        self._named = not on_host
        self._known = known
        self._ports = settings.ports
        self._report = Report()
        self._started = self._step_started = monotonic()
        # Addresses that any sweep has probed, and those that answered a datagram.
        self._tried: Set[Address] = set()
        self._heard: Set[Address] = set()
        self._last_news = self._started
        # The sweep of this thread, and those of the others.
        self._threads = 0 if self._on_host else settings.thread_limit
        self._window = window(self._threads + 1)
        self._sweep = Sweep(self._window, self._started + LAST_START, self._tried)
        self._workers: List[Tuple[threading.Thread, Sweep]] = []
        self._asker: Optional[Asker] = None
        # Neighbour tables on their way, those that have come, and the hosts taken from them.
        self._readers: List[threading.Thread] = []
        self._tables: List[neighbours.Table] = []
        self._hosts: Set[str] = set()
        # Addresses to be primed on each interface, and those of them that nothing could be sent to.
        self._swept: interfaces.Targets = []
        self._primed: List[str] = []
        self._unsent: List[str] = []
        # Addresses of this host, all its interfaces, and those that are searched.
        self._own: List[str] = []
        self._interfaces: List[interfaces.Interface] = []
        self._chosen: List[interfaces.Interface] = []
        # What is to be done later: (monotonic time, function).
        self._schedule: List[Tuple[float, Callable[[], None]]] = []

    def run(self) -> Outcome:
        try:
            self._ask_this_host()
            self._step("this host")
            if self._named:
                self._ask_named()
            for address in self._known:
                if address not in self._tried and self._allowed(address[0]):
                    self._sweep.add(Candidate(address, "known before"))
            if not self._on_host:
                self._ask_lan()
                self._step("asking the LAN")
            while not self._done():
                self._sweep.step(TICK)
                self._do_what_is_due()
            self._step("answers")
        finally:
            self._close()
        self._report.own = self._own
        return Outcome(self._collect(), set(self._own), self._report)

    @staticmethod
    def _allowed(host: str) -> bool:
        return is_loopback(host) or not settings.loopback_only

    def _step(self, name: str) -> None:
        now = monotonic()
        self._report.steps.append((name, now - self._step_started))
        self._step_started = now

    # ------------------------------------------------------------------ who is asked at once

    def _ask_this_host(self) -> None:
        if settings.loopback_only:
            host = "127.0.0.1" if settings.host == "localhost" else settings.host
            self._ask_own(["127.0.0.1", str(host), *named_loopback()])
            return
        # Where nearly all peers of this host are; they answer while the interfaces are read, which
        # takes some milliseconds at the first time.
        self._ask_own(["127.0.0.1", route_address(), *named_loopback()])
        self._interfaces, note = interfaces.read()
        self._ask_own([interface.address for interface in self._interfaces
                       if not is_loopback(interface.address)])
        if note:
            self._report.notes.append(note)

    def _ask_own(self, hosts: List[str]) -> None:
        new = [host for host in dict.fromkeys(hosts) if host not in self._own]
        self._own += new
        for host in new:
            for port in self._ports:
                self._sweep.add(Candidate((host, port), "this host"))
        lead_ends = monotonic() + LEAD_SECONDS
        while not self._sweep.idle and monotonic() < lead_ends:
            self._sweep.step(LEAD_SECONDS)

    def _ask_named(self) -> None:
        if len(settings.peers) > MAX_NAMED:
            self._report.notes.append(f"NET_PEERS: only the first {MAX_NAMED} entries are asked")
        for entry in settings.peers[:MAX_NAMED]:
            try:
                host, port = parse_named(entry)
            except ValueError as exc:
                self._report.notes.append(f"NET_PEERS: {entry!r} {exc}")
                continue
            if not self._allowed(host):
                self._report.notes.append(
                    f"NET_PEERS: {entry!r} is dropped, NET_HOST={settings.host} keeps to this host")
                continue
            ports = self._ports if port is None else (port,)
            self._sweep.add_host(host, ports, "NET_PEERS", EXPECTED_SECONDS)

    # ------------------------------------------------------------------ the LAN

    def _ask_lan(self) -> None:
        plan = interfaces.plan(self._interfaces, settings.interfaces, settings.sweep)
        self._report.searched_lan = True
        self._report.interfaces = [str(interface) for interface in plan.asked]
        self._chosen = plan.asked
        swept = [] if plan.swept and self._is_old_here() else plan.swept
        self._swept, notes = interfaces.targets(swept, self._own)
        self._report.notes += plan.notes + notes
        asker = Asker(plan.asked, self._ports, self._sweep.listen, self._hear)
        if plan.asked:
            self._asker = asker
            asker.broadcast()
            self._later(self._started + ASK_AGAIN, asker.broadcast)
        for interface, hosts in self._swept:
            for unsent in asker.prime(interface, hosts):
                self._unsent += unsent
                self._sweep.step(0)
            self._primed += hosts
            self._report.primed += len(hosts)
        self._report.primed -= len(self._unsent)
        now = monotonic()
        self._later(now + SETTLE_SECONDS, self._read_table)
        self._later(now + SETTLE_SECONDS + SECOND_LOOK_SECONDS, self._read_table)

    def _hear(self, address: Address) -> None:
        """A peer has answered a datagram."""
        if address[0] in self._own:
            return  # asked already
        self._last_news = monotonic()
        self._heard.add(address)
        if address not in self._tried:
            self._sweep.add(Candidate(address, "datagram", EXPECTED_SECONDS))

    def _read_table(self) -> None:
        """Read the neighbour table; in a thread, because a broken `arp` may hang."""
        reader = threading.Thread(target=lambda: self._tables.append(neighbours.read()),
                                  name="net-neighbours", daemon=True)
        try:
            reader.start()
            self._readers.append(reader)
        except RuntimeError:  # can't start new thread
            self._tables.append(neighbours.read())

    def _take_table(self, table: neighbours.Table) -> None:
        """Divide the hosts of the neighbour table, and those that could not be primed."""
        self._report.neighbour_source = table.source
        self._report.notes += [note for note in table.notes if note not in self._report.notes]
        hosts = set(table.hosts) - set(self._own)
        if settings.interfaces:
            hosts = {host for host in hosts if _is_in(host, self._chosen)}
        self._report.neighbours = max(self._report.neighbours, len(hosts))
        shares = [(host, True) for host in self._nearest(hosts - self._hosts)]
        self._hosts |= hosts
        # A connection attempt finds out the hardware address as well as a datagram does. Who shows
        # no life then is either gone, or in the table at the second look.
        others = self._unsent if table.source else [
            host for _, swept in self._swept for host in swept]
        shares += [(host, False) for host in others if host not in hosts]
        self._unsent, self._swept = [], []
        if self._workers:
            self._fill(self._sweep, shares)
        else:
            self._divide(shares)

    def _nearest(self, hosts: Set[str]) -> List[str]:
        room = max(0, MAX_HOSTS - len(self._hosts))
        if len(hosts) <= room:
            return list(hosts)
        self._report.notes.append(f"{len(hosts):,} hosts in the neighbour table, {room:,} asked")
        return sorted(hosts, key=lambda host: not _is_in(host, self._interfaces))[:room]

    def _divide(self, shares: List[Tuple[str, bool]]) -> None:
        """Start a thread for each share of the hosts; without threads, take them all here."""
        threads = min(self._threads, len(shares))
        for number in range(threads):
            share = shares[number::threads]
            worker = Sweep(self._window, self._started + LAST_START, self._tried)
            self._fill(worker, share)
            thread = threading.Thread(target=worker.run, name=f"net-sweep-{number}", daemon=True)
            try:
                thread.start()
                self._workers.append((thread, worker))
            except RuntimeError:  # can't start new thread
                worker.close()
                self._fill(self._sweep, share)
        if not threads:
            self._fill(self._sweep, shares)

    def _fill(self, sweep: Sweep, shares: List[Tuple[str, bool]]) -> None:
        for host, exists in shares:
            found = "neighbour table" if exists else "sweep"
            sweep.add_host(host, self._ports, found, exists=exists)

    # ------------------------------------------------------------------ the clock

    def _later(self, when: float, action: Callable[[], None]) -> None:
        self._schedule.append((when, action))

    def _do_what_is_due(self) -> None:
        now = monotonic()
        due = [action for when, action in self._schedule if when <= now]
        self._schedule = [(when, action) for when, action in self._schedule if when > now]
        for action in due:
            action()
        while self._tables:
            self._take_table(self._tables.pop(0))

    def _done(self) -> bool:
        now = monotonic()
        if now >= self._started + END:
            return True
        if self._schedule or self._tables or not self._sweep.idle:
            return False
        if any(thread.is_alive() for thread in self._readers):
            return False
        if any(thread.is_alive() for thread, _ in self._workers):
            return False
        quiet = now >= min(self._last_news + QUIET_SECONDS, self._started + ASK_END)
        return self._asker is None or quiet

    # ------------------------------------------------------------------ the end

    def _close(self) -> None:
        for _, worker in self._workers:
            worker.stop()
        for thread, _ in self._workers:
            thread.join()
        self._sweep.close()
        if self._asker is not None:
            self._asker.close()
        if self._primed:
            neighbours.forget(self._primed)

    def _is_old_here(self) -> bool:
        """Whether an old program runs on this host. Its searches ask each row of the neighbour
        table, also those of hosts that are not there. Waits a moment for who is about to say so.
        """
        ends = monotonic() + OLD_SECONDS
        while self._sweep.unsure and monotonic() < ends:
            self._sweep.step(TICK)
        old = any(answer.old for answer in self._sweep.findings.answers)
        if old:
            self._report.notes.append("not swept: a program with an older app-net is on this host, "
                                      "and its own searches would take very long")
        return old

    def _collect(self) -> List[Answer]:
        total = Findings()
        for sweep in (self._sweep, *(worker for _, worker in self._workers)):
            total.merge(sweep.findings)
        report = self._report
        report.heard = len(self._heard)
        report.probed = len(self._tried)
        report.outcomes, report.left = total.outcomes, total.left
        if total.answers:
            report.first = min(answer.at for answer in total.answers) - self._started
        report.strangers = total.strangers
        report.notes += sorted(total.notes)
        if self._asker is not None:
            report.notes += sorted(self._asker.notes)
        report.silent_peers = sorted(
            address for address in self._heard
            if total.outcomes.get(address) not in ("peer", "stranger"))
        log(logging.DEBUG, "search: %s", report)
        return total.answers


def _is_in(host: str, chosen: Iterable[interfaces.Interface]) -> bool:
    """Whether a host is in the network of one of these interfaces."""
    return any(IPv4Address(host) in interface.network for interface in chosen)


def parse_named(entry: str) -> Tuple[str, Optional[int]]:
    """Host and port of an entry of NET_PEERS; None for all ports. Resolves nothing.

    :raises ValueError: no address; the text says why.
    """
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        host = host if bracket else entry
        port = port[1:] if port.startswith(":") else port
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ip_address(host)
    except ValueError:
        raise ValueError("is no IP address, and names are not resolved") from None
    if not port:
        return host, None
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("has no port from 1 to 65535")
    return host, int(port)
