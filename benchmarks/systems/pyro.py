"""Pyro5 with its default serializer (serpent) and with msgpack."""
from __future__ import annotations

import functools
from typing import Any, Callable

from .base import HOST, Calls, System


def configure() -> None:
    import Pyro5.api

    Pyro5.api.config.SERPENT_BYTES_REPR = True  # bytes arrive as bytes
    Pyro5.api.config.THREADPOOL_SIZE = 80  # its default, which is the number of connections


def serve(ready: Callable[[int], None]) -> None:
    import Pyro5.api

    @Pyro5.api.expose
    class Service:
        def multiply(self, a: int, b: int) -> int:
            return a * b

        def echo(self, value: Any) -> Any:
            return value

    configure()
    daemon = Pyro5.api.Daemon(host=HOST)
    daemon.register(Service, "service")
    ready(int(daemon.locationStr.rpartition(":")[2]))
    daemon.requestLoop()


def connect(serializer: str, port: int) -> Calls:
    import Pyro5.api

    configure()
    proxy = Pyro5.api.Proxy(f"PYRO:service@{HOST}:{port}")
    proxy._pyroSerializer = serializer
    proxy._pyroBind()
    return Calls(proxy.multiply, proxy.echo, proxy._pyroRelease)


SYSTEMS = (
    System("pyro-serpent", "Pyro5, serpent", "Pyro5",
           serve, functools.partial(connect, "serpent"), "Pyro5"),
    System("pyro-msgpack", "Pyro5, msgpack", "Pyro5",
           serve, functools.partial(connect, "msgpack"), "Pyro5"),
)
