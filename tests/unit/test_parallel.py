"""What is written for joblib, with peers that are functions of the test."""
from __future__ import annotations

import multiprocessing
import threading
from typing import Any, Callable, Iterator, List

import pytest

import net
from net.calls import many, ways
from net.run.balance import Balance
from times import patience

joblib = pytest.importorskip("joblib", "1.3")

PEERS = [("127.0.0.1", port) for port in (1, 2)]


class Played:
    """A connected function that runs here: ``behave(peer, *args)``."""

    def __init__(self, behave: Callable[..., Any]) -> None:
        self.asked: List[Any] = []

        def call(peer: Any, args: Any, kwargs: Any, timeout: Any) -> Any:
            self.asked.append(peer)
            return behave(peer, *args, **kwargs)
        self.target = many.Target(
            name="f", tag=b"f", kind=ways.PLAIN, repeatable=False, find=lambda groups: PEERS,
            there=call, call=call, call_async=call, several=lambda peer, works: None,
            outcome=call, start=call, balance=Balance(), missed=lambda peer: None)

    def _target(self) -> many.Target:
        return self.target


@pytest.fixture(autouse=True)
def on_peers() -> Iterator[None]:
    """joblib runs on these peers, and leaves no thread behind."""
    net.register_joblib()
    with joblib.parallel_config("net", peers=iter(PEERS)):
        yield
    for thread in threading.enumerate():
        if thread.name == "net-many":
            thread.join(patience(5))
            assert not thread.is_alive()


def multiply(peer: Any, a: int, b: int = 2) -> int:
    return a * b


def test_tasks_run_on_all_peers_and_results_come_in_order():
    both = threading.Barrier(2)

    def behave(peer: Any, n: int, b: int) -> int:
        if n < 2:
            both.wait(patience(5))
        return n * b
    f = Played(behave)
    assert joblib.Parallel()(joblib.delayed(f)(n, b=3) for n in range(50)) == \
        [3 * n for n in range(50)]
    assert set(f.asked) == set(PEERS)


@pytest.mark.parametrize("terms", [{"batch_size": 7}, {"n_jobs": 3}, {"pre_dispatch": "all"},
                                   {"return_as": "generator"}])
def test_the_terms_of_joblib_hold(terms):
    tasks = [joblib.delayed(Played(multiply))(n) for n in range(20)]
    assert list(joblib.Parallel(**terms)(tasks)) == [2 * n for n in range(20)]


def test_one_that_is_used_again_works_again():
    f = Played(multiply)
    with joblib.Parallel() as parallel:
        for _ in range(3):
            assert parallel([joblib.delayed(f)(1)]) == [2]


def test_an_error_ends_it_and_what_waits_does_not_run():
    f = Played(lambda peer, n: 1 // n)
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(f)(n) for n in [1, 0, *range(1, 10_000)])
    assert len(f.asked) < 10_000


@pytest.mark.parametrize("place", [0, 30])
def test_what_is_not_connected_is_an_error_wherever_it_comes(place):
    tasks = [joblib.delayed(Played(multiply))(n) for n in range(40)]
    tasks[place] = joblib.delayed(len)([])
    with pytest.raises(TypeError, match="connected functions"):
        joblib.Parallel()(tasks)


def test_a_timeout_of_joblib_holds():
    go = threading.Event()
    try:
        with pytest.raises(multiprocessing.TimeoutError):
            joblib.Parallel(timeout=0.05)([joblib.delayed(Played(lambda peer: go.wait(
                patience(5))))()])
    finally:
        go.set()


def test_terms_of_peers_are_checked_at_once():
    with pytest.raises(net.InvalidPeer):
        joblib.parallel_config("net", peers=["nobody"])
    with pytest.raises(ValueError):
        joblib.parallel_config("net", at_a_time=0)
