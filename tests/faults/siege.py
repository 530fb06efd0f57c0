"""Strangers of all kinds attack, for as long as one likes, while honest peers must get every call
and every event::

    PYTHONPATH=.:tests/support python tests/faults/siege.py 600 [secret]

The strangers are a process of their own, the honest ones are three: a peer that serves and
publishes, one that subscribes and watches, and this one, which calls.
"""
from __future__ import annotations

import ast
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import net
from hostile import Publisher, Searcher, Subscriber, Talk, message, tls_hello
from net.discovery.lan.datagrams import (ASK, ASK_BYTES, DOUBT, GOODBYE, HELLO, LIST, Entry,
                                         encode_list, encode_question, encode_said)
from net.identity import encode_text
from net.process import process
from net.settings import settings
from net.wire.frames import CALL, EVENT, FAILED, HEADER, SUBSCRIBE, TAKEN
from ports import PortRange
from processes import PeerProcess, environment
from service import PREFACE, Raw, greeted, memory, request
from strangers import Stranger, silence

SECRET = "correct horse battery"

SERVES = """
import gc, os, threading, time
import net

@net.event("number")
def number(value):
    return (value,), {}

@net.connect("echo")
def echo(value):
    return value

count = [0]

def trigger():
    while not stop.wait(0.05):
        count[0] += 1
        number(count[0])

stop = threading.Event()
thread = threading.Thread(target=trigger, daemon=True)

def state():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
"""

HEARS = """
import gc, os, threading
import net
heard, gaps, changes = [], [], []

@net.subscribe("number", {publisher!r}, on_gap=lambda *gap: gaps.append(gap))
def hear(value):
    heard.append(value)

@net.subscribe("number", {fakes!r})
def ignore(*values):
    pass

net.watch(lambda change, peer: changes.append((change, peer.address)))

def state():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
"""


def ask(peer: PeerProcess, expression: str) -> Any:
    peer.execute(f"print(repr(({expression})), flush=True)")
    return ast.literal_eval(peer.read_line(30))


# ---------------------------------------------------------------------------- the strangers

#: What a connection begins with and does not go on with.
BEGINNINGS = (b"", b"\xabn", PREFACE, greeted(request("echo", 1))[:-1], b"eyJj", b"\x16\3\1\0\5ab",
              b"GET / HTTP/1.1\r\n\r\n", os.urandom(300), greeted(HEADER.pack(1, 0, 9, 1, 9) * 9),
              greeted(HEADER.pack(CALL, 0, 0, 1, 16 * 2 ** 20)))

#: What a subscriber says instead of that it has taken an event.
SAID = (message(FAILED, 0, {"failures": [["e", "dGFn", "text"]] * 100}) * 10,
        message(TAKEN, 1, None) * 100, message(99, 7, None) * 100,
        b"".join([message(SUBSCRIBE, number, {"event": f"e{number}", "tag": "dGFn"})
                  for number in range(2, 300)]))


