"""How many calls are up at each level, and where that is counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from astcredit.domain.capacity import Direction, Level, Occupancy, Scope


@dataclass(frozen=True, slots=True)
class LevelInUse:
    """A level with a limit or with calls up.

    `capacity` None: no limit. `percent`: whole per cent of the limit, rounded down; 100 where
    the limit is 0.
    """

    scope: Scope
    name: str
    direction: Direction
    calls: int
    capacity: int | None
    percent: int | None
    object_id: int


@dataclass(frozen=True, slots=True)
class LevelQuery:
    """Which levels are asked for: all that fit.

    `reseller`: its own, and those of its clients, of their accounts and of the rules that lead
    to these. `client`: likewise. `least_percent`: those with so much of a limit in use.
    """

    reseller: str | None = None
    client: str | None = None
    least_percent: int | None = None


Counters: TypeAlias = Mapping[Level, int]
"""What counters say; a client's originating calls, kept in its own row, are one of them."""


class CapacityStore(Protocol):
    """The counters of calls, inside a transaction. Every method may raise StorageError."""

    async def levels(self, wanted: LevelQuery) -> Sequence[LevelInUse]:
        """The levels with a limit or with calls up that fit, the widest first."""

    async def lock(self) -> Counters:
        """Lock every client, then the counters in use, each in the order of the ids.

        Those are the counters that are not 0, and those of the levels that an open call is part
        of, which are made where they are missing. All others are 0 and right. Until the
        transaction ends no call begins, moves or ends.
        """

    async def occupied(self) -> Sequence[tuple[int, Occupancy]]:
        """What each open call is counted at: its client's id, and the other levels."""

    async def put(self, counters: Counters) -> None:
        """Write counters that are locked."""

    async def names(self, levels: Collection[Level]) -> Mapping[Level, str]:
        """What the objects of the levels are called; one that is gone is missing."""
