"""Start, exit, fork and signals: what app-net must not disturb."""
from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import List, Tuple

import pytest

import net
import sample
from hearing import PUBLISHER, ask
from processes import environment, run_python
from times import patience

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and sends signals")

# Seconds from the end of the main program to the end of the process.
EXIT_LIMIT = 1.0

#: Last lines of a program whose exit is timed.
END = "\nimport time\nprint('end', time.time(), flush=True)\n"


def start(*arguments: str, **settings: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *arguments], env=environment(**settings), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[str]") -> Tuple[str, str]:
    """Standard output and error of a program that prints its END, and ends soon after."""
    output, errors = process.communicate(timeout=patience(15))
    ended = time.time()
    before, _, moment = output.rpartition("end ")
    assert moment, (output, errors)
    assert ended - float(moment.split()[0]) < EXIT_LIMIT
    return before, errors


def lines_of(code: str, **settings: object) -> List[str]:
    """What a program printed that ended well and wrote nothing to its standard error."""
    done = run_python("-W", "error", "-c", textwrap.dedent(code), **settings)
    assert done.stderr == ""
    return done.stdout.splitlines()


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


# -------------------------------------------------------------------------------------- launching

def test_importing_launches_nothing_and_the_first_decorator_does(port_range):
    assert lines_of("""
        import threading
        import net
        print(threading.active_count())

        @net.connect
        def function():
            return 1

        print(threading.active_count() > 1)
        print(net.Peer().launched, net.Peer().port)
        """, NET_PORT_START=port_range.start) == ["1", "True", f"True {port_range.start}"]


def test_a_taken_port_is_passed_over(port_range):
    with socket.create_server(("127.0.0.1", port_range[0])):
        with socket.create_server(("127.0.0.1", port_range[1])):
            assert lines_of("import net; print(net.Peer().port)",
                            NET_PORT_START=port_range.start) == [str(port_range[2])]


def test_without_a_free_port_a_process_works_and_warns_once(port_range, other):
    code = f"""
        import socket
        held = [socket.create_server(("127.0.0.1", port)) for port in {list(port_range)}]
        import net, sample

        @net.connect
        def more():
            return 1

        assert net.Peer() is net.Peer() and not net.Peer().launched
        assert net.Peer().port is None
        assert sample.multiply(5, 10) == 50
        assert sample.multiply(5, 10, peer={other.id!r}) == 50
        assert sample.where(peer={other.id!r}) == {other.pid}
        for ask in (net.Peer().launch, lambda: net.Peer().id):
            try:
                ask()
            except net.NoFreePort as problem:
                assert isinstance(problem, OSError)
                print(list(problem.ports))
        held.pop().close()
        print(net.Peer().launch().port)
    """
    done = run_python("-c", textwrap.dedent(code), NET_PORT_START=port_range.start)
    assert done.stdout.splitlines() == [str(list(port_range))] * 2 + [str(port_range[-1])]
    assert done.stderr.count("RuntimeWarning") == 1
    assert "no free port on 127.0.0.1" in done.stderr and "NET_PORT_START" in done.stderr


def test_an_address_of_another_host_warns_and_the_process_works_without_a_peer(other):
    done = run_python("-c", textwrap.dedent(f"""
        import sample, net
        print(sample.multiply(5, 10), sample.where(peer={other.id!r}), net.Peer().launched)
    """), NET_HOST="192.0.2.77")
    assert done.stdout == f"50 {other.pid} False\n"
    assert done.stderr.count("RuntimeWarning") == 1 and "serves none" in done.stderr


@pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 loopback address")
def test_a_peer_may_live_on_ipv6(port_range):
    assert lines_of("""
        import sample, net
        peer = net.Peer()
        print(peer.host, peer.port, peer.decode_id(peer.id)["host"])
        for form in (peer.id, ("::1", peer.port), f"[::1]:{peer.port}"):
            assert sample.multiply(2, peer=form) == 10
        try:
            sample.multiply(2, peer=("2001:db8::1", peer.port))
        except net.PeerUnreachable as problem:
            print("NET_HOST" in str(problem))
        """, NET_HOST="::1", NET_PORT_START=port_range.start) == [
            f"::1 {port_range.start} ::1", "True"]


