"""``app-net serve``: serves the functions of modules, without a line of code."""
from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from importlib import import_module, util
from types import ModuleType
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..decorators import connect, is_connected
from ..errors import printable
from ..handles import Handle
from ..objects import Remote
from ..peer import Peer, function_names
from ..serving import run
from ..settings import settings
from .looking import facts_of
from .screen import RED, Failed, Screen, Usage
from .words import AS_JSON, MORE, count

# Seconds between looks at the files.
LOOK = 0.5
# Names that are shown when it starts.
MAX_NAMES = 20


class Serve:
    """serve the functions of modules or files, until Ctrl-C or SIGTERM"""

    json, timeout = AS_JSON, "for each call of the functions that are served (NET_TIMEOUT)"
    takes = ("file", MORE)
    more = """\
  serve studio                 what studio.py, or the package, connects
  serve studio:scope           the public methods of its object scope, or its function scope
  serve tools/render.py --all  its public functions, connected or not"""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("module", nargs="+", metavar="MODULE[:OBJECT]",
                            help="name of a module, or a file; what it has connected is served, "
                                 "and with OBJECT that, too")
        parser.add_argument("--all", action="store_true",
                            help="also the public functions of the modules that these have not "
                                 "connected: those in __all__, or that begin with no underscore")
        parser.add_argument("--reload", action="store_true",
                            help="start again when one of their files changes")
        parser.add_argument("--workers", type=count, metavar="N", default=1,
                            help="number of processes, each a peer")
        parser.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)

    @staticmethod
    def run(options: argparse.Namespace, screen: Screen) -> int:
        if options.workers > 1:
            from . import workers

            return workers.run(options, screen)
        if options.with_parent:
            threading.Thread(target=_end_with_parent, name="net-parent", daemon=True).start()
        if not options.reload:
            _serve(_load_all(options), screen, None)
            return 0
        watch = _Watch(screen)
        try:
            names = _load_all(options)
            watch.begin([])
            _serve(names, screen, watch)
            if not watch.changed:
                return 0
        except (Failed, Usage) as problem:
            screen.say_error(problem)
            watch.begin(problem.files if isinstance(problem, _NotLoaded) else [])
        watch.wait()
        return 0


class _NotLoaded(Failed):
    """A module raised an error while it was loaded.

    :ivar files: the files that had to do with it.
    """

    files: List[str]


def _own_lines(problem: BaseException) -> str:
    """A traceback without the lines of this program and of the import system."""
    place = problem.__traceback__
    while place is not None and ("importlib" in place.tb_frame.f_code.co_filename
                                 or place.tb_frame.f_code.co_filename == __file__):
        place = place.tb_next
    return "".join(traceback.format_exception(type(problem), problem, place))


def _load_all(options: argparse.Namespace) -> List[str]:
    """Load what is to be served.

    :returns: the names of the functions.
    """
    try:
        for word in options.module:
            load(word, options.all)
    except Usage:
        raise
    except Exception as problem:
        failed = _NotLoaded(f"{word} cannot be loaded: {type(problem).__name__}")
        failed.traceback = _own_lines(problem)
        failed.files = [frame.filename for frame in traceback.extract_tb(problem.__traceback__)]
        failed.files.append(getattr(problem, "filename", None) or word)
        raise failed from None
    names = function_names()
    if not names:
        raise Failed(f"nothing in {', '.join(options.module)} is connected; --all serves public "
                     f"functions")
    return names


def _serve(names: List[str], screen: Screen, watch: Optional[_Watch]) -> None:
    settings.set("launch", True)

    def tell() -> None:
        if screen.json:
            screen.put_json({**facts_of(Peer().id), "pid": os.getpid(), "functions": names})
        else:
            tell_people()
        if watch is not None:
            threading.Thread(target=watch.close_peer, name="net-reload", daemon=True).start()

    def tell_people() -> None:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        screen.say(f"serving at {Peer().id}: "
                   f"{printable(', '.join(names[:MAX_NAMES]), 2000)}{more}; Ctrl-C ends it")

    run(None, tell)


def _end_with_parent() -> None:
    """End as at SIGTERM when the process that started this one, and holds the other end of its
    standard input, has gone."""
    while os.read(0, 4096):
        pass
    signal.raise_signal(signal.SIGTERM)


# ---------------------------------------------------------------- what is served


def load(word: str, everything: bool) -> None:
    """Connect what a word of the command line means.

    :param everything: also the public functions of its module.
    :raises Usage: there is no such module or object, or it cannot be served.
    """
    name, colon, path = _split(word)
    module = _import(name)
    if colon:
        _connect_object(module, path)
    if everything:
        for found in public_functions(module):
            connect(found)


