"""The network interfaces of this host: where to search, where not to, and why."""
from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from ..identity import without_zone
from ..settings import is_loopback
from . import netlink
from .addresses import handle, is_link_local, rank_of, zone_name

#: The multicast group at which all peers on one link hear questions and announcements in IPv6. A
#: transient one (RFC 4291), whose last four bytes are those that our datagrams begin with.
GROUP = "ff12::ab6e:6574"

# An address outside of every local network (TEST-NET-3): choosing a route to it sends nothing.
_ELSEWHERE = ("203.0.113.1", 9)

# Addresses primed in one search: a /23. Each dead one stays in the kernel's neighbour table for
# some seconds; on Linux that table holds 1,024 for the whole machine, and when it is full, the
# traffic of others breaks.
MAX_SWEEP = 512

# The part of a larger network that is swept: the /24 around this host's address. And what a note
# about that has between the network and this part of it.
NEAR_PREFIX, TOO_LARGE = 24, "too large, only "

# What the names of interfaces begin with, in small letters. Tunnels have no neighbours to ask for:
# the packets would travel to the far end one by one.
_TUNNELS = ("tun", "utun", "wg", "ppp", "ipsec", "tailscale", "gre", "gif", "stf", "sit", "ipip")
# Bridges to containers and virtual machines look like a LAN of 65,000 addresses, all on this host.
_CONTAINERS = ("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "flannel", "cali",
               "podman", "lxc", "lxdbr", "incusbr")
# Windows names a card of its virtual machines after the network that it is in, which may be the
# LAN.
_ETHERNET, _INNER = "vethernet", ("vethernet (wsl", "vethernet (default switch", "vethernet (nat")


class Interface(NamedTuple):
    """One address of this host.

    :ivar name: of its interface.
    :ivar address: numeric; a link-local one of IPv6 with its zone.
    :ivar prefix: the length of its netmask in bits.
    :ivar number: of its interface, with IPv6; else 0.
    :ivar passing: whether it is an IPv6 address that is used only for a time: one that is for
        privacy, or old.
    """

    name: str
    address: str
    prefix: int
    number: int = 0
    passing: bool = False

    @property
    def is_six(self) -> bool:
        """Whether it is an address of IPv6."""
        return ":" in self.address

    @property
    def network(self) -> Union[IPv4Network, IPv6Network]:
        if self.is_six:
            return IPv6Network((without_zone(self.address), self.prefix), strict=False)
        return IPv4Network((self.address, self.prefix), strict=False)

    def holds(self, host: str) -> bool:
        """Whether a numeric address is in the network of this interface."""
        if not self.is_six:
            # Asked for every answer of a search, and ipaddress takes ten times as long.
            return ":" not in host and not (_number(host) ^ _number(self.address)) >> \
                (32 - self.prefix)
        if ":" not in host or is_link_local(host) != is_link_local(self.address) \
                or host.partition("%")[2] != self.address.partition("%")[2]:
            return False
        return IPv6Address(without_zone(host)) in self.network

    @property
    def broadcast(self) -> Optional[str]:
        """The address that reaches all hosts of the network, in IPv6 all peers on the link; None
        where there is none."""
        if self.is_six:
            return GROUP if self.prefix < 127 else None
        return str(self.network.broadcast_address) if self.prefix < 31 else None

    @property
    def rank(self) -> int:
        """The sort key by which peers are asked: those that have answered need not answer again."""
        return rank_of((self.address, 0))

    def __str__(self) -> str:
        return f"{self.name} {self.address}/{self.prefix}"


def _number(host: str) -> int:
    """An IPv4 address as a number.

    :raises OSError: it is none.
    """
    return int.from_bytes(socket.inet_pton(socket.AF_INET, host), "big")


Targets = List[Tuple[Interface, List[str]]]


class Plan(NamedTuple):
    """Where a search goes.

    :ivar own: every address of this host.
    :ivar asked: interfaces whose broadcast address is asked, in the order of their ranks.
    :ivar swept: interfaces whose addresses are primed one by one, so that the neighbour table
        knows them.
    :ivar notes: what is left out and why, one line each.
    """

    own: List[str]
    asked: List[Interface]
    swept: List[Interface]
    notes: List[str]


def read() -> Tuple[List[Interface], str]:
    """All addresses of this host, and a note if they are only guessed. Sends nothing."""
    try:
        found = [Interface(*one) for one in netlink.addresses()]
    except OSError:
        try:
            found = _by_library()
        except (ImportError, OSError) as exc:
            address = way_out()
            note = f"interfaces are guessed, netmask /24: {exc}"
            return ([] if address is None else [Interface("route", address, NEAR_PREFIX)]), note
    return [one for one in found if 0 < one.prefix <= (128 if one.is_six else 32)], ""


def way_out() -> Optional[str]:
    """The IPv4 address from which this host sends to the world; None if no route leads there. Sends
    nothing."""
    with handle(socket.AF_INET) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
        except OSError:
            return None


def first_address() -> Optional[str]:
    """An address of this host on some network: that of a bridge or tunnel only if there is no
    other, one of IPv6 only if there is none of IPv4. None without a network."""
    found = [one for one in read()[0] if not is_loopback(one.address)]
    return min(found, key=lambda one: (bool(why_not_swept(one)), *worth(one))).address \
        if found else None


def worth(one: Interface) -> Tuple[bool, int, bool]:
    """The sort key of addresses that this host may be known by, the best first: those that stay
    come before others, then IPv4 before IPv6, then private ones, which no provider changes."""
    return one.passing, one.rank, one.is_six and not IPv6Address(
        without_zone(one.address)).is_private


