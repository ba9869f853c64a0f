"""The catalog from the database, loaded anew when its version moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.catalog import Account, Catalog, ClientSettings, compile_catalog
from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.service.errors import StorageError
from astcredit.storage.database import Database
from astcredit.storage.tables import astaccount, astcatalog, astclient, astrate, astratetable

log = logging.getLogger(__name__)

IDENT_SEPARATOR = ";"

# Rates are fetched so many rows at a time, so that a large table neither fills the memory twice
# nor keeps the event loop from other work for long.
FETCH_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class _TableVersion:
    """What says whether a rate table must be loaded."""

    id: int
    name: str
    currency: str
    version: int
    rates: int


class SqlCatalog:
    """Keeps the newest snapshot. Implements `astcredit.service.ports.CatalogSource`.

    A changed rate table of more than `inline_rates` rates is loaded beside the old one while
    calls go on; everything else is loaded before the call that noticed the change is decided.
    """

    def __init__(self, database: Database, *, inline_rates: int) -> None:
        self._database = database
        self._inline_rates = inline_rates
        self._catalog: Catalog | None = None
        self._loading: asyncio.Task[Catalog] | None = None
        self._late: dict[int, asyncio.Task[None]] = {}

    async def at_least(self, version: int) -> Catalog:
        """The newest catalog known, loaded anew if it is older than `version`."""
        # A load under way may have begun before the change: then a second one shows it.
        for _ in range(2):
            if self._catalog is not None and self._catalog.version >= version:
                break
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._load(), name="catalog")
            # Whoever waits may give up; the load goes on for the next one.
            await asyncio.shield(self._loading)
        assert self._catalog is not None
        return self._catalog

    async def close(self) -> None:
        """Stop loading."""
        tasks = [task for task in (self._loading, *self._late.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self) -> Catalog:
        async with self._database.reading(seconds=None) as connection:
            version = (await connection.execute(select(astcatalog.c.version))).scalar_one()
            clients = await _clients(connection)
            accounts = await _accounts(connection)
            known = self._catalog.rate_tables if self._catalog else {}
            rate_tables: dict[int, RateTable] = {}
            for table in await _table_versions(connection):
                rate_tables[table.id] = await self._rate_table(connection, table, known)
        self._catalog = compile_catalog(version, clients, accounts, rate_tables)
        log.info("catalog loaded", extra={"action": "catalog_loaded", "version": version})
        return self._catalog

    async def _rate_table(
        self, connection: AsyncConnection, table: _TableVersion, known: Mapping[int, RateTable]
    ) -> RateTable:
        old = known.get(table.id)
        if old is not None and (old.version, old.name) == (table.version, table.name):
            return old
        if old is not None and table.rates > self._inline_rates:
            self._load_beside(table)
            return old
        return await _load_rates(connection, table)

    def _load_beside(self, table: _TableVersion) -> None:
        if table.id not in self._late:
            task = asyncio.create_task(self._swap(table), name=f"rate table {table.id}")
            self._late[table.id] = task
            task.add_done_callback(lambda _: self._late.pop(table.id, None))

    async def _swap(self, table: _TableVersion) -> None:
        try:
            async with self._database.reading(seconds=None) as connection:
                newest = {t.id: t for t in await _table_versions(connection)}
                loaded = await _load_rates(connection, newest.get(table.id, table))
        except StorageError as error:
            # The next change of the catalog, or the next look at it, tries again.
            log.error(
                "rate table not loaded", extra={"action": "rates_failed", "error": str(error)}
            )
            return
        assert self._catalog is not None
        tables = {**self._catalog.rate_tables, loaded.id: loaded}
        self._catalog = replace(self._catalog, rate_tables=tables)
        log.info("rate table loaded", extra={"action": "rates_loaded", "rate_table": loaded.name})


async def _clients(connection: AsyncConnection) -> dict[int, ClientSettings]:
    c = astclient.c
    rows = await connection.execute(select(c.id, c.name, c.currency, c.rate_table_id, c.enabled))
    return {row[0]: ClientSettings(*row[:4], enabled=bool(row[4])) for row in rows}


async def _accounts(connection: AsyncConnection) -> dict[int, Account]:
    c = astaccount.c
    rows = await connection.execute(
        select(c.id, c.client_id, c.name, c.ident, c.rate_table_id, c.enabled)
    )
    return {
        row.id: Account(
            row.id,
            row.client_id,
            row.name,
            tuple(row.ident.split(IDENT_SEPARATOR)),
            row.rate_table_id,
            bool(row.enabled),
        )
        for row in rows
    }


async def _table_versions(connection: AsyncConnection) -> list[_TableVersion]:
    c = astratetable.c
    rows = await connection.execute(
        select(c.id, c.name, c.currency, c.version, c.rates).where(c.enabled == 1)
    )
    return [_TableVersion(*row) for row in rows]


async def load_rate_rows(connection: AsyncConnection, rate_table_id: int) -> list[RateRow]:
    """All rates of a table, in the order of prefix and instant."""
    c = astrate.c
    result = await connection.stream(
        select(astrate)
        .where(c.rate_table_id == rate_table_id)
        .order_by(c.prefix, c.effective_from)
        .execution_options(yield_per=FETCH_ROWS)
    )
    rows: list[RateRow] = []
    async for part in result.partitions():
        rows.extend(map(_rate_row, part))
    return rows


async def _load_rates(connection: AsyncConnection, table: _TableVersion) -> RateTable:
    rows: Sequence[RateRow] = await load_rate_rows(connection, table.id)
    return RateTable(table.id, table.name, table.currency, table.version, rows)


def _rate_row(row: Any) -> RateRow:
    return RateRow(
        prefix=row.prefix,
        destination=row.destination,
        rate_per_minute=row.rate_per_minute,
        connect_fee=row.connect_fee,
        first_increment=row.first_increment,
        next_increment=row.next_increment,
        grace_seconds=row.grace_seconds,
        minimum_charge=row.minimum_charge,
        effective_from_ms=row.effective_from,
        effective_until_ms=row.effective_until,
    )
