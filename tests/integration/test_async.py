"""Coroutines: awaited on another peer as here, on the application's own loop, and started calls."""
from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import socket
import sys
import threading
import time
from typing import Any, Awaitable, Callable, Dict, List

import pytest

import forms
import net
import sample
from net.link import local
from net.link.base import Endpoint
from net.process import process as here
from processes import PeerProcess, run_python
from service import until
from times import patience


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a coroutine function on a loop of its own."""
    return asyncio.run(work())  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- awaited

def test_it_is_a_coroutine_here_and_there(far):
    async def both() -> List[Any]:
        local, there = forms.sleep(0, 5), forms.sleep(0, 5, peer=far.id)
        assert asyncio.iscoroutine(local) and asyncio.iscoroutine(there)
        return [await local, await there]
    assert run(both) == [5, 5]


def test_its_values_and_errors_are_those_of_there(far):
    async def both() -> None:
        for value in (None, (1, {2}), b"x" * 10_000, "ä" * 10_000, 10 ** 700):
            assert await forms.sleep(0, value, peer=far.id) == value
        for name in ("ValueError", "KeyError", "OSError"):
            with pytest.raises(forms.ERRORS[name]) as caught:
                await forms.fail_async(name, 1, peer=far.id)
            assert isinstance(caught.value, net.RemoteError) and caught.value.args == (1,)
        for name in ("SystemExit", "KeyboardInterrupt"):
            with pytest.raises(net.RemoteError):
                await forms.fail_async(name, 3, peer=far.id)
    run(both)
    assert forms.where(peer=far.id) == far.pid


def test_nothing_is_sent_before_it_is_awaited(far, key):
    async def never() -> None:
        forms.watchful_async(key, 0, peer=far.id).close()
    run(never)
    assert forms.noted(key, 1, 0.1, peer=far.id) == []


def test_a_thousand_at_once_share_a_bounded_number_of_connections(forms_process):
    process = forms_process()

    async def all_of_them() -> List[Any]:
        return await asyncio.gather(*[forms.sleep(0.1, number, peer=process.id)
                                      for number in range(1000)])
    started = time.monotonic()
    assert run(all_of_them) == list(range(1000))
    seconds = time.monotonic() - started
    print(f"{seconds:.2f} s for 1,000 of 0.1 s")
    # One after the other they would take 100 s.
    assert seconds < patience(30)
    process.execute("print(net.Peer().server.connections)")
    assert int(process.read_line()) <= net.MAX_CALLS


@net.remote("forms.noted")
async def noted_there(key, count=1, timeout=patience(5.0)):
    """What is noted there, awaited."""


@net.remote("forms.note")
async def note_there(key, what=None):
    """Note something there, awaited."""


def test_the_loop_here_goes_on_meanwhile(far, key):
    # Each waits there for what only this loop brings.
    long = patience(5)

    async def started() -> Any:
        return await forms.noted.start(key, 2, long, peer=far.id)

    async def streamed() -> List[Any]:
        return [item async for item in forms.follow(key, 4, long, peer=far.id)]

    async def meanwhile(work: Awaitable[Any], what: str) -> Any:
        waiting = asyncio.ensure_future(work)
        await asyncio.sleep(0)  # it has begun
        await note_there(key, what, peer=far.id)
        if what == "c":
            await note_there(key, "d", peer=far.id)
        return await waiting

    async def all_of_them() -> List[Any]:
        return [await meanwhile(noted_there(key, 1, long, peer=far.id), "a"),
                await meanwhile(started(), "b"), await meanwhile(streamed(), "c")]
    assert run(all_of_them) == [["a"], ["a", "b"], ["a", "b", "c", "d"]]


def test_a_plain_function_is_started_and_awaited(far):
    async def started() -> Any:
        call = forms.where.start(peer=far.id)
        assert isinstance(call, net.Call)
        return await call
    assert run(started) == far.pid


def test_connections_are_kept_for_the_next_call_of_the_loop(forms_process):
    process = forms_process()

    async def some() -> None:
        for number in range(20):
            assert await forms.sleep(0, number, peer=process.id) == number
        with pytest.raises(ValueError):
            await forms.fail_async("ValueError", peer=process.id)
        assert [number async for number in forms.count_async(5, peer=process.id)] == list(range(5))
    run(some)
    process.execute("print(net.Peer().server.connections)")
    assert int(process.read_line()) <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_a_peer_of_this_host_and_user_is_reached_over_a_unix_socket(far):
    async def family() -> Any:
        await forms.sleep(0, peer=far.id)
        pools = here.client.by_loop[asyncio.get_running_loop()]
        return [one.sock.family for one in pools.pool(far.id)._open]
    assert run(family) == [socket.AF_UNIX]


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_a_name_whose_queue_stays_full_keeps_nobody_from_the_peer(forms_process, monkeypatch):
    process, held = forms_process(), []
    # As by a process of another user, which lets nobody in.
    taken = f"@{local.NAMES}{os.getuid()}/full-{process.address[1]}:1"
    monkeypatch.setattr(local, "endpoints_of", lambda address: [Endpoint("unix", taken, 0)])

    async def family() -> Any:
        await forms.sleep(0, peer=process.id)
        pools = here.client.by_loop[asyncio.get_running_loop()]
        return [one.sock.family for one in pools.pool(process.id)._open]
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind("\0" + taken[1:])
        thief.listen(0)
        try:
            with pytest.raises(BlockingIOError):
                while True:
                    held.append(local.start(local.endpoints_of(process.address)))
            assert run(family) == [socket.AF_INET]
            assert type(forms.where(peer=process.id)) is int
        finally:
            for sock in held:
                sock.close()


def test_a_loop_that_ends_closes_its_connections(far):
    async def some() -> None:
        await forms.sleep(0, peer=far.id)
    for _ in range(5):
        run(some)
    gc.collect()
    assert not [pools for pools in here.client.by_loop.values() if pools._pools]


def test_two_loops_in_two_threads_do_not_meet(far):
    found: List[Any] = []

    def work(number: int) -> None:
        async def some() -> Any:
            return await asyncio.gather(*[forms.sleep(0.01, (number, one), peer=far.id)
                                          for one in range(20)])
        found.append(asyncio.run(some()) == [(number, one) for one in range(20)])
    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 5


def test_a_peer_that_is_not_there_is_a_typed_error(far):
    async def nobody() -> None:
        import socket

        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(net.PeerUnreachable) as caught:
                await forms.sleep(0, peer=bound.getsockname())
            assert caught.value.ran == "no"
        with pytest.raises(net.InvalidPeer):
            await forms.sleep(0, peer="nonsense")
        with pytest.raises(net.InvalidConnection):
            await missing(peer=far.id)

    @net.connect("nobody has this")
    async def missing() -> None:
        pass
    run(nobody)
    net.disconnect(missing)


def test_a_peer_that_dies_meanwhile_is_lost(forms_process):
    process = forms_process()

    async def lose() -> None:
        task = asyncio.ensure_future(forms.sleep(60, peer=process.id))
        await asyncio.sleep(0.3)
        process.kill()
        with pytest.raises(net.PeerLost) as caught:
            await task
        assert caught.value.ran == "maybe"
    run(lose)


def test_its_time_is_bounded(far, key):
    async def late() -> None:
        await note_there(key, "connected", peer=far.id)
        with pytest.raises(net.CallTimeout) as caught:
            await forms.watchful_async.on(far.id, timeout=patience(0.2))(key)
        assert caught.value.ran == "maybe"
        assert await forms.sleep.on(far.id, timeout=patience(5))(0.01, "in time") == "in time"
        with pytest.raises(net.CallTimeout):
            await asyncio.gather(*[forms.sleep.on(far.id, timeout=0.3)(0.2) for _ in range(300)])
    run(late)
    assert forms.noted(key, 3, patience(5), peer=far.id) == ["connected", "began", "cancelled"]


@pytest.mark.parametrize("how", ["task", "wait_for", "gather", "loop"])
def test_cancelling_the_task_cancels_the_coroutine_there(far, key, how):
    async def cancel() -> None:
        work = forms.watchful_async(key, peer=far.id)
        task = asyncio.ensure_future(asyncio.gather(work) if how == "gather" else work)
        assert await noted_there(key, 1, patience(5), peer=far.id) == ["began"]
        if how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.01)
        elif how != "loop":  # asyncio.run cancels what is left
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    run(cancel)
    assert forms.noted(key, 2, patience(5), peer=far.id) == ["began", "cancelled"]


def test_cancelling_one_leaves_the_others_alone(far):
    async def some() -> None:
        tasks = [asyncio.ensure_future(forms.sleep(0.3 if number % 2 else 60, number, peer=far.id))
                 for number in range(20)]
        await asyncio.sleep(0.1)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for number, one in enumerate(done):
            assert isinstance(one, asyncio.CancelledError) if number % 2 == 0 else one == number
        assert await forms.sleep(0, "next", peer=far.id) == "next"
    run(some)


def test_those_that_wait_for_a_connection_can_be_cancelled(far, key, kept_max_calls):
    kept_max_calls(2)

    async def some() -> None:
        # Two have the connections, and end when they are told to.
        held = asyncio.ensure_future(noted_there(key + " go", timeout=60, peer=far.id))
        running = asyncio.ensure_future(forms.watchful_async(key, 60, peer=far.id))
        waiting = [asyncio.ensure_future(forms.sleep(0, number, peer=far.id))
                   for number in range(8)]
        assert await forms.noted.start(key, 1, peer=far.id) == ["began"]
        assert not any(task.done() for task in waiting)
        for task in (running, *waiting[:7]):
            task.cancel()
        assert await waiting[7] == 7  # in the place of the one that ran
        await forms.note.start(key + " go", "went", peer=far.id)
        assert await held == ["went"]
        ended = await asyncio.gather(running, *waiting[:7], return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        assert await asyncio.gather(*[forms.sleep(0, one, peer=far.id) for one in range(6)]) \
            == list(range(6))
    run(some)


@pytest.fixture
def kept_max_calls() -> Any:
    before = net.MAX_CALLS
    yield lambda count: net.configure(max_calls=count)
    net.configure(max_calls=before)


def test_iterators_that_are_let_go_of_leave_their_places(far, kept_max_calls):
    kept_max_calls(2)

    async def some() -> None:
        for _ in range(10):
            async for number in forms.count_async(10_000, peer=far.id):
                if number == 3:
                    break  # without aclose(): asyncio's own generators need none
        gc.collect()
        assert await asyncio.wait_for(forms.sleep(0, "next", peer=far.id), 5) == "next"
    run(some)


def test_coroutines_that_call_each_other_over_two_peers_do_not_wait_for_each_other(
        hops, kept_max_calls):
    kept_max_calls(2)
    for process in hops[:2]:
        process.execute("net.configure(max_calls=2)")
    try:
        async def some() -> Any:
            return await asyncio.wait_for(asyncio.gather(*[
                forms.ping_pong([hops[1].id, hops[0].id] * 4, peer=hops[0].id)
                for _ in range(8)]), 10)
        assert run(some) == [8] * 8
    finally:
        for process in hops[:2]:
            process.execute("net.configure(max_calls=64)")


def test_what_a_coroutine_lends_is_used_there(far):
    async def some() -> None:
        seen: List[int] = []
        assert await forms.apply_async(lambda value: seen.append(value) or 7, 5,
                                       peer=far.id) == 7
        assert seen == [5]
        with pytest.raises(KeyError):
            await forms.apply_async({}.__getitem__, "x", peer=far.id)
        assert await forms.gather.start(iter(range(100)), peer=far.id) == list(range(100))
    run(some)


def test_what_a_coroutine_uses_in_a_thread_may_call_a_coroutine_there_in_turn(far):
    def back(value: int) -> int:
        return forms.sleep.start(0, value + 1, peer=far.id).result(patience(10))
    assert forms.apply_in_thread.on(far.id, timeout=patience(10)).start(back, 5).result() == 6


def test_a_coroutine_that_holds_up_its_loop_there_holds_up_no_plain_function(far):
    def back(_: int) -> int:
        return forms.where.start(peer=far.id).result(patience(10))
    # Two connections that the loop there looks at.
    for call in [forms.sleep.start(0.1, peer=far.id) for _ in range(2)]:
        call.result(patience(5))
    found = forms.apply_at_once.on(far.id, timeout=patience(10)).start(back, 5).result()
    assert found == far.pid


def test_where_it_runs_there_is_one_loop_of_nets(far):
    async def some() -> Any:
        return await asyncio.gather(*[forms.loop_of(peer=far.id) for _ in range(5)])
    found = set(map(tuple, run(some)))
    assert len(found) == 1 and "MainThread" not in found.pop()


def test_a_called_coroutine_is_no_thread_there(far):
    before = forms.threads(peer=far.id)

    async def some() -> None:
        await asyncio.gather(*[forms.sleep(0.2, peer=far.id) for _ in range(30)])
    run(some)
    until(lambda: len(forms.threads(peer=far.id)) <= len(before) + 2, patience(5))


def test_a_blocking_call_of_a_coroutine_function_is_a_coroutine_even_without_a_loop(far):
    work = forms.sleep(0, 5, peer=far.id)
    assert asyncio.iscoroutine(work)
    assert asyncio.run(work) == 5


@pytest.mark.parametrize("loop", ["uvloop", "anyio"])
def test_it_works_under_other_loops(far, loop):
    if loop == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        run_it = uvloop.run if hasattr(uvloop, "run") else None
        if run_it is None:
            pytest.skip("an old uvloop")
    else:
        anyio = pytest.importorskip("anyio")

        def run_it(work: Any) -> Any:
            async def waits() -> Any:
                return await work
            return anyio.run(waits)

    async def some() -> Any:
        assert await asyncio.gather(*[forms.sleep(0.01, number, peer=far.id)
                                      for number in range(100)]) == list(range(100))
        assert [one async for one in forms.count_async(2000, peer=far.id)] == list(range(2000))
        return await forms.where.start(peer=far.id)
    assert run_it(some()) == far.pid


# --------------------------------------------------------------------------------------- started

def test_a_started_call_is_a_future(far):
    call = forms.where.start(peer=far.id)
    assert isinstance(call, concurrent.futures.Future) and call.peer == far.id
    assert call.result(patience(5)) == far.pid and call.done() and call.exception() is None
    failed = forms.apply.start("no function", peer=far.id)
    assert isinstance(failed.exception(patience(5)), TypeError)
    with pytest.raises(TypeError):
        failed.result()
    assert not call.cancel() and not call.cancelled()
    with pytest.raises(net.InvalidPeer):
        forms.where.start(peer="nonsense")


def test_started_calls_work_with_what_futures_are_for(far):
    calls = {forms.wait_and_give.start(0.01 * (3 - number), number, peer=far.id): number
             for number in range(3)}
    found = [(one.result(), calls[one]) for one in concurrent.futures.as_completed(calls, 5)]
    assert sorted(found) == [(0, 0), (1, 1), (2, 2)]  # in whichever order they come
    done, left = concurrent.futures.wait(calls, 5)
    assert done == set(calls) and not left
    seen: List[Any] = []
    call = forms.where.start(peer=far.id)
    call.add_done_callback(lambda one: seen.append(one.result()))
    call.result(patience(5))
    until(lambda: seen == [far.pid])


@pytest.mark.parametrize("waiting", [
    lambda call: concurrent.futures.wait([call], 5).done,
    lambda call: set(concurrent.futures.as_completed([call], 5)),
], ids=["wait", "as_completed"])
@pytest.mark.parametrize("begun", [False, True], ids=["before it began", "while it ran"])
def test_those_that_wait_for_futures_learn_that_a_call_was_cancelled(far, key, waiting, begun):
    call = forms.watchful.start(key, peer=far.id)
    if begun:
        assert forms.noted(key, 1, peer=far.id) == ["began"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(waiting, call)
        assert call.cancel() and call.cancel() and call.cancelled()
        assert found.result(patience(10)) == {call}
    until(lambda: not here.client.started)


# A loop that has hundreds of things to do on a busy machine may let three seconds pass between
# connecting and greeting, which no peer waits for.
@pytest.mark.flaky(reruns=1)
def test_a_thousand_started_calls_need_no_thousand_threads(forms_process):
    process = forms_process()
    before = threading.active_count()
    calls = [forms.where.start(peer=process.id) for _ in range(1000)]
    most = threading.active_count()
    assert [call.result(patience(20)) for call in calls] == [process.pid] * 1000
    assert most <= before + 2
    process.execute("print(net.Peer().server.connections)")
    assert int(process.read_line()) <= net.MAX_CALLS


def test_a_started_call_here_runs_in_a_thread(far):
    call = forms.current_thread.start()
    assert call.result(patience(5)) != "MainThread" and call.peer is None
    coroutine = forms.sleep.start(0.01, 5)
    assert coroutine.result(patience(5)) == 5


def test_a_started_coroutine_function_gives_its_value(far):
    assert forms.sleep.start(0.01, 5, peer=far.id).result(patience(5)) == 5
    assert forms.sleep.on(far.id, timeout=5).start(0.01, 6).result(patience(5)) == 6


def test_a_started_generator_gives_its_items(far):
    items = forms.count_to.start(3, peer=far.id).result(patience(5))
    assert hasattr(items, "__iter__") or hasattr(items, "__aiter__")
    if hasattr(items, "close"):
        items.close()


@pytest.mark.parametrize("function", ["watchful", "watchful_async"])
def test_cancelling_a_started_call_cancels_it_there(far, key, function):
    call = getattr(forms, function).start(key, peer=far.id)
    assert forms.noted(key, 1, peer=far.id) == ["began"]
    time.sleep(0.3)
    assert call.cancel() and call.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        call.result(patience(1))
    started = time.monotonic()
    assert forms.noted(key, 2, peer=far.id) == ["began", "cancelled"]
    assert time.monotonic() - started < patience(1)


def test_cancelling_one_that_waits_for_its_turn_means_it_never_runs(far, key, kept_max_calls):
    kept_max_calls(1)
    first = forms.wait_and_give.start(0.5, 1, peer=far.id)
    time.sleep(0.1)
    second = forms.note.start(key, peer=far.id)
    assert second.cancel()
    assert first.result(patience(5)) == 1
    assert forms.noted(key, 1, 0.3, peer=far.id) == []


def test_the_timeout_of_a_started_call_is_its_own(far, key):
    call = forms.watchful.on(far.id, timeout=patience(0.2)).start(key)
    with pytest.raises(net.CallTimeout):
        call.result(patience(5))
    assert forms.noted(key, 2, peer=far.id) == ["began", "cancelled"]


def test_a_failure_that_nobody_looks_at_is_logged_and_one_that_is_looked_at_is_not(far, caplog):
    with caplog.at_level(logging.ERROR, "net"):
        call = forms.fail_now.start("KeyError", "unseen", peer=far.id)
        until(call.done)
        del call
        gc.collect()
        until(lambda: "unseen" in caplog.text)
        caplog.clear()
        for look in ("result", "exception"):
            call = forms.fail_now.start("KeyError", "seen", peer=far.id)
            try:
                getattr(call, look)(patience(5))
            except KeyError:
                pass
            del call
        gc.collect()
        assert "seen" not in caplog.text


def test_a_started_call_can_be_awaited_and_awaiting_can_be_cancelled(far, key):
    async def some() -> None:
        assert await forms.where.start(peer=far.id) == far.pid
        with pytest.raises(KeyError):
            await forms.fail_now.start("KeyError", peer=far.id)
        assert await asyncio.wrap_future(forms.where.start(peer=far.id)) == far.pid
        call = forms.watchful.start(key, peer=far.id)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, patience(0.4))
        assert call.cancelled()
    run(some)
    assert forms.noted(key, 2, peer=far.id) == ["began", "cancelled"]


def test_a_program_ends_though_started_calls_run(far):
    started = time.monotonic()
    run_python("-c", f"""
