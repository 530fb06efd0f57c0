"""Importing net is quiet and quick; nothing says that it has tested where it has not."""
from __future__ import annotations

import ast
import json
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator

import pytest

from processes import run_python

ROOT = Path(__file__).resolve().parents[2]

# What net may take on top of the standard modules it needs, for one of what these take.
IMPORT_LIMIT = 1.6

QUIET = """
import json, logging, os, socket, sys, threading
import uuid  # PyPy's own starts uname when it is imported

events = []
watched = ("socket.", "subprocess.", "os.system", "os.posix_spawn", "os.fork", "os.putenv")
sys.addaudithook(lambda event, arguments: event.startswith(watched) and events.append(event))
variables = dict(os.environ)
descriptors = os.listdir("/dev/fd")

import net

loggers = [logging.getLogger()] + [
    logging.getLogger(name) for name in list(logging.root.manager.loggerDict)
]
print(json.dumps({
    "events": events,
    "threads": [thread.name for thread in threading.enumerate()],
    "descriptors": len(os.listdir("/dev/fd")) - len(descriptors),
    "environment": dict(os.environ) == variables,
    "handlers": [type(handler).__name__ for logger in loggers for handler in logger.handlers],
    "loudness": sum(logger.level for logger in loggers if logger.name.startswith("net")),
    "ifaddr": "ifaddr" in sys.modules,
}))
"""


def test_importing_net_is_quiet():
    done = run_python("-W", "error", "-c", QUIET)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "events": [],
        "threads": ["MainThread"],
        "descriptors": 0,
        "environment": True,
        "handlers": ["LastResort"],
        "loudness": 0,
        "ifaddr": False,
    }


NEEDED = """
import json, sys
before = set(sys.modules)
import net
print(json.dumps([
    name for name in sys.modules if name not in before and name.split(".")[0] != "net"
]))
"""

TIMED = """
import importlib, json, sys, time
# Time of the processor: what else the machine does counts less than by the clock on the wall.
start = time.process_time()
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError:  # made by another module, not found by its name
        pass
needed = time.process_time() - start
start = time.process_time()
import net
print((time.process_time() - start) / needed)
"""


def test_importing_net_costs_little_more_than_the_standard_modules_it_needs():
    needed = run_python("-c", NEEDED).stdout
    strangers = [
        name for name in json.loads(needed) if name.split(".")[0] not in standard_modules()
    ]
    assert not strangers

    # The best of a few: other work on the machine can only add. Stops at the first good one.
    assert min(_until_below(IMPORT_LIMIT, needed)) < IMPORT_LIMIT


LATER = """
import sys
before = set(sys.modules)
import net
later = {"net.discovery", "net.events", "net.run.server", "net.statistics", "_hashlib"}
print(sorted(later & sys.modules.keys() - before))
"""


def test_importing_net_loads_none_of_what_only_a_peer_needs():
    assert run_python("-c", LATER).stdout == "[]\n"


FAULTS = """
import resource
import net

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take():
    blocks = [b"x" * 300_000 for _ in range(4)]

take()
before = faults()
for _ in range(20):
    take()
print((faults() - before) * resource.getpagesize() / (20 * 4 * 300_000))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="its memory is not glibc's")
def test_memory_of_messages_is_kept_for_the_next_ones():
    # The share of it that has to be fetched again from the system.
    assert float(run_python("-c", FAULTS).stdout) < 0.5


SERVED = """
import pathlib, sys, threading
import net

@net.connect
def echo(value):
    return value

late = []
sys.addaudithook(lambda event, arguments: event == "import" and late.append(
    (threading.current_thread().name, arguments[0])))
place = net.Peer().host, net.Peer().port
for value in (pathlib.PurePath("a"), {"!": (1, 2)}, [1.5] * 100_000, "x" * 100_000):
    assert echo(value, peer=place) == value
for ask in (net.info, net.connections, net.describe, net.stats):
    ask(peer=place)
print([name for thread, name in late if thread.startswith("net-")])
"""


def test_no_thread_of_a_peer_loads_what_it_needs_to_serve(port_range):
    # A fork would have to wait for that.
    done = run_python("-c", SERVED, NET_PORT_START=port_range.start)
    assert done.stdout == "[]\n"


def _until_below(limit: float, needed: str) -> Iterator[float]:
    for _attempt in range(6):
        ratio = float(run_python("-c", TIMED, needed, PYTHONDONTWRITEBYTECODE=None).stdout)
        yield ratio
        if ratio < limit:
            return


def standard_modules() -> frozenset[str]:
    """The top-level names of the standard library."""
    known = getattr(sys, "stdlib_module_names", None)  # Python 3.10
    if known is not None:
        return frozenset(known) | {"_missing_stdlib_info"}  # of Python 3.15, which leaves it out
    folder = Path(ast.__file__).parent
    files = [*folder.iterdir(), *folder.glob("lib-dynload/*")]
    return frozenset(sys.builtin_module_names) | {path.name.split(".")[0] for path in files}


def test_setup_py_runs_no_tests_and_says_what_does():
    done = subprocess.run([sys.executable, ROOT / "setup.py", "test"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 1 and "python3 tests/run.py" in done.stdout


def test_a_mistake_in_net_host_raises_before_anything_is_sent_or_resolved():
    code = """
import sys
sys.addaudithook(lambda event, arguments: event.startswith("socket.") and print(event))
import net
for use in (net.peers, net.Peer, lambda: net.connect(lambda: 1), lambda: net.null(peer="a:1")):
    try:
        use()
    except net.SettingError as error:
        print(error)
"""
    lines = run_python("-c", code, NET_HOST="127.0.0.l").stdout.splitlines()
    assert lines == ["NET_HOST must be a numeric address, localhost or a network interface of this "
                     "host, not '127.0.0.l'"] * 4


LARGE = """
import sys
import net
from net.wire.values import pack, unpack

small, large = pack([1] * 100, "it"), [1] * 10_000
assert unpack(small.text.encode()) == [1] * 100 and "msgspec" not in sys.modules
assert unpack(pack(large, "it").text.encode()) == large and "msgspec" in sys.modules
"""


@pytest.mark.skipif(find_spec("msgspec") is None, reason="needs msgspec")
def test_only_what_is_large_loads_msgspec():
    run_python("-c", LARGE)


SEARCH = """
import sys, net
net.null()
from net.discovery import search
loaded = set()
class Clock(search.Searching):
    def __init__(self, *what):
        super().__init__(*what)
        loaded.update(sys.modules)
search.Searching = Clock
net.peers()
late = {name for name in set(sys.modules) - loaded if name.startswith("net.discovery.lan")}
print(sorted(late))
"""


def test_all_that_a_search_needs_is_loaded_before_its_clock_runs():
    # On a busy machine loading takes seconds, of which a search has four.
    assert run_python("-c", SEARCH).stdout.strip() == "[]"


def test_what_a_coroutine_needs_is_loaded_when_it_is_connected():
    """Its first call may find no descriptor to load it, and Python does not load the rest later."""
    done = run_python("-c", """
import sys
import net
print("asyncio" in sys.modules)
@net.connect("later")
async def later():
    pass
print({"asyncio", "net.executors"} <= set(sys.modules))
""")
    assert done.stdout.split() == ["False", "True"]
