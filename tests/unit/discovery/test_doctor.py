"""The doctor: each broken setup has its cause and what to do, a sound one has none."""
from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from net.discovery import doctor
from net.discovery.doctor import ROUTER_REMEDIES, Case, causes, describe, try_to_connect
from net.discovery.lan.asker import NO_ROOM
from net.discovery.lan.losses import Losses
from net.discovery.listing import Peers
from net.discovery.probes import look_at
from net.discovery.report import Report
from net.errors import PeerBusy, ProtocolError
from net.link import authority
from net.link.interfaces import Interface, targets
from net.link.zenoh import NO_ROUTER, NOT_ALLOWED
from net.settings import settings
from net.identity import PeerId, make_id
from net.wire.messages import encode_refusal
from net.wire.session import MAGIC, PREFACE, PrefaceParser
from strangers import Stranger, peer as introduced, says
from times import patience

LAN = "eth0 192.168.1.10/24"


def peer(host="192.168.1.20", group=None, **info):
    return PeerId(make_id(3010, host, group), {"found": "datagram", "wire": "modern", **info})


@pytest.fixture(autouse=True)
def on_a_lan(monkeypatch):
    """The settings of an ordinary process: nothing set. No diagnosis sends anything."""
    monkeypatch.setitem(settings.__dict__, "host", None)
    monkeypatch.setitem(settings.__dict__, "group", None)
    monkeypatch.setitem(settings.__dict__, "port_start", 3010)


@pytest.fixture
def case():
    """A sound case, with changes."""
    def make(*peers, host="192.168.1.10", free=(3011,), place="", **facts):
        report = Report()
        sound = {"own": ["127.0.0.1", "192.168.1.10"], "searched_lan": True, "interfaces": [LAN],
                 "neighbour_source": "/proc/net/arp", "neighbours": 3, "primed": 253,
                 "heard": len(peers),
                 "outcomes": {one.address: "peer" for one in peers}}
        report.__dict__.update({**sound, **facts})
        return Case(Peers(peers, report), host, list(free), place)
    return make


def only(case):
    cause, = causes(case)
    return f"{cause.cause} -> {cause.remedy}"


def test_nothing_is_wrong_with_a_sound_case(case):
    assert causes(case(peer())) == []
    assert "no cause for trouble found" in describe(case(peer()))


def test_bound_to_loopback(case, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "host", "127.0.0.1")
    text = only(case(host="127.0.0.1", searched_lan=False, interfaces=[], place="container"))
    assert "NET_HOST=127.0.0.1 keeps everything on this host" in text and "unset" in text


def test_no_network_at_all(case):
    text = only(case(host="127.0.0.1", own=["127.0.0.1"], interfaces=[]))
    assert "no network" in text


def test_all_ports_taken(case):
    text = only(case(peer(), free=()))
    assert "3010 to 3015" in text and "NoFreePort" in text and "NET_PORT_RANGE" in text


OTHERS = ("192.168.1.30", 3010), ("192.168.1.31", 3010)


def test_a_firewall_that_drops_or_rejects_everything_is_named(case):
    text = only(case(heard=0, outcomes={one: "silent" for one in OTHERS}))
    assert "none of the 2 other hosts" in text and "firewall drops" in text and "open TCP" in text
    text = only(case(heard=0, outcomes={OTHERS[0]: "unreachable", OTHERS[1]: "silent"}))
    assert "1 of 2 hosts are there, and a firewall rejects" in text and "192.168.1.30" in text


def test_a_network_that_loses_or_delays_is_named_with_its_figures(case):
    text = only(case(peer())._replace(losses=Losses(100, 12)))
    assert "of 100 questions to peers that answer, 12 (12%) came to nothing" in text
    text = only(case(peer(), round_trip=0.25))
    assert "250 ms on average" in text
    for few in (Losses(16, 1), Losses(256, 7), Losses(0, 0)):
        assert causes(case(peer(), round_trip=0.02)._replace(losses=few)) == []


def test_no_neighbours(case):
    text = only(case(neighbours=0, heard=0, outcomes={("127.0.0.1", 3010): "refused"}))
    assert "no neighbours" in text and "NET_PEERS" in text


def test_a_network_that_is_too_large_to_ask_each_address(case):
    wide = Interface("eth0", "10.60.0.1", 16)
    text = only(case(neighbours=0, heard=0, notes=targets([wide], ())[1]))
    assert "eth0 10.60.0.1/16 is too large" in text and "peers beyond 10.60.0.0/24" in text
    assert "name them in NET_PEERS" in text
    assert causes(case(peer(), notes=targets([wide], ())[1])) == []


