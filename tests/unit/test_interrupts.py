"""Which process is the program ``app-net``: in an application, Ctrl-C stays as it is."""
from __future__ import annotations

import sys

import pytest

from net.interrupts import is_program


@pytest.mark.parametrize("name, is_it", [
    ("app-net", True), ("/usr/bin/app-net", True), ("app-net.exe", True), ("app-net.py", False),
    ("app-network.py", False), ("app-net-demo", False), ("studio.py", False), ("", False),
    ("-c", False)])
def test_it_is_told_by_its_name(monkeypatch, name, is_it):
    monkeypatch.setattr(sys, "argv", [name])
    assert is_program() is is_it


@pytest.mark.parametrize("words, is_it", [
    (["-m", "net", "peers"], True), (["-m", "studio", "net"], False), ([], False)])
def test_while_a_module_is_imported_to_be_run_it_is_told_by_that(monkeypatch, words, is_it):
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", *words], raising=False)
    assert is_program() is is_it
