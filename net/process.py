"""What there is once in a process, in one object that is handed down."""
from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Protocol, Set, TypeVar

from .dispatch import MemoryBudget
from .run.client import Client
from .run.loop import Loop
from .settings import Settings, settings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .executors import Coroutines
    from .run.balance import Balance
    from .run.server import Server

T = TypeVar("T")


class OwnPeer(Protocol):
    """What the process knows of a peer of its own, a :class:`net.peer._Peer`."""

    @property
    def launched(self) -> bool:
        """Whether it serves."""

    @property
    def server(self) -> Optional[Server]:
        """What serves; None while nothing does."""

    def abandon(self) -> None:
        """Start afresh in a forked child."""


class Process:
    """What there is once in a process.

    :ivar instance: random id, so that a peer with two addresses is known as one.
    :ivar began: monotonic time at which it was made.
    :ivar loop: the loop for all sockets that have no thread.
    :ivar client: calls to other peers.
    :ivar memory: the memory for large requests, whatever peers a process has.
    :ivar lock: guards ``peer`` and ``warned``, and is held while anything is made that a process
        has once.
    :ivar peer: that of this process; None until it is made.
    :ivar peers: all peers that were made.
    :ivar warned: warnings that were given; once is enough.
    :ivar hand_over: takes over the connections on which subscribers want their events, with the
        peer that they have connected to; None without events.
    :ivar begin_old_call: called before each call of an old program, see
        :class:`~net.dispatch.Dispatch`; None without events.
    :ivar load: loads what a peer needs, in the thread that launches it: while a thread of ours
        imports, a fork has to wait.
    :ivar launch_hooks: called with each peer that was launched; what they return is called when it
        closes. The floors above add to this what else a running peer does.
    :ivar change_hooks: called when the functions of this process have changed while it serves.
    :ivar moved: called in the loop's thread when addresses of this host have come or gone.
    :ivar forked: called in a forked child, in this order: what belongs to the parent is forgotten.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = Loop("net-loop")
        self.client = Client(settings, self.loop)
        self._coroutines: Optional[Coroutines] = None
        self.peers: List[OwnPeer] = []
        self.hand_over: Optional[Callable[..., None]] = None
        self.begin_old_call: Optional[Callable[..., Any]] = None
        self.load: Callable[[], None] = lambda: None
        self.launch_hooks: List[Callable[[Any], Callable[[], None]]] = []
        self.change_hooks: List[Callable[[], None]] = []
        self.moved: List[Callable[[], None]] = []
        self.forked: List[Callable[[], None]] = []
        self._once: Dict[Callable[[Any], Any], Any] = {}
        self._begin()
        self.warned: Set[str] = set()

    def _begin(self) -> None:
        self.instance = self.client.instance = self.client.carriers.instance = \
            os.urandom(16).hex()
        self.began = monotonic()
        self.memory = MemoryBudget()
        self.lock = threading.RLock()
        self._balance: Optional[Balance] = None
        self.peer: Optional[OwnPeer] = None

    @property
    def coroutines(self) -> Coroutines:
        """The loop of served coroutines whose function has none of its own."""
        with self.lock:
            if self._coroutines is None:
                from .executors import Coroutines  # few need it

                self._coroutines = Coroutines()
            return self._coroutines

    @property
    def balance(self) -> Balance:
        """Chooses a peer for calls that any peer may run."""
        with self.lock:
            if self._balance is None:
                from .run.balance import Balance  # few need it

                self._balance = Balance()
            return self._balance

    def once(self, make: Callable[[Process], T]) -> T:
        """What a floor above has once in a process: ``make(self)``, called at the first use. Any
        thread may call."""
        found: Optional[T] = self._once.get(make)
        if found is None:
            with self.lock:
                found = self._once.get(make)
                if found is None:
                    found = self._once[make] = make(self)
        return found

    def event_loop(self) -> AbstractEventLoop:
        """The asyncio loop of :attr:`coroutines`, started if need be.

        :raises PeerBusy: no thread can be started.
        """
        return self.coroutines.loop()

    def on_fork(self) -> None:
        """Start afresh in a child: no server, no connection, another identity."""
        self._begin()
        # The child can launch its peers again, and then has to forget them in a child of its own.
        self.loop.abandon()
        self._coroutines = None
        # Before the servers close the listeners of an engine, of which nothing can be used here.
        self.client.forget()
        for peer in self.peers:
            peer.abandon()
        for forget in self.forked:
            forget()


#: The one that the decorators and :func:`net.peers` use. Tests make others.
process = Process(settings)
