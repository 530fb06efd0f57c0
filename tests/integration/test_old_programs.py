"""Old programs in processes of their own, and what app-net and they can do with each other.

They are the imitation in tests/support/old_program.py, which tests/unit/test_old_program.py holds
to recorded bytes. Where a Python is installed that the real ones ran on, it runs on that one, too,
and beside it the small one in tests/support/small_old_program.py.
"""
from __future__ import annotations

import asyncio
import functools
import json
import socket
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

import net
import sample
from hearing import PUBLISHER, SUBSCRIBER, ask, until, wait_until_heard
from net.process import process
from net.run import old_peers
from old_programs import SCRIPT, SMALL, OldError, OldProgram, old_python
from times import patience

# What old programs make of what we send depends on their interpreter and not on ours; the dialects
# themselves are tried everywhere, in tests/unit and by test_legacy and test_events_legacy.
pytestmark = pytest.mark.once

Starter = Callable[..., OldProgram]

#: The dialect, and the version of Python; that of these tests where it is empty.
PROGRAMS = [("0.3", ""), ("0.4", ""), ("0.6", "")]
ON_OLD_PYTHONS = [("0.4", "2.7"), ("0.4", "3.6"), ("0.6", "3.6")]


def name_of(program: Any) -> str:
    return "-py".join(filter(None, program))


#: For tests in which an old Python may make a difference.
ALSO_ON_OLD_PYTHONS = pytest.mark.parametrize("old", PROGRAMS + ON_OLD_PYTHONS, indirect=True,
                                              ids=name_of)

find_python = functools.lru_cache(None)(old_python)


@pytest.fixture
def start_old(port_range: range) -> Iterator[Starter]:
    """Start an old program: ``start_old("0.4")``, on the last port of the test's own."""
    started: List[OldProgram] = []

    def start(dialect: str, python: str = "", port: int = port_range[-1],
              host: str = "127.0.0.1", script: Path = SCRIPT) -> OldProgram:
        path = {"python": find_python(python)} if python else {}
        if python and path["python"] is None:
            pytest.skip(f"Python {python} is not installed")
        program = OldProgram(dialect, port, host=host, script=script, **path)
        started.append(program)
        return program

    yield start
    for program in started:
        program.stop()


@pytest.fixture(params=PROGRAMS, ids=name_of)
def old(request: Any, start_old: Starter) -> OldProgram:
    """Each kind of old program."""
    return start_old(*request.param)


@pytest.fixture(params=["0.3", "0.4", "0.6"])
def dialect(request: Any) -> str:
    return str(request.param)


def call(old: OldProgram, name: str, *args: Any, **kwargs: Any) -> Any:
    return net.Peer().request(old.address, name, args, kwargs)


# ------------------------------------------------------------------------------ a small one


@pytest.mark.parametrize("dialect, python", [*ON_OLD_PYTHONS, ("0.4", ""), ("0.6", "")],
                         ids=lambda one: one or "here")
def test_a_small_one_calls_us_is_called_and_has_events_go_both_ways(
        dialect, python, start_old, peer_process, port_range):
    old = start_old(dialect, python, script=SMALL)
    process = peer_process(PUBLISHER + SUBSCRIBER.format(options=f"peers={old.address!r}, ")
                           .replace('"number", ', '"theirs", ') + """
@net.connect("app.twice")
def twice(value):
    return value * 2
""")
    assert call(old, "app.echo", ["x", None, 2.5]) == ["x", None, 2.5]
    with pytest.raises(net.InvalidConnection):
        call(old, "app.nothing")
    with pytest.raises(TypeError):
        call(old, "app.echo")
    assert old.call(process.address, "app.twice", 21) == 42
    assert old.call(process.address, "app.nothing") == "INVALID"
    facts = old.call(process.address, "net.defaults.handlers.info")
    assert (facts["group"], facts["port"]) == ("None", process.address[1])
    found = "[(peer.port, peer.info['wire']) for peer in net.peers(refresh=True)]"
    assert (old.address[1], "documented") in ask(process, found)
    old.do("subscribe", *process.address, "number", "app.on_tick")
    process.execute("many(0, 5)")
    until(lambda: old.heard == [0, 1, 2, 3, 4])
    until(lambda: "theirs" in old.state()["subscriptions"])
    for value in range(5):
        old.do("fire", "theirs", [value], {})
    assert wait_until_heard(process, 5) == list(range(5))


