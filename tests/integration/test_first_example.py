"""examples/multiply.py, started twice as it says."""
from __future__ import annotations

from pathlib import Path

from processes import run_python

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "multiply.py"


def test_it_multiplies_here_and_on_every_peer(peer_process, port_range):
    # The application of the example, imported instead of run.
    source = f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); import multiply"
    others = [peer_process(source), peer_process(source)]
    done = run_python(str(EXAMPLE), "5", "10", NET_PORT_START=port_range.start)
    lines = done.stdout.splitlines()
    assert lines[0] == "here: 50.0"
    assert sorted(lines[1:]) == sorted(f"127.0.0.1:{other.address[1]}: 50.0" for other in others)
