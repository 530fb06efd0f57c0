"""How long ``net.peers()`` takes on a virtual LAN: ``python -m benchmarks.discovery``.

The LAN is made of network namespaces, so this needs Linux and root, and nothing of it leaves them.
Each round asks in a fresh process, which also has to load what a search needs, and then once more
in the same process; the neighbour table is put back in between.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any, Iterator, NamedTuple

PROJECT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests" / "support")]

from virtual_lan import Host, VirtualLan, hosts_in_turn, why_no_firewall, why_not  # noqa: E402

from . import machine  # noqa: E402
from .measure import Result  # noqa: E402

#: Hosts with peers, and peers on them; the other addresses of the /24 are dead.
HOSTS, PEERS = 20, 30
#: Hosts that are in the neighbour table, but gone.
GONE = [f"10.77.5.{number}" for number in range(100, 150)]


class Case(NamedTuple):
    """One situation.

    :ivar goal: seconds.
    :ivar expected: peers that are to be found.
    :ivar blocked: firewall rules of the searching host.
    :ivar gone: whether the neighbour table holds hosts that are gone.
    """

    name: str
    goal: float
    expected: int
    arguments: str = "refresh=True"
    blocked: tuple[str, ...] = ()
    gone: bool = False
    before: str = ""
    settings: dict[str, str] = {}


NOTHING = "import net.discovery.lan.neighbours as table; table.SOURCES = ()"

CASES = (
    Case("this host only", 0.020, 2, "refresh=True, on_host=True"),
    Case("cold table", 0.250, PEERS - 1),
    Case("UDP blocked", 0.600, PEERS - 1, blocked=("input udp",)),
    Case("UDP may not even be sent", 0.600, PEERS - 1, blocked=("output udp",)),
    Case("50 gone hosts", 0.600, PEERS - 1, gone=True),
    Case("50 gone hosts, UDP blocked", 0.600, PEERS - 1, gone=True, blocked=("input udp",)),
    Case("no arp, no ip, no UDP", 1.000, 6, blocked=("output udp", "input udp"), before=NOTHING,
         settings={"NET_SWEEP": "0", "NET_PEERS": "10.77.5.2,10.77.5.3"}),
)

# The searching process serves a peer, too, as applications do.
SCRIPT = """
import json, subprocess, time
import net
{before}
net.Peer()
def measure():
    started = time.perf_counter()
    found = net.peers({arguments})
    seconds = time.perf_counter() - started
    # What comes before the search itself is what it has to load.
    return {{"found": len(found), "seconds": seconds,
             "first": seconds - found.report.seconds + found.report.first}}
rounds = [measure()]
subprocess.run({reset!r}, shell=True, check=True)
rounds.append(measure())
started = time.perf_counter()
net.peers()
print(json.dumps([*rounds, time.perf_counter() - started]))
"""

# What was usual before: five threads, each with a blocking connection at a time, 0.1 s for each.
OLD_WAY = """
import json, socket, time
from concurrent.futures import ThreadPoolExecutor
def probe(address):
    with socket.socket() as sock:
        sock.settimeout(0.1)
        return sock.connect_ex(address) == 0
addresses = [(f"10.77.5.{host}", port) for host in range(1, 255) for port in range(3010, 3016)]
started = time.perf_counter()
with ThreadPoolExecutor(5) as threads:
    found = sum(threads.map(probe, addresses))
print(json.dumps([found, time.perf_counter() - started]))
"""


class Row(NamedTuple):
    """Figures of one case in seconds, each round's."""

    case: Case
    found: list[int]
    first: list[float]
    fresh: list[float]
    again: list[float]
    cached: list[float]


def reset(case: Case) -> str:
    """The shell command that puts the neighbour table of a host back."""
    lines = ["neigh flush all nud all"]
    if case.gone:
        lines += [f"neigh replace {host} lladdr 02:00:00:00:00:{number:02x} dev eth0 nud stale"
                  for number, host in enumerate(GONE)]
    text = "\\n".join(lines)
    return f"printf '{text}\\n' | ip -batch -"


