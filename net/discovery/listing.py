"""What ``net.peers()`` gives: peer ids to call, and a table to look at."""
from __future__ import annotations

from typing import (Any, Callable, Iterable, List, NamedTuple, Optional, SupportsIndex, Tuple,
                    Union, overload)

from ..identity import PeerId, group_named, printable
from ..wire import kinds
from .report import Report

# Rows that are shown; all of them are in the listing.
MAX_ROWS = 60

# Columns of a terminal that does not tell its width.
WIDTH = 80


class Column(NamedTuple):
    """``text`` gives the cell of a peer. Of those that do not fit, the last are left out first."""

    title: str
    text: Callable[[PeerId], str]
    narrowest: int


COLUMNS: Tuple[Column, ...] = (
    Column("address", lambda peer: f"{peer.host}:{peer.port}", 12),
    Column("group", lambda peer: "" if peer.group is None else str(peer.group), 5),
    Column("hub", lambda peer: "hub" if peer.hub else "", 3),
    Column("host", lambda peer: _said(peer, "name"), 4),
    Column("program", lambda peer: _said(peer, "program"), 7),
    Column("pid", lambda peer: _said(peer, "pid"), 3),
    Column("found by", lambda peer: _said(peer, "found"), 8),
    Column("ms", lambda peer: f"{peer.info.get('seconds', 0) * 1000:.1f}", 4),
)


def _said(peer: PeerId, name: str) -> str:
    value = peer.info.get(name, "")
    return value if isinstance(value, str) else repr(value)


class Peers(Tuple[PeerId, ...]):
    """Peer ids, sorted by address: a tuple whose ``repr`` is a table.

    ``peers[0]`` is an id, ``peers[:3]`` and ``peers["group1"]`` are listings again, the latter of
    that group, ``peers["None"]`` that of the peers without one.

    :ivar report: what the search tried, skipped and dropped.
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
        found = super().__getitem__(key)
        return Peers(found, self.report) if isinstance(key, slice) else found

    def keys(self) -> List[str]:
        """What may stand in brackets: ``peers``, for a dict of ids and what is known of each, and
        the names of the groups, ``None`` for no group."""
        return ["peers", *sorted({str(peer.group) for peer in self})]

    def only(self, wanted: Callable[[PeerId], bool]) -> Peers:
        """Those for which a function says yes."""
        return Peers(filter(wanted, self), self.report)

    def __reduce__(self) -> Any:
        return Peers, (tuple(self),)

    def __repr__(self) -> str:
        import shutil  # only who looks at the table needs it

        return self.table(shutil.get_terminal_size((WIDTH, 24)).columns)

    def table(self, width: int = WIDTH) -> str:
        """The table, in lines of at most so many characters."""
        if not self:
            return "no peers (.report says what was tried; python3 -m net doctor says why)"
        rows = [[_cell(column.text(peer)) for column in COLUMNS] for peer in self[:MAX_ROWS]]
        rows.insert(0, [column.title for column in COLUMNS])
        widths = _widths(rows, width)
        lines = [
            "  ".join(_pad(cell, room) for cell, room in zip(row, widths)).rstrip() for row in rows
        ]
        return "\n".join([*lines, *self._more()])

    def _repr_html_(self) -> str:
        from html import escape

        if not self:
            return f"<p>{escape(self.table())}</p>"
        head = "".join(f"<th>{column.title}</th>" for column in COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(column.text(peer)))}</td>" for column in COLUMNS)
            + "</tr>" for peer in self[:MAX_ROWS])
        more = "".join(f"<p>{line}</p>" for line in self._more())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def _more(self) -> List[str]:
        hidden = len(self) - MAX_ROWS
        return [f"and {hidden:,} more"] if hidden > 0 else []


# What was tried to find them is nothing for others.
kinds.let_travel_as_tuple(Peers)


def _cell(text: str) -> str:
    """Foreign text for a table: nothing in it can move the cursor or end the line."""
    return printable(text, 64)


def _widths(rows: List[List[str]], width: int) -> List[int]:
    """The width of each column, so that a line fits: the widest are cut first, then the last go."""
    widths = [max(map(columns, cells)) for cells in zip(*rows)]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        spare = [have - column.narrowest for have, column in zip(widths, COLUMNS)]
        if max(spare) > 0:
            widths[spare.index(max(spare))] -= 1
        elif len(widths) > 1:
            widths.pop()
        else:
            break
    return widths


def _pad(text: str, room: int) -> str:
    while columns(text) > room:
        text = text[:-2] + "~" if text.endswith("~") else text[:-1] + "~"
    return text + " " * (room - columns(text))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def filtered(peers: Peers, groups: Union[None, str, Iterable[str]], hubs_only: bool) -> Peers:
    """The peers of these groups, or the hubs among them."""
    if groups is not None:
        wanted = set(map(group_named, [groups] if isinstance(groups, str) else groups))
        peers = peers.only(lambda peer: peer.group in wanted)
    return peers.only(lambda peer: peer.hub) if hubs_only else peers
