"""connect, flag and value: every form of use, and what they refuse."""
from __future__ import annotations

import copy
import functools
import inspect
import operator
import pickle
import pydoc
import sys
import warnings
from typing import Any, Iterator

import pytest

import net
from net import decorators
from net.decorators import handle_flag, is_connected, register
from net.errors import InvalidConnection, InvalidPeer, RemoteError, ValueNotSupported
from net.identity import Flag, Place, encode_text, make_id
from net.peer import _Peer
from net.run.client import Pool
from net.wire.messages import encode_result
from each import each
from travel import joined, read_frame


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for name in ("CONNECTIONS", "FLAGS", "GROUPS"):
        monkeypatch.setattr(_Peer, name, dict(getattr(_Peer, name)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """What would have been sent to a peer; each gives "remote"."""
    sent: list = []

    def run(handle_flag: Any, peer: Any, tag: bytes, args: tuple, kwargs: dict,
            timeout: Any) -> Any:
        sent.append((peer, tag, args, kwargs, timeout))
        return "remote"

    monkeypatch.setattr(decorators.process.client, "run", run)
    yield sent


def own_tag(name: str) -> bytes:
    return encode_text(f"{__name__}.{name}")


# ------------------------------------------------------------------------------ every form


def test_processes_that_list_a_peer_hear_of_what_is_registered_and_taken_back(monkeypatch):
    told = []
    monkeypatch.setattr(net.peer.process, "change_hooks", [lambda: told.append(1)])
    monkeypatch.setattr("net.peer.process.peer", type("Peer", (), {"launched": True}))
    function = net.connect("told")(lambda: None)
    assert len(told) == 1
    net.disconnect(function)
    assert len(told) == 2


def test_all_methods_of_an_object_are_taken_back_whatever_their_names():
    class Lamp:
        def on(self):
            return "lit"

        def off(self):
            return "dark"
    before = dict(_Peer.CONNECTIONS)
    lamp = net.connect("unit lamp")(Lamp())
    assert lamp["on"]() == "lit" and lamp.off() == "dark"
    assert [name for name in dir(lamp) if name == "on"] == ["on"]
    net.disconnect(lamp)
    assert _Peer.CONNECTIONS == before


def test_it_is_used_with_and_without_parentheses_and_with_a_tag():
    @net.connect
    def bare(a):
        return a

    @net.connect()
    def called(a):
        return a

    @net.connect("Tag")
    def tagged(a):
        return a

    @net.connect(tag="Other")
    def named(a):
        return a

    @net.connect(None)
    def nothing(a):
        return a

    for function, tag in [(bare, own_tag("bare")), (called, own_tag("called")),
                          (tagged, b"VGFn"), (named, encode_text("Other")),
                          (nothing, own_tag("nothing"))]:
        assert function.tag == tag
        assert _Peer.CONNECTIONS[tag] is function.__wrapped__
        assert function(5) == 5 and is_connected(function)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_may_name_what_is_defined_later():
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile("def early(x: Later): return x", "early", "exec", dont_inherit=True), namespace)
    connected = net.connect("early")(namespace["early"])
    assert connected.__annotations__["x"].__forward_arg__ == "Later"
    assert connected.on(("127.0.0.1", 1)).__annotations__.keys() == {"x"}


def test_a_connected_function_looks_like_the_function():
    def function(a: int, b: str = "x", *args: Any, key: bool = False, **more: Any) -> str:
        """What it does."""
        return b

    function.attribute = 5  # type: ignore[attr-defined]
    connected = net.connect(function)
    assert connected.__wrapped__ is function
    for name in ("__name__", "__qualname__", "__module__", "__annotations__"):
        assert getattr(connected, name) == getattr(function, name)
    assert connected.attribute == 5
    assert inspect.signature(connected) == inspect.signature(function)
    assert inspect.signature(connected.on("192.0.2.1:1")) == inspect.signature(function)
    assert connected.on("192.0.2.1:1").__name__ == "function"
    assert connected.on("192.0.2.1:1").__doc__ == "What it does."


def test_repr_and_help_say_that_a_function_is_connected():
    @net.connect("Tag")
    def multiply(a, b=2):
        """Multiply
        two numbers."""

    for text in (repr(multiply), pydoc.render_doc(multiply, renderer=pydoc.plaintext)):
        for said in ("connected", "'Tag'", "multiply(..., peer=p)", "multiply.on(p"):
            assert said in text or said.capitalize() in text
    shown = pydoc.render_doc(multiply, renderer=pydoc.plaintext)
    assert "multiply(a, b=2)" in shown and "Multiply\n    two numbers." in shown
    assert repr(multiply.on("192.0.2.1:1")) == "<'Tag' on '192.0.2.1:1'>"


def test_what_has_no_name_or_docstring_of_its_own_can_be_shown_too():
    connected = net.connect("part")(functools.partial(operator.mul, 2))
    assert "'part'" in repr(connected) and "'part'" in connected.__doc__
    assert net.connect("none")(lambda: 1).__doc__.startswith("Connected with app-net as 'none'")


def pickled(a):
    return a


pickled = register(pickled, "pickled")  # type: ignore[assignment]


def test_a_connected_function_is_pickled_and_copied_as_a_function_is(calls, monkeypatch):
    for again in (pickle.loads(pickle.dumps(pickled)), copy.copy(pickled), copy.deepcopy(pickled)):
        assert again is pickled
    monkeypatch.setattr(pickled, "there", lambda *call: calls.append(call))
    pickle.loads(pickle.dumps(pickled.on("192.0.2.1:1", 2.0)))(5)
    assert calls == [("192.0.2.1:1", encode_text("pickled"), (5,), {}, 2.0)]
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(net.connect("nested")(lambda: 1))


def test_a_connected_function_becomes_a_method_as_a_function_does():
    class Tool:
        name = "x"

    Tool.show = net.connect("show")(lambda tool: tool.name)  # type: ignore[attr-defined]
    assert Tool().show() == "x" and Tool.show(Tool()) == "x"  # type: ignore[attr-defined]


def test_a_local_call_is_a_plain_pass_through(calls):
    @net.connect
    def function(*args, **kwargs):
        return args, kwargs

    value = object()
    assert function(value, key=value) == ((value,), {"key": value})
    with pytest.raises(ZeroDivisionError):
        net.connect("Failing")(lambda: 1 / 0)()
    assert calls == []


def test_a_call_with_a_peer_goes_there(calls):
    @net.connect("Tag")
    def function(a, b=2):
        raise AssertionError("it runs there")

    assert function(1, b=3, peer="192.0.2.1:3010") == "remote"
    assert function.on("192.0.2.1:3010")(1) == "remote"
    assert function.on("192.0.2.1:3010", 2.5)(1, b=2) == "remote"
    assert function.on(("192.0.2.1", 3010), timeout=1)() == "remote"
    assert calls == [
        ("192.0.2.1:3010", b"VGFn", (1,), {"b": 3}, None),
        ("192.0.2.1:3010", b"VGFn", (1,), {}, None),
        ("192.0.2.1:3010", b"VGFn", (1,), {"b": 2}, 2.5),
        (("192.0.2.1", 3010), b"VGFn", (), {}, 1),
    ]


def test_a_function_with_a_peer_of_its_own_is_called_with_on(calls):
    @net.connect
    def greet(name, peer="me"):
        return f"{name} and {peer}"

    assert greet("x") == "x and me" and greet("x", "you") == "x and you"
    greet.on("192.0.2.1:1")("x", peer="you")
    greet("x", peer="192.0.2.1:1")  # on the call it is always ours
    assert [sent[2:4] for sent in calls] == [(("x",), {"peer": "you"}), (("x",), {})]


@each("peer", [None, "", b"", 0, False, [], (), {}, "nobody", b"nobody", ("h",),
               ("h", 0), object(), 3010], ids=repr)
def test_what_is_no_peer_is_refused_before_anything_is_sent(peer):
    with pytest.raises(InvalidPeer):
        net.null(peer=peer)
    with pytest.raises(InvalidPeer):
        net.null.on(peer)
    with pytest.raises(InvalidPeer, match="leave peer out"):
        net.null(peer=None)


@each("timeout", [0, -1, -0.5, float("nan"), float("-inf")])
def test_a_timeout_that_is_not_above_zero_is_refused(timeout):
    with pytest.raises(ValueError, match="above 0"):
        net.null.on("192.0.2.1:1", timeout)


@pytest.mark.parametrize("timeout", ["5", [], object()])
def test_a_timeout_that_is_no_number_is_refused(timeout):
    with pytest.raises(TypeError, match="a timeout is a number of seconds, not"):
        net.null.on("192.0.2.1:1", timeout)


def test_the_hint_at_on_comes_with_a_class_that_forbids_its_arguments_to_be_set(monkeypatch):
    class Strict(RemoteError, TypeError):
        args = property(lambda error: ("render() got an unexpected keyword argument 'timeout'",))

    def run(*_: Any) -> Any:
        raise Strict("render() got an unexpected keyword argument 'timeout'")

    monkeypatch.setattr(decorators.process.client, "run", run)

    def render() -> None:
        pass

    with pytest.raises(Strict) as caught:
        register(render)(peer="192.0.2.1:1", timeout=1)
    assert "render.on('192.0.2.1:1', timeout=1)" in BaseException.__str__(caught.value)


# --------------------------------------------------------------------- what can be connected


def test_static_methods_can_be_connected_in_both_orders(calls):
    class Tools:
        @staticmethod
        @net.connect("inner")
        def inner(a):
            return a + 1

        @net.connect("outer")
        @staticmethod
        def outer(a):
            return a + 2

    assert Tools.inner(1) == Tools().inner(1) == 2
    assert Tools.outer(1) == Tools().outer(1) == 3
    for name in ("inner", "outer"):
        method = getattr(Tools, name)
        assert _Peer.CONNECTIONS[encode_text(name)](1) == method(1)
        assert method(1, peer="192.0.2.1:1") == "remote"
        assert list(inspect.signature(method).parameters) == ["a"]


def test_lambdas_builtins_and_callables_can_be_connected():
    class Doubler:
        def __call__(self, a):
            return 2 * a

    class Named(Doubler):
        __name__ = "named"

    assert net.connect(lambda a: a)(3) == 3
    assert _Peer.CONNECTIONS[own_tag("<lambda>")](3) == 3
    assert net.connect(len)([1, 2]) == 2
    assert _Peer.CONNECTIONS[encode_text("builtins.len")] is len
    assert net.connect(operator.mul)(2, 3) == 6
    assert net.connect("double")(Doubler())(4) == 8
    assert net.connect(Named())(4) == 8 and own_tag("named") in _Peer.CONNECTIONS
    assert net.connect("part")(functools.partial(operator.mul, 2))(5) == 10
    assert net.connect([].append)(1) is None
    assert encode_text("builtins.list.append") in _Peer.CONNECTIONS
    assert net.connect("bound")("abc".upper)() == "ABC"


def test_what_has_no_name_needs_a_tag():
    for thing in (functools.partial(len), type("Callable", (), {"__call__": lambda self: 1})()):
        with pytest.raises(TypeError, match=r"give it a tag: net.connect\('Tag'\)"):
            net.connect(thing)
        net.connect("its tag")(thing)
        _Peer.CONNECTIONS.pop(encode_text("its tag"))


async def coroutine():
    pass


def generator():
    yield


async def async_generator():
    yield


class AsyncCallable:
    async def __call__(self):
        pass


class GeneratorCallable:
    def __call__(self):
        yield


@each("thing", [
    int, object, AsyncCallable, type, 5, [], object(), b"Tag", ("Tag",), property(len),
    classmethod(len), staticmethod(5), NotImplemented, 1.5, True,
], ids=lambda thing: repr(thing)[:40])
def test_anything_else_is_a_clear_type_error(thing):
    before = dict(_Peer.CONNECTIONS)
    with pytest.raises(TypeError) as caught:
        net.connect(thing)
    assert len(str(caught.value)) > 20
    with pytest.raises(TypeError):
        net.connect("Tag")(thing)
    assert _Peer.CONNECTIONS == before


def test_an_empty_tag_is_refused():
    with pytest.raises(TypeError, match="empty"):
        net.connect("")(len)


# ------------------------------------------------------------------------- registered twice


def test_a_tag_that_is_registered_twice_warns_at_the_line_of_the_user():
    def first():
        return 1

    def second():
        return 2

    net.connect("Twice")(first)
    uses = [lambda: net.connect("Twice")(second), lambda: net.connect(tag="Twice")(first),
            lambda: net.connect("Twice")(staticmethod(second))]
    for use in uses:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            use()
        (warning,) = caught
        assert warning.category is RuntimeWarning
        assert "'Twice' is registered again" in str(warning.message)
        assert warning.filename == __file__
        assert warning.lineno == use.__code__.co_firstlineno
    assert _Peer.CONNECTIONS[encode_text("Twice")] is second


def test_a_function_without_a_tag_that_is_defined_again_warns_at_its_line():
    def define():
        @net.connect
        def again():
            pass
        return again

    define()
    with pytest.warns(RuntimeWarning, match="again") as caught:
        define()
    assert caught[0].filename == __file__
    first = define.__code__.co_firstlineno
    assert first < caught[0].lineno <= first + 3


CELL = """
@net.connect
def cell(a):
    return {number}

class Scope:
    @staticmethod
    @net.connect
    def read():
        return {number}

@net.connect("tagged cell")
def tagged(a):
    return {number}
"""


def test_a_cell_that_is_run_again_or_a_module_that_is_reloaded_replaces_in_silence():
    space = {"net": net, "__name__": "notebook"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in (1, 2):
            exec(CELL.format(number=number), space)
    for name in ("notebook.cell", "notebook.Scope.read", "tagged cell"):
        function = _Peer.CONNECTIONS[encode_text(name)]
        assert function(*[0] * function.__code__.co_argcount) == 2


@pytest.mark.parametrize("again", [
    "net.connect('cell')(lambda: 1)", "net.connect('cell')(print)",
    "exec(CELL, {'net': net, '__name__': 'another'})", "net.connect('cell')(Tool().cell)",
])
def test_any_other_function_that_takes_a_used_tag_warns(again):
    class Tool:
        def cell(self):
            pass

    cell = "@net.connect('cell')\ndef cell(): pass"
    exec(cell, {"net": net, "__name__": "notebook"})
    with pytest.warns(RuntimeWarning, match="'cell' is registered again.*Tags of their own"):
        exec(again, {"net": net, "CELL": cell, "Tool": Tool})


def test_closures_and_lambdas_of_one_name_warn():
    def closure(value):
        def inner():
            return value
        return inner

    for first, second in [(closure(1), closure(2)), (lambda: 1, lambda: 2)]:
        net.connect(first)
        with pytest.warns(RuntimeWarning, match=r"net.connect\('Tag'\)"):
            net.connect(second)


def test_functions_of_two_classes_never_answer_for_each_other():
    class A:
        @staticmethod
        @net.connect
        def run():
            return "A"

        class Inner:
            @net.connect
            @staticmethod
            def run():
                return "inner"

    class B:
        @staticmethod
        @net.connect
        def run():
            return "B"

    assert _Peer.CONNECTIONS[own_tag("A.run")]() == "A"
    assert _Peer.CONNECTIONS[own_tag("A.Inner.run")]() == "inner"
    assert _Peer.CONNECTIONS[own_tag("B.run")]() == "B" and B.run.tag == own_tag("B.run")


def test_the_methods_of_an_object_can_be_connected(calls):
    class Scope:
        def __init__(self, name):
            self.name = name

        def read(self, channel):
            return self.name, channel

    first, second = Scope("first"), Scope("second")
    read = net.connect(first.read)
    assert read.tag == own_tag("Scope.read") and read(5) == ("first", 5)
    assert _Peer.CONNECTIONS[read.tag](5) == ("first", 5)
    assert read(5, peer="192.0.2.1:1") == "remote"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.connect(first.read)
    with pytest.warns(RuntimeWarning, match="registered again"):
        net.connect(second.read)
    assert net.connect("second.read")(second.read)(5) == ("second", 5)


def test_a_method_without_its_object_is_refused_with_the_way():
    for decorate in (net.connect, net.connect("Tag"), net.connect(groups=["render"])):
        with pytest.raises(TypeError, match=r"Scope.read is a method, .* no self; .*tool.read\)"):
            class Scope:
                @decorate
                def read(self, channel):
                    pass
    with pytest.raises(TypeError, match="no cls"):
        class Other:
            @net.connect
            def make(cls):
                pass
    assert encode_text("Tag") not in _Peer.CONNECTIONS


def test_a_function_that_takes_something_named_self_is_no_method():
    def around():
        def function(self):
            return self
        return function

    assert net.connect("function")(around())(5) == 5
    exec("@net.connect\ndef function(self): pass", {"net": net, "__name__": "some"})


def test_the_same_function_registered_again_is_no_matter():
    def function():
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.connect("Same")(function)
        net.connect("Same")(function)
        net.connect("Same")(net.connect("Same")(function))


def test_one_function_may_have_two_tags_and_is_itself_what_peers_call(calls):
    @net.connect("New")
    @net.connect("Old")
    def function(**kwargs):
        return kwargs

    for tag in ("New", "Old"):
        registered = _Peer.CONNECTIONS[encode_text(tag)]
        assert registered is function.__wrapped__ and not is_connected(registered)
        # No caller can make this peer call a third one.
        assert registered(peer="192.0.2.1:1") == {"peer": "192.0.2.1:1"}
    assert calls == [] and function.tag == encode_text("New")


def test_a_wrapper_around_a_connected_function_is_not_taken_for_one():
    connected = net.connect("Within")(lambda: 1)

    @functools.wraps(connected)
    def around():
        return connected() + 1

    assert not is_connected(around)
    assert net.connect("Around")(around)() == 2
    assert _Peer.CONNECTIONS[encode_text("Around")] is around


def test_registering_launches_nothing(monkeypatch):
    monkeypatch.setattr(decorators, "launch_by_decorator", lambda: 1 / 0)
    register(lambda: None, "quiet")
    with pytest.raises(ZeroDivisionError):
        net.connect("loud")(lambda: None)


# ----------------------------------------------------------------------------------- groups


def test_groups_are_kept_with_the_tag():
    net.connect("Grouped", groups=["a", "b"])(len)
    assert _Peer.GROUPS[encode_text("Grouped")] == {"a", "b"}
    net.connect("Grouped")(len)
    assert encode_text("Grouped") not in _Peer.GROUPS


@each("groups", ["render", [], [""], [5], [None], ()])
def test_groups_that_are_no_names_are_refused(groups):
    with pytest.raises(TypeError, match="groups is a list of names"):
        net.connect("Grouped", groups=groups)


# ------------------------------------------------------------------------------------ flags


def test_the_handler_of_a_flag_gives_the_result_of_a_call():
    @net.flag("DONE")
    def done(tag, peer):
        return tag, peer

    @net.connect("Working")
    def work():
        return net.Peer().get_flag("DONE")

    assert work() == (encode_text("Working"), net.Peer().friendly_id)


def test_a_flag_that_came_from_a_peer_is_handled_with_that_peer(monkeypatch):
    flag = Flag(encode_text("DONE"), {"a": 1})
    monkeypatch.setattr(Pool, "exchange", lambda pool, message, number, *_: read_frame(
        joined(encode_result(number, flag))))
    net.flag("DONE")(lambda tag, peer, details: (tag, peer, details))
    function = register(lambda: 1, "Working")
    wanted = (encode_text("Working"), "192.0.2.1:1", {"a": 1})
    assert function(peer="192.0.2.1:1") == wanted
    assert function.on("192.0.2.1:1")() == wanted


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, tag):
        return (tag,)


@each("handler, count", [
    (lambda: (), 0),
    (lambda tag: (tag,), 1),
    (lambda tag, peer: (tag, peer), 2),
    (lambda tag, peer, details: (tag, peer, details), 3),
    (lambda tag, peer, details, more=None: (tag, peer, details), 3),
    (lambda tag, peer=None: (tag, peer), 2),
    (lambda *args: args, 3),
    (lambda tag, *args: (tag, *args), 3),
    (lambda tag, *, key=None: (tag,), 1),
    (lambda **kwargs: (), 0),
    (functools.partial(lambda first, tag: (tag,), 0), 1),
    (Unhashable(), 1),
], ids=str)
def test_a_handler_gets_as_many_arguments_as_it_takes(handler, count):
    net.flag("COUNTED")(handler)
    flag = Flag(encode_text("COUNTED"), "details")
    for _ in range(2):
        assert handle_flag(flag, b"tag", "192.0.2.1:1") == \
            (b"tag", "192.0.2.1:1", "details")[:count]


PLACE = ("192.0.2.1", 3010)


@each("peer", [make_id(3010, PLACE[0]), bytes(make_id(3010, PLACE[0])),
               make_id(3010, PLACE[0]).decode(), PLACE, Place(PLACE)], ids=repr)
def test_a_handler_of_an_older_program_is_told_who_was_called(peer):
    # As it was written for 0.4, and for 0.6.
    net.flag("BY_NAME")(lambda connection, peer: f"{peer['host']}:{peer['port']} "
                                                 f"{sorted(dict(peer))}")
    net.flag("BY_ATTRIBUTE")(lambda connection, peer: (peer.host, peer.port, peer.group))
    net.flag("SELF")(lambda connection, peer: peer)
    assert handle_flag(Flag(encode_text("BY_NAME")), b"tag", peer) == \
        "192.0.2.1:3010 ['group', 'host', 'port']"
    assert handle_flag(Flag(encode_text("BY_ATTRIBUTE")), b"tag", peer) == (*PLACE, None)
    given = handle_flag(Flag(encode_text("SELF")), b"tag", peer)
    assert given == (peer.encode() if type(peer) is str else peer)
    with pytest.raises(KeyError):
        given["user"]
    if given == PLACE:
        host, port = given
        assert isinstance(given, tuple) and (host, port) == (given[0], given[1]) == PLACE
        assert net.pass_through(given, peer=net.Peer()) == PLACE
    else:
        assert given[0] == given[:1][0] == ord("M")


def test_after_a_local_call_it_is_told_about_this_process():
    net.flag("HERE")(lambda connection, peer: (peer["host"], peer.port, peer.hub, peer.group,
                                               peer["user"]))
    own = net.Peer().friendly_id
    assert handle_flag(Flag(encode_text("HERE")), b"tag", None) == \
        (own["host"], own["port"], False, None, own["user"])
    # The errors of app-net itself name what was given.
    with pytest.raises(InvalidConnection) as caught:
        handle_flag(Flag(encode_text("INVALID_CONNECTION")), encode_text("a"), None)
    assert caught.value.peer is None


def test_a_flag_that_is_defined_again_takes_the_place_of_the_old_one():
    net.flag("AGAIN")(lambda: 1)
    net.flag("AGAIN")(lambda: 2)
    assert handle_flag(Flag(encode_text("AGAIN")), b"", None) == 2


def test_the_handler_itself_stays_as_it_is():
    def handler():
        pass

    assert net.flag("PLAIN")(handler) is handler
    assert _Peer.FLAGS[encode_text("PLAIN")] is handler


def test_only_a_flag_is_a_flag():
    for value in ("TlVMTA==", b"TlVMTA==", bytearray(b"TlVMTA==")):
        assert register(lambda: value, "Value")() is value  # noqa: B023
        _Peer.CONNECTIONS.pop(encode_text("Value"))


def test_a_flag_that_nobody_defined_here_is_an_error_that_names_it():
    with pytest.raises(ValueNotSupported, match="'UNKNOWN' is not defined in this") as caught:
        handle_flag(Flag(encode_text("UNKNOWN")), b"", "192.0.2.1:1")
    assert caught.value.ran == "yes"


@each("name", ["", None, 5, b"DONE", len])
def test_a_flag_has_a_name(name):
    with pytest.raises(TypeError, match="a flag has a name"):
        net.flag(name)


def test_a_handler_can_be_called():
    with pytest.raises(TypeError, match="handler of a flag is a function"):
        net.flag("DONE")(5)


def test_an_unknown_connection_raises_with_what_was_asked():
    with pytest.raises(InvalidConnection) as caught:
        handle_flag(Flag(encode_text("INVALID_CONNECTION"), ["a.near"]), encode_text("a.neer"),
                    "192.0.2.1:1")
    error = caught.value
    assert (error.name, error.tag, error.peer, error.near) == \
        ("a.neer", encode_text("a.neer"), "192.0.2.1:1", ("a.near",))


# -------------------------------------------------------------------- what was meant otherwise

def test_connecting_an_address_is_refused_with_what_calls_it():
    for address in ("127.0.0.1:3010", "::1:3010"):
        with pytest.raises(ValueError, match="opens no connection.*peer='"):
            net.connect(address)
    for peer in (net.Peer().id, ("127.0.0.1", 3010), b"x", net.Peer()):
        with pytest.raises(TypeError, match="opens no connection.*peer="):
            net.connect(peer)
    assert "has called no peer" in repr(net.connect("render1:3010"))
    assert "under its own name" in repr(net.connect())


def test_a_peer_may_be_the_object_that_net_peer_gives(calls):
    function = register(lambda: 1, "at home")
    assert function(peer=net.Peer()) == "remote" and function.on(net.Peer())() == "remote"
    assert [call[0] for call in calls] == [net.Peer(), net.Peer()]
