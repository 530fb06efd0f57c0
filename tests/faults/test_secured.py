"""With a secret or certificates nobody else gets in, in either role, and nothing leaks."""
from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
import tempfile
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path
from queue import Queue
from typing import Any, Iterator

import pytest

import net
from certificates import BOTH, Authority, Files
from chaos import Proxy, Way
from net.calls import aio
from net.discovery.probes import look_at
from net.settings import settings
from net.identity import encode_text
from net.wire import legacy
from net.process import process
from net.wire.frames import FAILURE, HEADER
from net.wire.limits import Limits
from net.wire.messages import Call, decode_reply, encode_refusal
from net.wire.session import Hello, caller_session, encode_preface
from net.link import destination, security, tls
from net.link.base import Endpoint
from net.link.tcp import TcpCarrier
from net.link.unix import UnixCarrier
from net.run import server_connection
from net.run.channel import Receiver, dial
from net.run.handshakes import MOST
from net.run.loop import Loop
from net.link.authority import make_leaf
from hostile import tls_hello
from processes import run_python
from service import Raw, Service, greeted, request, until
from strangers import Stranger, says
from times import patience

SECRET = "correct horse battery"
ADD = request("add", 2, 3)

APPLICATION = """
import net
ran = []
@net.connect("add")
def add(a, b):
    ran.append(1)
    return a + b
@net.connect("ran")
def count():
    return len(ran)
@net.connect("render", groups=["render"])
def render():
    return "rendered"
"""


@pytest.fixture
def secured(configure) -> Any:
    """A server in this process that has the secret."""
    configure(secret=SECRET)
    service = Service()
    yield service
    service.close()


def call(peer: Any, name: str, *args: Any) -> Any:
    return process.client.call(peer.address, encode_text(name), args, {}, patience(10))


# ------------------------------------------------------------------------------ both are right

def test_both_with_the_secret_work_as_in_the_open(secured: Service):
    assert secured.call("add", 2, 3) == 5
    large = b"x" * 3_000_000, "y" * 100_000
    assert secured.call("echo", *large) == large
    with pytest.raises(ValueError, match="on purpose"):
        secured.call("fail")
    assert secured.call("add", 2, 3, timeout=patience(5)) == 5
    with pytest.raises(net.CallTimeout):
        secured.call("wait", timeout=0.2)
    secured.go.set()


def test_a_call_between_processes_and_the_first_one_is_quick(peer_process, configure):
    peer = peer_process(APPLICATION, NET_SECRET=SECRET)
    configure(secret=SECRET)
    tls.credentials()
    started = time.perf_counter()
    assert call(peer, "add", 2, 3) == 5
    # The handshake is a few milliseconds; the rest is for a busy machine.
    assert time.perf_counter() - started < patience(2)


