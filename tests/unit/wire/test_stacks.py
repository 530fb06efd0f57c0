"""How much stack a thread has."""
from __future__ import annotations

import sys
import threading

from net.wire import stacks


def test_where_the_system_does_not_tell_what_was_set_counts(monkeypatch):
    def fail() -> int:
        raise OSError

    monkeypatch.setattr(stacks, "_ask_system", fail)
    assert stacks._size_of_stack() == stacks.USUAL
    before = threading.stack_size(96 * stacks.KIB)
    try:
        assert stacks._size_of_stack() == 96 * stacks.KIB
        monkeypatch.setattr(sys, "platform", "else")
        assert stacks._size_of_stack() == 96 * stacks.KIB
    finally:
        assert threading.stack_size(before) == 96 * stacks.KIB  # to ask for it changed nothing
