"""Why a search did not find what it should: likely causes, and what to do about each."""
from __future__ import annotations

import os
import platform
import re
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..settings import ENGINE_SUFFIX, is_address, is_loopback, parse_router, settings
from ..errors import Address, NetError
from ..identity import PeerId, make_tag, printable, without_zone
from ..link.addresses import is_link_local
from ..link.authority import NO_TLS, NOT_NOW, OTHER_SECRET
from ..link.base import listen_at
from ..link.interfaces import TOO_LARGE
from ..link.zenoh import NO_ROUTER, NOT_ALLOWED
from ..link.tcp import TcpCarrier
from ..peer import bind_hosts, route_address
from ..process import process
from ..tables import folded
from ..wire.session import OTHER_VERSION
from .lan.beacon import make_seal
from .lan.asker import NO_ROOM
from .lan.losses import Losses, measure
from .listing import Peers
from .probes import look_at
from .report import Report, places

# Hosts whose probes are shown one by one.
MAX_HOSTS = 12
# Peers that are connected to, and the seconds for all of them together.
MAX_CONNECTED, CONNECT_SECONDS = 256, 1.5
# Advertised addresses that are tried.
MAX_ADVERTISED = 16
# Peers of other hosts that are asked to connect to one of this host, and seconds for each.
MAX_BACK, BACK_SECONDS = 8, 5.0
REACH_BACK = make_tag("net.defaults.handlers", "reach_back")
# Peers of other hosts that are asked by datagram again and again; the share of lost questions from
# which on it is reported, and the least number of them; and seconds from which on an answer counts
# as slow.
MAX_LOSSES, LOSSY, FEW_LOST, SLOW_SECONDS = 16, 0.03, 2, 0.1
# Columns of the text.
WIDTH = 96


class Cause(NamedTuple):
    """Something that keeps peers from being found. ``remedy`` says what to do."""

    cause: str
    remedy: str


class Back(NamedTuple):
    """What a peer of another host saw when it was asked to connect to a peer of this one.

    :ivar peer: the peer that was asked.
    :ivar port: the port to which it was to connect.
    :ivar seen: the address of this host, as that peer sees it.
    :ivar problem: why it could not connect; empty if it could.
    """

    peer: Address
    port: int
    seen: str
    problem: str


class Case(NamedTuple):
    """The facts for a diagnosis.

    :ivar host: the address that a peer of this process would be bound to.
    :ivar free: ports of the range that are free there.
    :ivar place: ``container``, ``WSL``, ``macOS`` or empty.
    :ivar advertised: where peers of this host advertise themselves, and what is wrong there.
    :ivar back: what peers of other hosts said when they were asked to connect to one of this host.
    :ivar losses: how many datagrams to peers of other hosts, and back, were lost.
    """

    peers: Peers
    host: str
    free: List[int]
    place: str
    advertised: Dict[Address, str] = {}
    back: Sequence[Back] = ()
    losses: Losses = Losses(0, 0)

    @property
    def report(self) -> Report:
        return self.peers.report

    @property
    def remote(self) -> List[Address]:
        """Addresses of other hosts that were asked over TCP, but for those that an engine reaches.
        """
        return [address for address, outcome in self.report.outcomes.items()
                if outcome != "nobody" and not self.is_own(address[0])
                and not address[0].endswith(ENGINE_SUFFIX)]

    def is_own(self, host: str) -> bool:
        return is_loopback(host) or host in self.report.own

    def ended(self, *outcomes: str) -> List[Address]:
        """Addresses beyond this host whose probes ended in one of these ways."""
        return [address for address in self.remote if self.report.outcomes[address] in outcomes]


def await_engine() -> None:
    """Wait until the first attempt to reach a router has ended, where there is an engine. A search
    does not wait that long, and only then is it known what is wrong."""
    engine = process.client.carriers.engine
    if engine is not None:
        engine.wait(engine.attempt_seconds)


