"""How ``app-net top`` shows peers: as plain lines, or with rich where that is installed."""
from __future__ import annotations

from typing import List, Mapping, NamedTuple, Optional, Protocol, Sequence

from ..statistics import milliseconds
from ..tables import Column, as_text
from .screen import RED, Screen
from .tracking import Row

# All of it stands in the 80 columns of a usual terminal.
HEAD = [Column(*one) for one in (
    ("", 1), ("peer", 21), ("calls/s", 7), ("err/s", 5), ("p50 ms", 6), ("p99 ms", 6),
    ("runs", 4), ("load", 4), ("ev/s", 4), ("queued", 6), ("name", 4))]
FUNCTION_HEAD = [Column(*one) for one in (
    ("function", 20), ("calls/s", 7), ("err/s", 5), ("p50 ms", 6), ("p99 ms", 6),
    ("calls", 5))]
# Columns of a terminal that has room for wider gaps.
WIDE = 100

CHOSEN, TITLES = "7", "4"


class Shown(NamedTuple):
    """What there is to show.

    :ivar rows: those that there is room for.
    :ivar place: the index of the chosen one among them; None for none.
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
    """Makes lines of at most ``width`` columns, in colour where that is wanted."""

    def peers(self, shown: Shown, width: int) -> List[str]:
        """The table of peers, titles first."""

    def peer(self, row: Row, rates: Sequence[float], width: int) -> List[str]:
        """All about one peer."""


class PlainView:
    """Plain lines, which need nothing but a terminal."""

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
        cells.append([mark, row.peer, *([""] * 9 if row.problem else [
            rate(row.rate), rate(row.errors), ms(row.p50), ms(row.p99), f"{row.running:,}",
            "" if row.load is None else f"{row.load:.2f}", rate(row.events), f"{row.queued:,}",
            row.name])])
    lines = as_text(HEAD, cells, width, gap(width)).split("\n")
    begin = lines[0].find("calls/s")
    for number, row in enumerate(rows, 1):
        if row.problem and begin > 0:  # it stands across the columns, where these are empty
            lines[number] = lines[number].ljust(begin) + _cut(f"{row.problem}  {row.name}",
                                                              width - begin)
    return lines


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
    head = _cut(f"{row.peer}  {row.name}", width)
    if row.problem:
        return [head, "", row.problem]
    cells = [[one.name, rate(one.rate), rate(one.errors), ms(one.p50), ms(one.p99),
              f"{one.calls:,}"] for one in row.functions]
    calls = f"{rate(row.rate)} calls/s  {rate(row.errors)} errors/s  {row.running:,} running"
    load = "" if row.load is None else f"load {row.load:.2f}  "
    return [head, calls[:width], f"{load}{events_of(row)}"[:width], "",
            *as_text(FUNCTION_HEAD, cells, width, gap(width)).split("\n")]


def _cut(text: str, width: int) -> str:
    """Foreign text in one line of at most ``width`` columns."""
    return as_text([Column("", 1)], [[text]], width).split("\n")[1]


def events_of(row: Row) -> str:
    """What a peer does for its subscribers, in words."""
    return f"{rate(row.events)} events/s  {row.queued:,} queued for subscribers"


def rate(value: float) -> str:
    """A number per second, as text."""
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def gap(width: int) -> int:
    """How many spaces stand between the columns of a table."""
    return 2 if width >= WIDE else 1


def ms(value: float) -> str:
    """A number of seconds as text, in milliseconds; empty for 0."""
    return milliseconds(value) if value else ""
