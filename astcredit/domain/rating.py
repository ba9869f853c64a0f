"""What a call costs, and how long it may last for the money that is there.

A rate has a price per minute, charged in increments: the first `first_increment` seconds are
charged whole as soon as the call is charged at all, after them each `next_increment` seconds that
have begun. 60/60 is the whole minute, 30/6 thirty seconds and then every six, 1/1 every second.

    price = max(minimum charge, connect fee + price per minute * billed seconds / 60)

rounded up at the sixth decimal. A call of at most `grace_seconds` costs nothing.

Example, 0.10 a minute, 30/6, connect fee 0.02: 31 seconds are billed as 36 and cost
0.02 + 0.10 * 36 / 60 = 0.08. With 0.079999 in hand the call may last 30 seconds, which cost 0.07.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from astcredit.domain.money import Micros, mul_div_up, short_text
from astcredit.domain.text import printable

MOST_PREFIX_DIGITS: Final = 20
"""E.164 ends at 15 digits; carriers put routing digits before and ranges of a few more behind."""

MOST_AMOUNT: Final = 10**12
"""A million currency units a minute: no tariff comes near, sums stay far inside 64 bits."""

MOST_INCREMENT: Final = 3600
"""Seconds. An hour; the longest increment sold is a minute, a flat call is a connect fee."""

MOST_GRACE: Final = 3600
"""Seconds. As the increment: a call free for more than an hour is a rate of 0."""

MOST_INSTANT_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, where calendars of databases and of Python end."""

SECONDS_PER_MINUTE: Final = 60

RANGES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "rate_per_minute": (0, MOST_AMOUNT),
        "connect_fee": (0, MOST_AMOUNT),
        "first_increment": (1, MOST_INCREMENT),
        "next_increment": (1, MOST_INCREMENT),
        "grace_seconds": (0, MOST_GRACE),
        "minimum_charge": (0, MOST_AMOUNT),
        "effective_from_ms": (0, MOST_INSTANT_MS),
    }
)
"""Least and greatest value of each number in a `Rate`."""

# Tables of a million rates are checked row by row, so the way to the values is a short one.
_RANGES: Final = tuple(RANGES.items())
_numbers_of: Final = attrgetter(*RANGES)

PREFIX_EXPECTED: Final = f"1 to {MOST_PREFIX_DIGITS} digits"


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of calls to the numbers that begin with `prefix`.

    Amounts are micros, increments and grace are seconds. Raises ValueError naming field, value and
    expectation when a field is outside `RANGES` or the prefix is not 1 to 20 ASCII digits.
    """

    prefix: str
    destination: str
    rate_per_minute: Micros
    connect_fee: Micros = 0
    first_increment: int = 1
    next_increment: int = 1
    grace_seconds: int = 0
    minimum_charge: Micros = 0
    effective_from_ms: int = 0

    def __post_init__(self) -> None:
        if not is_prefix(self.prefix):
            raise ValueError(f"prefix: {printable(self.prefix)}: expected {PREFIX_EXPECTED}")
        for value, (field, (least, most)) in zip(_numbers_of(self), _RANGES, strict=True):
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{field}: {value!r}: expected an integer from {least} to {most}")

    @property
    def is_free(self) -> bool:
        """True when no call at this rate costs anything, however long it is."""
        return not (self.rate_per_minute or self.connect_fee or self.minimum_charge)


def is_prefix(text: str) -> bool:
    """True for what can be the prefix of a rate: 1 to 20 ASCII digits."""
    return len(text) <= MOST_PREFIX_DIGITS and text.isascii() and text.isdigit()


def billed_seconds(rate: Rate, seconds: int) -> int:
    """Seconds that are charged for a call of `seconds`, increments applied; 0 within the grace.

    Raises ValueError when `seconds` is negative.
    """
    if seconds < 0:
        raise ValueError(f"seconds: {seconds}: expected at least 0")
    if seconds <= rate.grace_seconds:
        return 0
    beyond_first = max(0, seconds - rate.first_increment)
    return rate.first_increment + _whole_up(beyond_first, rate.next_increment)


def price(rate: Rate, seconds: int) -> Micros:
    """What a call of `seconds` costs; never falls as `seconds` grow.

    Raises ValueError when `seconds` is negative.
    """
    billed = billed_seconds(rate, seconds)
    if billed == 0:
        return 0
    talk = mul_div_up(rate.rate_per_minute, billed, SECONDS_PER_MINUTE)
    return max(rate.minimum_charge, rate.connect_fee + talk)


def max_seconds(rate: Rate, funds: Micros, limit: int) -> int:
    """The longest call, in whole seconds up to `limit`, whose price `funds` can pay.

    The inverse of `price`, in whole increments: who cannot pay the next minute of a 60/60 rate is
    not given it. Funds that do not pay the first second that is charged give 0, even when there is
    a grace: who answers could not be billed. A free rate gives `limit`, with debts too.
    Raises ValueError when `limit` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit: {limit}: expected at least 0")
    if rate.is_free:
        return limit
    if price(rate, rate.grace_seconds + 1) > funds:
        return 0
    if rate.rate_per_minute == 0:
        return limit
    # Prices are whole micros: rounding them up cannot lift them above a whole number of micros.
    payable = (funds - rate.connect_fee) * SECONDS_PER_MINUTE // rate.rate_per_minute
    beyond_first = payable - rate.first_increment
    whole = rate.first_increment + beyond_first // rate.next_increment * rate.next_increment
    return min(whole, limit)


def explain(rate: Rate, seconds: int, price_charged: Micros) -> list[str]:
    """The sum behind a charge, one step a line, so that a person can do it again by hand.

    `seconds` is the length of the call, rounded up to the second; `price_charged` what the client
    paid, which is less than the price when the call outlasted what was reserved.
    """
    due = price(rate, seconds)
    lines = [
        f"rate {short_text(rate.rate_per_minute)} a minute for prefix {rate.prefix}",
        _billed_line(rate, seconds),
        *_sum_lines(rate, billed_seconds(rate, seconds)),
        f"price {short_text(due)}",
    ]
    if price_charged < due:
        lines.append(f"charged {short_text(price_charged)}, never more than was reserved")
    elif price_charged > due:
        lines.append(f"charged {short_text(price_charged)}, which this rate does not explain")
    return lines


def _billed_line(rate: Rate, seconds: int) -> str:
    billed = billed_seconds(rate, seconds)
    if billed == 0:
        grace = f" (calls up to {rate.grace_seconds} s are not charged)" if seconds else ""
        return f"talked {seconds} s, billed 0 s{grace}"
    increments = f"first {rate.first_increment} s, then every {rate.next_increment} s begun"
    return f"talked {seconds} s, billed {billed} s ({increments})"


def _sum_lines(rate: Rate, billed: int) -> list[str]:
    """Fee, talk and minimum of a call that is charged; nothing for one that is not."""
    if billed == 0:
        return []
    talk = mul_div_up(rate.rate_per_minute, billed, SECONDS_PER_MINUTE)
    exact = talk * SECONDS_PER_MINUTE == rate.rate_per_minute * billed
    rounding = "" if exact else ", rounded up to the sixth decimal"
    lines = [f"connect fee {short_text(rate.connect_fee)}"] if rate.connect_fee else []
    lines.append(
        f"talk {billed} s * {short_text(rate.rate_per_minute)} / {SECONDS_PER_MINUTE} s"
        f" = {short_text(talk)}{rounding}"
    )
    if rate.connect_fee + talk < rate.minimum_charge:
        lines.append(f"minimum charge {short_text(rate.minimum_charge)}")
    return lines


def _whole_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step
