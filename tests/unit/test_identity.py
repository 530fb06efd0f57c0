"""Peer ids, addresses, tags and flags: the documented forms, and every form that is none."""
from __future__ import annotations

import base64
import copy
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import net
from net import identity
from net.errors import InvalidPeer
from net.identity import (Flag, PeerId, address_of, decode_text, encode_text, make_id, make_tag,
                          printable, printable_block, public_module, tag_for_old_peer, tag_name,
                          tag_of_old_peer)
from each import each

ID = b"MTkyLjAuMi4xOjMwMTAgLT4gTm9uZQ=="  # 192.0.2.1:3010 -> None
GROUP_ID = b"MTkyLjAuMi4xOjMwMTAgLT4gZ3JvdXAx"  # 192.0.2.1:3010 -> group1


def coded(text: str) -> bytes:
    return base64.b64encode(text.encode("utf-8", "surrogatepass"))


# ----------------------------------------------------------------------------------- ids


def test_an_id_is_the_documented_text():
    assert make_id(3010, "192.0.2.1") == ID
    assert make_id(3010, "192.0.2.1", "group1") == GROUP_ID
    assert base64.b64decode(ID) == b"192.0.2.1:3010 -> None"


def test_an_id_says_what_it_stands_for():
    peer = PeerId(GROUP_ID)
    assert (peer.host, peer.port, peer.group) == ("192.0.2.1", 3010, "group1")
    assert (peer.address, peer.info, peer.hub) == (("192.0.2.1", 3010), {}, False)
    assert PeerId(ID).group is None
    assert PeerId(ID, {"hub": True}).hub is True
    assert PeerId(ID, {"hub": "yes"}).hub is False


def test_an_id_is_bytes_and_equals_them():
    peer = PeerId(ID)
    assert isinstance(peer, bytes) and peer == ID and hash(peer) == hash(ID)
    assert {peer: 1}[ID] == 1 and peer.decode() == ID.decode()
    assert "192.0.2.1:3010" in repr(peer) and "192.0.2.1:3010" in f"{peer}"


def test_an_id_can_be_pickled_and_copied():
    peer = PeerId(GROUP_ID, {"hub": True})
    for copied in (copy.copy(peer), copy.deepcopy(peer), pickle.loads(pickle.dumps(peer))):
        assert type(copied) is PeerId and copied == peer
        assert (copied.host, copied.port, copied.group, copied.info) == \
            (peer.host, peer.port, peer.group, peer.info)


hosts = st.sampled_from(["192.0.2.1", "localhost", "::1", "fe80::1%eth0", "a.b-c.example",
                         "h" * 253])
groups = st.none() | st.text(max_size=30).filter(lambda text: text != "None")


@given(hosts, st.integers(1, 65535), groups)
def test_every_id_says_what_it_was_made_of(host, port, group):
    peer = make_id(port, host, group)
    assert (peer.host, peer.port, peer.group) == (host, port, group)
    assert address_of(bytes(peer)) == address_of(peer.decode()) == address_of(peer) == (host, port)


def test_a_group_may_hold_what_separates_the_parts():
    assert make_id(1, "h", "a -> b:2").group == "a -> b:2"


# ------------------------------------------------------------------------------ addresses


@each("peer, address", [
    (ID, ("192.0.2.1", 3010)),
    (ID.decode(), ("192.0.2.1", 3010)),
    (PeerId(ID), ("192.0.2.1", 3010)),
    (("192.0.2.1", 3010), ("192.0.2.1", 3010)),
    (("192.0.2.1", "3010"), ("192.0.2.1", 3010)),
    (("::1", 3010), ("::1", 3010)),
    (("host.example", 1), ("host.example", 1)),
    (("localhost", 65535), ("localhost", 65535)),
    ("192.0.2.1:3010", ("192.0.2.1", 3010)),
    ("localhost:3010", ("localhost", 3010)),
    ("[::1]:3010", ("::1", 3010)),
    ("[fe80::1%eth0]:3010", ("fe80::1%eth0", 3010)),
    ("[FD00:0:0::1]:3010", ("fd00::1", 3010)),
    (("0:0:0:0:0:0:0:1", 3010), ("::1", 3010)),
    (coded("[fd00::1]:3010 -> None"), ("fd00::1", 3010)),
    ("host.example:00080", ("host.example", 80)),
], ids=repr)
def test_each_form_of_a_peer_names_an_address(peer, address):
    found = address_of(peer)
    assert found == address
    assert type(found[0]) is str and type(found[1]) is int


