"""From answers to peers: answers to ``info`` in, peer ids out.

What a peer says is only data. The address in its id is the one that answered, never one that it
claims; its claims only serve to tell two addresses of one peer from two peers.
"""
from __future__ import annotations

from typing import Any, Dict, Hashable, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..link.addresses import is_link_local, socket_address
from ..link.tcp import is_own_address
from ..settings import is_loopback, settings
from ..errors import Address
from ..identity import PeerId, make_id, without_zone
from ..wire.legacy import BASE64, PLAIN
from .answers import Answer

#: The versions of app-net by old dialect; programs of these do not name their version.
VERSIONS = {BASE64: "0.3 or 0.4", PLAIN: "0.6"}

# Characters of a group; NET_GROUP allows no more.
MAX_GROUP = 64
# Characters of an instance id; ours has 32.
MAX_INSTANCE = 64


class Merged(NamedTuple):
    """The best answer of each peer, by what all answers of that peer have in common, and
    ``(address, why)`` of what is not a peer."""

    answers: Dict[Hashable, Answer]
    dropped: List[Tuple[Address, str]]


def merge_answers(answers: Iterable[Answer], own_instance: str, own: Set[str]) -> Merged:
    """The best answer of each peer.

    :param own_instance: instance of this process, which is not listed.
    :param own: addresses of this host.
    """
    best: Dict[Hashable, Answer] = {}
    dropped: List[Tuple[Address, str]] = []
    for answer in map(_with_facts, answers):
        reason = why_not(answer)
        if reason:
            dropped.append((answer.address, reason))
        elif not _is_own(answer, own_instance, own):
            key = _identity(answer, own)
            known = best.get(key)
            if known is None or _rank(answer) < _rank(known):
                best[key] = answer
    return Merged(best, dropped)


def _is_own(answer: Answer, own_instance: str, own: Set[str]) -> bool:
    """Whether it is this process that has answered. A clone of it has the same instance, but
    another address."""
    host, advertised = answer.address[0], settings.advertise
    return not answer.old and answer.facts["instance"] == own_instance \
        and (is_loopback(host) or host in own or is_own_address(host)
             or advertised is not None and host == advertised[0])


def _with_facts(answer: Answer) -> Answer:
    """An old peer may describe itself by a line of text, ``host:port -> group``."""
    if not (answer.old and isinstance(answer.facts, str)):
        return answer
    _, arrow, group = answer.facts.partition(" -> ")
    return answer._replace(facts={"friendly_id": answer.facts, "group": group if arrow else None})


def why_not(answer: Answer) -> str:
    """Why this does not describe a peer; empty if it does."""
    facts = answer.facts
    if not isinstance(facts, dict):
        return f"its info is a {type(facts).__name__}, not an object"
    group = facts.get("group")
    if group is not None and not _is_text(group, MAX_GROUP):
        return f"its group is no text of 1 to {MAX_GROUP} printable characters"
    if not answer.old and not _is_text(facts.get("instance"), MAX_INSTANCE):
        return f"its instance is no text of 1 to {MAX_INSTANCE} printable characters"
    return ""


def _is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= longest and value.isprintable()


def _identity(answer: Answer, own: Set[str]) -> Hashable:
    """What two addresses of one peer have in common.

    All its claims count: one process says the same everywhere, and a process that claims another's
    instance but its own address does not hide the other one. An old peer has no instance; on this
    host the port identifies it.
    """
    host, port = answer.address
    if answer.old:
        return "old", "this host" if is_loopback(host) or host in own else host, port
    return tuple(repr(answer.facts.get(name)) for name in ("instance", "host", "port"))


def is_claimed(answer: Answer) -> bool:
    """Whether a peer has answered at the address that it claims for itself."""
    host, port = answer.address
    return (without_zone(host), port) == (answer.facts.get("host"), answer.facts.get("port"))


def better_address(answer: Answer) -> Optional[Address]:
    """The address that a peer claims for itself, if it has answered at another one; None also if
    that is not a numeric address that means the same everywhere."""
    facts = answer.facts
    if not isinstance(facts, dict) or is_claimed(answer):
        return None
    host, port = facts.get("host"), facts.get("port")
    if type(host) is not str or type(port) is not int or is_link_local(host):
        return None
    try:
        socket_address((host, port))
    except (OSError, ValueError):
        return None
    return host, port


def _rank(answer: Answer) -> Tuple[bool, bool, float]:
    """Sort key, best first: the address that a peer claims for itself, else one that means the same
    on other hosts, else the fastest."""
    return not is_claimed(answer), is_link_local(answer.address[0]), answer.seconds


def in_order(peer: PeerId) -> Tuple[bool, Tuple[int, ...], str, int]:
    """What peers are sorted by: their addresses, as numbers."""
    words = peer.host.split(".")
    numbers = tuple(map(int, words)) if all(word.isdecimal() for word in words) else ()
    return not numbers, numbers, peer.host, peer.port


def peer_id(answer: Answer) -> PeerId:
    """The id of a peer: the address that answered, the group that it names."""
    host, port = answer.address
    group = answer.facts.get("group")
    info = {**answer.facts, "found": answer.found, "seconds": answer.seconds,
            "wire": "documented" if answer.old else "modern"}
    if answer.old:
        info["version"] = VERSIONS[answer.dialect]
    peer = make_id(port, host, None if group == "None" else group)
    peer.info = info
    return peer
