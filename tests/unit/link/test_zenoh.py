"""Circuits through an engine, on a fake network of it."""
from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Iterator, List

import pytest

from fake_zenoh import FakeZenoh
from net.errors import SettingError
from net.link import zenoh as module
from net.link.authority import NO_TLS
from net.link.base import Deadline, Endpoint
from net.link.carriers import Carriers
from net.link.zenoh import (DATA, END, HEAD, OPEN, RESET, SUFFIX, WINDOW, Presence,
                            Router, ZenohCarrier)
from net.process import Process
from net.run.loop import Loop
from net.settings import Settings
from service import until
from times import patience

PATIENCE = patience(10)
ROUTER = Router("tls", "hub.example", 7447)


def kind(data: bytes) -> int:
    return HEAD.unpack_from(data)[0]


class Made:
    """Carriers on one network.

    :ivar zenoh: the network.
    """

    def __init__(self) -> None:
        self.zenoh = FakeZenoh()
        self.opened = ExitStack()

    def carrier(self) -> ZenohCarrier:
        made = ZenohCarrier(os.urandom(16).hex(), (ROUTER,), Loop("net-engine-test"))
        self.opened.callback(made.close)
        return made

    def listener(self, carrier: ZenohCarrier, backlog: int = 5) -> Any:
        made = carrier.listen(Endpoint("zenoh", carrier.instance + SUFFIX, 3010), backlog)
        self.opened.callback(made.close)
        carrier.wait(PATIENCE)
        return made

    def pair(self) -> List[socket.socket]:
        """Both ends of a circuit."""
        self.server, self.client = self.carrier(), self.carrier()
        listener = self.listener(self.server)
        ours = self.connect(listener.endpoint)
        return [ours, self.accept(listener)]

    def connect(self, endpoint: Endpoint, seconds: float = PATIENCE) -> socket.socket:
        return self.keep(self.client.connect(endpoint, Deadline(seconds)))

    def accept(self, listener: Any) -> socket.socket:
        found: List[Any] = []

        def try_it() -> bool:
            try:
                found.append(listener.accept())
            except BlockingIOError:
                pass
            return bool(found)
        until(try_it, PATIENCE)
        return self.keep(found[0][0])

    def keep(self, sock: socket.socket) -> socket.socket:
        self.opened.callback(sock.close)
        sock.settimeout(PATIENCE)
        return sock


@pytest.fixture
def made(monkeypatch) -> Iterator[Made]:
    made = Made()
    monkeypatch.setattr(module, "load_zenoh", lambda: made.zenoh)
    monkeypatch.setattr(ZenohCarrier, "_why_silent", lambda self, router: "")
    monkeypatch.setattr(module, "CLOSE_TIME", patience(0.1))
    yield made
    made.zenoh.passes = lambda data: True
    made.opened.close()


def received(sock: socket.socket) -> bytes:
    """All that comes, to the end."""
    pieces = []
    try:
        while True:
            pieces.append(sock.recv(65536))
            if not pieces[-1]:
                break
    except ConnectionError:
        pass
    return b"".join(pieces)


# ------------------------------------------------------------------------------ what is carried

def test_a_missing_frame_ends_the_circuit_on_both_sides(made):
    ours, theirs = made.pair()
    seen: List[bytes] = []

    def passes(data: bytes) -> bool:
        seen.extend([data] if kind(data) == DATA else [])
        return kind(data) != DATA or len(seen) != 2

    made.zenoh.passes = passes
    for number in range(3):
        ours.sendall(b"%d" % number)
        until(lambda: len(seen) > number, PATIENCE)
    assert received(theirs) in (b"0", b"")
    assert received(ours) == b""
    until(lambda: not made.server._circuits and not made.client._circuits, PATIENCE)


def test_frames_of_another_process_for_a_circuit_are_ignored(made):
    ours, theirs = made.pair()
    ours.sendall(b"x")
    assert theirs.recv(10) == b"x"
    name = HEAD.unpack_from(made.zenoh.sent[0])[2]
    key = f"app-net/1/to/{made.server.instance}"
    for number in range(5):
        made.zenoh.deliver(key, HEAD.pack(DATA, False, name, bytes(16), number) + b"forged")
    made.zenoh.deliver(key, HEAD.pack(RESET, False, name, bytes(16), 0))
    ours.sendall(b"y")
    assert theirs.recv(10) == b"y"


