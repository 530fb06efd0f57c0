"""Old programs on the hosts of a LAN: found, called, heard, and not disturbed."""
from __future__ import annotations

import time
from typing import Any, Callable, Iterator

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until, wait_until_heard
from old_programs import OldProgram
from virtual_lan import Host, why_no_six
from times import patience

DIALECTS = ["0.3", "0.4", "0.6"]
# The ports that old programs search.
PORTS = list(range(3010, 3015))

ECHO = """
import net
@net.connect("app.echo")
def echo(value):
    return value
"""


@pytest.fixture(scope="module")
def small(build: Any) -> Iterator[Any]:
    """Three hosts without peers."""
    with build(3) as lan:
        yield lan


@pytest.fixture
def start_old() -> Iterator[Callable[..., OldProgram]]:
    """Start an old program on a host: ``start_old("0.4", host)``."""
    started = []

    def start(dialect: str, host: Host, port: int = 3010) -> OldProgram:
        started.append(OldProgram(dialect, port, host=host.address, prefix=host.prefix))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def start(small: Any) -> Iterator[Callable[..., Any]]:
    """Start a peer on a host."""
    started = []

    def launch(host: Host, script: str = "", **settings: Any) -> Any:
        started.append(host.peer(script, **settings))
        return started[-1]

    yield launch
    for one in started:
        one.stop()


STRANGER = """
import socket
with socket.create_server(("0.0.0.0", 3010)) as server:
    while True:
        connection, _ = server.accept()
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
        connection.close()
"""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cold_search_finds_an_old_program_beside_a_stranger(
        small, search, start_old, start, dialect):
    here, there, strange = small.hosts
    start_old(dialect, there)
    start(strange, "import threading\nthreading.Thread(target=exec, args=(" + repr(STRANGER)
          + ", {}), daemon=True).start()", NET_PORT_START=3011)
    here.forget_neighbours()
    result = search(here)
    assert result["peers"] == [f"{there.address}:3010", f"{strange.address}:3011"]
    assert result["groups"] == [None, None]


def test_where_many_have_answered_an_old_program_beside_one_of_them_is_listed_a_little_later(
        small, start_old, start):
    here, there, _ = small.hosts
    new = start(there)
    port = new.address[1] + 1
    start_old("0.4", there, port)
    # As if each host were one of many.
    searcher = start(here, "import net\nfrom net.discovery.lan import quest\nquest.MANY = 0")
    everybody = [list(new.address), [there.address, port]]
    until(lambda: ask(searcher, "[[one.host, one.port] for one in net.peers()]") == everybody)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_old_search_finds_us_on_the_lan(small, start_old, start, dialect):
    here, there, third = small.hosts
    old = start_old(dialect, here)
    start(there, "net = __import__('net')\nnet.configure(facts={'much': 'x' * 3000})")
    start(third)
    hosts = [host.address for host in small.hosts]
    assert old.do("scan", hosts, PORTS) == {
        "found": [[there.address, 3010], [third.address, 3010]], "died": None}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_go_both_ways_between_hosts(small, start_old, start, dialect):
    here, there, _ = small.hosts
    old = start_old(dialect, there)
    publisher = start(here, PUBLISHER)
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("many(0, 5)")
    until(lambda: old.heard == [0, 1, 2, 3, 4])
    # All peers: it is found, not named.
    subscriber = start(here, SUBSCRIBER.format(options=""))
    until(lambda: "number" in old.state()["subscriptions"])
    for value in range(5):
        old.do("fire", "number", [value], {})
    assert wait_until_heard(subscriber, 5) == list(range(5))
    # It is started again at once, and hears each event once.
    subscriber.kill()
    again = start(here, SUBSCRIBER.format(options=""))
    until(lambda: sum(len(tags) for _, tags in old.state()["subscriptions"]["number"]) == 2)
    old.do("fire", "number", [7], {})
    old.do("fire", "number", [8], {})
    assert wait_until_heard(again, 2) == [7, 8]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_old_program_is_replaced_in_place(small, start_old, start, dialect):
    here, there, _ = small.hosts
    old = start_old(dialect, there)
    caller = start(here, "import net")
    echo = f"net.Peer().request({old.address!r}, 'app.echo', ((1, 2),), {{}})"
    assert ask(caller, "[peer.info['wire'] for peer in net.peers()]") == ["documented"]
    assert ask(caller, echo) == [1, 2]
    old.stop()
    start(there, ECHO)
    # It has said hello, which is heard without a search.
    until(lambda: ask(caller, "[peer.info['wire'] for peer in net.peers()]") == ["modern"])
    assert ask(caller, echo) == (1, 2)


