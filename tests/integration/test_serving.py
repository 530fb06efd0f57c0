"""How a process that serves ends: by signals, by a cancelled task, and with calls that run."""
from __future__ import annotations

import signal

import pytest

from processes import run_python

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals here")

# A call runs when the first signal comes. It ends when the last one has come, unless it never does.
SCRIPT = """
import asyncio, os, signal, sys, threading, time
import net

began, go_on = threading.Event(), threading.Event()
me, main = os.getpid(), threading.main_thread()

@net.connect
def work():
    began.set()
    go_on.wait(60)
    # What the main thread is to do is done while it waits for calls to end.
    return net.main_thread.submit(threading.current_thread).result() is main

def end():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    port = net.Peer().port
    call = work.start(peer=net.Peer().id)
    began.wait(60)
    for number in {signals}:
        os.kill(me, number)
        while net.Peer().ping(port):
            time.sleep(0.01)
    if not {forced}:
        go_on.set()
    try:
        print(call.result(60))
    except net.NetError as problem:
        print(type(problem).__name__, problem.ran)
    go_on.set()

thread = threading.Thread(target=end)
thread.start()
{serve}
print(net.Peer().launched)
thread.join()
"""

SERVE = {
    "serve": "net.serve(grace=50)",
    "serve_async": "asyncio.run(net.serve_async(grace=50))",
}
INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)


@pytest.mark.parametrize("signals", [[TERM], [INT], [INT, TERM]], ids=str)
@pytest.mark.parametrize("how", SERVE)
def test_calls_that_run_end_before_the_process_does(port_range, how, signals):
    done = run_python("-c", SCRIPT.format(serve=SERVE[how], signals=signals, forced=False),
                      timeout=60, NET_PORT_START=port_range.start)
    assert sorted(done.stdout.split()) == ["False", "True"] and done.stderr == ""


@pytest.mark.parametrize("signals", [[INT, INT], [TERM, INT]], ids=str)
@pytest.mark.parametrize("how", SERVE)
def test_a_second_ctrl_c_does_not_wait_for_calls(port_range, how, signals):
    done = run_python("-c", SCRIPT.format(serve=SERVE[how], signals=signals, forced=True),
                      timeout=60, NET_PORT_START=port_range.start)
    assert sorted(done.stdout.splitlines()) == ["False", "PeerLost maybe"] and done.stderr == ""


CANCELLED = """
import asyncio, signal, threading
import net

async def main():
    loop = asyncio.get_running_loop()

    @net.connect(executor=loop)
    async def where():
        return threading.current_thread() is threading.main_thread()

    serving = loop.create_task(net.serve_async())
    print(await where.start(peer=net.Peer().launch().id))
    serving.cancel()
    try:
        await serving
    except asyncio.CancelledError:
        print(net.Peer().launched, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

asyncio.run(main())
"""


def test_the_end_of_its_task_ends_the_peer(port_range):
    done = run_python("-c", CANCELLED, NET_PORT_START=port_range.start)
    assert done.stdout == "True\nFalse True\n" and done.stderr == ""
