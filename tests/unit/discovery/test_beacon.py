"""Datagrams: who is answered, how often, and what is believed."""
from __future__ import annotations

import socket
import threading

import pytest

from net.discovery.lan import beacon
from net.discovery.lan.beacon import (GOODBYE, HELLO, HERE, MAX_SOURCES, PACKET,
                                      REPLIES_PER_SECOND, WHO, Beacon, Rate, Responder,
                                      decode, encode)

NONCE = bytes(range(16))
ASKER = ("192.168.1.20", 40000)


class FakeKeeper:
    """What a responder needs to know, written down, and what it reports."""

    def __init__(self, in_use=True, known=()):
        self.used = in_use
        self.known = set(known)
        self.looked = []
        self.event = threading.Event()

    def in_use(self):
        return self.used

    def knows(self, address):
        return address in self.known

    def look_at(self, address):
        self.looked.append(address)
        self.event.set()


@pytest.fixture
def keeper():
    return FakeKeeper()


@pytest.fixture
def responder(keeper):
    return Responder(3010, False, keeper)


def test_who_asks_gets_its_nonce_back_and_the_port():
    reply, address = Responder(3012, False, FakeKeeper()).reply(encode(WHO, 0, NONCE), ASKER, 0)
    assert address == ASKER and decode(reply) == (HERE, 3012, NONCE)


def test_a_reply_says_nothing_but_that_a_peer_is_there(responder):
    reply, _ = responder.reply(encode(WHO, 0, NONCE), ASKER, 0)
    assert reply == encode(HERE, 3010, NONCE)


@pytest.mark.parametrize("extra", [0, 1, 500])
def test_a_reply_is_never_longer_than_the_question(responder, extra):
    question = encode(WHO, 0, NONCE) + bytes(extra)
    reply, _ = responder.reply(question, ASKER, 0)
    assert len(reply) <= len(question)


@pytest.mark.parametrize("datagram", [
    b"", b"\xab", encode(WHO, 0, NONCE)[:-1], b"x" + encode(WHO, 0, NONCE)[1:],
    PACKET.pack(beacon.MAGIC, 2, WHO, 0, NONCE), PACKET.pack(beacon.MAGIC, 1, 99, 0, NONCE),
    b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n", bytes(2000),
])
def test_anything_else_is_not_answered(responder, keeper, datagram):
    assert responder.reply(datagram, ASKER, 0) is None
    assert keeper.looked == []


def test_an_answer_is_never_answered(responder):
    assert responder.reply(encode(HERE, 3010, NONCE), ASKER, 0) is None


def test_two_responders_cannot_be_made_to_talk_to_each_other(keeper):
    first, second = Responder(3010, False, keeper), Responder(3011, False, keeper)
    datagram, source = encode(WHO, 0, NONCE), ("10.0.0.1", 3010)
    exchanged = 0
    while exchanged < 10:
        reply = (second if exchanged % 2 == 0 else first).reply(datagram, source, 0)
        if reply is None:
            break
        datagram, source = reply[0], ("10.0.0.2", 3011)
        exchanged += 1
    assert exchanged == 1


def test_one_source_gets_twenty_replies_in_any_second(responder):
    question = encode(WHO, 0, NONCE)
    times = [number / 100 for number in range(300)]
    replied = [now for now in times if responder.reply(question, ASKER, now)]
    for start in times:
        assert len([now for now in replied if start <= now < start + 1]) <= REPLIES_PER_SECOND
    assert len(replied) == 3 * REPLIES_PER_SECOND


def test_other_sources_are_answered_meanwhile(responder):
    question = encode(WHO, 0, NONCE)
    for _ in range(100):
        responder.reply(question, ASKER, 0)
    assert responder.reply(question, ("192.168.1.21", 1), 0)


def test_the_memory_for_sources_is_bounded_and_used_again():
    rate = Rate()
    allowed = [rate.allows(f"source {number}", 0.0) for number in range(MAX_SOURCES + 10)]
    assert allowed.count(True) == MAX_SOURCES and not allowed[-1]
    assert rate.allows("source 1", 0.5), "who is known is answered all the same"
    assert rate.allows("late", 2.0)


def test_a_peer_that_keeps_to_this_host_knows_no_other(keeper):
    responder = Responder(3010, True, keeper)
    assert responder.reply(encode(WHO, 0, NONCE), ASKER, 0) is None
    assert responder.reply(encode(HELLO, 3011, NONCE), ("192.168.1.20", 3011), 0) is None
    assert responder.reply(encode(WHO, 0, NONCE), ("127.0.0.1", 5), 0)


