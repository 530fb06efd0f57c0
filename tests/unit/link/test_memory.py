"""What only the carrier in memory has: a queue of its own."""
from __future__ import annotations

import pytest

from net.link.base import Endpoint
from net.link.memory import MemoryCarrier


def test_as_many_wait_to_be_accepted_as_the_backlog_says():
    carrier = MemoryCarrier()
    listener = carrier.listen(Endpoint("memory", "studio", 3010), 2)
    waiting = [carrier.start(listener.endpoint) for _ in range(2)]
    with pytest.raises(BlockingIOError):
        carrier.start(listener.endpoint)
    accepted, _ = listener.accept()
    waiting.append(carrier.start(listener.endpoint))
    listener.close()
    for sock in [accepted, *waiting]:
        sock.close()


def test_a_listener_that_closes_at_this_moment_refuses():
    carrier = MemoryCarrier()
    listener = carrier.listen(Endpoint("memory", "studio", 3010), 2)
    listener.close()
    carrier._listeners[listener.endpoint.address] = listener  # as a thread saw it before
    with pytest.raises(ConnectionRefusedError):
        carrier.start(listener.endpoint)


def test_what_listens_on_one_network_is_not_on_another():
    carrier = MemoryCarrier()
    listener = carrier.listen(Endpoint("memory", "studio", 3010), 2)
    with pytest.raises(ConnectionRefusedError):
        MemoryCarrier().start(listener.endpoint)
    listener.close()
