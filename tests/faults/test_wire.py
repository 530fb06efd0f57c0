"""Whatever arrives on the port: a wrong start ends the connection, and nothing is executed."""
from __future__ import annotations

import os
import socket
import threading

import pytest

import net
from net.identity import encode_text
from net.wire import legacy
from net.wire.frames import HEADER, LENGTH
from net.wire.messages import Call
from net.run import server_connection
from service import PREFACE, Raw, Service, greeted, memory, request, until
from times import patience

ADD = request("add", 2, 3)
OLD = legacy.encode_call(Call(encode_text("add"), [2, 3], {}))

BANNERS = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a POST with a request of ours": b"POST / HTTP/1.1\r\n\r\n" + PREFACE + ADD,
    "a POST with an old request": b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n" + OLD,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + PREFACE + ADD,
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMB": b"\x00\x00\x00\x85\xffSMBr\x00\x00\x00\x00",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "memcached": b"get key\r\n",
    "RDP": bytes.fromhex("030000130ee000000000000100080003000000"),
    "SMTP, which starts like base64": b"ehlo example.org\r\n",
    "SIP": b"OPTIONS sip:x SIP/2.0\r\n\r\n",
    "a line of text before a request": b"\n" + PREFACE + ADD,
    "a request without its preface": ADD,
    "the preface in upper case": b"\xabNET" + PREFACE[4:] + ADD,
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00",
    "zeros": bytes(100),
    "0xff": b"\xff" * 100,
    "a preface of many fields": PREFACE[:6] + b"\xff\xff" + ADD,
    "a preface of another time": PREFACE[:5] + b"\1" + PREFACE[6:] + ADD,
}


@pytest.fixture
def endless_greeting(monkeypatch) -> None:
    """Nothing is closed because its greeting takes too long, so what ends at once is seen to."""
    monkeypatch.setattr(server_connection, "GREETING_TIME", patience(1000))


@pytest.mark.usefixtures("endless_greeting")
@pytest.mark.parametrize("start", BANNERS.values(), ids=BANNERS)
def test_a_wrong_start_is_closed_at_once_without_a_reply(service: Service, start: bytes):
    with Raw(service.address, start) as raw:
        assert raw.rest() == b""
    assert service.ran == []
    assert service.call("add", 1, 1) == 2


@pytest.mark.usefixtures("endless_greeting")
def test_a_mebibyte_of_noise_is_closed_on_its_first_bytes(service: Service):
    noise = os.urandom(2 ** 20)
    while noise[:1] in (PREFACE[:1], b"e"):
        noise = noise[1:]
    with Raw(service.address, noise) as raw:
        assert raw.rest() == b""


@pytest.fixture
def greeting_time(monkeypatch) -> float:
    """Seconds for a greeting, fewer than usual."""
    monkeypatch.setattr(server_connection, "GREETING_TIME", 1.0)
    return 1.0


def test_silence_ends_after_the_time_for_a_greeting(service: Service, greeting_time: float):
    silent = [Raw(service.address) for _ in range(64)]
    assert service.call("add", 1, 1) == 2
    assert service.server.connections >= 64  # it did not have to wait for their end
    for raw in silent:
        with raw:
            assert raw.rest() == b""
            assert raw.seconds < greeting_time + patience(2)
    assert silent[0].seconds > greeting_time / 2


def test_half_a_preface_is_no_longer_life_than_silence(service: Service, greeting_time: float):
    with Raw(service.address, PREFACE[:-1]) as raw:
        assert raw.rest() == b""
        assert greeting_time / 2 < raw.seconds < greeting_time + patience(2)


def test_a_preface_and_nothing_more_ends_after_the_time_for_a_request(service: Service, configure):
    configure(request_time=1.0)
    with Raw(service.address) as raw:
        raw.greet()
        with pytest.raises(net.ProtocolError, match="NET_REQUEST_TIME"):
            raw.reply()
        assert raw.rest() == b""
        assert net.REQUEST_TIME / 2 < raw.seconds < net.REQUEST_TIME + patience(2)


def test_a_preface_in_single_bytes_works(service: Service):
    with Raw(service.address) as raw:
        for byte in greeted(ADD):
            raw.send(bytes((byte,)))
        assert raw.reply() == 5


