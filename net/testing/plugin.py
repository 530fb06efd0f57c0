"""The plugin for pytest, which pytest loads by itself where app-net is installed."""
from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Callable, Iterator, List, Mapping, Optional

import pytest

# Says which process has chosen NET_PORT_START, and its choice. A process that inherits both, as
# each worker of pytest-xdist does, chooses a range of its own.
CHOSEN = "PYTEST_NET_PORT_START"


def pytest_load_initial_conftests(early_config: Any) -> None:
    """Before a conftest.py may import the application, which launches the peer of the tests."""
    _keep_alone(early_config)


def pytest_configure(config: Any) -> None:
    """The same, where a test module has asked for this plugin: there is no earlier moment then."""
    _keep_alone(config)


def _keep_alone(config: Any) -> None:
    """Keep the tests on this host, and their own peer away from others there, unless the
    environment says where they belong."""
    os.environ.setdefault("NET_HOST", "127.0.0.1")
    if _is_said():
        return
    from . import PORTS, free_ports

    held = ExitStack()
    start = str(held.enter_context(free_ports(PORTS)))
    ours = {"NET_PORT_START": start, CHOSEN: f"{start} by {os.getpid()}"}
    held.callback(_set, {name: os.environ.get(name) for name in ours})
    _set(ours)
    config.add_cleanup(held.close)


def _is_said() -> bool:
    """Whether the environment says which ports the peer of this process has."""
    start = os.environ.get("NET_PORT_START")
    if start is None:
        return "NET_PORT" in os.environ
    chosen, by, process = os.environ.get(CHOSEN, "").partition(" by ")
    return not by or chosen != start or process == str(os.getpid())


def _set(values: Mapping[str, Optional[str]]) -> None:
    """Set variables of the environment; None removes one."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def net_peers() -> Iterator[Callable[..., List[Any]]]:
    """Start peers that end with the test: ``a, b = net_peers(2, app="studio")``. The arguments are
    those of :func:`net.testing.peers`, which can be used once in a test."""
    from . import peers

    with ExitStack() as stack:
        yield lambda *args, **values: stack.enter_context(peers(*args, **values))
