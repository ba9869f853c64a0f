"""A deck is read whole or refused with everything that is wrong in it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain import deck as deck_module
from astcredit.domain.deck import (
    COLUMNS,
    MOST_ERRORS,
    DeckError,
    DeckErrors,
    parse_deck,
    write_deck,
)
from astcredit.domain.rating import MOST_AMOUNT, MOST_INSTANT_MS, Rate

IMPORTED = 1_700_000_000_000


def read(text: str) -> list[Rate]:
    return list(parse_deck(StringIO(text, newline=""), IMPORTED))


def errors_of(text: str) -> list[tuple[int, str, str]]:
    """Line, column and value of each error of a deck that must be refused."""
    return [(each.line, each.column, each.value) for each in refused(text).errors]


def refused(text: str) -> DeckErrors:
    with pytest.raises(DeckErrors) as caught:
        read(text)
    return caught.value


def outcome_of(lines: Iterable[str]) -> list[Rate] | DeckErrors:
    try:
        return list(parse_deck(lines, IMPORTED))
    except DeckErrors as refusal:
        return refusal


def test_a_deck_of_the_two_required_columns_takes_the_defaults() -> None:
    assert read("prefix,rate_per_minute\n44,0.012\n") == [
        Rate("44", "", 12_000, effective_from_ms=IMPORTED)
    ]


def test_all_columns_in_another_order() -> None:
    header = ",".join(reversed(COLUMNS))
    deck = f"{header}\n2026-11-21T20:00:00+01:00,0.05,5,6,30,0.01,0.012,London,+4420\n"
    assert read(deck) == [
        Rate("4420", "London", 12_000, 10_000, 30, 6, 5, 50_000, 1_795_287_600_000)
    ]


def test_an_empty_optional_cell_means_the_default_of_its_column() -> None:
    header = ",".join(COLUMNS)
    assert read(f"{header}\n44,,0.012,,,,,,\n") == [
        Rate("44", "", 12_000, effective_from_ms=IMPORTED)
    ]


def test_next_increment_is_one_when_only_the_first_is_given() -> None:
    (rate,) = read("prefix,rate_per_minute,first_increment\n44,0.012,60\n")
    assert (rate.first_increment, rate.next_increment) == (60, 1)


@pytest.mark.parametrize(
    "deck",
    [
        "\ufeffprefix,rate_per_minute\n44,0.01\n",
        "prefix,rate_per_minute\r\n44,0.01\r\n",
        "\n\nprefix,rate_per_minute\n\n  \n,\n44,0.01\n\n",
        "prefix,rate_per_minute\n44,0.01",
        ' Prefix , RATE_PER_MINUTE\n"44", 0.01 \n',
        "prefix,rate_per_minute\n+44,0.010000\n",
    ],
)
def test_what_spreadsheets_add_does_no_harm(deck: str) -> None:
    assert [(rate.prefix, rate.rate_per_minute) for rate in read(deck)] == [("44", 10_000)]


def test_a_quoted_name_keeps_its_comma_and_its_quotes() -> None:
    (rate,) = read('prefix,destination,rate_per_minute\n44,"UK, ""Mobile""",1\n')
    assert rate.destination == 'UK, "Mobile"'


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("prefix", ""),
        ("prefix", "4x"),
        ("prefix", "++44"),
        ("prefix", "4" * 21),
        ("prefix", "\u0664"),
        ("rate_per_minute", ""),
        ("rate_per_minute", "0;5"),
        ("rate_per_minute", "-0.01"),
        ("rate_per_minute", "0.0000001"),
        ("rate_per_minute", "1000000.000001"),
        ("connect_fee", "x"),
        ("minimum_charge", "1e3"),
        ("first_increment", "0"),
        ("first_increment", "3601"),
        ("first_increment", "1.5"),
        ("next_increment", "-6"),
        ("next_increment", "\u0666"),
        ("grace_seconds", "3601"),
        ("grace_seconds", "9" * 5000),
        ("destination", "x" * 121),
        ("destination", "a\x1bb"),
        ("destination", "a\u2028b"),
        ("destination", "a\u202eb"),
        ("destination", "caf\udce9"),
        ("effective_from", "21.11.2026"),
        ("effective_from", "1969-12-31"),
    ],
)
def test_a_cell_that_is_not_acceptable_is_named(column: str, value: str) -> None:
    cells = {"prefix": "44", "rate_per_minute": "1", column: value}
    text = f"{','.join(cells)}\n{','.join(cells.values())}\n"
    error = refused(text).errors[0]
    assert (error.line, error.column, error.value) == (2, column, value)
    assert str(error).isprintable()
    assert str(error).startswith(f"line 2, column {column}: ")
    assert f": expected {error.expected}" in str(error)