def incomplete(host: Host) -> int:
    """The rows of the neighbour table of hosts that are not there."""
    return host.run("cat", "/proc/net/arp").count(" 0x0 ")


def test_a_search_leaves_no_rows_of_hosts_that_are_not_there(small, search, start):
    here, there, _ = small.hosts
    start(there)
    here.forget_neighbours()
    result = search(here)
    assert result["primed"] in (252, 253) and result["peers"] == [f"{there.address}:3010"]
    assert incomplete(here) == 0


# Lets the process administer no network, as any other user's may not.
UNPRIVILEGED = """
import ctypes
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capget(header, sets) == 0
for number in range(3):
    sets[number] &= ~(1 << 12)
assert ctypes.CDLL(None).capset(header, sets) == 0
"""


def test_a_search_that_may_not_take_rows_out_adds_none(small, search, start, start_old):
    here, there, third = small.hosts
    here.forget_neighbours()
    result = search(here, before=UNPRIVILEGED)
    assert result["peers"] == [] and result["primed"] == incomplete(here) == 0
    assert any("set NET_SWEEP=1" in note for note in result["notes"])
    start(there)
    start_old("0.4", third)
    result = search(here, before=UNPRIVILEGED)
    assert f"{there.address}:3010" in result["peers"]
    assert result["primed"] == incomplete(here) == 0
    # A program with an older app-net that starts now finds all in no time.
    rows = [line.split()[0] for line in here.run("cat", "/proc/net/arp").splitlines()[1:]]
    assert set(rows) <= {there.address, third.address}
    # It is found where its host is named, and where this one has spoken to it since.
    for named in ({"NET_PEERS": third.address}, {}):
        result = search(here, before=UNPRIVILEGED, **named)
        assert f"{third.address}:3010" in result["peers"]
        assert result["primed"] == incomplete(here) == 0
    result = search(here, before=UNPRIVILEGED, NET_SWEEP=1)
    assert sorted(result["peers"]) == [f"{there.address}:3010", f"{third.address}:3010"]
    left = incomplete(here)
    assert left and any(note.startswith(f"{left} addresses without a host stay")
                        for note in result["notes"])
    here.forget_neighbours()


def test_hosts_that_let_no_datagram_in_are_found_by_ping_without_a_row(build, search, firewall):
    reason = why_no_six()
    if reason:
        pytest.skip(reason)
    with build(2, six="") as lan:
        here, there = lan.hosts
        # As most systems have it; a new namespace lets nobody.
        here.run("sh", "-c", "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range")
        there.peer()
        there.block("input udp")
        result = search(here, before=UNPRIVILEGED)
        assert result["peers"] == ["[fe80::2%eth0]:3010"] and not result["heard"]
        # Not even of the host that is there: an old program would have nobody to ask.
        assert here.run("cat", "/proc/net/arp").count("\n") == 1
        here.python(f"import socket; socket.create_connection(({there.address!r}, 3010)).close()")
        result = search(here, before=UNPRIVILEGED)
        assert result["peers"] == [f"{there.address}:3010"], "both of its addresses are one peer"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_old_program_is_found_although_another_host_has_just_searched(
        small, start_old, start, dialect):
    here, there, third = small.hosts
    start_old(dialect, there)
    one, other = start(here, "import net"), start(third, "import net")
    everybody = "sorted(str(peer) for peer in net.peers(refresh=True))"
    here.forget_neighbours()
    other.execute(f"print({everybody}, flush=True)")
    assert ask(one, everybody) == [f"{there.address}:3010", f"{third.address}:3010"]
    other.read_line()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_search_of_an_old_program_on_this_host_is_not_slowed_down(
        small, search, start_old, start, dialect):
    here, there, _ = small.hosts
    old = start_old(dialect, here)
    start(there)
    here.forget_neighbours()
    result = search(here)
    assert f"{there.address}:3010" in result["peers"]
    assert result["primed"] == 0 and any("older app-net" in note for note in result["notes"])
    # What the old program would ask: each row of the table.
    rows = [line.split()[0] for line in here.run("cat", "/proc/net/arp").splitlines()[1:]]
    started = time.monotonic()
    found = old.do("scan", rows, PORTS)
    assert time.monotonic() - started < patience(5) and found["died"] is None
    assert [there.address, 3010] in found["found"]