def examine(peers: Peers, timeout: Optional[float] = None) -> Case:
    """The case of a search that was just made. Serves nothing; connects to what was found.

    :param timeout: seconds for these connections; None for the usual ones.
    """
    seconds = CONNECT_SECONDS if timeout is None else timeout
    try_to_connect(peers, seconds)
    host = settings.host or route_address()
    host = "127.0.0.1" if host == "localhost" else host
    return Case(peers, host, [port for port in settings.ports if is_free(bind_hosts(), port)],
                place(), try_advertised(peers, seconds),
                try_back(peers, BACK_SECONDS if timeout is None else timeout), try_losses(peers))


def try_to_connect(peers: Peers, seconds: float = CONNECT_SECONDS) -> None:
    """Ask over TCP the peers that answered by datagram only, and put the outcomes into the
    report."""
    asked = {peer.address for peer in peers if peer.info.get("found") == "datagram"}
    findings = look_at(sorted(asked)[:MAX_CONNECTED], seconds)
    # What has answered, but not as a peer, as one at its limit does, is reported with its reason.
    silent = {address for address, outcome in findings.outcomes.items()
              if outcome not in ("peer", "stranger")}
    peers.report.silent_peers = sorted({*peers.report.silent_peers, *silent})
    peers.report.strangers += findings.strangers
    peers.report.outcomes.update(findings.outcomes)
    peers.report.asked.update(findings.outcomes)


def try_advertised(peers: Peers, seconds: float = CONNECT_SECONDS) -> Dict[Address, str]:
    """Connect to where peers of this host advertise themselves, and say what is wrong there: an
    empty text if that peer answers.
    """
    said: Dict[PeerId, Any] = {peer: (peer.info.get("host"), peer.info.get("port"))
                               for peer in peers}
    own = {without_zone(host) for host in peers.report.own}
    wanted = {place for peer, place in said.items()
              if (is_loopback(peer.host) or peer.host in peers.report.own)
              and place != peer.address and place[0] not in own}
    if settings.advertise is not None:
        host, port = settings.advertise
        wanted |= {(host, port)} if port else {place for place in said.values() if place[0] == host}
    asked: List[Address] = sorted([place for place in wanted if is_place(*place)])[:MAX_ADVERTISED]
    findings = look_at(asked, seconds)
    told: Dict[Address, str] = {}
    for place in asked:
        instances = {peer.info.get("instance") for peer in peers if said[peer] == place}
        found = [answer.facts for answer in findings.answers if answer.address == place]
        strangers = dict(findings.strangers)
        if not instances:
            told[place] = "no peer of this host runs that says so"
        elif not found:
            told[place] = strangers.get(place) or \
                f"a connection from here is {findings.outcomes.get(place, 'not possible')}"
        elif not isinstance(found[0], dict) or found[0].get("instance") not in instances:
            told[place] = "another peer answers there"
        else:
            told[place] = ""
    return told


def try_back(peers: Peers, seconds: float = BACK_SECONDS) -> List[Back]:
    """Ask peers of other hosts to connect to a peer of this host: whether it can be reached from
    there, as they can from here. If no peer of this host serves others, there is none to try.
    """
    own = peers.report.own
    modern = [peer for peer in peers if peer.info.get("wire") == "modern"
              and not is_loopback(peer.host)]
    here = [peer.info.get("port") for peer in modern if peer.host in own]
    # One of each host: what keeps one peer from this host keeps the others there, too.
    others = {peer.host: peer for peer in modern if peer.host not in own
              and peers.report.outcomes.get(peer.address) == "peer"}
    if not here or type(here[0]) is not int or not others:
        return []
    asked = list(others.values())[:MAX_BACK]
    with ThreadPoolExecutor(len(asked), "net-back") as executor:
        told = executor.map(partial(_ask_back, here[0], seconds), asked)
        return [one for one in told if one is not None]


