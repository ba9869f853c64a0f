"""The rates of one rate table, compiled for look-up by number and instant.

The rule: of the prefixes that a number begins with, the longest that has a rate in force; of that
prefix's rates in force, the one that came into force last. A longer prefix whose rates have all
ended, or not begun, leaves the number to a shorter one.

A deck can hold a million prefixes, and a new one is loaded while the old one serves calls. So rows
are kept in columns of machine integers. What repeats from row to row (tariffs, names of
destinations, periods) is kept once, and a prefix is one integer: "1" and its digits, so that
leading zeros count and the next shorter prefix is a division by ten away.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from astcredit.domain.instants import instant_text
from astcredit.domain.rating import MOST_INSTANT_MS, Rate

_FOREVER: Final = MOST_INSTANT_MS + 1
_NO_ROW: Final = -1
_EMPTY_PREFIX: Final = 1

MOST_BUILT: Final = 4_096
"""Rates kept as objects, of those that calls asked for: building one anew costs as much as finding
it, and most calls go to few prefixes. One megabyte."""

_T = TypeVar("_T")
_Tariff: TypeAlias = tuple[int, int, int, int, int]
_Period: TypeAlias = tuple[int, int]


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rate whose prefix a number begins with, and why it does or does not apply."""

    rate: RateRow
    chosen: bool
    why: str


class RateTable:
    """An immutable rate table. Look-ups take microseconds and are safe from any thread."""

    __slots__ = (
        "_built",
        "_by_prefix",
        "_columns",
        "_longest",
        "currency",
        "id",
        "name",
        "version",
    )

    def __init__(
        self, id: int, name: str, currency: str, version: int, rows: Iterable[RateRow] = ()
    ) -> None:
        """Compile `rows`, in any order; they are read once and not kept.

        Of two rows with the same prefix and instant the later in `rows` comes first.
        """
        self.id: Final = id
        self.name: Final = name
        self.currency: Final = currency
        self.version: Final = version
        self._columns: Final = _Columns()
        self._built: Final[dict[int, RateRow]] = {}
        self._by_prefix: Final[dict[int, int]] = {}
        longest = 0
        for row in rows:
            self._insert(row)
            longest = max(longest, len(row.prefix))
        self._longest: Final = longest
        self._columns.seal()

    def __len__(self) -> int:
        """Number of rates, those not in force included."""
        return len(self._columns.older)

    def __repr__(self) -> str:
        return f"<RateTable {self.id} {self.name!r} version {self.version}, {len(self)} rates>"

    def lookup(self, number: str, now_ms: int) -> Rate | None:
        """The rate of calls to `number` (E.164 digits without +) that begin at `now_ms`.

        None when no prefix of the number has a rate in force.
        """
        columns = self._columns
        for key, row in self._matches(number):
            if columns.is_in_force(row, now_ms):
                return self._built.get(row) or self._build(row, key)
        return None

    def _build(self, row: int, key: int) -> RateRow:
        """The rate of a row, to be kept for the next call."""
        if len(self._built) >= MOST_BUILT:
            self._built.clear()
        rate = self._columns.rate(row, _prefix(key))
        self._built[row] = rate
        return rate

    def explain(self, number: str, now_ms: int) -> list[Candidate]:
        """Every rate that has to do with `number`, longest prefix and latest rate first.

        At most one is chosen, the one that `lookup` gives; each says why it is or is not.
        """
        candidates: list[Candidate] = []
        chosen: str | None = None
        for key, row in self._matches(number):
            rate = self._columns.rate(row, _prefix(key))
            why_not = _why_not_in_force(rate, now_ms) or _why_not_first(rate, chosen)
            if why_not is None:
                chosen = rate.prefix
            candidates.append(
                Candidate(
                    rate, why_not is None, why_not or "the longest prefix with a rate in force"
                )
            )
        return candidates

    def _matches(self, number: str) -> Iterator[tuple[int, int]]:
        """Key and row of every rate whose prefix begins `number`, in order of precedence."""
        if not (number.isascii() and number.isdigit()):
            return
        older = self._columns.older
        key = int(f"1{number[: self._longest]}")
        while key > _EMPTY_PREFIX:
            row = self._by_prefix.get(key, _NO_ROW)
            while row != _NO_ROW:
                yield key, row
                row = older[row]
            key //= 10

    def _insert(self, rate: RateRow) -> None:
        """Add a row and link it into its prefix's chain, which runs from new to old."""
        columns = self._columns
        row = columns.append(rate)
        key = int(f"1{rate.prefix}")
        newer, older = _NO_ROW, self._by_prefix.get(key, _NO_ROW)
        while older != _NO_ROW and columns.begins(older) > rate.effective_from_ms:
            newer, older = older, columns.older[older]
        columns.older[row] = older
        if newer == _NO_ROW:
            self._by_prefix[key] = row
        else:
            columns.older[newer] = row


