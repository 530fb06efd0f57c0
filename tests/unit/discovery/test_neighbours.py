"""The neighbour table: every platform's format, and every way in which reading it fails."""
from __future__ import annotations

import os
import stat
import sys
import time

import pytest
from hypothesis import given, strategies as st

from net.discovery.lan import neighbours
from each import each
from times import patience

LINUX = """\
nas.fritz.box (10.77.5.27) at 9e:92:20:0e:be:20 [ether] on eth0
? (10.77.5.77) at 02:00:00:00:00:77 [ether] PERM on eth0
? (10.77.5.79) at 02:00:00:00:00:79 [ether] on eth0
? (10.77.5.9) at <incomplete> on eth0
build-1.example.lan (10.77.5.15) at 86:ff:b2:f1:ac:84 [ether] on eth0
? (10.77.5.78) at <from_interface> PERM PUB on eth0
5.1.168.192.in-addr.arpa (192.168.10.5) at 02:00:00:00:00:05 [ether] on wlp0s20f3
"""
LINUX_HOSTS = ["10.77.5.27", "10.77.5.77", "10.77.5.79", "10.77.5.15", "192.168.10.5"]

LINUX_GERMAN = """\
? (192.168.1.5) auf 00:01:6c:6f:c5:d6 [ether] auf eth0
? (192.168.1.6) auf <unvollständig> auf eth0
"""

# `arp -n` of net-tools, and the only format that OpenBSD has.
LINUX_TABLE = """\
Address                  HWtype  HWaddress           Flags Mask            Iface
10.77.5.27               ether   9e:92:20:0e:be:20   C                     eth0
10.77.5.9                        (incomplete)                              eth0
"""
OPENBSD = """\
Host                                 Ethernet Address    Netif Expire    Flags
192.0.2.1                            00:11:22:33:44:01     em0 19m57s
192.0.2.2                            (incomplete)          em0 expired
"""

BUSYBOX = """\
? (10.77.5.27) at 9e:92:20:0e:be:20 [ether]  on eth0
? (10.77.5.9) at <incomplete>  on eth0
? (10.77.5.78) at * PERM PUP on eth0
"""

MACOS = """\
? (192.168.1.1) at 54:c2:50:f6:d5:90 on en0 ifscope [ethernet]
mymac.local (192.168.1.10) at 7a:c0:c8:7d:f5:a8 on en0 ifscope permanent [ethernet]
? (192.168.1.11) at 34:10:be:d8:21:9 on en0 ifscope [ethernet]
? (192.168.1.29) at (incomplete) on en0 ifscope [ethernet]
? (192.168.1.255) at ff:ff:ff:ff:ff:ff on en0 ifscope [ethernet]
? (224.0.0.251) at 1:0:5e:0:0:fb on en0 ifscope permanent [ethernet]
? (192.168.64.8) at 6:69:3c:a5:6a:3e on bridge100 ifscope [bridge]
? (10.0.0.2) at aa:bb:cc:dd:ee:ff on en5 [ethernet]
"""
MACOS_HOSTS = ["192.168.1.1", "192.168.1.10", "192.168.1.11", "192.168.64.8", "10.0.0.2"]

NDP = "fe80::1%en0   a4:83:e7:1b:2c:3d en0 23h59m50s S R\n"

FREEBSD = """\
? (192.0.2.1) at 00:11:22:33:44:01 on igb1 expires in 1200 seconds [ethernet]
? (192.0.2.30) at 00:11:22:33:44:30 on igb1 permanent [ethernet]
? (192.0.2.31) at 0:a:b:0:53:9 on igb1 expires in 800 seconds [ethernet]
? (192.0.2.99) at (incomplete) on igb1 expired [ethernet]
"""
FREEBSD_HOSTS = ["192.0.2.1", "192.0.2.30", "192.0.2.31"]