def test_launching_can_be_switched_off(port_range, other):
    assert lines_of(f"""
        import threading
        import net, sample
        assert sample.where(peer={other.id!r}) == {other.pid}
        peer = net.Peer()
        print(peer.launched, peer.port, peer.host, [one.name for one in threading.enumerate()])
        try:
            peer.id
        except net.NetError as problem:
            print("NET_LAUNCH" in str(problem))
        print(peer.launch().port, peer.decode_id(peer.id)["port"])
        """, NET_PORT_START=port_range.start, NET_LAUNCH=0) == [
            "False None 127.0.0.1 ['MainThread', 'net-loop']", "True",
            f"{port_range.start} {port_range.start}"]


def test_many_threads_launch_one_peer(port_range):
    assert lines_of("""
        import threading
        import net
        barrier = threading.Barrier(16)
        found = []

        def use():
            barrier.wait()
            net.connect("tag " + threading.current_thread().name)(lambda: 1)
            found.append(net.Peer())

        threads = [threading.Thread(target=use) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(set(map(id, found))), found[0].port)
        """, NET_PORT_START=port_range.start) == [f"1 {port_range.start}"]
    assert is_free(port_range.start)


RACE = """
import os
import net

def launch(start, ports, stop):
    # Both leave this read at the same moment.
    os.read(start, 1)
    os.write(ports, b"%d\\n" % net.Peer().launch().port)
    # Serves until the parent has heard of both.
    os.read(stop, 1)

for turn in range(30):
    start, starter = os.pipe()
    stop, stopper = os.pipe()
    told, ports = os.pipe()
    children = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            launch(start, ports, stop)
            os._exit(0)
        children.append(pid)
    os.write(starter, b"xx")
    found = b""
    while found.count(b"\\n") < 2:
        found += os.read(told, 100)
    print(*sorted(map(int, found.split())), flush=True)
    os.write(stopper, b"xx")
    for end in (start, starter, stop, stopper, told, ports):
        os.close(end)
    for pid in children:
        os.waitpid(pid, 0)
"""


def test_two_peers_that_start_at_once_get_distinct_ports(port_range):
    found = lines_of(RACE, NET_PORT_START=port_range.start)
    assert found == [f"{port_range[0]} {port_range[1]}"] * 30


# ------------------------------------------------------------------------------------ second peers

def test_a_second_peer_in_one_process_shares_the_registries(session_peer):
    with_group = net.peer._Peer(test=True, group="another group")
    try:
        assert with_group.id != session_peer.id
        assert with_group.port != session_peer.port
        assert (with_group.group, with_group.test) == ("another group", True)
        assert with_group.CONNECTIONS is session_peer.CONNECTIONS
        assert sample.where(peer=with_group.id) == os.getpid()
        assert net.Peer() is session_peer
    finally:
        with_group.close()
    with pytest.raises(net.PeerUnreachable):
        sample.where(peer=with_group.host + ":" + str(with_group.port or session_peer.port + 99))
    with_group.close()


def test_a_peer_can_be_closed_and_launched_again(port_range):
    peer = net.peer._Peer(launch=False, test=True)
    assert not peer.launched and peer.port is None
    for _ in range(3):
        identity = peer.launch().id
        assert sample.where(peer=identity) == os.getpid()
        assert peer.launch() is peer and peer.id == identity
        peer.close()
        peer.close()
        with pytest.raises((net.PeerUnreachable, net.PeerLost)):
            sample.where(peer=identity)


# -------------------------------------------------------------------------------------------- exit

IN_A_CALL = """
import threading
import sample
threading.Thread(target=lambda: sample.hang(peer={peer!r}), daemon=True).start()
input()
{end}
"""


@pytest.fixture
def script(tmp_path: Path):
    def write(code: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(code))
        return str(path)
    return write


@pytest.mark.parametrize("way", ["script", "-c"])
@pytest.mark.parametrize("last, code, error", [
    ("", 0, ""),
    ("sys.exit(7)", 7, ""),
    ("raise SystemExit('the end')", 1, "the end\n"),
    ("raise ValueError('uncaught')", 1, "ValueError: uncaught\n"),
], ids=["end", "exit", "SystemExit", "error"])
def test_a_program_ends_at_once_with_its_own_exit_code(way, last, code, error, script, other):
    program = f"import sys\nimport sample\nsample.where(peer={other.id!r})\n{END}\n{last}\n"
    process = start(*(["-c", program] if way == "-c" else [script(program)]))
    _, errors = finish(process)
    assert process.returncode == code
    assert errors.endswith(error) and errors.count("\n") <= (0 if not error else 10)
    assert "Exception ignored" not in errors and "Fatal" not in errors


