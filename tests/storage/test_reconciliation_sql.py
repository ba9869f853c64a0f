"""Reconciling on both kinds of database: what is closed and corrected, once and for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from astcredit.domain.calls import HangupReport
from astcredit.service.errors import CommitUnknown, RefusedError
from astcredit.service.operations import Gone, NodeHeard
from astcredit.service.reconciliation_ports import Done, Report
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.database import Database
from astcredit.storage.tables import astaudit, astcdr, astclient, astledger, astquota
from support.core import NODE, NOW_MS, call_id, hangup, opened
from support.outage import (
    BALANCE,
    HOUR_PRICE,
    LATER_MS,
    Outage,
    Records,
    line,
    prepared,
)

T = TypeVar("T")


def outage(
    url: str, story: Callable[[Outage, Database], Awaitable[T]], balance: int = BALANCE
) -> T:
    """Run a story on a fresh database; the books are in order afterwards."""

    async def run() -> T:
        async with opened(url) as database:
            told = await story(await prepared(database, balance), database)
            result = await SqlAuditor(database).examine()
            assert result.findings == []
            return told

    return asyncio.run(run())


async def rows(database: Database, table: Any) -> list[Mapping[str, Any]]:
    async with database.reading() as connection:
        found = await connection.execute(select(table).order_by(next(iter(table.c))))
        return [dict(row) for row in found.mappings()]


async def cdr(database: Database, number: int) -> Mapping[str, Any]:
    (found,) = [r for r in await rows(database, astcdr) if r["id"] == call_id(number)]
    return found


async def balance(database: Database, client: int = 1) -> int:
    (found,) = [r for r in await rows(database, astclient) if r["id"] == client]
    return int(found["balance"])


def done(report: Report) -> dict[str, tuple[Done, int]]:
    """By number of the call, what was done with it and what the balance changed by."""
    return {str(int(row.doubtful.call.call_id[1:])): (row.done, row.amount) for row in report.rows}


def test_an_open_call_that_is_over_is_closed_with_asterisks_answer_and_end(
    database_url: str,
) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1, 2, 3)
        await world.talking(4)
        records = Records(line(1, 4_000, 64_500), line(2, None, 30_000), line(4, 4_990, 12_500))
        report = await world.reconciliation.with_records(records, NODE)
        assert done(report) == {
            "1": (Done.CLOSED, -61_000), "2": (Done.CLOSED, 0), "4": (Done.CLOSED, -8_000)
        }  # fmt: skip
        first, second = await cdr(database, 1), await cdr(database, 2)
        assert (first["status"], first["settled_by"], first["estimated"]) == (
            "completed", "reconcile", 0
        )  # fmt: skip
        assert (first["answered_at"], first["ended_at"]) == (NOW_MS + 4_000, NOW_MS + 64_500)
        assert (first["answeredtime"], first["billsec"], first["price"]) == (60_500, 61, 61_000)
        assert (second["status"], second["dialstatus"], second["price"]) == (
            "failed", "NOANSWER", 0
        )  # fmt: skip
        # The answer that was heard is more exact than the record's.
        assert (await cdr(database, 4))["answeredtime"] == 7_500
        assert (await cdr(database, 3))["status"] == "open"
        assert await balance(database) == BALANCE - 69_000
        assert [e["action"] for e in await rows(database, astaudit)] == ["reconcile"] * 3

    outage(database_url, story)


def test_an_estimate_is_corrected_by_a_row_of_its_own(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.talking(1, 2)
        await world.ringing(3, 4)
        await world.expired(1, 2, 3, 4)
        assert await balance(database) == BALANCE - 2 * HOUR_PRICE
        records = Records(
            line(1, 5_000, 65_000), line(2, 5_000, 5_000 + 3_600_200),
            line(3, 2_000, 12_000), line(4, None, 30_000),
        )  # fmt: skip
        report = await world.reconciliation.with_records(records)
        assert done(report) == {
            "1": (Done.REFUNDED, HOUR_PRICE - 60_000),
            "2": (Done.CONFIRMED, 0),
            "3": (Done.CHARGED, -10_000),
            "4": (Done.CONFIRMED, 0),
        }
        cdrs = await rows(database, astcdr)
        assert {c["estimated"] for c in cdrs} == {0}
        assert [c["corrected"] for c in cdrs] == [60_000 - HOUR_PRICE, None, 10_000, None]
        assert [c["corrected_billsec"] for c in cdrs] == [60, None, 10, None]
        assert [c["corrected_answeredtime"] for c in cdrs] == [60_000, None, 10_000, None]
        assert {c["corrected_at"] for c in cdrs} == {LATER_MS}
        # What was charged stands.
        assert [c["price"] for c in cdrs] == [HOUR_PRICE, HOUR_PRICE, 0, 0]
        assert [c["status"] for c in cdrs] == ["completed", "completed", "failed", "failed"]
        assert all("no end was seen" in c["note"] for c in cdrs)
        booked = [e for e in await rows(database, astledger) if e["reference"][:4] == "corr"]
        assert [(e["kind"], e["amount"], e["reference"], e["actor"]) for e in booked] == [
            ("refund", HOUR_PRICE - 60_000, f"correction:{call_id(1)}:1", "ops@test"),
            ("adjustment", -10_000, f"correction:{call_id(3)}:1", "ops@test"),
        ]
        assert await balance(database) == BALANCE - HOUR_PRICE - 60_000 - 10_000
        assert [e["action"] for e in await rows(database, astaudit)] == ["correct"] * 4

    outage(database_url, story)


def test_a_second_run_changes_nothing(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.talking(1)
        await world.ringing(2)
        await world.expired(1)
        records = Records(line(1, 5_000, 65_000), line(2, 2_000, 12_000))
        await world.reconciliation.with_records(records)
        before = [await rows(database, t) for t in (astcdr, astledger, astclient, astaudit)]
        report = await world.reconciliation.with_records(records)
        assert (report.rows, report.looked_at, report.changed) == ([], 0, 0)
        assert before == [await rows(database, t) for t in (astcdr, astledger, astclient, astaudit)]

    outage(database_url, story)


def test_a_dry_run_says_the_same_and_changes_nothing(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.talking(1)
        await world.ringing(2, 3)
        await world.expired(1)
        records = Records(line(1, 5_000, 65_000), line(2, 2_000, 12_000), line(3, None, 9_000))
        before = [await rows(database, t) for t in (astcdr, astledger, astclient, astaudit)]
        foreseen = await world.reconciliation.with_records(records, dry_run=True)
        assert before == [await rows(database, t) for t in (astcdr, astledger, astclient, astaudit)]
        assert foreseen == await world.reconciliation.with_records(records)

    outage(database_url, story)


def test_two_runs_at_once_correct_once(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.talking(1, 2, 3)
        await world.ringing(4)
        await world.expired(1, 2, 3)
        records = Records(*(line(n, 5_000, 65_000) for n in (1, 2, 3, 4)))
        one, other = await asyncio.gather(
            world.reconciler("one@test").with_records(records),
            world.reconciler("other@test").with_records(records),
        )
        changed = [r for r in (*one.rows, *other.rows) if r.done is not Done.OVERTAKEN]
        assert sorted(r.doubtful.call.call_id for r in changed) == [call_id(n) for n in range(1, 5)]
        assert await balance(database) == BALANCE - 4 * 60_000

    outage(database_url, story)


def test_a_lost_answer_to_commit_is_found_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, and the connection lost: said to be done, and done once."""

    async def story(world: Outage, database: Database) -> None:
        await world.talking(1)
        await world.expired(1)
        booking, lost = world.store.booking, 1

        def losing() -> Any:
            nonlocal lost
            opened = booking()
            if lost:
                lost -= 1
                commit = opened.__aexit__

                async def leave(*arguments: Any) -> None:
                    await commit(*arguments)
                    raise CommitUnknown("lost")

                opened.__class__ = type(
                    "Losing", (opened.__class__,), {"__aexit__": lambda self, *a: leave(*a)}
                )
            return opened

        monkeypatch.setattr(world.store, "booking", losing)
        report = await world.reconciliation.with_records(Records(line(1, 5_000, 65_000)))
        assert done(report) == {"1": (Done.REFUNDED, HOUR_PRICE - 60_000)}
        assert await balance(database) == BALANCE - 60_000

    outage(database_url, story)


