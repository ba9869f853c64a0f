"""An outbox with rows in it, on a database with people.

Client 1 is acme of reseller north, client 3 is lone and has no reseller (support.people).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import insert, select, update

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import SAMPLES
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import astclient, astoutbox
from support.core import NOW_MS, opened
from support.people import ACME, LONE, settle_in

FACTS = {
    name: value
    for name, value in SAMPLES[AlertKind.QUOTA].items()
    if name not in ("client", "currency")
}
EMAILS = {ACME: "anna@acme.example", LONE: "lone@example.com"}


@asynccontextmanager
async def post(url: str) -> AsyncIterator[Database]:
    """A database with people who have addresses."""
    async with opened(url) as database:
        await upgrade(database)
        await settle_in(database)
        for client, email in EMAILS.items():
            await set_client(database, client, email=email)
        yield database


async def set_client(database: Database, id: int, **values: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(update(astclient).where(astclient.c.id == id).values(values))


async def due(
    database: Database,
    reference: str = "quota:1:2026-11:80:client",
    client_id: int = ACME,
    audience: str = Audience.CLIENT,
    facts: Mapping[str, str] | str = FACTS,
    **values: Any,
) -> int:
    """Put a row into the outbox, as the core does; its id."""
    row = {
        "reference": reference,
        "kind": AlertKind.QUOTA,
        "audience": audience,
        "client_id": client_id,
        "facts": facts if isinstance(facts, str) else json.dumps(dict(facts)),
        "status": "waiting",
        "next_attempt": NOW_MS,
        "date_created": NOW_MS,
        **values,
    }
    async with database.transaction() as connection:
        result = await connection.execute(insert(astoutbox).values(row))
        (id,) = result.inserted_primary_key or (0,)
        return int(id)


async def rows(database: Database) -> list[Mapping[str, Any]]:
    """The outbox, as it stands there."""
    async with database.reading() as connection:
        found = await connection.execute(select(astoutbox).order_by(astoutbox.c.id))
        return [dict(row._mapping) for row in found]


async def row(database: Database, id: int) -> Mapping[str, Any]:
    """One row of it."""
    return next(each for each in await rows(database) if each["id"] == id)
