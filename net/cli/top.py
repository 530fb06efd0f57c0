"""``app-net top``: a live view of peers."""
from __future__ import annotations

import argparse
import os
import re
import select
import sys
from contextlib import ExitStack, contextmanager
from time import monotonic, strftime
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..errors import NetError, printable
from ..identity import PeerId
from ..tables import Column, as_text
from .choosing import PEER_HELP, peers_of
from .looking import STATS, ask_at_once, ask_seconds
from .screen import BOLD, RED, Failed, Screen
from .tracking import ORDERS, Row, ordered, row_of
from .words import count, seconds

# Seconds from one look to the next.
INTERVAL = 1.0
# Seconds between searches for peers that have come.
SEARCH = 5.0
HEAD = [Column(*one) for one in (
    ("", 1), ("peer", 15), ("calls/s", 7), ("errors/s", 8), ("p50 ms", 6), ("p99 ms", 6),
    ("runs", 4), ("load", 4), ("events/s", 8), ("queued", 6), ("name", 10))]
FUNCTION_HEAD = [Column(*one) for one in (
    ("function", 20), ("calls/s", 7), ("errors/s", 8), ("p50 ms", 6), ("p99 ms", 6),
    ("calls", 5))]


class Top:
    """a live view of peers: calls, errors, latency, load, events"""

    has_json = True
    more = """\
Keys: c e l r u q v order by calls, errors, latency, running, load, queued, events;
up and down (or k and j) choose a peer, Enter looks into it and back; x ends it.
Into a pipe, and with -n, it prints one table after the other."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help=PEER_HELP)
        parser.add_argument("-n", type=count, dest="count", metavar="COUNT",
                            help="so many looks, and the end")
        parser.add_argument("--every", type=seconds, default=INTERVAL, metavar="SECONDS",
                            help="from one look to the next (1)")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        looks = _Looks(options.peer)
        looks.take()
        if screen.json or options.count is not None or not screen.is_terminal \
                or not sys.stdin.isatty():
            return _print(looks, options, screen)
        with ExitStack() as stack:
            keys = stack.enter_context(_keys())
            stack.enter_context(_full_screen())
            try:
                _watch(looks, options.every, keys, screen)
            except KeyboardInterrupt:
                pass
        return 0


class _Looks:
    """Looks at peers, and what they have done since the one before."""

    def __init__(self, word: Optional[str]) -> None:
        self._word = word
        self._peers = peers_of(word)
        self._searched = monotonic()
        self._before: Dict[PeerId, Any] = {}
        self.rows: List[Row] = []

    def take(self) -> None:
        """Ask all peers, and make their rows anew."""
        if self._word in (None, "all") and monotonic() - self._searched >= SEARCH:
            self._search()
        rows, before = [], self._before
        self._before = {}
        for peer, facts in ask_at_once(lambda one: STATS.on(str(one), ask_seconds())(),
                                       self._peers):
            name = str(peer.info.get("label") or peer.info.get("program") or "")
            if isinstance(facts, NetError):
                rows.append(Row(str(peer), name, problem=type(facts).__name__))
                continue
            now = monotonic()
            known, at = before.get(peer, (None, now))
            self._before[peer] = facts, now
            rows.append(row_of(str(peer), name, known, facts, max(now - at, 1e-3)))
        self.rows = rows

    def _search(self) -> None:
        self._searched = monotonic()
        try:
            self._peers = peers_of(self._word)
        except Failed:
            pass  # those that were there are shown as gone


def _print(looks: _Looks, options: argparse.Namespace, screen: Screen) -> int:
    """One look after the other, as lines."""
    done = 0
    while options.count is None or done < options.count:
        sleep_until(monotonic() + options.every)
        looks.take()
        done += 1
        if screen.json:
            screen.put_json([_facts(row) for row in looks.rows])
        else:
            if done > 1:
                screen.write("")
            lines = table(ordered(looks.rows, "c"), None, screen.width)
            screen.write(lines[0], BOLD)
            screen.write("\n".join(lines[1:]))
    return 0 if any(not row.problem for row in looks.rows) else 1


def sleep_until(ends: float) -> None:
    """Wait, in a way that Ctrl-C interrupts everywhere."""
    from time import sleep

    sleep(max(0.0, ends - monotonic()))


def _facts(row: Row) -> Dict[str, Any]:
    return {**row._asdict(), "functions": [one._asdict() for one in row.functions]}


# ---------------------------------------------------------------- a screen


def _watch(looks: _Looks, every: float, keys: Any, screen: Screen) -> None:
    """Show looks until a key ends it."""
    order, place, inside = "c", 0, False
    due = monotonic() + every
    while True:
        rows = ordered(looks.rows, order)
        place = max(0, min(place, len(rows) - 1))
        _draw(rows, order, place, inside, screen)
        key = keys(max(0.0, due - monotonic()))
        if key is None:
            chosen = rows[place].peer if rows else ""
            looks.take()
            due = monotonic() + every
            # The one that was chosen stays so, wherever it stands now.
            names = [row.peer for row in ordered(looks.rows, order)]
            place = names.index(chosen) if chosen in names else place
        elif key in ("x", "Q", "\x03", "\x1b\x1b"):
            return
        elif key in ORDERS:
            order = key
        elif key in ("\x1b[A", "\x1bOA", "k"):
            place -= 1
        elif key in ("\x1b[B", "\x1bOB", "j"):
            place += 1
        elif key in ("\r", "\n"):
            inside = not inside


def _draw(rows: Sequence[Row], order: str, place: int, inside: bool, screen: Screen) -> None:
    columns, lines = screen.width, screen.height
    title = f"app-net top  {strftime('%H:%M:%S')}  {len(rows)} peers by {ORDERS[order][1]}"
    body = into(rows[place], columns) if inside and rows else table(rows, place, columns)
    keys = "Enter: back  x: end" if inside else \
        "c e l r u q v: order  up, down, Enter: look into one  x: end"
    room = max(1, lines - 3)
    if not inside and place >= room - 1:  # the chosen one stays in sight
        body = [body[0], *body[place - room + 3:]]
    shown = [title[:columns], *body[:room]]
    shown += [""] * (lines - 1 - len(shown)) + [keys[:columns]]
    styles = {0: "1", 1: "" if inside else "4", len(shown) - 1: "2"}
    text = "\r\n".join(screen.styled(line, styles.get(number) or _style(line))
                       + "\x1b[K" for number, line in enumerate(shown))
    sys.stdout.write("\x1b[H" + text + "\x1b[J")
    sys.stdout.flush()


def _style(line: str) -> str:
    if line.startswith(">"):
        return "7"
    return RED if "!" in line[:2] else ""


def table(rows: Sequence[Row], place: Optional[int], width: int) -> List[str]:
    """The lines of the table of peers, titles first.

    :param place: of the chosen one.
    """
    slow = slowest(rows)
    cells = []
    for number, row in enumerate(rows):
        mark = ">" if number == place else "!" if row.problem else "*" if row.peer == slow else ""
        if row.problem:
            cells.append([mark, row.peer, row.problem, "", "", "", "", "", "", "", row.name])
        else:
            cells.append([mark, row.peer, f"{row.rate:,.1f}", f"{row.errors:,.1f}", _ms(row.p50),
                          _ms(row.p99), str(row.running),
                          "" if row.load is None else f"{row.load:.2f}", f"{row.events:,.1f}",
                          str(row.queued), row.name])
    return as_text(HEAD, cells, width).split("\n")


def slowest(rows: Sequence[Row]) -> str:
    """The peer whose calls take clearly longest, marked with a star; empty if there is none."""
    times = sorted((row.p99, row.peer) for row in rows if row.rate and not row.problem)
    if len(times) < 2 or times[-1][0] < 2 * times[len(times) // 2 - 1][0]:
        return ""
    return times[-1][1]


def into(row: Row, width: int) -> List[str]:
    """The lines about one peer."""
    head = printable(f"{row.peer}  {row.name}")[:width]
    if row.problem:
        return [head, "", row.problem]
    cells = [[one.name, f"{one.rate:,.1f}", f"{one.errors:,.1f}", _ms(one.p50), _ms(one.p99),
              f"{one.calls:,}"] for one in row.functions]
    return [head, "", *as_text(FUNCTION_HEAD, cells, width).split("\n")]


def _ms(value: float) -> str:
    return f"{value * 1000:,.3g}" if value else ""


# ---------------------------------------------------------------- the terminal

# An arrow, Escape twice, or a character.
_KEY = re.compile("\x1b(?:\\[|O).|\x1b\x1b|.", re.DOTALL)


@contextmanager
def _full_screen() -> Iterator[None]:
    """The other screen of the terminal, without a cursor; then the one before."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    sys.stdout.flush()
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key, and gives it, or None."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield _windows_key
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield PosixKeys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class PosixKeys:
    """Gives the keys that come from a terminal, one by one, however many a read gives."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read: List[str] = []

    def __call__(self, patience: float) -> Optional[str]:
        """Wait so many seconds for a key; None if there is none."""
        if not self._read:
            if not select.select([self._descriptor], [], [], patience)[0]:
                return None
            data = os.read(self._descriptor, 64).decode(errors="replace")
            self._read = _KEY.findall(data) or ["x"]  # nothing comes of a terminal that has gone
        return self._read.pop(0)


def _windows_key(patience: float) -> Optional[str]:
    import time
    from importlib import import_module

    console = import_module("msvcrt")
    ends = monotonic() + patience
    while not console.kbhit():
        if monotonic() >= ends:
            return None
        time.sleep(0.05)
    key = console.getwch()
    if key in ("\x00", "\xe0"):
        key = {"H": "k", "P": "j"}.get(console.getwch(), "")
    return str(key)
