"""Exceptions on their way: the same class, args, text and attributes, over any number of hops."""
from __future__ import annotations

import abc
import builtins
import contextlib
import copy
import dataclasses
import gc
import io
import json
import pickle
import subprocess
import sys
import time
import traceback
import types
import urllib.error
from typing import Any, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import net
import travel
from intruders import BUFFER, INTRUDERS, SAME
from net.errors import NetError, RemoteError
from net.wire import failures, messages
from net.wire.failures import describe, rebuild
from net.wire.frames import FAILURE, Frame
from each import each
from memory import Peak
from travel import assert_same, raised
from times import patience

GROUP = getattr(builtins, "ExceptionGroup", None)


def members(error: BaseException) -> dict[str, Any]:
    """What the built-in class of an exception keeps outside of its dict."""
    found = {}
    for name in ("errno", "strerror", "filename", "filename2", "encoding", "object", "start", "end",
                 "reason", "name", "path", "msg", "lineno", "offset", "text", "end_lineno",
                 "end_offset", "value", "characters_written", "print_file_and_line"):
        with contextlib.suppress(Exception):
            found[name] = getattr(error, name)
    return found


def own_attributes(error: BaseException) -> dict[str, Any]:
    # Sorted: PyPy keeps attributes in another order.
    return {name: value for name, value in sorted(vars(error).items())
            if name not in ("traceback", "peer", "tag", "_described")}


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def check_same_error(arrived: BaseException, sent: BaseException) -> None:
    assert isinstance(arrived, RemoteError)
    assert isinstance(arrived, type(sent))
    assert type(arrived).__name__ == type(sent).__name__
    assert type(arrived).__qualname__ == type(sent).__qualname__
    assert type(arrived).__module__ == type(sent).__module__
    assert_same(arrived.args, sent.args)
    assert str(arrived) == str(sent)
    assert_same(members(arrived), members(sent))
    assert_same(own_attributes(arrived), own_attributes(sent))
    assert arrived.ran == "yes"


# ------------------------------------------------------------------ every built-in exception

ARGUMENTS: dict[str, tuple] = {
    "UnicodeDecodeError": ("utf-8", b"a\xffb", 1, 2, "invalid start byte"),
    "UnicodeEncodeError": ("ascii", "aéb", 1, 2, "ordinal not in range"),
    "UnicodeTranslateError": ("aéb", 1, 2, "no"),
    "StopIteration": (42,),
    "KeyError": ("key",),
}


def built_in_exceptions() -> Iterator[BaseException]:
    for name, cls in sorted(vars(builtins).items()):
        if not isinstance(cls, type) or not issubclass(cls, Exception) or cls.__name__ != name:
            continue
        if GROUP is not None and issubclass(cls, GROUP):
            continue
        usual = ("bad", ("file.py", 3, 5, "x = = 1\n")) if issubclass(cls, SyntaxError) \
            else ("one", 2)
        yield cls(*ARGUMENTS.get(name, usual))
        if name.startswith("Unicode"):
            continue
        yield cls()
        yield cls("only text")
        if not issubclass(cls, SyntaxError):
            yield cls((1, "x"), [b"y"])
        if issubclass(cls, OSError):
            yield cls(2, "No such file", "a.txt")
            yield cls(2, "No such file", b"a.txt", None, "b.txt")
            yield cls(None, None)
        if issubclass(cls, ImportError):
            yield cls("no module", name="a.b", path="/a/b.py")
        if issubclass(cls, SyntaxError) and sys.version_info >= (3, 10):
            yield cls("bad", ("file.py", 3, 5, "x\n", 4, 6))
        if sys.version_info >= (3, 10) and issubclass(cls, (NameError, AttributeError)):
            yield cls("missing", name="nam")


@each("error", list(built_in_exceptions()),
      ids=lambda error: f"{type(error).__name__}-{len(error.args)}")
def test_every_built_in_exception_arrives_as_it_was_over_several_hops(error):
    once = raised(error)
    check_same_error(once, error)
    twice = raised(once)
    check_same_error(twice, error)
    if not error.args:  # once for each class: it goes as the second did
        check_same_error(raised(twice), error)


def test_every_exception_there_is_was_tried():
    tried = {type(error) for error in built_in_exceptions()}
    known = {cls for cls in vars(builtins).values() if isinstance(cls, type)
             and issubclass(cls, Exception) and not (GROUP and issubclass(cls, GROUP))}
    assert tried == known


def no_sql() -> None:
    with contextlib.closing(__import__("sqlite3").connect(":memory:")) as database:
        database.execute("no sql")


def provoked() -> Iterator[Any]:
    yield lambda: 1 / 0
    yield lambda: {}["key"]
    yield lambda: [][5]
    yield lambda: int("x")
    yield lambda: open("/no/such/file")
    yield lambda: b"\xff".decode()
    yield lambda: "é".encode("ascii")
    yield lambda: compile("x = = 1", "file.py", "exec")
    yield lambda: __import__("no.such.module")
    yield lambda: object().missing  # type: ignore[attr-defined]
    yield lambda: eval("missing")
    yield lambda: next(iter(()))
    yield lambda: json.loads("{")
    yield lambda: subprocess.run(["/no/such/program"])
    yield lambda: subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    yield lambda: 10.0 ** 1000
    yield lambda: (lambda x: x)()  # type: ignore[call-arg]
    yield lambda: exec("raise AssertionError")
    yield lambda: __import__("decimal").Decimal("x")
    yield lambda: __import__("struct").unpack("I", b"")
    yield lambda: __import__("socket").getaddrinfo("127.0.0.1", "no such service")
    yield lambda: __import__("zlib").decompress(b"x")
    yield no_sql
    yield lambda: __import__("ssl").SSLContext(2).load_verify_locations("/no/such/file")
    yield lambda: __import__("configparser").ConfigParser().get("a", "b")
    yield lambda: __import__("asyncio").run(__import__("asyncio").wait_for(
        __import__("asyncio").sleep(9), 0.001))


@pytest.mark.filterwarnings("ignore")
@each("provoke", list(provoked()), ids=[f"provoked{n}" for n in range(26)])
def test_what_python_and_its_library_raise_arrives_as_it_was(provoke):
    with pytest.raises(Exception) as caught:
        provoke()
    arrived = raised(caught.value)
    assert isinstance(arrived, type(caught.value))
    assert str(arrived) == str(caught.value)
    assert_same(members(arrived), members(caught.value))
    assert str(raised(arrived)) == str(caught.value)


def test_catching_by_either_class_works():
    for expected in (ValueError, RemoteError, NetError, Exception):
        with pytest.raises(expected):
            raise raised(ValueError("x"))


# ------------------------------------------------------------------- classes of applications


class Plain(Exception):
    pass


class OwnInit(Exception):
    def __init__(self, code: int, *, extra: Any) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.extra = extra
        self._private = (code,)


class NoSuper(Exception):
    def __init__(self, a: Any, b: Any) -> None:
        self.pair = (a, b)

    def __str__(self) -> str:
        return f"pair {self.pair}"


class OwnNew(ValueError):
    def __new__(cls, *args: Any) -> "OwnNew":
        if not args:
            raise RuntimeError("made anew")
        return super().__new__(cls, *args)

    def __init__(self, a: Any) -> None:
        super().__init__(a, "more")


