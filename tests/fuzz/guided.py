"""Inputs that are led by what they reach, for the targets of fuzz.py.

It needs atheris, which exists for Linux::

    export PYTHONPATH=.:tests/support:tests/fuzz
    python tests/fuzz/guided.py [-name=target] FOLDER [options]

The folder keeps what led to new places; the options are those of libFuzzer, such as
``-max_total_time=600``. Without a name, the first byte of an input says which target it is for. An
input that costs more than its share, or raises what it must not, is kept as those of fuzz.py are.
"""
from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import List

import atheris

with atheris.instrument_imports(include=["net"]):
    import fuzz

#: By the first byte of an input.
NAMES = list(fuzz.TARGETS)


def main() -> None:
    options = [option for option in sys.argv[1:] if not option.startswith("-name=")]
    names = [option[6:] for option in sys.argv[1:] if option.startswith("-name=")] or NAMES
    folder = Path(next(option for option in options if not option.startswith("-")))
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seeds: List[bytes] = [*fuzz.TARGETS[name].seeds,
                              *(path.read_bytes() for path in fuzz.kept(name))]
        for number, seed in enumerate(seeds):
            data = bytes([NAMES.index(name)]) + seed
            (folder / f"seed-{name.replace(' ', '-')}-{number}").write_bytes(data)
    read = {name: 0 for name in names}
    told = time.monotonic()
    with fuzz.Cost() as cost:
        def read_one(data: bytes) -> None:
            nonlocal told
            name = NAMES[data[0] % len(NAMES)] if data else ""
            if name not in read:
                return
            read[name] += 1
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(sum(read.values()), read, flush=True)
            try:
                fuzz.feed(name, data[1:], cost, "guided")
            except fuzz.Found as found:
                print("kept in", fuzz.keep(found), repr(found.__cause__), flush=True)
                raise

        atheris.Setup([sys.argv[0], *options], read_one)
        atheris.Fuzz()


main()
