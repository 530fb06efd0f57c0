"""Which peers have a function. The peers of an application all have the same functions, so only one
of them is asked."""
from __future__ import annotations

import functools
import threading
from collections import deque
from itertools import chain, zip_longest
from math import inf
from time import monotonic
from typing import (Any, Callable, Deque, Dict, FrozenSet, Iterator, List, NamedTuple, Optional,
                    Tuple)

from ..errors import NetError
from ..identity import PeerId, address_of, decode_text, functions_digest, make_tag
from ..peer import DEFAULTS, function_names
from ..process import Process, process
from ..run.access import share_of
from . import Groups, doubt, peers, wait_for_peers
from .listing import Peers

INFO = make_tag("net.defaults.handlers", "info")
CONNECTIONS = make_tag("net.defaults.handlers", "connections")

# Seconds for a peer to say what it has. It is in the same network and has nothing to compute.
ASK_SECONDS = 1.0
# Peers that are asked at the same time, each by a thread.
MAX_THREADS = 16
# Seconds after which no more peers are asked for now, so that silent strangers hold nobody up for
# long. The rest are asked next time.
TOTAL_SECONDS = 2.0
# Seconds until a peer without the function is asked again, at first and at most: it may register
# more functions, mostly while it starts.
FIRST_WAIT, MAX_WAIT = 1.0, 60.0
# Limits of what is remembered: sets of functions, peers, and characters of the names in a set. An
# honest peer has far less, and all of it takes some 20 MiB at most.
MAX_SETS, MAX_LOOKS, MAX_CHARACTERS = 128, 4096, 128 * 1024

#: Gives what a peer says about itself, or raises a NetError.
Ask = Callable[[PeerId, bytes], Dict[str, Any]]


class _Look(NamedTuple):
    """What a peer said when it was asked.

    :ivar listed: the digest of its functions in the list of peers at that time.
    :ivar digest: the digest that it gave; its key if that one is not of the functions that it gave.
    :ivar wait: seconds until it may be asked again, from ``at`` on.
    """

    listed: object
    digest: object
    at: float
    wait: float


