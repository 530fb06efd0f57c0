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


class Tool:
    """A tool."""

    def turn(self, by: float = 1.0) -> None:
        """Turn it.

        Gently.
        """


@pytest.fixture
def described(monkeypatch, kept_settings):
    async def later(x): ...
    own = {encode_text("app.turn"): Tool().turn, encode_text("app.later"): later,
           encode_text("app.bare"): Bare()}
    monkeypatch.setattr(_Peer, "CONNECTIONS", {**_Peer.CONNECTIONS, **own})
    monkeypatch.setattr(_Peer, "GROUPS", {encode_text("app.later"): frozenset({"b", "a"})})
    return kept_settings


class Bare:
    """Has no signature."""

    __signature__ = "nonsense"

    def __call__(self): ...


def test_functions_are_described_by_their_first_lines_and_one_by_all_of_it(described):
    found = {name: facts for name, facts in net.describe(peer=net.Peer()).items()
             if name.startswith("app.")}
    assert list(found) == ["app.bare", "app.later", "app.turn"]
    assert found["app.turn"] == {"signature": "(by: float = 1.0) -> None", "doc": "Turn it.",
                                 "groups": None, "kind": "function"}
    assert found["app.later"] == {"signature": "(x)", "doc": "", "groups": ["a", "b"],
                                  "kind": "coroutine"}
    assert found["app.bare"]["signature"] == "(...)"
    assert net.describe("app.turn", "app.nonsense") == {
        "app.turn": {**found["app.turn"], "doc": "Turn it.\n\nGently."}}
    assert not any(name.startswith("net.") for name in net.describe())
    assert net.describe("net.defaults.handlers.null")


@pytest.mark.parametrize("level, signature, doc", [
    ("full", "(by: float = 1.0) -> None", "Turn it."),
    ("signatures", "(by: float = 1.0) -> None", ""), ("names", "(...)", "")])
def test_a_peer_may_keep_descriptions_to_itself(described, level, signature, doc):
    net.configure(describe=level)
    found = net.describe(peer=net.Peer())["app.turn"]
    assert (found["signature"], found["doc"]) == (signature, doc)
    assert (net.connections(peer=net.Peer())["app.turn"] == "(...)") == (level == "names")


def test_one_answer_describes_some_64_kib_and_the_next_one_goes_on(monkeypatch):
    def long(x): ...
    long.__doc__ = "x" * 100_000
    many = {encode_text(f"many.function{number:04}"): long for number in range(300)}
    monkeypatch.setattr(_Peer, "CONNECTIONS", {**_Peer.CONNECTIONS, **many})
    first = net.describe(after="many.")
    assert 100 < len(first) < 300
    last = max(first)
    assert min(net.describe(after=last)) == f"many.function{int(last[-4:]) + 1:04}"
    nine = net.describe(*(f"many.function{number:04}" for number in range(9)))
    assert 0 < len(str(nine)) < 100_000


def test_a_peer_reaches_back_to_its_caller_only():
    with pytest.raises(TypeError):
        net.Peer().request(net.Peer(), "net.defaults.handlers.reach_back", ("x",), {})
    with pytest.raises(TypeError):
        handlers.reach_back(3010)
    assert net.Peer().request(net.Peer(), "net.defaults.handlers.reach_back",
                              (net.Peer().port,), {}) == ("127.0.0.1", "")
    seen, problem = net.Peer().request(net.Peer(), "net.defaults.handlers.reach_back", (1,), {})
    assert seen == "127.0.0.1" and "PeerUnreachable" in problem


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
            "connections", "describe", "info", "invalid_connection", "null", "null_response",
            "pass_through", "subscription_handler")}


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