def test_a_program_ends_at_once_while_it_calls(sample_process):
    process = sample_process()
    program = start("-c", IN_A_CALL.format(peer=process.id, end=END))
    assert process.read_line() == "running"
    assert program.stdin is not None
    program.stdin.write("now\n")
    program.stdin.flush()
    assert finish(program) == ("", "")
    assert program.returncode == 0


def test_a_program_ends_at_once_while_it_is_called(sample_process):
    process = sample_process()
    errors: List[BaseException] = []

    def call() -> None:
        try:
            sample.hang(peer=process.id)
        except net.NetError as error:
            errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    assert [process.read_line() for _ in callers] == ["running"] * 3
    moment = time.monotonic()
    assert process.close(timeout=5) == 0
    assert time.monotonic() - moment < EXIT_LIMIT
    for caller in callers:
        caller.join()
    assert time.monotonic() - moment < EXIT_LIMIT + 1
    assert [type(error) for error in errors] == [net.PeerLost] * 3
    assert process.errors() == ""


def test_a_program_ends_at_once_while_calls_come_and_go(sample_process):
    process = sample_process()
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                sample.echo([1] * 100, peer=process.id)
            except (net.PeerLost, net.PeerUnreachable):
                return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        sample.where(peer=process.id)
        moment = time.monotonic()
        assert process.close(timeout=5) == 0
        assert time.monotonic() - moment < EXIT_LIMIT
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert process.errors() == ""


def test_calls_work_and_end_under_pytest(tmp_path, other):
    (tmp_path / "test_theirs.py").write_text(textwrap.dedent(f"""
        import pytest
        import net, sample

        def test_local():
            assert sample.multiply(2) == 10

        def test_remote(capsys):
            assert sample.where(peer={other.id!r}) == {other.pid}
            with pytest.raises(KeyError):
                sample.fail("KeyError", peer={other.id!r})
            assert capsys.readouterr() == ("", "")
    """))
    process = start("-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path),
                    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1)
    output, errors = process.communicate(timeout=patience(15))
    assert (process.returncode, errors) == (0, "")
    assert "2 passed" in output


ENDING = """
import atexit, sys
import net, sample

def wait_for_the_end():
    print("ending", net.Peer().id.decode(), flush=True)
    sys.stdin.readline()

@net.subscribe("number", {publisher!r})
def hear(value):
    pass

net.watch(lambda change, peer: None)
atexit.register(wait_for_the_end)
"""


def test_what_comes_while_a_program_ends_is_no_trouble_to_it(peer_process, port_range):
    # From 3.12 on no thread can be started any more then.
    publisher = peer_process(PUBLISHER)
    program = start("-c", ENDING.format(publisher=publisher.id), NET_PORT_START=port_range.start)
    try:
        assert program.stdout is not None
        word, identity = program.stdout.readline().split()
        assert word == "ending"
        publisher.execute("number(1)")
        peer_process(PUBLISHER)  # says hello
        try:
            assert sample.where(peer=identity.encode()) == program.pid
        except net.PeerBusy as problem:
            assert problem.ran == "no"
        assert ask(publisher, "net.flush(5)") == {}
        assert program.communicate("now\n", timeout=patience(10)) == ("", "")
        assert program.returncode == 0
    finally:
        program.kill()


class Terminal:
    """An interactive interpreter on a terminal of its own."""

    def __init__(self) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-i", "-q"], stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment(TERM="dumb", PYTHON_BASIC_REPL=1), start_new_session=True,
            preexec_fn=self._make_it_ours)
        os.close(theirs)
        self.shown = ""

    @staticmethod
    def _make_it_ours() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal to it

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str, timeout: float = 10.0) -> str:
        """What was shown up to a text."""
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            remaining = max(0.0, deadline - time.monotonic())
            assert select.select([self._ours], [], [], remaining)[0], self.shown
            self.shown += os.read(self._ours, 4096).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal():
    shown = Terminal()
    yield shown
    shown.close()


