"""Each command of ``app-net`` once in a pseudo-terminal, and once for a script."""
from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest

import net.testing
from net.cli import COMMANDS, main
from processes import INTERRUPTED, environment
from terminal import Done, Terminal, run_net

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs a pseudo-terminal")


class Session(NamedTuple):
    """A command in a terminal.

    :ivar shown: a regular expression for what it shows; then it is interrupted, or typed to.
    :ivar codes: exit codes that it may have.
    """

    words: str
    shown: str
    typed: str = ""
    interrupt: bool = False
    codes: Any = (0,)


#: PORT is that of the peer that there is, FREE one that is free.
SESSIONS: Dict[str, Session] = {
    "demo": Session("", "That is all"),
    "serve": Session("json:dumps", "serving at .*: json.dumps; Ctrl-C", interrupt=True),
    "peers": Session("", "127.0.0.1:PORT .* workstation 7"),
    "functions": Session("any farm.render", r"farm.render\(shot: str\) -> str"),
    "call": Session("any farm.render sc01", "sc01 rendered"),
    "listen": Session("done", "listening to 'done' of all peers", interrupt=True,
                      codes=INTERRUPTED),
    "announce": Session("done --wait 0.1", "no peer has subscribed", codes=(1,)),
    "ping": Session("any -n 1", "app-net 1.* load(.|\n)*1 of 1 answered"),
    "stats": Session("any", "calls now"),
    "top": Session("", "calls/s(.|\n)*127.0.0.1:PORT", typed="x"),
    "metrics": Session("", "net_up.*127.0.0.1:PORT(.|\n)*# EOF"),
    "router": Session("--listen tcp/127.0.0.1:FREE", "router at ", interrupt=True),
    "doctor": Session("", "127.0.0.1:PORT(.|\n)*workstation 7"),
    "secret": Session("", r"[\w-]{40,}"),
    "completion": Session("bash", "-F _app_net app-net"),
}

