"""What ``app-net`` says about its commands."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from net.cli import COMMANDS, main
from net.cli.screen import filled


def helped(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code, capsys.readouterr()


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_fits_the_terminal(name, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, said = helped([name, "--help"], capsys)
    assert code == 0 and not said.err
    # How argparse breaks the usage before it depends on the version of Python.
    _, described = said.out.split("\n\n", 1)
    assert max(map(len, described.splitlines())) <= columns
    told = getattr(COMMANDS[name], "more", "").split()
    assert said.out.split()[-len(told):] == told or not told


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_list_of_commands_fits_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].strip()] \
        == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_about_the_terminal_has_each_command(name):
    page = Path(__file__).resolve().parents[3] / "docs" / "terminal.rst"
    assert re.search(rf"app-net {name}\b", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words, lacking", [
    (["call"], "PEER, NAME"), (["listen"], "EVENT"), (["announce"], "EVENT"),
    (["serve"], "MODULE[:OBJECT]")])
def test_what_may_be_left_out_is_not_asked_for(words, lacking, capsys):
    code, said = helped(words, capsys)
    assert code == 2 and not said.out
    assert said.err.endswith(f"the following arguments are required: {lacking}\n")


def test_text_is_filled_and_lists_are_not():
    assert filled("some words\nof prose\n\n  one  its meaning\n  two  another", 14) == """\
some words of
prose

  one  its
       meaning
  two  another"""
