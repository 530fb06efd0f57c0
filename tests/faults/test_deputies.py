"""No caller makes a peer act for it: names, ids, errors and texts from the wire are only data."""
from __future__ import annotations

import logging
import sys
import types
from typing import Any, Optional

import pytest

import net
from net.identity import encode_text, make_id
from net.wire.frames import FAILURE, Frame
from net.wire.messages import decode_reply
from net.wire.values import encode_plain
from net import log
from net.run import access
from service import Raw, Service, greeted, request

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\x00\u202e"


def failure(*names: Any, **more: Any) -> net.NetError:
    """What a caller gets when a peer says that the function raised a class of these names."""
    described = {"types": list(names), "text": "x", "args": ["x"], **more}
    with pytest.raises(net.NetError) as caught:
        decode_reply(Frame(FAILURE, 1, False, encode_plain({"raised": described}).encode()),
                     ("127.0.0.1", 1), None, b"")
    return caught.value


@pytest.mark.parametrize("name", [
    ["builtins", "SystemExit"], ["builtins", "KeyboardInterrupt"], ["builtins", "GeneratorExit"],
    ["builtins", "BaseException"], ["os", "system"], ["builtins", "eval"], ["builtins", "object"],
    ["subprocess", "Popen"], ["not.loaded", "Error"], ["net.peer", "_Peer"], ["", ""],
    ["builtins", "__import__"], ["sys", "modules"], ["net.errors", "NetError.__init__"],
])
def test_an_error_of_any_other_name_is_a_plain_remote_error(name: list):
    before = set(sys.modules)
    error = failure(name)
    assert isinstance(error, net.RemoteError)
    assert type(error).__mro__[1:3] in ((net.RemoteError, net.NetError),
                                        (net.NetError, Exception))
    assert not isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))
    assert set(sys.modules) == before


def test_an_errors_init_does_not_run_and_a_module_is_not_asked(monkeypatch):
    ran = []

    class Loud(Exception):
        def __init__(self, *args: Any) -> None:
            ran.append(args)

    module = types.ModuleType("loud")
    module.Loud = Loud
    module.__getattr__ = lambda name: ran.append(name)
    monkeypatch.setitem(sys.modules, "loud", module)
    assert isinstance(failure(["loud", "Loud"]), Loud)
    failure(["loud", "absent"])
    assert ran == []


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
def test_a_function_that_exits_ends_its_call_and_nothing_else(service: Service, kind: str):
    with pytest.raises(net.RemoteError, match="on purpose") as caught:
        service.call("fail", kind)
    assert not isinstance(caught.value, (SystemExit, KeyboardInterrupt))
    assert service.call("add", 2, 3) == 5


def test_a_function_that_recurses_or_returns_too_much_is_an_error_to_its_caller(configure):
    configure(max_text=2 ** 20)

    def recurse() -> None:
        recurse()

    cyclic: list = []
    cyclic.append(cyclic)
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    made = {"recurse": recurse, "huge": lambda: list(range(400_000)), "cyclic": lambda: cyclic,
            "deep": lambda: deep, "lock": lambda: __import__("threading").Lock()}
    expected = {"recurse": RecursionError, "huge": net.MessageTooLarge}
    with Service(**made) as service:
        for name in made:
            with pytest.raises(expected.get(name, net.ValueNotSupported)):
                service.call(name)
            assert service.call("add", 2, 3) == 5
    while deep:  # one level at a time: freeing it at once would recurse as deep
        deep = deep.pop()


def test_an_id_is_an_address_and_nothing_more():
    for host in ("127.0.0.1:22/../x", "a b", "x\n", "\u202e", "[::1]", ""):
        with pytest.raises(net.InvalidPeer):
            make_id(1, host)


@pytest.mark.parametrize("detail, has_text, has_traceback", [
    ("full", True, True), ("type", True, False), ("none", False, False)])
def test_the_setting_decides_how_much_of_an_error_leaves(
        service, configure, detail, has_text, has_traceback):
    configure(traceback=detail)
    with pytest.raises(ValueError) as caught:
        service.call("fail")
    assert ("on purpose" in str(caught.value)) is has_text
    assert bool(caught.value.traceback) is has_traceback


def test_foreign_text_is_escaped_and_cut_in_the_log(service: Service, caplog, monkeypatch):
    monkeypatch.setattr(log, "INTERVAL", 0.0)
    caplog.set_level(logging.DEBUG, "net")
    for start in (ESCAPES.encode(), b"\x1b" * 5000, ("e" + ESCAPES * 100).encode()):
        with Raw(service.address, start) as raw:
            raw.rest()
    with Raw(service.address, greeted(request(ESCAPES * 100), b"\x1b" * 100)) as raw:
        raw.rest()
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().isprintable() and len(record.getMessage()) < 500


