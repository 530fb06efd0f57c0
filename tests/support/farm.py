"""A small application, for the tests of the test kit."""
from __future__ import annotations

import os
from typing import Iterator

import net

marks = []


@net.connect
def render(shot: str) -> str:
    return f"{shot} rendered"


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