def test_hosts_that_are_there_and_have_no_peer(case):
    refused = {(host, port): "refused" for host, _ in OTHERS for port in range(3010, 3016)}
    text = only(case(heard=0, outcomes=refused))
    assert "all 2 other hosts" in text and "no peer is at ports 3010-3015" in text
    assert "192.168.1.30, 192.168.1.31" in text and "NET_PORT_START" in text
    assert causes(case(peer(), outcomes={**refused, ("192.168.1.20", 3010): "peer"})) == []


def test_no_neighbours_in_ipv6_where_nothing_is_swept(case):
    six = {"interfaces": ["eth0 fd00::5/64", "eth0 fe80::5%eth0/64"], "primed": 0,
           "neighbours": 0, "host": "fd00::5"}
    text = only(case(**six))
    assert "no neighbours" in text and "after a question to all on the link" in text


def test_no_neighbours_where_this_user_does_not_sweep(case):
    alone = {"primed": 0, "neighbours": 0, "heard": 0}
    text = only(case(notes=["not swept: this user may not; set NET_SWEEP=1"], **alone))
    assert "no neighbours" in text and "NET_SWEEP=1 asks each address" in text
    assert "NET_SWEEP=1" not in only(case(**alone))


def test_a_link_local_address_without_its_interface(case):
    place = ("fe80::7", 3010)
    text = only(case(peer(), outcomes={place: "unreachable"}))
    assert "[fe80::7]:3010 may be at any interface" in text and "[fe80::7%eth0]:3010" in text


def test_only_container_interfaces(case):
    found = causes(case(interfaces=["docker0 172.17.0.1/16"], primed=0, neighbours=0, heard=0,
                        notes=["docker0 172.17.0.1/16: not swept, a bridge to containers or "
                               "virtual machines"]))
    assert "only networks of this host are bridges" in found[0].cause
    assert "NET_INTERFACES" in found[0].remedy


def test_the_wrong_group(case, monkeypatch):
    monkeypatch.setitem(settings.__dict__, "group", "render")
    text = only(case(peer(group="lighting"), peer("192.168.1.21")))
    assert "none of the 2 peers found is in the group 'render'" in text and "lighting" in text


@pytest.mark.parametrize("what", ["skipped: it does not speak TLS; both sides need the same",
                                  "speaks TLS: a peer with a secret, or another TLS server"])
def test_a_secret_on_one_side(case, what):
    text = only(case(peer(), strangers=[(("192.168.1.30", 3010), what)]))
    assert "at 192.168.1.30:3010: " in text and "NET_SECRET" in text and "skipped" not in text


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.30"])
def test_a_peer_that_speaks_another_version_of_the_wire(case, port_range, host):
    with pytest.raises(ProtocolError) as caught:  # what such a peer says, the other way round
        PrefaceParser().receive(PREFACE.pack(MAGIC, 2, 0, 0))
    other = Stranger(port_range[0], says(b"".join(encode_refusal(0, caught.value))))
    try:
        (_, what), = look_at([other.address], patience(5)).strangers
    finally:
        other.stop()
    text = only(case(peer(), strangers=[((host, 3010), what)]))
    assert f"{host}:3010 (version 1, and version 2 here)" in text and "same app-net" in text


def test_a_firewall_that_blocks_tcp(case):
    text = only(case(peer(), silent_peers=[("192.168.1.30", 3010)]))
    assert "UDP through but not TCP" in text and "192.168.1.30:3010" in text
    assert "open TCP 3010-3015" in text


def test_a_firewall_that_blocks_udp(case):
    assert "open UDP 3010-3015" in only(case(peer(), heard=0))


def test_a_firewall_of_this_host_that_lets_nothing_out(case):
    text = only(case(peer(), notes=["eth0: sending failed, Operation not permitted"]))
    assert "this host itself refuses to send" in text


def test_hosts_that_drop_everything(case):
    outcomes = {("192.168.1.30", port): "silent" for port in range(3010, 3016)}
    text = only(case(peer(), outcomes={**outcomes, ("192.168.1.20", 3010): "peer"}))
    assert "1 of 2 hosts neither accept nor refuse" in text and "192.168.1.30" in text


def test_macos_without_permission_for_the_local_network(case):
    outcomes = {("192.168.1.30", port): "unreachable" for port in range(3010, 3016)}
    text = only(case(outcomes=outcomes, place="macOS", notes=["connecting: No route to host"]))
    assert "Local Network" in text


def test_a_web_server_on_our_port(case):
    text = only(case(peer(), strangers=[(("127.0.0.1", 3010), "an HTTP server")]))
    assert "127.0.0.1:3010 (an HTTP server)" in text and "NET_PORT_START" in text


