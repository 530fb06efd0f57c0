"""Finding peers among real processes of this host; everything stays on loopback."""
from __future__ import annotations

import re
import sys
import textwrap
import time
from pathlib import Path

import pytest

from leaks import Snapshot
from processes import PeerProcess, run_python
from strangers import Stranger, endless, http, old_peer, silence
from terminal import run_net
from times import patience

# What a process is told to print: the ports of the peers that it finds.
PRINT = "print(sorted(peer.port for peer in net.peers({})))"


@pytest.fixture
def start(peer_process):
    """Start a process with a peer; keyword arguments are its environment."""
    def start_one(script: str = "", **settings: object) -> PeerProcess:
        return peer_process("import net\n" + textwrap.dedent(script), **settings)
    return start_one


@pytest.fixture
def found():
    """Ask a process for the ports of the peers it finds; arguments are those of net.peers."""
    def ask(process: PeerProcess, arguments: str = "refresh=True") -> list[int]:
        process.execute(PRINT.format(arguments))
        return eval(process.read_line(10))
    return ask


@pytest.fixture
def until(found):
    """Wait until a process finds these ports in its cache."""
    def wait(process: PeerProcess, ports: list[int]) -> None:
        deadline = time.monotonic() + 10
        while found(process, "") != ports:
            assert time.monotonic() < deadline, f"{found(process, '')}, not {ports}"
            time.sleep(0.02)
    return wait


def test_two_processes_find_and_call_each_other(start, port_range):
    script = """
        import os
        @net.connect("pid")
        def pid():
            return os.getpid()
    """
    first, second = start(script), start(script)
    for one, other in ((first, second), (second, first)):
        one.execute("peer, = net.peers(); print(pid(peer=peer), peer.decode(), peer.info['pid'])")
        assert one.read_line().split() == [str(other.pid), other.id.decode(), str(other.pid)]


def test_groups_and_hubs_are_listed_and_filtered(start, found, port_range):
    one = start()
    start(NET_GROUP="render")
    start(NET_GROUP="render", NET_IS_HUB="1")
    start(NET_GROUP="light")
    p = port_range
    assert found(one) == [p[1], p[2], p[3]]
    assert found(one, "'render', refresh=True") == [p[1], p[2]]
    assert found(one, "['render', 'light']") == [p[1], p[2], p[3]]
    assert found(one, "groups='light'") == [p[3]]
    assert found(one, "hubs_only=True") == [p[2]]
    assert found(one, "groups=['light'], hubs_only=True") == []
    one.execute("r = net.peers()['render']; print([x.port for x in r], r[0].group, r[1].hub)")
    assert one.read_line() == f"[{p[1]}, {p[2]}] render True"


def test_the_group_of_a_peer_that_was_made_with_one_is_found(start, port_range):
    one = start()
    other = start("""
        import net
        other = net.Peer(group="mine")
    """)
    one.execute("print([(p.port, p.group, p.info['group']) for p in net.peers()])")
    assert eval(one.read_line(10)) == [
        (port_range[1], "mine", "mine")]
    assert other.id


FULL = """
import json
from net.settings import MAX_FACTS
one = {one}
net.configure(facts={{"all": [one] * ((MAX_FACTS - 9) // (len(json.dumps(one)) + 2))}})
net.Peer()
"""


# The last is what grows most on its way: a dict that looks like a value with a type of its own.
@pytest.mark.parametrize("one", ["'x' * 5000", "1.5", "{'!': 0}"])
def test_a_peer_with_as_many_facts_as_there_may_be_is_found(start, found, port_range, one):
    start(FULL.format(one=one))
    assert found(start()) == [port_range.start]


def test_a_late_joiner_is_listed_without_a_search(start, found, until, port_range):
    one = start()
    assert found(one) == []
    start()
    until(one, [port_range[1]])


def test_a_peer_that_ends_is_listed_no_more_without_a_search(start, found, until, port_range):
    one, other, third = start(), start(), start()
    assert found(one) == [port_range[1], port_range[2]]
    assert other.close() == 0
    until(one, [port_range[2]])
    third.execute("net.Peer().close()")
    until(one, [])


def test_a_killed_peer_is_gone_at_the_next_refresh(start, found, port_range):
    one, other = start(), start()
    assert found(one) == [port_range[1]]
    other.kill()
    assert found(one) == []


