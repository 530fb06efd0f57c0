"""Calls of old programs: each on a connection of its own, and seldom a look at who is there."""
from __future__ import annotations

import base64
import json
import socket
from typing import Any, Callable, Iterator, List, Optional, Union

import pytest

from net.errors import (Address, CallTimeout, InvalidConnection, MessageTooLarge, PeerLost,
                        PeerUnreachable, ProtocolError)
from net.identity import Flag, encode_text
from net.link.streams import Deadline, Stream
from net.run import old_peers
from net.run.old_peers import OldPeer, dialect_behind
from net.settings import Settings
from net.wire import legacy
from net.wire.legacy import BASE64, PLAIN
from each import each
from times import patience

ADDRESS: Address = ("192.0.2.1", 3010)
TAG = encode_text("app.f")
NOTHING = b""
INVALID = encode_text("INVALID_CONNECTION")


class Program:
    """Plays the programs that answer at an address, one connection after the other.

    :ivar replies: what comes back on each; an exception is raised when it is connected to.
    :ivar requests: what was sent, of those that were connected to.
    """

    def __init__(self) -> None:
        self.replies: List[Union[bytes, Exception, None]] = []
        self._ends: List[socket.socket] = []

    def connect(self, deadline: Optional[Deadline]) -> Stream:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        if reply is not None:
            theirs.sendall(reply)
            theirs.shutdown(socket.SHUT_WR)
        return Stream(ours)

    @property
    def requests(self) -> List[bytes]:
        return [end.recv(65536, socket.MSG_PEEK) for end in self._ends]

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def program() -> Iterator[Program]:
    one = Program()
    yield one
    assert not one.replies
    one.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let some seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(old_peers, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds
    return wait


@pytest.fixture
def old(program: Program, clock: Any) -> OldPeer:
    return OldPeer(ADDRESS, BASE64, Settings(), program.connect)


def call(old: OldPeer, *args: Any, timeout: Optional[float] = None) -> Any:
    return old.call("peer", TAG, args, {}, None if timeout is None else Deadline(timeout))


def base(value: Any) -> bytes:
    return base64.b64encode(json.dumps(value).encode())


ERROR = {"payload": "error", "traceback": "Traceback ...\nTypeError: byte indices"}


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("dialect, reply", [(BASE64, base({"raw": [5]})), (PLAIN, b"[5]")])
def test_a_call_is_one_connection(program, clock, dialect, reply, timeout):
    old = OldPeer(ADDRESS, dialect, Settings(), program.connect)
    program.replies = [reply]
    assert call(old, 1, timeout=timeout) == [5]
    assert program.requests == [legacy.LegacySession(dialect).call(TAG, [1], {})]


def test_what_has_another_tag_there_is_asked_for_under_that(program, old):
    program.replies = [INVALID, base({"raw": "x"})]
    assert call(old) == "x"
    assert program.requests[1] == legacy.LegacySession(BASE64).call(
        encode_text('{"raw": "app.f"}'), [], {})


def test_a_function_of_the_main_program_is_asked_for_by_its_old_name(program, old, monkeypatch):
    monkeypatch.setattr(old_peers, "tag_for_old_peer", lambda tag: encode_text("__main__.f"))
    program.replies = [INVALID, INVALID, base({"raw": 5})]
    assert call(old) == 5
    assert program.requests[2] == legacy.LegacySession(BASE64).call(
        encode_text("__main__.f"), [], {})
    plain = OldPeer(ADDRESS, PLAIN, Settings(), program.connect)
    program.replies = [b"INVALID_CONNECTION", b"5"]
    assert call(plain) == 5


@pytest.mark.parametrize("dialect", [BASE64, PLAIN])
def test_a_static_method_is_asked_for_without_its_class(program, clock, monkeypatch, dialect):
    def old_tag(tag: bytes) -> bytes:
        return encode_text("app.lift") if tag == encode_text("app.Box.lift") else tag

    old = OldPeer(ADDRESS, dialect, Settings(), program.connect, old_tag)
    invalid = INVALID if dialect == BASE64 else b"INVALID_CONNECTION"
    program.replies = [invalid, base({"raw": 5}) if dialect == BASE64 else b"5"]
    tag = encode_text("app.Box.lift")
    assert old.call("peer", tag, (1,), {}, None) == 5
    assert program.requests == [legacy.LegacySession(dialect).call(encode_text(name), [1], {})
                                for name in ("app.Box.lift", "app.lift")]
    # In the main program, and there neither.
    monkeypatch.setattr(old_peers, "tag_for_old_peer", lambda tag: encode_text("__main__.lift"))
    program.replies = [invalid] * 3
    assert old.call("peer", tag, (1,), {}, None) == INVALID


def test_what_is_not_there_under_either_is_not_there(program, old):
    program.replies = [INVALID, INVALID]
    found = call(old)
    assert type(found) is Flag and found == INVALID
    plain = OldPeer(ADDRESS, PLAIN, Settings(), program.connect)
    program.replies = [b"INVALID_CONNECTION"]
    assert call(plain) == INVALID and issubclass(InvalidConnection, LookupError)


def test_what_is_too_long_is_not_even_connected_for(program, old):
    with pytest.raises(MessageTooLarge):
        call(old, "x" * 2000)
    assert program.requests == []


@pytest.mark.parametrize("dialect, answers, value", [
    (BASE64, [json.dumps(ERROR).encode(), b"5"], 5),
    (PLAIN, [base(ERROR), base({"raw": 5})], 5),
    (PLAIN, [b"TlVMTA==", base({"raw": 5})], 5),
])
def test_a_program_of_the_other_dialect_is_asked_again_in_its_own(
        program, clock, dialect, answers, value):
    old = OldPeer(ADDRESS, dialect, Settings(), program.connect)
    program.replies = answers
    assert call(old) == value
    assert old.dialect != dialect


def test_it_is_asked_again_once(program, old):
    program.replies = [json.dumps(ERROR).encode(), base(ERROR)]
    with pytest.raises(ProtocolError) as caught:
        call(old)
    assert caught.value.address == ADDRESS and caught.value.ran == "maybe"


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad\r\n", b"eyJyYXci", b"{}x"])
def test_a_reply_without_sense_may_have_run(program, old, reply):
    program.replies = [reply]
    with pytest.raises(ProtocolError) as caught:
        call(old)
    assert caught.value.address == ADDRESS and caught.value.ran == "maybe"


def test_a_connection_that_ends_without_a_reply_is_lost(program, old):
    program.replies = [NOTHING]
    with pytest.raises(PeerLost, match="without a reply"):
        call(old)


def test_a_reply_that_does_not_come_times_out(program, old):
    program.replies = [None]
    with pytest.raises(CallTimeout) as caught:
        call(old, timeout=patience(0.1))
    assert caught.value.timeout == patience(0.1) and caught.value.ran == "maybe"


# ----------------------------------------------------------------- telling dialects apart


OLD_INFO = base({"group": "None", "host": "192.0.2.1", "port": 3010, "hub": False})
NEW_INFO = base({"group": "None", "host": "192.0.2.1", "port": 3010, "instance": "f" * 32})


def test_nobody_looks_before_some_time_has_passed(program, old, clock):
    assert not old.is_gone(None)
    clock(old_peers.OLD_TIME - 1)
    assert not old.is_gone(None)
    assert old_peers.OLD_TIME + old_peers.LOOK_TIME < 60


@pytest.mark.parametrize("reply, gone", [
    (OLD_INFO, False), (NEW_INFO, True), (NOTHING, True), (base(ERROR), False), (b"HTTP/", False),
    (INVALID, False), (base({"raw": "text"}), False),
], ids=["old", "new", "reset", "an error", "no sense", "a flag", "a text"])
def test_then_it_is_asked_in_its_dialect(program, old, clock, reply, gone):
    clock(old_peers.OLD_TIME)
    program.replies = [reply]
    assert old.is_gone(None) is gone
    # And not again for as long.
    if reply != NOTHING:
        assert not old.is_gone(None)


def test_nobody_there_is_an_error_of_the_call(program, old, clock):
    clock(old_peers.OLD_TIME)
    program.replies = [PeerUnreachable(ADDRESS, "refused")]
    with pytest.raises(PeerUnreachable):
        old.is_gone(None)


def test_a_silent_one_is_waited_for_no_longer_than_the_call_may_take(program, old, clock):
    clock(old_peers.OLD_TIME)
    program.replies = [None]
    deadline = Deadline(0.05)
    assert not old.is_gone(deadline)
    clock(old_peers.OLD_TIME)
    assert not old.is_gone(deadline)  # which is over


def test_after_a_loss_the_next_call_looks_first(program, old, clock):
    program.replies = [NOTHING, NEW_INFO]
    with pytest.raises(PeerLost):
        call(old)
    assert old.is_gone(None)


def test_where_there_is_doubt_it_is_asked_at_once_and_until_it_answers(program, old, clock):
    program.replies = [None, OLD_INFO]
    old.doubt()
    assert not old.is_gone(Deadline(0.05)) and old.doubted
    assert not old.is_gone(None) and not old.doubted
    # And not again.
    assert not old.is_gone(None)
    program.replies = [NEW_INFO]
    old.doubt()
    assert old.is_gone(None)


def test_what_has_just_answered_is_not_looked_at(program, old, clock):
    clock(old_peers.OLD_TIME)
    old.seen(PLAIN)
    assert not old.is_gone(None) and old.dialect == PLAIN


def test_nothing_is_sent_to_an_old_program_once_there_is_a_secret(program, kept_settings):
    old = OldPeer(ADDRESS, BASE64, kept_settings, program.connect)
    assert not old.is_gone(None)
    kept_settings.set("secret", "correct horse battery staple")
    assert old.is_gone(None)


# ------------------------------------------------------------------------ how it is recognised


@each("pieces", [1, 5, 1000])
@each("answer, dialect", [
    (base(ERROR), BASE64), (json.dumps(ERROR).encode(), PLAIN), (b"TlVMTA==", BASE64),
    (b"INVALID_CONNECTION", PLAIN), (b"HTTP/1.1 400 Bad Request\r\n", ""), (b"eyJ", ""), (b"e", ""),
], ids=repr)
def test_the_rest_of_an_answer_tells_the_dialect(answer, dialect, pieces):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer[pieces:])
        theirs.shutdown(socket.SHUT_WR)
        assert dialect_behind(Stream(ours), answer[:pieces], Deadline(patience(5))) == dialect


def test_an_answer_that_does_not_end_is_waited_for_a_moment(monkeypatch):
    monkeypatch.setattr(old_peers, "ANSWER_TIME", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert dialect_behind(Stream(ours), b"eyJyYX", Deadline(patience(5))) == ""
        assert dialect_behind(Stream(ours), b"TlVMTA==", Deadline(patience(5))) == BASE64
