"""Which hosts may connect in open mode: those of private networks, of this host's networks, and the
allowed ones."""
from __future__ import annotations

import ipaddress
from time import monotonic
from typing import Callable, List, Optional, Union

from ..settings import settings
from ..errors import Address

Host = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# Written out, because what ipaddress calls private differs between versions of Python.
NEAR = tuple(ipaddress.ip_network(text) for text in (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10"))

# What the addresses of most callers begin with, as the system writes them; these are not parsed.
NEAR_TEXTS = ("127.", "10.", "192.168.", "169.254.")

# The prefix within which one IPv6 host can choose its addresses freely.
NETWORK_6 = 64

# Seconds for which this host's networks are remembered. Reading them takes a millisecond, which
# strangers must not be able to cause at will.
MEMORY = 5.0


class HostNetworks:
    """The networks of this host's interfaces; none where the system does not tell them. For one
    thread."""

    def __init__(self) -> None:
        self._found: List[Network] = []
        self._until = 0.0

    def read(self) -> List[Network]:
        """The networks as they are, or were at most 5 seconds ago."""
        if monotonic() >= self._until:
            self._found = _read()
            self._until = monotonic() + MEMORY
        return self._found


def refusal(source: Optional[Address], own: Callable[[], Optional[Address]],
            networks: HostNetworks) -> Optional[str]:
    """Why a source may not connect, with what to do about it; None when it may.

    :param source: as a socket gives it; None for a Unix socket.
    :param own: gives the address that it has connected to.
    :param networks: those that this host is in.
    """
    if source is None or source[0].startswith(NEAR_TEXTS):
        return None
    host = _parsed(source)
    if host is None or any(_within(host, network) for network in NEAR):
        return None
    if host == _parsed(own()) or any(_within(host, network) for network in settings.allow):
        return None
    if any(_within(host, network) for network in networks.read()):
        return None
    return (f"{host} is in no private network and in none of this peer's own; "
            f"NET_ALLOW={host} there lets it in, and so does a secret on both sides (NET_SECRET)")


def share_of(host: str) -> str:
    """What counts as one source where limits are shared out by source: a host, with IPv6 its
    network."""
    if ":" not in host:
        return host
    try:
        found = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if found.is_link_local or found.is_loopback:
        return str(found)
    return str(ipaddress.ip_network((found, NETWORK_6), strict=False))


def _parsed(address: Optional[Address]) -> Optional[Host]:
    if address is None:
        return None
    try:
        host = ipaddress.ip_address(address[0])
    except ValueError:
        return None
    return getattr(host, "ipv4_mapped", None) or host


def _within(host: Host, network: Network) -> bool:
    return host.version == network.version and host in network


def _read() -> List[Network]:
    from ..link import interfaces  # only a stranger's address needs it

    found, guessed = interfaces.read()
    return [] if guessed else [one.network for one in found]
