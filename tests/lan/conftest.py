"""A virtual LAN for each module, and what a search on one of its hosts finds."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from virtual_lan import Host, VirtualLan, why_no_firewall, why_not

# Searches once in a process of its own and prints what came of it.
SEARCH = """
import json, time
import net
{before}
started = time.perf_counter()
found = net.peers({arguments})
seconds = time.perf_counter() - started
report = found.report
print(json.dumps({{
    "peers": [str(peer) for peer in found], "seconds": seconds,
    "groups": [peer.group for peer in found], "hubs": [peer.port for peer in found if peer.hub],
    "how": [peer.info["found"] for peer in found], "notes": report.notes, "text": str(report),
    "heard": report.heard, "primed": report.primed, "neighbours": report.neighbours,
    "silent": [f"{{host}}:{{port}}" for host, port in report.silent_peers],
}}))
"""


@pytest.fixture(scope="session", autouse=True)
def _needs_namespaces() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def firewall() -> None:
    """For a test that blocks packets."""
    reason = why_no_firewall()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def search() -> Callable[..., dict[str, Any]]:
    """``search(host, "refresh=True", NET_GROUP="a")``: what a new process finds there."""
    def run(host: Host, arguments: str = "", before: str = "", **settings: Any) -> dict[str, Any]:
        script = SEARCH.format(arguments=arguments, before=before)
        return json.loads(host.python(script, **settings).splitlines()[-1])
    return run


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., VirtualLan]:
    """``with build(5) as lan``: a LAN of that many hosts."""
    def make(hosts: int, weather: bool = False, **families: Any) -> VirtualLan:
        folder: Path = tmp_path_factory.mktemp("lan")
        return VirtualLan(hosts, folder, weather, **families)
    return make


@pytest.fixture(scope="module")
def shared_lan(build: Callable[..., VirtualLan]) -> Iterator[VirtualLan]:
    """Eight hosts: nothing on the first, a peer on each of the others, and a second one on two of
    them."""
    with build(8) as lan:
        lan.peers(*lan.hosts[1:], *lan.hosts[1:3])
        yield lan


@pytest.fixture
def lan(shared_lan: VirtualLan) -> Iterator[VirtualLan]:
    """The module's LAN, with all tables cold and all packets let through."""
    for host in shared_lan.hosts:
        host.forget_neighbours()
    yield shared_lan
    for host in shared_lan.hosts:
        host.unblock()
