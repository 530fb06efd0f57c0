"""The test kit's peers in memory: found, called, heard, and what goes wrong with them."""
from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

import farm
import net
import net.testing
from net.discovery import known_peers
from net.discovery.answers import Answer
from net.discovery.lan.sockets import Sockets
from net.events import own_events
from net.process import process
from net.settings import settings
from net.testing import faults, memory
from net.testing.faults import Faults, FaultySockets
from times import patience

WAIT = patience(10)


def in_memory(count: int = 1, **values):
    return net.testing.peers(count, processes=False, **values)


def addresses(found) -> list:
    return [peer.address for peer in found]


@net.connect
def who() -> list:
    """What a function sees of the peer that it was called through."""
    return [str(net.Peer().id), [str(peer) for peer in net.peers()], net.caller().instance]


@net.connect
def total(numbers, tell) -> int:
    found = 0
    for number in numbers:
        found += number
        tell(found)
    return found


@net.connect
async def later(text: str) -> str:
    return f"{text} later"


def test_searches_find_them_and_not_the_process_that_searches():
    with in_memory(3) as made:
        assert sorted(addresses(net.peers())) == sorted(addresses(made))
        assert addresses(net.peers(refresh=True)) == addresses(net.peers(on_host=True))
        assert len(farm.render.peers()) == 3
        assert len({net.info(peer=peer)["instance"] for peer in made} | {process.instance}) == 4
        assert {peer.info["found"] for peer in net.peers()} == {"memory"}


def test_everything_that_is_called_works_with_them():
    with in_memory(2, app="farm") as [a, b]:
        assert farm.render("sc01", peer=a) == a.call("farm.render", "sc01") == "sc01 rendered"
        assert list(farm.frames(3, peer=b)) == [0, 1, 2]
        assert farm.echo.start(b"x", peer=a).result(WAIT) == b"x"
        assert farm.render.any("x") == "x rendered"
        assert {peer.address: value for peer, value in farm.render.all("x").items()} \
            == {a.address: "x rendered", b.address: "x rendered"}
        assert list(farm.render.map(["x", "y", "z"])) == ["x rendered", "y rendered", "z rendered"]
        told: list = []
        assert total(iter([1, 2, 3]), told.append, peer=a) == 6 and told == [1, 3, 6]
        assert later.start("x", peer=b).result(WAIT) == "x later"
        assert net.stats(peer=a)["connections"]["farm.render"]["calls"] > 0


def test_they_open_no_socket_of_the_network(monkeypatch, session_peer):
    families = []
    made = socket.socket.__init__

    def record(self, family=-1, *args, **kwargs):
        made(self, family, *args, **kwargs)
        # The peer that this process had before goes on saying hello on its own network.
        if "broadcast" not in [frame.name for frame in traceback.extract_stack(limit=8)]:
            families.append(self.family)

    monkeypatch.setattr(socket.socket, "__init__", record)
    with in_memory(2, app="farm") as [a, b]:
        assert len(net.peers()) == 2 and farm.render("x", peer=a) == "x rendered"
        b.kill()
        with pytest.raises(net.PeerUnreachable):
            farm.render("x", peer=b)
    # Windows makes a pair of sockets of two of the loopback.
    assert families and (os.name == "nt" or set(families) == {socket.AF_UNIX})


def test_a_function_sees_the_peer_that_it_was_called_through():
    with in_memory(2) as [a, b]:
        assert who(peer=a) == [str(a.id), [str(b.id)], process.instance]
        assert who(peer=b) == [str(b.id), [str(a.id)], process.instance]
        own = net.Peer().id
        assert own.address not in (a.address, b.address)
        assert who(peer=own)[0] == str(own)
    assert net.Peer().id != own


@net.connect
def through(other, way: str):
    """What another peer sees of one that calls it in some way."""
    if way == "started":
        return who.start(peer=other).result(WAIT)
    return list(whos(peer=other))[0] if way == "streamed" else who(peer=other)


@net.connect
async def through_awaited(other):
    return await who_awaited(peer=other)


@net.connect
async def who_awaited():
    return who()


@net.connect
def whos():
    yield who()


