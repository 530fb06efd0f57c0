"""app-net: open, with a secret, over TCP only, as to other hosts, and with the extra fast."""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import sys
import threading
from typing import Any, Callable, Optional

from ..payloads import Reading
from .base import HOST, Calls, System, installed

SECRET = "not a secret: for benchmarks only"


def prepare(fast: bool = False) -> None:
    """Settings of this process, given as a user would: in the environment, before the import.

    :param fast: whether the extra of that name may be used; by default it is as if not installed.
    """
    if not fast:
        sys.modules["msgspec"] = None  # type: ignore[assignment]
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


def serve(ready: Callable[[int], None], fast: bool = False) -> None:
    prepare(fast)
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401  arrays arrive where the application has loaded it
    decorated()
    import net

    ready(net.Peer().port)
    threading.Event().wait()


def connect(port: int, fast: bool = False) -> Calls:
    if "NET_PORT_START" not in os.environ:
        prepare(fast)
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
class Needing(System):
    """The same functions, in a form that needs another package."""

    needs: str = ""

    def missing(self) -> Optional[str]:
        return None if installed(self.needs) else f"{self.needs} is not installed"


def with_settings(settings: dict[str, str], function: Callable[[Any], Any], argument: Any) -> Any:
    os.environ.update(settings)
    return function(argument)


def set_on_both(settings: dict[str, str]) -> tuple[Any, Any]:
    """The functions that serve and connect, with settings in the environment."""
    return (functools.partial(with_settings, settings, serve),
            functools.partial(with_settings, settings, connect))


SYSTEMS = (
    System("app-net", "app-net", "net", serve, connect, "app-net", shared=True, hold=hold),
    System("app-net-tcp", "app-net over TCP", "net", *set_on_both({"NET_UNIX": "no"}), "app-net",
           shared=True, works=frozenset(("small", "text", "bytes", "array"))),
    Needing("app-net-fast", "app-net with the extra fast", "net",
            functools.partial(serve, fast=True), functools.partial(connect, fast=True), "app-net",
            shared=True, works=frozenset(("rows", "typed")), needs="msgspec"),
    Needing("app-net-secret", "app-net with a secret", "net", *set_on_both({"NET_SECRET": SECRET}),
            "app-net", shared=True, hold=hold, needs="cryptography"),
    Needing("app-net-secret-tcp", "app-net with a secret over TCP", "net",
            *set_on_both({"NET_SECRET": SECRET, "NET_UNIX": "no"}), "app-net", shared=True,
            hold=hold, works=frozenset(("small", "text", "bytes", "array", "brief")),
            needs="cryptography"),
)
