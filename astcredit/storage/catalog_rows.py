"""What people configure, read as the domain has it.

There may be a hundred thousand clients and accounts. They are read some thousand at a time, so that
calls are served in between, and what few of them have is asked of those alone. MariaDB's and
MySQL's driver takes a row apart in Python, column by column, which took half of the time: there
the server packs the rows of a portion into one text.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Column, Select, String, Table, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import Account, IdentKind, Protocol, SourcePolicy, Termination
from astcredit.domain.blocks import Block, Blocks
from astcredit.domain.catalog import ClientSettings, Reseller
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule
from astcredit.storage.tables import (
    LIST_SEPARATOR,
    astaccount,
    astblock,
    astclient,
    astreseller,
    astroute,
    astroutingplan,
)

_Row: TypeAlias = Sequence[Any]
_Usual: TypeAlias = Mapping[str, int | str | None]

PORTION_ROWS = 2_000
"""Rows at a time: some ten milliseconds of work, in which no call is served."""

PACKED_CHARACTERS = 500
"""Of a row that is packed. For longer ones MariaDB would make a temporary table on disk."""

_CLIENT = ("id", "name", "currency", "rate_table_id")
_ACCOUNT = ("id", "client_id", "name", "ident", "ident_by")

# What most clients and accounts have of their further settings; they are read only where they
# differ from it.
_CLIENTS_USUAL: _Usual = {
    "enabled": 1,
    "reseller_id": None,
    "routing_plan_id": None,
    "orig_capacity": None,
    "term_capacity": None,
}
_ACCOUNTS_USUAL: _Usual = {
    "rate_table_id": None,
    "enabled": 1,
    "tech_prefix": "",
    "gateways": "",
    "routing_plan_id": None,
    "src_policy": "allow-any",
    "dids": None,
    "tag": "",
    "orig_enabled": 1,
    "orig_capacity": None,
}
_TERMINATION = (
    "id", "term_rate_table_id", "term_capacity", "protocol", "host", "port", "proxy",
    "routing_ip", "term_tag", "term_enabled",
)  # fmt: skip
_RULE = (
    "id", "prefix", "account_id", "priority", "weight", "capacity", "strip", "prepend",
    "min_margin", "enabled",
)  # fmt: skip

# What an enum says of a value takes three times as long.
_IDENT_KINDS: Mapping[str, IdentKind] = {kind.value: kind for kind in IdentKind}


async def has_changed(
    connection: AsyncConnection, since: int, plans: Mapping[int, RoutingPlan], *, more_than: int
) -> bool:
    """Whether there is more to read than so many rows: clients and accounts with a version after
    `since`, and the rules of routing plans that are not as in `plans`."""
    c = astroutingplan.c
    versions = await connection.execute(select(c.id, c.version))
    moved = [id for id, version in versions if id not in plans or plans[id].version != version]
    changed = [select(t.c.id).where(t.c.version > since) for t in (astclient, astaccount)]
    if moved:
        changed.append(select(astroute.c.id).where(astroute.c.routing_plan_id.in_(moved)))
    some = (statement.limit(more_than + 1).subquery() for statement in changed)
    counts = [select(func.count()).select_from(rows).scalar_subquery() for rows in some]
    found: Sequence[int] = (await connection.execute(select(*counts))).one()
    return sum(found) > more_than


async def load_clients(connection: AsyncConnection, since: int | None) -> dict[int, ClientSettings]:
    """All clients, or those that changed after the version `since`."""
    clients: dict[int, ClientSettings] = {}
    settings = await _unusual(connection, astclient, _CLIENTS_USUAL, since)
    async for rows in _portions(connection, select(*_columns(astclient, _CLIENT)), since):
        clients.update((row[0], _client(row, settings.get(row[0]))) for row in rows)
    return clients


async def load_accounts(connection: AsyncConnection, since: int | None) -> dict[int, Account]:
    """All accounts, or those that changed after the version `since`.

    Raises ValueError for a row that makes no sense.
    """
    terminations: dict[int, Termination] = {}
    terminators = select(*_columns(astaccount, _TERMINATION)).where(astaccount.c.terminates == 1)
    async for rows in _portions(connection, terminators, since):
        terminations.update((row[0], _termination(row)) for row in rows)
    settings = await _unusual(connection, astaccount, _ACCOUNTS_USUAL, since)
    accounts: dict[int, Account] = {}
    async for rows in _portions(connection, select(*_columns(astaccount, _ACCOUNT)), since):
        for row in rows:
            id = row[0]
            accounts[id] = _account(row, settings.get(id), terminations.get(id))
    return accounts


async def load_resellers(connection: AsyncConnection) -> dict[int, Reseller]:
    """All resellers."""
    c = astreseller.c
    rows = await connection.execute(
        select(c.id, c.name, c.enabled, c.orig_capacity, c.term_capacity)
    )
    return {row[0]: Reseller(row[0], row[1], bool(row[2]), *row[3:]) for row in rows}


async def load_blocks(connection: AsyncConnection) -> Blocks:
    """The blocks in force."""
    c = astblock.c
    rows = await connection.execute(select(c.prefix, c.client_id).where(c.enabled == 1))
    return Blocks(Block(*row) for row in rows)


async def load_routing_plans(
    connection: AsyncConnection, known: Mapping[int, RoutingPlan]
) -> dict[int, RoutingPlan]:
    """All routing plans; of those whose version is known the rules are not read again."""
    c = astroutingplan.c
    found = await connection.execute(select(c.id, c.name, c.route_order, c.version, c.enabled))
    plans = {}
    for id, name, order, version, enabled in found.all():
        plan = known.get(id)
        unchanged = plan is not None and plan.version == version
        rules = plan.rules if plan is not None and unchanged else await _rules(connection, id)
        plans[id] = RoutingPlan(id, name, RouteOrder(order), version, rules, bool(enabled))
    return plans


async def _rules(connection: AsyncConnection, plan_id: int) -> Sequence[Rule]:
    c = astroute.c
    statement = (
        select(*(c[name] for name in _RULE))
        .where(c.routing_plan_id == plan_id)
        .order_by(c.id)
        .limit(PORTION_ROWS)
    )
    rules: list[Rule] = []
    while True:
        last_id = rules[-1].id if rules else -1
        rows = await _plain(connection, statement.where(c.id > last_id))
        rules += map(_rule, rows)
        if len(rows) < PORTION_ROWS:
            return rules


def _rule(row: Sequence[Any]) -> Rule:
    id, prefix, account_id, priority, weight, capacity, strip, prepend, min_margin, enabled = row
    return Rule(
        id,
        prefix,
        account_id,
        priority,
        weight,
        capacity,
        strip,
        prepend,
        min_margin,
        bool(enabled),
    )


def _columns(table: Table, names: Iterable[str]) -> list[Column[Any]]:
    return [table.c[name] for name in names]


async def _unusual(
    connection: AsyncConnection, table: Table, usual: _Usual, since: int | None
) -> dict[int, _Row]:
    """The settings, by id, of those of whom not all are as usual."""
    differs = (
        column.is_not(None) if usual[column.name] is None else column != usual[column.name]
        for column in _columns(table, usual)
    )
    statement = select(table.c.id, *_columns(table, usual)).where(or_(*differs))
    found: dict[int, _Row] = {}
    async for rows in _portions(connection, statement, since):
        found.update((row[0], row[1:]) for row in rows)
    return found


async def _portions(
    connection: AsyncConnection, statement: Select[Any], since: int | None
) -> AsyncIterator[Sequence[_Row]]:
    """The rows of a statement, which has the id first, in portions; none of its columns needs to
    be converted.

    Rows of a version after `since` are few as a rule, and their index is asked for them.
    """
    id = statement.selected_columns.id
    if since is not None:
        statement = statement.where(id.table.c.version > since)
        rows = await _plain(connection, statement.limit(PORTION_ROWS + 1))
        if len(rows) <= PORTION_ROWS:
            yield rows
            return
    read = _plain if connection.dialect.name == "sqlite" else _packed
    statement, last_id = statement.order_by(id).limit(PORTION_ROWS), -1
    while True:
        rows = await read(connection, statement.where(id > last_id))
        yield rows
        if len(rows) < PORTION_ROWS:
            return
        last_id = max(row[0] for row in rows)


async def _plain(connection: AsyncConnection, statement: Select[Any]) -> Sequence[_Row]:
    rows: Sequence[_Row] = (await connection.execute(statement)).all()
    return rows


async def _packed(connection: AsyncConnection, statement: Select[Any]) -> Sequence[_Row]:
    """The rows of one portion in one text, in no order, if the server does not cut it."""
    columns = statement.subquery("found").c
    row = cast(func.json_array(*columns), String(PACKED_CHARACTERS))
    asked = select(func.count(), func.group_concat(row))
    count, text = (await connection.execute(asked)).one()
    try:
        rows: Sequence[_Row] = json.loads(f"[{text}]") if count else ()
    except ValueError:
        return await _plain(connection, statement)
    whole = len(rows) == count and all(len(row) == len(columns) for row in rows)
    return rows if whole else await _plain(connection, statement)


def _client(row: _Row, settings: _Row | None) -> ClientSettings:
    id, name, currency, rate_table_id = row
    if settings is None:
        return ClientSettings(id, name, currency, rate_table_id, enabled=True)
    enabled, *rest = settings
    return ClientSettings(id, name, currency, rate_table_id, bool(enabled), *rest)


def _account(row: _Row, settings: _Row | None, termination: Termination | None) -> Account:
    id, client_id, name, ident, ident_by = row
    kind = _ident_kind(ident_by)
    idents = _list(ident)
    if settings is None:
        return Account(id, client_id, name, idents, ident_by=kind, termination=termination)
    (
        rate_table_id, enabled, tech_prefix, gateways, routing_plan_id, src_policy, dids, tag,
        orig_enabled, orig_capacity,
    ) = settings  # fmt: skip
    return Account(
        id,
        client_id,
        name,
        idents,
        rate_table_id,
        bool(enabled),
        kind,
        tech_prefix,
        _list(gateways),
        routing_plan_id,
        SourcePolicy(src_policy),
        _list(dids),
        tag,
        bool(orig_enabled),
        orig_capacity,
        termination,
    )


def _ident_kind(text: str) -> IdentKind:
    return _IDENT_KINDS.get(text) or IdentKind(text)


def _termination(row: Sequence[Any]) -> Termination:
    _, rate_table_id, capacity, protocol, host, port, proxy, routing_ip, tag, enabled = row
    return Termination(
        rate_table_id,
        capacity,
        Protocol(protocol),
        host,
        port,
        proxy,
        routing_ip,
        tag,
        bool(enabled),
    )


def _list(text: str | None) -> tuple[str, ...]:
    if not text:
        return ()
    if LIST_SEPARATOR not in text:
        return (text,) if (text := text.strip()) else ()
    return tuple(filter(None, map(str.strip, text.split(LIST_SEPARATOR))))
