"""net.testing: peers for the tests of applications, and what can go wrong with them."""
from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import farm
import net
import net.testing
from net.discovery import known_peers
from net.settings import settings
from processes import environment
from times import patience

pytest_plugins = ["net.testing.plugin"]

BOTH = pytest.mark.parametrize("processes", [True, False], ids=["processes", "local"])


def test_peers_are_processes_that_run_the_application(net_peers):
    a, b, c = net_peers(3, app="farm")
    assert [farm.render("sc01", peer=peer) for peer in (a, b, c)] == ["sc01 rendered"] * 3
    assert {farm.pid(peer=peer) for peer in (a, b, c)} == {a.pid, b.pid, c.pid}
    assert os.getpid() not in {a.pid, b.pid, c.pid}
    assert {bytes(peer) for peer in net.peers()} == {bytes(peer.id) for peer in (a, b, c)}
    assert len(farm.render.peers()) == 3 and len(farm.render.all("sc01")) == 3
    assert a.call("farm.render", "sc02") == "sc02 rendered" and a.alive


def test_local_peers_share_the_process():
    with net.testing.peers(2, app="farm", processes=False) as [a, b]:
        assert a.id != b.id
        assert farm.pid(peer=a) == farm.pid(peer=b) == os.getpid()
        assert list(farm.frames(3, peer=b)) == [0, 1, 2]


def test_settings_are_those_of_the_network_and_go_back(monkeypatch):
    monkeypatch.setenv("NET_GROUP", "of the developer")
    before = dict(vars(settings))
    with net.testing.peers(2, group="farm", max_text=5000,
                           each=[{"name": "one", "is_hub": True}]) as [a, b]:
        assert [peer.address for peer in net.peers(hubs_only=True)] == [a.address]
        assert net.info(peer=b)["group"] == "farm" and "label" not in net.info(peer=b)
        assert net.GROUP == "farm" and net.HOST == "127.0.0.1" and net.NAME is None
        assert net.info(peer=a)["group"] == "farm" and net.info(peer=a)["label"] == "one"
        with pytest.raises(net.MessageTooLarge):
            net.pass_through([0] * 5000, peer=a)
    # What is read for the first time on the way out is there, too.
    assert {name: vars(settings).get(name) for name in before} == before


def test_two_networks_do_not_see_each_other():
    with net.testing.peers(1) as [a]:
        seen = {bytes(peer) for peer in net.peers(refresh=True)}
        with net.testing.peers(1) as [b]:
            assert bytes(b.id) in {bytes(peer) for peer in net.peers(refresh=True)}
            assert bytes(b.id) != bytes(a.id)
            other = subprocess.run(
                [sys.executable, "-m", "net", "peers", "--json"], stdout=subprocess.PIPE,
                env=environment(NET_PORT_START=a.address[1], NET_PORT_RANGE=0), text=True)
            assert str(b.address[1]) not in other.stdout and str(a.address[1]) in other.stdout
    assert seen == {bytes(a.id)}


def test_a_network_has_no_peers_of_the_one_before():
    with net.testing.peers(2) as before:
        assert all([known_peers().knows(peer.address) for peer in before])
    assert not any([known_peers().knows(peer.address) for peer in before])


def test_events_come_through(net_peers):
    a, = net_peers(1, app="farm")
    heard: queue.Queue = queue.Queue()

    @net.subscribe("rendered", peers=[a.id])
    def hear(shot):
        heard.put(shot)
    try:
        ends = time.monotonic() + patience(15)
        while heard.empty() and time.monotonic() < ends:
            farm.announce("sc01", peer=a)
            time.sleep(0.05)
        assert heard.get(timeout=patience(5)) == "sc01"
    finally:
        net.unsubscribe("rendered", hear)
        net.disconnect(hear)