WINDOWS = """
Interface: 192.168.1.10 --- 0xb
  Internet Address      Physical Address      Type
  192.168.1.1           8c-a6-df-7e-81-fa     dynamic\x20\x20\x20
  192.168.1.20          AA-BB-CC-DD-EE-FF     dynamic\x20\x20\x20
  192.168.1.31          00-00-00-00-00-00     invalid
  192.168.1.255         ff-ff-ff-ff-ff-ff     static\x20\x20\x20\x20
  224.0.0.22            01-00-5e-00-00-16     static\x20\x20\x20\x20
  255.255.255.255       ff-ff-ff-ff-ff-ff     static\x20\x20\x20\x20

Interface: 169.254.12.7 --- 0x12
  Internet Address      Physical Address      Type
  169.254.1.2           00-17-9e-a1-b2-c4     dynamic\x20\x20\x20
""".replace("\n", "\r\n")
WINDOWS_HOSTS = ["192.168.1.1", "192.168.1.20", "169.254.1.2"]

WINDOWS_GERMAN = """
Schnittstelle: 192.168.178.20 --- 0x7
  Internetadresse       Physische Adresse     Typ
  192.168.178.1         dc-39-6f-12-34-56     dynamisch
  192.168.178.255       ff-ff-ff-ff-ff-ff     statisch
  192.168.178.7         dc-39-6f-12-34-57     ungültig
""".replace("\n", "\r\n")

WINDOWS_CHINESE = """
接口: 192.168.31.207 --- 0x5
  Internet 地址         物理地址              类型
  192.168.31.1          ec-41-18-ee-c4-03     动态
""".replace("\n", "\r\n")

WINDOWS_FRENCH = """
Interface : 192.168.102.2 --- 0xc
  Adresse Internet      Adresse physique      Type
  192.168.102.9         6c-38-a1-06-bf-04     dynamique
""".replace("\n", "\r\n")


@pytest.mark.parametrize("output, hosts", [
    pytest.param(LINUX.encode(), LINUX_HOSTS, id="net-tools"),
    pytest.param(LINUX_GERMAN.encode(), ["192.168.1.5"], id="net-tools, German"),
    pytest.param(LINUX_GERMAN.encode("latin-1"), ["192.168.1.5"], id="net-tools, not UTF-8"),
    pytest.param(LINUX_TABLE.encode(), ["10.77.5.27"], id="net-tools -n"),
    pytest.param(OPENBSD.encode(), ["192.0.2.1"], id="OpenBSD"),
    pytest.param(BUSYBOX.encode(), ["10.77.5.27"], id="BusyBox"),
    pytest.param(MACOS.encode(), MACOS_HOSTS, id="macOS"),
    pytest.param(FREEBSD.encode(), FREEBSD_HOSTS, id="FreeBSD"),
    pytest.param(NDP.encode(), [], id="IPv6 only"),
    pytest.param(WINDOWS.encode(), WINDOWS_HOSTS, id="Windows"),
    pytest.param(WINDOWS_GERMAN.encode("cp850"), ["192.168.178.1", "192.168.178.7"],
                 id="Windows, German"),
    pytest.param(WINDOWS_CHINESE.encode("cp936"), ["192.168.31.1"], id="Windows, Chinese"),
    pytest.param(WINDOWS_FRENCH.encode("cp850"), ["192.168.102.9"], id="Windows, French"),
    pytest.param(b"No ARP Entries Found.\r\n", [], id="Windows, none"),
    pytest.param(b"", [], id="nothing"),
])
def test_arp_is_read_on_every_platform_and_in_every_language(output, hosts):
    assert neighbours.parse_arp(output) == hosts


@each("line", [
    "ip-10-0-0-5.lan (10.0.0.6) at <incomplete> on eth0",
    "? (10.0.0.300) at 02:00:00:00:00:05 [ether] on eth0",
    "? (10.0.0.07) at 02:00:00:00:00:05 [ether] on eth0",
    "? (127.0.0.1) at 02:00:00:00:00:05 [ether] on lo",
    "? (0.0.0.0) at 02:00:00:00:00:05 [ether] on eth0",
    "? (239.1.2.3) at 02:00:00:00:00:05 [ether] on eth0",
    "? (10.0.0.5) at 03:00:00:00:00:05 [ether] on eth0",
    "? (10.0.0.5) at 00:00:00:00:00:00 [ether] on eth0",
    "? (10.0.0.5) at 02:00:00:00:00:05:06 [ether] on eth0",
    "Interface: 10.0.0.5 --- 0xb",
    "10.0.0.5",
])
def test_a_row_that_names_no_host_is_left_out(line):
    assert neighbours.parse_arp(line.encode()) == []