INVALID = [
    None, "", b"", 0, 5, 3010, True, 1.5, [], {}, set(), object(), int, ["192.0.2.1", 3010],
    bytearray(ID), memoryview(ID), (), ("h",), ("h", 1, 2), (1, "h"), ("", 1), (None, 1), (b"h", 1),
    ("h", None), ("h", ""), ("h", 0), ("h", -1), ("h", 65536), ("h", 1.0), ("h", True), ("h", "x"),
    ("h", "-1"), ("h", "0"), ("h", "65536"), ("h", "٣٠"), ("h", "1_0"), ("h", " 1"), ("h", b"1"),
    ("h", 10 ** 100), ("h", "9" * 5000), ("h h", 1), ("h\n", 1), ("h\0", 1), ("é", 1), ("h/x", 1),
    ("[::1]", 1), ("h" * 254, 1), ("\ud800", 1),
    "h", "h:", ":1", "h:0", "h:x", "h:65536", "h:-1", "h:1.5", "h: 1", "h :1", "::1:3010", "[::1]",
    "[::1]:", "[::1:3010", "::1]:3010", "http://h:1", "h:1:2", "é:1", "h:1\n", "\ud800", "é", "a b",
    "None", "x" * 5000, "x" * 5000 + ":1",
    ID[:-1], ID + b"=", ID + b"\n", b" " + ID, b"A" * 4000, b"\xff", b"=", b"====", b"AAAA",
    "\n" + ID.decode(), ID.decode() + " ", str(ID), repr(PeerId(ID)),
    coded(""), coded("h"), coded("h:1"), coded("h:1->None"), coded("h:1 - None"), coded("-> None"),
    coded(" -> "), coded(":1 -> None"), coded("h: -> None"), coded("h:0 -> None"),
    coded("h:65536 -> None"), coded("h:x -> None"), coded("h h:1 -> None"), coded("h\n:1 -> None"),
    coded("\x1b[31m:1 -> None"), coded("é:1 -> None"), coded("h:1 -> " + "g" * 5000),
    base64.b64encode(b"\xff\xfe:1 -> None"), base64.b64encode(b"h:1 -> \xff"),
    coded('{"connection": "x"}'), coded("null"),
    coded("fd00::1:3010 -> None"), coded("[fd00::1:3010 -> None"), coded("[h]:x -> None"),
    ("::g", 1), ("a:b", 1), "[::g]:1", "[a:b]:1", ("1:2", 1),
]


@each("peer", INVALID, ids=lambda peer: f"{type(peer).__name__} {peer!r:.30}")
def test_what_is_no_peer_is_refused_with_advice(peer):
    with pytest.raises(InvalidPeer) as caught:
        address_of(peer)
    assert isinstance(caught.value, ValueError)
    assert "is not a peer" in str(caught.value) and "Use a peer id" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    shown = caught.value.peer
    assert shown is peer or shown == peer


@each("peer", [peer for peer in INVALID if isinstance(peer, bytes)],
      ids=lambda peer: repr(peer)[:30])
def test_bytes_that_are_no_id_make_none(peer):
    with pytest.raises(InvalidPeer):
        PeerId(peer)


@each("given", [None, 5, 10 ** 12, [1, 2], "text", ID.decode(), bytearray(ID)],
      ids=repr)
def test_an_id_is_made_of_bytes_only(given):
    with pytest.raises(InvalidPeer, match="is no peer id"):
        PeerId(given)


@given(st.binary(max_size=60) | st.text(max_size=60).map(coded))
def test_any_bytes_are_an_id_or_refused(data):
    try:
        host, port = address_of(data)
    except InvalidPeer:
        return
    assert host and 1 <= port <= 65535


@given(st.text(max_size=40))
def test_any_text_is_a_peer_or_refused(text):
    try:
        address_of(text)
    except InvalidPeer:
        pass


# ------------------------------------------------------------------------------------ tags


