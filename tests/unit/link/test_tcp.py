"""What only the carrier of TCP has: names, zones, options of its sockets."""
from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

import pytest

from net.link import interfaces, tcp
from net.link.base import Deadline, Endpoint, listen_at
from net.link.interfaces import Interface
from net.link.tcp import TcpCarrier, is_own_address, tune
from each import each
from times import patience


@pytest.fixture
def listener():
    found = TcpCarrier().listen(Endpoint("tcp", "127.0.0.1", 0), 5)
    yield found
    found.close()


def is_tuned(sock: socket.socket) -> bool:
    return all([sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)])


def test_both_ends_are_tuned_however_they_were_made(listener):
    carrier = TcpCarrier()
    for ours in (carrier.connect(listener.endpoint, Deadline(patience(5))),
                 carrier.start(listener.endpoint)):
        theirs, address = _accept(listener)
        assert is_tuned(ours) and is_tuned(theirs)
        assert address == ours.getsockname()
        ours.close()
        theirs.close()


def test_a_tcp_socket_is_tuned_for_small_messages_and_lost_hosts():
    with socket.socket() as sock:
        tune(sock)
        assert is_tuned(sock)
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle, interval, count = (
                sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"))
            assert idle + interval * count <= 20  # seconds until a vanished host is noticed


def test_the_addresses_of_a_name_are_tried_in_turn(listener, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        places = [(closed.family, 1, 6, "", closed.getsockname()),
                  (socket.AF_INET, 1, 6, "", listener.endpoint.address)]
        monkeypatch.setattr(tcp.socket, "getaddrinfo", lambda *arguments: places)
        ours = TcpCarrier().connect(Endpoint("tcp", "peer.example", 1), Deadline(patience(5)))
        theirs, _ = _accept(listener)
        theirs.close()
        ours.close()
        places.pop()
        with pytest.raises(ConnectionRefusedError):
            TcpCarrier().connect(Endpoint("tcp", "peer.example", 1), Deadline(patience(5)))


def test_a_silent_address_of_a_name_leaves_time_for_the_next(listener, monkeypatch):
    silent = TcpCarrier().listen(Endpoint("tcp", "127.0.0.1", 0), 0)
    with ExitStack() as filling:
        filling.callback(silent.close)
        with pytest.raises(socket.timeout):
            while True:
                filling.enter_context(
                    TcpCarrier().connect(silent.endpoint, Deadline(patience(0.2))))
        places = [(socket.AF_INET, 1, 6, "", one.endpoint.address) for one in (silent, listener)]
        monkeypatch.setattr(tcp.socket, "getaddrinfo", lambda *arguments: places)
        TcpCarrier().connect(Endpoint("tcp", "peer.example", 1), Deadline(patience(0.4))).close()
    _accept(listener)[0].close()


@each("host", ["peer.example", "h\xf6st", "", "300.1.2.3"])
def test_a_name_is_not_looked_up_where_nothing_may_wait(host):
    with pytest.raises(OSError):
        TcpCarrier().start(Endpoint("tcp", host, 3010))
    with pytest.raises(OSError):
        TcpCarrier().listen(Endpoint("tcp", host, 0), 5)


def test_a_host_that_no_name_can_be_is_an_error_of_the_system():
    with pytest.raises(OSError):
        TcpCarrier().connect(Endpoint("tcp", "h\xf6st", 3010), Deadline(patience(5)))


def test_a_port_is_listened_at_in_version_4_and_in_version_6():
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no IPv6")
    listeners = listen_at(TcpCarrier(), ["0.0.0.0", "::"], range(0), 5, any_port=True)
    assert len({listener.endpoint.port for listener in listeners}) == 1
    for host, listener in zip(("127.0.0.1", "::1"), listeners):
        ours = TcpCarrier().connect(Endpoint("tcp", host, listener.endpoint.port),
                                    Deadline(patience(5)))
        theirs, address = _accept(listener)
        assert address == (host, ours.getsockname()[1])
        ours.close()
        theirs.close()
    for listener in listeners:
        listener.close()


def test_a_client_that_has_gone_is_a_connection_that_was_aborted(listener, monkeypatch):
    def fail(sock: socket.socket) -> None:
        raise OSError("it has gone")

    ours = TcpCarrier().connect(listener.endpoint, Deadline(patience(5)))
    monkeypatch.setattr(tcp, "tune", fail)
    with pytest.raises(ConnectionAbortedError):
        _accept(listener)
    ours.close()


def test_interrupting_a_connect_closes_its_socket(listener, monkeypatch):
    def interrupt(sock: socket.socket) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tcp, "tune", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TcpCarrier().connect(listener.endpoint, Deadline(patience(5)))
    with pytest.raises(KeyboardInterrupt):
        TcpCarrier().start(listener.endpoint)


def _accept(listener):
    """Accept as the only one, from a listener that does not wait."""
    done = threading.Event()
    while True:
        try:
            return listener.accept()
        except BlockingIOError:
            assert not done.wait(0.001)


@pytest.mark.parametrize("host, own", [
    ("127.0.0.1", True), ("127.0.0.1x", False), ("203.0.113.1", False), ("2001:db8::1", False),
    ("0.0.0.0", False), ("::", False), ("localhost", False), ("", False),
    ("fe80::1%no-such-zone", False)])
def test_an_address_of_this_host_is_told_from_any_other(host, own):
    assert is_own_address(host) is own


def test_a_link_local_address_without_its_zone_is_the_one_that_it_can_be(monkeypatch):
    lan = Interface("eth0", "fe80::1%eth0", 64, 2)
    monkeypatch.setattr(interfaces, "read", lambda: ([lan], ""))
    assert tcp._with_zone("fe80::9") == "fe80::9%eth0"
    for host in ("fe80::9%eth7", "fd00::9", "10.0.0.1"):
        assert tcp._with_zone(host) == host
    wifi = Interface("wlan0", "fe80::2%wlan0", 64, 3)
    monkeypatch.setattr(interfaces, "read", lambda: ([lan, wifi], ""))
    assert tcp._with_zone("fe80::2") == "fe80::2%wlan0"
    with pytest.raises(OSError, match="needs the name of an interface, as in fe80::9%eth0"):
        TcpCarrier().start(Endpoint("tcp", "fe80::9", 3010))
