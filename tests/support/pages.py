"""The programs and sessions that stand in the pages of the documentation."""
from __future__ import annotations

import re
from pathlib import Path
from typing import List, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n((?:    ?:[\w-]+:.*\n|   :[\w-]+:.*\n)*)\n((?:    .*\n|\n)+)", re.M)
_CAPTION = re.compile(r":caption: (.*)")


class Block(NamedTuple):
    """One code block: its language, its caption (empty where it has none) and its text."""

    kind: str
    caption: str
    text: str


def blocks(page: str) -> List[Block]:
    """The code blocks of a page that stand at its left margin, in their order.

    :param page: path of the page in the repository.
    """
    found = []
    for kind, options, body in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        caption = _CAPTION.search(options)
        text = re.sub(r"^    ", "", body, flags=re.M).rstrip("\n") + "\n"
        found.append(Block(kind, caption[1] if caption else "", text))
    return found
