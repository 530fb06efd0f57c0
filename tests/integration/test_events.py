"""Events between real processes: in order, once, without gaps, whatever the subscribers do."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hearing import (PUBLISHER, SUBSCRIBER, ask, subscriber, until, wait_for_subscribers,
                     wait_until_heard)
from hostile import Subscriber, message
from net.wire.frames import EVENT, FAILED, TAKEN, pack
from processes import PeerProcess, run_python
from times import patience

#: Times that are short enough for a test; what they decide stays the same.
IMPATIENT = """
from net.events import feeds
feeds.NO_PROGRESS, feeds.PATIENCE = 1.0, 0.5
"""


@pytest.fixture
def publisher(peer_process) -> PeerProcess:
    return peer_process(PUBLISHER)


@pytest.fixture
def impatient(peer_process) -> PeerProcess:
    return peer_process(PUBLISHER + IMPATIENT)


def fates(publisher: PeerProcess, event: str = "number") -> dict[int, dict[str, int]]:
    """Port of each subscriber -> what became of its events."""
    return ask(publisher, "{peer.port: count for peer, count in "
                          f"net.stats()['events'][{event!r}]['subscribers'].items()}}")


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last))


# ------------------------------------------------------------------------- order and number


def test_every_subscriber_hears_every_event_in_order(publisher, peer_process):
    subscribers = [peer_process(subscriber(publisher)) for _ in range(3)]
    taken = ask(publisher, "many(0, 5000)")
    for process in subscribers:
        assert wait_until_heard(process, 5000) == numbers(0, 5000)
    assert taken < 2.0


def test_events_of_several_publishers_each_stay_in_order(peer_process):
    publishers = [peer_process(PUBLISHER) for _ in range(3)]
    subscribers = [peer_process(subscriber(*publishers)) for _ in range(2)]
    for place, process in enumerate(publishers):
        process.execute(f"many({place * 10_000}, {place * 10_000 + 3000})")
    for process in subscribers:
        heard = wait_until_heard(process, 9000)
        for place in range(3):
            first = place * 10_000
            own = [value for value in heard if first <= value < first + 10_000]
            assert own == numbers(first, first + 3000)


def test_events_from_many_threads_come_once_each(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("""
        threads = [threading.Thread(target=many, args=(one * 1000, one * 1000 + 1000))
                   for one in range(8)]
        [thread.start() for thread in threads]
    """)
    heard = wait_until_heard(process, 8000)
    assert sorted(heard) == numbers(0, 8000)
    for one in range(8):
        assert [value for value in heard if value // 1000 == one] == \
            numbers(one * 1000, one * 1000 + 1000)


def test_values_come_as_they_were(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    value = {"shot": ("sc01", 42), "tags": {"wet"}, 7: b"\x00\xff" * 10_000, "text": "x" * 9000}
    publisher.execute(f"number({value!r})")
    assert wait_until_heard(process, 1) == [value]


def test_what_the_caller_changes_afterwards_is_not_sent(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("""
        data = bytearray(b"x" * 100_000)
        number(data)
        data[:] = b"y" * 100_000
    """)
    until(lambda: ask(process, "len(heard)"))
    assert ask(process, "type(heard[0]).__name__, set(heard[0])") == ("bytearray", {ord("x")})


def test_the_trigger_returns_what_the_function_did(publisher):
    assert ask(publisher, "number(5)") == ((5,), {})


def test_a_value_that_cannot_travel_fails_where_it_is_triggered(publisher):
    publisher.execute("""
        try:
            number([1, {"lock": threading.Lock()}])
        except net.ValueNotSupported as problem:
            print(repr(str(problem)), flush=True)
    """)
    assert "args[0][1]['lock']" in publisher.read_line()


# ----------------------------------------------------------------------- coming and going


def test_a_subscriber_of_all_peers_hears_one_that_comes_later(peer_process):
    process = peer_process(subscriber())
    publisher = peer_process(PUBLISHER)
    wait_for_subscribers(publisher, 1)
    publisher.execute("many(0, 100)")
    assert wait_until_heard(process, 100) == numbers(0, 100)


def test_a_subscriber_of_all_peers_hears_one_that_was_there_before(publisher, peer_process):
    process = peer_process(subscriber())
    wait_for_subscribers(publisher, 1)
    publisher.execute("many(0, 100)")
    assert wait_until_heard(process, 100) == numbers(0, 100)


def test_a_subscriber_of_all_peers_hears_its_own_process_too(peer_process):
    both = peer_process(PUBLISHER + SUBSCRIBER.format(options=""), NET_GROUP="blue")
    wait_for_subscribers(both, 1)
    both.execute("many(0, 100)")
    assert wait_until_heard(both, 100) == numbers(0, 100)
    both.execute("net.Peer().close(); net.Peer().launch()")
    wait_for_subscribers(both, 1)
    both.execute("many(100, 200)")
    assert wait_until_heard(both, 200)[-100:] == numbers(100, 200)


def test_a_subscriber_of_others_does_not_hear_its_own_process(publisher, peer_process):
    both = peer_process(PUBLISHER + subscriber(publisher))
    red = peer_process(PUBLISHER + SUBSCRIBER.format(options="groups='red', "), NET_GROUP="blue")
    wait_for_subscribers(publisher, 1)
    for process in (both, red):
        process.execute("many(0, 3)")
    publisher.execute("many(100, 103)")
    assert wait_until_heard(both, 3) == numbers(100, 103)
    assert ask(red, "heard") == []


def test_groups_and_hubs_are_chosen(peer_process):
    blue = peer_process(PUBLISHER, NET_GROUP="blue")
    hub = peer_process(PUBLISHER, NET_GROUP="blue", NET_IS_HUB="1")
    red = peer_process(PUBLISHER, NET_GROUP="red", NET_IS_HUB="1")
    process = peer_process(subscriber(more="groups=['blue'], hubs_only=True, on_host=True, "))
    wait_for_subscribers(hub, 1)
    # Had they been wanted, they would have been subscribed to by now.
    for one in (blue, red):
        until(lambda one=one: ask(process, f"{one.id!r} in net.peers()"))
        assert ask(one, "net.Peer().SUBSCRIPTIONS") == {}
        one.execute("number(1)")
    hub.execute("number(2)")
    assert wait_until_heard(process, 1) == [2]


def test_a_publisher_that_restarts_is_subscribed_to_again(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("many(0, 10)")
    assert wait_until_heard(process, 10) == numbers(0, 10)
    publisher.kill()
    again = peer_process(PUBLISHER, NET_PORT_START=publisher.address[1], NET_PORT_RANGE=0)
    assert again.id == publisher.id
    wait_for_subscribers(again, 1)
    again.execute("many(100, 110)")
    gap = ("gap", "number", publisher.address[1], None)
    assert wait_until_heard(process, 21) == [*numbers(0, 10), gap, *numbers(100, 110)]


def test_a_subscriber_that_restarts_is_a_new_one(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("many(0, 10)")
    wait_until_heard(process, 10)
    process.kill()
    again = peer_process(subscriber(publisher), NET_PORT_START=process.address[1],
                         NET_PORT_RANGE=0)
    wait_for_subscribers(publisher, 1)
    publisher.execute("many(10, 20)")
    assert wait_until_heard(again, 10) == numbers(10, 20)


def test_a_killed_subscriber_is_forgotten_at_once(publisher, peer_process):
    process, other = peer_process(subscriber(publisher)), peer_process(subscriber(publisher))
    process.kill()
    began = time.monotonic()
    publisher.execute("number(1)")
    wait_for_subscribers(publisher, 1)
    assert time.monotonic() - began < patience(2.0)
    assert wait_until_heard(other, 1) == [1]


def test_unsubscribing_ends_it_and_can_be_taken_back(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("number(1)")
    assert wait_until_heard(process, 1) == [1]
    process.execute("net.unsubscribe('number', hear)")
    wait_for_subscribers(publisher, 0)
    publisher.execute("number(2)")
    process.execute(f"net.subscribe('number', {publisher.id!r})(hear)")
    wait_for_subscribers(publisher, 1)
    publisher.execute("number(3)")
    assert wait_until_heard(process, 2) == [1, 3]
    names = ask(process, "[thread.name for thread in threading.enumerate()]")
    assert names.count("net-handlers") == 1


def test_a_handler_subscribed_twice_hears_once(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    process.execute(f"net.subscribe('number', [{publisher.id!r}])(hear)")
    process.execute("net.subscribe('number')(hear)")
    assert ask(process, "len(net.peers(refresh=True))") == 1
    publisher.execute("many(0, 50)")
    assert wait_until_heard(process, 50) == numbers(0, 50)
    assert ask(publisher, "[len(tags) for peers in net.Peer().SUBSCRIPTIONS.values() "
                          "for tags in peers.values()]") == [1]


def test_two_handlers_hear_the_same_event_each_with_its_own_values(publisher, peer_process):
    process = peer_process(subscriber(publisher) + f"""
