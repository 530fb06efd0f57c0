"""Numeric addresses, in the form of sockets and in the form that peers are called by.

A link-local address of IPv6 needs its zone, the interface that it is used at: ``fe80::1%eth0``. At
another interface it may be another host's. Zones are names of this host, so other hosts are given
such addresses without them.
"""
from __future__ import annotations

import os
import socket
from typing import Any, Optional, Tuple

from ..errors import Address


def is_link_local(host: str) -> bool:
    """Whether a numeric address is a link-local one of IPv6, with its zone or without."""
    return host[:3].lower() in ("fe8", "fe9", "fea", "feb") and ":" in host


def rank_of(address: Address) -> int:
    """The sort key by which the addresses of a peer are used: 0 for IPv4, 1 for IPv6, 2 for
    link-local IPv6, which does not mean the same on all hosts."""
    return (":" in address[0]) + is_link_local(address[0])


def zone_of(address: Address) -> str:
    """The zone of a link-local address; empty for any other."""
    return address[0].partition("%")[2]


def socket_address(address: Address) -> Tuple[int, Any]:
    """The family of a numeric address, and what sockets take for it. Resolves nothing.

    :raises OSError: it is no numeric address, or there is no interface of that name.
    """
    host, port = address
    if ":" not in host:
        socket.inet_pton(socket.AF_INET, host)
        return socket.AF_INET, (host, port)
    host, _, zone = host.partition("%")
    socket.inet_pton(socket.AF_INET6, host)
    return socket.AF_INET6, (host, port, 0, _index(zone) if zone else 0)


def _index(zone: str) -> int:
    if zone.isdecimal() and zone.isascii() and len(zone) <= 9:
        return int(zone)
    return socket.if_nametoindex(zone)


def handle(family: int) -> socket.socket:
    """A socket by which nothing is sent; it is for asking the kernel about addresses and routes."""
    return socket.socket(family, socket.SOCK_DGRAM)


def zone_name(index: int) -> str:
    """The name of the zone of an interface; empty if there is no such interface."""
    if os.name == "nt":
        return str(index)  # names have blanks there, and the system takes only numbers
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def host_port(address: Any) -> Optional[Address]:
    """``(host, port)`` of a socket address, IPv4 in IPv6 unwrapped, a link-local one with its zone;
    None for a Unix socket's."""
    if not isinstance(address, tuple) or len(address) < 2:
        return None
    host, port = address[:2]
    if host.startswith("::ffff:"):
        return host[7:], port
    if len(address) == 4 and is_link_local(host):
        zone = zone_name(address[3])
        host = host.partition("%")[0] + (zone and "%") + zone
    return host, port