class Strangers:
    """All kinds of strangers, each in a thread, against some addresses.

    :param hosts: loopback addresses that they use; the last one is that of the honest ones.
    """

    def __init__(self, targets: List[tuple], hosts: List[str], ports: List[int]) -> None:
        self._targets, self._hosts, self._ports = targets, hosts, ports
        self._done = threading.Event()
        self.counts: Counter = Counter()
        self._fakes: List[Any] = [Publisher(ports[0], self._flood_events, host=hosts[0]),
                                  Stranger(ports[0], silence, hosts[1])]
        self._threads = [threading.Thread(target=self._repeat, args=(number, kind))
                         for number, kind in enumerate((
                             self._connect, self._connect, self._hoard, self._subscribe,
                             self._drip, self._say_hello, self._send_datagrams, self._replay))]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        for fake in self._fakes:
            fake.stop()

    def _repeat(self, number: int, kind: Callable[[random.Random], None]) -> None:
        chance = random.Random(number)
        while not self._done.wait(0.01):
            with contextlib.suppress(Exception):  # whatever is done to it
                kind(chance)
            self.counts[kind.__name__] += 1

    def _target(self, chance: random.Random, hosts: Optional[List[str]] = None) -> Raw:
        return Raw(chance.choice(self._targets), source=chance.choice(hosts or self._hosts),
                   timeout=2)

    @property
    def _floods(self) -> List[str]:
        """The host from which floods come: callers on that host share its places."""
        return self._hosts[:-1]

    def _connect(self, chance: random.Random) -> None:
        """Begin, and go on with nothing or with an end."""
        with contextlib.ExitStack() as opened:
            number = chance.choice((1, 30))
            for _ in range(number):
                hosts = self._hosts if number == 1 else self._floods
                raw = opened.enter_context(self._target(chance, hosts))
                raw.send(chance.choice(BEGINNINGS))
            self._done.wait(chance.choice((0.0, 0.05)))

    def _hoard(self, chance: random.Random) -> None:
        """Take all places with connections that have called and are idle."""
        with contextlib.ExitStack() as opened:
            for _ in range(200):
                raw = opened.enter_context(self._target(chance, self._floods))
                raw.send(greeted(request("echo", 1)))
                if self._done.is_set():
                    return
            self._done.wait(2.0)

    def _say_hello(self, chance: random.Random) -> None:
        """Begin many TLS handshakes, and prove nothing."""
        hello = tls_hello()
        with contextlib.ExitStack() as opened:
            for _ in range(100):
                raw = opened.enter_context(Raw(chance.choice(self._targets), timeout=2,
                                               source=chance.choice(self._floods)))
                raw.send(hello)
            self._done.wait(chance.choice((0.0, 0.5)))

    def _subscribe(self, chance: random.Random) -> None:
        """Subscribe, and flood or read nothing."""
        with Subscriber(self._targets[0]) as one:
            data = chance.choice(SAID)
            one.sock.settimeout(0.5)
            for _ in range(chance.choice((0, 20))):
                one.send(data)
            self._done.wait(0.2)

    def _drip(self, chance: random.Random) -> None:
        with self._target(chance) as raw:
            for byte in greeted(request("echo", "x" * 100)):
                raw.send(bytes((byte,)))
                if self._done.wait(0.02):
                    return

    def _flood_events(self, talk: Talk) -> None:
        """Bring the events that were asked for, too fast, wrong and for others."""
        talk.accept()
        for number in range(1, 200):
            talk.events("number", number, ["x" * 10_000], {})
            if self._done.wait(0.005):
                return
        talk.send(message(EVENT, 7, ["number", 1, ["forged"], {}]))

    def _send_datagrams(self, chance: random.Random) -> None:
        """Say hello for processes that are not there, goodbye and doubts for those that are."""
        instance = bytes(chance.randrange(256) for _ in range(16))
        with Searcher(chance.choice(self._hosts), instance=instance) as one:
            for target in self._targets:
                entry = Entry((chance.choice(self._hosts), chance.choice(self._ports)), instance)
                for kind, body in (
                        (HELLO, encode_said(b"", bytes(8), 0)), (GOODBYE, b""),
                        (ASK, encode_question(size=ASK_BYTES)),
                        (DOUBT, encode_list([entry])[0]), (LIST, encode_list([entry])[0])):
                    one.say(kind, target, body, chance.choice(self._ports))
                one.sock.sendto(os.urandom(chance.randrange(1, 1500)), target)

    def _replay(self, chance: random.Random) -> None:
        """Ask who is there, and say goodbye in the name of each that answers."""
        for target in self._targets:
            with Searcher() as one:
                answer = one.ask(target, 0.2)
            assert answer is not None
            # From the address of that process, as on a network where sources can be forged.
            with Searcher(target[0], instance=answer.instance) as one:
                for other in self._targets:
                    one.say(GOODBYE, other, port=target[1])


def be_strangers() -> int:
    """The process of the strangers: until its input ends."""
    settings.set("launch", False)
    strangers = Strangers(*ast.literal_eval(sys.argv[2]))
    print("up", flush=True)
    sys.stdin.read()
    strangers.close()
    print(dict(strangers.counts), flush=True)
    return 0


# ---------------------------------------------------------------------------- the honest ones

