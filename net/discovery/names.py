"""From the names of hosts to their addresses, without anybody waiting for a resolver.

The system's resolver cannot be stopped and may take many seconds, so each name is looked up in a
thread, at most once at a time. The caller gets the outcome in a queue, whenever it comes.
"""
from __future__ import annotations

import socket
import threading
from collections import deque
from queue import SimpleQueue
from typing import Deque, Dict, Iterable, List, NamedTuple, Tuple

# Names that are looked up at the same time. With a resolver that does not answer, each of these
# threads stays for as long as the system waits for it, which is some ten seconds.
MAX_LOOKUPS = 16
# Addresses of one name that are used.
MAX_ADDRESSES = 1024


class Found(NamedTuple):
    """What a name stands for. ``problem`` is empty unless it could not be found out."""

    name: str
    addresses: Tuple[str, ...]
    problem: str = ""


class Names:
    """Looks names up. Any thread may call; no method waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._asking: Dict[str, List[SimpleQueue[Found]]] = {}
        self._waiting: Deque[str] = deque()
        self._threads = 0
        self._last: Dict[str, Tuple[str, ...]] = {}

    def look_up(self, names: Iterable[str]) -> SimpleQueue[Found]:
        """Look these up anew; what is found out comes to the queue, one by one."""
        outcome: SimpleQueue[Found] = SimpleQueue()
        for name in names:
            with self._lock:
                if name in self._asking:
                    self._asking[name].append(outcome)
                    continue
                self._asking[name] = [outcome]
                self._waiting.append(name)
                start = self._threads < MAX_LOOKUPS
                self._threads += start
            if start:
                self._start()
        return outcome

    def last(self, name: str) -> Tuple[str, ...]:
        """The addresses that a name had when it was last looked up."""
        return self._last.get(name, ())

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="net-names", daemon=True).start()
        except RuntimeError as problem:  # can't start new thread
            with self._lock:
                self._threads -= 1
                left = [] if self._threads else list(self._waiting)
            for name in left:
                self._tell(Found(name, (), str(problem)))

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                name = self._waiting.popleft()
            self._tell(resolved(name))

    def _tell(self, found: Found) -> None:
        with self._lock:
            if found.name in self._waiting:
                self._waiting.remove(found.name)
            self._last[found.name] = found.addresses
            for outcome in self._asking.pop(found.name, ()):
                outcome.put(found)


def resolved(name: str) -> Found:
    """The addresses of a name. Waits for the resolver."""
    try:
        # Text would load the codec of international names.
        host = name.encode("ascii") if name.isascii() else name
        places = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        return Found(name, (), getattr(problem, "strerror", None) or str(problem))
    found = dict.fromkeys(str(place[0]) for *_, place in places)
    return Found(name, tuple(found)[:MAX_ADDRESSES])