def test_a_host_on_two_interfaces_is_named_once():
    rows = (b"? (10.0.0.5) at 02:00:00:00:00:05 [ether] on eth0\n"
            b"? (10.0.0.5) at 02:00:00:00:00:05 [ether] on eth1\n")
    assert neighbours.parse_arp(rows) == ["10.0.0.5"]


def test_random_bytes_name_no_host_and_take_no_time():
    noise = os.urandom(2**18) + b"\n? (10.0.0.5) at 02:00:00:00:00:05 [ether] on eth0\n" * 2
    started = time.perf_counter()
    assert neighbours.parse_arp(noise) == ["10.0.0.5"]
    assert time.perf_counter() - started < patience(1)


@each("noise", [b"1.1." * 2**17, b" " * 2**18, b"? (" * 2**17, b"\n " * 2**17])
def test_text_made_to_slow_a_parser_down_does_not(noise):
    started = time.perf_counter()
    assert neighbours.parse_arp(noise) == []
    assert neighbours.parse_ip(noise) == []
    assert time.perf_counter() - started < patience(1)


IP_NEIGH = b"""\
10.77.5.27 dev eth0 lladdr 9e:92:20:0e:be:20 REACHABLE\x20
10.77.5.77 dev eth0 lladdr 02:00:00:00:00:77 PERMANENT\x20
10.77.5.79 dev eth0 lladdr 02:00:00:00:00:79 STALE\x20
10.77.5.9 dev eth0 INCOMPLETE\x20
10.77.5.10 dev eth0 FAILED\x20
10.77.5.11 dev eth0 lladdr 02:00:00:00:00:11 FAILED\x20
10.77.5.12 dev eth0 lladdr 02:00:00:00:00:12 NOARP\x20
10.77.5.13 dev eth0 lladdr 02:00:00:00:00:13 DELAY\x20
fe80::1 dev eth0 lladdr 02:00:00:00:00:01 PROBE\x20
fd00:5::79 dev eth0 lladdr 02:00:00:00:00:79 router STALE\x20
"""


@pytest.mark.parametrize("output, hosts", [
    pytest.param(IP_NEIGH, ["10.77.5.27", "10.77.5.77", "10.77.5.79", "10.77.5.13"], id="text"),
    pytest.param(b"10.77.5.27 dev eth0 lladdr 9e:92:20:0e:be:20 ref 1 used 0/0/0 probes 4 "
                 b"REACHABLE", ["10.77.5.27"], id="BusyBox"),
    pytest.param(b'[{"dst":"10.77.5.27","dev":"eth0","lladdr":"9e:92:20:0e:be:20",'
                 b'"state":["REACHABLE"]},'
                 b'{"dst":"10.77.5.9","dev":"eth0","state":["INCOMPLETE"]}]',
                 ["10.77.5.27"], id="JSON"),
    pytest.param(b'[1, null, {"dst": 5}, {"dst": {}, "lladdr": [], "state": ["STALE"]}]', [],
                 id="JSON of something else"),
    pytest.param(b"[" * 5000, [], id="JSON that is nested too deep"),
])
def test_ip_neigh_is_read_as_text_and_as_json(output, hosts):
    assert neighbours.parse_ip(output) == hosts


PROC = b"""\
IP address       HW type     Flags       HW address            Mask     Device
10.77.5.27       0x1         0x2         9e:92:20:0e:be:20     *        eth0
10.77.5.77       0x1         0x6         02:00:00:00:00:77     *        eth0
10.77.5.9        0x1         0x0         00:00:00:00:00:00     *        eth0
10.77.5.78       0x1         0xc         00:00:00:00:00:00     *        eth0
"""