def _split(word: str) -> Tuple[str, str, str]:
    name, colon, path = word.rpartition(":")
    # A colon may belong to the path of a file on Windows.
    if not colon or not all(part.isidentifier() for part in path.split(".")):
        return word, "", ""
    return name, colon, path


def _import(name: str) -> ModuleType:
    folder, file = os.path.split(name)
    is_file = name.endswith(".py")
    folder = os.path.abspath(folder if is_file else "")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = file[:-len(".py")] if is_file else name
    if not all(part.isidentifier() for part in module.split(".")):
        raise Usage(f"{name!r} is neither the name of a module nor a Python file")
    try:
        return import_module(module)
    except ModuleNotFoundError as problem:
        # An import that fails within the module is an error of that module.
        if problem.name is not None and (module + ".").startswith(problem.name + "."):
            raise Usage(f"there is no module {module!r} in {folder} or on the path") from None
        raise


def _connect_object(module: ModuleType, path: str) -> None:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise Usage(f"{module.__name__} has no {path}")
        found = getattr(found, part)
    if is_connected(found) or isinstance(found, Handle):
        return
    if isinstance(found, (type, ModuleType, Remote)):
        raise Usage(f"{module.__name__}:{path} is {found!r:.100}; a function or an object with "
                    f"methods is served")
    try:
        connect(found) if callable(found) else connect(path)(found)
    except TypeError as problem:
        raise Usage(f"{module.__name__}:{path}: {problem}") from None


def public_functions(module: ModuleType) -> Iterator[Any]:
    """The functions of a module that others may use, and that are not connected yet: those in its
    ``__all__``, or those that it defines under a name without an underscore."""
    names = getattr(module, "__all__", None)
    for name in list(vars(module)) if names is None else names:
        found = getattr(module, name, None)
        is_function = callable(found) and hasattr(found, "__code__") and not is_connected(found)
        is_own = names is not None or \
            not name.startswith("_") and getattr(found, "__module__", None) == module.__name__
        if is_function and is_own:
            yield found


# ---------------------------------------------------------------- reloading


class _Watch:
    """Looks for changes in the files of the application, and starts the program again.

    :ivar changed: whether one has changed.
    """

    def __init__(self, screen: Screen) -> None:
        self.changed = False
        self._screen = screen
        self._arguments = _program_arguments()
        self._known: Dict[str, int] = {}
        self._more: List[str] = []

    def begin(self, more: List[str]) -> None:
        """Remember the files as they were loaded; later changes count.

        :param more: files besides those of the modules that are loaded.
        """
        self._more = more
        self._known = _files(more)

    def close_peer(self) -> None:
        """Wait for a change, and close the peer."""
        self._wait_for_change()
        Peer().close(settings.grace)

    def wait(self) -> None:
        """Wait for a change, if there was none yet, and start again. Does not return."""
        if not self.changed:
            self._screen.say("waiting for a change of its files")
            self._wait_for_change()
        sys.stdout.flush()
        os.execv(sys.executable, self._arguments)

    def _wait_for_change(self) -> None:
        pause = threading.Event()
        while True:
            now = _files(self._more)
            changed = [name for name, time in now.items() if self._known.get(name, time) != time]
            if changed:
                break
            self._known.update(now)
            pause.wait(LOOK)
        self._screen.say(f"{printable(changed[0])} has changed", RED)
        self.changed = True


def _program_arguments() -> List[str]:
    return [sys.executable, "-m", __name__.partition(".")[0], *sys.argv[1:]]


def _files(more: List[str]) -> Dict[str, int]:
    """The files of the application, with the times of their last change in nanoseconds. Files of
    Python, of installed packages and of this package are left out."""
    apart = tuple(os.path.join(os.path.realpath(prefix), "") for prefix in (
        os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__))))
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    names |= {*more, *(_file_of(word) for word in sys.argv[1:])}
    found = {}
    for name in names:
        if not isinstance(name, str) or os.path.realpath(name).startswith(apart):
            continue
        try:
            found[name] = os.stat(name).st_mtime_ns
        except OSError:
            pass  # it is gone, or being written anew
    return found


def _file_of(word: str) -> Optional[str]:
    """The file of a module named on the command line, importable or not."""
    name = _split(word)[0]
    if name.endswith(".py"):
        return os.path.abspath(name)
    try:
        spec = util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin
