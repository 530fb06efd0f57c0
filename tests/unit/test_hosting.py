"""Which process of a web server or reloader is the peer."""
from __future__ import annotations

import multiprocessing.process
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from net import hosting
from net.hosting import (PARENT, announce_to_children, is_token, stale_parent, why_not_here)
from each import each


@pytest.fixture
def child(monkeypatch):
    """Become a child of multiprocessing that runs a function of a module."""

    def become(module: str, **config: Any) -> None:
        def target() -> None:
            pass

        target.__module__ = module
        process = SimpleNamespace(_target=target, _kwargs={"config": SimpleNamespace(**config)})
        monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: object())
        monkeypatch.setattr(multiprocessing.process, "current_process", lambda: process)

    return become


def test_an_ordinary_process_is_the_peer(monkeypatch):
    assert why_not_here() is None
    monkeypatch.delitem(sys.modules, "multiprocessing.process")
    assert why_not_here() is None


def test_a_worker_of_a_pool_is_none_and_nothing_is_said(child):
    child("multiprocessing.pool")
    assert why_not_here() == ""
    child("application")
    assert why_not_here() == ""


def test_a_child_that_loads_the_main_module_is_none(monkeypatch):
    process = SimpleNamespace(_inheriting=True)
    monkeypatch.setattr(multiprocessing.process, "current_process", lambda: process)
    assert why_not_here() == ""


@pytest.mark.parametrize("server, config", [
    ("uvicorn._subprocess", {"reload": True, "workers": 1}),
    ("uvicorn._subprocess", {"reload": True, "workers": 4}),
    ("uvicorn._subprocess", {"reload": False, "workers": 1}),
    ("hypercorn.asyncio.run", {"workers": 1}),
])
def test_the_only_worker_of_a_web_server_is_the_peer(child, server, config):
    child(server, **config)
    assert why_not_here() is None


@pytest.mark.parametrize("server, config", [
    ("uvicorn._subprocess", {"reload": False, "workers": 2}),
    ("hypercorn.trio.run", {"workers": 8}),
    ("granian.server.mp", {}),
])
def test_one_of_several_workers_is_none_and_says_how_to_make_it_one(child, server, config):
    child(server, **config)
    text = why_not_here()
    assert text.startswith("this process is one of several workers of " + server.partition(".")[0])
    assert "net.Peer()" in text and "Web servers and reloaders" in text


def called_by(*modules: str) -> Any:
    """The answer where functions of these modules, the first outermost, are on the stack."""
    space: dict = {"__name__": modules[0], "below": modules[1:], "called_by": called_by,
                   "why_not_here": why_not_here}
    exec("def work():\n return called_by(*below) if below else why_not_here()", space)
    return space["work"]()


def test_a_master_that_preloads_is_none_and_its_workers_are(monkeypatch):
    assert called_by("gunicorn.arbiter") is None
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", SimpleNamespace())
    assert "gunicorn --preload" in called_by("gunicorn.arbiter", "application")
    assert "post_fork" in called_by("gunicorn.app.wsgiapp", "gunicorn.arbiter", "application")
    assert called_by("gunicorn.arbiter", "gunicorn.workers.base", "application") is None
    assert called_by("application") is None


def test_the_master_of_uwsgi_is_none_and_its_workers_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(worker_id=lambda: 0))
    assert "postfork" in why_not_here()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(worker_id=lambda: 1))
    assert why_not_here() is None


# ---------------------------------------------------------------------------------- reloaders

def test_a_process_with_a_reloader_tells_its_children_of_its_peer(monkeypatch):
    environment: dict = {}
    assert announce_to_children(3010, environment) is None and environment == {}
    monkeypatch.setitem(sys.modules, "werkzeug", SimpleNamespace())
    token = announce_to_children(3010, environment)
    assert environment == {PARENT: f"{os.getpid()} 3010 {token}"}
    assert is_token(token, token) and not is_token(token + "x", token)
    assert not is_token(None, token) and not is_token("\xe9", token)


@pytest.mark.parametrize("variable", ["WERKZEUG_RUN_MAIN", "RUN_MAIN"])
def test_a_process_that_a_reloader_started_knows_the_stale_peer_of_its_parent(variable):
    environment = {variable: "true", PARENT: f"{os.getppid()} 3010 abc"}
    assert stale_parent(environment) == (3010, "abc")


@each("environment", [
    {}, {"WERKZEUG_RUN_MAIN": "true"}, {PARENT: f"{os.getppid()} 3010 abc"},
    {"WERKZEUG_RUN_MAIN": "false", PARENT: f"{os.getppid()} 3010 abc"},
    {"RUN_MAIN": "true", PARENT: f"{os.getppid() + 1} 3010 abc"}, {"RUN_MAIN": "true", PARENT: ""},
    {"RUN_MAIN": "true", PARENT: f"{os.getppid()} x abc"},
    {"RUN_MAIN": "true", PARENT: f"{os.getppid()} 3010"},
])
def test_any_other_parent_serves_on(environment):
    assert stale_parent(environment) is None


def test_all_of_it_is_documented():
    page = Path(__file__).resolve().parents[2] / "docs" / "webservers.rst"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Web servers and reloaders\n")
    for server in (*hosting.WEB_SERVERS, "gunicorn", "uWSGI", "Flask", "Django"):
        assert server.lower() in text.lower()
