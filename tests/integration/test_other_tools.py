"""Pages about other tools beside app-net; what is not installed is skipped (tox -e systems)."""
from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from pages import Block, blocks
from processes import environment, run_python
from times import patience

pytestmark = pytest.mark.timeout(patience(60))

#: Title of a section of "Coming from another tool" -> what its programs need.
TOOLS = {"RPyC": "rpyc", "Pyro5": "Pyro5", "zerorpc": "zerorpc",
         "multiprocessing": "multiprocessing"}


def needed(module: str) -> None:
    # Some of them warn of what is outdated in them when they are imported.
    with _silence():
        try:
            importlib.import_module(module)
        except ImportError:
            pytest.skip(f"needs {module}")


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def running(script: Path, **settings: object) -> Iterator["subprocess.Popen[str]"]:
    """A program that runs until the block ends."""
    with subprocess.Popen([sys.executable, str(script)], env=environment(**settings), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def sections() -> Dict[str, List[Block]]:
    """The blocks of each section of the page, which begins with the tool's own ones."""
    found: Dict[str, List[Block]] = {tool: [] for tool in TOOLS}
    tool = ""
    for block in blocks("docs/coming-from.rst"):
        of = block.caption.partition(":")[0]
        tool = of if of in TOOLS else tool
        found[tool].append(block)
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_both_clients_print_the_same(tool, tmp_path, port_range):
    needed(TOOLS[tool])
    said = {}
    for side in (tool, "app-net"):
        folder = tmp_path / side
        folder.mkdir()
        for block in sections()[tool]:
            of, name = block.caption.split(": ")
            if of == side:
                text = block.text.replace("18861", str(port_range[-1]))
                (folder / name).write_text(text, encoding="utf-8")
        if (folder / "server.py").exists():
            with running(folder / "server.py", NET_PORT_START=port_range.start):
                said[side] = answer(folder / "client.py", port_range)
        else:
            said[side] = answer(folder / "client.py", port_range)
    assert said[tool] == said["app-net"] != ""


def answer(client: Path, port_range: range) -> str:
    """What a client prints, once its server is there: until then it cannot connect."""
    deadline = time.monotonic() + patience(15)
    while True:
        try:
            return run_python(str(client), NET_PORT_START=port_range.start, NET_LAUNCH=0).stdout
        except AssertionError:
            if time.monotonic() > deadline:
                raise


#: Runs the cells that it is given as JSON in a kernel, and prints what each shows last.
NOTEBOOK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(cell) for cell in json.loads(sys.argv[1])]
kernel = {"name": "python3", "display_name": "", "language": "python"}
notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
NotebookClient(notebook, timeout=60).execute()
for cell in notebook.cells:
    print(" ".join(cell.outputs[-1]["data"]["text/plain"].split()))
"""


def test_the_notebook_gives_what_the_page_says(tmp_path, port_range):
    needed("ipykernel")
    needed("nbclient")
    page = {block.caption: block.text for block in blocks("docs/jupyter.rst")}
    (tmp_path / "bench.py").write_text(page["bench.py"], encoding="utf-8")
    cells = [text for caption, text in page.items() if caption.startswith("Cell")]
    outputs = [text.strip() for caption, text in page.items() if caption.startswith("Output")]
    with running(tmp_path / "bench.py", NET_PORT_START=port_range.start) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        done = run_python("-c", NOTEBOOK, json.dumps(cells), timeout=40,
                          NET_PORT_START=port_range.start)
    assert done.stdout.splitlines() == outputs