class FunctionCache:
    """What is known of the functions of peers. Any thread may call: entries are only replaced.

    :param ask: calls a function of a peer by its tag.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._sets: Dict[object, FrozenSet[str]] = {}
        self._looks: Dict[str, _Look] = {}
        # By function: a list of peers, those of it that have the function, and until when that
        # holds. Replaced when a peer has been asked.
        self._last: Dict[str, Tuple[Peers, Peers, float]] = {}

    def having(self, found: Peers, name: str) -> Peers:
        """The peers of a list that have a function; asks those of which it is not known."""
        remembered = self._last
        last = remembered.get(name)
        if last is None or last[0] is not found or monotonic() >= last[2]:
            having = self._having(found, name)
            if len(remembered) >= MAX_SETS:
                remembered.clear()
            last = remembered[name] = found, having, self._until(found, having)
        return last[1]

    def _until(self, found: Peers, having: Peers) -> float:
        """When one of the other peers of a list may be asked again (monotonic): 0 for now, infinity
        if there are none."""
        others = [peer for peer in set(found).difference(having) if "digest" in peer.info]
        if any(map(self._may_ask, others)):
            return 0.0
        looks = [self._looks.get(_key(peer)) for peer in others]
        return min([0.0 if look is None else look.at + look.wait for look in looks], default=inf)

    def _having(self, found: Peers, name: str) -> Peers:
        modern = found.only(lambda peer: "digest" in peer.info)
        if name.startswith(DEFAULTS):
            return modern
        end = monotonic() + TOTAL_SECONDS
        own = function_names()
        self._sets[functions_digest(own)] = frozenset(own)
        # One peer of each unknown set first: it answers for the others, too.
        first = {self._digest(peer): peer for peer in modern
                 if self._digest(peer) not in self._sets and self._may_ask(peer)}
        self._ask_all(list(first.values()), end)
        self._ask_all([peer for peer in modern
                       if not self._has(peer, name) and self._may_ask(peer)], end)
        return modern.only(lambda peer: self._has(peer, name))

    def _has(self, peer: PeerId, name: str) -> bool:
        return name in self._sets.get(self._digest(peer), ())

    def _digest(self, peer: PeerId) -> object:
        look, listed = self._looks.get(_key(peer)), _listed(peer)
        # A listing that has changed since is newer than what the peer said.
        return look.digest if look is not None and look.listed == listed else listed

    def _may_ask(self, peer: PeerId) -> bool:
        look = self._looks.get(_key(peer))
        return look is None or look.listed != _listed(peer) or monotonic() >= look.at + look.wait

    def _ask_all(self, asked: List[PeerId], end: float) -> None:
        todo: Deque[PeerId] = deque(_by_turns(asked))

        def work() -> None:
            while monotonic() < end:
                try:
                    self._look_at(todo.popleft())
                except IndexError:
                    return

        threads = [threading.Thread(target=work, name="net-functions", daemon=True)
                   for _ in range(min(len(todo), MAX_THREADS) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()

    def _look_at(self, peer: PeerId) -> None:
        try:
            facts = self._ask(peer, INFO)
            said = facts.get("functions")
            if facts.get("more_functions"):
                said = [*self._ask(peer, CONNECTIONS)]
        except NetError:
            facts, said = {}, None
        before = self._looks.get(_key(peer))
        wait = FIRST_WAIT if before is None else min(MAX_WAIT, 2 * before.wait)
        names = _names(said)
        digest: object = functions_digest(names)
        # Other peers may have the same digest, so it must be that of these functions.
        if digest != facts.get("digest"):
            digest = _key(peer)
        if len(self._sets) >= MAX_SETS:
            self._sets.clear()
        self._sets[digest] = names
        if len(self._looks) >= MAX_LOOKS:
            self._looks.clear()
        self._looks[_key(peer)] = _Look(_listed(peer), digest, monotonic(), wait)
        self._last = {}


def _by_turns(found: List[PeerId]) -> Iterator[PeerId]:
    """The peers in such an order that one of each host comes first."""
    by_host: Dict[str, List[PeerId]] = {}
    for peer in found:
        by_host.setdefault(share_of(peer.host), []).append(peer)
    return filter(None, chain.from_iterable(zip_longest(*by_host.values())))


def _names(said: object) -> FrozenSet[str]:
    """The functions that a peer says it has; none if what it says is malformed."""
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said) \
            or sum(map(len, said)) > MAX_CHARACTERS:
        return frozenset()
    return frozenset(one for one in said if not one.startswith(DEFAULTS))


def _listed(peer: PeerId) -> str:
    said = peer.info.get("digest")
    return said if isinstance(said, str) else ""


def _key(peer: PeerId) -> str:
    return f"{peer.info.get('instance')} {peer}"


def functions_of(process: Process) -> FunctionCache:
    """What a process knows of the functions of peers."""
    return FunctionCache(functools.partial(_call, process))


def _call(process: Process, peer: PeerId, tag: bytes) -> Dict[str, Any]:
    answer = process.client.call(peer, tag, (), {}, ASK_SECONDS)
    return answer if isinstance(answer, dict) else {}


def peers_with(tag: bytes, groups: Groups = None, hubs_only: bool = False, on_host: bool = False,
               at_least: int = 0, timeout: Optional[float] = None) -> Peers:
    """See :meth:`net.decorators.Connected.peers`."""
    name = decode_text(tag)

    def look(refresh: bool) -> Peers:
        found = peers(refresh=refresh, groups=groups, on_host=on_host, hubs_only=hubs_only)
        return process.once(functions_of).having(found, name)
    return wait_for_peers(look, name, on_host, at_least, timeout)


def look_again(peer: PeerId) -> None:
    """Find out whether a peer that did not answer is still there; returns at once."""
    doubt(process, address_of(peer))
