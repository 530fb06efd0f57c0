"""Discovery on networks that lose and delay, and among many: ``python -m benchmarks.networks``.

Two tables. The first is of one search among twenty peers on a LAN whose frames a process loses and
delays. The second is of many peers on a LAN of the kernel's bridges: one search among 100 and 200
peers with a host for each and among 300 and 360 with six on each host, many searches at once, what
watching costs and when it notices, and what happens when many processes start, end or come back
together. python-zeroconf and Zenoh search the same networks where they are installed. Linux and
root; nothing leaves the namespaces. It takes some 8 GB.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain, starmap
from typing import Any, Callable, Iterable, Iterator, NamedTuple

PROJECT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests" / "support")]

from forwarder import CALM, Weather  # noqa: E402
from hearing import ask  # noqa: E402
from virtual_lan import Host, VirtualLan, why_no_firewall, why_no_weather, why_not  # noqa: E402

from . import machine, starts  # noqa: E402

PEERS = 20
# One search each: the number of peers, how many of them are on a host, and the goal in seconds.
ALONE = ((100, 1, 0.2), (200, 1, 0.2), (300, 6, 0.5), (360, 6, 0.5))
#: Name, what becomes of frames, and the goal in seconds.
WEATHERS = (
    ("calm", CALM, 0.10), ("5 % lost", Weather(0.05), 1), ("20 % lost", Weather(0.2), 3),
    ("round trip 200 ms", Weather(delay=0.1), 1), ("round trip 400 ms", Weather(delay=0.2), 2),
    ("round trip 600 ms", Weather(delay=0.3), 2), ("jitter 0 to 100 ms", Weather(jitter=0.1), 1),
    ("20 % lost, 100 ms", Weather(0.2, 0.05), 4),
)
# Seconds that a search of another system may take.
LIMIT = 15.0
# Seconds, for each process that searched together with others, after which all is quiet.
SWEPT_LATER = 0.6

# Each of these prints how many peers were found, and the seconds until all were, or the limit.
APP_NET = """
import json, time
import net
net.null()
import net.discovery.search, net.discovery.lan.quest, net.discovery.merging
started = time.perf_counter()
found = net.peers()
print(json.dumps([len(found), time.perf_counter() - started]))
"""
ZEROCONF = """
import json, sys, threading, time
from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf
found, enough = set(), threading.Event()
class Listener:
    def add_service(self, zc, kind, name):
        found.add(name)
        if len(found) == {count}: enough.set()
    update_service = remove_service = lambda *news: None
here = Zeroconf(interfaces=["{address}"])
started = time.perf_counter()
ServiceBrowser(here, "_bench._tcp.local.", Listener())
enough.wait({limit})
print(json.dumps([len(found), time.perf_counter() - started]), flush=True)
import os; os._exit(0)
"""
ZEROCONF_PEER = """
import socket
from zeroconf import ServiceInfo, Zeroconf
here = Zeroconf(interfaces=["{address}"])
here.register_service(ServiceInfo("_bench._tcp.local.", "{name}._bench._tcp.local.", port=3010,
                                  addresses=[socket.inet_aton("{address}")]))
"""
ZENOH = """
import json, time, os
import zenoh
started = time.perf_counter()
session = zenoh.open(zenoh.Config())
while len(session.info.peers_zid()) < {count} and time.perf_counter() - started < {limit}:
    time.sleep(0.002)
print(json.dumps([len(session.info.peers_zid()), time.perf_counter() - started]), flush=True)
os._exit(0)
"""
ZENOH_PEER = "import zenoh\nsession = zenoh.open(zenoh.Config())\n"

WATCHER = """
import time
import net
told, searched = [], []
def search(at):
    import threading
    def run():
        time.sleep(max(0, at - time.monotonic()))
        began = time.monotonic()
        found = net.peers(refresh=True)
        searched.append((len(found), time.monotonic() - began))
    threading.Thread(target=run).start()
def watch():
    global stop
    stop = net.watch(lambda change, peer: told.append((change, peer.host, time.monotonic())))
