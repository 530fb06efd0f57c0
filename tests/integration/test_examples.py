"""The examples and tables of the first documentation, as they are printed there.

They are the contract of names, defaults and behaviour; only indentation was lost and is put back.
"""
from __future__ import annotations

import base64
import inspect
from pathlib import Path
from typing import Any, Callable, List

import pytest

import net
from net.peer import _Peer
from processes import PeerProcess, run_python

BASIC = """
import net

@net.connect
def my_function(some_arg, some_kwarg=5):
    return some_arg * some_kwarg
"""

BASIC_SESSION = """
>>> import net
>>> # run this function locally on this instance of python
>>> my_function(5, some_kwarg=10)
50
>>> # get all peers on the network
>>> for peer_id in net.get_peers():
...     # execute the same function but on other instances of python and return the results
...     print(my_function(5, some_kwarg=10, peer=peer_id))
...
50
"""

MULTIPLY = """
import net

# application code
@net.connect()
def multiply_values(val1, val2):
    return val1 * val2
"""

MULTIPLY_SESSION = """
>>> import net
>>>
>>> # get all net peers reachable on local host and the local area network.
>>> for peer_id in net.get_peers():
...     #
...     print(multiply_values(5, 10, peer=peer_id))
50
"""

TAGGED = """
import net

@net.connect()
def your_function(some_value):
    return some_value

@net.connect("MyTaggedFunction")
def your_tagged_function(some_value):
    return some_value
"""

TAGGED_SESSION = """
>>> peer_id, = net.get_peers()
>>> your_function({"some": ("value",)}, peer=peer_id)
{'some': ('value',)}
>>> your_tagged_function("some_value", peer=peer_id)
'some_value'
"""

#: Runs a session as it is printed, with the names of the main program, and says how it went.
DOCTEST = """
import doctest as _doctest
_test = _doctest.DocTestParser().get_doctest({session!r}, globals(), "session", "session", 0)
print("result", *_doctest.DocTestRunner().run(_test, clear_globs=False), flush=True)
"""


def play(process: PeerProcess, session: str) -> List[str]:
    """Run a session in a process; what it printed if something was not as printed."""
    process.execute(DOCTEST.format(session=session))
    lines: List[str] = []
    while not lines or not lines[-1].startswith("result"):
        lines.append(process.read_line(timeout=10))
    attempted = session.count(">>> ") - session.count(">>> #")
    return [] if lines == [f"result 0 {attempted}"] else lines


@pytest.mark.parametrize("application, session", [
    (BASIC, BASIC_SESSION), (MULTIPLY, MULTIPLY_SESSION), (TAGGED, TAGGED_SESSION),
], ids=["basic example", "a basic example", "tags"])
def test_an_example_runs_as_printed_in_each_of_two_processes(application, session, peer_process):
    first, second = peer_process(application), peer_process(application)
    assert play(first, session) == []
    assert play(second, session) == []


# ------------------------------------------------------------------------------------ renaming

@pytest.fixture
def version(tmp_path: Path, peer_process) -> Callable[[str, str], PeerProcess]:
    """A process that runs a version of the package ``app``, whose module holds some text."""
    def run(number: str, text: str) -> PeerProcess:
        package = tmp_path / f"version{number}" / "app"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "module.py").write_text(text)
        return peer_process(f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
                            f"import app.module")
    return run


def test_a_renamed_function_is_not_found_and_a_tagged_one_is(version):
    tagged = 'import net\n@net.connect("MyTaggedFunction")\ndef {}(value):\n    return value * 2\n'
    plain = "import net\n@net.connect()\ndef {}(value):\n    return value * 2\n"
    first = version("1", plain.format("function") + tagged.format("with_tag"))
    second = version("2", plain.format("function2") + tagged.format("with_tag2"))
    first.execute(f"""
        try:
            app.module.function(21, peer={second.id!r})
        except _net.InvalidConnection as error:
            print(error.name, "near", *error.near, flush=True)
        print(app.module.with_tag(21, peer={second.id!r}), flush=True)
    """)
    assert first.read_line() == "app.module.function near app.module.function2"
    assert first.read_line() == "42"


# -------------------------------------------------------------------------------------- events

SUBSCRIBERS = {
    "group1 peers only": """
        group1_peers = net.peers(groups=['group1'])

        @net.subscribe("some_event", group1_peers)
        def your_function(subscription_args, subscription_kwarg=None):
            print(subscription_args, subscription_kwarg, flush=True)
    """,
    "a single peer": """
        peer = net.peers()[0]

        @net.subscribe("some_event", peer)
        def your_function(subscription_args, subscription_kwarg=None):
            print(subscription_args, subscription_kwarg, flush=True)
    """,
    "all peers": """
        @net.subscribe("some_event")
        def your_function(subscription_args, subscription_kwarg=None):
            print(subscription_args, subscription_kwarg, flush=True)
    """,
}


@pytest.mark.parametrize("subscriber", SUBSCRIBERS.values(), ids=SUBSCRIBERS.keys())
def test_a_subscriber_as_printed_hears_an_event(subscriber, peer_process):
    publisher = peer_process("import net", NET_GROUP="group1")
    process = peer_process("import net")
    process.execute(subscriber)
    process.execute("print('subscribed', flush=True)")
    assert process.read_line(timeout=10) == "subscribed"
    publisher.execute("""
        import time
        for number in range(200):
            if _net.Peer().SUBSCRIPTIONS.get("some_event"):
                break
            time.sleep(0.02)

        @_net.event("some_event")
        def trigger():
            return ["forwarded"], {"subscription_kwarg": ("as", "they", "are")}

        trigger()
    """)
    assert process.read_line(timeout=10) == "forwarded ('as', 'they', 'are')"


# ------------------------------------------------------------------------------------ functions

