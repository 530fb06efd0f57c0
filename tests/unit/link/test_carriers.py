"""The contract of a carrier, run against each of them."""
from __future__ import annotations

import errno
import itertools
import os
import select
import selectors
import socket
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Iterator, Optional, Tuple

import pytest

from net.errors import AuthenticationError, SettingError
from net.link.base import Carrier, Deadline, Endpoint, Listener
from net.link.memory import MemoryCarrier
from net.link.streams import Stream, Timed
from net.link.tcp import TcpCarrier
from net.link.unix import UnixCarrier
from net.link.zenoh import SUFFIX, Router, ZenohCarrier, configuration, load_zenoh
from net.run.loop import Loop
from net.wire.frames import EndOfStream
from ports import PortRange
from times import patience

# Seconds that something may take which happens at once on an idle machine.
PATIENCE = patience(10)
BACKLOG = 3

_numbers = itertools.count()


class Network:
    """A carrier, and endpoints of it that nobody uses.

    :ivar hosts: makes a host where a listener can be.
    """

    def __init__(self, carrier: Carrier, hosts: Callable[[], str]) -> None:
        self.carrier = carrier
        self.free = lambda: Endpoint(carrier.name, hosts(), 0)
        self.opened = ExitStack()

    def close(self) -> None:
        self.opened.close()

    def listen(self, backlog: int = BACKLOG) -> Listener:
        listener = self.carrier.listen(self.free(), backlog)
        self.opened.callback(listener.close)
        return listener

    def connect(self, endpoint: Endpoint, seconds: float = PATIENCE) -> socket.socket:
        return self.opened.enter_context(self.carrier.connect(endpoint, Deadline(seconds)))

    def accept(self, listener: Listener) -> socket.socket:
        """Wait for a connection as a server does, and accept it."""
        assert readable(listener)
        return self.opened.enter_context(listener.accept()[0])

    def pair(self) -> Tuple[socket.socket, socket.socket]:
        listener = self.listen()
        return self.connect(listener.endpoint), self.accept(listener)

    def streams(self) -> Tuple[Stream, Stream]:
        ours, theirs = self.pair()
        return Stream(ours), Stream(theirs)


def readable(listener: Any, seconds: float = PATIENCE) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def tcp4(_folder: Any) -> Network:
    return Network(TcpCarrier(), lambda: "127.0.0.1")


def tcp6(_folder: Any) -> Network:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6")
    return Network(TcpCarrier(), lambda: "::1")


def memory(_folder: Any) -> Network:
    return Network(MemoryCarrier(), lambda: "studio")


def unix(folder: Any) -> Network:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    return Network(UnixCarrier(), lambda: str(folder / f"peer{next(_numbers)}"))


def abstract(_folder: Any) -> Network:
    if sys.platform != "linux":
        pytest.skip("only Linux has an abstract namespace")
    return Network(UnixCarrier(), lambda: f"@net-test-{os.getpid()}-{next(_numbers)}")


@pytest.fixture(scope="module", autouse=True)
def zenoh_router() -> Iterator[Optional[Router]]:
    """A router of Zenoh in this process; None without the library."""
    try:
        library = load_zenoh()
    except SettingError:
        yield None
        return
    held = PortRange()
    router = Router("tcp", "127.0.0.1", held.ports.start)
    session = library.open(configuration(library, "router", {}, listen=(router,)))
    yield router
    session.close()
    held.close()


def zenoh(_folder: Any, router: Optional[Router]) -> Network:
    if router is None:
        pytest.skip("eclipse-zenoh is not installed")
    carrier = ZenohCarrier(os.urandom(16).hex(), (router,), Loop("net-engine-test"))
    network = Network(carrier, lambda: carrier.instance + SUFFIX)
    network.opened.callback(carrier.close)
    return network


@pytest.fixture(params=[tcp4, tcp6, memory, unix, abstract, zenoh],
                ids=lambda made: made.__name__)
def network(request, tmp_path, zenoh_router) -> Iterator[Network]:
    more = (zenoh_router,) if request.param is zenoh else ()
    made = request.param(tmp_path, *more)
    yield made
    made.close()


# ------------------------------------------------------------------ connecting and listening

def test_a_listener_tells_where_it_can_be_connected_to(network):
    first, second = network.listen(), network.listen()
    assert first.endpoint != second.endpoint
    assert first.endpoint.carrier == network.carrier.name
    ours = network.connect(second.endpoint)
    assert not readable(first, 0)
    theirs = network.accept(second)
    ours.sendall(b"x")
    assert theirs.recv(10) == b"x"


