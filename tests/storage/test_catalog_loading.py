"""What of the catalog is read, and when: what changed, by the versions that stand in the rows;
everything after a change by hand; in portions, however many rows there are."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import String, cast, func, select

from astcredit.domain.accounts import Account, IdentKind, Protocol, SourcePolicy, Termination
from astcredit.domain.blocks import Block
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.service.errors import StorageError
from astcredit.service.operations import Rerouted
from astcredit.storage import catalog as catalog_module
from astcredit.storage import catalog_rows
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.tables import astaccount
from support.core import NOW_MS, account, change_catalog, identified, opened, request, server
from support.plans import ACCOUNTS, CLIENTS, RULES, next_route, routed
from support.stored_plans import insert_account, store

LONDON = "442071234567"


class Site:
    """A database with the world in it, and a catalog that has been loaded once."""

    def __init__(self, database: Database, source: SqlCatalog) -> None:
        self.database = database
        self.source = source

    async def now(self) -> Catalog:
        """The catalog as the next call sees it."""
        async with self.database.reading(seconds=None) as connection:
            result = await connection.exec_driver_sql("SELECT version FROM astcatalog")
            version = int(result.scalar_one())
        return await self.source.at_least(version)

    async def traced(self, *statements: str, rows: tuple[str, int] | None = None) -> Catalog:
        """Change something as the command line does: with the version in the row of `rows`, a
        table and an id."""
        async with self.database.transaction(seconds=None) as connection:
            await connection.exec_driver_sql(
                "UPDATE astcatalog SET version = version + 1, traced = traced + 1"
            )
            for statement in statements:
                await connection.exec_driver_sql(statement)
            if rows is not None:
                await connection.exec_driver_sql(
                    f"UPDATE {rows[0]} SET version = (SELECT version FROM astcatalog)"
                    f" WHERE id = {rows[1]}"
                )
        return await self.now()

    async def by_hand(self, *statements: str) -> Catalog:
        """Change something as a person with SQL does: the catalog's version is raised, and nothing
        else is noted."""
        await change_catalog(self.database, *statements)
        return await self.now()


def at_site(
    url: str, work: Callable[[Site], Coroutine[Any, Any, None]], catalog: Catalog | None = None
) -> None:
    async def run() -> None:
        async with site(url, catalog) as it:
            await work(it)

    asyncio.run(run())


@asynccontextmanager
async def site(url: str, catalog: Catalog | None = None) -> AsyncIterator[Site]:
    async with opened(url) as database:
        await store(database, catalog, blocks=[Block("4490"), Block("53", 1)])
        source = SqlCatalog(database, inline_rates=1_000)
        it = Site(database, source)
        await it.now()
        yield it
        await source.close()


FULL = Account(
    7,
    1,
    "full",
    ("10.1.2.0/24", "10.9.9.9:5061"),
    rate_table_id=2,
    enabled=False,
    ident_by=IdentKind.IP,
    tech_prefix="77",
    gateways=("pbx1", "pbx2"),
    routing_plan_id=1,
    source_policy=SourcePolicy.OVERWRITE,
    dids=("442079999999", "442078888888"),
    tag="gold",
    orig_enabled=False,
    orig_capacity=0,
    termination=Termination(
        3, 0, Protocol.IAX2, "sip.example.com", 4569, "peer", "192.0.2.9", "silver", False
    ),
)
"""Everything that an account can have, and none of it as usual."""
SINGLE = {
    "rate_table_id": 2, "enabled": False, "tech_prefix": "77", "gateways": ("pbx1",),
    "routing_plan_id": 1, "source_policy": SourcePolicy.REJECT, "dids": ("44",), "tag": "x",
    "orig_enabled": False, "orig_capacity": 0, "termination": Termination(),
}  # fmt: skip


def same(one: Catalog, other: Catalog) -> bool:
    """Whether they say the same of everything but rates and version."""
    return (
        (one.clients, one.accounts, one.resellers)
        == (other.clients, other.accounts, other.resellers)
    ) and (
        {id: (p.name, p.order, p.enabled, sorted(p.rules, key=lambda r: r.id)) for id, p in
         one.routing_plans.items()}
        == {id: (p.name, p.order, p.enabled, sorted(p.rules, key=lambda r: r.id)) for id, p in
            other.routing_plans.items()}
    )  # fmt: skip


def everything() -> Catalog:
    """A world in which each setting is once other than usual, alone and with all the others."""
    singles = [
        replace(account(f"one{n}", 1, 30 + n), **{name: value})  # type: ignore[arg-type]
        for n, (name, value) in enumerate(SINGLE.items())
    ]
    limits = {"reseller:1:orig": 0, "reseller:2:term": 7, "client:1:orig": 5, "client:3:term": 0,
              "account:1:orig": 1, "account:11:term": 2, "route:22:term": 3}  # fmt: skip
    off = replace(CLIENTS[3], enabled=False, name="öff 😀")
    rules = [*RULES[:2], replace(RULES[2], strip=2, prepend="00#", min_margin=1_500, weight=0,
                                 enabled=False)]  # fmt: skip
    return routed(
        limits,
        clients=[*CLIENTS[:3], off],
        accounts=[*ACCOUNTS, FULL, *singles],
        rules=rules,
    )


def test_what_is_stored_is_what_is_decided_on(database_url: str) -> None:
    """Every setting of every kind of object, those that few have included."""

    async def work(it: Site) -> None:
        catalog = await it.now()
        assert same(catalog, everything())
        assert catalog.blocks.find("449012", 9) == Block("4490")
        assert catalog.blocks.find("5312", 1) == Block("53", 1)
        assert catalog.blocks.find("5312", 2) is None

    at_site(database_url, work, everything())


@pytest.mark.parametrize("portion", [1, 2, 3, 7, 16, 17, 18])
def test_it_is_the_same_in_portions_of_any_size(
    database_url: str, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    """Portions that end with the last row, and with none before it."""
    for module in (catalog_module, catalog_rows):
        monkeypatch.setattr(module, "PORTION_ROWS", portion)
    monkeypatch.setattr(catalog_module, "AT_A_TIME", portion)

    async def work(it: Site) -> None:
        whole = await it.now()
        assert same(whole, everything())
        alice = everything().accounts[1]
        assert identified(whole, "alice") == alice
        # A change of many rows is one of many portions, too.
        changed = await it.traced("UPDATE astaccount SET tag = 'new', version = 2")
        assert {account.tag for account in changed.accounts.values()} == {"new"}
        assert identified(changed, "alice") == replace(alice, tag="new")

    at_site(database_url, work, everything())


HOSTILE = "\"'\\;[]{},\u2028 \x01 \x1f 😀 %s {0} </script>"


def test_hostile_names_are_names(database_url: str) -> None:
    """Somebody wrote them by hand: what packs rows into one text must not take them apart."""
    odd = account(HOSTILE, 1, 50, idents=("x",))
    clients = [replace(CLIENTS[0], name=HOSTILE), *CLIENTS[1:]]

    async def work(it: Site) -> None:
        catalog = await it.now()
        assert catalog.accounts[50].name == HOSTILE
        assert catalog.clients[1].name == HOSTILE

    at_site(database_url, work, routed(accounts=[*ACCOUNTS, odd], clients=clients))


LONG = ";".join(f"10.0.{n}.{m}" for n in range(9) for m in range(99))
"""More than is packed of a row."""


@pytest.mark.parametrize("tag", ["x" * 80, "\u0001" * 80], ids=["plain", "escaped"])
def test_a_row_that_is_too_long_to_be_packed_is_read(database_url: str, tag: str) -> None:
    many = replace(account("many", 1, 50, idents=tuple(LONG.split(";"))), ident_by=IdentKind.IP)
    odd = replace(account("odd", 1, 51), tag=tag, tech_prefix="7", dids=("4420",) * 200)
    catalog = routed(accounts=[*ACCOUNTS, many, odd])

    async def work(it: Site) -> None:
        assert same(await it.now(), catalog)

    at_site(database_url, work, catalog)


def test_a_text_that_the_server_cuts_is_read_row_by_row(mariadb_url: str) -> None:
    """It cuts what it packs at group_concat_max_len: in the middle of a row, or at its end, so that
    it could be read and only the rows behind it were missing."""
    c = astaccount.c
    columns = (c.id, c.client_id, c.name, c.ident)
    statement = select(*columns).order_by(c.id).limit(catalog_rows.PORTION_ROWS)
    row = cast(func.json_array(*columns), String(catalog_rows.PACKED_CHARACTERS))

    async def work(it: Site) -> None:
        async with it.database.reading(seconds=None) as connection:
            expected = sorted(list(row) for row in await connection.execute(statement))
            text = (await connection.execute(select(func.group_concat(row)))).scalar_one()
            ends = [match.start() + 1 for match in re.finditer(re.escape("],"), text)]
            assert len(ends) == len(expected) - 1
            for most in (4, ends[0] - 1, ends[0], ends[0] + 1, ends[4], ends[-1], len(text)):
                await connection.exec_driver_sql(f"SET SESSION group_concat_max_len = {most}")
                found = await catalog_rows._packed(connection, statement)
                assert sorted(list(row) for row in found) == expected

    at_site(mariadb_url, work, everything())


# What changed


RENAMED = "UPDATE astaccount SET tag = 'new' WHERE id = 1"


def test_a_change_that_is_noted_in_its_row_is_read_and_nothing_else(database_url: str) -> None:
    async def work(it: Site) -> None:
        before = await it.now()
        after = await it.traced(RENAMED, rows=("astaccount", 1))
        assert after.accounts[1] == replace(ACCOUNTS[0], tag="new")
        assert identified(after, "alice") is after.accounts[1]
        assert all(after.accounts[id] is old for id, old in before.accounts.items() if id != 1)
        assert all(after.clients[id] is old for id, old in before.clients.items())
        assert before.accounts[1] == ACCOUNTS[0]  # whoever has the old catalog keeps it

    at_site(database_url, work)


def test_a_client_that_changed_is_read(database_url: str) -> None:
    async def work(it: Site) -> None:
        before = await it.now()
        moved = "UPDATE astclient SET reseller_id = 2 WHERE id = 1"
        after = await it.traced(moved, rows=("astclient", 1))
        assert after.clients[1] == replace(before.clients[1], reseller_id=2)
        assert after.clients[2] is before.clients[2]
        assert after.identities is before.identities

    at_site(database_url, work)


def test_changes_add_up(database_url: str) -> None:
    """One after the other, several at once, of the same row again, and new rows."""

    async def work(it: Site) -> None:
        first = await it.traced(RENAMED, rows=("astaccount", 1))
        second = await it.traced(
            "UPDATE astaccount SET ident = 'other' WHERE id = 2", rows=("astaccount", 2)
        )
        assert second.accounts[1] is first.accounts[1]
        assert identified(second, "alan") is None
        assert identified(second, "other") is second.accounts[2]
        async with it.database.transaction(seconds=None) as connection:
            await insert_account(connection, account("new", 2, 60))
        third = await it.traced(
            "UPDATE astaccount SET ident = 'alan' WHERE id = 2",
            "UPDATE astaccount SET version = (SELECT version FROM astcatalog) WHERE id = 60",
            rows=("astaccount", 2),
        )
        assert identified(third, "alan") is third.accounts[2]
        assert identified(third, "other") is None
        assert identified(third, "new") is third.accounts[60]

    at_site(database_url, work)


def test_names_that_two_accounts_exchange_are_no_tie(database_url: str) -> None:
    async def work(it: Site) -> None:
        catalog = await it.traced(
            "UPDATE astaccount SET ident = CASE id WHEN 1 THEN 'alan' ELSE 'alice' END,"
            " version = (SELECT version FROM astcatalog) WHERE id IN (1, 2)"
        )
        found = [identified(catalog, name) for name in ("alice", "alan")]
        assert [account and account.id for account in found] == [2, 1]

    at_site(database_url, work)


@pytest.mark.parametrize("noted_before", [0, 1, 3])
def test_a_change_by_hand_is_seen_whole(database_url: str, noted_before: int) -> None:
    """Its rows have no new version; what was changed by the command line before and after counts
    as well."""

    async def work(it: Site) -> None:
        for _ in range(noted_before):
            await it.traced(RENAMED, rows=("astaccount", 1))
        after = await it.by_hand(
            "UPDATE astaccount SET tag = 'hand' WHERE id = 2",
            "UPDATE astclient SET name = 'hand' WHERE id = 2",
            "UPDATE astroute SET weight = 99 WHERE id = 21",
            "UPDATE astreseller SET name = 'hand' WHERE id = 1",
            "DELETE FROM astaccount WHERE id = 3",
        )
        assert after.accounts[2].tag == "hand"
        assert after.clients[2].name == "hand"
        assert {rule.weight for rule in after.routing_plans[1].rules if rule.id == 21} == {99}
        assert after.resellers[1].name == "hand"
        assert 3 not in after.accounts
        assert identified(after, "bob") is None
        again = await it.traced(
            "UPDATE astaccount SET tag = 'x' WHERE id = 1", rows=("astaccount", 1)
        )
        assert again.accounts[1].tag == "x"
        assert again.accounts[2] is after.accounts[2]

    at_site(database_url, work)


def test_a_change_by_hand_and_one_by_the_command_line_at_once_are_both_seen(
    database_url: str,
) -> None:
    async def work(it: Site) -> None:
        await change_catalog(it.database, "UPDATE astaccount SET tag = 'hand' WHERE id = 2")
        after = await it.traced(RENAMED, rows=("astaccount", 1))
        assert (after.accounts[1].tag, after.accounts[2].tag) == ("new", "hand")

    at_site(database_url, work)


def test_the_rules_of_a_plan_are_read_when_the_plans_version_moves(database_url: str) -> None:
    async def work(it: Site) -> None:
        before = await it.now()
        changed = "UPDATE astroute SET weight = 99 WHERE id = 21"
        same_version = await it.traced(changed)
        assert same_version.routing_plans[1].rules is before.routing_plans[1].rules
        after = await it.traced("UPDATE astroutingplan SET version = 2")
        assert {rule.weight for rule in after.routing_plans[1].rules if rule.id == 21} == {99}

    at_site(database_url, work)


def test_name_and_switch_of_a_plan_need_no_new_version(database_url: str) -> None:
    async def work(it: Site) -> None:
        after = await it.traced("UPDATE astroutingplan SET enabled = 0, name = 'other'")
        plan = after.routing_plans[1]
        assert (plan.enabled, plan.name, len(plan)) == (False, "other", 3)

    at_site(database_url, work)


OFF: dict[str, tuple[str, str]] = {
    "account": ("UPDATE astaccount SET enabled = 0 WHERE id = 1", "DISABLED"),
    "originator": ("UPDATE astaccount SET orig_enabled = 0 WHERE id = 1", "DISABLED"),
    "client": ("UPDATE astclient SET enabled = 0 WHERE id = 1", "DISABLED"),
    "reseller": ("UPDATE astreseller SET enabled = 0 WHERE id = 1", "DISABLED"),
    "plan": ("UPDATE astroutingplan SET enabled = 0", "NOROUTE"),
    "rules": ("UPDATE astroute SET enabled = 0", "NOROUTE"),
    "terminators": ("UPDATE astaccount SET term_enabled = 0 WHERE id > 10", "NOROUTE"),
    "the terminators' reseller and client": (
        "UPDATE astclient SET enabled = 0 WHERE id IN (3, 4)", "NOROUTE",
    ),
    "rate table": ("UPDATE astratetable SET enabled = 0 WHERE id = 1", "INVALID"),
    "capacity of the account": ("UPDATE astaccount SET orig_capacity = 0", "CAPACITY"),
    "capacity of the client": ("UPDATE astclient SET orig_capacity = 0", "CAPACITY"),
    "capacity of the reseller": ("UPDATE astreseller SET orig_capacity = 0", "CAPACITY"),
    "capacity of the rules": ("UPDATE astroute SET capacity = 0", "CAPACITY"),
    "source policy": ("UPDATE astaccount SET src_policy = 'reject'", "SRCREJECT"),
    "block": (
        "INSERT INTO astblock (prefix, note, enabled, date_created) VALUES"
        " ('4420', '', 1, '2026-01-01 00:00:00.000')", "BLOCKED",
    ),
}  # fmt: skip


@pytest.mark.parametrize("hand", [False, True], ids=["noted", "by hand"])
@pytest.mark.parametrize(("statement", "status"), OFF.values(), ids=OFF)
def test_what_is_switched_off_is_off_for_the_next_call(
    sqlite_url: str, statement: str, status: str, hand: bool
) -> None:
    """As a running server decides, which has a call up."""

    async def main() -> None:
        async with opened(sqlite_url) as database:
            await store(database)
            async with server(database) as batcher:
                before = await batcher.submit(request(1))
                assert isinstance(before, Decision)
                assert before.allowed
                it = Site(database, SqlCatalog(database, inline_rates=1_000))
                if hand:
                    await change_catalog(database, statement)
                else:
                    await it.traced(
                        statement,
                        "UPDATE astaccount SET version = (SELECT version FROM astcatalog)",
                        "UPDATE astclient SET version = (SELECT version FROM astcatalog)",
                        "UPDATE astroutingplan SET version = version + 1",
                    )
                after = await batcher.submit(request(2))
                assert isinstance(after, Decision)
                assert after.status == status
                await it.source.close()

    asyncio.run(main())


def test_a_route_that_is_added_is_the_next_one_of_a_call_that_is_up(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await store(database, routed(rules=RULES[:1]))
            async with server(database) as batcher:
                await batcher.submit(request(1))
                await change_catalog(
                    database,
                    "INSERT INTO astroute (id, routing_plan_id, prefix, account_id, date_created)"
                    " VALUES (22, 1, '44', 13, '2026-01-01 00:00:00.000')",
                )
                outcome = await batcher.submit(next_route(1))
                assert isinstance(outcome, Rerouted)
                assert outcome.route.terminator.name == "c3"

    asyncio.run(main())


# What makes no sense

NONSENSE = {
    "a tie": "UPDATE astaccount SET ident = 'alice' WHERE id = 2",
    "no kind": "UPDATE astaccount SET ident_by = 'fax' WHERE id = 2",
    "no policy": "UPDATE astaccount SET src_policy = 'maybe' WHERE id = 2",
    "no address": "UPDATE astaccount SET ident_by = 'ip', ident = '10.0.0.300' WHERE id = 2",
    "no tech prefix": "UPDATE astaccount SET tech_prefix = 'x' WHERE id = 2",
    "no protocol": "UPDATE astaccount SET protocol = 'H323' WHERE id = 11",
    "no order": "UPDATE astroutingplan SET route_order = 'random'",
}
HEALED = (
    "UPDATE astaccount SET ident_by = 'name', ident = name, src_policy = 'allow-any',"
    " tech_prefix = '', protocol = 'PJSIP'",
    "UPDATE astroutingplan SET route_order = 'priority'",
)


@pytest.mark.parametrize("hand", [False, True], ids=["noted", "by hand"])
@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_keeps_the_last_catalog_and_a_good_change_heals_it(
    database_url: str, statement: str, hand: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What was changed beside the nonsense is not lost: it is in force as soon as that is gone,
    though the change that heals notes other rows."""
    caplog.set_level(logging.ERROR, "astcredit")
    beside = "UPDATE astclient SET name = 'beside' WHERE id = 2"
    note = "UPDATE {} SET version = (SELECT version FROM astcatalog) WHERE id IN (2, 11)"

    async def work(it: Site) -> None:
        before = await it.now()
        if hand:
            kept = await it.by_hand(statement, beside)
        else:
            kept = await it.traced(
                statement, beside, note.format("astaccount"), note.format("astclient")
            )
        assert kept is before
        assert [getattr(r, "action", "") for r in caplog.records] == ["catalog_refused"]
        healed = await it.traced(*HEALED)
        assert healed.clients[2].name == "beside"
        assert identified(healed, "alan") is not None
        last = await it.traced(RENAMED, rows=("astaccount", 1))
        assert last.clients[2] is healed.clients[2]  # and from then on only what changes is read

    at_site(database_url, work)


