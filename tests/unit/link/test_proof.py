"""Two processes of one host prove to each other that they know the secret, or do not."""
from __future__ import annotations

import hmac
import os
import socket
import sys

import pytest

from net.link import local
from net.link.local import NotProved
from net.link.proof import FIRST, NONCE_BYTES, PROOF_BYTES, ClientProof, ServerProof
from net.link.unix import PeerCredentials

KEY = b"k" * 32
#: Both sides of these tests are this process.
SELF = PeerCredentials(os.getpid(), os.getuid() if hasattr(os, "getuid") else 0, 0)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_both_sides_prove_it_and_what_comes_behind_is_kept(step):
    client, server = ClientProof(KEY, SELF), ServerProof(KEY, SELF)
    first, answer = client.output(), b""
    for start in range(0, len(first), step):
        answer += server.output(first[start:start + step])
    ended = [client.receive(answer[start:start + step]) for start in range(0, len(answer), step)]
    assert ended == [False] * (len(ended) - 1) + [True]
    last = client.output() + b"preface"
    ended = [server.receive(last[start:start + step]) for start in range(0, len(last), step)]
    assert ended.count(True) == 1 and server.rest == b"preface"
    assert first[:1] == answer[:1] == FIRST and len(first) == 1 + NONCE_BYTES
    assert len(answer) == 1 + NONCE_BYTES + PROOF_BYTES and client.output() == b""


@pytest.mark.parametrize("key, seen_by_client, seen_by_server", [
    (b"l" * 32, SELF, SELF), (KEY, SELF._replace(pid=1), SELF), (KEY, SELF, SELF._replace(pid=1))],
    ids=["another secret", "another process listens", "another process has connected"])
def test_neither_side_takes_it_from_another_process_or_under_another_secret(
        key, seen_by_client, seen_by_server):
    client, server = ClientProof(key, seen_by_client), ServerProof(KEY, seen_by_server)
    answer = server.output(client.output())
    with pytest.raises(NotProved):
        client.receive(answer)
    assert client.output() == b""  # its own proof has not left
    right = ClientProof(KEY, SELF)
    right.receive(ServerProof(KEY, SELF).output(right.output()))
    with pytest.raises(NotProved):  # of another connection
        server.receive(right.output())


def test_a_proof_cannot_be_sent_back():
    client, server = ClientProof(KEY, SELF), ServerProof(KEY, SELF)
    answer = server.output(client.output())
    with pytest.raises(NotProved):
        server.receive(answer[1 + NONCE_BYTES:])
    with pytest.raises(NotProved):
        ClientProof(KEY, SELF).receive(answer)  # it has another nonce


def test_a_proof_is_what_the_page_about_the_protocol_says():
    client, server = ClientProof(KEY, SELF), ServerProof(KEY, SELF)
    first = client.output()
    answer = server.output(first)
    pids = 2 * SELF.pid.to_bytes(4, "big")
    for side, proof in ((b"server", answer[33:]),
                        (b"client", client.receive(answer) and client.output())):
        claim = side + first[1:] + answer[1:33] + pids
        assert proof == hmac.new(KEY, claim, "sha256").digest()


@pytest.mark.parametrize("data", [b"", b"\x03" + bytes(200), b"\xabnet" + bytes(200)])
def test_the_end_and_what_begins_in_another_way_prove_nothing(data):
    with pytest.raises(NotProved):
        ClientProof(KEY, SELF).receive(data)


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_the_other_process_is_told_of_connections_by_name_only(port_range, monkeypatch):
    listener = local.listen(("127.0.0.1", port_range.start), 5)
    ours = local.start(local.endpoints_of(("127.0.0.1", port_range.start)))
    theirs, _ = listener.accept()
    pair = socket.socketpair()
    try:
        for one in (ours, theirs):
            found = local.process_behind(one)
            assert found is not None and found.pid == os.getpid()
        assert local.process_behind(pair[0]) is None
        with socket.socket() as tcp:
            assert local.process_behind(tcp) is None
        other = SELF._replace(user=SELF.user + 1)
        monkeypatch.setattr(local, "peer_credentials", lambda sock: other)
        assert local.process_behind(ours) is None
    finally:
        for one in (ours, theirs, listener, *pair):
            one.close()
