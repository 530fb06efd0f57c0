"""``python3 -m net demo``: what app-net does, on this host, in a few seconds.

The same application runs in two processes: this one, and one that it starts.
"""
from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import queue
import random
import statistics
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .decorators import connect, value
from .settings import settings
from .errors import NetError, RemoteError
from .events import event, subscribe, unsubscribe
from .identity import PeerId
from .link.base import Endpoint, Listener
from .link.tcp import TcpCarrier
from .peer import Peer

# Calls that are timed one by one, and warm-up calls before them.
TIMED_CALLS = 2000
WARM_UP = 200
# Seconds for an event to arrive; it takes less than one thousandth of that.
EVENT_TIME = 5.0

CHILD = "from net import demo; demo.serve()"


@value
@dataclasses.dataclass
class Render:
    """A class of the application that may travel."""

    scene: str
    frames: range
    budget: Decimal


def multiply(some_arg: int, some_kwarg: int = 5) -> int:
    return some_arg * some_kwarg


def echo(anything: Any) -> Any:
    return anything


def divide(a: float, b: float) -> float:
    return a / b


def local_name() -> str:
    return f"I live in process {Peer().friendly_id['pid']}"


def frame_done(number: int) -> Tuple[Tuple[int], Dict[str, Any]]:
    return (number,), {"by": Peer().friendly_id["pid"]}


def render(frames: int) -> str:
    announce = event("frame done")(frame_done)
    for number in range(1, frames + 1):
        announce(number)
    return f"{frames} frames"


def application() -> List[Any]:
    """The functions of the demo, connected. Both processes do this."""
    return [connect(multiply), connect(echo), connect(divide), connect("who are you")(local_name),
            connect(render)]


def serve() -> None:
    """Be the second process until the first one ends, however it ends."""
    settings.set("host", "127.0.0.1")
    # The demo includes a function that fails; its log line must not reach the terminal of the first
    # process.
    logging.getLogger("net.calls").addHandler(logging.NullHandler())
    application()
    try:
        os.write(1, b"ready\n")
    except BrokenPipeError:
        return  # the first one was interrupted meanwhile
    sys.stdin.read()


def tell() -> int:
    """Run the demo.

    :returns: 0, or 1 when something in it did not work.
    """
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    settings.set("host", "127.0.0.1")
    settings.set("launch", True)
    settings.set("port_start", free_range(settings.port_range + 1))
    settings.set("group", None)
    began = time.perf_counter()
    print("app-net: the same application in two Python processes, calling each other")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # Ctrl-C in the terminal is for this process, which ends the other.
        env=_environment(), start_new_session=True)
    try:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            print("the second process did not start", file=sys.stderr)
            return 1
        step("1", "A second process", f"started in {since(began)}, process {child.pid}")
        return _show(child.pid)
    except NetError as problem:
        print(f"\n{type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    finally:
        child.kill()
        child.communicate()


def _environment() -> Dict[str, str]:
    # The second process loads the same net as this one, wherever that was started.
    here = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "NET_HOST": "127.0.0.1", "NET_LAUNCH": "1", "NET_GROUP": "",
            "NET_NAME": "second process",
            "NET_PORT_START": str(settings.port_start),
            "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}


def _show(pid: int) -> int:
    functions = application()
    peer = _find(functions[0], pid)
    if peer is None:
        print("   the second process was not found", file=sys.stderr)
        return 1
    _calls(functions, peer)
    _types(functions[1], peer)
    _error(functions[2], peer)
    _tag(functions[3], peer)
    _event(functions[4], peer)
    _cost(functions[0], functions[1], peer)
    print("\nThat is all: no broker, no configuration. Now decorate a function of your own.")
    return 0


def _find(multiply: Any, pid: int) -> Optional[PeerId]:
    began = time.perf_counter()
    found = multiply.peers(on_host=True)
    step("2", "Find it", f"multiply.peers() found {len(found)} peer in {since(began)}")
    print(indented(repr(found)))
    return next((one for one in found if one.info.get("pid") == pid), None)


def _calls(functions: List[Any], peer: PeerId) -> None:
    multiply = functions[0]
    step("3", "Call its functions", "same name, same call, there instead of here")
    line("multiply(5, some_kwarg=10)", multiply(5, some_kwarg=10))
    line("multiply(5, some_kwarg=10, peer=peer)", multiply(5, some_kwarg=10, peer=peer))


def _types(echo: Any, peer: PeerId) -> None:
    step("4", "Types stay true", "what goes in comes out, at every depth")
    sent = {"shot": ("sc01", 42), "tags": {"hero", "wet"}, 7: b"\x00\xff", "big": 2 ** 100,
            "when": datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc),
            "job": Render("fog", range(1, 101), Decimal("12.50"))}
    back = echo(sent, peer=peer)
    for key, item in back.items():
        same = item == sent[key] and type(item) is type(sent[key])
        print(f"   {key!r:6} : {item!r}{'' if same else '   ALTERED'}", flush=True)
    if back != sent:
        raise NetError("a value was altered on its way")


