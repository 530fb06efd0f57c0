"""Finding peers on a LAN: real kernels' tables, broadcasts and firewalls, in namespaces."""
from __future__ import annotations

import json
import socket
import time

import pytest

from hearing import ask, until
from times import patience

# For tests that ask one search for all there are. It has half a second: on a busy machine a host
# may not have had a turn by then.
ONE_SEARCH = pytest.mark.flaky(reruns=1)

# Seconds that a search may take on a machine that is busy with other tests. The benchmark measures
# the real figures; this only tells a search that keeps to its deadline from one that hangs.
LIMIT = patience(2.0)


def everybody(lan):
    """The addresses of all peers of the shared LAN."""
    return sorted([f"{host.address}:3010" for host in lan.hosts[1:]]
                  + [f"{host.address}:3011" for host in lan.hosts[1:3]])


@ONE_SEARCH
def test_a_cold_table_finds_everybody(lan, search):
    result = search(lan.hosts[0])
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT
    # All addresses but those of hosts that have answered before.
    assert result["heard"] == len(everybody(lan)) and 246 <= result["primed"] <= 253


@ONE_SEARCH
def test_the_sweep_alone_finds_everybody_when_broadcasts_are_lost(lan, search, firewall):
    lan.hosts[0].block("output udp 10.77.5.255")
    result = search(lan.hosts[0])
    assert sorted(result["peers"]) == everybody(lan) and result["heard"] == len(lan.hosts) - 1


@ONE_SEARCH
def test_without_a_sweep_the_broadcast_finds_everybody_and_dead_addresses_stay_untouched(
        lan, search):
    result = search(lan.hosts[0], NET_SWEEP="0")
    assert sorted(result["peers"]) == everybody(lan) and result["primed"] == 0
    # ARP rows of hosts that do not exist would show that they were sent something.
    assert "FAILED" not in lan.hosts[0].run("ip", "neigh")
    assert "INCOMPLETE" not in lan.hosts[0].run("ip", "neigh")


@ONE_SEARCH
@pytest.mark.parametrize("rule", ["input udp", "output udp"])
def test_without_datagrams_the_neighbour_table_finds_everybody(lan, search, firewall, rule):
    lan.hosts[0].block(rule)
    result = search(lan.hosts[0])
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT
    assert result["heard"] == 0 and set(result["how"]) <= {"neighbour table", "sweep"}


@ONE_SEARCH
def test_peers_whose_hosts_let_no_datagram_in_are_found(lan, search, firewall):
    for host in lan.hosts[1:]:
        host.block("input udp 3010-3015")
    result = search(lan.hosts[0])
    assert sorted(result["peers"]) == everybody(lan) and result["heard"] == 0


@ONE_SEARCH
@pytest.mark.parametrize("threads", [0, 1, 5])
def test_fifty_gone_hosts_in_the_table_hide_nobody(lan, search, firewall, threads):
    lan.hosts[0].block("input udp")
    lan.hosts[0].remember(f"10.77.5.{number}" for number in range(100, 150))
    result = search(lan.hosts[0], NET_THREAD_LIMIT=threads)
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT
    assert result["neighbours"] == 57


@ONE_SEARCH
def test_few_descriptors_hide_nobody(lan, search, firewall):
    lan.hosts[0].block("input udp")
    lan.hosts[0].remember(f"10.77.5.{number}" for number in range(100, 150))
    result = search(lan.hosts[0], before="import resource; "
                    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))")
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT


@ONE_SEARCH
def test_ten_thousand_neighbours_hide_nobody(lan, search):
    client = lan.hosts[0]
    # Permanent rows do not count against the kernel's limit, which the whole machine shares.
    client.ip(*(f"neigh add 10.{100 + n // 62500}.{n // 250 % 250}.{n % 250 + 1} lladdr "
                f"02:00:00:00:00:01 dev eth0 nud permanent" for n in range(10_000)))
    try:
        result = search(client)
        assert sorted(result["peers"]) == everybody(lan)
        # Of 2,048 those that had answered by datagram were asked before.
        assert any("hosts in the neighbour table, 2,0" in note for note in result["notes"])
    finally:
        client.ip("neigh flush all nud permanent")


