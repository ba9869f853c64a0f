"""`astcredit audit` on quotas: each kind of fault is found, and only where it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from astcredit.service.ledger import Ledger
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.audit_quotas import QUOTAS, ZONES
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from support.core import (
    NOW_MS,
    Clock,
    answered,
    call_id,
    caller_ended,
    leg_ended,
    opened,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
)
from support.faults import Fault, as_expected, planted

SPENT = "what is spent in a period is the price of its calls"
RESERVED = "what is reserved in a period is the sum of its reservations"
LOST = "a period in which something was spent has a row"
NEGATIVE = "a quota is not negative"
WAIVED = "no more is waived than was spent"
COUNTED = "a client with a quota is counted"
KEYED = "a reservation of a client that is counted has a month and a day"
MONTH = "a reservation has the month of its call"
DAY = "a reservation has the day of its call"
BEGUN = "a client's call has the month and the day in which it began"

ENDED, OPEN, EMERGENCY, UNCOUNTED = (call_id(n) for n in (1, 2, 3, 4))
OF_MONTH, OF_DAY = "quota 2027-01 client1", "quota 2027-01-15 client1"
CLIENT = "WHERE client_id = 1 AND period ="

FAULTS = (
    Fault(
        "spending of a month drifted up",
        [f"UPDATE astquota SET spent = spent + 1 {CLIENT} '2027-01'"],
        {SPENT: {OF_MONTH}},
    ),
    Fault(
        "spending of a day drifted down",
        [f"UPDATE astquota SET spent = spent / 2 {CLIENT} '2027-01-15'"],
        {SPENT: {OF_DAY}},
    ),
    Fault(
        "a call moved to another day",
        [f"UPDATE astcdr SET quota_day = '2027-01-14' WHERE id = '{ENDED}'"],
        {SPENT: {OF_DAY}},
    ),
    Fault(
        "a call moved to another month",
        [f"UPDATE astcdr SET quota_month = '2026-12' WHERE id = '{ENDED}'"],
        {SPENT: {OF_MONTH}},
    ),
    Fault(
        "a reservation leaked",
        [f"UPDATE astquota SET reserved = reserved + 1 {CLIENT} '2027-01'"],
        {RESERVED: {OF_MONTH}},
    ),
    Fault(
        "a reservation given back twice",
        [f"UPDATE astquota SET reserved = 0 {CLIENT} '2027-01-15'"],
        {RESERVED: {OF_DAY}},
    ),
    Fault(
        "a period lost while a call of it is up",
        [f"DELETE FROM astquota {CLIENT} '2027-01-15'"],
        {RESERVED: {OF_DAY}, LOST: {OF_DAY}},
    ),
    Fault(
        "a later period lost",
        [
            f"UPDATE astquota SET period = '2026-12', spent = 0, reserved = 0 {CLIENT} '2027-01'",
        ],
        {RESERVED: {OF_MONTH}, LOST: {OF_MONTH}},
    ),
    Fault(
        "a quota below nothing",
        ["UPDATE astclient SET daily_quota = -1 WHERE id = 1"],
        {NEGATIVE: {"client client1"}},
    ),
    Fault(
        "a time zone that there is not",
        ["UPDATE astclient SET timezone = 'Mars/Olympus' WHERE id = 2"],
        {ZONES: {"client client2"}},
    ),
    Fault(
        "a period in which nothing ever was",
        ["INSERT INTO astquota (client_id, period, spent, reserved) VALUES (1, '2026-12', 1, 1)"],
        {SPENT: {"quota 2026-12 client1"}, RESERVED: {"quota 2026-12 client1"}},
    ),
    Fault(
        "more waived than was spent",
        [f"UPDATE astquota SET waived = spent + 1 {CLIENT} '2027-01'"],
        {WAIVED: {OF_MONTH}},
    ),
    Fault(
        "less than nothing waived",
        [f"UPDATE astquota SET waived = -1 {CLIENT} '2027-01-15'"],
        {WAIVED: {OF_DAY}},
    ),
    Fault(
        "a quota set by hand",
        ["UPDATE astclient SET monthly_quota = 1 WHERE id = 2"],
        {COUNTED: {"client client2"}},
    ),
    Fault(
        "a daily quota set by hand",
        ["UPDATE astclient SET daily_quota = 0 WHERE id = 2"],
        {COUNTED: {"client client2"}},
    ),
    Fault(
        "a client counted by hand",
        ["UPDATE astclient SET quota_counted = 1 WHERE id = 2"],
        {KEYED: {f"reservation {UNCOUNTED}"}},
    ),
    Fault(
        "a reservation that lost its day",
        [f"UPDATE astcreditres SET quota_day = NULL WHERE call_id = '{OPEN}'"],
        {KEYED: {f"reservation {OPEN}"}, RESERVED: {OF_DAY}},
    ),
    Fault(
        "a reservation of another month than its call",
        [f"UPDATE astcdr SET quota_month = '2026-12' WHERE id = '{OPEN}'"],
        {MONTH: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation of another day than its call",
        [f"UPDATE astcdr SET quota_day = '2027-01-14' WHERE id = '{OPEN}'"],
        {DAY: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a call without a month",
        [f"UPDATE astcdr SET quota_month = NULL WHERE id = '{UNCOUNTED}'"],
        {BEGUN: {f"call {UNCOUNTED}"}},
    ),
    Fault(
        "a call without a day",
        [f"UPDATE astcdr SET quota_day = NULL WHERE id = '{UNCOUNTED}'"],
        {BEGUN: {f"call {UNCOUNTED}"}},
    ),
)


async def good_books(database: Database) -> Clock:
    """Client 1, with a quota: a call that ended, one that is up, an emergency call, one refused.
    Client 2, without: a call that is up. And a stranger."""
    quota = replace(postpaid(1), monthly_quota=4_000_000, timezone="Europe/Berlin")
    await seed(database, [replace(quota, quota_counted=True), prepaid(2)])
    source = SqlCatalog(database, inline_rates=1_000)
    clock = Clock()
    ledger = Ledger(SqlBooks(database), source, policy(), clock)
    for operation in (
        request(1),
        answered(1),
        leg_ended(1, answered(1).answered_at_ms + 500_000),
        request(2),
        answered(2),
        request(3, dialled="112"),
        request(4, "bob"),
        request(5),
        request(6, "mallory"),
        request(7, "bob"),
        caller_ended(7),
    ):
        await ledger.apply([operation], {}, [])
    await source.close()
    return clock


def test_the_audit_finds_each_fault_of_quotas_and_no_other(database_url: str) -> None:
    async def run() -> None:
        async with opened(database_url) as database:
            await good_books(database)
            assert (await SqlAuditor(database).examine()).in_order
            for fault in FAULTS:
                result = await planted(database, fault)
                assert as_expected(fault, result), (fault.what, result.findings)
            assert (await SqlAuditor(database).examine()).in_order

    asyncio.run(run())


def test_every_check_of_quotas_is_shown_to_bite() -> None:
    assert {check for fault in FAULTS for check in fault.found} == {
        *(c.name for c in QUOTAS),
        ZONES,
    }


def test_a_finding_says_what_was_expected_and_what_found(database_url: str) -> None:
    """Amounts as amounts, whatever the database."""
    more = "UPDATE astquota SET reserved = 0, spent = 0 WHERE client_id = 1 AND period = '2027-01'"

    async def run() -> None:
        async with opened(database_url) as database:
            await good_books(database)
            result = await planted(database, Fault("", [more], {}))
            shown = {f.check: (f.object, f.expected, f.found) for f in result.findings}
            assert shown == {
                SPENT: (OF_MONTH, "0.500000", "0.000000"),
                RESERVED: (OF_MONTH, "3.500000", "0.000000"),
            }

    asyncio.run(run())


def test_counters_that_were_lost_are_found_though_no_call_is_up(database_url: str) -> None:
    """Of the periods before the last one nobody knows whether they were counted."""

    async def run() -> None:
        async with opened(database_url) as database:
            clock = await good_books(database)
            source = SqlCatalog(database, inline_rates=1_000)
            ledger = Ledger(SqlBooks(database), source, policy(), clock)
            await ledger.apply([leg_ended(2, NOW_MS + 1_000_000)], {}, [])
            clock.now_ms += 86_400_000
            now_ms = clock.now_ms
            for operation in (request(8), answered(8, now_ms), leg_ended(8, now_ms + 90_000)):
                await ledger.apply([operation], {}, [])
            await source.close()
            assert (await SqlAuditor(database).examine()).in_order
            async with database.transaction() as connection:
                await connection.exec_driver_sql("DELETE FROM astquota WHERE client_id = 1")
            found = (await SqlAuditor(database).examine()).findings
            assert [(f.check, f.object, f.expected, f.found) for f in found] == [
                (LOST, OF_MONTH, "1.590000", "none"),
                (LOST, "quota 2027-01-16 client1", "0.090000", "none"),
            ]

    asyncio.run(run())
