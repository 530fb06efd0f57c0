"""Ctrl-C in the program ``app-net``, and which process is it: in an application, Ctrl-C stays."""
from __future__ import annotations

import signal
import sys
import threading
import weakref

import pytest

from net.interrupts import catch, is_program
from times import patience


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


class _Thing:
    """Something that a weak reference can have."""


def test_an_interrupt_that_is_lost_in_a_callback_comes_again(capfd):
    """Python drops what a weak reference's callback raises."""
    lost, waited = [], threading.Event()

    def interrupted(reference):
        lost.append(reference)
        signal.raise_signal(signal.SIGINT)

    def command():
        thing = _Thing()
        reference = weakref.ref(thing, interrupted)
        del thing
        assert lost == [reference]
        waited.wait(patience(10))
        return 0

    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    try:
        assert catch(command) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sys.unraisablehook is hook
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_other_errors_in_a_callback_are_reported_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    def command():
        thing = _Thing()
        reference = weakref.ref(thing, lambda _: 1 / 0)
        del thing
        assert reference() is None
        return 3

    handler = signal.getsignal(signal.SIGINT)
    try:
        assert catch(command) == 3
    finally:
        signal.signal(signal.SIGINT, handler)
    assert told == [ZeroDivisionError]
