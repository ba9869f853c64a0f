"""Dialled numbers brought into one form: E.164 digits without the plus.

This is the one place where that is done, and it is done once for each call: what comes out must
not be put in again, because where a trunk prefix is the first digit of a foreign country code
(Russia's 8, Japan's 81) the international number would be taken for a national one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from astcredit.domain.text import printable

MOST_DIGITS: Final = 32
"""E.164 ends at 15; carriers put routing digits before; beyond that it is noise or an attack."""

MOST_COUNTRY_DIGITS: Final = 3
"""E.164: a country code has one to three digits."""

MOST_PREFIX_DIGITS: Final = 8
"""Digits of a trunk or international prefix, those that choose a carrier included."""

MOST_KEPT: Final = 40
"""Characters of a dialled number that is remembered: some separators among `MOST_DIGITS`. A caller
may send ten thousand."""

NUMBER_EXPECTED: Final = f"a telephone number of 1 to {MOST_DIGITS} digits"

_SEPARATORS: Final = str.maketrans("", "", " -./()")


class InvalidNumber(ValueError):  # noqa: N818 - it names the outcome of a call, not a fault
    """What was dialled is not a telephone number. The text is one line and safe to show."""


def default_international_prefixes(country_code: str) -> tuple[str, ...]:
    """The prefixes of international calls where none are configured.

    "011" is North America's. Elsewhere it begins national numbers (Leeds is 0113), so a configured
    country other than 1 knows "00" only; without a country there are no national numbers and both
    are understood.
    """
    if country_code == "":
        return ("00", "011")
    return ("011",) if country_code == "1" else ("00",)


@dataclass(frozen=True, slots=True)
class Numbering:
    """How numbers are dialled where the callers are.

    `country_code` without +, e.g. "44"; empty: callers dial international numbers only.
    `trunk_prefix` begins national numbers ("0" in most countries, "1" in North America, empty where
    there is none) and counts only with a country code. `international_prefixes`: what is dialled
    for +; when empty, those of `default_international_prefixes`. Raises ValueError naming field,
    value and expectation.
    """

    country_code: str = ""
    trunk_prefix: str = "0"
    international_prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.country_code.startswith("0"):
            raise ValueError(
                f"country_code: {printable(self.country_code)}: expected no 0 at the beginning"
            )
        _check_digits("country_code", self.country_code, 0, MOST_COUNTRY_DIGITS)
        _check_digits("trunk_prefix", self.trunk_prefix, 0, MOST_PREFIX_DIGITS)
        for prefix in self.international_prefixes:
            _check_digits("international_prefixes", prefix, 1, MOST_PREFIX_DIGITS)

    def normalise(self, raw: str) -> str:
        """The number that was dialled as E.164 digits, country code first, without +.

        Visual separators (space, - . / and parentheses) are dropped. Then the first that fits: a
        leading +, the longest international prefix, the trunk prefix (replaced by the country
        code); what fits none of these is taken as international already. Nothing is guessed from
        the length: a local number without its trunk prefix is not completed, and short numbers as
        112 stay as they are. Raises InvalidNumber.
        """
        return _remembered(self, raw) if len(raw) <= MOST_KEPT else _normalised(self, raw)

    def internationalise(self, dialled: str) -> str:
        """Digits as they were dialled with the prefix replaced that says how far they go."""
        prefixes = self.international_prefixes or default_international_prefixes(self.country_code)
        fitting = [prefix for prefix in prefixes if dialled.startswith(prefix)]
        if fitting:
            return dialled.removeprefix(max(fitting, key=len))
        if self.country_code and self.trunk_prefix and dialled.startswith(self.trunk_prefix):
            return self.country_code + dialled.removeprefix(self.trunk_prefix)
        return dialled


def _normalised(numbering: Numbering, raw: str) -> str:
    dialled = raw.translate(_SEPARATORS)
    number = dialled[1:] if dialled.startswith("+") else numbering.internationalise(dialled)
    if not _is_digits(number) or not 1 <= len(number) <= MOST_DIGITS:
        raise InvalidNumber(f"{printable(raw)}: expected {NUMBER_EXPECTED}")
    return number


_remembered = lru_cache(maxsize=4096)(_normalised)  # a call's number is asked for three times


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _check_digits(field: str, value: str, least: int, most: int) -> None:
    if not least <= len(value) <= most or (value and not _is_digits(value)):
        raise ValueError(f"{field}: {printable(value)}: expected {least} to {most} digits")
