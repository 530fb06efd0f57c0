"""The example and the documented pieces of code about events, run as they are."""
from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hearing import ask, until
from processes import environment
from times import patience

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "frames.py"
PAGE = ROOT / "docs" / "events.rst"

#: The functions of the original documentation, which returned a name that it left out.
DOCUMENTED = {
    "group1 peers": """
group1_peers = net.peers(groups=['group1'])

@net.subscribe("some_event", group1_peers)
def your_function(subscription_args, subscription_kwarg=None):
    heard.append((subscription_args, subscription_kwarg))
    return some_value
""",
    "a single peer": """
peer = net.peers()[0]

@net.subscribe("some_event", peer)
def your_function(subscription_args, subscription_kwarg=None):
    heard.append((subscription_args, subscription_kwarg))
    return some_value
""",
    "all peers": """
@net.subscribe("some_event")
def your_function(subscription_args, subscription_kwarg=None):
    heard.append((subscription_args, subscription_kwarg))
    return some_value
""",
}

EVENT = """
import net

@net.event("some_event")
def trigger(value):
    return (value,), {"subscription_kwarg": "more"}
"""


@pytest.mark.parametrize("example", DOCUMENTED.values(), ids=DOCUMENTED.keys())
def test_the_documented_subscriptions_hear(peer_process, example):
    publisher = peer_process(EVENT, NET_GROUP="group1")
    process = peer_process("import net\nheard, some_value = [], 5\n" + example)
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS)"))
    assert ask(publisher, "trigger('said')") == (("said",), {"subscription_kwarg": "more"})
    until(lambda: ask(process, "heard") == [("said", "more")])


def start(port_range, *arguments: str, **settings: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), *arguments], text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=environment(NET_PORT_START=port_range.start, **settings))


def test_workers_render_all_frames_even_if_one_is_killed(port_range):
    workers = [start(port_range, "worker") for _ in range(2)]
    hub = start(port_range, "hub", "12", NET_IS_HUB="1")
    processes = [hub, *workers]
    try:
        for _ in range(3):
            assert re.match(r"frame \d+ by 127\.0\.0\.1:\d+\n", hub.stdout.readline())
        workers[0].kill()
        # A late one joins in.
        processes.append(start(port_range, "worker"))
        output, errors = hub.communicate(timeout=patience(15))
        assert (hub.returncode, errors) == (0, "")
        # Whether the killed and the late one had their turn depends on the machine; a late one that
        # has missed the end goes on.
        assert re.search(r"^12 frames by [123] workers$", output, re.M)
        assert workers[1].wait(patience(5)) == 0
        processes[-1].kill()
        assert [worker.communicate()[1] for worker in (workers[1], processes[-1])] == ["", ""]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


BLOCK = re.compile(r"^\.\. code-block:: (python|pycon)\n\n((?:    .*\n|\n)+)", re.M)


def blocks(kind: str) -> list[str]:
    return [re.sub(r"^    ", "", body, flags=re.M)
            for found, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if found == kind]


def test_the_page_about_events_is_true(peer_process):
    event, hear, some, missed = blocks("python")
    publisher = peer_process(event, NET_GROUP="group1")
    process = peer_process(hear)
    until(lambda: ask(publisher, "len(net.Peer().SUBSCRIPTIONS)"))
    call, stats = [doctest.DocTestParser().get_examples(block)[0] for block in blocks("pycon")]
    assert repr(ask(publisher, call.source)) + "\n" == call.want
    assert process.read_line() == "127.0.0.1 has rendered frame 42 of sc01"
    publisher.execute("net.flush()")
    assert stats.source == "print(net.stats())\n"
    printed = ask(publisher, "str(net.stats())").replace(str(process.address[1]), "3011")
    assert [line.split() for line in printed.splitlines()[:2]] == [
        line.split() for line in stats.want.splitlines()[:2]]
    # The rest of the page, in one process that has such a peer.
    other = peer_process("import net\nsome_value = 5\n" + some + missed)
    until(lambda: [len(tags) for tags in ask(
        publisher, "list(net.Peer().SUBSCRIPTIONS.get('some_event', {}).values())")] == [3])
    assert ask(other, "len(net.peers(groups=['group1']))") == 1
