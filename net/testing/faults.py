"""A peer whose network can be made bad: all that others open to it goes through that network, and
all that it opens itself."""
from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
import threading
from collections import deque
from functools import partial
from time import monotonic, sleep
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ..discovery import known_peers
from ..discovery.lan.beacon import Beacon
from ..discovery.lan.finder import Lan
from ..discovery.lan import asker
from ..discovery.lan.sockets import Sockets, open_at
from ..errors import Address
from ..link.base import Carrier, Deadline, Endpoint, Listener
from ..link.interfaces import Interface
from ..peer import _Peer
from ..process import process

PIECE = 64 * 1024
# Bytes that may be on their way in one direction of a connection; when there are more, the sender
# waits.
MAX_ON_THE_WAY = 8 * 1024 * 1024
# Seconds after which TCP sends again what was lost, at first: doubled each time.
RESEND = 0.2
# Seconds between looks whether a fault has begun or ended.
LOOK = 0.02
# Seconds to wait for connections to end, which usually takes as long as a look.
RESET_SECONDS = 5.0
# Seconds that the loop has for putting the datagrams of a peer through its network.
REACH_SECONDS = 10.0


class Faults:
    """What is wrong with the network of one peer. Any thread may call.

    :ivar delay: seconds that each piece and each datagram takes longer, in either direction.
    :ivar loss: the share of pieces that are lost at first, and so come late, as with TCP; and of
        datagrams, which then never come.
    :ivar frozen: whether nothing passes.
    :ivar cut: whether no connection can be made, in either direction, and no datagram passes.
    """

    def __init__(self) -> None:
        self.delay = self.loss = 0.0
        self.frozen = self.cut = False
        self._lock = threading.Lock()  # guards _pumps
        self._pumps: Set[_Pump] = set()

    @property
    def passes_datagrams(self) -> bool:
        """Whether datagrams to and from the peer pass."""
        return not (self.frozen or self.cut)

    def heal(self) -> None:
        """Let nothing be wrong any more."""
        self.delay = self.loss = 0.0
        self.frozen = self.cut = False

    def end_connections(self, own: bool = True) -> None:
        """End all connections with a reset, and wait until they have ended, so that no call still
        takes one of them for good. Not to be called in the loop.

        :param own: whether to end those that the peer has opened itself, too.
        """
        with self._lock:
            pumps = [pump for pump in self._pumps if own or not pump.own]
        for pump in pumps:
            pump.reset()
        for pump in pumps:
            pump.ended.wait(RESET_SECONDS)

    def lateness(self) -> float:
        """Seconds that the next piece comes late."""
        late, resend = self.delay, RESEND
        while self.loss and random.random() < self.loss and resend < 10:
            late += resend
            resend *= 2
        return late

    def fate(self) -> Optional[float]:
        """Seconds that the next datagram comes late; None if it never comes."""
        if not self.passes_datagrams or self.loss and random.random() < self.loss:
            return None
        return self.delay

    def carry(self, outer: socket.socket, own: bool = False) -> socket.socket:
        """Put the network between a connection and the peer. Returns the peer's end.

        :param own: whether the peer has opened the connection, which may still be connecting then.
        """
        ours, theirs = socket.socketpair()
        pump = _Pump(self, outer, ours, own)
        with self._lock:
            self._pumps.add(pump)
        if self.cut:  # since it was checked
            pump.reset()
        threading.Thread(target=self._run, args=(pump,), name="net-fault", daemon=True).start()
        return theirs

    def _run(self, pump: _Pump) -> None:
        try:
            pump.run()
        finally:
            with self._lock:
                self._pumps.discard(pump)
            pump.ended.set()