@BOTH
def test_delay(processes):
    with net.testing.peers(2, app="farm", processes=processes) as [a, b]:
        assert farm.echo(b"x", peer=a) == b"x"
        a.delay(0.3)
        began = time.monotonic()
        assert farm.echo(b"x" * 300_000, peer=a) == b"x" * 300_000
        # There and back, and a large message not once for each piece of it.
        assert time.monotonic() - began >= 0.6
        farm.echo(b"x", peer=b)
        a.delay(0.03)
        while True:  # a search on a busy machine may end before
            found = [one for one in net.peers(refresh=True) if one.address == a.address]
            if found:
                break
        assert found[0].info["seconds"] >= 0.06
        a.delay(0.3)
        with pytest.raises(net.CallTimeout):
            farm.echo.on(a, timeout=0.2)(b"x")
        a.heal()
        assert farm.echo(b"x", peer=a) == b"x"


@BOTH
def test_loss_delays_and_loses_nothing(processes):
    with net.testing.peers(1, app="farm", processes=processes) as [a]:
        a.loss(0.2)
        data = os.urandom(200_000)
        assert farm.echo(data, peer=a) == data
        assert list(farm.frames(20, peer=a)) == list(range(20))
        with pytest.raises(ValueError):
            a.loss(1)


@BOTH
def test_cut(processes):
    with net.testing.peers(1, app="farm", processes=processes) as [a]:
        assert farm.render("x", peer=a)
        a.cut()
        for _ in range(3):
            with pytest.raises((net.PeerLost, net.PeerUnreachable)):
                farm.render("x", peer=a)
        a.heal()
        assert farm.render("x", peer=a) == "x rendered"


def test_a_peer_that_is_cut_is_found_by_nobody_until_it_is_healed(net_peers):
    a, b = net_peers(2)
    a.cut()
    assert [bytes(peer) for peer in net.peers(refresh=True)] == [bytes(b.id)]
    a.heal()
    assert len(net.peers(refresh=True)) == 2


@BOTH
def test_freeze(processes):
    with net.testing.peers(1, app="farm", processes=processes) as [a]:
        assert farm.render("x", peer=a)
        a.freeze()
        with pytest.raises(net.CallTimeout):
            farm.render.on(a, timeout=0.3)("x")
        a.heal()
        assert farm.render("x", peer=a) == "x rendered"


@BOTH
def test_full(processes):
    with net.testing.peers(1, app="farm", processes=processes) as [a]:
        assert farm.render("x", peer=a)
        a.full()
        with pytest.raises((net.PeerBusy, net.PeerLost)):
            farm.render("x", peer=a)
        with pytest.raises(net.PeerBusy, match="as its test wants it"):
            farm.render("x", peer=a)
        a.heal()
        assert farm.render("x", peer=a) == "x rendered"


@BOTH
def test_kill(processes):
    with net.testing.peers(2, app="farm", processes=processes) as [a, b]:
        assert farm.render("x", peer=a)
        a.kill()
        with pytest.raises((net.PeerLost, net.PeerUnreachable)):
            farm.render("x", peer=a)
        with pytest.raises(net.PeerUnreachable):
            farm.render("x", peer=a)
        assert farm.render("x", peer=b) == "x rendered"


def until(fact, seconds: float = 20) -> None:
    """Wait until a fact is true."""
    ends = time.monotonic() + patience(seconds)
    while not fact():
        assert time.monotonic() < ends, "it is not so"
        time.sleep(0.02)


@BOTH
def test_delay_and_loss_are_on_its_own_calls_too(processes):
    with net.testing.peers(2, app="farm", processes=processes) as [a, b]:
        a.delay(0.15)
        assert farm.seconds_of(b.id, peer=a) >= 0.3
        a.heal()
        a.loss(0.2)
        assert farm.seconds_of(b.id, peer=a) > 0


