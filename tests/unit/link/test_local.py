"""What this host is known by to the programs on it."""
from __future__ import annotations

import sys

import pytest

from net.link import local
from net.link.base import Deadline
from net.link.tcp import is_own_address
from net.link.unix import PeerCredentials
from times import patience


@pytest.mark.parametrize("text, found", [
    ("127.0.0.1 localhost\n127.0.1.1\tStudio1 studio1.local  # Debian\n", ["127.0.1.1"]),
    ("127.0.0.1 localhost studio1\n::1 studio1\n", []), ("10.0.0.5 studio1\n", []),
    ("# 127.0.1.1 studio1\n127.0.1.1\n\n", []), ("127.0.1.1 other\n", []),
    ("127.0.1.1 studio1\n127.0.1.2 studio1\n", ["127.0.1.1", "127.0.1.2"]), (None, []),
])
def test_the_loopback_address_of_this_hosts_name_is_read(monkeypatch, tmp_path, text, found):
    path = tmp_path / "hosts"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(local, "HOSTS_FILE", str(path))
    monkeypatch.setattr(local.socket, "gethostname", lambda: "studio1")
    assert local.named_loopback() == found


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
@pytest.mark.parametrize("bound, host", [
    ("127.0.0.1", "127.0.0.1"), (local.EVERY_ADDRESS, "127.0.0.1"), ("::1", "::1"),
    (local.EVERY_ADDRESS_6, "::1")])
def test_a_peer_that_serves_at_every_address_is_reached_at_each_of_them_without_the_network(
        port_range, bound, host):
    if not is_own_address(host):
        pytest.skip("this host has no IPv6")
    listener = local.listen((bound, port_range.start), 5)
    try:
        found = local.connect(local.endpoints_of((host, port_range.start)), Deadline(patience(5.0)))
        assert found is not None and found.gettimeout() is None
        found.close()
        started = local.start(local.endpoints_of((host, port_range.start)))
        assert started is not None and started.gettimeout() == 0
        started.sendall(b"x")
        started.close()
        assert local.start(local.endpoints_of((host, port_range.start + 1))) is None
        other = local.connect(local.endpoints_of((host, port_range.start + 1)),
                              Deadline(patience(5.0)))
        assert other is None and local.endpoints_of(("203.0.113.1", 3010)) == []
    finally:
        listener.close()


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_a_full_queue_is_no_reason_to_take_another_way(port_range):
    listener = local.listen(("127.0.0.1", port_range.start), 0)
    endpoints, started = local.endpoints_of(("127.0.0.1", port_range.start)), []
    try:
        with pytest.raises(BlockingIOError):
            while True:
                started.append(local.start(endpoints))
    finally:
        listener.close()
        for sock in started:
            sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_a_queue_that_stays_full_is_a_reason(port_range, monkeypatch):
    # As that of another user's process, which took the name and lets nobody in.
    monkeypatch.setattr(local, "QUEUE_TIME", 0.05)
    thief = local.listen(("127.0.0.1", port_range.start), 0)
    peer = local.listen((local.EVERY_ADDRESS, port_range.start), 5)
    endpoints, started = local.endpoints_of(("127.0.0.1", port_range.start)), []
    try:
        with pytest.raises(BlockingIOError):
            while True:
                started.append(local.start(endpoints))
        assert local.connect(endpoints[:1], Deadline(patience(60.0))) is None
        started.append(local.connect(endpoints, Deadline(patience(60.0))))
        assert started[-1].getpeername() == peer._sock.getsockname()
    finally:
        for one in (thief, peer, *started):
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_a_process_of_another_user_is_left_alone(port_range, monkeypatch):
    listener = local.listen(("127.0.0.1", port_range.start), 5)
    endpoints = local.endpoints_of(("127.0.0.1", port_range.start))
    try:
        monkeypatch.setattr(local, "peer_credentials", lambda sock: PeerCredentials(1, -1, 1))
        assert local.start(endpoints) is None
        assert local.connect(endpoints, Deadline(patience(5.0))) is None
    finally:
        listener.close()