def _ask_back(port: int, seconds: float, peer: PeerId) -> Optional[Back]:
    try:
        seen, problem = process.client.call(peer, REACH_BACK, (port,), {}, seconds)
    except (NetError, TypeError, ValueError):
        return None  # it does not know that function, or returns something else
    return Back(peer.address, port, printable(str(seen)), printable(str(problem), 300))


def try_losses(peers: Peers) -> Losses:
    """Ask peers of other hosts by datagram, often enough to see how many datagrams get lost."""
    found = {peer.host: peer.address for peer in peers
             if peer.info.get("found") == "datagram" and peer.host not in peers.report.own}
    return measure(list(found.values())[:MAX_LOSSES], peers.report.round_trip, make_seal())


def is_place(host: object, port: object) -> bool:
    """Whether these are an address to which this process may connect."""
    return isinstance(host, str) and is_address(host) and type(port) is int and 0 < port < 65536 \
        and (is_loopback(host) or not settings.loopback_only)


def is_free(hosts: List[str], port: int) -> bool:
    """Whether a peer could bind this port at these addresses now."""
    try:
        for listener in listen_at(TcpCarrier(), hosts, range(port, port + 1), 1):
            listener.close()
        return True
    except OSError:
        return False


def place() -> str:
    """The environment that this process runs in, where it matters to a network."""
    if sys.platform == "darwin":
        return "macOS"
    if "microsoft" in platform.release().lower():
        return "WSL"
    return "container" if any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))) else ""


def causes(case: Case) -> List[Cause]:
    """The likely causes, the most likely first."""
    found = [rule(case) for rule in RULES]
    return [cause for cause in found if cause is not None]


# ------------------------------------------------------------------ the rules, one cause each

def bound_to_loopback(case: Case) -> Optional[Cause]:
    if not settings.loopback_only:
        return None
    return Cause(f"NET_HOST={settings.host} keeps everything on this host: no other host was "
                 f"searched, and none can reach a peer of this process",
                 "unset NET_HOST, or give it the address of this host on the LAN")


def no_network(case: Case) -> Optional[Cause]:
    if settings.loopback_only or not is_loopback(case.host) or case.report.interfaces:
        return None
    return Cause("this host has no network: only its loopback interface has an address",
                 "connect it; peers on this host find each other all the same")


def peers_on_loopback(case: Case) -> Optional[Cause]:
    bound = [peer for peer in case.peers if is_loopback(peer.host)]
    if settings.loopback_only or is_loopback(case.host) or not bound:
        return None
    return Cause(f"{len(bound)} of the peers on this host can only be reached from this host: "
                 f"{places([peer.address for peer in bound])}",
                 "they run with a loopback NET_HOST; unset it there")


def no_free_port(case: Case) -> Optional[Cause]:
    if case.free:
        return None
    ports = settings.ports
    return Cause(f"every port from {ports.start} to {ports.stop - 1} on {case.host} is taken: "
                 f"one more peer on this host would find none (NoFreePort)",
                 "end a peer or whatever else listens there, or raise NET_PORT_RANGE or change "
                 "NET_PORT_START, everywhere alike")


def strangers_on_our_ports(case: Case) -> Optional[Cause]:
    here = [(address, what) for address, what in case.report.strangers
            if case.is_own(address[0]) and not _is_secured(what) and not _versions(what)
            and not what.startswith("a peer, ")]
    if not here:
        return None
    told = ", ".join(f"{places([address])} ({what})" for address, what in here[:3])
    return Cause(f"on this host, something other than a peer listens at {told}",
                 "it takes a port of the range, and costs each search its time limit where it "
                 "does not answer; move it, or set another NET_PORT_START everywhere")


def only_containers(case: Case) -> Optional[Cause]:
    skipped = [note for note in case.report.notes if "not swept, a bridge" in note]
    if not skipped or case.report.primed or case.remote:
        return None
    return Cause("the only networks of this host are bridges to containers or virtual machines",
                 "connect it to a LAN; to search such a bridge, name it in NET_INTERFACES")


