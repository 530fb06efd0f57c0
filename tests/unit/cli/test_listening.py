"""How ``app-net listen`` ends."""
from __future__ import annotations

import queue

from net.cli import listening
from net.cli.screen import Screen


def test_it_ends_when_nothing_has_come_for_so_long(capsys):
    lines: queue.Queue = queue.Queue()
    assert listening._print(lines, Screen(False), 0.01) == 1
    lines.put(("a line", {}))
    assert listening._print(lines, Screen(False), 0.01) == 0
    assert capsys.readouterr().out == "a line\n"
