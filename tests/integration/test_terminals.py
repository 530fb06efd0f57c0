"""Pages whose files and commands are played in terminals, from the first line to the last."""
from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable, Iterator

import pytest
from pages import blocks
from terminals import Terminal, path_with_python3
from times import patience

pytestmark = [
    pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="needs a terminal"),
    pytest.mark.timeout(patience(90)),
    # What the pages show is no different there, and to play them takes half a minute.
    pytest.mark.once,
]

#: Page -> modules that its programs need besides ours. Commands without a caption are not played.
PAGES = {"docs/tutorial.rst": ["cryptography"], "docs/security-start.rst": ["cryptography"],
         "docs/troubleshooting.rst": [], "docs/fastapi.rst": ["fastapi", "uvicorn"]}


@pytest.fixture
def terminal(tmp_path: Path, port_range: range) -> Iterator[Callable[[str], Terminal]]:
    """The terminal of a name, in the folder of the test."""
    path = path_with_python3(tmp_path / "bin")
    folder = tmp_path / "folder"
    folder.mkdir()
    opened = {}

    def adapted(line: str) -> str:
        # The page has the ports that a user sees, the test ports of its own.
        for offset, port in enumerate(port_range):
            line = line.replace(str(3010 + offset), str(port))
        return line.replace("8000", str(port_range[-1]))  # of the web server

    def named(name: str) -> Terminal:
        if name not in opened:
            opened[name] = Terminal(
                folder, adapted, NET_PORT_START=port_range.start, PATH=path)
        return opened[name]

    yield named
    for one in opened.values():
        one.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_plays_as_printed(page, terminal, tmp_path):
    for module in PAGES[page]:
        pytest.importorskip(module)
    for block in blocks(page):
        if block.kind in ("console", "pycon"):
            if not block.caption or block.caption.startswith("Machine"):
                continue  # what several machines show is played in tests/lan
            try:
                terminal(block.caption).play(block.text)
            except AssertionError as problem:
                raise AssertionError(f"{block.caption}\n{block.text}\n{problem}") from None
        else:
            (tmp_path / "folder" / block.caption).write_text(block.text, encoding="utf-8")
