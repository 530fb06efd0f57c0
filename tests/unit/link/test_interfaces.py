"""The interfaces of this host: what is searched, what is not, and the reason that is given."""
from __future__ import annotations

import socket
import sys

import pytest

from each import each
from net.link import interfaces, netlink
from net.link.interfaces import MAX_SWEEP, Interface, plan, targets

LAN = Interface("eth0", "192.168.1.10", 24)
LOOPBACK = Interface("lo", "127.0.0.1", 8)


def test_a_lan_is_asked_and_swept():
    assert plan([LOOPBACK, LAN]) == (["127.0.0.1", "192.168.1.10"], [LAN], [LAN], [])
    assert LAN.broadcast == "192.168.1.255"


@each("name, address, prefix, reason", [
    ("tun0", "10.8.0.6", 24, "point to point"),
    ("utun3", "10.8.0.6", 24, "point to point"),
    ("wg0", "10.9.0.2", 24, "point to point"),
    ("eth0", "10.0.0.4", 32, "point to point"),
    ("eth0", "10.0.0.4", 31, "point to point"),
    ("docker0", "172.17.0.1", 16, "containers"),
    ("br-0a1b2c3d", "172.18.0.1", 16, "containers"),
    ("veth12ab", "172.18.0.9", 16, "containers"),
    ("virbr0", "192.168.122.1", 24, "containers"),
    ("bridge100", "192.168.64.1", 24, "containers"),
    ("vEthernet (WSL)", "172.29.0.1", 20, "containers"),
    ("vEthernet (Default Switch)", "172.29.0.1", 20, "containers"),
    ("eth0", "169.254.7.8", 16, "self-assigned"),
])
def test_what_is_no_lan_is_not_swept_and_says_why(name, address, prefix, reason):
    result = plan([Interface(name, address, prefix), LAN])
    assert result.swept == [LAN]
    assert len(result.notes) == 1 and reason in result.notes[0] and name in result.notes[0]
    # A broadcast is one datagram, and harmless.
    assert len(result.asked) == (2 if prefix < 31 else 1)


@each("name", ["bridge0", "vEthernet (External)", "eth0", "Wi-Fi", "wlp0s20f3"])
def test_ordinary_names_are_swept(name):
    assert plan([Interface(name, "192.168.1.10", 24)]).swept


@pytest.mark.parametrize("wanted", ["docker0", "172.17.0.1"])
def test_net_interfaces_names_the_only_ones_whatever_they_are(wanted):
    docker = Interface("docker0", "172.17.0.1", 24)
    result = plan([LAN, docker], [wanted])
    assert (result.asked, result.swept) == ([docker], [docker])
    assert "not in NET_INTERFACES" in result.notes[0]


def test_an_interface_that_is_not_there_is_named():
    result = plan([LAN], ["eth7"])
    assert result.asked == [] and "no interface 'eth7', see NET_INTERFACES" in result.notes


def test_net_sweep_off_leaves_the_broadcast():
    result = plan([LAN], sweep=False)
    assert (result.asked, result.swept) == ([LAN], []) and "NET_SWEEP is off" in result.notes[0]


def test_every_address_but_that_of_this_host_and_the_ends_is_primed():
    (interface, hosts), = targets([LAN], ["192.168.1.10"])[0]
    assert interface == LAN and len(hosts) == 253
    assert not {"192.168.1.0", "192.168.1.10", "192.168.1.255"} & set(hosts)


def test_of_a_large_network_only_the_24_of_this_host_is_primed():
    found, notes = targets([Interface("eth0", "10.1.2.3", 16)], ["10.1.2.3"])
    assert found[0][1][0] == "10.1.2.1" and found[0][1][-1] == "10.1.2.254"
    assert "too large" in notes[0] and "NET_PEERS" in notes[0]


def test_a_23_is_primed_whole_and_nothing_beyond():
    found, notes = targets([Interface("eth0", "10.1.2.3", 23), LAN], ["10.1.2.3", "192.168.1.10"])
    assert [len(hosts) for _, hosts in found] == [509, 3]
    assert sum(len(hosts) for _, hosts in found) == MAX_SWEEP
    assert "250 addresses not swept" in notes[0]


def test_two_addresses_in_one_network_are_primed_once():
    second = Interface("eth1", "192.168.1.11", 24)
    found, _ = targets([LAN, second], ["192.168.1.10", "192.168.1.11"])
    assert [len(hosts) for _, hosts in found] == [252, 0]


def test_the_interfaces_of_this_host_are_read():
    found, note = interfaces.read()
    assert note == "" and "127.0.0.1" in [interface.address for interface in found]