def _error(divide: Any, peer: PeerId) -> None:
    step("5", "Errors match", "caught by the same except, with the lines of the other process")
    try:
        divide(1, 0, peer=peer)
    except ZeroDivisionError as problem:
        print(f"   divide(1, 0, peer=peer)  raises {type(problem).__name__}: {problem}")
        if isinstance(problem, RemoteError):
            print(indented(problem.traceback.rstrip(), "      | "))


def _tag(who: Any, peer: PeerId) -> None:
    step("6", "A name of your own", 'registered there as @net.connect("who are you")')
    line("local_name()", repr(who()))
    line("local_name(peer=peer)", repr(who(peer=peer)))


def _event(render: Any, peer: PeerId) -> None:
    step("7", "Hear its events", "it announces, subscribers hear, nobody waits")
    heard: "queue.Queue[str]" = queue.Queue()

    def on_frame(number: int, by: int) -> None:
        heard.put(f"frame {number}, from process {by}")

    subscribe("frame done", peer)(on_frame)
    line("render(3, peer=peer)", repr(render(3, peer=peer)))
    try:
        for _ in range(3):
            line('@net.subscribe("frame done", peer)', heard.get(timeout=EVENT_TIME), "  heard  ")
    except queue.Empty:
        raise NetError("an event did not arrive") from None
    unsubscribe("frame done", on_frame)


def _cost(multiply: Any, echo: Any, peer: PeerId) -> None:
    step("8", "What a call costs", f"the median of {TIMED_CALLS:,}")
    for _ in range(WARM_UP):
        multiply(5, 10, peer=peer)
    line("a small call to the other process", f"{median(multiply, 5, 10, peer=peer):.0f} \u00b5s",
         "   ")
    line("the same function here", f"{median(multiply, 5, 10):.2f} \u00b5s", "   ")
    block = bytes(16_000_000)
    began = time.perf_counter()
    echo(block, peer=peer)
    line("16 MB there and back", since(began), "   ")


def median(function: Any, *args: Any, **kwargs: Any) -> float:
    """Median microseconds of a call."""
    clock = time.perf_counter
    taken = []
    for _ in range(TIMED_CALLS):
        began = clock()
        function(*args, **kwargs)
        taken.append(clock() - began)
    return statistics.median(taken) * 1e6


def free_range(count: int) -> int:
    """The first of some free ports side by side, so that the demo meets no other peer."""
    # At random, so that two demos that start together take different ones.
    for start in random.sample(range(20000, 32000, count), 100):
        listeners: List[Listener] = []
        try:
            for port in range(start, start + count):
                listeners.append(TcpCarrier().listen(Endpoint("tcp", "127.0.0.1", port), 1))
            return start
        except OSError:
            continue
        finally:
            for listener in listeners:
                listener.close()
    raise NetError(f"no {count} free ports side by side on this host")


def step(number: str, title: str, remark: str) -> None:
    print(f"\n{number}. {title}: {remark}", flush=True)


def line(left: str, right: Any, between: str = "  ->  ") -> None:
    print(f"   {left:38}{between}{right}", flush=True)


def indented(text: str, by: str = "   ") -> str:
    return "\n".join(by + one for one in text.splitlines())


def since(began: float) -> str:
    seconds = time.perf_counter() - began
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
