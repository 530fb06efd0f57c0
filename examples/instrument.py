"""An instrument that several programs use: one process holds it, the others call its methods.

    python3 examples/instrument.py serve      # where the instrument is
    python3 examples/instrument.py measure 5  # on any host of the LAN

The methods run in one thread, one call after the other, as drivers want it. Readings arrive as they
are taken, and the calibration tells how far it is by calling a function of the caller's.
"""
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterator

import net


class Scope:
    """An oscilloscope. This one is simulated; a real one would talk to its driver."""

    def __init__(self) -> None:
        self._volts = 1.0
        self._taken = 0

    def identify(self) -> str:
        return "simulated oscilloscope"

    def set_range(self, volts: float) -> None:
        if not 0 < volts <= 100:
            raise ValueError(f"{volts} V is out of range")
        self._volts = volts

    def read(self, channel: int) -> float:
        time.sleep(0.001)
        self._taken += 1
        return self._volts * math.sin(self._taken / 10 + channel)

    def record(self, channel: int, count: int) -> Iterator[float]:
        for _ in range(count):
            yield self.read(channel)

    def calibrate(self, progress: Callable[[int], object]) -> str:
        for percent in range(0, 101, 25):
            progress(percent)
        return "calibrated"


def serve() -> None:
    net.connect("scope", executor=ThreadPoolExecutor(1))(Scope())
    print("the instrument is ready", flush=True)
    net.serve()


def measure(count: int) -> None:
    bench = net.remote("scope.read").peers(at_least=1, timeout=10)[0]
    scope = net.remote("scope").on(bench)
    print(scope.identify())
    print(scope.calibrate(lambda percent: print(f"{percent} %")))
    scope.set_range(5.0)
    try:
        scope.set_range(1000.0)
    except ValueError as problem:
        print("refused:", problem)
    for number, volts in enumerate(scope.record(1, count), 1):
        print(f"reading {number}: {volts:+.3f} V")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        measure(int(sys.argv[2]))