@pytest.mark.parametrize("call", ["net.null(peer=peer)", "net.null.start(peer=peer).result()"])
def test_a_refused_call_takes_a_peer_out_of_a_list_that_nobody_keeps(start, port_range, call):
    start()
    printed = run_python("-c", f"""
import os, signal, time
import net, net.discovery.search
peer, = net.peers(at_least=1, timeout=20)
os.kill(peer.info["pid"], signal.SIGKILL)
net.discovery.search.search = None
while True:  # it may not be dead yet
    try:
        {call}
    except net.PeerUnreachable:
        break
    except net.PeerLost:
        pass
began = time.monotonic()
while net.peers() and time.monotonic() - began < 10:
    time.sleep(0.01)
print(len(net.peers()))
""", NET_LAUNCH=0, NET_PORT_START=port_range.start).stdout
    assert printed.split() == ["0"]


def test_a_restarted_peer_is_found_anew(start, found, port_range):
    one, other = start(), start()
    assert found(one) == [port_range[1]]
    other.kill()
    again = start()
    assert found(one) == [port_range[1]]
    one.execute("print(net.peers()[0].info['pid'])")
    assert int(one.read_line()) == again.pid


def test_a_watch_hears_of_peers_that_come_and_go(start, port_range):
    one = start("""
        net.peers()
        stop = net.watch(lambda change, peer: print(change, peer.port))
    """)
    other = start()
    assert one.read_line(10) == f"came {port_range[1]}"
    other.close()
    assert one.read_line(10) == f"left {port_range[1]}"


def test_a_frozen_peer_delays_nobody_and_is_found_when_it_goes_on(start, found, port_range):
    import signal

    one, frozen, third = start(), start(), start()
    frozen.signal(signal.SIGSTOP)
    started = time.monotonic()
    assert found(one) == [port_range[2]]
    assert time.monotonic() - started < patience(3)
    frozen.signal(signal.SIGCONT)
    assert found(one) == [port_range[1], port_range[2]]
    assert third.id


