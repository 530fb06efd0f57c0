"""Connections that break, through a proxy that breaks them: the promised error, once at most."""
from __future__ import annotations

import random
import socket
import threading
import time

import pytest

import net
from chaos import Proxy, Way
from net.process import process
from net.wire.frames import HEADER
from net.wire.limits import Limits
from net.wire.session import encode_hello
from service import Service, memory, request
from times import patience

HELLO = b"".join(encode_hello("service", Limits()))
REPLY = len(HELLO) + HEADER.size + len(b"5")


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
def test_a_connection_cut_at_any_byte_of_the_request_executes_nothing(service, reset):
    preface = len(process.client.preface())
    for size in range(preface + len(request("add", 2, 3))):
        with Proxy(service.address, request=Way(cut=size, reset=reset)) as proxy:
            with pytest.raises((net.PeerUnreachable, net.PeerLost)) as caught:
                service.call("add", 2, 3, at=proxy.address)
            # Nothing has left before the preface has its answer.
            begun = size > preface
            assert type(caught.value) is (net.PeerLost if begun else net.PeerUnreachable)
            assert caught.value.ran == ("maybe" if begun else "no")
    assert service.ran == []
    assert service.call("add", 2, 3) == 5


@pytest.mark.parametrize("reset", [False, True], ids=["an end", "a reset"])
def test_a_connection_cut_at_any_byte_of_the_reply_has_executed_once(service, reset):
    for size in range(REPLY):
        service.ran.clear()
        with Proxy(service.address, reply=Way(cut=size, reset=reset)) as proxy:
            with pytest.raises((net.PeerUnreachable, net.PeerLost)) as caught:
                service.call("add", 2, 3, at=proxy.address)
        assert len(service.ran) <= (0 if caught.value.ran == "no" else 1)
        if size != len(HELLO):  # it may reach the caller, or be lost to the reset
            assert caught.value.ran == ("no" if size < len(HELLO) else "maybe")
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
    """Accepts connections, reads a little of each and answers all with the same bytes.

    :param greet: whether it says HELLO first; its answers carry the number of the request then.
    """

    def __init__(self, answer: bytes, hang: float = 0.0, read: int = 4096,
                 greet: bool = True) -> None:
        self._answer, self._hang, self._read, self._greet = answer, hang, read, greet
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
                    if self._greet:
                        sock.recv(4096)
                        sock.sendall(HELLO)
                    data = sock.recv(self._read)
                    number = data[4:8] if self._greet else self._answer[4:8]
                    sock.sendall(self._answer[:4] + number + self._answer[8:])
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


def frame(kind: int, text: bytes = b"", flags: int = 0, size: int = -1, buffers: int = 0) -> bytes:
    return HEADER.pack(kind, flags, buffers, 0, len(text) if size < 0 else size) + text


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x00" * 50, b"\xff" * 50, frame(1), frame(2, b"5"), frame(5, b"5", flags=2),
    frame(0x63, b"5"), frame(5, b"5"), frame(3, b"{}"),
], ids=["HTTP", "SSH", "TLS", "zeros", "ones", "a call", "a result", "a flag bit", "a kind",
        "HELLO without sense", "a refusal without sense"])
def test_what_is_no_peer_is_a_protocol_error_and_nothing_ran(service: Service, answer: bytes):
    with Scripted(answer, greet=False) as other:
        with pytest.raises(net.ProtocolError) as caught:
            service.call("add", 2, 3, at=other.address)
        assert caught.value.ran == "no"


@pytest.mark.parametrize("answer", [
    frame(2, b"[1,2", size=5), frame(2, b"{"), frame(2, b"5") + b"more", frame(2, size=0xffffffff),
    frame(2, size=1, buffers=1) + b"\xff" * 8, frame(3, b"{}"), frame(3, b"1"), frame(4, b"{}"),
    frame(3, b'{"refused":1}'), frame(2, b'{"!bytes":9}', flags=1), frame(2, b"[" * 256),
    frame(2, b"\xff\xfe"), frame(2, b'{"!evil":"x"}', flags=1), frame(2, b"5", flags=2),
    frame(99, b"5"), frame(1, b"5"), HELLO, b"HTTP/1.1 400 Bad Request\r\n\r\n",
])
def test_a_reply_without_sense_is_a_typed_error(service: Service, answer: bytes):
    with Scripted(answer) as other:
        with pytest.raises(net.NetError) as caught:
            service.call("add", 2, 3, at=other.address)
        assert caught.value.ran in ("maybe", "yes")


def test_a_reply_that_only_declares_a_lot_takes_no_memory(service: Service):
    before = memory()
    answer = frame(2, size=2, buffers=1) + (2 ** 30).to_bytes(8, "big") + b"[]x"
    with Scripted(answer, hang=1) as other:
        with pytest.raises(net.CallTimeout):
            service.call("add", 2, 3, at=other.address, timeout=0.5)
    assert memory() - before < 20 * 2 ** 20


def test_a_peer_that_says_nothing_costs_the_timeout_and_no_more(service: Service):
    with Scripted(b"", hang=10) as other:
        started = time.monotonic()
        with pytest.raises(net.CallTimeout) as caught:
            service.call("add", 2, 3, at=other.address, timeout=patience(0.3))
        assert time.monotonic() - started < patience(2)
        assert caught.value.ran == "maybe"
    with Scripted(b"", hang=10, greet=False) as other:
        with pytest.raises(net.CallTimeout) as caught:
            service.call("add", 2, 3, at=other.address, timeout=0.3)
        assert caught.value.ran == "no"


def test_a_peer_that_does_not_read_costs_the_timeout_whatever_is_sent(service: Service):
    with Scripted(b"", hang=10, read=1) as other:
        service.call("echo", 1, at=service.address)
        started = time.monotonic()
        with pytest.raises(net.CallTimeout):
            service.call("echo", bytes(50_000_000), b"x" * 5000, at=other.address, timeout=0.5)
        assert time.monotonic() - started < patience(3)


def test_nobody_there_is_an_error_at_once_and_says_that_nothing_ran(service: Service):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with pytest.raises(net.PeerUnreachable) as caught:
        service.call("add", 2, 3, at=address)
    assert caught.value.ran == "no"
