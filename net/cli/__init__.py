"""The program ``app-net``, also started as ``python3 -m net``. Its commands ask peers; only
``demo``, ``listen``, ``announce``, ``serve`` and ``doctor PEER`` are peers themselves.

What a command was asked for goes to stdout, all else to stderr. The exit code is 0 for success,
1 for failure or nothing found, 2 for bad usage, 130 after Ctrl-C.
"""
from __future__ import annotations

import argparse
import io
import os
import sys
from typing import Any, Dict, List, NoReturn, Optional

from ..errors import InvalidPeer, NetError, SettingError
from ..identity import printable
from ..interrupts import catch
from ..peer import VERSION
from ..settings import settings
from ..tables import folded
from . import calling, completing, exporting, looking, routing, serving, telling, top
from .screen import Failed, Screen, Usage, filled, print_all, width
from .words import seconds

#: Name -> command. The docstring is its help, ``arguments`` says what it takes, ``run`` runs it;
#: ``json`` and ``timeout`` say what these options do, and are None where they would do nothing.
#: ``takes`` says what its words are, for a shell to complete, if that is known (see ``words``).
COMMANDS: Dict[str, Any] = {
    "demo": telling.Demo,
    "serve": serving.Serve,
    "peers": looking.Peers,
    "functions": looking.Functions,
    "call": calling.Call,
    "listen": telling.Listen,
    "announce": telling.Announce,
    "ping": looking.Ping,
    "stats": looking.Stats,
    "top": top.Top,
    "metrics": exporting.Metrics,
    "router": routing.Router,
    "doctor": looking.Doctor,
    "secret": telling.NewSecret,
    "completion": completing.Completion,
}


def _program() -> str:
    """How this was started: by the script that is installed with the package, or as a module."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return "app-net" if name.startswith("app-net") else "python3 -m net"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose text fits the terminal, with examples in lines of their own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return filled(text, width)

    def _format_usage(self, *args: Any) -> str:
        # argparse leaves some lines longer; which ones depends on the version of Python.
        return folded(super()._format_usage(*args), self._width, " " * 6)


class _Parser(argparse.ArgumentParser):
    """The parser of one command, which takes options wherever they stand."""

    def __init__(self, name: str, command: Any) -> None:
        super().__init__(prog=f"{_program()} {name}", description=command.__doc__,
                         epilog=getattr(command, "more", None),
                         formatter_class=_Help)
        self.color = False  # Python 3.14 has its own; there is one rule for all that is said
        command.arguments(self)
        if command.json is not None:
            self.add_argument("--json", action="store_true", help=command.json)
        if command.timeout is not None:
            self.add_argument("--timeout", type=seconds, metavar="SECONDS", help=command.timeout)
        self.screen = Screen(False)

    def print_help(self, file: Any = None) -> None:
        if file is not None:
            super().print_help(file)
        else:
            print_all(self.format_help())  # argparse would pass over an error

    def error(self, message: str) -> NoReturn:
        if not self.screen.json:
            self.print_usage(sys.stderr)
        self.screen.say_error(Usage(f"{self.prog}: {message}"))
        self.exit(2)


# This command completes the words of all others.
completing.Completion.commands, completing.Completion.parser = COMMANDS, _Parser


def usage(columns: int) -> str:
    """The commands, an item each."""
    longest = max(map(len, COMMANDS))
    lines = [f"  {name:{longest}}  {command.__doc__}" for name, command in COMMANDS.items()]
    text = [f"usage: {_program()} [--json] [--timeout SECONDS] COMMAND ...", "", *lines, "",
            f"{_program()} COMMAND --help says more, {_program()} --version which app-net this is."]
    return filled("\n".join(text), columns)


def program() -> int:
    """Run :func:`main` as the program of this process.

    :returns: the exit code.
    """
    return catch(main)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command.

    :param arguments: its words; None for those of this process.
    :returns: the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is no reason to end
            stream.reconfigure(errors="backslashreplace")
    given = _command_first(sys.argv[1:] if arguments is None else list(arguments))
    screen = Screen("--json" in given)
    try:
        try:
            return _obey(given, screen)
        finally:
            print_all("")  # such as what a module that is served has printed
    except BrokenPipeError:  # the reader of our output has closed it
        return 0
    except Failed as problem:
        screen.say_error(problem)
        return 1


def _obey(given: List[str], screen: Screen) -> int:
    if given[:1] in ([], ["-h"], ["--help"], ["help"]):
        if given:
            screen.put(usage(width(sys.stdout)))
            return 0
        screen.say(usage(width(sys.stderr)))
        return 2
    if given[0] in ("-V", "--version"):
        screen.put(f"app-net {VERSION}")
        return 0
    command = COMMANDS.get(given[0])
    if command is None:
        screen.say_error(Usage(f"unknown command {printable(given[0])!r}"))
        if not screen.json:
            screen.say(f"\n{usage(width(sys.stderr))}")
        return 2
    if given[:3] in (["completion", "words", "--"], ["completion", "line", "--"]):
        # What follows may be any words, options too.
        return _run(command, argparse.Namespace(shell=given[1], word=given[3:]), Screen(False))
    parser = _Parser(given[0], command)
    parser.screen = screen
    options = parser.parse_intermixed_args(given[1:])
    screen.json = getattr(options, "json", False)  # behind -- it is an argument
    return _run(command, options, screen)


def _command_first(given: List[str]) -> List[str]:
    """The words, with options that stood before the command moved behind it."""
    place = 0
    while place < len(given) and given[place].startswith("--") \
            and given[place].partition("=")[0] in ("--json", "--timeout"):
        place += 2 if given[place] == "--timeout" else 1
    if place >= len(given):
        return given[place:]
    return [given[place], *given[:place], *given[place + 1:]]


def _run(command: Any, options: argparse.Namespace, screen: Screen) -> int:
    # A command asks; it does not take a port from an application.
    settings.set("launch", False)
    try:
        if getattr(options, "timeout", None) is not None:
            settings.set("timeout", options.timeout)
        done: int = command.run(options, screen)
        return done
    except KeyboardInterrupt:
        return 130
    except (NetError, Failed, Usage) as problem:
        screen.say_error(problem)
        return 2 if isinstance(problem, (Usage, InvalidPeer, SettingError)) else 1
