"""The neighbour table: the hosts of its networks that this host has lately spoken to.

The parsers are pure: the bytes that a command printed in, addresses out. They never look at words,
because words come in the language of the machine, and never collect whatever looks like an address,
because host names and headings hold such text too.
"""
from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import threading
import time
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, NamedTuple, Tuple

from ...link import netlink
from ...link.addresses import is_link_local

if TYPE_CHECKING:
    import subprocess

# A name and a function that takes the seconds it may spend, gives addresses and may raise OSError.
Source = Tuple[str, Callable[[float], List[str]]]

# `arp` answers in a few milliseconds. If it takes longer it hangs, and a search has a deadline.
COMMAND_SECONDS = 0.3

# Seconds in which a command has to end once it has closed its output.
END_SECONDS = 0.05

# About 15,000 rows. A table has 1,024 by default on Linux; more output is a mistake or an attack.
MAX_OUTPUT_BYTES = 2**20

# Debian keeps arp and ip where the PATH of an ordinary user does not look.
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")

PROC_TABLE = "/proc/net/arp"

# Bit of /proc/net/arp's flags: the kernel knows the hardware address.
COMPLETE = 0x2

# Linux's request to delete a row, and the row: family, port and address, then the device.
SIOCDARP = 0x8953
ROW = struct.Struct("=HH4s44x16s")

LIVE_STATES = {"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"}

# Compiled when they are needed: on Linux the kernel's own table usually does.
#
# No leading zeros: some resolvers read them as octal, and no table prints them.
_OCTET = rb"(?:0|[1-9]\d{0,2})"
_IP = rb"(" + _OCTET + rb"(?:\." + _OCTET + rb"){3})"
_MAC = rb"([0-9A-Fa-f]{1,2}(?:[:-][0-9A-Fa-f]{1,2}){5})(?=\s|$)"

# `name (address) at hardware-address ...`: Linux, BusyBox, macOS, most BSDs; "at" in any language.
_SENTENCE = rb"^\S+[ \t]+\(" + _IP + rb"\)[ \t]+\S+[ \t]+" + _MAC
# `address hardware-address ...`: Windows, OpenBSD; with a kind of hardware between them, `arp -n`.
_ROW = rb"^[ \t]*" + _IP + rb"[ \t]+(?:\w+[ \t]+)?" + _MAC
_IP_ROW = rb"^" + _IP + rb" .*?\blladdr " + _MAC + rb"([^\r\n]*)"

_SIX = rb"([0-9A-Fa-f:]+:[0-9A-Fa-f:.]*)"
# `address dev interface lladdr hardware-address ...`.
_IP_ROW_6 = rb"^" + _SIX + rb" dev (\S+) .*?\blladdr " + _MAC + rb"([^\r\n]*)"
# `address%interface hardware-address interface ...`.
_NDP_ROW = rb"^" + _SIX + rb"(?:%\S+)?[ \t]+" + _MAC + rb"[ \t]+(\S+)"
# `Interface 12: name`, whatever the word is, or `address hardware-address ...`.
_NETSH_ROW = rb"^[^\d\s:]+[ \t]+(\d+)[ \t]*:|^" + _SIX + rb"[ \t]+" + _MAC


class Table(NamedTuple):
    """What was read, and where. ``source`` is empty if nothing could be read; ``notes`` say why."""

    source: str
    hosts: list[str]
    notes: list[str]


def parse_arp(output: bytes) -> list[str]:
    """The addresses in what `arp -a`, `arp -an` or `arp -n` printed, anywhere, in any language."""
    # The sentences come first only because the most common systems print them.
    return _hosts(re.findall(_SENTENCE, output, re.MULTILINE)) \
        or _hosts(re.findall(_ROW, output, re.MULTILINE))


def parse_proc(output: bytes) -> list[str]:
    """The addresses in the text of /proc/net/arp."""
    rows = (line.split() for line in output.splitlines()[1:])
    return _hosts((row[0], row[3]) for row in rows if len(row) >= 6 and _complete(row[2]))


def parse_ip(output: bytes) -> list[str]:
    """The addresses in what `ip neigh` or `ip -j neigh` printed."""
    if output.lstrip()[:1] == b"[":
        return _parse_ip_json(output)
    return _hosts((host, hardware)
                  for host, hardware, rest in re.findall(_IP_ROW, output, re.MULTILINE)
                  if LIVE_STATES.intersection(rest.decode("ascii", "replace").split()))


def _parse_ip_json(output: bytes) -> list[str]:
    try:
        rows = json.loads(output)
    except (ValueError, RecursionError):
        return []
    return _hosts(
        (str(row.get("dst")).encode("ascii", "replace"),
         str(row.get("lladdr")).encode("ascii", "replace"))
        for row in rows
        if isinstance(row, dict) and _live(row.get("state"))
    )


def _live(states: object) -> bool:
    return isinstance(states, list) and any(str(state) in LIVE_STATES for state in states)


def _complete(flags: bytes) -> bool:
    try:
        return bool(int(flags, 16) & COMPLETE)
    except ValueError:
        return False