class Siege:
    """One run; ``problems`` should be empty in the end.

    :param secret: of the honest ones, None for open mode.
    """

    def __init__(self, folder: Path, secret: Optional[str]) -> None:
        self.problems: List[str] = []
        self.figures: Dict[str, Any] = {}
        self._calls: Counter = Counter()
        self._slowest = 0.0
        self._done = threading.Event()
        self._held = PortRange()
        start = self._held.ports.start
        settings.set("secret", secret)
        settings.set("unix", False)
        shared = {"NET_PORT_START": start, "NET_SECRET": secret}
        for name in ("serves", "hears"):
            (folder / name).mkdir()
        self._serves = PeerProcess(SERVES, folder / "serves", dict(shared))
        hosts = ["127.0.0.9", "127.0.0.8", "127.0.0.7", "127.0.0.1"]
        fakes = [(host, start) for host in hosts[:2]]
        self._hears = PeerProcess(HEARS.format(publisher=[self._serves.address], fakes=fakes),
                                  folder / "hears", dict(shared))
        targets = [self._serves.address, self._hears.address]
        self._strangers = subprocess.Popen(
            [sys.executable, __file__, "strangers",
             repr((targets, hosts, list(self._held.ports)))], env=environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _call_on_and_on(self, number: int) -> None:
        chance = random.Random(number)
        count = 0
        while not self._done.is_set():
            count += 1
            value = [number, count, "x" * chance.choice((0, 1000, 200_000))]
            if not count % 5:  # as a fresh caller, too
                process.client.close_idle()
            began = time.monotonic()
            try:
                right = process.client.call(self._serves.address, encode_text("echo"), (value,),
                                            {}, 30.0) == value
                self._calls["right" if right else "wrong"] += 1
            except net.NetError as problem:
                self._calls[type(problem).__name__] += 1
                self.problems.append(f"call {number}-{count}: {problem}")
            self._slowest = max(self._slowest, time.monotonic() - began)
            self._done.wait(0.02)

    def run(self, seconds: float) -> None:
        """Go on for some seconds, then check that all has come and nothing is left."""
        assert self._strangers.stdout is not None
        assert self._strangers.stdout.readline() == "up\n"
        until(lambda: ask(self._serves, "len(net.Peer().SUBSCRIPTIONS.get('number', ()))"))
        self._serves.execute("thread.start()")
        threads = [threading.Thread(target=self._call_on_and_on, args=(number,))
                   for number in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(min(30.0, seconds / 3))
        before = [memory(peer.pid) for peer in (self._serves, self._hears)]
        time.sleep(max(0.0, seconds - min(30.0, seconds / 3)))
        after = [memory(peer.pid) for peer in (self._serves, self._hears)]
        self._serves.execute("stop.set()")
        self._done.set()
        for thread in threads:
            thread.join()
        self._check(before, after)

    def _check(self, before: List[int], after: List[int]) -> None:
        sent = ask(self._serves, "thread.join() or net.flush(10) and 0 or count[0]")
        with contextlib.suppress(AssertionError):
            until(lambda: ask(self._hears, "len(heard)") >= sent)
        heard, gaps, changes = (ask(self._hears, f"list({name})")
                                for name in ("heard", "[str(gap) for gap in gaps]", "changes"))
        if heard != list(range(1, sent + 1)):
            self.problems.append(f"{len(heard)} of {sent} events were heard")
        if gaps:
            self.problems.append(f"gaps: {gaps}")
        if ("came", self._serves.address) not in changes:
            self.problems.append("a living peer was not found")
        gone = [change for change in changes if change == ("left", self._serves.address)]
        if gone:
            self.problems.append(f"a living peer was told as gone {len(gone)} times")
        for name, was, is_now in zip(("serves", "hears"), before, after):
            if is_now > 1.3 * was + 30 * 2 ** 20:
                self.problems.append(f"memory of what {name}: {was:,} became {is_now:,}")
        said, _ = self._strangers.communicate("")
        process.client.close_idle()
        for peer in (self._serves, self._hears):
            with contextlib.suppress(AssertionError):
                until(lambda: ask(peer, "state()")[1] < 40)
            if ask(peer, "state()")[1] >= 40:
                self.problems.append(f"threads and descriptors are left: {ask(peer, 'state()')}")
        self.figures = {"calls": dict(self._calls), "slowest call": round(self._slowest, 2),
                        "events": sent, "attacks": said.strip(),
                        "MiB": [(was // 2 ** 20, is_now // 2 ** 20)
                                for was, is_now in zip(before, after)],
                        "lines": [len(peer.errors().splitlines())
                                  for peer in (self._serves, self._hears)]}

    def close(self) -> None:
        if self._strangers.poll() is None:
            self._strangers.kill()
        self._strangers.communicate()
        for peer in (self._serves, self._hears):
            peer.stop()
        self._held.close()
        settings.reset()


def until(fact: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


def siege(folder: Path, seconds: float, secret: Optional[str] = None) -> Siege:
    """Run it, and end all that it has started."""
    made = Siege(folder, secret)
    try:
        made.run(seconds)
    finally:
        made.close()
    return made


def main() -> int:
    if sys.argv[1] == "strangers":
        return be_strangers()
    settings.set("launch", False)
    with tempfile.TemporaryDirectory() as folder:
        done = siege(Path(folder), float(sys.argv[1]), SECRET if "secret" in sys.argv[2:] else None)
    print(done.figures, done.problems[:20] or "no problem", len(done.problems))
    return bool(done.problems)


if __name__ == "__main__":
    sys.exit(main())
