"""The commands that look at peers: peers, functions, ping, stats, doctor."""
from __future__ import annotations

import argparse
from time import monotonic, perf_counter, sleep
from typing import Any, Callable, Dict, Iterator, List, Tuple

from .. import statistics
from ..errors import InvalidConnection, NetError, TooFewPeers, printable
from ..identity import PeerId
from ..objects import remote
from ..settings import settings
from ..tables import Column
from .choosing import NO_PEERS, PEER_HELP, full_name, peers_of, search
from .screen import BOLD, RED, Failed, Screen, error_facts, safe
from .words import AS_JSON, EACH_CALL, MORE, count

DESCRIBE = remote("net.defaults.handlers.describe")
NULL = remote("net.defaults.handlers.null")
STATS = remote("net.statistics.stats")

# Seconds for a peer to answer what takes no time, unless --timeout or NET_TIMEOUT say otherwise.
ASK_SECONDS = 5.0
# Peers that are asked at the same time, each by a thread.
MAX_AT_ONCE = 16
# Functions of one peer that are shown: a hostile peer could go on describing without end.
MAX_FUNCTIONS = 10_000


def ask_seconds() -> float:
    """Seconds for a question."""
    return ASK_SECONDS if settings.timeout is None else settings.timeout


def ask_statistics(peer: PeerId, *parts: str) -> Dict[str, Any]:
    """The statistics of a peer, or parts of them, as :func:`net.stats` gives them.

    :raises NetError: it gives none, or does not answer.
    """
    return statistics.checked(STATS.on(str(peer), ask_seconds())(*parts), str(peer))


def facts_of(peer: PeerId) -> Dict[str, Any]:
    """What is known of a peer, for scripts."""
    return {**peer.info, "address": str(peer), "id": bytes(peer).decode("ascii"),
            "host": peer.host, "port": peer.port, "group": peer.group, "hub": peer.hub}


class Peers:
    """the peers on this host and on the LAN, as a table"""

    json, timeout = AS_JSON, "to wait for a first one where there is none"
    takes = ("group", MORE)

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("group", metavar="GROUP", nargs="*", default=[],
                            help="only peers of these groups")
        parser.add_argument("--on-host", action="store_true", help="only those on this host")
        parser.add_argument("--hubs", action="store_true", help="only hubs")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from .. import discovery

        which = {"groups": options.group or None, "on_host": options.on_host,
                 "hubs_only": options.hubs}
        found = discovery.peers(True, **which)
        if not found and options.timeout is not None:
            try:
                found = discovery.peers(**which, at_least=1, timeout=options.timeout)
            except TooFewPeers:
                pass
        if screen.json:
            screen.put_json([facts_of(peer) for peer in found])
        elif found:
            titles, *rows = found.table(screen.width).split("\n")
            screen.write(titles, BOLD)
            screen.write("\n".join(rows))
        if not found:
            screen.say_error(Failed(NO_PEERS))
        return 0 if found else 1


class Functions:
    """the functions of peers: signatures, descriptions, groups"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer", "function")
    more = "With NAME, the whole description of one function."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help=PEER_HELP)
        parser.add_argument("name", metavar="NAME", nargs="?", help="name of one function")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        peers = peers_of(options.peer)
        if options.name is not None:
            return _show_function(peers, options.name, screen)
        told, failed = _ask_all(peers, described, screen)
        if screen.json:
            screen.put_json([{"peer": str(peer), "functions": functions}
                             for peer, functions in told.items()])
        else:
            _show_functions(told, screen)
        return 0 if any(told.values()) and not failed else 1


def described(peer: PeerId) -> Dict[str, Dict[str, Any]]:
    """What a peer says about its functions, by name."""
    found: Dict[str, Dict[str, Any]] = {}
    while len(found) < MAX_FUNCTIONS:
        page = DESCRIBE.on(str(peer), ask_seconds())(after=max(found, default=""))
        page = {name: facts for name, facts in page.items() if name not in found}
        if not page:
            break
        found.update(page)
    return found


def _show_functions(told: Dict[PeerId, Dict[str, Any]], screen: Screen) -> None:
    """A table for each set of functions, under the peers that have it."""
    shown: List[Dict[str, Any]] = []
    for functions in told.values():
        if functions in shown:
            continue
        having = [str(peer) for peer, others in told.items() if others == functions]
        screen.write(("\n" if shown else "") + ", ".join(having), BOLD)
        shown.append(functions)
        if not functions:
            screen.write("no functions")
            continue
        screen.table([Column("function", 20), Column("groups", 6), Column("", 10)], [
            [name + str(facts["signature"]), ", ".join(facts["groups"] or ()), facts["doc"]]
            for name, facts in functions.items()])


def _show_function(peers: List[PeerId], name: str, screen: Screen) -> int:
    whole = full_name(name, peers) or name
    for peer in peers:
        facts = DESCRIBE.on(str(peer), ask_seconds())(whole).get(whole)
        if facts is None:
            continue
        if screen.json:
            screen.put_json({"peer": str(peer), "name": whole, **facts})
            return 0
        kind = {"coroutine": "async ", "generator": "stream ", "async": "async stream "}
        screen.write(kind.get(facts["kind"], "") + safe(whole + str(facts["signature"])), BOLD)
        if facts["groups"] is not None:
            screen.write(printable(f"for peers of the group {', '.join(facts['groups'])}"))
        screen.write(safe(f"\n{facts['doc'] or 'no description'}"), further="")
        return 0
    raise Failed(f"no peer has a function {name!r}" if len(peers) > 1 else
                 f"{peers[0]} has no function {name!r}")


class Ping:
    """call peers again and again: round trip, version, load"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer",)
    more = "The exit code is 0 if each of the peers has answered at least once."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help=PEER_HELP)
        parser.add_argument("-n", type=count, metavar="COUNT", dest="count",
                            help="times; until Ctrl-C without it")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        peers = peers_of(options.peer)
        times: Dict[PeerId, List[float]] = {peer: [] for peer in peers}
        began, done = monotonic(), 0
        try:
            while options.count is None or done < options.count:
                # The first one at once, and then one in each second.
                sleep(max(0.0, began + done - monotonic()))
                done += 1
                for peer, pong in ask_at_once(ping, peers):
                    if isinstance(pong, NetError):
                        _say_no_answer(peer, pong, screen)
                    else:
                        times[peer].append(pong["ms"])
                        _show_pong(peer, pong, screen)
        except KeyboardInterrupt:
            pass
        for peer, found in times.items():
            found.sort()
            screen.say(f"{peer}: {len(found)} of {done} answered" + (
                f", min {found[0]:.2f} ms, median {found[len(found) // 2]:.2f}, "
                f"max {found[-1]:.2f}" if found else ""))
        return 0 if all(times.values()) else 1


