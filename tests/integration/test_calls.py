"""Calls between two real processes: same name, same call, same value."""
from __future__ import annotations

import contextlib
import inspect
import os
import select
import socket
import threading
import time
import uuid
from typing import Any, Callable, Iterator, List

import pytest

import net
import sample
from net.settings import settings
from net.peer import _Peer
from processes import run_python
from times import patience


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of this host where nobody may come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def here() -> Iterator[_Peer]:
    """A peer of this process for one test; others keep connections to it that end with it."""
    peer = _Peer(test=True)
    yield peer
    peer.close()


def has_a_caller(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def in_threads(count: int, work: Callable[[int], Any]) -> List[Any]:
    """What ``work(number)`` gave in each of some threads at once; its error if it raised."""
    results: List[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ------------------------------------------------------------------------- the basic promise

def test_a_call_runs_in_the_other_process_and_gives_the_same_value(other):
    assert sample.multiply(5, some_kwarg=10) == 50
    assert sample.multiply(5, some_kwarg=10, peer=other.id) == 50
    assert sample.multiply(5, peer=other.id) == sample.multiply(5) == 25
    assert sample.where() == os.getpid()
    assert sample.where(peer=other.id) == other.pid


def test_a_peer_can_call_itself(session_peer):
    assert sample.where(peer=session_peer.id) == os.getpid()


@pytest.mark.parametrize("form", [
    lambda host, port, group: net.PeerId(sample_id(host, port, group)),
    lambda host, port, group: sample_id(host, port, group),
    lambda host, port, group: sample_id(host, port, group).decode(),
    lambda host, port, group: sample_id(host, port, "another group"),
    lambda host, port, group: (host, port),
    lambda host, port, group: (host, str(port)),
    lambda host, port, group: f"{host}:{port}",
    lambda host, port, group: ("localhost", port),
    lambda host, port, group: f"localhost:{port}",
], ids=["PeerId", "bytes", "str", "with a group", "tuple", "tuple of text", "host:port",
        "named host", "named host:port"])
def test_a_peer_is_named_in_every_documented_form(other, form):
    peer = form(*other.address, None)
    assert sample.where(peer=peer) == other.pid
    assert sample.where.on(peer)() == other.pid
    # The second time it comes out of a cache.
    assert sample.where(peer=peer) == other.pid


def sample_id(host: str, port: int, group: str | None) -> bytes:
    return bytes(net.Peer().generate_id(port, host, group))


WRONG = {
    "None": lambda port: None,
    "empty text": lambda port: "",
    "empty bytes": lambda port: b"",
    "empty tuple": lambda port: (),
    "a number": lambda port: port,
    "True": lambda port: True,
    "a list": lambda port: ["127.0.0.1", port],
    "a dict": lambda port: {"host": "127.0.0.1", "port": port},
    "a set": lambda port: {("127.0.0.1", port)},
    "an object": lambda port: object(),
    "host alone": lambda port: "127.0.0.1",
    "host without port": lambda port: "127.0.0.1:",
    "port without host": lambda port: f":{port}",
    "tuple without host": lambda port: ("", port),
    "tuple with None": lambda port: ("127.0.0.1", None),
    "tuple of three": lambda port: ("127.0.0.1", port, 0),
    "unhashable in a tuple": lambda port: (["127.0.0.1"], port),
    "bytes as host": lambda port: (b"127.0.0.1", port),
    "float as port": lambda port: ("127.0.0.1", port + 0.5),
    "port 0": lambda port: ("127.0.0.1", 0),
    "port too high": lambda port: ("127.0.0.1", 65536),
    "port too high in text": lambda port: "127.0.0.1:65536",
    "negative port": lambda port: f"127.0.0.1:-{port}",
    "signed port": lambda port: f"127.0.0.1:+{port}",
    "space in host": lambda port: f"127.0.0.1 :{port}",
    "line in host": lambda port: ("127.0.0.1\n", port),
    "address as bytes": lambda port: f"127.0.0.1:{port}".encode(),
    "not base64": lambda port: "***",
    "not base64, not ASCII": lambda port: "é" * 8,
    "half of an id": lambda port: sample_id("127.0.0.1", port, None)[:-8],
    "id with a tail": lambda port: sample_id("127.0.0.1", port, None) + b"\n",
    "base64 of other text": lambda port: b"aGVsbG8=",
    "far too long": lambda port: b"A" * 1_000_000,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_names_no_peer_is_refused_before_anything_is_sent(wrong, listener):
    peer = wrong(listener.getsockname()[1])
    with pytest.raises(net.InvalidPeer) as caught:
        sample.where(peer=peer)
    with pytest.raises(net.InvalidPeer):
        sample.where.on(peer)
    assert isinstance(caught.value, ValueError)
    assert caught.value.ran == "no"
    assert len(str(caught.value)) < 500
    assert not has_a_caller(listener)


def test_all_kinds_of_callables_run_on_the_other_peer(other):
    for run, argument, expected in [
        (sample.shout, "quiet", "QUIET"),
        (sample.increased, 41, 42),
        (sample.Tools.below, 1, 0),
        (sample.Tools.above, 1, 2),
        (sample.Tools().above, 1, 2),
        (sample.renamed, 7, ["renamed", 7]),
    ]:
        assert run(argument) == run(argument, peer=other.id) == expected


def test_a_tag_joins_functions_of_different_names_and_modules(peer_process):
    process = peer_process("""
        import net

        @net.connect("sample tag of its own")
        def whatever_it_is_called_here(value):
            return ["the other", value]
    """)
    assert sample.renamed(1) == ["renamed", 1]
    assert sample.renamed(1, peer=process.id) == ["the other", 1]


def test_the_default_connections_answer(other):
    assert net.null(1, two=2, peer=other.id) == "NULL"
    assert net.pass_through({"a": (1, 2)}, peer=other.id) == {"a": (1, 2)}
    assert net.pass_through(1, b=2, peer=other.id) == net.pass_through(1, b=2) == ((1,), {"b": 2})
    about = net.info(peer=other.id)
    assert (about["pid"], about["port"], about["group"]) == (other.pid, other.address[1], None)
    named = net.connections(peer=other.id)
    assert named["sample.multiply"] == str(inspect.signature(sample.multiply))
    assert "net.defaults.handlers.null" in named


def test_facts_of_the_application_are_in_what_a_peer_says_of_itself(peer_process):
    process = peer_process("import net; net.configure(facts={'gpus': 2, 'disks': [1.5, None]})",
                           NET_GROUP="render")
    about = net.info(peer=process.id)
    assert about["facts"] == {"gpus": 2, "disks": [1.5, None]}
    assert type(about) is dict
    assert {"group", "host", "port", "hub", "instance", "pid", "python", "version"} <= set(about)
    shown = str(net.Peer().friendly_id)
    assert str(os.getpid()) in shown and f"{net.Peer().host}:{net.Peer().port}" in shown


# --------------------------------------------------------------------------- calls with options

def test_on_gives_a_callable_of_the_same_signature(other):
    there = sample.multiply.on(other.id, timeout=5)
    assert inspect.signature(there) == inspect.signature(sample.multiply)
    assert there.__name__ == "multiply"
    assert there(5, some_kwarg=10) == 50


def test_on_leaves_a_parameter_named_peer_to_the_function(other):
    assert sample.with_own_peer(1) == (1, "mine")
    assert sample.with_own_peer.on(other.id)(1, peer="given") == (1, "given")
    # On the call itself it always says where.
    assert sample.with_own_peer(1, peer=other.id) == (1, "mine")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"])
def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(timeout, listener):
    with pytest.raises((ValueError, TypeError)):
        sample.where.on(listener.getsockname(), timeout=timeout)
    assert not has_a_caller(listener)


@pytest.mark.parametrize("timeout", [1e-9, 1, 10 ** 6, 10 ** 12, float("inf")])
def test_any_timeout_above_zero_is_one(other, timeout):
    if timeout < 1:
        with pytest.raises(net.CallTimeout):
            sample.where.on(other.id, timeout=timeout)()
    else:
        assert sample.where.on(other.id, timeout=timeout)() == other.pid


def test_a_call_times_out_and_the_next_one_is_right_and_at_once(other):
    assert sample.echo("before", peer=other.id) == "before"
    start = time.monotonic()
    with pytest.raises(net.CallTimeout) as caught:
        sample.wait.on(other.id, timeout=0.2)(3, "late")
    after_timeout = time.monotonic()
    assert sample.echo("next", peer=other.id) == "next"
    assert time.monotonic() - after_timeout < patience(1)
    assert 0.19 <= after_timeout - start < patience(1.5)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.timeout, caught.value.ran) == (0.2, "maybe")
    assert caught.value.address == other.address


def test_a_late_reply_is_given_to_nobody(other):
    with pytest.raises(net.CallTimeout):
        sample.wait.on(other.id, timeout=0.05)(0.15, "late")
    # Its reply arrives while these go on.
    start = time.monotonic()
    number = 0
    while time.monotonic() - start < 0.3:
        number += 1
        assert sample.echo(number, peer=other.id) == number


def test_the_setting_gives_every_call_a_timeout(other):
    assert net.TIMEOUT is None
    net.TIMEOUT = 0.1
    try:
        with pytest.raises(net.CallTimeout) as caught:
            sample.wait(1, peer=other.id)
        assert sample.wait.on(other.id, timeout=patience(5))(0.15, "in time") == "in time"
    finally:
        net.TIMEOUT = None
    assert caught.value.timeout == 0.1
    assert sample.wait(0.15, "in time", peer=other.id) == "in time"


# ------------------------------------------------------------------------------ many at once

def test_three_calls_at_once_take_the_time_of_one(other):
    def seconds(calls: int) -> float:
        start = time.monotonic()
        assert in_threads(calls, lambda number: sample.wait(0.3, number, peer=other.id)) \
            == list(range(calls))
        return time.monotonic() - start

    assert seconds(3) / seconds(1) < 1.8


def test_every_reply_belongs_to_its_caller(other):
    calls = 60

    def call_often(number: int) -> int:
        wrong = 0
        for turn in range(calls):
            token = [number, turn, uuid.uuid4().hex]
            if turn % 20 == 19:
                # A lost connection in between; other callers must not notice.
                with contextlib.suppress(net.CallTimeout):
                    sample.wait.on(other.id, timeout=0.001)(0.01, token)
            wrong += sample.echo(token, peer=other.id) != token
        return wrong

    assert in_threads(64, call_often) == [0] * 64


def test_100_megabytes_go_there_and_back(other):
    data = os.urandom(1_000_000) * 100
    assert sample.echo(data, peer=other.id) == data


def test_calls_go_back_and_forth_32_deep(here, other):
    on_the_way = sample.bounce(32, here.id, other.id)
    assert on_the_way == [os.getpid(), other.pid] * 16 + [os.getpid()]


def test_a_call_goes_through_several_peers(here, other, sample_process):
    third = sample_process()
    assert sample.relay([other.id, here.id, third.id], "where") == third.pid


# -------------------------------------------------------------------------------------- flags

def test_a_flag_is_handled_on_the_calling_side_local_and_remote_alike(other):
    tag = sample.flagged.tag
    assert sample.flagged("SAMPLE") == ("handled", tag, net.Peer().friendly_id, os.getpid())
    assert sample.flagged("SAMPLE", peer=other.id) == ("handled", tag, other.id, os.getpid())
    assert sample.flagged("NULL") == sample.flagged("NULL", peer=other.id) == "NULL"
    assert sample.flagged.on(other.id)("SAMPLE") == ("handled", tag, other.id, os.getpid())


def test_the_flag_of_a_missing_connection_is_the_same_error_local_and_remote(other):
    with pytest.raises(net.InvalidConnection):
        sample.flagged("INVALID_CONNECTION")
    with pytest.raises(net.InvalidConnection):
        sample.flagged("INVALID_CONNECTION", peer=other.id)


@pytest.mark.parametrize("flag", ["TlVMTA==", "SU5WQUxJRF9DT05ORUNUSU9O", "NULL", "SAMPLE"])
def test_what_only_looks_like_a_flag_is_a_value(other, flag):
    for value in (flag, flag.encode(), [flag], {"flag": flag}, {"flag": flag, "details": None}):
        for peer in ({}, {"peer": other.id}):
            found = sample.echo(value, **peer)
            assert found == value and type(found) is type(value)


def test_a_flag_that_only_the_other_peer_knows_is_an_error_that_names_it(peer_process):
    process = peer_process("""
        import net

        @net.flag("ONLY THERE")
        def only_there(connection, peer):
            return None

        net.connect("sample tag of its own")(lambda value: net.Peer().get_flag("ONLY THERE"))
    """)
    with pytest.raises(net.ValueNotSupported, match="ONLY THERE"):
        sample.renamed(1, peer=process.id)


# --------------------------------------------------------------------- nothing leaves this host

WATCHED = """
import sys, uuid  # PyPy's uuid asks uname, in a process of its own
seen = []
names = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
         "socket.gethostbyname", "socket.gethostbyaddr", "socket.bind", "subprocess.Popen")
sys.addaudithook(lambda event, given: event in names and seen.append((event, given)))
"""

# Of TEST-NET, LAN, link-local and other hosts: none of them may be asked for.
ELSEWHERE = ["192.0.2.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "8.8.8.8", "0.0.0.0",
             "255.255.255.255", "2001:db8::1", "::", "a-name.invalid", "127.0.0.1.example",
             "127.0.0.999", "127.0.0.1.", "127."]


def test_a_loopback_host_setting_keeps_every_call_on_this_host(other):
    # Over TCP: Unix sockets leave no host by their nature.
    done = run_python("-c", WATCHED + f"""
import net, sample
net.UNIX = False
assert sample.where(peer={other.id!r}) == {other.pid}
for host in {ELSEWHERE!r}:
    try:
        sample.where(peer=(host, {other.address[1]}))
    except net.PeerUnreachable as problem:
        assert "NET_HOST" in str(problem), problem
    else:
        raise AssertionError(host)
net.Peer().friendly_id, net.info(), net.Peer().host
for event, given in seen:
    print(event, given[1] if event != "socket.getaddrinfo" else given[0])
""", NET_UNIX="no")
    touched = [line for line in done.stdout.splitlines() if "127.0.0.1" not in line]
    assert touched == []
    assert f"socket.connect ('127.0.0.1', {other.address[1]})" in done.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_every_loopback_address_is_one_to_live_on(host, port_range):
    done = run_python("-c", """
import net
assert net.null(peer=net.Peer().id) == "NULL"
try:
    net.null(peer=("192.0.2.1", 3010))
except net.PeerUnreachable as problem:
    print(net.Peer().host, problem.reason)
""", NET_HOST=host, NET_PORT_START=port_range.start)
    assert done.stdout.startswith(host.replace("localhost", "127.0.0.1"))
    assert "keeps this process on its own host" in done.stdout


def test_the_test_run_itself_is_kept_on_this_host():
    assert settings.loopback_only
    with pytest.raises(net.PeerUnreachable, match="NET_HOST"):
        sample.where(peer="192.0.2.1:3010")


@pytest.mark.parametrize("name", ["timeout", "time_out"])
def test_a_timeout_among_the_arguments_hints_at_the_way(other, name):
    with pytest.raises(TypeError, match=r"multiply.on\(.*, timeout=1\)\(...\)") as caught:
        sample.multiply(5, 6, peer=other.id, **{name: 1})
    assert isinstance(caught.value, net.RemoteError)
    with pytest.raises(TypeError) as caught:
        sample.multiply(5, 6, peer=other.id, tmeout=1)
    assert "on(" not in str(caught.value)


def test_the_peer_of_this_process_can_be_called_through_its_object(session_peer):
    assert net.pass_through(5, peer=session_peer) == 5
    assert net.pass_through.on(session_peer, timeout=patience(5))(5) == 5
