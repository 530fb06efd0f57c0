"""What the benchmarks know about a system: how it serves two functions and how it calls them."""
from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Callable, NamedTuple, Optional

HOST = "127.0.0.1"


def installed(module: str) -> bool:
    """Whether a module can be imported, found out without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Calls(NamedTuple):
    """The two functions that every system serves, as a caller holds them."""

    multiply: Callable[[int, int], int]
    echo: Callable[[Any], Any]
    close: Callable[[], None]


@dataclass(frozen=True)
class System:
    """One way to call a function in another process.

    ``serve(ready)`` runs in the server's process: it listens on a port of its own choice, calls
    ``ready(port)`` and serves until the process ends. ``connect(port)`` runs in the client's
    process and opens a new connection.
    """

    name: str
    label: str
    module: str
    serve: Callable[[Callable[[int], None]], None]
    connect: Callable[[int], Calls]
    #: The distribution whose version is reported; ``None`` for the standard library.
    distribution: Optional[str] = None
    #: Whether its own documentation has the threads of a process share one client. Otherwise each
    #: thread connects for itself.
    shared: bool = False
    #: Opens one more connection, where ``connect`` hands out a client that has its own pool.
    hold: Optional[Callable[[int], Calls]] = None
    #: The works that it takes part in, by name; ``None`` for all.
    works: Optional[frozenset[str]] = None

    def missing(self) -> Optional[str]:
        """Why this system can't be measured here, or ``None`` when it can."""
        return None if installed(self.module) else f"{self.module} is not installed"

    def does(self, work: str) -> bool:
        """Whether it takes part in a work."""
        return self.works is None or work in self.works

    def version(self) -> Optional[str]:
        """The installed version, or ``None`` for the standard library and for a bare checkout."""
        try:
            return metadata.version(self.distribution) if self.distribution else None
        except metadata.PackageNotFoundError:
            return None


def multiply(a: int, b: int) -> int:
    return a * b


def echo(value: Any) -> Any:
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {"multiply": multiply, "echo": echo}
