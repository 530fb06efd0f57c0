"""The flags that every peer knows."""
from __future__ import annotations

import collections
import itertools

import pytest

import net
from net.peer import handle_flag
from net.defaults import flags
from net.errors import InvalidConnection
from net.identity import encode_text
from each import each
from memory import Peak


def test_null_gives_its_name():
    assert net.null_response(b"tag", None) == "NULL"
    assert handle_flag(net.Peer().get_flag("NULL"), b"tag", "192.0.2.1:1") == "NULL"
    assert net.pass_through(net.Peer().get_flag("NULL")) == "NULL"


@each("near", [(), None, ("a.near",), ["a.near", "a.neap"]])
def test_an_invalid_connection_raises_with_all_that_is_known(near):
    tag = encode_text("a.neer")
    with pytest.raises(InvalidConnection, match="'a.neer'") as caught:
        net.invalid_connection(tag, "192.0.2.1:1", near)
    error = caught.value
    assert (error.tag, error.name, error.peer) == (tag, "a.neer", "192.0.2.1:1")
    assert error.near == tuple(near or ())


@pytest.mark.parametrize("near", [
    5, True, "a.near", b"a.near", range(10 ** 12), {"a.near": 1}, collections.deque(["a.near"]),
    itertools.count(), [1], ["a.near", None], [["a.near"]], ["a.near"] * 1000, object()],
    ids=range(13))
def test_near_names_that_make_no_sense_say_nothing(near):
    """A stranger chose them; to unroll a range of 40 bytes took all memory."""
    with Peak() as peak, pytest.raises(InvalidConnection) as caught:
        net.invalid_connection(encode_text("a.neer"), "192.0.2.1:1", near)
    assert caught.value.near == () and peak.bytes < 200_000


def test_near_names_are_made_safe_to_print():
    with pytest.raises(InvalidConnection) as caught:
        net.invalid_connection(b"eA==", None, ["\x1b[2J", "x" * 10_000])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_an_invalid_connection_needs_no_near_names():
    with pytest.raises(InvalidConnection):
        net.invalid_connection(encode_text("x"), None)


def test_they_are_the_functions_of_the_documented_module():
    assert flags.null_response is net.null_response
    assert flags.invalid_connection is net.invalid_connection