def test_the_secret_may_be_in_a_file(peer_process, configure, tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text(f"  {SECRET}\n")
    file.chmod(0o600)
    peer = peer_process(APPLICATION, NET_SECRET_FILE=file)
    configure(secret=SECRET)
    assert call(peer, "add", 2, 3) == 5


def test_certificates_of_one_authority_work(peer_process, configure, tmp_path: Path):
    studio = Authority(tmp_path)
    peer = peer_process(APPLICATION, **studio.issue("one").variables())
    configure(**studio.issue("two", ["127.0.0.1", "::1"])._asdict())
    assert call(peer, "add", 2, 3) == 5
    configure(**studio.issue("three", ["peer.app-net"])._asdict())
    assert call(peer, "add", 2, 3) == 5


def test_a_request_that_came_with_the_end_of_the_handshake_is_not_lost(secured: Service):
    session = tls.Session(tls.credentials(), secured.address, server=False)
    session.write(greeted(ADD))
    with Raw(secured.address, session.output()) as raw:
        received = b""
        while not received.endswith(b"5"):
            data = raw.sock.recv(65536)
            assert data, "closed before the reply"
            received += session.feed(data)
            raw.send(session.output())


@pytest.mark.parametrize("awaited", [False, True])
def test_credentials_are_there_before_a_peer_begins_to_wait_for_a_handshake(
        secured: Service, monkeypatch, awaited: bool):
    order = []

    def noted(what: str, function: Any) -> Any:
        def run(*args: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                order.append(what)
            return function(*args)
        return run

    monkeypatch.setattr(security, "credentials", noted("credentials", security.credentials))
    for carrier in (TcpCarrier, UnixCarrier):
        for name in ("connect", "start"):
            monkeypatch.setattr(carrier, name, noted("connect", getattr(carrier, name)))
    if awaited:
        arguments = process.client, secured.address, encode_text("add"), (2, 3), {}, 10
        assert asyncio.run(aio.call(*arguments)) == 5
    else:
        assert secured.call("add", 2, 3) == 5
    assert order[0] == "credentials" and "connect" in order


# ------------------------------------------------------------------------------ one is wrong

def test_another_secret_is_an_authentication_error_that_says_what_to_do(peer_process, configure):
    peer = peer_process(APPLICATION, NET_SECRET=SECRET)
    for other in (SECRET[:-1] + "x", SECRET + "y", SECRET[:-1] + "\u0079\u0301", SECRET.upper()):
        configure(secret=other)
        for _ in range(2):
            with pytest.raises(net.AuthenticationError, match="same NET_SECRET") as caught:
                call(peer, "add", 2, 3)
            assert caught.value.ran == "no"
    configure(secret=SECRET)
    assert call(peer, "ran") == 0


def test_a_secret_on_the_called_side_only(peer_process):
    peer = peer_process(APPLICATION, NET_SECRET=SECRET)
    with pytest.raises(net.AuthenticationError, match="start the caller with the same NET_SECRET"):
        call(peer, "add", 2, 3)


def test_a_secret_on_the_calling_side_only(peer_process, configure):
    peer = peer_process(APPLICATION)
    configure(secret=SECRET)
    with pytest.raises(net.AuthenticationError, match="same NET_SECRET"):
        call(peer, "add", 2, 3)
    configure(secret=None)
    assert call(peer, "ran") == 0


def test_a_secret_and_certificates_do_not_mix(peer_process, configure, tmp_path: Path):
    peer = peer_process(APPLICATION, NET_SECRET=SECRET)
    configure(**Authority(tmp_path).issue("one")._asdict())
    with pytest.raises(net.AuthenticationError):
        call(peer, "add", 2, 3)


@pytest.mark.parametrize("what", ["certificate", "authority"])
def test_with_a_secret_no_clock_keeps_anybody_out(what: str):
    """Small computers start in 1970, and nobody knows how far a clock can be wrong."""
    from cryptography import x509

    pem = getattr(make_leaf(SECRET), what)
    made = x509.load_pem_x509_certificate(pem if isinstance(pem, bytes) else pem.encode())
    begin, end = ((made.not_valid_before_utc, made.not_valid_after_utc)
                  if hasattr(made, "not_valid_before_utc")  # cryptography 42
                  else (made.not_valid_before, made.not_valid_after))
    assert begin.replace(tzinfo=None) <= datetime(1970, 1, 1) and end.year > 2200


BAD = {
    "of another authority": lambda good, folder: Authority(folder, "foreign").issue("bad"),
    "expired": lambda good, folder: good.issue("bad", end=2005),
    "not valid yet": lambda good, folder: good.issue("bad", begin=2049),
    "for another address": lambda good, folder: good.issue("bad", ["192.0.2.1", "example.org"]),
    "for no address": lambda good, folder: good.issue("bad", []),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_caller_refuses_a_peer_with_a_bad_certificate(peer_process, configure, tmp_path, make):
    studio = Authority(tmp_path)
    bad = make(studio, tmp_path)
    peer = peer_process(APPLICATION, **bad.variables())
    configure(**studio.issue("good")._asdict())
    with pytest.raises(net.AuthenticationError, match="NET_TLS_CA.* clocks of both") as caught:
        call(peer, "add", 2, 3)
    assert caught.value.ran == "no"


BAD_CLIENTS = {**BAD, "for servers only": lambda good, folder: good.issue("bad", uses=BOTH[1:])}


@pytest.mark.parametrize("make", BAD_CLIENTS.values(), ids=BAD_CLIENTS)
def test_a_peer_refuses_a_caller_with_a_bad_certificate(configure, tmp_path: Path, make):
    """The caller trusts the right authority, so that it is the server that refuses."""
    studio = Authority(tmp_path)
    bad = make(studio, tmp_path)._replace(tls_ca=str(studio.path))
    configure(**studio.issue("good")._asdict())
    service = Service()
    with service:
        known = tls.from_files(*bad)
        with pytest.raises(net.AuthenticationError, match="NET_TLS_CA.* clocks of both") as caught:
            exchange(service, known)
        assert caught.value.ran == "no"
        assert service.ran == []
        assert service.call("add", 1, 1) == 2


def exchange(service: Service, known: tls.Credentials, message: bytes = greeted(ADD)) -> Any:
    """Send a request as a caller with these credentials does; what came, or what it raises."""
    session = tls.Session(known, service.address, server=False)
    replies = caller_session(Limits())
    session.write(message)
    with Raw(service.address, session.output()) as raw:
        while True:
            data = raw.sock.recv(65536)
            event: Any = replies.receive(session.feed(data))
            raw.send(session.output())
            if type(event) is Hello:
                event = replies.receive()
            if event is not None:
                return decode_reply(event, service.address, None, b"")
            if not data:
                raise AssertionError("no answer and no refusal")


def context(**changes: Any) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("made", [context(), context(maximum_version=ssl.TLSVersion.TLSv1_2)],
                         ids=["without a certificate", "TLS 1.2"])
def test_an_ordinary_tls_client_gets_nothing(secured: Service, made: ssl.SSLContext):
    with socket.create_connection(secured.address, patience(5)) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with made.wrap_socket(plain) as sock:
                sock.sendall(greeted(ADD))
                assert sock.recv(100), "refused without an alert"
    assert secured.ran == []


def test_a_self_signed_certificate_gets_nothing(secured: Service, tmp_path: Path):
    files = Authority(tmp_path).issue("self")
    made = context()
    made.load_cert_chain(files.tls_cert, files.tls_key)
    with socket.create_connection(secured.address, patience(5)) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with made.wrap_socket(plain) as sock:
                sock.sendall(greeted(ADD))
                assert sock.recv(100), "refused without an alert"
    assert secured.ran == []


@pytest.mark.parametrize("start", [
    b"GET / HTTP/1.1\r\n\r\n", legacy.encode_call(Call(encode_text("add"), [2, 3], {})),
    b"\x15\x03\x03\x00\x02\x02\x28", b"SSH-2.0-x\r\n",
], ids=["HTTP", "the old dialect", "an alert", "SSH"])
def test_what_is_no_hello_is_closed_at_once(secured: Service, monkeypatch, start: bytes):
    monkeypatch.setattr(server_connection, "GREETING_TIME", patience(1000))
    with Raw(secured.address, start) as raw:
        assert raw.rest() == b""
    assert secured.ran == []


def test_the_old_dialect_within_tls_is_refused(secured: Service):
    old = legacy.encode_call(Call(encode_text("add"), [2, 3], {}))
    with pytest.raises(AssertionError, match="no answer"):
        exchange(secured, tls.credentials(), old)
    assert secured.ran == []


@pytest.mark.parametrize("cut", [1, 6, 60])
def test_silent_clients_within_the_handshake_delay_nobody(
        secured: Service, monkeypatch, cut: int):
    monkeypatch.setattr(server_connection, "GREETING_TIME", 1.5)
    session = tls.Session(tls.credentials(), secured.address, server=False)
    session.write(greeted(ADD))
    hello = session.output()
    silent = [Raw(secured.address, hello[:cut]) for _ in range(50)]
    assert secured.call("add", 2, 3) == 5
    assert secured.server.connections >= 50  # it did not have to wait for their end
    for raw in silent:
        with raw:
            raw.rest()
            assert raw.seconds < server_connection.GREETING_TIME + patience(2)


def test_whole_hellos_of_one_host_have_a_share_and_hold_up_nobody_else(secured: Service):
    hello = tls_hello()
    with contextlib.ExitStack() as opened:
        flood = [opened.enter_context(Raw(secured.address, hello, source="127.0.0.9"))
                 for _ in range(3 * MOST)]
        assert secured.call("add", 2, 3) == 5
        # Clients for which there is no time are told so in the clear.
        first = [raw.sock.recv(1) for raw in flood]
    refused = first.count(bytes((FAILURE,)))
    assert refused + first.count(bytes((tls.HELLO,))) == len(flood)
    assert refused > MOST


def test_a_full_peer_says_so_in_the_clear_and_is_believed(secured: Service, configure):
    configure(max_connections=1)
    waiting = secured.call("add", 1, 1)
    assert waiting == 2
    until(lambda: secured.server.connections == 1)
    with pytest.raises(net.PeerBusy, match="NET_MAX_CONNECTIONS"):
        exchange_fresh(secured)


def exchange_fresh(service: Service) -> Any:
    """A connection of its own, beside the pooled one."""
    return process.client.connect(service.address, 5)


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"".join(encode_refusal(0, net.NetError("not believed"))),
    HEADER.pack(FAILURE, 0, 0, 0, 0xffffff) + b"{", bytes((FAILURE,)),
], ids=["HTTP", "another refusal", "a long refusal", "the beginning of one"])
def test_what_answers_without_tls_is_not_believed(configure, port_range, answer: bytes):
    configure(secret=SECRET)
    stranger = Stranger(port_range.start, says(answer))
    try:
        with pytest.raises(net.AuthenticationError, match="does not speak TLS") as caught:
            call(stranger, "add", 2, 3)
        assert caught.value.ran == "no"
    finally:
        stranger.stop()


@pytest.mark.parametrize("size", [1, 100, 500])
def test_a_handshake_that_is_cut_runs_nothing(secured: Service, size: int):
    with Proxy(secured.address, reply=Way(cut=size)) as proxy:
        with pytest.raises(net.PeerUnreachable, match="during the TLS handshake") as caught:
            secured.call("add", 2, 3, at=proxy.address)
    assert caught.value.ran == "no" and secured.ran == []


def test_bytes_that_were_changed_on_the_way_end_the_connection_of_a_call(secured: Service):
    changing = threading.Event()

    def change(offset: int, data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 1,)) if changing.is_set() else data

    with Proxy(secured.address, reply=Way(change=change)) as proxy:
        assert secured.call("add", 2, 3, at=proxy.address) == 5
        changing.set()
        with pytest.raises(net.PeerLost, match="TLS failed") as caught:
            secured.call("add", 4, 5, at=proxy.address)
        assert caught.value.ran == "maybe"
    with Proxy(secured.address, request=Way(change=change)) as proxy:
        with pytest.raises(net.NetError):
            secured.call("add", 6, 7, at=proxy.address)
    assert [args for _, args in secured.ran] == [(2, 3), (4, 5)]