def test_the_kernels_own_table_is_read_where_there_is_one():
    assert neighbours.parse_proc(PROC) == ["10.77.5.27", "10.77.5.77"]
    assert neighbours.parse_proc(b"\xff\xfe\n1 2 x 4 5 6\n10.0.0.1 0x1 0x2\n") == []


def test_the_rows_of_hosts_that_did_not_answer_are_told_from_the_others():
    hosts = ["10.77.5.9", "10.77.5.27", "10.77.5.78", "10.0.0.1"]
    assert neighbours.parse_unanswered(PROC, hosts) == [("10.77.5.9", "eth0")]
    assert neighbours.parse_unanswered(PROC, ["10.77.5.10"]) == []
    broken = b"\xff\xfe\n1 2 x 4 5 6\n10.0.0.1 0x1 0x0\n"
    assert neighbours.parse_unanswered(broken, hosts) == []


def test_forgetting_needs_no_privilege_and_no_table(monkeypatch, tmp_path):
    monkeypatch.setattr(neighbours, "PROC_TABLE", str(tmp_path / "none"))
    assert neighbours.forget(["10.77.5.9"]) == 0
    monkeypatch.setattr(neighbours.sys, "platform", "darwin")
    assert neighbours.forget(["10.77.5.9"]) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the table of Linux")
@pytest.mark.parametrize("problem, left, tried", [(PermissionError, 2, 1), (OSError, 0, 2)])
def test_rows_that_have_to_stay_are_counted_and_one_that_is_gone_keeps_no_other(
        monkeypatch, tmp_path, problem, left, tried):
    import fcntl

    def refuse(*args: object) -> None:
        asked.append(args)
        raise problem

    asked: list[object] = []
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(neighbours, "PROC_TABLE", str(tmp_path / "arp"))
    (tmp_path / "arp").write_bytes(PROC + PROC.splitlines()[3].replace(b"5.9 ", b"5.8 ") + b"\n")
    assert neighbours.forget(["10.77.5.8", "10.77.5.9", "10.77.5.27"]) == left
    assert len(asked) == tried


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the table of Linux")
@pytest.mark.parametrize("problem, may", [(PermissionError, False), (OSError, True)])
def test_the_kernel_is_asked_whether_rows_may_be_taken_out(monkeypatch, problem, may):
    import fcntl

    def refuse(sock: object, request: int, row: bytes) -> None:
        assert request == neighbours.SIOCDARP and b"lo" in row
        raise problem

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert neighbours.may_forget() is may