import forms
calls = [forms.wait_and_give.start(30, peer={far.id!r}) for _ in range(5)]
import time; time.sleep(0.3)
""")
    assert time.monotonic() - started < patience(10)


def test_started_calls_of_a_forked_child_are_its_own(far):
    done = run_python("-c", f"""
import os, forms
peer = {far.id!r}
assert forms.where.start(peer=peer).result({patience(5)}) == {far.pid}
child = os.fork()
if not child:
    code = 1
    try:
        code = 0 if forms.where.start(peer=peer).result({patience(5)}) == {far.pid} else 2
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert forms.where.start(peer=peer).result({patience(5)}) == {far.pid}
print("fine")
""")
    assert "fine" in done.stdout


FORKS = """
import os, signal
from net.process import process

def child(parent):
    # Calls of its own loops, to a peer of its own and to the one that has its connections.
    signal.alarm(LIMIT)  # rather than to outlive the test
    code = 1
    try:
        own = net.Peer().id
        assert own != parent
        for peer in (own, parent):
            assert asyncio.run(sleep(0, 5, peer=peer)) == 5
        code = 0
    finally:
        os._exit(code)

def fork(parent):
    return os.fork() or child(parent)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@net.connect
def fork_in_thread(parent):
    return ended(fork(parent))

