"""The tree of errors: bases, facts, texts, pickling and copying."""
from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from pathlib import Path

import pytest

import net
from net import errors
from net.errors import (AuthenticationError, CallCancelled, CallTimeout, InvalidConnection,
                        InvalidPeer, MessageTooLarge, NetError, NoFreePort, PeerBusy, PeerLost,
                        PeerUnreachable, ProtocolError, RemoteError, SettingError, TooFewPeers,
                        ValueNotSupported)
from each import each

HERE = ("192.0.2.1", 3010)

# Each error of the table in the design: the built-in class it also is, whether the call ran, and
# an instance with what its text says.
TREE = [
    (PeerUnreachable(HERE, "refused"), ConnectionError, "no",
     "no peer answers at 192.0.2.1:3010: refused; the call did not run"),
    (TooFewPeers("f", 1, 2, "nobody else has it"), ConnectionError, "no",
     "1 of 2 peers that can run f: nobody else has it"),
    (TooFewPeers("", 0, 2, "the report"), ConnectionError, "no",
     "0 of 2 peers were found: the report"),
    (TooFewPeers("f", 0, 1, "the last one was lost", "maybe"), ConnectionError, "maybe",
     "0 of 1 peers that can run f: the last one was lost; one that was lost may have run it"),
    (PeerBusy(HERE, "full"), ConnectionError, "no",
     "192.0.2.1:3010 is busy: full; the call did not run"),
    (AuthenticationError(HERE, "no secret"), ConnectionError, "no",
     "192.0.2.1:3010: no secret; the call did not run"),
    (PeerLost(HERE, "reset"), ConnectionError, "maybe",
     "lost 192.0.2.1:3010 before its reply: reset; the call may have run"),
    (CallTimeout(HERE, 2.0), TimeoutError, "maybe",
     "no whole reply from 192.0.2.1:3010 within 2 s; the call may have run"),
    (CallTimeout(HERE, 0.5, "no"), TimeoutError, "no",
     "no whole reply from 192.0.2.1:3010 within 0.5 s; the call did not run"),
    (CallCancelled("its caller has gone"), Exception, "maybe",
     "the call was cancelled: its caller has gone; it may have run"),
    (CallCancelled("it waited too long", "no"), Exception, "no",
     "the call was cancelled: it waited too long; it did not run"),
    (ProtocolError(HERE, "noise"), ConnectionError, "no",
     "192.0.2.1:3010 does not follow the protocol: noise; the call did not run"),
    (ProtocolError(None, "noise", "maybe"), ConnectionError, "maybe",
     "the peer does not follow the protocol: noise; the call may have run"),
    (InvalidPeer("x", "no port"), ValueError, "no",
     "'x' is not a peer: no port. Use a peer id (bytes or str), (host, port) or 'host:port'"),
    (InvalidConnection(b"eA==", "x", HERE, ("y",)), LookupError, "no",
     "Peer does not have the connection you are requesting: "
     "('192.0.2.1', 3010) has no function 'x'; did you mean 'y'?"),
    (ValueNotSupported("args[0]", "object cannot travel"), TypeError, "no",
     "args[0]: object cannot travel"),
    (ValueNotSupported("result", "object cannot travel", "yes"), TypeError, "yes",
     "result: object cannot travel"),
    (MessageTooLarge("text", 2000, 1000, "NET_MAX_TEXT"), ValueError, "no",
     "text: 2,000, the limit is 1,000; NET_MAX_TEXT raises it, on both sides"),
    (MessageTooLarge("text", None, 1000, None, "yes"), ValueError, "yes",
     "text: more than 1,000, the limit is 1,000"),
    (NoFreePort("127.0.0.1", range(3010, 3016)), OSError, "no",
     "no free port on 127.0.0.1 from 3010 to 3015; end a peer, or set NET_PORT_START or "
     "NET_PORT_RANGE"),
    (RemoteError("text"), Exception, "yes", "text"),
    (SettingError("NET_TIMEOUT must be a number"), ValueError, "no",
     "NET_TIMEOUT must be a number"),
]
ERRORS = [error for error, _, _, _ in TREE]


