"""app-net, open and with a secret."""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import threading
from typing import Any, Callable, Optional

from ..payloads import Reading
from .base import HOST, Calls, System

SECRET = "not a secret: for benchmarks only"


def prepare() -> None:
    """Settings of this process, given as a user would: in the environment, before the import."""
    with socket.create_server((HOST, 0)) as chosen:
        port = chosen.getsockname()[1]
    os.environ.update(
        NET_HOST=HOST,
        NET_PORT_START=str(port),
        NET_PORT_RANGE="0",
        NET_MAX_CONNECTIONS="4096",  # a thousand are held open in one of the works
    )


@functools.lru_cache(maxsize=None)
def decorated() -> Calls:
    """The functions as the application's own module would define them, on both sides."""
    import net

    net.value(Reading)

    @net.connect("multiply")
    def multiply(a: int, b: int) -> int:
        return a * b

    @net.connect("echo")
    def echo(value: Any) -> Any:
        return value

    return Calls(multiply, echo, lambda: None)


def serve(ready: Callable[[int], None]) -> None:
    prepare()
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401  arrays arrive where the application has loaded it
    decorated()
    import net

    ready(net.Peer().port)
    threading.Event().wait()


def connect(port: int) -> Calls:
    if "NET_PORT_START" not in os.environ:
        prepare()
    functions = decorated()
    import net
    from net.process import process

    peer = net.Peer().generate_id(port, HOST)
    return Calls(
        functools.partial(functions.multiply, peer=peer),
        functools.partial(functions.echo, peer=peer),
        process.client.forget,
    )


def hold(port: int) -> Calls:
    """One more connection; calls one after the other would all take the same from the pool."""
    from net.process import process
    from net.wire.messages import decode_reply, encode_call

    connection = process.client.connect((HOST, port), 10)
    assert connection is not None

    def multiply(a: int, b: int) -> int:
        frame = connection.exchange(encode_call(1, decorated().multiply.tag, (a, b), {}), 1, None)
        return decode_reply(frame, connection.address, None, b"")

    return Calls(multiply, lambda value: None, connection.close)


@dataclasses.dataclass(frozen=True)
class Secured(System):
    """The same functions, with ``NET_SECRET`` set on both sides."""

    def missing(self) -> Optional[str]:
        from net.settings import TABLE

        if "secret" not in TABLE:
            return "this version of app-net has no NET_SECRET"
        try:
            import cryptography  # noqa: F401
        except ImportError:
            return "cryptography is not installed"
        return None


def with_secret(function: Callable[[Any], Any], argument: Any) -> Any:
    os.environ["NET_SECRET"] = SECRET
    return function(argument)


SYSTEMS = (
    System("app-net", "app-net", "net", serve, connect, "app-net", shared=True, hold=hold),
    Secured(
        "app-net-secret", "app-net with a secret", "net",
        functools.partial(with_secret, serve), functools.partial(with_secret, connect),
        "app-net", shared=True, hold=hold,
    ),
)
