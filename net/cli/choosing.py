"""Which peers and which function the words of a command mean."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from ..errors import InvalidPeer, NetError
from ..identity import PeerId, address_of, check_address, make_id, printable
from ..process import process
from .screen import Failed, Usage

if TYPE_CHECKING:
    from ..discovery.listing import Peers

# Names that an error shows at most.
MAX_NAMES = 8
# Seconds for a peer to say which functions it has.
ASK_SECONDS = 5.0

#: How a command's help explains its PEER.
PEER_HELP = "host:port, a name (NET_NAME), 'any' or 'all'"
NO_PEERS = "no peers; the command doctor says why"


def is_address(word: str) -> bool:
    """Whether a word names one peer by address or id, so that nothing needs to be searched."""
    try:
        address_of(word)
    except InvalidPeer:
        if ":" in word:
            raise
        return False
    return True


def search() -> Peers:
    """The peers that there are."""
    from .. import discovery

    return discovery.peers(refresh=True)


def peers_of(word: Optional[str]) -> List[PeerId]:
    """The peers that a word means; all for None.

    :raises Failed: none of them is there.
    :raises Usage: several have that name.
    """
    if word is not None and is_address(word):
        return [peer_at(word)]
    found = search()
    if word not in (None, "any", "all"):
        return [_named(str(word), found)]
    if not found:
        raise Failed(NO_PEERS)
    return list(found[:1] if word == "any" else found)


def peer_at(word: str) -> PeerId:
    """The peer of an address or an id, as it was given."""
    host, port = check_address(*address_of(word), word)
    return make_id(port, host)


def _named(name: str, found: Peers) -> PeerId:
    named = [peer for peer in found if peer.info.get("label") == name]
    if len(named) == 1:
        return named[0]
    if named:
        raise Usage(f"{len(named)} peers are called {name!r}: {_some(map(str, named))}; give an "
                    f"address")
    names = sorted({str(peer.info["label"]) for peer in found if peer.info.get("label")})
    raise Failed(f"no peer is called {printable(name)!r}; there are "
                 f"{_some(map(repr, names)) if names else 'none with a name (NET_NAME)'} "
                 f"among {len(found)} peers")


def _some(names: Any) -> str:
    shown = list(names)
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return ", ".join(map(printable, shown[:MAX_NAMES])) + more


def full_name(name: str, peers: List[PeerId]) -> Optional[str]:
    """The function that a last name stands for: ``render`` for ``studio.render``; None if no peer
    has one.

    :raises Usage: it may be one of several.
    """
    found: Set[str] = set()
    for peer in one_of_each(peers):
        found |= {known for known in names_at(peer) if known.endswith("." + name)}
    if len(found) > 1:
        raise Usage(f"{name!r} may be {_some(sorted(found))}; give the whole name")
    return found.pop() if found else None


def one_of_each(peers: List[PeerId]) -> List[PeerId]:
    """One of the peers that have the same functions, as far as that is known, for all of them."""
    found: Dict[Any, PeerId] = {}
    for peer in peers:
        found.setdefault(peer.info.get("digest") or peer, peer)
    return list(found.values())


def names_at(peer: PeerId) -> List[str]:
    """The names of the functions of a peer; none if it does not tell."""
    from ..discovery import functions

    try:
        facts = process.client.call(peer, functions.INFO, (), {}, ASK_SECONDS)
        if isinstance(facts, dict) and facts.get("more_functions"):
            names = list(process.client.call(peer, functions.CONNECTIONS, (), {}, ASK_SECONDS))
        else:
            names = facts.get("functions", []) if isinstance(facts, dict) else []
    except NetError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
