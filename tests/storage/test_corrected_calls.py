"""Calls that were corrected: what audit, views and explanations make of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from astcredit.service.cdr_explanation import explain_cdr
from astcredit.storage.audit_corrections import CORRECTIONS
from astcredit.storage.database import Database
from astcredit.storage.reports import SqlReports
from support.calls import ask
from support.core import call_id, opened
from support.databases import MariaDb
from support.faults import Fault, as_expected, planted
from support.outage import Records, line, prepared

REFUNDED, CHARGED, RIGHT = call_id(1), call_id(2), call_id(3)


async def corrected(database: Database) -> None:
    """Three estimated calls: an hour that was a minute, nothing that was ten seconds, and right."""
    world = await prepared(database)
    await world.talking(1)
    await world.ringing(2, 3)
    await world.over(4, 30_000)
    # The terminator of the first two takes half of what they cost.
    owed = "1800000" if database.is_sqlite else "1.8"
    await world.expired(1, 2, 3)
    async with database.transaction() as connection:
        for column, value in (
            ("cost_prefix", "'44'"),
            ("cost_rate", "30000" if database.is_sqlite else "0.03"),
            ("cost_connect_fee", "0"),
            ("cost_first_increment", "1"),
            ("cost_next_increment", "1"),
            ("cost_grace_seconds", "0"),
            ("cost_minimum_charge", "0"),
        ):
            await connection.exec_driver_sql(
                f"UPDATE astcdr SET {column} = {value} WHERE id IN ('{REFUNDED}', '{CHARGED}')"
            )
        await connection.exec_driver_sql(
            f"UPDATE astcdr SET ourcost = {owed} WHERE id = '{REFUNDED}'"
        )
    records = Records(line(1, 5_000, 65_000), line(2, 2_000, 12_000), line(3, None, 9_000))
    report = await world.reconciliation.with_records(records)
    assert report.changed == 3


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    async def fill(url: str) -> None:
        async with opened(url) as database:
            await corrected(database)

    if request.param == "sqlite":
        folder = request.getfixturevalue("tmp_path_factory").mktemp("corrected")
        found = f"sqlite:///{folder / 'astcredit.db'}"
        asyncio.run(fill(found))
        yield found
        return
    server: MariaDb = request.getfixturevalue("mariadb")
    name = server.create_database()
    asyncio.run(fill(server.url(name)))
    yield server.url(name)
    server.drop_database(name)


def only(url: str, sql: str) -> dict[str, Any]:
    (row,) = ask(url, sql)
    return row


def decimals(row: dict[str, Any], *names: str) -> tuple[Decimal | None, ...]:
    return tuple(None if row[name] is None else Decimal(row[name]) for name in names)


D = Decimal


@pytest.mark.parametrize(
    ("id", "price", "correction", "ourcost", "margin"),
    [
        (REFUNDED, "3.6", "-3.54", "-1.77", "0.03"),
        (CHARGED, "0", "0.01", "0.005", "0.005"),
        (RIGHT, "0", None, None, None),
    ],
)
def test_a_cdr_shows_what_was_charged_and_what_was_corrected(
    url: str, id: str, price: str, correction: str | None, ourcost: str | None, margin: str | None
) -> None:
    row = only(url, f"SELECT * FROM v_cdr WHERE id = '{id}'")
    expected = [None if text is None else D(text) for text in (price, correction, ourcost, margin)]
    assert list(decimals(row, "price", "corrected", "corrected_ourcost", "margin")) == expected
    assert row["corrected_at"] is not None
    assert row["estimated"] == 0


def test_sums_are_of_what_was_paid(url: str) -> None:
    """A minute, ten seconds and thirty: a tenth."""
    for view in ("v_daily_client", "v_daily_destination", "v_quota_usage"):
        name = "spent" if view == "v_quota_usage" else "price"
        assert decimals(only(url, f"SELECT * FROM {view}"), name) == (D("0.1"),), view
    daily = only(url, "SELECT * FROM v_daily_client")
    assert (daily["billsec"], daily["answered"], daily["failed"]) == (100, 2, 2)
    margin = only(url, "SELECT * FROM v_margin")
    assert (margin["calls"], margin["cost_unknown"]) == (3, 1)
    assert decimals(margin, "price", "ourcost") == (D("0.1"), None)


def test_margin_counts_what_a_correction_added_to_the_cost(url: str) -> None:
    """Once every cost is known."""

    async def known() -> None:
        async with opened(url) as database, database.transaction() as connection:
            await connection.exec_driver_sql(
                f"UPDATE astcdr SET ourcost = 0 WHERE id = '{call_id(4)}'"
            )

    asyncio.run(known())
    margin = only(url, "SELECT * FROM v_margin")
    assert decimals(margin, "ourcost", "margin") == (D("0.035"), D("0.065"))


@pytest.mark.parametrize(
    ("id", "said"),
    [
        (
            REFUNDED,
            [
                "corrected: talked 60 s, billed 60 s (first 1 s, then every 1 s begun)",
                "corrected: price 0.06",
                "paid 0.06: 3.60, and 3.54 refunded later",
                "margin 0.03: paid 0.06 less ourcost 0.03",
            ],
        ),
        (
            CHARGED,
            [
                "not answered, nothing charged",
                "corrected: price 0.01",
                "paid 0.01: 0.00, and 0.01 charged later",
                "margin 0.005: paid 0.01 less ourcost 0.005",
            ],
        ),
        (RIGHT, ["not answered, nothing charged"]),
    ],
)
def test_a_correction_explains_itself(url: str, id: str, said: list[str]) -> None:
    async def explained() -> list[str]:
        async with opened(url) as database:
            cdr = await SqlReports(database).cdr(id)
        assert cdr is not None
        return explain_cdr(cdr)

    lines = asyncio.run(explained())
    assert [text for text in said if text not in lines] == []
    assert any(text.startswith("note: Asterisk's record: ") for text in lines)
    assert any(text.startswith("corrected:") for text in lines) is (id != RIGHT)


SUM, LEAST, MOST, OVER, SURE = (check.name for check in CORRECTIONS)
FAULTS = (
    Fault(
        "a correction without a booking",
        [f"UPDATE astcdr SET corrected = 1 WHERE id = '{RIGHT}'"],
        {SUM: {f"call {RIGHT}"}},
    ),
    Fault(
        "a correction changed afterwards",
        [f"UPDATE astcdr SET corrected = corrected / 2 WHERE id = '{CHARGED}'"],
        {SUM: {f"call {CHARGED}"}},
    ),
    Fault(
        "a correction forgotten",
        [f"UPDATE astcdr SET corrected = NULL WHERE id = '{CHARGED}'"],
        {SUM: {f"call {CHARGED}"}},
    ),
    Fault(
        "more refunded than was charged",
        [f"UPDATE astcdr SET corrected = corrected * 2 WHERE id = '{REFUNDED}'"],
        {SUM: {f"call {REFUNDED}"}, LEAST: {f"call {REFUNDED}"}},
    ),
    Fault(
        "more charged than was reserved",
        [f"UPDATE astcdr SET corrected = corrected * 1000 WHERE id = '{CHARGED}'"],
        {SUM: {f"call {CHARGED}"}, MOST: {f"call {CHARGED}"}},
    ),
    Fault(
        "a correction of a call that is not over",
        [f"UPDATE astcdr SET status = 'denied' WHERE id = '{CHARGED}'"],
        {OVER: {"*"}},
    ),
    Fault(
        "a correction of another client's call",
        [f"UPDATE astcdr SET client_id = 2 WHERE id = '{CHARGED}'"],
        {OVER: {"*"}},
    ),
    Fault(
        "corrected, and estimated again",
        [f"UPDATE astcdr SET estimated = 1 WHERE id = '{CHARGED}'"],
        {SURE: {f"call {CHARGED}"}},
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_the_audit_finds_each_fault_of_a_correction(url: str, fault: Fault) -> None:
    async def found() -> Any:
        async with opened(url) as database:
            return await planted(database, fault)

    result = asyncio.run(found())
    mine = {check.name for check in CORRECTIONS}
    about = [finding for finding in result.findings if finding.check in mine]
    assert as_expected(fault, replace(result, findings=about))
