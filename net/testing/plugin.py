"""The plugin for pytest, which has it by itself where app-net is installed."""
from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Callable, Iterator, List

import pytest


def pytest_load_initial_conftests(early_config: Any) -> None:
    """Before a conftest.py may import the application, which launches the peer of the tests."""
    _keep_alone(early_config)


def pytest_configure(config: Any) -> None:
    """Where a test module has asked for this plugin, there is no earlier moment."""
    _keep_alone(config)


def _keep_alone(config: Any) -> None:
    """Keep the tests on this host, and their own peer away from others there, unless somebody has
    said where they belong."""
    os.environ.setdefault("NET_HOST", "127.0.0.1")
    if not os.environ.keys() & {"NET_PORT", "NET_PORT_START"}:
        from . import PORTS, free_ports

        held = ExitStack()
        os.environ["NET_PORT_START"] = str(held.enter_context(free_ports(PORTS)))
        held.callback(os.environ.pop, "NET_PORT_START", None)
        config.add_cleanup(held.close)


@pytest.fixture
def net_peers() -> Iterator[Callable[..., List[Any]]]:
    """Start peers that end with the test: ``a, b = net_peers(2, app="studio")``. The arguments are
    those of :func:`net.testing.peers`, which can be used once in a test."""
    from . import peers

    with ExitStack() as stack:
        yield lambda *args, **values: stack.enter_context(peers(*args, **values))
