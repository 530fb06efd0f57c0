"""What ``net.peers()`` gives: peer ids to call, and a table to look at."""
from __future__ import annotations

from typing import (Any, Callable, Iterable, List, Optional, SupportsIndex, Tuple,
                    Union, overload)

from ..identity import PeerId, group_named
from ..tables import WIDTH, Column, as_html, as_text, terminal_width
from ..wire import kinds
from .report import Report

# Rows that are shown; all of them are in the listing.
MAX_ROWS = 60

#: The columns, and the text of each for a peer.
COLUMNS: Tuple[Tuple[Column, Callable[[PeerId], str]], ...] = (
    (Column("address", 12), str),
    (Column("group", 5), lambda peer: "" if peer.group is None else str(peer.group)),
    (Column("hub", 3), lambda peer: "hub" if peer.hub else ""),
    (Column("name", 7), lambda peer: _said(peer, "label") or
     f"{_said(peer, 'name')} {_said(peer, 'program')}".strip()),
    (Column("pid", 3), lambda peer: _said(peer, "pid")),
    (Column("facts", 5), lambda peer: _facts(peer)),
    (Column("found by", 8), lambda peer: _said(peer, "found")),
    (Column("ms", 4), lambda peer: f"{peer.info.get('seconds', 0) * 1000:.1f}"),
)
_HEAD = [column for column, _ in COLUMNS]


def _said(peer: PeerId, name: str) -> str:
    value = peer.info.get(name, "")
    return value if isinstance(value, str) else repr(value)


def _facts(peer: PeerId) -> str:
    facts = peer.info.get("facts")
    if not isinstance(facts, dict):
        return ""
    return ", ".join(f"{name}={value}" for name, value in facts.items())


class Peers(Tuple[PeerId, ...]):
    """Peer ids, sorted by address: a tuple whose ``repr`` is a table.

    ``peers[0]`` is an id, ``peers[:3]`` and ``peers["group1"]`` are listings again, the latter of
    that group, ``peers["None"]`` that of the peers without one.

    :ivar report: what the search tried, left out and dropped.
    """

    report: Report

    def __new__(cls, peers: Iterable[PeerId] = (), report: Optional[Report] = None) -> Peers:
        self = super().__new__(cls, peers)
        self.report = Report() if report is None else report
        return self

    @overload
    def __getitem__(self, key: SupportsIndex) -> PeerId: ...

    @overload
    def __getitem__(self, key: Union[slice, str]) -> Peers: ...

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key == "peers":
                return {peer: peer.info for peer in self}
            return self.only(lambda peer: peer.group == group_named(key))
        if not self and not isinstance(key, slice):
            raise IndexError("no peers were found; .report says what was tried, and "
                             "python3 -m net doctor says why")
        found = super().__getitem__(key)
        return Peers(found, self.report) if isinstance(key, slice) else found

    def keys(self) -> List[str]:
        """What may stand in brackets: ``peers``, for a dict of ids and what is known of each, and
        the names of the groups, ``None`` for no group."""
        return ["peers", *sorted({str(peer.group) for peer in self})]

    def only(self, wanted: Callable[[PeerId], bool]) -> Peers:
        """The peers for which a function returns true."""
        return Peers(filter(wanted, self), self.report)

    def __reduce__(self) -> Any:
        return Peers, (tuple(self),)

    def __repr__(self) -> str:
        return self.table(terminal_width())

    def table(self, width: int = WIDTH) -> str:
        """The table, in lines of at most ``width`` columns."""
        if not self:
            return "no peers (.report says what was tried; python3 -m net doctor says why)"
        return "\n".join([as_text(_HEAD, self._rows(), width), *self._more()])

    def _repr_html_(self) -> str:
        from html import escape

        if not self:
            return f"<p>{escape(self.table())}</p>"
        return as_html(_HEAD, self._rows()) + "".join(f"<p>{line}</p>" for line in self._more())

    def _rows(self) -> List[List[str]]:
        return [[text(peer) for _, text in COLUMNS] for peer in self[:MAX_ROWS]]

    def _more(self) -> List[str]:
        hidden = len(self) - MAX_ROWS
        return [f"and {hidden:,} more"] if hidden > 0 else []


# The report of the search is not for other peers.
kinds.let_travel_as_tuple(Peers)


def filtered(peers: Peers, groups: Union[None, str, Iterable[str]], hubs_only: bool) -> Peers:
    """The peers of these groups, or the hubs among them."""
    if groups is not None:
        wanted = set(map(group_named, [groups] if isinstance(groups, str) else groups))
        peers = peers.only(lambda peer: peer.group in wanted)
    return peers.only(lambda peer: peer.hub) if hubs_only else peers