def name_of(value: object) -> str:
    return type(value).__name__


def tree() -> set[type]:
    return {cls for cls in vars(errors).values()
            if isinstance(cls, type) and issubclass(cls, NetError)} - {NetError}


@each("error, base, ran, text", TREE, ids=name_of)
def test_each_error_is_what_the_design_says(error, base, ran, text):
    assert isinstance(error, NetError) and isinstance(error, base)
    assert error.ran == ran
    assert str(error) == text


def test_every_error_is_exported_and_was_tried():
    assert {type(error) for error in ERRORS} == tree()
    for cls in tree() | {NetError}:
        assert getattr(net, cls.__name__) is cls
        assert cls.__name__ in net.__all__


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"[|`]-- (\w+) +(\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(
        (cls.__name__, next(base.__name__ for base in cls.__mro__ if base.__module__ == "builtins"))
        for cls in tree())


def outcomes() -> dict[str, str]:
    """What the class of each error alone says about the call; empty where each error says it."""
    return {cls.__name__: "" if "ran" in inspect.signature(cls.__init__).parameters else cls.ran
            for cls in tree()}


def test_the_tree_in_the_docstring_says_whether_the_call_ran():
    drawn = re.findall(r"[|`]-- (\w+) +\w+ {3,}\S(?: ?\S)* *(.*)", errors.__doc__)
    said = {"did not run": "no", "may have run": "maybe", "ran": "yes", "see ``ran``": ""}
    # No call is made where no port is free.
    assert {name: said[text] for name, text in drawn if name != "NoFreePort"} == {
        name: ran for name, ran in outcomes().items() if name != "NoFreePort"}


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.rst").read_text(encoding="utf-8")


def test_the_page_about_errors_says_whether_the_call_ran():
    told = dict(re.findall(r"^:class:`net\.(\w+)` .* (no, or|no|maybe|yes|\\-)$", PAGE, re.M))
    assert told == {name: "\\-" if name in ("NoFreePort", "SettingError") else ran or "no, or"
                    for name, ran in outcomes().items()}


def test_the_page_about_errors_has_each_with_its_class():
    told = dict(re.findall(r"^:class:`net\.(\w+)` +(\S+) ", PAGE, re.M))
    assert told.keys() == {cls.__name__ for cls in tree()}
    drawn = dict(re.findall(r"[|`]-- (\w+) +(\w+)", errors.__doc__))
    assert told == {**{name: "\\-" if base == "Exception" else base
                       for name, base in drawn.items()}, "RemoteError": "the"}  # remote error's


@each("error", ERRORS, ids=name_of)
def test_each_error_can_be_pickled_and_copied(error):
    for copied in (copy.copy(error), copy.deepcopy(error), *[
            pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]):
        assert type(copied) is type(error)
        assert (str(copied), copied.args, copied.ran) == (str(error), error.args, error.ran)
        assert vars(copied) == vars(error)


@each("error", ERRORS, ids=name_of)
def test_each_error_can_be_caught_as_the_root(error):
    with pytest.raises(NetError):
        raise error


def test_the_facts_are_attributes():
    assert PeerLost(HERE, "reset").address == HERE and PeerLost(HERE, "reset").reason == "reset"
    assert CallTimeout(HERE, 2.0).timeout == 2.0
    assert InvalidPeer([1], "no").peer == [1]
    invalid = InvalidConnection(b"eA==", "x", b"peer", ("y", "z"))
    assert (invalid.tag, invalid.name, invalid.peer, invalid.near) == (b"eA==", "x", b"peer",
                                                                       ("y", "z"))
    large = MessageTooLarge("text", 2, 1, "NET_MAX_TEXT")
    assert (large.what, large.size, large.limit, large.setting) == ("text", 2, 1, "NET_MAX_TEXT")
    port = NoFreePort("::1", range(1, 3))
    assert (port.host, port.ports) == ("::1", range(1, 3))


def test_an_ipv6_address_is_shown_in_brackets():
    assert "[::1]:3010" in str(PeerUnreachable(("::1", 3010), "refused"))


