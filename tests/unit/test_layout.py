"""The package's own rules: imports go down, names are documented."""
from __future__ import annotations

import ast
import functools
import gc
import re
from pathlib import Path
from typing import Any, Iterable, Iterator

import pytest

import net
from each import each

pytestmark = pytest.mark.once  # it reads the text of the modules

PACKAGE = Path(net.__file__).resolve().parent
DOCS = Path(__file__).resolve().parents[2] / "docs"

# From the ground up: a module imports from the floors below its own, and from its own.
FLOORS = [
    "errors",
    "clock",
    "interrupts",
    "forking",
    "log",
    "identity",
    "tables",
    "wire",
    "settings",
    "link",
    "context",
    "executors",
    "dispatch",
    "run",
    "process",
    "calls",
    "hosting",
    "peer",
    "discovery",
    "parallel",
    "handles",
    "spreading",
    "decorators",
    "objects",
    "serving",
    "events",
    "statistics",
    "metrics",
    "defaults",
    "wiring",
    "demo",
    "testing",
    "cli",
    "__main__",
    "__init__",
]


@pytest.fixture(scope="module", autouse=True)
def texts() -> Iterator[None]:
    """Forget the texts at the end: every later collection of garbage would look through them."""
    yield
    kinds.cache_clear()


def module_names() -> dict[str, Path]:
    """Every module of the package: its dotted name below net ("" for net itself), its file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        names[".".join(parts)] = path
    return names


MODULES = module_names()


def floor(module: str) -> int:
    """The number of the module's floor; net itself is the top one."""
    return FLOORS.index(module.split(".")[0] if module else "__init__")


