"""Calls and searches through a router, compared with Zenoh itself: ``python -m benchmarks.engine``.

One router between, processes of their own for both sides, all on 127.0.0.1. app-net has a secret,
so its bytes are encrypted from peer to peer, and on the links to the router. Zenoh is measured
twice: over links that are encrypted likewise, and over plain ones. Needs eclipse-zenoh and
cryptography.
"""
from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Iterator

from . import machine

PROJECT = pathlib.Path(__file__).resolve().parent.parent
LARGE, MIB = 16, 2 ** 20
EVENTS = 5000
#: Name -> the goal in seconds; for "large", the goal as a ratio to Zenoh's figure over the same
#: links.
GOALS = {"small call": 500e-6, "events": 0.1, "search": 0.05, "large": 2.5}

PEER = """
import sys
import net

@net.connect("echo")
def echo(x):
    return x

@net.connect("size")
def size(x):
    return len(x)

@net.event("number")
def number(value):
    return (value,), {}

@net.connect("burst")
def burst(count):
    for value in range(count):
        number(value)

net.Peer().launch()
print("up", flush=True)
sys.stdin.read()
"""
ZENOH = """
import sys, zenoh
from zenoh.handlers import Callback
from benchmarks.engine import session_at
session = session_at("{place}")
answer = Callback(lambda query: query.reply("bench/echo", b"%d" % len(query.payload)),
                  indirect=False)
session.declare_queryable("bench/echo", answer)
print("up", flush=True)
sys.stdin.read()
"""


def why_not() -> str:
    """Why nothing can be measured here; empty if it can."""
    missing = [name for name, module in (("eclipse-zenoh", "zenoh"), ("cryptography",) * 2)
               if importlib.util.find_spec(module) is None]
    return f"skipped: {' and '.join(missing)} not installed" if missing else ""


def free_ports(count: int) -> list[int]:
    """Ports in a row that are free now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            start = int(first.getsockname()[1])
        try:
            with ExitStack() as held:
                for port in range(start, start + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
                return list(range(start, start + count))
        except (OSError, OverflowError):
            pass


class Network:
    """Two routers, one of app-net with TLS and one of Zenoh without, and processes at them."""

    def __init__(self, opened: ExitStack, peers: int) -> None:
        self._opened = opened
        ports = iter(free_ports(peers + 3))
        self.place, self.plain = f"tls/127.0.0.1:{next(ports)}", f"tcp/127.0.0.1:{next(ports)}"
        self.settings = {"NET_HOST": "127.0.0.1", "NET_SECRET": "a secret of the benchmarks",
                         "NET_PORT_RANGE": "0"}
        self._start("-m", "net", "router", "--listen", self.place)
        self._start("-m", "net", "router", "--listen", self.plain)
        self.settings.update(NET_ENGINE="zenoh", NET_ROUTER=self.place)
        for _ in range(peers):
            self._start("-c", PEER, NET_PORT_START=str(next(ports)))
        for place in (self.place, self.plain):
            self._start("-c", ZENOH.replace("{place}", place))
        self.settings["NET_PORT_START"] = str(next(ports))

    def _start(self, *words: str, **settings: str) -> None:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **self.settings, **settings})
        self._opened.enter_context(process)
        self._opened.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline(), "it has ended"


def seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """How long each of a number of rounds takes, sorted."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return sorted(taken)


def session_at(place: str) -> Any:
    """A session of Zenoh alone with a router, whose links are secured as those of app-net are."""
    import zenoh

    from net.link.tls import link_security
    from net.link.zenoh import Router, configuration

    protocol, _, address = place.partition("/")
    router = Router(protocol, "127.0.0.1", int(address.rpartition(":")[2]))
    tls = link_security("connect") if protocol == "tls" else {}
    return zenoh.open(configuration(zenoh, "client", tls, connect=(router,)))


def raw(place: str, calls: int, rounds: int) -> dict[str, float]:
    """What Zenoh takes for a query that is answered."""
    session = session_at(place)

    def query(payload: bytes) -> None:
        reply, = session.get("bench/echo", payload=payload)
        assert reply.ok.payload.to_bytes() == b"%d" % len(payload)
    try:
        large = bytes(LARGE * MIB)
        query(b"x")
        return {"small call": statistics.median(seconds(lambda: query(b"x" * 100), calls)),
                "large": statistics.median(seconds(lambda: query(large), rounds))}
    finally:
        session.close()


def ours(peers: int, calls: int, rounds: int) -> dict[str, float]:
    """What app-net takes for the same, for events, and for a search."""
    import net

    echo, size, burst = net.remote("echo"), net.remote("size"), net.remote("burst")
    while len(net.peers(refresh=True)) < peers:
        time.sleep(0.1)
    peer = net.peers()[0]
    assert peer.host.endswith(".zenoh") and echo("x", peer=peer) == "x"
    large, heard, all_heard = bytes(LARGE * MIB), [0], threading.Event()

    def hear(value: int) -> None:
        heard[0] += 1
        if heard[0] == EVENTS:
            all_heard.set()

    def events() -> None:
        all_heard.clear()
        heard[0] = 0
        burst(EVENTS, peer=peer)
        assert all_heard.wait(30)
    net.subscribe("number", peers=[peer])(hear)
    while not heard[0]:  # until they have met
        burst(1, peer=peer)
        time.sleep(0.05)
    time.sleep(0.5)
    figures = {
        "small call": seconds(lambda: echo("x" * 100, peer=peer), calls),
        "large": seconds(lambda: size(large, peer=peer), rounds),
        "events": seconds(events, rounds),
        "search": seconds(lambda: net.peers(refresh=True), rounds)}
    assert len(net.peers()) == peers
    return {name: statistics.median(taken) for name, taken in figures.items()}


def run(peers: int, calls: int, rounds: int) -> Iterator[str]:
    """The figures, a line at a time."""
    yield f"load {machine.load()}, router between, {peers} peers, medians"
    with ExitStack() as opened:
        network = Network(opened, peers)
        os.environ.update(network.settings)
        zenoh, plain = (raw(place, calls, rounds) for place in (network.place, network.plain))
        net = ours(peers, calls, rounds)
    yield f"{'':24} {'app-net':>10} {'Zenoh':>10} {'plain':>10} {'goal':>10}"
    for name, label in (("small call", "small call"), ("large", f"{LARGE} MiB"),
                        ("events", f"{EVENTS:,} events"), ("search", f"search, {peers} peers")):
        figures = net[name], zenoh.get(name), plain.get(name), \
            GOALS[name] * (zenoh["large"] if name == "large" else 1)
        yield f"{label:24} " + " ".join(
            " " * 10 if taken is None else f"{taken * 1000:7.2f} ms" for taken in figures)
    yield f"load {machine.load()}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    reason = why_not()
    if reason:
        print(reason)
        return
    for line in run(options.peers, options.calls, options.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