def test_sockets_are_blocking_and_without_a_timeout_on_both_sides(network):
    for sock in network.pair():
        assert sock.gettimeout() is None
        assert sock.type == socket.SOCK_STREAM


def test_connecting_does_not_wait_to_be_accepted(network):
    listener = network.listen()
    ours = network.connect(listener.endpoint)
    ours.sendall(b"early")
    assert network.accept(listener).recv(10) == b"early"


def test_accepting_never_waits(network):
    listener = network.listen()
    with pytest.raises(BlockingIOError):
        listener.accept()
    network.connect(listener.endpoint)
    network.accept(listener)
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert not readable(listener, 0)


def test_every_connection_that_waits_is_accepted_in_order(network):
    listener = network.listen()
    for number in range(3):
        network.connect(listener.endpoint).sendall(b"%d" % number)
    assert [network.accept(listener).recv(10) for _ in range(3)] == [b"0", b"1", b"2"]


def test_where_nobody_listens_connecting_is_refused(network):
    listener = network.listen()
    listener.close()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            network.connect(listener.endpoint)
        assert how_it_ends(network, listener.endpoint) == errno.ECONNREFUSED


def test_two_cannot_listen_at_one_endpoint(network):
    listener = network.listen()
    with pytest.raises(OSError) as caught:
        network.carrier.listen(listener.endpoint, BACKLOG)
    assert caught.value.errno == errno.EADDRINUSE
    network.connect(listener.endpoint)
    listener.close()
    network.carrier.listen(listener.endpoint, BACKLOG).close()


def test_a_closed_listener_accepts_no_more_and_keeps_what_it_accepted(network):
    listener = network.listen()
    ours = network.connect(listener.endpoint)
    theirs = network.accept(listener)
    listener.close()
    listener.close()
    assert listener.fileno() == -1
    with pytest.raises(OSError) as caught:
        listener.accept()
    assert not isinstance(caught.value, BlockingIOError)
    ours.sendall(b"x")
    assert theirs.recv(10) == b"x"


def test_a_connection_that_waits_to_be_accepted_is_closed_with_the_listener(network):
    listener = network.listen()
    ours = network.connect(listener.endpoint)
    listener.close()
    ours.settimeout(PATIENCE)
    try:
        assert ours.recv(10) == b""
    except ConnectionResetError:
        pass


def test_what_does_not_answer_is_a_timeout_at_the_deadline(network):
    listener = network.listen(backlog=0)
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        while True:  # until the queue of those to be accepted is full
            network.connect(listener.endpoint, 0.2)
    assert 0.19 <= time.monotonic() - start < PATIENCE


def test_a_deadline_that_has_passed_connects_nobody(network):
    listener = network.listen()
    with pytest.raises(socket.timeout):
        network.connect(listener.endpoint, 0)
    assert not readable(listener, 0)


def test_a_socket_that_was_started_becomes_writable_when_it_is_connected(network):
    listener = network.listen()
    assert how_it_ends(network, listener.endpoint) == 0
    network.accept(listener)


