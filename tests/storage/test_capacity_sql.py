"""The counters of calls: v_capacity, what is listed of it, and counting anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import delete, select

from astcredit.domain.capacity import Direction, Level, Scope
from astcredit.service.capacity_desk import CapacityDesk, Mended
from astcredit.service.capacity_ports import LevelInUse, LevelQuery
from astcredit.service.errors import RefusedError
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import astcapacity, astclient, astcreditres
from support.calls import plain, query, somebody_waits
from support.core import Clock, caller_ended, opened, prepaid, request, seed, server
from support.people import (
    ACME,
    ACME_DESK,
    CARRIER,
    CARRIER_A,
    LONE,
    LONE_DESK,
    NORTH,
    TO_44,
    TO_ANY,
    open_call,
    settle_in,
)

ORIG, TERM = Direction.ORIG, Direction.TERM

ROUTED = {
    "account_id": ACME_DESK,
    "reseller_id": NORTH,
    "route_id": TO_44,
    "term_account_id": CARRIER_A,
    "term_client_id": CARRIER,
    "term_reseller_id": NORTH,
}
"""What a call of acme's to 44 is counted at."""

COUNTED = {
    Level(Scope.RESELLER, NORTH, ORIG): 2,
    Level(Scope.RESELLER, NORTH, TERM): 2,
    Level(Scope.CLIENT, ACME, ORIG): 2,
    Level(Scope.CLIENT, LONE, ORIG): 1,
    Level(Scope.CLIENT, CARRIER, TERM): 2,
    Level(Scope.ACCOUNT, ACME_DESK, ORIG): 2,
    Level(Scope.ACCOUNT, LONE_DESK, ORIG): 1,
    Level(Scope.ACCOUNT, CARRIER_A, TERM): 2,
    Level(Scope.ROUTE, TO_44, TERM): 2,
}
"""Two such calls, and one of lone's by the dialplan's own trunk."""

NAMES = {
    Level(Scope.RESELLER, NORTH, ORIG): "north",
    Level(Scope.RESELLER, NORTH, TERM): "north",
    Level(Scope.CLIENT, ACME, ORIG): "acme",
    Level(Scope.CLIENT, LONE, ORIG): "lone",
    Level(Scope.CLIENT, CARRIER, TERM): "carrier",
    Level(Scope.ACCOUNT, ACME_DESK, ORIG): "acme-desk",
    Level(Scope.ACCOUNT, LONE_DESK, ORIG): "lone-desk",
    Level(Scope.ACCOUNT, CARRIER_A, TERM): "carrier-a",
    Level(Scope.ROUTE, TO_44, TERM): "retail 44 carrier-a",
}


async def open_calls(database: Database) -> None:
    async with database.transaction() as connection:
        for id in ("a", "b"):
            await open_call(connection, id, ACME, **ROUTED)
        await open_call(connection, "c", LONE, account_id=LONE_DESK)


Work = Callable[[CapacityDesk, Database], Awaitable[None]]


def at_desk(url: str, work: Work) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            await settle_in(database)
            await work(CapacityDesk(SqlAdministration(database), "me@here", Clock()), database)

    asyncio.run(run())


async def counters(database: Database) -> dict[Level, int]:
    """Every counter that is not 0, as the tables have it."""
    c, k = astclient.c, astcapacity.c
    async with database.reading() as connection:
        clients = await connection.execute(select(c.id, c.active_calls))
        rows = await connection.execute(select(k.id, k.scope, k.object_id, k.direction, k.calls))
        found = {Level(Scope.CLIENT, id, ORIG): calls for id, calls in clients}
        for key, scope, id, direction, calls in rows:
            level = Level(Scope(scope), id, Direction(direction))
            assert key == level.key
            found[level] = calls
    return {level: calls for level, calls in found.items() if calls}


async def run_sql(database: Database, *statements: str) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


def mended(found: dict[Level, int], calls: dict[Level, int]) -> set[Mended]:
    return {
        Mended(level, NAMES[level], found.get(level, 0), calls.get(level, 0))
        for level in {*found, *calls}
        if found.get(level, 0) != calls.get(level, 0)
    }


def test_missing_counters_are_made_and_count(database_url: str) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        await open_calls(database)
        assert set(await desk.recount()) == mended({}, COUNTED)
        assert await counters(database) == COUNTED
        assert await desk.recount() == []

    at_desk(database_url, work)


def test_wrong_counters_are_set_and_right_ones_are_not_touched(database_url: str) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        await open_calls(database)
        await desk.recount()
        await run_sql(
            database,
            "UPDATE astcapacity SET calls = 9 WHERE id = 'route:1:term'",
            "UPDATE astcapacity SET calls = -1 WHERE id = 'account:1:orig'",
            "UPDATE astclient SET active_calls = 7 WHERE name = 'carrier'",
        )
        assert [(one.name, one.found, one.calls) for one in await desk.recount()] == [
            ("carrier", 7, 0),
            ("acme-desk", -1, 2),
            ("retail 44 carrier-a", 9, 2),
        ]
        assert await counters(database) == COUNTED
        async with database.transaction() as connection:
            await connection.execute(delete(astcreditres).where(astcreditres.c.call_id == "c"))
        assert {one.name for one in await desk.recount()} == {"lone", "lone-desk"}

    at_desk(database_url, work)