def test_an_interactive_session_calls_is_called_interrupted_and_ends(terminal, other):
    terminal.wait_for(">>> ")
    terminal.type(f"import os, net, sample; other = {other.id!r}\n")
    terminal.wait_for(">>> ")
    terminal.type("f = net.connect('typed here')(lambda: os.getpid())\n")
    terminal.wait_for(">>> ")
    terminal.type("print('id', net.Peer().id.decode(), '!')\n")
    terminal.wait_for("\nid ")
    identity = terminal.wait_for(" !")
    typed_here = net.connect("typed here")(lambda: None)
    del net.Peer().CONNECTIONS[typed_here.tag]
    # Its main thread waits for input meanwhile.
    assert typed_here(peer=identity) == terminal.process.pid

    terminal.type("sample.wait(30, peer=other)\n")
    terminal.wait_for("peer=other)")
    time.sleep(0.1)  # so that it is interrupted within the call; before it, it passes as well
    terminal.type("\x03")
    terminal.wait_for("KeyboardInterrupt")
    terminal.wait_for(">>> ")
    terminal.type("print('right', sample.multiply(6, 7, peer=other), 'answer')\n")
    terminal.wait_for("right 42 answer")
    terminal.wait_for(">>> ")
    moment = time.monotonic()
    terminal.type("\x04")
    # From 3.14 on Python's plain prompt ends so if there was a Ctrl-C, whatever came after it.
    assert terminal.process.wait(timeout=patience(5)) in (0, -signal.SIGINT)
    assert time.monotonic() - moment < EXIT_LIMIT


# ---------------------------------------------------------------------------------------- signals

def test_an_interrupted_call_raises_at_once_and_the_next_one_is_right(sample_process, other):
    process = sample_process()
    caller = start("-c", f"""
import sample, time
other = {process.id!r}
for turn in range(3):
    try:
        sample.hang(peer=other)
    except KeyboardInterrupt:
        print("interrupted", sample.echo(turn, peer=other), flush=True)
""")
    for turn in range(3):
        assert process.read_line() == "running"
        caller.send_signal(signal.SIGINT)
        assert caller.stdout is not None
        assert caller.stdout.readline() == f"interrupted {turn}\n"
    output, errors = caller.communicate(timeout=patience(5))
    assert (output, errors, caller.returncode) == ("", "", 0)


def test_signals_in_between_do_not_disturb_a_call(other):
    # Each makes a system call return early; a large reply takes many of them. Their handler calls
    # as well, in the middle of another call.
    assert lines_of(f"""
        import signal, sample
        count = []

        def handle(*given):
            count.append(sample.where(peer={other.id!r}) == {other.pid})
            signal.setitimer(signal.ITIMER_REAL, 0.001)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        data = bytes(range(256)) * 40_000
        for turn in range(5):
            assert sample.echo(data, peer={other.id!r}) == data
            assert sample.echo.on({other.id!r}, timeout={patience(10)})(data) == data
            assert sample.wait(0.02, turn, peer={other.id!r}) == turn
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(len(count) > 20 and all(count))
        """) == ["True"]


def test_a_program_with_the_default_of_sigpipe_outlives_its_peers(sample_process):
    process = sample_process("""
import signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
""")
    third = sample_process()
    # As a caller: the other end of its pooled connection is gone, in the middle of a large request.
    process.execute(f"print(echo('connected', peer={third.id!r}), flush=True)")
    assert process.read_line() == "connected"
    third.signal(signal.SIGSTOP)
    process.execute(f"""
        data = bytes(50_000_000)
        print("sending", flush=True)
        for turn in range(2):
            try:
                echo(data, peer={third.id!r})
            except (_net.PeerLost, _net.PeerUnreachable):
                print("still here", flush=True)
    """)
    assert process.read_line() == "sending"
    with pytest.raises(AssertionError):
        process.read_line(timeout=0.2)
    third.kill()
    assert [process.read_line(), process.read_line()] == ["still here"] * 2
    # As a server: callers that leave before their reply.
    for _ in range(3):
        with pytest.raises(net.CallTimeout):
            sample.wait.on(process.id, timeout=0.05)(0.1, "x" * 5_000_000)
    assert sample.wait(0.2, "right", peer=process.id) == "right"


# ------------------------------------------------------------------------------------------- fork

