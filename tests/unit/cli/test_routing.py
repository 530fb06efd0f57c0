"""What the command for a router refuses, and how it says where it listens."""
from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from net.cli import main, routing
from net.cli.routing import Router, _look, _tell
from net.cli.screen import Screen, Usage
from net.errors import SettingError
from net.link.zenoh import Status
from net.settings import parse_router, settings
from signals import interrupt_everywhere

SECRET = "0123456789abcdef"


def run(*listen, connect=(), allow=()):
    return Router.run(SimpleNamespace(listen=list(listen), connect=list(connect),
                                      allow=list(allow)), None)


@pytest.fixture(autouse=True)
def clean(kept_settings):
    for name in ("secret", "secret_file", "tls_cert", "tls_key", "tls_ca"):
        settings.__dict__[name] = None
    settings.__dict__["host"] = None


@pytest.mark.parametrize("word", ["", "tls", "tls/", "tls/host", "udp/host:1", "tls/host:0",
                                  "tls/host:70000", "tls/::1:7447", "tls/host:x",
                                  "tls/host:\u0663"])
def test_what_is_no_place_of_a_router_is_refused(word):
    with pytest.raises(Usage, match="is not the place of a router"):
        run(word)
    with pytest.raises(Usage):
        run("tcp/127.0.0.1:1", connect=[word])


def test_a_router_that_zenoh_does_not_reach_is_not_joined():
    with pytest.raises(Usage, match="--connect must name a tls/ router by a host name"):
        run("tls/[::1]:7447", connect=["tls/hub.example:7447", "tls/[fd00::1]:7447"])


@pytest.mark.parametrize("word", ["tls/[::1]:7447", "tcp/0.0.0.0:7447", "tls/hub.example:7447"])
def test_a_status_has_places_as_they_are_written(word):
    said, written = [], []
    screen = SimpleNamespace(json=False, say=said.append, put_json=written.append)
    _tell(Status(2, 1), screen, [parse_router(word)])
    assert said == [f"router at {word}: 2 processes on all routers, connected to 1 other router"]
    screen.json = True
    _tell(Status(2, 1), screen, [parse_router(word)])
    assert written == [{"listen": [word], "processes": 2, "routers": 1}]


def test_tls_needs_a_secret_or_certificates():
    with pytest.raises(SettingError, match="tls/ needs NET_SECRET"):
        run()
    with pytest.raises(SettingError, match="tls/ needs NET_SECRET"):
        run("tcp/127.0.0.1:1", connect=["tls/hub.example:7447"])


@pytest.mark.parametrize("places", [{"listen": ["tcp/0.0.0.0:7447"]},
                                    {"connect": ["tcp/hub.example:7447"]}])
def test_a_process_that_keeps_to_its_host_is_no_router_for_others(places):
    settings.__dict__["host"] = "127.0.0.1"
    with pytest.raises(SettingError, match="NET_HOST=127.0.0.1 keeps"):
        run(*places.get("listen", ["tcp/127.0.0.1:7447"]), connect=places.get("connect", ()))


@pytest.mark.parametrize("name", ["", "interface:", "a\nb"])
def test_what_is_no_name_of_an_access_list_is_refused(name):
    with pytest.raises(Usage, match="--allow takes"):
        run("tcp/127.0.0.1:1", allow=[name])


def test_names_of_certificates_prove_nothing_under_a_secret_or_without_tls():
    with pytest.raises(SettingError, match="needs NET_TLS_CERT"):
        run("tcp/127.0.0.1:1", allow=["interface:eth1", "farm1"])
    settings.__dict__["secret"] = SECRET
    with pytest.raises(SettingError, match="needs NET_TLS_CERT"):
        run("tls/127.0.0.1:1", allow=["farm1"])


def test_settings_that_are_missing_are_bad_usage(capsys):
    assert main(["router", "--listen", "tls/127.0.0.1:1"]) == 2
    assert "NET_SECRET" in capsys.readouterr().err


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces already")
def test_a_signal_ends_it_at_whatever_moment_it_comes(monkeypatch):
    """Also where what waits for it holds a lock, which a handler would wait for."""
    monkeypatch.setattr(routing, "LOOK", 0.001)
    hub = SimpleNamespace(status=lambda: Status(0, 0))
    interrupt_everywhere(lambda: _look(hub, Screen(True), []), signal.SIGTERM, 200)
