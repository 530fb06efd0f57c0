"""``app-net call``, in a terminal and for scripts."""
from __future__ import annotations

import json
import signal
from functools import partial

import pytest

import net.testing
from processes import INTERRUPTED
from terminal import Terminal, run_net

STUDIO = "from studio_app import *\n"


@pytest.fixture
def studio(peer_process, port_range):
    return peer_process(STUDIO, NET_NAME="workstation 7")


@pytest.fixture(scope="module")
def peer():
    """A peer that each test leaves as it is."""
    with net.testing.peers(1, app="studio_app", name="workstation 7") as [made]:
        yield made


@pytest.fixture
def call(peer):
    def run(*words, port=peer.address[1], **more):
        return run_net("call", *words, NET_PORT_START=port, **more)
    return run


def test_a_peer_is_an_address_or_a_name_or_any(peer, call):
    for peer in (f"127.0.0.1:{peer.address[1]}", peer.id.decode(), "workstation 7", "any"):
        for name in ("studio.multiply", "multiply"):
            done = call(peer, name, "5", "b=10")
            assert done == (0, "50\n", ""), done


def test_arguments_travel_as_they_are(call):
    done = call("any", "echo", "1", "(2, 3)", "x=null", "text", "--json", "data=-", stdin="[1.5]")
    assert done.code == 0 and done.json == [[1, [2, 3], "text"], {"x": None, "data": [1.5]}]


def test_all_peers_answer_with_their_addresses(peer_process, studio, call, port_range):
    other = peer_process(STUDIO)
    call = partial(call, port=port_range.start)
    ports = {studio.address[1], other.address[1]}
    done = call("all", "where", "--json")
    assert done.code == 0
    assert {(one["peer"], one["value"]) for one in done.lines} \
        == {(f"127.0.0.1:{port}", port) for port in ports}
    assert set(call("all", "where").out.splitlines()) \
        == {f"127.0.0.1:{port}: {port}" for port in ports}
    failed = call("all", "fail", "why", "--json")
    assert failed.code == 1 and [one["error"]["text"] for one in failed.lines] == ["why"] * 2
    studio.execute("go_on.set()")
    other.execute("go_on.set()")
    items = call("all", "studio.count", "3", "--json")
    assert items.code == 0 and len(items.lines) == 6 and all("item" in one for one in items.lines)


def test_a_stream_prints_as_it_comes_and_ctrl_c_ends_it(studio, port_range):
    with Terminal("call", "any", "studio.count", "2", NET_PORT_START=port_range.start) as terminal:
        terminal.wait_for("{'number': 0}\n")
        assert "{'number': 1}" not in terminal.text
        studio.execute("go_on.set()")
        assert terminal.end() == 0 and terminal.text.endswith("{'number': 1}\n")
        studio.execute("go_on.clear(); print('cleared')")
        assert studio.read_line() == "cleared"
    with Terminal("call", "any", "studio.count", "2", NET_PORT_START=port_range.start) as terminal:
        terminal.wait_for("{'number': 0}\n")
        terminal.signal(signal.SIGINT)
        assert terminal.end() in INTERRUPTED
        assert "Traceback" not in terminal.text
    studio.execute("go_on.set()")


def test_errors_come_with_the_remote_lines(call):
    done = call("any", "fail", "bad shot")
    assert done.code == 1 and not done.out
    assert "raise ValueError(text)" in done.err and done.err.endswith("ValueError: bad shot\n")
    assert done.err.count("ValueError: bad shot") == 1
    error = json.loads(call("any", "fail", "bad shot", "--json").err)["error"]
    assert error["type"] == "ValueError" and error["text"] == "bad shot" and error["ran"] == "yes"
    assert "raise ValueError(text)" in error["traceback"]


@pytest.mark.parametrize(
    "kind", ["coroutine", "stream", "async_stream", "executor", "executed_stream"])
def test_the_remote_lines_begin_with_the_function_whatever_runs_it(call, kind):
    done = call("any", f"studio.fail_in.{kind}", "bad shot")
    assert done.code == 1 and done.out == ("1\n" if "stream" in kind else "")
    first, second = done.err.splitlines()[:2]
    assert first == "Traceback (most recent call last):"
    assert second.endswith(f"in fail_in_{kind}") and "studio_app.py" in second, done.err
    assert done.err.endswith("ValueError: bad shot\n")


def test_text_and_bytes_are_themselves_in_a_pipe_and_harmless_in_a_terminal(call, peer):
    assert call("any", "paint").out == "\x1b[31mred\nnext\n"
    with Terminal("call", "any", "paint", NET_PORT_START=peer.address[1]) as terminal:
        assert terminal.end() == 0
    assert terminal.text == "\\x1b[31mred\nnext\n"
    with Terminal("call", "any", "raw", NET_PORT_START=peer.address[1]) as terminal:
        assert terminal.end() == 0
    assert terminal.text == "b'\\xff\\x00'\n"


def test_nothing_is_printed_for_nothing(call):
    assert call("any", "none") == (0, "", "")
    assert call("any", "none", "--json").json is None


@pytest.mark.parametrize("words, code, told", [
    (["nobody", "multiply", "1"], 1, "'workstation 7'"),
    (["any", "nonsense"], 1, "nonsense"),
    (["all", "nonsense"], 1, "nonsense"),
    (["workstation 7", "multipli"], 1, "did you mean 'studio.multiply'"),
    (["workstation 7", "count", "1"], 2, "other.count, studio.count"),
    (["any", "count", "1"], 2, "other.count, studio.count"),
    (["host:x", "multiply"], 2, "host:x"),
    (["any", "multiply", "[1"], 2, "neither JSON nor a Python literal"),
    (["any"], 2, "NAME")])
def test_what_makes_no_sense_is_explained(call, words, code, told):
    done = call(*words)
    assert done.code == code and not done.out and told in done.err, done


def test_a_timeout_ends_a_call(call):
    done = call("any", "studio.count", "2", "--timeout", "0.5")
    assert done.code == 1 and "CallTimeout" in done.err
