"""The result of net.peers(): a tuple to work with, a table to look at."""
from __future__ import annotations

import pickle

import pytest

from net.discovery.listing import MAX_ROWS, Peers, filtered
from net.discovery.report import Report
from net.identity import PeerId, make_id
from net.tables import display_width
from net.wire import kinds
from each import each
from travel import as_result


def peer(number, group=None, **info):
    facts = {"hub": False, "name": "host", "program": "app.py", "pid": 1, "found": "datagram",
             "seconds": 0.0012, **info}
    return PeerId(make_id(3010, f"10.0.0.{number}", group), facts)


LISTING = Peers([peer(1, "a"), peer(2, "b", hub=True), peer(3), peer(4, "a", hub=True)])


def hosts(listing):
    return [one.host[-1] for one in listing]


def test_a_listing_is_a_sequence_of_ids():
    assert len(LISTING) == 4 and LISTING[0] == peer(1, "a") and LISTING[-1].host == "10.0.0.4"
    assert hosts(LISTING) == ["1", "2", "3", "4"] and hosts(LISTING[1:3]) == ["2", "3"]
    assert peer(3) in LISTING and bytes(peer(3)) in LISTING and peer(9) not in LISTING
    assert LISTING and not Peers()


def test_a_group_is_picked_by_its_name():
    assert hosts(LISTING["a"]) == ["1", "4"] and len(LISTING["nobody"]) == 0


def test_no_group_has_the_name_that_it_has_in_ids():
    assert hosts(LISTING["None"]) == ["3"]


def test_a_listing_has_the_keys_of_the_dict_that_it_once_was():
    assert LISTING.keys() == ["peers", "None", "a", "b"]
    assert LISTING["peers"] == {peer: peer.info for peer in LISTING}
    assert list(LISTING["peers"].keys()) == list(LISTING)


@each("groups, hubs_only, expected", [
    ("None", False, "3"), (["None", "b"], False, "23"),
    (None, False, "1234"), ("a", False, "14"), (["a", "b"], False, "124"), ([], False, ""),
    ([None], False, "3"), (None, True, "24"), ("a", True, "4"), (("b",), False, "2"),
])
def test_filters_pick_groups_and_hubs(groups, hubs_only, expected):
    assert "".join(hosts(filtered(LISTING, groups, hubs_only))) == expected


def test_what_is_picked_keeps_the_report():
    listing = Peers(LISTING, Report())
    assert listing["a"].report is listing[:1].report is listing.report


def test_a_listing_can_be_pickled():
    copy = pickle.loads(pickle.dumps(LISTING))
    assert copy == LISTING and isinstance(copy, Peers) and copy[1].hub


def test_a_listing_arrives_as_a_tuple_of_ids_that_know_what_they_did():
    arrived = as_result({"peers": LISTING})["peers"]
    assert type(arrived) is tuple and arrived == LISTING
    assert [one.info for one in arrived] == [one.info for one in LISTING]
    assert as_result(Peers()) == ()


def test_what_a_listing_weighs_is_known_before_it_is_sent():
    assert tuple(kinds.look_inside(LISTING)) == LISTING


def test_the_table_has_a_line_for_each_peer():
    lines = LISTING.table(100).splitlines()
    assert lines[0].split() == ["address", "group", "hub", "name", "pid", "facts", "found", "by",
                                "ms"]
    assert lines[2].split() == ["10.0.0.2:3010", "b", "hub", "host", "app.py", "1", "datagram",
                                "1.2"]


def test_a_name_for_people_and_the_facts_are_in_the_table():
    named = Peers([peer(1, label="render node 7", facts={"gpus": 2, "os": ["x"]}),
                   peer(2, facts="none"), peer(3, label="", facts={"a": "\x1b[2J"})])
    lines = named.table(200).splitlines()
    assert "render node 7" in lines[1] and "app.py" not in lines[1]
    assert "gpus=2, os=['x']" in lines[1]
    assert "host app.py" in lines[2] and "host app.py" in lines[3] and "\x1b" not in lines[3]


@each("width", [20, 40, 60, 80, 200])
def test_the_table_fits_the_terminal(width):
    long = Peers([peer(1, "g" * 64, name="n" * 5000, program="漢字" * 40, found="x" * 70)])
    assert max(map(display_width, long.table(width).splitlines())) <= width


def test_nothing_remote_can_steer_the_terminal():
    nasty = "\x1b[2J\x1b]0;title\x07\r\n\u202e\u2028\x9b31m"
    table = Peers([peer(1, name=nasty, program={"\x1b": nasty}, pid=nasty)]).table(200)
    assert len(table.splitlines()) == 2
    assert table.replace("\n", "").isprintable()


def test_nothing_remote_can_steer_a_browser():
    html = Peers([peer(1, "<b>", name="<script>alert(1)</script>", program='"><img src=x>')
                  ])._repr_html_()
    assert "<script" not in html and "<img" not in html and "<b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and html.startswith("<table>")


def test_a_long_listing_is_shown_in_part():
    long = Peers([peer(number % 250) for number in range(MAX_ROWS + 5)])
    assert long.table().splitlines()[-1] == "and 5 more"
    assert "<p>and 5 more</p>" in long._repr_html_()


def test_an_empty_listing_says_where_to_look():
    assert "doctor" in repr(Peers()) and "no peers" in Peers()._repr_html_()


def test_a_repr_fits_the_terminal_it_is_printed_to(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert max(map(len, repr(LISTING).splitlines())) <= 30


def test_the_first_of_no_peers_says_what_to_do():
    with pytest.raises(IndexError, match="no peers were found; .report says .* doctor"):
        Peers()[0]
    with pytest.raises(IndexError):
        Peers([peer(1)])[1]
    assert Peers()[:1] == ()