def in_a_container(case: Case) -> Optional[Cause]:
    if case.place != "container" or not case.report.searched_lan or case.report.heard \
            or case.ended("peer", "stranger"):
        return None
    return Cause("this process runs in a container; the network of one reaches no broadcasts and "
                 "no neighbours beyond its host, unless it is told otherwise",
                 "run it with the network of the host (--network host), or publish its port and "
                 "name the others in NET_PEERS")


def in_wsl(case: Case) -> Optional[Cause]:
    if case.place != "WSL" or not case.report.searched_lan or case.ended("peer"):
        return None
    return Cause("this process runs in WSL, whose network is hidden behind that of Windows",
                 "use mirrored networking (networkingMode=mirrored in .wslconfig) and let the "
                 "ports through the Hyper-V firewall, or name the others in NET_PEERS")


def sending_denied(case: Case) -> Optional[Cause]:
    failed = [note for note in case.report.notes if "ermission denied" in note
              or "not permitted" in note]
    if not failed and not case.ended("denied"):
        return None
    return Cause(f"this host itself refuses to send: {(failed or ['connecting is denied'])[0]}",
                 f"its firewall must let out UDP and TCP to ports {_ports()}")


def local_network_permission(case: Case) -> Optional[Cause]:
    blocked = len(case.ended("unreachable"))
    failed = any("No route to host" in note for note in case.report.notes)
    if case.place != "macOS" or not (blocked or failed) or case.ended("peer", "refused"):
        return None
    return Cause("macOS does not let this program use the local network: every attempt fails at "
                 "once with 'No route to host'",
                 "allow it in System Settings, Privacy & Security, Local Network, for the program "
                 "that started Python (an editor, another terminal); Terminal itself is allowed")


def nobody_around(case: Case) -> Optional[Cause]:
    report = case.report
    if not report.interfaces or report.neighbours or report.heard or case.remote \
            or only_containers(case) or network_too_large(case):
        return None
    how = "after a datagram to each address" if report.primed else "after a question to all on " \
        "the link" if all(["::" in text for text in report.interfaces]) else \
        "and NET_SWEEP is off" if settings.sweep is False else "and no network could be swept"
    more = "NET_SWEEP=1 asks each address of the network once; " if any(
        "set NET_SWEEP=1" in note for note in report.notes) else ""
    return Cause(f"no neighbours: no other host of the network is known, {how}",
                 f"{more}check the cable and the network; guest and Wi-Fi networks may isolate "
                 f"their clients; across routers, VPN or cloud, name the others in NET_PEERS")


def network_too_large(case: Case) -> Optional[Cause]:
    partly = [note for note in case.report.notes if TOO_LARGE in note]
    if not partly or case.report.heard or case.ended("peer"):
        return None
    interface, _, rest = partly[0].partition(TOO_LARGE)
    return Cause(f"{interface.rstrip(': ')} is too large for each of its addresses to be asked, "
                 f"and nobody answers the question to all: peers beyond "
                 f"{rest.partition(' is swept')[0]} are not found",
                 f"name them in NET_PEERS, or have the network carry broadcasts of UDP {_ports()}, "
                 f"which many filter between their parts")


def nobody_at_our_ports(case: Case) -> Optional[Cause]:
    refusing = sorted({host for host, _ in case.ended("refused")}, key=_numbers)
    if not refusing or case.report.heard or case.ended("peer", "stranger", "silent") \
            or in_a_container(case) or in_wsl(case):
        return None
    shown = f"{', '.join(refusing[:5])}{' ...' if len(refusing) > 5 else ''}"
    hosts = "the only other host" if len(refusing) == 1 else f"all {len(refusing)} other hosts"
    return Cause(f"{hosts} that can be seen answered, but no peer is at ports {_ports()} there: "
                 f"{shown}",
                 "start one there, with this NET_PORT_START and NET_PORT_RANGE and without a "
                 "loopback NET_HOST. If one runs, a firewall refuses in its place: open TCP and "
                 "UDP of these ports on that host")