def test_a_prepaid_client_keeps_what_it_has_not(database_url: str) -> None:
    """Two calls at once had 0.02 and 0.01 reserved; by now the balance is 0.012."""

    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1)
        await world.expired(1)
        async with database.transaction() as connection:
            value = "12000" if database.is_sqlite else "0.012"
            await connection.exec_driver_sql(f"UPDATE astclient SET balance = {value} WHERE id = 1")
            await connection.exec_driver_sql(
                f"UPDATE astledger SET amount = {value}, balance_after = {value}"
                " WHERE client_id = 1"
            )
        report = await world.reconciliation.with_records(Records(line(1, 5_000, 25_000)))
        assert done(report) == {"1": (Done.CHARGED, -12_000)}
        found = await cdr(database, 1)
        assert (found["corrected"], found["corrected_billsec"]) == (12_000, 20)
        assert "0.008 not collected" in found["note"]
        assert await balance(database) == 0

    outage(database_url, story)


def test_a_call_whose_node_was_heard_since_is_left_to_the_listener(database_url: str) -> None:
    """A record ends with the caller; a leg that was transferred may be up for long."""

    async def story(world: Outage, database: Database) -> None:
        await world.talking(1)
        await world.apply(NodeHeard(NODE, NOW_MS + 60_000))
        records = Records(line(1, 5_000, 30_000))
        report = await world.reconciliation.with_records(records)
        assert done(report) == {"1": (Done.LEFT, 0)}
        assert "heard since" in report.rows[0].note
        assert (await cdr(database, 1))["status"] == "answered"

    outage(database_url, story)


