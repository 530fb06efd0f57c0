"""Servers and clients as processes of their own, seen from the process that measures."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Any, Iterator, Optional

from .systems import System

#: Seconds for one answer. The slowest work of the slowest system stays below it.
PATIENCE = 90.0

PROJECT = pathlib.Path(__file__).resolve().parent.parent


class Refused(Exception):
    """A system could not do a work; the text says why."""


class Worker:
    """One worker process. Closing it, or the death of this process, ends it."""

    def __init__(self, role: str, name: str, port: int = 0, cpu: Optional[int] = None) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", role, name, str(port)]
        if cpu is not None:
            command += ["--cpu", str(cpu)]
        self._complaints = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._complaints, text=True, env={**os.environ, "NET_HOST": "127.0.0.1"},
        )
        self.pid = self._process.pid
        try:
            self.port = self._receive(30).get("port", port)
        except BaseException:
            self.close()
            raise

    def ask(self, work: str, **settings: Any) -> Any:
        """Have the worker do something and wait for the number.

        :raises Refused: it couldn't.
        """
        self.tell(work, **settings)
        return self.told()

    def tell(self, work: str, **settings: Any) -> None:
        """Ask without waiting; :meth:`told` waits."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"work": work, **settings}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Refused(self._last_words()) from None

    def told(self) -> Any:
        return self._receive(PATIENCE)["value"]

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout
        impatience = threading.Timer(seconds, self._process.kill)
        impatience.start()
        try:
            line = self._process.stdout.readline()
        finally:
            impatience.cancel()
        if not line:
            raise Refused(self._last_words())
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait(10)
        self._complaints.seek(0)
        lines = self._complaints.read().strip().splitlines()
        return lines[-1][:120] if lines else f"ended without an answer ({status})"

    def resident(self) -> int:
        """Bytes of memory that the process holds now; Linux only."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pair:
    """A server of one system and clients of it."""

    def __init__(self, system: System, clients: int = 1, cpu: Optional[int] = None) -> None:
        self.server = Worker("serve", system.name, cpu=cpu)
        self.clients: list[Worker] = []
        try:
            for _ in range(clients):
                self.clients.append(Worker("call", system.name, self.server.port, cpu))
        except BaseException:
            self.close()
            raise
        self.client = self.clients[0]

    @property
    def alive(self) -> bool:
        return self.server.alive and all(client.alive for client in self.clients)

    def close(self) -> None:
        for worker in (*self.clients, self.server):
            worker.close()


@contextlib.contextmanager
def pairs(
    systems: list[System], clients: int, cpu: Optional[int], refusals: dict[str, str]
) -> Iterator[dict[str, Pair]]:
    """A pair for each system that starts; for the others ``refusals`` gets the reason."""
    started: dict[str, Pair] = {}
    try:
        for system in systems:
            try:
                started[system.name] = Pair(system, clients, cpu)
            except Refused as problem:
                refusals[system.name] = str(problem)
        yield started
    finally:
        for pair in started.values():
            pair.close()
