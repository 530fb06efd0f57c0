"""A short soak; soak.py runs for as long as one likes, and the stress environment longer."""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
assert _spec and _spec.loader
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

SECRET = "correct horse battery"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
    # It kills and freezes processes at random, and one that gets no turn looks frozen.
    pytest.mark.flaky(reruns=1)]


def check(folder: Path, seconds: float, secret: str) -> None:
    done = soak.soak(folder, seconds, secret)
    print(done.figures)
    assert done.problems == []
    assert done.outcomes["right"] > 20 * seconds


@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "secret"])
@pytest.mark.timeout(60)
def test_some_seconds_of_kills_under_load_leave_no_trace(tmp_path: Path, secret: str):
    check(tmp_path, 3, secret)


@pytest.mark.stress
@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "secret"])
def test_minutes_of_kills_under_load_leave_no_trace(tmp_path: Path, secret: str):
    check(tmp_path, 150, secret)
