"""Where functions run on another peer: in executors, and under TLS as in the clear."""
from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, List

import pytest

import forms
import net
from net.calls import aio
from processes import PeerProcess
from times import patience

APPLICATION = """
import concurrent.futures

class Executor(concurrent.futures.ThreadPoolExecutor):
    given = []  # the futures of all that it was given

    def submit(self, *args, **kwargs):
        self.given.append(super().submit(*args, **kwargs))
        return self.given[-1]

one = Executor(1, thread_name_prefix="one")
gone = concurrent.futures.ThreadPoolExecutor(1)
gone.shutdown()
closed = asyncio.new_event_loop()
closed.close()

def thread():
    return threading.current_thread().name

def items(key):
    notes.add(key, thread())
    try:
        while True:
            yield thread()
    finally:
        notes.add(key, thread())

def slow(key):
    notes.add(key, "began")
    while not net.cancelled():
        time.sleep(0.01)
    notes.get(key + " goes on", 1, 60)
    notes.add(key, net.cancelled())

async def nothing():
    notes.add("nothing", "ran")

net.connect("thread", executor=one)(thread)
net.connect("items", executor=one)(items)
net.connect("slow", executor=one)(slow)
net.connect("gone", executor=gone)(lambda: notes.add("gone", "ran"))
net.connect("closed", executor=closed)(nothing)
net.connect("main", executor=net.main_thread)(lambda: notes.add("main", "ran"))
"""


@pytest.fixture
def process(forms_process: Callable[..., PeerProcess]) -> PeerProcess:
    return forms_process(APPLICATION)


def on(process: PeerProcess, name: str, timeout: Any = 5) -> Any:
    return net.remote(name).on(process.id, timeout=timeout)


def test_a_function_and_all_of_a_generator_run_in_the_thread_of_their_executor(process, key):
    assert on(process, "thread")() == "one_0"
    iterator = on(process, "items")(key)
    assert [next(iterator), next(iterator)] == ["one_0"] * 2
    iterator.close()
    assert forms.noted(key, 2, peer=process.id) == ["one_0", "one_0"]


@pytest.mark.parametrize("name", ["gone", "closed"])
def test_an_executor_that_takes_nothing_is_busy_and_nothing_ran(process, name):
    with pytest.raises(net.PeerBusy) as caught:
        on(process, name)()
    assert caught.value.ran == "no"
    assert forms.noted("gone", 1, 0.1, peer=process.id) == []
    assert forms.noted("nothing", 1, 0.1, peer=process.id) == []
    assert on(process, "thread")() == "one_0"


def test_the_deadline_holds_where_an_executor_never_runs_it(process):
    started = time.monotonic()
    with pytest.raises(net.CallTimeout):
        on(process, "main", 0.3)()
    assert time.monotonic() - started < patience(1)
    process.execute(
        "while not all(waiting[0].cancelled() for waiting in net.main_thread._queue):\n"
        "    time.sleep(0.01)\n"
        "net.main_thread.run_pending()")
    assert forms.noted("main", 1, 0.3, peer=process.id) == []  # what was not started never runs


def test_what_waits_in_an_executor_until_nobody_wants_it_never_runs(process, key):
    assert on(process, "thread")() == "one_0"
    for _ in range(2):
        with pytest.raises(net.CallTimeout):
            on(process, "slow", patience(0.3))(key)
    process.execute("while not one.given[2].cancelled():\n"
                    "    time.sleep(0.01)\n"
                    f"notes.add({key!r} + ' goes on', True)")
    assert on(process, "thread", None)() == "one_0"  # it was their turn before
    assert forms.noted(key, 2, peer=process.id) == ["began", True]


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
    assert forms.where.start(peer=process.id).result(5) == process.pid
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
