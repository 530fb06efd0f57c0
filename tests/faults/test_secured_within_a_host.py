"""Under a secret, processes of one user on one host prove it to each other and need no TLS."""
from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from typing import Any, Iterator, List

import pytest

import net
from certificates import Authority
from net.calls import aio
from net.identity import encode_text
from net.link import local, proof, tls
from net.link.base import Endpoint
from net.link.proof import FIRST, NONCE_BYTES, PROOF_BYTES, ClientProof
from net.link.streams import Stream
from net.process import process
from net.wire.frames import FAILURE
from hearing import ask
from service import Service, greeted, request, until
from times import patience

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's"),
    pytest.mark.skipif(sys.implementation.name == "pypy", reason="needs the extra secure")]
pytest.importorskip("cryptography")

SECRET = "correct horse battery"
ADD = request("add", 2, 3)

APPLICATION = """
import net
ran = []
@net.connect("add")
def add(a, b):
    ran.append((a, b))
    return a + b
@net.connect("later")
async def later(a, b):
    return a + b
@net.connect("ran")
def count():
    return len(ran)
"""

# Takes a name, and passes on all that it hears.
RELAY = """
import socket, threading
heard = []
def pass_on(one, other):
    while True:
        data = one.recv(65536)
        heard.append(data)
        if not data:
            other.shutdown(socket.SHUT_WR)
            return
        other.sendall(data)
def relay():
    while True:
        one, _ = listener.accept()
        other = socket.socket(socket.AF_UNIX)
        other.connect({there!r})
        for pair in ((one, other), (other, one)):
            threading.Thread(target=pass_on, args=pair, daemon=True).start()
listener = socket.socket(socket.AF_UNIX)
listener.bind({here!r})
listener.listen()
threading.Thread(target=relay, daemon=True).start()
"""


@pytest.fixture(autouse=True)
def proved_on_a_busy_machine(monkeypatch: Any) -> None:
    """A proof that takes long is no reason for TLS here, but where a test says so."""
    monkeypatch.setattr(proof, "PROOF_TIME", 60.0)


def call(peer: Any, name: str, *args: Any, timeout: float = 10) -> Any:
    return process.client.call(peer.address, encode_text(name), args, {}, timeout)


def awaited(peer: Any, name: str, *args: Any) -> Any:
    """The result, and what the connection for it is secured with."""
    async def some() -> Any:
        result = await aio.call(process.client, peer.address, encode_text(name), args, {}, 10)
        connection, = aio._pools(process.client).pool(peer.address)._open
        return result, connection._tls
    return asyncio.run(some())


def stream_of(peer: Any) -> Stream:
    """What calls in threads to a peer travel over."""
    connection, = process.client._pools[peer.address]._open
    return connection.stream


def name_of(peer: Any) -> str:
    endpoint = local.endpoints_of(peer.address)[0]
    return "\0" + endpoint.host[1:]


@pytest.fixture
def peer(peer_process: Any, configure: Any) -> Any:
    """A peer that has the secret, as this process has."""
    configure(secret=SECRET)
    return peer_process(APPLICATION, NET_SECRET=SECRET)


@contextlib.contextmanager
def connected(peer: Any) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(10))
        sock.connect(name_of(peer))
        yield sock


