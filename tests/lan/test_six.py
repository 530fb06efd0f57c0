"""IPv6: on a LAN that has nothing else, and beside IPv4."""
from __future__ import annotations

from typing import Any, Iterator

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until
from virtual_lan import VirtualLan, why_no_six

ULA = "fd77:5::"


@pytest.fixture(scope="module", autouse=True)
def _needs_six() -> None:
    reason = why_no_six()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def lan(build: Any) -> Iterator[VirtualLan]:
    """Two hosts with IPv4 and IPv6."""
    with build(2, six=ULA) as made:
        yield made


@pytest.fixture(scope="module")
def bare(build: Any) -> Iterator[VirtualLan]:
    """Two hosts with nothing but link-local addresses."""
    with build(2, four=False, six="") as made:
        yield made


def call(host: Any, *forms: str) -> Any:
    """What a new process on a host gets from a peer that it calls by these forms."""
    return host.python("import net\n" + "".join(
        f"assert net.pass_through(5, peer={form!r}) == 5\n" for form in forms)
        + f"print(net.pass_through(7, peer=({forms[0]!r})))").split()[-1]


def test_a_peer_is_called_at_each_address_of_its_host(lan):
    peer = lan.hosts[1].peer("import net")
    forms = ["[fd77:5::2]:3010", "[fe80::2%eth0]:3010", "[FE80:0::2]:3010", "10.77.5.2:3010"]
    for host in lan.hosts:
        assert call(host, *forms) == "7"
    # One that has IPv4 is known by it.
    assert peer.address == ("10.77.5.2", 3010)
    peer.stop()


def test_without_any_other_address_a_peer_is_called_at_its_link_local_one(bare):
    peer = bare.hosts[1].peer("import net")
    assert ask(peer, "net.Peer().host") == "fe80::2%eth0"
    # Its zone is nobody else's business.
    assert ask(peer, "net.Peer().id.host, net.info()['host']") == ("fe80::2", "fe80::2")
    for host in bare.hosts:
        assert call(host, "[fe80::2%eth0]:3010", "[fe80::2]:3010") == "7"
    peer.stop()


@pytest.mark.parametrize("setting, bound, others", [
    ("fd77:5::2", "fd77:5::2", ["fe80::2%eth0", "10.77.5.2"]),
    ("fe80::2%eth0", "fe80::2%eth0", ["fd77:5::2", "10.77.5.2"]),
    ("0.0.0.0", "10.77.5.2", ["fd77:5::2", "fe80::2%eth0"]),
])
def test_net_host_may_be_any_address_and_then_it_serves_at_no_other(lan, setting, bound, others):
    peer = lan.hosts[1].peer("import net", NET_HOST=setting)
    assert ask(peer, "net.Peer().host") == bound
    print(lan.hosts[0].python(f"""
import net
assert net.pass_through(5, peer=({bound!r}, 3010)) == 5
for host in {others!r}:
    try:
        net.pass_through(5, peer=(host, 3010))
    except net.PeerUnreachable:
        continue
    raise AssertionError(host)
"""))
    peer.stop()


def test_net_host_may_name_an_interface_that_has_no_ipv4(bare):
    peer = bare.hosts[1].peer("import net", NET_HOST="eth0")
    assert ask(peer, "net.Peer().host") == "fe80::2%eth0"
    peer.stop()


def test_events_come_over_a_link_local_address(bare):
    publisher = bare.hosts[1].peer(PUBLISHER)
    script = SUBSCRIBER.format(options="peers=['[fe80::2%eth0]:3010'], ")
    subscriber = bare.hosts[0].peer(script)
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))"))
    publisher.execute("many(0, 100)")
    until(lambda: ask(subscriber, "len(heard)") == 100)
    for one in (publisher, subscriber):
        one.stop()


def test_a_stranger_from_elsewhere_is_refused_as_with_ipv4(build):
    with build(2, six=ULA) as lan:
        _refuse_a_stranger(*lan.hosts)


def _refuse_a_stranger(here: Any, there: Any) -> None:
    here.ip("addr del fd77:5::1/64 dev eth0", "addr add 2001:db8::1/128 dev eth0",
            "route add fd77:5::/64 dev eth0")
    there.ip("route add 2001:db8::1 dev eth0")
    attempt = """
import net
try:
    print(net.pass_through(5, peer="[fd77:5::2]:3010"))
except net.AuthenticationError as problem:
    print(problem)
"""
    peer = there.peer("import net")
    assert "2001:db8::1 is in no private network" in here.python(attempt)
    peer.stop()
    # In a network of its own it is a neighbour.
    there.ip("addr add 2001:db8::2/64 dev eth0")
    peer = there.peer("import net")
    assert here.python(attempt) == "5\n"
    peer.stop()
