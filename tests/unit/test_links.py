"""What the pages point to is there, or is an address that can be. What is within the documentation
is checked by Sphinx, which takes a broken reference for an error."""
from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from each import each

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst"), ROOT / "benchmarks" / "README.rst"]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FOLDERS = ("docs", "tests", "benchmarks", "examples", "net")


def test_there_are_pages():
    assert len(PAGES) > 40


@each("page", PAGES, ids=IDS)
def test_addresses_can_be(page):
    for found in re.findall(r"\bhttps?://[^\s`\"'<>)\]]*", page.read_text(encoding="utf-8")):
        parts = urlsplit(found.rstrip(".,;:"))
        host = parts.hostname or ""
        assert parts.port is None or 0 < parts.port < 65536
        # Secured, unless it is a server of an example.
        assert parts.scheme == "https" and "." in host or host in ("127.0.0.1", "localhost"), found


@each("page", PAGES, ids=IDS)
def test_files_that_it_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"``((?:{'|'.join(FOLDERS)})/[\w./-]*)``", text))
    named |= set(re.findall(r"^\.\. (?:image|figure|literalinclude|include):: (\S+)", text, re.M))
    missing = [name for name in named
               if not (ROOT / name).exists() and not (page.parent / name).exists()]
    assert not missing
