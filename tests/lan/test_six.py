"""IPv6: on a LAN that has nothing else, and beside IPv4."""
from __future__ import annotations

import signal
from typing import Any, Iterator

import pytest

from hearing import PUBLISHER, SUBSCRIBER, ask, until
from virtual_lan import VirtualLan, why_no_six

ULA = "fd77:5::"


@pytest.fixture(scope="module", autouse=True)
def _needs_six() -> None:
    reason = why_no_six()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def lan(build: Any) -> Iterator[VirtualLan]:
    """Two hosts with IPv4 and IPv6."""
    with build(2, six=ULA) as made:
        yield made


@pytest.fixture(scope="module")
def bare(build: Any) -> Iterator[VirtualLan]:
    """Two hosts with nothing but link-local addresses."""
    with build(2, four=False, six="") as made:
        yield made


def call(host: Any, *forms: str) -> Any:
    """What a new process on a host gets from a peer that it calls by these forms."""
    return host.python("import net\n" + "".join(
        f"assert net.pass_through(5, peer={form!r}) == 5\n" for form in forms)
        + f"print(net.pass_through(7, peer=({forms[0]!r})))").split()[-1]


def test_a_peer_is_called_at_each_address_of_its_host(lan):
    peer = lan.hosts[1].peer("import net")
    forms = ["[fd77:5::2]:3010", "[fe80::2%eth0]:3010", "[FE80:0::2]:3010", "10.77.5.2:3010"]
    for host in lan.hosts:
        assert call(host, *forms) == "7"
    # One that has IPv4 is known by it.
    assert peer.address == ("10.77.5.2", 3010)
    peer.stop()


FORGED = """
import os, socket, struct, threading, time
from net.discovery.lan.datagrams import ASK, ASK_BYTES, HELLO, Message, encode, encode_question
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
pton = lambda host: socket.inet_pton(socket.AF_INET6, host)
target = pton("fd77:5::2")
question = encode_question(size=ASK_BYTES)
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data + bytes(len(data) % 2))) \
        if len(data) % 2 == 0 else checksum(data + bytes(1)) ^ 0xffff
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff
def forge():
    begun = time.monotonic()
    for number in range({count}):
        source, port = (("fd77:5::9", 0), ("2001:db8::7", 3010),
                        ("fd77:5::%x" % (0x50 + number % 5000), 3010),
                        ("fe80::%x" % (0x50 + number % 5000), 3010))[number % 4]
        data = encode(Message((ASK, HELLO)[number // 4 % 2], 2, 3010, os.urandom(8),
                              os.urandom(16), question))
        size = 8 + len(data)
        ends = pton(source) + target
        sums = checksum(ends + struct.pack("!IIHHHH", size, 17, port, 3010, size, 0) + data)
        raw.sendto(struct.pack("!IHBB", 6 << 28, size, 17, 64) + ends
                   + struct.pack("!HHHH", port, 3010, size, sums or 0xffff) + data,
                   ("fd77:5::2", 0))
        time.sleep(max(0, begun + number / {rate} - time.monotonic()))
forger = threading.Thread(target=forge, daemon=True)
forger.start()
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.settimeout(1)
asked = answered = slowest = 0
while forger.is_alive():
    nonce = os.urandom(8)
    started = time.monotonic()
    sock.sendto(encode(Message(ASK, 0, 0, nonce, body=question)), ("fd77:5::2", 3010))
    asked += 1
    try:
        while nonce not in sock.recv(2048):
            pass
        answered += 1
        slowest = max(slowest, time.monotonic() - started)
    except socket.timeout:
        pass
    time.sleep(0.1)
print(asked, answered, slowest)
"""


def ask_beside(lan: VirtualLan, rate: int, count: int) -> tuple[int, int]:
    """How many questions were asked and answered beside forged ones, at a number a second: from
    source port 0, from an address off the link, and from neighbours that are not there."""
    peer = lan.hosts[1].peer("import net; net.Peer()")
    text = lan.hosts[0].python(FORGED.replace("{count}", str(count)).replace("{rate}", str(rate)))
    peer.stop()
    print(text)
    asked, answered, _ = text.split()
    return int(asked), int(answered)


