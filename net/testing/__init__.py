"""Peers for the tests of an application: processes or in memory, on this host alone, with faults by
name.

::

    def test_a_shot_is_rendered():
        with net.testing.peers(3, app="studio") as [a, b, c]:
            assert render("sc01", peer=a) == "sc01 rendered"
            b.kill()
            assert render.any("sc02") == "sc02 rendered"
"""
from __future__ import annotations

import os
import socket
from contextlib import ExitStack, contextmanager
from importlib import import_module
from random import SystemRandom
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from .. import discovery, events
from ..errors import Address, SettingError
from ..settings import TABLE, Settings, is_loopback, settings
from .handles import LocalPeer, ProcessPeer, TestPeer
from .memory import memory_network

__all__ = ["LocalPeer", "ProcessPeer", "TestPeer", "peers"]

# Ports of a network, unless it is made for more peers.
PORTS = 6
# Where ranges may begin: below the ports that systems hand out themselves (Linux: from 32768), and
# above those of applications that keep to the default.
STARTS = range(20_000, 32_000, 8)
# Seconds for peers to start and to be found, on a machine that has much else to do.
START_SECONDS = 30.0
# Settings that are of one peer, and not of a network.
OF_ONE = ("name", "facts", "is_hub")


@contextmanager
def peers(count: int = 1, app: Optional[str] = None, processes: bool = True,
          each: Sequence[Mapping[str, Any]] = (), **values: Any) -> Iterator[List[TestPeer]]:
    """Start peers that run an application, and end them with the block, whatever happens in it.

    Nothing leaves this host, and other peers on it are not seen: the network has ports of its own,
    on 127.0.0.1. Within the block this process has the same settings and no others, so that
    :func:`net.peers` and ``f.peers()`` give exactly these peers, which are all there when the block
    begins.

    :param count: how many peers.
    :param app: the name of a module that each of them imports; None for the functions that every
        peer has.
    :param processes: True for a process for each peer. False for peers in memory, within this
        process, which start within milliseconds, open no network socket, and share its functions,
        variables and settings.
    :param each: further settings of single peers: ``[{"is_hub": True}]`` makes the first one a hub.
        Peers in memory can have ``name``, ``facts``, ``is_hub`` and ``group``.
    :param values: settings of all peers, as :func:`net.configure` takes them, such as
        ``group="farm"``. Except ``name``, ``facts`` and ``is_hub`` they count in this process, too.
    :raises NetError: a peer does not start.
    :raises SettingError: no such setting, or a value that it cannot take.
    :raises ValueError: ``each`` has settings for more peers than ``count``.
    """
    if len(each) > count:
        raise ValueError(f"settings of {len(each)} single peers, and {count} peers")
    own = [dict(one) for one in each] + [{} for _ in range(count - len(each))]
    with (_processes if processes else _in_memory)(app, values, own) as found:
        yield found


@contextmanager
def _processes(app: Optional[str], values: Dict[str, Any],
               each: List[Dict[str, Any]]) -> Iterator[List[TestPeer]]:
    count = len(each)
    with ExitStack() as stack:
        start = stack.enter_context(free_ports(max(PORTS, count)))
        # Unix sockets would be a second way to a peer, on which there are no faults.
        network = {"host": "127.0.0.1", "unix": False,
                   "port_start": start, "port_range": max(PORTS, count) - 1}
        stack.enter_context(_only({**values, **network}))
        stack.enter_context(_alone(range(start, start + max(PORTS, count))))
        # All of them start at the same time.
        found = [stack.enter_context(ProcessPeer(app, {**values, **one, **network}))
                 for one in each]
        for peer in found:
            peer.wait_until_ready(START_SECONDS)
        discovery.peers(refresh=True, at_least=count, timeout=START_SECONDS)
        yield list(found)


@contextmanager
def _in_memory(app: Optional[str], values: Dict[str, Any],
               each: List[Dict[str, Any]]) -> Iterator[List[TestPeer]]:
    with ExitStack() as stack:
        # The ports stay those of the peer that this process had before, which still has them.
        stack.enter_context(_only({**values, "host": "127.0.0.1", "unix": False,
                                   "port_start": settings.port_start,
                                   "port_range": settings.port_range}))
        make = stack.enter_context(memory_network())
        if app is not None:
            import_module(app)
        of_all = {name: value for name, value in values.items() if name in OF_ONE}
        yield [stack.enter_context(LocalPeer(make(_own({**of_all, **one})))) for one in each]


def _own(values: Dict[str, Any]) -> Dict[str, Any]:
    """The settings that a peer in memory has for itself.

    :raises SettingError: not one of those, or a value that it cannot take.
    """
    for name in values:
        if name not in (*OF_ONE, "group"):
            raise SettingError(f"peers in memory share the setting {name!r}: give it to all of "
                               f"them, or let each be a process")
    return {name: TABLE[name].read(name, value) for name, value in values.items()}


@contextmanager
def _only(values: Dict[str, Any]) -> Iterator[None]:
    """Let these settings count, and the defaults of all others; restore them at the end."""
    before = dict(vars(settings))
    vars(settings).clear()
    vars(settings).update({name: setting.default for name, setting in TABLE.items()},
                          _checked=True)
    Settings.revision += 1
    try:
        for name, value in values.items():
            if name not in OF_ONE:
                settings.set(name, value)
        yield
    finally:
        vars(settings).clear()
        vars(settings).update(before)
        Settings.revision += 1


@contextmanager
def _alone(ports: range) -> Iterator[None]:
    """Let only peers on these ports be found on this host."""
    def holds(address: Address) -> bool:
        return address[1] in ports or not is_loopback(address[0])

    with discovery.known_peers().elsewhere(holds):
        events.own_events().subscriber.leave_network()
        try:
            yield
        finally:
            events.own_events().subscriber.leave_network()


@contextmanager
def free_ports(count: int) -> Iterator[int]:
    """The first of ``count`` free ports in a row. Within the block this function gives them to no
    other process: until then the port after them is kept bound.

    :raises OSError: there are none.
    """
    random = SystemRandom()
    for _ in range(1000):
        start = random.choice(STARTS)
        ports = range(start, start + count)
        guard = _bound(socket.SOCK_STREAM, ports.stop)
        if guard is None:
            continue
        with guard:
            if all(_is_free(kind, port) for port in ports
                   for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
                yield start
                return
    raise OSError(f"no {count} free ports in a row from {STARTS.start} to {STARTS.stop}")


def _bound(kind: socket.SocketKind, port: int) -> Optional[socket.socket]:
    sock = socket.socket(socket.AF_INET, kind)
    if os.name == "nt":  # elsewhere a port that was just closed is free again
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    return sock


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    sock = _bound(kind, port)
    if sock is None:
        return False
    sock.close()
    return True
