"""One call, many peers, between real processes."""
from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

import net
import sample
from leaks import open_sockets
from net.calls import aio
from net.process import process as own
from ports import PortRange
from processes import PeerProcess, environment, run_python
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


@pytest.fixture
def others(sample_process: Callable[..., PeerProcess]) -> List[PeerProcess]:
    return [sample_process() for _ in range(3)]


@pytest.fixture
def peers(others: List[PeerProcess]) -> List[net.PeerId]:
    return [net.PeerId(process.id) for process in others]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[List[net.PeerId]]:
    """Two peers that the tests leave as they are."""
    held = PortRange()
    started = []
    try:
        for number in range(2):
            folder = tmp_path_factory.mktemp(f"pair{number}")
            started.append(PeerProcess("from sample import *\n", folder,
                                       {"NET_PORT_START": held.ports.start}))
        yield [net.PeerId(process.id) for process in started]
    finally:
        for process in started:
            process.stop()
        held.close()


def test_any_takes_peers_by_turns_and_leaves_out_those_that_are_gone(others, peers):
    pids = {process.pid for process in others}
    where = sample.where.any.on(peers=peers)
    assert {where() for _ in range(3)} == pids
    others[0].kill()
    assert {where() for _ in range(6)} == pids - {others[0].pid}


def test_any_gives_a_call_that_a_killed_peer_ran_to_nobody_else(others, peers):
    found = []

    def call() -> None:
        try:
            sample.hang.any.on(peers=[peers[0], peers[1]])(30)
        except net.NetError as problem:
            found.append(problem)
    thread = threading.Thread(target=call)
    thread.start()
    assert others[0].read_line() == "running"
    others[0].kill()
    thread.join(patience(5))
    assert type(found[0]) is net.PeerLost


def test_the_slower_of_two_is_cancelled(pair):
    assert sample.wait.any.on(peers=pair, first=2)(0.05, "value") == "value"


def test_all_takes_as_long_as_one_and_keeps_errors(pair):
    started = time.monotonic()
    results = sample.wait.all.on(peers=[*pair])(0.3, 5)
    assert list(results.values()) == [5, 5]
    assert time.monotonic() - started < patience(0.55)
    failed = sample.fail.all.on(peers=pair)("ValueError", "no")
    assert sorted(failed.errors) == sorted(pair)
    with pytest.raises(ValueError):
        failed[pair[0]]


def test_a_peer_that_hangs_delays_nobody(others, peers):
    others[0].signal(signal.SIGSTOP)
    results = sample.where.all.on(peers=peers, timeout=1)()
    first, second, third = results
    assert third == peers[0] and {results[first], results[second]} == \
        {others[1].pid, others[2].pid}
    assert type(results.errors[peers[0]]) is net.CallTimeout


def test_all_awaited(pair):
    async def main():
        return dict(await sample.multiply.all.on(peers=pair)(2, some_kwarg=3))
    assert asyncio.run(main()) == {pair[0]: 6, pair[1]: 6}


def test_connections_of_started_calls_are_closed_when_nobody_uses_them(pair, monkeypatch):
    monkeypatch.setattr(aio, "IDLE_TIME", 0.2)
    before = open_sockets()
    assert list(sample.multiply.all.on(peers=pair)(2).values()) == [10, 10]
    pools = own.client.by_loop[own.client.own_loop]._pools
    opened = [pool for pool in pools.values() if pool._open]
    assert len(opened) == 2
    deadline = time.monotonic() + patience(5)
    while any(pool._open for pool in opened) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(pool._open for pool in opened)
    assert len(open_sockets() - before) <= 2  # what wakes the event loop


def test_map_spreads_calls_in_order(pair):
    multiply = sample.multiply.map.on(peers=pair)
    assert list(multiply(range(50))) == [5 * number for number in range(50)]
    assert sorted(multiply(range(50), itertools.repeat(2), in_order=False, chunk=5)) == \
        [2 * number for number in range(50)]
    assert list(itertools.islice(multiply(itertools.count()), 3)) == [0, 5, 10]


def test_peers_killed_during_a_map_of_repeatable_calls_lose_nothing(others, peers):
    names = [f"task {number}" for number in range(60)]
    mapped = sample.count.map.on(repeatable=True, peers=peers)(names, itertools.repeat(0.01))
    values = [next(mapped) for _ in range(6)]
    others[0].kill()
    values += mapped
    assert values == [1] * 60
    # On those that are left, none ran twice; what they did not run, the killed one had done.
    ran = [sum(sample.counted(name, peer=peer) for peer in peers[1:]) for name in names]
    assert max(ran) == 1 and sum(ran) >= 54 - 1


def test_what_was_lost_ends_a_map_that_is_not_repeatable(others, peers):
    mapped = sample.hang.map.on(peers=peers[:1])([30, 30])
    thread = threading.Thread(target=lambda: (others[0].read_line(), others[0].kill()))
    thread.start()
    with pytest.raises(net.PeerLost):
        next(mapped)
    thread.join()


def test_closing_a_map_cancels_what_runs(sample_process):
    process = sample_process("""
@net.connect("until cancelled")
def until_cancelled(number):
    print("begun", flush=True)
    while number and not net.cancelled():
        time.sleep(0.01)
    print("ended", flush=True)
""")
    values = net.remote("until cancelled").map.on(peers=[process.id])(itertools.count())
    next(values)
    assert [process.read_line() for _ in range(3)] == ["begun", "ended", "begun"]
    values.close()
    assert process.read_line() == "ended"


def test_a_timeout_of_a_map_cancels_what_runs(sample_process):
    process = sample_process("""
@net.connect("until cancelled")
def until_cancelled(number):
    while not net.cancelled():
        time.sleep(0.01)
    print("cancelled", net.remaining(), flush=True)
""")
    values = net.remote("until cancelled").map.on(peers=[process.id], timeout=0.3)([1])
    with pytest.raises(net.CallTimeout):
        next(values)
    assert process.read_line() == "cancelled 0.0"


def test_what_is_lent_and_generators_work_in_all_ways(sample_process):
    peer = sample_process("""
@net.connect("count up")
def count_up(number, progress):
    for step in range(number):
        progress(step)
    return number

@net.connect("items")
def items(number):
    yield from range(number)

@net.connect("async items")
async def async_items(number):
    for item in range(number):
        yield item
""").id
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
        return [item async for item in async_items.any.on(peers=[peer])(3)]
    assert asyncio.run(main()) == [0, 1, 2]


def test_an_executor_of_peers(pair):
    with net.Executor(peers=pair) as executor:
        assert {executor.submit(sample.where).result() for _ in range(8)} <= \
            {sample.where(peer=peer) for peer in pair}
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
    print(problem.found, problem.wanted, "found" in str(problem), flush=True)
peers = sample.echo.peers(at_least=2, timeout={patience(15)})
print(len(peers), sorted(sample.echo.all("x").values()), len(net.peers(at_least=2, timeout=5)))
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
