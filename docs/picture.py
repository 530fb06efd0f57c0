"""Draw docs/demo.svg, the picture in the README, from what the demo really prints.

    python3 docs/picture.py
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
COMMAND = "python3 -m net demo"

# Pixels: a character of the 13 px font, a line, and the space around the text. The card is dark in
# both modes, as a terminal is.
CHARACTER, LINE, MARGIN, BAR = 7.83, 19, 20, 34
STYLE = (
    'text { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; '
    "fill: #c9d1d9; white-space: pre }\n"
    ".card { fill: #161b22; stroke: #30363d } .command { fill: #ffffff; font-weight: 600 }\n"
    ".step { fill: #79c0ff; font-weight: 600 } .remote { fill: #ffa198 }\n")


def output() -> list[str]:
    """The lines of the demo, run from this checkout."""
    done = subprocess.run(
        [sys.executable, *COMMAND.split()[1:]], cwd=ROOT, check=True, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"})
    # Where the checkout is, is nobody's concern.
    return done.stdout.replace(str(ROOT) + os.sep, "").rstrip("\n").split("\n")


def style_of(line: str) -> str:
    if line[:1].isdigit():
        return "step"
    return "remote" if line.lstrip().startswith("|") else ""


def draw(lines: list[str]) -> str:
    """The SVG text of a terminal that shows them."""
    width = 2 * MARGIN + max(map(len, lines)) * CHARACTER
    height = BAR + (len(lines) + 1) * LINE + MARGIN
    drawn = [f'<text x="{MARGIN}" y="{BAR + 14}" class="command">$ {COMMAND}</text>']
    for number, line in enumerate(lines, 1):
        if line:
            drawn.append(f'<text x="{MARGIN}" y="{BAR + 14 + number * LINE}" '
                         f'class="{style_of(line)}" xml:space="preserve">{escape(line)}</text>')
    dots = "".join(f'<circle cx="{MARGIN + 4 + 18 * number}" cy="18" r="5" fill="#484f58"/>'
                   for number in range(3))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img">',
        f"<title>What {COMMAND} prints</title>", f"<style>\n{STYLE}</style>",
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="8" '
        'class="card"/>', dots, *drawn, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw(output()), encoding="utf-8")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
