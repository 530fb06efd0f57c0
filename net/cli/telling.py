"""The commands demo, secret, listen and announce."""
from __future__ import annotations

import argparse

from ..settings import settings
from .calling import arguments_of
from .choosing import PEER_HELP, peers_of
from .screen import Screen, as_json
from .words import AS_JSON, EACH_CALL, MORE, seconds


class Demo:
    """two Python processes call each other's functions"""

    json, timeout = AS_JSON, EACH_CALL

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Nothing."""

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from .. import demo

        return demo.tell(screen)


class NewSecret:
    """print a new secret for NET_SECRET"""

    json, timeout = AS_JSON, None  # it calls nobody

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Nothing."""

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        import secrets

        # 256 bits. It is never typed: it goes into a file or an environment.
        made = secrets.token_urlsafe(32)
        screen.put(as_json({"secret": made}) if screen.json else made)
        return 0


class Listen:
    """print the events of a name as they come, until Ctrl-C"""

    json = AS_JSON
    timeout = "end when no event has come for this long; exit code 1 if there was none at all"
    takes = ("", "peer", MORE)

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("event", metavar="EVENT", help="name of the event")
        parser.add_argument("peer", metavar="PEER", nargs="*", default=[],
                            help=f"{PEER_HELP}; without it all peers, also those that come later")
        parser.add_argument("--group", action="append",
                            help="only of peers of this group; several times for several groups. "
                                 "Without it peers of all groups are heard, also those without one")
        parser.add_argument("--on-host", action="store_true", help="only of peers on this host")
        parser.add_argument("--hubs", action="store_true", help="only of hubs")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from . import listening

        peers = [str(peer) for word in options.peer for peer in peers_of(word)]
        settings.set("launch", True)
        return listening.listen(screen, options.event, peers or None, options.group,
                                options.hubs, options.on_host, options.timeout)


class Announce:
    """send an event to its subscribers"""

    json, timeout = AS_JSON, "for the subscribers to take it (2)"
    more = """\
Arguments are those of call: JSON or Python literals, name=value, - for standard
input. Programs that hear all peers find this one and subscribe; the event is
sent once one has subscribed and no other has for half a second. The exit code
is 0 if a subscriber took it."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("event", metavar="EVENT", help="name of the event")
        parser.add_argument("argument", metavar="ARG", nargs="*", default=[],
                            help="an argument of it")
        parser.add_argument("--wait", type=seconds, metavar="SECONDS", default=3.0,
                            help="for a subscriber, at most (3)")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from . import announcing

        args, kwargs = arguments_of(options.argument)
        settings.set("launch", True)
        return announcing.announce(screen, options.event, args, kwargs, options.wait,
                                   options.timeout)
