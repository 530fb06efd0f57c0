"""Numeric addresses, as sockets have them and as peers are called by them."""
from __future__ import annotations

import socket

import pytest

from each import each
from net.link import addresses
from net.link.addresses import host_port, is_link_local, socket_address

INTERFACE = socket.if_nameindex()[0]


@each("address, expected", [
    (("192.0.2.1", 80), ("192.0.2.1", 80)),
    (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
    (("::1", 80, 0, 0), ("::1", 80)),
    (("fd00::1", 80, 0, 2), ("fd00::1", 80)),
    ("/a/unix/socket", None),
    ("", None),
    ((), None),
])
def test_the_host_and_port_of_any_socket_address(address, expected):
    assert host_port(address) == expected


@each("host", ["fe80::1", "fe80::1%eth0"])
def test_a_link_local_address_comes_with_the_zone_that_this_host_has_for_it(monkeypatch, host):
    monkeypatch.setattr(addresses, "zone_name", {2: "wlan0", 0: ""}.__getitem__)
    assert host_port((host, 80, 0, 2)) == ("fe80::1%wlan0", 80)
    assert host_port((host, 80, 0, 0)) == ("fe80::1", 80)


def test_a_zone_is_the_number_or_the_name_of_an_interface():
    number, name = INTERFACE
    for zone in (name, str(number)):
        assert socket_address((f"fe80::1%{zone}", 80)) == \
            (socket.AF_INET6, ("fe80::1", 80, 0, number))
    assert socket_address(("fd00::1", 80)) == (socket.AF_INET6, ("fd00::1", 80, 0, 0))
    assert socket_address(("10.0.0.1", 80)) == (socket.AF_INET, ("10.0.0.1", 80))


@each("host", ["fe80::1%no-such-zone", "fe80::1%" + "9" * 30, "name", "::g", "", "10.1", "a%b"])
def test_what_is_no_numeric_address_here_is_an_error_and_never_looked_up(host):
    with pytest.raises(OSError):
        socket_address((host, 80))


@each("host, local", [
    ("fe80::1", True), ("FE80::1%eth0", True), ("febf::1", True), ("fec0::1", False),
    ("fd00::1", False), ("fe80.example", False), ("169.254.1.1", False)])
def test_link_local_addresses_are_known_by_their_first_bits(host, local):
    assert is_link_local(host) is local