# --------------------------------------------------------------------------- they call us


VALUES = [None, True, 0, -1.5, "", "text", "café ✓ 😀", [], [1, [2, {"a": None}]], {}, {"a": 1}]


@ALSO_ON_OLD_PYTHONS
def test_an_old_program_calls_us(old, other):
    for value in VALUES:
        assert old.call(other.address, "sample.echo", value) == value
    assert old.call(other.address, "sample.multiply", 5, some_kwarg=10) == 50
    assert old.call(other.address, "net.defaults.handlers.pass_through", "x") == "x"


def test_an_old_program_calls_what_has_a_tag_of_its_own(old, other):
    own = old.dialect != "0.3"  # which has no such tags of its own form
    assert old.do("call", *other.address, "sample upper", ["x"], {}, own) == "X"


def test_in_0_6_it_has_the_tag_of_its_name_as_well(dialect, start_old, other):
    old = start_old(dialect)
    renamed = functools.partial(old.call, other.address, "sample.renamed", "x")
    if dialect == "0.6":
        assert renamed() == ["renamed", "x"]
        # As its search lists it, too.
        assert old.do("named_method", *other.address, "renamed", ["x"]) == ["renamed", "x"]
        assert old.do("named_method", *other.address, "above", [1]) == 2
    else:
        with pytest.raises(OldError, match="Peer does not have the connection"):
            renamed()


def test_an_old_program_calls_a_static_method_without_the_name_of_its_class(old, other):
    assert old.call(other.address, "sample.above", 1) == 2
    assert old.call(other.address, "sample.below", 1) == 0


@ALSO_ON_OLD_PYTHONS
def test_flags_and_errors_come_to_an_old_program_in_its_dialect(old, other):
    assert old.call(other.address, "net.defaults.handlers.null") == "NULL"
    with pytest.raises(OldError, match="Peer does not have the connection"):
        old.call(other.address, "app.nothing")
    with pytest.raises(OldError) as caught:
        old.call(other.address, "sample.fail", "KeyError", "x")
    assert "RemoteError" in str(caught.value) and "KeyError: 'x'" in str(caught.value)
    with pytest.raises(OldError, match="MessageTooLarge"):
        old.call(other.address, "sample.multiply", "x", some_kwarg=1100)


def test_a_method_of_an_object_of_0_6_is_a_call(start_old, other):
    old = start_old("0.6")
    assert old.do("method", *other.address, "sample.multiply", [5], {"some_kwarg": 10}) == 50


def test_a_call_with_an_object_of_0_6_as_its_peer_is_one_too(other):
    # It sends the repr of a dict.
    request = (b"{'connection': 'sample.multiply', 'args': (5,), 'kwargs': {'some_kwarg': 10, "
               b"'peer': <net.Peer h:127.0.0.1 p:3010 g:None c:4 s:0 f:0>}}")
    with socket.create_connection(other.address, patience(10)) as sock:
        sock.sendall(request)
        assert sock.recv(1024) == b"50"


# --------------------------------------------------------------------------- we call them


@ALSO_ON_OLD_PYTHONS
def test_we_call_an_old_program(old):
    for value in VALUES:
        assert call(old, "app.echo", value) == value
    assert call(old, "app.render", "shot", 10, quality=[3.5, None]) == [
        "shot", 10, [3.5, None], False]
    # It was asked in our dialect once, could not read it, and ran nothing.
    first, *others = old.requests
    assert first.startswith(b"\xabnet") and len(others) == len(VALUES) + 1
    assert not any(request.startswith(b"\xab") for request in others)
    assert len(old.state()["console"]) == 1


