"""v_quota_usage: what accountants see of quotas, against what the program says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from astcredit.domain.quotas import Quota, Usage
from astcredit.service.ledger import Ledger
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.tables import astquota
from support.calls import plain, query
from support.core import (
    NOW_MS,
    Clock,
    answered,
    leg_ended,
    opened,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
)

SECOND = 1_000
DAY_MS = 86_400_000

OLD_COLUMNS = ["client", "month", "currency", "quota", "spent", "reserved", "client_id"]
COLUMNS = [
    *OLD_COLUMNS,
    "period", "kind", "remaining", "percent", "waived", "first_over_at", "last_over_at",
    "blocked_at",
]  # fmt: skip


async def usage_of(database: Database, where: str = "1 = 1") -> list[dict[str, Any]]:
    statement = f"SELECT * FROM v_quota_usage WHERE {where} ORDER BY client, period"
    return plain(await query(database, statement))


async def played(database: Database) -> None:
    """Client 1 has quotas, bob's has none; two days of calls."""
    client = replace(postpaid(1), monthly_quota=4_000_000, daily_quota=20 * SECOND)
    await seed(database, [replace(client, quota_counted=True), prepaid(2, 10**9)])
    source, clock = SqlCatalog(database, inline_rates=1_000), Clock()
    ledger = Ledger(SqlBooks(database), source, policy(), clock)
    for day in (0, 1):
        clock.now_ms = now_ms = NOW_MS + day * DAY_MS
        for operation in (
            request(10 * day + 1),
            answered(10 * day + 1, now_ms),
            leg_ended(10 * day + 1, now_ms + 17_000),
            request(10 * day + 2),
            request(10 * day + 3),
            request(10 * day + 4, "bob"),
            answered(10 * day + 4, now_ms),
            leg_ended(10 * day + 4, now_ms + 5_000),
            request(10 * day + 5, "bob"),
        ):
            await ledger.apply([operation], {}, [])
    await source.close()


def test_a_row_for_each_client_and_period(database_url: str) -> None:
    async def look() -> list[dict[str, Any]]:
        async with opened(database_url) as database:
            await played(database)
            return await usage_of(database)

    rows = asyncio.run(look())
    shown = [
        (r["client"], r["period"], r["kind"], r["month"], r["quota"], r["spent"], r["reserved"],
         r["remaining"], r["percent"])
        for r in rows
    ]  # fmt: skip
    d = Decimal
    assert shown == [
        ("client1", "2027-01", "monthly", "2027-01", d(4), d("0.034"), d("0.006"), d("3.96"), 1),
        ("client1", "2027-01-15", "daily", None, d("0.02"), d("0.017"), d("0.003"), 0, 100),
        ("client1", "2027-01-16", "daily", None, d("0.02"), d("0.017"), d("0.003"), 0, 100),
        ("client2", "2027-01", "monthly", "2027-01", None, d("0.01"), d("7.2"), None, None),
    ]
    assert all(list(row) == COLUMNS for row in rows)
    month, first, second, without = rows
    assert {row["currency"] for row in rows} == {"EUR"}
    assert first["first_over_at"] == first["last_over_at"] == "2027-01-15 08:00:00.000"
    assert second["first_over_at"] == "2027-01-16 08:00:00.000"
    assert (first["blocked_at"], second["blocked_at"]) == (None, None)
    assert (month["first_over_at"], month["blocked_at"]) == (None, None)
    assert (without["waived"], without["first_over_at"]) == (0, None)


def test_what_asks_for_a_month_counts_no_call_twice(database_url: str) -> None:
    """As queries did when there were months only."""

    async def look() -> Any:
        async with opened(database_url) as database:
            await played(database)
            select_ = "SELECT ROUND(SUM(spent), 6) AS s FROM v_quota_usage WHERE month = '2027-01'"
            return plain(await query(database, select_))

    assert asyncio.run(look()) == [{"s": Decimal("0.044")}]


def test_the_month_before_a_quota_is_shown_from_the_calls(database_url: str) -> None:
    async def look() -> list[dict[str, Any]]:
        async with opened(database_url) as database:
            await played(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    "UPDATE astcdr SET quota_month = '2026-12' WHERE client_id = 1"
                )
            return await usage_of(database, "client = 'client1' AND kind = 'monthly'")

    december, january = asyncio.run(look())
    assert (december["period"], december["quota"]) == ("2026-12", None)
    assert (december["spent"], december["reserved"]) == (Decimal("0.034"), Decimal("0.006"))
    assert (january["period"], january["quota"]) == ("2027-01", Decimal(4))


@pytest.mark.parametrize("url", ["sqlite", "mariadb"])
def test_remaining_and_percent_are_those_of_the_program(
    url: str, request: pytest.FixtureRequest
) -> None:
    """Also where a division that rounds would say otherwise."""
    database_url: str = request.getfixturevalue(f"{url}_url")
    amounts = st.integers(0, 10**12) | st.integers(0, 300)
    usages = st.builds(
        lambda quota, counted, waived, reserved: Usage(
            quota, counted + waived, reserved, min(waived, counted + waived)
        ),
        st.none() | amounts,
        amounts,
        amounts,
        amounts,
    )
    near = Usage(10**12, 10**12 - 1)  # 99.9999999999 per cent

    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    @given(st.lists(usages, min_size=1, max_size=60))
    def check(found: list[Usage]) -> None:
        asyncio.run(compare([*found, near, Usage(0), Usage(3, 1), Usage(3, 2, 1, 0)]))

    async def compare(found: list[Usage]) -> None:
        async with opened(database_url) as database:
            async with database.transaction() as connection:
                await connection.exec_driver_sql("DELETE FROM astquota")
                rows = [
                    {
                        "client_id": 1,
                        "period": f"2{n:03}-01",
                        "quota": usage.quota,
                        "spent": usage.spent,
                        "reserved": usage.reserved,
                        "waived": usage.waived,
                        "told": 0,
                    }
                    for n, usage in enumerate(found)
                ]
                await connection.execute(insert(astquota), rows)
                written = await connection.execute(select(astquota.c.period))
                assert len(written.all()) == len(found)
            shown = {r["period"]: r for r in await usage_of(database)}
        for n, usage in enumerate(found):
            row = shown[f"2{n:03}-01"]
            if usage.quota is None:
                assert (row["remaining"], row["percent"]) == (None, None)
            else:
                quota = Quota("", usage.quota)
                assert row["remaining"] == Decimal(usage.left(quota)) / 10**6
                assert row["percent"] == usage.percent_used(quota)

    async def prepare() -> None:
        async with opened(database_url) as database:
            await seed(database)

    asyncio.run(prepare())
    check()
