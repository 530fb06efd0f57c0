"""The commands behind ``app-net`` and ``python3 -m net``. None of them serves a peer, but for
``demo`` and ``listen``."""
from __future__ import annotations

import argparse
import os
import sys
from typing import Callable, Dict, List, Optional

from ..settings import settings
from ..errors import NetError
from ..identity import printable


def demo(arguments: List[str]) -> int:
    """two Python processes call each other's functions"""
    _parser("demo", demo).parse_args(arguments)
    from .. import demo as story

    return story.tell()


def peers(arguments: List[str]) -> int:
    """the peers on this host and on the LAN, as a table"""
    parser = _parser("peers", peers)
    parser.add_argument("group", nargs="*", help="only peers of these groups")
    parser.add_argument("--on-host", action="store_true", help="only those on this host")
    parser.add_argument("--hubs", action="store_true", help="only hubs")
    given = parser.parse_args(arguments)
    from .. import discovery

    print(discovery.peers(True, given.group or None, given.on_host, given.hubs))
    return 0


def doctor(arguments: List[str]) -> int:
    """search for peers, and say what keeps them from being found"""
    _parser("doctor", doctor).parse_args(arguments)
    from .. import discovery
    from ..discovery import doctor as practice

    found = discovery.peers(refresh=True)
    print(found if found else "no peers", practice.describe(practice.examine(found)), sep="\n\n")
    return 0


def listen(arguments: List[str]) -> int:
    """print the events of a name as they come, until Ctrl-C"""
    parser = _parser("listen", listen)
    parser.add_argument("event", help="name of the event")
    parser.add_argument("peer", nargs="*", help="host:port of a peer; all peers if none is given")
    parser.add_argument("--group", action="append", help="only peers of this group")
    parser.add_argument("--on-host", action="store_true", help="only peers on this host")
    parser.add_argument("--hubs", action="store_true", help="only hubs")
    given = parser.parse_args(arguments)
    from ..events import listening

    settings.set("launch", True)
    return listening.listen(given.event, given.peer or None, given.group, given.hubs, given.on_host)


def secret(arguments: List[str]) -> int:
    """print a new secret for NET_SECRET"""
    _parser("secret", secret).parse_args(arguments)
    import secrets

    # 256 bits; nobody types it, it goes into a file or an environment.
    print(secrets.token_urlsafe(32))
    return 0


#: Name -> function of the arguments after it. Its docstring is the help.
COMMANDS: Dict[str, Callable[[List[str]], int]] = {
    "demo": demo,
    "secret": secret,
    "peers": peers,
    "listen": listen,
    "doctor": doctor,
}


def _program() -> str:
    """How this was started: by the script that is installed with the package, or as a module."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return "app-net" if name.startswith("app-net") else "python3 -m net"


def _parser(name: str, command: Callable[[List[str]], int]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"{_program()} {name}", description=command.__doc__)


def usage() -> str:
    """What there is, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {_program()} COMMAND", "", *lines, "",
                      f"{_program()} COMMAND --help says more."])


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; the exit code is 0 when it worked, 1 when it did not, 2 for wrong words."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    command = COMMANDS.get(given[0])
    if command is None:
        print(f"no command {printable(given[0])!r}\n\n{usage()}", file=sys.stderr)
        return 2
    # A command asks; it does not take a port from an application.
    settings.set("launch", False)
    try:
        return command(given[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NetError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
