"""A program as a user types it: a strict type checker has nothing to say. It is never run."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import AsyncIterator, Callable, Iterator, List, Tuple

import net


@net.value
@dataclass
class Frame:
    number: int
    path: str


@net.connect
def render(frame: Frame, samples: int = 64, *, denoise: bool = False) -> str:
    return f"{frame.path}: {samples} {denoise}"


@net.connect()
def total(*numbers: int) -> int:
    return sum(numbers)


@net.connect("studio.version", groups=["render"])
def version() -> Tuple[int, int]:
    return 1, 0


@net.connect
def area(width: float, height: float, depth: float, scale: float, offset: float, unit: str,
         places: int = 2) -> float:
    return round(width * height * depth * scale + offset, places)


@net.connect
def send(text: str, peer: str) -> str:
    return f"{text} for {peer}"


class Scope:
    @staticmethod
    @net.connect
    def find(name: str) -> bool:
        return bool(name)

    def read(self, channel: int) -> List[float]:
        return [float(channel)]


read = net.connect("read")(Scope().read)
scope = net.connect("scope", groups=["render"])(Scope())


@net.connect
async def waiting(seconds: float) -> float:
    return seconds


@net.connect
def counting(limit: int) -> Iterator[int]:
    yield from range(limit)


@net.connect
async def ticking(limit: int) -> AsyncIterator[int]:
    for number in range(limit):
        yield number


@net.event("done")
def done(frame: Frame) -> Tuple[Tuple[Frame], dict[str, bool]]:
    return (frame,), {"late": False}


@net.subscribe("done", groups="render")
def heard(frame: Frame, late: bool) -> None:
    print(frame.number, late)


@net.connect(executor=ThreadPoolExecutor(1))
def measure(channel: int) -> float:
    return float(channel)


@net.connect("show", executor=net.main_thread)
def show(text: str) -> None:
    print(text)


@net.remote("studio.frames")
def frames(first: int, last: int = 100) -> List[str]:
    raise NotImplementedError


@net.flag("LATER")
def later(tag: bytes, peer: object) -> None:
    return None


def main() -> None:
    peers = net.peers()
    first: net.PeerId = peers[0]
    host: str = first.host
    few = peers[:3]["render"]
    again: net.PeerId = few[-1]
    frame = Frame(1, "a.exr")

    here: str = render(frame, 128, denoise=True)
    there: str = render(frame, 128, denoise=True, peer=first)
    bound: str = render.on(again, timeout=2.0)(frame, samples=16)
    passed: Callable[[Frame], str] = render
    every: List[str] = list(map(render.on("render1:3010"), [frame, frame]))
    numbers: int = total(1, 2, 3, 4, 5, 6, 7, peer=("127.0.0.1", 3010)) + total(peer=first)
    both: Tuple[int, int] = version(peer=first)
    large: float = area(1, 2, 3, 4, 5, "mm", 6, peer=first) + area(1, 2, 3, 4, 5, "mm")
    own: str = send.on(first)("x", peer="you") + send("x", "you") + send("x", peer=first)
    found: bool = Scope.find("x", peer=first) and Scope().find("x")
    channel: List[float] = read(1) + read(1, peer=first)
    calls: List[net.Call[str]] = [render.start(frame), render.start(frame, 128, peer=first),
                                  render.on(first, timeout=2.0).start(frame, samples=16)]
    there += calls[0].result(timeout=5)
    channel += scope.read(1, peer=first) + scope["read"](1) + scope.on(first).read(1)
    net.disconnect(scope)
    names: List[str] = frames(1, peer=first) + frames.on(first)(1, last=5)
    size: int = net.remote("studio.size")(peer=first) + net.remote("studio").size(peer=first)
    heard(frame, False, peer=first)
    anywhere: str = send.any("x", peer="you") + send.any.on(timeout=2, first=2)("x", "you")
    everywhere = send.all("x", peer="you")
    texts: List[str] = [*everywhere.values(), *everywhere.errors, *send.map(["x"], ["you"])]
    with net.Executor(repeatable=True) as executor:
        future = executor.submit(send, "x", "you")
    at_least = send.peers(at_least=2, timeout=3)
    tag: bytes = render.tag
    said = net.info(peer=first)["name"]

    net.TIMEOUT = 5
    net.TIMEOUT = None
    net.THREAD_LIMIT = 0
    net.GROUP = "render"
    net.PEERS = ["render1:3010"]
    net.FACTS = {"gpus": 2}
    net.SECRET = "sixteen characters"
    net.configure(timeout=5, facts={"gpus": 2})
    limit: float = net.TIMEOUT or net.REQUEST_TIME

    try:
        render(frame, peer=first)
    except net.PeerLost as error:
        print(error.address, error.ran)
    except net.RemoteError as problem:
        print(problem.traceback, problem.peer)
    print(anywhere, texts, future.result(), at_least)
    print(names, size)
    print(host, here, there, bound, passed, every, numbers, both, large, own, found, channel, tag,
          said, limit)


async def coroutines() -> None:
    # They are called as they are; what they give is what their functions give.
    seconds: float = await waiting(1.0) + await waiting(1.0, peer="render1:3010")
    seconds += await waiting.on("render1:3010", timeout=2)(1.0)
    started: net.Call[float] = waiting.start(1.0, peer="render1:3010")
    seconds += await started + waiting.on("render1:3010").start(1.0).result()
    for number in counting(3, peer="render1:3010"):
        seconds += number
    async for number in ticking(3, peer="render1:3010"):
        seconds += number
    for peer in waiting.peers("render"):
        seconds += await waiting(2.0, peer=peer)
