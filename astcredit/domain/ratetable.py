"""The rates of one rate table, compiled for look-up by number and instant.

The rule: of the prefixes that a number begins with, the longest that has a rate in force; of that
prefix's rates in force, the one that came into force last. A longer prefix whose rates have all
ended, or not begun, leaves the number to a shorter one.

A deck can hold a million prefixes, and a new one is loaded while the old one serves calls:
`rate_index` has them in little memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from astcredit.domain.instants import instant_text
from astcredit.domain.rate_columns import RateColumns, RateRow
from astcredit.domain.rate_index import NO_ROW, RateIndex
from astcredit.domain.rating import Rate

__all__ = ["Candidate", "RateRow", "RateTable"]

MOST_BUILT: Final = 4_096
"""Rates kept as objects, of those that calls asked for: building one anew costs as much as finding
it, and most calls go to few prefixes. One megabyte."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rate whose prefix a number begins with, and why it does or does not apply."""

    rate: RateRow
    chosen: bool
    why: str


class RateTable:
    """An immutable rate table. Look-ups take microseconds and are safe from any thread."""

    __slots__ = ("_built", "_index", "currency", "id", "name", "version")

    def __init__(
        self, id: int, name: str, currency: str, version: int, rows: Iterable[RateRow] = ()
    ) -> None:
        """Compile `rows`, in any order; they are read once and not kept.

        Of two rows with the same prefix and instant the later in `rows` comes first.
        """
        index = RateIndex()
        index.add(RateColumns.of(rows).sorted())
        index.seal()
        self._be(id, name, currency, version, index)

    @classmethod
    def of(cls, id: int, name: str, currency: str, version: int, index: RateIndex) -> RateTable:
        """The table of rates that were compiled before; `index` is sealed."""
        table = cls.__new__(cls)
        table._be(id, name, currency, version, index)
        return table

    def _be(self, id: int, name: str, currency: str, version: int, index: RateIndex) -> None:
        self.id = id
        self.name = name
        self.currency = currency
        self.version = version
        self._index = index
        self._built: dict[int, RateRow] = {}

    def __len__(self) -> int:
        """Number of rates, those not in force included."""
        return len(self._index)

    def __repr__(self) -> str:
        return f"<RateTable {self.id} {self.name!r} version {self.version}, {len(self)} rates>"

    def lookup(self, number: str, now_ms: int) -> Rate | None:
        """The rate of calls to `number` (E.164 digits without +) that begin at `now_ms`.

        None when no prefix of the number has a rate in force.
        """
        row = self._index.find(number, now_ms)
        if row == NO_ROW:
            return None
        return self._built.get(row) or self._build(row, number)

    def _build(self, row: int, number: str) -> RateRow:
        """The rate of a row, to be kept for the next call."""
        if len(self._built) >= MOST_BUILT:
            self._built.clear()
        rate = self._index.rate(row, number)
        self._built[row] = rate
        return rate

    def explain(self, number: str, now_ms: int) -> list[Candidate]:
        """Every rate that has to do with `number`, longest prefix and latest rate first.

        At most one is chosen, the one that `lookup` gives; each says why it is or is not.
        """
        candidates: list[Candidate] = []
        chosen: str | None = None
        for row in self._index.matching(number):
            rate = self._index.rate(row, number)
            why_not = _why_not_in_force(rate, now_ms) or _why_not_first(rate, chosen)
            if why_not is None:
                chosen = rate.prefix
            candidates.append(
                Candidate(
                    rate, why_not is None, why_not or "the longest prefix with a rate in force"
                )
            )
        return candidates


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
