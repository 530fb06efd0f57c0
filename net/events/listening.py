"""``python3 -m net listen EVENT``: events on a terminal."""
from __future__ import annotations

import queue
import time
from typing import Any, List, Optional

from . import subscribe
from ..context import caller
from ..errors import InvalidPeer, NetError
from ..identity import PeerId, printable
from ..peer import Peer

# Lines that wait for whoever reads them. When it is full, this process counts as slow, as it is.
MAX_LINES = 1000
# Characters of an event that are shown.
MAX_SHOWN = 2000


def listen(event: str, peers: Optional[List[str]], groups: Optional[List[str]], hubs_only: bool,
           on_host: bool) -> int:
    """Print events until interrupted.

    :raises NetError: not a peer, or no port is free to be delivered to.
    """
    lines: queue.Queue[str] = queue.Queue(MAX_LINES)

    def hear(*args: Any, **kwargs: Any) -> None:
        found = caller()
        host, port = found.address or ("here", 0) if found is not None else ("here", 0)
        lines.put(f"{_now()} {host}:{port} {printable(f'{args!r} {kwargs!r}', MAX_SHOWN)}")

    def miss(event: str, peer: PeerId, missed: Optional[int]) -> None:
        count = "some" if missed is None else f"{missed:,}"
        lines.put(f"{_now()} {peer.host}:{peer.port} -- {count} events missed")

    Peer().launch()
    try:
        subscribe(event, peers, groups, hubs_only, on_host, miss)(hear)
    except InvalidPeer:
        raise
    except ValueError as problem:  # the name of the event
        raise NetError(str(problem)) from None
    whom = "all peers" if peers is None else ", ".join(peers)
    print(f"listening to {event!r} of {printable(whom)}; Ctrl-C ends it", flush=True)
    while True:
        try:
            # With a limit, since nothing interrupts a wait without one on Windows.
            print(lines.get(timeout=1.0), flush=True)
        except queue.Empty:
            pass


def _now() -> str:
    return time.strftime("%H:%M:%S")
