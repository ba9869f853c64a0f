"""A client with terminators, and one that calls, for tests of routing plans."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import insert, update

from astcredit.storage.database import Database
from astcredit.storage.tables import astaccount, astclient, astrate, astratetable
from support.core import NOW_MS

CALLER, OFFICE = "acme", "office"
"""The client that calls, and its account."""


async def furnish(database: Database, carriers: Collection[str]) -> None:
    """The clients "carriers", with a terminator of each name, and CALLER, with OFFICE, which
    makes calls only."""
    client = {"kind": "postpaid", "currency": "EUR", "email": "", "enabled": 1}
    books = {"balance": 0, "reserved": 0, "active_calls": 0, "ledger_seq": 0}
    async with database.transaction() as connection:
        for name in ("carriers", CALLER):
            values = {"name": name, **client, **books, "date_created": NOW_MS}
            await connection.execute(insert(astclient).values(values))
        for number, name in enumerate((*carriers, OFFICE)):
            terminates = int(name in carriers)
            account = {
                "client_id": 1 if terminates else 2,
                "name": name,
                "ident_by": "name",
                "ident": f"from-{number}",
                "tag": "",
                "notes": "",
                "enabled": 1,
                "terminates": terminates,
                "term_enabled": terminates,
                "date_created": NOW_MS,
            }
            await connection.execute(insert(astaccount).values(account))


async def give_rates(database: Database, name: str, rates: dict[str, int], currency: str) -> int:
    """Add a rate table with prices a minute, in micros, by prefix; its id."""
    table = {"name": name, "currency": currency, "version": 1, "rates": len(rates), "enabled": 1}
    fixed = {"destination": "", "connect_fee": 0, "first_increment": 1, "next_increment": 1}
    async with database.transaction() as connection:
        done = await connection.execute(insert(astratetable).values(**table, date_created=NOW_MS))
        (id,) = done.inserted_primary_key or (0,)
        for prefix, price in rates.items():
            rate = {"rate_table_id": id, "prefix": prefix, "rate_per_minute": price, **fixed}
            more = {"grace_seconds": 0, "minimum_charge": 0, "effective_from": 0}
            await connection.execute(insert(astrate).values(**rate, **more))
    return int(id)


async def set_account(database: Database, names: Sequence[str], **columns: object) -> None:
    """Write columns of accounts."""
    async with database.transaction() as connection:
        changed = update(astaccount).where(astaccount.c.name.in_(names))
        await connection.execute(changed.values(columns))


async def set_client(database: Database, name: str, **columns: object) -> None:
    """Write columns of a client."""
    async with database.transaction() as connection:
        changed = update(astclient).where(astclient.c.name == name)
        await connection.execute(changed.values(columns))
