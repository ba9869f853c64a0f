"""Money as integers: a millionth of the client's currency is the unit of every amount.

One place reads amounts, one place writes them and one place rounds them (`mul_div_up`), always up
and at the sixth decimal, so that no sum can drift.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from astcredit.domain.text import printable

Micros: TypeAlias = int
"""An amount of money in millionths of a currency unit."""

MICROS = 1_000_000
"""Micros in one unit of a currency."""

DECIMALS = 6
"""Decimal places of an amount: those of the DECIMAL columns that accountants read."""

MOST_INTEGER_DIGITS = 12
"""Digits before the point: DECIMAL(18,6) holds them, and so does a 64-bit integer of micros."""

LEAST_DECIMALS_SHOWN = 2
"""A person expects cents to be there even when they are zero."""

AMOUNT_EXPECTED = (
    f"a decimal amount like 12.50, at most {MOST_INTEGER_DIGITS} digits before the point "
    f"and {DECIMALS} after it"
)
PRICE_EXPECTED = f"{AMOUNT_EXPECTED}, not negative"

_AMOUNT = re.compile(rf"([+-]?)([0-9]{{1,{MOST_INTEGER_DIGITS}}})(?:\.([0-9]{{1,{DECIMALS}}}))?")


def parse_amount(text: str) -> Micros:
    """The amount that a plain decimal text names; a sign is allowed.

    Exponents, thousands separators, spaces, NaN and digits of other scripts are refused: an amount
    that two readers could take for two values is none. Raises ValueError that names the value.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{printable(text)}: expected {AMOUNT_EXPECTED}")
    sign, whole, decimals = match.groups()
    amount = int(whole) * MICROS + int((decimals or "").ljust(DECIMALS, "0"))
    return -amount if sign == "-" else amount


def parse_price(text: str) -> Micros:
    """As `parse_amount`, for amounts that cannot be below zero (rates, fees, limits)."""
    amount = parse_amount(text)
    if amount < 0:
        raise ValueError(f"{printable(text)}: expected {PRICE_EXPECTED}")
    return amount


@lru_cache(maxsize=4096)  # the same rates and fees again and again
def amount_text(amount: Micros) -> str:
    """`amount` with all six decimals, as machines compare it: "12.340000", "-0.000001"."""
    whole, decimals = divmod(abs(amount), MICROS)
    return f"{'-' if amount < 0 else ''}{whole}.{decimals:0{DECIMALS}}"


def short_text(amount: Micros) -> str:
    """`amount` for a person, two decimals and up to four more if they say something.

    Examples: "12.34", "0.005", "5.00".
    """
    text = amount_text(amount)
    always = len(text) - DECIMALS + LEAST_DECIMALS_SHOWN
    return text[:always] + text[always:].rstrip("0")


def mul_div_up(a: int, b: int, c: int) -> int:
    """ceil(a * b / c), exactly: the only place where an amount of money is rounded.

    Raises ValueError unless a ≥ 0, b ≥ 0 and c > 0.
    """
    if a < 0 or b < 0 or c <= 0:
        raise ValueError(f"{a} * {b} / {c}: expected factors of at least 0 and a divisor above 0")
    return -(-a * b // c)
