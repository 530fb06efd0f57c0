"""A file that is run as a program, and the same file imported elsewhere: one application."""
from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Callable, Iterator

import pytest

import net
from net.peer import _Peer
from net.wire import registered

# PeerProcess writes it to application.py and runs that.
APPLICATION = """
import dataclasses, enum
import net

class RenderError(Exception):
    pass

@net.value
@dataclasses.dataclass
class Shot:
    name: str

@net.value
class Quality(enum.Enum):
    DRAFT = 1

@net.connect
def render(shot, quality=Quality.DRAFT):
    if shot.name == "broken":
        raise RenderError(shot.name)
    return Shot(shot.name + " done"), quality

class Scope:
    @staticmethod
    @net.connect
    def read():
        return "scope"
"""


@pytest.fixture
def imported(tmp_path, monkeypatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import the application here, as a module of a name."""
    monkeypatch.syspath_prepend(tmp_path)
    values = registered.registry
    registries = (_Peer.CONNECTIONS, values.classes, values.names, sys.modules)
    before = [set(registry) for registry in registries]

    def find(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(APPLICATION)
        return importlib.import_module(name)

    yield find
    for registry, known in zip(registries, before):
        for name in registry.keys() - known:
            del registry[name]


@pytest.fixture
def application(imported) -> ModuleType:
    """The same application, imported here."""
    return imported("application")


def test_a_program_and_its_module_imported_elsewhere_meet(peer_process, application: Any):
    there = peer_process(APPLICATION)
    done, quality = application.render(application.Shot("sc01"), peer=there.id)
    assert type(done) is application.Shot and done.name == "sc01 done"
    assert quality is application.Quality.DRAFT
    assert application.Scope.read(peer=there.id) == "scope"
    with pytest.raises(application.RenderError, match="broken") as caught:
        application.render(application.Shot("broken"), peer=there.id)
    assert isinstance(caught.value, net.RemoteError)


def test_a_program_that_is_run_calls_another_where_it_is_imported(peer_process, application: Any):
    there = peer_process(APPLICATION)
    there.execute(f"""
        here = "127.0.0.1:{net.Peer().port}"
        try:
            print(render(Shot("sc01"), peer=here)[0] == Shot("sc01 done"))
            render(Shot("broken"), peer=here)
        except RenderError as error:
            print("caught", error)
    """)
    assert there.read_line() == "True"
    assert there.read_line() == "caught broken"


@pytest.mark.parametrize("alter_sys", [False, True])
def test_a_program_that_a_profiler_runs_meets_its_module(
        peer_process, imported, tmp_path, alter_sys):
    """They run it as a main program, and the main module that Python has is their own; or it was
    the program's only while it ran."""
    studio: Any = imported("studio")
    there = peer_process(f"""
        import runpy, sys
        import net
        sys.path.insert(0, {str(tmp_path)!r})
        program = runpy.run_module("studio", run_name="__main__", alter_sys={alter_sys})
    """)
    done, quality = studio.render(studio.Shot("sc01"), peer=there.id)
    assert type(done) is studio.Shot and quality is studio.Quality.DRAFT
    with pytest.raises(studio.RenderError, match="broken"):
        studio.render(studio.Shot("broken"), peer=there.id)
    there.execute(f"""
        here = {str(net.Peer().id)!r}
        try:
            print(program["render"](program["Shot"]("sc01"), peer=here)[0])
            program["render"](program["Shot"]("broken"), peer=here)
        except program["RenderError"] as error:
            print("caught", error)
    """)
    assert there.read_line() == "Shot(name='sc01 done')"
    assert there.read_line() == "caught broken"


# ------------------------------------------------------- several applications on one network

def test_the_peers_of_a_function_are_those_of_its_application(peer_process):
    first, second = peer_process(APPLICATION), peer_process(APPLICATION, NET_GROUP="render")
    peer_process("""
        import net

        @net.connect("other.run")
        def run(x):
            return "another application"
    """)
    first.execute("print(len(net.peers()), [peer.port for peer in render.peers()])")
    assert first.read_line() == f"2 [{second.address[1]}]"
    first.execute("print(len(render.peers('render')), len(render.peers(groups=['other'])), "
                  "len(render.peers(hubs_only=True)), len(render.peers(on_host=True)))")
    assert first.read_line() == "1 0 0 1"


def test_a_function_that_a_peer_registers_late_is_found(peer_process):
    first, second = peer_process(APPLICATION), peer_process("import net\nnet.Peer()")
    first.execute("print([peer.port for peer in render.peers()])")
    assert first.read_line() == "[]"
    second.execute("""
        @net.connect("application.render")
        def render(shot, quality=None):
            return "late"
    """)
    first.execute("""
        import time
        ends = time.monotonic() + 5
        while not render.peers() and time.monotonic() < ends:
            time.sleep(0.05)
        print(render(None, peer=render.peers()[0]))
    """)
    assert first.read_line(10) == "late"