class _Columns:
    """The rows without their prefixes, column by column, 24 bytes each."""

    __slots__ = (
        "_destination",
        "_destinations",
        "_per_minute",
        "_period",
        "_periods",
        "_tariff",
        "_tariffs",
        "older",
    )

    def __init__(self) -> None:
        self.older = array("i")
        self._per_minute = array("q")
        self._tariff = array("i")
        self._destination = array("i")
        self._period = array("i")
        self._tariffs = _Pool[_Tariff]()
        self._destinations = _Pool[str]()
        self._periods = _Pool[_Period]()

    def append(self, rate: RateRow) -> int:
        """Store a rate; the number of its row. It is not linked to an older one yet."""
        tariff = (
            rate.connect_fee,
            rate.first_increment,
            rate.next_increment,
            rate.grace_seconds,
            rate.minimum_charge,
        )
        until = _FOREVER if rate.effective_until_ms is None else rate.effective_until_ms
        self._per_minute.append(rate.rate_per_minute)
        self._tariff.append(self._tariffs.put(tariff))
        self._destination.append(self._destinations.put(rate.destination))
        self._period.append(self._periods.put((rate.effective_from_ms, until)))
        self.older.append(_NO_ROW)
        return len(self.older) - 1

    def seal(self) -> None:
        """Free what only `append` needs."""
        self._tariffs.seal()
        self._destinations.seal()
        self._periods.seal()

    def begins(self, row: int) -> int:
        """The instant from which the row is in force, in milliseconds."""
        return self._periods[self._period[row]][0]

    def is_in_force(self, row: int, now_ms: int) -> bool:
        begin, end = self._periods[self._period[row]]
        return begin <= now_ms < end

    def rate(self, row: int, prefix: str) -> RateRow:
        """The row as it was given."""
        begin, end = self._periods[self._period[row]]
        fee, first, following, grace, minimum = self._tariffs[self._tariff[row]]
        return RateRow(
            prefix=prefix,
            destination=self._destinations[self._destination[row]],
            rate_per_minute=self._per_minute[row],
            connect_fee=fee,
            first_increment=first,
            next_increment=following,
            grace_seconds=grace,
            minimum_charge=minimum,
            effective_from_ms=begin,
            effective_until_ms=None if end == _FOREVER else end,
        )


class _Pool(Generic[_T]):
    """Values that repeat, kept once and known by their number."""

    __slots__ = ("_numbers", "_values")

    def __init__(self) -> None:
        self._values: list[_T] = []
        self._numbers: dict[_T, int] = {}

    def put(self, value: _T) -> int:
        """The number of `value`, a new one when it was not put before."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> _T:
        return self._values[number]

    def seal(self) -> None:
        """Forget the numbers of the values; nothing must be put any more."""
        self._numbers = {}


def _prefix(key: int) -> str:
    return str(key)[1:]


def _why_not_in_force(rate: RateRow, now_ms: int) -> str | None:
    until = rate.effective_until_ms
    if until is not None and until <= now_ms:
        return f"ended {instant_text(until)}"
    if now_ms < rate.effective_from_ms:
        return f"not yet in force until {instant_text(rate.effective_from_ms)}"
    return None


def _why_not_first(rate: RateRow, chosen: str | None) -> str | None:
    if chosen is None:
        return None
    if chosen == rate.prefix:
        return "a later rate of the same prefix is in force"
    return "a longer prefix is in force"
