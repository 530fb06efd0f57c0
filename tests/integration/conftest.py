"""Second processes that run the application of tests/support/sample.py."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from ports import PortRange
from processes import PeerProcess

SAMPLE = "from sample import *\n"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerProcess]:
    """A second process with the sample application, for tests that leave it as it is."""
    held = PortRange()
    folder: Path = tmp_path_factory.mktemp("other")
    process = PeerProcess(SAMPLE, folder, {"NET_PORT_START": held.ports.start})
    yield process
    process.stop()
    held.close()


@pytest.fixture
def sample_process(peer_process: Callable[..., PeerProcess]) -> Callable[..., PeerProcess]:
    """Start a process with the sample application that is the test's own."""

    def start(script: str = "", **settings: object) -> PeerProcess:
        return peer_process(SAMPLE + script, **settings)

    return start
