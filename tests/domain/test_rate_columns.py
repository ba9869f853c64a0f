"""Rates in columns are the same rates, and what is none is refused as `RateRow` refuses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.rate_columns import (
    RateColumns,
    RateRow,
    Terms,
    are_prefixes,
    known_rate,
    shared,
)
from astcredit.domain.rating import MOST_AMOUNT, MOST_INSTANT_MS, Rate, is_prefix

TERMS: Terms = (10_000, 30, 6, 5, 50_000, 10, 20)

row_lists = st.lists(
    st.builds(
        RateRow,
        prefix=st.text("0123456789", min_size=1, max_size=20),
        destination=st.text(max_size=5),
        rate_per_minute=st.integers(0, MOST_AMOUNT),
        connect_fee=st.integers(0, MOST_AMOUNT),
        first_increment=st.integers(1, 3600),
        next_increment=st.integers(1, 3600),
        grace_seconds=st.integers(0, 3600),
        minimum_charge=st.integers(0, MOST_AMOUNT),
        effective_from_ms=st.integers(0, MOST_INSTANT_MS),
        effective_until_ms=st.none() | st.integers(0, MOST_INSTANT_MS),
    ),
    max_size=8,
)


@given(row_lists)
def test_rows_come_out_as_they_went_in(rows: list[RateRow]) -> None:
    columns = RateColumns.of(rows)
    columns.check()
    assert list(columns.rows()) == rows
    assert len(columns) == len(rows)
    assert list(columns.begins()) == [row.effective_from_ms for row in rows]


@given(row_lists, st.integers(0, 9), st.integers(0, 9))
def test_parts_are_parts_and_joined_they_are_the_whole(
    rows: list[RateRow], one: int, other: int
) -> None:
    columns = RateColumns.of(rows)
    begin, end = sorted((one, other))
    assert list(columns[begin:end].rows()) == rows[begin:end]
    joined = RateColumns.joined([columns[:begin], columns[begin:end], columns[end:]])
    assert list(joined.rows()) == rows


@given(row_lists)
def test_they_are_sorted_as_texts_then_by_beginning_and_else_stay(rows: list[RateRow]) -> None:
    ordered = sorted(rows, key=lambda row: (row.prefix, row.effective_from_ms))
    assert list(RateColumns.of(rows).sorted().rows()) == ordered


@given(row_lists)
def test_a_rate_that_is_known_is_the_one_that_was_checked(rows: list[RateRow]) -> None:
    columns = RateColumns.of(rows)
    assert [
        known_rate(*values)
        for values in zip(
            columns.prefixes, columns.destinations, columns.per_minute, columns.terms, strict=True
        )
    ] == rows


def test_rates_without_an_end_are_rates() -> None:
    rate = Rate("44", "London", 1, *TERMS[:-1])
    columns = RateColumns.of([rate])
    assert columns.terms == [(*TERMS[:-1], None)]
    assert list(columns.rates()) == [rate]


def changed(place: int, value: object) -> Terms:
    return (*TERMS[:place], value, *TERMS[place + 1 :])  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("prefixes", "", "prefix"),
        ("prefixes", "4x", "prefix"),
        ("prefixes", "\u0664", "prefix"),
        ("prefixes", "1" * 21, "prefix"),
        ("prefixes", "' OR 1", "prefix"),
        ("per_minute", -1, "rate_per_minute"),
        ("per_minute", MOST_AMOUNT + 1, "rate_per_minute"),
        ("per_minute", 0.5, "rate_per_minute"),
        ("per_minute", True, "rate_per_minute"),
        ("terms", changed(0, -1), "connect_fee"),
        ("terms", changed(1, 0), "first_increment"),
        ("terms", changed(2, "6"), "next_increment"),
        ("terms", changed(3, 3601), "grace_seconds"),
        ("terms", changed(4, None), "minimum_charge"),
        ("terms", changed(5, None), "effective_from_ms"),
        ("terms", changed(6, -1), "effective_until_ms"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_is_none_is_found_wherever_it_stands(
    column: str, value: object, field: str, place: int
) -> None:
    values: dict[str, list[object]] = {
        "prefixes": ["1", "2", "3"],
        "destinations": ["", "", ""],
        "per_minute": [1, 2, 3],
        "terms": [TERMS, TERMS, TERMS],
    }
    RateColumns(**values).check()  # type: ignore[arg-type]
    values[column][place] = value
    with pytest.raises(ValueError, match=f"^{field}: "):
        RateColumns(**values).check()  # type: ignore[arg-type]


def test_no_rates_are_no_rates() -> None:
    empty = RateColumns.of([])
    empty.check()
    assert (len(empty), list(empty.sorted().rows()), bool(empty)) == (0, [], False)


@given(st.lists(st.text("0123456789x\u0664", max_size=22), min_size=1, max_size=4))
def test_texts_are_prefixes_if_each_is_one(texts: list[str]) -> None:
    assert are_prefixes(texts) == all(map(is_prefix, texts))


def test_equal_values_become_one_object() -> None:
    one, other = shared([(int("1000"), "a"), (int("1000"), "a")])
    assert one is other
