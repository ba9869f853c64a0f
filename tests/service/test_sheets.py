"""CSV files of settings: what is read, and what is found wrong in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.deck import MOST_ERRORS, DeckErrors
from astcredit.service.sheets import Faults, Line, read_sheet, write_sheet

COLUMNS = ("prefix", "account", "weight")


def read(text: str) -> list[Line]:
    """The lines of a file; DeckErrors for what is wrong in it."""
    faults = Faults()
    lines = list(read_sheet(text.splitlines(keepends=True), COLUMNS, COLUMNS[:2], faults))
    faults.raise_if_any()
    return lines


def test_columns_come_in_any_order_and_blank_lines_do_not_count_but_keep_their_numbers() -> None:
    lines = read("\ufeffAccount , PREFIX\r\n\r\n a ,44\r\n,,\r\n")[:1]
    assert lines == [Line(3, {"account": "a", "prefix": "44"})]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("", ["line 1, column prefix: '': expected this", "line 1, column account: '': expected"]),
        (
            "prefix,account,costs\n44,a,1\n",
            ["line 1: 'costs': expected a header line with"],
        ),
        ("prefix,account,prefix\n", ["line 1, column prefix: 'prefix': expected each column once"]),
        ("prefix\n44\n", ["line 1, column account: '': expected this column in the header line"]),
        ("prefix,account\n44\n44,a,1\n", ["line 2: '1 cells': expected 2", "line 3: '3 cells'"]),
        ('prefix,account\n44,"a"b\n', ["line 2: "]),
    ],
)
def test_what_is_no_line_of_the_file_is_named_with_its_line(text: str, errors: list[str]) -> None:
    with pytest.raises(DeckErrors) as raised:
        read(text)
    found = list(map(str, raised.value.errors))
    assert len(found) == len(errors), found
    for line, begin in zip(found, errors, strict=True):
        assert line.startswith(begin)


def test_reading_stops_when_more_faults_say_nothing() -> None:
    with pytest.raises(DeckErrors) as raised:
        read("prefix,account\n" + "1\n" * (MOST_ERRORS + 1))
    assert (len(raised.value.errors), raised.value.more) == (MOST_ERRORS, True)
    with pytest.raises(DeckErrors) as raised:
        read("prefix,account\n" + "1\n" * MOST_ERRORS)
    assert (len(raised.value.errors), raised.value.more) == (MOST_ERRORS, False)


CELLS = st.text(max_size=8).map(lambda text: "".join(filter(str.isprintable, text)).strip())


@given(st.lists(st.tuples(CELLS, CELLS, CELLS).filter(any)))
def test_what_is_written_is_read_again(rows: list[tuple[str, str, str]]) -> None:
    lines = read("".join(write_sheet(COLUMNS, rows)))
    assert [tuple(line.cells.values()) for line in lines] == rows
