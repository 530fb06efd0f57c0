"""Places that are shared out by source, so that no stranger can take them all."""
from __future__ import annotations

import threading
from typing import Dict, Optional

from ..errors import Address
from ..run.access import share_of
from ..settings import Settings, is_loopback

try:
    import resource
except ImportError:  # Windows, where sockets are limited by memory only
    resource = None  # type: ignore[assignment]

# Connections for events: fewer where descriptors are few, but some in any case. Descriptors that
# are left to the application, and to all else here.
MAX_CONNECTIONS, MIN_CONNECTIONS = 4096, 64
SPARE_DESCRIPTORS = 128


def source_of(address: Optional[Address]) -> str:
    """Where a connection comes from: its host, or its network with IPv6. Empty for this host."""
    if address is None or is_loopback(address[0]):
        return ""
    return share_of(address[0])


class Shares:
    """A number of places. Each source may have as many as half of what the others leave; this host
    may have all that is left. Any thread may call.

    :ivar limit: places in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # guards what follows
        self._taken: Dict[str, int] = {}
        self._total = 0

    def take(self, source: str) -> bool:
        """Take a place; False if there is none for this source."""
        with self._lock:
            own = self._taken.get(source, 0)
            left = self.limit - (self._total - own)
            if own >= (left // 2 if source else left):
                return False
            self._taken[source] = own + 1
            self._total += 1
            return True

    def give_back(self, source: str, places: int = 1) -> None:
        """Free places that a source had taken."""
        with self._lock:
            self._taken[source] -= places
            self._total -= places
            if not self._taken[source]:
                del self._taken[source]

    def clear(self) -> None:
        """Free all places, in a forked child."""
        self._lock = threading.Lock()
        self._taken.clear()
        self._total = 0


class Places(Shares):
    """The connections for events that this process may have: what the limit of descriptors leaves
    beside the other connections that it serves, and the application."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(MAX_CONNECTIONS)
        self._settings = settings

    def take(self, source: str) -> bool:
        self.limit = _connections_beside(self._settings.max_connections)
        return super().take(source)


def _connections_beside(served: int) -> int:
    if resource is None:
        return MAX_CONNECTIONS
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors - served - SPARE_DESCRIPTORS))