@ONE_SEARCH
@pytest.mark.parametrize("script, source", [
    ("exec /usr/sbin/arp -an | sed 's/ at / auf /; s/ on / auf /; s/incomplete/unvollst\xe4ndig/'",
     "arp"),
    ("sleep 60", "ip -j neigh"),
    ("exit 1", "ip -j neigh"),
    ("exec cat /dev/urandom", "arp"),
])
def test_whatever_arp_does_everybody_is_found(lan, search, tmp_path, script, source):
    arp = tmp_path / "arp"
    arp.write_bytes(b"#!/bin/sh\n" + script.encode("latin-1") + b"\n")
    arp.chmod(0o755)
    # As on a system that has no /proc/net/arp.
    result = search(lan.hosts[0], PATH=f"{tmp_path}:/usr/sbin:/usr/bin:/bin", before="""
import net.discovery.lan.neighbours as table
table.SOURCES = tuple(one for one in table.SOURCES if one[0] != table.PROC_TABLE)
""")
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT
    assert f"neighbour table: {source}, " in result["text"]


@ONE_SEARCH
def test_a_hanging_arp_costs_no_peer_even_without_datagrams(lan, search, firewall, tmp_path):
    arp = tmp_path / "arp"
    arp.write_text("#!/bin/sh\nsleep 60\n")
    arp.chmod(0o755)
    lan.hosts[0].block("input udp")
    result = search(lan.hosts[0], PATH=f"{tmp_path}:/usr/sbin:/usr/bin:/bin", before="""
import net.discovery.lan.neighbours as table
table.SOURCES = tuple(one for one in table.SOURCES if one[0] != table.PROC_TABLE)
""")
    assert sorted(result["peers"]) == everybody(lan) and result["seconds"] < LIMIT


@ONE_SEARCH
def test_a_host_that_drops_the_first_port_has_its_second_peer_found(lan, search, firewall):
    lan.hosts[0].block("input udp")
    lan.hosts[1].block("input tcp 3010")
    result = search(lan.hosts[0])
    expected = [place for place in everybody(lan) if place != f"{lan.hosts[1].address}:3010"]
    assert sorted(result["peers"]) == expected


@ONE_SEARCH
def test_a_peer_that_answers_datagrams_only_is_named_by_the_doctor(lan, search, firewall):
    lan.hosts[3].block("input tcp 3010-3015")
    assert sorted(search(lan.hosts[0])["peers"]) == everybody(lan)
    text = lan.hosts[0].python("from net.cli import main; main(['doctor'])")
    told = " ".join(text.split())
    assert f"a firewall lets UDP through but not TCP: peers at {lan.hosts[3].address}:3010" in told


@ONE_SEARCH
def test_without_any_table_or_datagram_the_named_peers_are_found(lan, search, firewall):
    lan.hosts[0].block("input udp", "output udp")
    named = f"{lan.hosts[1].address}:3011,{lan.hosts[2].address}"
    result = search(lan.hosts[0], NET_SWEEP="0", PATH="/nonexistent", NET_PEERS=named)
    assert {f"{lan.hosts[1].address}:3011", f"{lan.hosts[2].address}:3010",
            f"{lan.hosts[2].address}:3011"} <= set(result["peers"])
    assert result["neighbours"] <= 2 and result["seconds"] < LIMIT


def test_with_a_loopback_host_no_packet_leaves_the_interface(lan, search):
    client = lan.hosts[0]

    def sent():
        link, = json.loads(client.run("ip", "-s", "-j", "link", "show", "dev", "eth0"))
        return link["stats64"]["tx"]["packets"]

    before = sent()
    result = search(client, NET_HOST="127.0.0.1", NET_PEERS=lan.hosts[1].address,
                    before="net.Peer(); stop = net.watch(lambda *news: None)")
    assert result["peers"] == [] and sent() == before
    search(client)
    assert sent() > before, "the counter counts"


@ONE_SEARCH
def test_groups_and_hubs_are_found_across_the_lan(build, search):
    with build(4) as lan:
        client, first, second, third = lan.hosts
        first.peer(NET_GROUP="render")
        second.peer(NET_GROUP="render", NET_IS_HUB="true")
        third.peer()
        assert search(client)["groups"] == ["render", "render", None]
        assert search(client, "'render'")["peers"] == ["10.77.5.2:3010", "10.77.5.3:3010"]
        assert search(client, "hubs_only=True")["peers"] == ["10.77.5.3:3010"]
        assert search(client, "groups=['nobody']")["peers"] == []
        assert search(client, "on_host=True")["peers"] == []
        assert search(third, "on_host=True")["peers"] == ["10.77.5.4:3010"]


