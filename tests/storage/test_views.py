"""The accountants' views: the same on both kinds of database, right, and quick on large tables."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import update

from astcredit.storage.schema import scripts, split_statements, upgrade
from astcredit.storage.tables import astcdr
from support.calls import BOOKINGS, CALLS, Made, ask, call_id, fill, filled, plain, query
from support.core import opened
from support.databases import MariaDb
from support.project import ROOT
from support.routed_calls import fill_routed, routed

VIEWS = (
    "v_active_calls",
    "v_capacity",
    "v_cdr",
    "v_client_balance",
    "v_daily_client",
    "v_daily_destination",
    "v_ledger",
    "v_margin",
    "v_quota_usage",
    "v_terminator",
)
CLOCK_COLUMN = "seconds_up"
"""The one column that depends on when one looks."""

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def sqlite_filled(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled("sqlite", request) as url:
        yield url


@pytest.fixture(scope="module")
def mariadb_filled(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled("mariadb", request) as url:
        yield url


@pytest.fixture(scope="module")
def sqlite_routed(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed("sqlite", request) as url:
        yield url


@pytest.fixture(scope="module")
def mariadb_routed(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed("mariadb", request) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest) -> str:
    """A database with the calls of support.calls."""
    found: str = request.getfixturevalue(f"{request.param}_filled")
    return found


@pytest.mark.mariadb
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("world", ["filled", "routed"])
def test_view_has_same_columns_and_answers_on_both(
    view: str, world: str, request: pytest.FixtureRequest
) -> None:
    def rows(url: str) -> list[list[tuple[str, Any]]]:
        found = ask(url, f"SELECT * FROM {view}")
        shown = [[pair for pair in row.items() if pair[0] != CLOCK_COLUMN] for row in found]
        return sorted(shown, key=repr)

    expected = rows(request.getfixturevalue(f"mariadb_{world}"))
    assert expected or (world, view) == ("filled", "v_terminator")  # no call there has a route
    assert rows(request.getfixturevalue(f"sqlite_{world}")) == expected


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_views_file_has_just_the_known_views(kind: str) -> None:
    text = "\n".join(scripts(kind)[-1].statements)
    made = {line.split("VIEW ")[1].split(" ")[0] for line in text.splitlines() if "E VIEW" in line}
    assert made == set(VIEWS)


def test_amounts_of_sqlite_views_are_exact_text(sqlite_url: str) -> None:
    """Also where a float would not be: at the last digit that a column of MariaDB holds."""
    amounts = {0: "0.000000", 1: "0.000001", -500_000: "-0.500000", -12_340_000: "-12.340000"}
    amounts[999_999_999_999_999_999] = "999999999999.999999"

    async def shown() -> Rows:
        async with opened(sqlite_url) as database:
            await upgrade(database)
            async with database.transaction() as connection:
                for id, micros in enumerate(amounts, 1):
                    await connection.exec_driver_sql(
                        "INSERT INTO astclient (id, name, kind, currency, balance, date_created)"
                        f" VALUES ({id}, 'c{id}', 'postpaid', 'EUR', {micros}, '2026-01-01')"
                    )
            return await query(database, "SELECT * FROM v_client_balance ORDER BY client_id")

    rows = asyncio.run(shown())
    assert [row["balance"] for row in rows] == list(amounts.values())
    assert {row["available"] for row in rows} == {None}
    assert {row["reserved"] for row in rows} == {"0.000000"}


def _sum(calls: Iterator[Made]) -> tuple[int, int, int, int, int, Decimal]:
    made = list(calls)
    return (
        len(made),
        sum(call.status in ("answered", "completed") for call in made),
        sum(call.status == "failed" for call in made),
        sum(call.status == "denied" for call in made),
        sum(call.billsec for call in made if call.status == "completed"),
        sum((call.price for call in made), Decimal(0)),
    )


SUMS = ("calls", "answered", "failed", "denied", "billsec", "price")


def _grouped(rows: Rows, keys: tuple[str, ...]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {tuple(r[key] for key in keys): tuple(r[name] for name in SUMS) for r in rows}


def _expected(
    key: Callable[[Made], tuple[Any, ...]], calls: list[Made]
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {k: _sum(call for call in calls if key(call) == k) for k in map(key, calls)}


def test_daily_client_sums_what_was_made(url: str) -> None:
    rows = ask(url, "SELECT * FROM v_daily_client")
    calls = [call for call in CALLS if call.client]
    assert _grouped(rows, ("day", "client", "currency")) == _expected(
        lambda call: (call.day, call.client, call.currency), calls
    )
    minutes = {row["minutes"] for row in rows if row["day"] == "2026-11-01"}
    assert minutes == {Decimal("0.72")}  # 43 seconds


def test_daily_destination_sums_what_was_made(url: str) -> None:
    """With the call of nobody, and dollars apart from euros."""

    def key(call: Made) -> tuple[Any, ...]:
        return call.day, call.tariff.destination if call.tariff else "", call.currency

    rows = ask(url, "SELECT * FROM v_daily_destination")
    assert _grouped(rows, ("day", "destination", "currency")) == _expected(key, list(CALLS))


def test_client_balance_is_bookings_less_charges(url: str) -> None:
    for row in ask(url, "SELECT * FROM v_client_balance"):
        booked = sum(Decimal(amount) for _, who, amount, *_ in BOOKINGS if who == row["client"])
        spent = sum(call.price for call in CALLS if call.client == row["client"])
        assert row["balance"] == booked - spent
        open_calls = [
            c for c in CALLS if c.client == row["client"] and c.end in ("open", "answered")
        ]
        assert row["active_calls"] == len(open_calls)
        limit = row["credit_limit"]
        expected = None if limit is None else row["balance"] + limit - row["reserved"]
        assert row["available"] == expected


def test_active_calls_are_those_that_are_up(url: str) -> None:
    rows = ask(url, "SELECT * FROM v_active_calls ORDER BY id")
    up = [call for call in CALLS if call.status in ("open", "answered")]
    assert [(r["id"], r["account"], r["number"], r["state"]) for r in rows] == [
        (call_id(call), call.account, call.number, call.status) for call in up
    ]
    reserved = [call.tariff.price(3600) for call in up if call.tariff]
    assert [row["reserved"] for row in rows] == reserved
    assert [row["seconds_allowed"] for row in rows] == [3600, 3600]


def test_active_call_counts_whole_seconds_since_answer(database_url: str) -> None:
    """None before the answer; never below 0 when Asterisk's clock is ahead of the database's."""
    now = {
        "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '{} seconds')",
        "mysql": "UTC_TIMESTAMP(3) + INTERVAL {} SECOND",
    }[database_url.split(":")[0]]

    async def look(seconds: int) -> set[Any]:
        async with opened(database_url) as database:
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    f"UPDATE astcdr SET answered_at = {now.format(seconds)}"
                    " WHERE status = 'answered'",
                    execution_options={"no_parameters": True},
                )
            rows = await query(database, "SELECT state, seconds_up FROM v_active_calls")
            return {(row["state"], row["seconds_up"]) for row in rows}

    async def both() -> tuple[set[Any], set[Any]]:
        async with opened(database_url) as database:
            await fill(database)
        return await look(-100), await look(+100)

    ago, ahead = asyncio.run(both())
    assert ahead == {("open", None), ("answered", 0)}
    (seconds,) = [seconds for state, seconds in ago if state == "answered"]
    assert 100 <= seconds < 400  # however slow the machine is


def test_margin_is_unknown_until_every_cost_is_known(database_url: str) -> None:
    """Not known is NULL in a sum too; with all costs known the margin is price less cost."""
    select = (
        "SELECT calls, cost_unknown, price, ourcost, margin FROM v_margin"
        " WHERE client = 'bert' AND day = '2026-11-03' AND destination = 'Germany'"
    )

    async def look() -> list[Rows]:
        async with opened(database_url) as database:
            await fill(database)
            second = update(astcdr).where(astcdr.c.id == call_id(CALLS[10]))
            first = update(astcdr).where(astcdr.c.id == call_id(CALLS[12]))
            seen = [plain(await query(database, select))]
            for change in (
                second.values(destination="Germany", ourcost=100_000),
                first.values(ourcost=1_900_000),
            ):
                async with database.transaction() as connection:
                    await connection.execute(change)
                seen.append(plain(await query(database, select)))
            return seen

    seen = asyncio.run(look())
    price, both = Decimal("1.82"), Decimal("2.0669")
    assert [list(rows[0].values()) for rows in seen] == [
        [1, 1, price, None, None],
        [2, 1, both, None, None],
        [2, 0, both, Decimal(2), Decimal("0.0669")],
    ]


def test_quota_usage_is_spent_and_reserved_by_month_of_begin(url: str) -> None:
    rows = ask(url, "SELECT client, month, quota, spent, reserved FROM v_quota_usage")
    assert {row["quota"] for row in rows} == {None}
    shown = {(r["client"], r["month"]): (r["spent"], r["reserved"]) for r in rows}
    expected = {}
    for key in {(call.client, call.month) for call in CALLS if call.client}:
        calls = [call for call in CALLS if (call.client, call.month) == key]
        held = [c.tariff.price(3600) for c in calls if c.tariff and c.end in ("open", "answered")]
        expected[key] = (sum(call.price for call in calls), sum(held))
    assert shown == expected


def test_cdr_shows_names_and_what_is_not_known(url: str) -> None:
    rows = {row["id"]: row for row in ask(url, "SELECT * FROM v_cdr")}
    assert len(rows) == len(CALLS)
    for call in CALLS:
        row = rows[call_id(call)]
        assert (row["client"], row["status"], row["denied"]) == (
            call.client,
            call.status,
            call.denied,
        )
        over = call.status in ("completed", "failed")
        assert row["price"] == (call.price if over else None)
        assert (row["ourcost"], row["margin"]) == (None, None)


def test_plus_zero_compares_amounts_as_numbers(url: str) -> None:
    """What docs/ACCOUNTING.md tells to write: the same on both, where text would not be."""
    rows = ask(
        url, "SELECT client FROM v_client_balance WHERE balance + 0 < 2 ORDER BY balance + 0"
    )
    assert [row["client"] for row in rows] == ["bert", "cara"]
    total = ask(url, "SELECT ROUND(SUM(price), 6) AS total FROM v_cdr WHERE currency = 'EUR'")
    assert total[0]["total"] == sum(c.price for c in CALLS if c.currency == "EUR")


PLANS = (
    ("v_cdr", "client = 'anna'", "ix_astcdr_client"),
    ("v_cdr", "date_created >= '2026-11-30' AND date_created < '2026-12-01'", "ix_astcdr_date"),
    (
        "v_cdr",
        "client = 'anna' AND date_created >= '2026-11-30' AND date_created < '2026-12-01'",
        "ix_astcdr_client",
    ),
    ("v_ledger", "client = 'anna'", "uq_astledger_seq"),
    ("v_daily_client", "client = 'anna'", "ix_astcdr_client"),
    ("v_daily_client", "client = 'anna' AND day >= '2026-11-30'", "ix_astcdr_client"),
    ("v_margin", "client = 'anna'", "ix_astcdr_client"),
    ("v_quota_usage", "client = 'anna'", "ix_astcdr_client"),
    ("v_terminator", "terminator = 't7'", "ix_astcdr_terminator"),
    (
        "v_cdr",
        "terminator = 't7' AND date_created >= '2025-03-01' AND date_created < '2025-04-01'",
        "ix_astcdr_terminator",
    ),
)


async def _enlarge(url: str) -> None:
    """Ten thousand calls of a hundred clients to a hundred terminators: what a plan is worth shows
    on a large table."""
    async with opened(url) as database, database.transaction(seconds=None) as connection:
        for id in range(100, 200):
            await connection.exec_driver_sql(
                "INSERT INTO astclient (id, name, kind, currency, date_created)"
                f" VALUES ({id}, 'c{id}', 'prepaid', 'EUR', '2026-01-01')"
            )
            await connection.exec_driver_sql(
                "INSERT INTO astaccount (id, client_id, name, ident_by, ident, notes, date_created)"
                f" VALUES ({id}, 1, 't{id - 100}', 'name', 't{id}', '', '2026-01-01')"
            )
        calls = ", ".join(
            f"('X{n:019}', 'n', 'u{n}', 'u{n}', {100 + n % 100}, 'a', '1', '2', '2', 'completed',"
            f" '2025-{1 + n % 12:02}-{1 + n % 28:02} 10:00:00.000', 0, 0, {100 + n % 97})"
            for n in range(10_000)
        )
        await connection.exec_driver_sql(
            "INSERT INTO astcdr (id, node, uniqueid, linkedid, client_id, accountcode, callerid,"
            " dialednum, callednum, status, date_created, price, billsec, term_account_id) VALUES"
            f" {calls}",
            execution_options={"no_parameters": True},
        )
        ledger = ", ".join(
            f"({100 + n % 100}, {n}, 'charge', 0, 0, 'r{n}', 't', '2025-01-01')"
            for n in range(10_000)
        )
        await connection.exec_driver_sql(
            "INSERT INTO astledger (client_id, seq, kind, amount, balance_after, reference, actor,"
            f" date_created) VALUES {ledger}",
            execution_options={"no_parameters": True},
        )
        tables = ("astaccount", "astcdr", "astclient", "astledger")
        for table in tables:
            words = "ANALYZE" if database.is_sqlite else "ANALYZE TABLE"
            await connection.exec_driver_sql(f"{words} {table}")


def test_filters_on_client_terminator_and_date_reach_the_indexes(database_url: str) -> None:
    async def plans() -> list[str]:
        async with opened(database_url) as database:
            await fill(database)
            await _enlarge(database_url)
            explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            found = []
            for view, condition, _ in PLANS:
                rows = await query(database, f"{explain} SELECT * FROM {view} WHERE {condition}")
                found.append("\n".join(str(list(row.values())) for row in rows))
            return found

    for (view, condition, index), plan in zip(PLANS, asyncio.run(plans()), strict=True):
        assert index in plan, f"{view} WHERE {condition}:\n{plan}"


def test_upgrade_makes_views_anew_and_only_them(database_url: str) -> None:
    """A view that somebody has changed is the program's again; the calls are untouched."""

    async def run() -> tuple[Rows, Rows]:
        async with opened(database_url) as database:
            await fill(database)
            before = await query(database, "SELECT * FROM v_cdr")
            async with database.transaction() as connection:
                await connection.exec_driver_sql("DROP VIEW v_cdr")
                await connection.exec_driver_sql("CREATE VIEW v_cdr AS SELECT 1 AS one")
            assert await upgrade(database) == []
            return before, await query(database, "SELECT * FROM v_cdr")

    before, after = asyncio.run(run())
    assert before == after


