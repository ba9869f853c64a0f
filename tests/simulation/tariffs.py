"""The simulation's own price list and its own pricing, in plain integers.

It shares no code with the program: the auditor charges with it what the program ought to charge.
Amounts are millionths of the currency.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tariff:
    """The price of calls to the numbers that begin with `prefix`; increments are seconds."""

    prefix: str
    per_minute: int
    fee: int = 0
    first: int = 1
    next: int = 1
    grace: int = 0
    minimum: int = 0

    def price(self, seconds: int) -> int:
        """What a call of so many whole seconds costs."""
        if seconds <= self.grace:
            return 0
        billed = self.first
        while billed < seconds:
            billed += self.next
        sixtieths = self.per_minute * billed
        talk = sixtieths // 60 + (1 if sixtieths % 60 else 0)
        return max(self.minimum, self.fee + talk)

    def price_of_ms(self, talk_ms: int, most_seconds: int) -> int:
        """What a call costs that was talked for so many milliseconds and allowed for so many
        seconds: what Asterisk cuts late is not charged."""
        whole = talk_ms // 1000 + (1 if talk_ms % 1000 else 0)
        return self.price(min(max(whole, 0), most_seconds))


RETAIL = (
    Tariff("44", 60_000),
    Tariff("49", 90_000, fee=20_000, first=60, next=60),
    Tariff("1", 31_111, first=30, next=6, minimum=30_000),
    Tariff("33", 45_007, grace=3),
    Tariff("800", 0),
    Tariff("7", 1_234_567, fee=7, first=1, next=13),
)
"""What clients pay: by the second, by the minute with a fee, in steps, with a grace, nothing at
all, and one that is dear enough to exhaust any balance."""


def tariff_of(number: str) -> Tariff | None:
    """The longest prefix of a number that has a price."""
    found = [tariff for tariff in RETAIL if number.startswith(tariff.prefix)]
    return max(found, key=lambda tariff: len(tariff.prefix), default=None)
