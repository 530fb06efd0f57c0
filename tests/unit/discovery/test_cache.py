"""The cache: when it searches, what changes it, and who is told."""
from __future__ import annotations

import asyncio
import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from net.calls.ways import place_of
from net.discovery import cache as cache_module
from net.discovery import search as search_module
from net.discovery.cache import PeerCache
from net.discovery.report import Report
from net.discovery.search import Outcome
from net.discovery.answers import Answer
from net.executors import MainThread
from net.log import DISCOVERY, RateLimitedLog
from net.process import process
from hearing import until
from times import patience

HERE = "127.0.0.1"
THERE = "192.168.1.20"


def answer(host=THERE, port=3010, instance="i", **facts):
    said = {"instance": instance, "host": host, "port": port, "group": None, **facts}
    return Answer((host, port), said, "test", 0.001, 0.0, "", None, 100)


class Network:
    """What searches find: a set of answers that the test changes."""

    def __init__(self):
        self.answers = {}
        self.searches = []
        self.refuses = True
        self.enter = threading.Event()
        self.leave = threading.Event()
        self.leave.set()

    def put(self, *answers):
        self.answers.update({one.address: one for one in answers})

    def remove(self, *addresses):
        for address in addresses:
            del self.answers[address]

    def search(self, finders, on_host, known):
        self.searches.append("host" if on_host else "all")
        found = [one for one in self.answers.values() if not on_host or one.address[0] == HERE]
        self.enter.set()
        assert self.leave.wait(patience(5))
        there = {one.address for one in found}
        missing = {address for address in known if address not in there}
        gone = missing if self.refuses else set()
        return Outcome(found, {HERE}, Report(), gone, missing - gone)


class FakeFinder:
    """Writes down what a finder is told."""

    def __init__(self):
        self.until, self.doubted, self.forgotten = [], [], 0
        self.gained, self.lost = [], []

    def watch(self, until):
        self.until.append(until)

    def listed(self, answers, gone):
        self.gained += [one.address for one in answers]
        self.lost += list(gone)

    def doubt(self, address):
        self.doubted.append(address)

    def forget(self):
        self.forgotten += 1


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(search_module, "search", network.search)
    return network


@pytest.fixture
def finder():
    return FakeFinder()


@pytest.fixture
def cache(network, finder, monkeypatch):
    # As in a process that serves no peer.
    monkeypatch.setattr(process, "peer", None)
    cache = PeerCache(process)
    cache.finders.append(finder)
    return cache


def ports(listing):
    return [peer.port for peer in listing]


def test_a_list_is_made_again_only_after_a_change(cache, network):
    network.put(answer(), answer(HERE, 3011, "j"))
    listed, here = cache.peers(), cache.peers(on_host=True)
    assert cache.peers() is listed and cache.peers(on_host=True) is here
    assert (ports(listed), ports(here)) == ([3011, 3010], [3011])
    cache.learn([answer(port=3012, instance="k")])
    assert ports(cache.peers()) == [3011, 3010, 3012] and ports(listed) == [3011, 3010]
    cache.drop((HERE, 3011))
    assert ports(cache.peers(on_host=True)) == [] and ports(cache.peers()) == [3010, 3012]


def test_the_first_call_searches_and_later_ones_do_not(cache, network):
    network.put(answer())
    assert ports(cache.peers()) == ports(cache.peers()) == [3010]
    assert network.searches == ["all"]


def test_refresh_searches_again(cache, network):
    cache.peers()
    network.put(answer())
    assert ports(cache.peers()) == [] and ports(cache.peers(refresh=True)) == [3010]


def test_an_empty_result_is_remembered_too(cache, network):
    cache.peers()
    cache.peers()
    assert network.searches == ["all"]


def test_a_peer_that_comes_too_late_for_a_search_is_kept(cache, network):
    network.leave.clear()
    searching = threading.Thread(target=cache.peers)
    searching.start()
    assert network.enter.wait(patience(5))
    cache.learn([answer(port=3011)])
    network.leave.set()
    searching.join(patience(5))
    assert ports(cache.peers()) == [3011]