def test_what_recovery_estimated_is_corrected(database_url: str) -> None:
    """Charged until it was last known to be up; it went on for a while."""

    async def story(world: Outage, database: Database) -> None:
        await world.talking(1)
        await world.apply(NodeHeard(NODE, NOW_MS + 25_000))
        await world.apply(Gone(call_id(1), NOW_MS + 500_000))
        assert (await cdr(database, 1))["price"] == 20_000
        report = await world.reconciliation.with_records(Records(line(1, 5_000, 305_000)))
        assert done(report) == {"1": (Done.CHARGED, -280_000)}
        assert await balance(database) == BALANCE - 300_000

    outage(database_url, story)


def test_a_blind_transfer_that_nobody_saw_is_charged_to_the_legs_end(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1)
        report = hangup(1, NOW_MS + 15_000, 10_000, transfer="PJSIP/carrier-1")
        assert isinstance(report, HangupReport)
        await world.apply(report)
        assert (await cdr(database, 1))["estimated"] == 1
        first = line(1, 5_000, 15_000)
        leg = replace(
            line(2, 15_100, 115_000, start=15_100),
            uniqueid="leg-1", channel=first.dstchannel, dstchannel="PJSIP/other-1",
        )  # fmt: skip
        records = Records(first, leg)
        found = await world.reconciliation.with_records(records)
        assert done(found) == {"1": (Done.CHARGED, -100_000)}
        assert "transfer" in found.rows[0].note

    outage(database_url, story)


def test_several_calls_of_one_channel_are_told_apart(database_url: str) -> None:
    """The first one's end was heard; its record is not taken for the second's."""

    async def story(world: Outage, database: Database) -> None:
        await world.over(1, 10_000, channel="same")
        world.clock.now_ms = NOW_MS + 20_000
        await world.ringing(2, channel="same")
        await world.expired(2)
        same = replace(line(1, 5_000, 15_000), uniqueid="same")
        report = await world.reconciliation.with_records(Records(same))
        assert done(report) == {"2": (Done.LEFT, 0)}
        second = replace(line(2, 30_000, 33_000, start=15_000), uniqueid="same")
        report = await world.reconciliation.with_records(Records(same, second))
        assert done(report) == {"2": (Done.CHARGED, -3_000)}

    outage(database_url, story)