def test_names_in_all_scripts_and_a_hard_space_are_accepted() -> None:
    names = ["C\u00f4te d'Ivoire", "\u65e5\u672c", "New\u00a0York", "x" * 120]
    lines = [f"{index + 1},{name},1\n" for index, name in enumerate(names)]
    deck = "".join(["prefix,destination,rate_per_minute\n", *lines])
    assert [rate.destination for rate in parse_deck(deck.split("\n"), 0)] == names


def test_all_errors_are_found_in_one_go() -> None:
    deck = (
        "prefix,rate_per_minute,first_increment\n"
        "44,0.01,1\n"
        "4x,zero,0\n"
        "45,0.01\n"
        "46,0.01,1,9\n"
        '"47"x,0.01,1\n'
        "48,nought,1\n"
    )
    assert errors_of(deck) == [
        (3, "prefix", "4x"),
        (3, "rate_per_minute", "zero"),
        (3, "first_increment", "0"),
        (4, "", "2 cells"),
        (5, "", "4 cells"),
        (6, "", "',' expected after '\"'"),
        (7, "rate_per_minute", "nought"),
    ]
    assert str(refused(deck)).count("\n") == 6
    assert not refused(deck).more


def test_lines_are_those_of_the_file_blank_ones_counted() -> None:
    assert errors_of("\nprefix,rate_per_minute\n\n\n44,x\n") == [(5, "rate_per_minute", "x")]


@pytest.mark.parametrize(
    ("header", "errors"),
    [
        ("", [(1, "prefix", ""), (1, "rate_per_minute", "")]),
        ("rate_per_minute", [(1, "prefix", "")]),
        ("prefix,price", [(1, "", "price"), (1, "rate_per_minute", "")]),
        ("prefix,rate_per_minute,prefix", [(1, "prefix", "prefix")]),
        ("prefix,rate_per_minute,", [(1, "", "")]),
        (
            "44,0.01",
            [(1, "", "44"), (1, "", "0.01"), (1, "prefix", ""), (1, "rate_per_minute", "")],
        ),
    ],
)
def test_a_header_that_is_not_acceptable_is_all_that_is_reported(
    header: str, errors: list[tuple[int, str, str]]
) -> None:
    assert errors_of(f"{header}\nx,y,z\n" if header else "") == errors


def test_a_double_names_both_lines() -> None:
    deck = "prefix,rate_per_minute\n44,1\n45,1\n+44,2\n"
    (error,) = refused(deck).errors
    assert (error.line, error.column, error.value) == (4, "prefix", "44")
    assert "line 2 has another" in error.expected


def test_the_same_prefix_from_another_instant_is_no_double() -> None:
    deck = "prefix,rate_per_minute,effective_from\n44,1,\n44,2,2030-01-01\n044,3,\n"
    assert len(read(deck)) == 3


def test_an_instant_written_in_two_ways_is_a_double() -> None:
    deck = (
        "prefix,rate_per_minute,effective_from\n44,1,2030-01-01\n44,2,2030-01-01T01:00:00+01:00\n"
    )
    assert errors_of(deck) == [(3, "prefix", "44")]