@pytest.fixture
def watched(build):
    """A LAN of four hosts, with a peer on the first that prints who comes and goes."""
    with build(4) as lan:
        watcher = lan.hosts[0].peer("""
            import net
            net.watch(lambda change, peer: print(change, f"{peer.host}:{peer.port}"))
            net.peers()
        """)
        yield lan, watcher


def test_a_late_joiner_and_a_goodbye_are_heard_without_a_search(watched):
    lan, watcher = watched
    # Sees to it that what follows is no search's work.
    watcher.execute("import net.discovery.search; net.discovery.search.search = None")
    late = lan.hosts[1].peer()
    assert watcher.read_line(10) == "came 10.77.5.2:3010"
    watcher.execute("print([peer.host for peer in net.peers()])")
    assert watcher.read_line() == "['10.77.5.2']"
    late.close()
    assert watcher.read_line(10) == "left 10.77.5.2:3010"
    watcher.execute("print(len(net.peers()))")
    assert watcher.read_line() == "0"


#: The first search of this process does not end until it is told to.
HELD = """
import math, threading, time
import net
import net.discovery.search
from net.discovery import known_peers
from net.discovery.lan import rounds

rounds.END = net.discovery.search.END = 600
enough, found, asking = threading.Event(), [], []
over = rounds.Rounds.over

def held(one, now):
    asking[:] = [one]
    return enough.is_set() and over(one, now)

rounds.Rounds.over = held
threading.Thread(target=lambda: found.append([peer.host for peer in net.peers()])).start()

def no_question_follows():
    return bool(asking) and asking[0].due == math.inf and over(asking[0], time.monotonic())

def greeted():
    return len(known_peers().finders[0].node.membership.newcomers(0.0))
"""


def test_a_search_asks_those_that_have_started_since_its_last_question(build):
    with build(3) as lan:
        lan.hosts[1].peer()
        searcher = lan.hosts[0].peer(HELD)
        until(lambda: ask(searcher, "no_question_follows()"), 20)
        lan.hosts[2].peer()
        until(lambda: ask(searcher, "greeted()"), 20)
        searcher.execute("enough.set()")
        assert until(lambda: ask(searcher, "found"), 20) == [["10.77.5.2", "10.77.5.3"]]


def test_a_function_that_is_registered_later_is_known_at_once(watched):
    lan, watcher = watched
    # Or it would be asked for again, after a while.
    watcher.execute("import net.discovery.functions as functions; functions.FIRST_WAIT = 600")
    other = lan.hosts[1].peer("import net")
    assert watcher.read_line(10) == "came 10.77.5.2:3010"
    watcher.execute("print(len(net.remote('later').peers()))")
    assert watcher.read_line() == "0"
    other.execute("net.connect('later')(abs)")
    watcher.execute("print(len(net.remote('later').peers(at_least=1, timeout=20)), flush=True)")
    assert watcher.read_line(20) == "1"
    watcher.execute("print(net.remote('later')(-3, peer=net.peers()[0]))")
    assert watcher.read_line() == "3"


@ONE_SEARCH
def test_a_killed_peer_is_gone_at_a_refresh_and_noticed_by_a_watch(watched, search):
    lan, watcher = watched
    watcher.execute("import net.discovery.cache as k; k.WATCH_SECONDS = 0.3")
    doomed = lan.hosts[2].peer()
    assert watcher.read_line(10) == "came 10.77.5.3:3010"
    doomed.kill()
    # The look that waits has been given the old interval; a newcomer ends it.
    lan.hosts[1].peer()
    assert {watcher.read_line(15), watcher.read_line(15)} == {
        "came 10.77.5.2:3010", "left 10.77.5.3:3010"}
    assert search(lan.hosts[3])["peers"] == ["10.77.5.1:3010", "10.77.5.2:3010"]


@ONE_SEARCH
def test_a_pulled_cable_ends_in_time_and_a_plugged_one_finds_all_again(watched, search):
    lan, _ = watched
    client = lan.hosts[1]
    lan.hosts[2].peer()
    client.ip("link set eth0 down")
    result = search(client)
    assert result["peers"] == [] and result["seconds"] < LIMIT
    client.ip("link set eth0 up")
    assert search(client)["peers"] == ["10.77.5.1:3010", "10.77.5.3:3010"]


