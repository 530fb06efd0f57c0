"""What only the carrier in memory has: a queue of its own."""
from __future__ import annotations

import pytest

from each import each
from net.errors import PeerUnreachable
from net.link.base import Endpoint
from net.link.carriers import Carriers
from net.link.memory import HOST, MemoryCarrier
from net.settings import Settings


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


def test_a_port_that_has_just_got_free_is_not_given_to_the_next_one():
    carrier = MemoryCarrier()
    before = carrier.listen(Endpoint("memory", "studio", 0), 2)
    before.close()
    after = carrier.listen(Endpoint("memory", "studio", 0), 2)
    after.close()
    assert after.endpoint.port == before.endpoint.port + 1


def test_a_host_stands_for_this_process_once_it_has_peers_in_memory():
    carriers = Carriers(Settings(), lambda: None)
    assert carriers.to((HOST, 40000))[0].name == "tcp"
    listener = carriers.memory.listen(Endpoint("memory", HOST, 0), 2)
    carrier, endpoint = carriers.to(listener.endpoint.address)
    assert carrier is carriers.memory and endpoint == listener.endpoint
    assert carriers.to(("127.0.0.1", 40000))[0].name == "tcp"
    carriers.forget()  # as in a forked child
    assert listener.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        carrier.start(endpoint)


@each("host, address, may", [
    (None, "192.0.2.1", True), ("192.0.2.7", "192.0.2.1", True), ("127.0.0.1", "127.0.0.2", True),
    ("127.0.0.1", "192.0.2.1", False), ("127.0.0.1", "render.example", False),
    ("127.0.0.1", "a" * 32 + ".zenoh", True)])
def test_a_loopback_host_keeps_a_process_from_addresses_of_others(host, address, may):
    settings = Settings()
    settings.set("host", host)
    carriers = Carriers(settings, lambda: None)
    assert carriers.may_reach(address) is may
    if may:
        carriers.check((address, 3010))
    else:
        with pytest.raises(PeerUnreachable, match="NET_HOST=127.0.0.1") as caught:
            carriers.check((address, 3010))
        assert caught.value.address == (address, 3010)
