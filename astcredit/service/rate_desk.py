"""Rates in and out: importing a deck, asking what a number costs, exporting what is in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from astcredit.domain.instants import instant_text
from astcredit.domain.rate_columns import RateColumns, RateRow
from astcredit.domain.ratetable import Candidate, RateTable
from astcredit.domain.rating import Rate
from astcredit.service.admin_ports import (
    AdminStore,
    RatesTransaction,
    RateTableHead,
    StoredPeriod,
)
from astcredit.service.catalog_rules import known_rate_table
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry
from astcredit.service.persistence import persistently

STEP = 5_000
"""Rates between two moves of the progress bar."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import changed: rates added, put in place of one with the same prefix and instant,
    ended because the new deck does not have them, and removed before they began."""

    table: str
    effective_ms: int
    added: int
    replaced: int
    ended: int
    removed: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which rates have to do with a number, in the order of precedence; one is chosen at most."""

    table: RateTableHead
    candidates: Sequence[Candidate]

    @property
    def chosen(self) -> RateRow | None:
        """The rate that applies."""
        return next((found.rate for found in self.candidates if found.chosen), None)


class Fate(Enum):
    """What becomes of a rate when a deck replaces a table."""

    KEEP = "keep"
    END = "end"
    REMOVE = "remove"


class RateDesk:
    """The use cases on rates, on behalf of `actor` (user@host). All may raise StorageError and
    RefusedError."""

    def __init__(self, store: AdminStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms

    async def import_deck(
        self,
        table: str,
        rates: Sequence[Rate] | RateColumns,
        effective_ms: int,
        *,
        replace: bool,
        source: str,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Imported:
        """Put a deck into a rate table, wholly or not at all.

        With `replace` the deck is all that there is from `effective_ms` on: see `fate`. `source`
        is what astaudit calls the deck; `progress` is told how many rates are written.
        """
        if not rates:
            raise RefusedError(f"{source}: no rates in it")
        # In order, the database writes its index from left to right.
        columns = rates if isinstance(rates, RateColumns) else RateColumns.of(rates)
        deck = columns.sorted()

        async def import_() -> Imported:
            async with self._store.changing_catalog() as transaction:
                head = await known_rate_table(transaction, table)
                stored = transaction.rates(head.id)
                ended, removed = await _make_room(stored, deck, effective_ms) if replace else (0, 0)
                before = await stored.count()
                for start in range(0, len(deck), STEP):
                    await stored.put(deck[start : start + STEP])
                    progress(min(start + STEP, len(deck)))
                after = await stored.count()
                await stored.changed(after)
                added = after - before
                result = Imported(table, effective_ms, added, len(deck) - added, ended, removed)
                await transaction.record(self._entry(head, after, result, source))
            return result

        return await persistently(import_)

    async def lookup(self, table: str, number: str, at_ms: int) -> Lookup:
        """Which rate applies to calls to `number` (E.164 digits) that begin at an instant, and
        why."""
        async with self._store.looking() as transaction:
            head = await known_rate_table(transaction, table)
            rows = await transaction.rates(head.id).matching(number)
        compiled = RateTable(head.id, head.name, head.currency, head.version, rows)
        return Lookup(head, compiled.explain(number, at_ms))

    async def export(self, table: str, at_ms: int) -> Sequence[Rate]:
        """The rates that calls at an instant are rated with, by prefix."""
        chosen: dict[str, Rate] = {}
        async with self._store.looking() as transaction:
            head = await known_rate_table(transaction, table)
            async for row in transaction.rates(head.id).in_force(at_ms):
                chosen[row.prefix] = row  # the later of two comes second
        return list(chosen.values())

    def _entry(self, head: RateTableHead, rates: int, result: Imported, source: str) -> AuditEntry:
        return AuditEntry(
            self._now_ms(),
            self._actor,
            "import",
            "rate-table",
            head.name,
            {"rates": head.rates},
            {
                "rates": rates,
                "effective": instant_text(result.effective_ms),
                "added": result.added,
                "replaced": result.replaced,
                "ended": result.ended,
                "removed": result.removed,
            },
            source,
        )


def fate(row: StoredPeriod, deck: Sequence[int] | None, effective_ms: int) -> Fate:
    """What becomes of a rate, in force at `effective_ms` or later, when a deck replaces it.

    `deck` has the instants from which the deck has rates of its prefix, None if it has none.
    After it, what the deck says applies from `effective_ms` on and nothing else does; where the
    deck's first rate of a prefix begins later, the old one holds until then.
    """
    if deck is not None and row.from_ms in deck:
        return Fate.KEEP  # it is written over
    if row.from_ms >= effective_ms:
        return Fate.REMOVE
    if deck is None:
        return Fate.END
    begun = [instant for instant in deck if instant <= effective_ms]
    # Of two rates in force the one that began last applies: an older rate of the deck would not.
    return Fate.END if begun and max(begun) < row.from_ms else Fate.KEEP


async def _make_room(
    stored: RatesTransaction, rates: RateColumns, effective_ms: int
) -> tuple[int, int]:
    """End and remove what a deck replaces; how many of each."""
    deck: dict[str, tuple[int, ...]] = {}
    for prefix, begin in zip(rates.prefixes, rates.begins(), strict=True):
        deck[prefix] = (*deck.get(prefix, ()), begin)
    ids: dict[Fate, list[int]] = {each: [] for each in Fate}
    async for row in stored.in_force_from(effective_ms):
        ids[fate(row, deck.get(row.prefix), effective_ms)].append(row.id)
    await stored.end(ids[Fate.END], effective_ms)
    await stored.remove(ids[Fate.REMOVE])
    return len(ids[Fate.END]), len(ids[Fate.REMOVE])