@pytest.mark.parametrize("kind, name, host, fits", [
    ("DNS", "peer.app-net", "192.0.2.1", True), ("DNS", "NAS.lan", "nas.LAN", True),
    ("DNS", "nas.lan", "other.lan", False), ("DNS", "192.0.2.1", "192.0.2.1", True),
    ("IP Address", "192.0.2.1", "192.0.2.1", True), ("IP Address", "192.0.2.1", "nas.lan", False),
    ("IP Address", "2001:DB8:0:0:0:0:0:1", "2001:db8::1", True),
    ("email", "peer.app-net", "peer.app-net", False), ("URI", "192.0.2.1", "192.0.2.1", False),
])
def test_a_certificate_is_for_the_hosts_that_it_names(kind, name, host, fits):
    assert tls.is_for({"subjectAltName": (("DNS", "example.org"), (kind, name))}, host) is fits
    assert not tls.is_for({}, host)


def test_without_a_place_for_a_short_file_a_secret_is_an_error_that_says_so(
        configure, monkeypatch, tmp_path: Path):
    configure(secret=SECRET)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(net.SettingError, match="TMPDIR"):
        tls.credentials()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Full:
        def load_cert_chain(self, path: str, password: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(net.SettingError, match="TMPDIR.*No space left"):
        tls._load_leaf(Full(), make_leaf(SECRET))
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_settings_of_a_running_peer_stops_it_and_can_be_mended(
        service: Service, configure, caplog):
    configure(secret_file="/nowhere/at/all")
    with pytest.raises(net.PeerBusy, match="settings for security"):
        with Raw(service.address, greeted(ADD)) as raw:
            raw.reply()
    assert "no caller is served any more" in caplog.text
    settings.reset()
    assert service.call("add", 4, 5) == 9
    assert service.ran == [("add", (4, 5))]


def test_a_secret_counts_for_the_next_connection(service: Service, configure):
    """There is no earlier connection, so the server wakes up for this one only."""
    configure(secret=SECRET)
    with pytest.raises(net.AuthenticationError):
        with Raw(service.address, greeted(ADD)) as raw:
            raw.reply()
    assert service.ran == []
    assert service.call("add", 4, 5) == 9


def test_a_pooled_connection_of_the_open_time_is_not_used_under_the_secret(service, configure):
    assert service.call("add", 2, 3) == 5
    configure(secret=SECRET)
    # Both are this process, so the server changes, too, and the call goes through TLS.
    until(lambda: service.server._known is not None)
    assert service.call("add", 2, 3) == 5
    with pytest.raises(net.AuthenticationError):
        with Raw(service.address, greeted(ADD)) as raw:
            raw.reply()
    assert len(service.ran) == 2


# ------------------------------------------------------------------------------ settings

@pytest.mark.parametrize("variables, text", [
    ({"NET_SECRET": "too short"}, "16 characters"),
    ({"NET_SECRET": ""}, "16 characters"),
    ({"NET_SECRET": " " * 20}, "16 characters"),
    ({"NET_SECRET_FILE": ""}, "must name a file"),
    ({"NET_SECRET_FILE": "/nowhere/at/all"}, "cannot be read"),
    ({"NET_SECRET_FILE": "{folder}"}, "cannot be read"),
    ({"NET_SECRET_FILE": "{short}"}, "16 characters"),
    ({"NET_SECRET": SECRET, "NET_SECRET_FILE": "{good}"}, "more than one is set"),
    ({"NET_SECRET": SECRET, "NET_TLS_CERT": "{cert}"}, "more than one is set"),
    ({"NET_TLS_CERT": "{cert}"}, "NET_TLS_KEY, NET_TLS_CA must be set"),
    ({"NET_TLS_CERT": "{cert}", "NET_TLS_KEY": "{key}"}, "NET_TLS_CA must be set"),
    ({"NET_TLS_CERT": "{cert}", "NET_TLS_KEY": "{other}", "NET_TLS_CA": "{ca}"}, "cannot be used"),
    ({"NET_TLS_CERT": "{cert}", "NET_TLS_KEY": "{locked}", "NET_TLS_CA": "{ca}"}, "not encrypted"),
    ({"NET_TLS_CERT": "{cert}", "NET_TLS_KEY": "{key}", "NET_TLS_CA": "{good}"}, "no cert"),
    ({"NET_TLS_CERT": "{cert}", "NET_TLS_KEY": "{key}", "NET_TLS_CA": "/no"}, "cannot be read"),
])
def test_a_mistake_in_the_settings_is_an_error_at_launch(tmp_path, variables, text):
    studio = Authority(tmp_path)
    one, locked = studio.issue("one"), studio.issue("locked", password=b"locked")
    (tmp_path / "short").write_text("short")
    (tmp_path / "good").write_text(SECRET)
    places = dict(folder=tmp_path, short=tmp_path / "short", good=tmp_path / "good",
                  cert=one.tls_cert, key=one.tls_key, ca=one.tls_ca, locked=locked.tls_key,
                  other=studio.issue("two").tls_key)
    filled = {name: value.format(**places) for name, value in variables.items()}
    script = "import net\ntry:\n    @net.connect\n    def f(): pass\n" \
             "except net.SettingError as problem:\n    print(problem)\nelse:\n    print('NO ERROR')"
    printed = run_python("-c", script, **filled).stdout
    assert text in printed
    assert SECRET not in printed and "too short" not in printed


def test_a_secret_without_the_extra_says_what_to_install():
    script = "import sys; sys.modules['cryptography'] = None\nimport net\n" \
             "try: net.Peer()\nexcept net.SettingError as problem: print(problem)"
    assert "pip install 'app-net[secure]'" in run_python("-c", script, NET_SECRET=SECRET).stdout


def test_certificates_need_the_standard_library_only(tmp_path: Path):
    files = Authority(tmp_path).issue("one")
    script = "import sys; sys.modules['cryptography'] = None\nimport net\n" \
             "@net.connect\ndef f(): return 7\nprint(f(peer=net.Peer().id))"
    assert run_python("-c", script, **files.variables()).stdout == "7\n"


def test_the_command_makes_a_secret_that_is_taken(configure):
    made = run_python("-m", "net", "secret").stdout.strip()
    other = run_python("-m", "net", "secret").stdout.strip()
    assert len(made) >= 40 and made != other
    configure(secret=made)
    assert tls.credentials()


# ------------------------------------------------------------------------------ nothing leaks

def test_the_secret_shows_nowhere(secured: Service, configure, caplog):
    caplog.set_level(logging.DEBUG)
    shown = [repr(settings.secret), str(settings.secret), f"{settings.secret}", repr(net.SECRET),
             repr(vars(settings)), repr(tls.credentials()), str(net.info()), repr(net.Peer())]
    for bad in (SECRET[:10], "", 7, b"bytes are no text"):
        with pytest.raises(net.SettingError) as caught:
            configure(secret=bad)
        shown += [str(caught.value), repr(caught.value), *map(str, caught.value.args)]
    with pytest.raises(net.AuthenticationError) as refused:
        with Raw(secured.address, greeted(ADD)) as raw:
            raw.reply()
    shown += ["".join(traceback.format_exception(
        type(refused.value), refused.value, refused.value.__traceback__)), caplog.text]
    assert not [text for text in shown if SECRET[:10] in text]
    with pytest.raises(TypeError):
        __import__("pickle").dumps(settings.secret)


def test_key_material_is_for_nobody_else_and_gone_once_loaded(configure, monkeypatch, tmp_path):
    seen = []
    real = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, path: str, *args: Any, **kwargs: Any) -> None:
        status = os.stat(path)
        seen.append((stat.S_IMODE(status.st_mode), Path(path).read_bytes()))
        real(self, path, *args, **kwargs)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    configure(secret=SECRET)
    tls.credentials()
    assert [mode for mode, _ in seen] == [0o600, 0o600]
    assert all(b"ENCRYPTED PRIVATE KEY" in content for _, content in seen)
    assert list(tmp_path.iterdir()) == []