def test_forged_questions_keep_nobody_from_an_answer(lan):
    asked, answered = ask_beside(lan, 120, 400)
    assert asked > 10 and answered == asked


@pytest.mark.stress
def test_ten_times_as_many_keep_few_from_an_answer(lan):
    """Answers to hosts that are not there fill the kernel's buffer."""
    asked, answered = ask_beside(lan, 1200, 8000)
    assert asked > 10 and answered > 0.6 * asked


def test_without_any_other_address_a_peer_is_called_at_its_link_local_one(bare):
    peer = bare.hosts[1].peer("import net")
    assert ask(peer, "net.Peer().host") == "fe80::2%eth0"
    # Its zone is nobody else's business.
    assert ask(peer, "net.Peer().id.host, net.info()['host']") == ("fe80::2", "fe80::2")
    for host in bare.hosts:
        assert call(host, "[fe80::2%eth0]:3010", "[fe80::2]:3010") == "7"
    peer.stop()


@pytest.mark.parametrize("setting, bound, others", [
    ("fd77:5::2", "fd77:5::2", ["fe80::2%eth0", "10.77.5.2"]),
    ("fe80::2%eth0", "fe80::2%eth0", ["fd77:5::2", "10.77.5.2"]),
    ("0.0.0.0", "10.77.5.2", ["fd77:5::2", "fe80::2%eth0"]),
])
def test_net_host_may_be_any_address_and_then_it_serves_at_no_other(lan, setting, bound, others):
    peer = lan.hosts[1].peer("import net", NET_HOST=setting)
    assert ask(peer, "net.Peer().host") == bound
    print(lan.hosts[0].python(f"""
import net
assert net.pass_through(5, peer=({bound!r}, 3010)) == 5
for host in {others!r}:
    try:
        net.pass_through(5, peer=(host, 3010))
    except net.PeerUnreachable:
        continue
    raise AssertionError(host)
"""))
    peer.stop()


def test_net_host_may_name_an_interface_that_has_no_ipv4(bare):
    peer = bare.hosts[1].peer("import net", NET_HOST="eth0")
    assert ask(peer, "net.Peer().host") == "fe80::2%eth0"
    peer.stop()


def test_events_come_over_a_link_local_address(bare):
    publisher = bare.hosts[1].peer(PUBLISHER)
    script = SUBSCRIBER.format(options="peers=['[fe80::2%eth0]:3010'], ")
    subscriber = bare.hosts[0].peer(script)
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))"))
    publisher.execute("many(0, 100)")
    until(lambda: ask(subscriber, "len(heard)") == 100)
    for one in (publisher, subscriber):
        one.stop()


def test_a_stranger_from_elsewhere_is_refused_as_with_ipv4(build):
    with build(2, six=ULA) as lan:
        _refuse_a_stranger(*lan.hosts)


def _refuse_a_stranger(here: Any, there: Any) -> None:
    here.ip("addr del fd77:5::1/64 dev eth0", "addr add 2001:db8::1/128 dev eth0",
            "route add fd77:5::/64 dev eth0")
    there.ip("route add 2001:db8::1 dev eth0")
    attempt = """
import net
try:
    print(net.pass_through(5, peer="[fd77:5::2]:3010"))
except net.AuthenticationError as problem:
    print(problem)
"""
    peer = there.peer("import net")
    assert "2001:db8::1 is in no private network" in here.python(attempt)
    peer.stop()
    # In a network of its own it is a neighbour.
    there.ip("addr add 2001:db8::2/64 dev eth0")
    peer = there.peer("import net")
    assert here.python(attempt) == "5\n"
    peer.stop()


# -------------------------------------------------------------------------------- who is there

