"""Servers that leave and come back while calls go on: each call ran once or not at all, and its
caller knows."""
from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import Any, Dict, Iterator

import pytest

import net
from net.dispatch import Dispatch
from net.identity import make_tag
from net.link import local
from net.link.base import listen_in_range
from net.link.tcp import TcpCarrier
from net.run.client import Client
from net.run.loop import Loop
from net.run.server import Server
from net.settings import settings
from loops import end_timers
from service import until
from times import patience

TAG = make_tag("unit", "run")
CALLERS, TIMES = 4, 5


class Comings:
    """A server at one address that leaves in order, and comes back.

    :ivar ran: how many times it has run the call of each number.
    """

    def __init__(self, ports: range) -> None:
        self.ran: Counter[int] = Counter()
        self._dispatch = Dispatch({TAG: self._run})
        self._ports = ports[:1]
        self.come_back()
        self.address = self._server.address

    def _run(self, number: int) -> int:
        self.ran[number] += 1
        time.sleep(number % 3 / 1000)  # some calls run when it leaves, others come just then
        return number

    def come_back(self) -> None:
        listener = listen_in_range(TcpCarrier(), "127.0.0.1", self._ports, settings.backlog, False)
        beside = local.listen(listener.endpoint.address, settings.backlog)
        self._server = Server(self._dispatch, [listener] if beside is None else [listener, beside],
                              Loop("net-test"), settings, "leaves")

    def leave(self) -> None:
        self._server.drain(patience(10))
        assert not self._server.connections
        self._server.close()


@pytest.fixture(params=["unix", "tcp", "tls"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How calls reach the server."""
    if request.param == "unix" and sys.platform != "linux":
        pytest.skip("no abstract Unix sockets here")
    monkeypatch.setitem(vars(settings), "unix", request.param == "unix")
    if request.param == "tls":
        pytest.importorskip("cryptography")
        net.configure(secret="a secret of the unit tests")
    yield request.param
    if request.param == "tls":
        net.configure(secret=None)


def test_calls_to_a_server_that_leaves_again_and_again_run_once_or_not_at_all(way, port_range):
    server, client = Comings(port_range), Client(settings, Loop("net-test"))
    outcomes: Dict[int, Any] = {}
    stop = threading.Event()

    def call_on(number: int) -> None:
        while not stop.is_set():
            number += CALLERS
            timeout = patience(20) if number % 2 else None
            try:
                outcomes[number] = client.call(server.address, TAG, (number,), {}, timeout)
            except net.NetError as problem:
                outcomes[number] = problem

    def replies() -> int:
        return sum(type(one) is int for one in list(outcomes.values()))

    callers = [threading.Thread(target=call_on, args=(number,)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(TIMES):
            before = replies()
            until(lambda: replies() >= before + 20)
            server.leave()
            server.come_back()
    finally:
        stop.set()
        for caller in callers:
            caller.join()
        server.leave()
        client.close_idle()
        end_timers(client._loop)
    wrong = [(number, outcome, server.ran[number]) for number, outcome in outcomes.items()
             if (outcome, server.ran[number]) != (number, 1)
             and (getattr(outcome, "ran", ""), server.ran[number]) != ("no", 0)]
    assert not wrong and replies()
