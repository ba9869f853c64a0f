"""What corrections of estimated calls do to quotas: those of the calls' days, resets remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.operations import Gone, NodeHeard
from astcredit.service.quota_desk import QuotaDesk
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.database import Database
from astcredit.storage.tables import astoutbox, astquota
from support.core import NODE, NOW_MS, call_id, opened
from support.outage import LATER_MS, Outage, Records, line, prepared

SECOND = 1_000
DAY_MS = 86_400_000
DAY = "2027-01-15"


@dataclass(frozen=True)
class Office:
    """An outage of which client 1 has quotas."""

    database: Database
    world: Outage
    admin: Administration
    quotas: QuotaDesk

    async def daily(self, seconds: int | None) -> None:
        """Set the quota of the day, in seconds of talk."""
        quota = None if seconds is None else seconds * SECOND
        await self.admin.set_client("client1", ClientChange(daily_quota=quota))

    async def last_heard(self, number: int, talk_ms: int) -> None:
        """A call that is gone, and was heard of until so long after its answer."""
        await self.world.talking(number)
        await self.world.apply(NodeHeard(NODE, NOW_MS + 5_000 + talk_ms))
        await self.world.apply(Gone(call_id(number), self.world.clock.now_ms))

    async def corrected(self, number: int, talk_ms: int) -> None:
        """Asterisk's record says that a call lasted so long."""
        records = Records(line(number, 5_000, 5_000 + talk_ms))
        report = await self.world.reconciliation.with_records(records)
        assert report.changed == 1

    async def row(self, period: str = DAY) -> dict[str, Any]:
        async with self.database.reading() as connection:
            rows = await connection.execute(select(astquota).where(astquota.c.period == period))
            return dict(rows.mappings().one())

    async def seconds(self, period: str = DAY) -> tuple[int, int]:
        """What is spent and what is waived of it, in seconds."""
        row = await self.row(period)
        return row["spent"] // SECOND, row["waived"] // SECOND

    async def told(self) -> list[str]:
        async with self.database.reading() as connection:
            wanted = select(astoutbox.c.reference).where(astoutbox.c.audience == "client")
            return [row[0] for row in await connection.execute(wanted)]


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    """Run `work`, and the audit after it."""

    async def run() -> None:
        async with opened(url) as database:
            world, store = await prepared(database), SqlAdministration(database)
            admin = Administration(store, "me@here", world.clock)
            await work(Office(database, world, admin, QuotaDesk(store, "me@here", world.clock)))
            assert (await SqlAuditor(database).examine()).findings == []

    asyncio.run(run())


def test_a_correction_is_held_against_the_quota_of_the_calls_day(database_url: str) -> None:
    """Three quarters of that are nothing to be told of, however small today's quota is."""

    async def work(at: Office) -> None:
        await at.daily(4_000)
        await at.last_heard(1, 20_000)
        at.world.clock.now_ms += DAY_MS
        await at.daily(1)
        await at.corrected(1, 3_000_000)
        assert await at.seconds() == (3_000, 0)
        assert (await at.row())["quota"] == 4_000 * SECOND
        assert await at.told() == []

    at_office(database_url, work)


def test_a_refund_that_leaves_something_ends_being_blocked(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.daily(3_600)
        await at.world.talking(1)
        await at.world.expired(1)
        assert (await at.row())["blocked_at"] == LATER_MS
        await at.corrected(1, 3_599_000)
        assert (await at.row())["blocked_at"] is None

    at_office(database_url, work)


def test_a_refund_of_a_call_from_before_a_reset_is_waived_with_it(database_url: str) -> None:
    """And leaves what was spent after the reset where it is."""

    async def work(at: Office) -> None:
        await at.daily(20_000)
        await at.world.talking(1)
        await at.world.expired(1)
        await at.quotas.reset("client1", "agreed", ["daily"])
        assert await at.seconds() == (3_600, 3_600)
        at.world.clock.now_ms += 1
        await at.world.over(2, 1_000_000)
        assert await at.seconds() == (4_600, 3_600)
        await at.corrected(1, 10_000)
        assert await at.seconds() == (1_010, 10)
        assert await at.seconds(DAY[:7]) == (1_010, 0)  # the month was not reset

    at_office(database_url, work)


def test_a_call_from_before_a_reset_that_cost_more_is_waived_whole(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.daily(20_000)
        await at.last_heard(1, 20_000)
        at.world.clock.now_ms += 1
        await at.quotas.reset("client1", "agreed")
        await at.corrected(1, 50_000)
        assert await at.seconds() == (50, 50)

    at_office(database_url, work)


def test_a_call_that_was_booked_after_a_reset_counts_though_it_ended_before(
    database_url: str,
) -> None:
    """Nobody had heard of its end when the quota was reset: none of it was waived."""

    async def work(at: Office) -> None:
        await at.daily(20_000)
        await at.world.over(1, 7_000)
        await at.world.talking(2)
        await at.world.apply(NodeHeard(NODE, NOW_MS + 25_000))
        at.world.clock.now_ms += 60_000
        await at.quotas.reset("client1", "agreed")
        at.world.clock.now_ms += 60_000
        await at.world.apply(Gone(call_id(2), at.world.clock.now_ms))
        assert await at.seconds() == (27, 7)
        await at.corrected(2, 4_000)
        assert await at.seconds() == (11, 7)

    at_office(database_url, work)
