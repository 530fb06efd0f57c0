"""An application that has much to say, for the tests of lines in a terminal."""
from __future__ import annotations

from typing import Iterator, List

import net

WORDS = "a text that goes on and on, well beyond what a line of a terminal has room for, "


class AnErrorWithALongName(Exception):
    """It has a long name."""


@net.connect("wordy.render_all_of_it")
def render(shot: str, layers: List[str] = ["sky", "sea"], output: str = "/srv/renders") -> str:
    """Render a shot with all of its layers, in the colour space that is given, and write it to \
where everybody looks for it, be it in this building or in another one.

    The second paragraph of it is as long as the first one, and as a matter of fact even longer: \
it goes on, and on, and does not end where a terminal of eighty columns has its border.

        an example of it, indented, with more words than there is room for on the line it is on
    """
    return 3 * WORDS


@net.connect("wordy.wide")
def wide() -> str:
    return 60 * "\u754c\u9762 "


@net.connect("wordy.values")
def values() -> List[object]:
    return [3 * WORDS, 300 * b"x", 10 ** 250, {WORDS: WORDS}]


@net.connect("wordy.items")
def items() -> Iterator[str]:
    yield 2 * WORDS
    raise AnErrorWithALongName(2 * WORDS)


@net.event(WORDS.replace(" ", "_"))
def announced() -> None:
    """Nobody hears it."""
