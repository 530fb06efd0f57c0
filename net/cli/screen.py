"""Where a command writes: data to stdout, words to stderr, both safe for a terminal."""
from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import textwrap
from typing import IO, Any, Dict, Iterable, List, Sequence

from ..errors import NetError, RemoteError, printable
from ..identity import printable_block
from ..tables import WIDTH, Column, as_text, folded

# Columns of what goes into a pipe or a file: nothing is cut there.
UNLIMITED = 100_000
# Characters of one value that are shown on a terminal; all of it goes into a pipe.
MAX_SHOWN = 100_000
# Containers within each other that JSON shows.
MAX_DEPTH = 100

RED, BOLD = "31", "1"


class Usage(Exception):
    """Bad usage of a command; the text says why."""


class Failed(Exception):
    """A command did not find or do what it was asked for; the text says what.

    :ivar traceback: the lines of the application in which it arose; empty if it arose elsewhere.
    """

    traceback = ""


class Screen:
    """The two streams of a command.

    :ivar json: whether data is JSON, for scripts.
    """

    def __init__(self, as_json: bool) -> None:
        self.json = as_json

    @property
    def width(self) -> int:
        """Columns for data."""
        return width(sys.stdout)

    @property
    def is_terminal(self) -> bool:
        """Whether data goes to a terminal."""
        return _is_terminal(sys.stdout)

    @property
    def height(self) -> int:
        """Lines of the terminal that data goes to."""
        return max(4, shutil.get_terminal_size((WIDTH, 24)).lines)

    @property
    def has_colour(self) -> bool:
        """Whether data goes to a terminal that shows colours, without NO_COLOR."""
        return self.is_terminal and _has_colour()

    @property
    def draws(self) -> bool:
        """Whether data goes to a terminal that shows more than letters."""
        return self.is_terminal and _takes_all(sys.stdout) and os.environ.get("TERM") != "dumb"

    def styled(self, text: str, style: str) -> str:
        """Text in a colour or another style, where the terminal shows it and the user wants it."""
        return _styled(text, style, sys.stdout)

    def write(self, text: str, style: str = "", further: str = "  ") -> None:
        """Write data for people, made by this program and so safe to print; on a terminal, in lines
        that fit.

        :param further: what the further lines of a broken line begin with.
        """
        for line in _fitting(text, sys.stdout, further).split("\n"):
            self.put(_styled(line, style, sys.stdout))

    def put(self, text: str) -> None:
        """Write data for other programs, which is never broken into lines.

        :raises Failed: it cannot be written.
        """
        print_all(text + "\n")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Write data for people as a table."""
        titles, *lines = as_text(columns, list(rows), self.width).split("\n")
        self.write(titles, BOLD)
        for line in lines:
            self.write(line)

    def put_json(self, value: Any) -> None:
        """Write a line of JSON."""
        self.put(as_json(value))

    def show(self, value: Any) -> None:
        """Write a value that a function gave: as JSON, or as Python shows it. In a pipe, text and
        bytes are written as they are."""
        if self.json:
            self.put_json(value)
        elif isinstance(value, bytes) and not self.is_terminal:
            print_all("", value)
        else:
            self.put(self.text_of(value))

    def text_of(self, value: Any) -> str:
        """A value as text for people; on a terminal, in lines that fit."""
        if not self.is_terminal:
            return value if isinstance(value, str) else repr(value)
        import pprint  # only for a terminal

        text = value if isinstance(value, str) \
            else pprint.pformat(value, width=self.width, sort_dicts=False)
        return _fitting(safe(text), sys.stdout, "")

    def say(self, text: str, style: str = "") -> None:
        """Write words about what happens to stderr, in lines that fit."""
        for line in folded(safe(text), width(sys.stderr), "").split("\n"):
            print(_styled(line, style, sys.stderr), file=sys.stderr, flush=True)

    def say_error(self, problem: BaseException, peer: object = None, remark: str = "") -> None:
        """Write what went wrong to stderr; for a function's error, the lines of the other side,
        too.

        :param peer: what it is about, where that is one of several peers.
        :param remark: more about that peer.
        """
        if self.json:
            whose = {} if peer is None else {"peer": str(peer)}
            print(as_json({**whose, "error": error_facts(problem)}), file=sys.stderr, flush=True)
            return
        if peer is not None:
            self.say(f"{peer}{remark and f' ({remark})'}:")
        text = safe(str(problem))
        if not isinstance(problem, (Usage, Failed)):
            text = f"{type(problem).__name__}: {text}"
        lines = problem.traceback.rstrip() if isinstance(problem, (RemoteError, Failed)) else ""
        if lines.endswith(text):
            lines = lines[:-len(text)].rstrip()
        if lines:
            self.say(lines)
        self.say(text, RED)


def print_all(text: str, data: bytes = b"") -> None:
    """Write text, and bytes behind it, to standard output, and whatever is still buffered.

    :raises BrokenPipeError: its reader has gone.
    :raises Failed: it cannot be written.
    """
    if sys.stdout is None:  # it was closed before this process began
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
        if data:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except OSError as problem:
        # What is left would be tried again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(problem, BrokenPipeError):
            raise
        raise Failed(f"the output cannot be written: {problem.strerror}") from None


def error_facts(problem: BaseException) -> Dict[str, Any]:
    """An error for scripts: ``type``, ``text`` and, of a call, ``ran`` and the ``traceback``."""
    kind = Failed if isinstance(problem, Failed) else type(problem)
    facts: Dict[str, Any] = {"type": kind.__name__, "text": str(problem)}
    if isinstance(problem, NetError):
        facts["ran"] = problem.ran
    if isinstance(problem, RemoteError) or isinstance(problem, Failed) and problem.traceback:
        facts["traceback"] = problem.traceback
    return facts


def filled(text: str, columns: int) -> str:
    """Text in lines that fit. A line that begins with a space stays one; where it is too long, it
    goes on below what stands behind its first gap, as in a list of names and what they mean."""
    lines: List[str] = []
    prose: List[str] = []
    for line in [*text.split("\n"), ""]:
        if line[:1].strip():
            prose.append(line)
            continue
        lines += textwrap.wrap(" ".join(prose), columns, break_on_hyphens=False)
        prose = []
        gap = re.match(r" +\S.*? {2,}(?=\S)", line)
        indent = " " * (gap.end() if gap and gap.end() <= columns // 2 else 6)
        lines += textwrap.wrap(line, columns, subsequent_indent=indent,
                               break_on_hyphens=False) or [""]
    return "\n".join(lines[:-1])


def safe(text: str) -> str:
    """Foreign text of several lines for a terminal, which obeys nothing in it. Lines are not
    broken; text that is cut keeps its end."""
    return printable_block(text.replace("\r\n", "\n").expandtabs(), MAX_SHOWN, 8 * MAX_SHOWN)


def _fitting(text: str, stream: IO[str], further: str) -> str:
    """Text in lines that fit a terminal; as it is where the stream goes elsewhere."""
    return folded(text, width(stream), further) if _is_terminal(stream) else text


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def width(stream: IO[str]) -> int:
    """Columns of what is written to a stream."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return max(20, int(os.environ["COLUMNS"]))
    if not _is_terminal(stream):
        return UNLIMITED
    try:
        return max(20, os.get_terminal_size(stream.fileno()).columns or WIDTH)
    except (OSError, ValueError):
        return shutil.get_terminal_size((WIDTH, 24)).columns