def test_a_search_of_this_host_does_not_stand_for_one_of_the_lan(cache, network):
    network.put(answer(HERE, 3010, "a"), answer(THERE, 3011, "b"))
    assert ports(cache.peers(on_host=True)) == [3010]
    assert ports(cache.peers(on_host=True)) == [3010]
    assert ports(cache.peers()) == [3010, 3011]
    assert ports(cache.peers(on_host=True)) == [3010]
    assert network.searches == ["host", "all"]


def test_refreshing_this_host_keeps_what_is_known_of_the_lan(cache, network):
    network.put(answer(HERE, 3010, "a"), answer(THERE, 3011, "b"))
    cache.peers()
    network.remove((HERE, 3010), (THERE, 3011))
    assert ports(cache.peers(refresh=True, on_host=True)) == []
    assert ports(cache.peers()) == [3011]


def in_thread(results, function, *args):
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    return thread


def test_threads_that_ask_at_the_same_time_share_one_search(cache, network):
    network.leave.clear()
    results = []
    threads = [in_thread(results, cache.peers) for _ in range(8)]
    network.enter.wait(patience(5))
    network.leave.set()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and network.searches == ["all"]


def test_a_refresh_does_not_take_the_result_of_a_search_that_began_before_it(cache, network):
    network.leave.clear()
    refreshed = []
    first = in_thread([], cache.peers)
    network.enter.wait(patience(5))
    network.put(answer())
    second = in_thread(refreshed, cache.peers, True)
    network.leave.set()
    first.join()
    second.join()
    assert ports(refreshed[0]) == [3010] and network.searches == ["all", "all"]


def test_a_failed_search_is_not_remembered(cache, monkeypatch, network):
    def fail(finders, on_host, known):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "search", fail)
    with pytest.raises(KeyboardInterrupt):
        cache.peers()
    monkeypatch.setattr(search_module, "search", network.search)
    network.put(answer())
    assert ports(cache.peers()) == [3010]


# ----------------------------------------------------------------------------- changes

def test_a_peer_that_refuses_is_listed_no_more_and_a_silent_one_only_if_nobody_looks_after_it(
        cache, network, finder):
    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    cache.peers()
    network.refuses = False
    network.remove((THERE, 3010))
    assert ports(cache.peers(refresh=True)) == [3011] and not finder.doubted
    with cache._lock:
        cache._keep(float("inf"))
    network.remove((THERE, 3011))
    assert ports(cache.peers(refresh=True)) == [3011] and finder.doubted == [(THERE, 3011)]
    network.refuses = True
    assert ports(cache.peers(refresh=True)) == []


def test_a_peer_that_a_finder_has_found_is_listed_without_a_search(cache, network, finder):
    cache.peers()
    cache.learn([answer()])
    assert ports(cache.peers()) == [3010] and network.searches == ["all"]
    assert finder.gained == [(THERE, 3010)] and cache.knows((THERE, 3010))
    cache.drop((THERE, 3010))
    assert ports(cache.peers()) == [] and finder.lost == [(THERE, 3010)]


def test_the_second_address_of_a_known_peer_is_no_second_peer(cache):
    cache.peers()
    cache.learn([answer()])
    cache.learn([answer()._replace(address=("10.0.0.5", 3010))])
    assert [peer.host for peer in cache.peers()] == [THERE]


def test_the_address_that_a_peer_claims_takes_the_place_of_another(cache):
    cache.peers()
    cache.learn([answer()._replace(address=("10.0.0.5", 3010))])
    assert [peer.host for peer in cache.peers()] == ["10.0.0.5"]
    cache.learn([answer()])
    assert [peer.host for peer in cache.peers()] == [THERE]


