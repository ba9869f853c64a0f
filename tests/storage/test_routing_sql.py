"""Routing plans as administrators change them, on both kinds of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import insert

from astcredit.domain.capacity import Direction, Level, Scope
from astcredit.domain.deck import DeckErrors
from astcredit.domain.money import MICROS
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.errors import RefusedError
from astcredit.service.routing_csv import PlanLine, parse_plan, write_plan
from astcredit.service.routing_desk import PlanImport, RoutingDesk
from astcredit.service.routing_ports import Place, PlanRule, RuleFilter
from astcredit.service.routing_rules import RuleChange
from astcredit.storage import admin_routing
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import astcapacity
from support.calls import query
from support.carriers import furnish
from support.core import Clock, opened

HOSTILE = "'; DROP TABLE astroute; -- %s {0} ${EXTEN} \\"
CARRIERS = ("carrier-a", "carrier-b", HOSTILE)

FULL = RuleChange(7, 3, 30, 2, "0055", MICROS // 100)
"""A change that names every setting."""


@dataclass(frozen=True)
class Office:
    """The desk on one database, in which there are terminators and an account that is none."""

    database: Database
    store: SqlAdministration
    desk: RoutingDesk

    async def versions(self, plan: str) -> tuple[int, int]:
        """Of the plan's rules, and of the catalog."""
        (catalog,) = await query(self.database, "SELECT version FROM astcatalog")
        (own,) = await query(
            self.database, f"SELECT version FROM astroutingplan WHERE name = '{plan}'"
        )
        return int(own["version"]), int(catalog["version"])

    async def audit_rows(self) -> list[tuple[str, str, str, Any, Any]]:
        rows = await query(self.database, "SELECT * FROM astaudit ORDER BY id")
        assert {row["actor"] for row in rows} <= {"me@here"}
        return [
            (
                row["action"],
                row["object_kind"],
                row["object_name"],
                *(row[c] and json.loads(row[c]) for c in ("state_before", "state_after")),
            )
            for row in rows
        ]

    async def rules(self, wanted: RuleFilter | None = None) -> Sequence[PlanRule]:
        return await self.desk.rules(wanted or RuleFilter())

    async def put(self, text: str, *, replacing: bool = False, dry: bool = False) -> PlanImport:
        return await self.desk.import_rules(
            "retail", lines(text), replacing=replacing, dry_run=dry, source="routes.csv"
        )


def lines(text: str) -> list[PlanLine]:
    return parse_plan("retail", text.splitlines(keepends=True))


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            await furnish(database, CARRIERS)
            store = SqlAdministration(database)
            desk = RoutingDesk(store, "me@here", Clock())
            await desk.add_plan("retail")
            await work(Office(database, store, desk))

    asyncio.run(run())