@ALSO_ON_OLD_PYTHONS
def test_flags_and_errors_of_an_old_program_are_handled_here(old):
    assert call(old, "net.defaults.handlers.null") == "NULL"
    with pytest.raises(net.InvalidConnection):
        call(old, "app.nothing")
    with pytest.raises(ValueError, match="no such frame: 7") as caught:
        call(old, "app.fail", "ValueError")
    assert isinstance(caught.value, net.RemoteError) and caught.value.ran == "yes"
    with pytest.raises(net.MessageTooLarge):
        call(old, "app.echo", "x" * 2000)


def test_a_flag_of_the_application_is_handled_where_it_is_defined(old, monkeypatch):
    monkeypatch.setattr(net.peer._Peer, "FLAGS", dict(net.peer._Peer.FLAGS))
    if old.dialect == "0.6":  # which does not tell flags from texts
        assert call(old, "app.answer_busy") == "BUSY"
    else:
        with pytest.raises(net.ValueNotSupported, match="BUSY"):
            call(old, "app.answer_busy")
    net.flag("BUSY")(lambda connection, peer: ("handled", peer))
    assert call(old, "app.answer_busy") == ("handled", old.address)


def test_what_has_a_tag_of_its_own_there_is_called(old):
    if old.dialect == "0.3":
        with pytest.raises(net.InvalidConnection):
            call(old, "Tagged", "x")
        return
    assert call(old, "Tagged", "x") == "x"
    # 0.4 knows it under another tag; asking for the plain one has run nothing.
    assert len(old.requests) == (3 if old.dialect == "0.4" else 2)


def test_a_static_method_there_is_called_although_its_tag_has_no_class(old, monkeypatch):
    monkeypatch.setattr(net.peer._Peer, "CONNECTIONS", dict(net.peer._Peer.CONNECTIONS))

    def lift(value: Any) -> Any:
        """As the method of a class Box in a module app."""
        return None

    lift.__module__, lift.__qualname__ = "app", "Box.lift"
    connected = net.connect(lift)
    assert connected(5, peer=old.address) == ["lifted", 5]
    # The greeting, then each name once; nothing has run under the first.
    assert len(old.requests) == 3
    assert connected.start(6, peer=old.address).result(patience(10)) == ["lifted", 6]


def test_coroutines_and_started_calls_come_to_an_old_program(old, monkeypatch):
    monkeypatch.setattr(net.peer._Peer, "CONNECTIONS", dict(net.peer._Peer.CONNECTIONS))

    @net.connect("app.echo")
    async def echo(value: Any) -> Any:
        return value

    @net.connect("app.render")
    def render(shot: str, frame: int) -> Any:
        return None

    async def several() -> List[Any]:
        return await asyncio.gather(*(echo(number, peer=old.address) for number in range(5)))

    assert asyncio.run(several()) == [0, 1, 2, 3, 4]
    call = render.start("shot", 7, peer=old.address)
    assert call.result(patience(10)) == ["shot", 7, None, False]
    modern = [request for request in old.requests if request.startswith(b"\xab")]
    assert 1 <= len(modern) <= 5  # those that came before the first answer


def test_the_info_of_an_old_program_is_that_of_a_peer_without_a_group(old):
    info = net.info(peer=old.address)
    assert info["group"] is None and (info["host"], info["port"]) == old.address


# ------------------------------------------------------------------------------- searches


NOT_FOUND = {"found": [], "died": None}


def info_of(process: Any) -> List[Any]:
    return list(process.address)


