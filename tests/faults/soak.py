"""Peers under load that are killed, frozen, cut off and fed garbage, for as long as one likes.

Each call has a token of its own, which the function writes to a file that outlives its process. So
it is known in the end of every call whether it ran, and how often::

    PYTHONPATH=.:tests/support python tests/faults/soak.py 300 [secret]
"""
from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, List, Optional

import net
from chaos import Proxy
from net.settings import settings
from net.identity import encode_text
from net.process import process
from ports import PortRange
from processes import PeerProcess
from service import Raw, memory

APPLICATION = """
import os, time
import net
ran = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@net.connect("work")
def work(token, data, seconds):
    os.write(ran, token.encode() + b"\\n")
    time.sleep(seconds)
    return [token, data]

@net.connect("state")
def state():
    import gc, threading
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
"""

CALLERS = 8
# Seconds between two things that go wrong.
TROUBLE = 0.7
# What memory may become, beside 20 MiB. PyPy collects when it has nearly doubled, and compiles.
GROWTH = 1.3 if sys.implementation.name == "cpython" else 2.0


class Soak:
    """One run.

    :param secret: for all peers and callers, None for open mode.
    """

    def __init__(self, folder: Path, secret: Optional[str], seed: int) -> None:
        self.outcomes: Counter = Counter()
        self.problems: List[str] = []
        self._folder, self._secret = folder, secret
        self._log = folder / "ran.txt"
        self._chance = random.Random(seed)
        self._ports = PortRange()
        self._number = 0
        self._done = threading.Event()
        # On disk like what ran: in memory, it would look like a leak.
        self._fates = os.open(folder / "fates.txt", os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._troubles: Counter = Counter()
        settings.set("secret", secret)
        # The first one is never killed: nothing may grow in it.
        self.peers = [self._start() for _ in range(3)]
        self._proxy = Proxy(self.peers[0].address)

    def _start(self) -> PeerProcess:
        self._number += 1
        folder = self._folder / f"process{self._number}"
        folder.mkdir()
        return PeerProcess(APPLICATION.format(log=str(self._log)), folder,
                           {"NET_PORT_START": self._ports.ports.start, "NET_SECRET": self._secret})

    # ------------------------------------------------------------------ the load

    def _call_on_and_on(self, number: int) -> None:
        chance = random.Random(number)
        count = 0
        while not self._done.is_set():
            count += 1
            token = f"{number}-{count}"
            size = chance.choice((0, 10, 1000, 200_000))
            data: Any = {"text": "x" * size, "bytes": b"y" * size, "pair": (1, 2)}
            place = chance.randrange(4)
            address = self.peers[place].address if place < 3 else self._proxy.address[:2]
            try:
                reply = process.client.call(address, encode_text("work"),
                                            (token, data, chance.choice((0, 0, 0.01))), {}, 2.0)
                os.write(self._fates, f"{token} yes\n".encode())
                self.outcomes["right"] += 1
                if reply != [token, data]:
                    self.problems.append(f"{token}: a wrong reply")
            except net.NetError as problem:
                os.write(self._fates, f"{token} {problem.ran}\n".encode())
                self.outcomes[type(problem).__name__] += 1
                time.sleep(0.002)

    def _feed_garbage(self) -> None:
        chance = random.Random(99)
        while not self._done.wait(0.05):
            try:
                with Raw(self.peers[0].address, chance.choice(
                        (b"GET / HTTP/1.1\r\n\r\n", b"\xabnet\1\0\0\0\1\0", os.urandom(300),
                         b"\x16\3\1\0\5abcde", b"", b"eyJ"))):
                    pass
            except OSError:
                self.problems.append("the peer that is never killed took no connection")

    # ------------------------------------------------------------------ the trouble

    def _make_trouble(self) -> None:
        trouble = self._chance.choice(("kill", "kill", "freeze", "cut", "cut"))
        self._troubles[trouble] += 1
        if trouble == "cut":
            self._proxy.cut()
            return
        place = self._chance.choice((1, 2))
        peer = self.peers[place]
        if trouble == "freeze":
            peer.signal(signal.SIGSTOP)
            time.sleep(0.3)
            peer.signal(signal.SIGCONT)
            return
        peer.kill()
        peer.stop()
        self.peers[place] = self._start()

    def run(self, seconds: float) -> None:
        """Go on for some seconds, then check that all is as it was."""
        threads = [threading.Thread(target=self._call_on_and_on, args=(number,))
                   for number in range(CALLERS)] + [threading.Thread(target=self._feed_garbage)]
        for thread in threads:
            thread.start()
        # What a process needs under this load, it has after some seconds.
        time.sleep(min(5.0, seconds / 4))
        before = self._state(), self._memory()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(TROUBLE)
            self._make_trouble()
        after_memory = self._memory()
        self._done.set()
        for thread in threads:
            thread.join()
        self._check(before, after_memory)

    def _memory(self) -> List[int]:
        return [memory(), memory(self.peers[0].pid)]

    def _state(self) -> Any:
        return process.client.call(self.peers[0].address, encode_text("state"), (), {}, 20)

    def _check(self, before: Any, after_memory: List[int]) -> None:
        ran = Counter(self._log.read_text().split())
        for token, count in ran.items():
            if count > 1:
                self.problems.append(f"{token} ran {count} times")
        for line in (self._folder / "fates.txt").read_text().splitlines():
            token, fate = line.split()
            if fate == "yes" and not ran[token] or fate == "no" and ran[token]:
                self.problems.append(f"{token}: ran is {fate!r}, but it ran {ran[token]} times")
        process.client.forget()
        deadline = time.monotonic() + 10
        state: Any = None
        while time.monotonic() < deadline:
            # What lingers ends within seconds: connections of the garbage, for a start.
            state = self._state()
            if state[0] <= 5 and state[1] <= before[0][1]:
                break
            time.sleep(0.2)
        else:
            self.problems.append(f"threads and descriptors: {before[0]} became {state}")
        for name, start, end in zip(("callers", "peer"), before[1], after_memory):
            if end > start * GROWTH + 20 * 2 ** 20:
                self.problems.append(f"memory of the {name}: {start:,} became {end:,}")
        self.figures = {"outcomes": dict(self.outcomes), "troubles": dict(self._troubles),
                        "threads and descriptors of the peer": (before[0], state),
                        "MiB of callers and peer": [
                            [number // 2 ** 20 for number in side] for side in
                            (before[1], after_memory)]}

    def close(self) -> None:
        os.close(self._fates)
        self._proxy.close()
        for peer in self.peers:
            peer.stop()
        self._ports.close()
        settings.reset()


def soak(folder: Path, seconds: float, secret: Optional[str] = None, seed: int = 1) -> Soak:
    """Run it, and close all in the end; ``problems`` of what it gives should be empty."""
    made = Soak(folder, secret, seed)
    try:
        made.run(seconds)
    finally:
        made.close()
    return made


def main() -> int:
    settings.set("launch", False)
    secret = "correct horse battery" if "secret" in sys.argv[2:] else None
    with tempfile.TemporaryDirectory() as folder:
        done = soak(Path(folder), float(sys.argv[1]), secret)
    print(f"{sum(done.outcomes.values()):,} calls", done.figures, done.problems or "no problem")
    return bool(done.problems)


if __name__ == "__main__":
    sys.exit(main())
