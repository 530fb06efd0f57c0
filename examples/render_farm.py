"""A render farm: workers wait for frames, one program spreads them over all that are there.

    python3 examples/render_farm.py work         # on any number of hosts of a LAN
    python3 examples/render_farm.py render 100   # gives up if no worker comes within 10 seconds

A worker that comes late joins in; the frame of one that is killed goes to another.
"""
import sys
import time
from typing import Tuple

import net


@net.connect(repeatable=True)
def render(frame: int) -> Tuple[int, str]:
    time.sleep(0.05)  # the work
    return frame, f"{net.Peer().host}:{net.Peer().port}"


if __name__ == "__main__":
    if sys.argv[1] == "work":
        net.serve()
    else:
        render.peers(at_least=1, timeout=10)
        workers = set()
        for frame, worker in render.map(range(int(sys.argv[2]))):
            workers.add(worker)
            print(f"frame {frame} by {worker}", flush=True)
        print(f"{sys.argv[2]} frames by {len(workers)} workers", flush=True)
