"""The carrier of Eclipse Zenoh: connections through routers, between networks that have no other
way to each other.

A connection is a circuit: frames between two processes, each published under the key of the process
that it is for. On either side it ends in a socket pair. The frames of a direction are numbered, and
a gap ends the circuit. A sender may be ahead of what the other application has taken by one window,
so a slow receiver fills neither of the two processes nor a router.

Liveliness tokens show which processes there are and which ports they serve; routers withdraw them
when the session of a process ends.
"""
from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections import deque
from functools import partial
from struct import Struct
from time import monotonic
from typing import (Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Protocol,
                    Sequence, Set, Tuple)

from ..errors import SettingError
from ..log import CONNECTIONS, RateLimitedLog
from ..settings import ENGINE_SUFFIX as SUFFIX
from .authority import NO_TLS
from .base import ClosedOnError, Deadline, Endpoint, Listener
from .memory import FIRST_FREE_PORT, QueueListener
from .streams import NO_SIGNAL
from .tcp import TcpCarrier

note = RateLimitedLog(logging.getLogger(CONNECTIONS))

# All keys are below this one. The number changes with the meaning of the frames.
ROOT = "app-net/1"
# The port in the token which says that a process is there, whatever it serves.
PRESENCE = 0

# Seconds for a router to accept a connection, to refuse a certificate, and between two attempts to
# reach one.
ROUTER_TIME, REFUSAL_TIME, PAUSE = 2.0, 0.5, 0.5
# Milliseconds between the attempts of Zenoh itself, once there was a session: at first and at most.
RETRY_FIRST, RETRY_MOST = 100, 1000
# Milliseconds for the other side of a link to greet, and milliseconds of silence after which it
# counts as gone. A router that was killed is noticed at once; this is for a cable that was cut.
OPEN_MS, LEASE_MS = 3000, 4000
# Seconds for a router to tell a new session what it knows.
TOLD_TIME = 1.0
# Seconds for which the engine takes answers to a question, and bytes of a question.
ANSWER_TIME, MAX_QUESTION = 2.0, 2048
# Ports of other processes that are remembered, and versions of the token of each port; at times
# there are two. A process that is let in can make up any number.
MAX_SERVED, MAX_VERSIONS = 16384, 8

#: What a router does that lets this process connect, and no more; and why, if not because of TLS.
NO_SESSION = "accepts connections, but no session"
NO_ROUTER = "it is no router of Zenoh 1, or one that wants tls/"
#: What a router does if its access list does not have this process.
NOT_ALLOWED = "a session, but nothing passes: an access list does not have this process, or no " \
              "app-net router is there"

# Seconds for a process to accept a circuit, and between the requests for it: a process that has no
# room does not answer.
OPEN_TIME, ASK_AGAIN = 3.0, 0.1
# Bytes that a sender may be ahead of what the application on the other side has taken. More would
# be faster only where the round trip takes over 20 ms at 50 MB/s.
WINDOW = 2 ** 20
# Bytes of a frame, and frames of one circuit before others have their turn.
PIECE, AT_ONCE = 2 ** 16, 4
# Seconds that are waited for further functions to be registered before others are told of any.
CHANGE_TIME = 0.1
# Circuits that this process may have before others can open no more; its server has a limit of its
# own.
MAX_CIRCUITS = 2048
# Processes for which what publishes to them is kept. They can make up any number.
MAX_PUBLISHERS = 4096
# Seconds for what was written to leave when the process ends.
CLOSE_TIME = 1.0

OPEN, ACCEPT, REFUSE, DATA, CREDIT, END, RESET = range(1, 8)

# The head of a frame: kind, whether it is for the opener of the circuit, name of the circuit,
# instance of the sender, number.
HEAD = Struct("!BB16s16sQ")
# A number of bytes; a port and a number of bytes.
AMOUNT, REQUEST = Struct("!Q"), Struct("!HQ")

# As selectors have them.
READ, WRITE = 1, 2

#: Called with an instance, its port, and whether it has come; with True again where what the
#: process says of itself has changed.
Change = Callable[[str, int, bool], None]
#: Why there is no TLS with a router, see :func:`net.link.tls.link_problem`.
LinkProblem = Callable[[socket.socket, float, float], str]


class EngineLoop(Protocol):
    """What an engine needs of its loop, see :class:`net.run.loop.Loop`."""

    def call_soon(self, callback: Callable[[], object]) -> None: ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any: ...

    def register(self, sock: Any, events: int, callback: Callable[[int], object]) -> None: ...

    def modify(self, sock: Any, events: int) -> None: ...

    def unregister(self, sock: Any) -> None: ...

    def abandon(self) -> None: ...


class Router(NamedTuple):
    """Where a router listens.

    :ivar protocol: ``tcp`` or ``tls``.
    """

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}/{host}:{self.port}"


