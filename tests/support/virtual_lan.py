"""A LAN inside this machine: network namespaces as hosts, joined by bridges. Linux and root only.

Nothing of it exists outside its namespaces: even the bridges are in one of their own. A namespace
lives as long as the process that holds it, and each holder ends when its standard input closes.
So the LAN is gone when the test ends, however it ends, and any number can run side by side.
"""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Iterable, Optional, Sequence

from forwarder import Forwarder, Weather
from processes import PeerProcess, environment
from times import patience

# Seconds for a tool that configures the network.
TOOL_LIMIT = 20.0

# Where the kernel keeps what it does with IPv6.
SIX_SETTINGS = "/proc/sys/net/ipv6/conf"

# Peers that start at the same time; more only wait for each other's processor.
STARTERS = 4


def why_not() -> Optional[str]:
    """The reason why there can be no virtual LAN here, None when there can."""
    if not sys.platform.startswith("linux"):
        return "a virtual LAN needs Linux"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if find(tool) is None]
    if missing:
        return f"a virtual LAN needs {' and '.join(missing)}"
    probe = subprocess.run(
        [find("unshare"), "--net", find("ip"), "link", "add", "b0", "type", "bridge"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    return f"a virtual LAN needs root: {probe.stdout.strip()}" if probe.returncode else None


def why_no_firewall() -> Optional[str]:
    """The reason why packets cannot be blocked here, None when they can."""
    return None if find("nft") or find("iptables") else "needs nft or iptables"


def why_no_weather() -> Optional[str]:
    """The reason why frames cannot be lost and delayed here, None when they can."""
    return None if os.path.exists("/dev/net/tun") else "needs /dev/net/tun"


def find(tool: str) -> Optional[str]:
    """The path of a tool, which only root's PATH may have; None if it is not there."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def why_no_six() -> Optional[str]:
    """The reason why hosts cannot have IPv6 here, None when they can."""
    return None if os.path.exists(f"{SIX_SETTINGS}/default/accept_dad") else \
        "this kernel has no IPv6"


class Namespace:
    """One network namespace with its loopback interface up.

    :param six: whether it has IPv6.
    """

    def __init__(self, six: bool = False) -> None:
        # Without IPv6 the kernel sends nothing of its own accord. With it, addresses can be used at
        # once, and only the tests give some.
        settings = ["default/accept_dad=0", "default/accept_ra=0", "default/addr_gen_mode=1",
                    "default/use_tempaddr=0"] \
            if six else ["all/disable_ipv6=1", "default/disable_ipv6=1"]
        hold = "; ".join([f"echo {value} > {SIX_SETTINGS}/{name}" for name, value in
                          (setting.split("=") for setting in settings)]
                         + [f"{find('ip')} link set lo up", "echo", "exec cat"])
        self._holder = subprocess.Popen(
            [find("unshare"), "--net", "sh", "-c", hold],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # Ctrl-C is for the tests; this ends when they do.
            start_new_session=True,
        )
        self.prefix = [find("nsenter"), "--net", "--target", str(self._holder.pid), "--"]
        self.pid = self._holder.pid

    def wait(self) -> None:
        """Return when the namespace is there."""
        assert self._holder.stdout.readline(), "no network namespace"

    def run(self, *command: str, text: str = "") -> str:
        """Run a tool in here, with its standard input, and return what it printed."""
        done = subprocess.run(
            [*self.prefix, find(command[0]) or command[0], *command[1:]],
            input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=patience(TOOL_LIMIT),
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}\n{text}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of the ip tool."""
        self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def close(self) -> None:
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()


class Host(Namespace):
    """One host of a LAN. ``address`` is its first address."""

    def __init__(self, lan: VirtualLan, number: int, six: bool = False) -> None:
        super().__init__(six)
        self._lan = lan
        self._six = six
        self.number = number
        self.address = ""

    def join(self, network: str, name: str = "eth0", prefix: int = 24) -> str:
        """Plug an interface into a network such as ``10.77.5``; returns the address it gets."""
        address = f"{network}.{self.number}"
        self._lan.plug(self, network, name)
        self.ip(f"addr add {address}/{prefix} broadcast + dev {name}", f"link set {name} up")
        self.address = self.address or address
        return address

    def join_six(self, network: str = "", name: str = "eth0") -> str:
        """Give an interface a link-local address of IPv6 and, in a network such as ``fd77:5::``,
        another one; return the last of them. An interface that does not exist is plugged into the
        LAN first."""
        try:
            self.ip(f"link show dev {name}")
        except AssertionError:
            self._lan.plug(self, self._lan.NETWORK, name)
            self.ip(f"link set {name} up")
        self.ip(f"addr add fe80::{self.number:x}/64 dev {name}")
        address = f"fe80::{self.number:x}%{name}"
        if network:
            address = f"{network}{self.number:x}"
            self.ip(f"addr add {address}/64 dev {name}")
        self.address = self.address or address
        return address

    def name(self, hosts: str) -> None:
        """Have processes that are started in here from now on resolve names by this text, in the
        form of ``/etc/hosts``."""
        file = self._lan.folder() / "hosts"
        file.write_text(hosts)
        self.prefix = [*self.prefix, find("unshare"), "--mount", "sh", "-c",
                       f'mount --bind {file} /etc/hosts && exec "$@"', "sh"]

    def python(self, script: str, timeout: float = 30.0, **settings: object) -> str:
        """Run a program in here to its end and return what it printed."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-c", script],
            env=lan_environment(**settings), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=patience(timeout),
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def peer(self, script: str = "", **settings: object) -> PeerProcess:
        """Start an application with a peer in here; it ends with the LAN at the latest."""
        settings = {"NET_HOST": None, "NET_PORT_START": None, **settings}
        process = PeerProcess(script, self._lan.folder(), settings, self.prefix)
        self._lan.ends(process)
        return process

    def block(self, *rules: str) -> None:
        """Drop packets that come in or go out, e.g. ``block("input udp", "output tcp 3010-3015")``.

        A rule is a direction, a protocol and, if it is not all, destination ports or an address.
        """
        for rule in rules:
            direction, protocol, to = (*rule.split(), "0-65535")[:3]
            if find("nft"):
                self._block_with_nft(direction, protocol, to)
            else:
                match = ["-d", to] if set(to) & set(".:") else ["--dport", to.replace("-", ":")]
                for tool in ["iptables"] * (":" not in to) \
                        + ["ip6tables"] * (self._six and "." not in to):
                    self.run(tool, "-w", "-A", direction.upper(), "-p", protocol, *match,
                             "-j", "DROP")

    def _block_with_nft(self, direction: str, protocol: str, to: str) -> None:
        match = f"{protocol} dport {to}" if not set(to) & set(".:") else \
            f"{'ip6' if ':' in to else 'ip'} daddr {to} meta l4proto {protocol}"
        self.run("nft", "-f", "-", text=f"""
            table inet blocked {{
                chain {direction} {{
                    type filter hook {direction} priority 0;
                    {match} drop
                }}
            }}""")

    def unblock(self) -> None:
        """Let all packets through again. Without a tool to block them there is nothing to do."""
        if find("nft"):
            self.run("nft", "flush", "ruleset")
        elif find("iptables"):
            for tool in ["iptables"] + ["ip6tables"] * self._six:
                self.run(tool, "-w", "-F")

    def hardware(self, name: str = "eth0") -> str:
        """The hardware address of an interface."""
        found: str = json.loads(self.run("ip", "-j", "link", "show", "dev", name))[0]["address"]
        return found

    def forget_neighbours(self) -> None:
        """Make the neighbour table cold."""
        self.ip("neigh flush all nud all")

    def remember(self, addresses: Iterable[str], device: str = "eth0") -> None:
        """Put hosts that are gone into the neighbour table, as stale rows."""
        self.ip(*(f"neigh replace {address} lladdr 02:00:00:00:{number // 256:02x}"
                  f":{number % 256:02x} dev {device} nud stale"
                  for number, address in enumerate(addresses)))


class VirtualLan:
    """Hosts on bridges. Use it in a ``with``; all that it made is gone afterwards.

    :param hosts: how many; host n has the address NETWORK.n, counted from 1.
    :param folder: where processes may write.
    :param weather: whether frames of the first network can be lost and delayed, by
        :meth:`weather`. They go through a process then, which is slower than the kernel's bridge.
    :param four: whether hosts have IPv4.
    :param six: a network of IPv6 that hosts are in; ``""`` for link-local addresses alone, None for
        no IPv6.
    """

    NETWORK = "10.77.5"

    def __init__(self, hosts: int, folder: Path, weather: bool = False, four: bool = True,
                 six: Optional[str] = None) -> None:
        self._six = six is not None
        self._folder = folder
        self._number = 0
        self._bridges: dict[str, str] = {}
        self._exit = ExitStack()
        self._processes = ExitStack()
        self._forwarder = Forwarder() if weather else None
        try:
            if self._forwarder is not None:
                self._exit.callback(self._forwarder.close)
            self.switch = Namespace()
            self._exit.callback(self.switch.close)
            self.hosts = [self._new_host(number) for number in range(1, hosts + 1)]
            for namespace in (self.switch, *self.hosts):
                namespace.wait()
            for host in self.hosts:
                if four:
                    host.join(self.NETWORK)
                if six is not None:
                    host.join_six(six)
        except BaseException:
            self.close()
            raise

    def _new_host(self, number: int) -> Host:
        host = Host(self, number, self._six)
        self._exit.callback(host.close)
        return host

    def add_host(self) -> Host:
        """One more host, with no interface yet."""
        host = self._new_host(len(self.hosts) + 1)
        self.hosts.append(host)
        host.wait()
        return host

    def plug(self, host: Host, network: str, name: str) -> None:
        """Give a host an interface of this name, in a network."""
        if self._forwarder is not None and network == self.NETWORK:
            self._forwarder.plug(host.pid, name)
            return
        port = f"p{self.next_number()}"
        self.switch.ip(
            f"link add {port} type veth peer name {name} netns {host.pid}",
            f"link set {port} master {self.bridge(network)} up",
        )

    def weather(self, weather: Weather) -> None:
        """From now on, this happens to frames of the first network."""
        assert self._forwarder is not None, "a LAN that was not made for it"
        self._forwarder.weather(weather)

    def bridge(self, network: str) -> str:
        """The name of the bridge of a network; it is made on first use."""
        if network not in self._bridges:
            name = self._bridges[network] = f"b{self.next_number()}"
            # Without a spanning tree, or the bridge would stay silent for its first 30 seconds.
            self.switch.ip(f"link add {name} type bridge stp_state 0 forward_delay 0",
                           f"link set {name} up")
        return self._bridges[network]

    def peers(self, *places: Host, script: str = "", **settings: object) -> list[PeerProcess]:
        """Start a peer on each of these hosts; a host named twice gets two."""
        with ThreadPoolExecutor(STARTERS) as starters:
            return list(starters.map(lambda host: host.peer(script, **settings), places))

    def start(self, host: Host, script: str) -> None:
        """Start another program on a host; it ends with the LAN."""
        process = subprocess.Popen([*host.prefix, sys.executable, "-c",
                                    f"{script}\nimport sys; print(flush=True); sys.stdin.read()"],
                                   env=lan_environment(), stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, start_new_session=True)
        self._processes.callback(process.stdout.close)
        self._processes.callback(process.wait)
        self._processes.callback(process.kill)
        assert process.stdout.readline(), "it has ended"
        self._processes.callback(process.stdin.close)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def folder(self) -> Path:
        """A new folder for one process."""
        path = self._folder / f"process{self.next_number()}"
        path.mkdir(parents=True)
        return path

    def ends(self, process: PeerProcess) -> None:
        """Have a process end with this LAN."""
        self._processes.callback(process.stop)

    def close(self) -> None:
        try:
            self._processes.close()
        finally:
            self._exit.close()

    def __enter__(self) -> VirtualLan:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def lan_environment(**settings: object) -> dict[str, str]:
    """The environment of a process in a namespace: no NET_HOST, since nothing can leave."""
    return environment(**{"NET_HOST": None, "NET_PORT_START": None, **settings})


def hosts_in_turn(hosts: Sequence[Host], count: int) -> list[Host]:
    """``count`` places for peers: every host once, then the first ones again."""
    return [hosts[number % len(hosts)] for number in range(count)]
