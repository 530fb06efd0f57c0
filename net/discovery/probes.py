"""Asks many addresses at once to identify themselves: non-blocking sockets, one loop, one deadline.

A probe connects, sends the preface with a call of ``info`` and reads one reply, so a valid answer
proves a peer, and anything else has cost one small packet each way.
"""
from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import sys
from collections import deque
from time import monotonic, sleep
from typing import (TYPE_CHECKING, Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional,
                    Set, Tuple)

from ..errors import (Address, AuthenticationError, MessageTooLarge, NetError, ProtocolError,
                      RemoteError)
from ..identity import printable
from ..process import process
from ..run.streaming import is_refusal
from ..settings import settings
from ..wire import legacy
from ..wire.frames import Frame, NotAFrame
from ..wire.limits import Limits
from ..wire.legacy import INFO, LegacySession
from ..wire.messages import decode_reply, encode_call
from ..wire.session import Hello, caller_session, encode_preface
from ..link import security
from ..link.destination import destination
from ..link.streams import NO_SIGNAL, reset_at_end
from .answers import Answer

if TYPE_CHECKING:
    from ..link.tls import Session as TlsSession

# Seconds for an address to accept, and at least as many for it to answer from then on. On a LAN
# both take a few milliseconds; a sleeping Wi-Fi station is woken within 200.
STRANGER_SECONDS = 0.25
# Seconds in which new probes are started when a whole network is asked in the background.
LOOK_SECONDS = 3.0
# Seconds for a peer that has accepted to shake hands and answer under TLS: two more round trips,
# and some milliseconds of work for each of those that are asked at the same time.
SECURED_SECONDS = 1.0
# Seconds for an address that has sent a peer's HELLO to describe itself. It may have much to say,
# and little time of a busy processor.
PEER_SECONDS = 2.0
# Seconds after which a host that neither accepts nor refuses is taken for gone. Its other ports
# are tried all the same, but after those of hosts that show life.
DOUBT_SECONDS = 0.1
# Seconds for those ports, at most.
DOUBTED_SECONDS = 0.35

# Bytes of a reply to `info`. Ours has a few hundred; anything longer is not one.
MAX_REPLY = 64 * 1024

# Seconds between checks of the clock.
TICK = 0.01
# Seconds between two checks, beyond which this process counts as not having run meanwhile.
LATE = 0.03

# Sockets of a whole search, over all its threads, and the share of this process's descriptors that
# it takes: the application needs the rest. Windows selects 512 at most. For NET_PEERS there are as
# many again, because silent ones hold theirs for long.
MAX_SOCKETS = 512 if hasattr(selectors, "PollSelector") else 256
DESCRIPTOR_SHARE = 4

# How many strangers the report names. More would only repeat each other.
MAX_STRANGERS = 100

# On Windows each of these has another number, which errno has under the same name.
_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH}
_DENIED = {errno.EPERM, errno.EACCES}

# It takes no descriptor of its own, which may be the very thing that is missing.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Findings:
    """What a sweep has found so far. Each sweep has its own; :meth:`merge` adds them up.

    :ivar outcomes: how each probe ended: ``peer``, ``stranger`` (something else answered),
        ``refused``, ``silent``, ``nobody`` (silent, and no host is known there), ``unreachable``,
        ``denied`` (by this host).
    :ivar left: how many were not tried before the deadline.
    :ivar strangers: what answered without being a peer, and how.
    """

    def __init__(self) -> None:
        self.answers: List[Answer] = []
        self.outcomes: Dict[Address, str] = {}
        self.left = 0
        self.strangers: List[Tuple[Address, str]] = []
        self.notes: Set[str] = set()

    def stranger(self, address: Address, what: str) -> None:
        self.outcomes[address] = "stranger"
        if len(self.strangers) < MAX_STRANGERS:
            self.strangers.append((address, what))

    def merge(self, other: Findings) -> None:
        self.answers += other.answers
        self.outcomes.update(other.outcomes)
        self.left += other.left
        self.strangers = (self.strangers + other.strangers)[:MAX_STRANGERS]
        self.notes |= other.notes


