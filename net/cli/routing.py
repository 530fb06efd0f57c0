"""``app-net router``: carries connections between networks."""
from __future__ import annotations

import argparse
import signal
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from ..errors import SettingError
from ..identity import printable
from ..settings import NAME_OF_ROUTER, is_loopback, is_reachable, parse_router, settings
from .screen import Failed, Screen, Usage
from .words import AS_JSON

if TYPE_CHECKING:
    from ..link.zenoh import Hub, Status

# Where it listens if nothing else is said, and on a host that keeps to itself.
EVERYWHERE, ALONE = "tls/0.0.0.0:7447", "tls/127.0.0.1:7447"
# Seconds between looks at what is connected.
LOOK = 0.5

Place = Tuple[str, str, int]


class Router:
    """carry connections between networks, for peers with NET_ENGINE=zenoh"""

    json, timeout = AS_JSON, None  # it calls nobody
    more = """\
  router                                    lets in those of the same NET_SECRET or NET_TLS_CA
  router --connect tls/other.example:7447   joins another router: two sites
  router --allow farm1 --allow farm2        lets in these certificates only

Peers need NET_ENGINE=zenoh, NET_ROUTER=tls/HOST:7447 and the same secret. What
they say to each other the router cannot read. Ctrl-C or SIGTERM ends it."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--listen", action="append", metavar="PLACE",
                            help=f"where to listen, several times for several places ({EVERYWHERE})"
                                 f"; tcp/... lets in every process that can connect")
        parser.add_argument("--connect", action="append", metavar="PLACE", default=[],
                            help="another router to join, several times for several")
        parser.add_argument("--allow", action="append", metavar="NAME", default=[],
                            help="let in nothing but certificates of this common name, several "
                                 "times for several; interface:eth1 for all that come by that "
                                 "network interface")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        default = ALONE if settings.loopback_only else EVERYWHERE
        listen = [_place(word) for word in options.listen or [default]]
        connect = [_place(word) for word in options.connect]
        _check(listen, connect)
        from ..link.zenoh import Hub

        _check_allowed(options.allow, listen + connect)
        try:
            hub = Hub(listen, connect, _security(listen + connect), options.allow)
        except OSError as problem:
            raise Failed(f"cannot listen at {_named(listen)}: {problem}") from None
        try:
            _look(hub, screen, listen)
        finally:
            hub.close()
        return 0


def _place(word: str) -> Place:
    try:
        return parse_router(word)
    except ValueError:
        raise Usage(f"{printable(word)!r} is not the place of a router, such as "
                    f"{EVERYWHERE}") from None


def _check(listen: List[Place], connect: List[Place]) -> None:
    if not all(is_reachable(protocol, host) for protocol, host, _ in connect):
        raise Usage(f"--connect {NAME_OF_ROUTER}")
    if settings.loopback_only and not all(is_loopback(place[1]) for place in listen + connect):
        raise SettingError(f"NET_HOST={settings.host} keeps this process on its own host")
    if any(place[0] == "tls" for place in listen + connect) and not settings.secured:
        raise SettingError("tls/ needs NET_SECRET or NET_SECRET_FILE (python3 -m net secret makes "
                           "one), or NET_TLS_CERT, NET_TLS_KEY and NET_TLS_CA")


def _check_allowed(allow: List[str], places: List[Place]) -> None:
    from ..link.zenoh import INTERFACE

    if not all(printable(one) == one and one.removeprefix(INTERFACE) for one in allow):
        raise Usage("--allow takes the common name of a certificate, or interface:NAME")
    if all(one.startswith(INTERFACE) for one in allow):
        return
    if settings.tls_cert is None or any(place[0] != "tls" for place in places):
        raise SettingError("--allow NAME needs NET_TLS_CERT, NET_TLS_KEY and NET_TLS_CA, and tls/ "
                           "everywhere: with a secret all certificates have the same name, and "
                           "tcp/ knows none. --allow interface:NAME works with all of them")


def _security(places: List[Place]) -> Dict[str, object]:
    if not any(place[0] == "tls" for place in places):
        return {}
    from ..link.tls import link_security

    return {**link_security("listen"), **link_security("connect")}


def _named(places: List[Place]) -> str:
    from ..link.zenoh import Router as Printed

    return ", ".join(str(Printed(*place)) for place in places)


def _look(hub: Hub, screen: Screen, listen: List[Place]) -> None:
    """Say what is connected, whenever it changes, until a signal ends it."""
    # A signal handler that sets a threading.Event would wait for ever if it interrupted the wait
    # for that.
    stop: SimpleQueue[None] = SimpleQueue()
    before = {number: signal.signal(number, lambda *_: stop.put(None))
              for number in (signal.SIGINT, signal.SIGTERM)}
    said: Optional[Status] = None
    try:
        while stop.empty():
            status = hub.status()
            if status != said:
                said = status
                _tell(status, screen, listen)
            with suppress(Empty):
                stop.get(timeout=LOOK)
                return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(status: Status, screen: Screen, listen: List[Place]) -> None:
    if screen.json:
        screen.put_json({"listen": [_named([place]) for place in listen], **status._asdict()})
        return
    processes, routers = status
    screen.say(f"router at {_named(listen)}: {processes} process{'' if processes == 1 else 'es'} "
               f"on all routers, connected to {routers} other router{'' if routers == 1 else 's'}")
