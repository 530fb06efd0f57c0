"""Check the two programs beside this file with mypy: the one has no mistakes, and in the other
each line that is marked as a mistake is found, and no other. Run by ``tox -e types``.
"""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def found_in(name: str) -> dict[int, str]:
    """Line -> what mypy says about it."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent",
         "--no-error-summary",
         str(HERE / name)],
        cwd=HERE.parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stdout)
    lines = re.findall(rf"{name}:(\d+): error: (.*)", done.stdout)
    if bool(lines) != bool(done.returncode):
        sys.exit(done.stdout)
    return {int(line): text for line, text in lines}


def marked_in(name: str) -> set[int]:
    """The lines that are marked as a mistake."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# mistake")}


def main() -> None:
    wrong = [f"program.py:{line}: {text}" for line, text in found_in("program.py").items()]
    found, marked = found_in("mistakes.py"), marked_in("mistakes.py")
    wrong += [f"mistakes.py:{line}: not marked: {found[line]}" for line in found.keys() - marked]
    wrong += [f"mistakes.py:{line}: not found" for line in sorted(marked - found.keys())]
    if wrong or not marked:
        sys.exit("\n".join(wrong))
    print(f"mypy finds no mistake in program.py, and all {len(marked)} in mistakes.py")


if __name__ == "__main__":
    main()
