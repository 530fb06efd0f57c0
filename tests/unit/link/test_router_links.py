"""Why there is no TLS with a router, which Zenoh does not tell."""
from __future__ import annotations

import socket
import threading

import pytest

from certificates import Authority  # skips where its library is missing
from net.link import tls
from net.link.authority import NO_TLS, NOT_NOW, OTHER_SECRET
from net.link.zenoh import access_list
from times import patience


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Credentials of all kinds."""
    ours, others = (Authority(tmp_path_factory.mktemp(name), name) for name in ("ours", "others"))
    files = {"right": ours.issue("right"), "expired": ours.issue("expired", end=2002),
             "early": ours.issue("early", begin=2200, end=2201), "foreign": others.issue("foreign")}
    return {name: tls.from_files(*one) for name, one in files.items()}


def serve(sock, credentials):
    """As a router does: its handshake, and then silence."""
    sock.settimeout(patience(10))
    try:
        if credentials is None:
            sock.recv(10000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            sock = credentials.server.wrap_socket(sock, server_side=True)
        sock.recv(1)
    except OSError:
        pass
    finally:
        sock.close()


@pytest.mark.parametrize("router, process, problem", [
    ("right", "right", ""), ("foreign", "right", OTHER_SECRET), ("right", "foreign", OTHER_SECRET),
    ("expired", "right", NOT_NOW), ("early", "right", NOT_NOW), ("right", "expired", NOT_NOW),
    ("nothing", "right", NO_TLS)])
def test_what_is_wrong_with_a_link_is_reported(monkeypatch, made, router, process, problem):
    monkeypatch.setattr(tls, "credentials", lambda: made[process])
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=serve, args=(theirs, made.get(router)))
    server.start()
    assert tls.link_problem(ours, patience(10), 0.5) == problem
    assert ours.fileno() == -1
    server.join()


def test_a_router_that_says_nothing_speaks_no_tls(monkeypatch, made):
    monkeypatch.setattr(tls, "credentials", lambda: made["right"])
    ours, theirs = socket.socketpair()
    with theirs:
        assert tls.link_problem(ours, 0.05, 0.5) == NO_TLS


def test_an_access_list_denies_all_that_it_does_not_name():
    made = access_list(["farm1", "interface:eth1", "farm2"])
    assert made["enabled"] and made["default_permission"] == "deny"
    assert made["subjects"] == [{"id": "names", "cert_common_names": ["farm1", "farm2"]},
                                {"id": "interfaces", "interfaces": ["eth1"]}]
    assert made["policies"] == [{"rules": ["all"], "subjects": ["names", "interfaces"]}]
    assert [one["id"] for one in access_list(["interface:eth1"])["subjects"]] == ["interfaces"]
