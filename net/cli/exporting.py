"""``app-net metrics``: the statistics of peers for Prometheus."""
from __future__ import annotations

import argparse
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Type

from .. import metrics
from ..errors import NetError
from ..identity import PeerId
from .choosing import NO_PEERS, PEER_HELP, peers_of
from .looking import ask_at_once, ask_statistics
from .screen import Failed, Screen, error_facts
from .words import AS_JSON, EACH_CALL, MORE

# Seconds that a client has to send its request and to take each piece of the reply.
CLIENT_SECONDS = 10.0


class Metrics:
    """statistics of peers as OpenMetrics text, once or at a port"""

    json, timeout = AS_JSON, EACH_CALL
    takes = ("peer", MORE)
    more = "Without PEER, those of all peers that are found."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("peer", metavar="PEER", nargs="*", default=[], help=PEER_HELP)
        parser.add_argument("--port", type=_port, help="serve http://HOST:PORT/metrics until "
                                                       "Ctrl-C; 0 for any free port")
        parser.add_argument("--host", default="127.0.0.1",
                            help="address to serve at (127.0.0.1: for this host alone)")

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        if options.port is None:
            told = ask(options.peer)
            if screen.json:
                screen.put_json([_facts(str(peer), facts) for peer, facts in told.items()])
            else:
                screen.write(as_text(told).rstrip("\n"))
            missing = [peer for peer, facts in told.items() if isinstance(facts, NetError)]
            if missing or not told:
                screen.say_error(Failed(
                    f"no answer from {', '.join(map(str, missing))}" if told else NO_PEERS))
            return 1 if missing or not told else 0
        return _serve(options, screen)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port")
    return int(text)


def ask(words: List[str]) -> Dict[PeerId, Any]:
    """The statistics of the peers that these words mean, or of all peers without words; the
    NetError of those that do not answer."""
    peers: List[PeerId] = []
    for word in words or [None]:  # type: ignore[list-item]
        try:
            peers += peers_of(word)
        except Failed:
            if words:
                raise
    return dict(ask_at_once(ask_statistics, peers)) if peers else {}


def _facts(peer: str, told: Any) -> Dict[str, Any]:
    """The same of one peer, for scripts."""
    if isinstance(told, NetError):
        return {"peer": peer, "up": False, "error": error_facts(told)}
    return {"peer": peer, "up": True, **told}


def as_text(told: Dict[PeerId, Any]) -> str:
    """The metrics of peers; ``net_up 0`` for those that do not answer."""
    up = [f'net_up{{peer="{peer}"}} {0 if isinstance(facts, NetError) else 1}'
          for peer, facts in told.items()]
    found = {str(peer): facts for peer, facts in told.items() if not isinstance(facts, NetError)}
    return "\n".join(["# TYPE net_up gauge", "# HELP net_up Whether the peer answers.", *up,
                      metrics.openmetrics(found)])


def _handler(words: List[str]) -> Type[BaseHTTPRequestHandler]:
    """The class that answers requests for the metrics of peers."""
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "there is /metrics")
                return
            try:
                text = as_text(ask(words)).encode()
            except (NetError, Failed) as problem:
                self.send_error(503, type(problem).__name__, str(problem))
                return
            self.send_response(200)
            self.send_header("Content-Type", metrics.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            """Log nothing: there is a request every few seconds."""

    return Handler


def _serve(options: argparse.Namespace, screen: Screen) -> int:
    try:
        server = ThreadingHTTPServer((options.host, options.port), _handler(options.peer))
    except OSError as problem:
        raise Failed(f"cannot serve at {options.host}:{options.port}: {problem}") from None
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    url = f"http://{options.host}:{server.server_port}/metrics"
    try:
        # A program that reads it may end this at once.
        if screen.json:
            screen.put_json({"url": url})
        else:
            screen.say(f"metrics at {url}; Ctrl-C ends it")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0