others = []
@net.subscribe("number", {publisher.id!r})
def change(value):
    others.append(list(value))
    value.clear()
""")
    publisher.execute("number([1]), number([2])")
    assert wait_until_heard(process, 2) == [[1], [2]]
    assert until(lambda: len(found := ask(process, "others")) == 2 and found) == [[1], [2]]


def test_a_process_can_hear_itself(peer_process):
    process = peer_process(PUBLISHER + """
heard = []
net.subscribe("number", net.Peer().id)(heard.append)
""")
    process.execute("many(0, 10)")
    assert wait_until_heard(process, 10) == numbers(0, 10)


# --------------------------------------------------------------------- slow subscribers


def test_a_slow_handler_does_not_end_its_subscription(impatient, peer_process):
    # Three times as long as nothing may be taken.
    process = peer_process(subscriber(impatient) + """
@net.subscribe("number", %r)
def slow(value):
    time.sleep(3.0)
""" % impatient.id)
    impatient.execute("many(0, 300)")
    time.sleep(1.5)  # what it takes, it has taken by now
    impatient.execute("many(300, 400)")
    assert ask(impatient, "net.flush(5)") == {}
    assert fates(impatient)[process.address[1]] == {"sent": 400, "queued": 0, "dropped": 0}
    assert ask(impatient, "net.stats()['cut off']") == 0


def test_a_slow_subscriber_is_cut_off_and_the_others_are_not(impatient, peer_process):
    other = peer_process(subscriber(impatient))
    slow = peer_process(subscriber(impatient) + """
