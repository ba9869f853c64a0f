"""Accounts in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, Table, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.domain.instants import instant_text
from astcredit.service.account_ports import Account, Termination
from astcredit.service.account_settings import SEPARATOR, split_list
from astcredit.service.errors import StorageError
from astcredit.service.naming import shown_name
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import astaccount, astcatalog, astclient, astratetable, astroutingplan

# A statement has so many rows at most: some thirty parameters each, of which SQLite takes 32,766.
ROWS_AT_ONCE: Final = 500

# And so many characters of idents and DIDs, of which one account can have a hundred thousand:
# MySQL's smallest usual packet holds four million.
CHARACTERS_AT_ONCE: Final = 500_000

# So many names go into one look-up.
NAMES_AT_ONCE: Final = 1_000


class SqlAccounts:
    """The accounts, in one transaction. Implements `service.account_ports.AccountStore`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect

    async def named(self, name: str) -> Account | None:
        """The account of that name."""
        row = (await self._connection.execute(_ACCOUNTS.where(astaccount.c.name == name))).first()
        return None if row is None else _account(row)

    async def all(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""
        statement = _ACCOUNTS if client is None else _ACCOUNTS.where(astclient.c.name == client)
        rows = await self._connection.execute(statement.order_by(astaccount.c.name))
        return [_account(row) for row in rows]

    async def identified_by(self, kind: IdentKind, ident: str) -> Sequence[Account]:
        """The accounts that have the ident among theirs of that kind."""
        listed = literal(SEPARATOR) + astaccount.c.ident + SEPARATOR
        wanted = listed.contains(f"{SEPARATOR}{ident}{SEPARATOR}", autoescape=True)
        statement = _ACCOUNTS.where(astaccount.c.ident_by == kind.value, wanted)
        rows = await self._connection.execute(statement)
        # SQLite's LIKE takes Alice for alice; an ident does not.
        return [account for account in map(_account, rows) if ident in account.idents]

    async def add(self, accounts: Sequence[Account], now_ms: int) -> None:
        """Insert accounts."""
        version, ids = await self._version(), await self._ids(accounts)
        clients = await self._ids_of(astclient, {account.client for account in accounts})
        created = instant_text(now_ms)
        for part in _parts(accounts):
            values = [_values(account, ids, version) for account in part]
            columns = ("name", "client_id", "date_created", *values[0])
            rows = [
                (account.name, clients[account.client], created, *row.values())
                for account, row in zip(part, values, strict=True)
            ]
            statement, bound = self._sql.insert_children("astaccount", columns, rows)
            await self._connection.exec_driver_sql(statement, bound)

    async def change(self, accounts: Sequence[Account]) -> None:
        """Write the accounts' settings."""
        version, ids = await self._version(), await self._ids(accounts)
        for part in _parts(accounts):
            rows = [(account.id, _values(account, ids, version)) for account in part]
            columns, values = list(rows[0][1]), [(id, *row.values()) for id, row in rows]
            statement, bound = self._sql.update_many("astaccount", "id", columns, values)
            await self._connection.exec_driver_sql(statement, tuple(bound))

    async def _version(self) -> int:
        """The catalog's version, which the transaction has raised: servers load what has it."""
        found = await self._connection.execute(select(astcatalog.c.version))
        return int(found.scalar_one())

    async def _ids(self, accounts: Iterable[Account]) -> _Ids:
        """The ids of what the accounts name."""
        tables: set[str] = set()
        plans: set[str] = set()
        for account in accounts:
            plans.add(account.routing_plan)
            tables.add(account.rate_table)
            if account.termination:
                tables.add(account.termination.rate_table)
        return _Ids(
            await self._ids_of(astratetable, tables), await self._ids_of(astroutingplan, plans)
        )

    async def _ids_of(self, table: Table, names: set[str]) -> Mapping[str, int | None]:
        """Ids by name; None for the empty name, which names nothing."""
        found: dict[str, int | None] = {"": None}
        ordered = sorted(names - {""})
        for start in range(0, len(ordered), NAMES_AT_ONCE):
            wanted = table.c.name.in_(ordered[start : start + NAMES_AT_ONCE])
            rows = await self._connection.execute(select(table.c.name, table.c.id).where(wanted))
            found.update((row[0], row[1]) for row in rows)
        return found


@dataclass(frozen=True, slots=True)
class _Ids:
    """Ids of rate tables and routing plans by their names."""

    rate_tables: Mapping[str, int | None]
    routing_plans: Mapping[str, int | None]


def _parts(accounts: Sequence[Account]) -> Iterator[Sequence[Account]]:
    """The accounts in portions that one statement takes."""
    part: list[Account] = []
    characters = 0
    for account in accounts:
        size = sum(map(len, account.idents)) + sum(map(len, account.dids)) + len(account.notes)
        if part and (len(part) == ROWS_AT_ONCE or characters + size > CHARACTERS_AT_ONCE):
            yield part
            part, characters = [], 0
        part.append(account)
        characters += size
    if part:
        yield part


_term_rates = astratetable.alias("term_rates")

_ACCOUNTS: Select[Any] = (
    select(
        astaccount,
        astclient.c.name.label("client"),
        astratetable.c.name.label("rate_table"),
        _term_rates.c.name.label("term_rate_table"),
        astroutingplan.c.name.label("routing_plan"),
    )
    .join_from(astaccount, astclient, astclient.c.id == astaccount.c.client_id)
    .outerjoin(astratetable, astratetable.c.id == astaccount.c.rate_table_id)
    .outerjoin(_term_rates, _term_rates.c.id == astaccount.c.term_rate_table_id)
    .outerjoin(astroutingplan, astroutingplan.c.id == astaccount.c.routing_plan_id)
)


def _account(row: Row[Any]) -> Account:
    """The account of a row. Raises StorageError for one that only a hand can have written."""
    try:
        return _read(row)
    except ValueError as error:
        raise StorageError(f"account {shown_name(row.name)} makes no sense: {error}") from error


def _read(row: Row[Any]) -> Account:
    return Account(
        name=row.name,
        client=row.client,
        idents=split_list(row.ident),
        rate_table=row.rate_table or "",
        tag=row.tag,
        notes=row.notes,
        enabled=bool(row.enabled),
        id=row.id,
        ident_by=IdentKind(row.ident_by),
        tech_prefix=row.tech_prefix,
        gateways=split_list(row.gateways),
        routing_plan=row.routing_plan or "",
        source_policy=SourcePolicy(row.src_policy),
        dids=split_list(row.dids or ""),
        orig_enabled=bool(row.orig_enabled),
        orig_capacity=row.orig_capacity,
        termination=_termination(row) if row.terminates else None,
    )


def _termination(row: Row[Any]) -> Termination:
    return Termination(
        rate_table=row.term_rate_table or "",
        tag=row.term_tag,
        capacity=row.term_capacity,
        protocol=Protocol(row.protocol),
        host=row.host,
        port=row.port,
        proxy=row.proxy,
        routing_ip=row.routing_ip,
        enabled=bool(row.term_enabled),
    )


def _values(account: Account, ids: _Ids, version: int) -> dict[str, Any]:
    term = account.termination or Termination(enabled=False)
    return {
        "ident_by": account.ident_by.value,
        "ident": SEPARATOR.join(account.idents),
        "rate_table_id": ids.rate_tables[account.rate_table],
        "tag": account.tag,
        "notes": account.notes,
        "enabled": int(account.enabled),
        "tech_prefix": account.tech_prefix,
        "gateways": SEPARATOR.join(account.gateways),
        "routing_plan_id": ids.routing_plans[account.routing_plan],
        "src_policy": account.source_policy.value,
        "dids": SEPARATOR.join(account.dids) or None,
        "orig_enabled": int(account.orig_enabled),
        "orig_capacity": account.orig_capacity,
        "terminates": int(account.termination is not None),
        "term_enabled": int(term.enabled),
        "term_rate_table_id": ids.rate_tables[term.rate_table],
        "term_tag": term.tag,
        "term_capacity": term.capacity,
        "protocol": term.protocol.value,
        "host": term.host,
        "port": term.port,
        "proxy": term.proxy,
        "routing_ip": term.routing_ip,
        "version": version,
    }