def test_a_peer_at_its_limit_is_reported_with_its_reason_and_not_as_a_firewall(port_range):
    busy = PeerBusy(None, "5 connections are open there")
    full = Stranger(port_range[0], says(b"".join(encode_refusal(0, busy))))
    host, port = full.address
    found = Peers([PeerId(make_id(port, host, None), {"found": "datagram"})], Report())
    try:
        try_to_connect(found)
    finally:
        full.stop()
    report = found.report
    assert report.silent_peers == [] and report.outcomes == {full.address: "stranger"}
    (place, told), = report.strangers
    assert place == full.address and "5 connections are open there" in told


def test_each_address_is_counted_once_however_often_it_is_asked(session_peer):
    found = Peers([PeerId(make_id(session_peer.port, "127.0.0.1", None), {"found": "datagram"})])
    here, other = ("127.0.0.1", session_peer.port), ("127.0.0.1", 1)
    found.report.asked = {here: "given up", other: "refused"}
    found.report.outcomes = {here: "peer", other: "refused"}
    assert "TCP: 2 addresses asked: 1 given up, 1 refused\n" in str(found.report)
    try_to_connect(found)
    assert "TCP: 2 addresses asked: 1 peer, 1 refused\n" in str(found.report)


def test_a_peer_at_its_limit_on_this_host_counts_as_a_peer(case):
    full = (("127.0.0.1", 3010), "a peer, but without a usable answer: it is busy")
    assert causes(case(peer(), strangers=[full])) == []


def test_peers_of_this_host_that_nobody_else_can_reach(case):
    text = only(case(peer("127.0.0.1"), heard=0))
    assert "can only be reached from this host: 127.0.0.1:3010" in text


@pytest.mark.parametrize("place, word", [("container", "--network host"), ("WSL", "mirrored")])
def test_a_container_and_wsl(case, place, word):
    assert word in only(case(place=place, outcomes={("172.17.0.1", 3010): "refused"}))


@pytest.mark.parametrize("note, remedy", [
    ("NET_PEERS: 'nas.lan' cannot be resolved, no such name", "check the name and the resolver"),
    ("NET_PEERS: 'nas.lan' was not resolved within 0.8 s", "check the name and the resolver"),
    ("NET_PEERS: 4,000 addresses were not asked in time", "each with its port"),
    ("NET_PEERS: only the first 1024 entries are asked", "name fewer hosts"),
    ("NET_PEERS: '10.1.2.3' is dropped, NET_HOST=127.0.0.1 keeps to this host", "unset NET_HOST"),
])
def test_what_was_not_asked_of_net_peers(case, note, remedy):
    text = only(case(peer(), notes=[note]))
    assert note in text and remedy in text and text.count(";") == 0


def test_what_others_see_of_this_host(case):
    back = doctor.Back(("192.168.1.20", 3010), 3010, "192.168.1.10", "")
    sound = case(peer(), free=(3011,), outcomes={
        ("192.168.1.20", 3010): "peer", ("192.168.1.10", 3010): "peer",
        ("127.0.0.1", 3010): "peer"})._replace(back=[back])
    assert causes(sound) == []
    text = describe(sound)
    assert f"listens at every address, port 3011, and says that it is at 192.168.1.10 ({LAN})" \
        in " ".join(text.split())
    assert "port 3010 answers at 127.0.0.1, 192.168.1.10" in text
    assert "192.168.1.20:3010 sees it as 192.168.1.10, and reaches port 3010" in text


def test_a_host_that_others_cannot_connect_to_or_know_by_another_address(case):
    back = doctor.Back(("192.168.1.20", 3010), 3010, "192.168.1.10", "CallTimeout: no answer")
    text = only(case(peer())._replace(back=[back]))
    assert "1 of 1 peers that were asked cannot connect" in text and "CallTimeout" in text
    assert "those cannot call here" in text
    hidden = case(peer())._replace(back=[back._replace(seen="192.168.9.254", problem="")])
    text = only(hidden)
    assert "see this host as 192.168.9.254" in text and "NAT" in text
    assert "NET_ADVERTISE=192.168.9.254:3010" in text
    assert causes(hidden._replace(advertised={("192.168.9.254", 4000): ""})) == []


def test_an_advertised_address_that_leads_elsewhere(case):
    sound = case(peer())._replace(advertised={("203.0.113.7", 4000): ""})
    assert causes(sound) == []
    assert "advertised: 203.0.113.7:4000, where that peer answers" in describe(sound)
    wrong = sound._replace(advertised={("203.0.113.7", 4000): "another peer answers there"})
    assert "203.0.113.7:4000, but another peer answers there -> that port" in only(wrong)


