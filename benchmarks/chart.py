"""The chart of a run: one SVG file, drawn with the standard library, for light and dark pages."""
from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

from .measure import Result
from .report import label, number

WIDTH = 960
MARGIN = 28
GAP = 40
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
BAR = 15
STEP = 22
#: A bar more than this many times as long as app-net's is cut off, or the others could not be told
#: apart.
CUT = 4.0

STYLE = """
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f }
.card { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 20px; font-weight: 600 }
.heading { font-size: 14px; font-weight: 600 }
.quiet { font-size: 11px; fill: #59636e }
.strong { font-weight: 600 }
.axis { stroke: #d0d7de; stroke-width: 1 }
.bar { fill: #a9b4c0 } .bar.ours { fill: #0969da } .bar.measure { fill: #d8dee4 }
.cut { stroke: #ffffff; stroke-width: 3 }
.curve { fill: none; stroke-width: 1.8 } .ours.curve { stroke-width: 3 }
.c0 { stroke: #0969da } .c1 { stroke: #6e7781 } .c2 { stroke: #bf5700 } .c3 { stroke: #1a7f37 }
.c4 { stroke: #8250df } .c5 { stroke: #bf3989 } .c6 { stroke: #9a6700 }
.t0 { fill: #0969da; font-weight: 600 } .t1 { fill: #6e7781 } .t2 { fill: #bf5700 }
.t3 { fill: #1a7f37 } .t4 { fill: #8250df } .t5 { fill: #bf3989 } .t6 { fill: #9a6700 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .card { fill: #0d1117; stroke: #30363d } .quiet { fill: #9198a1 }
.axis { stroke: #30363d } .cut { stroke: #0d1117 }
.bar { fill: #57606a } .bar.ours { fill: #4493f8 } .bar.measure { fill: #343b44 }
.c0 { stroke: #4493f8 } .c1 { stroke: #9198a1 } .c2 { stroke: #f0883e } .c3 { stroke: #3fb950 }
.c4 { stroke: #ab7df8 } .c5 { stroke: #db61a2 } .c6 { stroke: #d29922 }
.t0 { fill: #4493f8 } .t1 { fill: #9198a1 } .t2 { fill: #f0883e } .t3 { fill: #3fb950 }
.t4 { fill: #ab7df8 } .t5 { fill: #db61a2 } .t6 { fill: #d29922 }
}
"""

#: What the curves show; all systems would be a tangle. The place is the colour.
CURVES = ("app-net", "floor", "connection", "rpyc", "pyro-msgpack", "zeromq", "grpc")


