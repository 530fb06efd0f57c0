"""``app-net functions``, ``ping``, ``stats``, ``announce`` and ``doctor PEER``."""
from __future__ import annotations

import json
import re
import signal

import pytest

from terminal import Terminal, run_net

STUDIO = """
    from __future__ import annotations
    import net

    @net.connect("studio.multiply")
    def multiply(a: int, b: str = "x") -> int:
        \"\"\"Multiply two numbers.

        With care.
        \"\"\"
        return a * b

    @net.connect("studio.count", groups=["farm"])
    def count(n):
        yield n
"""


@pytest.fixture
def studio(peer_process, port_range):
    return peer_process(STUDIO, NET_NAME="workstation 7")


@pytest.fixture
def command(studio, port_range):
    def run(*words, **more):
        return run_net(*words, NET_PORT_START=port_range.start, **more)
    return run


def test_functions_have_signatures_descriptions_and_groups(studio, command):
    lines = command("functions").out.splitlines()
    assert lines[0] == f"127.0.0.1:{studio.address[1]}"
    assert [line.split("  ", 1)[0] for line in lines[2:]] \
        == ["studio.count(n)", "studio.multiply(a: int, b: str = 'x') -> int"]
    assert "farm" in lines[2] and lines[3].endswith("Multiply two numbers.")
    told, = command("functions", "workstation 7", "--json").json
    assert told["functions"]["studio.count"] \
        == {"signature": "(n)", "doc": "", "groups": ["farm"], "kind": "generator"}
    one = command("functions", "any", "multiply")
    assert one.out == "studio.multiply(a: int, b: str = 'x') -> int\n\n" \
                      "Multiply two numbers.\n\nWith care.\n"
    assert "With care." in command("functions", "any", "multiply", "--json").json["doc"]
    assert command("functions", "any", "count").out.startswith("stream studio.count(n)\nfor peers")
    missing = command("functions", "any", "nonsense")
    assert missing.code == 1 and not missing.out and "nonsense" in missing.err


def test_a_peer_keeps_to_itself_what_its_functions_are_like(peer_process, port_range):
    peer_process(STUDIO, NET_DESCRIBE="names")
    told, = run_net("functions", "--json", NET_PORT_START=port_range.start).json
    assert {name: (facts["signature"], facts["doc"]) for name, facts in told["functions"].items()} \
        == {"studio.count": ("(...)", ""), "studio.multiply": ("(...)", "")}


def test_all_functions_of_a_peer_with_many_are_shown_page_by_page(peer_process, port_range):
    peer_process("""
        import net

        def described(number):
            def function(x): "..."
            function.__doc__ = "x" * 150
            return function

        for number in range(1500):
            net.connect(f"many.function{number:04}")(described(number))
    """)
    told, = run_net("functions", "--json", NET_PORT_START=port_range.start).json
    assert list(told["functions"]) == [f"many.function{number:04}" for number in range(1500)]


def test_ping_tells_round_trip_version_and_load(studio, command):
    done = command("ping", "-n", "2", "--json")
    assert done.code == 0 and len(done.lines) == 2
    assert all(one["peer"] == f"127.0.0.1:{studio.address[1]}" and one["ms"] > 0
               and one["calls"] == 0 and one["version"] for one in done.lines)
    shown = command("ping", f"127.0.0.1:{studio.address[1]}", "-n", "1")
    assert shown.code == 0 and " ms  app-net 1" in shown.out and "1 of 1 answered" in shown.err


def test_ping_goes_on_until_ctrl_c(studio, port_range):
    with Terminal("ping", "any", NET_PORT_START=port_range.start) as terminal:
        terminal.wait_for("load")
        terminal.signal(signal.SIGINT)
        assert terminal.end() == 0
    assert re.search(r"\d of \d answered", terminal.text) and "Traceback" not in terminal.text


def test_ping_is_a_probe_of_readiness(studio, command, port_range):
    dead = f"127.0.0.1:{port_range[5]}"
    done = command("ping", dead, "-n", "1")
    assert done.code == 1 and not done.out and "PeerUnreachable" in done.err
    assert command("ping", dead, "-n", "1", "--json").lines[0]["error"]["ran"] == "no"


def test_ping_tells_of_a_frozen_peer_within_the_timeout(studio, command):
    studio.signal(signal.SIGSTOP)
    done = command("ping", f"127.0.0.1:{studio.address[1]}", "-n", "1", "--timeout", "0.3")
    assert done.code == 1 and not done.out
    studio.signal(signal.SIGCONT)


def test_stats_of_a_peer_are_its_own(studio, command):
    for _ in range(3):
        command("call", "any", "multiply", "2", "3")
    told, = command("stats", "any", "--json").json
    assert told["connections"]["studio.multiply"]["calls"] == 3
    assert told["process"]["calls"] == 0
    shown = command("stats").out
    assert "studio.multiply" in shown and "calls now" in shown


def test_what_is_announced_is_heard(program, port_range):
    listener = program("-m", "net", "listen", "done", "--json")
    listener.stderr.readline()
    done = run_net("announce", "done", "[1, 2]", "shot=sc01", "--json", "--wait", "30",
                   NET_PORT_START=port_range.start)
    assert done.code == 0 and len(done.json["taken"]) == 1
    heard = json.loads(listener.stdout.readline())
    assert heard["args"] == [[1, 2]] and heard["kwargs"] == {"shot": "sc01"}


def test_an_event_without_subscribers_is_reported(port_range):
    done = run_net("announce", "done", "--wait", "0.3", NET_PORT_START=port_range.start)
    assert done.code == 1 and not done.out and "no peer has subscribed" in done.err
    assert run_net("announce", "a\nb", NET_PORT_START=port_range.start).code == 2


def test_doctor_tries_both_directions_to_one_peer(studio, command, port_range):
    done = command("doctor", "workstation 7", "--json")
    assert done.code == 0
    there, back = done.json["directions"]
    assert not there["problem"] and not back["problem"] and back["seen"] == "a peer answers"
    dead = command("doctor", f"127.0.0.1:{port_range[5]}")
    assert dead.code == 1 and "refused" in dead.out and "no peer runs there" in dead.out
    there, back = command("doctor", f"127.0.0.1:{port_range[5]}", "--json").json["directions"]
    assert there["problem"] and back["seen"].startswith("not tried")


def test_doctor_names_the_peer_that_cannot_reach_this_host(peer_process, port_range):
    # Its connections back always fail.
    peer_process(STUDIO + """
    import net.process
    from net.errors import PeerUnreachable

    def connect(address, timeout):
        raise PeerUnreachable(address, "no answer within 3 s")
    net.process.process.client.connect = connect
    """)
    done = run_net("doctor", f"127.0.0.1:{port_range[0]}", NET_PORT_START=port_range.start)
    assert done.code == 1 and "a peer answers" in done.out.splitlines()[0]
    assert "no answer within 3 s" in done.out and "must let in TCP" in done.out


def test_a_secured_peer_has_one_cause(peer_process, port_range):
    pytest.importorskip("cryptography")
    peer_process(STUDIO, NET_SECRET="a secret of many characters")
    examined = run_net("doctor", "--json", NET_PORT_START=port_range.start)
    about = [cause for cause in examined.json["causes"] if str(port_range[0]) in cause["cause"]]
    assert len(about) == 1 and "NET_SECRET" in about[0]["remedy"]
    named = run_net("doctor", f"127.0.0.1:{port_range[0]}", NET_PORT_START=port_range.start)
    assert named.code == 1 and "NET_SECRET" in named.out
