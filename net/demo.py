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
from typing import Any, Dict, List, Optional, Protocol, Tuple

from .decorators import connect, value
from .settings import settings
from .errors import NetError, RemoteError
from .events import event, subscribe, unsubscribe
from .identity import PeerId
from .link.base import Endpoint, Listener
from .link.tcp import TcpCarrier
from .peer import Peer
from .tables import WIDTH

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


class Screen(Protocol):
    """What the demo shows itself on: see :class:`net.cli.screen.Screen`."""

    json: bool

    @property
    def width(self) -> int: ...

    def write(self, text: str, style: str = "", further: str = "  ") -> None: ...

    def put_json(self, value: Any) -> None: ...


class Steps:
    """The steps of the demo: line by line for people, an object of each for scripts."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._step: Dict[str, Any] = {}
        self._results: Dict[str, Any] = {}

    def begin(self, number: int, title: str, remark: str) -> None:
        """Begin a step, and end the one before it."""
        self.end()
        self._results = {}
        self._step = {"step": number, "title": title, "text": remark, "results": self._results}
        self.write(f"\n{number}. {title}: {remark}")

    def end(self) -> None:
        """End the step, if there is one; for scripts this shows it."""
        if self._screen.json and self._step:
            self._screen.put_json(self._step)
        self._step = {}

    @property
    def width(self) -> int:
        """Columns that a line may take."""
        return min(self._screen.width, WIDTH)

    def write(self, text: str, further: str = "  ") -> None:
        """Show lines to people only; ``further`` is that of :meth:`~.cli.screen.Screen.write`."""
        if not self._screen.json:
            self._screen.write(text, "", further)

    def result(self, name: str, value: Any, text: str) -> None:
        """Show a result: a line to people, the value to scripts."""
        self._results[name] = value
        self.write(indented(text))

    def line(self, name: str, value: Any) -> None:
        """Show what a call gave."""
        self.result(name, value, f"{name:38}  ->  {value!r}")

    def cost(self, name: str, seconds: float, text: str) -> None:
        """Show how long something took, to scripts in seconds."""
        self.result(name, seconds, f"{name:38}   {text}")


def tell(screen: Screen) -> int:
    """Run the demo.

    :returns: 0, or 1 when something in it did not work.
    """
    settings.set("host", "127.0.0.1")
    settings.set("launch", True)
    settings.set("port_start", free_range(settings.port_range + 1))
    settings.set("group", None)
    steps = Steps(screen)
    began = time.perf_counter()
    steps.write("app-net: the same application in two Python processes, calling each other")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # Ctrl-C in the terminal is for this process, which ends the other.
        env=_environment(), start_new_session=True)
    try:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise NetError("the second process did not start")
        steps.begin(1, "A second process", f"started in {since(began)}, process {child.pid}")
        _show(child.pid, steps)
    finally:
        child.kill()
        child.communicate()
    return 0


def _environment() -> Dict[str, str]:
    # The second process loads the same net as this one, wherever that was started.
    here = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "NET_HOST": "127.0.0.1", "NET_LAUNCH": "1", "NET_GROUP": "",
            "NET_NAME": "second process",
            "NET_PORT_START": str(settings.port_start),
            "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}


def _show(pid: int, steps: Steps) -> None:
    functions = application()
    peer = _find(functions[0], pid, steps)
    _calls(functions[0], peer, steps)
    _types(functions[1], peer, steps)
    _error(functions[2], peer, steps)
    _tag(functions[3], peer, steps)
    _event(functions[4], peer, steps)
    _cost(functions[0], functions[1], peer, steps)
    steps.end()
    steps.write("\nThat is all: no broker, no configuration. Now decorate a function of your own.")


def _find(multiply: Any, pid: int, steps: Steps) -> PeerId:
    began = time.perf_counter()
    found = multiply.peers(on_host=True)
    steps.begin(2, "Find it", f"multiply.peers() found {len(found)} peer in {since(began)}")
    steps.result("multiply.peers()", list(map(str, found)), found.table(steps.width - 3))
    peer: Optional[PeerId] = next((one for one in found if one.info.get("pid") == pid), None)
    if peer is None:
        raise NetError("the second process was not found")
    return peer


def _calls(multiply: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(3, "Call its functions", "same name, same call, there instead of here")
    steps.line("multiply(5, some_kwarg=10)", multiply(5, some_kwarg=10))
    steps.line("multiply(5, some_kwarg=10, peer=peer)", multiply(5, some_kwarg=10, peer=peer))


def _types(echo: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(4, "Types stay true", "what goes in comes out, at every depth")
    sent = {"shot": ("sc01", 42), "tags": {"hero", "wet"}, 7: b"\x00\xff", "big": 2 ** 100,
            "when": datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc),
            "job": Render("fog", range(1, 101), Decimal("12.50"))}
    back = echo(sent, peer=peer)
    for key, item in back.items():
        same = item == sent[key] and type(item) is type(sent[key])
        steps.result(str(key), item, f"{key!r:6} : {item!r}{'' if same else '   ALTERED'}")
    if back != sent:
        raise NetError("a value was altered on its way")


def _error(divide: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(5, "Errors match", "caught by the same except, with the lines of the other process")
    try:
        divide(1, 0, peer=peer)
    except ZeroDivisionError as problem:
        lines = problem.traceback.rstrip() if isinstance(problem, RemoteError) else ""
        steps.result("divide(1, 0, peer=peer)",
                     {"raises": type(problem).__name__, "text": str(problem), "traceback": lines},
                     f"divide(1, 0, peer=peer)  raises {type(problem).__name__}: {problem}")
        steps.write(indented(lines, "      | "), further="|   ")


def _tag(who: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(6, "A name of your own", 'registered there as @net.connect("who are you")')
    steps.line("local_name()", who())
    steps.line("local_name(peer=peer)", who(peer=peer))


def _event(render: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(7, "Hear its events", "it announces, subscribers hear, nobody waits")
    heard: "queue.Queue[str]" = queue.Queue()

    def on_frame(number: int, by: int) -> None:
        heard.put(f"frame {number}, from process {by}")

    subscribe("frame done", peer)(on_frame)
    steps.line("render(3, peer=peer)", render(3, peer=peer))
    subscribed = '@net.subscribe("frame done", peer)'
    frames: List[str] = []
    try:
        for _ in range(3):
            frames.append(heard.get(timeout=EVENT_TIME))
            steps.result(subscribed, frames, f"{subscribed:38}  heard  {frames[-1]}")
    except queue.Empty:
        raise NetError("an event did not arrive") from None
    unsubscribe("frame done", on_frame)


def _cost(multiply: Any, echo: Any, peer: PeerId, steps: Steps) -> None:
    steps.begin(8, "What a call costs", f"the median of {TIMED_CALLS:,}")
    for _ in range(WARM_UP):
        multiply(5, 10, peer=peer)
    there, here = median(multiply, 5, 10, peer=peer), median(multiply, 5, 10)
    steps.cost("a small call to the other process", there, f"{there * 1e6:.0f} \u00b5s")
    steps.cost("the same function here", here, f"{here * 1e6:.2f} \u00b5s")
    block = bytes(16_000_000)
    began = time.perf_counter()
    echo(block, peer=peer)
    spent = time.perf_counter() - began
    steps.cost("16 MB there and back", spent, as_time(spent))


def median(function: Any, *args: Any, **kwargs: Any) -> float:
    """Median seconds of a call."""
    clock = time.perf_counter
    taken = []
    for _ in range(TIMED_CALLS):
        began = clock()
        function(*args, **kwargs)
        taken.append(clock() - began)
    return statistics.median(taken)


def free_range(count: int) -> int:
    """The first of ``count`` free ports in a row, so that the demo meets no other peer.

    :raises NetError: none were found.
    """
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


def indented(text: str, by: str = "   ") -> str:
    return "\n".join(by + one for one in text.splitlines())


def since(began: float) -> str:
    return as_time(time.perf_counter() - began)


def as_time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
