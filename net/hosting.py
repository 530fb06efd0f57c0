"""Which process is the peer where a web server or a reloader loads an application in several.

Only modules that are loaded are checked, so a process without such a server pays for a look-up or
two.
"""
from __future__ import annotations

import os
import sys
from typing import Any, List, Mapping, NamedTuple, Optional

# Servers that run an application in children of multiprocessing.
WEB_SERVERS = ("uvicorn", "hypercorn", "granian")
#: Variable by which a reloader marks the process that it restarts for each change. The process that
# starts it has loaded the application, too, and keeps its old code.
RELOADED = {"WERKZEUG_RUN_MAIN": "werkzeug", "RUN_MAIN": "django"}
#: Variable by which a process tells its children that it serves a peer.
PARENT = "APP_NET_PARENT"

_ONE_OF_SEVERAL = (
    "this process is one of several workers of {server}, and none of them serves a peer by itself. "
    "net.Peer() at the start of the application launches one in each worker; see 'Web servers and "
    "reloaders' in the documentation")
_LOADER = (
    "{server} has loaded the application in a process that handles no requests, so no peer is "
    "launched there. net.Peer() {hook} launches one in each worker; see 'Web servers and "
    "reloaders' in the documentation")


def why_not_here() -> Optional[str]:
    """Why a decorated function does not launch the peer in this process; None if it does.

    :returns: the text of a warning; empty where there is nothing to warn of.
    """
    process = _multiprocessing_child()
    if process is not None:
        return _why_not_in_child(process)
    if "gunicorn.arbiter" in sys.modules and _is_preloading(_callers()):
        return _LOADER.format(server="gunicorn --preload", hook="in the hook post_fork")
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None and getattr(uwsgi, "worker_id", lambda: 1)() == 0:
        return _LOADER.format(server="uWSGI", hook="in a function with @uwsgidecorators.postfork")
    return None


def _multiprocessing_child() -> Any:
    """The process object of a child of multiprocessing, None elsewhere."""
    module = sys.modules.get("multiprocessing.process")
    if module is None:
        return None
    process = module.current_process()
    # While a spawned child loads the main module it does not know its parent yet, and a fork
    # server, which loads it too, never does.
    return process if module.parent_process() is not None \
        or getattr(process, "_inheriting", False) else None


def _why_not_in_child(process: Any) -> Optional[str]:
    """A child loads the main module again, and each worker would take a port. Only the single
    worker of a web server is the application itself."""
    server = str(getattr(getattr(process, "_target", None), "__module__", "")).partition(".")[0]
    if server not in WEB_SERVERS:
        return ""
    config = getattr(process, "_kwargs", {}).get("config")
    if getattr(config, "reload", False) or getattr(config, "workers", None) == 1:
        return None
    return _ONE_OF_SEVERAL.format(server=server)


def _callers() -> List[str]:
    frame, names = sys._getframe(1), []
    while frame is not None:
        names.append(str(frame.f_globals.get("__name__", "")))
        frame = frame.f_back  # type: ignore[assignment]
    return names


def _is_preloading(callers: List[str]) -> bool:
    # A worker is forked by the arbiter, which therefore is among its callers, too.
    return "gunicorn.arbiter" in callers \
        and not any(name.startswith("gunicorn.workers.") for name in callers)


class Parent(NamedTuple):
    """A process that serves a peer and has started this one."""

    port: int
    token: str


def announce_to_children(port: int, environment: Any = os.environ) -> Optional[str]:
    """Tell a process that a reloader starts about this one's peer.

    :returns: the token that such a process will give; None where there is no reloader.
    """
    if not any(name in sys.modules for name in RELOADED.values()):
        return None
    token = os.urandom(16).hex()
    environment[PARENT] = f"{os.getpid()} {port} {token}"
    return token


def stale_parent(environment: Mapping[str, str] = os.environ) -> Optional[Parent]:
    """The peer of the process that started this one, if that is a reloader's: it runs old code.
    None otherwise."""
    if not any(environment.get(name) == "true" for name in RELOADED):
        return None
    words = environment.get(PARENT, "").split()
    if len(words) != 3 or words[0] != str(os.getppid()) or not words[1].isdecimal():
        return None
    return Parent(int(words[1]), words[2])


def is_token(given: object, token: str) -> bool:
    """Whether a child gives the token that was announced to it."""
    from hmac import compare_digest  # loads OpenSSL, as every reloader does

    return isinstance(given, str) and compare_digest(given.encode(), token.encode())
