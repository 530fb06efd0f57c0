"""The log: it cannot raise, cannot flood."""
from __future__ import annotations

import io
import logging

import pytest

import net
from net import log
from net.log import LastResort, RateLimitedLog, SafeLog


def test_the_loggers_of_the_documentation_are_below_the_one_of_the_package():
    for name in (log.CALLS, log.CONNECTIONS, log.EVENTS, log.DISCOVERY):
        assert logging.getLogger(name).parent is net.LOGGER
    assert [type(handler) for handler in net.LOGGER.handlers if isinstance(handler, LastResort)]


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


def test_a_handler_that_raises_changes_nothing():
    logger = logging.getLogger("net.unit test")
    handler = Broken()
    logger.addHandler(handler)
    SafeLog(logger.name)(logging.ERROR, "x")
    RateLimitedLog(logger)(logging.ERROR, "x")
    logger.removeHandler(handler)


@pytest.mark.parametrize("problem", [ZeroDivisionError, SystemExit, GeneratorExit])
def test_what_raises_when_it_is_told_of_changes_nothing(problem):
    class Hostile(OSError):
        def __str__(self) -> str:
            raise problem

    logger = logging.getLogger("net.unit test")
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    for write in (SafeLog(logger.name), RateLimitedLog(logger)):
        write(logging.ERROR, "%s", Hostile(), exc_info=Hostile())
    logger.removeHandler(handler)


def test_ctrl_c_while_a_line_is_written_is_not_lost():
    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    logger = logging.getLogger("net.unit test")
    handler = Interrupted()
    logger.addHandler(handler)
    with pytest.raises(KeyboardInterrupt):
        SafeLog(logger.name)(logging.ERROR, "x")
    logger.removeHandler(handler)


def test_one_line_of_each_kind_in_ten_seconds_and_the_number_of_the_others(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(log, "monotonic", lambda: now[0])
    note = RateLimitedLog(logging.getLogger("net.unit test"))
    for number in range(5):
        note(logging.WARNING, "from %s", number)
        note(logging.WARNING, "to %s", number, kind_of="a")
        note(logging.WARNING, "to %s", number, kind_of="b")
    now[0] += log.INTERVAL
    note(logging.WARNING, "from %s", 5)
    assert caplog.messages == ["from 0", "to 0", "to 0", "from 5 (4 more like this before)"]


def test_kinds_are_not_remembered_without_end(caplog):
    note = RateLimitedLog(logging.getLogger("net.unit test"))
    for number in range(log.MAX_KINDS + 5):
        note(logging.DEBUG, "x", kind_of=str(number))
    assert len(note._kinds) <= log.MAX_KINDS
