"""The administrator's transactions in SQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import (
    ScalarSelect,
    Select,
    Table,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.service.admin_ports import Account, AuditEntry, Booking, Client, RateTableHead, State
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.catalog import IDENT_SEPARATOR
from astcredit.storage.database import Database
from astcredit.storage.rates import SqlRates
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import (
    astaccount,
    astaudit,
    astcatalog,
    astclient,
    astledger,
    astratetable,
    fit,
)

IDENT_BY_NAME = "name"
"""The one way of identification so far: by the accountcode."""

MOST_NAMES = 10_000
"""Names among which the nearest to a misspelt one is looked for: more would take seconds."""

# So many ids go into one statement: SQLite takes 32,766 parameters.
IDS_AT_ONCE = 1_000

_NAMED: Mapping[str, Table] = {
    "client": astclient,
    "account": astaccount,
    "rate table": astratetable,
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
            await connection.execute(
                update(astcatalog).where(c.id == 1).values(version=c.version + 1)
            )
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
        self._books = SqlBooksTransaction(connection, dialect)

    @property
    def books(self) -> SqlBooksTransaction:
        """The books, in the same transaction."""
        return self._books

    async def client(self, name: str) -> Client | None:
        """The client of that name."""
        row = (await self._connection.execute(_CLIENTS.where(astclient.c.name == name))).first()
        return None if row is None else _client(row)

    async def clients(self) -> Sequence[Client]:
        """All clients, by name."""
        rows = await self._connection.execute(_CLIENTS.order_by(astclient.c.name))
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

    async def account(self, name: str) -> Account | None:
        """The account of that name."""
        row = (await self._connection.execute(_ACCOUNTS.where(astaccount.c.name == name))).first()
        return None if row is None else _account(row)

    async def accounts(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""
        statement = _ACCOUNTS if client is None else _ACCOUNTS.where(astclient.c.name == client)
        rows = await self._connection.execute(statement.order_by(astaccount.c.name))
        return [_account(row) for row in rows]

    async def identified_by(self, ident: str) -> Sequence[Account]:
        """The accounts that have the ident."""
        mark = IDENT_SEPARATOR
        listed = literal(mark) + astaccount.c.ident + mark
        wanted = listed.contains(f"{mark}{ident}{mark}", autoescape=True)
        rows = await self._connection.execute(_ACCOUNTS.where(wanted))
        # SQLite's LIKE takes Alice for alice; an ident does not.
        return [account for account in map(_account, rows) if ident in account.idents]

    async def add_account(self, account: Account, now_ms: int) -> None:
        """Insert an account."""
        values = {
            **_account_values(account),
            "name": account.name,
            "client_id": _id_of(astclient, account.client),
            "date_created": now_ms,
        }
        await self._connection.execute(insert(astaccount).values(values))

    async def change_account(self, account: Account) -> None:
        """Write the account's settings."""
        changed = update(astaccount).where(astaccount.c.id == account.id)
        await self._connection.execute(changed.values(_account_values(account)))

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
        table_id = _id_of(astratetable, name)
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
        values = {
            "date_created": entry.created_at_ms,
            "actor": fit(astaudit, "actor", entry.actor),
            "action": entry.action,
            "object_kind": entry.object_kind,
            "object_name": fit(astaudit, "object_name", entry.object_name),
            "state_before": _json(entry.before),
            "state_after": _json(entry.after),
            "note": fit(astaudit, "note", entry.note),
        }
        await self._connection.execute(insert(astaudit).values(values))


_CLIENTS: Select[Any] = select(
    astclient.c.name,
    astclient.c.kind,
    astclient.c.currency,
    astclient.c.credit_limit,
    astratetable.c.name,
    astclient.c.email,
    astclient.c.enabled,
    astclient.c.id,
).outerjoin_from(astclient, astratetable, astratetable.c.id == astclient.c.rate_table_id)

_ACCOUNTS: Select[Any] = (
    select(
        astaccount.c.name,
        astclient.c.name,
        astaccount.c.ident,
        astratetable.c.name,
        astaccount.c.tag,
        astaccount.c.notes,
        astaccount.c.enabled,
        astaccount.c.id,
    )
    .join_from(astaccount, astclient, astclient.c.id == astaccount.c.client_id)
    .outerjoin(astratetable, astratetable.c.id == astaccount.c.rate_table_id)
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
    name, kind, currency, limit, rate_table, email, enabled, id = row
    return Client(
        name, ClientKind(kind), currency, limit, rate_table or "", email, bool(enabled), id
    )


def _account(row: Sequence[Any]) -> Account:
    name, client, ident, rate_table, tag, notes, enabled, id = row
    idents = tuple(ident.split(IDENT_SEPARATOR))
    return Account(name, client, idents, rate_table or "", tag, notes, bool(enabled), id)


def _rate_table(row: Sequence[Any]) -> RateTableHead:
    name, currency, enabled, rates, version, id = row
    return RateTableHead(name, currency, bool(enabled), rates, version, id)


def _client_values(client: Client) -> dict[str, Any]:
    return {
        "kind": client.kind,
        "currency": client.currency,
        "credit_limit": client.credit_limit,
        "rate_table_id": _id_of(astratetable, client.rate_table),
        "email": client.email,
        "enabled": int(client.enabled),
    }


def _account_values(account: Account) -> dict[str, Any]:
    return {
        "ident_by": IDENT_BY_NAME,
        "ident": IDENT_SEPARATOR.join(account.idents),
        "rate_table_id": _id_of(astratetable, account.rate_table),
        "tag": account.tag,
        "notes": account.notes,
        "enabled": int(account.enabled),
    }


def _id_of(table: Table, name: str) -> ScalarSelect[Any] | None:
    """The id that belongs to a name, as the database looks it up; NULL for no name."""
    if not name:
        return None
    return select(table.c.id).where(table.c.name == name).scalar_subquery()


def _json(state: State | None) -> str | None:
    return None if state is None else json.dumps(state, ensure_ascii=False)
