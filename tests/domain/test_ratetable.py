"""A number gets the longest prefix with a rate in force, and a look-up can say why."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.domain.rating import MOST_INSTANT_MS, Rate

NOW = 1_700_000_000_000


def row(prefix: str, per_minute: int = 1, begin: int = 0, until: int | None = None) -> RateRow:
    return RateRow(
        prefix, f"to {prefix}", per_minute, effective_from_ms=begin, effective_until_ms=until
    )


def table(*rows: RateRow) -> RateTable:
    return RateTable(7, "retail", "EUR", 3, rows)


def found(rates: RateTable, number: str, now_ms: int = NOW) -> int | None:
    """What tells the rows of a test apart: the rate per minute of the one that was chosen."""
    rate = rates.lookup(number, now_ms)
    return None if rate is None else rate.rate_per_minute


def naive_lookup(rows: Sequence[RateRow], number: str, now_ms: int) -> RateRow | None:
    """The rule in one sentence: longest prefix in force, then the latest, then the last listed."""
    in_force = [
        (len(rate.prefix), rate.effective_from_ms, place, rate)
        for place, rate in enumerate(rows)
        if number.startswith(rate.prefix)
        and rate.effective_from_ms <= now_ms
        and (rate.effective_until_ms is None or now_ms < rate.effective_until_ms)
    ]
    return max(in_force)[3] if in_force else None


instants = st.integers(0, 6)
rows_of_few_prefixes = st.lists(
    st.builds(
        RateRow,
        prefix=st.text("01", min_size=1, max_size=4),
        destination=st.sampled_from(["", "here", "there"]),
        rate_per_minute=st.integers(0, 10**12),
        connect_fee=st.integers(0, 3),
        first_increment=st.integers(1, 2),
        next_increment=st.integers(1, 2),
        grace_seconds=st.integers(0, 1),
        minimum_charge=st.integers(0, 1),
        effective_from_ms=instants,
        effective_until_ms=st.none() | instants,
    ),
    max_size=15,
)


@given(rows_of_few_prefixes, st.text("01", max_size=6), st.integers(0, 7))
def test_lookup_is_that_of_the_naive_reference(
    rows: list[RateRow], number: str, now_ms: int
) -> None:
    assert table(*rows).lookup(number, now_ms) == naive_lookup(rows, number, now_ms)


@given(rows_of_few_prefixes, st.text("01", max_size=6), st.integers(0, 7))
def test_the_explanation_chooses_what_lookup_gives_and_leaves_no_rate_out(
    rows: list[RateRow], number: str, now_ms: int
) -> None:
    rates = table(*rows)
    candidates = rates.explain(number, now_ms)
    chosen = rates.lookup(number, now_ms)
    assert [each.rate for each in candidates if each.chosen] == ([chosen] if chosen else [])
    matching = [each for each in rows if number.startswith(each.prefix)]
    assert sorted(map(repr, matching)) == sorted(repr(each.rate) for each in candidates)


def test_the_longest_prefix_wins_and_leading_zeros_count() -> None:
    rates = table(row("4", 1), row("44", 2), row("4420", 3), row("0", 4), row("00", 5))
    assert [found(rates, number) for number in ("4420", "44201", "4421", "45", "5")] == [
        3,
        3,
        2,
        1,
        None,
    ]
    assert [found(rates, number) for number in ("0", "01", "001")] == [4, 4, 5]


def test_a_number_shorter_than_a_prefix_does_not_get_its_rate() -> None:
    assert found(table(row("4420")), "442") is None
    assert found(table(row("4420")), "") is None


@pytest.mark.parametrize(
    ("now_ms", "per_minute"),
    [(9, 1), (10, 2), (19, 2), (20, 3), (29, 3), (30, 1)],
)
def test_a_rate_is_in_force_from_its_first_instant_until_just_before_its_end(
    now_ms: int, per_minute: int
) -> None:
    rates = table(row("44", 3, begin=20, until=30), row("4", 1), row("44", 2, begin=10, until=20))
    assert found(rates, "4420", now_ms) == per_minute


def test_rates_of_a_prefix_may_come_in_any_order() -> None:
    begins = [30, 10, 20, 50, 40]
    rates = table(*(row("44", begin, begin=begin) for begin in begins))
    assert [found(rates, "44", now_ms) for now_ms in (9, 10, 25, 35, 45, 99)] == [
        None,
        10,
        20,
        30,
        40,
        50,
    ]


def test_of_two_rates_from_the_same_instant_the_one_listed_later_comes_first() -> None:
    assert found(table(row("44", 1), row("44", 2)), "44") == 2
    assert found(table(row("44", 1), row("44", 2, until=NOW)), "44") == 1


def test_a_million_rates_would_fit_in_150_megabytes() -> None:
    """Allocations are counted for a sixteenth of them, which fills a dict just as far."""
    count = 1_000_000 // 16
    rows = (
        RateRow(str(10**9 + place), f"destination {place % 50}", place) for place in range(count)
    )
    tracemalloc.start()
    try:
        rates = RateTable(1, "big", "EUR", 1, rows)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / len(rates) < 150


@pytest.mark.parametrize("number", ["44abc", "+44", "44 20", "\u0664\u0664", "-4", "44\n", "4_4"])
def test_what_is_not_a_normalised_number_has_no_rate(number: str) -> None:
    assert found(table(row("4"), row("44")), number) is None
    assert table(row("4"), row("44")).explain(number, NOW) == []


def test_the_longest_prefix_possible_and_a_very_long_number() -> None:
    rates = table(row("9" * 20, 5), row("9", 1))
    assert found(rates, "9" * 10_000) == 5
    assert found(rates, "9" * 19) == 1


def test_the_explanation_tells_the_reason_of_each_candidate() -> None:
    rates = table(
        row("4", 1),
        row("44", 2, begin=NOW - 5000),
        row("44", 3, begin=NOW - 9000),
        row("4420", 4, begin=NOW + 1000),
        row("4420", 5, until=NOW),
    )
    candidates = rates.explain("442071234567", NOW)
    assert [(each.rate.rate_per_minute, each.chosen, each.why) for each in candidates] == [
        (4, False, "not yet in force until 2023-11-14 22:13:21.000"),
        (5, False, "ended 2023-11-14 22:13:20.000"),
        (2, True, "the longest prefix with a rate in force"),
        (3, False, "a later rate of the same prefix is in force"),
        (1, False, "a longer prefix is in force"),
    ]


def test_a_rate_comes_out_as_it_went_in() -> None:
    given_row = RateRow("4420", "London", 10**12, 1, 30, 6, 5, 10**12, 10, MOST_INSTANT_MS)
    rate = table(given_row).lookup("4420", 10)
    assert rate == given_row
    assert isinstance(rate, Rate)


def test_the_table_says_what_it_is() -> None:
    rates = table(row("4"), row("4", begin=1), row("5"))
    assert len(rates) == 3
    assert (rates.id, rates.name, rates.currency, rates.version) == (7, "retail", "EUR", 3)
    assert "retail" in repr(rates)


def test_an_empty_table_has_no_rate() -> None:
    assert found(table(), "44") is None
    assert len(table()) == 0


@pytest.mark.parametrize("until", [-1, MOST_INSTANT_MS + 1, 1.5, True])
def test_an_end_outside_the_calendar_is_refused(until: int) -> None:
    with pytest.raises(ValueError, match=r"effective_until_ms: .* expected an integer"):
        row("44", until=until)


def test_a_row_is_checked_as_a_rate_is() -> None:
    with pytest.raises(ValueError, match="rate_per_minute: -1: expected"):
        row("44", -1)
