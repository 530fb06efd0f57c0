"""What this process does at old publishers, which are fake ones."""
from __future__ import annotations

from typing import Any

import pytest

from net.events.old import OldPublishers, Visit
from net.identity import make_id, make_tag
from net.wire.legacy import CONNECTIONS, INFO, SUBSCRIBE

HERE = ("127.0.0.1", 3010)


class Publisher:
    """An old program, and the client that calls it.

    :ivar subscribed: events that this process has subscribed to, by calls.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.subscribed: list[str] = []
        self.calls: list[bytes] = []
        self.start(1)

    def start(self, place: int) -> None:
        """Be a new process, whose functions lie elsewhere in memory."""
        self.place = place
        self.known: list[str] = []

    def call(self, address: Any, tag: bytes, args: Any, kwargs: Any, timeout: float) -> Any:
        self.calls.append(tag)
        if tag == INFO:
            facts = {"host": address[0], "port": address[1], "group": "None", "hub": False}
            if self.version != "0.3":
                facts["executable"] = "python"
            if self.version == "0.6":
                facts["subscriptions"] = list(self.known)
            return facts
        if tag == CONNECTIONS:
            assert self.version == "0.4", "another one prints an error on its console"
            return f"b'aW5mbw=='\n\t\t<function info at 0x7f{self.place:04x}>\n\n"
        assert tag == SUBSCRIBE
        self.known.append(args[0])
        self.subscribed.append(args[0])
        return True


class Hears:
    """A handler of every peer."""

    def __init__(self, event: str) -> None:
        self.pair = (event, make_tag("app", "hear"))

    def accepts(self, facts: Any) -> bool:
        return True


@pytest.mark.parametrize("version, again", [("0.3", 0), ("0.4", 2), ("0.6", 2)])
def test_a_publisher_that_was_started_anew_between_two_looks_is_subscribed_to_again(
        version: str, again: int) -> None:
    publisher, subscribed = Publisher(version), set()
    ours: Any = OldPublishers(publisher, None, {},  # type: ignore[arg-type]
                              lambda pair: None, lambda tag: True)

    def visit() -> None:
        ours._subscribe(Visit(HERE, make_id(3011, "127.0.0.1"), [Hears("a"), Hears("b")],
                              subscribed, lambda problem: None))

    visit()
    visit()
    assert publisher.subscribed == ["a", "b"]
    publisher.start(2)
    visit()
    visit()
    assert publisher.subscribed == ["a", "b", "a", "b"][:2 + again]
    assert set(ours._connections) == {mark for mark in ours._marks.values()}