def test_a_peer_that_is_cut_reaches_and_hears_nobody(net_peers, tmp_path: Path):
    a, b = net_peers(2, app="farm")
    seen, heard = tmp_path / "seen", tmp_path / "heard"
    seen.touch()
    heard.touch()
    farm.listen_to(b.id, str(heard), peer=a)
    farm.keep_asking(b.id, str(seen), peer=a)

    def asks() -> bool:
        before = farm.how_many(peer=b)
        time.sleep(0.2)
        return farm.how_many(peer=b) > before

    def hears(word: str) -> bool:
        farm.announce(word, peer=b)
        return word in heard.read_text()

    until(lambda: asks() and "1\n" in seen.read_text() and hears("before"))
    a.full()  # which is about those that want to connect to it
    until(asks)
    a.heal()
    a.cut()
    until(lambda: not asks())
    until(lambda: seen.read_text().endswith("0\n0\n"))
    assert not hears("meanwhile") and not asks() and not hears("meanwhile")
    a.heal()
    until(lambda: asks() and seen.read_text().endswith("1\n") and hears("after"))


ALONE = """
import os
assert os.environ["NET_HOST"] == "127.0.0.1" and "NET_PORT_START" in os.environ, "not alone"
import net, studio
assert net.Peer().host == "127.0.0.1" and net.Peer().port >= 20_000
"""


def test_the_suite_of_the_page_is_green(tmp_path: Path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "testing.rst").read_text("utf-8")
    suite, application, block = (
        textwrap.dedent(found) for found in re.findall(
            r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", page))
    (tmp_path / "test_suite.py").write_text(
        suite + "\ndef test_block():\n" + textwrap.indent(block, "    "))
    (tmp_path / "studio.py").write_text(application)
    # Which launches the peer of the tests, as early as that may be.
    (tmp_path / "conftest.py").write_text(ALONE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "net.testing.plugin", "test_suite.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(NET_HOST=None, NET_PORT_START=None, PYTEST_DISABLE_PLUGIN_AUTOLOAD=1))
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout


WORKER = """
import os
import subprocess
import sys

import net

RANGE = net.PORT_START

def test_it_is_alone():
    assert list(net.peers()) == []
    assert str(RANGE) != os.environ.get("OTHER") and net.Peer().port in range(RANGE, RANGE + 6)
    if "OTHER" in os.environ:
        return
    os.environ["OTHER"] = str(RANGE)
    # As pytest-xdist starts its workers: with all that is in the environment by then.
    worker = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "net.testing.plugin",
                             __file__], stdout=subprocess.PIPE, text=True)
    assert worker.returncode == 0, worker.stdout
"""


def test_a_run_of_tests_within_another_is_alone_too(tmp_path: Path):
    (tmp_path / "test_alone.py").write_text(WORKER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "net.testing.plugin"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(NET_HOST=None, NET_PORT_START=None, PYTEST_DISABLE_PLUGIN_AUTOLOAD=1))
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


CHOSEN = "PYTEST_NET_PORT_START"


@pytest.mark.parametrize("said, is_said", [
    ({}, False), ({"NET_PORT_START": "24000"}, True), ({"NET_PORT": "24000"}, True),
    ({"NET_PORT_START": "24000", CHOSEN: "24000 by 1"}, False),
    ({"NET_PORT_START": "24000", CHOSEN: f"24000 by {os.getpid()}"}, True),
    # Somebody has said another one since.
    ({"NET_PORT_START": "25000", CHOSEN: "24000 by 1"}, True),
    ({CHOSEN: f"24000 by {os.getpid()}"}, False)])
def test_a_range_that_somebody_has_said_is_kept(monkeypatch, said, is_said):
    from net.testing import plugin  # pytest wants to load it first

    for name in ("NET_PORT_START", "NET_PORT", CHOSEN):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert plugin._is_said() is is_said


def test_an_application_that_cannot_be_loaded_is_an_error_that_says_why(capfd):
    with pytest.raises(net.NetError, match="not_there has ended with 1"):
        with net.testing.peers(1, app="not_there"):
            pytest.fail("there is no such application")
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_what_the_application_prints_is_shown(tmp_path: Path, monkeypatch, capfd):
    (tmp_path / "talker.py").write_text("print('hello from the application')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with net.testing.peers(1, app="talker") as [a]:
        assert net.null(peer=a) == "NULL"
    assert "hello from the application" in capfd.readouterr().err


def test_peers_that_have_faults_end_all_the_same(net_peers):
    a, b, c = net_peers(3, app="farm")
    a.freeze()
    b.kill()
    c.cut()