@ALSO_ON_OLD_PYTHONS
def test_the_search_of_an_old_program_finds_us(old, peer_process, port_range):
    one = peer_process("import net")
    two = peer_process("import net\nnet.configure(facts={'much': 'x' * 3000})")
    found = old.do("scan", ["127.0.0.1"], list(port_range))
    assert found == {"found": [info_of(one), info_of(two)], "died": None}
    assert old.call(two.address, "net.defaults.handlers.info")["group"] == "None"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the table is Linux's")
def test_calls_and_searches_leave_nothing_behind_at_the_port_of_an_old_program(
        dialect, start_old, peer_process):
    # Else it would take another port when it is started again.
    old = start_old(dialect)
    process = peer_process("import net")
    for number in range(10):
        assert call(old, "app.echo", number) == number
    for _ in range(3):
        assert ask(process, "[peer.port for peer in net.peers(refresh=True)]") == [old.address[1]]
    waiting = "06"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert not [row for row in rows
                if row[3] == waiting and int(row[1].split(":")[1], 16) == old.address[1]]


def test_only_those_of_its_group_are_found_by_an_old_program(old, peer_process, port_range):
    peer_process("import net", NET_GROUP="render")
    found = old.do("scan", ["127.0.0.1"], list(port_range))
    assert found["died"] is None and found["found"] == (
        [] if old.dialect != "0.3" else [["127.0.0.1", port_range[0]]])


SECRET = {"NET_SECRET": "correct horse battery staple"}


@pytest.mark.parametrize("settings, held", [
    (SECRET, False), ({"NET_MAX_CONNECTIONS": 1}, True), ({**SECRET, "NET_MAX_CONNECTIONS": 1},
                                                          True),
], ids=["with a secret", "at its limit", "both"])
def test_the_search_of_an_old_program_survives_a_peer(old, peer_process, port_range, settings,
                                                      held):
    if "NET_SECRET" in settings:
        pytest.importorskip("cryptography")
    closed = peer_process("from sample import *", **settings)
    behind = peer_process("import net")
    hold = [socket.create_connection(closed.address, patience(10))] if held else []
    try:
        if held and "NET_SECRET" not in settings:
            # A call that runs: one that only begins gives way to others.
            hold[0].sendall(json.dumps({"connection": "sample.wait", "args": [20],
                                        "kwargs": {}}).encode())
            until(lambda: ask_connections(closed))
        found = old.do("scan", ["127.0.0.1"], list(port_range))
        assert found["died"] is None and info_of(behind) in found["found"]
        if held and "NET_SECRET" not in settings:
            with pytest.raises(OldError, match="PeerBusy.*NET_MAX_CONNECTIONS"):
                old.call(closed.address, "sample.where")
    finally:
        for sock in hold:
            sock.close()


def ask_connections(process: Any) -> bool:
    return bool(ask(process, "net.Peer().server.connections") == 1)


@ALSO_ON_OLD_PYTHONS
def test_our_search_finds_an_old_program_and_asks_it_in_its_dialect_from_then_on(
        old, peer_process, port_range):
    process = peer_process("import net")
    find = ("[(peer.port, peer.group, peer.info['wire']) for peer in net.peers(refresh=True)]")
    expected = [(old.address[1], None, "documented")]
    assert ask(process, find) == expected
    tracebacks = len(old.state()["console"])
    for _ in range(3):
        assert ask(process, find) == expected
    process.execute(f"print(net.info(peer={old.address!r})['port'])")
    assert process.read_line() == str(old.address[1])
    assert len(old.state()["console"]) == tracebacks <= 1
    assert ask(process, "[peer.port for peer in net.peers()['None']]") == [old.address[1]]
    assert ask(process, "[peer.port for peer in net.peers(groups=['None'])]") == [old.address[1]]