def test_where_no_row_keeps_any_search_waiting_all_may_be_swept(monkeypatch):
    monkeypatch.setattr(neighbours.sys, "platform", "darwin")
    assert neighbours.may_forget()


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Put a script of a name and a text first on the PATH."""
    if os.name != "posix":
        pytest.skip("writes shell scripts")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_arp_is_run_without_names_and_with_plain_words(command):
    command("arp", 'echo "? (10.0.0.5) at 02:00:00:00:00:05 $*-$LC_ALL on eth0"')
    assert neighbours.read_arp(5) == ["10.0.0.5"]
    assert neighbours.run("arp", ["-an"], 5).endswith(b"-an-C on eth0\n")


def test_a_command_that_fails_after_its_rows_still_counts(command):
    command("arp", 'echo "? (10.0.0.5) at 02:00:00:00:00:05 [ether] on eth0"; exit 3')
    assert neighbours.read_arp(5) == ["10.0.0.5"]


@pytest.mark.parametrize("script, complaint", [
    pytest.param("exit 1", "exit code 1", id="fails"),
    pytest.param("sleep 60", "no end after 0.1 s", id="hangs"),
    pytest.param("sleep 60 & sleep 60", "no end after 0.1 s", id="hangs with a child"),
    pytest.param("trap '' TERM; while :; do :; done", "no end after 0.1 s", id="holds on"),
])
def test_a_broken_arp_is_left_for_the_next_source(command, script, complaint):
    command("arp", script)
    command("ip", "echo 10.0.0.5 dev eth0 lladdr 02:00:00:00:00:05 STALE")
    started = time.perf_counter()
    table = neighbours.read(0.1, [("arp", neighbours.read_arp), ("ip neigh", neighbours.read_ip)])
    assert time.perf_counter() - started < patience(2)
    assert table.source == "ip neigh" and table.hosts == ["10.0.0.5"]
    assert len(table.notes) == 1 and complaint in table.notes[0]


@pytest.mark.parametrize("script", ["cat /dev/urandom", "yes", "cat /dev/zero"])
def test_an_arp_that_never_stops_talking_is_cut_off(command, script):
    command("arp", script)
    started = time.perf_counter()
    table = neighbours.read(2, [("arp", neighbours.read_arp)])
    assert time.perf_counter() - started < patience(2)
    assert table == neighbours.Table("arp", [], [])


def test_without_a_thread_a_command_is_ended_and_left_for_the_next_source(command, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    command("arp", "sleep 60")
    monkeypatch.setattr(neighbours.threading.Thread, "start", no_thread)
    table = neighbours.read(5, [("arp", neighbours.read_arp), ("none", lambda seconds: [])])
    assert table.source == "none" and "can't start new thread" in table.notes[0]


def test_without_any_source_there_are_no_neighbours_but_the_reasons():
    def denied(seconds):
        raise PermissionError(13, "Permission denied")

    table = neighbours.read(1, [("a", denied), ("b", lambda seconds: neighbours.run("zz", [], 1))])
    assert table.source == "" and table.hosts == []
    assert "Permission denied" in table.notes[0] and "not found" in table.notes[1]


def test_system_folders_are_searched_beyond_the_path(monkeypatch, tmp_path):
    tool = tmp_path / "someneighbourtool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setattr(neighbours, "SYSTEM_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert neighbours.find("someneighbourtool") == str(tool)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_linux_starts_no_process_for_its_table(monkeypatch):
    monkeypatch.setattr(neighbours, "run", None)
    assert neighbours.read().source == "/proc/net/arp"


def test_the_table_of_the_kernel_is_read_without_waiting_and_no_other(monkeypatch, tmp_path):
    table = tmp_path / "arp"
    table.write_bytes(b"IP address\n10.0.0.5 0x1 0x2 02:00:00:00:00:05 * eth0\n")
    monkeypatch.setattr(neighbours, "PROC_TABLE", str(table))
    monkeypatch.setattr(neighbours, "SOURCES", ((str(table), neighbours.read_proc),))
    assert neighbours.read_at_once() == neighbours.Table(str(table), ["10.0.0.5"], [])
    table.unlink()
    assert neighbours.read_at_once() is None
    monkeypatch.setattr(neighbours, "SOURCES", (("arp", neighbours.read_arp),))
    assert neighbours.read_at_once() is None


# ------------------------------------------------------------------------------------- IPv6

IP_SIX = """\
fe80::1 dev eth0 lladdr 02:00:00:00:00:01 router PROBE\x20
fd00:5::79 dev eth0 lladdr 02:00:00:00:00:79 STALE\x20
fe80::79 dev eth0 lladdr 02:00:00:00:00:79 REACHABLE\x20
fe80::79 dev wlan0 lladdr 02:00:00:00:00:79 DELAY\x20
2001:db8::5 dev eth0 lladdr 02:00:00:00:00:05 PERMANENT\x20
fd00:5::9 dev eth0  FAILED\x20
fd00:5::8 dev eth0  INCOMPLETE\x20
fd00:5::7 dev eth0 lladdr 02:00:00:00:00:07 FAILED\x20
ff02::1 dev eth0 lladdr 33:33:00:00:00:01 NOARP\x20
10.0.0.7 dev eth0 lladdr 02:00:00:00:00:77 STALE\x20
"""
IP_SIX_HOSTS = [["fe80::1%eth0"], ["fd00:5::79", "fe80::79%eth0"], ["fe80::79%wlan0"],
                ["2001:db8::5"]]

NDP_TABLE = """\
Neighbor                                Linklayer Address  Netif Expire    St Flgs Prbs
2001:db8::5                             a4:83:e7:1b:2c:3d    en0 23h59m50s S
fe80::1%lo0                             (incomplete)         lo0 permanent R
fe80::aede:48ff:fe00:1122%en5           ac:de:48:0:11:22     en5 permanent R
fe80::1%en0                             a4:83:e7:1b:2c:3d    en0 3s        R  R
fe80::99%en0                            (incomplete)         en0 expired   N
::1                                     (incomplete)         lo0 permanent R
"""
NDP_HOSTS = [["2001:db8::5", "fe80::1%en0"], ["fe80::aede:48ff:fe00:1122%en5"]]

NETSH = """
Interface 1: Loopback Pseudo-Interface 1


