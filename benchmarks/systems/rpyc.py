"""RPyC: plain values travel by value, everything else as a reference until it is obtained."""
from __future__ import annotations

from typing import Any, Callable

from .base import HOST, Calls, System

#: ``obtain`` copies lists, dicts and arrays with pickle, which both sides must allow.
CONFIG = {"allow_pickle": True, "sync_request_timeout": 120}


def serve(ready: Callable[[int], None]) -> None:
    import rpyc
    from rpyc.utils.classic import obtain
    from rpyc.utils.server import ThreadedServer

    class Service(rpyc.Service):
        def exposed_multiply(self, a: int, b: int) -> int:
            return a * b

        def exposed_echo(self, value: Any) -> Any:
            return value if isinstance(value, (str, bytes)) else obtain(value)

    server = ThreadedServer(
        Service, hostname=HOST, port=0, backlog=128, protocol_config=CONFIG
    )
    ready(server.port)
    server.start()


def connect(port: int) -> Calls:
    import rpyc
    from rpyc.utils.classic import obtain

    connection = rpyc.connect(HOST, port, config=CONFIG)
    root = connection.root

    def echo(value: Any) -> Any:
        reply = root.echo(value)
        return reply if isinstance(reply, (str, bytes)) else obtain(reply)

    return Calls(root.multiply, echo, connection.close)


SYSTEMS = (System("rpyc", "RPyC", "rpyc", serve, connect, "rpyc"),)