def _styled(text: str, style: str, stream: IO[str]) -> str:
    """Text in colour, on a terminal that shows it, without NO_COLOR."""
    if not style or not _is_terminal(stream) or not _has_colour():
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def _has_colour() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_json(value: Any) -> str:
    """A value as JSON in one line: see :func:`plain`."""
    return json.dumps(plain(value), ensure_ascii=not _takes_all(sys.stdout), allow_nan=False)


def _takes_all(stream: IO[str]) -> bool:
    return str(getattr(stream, "encoding", "")).lower().replace("-", "") == "utf8"


def plain(value: Any, depth: int = 0) -> Any:
    """A value made of what JSON has: tuples and sets become lists, arrays their items, bytes
    base64, keys text, numbers that JSON lacks ``null``, and anything else its ``repr``."""
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return float(value) if value - value == 0 else None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if depth >= MAX_DEPTH:
        return printable(repr(value))
    if isinstance(value, dict):
        return {_key(key): plain(one, depth + 1) for key, one in value.items()}
    if hasattr(type(value), "dtype") and hasattr(type(value), "tolist"):  # of numpy
        return plain(value.tolist(), depth + 1)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one, depth + 1) for one in value]
    return repr(value)


def _key(key: Any) -> str:
    return str(plain(key if isinstance(key, str) else str(key)))