# From 3.12 on Python warns of every fork of a process that has threads.
MAY_FORK = ("-W", "ignore:This process:DeprecationWarning")

FORK = """
import os, sys, threading
import net, sample

other = {other!r}
peer = net.Peer()
before = (peer.id, peer.instance)
assert sample.echo("pooled", peer=other) == "pooled"
stop = threading.Event()
wrong = []

def call_on():
    number = 0
    while not stop.is_set():
        number += 1
        if sample.echo([number], peer=other) != [number]:
            wrong.append(number)

callers = [threading.Thread(target=call_on) for _ in range(3)]
for caller in callers:
    caller.start()
for turn in range(10):
    pid = os.fork()
    if not pid:
        # No server, an identity of its own, and connections of its own.
        assert threading.active_count() == 1
        assert not peer.launched and peer.port is None
        assert peer.instance != before[1]
        assert [sample.echo(["child", n], peer=other)[1] for n in range(20)] == list(range(20))
        assert sample.echo("to the parent", peer=before[0]) == "to the parent"
        if turn == 0:
            mine = net.Peer()
            assert mine.launched and mine.id != before[0] and mine.instance == peer.instance
            assert sample.where(peer=mine.id) == os.getpid()
        if turn % 2:
            os._exit(0)
        # With all that is done at the end of a program, none of which may be done to the parent.
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    assert (peer.id, peer.instance) == before
    assert sample.where(peer=peer.id) == os.getpid()
    assert sample.echo(turn, peer=other) == turn
stop.set()
for caller in callers:
    caller.join()
assert not wrong
print("well")
"""


def test_a_forked_child_is_a_process_of_its_own_and_the_parent_goes_on(other, script, port_range):
    done = run_python(*MAY_FORK, script(FORK.format(other=other.id)),
                      NET_PORT_START=port_range.start)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_the_port_is_free_when_the_parent_dies_while_a_child_lives(sample_process):
    process = sample_process("""
import os, time
read, write = os.pipe()
""")
    assert sample.echo(1, peer=process.id) == 1
    process.execute("""
        if not os.fork():
            os.write(write, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(read, 1)
        print("forked")
    """)
    assert process.read_line() == "forked"
    errors: List[BaseException] = []

    def call() -> None:
        try:
            sample.hang(peer=process.id)
        except net.NetError as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert process.read_line() == "running"
    moment = time.monotonic()
    process.kill()
    caller.join()
    assert time.monotonic() - moment < patience(1)
    assert [type(error) for error in errors] == [net.PeerLost]
    with pytest.raises(net.PeerUnreachable):
        sample.where(peer=process.id)
    assert is_free(process.address[1])


GENERATIONS = """
import os
import net

def go_on_as_a_child():
    pid = os.fork()
    if pid:
        os._exit(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))

first = net.Peer()
print(first.port, flush=True)
for generation in range(3):
    go_on_as_a_child()
    # Neither the peer from before nor the one of this process.
    assert not first.launched and first.port is None
    port = net.Peer().port
    print(port, net.Peer() is not first, first.instance == net.Peer().instance, flush=True)
    assert first.launch().launched and first.port not in (None, port)
    first.close()
"""


def test_children_of_children_each_have_a_peer_of_their_own(script, port_range):
    done = run_python(*MAY_FORK, script(GENERATIONS), NET_PORT_START=port_range.start)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        str(port_range[0]), *(f"{port} True True" for port in port_range[1:4])]


IMPORTING = """
import os, threading
from pathlib import Path
import net

begun = threading.Event()
goes_on = threading.Event()
Path(__file__).with_name("slowly.py").write_text(
    "from __main__ import begun, goes_on; begun.set(); goes_on.wait(); done = True")

@net.connect
def load():
    import slowly

threading.Thread(target=load).start()
begun.wait()
threading.Timer(0.05, goes_on.set).start()
pid = os.fork()
if not pid:
    import slowly
    os._exit(7 if slowly.done else 1)
print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="as CPython imports")
def test_a_fork_waits_for_what_a_call_imports(script):
    assert run_python(*MAY_FORK, script(IMPORTING)).stdout == "7\n"


SECURED = """
import sys
import net
from net.link import security

@net.connect("add")
def add(a, b): ...

