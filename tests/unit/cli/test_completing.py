"""Which words a line of ``app-net`` is completed by."""
from __future__ import annotations

import pytest

from net.cli import completing
from net.cli.completing import Completion, split
from net.identity import make_id

BREAKS = " \t\n\"'><=;|&(:"  # those of bash


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Two peers with other functions, without a network."""
    peers = [make_id(3010, "192.0.2.7", "farm"), make_id(3011, "192.0.2.7")]
    peers[0].info["label"], peers[1].info["label"] = "workstation 7", "it's $5"
    functions = {peers[0]: ["farm.render"], peers[1]: ["farm.pid", "\u754c.f"]}
    monkeypatch.setattr(completing, "search", lambda: peers)
    monkeypatch.setattr(completing, "peers_of", lambda word: peers if word == "all" else [
        peer for peer in peers if word in (str(peer), peer.info["label"])])
    monkeypatch.setattr(completing, "names_at", functions.get)


@pytest.mark.parametrize("words, found", [
    ("--timeout 5 pi", ["ping"]), ("--json --timeout=5 pi", ["ping"]), ("--timeout ", []),
    ("ping --timeout 5 192.0.2.7:3011", ["192.0.2.7:3011"]), ("ping --timeout ", []),
    ("top -n 3 --every 2 192.0.2.7:3011", ["192.0.2.7:3011"]),
    ("call --timeout 5 any farm.", ["farm.pid", "farm.render"]),
    ("call any --json farm.r", ["farm.render"]), ("call any farm.render x", []),
    ("call -- any farm.r", ["farm.render"]),
    ("metrics any 192.0.2.7:3011 192.0.2.7:3010", ["192.0.2.7:3010"]),
    ("listen 192", []), ("listen done any 192.0.2.7:3011", ["192.0.2.7:3011"]),
    ("listen done --group f", ["farm"]), ("listen done --group=f", ["--group=farm"]),
    ("peers farm f", ["farm"]), ("secret x", []), ("nonsense ", []),
    ("listen done --gro", ["--group"]), ("serve --workers ", [])])
def test_options_and_their_values_are_no_words_of_a_command(words, found):
    assert Completion.words(words.split(" ")) == found


def test_files_are_what_is_served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools").mkdir()
    for name in ("studio.py", "notes.txt", ".hidden.py", "tools/render.py"):
        (tmp_path / name).touch()
    assert Completion.words(["serve", ""]) == ["studio", "studio.py", "tools/"]
    assert Completion.words(["serve", "--all", "studio.py", "tools/"]) == ["tools/render.py"]
    assert Completion.words(["serve", "--reload", "."]) == [".hidden", ".hidden.py"]
    assert Completion.words(["serve", "not there/x"]) == []
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Completion.words(["serve", "~/st"]) == ["~/studio.py"]


@pytest.mark.parametrize("line, put_in", [
    ("call 192", "192.0.2.7:3010 192.0.2.7:3011"), ("call 192.0.2.7:301", "3010 3011"),
    ("call 192.0.2.7\\:301", "192.0.2.7:3010 192.0.2.7:3011"),
    ("call \"192.0.2.7:301", "192.0.2.7:3010 192.0.2.7:3011"),
    ("call work", "workstation\\ 7"), ("call workstation\\ ", "workstation\\ 7"),
    ("call \"work", "workstation 7"), ("call 'work", "workstation 7"),
    ("call work\"station ", "station 7"), ("call it", "it\\'s\\ \\$5"),
    ("call \"it", "it's \\$5"), ("call 'it", "it'\\''s $5"),
    ("call workstation\\ 7 f", "farm.render"), ("call \"it's \\$5\" \u754c", "\u754c.f"),
    ("listen done --group=", "farm"), ("pin", "ping")])
def test_bash_is_told_what_it_puts_in(line, put_in):
    found = Completion.line(f"app-net {line}", BREAKS)
    assert " ".join(found) == put_in


@pytest.mark.parametrize("line", ["", "   ", "app-net", "app-net ", "a\\", "\"", "'a\\"])
def test_any_line_has_words(line):
    assert split(line)
    Completion.line(line, BREAKS)
