"""examples/instrument.py: one process has it, others use it."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from processes import environment, run_python
from times import patience

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "instrument.py"


def test_an_instrument_is_used_from_another_process(port_range):
    bench = subprocess.Popen([sys.executable, str(EXAMPLE), "serve"], text=True,
                             env=environment(NET_PORT_START=port_range.start),
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert bench.stdout.readline() == "the instrument is ready\n"
        done = run_python(str(EXAMPLE), "measure", "4", timeout=30,
                          NET_PORT_START=port_range.start)
    finally:
        bench.send_signal(signal.SIGTERM)
        bench.stdout.close()
        assert bench.wait(patience(10)) == 0
    assert done.stdout.splitlines()[:8] == [
        "simulated oscilloscope", "0 %", "25 %", "50 %", "75 %", "100 %", "calibrated",
        "refused: 1000.0 V is out of range"]
    readings = done.stdout.splitlines()[8:]
    assert [line.split(":")[0] for line in readings] == [f"reading {n}" for n in range(1, 5)]
