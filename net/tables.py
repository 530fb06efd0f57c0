"""Tables, as lines of a terminal or as HTML in a notebook."""
from __future__ import annotations

from typing import List, NamedTuple, Sequence

from .identity import printable

# Columns of a terminal that does not tell its width.
WIDTH = 80
# Characters of a cell, before it is cut to the width of the terminal.
MAX_CELL = 64


class Column(NamedTuple):
    """A column. Where lines are too long, the widest columns are cut first, down to their
    ``narrowest``, and then the last ones are left out."""

    title: str
    narrowest: int


def terminal_width() -> int:
    """Columns of the terminal that is printed to; 80 if that is unknown."""
    import shutil  # only needed to show a table

    return shutil.get_terminal_size((WIDTH, 24)).columns


def as_text(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int,
            gap: int = 2) -> str:
    """A table in lines of at most so many characters, under its titles.

    :param gap: blanks between two columns.
    """
    lines = [[column.title for column in columns], *([_cell(text) for text in row] for row in rows)]
    widths = _widths(columns, lines, width, gap)
    return "\n".join((gap * " ").join(_pad(cell, room) for cell, room in zip(line, widths)).rstrip()
                     for line in lines)


def as_html(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML, as notebooks show it."""
    from html import escape

    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(_cell(text))}</td>" for text in row) + "</tr>"
                   for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """Foreign text for a table: nothing in it can move the cursor or end the line."""
    return printable(text, MAX_CELL)


def _widths(columns: Sequence[Column], lines: List[List[str]], width: int,
            gap: int) -> List[int]:
    widths = [max(map(display_width, cells)) for cells in zip(*lines)]
    while sum(widths) + gap * (len(widths) - 1) > width:
        spare = [have - column.narrowest for have, column in zip(widths, columns)]
        if max(spare) > 0:
            widths[spare.index(max(spare))] -= 1
        elif len(widths) > 1:
            widths.pop()
        else:
            break
    return widths


def _pad(text: str, room: int) -> str:
    while display_width(text) > room:
        text = text[:-2] + "~" if text.endswith("~") else text[:-1] + "~"
    return text + " " * (room - display_width(text))


def folded(text: str, width: int, further: str = "  ") -> str:
    """Text in lines of at most so many columns, broken between words where that is possible.

    :param further: what goes before each further part of a line, after the indent of that line.
    """
    return "\n".join([part for line in text.split("\n") for part in _parts(line, width, further)])


def _parts(line: str, width: int, further: str) -> List[str]:
    if 2 * len(line) <= width or display_width(line) <= width:
        return [line]
    begin = line[:len(line) - len(line.lstrip(" "))]
    begin = begin if len(begin) <= width // 2 else ""
    rest = begin + further if len(begin + further) <= width // 2 else begin
    parts: List[str] = []
    words = line.lstrip(" ")
    at = 0
    while at < len(words):
        end = _end(words, at, width - len(begin))
        parts.append((begin + words[at:end]).rstrip())
        begin = rest
        while words[end:end + 1] == " ":
            end += 1
        at = end
    return parts


def _end(words: str, at: int, room: int) -> int:
    """Where the line ends that begins at a place of a text."""
    end, taken = at, 0
    while end < len(words):
        taken += display_width(words[end])
        if taken > room:
            break
        end += 1
    else:
        return end
    gap = words.rfind(" ", at + 1, end + 1)
    return gap if gap > at else max(end, at + 1)


def display_width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
