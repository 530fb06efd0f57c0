"""Errors of calls between two real processes: the same error, and what is known of the call."""
from __future__ import annotations

import builtins
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, List, Tuple

import pytest

import net
import sample
from hearing import ask, until
from processes import environment, run_python
from times import patience

# Errors of the interpreter itself; what ends a thread is not sent as what it is.
BUILT_IN = sorted(
    name for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, Exception) and cls.__name__ == name
    and "Group" not in name
)
ARGUMENTS = {
    "UnicodeDecodeError": ("utf-8", b"\xff\x00", 0, 1, "invalid start byte"),
    "UnicodeEncodeError": ("ascii", "\xe9", 0, 1, "ordinal not in range(128)"),
    "UnicodeTranslateError": ("\xe9", 0, 1, "no translation"),
    "KeyError": ("missing",),
    "OSError": (2, "No such file or directory", "a.txt"),
    "FileNotFoundError": (2, "No such file or directory", "a.txt"),
    "SystemError": (),
    "StopIteration": (7,),
}


def raised_by(call: Any, *args: Any, **kwargs: Any) -> BaseException:
    try:
        call(*args, **kwargs)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def nobody() -> Iterator[Tuple[str, int]]:
    """An address that is bound, so that nobody else takes it, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


# ------------------------------------------------------------------ errors that the function raised

@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_error_is_the_same_local_and_remote(other, name):
    given = ARGUMENTS.get(name, ("some words", 5))
    there = raised_by(sample.fail, name, *given, peer=other.id)
    here = raised_by(sample.fail, name, *given)
    assert isinstance(there, type(here)) and isinstance(there, net.RemoteError)
    assert type(there).__name__ == type(here).__name__
    assert (there.args, str(there)) == (here.args, str(here))
    for attribute in ("errno", "strerror", "filename", "value", "reason", "start", "encoding"):
        assert getattr(there, attribute, None) == getattr(here, attribute, None)
    assert there.ran == "yes"
    assert (there.peer, there.tag) == (other.id, sample.fail.tag)


def test_except_finds_a_remote_error_by_its_own_class_and_by_ours(other):
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        sample.relay([], "fail", "ZeroDivisionError", "division by zero", peer=other.id)
    with pytest.raises(net.RemoteError):
        sample.fail("ZeroDivisionError", peer=other.id)
    with pytest.raises(LookupError):
        sample.fail("KeyError", "x", peer=other.id)


def test_a_class_of_the_application_arrives_as_itself_and_its_init_does_not_run(other):
    sample.made.clear()
    there = raised_by(sample.refuse, 41, {"why": ("no", "room")}, peer=other.id)
    assert isinstance(there, sample.Refused) and isinstance(there, net.RemoteError)
    assert there.args == ("refused with code 41",)
    assert str(there) == "refused with code 41"
    assert (there.code, there.detail) == (41, {"why": ("no", "room")})
    assert sample.made == []
    assert 41 in sample.made_here(peer=other.id)


def test_a_class_that_is_only_known_there_becomes_its_nearest_known_base(peer_process):
    process = peer_process("""
        import net

        class OnlyThere(LookupError):
            pass

        @net.connect("sample tag of its own")
        def fail(value):
            raise OnlyThere("not in your process", value)
    """)
    error = raised_by(sample.renamed, 5, peer=process.id)
    assert isinstance(error, LookupError) and isinstance(error, net.RemoteError)
    assert type(error).__name__ == "OnlyThere"
    assert error.args == ("not in your process", 5)


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit",
                                  "BaseException"])
def test_what_would_end_a_program_ends_only_the_call(other, name):
    error = raised_by(sample.fail, name, 3, peer=other.id)
    assert isinstance(error, net.RemoteError) and isinstance(error, Exception)
    assert not isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))
    assert name in str(error)
    assert sample.where(peer=other.id) == other.pid


@pytest.mark.parametrize("args, kwargs", [
    ((), {}), ((1, 2, 3), {}), ((1,), {"other": 2}), ((1,), {"some_arg": 2}), ((None,), {}),
])
def test_wrong_arguments_are_the_same_error_local_and_remote(other, args, kwargs):
    here = raised_by(sample.multiply, *args, **kwargs)
    there = raised_by(sample.multiply, *args, **kwargs, peer=other.id)
    assert isinstance(here, TypeError) and isinstance(there, TypeError)
    assert str(there) == str(here)


def test_a_stack_that_overflows_there_is_an_error_here(peer_process):
    process = peer_process("""
        import net

        @net.connect("sample tag of its own")
        def deeper(value):
            return deeper(value)
    """)
    assert isinstance(raised_by(sample.renamed, 1, peer=process.id), RecursionError)
    assert net.null(peer=process.id) == "NULL"


def test_an_error_keeps_its_class_and_the_lines_of_all_hops(other, sample_process):
    third, fourth = sample_process(), sample_process()
    chain = [other.id, third.id, fourth.id]
    error = raised_by(sample.relay, chain, "refuse", 7, "far away")
    assert isinstance(error, sample.Refused)
    assert (error.code, error.detail, error.args) == (7, "far away", ("refused with code 7",))
    assert (error.peer, error.tag) == (other.id, sample.relay.tag)
    assert "raise Refused(code, detail=detail)" in error.traceback
    assert error.traceback.count("in relay") >= 3


def test_an_uncaught_error_prints_the_lines_of_all_hops(other, sample_process):
    third, fourth = sample_process(), sample_process()
    chain = [other.id, third.id, fourth.id]
    done = subprocess.run(
        [sys.executable, "-c", f"import sample\nsample.relay({chain!r}, 'refuse', 7, 'far')"],
        env=environment(NET_LAUNCH=0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=patience(15))
    assert done.returncode == 1
    assert done.stderr.count("raise Refused(code, detail=detail)") == 1
    assert done.stderr.count("return relay(hops[1:], name, *args, peer=hops[0])") >= 3
    assert done.stderr.rstrip().splitlines()[-1].endswith("Refused: refused with code 7")
    # The lines of the application come first; those of the caller last.
    assert done.stderr.index("raise Refused") < done.stderr.index('File "<string>"')


def test_an_error_of_a_call_within_the_function_says_that_the_function_ran(other, nobody):
    error = raised_by(sample.relay, [nobody], "where", peer=other.id)
    assert isinstance(error, net.PeerUnreachable) and isinstance(error, net.RemoteError)
    assert error.ran == "yes"
    slow = raised_by(sample.relay, [b"not a peer"], "where", peer=other.id)
    assert isinstance(slow, net.InvalidPeer) and slow.ran == "yes"


def test_a_timeout_within_the_function_says_that_the_function_ran(other, sample_process):
    third = sample_process(NET_TIMEOUT=0.1)
    error = raised_by(sample.relay, [other.id], "wait", 0.5, peer=third.id)
    assert isinstance(error, net.CallTimeout) and isinstance(error, net.RemoteError)
    assert error.ran == "yes"


# -------------------------------------------------------------------------- unknown connections

def test_an_unknown_tag_is_an_error_that_names_near_ones(other):
    missing = net.connect("sample tag of its uwn")(lambda value: value)
    with pytest.raises(net.InvalidConnection) as caught:
        missing(1, peer=other.id)
    del net.Peer().CONNECTIONS[missing.tag]
    error = caught.value
    assert isinstance(error, LookupError) and not isinstance(error, net.RemoteError)
    assert error.near[0] == "sample tag of its own"
    assert "did you mean 'sample tag of its own'" in str(error)
    assert (error.name, error.tag) == ("sample tag of its uwn", missing.tag)
    assert (error.peer, error.ran) == (other.id, "no")


def test_what_is_not_registered_cannot_be_called(other):
    for name in ("os.system", "builtins.eval", "sample.time", "sample._lock", ""):
        missing = net.connect(name or " ")(lambda *args: None)
        error = raised_by(missing, "true", peer=other.id)
        del net.Peer().CONNECTIONS[missing.tag]
        assert isinstance(error, net.InvalidConnection)


# ---------------------------------------------------------------------- peers that are not there

def test_nobody_there_is_an_error_at_once(nobody):
    start = time.monotonic()
    error = raised_by(sample.where, peer=nobody)
    assert time.monotonic() - start < patience(1)
    assert isinstance(error, net.PeerUnreachable) and isinstance(error, ConnectionError)
    assert (error.address, error.ran) == (nobody, "no")


def test_a_name_that_nobody_has_is_the_same_error(monkeypatch):
    def unknown(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert isinstance(raised_by(sample.where, peer="localhost:3010"), net.PeerUnreachable)


def test_a_peer_that_dies_while_the_call_runs_is_noticed_at_once(sample_process):
    process = sample_process()
    errors: List[BaseException] = []
    caller = threading.Thread(
        target=lambda: errors.append(raised_by(sample.hang, peer=process.id)))
    caller.start()
    assert process.read_line() == "running"
    start = time.monotonic()
    process.kill()
    caller.join()
    assert time.monotonic() - start < patience(1)
    (error,) = errors
    assert isinstance(error, net.PeerLost) and isinstance(error, ConnectionError)
    assert (error.address, error.ran) == (process.address, "maybe")
    assert isinstance(raised_by(sample.where, peer=process.id), net.PeerUnreachable)


def test_a_stopped_peer_times_out_and_goes_on_where_it_was(sample_process):
    process = sample_process()
    assert sample.count("stopped", peer=process.id) == 1
    process.signal(signal.SIGSTOP)
    start = time.monotonic()
    assert isinstance(raised_by(sample.count.on(process.id, timeout=0.3), "stopped"),
                      net.CallTimeout)
    # On a fresh connection, too: the operating system accepts it.
    assert isinstance(raised_by(sample.count.on(process.id, timeout=0.3), "stopped"),
                      net.CallTimeout)
    assert time.monotonic() - start < patience(2)
    process.signal(signal.SIGCONT)
    number = sample.count("stopped", peer=process.id)
    # Those two may have run, each once.
    assert 2 <= number <= 4
    assert sample.counted("stopped", peer=process.id) <= 4


def test_a_large_request_to_a_stopped_peer_times_out(sample_process):
    process = sample_process()
    process.signal(signal.SIGSTOP)
    start = time.monotonic()
    large = [bytes(4_000_000)] * 8
    assert isinstance(raised_by(sample.echo.on(process.id, timeout=0.3), large), net.CallTimeout)
    assert time.monotonic() - start < patience(1.5)
    process.signal(signal.SIGCONT)
    assert sample.echo(1, peer=process.id) == 1


# ------------------------------------------------------------------- values that cannot travel

def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> list:
    value: list = []
    value.append({"again": value})
    return value


@pytest.mark.parametrize("value, path", [
    ([1, {"x": [1, 2, 3, threading.Lock()]}], "args[0][1]['x'][3]"),
    (cycle(), "args[0]"),
    (nested(101), "args[0]"),
    (nested(100_000), "args[0]"),
    (socket, "args[0]"),
], ids=["lock", "cycle", "101 deep", "100,000 deep", "module"])
def test_an_argument_that_cannot_travel_fails_here_with_its_path(other, value, path):
    # More than any peer will see: counted there.
    before = sample.counted("cannot travel", peer=other.id)
    with pytest.raises(net.ValueNotSupported) as caught:
        sample.count(value, peer=other.id)
    assert caught.value.path.startswith(path)
    assert caught.value.ran == "no" and isinstance(caught.value, TypeError)
    assert sample.counted("cannot travel", peer=other.id) == before


def test_a_result_that_cannot_travel_fails_with_its_path(peer_process):
    process = peer_process("""
        import net, threading

        def nested(depth):
            value = []
            for _ in range(depth):
                value = [value]
            return value

        def cycle():
            value = []
            value.append({"again": value})
            return value

        @net.connect("sample tag of its own")
        def give(kind):
            return {"lock": lambda: [{"x": threading.Lock()}], "cycle": cycle,
                    "deep": lambda: nested(100_000)}[kind]()
    """)
    for kind, path in [("lock", "result[0]['x']"), ("cycle", "result[0]"), ("deep", "result[0]")]:
        error = raised_by(sample.renamed, kind, peer=process.id)
        assert isinstance(error, net.ValueNotSupported)
        assert error.path.startswith(path) and error.ran == "yes"
        assert net.null(peer=process.id) == "NULL"


def test_a_limit_of_the_other_peer_is_an_error_that_names_the_setting(sample_process):
    process = sample_process(NET_MAX_TEXT=2000, NET_MAX_BUFFERS=10_000)
    for value in (list(range(3000)), bytes(20_000)):
        error = raised_by(sample.echo, value, peer=process.id)
        assert isinstance(error, net.MessageTooLarge) and isinstance(error, ValueError)
        assert "NET_MAX_" in str(error) and error.ran == "no"
        assert sample.echo(1, peer=process.id) == 1
    error = raised_by(sample.relay, [], "multiply", [1], 1500, peer=process.id)
    assert isinstance(error, net.MessageTooLarge) and error.ran == "yes"
    assert sample.echo(os.getpid(), peer=process.id) == os.getpid()


# ------------------------------------------------------------------------------- being seen

def test_what_goes_wrong_where_nobody_looks_is_printed(peer_process):
    first = peer_process("""
        import net

        @net.connect("sample failing")
        def failing():
            raise ValueError("seen there")

        @net.event("tick")
        def tick():
            return (5,), {}
    """)
    second = peer_process(f"""
        import net

        @net.subscribe("tick", {first.id!r})
        def on_tick(number):
            raise KeyError("in a handler")

        def watching(change, peer):
            raise OSError("in a watch")

        stop = net.watch(watching)
    """)
    with pytest.raises(ValueError, match="seen there"):
        net.remote("sample failing")(peer=first.id)
    # Written before its reply is; by TCP where the system does not say whose a Unix socket is.
    assert re.search("sample failing, called by (a process of this host|127.0.0.1:[0-9]+), raised",
                     first.errors())
    assert 'raise ValueError("seen there")' in first.errors()
    until(lambda: 'raise OSError("in a watch")' in second.errors(), 30)
    until(lambda: ask(first, "len(net.Peer().SUBSCRIPTIONS.get('tick', ()))") == 1, 30)
    first.execute("tick()")
    until(lambda: 'raise KeyError("in a handler")' in second.errors(), 30)


@pytest.mark.parametrize("call", [
    "net.null(peer='127.0.0.1:1')", "net.null.on('127.0.0.1:1', timeout=1)()",
    "net.null(peer=closing)", "net.null(peer=web)", "net.null(peer='nowhere')",
    "net.pass_through(object(), peer='127.0.0.1:1')",
])
def test_an_error_of_ours_shows_one_traceback(call):
    done = run_python("-c", f"""
import socket, threading, traceback, net

def serve(answer):
    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(answer)
        connection.close()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()

closing, web = serve(b""), serve(b"HTTP/1.0 400 Bad Request")
try:
    {call}
except net.NetError:
    print(traceback.format_exc())
""", NET_LAUNCH=0)
    assert done.stdout.count("Traceback (most recent call last)") == 1
