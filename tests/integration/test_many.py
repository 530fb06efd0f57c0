"""One call, many peers: peers in memory, and processes where one of them is killed."""
from __future__ import annotations

import asyncio
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

import net
import net.testing
import sample
from leaks import open_sockets
from net.calls import aio
from net.process import process as own
from net.testing import LocalPeer
from processes import environment, run_python
from times import patience

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "render_farm.py"


@pytest.fixture(autouse=True)
def no_work(no_leaks: None) -> Iterator[None]:
    """Wait for the threads of a map that was let go: they give their connections back."""
    yield
    deadline = time.monotonic() + patience(5)
    while any(thread.name == "net-many" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@net.connect
def place() -> int:
    """The port of the peer through which it was called."""
    return net.Peer().id.port


@pytest.fixture
def three() -> Iterator[List[LocalPeer]]:
    with net.testing.peers(3, processes=False) as found:
        yield found


@pytest.fixture
def pair() -> Iterator[List[net.PeerId]]:
    with net.testing.peers(2, processes=False) as found:
        yield [peer.id for peer in found]


@pytest.fixture
def connected() -> Iterator[Callable[..., None]]:
    """Connects functions under a name, until the test ends."""
    handles = []
    yield lambda name, function: handles.append(net.connect(name)(function))
    for handle in handles:
        net.disconnect(handle)


def test_any_takes_peers_by_turns_and_leaves_out_those_that_are_gone(three):
    ports = {peer.address[1] for peer in three}
    where = place.any.on(peers=three)
    assert {where() for _ in range(3)} == ports
    three[0].kill()
    assert {where() for _ in range(6)} == ports - {three[0].address[1]}


def test_any_gives_a_call_that_a_killed_peer_ran_to_nobody_else(three, connected):
    running, go_on, found = threading.Event(), threading.Event(), []

    def hang() -> None:
        assert not running.is_set()
        running.set()
        go_on.wait(patience(10))
    connected("hang", hang)

    def call() -> None:
        try:
            net.remote("hang").any.on(peers=three[:2])()
        except net.NetError as problem:
            found.append(problem)
    thread = threading.Thread(target=call)
    thread.start()
    assert running.wait(patience(10))
    three[0].kill()
    thread.join(patience(5))
    go_on.set()
    assert type(found[0]) is net.PeerLost


def test_the_slower_of_two_is_cancelled(pair):
    assert sample.wait.any.on(peers=pair, first=2)(0.05, "value") == "value"


def test_all_runs_on_all_at_the_same_time_and_keeps_errors(pair, connected):
    both = threading.Barrier(2)

    def meet(value: int) -> int:
        both.wait(patience(10))
        return value
    connected("meet", meet)
    assert list(net.remote("meet").all.on(peers=[*pair])(5).values()) == [5, 5]
    failed = sample.fail.all.on(peers=pair)("ValueError", "no")
    assert sorted(failed.errors) == sorted(pair)
    with pytest.raises(ValueError):
        failed[pair[0]]


def test_a_peer_that_hangs_delays_nobody(three):
    three[0].freeze()
    results = place.all.on(peers=[peer.id for peer in three], timeout=patience(0.5))()
    first, second, third = results
    assert third == three[0].id
    assert {results[first], results[second]} == {peer.address[1] for peer in three[1:]}
    assert type(results.errors[third]) is net.CallTimeout


def test_all_awaited(pair):
    async def main():
        return dict(await sample.multiply.all.on(peers=pair)(2, some_kwarg=3))
    assert asyncio.run(main()) == {pair[0]: 6, pair[1]: 6}


def test_a_coroutine_that_waits_for_its_own_loop_fails(sample_process):
    process = sample_process("""
waits = {"start": lambda peers: multiply.start(2, peer=peers[0]).result(),
         "first": lambda peers: multiply.any.on(peers=[*peers, net.Peer()], first=2)(2),
         "all": lambda peers: list(multiply.all.on(peers=peers)(2))}

@net.connect("wait")
async def wait_there(how, peers):
    return waits[how](peers)

@net.connect("await")
async def await_there(peers):
    return len(await multiply.all.on(peers=peers)(2)), await multiply.start(2, peer=peers[0])
""")
    peers = [sample_process().id]
    for how in ("start", "first", "all"):
        with pytest.raises(RuntimeError, match="has to await"):
            net.remote("wait").on(process.id, timeout=patience(10))(how, peers)
    assert net.remote("await")(peers, peer=process.id) == (1, 10)


def test_connections_of_started_calls_are_closed_when_nobody_uses_them(pair, monkeypatch):
    monkeypatch.setattr(aio, "IDLE_TIME", 0.2)
    before = open_sockets()
    assert list(sample.multiply.all.on(peers=pair)(2).values()) == [10, 10]
    pools = own.client.by_loop[own.client.own_loop]._pools
    opened = [pool for pool in pools.values() if pool._open]
    assert len(opened) == 2
    deadline = time.monotonic() + patience(5)
    # What wakes the event loop stays.
    while any(pool._open for pool in opened) or len(open_sockets() - before) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_map_spreads_calls_in_order(pair):
    multiply = sample.multiply.map.on(peers=pair)
    assert list(multiply(range(50))) == [5 * number for number in range(50)]
    assert sorted(multiply(range(50), itertools.repeat(2), in_order=False, chunk=5)) == \
        [2 * number for number in range(50)]
    assert list(itertools.islice(multiply(itertools.count()), 3)) == [0, 5, 10]


def test_peers_killed_during_a_map_of_repeatable_calls_lose_nothing():
    with net.testing.peers(3, app="sample") as others:
        names = [f"task {number}" for number in range(60)]
        mapped = sample.count.map.on(repeatable=True, peers=others)(names, itertools.repeat(0.01))
        values = [next(mapped) for _ in range(6)]
        others[0].kill()
        values += mapped
        assert values == [1] * 60
        # On those that are left, none ran twice; what they did not run, the killed one had done.
        ran = [sum(sample.counted(name, peer=peer) for peer in others[1:]) for name in names]
        assert max(ran) == 1 and sum(ran) >= 54 - 1


def test_what_was_lost_ends_a_map_that_is_not_repeatable(three, connected):
    running, go_on = threading.Event(), threading.Event()

    def hang(_number: int) -> None:
        running.set()
        go_on.wait(patience(10))
    connected("hang", hang)
    mapped = net.remote("hang").map.on(peers=three[:1])([1, 2])

    def kill() -> None:
        assert running.wait(patience(10))
        three[0].kill()
    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(net.PeerLost):
        next(mapped)
    go_on.set()
    thread.join()


def test_closing_a_map_cancels_what_runs(pair, connected):
    said: queue.Queue = queue.Queue()

    def until_cancelled(number: int) -> None:
        said.put("begun")
        while number and not net.cancelled():
            time.sleep(0.01)
        said.put("ended")
    connected("until cancelled", until_cancelled)
    values = net.remote("until cancelled").map.on(peers=pair[:1])(itertools.count())
    next(values)
    assert [said.get(timeout=patience(5)) for _ in range(3)] == ["begun", "ended", "begun"]
    values.close()
    assert said.get(timeout=patience(5)) == "ended"


def test_a_timeout_of_a_map_cancels_what_runs(pair, connected):
    said: queue.Queue = queue.Queue()

    begun = threading.Event()

    def until_cancelled(number: int) -> None:
        begun.set()
        while not net.cancelled():
            time.sleep(0.01)
        said.put(net.remaining())
    connected("until cancelled", until_cancelled)
    for seconds in (0.3, 3, 30):  # on a busy machine it may be over before anything runs
        values = net.remote("until cancelled").map.on(peers=pair[:1], timeout=seconds)([1])
        with pytest.raises(net.CallTimeout):
            next(values)
        if begun.is_set():
            break
    assert said.get(timeout=patience(5)) == 0.0


def test_what_is_lent_and_generators_work_in_all_ways(pair, connected):
    def count_up_there(number, progress):
        for step in range(number):
            progress(step)
        return number

    def items_there(number):
        yield from range(number)

    async def async_items_there(number):
        for item in range(number):
            yield item
    connected("count up", count_up_there)
    connected("items", items_there)
    connected("async items", async_items_there)
    peer = pair[0]
    steps = []
    count_up = net.remote("count up")
    assert count_up.any.on(peers=[peer])(3, steps.append) == 3
    assert count_up.all.on(peers=[peer])(3, steps.append)[peer] == 3
    assert list(count_up.map.on(peers=[peer])([3], [steps.append])) == [3]
    assert steps == 3 * [0, 1, 2]

    @net.remote("items")
    def items(number):
        yield

    assert list(items.any.on(peers=[peer])(3)) == [0, 1, 2]
    assert list(items.all.on(peers=[peer])(3)[peer]) == [0, 1, 2]
    assert [list(each) for each in items.map.on(peers=[peer])([3, 2])] == [[0, 1, 2], [0, 1]]
    # What is not declared as a generator function is one all the same.
    undeclared = net.remote("items").map.on(peers=[peer])
    assert [list(each) for each in undeclared([3, 0, 2], chunk=3)] == [[0, 1, 2], [], [0, 1]]

    @net.remote("async items")
    async def async_items(number):
        yield

    async def main():
        assert [item async for item in async_items.any.on(peers=[peer])(3)] == [0, 1, 2]
        return [[item async for item in each]
                async for each in async_items.map.on(peers=pair)([3, 0, 2])]
    assert asyncio.run(main()) == [[0, 1, 2], [], [0, 1]]


def test_an_executor_of_peers(pair):
    with net.Executor(peers=pair) as executor:
        assert {executor.submit(place).result() for _ in range(8)} <= {peer.port for peer in pair}
        assert list(executor.map(sample.echo, "abc")) == ["a", "b", "c"]
        with pytest.raises(ZeroDivisionError):
            executor.submit(sample.fail, "ZeroDivisionError").result()


def test_an_executor_of_peers_serves_an_event_loop(pair):
    async def main():
        loop = asyncio.get_running_loop()
        with net.Executor(peers=pair) as executor:
            return await asyncio.gather(*[
                loop.run_in_executor(executor, sample.multiply, number) for number in range(20)])
    assert asyncio.run(main()) == [5 * number for number in range(20)]


def test_joblib_runs_on_peers(pair):
    joblib = pytest.importorskip("joblib", "1.3")
    net.register_joblib()
    with joblib.parallel_config("net", peers=pair):
        assert joblib.Parallel()(joblib.delayed(sample.multiply)(n, some_kwarg=3)
                                 for n in range(20)) == [3 * n for n in range(20)]
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()([joblib.delayed(sample.fail)("ZeroDivisionError")])


def test_waiting_for_peers(sample_process, port_range):
    script = f"""
import net, sample
try:
    sample.echo.peers(at_least=3, timeout={patience(0.3)})
except net.TooFewPeers as problem:
    said = problem.found, problem.wanted, "found" in str(problem)
    assert "others" not in str(problem)
for look, why in ((net.remote("nowhere").peers, "that do not have it, or were not asked for: 1; "),
                  (lambda **terms: net.peers("nobody", **terms), "that were not asked for: 1; ")):
    try:
        look(at_least=1, timeout=0.01)
    except net.TooFewPeers as problem:
        assert f"others are known {{why}}the last search found " in str(problem), str(problem)
print(*said, flush=True)
peers = sample.echo.peers(at_least=2, timeout={patience(15)})
print(len(peers), sorted(sample.echo.all("x").values()),
      len(net.peers(at_least=2, timeout={patience(5)})))
"""
    sample_process()
    asks = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                            env=environment(NET_PORT_START=port_range.start))
    try:
        assert asks.stdout.readline() == "1 3 True\n"
        sample_process()
        assert asks.stdout.read() == "2 ['x', 'x'] 2\n"
    finally:
        asks.kill()
        asks.communicate()


def test_the_render_farm_of_the_examples(port_range):
    workers = [subprocess.Popen([sys.executable, str(EXAMPLE), "work"],
                                env=environment(NET_PORT_START=port_range.start))
               for _ in range(2)]
    try:
        done = run_python(str(EXAMPLE), "render", "30", timeout=30,
                          NET_PORT_START=port_range.start)
    finally:
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            assert worker.wait(patience(10)) == 0
    lines = done.stdout.splitlines()
    assert [line.split(" by ")[0] for line in lines[:-1]] == [f"frame {n}" for n in range(30)]
    assert lines[-1].startswith("30 frames by ")
