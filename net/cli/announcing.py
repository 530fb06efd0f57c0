"""``app-net announce EVENT``: one event, to its subscribers."""
from __future__ import annotations

from time import monotonic, sleep
from typing import Any, Dict, List, Optional, Tuple

from ..errors import NetError
from ..events import EXIT_TIME, event, own_events
from ..identity import printable
from ..peer import Peer
from .screen import Failed, Screen, Usage

# Seconds without a new subscriber until the event is sent, and between checks.
CALM, LOOK = 0.5, 0.02


def announce(screen: Screen, name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any],
             wait: float, timeout: Optional[float]) -> int:
    """Send an event to its subscribers, and print the peers that took it.

    :param wait: seconds for a subscriber to come.
    :param timeout: seconds for them to take it; None for as long as at the end of a process.
    :raises NetError: no port is free, the arguments cannot travel, or no subscriber took the event.
    :raises Failed: there is no subscriber.
    :raises Usage: no event can have that name.
    """
    try:
        trigger = event(name)(_as_given)
    except ValueError as problem:  # the name of the event
        raise Usage(str(problem)) from None
    Peer().launch()
    screen.say(f"waiting for subscribers of {printable(name)!r}")
    if not _wait_for_subscribers(name, wait):
        raise Failed(f"no peer has subscribed to {name!r} within {wait:g} s")
    trigger(*args, **kwargs)
    publisher = own_events().publisher
    patience = EXIT_TIME if timeout is None else timeout
    late = publisher.flush(patience)
    taken: List[str] = []
    for subscriber, counts in publisher.stats()["events"][name]["subscribers"].items():
        if counts["sent"] and not late.get(subscriber):
            taken.append(str(subscriber))
    if screen.json:
        screen.put_json({"event": name, "taken": sorted(taken)})
    else:
        for one in sorted(taken):
            screen.write(f"taken by {one}")
    if not taken:
        raise NetError(f"no subscriber took the event within {patience:g} s")
    return 0


def _as_given(*args: Any, **kwargs: Any) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    return args, kwargs


def _wait_for_subscribers(name: str, wait: float) -> bool:
    publisher = own_events().publisher
    ends, seen, changed = monotonic() + wait, 0, monotonic()
    while monotonic() < ends:
        with publisher.lock:
            now = len(publisher.registry.hearers(name))
        if now != seen:
            seen, changed = now, monotonic()
        elif seen and monotonic() - changed >= CALM:
            return True
        sleep(LOOK)
    return seen > 0