def test_a_load_that_fails_is_made_up_for_by_the_next(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went away in the middle: what changed until then is not skipped."""

    async def work(it: Site) -> None:
        async def lost(connection: Any) -> Any:
            monkeypatch.setattr(catalog_module, "load_blocks", catalog_rows.load_blocks)
            raise StorageError("gone")

        monkeypatch.setattr(catalog_module, "load_blocks", lost)
        with pytest.raises(StorageError, match="gone"):
            await it.traced(RENAMED, rows=("astaccount", 1))
        assert (await it.now()).accounts[1].tag == "new"

    at_site(sqlite_url, work)


def test_a_load_leaves_the_garbage_collector_as_it_was(sqlite_url: str) -> None:
    before = gc.get_threshold(), gc.get_freeze_count()

    async def work(it: Site) -> None:
        await it.by_hand(NONSENSE["a tie"])
        await it.by_hand(*HEALED)

    at_site(sqlite_url, work)
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_many_accounts_are_not_looked_through_as_garbage(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would hold up calls. A later load of what changed leaves it so."""
    monkeypatch.setattr(catalog_module, "KEPT_OBJECTS", 1)

    async def work(it: Site) -> None:
        try:
            await it.by_hand(RENAMED)
            frozen = gc.get_freeze_count()
            assert frozen > 0
            await it.traced(RENAMED, rows=("astaccount", 1))
            assert gc.get_freeze_count() <= frozen
        finally:
            gc.unfreeze()

    at_site(sqlite_url, work)


def test_rates_of_the_world_are_there(sqlite_url: str) -> None:
    """What the other tests stand on: the tables are in force for London."""

    async def work(it: Site) -> None:
        tables = (await it.now()).rate_tables
        assert all(table.lookup(LONDON, NOW_MS) for table in tables.values())
        assert len(tables) == 3

    at_site(sqlite_url, work)