def test_at_the_loopback_address_of_this_hosts_name_old_and_new_find_each_other(
        dialect, start_old, peer_process, tmp_path, port_range):
    # Debian gives the name of a host this address, and old programs listen at that of the name.
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n")
    old = start_old(dialect, port=port_range[0], host="127.0.1.1")
    process = peer_process(f"""
        import net
        from net.link import local
        local.HOSTS_FILE = {str(tmp_path / "hosts")!r}
        @net.connect("app.echo")
        def echo(value):
            return value
    """)
    assert ask(process, "[(peer.host, peer.port) for peer in net.peers()]") == [old.address]
    assert ask(process, f"net.Peer().request({old.address!r}, 'app.echo', [5], {{}})") == 5
    # Its port is taken there.
    assert process.address == ("127.0.0.1", port_range[0])
    there = ["127.0.1.1", port_range[1]]
    assert old.do("scan", ["127.0.1.1"], list(port_range)) == {"found": [there], "died": None}
    assert old.call(there, "app.echo", 6) == 6


def test_doctor_names_an_old_program(old, peer_process):
    from processes import run_python

    done = run_python("-m", "net", "doctor", NET_PORT_START=old.address[1] - 5)
    assert f"127.0.0.1:{old.address[1]}" in done.stdout
    assert "app-net " + {"0.6": "0.6"}.get(old.dialect, "0.3 or 0.4") in done.stdout


# -------------------------------------------------------------------- replaced by a new one


TUPLE = """
import net
@net.connect("app.echo")
def echo(value):
    return value
net.Peer()
"""


@pytest.fixture
def replaced(dialect, start_old, peer_process, port_range) -> Callable[[], Any]:
    """Replace an old program that we have called by a peer of ours at the same address."""
    old = start_old(dialect)
    assert call(old, "app.echo", (1, 2)) == [1, 2]

    def replace() -> Any:
        old.stop()
        return peer_process(TUPLE, NET_PORT_START=old.address[1], NET_PORT_RANGE=0)
    return replace


def test_an_old_program_that_is_replaced_is_called_in_our_dialect_after_a_search(
        replaced, monkeypatch):
    new = replaced()
    monkeypatch.setitem(vars(process.settings), "port_start", new.address[1])
    assert new.id in net.peers(refresh=True)
    assert net.Peer().request(new.address, "app.echo", ((1, 2),), {}) == (1, 2)


def test_without_a_search_it_is_after_a_while(replaced, monkeypatch):
    new = replaced()
    assert net.Peer().request(new.address, "app.echo", ((1, 2),), {}) == [1, 2]
    later = time.monotonic() + old_peers.OLD_TIME
    monkeypatch.setattr(old_peers, "monotonic", lambda: later)
    assert old_peers.OLD_TIME <= 60
    assert net.Peer().request(new.address, "app.echo", ((1, 2),), {}) == (1, 2)


def test_an_old_program_that_stays_is_only_asked_in_its_own_dialect(old, monkeypatch):
    assert call(old, "app.echo", 1) == 1
    for number in range(1, 4):
        later = time.monotonic() + number * old_peers.OLD_TIME
        monkeypatch.setattr(old_peers, "monotonic", lambda: later)
        assert call(old, "app.echo", number) == number
    assert len(old.state()["console"]) == 1


def test_a_peer_that_is_replaced_by_an_old_program_is_called_in_its_dialect(
        dialect, start_old, peer_process, port_range):
    new = peer_process(TUPLE)
    assert net.Peer().request(new.address, "app.echo", ((1, 2),), {}) == (1, 2)
    new.stop()
    old = start_old(dialect, port=new.address[1])
    assert call(old, "app.echo", (1, 2)) == [1, 2]


def test_an_old_program_of_one_dialect_that_is_replaced_by_one_of_the_other_is_called(
        start_old, port_range):
    for before, after in (("0.4", "0.6"), ("0.6", "0.4")):
        old = start_old(before)
        assert call(old, "app.echo", 1) == 1
        old.stop()
        old = start_old(after)
        assert call(old, "app.echo", 2) == 2
        old.stop()


# --------------------------------------------------------------------------------- events


@pytest.fixture
def publisher(peer_process: Any) -> Any:
    return peer_process(PUBLISHER)


