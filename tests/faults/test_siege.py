"""Some seconds of what siege.py does for as long as one likes; the stress environment does more."""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Optional

import pytest

_spec = importlib.util.spec_from_file_location("siege", Path(__file__).with_name("siege.py"))
assert _spec and _spec.loader
siege = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(siege)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def check(folder: Path, seconds: float, secret: Optional[str]) -> None:
    if secret:
        pytest.importorskip("cryptography")
    done = siege.siege(folder, seconds, secret)
    print(done.figures)
    assert done.problems == []


@pytest.mark.parametrize("secret", [None, siege.SECRET], ids=["open", "secret"])
@pytest.mark.timeout(120)
def test_honest_peers_get_all_calls_and_events_while_strangers_attack(tmp_path: Path, secret: str):
    check(tmp_path, 3, secret)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("secret", [None, siege.SECRET], ids=["open", "secret"])
def test_they_do_so_for_minutes(tmp_path: Path, secret: str):
    check(tmp_path, 150, secret)
