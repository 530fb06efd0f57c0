"""Each command of ``app-net`` once in a pseudo-terminal, and once for a script."""
from __future__ import annotations

import json
import re
import signal
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest

import net.testing
from net.cli import COMMANDS
from processes import INTERRUPTED
from terminal import Terminal, run_net

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
    "stats": ("any", lambda said: "farm.render" in said[0][0]["connections"]),
    "top": ("-n 1 --every 0.1", lambda said: said[0][0]["peer"].startswith("127.0.0.1:")),
    "doctor": ("", lambda said: len(said[0]["peers"]) == 1),
    "secret": ("", lambda said: len(said[0]["secret"]) >= 40),
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
    assert {*DATA, *PAIR} == {name for name, command in COMMANDS.items() if command.has_json}


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


def test_events_for_a_script(port):
    place = {"NET_PORT_START": port, "NET_PORT_RANGE": 5}
    with Terminal("listen", "done", "--json", **place) as listening:
        listening.wait_for("listening to")
        done = run_net("announce", "done", "1", "--wait", "30", "--json", **place)
        assert done.code == 0 and len(done.json["taken"]) == 1, done
        listening.wait_for("}\n")
        assert json.loads(listening.text.splitlines()[-1])["args"] == [1]
