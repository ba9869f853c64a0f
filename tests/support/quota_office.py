"""The desks at which quotas are set, looked at and reset, on a database that a server works on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from astcredit.domain.books import ClientBooks
from astcredit.domain.decisions import Decision
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.ledger import Ledger
from astcredit.service.money_desk import MoneyDesk
from astcredit.service.operations import Operation
from astcredit.service.quota_desk import QuotaDesk
from astcredit.service.quota_ports import QuotaQuery
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.tables import astoutbox, astquota
from support.core import (
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
"""What a second of talk costs."""


@dataclass(frozen=True)
class Office:
    """The desks on one database, and a server's ledger on it, by one clock."""

    database: Database
    clock: Clock
    admin: Administration
    quotas: QuotaDesk
    money: MoneyDesk
    ledger: Ledger

    async def play(self, *operations: Operation) -> list[str]:
        """Apply the operations in a transaction each: statuses, with seconds of what is allowed."""
        said = []
        for operation in operations:
            outcomes: list[Any] = []
            await self.ledger.apply([operation], {}, outcomes)
            (outcome,) = outcomes
            if isinstance(outcome, Decision):
                said.append(f"{outcome.seconds}" if outcome.allowed else outcome.status.value)
        return said

    async def spend(self, number: int, seconds: int) -> None:
        """A call that lasts so long."""
        now_ms = self.clock.now_ms
        await self.play(
            request(number), answered(number, now_ms), leg_ended(number, now_ms + seconds * 1000)
        )

    async def set(self, who: str = "client1", /, **amounts: int | str | None) -> None:
        """Amounts in seconds of talk."""
        micros = {k: v * SECOND if isinstance(v, int) else v for k, v in amounts.items()}
        await self.admin.set_client(who, ClientChange(**micros))  # type: ignore[arg-type]

    async def shown(self, *wanted: Any) -> list[tuple[Any, ...]]:
        """client, period, quota, spent, reserved in seconds, percent."""
        found = await self.quotas.quotas(QuotaQuery(*wanted))
        return [
            (
                each.client.name,
                each.quota.period,
                each.quota.most // SECOND,
                each.usage.counted // SECOND,
                each.usage.reserved // SECOND,
                each.percent,
            )
            for each in found
        ]

    async def rows(self) -> dict[str, dict[str, Any]]:
        """astquota of client 1, by period."""
        async with self.database.reading() as connection:
            found = await connection.execute(select(astquota).where(astquota.c.client_id == 1))
            return {row.period: dict(row._mapping) for row in found}

    async def told(self) -> list[str]:
        async with self.database.reading() as connection:
            rows = await connection.execute(
                select(astoutbox.c.reference).where(astoutbox.c.audience == "client")
            )
            return [row[0].removesuffix(":client") for row in rows]


def at_office(url: str, work: Callable[[Office], Awaitable[None]], *clients: ClientBooks) -> None:
    """Run `work`, and the audit after it."""

    async def run() -> None:
        async with opened(url) as database:
            await seed(database, clients or [postpaid(1), prepaid(2)])
            clock, store = Clock(), SqlAdministration(database)
            source = SqlCatalog(database, inline_rates=1_000)
            office = Office(
                database,
                clock,
                Administration(store, "me@here", clock),
                QuotaDesk(store, "me@here", clock),
                MoneyDesk(store, "me@here", clock),
                Ledger(SqlBooks(database), source, policy(), clock),
            )
            await work(office)
            assert (await SqlAuditor(database).examine()).findings == []
            await source.close()

    asyncio.run(run())