@net.connect
async def fork_in_loop(parent):
    return await asyncio.get_running_loop().run_in_executor(None, ended, fork(parent))

@net.connect
def kept():
    # Numbers of the connections that the loop of coroutines keeps.
    return [one.stream.sock.fileno() for one in process.peer._server._served
            if one.parked is not None and one.parked.is_idle]
"""

#: Where a process forks, and how a test has it do so.
PLACES: Dict[str, Callable[[PeerProcess], int]] = {
    "main": lambda process: (process.execute("print(ended(fork(net.Peer().id)), flush=True)"),
                             int(process.read_line(15)))[1],
    "thread": lambda process: net.remote("application.fork_in_thread")(process.id,
                                                                       peer=process.id),
    "loop": lambda process: net.remote("application.fork_in_loop")(process.id, peer=process.id)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("place", PLACES)
def test_a_forked_child_leaves_what_the_loop_of_its_parent_keeps_alone(forms_process, place):
    process = forms_process(f"LIMIT = {patience(15):.0f}\n{FORKS}")
    kept = net.remote("application.kept")

    async def both() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(forms.sleep(0.05, number, peer=process.id) for number in range(3)))
        before: List[int] = []
        while len(before) < 3:
            before = await kept.start(peer=process.id)
        assert await loop.run_in_executor(None, PLACES[place], process) == 0
        # The same connections, which still are looked at by the loop and not by their threads.
        while not set(before) <= set(await kept.start(peer=process.id)):
            pass
        for number in range(20):
            assert await forms.sleep(0, number, peer=process.id) == number
        while not set(before) <= set(await kept.start(peer=process.id)):
            pass
    run(both)


def test_the_sample_application_is_still_a_plain_one(other):
    assert sample.where.start(peer=other.id).result(patience(5)) == other.pid
