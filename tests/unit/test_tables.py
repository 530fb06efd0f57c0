"""Tables for people: they fit the terminal, and nothing in them can steer it."""
from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from net.statistics import Stats
from net.tables import Column, as_html, as_text, display_width, folded, terminal_width
from each import each
from steps import counts_steps, steps_of

COLUMNS = [Column("name", 4), Column("number", 6), Column("remark", 3)]
ROWS = [["first", "1", "short"], ["second", "22", "a remark that is long"]]


def test_a_table_has_its_titles_and_a_line_for_each_row():
    assert as_text(COLUMNS, ROWS, 80).splitlines() == [
        "name    number  remark",
        "first   1       short",
        "second  22      a remark that is long"]
    assert as_text(COLUMNS, [], 80) == "name  number  remark"


@each("width", range(1, 50))
def test_a_table_fits_its_width_as_far_as_one_column_can(width):
    lines = as_text(COLUMNS, ROWS, width).splitlines()
    assert len(lines) == 3 and max(map(display_width, lines)) <= max(width, 4)


def test_the_widest_columns_are_cut_first_and_the_last_are_left_out():
    assert as_text(COLUMNS, ROWS, 24).splitlines()[2] == "second  22      a remar~"
    assert as_text(COLUMNS, ROWS, 13).splitlines()[0] == "name  number"


def test_wide_characters_take_two_columns_and_combining_ones_none():
    assert display_width("\u6f22\u5b57") == 4 and display_width("e\u0301") == 1
    lines = as_text(COLUMNS[:1] * 2, [["\u6f22\u5b57", "x"], ["a", "y"]], 80).splitlines()
    assert [display_width(line[:line.index(last)]) for line, last in zip(lines[1:], "xy")] == [6, 6]


def test_foreign_text_is_made_safe():
    assert "\x1b" not in as_text(COLUMNS[:1], [["\x1b[2J"]], 80)
    html = as_html(COLUMNS[:1], [["<script>"]])
    assert html == ("<table><thead><tr><th>name</th></tr></thead>"
                    "<tbody><tr><td>&lt;script&gt;</td></tr></tbody></table>")


def test_the_width_is_that_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "33")
    assert terminal_width() == 33


def test_statistics_are_tables_of_events_and_functions():
    stats = Stats({"events": {"done": {"triggered": 1234, "subscribers": {
        "192.0.2.1:3010": {"sent": 9, "queued": 1, "dropped": 0},
        "192.0.2.2:3010": {"sent": 10, "queued": 0, "dropped": 0}}},
        "alone": {"triggered": 2, "subscribers": {}}}, "cut off": 1,
        "connections": {"app.f": {
            "calls": 3, "errors": 1, "seconds": 0.1234, "latency": {0.03125: 2, 0.125: 1}}}})
    assert [line.split() for line in repr(stats).splitlines()] == [
        ["event", "triggered", "subscriber", "sent", "queued", "dropped"],
        ["alone", "2"],
        ["done", "1,234", "192.0.2.1:3010", "9", "1", "0"],
        ["done", "1,234", "192.0.2.2:3010", "10", "0", "0"],
        [],
        ["function", "calls", "errors", "seconds", "p50", "ms", "p99", "ms"],
        ["app.f", "3", "1", "0.123", "26.3", "122"],
        [],
        ["subscribers", "cut", "off:", "1"]]
    assert stats._repr_html_().count("<table>") == 2
    assert repr(Stats({"events": {}, "cut off": 0, "connections": {}})) == "subscribers cut off: 0"


@pytest.mark.parametrize("text, width, lines", [
    ("some words of a text", 10, ["some words", "  of a", "  text"]),
    ("  an item  of a list", 12, ["  an item", "    of a", "    list"]),
    ("unbroken", 5, ["unbro", "  ken"]), ("\n a\n\n", 5, ["", " a", "", ""]),
    ("界界界 界界", 5, ["界界", "  界", "  界", "  界"]),
    ("            deeply indented", 8, ["deeply", "  indent", "  ed"])])
def test_text_is_folded_between_words_where_that_is_possible(text, width, lines):
    assert folded(text, width).split("\n") == lines


@given(st.text(alphabet="ab 界\u0301\n"), st.integers(4, 20), st.sampled_from(["", "  "]))
def test_folded_text_fits_and_has_all_letters(text, width, further):
    shown = folded(text, width, further)
    assert max(map(display_width, shown.split("\n"))) <= width
    assert "".join(shown.split()) == "".join(text.split())


@counts_steps
def test_long_text_is_folded_quickly():
    """The rest of it is not measured for each line."""
    def steps(size: int) -> int:
        return steps_of(lambda: folded("界" * size, 80))

    assert len(folded("界" * 2000, 80).split("\n")) > 40
    assert steps(2000) < 2.5 * steps(1000)