def test_a_peer_that_advertises_an_address_is_asked_there(port_range, monkeypatch):
    own = PeerId(make_id(port_range[0], "127.0.0.1"),
                 {"host": "127.0.0.7", "port": port_range[0], "instance": "i"})
    report = Report()
    report.own = ["127.0.0.1"]
    found = Peers([own], report)
    place = ("127.0.0.7", port_range[0])
    assert doctor.try_advertised(found) == {place: "a connection from here is refused"}
    for instance, told in (("i", ""), ("other", "another peer answers there")):
        with closing_stranger(place, instance):
            assert doctor.try_advertised(found) == {place: told}
    monkeypatch.setitem(settings.__dict__, "advertise", ("127.0.0.8", 4000))
    assert doctor.try_advertised(Peers([], report)) == {
        ("127.0.0.8", 4000): "no peer of this host runs that says so"}


@contextmanager
def closing_stranger(place, instance):
    """A peer of this instance at an address."""
    one = Stranger(place[1], introduced({"instance": instance, "group": None}), place[0])
    try:
        yield
    finally:
        one.stop()


def test_a_full_neighbour_table_is_named_with_the_setting_that_raises_it(case):
    text = only(case(peer(), notes=[NO_ROOM]))
    assert "containers of a machine share" in text and "gc_thresh3" in text


def test_an_unreadable_neighbour_table(case):
    assert "neither arp nor ip" in only(case(peer(), neighbour_source=""))


def test_probes_are_shown_one_by_one(case):
    text = describe(case(peer(), outcomes={
        **{("192.168.1.30", port): "silent" for port in range(3010, 3016)},
        ("127.0.0.1", 3010): "peer", ("127.0.0.1", 3011): "refused",
        ("10.0.0.7", 3010): "nobody"},
        silent_peers=[("192.168.1.40", 3012)]))
    assert "  127.0.0.1: 3010 peer, 3011 refused\n" in text
    assert "  192.168.1.30: 3010-3015 silent\n" in text
    assert "  192.168.1.40: 3012 answers by datagram\n" in text
    assert "10.0.0.7" not in text, "nobody is no host"
    assert max(map(len, text.splitlines())) < 120


def test_free_ports_are_told_from_taken_ones(port_range):
    with socket.create_server(("127.0.0.1", port_range[0])):
        assert not doctor.is_free(["127.0.0.1"], port_range[0])
        assert doctor.is_free(["127.0.0.1"], port_range[1])


# ------------------------------------------------------------------------------ an engine

ENGINE_PEER = "a" * 32 + ".zenoh"


def test_peers_that_an_engine_reaches_are_no_sign_of_a_firewall(case):
    far = peer(ENGINE_PEER, found="engine")
    assert causes(case(peer(), far)) == []
    assert causes(case(far, heard=0)) == []
    assert f"{ENGINE_PEER}: 3010 peer" in describe(case(peer(), far))
    alone = case(far, heard=0, neighbours=0, outcomes={far.address: "silent"})
    assert "no neighbours" in only(alone)


@pytest.mark.parametrize("why, remedy", [
    ("tls/hub.example:7447: Connection refused", "start a router there"),
    ("tls/hub.example:7447: no answer within 2 s", "let TCP through"),
    ("tls/hub.example:7447: Name or service not known", "correct the name in NET_ROUTER"),
    (f"tls/hub.example:7447 accepts connections, but no session: {authority.OTHER_SECRET}",
     "the same NET_SECRET"),
    (f"tls/hub.example:7447 accepts connections, but no session: {authority.NOT_NOW}",
     "set the clocks"),
    (f"tls/hub.example:7447 accepts connections, but no session: {authority.NO_TLS}", "write tcp/"),
    (f"tls/hub.example:7447 accepts connections, but no session: {NO_ROUTER}",
     "of a version like this one's"),
    ("something new", "look at the router"),
])
def test_a_router_that_is_not_reached_is_a_cause(case, why, remedy):
    text = only(case(peer(), notes=[f"engine: no router is reached ({why})"]))
    assert why in text and remedy in text
    assert sum(one in text for _, one in ROUTER_REMEDIES) <= 1 and "NAT" not in text


def test_an_access_list_is_a_cause(case):
    text = only(case(peer(), notes=[f"engine: {NOT_ALLOWED}"]))
    assert "--allow" in text and "NAT" not in text


@pytest.mark.parametrize("host, hidden", [
    ("10.9.8.7", True), ("[fd12::7]", True), ("192.168.1.9", False), ("93.184.216.34", False),
    ("hub.example", False), ("127.0.0.1", False)])
def test_a_router_behind_a_nat_is_named_by_an_address_that_others_see(monkeypatch, case, host,
                                                                      hidden):
    monkeypatch.setitem(settings.__dict__, "router", (f"tls/{host}:7447",))
    found = case(peer(), interfaces=["eth0 192.168.1.5/24", "eth1 fe80::5%eth1/64"],
                 notes=["engine: no router is reached (no answer within 2 s)"])
    assert ("behind a NAT" in only(found)) is hidden
