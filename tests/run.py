"""Run the tests on a machine that has Python 3.9 or newer and nothing else.

    python3 tests/run.py                  the default tox environments
    python3 tests/run.py -e flake8        one of them; all arguments go to tox
    python3 tests/run.py list             what there is

Makes a virtual environment under .tox, installs tox into it, and runs tox from there.
Uses the standard library only.
"""
from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# 4.11 is the oldest that reads our tox.ini; the installer takes the newest for this Python.
TOX = "tox>=4.11,<5"

NO_ENVIRONMENT = """\
This Python cannot make virtual environments: {python}
Install what it lacks and run this again:
    Debian, Ubuntu     apt-get install python3-venv
    with pip           python3 -m pip install virtualenv
"""


def main() -> int:
    if sys.version_info < (3, 9):
        print("app-net needs Python 3.9 or newer; this is", sys.version.split()[0])
        return 2
    folder = environment_folder()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not succeeds([python, "-c", "import tox"]):
        if not make_environment(folder):
            print(NO_ENVIRONMENT.format(python=sys.executable), file=sys.stderr)
            return 2
        if subprocess.call([str(python), "-m", "pip", "install", "--quiet", TOX]):
            print(f"could not install {TOX}", file=sys.stderr)
            return 2
    tox = [str(python), "-m", "tox", "--root", str(ROOT), "-c", str(ROOT / "tox.ini")]
    try:
        return subprocess.call(with_command(tox, sys.argv[1:]))
    except KeyboardInterrupt:  # tox has received it as well, and cleaned up
        return 130


def with_command(tox: list[str], arguments: list[str]) -> list[str]:
    """Tox wants the name of its command, if there is one, before the options."""
    if arguments and not arguments[0].startswith("-"):
        return tox[:3] + arguments[:1] + tox[3:] + arguments[1:]
    return tox[:3] + ["run"] + tox[3:] + arguments


def environment_folder() -> Path:
    """Where this interpreter's environment with tox is; it is made at the first run."""
    version = "{}.{}".format(*sys.version_info)
    return ROOT / ".tox" / f"bootstrap-{sys.implementation.name}-{version}"


def make_environment(folder: Path) -> bool:
    """Make a virtual environment; False where nothing on this machine can."""
    # Debian splits ensurepip off into python3-venv; without it venv fails half-way.
    if find_spec("ensurepip") and succeeds([sys.executable, "-m", "venv", "--clear", folder]):
        return True
    if succeeds([sys.executable, "-m", "virtualenv", "--clear", folder]):
        return True
    # Into a folder of our own: the user's installation stays as it is.
    tools = folder.with_name("virtualenv")
    if not succeeds([sys.executable, "-m", "pip", "install", "--target", tools, "virtualenv"]):
        return False
    return succeeds([sys.executable, "-m", "virtualenv", "--clear", folder], PYTHONPATH=tools)


def succeeds(command: list[str | Path], **variables: str | Path) -> bool:
    """Whether a command exists and ends well; it prints nothing."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
