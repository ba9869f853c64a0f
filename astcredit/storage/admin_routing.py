"""Routing plans and their rules in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Column, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.capacity import Level, Uses
from astcredit.domain.instants import instant_text
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.routing_ports import Place, PlanHead, PlanRule, RuleFilter
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import astaccount, astcapacity, astclient, astroute, astroutingplan

T = TypeVar("T")

ROWS_AT_ONCE: Final = 1_000
"""Rows of a statement: eleven parameters each, of which SQLite takes 32,766."""

_SETTINGS: Final = (
    "priority",
    "weight",
    "capacity",
    "strip",
    "prepend",
    "min_margin",
    "enabled",
)
_NEW: Final = ("routing_plan_id", "prefix", "account_id", "date_created", *_SETTINGS)

# In the order of the fields of PlanRule.
_RULES: Select[Any] = (
    select(
        astroutingplan.c.name,
        astroute.c.prefix,
        astaccount.c.name,
        *(astroute.c[column] for column in _SETTINGS),
        astroute.c.id,
    )
    .join_from(astroute, astroutingplan, astroutingplan.c.id == astroute.c.routing_plan_id)
    .join(astaccount, astaccount.c.id == astroute.c.account_id)
)

_PLANS: Select[Any] = select(
    astroutingplan.c.name,
    astroutingplan.c.route_order,
    astroutingplan.c.enabled,
    astroutingplan.c.version,
    astroutingplan.c.id,
)


class SqlRouting:
    """The routing plans, in one transaction. Implements `service.routing_ports.RoutingStore`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect

    async def plan(self, name: str) -> PlanHead | None:
        """The routing plan of that name."""
        found = await self._heads(_PLANS.where(astroutingplan.c.name == name))
        return found[0] if found else None

    async def plans(self) -> Sequence[PlanHead]:
        """All routing plans, by name."""
        return await self._heads(_PLANS.order_by(astroutingplan.c.name))

    async def add_plan(self, plan: PlanHead, now_ms: int) -> None:
        """Insert a plan without rules."""
        values = {"name": plan.name, "version": plan.version, "date_created": now_ms}
        await self._connection.execute(insert(astroutingplan).values(values | _plan_values(plan)))

    async def change_plan(self, plan: PlanHead) -> None:
        """Write the plan's settings; its version is that of its rules."""
        changed = update(astroutingplan).where(astroutingplan.c.id == plan.id)
        await self._connection.execute(changed.values(_plan_values(plan)))

    async def rules_changed(self, plan: str) -> None:
        """Raise the plan's version."""
        changed = update(astroutingplan).where(astroutingplan.c.name == plan)
        await self._connection.execute(changed.values(version=astroutingplan.c.version + 1))

    async def rule(self, id: int) -> PlanRule | None:
        """The rule with that id."""
        row = (await self._connection.execute(_RULES.where(astroute.c.id == id))).first()
        return None if row is None else _rule(row)

    async def rule_at(self, place: Place) -> PlanRule | None:
        """The rule at that place."""
        statement = _RULES.where(
            astroutingplan.c.name == place.plan,
            astroute.c.prefix == place.prefix,
            astaccount.c.name == place.account,
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else _rule(row)

    async def rules(self, wanted: RuleFilter) -> Sequence[PlanRule]:
        """The rules that are wanted: by plan, prefix, priority and account."""
        prefix = astroute.c.prefix
        statement = _RULES
        if wanted.plan is not None:
            statement = statement.where(astroutingplan.c.name == wanted.plan)
        if wanted.account is not None:
            statement = statement.where(astaccount.c.name == wanted.account)
        if wanted.prefix is not None:
            like = prefix.startswith(wanted.prefix, autoescape=True)
            statement = statement.where(like if wanted.prefix else prefix == "")
        order = (astroutingplan.c.name, prefix, astroute.c.priority, astaccount.c.name)
        return [_rule(row) for row in await self._connection.execute(statement.order_by(*order))]

    async def add_rules(self, rules: Sequence[PlanRule], now_ms: int) -> None:
        """Insert rules; their ids are made."""
        plans = await self._ids(astroutingplan.c.name, {rule.plan for rule in rules})
        accounts = await self._ids(astaccount.c.name, {rule.account for rule in rules})
        created = instant_text(now_ms)
        for part in _parts(rules):
            values = tuple(
                value
                for rule in part
                for value in (
                    plans[rule.plan],
                    rule.prefix,
                    accounts[rule.account],
                    created,
                    *self._settings(rule),
                )
            )
            statement = self._sql.insert_many("astroute", _NEW, len(part))
            await self._connection.exec_driver_sql(statement, values)

    async def change_rules(self, rules: Sequence[PlanRule]) -> None:
        """Write the settings of the rules with those ids."""
        for part in _parts(rules):
            rows = [(rule.id, *self._settings(rule)) for rule in part]
            statement, values = self._sql.update_many("astroute", "id", _SETTINGS, rows)
            await self._connection.exec_driver_sql(statement, tuple(values))

    async def terminators(self, accounts: Collection[str]) -> Mapping[str, bool]:
        """Of the accounts that exist, by name: whether they have terminator settings."""
        c = astaccount.c
        found: dict[str, bool] = {}
        for part in _parts(sorted(accounts)):
            rows = await self._connection.execute(
                select(c.name, c.terminates).where(c.name.in_(part))
            )
            found.update((row[0], bool(row[1])) for row in rows)
        return found

    async def uses(self, levels: Collection[Level]) -> Uses:
        """Calls that are up at each of the levels."""
        c = astcapacity.c
        by_key = {level.key: level for level in levels}
        found: dict[Level, int] = {}
        for part in _parts(sorted(by_key)):
            rows = await self._connection.execute(select(c.id, c.calls).where(c.id.in_(part)))
            found.update((by_key[row[0]], row[1]) for row in rows)
        return found

    async def _heads(self, statement: Select[Any]) -> Sequence[PlanHead]:
        rows = (await self._connection.execute(statement)).all()
        only = rows[0].id if len(rows) == 1 else None
        rules, clients, accounts = [
            await self._count(column, only)
            for column in (
                astroute.c.routing_plan_id,
                astclient.c.routing_plan_id,
                astaccount.c.routing_plan_id,
            )
        ]
        return [
            PlanHead(
                row.name,
                RouteOrder(row.route_order),
                bool(row.enabled),
                rules.get(row.id, 0),
                clients.get(row.id, 0),
                accounts.get(row.id, 0),
                row.version,
                row.id,
            )
            for row in rows
        ]

    async def _count(self, plan_id: Column[Any], only: int | None) -> Mapping[int, int]:
        """Rows of a table by the plan that they name; of one plan only, if that is enough."""
        wanted = plan_id.is_not(None) if only is None else plan_id == only
        statement = select(plan_id, func.count()).where(wanted).group_by(plan_id)
        return {row[0]: row[1] for row in await self._connection.execute(statement)}

    async def _ids(self, name: Column[Any], names: Iterable[str]) -> Mapping[str, int]:
        """The ids that belong to names of a table."""
        found: dict[str, int] = {}
        for part in _parts(sorted(names)):
            statement = select(name, name.table.c.id).where(name.in_(part))
            found.update((row[0], row[1]) for row in await self._connection.execute(statement))
        return found

    def _settings(self, rule: PlanRule) -> tuple[Value, ...]:
        margin = rule.min_margin
        return (
            rule.priority,
            rule.weight,
            rule.capacity,
            rule.strip,
            rule.prepend,
            None if margin is None else self._sql.amount(margin),
            int(rule.enabled),
        )


def _rule(row: Sequence[Any]) -> PlanRule:
    *fields, enabled, id = row
    plan, prefix, account, priority, weight, capacity, strip, prepend, min_margin = fields
    return PlanRule(
        plan,
        prefix,
        account,
        priority,
        weight,
        capacity,
        strip,
        prepend,
        min_margin,
        bool(enabled),
        id,
    )


def _plan_values(plan: PlanHead) -> dict[str, Any]:
    return {"route_order": plan.order, "enabled": int(plan.enabled)}


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + ROWS_AT_ONCE] for i in range(0, len(items), ROWS_AT_ONCE))