def test_a_uniqueid_of_two_servers_needs_the_servers_name(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1, channel="same", node="pbx1")
        await world.ringing(2, channel="same", node="pbx2")
        await world.expired(1, 2)
        records = Records(replace(line(1, 5_000, 15_000), uniqueid="same"))
        report = await world.reconciliation.with_records(records)
        assert {row.done for row in report.rows} == {Done.LEFT}
        assert "--node" in report.rows[0].note
        report = await world.reconciliation.with_records(records, "pbx1")
        assert done(report) == {"1": (Done.CHARGED, -10_000)}
        report = await world.reconciliation.with_records(Records(), "pbx2")
        assert done(report) == {"2": (Done.LEFT, 0)}

    outage(database_url, story)


def test_without_uniqueids_a_call_is_found_by_its_channel_and_time(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1, 2)
        await world.expired(1, 2)
        nameless = replace(line(1, 5_000, 15_000), uniqueid="")
        day = 86_400_000
        before = [
            replace(line(number, 5_000 - day, 95_000 - day, start=-day), uniqueid="")
            for number in (1, 2)
        ]
        report = await world.reconciliation.with_records(Records(*before, nameless))
        assert done(report) == {"1": (Done.CHARGED, -10_000), "2": (Done.LEFT, 0)}

    outage(database_url, story)


def test_records_that_cannot_be_relied_on_change_nothing(database_url: str) -> None:
    class Broken(Records):
        def about(self, names: Any) -> Any:
            yield from super().about(names)
            raise RefusedError("line 7 is bad")

    async def story(world: Outage, database: Database) -> None:
        await world.ringing(1)
        with pytest.raises(RefusedError):
            await world.reconciliation.with_records(Broken(line(1, 5_000, 15_000)))
        assert (await cdr(database, 1))["status"] == "open"

    outage(database_url, story)


def test_without_records_what_can_last_no_longer_is_closed(database_url: str) -> None:
    async def story(world: Outage, database: Database) -> None:
        report = await world.reconciliation.without_records()
        assert (report.rows, report.looked_at) == ([], 0)
        await world.talking(1)
        await world.ringing(2)
        assert (await world.reconciliation.without_records()).rows == []
        world.clock.now_ms = NOW_MS + 3_610_000
        (row,) = (await world.reconciliation.without_records()).rows
        assert (row.doubtful.call.call_id, row.done) == (call_id(1), Done.LEFT)
        assert "its time was over" in row.note
        world.clock.now_ms = LATER_MS
        foreseen = await world.reconciliation.without_records(dry_run=True)
        assert [r.done for r in foreseen.rows] == [Done.EXPIRED, Done.EXPIRED]
        assert (await cdr(database, 1))["status"] == "answered"
        report = await world.reconciliation.without_records()
        assert done(report) == {"1": (Done.EXPIRED, -HOUR_PRICE), "2": (Done.EXPIRED, 0)}
        assert await rows(database, astaudit) != []
        again = await world.reconciliation.without_records()
        assert done(again) == {"1": (Done.LEFT, 0), "2": (Done.LEFT, 0)}
        assert "--asterisk-cdr" in again.rows[0].note

    outage(database_url, story)


def test_a_correction_counts_against_the_quotas_of_the_calls_day(database_url: str) -> None:
    """A refund makes room, also in what was waived; a charge may pass a threshold."""

    async def story(world: Outage, database: Database) -> None:
        quota = "10000000" if database.is_sqlite else "10"
        async with database.transaction() as connection:
            await connection.exec_driver_sql(
                f"UPDATE astclient SET monthly_quota = {quota}, quota_counted = 1 WHERE id = 1"
            )
        await world.talking(1)
        await world.expired(1)
        async with database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astquota SET waived = spent")
        await world.reconciliation.with_records(Records(line(1, 5_000, 65_000)))
        used = await rows(database, astquota)
        assert {(u["spent"], u["waived"]) for u in used} == {(60_000, 60_000)}

    outage(database_url, story)
