"""The peer: its documented face, ids, the codec, flags and launching."""
from __future__ import annotations

import base64
import itertools
import json
import os
import platform
import socket
import sys
import threading
import warnings
from contextlib import ExitStack
from typing import Any, Iterator

import pytest

import net
from net import discovery
from net import peer as peer_module
from net.decorators import register
from net.errors import InvalidPeer, NetError, NoFreePort, SettingError
from net.identity import Flag, PeerId, encode_text, make_tag
from net.link import interfaces
from net.peer import FriendlyId, _Peer, make_own_peer, tag_for_old_peers
from net.process import Process
from each import each
from service import until
from times import patience

ID = b"MTkyLjAuMi4xOjMwMTAgLT4gTm9uZQ=="


@pytest.fixture
def quiet_peer() -> Iterator[_Peer]:
    """A second peer that does not serve."""
    peer = _Peer(launch=False, test=True)
    yield peer
    peer.close()


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch, kept_settings: Any) -> Iterator[Any]:
    """A process in which nobody has asked for its peer yet."""
    process = Process(kept_settings)
    monkeypatch.setattr(peer_module, "process", process)
    monkeypatch.setattr(_Peer, "process", process)
    yield process
    for peer in process.peers:
        peer.close()


# ------------------------------------------------------------------- what is documented


