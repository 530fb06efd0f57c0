"""The plugin for pytest, which has it by itself where app-net is installed."""
from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Callable, Iterator, List

import pytest


def pytest_configure(config: Any) -> None:
    """Keep the tests on this host, unless somebody has said where they belong."""
    os.environ.setdefault("NET_HOST", "127.0.0.1")


@pytest.fixture
def net_peers() -> Iterator[Callable[..., List[Any]]]:
    """Start peers that end with the test: ``a, b = net_peers(2, app="studio")``. The arguments are
    those of :func:`net.testing.peers`, which can be used once in a test."""
    from . import peers

    with ExitStack() as stack:
        yield lambda *args, **values: stack.enter_context(peers(*args, **values))
