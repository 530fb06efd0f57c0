"""The main program has a name: the one by which others import its file."""
from __future__ import annotations

import os
import zipapp
from pathlib import Path

import pytest

import net
from processes import run_python

TELL = """
import runpy, sys, net
from net.decorators import register
from net.wire import registered
from net.wire.failures import describe
import dataclasses

def run(): pass

@net.value
@dataclasses.dataclass
class Value: pass

class Trouble(Exception): pass

if __name__ in ("__main__", "__mp_main__"):
    names = {net.identity.tag_name(register(run).tag).rpartition(".")[0],
             registered.registry.names[Value].rpartition(".")[0],
             describe(Trouble())["types"][0][0]}
    print(*names)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    for name in ("studio.py", "pkg/app.py", "pkg/__main__.py", "__main__.py"):
        (tmp_path / name).write_text(TELL)
    return tmp_path


def told(*arguments, folder):
    """The names by which what a program defines is known."""
    return run_python(*map(str, arguments), PYTHONPATH=f"{PACKAGES}{os.pathsep}{folder}",
                      NET_LAUNCH=0).stdout.split()


PACKAGES = Path(net.__file__).resolve().parents[1]


def test_a_file_that_is_run_is_known_by_the_name_that_others_import(folder):
    assert told(folder / "studio.py", folder=folder) == ["studio"]
    assert told("-m", "studio", folder=folder) == ["studio"]
    assert told("-m", "pkg.app", folder=folder) == ["pkg.app"]
    assert told("-m", "pkg", folder=folder) == ["pkg.__main__"]


def test_a_folder_and_a_zip_archive_that_are_run_are_known_by_their_names(folder):
    archive = folder / "tool.pyz"
    zipapp.create_archive(folder, archive, filter=lambda path: path.name == "__main__.py")
    assert told(archive, folder=folder) == ["tool"]
    assert told(folder, folder=folder) == [folder.name]


def test_what_nobody_can_import_stays_the_main_program(folder):
    assert told("-c", TELL, folder=folder) == ["__main__"]


@pytest.mark.parametrize("start", [
    "import runpy; runpy.run_path('studio.py', run_name='__main__')",
    "import runpy; runpy.run_module('studio', run_name='__main__', alter_sys=True)",
])
def test_a_file_that_another_program_runs_has_its_own_name(folder, start):
    code = f"import os; os.chdir({str(folder)!r}); {start}"
    assert told("-c", code, folder=folder) == ["studio"]


def test_a_child_of_multiprocessing_knows_the_main_program_by_the_same_name(folder):
    (folder / "parent.py").write_text(TELL.replace("print", "if __name__ == '__mp_main__': print")
                                      + """
def work(): pass

if __name__ == "__main__":
    import multiprocessing
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
""")
    assert told(folder / "parent.py", folder=folder) == ["parent"]


def test_the_name_stays_when_python_has_come_to_the_end_of_the_file(folder):
    (folder / "ended.py").write_text("""
import sys, threading
from net.identity import public_module

def ask():
    threading.main_thread().join()
    print(public_module("__main__"))

threading.Thread(target=ask).start()
""")
    assert told(folder / "ended.py", folder=folder) == ["ended"]
