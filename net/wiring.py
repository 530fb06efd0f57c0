"""What the floors do when a peer is launched, when this process forks, and when it ends."""
from __future__ import annotations

import atexit
import logging

from . import discovery, events
from .forking import in_child
from .log import ROOT, LastResort
from .process import process


def wire() -> None:
    """Connect what there is once in this process. :mod:`net` does so when it is imported."""
    logging.getLogger(ROOT).addHandler(LastResort())
    process.hand_over = events.publisher.adopt
    process.launch_hooks += [discovery.announce, events.serve_events]
    process.change_hooks.append(discovery.known_peers.changed)
    process.client.missed = discovery.doubt
    process.client.other_way = discovery.other_way
    process.moved.append(events.move)
    process.forked += [discovery.known_peers.forget, events.forget]
    in_child(process.on_fork)
    # The last comes first: connections are closed before what may carry them, and events have
    # time to leave before that.
    atexit.register(process.client.carriers.close)
    atexit.register(process.client.close_idle)
    atexit.register(events.publisher.flush, events.EXIT_TIME)