def test_a_hello_says_neither_who_nor_where(secured: Service, configure):
    configure(group="render-secret-project")
    session = tls.Session(tls.credentials(), secured.address, server=False)
    session.write(greeted(ADD))
    hello = session.output()
    assert b"127.0.0.1" not in hello and b"app-net" not in hello and b"render" not in hello
    assert encode_preface()[:8] not in hello and b'"tag"' not in hello


# ------------------------------------------------------------------------------ redirected

@pytest.fixture
def redirected(secured: Service, monkeypatch) -> Iterator[Any]:
    """The address of a peer from which somebody leads all connections to ``secured``."""
    # Loopback addresses are let through, for tunnels; these stand for those of two hosts.
    monkeypatch.setattr(destination, "is_loopback", lambda host: False)
    settings.set("unix", False)
    with Proxy(secured.address) as proxy:
        yield proxy.address


def test_a_call_that_is_led_to_another_holder_of_the_secret_does_not_run(secured, redirected):
    assert secured.call("add", 2, 3) == 5
    for _ in range(2):
        with pytest.raises(net.AuthenticationError, match="somebody redirects it") as caught:
            secured.call("add", 4, 5, at=redirected)
        assert caught.value.ran == "no" and caught.value.address == redirected
    assert secured.ran == [("add", (2, 3))]