def test_many_that_connect_and_leave_at_once_leave_nothing(service: Service):
    threads = threading.active_count()
    for _ in range(100):
        socket.create_connection(service.address).close()
    assert service.call("add", 1, 1) == 2
    until(lambda: threading.active_count() <= threads + 2)


def test_another_version_is_told_both_versions(service: Service):
    with Raw(service.address, PREFACE[:4] + b"\x07" + PREFACE[5:] + ADD) as raw:
        with pytest.raises(net.ProtocolError, match="version 7 .* version 1"):
            raw.reply()
        assert raw.rest() == b""
    assert service.ran == []


# ------------------------------------------------------------------------------------ framing

def frame(kind: int = 1, flags: int = 0, lengths: tuple = (), size: int = 0,
          rest: bytes = b"") -> bytes:
    return HEADER.pack(kind, flags, len(lengths), 1, size) \
        + b"".join(LENGTH.pack(length) for length in lengths) + rest


@pytest.mark.parametrize("kind", [0, 17, 99, 255])
def test_an_unknown_kind_of_frame_is_refused_and_the_next_one_works(service: Service, kind: int):
    with Raw(service.address, greeted(frame(kind), frame(kind, 1, (3,), 2, b"[]abc"), ADD)) as raw:
        for _ in range(2):
            with pytest.raises(net.ProtocolError, match=f"kind {kind}"):
                raw.reply()
        assert raw.reply() == 5
    assert len(service.ran) == 1


@pytest.mark.parametrize("data", [
    frame(flags=2), frame(flags=0xff), frame(kind=99, size=2 ** 20),
    frame(kind=99, lengths=(2 ** 20,)),
], ids=["flag 2", "all flags", "a large one of an unknown kind", "with a large buffer"])
def test_an_unknown_frame_ends_the_connection(service: Service, data: bytes):
    with Raw(service.address, greeted(ADD, data, ADD)) as raw:
        assert raw.reply() == 5
        raw.rest()
    assert len(service.ran) == 1


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 13])
def test_what_only_a_server_sends_ends_the_connection(service: Service, kind: int):
    with Raw(service.address, greeted(frame(kind, size=1, rest=b"1"), ADD)) as raw:
        with pytest.raises(net.ProtocolError, match=f"kind {kind} may not come now"):
            raw.reply()
        assert raw.rest() == b""
    assert service.ran == []


@pytest.mark.parametrize("data", [
    frame(size=0xFFFFFFFF), frame(size=16 * 2 ** 20 + 1), frame(lengths=(2 ** 63,)),
    frame(lengths=(2 ** 29, 2 ** 29, 1)), frame(lengths=(2 ** 64 - 1,) * 100),
], ids=["4 GiB of text", "a byte too much", "8 EiB", "a byte too much in buffers", "many"])
def test_a_forged_length_is_refused_before_anything_is_received(service: Service, data: bytes):
    with Raw(service.address, greeted(data)) as raw:
        with pytest.raises(net.MessageTooLarge):
            raw.reply()
        assert raw.rest() == b""
    assert service.ran == []


def test_an_empty_frame_is_an_error_that_does_not_end_the_connection(service: Service):
    with Raw(service.address, greeted(frame())) as raw:
        with pytest.raises(net.ProtocolError):
            raw.reply()
        raw.send(ADD)
        assert raw.reply() == 5


def test_declared_lengths_take_no_memory_and_end_at_the_deadline(service: Service, configure):
    configure(request_time=1.5)
    assert service.call("echo", 1) == 1
    before = memory()
    stalled = [Raw(service.address, greeted(data)) for data in
               [frame(size=16 * 2 ** 20, rest=b"[" * 10),
                frame(size=2, lengths=(2 ** 30,), rest=b"[]" + bytes(10))] * 50]
    until(lambda: service.server.connections >= 100)
    # Each has a thread, with some 50 KiB of stack in use.
    assert memory() - before < 20 * 2 ** 20
    for raw in stalled:
        with raw:
            raw.rest()
            assert raw.seconds < net.REQUEST_TIME + patience(4)
    assert service.ran == [("echo", (1,))]