"""


class System(NamedTuple):
    """A way to find others. ``peer`` and ``search`` give the programs for a host; the latter looks
    for a number of peers."""

    name: str
    module: str
    peer: Callable[[Host], str]
    search: Callable[[Host, int], str]


SYSTEMS = (
    System("app-net", "net", lambda host: "import net", lambda host, count: APP_NET),
    System("zeroconf", "zeroconf",
           lambda host: ZEROCONF_PEER.format(address=host.address, name=f"peer{host.number}"),
           lambda host, count: ZEROCONF.format(address=host.address, count=count, limit=LIMIT)),
    System("zenoh", "zenoh", lambda host: ZENOH_PEER,
           lambda host, count: ZENOH.format(count=count, limit=LIMIT)),
)


def installed(system: System) -> bool:
    import importlib.util

    return importlib.util.find_spec(system.module) is not None


def build(hosts: int, folder: str, weather: bool = False, cold: bool = False) -> VirtualLan:
    """A LAN of a number of hosts.

    :param cold: whether their neighbour tables are empty.
    """
    lan = VirtualLan(hosts, pathlib.Path(folder), weather)
    for host in lan.hosts:
        # For the multicasts of the others.
        host.ip("route add default dev eth0")
    if not cold:
        fill_tables(lan.hosts)
    return lan


def fill_tables(hosts: list[Host]) -> None:
    """Let all hosts know the hardware addresses of all.

    A host has a neighbour table of its own; all these share that of one kernel, which holds 1,024
    rows, two for each pair of hosts, unless they are permanent.
    """
    rows = {host.address: f"neigh replace {host.address} lladdr {host.hardware()} dev eth0 "
                          f"nud permanent" for host in hosts}
    for host in hosts:
        host.ip(*(row for address, row in rows.items() if address != host.address))


def start_peers(system: System, lan: VirtualLan, hosts: list[Host], each: int = 1) -> None:
    """Start peers on each host, several of app-net only, and let them settle."""
    if each > 1:
        lan.peers(*hosts, script=starts.CROWD.format(more=each - 1))
    elif system.module == "net":
        lan.peers(*hosts)
    else:
        for host in hosts:
            lan.start(host, system.peer(host))
    time.sleep(3)


def weathers(rounds: int) -> Iterator[str]:
    """The first table, a line at a time."""
    yield f"{'network':20} {'goal':>6}  " + "  ".join(
        f"{system.name + ': found, s median (worst)':>36}" for system in SYSTEMS
        if installed(system))
    figures: dict[str, list[str]] = {name: [] for name, _, _ in WEATHERS}
    for system in filter(installed, SYSTEMS):
        with tempfile.TemporaryDirectory() as folder, build(PEERS + 1, folder, True, True) as lan:
            client, *others = lan.hosts
            start_peers(system, lan, others)
            for name, weather, _ in WEATHERS:
                lan.weather(weather)
                found, seconds = [], []
                for _ in range(rounds):
                    client.forget_neighbours()
                    one, took = json.loads(client.python(system.search(client, PEERS), 60))
                    found.append(one)
                    seconds.append(took)
                figures[name].append(f"{min(found)}/{PEERS}, {statistics.median(seconds):.2f} "
                                     f"({max(seconds):.2f})")
                print(system.name, name, figures[name][-1], file=sys.stderr, flush=True)
    for name, _, goal in WEATHERS:
        yield f"{name:20} {goal:4.2f} s  " + "  ".join(f"{one:>36}" for one in figures[name])


def sent(lan: VirtualLan) -> int:
    """Packets that have left the hosts so far."""
    total = 0
    for host in lan.hosts:
        found = json.loads(host.run("nft", "-j", "list", "counters"))["nftables"]
        total += sum(one["counter"]["packets"] for one in found if "counter" in one)
    return total


def count_packets(lan: VirtualLan) -> None:
    for host in lan.hosts:
        host.run("nft", "-f", "-", text="""
            table inet count {
                counter sent {}
                chain output {
                    type filter hook output priority 0;
                    oif != lo counter name sent
                }
            }""")


def alone(peers: int, each: int, goal: float, rounds: int = 5) -> Iterator[str]:
    """One search among a number of peers, ``each`` on a host. Where that is more than one, only
    app-net searches."""
    for system in filter(installed, SYSTEMS):
        if system.module != "net" and each > 1:
            continue
        with tempfile.TemporaryDirectory() as folder, \
                build(math.ceil(peers / each) + 1, folder, cold=True) as lan:
            client, *others = lan.hosts
            start_peers(system, lan, others, each)
            found, took = [], []
            for _ in range(rounds):
                client.forget_neighbours()
                one, seconds = json.loads(client.python(system.search(client, peers), 60))
                found.append(one)
                took.append(seconds)
        yield f"one searches {peers}, {each} on a host, {system.name}: found {min(found)}, " \
              f"{statistics.median(took):.2f} s ({max(took):.2f}), goal all, {goal} s"


def sizes(peers: int, seconds: float) -> Iterator[str]:
    """The second table, a line at a time."""
    with tempfile.TemporaryDirectory() as folder, build(peers + 1, folder) as lan:
        processes = lan.peers(*lan.hosts[:peers], script=WATCHER)
        time.sleep(3)
        for count in sorted({min(50, peers), peers}):
            found, took = herd(processes[:count])
            full = sum(number == peers - 1 for number in found)
            yield f"{count} search within a second: {full} of {count} find all, the worst " \
                  f"{min(found)} of {peers - 1}; {statistics.median(took):.2f} s ({max(took):.2f})"
        time.sleep(5)
        count_packets(lan)
        for process in processes:
            process.execute("watch()")
        # Until those that searched together have asked the addresses that they left out then.
        time.sleep(max(15.0, SWEPT_LATER * peers))
        before = sent(lan)
        time.sleep(seconds)
        yield f"{peers} idle watchers: {(sent(lan) - before) * 60 / seconds:,.0f} packets a " \
              f"minute; told as left: {told(processes, 'left')}"
        yield noticed(lan, processes)


def herd(processes: list[Any]) -> tuple[list[int], list[float]]:
    """Have these search within one second; return how many each found, and how long it took."""
    start = time.monotonic() + 2
    for number, process in enumerate(processes):
        process.execute(f"searched.clear(); search({start + number / len(processes)})")
    time.sleep(3)
    found, took = zip(*(wait_for(process, "searched")[0] for process in processes))
    return list(found), list(took)


def wait_for(process: Any, expression: str, limit: float = 30.0) -> Any:
    end = time.monotonic() + limit
    while True:
        found = ask(process, expression)
        if found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def told(processes: list[Any], change: str) -> int:
    return sum(ask(one, f"sum(one[0] == {change!r} for one in told)") for one in processes)


def noticed(lan: VirtualLan, processes: list[Any]) -> str:
    """How long it takes all watchers to know of one that is killed, of one whose cable is pulled,
    and of one that starts."""
    killed, cut = processes[3], processes[5]
    others = [one for one in processes if one not in (killed, cut)]
    began = time.monotonic()
    killed.kill()
    gone = told_after(others, "left", killed.address[0], began)
    began = time.monotonic()
    lan.hosts[5].ip("link set eth0 down")
    away = told_after(others, "left", cut.address[0], began)
    new = lan.hosts[-1].peer()
    ready = time.monotonic()
    came = told_after(others, "came", new.address[0], ready)
    return f"of {len(others)} others a killed peer is noticed by {len(gone)}, the last after " \
           f"{max(gone, default=0):.1f} s; one whose cable is pulled by {len(away)}, the last " \
           f"after {max(away, default=0):.1f} s; a new one is known to {len(came)}, the last " \
           f"{max(came, default=0):.2f} s after its launch returned"


def told_after(processes: list[Any], change: str, host: str, began: float) -> list[float]:
    """The seconds after which these were told of a change of a host, those that were."""
    told = [wait_for(one, f"[at for change, host, at in told if (change, host) == "
                          f"({change!r}, {host!r}) and at >= {began}]") for one in processes]
    return [times[0] - began for times in told if times]


def tables(options: argparse.Namespace) -> dict[str, Iterable[str]]:
    """The parts of both tables. Nothing is measured before a line is taken."""
    return {
        "networks": weathers(options.rounds),
        "alone": chain.from_iterable(starmap(alone, ALONE)),
        "sizes": chain.from_iterable(sizes(peers, options.seconds) for peers in options.peers),
        "starts": starts.rows(build),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="searches on each network")
    parser.add_argument("--peers", type=int, nargs="*", default=[25, 50, 100])
    parser.add_argument("--seconds", type=float, default=60, help="for which packets are counted")
    parser.add_argument("--table", choices=["networks", "alone", "sizes", "starts"],
                        help="only this part")
    options = parser.parse_args(arguments)
    reason = why_not() or why_no_weather() or why_no_firewall()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    print(", ".join(f"{name} {fact}" for name, fact in machine.describe().items()
                    if isinstance(fact, (str, int))))
    print(f"load before: {machine.load()}")
    with tempfile.TemporaryDirectory() as compiled:
        # As where it is installed: modules are compiled before, not by each of a hundred searches.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = compiled
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(PROJECT / "net")], check=True)
        for name, lines in tables(options).items():
            if options.table in (None, name):
                for line in lines:
                    print(line, flush=True)
    print(f"load after: {machine.load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
