"""The world of `support.plans` in a database, and what its tables hold of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import Account, Termination
from astcredit.domain.blocks import Block
from astcredit.domain.books import ClientBooks
from astcredit.domain.catalog import Catalog, ClientSettings
from astcredit.domain.routing_plan import RoutingPlan, Rule
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import (
    astaccount,
    astblock,
    astclient,
    astreseller,
    astroute,
    astroutingplan,
)
from support.core import NOW_MS, add_client, add_rate_table, postpaid
from support.plans import RATES, routed


async def store(
    database: Database,
    catalog: Catalog | None = None,
    clients: Iterable[ClientBooks] = (),
    blocks: Iterable[Block] = (),
) -> None:
    """Create the schema and put a catalog of the world into it; balances are booked as top-ups."""
    catalog = catalog or routed()
    books = {client.id: client for client in clients}
    await upgrade(database)
    async with database.transaction(seconds=None) as connection:
        for id in catalog.rate_tables:
            await add_rate_table(connection, id, f"table{id}", [RATES[id]])
        for reseller in catalog.resellers.values():
            await _insert(connection, astreseller, reseller, enabled=int(reseller.enabled))
        for plan in catalog.routing_plans.values():
            await _insert_plan(connection, plan)
        for client in catalog.clients.values():
            await add_client(connection, books.get(client.id, postpaid(client.id)))
            await _set_client(connection, client)
        for account in catalog.accounts.values():
            await insert_account(connection, account)
        for plan in catalog.routing_plans.values():
            for rule in plan.rules:
                await insert_rule(connection, plan.id, rule)
        for block in blocks:
            await _insert(connection, astblock, block, enabled=1)


async def _insert(connection: AsyncConnection, table: Table, thing: Any, **other: Any) -> None:
    """Insert what `thing` has of the table's columns, and `other`."""
    names = [column.name for column in table.c if hasattr(thing, column.name)]
    values = {name: getattr(thing, name) for name in names} | {"date_created": NOW_MS} | other
    await connection.execute(insert(table).values(**values))


async def _set_client(connection: AsyncConnection, client: ClientSettings) -> None:
    names = [
        "name", "currency", "rate_table_id", "reseller_id", "routing_plan_id", "orig_capacity",
        "term_capacity",
    ]  # fmt: skip
    values = {name: getattr(client, name) for name in names} | {"enabled": int(client.enabled)}
    await connection.execute(astclient.update().where(astclient.c.id == client.id).values(**values))


async def _insert_plan(connection: AsyncConnection, plan: RoutingPlan) -> None:
    more = {"route_order": plan.order.value, "enabled": int(plan.enabled)}
    await _insert(connection, astroutingplan, plan, **more)


async def insert_rule(connection: AsyncConnection, plan_id: int, rule: Rule) -> None:
    """Put a rule into a routing plan."""
    more = {"routing_plan_id": plan_id, "enabled": int(rule.enabled)}
    await _insert(connection, astroute, rule, **more)


async def insert_account(connection: AsyncConnection, account: Account) -> None:
    """Put an account with all its settings into the database."""
    own = {
        "ident_by": account.ident_by.value,
        "ident": ";".join(account.idents),
        "gateways": ";".join(account.gateways),
        "src_policy": account.source_policy.value,
        "dids": ";".join(account.dids) or None,
        "enabled": int(account.enabled),
        "orig_enabled": int(account.orig_enabled),
        "notes": "",
    }
    await _insert(connection, astaccount, account, **own, **_termination(account.termination))


def _termination(termination: Termination | None) -> dict[str, Any]:
    if termination is None:
        return {}
    return {
        "terminates": 1,
        "term_enabled": int(termination.enabled),
        "term_rate_table_id": termination.rate_table_id,
        "term_capacity": termination.capacity,
        "term_tag": termination.tag,
        "protocol": termination.protocol.value,
        "host": termination.host,
        "port": termination.port,
        "proxy": termination.proxy,
        "routing_ip": termination.routing_ip,
    }