@pytest.fixture
def no_netlink(monkeypatch):
    """As on a system that has none."""
    monkeypatch.delattr("socket.AF_NETLINK", raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_the_kernel_tells_the_same_as_the_library(no_netlink, monkeypatch):
    library = sorted(one[:4] for one in interfaces.read()[0])
    monkeypatch.undo()
    # Which addresses are only for a time, the library does not know.
    assert sorted(one[:4] for one in interfaces.read()[0]) == library and library


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_a_kernel_that_does_not_tell_is_an_error(monkeypatch):
    class Refuses:
        def __init__(self, reply):
            self.replies = [reply, b""]

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            pass

        def settimeout(self, seconds):
            pass

        send = settimeout

        def recv(self, size):
            return self.replies.pop(0)

    for reply in (b"", b"x", netlink._HEADER.pack(20, netlink._ERROR, 0, 1, 0) + bytes(4),
                  netlink._HEADER.pack(0, 20, 0, 1, 0)):
        monkeypatch.setattr(netlink, "_socket", lambda: Refuses(reply))
        with pytest.raises(OSError):
            netlink.addresses()


def test_without_ifaddr_the_network_is_guessed_from_the_route(monkeypatch, no_netlink):
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    monkeypatch.setattr(interfaces, "way_out", lambda: "10.1.2.3")
    found, note = interfaces.read()
    assert found == [Interface("route", "10.1.2.3", 24)] and "guessed" in note


def test_without_ifaddr_and_network_there_is_no_interface(monkeypatch, no_netlink):
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    monkeypatch.setattr(interfaces, "way_out", lambda: None)
    assert interfaces.read()[0] == []


# ------------------------------------------------------------------------------------- IPv6

ULA = Interface("eth0", "fd00::5", 64, 2)
GLOBAL = Interface("eth0", "2a00::5", 64, 2)
LINK = Interface("eth0", "fe80::5%eth0", 64, 2)
PRIVACY = Interface("eth0", "fd00::77", 64, 2, passing=True)


def told(family, prefix, flags, index, attributes):
    """What the kernel says of one address."""
    text = netlink._ADDRESS.pack(family, prefix, flags, 0, index)
    for kind, value in attributes:
        text += netlink._ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
    return text


@each("flags, passing", [
    (0x80, [False]), (0x01, [True]), (0x20, [True]), (0x40, []), (0x44, [False]), (0x48, []),
    (0x08, [])])
def test_addresses_that_are_not_usable_yet_are_left_out_and_passing_ones_marked(flags, passing):
    six = socket.inet_pton(socket.AF_INET6, "fd00::5")
    found = netlink._parsed(told(socket.AF_INET6, 64, flags, 1, [(1, six)]))
    assert [one.passing for one in found] == passing
    assert all(one[1:4] == ("fd00::5", 64, 1) for one in found)


def test_of_a_point_to_point_address_the_end_on_this_host_is_meant():
    own, other = (socket.inet_pton(socket.AF_INET6, host) for host in ("fd00::1", "fd00::2"))
    found, = netlink._parsed(told(socket.AF_INET6, 128, 0, 1, [(1, other), (2, own)]))
    assert found.address == "fd00::1"
    assert netlink._parsed(told(socket.AF_INET6, 128, 0, 1, [(1, b"short")])) == []


@each("state, live", [(0x02, 1), (0x04, 1), (0x08, 1), (0x10, 1), (0x80, 1), (0x01, 0), (0x20, 0),
                      (0x40, 0), (0, 0)])
def test_neighbours_are_those_whose_hardware_address_is_known(state, live):
    text = netlink._NEIGHBOUR.pack(socket.AF_INET6, 1, state, 0, 1)
    for kind, value in ((1, socket.inet_pton(socket.AF_INET6, "fe80::7")),
                        (2, bytes.fromhex("0200000000ab"))):
        text += netlink._ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
    zone = socket.if_indextoname(1)
    assert netlink._parsed_neighbour(text) == \
        [(zone, f"fe80::7%{zone}", "02:00:00:00:00:ab")] * live


def test_each_interface_is_asked_from_its_best_address_and_from_its_link_local_one():
    wifi = Interface("wlan0", "fe80::6%wlan0", 64, 3)
    asked = interfaces.asked_in_six([LINK, PRIVACY, GLOBAL, ULA, wifi])
    assert asked == [ULA, LINK, wifi] and [one.rank for one in asked] == [1, 2, 2]
    assert {one.broadcast for one in asked} == {interfaces.GROUP}


@each("address, held", [
    ("fd00::9", [ULA, PRIVACY]), ("fe80::9%eth0", [LINK]), ("fe80::9%wlan0", []), ("fe80::9", []),
    ("fd00:0:0:1::9", []), ("192.168.1.9", [LAN]), ("::1", [])])
def test_a_network_of_ipv6_is_that_of_one_link(address, held):
    every = [LAN, ULA, PRIVACY, LINK]
    assert [one for one in every if one.holds(address)] == held


def test_a_host_is_known_by_ipv4_first_and_by_what_stays(monkeypatch):
    docker = Interface("docker0", "172.17.0.1", 16)
    found = [LINK, PRIVACY, GLOBAL, ULA, LAN, docker, Interface("lo", "::1", 128, 1)]
    for best in (LAN, ULA, GLOBAL, LINK, PRIVACY, docker):
        monkeypatch.setattr(interfaces, "read", lambda: (found, ""))
        assert interfaces.first_address() == best.address
        found.remove(best)
    assert interfaces.first_address() is None


def test_the_zone_that_an_address_lacks_is_that_of_this_hosts_address_or_the_only_one(monkeypatch):
    monkeypatch.setattr(interfaces, "read", lambda: ([LAN, ULA, LINK], ""))
    assert interfaces.zone_of("fe80::5") == interfaces.zone_of("fe80::9") == "eth0"
    monkeypatch.setattr(interfaces, "read", lambda: ([LAN], ""))
    with pytest.raises(OSError, match="needs the name of an interface"):
        interfaces.zone_of("fe80::9")