def test_reading_stops_after_a_hundred_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_module, "PORTION_LINES", 1)
    lines = iter(["prefix,rate_per_minute\n", *["x,1\n"] * (MOST_ERRORS + 50)])
    with pytest.raises(DeckErrors) as caught:
        list(parse_deck(lines, IMPORTED))
    assert len(caught.value.errors) == MOST_ERRORS
    assert caught.value.more
    assert len(list(lines)) == 49


def test_exactly_a_hundred_errors_are_all_of_them() -> None:
    error = refused("prefix,rate_per_minute\n" + "x,1\n" * MOST_ERRORS)
    assert (len(error.errors), error.more) == (MOST_ERRORS, False)


def test_a_quote_that_is_never_closed_is_an_error() -> None:
    assert errors_of('prefix,rate_per_minute\n44,"1\n45,1\n') == [(3, "", "unexpected end of data")]


def test_rates_come_while_the_file_is_being_read_and_none_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of any length is read in little memory: here line by line."""
    monkeypatch.setattr(deck_module, "PORTION_LINES", 1)
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in ["prefix,rate_per_minute\n", "1,1\n", "2,1\n", "x,1\n", "3,1\n"]:
            taken.append(line)
            yield line

    rates = parse_deck(lines(), IMPORTED)
    assert next(rates).prefix == "1"
    assert len(taken) == 2
    assert next(rates).prefix == "2"
    with pytest.raises(DeckErrors):
        next(rates)
    assert len(taken) == 5


def test_an_error_of_a_whole_line_has_no_column_in_its_text() -> None:
    assert str(DeckError(4, "", "2 cells", "3")) == "line 4: '2 cells': expected 3"


names = (
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=120)
    .map(str.strip)
    .filter(lambda name: not name.startswith("\ufeff"))
)
decks = st.lists(
    st.builds(
        Rate,
        prefix=st.text("0123456789", min_size=1, max_size=20),
        destination=names,
        rate_per_minute=st.integers(0, MOST_AMOUNT),
        connect_fee=st.integers(0, MOST_AMOUNT),
        first_increment=st.integers(1, 3600),
        next_increment=st.integers(1, 3600),
        grace_seconds=st.integers(0, 3600),
        minimum_charge=st.integers(0, MOST_AMOUNT),
        effective_from_ms=st.integers(0, MOST_INSTANT_MS),
    ),
    max_size=8,
    unique_by=lambda rate: (rate.prefix, rate.effective_from_ms),
)


@given(decks)
def test_what_is_written_is_read_as_the_same_rates(rates: list[Rate]) -> None:
    assert list(parse_deck(write_deck(rates), IMPORTED)) == rates


def test_the_lines_written_are_those_an_accountant_expects() -> None:
    rate = Rate("44", "UK, all", 12_000, 10_000, 30, 6, 5, 50_000, IMPORTED)
    assert list(write_deck([rate])) == [
        "prefix,destination,rate_per_minute,connect_fee,first_increment,next_increment,"
        "grace_seconds,minimum_charge,effective_from\n",
        '44,"UK, all",0.012000,0.010000,30,6,5,0.050000,2023-11-14 22:13:20.000\n',
    ]


@given(st.lists(st.text('",\n\r 0123456789+.x\x00', max_size=20), max_size=8))
def test_whatever_the_file_holds_there_are_rates_or_errors_and_nothing_else(
    lines: list[str],
) -> None:
    for deck in (lines, ["prefix,rate_per_minute\n", *lines]):
        outcome = outcome_of(deck)
        assert isinstance(outcome, list) or outcome.errors
        assert isinstance(outcome, list) or all(str(each).isprintable() for each in outcome.errors)


def test_a_cell_beyond_the_limit_of_csv_is_an_error() -> None:
    assert errors_of(f"prefix,rate_per_minute\n44,{'1' * (csv.field_size_limit() + 1)}\n")
