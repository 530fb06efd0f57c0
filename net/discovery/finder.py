"""The contract of a finder: one way to find peers, and to be found.

It finds answers: addresses that have identified themselves. It never lists them itself; the cache
decides which are peers, and whether two answers come from the same one. A process has each finder
once: :class:`~net.discovery.lan.finder.Lan`, :class:`~net.discovery.static.Static` and
:class:`~net.discovery.engine.Engine`. One more is a class with these methods, and its line in
``net/discovery/__init__.py``. ``tests/integration/test_finders.py`` runs this contract against
each. The test kit has one more, for peers in memory: :class:`~net.testing.memory.MemoryFinder`.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterable, List, Optional, Protocol, Set

from ..errors import Address
from ..peer import _Peer
from .answers import Answer

if TYPE_CHECKING:
    from .probes import Sweep
    from .report import Report


class Search(Protocol):
    """One search, as the finders see it. For the thread that searches.

    :ivar on_host: whether only this host is searched.
    :ivar ports: those that a peer may have.
    :ivar own: the addresses of this host that are asked.
    :ivar started: monotonic time.
    :ivar threads: how many there may be beside the one that searches.
    :ivar sweep: asks addresses over TCP.
    :ivar sweeps: all sweeps of this search; a finder adds those that it gives to threads.
    :ivar tried: addresses that were asked over TCP.
    """

    on_host: bool
    ports: range
    report: Report
    own: List[str]
    started: float
    threads: int
    sweep: Sweep
    sweeps: List[Sweep]
    tried: Set[Address]

    def new_sweep(self) -> Sweep:
        """A sweep of this search, for a thread of its own."""

    def sweep_beside(self) -> Sweep:
        """A sweep in the thread that searches, with as many sockets again, for hosts all of which
        have to be asked."""

    def found(self, answer: Answer) -> None:
        """An address has identified itself."""

    def has(self, address: Address) -> bool:
        """Whether this address has identified itself."""

    def hint(self, address: Address, found: str) -> None:
        """There is a peer at this address, but only TCP can tell which one."""

    def later(self, when: float, action: Callable[[], None]) -> None:
        """Schedule something for a time."""


class Quest(Protocol):
    """A finder's part in one search. For the thread that searches; no method waits."""

    @property
    def due(self) -> float:
        """The next time to do something that no socket announces; infinity for none."""

    def step(self, now: float) -> None:
        """Do what is due (seconds, monotonic)."""

    def over(self, now: float) -> bool:
        """Whether no more answers are to be expected."""

    def close(self) -> None:
        """Release everything, finished or not, and fill in the report."""


class Listing(Protocol):
    """The list of known peers, as a finder sees it. Any thread may call."""

    def learn(self, answers: Iterable[Answer]) -> None:
        """List the peers that have answered."""

    def knows(self, address: Address) -> bool:
        """Whether a peer of this address is listed."""

    def drop(self, address: Address) -> None:
        """Take a peer off the list: it is gone."""


class Finder(Protocol):
    """One way to find peers."""

    def search(self, search: Search) -> Quest:
        """Begin to look for peers."""

    def announce(self, peer: _Peer) -> Callable[[], None]:
        """Let others find a peer that was launched, until the returned function is called."""

    def watch(self, until: float) -> None:
        """Keep the listed peers true until then, by the monotonic clock. Any thread may call."""

    def listed(self, answers: Iterable[Answer], gone: Iterable[Address]) -> None:
        """Hear what the list has gained and lost. Any thread may call."""

    def doubt(self, address: Address) -> None:
        """Find out whether a listed peer is gone, since a call could not reach it. Any thread may
        call."""

    def other_way(self, address: Address) -> Optional[Address]:
        """Another address of a peer that was found at this one and cannot be reached there; None if
        this finder knows none. Any thread may call."""

    def changed(self) -> None:
        """What the peer of this process says about itself has changed. Any thread may call."""

    def forget(self) -> None:
        """Start afresh in a forked child: what was open is the parent's."""
