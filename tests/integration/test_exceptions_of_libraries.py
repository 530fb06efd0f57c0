"""The exceptions of all libraries that are there travel: this imports them all."""
from __future__ import annotations

import contextlib
import copy
import pickle
import traceback
from typing import Any, Iterator

import pytest

from net.errors import RemoteError
from net.wire import failures
from travel import raised


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def subclasses(cls: type) -> Iterator[type]:
    for sub in type.__subclasses__(cls):
        yield sub
        yield from subclasses(sub)


LIBRARIES = ("asyncio", "concurrent.futures", "configparser", "ctypes", "dbm", "email.errors",
             "ftplib", "getopt", "http.client", "imaplib", "lzma", "mailbox", "multiprocessing",
             "optparse", "pickle", "plistlib", "poplib", "queue", "shutil", "smtplib", "socket",
             "sqlite3", "ssl", "subprocess", "tarfile", "tokenize", "unittest", "urllib.error",
             "uuid", "webbrowser", "xml.dom", "xml.etree.ElementTree", "xml.parsers.expat",
             "xmlrpc.client", "zipfile", "zlib", "zoneinfo", "numpy", "hypothesis", "cryptography",
             "pydantic", "yaml", "requests", "attr", "docutils", "jinja2", "mypy.errors", "sphinx",
             "sphinx.errors", "packaging.version", "pip", "coverage", "pluggy", "click")


def made(cls: Any) -> BaseException | None:
    """Some exception of a class, however it can be made."""
    for make in (lambda: cls("text"), lambda: cls("text", 5), lambda: cls("a", "b", 3),
                 lambda: cls.__new__(cls, "text"), lambda: BaseException.__new__(cls, "text"),
                 lambda: failures.constructor_of(cls).__new__(cls)):
        with contextlib.suppress(BaseException):
            error = make()
            if type(error) is cls:
                return error  # type: ignore[no-any-return]
    return None


def loss(error: BaseException) -> BaseException | None:
    """What arrives if it is not what was sent, or cannot do what that can."""
    shown = False
    with contextlib.suppress(Exception):
        shown = bool(printed(error))
    try:
        arrived = raised(error)
        if shown:
            printed(arrived)
        repr(arrived), str(arrived), copy.copy(arrived), pickle.loads(pickle.dumps(arrived))
    except BaseException as problem:
        return problem
    return None if isinstance(arrived, RemoteError) else arrived


@pytest.mark.filterwarnings("ignore")
def test_every_exception_of_every_library_that_is_there_arrives():
    """Read-only args, slots, C bases, final classes, constructors of all sorts: none is lost."""
    for library in LIBRARIES:
        with contextlib.suppress(BaseException):
            __import__(library)
    errors = [error for error in map(made, {*subclasses(Exception)})
              if error is not None and not failures.is_a(error, failures._Rebuilt)]
    assert len(errors) > 300
    assert not [(error, found) for error in errors if (found := loss(error)) is not None]
    # All as themselves, but for those within functions, or that nothing can be derived from.
    others = [type(error) for error in errors
              if failures.find_loaded(failures.name_of(type(error))) is type(error)
              and failures.name_of(type(error)) != failures.REMOTE_ERROR
              and not failures.derives(type(raised(error)), type(error))]
    assert len(others) <= len(errors) / 50, others
