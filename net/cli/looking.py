"""The commands that look at peers: peers, doctor."""
from __future__ import annotations

import argparse
from typing import Any, Dict

from ..identity import PeerId
from .screen import BOLD, Screen


def facts_of(peer: PeerId) -> Dict[str, Any]:
    """What is known of a peer, for scripts."""
    return {**peer.info, "address": str(peer), "id": bytes(peer).decode("ascii"),
            "host": peer.host, "port": peer.port, "group": peer.group, "hub": peer.hub}


class Peers:
    """the peers on this host and on the LAN, as a table"""

    has_json = True

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("group", nargs="*", help="only peers of these groups")
        parser.add_argument("--on-host", action="store_true", help="only those on this host")
        parser.add_argument("--hubs", action="store_true", help="only hubs")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from .. import discovery

        found = discovery.peers(True, options.group or None, options.on_host, options.hubs)
        if screen.json:
            screen.put_json([facts_of(peer) for peer in found])
        elif found:
            titles, *rows = found.table(screen.width).split("\n")
            screen.write(titles, BOLD)
            screen.write("\n".join(rows))
        else:
            screen.say("no peers; the command doctor says why")
        return 0 if found else 1


class Doctor:
    """search for peers, and say what keeps them from being found"""

    has_json = True

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Nothing."""

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        from .. import discovery
        from ..discovery import doctor

        found = discovery.peers(refresh=True)
        case = doctor.examine(found)
        if screen.json:
            screen.put_json({"peers": [facts_of(peer) for peer in found],
                             "causes": [cause._asdict() for cause in doctor.causes(case)],
                             "report": str(case.report)})
        else:
            screen.write(found.table(screen.width) if found else "no peers")
            screen.write("\n" + doctor.describe(case, screen.width))
        return 0 if found else 1