def run(case: Case, client: Host, rounds: int) -> Row:
    """Measure one case."""
    row = Row(case, [], [], [], [], [])
    client.unblock()
    client.block(*case.blocked)
    command = reset(case)
    for _ in range(rounds):
        client.run("sh", "-c", command)
        script = SCRIPT.format(before=case.before, arguments=case.arguments, reset=command)
        fresh, again, cached = json.loads(client.python(script, **case.settings))
        row.found.extend((fresh["found"], again["found"]))
        row.first.append(fresh["first"])
        row.fresh.append(fresh["seconds"])
        row.again.append(again["seconds"])
        row.cached.append(cached)
        # Let the peers that have just answered fall asleep again.
        time.sleep(0.2)
    client.unblock()
    return row


def results(rounds: int) -> Iterator[Result]:
    """The rows for the table of ``python -m benchmarks``: a search of all on a cold table."""
    title = f"net.peers(): {PEERS} peers on {HOSTS} hosts, in a fresh process"
    first = Result("discovery-first", f"{title}, until the first", "ms", baseline=None)
    all_found = Result("discovery-all", f"{title}, all", "ms", baseline=None)
    reason = why_not() or why_no_firewall()
    if reason:
        first.refusals["app-net"] = all_found.refusals["app-net"] = reason
    else:
        case = next(case for case in CASES if case.name == "cold table")
        with tempfile.TemporaryDirectory() as folder, \
                VirtualLan(HOSTS, pathlib.Path(folder)) as lan:
            lan.peers(*hosts_in_turn(lan.hosts, PEERS - 1))
            row = run(case, lan.hosts[0], rounds)
        if min(row.found) < case.expected:
            all_found.refusals["app-net"] = f"found {min(row.found)} of {case.expected} once"
        else:
            all_found.samples["app-net"] = [seconds * 1e3 for seconds in row.fresh]
        first.samples["app-net"] = [seconds * 1e3 for seconds in row.first]
    yield from (first, all_found)


def table(rows: list[Row]) -> Iterator[str]:
    """The table in lines; figures are milliseconds, the median and the worst round."""
    yield f"{'case':28} {'goal':>5} {'found':>8} {'first':>6} {'fresh process':>16} {'again':>14}"
    for row in rows:
        found = f"{min(row.found)}/{row.case.expected}"
        yield (f"{row.case.name:28} {row.case.goal * 1000:5.0f} {found:>8} "
               f"{statistics.median(row.first) * 1000:6.0f} {_figures(row.fresh):>16} "
               f"{_figures(row.again):>14}")
    cached = [seconds for row in rows for seconds in row.cached if row.case.expected > 1]
    if cached:
        yield f"a second call: {statistics.median(cached) * 1000:.3f} ms, goal 1 ms"


def _figures(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ({max(seconds) * 1000:.0f})"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--old-way", action="store_true", help="also the usual way; takes 30 s")
    parser.add_argument("--tables", action="store_true",
                        help="networks that lose and delay, and many peers, instead; half an hour")
    options = parser.parse_args(arguments)
    if options.tables:
        from . import networks

        return networks.main([])
    reason = why_not() or why_no_firewall()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, VirtualLan(HOSTS, pathlib.Path(folder)) as lan:
        # The searching host has a peer as well, and so has the searching process.
        lan.peers(*hosts_in_turn(lan.hosts, PEERS - 1))
        print(f"{HOSTS} hosts, {PEERS} peers with the searching one, a /24; {options.rounds} "
              f"rounds; milliseconds: median (worst)")
        print(", ".join(f"{name} {fact}" for name, fact in machine.describe().items()
                        if isinstance(fact, (str, int))))
        print(f"load before: {machine.load()}")
        for line in table([run(case, lan.hosts[0], options.rounds) for case in CASES]):
            print(line)
        print(f"load after: {machine.load()}")
        if options.old_way:
            _old_way(lan.hosts[0])
    return 0


def _old_way(client: Host) -> Any:
    found, seconds = json.loads(client.python(OLD_WAY, timeout=120))
    print(f"5 blocking threads, 0.1 s each: {found} ports that accept, {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
