"""Processes that start, end and come back together: the last rows of the second table.

See :mod:`benchmarks.networks`, which prints them. All of them are processes of this machine, in
network namespaces; how long they take to start is part of the figures, which say so.
"""
from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator

from hearing import PUBLISHER, SUBSCRIBER, ask
from virtual_lan import Host, VirtualLan, lan_environment

# A peer, and as many more on its host, which take less memory when they are forked.
CROWD = """
import os, net
(alive, held), (ready, say) = os.pipe(), os.pipe()
for _ in range({more}):
    if not os.fork():
        os.close(held)
        net.null()
        os.write(say, b".")
        os.read(alive, 1)
        os._exit(0)
net.null()
started = b""
while len(started) < {more}:
    started += os.read(ready, {more})
"""
# Loads net, and waits for the moment at which all begin.
WAITING = """
import json, sys, time
import net
print("ready", flush=True)
at = float(sys.stdin.readline())
time.sleep(max(0, at - time.monotonic()))
"""
FIRST_SEARCH = WAITING + """
net.null()
launched = time.monotonic()
found = [[peer.host, peer.port] for peer in net.peers()]
began, done = launched - at, time.monotonic() - at
print(json.dumps([[net.Peer().host, net.Peer().port], began, found, done]), flush=True)
at = float(sys.stdin.readline())
time.sleep(max(0, at - time.monotonic()))
print(len(net.peers()), flush=True)
sys.stdin.read()
"""
HUBS_ONLY = WAITING + """
@net.subscribe("number", hubs_only=True)
def hear(value): pass
net.null()
print(time.monotonic() - at, flush=True)
sys.stdin.read()
"""
WATCHER = """
import net
stop = net.watch(lambda change, peer: None)
"""
#: Seconds after which nothing is waited for any more.
LIMIT = 60.0
#: Makes a LAN of a number of hosts, in a folder.
Build = Callable[[int, str], VirtualLan]


def start(host: Host, script: str) -> Any:
    """A process that loads net and then waits for :func:`go`."""
    return subprocess.Popen([*host.prefix, sys.executable, "-c", script], text=True,
                            env=lan_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            start_new_session=True)


def go(processes: list[Any]) -> float:
    """Have all begin at the same time; return that time (monotonic)."""
    for process in processes:
        assert process.stdout.readline(), "it has ended"
    at = time.monotonic() + 1
    tell(processes, at)
    return at


def tell(processes: list[Any], at: float) -> None:
    """Tell all a time."""
    for process in processes:
        process.stdin.write(f"{at}\n")
        process.stdin.flush()


def end(processes: list[Any]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def subscribed(publisher: Any) -> int:
    found = ask(publisher, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))", 30)
    return int(found)


def until(count: Callable[[], int], wanted: int) -> tuple[int, float]:
    """Wait until there are as many as wanted; return how many there are, and after how many
    seconds."""
    began = time.monotonic()
    while True:
        found, seconds = count(), time.monotonic() - began
        if found >= wanted or seconds > LIMIT:
            return found, seconds
        time.sleep(0.02)


def together(build: Build, hosts: int = 4, count: int = 24, seconds: float = 1.0) -> Iterator[str]:
    """Processes that start at the same moment, and what their first search finds. That is complete
    if it has all that were launched when it began; no search can tell who comes after it."""
    with tempfile.TemporaryDirectory() as folder, build(hosts, folder) as lan:
        processes = [start(lan.hosts[number % hosts], FIRST_SEARCH) for number in range(count)]
        try:
            at = go(processes)
            told = [json.loads(one.stdout.readline()) for one in processes]
            last = max(began for _, began, _, _ in told)
            tell(processes, at + last + seconds)
            later = [int(one.stdout.readline()) for one in processes]
        finally:
            end(processes)
    began_at = {tuple(address): began for address, began, _, _ in told}
    complete = sum({one for one, at in began_at.items() if at < began} <= set(map(tuple, found))
                   for _, began, found, _ in told)
    everybody = sum(len(found) == count - 1 for _, _, found, _ in told)
    yield f"{count} start together on {hosts} hosts: the first search of {complete} has all that " \
          f"were launched before it, of {everybody} all; the last ends " \
          f"{max(done for _, _, _, done in told):.2f} s after the start (the last was launched " \
          f"after {last:.2f}); {seconds:g} s after that the lists of " \
          f"{sum(one == count - 1 for one in later)} are complete, goal all, 1 s"


