"""A fixed number of mutated inputs for each reader; fuzz.py takes as many as one likes."""
from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.wire.frames import CALL, EndOfStream, FrameReader
from net.errors import NetError

_spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
assert _spec and _spec.loader
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

COUNT = 2000


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_reader_takes_known_inputs_or_raises_what_it_names(name: str):
    assert sum(fuzz.run(name, COUNT, seed=1).values()) == COUNT


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_reader_takes_new_inputs_or_raises_what_it_names(name: str):
    fuzz.run(name, COUNT // 4, random.SystemRandom().randrange(10 ** 9))


@given(st.binary(max_size=200), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_a_frame_is_the_same_however_its_bytes_arrive(data: bytes, step: int):
    def read(size: int) -> object:
        pieces = iter([data[at:at + size] for at in range(0, len(data), size)])

        def recv(_: int) -> bytes:
            return next(pieces, b"")

        def recv_into(view: memoryview) -> int:
            piece = next(pieces, b"")[:len(view)]
            view[:len(piece)] = piece
            return len(piece)

        try:
            return FrameReader(recv, recv_into, frozenset((CALL,)), (2 ** 16, 0)).frame()
        except (NetError, EndOfStream) as problem:
            return type(problem)

    whole, pieces = read(1000), read(step)
    if isinstance(whole, type) and isinstance(pieces, type):
        return
    assert whole == pieces or isinstance(pieces, type)