class _Way:
    """One direction of a connection: the pieces that are on their way, each with the time at which
    it arrives."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.pieces: Deque[Tuple[float, bytes]] = deque()
        self.size = 0
        self.ended = False

    def receive(self, faults: Faults) -> None:
        try:
            data = self.source.recv(PIECE)
        except BlockingIOError:
            return
        # Pieces stay in order, however late one of them is.
        due = max(monotonic() + faults.lateness(), self.pieces[-1][0] if self.pieces else 0.0)
        self.pieces.append((due, data))
        self.size += len(data)
        self.ended = not data

    def deliver(self) -> bool:
        """Send what is due. False if that was the end of this direction."""
        while self.pieces and self.pieces[0][0] <= monotonic():
            due, data = self.pieces.popleft()
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                return False
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.size -= sent
            if sent < len(data):
                self.pieces.appendleft((due, data[sent:]))
                return True
        return True

    @property
    def takes_more(self) -> bool:
        return not self.ended and self.size < MAX_ON_THE_WAY


class _Pump:
    """Passes on what comes, both ways, in one thread."""

    def __init__(self, faults: Faults, outer: socket.socket, inner: socket.socket,
                 own: bool) -> None:
        self._faults = faults
        self.own = own
        self._outer = outer
        self._inner = inner
        self._reset = False
        self.ended = threading.Event()

    def reset(self) -> None:
        self._reset = True

    def run(self) -> None:
        outer, inner = self._outer, self._inner
        with outer, inner:
            outer.setblocking(False)
            inner.setblocking(False)
            ways = [_Way(outer, inner), _Way(inner, outer)]
            try:
                while self.own and not self._reset and not _has_connected(outer, LOOK):
                    pass
                while ways and not self._reset:
                    ways = [way for way in ways if self._faults.frozen or way.deliver()]
                    self._wait(ways)
            except (OSError, ValueError):
                pass  # one side has gone
            if self._reset and outer.family != getattr(socket, "AF_UNIX", None):
                outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _wait(self, ways: List[_Way]) -> None:
        due = [way.pieces[0][0] - monotonic() for way in ways if way.pieces]
        late = [way for way, left in zip([way for way in ways if way.pieces], due) if left <= 0]
        frozen = self._faults.frozen
        readable, _, _ = select.select(
            [] if frozen else [way.source for way in ways if way.takes_more],
            [] if frozen else [way.sink for way in late], [],
            LOOK if frozen else max(0.0, min([LOOK, *(left for left in due if left > 0)])))
        for way in ways:
            if way.source in readable:
                way.receive(self._faults)


def _has_connected(sock: socket.socket, seconds: float) -> bool:
    """Whether a socket that is being connected is connected within some seconds.

    :raises OSError: connecting has failed.
    """
    if not select.select([], [sock], [], seconds)[1]:
        return False
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    return True


class FaultyCarrier:
    """The ways out of a peer that has faults. See :class:`~net.link.base.Carrier`."""

    def __init__(self, faults: Faults, carrier: Carrier) -> None:
        self._faults = faults
        self._carrier = carrier
        self.name = carrier.name
        self.listen = carrier.listen

    def connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        while self._faults.frozen:
            sleep(min(LOOK, deadline.remaining()))
        self._check()
        return self._faults.carry(self._carrier.connect(endpoint, deadline), own=True)

    def start(self, endpoint: Endpoint) -> socket.socket:
        if self._faults.frozen:
            raise BlockingIOError(errno.EAGAIN, "it stands still")
        self._check()
        sock = self._carrier.start(endpoint)
        try:
            _has_connected(sock, 0)  # within a host a failure shows at once
            near = self._faults.carry(sock, own=True)
        except BaseException:
            sock.close()
            raise
        near.setblocking(False)
        return near

    def _check(self) -> None:
        if self._faults.cut:
            raise OSError(errno.ENETUNREACH, "cut by a fault")


class _FaultyListener:
    """A listener whose connections go through the network of a peer that has faults."""

    def __init__(self, listener: Listener, faults: Faults, source: Optional[Address]) -> None:
        self._listener = listener
        self._source = source
        self._faults = faults
        self.endpoint: Endpoint = listener.endpoint
        self.fileno = listener.fileno

    def accept(self) -> Tuple[socket.socket, Optional[Address]]:
        sock, address = self._listener.accept()
        if self._faults.cut:
            sock.close()
            raise ConnectionAbortedError("cut by a fault")
        return self._faults.carry(sock), address or self._source

    def close(self) -> None:
        self._listener.close()


class FaultySockets(Sockets):
    """The sockets of a beacon, in a network that can be made bad."""

    def __init__(self, beacon: Beacon, faults: Faults) -> None:
        vars(self).update(vars(beacon.sockets))  # takes over all that they have
        self._beacon = beacon
        self._faults = faults
        # Datagrams that have come through the network. In the loop.
        self._come: List[Tuple[bytes, Address]] = []

    def receive(self) -> Iterator[Tuple[bytes, Address]]:
        for one in super().receive():
            late = self._faults.fate()
            if late:
                process.loop.call_later(late, partial(self._arrive, one))
            elif late is not None:
                self._come.append(one)
        come, self._come = self._come, []
        yield from come

    def _arrive(self, one: Tuple[bytes, Address]) -> None:
        """Take a datagram that was late."""
        self._come.append(one)
        self._beacon.receive()

    def send(self, data: bytes, address: Address) -> None:
        self._pass(super().send, data, address)

    def send_from(self, source: Interface, data: bytes, target: str, ports: Iterable[int]) -> None:
        for port in ports:
            self._pass(super().send_from, source, data, target, [port])

    def _pass(self, send: Callable[..., None], *args: Any) -> None:
        late = self._faults.fate()
        if late:
            process.loop.call_later(late, partial(_attempt, send, *args))
        elif late is not None:
            send(*args)


class FaultyQuestions(socket.socket):
    """The socket of a search, in a network that can be made bad."""

    def __init__(self, faults: Faults, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self._faults = faults

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        # The question is held up for what would hold up the answer, too.
        there, back = self._faults.fate(), self._faults.fate()
        if there is not None and back is not None:
            if not there + back:
                return super().sendto(data, address)
            process.loop.call_later(there + back,
                                    partial(_attempt, super().sendto, data, address))
        return len(data)

    def recvfrom(self, *args: Any) -> Any:
        while True:
            found = super().recvfrom(*args)
            if self._faults.passes_datagrams:
                return found


def _attempt(send: Callable[..., object], *args: Any) -> None:
    try:
        send(*args)
    except OSError:
        pass  # its sockets are closed by now, or the network refuses: lost, as any may be


class FaultyPeer(_Peer):
    """A peer whose connections go through a network that can be made bad.

    :cvar source: the address that connections come from if their carrier gives none; None to leave
        it out.
    """

    source: Optional[Address] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.faults = Faults()
        super().__init__(*args, **kwargs)

    def _listen(self) -> List[Listener]:
        return [_FaultyListener(listener, self.faults, self.source)
                for listener in self._endpoints()]

    def _endpoints(self) -> List[Listener]:
        """The listeners behind its network."""
        return super()._listen()

    def apply(self, fault: str, value: float = 0.0) -> None:
        """Begin a fault: ``delay`` or ``loss`` with their value, ``freeze``, ``cut`` or ``full``.
        ``heal`` ends all of them."""
        faults, server = self.faults, self.server
        assert server is not None
        changes: Dict[str, Any] = {"delay": ("delay", value), "loss": ("loss", value),
                                   "freeze": ("frozen", True), "cut": ("cut", True)}
        if fault == "heal":
            faults.heal()
            server.refuse_all(None)
        elif fault == "full":
            server.refuse_all("it is full, as its test wants it")
            # A connection whose call has just been answered may still count as in use.
            faults.end_connections(own=False)
        else:
            setattr(faults, *changes[fault])
            if fault == "cut":
                faults.end_connections()


class LanPeer(FaultyPeer):
    """The peer of a process on this host's network. Everything that the process sends goes through
    the network that can be made bad, datagrams included."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Before the application can send anything.
        process.client.carriers.through = partial(FaultyCarrier, self.faults)
        setattr(asker, "open_at", lambda interface: FaultyQuestions(
            self.faults, open_at(interface)))

    def launch(self) -> _Peer:
        if not self.launched:
            super().launch()
            done = threading.Event()
            # After the call that adds its beacon, and before anything comes to that.
            process.loop.call_soon(partial(self._reach_datagrams, done))
            done.wait(REACH_SECONDS)
        return self

    def _reach_datagrams(self, done: threading.Event) -> None:
        for finder in known_peers().finders:
            for beacon in finder.node.beacons if isinstance(finder, Lan) else ():
                if beacon.peer is self:
                    beacon.sockets = FaultySockets(beacon, self.faults)
        done.set()
