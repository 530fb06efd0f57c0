"""The benchmarks' adapters still work, and the report says what was measured. No test here
asserts a time."""
from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    # Behind what is installed, so that an installed net stays the one that is tested.
    sys.path.append(str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import (chart, discovery, events, fanout, goals, payloads, report,  # noqa: E402
                        spreading)
from benchmarks.measure import Result, interleave, result_from_json  # noqa: E402
from benchmarks.processes import Pair, Refused, Worker  # noqa: E402
from benchmarks.systems import SYSTEMS  # noqa: E402
from benchmarks.systems.base import installed  # noqa: E402
from processes import environment  # noqa: E402
from times import patience  # noqa: E402

# They are no part of what is installed, and run where the figures are made.
pytestmark = pytest.mark.once

INSTALLED = [name for name, system in SYSTEMS.items() if not system.missing()]
PUBLISHING = [name for name, system in events.SYSTEMS.items() if not system.missing()]

MACHINE = {"date": "2024-01-01", "processor": "a processor", "cores": 2, "system": "an OS",
           "python": "CPython", "versions": {"app-net": None, "rpyc": "6"}}


@pytest.fixture(params=INSTALLED)
def pair(request):
    """A server process and a client process of each system."""
    pair = Pair(SYSTEMS[request.param])
    pair.name = request.param
    yield pair
    pair.close()


def sends_attributes(name: str, kind: str) -> bool:
    """Whether a system sends the attributes of this payload in its place, and so alters it:
    XML-RPC does it with all that have a ``__dict__``, as PyPy's arrays do."""
    return name == "xmlrpc" and hasattr(payloads.make(kind, 8), "__dict__")


def test_each_system_answers_right_and_says_what_it_cannot_carry(pair):
    assert pair.client.ask("small", count=3) > 0
    assert pair.client.ask("echo", kind="text", size=10_000, count=1) > 0
    assert pair.client.ask("threads", count=2, seconds=0.01) > 0
    for kind, size in (("bytes", 10_000), ("rows", 10), ("array", 800)):
        try:
            assert pair.client.ask("echo", kind=kind, size=size, count=1) > 0
        except Refused as problem:
            assert "same object" not in str(problem)
            assert "altered" not in str(problem) or sends_attributes(pair.name, kind)
    # The connection is still good after a value that couldn't travel.
    assert pair.client.ask("small", count=3) > 0


@pytest.mark.parametrize("name", ["connection", "app-net"])
def test_typed_values_are_carried_by_what_is_compared_for_them(name):
    pair = Pair(SYSTEMS[name])
    try:
        assert pair.client.ask("echo", kind="typed", size=9, count=1) > 0
    finally:
        pair.close()


@pytest.mark.parametrize("name", ["floor", "app-net"])
def test_connections_can_be_held_and_let_go(name):
    pair = Pair(SYSTEMS[name])
    try:
        assert pair.client.ask("hold", count=3) > 0
        assert pair.client.ask("release") == 0
        assert pair.client.ask("brief", count=2) > 0
        assert pair.client.ask("small", count=2) > 0
    finally:
        pair.close()


@pytest.mark.parametrize("name", PUBLISHING)
def test_each_publisher_reaches_its_subscribers(name):
    audience = fanout.Audience(name, 2)
    try:
        rate, cost = audience.publish(20)
        assert rate > 0 and cost > 0
    finally:
        audience.close()


def test_only_the_extra_fast_loads_another_codec():
    """Otherwise what is measured would be that of whatever is installed."""
    for call, loaded in (("", False), ("fast=True", installed("msgspec"))):
        script = f"from benchmarks.systems import app_net; app_net.prepare({call}); " \
                 "from net.wire import fast; print(fast.codec() is not None)"
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(),
                              capture_output=True, text=True, timeout=patience(30))
        assert done.stdout.strip() == str(loaded), done.stderr


def test_what_the_decorator_costs_is_a_number():
    pair = Pair(SYSTEMS["app-net"])
    try:
        assert isinstance(pair.client.ask("local", count=10), float)
    finally:
        pair.close()


def test_a_process_that_ends_is_reported_with_its_last_words():
    with pytest.raises(Refused, match="KeyError"):
        Worker("serve", "no such system")


@pytest.mark.parametrize("got", [[1, 3], (1, 2), None])
def test_an_altered_reply_is_found(got):
    with pytest.raises(ValueError, match="altered"):
        payloads.check([1, 2], got)


def test_a_reply_that_never_travelled_is_found():
    sent = [1, 2]
    with pytest.raises(ValueError, match="same object"):
        payloads.check(sent, sent)


@pytest.mark.parametrize("kind", ["text", "bytes", "rows"])
def test_a_payload_has_its_size_and_is_the_same_each_time(kind):
    assert len(payloads.KINDS[kind](12_345)) == 12_345
    assert payloads.KINDS[kind](1234) == payloads.KINDS[kind](1234)


def samples() -> Result:
    return Result("small", "One small call", "µs", samples={
        "app-net": [8.0, 9.0, 20.0], "floor": [10.0, 10.0, 40.0], "rpyc": [30.0, 20.0, 80.0]})


def test_a_ratio_is_the_median_of_the_ratios_of_each_round():
    assert samples().ratio("app-net") == 0.8
    assert samples().ratio("app-net", "rpyc") == pytest.approx(8 / 30)
    assert samples().ratio("app-net", "not measured") is None


