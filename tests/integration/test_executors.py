"""Where functions run on another peer: in executors, and under TLS as in the clear."""
from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

import forms
import net
import net.testing
from net.calls import aio
from times import patience


class Executor(concurrent.futures.ThreadPoolExecutor):
    """Keeps the futures of all that it is given."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="one")
        self.given: List[Any] = []

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.given.append(super().submit(*args, **kwargs))
        return self.given[-1]


def thread() -> str:
    return threading.current_thread().name


@pytest.fixture
def served(key) -> Iterator[Callable[..., Any]]:
    """Has a peer in memory serve a function with an executor; gives the function there."""
    served: List[Any] = []
    with net.testing.peers(1, processes=False) as [peer]:
        def serve(function: Callable[..., Any], executor: Any, timeout: Any = patience(5)) -> Any:
            name = f"{key} {len(served)}"
            served.append(net.connect(name, executor=executor)(function))
            return net.remote(name).on(peer, timeout=timeout)
        yield serve
    for function in served:
        net.disconnect(function)


@pytest.fixture
def one() -> Iterator[Executor]:
    with Executor() as executor:
        yield executor


def test_a_function_and_all_of_a_generator_run_in_the_thread_of_their_executor(served, one, key):
    def items() -> Iterator[str]:
        forms.notes.add(key, thread())
        try:
            while True:
                yield thread()
        finally:
            forms.notes.add(key, thread())
    assert served(thread, one)() == "one_0"
    iterator = served(items, one)()
    assert [next(iterator), next(iterator)] == ["one_0"] * 2
    iterator.close()
    assert forms.noted(key, 2) == ["one_0", "one_0"]


def test_an_executor_that_takes_nothing_is_busy_and_nothing_ran(served, one, key):
    async def note() -> None:
        forms.notes.add(key, "ran")
    gone = concurrent.futures.ThreadPoolExecutor(1)
    gone.shutdown()
    closed = asyncio.new_event_loop()
    closed.close()
    for function in (served(lambda: forms.notes.add(key, "ran"), gone), served(note, closed)):
        with pytest.raises(net.PeerBusy) as caught:
            function()
        assert caught.value.ran == "no"
    assert served(thread, one)() == "one_0"
    assert forms.noted(key, 1, 0.1) == []


def test_the_deadline_holds_where_an_executor_never_runs_it(served, key):
    main = served(lambda: forms.notes.add(key, "ran"), net.main_thread, 0.3)
    started = time.monotonic()
    with pytest.raises(net.CallTimeout):
        main()
    assert time.monotonic() - started < patience(1)
    while not all(waiting[0].cancelled() for waiting in net.main_thread._queue):
        time.sleep(0.01)
    net.main_thread.run_pending()
    assert forms.noted(key, 1, 0) == []  # what was not started never runs


def test_what_waits_in_an_executor_until_nobody_wants_it_never_runs(served, one, key):
    def slow() -> None:
        forms.notes.add(key, "began")
        while not net.cancelled():
            time.sleep(0.01)
        forms.notes.get(key + " goes on", 1, 60)
        forms.notes.add(key, net.cancelled())
    assert served(thread, one)() == "one_0"
    function = served(slow, one, patience(0.3))
    for _ in range(2):
        with pytest.raises(net.CallTimeout):
            function()
    while not one.given[2].cancelled():
        time.sleep(0.01)
    forms.notes.add(key + " goes on", True)
    assert served(thread, one)() == "one_0"  # it was their turn before
    assert forms.noted(key, 2) == ["began", True]


SECRET = "correct horse battery staple"


@pytest.fixture
def secured() -> Any:
    pytest.importorskip("cryptography")
    net.configure(secret=SECRET)
    yield SECRET
    net.configure(secret=None)


def test_under_a_secret_every_form_works(secured, forms_process, key, monkeypatch):
    process = forms_process(NET_SECRET=secured)
    # A loop that makes twenty handshakes at once on a busy machine may let more than the usual
    # three seconds pass between connecting and greeting.
    monkeypatch.setattr(aio, "GREETING_TIME", patience(10))
    process.execute("from net.run import server_connection")
    process.execute(f"server_connection.GREETING_TIME = {patience(10)}")

    async def some() -> List[Any]:
        found: List[Any] = await asyncio.gather(*[
            forms.sleep(0.01, number, peer=process.id) for number in range(20)])
        found += [item async for item in forms.count_async(2000, peer=process.id)]
        return found
    assert asyncio.run(some()) == [*range(20), *range(2000)]
    assert list(forms.count_to(2000, peer=process.id)) == list(range(2000))
    assert forms.apply(lambda value: value + 1, 5, peer=process.id) == 6
    assert forms.where.start(peer=process.id).result(patience(5)) == process.pid
    call = forms.watchful.start(key, peer=process.id)
    assert forms.noted(key, 1, peer=process.id) == ["began"]
    time.sleep(0.4)
    assert call.cancel()
    assert forms.noted(key, 2, peer=process.id) == ["began", "cancelled"]
    iterator = forms.endless(key + "x", peer=process.id)
    assert next(iterator) == 1
    iterator.close()
    assert len(forms.noted(key + "x", peer=process.id)) == 1


def test_an_awaited_call_with_another_secret_is_refused(secured, forms_process):
    process = forms_process(NET_SECRET="another secret of theirs")

    async def some() -> None:
        with pytest.raises(net.AuthenticationError) as caught:
            await forms.sleep(0, peer=process.id)
        assert caught.value.ran == "no"
    asyncio.run(some())