def received(sock: socket.socket) -> bytes:
    """All that comes until the end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        for piece in iter(lambda: sock.recv(65536), b""):
            data += piece
    return data


# --------------------------------------------------------------------------------- without TLS

def test_calls_within_a_host_need_no_tls(peer):
    assert call(peer, "add", 2, 3) == 5
    assert type(stream_of(peer)) is Stream
    assert stream_of(peer).sock.family == socket.AF_UNIX
    assert awaited(peer, "later", 2, 3) == (5, None)
    large = b"x" * 3_000_000
    assert call(peer, "add", large, large) == large + large


def test_over_tcp_they_have_it(peer, configure):
    configure(unix=False)
    assert call(peer, "add", 2, 3) == 5
    assert type(stream_of(peer)) is tls.TlsStream
    result, secured = awaited(peer, "later", 2, 3)
    assert result == 5 and secured is not None


def test_certificates_are_no_common_secret(peer_process, configure, tmp_path):
    studio = Authority(tmp_path)
    peer = peer_process(APPLICATION, **studio.issue("one").variables())
    configure(**studio.issue("two", ["127.0.0.1", "::1"])._asdict())
    assert call(peer, "add", 2, 3) == 5
    assert type(stream_of(peer)) is tls.TlsStream


def test_a_function_that_is_lent_and_coroutines_at_once_work_as_in_the_open(peer):
    peer.execute("@net.connect('use')\ndef use(f):\n    return f(5) + 1")
    assert call(peer, "use", lambda x: x * 2) == 11

    async def many() -> List[Any]:
        return await asyncio.gather(*(
            aio.call(process.client, peer.address, encode_text("later"), (number, 1), {}, 10)
            for number in range(100)))
    assert asyncio.run(many()) == list(range(1, 101))


def test_another_secret_from_now_on_ends_what_was_proved(peer, configure):
    assert call(peer, "add", 2, 3) == 5
    peer.execute("net.configure(secret='another secret of many')")
    until(stream_of(peer).has_ended)
    with pytest.raises(net.AuthenticationError, match="same NET_SECRET"):
        call(peer, "add", 4, 5)
    configure(secret="another secret of many")
    assert call(peer, "ran") == 1


# ------------------------------------------------------------------------------- who is there

def test_a_process_that_took_the_name_hears_nothing_and_the_call_goes_by_tcp(
        peer, peer_process, monkeypatch):
    taken = f"@{local.NAMES}{os.getuid()}/taken-{peer.address[1]}:1"
    relay = peer_process(RELAY.format(here="\0" + taken[1:], there=name_of(peer)))
    monkeypatch.setattr(local, "endpoints_of", lambda address: [Endpoint("unix", taken, 0)])
    assert call(peer, "add", 2, 3) == 5
    assert type(stream_of(peer)) is tls.TlsStream and stream_of(peer).sock.family == socket.AF_INET
    result, secured = awaited(peer, "later", 2, 3)
    assert result == 5 and secured is not None
    # Of each connection a nonce, and the proof of the peer: none of the caller's, and no request.
    until(lambda: ask(relay, "len(heard)") >= 8)
    assert sorted(ask(relay, "[len(data) for data in heard if data]")) == sorted(
        2 * [1 + NONCE_BYTES] + 2 * [1 + NONCE_BYTES + PROOF_BYTES])


@pytest.mark.parametrize("data, reply", [
    (greeted(ADD), FAILURE), (FIRST + bytes(NONCE_BYTES + PROOF_BYTES) + greeted(ADD), FIRST[0]),
    (FIRST + bytes(NONCE_BYTES) + greeted(ADD), FIRST[0]), (b"\x00" * 100, None)],
    ids=["no proof", "a wrong proof", "a call for a proof", "noise"])
def test_a_process_that_proves_nothing_gets_nothing(peer, data, reply):
    with connected(peer) as sock:
        sock.sendall(data)
        found = received(sock)
    assert found[:1] == (b"" if reply is None else bytes((reply,)))
    assert len(found) == 1 + NONCE_BYTES + PROOF_BYTES or reply != FIRST[0]
    assert call(peer, "ran") == 0


def test_a_proof_counts_for_its_own_connection_only(peer):
    with connected(peer) as sock:
        client = ClientProof(tls.credentials().proof_key, local.process_behind(sock))
        sock.sendall(client.output())
        assert client.receive(sock.recv(1000))
        proved = client.output()
    with connected(peer) as sock:
        sock.sendall(FIRST + bytes(NONCE_BYTES))
        assert sock.recv(1000)[:1] == FIRST
        sock.sendall(proved + greeted(ADD))
        assert received(sock) == b""
    assert call(peer, "ran") == 0


def test_over_tcp_and_in_a_pair_there_is_no_such_proof(configure):
    configure(secret=SECRET)
    with Service() as service:
        ours, theirs = socket.socketpair()
        service.server.adopt(theirs, None)
        for sock in (ours, socket.create_connection(service.address, patience(10))):
            with sock:
                sock.settimeout(patience(10))
                sock.sendall(FIRST + bytes(NONCE_BYTES))
                assert received(sock) == b""


@pytest.mark.parametrize("said", [b"", FIRST, FIRST + bytes(NONCE_BYTES + PROOF_BYTES - 1)],
                         ids=["nothing", "a beginning", "all but a byte"])
def test_a_silent_process_that_took_the_name_keeps_nobody_from_the_peer(
        peer, monkeypatch, said):
    taken = f"@{local.NAMES}{os.getuid()}/silent-{peer.address[1]}:1"
    monkeypatch.setattr(local, "endpoints_of", lambda address: [Endpoint("unix", taken, 0)])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + taken[1:])
    listener.listen()
    monkeypatch.setattr(proof, "PROOF_TIME", 0.2)
    held = []

    def begin() -> None:
        while len(held) < 2:
            sock, _ = listener.accept()
            held.append(sock)
            sock.sendall(said)
    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    try:
        assert call(peer, "add", 2, 3) == 5
        assert stream_of(peer).sock.family == socket.AF_INET
        result, secured = awaited(peer, "later", 2, 3)
        assert result == 5 and secured is not None
        thread.join(patience(10))
        assert len(held) == 2
    finally:
        listener.close()
        for sock in held:
            sock.close()


def test_silence_behind_the_name_is_a_timeout_of_the_call(configure, port_range, monkeypatch):
    configure(secret=SECRET)
    monkeypatch.setattr("net.run.client.GREETING_TIME", 0.4)
    tls.credentials()
    listener = local.listen(("127.0.0.1", port_range.start), 5)
    try:
        for timeout, error in ((0.2, net.CallTimeout), (10, net.PeerUnreachable)):
            with pytest.raises(error) as caught:
                process.client.call(("127.0.0.1", port_range.start), b"eA==", (), {}, timeout)
            assert caught.value.ran == "no"
    finally:
        listener.close()