def tcp_blocked(case: Case) -> Optional[Cause]:
    if not case.report.silent_peers:
        return None
    return Cause(f"a firewall lets UDP through but not TCP: peers at "
                 f"{places(case.report.silent_peers)} answered by datagram only",
                 f"open TCP {_ports()} on those hosts")


def udp_blocked(case: Case) -> Optional[Cause]:
    others = [peer for peer in case.peers if not case.is_own(peer.host)
              and not peer.host.endswith(ENGINE_SUFFIX)
              and peer.info.get("found") != "NET_PEERS" and peer.info.get("wire") == "modern"]
    if not others or case.report.heard or not case.report.interfaces:
        return None
    return Cause("no peer answers datagrams, though some answer over TCP: a firewall blocks UDP",
                 f"open UDP {_ports()} on this host and on theirs; until then searches take "
                 f"longer, and hello and goodbye are not heard")


def hosts_silent(case: Case) -> Optional[Cause]:
    hosts = {host for host, _ in case.remote if not lacks_zone(host)}
    answering = {host for host, _ in case.ended("peer", "stranger", "refused")}
    heard = {host for host, _ in case.report.silent_peers}
    silent = sorted(hosts - answering - heard)
    if not silent or case.place == "macOS" and local_network_permission(case):
        return None
    shown = f"{', '.join(silent[:5])}{' ...' if len(silent) > 5 else ''}"
    rejecting = {host for host, _ in case.ended("unreachable")} & set(silent)
    if rejecting:
        return Cause(f"{len(rejecting)} of {len(hosts)} hosts are there, and a firewall rejects "
                     f"the connections to them: {', '.join(sorted(rejecting)[:5])}",
                     f"if peers run there, open TCP and UDP {_ports()} on those hosts")
    if len(silent) == len(hosts) > 1:
        return Cause(f"none of the {len(hosts)} other hosts in the neighbour table accepts or "
                     f"refuses a connection: {shown}. A firewall drops them, there or between",
                     f"if peers run there, open TCP and UDP {_ports()} on those hosts; Wi-Fi and "
                     f"guest networks may isolate their clients")
    return Cause(f"{len(silent)} of {len(hosts)} hosts neither accept nor refuse a connection: "
                 f"{shown}",
                 f"they are gone, or a firewall drops TCP {_ports()} there; nothing to do if no "
                 f"peer runs there")


def lossy(case: Case) -> Optional[Cause]:
    asked, lost = case.losses
    if lost < FEW_LOST or lost < LOSSY * asked:
        return None
    return Cause(f"the network loses what it carries: of {asked} questions to peers that answer, "
                 f"{lost} ({lost / asked:.0%}) came to nothing, or their answers did",
                 "searches ask again and find everybody, but calls stall for a second now and "
                 "then; look at the cable, the Wi-Fi signal, or what overloads this host")


def slow(case: Case) -> Optional[Cause]:
    if not case.report.heard or case.report.round_trip < SLOW_SECONDS:
        return None
    return Cause(f"answers take {case.report.round_trip * 1000:.0f} ms on average; on a LAN it is "
                 f"less than ten",
                 "the network is slow, as a VPN or a bad Wi-Fi is, or the hosts are busy; all "
                 "works, and each call takes as long")


def wrong_group(case: Case) -> Optional[Cause]:
    if settings.group is None or not case.peers or case.peers[settings.group]:
        return None
    groups = sorted({str(peer.group) for peer in case.peers})
    return Cause(f"none of the {len(case.peers)} peers found is in the group {settings.group!r} "
                 f"of this process; there are {', '.join(map(printable, groups[:8]))}",
                 "set NET_GROUP alike everywhere, or search without groups")


