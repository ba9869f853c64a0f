"""The catalog from the database, loaded anew when its version moves.

Only what changed is read: clients and accounts with a newer version, routing plans and rate tables
whose own version moved. A change by hand raises astcatalog.version and nothing else; that shows
(astcatalog.traced stays behind), and then everything is read.

What is small is read before the call that noticed the change is decided. A large change (an import
of accounts) is read beside the old snapshot, which serves as a whole until the new one is there;
what is changed meanwhile comes into force with it or right after it, in the order of versions.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import Account
from astcredit.domain.catalog import Catalog
from astcredit.domain.identification import GrowingIdentities, Identities
from astcredit.domain.rate_index import RateIndex
from astcredit.domain.ratetable import RateTable
from astcredit.service.errors import StorageError
from astcredit.storage.catalog_rows import (
    PORTION_ROWS,
    has_changed,
    load_accounts,
    load_blocks,
    load_clients,
    load_resellers,
    load_routing_plans,
)
from astcredit.storage.database import Database
from astcredit.storage.rate_rows import RateRows
from astcredit.storage.tables import astcatalog, astratetable

log = logging.getLogger(__name__)

# Rates and accounts that are compiled at a time: a few milliseconds in which no call is served.
AT_A_TIME = 500

# A hundred thousand accounts are half a million objects, none of them garbage. To look for some
# among them, as Python does every few hundred, took a third of a load, and the last of these looks
# held the event loop for a third of a second.
COLLECTED_OBJECTS = 50_000

# From so many clients and accounts on, they are not looked through afterwards either: that would
# hold the event loop for a tenth of a second and more, at any moment. They do not refer to one
# another in circles, so that old ones go all the same. What garbage there is at that moment stays.
KEPT_OBJECTS = 10_000

# What is loaded beside and could not be loaded is tried again so often; the old one serves.
RETRY_SECONDS = 1.0

# Clients, accounts and routing rules that are read while calls wait for them: a tenth of a second.
INLINE_ROWS = 2_000


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


@dataclass(frozen=True, slots=True)
class _Change:
    """What there is to load: the version, how far astcatalog.traced is behind it, and the catalog
    since which the changes are noted; None: everything is to be read."""

    version: int
    untraced: int
    last: Catalog | None


class SqlCatalog:
    """Keeps the newest snapshot. Implements `astcredit.service.ports.CatalogSource`.

    A new or changed rate table of more than `inline_rates` rates, and a change of more than
    `inline_rows` clients, accounts and routing rules, is loaded beside the old one while calls go
    on; everything else is loaded before the call that noticed the change is decided.
    """

    def __init__(
        self, database: Database, *, inline_rates: int, inline_rows: int = INLINE_ROWS
    ) -> None:
        self._database = database
        self._inline_rates = inline_rates
        self._inline_rows = inline_rows
        self._catalog: Catalog | None = None
        # The version that was loaded, and the newest that somebody knows to be there.
        self._seen = 0
        self._asked = 0
        # How far astcatalog.traced is behind its version: it moves with a change by hand.
        self._untraced: int | None = None
        self._loading: asyncio.Task[None] | None = None
        # The load of a large change, while it is under way.
        self._overtaking: asyncio.Task[None] | None = None
        # Rate tables as they are loaded, as they should be, and the loads under way between.
        self._tables: dict[int, RateTable] = {}
        self._wanted: dict[int, _TableVersion] = {}
        self._beside: dict[int, asyncio.Task[None]] = {}

    async def at_least(self, version: int) -> Catalog:
        """The newest catalog known, loaded anew if it is older than `version`; see the port."""
        self._asked = max(self._asked, version)
        # A load under way may have begun before the change: then a second one shows it.
        for _ in range(2):
            if self._catalog is not None and (self._seen >= version or self._overtaking):
                break
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._load(), name="catalog")
            # Whoever waits may give up; the load goes on for the next one.
            await asyncio.shield(self._loading)
        assert self._catalog is not None
        return self._catalog

    async def close(self) -> None:
        """Stop loading."""
        loads = (self._loading, self._overtaking, *self._beside.values())
        tasks = [task for task in loads if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self) -> None:
        """Load the newest version, or have it loaded beside the old one if that is much."""
        async with self._database.reading(seconds=None) as connection:
            change = await self._change(connection)
            if self._catalog is None or not await self._is_large(connection, change):
                await self._take_over(connection, change)
                return
        self._overtaking = asyncio.create_task(self._overtake(), name="catalog beside")

    async def _overtake(self) -> None:
        """Load versions beside the one that serves until the newest that is known is loaded."""
        try:
            while (before := self._seen) < self._asked:
                try:
                    async with self._database.reading(seconds=None) as connection:
                        await self._take_over(connection, await self._change(connection))
                except StorageError as error:
                    extra = {"action": "catalog_failed", "error": str(error)}
                    log.error("catalog not loaded", extra=extra)
                if self._seen == before:
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._overtaking = None

    async def _change(self, connection: AsyncConnection) -> _Change:
        c = astcatalog.c
        version, traced = (await connection.execute(select(c.version, c.traced))).one()
        untraced = version - traced
        return _Change(version, untraced, self._catalog if untraced == self._untraced else None)

    async def _is_large(self, connection: AsyncConnection, change: _Change) -> bool:
        since, plans = (self._seen, change.last.routing_plans) if change.last else (-1, {})
        return await has_changed(connection, since, plans, more_than=self._inline_rows)

    async def _take_over(self, connection: AsyncConnection, change: _Change) -> None:
        """Read what changed and let it be in force."""
        version, last = change.version, change.last
        many = last is None or self._overtaking is not None
        try:
            with _many_objects() if many else nullcontext():
                self._catalog = await self._read(connection, version, last)
            if many and _size(self._catalog) >= KEPT_OBJECTS:
                gc.freeze()
            self._untraced = change.untraced
        except ValueError as error:
            self._keep_last(version, error)
            self._untraced = None
        self._seen = version

    async def _read(
        self, connection: AsyncConnection, version: int, last: Catalog | None
    ) -> Catalog:
        """The catalog: what changed since `last`, and everything if that is None."""
        since = None if last is None else self._seen
        clients = await load_clients(connection, since)
        accounts = await load_accounts(connection, since)
        identities = await _identities(last, accounts)
        resellers = await load_resellers(connection)
        plans = await load_routing_plans(connection, last.routing_plans if last else {})
        blocks = await load_blocks(connection)
        self._wanted = {table.id: table for table in await _table_versions(connection)}
        for table in self._wanted.values():
            await self._provide(connection, table)
        # From here on nothing waits: a rate table that is ready meanwhile would be forgotten.
        catalog = Catalog(
            version,
            {**last.clients, **clients} if last else clients,
            {**last.accounts, **accounts} if last else accounts,
            identities,
            self._tables_in_force(),
            resellers,
            plans,
            blocks,
        )
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
            self._tables[table.id] = await self._load_table(connection, table)
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
                    loaded = await self._load_table(connection, found)
            except (StorageError, ValueError) as error:
                extra = {"action": "rates_failed", "rate_table": table.name, "error": str(error)}
                log.error("rate table not loaded", extra=extra)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._wanted.get(table_id) == table:  # else overtaken, or disabled: look again
                self._wanted[table_id] = found
                self._swap_in(loaded)

    async def _load_table(self, connection: AsyncConnection, table: _TableVersion) -> RateTable:
        index = await load_rates(RateRows(connection, self._database.dialect, table.id))
        return RateTable.of(table.id, table.name, table.currency, table.version, index)

    def _swap_in(self, loaded: RateTable) -> None:
        self._tables[loaded.id] = loaded
        if self._catalog is not None:
            self._catalog = replace(self._catalog, rate_tables=self._tables_in_force())
        log.info("rate table loaded", extra={"action": "rates_loaded", "rate_table": loaded.name})


@contextmanager
def _many_objects() -> Iterator[None]:
    """For a load of much: what it makes stays, and is not to be looked through as garbage."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.freeze()  # both together make all objects old ones, at no cost
        gc.unfreeze()
        gc.set_threshold(*before)


