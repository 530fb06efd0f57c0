"""The documented old dialect, against a raw-socket client and a raw-socket server.

Both know nothing of app-net: they do what the old documentation says, byte for byte.
"""
from __future__ import annotations

import base64
import builtins
import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

import net
import sample
from times import patience

OLD_LIMIT = 1024  # bytes; old peers receive once


def old_encode(value: Any) -> bytes:
    return base64.b64encode(json.dumps(value).encode("ascii"))


def old_decode(data: bytes) -> Any:
    return json.loads(base64.b64decode(data).decode("ascii"))


def old_tag(function: Any) -> str:
    # By hand: function.tag is ours.
    name = f"{function.__module__}.{function.__name__}"
    return base64.b64encode(name.encode("ascii")).decode("ascii")


def old_request(tag: str, *args: Any, **kwargs: Any) -> bytes:
    return old_encode({"connection": tag, "args": args, "kwargs": kwargs})


def reply_to(address: Any, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What an old client gets: it receives once. That nothing follows is checked as well."""
    with socket.create_connection(address, timeout=patience(5)) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        reply = sock.recv(OLD_LIMIT)
        assert not reply or sock.recv(OLD_LIMIT) == b""
    return reply


# ------------------------------------------------------------------------------ an old client

def test_the_reply_to_an_old_client_is_the_documented_one_byte_for_byte(other):
    # Spelled out: nothing of ours makes these bytes.
    request = (b"eyJjb25uZWN0aW9uIjogImMyRnRjR3hsTG0xMWJIUnBjR3g1IiwgImFyZ3MiOiBb"
               b"NV0sICJrd2FyZ3MiOiB7InNvbWVfa3dhcmciOiAxMH19")
    assert request == old_request(old_tag(sample.multiply), 5, some_kwarg=10)
    assert reply_to(other.address, request) == b"eyJyYXciOiA1MH0="


@pytest.mark.parametrize("value", [
    None, True, 0, -1.5, "", "text", "é\n\ud800", [], [1, [2, {"a": None}]], "TlVMTA==", "NULL",
    "SU5WQUxJRF9DT05ORUNUSU9O", {"raw": 5}, {"raw": 5, "more": 6},
])
def test_any_result_but_a_dict_without_raw_is_raw(other, value):
    reply = reply_to(other.address, old_request(old_tag(sample.echo), value))
    assert reply == old_encode({"raw": value})


@pytest.mark.parametrize("value", [{}, {"a": 1}, {"payload": "mine"}])
def test_any_other_dict_is_sent_as_it_is(other, value):
    reply = reply_to(other.address, old_request(old_tag(sample.echo), value))
    assert reply == old_encode(value)


def test_a_flag_is_sent_as_its_bare_base64(other):
    assert reply_to(other.address, old_request(old_tag(net.null))) == b"TlVMTA=="
    assert reply_to(other.address, old_request(old_tag(sample.flagged), "SAMPLE")) \
        == base64.b64encode(b"SAMPLE")


def test_an_unknown_connection_is_the_documented_flag(other):
    for tag in ("bm8gc3VjaCB0YWc=", "not base64 at all", ""):
        assert reply_to(other.address, old_request(tag)) == b"SU5WQUxJRF9DT05ORUNUSU9O"


def test_an_error_is_sent_with_its_traceback(other):
    reply = old_decode(reply_to(other.address, old_request(old_tag(sample.fail), "KeyError", "x")))
    assert set(reply) == {"payload", "traceback"}
    assert reply["payload"] == "error"
    assert "raise getattr(builtins, name)(*args)" in reply["traceback"]
    assert reply["traceback"].rstrip().endswith("KeyError: 'x'")


def test_wrong_arguments_are_an_error_too(other):
    reply = old_decode(reply_to(other.address, old_request(old_tag(sample.multiply))))
    assert "TypeError: multiply() missing 1 required positional argument" in reply["traceback"]


def test_what_would_end_a_program_is_an_error_of_the_call(other):
    for name in ("SystemExit", "KeyboardInterrupt"):
        request = old_request(old_tag(sample.fail), name, 3)
        assert old_decode(reply_to(other.address, request))["payload"] == "error"


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_request_may_come_in_pieces(other, size):
    request = old_request(old_tag(sample.multiply), 6, some_kwarg=7)
    pieces = [request[start:start + size] for start in range(0, len(request), size)]
    pause = 0.001 if size < 100 else 0.02
    assert reply_to(other.address, *pieces, pause=pause) == old_encode({"raw": 42})


def test_a_request_of_the_full_length_is_served(other):
    empty = len(old_request(old_tag(sample.echo), ""))
    text = "x" * ((OLD_LIMIT - empty) * 3 // 4 + 1)
    request = old_request(old_tag(sample.echo), text)
    assert OLD_LIMIT - 4 < len(request) <= OLD_LIMIT
    assert old_decode(reply_to(other.address, request)) == {"raw": text}


def test_a_reply_that_an_old_client_could_not_receive_is_an_error_that_it_can(other):
    request = old_request(old_tag(sample.multiply), "x", some_kwarg=900)
    reply = reply_to(other.address, request)
    assert len(reply) <= OLD_LIMIT
    assert "MessageTooLarge" in old_decode(reply)["traceback"]


def test_a_long_traceback_is_cut_to_what_an_old_client_receives(other):
    request = old_request(old_tag(sample.fail), "ValueError", "y" * 500)
    reply = reply_to(other.address, request)
    assert len(reply) <= OLD_LIMIT
    assert old_decode(reply)["traceback"].rstrip().endswith("y" * 500)


def test_a_result_that_json_does_not_have_is_an_error(other):
    request = old_request(old_tag(sample.some_bytes), 3)
    reply = old_decode(reply_to(other.address, request))
    assert reply["payload"] == "error" and "ValueNotSupported" in reply["traceback"]


def test_a_connection_of_a_tag_of_its_own_is_found(other):
    tag = base64.b64encode(b"sample upper").decode()
    assert reply_to(other.address, old_request(tag, "x")) == old_encode({"raw": "X"})


@pytest.mark.parametrize("data", [
    b"ehlo example.org\r\n",
    b"e" * 2000,
    base64.b64encode(b"{not json at all}" * 8)[:-4] + b"!!!!",
    base64.b64encode(b"z" * 30),
    base64.b64encode(b'{"connection": "' + b"x" * 70_000),
    base64.b64encode(b'{"connection": "x", "args": ' + b"[" * 300 + b"]" * 300 + b"}"),
    b'{"connection": "x"]}', b"{" * 70_000,
], ids=["a greeting", "letters", "broken base64", "not an object", "too long", "too deep",
        "no JSON", "too long, plain"])
def test_what_only_begins_like_the_old_dialect_is_reset(other, data):
    # An end without a reply would be the result "" to an old program.
    with socket.create_connection(other.address, timeout=patience(5)) as sock:
        with pytest.raises(ConnectionResetError):
            sock.sendall(data)
            sock.recv(OLD_LIMIT)
    assert sample.where(peer=other.id) == other.pid


def test_an_object_that_is_no_call_is_an_error_in_the_old_dialect(other):
    for content in ({}, {"connection": 5, "args": [], "kwargs": {}},
                    {"connection": old_tag(sample.where), "args": {}, "kwargs": {}},
                    {"connection": old_tag(sample.where), "args": [], "kwargs": []},
                    {"connection": old_tag(sample.where)}):
        reply = old_decode(reply_to(other.address, old_encode(content)))
        assert reply["payload"] == "error" and "ProtocolError" in reply["traceback"]


# ------------------------------------------------------------------------------ an old server

class OldServer:
    """A peer as the old documentation describes it; it serves one connection after the other.

    :ivar requests: what was received on each connection.
    """

    def __init__(self, functions: Dict[str, Callable[..., Any]], unreadable: Any) -> None:
        self.functions = functions
        self.requests: List[bytes] = []
        self.calls: List[str] = []
        self.pieces: Optional[int] = None
        self._unreadable = unreadable
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._handle(connection)
                except ConnectionError:
                    pass

    def _handle(self, connection: socket.socket) -> None:
        data = connection.recv(OLD_LIMIT)
        self.requests.append(data)
        reply = self._answer(data)
        size = self.pieces or len(reply) or 1
        for start in range(0, len(reply), size):
            connection.sendall(reply[start:start + size])
            if self.pieces:
                time.sleep(0.001)

    def _answer(self, data: bytes) -> bytes:
        try:
            request = old_decode(data)
        except ValueError:
            return self._unreadable
        function = self.functions.get(base64.b64decode(request["connection"]).decode())
        if function is None:
            return base64.b64encode(b"INVALID_CONNECTION")
        self.calls.append(function.__name__)
        try:
            value = function(*request["args"], **request["kwargs"])
        except Exception as error:
            text = f"Traceback (most recent call last):\n...\n{type(error).__name__}: {error}\n"
            return old_encode({"payload": "error", "traceback": text})
        if isinstance(value, bytes):
            return value
        return old_encode(value if isinstance(value, dict) else {"raw": value})


UNREADABLE = {
    "an error": old_encode({"payload": "error", "traceback": "Traceback ...\nValueError: bad\n"}),
    "an error with an id": old_encode({"payload": "error", "traceback": "Traceback ...\n",
                                       "peer": "b'MTI3'"}),
    "the flag NULL": b"TlVMTA==",
    "the flag INVALID_CONNECTION": b"SU5WQUxJRF9DT05ORUNUSU9O",
    "a dict": old_encode({"raw": None}),
}


@pytest.fixture(params=UNREADABLE.values(), ids=UNREADABLE.keys())
def any_old_server(request) -> Iterator[OldServer]:
    """Old servers differ in what they answer to what they cannot read."""
    yield from _served(request.param)


@pytest.fixture
def old_server() -> Iterator[OldServer]:
    yield from _served(UNREADABLE["an error"])


def _served(unreadable: bytes) -> Iterator[OldServer]:
    def multiply(some_arg: Any, some_kwarg: Any = 5) -> Any:
        return some_arg * some_kwarg

    def echo(value: Any) -> Any:
        return value

    def flagged(name: str) -> bytes:
        return base64.b64encode(name.encode())

    def fail(name: str, *args: Any) -> None:
        raise vars(builtins)[name](*args)

    def wait(seconds: float) -> None:
        time.sleep(seconds)

    functions = {f"sample.{one.__name__}": one for one in (multiply, echo, flagged, fail, wait)}
    server = OldServer(functions, unreadable)
    yield server
    server.close()


def test_an_old_server_is_recognised_and_called_in_its_dialect_at_once_and_ever_after(
        any_old_server):
    server = any_old_server
    assert sample.multiply(5, some_kwarg=10, peer=server.address) == 50
    first, second = server.requests
    assert first.startswith(b"\xabnet")
    assert second == old_request(old_tag(sample.multiply), 5, some_kwarg=10)
    for number in range(3):
        assert sample.multiply(number, peer=server.address) == number * 5
    assert len(server.requests) == 5
    assert server.requests[-1] == old_request(old_tag(sample.multiply), 2)
    # What it could not read was not run.
    assert server.calls == ["multiply"] * 4


@pytest.mark.parametrize("value", [
    None, True, -1.5, "text", "\ud800", [1, [2]], {}, {"a": [1]}, {"raw": 1, "b": 2}, "TlVMTA==",
    "NULL", {"payload": "mine"},
])
def test_values_of_json_come_back_from_an_old_server(old_server, value):
    assert sample.echo(value, peer=old_server.address) == value


@pytest.mark.parametrize("pieces", [None, 1, 5])
def test_flags_of_an_old_server_are_handled_here(old_server, pieces):
    old_server.pieces = pieces
    assert sample.flagged("NULL", peer=old_server.address) == "NULL"
    assert sample.flagged("SAMPLE", peer=old_server.address)[0] == "handled"
    assert sample.echo([1, 2], peer=old_server.address) == [1, 2]
    with pytest.raises(net.InvalidConnection):
        sample.where(peer=old_server.address)


def test_errors_of_an_old_server_match(old_server):
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        sample.fail("ZeroDivisionError", "division by zero", peer=old_server.address)
    assert isinstance(caught.value, net.RemoteError)
    assert caught.value.traceback.startswith("Traceback (most recent call last):")
    assert (caught.value.peer, caught.value.tag) == (old_server.address, sample.fail.tag)


def test_what_an_old_server_cannot_receive_fails_here_before_anything_is_sent(old_server):
    assert sample.echo(1, peer=old_server.address) == 1
    before = len(old_server.requests)
    with pytest.raises(net.MessageTooLarge) as caught:
        sample.echo("x" * 2000, peer=old_server.address)
    assert caught.value.ran == "no"
    with pytest.raises(net.ValueNotSupported):
        sample.echo(b"bytes", peer=old_server.address)
    assert len(old_server.requests) == before


def test_a_first_request_that_is_too_long_is_not_run_in_part(old_server):
    with pytest.raises(net.MessageTooLarge):
        sample.echo("x" * 2000, peer=old_server.address)
    assert old_server.calls == []
    # It asked what is short enough to be answered.
    assert all(len(request) < OLD_LIMIT for request in old_server.requests)
    assert sample.echo("y" * 500, peer=old_server.address) == "y" * 500


def test_a_senseless_reply_of_an_old_server_is_an_error_that_says_it_may_have_run(old_server):
    assert sample.multiply(2, peer=old_server.address) == 10
    for reply in (b"not base64 at all", b"eyJyYXci", base64.b64encode(b"[1]"), b"Tk8gRkxBRw"):
        old_server.functions["sample.echo"] = lambda value: reply
        with pytest.raises(net.ProtocolError) as caught:
            sample.echo(0, peer=old_server.address)
        assert caught.value.ran == "maybe"


def test_a_call_to_an_old_server_times_out(old_server):
    start = time.monotonic()
    with pytest.raises(net.CallTimeout):
        sample.wait.on(old_server.address, timeout=0.2)(0.5)
    assert time.monotonic() - start < 0.45
    assert sample.multiply(2, peer=old_server.address) == 10


def test_an_old_server_that_closes_without_a_reply_is_lost(old_server):
    assert sample.multiply(2, peer=old_server.address) == 10
    old_server.functions["sample.multiply"] = bytes
    with pytest.raises(net.PeerLost) as caught:
        sample.multiply(0, peer=old_server.address)
    assert caught.value.ran == "maybe"


def test_a_server_of_another_kind_is_not_taken_for_an_old_one():
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 example.org ESMTP\r\n", b"-ERR\r\n",
                   b"\x15\x03\x01\x00\x02\x02\x46", b"e", b"eyJ", b"{}", b"Tk8gRkxBRw!"):
        server = OldServer({}, answer)
        with pytest.raises(net.ProtocolError) as caught:
            sample.multiply(2, peer=server.address)
        server.close()
        assert len(server.requests) == 1
        assert caught.value.ran == "no"


def test_both_dialects_are_served_at_the_same_time(other):
    results: List[Any] = []

    def as_old_client() -> None:
        for number in range(30):
            request = old_request(old_tag(sample.multiply), number)
            results.append(old_decode(reply_to(other.address, request)) == {"raw": number * 5})

    threads = [threading.Thread(target=as_old_client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        assert sample.multiply(number, peer=other.id) == number * 5
    for thread in threads:
        thread.join()
    assert results == [True] * 120


@pytest.mark.parametrize("way", [
    "net.null(peer=PEER)",
    "net.null.start(peer=PEER).result()",
    "net.subscribe('tick', peers=[PEER])(lambda: None)",
], ids=["a call", "a started call", "a subscription"])
def test_a_search_that_finds_an_old_program_leaves_its_port_free(peer_process, way):
    """It ends each connection itself and could not bind its port again for a minute, unless the
    other side resets."""
    there = peer_process("import net")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(patience(10))
        there.execute(way.replace("PEER", repr("127.0.0.1:%d" % server.getsockname()[1])))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(patience(10))
            assert not connection.recv(1024).startswith(b"ey")
            connection.sendall(base64.b64encode(json.dumps(
                {"payload": "error", "traceback": "ValueError: no base64"}).encode()))
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
