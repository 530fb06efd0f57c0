"""Latencies of calls, and statistics as OpenMetrics text."""
from __future__ import annotations

import re
from pathlib import Path

import net
import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.dispatch import Tally
from net.identity import encode_text
from net.metrics import openmetrics
from net.statistics import checked, milliseconds, percentile

HISTOGRAM = {0.001953125: 90, 0.125: 10}
STATS = {
    "connections": {'a "b" \\ c\n': {"calls": 100, "errors": 3, "seconds": 1.5,
                                     "latency": HISTOGRAM},
                    "fast": {"calls": 1, "errors": 0, "seconds": 0.0, "latency": {0.0: 1}},
                    "slow": {"calls": 1, "errors": 0, "seconds": 1e3, "latency": {1024.0: 1}}},
    "events": {"done": {"triggered": 7, "subscribers": {
        b"a": {"sent": 5, "queued": 1, "dropped": 1},
        b"b": {"sent": 7, "queued": 0, "dropped": 0}}}},
    "cut off": 2,
    "process": {"calls": 1, "connections": 4, "load": None, "seconds": 12.5}}


def test_the_page_about_metrics_has_each_with_its_type():
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.rst").read_text("utf-8")
    given = dict(re.findall(r"^# TYPE (\w+) (\w+)", openmetrics({"a": STATS}), re.M))
    told = dict(re.findall(r"^``(\w+)`` +(\w+) ", page, re.M))
    assert told == {**given, "net_host_load": "gauge", "net_up": "gauge"}


def test_calls_are_counted_by_their_latency():
    tally, total = Tally(), Tally()
    for seconds in (0.0009, 0.00076, 0.1, 3.0, 0.0):
        tally.add(b"f", False, seconds)
    assert tally.by_tag[b"f"].latencies == {-10: 2, -3: 1, 2: 1, 0: 1}
    total.merge(tally)
    total.merge(tally)
    assert total.by_tag[b"f"].latencies == {-10: 4, -3: 2, 2: 2, 0: 2}
    assert tally.by_tag[b"f"].calls == 5


@given(st.lists(st.floats(1e-6, 1000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_right_within_a_factor_of_two(times, share):
    tally = Tally()
    for seconds in times:
        tally.add(b"f", False, seconds)
    latency = {2.0 ** exponent: count for exponent, count in tally.by_tag[b"f"].latencies.items()}
    found = percentile(latency, share)
    true = sorted(times)[min(len(times) - 1, max(0, -int(-share * len(times) // 1) - 1))]
    assert true / 2.001 <= found <= true * 2.001


@pytest.mark.parametrize("seconds, text", [
    (1e-7, "0.000"), (2.27e-6, "0.002"), (1.73e-4, "0.173"), (0.0124, "12.4"), (0.124, "124"),
    (12.3456, "12,346")])
def test_times_in_tables_have_three_digits(seconds, text):
    assert milliseconds(seconds) == text


def test_nothing_has_no_percentile():
    assert percentile({}, 0.5) == 0.0


def test_stats_of_this_process_have_latencies(session_peer, monkeypatch):
    monkeypatch.setitem(net.Peer().CONNECTIONS, encode_text("metrics.quick"), lambda: None)
    for _ in range(3):
        net.remote("metrics.quick")(peer=session_peer)
    found = net.stats()["connections"]["metrics.quick"]
    assert found["calls"] == 3 == sum(found["latency"].values())
    assert all(0 < bound < 100 for bound in found["latency"])
    asked = net.stats("connections", peer=session_peer)
    assert asked["connections"]["metrics.quick"] == found
    assert "p99 ms" in str(asked) and "cut off" not in str(asked)
    assert 'net_call_seconds_count{peer="' in net.metrics.openmetrics()


def samples(text: str):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples}


def test_the_text_is_what_the_official_parser_takes():
    found = samples(openmetrics({"127.0.0.1:3010": STATS, "127.0.0.1:3011": STATS, "new": {}}))
    peer = ("peer", "127.0.0.1:3010")
    name = ("function", 'a "b" \\ c\n')
    assert found["net_call_errors_total", (name, peer)] == 3
    assert found["net_call_seconds_count", (name, peer)] == 100
    assert found["net_call_seconds_sum", (name, peer)] == 1.5
    for bound, count in (("0.0009765625", 0), ("0.001953125", 90), ("0.0625", 90), ("0.125", 100),
                         ("+Inf", 100)):
        assert found["net_call_seconds_bucket", (name, ("le", bound), peer)] == count
    assert found["net_call_seconds_bucket", (
        ("function", "fast"), ("le", "6.103515625e-05"), peer)] == 1
    assert found["net_call_seconds_bucket", (("function", "slow"), ("le", "64.0"), peer)] == 0
    assert found["net_call_seconds_bucket", (("function", "slow"), ("le", "+Inf"), peer)] == 1
    assert found["net_events_sent_total", (("event", "done"), peer)] == 12
    assert found["net_events_queued", (("event", "done"), peer)] == 1
    assert found["net_subscribers_cut_off_total", (peer,)] == 2
    assert found["net_connections", (peer,)] == 4
    assert not any(key[0] == "net_host_load" for key in found)


def test_what_this_process_has_done_is_what_the_official_parser_takes(session_peer):
    net.null(peer=session_peer)
    assert any(name == "net_call_seconds_bucket" for name, _ in samples(openmetrics()))


def test_no_peers_is_no_metrics():
    assert openmetrics({}) == "# EOF\n"


@pytest.mark.parametrize("said", [
    [], "x", {"connections": []}, {"process": {"calls": "1\nforged 5"}}, {"process": {}},
    {"process": {**STATS["process"], "load": float("nan")}},
    {"process": {**STATS["process"], "load": ""}}, {"cut off": 10 ** 5000},
    {"cut off": True}, {"events": {7: {"triggered": 1, "subscribers": {}}}},
    {"events": {"done": {"triggered": 1, "subscribers": {b"a": {"sent": 1, "queued": -1}}}}},
    {"connections": {"f": {"calls": 1, "errors": "0\nnet_up 0", "seconds": 0}}},
    {"connections": {"f": {"calls": 1, "errors": 0, "seconds": 0, "latency": {0.1: []}}}},
    {"connections": {"f": {"calls": 1, "errors": 0, "seconds": 0, "latency": {"x": 1}}}},
], ids=range(14))
def test_what_another_process_says_are_its_statistics_is_looked_at_first(said):
    with pytest.raises(net.ProtocolError, match="10.0.0.5:3010 .*statistics.*ran") as caught:
        checked(said, "10.0.0.5:3010")
    assert caught.value.ran == "yes"


def test_statistics_of_another_process_are_what_they_were():
    for said in (STATS, {}, {"process": {**STATS["process"], "load": 0.5}}):
        assert checked(said, "10.0.0.5:3010") is said
