"""The garbage collection while a large message is read."""
from __future__ import annotations

import gc
import os
import sys
import threading
from typing import Any, Iterator, List

import pytest

from net.errors import ProtocolError
from net.wire import values
from net.wire.garbage import Collection
from net.wire.values import unpack
from times import patience

pytestmark = pytest.mark.skipif(not hasattr(gc, "set_threshold"), reason="no thresholds here")

LARGE = b"[" + b",".join([b'{"!set":[]}'] * 10_000) + b"]"


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def during(text: bytes) -> int:
    """How many objects are made between two collections while a text is read."""
    seen: List[int] = []
    unpack(text, True, charge=lambda size: seen.append(gc.get_threshold()[0]))
    return seen[0]


def test_a_large_message_is_read_almost_without_collections():
    """They took up to three quarters of the time."""
    def collections() -> int:
        return sum(generation["collections"] for generation in gc.get_stats())

    before = collections()
    assert len(unpack(b"[" + b",".join([b'{"!deque":[null]}'] * 15_000) + b"]", True)) == 15_000
    assert collections() - before < 5


def test_a_small_message_changes_nothing():
    assert during(b'{"!set":[]}') == 700 < during(LARGE)


@pytest.mark.parametrize("text", [LARGE, LARGE[:-1], LARGE[:-1] + b',{"!none":1}]'], ids=len)
def test_afterwards_all_is_as_it_was(text):
    try:
        unpack(text, True)
    except ProtocolError:
        pass
    assert gc.get_threshold() == (700, 10, 10)


def test_what_the_application_sets_meanwhile_stays():
    unpack(LARGE, True, charge=lambda size: gc.set_threshold(5000, 5, 5))
    assert gc.get_threshold() == (5000, 5, 5)


def test_an_application_without_collections_stays_without():
    gc.set_threshold(0)
    assert during(LARGE) == 0 == gc.get_threshold()[0]


def test_two_messages_at_once_end_with_what_was_before():
    """However they overlap: the first to begin is the one that ends it."""
    collection = Collection()
    within, go_on = threading.Event(), threading.Event()
    seen: List[Any] = []

    def first() -> None:
        within.set()
        go_on.wait(patience(60))

    def second() -> None:
        seen.append(gc.get_threshold()[0])
        go_on.set()
        thread.join()
        seen.append(gc.get_threshold()[0])

    thread = threading.Thread(target=collection.rarer, args=(1000, first))
    thread.start()
    within.wait(patience(60))
    collection.rarer(10, second)
    assert seen == [1700, 700] and gc.get_threshold() == (700, 10, 10)
    assert collection.rarer(5, gc.get_threshold) == (705, 10, 10)


def test_more_objects_than_python_counts_are_no_error():
    assert Collection().rarer(2 ** 40, gc.get_threshold)[0] == 2 ** 31 - 1


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.15 raises it
def test_a_child_that_is_forked_meanwhile_has_what_was_before(monkeypatch):
    collection = Collection()
    monkeypatch.setattr(values, "collection", collection)

    def fork() -> int:
        child = os.fork()
        if not child:
            collection.renew()  # as after each fork, see below
            os._exit(gc.get_threshold() != (700, 10, 10)
                     or collection.rarer(5, gc.get_threshold) != (705, 10, 10))
        return os.waitpid(child, 0)[1]

    assert collection.rarer(1000, fork) == 0


def test_each_child_begins_anew():
    from net.forking import forks
    from net.wire.garbage import collection

    assert collection.renew in forks.in_child
