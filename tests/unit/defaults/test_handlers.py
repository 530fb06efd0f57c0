"""The functions that every peer has."""
from __future__ import annotations

import inspect

import pytest

import net
from net.defaults import handlers
from net.identity import encode_text, functions_digest
from net.peer import _Peer, function_names
from travel import assert_same


def test_null_takes_anything_and_gives_its_flag():
    assert net.null() == "NULL"
    assert net.null(1, object(), key=[2]) == "NULL"
    assert _Peer.CONNECTIONS[net.null.tag](1) == b"TlVMTA=="


def test_info_is_the_friendly_id():
    found = net.info()
    assert type(found) is dict
    assert found == {**net.Peer().friendly_id, "functions": function_names()}
    assert net.info(key=2).keys() == found.keys()


def test_info_lists_the_functions_as_far_as_they_are_no_burden(monkeypatch):
    many = {encode_text(f"module.function{number:03}"): len for number in range(500)}
    monkeypatch.setattr(_Peer, "CONNECTIONS", {**_Peer.CONNECTIONS, **many})
    found = net.info()
    listed, more = found["functions"], found["more_functions"]
    assert len(listed) + more == len(function_names()) >= 500
    assert listed == function_names()[:len(listed)] and sum(map(len, listed)) <= 4096
    assert found["digest"] == functions_digest(function_names())


def test_info_of_a_peer_that_was_given_without_its_name_is_refused():
    with pytest.raises(TypeError, match=r"net.info\(peer='127.0.0.1:3010'\) asks that peer"):
        net.info("127.0.0.1:3010")


def test_connections_are_a_table_for_people_here_and_from_a_peer():
    here, there = net.connections(), net.connections(peer=net.Peer())
    assert here == there and isinstance(there, dict)
    for found in (here, there):
        lines = repr(found).splitlines()
        assert lines[0].split() == ["function", "signature"]
        assert len(lines) == len(found) + 1
        assert all(line.startswith(name[:20]) for line, name in zip(lines[1:], sorted(found)))
        assert found._repr_html_().startswith("<table>")
    assert net.connections.tag in _Peer.CONNECTIONS


def test_pass_through_gives_back_what_came():
    value = object()
    assert net.pass_through(value) is value
    assert net.pass_through() == ((), {})
    assert net.pass_through(1, 2) == ((1, 2), {})
    assert net.pass_through(1, key=2) == ((1,), {"key": 2})
    assert net.pass_through(key=2) == ((), {"key": 2})
    assert_same(net.pass_through((1, {2})), (1, {2}))


def test_the_package_has_them_all():
    assert {name: getattr(net.defaults, name) for name in net.defaults.__all__} == {
        name: getattr(net, name) for name in (
            "connections", "info", "invalid_connection", "null", "null_response", "pass_through",
            "subscription_handler")}


def test_connections_are_listed_with_their_signatures():
    found = net.connections()
    assert found["net.defaults.handlers.connections"] == str(inspect.signature(net.connections))
    assert {f"net.defaults.handlers.{name}" for name in (
        "null", "info", "pass_through", "connections", "subscription_handler")} <= set(found)
    assert all(type(name) is str and type(text) is str for name, text in found.items())


def test_a_function_without_a_signature_is_listed_too(monkeypatch):
    monkeypatch.setattr(_Peer, "CONNECTIONS", {**_Peer.CONNECTIONS, b"b2Rk": vars, b"\xff": len})
    found = net.connections()
    assert found["odd"].startswith("(")
    assert len(found) == len(_Peer.CONNECTIONS)


def test_they_can_be_called_by_their_documented_names():
    for name in ("null", "info", "pass_through", "connections"):
        assert getattr(handlers, name) is getattr(net, name)
        assert getattr(handlers, name).__module__ == "net.defaults.handlers"
        assert getattr(handlers, name).__doc__
