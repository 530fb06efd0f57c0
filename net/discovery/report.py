"""What a search did, for people and for the doctor."""
from __future__ import annotations

from collections import Counter, defaultdict
from typing import Dict, List, Tuple

from ..errors import Address, place_text

# Rows of one kind that the text shows; the attributes have them all.
MAX_SHOWN = 12


class Report:
    """What one search did. ``str()`` of it is a text of some lines.

    :ivar own: addresses of this host that were searched.
    :ivar searched_lan: whether anything but this host and NET_PEERS was searched.
    :ivar interfaces: the interfaces that were asked, as text.
    :ivar notes: what was left out and what failed, with the reason.
    :ivar neighbour_source: where the neighbour table came from; empty if there was none.
    :ivar neighbours: how many hosts it had.
    :ivar primed: how many addresses were sent a datagram, so that the table knows them.
    :ivar heard: how many addresses beyond this host answered by datagram.
    :ivar asked: how asking each address over TCP ended: ``peer``, ``stranger`` (something else
        answered), ``refused``, ``silent``, ``nobody`` (silent, and no host is known there),
        ``unreachable``, ``denied`` (by this host), or ``given up`` when the search was over.
    :ivar outcomes: the same for each address about which anything is known; one that answered by
        datagram is ``peer``, too.
    :ivar left: how many more were not asked before the deadline.
    :ivar silent_peers: addresses that answered by datagram, but not over TCP.
    :ivar strangers: ``(address, what it is)`` of what answered, but is not a peer.
    :ivar dropped: ``(address, why)`` of what described itself as a peer, but is not listed.
    :ivar steps: ``(name, seconds)`` of each step.
    :ivar loss: the share of questions by datagram that came to nothing, among the peers that
        answered in the end.
    :ivar round_trip: seconds that answers by datagram took on average.
    :ivar first: seconds until the first answer; 0 if there was none.
    :ivar peers: how many peers were found.
    """

    def __init__(self) -> None:
        self.own: List[str] = []
        self.searched_lan = False
        self.interfaces: List[str] = []
        self.notes: List[str] = []
        self.neighbour_source = ""
        self.neighbours = 0
        self.primed = 0
        self.heard = 0
        self.asked: Dict[Address, str] = {}
        self.outcomes: Dict[Address, str] = {}
        self.left = 0
        self.silent_peers: List[Address] = []
        self.strangers: List[Tuple[Address, str]] = []
        self.dropped: List[Tuple[Address, str]] = []
        self.steps: List[Tuple[str, float]] = []
        self.first = 0.0
        self.loss = self.round_trip = 0.0
        self.peers = 0

    @property
    def seconds(self) -> float:
        """How long the search took."""
        return sum(seconds for _, seconds in self.steps)

    def __str__(self) -> str:
        counted = sorted(Counter(self.asked.values()).items())
        outcomes = ", ".join(f"{count:,} {name}" for name, count in counted)
        lines = [
            f"found {_count(self.peers, 'peer')} in {self.seconds * 1000:.0f} ms"
            + (f", the first answer came after {self.first * 1000:.0f} ms" if self.first else ""),
            f"this host: {', '.join(self.own)}",
            *self._lan(),
            f"TCP: {_count(len(self.asked), 'address', 'addresses')} asked: {outcomes or 'none'}"
            + (f"; {self.left:,} more left over by the deadline" if self.left else ""),
            "time: " + ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in self.steps),
            *_rows("peers that answer datagrams only", self.silent_peers, ""),
            *_by_text("no peer", self.strangers),
            *_by_text("not listed", self.dropped),
            *(f"note: {note}" for note in self.notes[:MAX_SHOWN]),
        ]
        return "\n".join(lines)

    def _lan(self) -> List[str]:
        if not self.searched_lan:
            return ["the LAN was not searched"]
        return [
            f"interfaces: {', '.join(self.interfaces) or 'none'}",
            f"datagrams: {_count(self.primed, 'address', 'addresses')} swept, "
            f"{_count(self.heard, 'peer')} answered",
            f"neighbour table: {self.neighbour_source or 'none'}, "
            f"{_count(self.neighbours, 'host')}",
        ]

    def __repr__(self) -> str:
        return f"<{self}>"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def places(addresses: List[Address]) -> str:
    """Addresses for people: the first few, and how many more."""
    shown = ", ".join(map(place_text, addresses[:5]))
    return f"{shown} and {len(addresses) - 5} more" if len(addresses) > 5 else shown


def _rows(title: str, addresses: List[Address], text: str) -> List[str]:
    return [f"{title}: {places(addresses)}{text and ': '}{text}"] if addresses else []


def _by_text(title: str, rows: List[Tuple[Address, str]]) -> List[str]:
    """One line for each text, with all the addresses it is true of."""
    grouped: Dict[str, List[Address]] = defaultdict(list)
    for address, text in sorted(rows):
        grouped[text].append(address)
    lines = [line for text, found in grouped.items() for line in _rows(title, found, text)]
    more = len(lines) - MAX_SHOWN
    return [*lines[:MAX_SHOWN], f"{title}: and {more} more"] if more > 0 else lines
