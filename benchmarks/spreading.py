"""Small tasks spread over four processes: ``f.map`` and ``net.Executor`` compared with process
pools.

    python -m benchmarks.spreading [--rounds 5]

What is shown is the time of the whole work divided by the number of tasks: the task itself, which
keeps a core busy, on as many cores as there are, and what spreading it adds. ``python -m
benchmarks`` has these rows, too.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Callable, Iterator

from . import report
from .measure import Result, interleave
from .processes import PROJECT, Refused

PROCESSES = 4
#: Name of the work, seconds of a task, tasks.
WORKS = (("0.1 ms", 0.0001, 10_000), ("5 ms", 0.005, 1_000))
#: Does all tasks, which are given as a list of the seconds of each.
Spread = Callable[["list[float]"], Any]


def spin(seconds: float) -> float:
    """Keep a core busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def connected() -> Any:
    import net

    return net.connect("spin")(spin)


def serve() -> None:
    import net

    connected()
    print(net.Peer().id.decode(), flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def app_net() -> Iterator[dict[str, Spread]]:
    # Before net is imported, which reads it.
    os.environ["NET_HOST"] = "127.0.0.1"
    processes = [subprocess.Popen([sys.executable, "-m", "benchmarks.spreading", "--serve"],
                                  cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                 for _ in range(PROCESSES)]
    try:
        import net

        peers = [net.PeerId(process.stdout.readline().strip()) for process in processes]
        function = connected()
        with net.Executor(peers=peers) as executor:
            yield {
                "app-net map": lambda tasks: list(function.map.on(peers=peers)(tasks)),
                "app-net map, chunk=16":
                    lambda tasks: list(function.map.on(peers=peers)(tasks, chunk=16)),
                "app-net Executor": lambda tasks: _submit(executor, function, tasks),
            }
    finally:
        for process in processes:
            process.stdin.close()
            process.stdout.close()
            process.wait()


@contextlib.contextmanager
def process_pool() -> Iterator[dict[str, Spread]]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield {
            "ProcessPoolExecutor.submit": lambda tasks: _submit(pool, spin, tasks),
            "ProcessPoolExecutor.map": lambda tasks: list(pool.map(spin, tasks)),
            "ProcessPoolExecutor.map, chunksize=16":
                lambda tasks: list(pool.map(spin, tasks, chunksize=16)),
        }


@contextlib.contextmanager
def dask() -> Iterator[dict[str, Spread]]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as problem:
        raise Refused(str(problem)) from None
    with LocalCluster(n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None,
                      host="127.0.0.1") as cluster, Client(cluster) as client:
        yield {"Dask map": lambda tasks: client.gather(client.map(spin, tasks, pure=False))}


@contextlib.contextmanager
def ray() -> Iterator[dict[str, Spread]]:
    try:
        import ray
    except ImportError as problem:
        raise Refused(str(problem)) from None
    try:
        ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False,
                 logging_level="ERROR", _node_ip_address="127.0.0.1")
    except Exception as problem:  # it waits half a minute, which a busy machine may take
        raise Refused(str(problem)) from None
    try:
        remote = ray.remote(spin)
        yield {"Ray remote": lambda tasks: ray.get([remote.remote(seconds) for seconds in tasks])}
    finally:
        ray.shutdown()


SYSTEMS = {"ProcessPoolExecutor": process_pool, "app-net": app_net, "Dask": dask, "Ray": ray}


def _submit(executor: Executor, function: Any, tasks: list[float]) -> list[float]:
    futures = [executor.submit(function, seconds) for seconds in tasks]
    return [future.result() for future in futures]


def measured(spread: Spread, tasks: list[float]) -> float:
    """Seconds for each task."""
    started = time.perf_counter()
    spread(tasks)
    return (time.perf_counter() - started) / len(tasks)


def run(rounds: int, share: float = 1.0) -> Iterator[Result]:
    with contextlib.ExitStack() as stack:
        ways: dict[str, Spread] = {}
        refusals: dict[str, str] = {}
        for name, system in SYSTEMS.items():
            try:
                ways.update(stack.enter_context(system()))
            except Refused as problem:
                refusals[name] = str(problem)
        for spread in ways.values():
            spread([0.0] * (8 * PROCESSES))  # until all processes are there
        for work, seconds, count in WORKS:
            tasks = [seconds] * max(1, int(count * share))
            result = Result(f"spread-{work}", f"{len(tasks):,} tasks of {work} over {PROCESSES} "
                            f"processes, each", "µs", baseline="ProcessPoolExecutor.submit",
                            refusals=dict(refusals))
            yield interleave(result, {way: lambda spread=spread, tasks=tasks:
                                      measured(spread, tasks) for way, spread in ways.items()},
                             rounds, 1e6)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spreading", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the tasks")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return
    report.show(run(options.rounds, options.share))


if __name__ == "__main__":
    main(sys.argv[1:])