def test_a_rule_comes_back_as_it_was_given(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add_plan(HOSTILE, RouteOrder.LEAST_COST)
        added = await at.desk.add_rule(Place(HOSTILE, "44", HOSTILE), FULL)
        assert added == PlanRule(
            HOSTILE, "44", HOSTILE, 7, 3, 30, 2, "0055", MICROS // 100, True, added.id
        )
        assert added.id > 0
        assert await at.desk.rule(added.id) == await at.desk.rule(added.place) == added
        plain = await at.desk.add_rule(Place("retail", "", "carrier-a"), RuleChange())
        assert plain == PlanRule("retail", "", "carrier-a", id=plain.id)
        plan = await at.desk.plan(HOSTILE)
        assert (plan.order, plan.rules, plan.enabled) == (RouteOrder.LEAST_COST, 1, True)

    at_office(database_url, work)


def test_every_change_of_a_rule_moves_both_versions_and_leaves_an_audit_row(
    database_url: str,
) -> None:
    place = Place("retail", "44", "carrier-a")
    steps: tuple[tuple[str, Callable[[RoutingDesk], Awaitable[object]], Any, Any], ...] = (
        (
            "add",
            lambda desk: desk.add_rule(place, RuleChange(capacity=5)),
            None,
            {
                "plan": "retail",
                "prefix": "44",
                "account": "carrier-a",
                "priority": 1,
                "weight": 1,
                "capacity": 5,
                "strip": 0,
                "prepend": "",
                "min_margin": None,
                "enabled": True,
            },
        ),
        (
            "set",
            lambda desk: desk.set_rule(place, RuleChange(capacity=None, min_margin=MICROS)),
            {"capacity": 5, "min_margin": None},
            {"capacity": None, "min_margin": "1.000000"},
        ),
        (
            "disable",
            lambda desk: desk.enable_rule(place, False),
            {"enabled": True},
            {"enabled": False},
        ),
        (
            "enable",
            lambda desk: desk.enable_rule(place, True),
            {"enabled": False},
            {"enabled": True},
        ),
    )

    async def work(at: Office) -> None:
        for action, step, before, after in steps:
            own, catalog = await at.versions("retail")
            await step(at.desk)
            assert await at.versions("retail") == (own + 1, catalog + 1)
            row = (await at.audit_rows())[-1]
            assert row == (action, "route", "retail 44 carrier-a", before, after)
        assert len(await at.audit_rows()) == 1 + len(steps)

    at_office(database_url, work)


def test_what_changes_nothing_leaves_no_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        rule = await at.desk.add_rule(Place("retail", "44", "carrier-a"), FULL)
        rows, (own, _) = await at.audit_rows(), await at.versions("retail")
        assert await at.desk.set_rule(rule.id, FULL) == rule
        assert await at.desk.enable_rule(rule.id, True) == (False, rule)
        assert (await at.desk.set_plan("retail", RouteOrder.PRIORITY)).version == own
        assert not await at.desk.enable_plan("retail", True)
        assert await at.audit_rows() == rows

    at_office(database_url, work)


def test_a_plan_is_changed_disabled_and_counted(database_url: str) -> None:
    async def work(at: Office) -> None:
        assert (await at.desk.set_plan("retail", RouteOrder.LEAST_COST)).order == "least-cost"
        assert await at.desk.enable_plan("retail", False)
        for prefix in ("44", "45"):
            await at.desk.add_rule(Place("retail", prefix, "carrier-a"), RuleChange())
        await at.desk.add_plan("another")
        async with at.database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astclient SET routing_plan_id = 1")
            await connection.exec_driver_sql("UPDATE astaccount SET routing_plan_id = 1")
        another, retail = await at.desk.plans()
        assert (another.name, another.rules, another.clients, another.accounts) == (
            "another", 0, 0, 0,
        )  # fmt: skip
        assert (retail.name, retail.rules, retail.clients, retail.accounts) == ("retail", 2, 2, 4)
        assert retail == await at.desk.plan("retail")
        assert not retail.enabled
        assert [row[:4] for row in await at.audit_rows()][1:3] == [
            ("set", "routing-plan", "retail", {"order": "priority"}),
            ("disable", "routing-plan", "retail", {"enabled": True}),
        ]

    at_office(database_url, work)


REFUSED: tuple[tuple[Callable[[RoutingDesk], Awaitable[object]], str], ...] = (
    (lambda desk: desk.add_plan("retail"), "routing plan 'retail' exists already"),
    (lambda desk: desk.add_plan(" x"), "routing plan ' x': expected 1 to 80"),
    (lambda desk: desk.plan("retial"), "no routing plan 'retial'; the nearest is 'retail'"),
    (
        lambda desk: desk.add_rule(Place("retial", "44", "carrier-a"), RuleChange()),
        "no routing plan 'retial'; the nearest is 'retail'",
    ),
    (
        lambda desk: desk.add_rule(Place("retail", "44", "carrier-x"), RuleChange()),
        "no account 'carrier-x'; the nearest is 'carrier-",
    ),
    (
        lambda desk: desk.add_rule(Place("retail", "44", "office"), RuleChange()),
        "account 'office' has no terminator settings: .* account set 'office' --term",
    ),
    (
        lambda desk: desk.add_rule(Place("retail", "1", "carrier-a"), RuleChange()),
        "'retail' has route 1 for prefix 1 to account 'carrier-a' already",
    ),
    (
        lambda desk: desk.add_rule(Place("retail", "44", "carrier-a"), RuleChange(priority=0)),
        "priority 0",
    ),
    (lambda desk: desk.set_rule(1, RuleChange(strip=99)), "strip 99"),
    (lambda desk: desk.rule(99), "there is no route 99"),
    (lambda desk: desk.rule(2**63), "there is no route 9223372036854775808"),
    (lambda desk: desk.rule(Place("retial", "1", "carrier-a")), "no routing plan 'retial'"),
    (lambda desk: desk.rule(Place("retail", "1", "carier-a")), "no account 'carier-a'"),
    (
        lambda desk: desk.rule(Place("retail", "", "carrier-a")),
        r"'retail' has no route for prefix \* to account 'carrier-a'",
    ),
    (lambda desk: desk.rules(RuleFilter("retial")), "no routing plan 'retial'"),
    (lambda desk: desk.rules(RuleFilter(account="nobody")), "no account 'nobody'"),
)


def test_a_refused_change_changes_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add_rule(Place("retail", "1", "carrier-a"), RuleChange())
        before = await at.versions("retail"), await at.rules(), await at.audit_rows()
        for attempt, words in REFUSED:
            with pytest.raises(RefusedError, match=words):
                await attempt(at.desk)
        assert (await at.versions("retail"), await at.rules(), await at.audit_rows()) == before

    at_office(database_url, work)


def test_rules_are_listed_by_plan_account_and_the_beginning_of_the_prefix(
    database_url: str,
) -> None:
    async def work(at: Office) -> None:
        await at.desk.add_plan("another")
        for plan, prefix, account, priority in (
            ("retail", "447", "carrier-a", 1),
            ("retail", "44", "carrier-b", 1),
            ("retail", "44", "carrier-a", 2),
            ("retail", "", "carrier-a", 1),
            ("retail", "45", "carrier-a", 1),
            ("another", "44", "carrier-a", 1),
        ):
            await at.desk.add_rule(Place(plan, prefix, account), RuleChange(priority))

        async def found(wanted: RuleFilter) -> list[str]:
            return [rule.name for rule in await at.rules(wanted)]

        assert await found(RuleFilter("retail", prefix="44")) == [
            "retail 44 carrier-b",
            "retail 44 carrier-a",
            "retail 447 carrier-a",
        ]
        assert await found(RuleFilter(account="carrier-b")) == ["retail 44 carrier-b"]
        assert await found(RuleFilter(prefix="")) == ["retail any carrier-a"]
        assert await found(RuleFilter(prefix="9")) == []
        assert (await found(RuleFilter()))[:2] == ["another 44 carrier-a", "retail any carrier-a"]
        assert len(await at.rules()) == 6

    at_office(database_url, work)


def test_an_import_adds_changes_and_disables_and_says_so_rule_by_rule(database_url: str) -> None:
    async def work(at: Office) -> None:
        for prefix in ("44", "45", "46"):
            await at.desk.add_rule(Place("retail", prefix, "carrier-a"), RuleChange(capacity=5))
        text = "prefix,account,weight\n44,carrier-a,9\n45,carrier-a,1\n*,carrier-b,2\n"
        before = await at.rules()
        own, catalog = await at.versions("retail")
        tried = await at.put(text, replacing=True, dry=True)
        assert tried == PlanImport("retail", 1, 1, 1, 1, dry_run=True)
        assert (await at.versions("retail"), await at.rules()) == ((own, catalog), before)
        assert len(await at.audit_rows()) == 4
        done = await at.put(text, replacing=True)
        assert done == replace(tried, dry_run=False)
        assert await at.versions("retail") == (own + 1, catalog + 1)
        new, *old = await at.rules()
        assert new == PlanRule("retail", "", "carrier-b", weight=2, id=new.id)
        assert old == [
            replace(before[0], weight=9),
            before[1],
            replace(before[2], enabled=False),
        ]
        whole, *each = (await at.audit_rows())[4:]
        assert whole == (
            "import",
            "routing-plan",
            "retail",
            {"rules": 3},
            {"rules": 4, "added": 1, "changed": 1, "disabled": 1},
        )
        assert each == [
            ("add", "route", "retail any carrier-b", None, new.state()),
            ("set", "route", "retail 44 carrier-a", {"weight": 1}, {"weight": 9}),
            ("disable", "route", "retail 46 carrier-a", {"enabled": True}, {"enabled": False}),
        ]
        (note,) = await query(at.database, "SELECT DISTINCT note FROM astaudit WHERE note <> ''")
        assert note["note"] == "routes.csv"

    at_office(database_url, work)


def test_an_export_that_is_imported_changes_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        for account in CARRIERS:
            await at.desk.add_rule(Place("retail", "44", account), FULL)
        await at.desk.add_rule(Place("retail", "", HOSTILE), RuleChange())
        await at.desk.enable_rule(Place("retail", "", HOSTILE), False)
        text = "".join(write_plan(await at.rules()))
        before = (await at.versions("retail"))[0], await at.rules(), await at.audit_rows()
        for replacing in (False, True):
            done = await at.put(text, replacing=replacing)
            assert done.does_nothing
            assert done.unchanged == 4
        after = (await at.versions("retail"))[0], await at.rules(), await at.audit_rows()
        assert after == before

    at_office(database_url, work)


def test_an_import_is_all_or_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add_rule(Place("retail", "44", "carrier-a"), RuleChange())
        before = await at.versions("retail"), await at.rules(), await at.audit_rows()
        with pytest.raises(DeckErrors) as raised:
            await at.put("prefix,account\n45,carrier-b\n46,nobody\n47,office\n", replacing=True)
        assert [error.line for error in raised.value.errors] == [3, 4]
        with pytest.raises(RefusedError, match=r"routes\.csv: no rules in it"):
            await at.put("prefix,account\n", replacing=True)
        assert (await at.versions("retail"), await at.rules(), await at.audit_rows()) == before

    at_office(database_url, work)


def test_a_long_file_is_written_in_parts(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rules, and more accounts, than go into one statement."""
    monkeypatch.setattr(admin_routing, "ROWS_AT_ONCE", 2)

    async def work(at: Office) -> None:
        places = [(prefix, account) for prefix in range(1, 4) for account in CARRIERS]
        added = [
            PlanRule("retail", str(prefix), account, weight=n, min_margin=n * MICROS)
            for n, (prefix, account) in enumerate(places)
        ]
        assert (await at.put("".join(write_plan(added)))).added == 9
        stored = await at.rules()
        assert {replace(rule, id=0) for rule in stored} == set(added)
        changed = [replace(rule, weight=rule.weight + 7, min_margin=None) for rule in stored]
        assert (await at.put("".join(write_plan(changed)))).changed == 9
        assert await at.rules() == changed

    at_office(database_url, work)


def test_calls_that_are_up_are_read_by_level(database_url: str) -> None:
    async def work(at: Office) -> None:
        route = Level(Scope.ROUTE, 1, Direction.TERM)
        account = Level(Scope.ACCOUNT, 1, Direction.TERM)
        values = {"id": route.key, "scope": "route", "object_id": 1, "direction": "term"}
        async with at.database.transaction() as connection:
            await connection.execute(insert(astcapacity).values(**values, calls=3))
        async with at.store.looking() as transaction:
            assert await transaction.routing.uses([route, account]) == {route: 3}
            assert await transaction.routing.uses([]) == {}

    at_office(database_url, work)