def ping(peer: PeerId) -> Dict[str, Any]:
    """How a peer answers: ``ms`` that the shortest call takes, its ``version``, how busy it is.

    :raises NetError: it does not answer.
    """
    address = str(peer)
    if "version" not in peer.info:
        # Also opens the connection, which is not part of a round trip.
        peer.info.update(remote("net.defaults.handlers.info").on(address, ask_seconds())())
    else:
        NULL.on(address, ask_seconds())()
    began = perf_counter()
    NULL.on(address, ask_seconds())()
    pong = {"ms": round((perf_counter() - began) * 1000, 3), "version": peer.info.get("version")}
    try:
        pong.update(ask_statistics(peer, "process")["process"])
    except InvalidConnection:
        pass  # a peer of an older version
    return pong


def _show_pong(peer: PeerId, pong: Dict[str, Any], screen: Screen) -> None:
    if screen.json:
        screen.put_json({"peer": str(peer), **pong})
        return
    parts = [f"{peer}  {pong['ms']:.2f} ms", f"app-net {pong['version']}"]
    if "calls" in pong:
        parts.append(f"calls {pong['calls']}  connections {pong['connections']}")
    if pong.get("load") is not None:
        parts.append(f"load {pong['load']}")
    screen.write(printable("  ".join(parts)))


def _say_no_answer(peer: PeerId, problem: NetError, screen: Screen) -> None:
    if screen.json:
        screen.put_json({"peer": str(peer), "error": error_facts(problem)})
    else:
        screen.say(f"{peer}  {type(problem).__name__}: {problem}", RED)


class Stats:
    """what peers have done: events, functions, how busy they are"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer",)

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help=PEER_HELP)

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        told, failed = _ask_all(peers_of(options.peer),
                                ask_statistics, screen)
        if screen.json:
            screen.put_json([{"peer": str(peer), **facts} for peer, facts in told.items()])
        else:
            for number, (peer, facts) in enumerate(told.items()):
                screen.write(("\n" if number else "") + str(peer), BOLD)
                screen.write(statistics.Stats(facts).table(screen.width))
        return 0 if told and not failed else 1


def ask_at_once(ask: Callable[[PeerId], Any], peers: List[PeerId]) -> Iterator[Tuple[PeerId, Any]]:
    """What peers say, or the NetError of each that does not, in the order of the peers."""
    from concurrent.futures import ThreadPoolExecutor

    def safely(peer: PeerId) -> Any:
        try:
            return ask(peer)
        except NetError as problem:
            return problem
    with ThreadPoolExecutor(min(len(peers), MAX_AT_ONCE), "net-ask") as executor:
        yield from zip(peers, executor.map(safely, peers))


def _ask_all(peers: List[PeerId], ask: Callable[[PeerId], Any],
             screen: Screen) -> Tuple[Dict[PeerId, Any], bool]:
    """What each peer says, and whether one has failed."""
    told = dict(ask_at_once(ask, peers))
    problems = {peer: facts for peer, facts in told.items() if isinstance(facts, NetError)}
    for peer, problem in problems.items():
        old = "it has an older app-net" if isinstance(problem, InvalidConnection) else ""
        screen.say_error(problem, peer, old)
    return {peer: facts for peer, facts in told.items() if peer not in problems}, bool(problems)


class Doctor:
    """search for peers, and say what keeps them from being found"""

    json, timeout = AS_JSON, "for each connection that is tried, there and back"
    takes = ("peer",)
    more = "With PEER, whether that peer is reached from here, and this host from there."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="?", help="host:port or a name")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        if options.peer is not None:
            from . import directions

            return directions.examine(peers_of(options.peer)[0], screen, options.timeout)
        from ..discovery import doctor

        doctor.await_engine()
        found = search()
        case = doctor.examine(found, options.timeout)
        if screen.json:
            screen.put_json({"peers": [facts_of(peer) for peer in found],
                             "causes": [cause._asdict() for cause in doctor.causes(case)],
                             "report": str(case.report)})
        else:
            screen.write(found.table(screen.width) if found else "no peers")
            screen.write("\n" + doctor.describe(case, screen.width))
        return 0 if found else 1
