"""The last step of the tutorial, which takes two machines."""
from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from pages import blocks
from terminals import Terminal, path_with_python3

PAGE = "docs/tutorial.rst"


def test_the_step_with_two_machines_plays_as_printed(build, tmp_path: Path):
    pytest.importorskip("cryptography")
    path = path_with_python3(tmp_path / "bin")
    page = blocks(PAGE)
    with build(2) as lan, ExitStack() as opened:
        terminals, folders = {}, {}
        for number, host in enumerate(lan.hosts, 1):
            name = f"Machine {number}"
            folder = folders[name] = tmp_path / name
            folder.mkdir()
            # As lan_environment has it: nothing can leave.
            terminals[name] = Terminal(folder, prefix=host.prefix, NET_HOST=None,
                                       NET_PORT_START=None, PATH=path)
            opened.callback(terminals[name].close)
        for block in page:
            if block.kind == "python":
                (folders["Machine 1"] / block.caption).write_text(block.text, encoding="utf-8")
        first, second = folders.values()
        terminals["Machine 1"].play("$ python3 -m net secret > farm.secret\n"
                                    "$ chmod 600 farm.secret && echo made\nmade\n")
        # What the text tells to copy, and no more.
        for name in ("farm.py", "submit.py", "farm.secret"):
            assert f"``{name}``" in text_of_the_step()
            shutil.copy(first / name, second / name)
        played = [block for block in page if block.caption in terminals]
        for block in played:
            terminals[block.caption].play(block.text)
        assert {block.caption for block in played} == set(terminals)


def text_of_the_step() -> str:
    text = (Path(__file__).resolve().parents[2] / PAGE).read_text(encoding="utf-8")
    return text.partition("6. Several machines")[2].partition("Where to go")[0]