#: Command with ``--json`` -> its words, and whether its data, a value in each line, are right.
DATA: Dict[str, tuple[str, Callable[[List[Any]], bool]]] = {
    "peers": ("", lambda said: said[0][0]["label"] == "workstation 7"),
    "functions": ("any farm.render", lambda said: said[0]["signature"] == "(shot: str) -> str"),
    "call": ("any farm.frames 2", lambda said: said == [0, 1]),
    "ping": ("any -n 1", lambda said: said[0]["ms"] > 0),
    "stats": ("any", lambda said: said[0][0]["process"]["calls"] == 0),
    "top": ("-n 1 --every 0.1", lambda said: said[0][0]["peer"].startswith("127.0.0.1:")),
    "doctor": ("", lambda said: len(said[0]["peers"]) == 1),
    "secret": ("", lambda said: len(said[0]["secret"]) >= 40),
    "metrics": ("any", lambda said: said[0][0]["up"] and said[0][0]["process"]["calls"] == 0),
    "demo": ("--timeout 30", lambda said: [one["step"] for one in said] == list(range(1, 9))
             and said[2]["results"]["multiply(5, some_kwarg=10, peer=peer)"] == 50
             and 0 < said[7]["results"]["a small call to the other process"] < 30),
}
#: The same of those that go on until Ctrl-C: what they say once they are up.
RUNNING: Dict[str, tuple[str, Callable[[Any], bool]]] = {
    "serve": ("json:dumps --timeout 5", lambda said: said["functions"] == ["json.dumps"]
              and said["address"].endswith(str(said["port"])) and said["pid"] > 0),
    "metrics": ("--port 0", lambda said: said["url"].startswith("http://127.0.0.1:")),
    "router": ("--listen tcp/127.0.0.1:FREE", lambda said: said["routers"] == 0
               and said["listen"][0].startswith("tcp/127.0.0.1:")),
}
#: These two talk to each other.
PAIR = {"listen", "announce"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """That of a peer with the application of farm.py."""
    with net.testing.peers(1, app="farm", name="workstation 7") as [peer]:
        yield peer.address[1]


def test_none_is_left_out():
    assert list(SESSIONS) == list(COMMANDS)
    assert {*DATA, *RUNNING, *PAIR} == {
        name for name, command in COMMANDS.items() if command.json is not None}


@pytest.mark.parametrize("name", SESSIONS)
def test_in_a_terminal(port, name):
    if name == "router":
        pytest.importorskip("zenoh")
    session = SESSIONS[name]
    words = session.words.replace("FREE", str(port + 5)).split()
    with Terminal(name, *words, columns=120, NET_PORT_START=port, NET_PORT_RANGE=5) as terminal:
        if session.typed or session.interrupt:
            terminal.wait_for_pattern(session.shown.replace("PORT", str(port)))
        terminal.type(session.typed)
        if session.interrupt:
            terminal.signal(signal.SIGINT)
        assert terminal.end() in session.codes, terminal.text
    assert re.search(session.shown.replace("PORT", str(port)), terminal.plain)
    assert "Traceback" not in terminal.plain or name == "demo"


@pytest.mark.parametrize("name", DATA)
def test_for_a_script(port, name):
    words, is_right = DATA[name]
    done = run_net(name, *words.split(), "--json", NET_PORT_START=port, NET_PORT_RANGE=5)
    assert done.code == 0 and is_right(done.lines), done


@pytest.mark.parametrize("name", RUNNING)
def test_for_a_script_that_waits_for_it(port, name):
    if name == "router":
        pytest.importorskip("zenoh")
    words, is_right = RUNNING[name]
    words = words.replace("FREE", str(port + 5))
    with Terminal(name, *words.split(), "--json", NET_PORT_START=port,
                  NET_PORT_RANGE=5) as terminal:
        terminal.wait_for("}\n")
        terminal.signal(signal.SIGINT)
        assert terminal.end() == 0
    assert is_right(json.loads(terminal.text.splitlines()[0])), terminal.text


#: Commands for which it would do nothing.
NO_TIMEOUT = {"router", "secret", "completion"}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_is_there_where_it_does_something(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ("--json" in said) == (name != "completion")
    assert ("--timeout SECONDS" in said) == (name not in NO_TIMEOUT)


#: What goes wrong -> the exit code and the type of the error.
WRONG = {
    "nonsense": (2, "Usage"), "peers --nonsense": (2, "Usage"), "call any": (2, "Usage"),
    "call any echo [1": (2, "Usage"), "peers nobody": (1, "Failed"),
    "call any nonsense": (1, "TooFewPeers"), "functions any nonsense": (1, "Failed"),
    "functions DEAD": (1, "PeerUnreachable"), "stats DEAD": (1, "PeerUnreachable"),
    "metrics DEAD": (1, "Failed"), "top host:x": (2, "InvalidPeer"),
    "announce done --wait 0.1": (1, "Failed"), "serve no_module": (2, "Usage"),
    "serve broken_app": (1, "Failed"), "router --listen tls/127.0.0.1:1": (2, "SettingError"),
    "metrics --host nonsense.invalid --port 0": (1, "Failed"),
}
# Runs the commands that stand as JSON in its argument; prints what each has given.
PROGRAM = """
import contextlib, io, json, sys
from net.cli import main
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*words.split(), "--json"])
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def test_with_json_errors_are_json_and_data_is_apart(port, tmp_path):
    (tmp_path / "broken_app.py").write_text("1 / 0\n")
    words = [one.replace("DEAD", f"127.0.0.1:{port + 4}") for one in WRONG]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)], cwd=tmp_path, text=True, check=True,
        env=environment(NET_PORT_START=port, NET_PORT_RANGE=5), stdout=subprocess.PIPE)
    lines = ran.stdout.splitlines()
    assert len(lines) == len(WRONG)
    for (given, (code, kind)), line in zip(WRONG.items(), lines):
        done = Done(*json.loads(line))
        *more, error = done.err.splitlines()
        assert done.code == code and json.loads(error)["error"]["type"] == kind, (given, done)
        assert all(line.startswith("waiting for") for line in more), (given, done)
        assert not done.out or json.loads(done.out) is not None
        if given in ("functions DEAD", "stats DEAD"):
            assert done.out == "[]\n" and json.loads(error)["peer"]
        if given == "serve broken_app":
            assert "ZeroDivisionError" in json.loads(error)["error"]["traceback"]


def test_listening_ends_when_nothing_comes_for_that_long(port):
    done = run_net("listen", "nothing of that name", "--timeout", "0.2", NET_PORT_START=port,
                   NET_PORT_RANGE=5)
    assert (done.code, done.out) == (1, "") and "no event came within 0.2 s" in done.err


def test_events_for_a_script(port):
    place = {"NET_PORT_START": port, "NET_PORT_RANGE": 5}
    with Terminal("listen", "done", "--json", **place) as listening:
        listening.wait_for("listening to")
        done = run_net("announce", "done", "1", "--wait", "30", "--json", **place)
        assert done.code == 0 and len(done.json["taken"]) == 1, done
        listening.wait_for("}\n")
        assert json.loads(listening.text.splitlines()[-1])["args"] == [1]
