"""Fixtures of all tests: no leaks, free ports, second processes."""
from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import os
import signal
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Iterator

import pytest

from leaks import Snapshot
from ports import PortRange
from processes import PeerProcess
from times import patience

ROOT = Path(__file__).resolve().parent.parent

# A bare clone has its tests beside net and may have it installed nowhere.
if find_spec("net") is None:
    sys.path.insert(0, str(ROOT))

# Before anything imports net: nothing that a test does may leave this host, and no setting of
# the developer's own changes a result. The peer of the test process has a range of its own,
# too. (tests/lan starts its processes in network namespaces, with their own environment.)
for _name in [name for name in os.environ if name.startswith("NET_")]:
    del os.environ[_name]
# The options of this run are not meant for the runs that a test starts.
os.environ.pop("PYTEST_ADDOPTS", None)
_session_range = PortRange()
os.environ["NET_HOST"] = "127.0.0.1"
os.environ["NET_PORT_START"] = str(_session_range.ports.start)

# A shell starts what runs in the background with Ctrl-C ignored, and every process that a test
# starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import net  # noqa: E402
from net.link import authority  # noqa: E402
from net.process import process  # noqa: E402


# Seconds that one test may take, unless its own mark says otherwise.
os.environ.setdefault("PYTEST_TIMEOUT", str(patience(20)))


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(_session_range.close)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all of tests/lan its marker, so that none of it runs by default, and refuse unit tests
    that are marked as flaky. Other tests that are known to fail now and then have that mark, with
    the reason beside it."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder == "lan":
            item.add_marker(pytest.mark.lan)
        if folder == "unit" and item.get_closest_marker("flaky"):
            raise pytest.UsageError(f"{item.nodeid}: a unit test is never run a second time")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why a test that is marked as flaky was run a second time."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed at first: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through the thousands of tests again and again."""
    if hasattr(gc, "freeze"):  # PyPy has none
        if "hypothesis" in sys.modules:
            _run_a_property()
        gc.collect()
        gc.freeze()


def _run_a_property() -> None:
    """Hypothesis makes with the first property what it keeps for all of them. It asks the garbage
    collector then what holds that, and learns of nothing if the holder is frozen already."""
    from hypothesis import given, strategies

    @given(strategies.none())
    def holds(nothing: None) -> None:
        pass
    holds()


@pytest.fixture(scope="session")
def session_peer():
    """The one peer of the test process, launched."""
    return net.Peer()


@pytest.fixture(scope="session", autouse=True)
def derived_once() -> Iterator[None]:
    """Derive the key of each secret once in this process; it takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(authority, "hashlib", SimpleNamespace(
            pbkdf2_hmac=functools.lru_cache(maxsize=None)(hashlib.pbkdf2_hmac)))
        yield


@pytest.fixture(autouse=True)
def no_leaks(session_peer) -> Iterator[None]:
    """Fail a test that leaves a thread, a socket or a process.

    The peer is up before, and fixtures of a wider scope belong to what was there. Connections
    that the pool keeps for the next call are closed first: keeping them is its job.
    """
    before = Snapshot()
    yield
    _close_pooled_connections()
    _end_coroutines()
    left = before.leaks()
    if left:
        pytest.fail("this test leaves behind:\n" + "\n".join(left), pytrace=False)


def _close_pooled_connections() -> None:
    # Only those that wait in the pool: an open connection outside it is a leak.
    for pool in process.client._pools.values():
        pool.close_old(float("inf"))
        # What was learned of the peer at a port is wrong for the next test that is given it.
        pool.reset()


def _end_coroutines() -> None:
    """End the loop of started calls, if the test has used it; the next one starts another."""
    if process._coroutines is None:
        return
    loop, own = process._coroutines._loop, process.client.own_loop
    pools = None if own is None else process.client.by_loop.get(own)
    if loop is not None and pools is not None:
        loop.call_soon_threadsafe(pools.close)
    process._coroutines.close()


@pytest.fixture
def port_range() -> Iterator[range]:
    """Six free consecutive ports of this test's own, e.g. for NET_PORT_START."""
    held = PortRange()
    yield held.ports
    held.close()


@pytest.fixture
def peer_process(port_range: range, tmp_path: Path) -> Iterator[Callable[..., PeerProcess]]:
    """Start a second Python process that runs an application: ``peer_process(script)``.

    Its peer is up when the call returns; PeerProcess says what can be done with it. Keyword
    arguments are environment variables (``NET_GROUP="a"``); the port range is the test's, so
    several processes of one test are neighbours. All are ended with the test, and what they
    wrote to their standard error is shown when it fails.
    """
    numbers = itertools.count()
    with ExitStack() as started:

        def start(script: str = "", **settings: object) -> PeerProcess:
            folder = tmp_path / f"process{next(numbers)}"
            folder.mkdir()
            settings.setdefault("NET_PORT_START", port_range.start)
            process = PeerProcess(script, folder, settings)
            started.callback(_stop, process)
            return process

        yield start


def _stop(process: PeerProcess) -> None:
    process.stop()
    if process.errors():
        print(f"--- standard error of process {process.pid}", file=sys.stderr)
        print(process.errors(), file=sys.stderr)
