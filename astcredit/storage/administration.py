"""The administrator's transactions in SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import (
    Select,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.service.admin_ports import Booking, Client, RateTableHead
from astcredit.service.history_ports import AuditEntry
from astcredit.storage.admin_accounts import SqlAccounts
from astcredit.storage.admin_blocks import SqlBlocks
from astcredit.storage.admin_capacity import SqlCapacity
from astcredit.storage.admin_history import SqlHistory
from astcredit.storage.admin_quotas import SqlQuotas
from astcredit.storage.admin_resellers import SqlResellers
from astcredit.storage.admin_routing import SqlRouting
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.database import Database
from astcredit.storage.rates import SqlRates
from astcredit.storage.sessions import CoreSession
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import (
    CATALOG_VERSION,
    astaccount,
    astcatalog,
    astclient,
    astledger,
    astratetable,
    astreseller,
    astroutingplan,
    id_of,
)

MOST_NAMES = 10_000
"""Names among which the nearest to a misspelt one is looked for: more would take seconds."""

# So many ids go into one statement: SQLite takes 32,766 parameters.
IDS_AT_ONCE = 1_000

_NAMED: Mapping[str, Table] = {
    "client": astclient,
    "account": astaccount,
    "reseller": astreseller,
    "rate table": astratetable,
    "routing plan": astroutingplan,
}


class SqlAdministration:
    """The catalog of one database. Implements `astcredit.service.admin_ports.AdminStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def changing_catalog(self) -> AsyncIterator[SqlAdminTransaction]:
        """A transaction that changes the catalog; the version comes first, it is the lock."""
        # An import takes as long as it takes; who waits for its lock gives up as for any other.
        async with self._database.transaction(seconds=None) as connection:
            c = astcatalog.c
            raised = {"version": c.version + 1, "traced": c.traced + 1}
            await connection.execute(update(astcatalog).where(c.id == 1).values(raised))
            yield SqlAdminTransaction(connection, self._database.dialect)

    @asynccontextmanager
    async def booking_money(self) -> AsyncIterator[SqlAdminTransaction]:
        """A transaction that changes balances."""
        async with self._database.transaction() as connection:
            yield SqlAdminTransaction(connection, self._database.dialect)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[SqlAdminTransaction]:
        """A transaction that only reads."""
        async with self._database.reading(seconds=None) as connection:
            yield SqlAdminTransaction(connection, self._database.dialect)


class SqlAdminTransaction:
    """One transaction. Implements `astcredit.service.admin_ports.AdminTransaction`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect
        self._books = SqlBooksTransaction(CoreSession(connection), dialect)
        self.accounts = SqlAccounts(connection, dialect)
        self.resellers = SqlResellers(connection)
        self.blocks = SqlBlocks(connection)
        self.routing = SqlRouting(connection, dialect)
        self.capacity = SqlCapacity(connection, dialect)
        self.quotas = SqlQuotas(connection, dialect)
        self.history = SqlHistory(connection, dialect)

    @property
    def books(self) -> SqlBooksTransaction:
        """The books, in the same transaction."""
        return self._books

    async def catalog_version(self) -> int:
        """The catalog's version; a transaction that changes the catalog has raised it by one."""
        found = await self._connection.execute(select(astcatalog.c.version))
        return int(found.scalar_one())

    async def client(self, name: str) -> Client | None:
        """The client of that name."""
        row = (await self._connection.execute(_CLIENTS.where(astclient.c.name == name))).first()
        return None if row is None else _client(row)

    async def clients(self, reseller: str | None = None) -> Sequence[Client]:
        """All clients, or those of one reseller, by name."""
        statement = _CLIENTS if reseller is None else _CLIENTS.where(astreseller.c.name == reseller)
        rows = await self._connection.execute(statement.order_by(astclient.c.name))
        return [_client(row) for row in rows]

    async def add_client(self, client: Client, now_ms: int) -> None:
        """Insert a client with empty books."""
        values = {
            **_client_values(client),
            "name": client.name,
            "balance": 0,
            "reserved": 0,
            "active_calls": 0,
            "ledger_seq": 0,
            "date_created": now_ms,
        }
        await self._connection.execute(insert(astclient).values(values))

    async def change_client(self, client: Client) -> None:
        """Write the client's settings; its money is the books' affair."""
        changed = update(astclient).where(astclient.c.id == client.id)
        await self._connection.execute(changed.values(_client_values(client)))

    async def rate_table(self, name: str) -> RateTableHead | None:
        """The rate table of that name."""
        statement = _RATE_TABLES.where(astratetable.c.name == name)
        row = (await self._connection.execute(statement)).first()
        return None if row is None else _rate_table(row)

    async def rate_tables(self) -> Sequence[RateTableHead]:
        """All rate tables, by name."""
        rows = await self._connection.execute(_RATE_TABLES.order_by(astratetable.c.name))
        return [_rate_table(row) for row in rows]

    async def rate_table_users(self, name: str) -> Sequence[Client]:
        """The clients that use the table, themselves or through an account."""
        table_id = id_of(astratetable, name)
        by_account = select(astaccount.c.client_id).where(astaccount.c.rate_table_id == table_id)
        uses = (astclient.c.rate_table_id == table_id) | astclient.c.id.in_(by_account)
        rows = await self._connection.execute(_CLIENTS.where(uses).order_by(astclient.c.name))
        return [_client(row) for row in rows]

    async def add_rate_table(self, table: RateTableHead, now_ms: int) -> None:
        """Insert an empty rate table."""
        values = {
            "name": table.name,
            "currency": table.currency,
            "version": table.version,
            "rates": 0,
            "enabled": int(table.enabled),
            "date_created": now_ms,
        }
        await self._connection.execute(insert(astratetable).values(values))

    async def change_rate_table(self, table: RateTableHead) -> None:
        """Write the table's settings; its rates are `rates`'."""
        changed = update(astratetable).where(astratetable.c.id == table.id)
        values = {"currency": table.currency, "enabled": int(table.enabled)}
        await self._connection.execute(changed.values(values))

    def rates(self, rate_table_id: int) -> SqlRates:
        """The rates of a table, in the same transaction."""
        return SqlRates(self._connection, self._sql, rate_table_id)

    async def names(self, kind: str) -> Sequence[str]:
        """Names of one kind of object."""
        table = _NAMED[kind]
        rows = await self._connection.execute(
            select(table.c.name).order_by(table.c.name).limit(MOST_NAMES)
        )
        return [row[0] for row in rows]

    async def has(self, kind: str, name: str) -> bool:
        """Whether there is an object of that kind and name."""
        table = _NAMED[kind]
        found = await self._connection.execute(select(table.c.id).where(table.c.name == name))
        return found.first() is not None

    async def booking(self, reference: str) -> Booking | None:
        """The ledger's row with that reference."""
        c = astledger.c
        row = (
            await self._connection.execute(
                select(astclient.c.name, c.kind, c.amount, c.balance_after, c.date_created)
                .join_from(astledger, astclient, astclient.c.id == c.client_id)
                .where(c.reference == reference)
            )
        ).first()
        return None if row is None else Booking(row[0], LedgerKind(row[1]), *row[2:])

    async def client_books(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Books without a lock."""
        found: dict[int, ClientBooks] = {}
        ordered = sorted(ids)
        for start in range(0, len(ordered), IDS_AT_ONCE):
            found.update(await self._books.read_clients(ordered[start : start + IDS_AT_ONCE]))
        return found

    async def record(self, entry: AuditEntry) -> None:
        """Add a row to astaudit."""
        await self.history.add_all([entry])

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows to astaudit, in their order."""
        await self.history.add_all(entries)


_CLIENTS: Select[Any] = (
    select(
        astclient.c.name,
        astclient.c.kind,
        astclient.c.currency,
        astclient.c.credit_limit,
        func.coalesce(astratetable.c.name, ""),
        astclient.c.email,
        astclient.c.enabled,
        astclient.c.id,
        func.coalesce(astreseller.c.name, ""),
        func.coalesce(astroutingplan.c.name, ""),
        astclient.c.orig_capacity,
        astclient.c.term_capacity,
        astclient.c.monthly_quota,
        astclient.c.daily_quota,
        astclient.c.timezone,
        astclient.c.low_balance,
    )
    .outerjoin_from(astclient, astratetable, astratetable.c.id == astclient.c.rate_table_id)
    .outerjoin(astreseller, astreseller.c.id == astclient.c.reseller_id)
    .outerjoin(astroutingplan, astroutingplan.c.id == astclient.c.routing_plan_id)
)

_RATE_TABLES: Select[Any] = select(
    astratetable.c.name,
    astratetable.c.currency,
    astratetable.c.enabled,
    astratetable.c.rates,
    astratetable.c.version,
    astratetable.c.id,
)


def _client(row: Sequence[Any]) -> Client:
    name, kind, currency, limit, rate_table, email, enabled, *rest = row
    return Client(name, ClientKind(kind), currency, limit, rate_table, email, bool(enabled), *rest)


def _rate_table(row: Sequence[Any]) -> RateTableHead:
    name, currency, enabled, rates, version, id = row
    return RateTableHead(name, currency, bool(enabled), rates, version, id)


def _client_values(client: Client) -> dict[str, Any]:
    has_quota = client.monthly_quota is not None or client.daily_quota is not None
    return {
        "kind": client.kind,
        "currency": client.currency,
        "credit_limit": client.credit_limit,
        "rate_table_id": id_of(astratetable, client.rate_table),
        "email": client.email,
        "enabled": int(client.enabled),
        "reseller_id": id_of(astreseller, client.reseller),
        "routing_plan_id": id_of(astroutingplan, client.routing_plan),
        "orig_capacity": client.orig_capacity,
        "term_capacity": client.term_capacity,
        "monthly_quota": client.monthly_quota,
        "daily_quota": client.daily_quota,
        "timezone": client.timezone,
        "low_balance": client.low_balance,
        "version": CATALOG_VERSION,
        **({"quota_counted": 1} if has_quota else {}),
    }
