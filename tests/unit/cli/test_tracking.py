"""What the live view makes of statistics."""
from __future__ import annotations

import pytest

from net.cli.top import into, slowest, table
from net.cli.tracking import ORDERS, Row, ordered, row_of


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


@pytest.mark.parametrize("key", list(ORDERS))
def test_rows_are_ordered_largest_first_and_silent_peers_last(key):
    attribute = ORDERS[key][0]
    rows = [Row("a", "", problem="CallTimeout"), Row("b", "")._replace(**{attribute: 1}),
            Row("c", "")._replace(**{attribute: 2}), Row("d", "")]
    assert [row.peer for row in ordered(rows, key)] == ["c", "b", "d", "a"]


def test_who_is_clearly_slowest_has_a_star():
    rows = [Row("a", "", rate=1, p99=0.01), Row("b", "", rate=1, p99=0.5),
            Row("c", "", rate=1, p99=0.012)]
    assert slowest(rows) == "b"
    assert [line[0] for line in table(rows, None, 100)[1:]] == [" ", "*", " "]
    assert slowest(rows[::2]) == "" == slowest([]) == slowest(rows[:1])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit(width):
    row = row_of("192.0.2.7:3010", "a name of a host and of a program", None,
                 stats({0.5: 10_000_000}), 1.0)
    for lines in (table([row, row._replace(problem="PeerUnreachable")], 0, width),
                  into(row, width)):
        assert max(map(len, lines)) <= width
