"""What this process has sent and done so far."""
from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence

from .context import current
from .decorators import Connected, register
from .dispatch import Tally
from .errors import ProtocolError
from .events import own_events, publisher_of
from .identity import PeerArgument, address_of, tag_name
from .peer import called_peer, existing_peer
from .process import process


# No count, and no number of seconds, reaches this.
MOST = 2 ** 64


class Section(NamedTuple):
    """One of the tables of the statistics."""

    titles: Sequence[str]
    rows: List[List[str]]


class Stats(Dict[str, Any]):
    """What :func:`net.stats` gives: a dict, and tables for people."""

    def __repr__(self) -> str:
        from .tables import terminal_width

        return self.table(terminal_width())

    def table(self, width: int) -> str:
        """The tables, in lines of at most so many characters."""
        from .tables import as_text

        return "\n\n".join([*(as_text(_columns(section), section.rows, width)
                              for section in self._sections()), *self._cut_off()])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from .tables import as_html

        return "".join([*(as_html(_columns(section), section.rows)
                          for section in self._sections()),
                        *(f"<p>{line}</p>" for line in self._cut_off())])

    def _cut_off(self) -> List[str]:
        return [f"subscribers cut off: {self['cut off']:,}"] if "cut off" in self else []

    def _sections(self) -> List[Section]:
        events = []
        for name, facts in sorted(self.get("events", {}).items()):
            triggered = f"{facts['triggered']:,}"
            counts = [[str(peer), *(f"{number:,}" for number in count.values())]
                      for peer, count in facts["subscribers"].items()]
            for row in counts or [["", "", "", ""]]:
                events.append([name, triggered, *row])
        calls = [[name, f"{facts['calls']:,}", f"{facts['errors']:,}", f"{facts['seconds']:.3f}",
                  *(_percentile_ms(facts.get("latency"), share) for share in (0.5, 0.99))]
                 for name, facts in sorted(self.get("connections", {}).items())]
        sections = [Section(["event", "triggered", "subscriber", "sent", "queued", "dropped"],
                            events),
                    Section(["function", "calls", "errors", "seconds", "p50 ms", "p99 ms"], calls),
                    Section(["calls now", "connections", "load", "up"], _busy(self))]
        return [section for section in sections if section.rows]


def _percentile_ms(latency: Optional[Dict[float, int]], share: float) -> str:
    return milliseconds(percentile(latency, share)) if latency else ""


def _busy(found: Stats) -> List[List[str]]:
    if "process" not in found:
        return []
    facts = found["process"]
    return [[f"{facts['calls']:,}", f"{facts['connections']:,}",
             "" if facts["load"] is None else f"{facts['load']:.2f}", f"{facts['seconds']:,} s"]]


def _columns(section: Section) -> List[Any]:
    from .tables import Column

    return [Column(title, 12) for title in section.titles]


@register
def stats(*parts: str) -> Dict[str, Any]:
    """What a process has sent and done so far.

    ``stats()["events"]["done"]`` is ``{"triggered": 12, "subscribers": {peer_id: {"sent": 9,
    "queued": 1, "dropped": 2}}}``: events that the subscriber's process has received, that wait for
    it, and that were lost because it was cut off, has gone or could not read them. ``stats()["cut
    off"]`` is the number of subscribers that were too slow.
    ``stats()["connections"]["module.function"]`` is ``{"calls": 3, "errors": 0, "seconds": 0.1,
    "latency": {0.03125: 1, 0.0625: 2}}`` for what other peers ran here, handlers of events
    included; of its calls, 2 took less than 0.0625 s and at least half of that.
    ``stats()["process"]`` is how busy it is: ``calls`` that run now without this one,
    ``connections`` that are open, ``load`` of the host for each of its processors (None where the
    system does not tell), and ``seconds`` that the process has been up. In a terminal or a notebook
    it shows as tables.

    :param parts: only these: ``events``, ``connections``, ``process``; all if none is given.
    """
    found: Dict[str, Any] = {}
    if not parts or "events" in parts:
        found.update(publisher_of(called_peer()).stats())
    if not parts or "connections" in parts:
        found["connections"] = _connections()
    if not parts or "process" in parts:
        found["process"] = _process()
    return found


if TYPE_CHECKING:
    _Lister = Connected[..., Stats]
else:
    _Lister = Connected


class _Shown(_Lister):
    """Shows as tables what travels as a plain dict."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = super().__call__(*args, **kwargs)
        peer = kwargs.get("peer")
        return Stats(found if peer is None else checked(found, peer))


stats = _Shown(stats.__wrapped__, stats.tag)  # type: ignore[arg-type]


def checked(found: Any, peer: PeerArgument) -> Dict[str, Any]:
    """The statistics that another process gives, if they make sense.

    :raises ProtocolError: they do not: there is a text in place of a number, say.
    """
    try:
        makes_sense = _makes_sense(found)
    except (AttributeError, KeyError, TypeError):
        makes_sense = False
    if not makes_sense:
        raise ProtocolError(address_of(peer), "its statistics make no sense", "yes")
    known: Dict[str, Any] = found
    return known


def _makes_sense(found: Dict[str, Any]) -> bool:
    names: List[Any] = []
    numbers = [found.get("cut off", 0)]
    if "process" in found:
        busy = found["process"]
        numbers += [busy["calls"], busy["connections"], busy["seconds"],
                    0 if busy["load"] is None else busy["load"]]
    for name, one in found.get("connections", {}).items():
        latency = one.get("latency", {})  # those of an older version have none
        names.append(name)
        numbers += [one["calls"], one["errors"], one["seconds"], *latency, *latency.values()]
    for name, one in found.get("events", {}).items():
        names.append(name)
        numbers.append(one["triggered"])
        for count in one["subscribers"].values():
            numbers += [count["sent"], count["queued"], count["dropped"]]
    return all([type(name) is str for name in names]) \
        and all([type(number) in (int, float) and 0 <= number < MOST for number in numbers])


def _connections() -> Dict[str, Any]:
    total, peer = Tally(), called_peer() or existing_peer()
    if peer is not None and peer.server is not None:
        total.by_tag = peer.server.tally()
    total.merge(own_events().subscriber.runner.tally)
    return {tag_name(tag): {"calls": count.calls, "errors": count.errors, "seconds": count.seconds,
                            "latency": {2.0 ** exponent: number
                                        for exponent, number in sorted(count.latencies.items())}}
            for tag, count in total.by_tag.items()}


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, for a table: three digits, down to a microsecond."""
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else f"{value:.3f}"


def percentile(latency: Dict[float, int], share: float) -> float:
    """The seconds within which this share of calls has ended, as far as a histogram tells: right
    within a factor of two for certain, and as a rule much closer.

    :param latency: as :func:`net.stats` gives it.
    :param share: 0.99 for 99 of 100 calls.
    """
    wanted, passed = share * sum(latency.values()), 0
    for bound, number in sorted(latency.items()):
        if number and passed + number >= wanted:
            return float(bound) / 2 * 2 ** ((wanted - passed) / number)
        passed += number
    return 0.0


def _process() -> Dict[str, Any]:
    servers = [peer.server for peer in process.peers if peer.server is not None]
    running = sum(server.running for server in servers)
    asked = current() is not None  # then one of them is this call
    try:
        load: Optional[float] = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    except (AttributeError, OSError):  # Windows
        load = None
    return {"calls": max(0, running - asked),
            "connections": sum(server.connections for server in servers),
            "load": load, "seconds": round(monotonic() - process.began, 1)}
