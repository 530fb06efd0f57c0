"""How ``app-net listen`` ends."""
from __future__ import annotations

import queue

import pytest

from net.cli import listening
from net.cli.screen import Failed, Screen


def test_it_ends_when_nothing_has_come_for_that_long(capsys):
    lines: queue.Queue = queue.Queue()
    with pytest.raises(Failed, match="no event came within 0.01 s"):
        listening._print(lines, Screen(False), 0.01)
    lines.put(("a line", {}))
    assert listening._print(lines, Screen(False), 0.01) == 0
    assert capsys.readouterr().out == "a line\n"
