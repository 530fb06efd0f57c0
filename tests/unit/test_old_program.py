"""The old program of the tests answers as the recorded bytes of the real ones do."""
from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from each import each

import old_programs

RECORDED: Dict[str, Any] = json.loads(
    old_programs.SCRIPT.with_name("old_peers.json").read_text(encoding="ascii"))
DIALECTS = {"0.3.5/py3.6": "0.3", "0.4.0/py3.6": "0.4", "0.6.2/py3.6": "0.6"}


def program(version: str, script: Path = old_programs.SCRIPT) -> Any:
    """The module, as it runs in a process of its own."""
    spec = importlib.util.spec_from_file_location("old_program_here", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DIALECT = DIALECTS[version]
    module.HOST, module.PORT, module.PLAIN = "10.0.0.11", 3010, module.DIALECT == "0.6"
    return module


def records(role: str) -> List[Dict[str, str]]:
    return [one for one in RECORDED["records"]
            if one["role"] == role and one["version"] in DIALECTS]


# What depends on the application and the place: its functions, and frames of tracebacks.
ANYTHING: Tuple[str, ...] = ("connections", "info", "a call that triggers", "a request of over")


# Newer versions of Python, such as 3.13.15 and 3.14, read base64 on behind its padding.
if base64.b64decode(b"YQ==YQ==") != b"a":
    ANYTHING += ("a good request, then a second one",)


@each("record", [
    one for one in records("server") if not one["what"].startswith(ANYTHING)],
    ids=lambda one: f"{one['version']}: {one['what']}")
def test_it_answers_as_the_real_one(record):
    module = program(record["version"])
    request, expected = record["request"].encode("latin-1"), record["reply"].encode("latin-1")
    if "two pieces" in record["what"] or "0.3 s later" in record["what"]:
        # It receives once, and that is the first piece.
        request = request[:20] if "two" in record["what"] else request[:8]
    found = module.answer(request[:module.LIMIT])
    if found != expected:
        # An error: the same but for the frames of the traceback.
        ours, theirs = module.decode(found), module.decode(expected)
        assert ours["payload"] == theirs["payload"] == "error" and set(ours) == set(theirs)
        names = [text["traceback"].splitlines()[-1].split(":")[0] for text in (ours, theirs)]
        assert names[0] == names[1]


# What the small one serves, and what nobody does.
OF_THE_SMALL = ("a good request, then half", "an unknown tag", "garbage", "no kwargs",
                "wrong arguments", "a request of the other", "the modern preface",
                "subscription_handler")


@each("record", [one for one in records("server") if one["version"] != "0.3.5/py3.6"
                 and one["what"].startswith(OF_THE_SMALL)],
      ids=lambda one: f"{one['version']}: {one['what']}")
def test_the_small_one_answers_as_the_real_one(record):
    module = program(record["version"], old_programs.SMALL)
    found = module.answer(record["request"].encode("latin-1")[:1024])
    expected = record["reply"].encode("latin-1")
    if found != expected:
        ours, theirs = module.decode(found), module.decode(expected)
        assert ours["payload"] == theirs["payload"] == "error" and set(ours) == set(theirs)


@pytest.mark.parametrize("version", [one for one in DIALECTS if "0.3" not in one])
def test_the_small_one_asks_as_the_real_one(version, monkeypatch):
    module = program(version, old_programs.SMALL)
    asked: List[bytes] = []

    class Socket:
        def __init__(self, *arguments: Any) -> None:
            self.recv, self.sendall = lambda size: module.encode(None), asked.append
            self.close = lambda: None

    monkeypatch.setattr(module.socket, "create_connection", Socket)
    texts = [f"b'{module.coded(one)}'" for one in ("10.0.0.12:3010 -> None", "app.on_tick")]
    own = [*PLACE, "app.on_tick"] if module.DIALECT == "0.6" else texts
    module.answer(module.encode({
        "connection": module.coded("net.defaults.handlers.subscription_handler"),
        "args": ["tick", *own], "kwargs": {}}))
    module.subscribe(*PLACE, "tick", "__main__.on_tick")
    module.fire("tick", [7], {"what": "caf\xe9"})
    wanted = [one["request"].encode("latin-1") for what in ("subscribe", "an event's delivery")
              for one in records("client")
              if one["version"] == version and one["what"].startswith(what)]
    assert [module.decode(one) for one in asked] == [module.decode(one) for one in wanted]


@pytest.mark.parametrize("version", DIALECTS)
def test_its_info_has_what_that_of_the_real_one_has(version):
    module = program(version)
    theirs = next(one["reply"] for one in records("server")
                  if one["version"] == version and one["what"] == "info")
    assert set(module.info()) == set(module.decode(theirs.encode("latin-1")))


PLACE = ("10.0.0.12", 3010)
SHOT = (["shot", 10], {"quality": [3.5, None], "preview": True})
TEXT = "caf\xe9 \u2713 \U0001f600"


def fire(module: Any) -> Any:
    """Have the recorder subscribe, and trigger the event."""
    texts = [f"b'{module.b64(one).decode()}'" for one in ("10.0.0.12:3010 -> None", "app.on_tick")]
    module.subscription_handler("tick", *((*PLACE, "app.on_tick") if module.PLAIN else texts))
    return module.fire("tick", 7, what="caf\xe9")


#: How each recorded request is made, and what comes of it.
ASKS: Dict[str, Any] = {
    "a call with args": (lambda module: module.call(*PLACE, "app.render", *SHOT), 50),
    "a call as a method": (lambda module: module.method(*PLACE, "app.render", *SHOT), 50),
    "a call under an own tag as": (lambda module: module.method(*PLACE, "Tagged", ["x"], {}), "x"),
    "a call under an own tag": (lambda module: module.call(*PLACE, "Tagged", ["x"], {}, True), "x"),
    "a call with unicode": (lambda module: module.call(*PLACE, "app.echo", [TEXT], {}), TEXT),
    "a call of null": (
        lambda module: module.call(*PLACE, "net.defaults.handlers.null", [], {}), "NULL"),
    "subscribe": (lambda module: module.subscribe(*PLACE, "tick", "__main__.on_tick"), None),
    "the scan": (lambda module: module.scan(["10.0.0.12"], [3010]),
                 {"found": [list(PLACE)], "died": None}),
    "an event": (fire, []),
}


@pytest.mark.parametrize("record", [one for one in records("client")
                                    if one["what"].startswith(tuple(ASKS))],
                         ids=lambda one: f"{one['version']}: {one['what']}")
def test_it_asks_as_the_real_one(record, monkeypatch):
    module = program(record["version"])
    asked: List[bytes] = []

    class Socket:
        """Takes a request, and gives back the recorded reply."""

        def __init__(self, *arguments: Any) -> None:
            self.recv = lambda size: record["reply"].encode("latin-1")[:size]
            self.sendall = asked.append
            self.connect = self.settimeout = self.close = lambda *arguments: None

    monkeypatch.setattr(module.socket, "socket", Socket)
    ask, outcome = next(one for what, one in ASKS.items() if record["what"].startswith(what))
    assert ask(module) == outcome
    # Its own keyword comes last or first; the order of an object's members says nothing.
    assert module.decode(asked[0]) == module.decode(record["request"].encode("latin-1"))
    if "peer" not in record["request"]:
        assert asked[0] == record["request"].encode("latin-1")


def answers() -> List[Any]:
    """Each answer to a search, and what becomes of the search of each version by it."""
    found = []
    for what, outcome in RECORDED["scan"].items():
        for version in DIALECTS:
            text = outcome if isinstance(outcome, str) else next(
                text for names, text in outcome.items() if version in names)
            found.append((version, what, text))
    return found


@pytest.mark.parametrize("version, what, outcome", answers())
def test_its_search_survives_what_the_real_one_survives(version, what, outcome, monkeypatch):
    module = program(version)
    other = program("0.4.0/py3.6" if module.PLAIN else "0.6.2/py3.6")
    for one in (module, other):
        one.HOST = "10.0.0.12"
    facts = module.info()
    short = {name: facts[name] for name in ("group", "host", "port", "hub")}
    replies = {
        "info as its own version sends it": lambda: module.encode(facts),
        "info with more keys": lambda: module.encode(dict(facts, more=1)),
        "info with group null": lambda: module.encode(dict(facts, group=None)),
        "info without executable, user and so on": lambda: module.encode(short),
        "info of the other old dialect": lambda: other.encode(other.info()),
        "info of over 1,024 bytes": lambda: module.encode(dict(facts, more="x" * 1024)),
        "close without a reply": lambda: b"",
        "an error reply": lambda: module.encode({"payload": "error", "traceback": "X: y"}),
        "the flag NULL": lambda: b"NULL" if module.PLAIN else module.b64("NULL"),
        "the flag INVALID_CONNECTION": lambda: module.answer(module.encode(
            {"connection": "nothing", "args": [], "kwargs": {}})),
        "a modern FAILURE frame": lambda: b"\x03\0\0\0\0\0\0\x10" + b'{"refused":null}',
        "an HTTP 400": lambda: b"HTTP/1.0 400 Bad Request\r\n\r\n",
        "a number": lambda: module.encode(50),
    }

    def recv(size: int) -> bytes:
        if what == "reset":
            raise ConnectionResetError()
        if what == "silence":
            raise module.socket.timeout()
        return replies[what]()[:size]

    class Socket:
        def __init__(self, *arguments: Any) -> None:
            self.recv = recv
            self.sendall = self.connect = self.settimeout = self.close = lambda *arguments: None

    module.HOST = "10.0.0.11"
    monkeypatch.setattr(module.socket, "socket", Socket)
    found = module.scan(["10.0.0.12"], [3010])
    assert (found["died"] is not None) == (outcome == "DIES")
    assert found["found"] == ([["10.0.0.12", 3010]] if outcome.startswith("LISTED") else [])