WATCHER = PUBLISHER + SUBSCRIBER.format(options="") + """
told = []

@net.connect("who")
def who():
    return net.caller().address[0]

net.watch(lambda change, peer: told.append((change, peer.host)))
"""


@pytest.fixture(scope="module")
def everybody(build: Any) -> Iterator[VirtualLan]:
    """Five hosts without IPv4, with a peer on each but the first and two on the last."""
    with build(5, four=False, six=ULA) as made:
        made.peers(*made.hosts[1:], made.hosts[4])
        yield made


def places(*numbers: int) -> list[str]:
    return [f"[{ULA}{number}]:3010" for number in numbers]


def test_all_peers_answer_at_an_address_that_others_can_use(everybody, search):
    result = search(everybody.hosts[0])
    assert result["peers"] == [*places(2, 3, 4, 5), "[fd77:5::5]:3011"]
    assert set(result["how"]) == {"datagram"} and result["primed"] == 0
    result = search(everybody.hosts[4], "on_host=True")
    assert result["peers"] == [*places(5), "[fd77:5::5]:3011"]


def test_without_datagrams_the_neighbours_are_asked(everybody, search, firewall):
    client = everybody.hosts[0]
    client.block("input udp")
    try:
        result = search(client)
    finally:
        client.unblock()
    assert result["peers"] == [*places(2, 3, 4, 5), "[fd77:5::5]:3011"] and not result["heard"]
    assert set(result["how"]) == {"neighbour table"} and "netlink" in result["text"]


def test_link_local_addresses_will_do(bare, search):
    peers = bare.peers(bare.hosts[1], bare.hosts[1], NET_SECRET="a secret of sixteen")
    found = search(bare.hosts[0], NET_SECRET="a secret of sixteen")
    assert found["peers"] == ["[fe80::2%eth0]:3010", "[fe80::2%eth0]:3011"]
    assert set(found["how"]) == {"datagram"}
    assert search(bare.hosts[0], NET_INTERFACES="eth0")["peers"] == []  # it has no secret
    for peer in peers:
        peer.stop()


def test_a_peer_with_both_is_listed_once_and_by_ipv4(lan, search):
    here, there = lan.hosts
    peers = [there.peer(), there.peer(NET_HOST="fd77:5::2"), there.peer(NET_HOST="0.0.0.0")]
    expected = [f"10.77.5.2:{peers[0].address[1]}", f"10.77.5.2:{peers[2].address[1]}",
                f"[fd77:5::2]:{peers[1].address[1]}"]
    try:
        for host in (here, there):
            found = search(host)
            assert found["peers"] == expected and set(found["how"]) == {"datagram"}
    finally:
        for peer in peers:
            peer.stop()


def test_a_peer_on_the_loopback_of_ipv6_stays_on_its_host(lan, search):
    peer = lan.hosts[1].peer(NET_HOST="::1")
    try:
        assert search(lan.hosts[0])["peers"] == []
        for setting in (None, "::1"):
            assert search(lan.hosts[1], NET_HOST=setting)["peers"] == ["[::1]:3010"]
    finally:
        peer.stop()


def hosts(process: Any) -> list[str]:
    return ask(process, "sorted(peer.host for peer in net.peers())")


def lists(process: Any, *addresses: str, within: float = 8.0) -> None:
    try:
        until(lambda: hosts(process) == sorted(addresses), within)
    except AssertionError:
        raise AssertionError(f"lists {hosts(process)}, not {sorted(addresses)}") from None


def hears(publisher: Any, subscriber: Any, number: int) -> None:
    """Wait until what one triggers from now on comes to the other."""
    def heard() -> bool:
        publisher.execute(f"many({number}, {number + 1})")
        return ask(subscriber, f"{number} in heard")

    until(heard)


@pytest.fixture(params=[ULA, ""], ids=["a network", "link-local"])
def changing(build: Any, request: Any) -> Iterator[VirtualLan]:
    with build(3, four=False, six=request.param) as made:
        yield made