@pytest.mark.parametrize("name, is_led", [("peer.app-net", False), ("127.0.0.1", True)])
def test_under_certificates_a_call_is_led_only_where_its_address_is_named(
        configure, monkeypatch, tmp_path, name, is_led):
    configure(**Authority(tmp_path).issue("one", [name])._asdict())
    monkeypatch.setattr(destination, "is_loopback", lambda host: False)
    settings.set("unix", False)

    async def add(at: Any) -> Any:
        return await aio.call(process.client, at, encode_text("add"), (2, 3), {}, 10)

    with Service() as service, Proxy(service.address) as proxy:
        for at, arrives in ((service.address, True), (proxy.address, is_led)):
            for call in (lambda: service.call("add", 2, 3, at=at), lambda: asyncio.run(add(at))):
                if arrives:
                    assert call() == 5
                    continue
                with pytest.raises(net.AuthenticationError, match="somebody redirects") as caught:
                    call()
                assert caught.value.ran == "no"
        assert len(service.ran) == (4 if is_led else 2)


def test_nor_does_an_awaited_one(secured, redirected):
    def add(at: Any) -> Any:
        return asyncio.run(aio.call(process.client, at, encode_text("add"), (2, 3), {}, 10))

    assert add(secured.address) == 5
    with pytest.raises(net.AuthenticationError, match="somebody redirects it") as caught:
        add(redirected)
    assert caught.value.ran == "no" and len(secured.ran) == 1