def test_a_tag_and_a_refusal_are_escaped_where_they_show(service: Service):
    with pytest.raises(net.InvalidConnection) as caught:
        flag = service.call(ESCAPES)
        net.invalid_connection(encode_text(ESCAPES), None, (ESCAPES, *flag.details))
    assert str(caught.value).isprintable()
    text = encode_plain({"refused": "PeerBusy", "ran": "no", "reason": ESCAPES}).encode()
    with pytest.raises(net.PeerBusy) as refused:
        decode_reply(Frame(FAILURE, 1, False, text), ("127.0.0.1", 1), None, b"")
    assert str(refused.value).isprintable()


def test_a_remote_traceback_is_escaped_and_cut():
    error = failure(["builtins", "ValueError"], traceback=(ESCAPES + "x" * 100) * 10_000)
    assert len(error.traceback) < 100_000
    assert "\x1b" not in error.traceback and "\x00" not in error.traceback


def test_few_lines_are_written_however_many_strangers_come(service: Service, caplog):
    caplog.set_level(logging.DEBUG, "net")
    for _ in range(200):
        with Raw(service.address, b"GET / HTTP/1.1\r\n\r\n") as raw:
            raw.rest()
    assert len([one for one in caplog.records if "closed" in one.getMessage()]) <= 2


# -------------------------------------------------------------------------- the edge of open mode

def refusal(source: tuple, own: str = "10.0.0.1") -> Optional[str]:
    """Why a source may not connect to a peer at this address."""
    return access.refusal(source, lambda: (own, 3010), access.HostNetworks())


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.9.9",
    "169.254.3.4", "::1", "fe80::1", "fd00::1", "::ffff:10.1.2.3", "192.0.2.77"])
def test_near_and_allowed_sources_may_connect(configure, monkeypatch, host: str):
    monkeypatch.setattr(access, "_read", list)
    configure(allow="192.0.2.0/24, 2001:db8::/32")
    assert refusal((host, 1)) is None


@pytest.mark.parametrize("host", [
    "8.8.8.8", "172.32.0.1", "192.169.0.1", "100.64.0.1", "2001:4860::1", "::ffff:8.8.8.8",
    "0.0.0.0", "192.0.3.1", "224.0.0.1"])
def test_other_sources_are_refused_with_what_to_set(configure, monkeypatch, host: str):
    monkeypatch.setattr(access, "_read", list)
    configure(allow="192.0.2.0/24")
    reason = refusal((host, 1))
    plain = host.replace("::ffff:", "")
    assert f"NET_ALLOW={plain}" in reason and "NET_SECRET" in reason


def test_own_addresses_and_networks_may_connect(monkeypatch):
    import ipaddress

    monkeypatch.setattr(access, "_read", lambda: [ipaddress.ip_network("8.8.4.0/24")])
    assert refusal(("8.8.4.4", 1)) is None
    assert refusal(("9.9.9.9", 1), "9.9.9.9") is None
    assert refusal(("9.9.9.9", 1)) is not None


def test_the_networks_of_this_host_are_read_once_for_many_strangers(monkeypatch):
    reads = []
    monkeypatch.setattr(access, "_read", lambda: reads.append(1) or [])
    networks = access.HostNetworks()
    for number in range(100):
        assert access.refusal((f"8.8.8.{number}", 1), lambda: None, networks)
    assert len(reads) == 1


def test_the_networks_of_this_host_are_those_of_its_interfaces():
    pytest.importorskip("ifaddr")
    assert any(str(network).startswith("127.") for network in access._read())


def test_a_refused_source_gets_the_reason_and_nothing_runs(service: Service, monkeypatch):
    monkeypatch.setattr(access, "NEAR", ())
    monkeypatch.setattr(access, "NEAR_TEXTS", ())
    monkeypatch.setattr(access, "_read", list)
    monkeypatch.setattr(access, "_parsed", lambda address, real=access._parsed:
                        real(address) if address != service.address else None)
    with pytest.raises(net.AuthenticationError, match="NET_ALLOW=127.0.0.1") as caught:
        service.call("add", 2, 3)
    assert caught.value.ran == "no"
    assert service.ran == []


@pytest.mark.parametrize("value", ["300.1.1.1", "10.0.0.0/33", "lan", "10.0.0.1;10.0.0.2"])
def test_an_allowed_network_that_is_none_names_the_setting(configure, value: str):
    with pytest.raises(net.SettingError, match="ALLOW"):
        configure(allow=value)
