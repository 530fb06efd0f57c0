"""What a program pays before its first remote call: the import, and the decorator at home."""
from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Callable, Iterator

from .measure import Result, interleave
from .plan import Plan
from .processes import PROJECT, Refused, pairs
from .systems import SYSTEMS, System

#: What a program imports to make a call.
IMPORTS = {
    "app-net": "net",
    "floor": "json, socket, struct, threading",
    "connection": "multiprocessing.connection",
    "managers": "multiprocessing.managers",
    "xmlrpc": "xmlrpc.client, xmlrpc.server",
    "zeromq": "json, zmq",
    "rpyc": "rpyc",
    "pyro-serpent": "Pyro5.api",
    "zerorpc": "zerorpc",
    "grpc": "grpc",
}


def run(plan: Plan, systems: list[System]) -> Iterator[Result]:
    imports = Result("import", "Time to import", "ms")
    candidates = {
        system.name: importing(IMPORTS[system.name])
        for system in systems if system.name in IMPORTS
    }
    yield interleave(imports, candidates, plan.rounds, 1e3)
    if any(system.name == "app-net" for system in systems):
        yield own_import(plan)
        yield decorator(plan)


#: The modules that ``import net`` loads, but for its own.
LOADED = """
import sys
before = set(sys.modules)
import net
print(*[name for name in sys.modules
        if name not in before and name.partition(".")[0] != "net"], sep=", ")
"""


def own_import(plan: Plan) -> Result:
    """How much longer ``import net`` takes than importing the standard library's modules that it
    loads."""
    result = Result("import-own", "Time to import app-net, over the modules that it loads", "ms",
                    baseline=None)
    whole, loaded = importing("net"), importing(run_program(LOADED)[1])
    return interleave(result, {"app-net": lambda: whole() - loaded()}, plan.rounds, 1e3)


def importing(modules: str) -> Callable[[], float]:
    """Seconds that an import adds to an empty program."""
    return lambda: run_program(f"import {modules}")[0] - run_program("pass")[0]


def run_program(text: str) -> tuple[float, str]:
    """How long it takes, and what it prints."""
    # What is installed was compiled before; a checkout is by the first run, if that may write.
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", text], cwd=PROJECT, env=compiled,
                          capture_output=True)
    if done.returncode:
        raise Refused(done.stderr.decode(errors="replace").strip().splitlines()[-1][:120])
    return time.perf_counter() - start, done.stdout.decode()


def decorator(plan: Plan) -> Result:
    """What a local call of a decorated function costs over the bare one."""
    result = Result("local", "Local call of a decorated function, over the bare call", "ns",
                    baseline=None)
    refusals: dict[str, str] = {}
    with pairs([SYSTEMS["app-net"]], 1, plan.cpu, refusals) as started:
        candidates = {
            name: (lambda pair=pair: pair.client.ask("local", count=20 * plan.calls))
            for name, pair in started.items()
        }
        result.refusals.update(refusals)
        return interleave(result, candidates, plan.rounds, 1e9)
