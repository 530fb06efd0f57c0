"""What only Unix sockets have: files, and the process at the other end."""
from __future__ import annotations

import os
import socket

import pytest

from net.link.base import Deadline, Endpoint
from net.link.unix import UnixCarrier, peer_credentials
from times import patience

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


@pytest.fixture
def endpoint(tmp_path):
    return Endpoint("unix", str(tmp_path / "peer"), 0)


def test_a_listener_removes_its_file(endpoint):
    listener = UnixCarrier().listen(endpoint, 5)
    assert os.path.exists(endpoint.host)
    listener.close()
    assert not os.path.exists(endpoint.host)
    listener.close()


def test_a_file_that_a_process_left_behind_is_no_hindrance(endpoint):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(endpoint.host)
    with pytest.raises(ConnectionRefusedError):
        UnixCarrier().connect(endpoint, Deadline(patience(5)))
    listener = UnixCarrier().listen(endpoint, 5)
    UnixCarrier().connect(endpoint, Deadline(patience(5))).close()
    listener.close()


def test_a_file_that_is_no_socket_is_left_alone(endpoint):
    with open(endpoint.host, "w", encoding="ascii") as file:
        file.write("something of the user's")
    with pytest.raises(OSError):
        UnixCarrier().listen(endpoint, 5)
    assert os.path.getsize(endpoint.host)


def test_the_file_of_a_successor_is_left_alone(endpoint):
    first = UnixCarrier().listen(endpoint, 5)
    os.rename(endpoint.host, endpoint.host + ".old")
    second = UnixCarrier().listen(endpoint, 5)
    first.close()
    UnixCarrier().connect(endpoint, Deadline(patience(5))).close()
    second.close()


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"),
                    reason="only Linux says so, and not to PyPy")
def test_the_process_at_the_other_end_is_known(endpoint):
    listener = UnixCarrier().listen(endpoint, 5)
    ours = UnixCarrier().connect(endpoint, Deadline(patience(5)))
    theirs, _ = listener.accept()
    for sock in (ours, theirs):
        assert peer_credentials(sock) == (os.getpid(), os.geteuid(), os.getegid())
        sock.close()
    listener.close()
    with socket.socket() as other:
        assert peer_credentials(other) is None


def test_a_path_that_is_too_long_is_an_error_of_the_system(endpoint):
    long = endpoint._replace(host=endpoint.host + "x" * 200)
    with pytest.raises(OSError):
        UnixCarrier().listen(long, 5)
    with pytest.raises(OSError):
        UnixCarrier().connect(long, Deadline(patience(5)))


def test_a_system_without_unix_sockets_says_so(endpoint, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(OSError, match="no Unix sockets"):
        UnixCarrier().connect(endpoint, Deadline(patience(5)))
