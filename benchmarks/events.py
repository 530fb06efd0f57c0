"""Event fan-out: one publisher, several subscribing processes, the same small event."""
from __future__ import annotations

import json
import threading
import time
from typing import Any, Callable, NamedTuple

from .systems import app_net
from .systems.base import HOST, installed

Heard = Callable[[int], None]


class EventSystem(NamedTuple):
    """One way to tell other processes something.

    ``publisher()`` returns a port and the function that publishes a number.
    ``subscriber(port, heard)`` subscribes and has ``heard(number)`` called for each event.
    """

    name: str
    label: str
    module: str
    publisher: Callable[[], tuple[int, Callable[[int], Any]]]
    subscriber: Callable[[int, Heard], Any]
    #: Whether the order is kept. Where it isn't, it is enough that all arrive.
    ordered: bool = True

    def missing(self) -> str | None:
        return None if installed(self.module) else f"{self.module} is not installed"


# ---- app-net


def publish_app_net() -> tuple[int, Callable[[int], Any]]:
    app_net.prepare()
    import net

    @net.event("benchmark")
    def publish(number: int) -> Any:
        return (number,), {}

    return net.Peer().port, publish


def subscribe_app_net(port: int, heard: Heard) -> None:
    app_net.prepare()
    import net

    net.subscribe("benchmark", net.Peer().generate_id(port, HOST))(heard)


# ---- ZeroMQ PUB/SUB


def publish_zeromq() -> tuple[int, Callable[[int], Any]]:
    import zmq

    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 0)  # by default it drops what a subscriber is too slow for
    port = socket.bind_to_random_port(f"tcp://{HOST}")

    def publish(number: int) -> None:
        socket.send_multipart([b"benchmark", json.dumps({"args": [number]}).encode()])

    return port, publish


def subscribe_zeromq(port: int, heard: Heard) -> None:
    import zmq

    def listen() -> None:
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"benchmark")
        socket.connect(f"tcp://{HOST}:{port}")
        while True:
            _, body = socket.recv_multipart()
            heard(*json.loads(body)["args"])

    threading.Thread(target=listen, daemon=True).start()


# ---- Pyro5: callback objects with one-way methods, called one after the other; each call runs in
# a thread of its own over there, so that the order is lost


def publish_pyro() -> tuple[int, Callable[[int], Any]]:
    import Pyro5.api

    uris: list[str] = []
    proxies: list[Any] = []

    @Pyro5.api.expose
    class Publisher:
        def subscribe(self, uri: str) -> None:
            uris.append(uri)

    def publish(number: int) -> None:
        while len(proxies) < len(uris):  # a proxy belongs to the thread that made it
            proxies.append(Pyro5.api.Proxy(uris[len(proxies)]))
        for proxy in proxies:
            proxy.heard(number)

    daemon = Pyro5.api.Daemon(host=HOST)
    daemon.register(Publisher(), "publisher")
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    return int(daemon.locationStr.rpartition(":")[2]), publish


def subscribe_pyro(port: int, heard: Heard) -> None:
    import Pyro5.api

    @Pyro5.api.expose
    class Subscriber:
        @Pyro5.api.oneway
        def heard(self, number: int) -> None:
            heard(number)

    daemon = Pyro5.api.Daemon(host=HOST)
    uri = daemon.register(Subscriber())
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    with Pyro5.api.Proxy(f"PYRO:publisher@{HOST}:{port}") as publisher:
        publisher.subscribe(str(uri))


SYSTEMS = {
    system.name: system
    for system in (
        EventSystem("app-net", "app-net", "net.events", publish_app_net, subscribe_app_net),
        EventSystem("zeromq", "ZeroMQ PUB/SUB + JSON", "zmq", publish_zeromq, subscribe_zeromq),
        EventSystem("pyro", "Pyro5, one-way callbacks", "Pyro5", publish_pyro, subscribe_pyro,
                    ordered=False),
    )
}


class Publisher:
    """What the publishing process does when asked."""

    def __init__(self, system: EventSystem) -> None:
        self.port, self._publish = system.publisher()

    def greet(self) -> float:
        """Publish the number 0, by which a subscriber learns that it is subscribed."""
        self._publish(0)
        return 0.0

    def publish(self, count: int) -> list[float]:
        """When the first was published (monotonic), and the seconds until all were handed over."""
        began = time.monotonic()
        for number in range(1, count + 1):
            self._publish(number)
        return [began, time.monotonic() - began]


class Subscriber:
    """What a subscribing process does when asked. Numbers must arrive whole and in order."""

    def __init__(self, system: EventSystem, port: int) -> None:
        self._greeted = threading.Event()
        self._finished = threading.Event()
        self._expected = self._count = 0
        self._when = 0.0
        self._ordered = system.ordered
        self._lock = threading.Lock()  # guards _count: Pyro5 calls from a thread for each event
        system.subscriber(port, self._heard)

    def _heard(self, number: int) -> None:
        if number == 0:
            self._greeted.set()
        elif number == self._count + 1 or not self._ordered:
            with self._lock:
                self._count += 1
                finished = self._count == self._expected
            if finished:
                self._when = time.monotonic()
                self._finished.set()

    def greeted(self, seconds: float) -> bool:
        return self._greeted.wait(seconds)

    def expect(self, count: int) -> int:
        self._count, self._expected = 0, count
        self._finished.clear()
        return count

    def finished(self, seconds: float) -> float:
        """When the last event arrived (monotonic)."""
        if not self._finished.wait(seconds):
            order = "in order" if self._ordered else ""
            raise TimeoutError(f"heard {self._count} of {self._expected} {order}")
        return self._when
