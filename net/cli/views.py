"""How ``app-net top`` shows peers: as plain lines, or by rich where that is installed."""
from __future__ import annotations

from typing import List, Mapping, NamedTuple, Optional, Protocol, Sequence

from ..errors import printable
from ..statistics import milliseconds
from ..tables import Column, as_text
from .screen import RED, Screen
from .tracking import Row

HEAD = [Column(*one) for one in (
    ("", 1), ("peer", 15), ("calls/s", 7), ("errors/s", 8), ("p50 ms", 6), ("p99 ms", 6),
    ("runs", 4), ("load", 4), ("events/s", 8), ("queued", 6), ("name", 10))]
FUNCTION_HEAD = [Column(*one) for one in (
    ("function", 20), ("calls/s", 7), ("errors/s", 8), ("p50 ms", 6), ("p99 ms", 6),
    ("calls", 5))]

CHOSEN, TITLES = "7", "4"


class Shown(NamedTuple):
    """What there is to show.

    :ivar rows: those that there is room for.
    :ivar place: of the chosen one among them; None for none.
    :ivar slow: the peer whose calls take clearly longest; empty if there is none.
    :ivar order: the key of :data:`~net.cli.tracking.ORDERS` that rows are ordered by.
    :ivar rates: peer -> its calls in a second at the last looks.
    """

    rows: Sequence[Row]
    place: Optional[int]
    slow: str
    order: str
    rates: Mapping[str, Sequence[float]]


class View(Protocol):
    """Makes lines of at most so many columns, in colour where that is wanted."""

    def peers(self, shown: Shown, width: int) -> List[str]:
        """The table of peers, titles first."""

    def peer(self, row: Row, rates: Sequence[float], width: int) -> List[str]:
        """All about one peer."""


class PlainView:
    """Needs nothing but a terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def peers(self, shown: Shown, width: int) -> List[str]:
        titles, *lines = table(shown.rows, shown.place, shown.slow, width)
        styled = self._screen.styled
        return [styled(titles, TITLES), *(styled(line, _style(line)) for line in lines)]

    def peer(self, row: Row, rates: Sequence[float], width: int) -> List[str]:
        return into(row, width)


def _style(line: str) -> str:
    if line.startswith(">"):
        return CHOSEN
    return RED if "!" in line[:2] else ""


def table(rows: Sequence[Row], place: Optional[int], slow: str, width: int) -> List[str]:
    """The lines of the table of peers, titles first."""
    cells = []
    for number, row in enumerate(rows):
        mark = ">" if number == place else mark_of(row, slow)
        if row.problem:
            cells.append([mark, row.peer, row.problem, "", "", "", "", "", "", "", row.name])
        else:
            cells.append([mark, row.peer, f"{row.rate:,.1f}", f"{row.errors:,.1f}", ms(row.p50),
                          ms(row.p99), str(row.running),
                          "" if row.load is None else f"{row.load:.2f}", f"{row.events:,.1f}",
                          str(row.queued), row.name])
    return as_text(HEAD, cells, width).split("\n")


def mark_of(row: Row, slow: str) -> str:
    """What stands before a peer: ``!`` if it does not answer, ``*`` if it is slow."""
    return "!" if row.problem else "*" if row.peer == slow else ""


def slowest(rows: Sequence[Row]) -> str:
    """The peer whose calls take clearly longest; empty if there is none."""
    times = sorted((row.p99, row.peer) for row in rows if row.rate and not row.problem)
    if len(times) < 2 or times[-1][0] < 2 * times[len(times) // 2 - 1][0]:
        return ""
    return times[-1][1]


def into(row: Row, width: int) -> List[str]:
    """The lines about one peer."""
    head = printable(f"{row.peer}  {row.name}")[:width]
    if row.problem:
        return [head, "", row.problem]
    cells = [[one.name, f"{one.rate:,.1f}", f"{one.errors:,.1f}", ms(one.p50), ms(one.p99),
              f"{one.calls:,}"] for one in row.functions]
    return [head, "", *as_text(FUNCTION_HEAD, cells, width).split("\n")]


def ms(value: float) -> str:
    """A time in milliseconds; nothing for none."""
    return milliseconds(value) if value else ""