def test_a_recount_is_recorded_if_it_mended_something(database_url: str) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        await desk.recount()
        assert await query(database, "SELECT * FROM astaudit") == []
        await open_calls(database)
        await desk.recount()
        await desk.recount()
        (row,) = await query(database, "SELECT * FROM astaudit")
        assert (row["actor"], row["action"], row["object_kind"]) == (
            "me@here",
            "recount",
            "capacity",
        )
        assert row["note"] == f"{len(COUNTED)} counters mended"
        assert json.loads(row["state_before"]) == {level.key: 0 for level in COUNTED}
        assert json.loads(row["state_after"]) == {level.key: n for level, n in COUNTED.items()}

    at_desk(database_url, work)


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_counter_of_what_is_gone_is_mended_too(database_url: str, wrong: int) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        row = f"'route:99:term', 'route', 99, 'term', {wrong}"
        await run_sql(database, f"INSERT INTO astcapacity VALUES ({row})")
        (one,) = await desk.recount()
        assert (one.name, one.found, one.calls) == ("id 99", wrong, 0)

    at_desk(database_url, work)


def test_more_counters_than_fit_into_a_statement_are_mended(database_url: str) -> None:
    many = 2_500

    async def work(desk: CapacityDesk, database: Database) -> None:
        async with database.transaction(seconds=None) as connection:
            for number in range(many):
                await open_call(connection, f"{number:020}", LONE, account_id=1_000 + number)
        assert len(await desk.recount()) == many + 1
        assert len(await counters(database)) == many + 1
        assert await desk.recount() == []
        (row,) = await query(database, "SELECT note FROM astaudit")
        assert row["note"] == f"{many + 1} counters mended"

    at_desk(database_url, work)


@pytest.mark.mariadb
def test_a_call_that_begins_meanwhile_is_counted(mariadb_url: str) -> None:
    """Its transaction has its client and its counter locked and is not committed when the recount
    comes: the recount waits for it, and counts it."""

    async def begin(connection: Any) -> None:
        await connection.exec_driver_sql("SELECT id FROM astclient WHERE id = 1 FOR UPDATE")
        await connection.exec_driver_sql(
            "INSERT INTO astcapacity VALUES ('account:1:orig', 'account', 1, 'orig', 1)"
            " ON DUPLICATE KEY UPDATE calls = calls + 1"
        )
        await connection.exec_driver_sql("UPDATE astclient SET active_calls = 1 WHERE id = 1")
        await open_call(connection, "new", ACME, account_id=ACME_DESK)

    async def work(desk: CapacityDesk, database: Database) -> None:
        async with database.transaction() as connection:
            await begin(connection)
            recount = asyncio.create_task(desk.recount())
            while not await somebody_waits(database):
                assert not recount.done()
        assert await recount == []
        assert await counters(database) == {
            Level(Scope.CLIENT, ACME, ORIG): 1,
            Level(Scope.ACCOUNT, ACME_DESK, ORIG): 1,
        }

    at_desk(mariadb_url, work)


def test_nothing_is_wrong_while_calls_come_and_go(database_url: str) -> None:
    """A real server authorizes and ends calls meanwhile: no recount finds anything to mend."""

    async def run() -> None:
        async with opened(database_url) as database:
            await seed(database, [prepaid(1, 10**9), prepaid(2, 10**9)])
            desk = CapacityDesk(SqlAdministration(database), "me@here", Clock())
            async with server(database, most_operations=8) as batcher:

                async def one_call(number: int) -> None:
                    await batcher.submit(request(number, ("alice", "alan", "bob")[number % 3]))
                    if number % 2:
                        await batcher.submit(caller_ended(number))

                calls = asyncio.gather(*map(one_call, range(120)))
                recounts = 0
                while not calls.done():
                    assert await desk.recount() == []
                    recounts += 1
                await calls
            assert recounts > 0
            found = await counters(database)
            assert {level.key: calls for level, calls in found.items()} == {
                "client:1:orig": 40,
                "client:2:orig": 20,
                "account:1:orig": 20,
                "account:2:orig": 20,
                "account:3:orig": 20,
            }
            assert await desk.recount() == []

    asyncio.run(run())


