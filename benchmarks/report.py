"""The results as text, ratios first."""
from __future__ import annotations

from typing import Any, Iterator

from . import machine
from .events import SYSTEMS as EVENT_SYSTEMS
from .goals import GOALS
from .measure import Result
from .systems import SYSTEMS


def label(result: Result, name: str) -> str:
    """A system's name for people; publishing has systems of its own under the same names."""
    if result.name.startswith("event") and name in EVENT_SYSTEMS:
        return EVENT_SYSTEMS[name].label
    return SYSTEMS[name].label if name in SYSTEMS else name


def number(value: float) -> str:
    """Three digits that matter, with thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(result: Result) -> str:
    direction = "more is better" if result.more_is_better else "less is better"
    lines = [f"{result.title} ({direction})"]
    for name in result.ranked():
        ratio = result.ratio(name)
        shown = f"x {number(ratio)}" if ratio is not None else ""
        value = f"{number(result.median(name))} {result.unit}".rstrip()
        spread = f"± {result.spread(name):.0%}"
        lines.append(f"  {label(result, name):<32} {shown:>9}  {value:>22}  {spread:>7}")
    for name, reason in result.refusals.items():
        lines.append(f"  {label(result, name):<32} {'-':>9}  {reason}")
    return "\n".join(lines)


def goals(results: dict[str, Result]) -> str:
    lines = ["Goals"]
    for goal in GOALS:
        measured = goal.measure(results)
        if measured is None:
            verdict, shown = "not measured", ""
        else:
            verdict, shown = ("met" if goal.met(measured) else "MISSED"), number(measured)
        lines.append(f"  {goal.work:<45} {goal.aim:<47} {shown:>7}  {verdict}")
    return "\n".join(lines)


def show(results: Iterator[Result]) -> None:
    """Measure, and print all of it with what the machine is and how busy it was."""
    before = machine.load()
    found = list(results)
    print(heading(machine.describe(), {"before": before, "after": machine.load()}, {}))
    for result in found:
        print("\n" + table(result))


def heading(facts: dict[str, Any], load: dict[str, Any], missing: dict[str, str]) -> str:
    versions = ", ".join(
        f"{name} {version or '(this checkout)'}" for name, version in facts["versions"].items()
    )
    lines = [
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, "
        f"{facts['system']}, {facts['python']}",
        versions,
        f"load of the machine before {load['before']}, after {load['after']}",
        "x: the ratio to the line with x 1.00, median of interleaved rounds; "
        "±: half the distance of the quartiles",
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines)
