"""What options of commands take."""
from __future__ import annotations

import argparse

#: What --json does.
AS_JSON = "data as JSON, for scripts"
#: What --timeout is for, unless a command says otherwise.
EACH_CALL = "for each call (NET_TIMEOUT)"

# What the words of a command may be, for a shell that completes them: ``peer``, ``function``,
# ``group``, ``file`` or ``shell``, or empty for any text. At the end, for more of the last one:
MORE = "..."


def seconds(text: str) -> float:
    """The number of seconds that a word stands for."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds above 0")
    return number


def count(text: str) -> int:
    """The number from 1 that a word stands for."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1")
    return int(text)