def secret_on_one_side(case: Case) -> Optional[Cause]:
    found = [(address, what) for address, what in case.report.strangers if _is_secured(what)]
    if not found:
        return None
    whats = sorted({what.replace("skipped: ", "") for _, what in found})
    return Cause(f"one side has a secret or certificates that the other lacks, at "
                 f"{places(sorted(address for address, _ in found))}: {'; '.join(whats[:2])}",
                 "if these are peers of yours, give both sides the same NET_SECRET, or "
                 "certificates of the other's authority")


def _is_secured(what: str) -> bool:
    """Whether a stranger is a peer, where only one side has the secret."""
    return what.startswith("skipped: ") or "TLS" in what


def other_version(case: Case) -> Optional[Cause]:
    found = {address: _versions(what) for address, what in case.report.strangers}
    peers = sorted([address for address, versions in found.items() if versions])
    if not peers:
        return None
    asked, spoken = found[peers[0]]
    return Cause(f"peers of another app-net, which does not speak the protocol of this one: "
                 f"{places(peers)} (version {spoken}, and version {asked} here)",
                 "install the same app-net on all hosts (python3 -m net --version)")


def _versions(what: str) -> Tuple[str, ...]:
    """The versions of the wire that a stranger was asked for and speaks; none if that is not why it
    is one."""
    pattern = OTHER_VERSION.replace("{}", "([0-9]+)")
    found = re.search(pattern, what)
    return () if found is None else found.groups()


def named_not_asked(case: Case) -> Optional[Cause]:
    notes = [note for note in case.report.notes if note.startswith("NET_PEERS")]
    if not notes:
        return None
    remedies = ["check the name and the resolver of this host, or name the address instead"] \
        if any("resolved" in note for note in notes) else []
    if any("entries" in note or "in time" in note for note in notes):
        remedies.append("name fewer hosts, and each with its port (host:port)")
    if any("dropped" in note for note in notes):
        remedies.append("unset NET_HOST, or name peers of this host only")
    return Cause("; ".join(notes[:3]), "; ".join(remedies))


def advertised_in_vain(case: Case) -> Optional[Cause]:
    wrong = {place: what for place, what in case.advertised.items() if what}
    if not wrong:
        return None
    return Cause("; ".join(f"a peer of this host says that it is at {places([place])}, but {what}"
                           for place, what in sorted(wrong.items())),
                 "that port has to be forwarded to the peer's own, as by docker run -p "
                 "4000:3010, and NET_ADVERTISE to name it; some routers let nobody reach their "
                 "outer address from inside: python3 -m net doctor PEER out there is certain")


def no_router(case: Case) -> Optional[Cause]:
    notes = [note[len(ENGINE_NOTE):] for note in case.report.notes if note.startswith(ENGINE_NOTE)]
    if not notes:
        return None
    remedies = [remedy for sign, remedy in ROUTER_REMEDIES if any(sign in one for one in notes)]
    hidden = [host for _, host, _ in map(parse_router, settings.router) if is_elsewhere(host, case)]
    if hidden and any("no router is reached" in one for one in notes):
        remedies.append(f"{', '.join(hidden)} means something in its own network only: behind a "
                        f"NAT, name the address that others see, and have TCP forwarded to the "
                        f"router")
    return Cause(f"peers beyond this network are not found: {'; '.join(notes)}",
                 "; ".join(remedies) or "look at the router")


def is_elsewhere(host: str, case: Case) -> bool:
    """Whether an address is a private one, and of no network of this host."""
    if not is_address(host) or is_loopback(host) or not ip_address(without_zone(host)).is_private:
        return False
    return not any(ip_address(without_zone(host)) in network for network in networks(case))


def networks(case: Case) -> List[Any]:
    """The networks of this host, as the report names its interfaces."""
    found = []
    for text in case.report.interfaces:
        for word in text.split():
            try:
                found.append(ip_network(without_zone(word.strip(",()")), strict=False))
            except ValueError:
                pass  # the name of an interface
    return found


