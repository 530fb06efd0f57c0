"""``app-net doctor PEER``: whether two hosts reach each other, one direction after the other."""
from __future__ import annotations

from time import perf_counter
from typing import List, NamedTuple, Optional

from ..errors import (AuthenticationError, CallTimeout, InvalidConnection, NetError,
                      PeerUnreachable, ProtocolError)
from ..identity import PeerId, printable
from ..link.tcp import is_own_address
from ..objects import remote
from ..peer import Peer
from ..process import process
from ..settings import settings
from .screen import RED, Screen

# Seconds to reach the peer, and for it to reach back, which takes it up to three.
SECONDS, BACK_SECONDS = 3.0, 6.0


class Direction(NamedTuple):
    """What was seen in one direction. ``problem`` and ``remedy`` are empty if it is open."""

    name: str
    seen: str
    problem: str = ""
    remedy: str = ""


def examine(peer: PeerId, screen: Screen, timeout: Optional[float]) -> int:
    """Try both directions, and say what was seen.

    :param timeout: seconds for each of them; None for the usual ones.
    :returns: the exit code: 0 if both are open, otherwise 1.
    """
    there = _there(peer, SECONDS if timeout is None else timeout)
    found: List[Direction] = [there]
    found.append(_back(peer, BACK_SECONDS if timeout is None else timeout) if not there.problem
                 else Direction(f"from {peer} to this host", "not tried: the peer has to be asked"))
    if screen.json:
        screen.put_json({"peer": str(peer), "directions": [one._asdict() for one in found]})
    else:
        for one in found:
            screen.write(printable(f"{one.name}: {one.seen or one.problem}", 1000),
                         RED if one.problem else "")
            if one.remedy:
                screen.write(f"  -> {one.remedy}")
    return 1 if any(one.problem for one in found) else 0


def _there(peer: PeerId, seconds: float) -> Direction:
    name = f"from this host to {peer}"
    began = perf_counter()
    try:
        connection = process.client.connect(peer.address, seconds)
    except NetError as problem:
        return Direction(name, "", f"{type(problem).__name__}: {problem}",
                         _remedy(problem, "there"))
    spent = (perf_counter() - began) * 1000
    if connection is None:
        return Direction(name, f"an app-net from before 1.0 answers, in {spent:.1f} ms")
    connection.close()
    return Direction(name, f"a peer answers, in {spent:.1f} ms")


def _back(peer: PeerId, seconds: float) -> Direction:
    settings.set("launch", True)
    own = Peer().launch()
    name = f"from {peer} to this host, port {own.port}"
    try:
        seen, said = remote("net.defaults.handlers.reach_back").on(str(peer), seconds)(own.port)
    except InvalidConnection:
        return Direction(name, "not tried: an older app-net cannot be asked")
    except NetError as problem:
        return Direction(name, "", f"{type(problem).__name__}: {problem}",
                         _remedy(problem, "there"))
    finally:
        own.close()
    hidden = "" if is_own_address(str(seen)) else \
        f", which sees this host as {printable(str(seen))}: there is a NAT between"
    if not said:
        return Direction(name, f"a peer answers{hidden}")
    return Direction(name, "", printable(str(said), 1000) + hidden,
                     f"a firewall of this host or between the two must let in TCP {own_ports()}"
                     + (", and the router forward it; see NET_ADVERTISE" if hidden else ""))


def own_ports() -> str:
    """The ports of peers, for people."""
    return f"{settings.ports.start}-{settings.ports.stop - 1}"


def _remedy(problem: NetError, side: str) -> str:
    if isinstance(problem, AuthenticationError):
        return "give both sides the same NET_SECRET, or certificates of the other's authority"
    if isinstance(problem, ProtocolError):
        return f"something other than a peer listens {side}, or only one side has a secret"
    if isinstance(problem, PeerUnreachable) and "refused" in problem.reason:
        return f"no peer runs {side} at that port; app-net peers shows the ports of peers"
    if isinstance(problem, (PeerUnreachable, CallTimeout)):
        return f"that host is off, or a firewall {side} or between drops TCP {own_ports()}"
    return ""
