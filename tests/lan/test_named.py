"""Hosts of NET_PEERS: many of them, by name, and behind a NAT."""
from __future__ import annotations

from typing import Any, Iterator

import pytest

from virtual_lan import Host


@pytest.fixture(scope="module")
def routed(build: Any) -> Iterator[tuple[Host, Host, Host]]:
    """A client, a router, and beyond it a host with six peers."""
    with build(2) as lan:
        client, router = lan.hosts
        far = lan.add_host()
        router.join("10.88.0", "eth1")
        far.join("10.88.0", "eth0")
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        client.ip("route add default via 10.77.5.2")
        far.ip("route add default via 10.88.0.2")
        # One address for each peer; what is sent to the others is dropped there.
        router.ip("route add 10.99.0.0/16 via 10.88.0.3")
        far.ip(*(f"addr add 10.99.{number}.9/32 dev lo" for number in range(6)))
        lan.peers(*[far] * 6)
        yield client, router, far


def entries(silent: int, port: str = "") -> str:
    """The six live ones, spread over so many silent ones."""
    found = [f"10.99.{6 + number // 200}.{number % 200 + 1}{port}" for number in range(silent)]
    for number in range(6):
        found.insert((number + 1) * silent // 7, f"10.99.{number}.9:{3010 + number}")
    return ",".join(found)


# As many files as most systems let a process open; some let it open a million.
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


@pytest.mark.parametrize("port", [":3010", ""])
def test_all_that_live_are_found_among_a_thousand_that_are_silent(routed, search, port):
    client, *_ = routed
    result = search(client, before=FEW_FILES, NET_PEERS=entries(994, port), NET_SWEEP=0)
    assert result["peers"] == [f"10.99.{number}.9:{3010 + number}" for number in range(6)]
    assert set(result["how"]) == {"NET_PEERS"}
    # Every host was asked at one port at least.
    assert any("not asked in time" in note for note in result["notes"]) is (port == "")