READABLE = {*VIEWS, "astclient", "astcreditres", "astcdr", "astledger"}
GRANTS = ROOT / "sql" / "mariadb" / "grants-accountant.sql"


@pytest.fixture
def accountant(mariadb: MariaDb, mariadb_url: str) -> Iterator[pymysql.Connection]:
    """A connection of a user with the role that grants-accountant.sql makes."""

    async def make() -> None:
        async with opened(mariadb_url) as database:
            await fill_routed(database)

    asyncio.run(make())
    name = mariadb_url.rpartition("/")[2]
    for _ in range(2):  # an administrator may run it again
        for statement in split_statements(GRANTS.read_text(encoding="utf-8")):
            mariadb.execute(statement, name)
    mariadb.execute("CREATE USER 'clerk'@'%' IDENTIFIED BY 'clerk'")
    mariadb.execute("GRANT astcredit_accountant TO 'clerk'@'%'")
    mariadb.execute("SET DEFAULT ROLE astcredit_accountant FOR 'clerk'@'%'")
    connection = pymysql.connect(
        host="127.0.0.1", port=mariadb.port, user="clerk", password="clerk", database=name
    )
    yield connection
    connection.close()
    mariadb.execute("DROP USER 'clerk'@'%'")
    mariadb.execute("DROP ROLE astcredit_accountant")


