"""The flags that every peer knows."""
from __future__ import annotations

import pytest

import net
from net.peer import handle_flag
from net.defaults import flags
from net.errors import InvalidConnection
from net.identity import encode_text


def test_null_gives_its_name():
    assert net.null_response(b"tag", None) == "NULL"
    assert handle_flag(net.Peer().get_flag("NULL"), b"tag", "192.0.2.1:1") == "NULL"
    assert net.pass_through(net.Peer().get_flag("NULL")) == "NULL"


@pytest.mark.parametrize("near", [(), None, ("a.near",), ["a.near", "a.neap"]])
def test_an_invalid_connection_raises_with_all_that_is_known(near):
    tag = encode_text("a.neer")
    with pytest.raises(InvalidConnection, match="'a.neer'") as caught:
        net.invalid_connection(tag, "192.0.2.1:1", near)
    error = caught.value
    assert (error.tag, error.name, error.peer) == (tag, "a.neer", "192.0.2.1:1")
    assert error.near == tuple(near or ())


def test_an_invalid_connection_needs_no_near_names():
    with pytest.raises(InvalidConnection):
        net.invalid_connection(encode_text("x"), None)


def test_they_are_the_functions_of_the_documented_module():
    assert flags.null_response is net.null_response
    assert flags.invalid_connection is net.invalid_connection
