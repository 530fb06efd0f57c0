"""``app-net top``: a live view of peers."""
from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections import deque
from contextlib import ExitStack, contextmanager
from time import monotonic, strftime
from typing import Any, Deque, Dict, Iterator, List, Optional

from ..errors import NetError
from ..identity import PeerId
from .choosing import PEER_HELP, peers_of
from .looking import ask_at_once, ask_statistics
from .screen import BOLD, Failed, Screen
from .tracking import ORDERS, Row, ordered, row_of
from .views import PlainView, Shown, View, slowest, table
from .words import AS_JSON, EACH_CALL, count, seconds

# Seconds from one look to the next.
INTERVAL = 1.0
# Seconds between searches for peers that have come.
SEARCH = 5.0
# Faint text.
DIM = "2"
# Looks that the sparkline of a peer's calls shows.
MAX_RATES = 120


class Top:
    """a live view of peers: calls, errors, latency, load, events"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer",)
    more = """\
Keys: c e l r u q v order by calls, errors, latency, running, load, queued, events;
up and down (or k and j) choose a peer, Enter looks into it and back; x ends it.
Into a pipe, and with -n, it prints one table after the other."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help=PEER_HELP)
        parser.add_argument("-n", type=count, dest="count", metavar="COUNT",
                            help="number of looks, and then end")
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
    """Looks at peers, and what they have done since the look before."""

    def __init__(self, word: Optional[str]) -> None:
        self._word = word
        self._peers = peers_of(word)
        self._searched = monotonic()
        self._before: Dict[PeerId, Any] = {}
        self.rows: List[Row] = []
        #: Peer -> its calls in a second at the last looks.
        self.rates: Dict[str, Deque[float]] = {}

    def take(self) -> None:
        """Ask all peers, and make their rows anew."""
        if self._word in (None, "all") and monotonic() - self._searched >= SEARCH:
            self._search()
        rows, before = [], self._before
        self._before = {}
        for peer, facts in ask_at_once(ask_statistics, self._peers):
            name = str(peer.info.get("label") or peer.info.get("program") or "")
            if isinstance(facts, NetError):
                rows.append(Row(str(peer), name, problem=type(facts).__name__))
                continue
            now = monotonic()
            known, at = before.get(peer, (None, now))
            self._before[peer] = facts, now
            rows.append(row_of(str(peer), name, known, facts, max(now - at, 1e-3)))
        self.rows = rows
        self.rates = {row.peer: self.rates.get(row.peer, deque(maxlen=MAX_RATES)) for row in rows}
        for row in rows:
            self.rates[row.peer].append(row.rate)

    def _search(self) -> None:
        self._searched = monotonic()
        try:
            self._peers = peers_of(self._word)
        except Failed:
            pass  # those that were there are shown as gone


def _print(looks: _Looks, options: argparse.Namespace, screen: Screen) -> int:
    """Print one look after another, as lines."""
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
            lines = table(ordered(looks.rows, "c"), None, slowest(looks.rows), screen.width)
            screen.write(lines[0], BOLD)
            screen.write("\n".join(lines[1:]))
    return 0 if any(not row.problem for row in looks.rows) else 1


def sleep_until(ends: float) -> None:
    """Wait; Ctrl-C interrupts this on every system."""
    from time import sleep

    sleep(max(0.0, ends - monotonic()))


def _facts(row: Row) -> Dict[str, Any]:
    return {**row._asdict(), "functions": [one._asdict() for one in row.functions]}


# ---------------------------------------------------------------- a screen


def _watch(looks: _Looks, every: float, keys: Any, screen: Screen) -> None:
    """Show looks until a key ends it."""
    order, place, inside, view = "c", 0, False, _view_for(screen)
    due = monotonic() + every
    while True:
        rows = ordered(looks.rows, order)
        place = max(0, min(place, len(rows) - 1))
        _draw(view, Shown(rows, place, slowest(rows), order, looks.rates), inside, screen)
        key = keys(max(0.0, due - monotonic()))
        if key is None:
            chosen = rows[place].peer if rows else ""
            looks.take()
            due = monotonic() + every
            # The chosen peer stays chosen when rows move.
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


def _view_for(screen: Screen) -> View:
    """The best view for a terminal."""
    if screen.draws:
        try:
            from .rich_view import RichView
        except ImportError:  # an optional extra
            pass
        else:
            return RichView(screen)
    return PlainView(screen)


def _draw(view: View, shown: Shown, inside: bool, screen: Screen) -> None:
    columns, lines = screen.width, screen.height
    rows, place = shown.rows, shown.place or 0
    title = f"app-net top  {strftime('%H:%M:%S')}  {len(rows)} peers by {ORDERS[shown.order][1]}"
    keys = "Enter: back  x: end" if inside else \
        "c e l r u q v: order  up, down, Enter: look into one  x: end"
    room = max(2, lines - 2)
    if inside and rows:
        body = view.peer(rows[place], shown.rates.get(rows[place].peer, ()), columns)
    else:
        first = max(0, place - room + 2)  # the chosen one stays in sight
        body = view.peers(shown._replace(rows=rows[first:first + room - 1], place=place - first),
                          columns)
    body = body[:room] + [""] * (room - len(body))
    text = "\x1b[K\r\n".join([screen.styled(title[:columns], BOLD), *body,
                              screen.styled(keys[:columns], DIM)])
    sys.stdout.write("\x1b[H" + text + "\x1b[K\x1b[J")
    sys.stdout.flush()


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
    """A function that waits a number of seconds for a key, and returns it, or None."""
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
        """Wait this many seconds for a key; return it, or None if there is none."""
        if not self._read:
            if not select.select([self._descriptor], [], [], patience)[0]:
                return None
            data = os.read(self._descriptor, 64).decode(errors="replace")
            self._read = _KEY.findall(data) or ["x"]  # the terminal has gone
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