@pytest.mark.parametrize("way", ["called", "started", "streamed", "awaited"])
def test_what_a_function_calls_is_called_by_its_peer(way):
    with in_memory(2, each=[{"group": "farm"}]) as [a, b]:
        instance = net.info(peer=a)["instance"]
        if way == "awaited":
            found = through_awaited.start(b.id, peer=a).result(WAIT)
        else:
            found = through(b.id, way, peer=a)
        assert found[0] == str(b.id) and found[2] == instance
        only = net.connect("only", groups=["farm"])(lambda: 5)
        try:
            with pytest.raises(net.NetError, match="farm"):
                only(peer=b)
            # It is of its group for those that it calls, too.
            assert a.call("test_testing.call_only", b.id) == 5
        finally:
            net.disconnect(only)


@net.connect("test_testing.call_only")
def call_only(other):
    return net.remote("only").on(other)()


entered, gate = threading.Event(), threading.Event()
rendered: queue.Queue = queue.Queue()


@net.connect
def render_there(other) -> str:
    entered.set()
    assert gate.wait(WAIT)
    return note(peer=other)


@net.connect
def note() -> str:
    rendered.put(1)
    return "noted"


@pytest.mark.parametrize("warm", [True, False])
def test_what_stands_still_says_nothing_until_it_goes_on(warm):
    entered.clear()
    gate.clear()
    with in_memory(2) as [a, b]:
        if warm:
            gate.set()
            assert render_there(b.id, peer=a) == "noted" and rendered.get(timeout=WAIT)
            entered.clear()
            gate.clear()
        running = render_there.start(b.id, peer=a)
        assert entered.wait(WAIT)
        a.freeze()
        gate.set()
        with pytest.raises(queue.Empty):
            rendered.get(timeout=0.2)
        a.heal()
        assert rendered.get(timeout=WAIT) and running.result(WAIT) == "noted"


@pytest.mark.parametrize("fault", ["cut", "kill"])
def test_what_is_cut_or_killed_reaches_nobody(fault):
    entered.clear()
    gate.clear()
    with in_memory(2) as [a, b]:
        running = render_there.start(b.id, peer=a)
        assert entered.wait(WAIT)
        getattr(a, fault)()
        gate.set()
        with pytest.raises(net.PeerLost):
            running.result(WAIT)
        with pytest.raises(queue.Empty):
            rendered.get(timeout=0.2)


def test_each_has_what_it_says_of_itself():
    with in_memory(3, facts={"gpu": 1}, each=[
            {"is_hub": True, "name": "seven"}, {"group": "farm", "facts": {}}]) as [a, b, c]:
        hub, = net.peers(hubs_only=True)
        assert hub.address == a.address and hub.info["label"] == "seven"
        assert addresses(net.peers("farm")) == [b.address] and b.id.group == "farm"
        assert {peer.address: peer.info["facts"] for peer in net.peers()} \
            == {a.address: {"gpu": 1}, b.address: {}, c.address: {"gpu": 1}}
        assert net.IS_HUB is False and net.FACTS == {}
    with in_memory(1, group="farm") as [a]:
        assert net.GROUP == "farm" and a.id.group == "farm" and net.Peer().group == "farm"


def test_settings_that_peers_in_memory_share_are_not_those_of_one():
    with pytest.raises(net.SettingError, match="share the setting 'max_text'"):
        with in_memory(1, each=[{"max_text": 5000}]):
            pytest.fail("it was taken")
    with pytest.raises(ValueError, match="2 single peers"):
        with in_memory(1, each=[{}, {}]):
            pytest.fail("it was taken")
    assert process.peer is net.Peer() and net.Peer().launched


@pytest.fixture
def heard():
    """Hears the event ``rendered`` of all peers: what came, and from whom."""
    found: queue.Queue = queue.Queue()

    @net.subscribe("rendered")
    def hear(shot):
        found.put((shot, net.caller().address))
    yield found
    net.unsubscribe("rendered", hear)
    net.disconnect(hear)


def until_heard(heard, peers) -> None:
    """Wait until the events of these peers are heard, and none of them is on its way any more."""
    for peer in peers:
        address = peer.address
        while address not in [source for _, source in within(heard, 0.02)]:
            farm.announce("?", peer=peer)
        farm.announce("!", peer=peer)
        while heard.get(timeout=WAIT) != ("!", address):
            pass


def within(heard, seconds: float) -> list:
    """What is heard within some seconds, at least the first of it."""
    try:
        return [heard.get(timeout=seconds)]
    except queue.Empty:
        return []