@each("module, name, tag", [
    # As the documentation prints them.
    ("net.defaults.handlers", "null", b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLm51bGw="),
    ("net.defaults.handlers", "info", b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLmluZm8="),
    ("net.defaults.handlers", "pass_through", b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnBhc3NfdGhyb3VnaA=="),
    ("net.defaults.handlers", "subscription_handler",
     b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnN1YnNjcmlwdGlvbl9oYW5kbGVy"),
])
def test_tags_are_the_documented_ones_byte_for_byte(module, name, tag):
    assert make_tag(module, name) == tag
    assert tag_name(tag) == tag_name(tag.decode()) == f"{module}.{name}"


def test_flags_are_the_documented_ones_byte_for_byte():
    assert encode_text("NULL") == b"TlVMTA=="
    assert encode_text("INVALID_CONNECTION") == b"SU5WQUxJRF9DT05ORUNUSU9O"


# ------------------------------------------------------------- the name of the main program


def test_a_frozen_program_is_known_by_its_script_or_its_name(monkeypatch):
    assert public_module("__main__", {"__file__": "/tmp/x/studio.py"}) == "studio"
    assert public_module("__main__", {}) == "__main__"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/studio/Studio.exe")
    assert public_module("__main__", {}) == "Studio"


def test_what_is_no_file_is_no_name():
    for path in ("<stdin>", "<string>", "", None, 5):
        assert public_module("__main__", {"__file__": path}) == "__main__"
    assert public_module("__mp_main__", {"__file__": "a/b.c.py"}) == "b.c"
    assert public_module("other", {"__file__": "studio.py"}) == "other"


def test_old_peers_know_the_main_program_as_main(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "dir/studio.py")
    assert tag_of_old_peer(coded("__main__.f")) == coded("studio.f")
    assert tag_of_old_peer(coded("__main__.A.f")) == coded("studio.A.f")
    assert tag_for_old_peer(coded("studio.f")) == coded("__main__.f")
    for other in (b"\xff", b"", coded("other.f"), coded("MyTag"), coded("__main__")):
        assert tag_for_old_peer(other) == other
    for other in (b"\xff", b"", coded("other.f"), coded("MyTag")):
        assert tag_of_old_peer(other) == other


@given(st.lists(st.integers(0, 0x10ffff).map(chr), max_size=20).map("".join))
def test_any_text_comes_back_from_base64(text):
    assert decode_text(encode_text(text)) == decode_text(encode_text(text).decode()) == text


@each("data",
      ["?", "A", "QQ", "QQ=", "QQ==\n", "é", "\ud800", b"\xff", b"QQ==QQ==",
       b"Q Q=", base64.b64encode(b"\xff")], ids=repr)
def test_what_is_no_base64_of_text_is_refused(data):
    with pytest.raises(ValueError):
        decode_text(data)


@each("tag", ["?", b"\xff\x1b[0m", "é\n", "\ud800", b"", coded("\x1b[31m\0\n"),
              base64.b64encode(b"\xff"), b"x" * 10_000, coded("x" * 10_000)])
def test_a_tag_of_anybody_can_be_shown(tag):
    name = tag_name(tag)
    assert name.isprintable() and len(name) <= 203 or name.isprintable() and name.endswith("...")
    name.encode("utf-8")


# ----------------------------------------------------------------------------------- flags


def test_a_flag_keeps_its_details():
    flag = Flag(b"TlVMTA==", [1])
    assert flag == b"TlVMTA==" and flag.details == [1] and Flag(b"x").details is None
    copied = pickle.loads(pickle.dumps(flag))
    assert type(copied) is Flag and copied == flag and copied.details == [1]


# ------------------------------------------------------------------------ text for people


@each("text",
      ["\x1b[31m", "a\nb", "\0", "\x7f", "\u202e", "\ud800", "\x9b1m", "a\tb"])
def test_control_characters_are_escaped(text):
    assert printable(text).isprintable() and "\\" in printable(text)
    assert printable_block(text).replace("\n", "").isprintable()


def test_readable_text_stays_as_it_is():
    assert printable("naïve → 漢字 🙂") == "naïve → 漢字 🙂"
    assert printable_block("one\ntwo") == "one\ntwo"


def test_long_text_is_cut():
    assert printable("x" * 500) == "x" * 200 + "..."
    assert printable_block("a\n" * 50 + "the end", 20).endswith("the end")
    assert len(printable_block("x" * 10 ** 6)) < 2000


def test_the_longest_group_fits_an_id():
    assert len(make_id(65535, "h" * identity.MAX_HOST, "g" * 64)) < identity.MAX_ID
    assert net.PeerId is PeerId


def test_an_address_without_its_port_says_what_is_missing():
    for host in ("127.0.0.1", "localhost", "render1", "nas.lan"):
        with pytest.raises(InvalidPeer, match=f"needs a port, as in '{host}:3010'"):
            address_of(host)
    for text in ("", "x" * 400, "a\x1b", "\xe9" * 70):
        with pytest.raises(InvalidPeer, match="needs a port, as in 'host:3010'"):
            address_of(text)


def test_what_has_an_id_is_a_peer():
    class Named:
        id = PeerId(ID)

    assert address_of(Named()) == ("192.0.2.1", 3010)
    with pytest.raises(InvalidPeer):
        address_of(Named)
    with pytest.raises(InvalidPeer):
        address_of(type("Other", (), {"id": ID})())


def test_a_peer_id_within_a_text_is_an_address_that_calls_it():
    peer = PeerId(ID)
    assert f"{peer}" == str(peer) == "192.0.2.1:3010" and f"{peer:>20}" == "      192.0.2.1:3010"
    assert address_of(f"{peer}") == peer.address
    six = make_id(3010, "::1")
    assert f"{six}" == "[::1]:3010" and address_of(f"{six}") == six.address
    assert decode_text(six) == "[::1]:3010 -> None" and six == make_id(3010, "0::1")
    assert repr(peer) == "PeerId(192.0.2.1:3010 -> None)"
