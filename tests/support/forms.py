"""The application of the tests of coroutines, streams, lent arguments and cancelling.

Both sides run it. What happens within a process is noted there under a key of the test's own, and
can be waited for from elsewhere.
"""
from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Sequence, Tuple

import net
from times import patience


class Notes:
    """What has happened in this process: key -> what was noted under it, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards _found
        self._found: Dict[str, List[Any]] = {}

    def add(self, key: str, what: Any) -> None:
        with self._changed:
            self._found.setdefault(key, []).append(what)
            self._changed.notify_all()

    def get(self, key: str, count: int, timeout: float) -> List[Any]:
        """What there is under a key, as soon as there are ``count`` notes or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._found.get(key, ())) >= count, timeout)
            return list(self._found.get(key, ()))


notes = Notes()


@net.connect
def noted(key: str, count: int = 1, timeout: float = patience(5.0)) -> List[Any]:
    return notes.get(key, count, timeout)


@net.connect
def where() -> int:
    return os.getpid()


@net.connect
def threads() -> List[str]:
    return sorted(thread.name for thread in threading.enumerate())


@net.connect
def memory_in_use() -> int:
    """Bytes of memory that this process has in use."""
    import service

    return service.memory()


# ------------------------------------------------------------------------------------- programs
#
# A program is a list of steps, which a function there does as one here would: ("yield", value),
# ("raise", name of an exception, argument), ("return", value), ("note", value), and so on.

ERRORS = {"ValueError": ValueError, "KeyError": KeyError, "OSError": OSError,
          "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt,
          "StopIteration": StopIteration, "GeneratorExit": GeneratorExit}

Program = Sequence[Tuple[Any, ...]]


@net.connect
def play(program: Program, key: str = "") -> Iterator[Any]:
    """A generator that does what a program says, and notes how it ended."""
    ended = "closed"
    try:
        for step in program:
            if step[0] == "yield":
                yield step[1]
            elif step[0] == "from":
                yield from play(step[1])
            elif step[0] == "raise":
                ended = step[1]
                raise ERRORS[step[1]](*step[2:])
            elif step[0] == "return":
                ended = "returned"
                return step[1]
        ended = "returned"
    finally:
        if key:
            notes.add(key, ended)


@net.connect
async def play_async(program: Program, key: str = "") -> AsyncIterator[Any]:
    """The same as an async generator, which returns nothing."""
    ended = "closed"
    try:
        for step in program:
            if step[0] == "yield":
                yield step[1]
            elif step[0] == "sleep":
                await asyncio.sleep(step[1])
            elif step[0] == "raise":
                ended = step[1]
                raise ERRORS[step[1]](*step[2:])
            elif step[0] == "return":
                break
        ended = "returned"
    finally:
        if key:
            notes.add(key, ended)


@net.connect
def relay(peer: Any, program: Program, key: str = "") -> Iterator[Any]:
    """The items of a generator of a third peer."""
    try:
        return (yield from play(program, key, peer=peer))
    finally:
        if key:
            notes.add(key, "relay ended")


# ----------------------------------------------------------------------------------- generators

@net.connect
def count_to(last: int) -> Iterator[int]:
    for number in range(last):
        yield number


@net.connect
async def count_async(last: int) -> AsyncIterator[int]:
    for number in range(last):
        yield number


@net.connect
async def follow(key: str, count: int, timeout: float) -> AsyncIterator[Any]:
    """What is noted under a key, as it comes."""
    for number in range(count):
        found = await asyncio.get_running_loop().run_in_executor(
            None, notes.get, key, number + 1, timeout)
        yield found[number]


@net.connect
def endless(key: str, item: Any = None) -> Iterator[Any]:
    """Notes how many items it has made when it ends."""
    made = 0
    try:
        while True:
            made += 1
            yield made if item is None else item
    finally:
        notes.add(key, made)


@net.connect
async def endless_async(key: str, item: Any = None) -> AsyncIterator[Any]:
    made = 0
    try:
        while True:
            made += 1
            yield made if item is None else item
    finally:
        notes.add(key, made)


@net.connect
def paced(key: str, count: int) -> Iterator[int]:
    """Makes an item only after the one before it was noted here under a key."""
    for number in range(count):
        yield number
        if not notes.get(key, number + 1, patience(5.0))[number:]:
            raise TimeoutError(f"item {number} was not asked for")


