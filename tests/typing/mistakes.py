"""Mistakes that a type checker finds: one in each line that says so. It is never run."""
from __future__ import annotations

from typing import Callable

import net


@net.connect
def double(number: int) -> int:
    return 2 * number


@net.connect("repeat")
def repeat(text: str, times: int = 2, *, gap: str = "") -> str:
    return gap.join([text] * times)


@net.connect
async def waiting(seconds: float) -> float:
    return seconds


class Tools:
    @staticmethod
    @net.connect
    def find(name: str) -> bool:
        return bool(name)


peer = net.peers()[0]

double("x")                                # mistake
double(1, 2)                               # mistake
double()                                   # mistake
double(nmber=1)                            # mistake
double("x", peer=peer)                     # mistake
double(1, 2, peer=peer)                    # mistake
double(1, peer=3010)                       # mistake
double.on(peer)("x")                       # mistake
double.on(peer)(1, 2)                      # mistake
double.on(peer)(1, peer=peer)              # mistake
double.on(3010)(1)                         # mistake
double.on(peer, timeout="1")(1)            # mistake
double.any("x")                            # mistake
double.any(1, 2)                           # mistake
double.any.on(timeout=1)("x")              # mistake
double.any(1).upper()                      # mistake
double.all("x")                            # mistake
double(1).upper()                          # mistake
double(1, peer=peer).upper()               # mistake
double.on(peer)(1).upper()                 # mistake

double.start("x")                          # mistake
double.start(1, 2)                         # mistake
double.start(1, peer=3010)                 # mistake
double.start(1, peer=peer).result().upper()   # mistake
double.on(peer).start("x")                 # mistake
double.on(peer).start(1).result().upper()  # mistake
double.on(peer).strat(1)                   # mistake

repeat("x", "2")                           # mistake
repeat("x", 2, 3)                          # mistake
repeat("x", gap=5)                         # mistake
repeat("x", "2", peer=peer)                # mistake
repeat("x", 2, 3, peer=peer)               # mistake
repeat.on(peer)("x", gap=5)                # mistake
repeat.on(peer)("x", gab="-")              # mistake

Tools.find(5)                              # mistake
Tools.find(5, peer=peer)                   # mistake
Tools().find(5, peer=peer)                 # mistake

waiting("x", peer=peer)                    # mistake
waiting(1.0, peer=peer).upper()            # mistake
waiting.start(1.0).result().upper()        # mistake
waiting.on(peer).start(1.0).result().real.upper()   # mistake
double.peers(5)                            # mistake
double.peers()[0].hots                     # mistake


@net.remote("studio.frames")
def frames(first: int) -> str:
    raise NotImplementedError


frames("x", peer=peer)                     # mistake
frames.on(peer)(1, 2)                      # mistake
frames(1, peer=peer).uper()                # mistake
net.remote("studio.size")(1)               # mistake

scope = net.connect("scope")(Tools())
scope.on(3010).find("x")                   # mistake
net.connect()(Tools())                     # mistake
net.connect(Tools())                       # mistake

wrong: Callable[[str], int] = double       # mistake
host: int = peer.host                      # mistake
net.peers()[0].hots                        # mistake
net.peers(refesh=True)                     # mistake
net.peers("render", refesh=True)           # mistake
net.peers("render", True)                  # mistake
net.peers(timeout="1")                     # mistake
net.get_peers(5)                           # mistake
net.peer_group(nme="render")               # mistake
net.Peer(grup="render")                    # mistake
net.Peer(group=5)                          # mistake
net.serve(grace=1, wait=True)              # mistake
net.flush(timout=1)                        # mistake
net.disconnect(double, now=True)           # mistake
net.Executor(timout=1)                     # mistake

net.TIMEOUT = "soon"                       # mistake
net.THREAD_LIMIT = None                    # mistake
net.TIMOUT = 5                             # mistake
net.configure(timout=5)                    # mistake
net.PEERS = 5                              # mistake
net.connect(5)                             # mistake
net.connect("tag", group=["render"])       # mistake
net.connect("tag", executor="main")        # mistake
net.subscribe("done", executor=print)      # mistake
net.watch(print, executor=5)               # mistake
