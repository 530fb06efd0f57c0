"""Threads are started in the background, for whatever must not wait for that."""
from __future__ import annotations

import threading
from functools import partial
from typing import Any, Callable, List

import pytest

from net.run import starter as starter_module
from net.run.starter import Starter
from service import until
from times import patience

NAME = "net-test"


@pytest.fixture
def starter():
    made = Starter(NAME)
    yield made
    made.close()


@pytest.fixture
def starts(monkeypatch) -> "Starts":
    return Starts(monkeypatch)


class Starts:
    """Holds up the start of threads for work, as a busy machine does, or lets it fail.

    :ivar go: set to let them start.
    :ivar tried: is set once one is to be started.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.go, self.tried = threading.Event(), threading.Event()
        self.failing: List[str] = []
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name in self.failing:
                raise RuntimeError("can't start new thread")
            if thread.name == NAME:
                self.tried.set()
                assert self.go.wait(patience(20))
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


def noting(found: List[Any], what: Any) -> Callable[[], None]:
    return lambda: found.append((what, threading.current_thread().name))


def fail(problem: BaseException) -> None:
    raise AssertionError(problem)


def test_whatever_wants_a_thread_does_not_wait_until_it_runs(starter, starts):
    ran: List[Any] = []
    for number in range(3):
        starter.start("a", noting(ran, number), fail)
    assert starts.tried.wait(patience(5)) and not ran
    starts.go.set()
    until(lambda: sorted(ran) == [(number, NAME) for number in range(3)])


def test_the_sources_take_turns(starter, starts, monkeypatch):
    starter.start("many", lambda: None, fail)
    assert starts.tried.wait(patience(5))

    ran: List[Any] = []
    for number in range(5):
        starter.start("many", partial(ran.append, "many"), fail)
    starter.start("few", partial(ran.append, "few"), fail)
    # Each has run before the next is started.
    monkeypatch.setattr(starter_module, "threading", _Sequential)
    starts.go.set()
    until(lambda: len(ran) == 6)
    assert ran.index("few") == 1


class _Sequential:
    """Stands for the module: a thread that is started has ended."""

    class Thread(threading.Thread):
        def start(self) -> None:
            super().start()
            self.join(patience(20))


@pytest.mark.parametrize("name", [NAME, f"{NAME}-starter"])
def test_without_a_thread_each_is_told_and_the_next_may_have_one(starter, starts, name):
    starts.failing.append(name)
    problems: List[str] = []
    for _ in range(2):
        starter.start("a", lambda: None, lambda problem: problems.append(str(problem)))
    until(lambda: problems == ["can't start new thread"] * 2)
    starts.failing.clear()
    starts.go.set()
    ran: List[Any] = []
    starter.start("a", noting(ran, 1), fail)
    until(lambda: ran == [(1, NAME)])


def test_its_own_thread_ends_when_it_has_nothing_to_do(starter, monkeypatch):
    monkeypatch.setattr(starter_module, "STAYS", 0.01)
    ran: List[Any] = []
    for number in range(2):
        starter.start("a", noting(ran, number), fail)
        until(lambda: len(ran) > number and not any(
            one.name.startswith(NAME) for one in threading.enumerate()))


def test_what_waits_is_started_although_it_closes(starter, starts):
    ran: List[Any] = []
    for number in range(2):
        starter.start("a", noting(ran, number), fail)
    assert starts.tried.wait(patience(5))
    starter.close()
    starts.go.set()
    until(lambda: len(ran) == 2)
    until(lambda: not any(one.name.startswith(NAME) for one in threading.enumerate()))
