"""Logging that cannot raise and cannot flood, and warnings that name the right line."""
from __future__ import annotations

import logging
import sys
import threading
import warnings
from time import monotonic
from typing import Any, Dict, List, Optional

from .forking import forks

# Seconds between two lines of one kind.
INTERVAL = 10.0
# Kinds of lines that are remembered. Kinds come from what the application registers, never from
# other peers.
MAX_KINDS = 1024

#: The root of app-net's loggers.
ROOT = "net"
#: Functions that failed when peers called them.
CALLS = "net.calls"
#: Connections: refused, overdue and broken ones.
CONNECTIONS = "net.connections"
#: Events and their handlers.
EVENTS = "net.events"
#: Searches, announcements and watches.
DISCOVERY = "net.discovery"


def warn(text: str) -> None:
    """Warn at the line of the application that led here."""
    package = __name__.partition(".")[0]
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=level)
    except ValueError:
        pass  # sys.stderr is closed


class LastResort(logging.Handler):
    """Shows errors on ``sys.stderr`` where the application has configured no logging, as Python
    does for loggers that have no handler; warnings and less stay silent then."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        if logging.lastResort is not None and not _is_configured(record.name):
            logging.lastResort.handle(record)


def _is_configured(name: str) -> bool:
    logger: Optional[logging.Logger] = logging.getLogger(name)
    while logger is not None:
        if any(not isinstance(handler, LastResort) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class SafeLog:
    """The logger of a module. A handler that raises, as on a full disk, changes nothing for the
    caller, which may be a thread that everything depends on."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __call__(self, level: int, text: str, *values: Any, exc_info: Any = False) -> None:
        """Write a line, as ``logging.Logger.log`` does."""
        try:
            self._logger.log(level, text, *values, exc_info=exc_info, stacklevel=2)
        except KeyboardInterrupt:
            raise  # it is not about the line
        except BaseException:
            # There is nowhere to report it. A value may raise anything when it is made into text,
            # SystemExit included, which would end the thread.
            pass


class RateLimitedLog:
    """Writes at most one line of each kind, or a few, in ten seconds; the next one says how many
    were left out.

    Any thread may call. Each module makes its own, for the life of the process.

    :param burst: lines of each kind in ten seconds.
    """

    def __init__(self, logger: logging.Logger, burst: int = 1) -> None:
        self._log = SafeLog(logger.name)
        self._burst = burst
        self._begin()
        forks.in_child.append(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards _kinds
        # text -> [when its seconds began, lines since, left out since]
        self._kinds: Dict[str, List[float]] = {}

    def __call__(self, level: int, text: str, *values: Any, kind_of: str = "",
                 exc_info: Any = None) -> None:
        """Write a line.

        :param text: the kind, with places for the values as in logging.
        :param kind_of: tells kinds of one text apart.
        :param exc_info: an exception that goes with it; from ERROR on, by default, the one that is
            being handled.
        """
        now = monotonic()
        with self._lock:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            kind = self._kinds.setdefault(text + kind_of, [now - INTERVAL, 0, 0])
            left_out = 0
            if now - kind[0] >= INTERVAL:
                left_out = int(kind[2])
                kind[:] = now, 0, 0
            kind[1] += 1
            if kind[1] > self._burst:
                kind[2] += 1
                return
        more = f" ({left_out} more like this before)" if left_out else ""
        self._log(level, text + "%s", *values, more,
                  exc_info=level >= logging.ERROR if exc_info is None else exc_info)
