"""Two processes that share nothing but a router: what works between peers of a LAN."""
from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, List, Optional

import pytest

from processes import environment
from routers import APPLICATION, SECRET, Router, meet, says
from times import patience

if importlib.util.find_spec("zenoh") is None:
    pytest.skip("eclipse-zenoh is not installed", allow_module_level=True)
pytest.importorskip("cryptography", reason="a secret needs it")

# What is ours in it, tests/unit/link/test_zenoh.py tries on every interpreter; this takes a minute.
pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
# Waits until a search says so.
NOTE = "until(lambda: any(%r in note for note in net.peers(refresh=True).report.notes))"


@pytest.fixture
def router(port_range: range) -> Iterator[Router]:
    made = Router(f"tls/127.0.0.1:{port_range.start}")
    yield made
    if made.process.returncode is None:
        made.end()


@pytest.fixture
def start_router(port_range: range) -> Iterator[Callable[..., Router]]:
    """Start a further router; the arguments are those of the command, the others settings."""
    started: List[Router] = []

    def start(*arguments: str, **settings: Optional[str]) -> Router:
        place = f"tls/127.0.0.1:{port_range[-1 - len(started)]}"
        started.append(Router(place, *arguments, **settings))
        return started[-1]

    yield start
    for made in started:
        made.end()


@pytest.fixture
def site(peer_process, port_range, router):
    """Start a process of a site of its own: it searches no port but its own."""
    numbers = iter(port_range[1:])

    def start(**settings: object):
        return peer_process(APPLICATION, **{
            "NET_PORT_START": next(numbers), "NET_PORT_RANGE": 0, "NET_ENGINE": "zenoh",
            "NET_ROUTER": router.place, "NET_SECRET": SECRET, **settings})
    return start


def test_what_works_on_a_lan_works_through_a_router(site):
    other, process = site(NET_GROUP="farm"), site()
    process.execute("from net.link.zenoh import Circuit; asked, ask = [], Circuit.ask")
    process.execute("Circuit.ask = lambda *args: (asked.append(args), ask(*args))")
    meet(process)
    assert says(process, "asked") == "[]"  # it was listed without a connection to it
    assert says(process, "double(21, peer=peer)") == "42"
    assert says(process, "ran(fail, peer=peer)") == "('KeyError', 'lost')"
    assert says(process, "peer.group, net.peers('farm') == (peer,), net.peers('x') == ()") \
        == "('farm', True, True)"
    assert says(process, "sum(count(1000, peer=peer))") == "499500"
    assert says(process, "each(lambda x: x + 1, iter([1, 2]), peer=peer)") == "[2, 3]"
    assert says(process, "len(double(bytes(3_000_000), peer=peer))") == "6000000"
    assert says(process, f"ran(hold.on(peer, timeout={patience(0.2)}))") \
        == "('CallTimeout', 'maybe')"
    assert says(process, "double.start(4, peer=peer).result()") == "8"
    assert says(process, "subscribe(peer)") == "None"
    other.execute("for number in range(100): tick(number)")
    process.execute("until(lambda: len(heard) == 100)")
    assert says(process, "heard == list(range(100))") == "True"
    # And when a peer is killed, it is gone at once.
    process.execute("net.watch(lambda change, one: news.append(change))")
    other.execute("held.clear()")
    process.execute("until(lambda: news == ['came']); call = hold.start(peer=peer)")
    assert says(other, "until(lambda: held)") == "None"
    other.kill()
    assert says(process, "ran(call.result)") == "('PeerLost', 'maybe')"
    process.execute("until(lambda: news == ['came', 'left'])")
    assert says(process, "ran(double, 1, peer=peer)") == "('PeerUnreachable', 'no')"
    assert process.close(patience(5)) == 0


