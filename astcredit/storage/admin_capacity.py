"""The counters of calls in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, column, or_, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.capacity import Direction, Level, Occupancy, Scope
from astcredit.service.capacity_ports import Counters, LevelInUse, LevelQuery
from astcredit.service.routing_ports import Place
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.sessions import CoreSession
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import (
    astaccount,
    astcapacity,
    astclient,
    astcreditres,
    astreseller,
    astroute,
    astroutingplan,
    id_of,
)

T = TypeVar("T")

# Rows of one statement: each has up to five parameters, of which SQLite takes 32,766.
ROWS_AT_ONCE = 1_000

v_capacity: Final = table(
    "v_capacity",
    column("scope"),
    column("name"),
    column("direction"),
    column("calls"),
    column("capacity"),
    column("percent"),
    column("object_id"),
)
"""The view of `sql/`: there stands what a level is, and how its name and per cent come about."""


class SqlCapacity:
    """The counters, in one transaction. Implements `service.capacity_ports.CapacityStore`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect
        self._books = SqlBooksTransaction(CoreSession(connection), dialect)

    async def levels(self, wanted: LevelQuery) -> Sequence[LevelInUse]:
        """The levels with a limit or with calls up that fit, the widest first."""
        statement = select(v_capacity)
        if wanted.reseller is not None or wanted.client is not None:
            statement = statement.where(_belongs(wanted))
        if wanted.least_percent is not None:
            statement = statement.where(v_capacity.c.percent >= wanted.least_percent)
        found = [_in_use(row) for row in await self._connection.execute(statement)]
        order = list(Scope)
        return sorted(found, key=lambda each: (order.index(each.scope), each.name, each.direction))

    async def lock(self) -> Counters:
        """Lock every client, then the counters that are not 0 or must not be."""
        c, k = astclient.c, astcapacity.c
        clients = await self._connection.execute(
            select(c.id, c.active_calls).order_by(c.id).with_for_update()
        )
        counters = {Level(Scope.CLIENT, row[0], Direction.ORIG): row[1] for row in clients}
        used = await self._connection.execute(
            select(k.scope, k.object_id, k.direction).where(k.calls != 0)
        )
        levels = {Level(Scope(row[0]), row[1], Direction(row[2])) for row in used}
        for _, occupancy in await self.occupied():
            levels.update(occupancy.levels())
        for part in _parts(sorted(levels, key=lambda level: level.key)):
            counters |= await self._books.lock_uses(part)
        return counters

    async def occupied(self) -> Sequence[tuple[int, Occupancy]]:
        """What each open call is counted at: its client's id, and the other levels."""
        c = astcreditres.c
        found = await self._connection.execute(
            select(
                c.client_id,
                c.account_id,
                c.reseller_id,
                c.route_id,
                c.term_account_id,
                c.term_client_id,
                c.term_reseller_id,
            )
        )
        return [(client_id, Occupancy(*levels)) for client_id, *levels in found]

    async def put(self, counters: Counters) -> None:
        """Write counters that are locked."""
        of_clients = {
            level.object_id: calls for level, calls in counters.items() if _is_clients(level)
        }
        others = {level.key: calls for level, calls in counters.items() if not _is_clients(level)}
        await self._set("astclient", "active_calls", of_clients)
        await self._set("astcapacity", "calls", others)

    async def _set(self, name: str, counter: str, calls: Mapping[Any, int]) -> None:
        for part in _parts(sorted(calls.items())):
            statement, values = self._sql.update_many(name, "id", (counter,), part)
            await self._connection.exec_driver_sql(statement, tuple(values))

    async def names(self, levels: Collection[Level]) -> Mapping[Level, str]:
        """What the objects of the levels are called; one that is gone is missing."""
        found: dict[Level, str] = {}
        for scope, statement in _NAMES.items():
            of_scope = [level for level in levels if level.scope is scope]
            for part in _parts(sorted(of_scope)):
                ids = {level.object_id for level in part}
                result = await self._connection.execute(
                    statement.where(_IDS[scope].in_(sorted(ids)))
                )
                names = {id: _name(scope, parts) for id, *parts in result}
                found |= {lv: names[lv.object_id] for lv in part if lv.object_id in names}
        return found


def _is_clients(level: Level) -> bool:
    """Whether the counter stands in the client's own row."""
    return level.scope is Scope.CLIENT and level.direction is Direction.ORIG


def _belongs(wanted: LevelQuery) -> ColumnElement[bool]:
    """Whether a level is of the reseller, or of one of the clients, that are asked for."""
    c = astclient.c
    clients = select(c.id)
    if wanted.client is not None:
        clients = clients.where(c.name == wanted.client)
    if wanted.reseller is not None:
        clients = clients.where(c.reseller_id == id_of(astreseller, wanted.reseller))
    accounts = select(astaccount.c.id).where(astaccount.c.client_id.in_(clients))
    routes = select(astroute.c.id).where(astroute.c.account_id.in_(accounts))
    belonging = [(Scope.CLIENT, clients), (Scope.ACCOUNT, accounts), (Scope.ROUTE, routes)]
    if wanted.client is None and wanted.reseller is not None:
        resellers = select(astreseller.c.id).where(astreseller.c.name == wanted.reseller)
        belonging.append((Scope.RESELLER, resellers))
    v = v_capacity.c
    return or_(*((v.scope == scope) & v.object_id.in_(ids) for scope, ids in belonging))


_IDS: Final = {
    Scope.RESELLER: astreseller.c.id,
    Scope.CLIENT: astclient.c.id,
    Scope.ACCOUNT: astaccount.c.id,
    Scope.ROUTE: astroute.c.id,
}

_NAMES: Final[Mapping[Scope, Select[Any]]] = {
    Scope.RESELLER: select(astreseller.c.id, astreseller.c.name),
    Scope.CLIENT: select(astclient.c.id, astclient.c.name),
    Scope.ACCOUNT: select(astaccount.c.id, astaccount.c.name),
    Scope.ROUTE: select(astroute.c.id, astroutingplan.c.name, astroute.c.prefix, astaccount.c.name)
    .join_from(astroute, astroutingplan, astroutingplan.c.id == astroute.c.routing_plan_id)
    .join(astaccount, astaccount.c.id == astroute.c.account_id),
}


def _name(scope: Scope, parts: Sequence[str]) -> str:
    return str(Place(*parts)) if scope is Scope.ROUTE else parts[0]


def _in_use(row: Any) -> LevelInUse:
    return LevelInUse(
        Scope(row.scope),
        row.name,
        Direction(row.direction),
        row.calls,
        row.capacity,
        row.percent,
        row.object_id,
    )


def _parts(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of which each fits into a statement."""
    left = iter(values)
    while part := list(islice(left, ROWS_AT_ONCE)):
        yield part
