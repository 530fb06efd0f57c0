"""The address that a caller means to reach, which it tells to the peer that it has reached.

Under a secret every certificate is good at any address, and so are those of an application that
name no address. So an attacker who can redirect packets could make a call arrive at another holder
of one, or back at the caller, unnoticed. Therefore the caller says, under TLS, which address it has
connected to, unless the certificate proves it. A peer that does not have that address refuses.
"""
from __future__ import annotations

import socket
from typing import Optional

from ..errors import Address, AuthenticationError
from ..identity import without_zone
from ..settings import ENGINE_SUFFIX, is_loopback, settings
from .addresses import host_port


def destination(sock: socket.socket, address: Address) -> Optional[Address]:
    """The numeric address that a caller has connected to; None where it is on this host.

    :param address: the peer's address, as the caller knows it.
    :raises OSError: the connection has broken.
    """
    if address[0].endswith(ENGINE_SUFFIX):
        return address
    found = host_port(sock.getpeername())
    return None if found is None or is_loopback(found[0]) else (without_zone(found[0]), found[1])


def check_destination(meant: Optional[Address], sock: socket.socket, instance: str) -> None:
    """Refuse a caller that has not reached the peer that it means.

    :param meant: the address that it means; None if it does not say, or for this host.
    :param sock: its connection, as accepted.
    :param instance: of this process.
    :raises AuthenticationError: this peer does not have that address.
    """
    if meant is None or is_loopback(meant[0]):  # no attacker leads there, but a tunnel may
        return
    found = host_port(sock.getsockname())
    here = instance + ENGINE_SUFFIX if found is None else without_zone(found[0])
    port = meant[1] if found is None else found[1]
    advertised = settings.advertise
    if meant == (here, port) or advertised is not None \
            and meant == (advertised[0], advertised[1] or port):
        return
    host = f"[{meant[0]}]" if ":" in meant[0] else meant[0]
    raise AuthenticationError(
        None, f"the connection was made to {host}:{meant[1]} and has arrived at another peer, so "
              f"somebody redirects it; if that is a NAT of yours, set NET_ADVERTISE="
              f"{host}:{meant[1]} at this peer")
