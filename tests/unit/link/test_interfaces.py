"""The own interfaces: what is searched, what is not, and the reason that is given."""
from __future__ import annotations

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


def test_every_address_but_the_own_and_the_ends_is_primed():
    (interface, hosts), = targets([LAN], ["192.168.1.10"])[0]
    assert interface == LAN and len(hosts) == 253
    assert not {"192.168.1.0", "192.168.1.10", "192.168.1.255"} & set(hosts)


def test_of_a_large_network_only_the_own_24_is_primed():
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
    library = sorted(interfaces.read()[0])
    monkeypatch.undo()
    assert sorted(interfaces.read()[0]) == library and library


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
