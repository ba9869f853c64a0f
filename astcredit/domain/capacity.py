"""Capacity: how many calls may be up at once, at each level that a call passes.

A call counts from the instant it is allowed until it is settled or released. It originates for
a reseller, a client and an account, and where a routing plan chose its route it terminates at a
rule, an account, a client and a reseller. Every level with a limit is checked; each is counted
whether it has a limit or not, so that a limit that is set later finds the true number.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from astcredit.domain.records import record


class Scope(StrEnum):
    """What has a capacity."""

    RESELLER = "reseller"
    CLIENT = "client"
    ACCOUNT = "account"
    ROUTE = "route"


class Direction(StrEnum):
    """Calls that somebody makes are counted apart from calls that are handed to somebody."""

    ORIG = "orig"
    TERM = "term"


class Level(NamedTuple):
    """One counter: of an object, in one direction."""

    scope: Scope
    object_id: int
    direction: Direction

    @property
    def key(self) -> str:
        """The counter's name in the database; also the order in which counters are locked."""
        return f"{self.scope.value}:{self.object_id}:{self.direction.value}"

    @property
    def shared(self) -> bool:
        """Whether calls of several clients are counted here. What an account makes is counted under
        its client's lock: that counter is in nobody else's way."""
        return (self.scope, self.direction) != (Scope.ACCOUNT, Direction.ORIG)


Uses: TypeAlias = Mapping[Level, int]
"""Calls that are up, by level; a level that is missing has none."""


@record
class Limit:
    """A level of a call with its object's name and the most calls at once; None: no limit."""

    level: Level
    name: str
    most: int | None

    def refusal(self, uses: Uses) -> str:
        """Why one more call is too many here; empty if it is not."""
        use = uses.get(self.level, 0)
        if self.most is None or use < self.most:
            return ""
        way = "originating" if self.level.direction is Direction.ORIG else "terminating"
        return f"{self.level.scope} {self.name!r} has {use} of {self.most} {way} calls up"


class Occupancy(NamedTuple):
    """What an open call is counted at, as its reservation keeps it.

    The client's originating calls are not here: its open reservations are counted in its books.
    """

    account_id: int | None
    reseller_id: int | None = None
    route_id: int | None = None
    term_account_id: int | None = None
    term_client_id: int | None = None
    term_reseller_id: int | None = None

    def levels(self) -> tuple[Level, ...]:
        """The counters that this call is part of."""
        return _levels(self)

    def shared(self) -> tuple[Level, ...]:
        """Those of them that calls of other clients change, too."""
        return _shared(self)


@lru_cache(maxsize=4096)
def _shared(occupancy: Occupancy) -> tuple[Level, ...]:
    return tuple(level for level in _levels(occupancy) if level.shared)


@lru_cache(maxsize=4096)  # asked five times a call
def _levels(occupancy: Occupancy) -> tuple[Level, ...]:
    places = (
        (Scope.RESELLER, occupancy.reseller_id, Direction.ORIG),
        (Scope.ACCOUNT, occupancy.account_id, Direction.ORIG),
        (Scope.ROUTE, occupancy.route_id, Direction.TERM),
        (Scope.ACCOUNT, occupancy.term_account_id, Direction.TERM),
        (Scope.CLIENT, occupancy.term_client_id, Direction.TERM),
        (Scope.RESELLER, occupancy.term_reseller_id, Direction.TERM),
    )
    return tuple(Level(scope, id, way) for scope, id, way in places if id is not None)
