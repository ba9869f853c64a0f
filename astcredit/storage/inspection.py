"""Everything that is on record about one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, select

from astcredit.storage.database import Database
from astcredit.storage.tables import astcdr, astcreditres, astledger


async def rows_of_call(database: Database, call_id: str) -> Mapping[Table, Mapping[str, Any]]:
    """The call's rows by table, as the domain has values; a table without a row is left out."""
    found: dict[Table, Mapping[str, Any]] = {}
    async with database.reading() as connection:
        keys = {
            astcreditres: astcreditres.c.call_id,
            astcdr: astcdr.c.id,
            astledger: astledger.c.call_id,
        }
        for table, key in keys.items():
            row = (await connection.execute(select(table).where(key == call_id))).mappings().first()
            if row is not None:
                found[table] = dict(row)
    return found
