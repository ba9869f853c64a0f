"""Every rate of a number is found, in the order in which it counts, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain import rate_index
from astcredit.domain.rate_columns import RateColumns, RateRow
from astcredit.domain.rate_index import NO_ROW, RateIndex


def row(prefix: str, begin: int = 0, name: str = "", until: int | None = None) -> RateRow:
    return RateRow(prefix, name, 1, effective_from_ms=begin, effective_until_ms=until)


def index_of(rows: list[RateRow], portion: int = 3) -> RateIndex:
    """An index that is filled some rates at a time."""
    columns = RateColumns.of(rows).sorted()
    index = RateIndex()
    for start in range(0, len(columns), portion):
        index.add(columns[start : start + portion])
    index.seal()
    return index


def found(index: RateIndex, number: str) -> list[RateRow]:
    return [index.rate(row, number) for row in index.matching(number)]


def in_order(rows: list[RateRow], number: str) -> list[RateRow]:
    """The rule: longest prefix first, of one prefix the newest, then the one added last."""
    matching = [
        (len(rate.prefix), rate.effective_from_ms, place, rate)
        for place, rate in enumerate(rows)
        if number.startswith(rate.prefix)
    ]
    return [rate for *_, rate in sorted(matching, key=lambda each: each[:3], reverse=True)]


# Few digits and long beginnings in common, so that most prefixes have to do with one another, at
# the lengths at which a key is full.
texts = st.builds(
    str.__add__,
    st.sampled_from(["", "0", "9", "0" * 16, "9" * 17, "1" * 18]),
    st.text("019", max_size=4),
)
prefixes = texts.filter(lambda text: 1 <= len(text) <= 20)
rows_of_related_prefixes = st.lists(
    st.builds(row, prefixes, st.integers(0, 3), st.sampled_from(["", "here", "\u65e5\u672c"])),
    max_size=25,
)


rows_that_end = st.lists(
    st.builds(row, prefixes, st.integers(0, 3), st.just(""), st.none() | st.integers(0, 5)),
    max_size=25,
)


@given(rows_of_related_prefixes, texts, st.integers(1, 4))
def test_what_is_found_is_what_a_look_at_every_rate_finds(
    rows: list[RateRow], number: str, portion: int
) -> None:
    assert found(index_of(rows, portion), number) == in_order(rows, number)


@given(rows_of_related_prefixes)
def test_each_prefix_finds_its_own_rates(rows: list[RateRow]) -> None:
    index = index_of(rows)
    for rate in rows:
        for number in (rate.prefix, f"{rate.prefix}0", f"{rate.prefix}9999999"):
            assert found(index, number) == in_order(rows, number)


def test_prefixes_of_twenty_digits_are_told_apart_by_the_last_one() -> None:
    stem = "44" + "7" * 17
    rows = [row(stem + digit, begin) for digit in "049" for begin in (1, 2)]
    rows += [row(stem), row("44")]
    index = index_of(rows)
    for number in (stem + "0", stem + "4" + "5" * 9, stem + "9", stem + "3", stem, stem[:-1]):
        assert found(index, number) == in_order(rows, number)
        assert index.rate(index.find(number, 9), number) == in_order(rows, number)[0]


@pytest.mark.parametrize("number", ["", "+44", "44a", "\u0664\u0664", "4 4", "-44", "4_4"])
def test_other_than_digits_nothing_is_found(number: str) -> None:
    index = index_of([row("4"), row("44")])
    assert found(index, number) == []
    assert index.find(number, 0) == NO_ROW


@given(rows_that_end, texts, st.integers(0, 6))
def test_the_one_that_applies_is_the_first_of_these_in_force(
    rows: list[RateRow], number: str, now_ms: int
) -> None:
    index = index_of(rows)
    in_force = [
        rate
        for rate in in_order(rows, number)
        if rate.effective_from_ms <= now_ms
        and (rate.effective_until_ms is None or now_ms < rate.effective_until_ms)
    ]
    row = index.find(number, now_ms)
    assert (row != NO_ROW) == bool(in_force)
    assert row == NO_ROW or index.rate(row, number) == in_force[0]


def test_a_rate_counts_from_its_first_instant_until_just_before_its_end() -> None:
    index = index_of([row("1", 10, until=20), row("2", 10)])
    ended = [index.find("1", now) != NO_ROW for now in (9, 10, 19, 20)]
    assert ended == [False, True, True, False]
    assert [index.find("2", now) != NO_ROW for now in (9, 10, 10**15)] == [False, True, True]


def test_names_are_kept_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are remembered to be kept once are few; forgotten ones are kept again."""
    monkeypatch.setattr(rate_index, "_MOST_REMEMBERED", 2)
    names = ["a", "b", "a", "c", "a", "b", "\ud800", "\U0001f600", "x" * 70_000, ""]
    index = index_of([row(str(100 + place), 0, name) for place, name in enumerate(names)])
    numbers = [str(100 + place) for place in range(len(names))]
    assert [found(index, number)[0].destination for number in numbers] == names


@pytest.mark.parametrize(
    ("first", "second"),
    [(row("45"), row("44")), (row("44"), row("4")), (row("44", 2), row("44", 1))],
    ids=["a prefix", "a shorter one", "a beginning"],
)
@pytest.mark.parametrize("together", [True, False])
def test_rates_that_come_out_of_order_are_refused(
    first: RateRow, second: RateRow, together: bool
) -> None:
    """Linked wrongly, they would not be found."""
    index = RateIndex()
    if not together:
        index.add(RateColumns.of([first]))
    with pytest.raises(ValueError, match="expected the rates in order"):
        index.add(RateColumns.of([first, second] if together else [second]))


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix: 'abc': expected"):
        RateIndex().add(RateColumns(["abc"], [""], [1], [(0, 1, 1, 0, 0, 0, None)]))
