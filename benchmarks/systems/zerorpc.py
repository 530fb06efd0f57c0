"""zerorpc: msgpack over ZeroMQ, with gevent."""
from __future__ import annotations

import socket
from typing import Any, Callable

from .base import HOST, Calls, System


class Service:
    def multiply(self, a: int, b: int) -> int:
        return a * b

    def echo(self, value: Any) -> Any:
        return value


def serve(ready: Callable[[int], None]) -> None:
    import zerorpc

    # It can't bind to port 0 and say which one it got.
    with socket.create_server((HOST, 0)) as chosen:
        port = chosen.getsockname()[1]
    # Without heartbeat=None a value that takes seconds to decode counts as a lost peer.
    server = zerorpc.Server(Service(), heartbeat=None)
    server.bind(f"tcp://{HOST}:{port}")
    ready(port)
    server.run()


def connect(port: int) -> Calls:
    import zerorpc

    client = zerorpc.Client(f"tcp://{HOST}:{port}", timeout=120, heartbeat=None)
    return Calls(client.multiply, client.echo, client.close)


SYSTEMS = (System("zerorpc", "zerorpc", "zerorpc", serve, connect, "zerorpc"),)