time_of = {"sleep": 0.05}
@net.subscribe("number", %r)
def slow(value):
    time.sleep(time_of["sleep"])
""" % impatient.id)
    wait_for_subscribers(impatient, 2)
    impatient.execute("many(0, 10_000)")
    assert wait_until_heard(other, 10_000) == numbers(0, 10_000)
    until(lambda: ask(impatient, "net.stats()['cut off']"))
    port = slow.address[1]
    assert fates(impatient)[port]["dropped"] > 0  # how many had left depends on the machine
    assert fates(impatient)[other.address[1]]["dropped"] == 0
    until(lambda: "cut off" in impatient.errors())
    assert impatient.errors().count("cut off") == 1
    # Once it has caught up it is there again, and knows how many it has missed.
    slow.execute("time_of['sleep'] = 0")
    wait_for_subscribers(impatient, 2)
    impatient.execute("number('end')")
    until(lambda: ask(slow, "heard[-1]") == "end")
    heard = ask(slow, "heard")
    place = [type(value) for value in heard].index(tuple)
    assert heard == [*numbers(0, place), ("gap", "number", impatient.address[1], 10_000 - place),
                     "end"]


def test_a_frozen_subscriber_delays_nobody_and_is_cut_off(publisher, peer_process):
    frozen, other = peer_process(subscriber(publisher)), peer_process(subscriber(publisher))
    wait_for_subscribers(publisher, 2)
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    assert ask(publisher, "many(0, 20_000)") < 5.0
    assert wait_until_heard(other, 20_000) == numbers(0, 20_000)
    wait_for_subscribers(publisher, 1)
    # More than the queue holds, for two seconds.
    assert time.monotonic() - began < patience(12.0)
    until(lambda: "cut off the subscriber" in publisher.errors())
    frozen.signal(signal.SIGCONT)
    wait_for_subscribers(publisher, 2)
    publisher.execute("number('end')")
    until(lambda: ask(frozen, "heard[-1:]") == ["end"])
    heard = ask(frozen, "heard")
    place = [type(value) for value in heard].index(tuple)
    assert heard == [*numbers(0, place), ("gap", "number", publisher.address[1], 20_000 - place),
                     "end"]


def test_a_frozen_subscriber_of_few_events_is_cut_off_for_taking_nothing(impatient, peer_process):
    frozen = peer_process(subscriber(impatient))
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    impatient.execute("number(1)")
    wait_for_subscribers(impatient, 0)
    assert 1.0 <= time.monotonic() - began < patience(5.0)
    until(lambda: "taken nothing" in impatient.errors())


def test_the_memory_of_a_publisher_does_not_grow_with_a_frozen_subscriber(publisher, peer_process):
    frozen = peer_process(subscriber(publisher))
    publisher.execute("""
        def memory():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if "VmRSS" in line) / 1024

        def pour(megabytes):
            most = 0
            for _ in range(megabytes):
                number(os.urandom(2 ** 20))
                most = max(most, memory())
            return most
    """)
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    before = ask(publisher, "pour(20)")
    frozen.signal(signal.SIGSTOP)
    most = ask(publisher, "pour(300)", 15)
    # 64 MiB may wait for a subscriber in a burst, and 8 MiB for the thread that sends.
    assert most - before < 100
    wait_for_subscribers(publisher, 0)


def test_a_subscriber_that_reads_nothing_is_cut_off(impatient):
    """A stranger's program that subscribes and then never reads again."""
    with Subscriber(impatient.address):
        assert ask(impatient, "many(0, 500)") < 1.0
        wait_for_subscribers(impatient, 0)
        until(lambda: "taken nothing" in impatient.errors())