def test_a_search_does_not_take_it_for_the_peer_that_was_meant(secured, redirected):
    found = look_at([secured.address, redirected], 5)
    assert redirected not in [answer.address for answer in found.answers]
    (where, told), = found.strangers
    assert where == redirected and "somebody redirects it" in told


def test_events_are_not_heard_from_it(secured, redirected):
    class Heard(Receiver):
        def __init__(self) -> None:
            self.came: Queue[Any] = Queue()

        def received(self, channel: Any, event: Any) -> None:
            self.came.put(event)

        def ended(self, channel: Any, problem: net.NetError) -> None:
            self.came.put(problem)

    heard, loop = Heard(), Loop("net-test")
    for address in (secured.address, redirected):
        dial(loop, Endpoint.of(address), lambda to: [encode_preface(to=to)],
             caller_session(Limits()), heard, tls.credentials())
    first, second = heard.came.get(timeout=patience(10)), heard.came.get(timeout=patience(10))
    assert {type(first), type(second)} == {Hello, net.AuthenticationError}


def test_a_peer_behind_a_nat_says_where_it_is_reached(secured, redirected):
    settings.set("advertise", "%s:%d" % redirected)
    assert secured.call("add", 2, 3, at=redirected) == 5


# ------------------------------------------------------------------------------ roles