def counts_of(publisher: Any) -> Any:
    """What became of its events for its one subscriber."""
    counts, = ask(publisher, "list(net.stats()['events']['number']['subscribers'].values())")
    return counts


@ALSO_ON_OLD_PYTHONS
def test_an_old_program_hears_our_events(old, publisher):
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("many(0, 20), number([2, {'x': None}])")
    until(lambda: len(old.heard) == 21)
    assert old.heard == [*range(20), [2, {"x": None}]]
    until(lambda: counts_of(publisher) == {"sent": 21, "queued": 0, "dropped": 0})
    # It was never asked in our dialect.
    assert old.state()["console"] == []


@ALSO_ON_OLD_PYTHONS
def test_we_hear_the_events_of_an_old_program(old, peer_process):
    process = peer_process(SUBSCRIBER.format(options=f"peers={old.address!r}, "))
    until(lambda: "number" in old.state()["subscriptions"])
    for value in range(10):
        assert old.do("fire", "number", [value], {}) == []
    assert wait_until_heard(process, 10) == list(range(10))
    assert len(old.state()["console"]) <= 1


def test_a_restarted_subscriber_hears_the_events_of_an_old_program_once(old, peer_process):
    script = SUBSCRIBER.format(options=f"peers={old.address!r}, ")
    process = peer_process(script)
    until(lambda: "number" in old.state()["subscriptions"])
    process.kill()
    again = peer_process(script)
    assert again.address == process.address
    until(lambda: len(tags_of(old)) == 2)
    for value in range(5):
        assert old.do("fire", "number", [value], {}) == []
    assert wait_until_heard(again, 5) == list(range(5))
    assert ask(again, "heard") == list(range(5))


def tags_of(old: OldProgram) -> List[str]:
    return [tag for _, tags in old.state()["subscriptions"]["number"] for tag in tags]


def test_an_old_subscriber_whose_handler_is_slow_hears_on(dialect, start_old, peer_process):
    old = start_old(dialect)
    publisher = peer_process("""
from net.events import feeds
feeds.NO_PROGRESS, feeds.PATIENCE = 0.2, 0.1
""" + PUBLISHER.replace("return (value,), {}", "return (value,), {'sleep': value}"))
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("number(1.5), number(0)")
    until(lambda: old.heard == [1.5, 0])
    publisher.execute("number(0)")
    until(lambda: len(old.heard) == 3)
    assert ask(publisher, "net.stats()['cut off']") == 0


def test_an_old_subscriber_that_is_far_behind_loses_events_and_hears_on(
        dialect, start_old, peer_process):
    old = start_old(dialect)
    publisher = peer_process("""
from net.events import feeds, old
old.MAX_EVENTS, feeds.PATIENCE = 10, 0.1
""" + PUBLISHER.replace(
        "return (value,), {}", "return (value,), {'sleep': 1 if value == 0 else 0}"))
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("number(0)")
    until(lambda: old.heard == [0])
    publisher.execute("for value in range(1, 101): number(value), time.sleep(0.002)")
    until(lambda: len(old.heard) > 5)
    until(lambda: counts_of(publisher)["queued"] == 0)
    publisher.execute("number(1000)")
    until(lambda: old.heard[-1] == 1000)
    heard = old.heard
    assert heard == sorted(heard)
    until(lambda: counts_of(publisher)["queued"] == 0)
    counts = counts_of(publisher)
    assert counts["sent"] == len(heard) and counts["dropped"] == 102 - len(heard) > 0
    assert ask(publisher, "net.stats()['cut off']") == 0


def test_an_old_subscriber_that_is_gone_is_forgotten(old, publisher):
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("number(1)")
    until(lambda: old.heard == [1])
    old.stop()
    publisher.execute("number(2)")
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS)") == 0)


HEARS = """
import net
heard = []
@net.connect("app.on_tick")
def on_tick(value):
    heard.append(value)
def subscribe(peer):
    net.subscribe("number", peers=peer)(on_tick)
"""