def test_the_documented_registry_has_the_documented_tags():
    for tag, name in [
            (b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLm51bGw=", "null"),
            (b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLmluZm8=", "info"),
            (b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnBhc3NfdGhyb3VnaA==", "pass_through"),
            (b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLnN1YnNjcmlwdGlvbl9oYW5kbGVy", "subscription_handler")]:
        assert _Peer.CONNECTIONS[tag].__name__ == name
        assert getattr(net.defaults.handlers, name).tag == tag


def test_the_documented_flags_have_the_documented_names():
    assert _Peer.FLAGS[b"SU5WQUxJRF9DT05ORUNUSU9O"] is net.invalid_connection
    assert _Peer.FLAGS[b"TlVMTA=="] is net.null_response


def test_the_registries_belong_to_the_class(quiet_peer):
    for name in ("CONNECTIONS", "SUBSCRIPTIONS", "FLAGS"):
        assert name in vars(_Peer) and name not in vars(quiet_peer)
        assert getattr(quiet_peer, name) is getattr(net.Peer(), name) is getattr(_Peer, name)


def test_the_dotted_names_of_the_documentation_exist():
    assert net.peer._Peer is _Peer and isinstance(net.Peer(), net.peer._Peer)
    assert net.Peer() is net.Peer()


def test_the_documented_signatures():
    import inspect

    defaults = {name: parameter.default
                for name, parameter in inspect.signature(_Peer).parameters.items()}
    assert defaults == {"launch": True, "test": False, "group": None}
    assert list(inspect.signature(_Peer.generate_id).parameters) == ["port", "host", "group"]
    assert list(inspect.signature(_Peer.decode_id).parameters) == ["id"]
    assert list(inspect.signature(_Peer.decode).parameters) == ["byte_string"]
    assert list(inspect.signature(_Peer.encode).parameters) == ["obj"]


# ------------------------------------------------------------------------------ the codec


@each("value, data", [
    (50, b"eyJyYXciOiA1MH0="), ({"a": 1}, b"eyJhIjogMX0="), (None, b"eyJyYXciOiBudWxsfQ=="),
    ("text", b"eyJyYXciOiAidGV4dCJ9"), ("", b"eyJyYXciOiAiIn0="), ("x", b"eyJyYXciOiAieCJ9"),
    ([1, "two", None, 2.5, True], b"eyJyYXciOiBbMSwgInR3byIsIG51bGwsIDIuNSwgdHJ1ZV19"),
    ("caf\xe9 \u2713 \U0001f600", b"eyJyYXciOiAiY2FmXHUwMGU5IFx1MjcxMyBcdWQ4M2RcdWRlMDAifQ=="),
    ({}, b"e30="), ("NULL", None), ("\ud800", None), (False, None), ([], None),
    # 0.4 had these as they are, and its decode gave 5 for both.
    ({"raw": 5}, None), ({"raw": 5, "more": 6}, None), ({"raw": {"raw": None}}, None),
    ([{"raw": 5}], None), ({"a": {"raw": 5}}, None),
], ids=repr)
def test_encode_and_decode_are_the_documented_pair(value, data):
    encoded = _Peer.encode(value)
    assert type(encoded) is bytes and data in (encoded, None)
    assert _Peer.decode(encoded) == _Peer.decode(encoded.decode()) == value
    assert net.Peer().decode(net.Peer().encode(value)) == value
    assert decode_of_0_4(encoded) == value


def decode_of_0_4(encoded: bytes) -> Any:
    value = json.loads(base64.b64decode(encoded))
    return value["raw"] if isinstance(value, dict) and "raw" in value else value


@each("encoded, text", [
    (ID, "192.0.2.1:3010 -> None"), (b"TlVMTA==", "NULL"), (b"", ""),
    (b"bmV0LmRlZmF1bHRzLmhhbmRsZXJzLm51bGw=", "net.defaults.handlers.null"),
])
def test_decode_gives_the_text_of_an_id_a_tag_or_a_flag(encoded, text):
    assert _Peer.decode(encoded) == text


def test_ping_tells_whether_something_listens(session_peer):
    assert session_peer.ping(session_peer.port, session_peer.host) is True
    assert _Peer.ping(session_peer.port) is True
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert session_peer.ping(port, "127.0.0.1") is False


@pytest.mark.parametrize("as_tag", [net.pass_through.tag, net.pass_through.tag.decode(),
                                    "net.defaults.handlers.pass_through"], ids=repr)
def test_request_calls_by_tag(session_peer, as_tag):
    assert session_peer.request(session_peer.id, as_tag, (1, 2), {"a": 3}) == ((1, 2), {"a": 3})
    assert session_peer.request(session_peer.id, net.null.tag, (), {}) == "NULL"


def test_request_takes_a_tag_of_ones_own_in_the_form_of_older_versions(session_peer):
    connected = register(lambda value: value, "Tagged")
    try:
        older = _Peer.encode("Tagged")
        for tag in ("Tagged", connected.tag, older, older.decode()):
            assert session_peer.request(session_peer.id, tag, (5,), {}) == 5
    finally:
        del _Peer.CONNECTIONS[connected.tag]


@pytest.mark.parametrize("tag", ["missing_connection", "eA==", b"eA==", "Tagged"])
def test_a_request_for_what_is_not_there_says_so(session_peer, tag):
    with pytest.raises(net.InvalidConnection,
                       match="Peer does not have the connection you are requesting"):
        session_peer.request(session_peer.id, tag, (), {})


def test_a_second_peer_is_for_tests(own_process):
    # Also before the first one, which older versions have made when they were imported.
    for _ in range(2):
        with pytest.raises(RuntimeError, match="test=True"):
            _Peer()
        with pytest.raises(RuntimeError):
            _Peer(launch=False)
        assert own_process.peers == ([] if own_process.peer is None else [own_process.peer])
        assert net.Peer() is own_process.peer


def test_a_flag_stays_as_it_is_in_the_codec():
    encoded = _Peer.encode(Flag(b"TlVMTA=="))
    assert encoded == b"TlVMTA==" and type(encoded) is bytes


@each("value", [b"bytes", {1, 2}, object(), {(1,): 2}])
def test_what_json_does_not_have_is_a_type_error(value):
    with pytest.raises(TypeError):
        _Peer.encode(value)


@each("data", [b"?", "?", b"QQ", "é", b"\xff", base64.b64encode(b"\xff")],
      ids=repr)
def test_what_is_no_base64_of_text_is_a_value_error(data):
    with pytest.raises(ValueError):
        _Peer.decode(data)


# ------------------------------------------------------------------------------------ ids


def test_an_id_goes_both_ways():
    made = _Peer.generate_id(3010, "192.0.2.1")
    assert made == ID and type(made) is PeerId
    assert _Peer.decode_id(ID) == {"group": None, "host": "192.0.2.1", "port": 3010}
    grouped = _Peer.generate_id(3010, "192.0.2.1", "group1")
    for form in (grouped, bytes(grouped), grouped.decode()):
        assert _Peer.decode_id(form) == {"group": "group1", "host": "192.0.2.1", "port": 3010}


@each("id",
      [None, 5, 10 ** 12, "", b"", "\ud800", "é", b"\xff", [1], (), object(),
       "192.0.2.1:3010", ("192.0.2.1", 3010), b"AAAA"], ids=repr)
def test_what_is_no_id_is_refused(id):
    with pytest.raises(InvalidPeer):
        _Peer.decode_id(id)


@each("port, host", [(0, "h"), (65536, "h"), (None, "h"), (1, ""), (1, None),
                     (1, b"h"), ("x", "h"), (1.0, "h"), (1, "a b")])
def test_no_id_is_made_of_what_is_no_address(port, host):
    with pytest.raises(InvalidPeer):
        _Peer.generate_id(port, host)


def test_the_peer_says_where_it_is(session_peer):
    assert session_peer.host == "127.0.0.1" and type(session_peer.port) is int
    assert session_peer.id == _Peer.generate_id(session_peer.port, "127.0.0.1", None)
    assert session_peer.id.address == (session_peer.host, session_peer.port)
    assert session_peer.hub is False and session_peer.group is None
    assert session_peer.launched and not session_peer.test
    assert repr(session_peer) == f"<net.Peer 127.0.0.1:{session_peer.port}, group None>"


# --------------------------------------------------------------------------- the friendly id


def test_the_friendly_id_is_a_dict_of_facts(session_peer, kept_settings):
    kept_settings.set("facts", {"gpus": [1, 2]})
    found = session_peer.friendly_id
    assert isinstance(found, dict)
    assert {name: found[name] for name in ("group", "host", "port", "hub", "pid", "platform",
                                           "version", "instance")} == {
        "group": None, "host": "127.0.0.1", "port": session_peer.port, "hub": False,
        "pid": os.getpid(), "platform": sys.platform, "version": net.__version__,
        "instance": session_peer.instance}
    assert set(found) == {"group", "host", "port", "hub", "executable", "user", "instance", "name",
                          "pid", "program", "python", "platform", "version", "facts", "digest"}
    assert found["executable"] == sys.executable and found["user"]
    assert found["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("path, name", [
    ("/srv/studio.py", "studio.py"), ("/srv/studio/__main__.py", "studio"), ("-c", "-c"),
    ("__main__.py", "__main__.py"), ("", "")])
def test_the_program_is_its_file_or_the_package_that_is_run(session_peer, monkeypatch, path, name):
    monkeypatch.setattr(sys, "argv", [path.replace("/", os.sep)])
    assert session_peer.friendly_id["program"] == name


def test_a_user_without_a_name_has_none(session_peer, monkeypatch):
    import getpass

    def nobody() -> str:
        raise KeyError("uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert session_peer.friendly_id["user"] == ""


def test_the_facts_cannot_be_changed_through_what_was_given(session_peer, kept_settings):
    kept_settings.set("facts", {"gpus": [1]})
    session_peer.friendly_id["facts"]["gpus"].append(2)
    net.info()["facts"]["more"] = 1
    assert net.info()["facts"] == {"gpus": [1]}


def test_a_hub_says_so(session_peer, kept_settings):
    net.IS_HUB = True
    assert session_peer.hub is True and session_peer.friendly_id["hub"] is True
    assert net.info()["hub"] is True and "hub" in str(session_peer.friendly_id)


@pytest.mark.parametrize("port", [4000, None])
def test_what_a_peer_says_of_itself_is_the_address_that_it_advertises(own_process, port):
    own_process.settings.set("advertise", ("192.0.2.7", port))
    peer = make_own_peer()
    bound = peer.server.address
    assert (peer.host, peer.port) == peer.id.address == ("192.0.2.7", port or bound[1])
    assert peer.friendly_id["host"] == "192.0.2.7" and peer.friendly_id["port"] == peer.port
    assert peer.place == bound and bound[0] == "127.0.0.1"
    # One for tests keeps to this host.
    with _Peer(test=True) as beside:
        assert beside.id.address == beside.place == beside.server.address
    peer.close()
    assert peer.port is peer.place is None


def test_the_friendly_id_is_a_line_for_people():
    line = str(FriendlyId(host="192.0.2.1", port=3010, group="render\x1b[31m", hub=True,
                          name="box\n",
                          program="app.py", pid=5, python="CPython 3.9", version="1.0.0"))
    assert line.isprintable()
    for part in ("192.0.2.1:3010", "group render", "hub", "app.py", "pid 5", "CPython 3.9"):
        assert part in line
    assert "no group" in str(FriendlyId(host="h", port=1, group=None))


# ----------------------------------------------------------------------------------- flags


def test_a_flag_is_found_by_name():
    flag = net.Peer().get_flag("NULL")
    assert type(flag) is Flag and flag == b"TlVMTA=="
    assert _Peer.get_flag("INVALID_CONNECTION") == encode_text("INVALID_CONNECTION")


@each("name", ["NOTHING", "", "null", 5, None, b"NULL", []])
def test_an_unknown_flag_is_a_lookup_error_with_the_known_ones(name):
    with pytest.raises(LookupError, match="NULL"):
        net.Peer().get_flag(name)


# ------------------------------------------------------------------------------- launching


def test_a_peer_that_is_not_launched_has_no_port(quiet_peer):
    assert quiet_peer.port is None and quiet_peer.server is None and not quiet_peer.launched
    assert "not launched" in repr(quiet_peer)


def test_launching_twice_and_closing_twice_are_no_matter(quiet_peer):
    assert quiet_peer.launch() is quiet_peer
    port = quiet_peer.port
    assert quiet_peer.launch().port == port
    quiet_peer.close()
    quiet_peer.close()
    assert quiet_peer.port is None


def test_the_id_launches_the_peer(quiet_peer, kept_settings):
    kept_settings.set("launch", False)
    with pytest.raises(NetError, match="NET_LAUNCH"):
        quiet_peer.id
    assert not quiet_peer.launched
    kept_settings.set("launch", True)
    assert quiet_peer.id.port == quiet_peer.port is not None


def test_a_second_peer_has_a_port_and_a_group_of_its_own():
    with_group = _Peer(test=True, group="render")
    try:
        assert with_group.port != net.Peer().port
        assert with_group.group == with_group.id.group == "render"
        assert with_group.friendly_id["group"] == "render"
        assert net.Peer().group is None
    finally:
        with_group.close()


@each("group", ["None", "a\nb", "g" * 65, 5, b"g", ["g"]])
def test_a_group_that_no_id_could_hold_is_refused(group):
    with pytest.raises(ValueError):
        make_own_peer(launch=False, group=group)


def test_no_free_port_is_an_error_of_launch_and_a_warning_of_peer(own_process, kept_settings,
                                                                  port_range):
    kept_settings.set("port_start", port_range.start)
    kept_settings.set("port_range", 0)
    with socket.create_server(("127.0.0.1", port_range.start)):
        with pytest.raises(NoFreePort) as caught:
            make_own_peer()
        assert caught.value.ports == range(port_range.start, port_range.start + 1)
        with pytest.warns(RuntimeWarning, match="find and call others but serves none") as warned:
            peer = net.Peer()
        assert warned[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert net.Peer() is peer and not peer.launched
            with pytest.raises(NoFreePort):
                peer.launch()


@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
@pytest.mark.parametrize("mode, warns", [(0o600, False), (0o400, False), (0o640, True),
                                         (0o604, True), (0o602, True)])
def test_a_secret_that_others_can_read_is_a_warning_at_launch(
        own_process, kept_settings, monkeypatch, tmp_path, mode, warns):
    class Server:
        def __init__(self, dispatch: Any, listeners: Any, *arguments: Any) -> None:
            self.close = lambda: [one.close() for one in listeners]

    # The warning comes with a server of any kind, and without the library that secrets take.
    monkeypatch.setattr("net.run.server.Server", Server)
    path = tmp_path / "net.secret"
    path.write_text("correct horse battery staple")
    path.chmod(mode)
    kept_settings.set("secret_file", path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        peer = _Peer(test=True)
        peer.close()
        peer.launch()
    texts = [str(one.message) for one in warned if one.filename == __file__]
    assert len(texts) == len(warned) == warns
    assert all(text.endswith(f"chmod 600 {path}") for text in texts)


def test_a_missing_secret_is_an_error_where_it_is_read(own_process, kept_settings, tmp_path):
    kept_settings.set("secret_file", tmp_path / "nothing")
    with pytest.raises(SettingError, match="NET_SECRET_FILE=.*nothing cannot be read"):
        _Peer(test=True)


def test_all_ports_of_the_range_are_used_the_last_included(own_process, kept_settings, port_range):
    kept_settings.set("port_start", port_range.start)
    kept_settings.set("port_range", 1)
    peers = [make_own_peer(), make_own_peer()]
    assert [peer.port for peer in peers] == [port_range.start, port_range.start + 1]
    with pytest.raises(NoFreePort):
        make_own_peer()


def test_launching_can_be_switched_off(own_process, kept_settings):
    kept_settings.set("launch", False)
    assert not net.Peer().launched
    peer_module.launch_by_decorator()
    assert not net.Peer().launched


def test_the_arguments_of_the_first_use_count(own_process, kept_settings):
    peer = net.Peer(launch=False, group="render")
    assert net.Peer() is peer and not peer.launched
    assert peer.group == "render" and kept_settings.group == "render"


def test_a_group_that_is_given_after_the_launch_counts(own_process, kept_settings, port_range):
    kept_settings.set("port_start", port_range.start)
    peer = net.Peer()
    assert net.Peer(group="render") is peer and peer.launched
    assert peer.group == kept_settings.group == "render" and peer.id.group == "render"
    assert net.Peer().group == "render"
    with pytest.raises(ValueError):
        net.Peer(group="None\n")


def test_what_cannot_be_changed_after_the_launch_raises(own_process, kept_settings, port_range):
    kept_settings.set("port_start", port_range.start)
    net.Peer()
    for arguments in ({"launch": False}, {"test": True}):
        with pytest.raises(RuntimeError, match="launched already"):
            net.Peer(**arguments)


def test_a_setting_without_sense_is_an_error_at_each_use(own_process, kept_settings, monkeypatch):
    monkeypatch.setenv("NET_HOST", "127.0.0.l")
    kept_settings.reset()
    for _ in range(2):
        with pytest.raises(SettingError, match="NET_HOST must be"):
            net.Peer()
    assert own_process.peer is None and not own_process.peers


def test_the_seventh_peer_of_a_host_says_what_it_can_do_and_what_to_set(
        own_process, kept_settings, port_range):
    kept_settings.set("port_start", port_range.start)
    with ExitStack() as taken:
        for port in port_range:
            taken.enter_context(socket.create_server(("127.0.0.1", port)))
        with pytest.warns(RuntimeWarning) as warned:
            assert not net.Peer().launched
    (warning,) = warned
    text = str(warning.message)
    assert "room for 6 peers" in text and "find and call others" in text
    assert "NET_PORT_RANGE=15" in text and "all" in text


def test_a_group_without_sense_leaves_no_peer_behind(own_process):
    with pytest.raises(ValueError):
        net.Peer(False, group="None")
    assert own_process.peer is None


def test_the_hooks_of_the_floors_above_run_at_launch_and_close(own_process, kept_settings,
                                                               port_range):
    kept_settings.set("port_start", port_range.start)
    happened: list = []

    def hook(peer: _Peer) -> Any:
        happened.append(("launched", peer.launched))
        return lambda: happened.append(("closed", peer.launched))

    own_process.launch_hooks = [hook]
    peer = make_own_peer()
    peer.close()
    peer.close()
    assert happened == [("launched", True), ("closed", False)]


def test_a_close_waits_for_a_launch_in_another_thread(own_process):
    hooked, go = threading.Event(), threading.Event()
    happened: list = []

    def hook(peer: _Peer) -> Any:
        hooked.set()
        assert go.wait(patience(10))
        happened.append("launched")
        return lambda: happened.append("closed")

    own_process.launch_hooks = [hook]
    peer = _Peer(launch=False, test=True)
    threads = [threading.Thread(target=peer.launch), threading.Thread(target=peer.close)]
    threads[0].start()
    assert hooked.wait(patience(10))
    threads[1].start()
    threads[1].join(0.05)  # it has time to come in between
    go.set()
    for thread in threads:
        thread.join(patience(10))
    assert happened == ["launched", "closed"] and not peer.launched


def test_a_hook_that_closes_the_peer_has_it_closed_whole(own_process):
    happened: list = []

    def hook(peer: _Peer) -> Any:
        peer.close()
        return lambda: happened.append("closed")

    own_process.launch_hooks = [hook]
    peer = _Peer(test=True)
    assert happened == ["closed"] and not peer.launched


def test_a_hook_that_fails_leaves_no_half_launched_peer(own_process):
    happened: list = []

    def fail(peer: _Peer) -> Any:
        raise OSError("no thread")

    own_process.launch_hooks = [lambda peer: lambda: happened.append("closed"), fail]
    peer = _Peer(launch=False, test=True)
    with pytest.raises(OSError, match="no thread"):
        peer.launch()
    assert happened == ["closed"] and not peer.launched


def test_the_address_of_this_host_is_found_without_sending_anything(monkeypatch, kept_settings):
    assert peer_module.route_address() == "127.0.0.1"  # NET_HOST keeps everything here


class Route:
    """Stands for the socket that finds this host's address, so that nothing is asked of the
    system."""

    problem: Any = None

    def __init__(self, *arguments: Any) -> None:
        pass

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def connect(self, address: Any) -> None:
        if self.problem:
            raise self.problem

    def getsockname(self) -> Any:
        return "192.0.2.5", 40000


def test_it_serves_at_every_address_that_the_host_has_or_gets(kept_settings):
    assert peer_module.bind_hosts() == [peer_module._call_host()] == ["127.0.0.1"]
    kept_settings.set("host", None)
    assert (peer_module.bind_hosts(), peer_module._call_host()) == (["0.0.0.0", "::"], "127.0.0.1")
    kept_settings.set("host", "192.0.2.5")
    assert peer_module.bind_hosts() == [peer_module._call_host()] == ["192.0.2.5"]


def test_the_address_of_this_host_is_the_one_on_the_way_to_the_network(monkeypatch, kept_settings):
    kept_settings.set("host", None)
    monkeypatch.setattr("net.link.interfaces.socket.socket", Route)
    assert peer_module.route_address() == "192.0.2.5"


@pytest.mark.parametrize("found, own", [
    ([("lo", "127.0.0.1", 8), ("docker0", "172.17.0.1", 16), ("tun0", "10.8.0.2", 24),
      ("eth0", "10.0.0.7", 24), ("eth1", "10.0.0.8", 24)], "10.0.0.7"),
    ([("lo", "127.0.0.1", 8), ("docker0", "172.17.0.1", 16)], "172.17.0.1"),
    ([("lo", "127.0.0.1", 8)], "127.0.0.1"), ([], "127.0.0.1")])
def test_without_a_way_it_is_that_of_any_network_and_of_a_bridge_last(
        monkeypatch, kept_settings, found, own):
    kept_settings.set("host", None)
    monkeypatch.setattr(interfaces, "way_out", lambda: None)
    monkeypatch.setattr(interfaces, "read", lambda: ([interfaces.Interface(*one) for one in found],
                                                     ""))
    assert peer_module.route_address() == own


def test_where_the_port_of_datagrams_is_taken_a_peer_serves_all_the_same(
        kept_settings, port_range, own_process):
    own_process.launch_hooks = [discovery.announce]
    kept_settings.set("port_start", port_range.start)
    kept_settings.set("port_range", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port_range.start))
        peer = make_own_peer()
    assert peer.launched
    socket.create_connection((peer.host, peer.port), patience(5)).close()


def test_a_forked_child_has_another_identity(own_process):
    peer = net.Peer(launch=False)
    before = own_process.instance
    own_process.on_fork()
    assert own_process.peer is None and own_process.instance != before
    assert peer.instance == own_process.instance and not peer.launched


def test_a_peer_serves_within_its_context(session_peer):
    with _Peer(launch=False, test=True) as peer:
        assert peer.launched and net.null(peer=peer) == "NULL"
        address = peer.host, peer.port
    assert not peer.launched
    with pytest.raises(net.PeerUnreachable):
        net.null(peer=address)


def test_closing_lets_running_calls_end_and_takes_no_new_ones(session_peer, monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    def wait():
        began.set()
        return go_on.wait(patience(10))
    monkeypatch.setitem(_Peer.CONNECTIONS, encode_text("wait"), wait)
    peer = _Peer(test=True)
    running = net.remote("wait").start(peer=peer)
    address = peer.host, peer.port
    assert began.wait(patience(10))
    closing = threading.Thread(target=peer.close, kwargs={"drain": patience(10)})
    closing.start()
    try:
        until(lambda: not answers(address))
        assert not running.done() and closing.is_alive()
    finally:
        go_on.set()
    assert running.result(patience(10)) is True
    closing.join(patience(10))
    assert not closing.is_alive()


def test_a_stream_that_runs_ends_before_the_peer_does(session_peer, monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    def count():
        yield 0
        began.set()
        assert go_on.wait(patience(10))
        yield from range(1, 1000)
    monkeypatch.setitem(_Peer.CONNECTIONS, encode_text("count"), count)
    peer = _Peer(test=True)
    address = peer.host, peer.port
    items = iter(net.remote("count")(peer=peer))
    assert next(items) == 0 and began.wait(patience(10))
    closing = threading.Thread(target=peer.close, kwargs={"drain": patience(10)})
    closing.start()
    until(lambda: not answers(address))
    go_on.set()
    assert list(items) == list(range(1, 1000))
    closing.join(patience(10))
    assert not closing.is_alive()


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize("secret", [None, "correct horse battery staple"])
@pytest.mark.parametrize("started", [False, True], ids=["called", "started"])
def test_callers_of_a_peer_that_ends_know_whether_their_calls_ran(
        session_peer, kept_settings, monkeypatch, unix, secret, started):
    if secret:
        pytest.importorskip("cryptography")
    kept_settings.set("secret", secret)
    kept_settings.set("unix", unix)
    ran, told, ended = [], [], []

    def work(number):
        ran.append(number)
        return number
    monkeypatch.setitem(_Peer.CONNECTIONS, encode_text("work"), work)
    peer = _Peer(test=True)
    function, address = net.remote("work"), peer.id

    def call(numbers):
        try:
            for number in numbers:
                told.append(function.start(number, peer=address).result() if started
                            else function(number, peer=address))
        except net.NetError as problem:
            ended.append(problem)
    callers = [threading.Thread(target=call, args=(itertools.count(first, 4),))
               for first in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: len(told) > 20)
    peer.close(drain=patience(10))
    for caller in callers:
        caller.join()
    assert [problem.ran for problem in ended] == ["no"] * 4
    assert sorted(told) == sorted(ran)


def answers(address):
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False


def test_old_programs_know_a_static_method_without_its_class(monkeypatch):
    def lift() -> None:
        """As the method of a class Box in a module app."""

    lift.__module__, lift.__qualname__ = "app", "Box.lift"
    monkeypatch.setattr(_Peer, "CONNECTIONS", {make_tag("app", "Box.lift"): lift,
                                               encode_text("Own"): lift})
    assert tag_for_old_peers(make_tag("app", "Box.lift")) == make_tag("app", "lift")
    for other in ("Own", "app.Box.other"):
        assert tag_for_old_peers(encode_text(other)) == encode_text(other)