@pytest.mark.parametrize("secured", [{}, {"NET_SECRET": SECRET}], ids=["open", "secret"])
def test_only_peers_of_a_group_may_call_what_is_for_it(peer_process, configure, secured: dict):
    peer = peer_process(APPLICATION, **secured)
    configure(secret=secured.get("NET_SECRET"))
    for group in (None, "lighting", "Render"):
        configure(group=group)
        with pytest.raises(net.AuthenticationError, match="group render") as caught:
            call(peer, "render")
        assert caught.value.ran == "no"
        assert call(peer, "add", 2, 3) == 5
    configure(group="render")
    assert call(peer, "render") == "rendered"


def test_under_certificates_the_group_is_that_of_the_certificate(peer_process, configure, tmp_path):
    studio = Authority(tmp_path)
    peer = peer_process(APPLICATION, **studio.issue("server").variables())
    configure(group="render", **studio.issue("none")._asdict())
    with pytest.raises(net.AuthenticationError):
        call(peer, "render")
    configure(**studio.issue("other", group="lighting")._asdict())
    with pytest.raises(net.AuthenticationError, match="caller is of lighting"):
        call(peer, "render")
    configure(group=None, **studio.issue("right", group="render")._asdict())
    assert call(peer, "render") == "rendered"


def test_under_a_secret_the_group_is_what_the_caller_says(secured: Service):
    secured.server._dispatch._groups[encode_text("add")] = frozenset({"render"})
    with pytest.raises(net.AuthenticationError, match="caller is of lighting"):
        exchange(secured, tls.credentials(), encode_preface("lighting") + ADD)
    assert secured.ran == []
    assert exchange(secured, tls.credentials(), encode_preface("render") + ADD) == 5


def test_the_certificate_of_a_secret_tells_strangers_no_group(peer_process):
    """A server shows it before the client has proved anything."""
    peer = peer_process(APPLICATION, NET_SECRET=SECRET, NET_GROUP="hush-project")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(peer.address, patience(10))) as sock:
        shown = sock.getpeercert(True)
    assert b"peer.app-net" in shown and b"hush-project" not in shown


def test_the_old_dialect_belongs_to_no_group(peer_process):
    peer = peer_process(APPLICATION)
    old = legacy.encode_call(Call(encode_text("render"), [], {}))
    with Raw(peer.address, old) as raw:
        with pytest.raises(net.RemoteError, match="for peers of the group render"):
            legacy.Reply(legacy.BASE64, raw.rest()).value(None, b"")


@pytest.mark.parametrize("groups", ["render", [], [""], [None], 7])
def test_groups_that_are_no_names_are_refused(groups: Any):
    with pytest.raises(TypeError):
        net.connect("x", groups=groups)


def test_files_name_the_settings(tmp_path: Path):
    assert set(Files("a", "b", "c").variables()) == {"NET_TLS_CERT", "NET_TLS_KEY", "NET_TLS_CA"}