def test_what_was_given_as_a_peer_is_shown_short():
    assert len(str(InvalidPeer("x" * 10_000, "no"))) < 300


def test_near_names_are_asked_for_and_without_any_the_place_to_look():
    assert "did you mean 'a' or 'b'?" in str(InvalidConnection(b"", "x", None, ("a", "b")))
    alone = str(InvalidConnection(b"", "x"))
    assert "this process has no function 'x'" in alone
    assert "same module and name" in alone


def test_the_path_of_a_value_grows_from_the_inside():
    error = ValueNotSupported("",
                              "int cannot travel").inside("[3]").inside("['x']").inside("args[1]")
    assert (error.path, str(error)) == ("args[1]['x'][3]", "args[1]['x'][3]: int cannot travel")


def test_a_plain_remote_error_has_all_that_a_matching_one_has():
    error = RemoteError("x")
    assert (error.traceback, error.peer, error.tag, error.ran) == ("", None, b"", "yes")


def test_attributes_that_were_added_survive_a_copy():
    error = PeerLost(HERE, "reset")
    error.extra = [1]  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(error)).extra == [1]


# --------------------------------------------------------------------- refusals by another peer

def arrived(error: NetError, address: errors.Address = HERE) -> NetError:
    """An error of another peer, after it has travelled as JSON."""
    refusal = json.loads(json.dumps(errors.to_refusal(error)))
    return errors.from_refusal(refusal.pop("refused"), refusal, address)


@each("error", [*ERRORS, NetError("why")], ids=name_of)
def test_every_error_of_the_tree_arrives_as_itself(error):
    there = arrived(error)
    assert (type(there), there.ran) == (type(error), error.ran)
    facts = {name: value for name, value in vars(error).items() if name not in ("address", "peer")}
    assert {name: vars(there)[name] for name in facts} == facts
    if getattr(error, "address", HERE) == HERE:
        assert str(there) == str(error)


def test_a_refusal_names_the_peer_that_refused():
    assert arrived(PeerBusy(None, "full")).address == HERE
    assert arrived(InvalidConnection(b"eA==", "x")).peer == HERE


def test_what_was_given_there_as_a_peer_arrives_as_text():
    assert arrived(InvalidPeer([1], "no")).peer == "[1]"


def test_an_error_outside_of_the_tree_arrives_as_its_nearest_base():
    class Crowded(PeerBusy):
        pass

    assert type(arrived(Crowded(None, "full"))) is PeerBusy


def test_a_refusal_of_a_newer_peer_keeps_its_name_its_reason_and_whether_it_ran():
    error = errors.from_refusal("Newer", {"reason": "a\x1bb", "ran": "yes", "more": [1]}, HERE)
    assert (type(error), error.ran) == (NetError, "yes")
    assert str(error) == "192.0.2.1:3010 refused with Newer: a\\x1bb"


def test_a_refusal_that_does_not_say_whether_the_call_ran_leaves_it_open():
    for ran in ("perhaps", None, 5):
        assert errors.from_refusal("PeerBusy", {"reason": "full", "ran": ran}, HERE).ran == "maybe"


@each("name, facts", [
    ("PeerBusy", {}),
    ("PeerBusy", {"reason": 5}),
    ("MessageTooLarge", {"what": "text", "size": "2", "limit": 1, "setting": None, "ran": "no"}),
    ("InvalidConnection", {"tag": "\xe9", "name": "x", "near": []}),
    ("InvalidConnection", {"tag": 5, "name": "x", "near": []}),
    ("InvalidConnection", {"tag": "eA==", "name": "x", "near": [5]}),
    ("NoFreePort", {"host": "x", "ports": [1, 2, 0]}),
    ("NoFreePort", {"host": "x", "ports": 5}),
])
def test_a_refusal_without_sense_is_refused(name, facts):
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        errors.from_refusal(name, {"ran": "no", **facts}, HERE)


def test_foreign_text_in_a_refusal_is_made_safe():
    error = errors.from_refusal("AuthenticationError", {"reason": "\x1b[2J" + "x" * 900}, HERE)
    assert "\x1b" not in str(error) and len(str(error)) < 400
