"""The main thread of a process that serves, without a peer."""
from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from net import serving
from each import each
from signals import interrupt_everywhere


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces already")
@each("before", [lambda: None, lambda: signal.raise_signal(signal.SIGTERM)])
def test_a_signal_ends_it_at_whatever_moment_it_comes(monkeypatch, before):
    """Also while another one is handled: what the first one holds, the second one waits for."""
    peer = SimpleNamespace(launch=lambda: None, launched=True, close=lambda grace=0.0: None)
    monkeypatch.setattr(serving, "Peer", lambda: peer)
    monkeypatch.setattr(serving, "LOOK", 0.001)
    monkeypatch.setattr(serving, "LAST_LOOK", 0.001)
    interrupt_everywhere(lambda: serving.run(0.0, before), signal.SIGTERM, 100)
