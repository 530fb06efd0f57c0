"""What is logged where the application has configured logging, and where it has not."""
from __future__ import annotations

from each import each
from processes import run_python


def printed(code: str) -> str:
    """What a process without any configuration of logging prints to its standard error."""
    done = run_python("-c", f"import logging, net, net.log\n{code}", NET_LAUNCH=0)
    return done.stderr


WRITE = """
for name in (net.log.CALLS, net.log.EVENTS, "net"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        net.log.SafeLog(name)(level, "%s %s", name, logging.getLevelName(level))
"""
ERRORS = "net.calls ERROR\nnet.events ERROR\nnet ERROR\n"


def test_errors_are_seen_where_the_application_has_configured_nothing():
    assert printed(WRITE) == ERRORS


@each("configure", [
    "logging.getLogger().addHandler(logging.NullHandler())",
    "logging.getLogger('net').addHandler(logging.NullHandler())",
    "logging.lastResort = None",
    "logging.getLogger('net').setLevel(logging.CRITICAL)",
])
def test_an_application_that_configures_logging_decides(configure):
    assert printed(configure + WRITE) == ""


def test_a_configured_application_sees_each_line_once():
    assert printed("logging.basicConfig(level=logging.WARNING, format='%(message)s')" + WRITE) == \
        "".join(f"{name} {level}\n" for name in ("net.calls", "net.events", "net")
                for level in ("WARNING", "ERROR"))


def test_one_named_logger_can_be_configured_by_itself():
    assert printed("logging.getLogger('net.calls').addHandler(logging.NullHandler())"
                   + WRITE) == "net.events ERROR\nnet ERROR\n"
