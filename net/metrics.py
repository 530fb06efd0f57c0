"""Statistics as OpenMetrics text, which Prometheus and its relatives read."""
from __future__ import annotations

from itertools import accumulate
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from .peer import existing_peer
from .statistics import stats

#: The type of the text, for a web server.
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Powers of two of a second that bound the buckets: from 61 microseconds to 64 seconds. Quicker
# calls count in the first bucket, slower ones in one beyond the last.
FIRST, LAST = -14, 6
BOUNDS = [2.0 ** exponent for exponent in range(FIRST, LAST + 1)]

#: Labels, and a value.
Sample = Tuple[Dict[str, str], Any]


def openmetrics(peers: Optional[Mapping[str, Mapping[str, Any]]] = None) -> str:
    """The statistics of this process, or of others, as OpenMetrics text: calls with their latency
    as a histogram and their errors for each function, events, and how busy a process is.

    A web application answers requests for ``/metrics`` with it, as ``CONTENT_TYPE``;
    ``app-net metrics --port 9464`` does so for the peers of a network.

    :param peers: name -> what :func:`net.stats` gives of that peer; the name becomes the label
        ``peer``. None for this process.
    """
    if peers is None:
        own = existing_peer()
        place = "" if own is None or own.server is None else str(own.id)
        peers = {place: stats()}
    lines: List[str] = []
    for name, kind, text, samples in _FAMILIES:
        found = [({"peer": peer, **labels} if peer else labels, value)
                 for peer, facts in peers.items() for labels, value in samples(facts)]
        if not found:
            continue
        unit = "seconds" if name.endswith("_seconds") else ""
        lines += [f"# TYPE {name} {kind}", *([f"# UNIT {name} {unit}"] if unit else []),
                  f"# HELP {name} {text}"]
        for labels, value in found:
            lines += _lines(name, kind, labels, value)
    return "\n".join([*lines, "# EOF", ""])


def _lines(name: str, kind: str, labels: Dict[str, str], value: Any) -> Iterator[str]:
    if kind == "counter":
        yield f"{name}_total{_written(labels)} {value}"
    elif kind == "gauge":
        yield f"{name}{_written(labels)} {value}"
    else:
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], _cumulated(value["latency"])):
            yield f"{name}_bucket{_written({**labels, 'le': bound})} {count}"
        yield f"{name}_count{_written(labels)} {sum(value['latency'].values())}"
        yield f"{name}_sum{_written(labels)} {value['seconds']}"


def _cumulated(latency: Mapping[float, int]) -> List[int]:
    counts = [0] * (len(BOUNDS) + 1)
    for bound, number in latency.items():
        counts[next((place for place, one in enumerate(BOUNDS) if bound <= one), -1)] += number
    return list(accumulate(counts))


def _written(labels: Dict[str, str]) -> str:
    def escaped(text: str) -> str:
        text = text.encode("utf-8", "backslashreplace").decode()
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    inside = ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
    return f"{{{inside}}}" if inside else ""


# ---------------------------------------------------------------- the families


def _calls(facts: Mapping[str, Any]) -> Iterator[Sample]:
    for name, numbers in sorted(facts.get("connections", {}).items()):
        if "latency" in numbers:
            yield {"function": name}, numbers


def _errors(facts: Mapping[str, Any]) -> Iterator[Sample]:
    for name, numbers in sorted(facts.get("connections", {}).items()):
        yield {"function": name}, numbers["errors"]


def _triggered(facts: Mapping[str, Any]) -> Iterator[Sample]:
    for name, numbers in sorted(facts.get("events", {}).items()):
        yield {"event": name}, numbers["triggered"]


def _of_subscribers(count: str) -> Callable[[Mapping[str, Any]], Iterator[Sample]]:
    def samples(facts: Mapping[str, Any]) -> Iterator[Sample]:
        for name, numbers in sorted(facts.get("events", {}).items()):
            yield {"event": name}, sum(one[count] for one in numbers["subscribers"].values())
    return samples


def _cut_off(facts: Mapping[str, Any]) -> Iterator[Sample]:
    if "cut off" in facts:
        yield {}, facts["cut off"]


def _of_process(name: str) -> Callable[[Mapping[str, Any]], Iterator[Sample]]:
    def samples(facts: Mapping[str, Any]) -> Iterator[Sample]:
        value = facts.get("process", {}).get(name)
        if value is not None:
            yield {}, value
    return samples


#: Name, kind, help, and what gives the samples of one process.
_FAMILIES: List[Tuple[str, str, str, Callable[[Mapping[str, Any]], Iterator[Sample]]]] = [
    ("net_call_seconds", "histogram", "Calls that the peer ran for others.", _calls),
    ("net_call_errors", "counter", "Calls whose function raised.", _errors),
    ("net_calls_running", "gauge", "Calls that run now.", _of_process("calls")),
    ("net_connections", "gauge", "Connections of others to the peer.",
     _of_process("connections")),
    ("net_host_load", "gauge", "Load of the host for each processor, over a minute.",
     _of_process("load")),
    ("net_up_seconds", "gauge", "How long the process has been up.", _of_process("seconds")),
    ("net_events", "counter", "Events that were triggered.", _triggered),
    ("net_events_sent", "counter", "Events that subscribers took.", _of_subscribers("sent")),
    ("net_events_dropped", "counter", "Events that subscribers lost.",
     _of_subscribers("dropped")),
    ("net_events_queued", "gauge", "Events that wait for subscribers.",
     _of_subscribers("queued")),
    ("net_subscribers_cut_off", "counter", "Subscribers that were too slow.", _cut_off),
]
