"""How many calls are up at each level: looking, and counting anew.

The counters move in the transactions that reserve and settle, so they agree with the open
reservations unless somebody wrote to the tables by hand, or brought back a part of a backup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from astcredit.domain.capacity import Direction, Level, Occupancy, Scope
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.capacity_ports import Counters, LevelInUse, LevelQuery
from astcredit.service.catalog_rules import require
from astcredit.service.desk import CatalogDesk
from astcredit.service.history_ports import AuditEntry
from astcredit.service.persistence import persistently

MOST_RECORDED = 1_000
"""Counters that one row of astaudit names: a state there has room for 64 kB in MariaDB."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A counter that was wrong: what it said, and what the open reservations say."""

    level: Level
    name: str
    found: int
    calls: int


class CapacityDesk(CatalogDesk):
    """The administrator's use cases on the counters of calls."""

    async def levels(self, wanted: LevelQuery) -> Sequence[LevelInUse]:
        """The levels with a limit or with calls up, the widest first."""
        async with self._store.looking() as transaction:
            if wanted.reseller is not None:
                await require(transaction, "reseller", wanted.reseller)
            if wanted.client is not None:
                await require(transaction, "client", wanted.client)
            return await transaction.capacity.levels(wanted)

    async def recount(self) -> Sequence[Mended]:
        """Set every counter to what the open reservations say; what was wrong.

        Calls wait meanwhile. What clients have reserved is not touched: that is money, and the
        audit's to find.
        """

        async def recount_() -> Sequence[Mended]:
            # A change of the catalog, which takes as long as it takes, one at a time.
            async with self._store.changing_catalog() as transaction:
                counters = await transaction.capacity.lock()
                right = recounted(counters, await transaction.capacity.occupied())
                mended = await _described(transaction, counters, right)
                if mended:
                    await transaction.capacity.put(right)
                    await transaction.record(self._entry(mended))
            return mended

        return await persistently(recount_)

    def _entry(self, mended: Sequence[Mended]) -> AuditEntry:
        recorded = mended[:MOST_RECORDED]
        return AuditEntry(
            self._now_ms(),
            self._actor,
            "recount",
            "capacity",
            "counters",
            {one.level.key: one.found for one in recorded},
            {one.level.key: one.calls for one in recorded},
            f"{len(mended)} counters mended",
        )


def recounted(counters: Counters, occupied: Iterable[tuple[int, Occupancy]]) -> Counters:
    """Those of the counters that are wrong, each with what the open calls say."""
    calls = Counter[Level]()
    for client_id, occupancy in occupied:
        calls.update((Level(Scope.CLIENT, client_id, Direction.ORIG), *occupancy.levels()))
    return {level: calls[level] for level, found in counters.items() if found != calls[level]}


async def _described(
    transaction: AdminTransaction, counters: Counters, right: Mapping[Level, int]
) -> list[Mended]:
    names = await transaction.capacity.names(right)
    order = list(Scope)
    return [
        Mended(level, names.get(level, f"id {level.object_id}"), counters[level], right[level])
        for level in sorted(right, key=lambda found: (order.index(found.scope), found))
    ]