class ZenohCarrier:
    """Connections through routers. See :class:`~net.link.base.Carrier` for the contract.

    A host is the instance of a process with ``.zenoh`` behind it. This process can listen only at
    its own.

    :param instance: of this process, 32 hexadecimal digits.
    :param routers: one that can be reached is enough.
    :param loop: for this carrier alone, since publishing waits for a link that is slow.
    :param secure: gives what the configuration of Zenoh has under ``transport/link/tls``.
    :param link_problem: says why there is no TLS with a router, see
        :func:`net.link.tls.link_problem`.
    :raises SettingError: the library is missing.
    :ivar present: the processes that are known, and what they serve.
    """

    name = "zenoh"

    def __init__(self, instance: str, routers: Tuple[Router, ...], loop: EngineLoop,
                 secure: Callable[[], Mapping[str, object]] = dict,
                 link_problem: LinkProblem = lambda sock, seconds, refusal: "") -> None:
        self.instance = instance
        self.routers = routers
        self.present = Presence()
        #: Gives the answers to a question of another process. Called in the loop's thread.
        self.answer: Callable[[bytes], List[bytes]] = lambda question: []
        self._zenoh = load_zenoh()
        self._secure = secure
        self._link_problem = link_problem
        self._own = bytes.fromhex(instance)
        self._loop = loop
        self._session: Any = None
        #: Why there is no session; empty if there is one, or nothing was tried yet.
        self.problem = ""
        # Tokens of routers: each router of app-net has one, see Hub.
        self._seen_routers: Set[str] = set()
        # Set when an attempt to reach a router has ended, one way or the other.
        self._tried = threading.Event()
        self._closing = threading.Event()
        # Held while a session is opened. A thread that is in the library when the interpreter ends
        # would abort the process.
        self._opening = threading.Lock()
        self._lock = threading.Lock()  # guards what follows, but not the circuits themselves
        self._opener: Optional[threading.Thread] = None
        self._circuits: Dict[Tuple[bytes, bool], Circuit] = {}
        self._listeners: Dict[int, QueueListener] = {}
        self._tokens: Dict[int, Any] = {}
        self._version = 0
        self._changing = False
        # In the loop's thread.
        self._publishers: Dict[bytes, Any] = {}

    # ------------------------------------------------------------------ the contract

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        self.wait(deadline.remaining())
        ours, circuit = self._begin(endpoint)
        try:
            circuit.answered.wait(min(deadline.remaining(), OPEN_TIME))
            if circuit.accepted:
                return ours
            raise circuit.problem or socket.timeout("no answer through the engine")
        except BaseException:
            ours.close()
            self.soon(circuit.drop)
            raise

    def start(self, endpoint: Endpoint) -> socket.socket:
        # What is sent before the other side has accepted waits in the socket pair. If that side
        # does not accept, the pair is closed.
        if not self.wait(0):
            raise BlockingIOError(errno.EAGAIN, "the engine has just been started")
        ours, _ = self._begin(endpoint)
        ours.setblocking(False)
        return ours

    def listen(self, endpoint: Endpoint, backlog: int) -> Listener:
        if self._named(endpoint)[0] != self.instance:
            raise OSError(errno.EADDRNOTAVAIL, f"{endpoint.host} is not this process")
        with self._lock:
            port = endpoint.port
            while not port or not endpoint.port and port in self._listeners:
                port = max(port, FIRST_FREE_PORT - 1) + 1
            if port in self._listeners:
                raise OSError(errno.EADDRINUSE, f"{endpoint} is listened at already")
            listener = self._listeners[port] = \
                QueueListener(self._forget, endpoint._replace(port=port), max(1, backlog))
            if self._session is not None:
                self._declare(port)
        self.open()
        return listener

    # ------------------------------------------------------------------ for its user

    def open(self) -> None:
        """Begin to look for a router, and go on until there is a session. Does not wait."""
        with self._lock:
            if self._opener is None and not self._closing.is_set():
                self._opener = threading.Thread(target=self._keep_opening, name="net-engine",
                                                daemon=True)
                self._opener.start()

    def wait(self, seconds: float) -> bool:
        """Wait until there is a session, or the first attempt to have one has failed. Returns
        whether it has come to one of the two."""
        self.open()
        return self._tried.wait(seconds) if seconds else self._tried.is_set()

    @property
    def attempt_seconds(self) -> float:
        """Seconds that an attempt to have a session takes at most, if names are resolved at
        once."""
        return len(self.routers) * (4 * ROUTER_TIME + OPEN_MS / 1000)

    def ask(self, question: bytes, instances: List[str], heard: Callable[[bytes], None]) -> None:
        """Send a question. Does not wait. Any thread may call.

        :param instances: the processes that are asked; all if the list is empty.
        :param heard: called with each answer, in a thread of the library.
        """
        for instance in instances or ["*"]:
            self.soon(partial(self._ask, _key("who", instance), question, heard))

    def _ask(self, key: str, question: bytes, heard: Callable[[bytes], None]) -> None:
        zenoh, session = self._zenoh, self._session

        def take(reply: Any) -> None:
            if reply.ok is not None:
                heard(reply.ok.payload.to_bytes())
        if session is not None:
            try:
                session.get(key, zenoh.handlers.Callback(take, indirect=False), payload=question,
                            target=zenoh.QueryTarget.ALL, timeout=ANSWER_TIME,
                            allowed_destination=zenoh.Locality.REMOTE,
                            consolidation=zenoh.ConsolidationMode.NONE)
            except zenoh.ZError as problem:
                note(logging.INFO, "no question was sent through the engine: %s", problem)

    def reached(self) -> List[str]:
        """The ids of the routers that this process is connected to."""
        session = self._session
        try:
            return [] if session is None else [str(one) for one in session.info.routers_zid()]
        except self._zenoh.ZError:
            return []

    def changed(self) -> None:
        """Let others ask anew soon, since what this process says of itself has changed, and may
        change further. Any thread may call."""
        if not self._changing:
            self._changing = True
            self.later(CHANGE_TIME, self._tell_changes)

    def _tell_changes(self) -> None:
        """Give our tokens another version, so that others ask anew."""
        self._changing = False
        with self._lock:
            if self._session is None:
                return
            self._version += 1
            before = dict(self._tokens)
            for port in before:
                self._declare(port)
        for token in before.values():
            self._undeclare(token)

    def close(self) -> None:
        """End all circuits and the session, so that no thread of the library is left running when
        the interpreter ends. Any thread but the loop's may call."""
        self._closing.set()
        with self._lock:
            opener, circuits = self._opener, list(self._circuits.values())
            listeners = list(self._listeners.values())
        if opener is None:
            return
        # While the opener tries a router without the library, it need not be waited for.
        if self._opening.acquire(timeout=len(self.routers) * OPEN_MS / 1000 + ROUTER_TIME):
            self._opening.release()
        for listener in listeners:
            listener.close()
        ended = threading.Event()
        self.soon(partial(self._end, circuits, ended, monotonic() + CLOSE_TIME))
        ended.wait(2 * CLOSE_TIME)
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def abandon(self) -> None:
        """Close our copies of the sockets in a forked child. The threads of the library are missing
        there, so nothing of it may be used, nor be freed."""
        self._closing.set()
        for listener in self._listeners.values():
            listener.abandon()
        for circuit in self._circuits.values():
            circuit.sock.close()

    # ------------------------------------------------------------------ the session

    def _keep_opening(self) -> None:
        while not self._closing.is_set():
            try:
                self._attempt()
                self._tried.set()
                return
            except (OSError, self._zenoh.ZError, SettingError) as problem:
                before, self.problem = self.problem, _in_words(problem)
                note(logging.DEBUG if before == self.problem else logging.WARNING,
                     "no router of NET_ROUTER can be reached; trying on: %s", self.problem)
            self._tried.set()
            self._closing.wait(PAUSE)

    def _attempt(self) -> None:
        """Open a session, which Zenoh keeps up from then on."""
        # First without Zenoh, which would wait for a silent router for ever.
        problems = {router: self._why_silent(router) for router in self.routers}
        if all(problems.values()):
            raise OSError("; ".join(problems.values()))
        if not self._open(sorted(self.routers, key=lambda router: bool(problems[router]))):
            raise OSError("; ".join(
                reason or f"{router} {NO_SESSION}: {self._why_no_session(router)}"
                for router, reason in problems.items()))

    def _open(self, routers: Sequence[Router]) -> bool:
        """Open a session with one of these routers; False if none gives one."""
        with self._opening:
            if self._closing.is_set():
                return True
            try:
                session = self._zenoh.open(
                    configuration(self._zenoh, "client", self._secure(), connect=routers))
            except self._zenoh.ZError as problem:  # its text does not say why
                note(logging.DEBUG, "the engine got no session: %s", problem)
                return False
            try:
                self._take(session)
            except BaseException:
                session.close()
                raise
        return True

    def _why_silent(self, router: Router) -> str:
        """Why a router cannot be reached; empty if it accepts connections, and speaks TLS if it
        should."""
        try:
            with _connected(router) as sock:
                if router.protocol == "tls" and self._link_problem(sock, ROUTER_TIME, 0) == NO_TLS:
                    return f"{router} {NO_SESSION}: {NO_TLS}"
        except OSError as problem:
            return f"{router}: {_in_words(problem)}"
        return ""

    def _why_no_session(self, router: Router) -> str:
        if router.protocol == "tls":
            try:
                return self._link_problem(
                    _connected(router), ROUTER_TIME, REFUSAL_TIME) or NO_ROUTER
            except OSError as problem:
                return _in_words(problem)
        return NO_ROUTER

    def _take(self, session: Any) -> None:
        hear = self._zenoh.handlers.Callback
        # Called in a thread of the library: a Python thread for each would keep the process from
        # ending.
        session.declare_subscriber(_key("to", self.instance), hear(self._received, indirect=False))
        session.declare_queryable(_key("who", self.instance),
                                  hear(self._questioned, indirect=False))
        life = session.liveliness()
        life.declare_subscriber(_key("peer", "*", "*", "*"), hear(self._lives, indirect=False),
                                history=True)
        life.declare_subscriber(_key("router", "*"), hear(self._router_lives, indirect=False),
                                history=True)
        with self._lock:
            self._session, self.problem = session, ""
            self._declare(PRESENCE)
            for port in self._listeners:
                self._declare(port)
        # This ends when the router has told all that it knows.
        for reply in life.get(_key("peer", "*", "*", "*"), timeout=TOLD_TIME):
            if reply.ok is not None:
                self._lives(reply.ok)

    def _declare(self, port: int) -> None:
        """Tell others that a port is served. Under the lock."""
        self._tokens[port] = self._session.liveliness().declare_token(
            _key("peer", self.instance, str(port), str(self._version)))

    def _undeclare(self, token: Any) -> None:
        try:
            token.undeclare()
        except self._zenoh.ZError:
            pass  # the session is closed

    def _questioned(self, query: Any) -> None:
        """Another process asks which peers there are. In a thread of the library."""
        payload = query.payload
        data = payload.to_bytes() if payload is not None and len(payload) <= MAX_QUESTION else b""
        if data:
            self.soon(partial(self._reply, query, data))

    def _reply(self, query: Any, question: bytes) -> None:
        try:
            for answer in self.answer(question):
                query.reply(_key("who", self.instance), answer)
        except self._zenoh.ZError:
            pass  # the session is closed
        finally:
            query.drop()  # there are no more answers

    def _lives(self, sample: Any) -> None:
        """A token has come or gone. In a thread of the library."""
        token = read_token(sample.key_expr)
        if token is None:
            return
        there = self.present.change(*token, sample.kind == self._zenoh.SampleKind.PUT)
        if not there and token[1] == PRESENCE:
            self.soon(partial(self._gone, bytes.fromhex(token[0])))

    def _router_lives(self, sample: Any) -> None:
        """The token of a router has come or gone. In a thread of the library."""
        there = sample.kind == self._zenoh.SampleKind.PUT
        (self._seen_routers.add if there else self._seen_routers.discard)(str(sample.key_expr))

    @property
    def shut_out(self) -> str:
        """Why nothing of other processes gets through, although there is a session; empty if it
        does."""
        passes = self._seen_routers or self.present.processes() - {self.instance}
        return "" if passes or not self.reached() else NOT_ALLOWED

    def _gone(self, peer: bytes) -> None:
        self._publishers.pop(peer, None)
        with self._lock:
            circuits = [one for one in self._circuits.values() if one.peer == peer]
        for circuit in circuits:
            circuit.cut_off("the engine has lost the peer")

    # ------------------------------------------------------------------ circuits

    def _named(self, endpoint: Endpoint) -> Tuple[str, int]:
        """The instance and the port of an endpoint.

        :raises OSError: it makes no sense.
        """
        instance = endpoint.host[:-len(SUFFIX)]
        if endpoint.host[-len(SUFFIX):] != SUFFIX or not is_instance(instance):
            raise OSError(errno.EINVAL, f"{endpoint.host} is no process of the engine")
        return instance, endpoint.port

    def _begin(self, endpoint: Endpoint) -> Tuple[socket.socket, Circuit]:
        instance, port = self._named(endpoint)
        if not self.present.has(instance, port):
            reason = self.problem or "the engine knows of no such peer"
            raise ConnectionRefusedError(errno.ECONNREFUSED, reason)
        ours, theirs = socket.socketpair()
        with ClosedOnError(ours), ClosedOnError(theirs):
            circuit = Circuit(self, os.urandom(16), bytes.fromhex(instance), True, theirs)
            with self._lock:
                self._circuits[circuit.key] = circuit
            self._loop.call_soon(partial(circuit.ask, port, monotonic() + OPEN_TIME))
        return ours, circuit

    def remove(self, circuit: Circuit) -> None:
        """Forget a circuit that has ended."""
        with self._lock:
            self._circuits.pop(circuit.key, None)

    def soon(self, action: Callable[[], object]) -> None:
        """Have something done in the loop's thread. Any thread may call."""
        try:
            self._loop.call_soon(action)
        except OSError as problem:
            note(logging.WARNING, "the engine lacks threads or descriptors: %s", problem)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something done in the loop's thread after some seconds."""
        try:
            self._loop.call_later(seconds, action)
        except OSError as problem:
            note(logging.WARNING, "the engine lacks threads or descriptors: %s", problem)

    @property
    def loop(self) -> EngineLoop:
        """The loop, for its own thread."""
        return self._loop

    def publish(self, peer: bytes, kind: int, to_opener: bool, circuit: bytes, number: int,
                body: bytes = b"") -> None:
        """Send a frame. In the loop's thread; waits while the link takes no more.

        :raises OSError: there is no session.
        """
        try:
            publisher = self._publishers.get(peer)
            if publisher is None:
                if self._session is None:
                    raise OSError(errno.ENETDOWN, "the engine has no session")
                self._let_idle_go()
                publisher = self._publishers[peer] = self._session.declare_publisher(
                    _key("to", peer.hex()), express=True,
                    congestion_control=self._zenoh.CongestionControl.BLOCK)
            publisher.put(HEAD.pack(kind, to_opener, circuit, self._own, number) + body)
        except self._zenoh.ZError as problem:
            raise OSError(errno.ENETDOWN, str(problem)) from None

    def _let_idle_go(self) -> None:
        """Forget the publishers to peers without a circuit, if there are too many."""
        if len(self._publishers) >= MAX_PUBLISHERS:
            with self._lock:
                used = {circuit.peer for circuit in self._circuits.values()}
            self._publishers = {peer: publisher for peer, publisher in self._publishers.items()
                                if peer in used}

    def _received(self, sample: Any) -> None:
        """A frame has come. In a thread of the library, or in the loop's if this process sent
        it."""
        try:
            data = sample.payload.to_bytes()
            if len(data) < HEAD.size:
                return
            kind, to_opener, name, sender, number = HEAD.unpack_from(data)
            circuit = self._circuits.get((name, bool(to_opener)))
            if circuit is not None:
                if circuit.peer == sender:
                    circuit.received(kind, number, data)
            elif kind == OPEN:
                port, credit = REQUEST.unpack_from(data, HEAD.size)
                self.soon(partial(self._asked, name, sender, port, credit))
            elif kind not in (RESET, REFUSE):
                self.soon(partial(self._tell, sender, RESET, not to_opener, name))
        except Exception as problem:  # in a thread that is not ours, where it would only be lost
            note(logging.WARNING, "a frame that makes no sense: %r", problem)

    def _tell(self, peer: bytes, kind: int, to_opener: bool, name: bytes) -> None:
        try:
            self.publish(peer, kind, to_opener, name, 0)
        except OSError:
            pass  # there is nothing to tell it by

    def _asked(self, name: bytes, peer: bytes, port: int, credit: int) -> None:
        """Another process wants a circuit."""
        circuit = self._circuits.get((name, False))
        listener = self._listeners.get(port)
        if circuit is not None:  # it has asked again
            circuit.accept()
        elif listener is None:
            self._tell(peer, REFUSE, True, name)
        elif len(self._circuits) < MAX_CIRCUITS:
            self._admit(listener, Circuit(self, name, peer, False, None), credit)

    def _admit(self, listener: QueueListener, circuit: Circuit, credit: int) -> None:
        ours, circuit.sock = socket.socketpair()
        circuit.sock.setblocking(False)
        # No port of its own tells its circuits apart; a part of their random names does.
        address = circuit.peer.hex() + SUFFIX, 1 + int.from_bytes(circuit.name[:2], "big") % 65535
        with self._lock:
            self._circuits[circuit.key] = circuit
        try:
            listener.put(ours, address)
        except OSError as problem:
            ours.close()
            circuit.drop()
            if not isinstance(problem, BlockingIOError):  # else it asks again, perhaps with success
                self._tell(circuit.peer, REFUSE, True, circuit.name)
            return
        circuit.credit = credit
        circuit.accept()

    def _forget(self, listener: QueueListener) -> None:
        """Forget a listener that has closed."""
        port = listener.endpoint.port
        with self._lock:
            if self._listeners.get(port) is not listener:
                return
            del self._listeners[port]
            token = self._tokens.pop(port, None)
        # This process forgets the port now, others when they hear of it.
        self.present.change(self.instance, port, str(self._version), False)
        if token is not None and not self._closing.is_set():
            self._undeclare(token)

    def _end(self, circuits: List[Circuit], ended: threading.Event, until: float) -> None:
        """Send what is left, and end. In the loop's thread."""
        left = [circuit for circuit in circuits if not circuit.finish()]
        if left and monotonic() < until:
            self.later(0.005, partial(self._end, left, ended, until))
            return
        with self._lock:
            rest = list(self._circuits.values())
        for circuit in rest:
            circuit.drop(RESET)
        self._publishers.clear()
        ended.set()