#: What a search notes about its engine, and what to do about each of the reasons.
ENGINE_NOTE = "engine: "
ROUTER_REMEDIES = (
    ("refused", "start a router there (app-net router), or correct NET_ROUTER"),
    ("no answer within", "let TCP through to the router's host and port, out of this network and "
                         "into that one"),
    ("unreachable", "check the way to the router's host"),
    ("ame or service", "correct the name in NET_ROUTER, or look at the resolver of this host"),
    (OTHER_SECRET, "give the router and this process the same NET_SECRET, or certificates of the "
                   "same authority"),
    (NOT_NOW, "set the clocks of both hosts right, or renew the certificate"),
    (NO_TLS, "write tcp/ in NET_ROUTER as the router listens, or have it listen at tls/"),
    (NO_ROUTER, "have app-net router listen there, of a version like this one's, and write tls/ or "
                "tcp/ in NET_ROUTER as it listens"),
    (NOT_ALLOWED, "start the router with --allow and the common name of this process's "
                  "certificate, or without --allow"),
    ("forked", "start such processes with spawn or forkserver, or fork before the first connected "
               "function"),
)


def not_reached_back(case: Case) -> Optional[Cause]:
    failed = [one for one in case.back if one.problem]
    if not failed:
        return None
    return Cause(f"{len(failed)} of {len(case.back)} peers that were asked cannot connect to a "
                 f"peer of this host, which connects to them: "
                 f"{places([one.peer for one in failed])} ({failed[0].problem})",
                 f"a firewall of this host or between must let in TCP {_ports()}, or a router "
                 f"forward it. Until then peers here can call those and hear their events, but "
                 f"those cannot call here, nor hear events of this host")


def behind_a_nat(case: Case) -> Optional[Cause]:
    foreign = sorted({one.seen for one in case.back if not case.is_own(one.seen)})
    known = {host for host, _ in case.advertised} | {peer.info.get("host") for peer in case.peers}
    if not foreign or known.issuperset(foreign):
        return None
    return Cause(f"other peers see this host as {', '.join(foreign[:3])}, which is none of its "
                 f"addresses: a router in between hides it (NAT)",
                 f"have the router forward a port to the peer here, and tell that peer so, as with "
                 f"NET_ADVERTISE={foreign[0]}:{case.back[0].port}")


def zone_missing(case: Case) -> Optional[Cause]:
    wrong = [address for address in case.ended("unreachable") if lacks_zone(address[0])]
    if not wrong:
        return None
    host, port = wrong[0]
    return Cause(f"{places(wrong)} may be at any interface of this host, which has several with "
                 f"link-local addresses, or none", f"name the interface: [{host}%eth0]:{port}")


def lacks_zone(host: str) -> bool:
    """Whether an address only means something together with an interface, which is not named."""
    return is_link_local(host) and "%" not in host


def no_room(case: Case) -> Optional[Cause]:
    if NO_ROOM not in case.report.notes:
        return None
    return Cause("this host has dropped a question to all: its neighbour table or the queue of its "
                 "network card was full. The containers of a machine share one table, with a row "
                 "in each for each that it speaks to, and 1,024 in all unless set otherwise",
                 "where there are many, raise net.ipv4.neigh.default.gc_thresh1, gc_thresh2 and "
                 "gc_thresh3 on that machine by sysctl, and search again")


def table_unread(case: Case) -> Optional[Cause]:
    if case.report.neighbour_source or not case.report.interfaces:
        return None
    return Cause("the neighbour table cannot be read: neither arp nor ip works here",
                 "install net-tools or iproute2; until then only peers that answer datagrams, are "
                 "on this host or are named by NET_PEERS are certain to be found")


RULES: Tuple[Callable[[Case], Optional[Cause]], ...] = (
    bound_to_loopback, no_network, only_containers, in_a_container, in_wsl, sending_denied,
    local_network_permission, secret_on_one_side, other_version, tcp_blocked, network_too_large,
    nobody_around, nobody_at_our_ports, udp_blocked, advertised_in_vain, no_router, behind_a_nat,
    not_reached_back, wrong_group, no_free_port, strangers_on_our_ports, peers_on_loopback,
    named_not_asked, zone_missing, no_room, table_unread, hosts_silent, lossy, slow,
)