def test_the_calls_of_peers_work_as_printed(peer_process):
    in_group = peer_process("import net", NET_GROUP="group1")
    without = peer_process("import net")
    asking = peer_process("import net")
    asking.execute("""
        all_peers = _net.peers()
        print(*sorted(peer.decode() for peer in all_peers), flush=True)
        all_peers = _net.peers(refresh=True)
        print(*sorted(peer.decode() for peer in all_peers), flush=True)
        all_peers = _net.peers("group1", refresh=True)
        print(*all_peers and [peer.decode() for peer in all_peers], flush=True)
    """)
    both = " ".join(sorted((in_group.id.decode(), without.id.decode())))
    assert asking.read_line(timeout=10) == both
    assert asking.read_line(timeout=10) == both
    assert asking.read_line(timeout=10) == in_group.id.decode()


# ----------------------------------------------------------------------------- peer and defaults

def test_the_tables_of_the_peer_hold_what_is_printed():
    connections = {
        b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLm51bGw=": "null",
        b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLmluZm8=": "info",
        b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnBhc3NfdGhyb3VnaA==": "pass_through",
        b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnN1YnNjcmlwdGlvbl9oYW5kbGVy": "subscription_handler",
    }
    flags = {b"SU5WQUxJRF9DT05ORUNUSU9O": "invalid_connection", b"TlVMTA==": "null_response"}
    assert {tag: _Peer.CONNECTIONS[tag].__name__ for tag in connections} == connections
    assert {flag: _Peer.FLAGS[flag].__name__ for flag in flags} == flags
    assert isinstance(_Peer.SUBSCRIPTIONS, dict)
    handlers = net.defaults.handlers
    assert all(callable(getattr(handlers, name)) for name in connections.values())
    assert all(callable(getattr(net.defaults.flags, name)) for name in flags.values())


def test_the_signatures_are_those_that_are_printed():
    def parameters(function: Any) -> List[Any]:
        return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]

    nothing = inspect.Parameter.empty
    assert parameters(_Peer) == [("launch", True), ("test", False), ("group", None)]
    assert parameters(_Peer.generate_id) == [("port", nothing), ("host", nothing), ("group", None)]
    assert parameters(_Peer.decode) == [("byte_string", nothing)]
    assert parameters(_Peer.decode_id) == [("id", nothing)]
    assert parameters(_Peer.encode) == [("obj", nothing)]
    assert parameters(net.connect)[0] == ("tag", None)
    assert parameters(net.subscribe)[:2] == [("event", nothing), ("peers", None)]
    assert parameters(net.peers)[:2] == [("refresh", False), ("groups", None)]
    for name in ("friendly_id", "host", "hub", "id", "port"):
        assert isinstance(inspect.getattr_static(_Peer, name), property)


def test_the_codec_and_the_ids_are_those_that_are_documented():
    encoded = b"MTAuMC4wLjE6MzAxMCAtPiBncm91cDE="
    assert base64.b64decode(encoded) == b"10.0.0.1:3010 -> group1"
    assert _Peer.generate_id(3010, "10.0.0.1", "group1") == encoded
    assert _Peer.decode_id(encoded) == {"group": "group1", "host": "10.0.0.1", "port": 3010}
    assert _Peer.generate_id(3010, "10.0.0.1") == base64.b64encode(b"10.0.0.1:3010 -> None")
    assert _Peer.decode_id(_Peer.generate_id(3010, "10.0.0.1"))["group"] is None
    assert _Peer.encode(50) == base64.b64encode(b'{"raw": 50}')
    assert _Peer.encode({"width": 50}) == base64.b64encode(b'{"width": 50}')
    for value in (50, "text", [1, None], {"width": 50}, {"raw": 50}):
        assert _Peer.decode(_Peer.encode(value)) == value


def test_the_environment_has_the_printed_defaults_and_names():
    done = run_python("-c", "import net; print(net.THREAD_LIMIT, net.PORT_START, net.PORT_RANGE, "
                            "net.GROUP, net.IS_HUB, *net.settings.settings.ports)",
                      NET_PORT_START=None)
    assert done.stdout.split() == ["5", "3010", "5", "None", "False",
                                   *map(str, range(3010, 3016))]
    done = run_python("-c", "import net; print(net.THREAD_LIMIT, net.PORT_START, net.PORT_RANGE, "
                            "net.GROUP, net.IS_HUB)", NET_THREAD_LIMIT=9, NET_PORT_START=4000,
                      NET_PORT_RANGE=2, NET_GROUP="group1", NET_IS_HUB="True")
    assert done.stdout.split() == ["9", "4000", "2", "group1", "True"]


def test_a_hub_says_so_in_its_friendly_id(peer_process):
    hub = peer_process("import net", NET_IS_HUB="True", NET_GROUP="group1")
    other = peer_process("import net", NET_IS_HUB="False")
    assert net.info(peer=hub.id)["hub"] is True
    assert net.info(peer=other.id)["hub"] is False
    about = net.info(peer=hub.id)
    assert (about["group"], about["host"], about["port"]) == ("group1", *hub.address)
    assert net.Peer().decode_id(hub.id) == {"group": "group1", "host": hub.address[0],
                                            "port": hub.address[1]}


def test_the_peer_within_a_connection_is_the_one_that_runs_it(peer_process):
    process = peer_process("""
        import net

        @net.connect("whose peer")
        def whose_peer():
            return net.Peer().id
    """)
    whose_peer = net.connect("whose peer")(lambda: net.Peer().id)
    try:
        assert whose_peer() == net.Peer().id
        assert whose_peer(peer=process.id) == process.id
    finally:
        del _Peer.CONNECTIONS[whose_peer.tag]
    assert isinstance(net.Peer(), _Peer) and net.Peer() is net.Peer()