def test_rounds_are_interleaved_and_a_refusal_leaves_the_others_alone():
    order = []

    def sample(name: str) -> float:
        order.append(name)
        if order.count("b") == 2 and name == "b":
            raise Refused("broke")
        return 2.0

    result = interleave(Result("w", "W", "s"), {
        "a": lambda: sample("a"), "b": lambda: sample("b")}, 3, factor=10)
    assert order == ["a", "b", "a", "b", "a"]
    assert result.samples == {"a": [20.0, 20.0, 20.0]}
    assert result.refusals == {"b": "broke"}


def test_a_table_gives_ratios_first_and_the_best_on_top():
    result = samples()
    result.refusals["grpc"] = "is not there"
    lines = report.table(result).splitlines()
    assert lines[0] == "One small call (less is better)"
    assert [line.split()[0] for line in lines[1:]] == ["app-net", "naive", "RPyC", "gRPC"]
    assert lines[1].split()[1:4] == ["x", "0.80", "9.00"]
    assert lines[-1].endswith("is not there")


def goal(results: dict, work: str) -> str:
    line, = [line for line in report.goals(results).splitlines() if work in line]
    return " ".join(line.split()[-2:])


def test_goals_say_met_missed_and_not_measured():
    result = samples()
    result.samples["connection"] = [10.0, 10.0, 40.0]
    by_name = {"small": result}
    assert goal(by_name, "one small call, on one host") == "0.80 met"
    result.samples["app-net"] = [10.0, 10.0, 40.0]
    assert goal(by_name, "one small call, on one host") == "1.00 MISSED"
    assert goal(by_name, "one small call, over TCP").endswith("not measured")
    assert len(report.goals(by_name).splitlines()) == len(goals.GOALS) + 1


def test_being_first_counts_all_others_but_bare_sockets():
    result = Result("brief", "Connections", "1/s", True, samples={
        "raw": [9.0], "floor": [8.0], "app-net-secret": [7.0], "app-net": [6.0], "rpyc": [5.0]})
    assert goal({"brief": result}, "connections of one call") == "1.20 met"


def test_a_variant_takes_part_in_its_works_only():
    fast, plain = SYSTEMS["app-net-fast"], SYSTEMS["app-net"]
    assert fast.does("rows") and not fast.does("small")
    assert plain.does("rows") and plain.does("small")


def test_a_run_is_written_as_json_and_drawn_again_from_it(tmp_path, capsys, monkeypatch):
    written, drawn = tmp_path / "run.json", tmp_path / "run.svg"
    command.main(["--quick", "--rounds", "1", "--only", "startup", "--systems", "floor",
                  "--json", str(written)])
    first = capsys.readouterr().out
    assert "Time to import (less is better)" in first and "x 1.00" in first
    run = json.loads(written.read_text())
    assert run["results"][0]["samples"]["floor"][0]
    command.main(["--from", str(written), "--svg", str(drawn)])
    assert capsys.readouterr().out == first
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    monkeypatch.setattr(command, "DOCS", tmp_path)
    command.main(["--from", str(written), "--page"])
    assert (tmp_path / "performance.txt").read_text(encoding="utf-8") == first
    assert (tmp_path / "performance.svg").read_bytes() == drawn.read_bytes()


def test_the_chart_is_well_formed_and_names_who_was_measured():
    results = {"small": samples()}
    for size, rate in ((10, 1.0), (100, 9.0)):
        results[f"text-{size}"] = Result(
            f"text-{size}", "Echo", "MB/s", True,
            samples={"app-net": [rate], "rpyc": [rate / 2]})
    drawn = chart.draw(results, MACHINE)
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(drawn).iter()]
    assert "One small call" in texts and "RPyC" in texts and "app-net" in texts
    assert "prefers-color-scheme: dark" in drawn


def test_a_result_survives_json():
    assert result_from_json(json.loads(json.dumps(samples().as_json()))) == samples()


def test_a_search_that_cannot_be_measured_says_why(monkeypatch):
    monkeypatch.setattr(discovery, "why_not", lambda: "no namespaces here")
    tables = list(map(report.table, discovery.results(1)))
    assert len(tables) == 2 and all("no namespaces here" in table for table in tables)


def test_what_is_not_installed_is_named_with_the_reason(monkeypatch):
    @contextlib.contextmanager
    def lacking():
        raise Refused("No module named 'dask'")
        yield {}

    monkeypatch.setattr(spreading, "SYSTEMS", {
        "one": lambda: contextlib.nullcontext({"one": lambda tasks: None}), "Dask": lacking})
    for result in spreading.run(1, 0.001):
        assert list(result.samples) == ["one"] and "'dask'" in result.refusals["Dask"]


def test_awaited_calls_streams_and_callbacks_are_measured():
    command = [sys.executable, "-m", "benchmarks.forms", "--rounds", "1", "--share", "0.001"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=patience(60), env=environment())
    assert done.returncode == 0, done.stderr
    for title in ("1,000 awaited calls at once", "a stream of 100 items", "a callback"):
        table = done.stdout.partition(title)[2].partition("\n\n")[0]
        own, = [line for line in table.splitlines() if line.split()[:1] == ["app-net"]
                and line.split()[1] == "x"]
        assert "x 1.00" in own


def test_what_needs_another_library_is_skipped_with_a_reason(monkeypatch, capsys):
    from benchmarks import engine

    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    engine.main([])
    assert capsys.readouterr().out == "skipped: eclipse-zenoh and cryptography not installed\n"


def test_without_the_floor_the_chart_has_absolute_figures():
    results = {"small": Result("small", "One small call", "µs", False, baseline="floor",
                               samples={"app-net": [88.0], "rpyc": [300.0]})}
    texts = ["".join(one.itertext()) for one in
             ElementTree.fromstring(chart.draw(results, MACHINE)).iter()]
    assert "µs; shorter is better" in texts and "88.0" in texts
