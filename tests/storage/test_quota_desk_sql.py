"""Quotas as administrators set, look at and reset them, while calls come and go."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import select, update

from astcredit.domain.books import LedgerKind
from astcredit.domain.decisions import Decision
from astcredit.domain.money import MICROS
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError
from astcredit.service.ports import Changes
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.sessions import CoreSession
from astcredit.storage.tables import astcdr, astcreditres
from support.calls import query
from support.core import (
    NOW_MS,
    answered,
    call_id,
    caller_ended,
    leg_ended,
    prepaid,
    request,
    server,
)
from support.quota_office import SECOND, Office, at_office

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MONTH, DAY = "2027-01", "2027-01-15"
LONG_TALK = 3_600


def test_a_first_quota_counts_what_was_spent_before_and_calls_that_are_up(
    database_url: str,
) -> None:
    async def work(at: Office) -> None:
        at.clock.now_ms = NOW_MS - 3 * DAY_MS
        await at.spend(1, 100)
        at.clock.now_ms = NOW_MS - 9 * HOUR_MS  # yesterday
        await at.spend(2, 10)
        await at.play(request(3), answered(3, at.clock.now_ms))
        at.clock.now_ms = NOW_MS
        await at.spend(4, 1)
        await at.play(request(20, "bob"), answered(20), leg_ended(20, NOW_MS + 9_000))
        await at.play(request(5), request(6, dialled="112"), request(7, "bob"))
        await at.set(monthly_quota=8_000, daily_quota=5_000)
        assert await at.shown() == [
            ("client1", MONTH, 8_000, 111, 7_200, 91),
            ("client1", DAY, 5_000, 1, 3_600, 72),
        ]
        assert await at.play(request(8)) == ["689"]
        await at.play(leg_ended(3, at.clock.now_ms), caller_ended(5), caller_ended(8))
        rows = await at.rows()
        assert {p: (r["spent"], r["reserved"]) for p, r in rows.items()} == {
            MONTH: (3_711 * SECOND, 0),
            "2027-01-14": (3_610 * SECOND, 0),  # the call that was up belongs to it
            DAY: (1 * SECOND, 0),
        }
        assert await at.play(request(9)) == ["3600"]

    at_office(database_url, work)


def test_a_quota_that_is_set_below_what_was_spent_blocks_from_then_on(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.spend(1, 10)
        at.clock.now_ms += 1
        await at.set(daily_quota=9, monthly_quota=11)
        rows = await at.rows()
        assert (rows[DAY]["blocked_at"], rows[MONTH]["blocked_at"]) == (NOW_MS + 1, None)
        await at.set(daily_quota=10)  # still nothing is left
        assert (await at.rows())[DAY]["blocked_at"] == NOW_MS + 1
        await at.set(daily_quota=11)
        assert (await at.rows())[DAY]["blocked_at"] is None
        await at.set(daily_quota=10)
        assert (await at.rows())[DAY]["blocked_at"] == NOW_MS + 1
        await at.quotas.reset("client1", "agreed")
        assert (await at.rows())[DAY]["blocked_at"] is None

    at_office(database_url, work)


@pytest.mark.parametrize("change", ["raise", "remove"])
@pytest.mark.parametrize("kind", ["monthly", "daily"])
def test_a_raise_or_removal_unblocks_at_once(database_url: str, kind: str, change: str) -> None:
    name, period = f"{kind}_quota", MONTH if kind == "monthly" else DAY
    other = {"monthly": "daily_quota", "daily": "monthly_quota"}[kind]

    async def work(at: Office) -> None:
        await at.set(**{name: 10, other: 10_000})
        await at.spend(1, 10)
        assert await at.play(request(2)) == ["QUOTA"]
        assert (await at.rows())[period]["blocked_at"] == NOW_MS
        await at.set(**{name: 10})  # as it was: nothing changes
        await at.set(**{name: 9})
        assert (await at.rows())[period]["blocked_at"] == NOW_MS
        await at.set(**{name: 30 if change == "raise" else None})
        row = (await at.rows())[period]
        assert row["blocked_at"] is None
        assert row["quota"] == (30 * SECOND if change == "raise" else None)
        assert await at.play(request(3)) == ["20" if change == "raise" else "3600"]
        assert len(await at.told()) == 2

    at_office(database_url, work)


def test_the_other_quota_stays_blocked(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(monthly_quota=10, daily_quota=10)
        await at.spend(1, 10)
        await at.play(request(2))
        await at.set(daily_quota=20)
        assert (await at.rows())[MONTH]["blocked_at"] == NOW_MS
        assert await at.play(request(3)) == ["QUOTA"]

    at_office(database_url, work)


def test_a_quota_taken_away_and_set_again_knows_all_that_was_spent(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(daily_quota=100)
        await at.spend(1, 90)
        await at.play(request(2))
        await at.set(daily_quota=None)
        await at.spend(3, 200)
        await at.play(request(4), answered(4), caller_ended(2))
        assert await at.shown() == []
        await at.set(monthly_quota=5_000)
        assert await at.shown() == [("client1", MONTH, 5_000, 290, 3_600, 77)]
        await at.play(leg_ended(4, NOW_MS + 10_000))
        assert await at.play(request(5)) == ["3600"]

    at_office(database_url, work)


def test_a_lowered_quota_leaves_calls_alone_and_refuses_new_ones(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(daily_quota=4_000)
        await at.play(request(1), answered(1))
        await at.set(daily_quota=0)
        assert await at.play(request(2)) == ["QUOTA"]
        await at.play(leg_ended(1, NOW_MS + LONG_TALK * 1000))
        assert await at.shown() == [("client1", DAY, 0, LONG_TALK, 0, 100)]

    at_office(database_url, work)


def test_a_reset_waives_what_was_spent_and_is_on_record(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(monthly_quota=100, daily_quota=99)
        await at.spend(1, 60)
        await at.play(request(2), answered(2))
        assert await at.play(request(3)) == ["QUOTA"]
        waived = await at.quotas.reset("client1", "fair in Hannover", ["daily"])
        assert [(each.quota.quota.period, each.amount) for each in waived] == [(DAY, 60 * SECOND)]
        assert await at.play(request(4), request(5)) == ["1", "QUOTA"]  # the month's stands
        await at.quotas.reset("client1", "fair in Hannover", ["monthly"])
        assert await at.play(request(6)) == ["59"]  # 40 are reserved
        await at.play(leg_ended(2, NOW_MS + 39_000), caller_ended(4), caller_ended(6))
        rows = await at.rows()
        assert [(r["spent"], r["waived"]) for r in rows.values()] == [(99_000, 60_000)] * 2
        assert await at.shown() == [
            ("client1", MONTH, 100, 39, 0, 39),
            ("client1", DAY, 99, 39, 0, 39),
        ]
        # Nobody is told twice of a threshold, whatever was reset.
        await at.spend(7, 60)
        told = {f"quota:1:{DAY}:80", f"quota:1:{DAY}:100", f"quota:1:{MONTH}:80"}
        assert set(await at.told()) == told
        await at.quotas.reset("client1", "fair in Hannover, second week")
        await at.spend(8, 99)
        assert sorted(await at.told()) == sorted(told)
        resets = await query(at.database, "SELECT * FROM astaudit WHERE action = 'reset'")
        first, second, _ = resets
        assert (first["object_kind"], first["object_name"]) == ("client", "client1")
        assert (first["actor"], first["note"]) == ("me@here", "fair in Hannover")
        assert json.loads(first["state_before"]) == {
            f"{DAY} counted": "0.060000",
            f"{DAY} waived": "0.000000",
        }
        assert json.loads(first["state_after"]) == {
            f"{DAY} counted": "0.000000",
            f"{DAY} waived": "0.060000",
        }
        assert set(json.loads(second["state_after"])) == {f"{MONTH} counted", f"{MONTH} waived"}

    at_office(database_url, work)


@pytest.mark.parametrize(
    ("name", "note", "kinds", "said"),
    [
        ("client1", "", ["daily"], "note ''"),
        ("client1", " ", ["daily"], "note ' '"),
        ("client1", "x" * 201, ["daily"], "1 to 200 printable characters"),
        ("client1", "a\nb", ["daily"], "printable"),
        ("client1", "why", ["monthly"], "client 'client1' has no monthly quota"),
        ("client2", "why", ["monthly", "daily"], "client 'client2' has no monthly or daily quota"),
        ("client3", "why", ["daily"], "there is no client 'client3'; the nearest is"),
    ],
)
def test_a_reset_that_cannot_be_leaves_nothing(
    sqlite_url: str, name: str, note: str, kinds: list[str], said: str
) -> None:
    async def work(at: Office) -> None:
        await at.set(daily_quota=100)
        await at.spend(1, 60)
        with pytest.raises(RefusedError) as caught:
            await at.quotas.reset(name, note, kinds)
        assert said in str(caught.value)
        assert await at.shown() == [("client1", DAY, 100, 60, 0, 60)]
        assert await query(at.database, "SELECT * FROM astaudit WHERE action = 'reset'") == []

    at_office(sqlite_url, work)


def test_the_morning_list(database_url: str) -> None:
    """Who spent too much or has nothing left, also yesterday; not who is below, or was refused for
    what was reserved."""

    async def work(at: Office) -> None:
        await at.set(daily_quota=50, monthly_quota=10_000)
        await at.set("client2", daily_quota=60, monthly_quota=0)
        await at.spend(1, 50)
        at.clock.now_ms = NOW_MS + DAY_MS
        assert await at.play(request(2, "bob")) == ["QUOTA"]
        await at.set("client2", monthly_quota=None)
        await at.play(request(3, "bob"), request(4, "bob"))  # all is reserved: one is refused
        await at.play(caller_ended(3))
        assert await at.shown(None, 100) == [("client1", DAY, 50, 50, 0, 100)]
        await at.set("client2", daily_quota=0)
        assert await at.play(request(5, "bob")) == ["QUOTA"]
        assert await at.shown(None, 101) == [
            ("client1", DAY, 50, 50, 0, 100),  # it had nothing left
            ("client2", "2027-01-16", 0, 0, 0, 100),
        ]
        assert await at.shown("client1", 0) == [
            ("client1", MONTH, 10_000, 50, 0, 0),
            ("client1", "2027-01-16", 50, 0, 0, 0),
            ("client1", DAY, 50, 50, 0, 100),
        ]
        assert await at.shown("client1") == [
            ("client1", MONTH, 10_000, 50, 0, 0),
            ("client1", "2027-01-16", 50, 0, 0, 0),
        ]

    at_office(database_url, work)


def test_past_periods_stay_as_they_were(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(daily_quota=50)
        await at.set("client2", daily_quota=60)
        await at.spend(1, 50)
        at.clock.now_ms = NOW_MS + 30 * DAY_MS
        await at.set(daily_quota=1_000, monthly_quota=2_000)
        await at.spend(2, 20)
        assert await at.shown(None, None, DAY) == [
            ("client1", DAY, 50, 50, 0, 100),
            ("client2", DAY, 60, 0, 0, 0),
        ]
        assert await at.shown(None, None, "2027-02-14") == [
            ("client1", "2027-02-14", 1_000, 20, 0, 2),
            ("client2", "2027-02-14", 60, 0, 0, 0),
        ]
        assert await at.shown(None, None, "2027-02") == [("client1", "2027-02", 2_000, 20, 0, 1)]
        assert await at.shown(None, 50, DAY) == [("client1", DAY, 50, 50, 0, 100)]
        assert await at.shown("client2", None, DAY) == [("client2", DAY, 60, 0, 0, 0)]
        assert await at.shown(None, None, MONTH) == []  # there was no quota for the month
        assert await at.shown(None, None, "1999-12") == []
        with pytest.raises(RefusedError, match="period '2027-2': expected a month or a day"):
            await at.shown(None, None, "2027-2")
        with pytest.raises(RefusedError, match="there is no client 'client9'"):
            await at.shown("client9")

    at_office(database_url, work)


def test_the_current_period_is_that_of_each_client(database_url: str) -> None:
    async def work(at: Office) -> None:
        at.clock.now_ms = NOW_MS + 4 * HOUR_MS  # noon in UTC
        await at.set(daily_quota=50, timezone="Pacific/Auckland")
        await at.set("client2", daily_quota=50, timezone="America/New_York")
        assert [row[:2] for row in await at.shown()] == [
            ("client1", "2027-01-16"),
            ("client2", "2027-01-15"),
        ]
        await at.spend(1, 20)
        await at.set(timezone="UTC")  # and back a day
        await at.spend(2, 5)
        assert await at.shown("client1") == [("client1", DAY, 50, 5, 0, 10)]
        assert [row[1:] for row in await at.shown("client1", None, "2027-01-16")] == [
            ("2027-01-16", 50, 20, 0, 40)
        ]

    at_office(database_url, work)


def test_a_client_is_added_with_its_quotas(database_url: str) -> None:
    async def work(at: Office) -> None:
        change = ClientChange(
            monthly_quota=10 * MICROS, daily_quota=0, timezone="Asia/Kathmandu", low_balance=1
        )
        await at.admin.add_client("new", change)
        found = await at.admin.client("new")
        assert (found.client.monthly_quota, found.client.daily_quota) == (10 * MICROS, 0)
        assert (found.client.timezone, found.client.low_balance) == ("Asia/Kathmandu", 1)
        assert found.books.quotas.counted
        assert [row[:3] for row in await at.shown("new")] == [
            ("new", MONTH, 10_000),
            ("new", DAY, 0),
        ]
        assert not (await at.admin.client("client2")).books.quota_counted

    at_office(database_url, work)


@pytest.mark.parametrize("zone", ["", "Berlin", "Europe/Berlin\n", "../etc/passwd"])
def test_a_time_zone_that_is_none_changes_nothing(sqlite_url: str, zone: str) -> None:
    async def work(at: Office) -> None:
        with pytest.raises(RefusedError, match="expected an IANA name as Europe/Berlin"):
            await at.set(daily_quota=5, timezone=zone)
        assert await at.shown() == []
        assert await query(at.database, "SELECT * FROM astaudit") == []

    at_office(sqlite_url, work)


def test_a_change_of_quotas_is_on_record(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(daily_quota=50, timezone="Europe/Berlin")
        await at.set(daily_quota=None, low_balance=5)
        rows = await query(at.database, "SELECT * FROM astaudit ORDER BY id")
        assert [
            (json.loads(row["state_before"]), json.loads(row["state_after"])) for row in rows
        ] == [
            (
                {"daily_quota": None, "timezone": "UTC"},
                {"daily_quota": "0.050000", "timezone": "Europe/Berlin"},
            ),
            (
                {"daily_quota": "0.050000", "low_balance": None},
                {"daily_quota": None, "low_balance": "0.005000"},
            ),
        ]

    at_office(database_url, work)


def test_quotas_set_during_a_burst_hold_from_then_on(database_url: str) -> None:
    """Whichever comes first: nothing is counted twice or not at all, and then nothing more fits."""

    async def work(at: Office) -> None:
        async with server(at.database, most_operations=4) as batcher:
            calls = [batcher.submit(request(n)) for n in range(60)]
            for most in (20, 15, 12):
                await at.set(daily_quota=most * LONG_TALK)
            outcomes = await asyncio.gather(*calls)
            allowed = sum(isinstance(o, Decision) and o.allowed for o in outcomes)
            later = await asyncio.gather(*(batcher.submit(request(n)) for n in range(60, 70)))
        (shown,) = await at.shown()
        assert shown[4] == allowed * LONG_TALK
        assert [o.status.value for o in later if isinstance(o, Decision)] == ["QUOTA"] * 10
        assert allowed >= 12

    at_office(database_url, work)


def test_a_low_balance_is_told_by_charges_and_by_adjustments(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(low_balance=50)
        await at.money.adjust("client1", -40 * SECOND, "fee")
        assert await at.told() == []
        await at.money.adjust("client1", -11 * SECOND, "fee")
        assert await at.told() == ["low-balance:1:3"]
        await at.spend(1, 5)
        await at.money.top_up("client1", 1 * SECOND)
        assert len(await at.told()) == 1
        await at.money.top_up("client1", 100 * SECOND)
        await at.spend(2, 90)
        await at.money.adjust("client1", -5 * SECOND, "fee")
        assert len(await at.told()) == 1  # at the mark is not below it
        await at.money.adjust("client1", -1, "fee")
        assert await at.told() == ["low-balance:1:3", "low-balance:1:9"]

    at_office(database_url, work, prepaid(1, 100 * SECOND), prepaid(2))


def test_a_new_mark_below_the_balance_is_told_of_when_it_is_passed(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.set(low_balance=200)
        await at.spend(1, 1)
        assert len(await at.told()) == 1
        await at.set(low_balance=50)
        await at.spend(2, 60)
        assert len(await at.told()) == 2

    at_office(database_url, work, prepaid(1, 100 * SECOND), prepaid(2))


def test_a_mark_moved_to_and_fro_is_told_of_once(database_url: str) -> None:
    """Nothing was booked in between: it is the same low balance, and no call fails of it."""

    async def work(at: Office) -> None:
        await at.set(low_balance=200)
        await at.spend(1, 1)
        await at.set(low_balance=None)
        await at.set(low_balance=200)
        await at.play(request(2), caller_ended(2))
        assert await at.told() == ["low-balance:1:2"]

    at_office(database_url, work, prepaid(1, 100 * SECOND), prepaid(2))


def test_what_a_correction_added_is_part_of_what_was_spent(database_url: str) -> None:
    """The first quota finds it; the audit compares with it."""

    async def work(at: Office) -> None:
        await at.spend(1, 100)
        async with at.database.transaction() as connection:
            corrected = update(astcdr).where(astcdr.c.id == call_id(1))
            await connection.execute(corrected.values(corrected=-30 * SECOND))
            books = SqlBooksTransaction(CoreSession(connection), at.database.dialect)
            before = (await books.lock_clients([1]))[1]
            after, refund = before.post(
                LedgerKind.REFUND,
                30 * SECOND,
                reference="correction",
                actor="test",
                now_ms=NOW_MS,
                call_id=call_id(1),
            )
            await books.write(Changes(ledger=[refund], clients={1: after}))
        await at.set(daily_quota=1_000)
        assert await at.shown() == [("client1", DAY, 1_000, 70, 0, 7)]

    at_office(database_url, work)


def test_without_a_quota_reservations_have_no_period(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.play(request(1), request(2, "bob"))
        await at.set(monthly_quota=50)
        async with at.database.reading() as connection:
            held = await connection.execute(
                select(astcreditres.c.quota_month, astcreditres.c.quota_day).order_by(
                    astcreditres.c.call_id
                )
            )
            assert [tuple(row) for row in held] == [(MONTH, DAY), (None, None)]

    at_office(database_url, work)