class Circuit:
    """One connection through the engine. It ends in a socket pair; ``sock`` is our half of it.

    In the loop's thread, unless stated otherwise.

    :param name: random, the same on both sides.
    :param peer: the instance of the other process.
    :param opener: whether this side has asked for it.
    :ivar accepted: whether it was accepted. ``problem``: why it was not. ``answered``: set once one
        of the two is so.
    :ivar credit: bytes that may be sent since the beginning.
    """

    def __init__(self, carrier: ZenohCarrier, name: bytes, peer: bytes, opener: bool,
                 sock: Optional[socket.socket]) -> None:
        self.name = name
        self.peer = peer
        self.accepted = False
        self.problem: Optional[OSError] = None
        self.answered = threading.Event()
        self.credit = 0
        self.sock: Any = sock
        if sock is not None:
            sock.setblocking(False)
        self._carrier = carrier
        self._opener = opener
        self._sent = self._sent_bytes = 0
        # Whether our side has sent all it will send, and what the loop waits for.
        self._read_all = False
        self._events = 0
        self._lock = threading.Lock()  # guards what follows
        self._expected = 0
        # What has come and the application has not taken yet; bytes that have come, that it has
        # taken, and that the other side may send, each since the beginning.
        self._queue: Deque[memoryview] = deque()
        self._came = self._taken = 0
        self._granted = WINDOW
        # Whether the other side sends no more.
        self._ended = False
        self._dropped = False

    @property
    def key(self) -> Tuple[bytes, bool]:
        """The key by which the carrier finds it. One process can be at both ends."""
        return self.name, self._opener

    # ------------------------------------------------------------------ its beginning

    def ask(self, port: int, until: float) -> None:
        """Ask the other side for it until that answers, or the time ``until`` has come."""
        if self.answered.is_set() or self._dropped:
            return
        if monotonic() >= until:
            self._fail(socket.timeout(f"no answer within {OPEN_TIME:g} s"))
            return
        try:
            self._send(OPEN, REQUEST.pack(port, WINDOW), numbered=False)
        except OSError as problem:
            self._fail(problem)
            return
        self._carrier.later(ASK_AGAIN, partial(self.ask, port, until))

    def accept(self) -> None:
        """Tell the other side that it may begin."""
        self.accepted = True
        try:
            self._send(ACCEPT, AMOUNT.pack(WINDOW), numbered=False)
        except OSError:
            self.drop()
            return
        self._watch()

    def _fail(self, problem: OSError) -> None:
        if not self.answered.is_set():
            self.problem = problem
            self.answered.set()
            self.drop()

    # ------------------------------------------------------------------ what comes

    def received(self, kind: int, number: int, data: bytes) -> None:
        """A frame has come. In a thread of the library."""
        soon = self._carrier.soon
        if kind == ACCEPT:
            if not self.accepted and self._opener:
                self.credit = AMOUNT.unpack_from(data, HEAD.size)[0]
                self.accepted = True
                self.answered.set()
                soon(self._watch)
        elif kind == REFUSE:
            soon(partial(self._fail, ConnectionRefusedError(errno.ECONNREFUSED,
                                                            "that peer has no such port")))
        elif kind == RESET:
            soon(partial(self.cut_off, "the other side has ended it"))
        elif number != self._expected or not self.accepted:
            soon(partial(self.cut_off, "a frame is missing", RESET))
        else:
            self._expected += 1
            self._take(kind, data)

    def _take(self, kind: int, data: bytes) -> None:
        if kind == DATA:
            self._give(memoryview(data)[HEAD.size:])
        elif kind == CREDIT:
            self._carrier.soon(partial(self._grant, AMOUNT.unpack_from(data, HEAD.size)[0]))
        elif kind == END:
            with self._lock:
                self._ended = True
                whole = not self._queue
            if whole:
                self._carrier.soon(self._end_of_queue)

    def _give(self, data: memoryview) -> None:
        """Give the application what has come, now if its socket has room. In a thread of the
        library."""
        with self._lock:
            self._came += len(data)
            if self._came > self._granted:
                self._carrier.soon(partial(self.cut_off, "it sends more than it may", RESET))
                return
            waiting = bool(self._queue)
            if not waiting:
                data = data[self._write(data):]
            if len(data) and not self._dropped:
                self._queue.append(data)
            due = self._taken + WINDOW - self._granted >= WINDOW // 2
        if due:
            self._carrier.soon(self._tell_taken)
        if len(data) and not waiting:
            self._carrier.soon(self._watch)

    def _write(self, data: memoryview) -> int:
        """Write what our half of the pair takes. Returns the number of bytes. Under the lock."""
        try:
            sent: int = self.sock.send(data, NO_SIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._carrier.soon(partial(self.drop, RESET))  # the application has closed its half
            return len(data)
        self._taken += sent
        return sent

    def _flush(self) -> None:
        with self._lock:
            while self._queue:
                sent = self._write(self._queue[0])
                if sent < len(self._queue[0]):
                    self._queue[0] = self._queue[0][sent:]
                    break
                self._queue.popleft()
            whole = not self._queue
            due = self._taken + WINDOW - self._granted >= WINDOW // 2
        if due:
            self._tell_taken()
        if whole:
            self._end_of_queue()

    def _end_of_queue(self) -> None:
        if self._ended and not self._dropped:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the application has closed its half
            if self._read_all:
                self.drop()
        self._watch()

    def _tell_taken(self) -> None:
        """Let the other side send more."""
        with self._lock:
            if self._ended or self._dropped or self._taken + WINDOW == self._granted:
                return
            self._granted = self._taken + WINDOW
        self._send_or_drop(CREDIT, AMOUNT.pack(self._granted))

    # ------------------------------------------------------------------ what leaves

    def _grant(self, total: int) -> None:
        self.credit = max(self.credit, total)
        self._watch()

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if mask & READ and not self._dropped:
            self._read()

    def _read(self) -> bool:
        """Send what the application has written. Returns whether that was all there is for now."""
        for _ in range(AT_ONCE):
            size = min(PIECE, self.credit - self._sent_bytes)
            if size <= 0 or self._read_all or self._dropped:
                break
            try:
                data = self.sock.recv(size)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                self.drop(RESET)
                return True
            if not data:
                self._read_all = True
                self._send_or_drop(END)
                self._end_of_queue()
                return True
            self._sent_bytes += len(data)
            self._send_or_drop(DATA, data)
            if len(data) < size:
                return False
        self._watch()
        return self._read_all or self._dropped

    def _send(self, kind: int, body: bytes = b"", numbered: bool = True) -> None:
        number = self._sent
        self._sent += numbered
        self._carrier.publish(self.peer, kind, not self._opener, self.name, number, body)

    def _send_or_drop(self, kind: int, body: bytes = b"") -> None:
        if self._dropped:
            return
        try:
            self._send(kind, body)
        except OSError as problem:
            note(logging.INFO, "a circuit has ended: %s", problem)
            self.drop()

    def _watch(self) -> None:
        """Have the loop wait for what there is to do next."""
        if self._dropped:
            return
        reads = self.accepted and not self._read_all and self.credit > self._sent_bytes
        events = (READ if reads else 0) | (WRITE if self._queue else 0)
        before, self._events = self._events, events
        loop = self._carrier.loop
        if events == before:
            return
        if not before:
            loop.register(self.sock, events, self._ready)
        elif events:
            loop.modify(self.sock, events)
        else:
            loop.unregister(self.sock)

    # ------------------------------------------------------------------ its end

    def finish(self) -> bool:
        """Send what the application wrote before it closed. Returns whether all of it has left."""
        if self._dropped:
            return True
        return not self.accepted or self._read()

    def cut_off(self, reason: str, tell: int = 0) -> None:
        """End it since nothing more will come. The application still gets what has come, if the
        other side had sent all of it; then the end.

        :param tell: the kind of frame that tells the other side; 0 for none.
        """
        if self._dropped:
            return
        note(logging.INFO, "a circuit has ended: %s", reason)
        if not self.accepted:
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, reason))
            return
        if tell:
            self._send_or_drop(tell)
        with self._lock:
            clean = self._ended
            self._ended = True
            self._read_all = True
            whole = not self._queue
        if whole or not clean:
            self.drop()
        else:
            self._watch()

    def drop(self, tell: int = 0) -> None:
        """End it now.

        :param tell: the kind of frame that tells the other side; 0 for none.
        """
        if tell:
            self._send_or_drop(tell)
        with self._lock:
            if self._dropped:
                return
            self._dropped = True
            self._queue.clear()
            if self._events:
                self._carrier.loop.unregister(self.sock)
            self.sock.close()
        self._carrier.remove(self)