def _size(catalog: Catalog) -> int:
    return len(catalog.clients) + len(catalog.accounts)


async def _identities(last: Catalog | None, accounts: Mapping[int, Account]) -> Identities:
    """The index of all accounts, of which these are new or changed since the last catalog."""
    if last is not None and not accounts:
        return last.identities
    if last is not None and len(accounts) <= PORTION_ROWS:
        return last.identities.changed((), accounts.values())
    growing = GrowingIdentities()
    everybody = {**last.accounts, **accounts} if last else accounts
    rest = iter(everybody.values())
    while portion := list(islice(rest, AT_A_TIME)):
        growing.change((), portion)
        await asyncio.sleep(0)  # calls are served
    return growing.identities()


async def _table_versions(connection: AsyncConnection) -> list[_TableVersion]:
    c = astratetable.c
    rows = await connection.execute(
        select(c.id, c.name, c.currency, c.version, c.rates).where(c.enabled == 1)
    )
    return [_TableVersion(*row) for row in rows]


async def load_rates(rows: RateRows) -> RateIndex:
    """All rates of a table. Raises ValueError for rows that make no sense."""
    index = RateIndex()
    async with aclosing(rows.all()) as portions:
        async for portion in portions:
            await asyncio.sleep(0)  # calls are served
            for start in range(0, len(portion), AT_A_TIME):
                index.add(portion[start : start + AT_A_TIME])
                await asyncio.sleep(0)
    index.seal()
    return index