def test_another_process_at_the_same_address_takes_the_place(cache, finder):
    cache.peers()
    cache.learn([answer(instance="a")])
    cache.learn([answer(instance="b")])
    assert [peer.info["instance"] for peer in cache.peers()] == ["b"]
    assert finder.gained == [(THERE, 3010)] * 2 and finder.lost == []


def test_what_is_no_introduction_is_not_listed(cache):
    cache.peers()
    cache.learn([answer(group=5)])
    assert ports(cache.peers()) == []


@pytest.mark.parametrize("hosts, size, limit", [
    (1, 100, cache_module.MAX_HOST_PEERS), (1, 60_000, cache_module.MAX_HOST_BYTES // 60_000),
    (100, 100, cache_module.MAX_PEERS), (100, 60_000, cache_module.MAX_BYTES // 60_000)])
def test_the_list_is_bounded_in_peers_and_bytes_and_by_host(cache, hosts, size, limit):
    cache.peers()
    for number in range(limit + 100):
        host, port = f"192.168.1.{number % hosts + 20}", 3010 + number // hosts
        cache.learn([answer(host, port, str(number))._replace(size=size)])
    assert len(cache.peers()) == limit
    one = cache.peers()[0]
    cache.learn([answer(one.host, one.port, one.info["instance"], program="new")._replace(
        size=size)])
    assert cache.peers()[0].info["program"] == "new", "who is listed can be listed anew"
    cache.drop(one.address)
    cache.learn([answer(one.host, one.port, "late")._replace(size=size)])
    assert len(cache.peers()) == limit


def test_the_report_names_what_found_no_room(cache, network, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_PEERS", 1)
    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    found = cache.peers()
    assert len(found) == 1 and "too many peers" in found.report.dropped[0][1]


# ----------------------------------------------------------------------------- being kept true

class Serving:
    launched = True


def test_a_process_that_serves_has_its_list_kept_true_for_a_while(cache, finder, monkeypatch):
    cache.peers()
    assert finder.until == []
    monkeypatch.setattr(process, "peer", Serving())
    now = cache_module.monotonic()
    for _ in range(100):
        cache.peers()
    until, = finder.until
    assert 0 <= until - now - cache_module.USED_SECONDS < 5


def test_a_list_that_was_kept_true_and_is_no_more_is_searched_anew(cache, network, monkeypatch):
    monkeypatch.setattr(process, "peer", Serving())
    monkeypatch.setattr(cache_module, "USED_SECONDS", 0.2)
    cache.peers()
    cache.peers()
    assert network.searches == ["all"]
    threading.Event().wait(0.3)
    cache.peers()
    assert network.searches == ["all", "all"]


def test_as_long_as_somebody_watches_it_is_kept_true(cache, finder):
    one, other = cache.watch(print), cache.watch(print)
    until(lambda: len(cache._watches) == 2)
    assert finder.until == [float("inf")]
    one.stop()
    assert finder.until == [float("inf")]
    other.stop()
    assert finder.until == [float("inf"), 0.0]


@pytest.fixture
def watching(cache):
    """Watch the cache, which has searched; gives what the watch is told, one after the other."""
    told = queue.Queue()
    watches = []

    def start():
        cache.peers()
        watches.append(cache.watch(lambda change, peer: told.put((change, peer.port))))
        until(lambda: cache._watches)
        return lambda: told.get(timeout=patience(5))

    yield start
    for watch in watches:
        watch.stop()
    assert told.empty(), "told more than the test expected"


def test_a_watch_is_told_which_peers_come_and_go(cache, network, watching):
    network.put(answer(port=3010, instance="a"))
    news = watching()
    assert news() == ("came", 3010)
    cache.learn([answer(port=3011, instance="b")])
    assert news() == ("came", 3011)
    cache.drop((THERE, 3010))
    assert news() == ("left", 3010)
    cache.learn([answer(port=3011, instance="b", program="other")])
    cache.drop((THERE, 3011))
    assert news() == ("left", 3011), "what it says of itself may change"


def test_another_peer_at_the_same_address_leaves_and_comes(cache, network, watching):
    network.put(answer(instance="a"))
    news = watching()
    assert news() == ("came", 3010)
    cache.learn([answer(instance="b")])
    assert [news(), news()] == [("left", 3010), ("came", 3010)]


def test_a_watch_searches_by_itself_and_is_told_no_more_when_it_ended(cache, network):
    network.put(answer())
    told = queue.Queue()
    watch = cache.watch(lambda change, peer: told.put((change, peer.host)))
    assert told.get(timeout=patience(5)) == ("came", THERE)
    watch.stop()
    watch.stop()
    cache.drop((THERE, 3010))
    assert told.empty()


class Unprintable(OSError):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize("problem", [ZeroDivisionError, SystemExit, KeyboardInterrupt, OSError,
                                     Unprintable])
def test_a_callback_that_raises_is_logged_and_called_again(cache, network, caplog, problem,
                                                           monkeypatch):
    monkeypatch.setattr(cache_module, "note", RateLimitedLog(logging.getLogger(DISCOVERY), 10))
    told = queue.Queue()

    def careless(change, peer):
        told.put(peer.port)
        raise problem

    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    watch = cache.watch(careless)
    assert {told.get(timeout=patience(5)), told.get(timeout=patience(5))} == {3010, 3011}
    watch.stop()
    assert problem.__name__ in caplog.text or problem is Unprintable


def test_a_callback_may_end_its_own_watch(cache, network):
    started, ended = threading.Event(), threading.Event()
    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    told = []

    def once(change, peer):
        assert started.wait(patience(5))
        told.append(peer.port)
        watch.stop()
        ended.set()

    watch = cache.watch(once)
    started.set()
    assert ended.wait(patience(5)) and told == [3010]


def test_a_callback_runs_in_its_executor_and_may_end_its_own_watch_there(cache, network):
    told, started = queue.Queue(), threading.Event()

    def once(change, peer):
        assert started.wait(patience(5))
        watch.stop()
        told.put((peer.port, threading.current_thread().name))

    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    with ThreadPoolExecutor(1, thread_name_prefix="one") as executor:
        watch = cache.watch(once, place_of(process, once, executor))
        started.set()
        assert told.get(timeout=patience(5)) == (3010, "one_0")
    watch._thread.join(patience(5))
    assert not watch._thread.is_alive() and told.empty()


def test_a_watch_is_ended_where_its_callback_would_run(cache, network):
    main, told = MainThread(), []

    def tell(change, peer):
        told.append(peer.port)

    network.put(answer(port=3010, instance="a"), answer(port=3011, instance="b"))
    watch = cache.watch(tell, place_of(process, tell, main))
    until(lambda: main.run_pending(0.1))
    until(lambda: main._queue)
    watch.stop()
    watch._thread.join(patience(5))
    assert not watch._thread.is_alive()
    main.run_pending()
    assert told == [3010]


def test_a_coroutine_function_is_awaited_by_a_watch(cache, network):
    told = queue.Queue()

    async def tell(change, peer):
        await asyncio.sleep(0)
        told.put((change, peer.port))

    network.put(answer(port=3010))
    watch = cache.watch(tell, place_of(process, tell, None))
    assert told.get(timeout=patience(5)) == ("came", 3010)
    watch.stop()


def test_a_doubt_goes_to_all_finders(cache, finder):
    cache.doubt((THERE, 3010))
    assert finder.doubted == [(THERE, 3010)]


def test_a_cache_that_forgets_starts_anew_with_its_finders(cache, network, finder):
    network.put(answer())
    cache.peers()
    assert cache.knows((THERE, 3010))
    cache.forget()
    assert not cache.knows((THERE, 3010)) and finder.forgotten == 1
    cache.peers()
    assert network.searches == ["all", "all"] and cache.finders == [finder]