@net.connect
def note(key: str, what: Any = None) -> None:
    notes.add(key, what)


@net.connect
def arrays(count: int, size: int) -> Iterator[Any]:
    import numpy

    for number in range(count):
        yield numpy.full(size, number % 256, "u1")


@net.connect
def locks(key: str) -> Iterator[Any]:
    """Its second item cannot travel."""
    try:
        yield 1
        yield threading.Lock()
    finally:
        notes.add(key, "ended")


@net.connect
def slow_start(key: str) -> Iterator[int]:
    """Its first item takes until its call is cancelled."""
    try:
        end = time.monotonic() + patience(10)
        while not net.cancelled() and time.monotonic() < end:
            time.sleep(0.01)
        notes.add(key, "cancelled" if net.cancelled() else "waited in vain")
        yield 1
    finally:
        notes.add(key, "ended")


# ------------------------------------------------------------------------------- lent arguments

@net.connect
def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@net.connect
def apply_caught(function: Callable[..., Any], *args: Any) -> Any:
    """Name and arguments of what a lent function raises."""
    try:
        return function(*args)
    except Exception as problem:
        return [next(cls.__name__ for cls in type(problem).__mro__
                     if cls.__module__ == "builtins"), list(problem.args)]


@net.connect
def apply_each(function: Callable[[Any], Any], items: Iterator[Any]) -> int:
    """Calls a function with each item as soon as there is one; returns how many there were."""
    count = 0
    for item in items:
        function(item)
        count += 1
    return count


@net.connect
def apply_in_threads(function: Callable[[int], Any], count: int) -> List[Any]:
    found: List[Any] = [None] * count

    def run(number: int) -> None:
        try:
            found[number] = function(number)
        except BaseException as problem:
            found[number] = repr(problem)
    running = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


@net.connect
def gather(items: Any) -> List[Any]:
    return list(items)


@net.connect
def lengths(items: Any) -> List[int]:
    return list(map(len, items))


@net.connect
def take(items: Any, count: int) -> List[Any]:
    return [next(items) for _ in range(count)]


@net.connect
def gather_caught(items: Any) -> List[Any]:
    """The items, and the name of what is raised after them."""
    found = []
    try:
        for item in items:
            found.append(item)
    except Exception as problem:
        found.append(next(cls.__name__ for cls in type(problem).__mro__
                          if cls.__module__ == "builtins"))
    return found


@net.connect
def gather_at(peer: Any, items: Any) -> List[Any]:
    return gather(items, peer=peer)


@net.connect
def apply_nested(found: Any) -> Any:
    function, more = found["tools"][0]
    return [function("x"), list(more["deep"][0])]


@net.connect
def count_of(functions: List[Any]) -> int:
    return len(functions)


@net.connect
def apply_lock(function: Callable[..., Any]) -> Any:
    return function(threading.Lock())


@net.connect
def leave_asking(function: Callable[[int], Any], count: int, key: str = "") -> str:
    """Return while threads still ask."""
    def ask(number: int) -> None:
        try:
            what = function(number)
        except BaseException as problem:
            what = type(problem).__name__
        if key:
            notes.add(key, what)
    for number in range(count):
        threading.Thread(target=ask, args=(number,)).start()
    return "left"


@net.connect
def asks_and_notes(function: Callable[[], Any], key: str) -> None:
    try:
        function()
        notes.add(key, "answered")
    except Exception as problem:
        notes.add(key, type(problem).__name__)
        raise


@net.connect
def use(program: Program, function: Callable[[int], Any], iterator: Iterator[Any]) -> List[Any]:
    """What a program sees of a function and an iterator."""
    seen: List[Any] = []
    for step in program:
        if step[0] == "call":
            seen.append(function(step[1]))
        elif step[0] == "next":
            try:
                seen.append(next(iterator))
            except StopIteration:
                seen.append("end")
        elif step[0] == "rest":
            seen.extend(iterator)
        else:
            try:
                seen.append(function(step[1]))
            except ValueError as problem:
                seen.append(problem.args)
    return seen


def sleep_here(seconds: float) -> None:
    time.sleep(seconds)