SEARCH = "[peer.port for peer in net.peers(refresh=True)]"


def start_in_place_of(old: OldProgram, peer_process: Any, code: str) -> Any:
    old.stop()
    return peer_process(code, NET_PORT_START=old.address[1], NET_PORT_RANGE=0)


def test_an_old_subscriber_that_is_replaced_and_subscribes_hears_each_event_once(
        old, publisher, peer_process):
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    publisher.execute("number(0)")
    until(lambda: old.heard == [0])
    new = start_in_place_of(old, peer_process, HEARS)
    new.execute(f"subscribe({publisher.address!r})")
    assert ask(new, "heard") == []  # it has subscribed
    publisher.execute("many(1, 6)")
    assert wait_until_heard(new, 5) == [1, 2, 3, 4, 5]
    assert ask(publisher, "net.flush(5)") == {}
    assert ask(new, "heard") == [1, 2, 3, 4, 5]


def test_an_old_subscriber_that_is_replaced_is_no_longer_called_once_that_shows(
        old, publisher, peer_process):
    old.do("subscribe", *publisher.address, "number", "app.on_tick")
    new = start_in_place_of(old, peer_process, HEARS)
    assert new.address[1] in ask(publisher, SEARCH)
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS)") == 0)
    publisher.execute("number(1)")
    assert ask(publisher, "net.flush(5)") == {} and ask(new, "heard") == []


def test_an_old_publisher_brings_each_event_once_to_one_that_replaced_its_subscriber(
        dialect, start_old, peer_process, port_range):
    publisher, before = start_old(dialect), start_old(dialect, port=port_range[-2])
    for _ in range(2):
        before.do("subscribe", *publisher.address, "number", "app.on_tick")
    assert publisher.do("fire", "number", [0], {}) == [] and before.heard == [0, 0]
    new = start_in_place_of(before, peer_process, HEARS)
    # Until it subscribes it is called as a function that it has.
    assert publisher.do("fire", "number", [1], {}) == [] and ask(new, "heard") == [1, 1]
    new.execute(f"subscribe({publisher.address!r})")
    assert ask(new, "len(heard)") == 2
    until(lambda: len(tags_of(publisher)) == 3)
    for value in (2, 3, 4, 4, 5):
        assert publisher.do("fire", "number", [value], {}) == []
    assert ask(new, "heard[2:]") == [2, 3, 4, 4, 5]
    # A call is a call still.
    publisher.call(new.address, "app.on_tick", 6)
    assert ask(new, "heard[2:]") == [2, 3, 4, 4, 5, 6]


def test_an_old_publisher_that_is_replaced_is_heard_at_once_when_that_shows(
        old, peer_process):
    process = peer_process(
        "from net.events import subscribing\nsubscribing.OLD_LOOK_TIME = 1e6\n"
        + SUBSCRIBER.format(options=f"peers={old.address!r}, "))
    until(lambda: "number" in old.state()["subscriptions"])
    new = start_in_place_of(old, peer_process, PUBLISHER)
    assert new.address[1] in ask(process, SEARCH)
    until(lambda: ask(new, "len(net.Peer().SUBSCRIPTIONS)") == 1)
    new.execute("many(0, 5)")
    assert wait_until_heard(process, 5) == list(range(5))
    assert ask(process, "heard") == list(range(5))


def test_idle_subscribers_do_not_fill_the_console_of_an_old_program(old, peer_process):
    process = peer_process(
        "from net.events import subscribing\nsubscribing.OLD_LOOK_TIME = 0.1\n"
        + SUBSCRIBER.format(options=f"peers={old.address!r}, "))
    until(lambda: len(old.requests) >= 10)
    assert len(old.state()["console"]) <= 1
    assert process.errors() == ""


def test_the_client_of_this_process_is_the_one_that_is_tested():
    assert sample.multiply and process.client