@ONE_SEARCH
def test_two_interfaces_are_both_searched_and_a_peer_on_both_is_one(build, search):
    with build(3) as lan:
        client, both, first_only = lan.hosts
        second_only = lan.add_host()
        client.join("10.88.0", "eth1")
        both.join("10.88.0", "eth1")
        second_only.join("10.88.0", "eth0")
        both.peer(NET_HOST="0.0.0.0")
        first_only.peer()
        second_only.peer()
        result = search(client)
        assert len(result["peers"]) == 3 and "10.88.0.4:3010" in result["peers"]
        assert len({"10.77.5.2:3010", "10.88.0.2:3010"} & set(result["peers"])) == 1
        only = search(client, NET_INTERFACES="eth1")
        assert only["peers"] == ["10.88.0.2:3010", "10.88.0.4:3010"]
        assert any("not in NET_INTERFACES" in note for note in only["notes"])


@pytest.fixture
def routed(build):
    """A client and a peer in two networks, with a router between them."""
    with build(2) as lan:
        client, router = lan.hosts
        far = lan.add_host()
        router.join("10.88.0", "eth1")
        far.join("10.88.0", "eth0")
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        client.ip("route add default via 10.77.5.2")
        far.ip("route add default via 10.88.0.2")
        far.peer()
        yield client, router, far


ASK = """
import socket
from net.discovery.lan.datagrams import ASK, Message, encode, encode_question
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout({seconds})
sock.sendto(encode(Message(ASK, body=encode_question())), ("10.88.0.3", 3010))
try:
    print(sock.recvfrom(2048)[1])
except socket.timeout:
    print("silence")
"""


def test_a_source_beyond_a_router_gets_no_datagram(routed):
    client, router, _ = routed
    assert router.python(ASK.format(seconds=patience(5))).strip() == "('10.88.0.3', 3010)"
    assert client.python(ASK.format(seconds=0.5)).strip() == "silence"


@ONE_SEARCH
def test_a_named_peer_beyond_a_router_is_found(routed, search):
    client, _, _ = routed
    assert search(client)["peers"] == []
    assert search(client, NET_PEERS="10.88.0.3")["peers"] == ["10.88.0.3:3010"]


def test_a_named_peer_beyond_a_router_that_starts_anew_is_known_soon(routed):
    client, _, far = routed
    watcher = client.peer("""
        import net
        net.watch(lambda change, peer: print(change, peer.info["pid"], flush=True))
    """, NET_PEERS="10.88.0.3:3010,10.88.0.3:3011")
    first = watcher.read_line(20).split()
    second = far.peer()
    assert watcher.read_line(20).split() == ["came", str(second.pid)] != first
    second.kill()
    assert watcher.read_line(20).split() == ["left", str(second.pid)]
    third = far.peer()
    assert watcher.read_line(20).split() == ["came", str(third.pid)]


@ONE_SEARCH
def test_answers_that_point_elsewhere_are_not_dialled(build, search):
    """A host answers each question in the name of others; nobody but neighbours is dialled."""
    with build(3) as lan:
        client, liar, honest = lan.hosts
        honest.peer()
        forge = """
            import socket, struct
            from net.discovery.lan.datagrams import (ANSWER, ASK, Message, decode, encode,
                                                     encode_said)
            asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asked.bind(("", 3010))
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            def answer():
                datagram, source = asked.recvfrom(2048)
                message = decode(datagram)
                if message is None or message.kind != ASK:
                    return
                facts = b'{"host": "%s", "port": 3010, "group": null}'
                here = encode(Message(ANSWER, 4, 3010, message.nonce, b"l" * 16,
                                      encode_said(facts, bytes(8), len(facts))))
                for forged in ("203.0.113.7", "10.77.99.9"):
                    udp = struct.pack("!HHHH", 3010, source[1], 8 + len(here), 0) + here
                    head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                                       socket.inet_aton(forged), socket.inet_aton(source[0]))
                    raw.sendto(head + udp, source)
                    asked.sendto(here, source)
            import threading
            def run():
                while True:
                    answer()
            threading.Thread(target=run, daemon=True).start()
        """
        liar.peer(forge, NET_PORT_START="3020")
        client.ip("route add default via 10.77.5.2")
        result = search(client, before="""
import sys
def note(event, args):
    if event == "socket.connect" and args[1][0].startswith(("203.", "10.77.99.")) \\
            and args[1][1] != 9:
        print("DIALLED", args[1])
sys.addaudithook(note)
import socket; real = socket.socket.connect_ex
""")
        # It has answered in its own name, too, and counts as a peer until it is called.
        assert set(result["peers"]) == {f"{honest.address}:3010", f"{liar.address}:3010"}
        assert "203.0.113.7" not in result["text"] and "10.77.99.9" not in result["text"]