def test_cancelling_deadlines_and_circuits_that_break_or_do_not_begin(site):
    other, process = site(), site()
    meet(process)
    process.execute("call = patient.on(peer, timeout=100).start()")
    assert says(other, "until(lambda: held) or 0 < held[0] <= 100") == "True"
    process.execute("call.cancel()")
    assert says(other, "until(lambda: news)") == "None"
    # A frame that is missing in the middle of a reply.
    other.execute("from net.link.zenoh import DATA; lost, publish = [], engine().publish")
    other.execute("engine().publish = lambda peer, kind, *rest: lost.append(kind) "
                  "if kind == DATA and len(rest[-1]) > 60000 and not lost "
                  "else publish(peer, kind, *rest)")
    assert says(process, "ran(double, bytes(3_000_000), peer=peer)") == "('PeerLost', 'maybe')"
    assert says(other, "len(lost)") == "1"
    assert says(process, "len(double(bytes(3_000_000), peer=peer))") == "6000000"
    # A process that is stopped answers no request for a circuit.
    process.execute("net.process.process.client.close_idle()")
    other.process.send_signal(signal.SIGSTOP)
    assert says(process, "ran(double, 1, peer=peer)") == "('PeerUnreachable', 'no')"
    other.process.send_signal(signal.SIGCONT)
    process.execute("until(lambda: ran(double, 4, peer=peer) == 8)")


def test_a_receiver_that_takes_nothing_fills_neither_process_nor_the_router(site, router):
    other, process = site(), site()
    meet(process)
    for one in (other, process):
        one.execute("from net.link.base import Deadline, Endpoint")
    other.execute("here = engine().listen("
                  "Endpoint('zenoh', engine().instance + '.zenoh', 4000), 5)")
    process.execute("until(lambda: engine().present.has(peer.address[0][:32], 4000))")
    process.execute("pipes = [engine().connect(Endpoint('zenoh', peer.address[0], 4000), "
                    "Deadline(WAIT)) for _ in range(4)]".replace("WAIT", str(patience(10))))
    before = [int(says(one, "resident()")) for one in (other, process)] + [router.resident()]
    process.execute("import select\n"
                    "for one in pipes: one.setblocking(False)\n"
                    "sent, data = 0, bytes(65536)\n"
                    "while sent < 200_000_000:\n"
                    "    ready = select.select([], pipes, [], 1)[1]\n"
                    "    if not ready: break\n"
                    "    sent += sum(one.send(data) for one in ready)\n")
    # A window for each, and what the sockets hold at both ends.
    assert int(says(process, "sent")) < 4 * 4 * 2 ** 20
    after = [int(says(one, "resident()")) for one in (other, process)] + [router.resident()]
    assert all(now - then < 40 for now, then in zip(after, before)), (before, after)
    other.execute("got = sum(len(here.accept()[0].recv(10)) for _ in range(4))")
    assert says(other, "got") == "40"
    assert says(process, "double(21, peer=peer)") == "42"


def test_when_the_router_is_killed_calls_end_and_when_it_is_back_all_goes_on(router, site):
    other, process = site(), site()
    meet(process)
    process.execute("subscribe(peer); net.watch(lambda change, one: news.append(change))")
    process.execute("until(lambda: news == ['came']); call = hold.start(peer=peer)")
    other.execute("until(lambda: held)")
    assert says(other, "tick(1)") == "((1,), {})"
    assert says(process, "until(lambda: heard == [1])") == "None"
    router.end(signal.SIGKILL)
    assert says(process, "ran(call.result)") == "('PeerLost', 'maybe')"
    process.execute("until(lambda: news == ['came', 'left'])")
    assert says(process, "ran(double, 1, peer=peer)") == "('PeerUnreachable', 'no')"
    assert says(other, "tick(2)") == "((2,), {})"  # which is missed
    router.start()
    process.execute("until(lambda: news == ['came', 'left', 'came'])")
    assert says(process, "double(3, peer=peer)") == "6"
    assert says(process, "until(lambda: gaps)") == "None"
    other.execute("tick(3)")
    process.execute("until(lambda: heard[-1] == 3)")
    assert says(process, "heard, gaps") == "([1, 3], [1])"
    router.end(signal.SIGKILL)
    assert process.close(patience(5)) == 0


def test_without_a_router_a_program_starts_and_finds_its_peers_when_one_comes(router, site):
    assert router.end() == 0
    site()
    process = site()
    assert "no router is reached" in says(process, "str(net.peers().report)")
    router.start()
    meet(process)
    assert says(process, "double(21, peer=peer)") == "42"


def test_a_process_without_the_secret_is_admitted_by_no_router_and_no_peer(site):
    site()
    stranger = site(NET_SECRET="the secret of somebody else")
    assert says(stranger, "net.peers()").startswith("no peers")
    assert says(stranger, NOTE % "it has another secret") == "None"


