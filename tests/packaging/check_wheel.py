"""Build what users install, install it where nothing else is, and import every module of it.

The wheel is built from the sdist, so that both are proved complete. Needs ``build``; run by
``tox -e pkg``.
"""
from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

from pages import blocks  # noqa: E402

# Runs in the empty environment, outside the checkout and without its folder on the path.
IMPORT_ALL = """
import importlib, pkgutil, sys
import net
names = ["net"] + [m.name for m in pkgutil.walk_packages(net.__path__, "net.")]
for name in names:
    # These need pytest, and rich.
    if not name.endswith((".__main__", ".testing.plugin", ".cli.rich_view")):
        importlib.import_module(name)
from importlib.metadata import version
assert version("app-net") == net.__version__, version("app-net")
assert net.__file__.startswith(sys.prefix), net.__file__
print("\\n".join(names))
"""


# A user's suite: pytest, installed beside app-net, finds the fixture by itself. Its workers, if it
# has some, do not meet.
SUITE = """
import net
import pytest

@pytest.mark.parametrize("time", [1, 2])
def test_peers_are_there(net_peers, time):
    assert list(net.peers(refresh=True)) == []
    a, b = net_peers(2)
    assert [net.null(peer=peer) for peer in (a, b)] == ["NULL"] * 2
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)
        (wheel,) = (folder / "dist").glob("*.whl")
        check_contents(wheel)
        environment = folder / "empty"
        venv.create(environment, with_pip=True)
        scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
        python = scripts / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel)
        imported = run(python, "-I", "-W", "error", "-c", IMPORT_ALL, cwd=folder).split()
        assert set(imported) == modules_of_checkout(), sorted(imported)
        run(python, "-m", "net", "demo", cwd=folder)
        assert "usage: app-net " in run(scripts / "app-net", "--help", cwd=folder)
        run(python, "-m", "pip", "install", "--quiet", "pytest>=7.4", "pytest-xdist", "rich>=13")
        run(python, "-I", "-c", "import net.cli.rich_view", cwd=folder)
        (folder / "test_suite.py").write_text(SUITE)
        for workers in ([], ["-n", "2"]):
            assert "2 passed" in run(scripts / "pytest", "-W", "error", *workers, "test_suite.py",
                                     cwd=folder)
        if sys.platform != "win32":
            install_as_the_tutorial_says(folder)
        print(f"{wheel.name}: {len(imported)} modules imported from an empty environment")


def install_as_the_tutorial_says(folder: Path) -> None:
    """Its first commands, in what the sdist holds; its programs are run by other tests."""
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        top = archive.getnames()[0].partition("/")[0]
        archive.extractall(folder)
    (folder / top).rename(folder / "app-net")
    session = next(block.text for block in blocks("docs/tutorial.rst") if block.kind == "console")
    commands = [line[2:] for line in session.splitlines() if line.startswith("$ ")]
    assert "pip install" in commands[-1], commands
    # It has the extra, and is not the checkout but what was installed from it.
    commands += ["cd ..", "python3 -m net secret", "python3 -c 'import net; print(net.__file__)'"]
    printed = run("bash", "-ec", "\n".join(commands), cwd=folder)
    assert str(folder / "app-net" / ".venv") in printed.splitlines()[-1], printed


def check_contents(wheel: Path) -> None:
    """The wheel holds every file of net, and no other package."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "net").rglob("*.py")}
    expected = sources | {"net/py.typed"}
    assert names == expected, f"missing or too many: {sorted(names ^ expected)}"


def modules_of_checkout() -> set[str]:
    """The dotted names of all modules that the checkout has."""
    found = set()
    for path in (ROOT / "net").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed; show it if the command fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
