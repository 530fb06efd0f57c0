"""Answers to peer ids: one for each peer, whatever it says about itself."""
from __future__ import annotations

import pytest

from net.discovery.answers import Answer
from net.discovery.merging import better_address, in_order, merge_answers, peer_id
from net.settings import settings
from each import each

OWN = {"127.0.0.1", "192.168.1.10"}


def answer(at="192.168.1.20", on=3010, **facts):
    said = {"instance": "i" * 32, "host": at, "port": on, "group": None, **facts}
    return Answer((at, on), said, "test", 0.002, 0.0)


def found(*answers):
    return sorted(map(peer_id, merge_answers(answers, "me", OWN).answers.values()), key=in_order)


def test_a_peer_becomes_an_id_with_what_it_said_and_how_it_was_found():
    peer, = found(answer(group="g", hub=True, program="app.py"))
    assert (peer.host, peer.port, peer.group, peer.hub) == ("192.168.1.20", 3010, "g", True)
    assert peer.info["program"] == "app.py" and peer.info["found"] == "test"
    assert peer.info["seconds"] == 0.002 and peer.info["wire"] == "modern"


def test_this_process_is_not_listed():
    assert found(answer("192.168.1.10", instance="me"), answer("127.0.0.1", instance="me")) == []


def test_this_process_is_not_listed_at_the_address_that_it_advertises(monkeypatch):
    monkeypatch.setitem(settings.__dict__, "advertise", ("203.0.113.7", 4000))
    assert found(answer("203.0.113.7", 4000, instance="me")) == []
    assert len(found(answer("203.0.113.7", 4000, instance="other"))) == 1


def test_a_clone_of_this_process_on_another_host_is():
    assert [peer.host for peer in found(answer(instance="me"))] == ["192.168.1.20"]


def test_peers_are_sorted_by_address_as_numbers():
    peers = found(*(answer(host, port) for host, port in [
        ("::1", 3010), ("192.168.1.100", 3010), ("192.168.1.9", 3011), ("192.168.1.9", 3010)]))
    assert [(peer.host, peer.port) for peer in peers] == [
        ("192.168.1.9", 3010), ("192.168.1.9", 3011), ("192.168.1.100", 3010), ("::1", 3010)]


@pytest.mark.parametrize("turn", [1, -1])
def test_two_addresses_of_one_peer_are_one_entry_under_the_one_it_claims(turn):
    claimed = {"host": "192.168.1.10", "port": 3010}
    both = [answer("127.0.0.1", **claimed)._replace(seconds=0.001), answer("192.168.1.10")]
    peer, = found(*both[::turn])
    assert peer.host == "192.168.1.10"


def test_of_two_addresses_that_a_peer_does_not_claim_the_faster_is_used():
    claims = {"instance": "i", "group": None, "host": "172.17.0.2", "port": 3010}
    slow, fast = (Answer((host, 3010), claims, "test", spent, 0)
                  for host, spent in (("10.0.0.1", 0.02), ("10.0.0.2", 0.01)))
    assert [peer.host for peer in found(slow, fast)] == ["10.0.0.2"]


@each("claims, better", [
    ({"host": "fd77:5::2"}, ("fd77:5::2", 3010)),
    ({"host": "10.77.5.2", "port": 3011}, ("10.77.5.2", 3011)),
    ({}, None), ({"host": "fe80::3"}, None), ({"host": "a name"}, None), ({"host": "1\0"}, None),
    ({"host": None}, None), ({"host": "fd77:5::2", "port": "3010"}, None),
    ({"host": "fd77:5::2", "port": True}, None)])
def test_a_peer_may_name_a_better_address_than_the_one_that_answered(claims, better):
    assert better_address(answer("fe80::2%eth0", **{"host": "fe80::2", **claims})) == better


def test_the_address_that_answered_is_the_one_in_the_id():
    peer, = found(Answer(("192.168.1.66", 3012),
                         {"instance": "i", "host": "192.168.1.20", "port": 22, "group": None},
                         "test", 0.1, 0))
    assert (peer.host, peer.port) == ("192.168.1.66", 3012)
    assert peer.info["host"] == "192.168.1.20", "what it claims is kept as data"


@each("turn", [1, -1])
@each("claimed", ["192.168.1.66", "192.168.1.20"])
def test_a_process_that_takes_over_the_instance_of_another_does_not_hide_it(turn, claimed):
    honest = answer("192.168.1.20")._replace(seconds=0.1)
    liar = Answer(("192.168.1.66", 3010), {**honest.facts, "host": claimed}, "test", 0, 0)
    assert "192.168.1.20" in [peer.host for peer in found(*[honest, liar][::turn])]


@each("facts", [
    {"group": "g" * 65}, {"group": ""}, {"group": 5}, {"group": ["g"]}, {"group": "\x1b[2J"},
    {"group": "two\nlines"}, {"instance": None}, {"instance": "x" * 65}, {"instance": 7},
    {"instance": "\ud800"}, {"instance": ""},
])
def test_an_introduction_without_sense_is_dropped_with_the_reason(facts):
    result = merge_answers([answer(**facts), answer("192.168.1.30")], "me", OWN)
    assert [one.address[0] for one in result.answers.values()] == ["192.168.1.30"]
    (address, reason), = result.dropped
    assert address == ("192.168.1.20", 3010) and "printable" in reason and reason.isprintable()


@each("facts", [None, [], "text", 5, b"flag"])
def test_info_that_is_no_object_is_dropped(facts):
    result = merge_answers([answer()._replace(facts=facts)], "me", OWN)
    assert result.answers == {} and "not an object" in result.dropped[0][1]


def test_claims_of_absurd_size_or_kind_are_only_data():
    peer, = found(answer(hub="yes", host=["x"] * 1000, port="3010", name="n" * 50_000))
    assert (peer.host, peer.port, peer.hub) == ("192.168.1.20", 3010, False)


def test_what_a_peer_says_cannot_stand_for_how_it_was_found():
    peer, = found(answer(found="in your pocket", seconds=-1, wire="none"))
    told = [peer.info[name] for name in ("found", "seconds", "wire")]
    assert told == ["test", 0.002, "modern"]


def test_an_old_peer_has_an_id_of_host_port_and_group():
    peer, = found(Answer(("192.168.1.20", 3010), {"group": "g"}, "test", 0, 0, "0.4"))
    assert peer == b"MTkyLjE2OC4xLjIwOjMwMTAgLT4gZw==" and peer.info["wire"] == "documented"


@pytest.mark.parametrize("text, group", [
    ("192.168.1.20:3010 -> g", "g"), ("192.168.1.20:3010 -> None", None), ("hello", None)])
def test_an_old_peer_may_introduce_itself_with_a_line_of_text(text, group):
    peer, = found(Answer(("192.168.1.20", 3010), text, "test", 0, 0, "0.4"))
    assert peer.group == group and peer.info["friendly_id"] == text


def test_an_old_peer_of_this_host_is_one_whatever_address_answered():
    both = [Answer((host, 3010), {"group": None}, "test", 0, 0, "0.4") for host in OWN]
    assert len(found(*both, Answer(("127.0.0.1", 3011), {}, "test", 0, 0, "0.4"))) == 2
