"""``python3 -m net listen`` in a process of its own, as a user runs it."""
from __future__ import annotations

import json
import os
import signal
from functools import partial

import pytest

from hearing import PUBLISHER, wait_for_subscribers
from processes import INTERRUPTED
from times import patience


@pytest.fixture
def listen(program):
    return partial(program, "-m", "net", "listen")


def test_events_are_printed_as_they_come(peer_process, listen):
    publisher = peer_process(PUBLISHER)
    listener = listen("number")
    assert listener.stderr.readline() == "listening to 'number' of all peers; Ctrl-C ends it\n"
    wait_for_subscribers(publisher, 1)
    publisher.execute("number((1, 'two\\x1b[31m'))")
    line = listener.stdout.readline()
    assert line.endswith(f"127.0.0.1:{publisher.address[1]} ((1, 'two\\x1b[31m'),) {{}}\n"), line
    listener.send_signal(signal.SIGINT)
    assert listener.wait(patience(5)) in INTERRUPTED
    assert listener.stderr.read() == ""


def test_it_says_whom_it_hears_and_tells_scripts_in_json(peer_process, listen):
    publisher = peer_process(PUBLISHER, NET_GROUP="farm")
    listener = listen("number", "--group", "farm", "--on-host", "--json")
    assert "'number' of all peers on this host of the group farm;" in listener.stderr.readline()
    wait_for_subscribers(publisher, 1)
    publisher.execute("number(7)")
    heard = json.loads(listener.stdout.readline())
    assert heard.pop("time")
    assert heard == {"peer": f"127.0.0.1:{publisher.address[1]}", "event": "number",
                     "args": [7], "kwargs": {}}


def test_missed_events_are_reported(peer_process, listen):
    publisher = peer_process(PUBLISHER, NET_NAME="studio")
    listener = listen("number", "studio")
    assert f"'number' of 127.0.0.1:{publisher.address[1]};" in listener.stderr.readline()
    wait_for_subscribers(publisher, 1)
    publisher.execute("number(0)")
    assert listener.stdout.readline().endswith("(0,) {}\n")
    publisher.kill()
    again = peer_process(PUBLISHER, NET_PORT_START=publisher.address[1], NET_PORT_RANGE=0)
    wait_for_subscribers(again, 1)
    again.execute("number(1)")
    assert "-- some events missed" in listener.stdout.readline()
    assert listener.stdout.readline().endswith("(1,) {}\n")


@pytest.mark.skipif(os.name != "posix", reason="SIGPIPE is of POSIX")
def test_it_ends_when_nobody_reads(peer_process, listen):
    publisher = peer_process(PUBLISHER)
    listener = listen("number")
    listener.stderr.readline()
    wait_for_subscribers(publisher, 1)
    listener.stdout.close()
    publisher.execute("many(0, 10)")
    assert listener.wait(patience(5)) == 0
    assert listener.stderr.read() == ""


@pytest.mark.parametrize("arguments, error", [
    (["number", "here:0"], "InvalidPeer"), (["a\nb"], "printable"), ([], "required: EVENT")])
def test_bad_usage_is_explained(listen, arguments, error):
    listener = listen(*arguments)
    assert error in listener.communicate(timeout=patience(10))[1]
    assert listener.returncode in (1, 2)
