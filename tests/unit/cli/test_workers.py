"""The process that supervises those of ``app-net serve --workers``, without starting any."""
from __future__ import annotations

import signal
import sys
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from net.cli import workers
from net.cli.screen import Screen
from signals import interrupt_everywhere

OPTIONS = SimpleNamespace(workers=1, all=False, reload=False, json=False, timeout=None,
                          module=["x"])


class Process:
    """A process that runs until it has been sent a number of signals."""

    def __init__(self, signals: int = 1) -> None:
        self.signals = signals
        self.sent: list[int] = []

    @property
    def runs(self) -> bool:
        return len(self.sent) < self.signals

    def look(self, screen: Screen) -> int:
        return 0

    def signal(self, number: int) -> None:
        self.sent.append(number)

    def end(self) -> None:
        pass


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces already")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_whatever_moment_it_comes(monkeypatch, number):
    monkeypatch.setattr(workers, "LOOK", 0.001)
    monkeypatch.setattr(workers, "_Worker", lambda command: Process())
    interrupt_everywhere(lambda: workers.run(OPTIONS, Screen(True)), number, 150)


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent a Ctrl-C")
def test_a_second_interrupt_is_passed_on_and_a_second_sigterm_is_not():
    told: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        told.put(number)
    process = Process(2)
    workers._end([process], told)
    assert process.sent == [signal.SIGTERM, signal.SIGINT]
