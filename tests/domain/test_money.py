"""Amounts are read, written and rounded exactly, and anything doubtful is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astcredit.domain.money import (
    MICROS,
    amount_text,
    mul_div_up,
    parse_amount,
    parse_price,
    short_text,
)

MOST = 10**18 - 1
amounts = st.integers(min_value=-MOST, max_value=MOST)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", MICROS),
        ("+1", MICROS),
        ("12.34", 12_340_000),
        ("-12.34", -12_340_000),
        ("0.000001", 1),
        ("-0.000001", -1),
        ("007.5", 7_500_000),
        ("999999999999.999999", MOST),
    ],
)
def test_a_decimal_text_is_its_amount(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        ".5",
        "5.",
        "1,5",
        "1,000.00",
        "1_000",
        "1e3",
        "NaN",
        "inf",
        " 1",
        "1 ",
        "1\n",
        "--1",
        "0x10",
        "0.0000001",
        "1000000000000",
        "\u0661.\u0665",
        "\uff11",
        "1.2.3",
        "EUR 5",
    ],
)
def test_what_could_be_misread_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal amount") as caught:
        parse_amount(text)
    assert repr(text) in str(caught.value)


def test_an_error_never_repeats_control_characters_or_endless_text() -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_amount("\x1b[2J" + "9" * 10_000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_a_price_is_an_amount_that_is_not_negative() -> None:
    assert parse_price("0.015") == 15_000
    assert parse_price("-0") == 0
    with pytest.raises(ValueError, match=r"'-0.000001': expected .* not negative"):
        parse_price("-0.000001")


@given(amounts)
@example(-1)
@example(0)
def test_both_texts_are_read_back_as_the_same_amount(amount: int) -> None:
    assert parse_amount(amount_text(amount)) == amount
    assert parse_amount(short_text(amount)) == amount


@given(amounts)
def test_the_text_for_machines_has_six_decimals_and_the_exact_value(amount: int) -> None:
    text = amount_text(amount)
    assert len(text.partition(".")[2]) == 6
    assert Decimal(text) == Decimal(amount).scaleb(-6)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (12_340_000, "12.34"),
        (5_000, "0.005"),
        (5 * MICROS, "5.00"),
        (100 * MICROS, "100.00"),
        (-1, "-0.000001"),
        (-500_000, "-0.50"),
        (1_010_000, "1.01"),
    ],
)
def test_the_text_for_people_has_cents_and_what_is_needed_beyond(amount: int, text: str) -> None:
    assert short_text(amount) == text


@given(
    st.integers(min_value=0, max_value=10**20),
    st.integers(min_value=0, max_value=10**20),
    st.integers(min_value=1, max_value=10**12),
)
@example(1, 1, 60)
@example(60, 1, 60)
def test_rounding_is_up_and_exact(a: int, b: int, c: int) -> None:
    assert mul_div_up(a, b, c) == ceil(Fraction(a * b, c))


@pytest.mark.parametrize(("a", "b", "c"), [(-1, 1, 1), (1, -1, 1), (1, 1, 0), (1, 1, -1)])
def test_rounding_refuses_what_would_round_towards_the_other_side(a: int, b: int, c: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        mul_div_up(a, b, c)
