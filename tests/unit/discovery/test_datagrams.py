"""Datagrams: what is sent is read again, and nothing else makes sense."""
from __future__ import annotations

import math
import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given, strategies as st

from net.discovery.lan import datagrams
from net.discovery.lan.datagrams import (ANSWER, ASK, ASK_BYTES, HEAD, KINDS, LIST, MAX_DATAGRAM,
                                         MAX_DIGESTS, MAX_FACTS, NOBODY, SEALED, SEAL_BYTES, SIX,
                                         Entry, Message, Question, Seal, decode, digest, encode,
                                         encode_list, encode_question, encode_said, read_list,
                                         read_question, read_said)
from each import each

NONCE, INSTANCE = bytes(range(8)), bytes(range(16))
KEY = b"k" * 32

messages = st.builds(Message, st.sampled_from(KINDS),
                     st.integers(0, 255).map(lambda n: n & ~SEALED), st.integers(0, 65535),
                     st.binary(min_size=8, max_size=8),
                     st.binary(min_size=16, max_size=16), st.binary(max_size=200), st.just(0),
                     st.integers(0, 254).map(lambda n: n / 64) | st.just(math.inf))


@given(messages)
def test_a_message_is_read_as_it_was_written(message):
    data = encode(message)
    assert decode(data) == message._replace(size=len(data))


@given(messages)
def test_a_sealed_message_is_read_with_the_key_only(message):
    pytest.importorskip("cryptography")
    data = encode(message, Seal(KEY))
    assert message.instance not in data and len(data) == len(encode(message)) + SEAL_BYTES
    assert decode(data, Seal(KEY)) == message._replace(size=len(data),
                                                       flags=message.flags | SEALED)
    for stranger in (None, Seal(b"x" * 32)):
        found = decode(data, stranger)
        assert (found.instance, found.body) == (NOBODY, b"")


@each("age, read", [
    (0.0, 0.0), (0.01, 0.0), (0.5, 0.5), (3.97, 3.96875), (3.984, 3.96875),
    (3.99, math.inf), (1e9, math.inf), (math.inf, math.inf)])
def test_the_age_of_a_sender_is_never_more_than_it_is_until_it_makes_no_difference(age, read):
    assert decode(encode(Message(ANSWER, age=age))).age == read


def test_a_sealed_message_cannot_be_changed():
    pytest.importorskip("cryptography")
    data = encode(Message(ANSWER, 0, 3010, NONCE, INSTANCE, b"body"), Seal(KEY))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        found = decode(bytes(changed), Seal(KEY))
        assert found is None or found.instance == NOBODY


def test_with_a_secret_nothing_of_an_open_message_is_read_but_its_head():
    found = decode(encode(Message(ASK, 0, 3010, NONCE, INSTANCE, b"body")), Seal(KEY))
    assert (found.kind, found.port, found.nonce) == (ASK, 3010, NONCE)
    assert (found.instance, found.body) == (NOBODY, b"")


GOOD = encode(Message(ASK, 0, 0, NONCE, INSTANCE, encode_question()))


@each("data", [
    b"", b"\xab", GOOD[:HEAD.size - 1], GOOD[:HEAD.size + 15], b"x" + GOOD[1:],
    GOOD[:4] + b"\x01" + GOOD[5:], GOOD[:5] + b"\x00" + GOOD[6:], GOOD[:5] + b"\x63" + GOOD[6:],
    b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n", GOOD + bytes(MAX_DATAGRAM), bytes(2000)])
def test_anything_else_is_none_of_ours(data):
    assert decode(data) is None


@given(st.binary(max_size=1500))
def test_no_bytes_are_more_than_a_message_or_none(data):
    seal = Seal(KEY)
    for text in (data, GOOD[:6] + data, GOOD[:HEAD.size] + data):
        for one in (None, seal):
            message = decode(text, one)
            if message is not None:
                for read in (read_question, read_said, datagrams.read_sum):
                    read(message.body)
                read_list(message, ("fe80::1%eth0", 3010))


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=300), st.integers(0, 180),
       st.integers(1, 255), st.binary(min_size=8, max_size=8), st.integers(0, 2000))
