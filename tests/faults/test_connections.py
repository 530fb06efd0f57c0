"""Connections that break, through a proxy that breaks them: the promised error, once at most."""
from __future__ import annotations

import random
import socket
import threading
import time

import pytest

import net
from chaos import Proxy, Way
from net.wire.frames import PREFACE
from service import Service, memory, request

REQUEST = len(PREFACE) + len(request("add", 2, 3))
REPLY = len(b"\2\0\0\0\0\0\0\1" + b"5")


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
def test_a_connection_cut_at_any_byte_of_the_request_executes_nothing(service, reset):
    for size in range(REQUEST):
        with Proxy(service.address, request=Way(cut=size, reset=reset)) as proxy:
            with pytest.raises(net.PeerLost) as caught:
                service.call("add", 2, 3, at=proxy.address)
            assert caught.value.ran == "maybe"
    assert service.ran == []
    assert service.call("add", 2, 3) == 5


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
def test_a_connection_cut_at_any_byte_of_the_reply_has_executed_once(service, reset):
    for size in range(REPLY):
        service.ran.clear()
        with Proxy(service.address, reply=Way(cut=size, reset=reset)) as proxy:
            with pytest.raises(net.PeerLost):
                service.call("add", 2, 3, at=proxy.address)
        assert len(service.ran) <= 1
        assert service.call("add", 2, 3) == 5


def test_a_slow_network_only_takes_longer(service: Service):
    with Proxy(service.address, Way(dribble=0.001), Way(dribble=0.001)) as proxy:
        assert service.call("echo", "slowly", at=proxy.address) == "slowly"
    with Proxy(service.address, Way(delay=0.2), Way(delay=0.2)) as proxy:
        with pytest.raises(net.CallTimeout):
            service.call("add", 2, 3, at=proxy.address, timeout=0.1)
        assert service.call("add", 2, 3, at=proxy.address) == 5


def test_large_data_survives_any_cut_of_the_pieces(service: Service):
    data = random.Random(5).randbytes(300_000) if hasattr(random.Random, "randbytes") else b"x"
    shuffled = random.Random(7)

    def again(offset: int, piece: bytes) -> bytes:
        time.sleep(shuffled.random() / 500)
        return piece

    with Proxy(service.address, Way(change=again), Way(change=again)) as proxy:
        assert service.call("echo", data, "text" * 5000, at=proxy.address) == \
            (data, "text" * 5000)


def test_a_flipped_bit_is_an_error_or_a_value_but_never_a_hang(service: Service):
    """TCP checks what it carries; behind a device that does not, an error still has a type."""
    for offset in range(REPLY):
        def flip(start: int, piece: bytes, at: int = offset) -> bytes:
            changed = bytearray(piece)
            if start <= at < start + len(piece):
                changed[at - start] ^= 1
            return bytes(changed)

        with Proxy(service.address, reply=Way(change=flip)) as proxy:
            try:
                service.call("add", 2, 3, at=proxy.address, timeout=0.25)
            except net.NetError:
                pass
    assert service.call("add", 2, 3) == 5


def test_a_pooled_connection_that_ended_meanwhile_is_replaced_without_a_second_run(service):
    with Proxy(service.address) as proxy:
        assert service.call("add", 2, 3, at=proxy.address) == 5
        proxy.cut()
        assert service.call("add", 2, 3, at=proxy.address) == 5
    assert len(service.ran) == 2


# -------------------------------------------------- a peer that does not behave, in the other role

class Scripted:
    """Accepts connections, reads a little of each and answers all with the same bytes."""

    def __init__(self, answer: bytes, hang: float = 0.0, read: int = 1) -> None:
        self._answer, self._hang, self._read = answer, hang, read
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                try:
                    sock.recv(self._read)
                    sock.sendall(self._answer)
                    self._done.wait(self._hang)
                except OSError:
                    pass

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x00" * 50, b"\xff" * 50, b"\1\0\0\0\0\0\0\0",
    b"\2\x02\0\0\0\0\0\1" + b"5", b"\x63\0\0\0\0\0\0\1" + b"5",
], ids=["HTTP", "SSH", "TLS", "zeros", "ones", "a call", "a flag bit", "a kind"])
def test_what_is_no_peer_is_a_protocol_error(service: Service, answer: bytes):
    with Scripted(answer) as other:
        with pytest.raises((net.ProtocolError, net.PeerLost)):
            service.call("add", 2, 3, at=other.address)


@pytest.mark.parametrize("answer", [
    b"\2\0\0\0\0\0\0\5[1,2", b"\2\0\0\0\0\0\0\1" + b"{", b"\2\0\0\0\0\0\0\1" + b"5" + b"more",
    b"\2\0\0\0\xff\xff\xff\xff", b"\2\0\0\1\0\0\0\1" + b"\xff" * 8, b"\3\0\0\0\0\0\0\2{}",
    b"\3\0\0\0\0\0\0\1" + b"1", b"\4\0\0\0\0\0\0\2{}", b"\3\0\0\0\0\0\0\x0d" + b'{"refused":1}',
    b"\2\1\0\0\0\0\0\x0c" + b'{"!bytes":9}', b"\2\0\0\0\0\0\x01\x00" + b"[" * 256,
    b"\2\0\0\0\0\0\0\2\xff\xfe", b"\2\1\0\0\0\0\0\x0d" + b'{"!evil":"x"}',
])
def test_a_reply_without_sense_is_a_typed_error(service: Service, answer: bytes):
    with Scripted(answer, read=4096) as other:
        with pytest.raises(net.NetError):
            service.call("add", 2, 3, at=other.address)


def test_a_reply_that_only_declares_a_lot_takes_no_memory(service: Service):
    before = memory()
    with Scripted(b"\2\0\0\1\0\0\0\2" + (2 ** 30).to_bytes(8, "big") + b"[]x", 1, 4096) as other:
        with pytest.raises(net.CallTimeout):
            service.call("add", 2, 3, at=other.address, timeout=0.5)
    assert memory() - before < 20 * 2 ** 20


def test_a_peer_that_says_nothing_costs_the_timeout_and_no_more(service: Service):
    with Scripted(b"", hang=10) as other:
        started = time.monotonic()
        with pytest.raises(net.CallTimeout) as caught:
            service.call("add", 2, 3, at=other.address, timeout=0.3)
        assert time.monotonic() - started < 2
        assert caught.value.ran == "maybe"


def test_a_peer_that_does_not_read_costs_the_timeout_whatever_is_sent(service: Service):
    with Scripted(b"", hang=10) as other:
        service.call("echo", 1, at=service.address)
        started = time.monotonic()
        with pytest.raises(net.CallTimeout):
            service.call("echo", bytes(50_000_000), b"x" * 5000, at=other.address, timeout=0.5)
        assert time.monotonic() - started < 3


def test_nobody_there_is_an_error_at_once_and_says_that_nothing_ran(service: Service):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with pytest.raises(net.PeerUnreachable) as caught:
        service.call("add", 2, 3, at=address)
    assert caught.value.ran == "no"
