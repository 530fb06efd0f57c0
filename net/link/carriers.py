"""Which carrier leads to an address."""
from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from ..errors import Address, PeerUnreachable, SettingError
from ..settings import ENGINE_SUFFIX, Settings, is_loopback, parse_router
from .base import Carrier, Endpoint, Listener
from .tcp import TcpCarrier

if TYPE_CHECKING:
    from .memory import MemoryCarrier
    from .zenoh import EngineLoop, ZenohCarrier


class Carriers:
    """The carriers of a process. Any thread may call.

    :param new_loop: makes the loop of an engine, which has one of its own.
    :ivar instance: the random id of this process.
    :ivar through: wraps each carrier before it is used. A test can make it a network that has
        faults.
    """

    def __init__(self, settings: Settings, new_loop: Callable[[], EngineLoop]) -> None:
        self.instance = ""
        self.through: Callable[[Carrier], Carrier] = _directly
        self._settings = settings
        self._new_loop = new_loop
        self._tcp = TcpCarrier()
        self._memory: Optional[MemoryCarrier] = None
        self._memory_host = ""
        self._lock = threading.Lock()  # guards the next two
        self._engine: Optional[ZenohCarrier] = None
        self._loop: Optional[EngineLoop] = None
        # Engines of the processes that this one was forked from. They are kept, because freeing
        # them would wait for threads that are not here.
        self._inherited: List[ZenohCarrier] = []

    def to(self, address: Address) -> Tuple[Carrier, Endpoint]:
        """The carrier that leads to an address, and the endpoint there.

        :raises OSError: this process has no carrier for it.
        """
        if not address[0].endswith(ENGINE_SUFFIX):
            if self._memory is not None and address[0] == self._memory_host:
                return self.through(self._memory), Endpoint(self._memory.name, *address)
            return self.through(self._tcp), Endpoint.of(address)
        engine = self.engine
        if engine is None:
            raise OSError(self.why_none or "it is reached through an engine: set NET_ENGINE and "
                                           "NET_ROUTER")
        return self.through(engine), Endpoint(engine.name, *address)

    def may_reach(self, host: str) -> bool:
        """Whether this process may connect to a host. An engine's routers are checked when it is
        started."""
        return not self._settings.loopback_only or is_loopback(host) \
            or host.endswith(ENGINE_SUFFIX)

    def check(self, address: Address) -> None:
        """Refuse an address that this process may not connect to.

        :raises PeerUnreachable: NET_HOST keeps it on its own host.
        """
        if not self.may_reach(address[0]):
            raise PeerUnreachable(address, f"NET_HOST={self._settings.host} keeps this process on "
                                           f"its own host")

    @property
    def memory(self) -> MemoryCarrier:
        """The carrier to peers within this process, which are at a host of their own. Made at the
        first use, by tests alone: without it, that host is one of the network."""
        with self._lock:
            if self._memory is None:
                from .memory import HOST, MemoryCarrier

                self._memory, self._memory_host = MemoryCarrier(), HOST
            return self._memory

    @property
    def why_none(self) -> str:
        """Why this process has no engine although one is set; empty if it can have one."""
        return "this process was forked from one whose engine had started, and can have none: " \
               "start it by 'spawn'" if self._inherited else ""

    @property
    def engine(self) -> Optional[ZenohCarrier]:
        """The carrier that leads beyond the networks of this host; None where none is set, or in a
        process that was forked from one that had it. Made at the first use, with the settings of
        that time.

        :raises SettingError: the settings for it cannot be used.
        """
        if self._engine is not None or self._inherited or not self._settings.has_engine:
            return self._engine
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def _make_engine(self) -> ZenohCarrier:
        settings = self._settings
        if not settings.secured:
            raise SettingError(
                "NET_ENGINE leads beyond this network, so peers have to know each other: set "
                "NET_SECRET or NET_SECRET_FILE (python3 -m net secret makes one), or NET_TLS_CERT, "
                "NET_TLS_KEY and NET_TLS_CA, the same for all of them")
        routers = list(map(parse_router, settings.router))
        if settings.loopback_only and not all(is_loopback(host) for _, host, _ in routers):
            raise SettingError(f"NET_HOST={settings.host} keeps this process on its own host, and "
                               f"NET_ROUTER names others: leave out one of the two")
        from .zenoh import Router, ZenohCarrier  # with the library

        self._loop = self._new_loop()
        return ZenohCarrier(self.instance, tuple(Router(*one) for one in routers), self._loop,
                            self._link_security, link_problem)

    def _link_security(self) -> Dict[str, object]:
        if not any(router.startswith("tls/") for router in self._settings.router):
            return {}
        from ..forking import forks

        with forks.lock:
            from .tls import link_security

            return link_security("connect")

    def listen(self, port: int, backlog: int) -> List[Listener]:
        """Listen for peers that do not come over the networks of this host.

        :raises SettingError: as for :attr:`engine`.
        """
        engine = self.engine
        return [] if engine is None else [engine.listen(
            Endpoint(engine.name, self.instance + ENGINE_SUFFIX, port), backlog)]

    def close(self) -> None:
        """Leave nothing of an engine running. Not to be called in its loop."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def forget(self) -> None:
        """Start afresh in a forked child, which can have no engine where the parent had one."""
        self._lock = threading.Lock()
        if self._memory is not None:
            self._memory.abandon()
        engine, self._engine = self._engine, None
        if engine is not None:
            assert self._loop is not None
            self._loop.abandon()
            engine.abandon()
            self._inherited.append(engine)


def _directly(carrier: Carrier) -> Carrier:
    return carrier


def link_problem(sock: socket.socket, seconds: float, refusal: float) -> str:
    """See :func:`net.link.tls.link_problem`."""
    from .tls import link_problem  # with OpenSSL, which open mode does not need

    return link_problem(sock, seconds, refusal)
