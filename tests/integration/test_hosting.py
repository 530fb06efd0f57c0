"""A reloader that has loaded the application itself: its child takes over, with newer code."""
from __future__ import annotations

import pytest

from net.decorators import Connected, register
from net.identity import encode_text
from net.peer import LEAVE, _Peer

# A stand-in for what werkzeug and Django do: the same program again, with a variable that says so.
RELOADER = """
import os, subprocess, sys, types

sys.modules["werkzeug"] = types.ModuleType("werkzeug")
import net

@net.connect
def version():
    return os.environ.get("WERKZEUG_RUN_MAIN", "old"), os.getpid()

if "WERKZEUG_RUN_MAIN" not in os.environ:
    reloaded = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, env={**os.environ, **VARIABLES})
    ready = reloaded.stdout.readline().decode()
    print("child:", net.PeerId(ready.split()[-1].encode()), flush=True)
    print("parent:", net.Peer().launched, flush=True)
"""


def end(parent):
    parent.execute("reloaded.stdin.close(); reloaded.wait(); print('ended')")
    while parent.read_line() != "ended":
        pass


@pytest.fixture
def version():
    """A function that is only there."""
    yield register(lambda: None, "application.version")
    del _Peer.CONNECTIONS[encode_text("application.version")]


def test_the_process_that_a_reloader_starts_takes_the_place_of_its_peer(
        peer_process, port_range, version):
    parent = peer_process("VARIABLES = {'WERKZEUG_RUN_MAIN': 'true'}" + RELOADER)
    address = f"127.0.0.1:{port_range.start}"
    assert parent.read_line() == f"child: {address}", "it has the port of its parent"
    assert parent.read_line() == "parent: False"
    assert version(peer=address)[0] == "true"
    end(parent)


def test_any_other_child_serves_beside_its_parent(peer_process, port_range, version):
    parent = peer_process("VARIABLES = {'WERKZEUG_RUN_MAIN': 'no'}" + RELOADER)
    assert parent.read_line() == f"child: 127.0.0.1:{port_range.start + 1}"
    assert parent.read_line() == "parent: True"
    assert version(peer=parent.address)[0] == "old"
    end(parent)


def test_only_a_child_with_the_token_can_end_a_peer(peer_process, version):
    parent = peer_process("VARIABLES = {'WERKZEUG_RUN_MAIN': 'no'}" + RELOADER)
    leave = Connected(lambda token: None, LEAVE)
    for given in ("", "0" * 32, None, b"x"):
        assert leave(given, peer=parent.address) is False
    with pytest.raises(TypeError):
        leave(peer=parent.address)
    assert version(peer=parent.address)[0] == "old"
    end(parent)