@pytest.mark.parametrize("data", [b"", b"x" * 10, HEAD.pack(99, 1, bytes(16), bytes(16), 0),
                                  HEAD.pack(OPEN, 0, bytes(16), bytes(16), 0) + b"x"])
def test_frames_without_sense_harm_nothing(made, data):
    ours, theirs = made.pair()
    made.zenoh.deliver(f"app-net/1/to/{made.server.instance}", data)
    ours.sendall(b"y")
    assert theirs.recv(10) == b"y"


def test_a_frame_for_a_circuit_that_is_not_known_is_answered_with_its_end(made):
    made.pair()
    stranger = made.carrier()
    stranger.wait(PATIENCE)
    name, key = os.urandom(16), f"app-net/1/to/{made.server.instance}"
    made.zenoh.deliver(key, HEAD.pack(DATA, False, name, bytes.fromhex(stranger.instance), 0))
    until(lambda: any(HEAD.unpack_from(data)[:3] == (RESET, True, name)
                      for data in made.zenoh.sent), PATIENCE)


# ------------------------------------------------------------------------------ slow receivers

def in_flight(made: Made) -> int:
    return sum(len(data) - HEAD.size for data in made.zenoh.sent if kind(data) == DATA)


def test_made_up_senders_are_not_remembered_for_ever(made, monkeypatch):
    monkeypatch.setattr(module, "MAX_PUBLISHERS", 10)
    ours, theirs = made.pair()
    key = module._key("to", made.server.instance)
    for number in range(1, 100):
        made.zenoh.deliver(key, module.HEAD.pack(module.DATA, 0, b"n" * 16,
                                                 number.to_bytes(16, "big"), 0))
    # Behind all of these; and the one with a circuit is still known.
    theirs.sendall(b"still")
    assert ours.recv(5) == b"still"
    publishers = made.server._publishers
    assert len(publishers) <= 10 and bytes.fromhex(made.client.instance) in publishers


def test_a_sender_is_at_most_a_window_ahead_of_a_slow_receiver(made):
    ours, theirs = made.pair()
    data = os.urandom(3 * WINDOW)
    sender = threading.Thread(target=ours.sendall, args=(data,))
    sender.start()
    circuit = next(iter(made.server._circuits.values()))
    # What the receiving application may have without having asked for it: its socket's buffer.
    until(lambda: in_flight(made) == circuit._granted, PATIENCE)
    assert circuit._granted == circuit._taken + WINDOW or circuit._granted == WINDOW
    assert sum(map(len, circuit._queue)) <= WINDOW
    got = b""
    while len(got) < len(data):
        got += theirs.recv(65536)
    sender.join(PATIENCE)
    assert got == data


