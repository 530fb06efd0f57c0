"""``app-net listen EVENT``: shows events on a terminal."""
from __future__ import annotations

import queue
import time
from typing import Any, Dict, List, Optional, Tuple

from ..context import caller
from ..errors import Address, InvalidPeer
from ..events import subscribe
from ..identity import PeerId, place_text, printable
from ..peer import Peer
from .screen import Failed, Screen, Usage

# Lines that wait to be printed. When the queue is full, this process counts as a slow subscriber.
MAX_LINES = 1000
# Seconds that one wait for an event takes: nothing interrupts one without a limit on Windows.
LOOK = 1.0
# Characters of an event that are shown.
MAX_SHOWN = 2000

# The time of an event by the clock of this host, for scripts.
STAMP = "%Y-%m-%dT%H:%M:%S%z"

# The source of events that this process has announced.
HERE: Address = ("here", 0)

#: A line for people, and the same for scripts.
Line = Tuple[str, Dict[str, Any]]


def listen(screen: Screen, event: str, peers: Optional[List[str]], groups: Optional[List[str]],
           hubs_only: bool, on_host: bool, timeout: Optional[float]) -> int:
    """Show events until interrupted.

    :param timeout: seconds without an event after which it ends; None for never.
    :returns: the exit code, 0.
    :raises NetError: one of ``peers`` is not a peer, or no port is free for this process.
    :raises Failed: no event came in time.
    :raises Usage: no event can have that name.
    """
    lines: queue.Queue[Line] = queue.Queue(MAX_LINES)

    def hear(*args: Any, **kwargs: Any) -> None:
        found = caller()
        place = place_text(found.address or HERE) if found is not None else place_text(HERE)
        lines.put((f"{_now()} {place} {printable(f'{args!r} {kwargs!r}', MAX_SHOWN)}",
                   {"time": time.strftime(STAMP), "peer": place, "event": event,
                    "args": args, "kwargs": kwargs}))

    def miss(event: str, peer: PeerId, missed: Optional[int]) -> None:
        count = "some" if missed is None else f"{missed:,}"
        lines.put((f"{_now()} {peer} -- {count} events missed",
                   {"time": time.strftime(STAMP), "peer": str(peer), "event": event,
                    "missed": missed}))

    Peer().launch()
    try:
        subscribe(event, peers, groups, hubs_only, on_host, miss)(hear)
    except InvalidPeer:
        raise
    except ValueError as problem:  # the name of the event
        raise Usage(str(problem)) from None
    whose = printable(publishers(peers, groups, hubs_only, on_host))
    screen.say(f"listening to {event!r} of {whose}; Ctrl-C ends it")
    return _print(lines, screen, timeout)


def _print(lines: queue.Queue[Line], screen: Screen, timeout: Optional[float]) -> int:
    """Print lines as they come, until none has come for ``timeout`` seconds.

    :raises Failed: there were none at all.
    """
    last, any_came = time.monotonic(), False
    while True:
        left = LOOK if timeout is None else min(LOOK, last + timeout - time.monotonic())
        try:
            text, facts = lines.get(timeout=max(0.0, left))
        except queue.Empty:
            if left >= LOOK:
                continue
            if any_came:
                return 0
            raise Failed(f"no event came within {timeout:g} s") from None
        last, any_came = time.monotonic(), True
        if screen.json:
            screen.put_json(facts)
        else:
            screen.write(text)


def publishers(peers: Optional[List[str]], groups: Optional[List[str]], hubs_only: bool,
               on_host: bool) -> str:
    """The publishers that are heard, in words."""
    found = "all hubs" if hubs_only else "all peers"
    if peers is not None:
        found = ", ".join(peers) + (" where they are hubs" if hubs_only else "")
    if on_host:
        found += " on this host"
    if groups:
        found += f" of the group{'s' if len(groups) > 1 else ''} {', '.join(groups)}"
    return found


def _now() -> str:
    return time.strftime("%H:%M:%S")