def imports(module: str) -> Iterator[tuple[str, str]]:
    """The modules of net that a module imports, anywhere in its text, and where it does."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes(module, ast.ImportFrom):
        for target in _targets(node, package):
            yield target, f"net/{path.relative_to(PACKAGE)}:{node.lineno}"


@functools.lru_cache(maxsize=None)
def kinds(module: str) -> dict[type, list[Any]]:
    """The nodes of the text of a module, which is parsed once for all tests, by their kind."""
    found: dict[type, list[Any]] = {}
    gc.disable()  # none of this is garbage, and looking for it takes as long as the parsing
    try:
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            found.setdefault(type(node), []).append(node)
    finally:
        gc.enable()
    return found


def nodes(module: str, kind: type, *others: type) -> Iterator[Any]:
    """The nodes of the text of a module that are of these kinds."""
    for kind in (kind, *others):
        yield from kinds(module).get(kind, ())


def tree(module: str) -> ast.Module:
    """The module itself among its nodes."""
    root, = nodes(module, ast.Module)
    return root


def _targets(node: ast.AST, package: str) -> list[str]:
    if not isinstance(node, ast.ImportFrom) or node.level == 0:
        return []
    parts = package.split(".") if package else []
    parts = parts[:len(parts) - (node.level - 1)]
    base = ".".join(parts + (node.module.split(".") if node.module else []))
    found = []
    for alias in node.names:
        submodule = f"{base}.{alias.name}".lstrip(".")
        found.append(submodule if submodule in MODULES else base)
    return found


def _absolute_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []


def public_names() -> list[str]:
    return sorted(name for name in net.__all__ if not name.startswith("__"))


@each("module", MODULES, ids=lambda name: name or "net")
def test_each_module_says_what_it_is_for(module):
    assert ast.get_docstring(tree(module))


def test_every_module_belongs_to_a_floor():
    strangers = [name for name in MODULES if name and name.split(".")[0] not in FLOORS]
    assert not strangers, "give them a floor in FLOORS, docs/design.rst and CONTRIBUTING.rst"


@each("page, line", [
    (DOCS.parent / "CONTRIBUTING.rst", r"^   (\w+(?:, \w+)*)  "),
    (DOCS / "design.rst", r"^    net/(\w+)(?:\.py|/) ")], ids=["CONTRIBUTING", "design"])
def test_the_pages_draw_the_floors_from_the_top(page, line):
    drawn = re.findall(line, page.read_text(encoding="utf-8"), re.M)
    assert ", ".join(drawn).split(", ") == FLOORS[::-1]


@each("module", MODULES, ids=lambda name: name or "net")
def test_imports_only_go_down(module):
    upwards = [
        f"{where} imports net.{target}"
        for target, where in imports(module)
        if floor(target) > floor(module)
    ]
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: {target for target, _where in imports(name)} - {name} for name in MODULES}
    while graph:
        free = [name for name, targets in graph.items() if not targets & graph.keys()]
        assert free, f"a circle is among these: {sorted(graph)}"
        for name in free:
            del graph[name]


@each("module", MODULES, ids=lambda name: name or "net")
def test_no_cache_has_a_lock_that_a_fork_would_leave_locked(module):
    # PyPy's has one; a forked child would wait for it for ever.
    names = {node.attr for node in nodes(module, ast.Attribute)}
    names |= {alias.name for node in nodes(module, ast.ImportFrom) for alias in node.names}
    assert not names & {"lru_cache", "cache", "cached_property"}


def test_the_package_never_imports_itself_by_name():
    by_name = [
        f"net/{path.relative_to(PACKAGE)}:{node.lineno}"
        for module, path in MODULES.items()
        for node in nodes(module, ast.Import, ast.ImportFrom)
        if any(name.split(".")[0] == "net" for name in _absolute_imports(node))
    ]
    assert not by_name


def test_the_test_of_imports_sees_them_all():
    # Guards the tests above against passing because they look at nothing.
    assert len(MODULES) > 15
    below_net = {target for target, _where in imports("")}
    assert {"peer", "decorators", "errors"} <= below_net


def test_every_public_name_is_in_the_api_reference():
    reference = (DOCS / "api.rst").read_text(encoding="utf-8")
    missing = [
        name for name in public_names()
        if not re.search(rf"(::\s+|net\.)(\w+\.)*{name}\b", reference)
    ]
    assert not missing


def test_all_public_names_exist_and_are_listed():
    assert len(set(net.__all__)) == len(net.__all__)
    missing = [name for name in net.__all__ if not hasattr(net, name)]
    assert not missing
    unlisted = [
        name for name, value in vars(net).items()
        if not name.startswith("_") and name not in net.__all__
        and callable(value) and value.__module__.startswith("net")
    ]
    assert not unlisted


def test_no_module_is_named_like_a_public_function():
    functions = {name for name in public_names() if callable(getattr(net, name))}
    assert not functions & {name.rpartition(".")[2] for name in MODULES}


def told(module: str) -> Iterator[tuple[str, int]]:
    """The texts of a module that it may tell somebody: its strings, but for the docstrings."""
    docstrings = {id(node.value) for node in nodes(module, ast.Expr)}
    for node in nodes(module, ast.Constant):
        if isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


def test_what_may_be_told_on_the_other_side_does_not_say_here():
    """A refusal is made by one side and raised on the other, where "here" is somewhere else."""
    # The others tell only whom they run for: on a terminal, or in the report of a search.
    made_there = [module for module in MODULES
                  if module.split(".")[0] not in ("cli", "demo", "decorators")
                  and module not in ("discovery.doctor", "discovery.lan.quest")]
    assert len(made_there) > 50
    said = [f"net/{MODULES[module].relative_to(PACKAGE)}:{line}: {text}"
            for module in made_there for text, line in told(module)
            if re.search(r"\bhere\b", text)]
    assert not said


def test_every_module_postpones_its_annotations():
    # Python 3.9 would evaluate `int | None` otherwise.
    late = []
    for name, path in MODULES.items():
        says_something = len(tree(name).body) > 1
        text = path.read_text(encoding="utf-8")
        if says_something and "from __future__ import annotations" not in text:
            late.append(str(path))
    assert not late


# What reads the clock that people and time servers set, by the name of its module.
SYSTEM_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "clock_gettime",
             "clock_gettime_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def system_times(found: Iterable[ast.AST]) -> Iterator[int]:
    """The lines of a source text, given as its nodes, that ask for the time of day."""
    for node in found:
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "attr", None) or getattr(node.value, "id", "")
            if node.attr in SYSTEM_CLOCK.get(owner, ()):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if SYSTEM_CLOCK.get(node.module or "", set()) & {alias.name for alias in node.names}:
                yield node.lineno


def test_what_strangers_can_cause_to_be_logged_is_limited():
    """Only what the application itself asks for is logged without a limit."""
    unlimited = {name for name, path in MODULES.items()
                 if "SafeLog(" in path.read_text(encoding="utf-8")}
    assert unlimited == {"log", "discovery.search", "calls.start"}


def test_no_module_goes_by_a_clock_that_can_be_set():
    """Nothing times out or expires when it is: all times are monotonic."""
    used = [
        f"net/{path.relative_to(PACKAGE)}:{line}"
        for name, path in MODULES.items() if name != "clock"  # it reads the uptime
        for line in system_times(nodes(name, ast.Attribute, ast.ImportFrom))
    ]
    assert not used


@each("text", ["import time\ntime.time()", "from time import monotonic, time",
               "import datetime\ndatetime.datetime.now()",
               "from datetime import date\ndate.today"])
def test_the_test_of_clocks_sees_them(text):
    assert list(system_times(ast.walk(ast.parse(text)))) == [text.count("\n") + 1]


# What makes a stream socket; a socket of a kind that is not named is one.
MAKES_STREAMS = {"create_connection", "create_server", "socketpair", "open_connection",
                 "start_server", "create_unix_server", "open_unix_connection", "fromfd"}


def stream_sockets(tree: Iterable[ast.AST]) -> Iterator[int]:
    """The lines that make a stream socket."""
    for node in tree:
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
        kinds = {getattr(argument, "attr", "") for argument in node.args}
        if called in MAKES_STREAMS or called == "socket" and not node.keywords \
                and not kinds & {"SOCK_DGRAM", "SOCK_RAW"}:
            yield node.lineno


def test_only_carriers_make_stream_sockets():
    made = [f"net/{MODULES[module].relative_to(PACKAGE)}:{line}"
            # The test kit plays the network.
            for module in MODULES if not module.startswith(("link.", "testing"))
            for line in stream_sockets(nodes(module, ast.Call))]
    # By the one pair a thread wakes the loop.
    assert [place.partition(":")[0] for place in made] == ["net/run/loop.py"]


@each("text", ["socket.socket()", "socket.socket(family, socket.SOCK_STREAM)", "socket(AF_INET)",
               "socket.create_connection(address, 5)", "await asyncio.open_connection(*address)"])
def test_the_test_of_stream_sockets_sees_them(text):
    assert list(stream_sockets(ast.walk(ast.parse(text)))) == [1]


def datagram_sockets(tree: Iterable[ast.AST]) -> Iterator[int]:
    """The lines that make a socket for datagrams, or send or receive one."""
    for node in tree:
        if getattr(node, "attr", None) in ("SOCK_DGRAM", "sendto", "sendmsg", "recvfrom",
                                           "recvfrom_into", "create_datagram_endpoint"):
            yield node.lineno


def test_one_module_has_the_datagrams():
    made = {module for module in MODULES if not module.startswith("testing")
            for _ in datagram_sockets(nodes(module, ast.Attribute))}
    # The latter makes a handle, by which the kernel is asked.
    assert made == {"discovery.lan.sockets", "link.addresses"}
    assert len(list(datagram_sockets(nodes("link.addresses", ast.Attribute)))) == 1


@each("text", ["socket.socket(family, socket.SOCK_DGRAM)", "sock.sendto(data, address)",
               "data, source = sock.recvfrom(99)"])
def test_the_test_of_datagrams_sees_them(text):
    assert list(datagram_sockets(ast.walk(ast.parse(text)))) == [1]


#: What changes, is there once in a process and is held by a module, and why not by ``Process``.
STATE = {
    "process.process": "the one object that holds what there is once; tests make others",
    "settings.settings": "they are set by assignment to net.NAME, before there is anything else",
    "serving.main_thread": "a process has one main thread",
    "forking.forks": "a fork is of the whole process, and so are its hooks",
    "identity.PROGRAMS": "main programs, which a profiler keeps out of sys.modules",
    "wire.registered.registry": "a class is registered for the process, as it is imported for it",
    "wire.garbage.collection": "garbage is collected for the whole process",
}
#: What each thread or task has for itself: the module holds nothing but the key to it.
OF_EACH_THREAD = {
    "context._current": "the call that runs",
    "wire.stacks._this_thread": "the size of its stack",
}
#: What is filled by a module itself, or by those above it as they are imported.
FILLED = {
    "wire.kinds.TAKE_APART": "a class of the standard library that was loaded later is remembered; "
                             "and the kinds of tuple of the floors above",
    "wire.kinds._SERIES": "the same kinds of tuple",
}
#: Kinds of objects that remember only what could be found out again, or when a line was written.
CACHES = {"Memo", "RateLimitedLog", "SafeLog"}
#: What makes a value that does not change.
CONSTANT = {
    "frozenset", "tuple", "range", "bytes", "float", "getattr", "vars", "partial", "compile",
    "Struct", "TypeVar", "ParamSpec", "make_tag", "encode_text", "getLogger", "remote",
    "maketrans", "join", "_make_encode", "_make_decode", "_make_scan", "Limits", "_Fact", "_Here",
    "_Shown", "Family",
    "getsizeof", "size_of", "hasattr",
}


def held_by(module: str) -> Iterator[str]:
    """The names of a module that hold something that changes, or may: all but constants, which are
    written in capitals and never changed in the text."""
    for node in tree(module).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        name = ast.unparse(target)
        if isinstance(node.value, ast.Call):
            made_by = getattr(node.value.func, "attr", None) or getattr(node.value.func, "id", "")
            if made_by not in CONSTANT | CACHES:
                yield name
        elif isinstance(node.value, (ast.List, ast.Dict, ast.Set)):
            empty = not (getattr(node.value, "elts", None) or getattr(node.value, "keys", None))
            if empty or not (name.isupper() or name == "__all__"):
                yield name


def test_modules_hold_little_that_changes():
    held = {f"{module}.{name}" for module in MODULES for name in held_by(module)}
    assert held == {*STATE, *OF_EACH_THREAD}
    assert len(STATE) <= 7, "what there is once belongs into Process"


CHANGES = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
           "remove", "setdefault", "update"}


def changed_in(found: Iterable[ast.AST]) -> Iterator[str]:
    """The names in capitals of which the text, given as its nodes, changes what they hold."""
    for node in found:
        held: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) \
                and node.func.attr in CHANGES:
            held = [node.func.value]
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            held = [node.value]
        for one in held:
            if isinstance(one, ast.Name) and one.id.isupper():
                yield one.id


def test_no_constant_of_a_module_is_changed():
    changed = {f"{module}.{name}" for module in MODULES
               for name in changed_in(nodes(module, ast.Call, ast.Subscript))}
    assert changed - STATE.keys() == FILLED.keys()


@each("text", ["A[1] = 2", "del _A[1]", "A[1] += 2", "A.append(3)", "_A.update({})"])
def test_the_test_of_constants_sees_a_change(text):
    assert [name.strip("_") for name in changed_in(ast.walk(ast.parse(text)))] == ["A"]


def test_no_module_rebinds_its_names():
    assert not [f"net/{MODULES[module].relative_to(PACKAGE)}:{node.lineno}" for module in MODULES
                for node in nodes(module, ast.Global)]


def test_one_module_has_the_hook_at_a_fork():
    hooks = {module for module in MODULES for node in nodes(module, ast.Attribute)
             if node.attr == "register_at_fork"}
    assert hooks == {"forking"}


def test_one_module_says_what_is_done_at_exit():
    at_exit = {module for module in MODULES for node in nodes(module, ast.Attribute)
               if node.attr in ("register", "unregister")
               and getattr(node.value, "id", "") == "atexit"}
    assert at_exit == {"wiring"}
