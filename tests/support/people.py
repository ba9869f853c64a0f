"""A small catalog with resellers, a routing plan and open calls, written with plain SQL.

reseller north: client acme (account acme-desk) and client carrier (accounts carrier-a, carrier-b,
which terminate). Client lone has no reseller (account lone-desk). Plan retail: calls to 44 go to
carrier-a, all others to carrier-b.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.storage.database import Database
from astcredit.storage.tables import (
    astaccount,
    astclient,
    astcreditres,
    astreseller,
    astroute,
    astroutingplan,
)
from support.core import NOW_MS

NORTH, SOUTH = 1, 2
ACME, CARRIER, LONE = 1, 2, 3
ACME_DESK, CARRIER_A, CARRIER_B, LONE_DESK = 1, 2, 3, 4
RETAIL = 1
TO_44, TO_ANY = 1, 2

NEW: dict[str, Any] = {"enabled": 1, "date_created": NOW_MS}
MONEY = {"balance": 0, "reserved": 0, "active_calls": 0, "ledger_seq": 0}


async def settle_in(database: Database) -> None:
    """Write the small catalog into a database that has its schema."""
    async with database.transaction(seconds=None) as connection:
        for id, name in ((NORTH, "north"), (SOUTH, "south")):
            await connection.execute(insert(astreseller).values(id=id, name=name, **NEW))
        for id, name, reseller in (
            (ACME, "acme", NORTH),
            (CARRIER, "carrier", NORTH),
            (LONE, "lone", None),
        ):
            client = {"id": id, "name": name, "reseller_id": reseller, "kind": "postpaid"}
            values = {**client, "currency": "EUR", "email": "", **MONEY, **NEW}
            await connection.execute(insert(astclient).values(values))
        for id, owner, name, terminates in (
            (ACME_DESK, ACME, "acme-desk", 0),
            (CARRIER_A, CARRIER, "carrier-a", 1),
            (CARRIER_B, CARRIER, "carrier-b", 1),
            (LONE_DESK, LONE, "lone-desk", 0),
        ):
            await _add_account(connection, id, owner, name, terminates)
        plan = {"id": RETAIL, "name": "retail", **NEW}
        await connection.execute(insert(astroutingplan).values(plan))
        for id, prefix, account in ((TO_44, "44", CARRIER_A), (TO_ANY, "", CARRIER_B)):
            rule = {"id": id, "routing_plan_id": RETAIL, "prefix": prefix, "account_id": account}
            await connection.execute(insert(astroute).values(**rule, **NEW))


async def _add_account(
    connection: AsyncConnection, id: int, client_id: int, name: str, terminates: int
) -> None:
    account = {"id": id, "client_id": client_id, "name": name, "ident_by": "name", "ident": name}
    values = {**account, "tag": "", "notes": "", "terminates": terminates, **NEW}
    await connection.execute(insert(astaccount).values(values))


async def open_call(connection: AsyncConnection, id: str, client_id: int, **levels: int) -> None:
    """Write the reservation of an open call, and no counter: reseller_id=1, route_id=2, …"""
    row = {"call_id": id, "node": "pbx1", "uniqueid": id, "client_id": client_id, **levels}
    times = {"date_created": NOW_MS, "expires_at": NOW_MS + 3_600_000}
    values = {**row, **times, "accountcode": "x", "reservedamount": 0, "seconds": 60}
    await connection.execute(insert(astcreditres).values(values))