@pytest.mark.parametrize("limit", [256, 64])
def test_hostile_listeners_and_few_descriptors_hide_nobody(
        start, found, port_range, limit):
    one = start(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    """)
    treats = (silence, endless(b"\x02\x00\x00\x00\x00\x00\x00\x10"), http)
    odd = [Stranger(port_range[number], treat) for number, treat in zip((1, 2, 3), treats)]
    try:
        start(), start()
        assert found(one) == [port_range[4], port_range[5]]
        one.execute("print(len(net.peers().report.strangers))")
        assert one.read_line() == "3"
    finally:
        for stranger in odd:
            stranger.stop()


def test_an_old_peer_is_listed_beside_the_others(start, port_range):
    one = start()
    old = Stranger(port_range[3], old_peer({"group": "old", "hub": False}))
    try:
        one.execute("p, = net.peers(); print(p.decode(), p.group, p.info['wire'])")
        words = one.read_line(10).split()
    finally:
        old.stop()
    import net

    assert words == [
        net.Peer().generate_id(port_range[3], "127.0.0.1", "old").decode(), "old", "documented"]


def test_a_second_call_takes_less_than_a_millisecond(start, found, port_range):
    one = start()
    start()
    assert found(one) == [port_range[1]]
    one.execute("""
import time
spent = []
for _ in range(20):
    started = time.perf_counter(); net.peers(); net.peers("none"); net.peers(on_host=True)
    spent.append((time.perf_counter() - started) / 3)
print(min(spent))
""")
    assert float(one.read_line()) < 0.001


def test_searching_leaves_no_thread_and_no_descriptor(session_peer):
    import net

    net.peers(refresh=True)
    before = Snapshot()
    for _ in range(5):
        net.peers(refresh=True)
        net.peers(refresh=True, on_host=True)
    assert before.leaks(grace=2.0) == []


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_has_no_beacon_and_knows_its_parent(start, port_range):
    one = start("""
        import os, threading
        net.peers()
        read, write = os.pipe()
    """)
    one.execute("""
pid = os.fork()
if not pid:
    names = sorted(thread.name for thread in threading.enumerate())
    found = [peer.port for peer in net.peers()]
    os.write(write, repr((names, found)).encode())
    os._exit(0)
os.waitpid(pid, 0)
print(os.read(read, 4096).decode())
""")
    assert eval(one.read_line(10)) == (["MainThread"], [port_range[0]])
    one.execute("print([thread.name for thread in threading.enumerate()])")
    assert "net-loop" in one.read_line()


def test_a_process_ends_at_once_while_it_watches_and_searches(port_range):
    started = time.monotonic()
    run_python("-c", """
import net, threading
net.Peer()
net.watch(print)
threading.Thread(target=net.peers, daemon=True).start()
""", NET_PORT_START=port_range.start)
    assert time.monotonic() - started < patience(5)


def test_importing_loads_none_of_what_only_a_search_needs():
    done = run_python("-c", """
import sys
import net
heavy = ("ifaddr", "html", "net.discovery.search", "net.discovery.probes",
         "net.discovery.listing", "net.discovery.lan.neighbours", "net.discovery.doctor",
         "net.tables")
print([name for name in heavy if name in sys.modules])
""")
    assert done.stdout.strip() == "[]"


# Prints every address that the process sends or connects to, and whatever it runs or resolves.
AUDIT = """
import os, sys
def note(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        os.write(1, f"{event} {args[1]}\\n".encode())
    elif event in ("subprocess.Popen", "os.system", "socket.getaddrinfo", "socket.gethostbyname",
                   "socket.gethostbyaddr"):
        os.write(1, f"{event} {args[:1]}\\n".encode())
sys.addaudithook(note)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs CPython's audit events")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9"])
def test_with_a_loopback_host_nothing_is_sent_beyond_this_host(port_range, host):
    script = AUDIT + """
import net
peer = net.Peer()
net.watch(lambda *news: None)
net.peers(refresh=True)
net.peers("group", refresh=True)
peer.close()
"""
    done = run_python("-c", script, NET_HOST=host, NET_PORT_START=port_range.start,
                      NET_SWEEP="1", NET_INTERFACES="eth0",
                      NET_PEERS="192.0.2.1,192.0.2.1:3010,nas.lan,127.0.0.1")
    lines = done.stdout.splitlines()
    assert len(lines) > 20 and any(line.startswith("socket.sendto") for line in lines)
    for line in lines:
        event, _, rest = line.partition(" ")
        assert event.startswith("socket.") and eval(rest)[0].startswith("127."), line


def test_the_examples_of_the_page_run_as_printed(start, port_range):
    page = Path(__file__).resolve().parents[2] / "docs" / "discovery.rst"
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", page.read_text(), re.M)
    start(NET_GROUP="render", NET_IS_HUB="1")
    script = textwrap.dedent("".join(blocks))
    done = run_python("-c", script + """
assert len(everybody) == len(everybody["render"]) == len(net.peers("render")) == 1
assert first.group == "render" and first.hub and first.info["pid"]
""", NET_PORT_START=port_range.start)
    assert done.stderr == "" and len(blocks) == 2


@pytest.mark.parametrize("command", ["peers", "doctor"])
def test_the_commands_find_peers_and_serve_none(start, port_range, command):
    one = start(NET_GROUP="render")
    done = run_python("-m", "net", command, NET_PORT_START=port_range.start)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["address", "group"]
    assert lines[1].split()[:2] == [f"127.0.0.1:{port_range[0]}", "render"]
    if command == "doctor":
        assert "1 peer, 5 refused" in done.stdout, "a server of its own would have answered, too"
        assert "NET_HOST=127.0.0.1 keeps everything on this host" in done.stdout
    assert one.id


def test_a_secret_on_one_side_only_is_skipped_and_named_by_the_doctor(start, port_range):
    pytest.importorskip("cryptography")
    secret = "correct horse battery staple"
    start()
    start(NET_SECRET=secret)
    for settings, found, skipped in (({}, 0, 1), ({"NET_SECRET": secret}, 1, 0)):
        done = run_python("-m", "net", "doctor", NET_PORT_START=port_range.start, **settings)
        table, _, told = done.stdout.partition("\n\n")
        assert f"127.0.0.1:{port_range[found]} " in table
        assert f"127.0.0.1:{port_range[skipped]} " not in table
        text = " ".join(told.split())
        assert f"one side has a secret or certificates that the other lacks, at " \
               f"127.0.0.1:{port_range[skipped]}: " in text
        assert secret not in done.stdout + done.stderr


def test_the_command_peers_filters(start, port_range):
    start(NET_GROUP="render")
    for arguments, expected in ((["render"], True), (["light"], False), (["--hubs"], False),
                                (["--on-host", "render", "light"], True)):
        done = run_net("peers", *arguments, NET_PORT_START=port_range.start)
        assert (f"127.0.0.1:{port_range[0]}" in done.out) is expected
        assert done.code == (0 if expected else 1)
