"""The command: ``python -m benchmarks [--quick]``."""
from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any, Callable, Iterator

from . import chart, discovery, fanout, forms, machine, report, spreading, startup, works
from .events import SYSTEMS as EVENT_SYSTEMS
from .measure import Result, result_from_json
from .plan import FULL, QUICK, Plan
from .systems import SYSTEMS, System

#: Where the page about performance is.
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"

Section = Callable[[Plan, "list[System]"], Iterator[Result]]


def events(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """Publishing has systems of its own; those are measured that belong to a chosen one."""
    wanted = {system.name.partition("-")[0] for system in systems}
    names = [name for name, system in EVENT_SYSTEMS.items()
             if not system.missing() and name.partition("-")[0] in wanted]
    return fanout.run(plan, names)


def awaited(plan: Plan, systems: list[System]) -> Iterator[Result]:
    """These have systems of their own, too."""
    return forms.run(plan.at_most(5), plan.share)


def spread(plan: Plan, systems: list[System]) -> Iterator[Result]:
    return spreading.run(plan.at_most(3), plan.share)


def searches(plan: Plan, systems: list[System]) -> Iterator[Result]:
    return discovery.results(plan.at_most(5))


SECTIONS: dict[str, Section] = {
    "latency": works.latency,
    "growth": works.growth,
    "rates": works.rates,
    "idle": works.idle,
    "events": events,
    "forms": awaited,
    "spreading": spread,
    "discovery": searches,
    "startup": startup.run,
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two instead of twenty")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of the quick works")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS),
                        metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS),
                        metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--json", type=pathlib.Path, help="write every sample to this file")
    parser.add_argument("--svg", type=pathlib.Path, help="draw the chart into this file")
    parser.add_argument("--page", action="store_true",
                        help="write the report and the chart of the documentation")
    parser.add_argument("--from", type=pathlib.Path, dest="earlier", metavar="JSON",
                        help="measure nothing, show an earlier run")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is asked for; return what the JSON file holds."""
    plan = dataclasses.replace(QUICK if options.quick else FULL, cpu=machine.a_core())
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    missing = {
        name: reason for name in options.systems if (reason := SYSTEMS[name].missing())
    }
    systems = [SYSTEMS[name] for name in options.systems if name not in missing]
    before = machine.load()
    results = [
        result.as_json()
        for section in options.only for result in SECTIONS[section](plan, systems)
    ]
    return {
        "machine": machine.describe(),
        "load": {"before": before, "after": machine.load()},
        "plan": dataclasses.asdict(plan),
        "missing": missing,
        "results": results,
    }


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    run = json.loads(options.earlier.read_text()) if options.earlier else measure(options)
    results = [result_from_json(facts) for facts in run["results"]]
    by_name = {result.name: result for result in results}
    text = "\n\n".join([report.heading(run["machine"], run["load"], run["missing"]),
                        *map(report.table, results), report.goals(by_name)]) + "\n"
    print(text, end="")
    drawn = chart.draw(by_name, run["machine"])
    if options.json:
        options.json.write_text(json.dumps(run, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(drawn, encoding="utf-8")
    if options.page:
        (DOCS / "performance.txt").write_text(text, encoding="utf-8")
        (DOCS / "performance.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