def _hosts(rows: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The addresses of the rows that name a real host, each once, in their order."""
    return list(dict.fromkeys(
        host.decode("ascii") for host, hardware in rows if is_host(host) and is_unicast(hardware)
    ))


def is_host(text: bytes) -> bool:
    """Whether this is the IPv4 address of one host: not loopback, a group, broadcast or none."""
    # Without an expression, which each process would compile for its first search.
    try:
        packed = socket.inet_aton(text.decode("ascii"))
    except (OSError, ValueError):
        return False
    return socket.inet_ntoa(packed).encode() == text and packed[0] not in (0, 127) \
        and packed[0] < 224


def is_unicast(hardware: bytes) -> bool:
    """Whether a hardware address is that of one interface: not zeros, a group or broadcast."""
    pieces = hardware.replace(b"-", b":").split(b":")
    if not all([1 <= len(piece) <= 2 for piece in pieces]):
        return False
    try:
        octets = bytes.fromhex(b"".join([piece.zfill(2) for piece in pieces]).decode("ascii"))
    except ValueError:
        return False
    return len(octets) == len(pieces) == 6 and any(octets) and not octets[0] & 1


def read(seconds: float = COMMAND_SECONDS, sources: Iterable[Source] | None = None) -> Table:
    """Read the neighbour table from the first source that has one.

    :param seconds: how long each command may take. It is ended then.
    :param sources: asked in turn; by default what this platform has.
    """
    notes: list[str] = []
    for name, source in SOURCES if sources is None else sources:
        started = time.perf_counter()
        try:
            return Table(name, source(seconds), notes)
        except (OSError, ValueError) as exc:
            spent = (time.perf_counter() - started) * 1000
            notes.append(f"{name}: {exc} ({spent:.0f} ms)")
    return Table("", [], notes)


def read_at_once() -> Table | None:
    """The same from the first source, if that is the kernel itself, which keeps nobody waiting;
    None otherwise."""
    if SOURCES[:1] != ((PROC_TABLE, read_proc),):
        return None
    try:
        return Table(PROC_TABLE, read_proc(0.0), [])
    except OSError:
        return None


# ------------------------------------------------------------------ IPv6

#: Interface, address and hardware address; the zone of the address may be missing.
Row = Tuple[str, str, str]
#: The addresses of one host, that by which it would be listed first.
Addresses = List[str]


def parse_ip_six(output: bytes) -> list[Row]:
    """What `ip -6 neigh` printed."""
    return [(_text(name), _text(host), _text(hardware))
            for host, name, hardware, rest in re.findall(_IP_ROW_6, output, re.MULTILINE)
            if LIVE_STATES.intersection(rest.decode("ascii", "replace").split())]


def parse_ndp(output: bytes) -> list[Row]:
    """What `ndp -an` printed, on macOS or a BSD."""
    return [(_text(name), _text(host), _text(hardware))
            for host, hardware, name in re.findall(_NDP_ROW, output, re.MULTILINE)]


def parse_netsh(output: bytes) -> list[Row]:
    """What `netsh interface ipv6 show neighbors` printed, in any language. There an interface is
    called by its number."""
    rows, number = [], ""
    for heading, host, hardware in re.findall(_NETSH_ROW, output, re.MULTILINE):
        if heading:
            number = _text(heading)
        else:
            rows.append((number, _text(host), _text(hardware)))
    return rows


def _text(piece: bytes) -> str:
    return piece.decode("ascii", "replace")


def hosts_of(rows: Iterable[Row]) -> list[Addresses]:
    """The hosts of some rows: what has one hardware address at one interface is one host."""
    found: dict[tuple[str, str], Addresses] = {}
    for name, host, hardware in rows:
        host = host.partition("%")[0]
        try:
            address = IPv6Address(host)
        except ValueError:
            continue
        # Parts of ::/8 are this very host, none at all, or IPv4.
        if is_unicast(hardware.encode("ascii", "replace")) and not address.is_multicast \
                and address.packed[0]:
            usual = f"{address}%{name}" if is_link_local(host) else str(address)
            found.setdefault((name, hardware), []).append(usual)
    return [sorted(dict.fromkeys(ones), key=is_link_local) for ones in found.values()]


def read_six(sources: Iterable[SourceSix],
             seconds: float = COMMAND_SECONDS) -> tuple[str, list[Addresses]]:
    """Where the neighbours in IPv6 are read, and their addresses; nowhere and none if no source has
    them."""
    for name, source in sources:
        try:
            return name, hosts_of(source(seconds))
        except (OSError, ValueError):
            pass
    return "", []


def read_netlink(seconds: float) -> list[Row]:
    return netlink.neighbours()


def read_ip_six(seconds: float) -> list[Row]:
    return parse_ip_six(run("ip", ["-6", "neigh"], seconds))


def read_ndp(seconds: float) -> list[Row]:
    return parse_ndp(run("ndp", ["-an"], seconds))


def read_netsh(seconds: float) -> list[Row]:
    return parse_netsh(run("netsh", ["interface", "ipv6", "show", "neighbors"], seconds))


SourceSix = Tuple[str, Callable[[float], List[Row]]]

SOURCES_SIX: tuple[SourceSix, ...] = (
    *([("netlink", read_netlink)] if sys.platform.startswith("linux") else []),
    *([("ndp", read_ndp), ("ip -6 neigh", read_ip_six)] if os.name == "posix"
      else [("netsh", read_netsh)]),
)

# ------------------------------------------------------------------ where IPv4's are


def read_proc(seconds: float) -> list[str]:
    # The kernel's own text: where `arp` takes its rows from on Linux, without a process.
    with open(PROC_TABLE, "rb") as table:
        return parse_proc(table.read(MAX_OUTPUT_BYTES))


def parse_unanswered(output: bytes, wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Address and device of those rows of /proc/net/arp that are of these hosts and have no
    answer."""
    hosts = {host.encode("ascii") for host in wanted}
    rows = (line.split() for line in output.splitlines()[1:])
    return [(row[0].decode("ascii"), row[5].decode("ascii", "replace")) for row in rows
            if len(row) >= 6 and row[2] == b"0x0" and row[0] in hosts]


def may_forget() -> bool:
    """Whether this user may remove rows, which matters on Linux: there the kernel keeps those of
    hosts that have not answered, unless there are more than it likes."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        # The kernel looks at the right first; there is no such row.
        netlink.control(SIOCDARP, ROW.pack(socket.AF_INET, 0, bytes(4), b"lo"))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def forget(hosts: Iterable[str]) -> int:
    """Remove the rows of hosts that have not answered, where this user may do so, on Linux. Old
    programs ask the host of each row, present or not, which takes them very long.

    :returns: how many rows had to stay, because this user may not remove them.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        with open(PROC_TABLE, "rb") as table:
            rows = parse_unanswered(table.read(MAX_OUTPUT_BYTES), hosts)
        for host, device in rows:
            try:
                netlink.control(SIOCDARP, ROW.pack(
                    socket.AF_INET, 0, socket.inet_aton(host), device.encode("ascii")))
            except PermissionError:
                return len(rows)
            except OSError:
                pass  # somebody else has taken it out
    except OSError:
        pass  # there is no such table
    return 0


def read_arp(seconds: float) -> list[str]:
    # On Windows there is no -n and -a is numeric. Elsewhere -a alone would resolve each name, which
    # was measured at six seconds a row where the resolver is out of reach.
    return parse_arp(run("arp", ["-a" if os.name == "nt" else "-an"], seconds))


def read_ip(seconds: float) -> list[str]:
    return parse_ip(run("ip", ["-4", "neigh"], seconds))


def read_ip_json(seconds: float) -> list[str]:
    return parse_ip(run("ip", ["-j", "-4", "neigh"], seconds))


# BusyBox's `ip` knows no -j, so the text is asked for last.
SOURCES: tuple[Source, ...] = (
    *([(PROC_TABLE, read_proc)] if sys.platform.startswith("linux") else []),
    ("arp", read_arp),
    *([("ip -j neigh", read_ip_json), ("ip neigh", read_ip)] if os.name == "posix" else []),
)


def run(name: str, arguments: list[str], seconds: float) -> bytes:
    """Run a system command without a shell and return the start of what it printed.

    :raises OSError: it is missing, did not end in time, or failed without a word.
    """
    import subprocess  # heavy, and not needed where the kernel shows its table

    process = subprocess.Popen(
        [find(name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        # A group of its own, so that the children of a wrapper script end with it.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    pipe: Any = process.stdout
    output: list[bytes] = []
    # A pipe can be waited for with a time limit on every platform only by a thread.
    reader = threading.Thread(
        target=lambda: output.append(pipe.read(MAX_OUTPUT_BYTES)),
        name="net-neighbours",
        daemon=True,
    )
    try:
        reader.start()
    except RuntimeError as problem:  # can't start new thread
        _end(process, False)
        pipe.close()
        raise OSError(str(problem)) from problem
    reader.join(seconds)
    in_time = not reader.is_alive()
    _end(process, in_time)
    reader.join(seconds)
    if not reader.is_alive():
        pipe.close()
    if not in_time:
        raise OSError(f"no end after {seconds:g} s")
    if process.returncode and not output[0].strip():
        raise OSError(f"exit code {process.returncode}")
    return output[0]


def _end(process: subprocess.Popen[bytes], in_time: bool) -> None:
    """Reap a command that has ended; end one that has not, with all that it started."""
    import signal
    import subprocess

    try:
        # A command that has closed its output, or printed more than we read, is about to end by
        # itself.
        process.wait(END_SECONDS if in_time else 0)
        return
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
    except OSError:
        pass  # it has just ended
    process.wait()


def find(name: str) -> str:
    """The full path of a system command, also where an ordinary PATH does not look.

    :raises FileNotFoundError: it is not there."""
    import shutil

    folders = [os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]
    if os.name == "nt":
        # Nothing else: on Windows a search of the PATH begins in the working folder.
        folders = [os.path.join(os.environ.get("SystemRoot", r"C:\Windows"), "System32")]
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        raise FileNotFoundError("not found")
    return path
