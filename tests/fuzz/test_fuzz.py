"""A fixed number of mutated inputs for each reader; fuzz.py takes as many as one likes."""
from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import costs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.errors import NetError
from net.wire.frames import CALL, Frame, FrameParser, pack
from net.wire.limits import Limits
from net.wire.values import unpack

_spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
assert _spec and _spec.loader
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

COUNT = 400
#: Of those that are read many times over.
FEW = 40


def count_of(name: str) -> int:
    return FEW if fuzz.TARGETS[name].grow is fuzz.many else COUNT


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_reader_takes_known_inputs_or_raises_what_it_names(name: str):
    assert sum(fuzz.run(name, count_of(name), seed=1).values()) == count_of(name)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_reader_takes_new_inputs_or_raises_what_it_names(name: str):
    fuzz.run(name, count_of(name) // 4, random.SystemRandom().randrange(10 ** 9))


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_inputs_that_were_kept_are_read_as_they_should_be(name: str):
    with fuzz.Cost() as cost:
        for path in fuzz.kept(name):
            fuzz.feed(name, path.read_bytes(), cost, path.name)


@pytest.mark.once  # the fuzzer itself
@pytest.mark.parametrize("harm", ["time", "memory", "error"])
def test_an_input_that_does_harm_is_found_and_kept(harm: str, monkeypatch, tmp_path):
    usual = b"[" + b",".join([b'{"!tuple":[1]}'] * (costs.ALWAYS // 15)) + b"]"

    def read(data: bytes) -> Any:
        if not data.startswith(b"good"):
            if harm == "time":
                for _ in range(4):
                    unpack(usual, True)
            return bytearray(10 ** 8) if harm == "memory" else {}[harm] if harm == "error" else None

    monkeypatch.setitem(fuzz.TARGETS, "new", fuzz.Target(read, (NetError,), [b"good input"]))
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    monkeypatch.setattr(costs, "TIMES", 1)
    with pytest.raises(fuzz.Found, match="new, seed 7, input [0-9]+: ") as found:
        fuzz.run("new", 1000, seed=7)
    path = fuzz.keep(found.value)
    assert fuzz.kept("new") == [path] and not path.read_bytes().startswith(b"good")
    with pytest.raises(fuzz.Found), fuzz.Cost() as cost:
        fuzz.feed("new", path.read_bytes(), cost)


frames = st.builds(
    lambda kind, number, text, tagged, buffers: b"".join(pack(kind, number, text, tagged, buffers)),
    st.sampled_from([CALL, CALL, CALL, 2, 77]), st.integers(0, 2 ** 32 - 1), st.binary(max_size=60),
    st.booleans(), st.lists(st.binary(max_size=30), max_size=3))


@st.composite
def streams(draw: Any) -> bytes:
    """Frames that follow each other, of which one byte may be wrong."""
    data = bytearray(b"".join(draw(st.lists(frames, min_size=1, max_size=3))))
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def cut(data: bytes, step: int) -> tuple:
    """The frames that bytes in such pieces give, and what ended them."""
    parser, found = FrameParser(Limits(2 ** 16, 2 ** 16), frozenset((CALL,))), []
    try:
        for start in range(0, len(data), step):
            frame = parser.receive(data[start:start + step])
            while frame is not None:
                assert type(frame) is Frame
                found.append(frame._replace(buffers=tuple(frame.buffers)))
                frame = parser.receive(b"")
    except NetError as problem:
        return found, str(type(problem))
    return found, f"{parser.held} bytes held"


def test_a_frame_is_the_same_however_its_bytes_arrive():
    seen = []

    @given(streams() | st.binary(max_size=200), st.integers(1, 50))
    @settings(max_examples=200, deadline=None)
    def check(data: bytes, step: int) -> None:
        whole = cut(data, 10 ** 6)
        assert cut(data, step) == whole
        seen.append(whole)

    check()
    # It is about frames, so there must have been many, and of every end some.
    assert sum(len(found) for found, _ in seen) > 50
    assert any(len(found) > 1 for found, _ in seen)
    assert any(found and found[0].buffers for found, _ in seen)
    assert {"0 bytes held"} < {end for _, end in seen}