def how_it_ends(network: Network, endpoint: Endpoint) -> int:
    """The error code of a connection that is made without waiting, 0 for none."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            sock = network.carrier.start(endpoint)
            break
        except BlockingIOError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        except OSError as problem:
            return problem.errno or -1
    with sock:
        assert sock.gettimeout() == 0
        _, writable, _ = select.select([], [sock], [], PATIENCE)
        assert writable
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_many_threads_connect_at_once(network):
    listener = network.listen(backlog=50)
    connectors = [threading.Thread(target=network.connect, args=(listener.endpoint,))
                  for _ in range(20)]
    for one in connectors:
        one.start()
    for _ in connectors:
        network.accept(listener)
    for one in connectors:
        one.join()


# ------------------------------------------------------------------ the socket

def test_bytes_go_both_ways_at_once_in_order_and_whole(network):
    ours, theirs = network.streams()
    data = {ours: os.urandom(3_000_000), theirs: os.urandom(3_000_000)}
    senders = [threading.Thread(target=one.send, args=([b"head", data[one]],)) for one in data]
    for one in senders:
        one.start()
    assert theirs.recv_exactly(3_000_004) == b"head" + data[ours]
    assert ours.recv_exactly(3_000_004) == b"head" + data[theirs]
    for one in senders:
        one.join()


def test_what_was_sent_before_closing_still_arrives_and_then_the_end(network):
    ours, theirs = network.streams()
    ours.send([b"x" * 50_000])
    ours.close()
    assert theirs.recv_exactly(50_000) == b"x" * 50_000
    assert readable(theirs.sock) and theirs.is_readable()
    assert theirs.recv(10) == b""


def test_one_direction_can_end_before_the_other(network):
    ours, theirs = network.streams()
    ours.send([b"question"])
    ours.sock.shutdown(socket.SHUT_WR)
    assert theirs.recv_exactly(8) == b"question"
    assert theirs.recv(10) == b""
    theirs.send([b"answer"])
    assert ours.recv(10) == b"answer"


def test_sending_to_a_peer_that_has_gone_is_an_error_and_no_signal(network):
    ours, theirs = network.streams()
    theirs.close()
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            ours.send([b"x"])


def test_a_socket_that_is_aborted_lets_its_reader_go_on(network):
    ours, theirs = network.streams()
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(ours.recv(10)))
    reader.start()
    ours.abort()
    reader.join(PATIENCE)
    assert received == [b""]
    assert theirs.recv(10) == b""


def test_a_peer_that_takes_nothing_stops_a_sender_at_its_deadline(network):
    ours, _theirs = network.streams()
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        Timed(ours, Deadline(0.1)).send([bytes(2 ** 20)] * 100)
    assert 0.09 <= time.monotonic() - start < PATIENCE


def test_a_peer_that_does_not_read_fills_a_non_blocking_socket(network):
    ours, theirs = network.streams()
    ours.sock.setblocking(False)
    assert ours.recv_some(10) is None
    sent = 0
    count = ours.send_some(bytes(100_000))
    while count:
        sent += count
        count = ours.send_some(bytes(100_000))
    assert sent
    assert theirs.recv_exactly(sent) == bytes(sent)


# ------------------------------------------------------------------ TLS over it

@pytest.fixture(scope="module")
def credentials(tmp_path_factory) -> Any:
    from certificates import Authority  # skips where its library is missing
    from net.link import tls

    authority = Authority(tmp_path_factory.mktemp("authority"))
    return tls.from_files(*authority.issue("peer", (tls.PEER_NAME,)))


def secured(network: Network, credentials: Any) -> Tuple[Stream, Stream]:
    from net.link import tls

    ours, theirs = network.streams()
    accepted: list[Stream] = []
    server = threading.Thread(target=lambda: accepted.append(
        tls.accept(theirs, credentials, None, theirs.recv(65536))))
    server.start()
    client = tls.connect(ours, credentials, ("anything", 1), Deadline(PATIENCE))
    server.join()
    return client, accepted[0]


def test_tls_is_a_filter_over_it(network, credentials):
    ours, theirs = secured(network, credentials)
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=ours.send, args=([b"head", data],))
    sender.start()
    first = theirs.recv(1000)
    assert theirs.recv_exactly(3_000_004, first) == b"head" + data
    sender.join()
    theirs.send([b"answer"])
    assert ours.recv(100) == b"answer"
    ours.close()
    with pytest.raises(EndOfStream):
        theirs.recv_exactly(10)


def test_nothing_can_be_read_of_what_tls_sends_over_it(network, credentials):
    ours, theirs = secured(network, credentials)
    ours.send([b"a secret of the studio"])
    seen = theirs.sock.recv(1000)
    assert len(seen) > 22 and b"secret" not in seen


def test_a_reader_of_tls_knows_what_waits_within(network, credentials):
    ours, theirs = secured(network, credentials)
    ours.send([b"one two"])
    assert not theirs.holds_data
    assert theirs.recv(3) == b"one"
    assert theirs.holds_data and theirs.is_readable()
    theirs.sock.setblocking(False)
    assert theirs.recv_some(10) == b" two"
    assert theirs.recv_some(10) is None
    assert not theirs.holds_data


def test_open_bytes_over_it_are_refused_where_tls_is_spoken(network, credentials):
    from net.link import tls

    ours, theirs = network.streams()
    theirs.send([b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    theirs.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(AuthenticationError, match="does not speak TLS"):
        tls.connect(ours, credentials, ("anything", 1), Deadline(PATIENCE))