def hubs_only(build: Build, count: int = 60, hosts: int = 20) -> Iterator[str]:
    """Processes that subscribe to hubs only and start together."""
    with tempfile.TemporaryDirectory() as folder, build(hosts + 1, folder) as lan:
        hub = lan.hosts[0].peer(PUBLISHER, NET_IS_HUB="1")
        processes = [start(lan.hosts[1 + number % hosts], HUBS_ONLY) for number in range(count)]
        try:
            at = go(processes)
            found, _ = until(lambda: subscribed(hub), count)
            took = time.monotonic() - at
            up = max(float(one.stdout.readline()) for one in processes)
        finally:
            end(processes)
    yield f"{count} with hubs_only=True start together: {found} subscribed after {took:.1f} s " \
          f"(the last was launched after {up:.1f}), goal all, 2 s"


def hub_back(build: Build, down: float, subscribers: int = 100, hosts: int = 20) -> Iterator[str]:
    """A hub that is killed and comes back at its address."""
    with tempfile.TemporaryDirectory() as folder, build(hosts + 1, folder) as lan:
        place = lan.hosts[0]
        hub = place.peer(PUBLISHER, NET_IS_HUB="1")
        script = SUBSCRIBER.format(options=f"peers=[{hub.id!r}], ")
        lan.peers(*(lan.hosts[1 + number % hosts] for number in range(subscribers)), script=script)
        until(lambda: subscribed(hub), subscribers)
        hub.kill()
        time.sleep(down)
        hub = place.peer(PUBLISHER, NET_IS_HUB="1")
        found, seconds = until(lambda: subscribed(hub), subscribers)
    yield f"a hub back after {down:g} s: {found} of {subscribers} subscribed again after " \
          f"{seconds:.1f} s, goal all, 3 s"


def vanished(build: Build, count: int = 20) -> Iterator[str]:
    """Publishers whose cables are pulled, and another one that starts after that."""
    with tempfile.TemporaryDirectory() as folder, build(count + 2, folder) as lan:
        hearer = lan.hosts[0].peer(SUBSCRIBER.format(options=""))
        publishers = lan.peers(*lan.hosts[1:count + 1], script=PUBLISHER)
        until(lambda: sum(map(subscribed, publishers)), count)
        for host in lan.hosts[1:count + 1]:
            host.ip("link set eth0 down")
        found, seconds = until(lambda new=lan.hosts[-1].peer(PUBLISHER): subscribed(new), 1)
        assert hearer.address
    yield f"{count} publishers vanished: a new one is {'' if found else 'not '}subscribed to " \
          f"{seconds:.2f} s after its launch, goal 1 s"


def churn(build: Build, peers: int = 50, each: int = 10, periods: int = 24) -> Iterator[str]:
    """Watchers of which some are killed and as many started, every five seconds; 3 s after that all
    lists are compared with the truth."""
    wrong = pairs = 0
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, build(peers + each, folder) as lan:
        alive = dict(enumerate(lan.peers(*lan.hosts[:peers], script=WATCHER)))
        time.sleep(5)
        for _ in range(periods):
            began = time.monotonic()
            for number in chance.sample(sorted(alive), each):
                alive.pop(number).kill()
            free = chance.sample([one for one in range(peers + each) if one not in alive], each)
            alive.update(zip(free, lan.peers(*(lan.hosts[one] for one in free), script=WATCHER)))
            time.sleep(3)
            truth = {lan.hosts[number].address for number in alive}
            for number, process in alive.items():
                listed = set(ask(process, "[peer.host for peer in net.peers()]", 30))
                wrong += len(listed ^ (truth - {lan.hosts[number].address}))
                pairs += len(truth) - 1
            time.sleep(max(0, began + 5 - time.monotonic()))
    yield f"churn, {each} of {peers} killed and started, {periods} times: {wrong} of {pairs:,} " \
          f"entries wrong 3 s later, {100 * (1 - wrong / pairs):.2f} % right, goal 99 %"


def rows(build: Build) -> Iterator[str]:
    """All of them, a line at a time."""
    yield from together(build)
    yield from hubs_only(build)
    for down in (10, 60):
        yield from hub_back(build, down)
    yield from vanished(build)
    yield from churn(build)