def test_an_event_comes_once_from_the_peer_that_has_triggered_it(heard):
    with in_memory(2, app="farm") as made:
        a, b = made
        until_heard(heard, [a, b])
        farm.announce("one", peer=b)
        assert heard.get(timeout=WAIT) == ("one", b.address)
        farm.announce("two", peer=a)
        assert heard.get(timeout=WAIT) == ("two", a.address)
        subscribers = net.stats(peer=a)["events"]["rendered"]["subscribers"]
        assert [bytes(one) for one in subscribers] == [bytes(net.Peer().id)]
        # This process is heard, too, as one of its own.
        own = net.Peer()
        until_heard(heard, [own.id])
        farm.announce("three")
        assert heard.get(timeout=WAIT) == ("three", own.id.address)
        net.flush(WAIT)
    assert heard.empty()


def test_a_process_hears_itself_again_and_nobody_of_a_network_that_it_has_left(heard):
    with in_memory(1, app="farm") as [a]:
        until_heard(heard, [a])
    done = threading.Event()
    process.loop.call_soon(done.set)
    assert done.wait(WAIT)
    assert a.address not in own_events().subscriber._targets
    until_heard(heard, [net.Peer().id])


def test_a_watch_is_told_who_comes_and_who_goes(monkeypatch):
    monkeypatch.setattr(memory, "MISSED_SECONDS", 0.05)
    news: queue.Queue = queue.Queue()
    with in_memory(2) as [a, b]:
        stop = net.watch(lambda change, peer: news.put((change, peer.address)))
        try:
            assert {news.get(timeout=WAIT) for _ in range(2)} \
                == {("came", a.address), ("came", b.address)}
            a.kill()
            assert news.get(timeout=WAIT) == ("left", a.address)
            b._peer.close()  # which says goodbye
            assert news.get(timeout=WAIT) == ("left", b.address)
            b._peer.launch()
            assert news.get(timeout=WAIT)[0] == "came"
        finally:
            stop()


def test_one_that_was_killed_is_listed_until_somebody_notices(monkeypatch):
    monkeypatch.setattr(memory, "MISSED_SECONDS", 1000.0)
    with in_memory(3) as [a, b, c]:
        assert len(net.peers()) == 3
        a.kill()
        b.kill()
        assert len(net.peers()) == 3 and not a.alive and c.alive
        with pytest.raises(net.PeerUnreachable):
            farm.render("x", peer=a)
        assert len(net.peers()) == 2
        assert addresses(net.peers(refresh=True)) == [c.address]
        with pytest.raises(net.NetError, match="was killed"):
            a.freeze()


@pytest.mark.parametrize("fault, problem", [
    ("kill", net.PeerUnreachable), ("cut", net.PeerUnreachable), ("full", net.PeerBusy)])
def test_no_call_finds_a_connection_that_a_fault_has_ended(monkeypatch, fault, problem):
    monkeypatch.setattr(faults, "LOOK", 0.3)  # which makes the network slow to notice
    with in_memory(1) as [a]:
        assert farm.render("x", peer=a) == "x rendered"
        getattr(a, fault)()
        with pytest.raises(problem) as caught:
            farm.render("x", peer=a)
        assert caught.value.ran == "no"


def test_what_they_register_later_is_found():
    with in_memory(1) as [a]:
        assert len(net.peers()) == 1
        before = net.peers()[0].info["digest"]
        function = net.connect("fresh")(lambda: 5)
        try:
            assert net.peers()[0].info["digest"] != before
            assert len(function.peers()) == 1 and function(peer=a) == 5
        finally:
            net.disconnect(function)


def test_a_search_finds_one_that_is_late_later_and_none_that_is_cut_or_stands_still():
    with in_memory(4) as [a, b, c, d]:
        a.delay(0.05)
        b.cut()
        c.freeze()
        d.full()
        assert sorted(addresses(net.peers())) == sorted(addresses([a, d]))
        assert next(one for one in net.peers() if one.address == a.address).info["seconds"] >= 0.1
        for peer in (a, b, c, d):
            peer.heal()
        assert len(net.peers(refresh=True)) == 4


def test_faults_that_make_no_sense_are_refused():
    with in_memory(1) as [a]:
        for begin, value in ((a.delay, -1), (a.delay, float("nan")), (a.loss, 1), (a.loss, -0.1)):
            with pytest.raises(ValueError):
                begin(value)
        assert farm.render("x", peer=a) == "x rendered"


