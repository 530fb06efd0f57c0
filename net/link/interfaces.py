"""The network interfaces of this host: where to search, where not to, and why."""
from __future__ import annotations

import os
import re
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Iterable, List, NamedTuple, Optional, Tuple

from ..settings import is_loopback
from . import netlink

# An address outside of every local network (TEST-NET-3): choosing a route to it sends nothing.
_ELSEWHERE = ("203.0.113.1", 9)

# Addresses primed in one search, a /23. Each dead one stays in the kernel's neighbour table for
# some seconds, that table holds 1,024 on Linux for everything on the machine, and a full one
# breaks the traffic of others.
MAX_SWEEP = 512

# The part of a larger network that is swept: the /24 around this host's address.
NEAR_PREFIX = 24

# Tunnels have no neighbours to ask for: the packets would travel to the far end one by one.
_TUNNEL = re.compile(r"(tun|utun|wg|ppp|ipsec|tailscale|gre|gif|stf|sit|ipip)", re.IGNORECASE)
# Bridges to containers and virtual machines look like a LAN of 65,000 addresses, all on this host.
_CONTAINER = re.compile(
    r"(docker|br-|veth(?!ernet)|virbr|vmnet|vboxnet|cni|flannel|cali|podman|lxc|lxdbr|incusbr"
    r"|bridge1\d\d|vEthernet \((WSL|Default Switch|nat))", re.IGNORECASE)


class Interface(NamedTuple):
    """One IPv4 address of this host. ``prefix`` is the length of its netmask in bits."""

    name: str
    address: str
    prefix: int

    @property
    def network(self) -> IPv4Network:
        return IPv4Network((self.address, self.prefix), strict=False)

    @property
    def broadcast(self) -> Optional[str]:
        """The address that reaches all hosts of the network; None where there is none."""
        return str(self.network.broadcast_address) if self.prefix < 31 else None

    def __str__(self) -> str:
        return f"{self.name} {self.address}/{self.prefix}"


Targets = List[Tuple[Interface, List[str]]]


class Plan(NamedTuple):
    """Where a search goes.

    :ivar own: every address of this host.
    :ivar asked: interfaces whose broadcast address gets the question.
    :ivar swept: interfaces whose addresses are primed one by one, so that the neighbour table
        knows them.
    :ivar notes: what is left out, with the reason, one line each.
    """

    own: List[str]
    asked: List[Interface]
    swept: List[Interface]
    notes: List[str]


def read() -> Tuple[List[Interface], str]:
    """All IPv4 interfaces, and a note if they are only guessed. Sends nothing."""
    try:
        found = [Interface(name, host, prefix) for name, host, prefix in netlink.addresses()]
    except OSError:
        try:
            found = _by_library()
        except (ImportError, OSError) as exc:
            address = way_out()
            note = f"interfaces are guessed, netmask /24: {exc}"
            return ([] if address is None else [Interface("route", address, NEAR_PREFIX)]), note
    return [interface for interface in found if 0 < interface.prefix <= 32], ""


def way_out() -> Optional[str]:
    """The address of this host that what it sends to the world comes from; None without a way
    there. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
        except OSError:
            return None


def first_address() -> Optional[str]:
    """An address of this host on some network; of a bridge or tunnel only if there is no other."""
    found = [one for one in read()[0] if not is_loopback(one.address)]
    return min(found, key=lambda one: bool(why_not_swept(one))).address if found else None


def _by_library() -> List[Interface]:
    import ifaddr

    return [Interface(_name(adapter, ip), str(ip.ip), ip.network_prefix)
            for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]


def _name(adapter: Any, ip: Any) -> str:
    # On Windows the adapter is called by a number in braces; people know the connection's name.
    return str(ip.nice_name if os.name == "nt" else adapter.name)


def plan(interfaces: Iterable[Interface], wanted: Iterable[str] = (), sweep: bool = True) -> Plan:
    """Decide what to do with each interface.

    :param wanted: names or addresses of the only interfaces to use, whatever they are.
    :param sweep: whether addresses may be primed one by one.
    """
    interfaces = list(interfaces)
    wanted = set(wanted)
    result = Plan([interface.address for interface in interfaces], [], [], [])
    for interface in interfaces:
        chosen = not wanted.isdisjoint((interface.name, interface.address))
        if is_loopback(interface.address):
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
    known = {text for interface in interfaces for text in (interface.name, interface.address)}
    result.notes.extend(f"no interface {name!r}, see NET_INTERFACES" for name in wanted - known)
    return result


def why_not_swept(interface: Interface) -> str:
    """The reason why the addresses of this interface are left alone; empty to sweep it."""
    if interface.prefix >= 31 or _TUNNEL.match(interface.name):
        return "point to point"
    if _CONTAINER.match(interface.name):
        return "a bridge to containers or virtual machines"
    if IPv4Address(interface.address).is_link_local:
        return "a self-assigned address"
    return ""


def targets(swept: Iterable[Interface], own: Iterable[str]) -> Tuple[Targets, List[str]]:
    """The addresses to prime on each interface, MAX_SWEEP in all, and notes on what is left."""
    seen = set(own)
    found: Targets = []
    notes: List[str] = []
    room = MAX_SWEEP
    for interface in swept:
        network = interface.network
        if network.num_addresses > MAX_SWEEP:
            network = IPv4Network((interface.address, NEAR_PREFIX), strict=False)
            notes.append(f"{interface}: too large, only {network} is swept; NET_PEERS names peers "
                         f"beyond that broadcasts do not reach")
        hosts = [text for text in map(str, network.hosts()) if text not in seen]
        if len(hosts) > room:
            notes.append(f"{interface}: {len(hosts) - room} addresses not swept, {MAX_SWEEP} is "
                         f"the limit of a search")
        found.append((interface, hosts[:room]))
        room -= len(hosts[:room])
        seen.update(hosts)
    return found, notes