@pytest.mark.parametrize("answer, text", [
    (message(TAKEN, 2, None), "EVENT frame 2 is acknowledged, which is not on its way"),
    (message(TAKEN, 1, None) * 2, "EVENT frame 1 is acknowledged, which is not on its way"),
    (message(TAKEN, 1, 5), "acknowledgement of events is a text or nothing"),
    (message(TAKEN, 1, "no such class"), "cannot take 1 events 'number': no such class"),
    (message(EVENT, 1, ["number", 1, [], {}]), "a frame of kind 13 may not come now"),
    (b"HTTP/1.1 400 Bad Request\r\n", "what came starts with b'HTTP"),
    (pack(TAKEN, 1, b"x" * 300_000)[0], "JSON text of a message"),
    (message(FAILED, 0, {"failures": "text"}), "failures are at most 100"),
], ids=["one that was not sent", "twice", "a number", "unreadable", "an event", "no frame",
        "too large", "failures"])
def test_a_subscriber_that_answers_nonsense_disturbs_no_other(publisher, peer_process, answer,
                                                              text):
    publisher.execute("logging.getLogger('net').setLevel(logging.INFO)")
    hearer = peer_process(subscriber(publisher))
    with Subscriber(publisher.address) as stranger:
        wait_for_subscribers(publisher, 2)
        ask(publisher, "number(1)")
        assert stranger.frame().kind == EVENT
        stranger.send(answer)
        until(lambda: text in publisher.errors())
        ask(publisher, "number(2)")
        assert wait_until_heard(hearer, 2) == [1, 2]


def test_flush_says_what_was_not_taken(publisher, peer_process):
    frozen = peer_process(subscriber(publisher))
    other = peer_process(subscriber(publisher))
    frozen.signal(signal.SIGSTOP)
    publisher.execute("many(0, 100)")
    wait_until_heard(other, 100)
    left = ask(publisher, "{peer.port: counts for peer, counts in net.flush(0.5).items()}")
    assert left == {frozen.address[1]: {"number": 100}}
    assert fates(publisher) == {
        frozen.address[1]: {"sent": 0, "queued": 100, "dropped": 0},
        other.address[1]: {"sent": 100, "queued": 0, "dropped": 0}}
    frozen.signal(signal.SIGCONT)
    assert ask(publisher, "net.flush()") == {}
    assert wait_until_heard(frozen, 100) == numbers(0, 100)


# ------------------------------------------------------------------------------- failures


def test_a_handler_that_raises_is_reported_to_the_publisher_and_hears_on(publisher, peer_process):
    process = peer_process(subscriber(publisher) + f"""
@net.subscribe("number", {publisher.id!r})
def broken(value):
    raise ValueError(f"no \x1b[31m{{value}}")
""")
    publisher.execute("many(0, 3)")
    assert wait_until_heard(process, 3) == [0, 1, 2]
    until(lambda: publisher.errors().count("ValueError: no") == 3)
    line = publisher.errors().splitlines()[0]
    assert "application.broken" in line and "'number'" in line
    assert f"{process.address[0]}:{process.address[1]}" in line
    assert "\x1b" not in publisher.errors()
    until(lambda: process.errors().count("raise ValueError") == 3)
    facts = ask(process, "net.stats()['connections']['application.broken']")
    assert facts["calls"] == facts["errors"] == 3


def test_a_handler_that_exits_ends_nothing(publisher, peer_process):
    process = peer_process(subscriber(publisher) + f"""
@net.subscribe("number", {publisher.id!r})
def leave(value):
    raise SystemExit(1)
""")
    publisher.execute("many(0, 3)")
    assert wait_until_heard(process, 3) == [0, 1, 2]
    until(lambda: "SystemExit" in publisher.errors())