@net.connect
def hand_on(peer: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Lend what is lent to a third peer."""
    return apply(function, *args, peer=peer)


@net.connect
def doubled(items: Any) -> Iterator[Any]:
    """A stream of what a lent iterator gives."""
    for item in items:
        yield item * 2


kept: List[Any] = []


@net.connect
def keep(value: Any) -> None:
    kept.append(value)


@net.connect
def use_kept(*args: Any) -> Any:
    value = kept.pop()
    return next(value) if hasattr(value, "__next__") else value(*args)


@net.connect
def give_back(value: Any) -> Any:
    return value


@net.connect
def bounce(function: Callable[..., Any], depth: int) -> Any:
    """Call a lent function that may call this one again, to some depth."""
    return function(depth)


@net.connect
async def apply_async(function: Callable[..., Any], *args: Any) -> Any:
    """Ask without blocking the loop that it runs on."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


# -------------------------------------------------------------- coroutines, deadlines, cancelling

@net.connect
async def apply_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Lets the loop go on while it waits for what was lent."""
    return await asyncio.to_thread(function, *args)


@net.connect
async def apply_at_once(function: Callable[..., Any], *args: Any) -> Any:
    """Holds up its loop while it waits for what was lent."""
    return function(*args)


@net.connect
async def sleep(seconds: float, value: Any = None, key: str = "") -> Any:
    try:
        await asyncio.sleep(seconds)
        return value
    except asyncio.CancelledError:
        if key:
            notes.add(key, "cancelled")
        raise


@net.connect
def wait_and_give(seconds: float, value: Any = None) -> Any:
    """Waits, but not for longer than somebody waits for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not net.cancelled():
        time.sleep(0.005)
    return value


@net.connect
def current_thread() -> str:
    return threading.current_thread().name


@net.connect
def fail_now(name: str, *args: Any) -> None:
    raise ERRORS[name](*args)


@net.connect
async def ping_pong(route: Sequence[Any]) -> int:
    """Call the next peer of a route, which does the same; return how many there were."""
    return 1 + await ping_pong(route[1:], peer=route[0]) if route else 0


@net.connect
async def fail_async(name: str, *args: Any) -> None:
    raise ERRORS[name](*args)


@net.connect
async def loop_of() -> Tuple[int, str]:
    return id(asyncio.get_running_loop()), threading.current_thread().name


@net.connect
def watchful(key: str, seconds: float = patience(10.0)) -> str:
    """Waits until nobody waits for it any more, and notes that."""
    notes.add(key, "began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if net.cancelled():
            notes.add(key, "cancelled")
            return "cancelled"
        time.sleep(0.005)
    notes.add(key, "waited in vain")
    return "waited in vain"


@net.connect
async def watchful_async(key: str, seconds: float = patience(10.0)) -> None:
    notes.add(key, "began")
    try:
        await asyncio.sleep(seconds)
        notes.add(key, "waited in vain")
    except asyncio.CancelledError:
        notes.add(key, "cancelled")
        raise


@net.connect
def hop(route: Sequence[Any], key: str, seconds: float = patience(10.0)) -> Any:
    """Be watchful at the last of some peers, and note at each hop how the call there ended."""
    if not route:
        return watchful(key, seconds)
    try:
        return hop(route[1:], key, seconds, peer=route[0])
    except Exception as problem:
        notes.add(key + " hop", type(problem).__name__)
        raise


@net.connect
async def hop_async(route: Sequence[Any], key: str) -> Any:
    if not route:
        return await watchful_async(key)
    try:
        return await hop_async(route[1:], key, peer=route[0])
    except BaseException as problem:
        notes.add(key + " hop", type(problem).__name__)
        raise


@net.connect
def remaining_over(route: Sequence[Any]) -> List[Any]:
    """What :func:`net.remaining` says here, and at each of some peers that call each other."""
    left = net.remaining()
    return [left] + (remaining_over(route[1:], peer=route[0]) if route else [])


@net.connect
async def remaining_async(route: Sequence[Any]) -> List[Any]:
    left = net.remaining()
    return [left] + (await remaining_async(route[1:], peer=route[0]) if route else [])


@net.connect
def remaining_in_stream() -> Iterator[Any]:
    yield net.remaining()


@net.connect
def caller_here() -> Any:
    found = net.caller()
    return None if found is None else [list(found.address or ()), found.group]


@net.connect
async def caller_async() -> Any:
    return caller_here()


@net.connect
def caller_in_stream() -> Iterator[Any]:
    yield caller_here()
