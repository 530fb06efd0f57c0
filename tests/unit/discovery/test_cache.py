"""The cache: when it searches, what changes it, and who is told."""
from __future__ import annotations

import queue
import threading

import pytest

from net.discovery import cache as cache_module
from net.discovery import search as search_module
from net.discovery.cache import PeerCache
from net.discovery.report import Report
from net.errors import NetError
from net.discovery.search import Outcome
from net.discovery.probes import Answer
from hearing import until

HERE = "127.0.0.1"
THERE = "192.168.1.20"


def answer(host=THERE, port=3010, instance="i", **facts):
    said = {"instance": instance, "host": host, "port": port, "group": None, **facts}
    return Answer((host, port), said, "test", 0.001, 0.0)


class Network:
    """What searches find: a set of answers that the test changes."""

    def __init__(self):
        self.answers = {}
        self.searches = []
        self.enter = threading.Event()
        self.leave = threading.Event()
        self.leave.set()

    def put(self, *answers):
        self.answers.update({one.address: one for one in answers})

    def remove(self, *addresses):
        for address in addresses:
            del self.answers[address]

    def search(self, on_host, known):
        self.searches.append("host" if on_host else "all")
        found = [one for one in self.answers.values() if not on_host or one.address[0] == HERE]
        self.enter.set()
        assert self.leave.wait(5)
        return Outcome(found, {HERE}, Report())

    def look_at(self, addresses, seconds):
        return [self.answers[address] for address in addresses if address in self.answers]


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(search_module, "search", network.search)
    monkeypatch.setattr(search_module, "look_at", network.look_at)
    return network


@pytest.fixture
def keeper(network):
    return PeerCache()


def ports(listing):
    return [peer.port for peer in listing]


def test_the_first_call_searches_and_later_ones_do_not(keeper, network):
    network.put(answer())
    assert ports(keeper.peers()) == ports(keeper.peers()) == [3010]
    assert network.searches == ["all"]


def test_refresh_searches_again(keeper, network):
    keeper.peers()
    network.put(answer())
    assert ports(keeper.peers()) == [] and ports(keeper.peers(refresh=True)) == [3010]


def test_an_empty_result_is_remembered_too(keeper, network):
    keeper.peers()
    keeper.peers()
    assert network.searches == ["all"]


def test_a_peer_that_comes_too_late_for_a_search_is_kept(keeper, network):
    network.leave.clear()
    searching = threading.Thread(target=keeper.peers)
    searching.start()
    assert network.enter.wait(5)
    assert keeper.in_use()
    network.put(answer(port=3011))
    keeper.look_at((THERE, 3011))
    until(lambda: keeper.knows((THERE, 3011)))
    network.leave.set()
    searching.join(5)
    assert ports(keeper.peers()) == [3011]
    assert ports(keeper.peers(refresh=True)) == [3011]


def test_a_search_of_this_host_does_not_stand_for_one_of_the_lan(keeper, network):
    network.put(answer(HERE, 3010, "a"), answer(THERE, 3011, "b"))
    assert ports(keeper.peers(on_host=True)) == [3010]
    assert ports(keeper.peers(on_host=True)) == [3010]
    assert ports(keeper.peers()) == [3010, 3011]
    assert ports(keeper.peers(on_host=True)) == [3010]
    assert network.searches == ["host", "all"]


def test_refreshing_this_host_keeps_what_is_known_of_the_lan(keeper, network):
    network.put(answer(HERE, 3010, "a"), answer(THERE, 3011, "b"))
    keeper.peers()
    network.remove((HERE, 3010), (THERE, 3011))
    assert ports(keeper.peers(refresh=True, on_host=True)) == []
    assert ports(keeper.peers()) == [3011]


def in_thread(results, function, *args):
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    return thread


def test_threads_that_ask_at_the_same_time_share_one_search(keeper, network):
    network.leave.clear()
    results = []
    threads = [in_thread(results, keeper.peers) for _ in range(8)]
    network.enter.wait(5)
    network.leave.set()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and network.searches == ["all"]


def test_a_refresh_does_not_take_the_result_of_a_search_that_began_before_it(keeper, network):
    network.leave.clear()
    refreshed = []
    first = in_thread([], keeper.peers)
    network.enter.wait(5)
    network.put(answer())
    second = in_thread(refreshed, keeper.peers, True)
    network.leave.set()
    first.join()
    second.join()
    assert ports(refreshed[0]) == [3010] and network.searches == ["all", "all"]


def test_a_failed_search_is_not_remembered(keeper, monkeypatch, network):
    def fail(on_host, known):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "search", fail)
    with pytest.raises(KeyboardInterrupt):
        keeper.peers()
    monkeypatch.setattr(search_module, "search", network.search)
    network.put(answer())
    assert ports(keeper.peers()) == [3010]


@pytest.fixture
def watching(keeper):
    """Watch the keeper, which has searched; gives what the watch is told, one after the other."""
    told = queue.Queue()
    watches = []

    def start():
        keeper.peers()
        watches.append(keeper.watch(lambda change, peer: told.put((change, peer.port))))
        return lambda: told.get(timeout=5)

    yield start
    for watch in watches:
        watch.stop()
    assert told.empty(), "told more than the test expected"