def test_an_event_that_a_subscriber_cannot_read_is_a_gap(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("""
        import enum
        @net.value("Only here")
        class Colour(enum.Enum):
            RED = 1
        number(1), number(Colour.RED), number(3)
    """)
    gap = ("gap", "number", publisher.address[1], 1)
    assert wait_until_heard(process, 3) == [1, gap, 3]
    until(lambda: "cannot take" in publisher.errors())
    until(lambda: fates(publisher)[process.address[1]] == {"sent": 2, "queued": 0, "dropped": 1})


# ------------------------------------------------------------------------- exit and forks


def test_events_triggered_just_before_the_end_still_leave(peer_process, port_range):
    process = peer_process(subscriber())
    script = PUBLISHER + """
while not net.Peer().SUBSCRIPTIONS.get("number"):
    time.sleep(0.01)
many(0, 3000)
"""
    began = time.monotonic()
    run_python("-c", script, NET_PORT_START=port_range.start)
    assert wait_until_heard(process, 3000) == numbers(0, 3000)
    assert time.monotonic() - began < patience(10.0)


def test_an_exit_with_a_frozen_subscriber_takes_two_seconds(peer_process):
    publisher = peer_process(PUBLISHER)
    frozen = peer_process(subscriber(publisher))
    frozen.signal(signal.SIGSTOP)
    ask(publisher, "many(0, 100)")
    began = time.monotonic()
    assert publisher.close(6.0) == 0
    assert 1.5 < time.monotonic() - began < patience(5.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_nothing_and_disturbs_nothing(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("""
        many(0, 10)
        child = os.fork()
        if not child:
            many(1000, 1010)
            os._exit(len(net.Peer(launch=False).SUBSCRIPTIONS) + len(net.flush(1)))
        print(os.waitpid(child, 0)[1], flush=True)
        many(10, 20)
    """)
    assert publisher.read_line() == "0"
    assert wait_until_heard(process, 20) == numbers(0, 20)


def test_a_process_without_a_peer_subscribes_when_it_gets_one(publisher, peer_process):
    process = peer_process("import net\nnet.configure(launch=False)\n" + subscriber(publisher)
                           + "net.Peer().launch()\n")
    wait_for_subscribers(publisher, 1)
    publisher.execute("number(1)")
    assert wait_until_heard(process, 1) == [1]


def test_a_closed_peer_lets_its_subscribers_go_and_can_come_back(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("number(1), net.Peer().close()")
    assert wait_until_heard(process, 1) == [1]
    assert ask(publisher, "net.Peer().SUBSCRIPTIONS") == {}
    publisher.execute("net.Peer().launch()")
    wait_for_subscribers(publisher, 1)
    publisher.execute("number(2)")
    assert wait_until_heard(process, 2) == [1, 2]


# ---------------------------------------------------------------------------- and the rest


def test_a_secret_protects_events_too(peer_process):
    pytest.importorskip("cryptography")
    secret = {"NET_SECRET": "a secret of many characters"}
    publisher = peer_process(PUBLISHER, **secret)
    process = peer_process(subscriber(publisher), **secret)
    stranger = peer_process(subscriber(publisher))
    publisher.execute("many(0, 2000)")
    assert wait_until_heard(process, 2000) == numbers(0, 2000)
    publisher.execute("number('x' * 3_000_000)")
    until(lambda: ask(process, "len(heard[-1]) if len(heard) > 2000 else 0") == 3_000_000)
    assert ask(stranger, "heard") == []


def test_stats_are_readable(publisher, peer_process):
    process = peer_process(subscriber(publisher))
    publisher.execute("many(0, 1234), net.flush()")
    text = ask(publisher, "str(net.stats())")
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["event", "triggered", "subscriber", "sent", "queued", "dropped"]
    assert rows[1] == ["number", "1,234", f"127.0.0.1:{process.address[1]}", "1,234", "0", "0"]
    assert rows[3] == ["function", "calls", "errors", "seconds", "p50", "ms", "p99", "ms"]
    assert ["net.defaults.handlers.info", "1", "0"] in [row[:3] for row in rows]
    assert ask(publisher, "(lambda stats: repr(stats) == str(stats))(net.stats())")
    assert ask(publisher, "net.stats()._repr_html_()").startswith("<table>")
