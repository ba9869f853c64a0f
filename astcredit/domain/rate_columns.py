"""Rates by the column: a million of them on their way between a file, the database and the memory
are five lists, not a million objects.

What repeats from rate to rate is meant to be one object in all its places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Final, TypeAlias, TypeVar

from astcredit.domain.money import Micros
from astcredit.domain.rating import MOST_AMOUNT, MOST_INSTANT_MS, MOST_PREFIX_DIGITS, Rate

Terms: TypeAlias = tuple[int, int, int, int, int, int, int | None]
"""What of a rate repeats from prefix to prefix, in the order of the fields of a `RateRow`: connect
fee, first and next increment, grace seconds, minimum charge, the instants from which it is in force
and from which it is not any more, if any."""

BEGIN: Final = 5
UNTIL: Final = 6
"""Where the two instants stand in `Terms`."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RateRow(Rate):
    """A rate as it stands in a rate table: it may end.

    In force while effective_from_ms <= now < effective_until_ms; None means that it has no end.
    """

    effective_until_ms: int | None = None

    def __post_init__(self) -> None:
        Rate.__post_init__(self)  # super() does not find its class when that has slots
        until = self.effective_until_ms
        if until is not None and (type(until) is not int or not 0 <= until <= MOST_INSTANT_MS):
            raise ValueError(
                f"effective_until_ms: {until!r}: expected an integer from 0 to {MOST_INSTANT_MS}"
            )


def _setter(field: str) -> Callable[[RateRow, object], None]:
    """What sets a field of a rate that is being made."""
    set_field: Callable[[RateRow, object], None] = getattr(RateRow, field).__set__
    return set_field


_set_prefix: Final = _setter("prefix")
_set_destination: Final = _setter("destination")
_set_per_minute: Final = _setter("rate_per_minute")
_set_connect_fee: Final = _setter("connect_fee")
_set_first_increment: Final = _setter("first_increment")
_set_next_increment: Final = _setter("next_increment")
_set_grace_seconds: Final = _setter("grace_seconds")
_set_minimum_charge: Final = _setter("minimum_charge")
_set_effective_from: Final = _setter("effective_from_ms")
_set_effective_until: Final = _setter("effective_until_ms")


def known_rate(prefix: str, destination: str, per_minute: Micros, terms: Terms) -> RateRow:
    """A rate of which all values were checked before: it is not checked again, which takes three
    times as long as to make it."""
    rate = object.__new__(RateRow)
    fee, first, following, grace, minimum, begin, until = terms
    _set_prefix(rate, prefix)
    _set_destination(rate, destination)
    _set_per_minute(rate, per_minute)
    _set_connect_fee(rate, fee)
    _set_first_increment(rate, first)
    _set_next_increment(rate, following)
    _set_grace_seconds(rate, grace)
    _set_minimum_charge(rate, minimum)
    _set_effective_from(rate, begin)
    _set_effective_until(rate, until)
    return rate


@dataclass(frozen=True, slots=True)
class RateColumns:
    """Rates in columns of one length; what stands at one place in all of them is a rate.

    Nothing is checked when it is made: `check` does that.
    """

    prefixes: Sequence[str]
    destinations: Sequence[str]
    per_minute: Sequence[Micros]
    terms: Sequence[Terms]

    @classmethod
    def of(cls, rates: Iterable[Rate]) -> RateColumns:
        """The columns of these rates."""
        rates = list(rates)
        return cls(
            [rate.prefix for rate in rates],
            [rate.destination for rate in rates],
            [rate.rate_per_minute for rate in rates],
            shared(map(_terms, rates)),
        )

    @classmethod
    def joined(cls, parts: Iterable[RateColumns]) -> RateColumns:
        """The rates of all parts, one part after the other."""
        parts = list(parts)
        return cls(
            _chained(part.prefixes for part in parts),
            _chained(part.destinations for part in parts),
            _chained(part.per_minute for part in parts),
            _chained(part.terms for part in parts),
        )

    def __len__(self) -> int:
        """Number of rates."""
        return len(self.prefixes)

    def __getitem__(self, part: slice) -> RateColumns:
        """Some of the rates."""
        return RateColumns(
            self.prefixes[part], self.destinations[part], self.per_minute[part], self.terms[part]
        )

    def sorted(self) -> RateColumns:
        """The same rates by prefix, those of one prefix by their beginning; else as they stand."""
        order = sorted(range(len(self)), key=list(self.begins()).__getitem__)
        order.sort(key=self.prefixes.__getitem__)
        return RateColumns(
            [self.prefixes[place] for place in order],
            [self.destinations[place] for place in order],
            [self.per_minute[place] for place in order],
            [self.terms[place] for place in order],
        )

    def check(self) -> None:
        """Raise ValueError, as `RateRow` does, if a rate is none."""
        if not self._are_plain():
            for _ in self.rows():
                pass

    def rates(self) -> Iterator[Rate]:
        """The rates as objects, without their ends. Raises ValueError as `rows`."""
        for prefix, destination, per_minute, terms in self._together():
            yield Rate(prefix, destination, per_minute, *terms[:UNTIL])

    def rows(self) -> Iterator[RateRow]:
        """The rates as objects. Raises ValueError for one that is none."""
        for prefix, destination, per_minute, terms in self._together():
            yield RateRow(prefix, destination, per_minute, *terms)

    def begins(self) -> Iterator[int]:
        """The instants from which the rates are in force."""
        return map(itemgetter(BEGIN), self.terms)

    def _together(self) -> Iterator[tuple[str, str, Micros, Terms]]:
        columns = self.prefixes, self.destinations, self.per_minute, self.terms
        return zip(*columns, strict=True)

    def _are_plain(self) -> bool:
        """Whether all rates are acceptable at the first glance, a column at a time."""
        if not self.prefixes:
            return True
        if not are_prefixes(self.prefixes) or set(map(type, self.per_minute)) != {int}:
            return False
        for terms in set(self.terms):
            RateRow("0", "", 0, *terms)
        return min(self.per_minute) >= 0 and max(self.per_minute) <= MOST_AMOUNT


def are_prefixes(texts: Sequence[str]) -> bool:
    """Whether all of some texts, at least one, can be the prefix of a rate."""
    digits = "".join(texts)
    if not (digits.isascii() and digits.isdigit()):
        return False
    return all(texts) and max(map(len, texts)) <= MOST_PREFIX_DIGITS


def shared(values: Iterable[_T]) -> list[_T]:
    """The same values, equal ones being one object."""
    known: dict[_T, _T] = {}
    return [known.setdefault(value, value) for value in values]


def _chained(parts: Iterable[Iterable[_T]]) -> list[_T]:
    return list(chain.from_iterable(parts))


def _terms(rate: Rate) -> Terms:
    return (
        rate.connect_fee,
        rate.first_increment,
        rate.next_increment,
        rate.grace_seconds,
        rate.minimum_charge,
        rate.effective_from_ms,
        rate.effective_until_ms if isinstance(rate, RateRow) else None,
    )
