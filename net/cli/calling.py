"""``app-net call``: runs a function of peers from the terminal."""
from __future__ import annotations

import argparse
import ast
import json
import keyword
import queue
import sys
import threading
import warnings
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from ..errors import InvalidConnection, NetError, TooFewPeers
from ..identity import PeerId
from ..run.streaming import RemoteIterator
from .choosing import PEER_HELP, full_name, is_address, peer_at, peers_of, search
from .screen import Failed, Screen, Usage, error_facts
from .words import AS_JSON, EACH_CALL

# Items of all streams that may wait to be printed; beyond that the streams wait.
MAX_WAITING = 1000


class Call:
    """run a function on a peer, and print what it gives"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer", "function")
    more = """\
Arguments are JSON or Python literals; anything else is text. An argument that is
a hyphen (-) is read from standard input. NAME is the whole name of the function,
as the command functions shows it, or the last part of it.

  call any multiply 5 10
  call 192.0.2.7:3010 studio.render sc01 'layers=["sky", "sea"]'
  call all measure channel=3 --json
  call "workstation 7" store - < notes.txt

A stream is printed item by item. With 'any' one peer that has the function runs
it, with 'all' each of them does."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", help=PEER_HELP)
        parser.add_argument("name", metavar="NAME", help="name of the function")
        parser.add_argument("argument", metavar="ARG", nargs="*", default=[],
                            help="an argument; name=value gives it by name")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        args, kwargs = arguments_of(options.argument)
        if options.peer == "all":
            return _call_all(options.name, args, kwargs, screen)
        _show(_call_one(options.peer, options.name, args, kwargs), screen)
        return 0


def _call_one(word: str, name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    from ..objects import remote

    if word == "any":
        try:
            return remote(name).any(*args, **kwargs)
        except TooFewPeers as problem:
            whole = None if problem.__cause__ else full_name(name, list(search()))
            if whole is None:
                raise
            return remote(whole).any(*args, **kwargs)
    peer = peer_at(word) if is_address(word) else peers_of(word)[0]
    try:
        return remote(name).on(str(peer))(*args, **kwargs)
    except InvalidConnection:
        whole = full_name(name, [peer])
        if whole is None:
            raise
        return remote(whole).on(str(peer))(*args, **kwargs)


def _show(value: Any, screen: Screen) -> None:
    if isinstance(value, RemoteIterator):
        for item in value:
            screen.show(item)
    elif value is not None or screen.json:
        screen.show(value)


# ---------------------------------------------------------------- all peers


class _Said(NamedTuple):
    """What a peer has sent: a ``value``, an ``item``, an ``error``, or the ``end`` of its
    stream."""

    peer: PeerId
    kind: str
    what: Any


def _call_all(name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any], screen: Screen) -> int:
    peers, whole = _having(name)
    failed = False
    for said in _asked(peers, whole, args, kwargs):
        failed = failed or said.kind == "error"
        if screen.json:
            what = error_facts(said.what) if said.kind == "error" else said.what
            screen.put_json({"peer": str(said.peer), said.kind: what})
        elif said.kind == "error":
            screen.say_error(said.what, said.peer)
        else:
            text = screen.text_of(said.what)
            screen.write(f"{said.peer}: {text}" if "\n" not in text else f"{said.peer}:\n{text}")
    return 1 if failed else 0


def _having(name: str) -> Tuple[List[PeerId], str]:
    """The peers that have a function, and its whole name."""
    from ..objects import remote

    peers = list(remote(name).peers())
    if not peers:
        whole = full_name(name, list(search()))
        if whole is not None:
            name, peers = whole, list(remote(whole).peers())
    if not peers:
        raise Failed(f"no peer has a function {name!r}")
    return peers, name


def _asked(peers: List[PeerId], name: str, args: Tuple[Any, ...],
           kwargs: Dict[str, Any]) -> Iterator[_Said]:
    """What all of them send, as it comes."""
    said: queue.Queue[_Said] = queue.Queue(MAX_WAITING)
    for peer in peers:
        threading.Thread(target=_ask, args=(said, peer, name, args, kwargs), daemon=True,
                         name=f"net-call-{peer}").start()
    left = len(peers)
    while left:
        try:
            # With a limit, since nothing interrupts a wait without one on Windows.
            one = said.get(timeout=1.0)
        except queue.Empty:
            continue
        if one.kind == "end":
            left -= 1
        else:
            yield one


def _ask(said: queue.Queue[_Said], peer: PeerId, name: str, args: Tuple[Any, ...],
         kwargs: Dict[str, Any]) -> None:
    from ..objects import remote

    try:
        value = remote(name).on(str(peer))(*args, **kwargs)
        if isinstance(value, RemoteIterator):
            for item in value:
                said.put(_Said(peer, "item", item))
        else:
            said.put(_Said(peer, "value", value))
    except NetError as problem:
        said.put(_Said(peer, "error", problem))
    finally:
        said.put(_Said(peer, "end", None))


# ---------------------------------------------------------------- arguments


def arguments_of(words: List[str]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """The arguments that words stand for: ``args, kwargs``.

    :raises Usage: one of them cannot be read.
    """
    args: List[Any] = []
    kwargs: Dict[str, Any] = {}
    if sum(word == "-" or word.endswith("=-") for word in words) > 1:
        raise Usage("standard input can be one argument only")
    for word in words:
        name, equals, text = word.partition("=")
        if equals and name.isidentifier() and not keyword.iskeyword(name):
            if name in kwargs:
                raise Usage(f"the argument {name} is given twice")
            kwargs[name] = value_of(text)
        else:
            args.append(value_of(word))
    return tuple(args), kwargs


def value_of(word: str) -> Any:
    """The value of a word: JSON, a Python literal, or the text itself; ``-`` is standard input.

    :raises Usage: it begins like a literal, but is not one.
    """
    if word == "-":
        return _standard_input()
    known, value = _literal(word)
    if not known and word[:1] in ("[", "{", "(", '"', "'"):
        raise Usage(f"{word:.80} is neither JSON nor a Python literal; a text that begins like one "
                    f"is written within quotation marks: '\"...\"'")
    return value if known else word


def _standard_input() -> Any:
    data = sys.stdin.buffer.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    known, value = _literal(text)
    return value if known else text


def _literal(text: str) -> Tuple[bool, Any]:
    """Whether a text is JSON or a Python literal, and the value it stands for."""
    try:
        return True, json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that of an invalid escape
            return True, ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False, None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
