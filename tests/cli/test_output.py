"""One description of rows, three formats; hostile texts harm none of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.cli.output import (
    MOST_FOLDED,
    Column,
    Output,
    amount,
    flag,
    instant,
    number,
    spreadsheet_safe,
    text,
    visible,
)

COLUMNS = (text("name"), number("n"), amount("price"), instant("at"), flag("ok"))
ROW = ("anna", 7, -12_340_000, 1_795_291_200_123, True)
EMPTY = (None, None, None, None, None)


def printed(format: str, rows: list[tuple[str | int | bool | None, ...]]) -> str:
    stream = io.StringIO()
    Output(format, stream).rows(COLUMNS, rows)
    return stream.getvalue()


def item(format: str, row: tuple[str | int | bool | None, ...]) -> str:
    stream = io.StringIO()
    Output(format, stream).item(COLUMNS, row)
    return stream.getvalue()


def test_json_is_a_list_of_objects_with_exact_amounts() -> None:
    first = {
        "name": "anna",
        "n": 7,
        "price": "-12.340000",
        "at": "2026-11-21 20:00:00.123",
        "ok": True,
    }
    second = dict.fromkeys(first)
    assert json.loads(printed("json", [ROW, EMPTY])) == [first, second]
    assert json.loads(printed("json", [])) == []
    assert json.loads(item("json", ROW)) == first


def test_csv_has_a_header_line_and_empty_cells_for_nothing() -> None:
    expected = [
        ["name", "n", "price", "at", "ok"],
        ["anna", "7", "-12.340000", "2026-11-21 20:00:00.123", "true"],
        ["", "", "", "", ""],
    ]
    assert list(csv.reader(io.StringIO(printed("csv", [ROW, EMPTY])))) == expected
    assert item("csv", ROW) == printed("csv", [ROW])


def test_a_table_has_a_line_for_each_row_and_short_amounts() -> None:
    header, first, second = printed("table", [ROW, EMPTY]).splitlines()
    assert header.split() == ["name", "n", "price", "at", "ok"]
    assert first.split() == ["anna", "7", "-12.34", "2026-11-21", "20:00:00.123", "yes"]
    assert second.split() == ["-"] * 5
    assert item("table", ROW).splitlines()[2].split() == ["price", "-12.34"]


def test_a_table_that_is_not_on_a_terminal_cuts_and_folds_nothing() -> None:
    stream = io.StringIO()
    long = [f"{number}-" + "x" * 500 for number in range(20)]
    Output("table", stream).rows([text(f"c{n}") for n in range(20)], [long])
    assert stream.getvalue().splitlines()[1].split() == long


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal_folds_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    Output("table", stream).rows([text("a"), text("b")], [("x" * 100, "y" * 60)])
    lines = stream.getvalue()
    assert lines.count("x") == 100
    assert lines.count("y") == 60
    assert max(map(len, lines.splitlines()[1:])) <= 40  # the header has escapes for bold


def by_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The table as it looks on a terminal that is wide enough."""
    stream = io.StringIO()
    output = Output("table", stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "10000")
        output._print_folded(columns, rows, header=True)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


WORDS = st.text("ab é🎈漢\u0301", min_size=1, max_size=8).filter(lambda word: word == word.strip())


@given(st.lists(st.tuples(WORDS, st.integers(-5_000, 5_000), WORDS), max_size=5))
def test_a_plain_table_is_as_wide_as_one_on_a_terminal(rows: list[tuple[str, int, str]]) -> None:
    columns = (text("name"), number("n"), text("漢"))
    stream = io.StringIO()
    Output("table", stream).rows(columns, rows)
    shown = [
        [visible(cell) if isinstance(cell, str) else str(cell) for cell in row] for row in rows
    ]
    assert stream.getvalue() == by_rich(columns, shown)


def test_a_listing_of_thousands_of_rows_is_not_folded_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That would take a minute and more for a hundred thousand."""
    monkeypatch.setenv("COLUMNS", "40")
    for rows, lines in ((MOST_FOLDED, MOST_FOLDED * 3 + 1), (MOST_FOLDED + 1, MOST_FOLDED + 2)):
        stream = Terminal()
        Output("table", stream).rows([text("a")], [("x" * 100,)] * rows)
        assert len(stream.getvalue().splitlines()) == lines


HOSTILE = "[bold]\x1b[2J\nnext\u202ecod.exe\udc80 :smile: \x9b31m"


@pytest.mark.parametrize("format", ["table", "json"])
def test_a_hostile_text_moves_no_cursor_and_ends_no_line(format: str) -> None:
    shown = printed(format, [(HOSTILE, 1, 1, 1, False)])
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == (2 if format == "table" else 3)
    assert "[bold]" in shown
    assert ":smile:" in shown


def test_visible_keeps_what_can_be_seen() -> None:
    assert visible("Grüße 🎈 [x]") == "Grüße 🎈 [x]"
    assert visible("a\x1b\n\u202e\udc80") == "a\\x1b\\n\\u202e\\udc80"


@pytest.mark.parametrize(
    ("formula", "cell"),
    [
        *[
            (text, f"'{text}")
            for text in ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "=", "+4 2")
        ],
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("\n=1", "\\n=1"),
        ("=\r\x1b", "'=\\r\\x1b"),
    ],
)
def test_no_text_is_a_formula_in_a_spreadsheet_or_ends_a_line(formula: str, cell: str) -> None:
    assert spreadsheet_safe(formula) == cell
    lines = printed("csv", [(formula, 1, -1, 1, False)]).splitlines()
    rows = list(csv.reader(lines))
    assert len(rows) == 2
    assert rows[1][0] == cell
    assert rows[1][2] == "-0.000001"


@pytest.mark.parametrize(
    "plain", ["", "anna", "442071234567", "+442071234567", "-5", "-0.50", "a=b"]
)
def test_names_and_plain_numbers_stay_as_they_are(plain: str) -> None:
    assert spreadsheet_safe(plain) == plain


def test_rows_are_printed_as_they_come() -> None:
    """A long listing does not gather in memory, except where its widths must be known."""
    for format in ("json", "csv"):
        stream = io.StringIO()
        with Output(format, stream).writer([text("a")]) as write:
            write(["first"])
            assert "first" in stream.getvalue()


def test_a_change_is_a_sentence_for_people_and_a_row_for_programs() -> None:
    for format, expected in (("table", "done\\x1b\n"), ("json", '{\n  "a": "x"\n}\n')):
        stream = io.StringIO()
        Output(format, stream).done("done\x1b", [text("a")], ["x"])
        assert stream.getvalue() == expected