def test_an_announced_peer_is_listed_without_a_search(keeper, network, watching):
    news = watching()
    network.put(answer())
    keeper.look_at((THERE, 3010))
    assert news() == ("came", 3010)
    assert ports(keeper.peers()) == [3010] and network.searches == ["all"]


def test_a_peer_that_said_goodbye_is_listed_no_more(keeper, network, watching):
    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    news = watching()
    assert {news(), news()} == {("came", 3010), ("came", 3011)}
    network.remove((THERE, 3010))
    keeper.look_at((THERE, 3010))
    assert news() == ("left", 3010)
    assert ports(keeper.peers()) == [3011] and keeper.knows((THERE, 3011))


def test_a_forged_goodbye_changes_nothing(keeper, network, watching):
    network.put(answer())
    news = watching()
    assert news() == ("came", 3010)
    keeper._check({(THERE, 3010)}, 1)
    assert ports(keeper.peers()) == [3010]


def test_an_announcement_from_nowhere_changes_nothing(keeper, network, watching):
    watching()
    keeper._check({("10.9.8.7", 3010)}, 1)
    assert ports(keeper.peers()) == []


def test_the_second_address_of_a_known_peer_is_no_second_peer(keeper, network, watching):
    network.put(answer())
    news = watching()
    assert news() == ("came", 3010)
    network.put(answer()._replace(address=("10.0.0.5", 3010)))
    keeper._check({("10.0.0.5", 3010)}, 1)
    assert [peer.host for peer in keeper.peers()] == [THERE]


def test_another_peer_at_the_same_address_leaves_and_comes(keeper, network, watching):
    network.put(answer(instance="a"))
    news = watching()
    assert news() == ("came", 3010)
    network.put(answer(instance="b"))
    keeper.look_at((THERE, 3010))
    assert [news(), news()] == [("left", 3010), ("came", 3010)]


def test_a_watch_searches_by_itself_and_tells_who_is_there(network):
    keeper = PeerCache()
    network.put(answer())
    told = queue.Queue()
    watch = keeper.watch(lambda change, peer: told.put((change, peer.host)))
    assert told.get(timeout=5) == ("came", THERE)
    watch.stop()
    watch.stop()
    network.remove((THERE, 3010))
    keeper.peers(refresh=True)
    assert told.empty()


def test_a_killed_peer_is_noticed_while_somebody_watches(keeper, network, monkeypatch):
    monkeypatch.setattr(cache_module, "WATCH_SECONDS", 0.01)
    network.put(answer())
    told = queue.Queue()
    watch = keeper.watch(lambda change, peer: told.put(change))
    monkeypatch.setattr(cache_module, "LOOKS_PER_SEARCH", 3)
    assert told.get(timeout=5) == "came"
    network.remove((THERE, 3010))
    assert told.get(timeout=5) == "left"
    network.put(answer(port=3012))
    assert told.get(timeout=5) == "came", "where nobody hears a hello, a search is made at times"
    watch.stop()


@pytest.mark.parametrize("problem", [ZeroDivisionError, OSError, NetError])
def test_a_callback_that_raises_is_logged_and_called_again(keeper, network, caplog, problem):
    told = queue.Queue()

    def careless(change, peer):
        told.put(peer.port)
        raise problem

    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    watch = keeper.watch(careless)
    assert {told.get(timeout=5), told.get(timeout=5)} == {3010, 3011}
    watch.stop()
    assert problem.__name__ in caplog.text
    assert {record.levelname for record in caplog.records} == {"ERROR"}


def test_a_callback_may_end_its_own_watch(keeper, network):
    started, ended = threading.Event(), threading.Event()
    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    told = []

    def once(change, peer):
        assert started.wait(5)
        told.append(peer.port)
        watch.stop()
        ended.set()

    watch = keeper.watch(once)
    started.set()
    assert ended.wait(5) and told == [3010]


def test_without_a_thread_news_wait_for_the_next_ones(keeper, network, monkeypatch):
    keeper.peers()
    network.put(answer(port=3011), answer(port=3012))

    class NoThread:
        def __init__(self, **_):
            pass

        def start(self):
            raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module.threading, "Thread", NoThread)
        keeper.look_at((THERE, 3011))
    keeper.look_at((THERE, 3012))
    until(lambda: ports(keeper.peers()) == [3011, 3012])


def test_news_that_nobody_can_look_at_in_time_are_bounded(keeper, network, monkeypatch):
    busy, go_on = threading.Event(), threading.Event()

    def slow(addresses, seconds):
        busy.set()
        assert go_on.wait(5)
        return []

    monkeypatch.setattr(search_module, "look_at", slow)
    before = threading.active_count()
    for number in range(5000):
        keeper.look_at((THERE, number))
    assert busy.wait(5)
    assert len(keeper._pending) <= cache_module.MAX_PENDING
    assert threading.active_count() <= before + 1
    go_on.set()


def test_a_keeper_that_forgets_starts_anew(keeper, network):
    network.put(answer())
    keeper.peers()
    assert keeper.in_use() and keeper.knows((THERE, 3010))
    keeper.forget()
    assert not keeper.in_use() and not keeper.knows((THERE, 3010))