def test_accountant_role_reads_and_changes_nothing(
    accountant: pymysql.Connection, mariadb_url: str
) -> None:
    cursor = accountant.cursor()
    cursor.execute("SHOW TABLES")
    assert {row[0] for row in cursor.fetchall()} == READABLE
    for table in sorted(READABLE):
        assert cursor.execute(f"SELECT * FROM {table} LIMIT 1") == 1
    for statement in (
        "UPDATE astclient SET balance = 1000",
        "DELETE FROM astledger",
        "INSERT INTO astledger SELECT * FROM astledger",
        "DELETE FROM v_cdr",
        "UPDATE v_client_balance SET balance = 1000",
        "SELECT * FROM astaccount",
        "SELECT * FROM astroute",
        "SELECT * FROM astreseller",
        "SELECT * FROM astcatalog",
        "SELECT * FROM astaudit",
        "DROP VIEW v_cdr",
        "CREATE TABLE mine (id INT)",
    ):
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute(statement)


def test_accountant_keeps_rights_over_an_upgrade(
    accountant: pymysql.Connection, mariadb_url: str
) -> None:
    async def again() -> None:
        async with opened(mariadb_url) as database:
            await upgrade(database)

    asyncio.run(again())
    assert accountant.cursor().execute("SELECT client FROM v_cdr LIMIT 1") == 1


def test_sqlite_file_opened_for_reading_cannot_be_changed(sqlite_filled: str) -> None:
    """As docs/ACCOUNTING.md tells: file:…?mode=ro."""
    path = Path(sqlite_filled.removeprefix("sqlite:///"))
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        (calls,) = reader.execute("SELECT COUNT(*) FROM v_cdr").fetchone()
        assert calls == len(CALLS)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM astledger")
    finally:
        reader.close()