def test_a_question_is_read_as_it_was_written_and_is_never_too_long(
        known, lease, period, permit, size):
    asked = Question(b"".join(known), lease, period / 10, permit)
    for seal in (False, True):
        body = encode_question(asked, size, seal)
        length = HEAD.size + 16 + len(body) + (SEAL_BYTES if seal else 0)
        assert min(size, MAX_DATAGRAM) <= length <= MAX_DATAGRAM
        found = read_question(body)
        assert found == asked._replace(known=asked.known[:MAX_DIGESTS * 4])
        for one in known[:MAX_DIGESTS]:
            assert found.knows(one)


def test_a_digest_is_found_only_where_one_begins():
    one, other = b"abcd", b"efgh"
    assert Question(one + other).knows(other)
    assert not Question(one + other).knows(b"cdef")
    assert Question(b"cdef" + one + b"bcde").knows(b"bcde")
    assert not Question().knows(one)


def test_a_digest_is_another_one_for_each_question():
    assert digest(INSTANCE, NONCE) != digest(INSTANCE, bytes(8)) != digest(bytes(16), bytes(8))


@given(st.binary(max_size=1600), st.integers(0, 1600))
def test_facts_are_said_where_there_is_room(facts, room):
    said = read_said(encode_said(facts, NONCE, room))
    assert (said.size, said.permit) == (len(facts), NONCE)
    assert said.facts == (facts if 0 < len(facts) <= room else None)


def test_the_longest_facts_fit_into_a_datagram():
    body = encode_said(b"x" * MAX_FACTS, NONCE, MAX_FACTS)
    assert len(encode(Message(ANSWER, 0, 1, NONCE, INSTANCE, body))) + SEAL_BYTES == MAX_DATAGRAM
    short = encode(Message(ASK, 0, 0, NONCE, INSTANCE, encode_question()))
    bare = encode(Message(ANSWER, 0, 1, NONCE, INSTANCE, encode_said(b"x" * 99, NONCE, 0)))
    assert len(bare) <= len(short) < ASK_BYTES


addresses = st.tuples(st.integers(1, 2**32 - 2).map(
    lambda number: ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)))
    | st.integers(1, 2**128 - 2).map(lambda number: str(IPv6Address(number))),
    st.integers(1, 65535))


def listed(entries, source=("10.0.0.1", 3010)):
    """What a receiver reads in the lists of these entries."""
    return [read_list(Message(LIST, flags, body=body), source)
            for flags, body in encode_list(entries)]


@given(st.lists(st.builds(Entry, addresses, st.binary(min_size=4, max_size=4)), max_size=400,
                unique_by=lambda entry: (IPv6Address(entry.address[0]) if ":" in entry.address[0]
                                         else entry.address[0], entry.address[1])))
def test_a_list_is_read_as_it_was_written_and_says_where_it_ends(entries):
    read = listed(entries)
    known = [Entry((usual(one.address[0]), one.address[1]), one.instance) for one in entries]
    assert sorted(entry for one in read for entry in one.entries) == sorted(known)
    for flags, body in encode_list(entries):
        datagram = encode(Message(LIST, flags, 3010, NONCE, INSTANCE, body))
        assert len(datagram) + SEAL_BYTES <= MAX_DATAGRAM
    families = {":" in entry.address[0] for entry in entries} or {False}
    assert sum(one.is_first for one in read) == len(families)
    for address in [entry.address for entry in entries] + [("10.1.2.3", 3010), ("fd00::1", 1)]:
        assert sum(one.covers(address) for one in read) == ((":" in address[0]) in families)
        assert all(one.covers(entry.address) for one in read for entry in one.entries)


def usual(host):
    """As sockets write an address."""
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)) \
        if ":" in host else host


def test_a_link_local_address_on_a_list_is_of_the_link_that_the_list_came_on():
    entries = [Entry(("fe80::7%eth0", 3010), b"abcd"), Entry(("fd00::7", 3010), b"efgh")]
    assert b"eth0" not in encode_list(entries)[0][1]
    found, = listed(entries, ("fe80::1%wlan1", 3010))
    assert {one.address[0] for one in found.entries} == {"fe80::7%wlan1", "fd00::7"}
    assert found.covers(("fe80::7%wlan1", 3010))
    found, = listed(entries)  # which link is not known, and nothing can be sent there
    assert {one.address[0] for one in found.entries} == {"fe80::7", "fd00::7"}


@each("flags, size", [(0, 11), (SIX, 35), (SIX, 12), (0, 0)])
def test_a_list_that_is_too_short_makes_no_sense(flags, size):
    assert read_list(Message(LIST, flags, body=bytes(size)), ("10.0.0.1", 3010)) is None
