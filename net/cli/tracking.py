"""What ``app-net top`` shows: how the statistics of peers change from one look to the next. No
thread, no socket and no clock."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ..statistics import percentile

# The function that a look calls: how often and how quickly we look is not the peer's work.
LOOK = "net.statistics.stats"

Histogram = Dict[float, int]


class Function(NamedTuple):
    """What a function of a peer has done since the last look, per second, and altogether."""

    name: str
    rate: float
    errors: float
    p50: float
    p99: float
    calls: int


class Row(NamedTuple):
    """What a peer has done since the last look.

    :ivar rate: calls per second.
    :ivar errors: calls per second that failed.
    :ivar events: events per second that it triggered.
    :ivar p50: seconds within which half of its calls ended.
    :ivar p99: seconds within which 99 in 100 of them did.
    :ivar running: calls that run now.
    :ivar queued: events that wait for subscribers.
    :ivar problem: why nothing is known of it; empty if it answers.
    """

    peer: str
    name: str
    running: int = 0
    load: Optional[float] = None
    rate: float = 0.0
    errors: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    events: float = 0.0
    queued: int = 0
    problem: str = ""
    functions: List[Function] = []


#: Key -> what rows are ordered by, and what that is called. The largest come first.
ORDERS = {
    "c": ("rate", "calls"), "e": ("errors", "errors"), "l": ("p99", "latency"),
    "r": ("running", "running"), "u": ("load", "load"), "q": ("queued", "queued"),
    "v": ("events", "events"),
}


def row_of(peer: str, name: str, before: Optional[Mapping[str, Any]], now: Mapping[str, Any],
           seconds: float) -> Row:
    """The row of a peer.

    :param before: its statistics at the last look; None at the first, where nothing that it has
        done counts as new.
    :param seconds: from that look to this one.
    """
    old = now if before is None else before
    known = old.get("connections", {})
    ran = {one: facts for one, facts in now.get("connections", {}).items() if one != LOOK}
    functions = [_function(one, known.get(one), facts, seconds) for one, facts in ran.items()]
    merged: Histogram = {}
    for one, facts in ran.items():
        _add(merged, _new(facts, known.get(one)))
    busy, events = now.get("process", {}), now.get("events", {})
    triggered = sum(facts["triggered"] for facts in events.values()) \
        - sum(facts["triggered"] for facts in old.get("events", {}).values())
    return Row(peer, name, busy.get("calls", 0), busy.get("load"),
               sum(one.rate for one in functions), sum(one.errors for one in functions),
               percentile(merged, 0.5), percentile(merged, 0.99), max(0, triggered) / seconds,
               sum(count["queued"] for facts in events.values()
                   for count in facts["subscribers"].values()), "",
               sorted(functions, key=lambda one: (-one.rate, -one.calls, one.name)))


def _function(name: str, before: Optional[Mapping[str, Any]], now: Mapping[str, Any],
              seconds: float) -> Function:
    latency = _new(now, before)
    errors = now["errors"] - (before or {"errors": 0})["errors"]
    return Function(name, sum(latency.values()) / seconds, max(0, errors) / seconds,
                    percentile(latency, 0.5), percentile(latency, 0.99), now["calls"])


def _new(now: Mapping[str, Any], before: Optional[Mapping[str, Any]]) -> Histogram:
    """The calls since the last look, by their latency. A peer that has started anew has fewer than
    before, and all that it has done is new."""
    latency: Histogram = dict(now.get("latency", {}))
    known = (before or {}).get("latency", {})
    if any(count > latency.get(bound, 0) for bound, count in known.items()):
        return latency
    return {bound: count - known.get(bound, 0) for bound, count in latency.items()}


def _add(total: Histogram, more: Histogram) -> None:
    for bound, count in more.items():
        total[bound] = total.get(bound, 0) + count


def ordered(rows: List[Row], key: str) -> List[Row]:
    """Rows, the largest first; those that do not answer at the end."""
    attribute = ORDERS[key][0]
    return sorted(rows, key=lambda row: (row.problem != "", -(getattr(row, attribute) or 0),
                                         row.peer))