def test_a_peer_that_sends_more_than_it_may_is_cut_off(made):
    ours, theirs = made.pair()
    ours.sendall(b"x")
    assert theirs.recv(10) == b"x"
    name = HEAD.unpack_from(made.zenoh.sent[0])[2]
    key, sender = f"app-net/1/to/{made.server.instance}", bytes.fromhex(made.client.instance)
    for number in range(1, 40):
        made.zenoh.deliver(key, HEAD.pack(DATA, False, name, sender, number) + bytes(WINDOW // 8))
    assert len(received(theirs)) <= WINDOW + 1
    until(lambda: not made.server._circuits, PATIENCE)


# ------------------------------------------------------------------------------ begin and end

def test_a_circuit_that_nobody_accepts_ends_in_time(made, monkeypatch):
    monkeypatch.setattr(module, "OPEN_TIME", 0.1)
    made.pair()
    made.zenoh.passes = lambda data: kind(data) != OPEN
    endpoint = Endpoint("zenoh", made.server.instance + SUFFIX, 3010)
    with pytest.raises(socket.timeout):
        made.connect(endpoint)
    started = made.keep(made.client.start(endpoint))
    assert received(started) == b""


def test_it_is_asked_again_while_there_is_no_room(made, monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN", 0.01)
    made.client, server = made.carrier(), made.carrier()
    listener = made.listener(server, backlog=1)
    first = made.connect(listener.endpoint)
    second: List[socket.socket] = []
    waiting = threading.Thread(target=lambda: second.append(made.connect(listener.endpoint)))
    waiting.start()
    until(lambda: sum(kind(data) == OPEN for data in made.zenoh.sent) > 3, PATIENCE)
    assert not second
    made.accept(listener)
    waiting.join(PATIENCE)
    theirs = made.accept(listener)
    second[0].sendall(b"second")
    assert theirs.recv(10) == b"second"
    first.close()


def test_a_port_that_is_not_served_is_refused(made):
    made.pair()
    with pytest.raises(ConnectionRefusedError, match="knows of no such peer"):
        made.connect(Endpoint("zenoh", made.server.instance + SUFFIX, 3011))
    # The news that it has closed has not come yet.
    made.client.present.change(made.server.instance, 3011, "0", True)
    with pytest.raises(ConnectionRefusedError, match="no such port"):
        made.connect(Endpoint("zenoh", made.server.instance + SUFFIX, 3011))


@pytest.mark.parametrize("host", ["studio", "studio.zenoh", "x" * 32 + SUFFIX, SUFFIX])
def test_a_host_that_is_no_process_is_an_error(made, host):
    made.client = made.carrier()
    with pytest.raises(OSError, match="no process of the engine"):
        made.connect(Endpoint("zenoh", host, 3010))


def test_it_listens_as_itself_only(made):
    with pytest.raises(OSError) as caught:
        made.carrier().listen(Endpoint("zenoh", "0" * 32 + SUFFIX, 0), 5)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_when_the_other_process_is_lost_its_circuits_end(made):
    ours, theirs = made.pair()
    made.zenoh.lose(made.server._session)
    assert received(ours) == b""
    until(lambda: not made.client._circuits, PATIENCE)
    assert not made.client.present.served()


def test_what_had_come_whole_before_the_process_was_lost_is_still_given(made):
    ours, theirs = made.pair()
    ours.sendall(b"question")
    assert theirs.recv(10) == b"question"
    data = os.urandom(WINDOW // 2)
    sender = threading.Thread(target=lambda: (theirs.sendall(data), theirs.close()))
    sender.start()
    until(lambda: any(kind(data) == END for data in made.zenoh.sent), PATIENCE)
    made.zenoh.lose(made.server._session)
    assert received(ours) == data
    sender.join(PATIENCE)


def test_what_was_written_leaves_before_the_engine_is_closed(made):
    ours, theirs = made.pair()
    data = os.urandom(100_000)
    theirs.sendall(data)
    theirs.close()
    made.server.close()
    assert received(ours) == data
    assert not made.server._circuits


# ------------------------------------------------------------------------------ the session

def test_without_a_router_it_says_why_and_goes_on_trying(made, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    made.zenoh.up = False
    made.client, server = made.carrier(), made.carrier()
    endpoint = Endpoint("zenoh", server.instance + SUFFIX, 3010)
    first = threading.Event()
    monkeypatch.setattr(ZenohCarrier, "_why_silent",
                        lambda self, router: first.wait(PATIENCE) and "")
    with pytest.raises(BlockingIOError):  # its first attempt has not ended
        made.client.start(endpoint)
    first.set()
    listener = made.listener(server)
    with pytest.raises(ConnectionRefusedError, match="accepts connections, but no session"):
        made.connect(endpoint)
    assert not made.client.reached()
    made.zenoh.up = True
    until(lambda: made.client.present.has(server.instance, 3010), PATIENCE)
    ours, theirs = made.connect(endpoint), made.accept(listener)
    ours.sendall(b"x")
    assert theirs.recv(10) == b"x" and made.client.reached() and not made.client.problem


def test_what_changes_is_told_by_a_token_of_another_version(made, monkeypatch):
    monkeypatch.setattr(module, "CHANGE_TIME", 0.0)
    made.pair()
    heard: List[Any] = []
    made.client.present.heard = lambda *news: heard.append(news)
    made.server.changed()
    until(lambda: (made.server.instance, 3010, True) in heard, PATIENCE)
    assert (made.server.instance, 3010, False) not in heard
    assert made.client.present.has(made.server.instance, 3010)
    until(lambda: not [key for key in made.zenoh.tokens if key.endswith("/0")
                       and made.server.instance in key], PATIENCE)


def test_what_is_asked_of_all_each_other_process_answers(made):
    made.pair()
    made.server.answer = lambda question: [b"one of " + question, b"two of " + question]
    heard: List[bytes] = []
    made.client.ask(b"who", [], heard.append)
    until(lambda: len(heard) == 2, PATIENCE)
    assert heard == [b"one of who", b"two of who"]
    made.client.ask(b"who", [made.server.instance], heard.append)
    until(lambda: len(heard) == 4, PATIENCE)
    made.client.ask(b"who", ["0" * 32], heard.append)
    made.client.ask(b"x" * (module.MAX_QUESTION + 1), [], heard.append)
    made.client.ask(b"last", [], heard.append)
    until(lambda: len(heard) == 6, PATIENCE)
    assert heard[4] == b"one of last"
    until(lambda: len(made.zenoh.dropped) == 3, PATIENCE)  # nobody waits for more


def test_without_a_session_a_question_comes_to_nothing(made):
    made.zenoh.up = False
    made.client = made.carrier()
    made.client.ask(b"who", [], lambda data: None)
    done = threading.Event()
    made.client.soon(done.set)
    assert done.wait(PATIENCE)


def test_made_up_tokens_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(module, "MAX_SERVED", 3)
    monkeypatch.setattr(module, "MAX_VERSIONS", 2)
    present = Presence()
    for number in range(10):
        present.change("a", 1, str(number), True)
        present.change(str(number), 1, "0", True)
    assert len(present.served()) == 3
    present.change("a", 1, "0", False)
    assert present.has("a", 1)
    present.change("a", 1, "1", False)
    assert not present.has("a", 1)
    present.change("b", 1, "0", True)
    assert present.has("b", 1)


def test_a_port_is_there_while_any_version_of_its_token_is():
    present, heard = Presence(), []
    present.heard = lambda *news: heard.append(news)
    assert present.change("a", 1, "0", True) and present.change("a", 1, "1", True)
    assert present.change("a", 1, "0", False) and present.has("a", 1)
    assert not present.change("a", 1, "1", False) and not present.has("a", 1)
    assert not present.change("a", 1, "1", False)
    assert heard == [("a", 1, True), ("a", 1, True), ("a", 1, False)]


# ------------------------------------------------------------------------------ of a process

def carriers(**values: object) -> Carriers:
    settings = Settings()
    for name, value in values.items():
        settings.set(name, value)
    made = Carriers(settings, lambda: Loop("net-engine-test"))
    made.instance = "0" * 32
    return made


SECRET = "0123456789abcdef"


@pytest.mark.parametrize("values, text", [
    ({"engine": "zenoh", "router": "tls/hub.example:7447"}, "NET_SECRET"),
    ({"engine": "zenoh", "secret": SECRET}, "set NET_ROUTER to"),
    ({"router": "tls/hub.example:7447", "secret": SECRET}, "set NET_ENGINE=zenoh"),
    ({"engine": "zenoh", "router": "tcp/127.0.0.1:1,tls/hub.example:7447", "secret": SECRET,
      "host": "127.0.0.1"}, "NET_HOST=127.0.0.1 keeps this process on its own host"),
])
def test_settings_that_cannot_be_meant_are_refused(fresh_settings, values, text):
    with pytest.raises(SettingError, match=text):
        carriers(**values).listen(3010, 5)


def test_without_an_engine_its_addresses_cannot_be_reached(fresh_settings):
    made = carriers()
    assert made.listen(3010, 5) == [] and made.engine is None
    with pytest.raises(OSError, match="set NET_ENGINE"):
        made.to(("0" * 32 + SUFFIX, 3010))
    assert made.to(("127.0.0.1", 3010))[0].name == "tcp"


def test_a_process_that_was_forked_has_no_engine_and_says_so(fresh_settings, made):
    owner = carriers(engine="zenoh", router="tcp/hub.example:7447", secret=SECRET)
    listener, = owner.listen(3010, 5)
    engine = owner.engine
    assert engine is not None and owner.to(("1" * 32 + SUFFIX, 3010))[0] is engine
    made.opened.callback(engine.close)
    made.opened.callback(listener.close)
    engine.wait(PATIENCE)
    # As in a child: the parent's is kept, unused.
    owner._loop.abandon = lambda: None
    owner.forget()
    assert owner.engine is None and owner.listen(3010, 5) == []
    with pytest.raises(OSError, match="spawn"):
        owner.to(("1" * 32 + SUFFIX, 3010))
    engine._closing.clear()


def test_a_forked_child_closes_its_listeners_without_the_library_or_other_threads(
        fresh_settings, made):
    owner = carriers(engine="zenoh", router="tcp/hub.example:7447", secret=SECRET)
    (listener,), engine = owner.listen(3010, 5), owner.engine
    made.opened.callback(engine.close)
    engine.wait(PATIENCE)
    owner._loop.abandon = lambda: None
    token = engine._tokens[3010]
    with engine._lock, listener._lock:  # as threads of the parent may do at that moment
        owner.forget()
        closing = threading.Thread(target=listener.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive() and listener.fileno() < 0
    assert engine._tokens[3010] is token  # which is the parent's
    engine._closing.clear()


def test_a_forked_child_forgets_the_engine_before_its_servers_end(fresh_settings, monkeypatch):
    process, order = Process(fresh_settings), []
    monkeypatch.setattr(process.client, "forget", lambda: order.append("engine"))
    process.peers.append(SimpleNamespace(abandon=lambda: order.append("server")))
    process.on_fork()
    assert order == ["engine", "server"]


def test_the_end_of_a_process_closes_its_engine(fresh_settings, made):
    owner = carriers(engine="zenoh", router="tcp/hub.example:7447", secret=SECRET)
    owner.listen(3010, 5)
    owner.engine.wait(PATIENCE)
    assert made.zenoh.sessions
    owner.close()
    assert not made.zenoh.sessions
    owner.close()


def test_where_the_library_is_missing_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zenoh", None)
    with pytest.raises(SettingError, match=r"pip install 'app-net\[zenoh\]'"):
        module.load_zenoh()


@pytest.fixture
def alone(monkeypatch) -> ZenohCarrier:
    """A carrier on a network of its own, which tries its routers before it opens a session."""
    monkeypatch.setattr(module, "load_zenoh", FakeZenoh)
    return ZenohCarrier("0" * 32, (ROUTER,), Loop("net-engine-test"))


def test_a_silent_router_is_given_up(monkeypatch, alone):
    monkeypatch.setattr(module, "ROUTER_TIME", 0.05)
    silent = module.TcpCarrier().listen(Endpoint("tcp", "127.0.0.1", 0), 5)
    port = silent.endpoint.port
    assert alone._why_silent(Router("tcp", "127.0.0.1", port)) == ""
    alone._link_problem = lambda sock, *seconds: NO_TLS
    assert alone._why_silent(Router("tls", "127.0.0.1", port)) == \
        f"tls/127.0.0.1:{port} accepts connections, but no session: it does not speak TLS"
    silent.close()
    assert "refused" in alone._why_silent(Router("tcp", "127.0.0.1", port))


def test_a_router_that_answers_is_tried_before_those_that_do_not(monkeypatch, alone):
    routers = [Router("tcp", f"hub{number}.example", 7447) for number in range(4)]
    alone.routers = tuple(routers)
    monkeypatch.setattr(alone, "_why_silent", lambda router: "silent" * (router not in routers[2:]))
    opened: List[Any] = []
    monkeypatch.setattr(alone, "_open", lambda tried: opened.append(tried) or True)
    alone._attempt()
    assert opened == [[*routers[2:], *routers[:2]]]


def test_the_end_waits_for_what_the_library_does_and_for_nothing_else(made, monkeypatch):
    trying, go_on, opening = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(ZenohCarrier, "_why_silent",
                        lambda self, router: trying.set() or go_on.wait(PATIENCE) and "")
    carrier = made.carrier()
    carrier.open()
    assert trying.wait(PATIENCE)
    carrier.close()  # while its router does not answer
    assert not go_on.is_set()
    go_on.set()
    carrier._opener.join(PATIENCE)
    assert not made.zenoh.sessions  # the library was not used any more
    open_session, answered = made.zenoh.open, threading.Event()
    monkeypatch.setattr(made.zenoh, "open", lambda config: opening.set() or answered.wait(
        PATIENCE) and open_session(config))
    carrier = made.carrier()
    carrier.open()
    assert opening.wait(PATIENCE)
    ended = threading.Thread(target=carrier.close)
    ended.start()
    ended.join(patience(0.05))
    assert ended.is_alive()
    answered.set()
    ended.join(PATIENCE)
    assert not ended.is_alive() and not made.zenoh.sessions
