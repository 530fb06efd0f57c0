"""What the live view makes of statistics."""
from __future__ import annotations

import re

import pytest

from net.cli.tracking import ORDERS, Row, ordered, row_of
from net.cli.views import PlainView, Shown, into, slowest, table


def stats(calls: dict, errors: int = 0, triggered: int = 0, queued: int = 0) -> dict:
    return {"connections": {"f": {"calls": sum(calls.values()), "errors": errors, "seconds": 1.0,
                                  "latency": calls}},
            "events": {"e": {"triggered": triggered, "subscribers": {
                b"x": {"sent": 0, "queued": queued, "dropped": 0}}}},
            "process": {"calls": 3, "connections": 4, "load": 0.5, "seconds": 9.0}}


def test_a_row_is_what_is_new_since_the_last_look():
    row = row_of("p", "n", stats({0.5: 10}, 1, 5), stats({0.5: 10, 0.25: 4}, 3, 9, 2), 2.0)
    assert (row.rate, row.errors, row.events, row.queued, row.running, row.load) \
        == (2.0, 1.0, 2.0, 2, 3, 0.5)
    assert 0.125 < row.p50 <= row.p99 <= 0.25
    assert [(one.name, one.rate, one.calls) for one in row.functions] == [("f", 2.0, 14)]


def test_at_the_first_look_nothing_is_new():
    row = row_of("p", "n", None, stats({0.5: 10}, 1, 5), 1.0)
    assert row.rate == row.errors == row.events == row.p99 == 0 and row.functions[0].calls == 10


def test_what_a_peer_has_done_that_started_anew_is_new():
    row = row_of("p", "n", stats({0.5: 10}, 4, 50), stats({0.5: 2}, 1, 3), 1.0)
    assert row.rate == 2.0 and row.errors == 0 and row.events == 0


def test_the_looks_themselves_are_no_work_of_a_peer():
    before, now = stats({0.5: 10}), stats({0.5: 10})
    for one, calls in ((before, {0.25: 5}), (now, {0.25: 6})):
        one["connections"]["net.statistics.stats"] = {"calls": 9, "errors": 0, "seconds": 1.0,
                                                      "latency": calls}
    row = row_of("p", "n", before, now, 1.0)
    assert row.rate == row.p50 == row.p99 == 0
    assert [one.name for one in row.functions] == ["f"]


@pytest.mark.parametrize("key", list(ORDERS))
def test_rows_are_ordered_largest_first_and_silent_peers_last(key):
    attribute = ORDERS[key][0]
    rows = [Row("a", "", problem="CallTimeout"), Row("b", "")._replace(**{attribute: 1}),
            Row("c", "")._replace(**{attribute: 2}), Row("d", "")]
    assert [row.peer for row in ordered(rows, key)] == ["c", "b", "d", "a"]


def test_the_peer_that_is_clearly_slowest_has_a_star():
    rows = [Row("a", "", rate=1, p99=0.01), Row("b", "", rate=1, p99=0.5),
            Row("c", "", rate=1, p99=0.012)]
    assert slowest(rows) == "b"
    assert [line[0] for line in table(rows, None, "b", 100)[1:]] == [" ", "*", " "]
    assert slowest(rows[::2]) == "" == slowest([]) == slowest(rows[:1])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit(width):
    row = row_of("192.0.2.7:3010", "a name of a host and of a program", None,
                 stats({0.5: 10_000_000}), 1.0)
    for lines in (table([row, row._replace(problem="PeerUnreachable")], 0, "", width),
                  into(row, width)):
        assert max(map(len, lines)) <= width


class Screen:
    """A terminal, in colour or not."""

    def __init__(self, has_colour: bool) -> None:
        self.has_colour = has_colour

    def styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.has_colour else text


def views(screen: Screen) -> list:
    pytest.importorskip("rich")
    from net.cli.rich_view import RichView

    return [PlainView(screen), RichView(screen)]  # type: ignore[arg-type]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("width", [30, 40, 80, 100, 200])
def test_a_row_is_a_line_that_fits_and_foreign_names_are_not_obeyed(width, colour):
    row = row_of("192.0.2.7:3010", "a\x1b[2J [red]name[/] of a host\n and of a program", None,
                 stats({0.5: 10_000_000}), 1.0)._replace(rate=1234.5, errors=3)
    rows = [row, row._replace(peer="192.0.2.8:3010"), row._replace(problem="PeerUnreachable")]
    rates = {one.peer: [0.0, 1.0, 1234.5] * 50 for one in rows}
    for view in views(Screen(colour)):
        found = [view.peers(Shown(rows, 1, row.peer, "c", rates), width)]
        assert len(found[0]) == 1 + len(rows)
        found += [view.peer(one, rates[one.peer], width) for one in rows]
        for text in ("".join(lines) for lines in found):
            assert "\n" not in text and "\x1b[2J" not in text
            assert colour or "\x1b" not in text
        plain = [re.sub("\x1b\\[[0-9;]*m", "", line) for lines in found for line in lines]
        assert max(map(len, plain)) <= width
        assert [line[:1] for line in plain[1:4]] == ["*", ">", "!"]
        if width == 200:
            assert "[red]name" in plain[1] and "PeerUnreachable" in plain[3]


@pytest.mark.parametrize("width", [80, 200])
def test_all_of_a_peer_is_seen_in_a_usual_terminal(width):
    row = Row("192.168.100.200:3010", "render", 27, 12.34, 12345.6, 321.5, 0.123, 4.5, 678.9, 4321)
    down = Row("192.168.100.201:3010", "render", problem="PeerUnreachable")
    for view in views(Screen(False)):
        titles, line, other = view.peers(Shown([row, down], None, "", "c", {}), width)
        assert titles.split() == ["peer", "calls/s", "err/s", "p50", "ms", "p99", "ms", "runs",
                                  "load", "ev/s", "queued", *(
                                      "calls/s at the last looks".split() if width == 200
                                      and not isinstance(view, PlainView) else []), "name"]
        assert line.split()[:-1] == ["192.168.100.200:3010", "12,346", "321.5", "123", "4,500",
                                     "27", "12.34", "678.9", "4,321"]
        assert line.split()[-1][:4] == "rend" and other.split()[2][:4] == "Peer"
        inside = "\n".join(view.peer(row, [], width))
        for shown in ("12,346 calls/s", "321.5 errors/s", "27 running", "load 12.34",
                      "678.9 events/s", "4,321 queued"):
            assert shown in inside


def test_without_calls_the_sparkline_is_flat():
    from_none = views(Screen(False))[1].peer(Row("a", "b"), [0.0, 0.0], 80)
    assert "\u2581\u2581  0.0 calls/s" in from_none[1]
