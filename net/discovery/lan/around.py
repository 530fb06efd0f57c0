"""The question to all peers in the background: some rounds on the loop; no thread waits."""
from __future__ import annotations

import socket
from time import monotonic
from typing import Callable, List, Optional

from ...link import interfaces
from ...run.loop import READ, Loop
from ...settings import is_loopback, settings
from ..membership import Heard
from .asker import Asker, Place, lan_places, this_host
from .datagrams import Seal
from .rounds import Rounds

# Seconds between checks of the clock.
TICK = 0.02


class Around:
    """Asks all peers on this host and the LAN, except those that are known. In the loop's thread.

    :param known: instances of those that need not answer.
    :param found: called with each that has answered.
    :param ended: called when no more answers are expected.
    """

    def __init__(self, loop: Loop, instance: bytes, seal: Optional[Seal], known: List[bytes],
                 found: Callable[[Heard], None], ended: Callable[[], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._sockets: List[socket.socket] = []
        rounds = Rounds(monotonic(), expected=False)
        self._asker = Asker(places(), settings.ports, instance, self._listen, found,
                            lambda address: None, rounds, monotonic, seal, known)
        self._step()

    def _listen(self, sock: socket.socket, receive: Callable[[socket.socket], None]) -> None:
        self._loop.register(sock, READ, lambda mask: receive(sock))
        self._sockets.append(sock)

    def _step(self) -> None:
        now = monotonic()
        self._asker.step(now)
        if not self._asker.over(now):
            self._loop.call_later(TICK, self._step)
            return
        for sock in self._sockets:
            self._loop.unregister(sock)
        self._asker.close()
        self._ended()


def places() -> List[Place]:
    """Where the question goes: the addresses of this host, and its networks."""
    if settings.loopback_only:
        host = "127.0.0.1" if settings.host == "localhost" else str(settings.host)
        return this_host(dict.fromkeys(("127.0.0.1", host)))
    found = interfaces.read()[0]
    here = [one.address for one in found if is_loopback(one.address)]
    return this_host(dict.fromkeys(["127.0.0.1", *here])) + lan_places(
        interfaces.plan(found, settings.interfaces).asked)
