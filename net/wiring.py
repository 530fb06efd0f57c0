"""What the floors do when a peer is launched, when this process forks, and when it ends.

Discovery, events and statistics are loaded at their first use, but always before a peer is
launched, so no thread of a peer ever has to load them.
"""
from __future__ import annotations

import atexit
import logging
import sys
from functools import partial
from typing import Any, Callable

from .forking import forks
from .log import ROOT, LastResort
from .peer import _Peer, tag_for_old_peers
from .process import Process, process

# Bytes of messages whose memory is kept for the next ones. Until a block of that size has been
# freed once, glibc gives the end of its heap back to the system as soon as 128 KiB of it are free,
# and the next message takes page faults for it: an echo of 1 MB took three times as long. See
# "M_TRIM_THRESHOLD" in mallopt(3).
_KEPT = 2 * 1024 * 1024


def wire() -> None:
    """Wire what this process has once. :mod:`net` does so when it is imported."""
    bytes(_KEPT)  # nothing writes to it, so it takes no memory
    logging.getLogger(ROOT).addHandler(LastResort())
    join(process)
    forks.in_child.append(process.on_fork)
    # The last comes first: connections are closed before what may carry them, and events have
    # time to leave before that.
    atexit.register(process.client.carriers.close)
    atexit.register(process.client.close_idle)
    atexit.register(lambda: _tell(process, "events", "flush_at_exit"))


def join(process: Process) -> None:
    """Have the floors above do their part for a process."""
    process.load = partial(_load, process)
    process.client.old_tag = tag_for_old_peers
    process.client.missed = partial(_tell, process, "discovery", "doubt")
    process.client.answered = partial(_tell, process, "events", "answered")
    process.client.other_way = partial(_tell, process, "discovery", "other_way")
    process.change_hooks.append(partial(_tell, process, "discovery", "changed"))
    process.moved.append(partial(_tell, process, "events", "move"))
    process.forked += [partial(_tell, process, "discovery", "forget"),
                       partial(_tell, process, "events", "forget")]


def _load(process: Process) -> None:
    from . import discovery, events, statistics  # noqa: F401  for the functions that it has

    # Both are made before any thread of a peer can want them.
    process.once(discovery.cache_of)
    process.once(events.Events)
    process.hand_over = events.adopt
    process.begin_old_call = partial(events.begin_old_call, process)
    process.launch_hooks = [_close_at_exit, discovery.announce, events.serve_events]


def _close_at_exit(peer: _Peer) -> Callable[[], None]:
    """Let a peer that still serves say goodbye, once its port is closed: a peer that checks finds
    that it is."""
    atexit.register(peer.close)
    return partial(atexit.unregister, peer.close)


def _tell(process: Process, floor: str, name: str, *args: Any) -> Any:
    """Call a function of a floor, if that is loaded: otherwise it knows nothing yet."""
    tell = getattr(sys.modules.get(f"{__package__}.{floor}"), name, None)
    return None if tell is None else tell(process, *args)
