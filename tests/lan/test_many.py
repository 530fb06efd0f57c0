"""One call, two hundred peers: 34 hosts of a LAN, with up to six peers on each."""
from __future__ import annotations

import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from processes import PeerProcess
from virtual_lan import STARTERS, Host, VirtualLan

# Two hundred processes on one machine: one that gets no turn for seconds is taken for dead.
CROWDED = pytest.mark.flaky(reruns=1)

PEERS, ON_A_HOST = 200, 6
TASKS = 3000

#: A number of peers on a host, forked from one process, which takes the least memory and time. They
#: end with it.
APPLICATION = """
import os, time
import net

def serve():
    @net.connect("where")
    def where():
        return os.getpid()

    @net.connect("note")
    def note(number):
        # One line in one write, by any number of processes.
        os.write(notes, b"%d %d\\n" % (os.getpid(), number))
        time.sleep(0.05)
        return number * number

notes = os.open({notes!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
(alive, held), (ready, say_ready) = os.pipe(), os.pipe()
for _ in range({others}):
    if not os.fork():
        os.close(held)
        serve()
        os.write(say_ready, b".")
        os.read(alive, 1)
        os._exit(0)
serve()
started = b""
while len(started) < {others}:
    started += os.read(ready, {others})
"""

CALLER = """
import json, time
import net

where = net.remote("where")
where.peers(at_least={peers}, timeout=60)

def sent():
    # Of this namespace: the name of an interface, eight figures of what came, packets that left.
    line, = [one for one in open("/proc/self/net/dev") if one.split(":")[0].strip() == "eth0"]
    return int(line.split(":")[1].split()[9])

def sent_for_listings():
    before = sent()
    for _ in range(100):
        where.peers()
    return sent() - before

def connections():
    # Lines of sockets, the fourth column their state: 01 is established.
    return sum(line.split()[3] == "01" for line in open("/proc/self/net/tcp"))

end = time.monotonic() + 20
while connections() < {peers} and time.monotonic() < end:
    time.sleep(0.05)
connected = connections()
quiet = [sent_for_listings() for _ in range(10)]
before = sent()
results = where.all()
print(json.dumps([quiet, len(set(results.values())), len(results), sent() - before,
                  connected, connections()]))
"""

MAPPING = """
import json
import net

note = net.remote("note")

def run():
    note.peers(at_least={peers}, timeout=60)
    values = note.map.on(repeatable=True)(range({tasks}))
    found = [next(values) for _ in range({tasks} // 10)]
    print("begun", flush=True)
    print(json.dumps(found + list(values)), flush=True)
"""


class Crowd(NamedTuple):
    """Two hundred peers, and a host without any.

    :ivar processes: of each other host, the leader of its group.
    :ivar notes: the file in which each task is noted, where it runs.
    """

    empty: Host
    processes: list[PeerProcess]
    notes: Path


@pytest.fixture(scope="module")
def crowd(build, tmp_path_factory) -> Iterator[Crowd]:
    counts = [min(ON_A_HOST, PEERS - number) for number in range(0, PEERS, ON_A_HOST)]
    notes = tmp_path_factory.mktemp("notes") / "notes"
    lan: VirtualLan
    with build(1 + len(counts)) as lan, ThreadPoolExecutor(STARTERS) as starters:
        def start(host: Host, count: int) -> PeerProcess:
            return host.peer(APPLICATION.format(others=count - 1, notes=str(notes)))
        yield Crowd(lan.hosts[0], list(starters.map(start, lan.hosts[1:], counts)), notes)


@CROWDED
def test_two_hundred_peers_are_called_at_once_and_known_without_a_packet(crowd):
    quiet, pids, count, sent, connected, later = json.loads(
        crowd.empty.python(CALLER.format(peers=PEERS), 120))
    assert pids == count == PEERS
    # What peers tell each other now and then is not asked for: a hundred listings without a packet.
    assert min(quiet) == 0
    assert sent >= 2 * PEERS, "the counter counts"
    # A process that has waited for that many is connected to them, and calls take those
    # connections.
    assert connected >= PEERS * 9 // 10 and later - connected <= PEERS // 10


@CROWDED
def test_a_third_of_two_hundred_killed_during_a_map_loses_and_repeats_nothing_else(crowd):
    caller = crowd.empty.peer(MAPPING.format(peers=PEERS, tasks=TASKS))
    try:
        caller.execute("run()")
        assert caller.read_line(60) == "begun"
        doomed = crowd.processes[::3]
        for process in doomed:
            os.killpg(process.pid, signal.SIGKILL)
        assert json.loads(caller.read_line(60)) == [number * number for number in range(TASKS)]
    finally:
        caller.stop()
    ran = Counter(line.split()[1] for line in crowd.notes.read_text().splitlines())
    assert len(ran) == TASKS
    print(f"{sum(ran.values()) - TASKS} ran twice")
    # What a killed peer had begun, one task each, ran again; nothing else did.
    assert sum(ran.values()) - TASKS <= len(doomed) * ON_A_HOST
