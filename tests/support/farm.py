"""A small application, for the tests of the test kit."""
from __future__ import annotations

import os
import threading
import time
from typing import Any, Iterator, List

import net

rendered_here: List[str] = []


@net.connect
def render(shot: str) -> str:
    rendered_here.append(shot)
    return f"{shot} rendered"


@net.connect
def how_many() -> int:
    """How many shots this process has rendered."""
    return len(rendered_here)


@net.connect
def seconds_of(other: Any) -> float:
    """How long a call to another peer takes from here."""
    began = time.monotonic()
    render("sc01", peer=other)
    return time.monotonic() - began


@net.connect
def keep_asking(other: Any, note: str) -> None:
    """From now on, call another peer, search, and note in a file how many peers were found."""
    def ask() -> None:
        while True:
            try:
                render.on(other, timeout=1)("sc01")
            except net.NetError:
                pass
            with open(note, "a") as file:
                print(len(net.peers(refresh=True)), file=file)
    threading.Thread(target=ask, daemon=True).start()


@net.connect
def listen_to(other: Any, note: str) -> None:
    """Note in a file what another peer announces."""
    @net.subscribe("rendered", peers=[other])
    def hear(shot: str) -> None:
        with open(note, "a") as file:
            print(shot, file=file)


@net.connect
def pid() -> int:
    return os.getpid()


@net.connect
def echo(data: bytes) -> bytes:
    return data


@net.connect
def frames(count: int) -> Iterator[int]:
    yield from range(count)


@net.event("rendered")
def rendered(shot: str):
    return (shot,), {}


@net.connect
def announce(shot: str) -> None:
    rendered(shot)