class Host:
    """A host: one port is tried before the rest.

    :ivar exists: whether there is such a host at all, as far as is known. If not, silence counts as
        an answer, and the rest is not tried.
    """

    def __init__(self, host: str, ports: Iterable[int], exists: bool) -> None:
        self.host = host
        self.rest = deque(ports)
        self.exists = exists


class Candidate(NamedTuple):
    """An address that may be a peer's. ``seconds`` is its time limit."""

    address: Address
    found: str
    seconds: float = STRANGER_SECONDS
    host: Optional[Host] = None


class Sweep:
    """One loop over the probes of one thread.

    :param window: sockets in flight at most.
    :param end: monotonic time from which on nothing new is started.
    :param tried: addresses that were probed by any sweep of the search; shared between threads.
    :param beside: a sweep of the same thread, whose steps wait for the probes of this one, too. The
        first port of each host of this one is tried until its end, even after ``seconds``.
    :param seconds: in which probes of hosts that have not shown life are started, from the first
        step after the hosts were added.
    """

    def __init__(self, window: int, end: float, tried: Set[Address],
                 beside: Optional[Sweep] = None, seconds: float = math.inf) -> None:
        self.findings = Findings()
        self.window = max(1, window)
        self._end = end
        self._seconds = seconds
        self._until = math.inf
        self._added = False
        self._tried = tried
        self.credentials = security.credentials()
        self._beside = beside
        self._selector: Any = _Selector() if beside is None else beside._selector
        self._urgent: Deque[Candidate] = deque()
        # The other ports of hosts that have shown life, hosts, and the other ports of silent ones.
        self._living: Deque[Candidate] = deque()
        self._queue: Deque[Candidate] = deque()
        self._doubted: Deque[Candidate] = deque()
        self._probes: Set[Probe] = set()
        self._checked = 0.0
        self._stopped = False

    def add(self, candidate: Candidate) -> None:
        """Probe an address ahead of all hosts, even while their probes fill the window."""
        self._urgent.append(candidate)

    def add_host(self, host: str, ports: Iterable[int], found: str,
                 seconds: float = STRANGER_SECONDS, exists: bool = True) -> None:
        """Probe the ports of a host, the first of them first."""
        target = Host(host, ports, exists)
        first = (host, target.rest.popleft())
        self._queue.append(Candidate(first, found, seconds, target))
        self._added = True

    def prolong(self, address: Address, seconds: float) -> None:
        """Give an address that is being probed this many seconds from now: it has shown that it is
        a peer's.
        """
        for probe in self._probes:
            if probe.candidate.address == address:
                probe.deadline = max(probe.deadline, monotonic() + seconds)

    def listen(self, sock: socket.socket, receive: Callable[[socket.socket], None]) -> None:
        """Call a function whenever there is something to receive on a socket."""
        self._selector.register(sock, selectors.EVENT_READ, receive)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not (self._probes or self._urgent or self._living or self._queue or self._doubted)

    @property
    def unsure(self) -> bool:
        """Whether an address has accepted and not yet answered, or is asked again."""
        return any(probe.is_connected or probe.again for probe in self._probes)

    def run(self) -> None:
        """Probe all that was added, to the end or until :meth:`stop`."""
        try:
            while not (self.idle or self._stopped):
                self.step(TICK)
        finally:
            self.close()

    def stop(self) -> None:
        """Make :meth:`run` return soon. Any thread may call."""
        self._stopped = True

    def step(self, seconds: float) -> None:
        """One round: start what there is room for, then handle what happens within this many
        seconds."""
        self.start()
        if not self._selector.get_map():
            # Nothing to wait for, as when there are no descriptors left: only time may help.
            sleep(max(0, seconds))
            return
        # Before the sockets are looked at: what has come in time counts, however late this is.
        now = monotonic()
        for key, _ in self._selector.select(max(0, seconds)):
            key.data(key.fileobj)
        self.expire(now)

    def expire(self, now: float) -> None:
        """End the probes whose time is over (seconds, monotonic)."""
        if now - self._checked >= TICK / 2:
            late = now - self._checked - LATE
            if late > 0:
                # Peers of this host have probably not run either.
                for probe in self._probes:
                    probe.deadline += max(0.0, min(late, now - probe.started))
            self._checked = now
            self._expire(now)

    def close(self) -> None:
        """Close every socket. Unfinished probes are given up."""
        self._leave_the_rest()
        for probe in list(self._probes):
            self._finish(probe)
        if self._beside is None:
            self._selector.close()

    # ------------------------------------------------------------------ starting

    def start(self, most: int = sys.maxsize) -> bool:
        """Start what there is room for, at most this many; return whether it was that many."""
        for _ in range(most):
            # Each time: those that fail at once take no room, and may be thousands.
            self._leave_what_is_late(monotonic())
            candidate = self._next()
            if candidate is None:
                return False
            if candidate.address in self._tried:
                # Another sweep probes it already, because something there has shown life.
                self._alive(candidate)
                continue
            try:
                # An old program prints an error on its console for what it cannot read.
                self._open(candidate, self._dialect(candidate.address))
            except OSError as exc:
                if exc.errno not in _OUT_OF:
                    self._tried.add(candidate.address)
                    if exc.errno in _NO_WAY and candidate.host is not None:
                        candidate.host.rest.clear()  # nor is there one to its other ports
                    self._failed(candidate, exc.errno)
                    continue
                self._urgent.appendleft(candidate)
                self.window = max(1, len(self._probes) // 2)
                self.findings.notes.add(f"fewer probes at a time: {exc.strerror}")
                return False
        return True

    def _next(self) -> Optional[Candidate]:
        """What to probe now; None if there is nothing, or no room for it."""
        if self._urgent and len(self._probes) < 2 * self.window:
            return self._urgent.popleft()
        queue = self._living or self._queue or self._doubted
        return queue.popleft() if queue and len(self._probes) < self.window else None

    def _leave_what_is_late(self, now: float) -> None:
        if now >= self._end:
            self._leave_the_rest()
        elif self._added:
            self._added, self._until = False, now + self._seconds
        elif now >= self._until:
            self._leave(self._doubted)
            if self._beside is None:
                self._leave(self._queue)

    def _leave_the_rest(self) -> None:
        for queue in (self._urgent, self._living, self._queue, self._doubted):
            self._leave(queue)

    def _leave(self, queue: Deque[Candidate]) -> None:
        self.findings.left += len(queue)
        queue.clear()

    def _dialect(self, address: Address) -> str:
        return "" if self.credentials is not None else process.client.dialect(address)

    def _open(self, candidate: Candidate, dialect: str, again: bool = False) -> None:
        carrier, endpoint = process.client.carriers.to(candidate.address)
        sock = carrier.start(endpoint)
        self._tried.add(candidate.address)
        try:
            probe = Probe(self, candidate, sock, dialect, again)
            self._selector.register(sock, selectors.EVENT_WRITE, probe.connected)
        except BaseException:
            sock.close()
            raise
        self._probes.add(probe)

    # ------------------------------------------------------------------ how probes end

    def _expire(self, now: float) -> None:
        for probe in list(self._probes):
            if now >= probe.deadline:
                self.silent(probe)
            elif probe.doubtful(now):
                self._doubt(probe.candidate)

    def silent(self, probe: Probe) -> None:
        """A probe has run out of time."""
        self._finish(probe)
        if not probe.is_connected:
            self._no_life(probe.candidate, "silent")
        else:
            what = "a reply that does not end" if probe.data else "accepts, but does not answer"
            self.findings.stranger(probe.candidate.address, what)

    def failed(self, probe: Probe, code: int) -> None:
        """A probe could not connect."""
        self._finish(probe)
        self._failed(probe.candidate, code)

    def _failed(self, candidate: Candidate, code: Optional[int]) -> None:
        if code in _REFUSED:
            self.findings.outcomes[candidate.address] = "refused"
            self._alive(candidate)
            return
        if code:
            self.findings.notes.add(f"connecting: {os.strerror(code)}")
        self._no_life(candidate, "denied" if code in _DENIED else "unreachable")

    def connected(self, probe: Probe) -> None:
        """A probe has connected and waits for its reply."""
        self._selector.modify(probe.sock, selectors.EVENT_READ, probe.receive)
        self._alive(probe.candidate)

    def no_peer(self, probe: Probe, what: str) -> None:
        """Something answered, but not as a peer does."""
        self._finish(probe)
        self.findings.stranger(probe.candidate.address, what)

    def ask_again(self, probe: Probe, dialect: str) -> None:
        """Ask again in another dialect: the address did not understand, or speaks a newer one by
        now."""
        if probe.again:
            self.no_peer(probe, "answers in one dialect after the other")
            return
        self._finish(probe)
        try:
            self._open(probe.candidate, dialect, True)
        except OSError as exc:
            self.findings.stranger(probe.candidate.address, f"closed, then {exc.strerror}")

    def answered(self, probe: Probe, facts: Any) -> None:
        """A whole reply has come."""
        self._finish(probe)
        self.findings.outcomes[probe.candidate.address] = "peer"
        now = monotonic()
        process.client.saw(probe.candidate.address, probe.dialect)
        self.findings.answers.append(Answer(
            probe.candidate.address, facts, probe.candidate.found, now - probe.started, now,
            probe.dialect, None, len(probe.data)))

    def _finish(self, probe: Probe) -> None:
        self._probes.discard(probe)
        self._selector.unregister(probe.sock)
        if probe.is_connected and probe.is_old:
            # Otherwise the port of an old program, which ends each connection itself, would stay
            # taken for a minute, and the program would move to another one when it restarts.
            reset_at_end(probe.sock, True)
        probe.sock.close()

    def _alive(self, candidate: Candidate) -> None:
        self._spread(candidate, self._living)

    def _no_life(self, candidate: Candidate, outcome: str) -> None:
        exists = candidate.host is None or candidate.host.exists
        self.findings.outcomes[candidate.address] = outcome if exists else "nobody"
        self._doubt(candidate)

    def _doubt(self, candidate: Candidate) -> None:
        if candidate.host is not None and candidate.host.exists:
            self._spread(candidate._replace(seconds=min(candidate.seconds, DOUBTED_SECONDS)),
                         self._doubted)

    def _spread(self, candidate: Candidate, queue: Deque[Candidate]) -> None:
        """Put the other ports of a host into a queue, now that more is known about it."""
        host = candidate.host
        while host is not None and host.rest:
            address = (host.host, host.rest.popleft())
            queue.append(Candidate(address, candidate.found, candidate.seconds, host))


class Probe:
    """One connection that asks one address who it is.

    :ivar data: what has been received, decrypted.
    :ivar dialect: the old dialect that it asks in; empty for ours.
    :ivar again: whether it asks for the second time.
    """

    def __init__(self, sweep: Sweep, candidate: Candidate, sock: socket.socket, dialect: str,
                 again: bool) -> None:
        self._sweep = sweep
        self.candidate = candidate
        self.sock = sock
        self.dialect = dialect
        self.again = again
        self.started = monotonic()
        self.deadline = self.started + candidate.seconds
        self.is_connected = False
        self.data = b""
        # Whether it has answered our preface as old programs do, which takes until its end.
        self._misread = False
        self._tls: Optional[TlsSession] = None

    @property
    def is_old(self) -> bool:
        """Whether the address belongs to an old program, as far as is known."""
        return bool(self.dialect) or self._misread

    def doubtful(self, now: float) -> bool:
        """Whether its host has been silent for so long that it is probably gone."""
        return not self.is_connected and now - self.started >= DOUBT_SECONDS

    def connected(self, sock: socket.socket) -> None:
        """The attempt to connect has ended."""
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._sweep.failed(self, code)
            return
        # Only now: most ports refuse.
        self._session = caller_session(LIMITS)
        self._old = LegacySession(self.dialect, LIMITS)
        try:
            sock.send(self._first_bytes(), NO_SIGNAL)
        except OSError as exc:
            self._sweep.failed(self, exc.errno or 0)
            return
        self.is_connected = True
        self.deadline = max(self.deadline, monotonic() + STRANGER_SECONDS)
        self._sweep.connected(self)

    def _first_bytes(self) -> bytes:
        if self.dialect:
            return self._old.call(INFO, (), {})
        credentials = self._sweep.credentials
        if credentials is None:
            return encode_preface(settings.group)
        from ..link import tls  # loaded already, with the credentials

        self.deadline = monotonic() + SECURED_SECONDS
        self._tls = tls.Session(credentials, self.candidate.address, server=False)
        # Before it is known whether a certificate of an application proves the address.
        to = None if credentials.datagram_key is None else \
            destination(self.sock, self.candidate.address)
        self._tls.write(encode_preface(settings.group, to=to))
        return self._tls.output()

    def _decrypted(self, piece: bytes) -> bytes:
        """What a secured peer says.

        :raises AuthenticationError: it lacks our secret, or a certificate that we trust.
        """
        assert self._tls is not None
        if not piece and not self.data:
            raise self._tls.error("it closed the connection")
        try:
            return self._tls.feed(piece)
        finally:
            self._send_tls(self._tls)

    def _send_tls(self, tls: TlsSession) -> None:
        output = tls.output()
        if output:
            try:
                self.sock.send(output, NO_SIGNAL)
            except OSError:
                pass  # what it has sent can still be received

    def _ask(self) -> None:
        """It is a peer: ask for its description."""
        self.deadline = max(self.deadline, monotonic() + PEER_SECONDS)
        if self._tls is not None:
            self._tls.write(QUESTION)
            self._send_tls(self._tls)
            return
        try:
            self.sock.send(QUESTION, NO_SIGNAL)
        except OSError:
            pass  # the end of the connection is noticed when it is read

    def receive(self, sock: socket.socket) -> None:
        """There is something to receive, or the connection has ended."""
        try:
            piece = sock.recv(MAX_REPLY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        try:
            self._take(piece)
        except AuthenticationError as exc:
            self._sweep.no_peer(self, f"skipped: {printable(exc.reason)}")
        except RemoteError:
            self._sweep.no_peer(self, "a peer, but its info raises an error")
        except (NetError, RecursionError, MemoryError) as exc:
            self._sweep.no_peer(self, f"a peer, but without a usable answer: "
                                      f"{getattr(exc, 'reason', exc)}")

    def _take(self, piece: bytes) -> None:
        ended = not piece
        if self._tls is not None:
            piece = self._decrypted(piece)
        self.data += piece
        if len(self.data) > MAX_REPLY:
            self._sweep.no_peer(self, "talks without end")
        elif self.dialect:
            self._read_old(piece, ended)
        elif self._misread:
            self._read_misread(ended)
        else:
            self._read(piece, ended)

    def _read(self, piece: bytes, ended: bool) -> None:
        try:
            event: Any = self._session.receive(piece)
            if type(event) is Hello:
                self._ask()
                event = self._session.receive()
        except NotAFrame:
            self._misread = True
            self._read_misread(ended)
            return
        except MessageTooLarge:
            self._sweep.no_peer(self, "announces more than an introduction")
            return
        if type(event) is Frame:
            address = self.candidate.address
            if event.number != NUMBER and not is_refusal(event):
                raise ProtocolError(address, "a reply to another request")
            facts = decode_reply(event, address, address, INFO)
            if self._tls is not None and type(facts) is dict:
                facts["group"] = self._tls.group(facts.get("group"))
            self._sweep.answered(self, facts)
        elif ended and not self.data and self._tls is None:
            self._sweep.ask_again(self, legacy.BASE64)
        elif ended:
            self._sweep.no_peer(self, "an incomplete reply")

    def _read_misread(self, ended: bool) -> None:
        """It does not speak our protocol, but may be an old program, which says that it could not
        read us."""
        data = self.data
        if self._tls is not None or not legacy.may_be_old(data):
            self._sweep.no_peer(self, describe(data))
        elif ended or legacy.is_whole(data):
            dialect = legacy.dialect_of(data)
            if dialect:
                self._sweep.ask_again(self, dialect)
            else:
                self._sweep.no_peer(self, describe(data))

    def _read_old(self, piece: bytes, ended: bool) -> None:
        if ended and not self.data:
            if self.again:
                self._sweep.no_peer(self, "closes without an answer")
            else:  # as a peer of today does that does not serve old programs
                self._sweep.ask_again(self, "")
            return
        reply = self._old.receive(piece)
        if not isinstance(reply, legacy.Reply):
            return
        try:
            facts = reply.value(self.candidate.address, INFO)
        except (ProtocolError, RemoteError):
            dialect = legacy.dialect_of(reply.data)
            if dialect in ("", self.dialect):
                raise
            self._sweep.ask_again(self, dialect)
            return
        if isinstance(facts, dict) and "instance" in facts:
            self._sweep.ask_again(self, "")  # a newer program has taken its place
        else:
            self._sweep.answered(self, getattr(facts, "text", None) or facts)


#: How much of an answer is read.
LIMITS = Limits(MAX_REPLY, MAX_REPLY)
#: The number of the one request of a probe, which its reply repeats.
NUMBER = 1
QUESTION = b"".join(encode_call(NUMBER, INFO, (), {}))


# How well-known protocols answer garbage.
_SIGNS: Dict[bytes, str] = {
    b"HTTP/": "an HTTP server",
    b"<!DOC": "an HTTP server",
    b"<html": "an HTTP server",
    b"SSH-": "an SSH server",
    b"\x15\x03": "speaks TLS: a peer with a secret, or another TLS server",
    b"\x16\x03": "speaks TLS: a peer with a secret, or another TLS server",
}


def describe(data: bytes) -> str:
    """What kind of program says this, as far as its first bytes tell."""
    for sign, name in _SIGNS.items():
        if data.startswith(sign):
            return name
    return f"something else, it says {printable(repr(data[:20])[1:])}"


def look_at(addresses: Iterable[Address], seconds: float,
            found: str = "announcement") -> Findings:
    """Ask just these addresses to identify themselves.

    :param found: how they came to be asked, for people.
    """
    security.credentials()  # made before the clock runs
    sweep = Sweep(window(1), monotonic() + seconds, set())
    for address in addresses:
        sweep.add(Candidate(address, found, seconds))
    sweep.run()
    return sweep.findings


def look_for(hosts: Iterable[str], knows: Callable[[Address], bool]) -> Findings:
    """Ask hosts that may not be there to identify themselves, at all ports if one shows life.

    :param knows: whether a peer is listed at an address. Then that address need not be asked, and
        its host is there.
    """
    security.credentials()
    sweep = Sweep(window(1), monotonic() + LOOK_SECONDS, set())
    for host in hosts:
        ports = [port for port in settings.ports if not knows((host, port))]
        if ports:
            sweep.add_host(host, ports, "sweep", exists=len(ports) < len(settings.ports))
    sweep.run()
    return sweep.findings


def window(threads: int) -> int:
    """How many sockets each of a number of threads may have in flight."""
    return max(1, min(MAX_SOCKETS, descriptors() // DESCRIPTOR_SHARE) // max(1, threads))


def descriptors() -> int:
    """How many files and sockets this process may have open."""
    try:
        import resource  # POSIX only
    except ImportError:
        return MAX_SOCKETS * DESCRIPTOR_SHARE
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_SOCKETS * DESCRIPTOR_SHARE if soft == resource.RLIM_INFINITY else soft