def test_the_doctor_waits_until_it_is_known_what_is_wrong_with_a_router(port_range):
    hub = Router(f"tcp/127.0.0.1:{port_range.start}")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "net", "doctor"], stdout=subprocess.PIPE, text=True,
            timeout=patience(30), env=environment(
                NET_ENGINE="zenoh", NET_SECRET=SECRET, NET_PORT_RANGE=0,
                NET_ROUTER=hub.place.replace("tcp", "tls")))
    finally:
        hub.end()
    said = " ".join(done.stdout.split())
    assert "accepts connections, but no session: it does not speak TLS" in said
    assert "-> write tcp/ in NET_ROUTER as the router listens" in said
    assert "let TCP through" not in said


@pytest.fixture
def authority(tmp_path):
    from certificates import Authority

    return Authority(tmp_path)


def test_with_certificate_files_a_router_lets_in_those_that_its_access_list_names(
        site, authority, start_router):
    files = {name: authority.issue(name, ("peer.app-net",)).variables()
             for name in ("hub", "farm1", "farm2", "guest")}
    late = authority.issue("late", ("peer.app-net",), end=2002).variables()
    hub = start_router("--allow", "farm1", "--allow", "farm2", NET_SECRET=None, **files["hub"])

    def start(variables):
        return site(NET_SECRET=None, NET_ROUTER=hub.place, **variables)
    start(files["farm1"])
    process, guest, expired = start(files["farm2"]), start(files["guest"]), start(late)
    meet(process)
    assert says(process, "double(21, peer=peer)") == "42"
    assert says(guest, NOTE % "an access list does not have this process") == "None"
    assert says(guest, f"len(net.peers()), ran(double, 1, peer={says(process, 'str(peer)')})") \
        == "(0, ('PeerUnreachable', 'no'))"
    assert says(expired, NOTE % "not valid now") == "None"
    assert says(process, "len(net.peers(refresh=True))") == "1"


def test_under_a_secret_a_router_lets_in_those_that_come_by_an_interface(site, start_router):
    hub = start_router("--allow", "interface:lo")
    other = start_router("--allow", "interface:eth9")
    site(NET_ROUTER=hub.place)
    process, stranger = site(NET_ROUTER=hub.place), site(NET_ROUTER=other.place)
    meet(process)
    assert says(process, "double(21, peer=peer)") == "42"
    assert says(stranger, NOTE % "an access list does not have this process") == "None"


def test_two_routers_are_one_network(router, site, start_router):
    second = start_router("--connect", router.place)
    second.wait_until("connected to 1 other router")
    site()
    process = site(NET_ROUTER=second.place)
    meet(process)
    assert says(process, "double(21, peer=peer)") == "42"


def test_a_peer_of_the_lan_is_reached_directly_and_by_the_router_when_that_fails(
        router, peer_process, port_range):
    def start():
        return peer_process(APPLICATION, NET_PORT_START=port_range[1], NET_PORT_RANGE=1,
                            NET_ENGINE="zenoh", NET_SECRET=SECRET, NET_ROUTER=router.place)
    other, process = start(), start()
    process.execute("peer, = double.peers(at_least=1, timeout=%r)" % patience(15))
    assert says(process, "peer.host, len(net.peers(refresh=True))") == "('127.0.0.1', 1)"
    # Its port is closed; what comes through the engine is served.
    other.execute("[net.process.process.loop.call_soon(lambda one=one: "
                  "(net.process.process.loop.unregister(one), one.close())) "
                  "for one in net.Peer().server._listeners if one.endpoint.carrier != 'zenoh']")
    process.execute("until(lambda: closed(peer.address))")
    process.execute("net.process.process.client.close_idle()")
    assert says(process, "double(21, peer=peer)") == "42"
    assert says(process, "double.start(4, peer=peer).result()") == "8"


def test_a_benchmark_compares_it_with_zenoh():
    command = [sys.executable, "-m", "benchmarks.engine", "--peers", "2", "--calls", "10",
               "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=patience(60), env=environment())
    assert done.returncode == 0, done.stderr
    for name in ("small call", "16 MiB", "5,000 events", "search, 2 peers"):
        line, = [line for line in done.stdout.splitlines() if line.startswith(name)]
        # Ours and the goal; and Zenoh's, over the same links and over plain ones.
        assert line.count(" ms") == (4 if name in ("small call", "16 MiB") else 2)