def test_a_hello_is_believed_only_after_that_address_gave_a_nonce_back(responder, keeper):
    question, address = responder.reply(encode(HELLO, 3011, NONCE), ("10.0.0.9", 5353), 0)
    assert address == ("10.0.0.9", 3011) and keeper.looked == []
    kind, _, nonce = decode(question)
    assert kind == WHO
    responder.reply(encode(HERE, 3011, nonce), ("10.0.0.8", 3011), 0)
    responder.reply(encode(HERE, 3012, nonce), ("10.0.0.9", 3012), 0)
    assert keeper.looked == [], "the nonce is good for the address that it was sent to only"
    responder.reply(encode(HERE, 3011, nonce), ("10.0.0.9", 3011), 0)
    assert keeper.looked == [("10.0.0.9", 3011)]


def test_forged_hellos_send_no_more_than_twenty_datagrams_a_second_to_their_victim(responder):
    sent = [responder.reply(encode(HELLO, 3010 + n % 6, NONCE), ("10.0.0.9", 1), 0)
            for n in range(500)]
    assert len([one for one in sent if one]) == REPLIES_PER_SECOND


def test_nobody_follows_announcements_before_anybody_searched():
    responder = Responder(3010, False, FakeKeeper(in_use=False))
    assert responder.reply(encode(HELLO, 3011, NONCE), ("10.0.0.9", 3011), 0) is None


def test_the_own_hello_that_a_broadcast_brings_back_is_not_answered(responder):
    hello = encode(HELLO, 3010, responder.mark)
    assert responder.reply(hello, ("192.168.1.10", 3010), 0) is None


def test_a_goodbye_has_only_known_peers_looked_at():
    keeper = FakeKeeper(known=[("10.0.0.9", 3011)])
    responder = Responder(3010, False, keeper)
    for port in (3010, 3011, 0):
        responder.reply(encode(GOODBYE, port, NONCE), ("10.0.0.9", 1), 0)
    assert keeper.looked == [("10.0.0.9", 3011)]


@pytest.fixture
def lit(port_range):
    """Start a beacon on loopback; closed with the test."""
    opened = []

    def start(port=port_range.start, keeper=None):
        opened.append(Beacon("127.0.0.1", port, port_range, keeper or FakeKeeper()))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def ask(port, datagram=encode(WHO, 0, NONCE)):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(("127.0.0.1", 0))
        sock.sendto(datagram, ("127.0.0.1", port))
        return sock.recvfrom(2048)


def test_a_running_beacon_answers_from_its_port(lit, port_range):
    lit()
    datagram, source = ask(port_range.start)
    assert decode(datagram) == (HERE, port_range.start, NONCE)
    assert source == ("127.0.0.1", port_range.start)


def test_noise_does_not_stop_a_beacon(lit, port_range):
    lit()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for size in (0, 1, 24, 2000, 20000):
            sock.sendto(b"\xab" * size, ("127.0.0.1", port_range.start))
    assert ask(port_range.start)


def test_a_closed_beacon_frees_its_port_and_says_goodbye(lit, port_range):
    keeper = FakeKeeper(known=[("127.0.0.1", port_range.start + 1)])
    lit(keeper=keeper)
    leaving = lit(port_range.start + 1)
    leaving.close()
    leaving.close()
    assert keeper.event.wait(5) and keeper.looked[0] == ("127.0.0.1", port_range.start + 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port_range.start + 1))


def test_a_newcomer_is_looked_at_by_those_who_are_there(lit, port_range):
    keeper = FakeKeeper()
    lit(keeper=keeper)
    lit(port_range.start + 1)
    assert keeper.event.wait(5)
    assert keeper.looked[0] == ("127.0.0.1", port_range.start + 1)


def test_a_taken_port_is_an_error_and_leaves_nothing(port_range):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port_range.start))
        with pytest.raises(OSError):
            Beacon("127.0.0.1", port_range.start, port_range, FakeKeeper())


def test_a_beacon_without_a_thread_is_an_error_and_leaves_nothing(port_range, keeper, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(OSError, match="can't start new thread"):
            Beacon("127.0.0.1", port_range[0], port_range, keeper)
    assert not [one for one in beacon._open if one._address[1] == port_range[0]]


def test_announcements_of_a_loopback_peer_go_to_loopback_only():
    assert beacon.announcements("127.0.0.1") == [("127.0.0.1", "127.0.0.1")]
    assert beacon.announcements("127.0.0.5") == [("127.0.0.5", "127.0.0.1")]
    assert beacon.announcements("192.168.1.10") == [("192.168.1.10", "255.255.255.255")]