def zone_of(host: str) -> str:
    """The zone for a link-local address that came without one: if it is an address of this host,
    its own, else the only zone that there is.

    :raises OSError: there are several, or none.
    """
    found = {one.address: one.address.partition("%")[2] for one in read()[0]
             if is_link_local(one.address)}
    own = [zone for address, zone in found.items() if without_zone(address) == host]
    zones = own or set(found.values())
    if len(zones) != 1:
        raise OSError(errno.EINVAL, f"a link-local address needs the name of an interface, as in "
                                    f"{host}%{min(zones, default='eth0')}")
    return next(iter(zones))


def _by_library() -> List[Interface]:
    import ifaddr

    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if ip.is_IPv4:
                found.append(Interface(_name(adapter, ip), str(ip.ip), ip.network_prefix))
            else:
                host = str(ip.ip[0])
                if is_link_local(host):
                    host = f"{without_zone(host)}%{zone_name(int(ip.ip[2]))}"
                found.append(Interface(_name(adapter, ip), host, ip.network_prefix,
                                       adapter.index or 0))
    return found


def _name(adapter: Any, ip: Any) -> str:
    # On Windows the adapter is called by a number in braces; people know the connection's name.
    return str(ip.nice_name if os.name == "nt" else adapter.name)


def plan(interfaces: Iterable[Interface], wanted: Iterable[str] = (), sweep: bool = True) -> Plan:
    """Decide what to do with each interface.

    :param wanted: names or addresses of the only interfaces to use, of whatever kind they are; none
        for the usual ones.
    :param sweep: whether addresses may be primed one by one.
    """
    interfaces = list(interfaces)
    wanted = set(wanted)
    result = Plan([interface.address for interface in interfaces], [], [], [])
    six: List[Interface] = []
    for interface in interfaces:
        chosen = not wanted.isdisjoint(_names(interface))
        if is_loopback(interface.address):
            continue
        if interface.is_six:
            if chosen or not wanted and not why_not_swept(interface):
                six.append(interface)
            continue
        if wanted and not chosen:
            result.notes.append(f"{interface}: not in NET_INTERFACES")
            continue
        if interface.broadcast:
            result.asked.append(interface)
        reason = "" if chosen and interface.broadcast else why_not_swept(interface)
        reason = reason or ("" if sweep else "NET_SWEEP is off")
        if reason:
            result.notes.append(f"{interface}: not swept, {reason}")
        else:
            result.swept.append(interface)
    result.asked.extend(asked_in_six(six))
    known = {text for interface in interfaces for text in _names(interface)}
    result.notes.extend(f"no interface {name!r}, see NET_INTERFACES" for name in wanted - known)
    return result


def _names(interface: Interface) -> Tuple[str, ...]:
    """What NET_INTERFACES may call an interface."""
    return interface.name, interface.address, without_zone(interface.address)


def asked_in_six(interfaces: Iterable[Interface]) -> List[Interface]:
    """The addresses of IPv6 from which peers are asked: at each interface the best one, which may
    be listed everywhere, and the link-local one, which hosts of other networks on the same link
    can answer."""
    by_name: Dict[str, List[Interface]] = {}
    for one in interfaces:
        by_name.setdefault(one.name, []).append(one)
    found = {min(ones, key=worth) for ones in by_name.values()}
    found.update(one for ones in by_name.values() for one in ones if one.rank == 2)
    return sorted(found, key=lambda one: (one.rank, one.name))


def why_not_swept(interface: Interface) -> str:
    """The reason why the addresses of this interface are left alone; empty to sweep it or, with
    IPv6, which is never swept, to ask there."""
    if not interface.broadcast or interface.name.lower().startswith(_TUNNELS):
        return "point to point"
    if _is_for_containers(interface.name.lower()):
        return "a bridge to containers or virtual machines"
    if not interface.is_six and IPv4Address(interface.address).is_link_local:
        return "a self-assigned address"
    return ""


def _is_for_containers(name: str) -> bool:
    if name.startswith(_ETHERNET):
        return name.startswith(_INNER)
    # macOS counts its bridges from 100.
    return name.startswith(_CONTAINERS) or \
        name.startswith("bridge1") and len(name[7:9]) == 2 and name[7:9].isdecimal()


def targets(swept: Iterable[Interface], own: Iterable[str]) -> Tuple[Targets, List[str]]:
    """The addresses to prime on each interface, MAX_SWEEP in all, and notes on what is left out."""
    seen = set(own)
    found: Targets = []
    notes: List[str] = []
    room = MAX_SWEEP
    for interface in swept:
        network = interface.network
        if network.num_addresses > MAX_SWEEP:
            network = IPv4Network((interface.address, NEAR_PREFIX), strict=False)
            notes.append(f"{interface}: {TOO_LARGE}{network} is swept; NET_PEERS names peers "
                         f"beyond that broadcasts do not reach")
        first, last = int(network.network_address) + 1, int(network.broadcast_address)
        hosts = [text for text in (socket.inet_ntoa(number.to_bytes(4, "big"))
                                   for number in range(first, last)) if text not in seen]
        if len(hosts) > room:
            notes.append(f"{interface}: {len(hosts) - room} addresses not swept, {MAX_SWEEP} is "
                         f"the limit of a search")
        found.append((interface, hosts[:room]))
        room -= len(hosts[:room])
        seen.update(hosts)
    return found, notes
