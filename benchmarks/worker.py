"""What runs in the processes of a benchmark: ``python -m benchmarks.worker ROLE NAME ...``.

A worker answers each line of JSON on its standard input with one on its standard output, and ends
when its input does, so that nothing is left behind when the parent dies.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import threading
import time
import timeit
from typing import Any, Callable, Optional

from . import events, payloads
from .systems import SYSTEMS, Calls, System, app_net
from .systems.base import multiply


#: Seconds for opening connections that are to be held. multiprocessing takes 44 ms for each.
HOLDING = 60.0
#: Seconds after which a rate of connections is known well enough.
BRIEF = 5.0


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def repeat_calls(calls: Calls, count: int) -> None:
    multiply = calls.multiply
    for number in range(count):
        if multiply(number, 3) != number * 3:
            raise ValueError("a wrong result")


class Crowd:
    """Threads that call at the same time."""

    def __init__(self, client: "Client", count: int) -> None:
        self._client = client
        self._start = threading.Barrier(count + 1)
        self._stop = threading.Event()
        self._made: list[int] = []
        self._problems: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def work(self, seconds: float) -> float:
        """Calls per second of all together."""
        for thread in self._threads:
            thread.start()
        with contextlib.suppress(threading.BrokenBarrierError):
            self._start.wait(60)
        start = time.perf_counter()
        self._stop.wait(seconds if not self._problems else 0)
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        elapsed = time.perf_counter() - start
        if self._problems:
            raise self._problems[0]
        if len(self._made) < len(self._threads):
            raise TimeoutError("a thread did not finish")
        return sum(self._made) / elapsed

    def _run(self) -> None:
        system = self._client.system
        try:
            calls = self._client.calls if system.shared else system.connect(self._client.port)
            repeat_calls(calls, 5)
            self._start.wait(60)
            made = 0
            while not self._stop.is_set():
                repeat_calls(calls, 20)
                made += 20
            self._made.append(made)
            if not system.shared:
                calls.close()
        except BaseException as problem:
            self._problems.append(problem)
            self._start.abort()


class Client:
    """The works, seen from the calling process. Each method returns one measured number."""

    def __init__(self, system: System, port: int) -> None:
        self.system = system
        self.port = port
        self.calls = system.connect(port)
        self.held: list[Calls] = []

    def small(self, count: int) -> float:
        """Seconds per call."""
        repeat_calls(self.calls, min(50, count))
        start = time.perf_counter()
        repeat_calls(self.calls, count)
        return (time.perf_counter() - start) / count

    def echo(self, kind: str, size: int, count: int) -> float:
        """Seconds for a value to go there and come back: median of ``count``."""
        value = payloads.make(kind, size)
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            reply = self.calls.echo(value)
            taken.append(time.perf_counter() - start)
            payloads.check(value, reply)
            del reply
        return statistics.median(taken)

    def threads(self, count: int, seconds: float) -> float:
        """Calls per second of ``count`` threads together. One failed call fails the work."""
        return Crowd(self, count).work(seconds)

    def hold(self, count: int) -> float:
        """Open connections, make one call over each, and keep them. Seconds for all."""
        open_one = self.system.hold or self.system.connect
        start = time.perf_counter()
        while len(self.held) < count:
            calls = open_one(self.port)
            self.held.append(calls)
            repeat_calls(calls, 1)
            if time.perf_counter() - start > HOLDING:
                raise TimeoutError(f"{len(self.held)} connections after {HOLDING:g} s")
        return time.perf_counter() - start

    def release(self) -> float:
        """Close what is held; return the number left, 0."""
        while self.held:
            self.held.pop().close()
        return 0.0

    def brief(self, count: int) -> float:
        """Connections per second, each opened, used for one call and closed."""
        self.calls.close()
        start = time.perf_counter()
        for number in range(1, count + 1):
            calls = self.system.connect(self.port)
            repeat_calls(calls, 1)
            calls.close()
            if time.perf_counter() - start > BRIEF:
                break
        elapsed = time.perf_counter() - start
        self.calls = self.system.connect(self.port)
        return number / elapsed

    def local(self, count: int) -> float:
        """Seconds of this thread that the decorator adds to a call that stays here. app-net only.

        Such a call waits for nothing, so what other processes take of the core is left out.
        """
        def seconds(call: Callable[..., int]) -> float:
            return timeit.timeit(lambda: call(6, 7), timer=time.thread_time, number=count) / count

        decorated = app_net.decorated().multiply
        return statistics.median([seconds(decorated) - seconds(multiply) for _ in range(5)])


def answer(target: Any) -> None:
    """Do what each line of standard input asks of ``target``, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(value=getattr(target, request.pop("work"))(**request))
        except Exception as problem:
            text = str(problem).strip().splitlines() or [""]
            say(refused=f"{type(problem).__name__}: {text[0]}"[:120])


def end_with_parent() -> None:
    """End this process when its standard input does, whatever it is doing."""
    def watch() -> None:
        while sys.stdin.readline():
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Optional[list[str]] = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("role", choices=("serve", "call", "publish", "subscribe"))
    parser.add_argument("name")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--cpu", type=int, help="stay on this core")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    roles: dict[str, Callable[[], None]] = {
        "serve": lambda: serve(options.name),
        "call": lambda: call(options.name, options.port),
        "publish": lambda: publish(options.name),
        "subscribe": lambda: subscribe(options.name, options.port),
    }
    roles[options.role]()
    sys.stdout.flush()
    os._exit(0)  # some systems keep threads that would hold the interpreter


def serve(name: str) -> None:
    end_with_parent()
    SYSTEMS[name].serve(lambda port: say(port=port))


def call(name: str, port: int) -> None:
    client = Client(SYSTEMS[name], port)
    say(ready=True)
    answer(client)


def publish(name: str) -> None:
    publisher = events.Publisher(events.SYSTEMS[name])
    say(port=publisher.port)
    answer(publisher)


def subscribe(name: str, port: int) -> None:
    subscriber = events.Subscriber(events.SYSTEMS[name], port)
    say(ready=True)
    answer(subscriber)


if __name__ == "__main__":
    main()