class Drawing:
    """Elements of an SVG file, in the order in which they are painted."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def text(
        self, x: float, y: float, content: str, style: str = "", anchor: str = "start"
    ) -> None:
        self.elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">'
            f"{escape(content)}</text>"
        )

    def rectangle(self, x: float, y: float, width: float, height: float, style: str) -> None:
        self.elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" '
            f'rx="2" class="{style}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self.elements.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'
        )

    def curve(self, points: list[tuple[float, float]], style: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.elements.append(
            f'<polyline points="{path}" class="curve {style}" stroke-linejoin="round"/>'
        )

    def document(self, height: float, description: str) -> str:
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img">',
            f"<title>{escape(description)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="10" '
            'class="card"/>',
            *self.elements,
            "</svg>\n",
        ])


def bars(drawing: Drawing, result: Result, x: float, y: float) -> float:
    """One work as bars, the best on top; returns the height used."""
    better = "longer is better" if result.more_is_better else "shorter is better"
    in_ratios = not result.more_is_better and result.baseline == "floor" and \
        "floor" in result.samples
    drawing.text(x, y, result.title, "heading")
    drawing.text(x, y + 16, f"{'ratio to the floor' if in_ratios else result.unit}; {better}",
                 "quiet")
    names = result.ranked()
    values = {n: (result.ratio(n) if in_ratios else result.median(n)) or 0.0 for n in names}
    longest = max(values.values())
    if not result.more_is_better:
        longest = min(longest, CUT * max(1.0, values.get("app-net", longest)))
    names_width, numbers_width = 196, 56
    room = COLUMN - names_width - numbers_width
    for place, name in enumerate(names):
        top = y + 28 + place * STEP
        ours = name.startswith("app-net")
        style = "ours" if ours else "measure" if name in ("raw", "floor") else ""
        length = room * min(values[name] / longest, 1)
        drawing.text(x + names_width - 8, top + 12, label(result, name),
                     "strong" if ours else "", "end")
        drawing.rectangle(x + names_width, top, length, BAR, f"bar {style}")
        if values[name] > longest:
            end = x + names_width + length - 14
            drawing.line(end, top + BAR + 2, end + 6, top - 2, "cut")
        drawing.text(x + names_width + length + 6, top + 12, number(values[name]),
                     "strong" if ours else "")
    return 28 + len(names) * STEP


def curves(
    drawing: Drawing, title: str, unit: str, series: dict[str, dict[int, float]],
    x: float, y: float,
) -> float:
    """Growth on logarithmic axes: one curve for each system."""
    height, labels = 250, 150
    left, right, top, bottom = x + 44, x + COLUMN - labels, y + 34, y + 34 + height
    drawing.text(x, y, title, "heading")
    drawing.text(x, y + 16, f"{unit}; higher is better; both axes logarithmic", "quiet")
    across = sorted({place for points in series.values() for place in points})
    values = [value for points in series.values() for value in points.values()]
    low, high = 10 ** math.floor(math.log10(min(values))), max(values) * 1.1

    def place_x(value: float) -> float:
        span = math.log(across[-1] / across[0]) or 1
        return left + (right - left) * math.log(value / across[0]) / span

    def place_y(value: float) -> float:
        return bottom - height * math.log(value / low) / math.log(high / low)

    for value in across:
        drawing.line(place_x(value), top, place_x(value), bottom, "axis")
        drawing.text(place_x(value), bottom + 16, short(value), "quiet", "middle")
    mark = low
    while mark <= high:
        drawing.line(left, place_y(mark), right, place_y(mark), "axis")
        drawing.text(left - 6, place_y(mark) + 4, short(mark), "quiet", "end")
        mark *= 10
    ends = []
    for name in reversed(list(series)):  # ours is painted last, above the others
        points = [(place_x(p), place_y(v)) for p, v in sorted(series[name].items())]
        color = CURVES.index(name)
        drawing.curve(points, f"c{color}" + (" ours" if name == "app-net" else ""))
        ends.append((points[-1][1], points[-1][0], name))
    name_curves(drawing, ends, right)
    return 34 + height + 24


def name_curves(drawing: Drawing, ends: list[tuple[float, float, str]], right: float) -> None:
    """Write each name beside the end of its curve, moved down where two would collide."""
    from .systems import SYSTEMS

    last = -math.inf
    for height, _, name in sorted(ends):
        last = max(height + 4, last + 14)
        drawing.text(right + 8, last, SYSTEMS[name].label.partition(" (")[0],
                     f"t{CURVES.index(name)}")


def short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def grown(results: dict[str, Result], prefix: str) -> dict[str, dict[int, float]]:
    """``{system: {size: median}}`` of the works called ``prefix`` and a number."""
    series: dict[str, dict[int, float]] = {}
    for work, result in results.items():
        head, _, size = work.rpartition("-")
        if head != prefix or not size.isdigit():
            continue
        for name in CURVES:
            if name in result.samples:
                series.setdefault(name, {})[int(size)] = result.median(name)
    return {name: series[name] for name in CURVES if name in series}


def draw(results: dict[str, Result], machine: dict[str, Any]) -> str:
    """The SVG text. Works that were not measured are left out."""
    drawing = Drawing()
    drawing.text(MARGIN, 40, "app-net compared with other ways to call a function in another "
                 "process", "title")
    drawing.text(
        MARGIN, 60, f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['python']}; medians of interleaved rounds over loopback", "quiet",
    )
    y: float = 98
    rows = (("small", "rows"), ("text", "bytes"), ("threads-8", "array"), ("events-1", "events-10"))
    for row in rows:
        taken = [results[name] for name in row if name in results and results[name].samples]
        if taken:
            y += GAP / 2 + max(
                bars(drawing, result, MARGIN + column * (COLUMN + GAP), y)
                for column, result in enumerate(taken)
            )
    y += 8
    heights = [0.0]
    column = 0
    for prefix, title, unit in (
        ("threads", "Calls per second, by client threads", "calls/s"),
        ("text", "Echo of text, by its size in bytes", "MB/s, both ways"),
    ):
        series = grown(results, prefix)
        if series:
            heights.append(curves(drawing, title, unit, series,
                                  MARGIN + column * (COLUMN + GAP), y))
            column += 1
    return drawing.document(y + max(heights) + 8,
                            "app-net compared with other systems: benchmark results")
