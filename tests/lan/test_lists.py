"""Lists that stay true: cloned processes, busy peers and what strangers say about them."""
from __future__ import annotations

from typing import Any, Iterator

import pytest

from hearing import ask, until
from virtual_lan import VirtualLan

WATCHER = """
import net
told = []
net.watch(lambda change, peer: told.append((change, str(peer.host))))
"""

#: A process that is cloned with its memory, without Python's knowledge, as machines are; the clone
#: goes on on another host and serves there until the original says so, or ends.
CLONED = """
import ctypes, os
import net
there = os.open("/proc/{pid}/ns/net", os.O_RDONLY)
wait, end_clone = os.pipe()
libc = ctypes.PyDLL(None)
if not libc.fork():
    os.close(end_clone)
    libc.setns(there, 0)
    net.Peer()
    if os.read(wait, 1):
        net.Peer().close()
    os._exit(0)
"""

#: Says goodbye in the name of another, from the address of that one.
FORGER = """
import socket, struct, time
from net.discovery.lan.datagrams import GOODBYE, WATCHING, Message, encode
data = encode(Message(GOODBYE, WATCHING, {port}, b"n" * 8, bytes.fromhex({instance!r})))
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    for _ in range(10):
        for target in {targets!r}:
            udp = struct.pack("!HHHH", {port}, {port}, 8 + len(data), 0) + data
            sock.sendto(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0,
                                    socket.inet_aton({source!r}), socket.inet_aton(target)) + udp,
                        (target, 0))
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def lan(build) -> Iterator[VirtualLan]:
    with build(5) as made:
        yield made


@pytest.fixture
def watchers(lan: VirtualLan) -> Iterator[list[Any]]:
    """Three processes that list each other."""
    processes = lan.peers(*lan.hosts[:3], script=WATCHER)
    for one in processes:
        until(lambda: ask(one, "len(net.peers())") == 2)
    yield processes
    for one in processes:
        one.stop()


def left(process: Any) -> list[str]:
    return ask(process, "[host for change, host in told if change == 'left']")


@pytest.mark.parametrize("forged", [False, True], ids=["busy", "busy, with forged goodbyes"])
def test_a_peer_that_holds_the_interpreter_for_two_seconds_is_never_reported_as_left(
        lan, watchers, forged):
    busy, *others = watchers
    instance = ask(busy, "__import__('net.process').process.process.instance")
    busy.execute("import ctypes; ctypes.PyDLL(None).usleep(2_000_000); print('done', flush=True)")
    if forged:
        host, port = busy.address
        lan.hosts[4].python(FORGER.format(
            port=port, instance=instance, source=host,
            targets=[other.address[0] for other in others]))
    assert busy.read_line(20) == "done"
    for process in watchers:
        assert left(process) == [] and ask(process, "len(net.peers())") == 2


def test_a_cloned_process_and_its_original_are_listed_and_called_each_by_itself(lan, watchers):
    original = lan.hosts[3].peer(CLONED.format(pid=lan.hosts[4].pid))
    both = {host.address for host in lan.hosts[3:]}
    for process in watchers:
        until(lambda: both <= set(ask(process, "[str(peer.host) for peer in net.peers()]")))
        ids = ask(process, f"sorted((net.info(peer=peer)['instance'], str(peer.host)) "
                           f"for peer in net.peers() if str(peer.host) in {both!r})")
        assert len({instance for instance, _ in ids}) == 1 and {host for _, host in ids} == both
    assert lan.hosts[4].address in ask(original, "[str(peer.host) for peer in net.peers()]")
    original.execute("os.write(end_clone, b'.')")
    for process in watchers:
        assert until(lambda: left(process)) == [lan.hosts[4].address]
    original.stop()
