"""The machine on which a run was made, and how busy it was."""
from __future__ import annotations

import os
import pathlib
import platform
import time
from typing import Any, Optional

from .systems import SYSTEMS


def describe() -> dict[str, Any]:
    """Facts that a reader needs to compare two runs."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            system.distribution: system.version()
            for system in SYSTEMS.values() if system.distribution and not system.missing()
        },
    }


def processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def load() -> Optional[list[float]]:
    """Processes that wanted a core during the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def a_core() -> Optional[int]:
    """The core for what is pinned: the last one, as the first has most interrupts."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