class Slotted(Exception):
    __slots__ = ("code", "_hidden", "__mangled", "unset")

    def __init__(self, code: int) -> None:
        self.code = code
        self._hidden = [code]
        self.__mangled = "m"

    def mangled(self) -> str:
        return self.__mangled


class WithProperty(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self._value = value

    @property
    def value(self) -> int:
        return self._value

    @property
    def filename(self) -> str:
        raise RuntimeError("nobody asked")


class FileTrouble(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)
        self.when = "now"


class TwoBases(KeyError, AttributeError):
    pass


class ValueFirst(ValueError, OSError):
    pass


class Strict(Exception):
    def __init_subclass__(cls, *, code: int, **options: Any) -> None:
        raise RuntimeError("subclasses are counted here")


class TextOfItsOwn(Exception):
    class Text(str):
        pass

    def __str__(self) -> str:
        return self.Text("of a class of its own")


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


@dataclasses.dataclass
class AsData(Exception):
    code: int
    why: str = "x"


class Remote(net.RemoteError):
    pass


class OwnNet(net.NetError):
    pass


class Metaclass(type):
    def __call__(cls, *args: Any) -> Any:
        raise RuntimeError("a factory makes these")


class Outer:
    class Inner(Exception):
        pass


def application_errors() -> Iterator[BaseException]:
    yield Plain()
    yield Plain("a", 1, (2,), {3}, None)
    yield OwnInit(5, extra={"k": (1,)})
    yield NoSuper(1, "b")
    yield OwnNew("x")
    yield Slotted(7)
    yield WithProperty(9)
    yield FileTrouble("a.txt")
    yield TwoBases("k")
    yield ValueFirst("x")
    yield ValueFirst(5, "x", "file")
    yield Strict("a", 2)
    yield AsData(5)
    yield Remote("x")
    yield OwnNet("x", 5)
    yield Outer.Inner("in")
    yield TextOfItsOwn("x")


@each("error", list(application_errors()),
      ids=lambda error: type(error).__name__)
def test_exceptions_of_applications_arrive_as_they_were_over_several_hops(error):
    once = raised(error)
    check_same_error(once, error)
    check_same_error(raised(raised(once)), error)
    for name in getattr(type(error), "__slots__", ()):
        if not name.startswith("__"):
            assert getattr(once, name, "unset") == getattr(error, name, "unset")


def test_slots_with_private_names_arrive():
    assert raised(raised(Slotted(7))).mangled() == "m"  # type: ignore[attr-defined]


def test_no_init_new_or_metaclass_of_an_application_runs_on_arrival(monkeypatch):
    error = OwnInit(5, extra=1)
    described = describe(error)
    for method in ("__init__", "__new__"):
        monkeypatch.setattr(OwnInit, method, lambda *args, **kwargs: 1 / 0, raising=False)
    assert rebuild(described).extra == 1  # type: ignore[attr-defined]

    made = type.__call__(Metaclass, "Made", (Exception,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Made", made, raising=False)
    arrived = rebuild({"types": [[__name__, "Made"]], "args": [1], "text": "1"})
    assert isinstance(arrived, made)


def test_an_exception_whose_text_fails_arrives_all_the_same():
    for error in (Silent(1), Leaving(2)):
        arrived = raised(error)
        assert isinstance(arrived, type(error))
        assert arrived.args == error.args
        assert "its text cannot be made" in str(arrived)


def test_args_that_cannot_travel_arrive_as_their_repr_and_attributes_do_not_arrive():
    lock = object()
    error = ValueError("text", lock, [lock])
    error.lock = lock  # type: ignore[attr-defined]
    error.fine = (1,)  # type: ignore[attr-defined]
    arrived = raised(error)
    assert arrived.args == ("text", repr(lock), repr([lock]))
    assert not hasattr(arrived, "lock") and arrived.fine == (1,)  # type: ignore[attr-defined]
    assert str(arrived) == str(error)
    assert isinstance(raised(KeyError(lock)), KeyError)
    assert str(raised(KeyError(lock))) == str(KeyError(lock))


def test_a_repr_that_fails_is_no_trouble():
    class Nasty:
        def __repr__(self) -> str:
            raise ValueError

    arrived = raised(Plain(1, Nasty()))
    assert arrived.args == (1, "<Nasty>")


def test_values_in_an_exception_may_look_like_tags_or_be_deep():
    check_same_error(raised(ValueError({"!tuple": [1]}, {"raised": 1})),
                     ValueError({"!tuple": [1]}, {"raised": 1}))
    deep: Any = 0
    for _ in range(97):
        deep = (deep,)
    assert_same(raised(ValueError(deep)).args, (deep,))
    deeper = ((((deep,),),),)
    arrived = raised(ValueError(deeper))
    assert isinstance(arrived, ValueError) and isinstance(arrived.args[0], str)


def test_attributes_with_names_that_are_no_text_are_left_out():
    error = Plain("x")
    vars(error)[5] = 1  # type: ignore[index]
    vars(error)["ok"] = 2
    arrived = raised(error)
    assert own_attributes(arrived) == {"ok": 2}


def test_an_attribute_called_like_one_of_ours_gives_way_to_ours():
    error = Plain("x")
    error.peer, error.tag, error.traceback, error.ran = 1, 2, 3, 4  # type: ignore[attr-defined]
    arrived = raised(error)
    assert (arrived.peer, arrived.tag) == ("127.0.0.1:1", b"dGFn")  # type: ignore[attr-defined]
    assert "Traceback" in arrived.traceback  # type: ignore[attr-defined]


def test_what_is_no_exception_may_hold_exceptions():
    """The reply was refused, and the call might have run."""
    arrived = raised(type("Own", (BaseException,), {})("x", [ValueError(1), KeyError(2)]))
    assert type(arrived) is RemoteError
    assert "Own: ('x', [ValueError(1), KeyError(2)])" in str(arrived)


def test_notes_arrive():
    error = ValueError("x")
    vars(error)["__notes__"] = ["first", "second"]
    arrived = raised(raised(error))
    assert arrived.__notes__ == ["first", "second"]  # type: ignore[attr-defined]


def test_other_names_with_two_underscores_are_never_set():
    described = describe(Plain("x"))
    described["attributes"] = {"__class__": 5, "__traceback__": 5, "__cause__": 6, "__dict__": {},
                               "_described": 5, "traceback": 5, "peer": 5, "tag": 5}
    described["members"] = {"__class__": 5, "args": [5], "__dict__": 5, "__traceback__": 5}
    arrived = rebuild(described, "p", b"t")
    assert isinstance(arrived, Plain) and arrived.args == ("x",)
    assert (arrived.peer, arrived.tag) == ("p", b"t") and "__class__" not in vars(arrived)


# --------------------------------------------------------------------- classes not known here


def unknown(module: str = "app.errors", name: str = "Trouble", *bases: str,
            **more: Any) -> RemoteError:
    types_ = [[module, name], *[["builtins", base] for base in bases], ["builtins", "Exception"]]
    return rebuild({"types": types_, "text": "it broke", "args": ["it broke"], **more})


def test_an_unknown_class_falls_back_to_its_nearest_known_base():
    error = unknown("app.errors", "Trouble", "KeyError", "LookupError", attributes={"code": 5})
    assert isinstance(error, KeyError) and isinstance(error, RemoteError)
    assert type(error).__name__ == "Trouble" and type(error).__module__ == "app.errors"
    assert str(error) == "it broke"  # not as KeyError would show it
    assert error.code == 5  # type: ignore[attr-defined]
    assert "app.errors.Trouble: it broke" in printed(error)
    assert type(unknown()).__name__ == "Trouble"


def test_what_a_class_kept_in_slots_that_is_unknown_here_becomes_attributes():
    error = unknown(members={"code": 7, "_more": [1]})
    assert (error.code, error._more) == (7, [1])  # type: ignore[attr-defined]


def test_a_class_that_is_unknown_on_the_way_is_known_again_behind_it(monkeypatch):
    class OnlyThere(LookupError):
        pass

    class Child(OnlyThere):
        pass

    here = sys.modules[__name__]
    for cls in (OnlyThere, Child):
        cls.__qualname__ = cls.__name__
    described = describe(Child("x"))
    hop = rebuild(described)  # neither is known on this peer
    assert isinstance(hop, LookupError) and not isinstance(hop, OnlyThere)
    monkeypatch.setattr(here, "OnlyThere", OnlyThere, raising=False)
    behind = raised(hop)  # a third peer knows the base
    assert isinstance(behind, OnlyThere) and not isinstance(behind, Child)
    assert type(behind).__name__ == "Child"
    monkeypatch.setattr(here, "Child", Child, raising=False)
    assert isinstance(raised(raised(behind)), Child)


def test_a_class_within_a_function_falls_back_to_its_base():
    class Local(LookupError):
        pass

    error = raised(Local("x"))
    assert isinstance(error, LookupError) and not isinstance(error, Local)
    assert "Local" in type(error).__qualname__


@each("module, name", [
    ("os", "system"), ("builtins", "int"), ("builtins", "eval"), ("builtins", "__import__"),
    ("subprocess", "Popen"), ("builtins", "SystemExit"), ("builtins", "KeyboardInterrupt"),
    ("builtins", "BaseException"), ("builtins", "object"), ("net.errors", "NetError"),
    ("net.wire.failures", "_Rebuilt"), ("net.wire.failures", "rebuild"), ("", ""),
    ("builtins", ""), ("builtins", "ValueError.__init__"), ("os", "path.join"), ("sys", "modules"),
    ("net", "peer._process"), ("builtins", "ValueError.with_traceback"), ("__main__",
                                                                          "__builtins__"),
])
def test_names_that_are_no_exceptions_are_never_used(module, name):
    error = rebuild({"types": [[module, name], ["builtins", "Exception"]], "text": "t", "args": []})
    assert type(error).__mro__[1:] in (RemoteError.__mro__[0:], failures._Rebuilt.__mro__)
    alone = rebuild({"types": [[module, name]], "text": "t", "args": []})
    assert type(alone) is RemoteError and str(alone).endswith(": t")


def test_a_rebuilt_class_is_no_class_to_rebuild_from(monkeypatch):
    cls = type(raised(ValueError("x")))
    monkeypatch.setattr(sys.modules[__name__], "Kept", cls, raising=False)
    error = rebuild({"types": [[__name__, "Kept"], ["builtins", "Exception"]], "text": "x"})
    assert not isinstance(error, cls)


def test_nothing_is_imported_for_a_name():
    module = next(name for name in ("this", "antigravity", "xml.dom.expatbuilder", "tabnanny")
                  if name not in sys.modules)
    unknown(module, "SomeError")
    assert module not in sys.modules
    assert isinstance(unknown("json.decoder", "JSONDecodeError"), json.JSONDecodeError)


def test_no_attribute_of_a_module_is_accessed(monkeypatch):
    touched = []

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            touched.append(name)
            return super().__getattribute__(name)

    def module_getattr(name: str) -> Any:
        touched.append(name)
        return ValueError

    lazy, with_getattr = Lazy("lazy_module"), types.ModuleType("with_getattr")
    vars(with_getattr)["__getattr__"] = module_getattr
    del touched[:]

    class Instance:
        def __getattr__(self, name: str) -> Any:
            touched.append(name)
            return ValueError

        @property
        def __class__(self) -> Any:
            touched.append("__class__")
            return type

    vars(with_getattr)["Proxy"] = Instance()
    for name, module in [("lazy_module", lazy), ("with_getattr", with_getattr),
                         ("instance_module", Instance()), ("none_module", None), ("number", 5)]:
        monkeypatch.setitem(sys.modules, name, module)
        unknown(name, "SomeError")
        unknown(name, "Proxy")
        unknown(name, "Some.Inner.Error")
    assert touched == []


def test_the_main_module_is_known_under_both_of_its_names(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "MainTrouble", type("MainTrouble", (Exception,),
                                                                     {}),
                        raising=False)
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    assert isinstance(unknown("__mp_main__", "MainTrouble"), sys.modules["__main__"].MainTrouble)


class Sealed(type):
    """Nothing can be derived from its classes."""

    def __new__(cls, name: str, bases: Any, body: Any) -> Any:
        if any(isinstance(base, Sealed) for base in bases):
            raise TypeError("this class is final")
        return super().__new__(cls, name, bases, body)


class Final(LookupError, metaclass=Sealed):
    pass


def test_a_class_that_forbids_subclasses_falls_back_to_its_base():
    error = rebuild({"types": [[__name__, "Final"]], "text": "it broke", "args": ["it broke"]})
    assert isinstance(error, LookupError) and not isinstance(error, Final)
    assert type(error).__name__ == "Final" and str(error) == "it broke"


def test_names_and_texts_from_the_wire_are_made_safe_to_print():
    error = unknown("m\x1b[31m", "E\n\0\ud800" + "x" * 300, traceback="a\x1b[2J\nb\r" + "y" * 5000)
    assert type(error).__name__.isprintable() and type(error).__module__.isprintable()
    assert "\x1b" not in error.traceback and "\r" not in error.traceback
    assert "\n" in error.traceback
    printed(error)


def test_names_without_end_are_refused():
    with pytest.raises(ValueError):
        rebuild({"types": [["a" * 10 ** 6, "b"]], "text": ""})
    error = rebuild({"types": [["a", "b"]] * 10 ** 5 + [["builtins", "ValueError"]], "text": ""})
    assert not isinstance(error, ValueError)


# ------------------------------------------------------------------ leaving, not failing


@each("error", [
    SystemExit(3), SystemExit("bye"), SystemExit(), KeyboardInterrupt(), GeneratorExit("x"),
    BaseException("base"), type("Own", (SystemExit,), {})(1), type("Own", (BaseException,),
                                                                   {})("x"),
], ids=repr)
def test_what_is_no_exception_becomes_a_plain_remote_error(error):
    arrived = raised(error)
    assert type(arrived) is RemoteError
    assert not isinstance(arrived, (SystemExit, KeyboardInterrupt, GeneratorExit))
    assert type(error).__name__ in str(arrived)
    assert str(error) in str(arrived)
    again = raised(raised(arrived))
    assert type(again) is RemoteError and str(again) == str(arrived)
    assert "Traceback" in arrived.traceback  # type: ignore[attr-defined]


def test_a_remote_error_of_an_application_stays_one():
    arrived = raised(raised(RemoteError("mine")))
    assert type(arrived) is RemoteError and str(arrived) == "mine"


# ---------------------------------------------------------------------------------- groups


@pytest.mark.skipif(GROUP is None, reason="no groups in this Python")
class TestGroups:
    def test_a_group_arrives_with_all_that_is_in_it(self):
        group = GROUP("several", [ValueError("a"), OSError(2, "b", "f"),
                                  GROUP("inner", [OwnInit(5, extra=(1,))])])
        for arrived in (raised(group), raised(raised(group))):
            assert isinstance(arrived, GROUP) and isinstance(arrived, RemoteError)
            assert str(arrived) == str(group) and arrived.message == "several"
            assert arrived.args == ("several", list(arrived.exceptions))
            assert isinstance(arrived.exceptions[0], ValueError)
            assert arrived.exceptions[1].filename == "f"
            assert arrived.exceptions[2].exceptions[0].extra == (1,)
            matching, rest = arrived.split(ValueError)
            assert len(matching.exceptions) == 1 and len(rest.exceptions) == 2

    def test_a_group_of_an_application_arrives_without_its_constructor(self):
        arrived = raised(OwnGroup(5))
        assert isinstance(arrived, OwnGroup) and arrived.code == 5
        assert isinstance(arrived.exceptions[0], KeyError)

    def test_a_group_with_a_system_exit_is_no_exception(self):
        group = builtins.BaseExceptionGroup("x", [SystemExit(1)])
        assert type(raised(group)) is RemoteError

    def test_large_and_deep_groups_are_cut(self):
        wide = raised(GROUP("wide", [ValueError(n) for n in range(5000)]))
        assert isinstance(wide, GROUP) and len(wide.exceptions) == failures.MAX_GROUP
        deep: Any = ValueError("core")
        for _ in range(50):
            deep = GROUP("deep", [deep])
        arrived = raised(deep)
        assert isinstance(arrived, GROUP)
        assert str(arrived) == str(deep)

    def test_a_group_can_be_copied_and_pickled(self):
        arrived = raised(GROUP("several", [ValueError("a")]))
        for copied in (copy.copy(arrived), copy.deepcopy(arrived),
                       pickle.loads(pickle.dumps(arrived))):
            assert isinstance(copied, GROUP) and str(copied) == str(arrived)
            assert isinstance(copied.exceptions[0], ValueError)

    def test_a_description_without_exceptions_still_makes_a_group(self):
        described = describe(GROUP("x", [ValueError()]))
        for broken in ({}, {"exceptions": []}):
            arrived = rebuild({**described, "exceptions": [], **broken})
            assert isinstance(arrived, GROUP)


if GROUP is not None:
    class OwnGroup(GROUP):  # type: ignore[misc,valid-type]
        def __new__(cls, code: int) -> Any:
            self = super().__new__(cls, "own", [KeyError("k")])
            self.code = code
            return self

        def __init__(self, code: int) -> None:
            pass


# -------------------------------------------------------------------- the remote traceback


def fail_here() -> None:
    raise ValueError("from fail_here")


def test_an_uncaught_error_prints_the_remote_lines():
    try:
        fail_here()
    except ValueError as error:
        arrived = rebuild(describe(error))
    text = printed(arrived)
    assert 'raise ValueError("from fail_here")' in text
    assert text.index("from fail_here") < text.rindex("ValueError: from fail_here")
    assert arrived.traceback in text


def test_the_line_of_ours_that_called_the_function_is_left_out():
    try:
        fail_here()
    except ValueError as error:
        text = describe(error)["traceback"]
    assert "in fail_here" in text
    assert "test_the_line_of_ours" not in text


def test_causes_and_contexts_are_in_the_remote_traceback():
    def fail() -> None:
        try:
            {}["first"]
        except KeyError as problem:
            raise ValueError("second") from problem

    try:
        fail()
    except ValueError as error:
        text = describe(error)["traceback"]
    assert "KeyError: 'first'" in text and "direct cause" in text


def test_the_lines_of_all_hops_are_printed():
    once = raised(ValueError("deep down"))
    twice = raised(once)
    assert twice.traceback.count("Traceback (most recent call last)") >= 2
    assert printed(raised(twice)).count("deep down") >= 3


def test_a_long_traceback_keeps_its_end():
    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        raise ValueError("the end " + "x" * 100_000 + " really")

    try:
        fall(5)
    except ValueError as error:
        described = describe(error)
    assert len(described["traceback"]) <= failures.MAX_TRACEBACK
    assert described["traceback"].rstrip().endswith("really")


def test_a_recursion_error_arrives():
    def fall() -> None:
        fall()

    try:
        fall()
    except RecursionError as error:
        message = messages.encode_failure(1, error)
    assert sum(map(len, message)) < 2 ** 17
    with pytest.raises(RecursionError):
        messages.decode_reply(travel.read_frame(travel.joined(message)), None, None, b"")


def test_the_peer_decides_how_much_it_tells():
    error = OwnInit(5, extra="secret")
    full, kind, nothing = (raised(error, detail) for detail in ("full", "type", "none"))
    assert "Traceback" in full.traceback and full.extra == "secret"  # type: ignore[attr-defined]
    assert kind.traceback == "" and kind.extra == "secret"  # type: ignore[attr-defined]
    assert nothing.traceback == "" and nothing.args == ()  # type: ignore[attr-defined]
    assert isinstance(nothing, OwnInit) and "does not tell" in str(nothing)
    assert "secret" not in repr(vars(nothing))
    assert "on the peer 127.0.0.1:1, which sent no traceback" in printed(kind)


@pytest.mark.parametrize("detail", ["full", "type", "none"])
def test_an_exception_that_is_too_large_to_travel_keeps_class_and_end(detail, kept_settings):
    kept_settings.set("max_text", 100_000)
    error = ValueError("y" * 60_000, [10 ** 9] * 20_000, "the end")
    arrived = raised(error, detail)
    assert isinstance(arrived, ValueError)
    if detail != "none":
        assert str(arrived).endswith("1000000000], 'the end')") and arrived.args == ()
        assert len(str(arrived)) <= failures.MAX_BRIEF
    assert bool(arrived.traceback) == (detail == "full")  # type: ignore[attr-defined]


# --------------------------------------------------------------------- pickling and copying


@each("error", [
    *application_errors(), ValueError("x", (1,)), KeyError("k"), OSError(2, "no", "f"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), SystemExit(3),
], ids=lambda error: type(error).__name__)
def test_a_rebuilt_error_can_be_copied_and_pickled(error):
    arrived = raised(error)
    for copied in (copy.copy(arrived), copy.deepcopy(arrived), *[
            pickle.loads(pickle.dumps(arrived, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]):
        assert type(copied).__mro__[1:] == type(arrived).__mro__[1:]
        assert type(copied).__name__ == type(arrived).__name__
        assert_same(copied.args, arrived.args)
        assert str(copied) == str(arrived)
        assert_same(own_attributes(copied), own_attributes(arrived))
        assert (copied.traceback, copied.peer, copied.tag, copied.ran) == \
            (arrived.traceback, arrived.peer, arrived.tag, arrived.ran)


def test_errors_of_ours_that_a_function_met_arrive_as_remote_errors():
    for error in (net.CallTimeout(("a", 1), 5, "no"), net.PeerUnreachable(("a", 1), "no"),
                  net.ValueNotSupported("args[0]", "no"), net.InvalidConnection(b"eA==", "x"),
                  net.MessageTooLarge("x", 1, 2, "NET_MAX_TEXT")):
        arrived = raised(raised(error))
        assert isinstance(arrived, type(error)) and isinstance(arrived, RemoteError)
        assert str(arrived) == str(error)
        assert arrived.ran == "yes"  # of the call that raised it here
        facts = {name for name in vars(error)} - {"ran", "peer", "tag"}
        assert {name: getattr(arrived, name) for name in facts} == \
            {name: getattr(error, name) for name in facts}


# ------------------------------------------------------------------------- hostile descriptions


@each("name",
      ["UnicodeDecodeError", "UnicodeEncodeError", "UnicodeTranslateError"])
@each("start, end",
      [(-10 ** 12, -10 ** 12 + 1), (10 ** 12, 10 ** 12 + 1), (-1, 0),
       (3, 4), (0, 10 ** 18), (2, 1)])
@each("content", ["bytes", "text", 5, None, [1]])
def test_positions_out_of_bounds_do_not_read_foreign_memory(name, start, end, content):
    whole = {"!bytes": "YWJj"} if content == "bytes" else content
    args = ["utf-8", whole, start, end, "why"][name == "UnicodeTranslateError":]
    found = {"types": [["builtins", name]], "text": "told", "args": args,
             "members": {"object": whole, "start": start, "end": end}}
    text = json.dumps({"raised": found}).encode()
    with pytest.raises(getattr(builtins, name)) as caught:
        messages.decode_reply(Frame(FAILURE, 1, True, text), None, None, b"")
    assert str(caught.value) == "told"
    printed(caught.value)
    raised(caught.value)


def test_an_exception_in_the_place_of_the_object_does_not_make_python_read_foreign_memory():
    whole = {"!bytes": "YWJj"}
    text = json.dumps({"raised": {
        "types": [["builtins", "UnicodeDecodeError"]], "text": "told",
        "args": ["utf-8", whole, 2, 3, "why"], "held": {"object": 0},
        "members": {"object": whole, "start": 2, "end": 3, "encoding": "utf-8"}}}).encode()
    with pytest.raises(UnicodeDecodeError) as caught:
        messages.decode_reply(Frame(FAILURE, 1, True, text), None, None, b"")
    assert type(caught.value.object) is bytes and caught.value.start == 0


@each("name, found", [
    ("OSError", {"errno": [], "filename": {"a": 1}, "characters_written": "x", "strerror": 5}),
    ("SyntaxError", {"text": 5, "offset": "x", "lineno": [], "filename": 7,
                     "end_offset": -10 ** 20}),
    ("SyntaxError", {"text": True, "offset": 1, "lineno": 10 ** 5000, "end_offset": []}),
    ("SyntaxError", {"text": "x", "offset": 1, "lineno": 1, "end_offset": 10 ** 12}),
    ("BlockingIOError", {"characters_written": 10 ** 30}),
    ("StopIteration", {"value": {"a": [1]}}),
    ("ImportError", {"name": 5, "path": [], "msg": {}}),
])
def test_members_of_odd_types_do_no_harm(name, found):
    error = rebuild({"types": [["builtins", name]], "text": "told", "args": ["a", 1],
                     "members": found})
    assert isinstance(error, getattr(builtins, name)) and str(error) == "told"
    raised(error)
    assert name in printed(error) and len(printed(error)) < 10_000


def test_showing_an_error_imports_nothing():
    error = rebuild({"types": [["builtins", "ImportError"]], "text": "told", "args": ["told"],
                     "members": {"name": "this", "name_from": "that"}})
    assert error.name == "this" and "told" in printed(error)
    assert "this" not in sys.modules


@each("described", [
    {}, {"types": []}, {"types": [], "text": ""}, {"types": [[1, 2]], "text": ""},
    {"types": [["a", "b", "c"]], "text": ""}, {"types": None, "text": ""}, {"text": "x"},
    {"types": [["builtins", "ValueError"]]},
    {"types": [["builtins", "ValueError"]], "text": "", "args": 5},
    {"types": [["builtins", "ValueError"]], "text": "", "attributes": 5},
    {"types": [["builtins", "ValueError"]], "text": "", "members": "ab"},
])
def test_descriptions_without_sense_raise_what_a_reply_is_refused_for(described):
    with pytest.raises((KeyError, TypeError, ValueError)):
        rebuild(described)


class Hostile(Exception):
    """Everything that can go wrong when one looks at an exception."""

    args = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __module__ = "x" * 2000

    def __repr__(self) -> str:
        raise ValueError

    def __getattribute__(self, name: str) -> Any:
        if name in ("filename", "name", "__notes__"):
            raise ValueError(name)
        return super().__getattribute__(name)


def test_nothing_that_an_exception_does_keeps_its_description_from_being_made():
    error = Hostile("a", 1)
    arrived = raised(error)
    assert type(arrived).__name__ == "Hostile"
    assert BaseException.args.__get__(arrived) == ("a", 1)  # type: ignore[attr-defined]


class Counted(Exception):
    pass


def test_texts_from_the_wire_make_no_new_classes():
    first = rebuild({"types": [[__name__, "Counted"]], "text": "one", "args": []})
    second = rebuild({"types": [[__name__, "Counted"]], "text": "two", "args": []})
    assert type(first) is type(second)
    assert (str(first), str(second)) == ("one", "two")


def may_be_an_attribute(name):
    """Names with a meaning of their own do not travel."""
    return not name.startswith("__") and not hasattr(net.RemoteError, name)


@settings(max_examples=15)
@given(st.lists(travel.values, max_size=2), st.dictionaries(
    st.text(min_size=1, max_size=5).filter(may_be_an_attribute), travel.values, max_size=2))
def test_args_and_attributes_of_all_kinds_arrive_as_they_were(args, attributes):
    error = Plain(*args)
    vars(error).update(attributes)
    once = raised(error)
    assert_same(once.args, error.args)
    assert_same(own_attributes(once), own_attributes(error))
    assert_same(own_attributes(raised(once)), own_attributes(error))
    with contextlib.suppress(ValueError):  # Python does not print ints without end
        text = str(error)
        assert str(once) == text


# ------------------------------------------------------------------ nothing of an application runs


ran: list[str] = []


def noting(name: str, result: Any = None) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        ran.append(name)
        return result
    return method


class WatchedMeta(type):
    """A metaclass that notices whatever is done with its classes."""

    # Not those that Python itself asks when an exception is raised, wherever it is from.
    for _name in ("__call__", "__init__", "__setattr__", "__dir__", "__subclasses__"):
        locals()[_name] = noting("meta " + _name)
    __prepare__ = classmethod(noting("meta __prepare__", {}))
    __module__ = property(noting("meta __module__", "somewhere"))  # type: ignore[assignment]
    __mro__ = property(noting("meta __mro__", ()))  # type: ignore[assignment]
    __doc__ = property(noting("meta __doc__"))  # type: ignore[assignment]

    def __hash__(cls) -> int:
        ran.append("meta __hash__")
        return 5

    def __eq__(cls, other: Any) -> bool:
        ran.append("meta __eq__")
        return True

    def __getattribute__(cls, name: str) -> Any:
        ran.append("meta getattr " + name)
        return super().__getattribute__(name)


def watched() -> type:
    """A class that notices whatever is done with it and its instances."""
    body = {name: noting(name, result) for name, result in {
        "__new__": None, "__init__": None, "__str__": "mine", "__repr__": "mine", "__del__": None,
        "__setattr__": None, "__delattr__": None, "__getattr__": None, "__reduce__": (int, ()),
        "__reduce_ex__": (int, ()), "__copy__": 5, "__deepcopy__": 5, "__getstate__": {},
        "__setstate__": None, "__hash__": 5, "__eq__": True, "__dir__": []}.items()}
    body["__init_subclass__"] = classmethod(noting("__init_subclass__"))
    body["__set_name__"] = noting("__set_name__")
    for name in ("args", "__dict__", "__class__", "__cause__", "__context__", "__traceback__",
                 "__suppress_context__", "code", "filename", "traceback", "peer", "tag", "ran"):
        body[name] = property(noting("get " + name), noting("set " + name))

    def getattribute(self: Any, name: str) -> Any:
        ran.append("getattr " + name)
        return object.__getattribute__(self, name)

    body.update(__getattribute__=getattribute, __module__=__name__)
    return type.__new__(WatchedMeta, "Watched", (KeyError,), body)


@pytest.mark.filterwarnings("ignore")
def test_rebuilding_an_error_runs_nothing_of_an_application(monkeypatch):
    cls = watched()
    monkeypatch.setattr(sys.modules[__name__], "Watched", cls, raising=False)
    text = json.dumps({"raised": {
        "types": [[__name__, "Watched"], ["builtins", "KeyError"]], "text": "told", "args": ["a"],
        "members": {"filename": "f"}, "repr": "Watched()",
        "attributes": {"code": 7, "other": 1, "__class__": 5, "ran": "no"},
        "cause": 1, "context": 2, "related": [
            {"types": [[__name__, "Watched"]], "text": "cause", "attributes": {"code": 1}},
            {"types": [[__name__, "Watched"]], "text": "context"}]}}).encode()
    messages.decode_call  # not from the import system, once things are watched
    del ran[:]
    arrived: Any = None
    try:
        messages.decode_reply(Frame(FAILURE, 1, False, text), None, "127.0.0.1:1", b"")
    except RemoteError as error:
        arrived = error
    if sys.implementation.name == "pypy":  # looks for a traceback in whatever is raised
        ran[:] = [one for one in ran if not one.endswith(" __traceback__")]
    assert ran == []
    known = failures.dict_of(arrived)
    assert cls in type.mro(type(arrived)) and known["other"] == 1 and known["code"] == 7
    assert (str(arrived), repr(arrived)) == ("told", "Watched()")
    assert failures.cause_of(arrived) is not None and failures.context_of(arrived) is not None
    copy.deepcopy(arrived), pickle.dumps(arrived)
    del ran[:]
    del arrived, known
    gc.collect()
    assert ran == []


def test_a_metaclass_that_makes_its_classes_itself_is_left_alone(monkeypatch):
    made: list[str] = []

    class Registering(type):
        def __new__(cls, name: str, bases: Any, body: Any) -> Any:
            made.append(name)
            return super().__new__(cls, name, bases, body)

    base = Registering("Registered", (LookupError,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Registered", base, raising=False)
    arrived = rebuild({"types": [[__name__, "Registered"]], "text": "it broke"})
    assert made == ["Registered"]
    assert isinstance(arrived, LookupError) and type(arrived).__name__ == "Registered"


def test_an_abstract_class_stays_one(monkeypatch):
    class Abstract(ValueError, metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def method(self) -> None:
            pass

    Abstract.__qualname__ = "Abstract"
    Abstract.register(int)
    monkeypatch.setattr(sys.modules[__name__], "Abstract", Abstract, raising=False)
    arrived = rebuild({"types": [[__name__, "Abstract"]], "text": "it broke"})
    assert isinstance(arrived, Abstract) and isinstance(5, Abstract)
    assert not isinstance(5, type(arrived))


@each("name", sorted({*dir(RemoteError), "add_note", "_described"}))
def test_what_an_exception_has_from_python_or_from_us_is_never_replaced(name):
    described = describe(Plain("x"))
    described["attributes"] = {name: 5}
    described["members"] = {name: 5}
    arrived = rebuild(described, "p", b"t")
    assert isinstance(arrived, Plain) and getattr(arrived, name, None) != 5
    assert (arrived.peer, arrived.tag, arrived.ran) == ("p", b"t", "yes")
    error = Plain("x")
    vars(error)[name] = 5
    assert getattr(raised(error), name, None) != 5


@each("attributes", [
    {"__notes__": {"!range": [0, 10 ** 12, 1]}}, {"__notes__": "text"}, {"__notes__": [1, 2]},
    {"__notes__": {"!tuple": ["a"]}}, {"__notes__": ["a"] * 5000}, {"__notes__": 5},
])
@each("place", ["attributes", "members"])
def test_notes_that_are_none_are_left_out(attributes, place):
    text = json.dumps({"raised": {"types": [["builtins", "ValueError"]], "text": "told",
                                  place: attributes, "held": {"__notes__": [0, 0]}}}).encode()
    with pytest.raises(ValueError, match="told") as caught:
        messages.decode_reply(Frame(FAILURE, 1, True, text), None, None, b"")
    assert not hasattr(caught.value, "__notes__")
    assert len(printed(caught.value)) < 5000
    if hasattr(caught.value, "add_note"):
        caught.value.add_note("mine")
        assert "mine" in printed(caught.value)


@each("cls", ["NameError", "AttributeError", "ImportError", "UnboundLocalError"])
@each("name", [[1], {"a": 1}, 5, {"!set": []}, "\ud800"])
def test_names_that_are_none_do_not_keep_an_error_from_being_shown(cls, name):
    text = json.dumps({"raised": {"types": [["builtins", cls]], "text": "told",
                                  "members": {"name": name}}}).encode()
    try:
        messages.decode_reply(Frame(FAILURE, 1, True, text), None, None, b"")
    except RemoteError as error:
        assert "told" in printed(error)


# --------------------------------------------------------------------- whatever a library raises


@dataclasses.dataclass(frozen=True)
class Icy(Exception):
    code: int
    detail: Any = None


class Forbidding(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("read-only")


class ReadOnlyArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        return ("mine",)


class NeedsParts(Exception):
    def __new__(cls, one: Any, *, two: Any) -> Any:
        return super().__new__(cls, one)

    def __init__(self, one: Any, *, two: Any) -> None:
        self.two = two

    def __repr__(self) -> str:
        return f"NeedsParts(two={self.two.real})"

    def __str__(self) -> str:
        return f"needs {self.two.real}"

    def __reduce__(self) -> Any:
        raise TypeError("this is not pickled")

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self.two.missing)


class Unprintable:
    """What cannot travel, and is needed for a text."""

    real = 7


@each("error", [
    Icy(5), Icy(5, {"k": (1,)}), Forbidding("x"), ReadOnlyArgs("x"),
    NeedsParts("one", two=Unprintable())], ids=lambda error: type(error).__name__)
def test_classes_that_resist_arrive_as_they_were(error):
    arrived: Any = raised(error)
    for one in (arrived, raised(arrived), copy.copy(arrived), copy.deepcopy(arrived),
                pickle.loads(pickle.dumps(arrived))):
        assert isinstance(one, type(error)) and isinstance(one, RemoteError)
        assert (str(one), repr(one)) == (str(error), repr(error))
        assert failures.args_of(one) == failures.args_of(error)
    if isinstance(error, Icy):
        assert (arrived.code, arrived.detail) == (error.code, error.detail)
        with pytest.raises(dataclasses.FrozenInstanceError):
            arrived.code = 6


class Wrapping(Exception):
    """As urllib.error.HTTPError does it."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["wrapped"], name)


def test_an_error_whose_parts_did_not_travel_is_shown_all_the_same():
    for error in (Wrapping(io.StringIO("x")), urllib.error.HTTPError(
            "http://x", 404, "gone", None, io.BytesIO())):  # type: ignore[arg-type]
        arrived: Any = raised(error)
        assert isinstance(arrived, type(error)) and str(arrived) == str(error)
        assert str(error) in printed(arrived) and repr(arrived) == repr(error)
        with pytest.raises(AttributeError):
            arrived.getvalue
        error.close()
    assert raised(Wrapping(5)).real == 5


def test_what_an_application_adds_to_an_error_is_in_its_copies():
    arrived: Any = raised(OwnInit(5, extra=1))
    arrived.more = [1]
    vars(arrived)["__notes__"] = ["mine"]
    for copied in (copy.copy(arrived), copy.deepcopy(arrived), pickle.loads(pickle.dumps(arrived))):
        assert copied.more == [1] and copied.__notes__ == ["mine"] and copied.extra == 1
    assert copy.deepcopy(arrived).more is not arrived.more


def test_args_that_an_application_changes_change_the_text():
    arrived = raised(ValueError("x"))
    arrived.args = ("while reading: " + str(arrived),)
    assert str(arrived) == "while reading: x"
    arrived = raised(NoSuper(1, 2))
    arrived.args = ("other",)
    assert str(arrived) == "pair (1, 2)"


def final_classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """Classes of which nothing can be derived, as some written in C are."""
    original = failures.matching_class

    def refusing(known: type, name: Any, sent: Any) -> type:
        if known in (json.JSONDecodeError, ValueError):
            raise TypeError("type is not an acceptable base type")
        return original(known, name, sent)

    monkeypatch.setattr(failures, "matching_class", refusing)
    monkeypatch.setattr(failures, "is_of_the_data", lambda problem: True)
    yield json.JSONDecodeError


def test_a_class_that_is_final_gives_way_to_its_next_base(monkeypatch):
    cls, = final_classes(monkeypatch)
    arrived = raised(cls("bad", "{", 1))
    assert not isinstance(arrived, ValueError) and isinstance(arrived, RemoteError)
    assert type(arrived).__name__ == "JSONDecodeError" and "bad: line 1" in str(arrived)
    monkeypatch.setattr(failures, "matching_class", lambda *args: {}[1])
    arrived = raised(cls("bad", "{", 1))
    assert type(arrived) is RemoteError and "bad: line 1" in str(arrived)


# ---------------------------------------------------------------------------- causes and contexts


def chained() -> BaseException:
    def fail() -> None:
        try:
            try:
                {}["first"]
            except KeyError as problem:
                raise OwnInit(2, extra="second") from problem
        except OwnInit:
            raise ValueError("third")

    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError


def test_causes_and_contexts_are_exceptions_again_over_several_hops():
    for arrived in (raised(chained()), raised(raised(chained())),
                    pickle.loads(pickle.dumps(raised(chained()))), copy.copy(raised(chained()))):
        assert arrived.__cause__ is None and not arrived.__suppress_context__
        second: Any = arrived.__context__
        assert isinstance(second, OwnInit) and second.extra == "second"
        assert isinstance(second, RemoteError)
        assert (second.peer, second.tag) == ("127.0.0.1:1", b"dGFn")
        first = second.__cause__
        assert isinstance(first, KeyError) and first.args == ("first",)
        assert second.__context__ is first
        assert isinstance(pickle.loads(pickle.dumps(second)).__cause__, KeyError)


def test_exceptions_that_an_exception_holds_are_exceptions_again():
    inner = OwnInit(3, extra="inner")
    error: Any = OwnInit(5, extra=inner)
    error.args = ("first", inner, [KeyError("a"), inner])
    error.several, error.mixed, error.myself = (inner, ValueError("b")), [inner, 5], error
    slotted: Any = Slotted(7)
    slotted.code = inner
    for arrived in (raised(error), raised(raised(error)), copy.copy(raised(error)),
                    copy.deepcopy(raised(error)), pickle.loads(pickle.dumps(raised(error)))):
        assert isinstance(arrived.extra, OwnInit) and arrived.extra.extra == "inner"
        assert isinstance(arrived.extra, RemoteError)
        assert arrived.args[0] == "first" and arrived.args[1] is arrived.extra
        assert isinstance(arrived.args[2][0], KeyError) and arrived.args[2][1] is arrived.extra
        assert type(arrived.several) is tuple and arrived.several[0] is arrived.extra
        assert arrived.myself.extra is arrived.extra and not hasattr(arrived, "mixed")
        assert str(arrived) == str(error)
    assert isinstance(raised(slotted).code, OwnInit)
    arrived = raised(error)
    arrived.extra = 1
    assert copy.copy(arrived).extra == 1


@each("part", [
    {"held": {"a": 5}}, {"held": {"a": -1}}, {"held": {"a": [0, 5]}}, {"held": {"a": "x"}},
    {"held": [1]}, {"held": {"a": [[0]]}}, {"in_args": [[0, 5]]}, {"in_args": [[5, 0]]},
    {"in_args": [[-1, 0]]}, {"in_args": [[0]]}, {"in_args": {"a": 1}}, {"in_args": [[0, None]]},
])
def test_places_of_exceptions_that_there_are_not_are_refused(part):
    with pytest.raises(ValueError):
        rebuild({"types": [["builtins", "ValueError"]], "text": "x", "args": ["x"], "repr": "x",
                 **part})


def test_a_context_that_is_not_to_be_shown_is_not():
    try:
        try:
            {}["first"]
        except KeyError:
            raise ValueError("second") from None
    except ValueError as problem:
        error = problem
    arrived = raised(error)
    assert arrived.__suppress_context__ and isinstance(arrived.__context__, KeyError)
    assert "During handling" not in printed(arrived)


def test_an_error_that_nobody_catches_names_the_peer_above_all_that_led_to_it():
    text = printed(raised(chained()))
    assert text.startswith("net.RemoteTraceback: on the peer 127.0.0.1:1\n\nTraceback ")
    assert text.index("{}[\"first\"]") < text.index("direct cause") < text.index("During handling")
    assert text.rstrip().endswith("ValueError: third")
    for peer, shown in ((b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==", "127.0.0.1:3010"),
                        (("::1", 3010), "[::1]:3010"), (5, "on the peer 5")):
        assert shown in printed(rebuild(describe(ValueError("x")), peer))


def test_causes_stay_when_an_error_is_raised_while_another_is_handled():
    arrived = rebuild(describe(chained()), "p", b"t")
    second = arrived.__context__
    handled = None
    with pytest.raises(ValueError, match="third") as caught:
        try:
            1 / 0
        except ZeroDivisionError as error:
            handled = error
            failures.throw(arrived)
    assert caught.value is arrived and arrived.__context__ is second
    assert second.__context__.__context__ is handled
    with pytest.raises(ValueError, match="x") as caught:
        try:
            1 / 0
        except ZeroDivisionError as error:
            handled = error
            failures.throw(raised(ValueError("x")))
    there = caught.value.__context__  # it was raised while another was handled there, too
    assert there.__context__ is handled and handled.__context__ is None


def test_exceptions_that_lead_to_each_other_come_to_an_end():
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__context__ = two, one
    arrived = raised(one)
    assert isinstance(arrived.__cause__, KeyError)
    assert arrived.__cause__.__context__ is None
    printed(arrived)
    many: BaseException = ValueError("first")
    for number in range(1000):
        later = ValueError(number)
        later.__context__ = many
        many = later
    arrived = raised(many)
    for number in range(failures.MAX_GROUP):
        arrived = arrived.__context__
    assert isinstance(arrived, ValueError)


@each("related", [
    [{"cause": 0}], [{"cause": 1}], [{"context": 1}], [{"context": 0, "cause": 0}],
    [{"cause": 2}, {"cause": 1}], [{"cause": -1}], [{"cause": 10 ** 9}],
    [{"cause": 2}, {"context": 3}, {"cause": 1}],
])
def test_causes_from_the_wire_make_no_circle(related):
    plain = {"types": [["builtins", "ValueError"]], "text": "x"}
    arrived: Any = rebuild({**plain, "cause": 1, "context": 1,
                            "related": [{**plain, **part} for part in related]})
    seen = []
    while arrived is not None:
        assert arrived not in seen
        seen.append(arrived)
        arrived = arrived.__cause__ or arrived.__context__
    printed(seen[0])


def test_groups_for_older_pythons_arrive_with_what_is_in_them():
    groups = pytest.importorskip("exceptiongroup")
    arrived = raised(groups.ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert isinstance(arrived, groups.ExceptionGroup)
    assert isinstance(arrived.exceptions[1], KeyError) and "several" in str(arrived)
    printed(arrived)


@pytest.mark.skipif(GROUP is None, reason="no groups in this Python")
def test_a_graph_of_groups_takes_no_time_at_all():
    group: Any = ValueError("core")
    for _ in range(8):
        group = GROUP("many", [group] * 100)
    started = time.thread_time()
    arrived: Any = raised(group)
    assert time.thread_time() - started < patience(2)
    assert isinstance(arrived, GROUP) and str(arrived) == str(group)
    assert len(arrived.exceptions) == 100 and arrived.exceptions[0] is arrived.exceptions[99]
    assert "ExceptionGroup: many (100 sub-exceptions)" in arrived.traceback


@pytest.mark.skipif(GROUP is None, reason="no groups in this Python")
@each("wide", [2, 15, 100])
def test_groups_that_hold_each_other_many_times_are_shown_in_no_time(wide):
    """Python writes out an exception for each way to it, of which there were 2 ** 99."""
    group = {"types": [["builtins", "ExceptionGroup"], ["builtins", "Exception"]], "text": "x",
             "args": ["x"]}
    described = {**group, "exceptions": [1] * wide, "related": [
        *[{**group, "exceptions": [place] * wide, "cause": place} for place in range(2, 100)],
        {"types": [["builtins", "ValueError"]], "text": "core"}]}
    error: Any = rebuild(described)
    started = time.thread_time()
    shown = printed(error) + repr(error)
    assert error.split(KeyError)[0] is None
    assert time.thread_time() - started < patience(5)
    assert len(shown) < 20_000_000 and len(error.exceptions) == wide
    assert "more exceptions than can be shown" in shown


@each("more", [{}, {"repr": "sent"}])
def test_exceptions_that_are_arguments_of_each_other_are_shown_in_no_time(more):
    def held(number: int) -> dict:
        return {"types": [["builtins", "ValueError"]], "text": "x", "args": [0, 0], **more,
                "in_args": [[0, number], [1, [number, number]]]}

    error = rebuild({**held(1), "related": [*map(held, range(2, 40)), {
        "types": [["builtins", "ValueError"]], "text": "core"}]})
    assert len(repr(error)) < 100
    assert isinstance(error.args[0], ValueError) == bool(more)


@pytest.mark.skipif(GROUP is None, reason="no groups in this Python")
def test_the_exceptions_of_a_group_are_never_replaced():
    core = {"types": [["builtins", "ValueError"]], "text": "core"}
    error: Any = rebuild({"types": [["builtins", "ExceptionGroup"]], "text": "x", "args": ["x"],
                          "repr": "x", "exceptions": [1], "in_args": [[0, 1], [1, 1]],
                          "related": [core]})
    assert error.args == ("x", list(error.exceptions))


@pytest.mark.skipif(GROUP is None, reason="no groups in this Python")
def test_a_group_that_is_in_itself_is_refused():
    plain = {"types": [["builtins", "ExceptionGroup"], ["builtins", "Exception"]], "text": "x"}
    for described in ({**plain, "exceptions": [0]}, {**plain, "exceptions": [1], "related": [
            {**plain, "exceptions": [0]}]}, {**plain, "exceptions": [5]}):
        with pytest.raises(ValueError):
            rebuild(described)


# --------------------------------------------------------------------- every place of a description


@each("place", [
    "@", '{"types":@,"text":"x"}', '{"types":[@],"text":"x"}', '{"types":[[@,"a"]],"text":"x"}',
    '{"types":[["builtins",@]],"text":"x"}', '{"types":T,"text":@}',
    *[f'{{"types":T,"text":"x","{name}":@}}' for name in (
        "args", "members", "attributes", "traceback", "repr", "exceptions", "related", "cause",
        "context")],
    '{"types":T,"text":"x","related":[@]}', '{"types":T,"text":"x","exceptions":[@]}',
])
def test_where_a_list_or_a_text_of_a_description_is_due_nothing_else_is_taken(place):
    """An error reply of 92 bytes once took 3.3 GB in the caller."""
    for name, intruder in INTRUDERS.items():
        described = place.replace("T", '[["builtins","ValueError"]]').replace("@", intruder)
        text = f'{{"raised":{described}}}'.encode()
        with Peak() as peak:
            try:
                messages.decode_reply(Frame(FAILURE, 1, True, text, [BUFFER]), None, None, b"")
            except (net.ProtocolError, net.ValueNotSupported):
                pass
            except RemoteError:
                assert name in SAME
        assert peak.bytes < 300_000, name
