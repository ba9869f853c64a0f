"""The catalog from the database, loaded anew when its version moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
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

# A large rate table that could not be loaded is tried again so often; the old one serves.
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _TableVersion:
    """What says whether a rate table must be loaded."""

    id: int
    name: str
    currency: str
    version: int
    rates: int

    def is_like(self, table: RateTable | None) -> bool:
        """Whether that is what a loaded table is."""
        return table is not None and (self.version, self.name) == (table.version, table.name)


class SqlCatalog:
    """Keeps the newest snapshot. Implements `astcredit.service.ports.CatalogSource`.

    A new or changed rate table of more than `inline_rates` rates is loaded beside the old one
    while calls go on; everything else is loaded before the call that noticed the change is decided.
    """

    def __init__(self, database: Database, *, inline_rates: int) -> None:
        self._database = database
        self._inline_rates = inline_rates
        self._catalog: Catalog | None = None
        self._seen = 0
        self._loading: asyncio.Task[None] | None = None
        # Rate tables as they are loaded, as they should be, and the loads under way between.
        self._tables: dict[int, RateTable] = {}
        self._wanted: dict[int, _TableVersion] = {}
        self._beside: dict[int, asyncio.Task[None]] = {}

    async def at_least(self, version: int) -> Catalog:
        """The newest catalog known, loaded anew if it is older than `version`; see the port."""
        # A load under way may have begun before the change: then a second one shows it.
        for _ in range(2):
            if self._catalog is not None and self._seen >= version:
                break
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._load(), name="catalog")
            # Whoever waits may give up; the load goes on for the next one.
            await asyncio.shield(self._loading)
        assert self._catalog is not None
        return self._catalog

    async def close(self) -> None:
        """Stop loading."""
        tasks = [task for task in (self._loading, *self._beside.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self) -> None:
        async with self._database.reading(seconds=None) as connection:
            version = (await connection.execute(select(astcatalog.c.version))).scalar_one()
            try:
                self._catalog = await self._read(connection, version)
            except ValueError as error:
                self._keep_last(version, error)
        self._seen = version

    async def _read(self, connection: AsyncConnection, version: int) -> Catalog:
        clients = await _clients(connection)
        accounts = await _accounts(connection)
        self._wanted = {table.id: table for table in await _table_versions(connection)}
        for table in self._wanted.values():
            await self._provide(connection, table)
        catalog = compile_catalog(version, clients, accounts, self._tables_in_force())
        log.info("catalog loaded", extra={"action": "catalog_loaded", "version": version})
        return catalog

    def _tables_in_force(self) -> dict[int, RateTable]:
        return {i: self._tables[i] for i in self._wanted if i in self._tables}

    def _keep_last(self, version: int, error: ValueError) -> None:
        """Rows that the command line would have refused: somebody wrote to the tables by hand."""
        extra = {"action": "catalog_refused", "version": version, "error": str(error)}
        log.error("catalog makes no sense", extra=extra)
        if self._catalog is None:
            raise StorageError(f"the catalog makes no sense: {error}") from error

    async def _provide(self, connection: AsyncConnection, table: _TableVersion) -> None:
        """Have the table: at once if it is small or the program just starts, else soon."""
        if table.is_like(self._tables.get(table.id)):
            return
        if self._catalog is None or table.rates <= self._inline_rates:
            self._tables[table.id] = await _load_rates(connection, table)
        elif table.id not in self._beside:
            task = asyncio.create_task(self._catch_up(table.id), name=f"rate table {table.id}")
            self._beside[table.id] = task
            task.add_done_callback(lambda _: self._beside.pop(table.id, None))

    async def _catch_up(self, table_id: int) -> None:
        """Load a rate table beside the old one until it is the one that is wanted."""
        while table := self._wanted.get(table_id):
            if table.is_like(self._tables.get(table_id)):
                break
            try:
                async with self._database.reading(seconds=None) as connection:
                    newest = {found.id: found for found in await _table_versions(connection)}
                    found = newest.get(table_id, table)
                    loaded = await _load_rates(connection, found)
            except (StorageError, ValueError) as error:
                extra = {"action": "rates_failed", "rate_table": table.name, "error": str(error)}
                log.error("rate table not loaded", extra=extra)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._wanted.get(table_id) == table:  # else overtaken, or disabled: look again
                self._wanted[table_id] = found
                self._swap_in(loaded)

    def _swap_in(self, loaded: RateTable) -> None:
        self._tables[loaded.id] = loaded
        if self._catalog is not None:
            self._catalog = replace(self._catalog, rate_tables=self._tables_in_force())
        log.info("rate table loaded", extra={"action": "rates_loaded", "rate_table": loaded.name})


async def _clients(connection: AsyncConnection) -> dict[int, ClientSettings]:
    c = astclient.c
    rows = await connection.execute(select(c.id, c.name, c.currency, c.rate_table_id, c.enabled))
    return {row[0]: ClientSettings(*row[:4], enabled=bool(row[4])) for row in rows}


async def _accounts(connection: AsyncConnection) -> dict[int, Account]:
    c = astaccount.c
    rows = await connection.execute(
        select(c.id, c.client_id, c.name, c.ident, c.rate_table_id, c.enabled).where(
            c.ident_by == "name"
        )
    )
    return {
        row.id: Account(
            row.id,
            row.client_id,
            row.name,
            tuple(filter(None, map(str.strip, row.ident.split(IDENT_SEPARATOR)))),
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