@ONE_SEARCH
def test_no_name_is_resolved_where_the_resolver_is_out_of_reach(lan, search):
    started = time.monotonic()
    result = search(lan.hosts[0], before="""
import socket
def resolve(*args, **kwargs):
    raise SystemExit(f"resolved {args}")
for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo", "getfqdn"):
    setattr(socket, name, resolve)
""")
    assert sorted(result["peers"]) == everybody(lan) and time.monotonic() - started < patience(10)


def test_the_calling_process_is_not_listed_and_calls_what_it_found(lan, search):
    result = search(lan.hosts[0], before="peer = net.Peer()")
    assert f"{lan.hosts[0].address}:3010" not in result["peers"]
    text = lan.hosts[0].python("""
import net
print(all(net.pass_through(n, peer=peer) == n for n, peer in enumerate(net.peers())))
""")
    assert text.strip() == "True"


def test_forged_questions_keep_nobody_from_an_answer(lan):
    """From source port 0, from an address off the link, and from neighbours that are not there."""
    text = lan.hosts[0].python("""
import os, socket, struct, threading, time
from net.discovery.lan.datagrams import ASK, ASK_BYTES, HELLO, Message, encode, encode_question
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
target = socket.inet_aton("10.77.5.2")
question = encode_question(size=ASK_BYTES)
def forge():
    for number in range(300):
        source, port = (("10.77.5.9", 0), ("198.51.100.7", 3010),
                        ("10.77.5.%d" % (50 + number % 200), 3010))[number % 3]
        data = encode(Message((ASK, HELLO)[number % 2], 2, 3010, os.urandom(8), os.urandom(16),
                              question))
        raw.sendto(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0,
                               socket.inet_aton(source), target)
                   + struct.pack("!HHHH", port, 3010, 8 + len(data), 0) + data,
                   ("10.77.5.2", 0))
        time.sleep(1 / 120)
threading.Thread(target=forge, daemon=True).start()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
answered = 0
while threading.active_count() > 1:
    nonce = os.urandom(8)
    sock.sendto(encode(Message(ASK, 0, 0, nonce, body=question)), ("10.77.5.2", 3010))
    answered += nonce in sock.recv(2048)
    time.sleep(0.1)
print(answered > 3)
""")
    assert text.strip() == "True"


# It counts the answers of a second, which a busy machine may put off.
@pytest.mark.flaky(reruns=1)
def test_a_responder_floods_nobody(lan):
    text = lan.hosts[0].python("""
import socket, time
from net.discovery.lan.datagrams import ASK, Message, encode, encode_question
from net.discovery.lan.responder import BURST, PER_SECOND
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(0.3)
question = encode(Message(ASK, body=encode_question(size=200)))
started = time.monotonic()
sizes = []
for number in range(400):
    sock.sendto(question, ("10.77.5.2", 3010))
    sock.sendto(b"x" * 900, ("10.77.5.2", 3010))
    time.sleep(0.001)
spent = time.monotonic() - started
try:
    while True:
        sizes.append(len(sock.recv(2048)))
except socket.timeout:
    pass
print(0 < len(sizes) <= BURST + PER_SECOND * (1 + spent), max(sizes) <= len(question))
""")
    assert text.strip() == "True True"


def test_the_harness_touches_nothing_outside_its_namespaces(build):
    def interfaces():
        return [name for _, name in socket.if_nameindex()]

    before = interfaces()
    with build(3) as lan:
        assert interfaces() == before
        assert lan.hosts[0].run("ip", "-br", "link").count("eth0") == 1
    assert interfaces() == before


@ONE_SEARCH
def test_two_lans_side_by_side_do_not_see_each_other(build, search):
    with build(2) as one, build(2) as other:
        one.hosts[1].peer()
        assert search(one.hosts[0])["peers"] == ["10.77.5.2:3010"]
        assert search(other.hosts[0])["peers"] == []