def _ports() -> str:
    return f"{settings.ports.start}-{settings.ports.stop - 1}"


# ------------------------------------------------------------------ the text

def describe(case: Case, width: int = WIDTH) -> str:
    """The whole diagnosis as text, in lines of at most ``width`` columns."""
    found = causes(case)
    lines = [str(case.report), "", "probe by probe:", *probes(case), *old_programs(case),
             *this_host(case), *advertised(case), ""]
    if not found:
        lines.append("no cause for trouble found")
    for cause in found:
        lines += [f"* {cause.cause}", folded(f"  -> {cause.remedy}", width, "   ")]
    return folded("\n".join(lines), width)


def probes(case: Case) -> List[str]:
    """A line for each host: what each of its ports did. Own hosts first, then those in trouble."""
    by_host: Dict[str, Dict[str, List[int]]] = defaultdict(lambda: defaultdict(list))
    for (host, port), outcome in sorted(case.report.outcomes.items()):
        if outcome != "nobody":
            by_host[host][outcome].append(port)
    for host, port in case.report.silent_peers:
        by_host[host]["answers by datagram"].append(port)
    order = sorted(by_host, key=lambda host: (
        not case.is_own(host), set(by_host[host]) <= {"peer", "refused"}, _numbers(host)))
    lines = [f"  {host}: " + ", ".join(f"{_ranges(ports)} {outcome}"
                                       for outcome, ports in by_host[host].items())
             for host in order[:MAX_HOSTS]]
    more = len(order) - MAX_HOSTS
    return [*lines, f"  and {more} more"] if more > 0 else lines or ["  nothing was asked"]


def old_programs(case: Case) -> List[str]:
    """A line for each older version of app-net, with the peers that have it."""
    versions: Dict[str, List[Address]] = defaultdict(list)
    for peer in case.peers:
        if peer.info.get("wire") == "documented":
            versions[str(peer.info.get("version"))].append(peer.address)
    return [f"with app-net {version}: {places(found)}"
            for version, found in sorted(versions.items())]


def this_host(case: Case) -> List[str]:
    """What others see of this host: where a peer listens, and where those that run do."""
    interface = next((text for text in case.report.interfaces if f" {case.host}/" in text), "")
    bound = " and ".join(bind_hosts()) if settings.host else "every address"
    lines = ["this host for others:"]
    if case.free:
        lines.append(f"  a peer that is started here listens at {bound}, port {case.free[0]}, and "
                     f"says that it is at {case.host}{interface and f' ({interface})'}")
    answering: Dict[int, List[str]] = defaultdict(list)
    for (host, port), outcome in sorted(case.report.outcomes.items()):
        if outcome == "peer" and case.is_own(host):
            answering[port].append(host)
    lines += [f"  port {port} answers at {', '.join(hosts)}" for port, hosts in answering.items()]
    return lines + [
        f"  {places([one.peer])} sees it as {one.seen}, and "
        + (f"cannot connect to port {one.port}" if one.problem else f"reaches port {one.port}")
        for one in case.back]


def advertised(case: Case) -> List[str]:
    """A line for each address that a peer of this host advertises."""
    return [f"advertised: {places([place])}, " + (what or "where that peer answers")
            for place, what in sorted(case.advertised.items())]


def _ranges(ports: List[int]) -> str:
    """Sorted ports as text, neighbours joined: ``3010-3012 3015``."""
    runs: List[List[int]] = []
    for port in ports:
        if runs and port == runs[-1][-1] + 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _numbers(host: str) -> Tuple[int, ...]:
    parts = host.split(".")
    return tuple(map(int, parts)) if all(map(str.isdecimal, parts)) else (256,)
