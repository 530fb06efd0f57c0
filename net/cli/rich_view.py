"""How ``app-net top`` shows peers with rich: in colour, with bars and sparklines."""
from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import printable
from .screen import Screen
from .tracking import ORDERS, Function, Row
from .views import Shown, events_of, gap, mark_of, ms, rate

# Characters of a name.
MAX_NAME = 64
# Load for each processor from which a host counts as busy, and as overloaded.
BUSY, OVERLOADED = 0.7, 1.0
# Columns of a sparkline, and of the bar of a share.
SPARKLINE, BAR = 30, 20
BARS = "▁▂▃▄▅▆▇█"

ONE_LINE: Any = {"no_wrap": True, "overflow": "ellipsis"}

#: Attribute of a row -> title, and the columns that a terminal must have to show it.
COLUMNS = {
    "rate": ("calls/s", 0), "errors": ("err/s", 50), "p50": ("p50 ms", 70),
    "p99": ("p99 ms", 0), "running": ("runs", 70), "load": ("load", 50),
    "events": ("ev/s", 60), "queued": ("queued", 60),
    "sparkline": ("calls/s at the last looks", 140), "name": ("name", 75),
}
#: The same for a function.
FUNCTION_COLUMNS = {
    "rate": ("calls/s", 0), "errors": ("err/s", 60), "p50": ("p50 ms", 70),
    "p99": ("p99 ms", 40), "calls": ("calls", 60), "share": ("share of its calls", 100),
}


class RichView:
    """See :class:`~net.cli.views.View`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def peers(self, shown: Shown, width: int) -> List[str]:
        names = _fitting(COLUMNS, width)
        table = _table(width)
        table.add_column("", width=1)
        table.add_column("peer", min_width=15, **ONE_LINE)
        for name in names:
            is_text = name in ("name", "sparkline")
            title = Text(COLUMNS[name][0], "bold cyan" if ORDERS[shown.order][0] == name else "")
            table.add_column(title, justify="left" if is_text else "right",
                             ratio=1 if name == "name" else None, **ONE_LINE)
        for number, row in enumerate(shown.rows):
            is_chosen = number == shown.place
            table.add_row(">" if is_chosen else mark_of(row, shown.slow), _name(row.peer),
                          *(_cell(row, name, shown) for name in names),
                          style="reverse" if is_chosen else "red" if row.problem else "")
        return self._lines(table, width)

    def peer(self, row: Row, rates: Sequence[float], width: int) -> List[str]:
        head = Text.assemble((_name(row.peer).plain, "bold"), "  ", _name(row.name))
        if row.problem:
            return self._lines(head, width) + ["", *self._lines(Text(row.problem, "red"), width)]
        facts = Text.assemble(
            (_sparkline(rates, width // 3), "green"), f"  {rate(row.rate)} calls/s  ",
            _number(row.errors, "red"), f" errors/s  {row.running:,} running")
        more = Text.assemble("load ", _load(row.load), "  ", events_of(row))
        names = _fitting(FUNCTION_COLUMNS, width)
        table = _table(width)
        table.add_column("function", min_width=15, ratio=1, **ONE_LINE)
        for name in names:
            is_bar = name == "share"
            table.add_column(FUNCTION_COLUMNS[name][0], width=BAR if is_bar else None,
                             justify="left" if is_bar else "right", **ONE_LINE)
        for one in row.functions:
            table.add_row(_name(one.name), *(_function_cell(one, name, row) for name in names))
        return [*self._lines(head, width), *self._lines(facts, width), *self._lines(more, width),
                "", *self._lines(table, width)]

    def _lines(self, shown: RenderableType, width: int) -> List[str]:
        console = Console(width=width, force_terminal=True, legacy_windows=False,
                          color_system="standard" if self._screen.has_colour else None,
                          highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            console.print(shown, no_wrap=True, overflow="ellipsis", crop=True)
        text: str = capture.get()
        return text.rstrip("\n").split("\n")


def _table(width: int) -> Table:
    return Table(box=None, expand=True, pad_edge=False, header_style="bold underline",
                 padding=(0, gap(width), 0, 0))


def _fitting(columns: Mapping[str, Tuple[str, int]], width: int) -> List[str]:
    return [name for name, (_, needed) in columns.items() if width >= needed]


def _cell(row: Row, name: str, shown: Shown) -> RenderableType:
    if name == "name":
        return _name(f"{row.problem}  {row.name}" if row.problem else row.name)
    if row.problem:
        return ""
    if name == "load":
        return _load(row.load)
    if name == "sparkline":
        return Text(_sparkline(shown.rates.get(row.peer, ()), SPARKLINE), "green")
    value = getattr(row, name)
    if name in ("p50", "p99"):
        return Text(ms(value), "yellow" if row.peer == shown.slow else "")
    if name in ("running", "queued"):
        return _number(value, "yellow" if name == "queued" else "", True)
    return _number(value, "red" if name == "errors" else "")


def _function_cell(one: Function, name: str, row: Row) -> RenderableType:
    if name == "share":
        return Text("█" * round(one.rate / row.rate * BAR if row.rate else 0), "green")
    value = getattr(one, name)
    if name in ("p50", "p99"):
        return ms(value)
    return _number(value, "red" if name == "errors" else "", name == "calls")


def _name(text: str) -> Text:
    """Foreign text, so that neither a terminal nor rich obeys anything in it."""
    return Text(printable(text, MAX_NAME))


def _number(value: float, style: str, is_count: bool = False) -> Text:
    return Text(f"{value:,.0f}" if is_count else rate(value), style if value else "")


def _load(load: Optional[float]) -> Text:
    if load is None:
        return Text("")
    return Text(f"{load:.2f}", "red" if load >= OVERLOADED else "yellow" if load >= BUSY else "")


def _sparkline(rates: Sequence[float], room: int) -> str:
    """The last numbers as bars; the largest one is the highest."""
    last = list(rates)[-room:]
    highest = max(last, default=0.0)
    if not highest:
        return BARS[0] * len(last)
    return "".join(BARS[min(len(BARS) - 1, int(rate / highest * (len(BARS) - 1) + 0.5))]
                   for rate in last)