LIMITS = (
    "UPDATE astreseller SET orig_capacity = 3, term_capacity = 0 WHERE name = 'south'",
    "UPDATE astreseller SET orig_capacity = 3 WHERE name = 'north'",
    "UPDATE astclient SET orig_capacity = 2 WHERE name = 'acme'",
    "UPDATE astclient SET term_capacity = 1 WHERE name = 'carrier'",
    "UPDATE astaccount SET term_capacity = 5 WHERE name IN ('acme-desk', 'carrier-a')",
    "UPDATE astroute SET capacity = 4",
)

LISTED = [
    LevelInUse(Scope.RESELLER, "north", ORIG, 2, 3, 66, NORTH),
    LevelInUse(Scope.RESELLER, "north", TERM, 2, None, None, NORTH),
    LevelInUse(Scope.RESELLER, "south", ORIG, 0, 3, 0, 2),
    LevelInUse(Scope.RESELLER, "south", TERM, 0, 0, 100, 2),
    LevelInUse(Scope.CLIENT, "acme", ORIG, 2, 2, 100, ACME),
    LevelInUse(Scope.CLIENT, "carrier", TERM, 2, 1, 200, CARRIER),
    LevelInUse(Scope.CLIENT, "lone", ORIG, 1, None, None, LONE),
    LevelInUse(Scope.ACCOUNT, "acme-desk", ORIG, 2, None, None, ACME_DESK),
    LevelInUse(Scope.ACCOUNT, "carrier-a", TERM, 2, 5, 40, CARRIER_A),
    LevelInUse(Scope.ACCOUNT, "lone-desk", ORIG, 1, None, None, LONE_DESK),
    LevelInUse(Scope.ROUTE, "retail 44 carrier-a", TERM, 2, 4, 50, TO_44),
    LevelInUse(Scope.ROUTE, "retail any carrier-b", TERM, 0, 4, 0, TO_ANY),
]
"""All levels with a limit or calls up: acme-desk does not terminate, its limit there is none."""


async def _busy(desk: CapacityDesk, database: Database) -> None:
    await open_calls(database)
    await desk.recount()
    await run_sql(database, *LIMITS)


def test_levels_with_a_limit_or_calls_are_listed_the_widest_first(database_url: str) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        assert await desk.levels(LevelQuery()) == []
        await _busy(desk, database)
        assert await desk.levels(LevelQuery()) == LISTED

    at_desk(database_url, work)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (LevelQuery("north"), {"north", "acme", "carrier", "acme-desk", "carrier-a",
                               "retail 44 carrier-a", "retail any carrier-b"}),
        (LevelQuery("south"), {"south"}),
        (LevelQuery(client="acme"), {"acme", "acme-desk"}),
        (LevelQuery(client="carrier"), {"carrier", "carrier-a", "retail 44 carrier-a",
                                        "retail any carrier-b"}),
        (LevelQuery("north", "carrier", 50), {"carrier", "retail 44 carrier-a"}),
        (LevelQuery("south", "carrier"), set()),
        (LevelQuery(least_percent=100), {"south", "acme", "carrier"}),
        (LevelQuery(least_percent=101), {"carrier"}),
        (LevelQuery("north", None, 66), {"north", "acme", "carrier"}),
    ],
)  # fmt: skip
def test_levels_are_narrowed(database_url: str, wanted: LevelQuery, names: set[str]) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        await _busy(desk, database)
        assert {level.name for level in await desk.levels(wanted)} == names

    at_desk(database_url, work)


def test_unknown_names_are_refused_with_the_nearest(sqlite_url: str) -> None:
    async def work(desk: CapacityDesk, _: Database) -> None:
        with pytest.raises(RefusedError, match="no reseller 'nroth'; the nearest is 'north'"):
            await desk.levels(LevelQuery(reseller="nroth"))
        with pytest.raises(RefusedError, match="no client 'acm'; the nearest is 'acme'"):
            await desk.levels(LevelQuery(client="acm"))

    at_desk(sqlite_url, work)


def test_the_view_has_the_columns_that_accountants_were_told(database_url: str) -> None:
    async def work(desk: CapacityDesk, database: Database) -> None:
        await _busy(desk, database)
        rows = await query(
            database, "SELECT * FROM v_capacity WHERE object_id = 1 ORDER BY scope, direction"
        )
        assert [list(row) for row in rows] == [
            ["scope", "name", "direction", "calls", "capacity", "percent", "object_id"]
        ] * len(rows)
        assert [tuple(row.values()) for row in plain(rows)] == [
            ("account", "acme-desk", "orig", 2, None, None, 1),
            ("client", "acme", "orig", 2, 2, 100, 1),
            ("reseller", "north", "orig", 2, 3, 66, 1),
            ("reseller", "north", "term", 2, None, None, 1),
            ("route", "retail 44 carrier-a", "term", 2, 4, 50, 1),
        ]
        balances = await query(database, "SELECT * FROM v_client_balance ORDER BY client")
        assert list(balances[0])[-1] == "reseller"
        assert [row["reseller"] for row in balances] == ["north", "north", None]

    at_desk(database_url, work)