class Presence:
    """Which processes there are, and what they serve, by their tokens. Any thread may call.

    :ivar heard: called with each change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: Dict[Tuple[str, int], Set[str]] = {}
        self.heard: Change = lambda instance, port, came: None

    def change(self, instance: str, port: int, version: str, came: bool) -> bool:
        """Note that a token has come or gone. Returns whether one for this port is there now."""
        with self._lock:
            if came and len(self._tokens) >= MAX_SERVED and (instance, port) not in self._tokens:
                return came
            known = self._tokens.setdefault((instance, port), set())
            before = set(known)
            if not came:
                known.discard(version)
            elif len(known) < MAX_VERSIONS:
                known.add(version)
            there, news = bool(known), known != before
            if not there:
                del self._tokens[instance, port]
        # When a version follows another, the newer one comes before the older one goes.
        if news and (came or not there):
            self.heard(instance, port, came)
        return there

    def has(self, instance: str, port: int) -> bool:
        """Whether a process serves a port."""
        return (instance, port) in self._tokens

    def served(self) -> List[Tuple[str, int]]:
        """The instances and ports that are served."""
        with self._lock:
            return [key for key in self._tokens if key[1] != PRESENCE]

    def processes(self) -> Set[str]:
        """The instances of all processes, whether they serve something or not."""
        with self._lock:
            return {instance for instance, _ in self._tokens}


class Status(NamedTuple):
    """What is connected to a router.

    :ivar processes: how many there are, on all routers together.
    :ivar routers: how many other routers it is connected to.
    """

    processes: int
    routers: int


class Hub:
    """A router, in this process.

    :param listen: where it listens: protocol, host and port.
    :param connect: the other routers that it connects to.
    :param allow: what it lets in, see :func:`access_list`; everything if empty.
    :raises SettingError: the library is missing.
    :raises OSError: it cannot listen there.
    """

    def __init__(self, listen: Sequence[Tuple[str, str, int]],
                 connect: Sequence[Tuple[str, str, int]], tls: Mapping[str, object],
                 allow: Sequence[str] = ()) -> None:
        zenoh = load_zenoh()
        try:
            self._session = zenoh.open(configuration(
                zenoh, "router", tls, tuple(Router(*one) for one in connect),
                tuple(Router(*one) for one in listen), access_list(allow) if allow else None))
        except zenoh.ZError as problem:
            raise OSError(str(problem)) from None
        self._present = Presence()
        self._put = zenoh.SampleKind.PUT
        self._session.liveliness().declare_subscriber(
            _key("peer", "*", "*", "*"), zenoh.handlers.Callback(self._lives, indirect=False),
            history=True)
        # A process that does not see this token is not let in.
        self._token = self._session.liveliness().declare_token(
            _key("router", str(self._session.info.zid())))

    def _lives(self, sample: Any) -> None:
        """A token has come or gone. In a thread of the library."""
        token = read_token(sample.key_expr)
        if token is not None:
            self._present.change(*token, sample.kind == self._put)

    def status(self) -> Status:
        """What is connected."""
        return Status(len(self._present.processes()),
                      len(list(self._session.info.routers_zid())))

    def close(self) -> None:
        """End it. Nothing is left running."""
        self._session.close()


def read_token(key: object) -> Optional[Tuple[str, int, str]]:
    """The instance, the port and the version that a token stands for; None if it makes no sense."""
    instance, port, version = str(key).split("/")[-3:]
    if is_instance(instance) and port.isdecimal() and len(port) < 6:
        return instance, int(port), version
    return None


def is_instance(text: str) -> bool:
    """Whether a text is the instance of a process."""
    return len(text) == 32 and not set(text) - set("0123456789abcdef")


def load_zenoh() -> Any:
    """The library.

    :raises SettingError: it is not installed.
    """
    try:
        import zenoh
    except ImportError as problem:
        raise SettingError(f"NET_ENGINE=zenoh needs the extra: pip install 'app-net[zenoh]' "
                           f"({problem})") from None
    return zenoh


#: What an entry of an access list begins with if it is an interface, not the name of a certificate.
INTERFACE = "interface:"
# Everything that passes a router of app-net, by the names that Zenoh has for it.
_PASSES = ("put", "declare_subscriber", "query", "declare_queryable", "reply", "liveliness_token",
           "declare_liveliness_subscriber", "liveliness_query")


def access_list(allow: Sequence[str]) -> Dict[str, object]:
    """The access list of a router that lets in only some, as Zenoh's configuration has it.

    :param allow: common names of certificates, and interfaces with ``interface:`` before them.
    """
    names = [one for one in allow if not one.startswith(INTERFACE)]
    interfaces = [one[len(INTERFACE):] for one in allow if one.startswith(INTERFACE)]
    subjects: List[Dict[str, object]] = []
    if names:
        subjects.append({"id": "names", "cert_common_names": names})
    if interfaces:
        subjects.append({"id": "interfaces", "interfaces": interfaces})
    return {"enabled": True, "default_permission": "deny",
            "rules": [{"id": "all", "permission": "allow", "flows": ["ingress", "egress"],
                       "messages": list(_PASSES), "key_exprs": [f"{ROOT}/**"]}],
            "subjects": subjects,
            "policies": [{"rules": ["all"], "subjects": [one["id"] for one in subjects]}]}


def configuration(zenoh: Any, mode: str, tls: Mapping[str, object],
                  connect: Sequence[Router] = (), listen: Sequence[Router] = (),
                  access: Optional[Mapping[str, object]] = None) -> Any:
    """The configuration of a session.

    :param mode: ``client`` or ``router``.
    :param tls: what it has under ``transport/link/tls``.
    :param access: see :func:`access_list`; None to let everything in.
    """
    import json

    made = zenoh.Config()
    for name, value in {
        "mode": mode,
        "connect/endpoints": [str(one) for one in connect],
        "connect/exit_on_failure": mode == "client",
        # One attempt, since we make further ones ourselves; a router goes on by itself.
        "connect/timeout_ms": 0 if mode == "client" else -1,
        "connect/retry": {"period_init_ms": RETRY_FIRST, "period_max_ms": RETRY_MOST,
                          "period_increase_factor": 2},
        "listen/endpoints": [str(one) for one in listen],
        # Only to the routers that are named: no packet goes anywhere else.
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": mode == "router",
        "transport/unicast/open_timeout": OPEN_MS,
        "transport/unicast/accept_timeout": OPEN_MS,
        "transport/link/tx/lease": LEASE_MS,
        # What is secret does not belong in memory that other programs of this host share.
        "transport/shared_memory/enabled": False,
        **({"access_control": access} if access else {}),
        **{f"transport/link/tls/{name}": value for name, value in tls.items()},
    }.items():
        made.insert_json5(name, json.dumps(value))
    return made


def _connected(router: Router) -> socket.socket:
    return TcpCarrier().connect(Endpoint("tcp", router.host, router.port), Deadline(ROUTER_TIME))


def _in_words(problem: Exception) -> str:
    if isinstance(problem, socket.timeout):
        return f"no answer within {ROUTER_TIME:g} s"
    return str(getattr(problem, "strerror", None) or problem)


def _key(*parts: str) -> str:
    return "/".join((ROOT, *parts))
