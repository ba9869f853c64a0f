"""Resellers in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.capacity import Direction, Scope
from astcredit.service.reseller_ports import Reseller, ResellerInUse
from astcredit.storage.tables import astcapacity, astclient, astreseller


class SqlResellers:
    """Resellers, in one transaction. Implements `service.reseller_ports.ResellerStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def named(self, name: str) -> ResellerInUse | None:
        """The reseller of that name."""
        statement = _RESELLERS.where(astreseller.c.name == name)
        row = (await self._connection.execute(statement)).first()
        return None if row is None else _in_use(row)

    async def all(self) -> Sequence[ResellerInUse]:
        """All resellers, by name."""
        rows = await self._connection.execute(_RESELLERS.order_by(astreseller.c.name))
        return [_in_use(row) for row in rows]

    async def add(self, reseller: Reseller, now_ms: int) -> None:
        """Insert a reseller."""
        values = {**_values(reseller), "name": reseller.name, "date_created": now_ms}
        await self._connection.execute(insert(astreseller).values(values))

    async def change(self, reseller: Reseller) -> None:
        """Write the reseller's settings."""
        changed = update(astreseller).where(astreseller.c.id == reseller.id)
        await self._connection.execute(changed.values(_values(reseller)))


_ORIG, _TERM = astcapacity.alias("orig"), astcapacity.alias("term")


def _counter(direction: Direction) -> ColumnElement[str]:
    """The key of a reseller's counter: the only index that the counters have."""
    return literal(f"{Scope.RESELLER}:") + cast(astreseller.c.id, String) + f":{direction}"


_CLIENTS = (
    select(func.count())
    .select_from(astclient)
    .where(astclient.c.reseller_id == astreseller.c.id)
    .scalar_subquery()
)

_RESELLERS: Select[Any] = (
    select(
        astreseller.c.name,
        astreseller.c.orig_capacity,
        astreseller.c.term_capacity,
        astreseller.c.enabled,
        astreseller.c.id,
        _CLIENTS,
        func.coalesce(_ORIG.c.calls, 0),
        func.coalesce(_TERM.c.calls, 0),
    )
    .outerjoin_from(astreseller, _ORIG, _ORIG.c.id == _counter(Direction.ORIG))
    .outerjoin(_TERM, _TERM.c.id == _counter(Direction.TERM))
)


def _in_use(row: Sequence[Any]) -> ResellerInUse:
    name, orig_capacity, term_capacity, enabled, id, clients, orig_calls, term_calls = row
    reseller = Reseller(name, orig_capacity, term_capacity, bool(enabled), id)
    return ResellerInUse(reseller, clients, orig_calls, term_calls)


def _values(reseller: Reseller) -> dict[str, Any]:
    return {
        "orig_capacity": reseller.orig_capacity,
        "term_capacity": reseller.term_capacity,
        "enabled": int(reseller.enabled),
    }
