"""Second processes: with the application of tests/support/sample.py, and any program."""
from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from ports import PortRange
from processes import PeerProcess, environment

SAMPLE = "from sample import *\n"
FORMS = "from forms import *\n"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerProcess]:
    """A second process with the sample application, for tests that leave it as it is."""
    held = PortRange()
    folder: Path = tmp_path_factory.mktemp("other")
    process = PeerProcess(SAMPLE, folder, {"NET_PORT_START": held.ports.start})
    yield process
    process.stop()
    held.close()


@pytest.fixture(scope="session")
def hops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[List[PeerProcess]]:
    """Three processes with the application of forms.py, for tests that leave them as they are."""
    held = PortRange()
    started = [PeerProcess(FORMS, tmp_path_factory.mktemp("hop"),
                           {"NET_PORT_START": held.ports.start}) for _ in range(3)]
    yield started
    for process in started:
        process.stop()
    held.close()


@pytest.fixture(scope="session")
def far(hops: List[PeerProcess]) -> PeerProcess:
    """One of the processes of ``hops``."""
    return hops[0]


@pytest.fixture
def key() -> str:
    """A key of the test's own, under which forms.py notes what happens in it."""
    return uuid.uuid4().hex


@pytest.fixture
def forms_process(peer_process: Callable[..., PeerProcess]) -> Callable[..., PeerProcess]:
    """Start a process of the test's own, with the application of forms.py."""

    def start(script: str = "", **settings: object) -> PeerProcess:
        return peer_process(FORMS + script, **settings)

    return start


@pytest.fixture
def sample_process(peer_process: Callable[..., PeerProcess]) -> Callable[..., PeerProcess]:
    """Start a process of the test's own, with the sample application."""

    def start(script: str = "", **settings: object) -> PeerProcess:
        return peer_process(SAMPLE + script, **settings)

    return start


@pytest.fixture
def program(port_range: range) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start Python with pipes: ``program("-m", "net", "listen", "done")`` gives its process, which
    ends with the test. Keyword arguments are environment variables, and ``cwd``."""
    started: List["subprocess.Popen[str]"] = []

    def start(*arguments: str, cwd: Any = None, **settings: object) -> "subprocess.Popen[str]":
        settings.setdefault("NET_PORT_START", port_range.start)
        started.append(subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, text=True, env=environment(**settings),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
