"""What this process has sent and done so far."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence

from .events import publisher, subscriber
from .identity import tag_name
from .peer import existing_peer


class Section(NamedTuple):
    """One of the tables of the statistics."""

    titles: Sequence[str]
    rows: List[List[str]]


class Stats(Dict[str, Any]):
    """What :func:`net.stats` gives: a dict, and tables for people."""

    def __repr__(self) -> str:
        from .tables import as_text, terminal_width

        width = terminal_width()
        return "\n\n".join([*(as_text(_columns(section), section.rows, width)
                              for section in self._sections()),
                            f"subscribers cut off: {self['cut off']:,}"])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from .tables import as_html

        return "".join([*(as_html(_columns(section), section.rows)
                          for section in self._sections()),
                        f"<p>subscribers cut off: {self['cut off']:,}</p>"])

    def _sections(self) -> List[Section]:
        events = []
        for name, facts in sorted(self["events"].items()):
            triggered = f"{facts['triggered']:,}"
            counts = [[str(peer), *(f"{number:,}" for number in count.values())]
                      for peer, count in facts["subscribers"].items()]
            for row in counts or [["", "", "", ""]]:
                events.append([name, triggered, *row])
        calls = [[name, f"{facts['calls']:,}", f"{facts['errors']:,}", f"{facts['seconds']:.3f}"]
                 for name, facts in sorted(self["connections"].items())]
        sections = [Section(["event", "triggered", "subscriber", "sent", "queued", "dropped"],
                            events),
                    Section(["function", "calls", "errors", "seconds"], calls)]
        return [section for section in sections if section.rows]


def _columns(section: Section) -> List[Any]:
    from .tables import Column

    return [Column(title, 12) for title in section.titles]


def stats() -> Stats:
    """What this process has sent and done so far.

    ``stats()["events"]["done"]`` is ``{"triggered": 12, "subscribers": {peer_id: {"sent": 9,
    "queued": 1, "dropped": 2}}}``: taken by the subscriber's process, waiting for it, and lost
    because it was cut off, is gone or could not read them. ``stats()["cut off"]`` is the number of
    subscribers that were too slow. ``stats()["connections"]["module.function"]`` is ``{"calls": 3,
    "errors": 0, "seconds": 0.1}`` of what other peers ran here, handlers of events included. In a
    terminal or a notebook it shows as tables.
    """
    peer = existing_peer()
    tally = dict(peer.server.tally()) if peer is not None and peer.server is not None else {}
    for tag, numbers in list(subscriber.runner.tally.by_tag.items()):
        before = tally.get(tag, (0, 0, 0.0))
        tally[tag] = [a + b for a, b in zip(before, numbers)]
    connections = {tag_name(tag): dict(zip(("calls", "errors", "seconds"), numbers))
                   for tag, numbers in tally.items()}
    return Stats(publisher.stats(), connections=connections)