Internet Address                              Physical Address   Type
--------------------------------------------  -----------------  -----------
ff02::16                                                         Permanent

Interface 12: Wi-Fi 2: home

Internet Address                              Physical Address   Type
--------------------------------------------  -----------------  -----------
fe80::1                                       8c-a6-df-7e-81-fa  Reachable (Router)
fd00::20                                      AA-BB-CC-DD-EE-FF  Stale
fe80::20                                      AA-BB-CC-DD-EE-FF  Stale
fe80::99                                      Unreachable        Unreachable
fe80::98                                      00-00-00-00-00-00  Unreachable
ff02::1                                       33-33-00-00-00-01  Permanent
""".replace("\n", "\r\n")
NETSH_HOSTS = [["fe80::1%12"], ["fd00::20", "fe80::20%12"]]

NETSH_GERMAN = """
Schnittstelle 7: Ethernet


Internetadresse                               Physische Adresse  Typ
--------------------------------------------  -----------------  -----------
fe80::2                                       dc-39-6f-12-34-56  Erreichbar (Router)
fe80::3                                       Nicht erreichbar   Nicht erreichbar
""".replace("\n", "\r\n")

NETSH_FRENCH = """
Interface 9 : Ethernet

Adresse Internet                              Adresse physique   Type
--------------------------------------------  -----------------  -----------
fe80::4                                       6c-38-a1-06-bf-04  Joignable
""".replace("\n", "\r\n")


@pytest.mark.parametrize("parse, output, hosts", [
    (neighbours.parse_ip_six, IP_SIX.encode(), IP_SIX_HOSTS),
    (neighbours.parse_ip_six, b"", []),
    (neighbours.parse_ndp, NDP_TABLE.encode(), NDP_HOSTS),
    (neighbours.parse_ndp, NDP.encode(), [["fe80::1%en0"]]),
    (neighbours.parse_netsh, NETSH.encode(), NETSH_HOSTS),
    (neighbours.parse_netsh, NETSH_GERMAN.encode("cp850"), [["fe80::2%7"]]),
    (neighbours.parse_netsh, NETSH_FRENCH.encode("cp850"), [["fe80::4%9"]]),
], ids=["ip", "nothing", "ndp", "one row of ndp", "netsh", "German", "French"])
def test_a_table_of_ipv6_names_each_host_once_with_all_its_addresses(parse, output, hosts):
    assert neighbours.hosts_of(parse(output)) == hosts


@given(st.binary(max_size=400), st.sampled_from([IP_SIX, NDP_TABLE, NETSH]))
def test_no_output_of_a_command_for_ipv6_breaks_its_parser(noise, table):
    for output in (noise, table.encode() + noise, noise + table.encode()):
        for parse in (neighbours.parse_ip_six, neighbours.parse_ndp, neighbours.parse_netsh):
            for addresses in neighbours.hosts_of(parse(output)):
                assert addresses and all(":" in one for one in addresses)


def test_the_first_source_for_ipv6_that_works_is_taken():
    def broken(seconds):
        raise OSError("not found")

    rows = [("eth0", "fe80::5", "02:00:00:00:00:05"), ("eth0", "nonsense", "02:00:00:00:00:05")]
    assert neighbours.read_six([("ndp", broken), ("ip", lambda seconds: rows)]) == \
        ("ip", [["fe80::5%eth0"]])
    assert neighbours.read_six([("ndp", broken)]) == ("", [])