def test_loss_makes_a_search_find_one_late_or_not(monkeypatch):
    lost = iter([0.0, 0.9, 0.9, 0.0, 0.9, 0.0, 0.9])
    with in_memory(1) as [a]:
        a.loss(0.5)
        monkeypatch.setattr("net.testing.faults.random.random", lambda: next(lost))
        assert net.peers(refresh=True)[0].info["seconds"] >= 0.2
        # Both ways: later than a search waits.
        quest = memory.MemoryQuest(type("Search", (), {"started": 0.0})(),
                                   {a.address: a._peer})
        assert quest.over(0.0)


class Beacon:
    """Takes what has come through its sockets."""

    def __init__(self) -> None:
        self.sockets = Sockets(["127.0.0.1"], 0)
        self.received: queue.Queue = queue.Queue()

    def receive(self) -> None:
        for data, _ in self.sockets.receive():
            self.received.put(data)


def test_datagrams_are_late_or_lost_as_the_faults_say(monkeypatch):
    beacon, bad = Beacon(), Faults()
    place = beacon.sockets.all[0].getsockname()
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(beacon.sockets), contextlib.closing(other):
        other.bind(("127.0.0.1", 0))
        other.settimeout(WAIT)
        beacon.sockets = FaultySockets(beacon, bad)

        def arrives(data: bytes) -> None:
            other.sendto(data, place)
            assert select.select([beacon.sockets.all[0]], [], [], WAIT)[0]
            beacon.receive()

        arrives(b"at once")
        assert beacon.received.get_nowait() == b"at once"
        bad.delay = 0.02
        arrives(b"late")
        assert beacon.received.get(timeout=WAIT) == b"late"
        beacon.sockets.send(b"answer", other.getsockname())
        assert other.recv(100) == b"answer"
        bad.heal()
        bad.loss = 0.5
        monkeypatch.setattr("net.testing.faults.random.random", lambda: 0.4)
        arrives(b"lost")
        beacon.sockets.send(b"lost", other.getsockname())
        monkeypatch.setattr("net.testing.faults.random.random", lambda: 0.6)
        arrives(b"not lost")
        beacon.sockets.send(b"not lost", other.getsockname())
        assert beacon.received.get_nowait() == b"not lost" == other.recv(100)
        bad.frozen = True
        arrives(b"frozen")
        bad.heal()
        arrives(b"last")
        assert beacon.received.get_nowait() == b"last"
        # What is due when the sockets are closed is lost.
        bad.delay = 0.01
        beacon.sockets.send(b"too late", other.getsockname())
    done = threading.Event()
    process.loop.call_later(0.03, done.set)
    assert done.wait(WAIT)


def test_what_other_networks_know_is_not_listed():
    foreign = Answer(("127.0.0.1", 3010), {"instance": "0" * 32, "group": None}, "test", 0.0, 0.0)
    with in_memory(1) as [a]:
        with in_memory(1) as [b]:
            known_peers().learn([foreign])
            assert addresses(net.peers(refresh=True)) == [b.address]
            # It can be called all the same.
            assert farm.render("x", peer=a) == "x rendered"
        assert addresses(net.peers()) == [a.address]
    assert not known_peers().knows(a.address) and not known_peers().knows(b.address)


def test_threads_may_use_them_at_the_same_time():
    with in_memory(3) as made, ThreadPoolExecutor(6) as pool:
        work = [pool.submit(farm.echo, b"x" * number, peer=made[number % 3])
                for number in range(60)]
        searches = [pool.submit(net.peers, refresh=True) for _ in range(6)]
        assert [len(one.result(WAIT)) for one in work] == list(range(60))
        assert {len(one.result(WAIT)) for one in searches} == {3}


def test_a_secret_works_in_memory():
    pytest.importorskip("cryptography", reason="a secret needs it")
    with in_memory(2, secret="correct horse battery staple") as [a, b]:
        assert settings.secured and len(net.peers()) == 2
        assert farm.render("x", peer=a) == "x rendered"
        a.cut()
        # Whether the end comes before what was sent, or after it.
        with pytest.raises((net.PeerUnreachable, net.AuthenticationError)) as caught:
            farm.render("x", peer=a)
        assert caught.value.ran == "no"
