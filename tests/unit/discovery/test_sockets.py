"""The UDP sockets of discovery: on loopback, in both families."""
from __future__ import annotations

import socket
import sys

import pytest

from hearing import until
from net.discovery.lan import sockets as module
from net.discovery.lan.sockets import Sockets, open_at, received, reporting_drops
from net.link.interfaces import Interface
from net.link.tcp import is_own_address

needs_six = pytest.mark.skipif(not is_own_address("::1"), reason="this host has no IPv6")
HOSTS = ["127.0.0.1", pytest.param("::1", marks=needs_six)]


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_sent_is_received_with_the_address_of_the_sender(port_range, host):
    sockets = Sockets([host], port_range.start)
    asking = open_at(Interface("lo", host, 128))
    try:
        asking.sendto(b"who?", (host, port_range.start))
        data, source = until(lambda: list(sockets.receive()))[0]
        assert data == b"who?" and source == asking.getsockname()[:2]
        sockets.send(b"me", source)
        assert until(lambda: list(received(asking))) == [(b"me", (host, port_range.start))]
    finally:
        asking.close()
        sockets.close()


@needs_six
def test_each_address_is_sent_to_from_the_socket_of_its_family(port_range):
    sockets = Sockets(["127.0.0.1", "::1"], port_range.start)
    assert [sock.family for sock in sockets.all] == [socket.AF_INET, socket.AF_INET6]
    for host in ("127.0.0.1", "::1"):
        sockets.send(b"to oneself", (host, port_range.start))
    found = until(lambda: found_all(sockets, []))
    assert sorted(host for _, (host, _) in found) == ["127.0.0.1", "::1"]
    sockets.close()


def found_all(sockets, found):
    until(lambda: found.extend(sockets.receive()) or len(found) == 2)
    return found


def test_what_this_host_cannot_have_is_left_out_unless_it_is_the_first(port_range, monkeypatch):
    def without_six(host, port, opened=module.open_socket):
        if ":" in host:
            raise OSError("no IPv6")
        return opened(host, port)

    monkeypatch.setattr(module, "open_socket", without_six)
    sockets = Sockets(["127.0.0.1", "::1"], port_range.start)
    assert len(sockets.all) == 1
    with pytest.raises(OSError, match="no socket for such addresses"):
        sockets.send(b"x", ("::1", 3010))
    sockets.close()
    with pytest.raises(OSError, match="no IPv6"):
        Sockets(["::1", "127.0.0.1"], port_range.start)


@needs_six
def test_a_network_may_be_joined_again_and_one_that_has_gone_is_no_error(port_range):
    sockets = Sockets(["0.0.0.0", "::"], port_range.start)
    loopback = Interface("lo", "fe80::1%lo", 64, socket.if_nametoindex(socket.if_nameindex()[0][1]))
    for _ in range(2):
        sockets.join([loopback, Interface("gone", "fe80::1%gone", 64, 99999)])
    sockets.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux drops datagrams without a word")
@pytest.mark.parametrize("host, option", [
    ("127.0.0.1", (socket.IPPROTO_IP, 11)),
    pytest.param("::1", (socket.IPPROTO_IPV6, 25), marks=needs_six)])
def test_what_this_host_drops_is_reported_only_while_that_is_asked_for(host, option):
    with open_at(Interface("lo", host, 128)) as sock:
        with pytest.raises(OSError, match="full"), reporting_drops(sock):
            assert sock.getsockopt(*option) == 1
            raise OSError("full")
        assert sock.getsockopt(*option) == 0
