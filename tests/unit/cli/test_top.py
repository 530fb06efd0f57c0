"""The keys of ``app-net top``."""
from __future__ import annotations

import os
from typing import Iterator, Tuple

import pytest

pytest.importorskip("termios", reason="Windows has its own way")
from net.cli.top import PosixKeys  # noqa: E402


@pytest.fixture
def keys() -> Iterator[Tuple[PosixKeys, int]]:
    ours, theirs = os.pipe()
    yield PosixKeys(ours), theirs
    os.close(ours)
    try:
        os.close(theirs)
    except OSError:
        pass


def test_keys_that_come_together_are_given_one_by_one(keys):
    read, terminal = keys
    os.write(terminal, b"k\x1b[B\x1bOAx\x1b\x1b\n")
    assert [read(5) for _ in range(6)] == ["k", "\x1b[B", "\x1bOA", "x", "\x1b\x1b", "\n"]
    assert read(0) is None


def test_a_terminal_that_has_gone_ends_it(keys):
    read, terminal = keys
    os.close(terminal)
    assert read(5) == "x"