def test_a_request_in_drops_ends_at_its_total_deadline(service: Service, configure):
    configure(request_time=1.0)
    whole = request("echo", "x" * 1000)
    with Raw(service.address) as raw:
        raw.greet()
        raw.send(whole[:100])
        raw.sock.settimeout(0.2)
        sent = 100
        while raw.seconds < patience(8):
            raw.send(whole[sent:sent + 1])
            sent += 1
            try:
                if not raw.sock.recv(1):
                    break
            except socket.timeout:
                continue
            except ConnectionError:
                break
        assert 0.8 * net.REQUEST_TIME < raw.seconds < net.REQUEST_TIME + patience(3)
    assert service.ran == []


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
def test_a_request_that_ends_in_the_middle_is_not_executed(service: Service, reset: bool):
    whole = greeted(ADD)
    for size in range(len(whole)):
        raw = Raw(service.address, whole[:size])
        if reset:
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.sock.close()
    assert service.call("add", 4, 4) == 8
    assert service.ran == [("add", (4, 4))]


def test_half_close_after_the_request_still_brings_the_reply(service: Service):
    with Raw(service.address, greeted(ADD)) as raw:
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.reply() == 5
        assert raw.rest() == b""


def test_requests_sent_ahead_are_answered_in_order(service: Service):
    sums = [request("add", number, 0) for number in range(50)]
    with Raw(service.address, greeted(*sums)) as raw:
        raw.sock.shutdown(socket.SHUT_WR)
        data = raw.rest()
    texts = [f"{number}".encode() for number in range(50)]
    assert data == b"".join(frame(2, size=len(text), rest=text) for text in texts)


@pytest.mark.parametrize("text", [
    b'"text"', b"1", b"[]", b"null", b"{}", b"", b"{",
    b'{"tag":null,"args":[],"kwargs":{}}',
    b'{"tag":["YWRk"],"args":[],"kwargs":{}}',
    b'{"tag":7,"args":[],"kwargs":{}}',
    b'{"tag":"YWRk","args":{},"kwargs":{}}',
    b'{"tag":"YWRk","args":[],"kwargs":[]}',
    b'{"tag":"YWRk","args":[2,3]}',
    b'{"connection":"YWRk","args":[2,3],"kwargs":{}}',
    b'{"args":[2,3],"kwargs":{},"tag":"YWRk"}',
    b'{"tag":"YWRk","args":' + b"[" * 100_000, b'{"tag":"YWRk","args":' + b'{"a":' * 100_000,
    b'{"tag":"YWRk","args":["' + b"\\" * 50_000 + b'",' + b"[" * 50_000,
    b'{"tag":"YWRk","args":[2,3],"kwargs":{}}{}',
    '{"tag":"YWRk","args":[2,3],"kwargs":{}}'.encode("utf-16"),
    '{"tag":"YWRk","args":[2,3],"kwargs":{}}'.encode("utf-32"),
    '\ufeff{"tag":"YWRk","args":[2,3],"kwargs":{}}'.encode(),
    b'{"tag":"YWRk","args":["\xff\xfe"],"kwargs":{}}',
    b"[" * 100_000, b'{"a":' * 100_000, b'["' + b"\\" * 50_000 + b'",' + b"[" * 50_000,
])
def test_a_request_without_sense_is_a_typed_error_and_the_next_one_works(service, text):
    with Raw(service.address, greeted(frame(size=len(text), rest=text))) as raw:
        with pytest.raises(net.ProtocolError):
            raw.reply()
        raw.send(ADD)
        assert raw.reply() == 5
    assert len(service.ran) == 1


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "service.Service.close", "ADD",
                                  "net.peer._Peer.close", "add\0", "__class__", ""])
def test_a_name_that_is_not_registered_runs_nothing(service: Service, name: str):
    with pytest.raises(net.InvalidConnection):
        net.invalid_connection(b"", None, service.call(name, "true").details)
    assert service.ran == []


def test_fields_of_a_request_that_this_version_does_not_know_are_ignored(service: Service):
    text = b'{"tag":"YWRk","peer":"MTI3","args":[2,3],"kwargs":{},"left":1.5,"more":[{}]}'
    with Raw(service.address, greeted(frame(size=len(text), rest=text))) as raw:
        assert raw.reply() == 5


def test_kwargs_that_mean_something_to_us_reach_only_the_function(service: Service):
    with Service() as other_hand:
        text = (b'{"tag":"%s","args":[],"kwargs":{"peer":"%s:%d","a":1,"b":2}}'
                % (encode_text("add"), b"127.0.0.1", other_hand.address[1]))
        with Raw(service.address, greeted(frame(size=len(text), rest=text))) as raw:
            with pytest.raises(TypeError, match="peer"):
                raw.reply()
        assert other_hand.ran == []