def test_peers_that_come_go_and_die_are_known_and_heard(changing):
    here, there = changing.peers(*changing.hosts[:2], script=WATCHER)
    lists(here, changing.hosts[1].address)
    lists(there, changing.hosts[0].address)
    hears(there, here, 1000)
    third = changing.hosts[2].peer(WATCHER)
    for one in (here, there):
        lists(one, *(host.address for host in changing.hosts if host.address !=
                     (changing.hosts[0] if one is here else changing.hosts[1]).address))
    third.stop()
    lists(here, changing.hosts[1].address)
    there.signal(signal.SIGKILL)
    lists(here)
    # The list is shorter a moment before that is told.
    until(lambda: len(ask(here, "told")) >= 4)
    assert ask(here, "[change for change, host in told]") == ["came", "came", "left", "left"]


def test_a_peer_is_known_by_the_address_that_it_names_though_answers_from_there_are_lost(
        build, search, firewall):
    with build(2, four=False, six=ULA) as lan:
        here, there = lan.hosts
        here.block("input udp fd77:5::1")
        there = there.peer(WATCHER)
        assert search(here)["peers"] == places(2)
        watcher = here.peer(WATCHER)
        lists(watcher, "fd77:5::2")
        hears(there, watcher, 1000)
        # What asks in the background does not look further than the first answer.
        watcher.execute("net.peers(refresh=True)")
        assert ask(watcher, "told") == [("came", "fd77:5::2")]
        watcher.stop()
        # Where nothing gets there, the other address will do.
        here.unblock()
        here.block("input udp fd77:5::1", "input tcp fd77:5::1")
        assert search(here)["peers"] == ["[fe80::2%eth0]:3010"]
        here.unblock()


@pytest.fixture
def pair(build: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Watchers on two hosts without IPv4 that know each other, and the host of the second."""
    with build(2, four=False, six=ULA) as made:
        here, there = made.peers(*made.hosts, script=WATCHER)
        lists(here, "fd77:5::2")
        lists(there, "fd77:5::1")
        yield here, there, made.hosts[1]


def test_a_host_with_a_new_address_is_known_there_and_nowhere_else(pair):
    here, there, host = pair
    host.ip("addr del fd77:5::2/64 dev eth0", "addr add fd77:5::102/64 dev eth0")
    lists(here, "fd77:5::102")
    lists(there, "fd77:5::1")
    assert ask(there, "net.Peer().host") == "fd77:5::102"
    assert ask(here, "net.pass_through(5, peer=net.peers()[0])") == 5
    hears(there, here, 1000)
    hears(here, there, 1001)


def test_addresses_that_change_for_privacy_change_nothing_for_others(pair):
    here, there, host = pair
    host.run("sh", "-c", "echo 2 > /proc/sys/net/ipv6/conf/eth0/use_tempaddr")
    host.ip("addr change fd77:5::2/64 dev eth0 mngtmpaddr")
    temporary = until(lambda: [line.split()[1] for line in host.run(
        "ip", "-6", "addr", "show", "dev", "eth0", "temporary").splitlines() if "inet6" in line])
    # What this host calls from is the temporary one.
    assert ask(there, "who(peer=net.peers()[0])") == temporary[0].partition("/")[0]
    hears(there, here, 1000)
    hears(here, there, 1001)
    host.ip(f"addr del {temporary[0]} dev eth0")
    hears(there, here, 1002)
    hears(here, there, 1003)
    assert hosts(here) == ["fd77:5::2"] and ask(there, "net.Peer().host") == "fd77:5::2"
    assert ask(here, "told") == [("came", "fd77:5::2")]


def test_a_host_that_gets_ipv4_is_known_by_it(pair):
    here, there, host = pair
    host.ip("addr add 10.77.5.2/24 broadcast + dev eth0")
    # The other one has no IPv4.
    until(lambda: ask(there, "net.Peer().host") == "10.77.5.2")
    hears(there, here, 1000)
    lists(here, "fd77:5::2")