security.credentials()
before = set(sys.modules)
assert add(1, 2, peer=(sys.argv[1], int(sys.argv[2]))) == 3
print(sorted(name for name in set(sys.modules) - before if name.startswith("net.")))
"""


def test_what_a_secured_connection_needs_is_loaded_with_the_credentials(peer_process):
    """Where each thread that connects loaded it, a fork could leave it half loaded in the child."""
    peer = peer_process("""
        import net
        @net.connect("add")
        def add(a, b): return a + b
    """, NET_SECRET="correct horse battery")
    host, port = peer.address
    done = run_python("-c", SECURED, host, str(port), NET_SECRET="correct horse battery",
                      NET_LAUNCH="0")
    assert done.stdout == "[]\n"


FORGETFUL = """
import os
import net

peer = net.Peer()
if os.fork():
    os._exit(os.WEXITSTATUS(os.wait()[1]))
peer.launch()
if os.fork():
    os._exit(os.WEXITSTATUS(os.wait()[1]))
print(peer.launched, peer.port, flush=True)
"""


def test_a_peer_that_was_launched_again_in_a_child_is_forgotten_in_its_child(script, port_range):
    done = run_python(*MAY_FORK, script(FORGETFUL), NET_PORT_START=port_range.start)
    assert (done.stdout, done.stderr) == ("False None\n", "")


def test_fork_in_a_function_that_is_called_leaves_its_caller_one_reply(peer_process):
    process = peer_process("""
        import os, net

        @net.connect("sample tag of its own")
        def forking(value):
            pid = os.fork()
            if not pid:
                os._exit(0)
            return [os.waitpid(pid, 0)[1], value]
    """)
    for number in range(5):
        assert sample.renamed(number, peer=process.id) == [0, number]


MULTIPROCESSING = """
import multiprocessing, os, socket, sys
import net, sample

@net.connect
def in_main():
    return os.getpid()

def work(parent, other):
    # Calls need no peer of one's own, and no worker takes a port for having loaded this file.
    launched = [sample.where(peer=parent), sample.where(peer=other), in_main(peer=parent)]
    server = net.process.process.peer
    return os.getpid(), launched, server is not None and server.launched

def use_a_peer(parent):
    identity = net.Peer().id
    return os.getpid(), sample.where(peer=identity), identity != parent

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    parent, other = net.Peer().id, {other!r}
    assert sample.where(peer=other) == {pid}
    with context.Pool(3) as pool:
        for pid, called, launched in pool.starmap(work, [(parent, other)] * 6, chunksize=1):
            assert pid != os.getpid()
            assert called == [os.getpid(), {pid}, os.getpid()]
            assert not launched
        for port in range(net.PORT_START + 1, net.PORT_START + net.PORT_RANGE + 1):
            socket.create_server(("127.0.0.1", port)).close()
        ((pid, served, own),) = pool.map(use_a_peer, [parent])
        assert pid == served and own
    assert sample.where(peer=parent) == os.getpid()
    print("well")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_call_and_take_no_port(method, other, script, port_range):
    path = script(MULTIPROCESSING.format(other=other.id, pid=other.pid))
    done = run_python(*MAY_FORK, path, method, NET_PORT_START=port_range.start)
    assert (done.stdout, done.stderr) == ("well\n", "")


# ----------------------------------------------------------------------------------- what remains

def test_1000_connects_leave_no_thread_and_no_descriptor(sample_process):
    process = sample_process()
    before = sample.threads(peer=process.id)
    for number in range(1000):
        with socket.create_connection(process.address, timeout=patience(5)) as sock:
            sock.sendall((b"", b"e", b"\xabnet\x01", b"GET / HTTP/1.1\r\n\r\n")[number % 4])
            sock.shutdown(socket.SHUT_WR)
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                pass
    deadline = time.monotonic() + 5
    while sample.threads(peer=process.id) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sample.threads(peer=process.id) == before
    assert process.errors() == ""


def test_calls_from_many_threads_leave_no_thread_there(sample_process):
    process = sample_process()
    before = sample.threads(peer=process.id)[0]
    threads = [threading.Thread(target=sample.wait, args=(0.1,), kwargs={"peer": process.id})
               for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = sample.threads(peer=process.id)[0]
    # Their connections wait in the pool here for the next calls; a thread each is all there is.
    assert after - before <= 40
