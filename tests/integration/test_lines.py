"""Whatever a command of ``app-net`` says in a terminal, its lines fit; elsewhere they are whole."""
from __future__ import annotations

import json
import re
import signal
from typing import Iterator, List, Tuple

import pytest

import net.testing
from net.cli import COMMANDS
from net.tables import display_width
from terminal import Terminal, run_net
from wordy_app import WORDS

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs a pseudo-terminal")

# PEER is an address of a peer, DEAD one of none, LONG a word of more than a hundred letters.
LONG = 15 * "longer-"

#: Commands that end by themselves, one after the other in one process.
ENDING: List[List[str]] = [
    ["--help"], ["--version"], [], ["nonsense-" + LONG],
    *([name, "--help"] for name in COMMANDS), ["peers", "--" + LONG], ["serve"],
    ["serve", "no_module_" + LONG.replace("-", "_")],
    ["peers"], ["peers", LONG],
    ["functions"], ["functions", "any", "wordy.render_all_of_it"], ["functions", "any", LONG],
    ["call", "any", "wordy.render_all_of_it", "sc01"], ["call", "any", "wordy.values"],
    ["call", "any", "wordy.wide"], ["call", "any", "wordy.items"], ["call", "all", "wordy.items"],
    ["call", "all", "wordy.values"], ["call", "nobody " + LONG, "f"],
    ["call", "any", "f", "[" + LONG],
    ["ping", "-n", "1"], ["ping", "DEAD", "-n", "1"],
    ["stats"], ["top", "-n", "1", "--every", "0.1"], ["metrics"], ["metrics", "PEER", "DEAD"],
    ["router", "--listen", "tls/127.0.0.1:1"], ["router", "--allow", LONG],
    ["doctor"], ["doctor", "PEER"], ["doctor", "DEAD"],
    ["announce", LONG, "--wait", "0.1"], ["secret"],
    *(["completion", shell] for shell in ("bash", "zsh", "fish")),
]
#: Command that has a process of its own, and what it shows before it is interrupted.
RUNNING: List[Tuple[List[str], str]] = [
    (["serve", "wordy_app", "--all"], "ends it"),
    (["listen", LONG, "--group", "g" + LONG], "ends it"), (["metrics", "--port", "0"], "ends it"),
    (["router", "--listen", "tcp/127.0.0.1:FREE"], "other routers"),
    (["demo"], "That is all"),
]

# Runs commands that stand as JSON in its argument; before each one there is a line that names it.
PROGRAM = """
import json, sys
from net.cli import main
from net.settings import settings
for words in json.loads(sys.argv[1]):
    print("== app-net", " ".join(words)[:40], flush=True)
    settings.__dict__["timeout"] = None
    try:
        main(words)
    except SystemExit:
        pass
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """That of a peer with the application of wordy_app.py."""
    with net.testing.peers(1, app="wordy_app", name="a name of several words") as [peer]:
        yield peer.address[1]


def too_long(text: str, columns: int) -> List[str]:
    found, command = [], ""
    for line in text.replace("\r", "").split("\n"):
        command = line if line.startswith("== ") else command
        if display_width(line) > columns:
            found.append(f"{command}: {line}")
    return found


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_what_ends_has_lines_that_fit(port, columns):
    places = {"PEER": f"127.0.0.1:{port}", "DEAD": f"127.0.0.1:{port + 4}"}
    words = [[places.get(word, word) for word in one] for one in ENDING]
    with Terminal(json.dumps(words), columns=columns, program=("-c", PROGRAM),
                  NET_PORT_START=port, NET_PORT_RANGE=5) as terminal:
        assert terminal.end(60) == 0, terminal.text[-2000:]
    shown = terminal.plain
    assert not too_long(shown, columns)
    assert shown.count("== app-net") == len(ENDING)
    # All of the words are there, wherever the lines end.
    told = "".join(shown.split())
    for text in (3 * WORDS, "or in another one.", "on the line it is on", "AnErrorWithALongName",
                 LONG, "PeerUnreachable"):
        assert "".join(text.split()) in told


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("words, shown", RUNNING, ids=[words[0] for words, _ in RUNNING])
def test_what_runs_has_lines_that_fit(port, columns, words, shown):
    if words[0] == "router":
        pytest.importorskip("zenoh")
    words = [word.replace("FREE", str(port + 5)) for word in words]
    with Terminal(*words, columns=columns, NET_PORT_START=port, NET_PORT_RANGE=5) as terminal:
        terminal.wait_for_pattern(shown.replace(" ", r"\s+"))
        terminal.signal(signal.SIGINT)
        terminal.end()
    assert not too_long(terminal.plain, columns)


def test_what_is_heard_has_lines_that_fit(port):
    place = {"NET_PORT_START": port, "NET_PORT_RANGE": 5}
    with Terminal("listen", "done", columns=60, **place) as listening:
        listening.wait_for("listening to")
        done = run_net("announce", "done", 3 * WORDS, "--wait", "30", **place)
        assert done.code == 0, done
        listening.wait_for_pattern(r"\{\}")
        assert not too_long(listening.plain, 60)


def test_nothing_is_broken_where_nobody_looks(port):
    place = {"NET_PORT_START": port, "NET_PORT_RANGE": 5, "COLUMNS": 60}
    done = run_net("call", "any", "wordy.render_all_of_it", "sc01", **place)
    assert done.out == 3 * WORDS + "\n"
    assert run_net("call", "any", "wordy.values", **place).out.count("\n") == 1
    described = run_net("functions", "any", "wordy.render_all_of_it", **place).out
    assert "    an example of it, indented, with more words than there is room for" in described
    assert max(map(len, run_net("metrics", **place).out.splitlines())) > 60
    pong = run_net("ping", "any", "-n", "1", **place).out
    assert re.fullmatch(r"127.0.0.1:\d+  .* ms  app-net .*  calls \d+  connections .*\n", pong)
