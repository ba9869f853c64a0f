"""Prices follow the rate to the micro, and the time allowed is their exact inverse."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astcredit.domain.money import MICROS
from astcredit.domain.rating import (
    MOST_AMOUNT,
    MOST_INCREMENT,
    MOST_INSTANT_MS,
    Rate,
    billed_seconds,
    explain,
    max_seconds,
    price,
)


def rate(per_minute: int = 0, **more: int) -> Rate:
    return Rate("44", "United Kingdom", per_minute, **more)


def small_or_any(least: int, most: int, often: int) -> st.SearchStrategy[int]:
    """Mostly small numbers, so that steps and limits meet, and now and then any."""
    return st.integers(least, often) | st.integers(least, most)


amounts = st.just(0) | small_or_any(0, MOST_AMOUNT, 200)
increments = st.sampled_from([1, 6, 30, 60]) | small_or_any(1, MOST_INCREMENT, 7)
graces = st.just(0) | small_or_any(0, 3600, 10)
rates = st.builds(
    Rate,
    prefix=st.just("44"),
    destination=st.just(""),
    rate_per_minute=amounts,
    connect_fee=amounts,
    first_increment=increments,
    next_increment=increments,
    grace_seconds=graces,
    minimum_charge=amounts,
)
seconds_of_calls = small_or_any(0, 20_000, 150)


def naive_price(rate: Rate, seconds: int) -> int:
    """The rule told step by step, with fractions: what `price` must be equal to."""
    if seconds == 0 or seconds <= rate.grace_seconds:
        return 0
    billed = rate.first_increment
    while billed < seconds:
        billed += rate.next_increment
    exact = rate.connect_fee + Fraction(rate.rate_per_minute) * billed / 60
    return max(rate.minimum_charge, ceil(exact))


@pytest.mark.parametrize(
    ("increments", "seconds", "billed"),
    [
        ((1, 1), 0, 0),
        ((1, 1), 1, 1),
        ((1, 1), 61, 61),
        ((60, 60), 1, 60),
        ((60, 60), 60, 60),
        ((60, 60), 61, 120),
        ((30, 6), 30, 30),
        ((30, 6), 31, 36),
        ((30, 6), 36, 36),
        ((30, 6), 37, 42),
        ((1, 60), 2, 61),
        ((60, 1), 61, 61),
    ],
)
def test_begun_increments_are_billed_whole(
    increments: tuple[int, int], seconds: int, billed: int
) -> None:
    first, following = increments
    assert billed_seconds(rate(first_increment=first, next_increment=following), seconds) == billed


def test_a_call_within_the_grace_is_not_billed_and_one_beyond_it_from_its_first_second() -> None:
    graceful = rate(60, first_increment=30, next_increment=6, grace_seconds=5, connect_fee=7)
    assert [billed_seconds(graceful, seconds) for seconds in (5, 6, 31)] == [0, 30, 36]
    assert [price(graceful, seconds) for seconds in (5, 6, 31)] == [0, 37, 43]


@pytest.mark.parametrize(
    ("fields", "seconds", "micros"),
    [
        ({"per_minute": 100_000, "connect_fee": 20_000}, 36, 80_000),
        ({"per_minute": 1}, 1, 1),
        ({"per_minute": 1}, 60, 1),
        ({"per_minute": 1}, 61, 2),
        ({"per_minute": 59}, 61, 60),
        ({"per_minute": 60, "minimum_charge": 30}, 29, 30),
        ({"per_minute": 60, "minimum_charge": 30}, 31, 31),
        ({"per_minute": 0, "connect_fee": 5, "minimum_charge": 30}, 1, 30),
        ({"per_minute": 0, "connect_fee": 35, "minimum_charge": 30}, 3600, 35),
        ({"per_minute": 0}, 3600, 0),
        ({"per_minute": MICROS, "connect_fee": MICROS, "minimum_charge": MICROS}, 0, 0),
    ],
)
def test_price_table(fields: dict[str, int], seconds: int, micros: int) -> None:
    assert price(rate(**fields), seconds) == micros


@given(rates, seconds_of_calls)
def test_price_is_that_of_the_naive_reference(rate: Rate, seconds: int) -> None:
    assert price(rate, seconds) == naive_price(rate, seconds)


@given(rates, seconds_of_calls, small_or_any(0, 5_000, 3))
def test_price_never_falls_as_seconds_grow(rate: Rate, seconds: int, more: int) -> None:
    assert price(rate, seconds) <= price(rate, seconds + more)


@given(st.data(), rates, seconds_of_calls)
def test_the_seconds_allowed_are_the_most_that_the_funds_can_pay(
    data: st.DataObject, rate: Rate, limit: int
) -> None:
    """Funds are drawn around the price of some length, where one micro decides."""
    edge = price(rate, data.draw(seconds_of_calls, label="edge"))
    funds = edge + data.draw(st.integers(-2, 2) | st.integers(0, MOST_AMOUNT), label="offset")
    seconds = max_seconds(rate, funds, limit)
    assert 0 <= seconds <= limit
    if rate.is_free:
        assert seconds == limit
    elif seconds == 0:
        assert limit == 0 or price(rate, rate.grace_seconds + 1) > funds
    else:
        assert price(rate, seconds) <= funds
        assert seconds == limit or price(rate, seconds + 1) > funds


@given(rates, st.integers(0, 500) | st.integers(0, MOST_AMOUNT))
def test_a_call_cut_by_funds_ends_with_a_whole_increment(rate: Rate, funds: int) -> None:
    limit = 10_000
    seconds = max_seconds(rate, funds, limit)
    if 0 < seconds < limit:
        assert (seconds - rate.first_increment) % rate.next_increment == 0
        assert billed_seconds(rate, seconds) == seconds


@given(rates, st.integers(-MOST_AMOUNT, -1), seconds_of_calls)
def test_debts_allow_free_calls_only(rate: Rate, funds: int, limit: int) -> None:
    assert max_seconds(rate, funds, limit) == (limit if rate.is_free else 0)


@pytest.mark.parametrize(
    ("fields", "funds", "limit", "seconds"),
    [
        ({"per_minute": 60, "first_increment": 60, "next_increment": 60}, 119, 3600, 60),
        ({"per_minute": 60, "first_increment": 60, "next_increment": 60}, 120, 3600, 120),
        ({"per_minute": 60, "first_increment": 60, "next_increment": 60}, 59, 3600, 0),
        ({"per_minute": 60, "first_increment": 60, "next_increment": 60}, 60, 45, 45),
        ({"per_minute": 60, "connect_fee": 10}, 9, 3600, 0),
        ({"per_minute": 60, "connect_fee": 10}, 10, 3600, 0),
        ({"per_minute": 60, "connect_fee": 10}, 12, 3600, 2),
        ({"per_minute": 60, "minimum_charge": 10}, 9, 3600, 0),
        ({"per_minute": 60, "minimum_charge": 10}, 10, 3600, 10),
        ({"per_minute": 60, "grace_seconds": 10}, 10, 3600, 0),
        ({"per_minute": 60, "grace_seconds": 10}, 11, 3600, 11),
        ({"per_minute": 60, "grace_seconds": 10}, 10, 5, 0),
        ({"per_minute": 60, "grace_seconds": 10}, 11, 5, 5),
        ({"per_minute": 0, "connect_fee": 10}, 9, 3600, 0),
        ({"per_minute": 0, "connect_fee": 10}, 10, 3600, 3600),
        ({"per_minute": 0, "minimum_charge": 10}, 9, 3600, 0),
        ({"per_minute": 0}, -1, 3600, 3600),
    ],
)
def test_seconds_table(fields: dict[str, int], funds: int, limit: int, seconds: int) -> None:
    assert max_seconds(rate(**fields), funds, limit) == seconds


@example(Rate("1", "", MOST_AMOUNT, first_increment=3600, next_increment=3600))
@given(rates)
def test_seconds_are_found_without_counting_them(rate: Rate) -> None:
    """A loop over seconds, or over increments, would not come back from these limits."""
    limit = 10**30
    assert max_seconds(rate, 10**50, limit) == limit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate_per_minute", -1),
        ("rate_per_minute", MOST_AMOUNT + 1),
        ("rate_per_minute", 0.5),
        ("rate_per_minute", True),
        ("connect_fee", -1),
        ("connect_fee", MOST_AMOUNT + 1),
        ("first_increment", 0),
        ("first_increment", 3601),
        ("next_increment", 0),
        ("next_increment", 3601),
        ("next_increment", "6"),
        ("grace_seconds", -1),
        ("grace_seconds", 3601),
        ("minimum_charge", -1),
        ("minimum_charge", MOST_AMOUNT + 1),
        ("effective_from_ms", -1),
        ("effective_from_ms", MOST_INSTANT_MS + 1),
        ("prefix", ""),
        ("prefix", "+44"),
        ("prefix", "4" * 21),
        ("prefix", "\u0664\u0664"),
    ],
)
def test_a_rate_outside_its_ranges_names_field_value_and_expectation(
    field: str, value: object
) -> None:
    fields: dict[str, Any] = {"prefix": "44", "destination": "", "rate_per_minute": 1}
    with pytest.raises(ValueError, match=f"^{field}: .*: expected ") as caught:
        Rate(**{**fields, field: value})
    assert repr(value)[:20] in str(caught.value)


def test_the_greatest_and_least_values_are_accepted() -> None:
    Rate("4" * 20, "", MOST_AMOUNT, MOST_AMOUNT, 3600, 3600, 3600, MOST_AMOUNT, MOST_INSTANT_MS)
    Rate("0", "", 0)


@pytest.mark.parametrize("function", [billed_seconds, price])
def test_a_negative_length_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match="seconds: -1: expected at least 0"):
        function(rate(60), -1)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit: -1: expected at least 0"):
        max_seconds(rate(60), 10, -1)


def test_a_charge_explains_fee_increments_and_rounding() -> None:
    sold = rate(100_001, connect_fee=20_000, first_increment=30, next_increment=6)
    assert explain(sold, 31, price(sold, 31)) == [
        "rate 0.100001 a minute for prefix 44",
        "talked 31 s, billed 36 s (first 30 s, then every 6 s begun)",
        "connect fee 0.02",
        "talk 36 s * 0.100001 / 60 s = 0.060001, rounded up to the sixth decimal",
        "price 0.080001",
    ]


def test_a_charge_explains_minimum_and_limit() -> None:
    sold = rate(60_000, minimum_charge=50_000)
    assert explain(sold, 10, 40_000) == [
        "rate 0.06 a minute for prefix 44",
        "talked 10 s, billed 10 s (first 1 s, then every 1 s begun)",
        "talk 10 s * 0.06 / 60 s = 0.01",
        "minimum charge 0.05",
        "price 0.05",
        "charged 0.04, never more than was reserved",
    ]


def test_a_charge_explains_the_grace_and_admits_what_it_cannot_explain() -> None:
    sold = rate(60_000, grace_seconds=5)
    assert explain(sold, 5, 1) == [
        "rate 0.06 a minute for prefix 44",
        "talked 5 s, billed 0 s (calls up to 5 s are not charged)",
        "price 0.00",
        "charged 0.000001, which this rate does not explain",
    ]
