"""A hub announces frames to render; workers take them and report their progress.

Start one hub and any number of workers, in any order, on this host or on several of a LAN:

    NET_IS_HUB=1 python3 examples/frames.py hub 20
    python3 examples/frames.py worker

The hub ends when all frames are rendered, and the workers with it. A worker that comes late joins
in; the frame of one that is killed goes to another.
"""
from __future__ import annotations

import queue
import sys
import threading
import time
from typing import Dict, List, Optional, Tuple

import net

# Seconds between announcements, for workers that came after the last one.
AGAIN = 0.5
# Seconds without progress after which a frame goes to another worker.
PATIENCE = 2.0


class Frames:
    """What the hub knows: frames to do, frames in work with the time of their last news, done."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards what follows
        self.waiting: List[int] = []
        self.working: Dict[int, float] = {}
        self.done: Dict[int, str] = {}


frames = Frames()
announcements: queue.Queue[net.PeerId] = queue.Queue()
finished = threading.Event()


# ---- what the hub says and hears


@net.event("work")
def announce() -> Tuple[tuple, dict]:
    return (net.Peer().id,), {}


@net.event("finished")
def finish() -> Tuple[tuple, dict]:
    return (), {}


@net.connect("take a frame")
def take() -> Optional[int]:
    """The next frame for a worker; None if there is none."""
    with frames.lock:
        if not frames.waiting:
            return None
        frame = frames.waiting.pop(0)
        frames.working[frame] = time.monotonic()
        return frame


def hear_progress(worker: str, frame: int, percent: int) -> None:
    with frames.lock:
        if frame in frames.done:
            return
        if percent < 100:
            frames.working[frame] = time.monotonic()
            return
        frames.working.pop(frame, None)
        frames.done[frame] = worker
    print(f"frame {frame} by {worker}", flush=True)


def be_hub(count: int) -> None:
    frames.waiting.extend(range(1, count + 1))
    net.subscribe("progress")(hear_progress)
    while len(frames.done) < count:
        with frames.lock:
            overdue = [frame for frame, when in frames.working.items()
                       if time.monotonic() - when > PATIENCE]
            for frame in overdue:
                del frames.working[frame]
            frames.waiting.extend(overdue)
        announce()
        time.sleep(AGAIN)
    finish()
    print(f"{count} frames by {len(set(frames.done.values()))} workers", flush=True)


# ---- what a worker says and hears


@net.event("progress")
def report(worker: str, frame: int, percent: int) -> Tuple[tuple, dict]:
    return (worker, frame, percent), {}


def hear_work(hub: bytes) -> None:
    # Handlers are quick: whatever takes time is done elsewhere.
    announcements.put(net.PeerId(hub))


def hear_end() -> None:
    finished.set()


def render(me: str, frame: int) -> None:
    for percent in (25, 50, 75, 100):
        time.sleep(0.05)
        report(me, frame, percent)


def be_worker() -> None:
    net.subscribe("work", hubs_only=True)(hear_work)
    net.subscribe("finished", hubs_only=True)(hear_end)
    me = f"{net.Peer().host}:{net.Peer().port}"
    while not finished.is_set():
        try:
            hub = announcements.get(timeout=0.1)
            frame = take(peer=hub)
            while frame is not None:
                render(me, frame)
                frame = take(peer=hub)
        except (queue.Empty, net.PeerUnreachable, net.PeerLost):
            pass


if __name__ == "__main__":
    if sys.argv[1:2] == ["hub"]:
        be_hub(int(sys.argv[2]))
    else:
        be_worker()
